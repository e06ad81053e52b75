//! The verdict: what the memory of a process is doing, in one of six words, with the numbers that say so and what to do.
//!
//! ```
//! # use freestone::Freestone;
//! # #[global_allocator]
//! # static GLOBAL: Freestone = Freestone::new();
//! use freestone_stats::verdict::Verdict;
//!
//! let earlier = freestone_stats::snapshot();
//! // … minutes later:
//! let later = freestone_stats::snapshot();
//! let diagnosis = freestone_stats::diagnose(&earlier, &later);
//! assert_eq!(diagnosis.verdict, Verdict::Steady);
//! println!("{diagnosis}");
//! ```
//!
//! Two snapshots say that something has grown; whether it goes on growing, only what lies between them can say. So [`diagnose`] also takes what
//! [`history`] has of the time between, and says by its [`Confidence`] how much it had to go by.
//!
//! The rules are [`judge`], a pure function of a series of [`Point`]s: of a file, of another process, of a test. `docs/verdict.md` draws them.

mod rules;
mod series;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use bytesize::ByteSize;
use freestone::anomaly::Anomaly;

use crate::frames::Names;
use crate::leaks::{self, Growth};
use crate::{Point, Snapshot, history};

pub use rules::Thresholds;

/// What the memory of a process is doing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum Verdict {
    /// Nothing grows that does not shrink again, and what is free is no more than recent demand explains.
    #[default]
    Steady,
    /// What the program holds at the least grows, goes on growing, and no load explains it.
    LeakSuspected,
    /// Much is free in spans that are in use: blocks that live hold the pages of many that are gone.
    Fragmentation,
    /// Much is free and kept: in free pages, or in the caches of threads.
    Retention,
    /// What the program holds grows as its load does.
    GrowthWithLoad,
    /// The process grows, and not by this heap: a library in C, stacks, mapped files.
    NotOurs,
}

impl Verdict {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Steady, Self::LeakSuspected, Self::Fragmentation, Self::Retention, Self::GrowthWithLoad, Self::NotOurs];

    /// Its name in exports: lower case, with underscores; stable.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::LeakSuspected => "leak_suspected",
            Self::Fragmentation => "fragmentation",
            Self::Retention => "retention",
            Self::GrowthWithLoad => "growth_with_load",
            Self::NotOurs => "not_ours",
        }
    }

    /// The verdict of this key.
    #[must_use]
    pub fn from_key(key: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verdict| verdict.key() == key)
    }

    /// Its name for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::LeakSuspected => "leak suspected",
            Self::Fragmentation => "fragmentation",
            Self::Retention => "retention",
            Self::GrowthWithLoad => "growth with load",
            Self::NotOurs => "not ours",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How much the verdict had to go by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[non_exhaustive]
pub enum Confidence {
    /// Little: two points, or a short time. Another verdict fits as well.
    #[default]
    Low,
    /// Enough to name it, not enough to rule out the next best.
    Medium,
    /// Many points that agree.
    High,
}

impl Confidence {
    /// Its name in exports, and for people.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

impl fmt::Display for Confidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.key())
    }
}

/// What a figure is in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Unit {
    /// Bytes; negative for what has shrunk.
    Bytes,
    /// Bytes per second.
    BytesPerSecond,
    /// Things per second.
    PerSecond,
    /// Things.
    Count,
    /// Seconds.
    Seconds,
    /// A part of a whole, or a multiple: 0.5 is half of it, 2 is twice as much.
    Ratio,
}

impl Unit {
    /// Its name in exports.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::BytesPerSecond => "bytes_per_second",
            Self::PerSecond => "per_second",
            Self::Count => "count",
            Self::Seconds => "seconds",
            Self::Ratio => "ratio",
        }
    }
}

/// A number that led to the verdict.
#[derive(Clone, Copy, PartialEq, Debug)]
#[non_exhaustive]
pub struct Figure {
    /// Its name in exports: lower case, with underscores; stable.
    pub key: &'static str,
    /// Its name for people.
    pub name: &'static str,
    /// The number.
    pub value: f64,
    /// What it is in.
    pub unit: Unit,
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, value, unit, .. } = self;
        let sign = if *value < 0.0 { "-" } else { "" };
        let bytes = ByteSize(value.abs() as u64);
        match unit {
            Unit::Bytes => write!(f, "{name} {sign}{bytes}"),
            Unit::BytesPerSecond => write!(f, "{name} {sign}{bytes}/s"),
            Unit::PerSecond => write!(f, "{name} {value:.0}/s"),
            Unit::Count => write!(f, "{name} {value:.0}"),
            Unit::Seconds => write!(f, "{name} {value:.1} s"),
            Unit::Ratio => write!(f, "{name} {value:.2}"),
        }
    }
}

/// Something that a series of points shows. A process can have more than one.
#[derive(Clone, Copy, PartialEq, Debug)]
#[non_exhaustive]
pub struct Finding {
    /// What it is.
    pub verdict: Verdict,
    /// How sure that is.
    pub confidence: Confidence,
    /// How many bytes it is about: by which something has grown, or that are free and stay.
    pub bytes: u64,
}

/// A size class that holds more than it did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Grown {
    /// The size of its blocks, in bytes. `None`: blocks beyond the classes.
    pub block_bytes: Option<u64>,
    /// By how many bytes.
    pub bytes: u64,
    /// By how many blocks; 0 where fewer and larger ones took the place of many.
    pub blocks: u64,
}

impl fmt::Display for Grown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.block_bytes {
            Some(bytes) => write!(f, "blocks of {}", ByteSize(bytes))?,
            None => f.write_str("larger blocks")?,
        }
        write!(f, " +{}", ByteSize(self.bytes))
    }
}

/// The verdict and what led to it. Prints as six lines at most, and where a leak is suspected, with the call sites that it is at.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct Diagnosis {
    /// What is going on, above all.
    pub verdict: Verdict,
    /// How sure that is.
    pub confidence: Confidence,
    /// What is going on, in a sentence.
    pub sentence: String,
    /// What to do about it, in a sentence.
    pub advice: String,
    /// The numbers that led there. Those that the sentence rests on come first.
    pub figures: Vec<Figure>,
    /// All that was found, the weightiest first: the first is the verdict, unless nothing was found and all is steady.
    pub findings: Vec<Finding>,
    /// Where the program holds more than it did, by size class, the most first: up to three. Empty where nothing grows that is the heap's, and where
    /// only points are known ([`judge`]).
    pub grown: Vec<Grown>,
    /// Call sites that have grown meanwhile and do not shrink again, the worst first: up to three. Empty where no leak is suspected, in verdicts on other
    /// processes, and where sampling is off.
    pub sites: Vec<Growth>,
    /// What rules about anomalies found between the first and the last; for [`recent`], the worst of each kind that the
    /// [`history`] noticed. Empty where only points are known.
    pub anomalies: Vec<Anomaly>,
    /// From the first point to the last.
    pub interval: Duration,
    /// How many points there were.
    pub points: usize,
}

impl Diagnosis {
    /// The figure of this key.
    #[must_use]
    pub fn figure(&self, key: &str) -> Option<f64> {
        self.figures.iter().find(|figure| figure.key == key).map(|figure| figure.value)
    }
}

/// How many figures are printed.
const FIGURES_PRINTED: usize = 5;

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { verdict, confidence, points, .. } = self;
        writeln!(f, "{verdict} ({confidence} confidence: {points} points in {:.1} s)", self.interval.as_secs_f64())?;
        writeln!(f, "  {}", self.sentence)?;
        let shown: Vec<String> = self.figures.iter().take(FIGURES_PRINTED).map(Figure::to_string).collect();
        if !shown.is_empty() {
            writeln!(f, "  {}", shown.join("; "))?;
        }
        if !self.grown.is_empty() {
            let grown: Vec<String> = self.grown.iter().map(Grown::to_string).collect();
            writeln!(f, "  most of it in {}", grown.join(", "))?;
        }
        let mut names = Names::new();
        for (place, site) in self.sites.iter().enumerate() {
            write!(f, "  {}. ", place + 1)?;
            site.write(f, &mut names)?;
        }
        writeln!(f, "  {}", self.advice)?;
        let mut also: Vec<String> =
            self.findings.iter().skip(1).map(|found| format!("{}, {}", found.verdict, ByteSize(found.bytes))).collect();
        also.extend(self.anomalies.iter().map(|anomaly| anomaly.kind.to_string()));
        if !also.is_empty() {
            writeln!(f, "  also: {}", also.join("; "))?;
        }
        Ok(())
    }
}

/// Names what a series of points shows, by [`Thresholds::DEFAULT`]: the first is the earliest. Any number of points will do, the more the surer;
/// fewer than two show nothing. Points that are not later than the one before are left out.
#[must_use]
pub fn judge(points: &[Point]) -> Diagnosis {
    judge_by(&Thresholds::DEFAULT, points)
}

/// Like [`judge`], by thresholds of your own.
#[must_use]
pub fn judge_by(thresholds: &Thresholds, points: &[Point]) -> Diagnosis {
    rules::judge(thresholds, points)
}

/// Names what happened from one snapshot to another, by these two and by what [`history`] has of the time between.
#[must_use]
pub fn diagnose(earlier: &Snapshot, later: &Snapshot) -> Diagnosis {
    let (first, last) = (Point::of(earlier), Point::of(later));
    let points = between(first, history::points(), last);
    with_sites(with_snapshots(judge(&points), earlier, later), first.at_ns)
}

/// The first, those of the history that came after it and before the last, and the last.
fn between(first: Point, history: Vec<Point>, last: Point) -> Vec<Point> {
    let mut points = vec![first];
    points.extend(history.into_iter().filter(|point| precedes(&first, point) && precedes(point, &last)));
    points.push(last);
    points
}

/// Are these two of one process in order? Who was interrupted while he looked has counted what came after a look that began later: then they are not,
/// and counts that fall there are no process that was started anew.
fn precedes(one: &Point, other: &Point) -> bool {
    one.at_ns < other.at_ns && one.allocations <= other.allocations && one.frees <= other.frees
}

/// Names the call sites of a suspected leak, as they are now.
fn with_sites(diagnosis: Diagnosis, begin_ns: u64) -> Diagnosis {
    if diagnosis.verdict != Verdict::LeakSuspected {
        return diagnosis;
    }
    let sites = leaks::suspects(begin_ns);
    let advice = if sites.is_empty() { diagnosis.advice } else { ADVICE_WITH_SITES.to_owned() };
    Diagnosis { advice, sites, ..diagnosis }
}

/// What to do about a leak of which the place is known.
const ADVICE_WITH_SITES: &str = "Look at what keeps the blocks from there: a collection without a bound looks the same.";

/// Names what happened in a series of snapshots of another process, such as the flight recorder has: the first is the earliest.
#[must_use]
pub fn of_snapshots(snapshots: &[Snapshot]) -> Diagnosis {
    let points: Vec<Point> = snapshots.iter().map(Point::of_another).collect();
    match snapshots {
        [first, .., last] => with_snapshots(judge(&points), first, last),
        _ => judge(&points),
    }
}

/// What two snapshots know beyond points: where it grew, and what was wrong meanwhile.
fn with_snapshots(diagnosis: Diagnosis, earlier: &Snapshot, later: &Snapshot) -> Diagnosis {
    let mut anomalies = Vec::new();
    later.each_anomaly_since(&earlier.heap, |found| anomalies.push(found));
    let (earlier, later) = (&earlier.heap, &later.heap);
    let has_grown = matches!(diagnosis.verdict, Verdict::LeakSuspected | Verdict::GrowthWithLoad);
    let grown = if has_grown { grown(earlier, later) } else { Vec::new() };
    Diagnosis { grown, anomalies, ..diagnosis }
}

/// The size classes that hold the most more, up to three, as far as each has a tenth of what the first has.
fn grown(earlier: &freestone::Snapshot, later: &freestone::Snapshot) -> Vec<Grown> {
    let of_class = |(old, new): (&freestone::ClassSnapshot, &freestone::ClassSnapshot)| {
        let blocks = new.live().saturating_sub(old.live());
        let block_bytes = new.block_bytes as u64;
        Grown { block_bytes: Some(block_bytes), bytes: blocks * block_bytes, blocks }
    };
    let mut grown: Vec<Grown> = earlier.classes.iter().zip(&later.classes).map(of_class).collect();
    let live = |large: &freestone::LargeSnapshot| {
        [large.allocations.saturating_sub(large.frees), large.allocated_bytes.saturating_sub(large.freed_bytes)]
    };
    let ([old_blocks, old_bytes], [blocks, bytes]) = (live(&earlier.large), live(&later.large));
    grown.push(Grown { block_bytes: None, bytes: bytes.saturating_sub(old_bytes), blocks: blocks.saturating_sub(old_blocks) });
    grown.sort_by_key(|class| std::cmp::Reverse(class.bytes));
    let least = (grown[0].bytes / 10).max(1);
    grown.retain(|class| class.bytes >= least);
    grown.truncate(3);
    grown
}

/// Names what happened in the last so much time, as far as [`history`] goes back, up to now. The first call starts the history, and can
/// only say how things stand.
#[must_use]
pub fn recent(reach: Duration) -> Diagnosis {
    history::start();
    let now = Point::of(&crate::snapshot());
    let since_ns = now.at_ns.saturating_sub(reach.as_nanos() as u64);
    let mut points: Vec<Point> =
        history::points().into_iter().filter(|point| point.at_ns >= since_ns && precedes(point, &now)).collect();
    points.push(now);
    let mut anomalies: Vec<Anomaly> = Vec::new();
    for noticed in history::anomalies().into_iter().filter(|noticed| noticed.at_ns >= since_ns) {
        match anomalies.iter_mut().find(|known| known.kind == noticed.anomaly.kind) {
            // Of each kind the worst.
            Some(known) if known.value < noticed.anomaly.value => *known = noticed.anomaly,
            Some(_) => {}
            None => anomalies.push(noticed.anomaly),
        }
    }
    with_sites(Diagnosis { anomalies, ..judge(&points) }, since_ns.max(points[0].at_ns))
}
