//! Blocks of memory whose size is known at run time only, straight from the allocator: one, or a table of many.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error, realloc};
use std::mem::ManuallyDrop;
use std::ptr::NonNull;

use super::opaque;

/// [`opaque`] for a block: after the test for null, which an allocator may save the program.
#[inline(always)]
fn opaque_block(start: NonNull<u8>) -> NonNull<u8> {
    // SAFETY: the pointer comes back as it was.
    unsafe { NonNull::new_unchecked(opaque(start.as_ptr())) }
}

/// A block with its first word written.
pub(crate) struct Block {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: a block is owned memory; where it is freed does not matter.
unsafe impl Send for Block {}

impl Block {
    /// At least 8 bytes.
    #[inline]
    pub(crate) fn new(bytes: usize, word: u64) -> Self {
        // SAFETY: callers ask for at least 8 and far less than `isize::MAX` bytes; 8 is a power of two.
        let layout = unsafe { Layout::from_size_align_unchecked(bytes, 8) };
        // SAFETY: the size is not zero.
        let Some(start) = NonNull::new(unsafe { alloc(layout) }) else { handle_alloc_error(layout) };
        let start = opaque_block(start);
        // SAFETY: at least 8 bytes, aligned to 8.
        unsafe { start.cast::<u64>().write(word) };
        Self { start, layout }
    }

    /// With another size, at least 8 bytes, wherever that is to be had. What both sizes have room for, stays.
    #[inline]
    pub(crate) fn resized(self, bytes: usize) -> Self {
        let old = ManuallyDrop::new(self);
        // SAFETY: as in `new`.
        let layout = unsafe { Layout::from_size_align_unchecked(bytes, 8) };
        // SAFETY: allocated with this layout, and not freed, for `old` never is; the new size is not zero.
        let start = unsafe { realloc(opaque(old.start.as_ptr()), old.layout, bytes) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        Self { start: opaque_block(start), layout }
    }

    #[inline]
    pub(crate) fn word(&self) -> u64 {
        // SAFETY: written by `new`.
        unsafe { self.start.cast::<u64>().read() }
    }

    pub(crate) fn size(&self) -> usize {
        self.layout.size()
    }

    pub(crate) fn address(&self) -> usize {
        self.start.addr().get()
    }

    /// Writes every byte.
    pub(crate) fn fill(&self, byte: u8) {
        // SAFETY: all of the block.
        unsafe { self.start.write_bytes(byte, self.size()) };
    }

    /// Writes one byte per kernel page.
    pub(crate) fn touch(&self) {
        for offset in (0..self.layout.size()).step_by(4096) {
            // SAFETY: within the block.
            let byte = unsafe { self.start.add(offset) };
            // SAFETY: as above.
            unsafe { byte.write_volatile(offset as u8) };
        }
    }
}

impl Drop for Block {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: allocated by `new` with this layout.
        unsafe { dealloc(opaque(self.start.as_ptr()), self.layout) };
    }
}

/// Many blocks of at most 64 KiB. Addresses and sizes lie apart, ten bytes a block, so that the table takes little of the cache that the
/// blocks are after.
pub(crate) struct BlockTable {
    starts: Vec<NonNull<u8>>,
    sizes: Vec<u16>,
}

// SAFETY: blocks are owned memory; where they are freed does not matter.
unsafe impl Send for BlockTable {}

impl BlockTable {
    /// Blocks of these sizes, each with its place as its first word.
    pub(crate) fn new(sizes: impl Iterator<Item = usize>) -> Self {
        let sizes: Vec<u16> = sizes.map(|size| size as u16).collect();
        let starts = sizes.iter().enumerate().map(|(place, &size)| Self::allocate(usize::from(size), place as u64)).collect();
        Self { starts, sizes }
    }

    #[inline(always)]
    fn layout(size: usize) -> Layout {
        // SAFETY: sizes are at least 8 and at most 64 KiB; 8 is a power of two.
        unsafe { Layout::from_size_align_unchecked(size, 8) }
    }

    #[inline(always)]
    fn allocate(size: usize, word: u64) -> NonNull<u8> {
        let layout = Self::layout(size);
        // SAFETY: the size is not zero.
        let Some(start) = NonNull::new(unsafe { alloc(layout) }) else { handle_alloc_error(layout) };
        let start = opaque_block(start);
        // SAFETY: at least 8 bytes, aligned to 8.
        unsafe { start.cast::<u64>().write(word) };
        start
    }

    /// Frees the block at a place and puts another one there.
    ///
    /// # Safety
    ///
    /// - There is such a place. (Asking would cost a tenth of what is measured.)
    #[inline(always)]
    pub(crate) unsafe fn replace(&mut self, place: usize, size: usize, word: u64) {
        debug_assert!(place < self.starts.len());
        // SAFETY: the caller knows the place.
        let start = unsafe { self.starts.get_unchecked_mut(place) };
        // SAFETY: there are as many sizes.
        let old_size = unsafe { self.sizes.get_unchecked_mut(place) };
        // SAFETY: allocated with this layout, and replaced below.
        unsafe { dealloc(start.as_ptr(), Self::layout(usize::from(*old_size))) };
        *start = Self::allocate(size, word);
        *old_size = size as u16;
    }

    /// The first word of the block at a place.
    #[inline(always)]
    pub(crate) fn word(&self, place: usize) -> u64 {
        // SAFETY: written by `allocate`.
        unsafe { self.starts[place].cast::<u64>().read() }
    }

    /// A number that depends on all first words.
    pub(crate) fn checksum(&self) -> u64 {
        (0..self.starts.len()).fold(0, |sum, place| sum.wrapping_mul(31).wrapping_add(self.word(place)))
    }
}

impl Drop for BlockTable {
    fn drop(&mut self) {
        for (start, &size) in self.starts.iter().zip(&self.sizes) {
            // SAFETY: allocated with this layout.
            unsafe { dealloc(start.as_ptr(), Self::layout(usize::from(size))) };
        }
    }
}
