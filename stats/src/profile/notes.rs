//! What is said about a profile in sentences: in the comments of pprof's files, above tables and under flame graphs.

use std::fmt::Write as _;
use std::time::Duration;

use super::{Kind, Profile};

impl Profile {
    /// What it stands on, how far off it may be, and what is missing: sentences for people, without names of functions.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let mut notes = vec![self.headline()];
        notes.extend((0..self.kind.value_types().len()).map(|value| self.sum(value)));
        notes.extend(self.error_formula());
        notes.extend(self.peak_note());
        notes.extend(self.missing());
        notes
    }

    fn headline(&self) -> String {
        let mut line = format!("freestone {}: {}", env!("CARGO_PKG_VERSION"), self.kind.name());
        if let Some(duration) = self.duration {
            let _ = write!(line, ", what changed in {:.1} s", duration.as_secs_f64());
        }
        let samples = self.samples();
        match (self.kind, self.summary.interval) {
            (Kind::Contention, _) => {}
            (_, 0) => {
                let _ = write!(line, "; {samples} samples, and sampling is off");
            }
            (_, 1) => {
                let _ = write!(line, "; {samples} samples, every allocation is one");
            }
            (_, interval) => {
                let _ = write!(line, "; {samples} samples, one per {interval} bytes on average");
            }
        }
        line
    }

    /// A column: estimate, error, exact count.
    pub(super) fn sum(&self, value: usize) -> String {
        let of = self.kind.value_types()[value];
        let mut line = format!("{}: {:.0}", of.name, self.total(value));
        if self.kind != Kind::Contention {
            let _ = write!(line, " ± {:.0}", self.total_error(value));
        }
        let _ = write!(line, " {}", of.unit);
        if let Some(exact) = self.exact.totals[value] {
            let _ = write!(line, " (exact: {exact})");
        }
        line
    }

    /// How to get the error of a single stack, where blocks are of one size: it is nowhere else in the file.
    fn error_formula(&self) -> Option<String> {
        let usual = matches!(self.kind, Kind::Heap | Kind::Allocs | Kind::Peak);
        (usual && self.duration.is_none() && self.summary.interval > 1).then(|| {
            "± is the standard error. Of a single stack's objects it is √(objects × (w − 1)), with w = 1 ÷ (1 − exp(−bytes ÷ period)), of its space bytes \
             times that"
                .to_owned()
        })
    }

    fn peak_note(&self) -> Option<String> {
        (self.kind == Kind::Peak && self.summary.peak_held_bytes > 0)
            .then(|| format!("at the peak the heap held {} bytes for blocks (exact)", self.summary.peak_held_bytes))
    }

    /// What the profile does not show.
    fn missing(&self) -> Vec<String> {
        let summary = &self.summary;
        let counts = [
            (summary.lost, "samples were not recorded: no memory, or in a signal handler"),
            (summary.untracked, "samples were recorded without their end: there was no room to follow them"),
            (summary.forgotten_sites, "call sites without live blocks were forgotten to make room"),
            (summary.cut_stacks, "stacks were too deep and are cut off at the root"),
            (summary.failed_stacks, "stacks could not be followed beyond the innermost frame"),
        ];
        counts.into_iter().filter(|&(count, _)| count > 0).map(|(count, what)| format!("{count} {what}")).collect()
    }
}

/// A value with its unit, for people: `1.2 MiB`, `-3.4 ms`, `12 M`.
pub(super) fn human(value: f64, unit: &str) -> String {
    let (sign, size) = (if value.round() < 0.0 { "-" } else { "" }, value.abs());
    let text = match unit {
        "bytes" => bytes(size),
        "nanoseconds" => nanoseconds(size),
        _ => count(size),
    };
    format!("{sign}{text}")
}

/// In no more than eight characters, so that tables keep their columns.
fn bytes(size: f64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let (mut size, mut unit) = (size.round(), 0);
    while size >= 1023.5 && unit + 1 < UNITS.len() {
        (size, unit) = (size / 1024.0, unit + 1);
    }
    let digits = usize::from(unit > 0 && size < 99.95);
    format!("{size:.digits$} {}", UNITS[unit])
}

fn nanoseconds(size: f64) -> String {
    const HOUR: f64 = 3.6e12;
    match size {
        size if size >= HOUR => format!("{:.1} h", size / HOUR),
        size if size >= 1e9 => format!("{:.2} s", size / 1e9),
        size => format!("{:.1?}", Duration::from_nanos(size.round() as u64)),
    }
}

fn count(size: f64) -> String {
    match size {
        size if size >= 1e13 => format!("{size:.3e}"),
        size if size >= 1e10 => format!("{:.1} G", size / 1e9),
        size if size >= 1e7 => format!("{:.1} M", size / 1e6),
        size => format!("{size:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::human;

    #[test]
    fn values_are_short_and_have_their_unit() {
        let cases = [
            (0.4, "bytes", "0 B"),
            (-0.4, "bytes", "0 B"),
            (1023.0, "bytes", "1023 B"),
            (1024.0, "bytes", "1.0 KiB"),
            (-1_048_000.0, "bytes", "-1023 KiB"),
            (1_048_500.0, "bytes", "1.0 MiB"),
            (2e18, "bytes", "1.7 EiB"),
            (9_999_999.0, "count", "9999999"),
            (12_345_678.0, "count", "12.3 M"),
            (1.5e15, "count", "1.500e15"),
            (1500.0, "nanoseconds", "1.5µs"),
            (90e9, "nanoseconds", "90.00 s"),
            (1e14, "nanoseconds", "27.8 h"),
        ];
        for (value, unit, text) in cases {
            assert_eq!(human(value, unit), text);
        }
    }
}
