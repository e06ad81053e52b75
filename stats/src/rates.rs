//! Rates: what happened between two snapshots.

use std::fmt;
use std::time::Duration;

use bytesize::ByteSize;

use crate::{Point, Snapshot};

/// What happened between two snapshots: counts, and how long it took. Prints as one line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Rates {
    /// Time between the two.
    pub interval: Duration,
    /// Blocks allocated.
    pub allocations: u64,
    /// Blocks freed.
    pub frees: u64,
    /// Bytes allocated, at block size.
    pub allocated_bytes: u64,
    /// Bytes freed, at block size.
    pub freed_bytes: u64,
    /// By how many bytes what the program holds has grown; negative if it has shrunk.
    pub live_growth_bytes: i64,
    /// What the program held meanwhile, in bytes: the mean of both ends.
    pub live_bytes: u64,
    /// Calls to the operating system.
    pub os_calls: u64,
}

impl Rates {
    pub(crate) fn between(earlier: &Snapshot, later: &Snapshot) -> Self {
        let Some(interval) = later.at.checked_duration_since(earlier.at) else { return Self::default() };
        Self { interval, ..Point::of_another(later).since(&Point::of_another(earlier)) }
    }

    /// So many of something, per second. Zero for an interval of zero.
    fn per_second(&self, count: u64) -> f64 {
        let seconds = self.interval.as_secs_f64();
        if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
    }

    /// Blocks allocated per second.
    #[must_use]
    pub fn allocations_per_second(&self) -> f64 {
        self.per_second(self.allocations)
    }

    /// Blocks freed per second.
    #[must_use]
    pub fn frees_per_second(&self) -> f64 {
        self.per_second(self.frees)
    }

    /// Bytes allocated per second.
    #[must_use]
    pub fn allocated_bytes_per_second(&self) -> f64 {
        self.per_second(self.allocated_bytes)
    }

    /// Bytes freed per second.
    #[must_use]
    pub fn freed_bytes_per_second(&self) -> f64 {
        self.per_second(self.freed_bytes)
    }

    /// Calls to the operating system per second.
    #[must_use]
    pub fn os_calls_per_second(&self) -> f64 {
        self.per_second(self.os_calls)
    }

    /// How often per second the program's memory is replaced: bytes allocated per second and live byte. Zero if nothing lives.
    #[must_use]
    pub fn churn(&self) -> f64 {
        if self.live_bytes > 0 { self.allocated_bytes_per_second() / self.live_bytes as f64 } else { 0.0 }
    }
}

impl fmt::Display for Rates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.live_growth_bytes < 0 { '-' } else { '+' };
        write!(
            f,
            "in {:.3} s: {} allocations ({}/s), {} ({}/s); {} frees ({}/s); live {sign}{}; {} OS calls",
            self.interval.as_secs_f64(),
            self.allocations,
            short_count(self.allocations_per_second()),
            ByteSize(self.allocated_bytes),
            ByteSize(self.allocated_bytes_per_second() as u64),
            self.frees,
            short_count(self.frees_per_second()),
            ByteSize(self.live_growth_bytes.unsigned_abs()),
            self.os_calls,
        )
    }
}

/// A number of things with three digits or so: `950`, `12.8 k`, `3.1 M`.
fn short_count(count: f64) -> String {
    match count {
        0.0..1e3 => format!("{count:.0}"),
        1e3..1e6 => format!("{:.1} k", count / 1e3),
        1e6..1e9 => format!("{:.1} M", count / 1e6),
        _ => format!("{:.1} G", count / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_shortened() {
        let shortened = [0.0, 950.4, 12_800.0, 3_100_000.0, 2e10].map(short_count);
        assert_eq!(shortened, ["0", "950", "12.8 k", "3.1 M", "20.0 G"]);
    }

    #[test]
    fn an_interval_of_zero_has_no_rate() {
        let nothing = Rates { allocations: 5, ..Rates::default() };
        assert!(nothing.allocations_per_second().abs() < f64::EPSILON);
    }

    #[test]
    fn the_line_says_what_happened() {
        let rates = Rates {
            interval: Duration::from_secs(2),
            allocations: 3000,
            frees: 500,
            allocated_bytes: 6 << 20,
            freed_bytes: 7 << 20,
            live_growth_bytes: -(1 << 20),
            live_bytes: 12 << 20,
            os_calls: 4,
        };
        let line = "in 2.000 s: 3000 allocations (1.5 k/s), 6.0 MiB (3.0 MiB/s); 500 frees (250/s); live -1.0 MiB; 4 OS calls";
        assert_eq!(rates.to_string(), line);
        assert!((rates.churn() - 0.25).abs() < 1e-9, "3 MiB/s of 12 MiB");
        assert!((rates.os_calls_per_second() - 2.0).abs() < 1e-9);
        assert!(Rates { live_bytes: 0, ..rates }.churn().abs() < f64::EPSILON, "nothing lives");
    }
}
