//! The oracle of walks: knows every live block of every thread, that no two share a byte, and what must stand in each.
//!
//! Kept on another allocator than the one under test, so that it does not disturb what is observed.

use std::alloc::{GlobalAlloc, Layout};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;

use crate::{Random, lock};

/// A live block.
#[derive(Clone, Copy, Debug)]
struct Live {
    start: usize,
    layout: Layout,
    /// Tells what it is filled with.
    stamp: u8,
}

/// What all walkers share.
#[derive(Debug, Default)]
pub struct Oracle {
    /// Start → end of every live block, ordered.
    intervals: Mutex<BTreeMap<usize, usize>>,
    /// Blocks on their way from one walker to another.
    market: Mutex<Vec<Live>>,
}

impl Oracle {
    /// Nothing is live.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A block was handed out.
    fn add(&self, start: usize, end: usize) {
        let mut intervals = lock(&self.intervals);
        if let Some((other, other_end)) = intervals.range(..end).next_back() {
            assert!(*other_end <= start, "{start:#x}..{end:#x} was handed out while {other:#x}..{other_end:#x} is live");
        }
        intervals.insert(start, end);
    }

    /// A block is about to be given back.
    fn remove(&self, start: usize) {
        assert!(lock(&self.intervals).remove(&start).is_some(), "the oracle lost {start:#x}");
    }

    /// How many blocks are live, and how many bytes the programs asked for.
    #[must_use]
    pub fn live(&self) -> (usize, usize) {
        let intervals = lock(&self.intervals);
        (intervals.len(), intervals.iter().map(|(start, end)| end - start).sum())
    }
}

/// Walks over an allocator with all four operations and checks everything that can be seen from outside.
#[derive(Debug)]
pub struct Walker<'a, A> {
    allocator: &'a A,
    oracle: &'a Oracle,
    random: Random,
    /// Its blocks, in no order.
    live: Vec<Live>,
    /// Operations so far.
    pub operations: u64,
    /// Blocks it was given. A change of size that moved the block is one, one that did not may be one too.
    pub allocations: u64,
    /// Blocks it gave back.
    pub frees: u64,
    /// Changes of size that were granted.
    pub resizes: u64,
    /// Requests that were refused.
    pub refusals: u64,
}

/// How many bytes of a large block are filled and looked at, at both ends each.
const EDGE: usize = 512;

/// The parts of a block that are filled: all of a small one, both ends of a large one.
fn parts(size: usize) -> [Range<usize>; 2] {
    if size <= 2 * EDGE { [0..size, size..size] } else { [0..EDGE, size - EDGE..size] }
}

/// What belongs at `offset`: content that was moved by a few words is noticed.
#[inline]
fn expected(stamp: u8, offset: usize) -> u8 {
    stamp.wrapping_add((offset / 8) as u8)
}

/// Blocks that may wait on the market.
const MARKET_MAX: usize = 500;

impl<'a, A: GlobalAlloc> Walker<'a, A> {
    /// Begins with nothing live.
    #[must_use]
    pub fn new(allocator: &'a A, oracle: &'a Oracle, seed: u64) -> Self {
        let random = Random::new(seed);
        Self { allocator, oracle, random, live: Vec::new(), operations: 0, allocations: 0, frees: 0, resizes: 0, refusals: 0 }
    }

    /// Does `steps` random operations, with about `target` blocks live.
    pub fn walk(&mut self, steps: u64, target: usize, size_max: usize) {
        let until = self.operations + steps;
        while self.operations < until {
            let grow = self.live.len() < target;
            match self.random.below(20) {
                0..9 if grow => self.allocate(size_max, false),
                0..4 => self.allocate(size_max, false),
                9 => self.allocate(size_max, true),
                10..12 if !self.live.is_empty() => self.reallocate(size_max),
                12 if !self.live.is_empty() => self.trade(),
                _ if !self.live.is_empty() => self.free_one(),
                _ => self.allocate(size_max, false),
            }
        }
    }

    /// Mostly small and mostly aligned to words, as programs do; now and then anything.
    fn layout(&mut self, size_max: usize) -> Layout {
        let most = match self.random.below(100) {
            0..70 => 256,
            70..90 => 2048,
            90..98 => 40 << 10,
            _ => size_max,
        };
        let size = self.random.spread(1, most.min(size_max));
        let align = match self.random.below(50) {
            0 => 1 << self.random.below(14),
            1..10 => 16,
            10..20 => 1,
            _ => 8,
        };
        Layout::from_size_align(size, align).expect("small enough")
    }

    fn allocate(&mut self, size_max: usize, zeroed: bool) {
        self.operations += 1;
        let layout = self.layout(size_max);
        let start = if zeroed {
            // SAFETY: the size is not zero.
            unsafe { self.allocator.alloc_zeroed(layout) }
        } else {
            // SAFETY: as above.
            unsafe { self.allocator.alloc(layout) }
        };
        if start.is_null() {
            self.refusals += 1;
            return;
        }
        if zeroed {
            // SAFETY: a live block of this size.
            let content = unsafe { std::slice::from_raw_parts(start, layout.size()) };
            assert!(content.iter().all(|&byte| byte == 0), "{layout:?} at {start:p} is not zero");
        }
        self.allocations += 1;
        self.add(start.addr(), layout);
    }

    fn add(&mut self, start: usize, layout: Layout) {
        assert_eq!(start % layout.align(), 0, "{layout:?} at {start:#x}");
        self.oracle.add(start, start + layout.size());
        let stamp = self.random.below(256) as u8;
        for part in parts(layout.size()) {
            let at = std::ptr::with_exposed_provenance_mut::<u8>(start + part.start);
            // SAFETY: within a live block of ours, which nobody else looks at.
            let content = unsafe { std::slice::from_raw_parts_mut(at.cast::<std::mem::MaybeUninit<u8>>(), part.len()) };
            for (byte, offset) in content.iter_mut().zip(part) {
                byte.write(expected(stamp, offset));
            }
        }
        self.live.push(Live { start, layout, stamp });
    }

    /// Looks at what was filled and lies below `kept`.
    fn check(live: &Live, kept: usize) {
        for part in parts(live.layout.size()) {
            let part = part.start.min(kept)..part.end.min(kept);
            let at = std::ptr::with_exposed_provenance::<u8>(live.start + part.start);
            // SAFETY: within a live block of ours, filled by `add`.
            let content = unsafe { std::slice::from_raw_parts(at, part.len()) };
            let holds = content.iter().zip(part).all(|(&byte, offset)| byte == expected(live.stamp, offset));
            assert!(holds, "{live:x?} changed under its owner");
        }
    }

    /// One of its own blocks, which it has no more; the oracle still knows it.
    fn take_out(&mut self) -> Live {
        let nth = self.random.below(self.live.len());
        let live = self.live.swap_remove(nth);
        Self::check(&live, live.layout.size());
        live
    }

    fn free(&mut self, live: Live) {
        self.operations += 1;
        self.frees += 1;
        self.oracle.remove(live.start);
        // SAFETY: a live block of this layout, forgotten above.
        unsafe { self.allocator.dealloc(std::ptr::with_exposed_provenance_mut(live.start), live.layout) };
    }

    fn free_one(&mut self) {
        let live = self.take_out();
        self.free(live);
    }

    /// Leaves a block to somebody else and takes one that somebody left.
    fn trade(&mut self) {
        let live = self.take_out();
        let taken = {
            let mut market = lock(&self.oracle.market);
            market.push(live);
            (market.len() > MARKET_MAX).then(|| market.swap_remove(self.random.below(MARKET_MAX)))
        };
        self.live.extend(taken);
    }

    fn reallocate(&mut self, size_max: usize) {
        self.operations += 1;
        let live = self.take_out();
        let new = self.layout(size_max).size();
        self.oracle.remove(live.start);
        // SAFETY: a live block of this layout; the new size is not zero.
        let start = unsafe { self.allocator.realloc(std::ptr::with_exposed_provenance_mut(live.start), live.layout, new) };
        if start.is_null() {
            self.refusals += 1;
            Self::check(&live, live.layout.size());
            self.oracle.add(live.start, live.start + live.layout.size());
            self.live.push(live);
            return;
        }
        self.resizes += 1;
        let kept = new.min(live.layout.size());
        Self::check(&Live { start: start.addr(), ..live }, kept);
        self.add(start.addr(), Layout::from_size_align(new, live.layout.align()).expect("small enough"));
    }

    /// Frees everything, also what waits on the market.
    pub fn finish(&mut self) {
        let waiting = std::mem::take(&mut *lock(&self.oracle.market));
        self.live.extend(waiting);
        while !self.live.is_empty() {
            self.free_one();
        }
    }
}
