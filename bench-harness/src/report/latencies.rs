//! The table of single operations: for each kind of call, how long all but a few of them took.

use std::collections::BTreeSet;
use std::fmt::Write;

use comfy_table::Table;
use freestone_bench::workload::latency::CLOCK_NOTE;

use super::services::is_service;
use super::{Cell, Format, Report, Row, TIMES, figure, print_right, unit, value};
use crate::record::Latency;
use crate::statistics::Estimate;
use crate::subjects::is_again;

/// Of a million operations so many are within it; and what that is called.
const SHOWN: [(u32, &str); 4] = [(500_000, "P50"), (990_000, "P99"), (999_000, "P99.9"), (999_900, "P99.99")];

const MILLION: u64 = 1_000_000;

/// A point of a distribution. Where not one operation of a run lies beyond it, it says what the maximum says, and so it says nothing.
fn point(latency: &Latency, parts: u32) -> Option<u64> {
    let beyond = latency.count.saturating_mul(MILLION.saturating_sub(u64::from(parts))) / MILLION;
    let (_, nanos) = latency.points.iter().find(|(its, _)| *its == parts)?;
    (beyond > 0).then_some(*nanos)
}

impl Report<'_> {
    /// One table for all rows that time single operations. Services have one of their own.
    pub(super) fn print_latencies(&self, text: &mut String, format: Format) {
        let columns: Vec<usize> = (0..self.subjects.len()).filter(|&index| !is_again(self.subjects[index])).collect();
        let mut table = Table::new();
        table.set_header([""].into_iter().chain(columns.iter().map(|&index| self.subjects[index])));
        let mut clock: Vec<Option<Estimate>> = Vec::new();
        for row in self.rows.iter().filter(|row| !is_service(row.workload)) {
            let kinds: BTreeSet<&str> = measured(row).flat_map(|latencies| latencies.keys()).map(String::as_str).collect();
            if kinds.is_empty() {
                continue;
            }
            if format == Format::Text && !table.is_empty() {
                table.add_row(vec![String::new(); columns.len() + 1]);
            }
            let title = if format == Format::Markdown { format!("**{}**", row.workload) } else { row.workload.to_uppercase() };
            table.add_row([title]);
            for kind in kinds {
                let of = |point: &dyn Fn(&Latency) -> Option<u64>| -> Vec<Option<Estimate>> {
                    columns.iter().map(|&index| estimate(&row.cells[index], kind, point)).collect()
                };
                for (parts, name) in SHOWN {
                    table.add_row(line(&format!("{kind}, {name}"), &of(&|latency| point(latency, parts))));
                }
                table.add_row(line(&format!("{kind}, longest"), &of(&|latency| Some(latency.max_ns))));
            }
            clock.extend(row.noted(CLOCK_NOTE));
        }
        if table.is_empty() {
            return;
        }
        print_right(text, "Latency of single operations", "", table, format);
        let of_clock = Estimate::of(clock.iter().flatten().map(|noted| noted.median));
        let cost = of_clock.map_or_else(String::new, |cost| {
            format!("\nEvery time holds one reading of the clock, {}.", value(cost.median, unit(&[Some(cost)], TIMES)))
        });
        let _ = writeln!(
            text,
            "\nP99.9 is the time that 999 of 1,000 operations stay within: each run has one, and the figure is the median of all runs. The\n\
             longest is of one operation in each run, and as often the scheduler's as the allocator's: believe it where ± is small.{cost}"
        );
    }
}

fn measured<'a>(row: &Row<'a>) -> impl Iterator<Item = &'a std::collections::BTreeMap<String, Latency>> {
    let runs: Vec<_> = row.cells.iter().flat_map(|cell| cell.by_round.values().copied()).collect();
    runs.into_iter().map(|measurement| &measurement.latencies)
}

fn estimate(cell: &Cell<'_>, kind: &str, point: &dyn Fn(&Latency) -> Option<u64>) -> Option<Estimate> {
    let points = cell.by_round.values().filter_map(|measurement| point(measurement.latencies.get(kind)?));
    Estimate::of(points.map(|nanos| nanos as f64))
}

fn line(title: &str, estimates: &[Option<Estimate>]) -> Vec<String> {
    let unit = unit(estimates, TIMES);
    let figures = estimates.iter().map(|estimate| estimate.map_or_else(|| "–".to_owned(), |estimate| figure(&estimate, unit)));
    [title.to_owned()].into_iter().chain(figures).collect()
}

#[cfg(test)]
mod tests {
    use super::{Latency, point};

    #[test]
    fn a_point_beyond_which_there_is_nothing_says_nothing() {
        let latency = |count| Latency { count, mean_ns: 1, max_ns: 9, points: vec![(500_000, 1), (999_900, 8)] };
        assert_eq!(point(&latency(10_000), 999_900), Some(8));
        assert_eq!(point(&latency(9_999), 999_900), None);
        assert_eq!(point(&latency(9_999), 500_000), Some(1));
        assert_eq!(point(&latency(9_999), 990_000), None, "nobody has noted it");
        assert_eq!(point(&latency(1), 500_000), None);
        assert_eq!(point(&Latency { points: vec![(u32::MAX, 1)], ..latency(u64::MAX) }, u32::MAX), None);
    }
}
