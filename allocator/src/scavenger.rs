//! Floor 9. Gives memory back: a little at every tick, or all of it when asked.
//!
//! A tick decides how much ([`Retention`]); what was decided is then worked off in slices of a millisecond, by the background thread, or
//! where there is none by threads on their slow paths. What goes first: caches of ended threads, what lies idle in depots and in caches of
//! threads that sleep; then free pages, whole steps and those that have been free for the longest first; last what is free within
//! spans that have a block or two left.

use crate::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use crate::config::{
    ASSIST_SLICE_NS, BREAK_UP_TICKS, CACHE_ROUND_NS, DROP_AGAIN_SHARE, DROP_BYTES, DROP_ENDS_BYTES, DROP_PAUSE_MAX_NS,
    DROP_SOON_NS, IDLE_TICKS, POOLED_RECORD_TICKS, PRESSURE_PERCENT, RELEASE_GAP_NS, RETAIN_ALWAYS_BYTES, SURROUNDINGS_NS,
    TICK_NS,
};
use crate::counters::Event;
use crate::options::Retain;
use crate::os;
use crate::page_heap::Rested;
use crate::pauses::PauseKind;
use crate::recall::Recaller;
use crate::retention::{Allowance, Demand, Retention};
use crate::size_class::SizeClass;
use crate::supply::{Supply, WithinSpans};
use crate::surroundings;
use crate::sync::{Lock, Rank};
use crate::thread_cache::record::{HotSlots, Life, Record};
use crate::thread_cache::registry::Registry;

/// After so many ticks without anything to do nobody need look any more.
const CALM_TICKS: u32 = 3 * IDLE_TICKS;

/// What is decided and worked off by one thread at a time.
struct Work {
    retention: Retention,
    allowance: Allowance,
    /// What lay in each class's depot when it was looked at last.
    depots: [u64; SizeClass::COUNT],
    /// The next class whose depot is looked at in this round; at the end all have been.
    next_depot: usize,
    /// The soft limit is near: depots need not lie idle to be emptied.
    is_near: bool,
    /// The record of a thread that was looked at last in this round.
    last_record: Option<&'static Record>,
    /// All records have been looked at in this round.
    records_done: bool,
    /// No record of an ended thread is due before the next tick.
    pool_done: bool,
    /// The last tick that gave anything back.
    round_tick: u32,
    /// When this round of looking at caches began.
    round_ns: u64,
    /// Free memory within spans is looked for.
    within: WithinSpans,
    /// What was in use when the last round through the spans began to find nothing.
    in_use: usize,
    /// When the kernel was asked whether programs wait for memory.
    asked_ns: u64,
    calm_ticks: u32,
}

/// The scavenger of a heap.
pub(crate) struct Scavenger {
    /// When the last tick was.
    last_ns: AtomicU64,
    ticks: AtomicU32,
    /// See [`Retain::pack`].
    retain: AtomicU64,
    /// Bytes that this tick still has to give back.
    owed: AtomicUsize,
    /// All that is free is to go, at once.
    is_urgent: AtomicBool,
    /// The last slice was too short.
    has_more: AtomicBool,
    /// No slice before this time.
    next_slice_ns: AtomicU64,
    /// Threads that have not seen this number yet give up their caches.
    sheds: AtomicU32,
    /// When depots were emptied for an assist the last time.
    drained_tick: AtomicU32,
    /// What was free after the last drop, and could not be given back.
    drop_left: AtomicUsize,
    /// What lived then. 0: that drop is over.
    drop_live: AtomicUsize,
    /// When the last drop was that did not go on with another.
    drop_ns: AtomicU64,
    /// No drop for so long after it: what was dropped before was needed again at once, and ticks give back what is not.
    drop_pause_ns: AtomicU64,
    work: Lock<Work>,
}

/// What a slice of work came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Slice {
    /// There is more to do.
    More,
    /// That is all for this tick.
    Done,
    /// And there was nothing to do for long: the next reason will make itself heard.
    Calm,
}

/// The rooms that are shared by all threads.
#[derive(Clone, Copy)]
pub(crate) struct House<'a> {
    pub(crate) supply: &'a Supply,
    pub(crate) registry: &'static Registry<Record>,
    pub(crate) recaller: &'a Recaller,
    /// The empty heap of threads whose caches were taken.
    pub(crate) away: *const HotSlots,
}

// Relaxed for all atomics in here: times, counts and wishes; the lock orders the work.
impl Scavenger {
    pub(crate) const fn new() -> Self {
        Self {
            last_ns: AtomicU64::new(0),
            ticks: AtomicU32::new(0),
            retain: AtomicU64::new(0),
            owed: AtomicUsize::new(0),
            is_urgent: AtomicBool::new(false),
            has_more: AtomicBool::new(false),
            next_slice_ns: AtomicU64::new(0),
            sheds: AtomicU32::new(0),
            drained_tick: AtomicU32::new(0),
            drop_left: AtomicUsize::new(0),
            drop_live: AtomicUsize::new(0),
            drop_ns: AtomicU64::new(0),
            drop_pause_ns: AtomicU64::new(0),
            work: Lock::new(
                Rank::Scavenger,
                Work {
                    retention: Retention::new(),
                    allowance: Allowance::new(),
                    depots: [0; SizeClass::COUNT],
                    next_depot: 0,
                    is_near: false,
                    last_record: None,
                    records_done: false,
                    pool_done: false,
                    round_tick: 0,
                    round_ns: 0,
                    in_use: 0,
                    within: WithinSpans::new(),
                    asked_ns: 0,
                    calm_ticks: 0,
                },
            ),
        }
    }

    /// The first tick is a while away: a program that does little does none.
    pub(crate) fn begin(&self, now_ns: u64) {
        self.last_ns.store(now_ns, Ordering::Relaxed);
    }

    pub(crate) fn set_retain(&self, retain: Retain) {
        self.retain.store(retain.pack(), Ordering::Relaxed);
    }

    pub(crate) fn retain(&self) -> Retain {
        Retain::unpack(self.retain.load(Ordering::Relaxed))
    }

    /// The number of the current tick, for ages.
    pub(crate) fn now(&self) -> u32 {
        self.ticks.load(Ordering::Relaxed)
    }

    /// How long it is until the next tick.
    pub(crate) fn ns_to_tick(&self, now_ns: u64) -> u64 {
        TICK_NS.saturating_sub(now_ns.saturating_sub(self.last_ns.load(Ordering::Relaxed)))
    }

    /// Is there something left to do from the last slice?
    pub(crate) fn has_more(&self, now_ns: u64) -> bool {
        self.has_more.load(Ordering::Relaxed) && now_ns >= self.next_slice_ns.load(Ordering::Relaxed)
    }

    pub(crate) fn is_urgent(&self) -> bool {
        self.is_urgent.load(Ordering::Relaxed)
    }

    /// From now on all that is free goes, as fast as it can. `false`: it was so already.
    pub(crate) fn urge(&self) -> bool {
        !self.is_urgent.load(Ordering::Relaxed) && !self.is_urgent.swap(true, Ordering::Relaxed)
    }

    /// Something happened after a long calm.
    pub(crate) fn wake(&self) {
        let mut work = self.work.lock();
        work.calm_ticks = 0;
        work.within.hope();
    }

    /// Does some living thread cache anything that could be taken if it slept?
    pub(crate) fn has_caches(house: House<'_>) -> bool {
        house.registry.records().any(|record| record.life() == Life::Active && !record.is_empty())
    }

    /// A number that changes when threads are to give up their caches.
    pub(crate) fn sheds(&self) -> u32 {
        self.sheds.load(Ordering::Relaxed)
    }

    /// Decides what is to be done, if a tick is due and nobody else does. `true`: this was a tick.
    pub(crate) fn tick_if_due(&self, now_ns: u64, house: House<'_>) -> bool {
        let last = self.last_ns.load(Ordering::Relaxed);
        if now_ns.saturating_sub(last) < TICK_NS {
            return false;
        }
        if self.last_ns.compare_exchange(last, now_ns, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return false;
        }
        let Some(mut work) = self.work.try_lock() else { return false };
        self.tick(&mut work, now_ns, house);
        true
    }

    #[cold]
    fn tick(&self, work: &mut Work, now_ns: u64, house: House<'_>) {
        let (supply, page_heap) = (house.supply, &house.supply.page_heap);
        supply.counters().count(Event::Tick);
        page_heap.pauses.pace.compare(now_ns, os::cycles());
        let tick = self.ticks.fetch_add(1, Ordering::Relaxed) + 1;
        page_heap.set_tick(tick);
        work.pool_done = false;
        if tick.is_multiple_of(IDLE_TICKS) {
            supply.sampling.trim(supply.sampling_ground());
        }
        if work.records_done && now_ns.saturating_sub(work.round_ns) >= CACHE_ROUND_NS {
            work.round_ns = now_ns;
            work.next_depot = 0;
            work.last_record = None;
            work.records_done = false;
        }
        // Where much came or went since, there may be something to find again.
        if !work.within.is_exhausted() {
            work.in_use = page_heap.in_use();
        } else if work.in_use.abs_diff(page_heap.in_use()) > RETAIN_ALWAYS_BYTES {
            work.within.hope();
        }
        // What nobody can give back is in use.
        let within = if work.within.is_exhausted() { 0 } else { supply.free_within_spans() };
        let demand = Demand {
            in_use: page_heap.in_use().saturating_sub(within),
            peak: page_heap.take_peak().saturating_sub(within),
            free: page_heap.free() + within,
            own: supply.meta.used_bytes(),
        };
        let retain = self.retain();
        let mut bytes = work.retention.tick(now_ns, demand, retain);
        let near = page_heap.marks.is_near(page_heap.held());
        work.is_near = near;
        if near || Self::is_under_pressure(work, now_ns, demand.free) {
            bytes = usize::MAX;
            self.is_urgent.store(true, Ordering::Relaxed);
            if near {
                work.next_depot = 0;
                self.sheds.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.owed.store(bytes, Ordering::Relaxed);
        if bytes > 0 {
            work.within.tick(near || retain == Retain::Off);
        }
        let is_calm = demand.free <= RETAIN_ALWAYS_BYTES || retain == Retain::Keep;
        work.calm_ticks = if is_calm { work.calm_ticks.saturating_add(1) } else { 0 };
    }

    /// Does the kernel say that programs wait for memory? Asked once a second, and only where there is something to give.
    fn is_under_pressure(work: &mut Work, now_ns: u64, free: usize) -> bool {
        if free <= RETAIN_ALWAYS_BYTES || now_ns.saturating_sub(work.asked_ns) < SURROUNDINGS_NS {
            return false;
        }
        work.asked_ns = now_ns;
        surroundings::pressure_percent().is_some_and(|percent| percent >= PRESSURE_PERCENT)
    }

    /// Works for about so long on what was decided, unless somebody else does.
    pub(crate) fn work(&self, slice_ns: u64, house: House<'_>) -> Slice {
        let began_ns = os::now_ns();
        let is_urgent = self.is_urgent.load(Ordering::Relaxed);
        if !is_urgent && began_ns < self.next_slice_ns.load(Ordering::Relaxed) {
            return Slice::More;
        }
        let Some(mut work) = self.work.try_lock() else { return Slice::Done };
        if !is_urgent && work.allowance.at(began_ns) == 0 {
            return Slice::Done;
        }
        let mut now_ns = began_ns;
        let end_ns = began_ns + slice_ns;
        let mut more = true;
        while more && now_ns < end_ns {
            more = self.do_something(&mut work, house);
            now_ns = os::now_ns();
        }
        work.allowance.spend(now_ns - began_ns);
        self.next_slice_ns.store(now_ns + RELEASE_GAP_NS, Ordering::Relaxed);
        self.has_more.store(more, Ordering::Relaxed);
        if more {
            return Slice::More;
        }
        // Only what this slice knew of is done.
        if is_urgent {
            self.is_urgent.store(false, Ordering::Relaxed);
        }
        self.owed.store(0, Ordering::Relaxed);
        if work.calm_ticks >= CALM_TICKS { Slice::Calm } else { Slice::Done }
    }

    /// A cache that is looked at and a call that gives memory back: some fraction of a millisecond. `false`: there is nothing left to do.
    fn do_something(&self, work: &mut Work, house: House<'_>) -> bool {
        let looked = self.look_at_a_cache(work, house);
        self.release_what_is_owed(work, house) || looked
    }

    /// `false`: all have been looked at.
    fn look_at_a_cache(&self, work: &mut Work, house: House<'_>) -> bool {
        let tick = self.now();
        let House { supply, registry, recaller, .. } = house;
        let is_due = |record: &Record| tick.wrapping_sub(record.pooled_tick.load(Ordering::Relaxed)) >= POOLED_RECORD_TICKS;
        if !work.pool_done {
            work.pool_done = !drain_pooled(registry, supply, is_due);
            return true;
        }
        if let Some(class) = SizeClass::all().nth(work.next_depot) {
            // What lies there as it lay a second ago is of no use to anybody; of what does not, as much as nobody ever needed.
            let before = work.depots[class.index()];
            let lies_there = supply.depot_stamp(class);
            let lies_still = lies_there == before;
            let goes = lies_still || work.is_near;
            let has_more = match lies_there {
                0 => {
                    if lies_still {
                        supply.lend_depot_no_more(class);
                    }
                    false
                }
                _ if goes => supply.drain_some_of_depot(class),
                _ => supply.drain_surplus_of_depot(class),
            };
            // A look that goes on in a moment is to come to the same end: 0 is what nothing looks like that lies there.
            let seen = if has_more && !goes { 0 } else { supply.depot_stamp(class) };
            if seen != before {
                work.depots[class.index()] = seen;
            }
            if has_more {
                return true;
            }
            work.next_depot += 1;
            return true;
        }
        if work.records_done {
            return false;
        }
        let record = registry.before(work.last_record);
        work.records_done = record.is_none();
        work.last_record = record;
        if let Some(record) = record
            && record.life() == Life::Active
            && record.is_idle()
        {
            recaller.recall(record, house.away, supply);
        }
        true
    }

    /// `false`: nothing is owed, or there is nothing to give back.
    fn release_what_is_owed(&self, work: &mut Work, house: House<'_>) -> bool {
        let (tick, supply) = (self.now(), house.supply);
        let owed = self.owed.load(Ordering::Relaxed);
        if owed == 0 {
            return false;
        }
        let rested = if self.is_urgent.load(Ordering::Relaxed) || self.retain() == Retain::Off {
            Rested::any(tick)
        } else {
            // Pages that became free since the last tick are left alone: they may be wanted again at once.
            Rested { until: tick.wrapping_sub(1), broken_until: tick.wrapping_sub(BREAK_UP_TICKS) }
        };
        match Self::release_some(rested, supply).or_else(|()| supply.release_within_spans(&mut work.within)) {
            Ok(bytes) => {
                self.owed.store(owed.saturating_sub(bytes), Ordering::Relaxed);
                if bytes > 0 && work.round_tick != tick {
                    // Of many slices in a tick the first counts.
                    work.round_tick = tick;
                    count_round(bytes, supply);
                }
                true
            }
            Err(()) => false,
        }
    }

    /// One call that gives memory back, and remembers how long it took.
    fn release_some(rested: Rested, supply: &Supply) -> Result<usize, ()> {
        let began_ns = os::now_ns();
        let released = supply.page_heap.release_some(rested, os::address_space_is_limited())?;
        let now_ns = os::now_ns();
        supply.page_heap.pauses.remember(PauseKind::Release, now_ns, now_ns - began_ns, released);
        Ok(released)
    }

    /// Gives back so much as fast as possible, but for no longer than an assist may take; says how much it was.
    pub(crate) fn assist(&self, bytes: usize, supply: &Supply) -> usize {
        let began_ns = os::now_ns();
        let (mut released, mut now_ns) = (0, began_ns);
        while released < bytes && now_ns - began_ns < ASSIST_SLICE_NS {
            match supply.page_heap.release_unless_busy(Rested::any(self.now())) {
                Some(Ok(some)) => released += some,
                // Depots hold up spans. Once per tick: a program whose live memory is above the limit has nothing there either.
                Some(Err(())) if self.drained_tick.swap(self.now(), Ordering::Relaxed) != self.now() => {
                    let is_over = || os::now_ns() - began_ns >= ASSIST_SLICE_NS;
                    for class in SizeClass::all() {
                        while !is_over() && supply.drain_some_of_depot(class) {}
                    }
                }
                Some(Err(())) => break,
                // Somebody is at it, and waiting for a thread that may have lost its processor is no help: let it count for this one too.
                None => return bytes,
            }
            now_ns = os::now_ns();
        }
        count_round(released, supply);
        if released > 0 {
            supply.page_heap.pauses.remember(PauseKind::Assist, now_ns, now_ns - began_ns, released);
        }
        released
    }

    /// Did so much become free at once that whoever freed it should give it back, because nobody else is there who would?
    ///
    /// A program that takes and frees so much over and over would fault all of it in again each time. So each drop that follows soon upon the one
    /// before doubles the time until the next.
    ///
    /// What lives is what is held and not free; what lies in caches and depots counts as if it did.
    pub(crate) fn must_drop(&self, free: usize, held: usize, now_ns: u64) -> bool {
        let left = self.drop_left.load(Ordering::Relaxed);
        if free < left {
            self.drop_left.store(free, Ordering::Relaxed);
        }
        let (live, before) = (held.saturating_sub(free), self.drop_live.load(Ordering::Relaxed));
        if before > 0 && live > before + DROP_ENDS_BYTES {
            self.drop_live.store(0, Ordering::Relaxed);
        }
        let again = free > 0 && live + RETAIN_ALWAYS_BYTES.max(before / DROP_AGAIN_SHARE) <= before;
        let since_ns = now_ns.saturating_sub(self.drop_ns.load(Ordering::Relaxed));
        let pause_ns = self.drop_pause_ns.load(Ordering::Relaxed);
        if since_ns < pause_ns {
            return false;
        }
        let anew = free >= left.min(free) + DROP_BYTES;
        if anew && !again {
            let is_soon = self.drop_ns.swap(now_ns, Ordering::Relaxed) != 0 && since_ns < pause_ns + DROP_SOON_NS;
            let next_ns = if is_soon { (2 * pause_ns).clamp(DROP_SOON_NS, DROP_PAUSE_MAX_NS) } else { 0 };
            self.drop_pause_ns.store(next_ns, Ordering::Relaxed);
        }
        again || anew
    }

    /// Gives all of it back, except a tenth of what is in use. What cannot be given back is not tried again before more has come on top.
    pub(crate) fn drop_now(&self, supply: &Supply) {
        let page_heap = &supply.page_heap;
        let keep = || RETAIN_ALWAYS_BYTES.max(page_heap.in_use() / 10);
        supply.drain_depots();
        let free = page_heap.free() + supply.free_within_spans();
        while page_heap.free() > keep() && Self::release_some(Rested::any(self.now()), supply).is_ok() {}
        supply.release_all_within_spans(|| supply.free_within_spans() > keep());
        let left = page_heap.free() + supply.free_within_spans();
        count_round(free.saturating_sub(left), supply);
        self.drop_left.store(left, Ordering::Relaxed);
        self.drop_live.store(page_heap.held().saturating_sub(left), Ordering::Relaxed);
    }

    /// Gives back all memory that no program and no living thread's cache has; says how many bytes it was.
    pub(crate) fn release_all(&self, house: House<'_>) -> usize {
        let House { supply, registry, .. } = house;
        let began_ns = os::now_ns();
        for _ in 0..registry.pooled() {
            if !drain_pooled(registry, supply, |_| true) {
                break;
            }
        }
        supply.drain_depots();
        let released = supply.page_heap.release_all(Rested::any(self.now())) + supply.release_all_within_spans_unbooked();
        let now_ns = os::now_ns();
        count_round(released, supply);
        supply.page_heap.pauses.remember(PauseKind::ReleaseAll, now_ns, now_ns - began_ns, released);
        released
    }

    pub(crate) fn before_fork(&self) {
        self.work.before_fork();
    }

    pub(crate) fn after_fork(&self) {
        self.work.after_fork();
    }
}

/// Memory was given back, if it was any.
fn count_round(released: usize, supply: &Supply) {
    if released > 0 {
        supply.counters().count(Event::ReleaseRound);
    }
}

/// Empties the record of an ended thread that `which` chooses, if there is one. It goes below the others in the pool: it is the coldest.
fn drain_pooled(registry: &Registry<Record>, supply: &Supply, which: impl Fn(&Record) -> bool) -> bool {
    if registry.pooled() == 0 {
        return false;
    }
    // The others stay in the pool meanwhile, or a thread that is born would make a new record, for good.
    let Some(record) = registry.take_pooled(|record| !record.is_empty() && which(record)) else { return false };
    debug_assert_eq!(record.life(), Life::Pooled);
    record.drain(supply);
    registry.pool_last(record);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn drops_that_follow_each_other_become_rare() {
        const SECOND_NS: u64 = 1_000_000_000;
        let scavenger = Scavenger::new();
        let drops = |now_ns| scavenger.must_drop(64 * MIB, 128 * MIB, now_ns);
        assert!(drops(100 * SECOND_NS));
        assert!(drops(101 * SECOND_NS), "the second comes soon, but nobody knew");
        let mut last = 101;
        let mut waited = Vec::new();
        for second in 102..400 {
            if drops(second * SECOND_NS) {
                waited.push(second - last);
                last = second;
            }
        }
        assert_eq!(waited, [4, 8, 16, 32, 64, 64, 64]);
        assert!(drops((last + 200) * SECOND_NS));
        assert!(drops((last + 201) * SECOND_NS), "after a long rest all is as at first");
    }

    #[test]
    fn a_drop_goes_on_until_much_more_lives() {
        let scavenger = Scavenger::new();
        let must_drop = |free, live| scavenger.must_drop(free * MIB, (free + live) * MIB, 0);
        assert!(!must_drop(47, 16));
        assert!(must_drop(48, 16));
        // As `drop_now` leaves it: few blocks keep many pages.
        let drops = |left: usize, live: usize| {
            scavenger.drop_left.store(left * MIB, Ordering::Relaxed);
            scavenger.drop_live.store(live * MIB, Ordering::Relaxed);
        };
        drops(30, 16);
        assert!(!must_drop(31, 15));
        assert!(must_drop(32, 14), "an eighth");
        drops(20, 2);
        assert!(!must_drop(21, 2));
        assert!(must_drop(21, 1), "not for less than what is always kept");
        assert!(!must_drop(0, 1), "there is nothing to give");
        drops(20, 16);
        assert!(!must_drop(10, 28), "a little more lives");
        assert!(must_drop(24, 14));
        assert!(!must_drop(10, 29), "much more lives: the drop is over");
        assert!(!must_drop(24, 14));
        assert!(must_drop(58, 14));
    }
}
