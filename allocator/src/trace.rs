//! Floor 10. The trace: what the heap does, in lines of text, while it does it. `docs/trace.md` documents every field.
//!
//! ```text
//!   freestone: trace v=1 kind=start    pid=12 t=0.000041 version=0.1.0 … end
//!   freestone: trace v=1 kind=interval pid=12 t=1.000310 dt=1.000269 allocs=81023 … end
//!   freestone: trace v=1 kind=release  pid=12 t=1.100327 who=background bytes=8388608 … end
//!   freestone: trace v=1 kind=anomaly  pid=12 t=2.000402 name=refault_loop … end
//! ```
//!
//! Who looks ten times a second whether memory should go back (the background thread, where there is none threads on their slow paths) also
//! looks whether a line is due: one load where nobody wants any. A turn is one thread's: it tells of what was given back since the last
//! one, and when the interval is over of all that happened in it. Releases are read off their sums, not reported one by one, so that however many
//! slices they take, they are a line per tenth of a second and kind.
//!
//! A line is put together on the stack and written by one call, with no lock held. It never waits for a reader: a line that is not
//! taken at once is lost, and counted in the lines that follow. The word `end` at its end says that it is whole.

use crate::anomaly::{self, Anomaly, Kind, Thresholds, Vitals};
use crate::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use crate::config::TICK_NS;
use crate::line::Line;
use crate::options::{Background, Check, Fuse, HugePages, Options, Retain, Trace as Level};
use crate::os;
use crate::pauses::{PauseKind, PauseSummary, Pauses};
use crate::snapshot::Snapshot;

/// Of the format. A field that is new leaves it as it is; one that goes or means something else raises it.
const VERSION: usize = 1;

/// Longer than any line, and no more than a pipe takes in one piece.
const LINE_BYTES: usize = 2 << 10;

/// Whether there is a trace, and when it has its next turn.
#[derive(Debug)]
pub(crate) struct Trace {
    /// When somebody has to look; 0: there is no trace.
    due_ns: AtomicU64,
    /// Since when times are counted.
    zero_ns: AtomicU64,
    /// When this interval ends.
    next_ns: AtomicU64,
    interval_ns: AtomicU64,
    descriptor: AtomicU32,
    level: AtomicU8,
    /// The next line is the first: of the process, or since something about the trace was changed.
    is_new: AtomicBool,
    /// The last line was written in part.
    is_torn: AtomicBool,
    /// Lines that nobody took.
    lost: AtomicU64,
}

/// What a turn is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Turn {
    /// The trace begins.
    pub(crate) is_first: bool,
    /// An interval is over.
    pub(crate) ends_interval: bool,
}

// Relaxed for all atomics in here: options, times and counts. Of two that want a turn the exchange decides, and what was said last is behind a lock.
impl Trace {
    pub(crate) const fn new() -> Self {
        Self {
            due_ns: AtomicU64::new(0),
            zero_ns: AtomicU64::new(0),
            next_ns: AtomicU64::new(0),
            interval_ns: AtomicU64::new(0),
            descriptor: AtomicU32::new(0),
            level: AtomicU8::new(0),
            is_new: AtomicBool::new(false),
            is_torn: AtomicBool::new(false),
            lost: AtomicU64::new(0),
        }
    }

    /// The heap begins: times are counted from here.
    pub(crate) fn begin(&self, now_ns: u64) {
        self.zero_ns.store(now_ns, Ordering::Relaxed);
    }

    fn line(&self, kind: &'static str, now_ns: u64) -> Fields {
        let mut line = Fields::new();
        line.start(kind, self.since_start(now_ns));
        line
    }

    fn since_start(&self, now_ns: u64) -> u64 {
        now_ns.saturating_sub(self.zero_ns.load(Ordering::Relaxed))
    }

    /// Puts options in force. What did not change goes on as it was.
    pub(crate) fn set(&self, options: &Options) {
        if options.trace == Level::Off {
            if self.is_on() {
                self.due_ns.store(0, Ordering::Relaxed);
            }
            return;
        }
        let interval_ns = options.trace_interval.as_nanos() as u64;
        let before = (
            self.level.swap(options.trace as u8, Ordering::Relaxed),
            self.descriptor.swap(options.trace_fd, Ordering::Relaxed),
            self.interval_ns.swap(interval_ns, Ordering::Relaxed),
        );
        if before != (options.trace as u8, options.trace_fd, interval_ns) || !self.is_on() {
            self.begin_anew();
        }
    }

    fn begin_anew(&self) {
        self.is_new.store(true, Ordering::Relaxed);
        self.next_ns.store(0, Ordering::Relaxed);
        self.due_ns.store(1, Ordering::Relaxed);
    }

    pub(crate) fn is_on(&self) -> bool {
        self.due_ns.load(Ordering::Relaxed) != 0
    }

    /// Does it tell of anomalies?
    pub(crate) fn tells_anomalies(&self) -> bool {
        self.level.load(Ordering::Relaxed) == Level::Anomalies as u8
    }

    /// Must somebody look?
    #[inline]
    pub(crate) fn is_due(&self, now_ns: u64) -> bool {
        let due_ns = self.due_ns.load(Ordering::Relaxed);
        due_ns != 0 && now_ns >= due_ns
    }

    /// How long it is until this interval ends; for ever, where there is no trace.
    pub(crate) fn ns_to_line(&self, now_ns: u64) -> u64 {
        if self.is_on() { self.next_ns.load(Ordering::Relaxed).saturating_sub(now_ns) } else { u64::MAX }
    }

    /// Takes the turn that is due. `None`: somebody else has.
    pub(crate) fn take_turn(&self, now_ns: u64) -> Option<Turn> {
        let due_ns = self.due_ns.load(Ordering::Relaxed);
        if due_ns == 0 || now_ns < due_ns {
            return None;
        }
        let (next_ns, interval_ns) = (self.next_ns.load(Ordering::Relaxed), self.interval_ns.load(Ordering::Relaxed));
        // Most programs that are started in a trace are short: they have nothing to tell but who they are.
        let is_first = self.is_new.load(Ordering::Relaxed);
        let ends_interval = now_ns >= next_ns && !is_first;
        let following_ns = match next_ns + interval_ns {
            _ if is_first => now_ns + interval_ns,
            _ if !ends_interval => next_ns,
            // In step, unless it has been missed.
            following_ns if following_ns > now_ns => following_ns,
            _ => now_ns + interval_ns,
        };
        let again_ns = following_ns.min(now_ns + TICK_NS);
        if self.due_ns.compare_exchange(due_ns, again_ns, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return None;
        }
        self.next_ns.store(following_ns, Ordering::Relaxed);
        if is_first {
            self.is_new.store(false, Ordering::Relaxed);
        }
        Some(Turn { is_first, ends_interval })
    }

    /// The first line: who we are, and what was chosen.
    pub(crate) fn start(&self, now_ns: u64, options: &Options, limits: [Option<usize>; 2]) -> Fields {
        let mut line = self.line("start", now_ns);
        line.seconds("unix", os::wall_clock_ns());
        line.text("version", env!("CARGO_PKG_VERSION"));
        line.count("os_page", os::page_bytes() as u64);
        line.options(options, limits);
        line
    }

    /// What is wrong in the interval that ended then.
    pub(crate) fn anomaly(&self, at_ns: u64, anomaly: &Anomaly) -> Fields {
        let mut line = self.line("anomaly", at_ns);
        line.anomaly(anomaly);
        line
    }

    /// Writes a line. The calling thread holds no lock.
    pub(crate) fn say(&self, line: &mut Fields) {
        let errno = os::KeepErrno::new();
        let line = &mut line.0;
        line.text(" end");
        let text = line.finish();
        let descriptor = self.descriptor.load(Ordering::Relaxed) as i32;
        if self.is_torn.load(Ordering::Relaxed) && os::write_at_once(descriptor, b"\n") == 1 {
            self.is_torn.store(false, Ordering::Relaxed);
        }
        let written = os::write_at_once(descriptor, text);
        if written < text.len() {
            self.lost.fetch_add(1, Ordering::Relaxed);
            if written > 0 {
                self.is_torn.store(true, Ordering::Relaxed);
            }
        }
        drop(errno);
    }

    /// In the child of a fork a trace of its own begins.
    pub(crate) fn after_fork_in_child(&self) {
        if self.is_on() {
            self.lost.store(0, Ordering::Relaxed);
            self.begin_anew();
        }
    }
}

/// What was said last. All zeros at first.
pub(crate) struct Past {
    /// At the ends of the last two intervals. They stay here: they are large, and whoever takes them may have a small stack.
    snapshots: [Snapshot; 2],
    /// Which of them is the later one.
    last: usize,
    /// There is none yet.
    is_new: bool,
    /// In the order of [`PauseKind::RELEASES`].
    releases: [Released; PauseKind::RELEASES.len()],
}

/// Sums of releases when they were looked at last.
#[derive(Clone, Copy)]
struct Released {
    at_ns: u64,
    count: u64,
    bytes: u64,
    total_ns: u64,
    max_ns: u64,
}

impl Released {
    const NONE: Self = Self { at_ns: 0, count: 0, bytes: 0, total_ns: 0, max_ns: 0 };
}

impl Past {
    #[allow(clippy::large_stack_arrays, reason = "evaluated at compile time, into a static")]
    pub(crate) const fn new() -> Self {
        Self {
            snapshots: [const { Snapshot::ZEROS }; 2],
            last: 0,
            is_new: false,
            releases: [Released::NONE; PauseKind::RELEASES.len()],
        }
    }

    /// The trace begins: its first interval is all that happened before.
    pub(crate) fn forget(&mut self) {
        self.is_new = true;
        self.releases = [Released::NONE; PauseKind::RELEASES.len()];
    }

    /// Where the snapshot belongs that ends this interval.
    pub(crate) fn next(&mut self) -> &mut Snapshot {
        &mut self.snapshots[1 - self.last]
    }

    /// Memory that was given back since this was asked last, by the kind of release with this position in [`PauseKind::RELEASES`].
    pub(crate) fn release(
        &mut self,
        position: usize,
        now_ns: u64,
        trace: &Trace,
        pauses: &Pauses,
        has_background: bool,
    ) -> Option<Fields> {
        let kind = PauseKind::RELEASES[position];
        let PauseSummary { count, bytes, total_ns, max_ns, .. } = pauses.summary(kind);
        let now = Released { at_ns: now_ns, count, bytes, total_ns, max_ns };
        let before = core::mem::replace(&mut self.releases[position], now);
        if bytes <= before.bytes {
            return None;
        }
        let mut line = trace.line("release", now_ns);
        line.text(
            "who",
            match kind {
                PauseKind::Assist => "assist",
                PauseKind::ReleaseAll => "asked",
                _ if has_background => "background",
                _ => "slow_path",
            },
        );
        line.count("bytes", bytes - before.bytes);
        line.count("calls", count.saturating_sub(before.count));
        line.seconds("took", total_ns.saturating_sub(before.total_ns));
        // The ring may have lost it.
        let record_ns = if max_ns > before.max_ns { max_ns } else { 0 };
        line.seconds("longest", record_ns.max(pauses.longest_since(before.at_ns)[kind as usize]));
        Some(line)
    }

    /// The interval is over that ends with the [next](Self::next) snapshot. What is to be said goes into `line`, what was wrong into `found`: in place,
    /// because stacks may be small. Says when it ended; `None`: it has no end, because somebody who came later was here before.
    pub(crate) fn interval(
        &mut self,
        resident: Option<usize>,
        trace: &Trace,
        pauses: &Pauses,
        line: &mut Fields,
        found: &mut [Option<Anomaly>; Kind::COUNT],
    ) -> Option<u64> {
        let is_first = core::mem::take(&mut self.is_new);
        if is_first {
            let before = &mut self.snapshots[self.last];
            before.zero();
            before.at_ns = trace.zero_ns.load(Ordering::Relaxed);
        }
        let (before, later) = (&self.snapshots[self.last], &self.snapshots[1 - self.last]);
        if later.at_ns <= before.at_ns && !is_first {
            return None;
        }
        let longest_ns = pauses.longest_since(before.at_ns);
        let mut vitals = Vitals::between(before, later);
        for kind in PauseKind::RELEASES {
            vitals.longest_release_ns = vitals.longest_release_ns.max(longest_ns[kind as usize]);
        }
        // An interval that is far too short, because two threads took turns shortly after each other, would make much of little; and the first
        // may be the whole life of a parent.
        let (took_ns, usual_ns) = (vitals.interval.as_nanos() as u64, trace.interval_ns.load(Ordering::Relaxed));
        if took_ns * 2 >= usual_ns && (!is_first || took_ns <= usual_ns * 2) {
            anomaly::find(&vitals, &Thresholds::DEFAULT, |anomaly| found[anomaly.kind as usize] = Some(anomaly));
        }
        line.start("interval", trace.since_start(later.at_ns));
        line.interval(before, later, &vitals, resident, longest_ns);
        line.count("anomalies", found.iter().flatten().count() as u64);
        line.count("lost", trace.lost.load(Ordering::Relaxed));
        let at_ns = later.at_ns;
        self.last = 1 - self.last;
        Some(at_ns)
    }
}

/// A line with fields.
#[derive(Debug)]
pub(crate) struct Fields(Line<LINE_BYTES>);

impl Fields {
    pub(crate) fn new() -> Self {
        Self(Line::new())
    }

    /// What every line begins with.
    fn start(&mut self, kind: &'static str, at_ns: u64) {
        self.0.text("freestone: trace");
        self.count("v", VERSION as u64);
        self.text("kind", kind);
        self.count("pid", u64::from(os::process_id()));
        self.seconds("t", at_ns);
    }

    fn name(&mut self, name: &'static str) {
        self.0.text(" ");
        self.0.text(name);
        self.0.text("=");
    }

    fn text(&mut self, name: &'static str, value: &'static str) {
        self.name(name);
        self.0.text(value);
    }

    fn count(&mut self, name: &'static str, value: u64) {
        self.name(name);
        self.0.decimal(value as usize);
    }

    fn seconds(&mut self, name: &'static str, ns: u64) {
        self.name(name);
        self.0.seconds(ns);
    }

    fn thousandths(&mut self, name: &'static str, value: f64) {
        self.name(name);
        self.0.thousandths(value);
    }

    /// Where there is one.
    fn perhaps(&mut self, name: &'static str, value: Option<usize>) {
        if let Some(value) = value {
            self.count(name, value as u64);
        }
    }

    /// In the words of the environment.
    fn options(&mut self, options: &Options, [memory_limit, hard_limit]: [Option<usize>; 2]) {
        self.text(
            "check",
            match options.check {
                Check::Sampled => "sampled",
                Check::Exchange => "exchange",
            },
        );
        self.text(
            "huge_pages",
            match options.huge_pages {
                HugePages::Auto => "auto",
                HugePages::Never => "never",
                HugePages::Always => "always",
            },
        );
        match options.retain {
            Retain::Off => self.text("retain", "off"),
            Retain::Keep => self.text("retain", "keep"),
            Retain::Peak { percent, window_ms, steps } => {
                self.count("retain", u64::from(percent));
                self.0.text("%");
                self.seconds("retain_window", u64::from(window_ms) * 1_000_000);
                self.count("retain_steps", u64::from(steps));
            }
        }
        self.text(
            "background",
            match options.background {
                Background::Auto => "auto",
                Background::On => "on",
                Background::Off => "off",
            },
        );
        self.perhaps("memory_limit", memory_limit);
        self.perhaps("hard_limit", hard_limit);
        self.text(
            "fuse",
            match options.fuse {
                Fuse::Off => "off",
                Fuse::Exit => "exit",
            },
        );
        self.count("trace", options.trace as u64);
        self.seconds("trace_interval", options.trace_interval.as_nanos() as u64);
        self.count("trace_fd", u64::from(options.trace_fd));
    }

    fn interval(
        &mut self,
        before: &Snapshot,
        later: &Snapshot,
        vitals: &Vitals,
        resident: Option<usize>,
        longest_ns: [u64; PauseKind::COUNT],
    ) {
        let since = |count: fn(&Snapshot) -> u64| count(later).saturating_sub(count(before));
        self.seconds("dt", vitals.interval.as_nanos() as u64);
        // What was asked for in the interval.
        self.count("allocs", since(|its| its.allocations));
        self.count("frees", since(|its| its.frees));
        self.count("alloc_bytes", since(|its| its.allocated_bytes));
        self.count("free_bytes", since(|its| its.freed_bytes));
        // Where every byte is.
        let bytes = &later.bytes;
        self.count("live_blocks", later.live_blocks());
        for (name, bytes) in [
            ("live", bytes.live),
            ("thread_cached", bytes.thread_cached),
            ("depot", bytes.depot),
            ("holes", bytes.holes),
            ("dirty", bytes.dirty),
            ("metadata", bytes.metadata),
            ("profiler", bytes.profiler),
            ("lost_at_fork", bytes.lost_at_fork),
            ("committed", bytes.committed()),
            ("released", bytes.released),
        ] {
            self.count(name, bytes as u64);
        }
        self.perhaps("resident", resident);
        self.perhaps("memory_limit", later.limits.memory_limit);
        self.perhaps("hard_limit", later.limits.hard_limit);
        // What the slow paths did in the interval.
        self.count("threads", later.thread_records.saturating_sub(later.thread_records_pooled) as u64);
        self.count("refills", since(|its| its.events.refills));
        self.count("flushes", since(|its| its.events.flushes));
        self.count("os_calls", since(|its| its.events.os_calls()));
        self.count("purges", since(|its| its.events.purges));
        self.count("refused", since(|its| its.events.refusals));
        let waits = |its: &Snapshot| {
            let is_wait = |kind: &PauseKind| !PauseKind::RELEASES.contains(kind);
            PauseKind::ALL.iter().filter(|kind| is_wait(kind)).map(|&kind| its.pauses[kind as usize].count).sum()
        };
        self.count("pauses", since(waits));
        let waits = PauseKind::ALL.into_iter().filter(|kind| !PauseKind::RELEASES.contains(kind));
        self.seconds("pause_longest", waits.map(|kind| longest_ns[kind as usize]).max().unwrap_or(0));
        self.count("release_rounds", vitals.release_rounds);
        self.count("release_bytes", vitals.given_back_bytes);
        self.seconds("release_took", since(|its| its.releases().total_ns));
        self.seconds("release_longest", vitals.longest_release_ns);
        self.count("taken_bytes", vitals.taken_bytes());
        self.count("assists", since(|its| its.limits.assists));
        self.count("exceeded", since(|its| its.limits.exceeded));
        self.count("fuse_trips", since(|its| its.limits.fuse_trips));
        self.count("huge_page_pauses", since(|its| its.events.huge_page_pauses));
        // What was asked for since the heap began.
        self.count("allocs_total", later.allocations);
        self.count("frees_total", later.frees);
        self.count("alloc_bytes_total", later.allocated_bytes);
        self.count("free_bytes_total", later.freed_bytes);
        self.count("background_thread", u64::from(later.background_thread));
        self.count("approximate", u64::from(later.approximate));
    }

    fn anomaly(&mut self, anomaly: &Anomaly) {
        self.text("name", anomaly.kind.name());
        self.thousandths("value", anomaly.value);
        self.thousandths("threshold", anomaly.threshold);
        self.perhaps("class", anomaly.class);
        self.perhaps("block", anomaly.block_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::anomaly::ClassVitals;
    use crate::options::Limit;
    use crate::os::sim::World;

    const SECOND_NS: u64 = 1_000_000_000;

    fn text(line: Fields) -> String {
        let mut line = line.0;
        line.text(" end");
        String::from_utf8(line.finish().to_vec()).expect("ASCII")
    }

    fn on(trace: Level, interval_ms: u64, fd: u32) -> Options {
        let trace_interval = core::time::Duration::from_millis(interval_ms);
        Options { trace, trace_interval, trace_fd: fd, ..Options::DEFAULT }
    }

    /// A line of each kind, with every field that there can be.
    fn fullest_lines() -> Vec<String> {
        let trace = Trace::new();
        trace.set(&Options { retain: Retain::DEFAULT, memory_limit: Limit::Bytes(1), ..on(Level::Anomalies, 1_000, 2) });
        let (mut past, pauses) = (Box::new(Past::new()), Box::new(Pauses::new()));
        let mut lines = vec![text(trace.start(1, &Options { trace: Level::Lines, ..Options::DEFAULT }, [Some(1), Some(2)]))];
        pauses.remember(PauseKind::Assist, 5, 5, 5);
        lines.extend(past.release(1, 10, &trace, &pauses, false).map(text));
        past.forget();
        let later = past.next();
        *later = Snapshot { at_ns: SECOND_NS, ..Snapshot::empty() };
        (later.limits.memory_limit, later.limits.hard_limit) = (Some(1), Some(2));
        let mut found = [None; Kind::COUNT];
        let mut line = Fields::new();
        lines.extend(past.interval(Some(1), &trace, &pauses, &mut line, &mut found).map(|_| text(line)));
        let mut vitals = Vitals { interval: core::time::Duration::from_secs(1), ..Vitals::default() };
        vitals.classes[3] = ClassVitals { allocations: 1_000_000, live: 0 };
        let storm = Kind::AllocationStorm.measure(&vitals, &Thresholds::DEFAULT).expect("a storm");
        lines.push(text(trace.anomaly(SECOND_NS, &storm)));
        lines
    }

    fn names(line: &str) -> impl Iterator<Item = &str> {
        line.split_whitespace().skip(2).map(|field| field.split('=').next().unwrap_or_default())
    }

    #[test]
    fn every_field_is_documented_and_no_other() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/trace.md");
        let page = std::fs::read_to_string(path).expect("the page is there");
        // Section by section: the names in the first column, in code.
        let documented = |title: &str| -> BTreeSet<String> {
            let section = page.split("\n## ").find(|section| section.starts_with(title)).expect("the section is there");
            let rows = section.lines().skip_while(|line| !line.starts_with("| field")).take_while(|line| line.starts_with('|'));
            rows.filter_map(|row| row.split('|').nth(1))
                .flat_map(|cell| cell.split('`').skip(1).step_by(2).map(ToString::to_string).collect::<Vec<_>>())
                .collect()
        };
        let everywhere = documented("Every line");
        let lines = fullest_lines();
        assert_eq!(lines.len(), 4);
        for line in &lines {
            let kind = line.split("kind=").nth(1).and_then(|rest| rest.split(' ').next()).expect("a kind");
            let written: BTreeSet<String> = names(line).map(ToString::to_string).collect();
            assert_eq!(written.len(), names(line).count(), "a field stands twice: {line}");
            let expected: BTreeSet<String> = everywhere.union(&documented(&format!("`kind={kind}`"))).cloned().collect();
            assert_eq!(written, expected, "{kind}");
        }
        for kind in Kind::ALL {
            assert!(page.contains(&format!("\n| `{}` | {} |", kind.name(), kind.unit())), "{kind}");
        }
    }

    #[test]
    fn the_longest_line_fits() {
        let room = |line: &String| LINE_BYTES - line.len();
        let fields = |line: &String| names(line).count();
        for line in fullest_lines() {
            assert!(line.ends_with(" end\n"), "{line}");
            // Were every number as long as one can be.
            assert!(room(&line) >= 19 * fields(&line) || line.contains("kind=interval"), "{line}");
            assert!(room(&line) >= 16 * fields(&line), "{} fields, {} bytes are free: {line}", fields(&line), room(&line));
        }
    }

    #[test]
    fn a_start_says_what_is_in_force() {
        let trace = Trace::new();
        trace.begin(5 * SECOND_NS);
        let options = Options { retain: Retain::Off, ..on(Level::Anomalies, 500, 7) };
        let line = text(trace.start(7 * SECOND_NS, &options, [None, Some(64)]));
        let version = env!("CARGO_PKG_VERSION");
        assert!(
            line.starts_with(&format!("freestone: trace v=1 kind=start pid={} t=2.000000 unix=", std::process::id())),
            "{line}"
        );
        let ending = " check=sampled huge_pages=auto retain=off background=auto hard_limit=64 fuse=off trace=2 trace_interval=0.500000 trace_fd=7 end\n";
        assert!(line.contains(&format!(" version={version} os_page=")) && line.ends_with(ending), "{line}");
    }

    #[test]
    fn turns_come_at_every_tick_and_end_intervals_in_step() {
        let trace = Trace::new();
        assert!(!trace.is_due(u64::MAX));
        assert_eq!((trace.ns_to_line(1), trace.take_turn(u64::MAX)), (u64::MAX, None));
        trace.set(&on(Level::Lines, 1_000, 2));
        let mut ended = Vec::new();
        let mut first = 0;
        for now_ms in (2_000..6_000).step_by(10) {
            let now_ns = now_ms * 1_000_000;
            if let Some(turn) = trace.is_due(now_ns).then(|| trace.take_turn(now_ns)).flatten() {
                first += u32::from(turn.is_first);
                ended.extend(turn.ends_interval.then_some(now_ms));
                assert_eq!(trace.take_turn(now_ns), None, "a turn is one thread's");
            }
        }
        assert_eq!((first, ended), (1, vec![3_000, 4_000, 5_000]));
        // Missed for long: not made up for.
        assert!(trace.take_turn(60 * SECOND_NS).is_some_and(|turn| turn.ends_interval));
        assert_eq!(trace.take_turn(60 * SECOND_NS + 1), None);
        assert_eq!(trace.ns_to_line(60 * SECOND_NS), SECOND_NS);
        assert!(trace.take_turn(60 * SECOND_NS + TICK_NS).is_some_and(|turn| !turn.ends_interval));
        trace.set(&Options::DEFAULT);
        assert!(!trace.is_due(u64::MAX));
    }

    #[test]
    fn it_begins_anew_when_it_is_changed_and_in_a_child() {
        let trace = Trace::new();
        let begins = || trace.take_turn(100 * SECOND_NS).is_some_and(|turn| turn.is_first && !turn.ends_interval);
        trace.after_fork_in_child();
        assert!(!begins(), "there is no trace");
        for options in [
            on(Level::Lines, 1_000, 2),
            on(Level::Anomalies, 1_000, 2),
            on(Level::Anomalies, 500, 2),
            on(Level::Anomalies, 500, 3),
        ] {
            trace.set(&options);
            assert!(begins(), "{options:?}");
            trace.set(&Options { retain: Retain::Keep, ..options });
            assert!(!begins(), "nothing of it changed");
        }
        trace.after_fork_in_child();
        assert!(begins());
        trace.set(&Options::DEFAULT);
        trace.set(&on(Level::Anomalies, 500, 3));
        assert!(begins(), "it was off in between");
    }

    #[test]
    fn releases_are_told_once() {
        let (trace, mut past, pauses) = (Trace::new(), Box::new(Past::new()), Box::new(Pauses::new()));
        let mut told = |now_ns, background| -> Vec<String> {
            let lines = (0..3).filter_map(|kind| past.release(kind, now_ns, &trace, &pauses, background).map(text));
            lines.map(|line| line.split_once(" who=").expect("who").1.to_owned()).collect()
        };
        assert_eq!(told(1, true), [""; 0]);
        pauses.remember(PauseKind::Release, 10, 7_000, 4096);
        pauses.remember(PauseKind::Release, 20, 3_000, 8192);
        pauses.remember(PauseKind::ReleaseAll, 30, 50_000, 1);
        pauses.remember(PauseKind::PageHeap, 30, 900_000, 1 << 20);
        assert_eq!(
            told(40, true),
            [
                "background bytes=12288 calls=2 took=0.000010 longest=0.000007 end\n",
                "asked bytes=1 calls=1 took=0.000050 longest=0.000050 end\n",
            ]
        );
        assert_eq!(told(50, true), [""; 0]);
        pauses.remember(PauseKind::Release, 60, 2_000, 16);
        pauses.remember(PauseKind::Assist, 60, 1_000, 32);
        // One that gave nothing.
        pauses.remember(PauseKind::ReleaseAll, 60, 1_000, 0);
        assert_eq!(
            told(70, false),
            [
                "slow_path bytes=16 calls=1 took=0.000002 longest=0.000002 end\n",
                "assist bytes=32 calls=1 took=0.000001 longest=0.000001 end\n",
            ]
        );
    }

    #[test]
    fn an_interval_is_the_difference_of_two_moments() {
        let (trace, mut past, pauses) = (Trace::new(), Box::new(Past::new()), Box::new(Pauses::new()));
        trace.set(&on(Level::Anomalies, 1_000, 2));
        past.forget();
        let mut moment = Snapshot { at_ns: 3 * SECOND_NS, ..Snapshot::empty() };
        (moment.allocations, moment.frees) = (100, 40);
        (moment.classes[2].allocations, moment.classes[2].frees) = (50_000_000, 50_000_000);
        let mut said = |moment: &Snapshot| {
            let mut found = [None; Kind::COUNT];
            *past.next() = moment.clone();
            let mut line = Fields::new();
            let line = past.interval(None, &trace, &pauses, &mut line, &mut found).map(|_| text(line));
            (line.unwrap_or_default(), found.iter().flatten().map(|anomaly| anomaly.kind).collect::<Vec<_>>())
        };
        let (line, found) = said(&moment);
        assert!(line.contains(" t=3.000000 dt=3.000000 allocs=100 frees=40 "), "all that was before: {line}");
        assert!(!line.contains("resident="), "{line}");
        assert_eq!(found, [], "and not judged, where that is long");
        assert_eq!(said(&moment).0, "", "no time has passed");
        moment.at_ns += SECOND_NS;
        (moment.allocations, moment.frees) = (107, 40);
        (moment.classes[2].allocations, moment.classes[2].frees) = (55_000_000, 55_000_000);
        let (line, found) = said(&moment);
        assert!(line.contains(" dt=1.000000 allocs=7 frees=0 ") && line.contains(" allocs_total=107 "), "{line}");
        assert!(line.contains(" anomalies=1 lost=0 "), "{line}");
        assert_eq!(found, [Kind::AllocationStorm]);
        moment.at_ns += SECOND_NS / 4;
        (moment.classes[2].allocations, moment.classes[2].frees) = (60_000_000, 60_000_000);
        assert_eq!(said(&moment).1, [], "far too short to be judged");
    }

    #[test]
    fn what_nobody_takes_is_lost_and_counted() {
        let world = World::new();
        let _here = world.enter();
        let mut ends = [0; 2];
        // SAFETY: a place for two descriptors.
        assert_eq!(unsafe { libc::pipe(ends.as_mut_ptr()) }, 0);
        let [reader, writer] = ends;
        let trace = Trace::new();
        trace.set(&on(Level::Lines, 1_000, writer as u32));
        let lost = || trace.lost.load(Ordering::Relaxed);
        // Until it is full. Who waited would wait for ever.
        let mut taken = 0;
        while lost() == 0 {
            trace.say(&mut trace.line("start", 1));
            taken += 1;
            assert!(taken < 100_000);
        }
        assert!(taken > 100);
        let mut bytes = vec![0; 1 << 20];
        // SAFETY: `bytes` is writable.
        let got = unsafe { libc::read(reader, bytes.as_mut_ptr().cast(), bytes.len()) };
        let told = String::from_utf8_lossy(&bytes[..got as usize]).into_owned();
        assert_eq!(told.lines().count(), taken - 1, "whole lines only");
        assert!(told.lines().all(|line| line.ends_with(" end")));
        // There is room again.
        trace.say(&mut trace.line("start", 1));
        assert_eq!(lost(), 1);
        // SAFETY: a descriptor of ours.
        unsafe { libc::close(reader) };
        trace.say(&mut trace.line("start", 1));
        assert_eq!(lost(), 2, "nobody reads");
        // SAFETY: a descriptor of ours.
        unsafe { libc::close(writer) };
        trace.set(&on(Level::Lines, 1_000, i32::MAX as u32));
        trace.say(&mut trace.line("start", 1));
        assert_eq!(lost(), 3, "it is not open");
    }
}
