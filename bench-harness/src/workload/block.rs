//! A block of memory whose size is known at run time only, straight from the allocator.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::NonNull;

use super::opaque;

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
        let Some(start) = NonNull::new(opaque(unsafe { alloc(layout) })) else { handle_alloc_error(layout) };
        // SAFETY: at least 8 bytes, aligned to 8.
        unsafe { start.cast::<u64>().write(word) };
        Self { start, layout }
    }

    #[inline]
    pub(crate) fn word(&self) -> u64 {
        // SAFETY: written by `new`.
        unsafe { self.start.cast::<u64>().read() }
    }

    pub(crate) fn size(&self) -> usize {
        self.layout.size()
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

