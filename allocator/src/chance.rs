//! Floor 1. Chance: which allocations are looked at closely, and what one of them stands for.
//!
//! A block of `s` bytes is chosen with probability `p = 1 − exp(−s ÷ interval)`, independently of all others: as if a sample were taken at the points of a
//! Poisson process along all bytes ever allocated, and a block chosen if one or more of its bytes are. That process has no memory, so each thread draws for
//! each class by itself, and may draw anew at any time; the union is the same process. What is drawn is how many blocks of the class go by until one is
//! chosen: `⌊E · interval ÷ s⌋ + 1`, where `E` is exponentially distributed with mean 1. The method is that of tcmalloc's sampler and of Go's
//! `mProf`, with blocks counted instead of bytes.
//!
//! Floating point, and no library: `core` has neither logarithm nor exponential.

/// The next number of a sequence that nobody would call regular (`SplitMix64`, Steele, Lea and Flood 2014).
pub(crate) fn next(state: u64) -> (u64, u64) {
    let state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (state, mixed ^ (mixed >> 31))
}

/// The natural logarithm of a positive, normal number, to some fifteen digits.
fn ln(value: f64) -> f64 {
    const LN_2: f64 = core::f64::consts::LN_2;
    let bits = value.to_bits();
    let mut exponent = (bits >> 52) as i32 - 1023;
    let mut mantissa = f64::from_bits(bits & ((1 << 52) - 1) | 1023 << 52);
    if mantissa > core::f64::consts::SQRT_2 {
        mantissa /= 2.0;
        exponent += 1;
    }
    // ln m = 2 artanh x with x = (m − 1) ÷ (m + 1), which is at most 0.172 away from 0.
    let x = (mantissa - 1.0) / (mantissa + 1.0);
    let square = x * x;
    let mut sum = 0.0;
    for odd in (1..=19).rev().step_by(2) {
        sum = sum * square + 1.0 / f64::from(odd);
    }
    2.0 * x * sum + f64::from(exponent) * LN_2
}

/// `1 − exp(−x)` for `x ≥ 0`, to some twelve digits, also where `x` is small.
fn one_minus_exp(x: f64) -> f64 {
    if x > 40.0 {
        return 1.0;
    }
    let mut halvings = 0;
    let mut small = x;
    while small > 0.1 {
        small /= 2.0;
        halvings += 1;
    }
    // x − x²/2! + x³/3! − …, from the last term.
    let mut sum = 0.0;
    for term in (1..=9).rev() {
        sum = (1.0 - sum) * small / f64::from(term);
    }
    // 1 − e⁻²ˣ = 2 (1 − e⁻ˣ) − (1 − e⁻ˣ)².
    for _ in 0..halvings {
        sum = sum * (2.0 - sum);
    }
    sum
}

/// An exponentially distributed number with mean 1, from 64 random bits.
pub(crate) fn exponential(random: u64) -> f64 {
    // In (0, 1], of 53 bits.
    let uniform = ((random >> 11) + 1) as f64 / (1_u64 << 53) as f64;
    -ln(uniform)
}

/// For how many blocks one stands that was chosen: 1 ÷ p.
pub(crate) fn weight(bytes: usize, interval: usize) -> f64 {
    if interval <= 1 { 1.0 } else { 1.0 / one_minus_exp(bytes as f64 / interval as f64) }
}

/// How many blocks of so many bytes go by until one is chosen, that one included.
pub(crate) fn blocks_until(bytes: usize, interval: usize, random: u64) -> u32 {
    if interval <= 1 {
        return 1;
    }
    let blocks = exponential(random) * interval as f64 / bytes as f64;
    // The cast takes what is too large for the largest: for an interval of 1 GiB and the smallest blocks, once in 10¹³ times.
    (blocks as u32).saturating_add(1)
}

/// How many bytes go by until one is chosen.
pub(crate) fn bytes_until(interval: usize, random: u64) -> u64 {
    if interval <= 1 { 0 } else { (exponential(random) * interval as f64) as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithms_and_exponentials_are_right() {
        for step in 1..10_000 {
            let value = f64::from(step) / 10_000.0;
            assert!((ln(value) - value.ln()).abs() <= 1e-14 * value.ln().abs().max(1.0), "ln {value}");
            for x in [value * 1e-9, value * 1e-3, value, value * 50.0] {
                let exact = -(-x).exp_m1();
                assert!((one_minus_exp(x) - exact).abs() <= 1e-12 * exact, "{x}: {} {exact}", one_minus_exp(x));
            }
        }
        assert!((ln(1.0)).abs() < 1e-300);
        assert!((ln(f64::MIN_POSITIVE) - f64::MIN_POSITIVE.ln()).abs() < 1e-12);
        assert!(exponential(0) > 36.0 && exponential(u64::MAX).abs() < 1e-300);
    }

    /// Each size is chosen as often as its weight says, and gaps are geometric: a chi-square test over ten cells.
    #[test]
    fn gaps_are_geometric_and_weights_undo_them() {
        let mut state = 20_261_121;
        for (bytes, interval) in [(8_usize, 4096_usize), (512, 4096), (4096, 4096), (32 << 10, 64 << 10)] {
            let draws = 200_000;
            let probability = 1.0 / weight(bytes, interval);
            let mut gone_by = 0_u64;
            // Cells with the same share each, as far as whole numbers allow: their shares are worked out exactly.
            let quantile = |share: f64| ((1.0 - share).ln() / (1.0 - probability).ln()).ceil() as u64;
            let bounds: Vec<u64> = (1..10).map(|tenth| quantile(f64::from(tenth) / 10.0)).collect();
            let mut cells = [0_u64; 10];
            for _ in 0..draws {
                let random;
                (state, random) = next(state);
                let blocks = u64::from(blocks_until(bytes, interval, random));
                gone_by += blocks;
                cells[bounds.iter().filter(|&&bound| blocks > bound).count()] += 1;
            }
            let expected = f64::from(draws) / probability;
            let sigma = (f64::from(draws) * (1.0 - probability)).sqrt() / probability;
            assert!((gone_by as f64 - expected).abs() <= 5.0 * sigma + 1e-6, "{bytes} of {interval}: {gone_by}, not {expected}");
            let survives = |blocks: u64| (1.0 - probability).powf(blocks as f64);
            let mut chi_square = 0.0;
            for (cell, &count) in cells.iter().enumerate() {
                let from = if cell == 0 { 0 } else { bounds[cell - 1] };
                let share = survives(from) - if cell == 9 { 0.0 } else { survives(bounds[cell]) };
                let expected = share * f64::from(draws);
                if expected > 0.5 {
                    chi_square += (count as f64 - expected).powi(2) / expected;
                }
            }
            // 9 degrees of freedom: once in 10⁵ draws of the seed.
            assert!(chi_square < 38.0, "{bytes} of {interval}: {chi_square}, {cells:?}");
        }
    }

    #[test]
    fn an_interval_of_one_means_every_block() {
        assert!((0..1000).all(|random| blocks_until(8, 1, random) == 1 && bytes_until(1, random) == 0));
        assert!((weight(8, 1) - 1.0).abs() < 1e-300);
    }
}
