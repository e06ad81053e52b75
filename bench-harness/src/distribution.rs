//! The distribution of a time, cut down to what a report shows: how many, how long on average and at most, and a dozen points outwards from the
//! middle, where the tail is. A histogram has thousands of buckets; ten points of it fit on a line of a record.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Of so many of a million operations each point says within what time they were done.
const PARTS_PER_MILLION: [u32; 10] = [500_000, 750_000, 900_000, 950_000, 990_000, 995_000, 999_000, 999_500, 999_900, 999_990];

/// How long operations of one kind took. The same on the wire and in records, where it is called a latency.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Distribution {
    /// Of how many operations.
    pub count: u64,
    /// On average, in nanoseconds.
    pub mean_ns: u64,
    /// The longest.
    pub max_ns: u64,
    /// Points, from the middle outwards: so many of a million operations took at most so many nanoseconds.
    pub points: Vec<(u32, u64)>,
}

impl Distribution {
    /// Of a histogram of nanoseconds. One that is empty has no points.
    #[must_use]
    pub fn of(histogram: &Histogram<u64>) -> Self {
        let count = histogram.len();
        let at = |parts: u32| (parts, histogram.value_at_quantile(f64::from(parts) / 1e6).min(histogram.max()));
        let points = if count == 0 { Vec::new() } else { PARTS_PER_MILLION.into_iter().map(at).collect() };
        Self { count, mean_ns: histogram.mean().round() as u64, max_ns: histogram.max(), points }
    }
}

#[cfg(test)]
mod tests {
    use hdrhistogram::Histogram;

    use super::Distribution;

    #[test]
    fn points_lie_where_the_times_are_and_never_behind_the_longest() {
        let mut histogram = Histogram::<u64>::new(3).expect("three digits are possible");
        for micros in 1..=10_000 {
            histogram.record(micros * 1_000).expect("it grows");
        }
        let found = Distribution::of(&histogram);
        assert_eq!(found.count, 10_000);
        assert!(found.mean_ns.abs_diff(5_000_500) < 5_000, "{found:?}");
        assert!(found.max_ns.abs_diff(10_000_000) < 10_000, "{found:?}");
        assert_eq!(found.points.len(), 10);
        for (parts, nanos) in &found.points {
            assert!(nanos.abs_diff(u64::from(*parts) * 10) <= u64::from(*parts) / 50, "{parts}: {nanos}");
            assert!(*nanos <= found.max_ns);
        }
    }

    #[test]
    fn nothing_has_no_points() {
        let nothing = Histogram::<u64>::new(3).expect("three digits are possible");
        assert_eq!(Distribution::of(&nothing), Distribution::default());
    }
}
