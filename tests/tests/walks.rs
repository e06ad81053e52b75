//! Ten million random operations beside an oracle that knows every live byte: no two blocks overlap, contents stay, zeroed is zero, `realloc`
//! keeps what it must, and the allocator's counts agree with the oracle's.

use std::sync::atomic::{AtomicU64, Ordering};

use freestone::Freestone;
use freestone_tests::oracle::Walker;
use freestone_tests::seed;

/// The walk has a handle of its own; the oracle lives on the system's allocator, so that every count is the walk's.
static WALKED: Freestone = Freestone::new();

#[global_allocator]
static ORACLE: std::alloc::System = std::alloc::System;

const STEPS: usize = 5_000_000;

#[test]
fn one_thread() {
    let before = freestone::snapshot();
    let mut walker = Walker::new(&WALKED, seed());
    for round in 0..50 {
        // Waves: a heap that grows, shrinks, and grows differently.
        let target = [2_000, 20_000, 200, 5_000][round % 4];
        walker.walk(STEPS / 50, target, 300 << 10);
    }
    walker.walk(2_000, 30, 20 << 20);
    walker.finish();
    assert_eq!(walker.refusals, 0);
    let after = freestone::snapshot();
    assert!(after.allocations - before.allocations >= walker.allocations, "reallocations count too");
    freestone::control::release_to_os();
}

#[test]
fn many_threads() {
    let seed = seed();
    let done = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let done = &done;
            scope.spawn(move || {
                let mut walker = Walker::new(&WALKED, seed.wrapping_add(thread));
                walker.walk(STEPS / 4, 3_000, 100 << 10);
                walker.finish();
                done.fetch_add(walker.frees, Ordering::Relaxed);
            });
        }
    });
    assert!(done.load(Ordering::Relaxed) > STEPS as u64 / 10);
}
