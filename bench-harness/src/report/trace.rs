//! A log with a trace in it, as a summary: what the program allocated, what memory it had, what went back, and what was wrong.
//!
//! The log is read once, from its beginning to its end; of an interval no more is kept than its rates. A log may hold the traces of several processes,
//! and of one process several: a `kind=start` begins another one.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::BufRead;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use comfy_table::Table;
use freestone::anomaly::Kind;
use freestone_stats::trace::{Anomaly, Event, Interval, Line, ParseError, Release, Start, parse_all};
use jiff::Timestamp;

use super::{BYTES, Format, TIMES, plural, print_right, thousands, unit, value};
use crate::statistics::Estimate;

/// So many traces of a log are shown; a program that forks a lot has one per child.
const SHOWN: usize = 8;

/// What a log says.
#[derive(Default)]
pub(crate) struct Log {
    /// In the order in which they begin.
    traces: Vec<Trace>,
    /// Lines of the log, of all kinds.
    lines: u64,
    /// Lines of the trace that cannot be read.
    unreadable: u64,
    /// The first of them, and why.
    first_unreadable: Option<(u64, ParseError)>,
    /// The last line of the log was cut off.
    is_cut: bool,
}

/// A trace: from one `kind=start` of a process to the next.
#[derive(Default)]
struct Trace {
    pid: u32,
    start: Option<Box<Start>>,
    begin: Duration,
    end: Duration,
    first: Option<Box<Interval>>,
    last: Option<Box<Interval>>,
    intervals: u64,
    /// Since the heap began, or the first line of a log that lacks the beginning.
    sums: Sums,
    /// Of every interval, but for a first one that is long.
    rates: Rates,
    /// Of `live`, `committed` and `resident`.
    peaks: [u64; 3],
    releases: BTreeMap<String, Released>,
    anomalies: BTreeMap<String, Found>,
    /// Intervals in which there were anomalies, told by name or not.
    uneasy: u64,
}

#[derive(Default)]
struct Sums {
    allocs: u64,
    alloc_bytes: u64,
    frees: u64,
    os_calls: u64,
    purges: u64,
    refused: u64,
    pause_longest: Duration,
    pauses: u64,
}

#[derive(Default)]
struct Rates {
    allocs: Vec<f64>,
    alloc_bytes: Vec<f64>,
    os_calls: Vec<f64>,
}

/// All releases by somebody.
#[derive(Default)]
struct Released {
    lines: u64,
    bytes: u64,
    calls: u64,
    took: Duration,
    longest: Duration,
}

/// All anomalies of a name.
struct Found {
    count: u64,
    first: Duration,
    last: Duration,
    worst: Anomaly,
}

impl Log {
    /// Reads a log; `name` is what it is called in a message.
    pub(crate) fn read(log: impl BufRead, name: &str) -> Result<Self> {
        let mut read = Self::default();
        let mut lines = parse_all(log);
        let mut last_unreadable = 0;
        for line in lines.by_ref() {
            match line.with_context(|| format!("cannot read {name}"))? {
                (_, Ok(line)) => read.add(line),
                (number, Err(error)) => {
                    read.unreadable += 1;
                    last_unreadable = number;
                    read.is_cut = error == ParseError::Truncated;
                    read.first_unreadable.get_or_insert((number, error));
                }
            }
        }
        read.lines = lines.number();
        // Of a program that ended while it wrote, or a log that is still written, the end is missing, and nothing else.
        read.is_cut &= last_unreadable == read.lines;
        if read.is_cut {
            read.unreadable -= 1;
            read.first_unreadable.take_if(|(number, _)| *number == last_unreadable);
        }
        ensure!(read.lines > 0, "{name} is empty");
        if read.traces.is_empty() {
            let reason = read.first_unreadable.as_ref().map(|(number, error)| format!("line {number}: {error}"));
            let reason = reason.or_else(|| read.is_cut.then(|| "its last line is one, but was cut off".to_owned()));
            let reason = reason.unwrap_or_else(|| "FREESTONE=trace:1 makes a program on Freestone write one".to_owned());
            anyhow::bail!("{name} has no line of a trace that can be read; {reason}");
        }
        Ok(read)
    }

    fn add(&mut self, line: Line) {
        let begins = matches!(line.event, Event::Start(_));
        let open = self.traces.iter().rposition(|trace| trace.pid == line.pid).filter(|_| !begins);
        let index = open.unwrap_or_else(|| {
            self.traces.push(Trace { pid: line.pid, begin: line.t, ..Trace::default() });
            self.traces.len() - 1
        });
        self.traces[index].add(line);
    }

    /// What is wrong with the log itself, if anything is.
    pub(crate) fn problem(&self) -> Option<String> {
        let (number, error) = self.first_unreadable.as_ref()?;
        let count = self.unreadable;
        Some(format!("{count} line{} of the trace cannot be read; the first is line {number}: {error}", plural(count as usize)))
    }

    /// The summary.
    pub(crate) fn print(&self, format: Format) -> String {
        let mut text = String::new();
        // Those that tell the most, in the order in which they began.
        let mut order: Vec<usize> = (0..self.traces.len()).collect();
        order.sort_by_key(|&index| std::cmp::Reverse(self.traces[index].intervals));
        let told = self.traces.iter().filter(|trace| trace.intervals > 0).count();
        order.truncate(told.clamp(1, SHOWN));
        order.sort_unstable();
        let left = self.traces.len() - order.len();
        for index in order {
            self.traces[index].print(&mut text, format);
        }
        let silent = self.traces.len() - told.max(1);
        if left > silent {
            let _ = writeln!(
                text,
                "\n{} shorter trace{} not shown.",
                left - silent,
                if left - silent == 1 { " is" } else { "s are" }
            );
        }
        if silent > 0 {
            let _ =
                writeln!(text, "\n{silent} more trace{} nothing but a beginning.", if silent == 1 { " tells" } else { "s tell" });
        }
        if self.is_cut {
            let _ = writeln!(
                text,
                "\nThe last line of the log was cut off: the program ended while it wrote, or it is still writing."
            );
        }
        text
    }
}

impl Trace {
    fn add(&mut self, line: Line) {
        self.end = self.end.max(line.t);
        match line.event {
            Event::Start(start) => self.start = Some(start),
            Event::Interval(interval) => self.add_interval(interval),
            Event::Release(release) => self.releases.entry(release.who.to_string()).or_default().add(&release),
            Event::Anomaly(anomaly) => self.add_anomaly(anomaly, line.t),
            _ => {}
        }
    }

    fn add_interval(&mut self, interval: Box<Interval>) {
        let its = &*interval;
        if self.intervals == 0 {
            self.begin = self.end.saturating_sub(its.dt);
        }
        self.intervals += 1;
        let sums = &mut self.sums;
        for (sum, count) in [
            (&mut sums.allocs, its.allocs),
            (&mut sums.alloc_bytes, its.alloc_bytes),
            (&mut sums.frees, its.frees),
            (&mut sums.os_calls, its.os_calls),
            (&mut sums.purges, its.purges),
            (&mut sums.refused, its.refused),
            (&mut sums.pauses, its.pauses),
            (&mut self.uneasy, u64::from(its.anomalies > 0)),
        ] {
            *sum = sum.saturating_add(count);
        }
        sums.pause_longest = sums.pause_longest.max(its.pause_longest);
        for (peak, bytes) in self.peaks.iter_mut().zip([its.live, its.committed, its.resident.unwrap_or(0)]) {
            *peak = bytes.max(*peak);
        }
        // The first one may be the whole life of a process that was traced late.
        let usual = self.start.as_ref().map_or(Duration::MAX, |start| start.trace_interval.saturating_mul(2));
        let seconds = its.dt.as_secs_f64();
        if seconds > 0.0 && (self.first.is_some() || its.dt <= usual) {
            self.rates.allocs.push(its.allocs as f64 / seconds);
            self.rates.alloc_bytes.push(its.alloc_bytes as f64 / seconds);
            self.rates.os_calls.push(its.os_calls as f64 / seconds);
        }
        if self.first.is_none() {
            self.first = Some(interval.clone());
        }
        self.last = Some(interval);
    }

    fn add_anomaly(&mut self, anomaly: Anomaly, t: Duration) {
        let found = self.anomalies.entry(anomaly.name.clone()).or_insert_with(|| Found {
            count: 0,
            first: t,
            last: t,
            worst: anomaly.clone(),
        });
        found.count += 1;
        found.last = t;
        if anomaly.value > found.worst.value {
            found.worst = anomaly;
        }
    }

    fn print(&self, text: &mut String, format: Format) {
        let heading = if format == Format::Markdown { "## " } else { "" };
        let gap = if text.is_empty() { "" } else { "\n" };
        let _ = writeln!(text, "{gap}{heading}Process {}, {}", self.pid, self.when());
        let (Some(first), Some(last)) = (&self.first, &self.last) else {
            let _ = writeln!(text, "\nNo interval was told: the program ended within the first, or the log does not have it.");
            self.print_releases(text, format);
            return;
        };
        if let Some(start) = &self.start {
            let _ = writeln!(text, "\n{}", in_force(start));
        } else {
            let _ = writeln!(text, "\nThe log begins in the middle of its trace.");
        }
        self.print_memory(text, first, last, format);
        self.print_rates(text, format);
        let sums = &self.sums;
        let _ = writeln!(
            text,
            "\n{} block{} allocated, {} freed; {} live at the end.",
            thousands(sums.allocs as f64),
            if sums.allocs == 1 { " was" } else { "s were" },
            thousands(sums.frees as f64),
            thousands(last.live_blocks as f64)
        );
        if sums.refused > 0 {
            let _ = writeln!(
                text,
                "The system refused {} of {} calls.",
                thousands(sums.refused as f64),
                thousands(sums.os_calls as f64)
            );
        }
        if sums.pauses > 0 {
            let count = thousands(sums.pauses as f64);
            let _ = writeln!(text, "{count} slow paths took more than 0.1 ms, the longest {}.", time(sums.pause_longest));
        }
        self.print_releases(text, format);
        self.print_anomalies(text, format);
        if last.lost > 0 {
            let _ = writeln!(
                text,
                "\n{} line{} of this trace nobody took: what is said here lacks what they told.",
                thousands(last.lost as f64),
                plural(last.lost as usize)
            );
        }
    }

    /// How long it was, and from when.
    fn when(&self) -> String {
        let took = seconds(self.end.saturating_sub(self.begin));
        let intervals = format!("{} interval{}", thousands(self.intervals as f64), plural(self.intervals as usize));
        let date = self.start.as_ref().and_then(|start| Timestamp::from_second(start.unix.as_secs().try_into().ok()?).ok());
        let from = date.map(|date| format!(", from {date}")).unwrap_or_default();
        format!("{took} in {intervals}{from}")
    }

    fn print_memory(&self, text: &mut String, first: &Interval, last: &Interval, format: Format) {
        let mut table = Table::new();
        table.set_header(["", "start", "peak", "end"]);
        let names = ["live", "committed", "resident, files aside"];
        let of = |its: &Interval| [Some(its.live), Some(its.committed), its.resident];
        for (((name, first), last), peak) in names.into_iter().zip(of(first)).zip(of(last)).zip(self.peaks) {
            if let (Some(first), Some(last)) = (first, last) {
                table.add_row([name.to_owned(), bytes(first), bytes(peak), bytes(last)]);
            }
        }
        print_right(text, "Memory", "At the ends of intervals: what came and went within one is not seen.", table, format);
    }

    fn print_rates(&self, text: &mut String, format: Format) {
        let mut table = Table::new();
        table.set_header(["per second", "least", "median", "most"]);
        let names = ["allocations", "bytes allocated", "calls to the system"];
        for (name, rates) in names.into_iter().zip([&self.rates.allocs, &self.rates.alloc_bytes, &self.rates.os_calls]) {
            let Some(estimate) = Estimate::of(rates.iter().copied()) else { return };
            let (least, most) = (rates.iter().copied().fold(f64::INFINITY, f64::min), rates.iter().copied().fold(0.0, f64::max));
            let shown = [least, estimate.median, most]
                .map(|rate| if name.starts_with("bytes") { bytes(rate as u64) } else { thousands(rate) });
            table.add_row([name.to_owned()].into_iter().chain(shown));
        }
        print_right(text, "Rates", "", table, format);
    }

    fn print_releases(&self, text: &mut String, format: Format) {
        if self.releases.is_empty() {
            return;
        }
        let mut table = Table::new();
        table.set_header(["by", "lines", "calls", "bytes", "took", "longest"]);
        for (who, its) in &self.releases {
            let words = match who.as_str() {
                "background" => "the background thread",
                "slow_path" => "threads on slow paths",
                "assist" => "threads above the limit",
                "asked" => "who asked",
                other => other,
            };
            let [lines, calls] = [its.lines, its.calls].map(|count| thousands(count as f64));
            table.add_row([words.to_owned(), lines, calls, bytes(its.bytes), time(its.took), time(its.longest)]);
        }
        print_right(text, "Memory given back", "", table, format);
    }

    fn print_anomalies(&self, text: &mut String, format: Format) {
        let heading = if format == Format::Markdown { "### " } else { "" };
        if self.anomalies.is_empty() {
            let _ = match self.uneasy {
                0 => writeln!(text, "\nNo anomalies."),
                uneasy => writeln!(
                    text,
                    "\nIn {} interval{} there were anomalies; FREESTONE=trace:2 names them.",
                    thousands(uneasy as f64),
                    plural(uneasy as usize)
                ),
            };
            return;
        }
        let _ = writeln!(text, "\n{heading}Anomalies");
        for (name, found) in &self.anomalies {
            let worst = &found.worst;
            let (kind, count) = (worst.kind(), found.count);
            let times = match count {
                1 => format!("at {}", seconds(found.first)),
                _ => format!("in {} intervals from {} to {}", thousands(count as f64), seconds(found.first), seconds(found.last)),
            };
            let amount = |amount: f64| match kind {
                Some(Kind::CacheHoarding | Kind::RefaultLoop) => bytes(amount as u64),
                _ => short(amount),
            };
            let unit = match kind {
                Some(Kind::CacheHoarding) | None => "",
                Some(Kind::RefaultLoop) => "/s",
                Some(kind) => &format!(" {}", kind.unit()),
            };
            let block = worst.block.map(|block| format!(", in blocks of {block} bytes")).unwrap_or_default();
            let (value, threshold) = (amount(worst.value), amount(worst.threshold));
            let _ = writeln!(text, "\n{name} {times}");
            let _ = writeln!(text, "  {value}{unit} at worst{block}; more than {threshold} is too much");
            for line in wrapped(kind.map_or("a rule that this version does not know", Kind::explanation)) {
                let _ = writeln!(text, "  {line}");
            }
        }
    }
}

impl Released {
    fn add(&mut self, release: &Release) {
        self.lines += 1;
        self.bytes = self.bytes.saturating_add(release.bytes);
        self.calls = self.calls.saturating_add(release.calls);
        self.took = self.took.saturating_add(release.took);
        self.longest = self.longest.max(release.longest);
    }
}

/// Who wrote it, and what of the options is not as usual.
fn in_force(start: &Start) -> String {
    let mut text = format!("Freestone {}", start.version);
    let usual = [
        ("check", &start.check, "sampled"),
        ("huge_pages", &start.huge_pages, "auto"),
        ("retain", &start.retain, "10%"),
        ("background", &start.background, "auto"),
        ("fuse", &start.fuse, "off"),
    ];
    for (name, value, usual) in usual {
        if value != usual {
            let _ = write!(text, ", {name}:{value}");
        }
    }
    for (name, limit) in [("memory_limit", start.memory_limit), ("hard_limit", start.hard_limit)] {
        if let Some(limit) = limit {
            let _ = write!(text, ", {name} {}", bytes(limit));
        }
    }
    text
}

/// In lines that a terminal of 100 columns shows.
fn wrapped(text: &str) -> Vec<String> {
    const WIDTH: usize = 96;
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

fn bytes(bytes: u64) -> String {
    if bytes < 1024 { format!("{bytes} B") } else { in_unit(bytes as f64, BYTES) }
}

fn time(time: Duration) -> String {
    in_unit(time.as_nanos() as f64, TIMES)
}

/// A point in time, or a long stretch of it.
fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

fn in_unit(amount: f64, units: super::Units) -> String {
    let estimate = Estimate::of([amount]);
    value(amount, unit(&[estimate], units))
}

/// A number with as many digits as it needs: `893,608`, `12.5`, `6`.
fn short(amount: f64) -> String {
    if amount >= 100.0 || amount.fract() == 0.0 { thousands(amount) } else { format!("{amount:.1}") }
}
