//! The tables of a session, and what they come to.
//!
//! Every row compares Freestone with the best of the others in that row, which is harder than with any one of them. The comparison is
//! made run by run: in every round the other's figure is divided by Freestone's, and the median of these ratios is shown with its interval.
//! The other is chosen by its median, so where two are about equal it is the one that had luck: an advantage that Freestone does not get.
//!
//! The first subject has run twice in each round. How far it is from itself (the *floor*, A/A) is noise, and a row in which a winner leads by less
//! has none.
//!
//! Sessions of preloaded subjects have tables of their own: [`program`] and [`patterns`]. [`trace`] is no session's: it sums up a log.

mod bmf;
mod csv;
mod excerpt;
mod export;
mod figures;
mod floors;
mod latencies;
mod matrix;
mod notes;
mod over_time;
mod page;
mod patterns;
mod program;
mod services;
mod trace;
mod views;

use std::collections::BTreeMap;
use std::fmt::Write;

use anstyle::{AnsiColor, Style};
use comfy_table::{CellAlignment, ContentLineStyle, LineStyle, Table, TableStyle, presets};
use freestone_bench::workload;

pub(crate) use excerpt::{Wanted, excerpt, source};
pub(crate) use export::export;
#[cfg(test)]
pub(crate) use export::text;
pub(crate) use trace::Log;

use figures::{Lead, Verdict};
use notes::is_series;

use crate::machine::{is_busy, is_robbed};
use crate::record::{Kept, Kind, Measurement, Outcome, View};
use crate::rounds::{difference, is_side_by_side};
use crate::statistics::{Difference, Estimate, Side, geometric_mean};
use crate::subjects::{self, Subject, is_again, reference};

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

/// Of one core, what the harness may take for itself before somebody has to be told.
const OWN_CPU_SHARE_MAX: f64 = 0.01;

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

/// What was measured, by round.
type Figures = BTreeMap<u64, f64>;

impl Cell<'_> {
    fn figures(&self, metric: &Metric) -> Figures {
        self.by_round.iter().map(|(round, measurement)| (*round, (metric.of)(measurement))).collect()
    }

    fn estimate(&self, metric: &Metric) -> Option<Estimate> {
        Estimate::of(self.by_round.values().map(|measurement| (metric.of)(measurement)))
    }

    /// This one's figures, divided by the other's of the same round.
    fn ratios(&self, other: &Self, metric: &Metric) -> Figures {
        let both = self.by_round.iter().filter_map(|(round, its)| Some((*round, *its, *other.by_round.get(round)?)));
        both.map(|(round, its, others)| (round, (metric.of)(its) / (metric.of)(others))).collect()
    }
}

/// A part of a table, with a mean of its own.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Section {
    Real,
    Patterns,
    Timed,
    Services,
    OverTime,
}

impl Section {
    const ALL: [Self; 5] = [Self::Real, Self::Patterns, Self::Timed, Self::Services, Self::OverTime];

    /// A row's title begins with the name of its workload. One that an older harness knew is a pattern.
    fn of(title: &str) -> Self {
        match title.split(' ').next().and_then(workload::by_name) {
            Some(workload) if workload.is_real() => Self::Real,
            Some(workload) if workload.is_over_time() => Self::OverTime,
            Some(workload) if workload.is_latency() => Self::Timed,
            Some(workload) if workload.is_service() => Self::Services,
            _ => Self::Patterns,
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Real => "real work",
            Self::Patterns => "patterns",
            Self::Timed => "every call timed",
            Self::Services => "services",
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
    /// Did all runs of all subjects end well?
    fn is_complete(&self) -> bool {
        self.cells.iter().all(|cell| cell.failures == 0 && !cell.by_round.is_empty())
    }

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
    bests: Figures,
    freestones: Figures,
    /// The best's figure divided by Freestone's.
    difference: Difference,
    /// How the first subject compares with itself there, if it ran twice.
    floor: Option<Difference>,
}

/// What the first subject, run twice, says of the machine.
struct Noise<'a> {
    /// Who.
    subject: &'a str,
    /// How far it is from itself, as a share: in the middle of all rows …
    typical: f64,
    /// … and in the row where that is most.
    worst: (f64, &'a str),
    /// In so many rows the runs would have us believe that it differs from itself …
    differs: usize,
    /// … of so many.
    rows: usize,
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
            // What disturbs a run is looked at in runs of its own.
            for run in kept.runs.iter().filter(|run| run.workload == *workload && run.view == View::Timed) {
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
        let reference = reference(self.subjects.iter().copied())?;
        self.subjects.iter().position(|subject| *subject == reference.name)
    }

    fn comparison(&self, row: &Row<'_>, metric: &Metric) -> Option<Comparison<'a>> {
        let freestone = self.freestone()?;
        let others = (0..self.subjects.len()).filter(|&index| is_other(self.subjects[index], self.subjects[freestone]));
        let medians = others.filter_map(|index| Some((index, row.cells[index].estimate(metric)?.median)));
        let (best, _) = medians.min_by(|a, b| a.1.total_cmp(&b.1))?;
        let (bests, freestones) = (row.cells[best].figures(metric), row.cells[freestone].figures(metric));
        let difference = difference(row.workload, &bests, &freestones)?;
        Some(Comparison { best: self.subjects[best], bests, freestones, difference, floor: self.floor(row, metric) })
    }

    /// The places of the subject that ran twice in each round: first, and again.
    fn twice(&self) -> Option<(usize, usize)> {
        let again = self.subjects.iter().position(|subject| is_again(subject))?;
        let first = self.subjects.iter().position(|subject| subjects::again(subject) == self.subjects[again])?;
        Some((first, again))
    }

    /// How a subject compares with itself in a row.
    fn floor(&self, row: &Row<'_>, metric: &Metric) -> Option<Difference> {
        let (first, again) = self.twice()?;
        difference(row.workload, &row.cells[again].figures(metric), &row.cells[first].figures(metric))
    }

    /// Of all rows together.
    fn noise(&self, metric: &Metric) -> Option<Noise<'a>> {
        let (first, _) = self.twice()?;
        let floors = self.rows.iter().filter_map(|row| Some((row.workload, self.floor(row, metric)?)));
        let floors: Vec<(&str, Difference)> = floors.collect();
        let apart = |difference: &Difference| (difference.ratio.median - 1.0).abs();
        let (row, worst) = floors.iter().max_by(|a, b| apart(&a.1).total_cmp(&apart(&b.1)))?;
        Some(Noise {
            subject: self.subjects[first],
            typical: Estimate::of(floors.iter().map(|(_, floor)| apart(floor)))?.median,
            worst: (apart(worst), row),
            differs: floors.iter().filter(|(_, floor)| matches!(floor.side(), Side::Above | Side::Below)).count(),
            rows: floors.len(),
        })
    }

    /// The subjects that have a column: where all are rivals, one that runs again has none.
    fn shown(&self) -> impl Iterator<Item = usize> {
        let is_shown = |&index: &usize| self.kept.session.kind != Kind::Workloads || !is_again(self.subjects[index]);
        (0..self.subjects.len()).filter(is_shown)
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
        self.print_services(text, format);
        self.print_latencies(text, format);
        self.print_notes(text, format);
        self.print_books(text, format);
        self.print_beyond_live(text, format);
        self.print_faults(text, format);
        self.print_views(text, format);
        self.print_floors(text, format);
        self.print_legend(text);
        self.print_noise(text, format);
        self.print_verdict(text, format);
    }

    fn print_provenance(&self, text: &mut String, format: Format) {
        let session = &self.kept.session;
        let machine = &session.machine;
        let subjects = self.shown().map(|index| {
            let its = &session.subjects[index];
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
                "{} {}{} × {} subject{} × {} run{}{}, each a process of its own, in random order",
                session.workloads.len(),
                match session.kind {
                    Kind::Workloads => "workload",
                    Kind::Program => "command",
                    Kind::Patterns => "pattern",
                },
                plural(session.workloads.len()),
                self.shown().count(),
                plural(self.shown().count()),
                session.repetitions,
                plural(session.repetitions as usize),
                match self.twice() {
                    Some((first, _)) if session.kind == Kind::Workloads => format!(", {} twice", self.subjects[first]),
                    _ => String::new(),
                },
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
        lines.extend(self.warnings().into_iter().map(|warning| ("Warning", warning)));
        for (name, line) in lines {
            let _ = match format {
                Format::Text => writeln!(text, "{name:<9} {line}"),
                Format::Markdown if name.is_empty() => writeln!(text, "  {line}"),
                Format::Markdown => writeln!(text, "- {name}: {line}"),
            };
        }
    }

    /// Why the figures deserve doubt, a sentence each.
    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let machine = &self.kept.session.machine;
        match &self.kept.end {
            None => warnings.push("cut short: some runs are missing".to_owned()),
            Some(end) => {
                if let Some(cores) = end.cores_of_others.filter(|&cores| is_busy(cores, machine.cores)) {
                    let sentence = "other programs (or the host) kept so many cores busy meanwhile, on average:";
                    warnings.push(format!("{sentence} {cores:.1} of {}", machine.cores));
                }
                if let Some(share) = end.own_cpu_share.filter(|&share| share > OWN_CPU_SHARE_MAX) {
                    let sentence = "of a core went to the harness itself, which may have disturbed what it measured";
                    warnings.push(format!("{:.1} % {sentence}", share * 100.0));
                }
                if let Some(stolen) = end.stolen.filter(|&stolen| is_robbed(stolen)) {
                    warnings.push(format!("the host took {:.1} % of the processors' time for others", stolen * 100.0));
                }
            }
        }
        if self.kept.session.kind != Kind::Workloads {
            return warnings;
        }
        // One row in twenty is what chance has a right to; where there are few rows, that may be one.
        if let Some(noise) = self.noise(&TIME).filter(|noise| noise.differs > 1 && noise.differs * 20 > noise.rows) {
            let Noise { subject, differs, rows, .. } = noise;
            warnings.push(format!("{subject} differs from itself in {differs} of {rows} rows, so the machine was noisy"));
        }
        let spreads = self.rows.iter().flat_map(|row| &row.cells).filter_map(|cell| cell.estimate(&TIME));
        let spread = Estimate::of(spreads.filter(Estimate::is_sure).map(|estimate| estimate.spread()));
        if let Some(spread) = spread.map(|spread| spread.median).filter(|&spread| spread > SPREAD_MAX) {
            warnings.push(format!("times are uncertain by ±{:.0} % in a typical row, so the machine was noisy", spread * 100.0));
        }
        warnings
    }

    fn print_table(&self, text: &mut String, metric: &Metric, format: Format) {
        let mut table = Table::new();
        let mut header = vec![String::new()];
        header.extend(self.shown().map(|index| self.subjects[index].to_owned()));
        if self.twice().is_some() {
            header.push("A/A".to_owned());
        }
        if self.compares() {
            header.extend([
                match format {
                    Format::Text => "best other\n÷ freestone".to_owned(),
                    Format::Markdown => "best other ÷ freestone".to_owned(),
                },
                "p".to_owned(),
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
        for index in 1..=self.shown().count() + usize::from(self.twice().is_some()) {
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
        let is_compared = |reference: usize| self.subjects.iter().any(|subject| is_other(subject, self.subjects[reference]));
        self.freestone().is_some_and(is_compared)
    }

    fn print_row(&self, row: &Row<'_>, metric: &Metric) -> Vec<String> {
        let estimates: Vec<Option<Estimate>> = row.cells.iter().map(|cell| cell.estimate(metric)).collect();
        let unit = unit(&estimates, metric.units);
        let mut texts = vec![row.workload.to_owned()];
        texts.extend(self.shown().map(|index| (&row.cells[index], &estimates[index])).map(|(cell, estimate)| match estimate {
            None if cell.failures > 0 => "failed".to_owned(),
            None => "–".to_owned(),
            Some(_) if cell.failures > 0 => format!("failed {} of {}", cell.failures, cell.failures + cell.by_round.len()),
            Some(estimate) => figure(estimate, unit),
        }));
        if self.twice().is_some() {
            texts.push(self.floor(row, metric).as_ref().map_or_else(|| "–".to_owned(), apart));
        }
        if self.compares() {
            match self.comparison(row, metric) {
                Some(its) => texts.extend(verdict(&its.difference, its.floor.as_ref(), metric, its.best)),
                None => texts.extend(INCOMPARABLE.map(str::to_owned)),
            }
        }
        texts
    }

    /// The geometric means of several rows: how many times Freestone's figure the others need; and against the best of each row, by round. Rows
    /// that somebody did not run are left out for all.
    fn print_mean(&self, rows: &[&Row<'_>], metric: &Metric) -> Vec<String> {
        let freestone = self.freestone().unwrap_or(0);
        let complete: Vec<&Row<'_>> = rows.iter().copied().filter(|row| row.is_complete()).collect();
        let mut texts = vec![if complete.len() == rows.len() {
            "geometric mean".to_owned()
        } else {
            format!("geometric mean, {} of {} rows", complete.len(), rows.len())
        }];
        for subject in self.shown() {
            let ratios = complete.iter().filter_map(|row| {
                let (its, freestones) = (row.cells[subject].estimate(metric)?, row.cells[freestone].estimate(metric)?);
                Some(its.median / freestones.median)
            });
            texts.push(geometric_mean(ratios).map_or_else(|| "–".to_owned(), |mean| format!("{mean:.2} ×")));
        }
        let of_cells = |subject: usize| means(&complete.iter().map(|row| row.cells[subject].figures(metric)).collect::<Vec<_>>());
        let floor = self.twice().and_then(|(first, again)| Difference::by_round(&of_cells(again), &of_cells(first)));
        if self.twice().is_some() {
            texts.push(floor.as_ref().map_or_else(|| "–".to_owned(), apart));
        }
        let comparisons: Vec<Comparison<'_>> = complete.iter().filter_map(|row| self.comparison(row, metric)).collect();
        let (bests, freestones): (Vec<_>, Vec<_>) = comparisons.into_iter().map(|its| (its.bests, its.freestones)).unzip();
        match Difference::by_round(&means(&bests), &means(&freestones)) {
            Some(difference) => texts.extend(verdict(&difference, floor.as_ref(), metric, "each row's best")),
            None => texts.extend(INCOMPARABLE.map(str::to_owned)),
        }
        texts
    }

    fn print_legend(&self, text: &mut String) {
        let repetitions = self.kept.session.repetitions as usize;
        let is_sure = repetitions >= Estimate::RUNS_MIN;
        let _ = writeln!(text, "\nFigures are medians of {repetitions} run{}; less is better.", plural(repetitions));
        let _ = if is_sure {
            writeln!(text, "± is how far the 95 % interval of a median reaches (bootstrap).")
        } else {
            writeln!(
                text,
                "Fewer than {} runs say nothing at 95 %, so there are no intervals and no verdicts.",
                Estimate::RUNS_MIN
            )
        };
        let beside: Vec<&str> = self.rows.iter().map(|row| row.workload).filter(|title| is_side_by_side(title)).collect();
        if self.kept.session.kind == Kind::Workloads && !beside.is_empty() {
            let _ = writeln!(
                text,
                "{}\nran side by side: all subjects at once on one processor, by turns. Their time is the processor's; p is of pairs (Wilcoxon).",
                beside.join(", ")
            );
        }
        let measured = self.rows.iter().flat_map(|row| &row.cells).flat_map(|cell| cell.by_round.values());
        if is_series(measured.flat_map(|measurement| measurement.notes.keys()).map(String::as_str)) {
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
             better, below 1 it is worse. Geometric means are multiples of Freestone's figure, over the rows that all subjects ran."
        );
        if is_sure {
            let _ = writeln!(
                text,
                "In parentheses is the ratio's 95 % interval, and p is how often chance alone looks like this (Mann–Whitney). ~ is no difference:\n\
                 the interval contains 1, or p is 0.05 or more, or they differ by less than 0.5 %."
            );
        }
    }

    /// How far the subject that ran twice is from itself.
    fn print_noise(&self, text: &mut String, format: Format) {
        let mut lines = String::new();
        for (metric, name) in [(&TIME, "time"), (&MEMORY, "memory")] {
            let Some(noise) = self.noise(metric) else { return };
            let name = if format == Format::Markdown { format!("- {name}:") } else { format!("{name:<6}") };
            let (worst, row) = noise.worst;
            let _ = writeln!(
                lines,
                "{name} {} apart in a typical row, at most {} ({row}); looks like a difference in {} of {} row{}",
                percent(noise.typical),
                percent(worst),
                noise.differs,
                noise.rows,
                plural(noise.rows),
            );
        }
        let Some((first, _)) = self.twice() else { return };
        let _ = write!(
            text,
            "\nA/A is {} against itself, which runs twice in each round: noise. ! marks where it looks like a difference. Where it is\n\
             as large as the difference between others, there is no winner but ? noisy.\n\n{lines}",
            self.subjects[first]
        );
    }

    /// A line each for those who read no table.
    fn print_verdict(&self, text: &mut String, format: Format) {
        let mut lines = String::new();
        for (metric, name) in [(&TIME, "time"), (&MEMORY, "memory")] {
            let comparisons = self.rows.iter().filter_map(|row| self.comparison(row, metric));
            let verdicts: Vec<Verdict> = comparisons.map(|its| Lead::of(&its.difference, its.floor.as_ref()).verdict).collect();
            let count = |verdict| verdicts.iter().filter(|its| **its == verdict).count();
            if verdicts.is_empty() || count(Verdict::Unknown) > 0 {
                return;
            }
            let name = if format == Format::Markdown { format!("- {name}:") } else { format!("{name:<6}") };
            let (better, worse, even) = (count(Verdict::Better), count(Verdict::Worse), count(Verdict::Even));
            let noisy = match count(Verdict::Noisy) {
                0 => String::new(),
                noisy => format!(", too noisy to say in {noisy}"),
            };
            let _ = writeln!(
                lines,
                "{name} {} in {better}, {} in {worse}, no difference in {even}{noisy}",
                metric.better, metric.worse
            );
        }
        let _ = write!(text, "\nFreestone against the best of the others in each workload:\n\n{lines}");
    }
}

/// From here on the intervals of times, in the middle of all rows, are too wide for a good machine.
const SPREAD_MAX: f64 = 0.05;

/// What the last columns say where somebody has no figures.
const INCOMPARABLE: [&str; 3] = ["–", "–", "not comparable"];

/// The geometric means of several rows, in the rounds that all of them have.
fn means(rows: &[Figures]) -> Figures {
    let rounds = rows.first().into_iter().flat_map(BTreeMap::keys);
    let mean = |round: &u64| geometric_mean(rows.iter().map(|row| row.get(round).copied()).collect::<Option<Vec<f64>>>()?);
    rounds.filter_map(|round| Some((*round, mean(round)?))).collect()
}

/// No lines but one below the header.
pub(crate) const PLAIN: TableStyle = TableStyle::new()
    .header_lines(ContentLineStyle::none())
    .header_separator(LineStyle::none().fill('─'))
    .content_lines(ContentLineStyle::none());

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

/// Is it another allocator, to compare `reference` with? One that this harness does not know may be; who runs for the second time is not.
fn is_other(subject: &str, reference: &str) -> bool {
    let known = Subject::by_name(subject).zip(Subject::by_name(reference));
    !is_again(subject) && known.is_none_or(|(subject, reference)| subject.is_rival_of(reference))
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

/// Such as `1.3 %`.
fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// How far a subject is from itself, such as `0.4%`, or `2.1% !` where that looks like a difference.
fn apart(floor: &Difference) -> String {
    let mark = if matches!(floor.side(), Side::Above | Side::Below) { " !" } else { "" };
    format!("{:.1}%{mark}", (floor.ratio.median - 1.0).abs() * 100.0)
}

/// The last three columns.
fn verdict(difference: &Difference, floor: Option<&Difference>, metric: &Metric, other: &str) -> [String; 3] {
    let Difference { ratio, p } = difference;
    let (number, p) = if ratio.is_sure() {
        let p = if *p < 0.001 { "<0.001".to_owned() } else { format!("{p:.3}") };
        (format!("{:.2} ({:.2}–{:.2})", ratio.median, ratio.low, ratio.high), p)
    } else {
        (format!("{:.2}", ratio.median), String::new())
    };
    let words = match Lead::of(difference, floor).verdict {
        Verdict::Better => format!("{} than {other}", metric.better),
        Verdict::Worse => format!("{} than {other}", metric.worse),
        Verdict::Even => format!("~ {other}"),
        Verdict::Noisy => format!("? noisy, {other}"),
        Verdict::Unknown => format!("? {other}"),
    };
    [number, p, words]
}

/// The workloads, their descriptions, what can be chosen about them, and which are in the default run.
pub(crate) fn list() -> String {
    let mut text = String::from("The workloads; those with a * make up the default run.\n\n");
    let mut last = "";
    for workload in workload::all() {
        let (section, width) = if workload.is_over_time() {
            ("\nMemory over time; each takes up to 30 s, so they run only when they are named.\n\n", 24)
        } else if workload.is_service() {
            ("\nServices over loopback, with parameters for scenarios; they run only when they are named.\n\n", 18)
        } else {
            ("", 18)
        };
        if section != last {
            text.push_str(section);
            last = section;
        }
        let star = if workload.telling { '*' } else { ' ' };
        let _ = writeln!(text, "{star} {:<width$} {}", workload.name, workload.about);
        for parameter in workload.parameters() {
            let _ = writeln!(text, "  {:<width$}   {}: {}; {}", "", parameter.name, parameter.values, parameter.about);
        }
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
