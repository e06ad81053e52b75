//! What a handful of runs says, and how sure that is.
//!
//! A figure is a *median* with the interval that a **bootstrap** gives it: draw as many runs from those that there are, with repetition, take
//! their median, do that a few thousand times, and leave out the lowest and the highest 2.5 % of what came. The draws come from a seed that
//! never changes, so the same runs always make the same interval.
//!
//! Two figures *differ* when three things hold, each of which has a weakness of its own:
//!
//! 1. The interval of their ratio, taken round by round, excludes 1. Drift hits all runs of a round alike, so it cancels. But of ten runs a
//!    bootstrap makes intervals that are a little too narrow.
//! 2. A **Mann–Whitney** test, which asks how often a run of the one lies below a run of the other, would say so by chance in fewer than 5
//!    of 100 cases. It knows nothing of rounds, and assumes nothing about the noise. With fewer than six runs we do not ask it.
//!    Of runs that were side by side, it is asked in the form for pairs (Wilcoxon's signed ranks): they have a speed in common that changes from
//!    round to round by more than they differ.
//! 3. They differ by half a percent. What is less is sure at times, and never matters.
//!
//! That this is wrong in fewer than 5 of 100 cases where there is no difference, whatever the noise looks like, and finds 3 % where runs
//! scatter by 1.5 %, the tests below simulate.

use std::collections::BTreeMap;

use freestone_bench::workload::Rng;
use statrs::function::erf::erfc;

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
    /// Below 1.
    Below,
    /// No difference was found, or none that anybody cares about.
    Even,
    /// Above 1.
    Above,
    /// Too few runs to say.
    Unknown,
}

impl Estimate {
    /// The fewest runs that say anything at 95 %: of two times six, Mann and Whitney can be sure even when one of them strays.
    pub(crate) const RUNS_MIN: usize = 6;
    /// A ratio closer to 1 than this is no difference, however sure.
    const NEGLIGIBLE: f64 = 0.005;
    /// How often the runs are drawn anew. Of 2,000 medians, fifty lie outside at either end.
    const DRAWS: usize = 2_000;

    /// `None` of nothing.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let values = sorted(values);
        let median = median(&values)?;
        let mut drawn = Drawn::new(&values);
        let (low, high) = middle((0..Self::DRAWS).map(|_| drawn.median()))?;
        Some(Self { median, low, high, runs: values.len() })
    }

    /// Are there enough runs for the interval to hold what it says?
    pub(crate) fn is_sure(&self) -> bool {
        self.runs >= Self::RUNS_MIN
    }

    /// For a ratio of which nothing else is known: is it above 1, below, or is that not known? Where there are the figures that it divides,
    /// [`Difference::side`] knows more.
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

/// How one set of figures compares with another.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Difference {
    /// The one divided by the other.
    pub(crate) ratio: Estimate,
    /// How often two sets that do not differ look as different as these (Mann and Whitney, two-sided).
    pub(crate) p: f64,
}

impl Difference {
    /// From what `p` on nobody believes that it is chance no longer.
    pub(crate) const CHANCE_MAX: f64 = 0.05;

    /// Of figures by round, which are divided round by round. `None` when they have no round in common.
    pub(crate) fn by_round(figures: &BTreeMap<u64, f64>, others: &BTreeMap<u64, f64>) -> Option<Self> {
        let both = figures.iter().filter_map(|(round, figure)| Some((*figure, *others.get(round)?)));
        // Nothing is a multiple of nothing.
        let both: Vec<(f64, f64)> = both.filter(|(figure, other)| (figure / other).is_finite()).collect();
        let ratio = Estimate::of(both.iter().map(|(figure, other)| figure / other))?;
        let (figures, others): (Vec<f64>, Vec<f64>) = both.into_iter().unzip();
        Some(Self { ratio, p: mann_whitney(&figures, &others) })
    }

    /// Of figures by round, where those of a round were taken at the same time: pairs. `None` when they have no round in common.
    pub(crate) fn side_by_side(figures: &BTreeMap<u64, f64>, others: &BTreeMap<u64, f64>) -> Option<Self> {
        let Self { ratio, .. } = Self::by_round(figures, others)?;
        let both = figures.iter().filter_map(|(round, figure)| Some((figure / others.get(round)?).ln()));
        let logarithms: Vec<f64> = both.filter(|ratio| ratio.is_finite()).collect();
        Some(Self { ratio, p: signed_ranks(&logarithms) })
    }

    /// Of figures that were not taken together, such as those of two sessions: the medians are divided.
    pub(crate) fn apart(figures: &[f64], others: &[f64]) -> Option<Self> {
        let finite = |figures: &[f64]| sorted(figures.iter().copied().filter(|figure| figure.is_finite()));
        let (figures, others) = (finite(figures), finite(others));
        let ratio = median(&figures)? / median(&others)?;
        let (mut above, mut below) = (Drawn::new(&figures), Drawn::new(&others));
        let (low, high) = middle((0..Estimate::DRAWS).map(|_| above.median() / below.median()))?;
        let runs = figures.len().min(others.len());
        ratio.is_finite().then(|| Self { ratio: Estimate { median: ratio, low, high, runs }, p: mann_whitney(&figures, &others) })
    }

    /// Is it above 1, below, or is there no difference?
    pub(crate) fn side(&self) -> Side {
        match self.ratio.side() {
            Side::Above | Side::Below if self.p >= Self::CHANCE_MAX => Side::Even,
            side => side,
        }
    }

    /// How large it is, whichever way it goes: the logarithm of the ratio.
    pub(crate) fn effect(&self) -> f64 {
        self.ratio.median.ln().abs()
    }
}

fn sorted(values: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values
}

/// Of values that are sorted.
fn median(values: &[f64]) -> Option<f64> {
    let above = *values.get(values.len() / 2)?;
    let below = values[(values.len() - 1) / 2];
    Some(f64::midpoint(below, above))
}

/// The bounds of the 95 % in the middle.
fn middle(values: impl IntoIterator<Item = f64>) -> Option<(f64, f64)> {
    let values = sorted(values);
    let outside = values.len() / 40;
    Some((*values.get(outside)?, values[values.len() - 1 - outside]))
}

/// Draws as many runs as there are, with repetition, again and again.
struct Drawn<'a> {
    rng: Rng,
    /// Sorted, so that the places of runs have the order of the runs.
    values: &'a [f64],
    places: Vec<usize>,
}

impl<'a> Drawn<'a> {
    fn new(values: &'a [f64]) -> Self {
        // One seed for all, so that no figure depends on which was asked for first.
        Self { rng: Rng::new(0x5eed), values, places: vec![0; values.len()] }
    }

    /// The median of a draw. There is at least one value.
    fn median(&mut self) -> f64 {
        let runs = self.values.len();
        for place in &mut self.places {
            *place = self.rng.below(runs);
        }
        let (before, above, _) = self.places.select_nth_unstable(runs / 2);
        let above = *above;
        let below = if runs % 2 == 1 { above } else { before.iter().copied().max().unwrap_or(above) };
        f64::midpoint(self.values[below], self.values[above])
    }
}

/// How often two sets of figures from one and the same source look at least as different as these: the test of Mann and Whitney, two-sided.
///
/// Up to [`EXACT_MAX`] figures in all this is counted out: of all ways to choose as many ranks as the first set has, in how many is their sum
/// as far from the mean? Equal figures share a rank, which is where tables of the test end and counting does not: what a process has
/// resident is a whole number of pages, and ties are the rule. Beyond, the sum is as good as normal.
///
/// (`statrs` 0.19.1 has this test, too. It says p = 1 of two sets of six that do not overlap, where it is 1 in 462; and of six against a
/// thousand it goes through 10¹⁵ choices one by one.)
pub(crate) fn mann_whitney(figures: &[f64], others: &[f64]) -> f64 {
    if figures.is_empty() || others.is_empty() {
        return 1.0;
    }
    let ranks = doubled_ranks(figures, others);
    let all: usize = ranks.iter().sum();
    let (count, total) = (figures.len(), ranks.len());
    let sum: usize = ranks[..count].iter().sum();
    // Twice the ranks, and times how many there are, so that all is whole: the mean of the sum is all × count ÷ total.
    let distance = |sum: usize| (sum * total).abs_diff(all * count);
    if total > EXACT_MAX {
        return chance_of_normal(&ranks, count, distance(sum));
    }
    // ways[chosen][sum]: so many choices of so many ranks have this sum. A choice of half of 60 ranks is one of 10¹⁷, which f64 counts well enough.
    let mut ways = vec![vec![0.0_f64; all + 1]; count + 1];
    ways[0][0] = 1.0;
    let mut sum_max = 0;
    for &rank in &ranks {
        for chosen in (0..count).rev() {
            let (without, with) = ways.split_at_mut(chosen + 1);
            let (without, with) = (&without[chosen][..=sum_max], &mut with[0][rank..]);
            with.iter_mut().zip(without).for_each(|(with, without)| *with += without);
        }
        sum_max += rank;
    }
    let at_least = |(sums, ways): (usize, &f64)| if distance(sums) >= distance(sum) { *ways } else { 0.0 };
    let as_far: f64 = ways[count].iter().enumerate().map(at_least).sum();
    as_far / ways[count].iter().sum::<f64>()
}

/// How often chance alone, which is as likely to go one way as the other, makes pairs differ at least as much as these: the test of signed ranks,
/// two-sided (Wilcoxon, <https://doi.org/10.2307/3001968>). Pairs that do not differ at all say nothing.
///
/// Up to [`EXACT_MAX`] pairs this is counted out as above: of all ways to give each rank a sign, in how many is the sum of the positive ones as far
/// from the mean?
pub(crate) fn signed_ranks(differences: &[f64]) -> f64 {
    let differences: Vec<f64> = differences.iter().copied().filter(|difference| *difference != 0.0).collect();
    let sizes: Vec<f64> = differences.iter().map(|difference| difference.abs()).collect();
    let ranks = doubled_ranks(&sizes, &[]);
    let all: usize = ranks.iter().sum();
    let sum: usize = ranks.iter().zip(&differences).filter(|(_, difference)| **difference > 0.0).map(|(rank, _)| rank).sum();
    let distance = |sum: usize| (2 * sum).abs_diff(all);
    if ranks.is_empty() {
        return 1.0;
    }
    if ranks.len() > EXACT_MAX {
        let deviation = ranks.iter().map(|&rank| (rank as f64).powi(2)).sum::<f64>().sqrt();
        return erfc((distance(sum) as f64 - 1.0).max(0.0) / deviation / std::f64::consts::SQRT_2);
    }
    // ways[sum]: so many choices of ranks have this sum.
    let mut ways = vec![0.0_f64; all + 1];
    ways[0] = 1.0;
    for &rank in &ranks {
        for sum in (rank..=all).rev() {
            ways[sum] += ways[sum - rank];
        }
    }
    let as_far: f64 = ways.iter().enumerate().filter(|(its, _)| distance(*its) >= distance(sum)).map(|(_, ways)| ways).sum();
    as_far / ways.iter().sum::<f64>()
}

/// So many figures in all are counted out.
const EXACT_MAX: usize = 60;

/// The ranks of all figures, first set first, from 1; equal ones share the mean of theirs. Twice that, so that they are whole.
fn doubled_ranks(figures: &[f64], others: &[f64]) -> Vec<usize> {
    let all: Vec<f64> = figures.iter().chain(others).copied().collect();
    let mut order: Vec<usize> = (0..all.len()).collect();
    order.sort_by(|a, b| all[*a].total_cmp(&all[*b]));
    let mut ranks = vec![0; all.len()];
    let mut below = 0;
    for equal in order.chunk_by(|a, b| all[*a].total_cmp(&all[*b]).is_eq()) {
        for &place in equal {
            ranks[place] = 2 * below + equal.len() + 1;
        }
        below += equal.len();
    }
    ranks
}

/// The same by the normal distribution. The variance is that of ranks drawn without putting them back, so equal ones are accounted for.
fn chance_of_normal(ranks: &[usize], count: usize, distance: usize) -> f64 {
    let total = ranks.len() as f64;
    let mean = ranks.iter().sum::<usize>() as f64 / total;
    let scatter = ranks.iter().map(|&rank| (rank as f64 - mean).powi(2)).sum::<f64>() / (total - 1.0);
    let deviation = (scatter * count as f64 * (total - count as f64) / total).sqrt();
    if deviation == 0.0 {
        return 1.0;
    }
    // Sums of doubled ranks are two apart where no ranks are shared: half a step towards the mean.
    let beyond = (distance as f64 / total - 1.0).max(0.0);
    erfc(beyond / deviation / std::f64::consts::SQRT_2)
}

/// `None` of nothing.
pub(crate) fn geometric_mean(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.into_iter().fold((0.0, 0_u32), |(sum, count), value| (sum + value.ln(), count + 1));
    (count > 0).then(|| (sum / f64::from(count)).exp())
}

#[cfg(test)]
mod tests {
    use super::{Difference, Estimate, Side, chance_of_normal, doubled_ranks, geometric_mean, mann_whitney, signed_ranks};
    use freestone_bench::workload::Rng;
    use std::collections::BTreeMap;

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

    #[test]
    fn the_same_runs_make_the_same_interval_in_whatever_order() {
        let ten = estimate(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0]);
        assert_eq!(ten, estimate(&[10.0, 9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0]));
        assert!(ten.low < ten.median && ten.median < ten.high, "{ten:?}");
        // The interval of ranks, which is never too narrow, goes from 2 to 9.
        assert!(ten.low >= 2.0 && ten.high <= 9.0, "{ten:?}");
    }

    /// The figures stand in every table of the test; those with equal figures were counted by hand.
    #[test]
    fn chances_are_those_of_the_tables() {
        let from = |first: u32, count: u32| (first..first + count).map(f64::from).collect::<Vec<_>>();
        let apart = |count| mann_whitney(&from(1, count), &from(100, count));
        // One way of 3 of 6, of 6 of 12, of 10 of 20, and the opposite.
        for (count, ways) in [(3, 20.0), (6, 924.0), (10, 184_756.0)] {
            assert!((apart(count) - 2.0 / ways).abs() < 1e-12, "{count}: {}", apart(count));
        }
        // The example in the manual of scipy, either way round.
        let (male, female) = ([19.0, 22.0, 16.0, 29.0, 24.0], [20.0, 11.0, 17.0, 12.0]);
        for p in [mann_whitney(&male, &female), mann_whitney(&female, &male)] {
            assert!((p - 1.0 / 9.0).abs() < 1e-12, "{p}");
        }
        // Tables of critical values: at 5 % two-sided, U of at most 5 for two times six, 23 for ten, 127 for twenty.
        for (count, critical) in [(6, 5), (10, 23), (20, 127)] {
            let with_u = |u: u32| {
                // The first set lies below the second, but for one of its figures that lies above `u` of them, and so on.
                let mut left = u;
                let figures: Vec<f64> = (0..count)
                    .map(|place| {
                        let above = left.min(count);
                        left -= above;
                        f64::from(above) + 0.5 + f64::from(count - place) / 1_000.0
                    })
                    .collect();
                mann_whitney(&figures, &from(1, count))
            };
            assert!(with_u(critical) < 0.05, "{count}: {}", with_u(critical));
            assert!(with_u(critical + 1) > 0.05, "{count}: {}", with_u(critical + 1));
        }
        // Of {1, 1, 2, 2}: the ways to choose two are {1,1}, four times {1,2}, {2,2}.
        assert!((mann_whitney(&[1.0, 1.0], &[2.0, 2.0]) - 2.0 / 6.0).abs() < 1e-12);
        assert!((mann_whitney(&[1.0, 2.0], &[1.0, 2.0]) - 1.0).abs() < 1e-12);
        assert!((mann_whitney(&[5.0; 8], &[5.0; 8]) - 1.0).abs() < 1e-12);
        assert!((mann_whitney(&[], &[1.0]) - 1.0).abs() < 1e-12);
    }

    /// The figures stand in every table of the test.
    #[test]
    fn chances_of_pairs_are_those_of_the_tables() {
        let with_sum = |count: u32, sum: u32| {
            // The ranks from the highest down are positive as long as they fit into the sum.
            let mut left = sum;
            let signed = (1..=count).rev().map(|rank| {
                let is_positive = rank <= left;
                left -= if is_positive { rank } else { 0 };
                if is_positive { f64::from(rank) } else { -f64::from(rank) }
            });
            let signed: Vec<f64> = signed.collect();
            assert_eq!(left, 0);
            signed_ranks(&signed)
        };
        // The largest sums that are significant at 5 %, two-sided: of 6 pairs 0, of 10 pairs 8, of 20 pairs 52.
        for (count, critical) in [(6, 0), (10, 8), (20, 52)] {
            assert!(with_sum(count, critical) < 0.05, "{count}: {}", with_sum(count, critical));
            assert!(with_sum(count, critical + 1) > 0.05, "{count}: {}", with_sum(count, critical + 1));
        }
        assert!((with_sum(6, 0) - 2.0 / 64.0).abs() < 1e-12);
        // Of {1, 1, −1}, which share a rank: all signs but three positive or three negative ones are as near as these.
        assert!((signed_ranks(&[1.0, 1.0, -1.0]) - 1.0).abs() < 1e-12);
        assert!((signed_ranks(&[1.0, 1.0, 1.0, 0.0]) - 0.25).abs() < 1e-12);
        assert!((signed_ranks(&[]) - 1.0).abs() < 1e-12);
        assert!((signed_ranks(&[0.0; 9]) - 1.0).abs() < 1e-12);
        let mut rng = Rng::new(9);
        let mut pairs = |count| (0..count).map(|_| rng.below(41) as f64 - 17.0).collect::<Vec<_>>();
        for _ in 0..20 {
            let (counted, near) = (pairs(60), pairs(61));
            // One pair more that does not differ changes nothing, and where counting ends nothing jumps.
            let with_none: Vec<f64> = counted.iter().copied().chain([0.0]).collect();
            assert!((signed_ranks(&counted) - signed_ranks(&with_none)).abs() < 1e-12);
            assert!((0.0..=1.0).contains(&signed_ranks(&near)));
        }
        let many: Vec<f64> = (1..=1_000).map(|number| f64::from(number) - 300.0).collect();
        assert!(signed_ranks(&many) < 1e-6);
    }

    #[test]
    fn pairs_are_compared_whatever_their_rounds_have_in_common() {
        // In each round the one is about 2 % above the other; from round to round both change by a half.
        let speeds = [1.0, 1.5, 1.1, 0.8, 1.3, 0.9, 1.4, 1.0, 1.2, 0.7];
        let others: Vec<f64> = speeds.iter().map(|speed| 100.0 * speed).collect();
        let figures: Vec<f64> = (0..10).map(|round| others[round] * (1.018 + 0.0004 * round as f64)).collect();
        let (figures, others) = (rounds(&figures), rounds(&others));
        let apart = Difference::by_round(&figures, &others).expect("they have rounds in common");
        let paired = Difference::side_by_side(&figures, &others).expect("they have rounds in common");
        assert_eq!(apart.ratio, paired.ratio);
        assert_eq!((apart.side(), paired.side()), (Side::Even, Side::Above), "{apart:?} {paired:?}");
    }

    #[test]
    fn where_counting_ends_the_normal_distribution_says_the_same() {
        let mut rng = Rng::new(3);
        let mut figures = |count| (0..count).map(|_| rng.below(40) as f64).collect::<Vec<_>>();
        for _ in 0..20 {
            let (some, others) = (figures(30), figures(30));
            let counted = mann_whitney(&some, &others);
            let ranks = doubled_ranks(&some, &others);
            let sum: usize = ranks[..30].iter().sum();
            let near = chance_of_normal(&ranks, 30, (sum * 60).abs_diff(ranks.iter().sum::<usize>() * 30));
            assert!((counted - near).abs() < 0.005, "{counted} {near}");
        }
        let many: Vec<f64> = (0..5_000).map(f64::from).collect();
        assert!(mann_whitney(&many[..6], &many[6..]) < 0.001, "six of five thousand are no work");
        assert!((mann_whitney(&[1.0; 50], &[1.0; 50]) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn an_interval_that_contains_one_is_no_difference() {
        assert_eq!(estimate(&[0.9, 0.98, 1.1, 1.2, 1.2, 1.3]).side(), Side::Even);
        assert_eq!(estimate(&[1.02, 1.1, 1.2, 1.2, 1.3, 1.3]).side(), Side::Above);
        assert_eq!(estimate(&[0.8, 0.9, 0.9, 0.9, 0.95, 0.98]).side(), Side::Below);
    }

    #[test]
    fn a_sure_difference_that_nobody_cares_about_is_none() {
        assert_eq!(estimate(&[1.002; 6]).side(), Side::Even);
        assert_eq!(estimate(&[1.02; 6]).side(), Side::Above);
    }

    fn rounds(figures: &[f64]) -> BTreeMap<u64, f64> {
        (1..).zip(figures.iter().copied()).collect()
    }

    #[test]
    fn a_ratio_that_the_test_does_not_believe_is_no_difference() {
        // In each round the one is 1 % above the other, which is sure; from round to round both wander by 40 %.
        let others: Vec<f64> = (0..10).map(|round| 100.0 + 4.0 * f64::from(round)).collect();
        let figures: Vec<f64> = others.iter().map(|other| other * 1.01).collect();
        let difference = Difference::by_round(&rounds(&figures), &rounds(&others)).expect("they have rounds in common");
        assert_eq!(difference.ratio.side(), Side::Above);
        assert!(difference.p > 0.5, "{difference:?}");
        assert_eq!(difference.side(), Side::Even);
        // And by 50 %, both believe it.
        let figures: Vec<f64> = others.iter().map(|other| other * 1.5).collect();
        let apart = Difference::apart(&figures, &others).expect("there are figures");
        let paired = Difference::by_round(&rounds(&figures), &rounds(&others)).expect("they have rounds in common");
        assert_eq!((paired.side(), apart.side()), (Side::Above, Side::Above));
        assert!((paired.effect() - 1.5_f64.ln()).abs() < 1e-12);
    }

    #[test]
    fn what_has_no_round_or_no_figure_in_common_cannot_be_compared() {
        let late: BTreeMap<u64, f64> = [(7, 1.0)].into();
        assert_eq!(Difference::by_round(&rounds(&[1.0, 2.0]), &late), None);
        assert_eq!(Difference::by_round(&rounds(&[0.0]), &rounds(&[0.0])), None);
        assert_eq!(Difference::apart(&[1.0], &[]), None);
        assert_eq!(Difference::apart(&[1.0], &[0.0]), None);
    }

    #[test]
    fn five_runs_say_nothing() {
        assert_eq!(estimate(&[2.0; 5]).side(), Side::Unknown);
        let difference = Difference::by_round(&rounds(&[2.0; 5]), &rounds(&[1.0; 5])).expect("they have rounds in common");
        assert_eq!(difference.side(), Side::Unknown);
    }

    #[test]
    fn geometric_means_of_opposites_cancel() {
        assert!((geometric_mean([2.0, 0.5]).expect("two values") - 1.0).abs() < 1e-12);
        assert!((geometric_mean([2.0, 8.0]).expect("two values") - 4.0).abs() < 1e-12);
        assert_eq!(geometric_mean([]), None);
    }

    /// A machine that scatters: every run by itself, some of them a lot, and all of a round together.
    struct Machine {
        rng: Rng,
        /// Of a run.
        noise: f64,
        /// Of one run in so many, which takes up to half as long again.
        stray: Option<usize>,
        /// Of a round.
        drift: f64,
    }

    impl Machine {
        /// A number that is normally distributed, as good as.
        fn normal(&mut self) -> f64 {
            (0..12).map(|_| (self.rng.number() >> 11) as f64 / (1_u64 << 53) as f64).sum::<f64>() - 6.0
        }

        fn run(&mut self, level: f64) -> f64 {
            let noise = (self.noise * self.normal()).exp();
            let stray = self.stray.is_some_and(|one_in| self.rng.below(one_in) == 0);
            let strayed = if stray { 1.05 + self.rng.below(450) as f64 / 1_000.0 } else { 1.0 };
            level * noise * strayed
        }

        /// How many of `sessions` find a difference between two subjects, of which the one takes `factor` times as long.
        fn found(&mut self, sessions: usize, repetitions: u64, factor: f64) -> f64 {
            let mut found = 0;
            for _ in 0..sessions {
                let (mut slow, mut fast) = (BTreeMap::new(), BTreeMap::new());
                let mut level = 100.0;
                for round in 1..=repetitions {
                    level *= (self.drift * self.normal()).exp();
                    slow.insert(round, self.run(level * factor));
                    fast.insert(round, self.run(level));
                }
                let side = Difference::by_round(&slow, &fast).expect("they have rounds in common").side();
                found += usize::from(side != Side::Even);
            }
            found as f64 / sessions as f64
        }
    }

    #[test]
    fn where_there_is_no_difference_none_is_found_in_95_of_100_sessions() {
        const SESSIONS: usize = 250;
        let mut seed = 0;
        for repetitions in [10, 20] {
            let mut worst = 0.0_f64;
            for (noise, drift) in [(0.005, 0.0), (0.015, 0.0), (0.1, 0.0), (0.015, 0.01)] {
                for stray in [None, Some(10)] {
                    seed += 1;
                    worst = worst.max(Machine { rng: Rng::new(seed), noise, stray, drift }.found(SESSIONS, repetitions, 1.0));
                }
            }
            assert!(worst <= 0.05, "{worst} with {repetitions} runs");
        }
    }

    #[test]
    fn three_percent_are_found_where_runs_scatter_by_half_of_that() {
        // Strays cost ratios, and ten of them are few to spare any.
        for (repetitions, stray, at_least) in [(10, None, 0.9), (20, None, 0.99), (10, Some(20), 0.75), (20, Some(20), 0.97)] {
            let mut machine = Machine { rng: Rng::new(repetitions), noise: 0.015, stray, drift: 0.0 };
            let found = machine.found(300, repetitions, 1.03);
            assert!(found >= at_least, "{found} with {repetitions} runs, strays {stray:?}");
        }
    }

    #[test]
    fn intervals_hold_the_true_median_about_as_often_as_they_say() {
        for (repetitions, at_least) in [(6, 0.88), (10, 0.91), (20, 0.92)] {
            let mut machine = Machine { rng: Rng::new(repetitions), noise: 0.02, stray: None, drift: 0.0 };
            let holds = (0..1_000).filter(|_| {
                let estimate = estimate(&(0..repetitions).map(|_| machine.run(1.0)).collect::<Vec<_>>());
                estimate.low <= 1.0 && estimate.high >= 1.0
            });
            let share = holds.count() as f64 / 1_000.0;
            assert!(share >= at_least, "{share} of intervals of {repetitions} runs");
        }
    }
}
