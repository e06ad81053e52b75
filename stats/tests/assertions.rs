//! The assertions count the calling thread, exactly, whatever others do meanwhile; and they can fail.

use std::hint::black_box;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use freestone::Freestone;
use freestone_stats::assert::{count, max_allocs, max_bytes, no_alloc};

#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

fn fails_saying(words: &[&str], work: impl FnOnce()) {
    let panic = catch_unwind(AssertUnwindSafe(work)).expect_err("it was allowed");
    let said = panic.downcast_ref::<String>().expect("a message");
    assert!(words.iter().all(|word| said.contains(word)), "{said}");
}

#[test]
fn every_kind_of_block_is_counted_once() {
    // Small, middling, a span of its own, a run of pages, a huge slot.
    for bytes in [1, 64, 1000, 2000, 30_000, 100_000, 300_000, 3 << 20] {
        let (block, counts) = count(|| black_box(vec![1_u8; bytes]));
        assert_eq!((counts.allocations, counts.frees, counts.freed_bytes), (1, 0, 0), "{bytes} bytes: {counts}");
        assert!((bytes as u64..bytes as u64 * 9 / 8 + 8192).contains(&counts.allocated_bytes), "{bytes} bytes: {counts}");
        let ((), after) = count(|| drop(block));
        assert_eq!((after.allocations, after.frees, after.freed_bytes), (0, 1, counts.allocated_bytes), "{bytes} bytes: {after}");
    }
    // As many as fill and empty every magazine there is.
    let mut blocks = Vec::with_capacity(100_000);
    let ((), counts) = count(|| blocks.extend((0..100_000).map(|number| Box::new([number; 6]))));
    assert_eq!((counts.allocations, counts.allocated_bytes), (100_000, 2_400_000));
    let ((), counts) = count(|| blocks.clear());
    assert_eq!((counts.frees, counts.freed_bytes, counts.allocations), (100_000, 2_400_000, 0));
}

#[test]
fn what_is_allowed_passes_and_what_is_not_does_not() {
    let mut numbers = Vec::with_capacity(10);
    no_alloc(|| numbers.extend(0..10));
    fails_saying(&["at most 0 allocations", "it made 1 allocations of 80 bytes"], || no_alloc(|| numbers.push(10)));
    assert_eq!(max_allocs(2, || vec![vec![7_u8; 3]].len()), 1);
    fails_saying(&["at most 1 allocations", "it made 2 allocations"], || drop(max_allocs(1, || vec![vec![7_u8; 3]])));
    drop(max_bytes(576, || vec![7_u8; 520]));
    fails_saying(&["at most 575 bytes", "576 bytes"], || drop(max_bytes(575, || vec![7_u8; 520])));
    no_alloc(|| drop(numbers));
}

#[test]
fn others_do_not_matter() {
    let enough = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !enough.load(Ordering::Relaxed) {
                    drop(black_box(vec![String::from("much"); 100]));
                }
            });
        }
        for round in 0..1000_usize {
            let (kept, counts) = count(|| black_box(Box::new(round)));
            assert_eq!((counts.allocations, counts.allocated_bytes), (1, 8));
            no_alloc(|| drop(kept));
        }
        enough.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_thread_that_never_allocated_can_count() {
    let counted = thread::spawn(|| count(|| black_box(5)).1).join().expect("it does not panic");
    assert_eq!(counted.allocations, 0);
}
