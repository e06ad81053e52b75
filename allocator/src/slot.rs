//! Floor 5. What a thread has of one class: a hot half that the fast path works on, and a cold half for the slow path and for readers.
//!
//! ```text
//!   split (≤ 1 KiB)                                       stack (1–32 KiB)
//!
//!   alloc array │block block block│ ·  ·  · │             base ▶ │block block block│ ·  ·  · │
//!     alloc_end ▲        alloc_top ▲◀ pops                       └──── count ─────┘◀▶ pops and pushes
//!   free array  │ ·  ·  · │block block block│             armed: allocations until the slow path looks in
//!      free_end ▲ free_top ▲◀ pushes
//! ```
//!
//! Split: allocation pops one array, freeing pushes onto the other, both downwards to their ends; the two change places when the alloc
//! array runs dry. What was freed first is allocated first, so an address direction is kept. A stack would return the hottest block
//! first, which pays once blocks are large, so above 1 KiB there is one.
//!
//! *Counts come for free.* Every allocation lowers a pointer that only the slow path raises, so allocations = all that was ever armed − what
//! is left, exactly and at any moment; the same on the other side. Readers in other threads look at both halves: the pointers are stored
//! with Release, and the cold half has a sequence number that is odd while the slow path changes both. For that time it also has the
//! counts as they were before, and they are exact then, because a thread in its slow path neither allocates nor frees.
//!
//! Only the thread that owns the record writes, or while it sleeps whoever takes what it cached (I-recall); records change hands in an
//! orderly way (I-owner).

use core::cell::Cell;
use core::hint;
use core::ptr::NonNull;

use crate::atomic::{AtomicI64, AtomicPtr, AtomicU16, AtomicU32, AtomicU64, Ordering, fence};
use crate::magazine::{Header, Magazine, ZEROED};

/// The hot half of a class with split magazines. All zeros: both arrays are at their ends.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct SplitSlot {
    alloc_top: AtomicPtr<*mut u8>,
    alloc_end: Owned<*mut *mut u8>,
    free_top: AtomicPtr<*mut u8>,
    free_end: Owned<*mut *mut u8>,
}

/// A field that only the owner of the record touches. Not an atomic, because the compiler compares a plain field with a register in one
/// instruction, and an atomic one in two.
#[derive(Debug)]
#[repr(transparent)]
struct Owned<T: Copy>(Cell<T>);

// SAFETY: every access is by the thread that owns the record (the `unsafe` functions below say so), or by whoever takes what it cached while
// it sleeps (I-recall), and owners follow each other in an orderly way (I-owner).
unsafe impl<T: Copy> Sync for Owned<T> {}

/// Entries between an array's end and its top.
#[inline]
fn entries_between(end: *mut *mut u8, top: *mut *mut u8) -> usize {
    (top.addr() - end.addr()) / size_of::<*mut u8>()
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
        let top = self.alloc_top.load(Ordering::Relaxed);
        if top == self.alloc_end.0.get() {
            return None;
        }
        // SAFETY: above the end there are entries (I-array).
        let top = unsafe { top.sub(1) };
        // SAFETY: the slow path wrote them.
        let block = unsafe { top.read() };
        // Release: a reader that counts this allocation's later free, wherever it happens, also counts this. Pairs with the Acquire
        // in the counts below.
        self.alloc_top.store(top, Ordering::Release);
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
        let top = self.free_top.load(Ordering::Relaxed);
        if top == self.free_end.0.get() {
            return false;
        }
        // SAFETY: above the end there is room (I-array).
        let top = unsafe { top.sub(1) };
        // SAFETY: and it is this thread's to write.
        unsafe { top.write(block.as_ptr()) };
        // Release: as in `pop`.
        self.free_top.store(top, Ordering::Release);
        true
    }

    /// A number that changes when the fast path does anything.
    pub(crate) fn stamp(&self) -> u64 {
        let (alloc_top, free_top) = (self.alloc_top.load(Ordering::Relaxed), self.free_top.load(Ordering::Relaxed));
        alloc_top.addr() as u64 ^ (free_top.addr() as u64).rotate_left(17)
    }

    /// Blocks that the fast path can still take, and where the lowest of them stands.
    #[inline]
    pub(crate) fn alloc_side(&self) -> (*mut *mut u8, usize) {
        let end = self.alloc_end.0.get();
        (end, entries_between(end, self.alloc_top.load(Ordering::Relaxed)))
    }

    /// Room that the fast path can still fill, and where it begins.
    #[inline]
    pub(crate) fn free_side(&self) -> (*mut *mut u8, usize) {
        let end = self.free_end.0.get();
        (end, entries_between(end, self.free_top.load(Ordering::Relaxed)))
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

/// Why a stack has no block to give.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Dry {
    /// There is none.
    Empty,
    /// The slow path is to look in before the next one.
    Unarmed,
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
        // SAFETY: handed on to the caller.
        unsafe { self.pop_entry() }.ok().map(StackBlock::from_entry)
    }

    /// Takes the entry that was put there last, or says why there is none. Whoever does different things for the one reason and the other gets
    /// two branches that are never taken; for one and the same the compiler makes one branch, of six instructions.
    ///
    /// # Safety
    ///
    /// - As for [`SplitSlot::pop`].
    #[inline(always)]
    pub(crate) unsafe fn pop_entry(&self) -> Result<*mut u8, Dry> {
        // Relaxed, here and below: as in `SplitSlot`.
        let state = self.state.load(Ordering::Relaxed);
        let count = blocks_of(state);
        if count == 0 {
            return Err(Dry::Empty);
        }
        // One block and one armed allocation less; if nothing is armed, that goes below zero.
        let Some(state) = state.checked_sub(ARMED_ONE + 1) else { return Err(Dry::Unarmed) };
        let base = self.base.load(Ordering::Relaxed);
        // SAFETY: entries below the count exist (I-array).
        let entry = unsafe { base.add(count as usize - 1) };
        // SAFETY: and were written by the slow path or by `push`.
        let block = unsafe { entry.read() };
        // Release: as in `SplitSlot::pop`.
        self.state.store(state, Ordering::Release);
        Ok(block)
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
        // SAFETY: entries below the capacity exist (I-array).
        let entry = unsafe { base.add(count as usize) };
        // SAFETY: and they are this thread's to write.
        unsafe { entry.write(block.as_ptr()) };
        // Release: as in `SplitSlot::pop`.
        self.state.store(state + 1, Ordering::Release);
        true
    }
}

/// Is a block at this address among these?
#[cfg(freestone_c)]
fn any_at(blocks: &[*mut u8], address: usize) -> bool {
    blocks.iter().any(|entry| entry.addr() & !ZEROED == address)
}

#[cfg(freestone_c)]
impl StackSlot {
    /// Is a block at this address in the stack? For its thread.
    pub(crate) fn has(&self, address: usize) -> bool {
        let count = blocks_of(self.state.load(Ordering::Relaxed)) as usize;
        // SAFETY: entries below the count exist (I-array); with none there may be no array.
        count > 0 && any_at(unsafe { core::slice::from_raw_parts(self.base.load(Ordering::Relaxed), count) }, address)
    }
}

/// The cold half: what the slow path knows, and what turns the hot half into counts.
#[derive(Debug)]
pub(crate) struct ColdSlot {
    /// Odd while the slow path changes the slot; 0 before it ever did.
    sequence: AtomicU32,
    /// Which slow entry of the thread was the last one of this class.
    pub(crate) touched: AtomicU32,
    /// Blocks the thread means to have of this class, a power of two; 0 before the first.
    pub(crate) depth: AtomicU16,
    /// Split: entries of the two arrays' magazines. Stack: written, not used.
    pub(crate) alloc_capacity: AtomicU16,
    /// See [`alloc_capacity`](Self::alloc_capacity).
    pub(crate) free_capacity: AtomicU16,
    /// Split: blocks at the bottom of the alloc array that are kept from the fast path, because the allocation before them is to be
    /// sampled.
    pub(crate) hidden: AtomicU16,
    /// Split: quick turns until the whole slow path has to look again; see `slow::turn_quickly`. Stack: turns so far.
    pub(crate) quick_turns: AtomicU16,
    /// Allocations until one is to be sampled, that one included, less those that are armed already; 0: nothing was drawn yet, or sampling is off.
    pub(crate) until_sample: AtomicU32,
    /// Split: where `alloc_top` would be if nothing had ever been allocated, in bytes. Stack: all allocations ever armed.
    allocated_from: AtomicU64,
    /// Split: where `free_top` would be if nothing had ever been freed, in bytes. Stack: unused.
    freed_from: AtomicU64,
    /// Allocations and frees as they were when the present change began.
    allocations_before: AtomicU64,
    /// See [`allocations_before`](Self::allocations_before).
    frees_before: AtomicU64,
    /// Blocks ever brought here from the shared rooms, less those taken back there.
    net: AtomicI64,
    /// The magazines behind the arrays (a stack has only the first), or null.
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

impl SlotCounts {
    /// What came in and was neither allocated nor, having been allocated, is still out, is cached.
    fn new((allocations, frees): (u64, u64), net: i64) -> Self {
        let cached = (net as u64).wrapping_add(frees).wrapping_sub(allocations) as i64;
        // Only where the slot changed at every attempt can the three be of different moments.
        Self { allocations, frees, cached: cached.max(0) as u64 }
    }
}

/// How often a reader tries to see a slot between two slow paths.
const READ_ATTEMPTS: u32 = 8;

/// Bytes of an entry.
const ENTRY_BYTES: u64 = size_of::<*mut u8>() as u64;

// Relaxed where nothing else is said: one writer at a time, and readers are warned by the sequence number.
impl ColdSlot {
    /// Runs a change of a split slot; readers that look meanwhile take the counts from before.
    #[inline]
    pub(crate) fn change_split<R>(&self, hot: &SplitSlot, change: impl FnOnce(&Self) -> R) -> R {
        self.change(self.split_totals(hot), change)
    }

    /// As [`change_split`](Self::change_split).
    #[inline]
    pub(crate) fn change_stack<R>(&self, hot: &StackSlot, change: impl FnOnce(&Self) -> R) -> R {
        self.change(self.stack_totals(hot), change)
    }

    #[inline]
    fn change<R>(&self, totals: (u64, u64), change: impl FnOnce(&Self) -> R) -> R {
        self.begin_change(totals);
        let result = change(self);
        self.end_change();
        result
    }

    #[inline]
    fn begin_change(&self, (allocations, frees): (u64, u64)) {
        self.allocations_before.store(allocations, Ordering::Relaxed);
        self.frees_before.store(frees, Ordering::Relaxed);
        let sequence = self.sequence.load(Ordering::Relaxed);
        // Release: the counts from before are seen with the odd number. Pairs with the first Acquire in `read`.
        self.sequence.store(sequence.wrapping_add(1), Ordering::Release);
        // Release fence: no change is seen without the odd number. Pairs with the Acquire fence in `read`.
        fence(Ordering::Release);
    }

    #[inline]
    fn end_change(&self) {
        let even = self.sequence.load(Ordering::Relaxed).wrapping_add(1);
        // Release: the changes are seen with the even number. Pairs with the first Acquire in `read`. Zero is for slots that were never changed.
        self.sequence.store(if even == 0 { 2 } else { even }, Ordering::Release);
    }

    /// As if it had been changed so often that the number is about to begin anew.
    #[cfg(test)]
    pub(crate) fn wind_up(&self) {
        self.sequence.store(u32::MAX - 1, Ordering::Relaxed);
    }

    /// Did anything ever happen here?
    pub(crate) fn was_changed(&self) -> bool {
        self.sequence.load(Ordering::Relaxed) != 0
    }

    pub(crate) fn is_being_changed(&self) -> bool {
        !self.sequence.load(Ordering::Relaxed).is_multiple_of(2)
    }

    /// The totals as `look` sees them in the hot half, or while that is being changed as they were before. The flag says whether that is
    /// certain; if the slot changed at every attempt, they are those before some change.
    fn read(&self, look: impl Fn() -> (u64, u64)) -> (SlotCounts, bool) {
        let before = || (self.allocations_before.load(Ordering::Relaxed), self.frees_before.load(Ordering::Relaxed));
        for _ in 0..READ_ATTEMPTS {
            // Acquire: see `begin_change` and `end_change`.
            let sequence = self.sequence.load(Ordering::Acquire);
            if sequence == 0 {
                // Never changed, so nothing was ever armed here: most classes of most threads.
                return (SlotCounts::default(), true);
            }
            let totals = if sequence.is_multiple_of(2) { look() } else { before() };
            let net = self.net.load(Ordering::Relaxed);
            // Acquire fence: see `begin_change`.
            fence(Ordering::Acquire);
            if self.sequence.load(Ordering::Relaxed) == sequence {
                return (SlotCounts::new(totals, net), true);
            }
            hint::spin_loop();
        }
        (SlotCounts::new(before(), self.net.load(Ordering::Relaxed)), false)
    }

    /// Is a block at this address in one of the arrays? For their thread.
    #[cfg(freestone_c)]
    pub(crate) fn split_has(&self, hot: &SplitSlot, address: usize) -> bool {
        let (alloc_end, open) = hot.alloc_side();
        let hidden = usize::from(self.hidden.load(Ordering::Relaxed));
        let (_, room) = hot.free_side();
        let freed = usize::from(self.free_capacity.load(Ordering::Relaxed)).saturating_sub(room);
        // SAFETY: hidden entries lie below the end, open ones above (I-array).
        let first = unsafe { alloc_end.sub(hidden) };
        // SAFETY: as above; without any there may be no array.
        let in_alloc = open + hidden > 0 && any_at(unsafe { core::slice::from_raw_parts(first, hidden + open) }, address);
        let free_top = hot.free_top.load(Ordering::Relaxed);
        // SAFETY: above the top come the entries that were freed.
        in_alloc || (freed > 0 && any_at(unsafe { core::slice::from_raw_parts(free_top, freed) }, address))
    }

    /// Counts of a split slot. `false`: they may be those of a moment ago.
    pub(crate) fn split_counts(&self, hot: &SplitSlot) -> (SlotCounts, bool) {
        self.read(|| self.split_totals(hot))
    }

    /// Counts of a stack slot, as [`split_counts`](Self::split_counts).
    pub(crate) fn stack_counts(&self, hot: &StackSlot) -> (SlotCounts, bool) {
        self.read(|| self.stack_totals(hot))
    }

    /// Allocations of a split slot: for the thread that has the record, outside of its slow paths, so nothing changes meanwhile.
    #[inline]
    pub(crate) fn split_allocations(&self, hot: &SplitSlot) -> u64 {
        // Relaxed, both: written by this thread.
        let top = hot.alloc_top.load(Ordering::Relaxed).addr() as u64;
        self.allocated_from.load(Ordering::Relaxed).wrapping_sub(top) / ENTRY_BYTES
    }

    /// As [`split_allocations`](Self::split_allocations), of a stack slot.
    #[inline]
    pub(crate) fn stack_allocations(&self, hot: &StackSlot) -> u64 {
        // Relaxed: as above.
        self.allocated_from.load(Ordering::Relaxed).wrapping_sub(hot.state.load(Ordering::Relaxed) / ARMED_ONE)
    }

    /// Allocations and frees.
    #[inline]
    fn split_totals(&self, hot: &SplitSlot) -> (u64, u64) {
        // Acquire: see `SplitSlot::pop`. Frees before allocations, so that none is seen without its allocation.
        let free_top = hot.free_top.load(Ordering::Acquire);
        let alloc_top = hot.alloc_top.load(Ordering::Acquire);
        self.split_totals_at(alloc_top, free_top)
    }

    #[inline]
    fn split_totals_at(&self, alloc_top: *mut *mut u8, free_top: *mut *mut u8) -> (u64, u64) {
        let frees = self.freed_from.load(Ordering::Relaxed).wrapping_sub(free_top.addr() as u64) / ENTRY_BYTES;
        let allocations = self.allocated_from.load(Ordering::Relaxed).wrapping_sub(alloc_top.addr() as u64) / ENTRY_BYTES;
        (allocations, frees)
    }

    /// Allocations and frees.
    #[inline]
    fn stack_totals(&self, hot: &StackSlot) -> (u64, u64) {
        // Acquire: see `SplitSlot::pop`.
        self.stack_totals_at(hot.state.load(Ordering::Acquire))
    }

    #[inline]
    fn stack_totals_at(&self, state: u64) -> (u64, u64) {
        let allocations = self.allocated_from.load(Ordering::Relaxed).wrapping_sub(state / ARMED_ONE);
        let net = self.net.load(Ordering::Relaxed) as u64;
        (allocations, allocations.wrapping_add(blocks_of(state)).wrapping_sub(net))
    }

    /// Makes the `left` entries from `end` on what the fast path takes. The count of allocations stays what it is.
    #[inline]
    pub(crate) fn set_alloc_side(&self, hot: &SplitSlot, end: *mut *mut u8, left: usize) {
        let old = hot.alloc_top.load(Ordering::Relaxed).addr() as u64;
        let new = end.wrapping_add(left);
        let allocated_from = self.allocated_from.load(Ordering::Relaxed);
        self.allocated_from.store(allocated_from.wrapping_sub(old).wrapping_add(new.addr() as u64), Ordering::Relaxed);
        hot.alloc_end.0.set(end);
        // Release: as in `SplitSlot::pop`.
        hot.alloc_top.store(new, Ordering::Release);
    }

    /// So many more entries of the alloc array were allocated, not by the fast path.
    pub(crate) fn allocated_split(&self, entries: usize) {
        let allocated_from = self.allocated_from.load(Ordering::Relaxed);
        self.allocated_from.store(allocated_from.wrapping_add(entries as u64 * ENTRY_BYTES), Ordering::Relaxed);
    }

    /// The newest block of a stack was allocated, not by the fast path.
    pub(crate) fn allocated_stack(&self, hot: &StackSlot) {
        self.allocated_from.store(self.allocated_from.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        // Release: as in `SplitSlot::pop`.
        hot.state.store(hot.state.load(Ordering::Relaxed) - 1, Ordering::Release);
    }

    /// Makes the `room` entries from `end` on what the fast path fills. The count of frees stays what it is.
    #[inline]
    pub(crate) fn set_free_side(&self, hot: &SplitSlot, end: *mut *mut u8, room: usize) {
        let old = hot.free_top.load(Ordering::Relaxed).addr() as u64;
        let new = end.wrapping_add(room);
        let freed_from = self.freed_from.load(Ordering::Relaxed);
        self.freed_from.store(freed_from.wrapping_sub(old).wrapping_add(new.addr() as u64), Ordering::Relaxed);
        hot.free_end.0.set(end);
        // Release: as in `SplitSlot::pop`.
        hot.free_top.store(new, Ordering::Release);
    }

    /// Makes `armed` allocations what the fast path may make of a stack of `blocks`. The count of allocations stays what it is.
    pub(crate) fn set_stack(&self, hot: &StackSlot, armed: u64, blocks: u64) {
        let old = hot.state.load(Ordering::Relaxed) / ARMED_ONE;
        let allocated_from = self.allocated_from.load(Ordering::Relaxed);
        self.allocated_from.store(allocated_from.wrapping_sub(old).wrapping_add(armed), Ordering::Relaxed);
        // Release: as in `SplitSlot::pop`.
        hot.state.store(armed * ARMED_ONE + blocks, Ordering::Release);
    }

    // ---- recalled ----------------------------------------------------------------------------------------------------
    //
    // Somebody else empties the slot while its thread sleeps. That thread may have been stopped in the middle of one operation of the fast
    // path, of this or another class, and end it whenever it likes: it then takes the top block of the alloc array or of the stack, or leaves
    // one below the top of the free array. So the hot half stays as it is, the block that could be taken stays where it is, and the slot counts
    // as being changed until its thread is back and tidies up. Readers do not see that one operation before.

    /// Begins the change that lasts until [`settle_split`](Self::settle_split); hands out the blocks that go, array by array.
    pub(crate) fn recall_split(&self, hot: &SplitSlot, mut each: impl FnMut(&[*mut u8])) {
        // Acquire: the entries, and what was written to the blocks. Pairs with the Release in `pop` and `push`. Each top is read once: it may
        // move while we look.
        let free_top = hot.free_top.load(Ordering::Acquire);
        let alloc_top = hot.alloc_top.load(Ordering::Acquire);
        self.begin_change(self.split_totals_at(alloc_top, free_top));
        let (alloc_end, free_end) = (hot.alloc_end.0.get(), hot.free_end.0.get());
        let hidden = usize::from(self.hidden.load(Ordering::Relaxed));
        let open = entries_between(alloc_end, alloc_top);
        let going = hidden + open.saturating_sub(1);
        if going > 0 {
            // SAFETY: hidden entries lie below the end, open ones above; the top one is left alone.
            let first = unsafe { alloc_end.sub(hidden) };
            // SAFETY: as above.
            each(unsafe { core::slice::from_raw_parts(first, going) });
        }
        let room = entries_between(free_end, free_top);
        let freed = usize::from(self.free_capacity.load(Ordering::Relaxed)).saturating_sub(room);
        if freed > 0 {
            // SAFETY: above the top come the entries that were freed.
            each(unsafe { core::slice::from_raw_parts(free_top, freed) });
        }
        self.lost(going + freed);
    }

    /// Ends what [`recall_split`](Self::recall_split) began: says which blocks are left. The slot's thread does this, or who found that it has
    /// ended; `change` sets both sides anew.
    pub(crate) fn settle_split(&self, hot: &SplitSlot, change: impl FnOnce(&Self)) -> [Option<NonNull<u8>>; 2] {
        let (allocations, frees) = self.split_totals(hot);
        let popped = allocations != self.allocations_before.load(Ordering::Relaxed);
        let pushed = frees != self.frees_before.load(Ordering::Relaxed);
        let top = hot.alloc_top.load(Ordering::Relaxed);
        let has_kept = !popped && top != hot.alloc_end.0.get();
        // SAFETY: above the end there are entries, and the top one was not handed out.
        let kept = if has_kept { unsafe { top.sub(1) } } else { core::ptr::null_mut() };
        // SAFETY: null or such an entry.
        let kept = unsafe { kept.as_ref() }.and_then(|&block| NonNull::new(block));
        // SAFETY: what was freed last lies at the top.
        let freed = if pushed { NonNull::new(unsafe { hot.free_top.load(Ordering::Relaxed).read() }) } else { None };
        change(self);
        self.lost(usize::from(kept.is_some()) + usize::from(freed.is_some()));
        self.end_change();
        [kept, freed]
    }

    /// As [`recall_split`](Self::recall_split). How many blocks there were is remembered in `hidden`, which a stack does not use.
    pub(crate) fn recall_stack(&self, hot: &StackSlot, mut each: impl FnMut(&[*mut u8])) {
        // Acquire: as there.
        let state = hot.state.load(Ordering::Acquire);
        self.begin_change(self.stack_totals_at(state));
        let count = blocks_of(state) as usize;
        self.hidden.store(count as u16, Ordering::Relaxed);
        if count > 1 {
            // SAFETY: entries below the count exist; the top one is left alone.
            each(unsafe { core::slice::from_raw_parts(hot.base.load(Ordering::Relaxed), count - 1) });
            self.lost(count - 1);
        }
    }

    /// As [`settle_split`](Self::settle_split).
    pub(crate) fn settle_stack(&self, hot: &StackSlot, change: impl FnOnce(&Self)) -> [Option<NonNull<u8>>; 2] {
        let state = hot.state.load(Ordering::Relaxed);
        let allocations = self.stack_totals_at(state).0;
        let popped = allocations != self.allocations_before.load(Ordering::Relaxed);
        let before = usize::from(self.hidden.load(Ordering::Relaxed));
        let now = blocks_of(state) as usize;
        let pushed = now + usize::from(popped) > before;
        let base = hot.base.load(Ordering::Relaxed);
        // SAFETY: entries below the count exist.
        let place = |index: usize| unsafe { base.add(index) };
        // SAFETY: as above.
        let entry = |index: usize| StackBlock::from_entry(unsafe { place(index).read() }).block;
        let kept = (!popped && before > 0).then(|| entry(before - 1));
        let freed = pushed.then(|| entry(now - 1));
        self.hidden.store(0, Ordering::Relaxed);
        change(self);
        self.lost(usize::from(kept.is_some()) + usize::from(freed.is_some()));
        self.end_change();
        [kept, freed]
    }

    /// Blocks came from the shared rooms.
    #[inline]
    pub(crate) fn gained(&self, blocks: usize) {
        self.net.store(self.net.load(Ordering::Relaxed) + blocks as i64, Ordering::Relaxed);
    }

    /// Blocks went back there.
    #[inline]
    pub(crate) fn lost(&self, blocks: usize) {
        self.net.store(self.net.load(Ordering::Relaxed) - blocks as i64, Ordering::Relaxed);
    }

    /// The magazine behind the alloc array or the stack, whose right stays with the slot.
    pub(crate) fn take_alloc_magazine(&self) -> Option<Magazine> {
        self.alloc_capacity.store(0, Ordering::Relaxed);
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
