//! The tables of a session, and what they come to.
//!
//! Every row compares Freestone with the best of the others in that row, which is harder than with any one of them. The comparison is
//! made run by run: in every round the other's figure is divided by Freestone's, and the median of these ratios is shown with its interval.
//! The other is chosen by its median, so where two are about equal it is the one that had luck: an advantage that Freestone does not get.

use std::collections::BTreeMap;
use std::fmt::Write;

use anstyle::{AnsiColor, Style};
use comfy_table::{CellAlignment, ContentLineStyle, LineStyle, Table, TableStyle, presets};
use freestone_bench::workload::{self, Workload};

use crate::machine::is_busy;
use crate::record::{Kept, Measurement, Outcome};
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

/// Something that was measured. Less is better.
struct Metric {
    title: &'static str,
    of: fn(&Measurement) -> f64,
    /// From large to small: from which value on, and its name.
    units: &'static [(f64, &'static str)],
    better: &'static str,
    worse: &'static str,
}

const TIME: Metric = Metric {
    title: "Time per operation",
    of: |measurement| measurement.nanos as f64 / measurement.operations.max(1) as f64,
    units: &[(1e9, "s"), (1e6, "ms"), (1e3, "µs"), (1.0, "ns")],
    better: "faster",
    worse: "slower",
};

const MEMORY: Metric = Metric {
    title: "Peak memory of the process (RSS)",
    of: |measurement| measurement.peak_rss_bytes as f64,
    units: &[(1024.0 * 1024.0 * 1024.0, "GiB"), (1024.0 * 1024.0, "MiB"), (1024.0, "KiB")],
    better: "smaller",
    worse: "larger",
};

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

/// All runs on one workload.
struct Row<'a> {
    workload: &'a str,
    /// By subject, in the order of the session.
    cells: Vec<Cell<'a>>,
}

impl Row<'_> {
    fn is_real(&self) -> bool {
        workload::by_name(self.workload).is_some_and(Workload::is_real)
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
                problems.push(format!("{} computed different results, so somebody breaks memory: {sums}", row.workload));
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
        for metric in [&TIME, &MEMORY] {
            self.print_table(&mut text, metric, format);
        }
        self.print_notes(&mut text, format);
        self.print_legend(&mut text);
        self.print_verdict(&mut text, format);
        text
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
                "{} workload{} × {} subject{} × {} run{}, each a process of its own, in random order",
                session.workloads.len(),
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
        for (title, real) in [("real work", true), ("patterns", false)] {
            let rows: Vec<&Row<'_>> = self.rows.iter().filter(|row| row.is_real() == real).collect();
            if rows.is_empty() {
                continue;
            }
            if format == Format::Text && !table.is_empty() {
                table.add_row(vec![String::new(); width]);
            }
            let mut section = vec![String::new(); width];
            section[0] = if format == Format::Markdown { format!("**{title}**") } else { title.to_uppercase() };
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
        let least = estimates.iter().flatten().map(|estimate| estimate.median).fold(f64::INFINITY, f64::min);
        // One unit for all of a row, so that its figures can be compared at a glance.
        let unit = metric.units.iter().find(|(from, _)| least >= *from).or(metric.units.last()).copied().unwrap_or((1.0, ""));
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

    /// What workloads noted besides time and peak.
    fn print_notes(&self, text: &mut String, format: Format) {
        for row in &self.rows {
            let mut names: Vec<&str> = Vec::new();
            for name in row.cells.iter().flat_map(|cell| cell.by_round.values()).flat_map(|measurement| measurement.notes.keys())
            {
                if !names.contains(&&**name) {
                    names.push(name);
                }
            }
            if names.is_empty() {
                continue;
            }
            // By the number in the name: "after_2_s" before "after_12_s".
            names.sort_by_key(|name| name.split('_').find_map(|part| part.parse::<u64>().ok()));
            let mut table = Table::new();
            table.set_header([""].into_iter().chain(self.subjects.iter().copied()));
            for name in names {
                let mut texts = vec![name.replace('_', " ")];
                for cell in &row.cells {
                    let noted = cell.by_round.values().filter_map(|measurement| measurement.notes.get(name));
                    let estimate = Estimate::of(noted.map(|bytes| *bytes as f64));
                    texts.push(estimate.map_or_else(|| "–".to_owned(), |estimate| figure(&estimate, (1024.0 * 1024.0, "MiB"))));
                }
                table.add_row(texts);
            }
            for column in table.column_iter_mut().skip(1) {
                column.set_cell_alignment(CellAlignment::Right);
            }
            let heading = if format == Format::Markdown { "### " } else { "" };
            let _ = writeln!(text, "\n{heading}Still resident, {}\n", row.workload);
            table.load_style(if format == Format::Markdown { presets::ASCII_MARKDOWN } else { PLAIN });
            let _ = writeln!(text, "{}", table.trim_fmt());
        }
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
const PLAIN: TableStyle = TableStyle::new()
    .header_lines(ContentLineStyle::none())
    .header_separator(LineStyle::none().fill('─'))
    .content_lines(ContentLineStyle::none());

/// Is it another allocator? Freestone under another environment is none: the best choice for a row says nothing about the default.
fn is_other(subject: &str) -> bool {
    subject != FREESTONE && Subject::by_name(subject).is_none_or(|known| known.variant.is_none())
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// Such as `12.3 ms ±2%`.
fn figure(estimate: &Estimate, (divisor, unit): (f64, &str)) -> String {
    let value = estimate.median / divisor;
    let digits = usize::from(value < 99.95) + usize::from(value < 9.995);
    let text = format!("{value:.digits$} {unit}");
    if estimate.is_sure() { format!("{text} ±{:.0}%", (estimate.spread() * 100.0).ceil()) } else { text }
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
    for workload in workload::all() {
        let star = if workload.telling { '*' } else { ' ' };
        let _ = writeln!(text, "{star} {:<18} {}", workload.name, workload.about);
    }
    text
}

/// Colours the verdicts, after the table has been laid out: a table cannot count the width of what is styled.
pub(crate) fn styled(text: &str) -> String {
    let (good, bad, title) = (AnsiColor::Green.on_default(), AnsiColor::Red.on_default(), Style::new().bold());
    let words = [(TIME.better, good), (MEMORY.better, good), (TIME.worse, bad), (MEMORY.worse, bad)];
    let mut styled = String::with_capacity(text.len() + text.len() / 4);
    for line in text.lines() {
        let title_line = [TIME.title, MEMORY.title].contains(&line) || line.trim() == "REAL WORK" || line.trim() == "PATTERNS";
        let found = words.iter().find_map(|(word, style)| Some((line.find(&format!("{word} than "))?, style)));
        let _ = match found {
            _ if title_line => writeln!(styled, "{title}{line}{title:#}"),
            Some((at, style)) => writeln!(styled, "{}{style}{}{style:#}", &line[..at], &line[at..]),
            None => writeln!(styled, "{line}"),
        };
    }
    styled
}
