//! Patterns of one thread.

use freestone_bench::workload::Rng;

use super::Extent;
use super::block::{Block, retired};

/// After the `malloc-simple` of glibc's own benchmarks: one size at a time, in bursts; the first half is freed in order, the rest from the
/// top. Between them lie blocks that stay, with holes of their size.
pub(super) fn glibc_simple(extent: Extent) -> u64 {
    const SIZES: [usize; 6] = [8, 16, 32, 64, 128, 256];
    const BURSTS: [usize; 4] = [25, 100, 400, 1_600];
    const STAYING: u32 = 1_600;
    let mut sum = 0_u64;
    for bytes in SIZES {
        let mut all: Vec<Block> = (0..STAYING).map(|index| Block::new(bytes, index)).collect();
        let (mut staying, mut others) = (Vec::new(), Vec::new());
        while let Some(block) = all.pop() {
            if all.len().is_multiple_of(2) { &mut staying } else { &mut others }.push(block);
        }
        sum = sum.wrapping_add(retired(others));
        for burst in BURSTS {
            let mut blocks = Vec::with_capacity(burst);
            for _ in 0..extent.scaled(3_200_000) as usize / burst {
                blocks.extend((0..burst as u32).map(|index| Block::new(bytes, index)));
                let second = blocks.split_off(burst / 2);
                sum = sum.wrapping_add(retired(blocks.drain(..)));
                sum = sum.wrapping_add(retired(second.into_iter().rev()));
            }
        }
        sum = sum.wrapping_add(retired(staying));
    }
    sum
}

/// What a recursive program or an arena of strings does: the last one allocated is the first one freed.
pub(super) fn lifo_batches(extent: Extent) -> u64 {
    let mut rng = Rng::new(1);
    let mut stack = Vec::with_capacity(200);
    let mut sum = 0_u64;
    for _ in 0..extent.scaled(1_000_000) {
        for _ in 0..rng.between(1, 200) {
            let (size, tag) = rng.two_below(497, 1 << 20);
            stack.push(Block::new(16 + size, tag as u32));
        }
        sum = sum.wrapping_add(retired(stack.drain(..).rev()));
    }
    sum
}

/// After `cfrac`, which factors by continued fractions: each step of its arithmetic makes a few numbers of some words and forgets
/// them; the relations it finds stay, for a while.
pub(super) fn cfrac(extent: Extent) -> u64 {
    const NUMBERS: usize = 32;
    const RELATIONS_MAX: usize = 20_000;
    let mut rng = Rng::new(2);
    let mut number = move || {
        let (words, tag) = rng.two_below(6, 1 << 20);
        Block::new(8 + 8 * words, tag as u32)
    };
    let mut numbers: Vec<Block> = (0..NUMBERS).map(|_| number()).collect();
    let mut relations = Vec::new();
    let mut sum = 0_u64;
    for step in 0..extent.scaled(30_000_000) as usize {
        let (product, quotient, remainder) = (number(), number(), number());
        let last = std::mem::replace(&mut numbers[step % NUMBERS], remainder);
        sum = sum.wrapping_add(retired([product, quotient]));
        if step.is_multiple_of(64) {
            relations.push(last);
        } else {
            sum = sum.wrapping_add(last.retire());
        }
        if relations.len() == RELATIONS_MAX {
            sum = sum.wrapping_add(retired(relations.drain(..)));
        }
    }
    sum.wrapping_add(retired(numbers)).wrapping_add(retired(relations))
}

/// After `espresso`, which minimises logic: covers are tables of sets of one size. A cover grows as sets are found, is
/// copied in part, and goes in the order in which it came.
pub(super) fn espresso(extent: Extent) -> u64 {
    let mut rng = Rng::new(3);
    let mut sum = 0_u64;
    for round in 0..extent.scaled(220_000) as u32 {
        let (set_bytes, sets) = (8 + 4 * rng.below(74), rng.between(20, 200));
        let mut table = Block::new(64, round);
        let mut cover = Vec::with_capacity(sets);
        for index in 0..sets {
            if index.is_multiple_of(16) {
                table.grow(64 + 8 * (index + 16));
            }
            cover.push(Block::new(set_bytes, index as u32));
        }
        let kept: Vec<Block> = (0..sets / 4).map(|index| Block::zeroed(set_bytes, index as u32)).collect();
        sum = sum.wrapping_add(retired(cover)).wrapping_add(retired(kept)).wrapping_add(table.retire());
    }
    sum
}

/// After `malloc-large` of the mimalloc benchmarks: buffers for pictures or messages, far above what allocators keep at hand. Every eighth of
/// their pages is written.
pub(super) fn malloc_large(extent: Extent) -> u64 {
    const LIVE: usize = 20;
    const MIB: usize = 1 << 20;
    let mut rng = Rng::new(4);
    let mut buffer = move || {
        let block = Block::new(rng.between(5 * MIB, 25 * MIB), rng.below(1 << 20) as u32);
        block.touch(8 * 4096);
        (block, rng.below(LIVE))
    };
    let mut live: Vec<Block> = (0..LIVE).map(|_| buffer().0).collect();
    let mut sum = 0_u64;
    for _ in 0..extent.scaled(8_000) {
        let (block, place) = buffer();
        sum = sum.wrapping_add(std::mem::replace(&mut live[place], block).retire());
    }
    sum.wrapping_add(retired(live))
}
