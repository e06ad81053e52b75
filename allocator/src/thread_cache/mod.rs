//! Floor 7. The thread cache: one thread's magazines of every class, and what it does when they are dry or full.
//!
//! The fast path is [`SplitSlot::pop`](crate::slot::SplitSlot::pop) and `push`; this room is what stands behind it. A record belongs to one
//! thread at a time, which alone calls what is here, but for [`Record::recall`]; nothing in it is locked.

pub(crate) mod record;
pub(crate) mod registry;
pub(crate) mod slow;

use core::ptr::NonNull;

use crate::atomic::{AtomicPtr, Ordering, compiler_fence};
use crate::config::IDLE_ENTRIES;
use crate::counters::{Counters, Event};
use crate::fatal::misuse;
use crate::frames::{Caller, StackBounds};
use crate::histogram::Histogram;
use crate::os;
use crate::probes;
use crate::sampling::{Request, Who, odds_bytes};
use crate::size_class::{Shape, SizeClass};
use crate::slot::StackBlock;
use crate::span::record::Holder;
use crate::supply::Supply;
use crate::units::in_sampled_zone;

use record::{Life, Record};
use registry::{Enlisted, Registry};
use slow::{Household, Refilled};

impl Enlisted for Record {
    fn older(&self) -> &AtomicPtr<Self> {
        &self.older
    }

    fn pooled_before(&self) -> &AtomicPtr<Self> {
        &self.pooled_before
    }
}

impl Household for Record {
    fn may_hold(&self, class: SizeClass, bytes: usize, supply: &Supply) -> bool {
        if Self::may_hold(self, bytes, supply) {
            return true;
        }
        // Another class may have what it no longer needs.
        self.shed_one(class, supply);
        Self::may_hold(self, bytes, supply)
    }

    fn holds(&self, bytes: usize) {
        self.hold(bytes);
    }

    fn is_rich(&self) -> bool {
        Self::is_rich(self)
    }

    #[inline]
    fn earn(&self, bytes: usize) {
        Self::earn(self, bytes);
    }

    #[inline]
    fn counters(&self) -> &Counters {
        &self.counters
    }

    fn refills(&self) -> &Histogram {
        &self.refills
    }

    fn entry(&self) -> u32 {
        Self::entry(self)
    }

    fn draw(&self, class: SizeClass) -> u32 {
        Self::draw(self, class)
    }
}

/// A record for a newborn thread: one whose thread has ended, or a new one. `None`: no memory.
pub(crate) fn birth(registry: &Registry<Record>, supply: &Supply) -> Option<&'static Record> {
    let record = match registry.adopt() {
        Some(record) => {
            supply.counters().count(Event::RecordAdoption);
            record
        }
        None => {
            let memory = supply.meta.take(size_of::<Record>(), align_of::<Record>())?;
            // SAFETY: so many zeros, aligned, ours for good (I-forever); all zeros is a valid record: every field is a number or a pointer.
            let record: &'static Record = unsafe { memory.cast().as_ref() };
            record.set_seed(supply.choices.seed());
            record.set_sample_interval(supply.choices.interval());
            registry.enlist(record);
            supply.counters().count(Event::RecordBirth);
            record
        }
    };
    // Relaxed: the owner's own fields. Whoever looks for dead threads reads them after `life`, whose Release publishes them; the child of a
    // fork is the only thread.
    record.thread.store(os::thread_id(), Ordering::Relaxed);
    record.process.store(os::process_id(), Ordering::Relaxed);
    record.exit_rounds.store(0, Ordering::Relaxed);
    record.tag.store(0, Ordering::Relaxed);
    record.muted.store(0, Ordering::Relaxed);
    record.bounds.forget();
    record.set_life(Life::Active);
    Some(record)
}

impl Record {
    /// A block of a class that the fast path did not have, if all it takes is to let the two arrays change places. Needs nothing of what a
    /// slow path needs: no lock, no system call. Unlike a slow path it does not keep signal handlers out, so one that allocates in between
    /// meets the slot half changed.
    #[inline]
    pub(crate) fn alloc_quickly(&self, class: SizeClass) -> Option<NonNull<u8>> {
        let hot = self.hot().split(class);
        if !self.turn(class) {
            return None;
        }
        // SAFETY: the calling thread owns the record.
        unsafe { hot.pop() }
    }

    /// As [`alloc_quickly`](Self::alloc_quickly), for a block that the fast path had no room for. `false`: it was not taken.
    #[inline]
    pub(crate) fn free_quickly(&self, block: NonNull<u8>, class: SizeClass) -> bool {
        let turned = !in_sampled_zone(block.addr().get()) && self.turn(class);
        // SAFETY: the calling thread owns the record, and the block is the program's to give.
        turned && unsafe { self.hot().split(class).push(block) }
    }

    /// Lets the two arrays of a class change places, if that is all there is to do.
    #[inline(always)]
    fn turn(&self, class: SizeClass) -> bool {
        // Relaxed, and compiler fences only: the other side has every thread go through a barrier between what it writes and what it reads
        // (see `recall`).
        self.turning.store(1, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        let turned = self.recalled.load(Ordering::Relaxed) == 0
            && slow::turn_quickly(self.hot().split(class), self.cold(class), class, self);
        // Release: who sees that no turn is under way sees what it did. Pairs with the Acquire in `recall`.
        self.turning.store(0, Ordering::Release);
        turned
    }

    /// A block of a class that the fast path did not have. `None`: no memory.
    pub(crate) fn alloc_slow(&self, class: SizeClass, request: &Request<'_>, supply: &Supply) -> Option<StackBlock> {
        loop {
            let popped = match class.shape() {
                // SAFETY: the calling thread owns the record.
                Shape::Split => unsafe { self.hot().split(class).pop() }.map(|block| StackBlock { block, zeroed: false }),
                // SAFETY: as above.
                Shape::Stack => unsafe { self.hot().stack(class).pop() },
                Shape::Whole => return self.alloc_whole(class, request, supply),
            };
            if popped.is_some() {
                return popped;
            }
            let cold = self.cold(class);
            let refilled = match class.shape() {
                Shape::Split => slow::refill_split(self.hot().split(class), cold, class, self, supply),
                _ => slow::refill_stack(self.hot().stack(class), cold, class, self, supply),
            };
            match refilled {
                Refilled::Ready => self.follow_interval(supply),
                Refilled::OutOfMemory => return None,
                Refilled::Sample(stand_in) => {
                    // An ordinary block comes not from the slot, where the next allocation may be a sample too.
                    let ordinary = || alloc_direct(class, supply).map(|taken| taken.block);
                    let taken = if self.is_muted() {
                        stand_in.or_else(ordinary)
                    } else {
                        supply.sampling.allocate(class, request, &self.who(), stand_in, ordinary, supply.sampling_ground())
                    };
                    self.follow_interval(supply);
                    let block = taken?;
                    if stand_in.is_none() {
                        // No slot counts it.
                        self.sampled.allocated_alone(class.bytes());
                    }
                    return Some(StackBlock { block, zeroed: false });
                }
            }
        }
    }

    /// Takes back a block that the fast path had no room for, or that lives in the sampled zone.
    pub(crate) fn free_slow(&self, block: NonNull<u8>, class: SizeClass, caller: &Caller, supply: &Supply) {
        if class.shape() == Shape::Whole {
            return self.free_whole(block, class, supply);
        }
        let address = block.addr().get();
        if in_sampled_zone(address) {
            match end_sampled(address, class, &self.who(), caller, supply) {
                Some(stand_in) => self.take_back(stand_in, class, supply),
                None => self.sampled.freed_alone(class.bytes()),
            }
            return;
        }
        self.take_back(block, class, supply);
    }

    /// Takes back an ordinary block of a class that is no span of its own.
    fn take_back(&self, block: NonNull<u8>, class: SizeClass, supply: &Supply) {
        let push = || match class.shape() {
            // SAFETY: the calling thread owns the record, and the block is the program's to give.
            Shape::Split => unsafe { self.hot().split(class).push(block) },
            // SAFETY: as above.
            _ => unsafe { self.hot().stack(class).push(block) },
        };
        // What stood in for a sample comes while there is room; making more would give away what is there.
        if push() {
            return;
        }
        let cold = self.cold(class);
        let has_room = match class.shape() {
            Shape::Split => slow::make_room_split(self.hot().split(class), cold, class, self, supply),
            _ => slow::make_room_stack(self.hot().stack(class), cold, class, self, supply),
        };
        if !has_room || !push() {
            // No memory for a magazine: block by block.
            supply.free_direct(class, block);
        }
    }

    /// A block that is a span of its own.
    fn alloc_whole(&self, class: SizeClass, request: &Request<'_>, supply: &Supply) -> Option<StackBlock> {
        let entry = match self.take_whole(class) {
            Some(kept) => kept.as_ptr(),
            None => {
                let mut room = [core::ptr::null_mut()];
                if supply.refill(class, &mut room, &self.counters, &self.refills) == 0 {
                    return None;
                }
                room[0]
            }
        };
        let taken = StackBlock::from_entry(entry);
        supply.hand_whole(taken.block.addr().get(), class, Holder::Program);
        self.count_whole_allocation(class);
        self.follow_if_drawn(taken.block.addr().get(), Some(class), class.bytes(), request, supply);
        Some(taken)
    }

    /// Takes back a block that is a span of its own. It is checked here and now.
    fn free_whole(&self, block: NonNull<u8>, class: SizeClass, supply: &Supply) {
        supply.hand_whole(block.addr().get(), class, Holder::Us);
        leave_if_followed(block.addr().get(), self.thread_number(), supply);
        self.count_whole_free(class);
        if !self.keep_whole(class, block, supply) {
            self.counters.count_alone(Event::Flush);
            probes::flush(class.bytes(), 1);
            supply.flush_blocks(class, &[block.as_ptr()]);
        }
    }

    /// A block beyond 32 KiB was allocated: looks closely, if chance or its size says so.
    #[inline]
    pub(crate) fn follow_if_drawn(
        &self,
        address: usize,
        class: Option<SizeClass>,
        bytes: usize,
        request: &Request<'_>,
        supply: &Supply,
    ) {
        let drawn = self.draw_large(odds_bytes(class, bytes));
        let is_above = supply.choices.is_above(bytes) && self.sample_interval() != 0;
        if (drawn || is_above) && !self.is_muted() {
            // Who has no choice stands for nobody else.
            let who = if is_above { Who { interval: 1, ..self.who() } } else { self.who() };
            supply.sampling.follow(address, class, bytes, request, &who, supply.sampling_ground());
        }
        self.follow_interval(supply);
    }

    /// Draws anew if another interval was chosen: chance has no memory, so it does not matter when.
    #[inline]
    pub(crate) fn follow_interval(&self, supply: &Supply) {
        if self.sample_interval() != supply.choices.interval() {
            self.draw_anew(supply);
        }
    }

    /// Draws anew, whatever was drawn.
    #[cold]
    pub(crate) fn draw_anew(&self, supply: &Supply) {
        self.set_sample_interval(supply.choices.interval());
        // Classes in which nothing was armed yet draw when something is.
        for class in SizeClass::all().filter(|&class| class.shape() != Shape::Whole && self.cold(class).was_changed()) {
            self.sample_after(class, 0);
        }
    }

    /// The owner, by the kernel's number.
    pub(crate) fn thread_number(&self) -> u32 {
        // Relaxed: the owner's own.
        self.thread.load(Ordering::Relaxed)
    }

    /// Has the `allocations`-th allocation of a class from now on sampled; 0: what chance says. `false`: the class cannot be sampled by count.
    pub(crate) fn sample_after(&self, class: SizeClass, allocations: u32) -> bool {
        let cold = match class.shape() {
            Shape::Split | Shape::Stack => self.cold(class),
            Shape::Whole => return false,
        };
        match class.shape() {
            Shape::Split => slow::sample_after_split(self.hot().split(class), cold, allocations, class, self),
            _ => slow::sample_after_stack(self.hot().stack(class), cold, allocations),
        }
        true
    }

    /// Has one class other than `busy` give up all it caches, if nothing happened to it for long.
    fn shed_one(&self, busy: SizeClass, supply: &Supply) {
        let class = self.next_hand();
        // Relaxed: the owner's own.
        let touched = self.cold(class).touched.load(Ordering::Relaxed);
        if class != busy && self.entry().wrapping_sub(touched) > IDLE_ENTRIES {
            self.drain_class(class, supply);
        }
    }

    /// Has all classes that were not in a slow entry since number `before` give up what they cache.
    pub(crate) fn shed_idle(&self, before: u32, supply: &Supply) {
        let age = self.entry().wrapping_sub(before);
        for class in SizeClass::all().filter(|class| class.shape() != Shape::Whole) {
            // Relaxed: the owner's own.
            if self.entry().wrapping_sub(self.cold(class).touched.load(Ordering::Relaxed)) > age {
                self.drain_class(class, supply);
            }
        }
    }

    /// Gives everything that is cached to central, except what the owner may be about to take: it sleeps. See `recall`.
    pub(crate) fn recall(&self, supply: &Supply) {
        for class in SizeClass::all() {
            match class.shape() {
                Shape::Split => slow::recall_split(self.hot().split(class), self.cold(class), class, supply),
                Shape::Stack => slow::recall_stack(self.hot().stack(class), self.cold(class), class, supply),
                Shape::Whole => self.drain_whole(class, supply),
            }
        }
        self.let_all_go(supply);
    }

    /// The owner is back: does the rest of [`recall`](Self::recall).
    pub(crate) fn settle(&self, supply: &Supply) {
        for class in SizeClass::all() {
            match class.shape() {
                Shape::Split => slow::settle_split(self.hot().split(class), self.cold(class), class, supply),
                Shape::Stack => slow::settle_stack(self.hot().stack(class), self.cold(class), class, supply),
                Shape::Whole => {}
            }
        }
    }

    fn drain_whole(&self, class: SizeClass, supply: &Supply) {
        while let Some(block) = self.take_whole(class) {
            supply.flush_blocks(class, &[block.as_ptr()]);
        }
    }

    fn drain_class(&self, class: SizeClass, supply: &Supply) {
        let cold = self.cold(class);
        let held = slow::held_bytes(cold, class);
        if held == 0 {
            return;
        }
        self.counters.count_alone(Event::Flush);
        probes::flush(class.bytes(), self.counts(class).0.cached as usize);
        match class.shape() {
            Shape::Split => slow::drain_split(self.hot().split(class), cold, class, supply),
            _ => slow::drain_stack(self.hot().stack(class), cold, class, supply),
        }
        self.let_go(held);
    }

    /// Gives everything that is cached to central. The record is as good as new afterwards, its counts stay.
    pub(crate) fn drain(&self, supply: &Supply) {
        for class in SizeClass::all() {
            if class.shape() == Shape::Whole {
                self.drain_whole(class, supply);
            } else {
                self.drain_class(class, supply);
            }
        }
        self.end_leases(supply);
    }
}

/// A block beyond 32 KiB is about to end. `thread`: by whose hand; 0: one that is past its end.
#[inline]
pub(crate) fn leave_if_followed(address: usize, thread: u32, supply: &Supply) {
    if supply.sampling.may_follow(address) {
        supply.sampling.leave(address, thread, &supply.page_heap);
    }
}

/// The end of a sampled block, by the hand of this thread (0: one that is past its end); says which ordinary block kept its place.
fn end_sampled(address: usize, class: SizeClass, who: &Who<'_>, caller: &Caller, supply: &Supply) -> Option<NonNull<u8>> {
    if supply.sampling.guarded.owns(address) {
        return supply.sampling.free_guarded(address, class, who, caller, supply.sampling_ground());
    }
    match supply.sampling.free(address, class, who.thread, supply.sampling_ground()) {
        Ok(stand_in) => stand_in,
        Err(kind) => misuse(kind, address, Some(class.index()), class.bytes()),
    }
}

/// A block without a thread cache: for threads that are past their end.
pub(crate) fn alloc_direct(class: SizeClass, supply: &Supply) -> Option<StackBlock> {
    let (block, zeroed) = supply.allocate_direct(class)?;
    if class.shape() == Shape::Whole {
        supply.hand_whole(block.addr().get(), class, Holder::Program);
    }
    Some(StackBlock { block, zeroed })
}

/// Takes a block back without a thread cache.
pub(crate) fn free_direct(block: NonNull<u8>, class: SizeClass, caller: &Caller, supply: &Supply) {
    let address = block.addr().get();
    if in_sampled_zone(address) && class.shape() != Shape::Whole {
        let who = Who { thread: 0, tag: 0, interval: 0, bounds: &StackBounds::new() };
        if let Some(stand_in) = end_sampled(address, class, &who, caller, supply) {
            supply.free_direct(class, stand_in);
        }
        return;
    }
    if class.shape() == Shape::Whole {
        supply.hand_whole(address, class, Holder::Us);
        leave_if_followed(address, 0, supply);
    } else if let Err(kind) = supply.inspect(address, class) {
        misuse(kind, address, Some(class.index()), class.bytes());
    }
    supply.free_direct(class, block);
}

#[cfg(test)]
mod tests;
