//! The clock of single operations, which are over in fewer nanoseconds than the system's clock takes to be read.
//!
//! On x86-64 it is the processor's own counter, read behind a fence on either side: what was begun before is done, and what comes after has
//! not begun. An operation is so timed to its end and not only to where the processor lost sight of it, and its neighbours take no part in it. Where
//! the counter is not steady, and on other machines, it is the system's clock. What a reading costs is in every figure; it is
//! measured and noted rather than taken off, for it varies, and a time below zero would help nobody.

use std::time::{Duration, Instant};

/// Reads the time, in ticks of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// Times 2³².
    nanos_per_tick: u64,
    /// Ticks are nanoseconds since then, where there is no counter.
    epoch: Option<Instant>,
}

impl Clock {
    /// One nanosecond.
    const ONE: u64 = 1 << 32;
    /// Long enough for the counter to be compared with the system's clock to a few in a million.
    const CALIBRATION: Duration = Duration::from_millis(20);

    /// Compares the counter with the system's clock, which takes a moment.
    pub(crate) fn calibrated() -> Self {
        if !counter::is_steady() {
            return Self { nanos_per_tick: Self::ONE, epoch: Some(Instant::now()) };
        }
        let (first, start) = both();
        std::thread::sleep(Self::CALIBRATION);
        let (last, end) = both();
        let nanos = end.duration_since(start).as_nanos() << 32;
        let ticks = u128::from(last.saturating_sub(first).max(1));
        Self { nanos_per_tick: u64::try_from(nanos / ticks).unwrap_or(Self::ONE), epoch: None }
    }

    /// This moment.
    #[inline(always)]
    pub(crate) fn now(&self) -> u64 {
        match self.epoch {
            None => counter::read(),
            Some(epoch) => epoch.elapsed().as_nanos() as u64,
        }
    }

    /// From one moment to another. That processors may disagree by a few ticks is no reason for a time of centuries.
    #[inline(always)]
    pub(crate) fn nanos(&self, from: u64, to: u64) -> u64 {
        ((u128::from(to.saturating_sub(from)) * u128::from(self.nanos_per_tick)) >> 32) as u64
    }

    /// So many ticks are at least so many nanoseconds.
    pub(crate) fn ticks(&self, nanos: u64) -> u64 {
        ((u128::from(nanos) << 32) / u128::from(self.nanos_per_tick.max(1))) as u64
    }

    /// What a time of nothing comes to: the median of many, in nanoseconds.
    pub(crate) fn cost_ns(&self) -> u64 {
        let mut nothing = [0; 1001];
        for time in &mut nothing {
            let start = self.now();
            *time = self.nanos(start, self.now());
        }
        nothing.sort_unstable();
        nothing[nothing.len() / 2]
    }
}

/// The counter and the system's clock at about the same moment: of several tries the one in which nobody came between.
fn both() -> (u64, Instant) {
    let tries = (0..16).map(|_| {
        let before = counter::read();
        let now = Instant::now();
        let took = counter::read().saturating_sub(before);
        (took, (before + took / 2, now))
    });
    tries.min_by_key(|(took, _)| *took).map_or_else(|| (0, Instant::now()), |(_, both)| both)
}

#[cfg(target_arch = "x86_64")]
mod counter {
    use std::arch::x86_64::__cpuid;

    /// Does it run at one rate, whatever the processor's is, and in its sleep?
    pub(super) fn is_steady() -> bool {
        const POWER_MANAGEMENT: u32 = 0x8000_0007;
        const IS_INVARIANT: u32 = 1 << 8;
        __cpuid(0x8000_0000).eax >= POWER_MANAGEMENT && __cpuid(POWER_MANAGEMENT).edx & IS_INVARIANT != 0
    }

    #[inline(always)]
    pub(super) fn read() -> u64 {
        let (low, high): (u32, u32);
        // SAFETY: reads a counter that the kernel leaves open to programs. May be taken to change memory, so that the compiler, too, moves nothing
        // across.
        unsafe {
            std::arch::asm!("lfence", "rdtsc", "lfence", out("eax") low, out("edx") high, options(nostack, preserves_flags));
        };
        u64::from(high) << 32 | u64::from(low)
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod counter {
    pub(super) fn is_steady() -> bool {
        false
    }

    pub(super) fn read() -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::Clock;
    use std::time::{Duration, Instant};

    /// Whoever is stopped between two lines: what lies within is no longer than what it lies in.
    #[test]
    fn a_sleep_is_as_long_by_this_clock_as_by_the_systems() {
        let clock = Clock::calibrated();
        let outer = Instant::now();
        let start = clock.now();
        let inner = Instant::now();
        std::thread::sleep(Duration::from_millis(50));
        let inner = inner.elapsed().as_nanos() as f64;
        let nanos = clock.nanos(start, clock.now()) as f64;
        let outer = outer.elapsed().as_nanos() as f64;
        assert!(nanos >= inner * 0.99, "{nanos} ns, and the system's clock {inner}");
        assert!(nanos <= outer * 1.01, "{nanos} ns, and the system's clock {outer}");
    }

    #[test]
    fn times_never_run_backwards_and_ticks_are_the_reverse_of_nanoseconds() {
        let clock = Clock { nanos_per_tick: Clock::ONE / 3, epoch: None };
        assert_eq!(clock.nanos(100, 400), 99, "three ticks are almost a nanosecond");
        assert_eq!(clock.nanos(400, 100), 0);
        assert_eq!(clock.ticks(100), 300);
        let system = Clock { nanos_per_tick: Clock::ONE, epoch: Some(Instant::now()) };
        assert_eq!(system.nanos(7, 12), 5);
        assert!(system.now() <= system.now());
    }
}
