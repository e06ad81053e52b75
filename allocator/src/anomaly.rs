//! Floor 3. Anomalies: what a heap should not be doing, told from the numbers of two moments.
//!
//! Seven rules, each a pure function: what happened between two moments ([`Vitals`]) and what is too much ([`Thresholds`]) in, what is wrong
//! out. The trace line and `freestone-stats` use the same ones, so that they never disagree. Nothing is allocated.
//!
//! ```
//! use std::time::Duration;
//!
//! use freestone::anomaly::{self, Thresholds, Vitals};
//!
//! let earlier = freestone::snapshot();
//! // … a second later:
//! # std::thread::sleep(Duration::from_millis(10));
//! let later = freestone::snapshot();
//! anomaly::find(&Vitals::between(&earlier, &later), &Thresholds::DEFAULT, |anomaly| {
//!     println!("{anomaly}");
//! });
//! ```
//!
//! A rule looks at one interval and remembers nothing: with intervals of a second a passing moment counts, with those of a minute only what
//! lasts.

use core::fmt;
use core::time::Duration;

use crate::size_class::SizeClass;

/// What can be wrong.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Kind {
    /// Memory goes back many times a second, and the heap becomes no smaller for it. Value: rounds per second.
    Purging,
    /// Giving memory back held a thread up for long. Value: milliseconds.
    ReleasePause,
    /// A size class is allocated from and freed to at a furious rate for the few blocks of it that live. Value: allocations per second and live
    /// block.
    AllocationStorm,
    /// What was given back is taken again. Value: bytes per second.
    RefaultLoop,
    /// Free blocks lie in caches, out of reach of anything else. Value: bytes.
    CacheHoarding,
    /// A limit on memory is, or was, exceeded. Value: times.
    LimitExceeded,
    /// The kernel takes long to find huge pages. Value: times that the heap did without them for a while.
    HugePageStalls,
}

impl Kind {
    /// How many there are.
    pub const COUNT: usize = 7;
    /// All of them.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Purging,
        Self::ReleasePause,
        Self::AllocationStorm,
        Self::RefaultLoop,
        Self::CacheHoarding,
        Self::LimitExceeded,
        Self::HugePageStalls,
    ];

    /// The name, for machines: a word of small letters and `_`, which stays.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Purging => "purging",
            Self::ReleasePause => "release_pause",
            Self::AllocationStorm => "allocation_storm",
            Self::RefaultLoop => "refault_loop",
            Self::CacheHoarding => "cache_hoarding",
            Self::LimitExceeded => "limit_exceeded",
            Self::HugePageStalls => "huge_page_stalls",
        }
    }

    /// The kind of this name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// What the value is of, for people.
    #[must_use]
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Purging => "rounds/s",
            Self::ReleasePause => "ms",
            Self::AllocationStorm => "allocations/s per live block",
            Self::RefaultLoop => "bytes/s",
            Self::CacheHoarding => "bytes",
            Self::LimitExceeded | Self::HugePageStalls => "times",
        }
    }

    /// What it is, and what to do about it.
    #[must_use]
    pub const fn explanation(self) -> &'static str {
        match self {
            Self::Purging => {
                "memory goes back many times a second and the heap becomes no smaller: keep more with a higher `retain`, or raise the memory limit"
            }
            Self::ReleasePause => {
                "giving memory back held a thread up: let the background thread do it, or call release_to_os where nobody waits"
            }
            Self::AllocationStorm => {
                "blocks of one size live for a moment each, by the million: keep a buffer and use it again instead of allocating in the loop"
            }
            Self::RefaultLoop => {
                "memory that is given back is needed again at once, at the price of page faults: keep more with a higher `retain`, or raise the memory limit"
            }
            Self::CacheHoarding => {
                "free blocks lie in caches of threads and between them: call control::thread_idle in threads before they wait, or use fewer threads"
            }
            Self::LimitExceeded => {
                "the heap grew over a limit and nothing was left to give back: the program holds too much, or the limit is too low for it"
            }
            Self::HugePageStalls => {
                "the kernel took long to find 2 MiB pages, so new memory comes in small ones for a while: set `huge_pages:never` where this goes on"
            }
        }
    }

    /// Looks whether this is wrong.
    #[must_use]
    pub fn measure(self, vitals: &Vitals, thresholds: &Thresholds) -> Option<Anomaly> {
        match self {
            Self::Purging => purging(vitals, thresholds),
            Self::ReleasePause => release_pause(vitals, thresholds),
            Self::AllocationStorm => allocation_storm(vitals, thresholds),
            Self::RefaultLoop => refault_loop(vitals, thresholds),
            Self::CacheHoarding => cache_hoarding(vitals, thresholds),
            Self::LimitExceeded => limit_exceeded(vitals, thresholds),
            Self::HugePageStalls => huge_page_stalls(vitals, thresholds),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What is too much. A value is an anomaly when it is above its threshold; one that is equal is not.
#[derive(Clone, Copy, PartialEq, Debug)]
#[non_exhaustive]
pub struct Thresholds {
    /// Rounds of giving back per second. Default 5: a burst that goes back in the usual eight steps, ten a second, makes the heap smaller and so
    /// is none; who gives back in every second tick and gets no smaller works for nothing.
    pub purges_per_second: f64,
    /// But not where fewer bytes than this go per second. Default 8 MiB: a third of a percent of a processor, if all of it is taken again. Below that
    /// the rounds are many and small, and cost nothing worth a word.
    pub purged_bytes_per_second: f64,
    /// The longest that a thread gave memory back at a stretch, in milliseconds. Default 10: the allocator's own slices end after 1 ms, and what a
    /// service promises its users seldom leaves room for ten.
    pub release_pause_ms: f64,
    /// Allocations per second and live block of a class of at most 1 KiB. Default 5,000: a block that lives for less than 0.2 ms.
    pub storm_per_live_block: f64,
    /// But not a class from which fewer than this are allocated per second. Default 1,000,000: an allocation and its free cost about 10 ns with
    /// what is around them, so a million of them is one percent of a processor. Below that a storm is one in name only: the
    /// only `String` of a program, made ten thousand times a second, harms nobody.
    pub storm_allocations_per_second: f64,
    /// Bytes per second that are given back and taken again. Default 24 MiB: to give 2 MiB back takes 0.19 ms and to fault them in again in small
    /// pages 0.64 ms, so this is one percent of a processor.
    pub refault_bytes_per_second: f64,
    /// Bytes in caches of threads and in depots. Default 16 MiB: four times what the allocator lends to them in a small program.
    pub hoarding_bytes: f64,
    /// And above this many percent of what is live. Default 25: twice what it lends to them in a large one.
    pub hoarding_percent_of_live: f64,
    /// Times that a limit was exceeded. Default 0: once is too often.
    pub limit_exceeded: f64,
    /// Times that huge pages were done without for a while, because they took too long to come. Default 0: three stalls of 0.64 ms in a row lead
    /// to that, or one of 5 ms.
    pub huge_page_stalls: f64,
}

impl Thresholds {
    /// What the trace line goes by.
    pub const DEFAULT: Self = Self {
        purges_per_second: 5.0,
        purged_bytes_per_second: (8_u32 << 20) as f64,
        release_pause_ms: 10.0,
        storm_per_live_block: 5_000.0,
        storm_allocations_per_second: 1e6,
        refault_bytes_per_second: (24_u32 << 20) as f64,
        hoarding_bytes: (16_u32 << 20) as f64,
        hoarding_percent_of_live: 25.0,
        limit_exceeded: 0.0,
        huge_page_stalls: 0.0,
    };
}

impl Default for Thresholds {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What the rules look at: what happened between two moments, and how things stood at the later one. Made by
/// [`Vitals::between`], or by hand from [`Vitals::default`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Vitals {
    /// Time between the two. At zero there are no rates, and only the rules about the later moment apply.
    pub interval: Duration,
    /// Rounds in which memory was given back: ticks of the scavenger, assists, and times that somebody asked.
    pub release_rounds: u64,
    /// The longest that memory was given back at a stretch, in nanoseconds.
    pub longest_release_ns: u64,
    /// Bytes that were given back.
    pub given_back_bytes: u64,
    /// What may hold memory (see [`Bytes::committed`](crate::Bytes::committed)), at the earlier moment.
    pub committed_before_bytes: u64,
    /// And at the later one.
    pub committed_bytes: u64,
    /// What the program had at the later moment.
    pub live_bytes: u64,
    /// What lay in caches of threads and in depots at the later moment.
    pub cached_bytes: u64,
    /// Times that a limit was exceeded: a thread should have given back and could not, the fuse tripped, or more was held at the later moment than the
    /// soft limit allows.
    pub limit_exceeded: u64,
    /// Times that huge pages were done without for a while because they took too long to come.
    pub huge_page_stalls: u64,
    /// Per size class, smallest first.
    pub classes: [ClassVitals; SizeClass::COUNT],
}

/// One size class in [`Vitals`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct ClassVitals {
    /// Blocks allocated between the two moments.
    pub allocations: u64,
    /// Blocks that lived, at the earlier or at the later moment, whichever is more.
    pub live: u64,
}

impl Default for Vitals {
    fn default() -> Self {
        Self {
            interval: Duration::ZERO,
            release_rounds: 0,
            longest_release_ns: 0,
            given_back_bytes: 0,
            committed_before_bytes: 0,
            committed_bytes: 0,
            live_bytes: 0,
            cached_bytes: 0,
            limit_exceeded: 0,
            huge_page_stalls: 0,
            classes: [ClassVitals::default(); SizeClass::COUNT],
        }
    }
}

impl Vitals {
    /// So many of something, per second. Zero for an interval of zero.
    fn per_second(&self, count: u64) -> f64 {
        let seconds = self.interval.as_secs_f64();
        if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
    }

    /// Bytes that were taken from the system: by so much what is committed grew, and what was given back meanwhile came on top.
    #[must_use]
    pub fn taken_bytes(&self) -> u64 {
        self.committed_bytes.saturating_add(self.given_back_bytes).saturating_sub(self.committed_before_bytes)
    }
}

/// Something that is wrong. Prints as one line: what was measured, what would be too much, and what to do.
#[derive(Clone, Copy, PartialEq, Debug)]
#[non_exhaustive]
pub struct Anomaly {
    /// What.
    pub kind: Kind,
    /// What was measured, in the [unit](Kind::unit) of its kind.
    pub value: f64,
    /// What it is above.
    pub threshold: f64,
    /// In which size class, as the position in [`Snapshot::classes`](crate::Snapshot::classes), where it is about one.
    pub class: Option<usize>,
}

impl Anomaly {
    /// What is wrong, if it is.
    fn above(kind: Kind, value: f64, threshold: f64) -> Option<Self> {
        (value > threshold).then_some(Self { kind, value, threshold, class: None })
    }

    /// The size of the blocks that it is about, in bytes, where it is about a size class.
    #[must_use]
    pub fn block_bytes(&self) -> Option<usize> {
        SizeClass::all().nth(self.class?).map(SizeClass::bytes)
    }
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, value, threshold, .. } = self;
        write!(f, "{kind}: {value:.1} {}, above {threshold:.1}", kind.unit())?;
        if let Some(bytes) = self.block_bytes() {
            write!(f, ", in blocks of {bytes} bytes")?;
        }
        write!(f, "; {}", kind.explanation())
    }
}

/// Hands out all that is wrong, at most one anomaly of each kind: of several classes the worst.
pub fn find(vitals: &Vitals, thresholds: &Thresholds, found: impl FnMut(Anomaly)) {
    Kind::ALL.into_iter().filter_map(|kind| kind.measure(vitals, thresholds)).for_each(found);
}

/// Rounds per second, unless at least half of what was given back stayed away: then memory falls, and should.
fn purging(vitals: &Vitals, thresholds: &Thresholds) -> Option<Anomaly> {
    let fell = vitals.committed_before_bytes.saturating_sub(vitals.committed_bytes);
    let stays_away = fell >= vitals.given_back_bytes.div_ceil(2);
    if stays_away || vitals.per_second(vitals.given_back_bytes) < thresholds.purged_bytes_per_second {
        return None;
    }
    Anomaly::above(Kind::Purging, vitals.per_second(vitals.release_rounds), thresholds.purges_per_second)
}

fn release_pause(vitals: &Vitals, thresholds: &Thresholds) -> Option<Anomaly> {
    Anomaly::above(Kind::ReleasePause, vitals.longest_release_ns as f64 / 1e6, thresholds.release_pause_ms)
}

/// Of the small classes the one that is allocated from most often per live block. A class of which nothing lives counts as if one block did.
fn allocation_storm(vitals: &Vitals, thresholds: &Thresholds) -> Option<Anomaly> {
    let mut worst: Option<Anomaly> = None;
    for class in SizeClass::all().filter(|class| class.is_small()) {
        let ClassVitals { allocations, live } = vitals.classes[class.index()];
        let rate = vitals.per_second(allocations);
        if rate < thresholds.storm_allocations_per_second {
            continue;
        }
        let value = rate / live.max(1) as f64;
        if worst.is_none_or(|worst| value > worst.value)
            && let Some(storm) = Anomaly::above(Kind::AllocationStorm, value, thresholds.storm_per_live_block)
        {
            worst = Some(Anomaly { class: Some(class.index()), ..storm });
        }
    }
    worst
}

/// What was given back and taken is the lesser of the two.
fn refault_loop(vitals: &Vitals, thresholds: &Thresholds) -> Option<Anomaly> {
    let again = vitals.given_back_bytes.min(vitals.taken_bytes());
    Anomaly::above(Kind::RefaultLoop, vitals.per_second(again), thresholds.refault_bytes_per_second)
}

/// Both in absolute terms and against what lives: a small program may cache as much as it uses, a large one many megabytes.
fn cache_hoarding(vitals: &Vitals, thresholds: &Thresholds) -> Option<Anomaly> {
    let of_live = vitals.live_bytes as f64 * thresholds.hoarding_percent_of_live / 100.0;
    let threshold = if of_live > thresholds.hoarding_bytes { of_live } else { thresholds.hoarding_bytes };
    Anomaly::above(Kind::CacheHoarding, vitals.cached_bytes as f64, threshold)
}

fn limit_exceeded(vitals: &Vitals, thresholds: &Thresholds) -> Option<Anomaly> {
    Anomaly::above(Kind::LimitExceeded, vitals.limit_exceeded as f64, thresholds.limit_exceeded)
}

fn huge_page_stalls(vitals: &Vitals, thresholds: &Thresholds) -> Option<Anomaly> {
    Anomaly::above(Kind::HugePageStalls, vitals.huge_page_stalls as f64, thresholds.huge_page_stalls)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const SECOND: Duration = Duration::from_secs(1);

    /// A second in which nothing happened, changed.
    fn second(change: impl FnOnce(&mut Vitals)) -> Vitals {
        let mut vitals = Vitals {
            interval: SECOND,
            committed_before_bytes: 512 * MIB,
            committed_bytes: 512 * MIB,
            live_bytes: 256 * MIB,
            ..Vitals::default()
        };
        change(&mut vitals);
        vitals
    }

    fn found(vitals: &Vitals) -> Vec<(Kind, f64)> {
        let mut all = Vec::new();
        find(vitals, &Thresholds::DEFAULT, |anomaly| {
            assert!(anomaly.value > anomaly.threshold, "{anomaly:?}");
            all.push((anomaly.kind, anomaly.value));
        });
        all
    }

    /// A name, what is other than usual, and what is wrong then.
    type Case<'a> = (&'a str, fn(&mut Vitals), &'a [(Kind, f64)]);

    /// Each rule just below its threshold, at it, and just above; and what keeps it from crying wolf.
    #[test]
    fn a_value_above_its_threshold_is_an_anomaly_and_no_other() {
        const CLASS: usize = 7;
        let storm = |vitals: &mut Vitals, allocations, live| vitals.classes[CLASS] = ClassVitals { allocations, live };
        let cases: &[Case<'_>] = &[
            ("nothing happened", |_| {}, &[]),
            ("five rounds", |v| (v.release_rounds, v.given_back_bytes) = (5, 8 * MIB), &[]),
            ("six rounds", |v| (v.release_rounds, v.given_back_bytes) = (6, 8 * MIB), &[(Kind::Purging, 6.0)]),
            ("a hundred rounds for a little", |v| (v.release_rounds, v.given_back_bytes) = (100, 8 * MIB - 1), &[]),
            (
                "53 rounds in ten seconds",
                |v| (v.interval, v.release_rounds, v.given_back_bytes) = (10 * SECOND, 53, 80 * MIB),
                &[(Kind::Purging, 5.3)],
            ),
            (
                "50 rounds in ten seconds",
                |v| (v.interval, v.release_rounds, v.given_back_bytes) = (10 * SECOND, 50, 80 * MIB),
                &[],
            ),
            (
                "a burst of 64 MiB goes back in eight rounds",
                |v| (v.release_rounds, v.given_back_bytes, v.committed_bytes) = (8, 64 * MIB, 448 * MIB),
                &[],
            ),
            (
                "half of what went stays away",
                |v| (v.release_rounds, v.given_back_bytes, v.committed_bytes) = (8, 40 * MIB, 492 * MIB),
                &[],
            ),
            (
                "less than half",
                |v| (v.release_rounds, v.given_back_bytes, v.committed_bytes) = (8, 40 * MIB, 492 * MIB + 1),
                &[(Kind::Purging, 8.0)],
            ),
            ("a pause of 10 ms", |v| v.longest_release_ns = 10_000_000, &[]),
            ("a little more", |v| v.longest_release_ns = 10_500_000, &[(Kind::ReleasePause, 10.5)]),
            ("24 MiB there and back", |v| (v.given_back_bytes, v.committed_bytes) = (24 * MIB, 512 * MIB), &[]),
            ("a byte more", |v| v.given_back_bytes = 24 * MIB + 1, &[(Kind::RefaultLoop, (24 * MIB + 1) as f64)]),
            (
                "the same in half a second",
                |v| (v.interval, v.given_back_bytes) = (SECOND / 2, 13 * MIB),
                &[(Kind::RefaultLoop, (26 * MIB) as f64)],
            ),
            ("much is taken and nothing given", |v| v.committed_bytes = 2048 * MIB, &[]),
            ("much is given and nothing taken", |v| (v.given_back_bytes, v.committed_bytes) = (500 * MIB, 12 * MIB), &[]),
            ("much is given, a little taken", |v| (v.given_back_bytes, v.committed_bytes) = (500 * MIB, 36 * MIB), &[]),
            (
                "much is given and more taken",
                |v| (v.given_back_bytes, v.committed_bytes) = (30 * MIB, 1024 * MIB),
                &[(Kind::RefaultLoop, (30 * MIB) as f64)],
            ),
            ("a quarter of what lives is cached", |v| v.cached_bytes = 64 * MIB, &[]),
            ("a byte more is cached", |v| v.cached_bytes = 64 * MIB + 1, &[(Kind::CacheHoarding, (64 * MIB + 1) as f64)]),
            ("a small program caches more than it uses", |v| (v.live_bytes, v.cached_bytes) = (MIB, 16 * MIB), &[]),
            (
                "but not this much",
                |v| (v.live_bytes, v.cached_bytes) = (MIB, 16 * MIB + 1),
                &[(Kind::CacheHoarding, (16 * MIB + 1) as f64)],
            ),
            ("a limit exceeded", |v| v.limit_exceeded = 1, &[(Kind::LimitExceeded, 1.0)]),
            ("huge pages that stall", |v| v.huge_page_stalls = 2, &[(Kind::HugePageStalls, 2.0)]),
            (
                "several at once, in the order of their kinds",
                |v| {
                    (v.release_rounds, v.longest_release_ns, v.limit_exceeded) = (10, 30_000_000, 3);
                    v.given_back_bytes = 20 * MIB;
                },
                &[(Kind::Purging, 10.0), (Kind::ReleasePause, 30.0), (Kind::LimitExceeded, 3.0)],
            ),
        ];
        for (name, change, expected) in cases {
            assert_eq!(found(&second(change)), *expected, "{name}");
        }
        for (allocations, live, expected) in [
            (1_000_000, 200, None),
            (1_000_000, 199, Some(1_000_000.0 / 199.0)),
            (5_000_000, 1_000, None),
            (5_000_001, 1_000, Some(5_000.001)),
            // Nothing lives: as if one did.
            (1_000_000, 0, Some(1e6)),
            // A furious rate per block, but of no weight.
            (999_999, 0, None),
            (10_000, 1, None),
        ] {
            let vitals = second(|vitals| storm(vitals, allocations, live));
            let expected: Vec<_> = expected.into_iter().map(|value| (Kind::AllocationStorm, value)).collect();
            assert_eq!(found(&vitals), expected, "{allocations} allocations, {live} live");
        }
    }

    #[test]
    fn of_several_storms_the_worst_is_told_and_large_blocks_make_none() {
        let small: Vec<SizeClass> = SizeClass::all().filter(|class| class.is_small()).collect();
        let first_large = SizeClass::all().nth(small.len()).expect("there are larger classes");
        let mut vitals = second(|_| {});
        vitals.classes[3] = ClassVitals { allocations: 2_000_000, live: 100 };
        vitals.classes[small.len() - 1] = ClassVitals { allocations: 3_000_000, live: 10 };
        vitals.classes[5] = ClassVitals { allocations: 9_000_000, live: 1_000 };
        vitals.classes[first_large.index()] = ClassVitals { allocations: 9_000_000, live: 1 };
        let worst = Kind::AllocationStorm.measure(&vitals, &Thresholds::DEFAULT).expect("a storm");
        assert_eq!((worst.class, worst.block_bytes()), (Some(small.len() - 1), Some(1024)));
        assert!((worst.value - 3e5).abs() < 1e-6, "{worst:?}");
    }

    #[test]
    fn without_time_there_are_no_rates() {
        let mut vitals = second(|vitals| (vitals.release_rounds, vitals.given_back_bytes) = (1_000, 1_000 * MIB));
        vitals.classes[0].allocations = u64::MAX;
        vitals.interval = Duration::ZERO;
        assert_eq!(found(&vitals), []);
        vitals.cached_bytes = u64::MAX;
        assert_eq!(found(&vitals).len(), 1, "what is so at the later moment is so");
    }

    /// A kind, and a threshold above which it is no more.
    type Move = (Kind, fn(&mut Thresholds));

    #[test]
    fn every_threshold_can_be_moved() {
        let all = second(|vitals| {
            (vitals.release_rounds, vitals.longest_release_ns, vitals.given_back_bytes) = (7, 12_000_000, 30 * MIB);
            (vitals.cached_bytes, vitals.limit_exceeded, vitals.huge_page_stalls) = (70 * MIB, 1, 1);
            vitals.classes[2] = ClassVitals { allocations: 2_000_000, live: 1 };
        });
        let moved: [Move; 10] = [
            (Kind::Purging, |t| t.purged_bytes_per_second = 31.0 * MIB as f64),
            (Kind::Purging, |t| t.purges_per_second = 7.0),
            (Kind::ReleasePause, |t| t.release_pause_ms = 12.0),
            (Kind::AllocationStorm, |t| t.storm_per_live_block = 2e6),
            (Kind::AllocationStorm, |t| t.storm_allocations_per_second = 2_000_001.0),
            (Kind::RefaultLoop, |t| t.refault_bytes_per_second = 30.0 * MIB as f64),
            (Kind::CacheHoarding, |t| t.hoarding_bytes = 70.0 * MIB as f64),
            (Kind::CacheHoarding, |t| t.hoarding_percent_of_live = 30.0),
            (Kind::LimitExceeded, |t| t.limit_exceeded = 1.0),
            (Kind::HugePageStalls, |t| t.huge_page_stalls = 1.0),
        ];
        let kinds = |thresholds: &Thresholds| {
            let mut kinds = Vec::new();
            find(&all, thresholds, |anomaly| kinds.push(anomaly.kind));
            kinds
        };
        assert_eq!(kinds(&Thresholds::default()), Kind::ALL);
        for (kind, change) in moved {
            let mut thresholds = Thresholds::DEFAULT;
            change(&mut thresholds);
            let expected: Vec<Kind> = Kind::ALL.into_iter().filter(|&other| other != kind).collect();
            assert_eq!(kinds(&thresholds), expected, "{kind}");
        }
    }

    #[test]
    fn kinds_have_names_that_lead_back_and_something_to_say() {
        for kind in Kind::ALL {
            assert_eq!(Kind::of_name(kind.name()), Some(kind));
            assert!(kind.name().bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase()));
            let sentence = kind.explanation();
            assert!(sentence.contains(": ") && !sentence.ends_with('.'), "{sentence}");
        }
        assert_eq!(Kind::of_name("storm"), None);
    }

    #[test]
    fn an_anomaly_reads_as_a_sentence() {
        let vitals = second(|vitals| vitals.classes[7] = ClassVitals { allocations: 2_100_000, live: 100 });
        let storm = Kind::AllocationStorm.measure(&vitals, &Thresholds::DEFAULT).expect("a storm");
        let bytes = SizeClass::all().nth(7).expect("a class").bytes();
        assert_eq!(
            storm.to_string(),
            format!(
                "allocation_storm: 21000.0 allocations/s per live block, above 5000.0, in blocks of {bytes} bytes; {}",
                Kind::AllocationStorm.explanation()
            )
        );
    }
}
