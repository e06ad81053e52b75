//! Floor 2. How much free memory to keep. Pure: numbers and time in, decision out.
//!
//! A program that needed so much a moment ago will need it again, so the peak of the last five seconds plus a tenth is kept. What lies
//! above is released in eight equal parts, one per tick, so that a program that comes back soon finds most of it, and no tick takes
//! long. (Demand peaks as in tcmalloc's skip-subrelease, a tenth on top as in Go's scavenger.)

use crate::config::{PEAK_WINDOW_NS, RELEASE_TICKS, RETAIN_ABOVE_PEAK_PERCENT};

/// The window is divided into so many slices; the oldest falls out as a whole.
const SLICES: usize = 5;
const SLICE_NS: u64 = PEAK_WINDOW_NS / SLICES as u64;

/// Recent demand, and the release that is under way.
#[derive(Debug)]
pub(crate) struct Retention {
    /// The highest use in each slice of the window, and one more for the slice that has just begun.
    peaks: [usize; SLICES + 1],
    /// Which slice of time is the newest.
    slice: u64,
    /// How much each tick of the present release gives back; 0: none is under way.
    part: usize,
}

impl Retention {
    pub(crate) const fn new() -> Self {
        Self { peaks: [0; SLICES + 1], slice: 0, part: 0 }
    }

    /// One tick at `now_ns`: the program uses `in_use` bytes, used at most `peak` since the last tick, and `dirty` bytes are free but
    /// still hold memory. Says how many of them to release.
    pub(crate) fn tick(&mut self, now_ns: u64, in_use: usize, peak: usize, dirty: usize) -> usize {
        let slice = now_ns / SLICE_NS;
        let passed = slice.saturating_sub(self.slice).min(self.peaks.len() as u64);
        for newer in 0..passed {
            self.peaks[((slice - newer) % self.peaks.len() as u64) as usize] = 0;
        }
        self.slice = slice;
        let newest = &mut self.peaks[(slice % (SLICES as u64 + 1)) as usize];
        *newest = (*newest).max(peak).max(in_use);
        let excess = (in_use + dirty).saturating_sub(self.keep()).min(dirty);
        if excess == 0 {
            self.part = 0;
            return 0;
        }
        self.part = self.part.max(excess.div_ceil(RELEASE_TICKS));
        self.part.min(excess)
    }

    /// What use and free memory together may be.
    fn keep(&self) -> usize {
        let peak = self.peaks.iter().copied().max().unwrap_or(0);
        peak + peak / 100 * RETAIN_ABOVE_PEAK_PERCENT
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TICK_NS;

    const MIB: usize = 1 << 20;

    /// Runs ticks for `seconds`, with `used` giving what the program uses at each; says what was dirty at the end.
    fn run(retention: &mut Retention, now: &mut u64, seconds: u64, dirty: usize, used: impl Fn(u64) -> usize) -> usize {
        let mut dirty = dirty;
        for tick in 0..seconds * 1_000_000_000 / TICK_NS {
            *now += TICK_NS;
            dirty -= retention.tick(*now, used(tick), used(tick), dirty);
        }
        dirty
    }

    #[test]
    fn a_drop_is_kept_for_the_window_and_then_released_in_eight_ticks() {
        let (mut retention, mut now) = (Retention::new(), 0);
        assert_eq!(run(&mut retention, &mut now, 2, 0, |_| 100 * MIB), 0);
        assert_eq!(run(&mut retention, &mut now, 4, 90 * MIB, |_| 10 * MIB), 90 * MIB, "it may come back");
        let rest = run(&mut retention, &mut now, 3, 90 * MIB, |_| 10 * MIB);
        assert!(rest <= MIB + MIB / 10, "{rest} bytes are left");
    }

    #[test]
    fn a_saw_tooth_keeps_its_memory() {
        let (mut retention, mut now) = (Retention::new(), 0);
        for _ in 0..20 {
            assert_eq!(run(&mut retention, &mut now, 1, 0, |_| 100 * MIB), 0);
            assert_eq!(run(&mut retention, &mut now, 2, 80 * MIB, |_| 20 * MIB), 80 * MIB);
        }
    }

    #[test]
    fn no_tick_releases_more_than_a_part_of_the_excess() {
        let mut retention = Retention::new();
        let mut dirty = 800 * MIB;
        let mut now = 1;
        while dirty > 0 {
            let part = retention.tick(now, 0, 0, dirty);
            assert!(part <= 100 * MIB);
            assert!(part > 0);
            dirty -= part;
            now += TICK_NS;
        }
        assert!(now <= 1 + 8 * TICK_NS);
    }

    #[test]
    fn time_that_stands_still_or_leaps_is_harmless() {
        let mut retention = Retention::new();
        assert_eq!(retention.tick(10 * PEAK_WINDOW_NS, 5 * MIB, 9 * MIB, 0), 0);
        assert_eq!(retention.tick(10 * PEAK_WINDOW_NS, 5 * MIB, 5 * MIB, 4 * MIB), 0);
        assert_eq!(retention.tick(3 * PEAK_WINDOW_NS, 5 * MIB, 5 * MIB, 4 * MIB), 0, "a clock that goes back keeps what is known");
        assert!(retention.tick(u64::MAX, 5 * MIB, 5 * MIB, 4 * MIB) > 0);
    }
}
