//! Patterns of false sharing, after Berger and others, "Hoard: a scalable memory allocator for multithreaded applications"
//! (2000): two blocks on one cache line make two threads wait for each other at every write, though they share nothing.

use std::sync::{Mutex, PoisonError};

use super::block::{BYTES_MIN, Block};
use super::{Extent, on_threads};

const WRITES: u64 = 5_000;

/// Passive: the main thread allocates neighbours and gives one to each thread. An allocator that gives a freed block to whoever freed it goes on
/// with blocks that share a line.
pub(super) fn scratch(extent: Extent) -> u64 {
    let threads = extent.threads(2);
    let neighbours: Mutex<Vec<Block>> = Mutex::new((0..threads).map(|index| Block::new(BYTES_MIN, index as u32)).collect());
    on_threads(threads, |_| {
        let first = neighbours.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let sum = first.map_or(0, write_and_retire);
        sum.wrapping_add(write_to_own(extent))
    })
}

/// Active: every thread allocates for itself. An allocator that serves all threads from one line makes them share it.
pub(super) fn thrash(extent: Extent) -> u64 {
    on_threads(extent.threads(2), |_| write_to_own(extent))
}

fn write_to_own(extent: Extent) -> u64 {
    (0..extent.scaled(400_000)).fold(0, |sum, index| sum.wrapping_add(write_and_retire(Block::new(BYTES_MIN, index as u32))))
}

fn write_and_retire(block: Block) -> u64 {
    block.stir(WRITES);
    block.retire()
}
