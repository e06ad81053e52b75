//! A block of an allocator under test: filled and checked byte by byte, freed when it goes out of scope.

use std::alloc::{GlobalAlloc, Layout};
use std::ops::Range;
use std::ptr::NonNull;

/// A live block. Not `Copy` and freed by its drop, so that a test cannot free one twice without meaning to.
#[derive(Debug)]
pub struct Block<'a, A: GlobalAlloc> {
    allocator: &'a A,
    start: NonNull<u8>,
    layout: Layout,
    /// What it was filled with; `None`: nothing yet.
    stamp: Option<u8>,
}

// SAFETY: a block is plain memory that the value alone may touch, and the allocator can be called from every thread.
unsafe impl<A: GlobalAlloc + Sync> Send for Block<'_, A> {}

/// Up to here a block is filled and checked whole; of larger ones the two ends and places in between.
const WHOLE_MAX: usize = 64 << 10;
const END_BYTES: usize = 4 << 10;
const PLACES: usize = 32;
const PLACE_BYTES: usize = 32;

/// What belongs at `offset`: differs from block to block and within a block, so that content that was moved by a few bytes is noticed.
#[inline]
fn expected(stamp: u8, offset: usize) -> u8 {
    stamp ^ ((offset as u32).wrapping_mul(0x9e37_79b1) >> 24) as u8
}

/// The parts of a block of this size that are filled and checked.
fn parts(size: usize) -> impl Iterator<Item = Range<usize>> {
    let is_large = size > WHOLE_MAX;
    let head = if is_large { 0..END_BYTES } else { 0..size };
    let places = (1..PLACES).map(move |nth| size / PLACES * nth).map(|at| at..at + PLACE_BYTES);
    let tail = std::iter::once(size.saturating_sub(END_BYTES)..size);
    std::iter::once(head).chain(places.chain(tail).filter(move |_| is_large))
}

impl<'a, A: GlobalAlloc> Block<'a, A> {
    /// `None`: the allocator has no memory. A size of zero is allowed, as Freestone promises; for other allocators it is not.
    ///
    /// # Panics
    ///
    /// When the block is not aligned as asked.
    pub fn new(allocator: &'a A, layout: Layout) -> Option<Self> {
        // SAFETY: the caller was told about size zero.
        Self::begin(allocator, layout, unsafe { allocator.alloc(layout) })
    }

    /// As [`new`](Self::new), by `alloc_zeroed`.
    ///
    /// # Panics
    ///
    /// As [`new`](Self::new), and when a byte of the block is not zero.
    pub fn zeroed(allocator: &'a A, layout: Layout) -> Option<Self> {
        // SAFETY: as in `new`.
        let block = Self::begin(allocator, layout, unsafe { allocator.alloc_zeroed(layout) })?;
        // SAFETY: a live block of this size, initialised, and ours alone.
        let content = unsafe { std::slice::from_raw_parts(block.start.as_ptr(), layout.size()) };
        if let Some(at) = content.iter().position(|&byte| byte != 0) {
            panic!("{layout:?} at {:p}: byte {at} is {:#x}, not zero", block.start, content[at]);
        }
        Some(block)
    }

    fn begin(allocator: &'a A, layout: Layout, start: *mut u8) -> Option<Self> {
        let start = NonNull::new(start)?;
        assert!(start.addr().get().is_multiple_of(layout.align()), "{layout:?} at {start:p}");
        Some(Self { allocator, start, layout, stamp: None })
    }

    /// Where it is.
    pub fn start(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// Its present size and alignment.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Writes to it, to its last byte.
    pub fn fill(&mut self, stamp: u8) {
        for part in parts(self.layout.size()) {
            for offset in part {
                // SAFETY: within a live block that is ours.
                let at = unsafe { self.start.add(offset) };
                // SAFETY: as above.
                unsafe { at.write(expected(stamp, offset)) };
            }
        }
        self.stamp = Some(stamp);
    }

    /// Makes every byte of it different from zero.
    pub fn dirty(&mut self) {
        // SAFETY: a live block of this size that is ours.
        unsafe { self.start.write_bytes(0xd7, self.layout.size()) };
        self.stamp = None;
    }

    /// Dies unless everything that [`fill`](Self::fill) wrote still stands there.
    ///
    /// # Panics
    ///
    /// As said.
    pub fn check(&self) {
        self.check_before(self.layout.size(), self.layout.size());
    }

    /// As [`check`](Self::check), of what was written to a block of size `filled` and lies below `kept`.
    fn check_before(&self, filled: usize, kept: usize) {
        let Some(stamp) = self.stamp else { return };
        for offset in parts(filled).flatten().filter(|&offset| offset < kept) {
            // SAFETY: within a live block that is ours, and written by `fill`.
            let at = unsafe { self.start.add(offset) };
            // SAFETY: as above.
            let byte = unsafe { at.read() };
            assert_eq!(
                byte,
                expected(stamp, offset),
                "{:?} at {:p}, filled at {filled} B, byte {offset}",
                self.layout,
                self.start
            );
        }
    }

    /// Changes its size; says whether that worked. Afterwards the content is checked, as much of it as must be there, and written anew.
    ///
    /// # Panics
    ///
    /// When content was lost, also when the answer is `false`, or when the block is not aligned any more.
    #[must_use]
    pub fn resize(&mut self, size: usize) -> bool {
        self.check();
        let old = self.layout.size();
        // SAFETY: a live block of this layout. A new size of zero is forbidden, and no test does that.
        let resized = NonNull::new(unsafe { self.allocator.realloc(self.start.as_ptr(), self.layout, size) });
        let Some(start) = resized else {
            self.check();
            return false;
        };
        self.start = start;
        self.layout = Layout::from_size_align(size, self.layout.align()).expect("the allocator took it");
        assert!(
            start.addr().get().is_multiple_of(self.layout.align()),
            "{:?} at {start:p} after a change from {old}",
            self.layout
        );
        self.check_before(old, old.min(size));
        if let Some(stamp) = self.stamp {
            self.fill(stamp.wrapping_add(101));
        }
        true
    }
}

impl<A: GlobalAlloc> Drop for Block<'_, A> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.check();
        }
        // SAFETY: a live block of this layout, and nobody can reach it any more.
        unsafe { self.allocator.dealloc(self.start.as_ptr(), self.layout) };
    }
}
