//! Floor 2. Limits on memory: what is to be done how near to which. Pure decisions, and the marks that growing memory is held against.
//!
//! ```text
//!   held    ────────────────┬──────────┬───────────▶ soft limit:  near: release all that is free, at once
//!                        near 95 %   limit                        over: whoever takes memory first gives as much back
//!   ───────────────────────────────┬───────┬───────▶ hard limit:  fuse: say so, call back, and end if asked to
//!                              fuse 95 %  limit                   over: nothing more
//! ```
//!
//! A thread that is made to give memory back spends at most half of its time on it ([`Patience`]); beyond that the heap grows over the soft
//! limit, and counts it. (As Go's limiter for its collector does, `mgclimit.go` there: a program whose live memory is above the limit
//! should become slow, not stand still.)

use crate::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use crate::config::{ASSIST_BURST_NS, FUSE_TRIPS, FUSE_WINDOW_NS, RETAIN_ALWAYS_BYTES};

/// So many percent of a limit are near.
const NEAR_PERCENT: usize = 95;
/// Below so many percent of the hard limit the fuse can trip again.
const REARM_PERCENT: usize = 90;

/// A share of so many bytes.
pub(crate) const fn percent_of(bytes: usize, percent: usize) -> usize {
    bytes / 100 * percent + bytes % 100 * percent / 100
}

/// What somebody has to do because memory was taken or given back. Bits of one number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum Call {
    /// The soft limit is near: give all back that is free.
    Urge = 1,
    /// It is passed: whoever reads this first gives back what was taken.
    Assist = 2,
    /// The fuse trips.
    Fuse = 4,
    /// Somebody waits for this much memory to be held.
    Watch = 8,
    /// Much is free, and nobody who would give it back is awake.
    Wake = 16,
}

/// A mark. Kept as its complement: a heap begins as zeros, and nowhere is where marks begin.
#[derive(Debug)]
struct Mark(AtomicUsize);

// Relaxed in all that follows: numbers that may be a moment old. A mark that was moved takes effect at the next growth.
impl Mark {
    const NOWHERE: usize = usize::MAX;

    const fn new() -> Self {
        Self(AtomicUsize::new(0))
    }

    fn set(&self, bytes: usize) {
        self.0.store(!bytes, Ordering::Relaxed);
    }

    #[inline]
    fn get(&self) -> usize {
        !self.0.load(Ordering::Relaxed)
    }

    /// As [`get`](Self::get), after what this thread did before.
    #[inline]
    fn get_after(&self) -> usize {
        // SeqCst: whoever moves the mark and then looks whether it is reached, and whoever reaches it and then looks at the mark, do not both
        // miss each other. Pairs with the fence in `heap::background_thread`; on the other side `PageHeap::lose` comes before.
        !self.0.load(Ordering::SeqCst)
    }
}

/// Where memory that is held is to be noticed. Read at every growth and at the end of every slow path, changed rarely, from any thread: on cache
/// lines of its own.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Marks {
    /// The least of the others: below it growing costs one comparison.
    least: Mark,
    near: Mark,
    soft: Mark,
    fuse: Mark,
    hard: Mark,
    watch: Mark,
    /// Free memory above this has somebody called.
    free: Mark,
    /// Bits of [`Call`].
    calls: AtomicU32,
    /// Bytes taken above the soft limit that nobody gave back yet.
    debt: AtomicUsize,
}

impl Marks {
    pub(crate) const fn new() -> Self {
        Self {
            least: Mark::new(),
            near: Mark::new(),
            soft: Mark::new(),
            fuse: Mark::new(),
            hard: Mark::new(),
            watch: Mark::new(),
            free: Mark::new(),
            calls: AtomicU32::new(0),
            debt: AtomicUsize::new(0),
        }
    }

    /// Moves the marks of the soft limit.
    pub(crate) fn set_soft(&self, bytes: usize) {
        self.soft.set(bytes);
        self.near.set(if bytes == Mark::NOWHERE { bytes } else { percent_of(bytes, NEAR_PERCENT) });
        self.set_least();
    }

    /// Moves the mark of the hard limit.
    pub(crate) fn set_hard(&self, bytes: usize) {
        self.hard.set(bytes);
        self.set_least();
    }

    /// Moves the fuse; `usize::MAX`: it is tripped, or there is none.
    pub(crate) fn set_fuse(&self, bytes: usize) {
        self.fuse.set(bytes);
        self.set_least();
    }

    /// Has somebody called when so much is held.
    pub(crate) fn set_watch(&self, bytes: usize) {
        self.watch.set(bytes);
        self.set_least();
    }

    /// Has somebody called when so much is free.
    pub(crate) fn set_free(&self, bytes: usize) {
        self.free.set(bytes);
    }

    fn set_least(&self) {
        let marks = [&self.near, &self.soft, &self.fuse, &self.watch];
        self.least.set(marks.into_iter().map(Mark::get).min().unwrap_or(Mark::NOWHERE));
    }

    /// What may be held before the soft limit is passed.
    pub(crate) fn soft(&self) -> usize {
        self.soft.get()
    }

    #[inline]
    pub(crate) fn hard(&self) -> usize {
        self.hard.get()
    }

    /// Is so much near the soft limit, or above it?
    pub(crate) fn is_near(&self, held: usize) -> bool {
        held >= self.near.get()
    }

    /// `more` bytes were taken, which makes it `held`.
    #[inline]
    pub(crate) fn took(&self, more: usize, held: usize) {
        if held >= self.least.get() {
            self.took_much(more, held);
        }
    }

    #[cold]
    fn took_much(&self, more: usize, held: usize) {
        let mut calls = 0;
        for (mark, call) in [(&self.near, Call::Urge), (&self.fuse, Call::Fuse), (&self.watch, Call::Watch)] {
            if held >= mark.get() {
                calls |= call as u32;
            }
        }
        if held >= self.soft.get() {
            self.debt.fetch_add(more, Ordering::Relaxed);
            calls |= Call::Assist as u32;
        }
        self.calls.fetch_or(calls, Ordering::Relaxed);
    }

    /// Something became free, so that it is `free` in all.
    #[inline]
    pub(crate) fn freed(&self, free: usize) {
        if free >= self.free.get_after() {
            self.call(Call::Wake);
        }
    }

    /// Blocks came back to central, which may leave pages without any.
    #[inline]
    pub(crate) fn flushed(&self) {
        if self.free.get() <= RETAIN_ALWAYS_BYTES {
            self.call(Call::Wake);
        }
    }

    /// Calls somebody.
    pub(crate) fn call(&self, call: Call) {
        self.calls.fetch_or(call as u32, Ordering::Relaxed);
    }

    /// Is somebody called for?
    #[inline]
    pub(crate) fn has_calls(&self) -> bool {
        self.calls.load(Ordering::Relaxed) != 0
    }

    /// Takes a call on. `false`: there is none, or somebody else has.
    pub(crate) fn answer(&self, call: Call) -> bool {
        let bit = call as u32;
        self.calls.load(Ordering::Relaxed) & bit != 0 && self.calls.fetch_and(!bit, Ordering::Relaxed) & bit != 0
    }

    /// Takes the debt on.
    pub(crate) fn take_debt(&self) -> usize {
        self.debt.swap(0, Ordering::Relaxed)
    }
}

/// How much more of its time a thread spends on giving memory back that it takes: at most half, over all.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Patience {
    /// What it has spent beyond half.
    pub(crate) level_ns: u64,
    pub(crate) last_ns: u64,
}

impl Patience {
    /// May the thread be made to give memory back now?
    pub(crate) fn allows(&mut self, now_ns: u64) -> bool {
        let passed = now_ns.saturating_sub(self.last_ns);
        self.last_ns = self.last_ns.max(now_ns);
        self.level_ns = self.level_ns.saturating_sub(passed);
        self.level_ns < ASSIST_BURST_NS
    }

    /// It did, until `now_ns` and for so long.
    pub(crate) fn spent(&mut self, took_ns: u64, now_ns: u64) {
        self.level_ns = self.level_ns.saturating_add(took_ns);
        self.last_ns = self.last_ns.max(now_ns);
    }
}

/// The fuse of the hard limit: trips once per approach, and remembers when that happens often.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct FuseBox {
    /// The times of the last trips, newest first; 0: none.
    times_ns: [u64; FUSE_TRIPS],
    pub(crate) trips: u64,
    /// It tripped several times within a window. Stays.
    pub(crate) sticky: bool,
    tripped: bool,
}

impl FuseBox {
    pub(crate) const fn new() -> Self {
        Self { times_ns: [0; FUSE_TRIPS], trips: 0, sticky: false, tripped: false }
    }

    /// Where the mark belongs, under this hard limit.
    pub(crate) fn mark(&self, hard: usize) -> usize {
        if hard == usize::MAX || self.tripped { usize::MAX } else { percent_of(hard, NEAR_PERCENT) }
    }

    /// So much is held: does the fuse trip?
    pub(crate) fn trips(&mut self, now_ns: u64, held: usize, hard: usize) -> bool {
        if held < self.mark(hard) {
            return false;
        }
        self.tripped = true;
        self.trips += 1;
        self.times_ns.rotate_right(1);
        self.times_ns[0] = now_ns.max(1);
        let first = self.times_ns[FUSE_TRIPS - 1];
        self.sticky |= first != 0 && now_ns.saturating_sub(first) <= FUSE_WINDOW_NS;
        true
    }

    pub(crate) fn is_tripped(&self) -> bool {
        self.tripped
    }

    /// So little is held that it may trip again.
    pub(crate) fn rearm(&mut self, held: usize, hard: usize) -> bool {
        let rearmed = self.tripped && (hard == usize::MAX || held < percent_of(hard, REARM_PERCENT));
        self.tripped &= !rearmed;
        rearmed
    }
}

/// How much more, or less, the process has resident than the heap holds: what limits on the process are corrected by.
#[derive(Debug)]
pub(crate) struct Others(AtomicU64);

impl Others {
    pub(crate) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// The kernel says that so much is resident, while the heap holds `held`.
    pub(crate) fn measure(&self, resident: usize, held: usize) {
        // Relaxed, here and below: a number that may be a second old.
        self.0.store((resident as u64).wrapping_sub(held as u64), Ordering::Relaxed);
    }

    /// What the heap may hold for the process to stay within `limit`.
    pub(crate) fn allow(&self, limit: usize) -> usize {
        if limit == usize::MAX {
            return limit;
        }
        let others = self.0.load(Ordering::Relaxed) as i64;
        let allowed = (limit as i128 - i128::from(others)).clamp(1, usize::MAX as i128 - 1);
        allowed as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;
    const SECOND_NS: u64 = 1_000_000_000;

    #[test]
    fn shares_do_not_overflow() {
        assert_eq!(percent_of(usize::MAX, 100), usize::MAX);
        assert_eq!(percent_of(1, 95), 0);
        assert_eq!(percent_of(199, 95), 189);
    }

    #[test]
    fn without_limits_nobody_is_called() {
        let marks = Marks::new();
        marks.took(usize::MAX, usize::MAX - 1);
        marks.freed(usize::MAX - 1);
        assert!(!marks.has_calls());
    }

    #[test]
    fn every_mark_calls_for_its_own() {
        let marks = Marks::new();
        marks.set_soft(100 * MIB);
        marks.took(5, 94 * MIB);
        assert!(!marks.has_calls());
        marks.took(5, 95 * MIB);
        assert!(marks.answer(Call::Urge));
        assert!(!marks.answer(Call::Urge), "once");
        assert!(!marks.answer(Call::Assist));
        marks.took(5, 100 * MIB);
        marks.took(6, 101 * MIB);
        assert!(marks.answer(Call::Assist));
        assert_eq!((marks.take_debt(), marks.take_debt()), (11, 0));
        assert!(marks.answer(Call::Urge));
        marks.set_soft(usize::MAX);
        marks.took(5, 1000 * MIB);
        assert!(!marks.has_calls(), "a limit can be removed");
        marks.set_watch(10);
        marks.took(5, 10);
        assert!(marks.answer(Call::Watch));
        marks.set_free(7);
        marks.freed(6);
        assert!(!marks.answer(Call::Wake));
        marks.freed(7);
        assert!(marks.answer(Call::Wake));
    }

    #[test]
    fn giving_back_takes_half_of_the_time_at_most() {
        let mut patience = Patience::default();
        let (mut now, mut assisted) = (SECOND_NS, 0);
        let end = now + 10 * SECOND_NS;
        while now < end {
            if patience.allows(now) {
                now += 500_000;
                assisted += 500_000;
                patience.spent(500_000, now);
            } else {
                now += 10_000;
            }
        }
        assert!(assisted <= 5 * SECOND_NS + 2 * ASSIST_BURST_NS, "{assisted}");
        assert!(assisted >= 4 * SECOND_NS, "{assisted}");
    }

    #[test]
    fn who_gives_back_seldom_is_never_refused() {
        let mut patience = Patience::default();
        let mut now = SECOND_NS;
        for _ in 0..1000 {
            assert!(patience.allows(now));
            now += 100_000;
            patience.spent(100_000, now);
            now += 150_000;
        }
        patience.spent(u64::MAX, 0);
        assert!(!patience.allows(now), "nor does the sum overflow");
    }

    #[test]
    fn the_fuse_trips_once_per_approach() {
        let mut fuse = FuseBox::new();
        let hard = 100 * MIB;
        assert!(!fuse.trips(1, 94 * MIB, hard));
        assert!(fuse.trips(1, 95 * MIB, hard));
        assert!(!fuse.trips(2, 99 * MIB, hard));
        assert_eq!(fuse.mark(hard), usize::MAX);
        assert!(!fuse.rearm(90 * MIB, hard));
        assert!(fuse.rearm(90 * MIB - 1, hard));
        assert!(!fuse.rearm(0, hard));
        assert_eq!(fuse.mark(hard), 95 * MIB);
        assert!(!fuse.trips(3, usize::MAX - 1, usize::MAX), "no limit, no fuse");
        assert_eq!((fuse.trips, fuse.sticky), (1, false));
    }

    #[test]
    fn three_trips_within_a_window_stick() {
        for (gap, sticks) in [(FUSE_WINDOW_NS / 2, true), (FUSE_WINDOW_NS / 2 + 1, false)] {
            let mut fuse = FuseBox::new();
            for trip in 0..3 {
                assert!(!fuse.sticky);
                assert!(fuse.trips(1 + trip * gap, 100, 100));
                fuse.rearm(0, 100);
            }
            assert_eq!((fuse.sticky, fuse.trips), (sticks, 3));
            fuse.trips(1 << 62, 100, 100);
            assert_eq!(fuse.sticky, sticks, "it stays, and old trips do not count");
        }
    }

    #[test]
    fn limits_on_the_process_are_corrected_by_what_else_it_has() {
        let others = Others::new();
        assert_eq!((others.allow(100 * MIB), others.allow(usize::MAX)), (100 * MIB, usize::MAX));
        others.measure(50 * MIB, 40 * MIB);
        assert_eq!(others.allow(100 * MIB), 90 * MIB);
        assert_eq!(others.allow(5 * MIB), 1, "nothing is left, but a limit there is");
        others.measure(10 * MIB, 40 * MIB);
        assert_eq!(others.allow(100 * MIB), 130 * MIB, "what was never touched does not count");
        assert_eq!(others.allow(usize::MAX - 1), usize::MAX - 1);
    }
}
