//! Ten million random operations and more, beside an oracle that knows every live byte of every thread: no two blocks overlap, contents stay,
//! zeroed is zero, `realloc` keeps what it must, and the allocator's counts agree with the oracle's. Blocks wander between threads.
//!
//! `SEED` replays what each thread decides; how threads take turns is the system's choice.

use freestone::Freestone;
use freestone_tests::oracle::{Oracle, Walker};
use freestone_tests::{alone, join_all, seed};

/// The walk has a handle of its own; the oracle lives on the system's allocator, so that every count is the walk's.
static WALKED: Freestone = Freestone::new();

#[global_allocator]
static ORACLE: std::alloc::System = std::alloc::System;

const STEPS: u64 = 5_500_000;
const THREADS: u64 = 4;

/// Fewer under `ThreadSanitizer`, which slows every step down.
fn steps() -> u64 {
    if cfg!(freestone_tsan) { STEPS / 20 } else { STEPS }
}

#[test]
fn one_thread() {
    let _alone = alone(&WALKED);
    let before = freestone::snapshot();
    let oracle = Oracle::new();
    let mut walker = Walker::new(&WALKED, &oracle, seed());
    for round in 0..50 {
        // Waves: a heap that grows, shrinks, and grows differently.
        let target = [2_000, 20_000, 200, 5_000][round % 4];
        walker.walk(steps() / 50, target, 300 << 10);
        let now = freestone::snapshot();
        let (blocks, bytes) = oracle.live();
        assert!(!now.approximate);
        assert_eq!(now.live_blocks() - before.live_blocks(), blocks as u64);
        assert!(now.bytes.live - before.bytes.live >= bytes, "{} bytes are live, the oracle knows {bytes}", now.bytes.live);
    }
    walker.walk(2_000, 30, 20 << 20);
    walker.finish();
    assert_eq!(walker.refusals, 0);
    assert!(walker.operations >= steps());
    assert_eq!(walker.frees, walker.allocations);
    assert_eq!(oracle.live(), (0, 0));
    let after = freestone::snapshot();
    // A change of size is an allocation and a free, or nothing.
    let counted = after.allocations - before.allocations;
    assert!((walker.allocations..=walker.allocations + walker.resizes).contains(&counted), "{counted} allocations: {walker:?}");
    assert_eq!(after.frees - before.frees, counted);
    freestone::control::release_to_os();
}

#[test]
fn many_threads() {
    let _alone = alone(&WALKED);
    let seed = seed();
    let before = freestone::snapshot();
    let oracle = Oracle::new();
    let walked: Vec<(u64, u64, u64, u64)> = std::thread::scope(|scope| {
        let walk = |thread| {
            let oracle = &oracle;
            scope.spawn(move || {
                let mut walker = Walker::new(&WALKED, oracle, seed.wrapping_add(thread));
                walker.walk(steps() / THREADS, 3_000, 100 << 10);
                walker.finish();
                assert_eq!(walker.refusals, 0);
                (walker.operations, walker.allocations, walker.frees, walker.resizes)
            })
        };
        join_all((0..THREADS).map(walk).collect::<Vec<_>>())
    });
    let sum = |figure: fn(&(u64, u64, u64, u64)) -> u64| walked.iter().map(figure).sum::<u64>();
    assert!(sum(|walked| walked.0) >= steps());
    // The last one to finish took what was left on the market, so everything came back.
    assert_eq!(sum(|walked| walked.1), sum(|walked| walked.2));
    assert_eq!(oracle.live(), (0, 0));
    let after = freestone::snapshot();
    assert!(!after.approximate);
    assert_eq!(after.live_blocks(), before.live_blocks());
    let (least, most) = (sum(|walked| walked.1), sum(|walked| walked.1 + walked.3));
    assert!((least..=most).contains(&(after.allocations - before.allocations)));
}
