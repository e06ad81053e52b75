//! Between which bounds the truth lies, nineteen times out of twenty.

/// The 95 % interval of an estimate: all true values that would not be surprised by it. Where samples are many this is the estimate give or take 1.96 standard
/// errors; where they are few it is higher and longer on its upper side, as it should be: who saw one sample knows that there may well have been four (the
/// score interval of Wilson, for counts).
///
/// # Examples
///
/// ```
/// # use freestone_stats::profile::interval_95;
/// let [least, most] = interval_95(1_000_000.0, 10_000.0_f64.powi(2));
/// assert!((980_000.0..981_000.0).contains(&least) && (1_019_000.0..1_020_100.0).contains(&most));
/// // One sample of a block of 64 bytes, which stands for 8192 of them.
/// let [least, most] = interval_95(8192.0, 8192.0 * 8191.0);
/// assert!(least < 8192.0 / 5.0 && most > 5.0 * 8192.0);
/// ```
#[must_use]
pub fn interval_95(estimate: f64, variance: f64) -> [f64; 2] {
    const Z: f64 = 1.959_964;
    if estimate <= 0.0 {
        return [0.0, 0.0];
    }
    // By how much the variance grows with the truth: what one sample stands for, less itself.
    let slope = variance / estimate;
    let middle = estimate + Z * Z * slope / 2.0;
    let half = Z * (variance + (Z * slope / 2.0).powi(2)).sqrt();
    [(middle - half).max(0.0), middle + half]
}
