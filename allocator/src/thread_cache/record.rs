//! Floor 7. A thread's heap record: all its slots, its budget, its counts. Outlives the thread and is adopted by the next.
//!
//! The slots' hot halves come first: the fast path reaches them with one constant offset from the thread's only pointer, and a thread
//! without a record points at nothing but such a part, all zeros (see [`HotSlots`]).

use core::mem::ManuallyDrop;
use core::ptr::NonNull;

use crate::atomic::{AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use crate::chance;
use crate::config::{BUDGET_AT_BIRTH_BYTES, BUDGET_EARNED_PER_BYTES, BUDGET_MAX_BYTES, IDLE_TICKS, LEASE_BYTES, LEND_MIN_BYTES};
use crate::counters::{Counters, Tallied, Tally};
use crate::frames::StackBounds;
use crate::histogram::Histogram;
use crate::limit::Patience;
use crate::sampling::Who;
use crate::size_class::{SLOT_WORDS, Shape, SizeClass};
use crate::slot::{ColdSlot, SlotCounts, SplitSlot, StackSlot};
use crate::supply::Supply;

const WHOLE_COUNT: usize = SizeClass::COUNT - SizeClass::INLINE_COUNT;

/// The hot half of one class: split for the first classes, a stack for the others.
#[repr(C)]
union HotSlot {
    split: ManuallyDrop<SplitSlot>,
    stack: ManuallyDrop<StackSlot>,
}

const _: () = assert!(size_of::<SplitSlot>() == size_of::<StackSlot>());
const _: () = assert!(size_of::<HotSlot>() == SLOT_WORDS * size_of::<u64>());

/// What the fast path works on. All zeros: every array is dry and full, so every operation takes the slow path.
#[repr(C)]
pub(crate) struct HotSlots([HotSlot; SizeClass::INLINE_COUNT]);

impl core::fmt::Debug for HotSlots {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("HotSlots").finish_non_exhaustive()
    }
}

impl HotSlots {
    /// The slot of a class with split magazines.
    #[inline(always)]
    pub(crate) fn split(&self, class: SizeClass) -> &SplitSlot {
        debug_assert_eq!(class.shape(), Shape::Split);
        // SAFETY: both halves of the union are numbers and pointers of the same size, valid whatever their bits; this class uses this one
        // (I-class).
        unsafe { &self.slot(class).split }
    }

    /// The slot of a class with a stack.
    #[inline(always)]
    pub(crate) fn stack(&self, class: SizeClass) -> &StackSlot {
        debug_assert_eq!(class.shape(), Shape::Stack);
        // SAFETY: as in `split`.
        unsafe { &self.slot(class).stack }
    }

    #[inline(always)]
    fn slot(&self, class: SizeClass) -> &HotSlot {
        // SAFETY: the class is one of those that the inlined path serves, so it has a slot (I-class), `SLOT_WORDS` long like all before it.
        let slot = unsafe { self.0.as_ptr().cast::<u64>().add(class.slot_words()) };
        // SAFETY: as above.
        unsafe { &*slot.cast::<HotSlot>() }
    }
}

/// A heap without a record: as many zeros as [`HotSlots`] needs, and a name of its own, because its address is what tells why there is no
/// record. No interior mutability, so it lies in read-only memory and a stray write faults.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct EmptyHeap([u64; size_of::<HotSlots>() / 8]);

impl EmptyHeap {
    pub(crate) const NEW: Self = Self([0; size_of::<HotSlots>() / 8]);

    /// Is this address one of these?
    #[inline]
    pub(crate) fn any_is(heaps: &'static [Self], slots: *const HotSlots) -> bool {
        slots.addr().wrapping_sub(heaps.as_ptr().addr()) < size_of_val(heaps)
    }

    /// The address under which the fast path takes it for slots. Only loads reach it: nothing is stored before the branch (I-empty).
    pub(crate) const fn as_slots(&'static self) -> *const HotSlots {
        (&raw const *self).cast()
    }
}

/// Words of one bit per class.
const USED_WORDS: usize = SizeClass::COUNT.div_ceil(u64::BITS as usize);

/// Whole blocks that a thread keeps of a class.
const WHOLE_KEPT: usize = 4;

/// Bytes of whole blocks that a thread keeps of all classes together. Their pages could serve any class, so a few go a long way, and more only
/// make the page heap touch more.
const WHOLE_KEPT_BYTES: usize = 256 << 10;

/// A few blocks that are spans of their own.
#[derive(Debug)]
struct WholeSlot {
    /// The first of them, then nulls.
    blocks: [AtomicPtr<u8>; WHOLE_KEPT],
    allocations: AtomicU64,
    frees: AtomicU64,
}

impl WholeSlot {
    /// How many are kept.
    fn kept(&self) -> usize {
        // Relaxed: as everywhere in this file.
        self.blocks.iter().take_while(|block| !block.load(Ordering::Relaxed).is_null()).count()
    }
}

/// What a record is at the moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Life {
    /// A thread has it.
    Active = 0,
    /// Its thread has ended; the next one takes it.
    Pooled = 1,
    /// A fork left its thread behind. Never touched again; what it held is lost.
    Orphaned = 2,
}

/// A thread's heap record.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Record {
    hot: HotSlots,
    pub(crate) counters: Counters,
    /// How long refills took.
    pub(crate) refills: Histogram,
    pub(crate) older: AtomicPtr<Record>,
    pub(crate) pooled_before: AtomicPtr<Record>,
    /// The kernel's number of the owner; 0: it has ended.
    pub(crate) thread: AtomicU32,
    /// The kernel's number of the process that the owner was in when it got the record. Another one in a process that was made without our
    /// knowing (a bare `clone`), and after a birth in the child of a `vfork`: there `thread` says nothing.
    pub(crate) process: AtomicU32,
    /// When it was pooled.
    pub(crate) pooled_tick: AtomicU32,
    life: AtomicU8,
    /// How often the owner went through its destructors.
    pub(crate) exit_rounds: AtomicU8,
    /// The class that is asked next to give up what it does not use.
    hand: AtomicU8,
    /// Slow entries so far: every so many look at the clock.
    entries: AtomicU32,
    /// Not zero: somebody takes, or took, what is cached here, because the thread sleeps. See `recall`.
    pub(crate) recalled: AtomicU32,
    /// Not zero: the thread is changing a slot outside of its slow path.
    pub(crate) turning: AtomicU32,
    /// Bytes that may be cached by depth, or are.
    held: AtomicUsize,
    /// Bytes leased from the process beyond what every thread has.
    leased: AtomicUsize,
    /// Bytes allocated, as far as the budget cares.
    earned: AtomicU64,
    /// The last call to give up caches that was heard.
    pub(crate) sheds: AtomicU32,
    /// The number of slow entries when idle classes gave up their caches the last time, and the tick then.
    shed_entry: AtomicU32,
    /// See [`shed_entry`](Self::shed_entry).
    shed_tick: AtomicU32,
    /// The address of the owner's thread-local word; 0: nobody is to touch it; 1: nobody yet.
    pub(crate) word: AtomicUsize,
    /// The address of the owner's thread-local word, for readers to compare with: it lies where the C library has the thread's stack.
    pub(crate) tls: AtomicUsize,
    /// How the slots stood when somebody looked last whether the owner does anything.
    stamp: AtomicU64,
    /// How long the owner gave memory back beyond half of its time, and when that was reckoned; see [`Patience`].
    patience_level_ns: AtomicU64,
    /// See [`patience_level_ns`](Self::patience_level_ns).
    patience_last_ns: AtomicU64,
    /// What chance is made of; the owner's own sequence.
    chance: AtomicU64,
    /// Bytes between two samples with which what is armed was drawn; 0: nothing is.
    sample_interval: AtomicU32,
    /// What the thread's allocations are sampled under; see [`crate::profile::set_tag`].
    pub(crate) tag: AtomicU32,
    /// Not zero: nothing is to be sampled.
    pub(crate) muted: AtomicU32,
    /// Bytes of blocks beyond 32 KiB until one is a sample.
    until_large: AtomicU64,
    pub(crate) bounds: StackBounds,
    /// One bit for each class of which a block was ever allocated, or may have been: for who adds them up at every step.
    used: [AtomicU64; USED_WORDS],
    /// By class, and last: the end of a record is not touched by programs without large blocks.
    cold: [ColdSlot; SizeClass::INLINE_COUNT],
    /// Bytes of whole blocks that are kept.
    whole_held: AtomicUsize,
    whole: [WholeSlot; WHOLE_COUNT],
    /// Blocks beyond the classes.
    pub(crate) large: Tally,
    /// Sampled blocks, which [`Sampling`](crate::sampling::Sampling) counts as well.
    pub(crate) sampled: Tally,
}

// Relaxed in the whole file unless said otherwise: the owner is the only writer, or while it sleeps who takes what it cached (I-recall); what
// orders changes of owner is said at I-owner.
impl Record {
    pub(crate) fn hot(&self) -> &HotSlots {
        &self.hot
    }

    /// The cold half of a class's slot. The class has one: it is not a whole one.
    pub(crate) fn cold(&self, class: SizeClass) -> &ColdSlot {
        &self.cold[class.index()]
    }

    fn whole(&self, class: SizeClass) -> &WholeSlot {
        &self.whole[class.index() - SizeClass::INLINE_COUNT]
    }

    pub(crate) fn life(&self) -> Life {
        // Acquire: who sees a record pooled or orphaned sees all that its last owner did. Pairs with the Release in `set_life`.
        match self.life.load(Ordering::Acquire) {
            0 => Life::Active,
            1 => Life::Pooled,
            _ => Life::Orphaned,
        }
    }

    pub(crate) fn set_life(&self, life: Life) {
        // Release: see `life`.
        self.life.store(life as u8, Ordering::Release);
    }

    /// Counts of a class. `false`: its thread was at work on them, they may be off by what it moved.
    pub(crate) fn counts(&self, class: SizeClass) -> (SlotCounts, bool) {
        match class.shape() {
            Shape::Split => self.cold(class).split_counts(self.hot.split(class)),
            Shape::Stack => self.cold(class).stack_counts(self.hot.stack(class)),
            Shape::Whole => {
                let slot = self.whole(class);
                // Acquire: pairs with the Release in `count_whole_allocation` and `count_whole_free`. Frees first, see `slot`.
                let frees = slot.frees.load(Ordering::Acquire);
                let allocations = slot.allocations.load(Ordering::Acquire);
                let counts = SlotCounts { allocations, frees, cached: slot.kept() as u64 };
                (counts, true)
            }
        }
    }

    /// Blocks of a class are about to be armed, or allocated.
    fn uses(&self, class: SizeClass) {
        let (word, bit) = (class.index() / u64::BITS as usize, class.index() % u64::BITS as usize);
        let word = &self.used[word];
        word.store(word.load(Ordering::Relaxed) | 1 << bit, Ordering::Relaxed);
    }

    /// Blocks that its thread ever allocated, and their bytes: for that thread, outside of its slow paths.
    pub(crate) fn allocated(&self) -> Tallied {
        let mut sum = Tallied::default();
        for (number, word) in self.used.iter().enumerate() {
            let mut bits = word.load(Ordering::Relaxed);
            while bits != 0 {
                let class = SizeClass::from_index(number * u64::BITS as usize + bits.trailing_zeros() as usize);
                bits &= bits - 1;
                let blocks = match class.shape() {
                    Shape::Split => self.cold(class).split_allocations(self.hot.split(class)),
                    Shape::Stack => self.cold(class).stack_allocations(self.hot.stack(class)),
                    Shape::Whole => self.whole(class).allocations.load(Ordering::Relaxed),
                };
                sum.blocks += blocks;
                sum.bytes += blocks * class.bytes() as u64;
            }
        }
        for more in [&self.large, &self.sampled].map(Tally::allocations) {
            sum.blocks += more.blocks;
            sum.bytes += more.bytes;
        }
        sum
    }

    // ---- budget ----------------------------------------------------------------------------------------------------

    /// See [`slow::Household::holds`](crate::thread_cache::slow::Household::holds).
    pub(crate) fn hold(&self, bytes: usize) {
        self.held.store(self.held.load(Ordering::Relaxed) + bytes, Ordering::Relaxed);
    }

    /// The thread no longer holds these bytes.
    pub(crate) fn let_go(&self, bytes: usize) {
        self.held.store(self.held.load(Ordering::Relaxed) - bytes, Ordering::Relaxed);
    }

    /// Holds `bytes` more if the budget allows: what every thread has, plus what this one has earned and the process can lend.
    pub(crate) fn may_hold(&self, bytes: usize, supply: &Supply) -> bool {
        let wanted = self.held.load(Ordering::Relaxed) + bytes;
        let leased = self.leased.load(Ordering::Relaxed);
        let has = BUDGET_AT_BIRTH_BYTES + leased;
        if wanted > has {
            let earned = (self.earned.load(Ordering::Relaxed) / BUDGET_EARNED_PER_BYTES) as usize;
            if wanted > (BUDGET_AT_BIRTH_BYTES + earned).min(BUDGET_MAX_BYTES) {
                return false;
            }
            let lease = (wanted - has).next_multiple_of(LEASE_BYTES);
            if !supply.lend(lease, LEND_MIN_BYTES) {
                return false;
            }
            self.leased.store(leased + lease, Ordering::Relaxed);
        }
        self.held.store(wanted, Ordering::Relaxed);
        true
    }

    /// See [`slow::Household::earn`](crate::thread_cache::slow::Household::earn).
    pub(crate) fn earn(&self, bytes: usize) {
        self.earned.store(self.earned.load(Ordering::Relaxed).saturating_add(bytes as u64), Ordering::Relaxed);
    }

    /// See [`slow::Household::is_rich`](crate::thread_cache::slow::Household::is_rich).
    pub(crate) fn is_rich(&self) -> bool {
        self.earned.load(Ordering::Relaxed) / BUDGET_EARNED_PER_BYTES >= BUDGET_MAX_BYTES as u64
    }

    /// Does the owner cache a block at this address?
    #[cfg(freestone_c)]
    pub(crate) fn caches(&self, address: usize, class: SizeClass) -> bool {
        match class.shape() {
            Shape::Split => self.cold(class).split_has(self.hot.split(class), address),
            Shape::Stack => self.hot.stack(class).has(address),
            Shape::Whole => false,
        }
    }

    /// Is some slot in the middle of a change? In the child of a fork: was it, when its thread was left behind?
    pub(crate) fn is_being_changed(&self) -> bool {
        self.cold.iter().any(ColdSlot::is_being_changed)
    }

    /// Is nothing cached, nor allowed to be?
    pub(crate) fn is_empty(&self) -> bool {
        self.held.load(Ordering::Relaxed) == 0
    }

    /// Gives leases back that are not needed for what is held, and begins earning anew.
    pub(crate) fn end_leases(&self, supply: &Supply) {
        let needed = self.held.load(Ordering::Relaxed).saturating_sub(BUDGET_AT_BIRTH_BYTES).next_multiple_of(LEASE_BYTES);
        let leased = self.leased.load(Ordering::Relaxed);
        if leased > needed {
            // In this order: the child of a fork gives back what is booked here, and must not do it again.
            self.leased.store(needed, Ordering::Relaxed);
            supply.give_back(leased - needed);
        }
        self.earned.store(0, Ordering::Relaxed);
    }

    /// Gives all leases back: in the child of a fork, for a thread that is not there any more.
    pub(crate) fn end_loans(&self, supply: &Supply) {
        supply.give_back(self.leased.load(Ordering::Relaxed));
        self.leased.store(0, Ordering::Relaxed);
    }

    /// Does nothing change here? Compares with what was seen the last time; an empty record is not worth asking.
    pub(crate) fn is_idle(&self) -> bool {
        if self.is_empty() || self.recalled.load(Ordering::Relaxed) != 0 {
            return false;
        }
        let mut stamp = u64::from(self.entry());
        for class in SizeClass::all() {
            let seen = match class.shape() {
                Shape::Split => self.hot.split(class).stamp(),
                Shape::Stack => self.hot.stack(class).state.load(Ordering::Relaxed),
                Shape::Whole => self.whole(class).allocations.load(Ordering::Relaxed),
            };
            stamp = stamp.rotate_left(5) ^ seen;
        }
        self.stamp.swap(stamp, Ordering::Relaxed) == stamp
    }

    /// Is it time to look for classes that were not used? At the first slow entry of a while; says the number of the slow entry of the last
    /// time.
    pub(crate) fn shed_is_due(&self, tick: u32) -> Option<u32> {
        if tick.wrapping_sub(self.shed_tick.load(Ordering::Relaxed)) < IDLE_TICKS {
            return None;
        }
        self.shed_tick.store(tick, Ordering::Relaxed);
        let before = self.shed_entry.load(Ordering::Relaxed);
        self.shed_entry.store(self.entry(), Ordering::Relaxed);
        Some(before)
    }

    /// How much patience its owner has left.
    pub(crate) fn patience(&self) -> Patience {
        Patience {
            level_ns: self.patience_level_ns.load(Ordering::Relaxed),
            last_ns: self.patience_last_ns.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn set_patience(&self, patience: Patience) {
        self.patience_level_ns.store(patience.level_ns, Ordering::Relaxed);
        self.patience_last_ns.store(patience.last_ns, Ordering::Relaxed);
    }

    /// Nothing is held any more, whatever the slots say: what they cached was taken.
    pub(crate) fn let_all_go(&self, supply: &Supply) {
        self.held.store(0, Ordering::Relaxed);
        self.end_leases(supply);
    }

    /// Counts a slow entry; says its number.
    pub(crate) fn next_entry(&self) -> u32 {
        let number = self.entries.load(Ordering::Relaxed).wrapping_add(1);
        self.entries.store(number, Ordering::Relaxed);
        number
    }

    /// The number of the present slow entry.
    pub(crate) fn entry(&self) -> u32 {
        self.entries.load(Ordering::Relaxed)
    }

    /// The next class whose turn it is to give up what it does not use.
    pub(crate) fn next_hand(&self) -> SizeClass {
        let hand = usize::from(self.hand.load(Ordering::Relaxed));
        self.hand.store(((hand + 1) % SizeClass::INLINE_COUNT) as u8, Ordering::Relaxed);
        SizeClass::from_index(hand)
    }

    // ---- samples ---------------------------------------------------------------------------------------------------

    /// Begins another sequence of chance.
    pub(crate) fn set_seed(&self, seed: u64) {
        self.chance.store(seed, Ordering::Relaxed);
    }

    fn random(&self) -> u64 {
        let (state, random) = chance::next(self.chance.load(Ordering::Relaxed));
        self.chance.store(state, Ordering::Relaxed);
        random
    }

    /// Bytes between two samples with which what is armed was drawn.
    pub(crate) fn sample_interval(&self) -> u32 {
        self.sample_interval.load(Ordering::Relaxed)
    }

    /// What is drawn from now on is drawn with this interval; draws for large blocks.
    pub(crate) fn set_sample_interval(&self, interval: u32) {
        self.sample_interval.store(interval, Ordering::Relaxed);
        self.until_large.store(chance::bytes_until(interval as usize, self.random()), Ordering::Relaxed);
    }

    /// How many blocks of a class go by until one is a sample, that one included; 0: none is.
    pub(crate) fn draw(&self, class: SizeClass) -> u32 {
        // Whatever is armed was drawn for first.
        self.uses(class);
        match self.sample_interval() {
            0 => 0,
            interval => chance::blocks_until(class.bytes(), interval as usize, self.random()),
        }
    }

    /// Is a block beyond 32 KiB a sample, going by so many bytes?
    #[inline]
    pub(crate) fn draw_large(&self, odds_bytes: usize) -> bool {
        let (interval, left) = (self.sample_interval(), self.until_large.load(Ordering::Relaxed));
        if interval == 0 {
            return false;
        }
        let drawn = odds_bytes as u64 > left;
        let left = if drawn { chance::bytes_until(interval as usize, self.random()) } else { left - odds_bytes as u64 };
        self.until_large.store(left, Ordering::Relaxed);
        drawn
    }

    /// The owner, for who records a sample.
    pub(crate) fn who(&self) -> Who<'_> {
        Who {
            thread: self.thread.load(Ordering::Relaxed),
            tag: self.tag.load(Ordering::Relaxed),
            interval: self.sample_interval(),
            bounds: &self.bounds,
        }
    }

    /// Says under which tag samples count from now on, and which it was.
    pub(crate) fn set_tag(&self, tag: u32) -> u32 {
        let before = self.tag.load(Ordering::Relaxed);
        self.tag.store(tag, Ordering::Relaxed);
        before
    }

    /// No samples, until [`unmute`](Self::unmute) was called as often.
    pub(crate) fn mute(&self) {
        self.muted.store(self.muted.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    pub(crate) fn unmute(&self) {
        self.muted.store(self.muted.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
    }

    pub(crate) fn is_muted(&self) -> bool {
        self.muted.load(Ordering::Relaxed) != 0
    }

    // ---- whole blocks ----------------------------------------------------------------------------------------------

    /// Takes a kept block. The address may carry the mark [`ZEROED`](crate::magazine::ZEROED).
    pub(crate) fn take_whole(&self, class: SizeClass) -> Option<NonNull<u8>> {
        let slot = self.whole(class);
        let last = &slot.blocks[slot.kept().checked_sub(1)?];
        let block = last.load(Ordering::Relaxed);
        last.store(core::ptr::null_mut(), Ordering::Relaxed);
        self.let_go(class.bytes());
        self.whole_held.store(self.whole_held.load(Ordering::Relaxed) - class.bytes(), Ordering::Relaxed);
        NonNull::new(block)
    }

    /// Keeps a block if there is room and budget.
    pub(crate) fn keep_whole(&self, class: SizeClass, block: NonNull<u8>, supply: &Supply) -> bool {
        let slot = self.whole(class);
        let kept = slot.kept();
        let held = self.whole_held.load(Ordering::Relaxed) + class.bytes();
        if kept == WHOLE_KEPT || held > WHOLE_KEPT_BYTES || !self.may_hold(class.bytes(), supply) {
            return false;
        }
        self.whole_held.store(held, Ordering::Relaxed);
        slot.blocks[kept].store(block.as_ptr(), Ordering::Relaxed);
        true
    }

    pub(crate) fn count_whole_allocation(&self, class: SizeClass) {
        self.earn(class.bytes());
        self.uses(class);
        let count = &self.whole(class).allocations;
        // Release: see `counts`.
        count.store(count.load(Ordering::Relaxed) + 1, Ordering::Release);
    }

    pub(crate) fn count_whole_free(&self, class: SizeClass) {
        let count = &self.whole(class).frees;
        // Release: see `counts`.
        count.store(count.load(Ordering::Relaxed) + 1, Ordering::Release);
    }
}
