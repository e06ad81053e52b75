//! What a handful of runs says, and how sure that is.
//!
//! Everything is a median with the interval of ranks that holds the true median in at least 95 of 100 cases, whatever the noise looks
//! like: if half of all runs lie below the true median, then it lies below the lowest of six only once in 2⁶ times, and above the highest as
//! rarely. So six runs are the fewest that say anything at 95 %, and there the interval spans all of them; with ten it leaves out the lowest
//! and the highest. A bootstrap was the road not taken: of six runs it makes intervals that are too narrow, and it needs random numbers.

/// A median and the interval around it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Estimate {
    /// The middle run, or the mean of the two in the middle.
    pub(crate) median: f64,
    /// The lower end of the interval.
    pub(crate) low: f64,
    /// The upper end.
    pub(crate) high: f64,
    /// Of how many runs.
    pub(crate) runs: usize,
}

/// Where a ratio lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    /// All of the interval lies below 1.
    Below,
    /// The interval contains 1, or the ratio is so close to it that nobody cares.
    Even,
    /// All of the interval lies above 1.
    Above,
    /// Too few runs to say.
    Unknown,
}

impl Estimate {
    /// The fewest runs whose lowest and highest make a 95 % interval.
    pub(crate) const RUNS_MIN: usize = 6;
    /// A ratio closer to 1 than this is no difference, however sure.
    const NEGLIGIBLE: f64 = 0.005;

    /// `None` of nothing.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (&lowest, &highest) = (values.first()?, values.last()?);
        let runs = values.len();
        let median = f64::midpoint(values[(runs - 1) / 2], values[runs / 2]);
        let left_out = left_out(runs).unwrap_or(0);
        let (low, high) = if left_out == 0 { (lowest, highest) } else { (values[left_out], values[runs - 1 - left_out]) };
        Some(Self { median, low, high, runs })
    }

    /// Are there enough runs for the interval to hold what it says?
    pub(crate) fn is_sure(&self) -> bool {
        self.runs >= Self::RUNS_MIN
    }

    /// For a ratio: is it above 1, below, or is that not known?
    pub(crate) fn side(&self) -> Side {
        if !self.is_sure() {
            Side::Unknown
        } else if (self.low <= 1.0 && self.high >= 1.0) || (self.median - 1.0).abs() < Self::NEGLIGIBLE {
            Side::Even
        } else if self.median > 1.0 {
            Side::Above
        } else {
            Side::Below
        }
    }

    /// How far the interval reaches from the median at most, as a share of the median.
    pub(crate) fn spread(&self) -> f64 {
        (self.high - self.median).max(self.median - self.low) / self.median
    }
}

/// How many runs an interval of 95 % leaves out at either end. `None` when even all of them do not suffice.
fn left_out(runs: usize) -> Option<usize> {
    // The chance that the true median lies below the lowest, below the second lowest, …: sums of the binomial distribution.
    let mut term = 0.5_f64.powi(i32::try_from(runs).ok()?);
    let mut below = 0.0;
    let mut enough = None;
    for rank in 0..runs.div_ceil(2) {
        below += term;
        if 2.0 * below > 0.05 {
            break;
        }
        enough = Some(rank);
        term *= (runs - rank) as f64 / (rank + 1) as f64;
    }
    enough
}

/// `None` of nothing.
pub(crate) fn geometric_mean(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.into_iter().fold((0.0, 0_u32), |(sum, count), value| (sum + value.ln(), count + 1));
    (count > 0).then(|| (sum / f64::from(count)).exp())
}

#[cfg(test)]
mod tests {
    use super::{Estimate, Side, geometric_mean, left_out};

    fn estimate(values: &[f64]) -> Estimate {
        Estimate::of(values.iter().copied()).expect("there are values")
    }

    #[test]
    fn medians_are_the_middle_or_the_mean_of_the_two_in_the_middle() {
        assert!((estimate(&[3.0, 1.0, 2.0]).median - 2.0).abs() < 1e-12);
        assert!((estimate(&[4.0, 1.0, 3.0, 2.0]).median - 2.5).abs() < 1e-12);
        assert!((estimate(&[7.0]).median - 7.0).abs() < 1e-12);
        assert_eq!(Estimate::of([]), None);
    }

    /// The figures stand in every table of the sign test.
    #[test]
    fn intervals_leave_out_as_many_runs_as_the_sign_test_allows() {
        let known = [
            (1, None),
            (5, None),
            (6, Some(0)),
            (8, Some(0)),
            (9, Some(1)),
            (10, Some(1)),
            (12, Some(2)),
            (20, Some(5)),
            (30, Some(9)),
        ];
        for (runs, expected) in known {
            assert_eq!(left_out(runs), expected, "{runs} runs");
        }
        let ten = estimate(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0]);
        assert_eq!((ten.low, ten.high), (2.0, 9.0));
    }

    #[test]
    fn an_interval_that_contains_one_is_no_difference() {
        assert_eq!(estimate(&[0.98, 1.1, 1.2, 1.2, 1.3, 1.3]).side(), Side::Even);
        assert_eq!(estimate(&[1.02, 1.1, 1.2, 1.2, 1.3, 1.3]).side(), Side::Above);
        assert_eq!(estimate(&[0.8, 0.9, 0.9, 0.9, 0.95, 0.98]).side(), Side::Below);
    }

    #[test]
    fn a_sure_difference_that_nobody_cares_about_is_none() {
        assert_eq!(estimate(&[1.002; 6]).side(), Side::Even);
        assert_eq!(estimate(&[1.02; 6]).side(), Side::Above);
    }

    #[test]
    fn five_runs_say_nothing() {
        assert_eq!(estimate(&[2.0; 5]).side(), Side::Unknown);
    }

    #[test]
    fn geometric_means_of_opposites_cancel() {
        assert!((geometric_mean([2.0, 0.5]).expect("two values") - 1.0).abs() < 1e-12);
        assert!((geometric_mean([2.0, 8.0]).expect("two values") - 4.0).abs() < 1e-12);
        assert_eq!(geometric_mean([]), None);
    }
}
