//! The metrics as data: one table of what there is, from which every exporter, the page `docs/metrics.md` and the tests of the dashboard are made.
//!
//! ```
//! use freestone_stats::metrics::{self, Reading, Value};
//!
//! let reading = Reading::now();
//! for metric in metrics::all() {
//!     for sample in metric.samples(&reading) {
//!         if let Value::Count(count) = sample.value {
//!             println!("{} {:?} {count}", metric.name, sample.labels);
//!         }
//!     }
//! }
//! ```
//!
//! Names follow Prometheus: a prefix of one word, base units, `_total` behind counters, and the sum over a family's labels means something:
//! its help says what. Beside each stands its name in OpenTelemetry. No value is ever NaN or infinite, and counters never fall, whatever was
//! going on while they were read. A limit that is not set, and what the kernel does not say, is not there rather than zero.
//!
//! # What a scrape costs
//!
//! A [`Reading`] takes what [`crate::snapshot()`] does. Written as text, 280 lines, that is 0.12 ms, and with 200 threads and 4 GiB live 0.4 ms
//! (2026-11-21, EPYC): every second, 0.04 % of a processor.
//!
//! Only `freestone_process_resident_bytes` is dear: the kernel walks the page tables for it (see [`crate::ledger()`]), which takes 0.5 ms in a small process
//! and 100 ms where 4 GiB are resident in small pages. So that is read again at the earliest after 3,000 times as long as it took, which is 0.03 % of one
//! processor however large the process and however often somebody scrapes; `freestone_process_age_seconds` says how old it is.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::time::{Duration, Instant};

use freestone::{ClassSnapshot, Events, PauseKind, SlowPath, SlowPathSnapshot, anomaly};

use crate::tag::{self, TagStats};
use crate::{Ledger, Part, Process, Snapshot, history, snapshot};

/// A family of numbers.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Metric {
    /// Its name in Prometheus, unit and `_total` included.
    pub name: &'static str,
    /// What is counted.
    pub unit: Unit,
    /// How it moves.
    pub kind: Kind,
    /// What it says, in a sentence.
    pub help: &'static str,
    /// The labels that tell its samples apart.
    pub labels: &'static [&'static str],
    /// The same in OpenTelemetry.
    pub otel: Otel,
    read: fn(&Reading, &mut Samples),
}

/// A metric's name and unit in OpenTelemetry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Otel {
    /// With dots.
    pub name: &'static str,
    /// In the notation of UCUM. `1` is for states, which do not add up.
    pub unit: &'static str,
    /// The attributes that the labels are called there, in their order.
    pub attributes: &'static [&'static str],
}

/// What a metric counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
    /// Things, or nothing at all.
    None,
}

impl Unit {
    /// As it ends a name: empty for [`Unit::None`].
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Seconds => "seconds",
            Self::None => "",
        }
    }
}

/// How a metric moves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Kind {
    /// Up only.
    Counter,
    /// Up and down.
    Gauge,
    /// As many counters as it has buckets.
    Histogram,
    /// Always 1: what it says is in its labels.
    Info,
}

impl Kind {
    /// As `# TYPE` says it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Info => "info",
        }
    }
}

/// One number of a family, or one histogram.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct Sample {
    /// A value for each of [`Metric::labels`], in the same order.
    pub labels: Vec<(&'static str, Cow<'static, str>)>,
    /// The number.
    pub value: Value,
}

/// What a sample says.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub enum Value {
    /// Of counters, and 1 of an info.
    Count(u64),
    /// Of gauges. Only *unexplained* can be negative.
    Amount(i64),
    /// Of gauges that count time.
    Seconds(f64),
    /// Of histograms.
    Histogram(Histogram),
}

/// How many were how large.
#[derive(Clone, PartialEq, Debug, Default)]
#[non_exhaustive]
pub struct Histogram {
    /// The upper end of each bucket, which belongs to it, and how many fell into it and no lower one. The last end is infinite.
    pub buckets: Vec<(f64, u64)>,
    /// How many there were: the sum of the buckets.
    pub count: u64,
    /// How large all of them are together.
    pub sum: f64,
}

impl Histogram {
    /// Who adds up the buckets must not come out beyond what a number holds: those that would are cut.
    fn new(mut buckets: Vec<(f64, u64)>, sum: f64) -> Self {
        let mut total = 0_u64;
        for (_, count) in &mut buckets {
            *count = (*count).min(u64::MAX - total);
            total += *count;
        }
        Self { buckets, count: total, sum }
    }
}

/// What all metrics are read from: a snapshot, and what the kernel said of the process, not too long ago.
#[derive(Clone, Debug)]
pub struct Reading {
    snapshot: Snapshot,
    process: Option<Arc<Process>>,
    process_age: Duration,
    tags: Arc<[TagStats]>,
}

impl Reading {
    /// Reads now. Counters are never below those of an earlier reading in this process.
    #[must_use]
    pub fn now() -> Self {
        let mut snapshot = snapshot();
        never_back(&mut snapshot.heap);
        let (process, process_age) = recent_process(&snapshot).unzip();
        Self { snapshot, process, process_age: process_age.unwrap_or_default(), tags: tag::for_export().into() }
    }

    /// What a snapshot says; families that need more than that have no samples.
    #[must_use]
    pub fn of(snapshot: Snapshot) -> Self {
        Self { snapshot, process: None, process_age: Duration::ZERO, tags: Arc::default() }
    }

    /// The snapshot that it is of.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// All lines of the ledger: the heap's as they are now, those of the process as they were [`process_age`](Self::process_age) ago. Only the heap's,
    /// if it is [of a snapshot](Self::of).
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        Ledger { snapshot: self.snapshot.clone(), process: self.process.as_deref().cloned().unwrap_or_default() }
    }

    /// How long ago the process was read.
    #[must_use]
    pub fn process_age(&self) -> Duration {
        self.process_age
    }
}

/// Everything that there is to export.
#[must_use]
pub fn all() -> &'static [Metric] {
    ALL
}

impl Metric {
    /// The numbers of this family, each with other labels. Empty where there is nothing to say: a limit that is not set.
    #[must_use]
    pub fn samples(&self, reading: &Reading) -> Vec<Sample> {
        let mut samples = Samples { keys: self.labels, samples: Vec::new() };
        (self.read)(reading, &mut samples);
        samples.samples
    }
}

/// Where the functions of the table put what they read.
struct Samples {
    keys: &'static [&'static str],
    samples: Vec<Sample>,
}

impl Samples {
    fn put<const N: usize>(&mut self, labels: [Cow<'static, str>; N], value: Value) {
        debug_assert_eq!(labels.len(), self.keys.len());
        self.samples.push(Sample { labels: self.keys.iter().copied().zip(labels).collect(), value });
    }

    fn count(&mut self, count: u64) {
        self.put([], Value::Count(count));
    }

    fn count_of(&mut self, label: &'static str, count: u64) {
        self.put([label.into()], Value::Count(count));
    }

    fn amount(&mut self, amount: u64) {
        self.put([], Value::Amount(signed(amount)));
    }

    fn amount_of(&mut self, label: &'static str, amount: u64) {
        self.put([label.into()], Value::Amount(signed(amount)));
    }
}

fn signed(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}

macro_rules! table {
    ($($name:literal, $unit:ident $kind:ident, $otel:literal $otel_unit:literal, [$($label:literal = $attribute:literal),*], $help:literal, $read:expr;)*) => {
        &[$(Metric {
            name: $name,
            unit: Unit::$unit,
            kind: Kind::$kind,
            help: $help,
            labels: &[$($label),*],
            otel: Otel { name: $otel, unit: $otel_unit, attributes: &[$($attribute),*] },
            read: $read,
        }),*]
    };
}

#[rustfmt::skip]
static ALL: &[Metric] = table! {
    "freestone_memory_bytes", Bytes Gauge, "freestone.memory.used" "By", ["class" = "freestone.memory.class"],
        "What the heap holds, by what it is; the sum is all that can be resident of it.", memory;
    "freestone_released_bytes", Bytes Gauge, "freestone.memory.released" "By", [],
        "Address space of the heap without memory: given back, or never touched.", |now, to| to.amount(now.heap().bytes.released as u64);
    "freestone_mapped_bytes", Bytes Gauge, "freestone.memory.mapped" "By", [],
        "All address space of the heap: what it holds, and what is released.", |now, to| to.amount(now.heap().bytes.reserved() as u64);

    "freestone_allocations_total", None Counter, "freestone.memory.allocations" "{allocation}", [],
        "Blocks allocated.", |now, to| to.count(now.heap().allocations);
    "freestone_frees_total", None Counter, "freestone.memory.deallocations" "{allocation}", [],
        "Blocks freed.", |now, to| to.count(now.heap().frees);
    "freestone_allocated_bytes_total", Bytes Counter, "freestone.memory.allocated" "By", [],
        "Bytes allocated, at block size.", |now, to| to.count(now.heap().allocated_bytes);
    "freestone_freed_bytes_total", Bytes Counter, "freestone.memory.freed" "By", [],
        "Bytes freed, at block size.", |now, to| to.count(now.heap().freed_bytes);
    "freestone_allocation_size_bytes", Bytes Histogram, "freestone.memory.allocation.size" "By", [],
        "Sizes of blocks allocated.", |now, to| to.put([], sizes(now.heap(), Side::Allocations));
    "freestone_free_size_bytes", Bytes Histogram, "freestone.memory.deallocation.size" "By", [],
        "Sizes of blocks freed; allocations minus frees, bucket by bucket, are the sizes of what lives.", |now, to| to.put([], sizes(now.heap(), Side::Frees));

    "freestone_memory_limit_bytes", Bytes Gauge, "freestone.memory.limit" "By", [],
        "The soft limit, on what the process has resident without files; not there if there is none.", |now, to| limit(now.heap().limits.memory_limit, to);
    "freestone_hard_limit_bytes", Bytes Gauge, "freestone.memory.hard_limit" "By", [],
        "The hard limit, on what the heap holds for blocks; not there if there is none.", |now, to| limit(now.heap().limits.hard_limit, to);
    "freestone_held_bytes", Bytes Gauge, "freestone.memory.held" "By", [],
        "What the heap holds for blocks, in use, cached or free but not given back.", |now, to| to.amount(now.heap().limits.held as u64);
    "freestone_limit_assists_total", None Counter, "freestone.limit.assists" "{assist}", [],
        "Times that a thread gave memory back because it took some above the soft limit.", |now, to| to.count(now.heap().limits.assists);
    "freestone_limit_exceeded_total", None Counter, "freestone.limit.exceeded" "{excess}", [],
        "Times that the heap grew over the soft limit because nothing could be given back in time.", |now, to| to.count(now.heap().limits.exceeded);
    "freestone_limit_refusals_total", None Counter, "freestone.limit.refusals" "{refusal}", [],
        "Times that the hard limit refused memory; what lies idle may have served after all.", |now, to| to.count(now.heap().limits.refusals);
    "freestone_fuse_trips_total", None Counter, "freestone.limit.fuse_trips" "{trip}", [],
        "Times that 95 % of the hard limit were reached.", |now, to| to.count(now.heap().limits.fuse_trips);

    "freestone_exchanges_total", None Counter, "freestone.exchanges" "{exchange}", [],
        "Times that a thread's two arrays of a class changed places.", |now, to| to.count(now.events().exchanges);
    "freestone_refills_total", None Counter, "freestone.refills" "{refill}", [],
        "Times that a thread got blocks from central.", |now, to| to.count(now.events().refills);
    "freestone_flushes_total", None Counter, "freestone.flushes" "{flush}", [],
        "Times that blocks went to central.", |now, to| to.count(now.events().flushes);
    "freestone_depot_takes_total", None Counter, "freestone.depot.takes" "{magazine}", [],
        "Magazines taken from depots.", |now, to| to.count(now.events().depot_takes);
    "freestone_depot_puts_total", None Counter, "freestone.depot.puts" "{magazine}", [],
        "Magazines left in depots.", |now, to| to.count(now.events().depot_puts);
    "freestone_spans", None Gauge, "freestone.spans" "{span}", ["fill" = "freestone.span.fill"],
        "Spans that hold blocks of a size class, without free blocks (full) and with some (partial); the sum is all.", spans;
    "freestone_span_births_total", None Counter, "freestone.span.births" "{span}", [],
        "Spans that began to hold blocks.", |now, to| to.count(now.events().span_births);
    "freestone_span_deaths_total", None Counter, "freestone.span.deaths" "{span}", [],
        "Spans that went back to the page heap.", |now, to| to.count(now.events().span_deaths);
    "freestone_samples_total", None Counter, "freestone.samples" "{allocation}", [],
        "Blocks allocated that were sampled.", |now, to| to.count(now.events().samples);
    "freestone_dropped_frees_total", None Counter, "freestone.dropped_frees" "{allocation}", [],
        "Blocks lost because a signal handler freed them in the middle of an allocation.", |now, to| to.count(now.events().dropped);

    "freestone_slow_path_seconds", Seconds Histogram, "freestone.memory.slow_path.duration" "s", ["path" = "freestone.memory.slow_path"],
        "How long slow paths took; they may lie in each other, a map in a refill.", slow_paths;
    "freestone_os_calls_total", None Counter, "freestone.os.calls" "{call}", ["call" = "freestone.os.call"],
        "Calls to the operating system; the sum is all of them.", os_calls;
    "freestone_anomalies_total", None Counter, "freestone.anomalies" "{anomaly}", ["kind" = "freestone.anomaly.kind"],
        "Seconds in which something was wrong, by rule, since the history started: by init, rates, or the JSON document.", anomalies;
    "freestone_os_refusals_total", None Counter, "freestone.os.refusals" "{call}", [],
        "Calls that the operating system refused.", |now, to| to.count(now.events().refusals);
    "freestone_given_back_bytes_total", Bytes Counter, "freestone.memory.given_back" "By", ["by" = "freestone.memory.given_back.by"],
        "Memory given back to the operating system, at leisure, by threads above the soft limit, or because somebody asked; the sum is what went back.", given_back;
    "freestone_ticks_total", None Counter, "freestone.ticks" "{tick}", [],
        "Times that somebody looked whether memory should go back.", |now, to| to.count(now.events().ticks);
    "freestone_release_rounds_total", None Counter, "freestone.release_rounds" "{round}", [],
        "Times that memory was given back: ticks in which it was, assists, and times that somebody asked.", |now, to| to.count(now.events().release_rounds);
    "freestone_huge_page_pauses_total", None Counter, "freestone.huge_page_pauses" "{pause}", [],
        "Times that the heap did without huge pages for a while, because the kernel took long to find some.", |now, to| to.count(now.events().huge_page_pauses);
    "freestone_recalls_total", None Counter, "freestone.recalls" "{cache}", [],
        "Caches of sleeping threads that were taken.", |now, to| to.count(now.events().recalls);

    "freestone_thread_records", None Gauge, "freestone.thread.records" "{record}", ["state" = "freestone.thread.state"],
        "Thread caches, of threads that live and of ended ones that wait for the next; the sum is all.", thread_records;
    "freestone_background_thread", None Gauge, "freestone.background_thread" "1", [],
        "1 if there is a thread that gives memory back, else 0.", |now, to| to.amount(u64::from(now.heap().background_thread));
    "freestone_approximate", None Gauge, "freestone.approximate" "1", [],
        "1 if threads were so busy that these numbers may not fit each other exactly, else 0.", |now, to| to.amount(u64::from(now.heap().approximate));

    "freestone_tag_allocations_total", None Counter, "freestone.tag.allocations" "{allocation}", ["tag" = "freestone.tag"],
        "Blocks allocated in scopes of a tag, without those in scopes within: the first 128 tags that came up, and `other` for all that came later.", |now, to| tags(now, to, |tag| Value::Count(tag.allocations));
    "freestone_tag_allocated_bytes_total", Bytes Counter, "freestone.tag.allocated" "By", ["tag" = "freestone.tag"],
        "Bytes of these, at block size.", |now, to| tags(now, to, |tag| Value::Count(tag.allocated_bytes));
    "freestone_tag_live_bytes", Bytes Gauge, "freestone.tag.live" "By", ["tag" = "freestone.tag"],
        "What of these is still there: an estimate by samples.", |now, to| tags(now, to, |tag| Value::Amount(signed(tag.live.bytes as u64)));
    "freestone_tag_refused_total", None Counter, "freestone.tag.refused" "{scope}", [],
        "Scopes whose tag was one too many, and which are counted under `other`.", |_, to| to.count(crate::tag::refused());

    "freestone_process_resident_bytes", Bytes Gauge, "freestone.process.resident" "By", ["line" = "freestone.process.line"],
        "What the process has in memory, by whose it is; the sum is its resident set.", process_resident;
    "freestone_process_age_seconds", Seconds Gauge, "freestone.process.age" "s", [],
        "How long ago freestone_process_resident_bytes was read: it is not, more often than it is cheap.", process_age;
    "freestone_info", None Info, "freestone.info" "1", ["version" = "freestone.version", "page_size" = "freestone.page_size", "features" = "freestone.features"],
        "The version of Freestone, bytes of a page of the operating system, and features of freestone-stats.", info;
};

impl Reading {
    fn heap(&self) -> &freestone::Snapshot {
        &self.snapshot.heap
    }

    fn events(&self) -> &Events {
        &self.snapshot.heap.events
    }
}

fn memory(now: &Reading, to: &mut Samples) {
    let ledger = Ledger { snapshot: now.snapshot.clone(), process: Process::default() };
    for line in ledger.lines().iter().filter(|line| line.part == Part::Heap) {
        to.put([line.key.into()], Value::Amount(line.bytes));
    }
}

fn limit(limit: Option<usize>, to: &mut Samples) {
    if let Some(bytes) = limit {
        to.amount(bytes as u64);
    }
}

fn spans(now: &Reading, to: &mut Samples) {
    let sum = |of: fn(&ClassSnapshot) -> u64| now.heap().classes.iter().map(of).fold(0, u64::saturating_add);
    to.amount_of("full", sum(ClassSnapshot::full_spans));
    to.amount_of("partial", sum(|class| class.spans.saturating_sub(class.full_spans())));
}

fn slow_paths(now: &Reading, to: &mut Samples) {
    for path in SlowPath::ALL {
        let times = &now.heap().slow_paths[path as usize];
        let end = |bucket| SlowPathSnapshot::bucket_end_ns(bucket).map_or(f64::INFINITY, seconds);
        let buckets = times.buckets.iter().enumerate().map(|(bucket, &count)| (end(bucket), count)).collect();
        to.put([slow_path_key(path).into()], Value::Histogram(Histogram::new(buckets, seconds(times.total_ns))));
    }
}

fn anomalies(_: &Reading, to: &mut Samples) {
    for (kind, count) in anomaly::Kind::ALL.iter().zip(history::anomaly_counts()) {
        to.count_of(kind.name(), count);
    }
}

fn tags(now: &Reading, to: &mut Samples, of: fn(&TagStats) -> Value) {
    for tag in now.tags.iter() {
        to.put([tag.name.into()], of(tag));
    }
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// Its name in exports.
pub(crate) fn slow_path_key(path: SlowPath) -> &'static str {
    match path {
        SlowPath::Refill => "refill",
        SlowPath::Map => "map",
        SlowPath::Release => "release",
        SlowPath::LockWait => "lock_wait",
        _ => "other",
    }
}

fn os_calls(now: &Reading, to: &mut Samples) {
    let events = now.events();
    to.count_of("map", events.maps);
    to.count_of("unmap", events.unmaps);
    to.count_of("purge", events.purges);
    to.count_of("advise", events.advices);
    to.count_of("move", events.moves);
}

fn given_back(now: &Reading, to: &mut Samples) {
    for (by, kind) in [("release", PauseKind::Release), ("assist", PauseKind::Assist), ("request", PauseKind::ReleaseAll)] {
        to.count_of(by, now.heap().pauses[kind as usize].bytes);
    }
}

fn thread_records(now: &Reading, to: &mut Samples) {
    let pooled = now.heap().thread_records_pooled;
    to.amount_of("in_use", now.heap().thread_records.saturating_sub(pooled) as u64);
    to.amount_of("waiting", pooled as u64);
}

fn process_resident(now: &Reading, to: &mut Samples) {
    for line in now.process.iter().flat_map(|process| process.lines()).filter(|line| line.part == Part::Resident) {
        to.put([line.key.into()], Value::Amount(line.bytes));
    }
}

fn process_age(now: &Reading, to: &mut Samples) {
    if now.process.is_some() {
        to.put([], Value::Seconds(now.process_age.as_secs_f64()));
    }
}

fn info(_: &Reading, to: &mut Samples) {
    let features = [
        ("json", cfg!(feature = "json")),
        ("openmetrics", cfg!(feature = "openmetrics")),
        ("metrics", cfg!(feature = "metrics")),
        ("http", cfg!(feature = "http")),
        ("recorder", cfg!(feature = "recorder")),
    ];
    let features: Vec<&str> = features.iter().filter(|(_, is_on)| *is_on).map(|(name, _)| *name).collect();
    to.put([env!("CARGO_PKG_VERSION").into(), page_bytes().to_string().into(), features.join(",").into()], Value::Count(1));
}

/// The operating system's pages.
fn page_bytes() -> i64 {
    // SAFETY: `sysconf` only reads; it takes any number.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) }
}

#[derive(Clone, Copy)]
enum Side {
    Allocations,
    Frees,
}

/// Powers of two up to the largest size class, and what is beyond the classes. A block counts as what it is, which is at least what was asked for.
fn sizes(heap: &freestone::Snapshot, side: Side) -> Value {
    let largest = heap.classes.iter().map(|class| class.block_bytes as u64).max().unwrap_or(0);
    let ends = std::iter::successors(Some(8_u64), |end| end.checked_mul(2)).take_while(|&end| end < largest.saturating_mul(2));
    let mut buckets: Vec<(f64, u64)> = ends.map(|end| (end as f64, 0)).collect();
    let (beyond, bytes) = match side {
        Side::Allocations => (heap.large.allocations, heap.allocated_bytes),
        Side::Frees => (heap.large.frees, heap.freed_bytes),
    };
    for class in &heap.classes {
        let count = match side {
            Side::Allocations => class.allocations,
            Side::Frees => class.frees,
        };
        let bucket = buckets.partition_point(|&(end, _)| end < class.block_bytes as f64);
        if let Some((_, in_bucket)) = buckets.get_mut(bucket) {
            *in_bucket = in_bucket.saturating_add(count);
        }
    }
    buckets.push((f64::INFINITY, beyond));
    Value::Histogram(Histogram::new(buckets, bytes as f64))
}

/// A number may come out lower than a moment ago where a thread was in a slow path at every attempt to look at it. Whoever computes rates
/// would take that for a restart, so it waits for the truth to catch up.
fn never_back(heap: &mut freestone::Snapshot) {
    static HIGHEST: Mutex<Option<(u32, freestone::Snapshot)>> = Mutex::new(None);
    let Some(mut highest) = patient_lock(&HIGHEST) else { return };
    let process = std::process::id();
    // In the child of a fork other threads' counts are gone, and its counters are new ones to whoever scrapes.
    if let Some((_, before)) = highest.as_ref().filter(|(of, _)| *of == process) {
        raise(heap, before);
    }
    *highest = Some((process, heap.clone()));
}

/// Lifts every counter to what it was. Frees never exceed allocations in either, so they do not in the result.
fn raise(heap: &mut freestone::Snapshot, before: &freestone::Snapshot) {
    let lift = |now: &mut u64, before: u64| *now = before.max(*now);
    for (class, before) in heap.classes.iter_mut().zip(&before.classes) {
        lift(&mut class.allocations, before.allocations);
        lift(&mut class.frees, before.frees);
    }
    lift(&mut heap.large.allocations, before.large.allocations);
    lift(&mut heap.large.frees, before.large.frees);
    lift(&mut heap.large.allocated_bytes, before.large.allocated_bytes);
    lift(&mut heap.large.freed_bytes, before.large.freed_bytes);
    let mut sums = [heap.large.allocations, heap.large.frees, heap.large.allocated_bytes, heap.large.freed_bytes];
    for class in &heap.classes {
        let bytes = class.block_bytes as u64;
        let of_class =
            [class.allocations, class.frees, class.allocations.saturating_mul(bytes), class.frees.saturating_mul(bytes)];
        for (sum, more) in sums.iter_mut().zip(of_class) {
            *sum = sum.saturating_add(more);
        }
    }
    [heap.allocations, heap.frees, heap.allocated_bytes, heap.freed_bytes] = sums;
    lift(&mut heap.limits.assists, before.limits.assists);
    lift(&mut heap.limits.exceeded, before.limits.exceeded);
    lift(&mut heap.limits.fuse_trips, before.limits.fuse_trips);
    lift(&mut heap.limits.refusals, before.limits.refusals);
    for (pauses, before) in heap.pauses.iter_mut().zip(&before.pauses) {
        lift(&mut pauses.count, before.count);
        lift(&mut pauses.total_ns, before.total_ns);
        lift(&mut pauses.bytes, before.bytes);
    }
    for (times, before) in heap.slow_paths.iter_mut().zip(&before.slow_paths) {
        times.buckets.iter_mut().zip(&before.buckets).for_each(|(count, before)| lift(count, *before));
        times.count = times.buckets.iter().copied().fold(0, u64::saturating_add);
        lift(&mut times.total_ns, before.total_ns);
    }
    macro_rules! lift_events {
        ($($name:ident),*) => { $(lift(&mut heap.events.$name, before.events.$name);)* };
    }
    lift_events!(
        exchanges,
        refills,
        flushes,
        depot_takes,
        depot_puts,
        span_births,
        span_deaths,
        maps,
        unmaps,
        purges,
        advices,
        moves,
        refusals,
        record_births,
        record_adoptions,
        release_rounds,
        huge_page_pauses,
        ticks,
        recalls,
        background_starts,
        samples,
        sample_ends,
        dropped
    );
}

/// What the kernel says of the process is read again when so many times as long has passed as that took.
const PAUSE_BETWEEN_READS: u32 = 3_000;

/// What was read of the process last.
struct LastProcess {
    /// The child of a fork is another one.
    of: u32,
    is_being_read: bool,
    read: Option<(Arc<Process>, Instant)>,
    due: Option<Instant>,
}

impl LastProcess {
    const fn of(process: u32) -> Self {
        Self { of: process, is_being_read: false, read: None, due: None }
    }
}

/// What the kernel says of the process, and how old that is. `None` in the child of a fork, where a lock may be held for ever, and in the first
/// minutes of a process that has so much in memory that to read it once were more than its share of that time already.
fn recent_process(snapshot: &Snapshot) -> Option<(Arc<Process>, Duration)> {
    static LAST: Mutex<LastProcess> = Mutex::new(LastProcess::of(0));
    let (began, process) = (Instant::now(), std::process::id());
    let is_first = patient_lock(&LAST).is_some_and(|last| last.of != process || last.read.is_none());
    let age = Duration::from_nanos(snapshot.heap.age_ns);
    if is_first && age < likely_duration(snapshot).saturating_mul(PAUSE_BETWEEN_READS) {
        return None;
    }
    recent(&LAST, process, began, || (Process::read(), began.elapsed()))
}

/// How long the walk over the process will take, if its pages are small. Nothing that is worth waiting for in small processes.
fn likely_duration(snapshot: &Snapshot) -> Duration {
    const PAGE_BYTES: u64 = 4096;
    const PAGE_NS: u64 = 35;
    /// 8 ms.
    const SMALL_BYTES: u64 = 1 << 30;
    let resident = snapshot.resident.map_or(0, |resident| resident.total);
    Duration::from_nanos(if resident < SMALL_BYTES { 0 } else { resident / PAGE_BYTES * PAGE_NS })
}

/// Reads if that is due and nobody else does, or if nothing was read yet; says what was read last.
fn recent(
    last: &Mutex<LastProcess>,
    process: u32,
    now: Instant,
    read: impl FnOnce() -> (Process, Duration),
) -> Option<(Arc<Process>, Duration)> {
    let mut state = patient_lock(last)?;
    if state.of != process {
        *state = LastProcess::of(process);
    }
    let is_due = state.due.is_none_or(|due| now >= due) && !state.is_being_read;
    if is_due || state.read.is_none() {
        state.is_being_read = true;
        // Nobody else waits for the kernel: they take what is there.
        drop(state);
        let (read, took) = read();
        state = patient_lock(last)?;
        let due = now.checked_add(took.saturating_mul(PAUSE_BETWEEN_READS));
        *state = LastProcess { read: Some((Arc::new(read), now)), due, ..LastProcess::of(process) };
    }
    state.read.as_ref().map(|(read, at)| (Arc::clone(read), now.saturating_duration_since(*at)))
}

/// Locks what is only ever held for a moment. `None`: somebody holds it for ever, who is not there: this is the child of a fork. A panic of
/// who held it leaves numbers behind, and numbers can be used.
fn patient_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    for attempt in 0..PATIENCE {
        match mutex.try_lock() {
            Ok(guard) => return Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) if attempt < PATIENCE / 2 => std::thread::yield_now(),
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    None
}

/// So often somebody tries; the later half of them a millisecond apart.
const PATIENCE: u32 = 200;

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeSet;

    use freestone::Pause;

    use super::*;

    /// As large as anything can be, and larger.
    pub(crate) fn extreme() -> Snapshot {
        let mut snapshot = snapshot();
        let heap = &mut snapshot.heap;
        (heap.allocations, heap.frees) = (u64::MAX, u64::MAX);
        (heap.allocated_bytes, heap.freed_bytes) = (u64::MAX, u64::MAX);
        for class in &mut heap.classes {
            (class.allocations, class.frees, class.spans) = (u64::MAX, u64::MAX - 1, u64::MAX);
            (class.thread_cached, class.depot, class.spans_by_free) = (u64::MAX, u64::MAX, [u32::MAX; freestone::SPANS_BY_FREE]);
        }
        (heap.large.allocations, heap.large.frees) = (u64::MAX, 0);
        (heap.large.allocated_bytes, heap.large.freed_bytes) = (u64::MAX, 0);
        // Their sum is one number.
        let ninth = usize::MAX / 9;
        (heap.bytes.live, heap.bytes.thread_cached, heap.bytes.depot) = (ninth, ninth, ninth);
        (heap.bytes.holes, heap.bytes.dirty, heap.bytes.metadata) = (ninth, ninth, ninth);
        (heap.bytes.profiler, heap.bytes.lost_at_fork, heap.bytes.released) = (ninth, ninth, ninth);
        (heap.limits.memory_limit, heap.limits.hard_limit, heap.limits.held) = (Some(usize::MAX), Some(usize::MAX), usize::MAX);
        // More wait than there are: read at two moments.
        (heap.thread_records, heap.thread_records_pooled) = (0, usize::MAX);
        for pauses in &mut heap.pauses {
            (pauses.count, pauses.total_ns, pauses.p50_ns, pauses.p99_ns, pauses.max_ns, pauses.bytes) =
                (u64::MAX, u64::MAX, u64::MAX, u64::MAX, u64::MAX, u64::MAX);
        }
        for times in &mut heap.slow_paths {
            (times.count, times.total_ns, times.buckets) = (u64::MAX, u64::MAX, [u64::MAX; freestone::TIME_BUCKETS]);
        }
        let most = u64::MAX / 8;
        let events = &mut heap.events;
        (events.maps, events.unmaps, events.purges, events.advices, events.moves) = (most, most, most, most, most);
        (events.exchanges, events.refills, events.flushes, events.recalls) = (u64::MAX, u64::MAX, u64::MAX, u64::MAX);
        (events.depot_takes, events.depot_puts, events.refusals) = (u64::MAX, u64::MAX, u64::MAX);
        (events.span_births, events.span_deaths) = (u64::MAX, u64::MAX);
        (heap.limits.assists, heap.limits.exceeded, heap.limits.fuse_trips) = (u64::MAX, u64::MAX, u64::MAX);
        heap.limits.fuse_sticky = true;
        heap.age_ns = u64::MAX;
        let mut longest = Pause::default();
        (longest.kind, longest.took_ns, longest.ended_ns, longest.bytes) = (PauseKind::ReleaseAll, u64::MAX, u64::MAX, u64::MAX);
        heap.background_thread = true;
        heap.approximate = true;
        snapshot.with_longest_pause(longest)
    }

    fn check(reading: &Reading) {
        for metric in all() {
            let mut seen = BTreeSet::new();
            for sample in metric.samples(reading) {
                let keys: Vec<&str> = sample.labels.iter().map(|(key, _)| *key).collect();
                assert_eq!(keys, metric.labels, "{}", metric.name);
                assert!(seen.insert(sample.labels.clone()), "{} has two of {:?}", metric.name, sample.labels);
                match &sample.value {
                    Value::Count(_) => assert!(matches!(metric.kind, Kind::Counter | Kind::Info), "{}", metric.name),
                    Value::Amount(_) => assert_eq!(metric.kind, Kind::Gauge, "{}", metric.name),
                    Value::Seconds(seconds) => {
                        assert_eq!((metric.kind, metric.unit), (Kind::Gauge, Unit::Seconds), "{}", metric.name);
                        assert!(seconds.is_finite(), "{}", metric.name);
                    }
                    Value::Histogram(histogram) => {
                        assert_eq!(metric.kind, Kind::Histogram, "{}", metric.name);
                        assert!(histogram.sum.is_finite(), "{}", metric.name);
                        let total = histogram.buckets.iter().try_fold(0, |sum: u64, (_, count)| sum.checked_add(*count));
                        assert_eq!(total, Some(histogram.count), "{}", metric.name);
                        let ends: Vec<f64> = histogram.buckets.iter().map(|(end, _)| *end).collect();
                        assert!(ends.is_sorted_by(|one, next| one < next), "{}: {ends:?}", metric.name);
                        assert!(ends.last().is_some_and(|end| end.is_infinite()), "{}: {ends:?}", metric.name);
                    }
                }
            }
        }
    }

    #[test]
    fn names_say_kind_and_unit() {
        let mut names = BTreeSet::new();
        for metric in all() {
            let name = metric.name;
            assert!(names.insert(name) && names.insert(metric.otel.name), "{name} is there twice");
            assert!(name.starts_with("freestone_"), "{name}");
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
            assert_eq!(name.ends_with("_total"), metric.kind == Kind::Counter, "{name}");
            assert_eq!(name.ends_with("_info"), metric.kind == Kind::Info, "{name}");
            assert!(name.trim_end_matches("_total").ends_with(metric.unit.as_str()), "{name}");
            assert!(metric.help.ends_with('.') && !metric.help.contains(['\n', '\\', '"']), "{name}: {}", metric.help);
            assert!(metric.otel.name.starts_with("freestone."), "{name}");
            assert!(metric.otel.attributes.iter().all(|key| key.starts_with("freestone.")), "{name}");
            assert_eq!(metric.otel.attributes.len(), metric.labels.len(), "{name}");
            assert_eq!(metric.unit == Unit::Bytes, metric.otel.unit == "By", "{name}");
        }
    }

    #[test]
    fn samples_fit_their_metric_whatever_they_say() {
        check(&Reading::now());
        check(&Reading::of(extreme()));
        let process = Some(Arc::new(Process { resident: Some(u64::MAX), ..Process::default() }));
        check(&Reading { snapshot: extreme(), process, process_age: Duration::MAX, tags: Arc::default() });
    }

    #[test]
    fn families_sum_up() {
        let mut snapshot = snapshot();
        let bytes = &mut snapshot.heap.bytes;
        (bytes.live, bytes.thread_cached, bytes.depot, bytes.holes) = (1 << 20, 1 << 10, 1 << 11, 1 << 12);
        (bytes.dirty, bytes.metadata, bytes.lost_at_fork, bytes.released) = (1 << 13, 1 << 14, 1 << 15, 1 << 16);
        (snapshot.heap.events.maps, snapshot.heap.events.purges, snapshot.heap.events.moves) = (1, 20, 300);
        let reading = Reading::of(snapshot);
        let sum = |name: &str| {
            let metric = all().iter().find(|metric| metric.name == name).expect(name);
            let samples = metric.samples(&reading);
            let of = |sample: &Sample| match sample.value {
                Value::Count(count) => count,
                Value::Amount(amount) => amount.cast_unsigned(),
                _ => panic!("{name}"),
            };
            samples.iter().map(of).sum::<u64>()
        };
        let heap = &reading.snapshot().heap;
        assert_eq!(sum("freestone_memory_bytes"), heap.bytes.committed() as u64);
        assert_eq!(sum("freestone_memory_bytes") + sum("freestone_released_bytes"), sum("freestone_mapped_bytes"));
        assert_eq!(sum("freestone_os_calls_total"), heap.events.os_calls());
    }

    #[test]
    fn sizes_fall_into_their_buckets() {
        let mut snapshot = snapshot();
        for (index, class) in snapshot.heap.classes.iter_mut().enumerate() {
            class.allocations = index as u64 + 1;
        }
        snapshot.heap.large.allocations = 1000;
        let Value::Histogram(histogram) = sizes(&snapshot.heap, Side::Allocations) else { panic!("a histogram") };
        let mut from = 0;
        for &(end, count) in &histogram.buckets[..histogram.buckets.len() - 1] {
            let end = end as usize;
            let here = snapshot.heap.classes.iter().filter(|class| (from + 1..=end).contains(&class.block_bytes));
            assert_eq!(count, here.map(|class| class.allocations).sum::<u64>(), "up to {end}");
            from = end;
        }
        assert_eq!(from, snapshot.heap.classes[freestone::CLASSES - 1].block_bytes);
        assert_eq!(histogram.buckets.last(), Some(&(f64::INFINITY, 1000)));
    }

    #[test]
    fn counters_wait_for_the_truth_to_catch_up() {
        let mut before = snapshot().heap;
        (before.classes[3].allocations, before.classes[3].frees) = (100, 93);
        (before.classes[4].allocations, before.large.allocations, before.large.allocated_bytes) = (7, 2, 1 << 20);
        (before.events.exchanges, before.limits.assists, before.pauses[2].bytes) = (5, 6, 7);
        let mut now = before.clone();
        (now.classes[3].allocations, now.classes[3].frees) = (96, 91);
        (now.classes[4].allocations, now.events.exchanges, now.events.maps) = (8, 4, before.events.maps + 1);
        (now.limits.assists, now.pauses[2].bytes) = (0, 0);
        (before.slow_paths[0].buckets[3], before.slow_paths[0].total_ns) = (5, 900);
        (now.slow_paths[0].buckets[3], now.slow_paths[0].buckets[4], now.slow_paths[0].total_ns) = (4, 2, 800);
        raise(&mut now, &before);
        assert_eq!((now.classes[3].allocations, now.classes[3].frees, now.classes[4].allocations), (100, 93, 8));
        let of_classes: u64 = now.classes.iter().map(|class| class.allocations).sum();
        assert_eq!(now.allocations, of_classes + 2, "the whole is the sum of its parts");
        let bytes = 100 * now.classes[3].block_bytes + 8 * now.classes[4].block_bytes + (1 << 20);
        assert_eq!(now.allocated_bytes, bytes as u64);
        assert_eq!((now.events.exchanges, now.events.maps), (5, before.events.maps + 1));
        assert_eq!((now.limits.assists, now.pauses[2].bytes), (6, 7));
        let times = &now.slow_paths[0];
        let others: u64 = times.buckets.iter().sum::<u64>() - 7;
        assert_eq!((times.buckets[3], times.buckets[4], times.count, times.total_ns), (5, 2, 7 + others, 900));
    }

    #[test]
    fn the_process_is_read_when_that_is_cheap() {
        let last = Mutex::new(LastProcess::of(1));
        let began = Instant::now();
        let read = |of, seconds, said| {
            let mut has_read = false;
            let process = Process { resident: Some(said), ..Process::default() };
            let (process, age) = recent(&last, of, began + Duration::from_secs(seconds), || {
                has_read = true;
                (process, Duration::from_millis(10))
            })
            .expect("nobody else reads it");
            (has_read, process.resident, age.as_secs())
        };
        assert_eq!(read(1, 0, 100), (true, Some(100), 0));
        assert_eq!(read(1, 29, 200), (false, Some(100), 29), "10 ms every 29 s are too much");
        assert_eq!(read(1, 30, 300), (true, Some(300), 0));
        assert_eq!(read(1, 31, 400), (false, Some(300), 1));
        assert_eq!(read(2, 31, 500), (true, Some(500), 0), "the child of a fork");
    }

    #[test]
    fn a_lock_of_a_thread_that_is_not_there_is_no_reason_to_stand_still() {
        let last = Mutex::new(LastProcess::of(1));
        let held = last.lock().expect("nobody has panicked");
        assert!(recent(&last, 1, Instant::now(), || panic!("it is locked")).is_none());
        drop(held);
        assert!(recent(&last, 1, Instant::now(), || (Process::default(), Duration::ZERO)).is_some());
    }

    #[test]
    fn who_comes_while_the_process_is_read_does_not_wait() {
        let last = Mutex::new(LastProcess::of(1));
        let now = Instant::now();
        let read = || (Process::default(), Duration::ZERO);
        let mut reads = 0;
        let first = recent(&last, 1, now, || {
            let beside = recent(&last, 1, now, || {
                reads += 1;
                read()
            });
            assert!(beside.is_some());
            read()
        });
        assert!(first.is_some());
        assert_eq!(reads, 1, "there was nothing yet");
        let beside = recent(&last, 1, now, || {
            assert!(recent(&last, 1, now, || panic!("somebody reads it")).is_some(), "that of before");
            read()
        });
        assert!(beside.is_some());
    }
}
