//! The tables of a session, and what they come to.
//!
//! Every row compares Freestone with the best of the others in that row, which is harder than with any one of them. The comparison is
//! made run by run: in every round the other's figure is divided by Freestone's, and the median of these ratios is shown with its interval.
//! The other is chosen by its median, so where two are about equal it is the one that had luck: an advantage that Freestone does not get.
//!
//! Sessions of preloaded subjects have tables of their own: [`program`] and [`patterns`]. [`trace`] is no session's: it sums up a log.

mod patterns;
mod program;
mod trace;

use std::collections::BTreeMap;
use std::fmt::Write;

use anstyle::{AnsiColor, Style};
use comfy_table::{CellAlignment, ContentLineStyle, LineStyle, Table, TableStyle, presets};
use freestone_bench::workload;

pub(crate) use trace::Log;

use crate::machine::is_busy;
use crate::record::{Kept, Kind, Measurement, Outcome};
use crate::statistics::{Estimate, Side, geometric_mean};
use crate::subjects::{FREESTONE, Subject};

/// How to print.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Format {
    /// For a terminal; the styles are stripped elsewhere.
    Text,
    /// For a README.
    Markdown,
}

/// Units from large to small: from which value on, and its name.
pub(crate) type Units = &'static [(f64, &'static str)];

pub(crate) const TIMES: Units = &[(1e9, "s"), (1e6, "ms"), (1e3, "µs"), (1.0, "ns")];
const MIB: f64 = 1024.0 * 1024.0;
pub(crate) const BYTES: Units = &[(1024.0 * MIB, "GiB"), (MIB, "MiB"), (1024.0, "KiB")];
pub(crate) const COUNTS: Units = &[(1.0, "")];

/// Something that was measured. Less is better.
struct Metric {
    title: &'static str,
    of: fn(&Measurement) -> f64,
    units: Units,
    better: &'static str,
    worse: &'static str,
}

const TIME: Metric = Metric {
    title: "Time per operation",
    of: |measurement| measurement.nanos as f64 / measurement.operations.max(1) as f64,
    units: TIMES,
    better: "faster",
    worse: "slower",
};

const MEMORY: Metric = Metric {
    title: "Peak memory of the process (RSS)",
    of: |measurement| measurement.peak_rss_bytes as f64,
    units: BYTES,
    better: "smaller",
    worse: "larger",
};

/// The note of what a process took of the processors.
pub(crate) const CPU_NOTE: &str = "cpu_ns";

/// All runs of one subject on one workload.
#[derive(Default)]
struct Cell<'a> {
    by_round: BTreeMap<u64, &'a Measurement>,
    failures: usize,
}

impl Cell<'_> {
    fn estimate(&self, metric: &Metric) -> Option<Estimate> {
        Estimate::of(self.by_round.values().map(|measurement| (metric.of)(measurement)))
    }

    /// This one's figures, divided by the other's of the same round.
    fn ratios(&self, other: &Self, metric: &Metric) -> BTreeMap<u64, f64> {
        let both = self.by_round.iter().filter_map(|(round, its)| Some((*round, *its, *other.by_round.get(round)?)));
        both.map(|(round, its, others)| (round, (metric.of)(its) / (metric.of)(others))).collect()
    }
}

/// A part of a table, with a mean of its own.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Section {
    Real,
    Patterns,
    OverTime,
}

impl Section {
    const ALL: [Self; 3] = [Self::Real, Self::Patterns, Self::OverTime];

    /// A workload that an older harness knew is a pattern.
    fn of(workload: &str) -> Self {
        match workload::by_name(workload) {
            Some(workload) if workload.is_real() => Self::Real,
            Some(workload) if workload.is_over_time() => Self::OverTime,
            _ => Self::Patterns,
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Real => "real work",
            Self::Patterns => "patterns",
            Self::OverTime => "memory over time",
        }
    }
}

/// All runs on one workload.
struct Row<'a> {
    workload: &'a str,
    /// By subject, in the order of the session.
    cells: Vec<Cell<'a>>,
}

impl Row<'_> {
    fn is_in(&self, section: Section) -> bool {
        Section::of(self.workload) == section
    }

    /// The subjects' notes with this name: what they say.
    fn noted(&self, name: &str) -> Vec<Option<Estimate>> {
        let noted = |cell: &Cell<'_>| {
            let figures = cell.by_round.values().filter_map(|measurement| measurement.notes.get(name));
            Estimate::of(figures.map(|figure| *figure as f64))
        };
        self.cells.iter().map(noted).collect()
    }
}

/// How Freestone compares with the best of the others in a row.
struct Comparison<'a> {
    best: &'a str,
    /// The best's figure divided by Freestone's.
    by_round: BTreeMap<u64, f64>,
    ratio: Estimate,
}

/// A session, sorted for reading.
pub(crate) struct Report<'a> {
    kept: &'a Kept,
    subjects: Vec<&'a str>,
    rows: Vec<Row<'a>>,
}

impl<'a> Report<'a> {
    /// Sorts the runs of a session.
    pub(crate) fn of(kept: &'a Kept) -> Self {
        let subjects: Vec<&str> = kept.session.subjects.iter().map(|version| &*version.subject).collect();
        let mut rows = Vec::new();
        for workload in &kept.session.workloads {
            let mut cells: Vec<Cell<'_>> = subjects.iter().map(|_| Cell::default()).collect();
            for run in kept.runs.iter().filter(|run| run.workload == *workload) {
                let Some(cell) = subjects.iter().position(|subject| *subject == run.subject).map(|index| &mut cells[index])
                else {
                    continue;
                };
                match &run.outcome {
                    Outcome::Measured(measurement) => _ = cell.by_round.insert(run.round, measurement),
                    Outcome::Failed(_) => cell.failures += 1,
                }
            }
            rows.push(Row { workload, cells });
        }
        Self { kept, subjects, rows }
    }

    /// What went wrong, a sentence each. Empty if all is well.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for run in &self.kept.runs {
            if let Outcome::Failed(reason) = &run.outcome {
                problems.push(format!("{} failed on {} in round {}: {reason}", run.subject, run.workload, run.round));
            }
        }
        for row in &self.rows {
            let complaint = match self.kept.session.kind {
                Kind::Workloads | Kind::Patterns => "computed different results, so somebody breaks memory",
                Kind::Program => "ended differently",
            };
            let mut subjects_by_sum: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
            for (subject, cell) in self.subjects.iter().zip(&row.cells) {
                for measurement in cell.by_round.values() {
                    let subjects = subjects_by_sum.entry(&measurement.checksum).or_default();
                    if !subjects.contains(subject) {
                        subjects.push(subject);
                    }
                }
            }
            if subjects_by_sum.len() > 1 {
                let sums = subjects_by_sum.iter().map(|(sum, subjects)| format!("{sum} on {}", subjects.join(", ")));
                let sums = sums.collect::<Vec<_>>().join("; ");
                problems.push(format!("{} {complaint}: {sums}", row.workload));
            }
        }
        problems
    }

    fn freestone(&self) -> Option<usize> {
        self.subjects.iter().position(|subject| *subject == FREESTONE)
    }

    fn comparison(&self, row: &Row<'_>, metric: &Metric) -> Option<Comparison<'a>> {
        let freestone = self.freestone()?;
        let others = (0..self.subjects.len()).filter(|&index| is_other(self.subjects[index]));
        let medians = others.filter_map(|index| Some((index, row.cells[index].estimate(metric)?.median)));
        let (best, _) = medians.min_by(|a, b| a.1.total_cmp(&b.1))?;
        let by_round = row.cells[best].ratios(&row.cells[freestone], metric);
        let ratio = Estimate::of(by_round.values().copied())?;
        Some(Comparison { best: self.subjects[best], by_round, ratio })
    }

    /// Everything there is to say.
    pub(crate) fn print(&self, format: Format) -> String {
        let mut text = String::new();
        self.print_provenance(&mut text, format);
        match self.kept.session.kind {
            Kind::Workloads => self.print_workloads(&mut text, format),
            Kind::Program => self.print_program(&mut text, format),
            Kind::Patterns => self.print_patterns(&mut text, format),
        }
        text
    }

    fn print_workloads(&self, text: &mut String, format: Format) {
        for metric in [&TIME, &MEMORY] {
            self.print_table(text, metric, format);
        }
        self.print_notes(text, format);
        self.print_legend(text);
        self.print_verdict(text, format);
    }

    fn print_provenance(&self, text: &mut String, format: Format) {
        let session = &self.kept.session;
        let machine = &session.machine;
        let subjects = session.subjects.iter().map(|its| {
            let is_number = its.version.starts_with(|first: char| first.is_ascii_digit());
            let version = if is_number { its.version.clone() } else { format!("({})", its.version) };
            let option = its.option.as_ref().map_or_else(String::new, |option| format!(" with {option}"));
            format!("{} {version}{option}", its.subject)
        });
        let subjects = subjects.collect::<Vec<_>>().join(", ");
        let mut lines = vec![("Subjects", subjects)];
        lines.extend(session.left_out.iter().map(|left_out| ("Left out", format!("{}: {}", left_out.subject, left_out.reason))));
        let governor = machine.governor.as_ref().map_or_else(String::new, |governor| format!(", governor {governor}"));
        lines.push((
            "Machine",
            format!(
                "{}, {} core{}{}{governor}, {:.0} GiB",
                machine.cpu,
                machine.cores,
                if machine.cores == 1 { "" } else { "s" },
                if machine.is_virtual { " (virtual)" } else { "" },
                machine.memory_bytes as f64 / (1_u64 << 30) as f64,
            ),
        ));
        lines.push(("", format!("{}, huge pages: {}, rustc {}", machine.kernel, machine.huge_pages, machine.rustc)));
        let commit = session.commit.as_ref().map_or_else(String::new, |commit| format!(", sources {commit}"));
        lines.push(("Session", format!("{}{commit}, --seed {}", session.date, session.seed)));
        lines.push((
            "",
            format!(
                "{} {}{} × {} subject{} × {} run{}, each a process of its own, in random order",
                session.workloads.len(),
                match session.kind {
                    Kind::Workloads => "workload",
                    Kind::Program => "command",
                    Kind::Patterns => "pattern",
                },
                plural(session.workloads.len()),
                session.subjects.len(),
                plural(session.subjects.len()),
                session.repetitions,
                plural(session.repetitions as usize),
            ),
        ));
        if session.percent < 100 {
            lines.push(("", format!("only {} % of the operations: not comparable with other sessions", session.percent)));
        }
        if let Some(threads) = session.threads {
            let sentence = "in patterns that have several: not comparable with other sessions";
            lines.push(("", format!("{threads} thread{} {sentence}", plural(threads as usize))));
        }
        if !session.environment.is_empty() {
            lines.push(("", format!("environment: {}", session.environment.join(" "))));
        }
        match &self.kept.end {
            None => lines.push(("Warning", "cut short: some runs are missing".to_owned())),
            Some(end) => {
                if let Some(cores) = end.cores_of_others.filter(|&cores| is_busy(cores, machine.cores)) {
                    let sentence = "other programs (or the host) kept so many cores busy meanwhile, on average:";
                    lines.push(("Warning", format!("{sentence} {cores:.1} of {}", machine.cores)));
                }
            }
        }
        for (name, line) in lines {
            let _ = match format {
                Format::Text => writeln!(text, "{name:<9} {line}"),
                Format::Markdown if name.is_empty() => writeln!(text, "  {line}"),
                Format::Markdown => writeln!(text, "- {name}: {line}"),
            };
        }
    }

    fn print_table(&self, text: &mut String, metric: &Metric, format: Format) {
        let mut table = Table::new();
        let mut header = vec![String::new()];
        header.extend(self.subjects.iter().map(|subject| (*subject).to_owned()));
        if self.compares() {
            header.extend([
                match format {
                    Format::Text => "best other\n÷ freestone".to_owned(),
                    Format::Markdown => "best other ÷ freestone".to_owned(),
                },
                "freestone is".to_owned(),
            ]);
        }
        let width = header.len();
        table.set_header(header);
        for part in Section::ALL {
            let rows: Vec<&Row<'_>> = self.rows.iter().filter(|row| row.is_in(part)).collect();
            if rows.is_empty() {
                continue;
            }
            if format == Format::Text && !table.is_empty() {
                table.add_row(vec![String::new(); width]);
            }
            let mut section = vec![String::new(); width];
            section[0] = if format == Format::Markdown { format!("**{}**", part.title()) } else { part.title().to_uppercase() };
            table.add_row(section);
            for row in &rows {
                table.add_row(self.print_row(row, metric));
            }
            if rows.len() > 1 && self.compares() {
                table.add_row(self.print_mean(&rows, metric));
            }
        }
        for index in 1..=self.subjects.len() {
            if let Some(column) = table.column_mut(index) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let heading = if format == Format::Markdown { "### " } else { "" };
        let _ = writeln!(text, "\n{heading}{}\n", metric.title);
        table.load_style(if format == Format::Markdown { presets::ASCII_MARKDOWN } else { PLAIN });
        let _ = writeln!(text, "{}", table.trim_fmt());
    }

    /// Is there Freestone, and somebody to compare it with?
    fn compares(&self) -> bool {
        self.freestone().is_some() && self.subjects.iter().any(|subject| is_other(subject))
    }

    fn print_row(&self, row: &Row<'_>, metric: &Metric) -> Vec<String> {
        let estimates: Vec<Option<Estimate>> = row.cells.iter().map(|cell| cell.estimate(metric)).collect();
        let unit = unit(&estimates, metric.units);
        let mut texts = vec![row.workload.to_owned()];
        texts.extend(row.cells.iter().zip(&estimates).map(|(cell, estimate)| match estimate {
            None if cell.failures > 0 => "failed".to_owned(),
            None => "–".to_owned(),
            Some(_) if cell.failures > 0 => format!("failed {} of {}", cell.failures, cell.failures + cell.by_round.len()),
            Some(estimate) => figure(estimate, unit),
        }));
        if self.compares() {
            match self.comparison(row, metric) {
                Some(comparison) => texts.extend(verdict(&comparison.ratio, metric, comparison.best)),
                None => texts.extend(["–".to_owned(), "not comparable".to_owned()]),
            }
        }
        texts
    }

    /// The geometric means of several rows: how many times Freestone's figure the others need; and against the best of each row, by round.
    fn print_mean(&self, rows: &[&Row<'_>], metric: &Metric) -> Vec<String> {
        let freestone = self.freestone().unwrap_or(0);
        let mut texts = vec!["geometric mean".to_owned()];
        for subject in 0..self.subjects.len() {
            let ratios = rows.iter().map(|row| {
                let (its, freestones) = (row.cells[subject].estimate(metric)?, row.cells[freestone].estimate(metric)?);
                Some(its.median / freestones.median)
            });
            let mean = ratios.collect::<Option<Vec<f64>>>().and_then(geometric_mean);
            texts.push(mean.map_or_else(|| "–".to_owned(), |mean| format!("{mean:.2} ×")));
        }
        let comparisons: Option<Vec<Comparison<'_>>> = rows.iter().map(|row| self.comparison(row, metric)).collect();
        let by_round = comparisons.into_iter().flat_map(|comparisons| {
            (1..=self.kept.session.repetitions).filter_map(move |round| {
                let ratios: Option<Vec<f64>> = comparisons.iter().map(|its| its.by_round.get(&round).copied()).collect();
                geometric_mean(ratios?)
            })
        });
        match Estimate::of(by_round) {
            Some(ratio) => texts.extend(verdict(&ratio, metric, "each row's best")),
            None => texts.extend(["–".to_owned(), "not comparable".to_owned()]),
        }
        texts
    }

    /// What workloads noted besides time and peak: a table each, and one more for what was looked at second by second.
    fn print_notes(&self, text: &mut String, format: Format) {
        for row in &self.rows {
            let mut names: Vec<&str> = Vec::new();
            for name in row.cells.iter().flat_map(|cell| cell.by_round.values()).flat_map(|measurement| measurement.notes.keys())
            {
                if !names.contains(&&**name) {
                    names.push(name);
                }
            }
            // Known ones as they are best read; others by the number in the name: "after_2_s" before "after_12_s".
            names.sort_by_key(|name| {
                let known = WORDS.iter().position(|(known, _)| known == name);
                (known.unwrap_or(WORDS.len()), name.split('_').find_map(|part| part.parse::<u64>().ok()))
            });
            let is_series = names.iter().any(|name| second(name).is_some());
            if is_series {
                self.print_series(text, row, &names, format);
                names.retain(|name| second(name).is_none() && !BESIDE_SERIES.contains(name));
            }
            if names.is_empty() {
                continue;
            }
            let mut table = Table::new();
            table.set_header([""].into_iter().chain(self.subjects.iter().copied()));
            for name in names {
                let estimates = row.noted(name);
                let (words, units) = note_in_words(name);
                let unit = unit(&estimates, units);
                let mut texts = vec![words];
                texts.extend(estimates.iter().map(|noted| noted.map_or_else(|| "–".to_owned(), |noted| figure(&noted, unit))));
                table.add_row(texts);
            }
            let title = if row.is_in(Section::OverTime) { "Also noted" } else { "Still resident" };
            print_right(text, &format!("{title}, {}", row.workload), "", table, format);
        }
    }

    /// What was resident at which second, and what of that nobody can avoid.
    fn print_series(&self, text: &mut String, row: &Row<'_>, names: &[&str], format: Format) {
        const SHOWN: [u64; 9] = [0, 1, 2, 4, 6, 8, 10, 12, 15];
        let series: Vec<(u64, &str)> = names.iter().filter_map(|name| Some((second(name)?, *name))).collect();
        let series: Vec<(u64, &str)> = series.into_iter().filter(|(second, _)| SHOWN.contains(second)).collect();
        let mebibytes =
            |noted: &Option<Estimate>| noted.map_or_else(|| "–".to_owned(), |noted| format!("{:.1}", noted.median / MIB));
        let mut table = Table::new();
        let mut header = vec![String::new(), "before".to_owned(), "needed".to_owned()];
        header.extend(series.iter().map(|(second, _)| format!("{second} s")));
        table.set_header(header);
        let columns = ["before_bytes", "needed_bytes"].into_iter().chain(series.iter().map(|(_, name)| *name));
        let columns: Vec<Vec<Option<Estimate>>> = columns.map(|name| row.noted(name)).collect();
        for (index, subject) in self.subjects.iter().enumerate() {
            let mut texts = vec![(*subject).to_owned()];
            texts.extend(columns.iter().map(|noted| mebibytes(&noted[index])));
            table.add_row(texts);
        }
        let live = row.noted("live_bytes").iter().flatten().map(|noted| noted.median).fold(0.0, f64::max) / MIB;
        let said = if live > 0.0 {
            format!("In MiB, with the program idle. {live:.1} MiB stay live.")
        } else {
            "In MiB, with the program idle. Nothing stays live.".to_owned()
        };
        print_right(text, &format!("Resident over time, {}", row.workload), &said, table, format);
    }

    fn print_legend(&self, text: &mut String) {
        let repetitions = self.kept.session.repetitions as usize;
        let is_sure = repetitions >= Estimate::RUNS_MIN;
        let _ = writeln!(text, "\nFigures are medians of {repetitions} run{}; less is better.", plural(repetitions));
        let _ = if is_sure {
            writeln!(text, "± is how far the 95 % interval of a median reaches.")
        } else {
            writeln!(
                text,
                "Fewer than {} runs say nothing at 95 %, so there are no intervals and no verdicts.",
                Estimate::RUNS_MIN
            )
        };
        let measured = self.rows.iter().flat_map(|row| &row.cells).flat_map(|cell| cell.by_round.values());
        if measured.flat_map(|measurement| measurement.notes.keys()).any(|name| second(name).is_some()) {
            let _ = writeln!(
                text,
                "Resident over time is without files: before the burst, and so many seconds after its last free. \"Needed\" are the kernel\n\
                 pages that hold a part of what stays live: who gives back all else, and cannot move blocks, gets to before + needed."
            );
        }
        if !self.compares() {
            return;
        }
        let _ = writeln!(
            text,
            "The ratio divides the figure of the best other allocator in the row by Freestone's, run by run: above 1 Freestone is\n\
             better, below 1 it is worse. Geometric means are multiples of Freestone's figure."
        );
        if is_sure {
            let _ = writeln!(text, "In parentheses is the ratio's 95 % interval; ~ means that it contains 1: no difference.");
        }
    }

    /// A line each for those who read no table.
    fn print_verdict(&self, text: &mut String, format: Format) {
        let mut lines = String::new();
        for (metric, name) in [(&TIME, "time"), (&MEMORY, "memory")] {
            let sides: Vec<Side> = self.rows.iter().filter_map(|row| Some(self.comparison(row, metric)?.ratio.side())).collect();
            let count = |side| sides.iter().filter(|its| **its == side).count();
            if sides.is_empty() || count(Side::Unknown) > 0 {
                return;
            }
            let name = if format == Format::Markdown { format!("- {name}:") } else { format!("{name:<6}") };
            let (better, worse, even) = (count(Side::Above), count(Side::Below), count(Side::Even));
            let _ = writeln!(lines, "{name} {} in {better}, {} in {worse}, no difference in {even}", metric.better, metric.worse);
        }
        let _ = write!(text, "\nFreestone against the best of the others in each workload:\n\n{lines}");
    }
}

/// No lines but one below the header.
pub(crate) const PLAIN: TableStyle = TableStyle::new()
    .header_lines(ContentLineStyle::none())
    .header_separator(LineStyle::none().fill('─'))
    .content_lines(ContentLineStyle::none());

/// What notes are called in tables, in the order of the lines. Others go by their names.
const WORDS: [(&str, &str); 12] = [
    ("live_peak_bytes", "live at most"),
    ("limit_bytes", "limit told"),
    ("peak_rss", "resident at the peaks"),
    ("max_rss", "resident at most"),
    ("mean_rss", "resident on average"),
    ("final_rss", "resident at the end"),
    ("live_bytes_per_thread", "live per thread"),
    ("bytes_per_thread", "resident beyond that"),
    ("allocated_bytes", "allocated in all"),
    ("faults", "page faults"),
    (CPU_NOTE, "processor time"),
    ("p99_ns", "99 % of requests within"),
];

/// Notes that stand in the table of a series.
const BESIDE_SERIES: [&str; 3] = ["before_bytes", "needed_bytes", "live_bytes"];

/// The second of a note that belongs to a series, such as `rss_04_s`.
fn second(name: &str) -> Option<u64> {
    name.strip_prefix("rss_")?.strip_suffix("_s")?.parse().ok()
}

/// What a note is called in a table, and its units; see `subject::note`.
fn note_in_words(whole: &str) -> (String, Units) {
    let is_memory = whole.split('_').any(|part| ["bytes", "rss", "after"].contains(&part));
    let (name, units) = match whole.strip_suffix("_ns") {
        Some(name) => (name, TIMES),
        None if is_memory => (whole.strip_suffix("_bytes").unwrap_or(whole), BYTES),
        None => (whole, COUNTS),
    };
    let words =
        WORDS.iter().find(|(known, _)| *known == whole).map_or_else(|| name.replace('_', " "), |(_, words)| (*words).to_owned());
    (words, units)
}

/// One unit for all of a row, so that its figures can be compared at a glance: the largest in which none of them is below 1. What is nothing
/// has no say.
fn unit(estimates: &[Option<Estimate>], units: Units) -> (f64, &'static str) {
    let least =
        estimates.iter().flatten().map(|estimate| estimate.median).filter(|median| *median > 0.0).fold(f64::INFINITY, f64::min);
    units.iter().find(|(from, _)| least.is_finite() && least >= *from).or(units.last()).copied().unwrap_or((1.0, ""))
}

/// A table whose figures stand at the right of their columns, under a heading and perhaps a sentence.
fn print_right(text: &mut String, title: &str, sentence: &str, mut table: Table, format: Format) {
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let heading = if format == Format::Markdown { "### " } else { "" };
    let _ = writeln!(text, "\n{heading}{title}\n");
    if !sentence.is_empty() {
        let _ = writeln!(text, "{sentence}\n");
    }
    table.load_style(if format == Format::Markdown { presets::ASCII_MARKDOWN } else { PLAIN });
    let _ = writeln!(text, "{}", table.trim_fmt());
}

/// Is it another allocator? Freestone under another environment is none: the best choice for a row says nothing about the default.
fn is_other(subject: &str) -> bool {
    subject != FREESTONE && Subject::by_name(subject).is_none_or(|known| known.variant.is_none())
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// Such as `12.3 ms`; without a unit, a whole number.
pub(crate) fn value(value: f64, (divisor, unit): (f64, &str)) -> String {
    let value = value / divisor;
    let digits = usize::from(value < 99.95) + usize::from(value < 9.995);
    if unit.is_empty() { thousands(value) } else { format!("{value:.digits$} {unit}") }
}

/// Such as `12.3 ms ±2%`.
fn figure(estimate: &Estimate, unit: (f64, &str)) -> String {
    let text = value(estimate.median, unit);
    // Of nothing there is no share.
    if estimate.is_sure() && estimate.median > 0.0 {
        format!("{text} ±{:.0}%", (estimate.spread() * 100.0).ceil())
    } else {
        text
    }
}

/// Such as `1,234,567`.
fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The last two columns.
fn verdict(ratio: &Estimate, metric: &Metric, other: &str) -> [String; 2] {
    let number = if ratio.is_sure() {
        format!("{:.2} ({:.2}–{:.2})", ratio.median, ratio.low, ratio.high)
    } else {
        format!("{:.2}", ratio.median)
    };
    let words = match ratio.side() {
        Side::Above => format!("{} than {other}", metric.better),
        Side::Below => format!("{} than {other}", metric.worse),
        Side::Even => format!("~ {other}"),
        Side::Unknown => format!("? {other}"),
    };
    [number, words]
}

/// The workloads, their descriptions, and which are in the default run.
pub(crate) fn list() -> String {
    let mut text = String::from("The workloads; those with a * make up the default run.\n\n");
    let mut is_over_time = false;
    for workload in workload::all() {
        if workload.is_over_time() && !is_over_time {
            is_over_time = true;
            text.push_str("\nMemory over time; each takes up to 30 s, so they run only when they are named.\n\n");
        }
        let star = if workload.telling { '*' } else { ' ' };
        let width = if is_over_time { 24 } else { 18 };
        let _ = writeln!(text, "{star} {:<width$} {}", workload.name, workload.about);
    }
    text
}

/// Colours the verdicts, after the table has been laid out: a table cannot count the width of what is styled.
pub(crate) fn styled(text: &str) -> String {
    let (good, bad, title) = (AnsiColor::Green.on_default(), AnsiColor::Red.on_default(), Style::new().bold());
    let words = [(TIME.better, good), (MEMORY.better, good), (TIME.worse, bad), (MEMORY.worse, bad)];
    let mut styled = String::with_capacity(text.len() + text.len() / 4);
    for line in text.lines() {
        let is_section = Section::ALL.iter().any(|section| line.trim() == section.title().to_uppercase());
        let title_line = [TIME.title, MEMORY.title].contains(&line) || is_section;
        let found = words.iter().find_map(|(word, style)| Some((line.find(&format!("{word} than "))?, style)));
        let _ = match found {
            _ if title_line => writeln!(styled, "{title}{line}{title:#}"),
            Some((at, style)) => writeln!(styled, "{}{style}{}{style:#}", &line[..at], &line[at..]),
            None => writeln!(styled, "{line}"),
        };
    }
    styled
}
