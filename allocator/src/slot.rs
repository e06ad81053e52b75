//! Floor 5. What a thread has of one class: a hot half that the fast path works on, and a cold half for the slow path and for readers.
//!
//! ```text
//!   split (≤ 1 KiB)                                     stack (1–32 KiB)
//!
//!   alloc_base ▶ │block block block│ ·  ·  · │          base ▶ │block block block│ ·  ·  · │
//!                └── alloc_left ───┘◀ pops                     └──── count ─────┘◀▶ pops and pushes
//!   free_base  ▶ │ ·  ·  · │block block block│          armed: allocations until the slow path looks in
//!                └free_room┘◀ pushes
//! ```
//!
//! Split: allocation pops one array, freeing pushes onto the other, each side with one down-counter; the two bases are exchanged when
//! the alloc array runs dry. What was freed first is allocated first, so an address direction is kept. A stack would return the
//! hottest block first, which pays once blocks are large, so above 1 KiB there is one.
//!
//! *Counts come for free.* Every allocation lowers a counter that only the slow path raises, so allocations = all that was ever armed − what
//! is left, exactly and at any moment; the same on the other side. Readers in other threads look at both halves: the counters are stored
//! with Release, and the cold half has a sequence number that is odd while the slow path changes both.
//!
//! Only the thread that owns the record writes, except where a record changes hands, which a lock orders.

use core::hint;
use core::ptr::NonNull;

use crate::atomic::{AtomicI64, AtomicPtr, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
use crate::central::ZEROED;
use crate::magazine::{Header, Magazine};

/// The hot half of a class with split magazines. All zeros: both sides are dry.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct SplitSlot {
    pub(crate) alloc_left: AtomicUsize,
    pub(crate) alloc_base: AtomicPtr<*mut u8>,
    pub(crate) free_room: AtomicUsize,
    pub(crate) free_base: AtomicPtr<*mut u8>,
}

impl SplitSlot {
    /// Takes a block, or `None` if the array is dry.
    ///
    /// # Safety
    ///
    /// - The calling thread owns the record this slot is part of.
    #[inline(always)]
    pub(crate) unsafe fn pop(&self) -> Option<NonNull<u8>> {
        // Relaxed, here and below: only this thread writes; nothing is stored before the branch, because an empty heap is read-only.
        let left = self.alloc_left.load(Ordering::Relaxed).checked_sub(1)?;
        let base = self.alloc_base.load(Ordering::Relaxed);
        // SAFETY: entries below `alloc_left` exist.
        let entry = unsafe { base.add(left) };
        // SAFETY: the slow path wrote them.
        let block = unsafe { entry.read() };
        // Release: a reader that counts this allocation's later free, wherever it happens, also counts this. Pairs with the Acquire
        // in the counts below.
        self.alloc_left.store(left, Ordering::Release);
        // SAFETY: no block is at address zero; knowing that saves the caller a test.
        unsafe { hint::assert_unchecked(!block.is_null()) };
        NonNull::new(block)
    }

    /// Takes a block back, or says `false` if the array is full.
    ///
    /// # Safety
    ///
    /// - As for [`pop`](Self::pop), and `block` is of this class and nobody uses it.
    #[inline(always)]
    pub(crate) unsafe fn push(&self, block: NonNull<u8>) -> bool {
        let Some(room) = self.free_room.load(Ordering::Relaxed).checked_sub(1) else { return false };
        let base = self.free_base.load(Ordering::Relaxed);
        // SAFETY: entries below `free_room` exist.
        let entry = unsafe { base.add(room) };
        // SAFETY: and they are this thread's to write.
        unsafe { entry.write(block.as_ptr()) };
        // Release: as in `pop`.
        self.free_room.store(room, Ordering::Release);
        true
    }
}

/// The hot half of a class with a stack. All zeros: nothing armed, nothing there, no room.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct StackSlot {
    /// Allocations still armed, shifted by 32, and blocks there: one word, so that a reader sees both of one moment.
    pub(crate) state: AtomicU64,
    pub(crate) base: AtomicPtr<*mut u8>,
    pub(crate) capacity: AtomicU64,
    /// A slot is as long as a split one.
    unused: u64,
}

/// One armed allocation in [`StackSlot::state`].
pub(crate) const ARMED_ONE: u64 = 1 << 32;

/// The blocks in a [`StackSlot::state`].
#[inline(always)]
pub(crate) const fn blocks_of(state: u64) -> u64 {
    state & (ARMED_ONE - 1)
}

/// A block from a stack.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StackBlock {
    pub(crate) block: NonNull<u8>,
    /// Its memory was never touched since the system gave it.
    pub(crate) zeroed: bool,
}

impl StackBlock {
    #[inline(always)]
    pub(crate) fn from_entry(entry: *mut u8) -> Self {
        let block = entry.map_addr(|address| address & !ZEROED);
        // SAFETY: no block is at address zero.
        unsafe { hint::assert_unchecked(!block.is_null()) };
        // SAFETY: as above.
        Self { block: unsafe { NonNull::new_unchecked(block) }, zeroed: entry.addr() & ZEROED != 0 }
    }
}

impl StackSlot {
    /// Takes the block that was put there last, or `None` if the slow path has to look in.
    ///
    /// # Safety
    ///
    /// - As for [`SplitSlot::pop`].
    #[inline(always)]
    pub(crate) unsafe fn pop(&self) -> Option<StackBlock> {
        // Relaxed, here and below: as in `SplitSlot`.
        let state = self.state.load(Ordering::Relaxed);
        let count = blocks_of(state).checked_sub(1)?;
        if state < ARMED_ONE {
            return None;
        }
        let base = self.base.load(Ordering::Relaxed);
        // SAFETY: entries below the count exist.
        let entry = unsafe { base.add(count as usize) };
        // SAFETY: and were written by the slow path or by `push`.
        let block = unsafe { entry.read() };
        // Release: as in `SplitSlot::pop`.
        self.state.store(state - (ARMED_ONE + 1), Ordering::Release);
        Some(StackBlock::from_entry(block))
    }

    /// Takes a block back, or says `false` if the stack is full.
    ///
    /// # Safety
    ///
    /// - As for [`SplitSlot::push`].
    #[inline(always)]
    pub(crate) unsafe fn push(&self, block: NonNull<u8>) -> bool {
        let state = self.state.load(Ordering::Relaxed);
        let count = blocks_of(state);
        if count >= self.capacity.load(Ordering::Relaxed) {
            return false;
        }
        let base = self.base.load(Ordering::Relaxed);
        // SAFETY: entries below the capacity exist.
        let entry = unsafe { base.add(count as usize) };
        // SAFETY: and they are this thread's to write.
        unsafe { entry.write(block.as_ptr()) };
        // Release: as in `SplitSlot::pop`.
        self.state.store(state + 1, Ordering::Release);
        true
    }
}

/// The cold half: what the slow path knows, and what turns counters into counts.
#[derive(Debug)]
pub(crate) struct ColdSlot {
    /// Odd while the slow path changes the slot.
    sequence: AtomicU32,
    /// Which slow entry of the thread was the last one of this class.
    pub(crate) touched: AtomicU32,
    /// Blocks the thread means to have of this class, a power of two; 0 before the first.
    pub(crate) depth: AtomicU16,
    /// Split: entries of the two arrays' magazines. Stack: unused.
    pub(crate) alloc_capacity: AtomicU16,
    /// See [`alloc_capacity`](Self::alloc_capacity).
    pub(crate) free_capacity: AtomicU16,
    /// Split: blocks at the bottom of the alloc array that are kept from the fast path, because the allocation before them is to be
    /// sampled.
    pub(crate) hidden: AtomicU16,
    /// Quick turns until the whole slow path has to look again; see `slow::turn_quickly`.
    pub(crate) quick_turns: AtomicU16,
    /// Allocations until one is to be sampled, that one included; 0: none is.
    pub(crate) until_sample: AtomicU32,
    /// All allocations ever armed.
    pub(crate) armed: AtomicU64,
    /// Split: all room ever opened in free arrays. Stack: blocks ever supplied less those taken away.
    pub(crate) supplied: AtomicI64,
    /// The magazines behind the two bases (a stack has only the first), or null.
    pub(crate) alloc_magazine: AtomicPtr<Header>,
    /// See [`alloc_magazine`](Self::alloc_magazine).
    pub(crate) free_magazine: AtomicPtr<Header>,
}

/// What a reader sees of one slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct SlotCounts {
    pub(crate) allocations: u64,
    pub(crate) frees: u64,
    /// Blocks the thread caches.
    pub(crate) cached: u64,
}

/// How often a reader tries to see a slot between two slow paths.
const READ_ATTEMPTS: u32 = 8;

// Relaxed where nothing else is said: one writer, and readers are warned by the sequence number.
impl ColdSlot {
    /// Runs a change of the slot; readers that look meanwhile know that they did.
    pub(crate) fn change<R>(&self, change: impl FnOnce(&Self) -> R) -> R {
        let sequence = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(sequence.wrapping_add(1), Ordering::Relaxed);
        // Release fence: no change is seen without the odd number. Pairs with the Acquire fence in `read`.
        fence(Ordering::Release);
        let result = change(self);
        // Release: the changes are seen with the even number. Pairs with the Acquire in `read`.
        self.sequence.store(sequence.wrapping_add(2), Ordering::Release);
        result
    }

    pub(crate) fn is_being_changed(&self) -> bool {
        !self.sequence.load(Ordering::Relaxed).is_multiple_of(2)
    }

    /// Reads through `look`, as often as a change came in between, within bounds. The flag says whether none did.
    fn read<T>(&self, look: impl Fn() -> T) -> (T, bool) {
        let mut last = None;
        for _ in 0..READ_ATTEMPTS {
            // Acquire: see `change`.
            let before = self.sequence.load(Ordering::Acquire);
            let seen = look();
            // Acquire fence: see `change`.
            fence(Ordering::Acquire);
            if before % 2 == 0 && self.sequence.load(Ordering::Relaxed) == before {
                return (seen, true);
            }
            last = Some(seen);
            hint::spin_loop();
        }
        (last.unwrap_or_else(look), false)
    }

    /// Counts of a split slot. `false`: a slow path was at work, the counts may be off by what it moved.
    pub(crate) fn split_counts(&self, hot: &SplitSlot) -> (SlotCounts, bool) {
        self.read(|| {
            // Acquire: see `SplitSlot::pop`. Frees before allocations, so that none is seen without its allocation.
            let room = hot.free_room.load(Ordering::Acquire) as u64;
            let left = hot.alloc_left.load(Ordering::Acquire) as u64;
            let opened = self.supplied.load(Ordering::Relaxed) as u64;
            let present = u64::from(self.free_capacity.load(Ordering::Relaxed)).wrapping_sub(room);
            SlotCounts {
                allocations: self.armed.load(Ordering::Relaxed).wrapping_sub(left),
                frees: opened.wrapping_sub(room),
                cached: left.wrapping_add(u64::from(self.hidden.load(Ordering::Relaxed))).wrapping_add(present),
            }
        })
    }

    /// Counts of a stack slot, as [`split_counts`](Self::split_counts).
    pub(crate) fn stack_counts(&self, hot: &StackSlot) -> (SlotCounts, bool) {
        self.read(|| {
            // Acquire: see `SplitSlot::pop`.
            let state = hot.state.load(Ordering::Acquire);
            let allocations = self.armed.load(Ordering::Relaxed).wrapping_sub(state / ARMED_ONE);
            let supplied = self.supplied.load(Ordering::Relaxed) as u64;
            let cached = blocks_of(state);
            SlotCounts { allocations, frees: allocations.wrapping_add(cached).wrapping_sub(supplied), cached }
        })
    }

    /// The magazine behind the alloc array or the stack, whose right stays with the slot.
    pub(crate) fn take_alloc_magazine(&self) -> Option<Magazine> {
        Self::take_magazine(&self.alloc_magazine)
    }

    /// As [`take_alloc_magazine`](Self::take_alloc_magazine), for the free array.
    pub(crate) fn take_free_magazine(&self) -> Option<Magazine> {
        Self::take_magazine(&self.free_magazine)
    }

    fn take_magazine(place: &AtomicPtr<Header>) -> Option<Magazine> {
        // Load and store instead of a swap, which would be a locked instruction: one thread at a time has the slot.
        let raw = place.load(Ordering::Relaxed);
        place.store(core::ptr::null_mut(), Ordering::Relaxed);
        // SAFETY: the slot had the right, gave it up with a `set_…_magazine`, and the null stored above makes this the only
        // taking-back.
        unsafe { Magazine::from_raw(raw) }
    }

    pub(crate) fn set_alloc_magazine(&self, magazine: Option<Magazine>) {
        debug_assert!(self.alloc_magazine.load(Ordering::Relaxed).is_null());
        self.alloc_capacity.store(magazine.as_ref().map_or(0, Magazine::capacity) as u16, Ordering::Relaxed);
        self.alloc_magazine.store(magazine.map_or(core::ptr::null_mut(), Magazine::into_raw), Ordering::Relaxed);
    }

    pub(crate) fn set_free_magazine(&self, magazine: Option<Magazine>) {
        debug_assert!(self.free_magazine.load(Ordering::Relaxed).is_null());
        self.free_magazine.store(magazine.map_or(core::ptr::null_mut(), Magazine::into_raw), Ordering::Relaxed);
    }
}
