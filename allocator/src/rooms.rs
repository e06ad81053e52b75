//! Floor 6. Doors into single rooms, for the micro-benchmarks in `bench-harness/benches/rooms.rs`: each measures one step of a walk through the
//! house by itself. Only there with the feature `rooms`, and no part of what the crate promises.
//!
//! What a door hands out owns a room of its own, apart from the heap's, so that nothing here can disturb what serves the program. Its memory
//! is leaked: magazines stay magazines for good, and a benchmark makes few.

use core::cell::Cell;
use core::ptr::NonNull;
use std::boxed::Box;
use std::vec;
use std::vec::Vec;

use crate::atomic::AtomicU64;
use crate::depot::Depot;
use crate::magazine::Magazine;
use crate::page_heap::filler::{Backing, Filler, Run, Step};
use crate::size_class::{Place, SizeClass};
use crate::span::bitmap::Bitmap;

/// The number of the class that serves a request, if one does: what `realloc`, C and requests of sizes that the compiler does not know pay for.
#[must_use]
#[inline]
pub fn class_of(size: usize, align: usize) -> Option<usize> {
    SizeClass::of(size, align).map(SizeClass::index)
}

/// Which block of a span of the class begins so many bytes after the span's start: what every free that reaches central asks.
///
/// # Panics
///
/// When there is no such class.
#[must_use]
#[inline]
pub fn block_at(class: usize, offset: usize) -> Option<u32> {
    match SizeClass::from_index(class).block_at(offset) {
        Place::Block(index) => Some(index),
        _ => None,
    }
}

fn magazine(capacity: usize) -> Magazine {
    let words: &mut [usize] = Vec::leak(vec![0; Magazine::bytes(capacity) / size_of::<usize>()]);
    // SAFETY: zeros of this size and a pointer's alignment, leaked.
    unsafe { Magazine::new(NonNull::from(words).cast(), capacity) }
}

/// A magazine.
#[derive(Debug)]
pub struct OneMagazine(Magazine);

impl OneMagazine {
    /// An empty one. The capacity is a power of two from 4 to 128.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self(magazine(capacity))
    }

    /// Writes so many addresses into it, as many as fit, and reads them again; returns their sum, so that nobody leaves that out.
    pub fn fill_and_read(&mut self, count: usize) -> usize {
        let room = self.0.room();
        let count = count.min(room.len());
        for (index, entry) in room[..count].iter_mut().enumerate() {
            *entry = core::ptr::without_provenance_mut(index * 64);
        }
        self.0.set_range(0, count);
        self.0.blocks().iter().map(|block| block.addr()).sum()
    }
}

/// A depot with some magazines in it, and one in hand.
pub struct OneDepot {
    depot: Box<Depot>,
    in_hand: Cell<Option<Magazine>>,
}

impl core::fmt::Debug for OneDepot {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "a depot with {} blocks", self.depot.blocks())
    }
}

impl OneDepot {
    /// One with so many full magazines of 64 blocks on the shelf, behind its slots.
    #[must_use]
    pub fn new(shelved: usize) -> Self {
        const BLOCKS: usize = 64;
        let full = || {
            let mut magazine = magazine(BLOCKS);
            magazine.room().fill(core::ptr::dangling_mut());
            magazine.set_range(0, BLOCKS);
            magazine
        };
        let depot = Box::new(Depot::full());
        depot.raise_bound(0, (shelved + 1) * BLOCKS);
        for _ in 0..shelved {
            // A magazine that finds no room is leaked like all others.
            let _ = depot.put(full(), 0, 0, &mut 0);
        }
        Self { depot, in_hand: Cell::new(Some(full())) }
    }

    /// Leaves the magazine in hand there and takes one back: what a thread pays whose cache is full, and one whose cache is empty. With `usable` 0 slots it
    /// goes by way of the shelf, under its lock. Says whether there was one.
    #[must_use]
    pub fn leave_and_take(&self, usable: usize) -> bool {
        let mut waited = 0;
        if let Some(magazine) = self.in_hand.take() {
            let refused = self.depot.put(magazine, 0, usable, &mut waited).err();
            self.in_hand.set(refused.or_else(|| self.depot.take(0, &mut waited)));
        }
        let magazine = self.in_hand.take();
        let is_there = magazine.is_some();
        self.in_hand.set(magazine);
        is_there
    }
}

/// The bits of a span with 1024 blocks.
#[derive(Debug)]
pub struct OneBitmap([AtomicU64; 16]);

impl Default for OneBitmap {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; 16])
    }
}

impl OneBitmap {
    /// So many blocks has the span.
    pub const BLOCKS: u32 = 1024;

    /// Frees a block; `false`: it was free.
    ///
    /// # Panics
    ///
    /// When the span has no such block.
    #[must_use]
    #[inline]
    pub fn free(&self, block: u32) -> bool {
        Bitmap(&self.0).set(block)
    }

    /// Takes up to `wanted` blocks, the lowest first; returns how many there were and the sum of their numbers.
    pub fn take(&self, wanted: u32) -> (u32, u32) {
        let mut sum = 0;
        let taken = Bitmap(&self.0).take_lowest(wanted, |block| sum += block);
        (taken, sum)
    }
}

/// A filler, and the runs of pages that were cut from its steps.
pub struct OneFiller {
    filler: Filler,
    runs: Vec<Run>,
    tick: u32,
}

impl core::fmt::Debug for OneFiller {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "a filler with {} runs: {:?}", self.runs.len(), self.filler.totals())
    }
}

impl OneFiller {
    /// One with so many steps of 2 MiB, and no run cut yet.
    #[must_use]
    pub fn new(steps: u32) -> Self {
        let table = Vec::leak(vec![Step::default(); steps as usize]);
        let mut filler = Filler::new();
        // SAFETY: the table is leaked, and has an entry for every step that is added below.
        unsafe { filler.settle(table.as_mut_ptr()) };
        for step in 0..steps {
            filler.add(step, Backing::SmallPages);
        }
        Self { filler, runs: Vec::with_capacity(steps as usize * 256), tick: 0 }
    }

    /// Cuts a run of so many pages; `false`: there is no room.
    #[must_use]
    pub fn take(&mut self, pages: u32) -> bool {
        let run = self.filler.take(pages, 1, usize::MAX);
        self.runs.extend(run.ok());
        run.is_ok()
    }

    /// Gives one of the runs back; `choice` is any number.
    pub fn give(&mut self, choice: usize) {
        if !self.runs.is_empty() {
            let run = self.runs.swap_remove(choice % self.runs.len());
            self.tick = self.tick.wrapping_add(1);
            self.filler.give(run.page, run.pages, self.tick / 1024);
        }
    }
}
