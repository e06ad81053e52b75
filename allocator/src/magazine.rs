//! Floor 3. A magazine: a small array of addresses of free blocks of one class, the unit that moves between rooms.
//!
//! ```text
//!   header                                        entries
//!   │ next │ capacity │ first │ count │            │ · │ · │ block block block block │ · │
//!                                                  0       first                       capacity
//!                                                          └─────── count ──────┘
//! ```
//!
//! A magazine holds addresses only: it never reads or writes a block, so a program that scribbles over freed memory cannot lead
//! it astray, and moving it does not drag the blocks' cache lines along.
//!
//! A [`Magazine`] value is the right to use it: it cannot be copied, so nobody has a magazine that somebody else has too. While a
//! thread works with one, `first` and `count` are stale; the thread's slot says how far it is. They are written when the magazine
//! leaves the thread.

use core::ptr::NonNull;

use crate::atomic::{AtomicPtr, AtomicU16, Ordering};
use crate::config::{MAGAZINE_BLOCKS_MAX, MAGAZINE_BLOCKS_MIN};

/// Capacities are powers of two between these; so many of them there are.
pub(crate) const CAPACITIES: usize = (MAGAZINE_BLOCKS_MAX / MAGAZINE_BLOCKS_MIN).ilog2() as usize + 1;

/// A mark on an entry in a magazine of a class with a stack or of whole blocks: the block's memory reads as zero. The topmost bit, which no
/// program's address has; a low bit would hide a free of a misaligned pointer. Split magazines never hold it.
#[cfg_attr(loom, allow(dead_code))]
pub(crate) const ZEROED: usize = 1 << (usize::BITS - 1);

/// What every magazine starts with. Lives in `meta`, so it stays a header for good.
#[repr(C)]
pub(crate) struct Header {
    /// The next one on whatever list this magazine is on.
    next: AtomicPtr<Header>,
    /// Written once, when the magazine is made.
    capacity: u32,
    // Atomic, here and below, because readers of statistics look at a header without having its magazine.
    first: AtomicU16,
    count: AtomicU16,
}

const _: () = assert!(size_of::<Header>().is_multiple_of(align_of::<*mut u8>()));

/// A magazine, and the only right to it.
#[repr(transparent)]
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Magazine(NonNull<Header>);

// SAFETY: a magazine is plain memory, and its value is the only right to use it.
unsafe impl Send for Magazine {}

/// Where the entries of a magazine begin, whoever has the right to it.
#[inline]
pub(crate) fn entries_of(raw: *mut Header) -> *mut *mut u8 {
    raw.wrapping_add(1).cast()
}

/// How many blocks are in a magazine that somebody else may have by now: a number for statistics. Null counts as empty.
pub(crate) fn peek_count(raw: *mut Header) -> usize {
    // SAFETY: null, or a header, which stays a header for good (I-forever).
    let header = unsafe { raw.as_ref() };
    // Relaxed: a count that may be old.
    header.map_or(0, |header| usize::from(header.count.load(Ordering::Relaxed)))
}

/// Which of the [`CAPACITIES`] this one is.
#[inline]
pub(crate) fn capacity_index(capacity: usize) -> usize {
    debug_assert!(capacity.is_power_of_two());
    (capacity / MAGAZINE_BLOCKS_MIN).ilog2() as usize
}

impl Magazine {
    /// How much memory one of this capacity needs.
    pub(crate) const fn bytes(capacity: usize) -> usize {
        size_of::<Header>() + capacity * size_of::<*mut u8>()
    }

    /// Makes one without blocks. `capacity` is one of the [`CAPACITIES`].
    ///
    /// # Safety
    ///
    /// - `memory` is [`bytes`](Self::bytes)`(capacity)` of zeros, aligned like a pointer, and from now on a magazine for good.
    pub(crate) unsafe fn new(memory: NonNull<u8>, capacity: usize) -> Self {
        debug_assert!((MAGAZINE_BLOCKS_MIN..=MAGAZINE_BLOCKS_MAX).contains(&capacity));
        debug_assert!(capacity.is_power_of_two());
        let header = memory.cast::<Header>();
        let empty =
            Header { next: AtomicPtr::default(), capacity: capacity as u32, first: AtomicU16::new(0), count: AtomicU16::new(0) };
        // SAFETY: the caller gives memory with room for the header and the entries behind it.
        unsafe { header.write(empty) };
        Self(header)
    }

    #[inline]
    fn header(&self) -> &Header {
        // SAFETY: headers are never given back, and only the holder of the value changes this one (I-magazine).
        unsafe { self.0.as_ref() }
    }

    /// The link to the next magazine of a list.
    #[inline]
    pub(crate) fn next(&self) -> &AtomicPtr<Header> {
        &self.header().next
    }

    #[inline]
    pub(crate) fn capacity(&self) -> usize {
        self.header().capacity as usize
    }

    /// Blocks inside, as of when the magazine last left a thread.
    // Relaxed, here and in `set_range`: the right to the magazine orders it.
    #[inline]
    pub(crate) fn count(&self) -> usize {
        usize::from(self.header().count.load(Ordering::Relaxed))
    }

    /// Where the entries begin. The pointer reaches over all of them.
    #[inline]
    pub(crate) fn entries(&self) -> *mut *mut u8 {
        entries_of(self.0.as_ptr())
    }

    /// The blocks inside are `entries[first..first + count]`, all of them written.
    #[inline]
    pub(crate) fn set_range(&mut self, first: usize, count: usize) {
        debug_assert!(first + count <= self.capacity());
        let header = self.header();
        header.first.store(first as u16, Ordering::Relaxed);
        header.count.store(count as u16, Ordering::Relaxed);
    }

    /// Where the blocks begin.
    #[inline]
    pub(crate) fn first(&self) -> usize {
        usize::from(self.header().first.load(Ordering::Relaxed))
    }

    /// The blocks inside.
    #[inline]
    pub(crate) fn blocks(&self) -> &[*mut u8] {
        // SAFETY: `set_range` promised that these entries are written and within the capacity.
        let first = unsafe { self.entries().add(self.first()) };
        // SAFETY: as above; the holder of the value is the only one who could change them.
        unsafe { core::slice::from_raw_parts(first, self.count()) }
    }

    /// All entries, to write into. What the magazine held is forgotten.
    #[inline]
    pub(crate) fn room(&mut self) -> &mut [*mut u8] {
        self.set_range(0, 0);
        // SAFETY: the memory began as zeros, so every entry is a valid pointer value, and the value is the only right.
        unsafe { core::slice::from_raw_parts_mut(self.entries(), self.capacity()) }
    }

    /// Gives the right up for an address, to be taken back by [`from_raw`](Self::from_raw) exactly once.
    #[inline]
    pub(crate) fn into_raw(self) -> *mut Header {
        self.0.as_ptr()
    }

    /// Takes the right back.
    ///
    /// # Safety
    ///
    /// - `raw` came from [`into_raw`](Self::into_raw), or is null, and this is the only taking-back of that giving-up.
    /// - If another thread gave it up, its writes are visible (an acquire that saw its release, or a lock).
    #[inline]
    pub(crate) unsafe fn from_raw(raw: *mut Header) -> Option<Self> {
        NonNull::new(raw).map(Self)
    }
}

/// Magazines one behind the other, the newest first. Not shared: lives behind a lock or in a thread.
#[derive(Debug)]
pub(crate) struct Stack {
    top: *mut Header,
}

// SAFETY: the stack has the only right to the magazines on it.
unsafe impl Send for Stack {}

impl Stack {
    pub(crate) const fn new() -> Self {
        Self { top: core::ptr::null_mut() }
    }

    #[inline]
    pub(crate) fn push(&mut self, magazine: Magazine) {
        // Relaxed: whoever shares the stack orders accesses to it.
        magazine.header().next.store(self.top, Ordering::Relaxed);
        self.top = magazine.into_raw();
    }

    #[inline]
    pub(crate) fn pop(&mut self) -> Option<Magazine> {
        // SAFETY: `push` gave this one up, and `top` moves on so that it is taken back once.
        let magazine = unsafe { Magazine::from_raw(self.top) }?;
        // Relaxed: as in `push`.
        self.top = magazine.header().next.load(Ordering::Relaxed);
        Some(magazine)
    }

    /// Everything a lock-free list of magazines held.
    ///
    /// # Safety
    ///
    /// - `top` is null or the first of a chain of magazines that were given up and that nobody else can reach.
    pub(crate) unsafe fn from_chain(top: *mut Header) -> Self {
        Self { top }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn magazine(capacity: usize) -> Magazine {
        let words = Vec::leak(vec![0_usize; Magazine::bytes(capacity) / size_of::<usize>()]);
        // SAFETY: zeros of the right size and alignment, leaked.
        unsafe { Magazine::new(NonNull::from(words).cast(), capacity) }
    }

    #[test]
    fn a_magazine_gives_back_the_range_it_was_told() {
        let mut magazine = magazine(8);
        assert_eq!(magazine.count(), 0);
        for (index, entry) in magazine.room().iter_mut().enumerate() {
            *entry = core::ptr::without_provenance_mut(index + 1);
        }
        magazine.set_range(3, 4);
        let addresses: Vec<usize> = magazine.blocks().iter().map(|block| block.addr()).collect();
        assert_eq!(addresses, [4, 5, 6, 7]);
    }

    #[test]
    fn a_stack_returns_the_newest_first_and_each_one_once() {
        let mut stack = Stack::new();
        let mut made = Vec::new();
        for _ in 0..5 {
            let magazine = magazine(4);
            made.push(magazine.0);
            stack.push(magazine);
        }
        while let Some(expected) = made.pop() {
            assert_eq!(stack.pop().map(|magazine| magazine.0), Some(expected));
        }
        assert!(stack.pop().is_none());
        assert_eq!(stack.pop(), None);
    }

    #[test]
    fn capacities_are_numbered_without_holes() {
        let mut capacity = MAGAZINE_BLOCKS_MIN;
        for index in 0..CAPACITIES {
            assert_eq!(capacity_index(capacity), index);
            capacity *= 2;
        }
        assert_eq!(capacity, 2 * MAGAZINE_BLOCKS_MAX);
    }
}
