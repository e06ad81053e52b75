//! The table of a command: a row for each subject, compared with the first.

use std::collections::BTreeSet;
use std::fmt::Write;

use comfy_table::Table;

use super::{BYTES, COUNTS, CPU_NOTE, Cell, Format, MEMORY, Metric, Report, TIMES, plural, print_right, unit, value};
use crate::statistics::{Difference, Estimate, Side};

/// How std words that a process ended well.
const WELL: &str = "exit status: 0";

pub(super) const WALL: Metric =
    Metric { title: "time", of: |measurement| measurement.nanos as f64, units: TIMES, better: "faster", worse: "slower" };

pub(super) const PROCESSOR: Metric = Metric {
    title: "CPU",
    of: |measurement| measurement.notes.get(CPU_NOTE).map_or(0.0, |nanos| *nanos as f64),
    units: TIMES,
    better: "less",
    worse: "more",
};

pub(super) const PEAK: Metric = Metric { title: "peak RSS", units: BYTES, ..MEMORY };

const MINOR: Metric =
    Metric { title: "faults", of: |measurement| measurement.minor_faults as f64, units: COUNTS, better: "less", worse: "more" };

const MAJOR: Metric = Metric { title: "major", of: |measurement| measurement.major_faults as f64, ..MINOR };

impl Report<'_> {
    /// What the command was, a row for each subject, and how to read it.
    pub(super) fn print_program(&self, text: &mut String, format: Format) {
        let (Some(row), Some(first)) = (self.rows.first(), self.subjects.first()) else { return };
        let mut table = Table::new();
        let ratio = format!("÷ {first}");
        let mut header = vec![""];
        for metric in [&WALL, &PROCESSOR, &PEAK] {
            header.extend([metric.title, &ratio]);
        }
        header.extend([MINOR.title, MAJOR.title]);
        table.set_header(header);
        let units = [&WALL, &PROCESSOR, &PEAK, &MINOR, &MAJOR].map(|metric| {
            let estimates: Vec<Option<Estimate>> = row.cells.iter().map(|cell| cell.estimate(metric)).collect();
            (metric, unit(&estimates, metric.units))
        });
        for (index, (subject, cell)) in self.subjects.iter().zip(&row.cells).enumerate() {
            let mut texts = vec![(*subject).to_owned()];
            for (metric, unit) in units {
                let none = if cell.failures > 0 { "failed" } else { "–" };
                texts.push(cell.estimate(metric).map_or_else(|| none.to_owned(), |estimate| value(estimate.median, unit)));
                if metric.units != COUNTS {
                    texts.push(if index == 0 { String::new() } else { quotient(cell, &row.cells[0], metric) });
                }
            }
            table.add_row(texts);
        }
        print_right(text, &format!("Command: {}", row.workload), "", table, format);
        self.print_endings(text);
        self.print_flags(text);
        self.print_reading(text, first);
    }

    /// How the runs ended, when all of them did alike and not well; where they differ, that is a problem, and said as such.
    fn print_endings(&self, text: &mut String) {
        let measured = self.rows.iter().flat_map(|row| &row.cells).flat_map(|cell| cell.by_round.values());
        let endings: BTreeSet<&str> = measured.map(|measurement| &*measurement.checksum).collect();
        let same = endings.first().filter(|_| endings.len() == 1);
        if let Some(ending) = same.filter(|ending| **ending != WELL) {
            let _ = writeln!(text, "\nThe command ended with {ending} on every subject.");
        }
    }

    /// How programs were built that have their allocator in them.
    fn print_flags(&self, text: &mut String) {
        let flags = &self.kept.session.flags;
        if !flags.is_empty() {
            let _ = writeln!(text, "\nBuilt: {}.", flags.join(";\n       "));
        }
    }

    fn print_reading(&self, text: &mut String, first: &str) {
        let repetitions = self.kept.session.repetitions as usize;
        let _ = writeln!(
            text,
            "\nFigures are medians of {repetitions} run{}. Each ratio divides a subject's figure by that of {first} in the same round: below 1 is\n\
             less, which is better. \"{first} again\" is {first} once more, so what its ratios say is noise.",
            plural(repetitions)
        );
        let _ = if repetitions >= Estimate::RUNS_MIN {
            writeln!(
                text,
                "In parentheses is the ratio's 95 % interval; ~ means that it contains 1, or that chance may do that (p ≥ 0.05): no difference."
            )
        } else {
            writeln!(text, "Fewer than {} runs say nothing at 95 %, so there are no intervals.", Estimate::RUNS_MIN)
        };
        let _ = writeln!(
            text,
            "Time is from the start of the process to its end. CPU is the processors' time, the kernel's included; faults are page faults\n\
             served from memory, major ones waited for a disk: both of the command and all processes that it waited for. Peak RSS is what\n\
             was resident at most, of the largest of these processes."
        );
    }
}

/// Such as `~ 1.02 (0.98–1.05)`.
fn quotient(cell: &Cell<'_>, first: &Cell<'_>, metric: &Metric) -> String {
    let Some(difference) = Difference::by_round(&cell.figures(metric), &first.figures(metric)) else { return "–".to_owned() };
    let ratio = difference.ratio;
    match difference.side() {
        Side::Unknown => format!("{:.2}", ratio.median),
        side => {
            let mark = if side == Side::Even { "~ " } else { "" };
            format!("{mark}{:.2} ({:.2}–{:.2})", ratio.median, ratio.low, ratio.high)
        }
    }
}
