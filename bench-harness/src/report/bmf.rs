//! Bencher Metric Format, for those who keep their figures at bencher.dev: `bencher run --adapter json --file FILE`.
//!
//! ```text
//! {"hot-64/freestone": {"latency": {"value": 1.2, "lower_value": 1.1, "upper_value": 1.3}, "peak-rss": {…}}}
//! ```
//!
//! The form has no place for anything else, so where the figures come from stands in the names of its branch and testbed, which are told to
//! `bencher`, and in the record.

use anyhow::Result;
use serde_json::{Map, Value, json};

use super::figures::{Figure, Matrix};

/// Names are cut there by Bencher.
const NAME_MAX: usize = 64;

/// Figures that a note may have the name of.
const FIGURES: [&str; 9] =
    ["time", "rate", "latency", "throughput", "peak_rss", "faults", "major_faults", "instructions", "os_calls"];

/// The whole text.
pub(super) fn text(matrix: &Matrix<'_>) -> Result<String> {
    let mut benchmarks = Map::new();
    for row in &matrix.rows {
        for (subject, tally) in matrix.subjects.iter().zip(&row.tallies) {
            let measures: Map<String, Value> = matrix
                .figures
                .iter()
                .filter_map(|figure| {
                    let its = tally.estimate(&figure.name)?;
                    let value = if its.is_sure() {
                        json!({ "value": its.median, "lower_value": its.low, "upper_value": its.high })
                    } else {
                        json!({ "value": its.median })
                    };
                    Some((measure(figure), value))
                })
                .collect();
            if !measures.is_empty() {
                benchmarks.insert(format!("{}/{subject}", row.title), Value::Object(measures));
            }
        }
    }
    Ok(serde_json::to_string_pretty(&Value::Object(benchmarks))? + "\n")
}

/// The name of a measure. Bencher knows `latency` in nanoseconds and `throughput` per second; others are made as they come.
fn measure(figure: &Figure) -> String {
    match &*figure.name {
        "time" => "latency".to_owned(),
        "rate" => "throughput".to_owned(),
        name => {
            // A note has its name without more where no figure is called so.
            let bare = name.strip_prefix("note.").filter(|bare| !FIGURES.contains(bare));
            let slug = bare.unwrap_or(name).replace(['_', '.', ' '], "-");
            slug.chars().take(NAME_MAX).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Kind;

    #[test]
    fn measures_that_bencher_knows_have_its_names() {
        let name = |name| measure(&Figure::of(name, Kind::Workloads));
        assert_eq!(name("time"), "latency");
        assert_eq!(name("rate"), "throughput");
        assert_eq!(name("peak_rss"), "peak-rss");
        assert_eq!(name("latency.alloc.p99"), "latency-alloc-p99");
        assert_eq!(name("note.rss_02_s"), "rss-02-s");
        assert_eq!(name("note.peak_rss"), "note-peak-rss");
    }
}
