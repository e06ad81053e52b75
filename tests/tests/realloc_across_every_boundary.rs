//! A block changes size from every kind of block to every other, growing and shrinking: each kind lives somewhere else and each pair takes its
//! own way (in place, by moving pages, by copying), so each pair is tried, on both sides of every boundary and at many alignments. Content
//! stays as far as it must, the alignment stays, and the new block is good to its last byte.

use std::alloc::Layout;

use freestone::{Freestone, HugePages};
use freestone_tests::{Block, Random, seed};

/// Small pages, so that looking at a few bytes of a large block costs a few of them.
#[global_allocator]
static GLOBAL: Freestone = Freestone::new().huge_pages(HugePages::Never);

const MIB: usize = 1 << 20;

/// Where one kind of block ends and the next begins.
const BOUNDARIES: [usize; 10] = [
    // Two small classes, eight bytes apart, and the end of those steps.
    64,
    128,
    // From two arrays per class to one stack.
    1 << 10,
    4 << 10,
    // From shared spans to blocks that are spans of their own.
    32 << 10,
    40 << 10,
    // From classes to runs of exact length.
    256 << 10,
    MIB,
    // From runs to huge slots.
    2 * MIB,
    5 * MIB,
];

const ALIGNMENTS: [usize; 7] = [1, 8, 16, 64, 4 << 10, 64 << 10, 2 * MIB];

fn sizes() -> impl Iterator<Item = usize> + Clone {
    let around = |boundary: usize| [boundary - 1, boundary, boundary + 1];
    std::iter::once(1).chain(BOUNDARIES.into_iter().flat_map(around))
}

fn block(size: usize, align: usize, stamp: usize) -> Block<'static, Freestone> {
    let layout = Layout::from_size_align(size, align).expect("small enough");
    let mut block = Block::new(&GLOBAL, layout).expect("memory is there");
    block.fill(stamp as u8);
    block
}

#[test]
fn every_pair() {
    let mut pairs = 0;
    for align in ALIGNMENTS {
        for from in sizes() {
            // A neighbour on either side: a block that grows where it is must not grow over them.
            let before = block(from, align, pairs);
            let mut changing = block(from, align, pairs + 1);
            let behind = block(from, align, pairs + 2);
            for to in sizes() {
                assert!(changing.resize(to), "{from} to {to} aligned to {align}");
                assert!(changing.resize(from), "{to} to {from} aligned to {align}");
                pairs += 2;
            }
            before.check();
            behind.check();
        }
    }
    assert_eq!(pairs, 7 * 31 * 31 * 2);
}

/// 64 MiB is where a slot's first room ends: what grows on has to move.
#[test]
fn far_out() {
    for align in [8, 2 * MIB] {
        for from in [1, 1 << 10, 200 << 10, MIB, 3 * MIB, 64 * MIB - 1, 64 * MIB, 64 * MIB + 1] {
            for to in [64 * MIB - 1, 64 * MIB, 64 * MIB + 1, 200 * MIB] {
                let mut changing = block(from, align, from + to);
                assert!(changing.resize(to), "{from} to {to} aligned to {align}");
                let _other = block(to, align, to);
                assert!(changing.resize(from), "{to} to {from} aligned to {align}");
            }
        }
    }
}

/// Like a `Vec` that is pushed to, and one that is shrunk to fit now and then.
#[test]
fn step_by_step() {
    for align in [1, 64, 4 << 10] {
        let mut growing = block(1, align, align);
        while growing.layout().size() < 64 * MIB {
            assert!(growing.resize(growing.layout().size() * 2));
        }
        while growing.layout().size() > 1 {
            assert!(growing.resize(growing.layout().size() / 2));
        }
    }
}

#[test]
fn at_random() {
    let mut random = Random::new(seed());
    let mut blocks: Vec<Block<'_, Freestone>> = Vec::new();
    for step in 0..20_000 {
        let most = if step % 100 == 0 { 8 * MIB } else { 300 << 10 };
        let size = random.spread(1, most);
        if blocks.len() < 64 {
            blocks.push(block(size, ALIGNMENTS[random.below(5)], step));
            continue;
        }
        let nth = random.below(64);
        match random.below(8) {
            0 => drop(blocks.swap_remove(nth)),
            _ => assert!(blocks[nth].resize(size)),
        }
    }
}
