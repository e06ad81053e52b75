//! The tables of what workloads noted besides time and peak: figures of their own, what was resident second by second, and the books that
//! allocators keep of themselves.

use comfy_table::Table;
use freestone_bench::subject::{ALLOCATIONS, HEAP_IN_USE};
use freestone_bench::workload::latency::CLOCK_NOTE;

use super::services::{is_column, is_service};
use super::{BYTES, COUNTS, CPU_NOTE, Format, MIB, Report, Row, TIMES, Units, figure, print_right, unit, value};
use crate::statistics::Estimate;

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

/// Notes of every workload, and what the columns are called in the table that they share; those without words are for exports only.
const BOOKS: [(&str, &str); 6] = [
    (HEAP_IN_USE, "in use"),
    ("jemalloc_active_bytes", "active"),
    ("jemalloc_resident_bytes", "resident"),
    ("jemalloc_retained_bytes", "retained"),
    // What `HEAP_IN_USE` says already.
    ("jemalloc_allocated_bytes", ""),
    (ALLOCATIONS, ""),
];

/// Notes that stand in the table of a series.
const BESIDE_SERIES: [&str; 3] = ["before_bytes", "needed_bytes", "live_bytes"];

/// The second of a note that belongs to a series, such as `rss_04_s`.
fn second(name: &str) -> Option<u64> {
    name.strip_prefix("rss_")?.strip_suffix("_s")?.parse().ok()
}

/// Is one of these notes of a series?
pub(super) fn is_series<'a>(mut names: impl Iterator<Item = &'a str>) -> bool {
    names.any(|name| second(name).is_some())
}

/// What a note is called in a table, and its units; see `subject::note`.
pub(super) fn note_in_words(whole: &str) -> (String, Units) {
    let is_memory = whole.split('_').any(|part| ["bytes", "rss"].contains(&part));
    let (name, units) = match whole.strip_suffix("_ns") {
        Some(name) => (name, TIMES),
        None if is_memory => (whole.strip_suffix("_bytes").unwrap_or(whole), BYTES),
        None => (whole, COUNTS),
    };
    let words =
        WORDS.iter().find(|(known, _)| *known == whole).map_or_else(|| name.replace('_', " "), |(_, words)| (*words).to_owned());
    (words, units)
}

impl Report<'_> {
    /// What workloads noted besides time and peak: a table each, and one more for what was looked at second by second.
    pub(super) fn print_notes(&self, text: &mut String, format: Format) {
        for row in &self.rows {
            let mut names: Vec<&str> = Vec::new();
            for name in row.cells.iter().flat_map(|cell| cell.by_round.values()).flat_map(|measurement| measurement.notes.keys())
            {
                // The allocator's own books are for the gate, and what the clock takes stands below the table of what it has timed.
                if !name.contains('.') && name != CLOCK_NOTE && !names.contains(&&**name) {
                    names.push(name);
                }
            }
            // Known ones as they are best read, the others behind them.
            names.sort_by_key(|name| WORDS.iter().position(|(known, _)| known == name).unwrap_or(WORDS.len()));
            let is_elsewhere =
                |name: &str| BOOKS.iter().any(|(known, _)| *known == name) || is_service(row.workload) && is_column(name);
            names.retain(|name| !is_elsewhere(name));
            if is_series(names.iter().copied()) {
                self.print_series(text, row, &names, format);
                names.retain(|name| second(name).is_none() && !BESIDE_SERIES.contains(name));
            }
            if names.is_empty() {
                continue;
            }
            let mut table = Table::new();
            table.set_header([""].into_iter().chain(self.shown().map(|index| self.subjects[index])));
            for name in names {
                let noted = row.noted(name);
                let estimates: Vec<Option<Estimate>> = self.shown().map(|index| noted[index]).collect();
                let (words, units) = note_in_words(name);
                let unit = unit(&estimates, units);
                let mut texts = vec![words];
                texts.extend(estimates.iter().map(|noted| noted.map_or_else(|| "–".to_owned(), |noted| figure(&noted, unit))));
                table.add_row(texts);
            }
            print_right(text, &format!("Also noted, {}", row.workload), "", table, format);
        }
    }

    /// What the books of an allocator that keeps some say at the end of each workload, beside what the others take for in use there.
    pub(super) fn print_books(&self, text: &mut String, format: Format) {
        let is_kept = |subject: usize, name: &str| self.rows.iter().any(|row| row.noted(name)[subject].is_some());
        let columns: Vec<(usize, &str, &str)> = (0..self.subjects.len())
            .flat_map(|subject| BOOKS.iter().map(move |(name, words)| (subject, *name, *words)))
            .filter(|(subject, name, words)| !words.is_empty() && is_kept(*subject, name))
            .collect();
        // What is in use at the end is worth no table by itself: most workloads have given everything back by then.
        if columns.iter().all(|(_, name, _)| *name == HEAP_IN_USE) {
            return;
        }
        let mut table = Table::new();
        let between = if format == Format::Markdown { " " } else { "\n" };
        let header = columns.iter().map(|(subject, _, words)| format!("{}{between}{words}", self.subjects[*subject]));
        table.set_header([String::new()].into_iter().chain(header));
        for row in &self.rows {
            let figures: Vec<Option<Estimate>> = columns.iter().map(|(subject, name, _)| row.noted(name)[*subject]).collect();
            let unit = unit(&figures, BYTES);
            let mut texts = vec![row.workload.to_owned()];
            texts.extend(figures.iter().map(|figure| figure.map_or_else(|| "–".to_owned(), |its| value(its.median, unit))));
            table.add_row(texts);
        }
        print_right(text, "What allocators say of themselves at the end", "", table, format);
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
        for index in self.shown() {
            let mut texts = vec![self.subjects[index].to_owned()];
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
}
