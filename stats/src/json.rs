//! Everything as one JSON document: versioned, with units in its keys, and readable back into the types of this module.
//!
//! ```
//! use freestone_stats::json::Document;
//!
//! let text = freestone_stats::json::stats();
//! let document = Document::parse(&text).expect("what was written can be read");
//! println!("{} bytes live in {} blocks", document.heap.bytes.live, document.heap.live_blocks);
//! ```
//!
//! `docs/json.md` tells every key. Numbers of bytes and counts are integers and may exceed 2⁵³, where JavaScript begins to round. A
//! reader of this version accepts documents with keys that it does not know, and takes keys that are missing for zero or nothing.

mod held;

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use freestone::{
    Background, Check, Foreign, Fuse, HugePages, Limit, Options, PauseKind, Retain, SlowPath, SlowPathSnapshot, Trace, ZeroSize,
};
use serde::{Deserialize, Serialize};

pub use held::{Advice, AdviceItem, Agreement, Compared, Frame, Growth, Leaks, Tag, Tags};

use crate::frames::Names;
use crate::metrics::{Reading, slow_path_key};
use crate::{Ledger, Part, Snapshot, verdict};

/// The version of the format that this module writes. It goes up when a key changes its meaning or goes away, not when one is added.
pub const VERSION: u32 = 1;

/// The verdict is on so much of what lies behind, as far as that is remembered.
const VERDICT_REACH: Duration = Duration::from_mins(10);

/// Everything at this moment, but for the lines of the process, which are [read again when that is cheap](crate::metrics): fit to be asked for
/// every second. The first call starts the [`history`](crate::history) that rates and the verdict are made from.
#[must_use]
pub fn stats() -> String {
    Document::now().to_json()
}

/// What a snapshot says, and nothing that it does not: `rates`, `verdict`, `threads` and `config` are empty.
#[must_use]
pub fn of(snapshot: &Snapshot) -> String {
    Document::of(snapshot).to_json()
}

/// The lines of a ledger, as an array.
#[must_use]
pub fn ledger(ledger: &Ledger) -> String {
    text(&lines(ledger))
}

/// The whole document.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Document {
    /// [`VERSION`].
    pub version: u32,
    /// When the snapshot was taken, in milliseconds since 1970.
    pub taken_unix_ms: u64,
    /// The same on `CLOCK_MONOTONIC`, in nanoseconds.
    pub taken_monotonic_ns: u64,
    /// How long ago the heap's first operation was.
    pub uptime_seconds: f64,
    /// The heap as a whole.
    pub heap: Heap,
    /// What the kernel has in memory for the process, by its quick count.
    pub resident: Option<Resident>,
    /// Every size class, smallest first.
    pub classes: Vec<Class>,
    /// Every byte in one line.
    pub ledger: Vec<Line>,
    /// How long ago those lines of the ledger were read that are not the heap's.
    pub process_age_seconds: f64,
    /// What happens per second.
    pub rates: Windows,
    /// Threads, those with the largest caches first.
    pub threads: Vec<Thread>,
    /// How often slow paths took how long.
    pub slow_paths: Vec<SlowPathTimes>,
    /// What took its time, one by one.
    pub pauses: Pauses,
    /// What is going on, in words. `None`: nobody asked.
    pub verdict: Option<Verdict>,
    /// Tags. `None`: nobody asked.
    pub tags: Option<Tags>,
    /// The options in force, as keys and values of `FREESTONE=key:value`.
    pub config: BTreeMap<String, String>,
}

/// The heap as a whole.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Heap {
    /// Blocks ever allocated.
    pub allocations: u64,
    /// Blocks ever freed.
    pub frees: u64,
    /// Bytes of these allocations, at block size.
    pub allocated_bytes: u64,
    /// Bytes of these frees, at block size.
    pub freed_bytes: u64,
    /// Blocks that the program has.
    pub live_blocks: u64,
    /// Where every byte is.
    pub bytes: Bytes,
    /// How often the slow paths did what.
    pub events: Events,
    /// Blocks beyond the size classes.
    pub large: Large,
    /// Limits in force, and what they did.
    pub limits: Limits,
    /// Records of threads.
    pub thread_records: u64,
    /// Of these, waiting for a thread.
    pub thread_records_pooled: u64,
    /// There is a background thread.
    pub background_thread: bool,
    /// The parts may differ from the whole by what was on its way.
    pub approximate: bool,
}

/// Bytes of the heap, by what they are. `committed` and `reserved` are sums of lines before them.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Bytes {
    /// Blocks that the program has.
    pub live: u64,
    /// Free blocks in thread caches.
    pub thread_cached: u64,
    /// Free blocks on their way between threads.
    pub depot: u64,
    /// Free blocks in spans that are in use.
    pub holes: u64,
    /// Free pages that still hold memory.
    pub dirty: u64,
    /// For the allocator itself.
    pub metadata: u64,
    /// What samples take beyond their blocks.
    pub profiler: u64,
    /// In caches of threads that stayed in the parent.
    pub lost_at_fork: u64,
    /// The sum of these.
    pub committed: u64,
    /// Address space without memory.
    pub released: u64,
    /// `committed` and `released`.
    pub reserved: u64,
}

/// Blocks beyond the size classes.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Large {
    /// Blocks ever allocated.
    pub allocations: u64,
    /// Blocks ever freed.
    pub frees: u64,
    /// Bytes of these allocations.
    pub allocated_bytes: u64,
    /// Bytes of these frees.
    pub freed_bytes: u64,
    /// Requests for such blocks that were looked at.
    pub requests: Requests,
}

/// Limits, and what they did.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Limits {
    /// The soft limit. `None`: there is none.
    pub memory_limit_bytes: Option<u64>,
    /// The hard limit. `None`: there is none.
    pub hard_limit_bytes: Option<u64>,
    /// What the heap holds of them.
    pub held_bytes: u64,
    /// Times that a thread had to give back above the soft limit.
    pub assists: u64,
    /// Times that the heap grew over the soft limit.
    pub exceeded: u64,
    /// Times that the fuse tripped.
    pub fuse_trips: u64,
    /// How often the hard limit refused memory.
    pub refusals: u64,
    /// It tripped three times within ten minutes.
    pub fuse_sticky: bool,
}

macro_rules! events {
    ($($name:ident),* $(,)?) => {
        /// How often the slow paths did what: see [`freestone::Events`] for each.
        #[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
        #[serde(default)]
        #[non_exhaustive]
        #[allow(missing_docs)]
        pub struct Events {
            $(pub $name: u64,)*
            /// Calls to the operating system, of all kinds.
            pub os_calls: u64,
        }

        impl Events {
            fn of(events: &freestone::Events) -> Self {
                Self { $($name: events.$name,)* os_calls: events.os_calls() }
            }
        }
    };
}

events! {
    exchanges, refills, flushes, depot_takes, depot_puts, span_births, span_deaths, maps, unmaps, purges, advices, moves, refusals,
    record_births, record_adoptions, ticks, release_rounds, huge_page_pauses, recalls, background_starts, samples, sample_ends, dropped,
}

/// What the kernel has in memory for the process.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Resident {
    /// All of it.
    pub total_bytes: u64,
    /// Of that, what is backed by files or shared.
    pub file_backed_bytes: u64,
}

/// A size class.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Class {
    /// Bytes of a block.
    pub block_bytes: u64,
    /// Blocks ever allocated.
    pub allocations: u64,
    /// Blocks ever freed.
    pub frees: u64,
    /// Blocks that the program has.
    pub live_blocks: u64,
    /// Their bytes.
    pub live_bytes: u64,
    /// Blocks in thread caches.
    pub thread_cached_blocks: u64,
    /// Blocks on their way between threads.
    pub depot_blocks: u64,
    /// Spans that hold blocks of the class.
    pub spans: u64,
    /// Bytes of each of them.
    pub span_bytes: u64,
    /// Of these spans, those without a free block.
    pub full_spans: u64,
    /// The others: with one free block, with two or three, with four to seven, and so on.
    pub spans_by_free: Vec<u32>,
    /// Free bytes in these spans.
    pub holes_bytes: u64,
    /// Requests for such blocks that were looked at.
    pub requests: Requests,
}

/// Requests that were looked at, for an estimate of what blocks have beyond what was asked for.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Requests {
    /// How many.
    pub count: u64,
    /// What their blocks have beyond them, in all.
    pub slack_bytes: u64,
}

/// A line of the ledger: see [`crate::Line`].
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Line {
    /// Which sum it belongs to: `heap`, `given_back` or `resident`.
    pub part: String,
    /// Its name in exports.
    pub key: String,
    /// Its name for people.
    pub name: String,
    /// How many bytes.
    pub bytes: i64,
    /// Half of the 95 % interval of an estimate. `None`: exact.
    pub error_bytes: Option<u64>,
    /// What it is.
    pub meaning: String,
}

/// What happened lately. `None`: nobody asked.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Windows {
    /// In the last second.
    pub last_1s: Option<Rates>,
    /// In the last ten.
    pub last_10s: Option<Rates>,
    /// In the last minute.
    pub last_60s: Option<Rates>,
}

/// What happened in some time: see [`crate::Rates`].
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Rates {
    /// How long that was.
    pub interval_seconds: f64,
    /// Blocks allocated.
    pub allocations: u64,
    /// Blocks freed.
    pub frees: u64,
    /// Bytes allocated.
    pub allocated_bytes: u64,
    /// Bytes freed.
    pub freed_bytes: u64,
    /// By how many bytes what the program holds has grown.
    pub live_growth_bytes: i64,
    /// What it held meanwhile: the mean of both ends.
    pub live_bytes: u64,
    /// Calls to the operating system.
    pub os_calls: u64,
    /// Blocks allocated per second.
    pub allocations_per_second: f64,
    /// Blocks freed per second.
    pub frees_per_second: f64,
    /// Bytes allocated per second.
    pub allocated_bytes_per_second: f64,
    /// Bytes freed per second.
    pub freed_bytes_per_second: f64,
    /// Calls to the operating system per second.
    pub os_calls_per_second: f64,
    /// Bytes allocated per second and live byte.
    pub churn_per_second: f64,
}

/// What is going on: see [`crate::Diagnosis`].
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Verdict {
    /// `steady`, `leak_suspected`, `fragmentation`, `retention`, `growth_with_load` or `not_ours`.
    pub verdict: String,
    /// `low`, `medium` or `high`.
    pub confidence: String,
    /// What is going on, in a sentence.
    pub sentence: String,
    /// What to do about it, in a sentence.
    pub advice: String,
    /// The numbers that led there, the weightiest first.
    pub figures: Vec<Figure>,
    /// All that was found, the weightiest first.
    pub findings: Vec<Finding>,
    /// Call sites of a suspected leak, the worst first: up to three.
    pub sites: Vec<Growth>,
    /// What was wrong meanwhile: the worst of each kind.
    pub anomalies: Vec<Anomaly>,
    /// Whether what samples say can be believed. `None`: nobody asked.
    pub agreement: Option<Agreement>,
    /// Over how long.
    pub interval_seconds: f64,
    /// By how many snapshots.
    pub points: u64,
}

/// A number that led to a verdict.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Figure {
    /// Its name in exports.
    pub key: String,
    /// Its name for people.
    pub name: String,
    /// The number.
    pub value: f64,
    /// What it is in: `bytes`, `bytes_per_second`, `per_second`, `count`, `seconds` or `ratio`.
    pub unit: String,
}

/// Something that was found.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Finding {
    /// As in [`Verdict`].
    pub verdict: String,
    /// How sure that is, as in [`Verdict`].
    pub confidence: String,
    /// How many bytes it is about.
    pub bytes: u64,
}

/// Something that a heap should not be doing: see [`freestone::anomaly`].
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Anomaly {
    /// Its name, such as `refault_loop`.
    pub kind: String,
    /// What it is, and what to do about it.
    pub explanation: String,
    /// What was measured.
    pub value: f64,
    /// What it is above.
    pub threshold: f64,
    /// What both are in.
    pub unit: String,
    /// The size of the blocks that it is about, where it is about a size class.
    pub block_bytes: Option<u64>,
}

/// A thread, or the cache of one that has ended.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Thread {
    /// The kernel's number. `None`: it has ended.
    pub id: Option<u32>,
    /// Its name.
    pub name: Option<String>,
    /// Blocks allocated.
    pub allocations: u64,
    /// Blocks freed.
    pub frees: u64,
    /// Bytes allocated.
    pub allocated_bytes: u64,
    /// Bytes freed.
    pub freed_bytes: u64,
    /// Free blocks in the cache.
    pub cached_blocks: u64,
    /// Their bytes.
    pub cached_bytes: u64,
}

/// How often a slow path took how long.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct SlowPathTimes {
    /// `refill`, `map`, `release` or `lock_wait`.
    pub path: String,
    /// How often.
    pub count: u64,
    /// How long in all.
    pub total_ns: u64,
    /// Half of them took no longer; as the other percentile at most twice too high.
    pub p50_ns: u64,
    /// 99 of 100 took no longer.
    pub p99_ns: u64,
    /// How often it took how long.
    pub buckets: Vec<Bucket>,
}

/// A bucket of a histogram.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Bucket {
    /// The longest that belongs into it. `None`: the last bucket, for all that took longer.
    pub end_ns: Option<u64>,
    /// How many are in it, and not in one before.
    pub count: u64,
}

/// What took its time.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Pauses {
    /// All since the start, by kind.
    pub summaries: Vec<PauseSummary>,
    /// The longest of the latest 256, longest first, 16 at most.
    pub longest: Vec<LongPause>,
}

/// All pauses of a kind since the start.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct PauseSummary {
    /// What took its time: `depot`, `central`, `page_heap`, `system`, `release`, `assist` or `release_all`.
    pub kind: String,
    /// How often.
    pub count: u64,
    /// How long together.
    pub total_ns: u64,
    /// Half of them took no longer.
    pub p50_ns: u64,
    /// 99 of 100 took no longer.
    pub p99_ns: u64,
    /// The longest.
    pub max_ns: u64,
    /// How many bytes they were about.
    pub bytes: u64,
}

/// One of the longest pauses.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct LongPause {
    /// What took its time, as in [`PauseSummary`].
    pub kind: String,
    /// When it ended, in nanoseconds of `CLOCK_MONOTONIC`.
    pub ended_ns: u64,
    /// How long it took.
    pub took_ns: u64,
    /// How many bytes it was about.
    pub bytes: u64,
}

/// Why a text is no document: one sentence.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// It is no JSON, or a key has another type.
    Malformed(serde_json::Error),
    /// It has another version than [`VERSION`].
    Version(u32),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(error) => write!(f, "this is no document of statistics: {error}"),
            Self::Version(0) => write!(f, "this is no document of statistics: it has no version"),
            Self::Version(version) => write!(f, "this document has version {version}; version {VERSION} can be read"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Malformed(error) => Some(error),
            Self::Version(_) => None,
        }
    }
}

impl Document {
    /// Everything at this moment, as in [`stats`].
    #[must_use]
    pub fn now() -> Self {
        let reading = Reading::now();
        Self {
            ledger: lines(&reading.ledger()),
            process_age_seconds: reading.process_age().as_secs_f64(),
            rates: Windows::of(&crate::rates()),
            verdict: Some(Verdict {
                agreement: Some(Agreement::of(&crate::agreement())),
                ..Verdict::of(&verdict::recent(VERDICT_REACH))
            }),
            tags: Some(Tags::now()),
            threads: crate::threads().iter().map(Thread::of).collect(),
            config: config(&freestone::control::configuration()),
            ..Self::of(reading.snapshot())
        }
    }

    /// What a snapshot says, and nothing that it does not.
    #[must_use]
    pub fn of(snapshot: &Snapshot) -> Self {
        let heap = &snapshot.heap;
        Self {
            version: VERSION,
            taken_unix_ms: unix_ms(snapshot.taken),
            taken_monotonic_ns: heap.at_ns,
            uptime_seconds: heap.age_ns as f64 / 1e9,
            heap: Heap::of(heap),
            resident: snapshot
                .resident
                .map(|resident| Resident { total_bytes: resident.total, file_backed_bytes: resident.file_backed }),
            classes: heap.classes.iter().map(Class::of).collect(),
            ledger: lines(&Reading::of(snapshot.clone()).ledger()),
            process_age_seconds: 0.0,
            rates: Windows::default(),
            threads: Vec::new(),
            slow_paths: SlowPath::ALL.iter().map(|&path| SlowPathTimes::of(path, &heap.slow_paths[path as usize])).collect(),
            pauses: Pauses::of(snapshot),
            verdict: None,
            tags: None,
            config: BTreeMap::new(),
        }
    }

    /// As text, on one line.
    #[must_use]
    pub fn to_json(&self) -> String {
        text(self)
    }

    /// Reads a document back.
    ///
    /// # Errors
    ///
    /// The text is no JSON, or no document, or one of another version.
    pub fn parse(text: &str) -> Result<Self, Error> {
        // The version first: in another one, other keys may have other types.
        #[derive(Deserialize)]
        struct Version {
            #[serde(default)]
            version: u32,
        }
        let Version { version } = serde_json::from_str(text).map_err(Error::Malformed)?;
        if version != VERSION {
            return Err(Error::Version(version));
        }
        serde_json::from_str(text).map_err(Error::Malformed)
    }
}

impl Heap {
    fn of(heap: &freestone::Snapshot) -> Self {
        let freestone::Snapshot { bytes, large, limits, .. } = heap;
        Self {
            allocations: heap.allocations,
            frees: heap.frees,
            allocated_bytes: heap.allocated_bytes,
            freed_bytes: heap.freed_bytes,
            live_blocks: heap.live_blocks(),
            bytes: Bytes {
                live: bytes.live as u64,
                thread_cached: bytes.thread_cached as u64,
                depot: bytes.depot as u64,
                holes: bytes.holes as u64,
                dirty: bytes.dirty as u64,
                metadata: bytes.metadata as u64,
                profiler: bytes.profiler as u64,
                lost_at_fork: bytes.lost_at_fork as u64,
                committed: bytes.committed() as u64,
                released: bytes.released as u64,
                reserved: bytes.reserved() as u64,
            },
            events: Events::of(&heap.events),
            large: Large {
                allocations: large.allocations,
                frees: large.frees,
                allocated_bytes: large.allocated_bytes,
                freed_bytes: large.freed_bytes,
                requests: Requests::of(&large.requests),
            },
            limits: Limits {
                memory_limit_bytes: limits.memory_limit.map(|bytes| bytes as u64),
                hard_limit_bytes: limits.hard_limit.map(|bytes| bytes as u64),
                held_bytes: limits.held as u64,
                assists: limits.assists,
                exceeded: limits.exceeded,
                fuse_trips: limits.fuse_trips,
                refusals: limits.refusals,
                fuse_sticky: limits.fuse_sticky,
            },
            thread_records: heap.thread_records as u64,
            thread_records_pooled: heap.thread_records_pooled as u64,
            background_thread: heap.background_thread,
            approximate: heap.approximate,
        }
    }
}

impl Class {
    fn of(class: &freestone::ClassSnapshot) -> Self {
        let block_bytes = class.block_bytes as u64;
        Self {
            block_bytes,
            allocations: class.allocations,
            frees: class.frees,
            live_blocks: class.live(),
            live_bytes: class.live().saturating_mul(block_bytes),
            thread_cached_blocks: class.thread_cached,
            depot_blocks: class.depot,
            spans: class.spans,
            span_bytes: class.span_bytes as u64,
            full_spans: class.full_spans(),
            spans_by_free: class.spans_by_free.to_vec(),
            holes_bytes: class.holes_bytes as u64,
            requests: Requests::of(&class.requests),
        }
    }
}

impl Requests {
    fn of(requests: &freestone::RequestSamples) -> Self {
        Self { count: requests.count, slack_bytes: requests.slack_bytes }
    }
}

impl Line {
    fn of(line: &crate::Line) -> Self {
        let part = match line.part {
            Part::Heap => "heap",
            Part::GivenBack => "given_back",
            Part::Resident => "resident",
        };
        Self {
            part: part.to_owned(),
            key: line.key.to_owned(),
            name: line.name.to_owned(),
            bytes: line.bytes,
            error_bytes: line.error_bytes,
            meaning: line.meaning.to_owned(),
        }
    }
}

impl Rates {
    /// In the document's words.
    #[must_use]
    pub fn of(rates: &crate::Rates) -> Self {
        Self {
            interval_seconds: rates.interval.as_secs_f64(),
            allocations: rates.allocations,
            frees: rates.frees,
            allocated_bytes: rates.allocated_bytes,
            freed_bytes: rates.freed_bytes,
            live_growth_bytes: rates.live_growth_bytes,
            live_bytes: rates.live_bytes,
            os_calls: rates.os_calls,
            allocations_per_second: rates.allocations_per_second(),
            frees_per_second: rates.frees_per_second(),
            allocated_bytes_per_second: rates.allocated_bytes_per_second(),
            freed_bytes_per_second: rates.freed_bytes_per_second(),
            os_calls_per_second: rates.os_calls_per_second(),
            churn_per_second: rates.churn(),
        }
    }
}

impl Windows {
    /// In the document's words.
    #[must_use]
    pub fn of(windows: &crate::Windows) -> Self {
        let [last_1s, last_10s, last_60s] =
            [&windows.last_1s, &windows.last_10s, &windows.last_60s].map(|rates| Some(Rates::of(rates)));
        Self { last_1s, last_10s, last_60s }
    }
}

impl Verdict {
    /// In the document's words.
    #[must_use]
    pub fn of(diagnosis: &crate::Diagnosis) -> Self {
        let figures = diagnosis.figures.iter().filter(|figure| figure.value.is_finite()).map(|figure| Figure {
            key: figure.key.to_owned(),
            name: figure.name.to_owned(),
            value: figure.value,
            unit: figure.unit.key().to_owned(),
        });
        let findings = diagnosis.findings.iter().map(|found| Finding {
            verdict: found.verdict.key().to_owned(),
            confidence: found.confidence.key().to_owned(),
            bytes: found.bytes,
        });
        let mut names = Names::new();
        Self {
            verdict: diagnosis.verdict.key().to_owned(),
            confidence: diagnosis.confidence.key().to_owned(),
            sentence: diagnosis.sentence.clone(),
            advice: diagnosis.advice.clone(),
            figures: figures.collect(),
            findings: findings.collect(),
            sites: diagnosis.sites.iter().map(|site| Growth::named(site, &mut names)).collect(),
            anomalies: diagnosis.anomalies.iter().map(Anomaly::of).collect(),
            agreement: None,
            interval_seconds: diagnosis.interval.as_secs_f64(),
            points: diagnosis.points as u64,
        }
    }
}

impl Anomaly {
    fn of(anomaly: &freestone::anomaly::Anomaly) -> Self {
        Self {
            kind: anomaly.kind.name().to_owned(),
            explanation: anomaly.kind.explanation().to_owned(),
            value: if anomaly.value.is_finite() { anomaly.value } else { 0.0 },
            threshold: anomaly.threshold,
            unit: anomaly.kind.unit().to_owned(),
            block_bytes: anomaly.block_bytes().map(|bytes| bytes as u64),
        }
    }
}

impl Thread {
    fn of(thread: &crate::Thread) -> Self {
        Self {
            id: thread.id,
            name: thread.name.clone(),
            allocations: thread.allocations,
            frees: thread.frees,
            allocated_bytes: thread.allocated_bytes,
            freed_bytes: thread.freed_bytes,
            cached_blocks: thread.cached_blocks,
            cached_bytes: thread.cached_bytes,
        }
    }
}

impl SlowPathTimes {
    fn of(path: SlowPath, times: &SlowPathSnapshot) -> Self {
        let buckets = times.buckets.iter().enumerate();
        Self {
            path: slow_path_key(path).to_owned(),
            count: times.count,
            total_ns: times.total_ns,
            p50_ns: times.percentile_ns(50),
            p99_ns: times.percentile_ns(99),
            buckets: buckets.map(|(bucket, &count)| Bucket { end_ns: SlowPathSnapshot::bucket_end_ns(bucket), count }).collect(),
        }
    }
}

impl Pauses {
    fn of(snapshot: &Snapshot) -> Self {
        let heap = &snapshot.heap;
        let summaries = PauseKind::ALL.iter().map(|&kind| {
            let summary = heap.pauses[kind as usize];
            PauseSummary {
                kind: kind_key(kind).to_owned(),
                count: summary.count,
                total_ns: summary.total_ns,
                p50_ns: summary.p50_ns,
                p99_ns: summary.p99_ns,
                max_ns: summary.max_ns,
                bytes: summary.bytes,
            }
        });
        let longest = snapshot.longest_pauses().iter().map(|pause| LongPause {
            kind: kind_key(pause.kind).to_owned(),
            ended_ns: pause.ended_ns,
            took_ns: pause.took_ns,
            bytes: pause.bytes,
        });
        Self { summaries: summaries.collect(), longest: longest.collect() }
    }
}

fn lines(ledger: &Ledger) -> Vec<Line> {
    ledger.lines().iter().map(Line::of).collect()
}

fn kind_key(kind: PauseKind) -> &'static str {
    match kind {
        PauseKind::Depot => "depot",
        PauseKind::Central => "central",
        PauseKind::PageHeap => "page_heap",
        PauseKind::System => "system",
        PauseKind::Release => "release",
        PauseKind::Assist => "assist",
        PauseKind::ReleaseAll => "release_all",
        _ => "other",
    }
}

/// Options as somebody would write them into the environment.
fn config(options: &Options) -> BTreeMap<String, String> {
    let check = match options.check {
        Check::Exchange => "exchange",
        _ => "sampled",
    };
    let huge_pages = match options.huge_pages {
        HugePages::Never => "never",
        HugePages::Always => "always",
        _ => "auto",
    };
    let background = match options.background {
        Background::On => "on",
        Background::Off => "off",
        _ => "auto",
    };
    let fuse = match options.fuse {
        Fuse::Exit => "exit",
        _ => "off",
    };
    let foreign = match options.foreign {
        Foreign::Ignore => "ignore",
        _ => "abort",
    };
    let zero_size = match options.zero_size {
        ZeroSize::Usable => "usable",
        _ => "unusable",
    };
    let trace = match options.trace {
        Trace::Lines => "1",
        Trace::Anomalies => "2",
        _ => "0",
    };
    let pairs = [
        ("check", check.to_owned()),
        ("huge_pages", huge_pages.to_owned()),
        ("retain", retain_words(options.retain)),
        ("background", background.to_owned()),
        ("memory_limit", limit_words(options.memory_limit)),
        ("hard_limit", limit_words(options.hard_limit)),
        ("fuse", fuse.to_owned()),
        ("bypass", u8::from(options.bypass).to_string()),
        ("foreign", foreign.to_owned()),
        ("zero_size", zero_size.to_owned()),
        ("trace", trace.to_owned()),
        ("trace_interval", format!("{}ms", options.trace_interval.as_millis())),
        ("trace_fd", options.trace_fd.to_string()),
        ("sample_interval", options.sample_interval.to_string()),
        ("sample_above", options.sample_above.to_string()),
        ("stall_above", format!("{}ns", options.stall_above.as_nanos())),
        ("profile_memory", options.profile_memory.to_string()),
    ];
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn retain_words(retain: Retain) -> String {
    match (retain, Retain::DEFAULT) {
        (retain, default) if retain == default => "default".to_owned(),
        (Retain::Off, _) => "off".to_owned(),
        (Retain::Keep, _) => "keep".to_owned(),
        (Retain::Peak { percent, window_ms, steps }, Retain::Peak { window_ms: usual_ms, steps: usual, .. })
            if (window_ms, steps) == (usual_ms, usual) =>
        {
            format!("{percent}%")
        }
        // Only calls at run time can choose that.
        (Retain::Peak { percent, window_ms, steps }, _) => format!("{percent}% of {window_ms} ms in {steps} steps"),
        _ => "unknown".to_owned(),
    }
}

fn limit_words(limit: Limit) -> String {
    match limit {
        Limit::None => "none".to_owned(),
        Limit::Bytes(bytes) => format!("{bytes}B"),
        Limit::Percent(percent) => format!("{percent}%"),
        _ => "unknown".to_owned(),
    }
}

fn unix_ms(moment: SystemTime) -> u64 {
    moment.duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_millis() as u64)
}

/// These types have string keys and finite numbers, so this cannot fail.
fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_read_back_as_it_was() {
        let document = Document::now();
        let text = document.to_json();
        assert_eq!(Document::parse(&text).expect("what was written can be read"), document);
        assert!(!text.contains('\n'), "{text}");
    }

    #[test]
    fn what_is_no_document_is_told_in_a_sentence() {
        let says = |text: &str| Document::parse(text).expect_err(text).to_string();
        assert_eq!(says("{\"version\":2}"), "this document has version 2; version 1 can be read");
        assert_eq!(says("{}"), "this is no document of statistics: it has no version");
        assert!(says("").starts_with("this is no document of statistics: EOF"), "{}", says(""));
        assert!(says("{\"version\":1,\"classes\":3}").contains("invalid type"));
    }

    #[test]
    fn keys_of_later_versions_are_passed_over_and_missing_ones_are_nothing() {
        let document = Document::parse(r#"{"version":1,"heap":{"frees":3,"news":4},"moon":"full"}"#).expect("a document");
        assert_eq!(document.heap.frees, 3);
        assert_eq!(document.heap.bytes, Bytes::default());
    }

    #[test]
    fn options_are_told_as_they_are_written() {
        assert_eq!(retain_words(Retain::DEFAULT), "default");
        assert_eq!(retain_words(Retain::Peak { percent: 25, window_ms: 5000, steps: 8 }), "25%");
        assert_eq!(retain_words(Retain::Peak { percent: 25, window_ms: 400, steps: 8 }), "25% of 400 ms in 8 steps");
        assert_eq!(limit_words(Limit::Bytes(2 << 30)), "2147483648B");
        assert_eq!(limit_words(Limit::Percent(90)), "90%");
    }
}
