//! Explores every schedule of threads that hand magazines over through a depot: what one wrote the other sees, and a magazine has one
//! owner at a time.

use super::*;
use core::ptr::NonNull;
use loom::cell::UnsafeCell;
use loom::sync::Arc;

/// A block whose content loom watches: two accesses that nothing orders are reported.
struct Block(UnsafeCell<u32>);

// SAFETY: the point of the model: whether accesses are ordered is what loom checks.
unsafe impl Sync for Block {}
// SAFETY: as above.
unsafe impl Send for Block {}

fn magazine(block: &Arc<Block>) -> Magazine {
    let words = Vec::leak(vec![0_u64; 64]);
    // SAFETY: zeros, aligned, more than a header and two entries need, leaked.
    let mut magazine = unsafe { Magazine::new(NonNull::from(words).cast(), crate::config::MAGAZINE_BLOCKS_MAX) };
    magazine.room()[0] = Arc::as_ptr(block).cast_mut().cast();
    magazine.set_range(0, 1);
    magazine
}

/// The block in a magazine, written to by whoever has the magazine.
fn use_block(magazine: &Magazine, block: &Arc<Block>) {
    assert_eq!(magazine.count(), 1);
    assert_eq!(magazine.blocks()[0].addr(), Arc::as_ptr(block).addr());
    // SAFETY: whoever has the magazine has its blocks; loom reports it if that is not so.
    block.0.with_mut(|word| unsafe { *word += 1 });
}

#[test]
fn a_magazine_changes_hands_with_what_was_written() {
    loom::model(|| {
        let depot = Arc::new(Depot::full());
        depot.raise_bound(0, 8);
        let block = Arc::new(Block(UnsafeCell::new(0)));
        let giver = {
            let (depot, block) = (Arc::clone(&depot), Arc::clone(&block));
            loom::thread::spawn(move || {
                let magazine = magazine(&block);
                use_block(&magazine, &block);
                assert!(depot.put(magazine, 0, DEPOT_SLOTS, &mut 0).is_ok());
            })
        };
        let taken = depot.take(0, &mut 0);
        if let Some(magazine) = &taken {
            use_block(magazine, &block);
        }
        giver.join().expect("the giver does not panic");
        let late = depot.take(0, &mut 0);
        assert!(taken.is_some() ^ late.is_some(), "taken once");
        assert_eq!(depot.blocks(), 0);
        // SAFETY: both threads are done.
        let uses = block.0.with(|word| unsafe { *word });
        assert_eq!(uses, 1 + u32::from(taken.is_some()));
    });
}

#[test]
fn of_two_takers_one_gets_it_and_of_two_givers_both_find_room() {
    loom::model(|| {
        let depot = Arc::new(Depot::full());
        depot.raise_bound(0, 8);
        let blocks = [Arc::new(Block(UnsafeCell::new(0))), Arc::new(Block(UnsafeCell::new(0)))];
        let others: Vec<_> = blocks
            .iter()
            .map(|block| {
                let (depot, block) = (Arc::clone(&depot), Arc::clone(block));
                loom::thread::spawn(move || {
                    assert!(depot.put(magazine(&block), 0, DEPOT_SLOTS, &mut 0).is_ok());
                    depot.take(0, &mut 0).map_or(0, |magazine| magazine.count())
                })
            })
            .collect();
        let taken: usize = others.into_iter().map(|other| other.join().expect("no thread panics")).sum();
        let left: usize = core::iter::from_fn(|| depot.take(0, &mut 0)).map(|magazine| magazine.count()).sum();
        assert_eq!(taken + left, 2, "each block is taken once");
    });
}
