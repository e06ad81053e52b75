//! A leak hunt with two snapshots: a service that forgets to close some of its sessions, and what `diagnose` says of it.
//!
//! ```text
//! $ cargo run -p freestone-stats --example leak_hunt
//! in 3.178 s: 60001 allocations (18.9 k/s), 118.1 MiB (37.2 MiB/s); 54001 frees (17.0 k/s); live +12.0 MiB; 17 OS calls
//! leak suspected (high confidence: 159 points in 3.2 s)
//!   What the program never gives back has grown by 12.0 MiB, 3.8 MiB/s lately, and goes on growing; the load does not explain it.
//!   live before 8.7 MiB; live now 20.6 MiB; floor growth 12.0 MiB; growth rate 3.8 MiB/s; load factor 1.00
//!   most of it in blocks of 4.0 KiB +11.7 MiB
//!   Find who holds it: size classes that grow, then a heap profile of what is live. A collection without a bound looks the same.
//! ```
//!
//! 3,000 sessions of 4,000 bytes are what it forgot: the size class says so.

use std::collections::HashMap;
use std::thread;
use std::time::Duration;

use freestone::Freestone;
use freestone_stats::history;

#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

/// What a client is remembered by.
struct Session {
    _inbox: Vec<u8>,
    _name: String,
}

/// Sessions that are open, and those that somebody forgot to close.
#[derive(Default)]
struct Service {
    sessions: HashMap<u64, Session>,
    next: u64,
}

impl Service {
    /// A client comes, and one that came a while ago leaves. Of ten, one hangs up without a word.
    fn serve(&mut self) {
        self.next += 1;
        let session = Session { _inbox: vec![0; 4000], _name: format!("client {}", self.next) };
        self.sessions.insert(self.next, session);
        if let Some(left) = self.next.checked_sub(2000)
            && !left.is_multiple_of(10)
        {
            self.sessions.remove(&left);
        }
    }
}

fn main() {
    // A service that runs for days does without this line: a point per second is often enough.
    history::set_interval(Duration::from_millis(20));
    history::start();

    let mut service = Service::default();
    // Let it warm up before the first look …
    (0..3000).for_each(|_| service.serve());
    let earlier = freestone_stats::snapshot();
    // … and let it work for a while.
    for _ in 0..300 {
        (0..100).for_each(|_| service.serve());
        thread::sleep(Duration::from_millis(10));
    }
    let later = freestone_stats::snapshot();

    println!("{}", later.since(&earlier));
    print!("{}", freestone_stats::diagnose(&earlier, &later));
}
