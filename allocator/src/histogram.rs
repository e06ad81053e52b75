//! Floor 1. How often something took how long, in buckets that double: written by slow paths, read by anybody.
//!
//! Every slow path is counted here, however short; those that took long are in [`pauses`](crate::pauses) as well, one by one.

use crate::atomic::{AtomicU32, AtomicU64, Ordering};

/// What is timed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
#[repr(u8)]
pub enum SlowPath {
    /// A thread gets blocks from central: as often as [`Events::refills`](crate::Events::refills), but for blocks above 32 KiB.
    Refill = 0,
    /// One call that asks the system for address space, or moves it: as often as [`Events::maps`](crate::Events::maps) and
    /// [`Events::moves`](crate::Events::moves).
    Map = 1,
    /// One call that gives memory or address space back: as often as [`Events::purges`](crate::Events::purges) and
    /// [`Events::unmaps`](crate::Events::unmaps).
    Release = 2,
    /// A thread waits for a lock that somebody else holds.
    LockWait = 3,
}

impl SlowPath {
    /// How many there are.
    pub const COUNT: usize = Self::LockWait as usize + 1;
    /// All of them.
    pub const ALL: [Self; Self::COUNT] = [Self::Refill, Self::Map, Self::Release, Self::LockWait];
}

/// How many buckets a [`SlowPathSnapshot`] has.
pub const TIME_BUCKETS: usize = 26;

/// What the first bucket holds at most, in nanoseconds; each holds twice as much as the one before.
const FIRST_BUCKET_NS: u64 = 64;

/// How often a slow path took how long, since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct SlowPathSnapshot {
    /// How often in all: the sum of the buckets.
    pub count: u64,
    /// How long in all, in nanoseconds.
    pub total_ns: u64,
    /// How often for longer than the bucket before holds, and no longer than this one: see [`bucket_end_ns`](Self::bucket_end_ns).
    pub buckets: [u64; TIME_BUCKETS],
}

impl SlowPathSnapshot {
    /// The longest time that a bucket holds, in nanoseconds: 64 for the first, twice as much for each that follows, and no bound (`None`) for the
    /// last.
    #[must_use]
    pub const fn bucket_end_ns(bucket: usize) -> Option<u64> {
        if bucket + 1 < TIME_BUCKETS { Some(FIRST_BUCKET_NS << bucket) } else { None }
    }

    /// So many percent took no longer than this, in nanoseconds; at most twice too high. Zero if there were none.
    #[must_use]
    pub fn percentile_ns(&self, percent: u64) -> u64 {
        let wanted = (u128::from(self.count) * u128::from(percent)).div_ceil(100).max(1);
        let mut seen = 0;
        let bucket = self.buckets.iter().position(|&count| {
            seen += u128::from(count);
            seen >= wanted
        });
        bucket.map_or(0, |bucket| FIRST_BUCKET_NS << bucket)
    }
}

const fn bucket_of(ns: u64) -> usize {
    let bucket = match (ns.saturating_sub(1) / FIRST_BUCKET_NS).checked_ilog2() {
        None => 0,
        Some(doublings) => doublings as usize + 1,
    };
    if bucket < TIME_BUCKETS { bucket } else { TIME_BUCKETS - 1 }
}

/// The buckets of one slow path.
#[derive(Debug)]
pub(crate) struct Histogram {
    buckets: [AtomicU64; TIME_BUCKETS],
    total_ns: AtomicU64,
}

// Relaxed in the whole file: counts, each of its own moment.
impl Histogram {
    pub(crate) const fn new() -> Self {
        Self { buckets: [const { AtomicU64::new(0) }; TIME_BUCKETS], total_ns: AtomicU64::new(0) }
    }

    /// One more, from whichever thread.
    pub(crate) fn note(&self, ns: u64) {
        self.buckets[bucket_of(ns)].fetch_add(1, Ordering::Relaxed);
        self.total_ns.fetch_add(ns, Ordering::Relaxed);
    }

    /// One more, from the only thread that ever writes here: no locked instruction.
    #[inline]
    pub(crate) fn note_alone(&self, ns: u64) {
        let bucket = &self.buckets[bucket_of(ns)];
        bucket.store(bucket.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        self.total_ns.store(self.total_ns.load(Ordering::Relaxed) + ns, Ordering::Relaxed);
    }

    /// Adds what is here to `sum`.
    pub(crate) fn add_to(&self, sum: &mut SlowPathSnapshot) {
        for (sum_bucket, bucket) in sum.buckets.iter_mut().zip(&self.buckets) {
            let count = bucket.load(Ordering::Relaxed);
            *sum_bucket += count;
            sum.count += count;
        }
        sum.total_ns += self.total_ns.load(Ordering::Relaxed);
    }
}

/// Turns counts of the processor's counter into nanoseconds.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Where the two clocks stood at the start.
    began_ns: AtomicU64,
    began_cycles: AtomicU64,
    /// Nanoseconds per 2²⁰ counts; 0: not known yet.
    ns_per_mega: AtomicU32,
}

/// Until it is known better: three counts a nanosecond.
const LIKELY_NS_PER_MEGA: u64 = (1 << 20) / 3;
/// Over so long a stretch the two clocks are compared well enough.
const STRETCH_MIN_NS: u64 = 10_000_000;

impl Pace {
    pub(crate) const fn new() -> Self {
        Self { began_ns: AtomicU64::new(0), began_cycles: AtomicU64::new(0), ns_per_mega: AtomicU32::new(0) }
    }

    /// The stretch begins here.
    pub(crate) fn begin(&self, now_ns: u64, now_cycles: u64) {
        self.began_ns.store(now_ns, Ordering::Relaxed);
        self.began_cycles.store(now_cycles, Ordering::Relaxed);
    }

    /// Compares the clocks, the first time that enough has passed.
    pub(crate) fn compare(&self, now_ns: u64, now_cycles: u64) {
        if self.ns_per_mega.load(Ordering::Relaxed) != 0 {
            return;
        }
        let passed_ns = now_ns.saturating_sub(self.began_ns.load(Ordering::Relaxed));
        let cycles = now_cycles.wrapping_sub(self.began_cycles.load(Ordering::Relaxed));
        if passed_ns >= STRETCH_MIN_NS && cycles > 0 {
            let pace = (u128::from(passed_ns) << 20) / u128::from(cycles);
            self.ns_per_mega.store(u32::try_from(pace).unwrap_or(u32::MAX), Ordering::Relaxed);
        }
    }

    /// So many counts, in nanoseconds.
    #[inline]
    pub(crate) fn ns(&self, cycles: u64) -> u64 {
        // A counter that went back: the thread came to a processor whose counter is behind.
        if cycles > u64::MAX >> 24 {
            return 0;
        }
        let pace = match self.ns_per_mega.load(Ordering::Relaxed) {
            0 => LIKELY_NS_PER_MEGA,
            known => u64::from(known),
        };
        // Of a slow counter the product may be longer than either.
        ((u128::from(cycles) * u128::from(pace)) >> 20) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_has_the_first_bucket_that_holds_it() {
        for ns in (0..64_u32).flat_map(|shift| [0, 1, 2].map(|more| (1_u64 << shift) - 1 + more)) {
            let bucket = bucket_of(ns);
            assert!(SlowPathSnapshot::bucket_end_ns(bucket).is_none_or(|end| ns <= end), "{ns}");
            assert!(bucket == 0 || SlowPathSnapshot::bucket_end_ns(bucket - 1).is_some_and(|end| ns > end), "{ns}");
        }
        assert_eq!(SlowPathSnapshot::bucket_end_ns(0), Some(64));
        assert_eq!(SlowPathSnapshot::bucket_end_ns(TIME_BUCKETS - 1), None);
    }

    #[test]
    fn sums_are_what_was_noted() {
        let (shared, alone) = (Histogram::new(), Histogram::new());
        let mut sum = SlowPathSnapshot::default();
        assert_eq!(sum.percentile_ns(50), 0);
        for ns in 1..=1000 {
            shared.note(ns);
            alone.note_alone(100 * ns);
        }
        shared.add_to(&mut sum);
        assert_eq!((sum.count, sum.total_ns, sum.buckets[0], sum.buckets[1]), (1000, 500_500, 64, 64));
        assert_eq!((sum.percentile_ns(50), sum.percentile_ns(99), sum.percentile_ns(0)), (512, 1024, 64));
        alone.add_to(&mut sum);
        assert_eq!((sum.count, sum.total_ns), (2000, 500_500 * 101));
        assert_eq!(sum.count, sum.buckets.iter().sum::<u64>());
    }

    #[test]
    fn the_pace_is_known_after_a_while() {
        let pace = Pace::new();
        assert_eq!(pace.ns(3 << 20), 1_048_575);
        pace.begin(7, 1000);
        pace.compare(STRETCH_MIN_NS + 6, 1000 + STRETCH_MIN_NS);
        assert_eq!(pace.ns(3 << 20), 1_048_575, "too early");
        // Four counts a nanosecond.
        pace.compare(STRETCH_MIN_NS + 7, 1000 + 4 * STRETCH_MIN_NS);
        assert_eq!(pace.ns(4 << 30), 1 << 30);
        pace.compare(3 * STRETCH_MIN_NS, 0);
        assert_eq!(pace.ns(4 << 30), 1 << 30, "once is enough");
        assert_eq!(pace.ns(u64::MAX - 5), 0, "a counter that went back");
    }

    #[test]
    fn a_slow_counter_may_run_for_long() {
        let pace = Pace::new();
        pace.begin(0, 0);
        // 24 million a second, as on some ARM machines; a process that was stopped in a slow path, and goes on ten hours later.
        pace.compare(1_000_000_000, 24_000_000);
        let hours = pace.ns(24_000_000 * 36_000) / 3_600_000_000_000;
        assert!((9..=10).contains(&hours), "{hours}");
    }
}
