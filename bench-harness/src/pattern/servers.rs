//! Patterns of servers: tables of blocks that are replaced at random, handed on, and outlive the threads that allocated them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, Scope};

use freestone_bench::workload::Rng;

use super::block::{Block, Places, retired};
use super::{Extent, on_threads, skewed};

/// A table of blocks, and what decides what happens to it.
struct Table {
    blocks: Vec<Block>,
    rng: Rng,
    draw: fn(&mut Rng) -> usize,
}

impl Table {
    fn new(seed: u64, count: usize, draw: fn(&mut Rng) -> usize) -> Self {
        let mut rng = Rng::new(seed);
        let blocks = (0..count).map(|index| Block::new(draw(&mut rng), index as u32)).collect();
        Self { blocks, rng, draw }
    }

    /// Puts a new block at a random place, and hands out the one that was there.
    #[inline]
    fn replace(&mut self) -> Block {
        let (place, tag) = self.rng.two_below(self.blocks.len(), 1 << 20);
        let block = Block::new((self.draw)(&mut self.rng), tag as u32);
        std::mem::replace(&mut self.blocks[place], block)
    }

    /// So many times, and frees what comes out.
    fn churn(&mut self, times: u64) -> u64 {
        (0..times).fold(0, |sum, _| sum.wrapping_add(self.replace().retire()))
    }
}

/// After `malloc-thread` of glibc's own benchmarks: threads that have nothing to do with each other.
pub(super) fn glibc_thread(extent: Extent) -> u64 {
    let times = extent.scaled(12_000_000);
    on_threads(extent.threads(2), |number| {
        let mut table = Table::new(number, 1_024, |rng| skewed(rng, 8, 1 << 15));
        table.churn(times).wrapping_add(retired(table.blocks))
    })
}

/// After Larson and Krishnan, "Memory allocation for long-running server applications" (1998): a thread works on its table for a while, starts
/// another one that goes on with it, and ends.
pub(super) fn larson(extent: Extent) -> u64 {
    const GENERATIONS: u64 = 50;
    let times = extent.scaled(220_000);
    let sum = AtomicU64::new(0);
    thread::scope(|scope| {
        for number in 0..extent.threads(4) {
            let table = Table::new(number, 1_000, |rng| rng.between(8, 1_000));
            let sum = &sum;
            scope.spawn(move || serve(scope, table, times, GENERATIONS, sum));
        }
    });
    sum.into_inner()
}

/// One generation, which starts the next.
fn serve<'scope>(scope: &'scope Scope<'scope, '_>, mut table: Table, times: u64, left: u64, sum: &'scope AtomicU64) {
    let mut own = table.churn(times);
    if left > 1 {
        scope.spawn(move || serve(scope, table, times, left - 1, sum));
    } else {
        own = own.wrapping_add(retired(table.blocks));
    }
    // Relaxed: whoever reads it has joined all of them.
    sum.fetch_add(own, Ordering::Relaxed);
}

/// Through which the threads of [`mstress`] exchange blocks.
const PLACES: usize = 1_000;

/// After mimalloc's `mstress`: a few threads at a time, each with blocks of all kinds, that swap some through shared places and leave some
/// there when they end.
pub(super) fn mstress(extent: Extent) -> u64 {
    const WAVES: u64 = 20;
    let (threads, times) = (extent.threads(4), extent.scaled(300_000));
    let places = Places::new(PLACES);
    let waves = (0..WAVES).map(|wave| on_threads(threads, |number| stress(&places, wave * threads + number, times)));
    let sum = waves.fold(0, u64::wrapping_add);
    sum.wrapping_add(retired(places.drain()))
}

/// What a thread holds depends on what others have left in the places; what it draws does not: three numbers each time.
fn stress(places: &Places, seed: u64, times: u64) -> u64 {
    const HELD_MAX: usize = 2_000;
    let mut rng = Rng::new(seed);
    let mut held: Vec<Block> = Vec::with_capacity(HELD_MAX + 1);
    let mut sum = 0_u64;
    for _ in 0..times {
        held.push(any(&mut rng));
        let (action, choice) = rng.two_below(4, 1 << 20);
        let chosen = held.swap_remove(choice % held.len());
        match action {
            0 if held.len() < HELD_MAX => held.push(chosen),
            1 => held.extend(places.swap(choice % PLACES, Some(chosen))),
            _ => sum = sum.wrapping_add(chosen.retire()),
        }
        while held.len() > HELD_MAX {
            sum = sum.wrapping_add(held.pop().map_or(0, Block::retire));
        }
    }
    let left = held.split_off(held.len() / 2);
    for block in left {
        let old = places.swap(rng.below(PLACES), Some(block));
        sum = sum.wrapping_add(old.map_or(0, Block::retire));
    }
    sum.wrapping_add(retired(held))
}

/// A block of any kind: mostly small; one in 128 of up to 8 KiB, one in 2,048 of 64–512 KiB; some aligned, some zeroed.
fn any(rng: &mut Rng) -> Block {
    let (kind, tag) = rng.two_below(2_048, 1 << 20);
    let tag = tag as u32;
    match kind {
        0 => Block::new(skewed(rng, 64 << 10, 512 << 10), tag),
        1..=15 => Block::zeroed(skewed(rng, 512, 8 << 10), tag),
        16..=79 => Block::aligned(64, skewed(rng, 8, 512), tag),
        80..=207 => Block::zeroed(skewed(rng, 8, 512), tag),
        _ => Block::new(skewed(rng, 8, 512), tag),
    }
}

/// After `rptest` of rpmalloc's benchmarks: every thread replaces blocks of its own table at random; every fourth goes on to the next thread
/// in a ring, which frees it when it finds it. Who finds too many that have not been looked at frees his own, or the peak would say how the
/// kernel schedules.
pub(super) fn rptest(extent: Extent) -> u64 {
    const LETTERS: usize = 64;
    const UNREAD_MAX: usize = 1_024;
    let (threads, times) = (extent.threads(4), extent.scaled(3_000_000));
    let boxes: Vec<Mutex<Vec<Block>>> = (0..threads).map(|_| Mutex::default()).collect();
    let letters = |number: u64| boxes[(number % threads) as usize].lock().unwrap_or_else(PoisonError::into_inner);
    let sum = on_threads(threads, |number| {
        let mut table = Table::new(number, 2_000, |rng| skewed(rng, 16, 16 << 10));
        let (mut sum, mut outgoing) = (0_u64, Vec::with_capacity(LETTERS));
        for time in 0..times {
            let block = table.replace();
            if !time.is_multiple_of(4) {
                sum = sum.wrapping_add(block.retire());
                continue;
            }
            outgoing.push(block);
            if outgoing.len() == LETTERS {
                let mut unread = letters(number + 1);
                if unread.len() < UNREAD_MAX {
                    unread.append(&mut outgoing);
                }
                drop(unread);
                let incoming = std::mem::take(&mut *letters(number));
                sum = sum.wrapping_add(retired(incoming)).wrapping_add(retired(outgoing.drain(..)));
            }
        }
        sum.wrapping_add(retired(outgoing)).wrapping_add(retired(table.blocks))
    });
    let unread = boxes.into_iter().map(|letters| retired(letters.into_inner().unwrap_or_else(PoisonError::into_inner)));
    unread.fold(sum, u64::wrapping_add)
}

/// After `mleak` of the mimalloc benchmarks, which asks whether what a thread leaves behind can be used again: short threads, one after the
/// other, of which each gets the blocks of the one before, and replaces half of them.
pub(super) fn mleak(extent: Extent) -> u64 {
    const LIVE: usize = 500;
    let generations = extent.scaled(12_000);
    on_threads(extent.threads(2), |number| {
        let mut table = Table::new(number, LIVE, |rng| skewed(rng, 8, 4 << 10));
        let mut sum = 0_u64;
        for _ in 0..generations {
            let generation = thread::scope(|scope| scope.spawn(|| table.churn(LIVE as u64 / 2)).join());
            sum = sum.wrapping_add(generation.expect("no thread panics"));
        }
        sum.wrapping_add(retired(table.blocks))
    })
}
