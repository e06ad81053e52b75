//! Floor 6. The supply: all shared rooms of one heap, and the way a magazine takes through them.
//!
//! ```text
//!   take   depot's slots → depot's shelf → central (fullest span; seed; fresh span → page heap → system)
//!   give   depot's slots → depot's shelf → central (bits; empty span → page heap)
//! ```

use core::ops::Range;
use core::ptr::NonNull;

use crate::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
#[cfg(freestone_c)]
use crate::central::class_at;
use crate::central::seed::Seed;
use crate::central::within::class_of_span;
use crate::central::{Central, Ground, Listed, inspect, inspect_all, whole_record};
use crate::config::{
    DEPOT_CHARGE_BYTES_MIN, DEPOT_LEND_MIN_BYTES, DEPOT_SLOT_BYTES, DEPOT_SLOTS, IDLE_TICKS, LEASE_BYTES, LEND_LIVE_SHARE,
    MAGAZINE_BLOCKS_MAX, MAGAZINE_BLOCKS_MIN, STACK_BLOCKS_MIN, STACK_BYTES_TARGET, STACK_FIRST_BYTES, UNSIZED,
};
use crate::counters::{Counters, Event};
use crate::depot::Depot;
use crate::fatal::{Misuse, misuse};
use crate::histogram::Histogram;
use crate::large::Large;
use crate::magazine::{CAPACITIES, Magazine, ZEROED, capacity_index};
use crate::meta::Meta;
use crate::os;
use crate::page_heap::{PageHeap, Rested};
use crate::pauses::PauseKind;
use crate::probes;
use crate::requests::Requests;
use crate::sampling::{self, Sampling};
use crate::size_class::{Shape, SizeClass};
use crate::span::record::Holder;
#[cfg(freestone_c)]
use crate::units::in_sampled_zone;
use crate::units::{PageIndex, STEP_PAGES};
#[cfg(freestone_c)]
use crate::zero::ZeroBlocks;

/// Blocks that were handed out or taken back without a thread's slots, and blocks that were lost.
pub(crate) struct Direct {
    pub(crate) allocations: [AtomicU64; SizeClass::COUNT],
    pub(crate) frees: [AtomicU64; SizeClass::COUNT],
    /// In caches of threads that a fork left behind.
    pub(crate) lost: [AtomicU64; SizeClass::COUNT],
    /// Bytes of pages that were on their way when a fork left their threads behind.
    pub(crate) lost_pages_bytes: AtomicUsize,
}

/// The shared rooms of a heap. In this order: what every program writes to lies together, so that a small one touches few pages.
#[repr(C)]
pub(crate) struct Supply {
    pub(crate) page_heap: PageHeap,
    pub(crate) meta: Meta,
    /// Bytes lent to thread caches and depots.
    lent: AtomicUsize,
    /// Check every exchange, not one in a period.
    check_every_exchange: AtomicBool,
    pub(crate) choices: sampling::Choices,
    seed: Seed,
    empties: [Depot; CAPACITIES],
    centrals: [Central; SizeClass::COUNT],
    pub(crate) large: Large,
    pub(crate) direct: Direct,
    depots: [Depot; SizeClass::COUNT],
    pub(crate) requests: Requests,
    pub(crate) listed: [Listed; SizeClass::COUNT],
    pub(crate) sampling: Sampling,
    #[cfg(freestone_c)]
    pub(crate) zero: ZeroBlocks,
}

/// Blocks that a thread means to have of a class at first, a power of two.
pub(crate) fn depth_min(class: SizeClass) -> usize {
    match class.shape() {
        Shape::Split => MAGAZINE_BLOCKS_MIN,
        Shape::Stack | Shape::Whole => {
            let blocks = (STACK_FIRST_BYTES / class.bytes()).clamp(1, MAGAZINE_BLOCKS_MIN);
            1 << blocks.ilog2()
        }
    }
}

/// Blocks that a thread means to have of a class at most, a power of two.
pub(crate) fn depth_max(class: SizeClass) -> usize {
    match class.shape() {
        Shape::Split => MAGAZINE_BLOCKS_MAX,
        Shape::Stack => {
            let blocks = (STACK_BYTES_TARGET / class.bytes()).clamp(STACK_BLOCKS_MIN, MAGAZINE_BLOCKS_MAX);
            1 << blocks.ilog2()
        }
        Shape::Whole => MAGAZINE_BLOCKS_MIN,
    }
}

/// Who remembers how long it took to give memory back, and how much it was: one of the two, so that it is not counted twice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Booking {
    /// Piece by piece, who gives it back.
    Here,
    /// In one sum, who asked for all of it.
    Above,
}

/// Where looking for free memory within spans stands. Rounds through all spans, one a second as long as there is something to find, and
/// fewer and fewer when there is not.
#[derive(Debug)]
pub(crate) struct WithinSpans {
    is_looking: bool,
    /// Where this round goes on.
    page: u32,
    /// What this round has given back.
    released: usize,
    /// It saw spans that may have to go the next time.
    again: bool,
    /// Whether they rest is not asked.
    at_once: bool,
    /// Who remembers what it came to.
    booking: Booking,
    /// Rounds in a row that found nothing.
    barren: u32,
    /// Ticks until the next round.
    pause: u32,
}

impl WithinSpans {
    /// Spans that are looked at at a time.
    const LOOKS: u32 = 32;

    pub(crate) const fn new() -> Self {
        Self {
            is_looking: false,
            page: 0,
            released: 0,
            again: false,
            at_once: false,
            booking: Booking::Here,
            barren: 0,
            pause: 0,
        }
    }

    /// A tick: begins a round if it is time. `at_once`: it is, and nothing need rest.
    pub(crate) fn tick(&mut self, at_once: bool) {
        self.pause = if at_once { 0 } else { self.pause.saturating_sub(1) };
        if !self.is_looking && self.pause == 0 {
            let Self { booking, barren, .. } = *self;
            *self = Self { is_looking: true, at_once, booking, barren, ..Self::new() };
        }
    }

    fn end_round(&mut self) {
        self.is_looking = false;
        self.barren = if self.released > 0 || self.again { 0 } else { self.barren + 1 };
        self.pause = IDLE_TICKS << self.barren.min(5);
    }

    /// Was nothing found the last few times?
    pub(crate) fn is_exhausted(&self) -> bool {
        self.barren >= 2
    }

    /// Something happens in the heap again.
    pub(crate) fn hope(&mut self) {
        self.barren = 0;
        self.pause = self.pause.min(IDLE_TICKS);
    }
}

/// What a block in a depot takes of the process's loans.
fn charge_bytes(class: SizeClass) -> usize {
    class.bytes().max(DEPOT_CHARGE_BYTES_MIN)
}

impl Supply {
    #[allow(clippy::large_stack_arrays, reason = "evaluated at compile time, into a static")]
    pub(crate) const fn new() -> Self {
        Self {
            meta: Meta::new(),
            page_heap: PageHeap::new(),
            sampling: Sampling::new(),
            choices: sampling::Choices::new(),
            requests: Requests::new(),
            listed: [const { Listed::new() }; SizeClass::COUNT],
            large: Large::new(),
            direct: Direct {
                allocations: [const { AtomicU64::new(0) }; SizeClass::COUNT],
                frees: [const { AtomicU64::new(0) }; SizeClass::COUNT],
                lost: [const { AtomicU64::new(0) }; SizeClass::COUNT],
                lost_pages_bytes: AtomicUsize::new(0),
            },
            seed: Seed::new(),
            centrals: [const { Central::new() }; SizeClass::COUNT],
            depots: [const { Depot::full() }; SizeClass::COUNT],
            empties: [const { Depot::empty() }; CAPACITIES],
            #[cfg(freestone_c)]
            zero: ZeroBlocks::new(),
            lent: AtomicUsize::new(0),
            check_every_exchange: AtomicBool::new(false),
        }
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.page_heap.counters
    }

    fn ground(&self) -> Ground<'_> {
        Ground { page_heap: &self.page_heap, meta: &self.meta, seed: &self.seed, listed: &self.listed }
    }

    /// Where samples get their memory from.
    pub(crate) fn sampling_ground(&self) -> sampling::Ground<'_> {
        sampling::Ground { page_heap: &self.page_heap, meta: &self.meta, choices: &self.choices }
    }

    pub(crate) fn set_check_every_exchange(&self, every: bool) {
        // Relaxed, here and below: the option orders nothing.
        self.check_every_exchange.store(every, Ordering::Relaxed);
    }

    pub(crate) fn checks_every_exchange(&self) -> bool {
        self.check_every_exchange.load(Ordering::Relaxed)
    }

    pub(crate) fn central(&self, class: SizeClass) -> &Central {
        &self.centrals[class.index()]
    }

    pub(crate) fn depot(&self, class: SizeClass) -> &Depot {
        &self.depots[class.index()]
    }

    /// All that is mapped for ourselves.
    pub(crate) fn metadata_mapped_bytes(&self) -> usize {
        self.meta.mapped_bytes() + self.page_heap.bytes().tables
    }

    /// Ranges of addresses in which all that is mapped is ours.
    pub(crate) fn each_mapping(&self, each: &mut dyn FnMut(Range<usize>)) {
        self.page_heap.each_mapping(each);
        self.meta.each_chunk(each);
    }

    pub(crate) fn seed_bytes(&self) -> usize {
        self.seed.bytes()
    }

    /// Of each small class, blocks of the seed that are not there at the moment.
    pub(crate) fn out_of_seed(&self) -> [u16; SizeClass::SMALL_COUNT] {
        self.seed.out()
    }

    // ---- magazines -------------------------------------------------------------------------------------------------

    /// A magazine without blocks. `None`: no memory.
    pub(crate) fn empty_magazine(&self, capacity: usize) -> Option<Magazine> {
        if let Some(magazine) = self.empties[capacity_index(capacity)].take(os::processor(), &mut 0) {
            return Some(magazine);
        }
        let memory = self.meta.take(Magazine::bytes(capacity), align_of::<usize>())?;
        // SAFETY: so many zeros, aligned, and ours for good.
        Some(unsafe { Magazine::new(memory, capacity) })
    }

    /// Takes back a magazine whose blocks are gone.
    pub(crate) fn spare_magazine(&self, mut magazine: Magazine) {
        magazine.set_range(0, 0);
        let empties = &self.empties[capacity_index(magazine.capacity())];
        let here = os::processor();
        // Nothing in them, so no bound holds them off.
        if empties.put(magazine, here, DEPOT_SLOTS, &mut 0).is_err() {
            debug_assert!(false, "a magazine without blocks found no place");
        }
    }

    /// A magazine with blocks that another thread left. `counters` are the calling thread's.
    pub(crate) fn take_magazine(&self, class: SizeClass, counters: &Counters) -> Option<Magazine> {
        let mut waited = 0;
        let magazine = self.depot(class).take(os::processor(), &mut waited);
        self.page_heap.pauses.waited(PauseKind::Depot, waited);
        let magazine = magazine?;
        counters.count_alone(Event::DepotTake);
        Some(magazine)
    }

    /// Leaves a magazine with blocks for others: in the depot as long as it may grow, else in central.
    pub(crate) fn give_magazine(&self, class: SizeClass, magazine: Magazine, counters: &Counters) {
        let (depot, here) = (self.depot(class), os::processor());
        let usable = (DEPOT_SLOT_BYTES / (MAGAZINE_BLOCKS_MAX * class.bytes())).clamp(1, DEPOT_SLOTS);
        let mut waited = 0;
        let mut offered = depot.put(magazine, here, usable, &mut waited);
        if let Err(magazine) = offered {
            let more = LEASE_BYTES.div_ceil(charge_bytes(class)).max(magazine.count());
            // In C a thread keeps more for itself, and one that frees what nobody takes had better give it to central, where other classes get the pages.
            let is_of_use = !UNSIZED || depot.is_in_demand(here);
            offered = if is_of_use && self.allow_more(depot, here, more, charge_bytes(class)) {
                depot.put(magazine, here, usable, &mut waited)
            } else {
                Err(magazine)
            };
        }
        self.page_heap.pauses.waited(PauseKind::Depot, waited);
        match offered {
            Ok(()) => counters.count_alone(Event::DepotPut),
            Err(magazine) => {
                counters.count_alone(Event::Flush);
                probes::flush(class.bytes(), magazine.count());
                self.page_heap.marks.flushed();
                self.watch_central(class, magazine.count(), || {
                    self.central(class).flush(class, magazine, self.ground(), |magazine| self.spare_magazine(magazine));
                });
            }
        }
    }

    /// Allows a depot some blocks more here: lent, or taken from where they are of no use. Near the soft limit none.
    fn allow_more(&self, depot: &Depot, here: usize, blocks: usize, charge: usize) -> bool {
        if self.lend(blocks * charge, DEPOT_LEND_MIN_BYTES) {
            depot.raise_bound(here, blocks);
            return true;
        }
        !self.page_heap.marks.is_near(self.page_heap.held()) && depot.move_bounds(here)
    }

    /// Runs something that central does, and remembers it if it took long. Blocks that are spans of their own only pass through: for them the
    /// page heap remembers.
    #[inline]
    fn watch_central<R>(&self, class: SizeClass, blocks: usize, work: impl FnOnce() -> R) -> R {
        if class.shape() == Shape::Whole {
            return work();
        }
        self.page_heap.pauses.watch(PauseKind::Central, blocks * class.bytes(), work)
    }

    /// Puts blocks into `room`, from its end downwards; says how many. Zero: no memory, even after giving back what lies idle. `counters` are
    /// the calling thread's.
    pub(crate) fn refill(&self, class: SizeClass, room: &mut [*mut u8], counters: &Counters, refills: &Histogram) -> usize {
        counters.count_alone(Event::Refill);
        if class.shape() == Shape::Whole {
            let got = self.refill_untimed(class, room);
            probes::refill(class.bytes(), got);
            return got;
        }
        let pauses = &self.page_heap.pauses;
        let (got, cycles) = pauses.time(PauseKind::Central, room.len() * class.bytes(), || self.refill_untimed(class, room));
        refills.note_alone(pauses.pace.ns(cycles));
        probes::refill(class.bytes(), got);
        got
    }

    fn refill_untimed(&self, class: SizeClass, room: &mut [*mut u8]) -> usize {
        let emptied = |magazine| self.spare_magazine(magazine);
        let central = self.central(class);
        let got = central.refill(class, room, self.ground(), emptied);
        if got > 0 || room.is_empty() {
            return got;
        }
        self.drain_depots();
        self.page_heap.release_all(Rested::any(self.page_heap.tick()));
        if self.page_heap.marks.hard() != usize::MAX {
            // Spans without any block that is out may wait for this; see `Central::place`.
            self.release_all_within_spans(|| true);
        }
        self.central(class).refill(class, room, self.ground(), emptied)
    }

    /// Gives blocks to central.
    pub(crate) fn flush_blocks(&self, class: SizeClass, blocks: &[*mut u8]) {
        self.page_heap.marks.flushed();
        self.watch_central(class, blocks.len(), || {
            self.central(class).flush_blocks(class, blocks, self.ground(), |magazine| self.spare_magazine(magazine));
        });
    }

    /// What lies in a class's depot, as a number that changes when anything does; 0: nothing.
    pub(crate) fn depot_stamp(&self, class: SizeClass) -> u64 {
        self.depot(class).stamp()
    }

    /// Takes a few magazines out of a class's depot, and lends it no more. `false`: it is empty.
    pub(crate) fn drain_some_of_depot(&self, class: SizeClass) -> bool {
        const SOME: usize = 16;
        let depot = self.depot(class);
        for _ in 0..SOME {
            let Some(magazine) = depot.take(0, &mut 0) else {
                self.lend_depot_no_more(class);
                return false;
            };
            self.central(class).flush(class, magazine, self.ground(), |magazine| self.spare_magazine(magazine));
        }
        true
    }

    /// Takes back what a class's depot was lent.
    pub(crate) fn lend_depot_no_more(&self, class: SizeClass) {
        self.give_back(self.depot(class).lower_bounds() * charge_bytes(class));
    }

    /// Takes a few magazines that nobody needed lately out of a class's depot, and what it was lent for them. `false`: there are no more, and from now on it is
    /// watched anew.
    pub(crate) fn drain_surplus_of_depot(&self, class: SizeClass) -> bool {
        const SOME: usize = 16;
        let depot = self.depot(class);
        for _ in 0..SOME {
            let Some((magazine, allowed)) = depot.take_surplus() else {
                depot.watch_surplus();
                return false;
            };
            self.give_back(allowed * charge_bytes(class));
            self.central(class).flush(class, magazine, self.ground(), |magazine| self.spare_magazine(magazine));
        }
        true
    }

    // ---- giving memory back within spans -----------------------------------------------------------------------------

    /// Memory that free blocks take in central's spans and that was not given back. An estimate: rooms are looked at one after the other.
    pub(crate) fn free_within_spans(&self) -> usize {
        let mut bytes = 0_usize;
        for class in SizeClass::all() {
            let central = self.central(class);
            let (spans, out) = (central.span_count() * class.span_bytes(), central.out() as usize * class.bytes());
            bytes += spans.saturating_sub(out);
        }
        bytes.saturating_sub(self.page_heap.all_released_within())
    }

    /// Looks through some spans for pages on which only free blocks lie, and gives them back; says how many bytes that was. `Err`: all spans
    /// have been looked at.
    pub(crate) fn release_within_spans(&self, within: &mut WithinSpans) -> Result<usize, ()> {
        if !within.is_looking {
            return Err(());
        }
        let page_heap = &self.page_heap;
        match page_heap.is_step_in_use(within.page / STEP_PAGES) {
            None => {
                within.end_round();
                return Err(());
            }
            Some(false) => {
                within.page = (within.page / STEP_PAGES + 1) * STEP_PAGES;
                return Ok(0);
            }
            Some(true) => {}
        }
        let step = within.page / STEP_PAGES;
        let mut released = 0;
        let mut looks = 0;
        while within.page / STEP_PAGES == step && released == 0 && looks < WithinSpans::LOOKS {
            let page = PageIndex(within.page);
            // SAFETY: a page of a step that exists.
            let record = unsafe { page_heap.table.record(page) };
            within.page += 1;
            let Some(class) = class_of_span(record) else { continue };
            looks += 1;
            let began_ns = os::now_ns();
            let (bytes, again) = page_heap.releasing(|| {
                self.central(class)
                    .release_within(page, class, within.at_once, self.ground(), |magazine| self.spare_magazine(magazine))
            });
            within.again |= again;
            released += bytes;
            if bytes > 0 && within.booking == Booking::Here {
                let now_ns = os::now_ns();
                page_heap.pauses.remember(PauseKind::Release, now_ns, now_ns - began_ns, bytes);
            }
        }
        within.released += released;
        Ok(released)
    }

    /// Looks through all spans, as long as `goes_on`, and gives back what is free, rested or not; says how many bytes that was.
    pub(crate) fn release_all_within_spans(&self, goes_on: impl Fn() -> bool) -> usize {
        self.look_through_all_spans(WithinSpans::new(), goes_on)
    }

    /// As above, all of it; the caller remembers how much it was and how long it took.
    pub(crate) fn release_all_within_spans_unbooked(&self) -> usize {
        self.look_through_all_spans(WithinSpans { booking: Booking::Above, ..WithinSpans::new() }, || true)
    }

    fn look_through_all_spans(&self, mut within: WithinSpans, goes_on: impl Fn() -> bool) -> usize {
        within.tick(true);
        let mut released = 0;
        while goes_on()
            && let Ok(some) = self.release_within_spans(&mut within)
        {
            released += some;
        }
        released
    }

    /// Empties all depots into central, and gives back what is kept for samples.
    pub(crate) fn drain_depots(&self) {
        self.sampling.trim(self.sampling_ground());
        for class in SizeClass::all() {
            while self.drain_some_of_depot(class) {}
        }
    }

    // ---- single blocks, for threads that have no caches --------------------------------------------------------------

    /// One block, straight from central. `zeroed` is true when it is known to be zero.
    pub(crate) fn allocate_direct(&self, class: SizeClass) -> Option<(NonNull<u8>, bool)> {
        let mut room = [core::ptr::null_mut()];
        if self.watch_central(class, 1, || self.refill_untimed(class, &mut room)) == 0 {
            return None;
        }
        let address = room[0].addr();
        // Release: as in `Sampling::allocate`.
        self.direct.allocations[class.index()].fetch_add(1, Ordering::Release);
        Some((os::block(address & !ZEROED), address & ZEROED != 0))
    }

    /// One block, straight to central.
    pub(crate) fn free_direct(&self, class: SizeClass, block: NonNull<u8>) {
        self.flush_blocks(class, &[block.as_ptr()]);
        // Release: as in `Sampling::allocate`.
        self.direct.frees[class.index()].fetch_add(1, Ordering::Release);
    }

    // ---- checking --------------------------------------------------------------------------------------------------

    /// Dies unless every one of these could be a free block of the class, and they are all different.
    #[cold]
    pub(crate) fn check_blocks(&self, class: SizeClass, blocks: &[*mut u8]) {
        if let Err((kind, address)) = inspect_all(blocks, class, self.ground()) {
            misuse(kind, address, Some(class.index()), class.bytes());
        }
    }

    /// What is wrong with freeing this address as a block of the class, if anything is.
    pub(crate) fn inspect(&self, address: usize, class: SizeClass) -> Result<(), Misuse> {
        inspect(address, class, self.ground())
    }

    /// See [`class_at`].
    #[inline]
    #[cfg(freestone_c)]
    pub(crate) fn class_at(&self, address: usize) -> Result<Option<SizeClass>, Misuse> {
        if in_sampled_zone(address) && self.sampling.guarded.owns(address) {
            return self.sampling.guarded.class_at(address).map(Some);
        }
        class_at(address, self.ground())
    }

    /// What is wrong with using this address as a block that is a span of its own, if anything is.
    #[cfg(freestone_c)]
    pub(crate) fn inspect_whole(&self, address: usize, class: SizeClass) -> Result<(), Misuse> {
        let (_, record) = whole_record(address, class, self.ground())?;
        if record.is_held_by(Holder::Program) { Ok(()) } else { Err(Misuse::DoubleFree) }
    }

    /// Hands a block that is a span of its own to the program or back to us. Dies if it is no such block, or already there.
    pub(crate) fn hand_whole(&self, address: usize, class: SizeClass, holder: Holder) {
        let kind = match whole_record(address, class, self.ground()) {
            Ok((_, record)) if record.hand_to(holder) != holder => return,
            Ok(_) => Misuse::DoubleFree,
            Err(kind) => kind,
        };
        misuse(kind, address, Some(class.index()), class.bytes());
    }

    // ---- lending ---------------------------------------------------------------------------------------------------

    /// Lends bytes to a cache or a depot, if the process can afford it: as long as all loans are at most `least`, or a share of what is live.
    pub(crate) fn lend(&self, bytes: usize, least: usize) -> bool {
        // Near the soft limit, caches and depots are the first to do with less.
        if self.page_heap.marks.is_near(self.page_heap.held()) {
            return false;
        }
        let most = least.max(self.page_heap.in_use() / LEND_LIVE_SHARE);
        // Relaxed: an allowance; passing it by a lease or two at the same instant does no harm.
        let lent = self.lent.load(Ordering::Relaxed);
        if lent + bytes > most {
            return false;
        }
        self.lent.fetch_add(bytes, Ordering::Relaxed);
        true
    }

    /// Ends a loan.
    pub(crate) fn give_back(&self, bytes: usize) {
        self.lent.fetch_sub(bytes, Ordering::Relaxed);
    }

    // ---- fork ------------------------------------------------------------------------------------------------------

    /// Takes every lock, in the order of their ranks.
    pub(crate) fn before_fork(&self) {
        self.page_heap.hold_releases();
        self.depots.iter().for_each(Depot::before_fork);
        self.centrals.iter().for_each(Central::before_fork);
        self.seed.before_fork();
        self.page_heap.before_fork();
        #[cfg(freestone_c)]
        self.zero.before_fork();
        self.empties.iter().for_each(Depot::before_fork);
        self.sampling.before_fork();
        self.meta.before_fork();
    }

    /// Gives them back, on both sides.
    pub(crate) fn after_fork(&self) {
        self.meta.after_fork();
        self.sampling.after_fork();
        self.empties.iter().for_each(Depot::after_fork);
        #[cfg(freestone_c)]
        self.zero.after_fork();
        self.page_heap.after_fork();
        self.seed.after_fork();
        self.centrals.iter().for_each(Central::after_fork);
        self.depots.iter().for_each(Depot::after_fork);
        self.page_heap.resume_releases();
    }

    /// Works off what other threads left for central while the fork held its locks. The calling thread must be in no slow path.
    pub(crate) fn look_again_after_fork(&self) {
        for class in SizeClass::all() {
            self.central(class).look_again(class, self.ground(), |magazine| self.spare_magazine(magazine));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::HugePages;
    use crate::os::sim::World;

    /// A span from which pages were given back may be full of free blocks and not end, at the hard limit: others get its memory all the same.
    #[test]
    fn at_the_hard_limit_no_free_page_is_out_of_reach() {
        let world = World::new();
        let _here = world.enter();
        let supply: &Supply = Box::leak(Box::new(Supply::new()));
        supply.page_heap.set_huge_pages(HugePages::Never);
        let class_of = |bytes| SizeClass::all().find(|class| class.bytes() == bytes).expect("a class");
        let (class, other) = (class_of(2048), class_of(4096));
        let mut blocks = vec![core::ptr::null_mut(); 32 * class.span_blocks() as usize];
        for room in blocks.chunks_mut(class.span_blocks() as usize) {
            assert_eq!(supply.refill_untimed(class, room), room.len());
        }
        let spans = || blocks.chunks(class.span_blocks() as usize);
        spans().for_each(|blocks| supply.flush_blocks(class, &blocks[1..]));
        assert!(supply.release_all_within_spans(|| true) > 0);
        let held = supply.page_heap.held();
        supply.page_heap.marks.set_hard(held);
        spans().for_each(|blocks| supply.flush_blocks(class, &blocks[..1]));
        assert_eq!(supply.refill_untimed(other, &mut [core::ptr::null_mut(); 8]), 8);
        assert!(supply.page_heap.held() <= held);
        assert_eq!(supply.central(class).span_count(), 0);
        supply.page_heap.check();
    }
}
