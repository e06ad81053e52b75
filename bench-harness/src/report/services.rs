//! The table of services: requests per second, how long they took, and memory, by workload and allocator.

use comfy_table::Table;
use freestone_bench::workload;

use super::figures::{Figure, Line, Matrix};
use super::{Format, Report, print_right, unit, value};
use crate::subjects::is_again;

/// Does this row serve requests? Then it is told about in requests per second and percentiles.
pub(super) fn is_service(title: &str) -> bool {
    let mut words = title.split(' ');
    let is_known = words.next().and_then(workload::by_name).is_some_and(workload::Workload::is_service);
    is_known || words.any(|word| word.starts_with("streams=") || word.starts_with("connections="))
}

/// What there is to say of services: figures, and what they are called at the head of a column.
const COLUMNS: [(&str, &str); 8] = [
    ("note.qps", "QPS"),
    ("latency.request.mean", "mean"),
    ("latency.request.p50", "P50"),
    ("latency.request.p99", "P99"),
    ("latency.request.p999", "P99.9"),
    ("note.allocations_per_request", "allocations per request"),
    ("note.heap_in_use_peak_bytes", "heap in use at most"),
    ("peak_rss", "peak RSS"),
];

/// Is this note a column?
pub(super) fn is_column(note: &str) -> bool {
    COLUMNS.iter().any(|(name, _)| name.strip_prefix("note.") == Some(note))
}

/// Those columns that one of these rows has a figure for.
pub(super) fn columns<'m>(matrix: &'m Matrix<'_>, rows: &[&Line<'_>]) -> Vec<(&'m Figure, &'static str)> {
    let is_there = |name: &str| rows.iter().any(|row| row.tallies.iter().any(|tally| tally.estimate(name).is_some()));
    // A service says itself how many requests it served, without those that failed. Older records have only the rate.
    let find = |name: &str| {
        let name = if name == "note.qps" && !is_there(name) { "rate" } else { name };
        matrix.figure(name).filter(|_| is_there(name))
    };
    COLUMNS.iter().filter_map(|(name, title)| Some((find(name)?, *title))).collect()
}

/// A row's figure of a subject, in the unit that all subjects have there; or that it failed.
pub(super) fn cell(row: &Line<'_>, subject: usize, figure: &Figure) -> String {
    let estimates: Vec<_> = row.tallies.iter().map(|tally| tally.estimate(&figure.name)).collect();
    let failed = || if row.tallies[subject].failures.is_empty() { "–" } else { "failed" }.to_owned();
    estimates[subject].map_or_else(failed, |its| value(its.median, unit(&estimates, figure.units)))
}

impl Report<'_> {
    /// One table for all services.
    pub(super) fn print_services(&self, text: &mut String, format: Format) {
        if !self.rows.iter().any(|row| is_service(row.workload)) {
            return;
        }
        let matrix = Matrix::of(self.kept);
        let rows: Vec<&Line<'_>> = matrix.rows.iter().filter(|row| row.is_service()).collect();
        let columns = columns(&matrix, &rows);
        let mut table = Table::new();
        let between = if format == Format::Markdown { " " } else { "\n" };
        let titles = columns.iter().map(|(_, title)| title.replacen(' ', between, 1));
        table.set_header([String::new()].into_iter().chain(titles));
        for row in rows {
            if format == Format::Text && !table.is_empty() {
                table.add_row(vec![String::new(); columns.len() + 1]);
            }
            table.add_row([if format == Format::Markdown { format!("**{}**", row.title) } else { row.title.to_uppercase() }]);
            for (subject, name) in matrix.subjects.iter().enumerate().filter(|(_, name)| !is_again(name)) {
                let figures = columns.iter().map(|(figure, _)| cell(row, subject, figure));
                table.add_row([(*name).to_owned()].into_iter().chain(figures));
            }
        }
        print_right(text, "Services", "", table, format);
    }
}
