//! The tables of the patterns: a row for each pattern, every subject compared with the best in that row.
//!
//! The best is chosen by its median, so nobody's ratio is below 1 by more than noise. Nobody is singled out, Freestone neither: who reads a
//! column sees how far one library is from what was possible.

use std::collections::BTreeMap;
use std::fmt::Write;

use comfy_table::Table;

use super::program::{PEAK, PROCESSOR, WALL};
use super::{Format, Metric, Report, Row, plural, print_right, unit, value};
use crate::statistics::{Difference, Estimate, Side, geometric_mean};

/// A row, compared: who is best, how far that is, and how many times as much every subject takes, by round.
struct Relative<'a> {
    best: &'a str,
    median: f64,
    by_round: Vec<BTreeMap<u64, f64>>,
    differences: Vec<Option<Difference>>,
}

impl Report<'_> {
    /// A table for each of time, processor time and memory, and how to read them.
    pub(super) fn print_patterns(&self, text: &mut String, format: Format) {
        self.print_relative(text, "Time", &WALL, format);
        self.print_relative(text, "Processor time of all threads", &PROCESSOR, format);
        self.print_relative(text, "Peak memory of the process (RSS)", &PEAK, format);
        let repetitions = self.kept.session.repetitions as usize;
        let _ = writeln!(
            text,
            "\nThe best of a row is the one with the lowest median of {repetitions} run{}. The others' figures are divided by its, round by\n\
             round: 1.30 takes 30 % more than the best. Geometric means are over all rows.",
            plural(repetitions)
        );
        let _ = if repetitions >= Estimate::RUNS_MIN {
            writeln!(
                text,
                "± is how far the 95 % interval of a ratio reaches; ~ means that it contains 1, or that chance may do that (p ≥ 0.05): no difference."
            )
        } else {
            writeln!(text, "Fewer than {} runs say nothing at 95 %, so there are no intervals.", Estimate::RUNS_MIN)
        };
    }

    fn print_relative(&self, text: &mut String, title: &str, metric: &Metric, format: Format) {
        let mut table = Table::new();
        table.set_header(["", "best"].into_iter().chain(self.subjects.iter().copied()));
        let rows: Vec<Option<Relative<'_>>> = self.rows.iter().map(|row| self.relative(row, metric)).collect();
        for (row, relative) in self.rows.iter().zip(&rows) {
            let mut texts = vec![row.workload.to_owned()];
            texts.push(relative.as_ref().map_or_else(|| "–".to_owned(), |its| best(its, metric)));
            for (subject, cell) in row.cells.iter().enumerate() {
                let difference = relative.as_ref().and_then(|its| its.differences[subject]);
                texts.push(match difference {
                    _ if cell.failures > 0 => "failed".to_owned(),
                    Some(_) if relative.as_ref().is_some_and(|its| its.best == self.subjects[subject]) => "1".to_owned(),
                    Some(difference) => times(&difference.ratio, difference.side()),
                    None => "–".to_owned(),
                });
            }
            table.add_row(texts);
        }
        if rows.len() > 1 {
            let mut texts = vec!["geometric mean".to_owned(), String::new()];
            texts.extend((0..self.subjects.len()).map(|subject| self.mean(&rows, subject)));
            table.add_row(texts);
        }
        print_right(text, title, "", table, format);
    }

    fn relative(&self, row: &Row<'_>, metric: &Metric) -> Option<Relative<'_>> {
        let medians = row.cells.iter().enumerate().filter_map(|(index, cell)| Some((index, cell.estimate(metric)?.median)));
        let (best, median) = medians.min_by(|a, b| a.1.total_cmp(&b.1))?;
        let by_round = row.cells.iter().map(|cell| cell.ratios(&row.cells[best], metric)).collect();
        let bests = row.cells[best].figures(metric);
        let differences = row.cells.iter().map(|cell| Difference::by_round(&cell.figures(metric), &bests)).collect();
        Some(Relative { best: self.subjects[best], median, by_round, differences })
    }

    /// The geometric mean of a subject's ratios over all rows, round by round.
    fn mean(&self, rows: &[Option<Relative<'_>>], subject: usize) -> String {
        let rounds = (1..=self.kept.session.repetitions).filter_map(|round| {
            let ratios: Option<Vec<f64>> = rows.iter().map(|row| row.as_ref()?.by_round[subject].get(&round).copied()).collect();
            geometric_mean(ratios?)
        });
        Estimate::of(rounds).map_or_else(|| "–".to_owned(), |ratio| times(&ratio, ratio.side()))
    }
}

/// Such as `812 ms mimalloc`.
fn best(relative: &Relative<'_>, metric: &Metric) -> String {
    let estimate = Estimate::of([relative.median]);
    format!("{} {}", value(relative.median, unit(&[estimate], metric.units)), relative.best)
}

/// Such as `1.30 ±7%` or `~ 1.02 ±5%`.
fn times(ratio: &Estimate, side: Side) -> String {
    match side {
        Side::Unknown => format!("{:.2}", ratio.median),
        side => {
            let mark = if side == Side::Even { "~ " } else { "" };
            format!("{mark}{:.2} ±{:.0}%", ratio.median, (ratio.spread() * 100.0).ceil())
        }
    }
}
