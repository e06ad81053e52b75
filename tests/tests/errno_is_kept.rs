//! `errno` belongs to the program: between a failing system call and the look at why it failed there may be an allocation. So no allocation, free
//! or change of size touches it, not those that ask the system for memory, and not those that the system refuses.

use std::alloc::{GlobalAlloc, Layout};
use std::hint::black_box;
use std::thread;

use freestone::Freestone;
use freestone_tests::{Random, seed};

#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

const MIB: usize = 1 << 20;

/// No system call of the allocator's can have set this.
const MINE: i32 = libc::EXDEV;

fn errno() -> *mut i32 {
    // SAFETY: always allowed.
    unsafe { libc::__errno_location() }
}

/// Does something and dies if `errno` is another one afterwards.
#[track_caller]
fn kept<R>(act: impl FnOnce() -> R) -> R {
    // SAFETY: the thread's own.
    unsafe { errno().write(MINE) };
    let result = black_box(act());
    // SAFETY: as above.
    let after = unsafe { errno().read() };
    assert_eq!(after, MINE, "errno changed");
    result
}

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).expect("small enough")
}

/// Null or a block; `errno` is kept.
#[track_caller]
fn alloc(layout: Layout) -> *mut u8 {
    // SAFETY: no size here is zero.
    kept(|| unsafe { GLOBAL.alloc(layout) })
}

#[track_caller]
fn alloc_zeroed(layout: Layout) -> *mut u8 {
    // SAFETY: as in `alloc`.
    kept(|| unsafe { GLOBAL.alloc_zeroed(layout) })
}

#[track_caller]
fn realloc(block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
    // SAFETY: callers hand in live blocks of this layout, and no size is zero.
    kept(|| unsafe { GLOBAL.realloc(block, layout, size) })
}

#[track_caller]
fn free(block: *mut u8, layout: Layout) {
    // SAFETY: callers hand in live blocks of this layout and forget them.
    kept(|| unsafe { GLOBAL.dealloc(block, layout) });
}

#[test]
fn by_what_works() {
    for (size, align) in
        [(1, 1), (64, 8), (1 << 10, 8), (5_000, 64), (100_000, 8), (300_000, 4096), (3 * MIB, 8), (3 * MIB, 16 * MIB)]
    {
        let asked = layout(size, align);
        // Enough to pass through every room: arrays, depot, spans, steps, mappings.
        let count = (20 * MIB / size).clamp(3, 3_000);
        let mut blocks: Vec<*mut u8> =
            (0..count).map(|nth| if nth % 2 == 0 { alloc(asked) } else { alloc_zeroed(asked) }).collect();
        assert!(blocks.iter().all(|block| !block.is_null()));
        for block in &mut blocks {
            *block = realloc(*block, asked, size * 3);
            assert!(!block.is_null());
            *block = realloc(*block, layout(size * 3, align), size);
            assert!(!block.is_null());
        }
        for block in blocks {
            free(block, asked);
        }
        kept(freestone::control::release_to_os);
        kept(freestone::snapshot);
    }
}

#[test]
fn by_what_cannot_work() {
    for align in [1, 8, 4096, MIB, 1 << 30, 1 << 40] {
        for size in [1 << 47, 1 << 50, isize::MAX as usize - (align - 1)] {
            assert!(alloc(layout(size, align)).is_null());
            assert!(alloc_zeroed(layout(size, align)).is_null());
        }
    }
    for size in [1, 1 << 10, 5_000, 100_000, MIB, 3 * MIB] {
        let block = alloc(layout(size, 8));
        assert!(!block.is_null());
        assert!(realloc(block, layout(size, 8), 1 << 47).is_null());
        assert!(realloc(block, layout(size, 8), isize::MAX as usize - 7).is_null());
        free(block, layout(size, 8));
    }
}

/// The first and the last operation of a thread do more than others.
#[test]
fn by_birth_and_death_of_threads() {
    for nth in 0..200 {
        let thread = thread::spawn(move || {
            let layout = layout(100 + nth, 8);
            let block = alloc(layout);
            assert!(!block.is_null());
            free(block, layout);
        });
        thread.join().expect("errno changed");
    }
}

#[test]
fn whatever_comes() {
    let seed = seed();
    thread::scope(|scope| {
        for nth in 0..3 {
            scope.spawn(move || {
                let mut random = Random::new(seed.wrapping_add(nth));
                let mut live: Vec<(*mut u8, Layout)> = Vec::new();
                for step in 0..20_000 {
                    let most = if step % 200 == 0 { 6 * MIB } else { 40 << 10 };
                    let asked = layout(random.spread(1, most), 1 << random.below(13));
                    if live.len() < 100 {
                        let block = alloc(asked);
                        assert!(!block.is_null());
                        live.push((block, asked));
                        continue;
                    }
                    let (block, old) = live.swap_remove(random.below(100));
                    if random.below(3) == 0 {
                        let block = realloc(block, old, asked.size());
                        assert!(!block.is_null());
                        live.push((block, layout(asked.size(), old.align())));
                    } else {
                        free(block, old);
                    }
                    if step % 1_000 == 0 {
                        kept(freestone::control::release_to_os);
                    }
                }
                for (block, asked) in live {
                    free(block, asked);
                }
            });
        }
    });
}
