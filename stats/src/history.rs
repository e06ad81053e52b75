//! The history: points of the last hours, taken by a thread that sleeps in between, so that nobody has to keep state for rates and verdicts.
//!
//! ```text
//!   one point per second                     … five minutes back          │ one of each thirty …            … six hours back
//!   now ─────────────────────────────────────────────────────────────────┼───────────────────────────────────────────────▶ past
//! ```
//!
//! Of thirty points that grow too old the one stays at which the program held least: a leak shows at the floor, not at the peaks. That is
//! some 1,020 points of 160 bytes, and no more: 160 KiB, taken when the history starts.
//!
//! The thread is called `freestone-stats`. [`start`] starts it, and so do [`rates`], [`init`](crate::init()) and
//! [`verdict::recent`](crate::verdict::recent); a program that asks for none of them has none. It blocks all signals, and takes a snapshot
//! each time it wakes: 60 µs a second, or 0.5 ms where there are 200 threads (measured without much optimisation, on a busy machine): a
//! hundredth and a twentieth of a percent of one processor. Where the system refuses a thread there is no history, and who asks is answered
//! from what there is. In the child of a fork there is no such thread until somebody asks again; what the parent remembered, the child does too.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use freestone::anomaly::{self, Anomaly, Thresholds};
use freestone::profile::without_samples;

use crate::own_thread::without_signals;
use crate::{Point, Rates, leaks, snapshot, tag};

/// So many points are kept as they were taken: five minutes, at one per second.
const FINE: usize = 300;
/// Of so many older ones, one is kept.
const GROUP: usize = 30;
/// So many of these are kept: six hours.
const COARSE: usize = 720;

/// What [`fields`] lists, as bits. Not behind a lock: in the child of a fork nobody may be there to give it back.
static THRESHOLDS: [AtomicU64; FIELDS] = {
    let mut all = [const { AtomicU64::new(0) }; FIELDS];
    let mut default = Thresholds::DEFAULT;
    let values = fields(&mut default);
    let mut place = 0;
    while place < FIELDS {
        all[place] = AtomicU64::new(values[place].to_bits());
        place += 1;
    }
    all
};
/// How many numbers there are in [`Thresholds`].
const FIELDS: usize = size_of::<Thresholds>() / size_of::<f64>();

/// All of them.
const fn fields(thresholds: &mut Thresholds) -> [&mut f64; FIELDS] {
    [
        &mut thresholds.purges_per_second,
        &mut thresholds.purged_bytes_per_second,
        &mut thresholds.release_pause_ms,
        &mut thresholds.storm_per_live_block,
        &mut thresholds.storm_allocations_per_second,
        &mut thresholds.refault_bytes_per_second,
        &mut thresholds.hoarding_bytes,
        &mut thresholds.hoarding_percent_of_live,
        &mut thresholds.limit_exceeded,
        &mut thresholds.huge_page_stalls,
    ]
}

/// How long the thread sleeps.
static INTERVAL_NS: AtomicU64 = AtomicU64::new(1_000_000_000);
/// The thread's stack. A snapshot is 14 KiB, and copied a few times where nothing is optimised; what is not touched costs nothing.
const STACK_BYTES: usize = 512 << 10;
/// So many anomalies are kept.
const NOTICED: usize = 64;
/// Rates of shorter stretches are noise.
const NOTICED_AFTER_NS: u64 = 900_000_000;
/// What [`set_interval`] takes.
const INTERVALS: [Duration; 2] = [Duration::from_millis(10), Duration::from_hours(1)];

/// What happened in the last second, ten seconds, and minute, each as far as the process and its history go back: [`Rates::interval`] says how
/// long it truly is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Windows {
    /// The last second.
    pub last_1s: Rates,
    /// The last ten seconds.
    pub last_10s: Rates,
    /// The last minute.
    pub last_60s: Rates,
}

impl fmt::Display for Windows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.last_1s)?;
        writeln!(f, "{}", self.last_10s)?;
        writeln!(f, "{}", self.last_60s)
    }
}

/// What happened lately, up to now. The first call starts the [`history`](self); the windows reach back to the start of the process until there
/// is enough of it.
///
/// ```
/// let windows = freestone_stats::rates();
/// println!("{:.0} allocations per second", windows.last_10s.allocations_per_second());
/// ```
#[must_use]
pub fn rates() -> Windows {
    start();
    let snapshot = snapshot();
    let now = Point::of(&snapshot);
    // At the heap's first operation all counters were zero.
    let origin = Point { at_ns: now.at_ns.saturating_sub(snapshot.heap.age_ns), ..Point::default() };
    let ring = current().ring();
    let last = |seconds: u64| now.since(&ring.before(&now, seconds * 1_000_000_000, &origin));
    Windows { last_1s: last(1), last_10s: last(10), last_60s: last(60) }
}

/// Starts to remember, unless that has begun already.
pub fn start() {
    current().start();
}

/// All points there are, the oldest first. None before somebody asked for the history to start.
#[must_use]
pub fn points() -> Vec<Point> {
    let history = current();
    // Room first: nobody allocates while others wait. A point that comes in between may push the oldest out.
    let count = history.ring().len();
    let mut points = Vec::with_capacity(count + 1);
    points.extend(history.ring().iter().take(points.capacity()));
    points
}

/// What was wrong at some moment.
#[derive(Clone, Copy, PartialEq, Debug)]
#[non_exhaustive]
pub struct Noticed {
    /// When, as in [`Point::at_ns`].
    pub at_ns: u64,
    /// What.
    pub anomaly: Anomaly,
}

/// The latest anomalies, the oldest first, at most 64: the thread holds every second (or every interval, if that is longer) against the
/// [rules](freestone::anomaly). None before somebody asked for the history to start.
#[must_use]
pub fn anomalies() -> Vec<Noticed> {
    let mut latest = Vec::with_capacity(NOTICED);
    latest.extend(current().noticed().latest.iter().take(NOTICED));
    latest
}

/// Changes what counts as an anomaly, for the history and for all that is made from it: [`anomalies`], [`diagnose`](crate::diagnose),
/// [`verdict::recent`](crate::verdict::recent), the flight recorder, metrics and the page. The trace goes by the default.
pub fn set_thresholds(mut thresholds: Thresholds) {
    for (place, value) in THRESHOLDS.iter().zip(fields(&mut thresholds)) {
        // Relaxed: each rule goes by its own number, and who looks meanwhile goes by some old and some new ones.
        place.store(value.to_bits(), Ordering::Relaxed);
    }
}

/// What counts as an anomaly.
#[must_use]
pub fn thresholds() -> Thresholds {
    let mut thresholds = Thresholds::DEFAULT;
    for (place, value) in THRESHOLDS.iter().zip(fields(&mut thresholds)) {
        // Relaxed: as above.
        *value = f64::from_bits(place.load(Ordering::Relaxed));
    }
    thresholds
}

/// How often each [`Kind`](anomaly::Kind) of anomaly was noticed since the history started, in the order of
/// [`Kind::ALL`](anomaly::Kind::ALL). Only grows.
#[must_use]
pub fn anomaly_counts() -> [u64; anomaly::Kind::COUNT] {
    current().noticed().counts
}

/// Changes how often a point is taken: every second, unless told otherwise. What is shorter than 10 ms counts as that, what is longer than an
/// hour as an hour. For tests, and for programs that live for seconds.
pub fn set_interval(interval: Duration) {
    let [least, most] = INTERVALS;
    // Relaxed: a number; whoever sleeps is woken, and reads it then or a little later.
    INTERVAL_NS.store(interval.clamp(least, most).as_nanos() as u64, Ordering::Relaxed);
    if let Some(sampler) = current().sampler.get() {
        sampler.unpark();
    }
}

/// How often a point is taken.
#[must_use]
pub fn interval() -> Duration {
    // Relaxed: a number.
    Duration::from_nanos(INTERVAL_NS.load(Ordering::Relaxed))
}

/// Anomalies, bounded.
struct Latest {
    latest: VecDeque<Noticed>,
    counts: [u64; anomaly::Kind::COUNT],
}

impl Latest {
    fn new() -> Self {
        Self { latest: VecDeque::with_capacity(NOTICED), counts: [0; anomaly::Kind::COUNT] }
    }

    /// Allocates nothing.
    fn push(&mut self, at_ns: u64, anomaly: Anomaly) {
        if self.latest.len() == NOTICED {
            self.latest.pop_front();
        }
        self.latest.push_back(Noticed { at_ns, anomaly });
        if let Some(place) = anomaly::Kind::ALL.iter().position(|&kind| kind == anomaly.kind) {
            self.counts[place] += 1;
        }
    }
}

/// Points, bounded.
struct Ring {
    fine: VecDeque<Point>,
    /// Of the points that left `fine` and make no whole group yet, the one at which least lived.
    lowest: Option<Point>,
    /// How many these are.
    grouped: usize,
    coarse: VecDeque<Point>,
}

impl Ring {
    fn new() -> Self {
        Self { fine: VecDeque::with_capacity(FINE), lowest: None, grouped: 0, coarse: VecDeque::with_capacity(COARSE) }
    }

    fn len(&self) -> usize {
        self.coarse.len() + usize::from(self.lowest.is_some()) + self.fine.len()
    }

    /// The oldest first.
    fn iter(&self) -> impl DoubleEndedIterator<Item = Point> {
        self.coarse.iter().chain(&self.lowest).chain(&self.fine).copied()
    }

    /// Allocates nothing.
    fn push(&mut self, point: Point) {
        if self.fine.len() == FINE
            && let Some(old) = self.fine.pop_front()
        {
            self.lowest = Some(self.lowest.map_or(old, |lowest| if old.live < lowest.live { old } else { lowest }));
            self.grouped += 1;
        }
        if self.grouped == GROUP {
            if self.coarse.len() == COARSE {
                self.coarse.pop_front();
            }
            self.coarse.extend(self.lowest.take());
            self.grouped = 0;
        }
        self.fine.push_back(point);
    }

    /// Where a window of `length_ns` that ends `now` begins: the youngest point that old. While all are younger, the oldest if it is half as
    /// old at least; else the start of the process.
    fn before(&self, now: &Point, length_ns: u64, origin: &Point) -> Point {
        let is_as_old = |point: &Point, age_ns| point.at_ns.saturating_add(age_ns) <= now.at_ns;
        if let Some(point) = self.iter().rev().find(|point| is_as_old(point, length_ns)) {
            return point;
        }
        self.iter().next().filter(|point| is_as_old(point, length_ns / 2)).unwrap_or(*origin)
    }
}

/// The history of a process. A child of a fork makes one of its own: the one of its parent may be locked by a thread that is not there.
struct History {
    pid: u32,
    ring: Mutex<Ring>,
    noticed: Mutex<Latest>,
    /// Is there a thread, or about to be?
    is_running: AtomicBool,
    sampler: OnceLock<Thread>,
}

/// Never freed once it is here: at most one for each generation of forks.
static CURRENT: AtomicPtr<History> = AtomicPtr::new(std::ptr::null_mut());

/// The history of this process.
fn current() -> &'static History {
    let pid = std::process::id();
    // Acquire: pairs with the Release below; what it points to is whole.
    let found = CURRENT.load(Ordering::Acquire);
    // SAFETY: null, or leaked by the lines below, here or in a parent.
    let old: Option<&'static History> = unsafe { found.as_ref() };
    if let Some(history) = old
        && history.pid == pid
    {
        return history;
    }
    // What is ours is not in profiles of the program.
    let new = without_samples(|| Box::into_raw(Box::new(History::new(pid, old))));
    // Release: pairs with the Acquire above and below.
    match CURRENT.compare_exchange(found, new, Ordering::Release, Ordering::Acquire) {
        // SAFETY: from `into_raw`, and from here on nobody frees it.
        Ok(_) => unsafe { &*new },
        Err(winner) => {
            // SAFETY: from `into_raw`, and nobody has seen it.
            drop(unsafe { Box::from_raw(new) });
            // SAFETY: not null, as it is not what was found if that was null, and it never becomes null again; leaked like all here.
            unsafe { &*winner }
        }
    }
}

impl History {
    fn new(pid: u32, parent: Option<&Self>) -> Self {
        let mut ring = Ring::new();
        // Whoever held it at the fork will not let go. Counters go on in the child where they were in its parent.
        let old = parent.and_then(|parent| match parent.ring.try_lock() {
            Ok(old) => Some(old),
            Err(TryLockError::Poisoned(old)) => Some(old.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        });
        old.iter().flat_map(|old| old.iter()).for_each(|point| ring.push(point));
        Self {
            pid,
            ring: Mutex::new(ring),
            noticed: Mutex::new(Latest::new()),
            is_running: AtomicBool::new(false),
            sampler: OnceLock::new(),
        }
    }

    /// Nothing panics with the lock held that leaves the ring in parts.
    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As above.
    fn noticed(&self) -> MutexGuard<'_, Latest> {
        self.noticed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(&'static self) {
        // Relaxed: one thread sees `false`, and nothing else depends on it.
        if self.is_running.load(Ordering::Relaxed) || self.is_running.swap(true, Ordering::Relaxed) {
            return;
        }
        let body = move || self.sample_for_ever();
        let sampler = thread::Builder::new().name("freestone-stats".to_owned()).stack_size(STACK_BYTES);
        match without_signals(|| sampler.spawn(body)) {
            Ok(handle) => drop(self.sampler.set(handle.thread().clone())),
            // The next who asks tries again.
            Err(_) => self.is_running.store(false, Ordering::Relaxed),
        }
    }

    fn sample_for_ever(&self) -> ! {
        let mut last = Instant::now();
        let mut before = Box::new(snapshot().heap);
        loop {
            let now = snapshot();
            let point = Point::of(&now);
            self.ring().push(point);
            leaks::remember();
            tag::check_budgets();
            if now.heap.at_ns.saturating_sub(before.at_ns) >= NOTICED_AFTER_NS {
                now.each_anomaly_since(&before, |found| self.noticed().push(point.at_ns, found));
                *before = now.heap;
            }
            // It may have been woken for nothing, or because the interval has changed.
            loop {
                let waits = interval().saturating_sub(last.elapsed());
                if waits.is_zero() {
                    break;
                }
                thread::park_timeout(waits);
            }
            last = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(second: u64, live: u64) -> Point {
        Point { at_ns: second * 1_000_000_000, live, allocations: second * 10, ..Point::default() }
    }

    #[test]
    fn the_ring_is_bounded_and_in_order() {
        let mut ring = Ring::new();
        let capacities = (ring.fine.capacity(), ring.coarse.capacity());
        let all = FINE + GROUP * (COARSE + 3) + 7;
        for second in 0..all as u64 {
            ring.push(point(second, 1000 + second * 7 % 13));
            assert!(ring.len() <= FINE + COARSE + 1);
        }
        assert_eq!((ring.fine.capacity(), ring.coarse.capacity()), capacities, "it allocates nothing");
        let points: Vec<Point> = ring.iter().collect();
        assert_eq!(points.len(), FINE + COARSE + 1);
        assert!(points.is_sorted_by(|a, b| a.at_ns < b.at_ns));
        assert_eq!(points.last().map(|last| last.at_ns), Some((all as u64 - 1) * 1_000_000_000));
        assert!(points[..COARSE].iter().all(|point| point.live == 1000), "of a group the lowest stays");
    }

    #[test]
    fn a_window_reaches_as_far_as_it_can() {
        let mut ring = Ring::new();
        let origin = point(0, 0);
        let now = point(100, 5);
        let begins = |ring: &Ring, seconds: u64| ring.before(&now, seconds * 1_000_000_000, &origin).at_ns / 1_000_000_000;
        assert_eq!([1, 10, 60].map(|seconds| begins(&ring, seconds)), [0, 0, 0], "no history: the start of the process");
        ring.push(point(99, 5));
        assert_eq!([1, 10, 60].map(|seconds| begins(&ring, seconds)), [99, 0, 0]);
        let mut ring = Ring::new();
        (94..100).for_each(|second| ring.push(point(second, 5)));
        assert_eq!([1, 10, 60].map(|seconds| begins(&ring, seconds)), [99, 94, 0], "half of it is better than the start");
        let mut ring = Ring::new();
        (20..100).for_each(|second| ring.push(point(second, 5)));
        assert_eq!([1, 10, 60].map(|seconds| begins(&ring, seconds)), [99, 90, 40]);
        assert_eq!(now.since(&ring.before(&now, 10_000_000_000, &origin)).allocations, 100);
    }

    #[test]
    fn intervals_are_kept_within_reason() {
        set_interval(Duration::ZERO);
        assert_eq!(interval(), Duration::from_millis(10));
        set_interval(Duration::MAX);
        assert_eq!(interval(), Duration::from_hours(1));
        set_interval(Duration::from_secs(1));
        assert_eq!(interval(), Duration::from_secs(1));
    }
}
