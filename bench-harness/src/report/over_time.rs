//! The tables of memory over time, as it was seen from outside, and of page faults.

use std::fmt::Write;

use comfy_table::Table;

use super::{BYTES, COUNTS, Cell, Format, Report, Row, figure, print_right, unit};
use crate::record::Measurement;
use crate::resident::{self, Return};
use crate::statistics::Estimate;
use crate::subjects::is_again;

/// Fewer page faults than this are not worth a line: they take a tenth of a millisecond or two.
const FAULTS_MIN: f64 = 1_000.0;

impl Report<'_> {
    fn columns(&self) -> Vec<usize> {
        (0..self.subjects.len()).filter(|&index| !is_again(self.subjects[index])).collect()
    }

    /// What was resident beyond what the program held, in rows that say what they hold.
    pub(super) fn print_beyond_live(&self, text: &mut String, format: Format) {
        let columns = self.columns();
        let mut table = Table::new();
        table.set_header([""].into_iter().chain(columns.iter().map(|&index| self.subjects[index])));
        let says_what_it_holds = |row: &&Row<'_>| {
            let mut runs = row.cells.iter().flat_map(|cell| cell.by_round.values());
            runs.any(|run| resident::area(&run.resident).is_some())
        };
        for row in self.rows.iter().filter(says_what_it_holds) {
            let cells = || columns.iter().map(|&index| &row.cells[index]);
            if format == Format::Text && !table.is_empty() {
                table.add_row(vec![String::new(); columns.len() + 1]);
            }
            let title = if format == Format::Markdown { format!("**{}**", row.workload) } else { row.workload.to_uppercase() };
            table.add_row([title]);
            let areas: Vec<_> = cells().map(|cell| estimate(cell, |run| resident::area(&run.resident))).collect();
            table.add_row(line("beyond live, × time", &areas, |area| figure(area, (1.0, "MiB·s"))));
            let returned: Vec<String> = cells().map(returned).collect();
            if returned.iter().any(|said| *said != NOT_SAID) {
                table.add_row(["back within 10 % of live".to_owned()].into_iter().chain(returned));
            }
            let peaks: Vec<_> =
                cells().map(|cell| estimate(cell, |run| Some(resident::peak_bytes(&run.resident)? as f64))).collect();
            let means: Vec<_> = cells().map(|cell| estimate(cell, |run| resident::mean_bytes(&run.resident))).collect();
            for (title, estimates) in [("resident, highest look", &peaks), ("resident, on average", &means)] {
                let unit = unit(estimates, BYTES);
                table.add_row(line(title, estimates, |bytes| figure(bytes, unit)));
            }
        }
        if table.is_empty() {
            return;
        }
        print_right(text, "Resident beyond live, seen from outside", "", table, format);
        let _ = writeln!(
            text,
            "\nBeyond live × time is the area between two curves: what was resident (without files, and without what was there when the\n\
             workload began), and what the program held. 100 MiB·s are 10 MiB too many for ten seconds. Back is how long after live had\n\
             fallen for the last time resident was within 10 % (and 1 MiB) of it to stay, as far as looks at every 10 ms to some 100 ms show."
        );
    }

    /// Page faults of the whole process, in rows where the subjects differ by more than nobody would notice.
    pub(super) fn print_faults(&self, text: &mut String, format: Format) {
        let columns = self.columns();
        let mut table = Table::new();
        table.set_header([""].into_iter().chain(columns.iter().map(|&index| self.subjects[index])));
        let mut is_major = false;
        for row in &self.rows {
            let of = |faults: fn(&Measurement) -> u64| -> Vec<Option<Estimate>> {
                columns.iter().map(|&index| estimate(&row.cells[index], |run| Some(faults(run) as f64))).collect()
            };
            let (minor, major) = (of(|run| run.minor_faults), of(|run| run.major_faults));
            let medians = || minor.iter().flatten().map(|faults| faults.median);
            let (least, most) = (medians().fold(f64::INFINITY, f64::min), medians().fold(0.0, f64::max));
            if most - least >= FAULTS_MIN {
                table.add_row(line(row.workload, &minor, |faults| figure(faults, unit(&minor, COUNTS))));
            }
            if major.iter().flatten().any(|faults| faults.median > 0.0) {
                is_major = true;
                let title = format!("{}, waited for a disk", row.workload);
                table.add_row(line(&title, &major, |faults| figure(faults, unit(&major, COUNTS))));
            }
        }
        if table.is_empty() {
            return;
        }
        print_right(text, "Page faults of the process", "", table, format);
        let _ = writeln!(
            text,
            "\nRows in which the subjects are {FAULTS_MIN:.0} faults apart or more. A fault is a page of 4 KiB, or a huge one, that the kernel had to\n\
             provide at its first touch: who gives memory back and takes it again has them twice.{}",
            if is_major { " Who waits for a disk had too little memory." } else { "" }
        );
    }
}

const NOT_SAID: &str = "–";

/// Of most runs: in the middle, or that it never was.
fn returned(cell: &Cell<'_>) -> String {
    let returns: Vec<Return> = cell.by_round.values().filter_map(|run| resident::returned_after_ms(&run.resident)).collect();
    let watched =
        Estimate::of(returns.iter().filter_map(|its| if let Return::Never(ms) = its { Some(*ms as f64) } else { None }));
    // Never is later than any time.
    let middle = Estimate::of(returns.iter().map(|its| if let Return::After(ms) = its { *ms as f64 } else { f64::INFINITY }));
    match (middle, watched) {
        (None, _) => NOT_SAID.to_owned(),
        (Some(middle), _) if middle.median.is_finite() => format!("{:.2} s", middle.median / 1e3),
        (Some(_), watched) => format!("not in {:.0} s", watched.map_or(0.0, |watched| watched.median) / 1e3),
    }
}

fn estimate(cell: &Cell<'_>, of: impl Fn(&Measurement) -> Option<f64>) -> Option<Estimate> {
    Estimate::of(cell.by_round.values().filter_map(|run| of(run)))
}

fn line(title: &str, estimates: &[Option<Estimate>], figure: impl Fn(&Estimate) -> String) -> Vec<String> {
    let figures = estimates.iter().map(|estimate| estimate.as_ref().map_or_else(|| NOT_SAID.to_owned(), &figure));
    [title.to_owned()].into_iter().chain(figures).collect()
}
