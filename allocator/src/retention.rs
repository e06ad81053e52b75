//! Floor 2. How much free memory to keep, and how fast the rest may go. Pure: numbers and time in, decision out.
//!
//! A program that needed so much a moment ago will need it again, so the peak of the last five seconds plus a tenth is kept. What lies
//! above is released in eight equal parts, one per tick, so that a program that comes back soon finds most of it, and no tick takes
//! long. (Demand peaks as in tcmalloc's skip-subrelease, a tenth on top as in Go's scavenger.)
//!
//! Giving back costs processor time that the program could have. [`Allowance`] keeps that to one percent over a minute; only a limit on
//! memory, or a machine on which programs wait for memory, goes before it.

use crate::config::{RELEASE_CPU_PERMILLE, RELEASE_CPU_WINDOW_NS, RETAIN_ALWAYS_BYTES};
use crate::options::Retain;

/// The window is divided into so many slices; the oldest falls out as a whole.
const SLICES: usize = 5;

/// What the heap has at a moment, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Demand {
    /// What the program and the caches have.
    pub(crate) in_use: usize,
    /// The most they had since the last time.
    pub(crate) peak: usize,
    /// What is free and could go.
    pub(crate) free: usize,
    /// What the allocator keeps for itself: it comes out of what is kept above the peak.
    pub(crate) own: usize,
}

/// Recent demand, and the release that is under way.
#[derive(Debug)]
pub(crate) struct Retention {
    /// The highest use in each slice of the window, and one more for the slice that has just begun.
    peaks: [usize; SLICES + 1],
    /// Which slice of time is the newest.
    slice: u64,
    /// How long a slice is. Another length begins a new window.
    slice_ns: u64,
    /// How much each tick of the present release gives back; 0: none is under way.
    part: usize,
}

impl Retention {
    pub(crate) const fn new() -> Self {
        Self { peaks: [0; SLICES + 1], slice: 0, slice_ns: 0, part: 0 }
    }

    /// One tick at `now_ns`. Says how much of what is free to release.
    pub(crate) fn tick(&mut self, now_ns: u64, demand: Demand, retain: Retain) -> usize {
        let (percent, window_ms, steps) = match retain {
            Retain::Peak { percent, window_ms, steps } => (percent, window_ms, steps),
            // Remembered meanwhile, should somebody choose otherwise.
            Retain::Off | Retain::Keep => (0, 5000, 1),
        };
        self.look(now_ns, demand, u64::from(window_ms) * 1_000_000 / SLICES as u64);
        match retain {
            Retain::Keep => return 0,
            Retain::Off => return demand.free,
            Retain::Peak { .. } => {}
        }
        let peak = self.peaks.iter().copied().max().unwrap_or(0);
        let keep = peak + (peak / 100 * usize::from(percent)).saturating_sub(demand.own);
        let excess = (demand.in_use + demand.free).saturating_sub(keep).min(demand.free);
        // Little is not worth beginning for; but what has begun goes on to the end.
        if excess == 0 || (self.part == 0 && excess <= RETAIN_ALWAYS_BYTES) {
            self.part = 0;
            return 0;
        }
        self.part = self.part.max(excess.div_ceil(usize::from(steps.max(1))));
        self.part.min(excess)
    }

    fn look(&mut self, now_ns: u64, demand: Demand, slice_ns: u64) {
        if slice_ns != self.slice_ns {
            let peak = self.peaks.iter().copied().max().unwrap_or(0);
            *self = Self { slice_ns, slice: now_ns / slice_ns, peaks: [0; SLICES + 1], part: self.part };
            self.peaks[(self.slice % (SLICES as u64 + 1)) as usize] = peak;
        }
        let slice = now_ns / slice_ns;
        let passed = slice.saturating_sub(self.slice).min(self.peaks.len() as u64);
        for newer in 0..passed {
            self.peaks[((slice - newer) % self.peaks.len() as u64) as usize] = 0;
        }
        self.slice = self.slice.max(slice);
        let newest = &mut self.peaks[(self.slice % (SLICES as u64 + 1)) as usize];
        *newest = (*newest).max(demand.peak).max(demand.in_use);
    }
}

/// Time that may be spent on giving back: it grows with time that passes, up to what a whole window allows.
#[derive(Debug)]
pub(crate) struct Allowance {
    /// What was spent and has not been made up for by time that passed. At first, nothing.
    spent_ns: u64,
    last_ns: u64,
}

impl Allowance {
    const MOST_NS: u64 = RELEASE_CPU_WINDOW_NS / 1000 * RELEASE_CPU_PERMILLE;

    pub(crate) const fn new() -> Self {
        Self { spent_ns: 0, last_ns: 0 }
    }

    /// What may be spent now.
    pub(crate) fn at(&mut self, now_ns: u64) -> u64 {
        let passed = now_ns.saturating_sub(self.last_ns);
        self.last_ns = self.last_ns.max(now_ns);
        self.spent_ns = self.spent_ns.saturating_sub(passed / 1000 * RELEASE_CPU_PERMILLE);
        Self::MOST_NS.saturating_sub(self.spent_ns)
    }

    /// So much was spent.
    pub(crate) fn spend(&mut self, ns: u64) {
        self.spent_ns = self.spent_ns.saturating_add(ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TICK_NS;

    const MIB: usize = 1 << 20;
    const SECOND_NS: u64 = 1_000_000_000;

    fn demand(in_use: usize, free: usize) -> Demand {
        Demand { in_use, peak: in_use, free, own: 0 }
    }

    /// Runs ticks for `seconds`, with `used` giving what the program uses at each; says what was free at the end. What it stops using becomes
    /// free, and what it needs comes from there first.
    fn run(
        retention: &mut Retention,
        now: &mut u64,
        seconds: u64,
        free: usize,
        retain: Retain,
        used: impl Fn(u64) -> usize,
    ) -> (usize, usize) {
        let (mut free, mut before, mut touched) = (free, used(0), 0);
        for tick in 0..seconds * SECOND_NS / TICK_NS {
            *now += TICK_NS;
            let in_use = used(tick);
            free += before.saturating_sub(in_use);
            let more = in_use.saturating_sub(before);
            touched += more.saturating_sub(free);
            free = free.saturating_sub(more);
            before = in_use;
            free -= retention.tick(*now, demand(in_use, free), retain);
        }
        (free, touched)
    }

    #[test]
    fn a_drop_is_kept_for_the_window_and_then_released_in_eight_ticks() {
        let (mut retention, mut now) = (Retention::new(), 0);
        let retain = Retain::DEFAULT;
        assert_eq!(run(&mut retention, &mut now, 2, 0, retain, |_| 100 * MIB).0, 0);
        assert_eq!(run(&mut retention, &mut now, 4, 90 * MIB, retain, |_| 10 * MIB).0, 90 * MIB, "it may come back");
        let rest = run(&mut retention, &mut now, 3, 90 * MIB, retain, |_| 10 * MIB).0;
        assert!(rest <= MIB, "{rest} bytes are left");
    }

    #[test]
    fn a_saw_tooth_keeps_its_memory() {
        let (mut retention, mut now) = (Retention::new(), 0);
        let (_, touched) =
            run(&mut retention, &mut now, 60, 0, Retain::DEFAULT, |tick| if tick % 30 < 10 { 100 * MIB } else { 20 * MIB });
        assert_eq!(touched, 0, "no memory was touched anew");
    }

    #[test]
    fn oscillation_slower_than_the_window_is_followed() {
        let (mut retention, mut now) = (Retention::new(), 0);
        let used = |tick: u64| if tick % 200 < 100 { 100 * MIB } else { 20 * MIB };
        let (free, touched) = run(&mut retention, &mut now, 60, 0, Retain::DEFAULT, used);
        assert!(touched >= 2 * 70 * MIB, "{touched}");
        assert!(free <= 3 * MIB, "{free}");
    }

    #[test]
    fn a_leak_is_never_in_the_way() {
        let (mut retention, mut now) = (Retention::new(), 0);
        let (free, touched) = run(&mut retention, &mut now, 60, 0, Retain::DEFAULT, |tick| tick as usize * MIB);
        assert_eq!((free, touched), (0, 599 * MIB));
    }

    #[test]
    fn an_idle_program_goes_to_its_floor_and_stays_there() {
        let (mut retention, mut now) = (Retention::new(), 0);
        run(&mut retention, &mut now, 1, 0, Retain::DEFAULT, |_| 1000 * MIB);
        let free = run(&mut retention, &mut now, 12, 1000 * MIB, Retain::DEFAULT, |_| 0).0;
        assert_eq!(free, 0);
        let free = RETAIN_ALWAYS_BYTES;
        assert_eq!(run(&mut retention, &mut now, 12, free, Retain::DEFAULT, |_| 0).0, free);
    }

    #[test]
    fn a_choice_is_a_choice() {
        let (mut retention, mut now) = (Retention::new(), 0);
        assert_eq!(run(&mut retention, &mut now, 30, 500 * MIB, Retain::Keep, |_| MIB).0, 500 * MIB);
        assert_eq!(run(&mut retention, &mut now, 1, 500 * MIB, Retain::Off, |_| MIB).0, 0);
        let (mut retention, mut now) = (Retention::new(), 0);
        let early = Retain::Peak { percent: 50, window_ms: 1000, steps: 1 };
        run(&mut retention, &mut now, 1, 0, early, |_| 100 * MIB);
        let free = run(&mut retention, &mut now, 2, 100 * MIB, early, |_| 20 * MIB).0;
        assert_eq!(free, 20 * MIB / 100 * 50);
    }

    #[test]
    fn what_the_allocator_needs_itself_is_part_of_what_is_kept() {
        let mut retention = Retention::new();
        let retain = Retain::Peak { percent: 10, window_ms: 500, steps: 1 };
        let demand = |own| Demand { in_use: 100 * MIB, peak: 100 * MIB, free: 20 * MIB, own };
        let tenth = 100 * MIB / 100 * 10;
        assert_eq!(retention.tick(SECOND_NS, demand(0), retain), 20 * MIB - tenth);
        assert_eq!(retention.tick(2 * SECOND_NS, demand(4 * MIB), retain), 24 * MIB - tenth);
        assert_eq!(retention.tick(3 * SECOND_NS, demand(40 * MIB), retain), 20 * MIB, "but no more than that");
    }

    #[test]
    fn another_window_does_not_forget_the_last_peak() {
        let mut retention = Retention::new();
        let long = Retain::Peak { percent: 0, window_ms: 60_000, steps: 1 };
        assert_eq!(retention.tick(SECOND_NS, demand(100 * MIB, 0), long), 0);
        let short = Retain::Peak { percent: 0, window_ms: 500, steps: 1 };
        assert_eq!(retention.tick(SECOND_NS + TICK_NS, demand(0, 100 * MIB), short), 0);
        assert!(retention.tick(2 * SECOND_NS, demand(0, 100 * MIB), short) > 0);
    }

    #[test]
    fn no_tick_releases_more_than_a_part_of_the_excess() {
        for steps in [1, 8, 64] {
            let retain = Retain::Peak { percent: 10, window_ms: 5000, steps };
            let mut retention = Retention::new();
            let mut free = 800 * MIB;
            let mut now = 1;
            while free > 0 {
                let part = retention.tick(now, demand(0, free), retain);
                assert!(part <= (800 * MIB).div_ceil(usize::from(steps)));
                assert!(part > 0);
                free -= part;
                now += TICK_NS;
            }
            assert!(now <= 1 + u64::from(steps) * TICK_NS);
        }
    }

    #[test]
    fn time_that_stands_still_or_leaps_is_harmless() {
        let mut retention = Retention::new();
        let window = 5 * SECOND_NS;
        let high = Demand { in_use: 5 * MIB, peak: 9 * MIB, free: 0, own: 0 };
        assert_eq!(retention.tick(10 * window, high, Retain::DEFAULT), 0);
        assert_eq!(retention.tick(10 * window, demand(5 * MIB, 4 * MIB), Retain::DEFAULT), 0);
        assert_eq!(
            retention.tick(3 * window, demand(5 * MIB, 4 * MIB), Retain::DEFAULT),
            0,
            "a clock that goes back keeps what is known"
        );
        assert!(retention.tick(u64::MAX, demand(5 * MIB, 4 * MIB), Retain::DEFAULT) > 0);
    }

    #[test]
    fn time_for_giving_back_is_rationed() {
        let mut allowance = Allowance::new();
        let minute = 60 * SECOND_NS;
        assert_eq!(allowance.at(SECOND_NS), 600_000_000, "one percent of a minute");
        allowance.spend(600_000_000);
        assert_eq!(allowance.at(SECOND_NS), 0);
        assert_eq!(allowance.at(2 * SECOND_NS), 10_000_000);
        assert_eq!(allowance.at(SECOND_NS), 10_000_000, "a clock that goes back gives nothing");
        assert_eq!(allowance.at(100 * minute), 600_000_000, "and what was not spent for long is lost");
        // Whoever spends all there is gets one percent.
        let mut spent = 0;
        for tick in 0..6000 {
            let now = allowance.at(100 * minute + tick * TICK_NS);
            spent += now;
            allowance.spend(now);
        }
        assert!(spent <= 600_000_000 + 6_000_000_000, "{spent} ns in ten minutes");
    }
}
