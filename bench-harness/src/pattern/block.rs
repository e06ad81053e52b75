//! A block from the C face, written at both ends.
//!
//! ```text
//!   │ bytes: u32 │ tag: u32 │ … as it came … │ the tag's low byte │
//! ```
//!
//! The tag comes from the pattern's random numbers. What a block says at its end goes into the pattern's sum, so an allocator that gives two
//! programs' parts the same memory, or loses some in `realloc`, computes another sum. An allocator that has no memory, or whose `calloc` or
//! alignment is wrong, ends the process with a sentence.

use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicPtr, Ordering};

use freestone_bench::subject::fail;
use freestone_bench::workload::opaque;

/// A block of at least 8 bytes and less than 4 GiB.
#[derive(Debug)]
pub(super) struct Block(NonNull<u8>);

// SAFETY: a block is owned memory; where it is freed does not matter.
unsafe impl Send for Block {}

/// A block has room for its size and its tag.
pub(super) const BYTES_MIN: usize = 8;

impl Block {
    /// From `malloc`.
    #[inline]
    pub(super) fn new(bytes: usize, tag: u32) -> Self {
        // SAFETY: any size may be asked for.
        let start = unsafe { libc::malloc(bytes) };
        Self::marked(start, bytes, tag)
    }

    /// From `calloc`.
    pub(super) fn zeroed(bytes: usize, tag: u32) -> Self {
        // SAFETY: any size may be asked for.
        let start: *mut u8 = opaque(unsafe { libc::calloc(1, bytes) }.cast());
        for place in [0, bytes / 2, bytes - 1] {
            // SAFETY: within the block; or null, which is looked at first.
            if !start.is_null() && unsafe { start.wrapping_add(place).read() } != 0 {
                fail("calloc returns memory that is not zero");
            }
        }
        Self::marked(start.cast(), bytes, tag)
    }

    /// From `posix_memalign` or, for an odd tag, `aligned_alloc`.
    pub(super) fn aligned(alignment: usize, bytes: usize, tag: u32) -> Self {
        let bytes = bytes.next_multiple_of(alignment);
        let mut start = null_mut();
        if tag.is_multiple_of(2) {
            // SAFETY: `start` is a valid place to write to; it stays null where there is no memory.
            unsafe { libc::posix_memalign(&raw mut start, alignment, bytes) };
        } else {
            // SAFETY: a power of two, and a multiple of it.
            start = unsafe { libc::aligned_alloc(alignment, bytes) };
        }
        if !start.addr().is_multiple_of(alignment) {
            fail("an aligned block is not aligned");
        }
        Self::marked(start, bytes, tag)
    }

    #[inline]
    fn marked(start: *mut libc::c_void, bytes: usize, tag: u32) -> Self {
        let Some(start) = NonNull::new(opaque(start.cast::<u8>())) else { fail("there is no memory left") };
        let block = Self(start);
        // SAFETY: a block has at least 8 bytes, aligned to 8.
        unsafe { start.cast::<[u32; 2]>().write([bytes as u32, tag]) };
        block.mark_end(bytes, tag);
        block
    }

    /// Writes the last byte, unless the tag itself reaches there.
    #[inline]
    fn mark_end(&self, bytes: usize, tag: u32) {
        if bytes > BYTES_MIN {
            // SAFETY: the last byte of the block.
            unsafe { self.byte(bytes - 1).write(tag as u8) };
        }
    }

    /// Where a byte lies.
    #[inline]
    fn byte(&self, place: usize) -> *mut u8 {
        self.0.as_ptr().wrapping_add(place)
    }

    #[inline]
    fn head(&self) -> [u32; 2] {
        // SAFETY: `marked` wrote it.
        unsafe { self.0.cast::<[u32; 2]>().read() }
    }

    /// `realloc`, to a size that is not smaller.
    pub(super) fn grow(&mut self, bytes: usize) {
        let [_, tag] = self.head();
        // SAFETY: a live block, which is replaced by what comes back.
        let start = unsafe { libc::realloc(self.0.as_ptr().cast(), bytes) };
        let Some(start) = NonNull::new(opaque(start.cast::<u8>())) else { fail("there is no memory left") };
        self.0 = start;
        // SAFETY: a block has at least 8 bytes. The tag is left as it came over.
        unsafe { start.cast::<u32>().write(bytes as u32) };
        self.mark_end(bytes, tag);
    }

    /// Writes one byte of every `stride`, behind the head and before the end.
    pub(super) fn touch(&self, stride: usize) {
        let [bytes, tag] = self.head();
        for place in (stride..bytes as usize - 1).step_by(stride) {
            // SAFETY: within the block.
            unsafe { self.byte(place).write(tag as u8) };
        }
    }

    /// Adds one to the tag so many times, in memory each time.
    pub(super) fn stir(&self, times: u64) {
        let tag = self.byte(size_of::<u32>()).cast::<u32>();
        for _ in 0..times {
            // SAFETY: a block has at least 8 bytes, and `marked` wrote them.
            let value = unsafe { tag.read_volatile() };
            // SAFETY: as above.
            unsafe { tag.write_volatile(value.wrapping_add(1)) };
        }
    }

    /// Frees the block and returns what it says.
    #[inline]
    pub(super) fn retire(self) -> u64 {
        let [bytes, tag] = self.head();
        // SAFETY: the last byte of the block.
        let end = unsafe { self.byte(bytes as usize - 1).read() };
        u64::from(tag) + (u64::from(bytes) << 8) + u64::from(end)
    }
}

impl Drop for Block {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: a live block of `malloc` or a sibling, and nobody else's.
        unsafe { libc::free(opaque(self.0.as_ptr()).cast()) };
    }
}

/// Frees all of them in this order, and returns the sum of what they say.
pub(super) fn retired(blocks: impl IntoIterator<Item = Block>) -> u64 {
    blocks.into_iter().fold(0, |sum, block| sum.wrapping_add(block.retire()))
}

/// Places that threads exchange blocks through. Each holds one or none.
pub(super) struct Places(Vec<AtomicPtr<u8>>);

impl Places {
    /// So many, empty.
    pub(super) fn new(count: usize) -> Self {
        Self((0..count).map(|_| AtomicPtr::new(null_mut())).collect())
    }

    /// Puts one in, and takes out what was there.
    pub(super) fn swap(&self, place: usize, block: Option<Block>) -> Option<Block> {
        let new = block.map_or_else(null_mut, |block| std::mem::ManuallyDrop::new(block).0.as_ptr());
        // AcqRel: publishes what the block says, and sees what the other one's says. Pairs with itself.
        NonNull::new(self.0[place].swap(new, Ordering::AcqRel)).map(Block)
    }

    /// Takes out all.
    pub(super) fn drain(&self) -> impl Iterator<Item = Block> {
        (0..self.0.len()).filter_map(|place| self.swap(place, None))
    }
}
