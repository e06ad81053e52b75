//! Which call site leaks? Two looks at a service, one of whose collections nobody empties.
//!
//! ```text
//! RUSTFLAGS="-C force-frame-pointers=yes" cargo run --release --example leaks --features names
//! ```
//!
//! `FREESTONE_LEAK_REPORT=1` says the same at the end of any program that calls `freestone_stats::init()`.

use std::collections::{HashMap, VecDeque};
use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

use freestone::Freestone;
use freestone_stats::profile;

#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

#[derive(Default)]
struct Service {
    /// The last answers, at most a thousand.
    cache: VecDeque<Vec<u8>>,
    /// Who is there. Nobody ever leaves: this is the leak.
    sessions: HashMap<u64, Vec<u8>>,
}

impl Service {
    #[inline(never)]
    fn remember(&mut self, request: u64) {
        self.cache.push_back(vec![7; 2000 + (request % 100) as usize * 50]);
        if self.cache.len() > 1000 {
            self.cache.pop_front();
        }
    }

    #[inline(never)]
    fn open_session(&mut self, request: u64) {
        self.sessions.insert(request, vec![7; 600]);
    }

    fn serve(&mut self, request: u64) {
        black_box((0..20).map(|header| format!("header-{header}: {request}")).collect::<Vec<_>>());
        self.remember(request);
        if request.is_multiple_of(4) {
            self.open_session(request);
        }
    }
}

fn main() {
    let seconds = std::env::args().nth(1).and_then(|seconds| seconds.parse().ok()).unwrap_or(15);
    let mut service = Service::default();
    let mut requests = 0..;
    let mut work = |time: Duration| {
        let began = Instant::now();
        while began.elapsed() < time {
            requests.by_ref().take(50).for_each(|request| service.serve(request));
            thread::sleep(Duration::from_millis(1));
        }
    };
    // So that growth is seen over all of the time, and not only at its ends.
    freestone_stats::history::start();
    // A program that has just started grows in any case.
    work(Duration::from_secs(2));
    let earlier = profile::sites();
    work(Duration::from_secs(seconds));
    println!("{}", freestone_stats::leaks(&earlier, &profile::sites()));
}
