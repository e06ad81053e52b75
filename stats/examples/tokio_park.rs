//! Tokio with many worker threads that are mostly idle: each empties its cache before it sleeps.
//!
//! ```text
//! $ cargo run -p freestone-stats --example tokio_park
//! 64 workers, parked as they are:          912.7 KiB in the caches of 65 threads
//! 64 workers, emptied before they park:    160.8 KiB in the caches of 65 threads
//! ```
//!
//! Without the hook somebody else takes these caches after a second or two, where somebody is awake to do it: `docs/tuning.md`.

use std::hint::black_box;

use freestone::{Background, Freestone};
use freestone_stats::threads;

// Without a thread of the allocator's own, so that the hook has no help.
#[global_allocator]
static GLOBAL: Freestone = Freestone::new().background(Background::Off);

const WORKERS: usize = 64;

/// A burst of work on all workers, then rest; says what lies in caches afterwards.
fn burst(builder: &mut tokio::runtime::Builder) -> String {
    let runtime = builder.worker_threads(WORKERS).enable_time().build().expect("a runtime");
    runtime.block_on(async {
        let tasks: Vec<_> = (0..20 * WORKERS)
            .map(|task| {
                tokio::spawn(async move {
                    let words: Vec<String> = (0..200).map(|word| format!("{task} {word}")).collect();
                    tokio::task::yield_now().await;
                    black_box(words).len()
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("no task panics");
        }
        // Until all workers are parked.
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    });
    let threads = threads();
    let cached: u64 = threads.iter().map(|thread| thread.cached_bytes).sum();
    let living = threads.iter().filter(|thread| thread.id.is_some()).count();
    format!("{:>8.1} KiB in the caches of {living} threads", cached as f64 / 1024.0)
}

fn main() {
    let mut as_they_are = tokio::runtime::Builder::new_multi_thread();
    println!("{WORKERS} workers, parked as they are:       {}", burst(&mut as_they_are));
    let mut emptied = tokio::runtime::Builder::new_multi_thread();
    emptied.on_thread_park(freestone::control::thread_idle);
    println!("{WORKERS} workers, emptied before they park: {}", burst(&mut emptied));
}
