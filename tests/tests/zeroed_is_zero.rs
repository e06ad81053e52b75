//! `alloc_zeroed` skips the zeroing where it believes that memory is still zero. That belief has to survive everything that happens to memory:
//! dirtied and freed here or in another thread, kept warm, split and joined, given back to the system and taken again, grown in place.

use std::alloc::Layout;
use std::sync::Mutex;
use std::thread;

use freestone::Freestone;
use freestone_tests::{Block, Random, join_all, lock, seed};

#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

const MIB: usize = 1 << 20;

type Blocks = Vec<Block<'static, Freestone>>;

fn layout(random: &mut Random) -> Layout {
    let most = match random.below(64) {
        0 => 5 * MIB,
        1..4 => MIB,
        4..14 => 200 << 10,
        14..34 => 32 << 10,
        _ => 1 << 10,
    };
    let align = match random.below(16) {
        0 => 4 << 10,
        1 => 64,
        2 => 1,
        _ => 8,
    };
    Layout::from_size_align(random.spread(1, most), align).expect("small enough")
}

/// A block that was checked to be zero and is not any more.
fn zeroed_then_dirty(layout: Layout) -> Block<'static, Freestone> {
    let mut block = Block::zeroed(&GLOBAL, layout).expect("memory is there");
    block.dirty();
    block
}

/// The same, by `alloc`: its memory may hold anything and is dirty from now on.
fn dirty(layout: Layout) -> Block<'static, Freestone> {
    let mut block = Block::new(&GLOBAL, layout).expect("memory is there");
    block.dirty();
    block
}

#[test]
fn after_everything_was_dirtied() {
    let mut random = Random::new(seed());
    for round in 0..40 {
        let layouts: Vec<Layout> = (0..200).map(|_| layout(&mut random)).collect();
        let dirtied: Blocks = layouts.iter().map(|&layout| dirty(layout)).collect();
        drop(dirtied);
        if round % 3 == 0 {
            freestone::control::release_to_os();
        }
        // The same sizes again, so that they meet the same memory.
        let _zeroed: Blocks = layouts.iter().map(|&layout| zeroed_then_dirty(layout)).collect();
    }
}

/// Blocks wander between four threads and die elsewhere than they were born, while memory is given back at any moment.
#[test]
fn in_several_threads() {
    let seed = seed();
    let market: Mutex<Blocks> = Mutex::new(Vec::new());
    thread::scope(|scope| {
        let wander = |nth| {
            let market = &market;
            scope.spawn(move || {
                let mut random = Random::new(seed.wrapping_add(nth));
                let mut mine: Blocks = Vec::new();
                for step in 0..6_000 {
                    let layout = layout(&mut random);
                    mine.push(if random.below(2) == 0 { zeroed_then_dirty(layout) } else { dirty(layout) });
                    let nth = random.below(mine.len());
                    if mine.len() >= 30 {
                        let block = mine.swap_remove(nth);
                        if random.below(2) == 0 {
                            let mut market = lock(market);
                            market.push(block);
                            if market.len() > 50 {
                                let nth = random.below(50);
                                mine[0] = market.swap_remove(nth);
                            }
                        }
                    }
                    if step % 500 == 250 {
                        freestone::control::release_to_os();
                    }
                }
            })
        };
        join_all((0..4).map(wander).collect::<Vec<_>>());
    });
}

/// Large blocks whose ends were cut off and grown again: the end is not fresh any more.
#[test]
fn after_growing_and_shrinking_in_place() {
    let mut random = Random::new(seed());
    for round in 0..60 {
        let size = random.spread(100 << 10, 6 * MIB);
        let layout = Layout::from_size_align(size, 8).expect("small enough");
        let mut block = zeroed_then_dirty(layout);
        for _ in 0..4 {
            assert!(block.resize(random.spread(100 << 10, 6 * MIB)));
            block.dirty();
        }
        if round % 4 == 0 {
            freestone::control::release_to_os();
        }
        drop(block);
        let _behind = zeroed_then_dirty(layout);
        let _further_behind =
            zeroed_then_dirty(Layout::from_size_align(random.spread(100 << 10, 6 * MIB), 8).expect("small enough"));
    }
}

/// Single large blocks that memory is given back under, again and again: what was purged, what was unmapped, what was kept.
#[test]
fn after_each_kind_was_given_back() {
    for size in [1, 600, 1 << 10, 5_000, 32 << 10, 100 << 10, 256 << 10, 300 << 10, 2 * MIB, 3 * MIB, 40 * MIB] {
        let layout = Layout::from_size_align(size, 8).expect("small enough");
        for round in 0..6 {
            let neighbour = dirty(layout);
            drop(zeroed_then_dirty(layout));
            if round % 2 == 0 {
                freestone::control::release_to_os();
            }
            drop(neighbour);
            drop(zeroed_then_dirty(layout));
        }
    }
}
