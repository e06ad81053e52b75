//! Floors: what a scenario wants of a row, on every subject, and who does not reach it.

use std::fmt::Write;

use super::{Cell, Format, Report, plural, thousands};
use crate::record::{Floors, Measurement};
use crate::statistics::Estimate;
use crate::subjects::is_again;

/// The kind of latency that a service's floor is about; a workload without requests has to keep to it with all that it times.
const REQUEST: &str = "request";
/// The note of how many operations failed.
const ERRORS: &str = "errors";
/// The point of a distribution that 99 % lie below, in millionths.
const P99: u32 = 990_000;
const MIB: f64 = 1024.0 * 1024.0;

impl Report<'_> {
    /// How many floors there are, of all rows and subjects. Who runs twice in a round has them once.
    pub(crate) fn floors(&self) -> usize {
        let subjects = self.subjects.iter().filter(|subject| !is_again(subject)).count();
        self.kept.session.floors.values().map(Floors::count).sum::<usize>() * subjects
    }

    /// Who misses which floor, a sentence each. What is not known to be reached is missed.
    pub(crate) fn missed(&self) -> Vec<String> {
        let mut missed = Vec::new();
        for row in &self.rows {
            let Some(floors) = self.kept.session.floors.get(row.workload) else { continue };
            for (subject, cell) in self.subjects.iter().zip(&row.cells).filter(|(subject, _)| !is_again(subject)) {
                for what in
                    [rate(cell, floors), p99(cell, floors), error_rate(cell, floors), peak(cell, floors)].into_iter().flatten()
                {
                    missed.push(format!("{subject} on {}: {what}", row.workload));
                }
            }
        }
        missed
    }

    /// The sentences, or that there are none.
    pub(super) fn print_floors(&self, text: &mut String, format: Format) {
        let all = self.floors();
        if all == 0 {
            return;
        }
        let heading = if format == Format::Markdown { "### " } else { "" };
        let missed = self.missed();
        let _ = writeln!(text, "\n{heading}Floors\n");
        let _ = match missed.len() {
            0 => writeln!(text, "Nobody misses any of the {all} floor{}.", plural(all)),
            some => writeln!(text, "Missed are {some} of {all}. Figures are medians, shares those of all runs together.\n"),
        };
        for sentence in missed {
            let _ = writeln!(text, "- {sentence}");
        }
    }
}

fn rate(cell: &Cell<'_>, floors: &Floors) -> Option<String> {
    let least = floors.min_qps?;
    // A request that failed was not served.
    let served = |its: &Measurement| its.operations.saturating_sub(its.notes.get(ERRORS).copied().unwrap_or(0));
    let rate = |its: &Measurement| served(its) as f64 * 1e9 / its.nanos.max(1) as f64;
    let Some(Estimate { median, .. }) = Estimate::of(cell.by_round.values().map(|its| rate(its))) else {
        return Some(format!("its rate is not known, and must not be below {} (min_qps)", thousands(least)));
    };
    // Down and up: what is missed by a little must not look as if it were reached.
    (median < least).then(|| {
        let (median, least) = (thousands(median.floor()), thousands(least.ceil()));
        format!("{median} operations per second, where the floor is {least} (min_qps)")
    })
}

fn p99(cell: &Cell<'_>, floors: &Floors) -> Option<String> {
    let most = floors.max_p99_us?;
    let is_request = cell.by_round.values().any(|its| its.latencies.contains_key(REQUEST));
    let mut kinds: Vec<&str> = cell.by_round.values().flat_map(|its| its.latencies.keys()).map(|kind| &**kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds.retain(|kind| !is_request || *kind == REQUEST);
    let median = |kind: &str| {
        let point = |its: &Measurement| {
            let points = &its.latencies.get(kind)?.points;
            points.iter().find(|(share, _)| *share >= P99).map(|(_, nanos)| *nanos as f64 / 1e3)
        };
        Some((Estimate::of(cell.by_round.values().filter_map(|its| point(its)))?.median, kind.to_owned()))
    };
    let Some((worst, kind)) = kinds.into_iter().filter_map(median).max_by(|a, b| a.0.total_cmp(&b.0)) else {
        return Some(format!("its P99 is not known, and must not be above {} µs (max_p99_us)", thousands(most)));
    };
    (worst > most).then(|| {
        let (worst, most) = (thousands(worst.ceil()), thousands(most.floor()));
        format!("99 % of '{kind}' within {worst} µs, where {most} µs are allowed (max_p99_us)")
    })
}

fn error_rate(cell: &Cell<'_>, floors: &Floors) -> Option<String> {
    let most = floors.max_error_rate?;
    let noted: Vec<u64> = cell.by_round.values().filter_map(|its| its.notes.get(ERRORS).copied()).collect();
    if noted.is_empty() {
        return Some(format!("its errors are not known, and their share must not be above {most} (max_error_rate)"));
    }
    // Of all runs: the median of rare errors is none.
    let errors = noted.iter().map(|errors| *errors as f64).sum::<f64>();
    let operations = cell.by_round.values().map(|its| its.operations as f64).sum::<f64>();
    let share = errors / operations.max(1.0);
    (share > most).then(|| {
        let (errors, operations) = (thousands(errors), thousands(operations));
        format!("{errors} errors in {operations} operations, where a share of {most} is allowed (max_error_rate)")
    })
}

fn peak(cell: &Cell<'_>, floors: &Floors) -> Option<String> {
    let most = floors.max_peak_rss?;
    let Some(Estimate { median, .. }) = Estimate::of(cell.by_round.values().map(|its| its.peak_rss_bytes as f64)) else {
        return Some(format!("its peak is not known, and must not be above {:.2} MiB (max_peak_rss)", most as f64 / MIB));
    };
    (median > most as f64).then(|| {
        let (median, most) = (median / MIB, most as f64 / MIB);
        format!("a peak of {median:.2} MiB, where {most:.2} MiB are allowed (max_peak_rss)")
    })
}
