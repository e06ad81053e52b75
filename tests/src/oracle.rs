//! The oracle of walks: knows every live block, that no two share a byte, and what must stand in each.
//!
//! Kept outside the allocator under test: the map of intervals lies in memory that was asked for before the walk, so that the oracle's own
//! allocations do not disturb what is observed.

use std::alloc::{GlobalAlloc, Layout};

use crate::Random;

/// A live block.
#[derive(Clone, Copy, Debug)]
struct Live {
    start: usize,
    layout: Layout,
    /// What the block is filled with.
    stamp: u8,
}

/// Walks over an allocator with all four operations and checks everything that can be seen from outside.
#[derive(Debug)]
pub struct Walker<'a, A> {
    allocator: &'a A,
    random: Random,
    /// In no order; intervals are in `starts`.
    live: Vec<Live>,
    /// Start → end of every live block, ordered.
    intervals: std::collections::BTreeMap<usize, usize>,
    /// How many bytes of a large block are stamped and looked at, at both ends each.
    edge: usize,
    /// Counts that the allocator must agree with.
    pub allocations: u64,
    /// See [`allocations`](Self::allocations).
    pub frees: u64,
    /// Requests that were refused.
    pub refusals: u64,
}

impl<'a, A: GlobalAlloc> Walker<'a, A> {
    /// Begins with nothing live.
    #[must_use]
    pub fn new(allocator: &'a A, seed: u64) -> Self {
        Self {
            allocator,
            random: Random::new(seed),
            live: Vec::new(),
            intervals: std::collections::BTreeMap::new(),
            edge: 512,
            allocations: 0,
            frees: 0,
            refusals: 0,
        }
    }

    /// How many blocks are live.
    #[must_use]
    pub fn live(&self) -> usize {
        self.live.len()
    }

    /// Does `steps` random operations, with about `target` blocks live.
    pub fn walk(&mut self, steps: usize, target: usize, size_max: usize) {
        for _ in 0..steps {
            let grow = self.live.len() < target;
            match self.random.below(20) {
                0..9 if grow => self.allocate(size_max, false),
                0..4 => self.allocate(size_max, false),
                9 => self.allocate(size_max, true),
                10..12 if !self.live.is_empty() => self.reallocate(size_max),
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

    fn stamp(&mut self) -> u8 {
        self.random.below(255) as u8 + 1
    }

    fn allocate(&mut self, size_max: usize, zeroed: bool) {
        let layout = self.layout(size_max);
        // SAFETY: the size is not zero.
        let start = unsafe { if zeroed { self.allocator.alloc_zeroed(layout) } else { self.allocator.alloc(layout) } };
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
        let end = start + layout.size();
        if let Some((other, other_end)) = self.intervals.range(..end).next_back() {
            assert!(*other_end <= start, "{start:#x}..{end:#x} was handed out while {other:#x}..{other_end:#x} is live");
        }
        self.intervals.insert(start, end);
        let stamp = self.stamp();
        let live = Live { start, layout, stamp };
        self.fill(&live);
        self.live.push(live);
    }

    /// The parts of a block that are stamped: all of a small one, both ends of a large one.
    fn parts(&self, size: usize) -> [std::ops::Range<usize>; 2] {
        if size <= 2 * self.edge { [0..size, size..size] } else { [0..self.edge, size - self.edge..size] }
    }

    fn fill(&self, live: &Live) {
        for part in self.parts(live.layout.size()) {
            let at = std::ptr::with_exposed_provenance_mut::<u8>(live.start + part.start);
            // SAFETY: within a live block of ours.
            unsafe { at.write_bytes(live.stamp, part.len()) };
        }
    }

    fn check(&self, live: &Live, size: usize) {
        for part in self.parts(live.layout.size()) {
            let part = part.start.min(size)..part.end.min(size);
            let at = std::ptr::with_exposed_provenance::<u8>(live.start + part.start);
            // SAFETY: within a live block of ours.
            let content = unsafe { std::slice::from_raw_parts(at, part.len()) };
            assert!(content.iter().all(|&byte| byte == live.stamp), "{live:x?} changed under its owner");
        }
    }

    fn take_out(&mut self) -> Live {
        let nth = self.random.below(self.live.len());
        let live = self.live.swap_remove(nth);
        self.intervals.remove(&live.start);
        self.check(&live, live.layout.size());
        live
    }

    fn free_one(&mut self) {
        let live = self.take_out();
        self.frees += 1;
        // SAFETY: a live block of this layout, forgotten above.
        unsafe { self.allocator.dealloc(std::ptr::with_exposed_provenance_mut(live.start), live.layout) };
    }

    fn reallocate(&mut self, size_max: usize) {
        let live = self.take_out();
        let new = self.layout(size_max).size();
        // SAFETY: a live block of this layout; the new size is not zero.
        let start = unsafe { self.allocator.realloc(std::ptr::with_exposed_provenance_mut(live.start), live.layout, new) };
        if start.is_null() {
            self.refusals += 1;
            self.check(&live, live.layout.size());
            self.intervals.insert(live.start, live.start + live.layout.size());
            self.live.push(live);
            return;
        }
        let kept = new.min(live.layout.size());
        self.check(&Live { start: start.addr(), ..live }, kept);
        self.add(start.addr(), Layout::from_size_align(new, live.layout.align()).expect("small enough"));
    }

    /// Frees everything.
    pub fn finish(&mut self) {
        while !self.live.is_empty() {
            self.free_one();
        }
    }
}
