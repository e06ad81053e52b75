//! A chosen allocation gets a block in a zone of its own: exactly the chosen one and no other, whatever happens before; and its end is seen at
//! once, wherever it comes. That is what a heap profile stands on.
//!
//! The allocator under test is not registered, so that every count is this test's.

use std::alloc::{GlobalAlloc, Layout, System};
use std::thread;

use freestone::control::{is_sampled, release_to_os, sample_after};
use freestone::{ClassSnapshot, Freestone};
use freestone_tests::{Block, Random, alone, seed};

/// Without chance: who is chosen is chosen here.
static UNDER_TEST: Freestone = Freestone::new().sample_interval(0);

#[global_allocator]
static HARNESS: System = System;

/// Classes with two arrays, and classes with a stack.
const SIZES: [usize; 6] = [8, 64, 1 << 10, 4 << 10, 10 << 10, 32 << 10];

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).expect("a small power of two")
}

fn block(size: usize) -> Block<'static, Freestone> {
    let mut block = Block::new(&UNDER_TEST, layout(size)).expect("memory is there");
    block.fill(size as u8);
    block
}

fn counts(size: usize) -> (ClassSnapshot, u64, u64) {
    let snapshot = freestone::snapshot();
    let class = snapshot.classes.iter().find(|class| class.block_bytes >= size).expect("the size has a class");
    (*class, snapshot.events.samples, snapshot.events.sample_ends)
}

/// What moved between a cache and the rest.
fn moves() -> (u64, u64, u64) {
    let events = freestone::snapshot().events;
    (events.exchanges, events.depot_puts, events.flushes)
}

/// Sees to it that the thread's cache has room for more than one block, whatever it was taken over with: its free array was just made anew.
/// What is needed for that has to live until the test is over.
fn with_room(size: usize) -> Vec<Block<'static, Freestone>> {
    let mut blocks: Vec<_> = (0..600).map(|_| block(size)).collect();
    let before = moves();
    while moves() == before {
        drop(blocks.pop().expect("no array holds that many"));
    }
    blocks
}

#[test]
fn it_is_the_chosen_one() {
    let _alone = alone(&UNDER_TEST);
    for size in SIZES {
        // More than any array holds, and than a stack is armed for.
        for chosen in [1, 2, 3, 4, 5, 100, 127, 128, 129, 255, 256, 257, 258, 700, 3_000] {
            assert!(sample_after(layout(size), chosen));
            for nth in 1..=chosen + 10 {
                let block = block(size);
                assert_eq!(is_sampled(block.start()), nth == chosen, "allocation {nth} of {size} B, chosen was {chosen}");
            }
        }
    }
}

/// What stood in for it comes back to the thread's cache, which has room for one block: nothing there changes its place for that.
#[test]
fn its_end_gives_away_nothing_that_is_cached() {
    let _alone = alone(&UNDER_TEST);
    for size in [8, 64, 1 << 10] {
        drop((0..2_000).map(|_| block(size)).collect::<Vec<_>>());
        assert!(sample_after(layout(size), 1));
        let sampled = block(size);
        assert!(is_sampled(sampled.start()));
        let _held = with_room(size);
        let before = (moves(), counts(size).0.thread_cached);
        drop(sampled);
        assert_eq!((moves(), counts(size).0.thread_cached), (before.0, before.1 + 1), "{size} B");
    }
}

#[test]
fn it_is_the_chosen_one_whatever_lives() {
    let _alone = alone(&UNDER_TEST);
    let mut random = Random::new(seed());
    for size in SIZES {
        let mut live = Vec::new();
        let mut left = 0_u32;
        for _ in 0..30_000 {
            match random.below(1_000) {
                0 => {
                    left = random.spread(1, 900) as u32;
                    assert!(sample_after(layout(size), left));
                }
                1 if random.below(10) == 0 => {
                    left = 0;
                    assert!(sample_after(layout(size), 0));
                }
                2 if random.below(10) == 0 => {
                    release_to_os();
                }
                3..520 if live.len() < 600 => {
                    let block = block(size);
                    assert_eq!(is_sampled(block.start()), left == 1, "{left} allocations of {size} B were left");
                    left = left.saturating_sub(1);
                    live.push(block);
                }
                _ if !live.is_empty() => {
                    live.swap_remove(random.below(live.len()));
                }
                _ => {}
            }
        }
        assert!(sample_after(layout(size), 0));
    }
}

#[test]
fn its_life_is_counted_at_once() {
    let _alone = alone(&UNDER_TEST);
    for size in SIZES {
        let neighbours = with_room(size);
        let before = counts(size);
        assert!(sample_after(layout(size), 1));
        let sampled = block(size);
        assert!(is_sampled(sampled.start()));
        let born = counts(size);
        assert_eq!((born.0.allocations, born.0.frees), (before.0.allocations + 1, before.0.frees), "{size} B");
        assert_eq!((born.1, born.2), (before.1 + 1, before.2));
        drop(sampled);
        let gone = counts(size);
        assert_eq!((gone.0.allocations, gone.0.frees), (before.0.allocations + 1, before.0.frees + 1), "{size} B");
        assert_eq!((gone.1, gone.2), (before.1 + 1, before.2 + 1));
        assert_eq!(gone.0.live(), before.0.live());
        // It went into no cache. Of small ones, the ordinary block that it was taken for had kept its place, and is back.
        let back = u64::from(size <= 1 << 10);
        assert_eq!(gone.0.thread_cached, born.0.thread_cached + back, "{size} B");
        // The next one is an ordinary one, and the end of an ordinary one is no sample's.
        let ordinary = block(size);
        assert!(!is_sampled(ordinary.start()));
        drop((ordinary, neighbours));
        assert_eq!(counts(size).2, gone.2);
    }
}

#[test]
fn it_can_change_its_size() {
    let _alone = alone(&UNDER_TEST);
    for size in SIZES {
        for to in [1, size - 1, size, size + 1, 200, 5_000, 30_000, 100_000, 3 << 20] {
            let before = counts(size);
            assert!(sample_after(layout(size), 1));
            let mut sampled = block(size);
            assert!(is_sampled(sampled.start()));
            assert!(sampled.resize(to), "{size} to {to} B");
            let after = counts(size);
            let stays = after.0.live() == before.0.live() + 1 && is_sampled(sampled.start());
            let ended = after.2 == before.2 + 1 && !is_sampled(sampled.start());
            assert!(stays != ended, "{size} to {to} B: where it is, or elsewhere and then its end was seen");
            drop(sampled);
            assert_eq!(counts(size).2, before.2 + 1);
            assert_eq!(counts(size).0.live(), before.0.live());
        }
    }
}

#[test]
fn it_is_zero_when_asked_for() {
    let _alone = alone(&UNDER_TEST);
    for size in SIZES {
        for _ in 0..20 {
            assert!(sample_after(layout(size), 1));
            let mut sampled = Block::zeroed(&UNDER_TEST, layout(size)).expect("memory is there");
            assert!(is_sampled(sampled.start()));
            sampled.dirty();
        }
    }
}

/// Chosen in one thread, freed in another: also in one that never used the allocator, and in one that is past its end.
#[test]
fn it_may_end_elsewhere() {
    let _alone = alone(&UNDER_TEST);
    for size in SIZES {
        let before = counts(size);
        let sampled: Vec<_> = (0..20)
            .map(|_| {
                assert!(sample_after(layout(size), 1));
                block(size)
            })
            .collect();
        assert!(sampled.iter().all(|block| is_sampled(block.start())));
        thread::spawn(move || drop(sampled)).join().expect("the thread does not panic");
        let after = counts(size);
        assert_eq!((after.1, after.2), (before.1 + 20, before.2 + 20));
        assert_eq!(after.0.live(), before.0.live());
    }
}

/// Each thread counts for itself.
#[test]
fn others_are_not_chosen() {
    let _alone = alone(&UNDER_TEST);
    for size in SIZES {
        assert!(sample_after(layout(size), 5));
        let elsewhere = thread::spawn(move || (0..50).filter(|_| is_sampled(block(size).start())).count());
        assert_eq!(elsewhere.join().expect("the thread does not panic"), 0);
        let here: Vec<bool> = (0..10).map(|_| is_sampled(block(size).start())).collect();
        assert_eq!(here.iter().position(|&sampled| sampled), Some(4));
        assert_eq!(here.iter().filter(|&&sampled| sampled).count(), 1);
    }
}

#[test]
fn larger_ones_cannot_be_chosen_by_count() {
    let _alone = alone(&UNDER_TEST);
    for size in [(32 << 10) + 1, 100 << 10, 300 << 10, 3 << 20] {
        assert!(!sample_after(layout(size), 1));
        // SAFETY: the size is not zero.
        let block = unsafe { UNDER_TEST.alloc(layout(size)) };
        assert!(!block.is_null());
        assert!(!is_sampled(block));
        // SAFETY: a live block of this layout.
        unsafe { UNDER_TEST.dealloc(block, layout(size)) };
    }
}
