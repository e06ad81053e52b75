//! Every alignment from 1 byte to 1 GiB, and the impossible ones beyond, with sizes from nothing to more than anybody could have: a block that is
//! aligned, or null; never an abort. Programs rarely ask for this, which is why it has to be tried.

use std::alloc::{GlobalAlloc, Layout};
use std::hint::black_box;

use freestone::{Freestone, HugePages};
use freestone_tests::Block;

/// Small pages, so that looking at a few bytes of a large block costs a few of them.
#[global_allocator]
static GLOBAL: Freestone = Freestone::new().huge_pages(HugePages::Never);

const MIB: usize = 1 << 20;
const GIB: usize = 1 << 30;

fn alignments() -> impl Iterator<Item = usize> {
    (0..=GIB.ilog2()).map(|shift| 1 << shift)
}

fn block(size: usize, align: usize) -> Option<Block<'static, Freestone>> {
    Block::new(&GLOBAL, Layout::from_size_align(size, align).ok()?)
}

/// Sizes that are served at every alignment. Zero too: `GlobalAlloc` forbids callers to ask for it, but nothing stops them.
fn sizes(align: usize) -> [usize; 14] {
    [0, 1, 7, 8, 9, 1 << 10, 4 << 10, 33 << 10, MIB, 3 * MIB, align - 1, align, align + 1, 2 * align + 24]
}

#[test]
fn every_size_at_every_alignment() {
    for align in alignments() {
        // All at once, so that they have to lie side by side.
        let mut blocks: Vec<Block<'_, Freestone>> = Vec::new();
        for (nth, size) in sizes(align).into_iter().enumerate() {
            for twin in 0..2 {
                let mut block = block(size, align).unwrap_or_else(|| panic!("{size} B aligned to {align}"));
                block.fill((nth * 2 + twin) as u8);
                blocks.push(block);
            }
        }
        let mut extents: Vec<(usize, usize)> =
            blocks.iter().map(|block| (block.start().addr(), block.start().addr() + block.layout().size().max(1))).collect();
        extents.sort_unstable();
        assert!(extents.windows(2).all(|pair| pair[0].1 <= pair[1].0), "two blocks aligned to {align} share a byte");
        blocks.iter().for_each(Block::check);
        // Every second one first, so that what is freed lies between what is not.
        let mut nth = 0;
        blocks.retain(|_| {
            nth += 1;
            nth % 2 == 0
        });
        blocks.iter().for_each(Block::check);
    }
}

#[test]
fn zeroed_at_every_alignment() {
    for align in alignments() {
        for size in [0, 1, align, align + 1].into_iter().filter(|&size| size <= 64 * MIB) {
            for _ in 0..2 {
                let layout = Layout::from_size_align(size, align).expect("small enough");
                let mut block = Block::zeroed(&GLOBAL, layout).unwrap_or_else(|| panic!("{size} B aligned to {align}"));
                // So that the second one cannot be zero by chance.
                block.dirty();
            }
        }
    }
}

#[test]
fn changes_of_size_keep_the_alignment() {
    for align in alignments() {
        let mut block = block(1, align).expect("memory is there");
        block.fill(align.ilog2() as u8);
        for size in [100, align + 1, 5 * MIB, align, 3, 2 * align, 1 << 10, 2 * MIB, 1] {
            assert!(block.resize(size), "to {size} B aligned to {align}");
        }
    }
}

#[test]
fn what_nobody_can_have_is_null() {
    let largest = isize::MAX as usize;
    for shift in 0..usize::BITS - 1 {
        let align = 1_usize << shift;
        // The largest size that a `Layout` of this alignment may have, and other sizes beyond any machine.
        let most = largest - (align - 1);
        for size in [most, most - 1, most / 2, most / 2 + 1, 1 << 50, 1 << 47, 1 << 62] {
            let Ok(layout) = Layout::from_size_align(size, align) else { continue };
            // SAFETY: the size is not zero.
            let block = black_box(unsafe { GLOBAL.alloc(layout) });
            assert!(block.is_null() == (size >= 1 << 47 || align > GIB), "{layout:?}: {block:p}");
            // SAFETY: the size is not zero.
            let zeroed = black_box(unsafe { GLOBAL.alloc_zeroed(layout) });
            assert!(zeroed.is_null() == (size >= 1 << 47 || align > GIB), "{layout:?}: {zeroed:p}");
            for got in [block, zeroed].into_iter().filter(|got| !got.is_null()) {
                // SAFETY: a live block of this layout.
                unsafe { GLOBAL.dealloc(got, layout) };
            }
        }
        if align > GIB {
            for size in [0, 1, 4096] {
                assert!(block(size, align).is_none(), "{size} B aligned to {align}");
            }
        }
    }
}

#[test]
fn a_block_that_cannot_grow_stays() {
    for align in [1, 64, 4 << 10, 2 * MIB, GIB] {
        for size in [1, 1 << 10, 20 << 10, 100 << 10, MIB, 3 * MIB] {
            let mut block = block(size, align).expect("memory is there");
            block.fill(size as u8);
            for impossible in [1 << 47, 1 << 62, isize::MAX as usize - (align - 1)] {
                assert!(!block.resize(impossible), "{size} B aligned to {align} became {impossible} B");
            }
            assert!(block.resize(size + 1));
        }
    }
}
