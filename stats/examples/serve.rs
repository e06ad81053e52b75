//! A program without a runtime that tells over HTTP what its memory is doing: one line.
//!
//! ```text
//! $ cargo run -p freestone-stats --features http --example serve -- 127.0.0.1:6060
//! look at http://127.0.0.1:6060/debug/freestone/ui
//!
//! $ curl -X POST http://127.0.0.1:6060/debug/freestone/release
//! 21.4 MiB went back to the system (22437888 bytes)
//! ```

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use freestone::Freestone;

#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

fn main() {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    // The one line. The server ends with `server`.
    let server = match freestone_stats::http::serve(&address) {
        Ok(server) => server,
        Err(error) => {
            eprintln!("{error}");
            std::process::exit(1);
        }
    };
    println!("look at http://{}/debug/freestone/ui", server.address());

    // Something to look at: a cache that fills and is emptied, and a queue that others work on.
    let workers: Vec<_> = (0..2).map(|number| std::thread::Builder::new().name(format!("worker-{number}")).spawn(work)).collect();
    let mut cache = HashMap::new();
    for turn in 0_usize.. {
        let phase = turn % 600;
        if phase < 400 {
            for key in 0..200 {
                cache.insert((turn, key), vec![7_u8; 64 + (turn * 31 + key * 97) % 3000]);
            }
        } else if phase == 500 {
            cache.retain(|(_, key), _| key % 50 == 0);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(workers);
}

fn work() {
    let mut queue = VecDeque::new();
    for turn in 0_usize.. {
        queue.push_back(format!("order {turn}").repeat(1 + turn % 40));
        if queue.len() > 5000 + (turn / 2000 % 5) * 4000 {
            queue.drain(..1000);
        }
        if turn % 200 == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
