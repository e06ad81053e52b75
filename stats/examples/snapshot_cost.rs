//! What a snapshot costs, where there is much to look at: 200 threads that have used every size class, and 4 GiB live.
//!
//! ```text
//! $ cargo run --release -p freestone-stats --features openmetrics --example snapshot_cost
//! 200 threads, 4710 MiB live in 26456634 blocks
//! freestone::snapshot(): median 95.33µs, 5 % 94.75µs, 95 % 102.181µs
//! freestone_stats::snapshot(): median 99.9µs, 5 % 99.38µs, 95 % 105.96µs
//! freestone_stats::threads(): median 360.38µs, 5 % 356.29µs, 95 % 368.091µs
//! freestone_stats::openmetrics::text(): median 124.791µs, 5 % 123.7µs, 95 % 131.01µs
//! ```

use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use freestone::Freestone;

#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

const ROUNDS: usize = 300;

fn main() {
    let mut numbers = std::env::args().skip(1).map(|argument| argument.parse::<usize>().expect("threads and MiB are numbers"));
    let threads = numbers.next().unwrap_or(200);
    let live = numbers.next().unwrap_or(4096) << 20;
    let (ready, done) = (&Barrier::new(threads + 1), &Barrier::new(threads + 1));
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(move || {
                let blocks = blocks_of_all_classes(live / threads);
                ready.wait();
                done.wait();
                drop(blocks);
            });
        }
        ready.wait();
        let now = freestone_stats::snapshot();
        println!("{} threads, {} MiB live in {} blocks", threads, now.heap.bytes.live >> 20, now.heap.live_blocks());
        say("freestone::snapshot()", freestone::snapshot);
        say("freestone_stats::snapshot()", freestone_stats::snapshot);
        say("freestone_stats::threads()", freestone_stats::threads);
        say("freestone_stats::openmetrics::text()", freestone_stats::openmetrics::text);
        done.wait();
    });
}

/// So many bytes in blocks of every class, more of the small ones than of the large.
fn blocks_of_all_classes(bytes: usize) -> Vec<Vec<u8>> {
    let sizes: Vec<usize> = freestone::snapshot().classes.iter().map(|class| class.block_bytes).collect();
    let mut blocks = Vec::new();
    let mut left = bytes;
    for (round, &size) in sizes.iter().cycle().enumerate() {
        if left < size {
            break;
        }
        let count = if round < sizes.len() { 1 } else { (64 << 10) / size };
        blocks.extend((0..count).map(|_| vec![7_u8; size]));
        left = left.saturating_sub(count * size);
    }
    blocks
}

fn say<R>(what: &str, work: impl Fn() -> R) {
    let mut took: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let began = Instant::now();
            let result = black_box(work());
            let took = began.elapsed();
            drop(result);
            took
        })
        .collect();
    took.sort_unstable();
    println!("{what}: median {:?}, 5 % {:?}, 95 % {:?}", took[ROUNDS / 2], took[ROUNDS / 20], took[ROUNDS - ROUNDS / 20]);
}
