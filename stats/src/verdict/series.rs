//! What a row of numbers does over time, by methods that a few odd numbers do not mislead.
//!
//! Memory is noisy upwards: queues fill, batches come and go. What is never given back shows at the *floor*, the least of a while, so the floor
//! is what is looked at. A row is divided into windows of equal time and each is left with its least ([`windows`]); where the noise is larger than
//! the growth, the turning points below ([`troughs`]) are taken instead, however long from one to the next.

/// A number and when it was so, in seconds.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Reading {
    pub(super) at: f64,
    pub(super) value: f64,
}

/// From the first to the last, in seconds.
pub(super) fn duration(row: &[Reading]) -> f64 {
    match row {
        [first, .., last] => last.at - first.at,
        _ => 0.0,
    }
}

/// The readings of the last `share` of the time.
pub(super) fn last_part(row: &[Reading], share: f64) -> &[Reading] {
    let Some(last) = row.last() else { return row };
    let from = last.at - duration(row) * share;
    &row[row.partition_point(|reading| reading.at < from)..]
}

/// The readings of so many windows of equal time, one after the other. Windows without readings are left out.
pub(super) fn windows(row: &[Reading], count: usize) -> Vec<&[Reading]> {
    let Some(first) = row.first() else { return Vec::new() };
    let length = duration(row) / count as f64;
    let mut rest = row;
    let mut parts = Vec::with_capacity(count);
    for number in 1..=count {
        let end = if number == count { f64::INFINITY } else { first.at + length * number as f64 };
        let (part, others) = rest.split_at(rest.partition_point(|reading| reading.at < end));
        rest = others;
        if !part.is_empty() {
            parts.push(part);
        }
    }
    parts
}

/// The least of them, and when that was.
pub(super) fn least(row: &[Reading]) -> Reading {
    row.iter().copied().min_by(|a, b| a.value.total_cmp(&b.value)).unwrap_or(Reading { at: 0.0, value: 0.0 })
}

/// The least of each window.
pub(super) fn floors(row: &[Reading], count: usize) -> Vec<Reading> {
    windows(row, count).into_iter().map(least).collect()
}

pub(super) fn mean(row: &[Reading]) -> f64 {
    row.iter().map(|reading| reading.value).sum::<f64>() / row.len().max(1) as f64
}

/// The mean of each window, in its middle.
pub(super) fn means(row: &[Reading], count: usize) -> Vec<Reading> {
    let middle = |part: &[Reading]| part.iter().map(|reading| reading.at).sum::<f64>() / part.len() as f64;
    windows(row, count).into_iter().map(|part| Reading { at: middle(part), value: mean(part) }).collect()
}

/// How much the steps of a row speak for growth: their mean, in standard errors (Student's t). A walk at random, whose steps know nothing of each
/// other, seldom has more than 2; four of a thousand with a dozen steps have more than 3, one of a thousand more than 4.
pub(super) fn evidence(row: &[Reading]) -> f64 {
    let steps: Vec<f64> = row.windows(2).map(|pair| pair[1].value - pair[0].value).collect();
    let count = steps.len() as f64;
    if count < 2.0 {
        return 0.0;
    }
    let mean = steps.iter().sum::<f64>() / count;
    let squares: f64 = steps.iter().map(|step| (step - mean).powi(2)).sum();
    let error = (squares / (count - 1.0) / count).sqrt();
    // Steps that are all the same are as sure as can be; a byte of error keeps the number finite.
    mean / error.max(1.0)
}

/// The most that was ever given back at a stretch: the largest difference between a reading and a later, lower one.
pub(super) fn drawdown(row: &[Reading]) -> f64 {
    let mut highest = f64::NEG_INFINITY;
    let mut most = 0.0_f64;
    for reading in row {
        highest = highest.max(reading.value);
        most = most.max(highest - reading.value);
    }
    most
}

/// The turning points below: where the row turned upwards, after it had come down by `height` and before it rose by `height`. A row that begins
/// with a rise has a first one there; the end makes none.
pub(super) fn troughs(row: &[Reading], height: f64) -> Vec<Reading> {
    let Some(&first) = row.first() else { return Vec::new() };
    let mut found = Vec::new();
    let (mut low, mut high) = (first, first);
    // On the way down, in search of a trough? At the start that is open, and both are looked for.
    let mut is_down = true;
    for &reading in row {
        if is_down {
            if reading.value < low.value {
                low = reading;
            }
            if reading.value >= low.value + height {
                found.push(low);
                is_down = false;
                high = reading;
            }
        } else {
            if reading.value > high.value {
                high = reading;
            }
            if reading.value <= high.value - height {
                is_down = true;
                low = reading;
            }
        }
    }
    found
}

/// Gaps that one is compared with, on either side of it.
const NEIGHBOURS: usize = 4;
/// A gap that is so many times as long as those around it is a stall.
const STALL: f64 = 4.0;

/// Seconds to each of some moments that somebody looked at a process, but for stalls: in a gap that is much longer than those around it, the machine
/// slept or had no time for who looks, and so none for whom he looks at. What is counted by the second would have a hole there. Looks become
/// rarer the older they are, so a stall is a gap that is long beside those before it and beside those after it.
pub(super) fn lived(at: &[f64]) -> Vec<f64> {
    let gaps: Vec<f64> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let step = |place: usize| {
        let before = &gaps[place.saturating_sub(NEIGHBOURS)..place];
        let after = &gaps[place + 1..gaps.len().min(place + 1 + NEIGHBOURS)];
        let usual = [before, after].map(|gaps| median(gaps.to_vec())).into_iter().fold(0.0, f64::max);
        if usual > 0.0 && gaps[place] > usual * STALL { usual } else { gaps[place] }
    };
    let mut now = 0.0;
    let mut moments = vec![now; at.len()];
    for (place, moment) in moments.iter_mut().skip(1).enumerate() {
        now += step(place);
        *moment = now;
    }
    moments
}

/// Neighbours put together until so many are left, each group with its least.
pub(super) fn grouped(row: &[Reading], count: usize) -> Vec<Reading> {
    let count = count.min(row.len());
    (0..count).map(|group| least(&row[row.len() * group / count..row.len() * (group + 1) / count])).collect()
}

fn median(mut numbers: Vec<f64>) -> f64 {
    if numbers.is_empty() {
        return 0.0;
    }
    numbers.sort_by(f64::total_cmp);
    let half = numbers.len() / 2;
    if numbers.len() % 2 == 1 { numbers[half] } else { f64::midpoint(numbers[half - 1], numbers[half]) }
}

fn pairs(row: &[Reading]) -> impl Iterator<Item = (Reading, Reading)> {
    row.iter().enumerate().flat_map(|(place, &earlier)| row[place + 1..].iter().map(move |&later| (earlier, later)))
}

/// The slope of the line through a row, per second: the median of the slopes between all pairs (Theil and Sen). Three readings of ten may be
/// anything.
pub(super) fn slope(row: &[Reading]) -> f64 {
    median(
        pairs(row)
            .filter(|(earlier, later)| later.at > earlier.at)
            .map(|(earlier, later)| (later.value - earlier.value) / (later.at - earlier.at))
            .collect(),
    )
}

/// What is left of a row beside the line that fits it best, over whatever `at` is: from 0, all lie on it, to 1, it might as well be flat.
pub(super) fn misfit(row: &[Reading]) -> f64 {
    let count = row.len().max(1) as f64;
    let middle = row.iter().map(|reading| reading.at).sum::<f64>() / count;
    let level = mean(row);
    let sum = |of: &dyn Fn(f64, f64) -> f64| row.iter().map(|it| of(it.at - middle, it.value - level)).sum::<f64>();
    let (across, along, all) = (sum(&|at, value| at * value), sum(&|at, _| at * at), sum(&|_, value| value * value));
    if along > 0.0 && all > 0.0 { 1.0 - across * across / along / all } else { 1.0 }
}

/// How far a reading is from the middle between its neighbours, in the way of a standard deviation: what is left of noise when whatever is slower
/// than that is taken away.
pub(super) fn jitter(row: &[Reading]) -> f64 {
    let bends = row.windows(3).map(|three| (three[1].value - f64::midpoint(three[0].value, three[2].value)).abs());
    // Of a normal distribution, half lies within 0.6745 standard deviations; the neighbours have half as much variance of their own.
    median(bends.collect()) / 0.6745 / 1.5_f64.sqrt()
}

/// Is there a trend? Of all pairs, those that rise less those that fall, in standard deviations of what chance would make of it (Mann and Kendall):
/// above 2.3, chance has one case in a hundred.
pub(super) fn trend(row: &[Reading]) -> f64 {
    let count = row.len() as f64;
    let score: f64 = pairs(row).map(|(earlier, later)| sign(later.value - earlier.value)).sum();
    let deviation = (count * (count - 1.0) * (2.0 * count + 5.0) / 18.0).sqrt();
    // One step towards zero, as the score is a whole number.
    if deviation > 0.0 { (score - sign(score)) / deviation } else { 0.0 }
}

/// Of all pairs, the share that rises less the share that falls: from -1 to 1.
pub(super) fn agreement(row: &[Reading]) -> f64 {
    let (score, count) =
        pairs(row).fold((0.0, 0.0), |(score, count), (earlier, later)| (score + sign(later.value - earlier.value), count + 1.0));
    if count > 0.0 { score / count } else { 0.0 }
}

/// Does the noise of a row remember? How far it moves over `lag` steps, squared, in parts of what a walk at random would: 1 for such a walk, whose
/// drift is no sign of anything; 1/`lag` for noise that comes back at once. (Lo's ratio of variances, without the widest tenth of the moves, so
/// that a single jump does not count.)
pub(super) fn wander(row: &[Reading], lag: usize) -> f64 {
    if lag == 0 || row.len() <= lag {
        return 1.0;
    }
    let square = |lag: usize| {
        let moves: Vec<f64> = row.iter().zip(&row[lag..]).map(|(from, to)| to.value - from.value).collect();
        let middle = median(moves.clone());
        let mut squares: Vec<f64> = moves.into_iter().map(|step| (step - middle).powi(2)).collect();
        squares.sort_by(f64::total_cmp);
        let kept = &squares[..(squares.len() * 9).div_ceil(10)];
        kept.iter().sum::<f64>() / kept.len() as f64
    };
    let one = square(1);
    if one > 0.0 { square(lag) / one / lag as f64 } else { 1.0 }
}

fn sign(number: f64) -> f64 {
    if number > 0.0 {
        1.0
    } else if number < 0.0 {
        -1.0
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(values: &[f64]) -> Vec<Reading> {
        values.iter().enumerate().map(|(place, &value)| Reading { at: place as f64, value }).collect()
    }

    fn values(row: &[Reading]) -> Vec<f64> {
        row.iter().map(|reading| reading.value).collect()
    }

    fn is_near(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-9
    }

    #[test]
    fn windows_have_all_readings_once() {
        let long: Vec<Reading> = row(&(0..31).map(f64::from).collect::<Vec<_>>());
        for count in 1..=31 {
            let parts = windows(&long, count);
            assert_eq!(parts.concat(), long, "{count}");
            assert_eq!(parts.len(), count);
        }
        assert!(windows(&[], 3).is_empty());
        let gap = [0.0, 1.0, 9.0].map(|at| Reading { at, value: at });
        assert_eq!(windows(&gap, 3).len(), 2, "a window without readings is none");
        assert_eq!(last_part(&long, 1.0 / 3.0).len(), 11);
    }

    #[test]
    fn the_floor_of_teeth_is_flat() {
        let teeth: Vec<f64> = (0..60).map(|place| f64::from(place % 10) + 5.0).collect();
        assert_eq!(values(&floors(&row(&teeth), 6)), [5.0; 6]);
        assert!(is_near(drawdown(&row(&teeth)), 9.0));
        assert_eq!(values(&troughs(&row(&teeth), 3.0)), [5.0; 6]);
        assert_eq!(troughs(&row(&[5.0, 1.0, 2.0, 1.5]), 3.0), [], "no turn without a rise");
        assert_eq!(values(&troughs(&row(&[5.0, 1.0, 4.0]), 3.0)), [1.0]);
    }

    #[test]
    fn a_line_has_its_slope_in_spite_of_three_odd_ones() {
        let mut line: Vec<f64> = (0..10).map(|place| f64::from(place) * 2.0 + 7.0).collect();
        assert!(is_near(slope(&row(&line)), 2.0));
        assert!(is_near(jitter(&row(&line)), 0.0));
        assert!(is_near(jitter(&row(&[0.0, 1.0, 0.0, 1.0, 0.0])), 1.0 / 0.6745 / 1.5_f64.sqrt()));
        line[3] = 1000.0;
        line[8] = -50.0;
        assert!(is_near(slope(&row(&line)), 2.0), "{}", slope(&row(&line)));
    }

    #[test]
    fn what_lies_on_a_line_leaves_nothing() {
        assert!(is_near(misfit(&row(&[7.0, 9.0, 11.0, 13.0])), 0.0));
        // The line through these is flat.
        assert!(is_near(misfit(&row(&[1.0, -1.0, -1.0, 1.0])), 1.0));
        // Steps: of a variance of 4, 0.8 are beside the line.
        assert!(is_near(misfit(&row(&[0.0, 0.0, 2.0, 2.0])), 0.2));
        assert!(is_near(misfit(&row(&[5.0])), 1.0));
        assert!(is_near(misfit(&[]), 1.0));
    }

    #[test]
    fn trend_and_agreement_say_which_way() {
        let up = row(&[1.0, 2.0, 3.0, 5.0, 8.0, 13.0]);
        let down: Vec<f64> = values(&up).into_iter().rev().collect();
        assert!(is_near(agreement(&up), 1.0));
        assert!(is_near(agreement(&row(&down)), -1.0));
        // The tables say p = 0.0014 for six that rise.
        assert!(trend(&up) > 2.6 && trend(&up) < 2.7, "{}", trend(&up));
        assert!(is_near(trend(&up), -trend(&row(&down))));
        assert!(is_near(trend(&row(&[4.0; 7])), 0.0));
        assert!(is_near(trend(&[]), 0.0));
    }

    #[test]
    fn steps_that_agree_are_evidence() {
        assert!(evidence(&row(&[0.0, 10.0, 20.0, 30.0, 40.0])) > 5.0);
        assert!(is_near(evidence(&row(&[0.0, 10.0, 0.0, 10.0, 0.0])), 0.0));
        // Steps of 9, 11, 9 and 11: 10 on average, and an error of 0.577.
        assert!((evidence(&row(&[0.0, 9.0, 20.0, 29.0, 40.0].map(|value| value * 1e3))) - 17.32).abs() < 0.01);
        assert!(is_near(evidence(&row(&[1.0, 2.0])), 0.0));
    }

    #[test]
    fn noise_that_comes_back_does_not_wander() {
        // Numbers without any order, around 0: eight bytes of a mixed number, added up.
        let random = |place: u32| {
            let mut mixed = u64::from(place).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (mixed ^ (mixed >> 31)).to_le_bytes().iter().map(|&byte| f64::from(byte) - 127.5).sum::<f64>()
        };
        let noise: Vec<f64> = (0..300).map(random).collect();
        assert!(wander(&row(&noise), 25) < 0.1, "{}", wander(&row(&noise), 25));
        let walk = |number: u32| -> f64 {
            let mut sum = 0.0;
            let steps: Vec<f64> = (0..300)
                .map(|place| {
                    sum += random(number * 300 + place);
                    sum
                })
                .collect();
            wander(&row(&steps), 25)
        };
        let typical = median((0..21).map(walk).collect());
        assert!((0.5..1.5).contains(&typical), "{typical}");
        assert!(is_near(wander(&row(&[1.0; 9]), 3), 1.0));
        assert!(is_near(wander(&[], 3), 1.0));
    }

    #[test]
    fn time_in_which_nobody_looked_is_left_out() {
        let moments = |gaps: &[f64]| -> Vec<f64> {
            let mut at = 100.0;
            let later = gaps.iter().map(|gap| {
                at += gap;
                at
            });
            [100.0].into_iter().chain(later).collect()
        };
        let gaps_of = |moments: Vec<f64>| -> Vec<f64> { moments.windows(2).map(|pair| pair[1] - pair[0]).collect() };
        let stalls = [1.0, 60.0, 1.0, 1.0, 1.0, 1.0, 9.0, 7.0, 1.0, 1.0, 1.0, 3.0, 1.0, 1.0, 20.0];
        let without = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 3.0, 1.0, 1.0, 1.0];
        assert_eq!(gaps_of(lived(&moments(&stalls))), without);
        // A history: rarer, and irregular, the older it is.
        let history = [30.0, 14.0, 58.0, 2.0, 45.0, 29.0, 31.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0];
        assert_eq!(gaps_of(lived(&moments(&history))), history);
        for few in [&[][..], &[5.0], &[5.0, 80.0]] {
            assert_eq!(lived(few).len(), few.len());
        }
        assert_eq!(lived(&[5.0, 80.0]), [0.0, 75.0], "two say nothing of what is usual");
    }

    #[test]
    fn groups_keep_their_least() {
        assert_eq!(values(&grouped(&row(&[3.0, 1.0, 2.0, 5.0, 4.0, 9.0]), 3)), [1.0, 2.0, 4.0]);
        assert_eq!(values(&grouped(&row(&[3.0, 1.0]), 5)), [3.0, 1.0]);
        assert!(grouped(&[], 5).is_empty());
    }
}
