//! What a run's samples come to: how much was resident beyond what the program held, and how soon after a burst that was gone.
//!
//! ```text
//!   bytes │      ╭──╮
//!         │     ╱ ╱╲ ╲────╮                 ── resident
//!         │    ╱ ╱  ╲      ╲ area           ╱╲ live
//!         │ ──╯ ╱    ╲      ╰──────────
//!         │ before    ╲________________     back within 10 % of live, so long after live fell for the last time:
//!         └──┬─────────┬─────┬──────────    from there ...
//!          begins     fell   back           ... to here
//! ```
//!
//! All of it is about what is resident beyond *before*: what the process had when its workload began, with the program's own tables. It is
//! known only where a workload says what it holds ([`live`](freestone_bench::live)).

use crate::record::Sample;

const MIB: f64 = 1024.0 * 1024.0;

/// How far from what is live counts as back …
const WITHIN: f64 = 0.1;
/// … and what is allowed besides, for the page at the end of everything, and because the kernel counts resident pages loosely.
const SLACK_BYTES: f64 = MIB;

/// A program that ends sooner after its last free gave nobody the time to give anything back.
const WATCHED_MIN_MS: u64 = 1_000;

/// How soon memory came back after what was live had fallen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Return {
    /// So many milliseconds later.
    After(u64),
    /// Not as long as anybody looked, which was so many milliseconds.
    Never(u64),
}

/// A sample of which is known what the program held, and what was resident for that.
#[derive(Clone, Copy)]
struct Point {
    ms: u64,
    live: f64,
    /// Without what was there before.
    resident: f64,
}

impl Point {
    /// Is no more resident than what is live takes?
    fn is_back(self) -> bool {
        self.resident <= self.live * (1.0 + WITHIN) + SLACK_BYTES
    }
}

/// From where the program says what it holds.
fn points(samples: &[Sample]) -> Vec<Point> {
    let known = || samples.iter().filter_map(|sample| Some((sample, sample.live_bytes? as f64)));
    let before = known().next().map_or(0.0, |(sample, live)| sample.rss_bytes as f64 - live);
    known().map(|(sample, live)| Point { ms: sample.ms, live, resident: sample.rss_bytes as f64 - before }).collect()
}

/// The integral over time, in seconds times the value's unit, by trapezoids.
fn integral(values: impl Iterator<Item = (u64, f64)>) -> f64 {
    let mut last: Option<(u64, f64)> = None;
    let mut sum = 0.0;
    for (ms, value) in values {
        if let Some((last_ms, last_value)) = last.replace((ms, value)) {
            sum += f64::midpoint(last_value, value) * ms.saturating_sub(last_ms) as f64 / 1e3;
        }
    }
    sum
}

/// The area between what was resident and what was live, in MiB times seconds: what a program pays for that it does not hold. `None` where it does
/// not say what it holds. Where less is resident than live, because it was not touched yet or has been swapped out, that counts as less.
pub(crate) fn area(samples: &[Sample]) -> Option<f64> {
    let points = points(samples);
    (points.len() > 1).then(|| integral(points.iter().map(|point| (point.ms, (point.resident - point.live) / MIB))))
}

/// When what is resident came to within 10 % (and a MiB) of what is live, to stay there, after that had fallen for the last time. `None` where
/// it has not fallen by more than that, where nobody says, or where the program was over within a second.
pub(crate) fn returned_after_ms(samples: &[Sample]) -> Option<Return> {
    let points = points(samples);
    let last = points.last()?;
    let at_the_end = last.live * (1.0 + WITHIN) + SLACK_BYTES;
    // The first of those at the end that stay: what is before them is more.
    let fell = points.iter().rposition(|point| point.live > at_the_end)? + 1;
    let fell_ms = points.get(fell)?.ms;
    let watched_ms = last.ms.saturating_sub(fell_ms);
    if watched_ms < WATCHED_MIN_MS {
        return None;
    }
    let back = points.iter().rposition(|point| !point.is_back()).map_or(fell, |place| (place + 1).max(fell));
    Some(points.get(back).map_or(Return::Never(watched_ms), |point| Return::After(point.ms.saturating_sub(fell_ms))))
}

/// The most that anybody saw; a process may have had more between two looks.
pub(crate) fn peak_bytes(samples: &[Sample]) -> Option<u64> {
    samples.iter().map(|sample| sample.rss_bytes).max()
}

/// On average over the time that was looked at.
pub(crate) fn mean_bytes(samples: &[Sample]) -> Option<f64> {
    let (first, last) = (samples.first()?, samples.last()?);
    let seconds = last.ms.saturating_sub(first.ms) as f64 / 1e3;
    (seconds > 0.0).then(|| integral(samples.iter().map(|sample| (sample.ms, sample.rss_bytes as f64))) / seconds)
}

#[cfg(test)]
mod tests {
    use super::{Return, area, mean_bytes, peak_bytes, returned_after_ms};
    use crate::record::Sample;

    /// Of milliseconds, MiB resident, and MiB live.
    fn samples(figures: &[(u64, u64, Option<u64>)]) -> Vec<Sample> {
        let sample = |&(ms, rss, live): &(u64, u64, Option<u64>)| Sample {
            ms,
            rss_bytes: rss << 20,
            live_bytes: live.map(|live| live << 20),
        };
        figures.iter().map(sample).collect()
    }

    /// Begins with 5 MiB that are nobody's, goes up to 100, falls to 10, and gives back in two steps.
    fn burst() -> Vec<Sample> {
        samples(&[
            (0, 3, None),
            (100, 5, Some(0)),
            (1_100, 115, Some(100)),
            (2_100, 115, Some(10)),
            (3_100, 115, Some(10)),
            (4_100, 65, Some(10)),
            (5_100, 17, Some(10)),
            (6_100, 16, Some(10)),
        ])
    }

    #[test]
    fn the_area_is_what_is_resident_beyond_before_and_live_over_time() {
        // Beyond: 0, 10, 100, 100, 50, 2, 1, a second apart.
        let expected = 5.0 + 55.0 + 100.0 + 75.0 + 26.0 + 1.5;
        assert!((area(&burst()).expect("it is known") - expected).abs() < 1e-9);
        let leaner = samples(&[(0, 5, Some(0)), (1_000, 10, Some(9)), (3_000, 10, Some(9))]);
        assert!((area(&leaner).expect("it is known") + 2.0 + 8.0).abs() < 1e-9, "untouched memory counts as less");
    }

    #[test]
    fn memory_is_back_from_where_it_stays_within_a_tenth_of_live() {
        // 12 MiB over 10 live, of which 1 is a tenth and 1 is slack.
        assert_eq!(returned_after_ms(&burst()), Some(Return::After(3_000)));
        let near = samples(&[
            (0, 0, Some(0)),
            (1_000, 90, Some(90)),
            (2_000, 13, Some(10)),
            (3_000, 12, Some(10)),
            (4_000, 12, Some(10)),
        ]);
        assert_eq!(returned_after_ms(&near), Some(Return::After(1_000)), "13 MiB are too many");
        let mut relapse = burst();
        relapse.extend(samples(&[(7_100, 40, Some(10))]));
        assert_eq!(returned_after_ms(&relapse), Some(Return::Never(5_000)));
        relapse.extend(samples(&[(8_100, 15, Some(10))]));
        assert_eq!(returned_after_ms(&relapse), Some(Return::After(6_000)));
    }

    #[test]
    fn what_is_given_back_at_once_is_back_after_no_time() {
        // Before the fall there was too much once; that is no reason to call the time below zero.
        let eager =
            samples(&[(0, 5, Some(0)), (500, 55, Some(10)), (1_000, 105, Some(100)), (2_000, 5, Some(0)), (4_000, 5, Some(0))]);
        assert_eq!(returned_after_ms(&eager), Some(Return::After(0)));
    }

    #[test]
    fn a_later_fall_counts_and_an_earlier_one_does_not() {
        let twice = samples(&[
            (0, 0, Some(0)),
            (1_000, 100, Some(100)),
            (2_000, 10, Some(10)),
            (3_000, 100, Some(100)),
            (4_000, 100, Some(10)),
            (5_000, 11, Some(10)),
        ]);
        assert_eq!(returned_after_ms(&twice), Some(Return::After(1_000)));
    }

    #[test]
    fn where_nothing_falls_or_nobody_looks_long_enough_nothing_is_said() {
        let steady = samples(&[(0, 0, Some(0)), (1_000, 100, Some(95)), (2_000, 100, Some(90)), (9_000, 100, Some(92))]);
        assert_eq!(returned_after_ms(&steady), None);
        let short = samples(&[(0, 0, Some(0)), (1_000, 100, Some(100)), (1_100, 100, Some(10)), (1_900, 100, Some(10))]);
        assert_eq!(returned_after_ms(&short), None);
        let unsaid = samples(&[(0, 0, None), (1_000, 100, None)]);
        assert_eq!((area(&unsaid), returned_after_ms(&unsaid)), (None, None));
        assert_eq!((area(&[]), returned_after_ms(&[])), (None, None));
        let one = samples(&[(0, 0, Some(0))]);
        assert_eq!((area(&one), returned_after_ms(&one)), (None, None));
    }

    #[test]
    fn means_are_by_time_and_not_by_sample() {
        let uneven = samples(&[(0, 10, None), (1_000, 10, None), (2_000, 40, None), (2_000, 40, None), (4_000, 40, None)]);
        let mib = mean_bytes(&uneven).expect("there are some") / super::MIB;
        assert!((mib - (10.0 + 25.0 + 80.0) / 4.0).abs() < 1e-9, "{mib}");
        assert_eq!(peak_bytes(&uneven), Some(40 << 20));
        assert_eq!(mean_bytes(&uneven[..1]), None);
        assert_eq!(peak_bytes(&[]), None);
    }
}
