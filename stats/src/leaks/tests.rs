//! Leaks among programs that are made up: samples drawn as the heap draws them, of sites that behave in one way or another, for ten minutes. Each pattern
//! that is no leak, in many seeds and at two intervals; and a leak among two hundred such sites.

use std::collections::HashMap;

use freestone::profile::ProfileSummary;

use super::*;
use crate::random::Random;

fn exponential(random: &mut Random, mean: f64) -> f64 {
    -mean * random.part().ln()
}

/// Ten minutes, in seconds, after a minute that nobody looks at.
const BEGIN: f64 = 60.0;
const END: f64 = 660.0;
const FOR_EVER: f64 = f64::INFINITY;

/// What a site does: how many bytes a second it allocates at a time, and when what it allocates then ends.
enum Pattern {
    Steady {
        lifetime: f64,
    },
    Sawtooth {
        period: f64,
    },
    Burst {
        from: f64,
        to: f64,
    },
    /// In and out in turn, as soon as it is full.
    Cache {
        full_after: f64,
    },
    StartUp,
    /// Grows by one and the same now and then, at first.
    Pool,
    /// The load goes up and down.
    Noise {
        lifetime: f64,
        period: f64,
    },
    /// New keys come more and more seldom.
    Vocabulary,
    /// Keeps what it has, and takes a little more.
    Creep,
    Leak,
    /// One in ten is forgotten.
    LeakOfSome {
        lifetime: f64,
    },
}

impl Pattern {
    fn rate(&self, at: f64) -> f64 {
        match *self {
            Self::Steady { .. } | Self::Sawtooth { .. } | Self::Cache { .. } | Self::Leak | Self::LeakOfSome { .. } => 1.0,
            Self::Burst { from, to } => {
                if (from..to).contains(&at) {
                    20.0
                } else {
                    0.0
                }
            }
            Self::StartUp => {
                if (BEGIN..BEGIN + 10.0).contains(&at) {
                    50.0
                } else {
                    0.0
                }
            }
            Self::Pool => {
                if (at as u64).is_power_of_two() {
                    40.0
                } else {
                    0.0
                }
            }
            Self::Noise { period, .. } => 1.0 + 0.9 * (at / period).sin(),
            Self::Vocabulary => 30.0 * (-at / 60.0).exp(),
            Self::Creep => 0.0005,
        }
    }

    fn end(&self, at: f64, random: &mut Random) -> f64 {
        match *self {
            Self::Steady { lifetime } | Self::Noise { lifetime, .. } => at + exponential(random, lifetime),
            Self::Sawtooth { period } => (at / period).floor() * period + period,
            Self::Burst { to, .. } => to + 20.0,
            Self::Cache { full_after } => at + full_after,
            Self::StartUp | Self::Pool | Self::Vocabulary | Self::Creep | Self::Leak => FOR_EVER,
            Self::LeakOfSome { lifetime } => {
                if random.part() < 0.1 {
                    FOR_EVER
                } else {
                    at + exponential(random, lifetime)
                }
            }
        }
    }

    fn healthy(kind: u64, random: &mut Random) -> Self {
        match kind % 8 {
            0 => Self::Steady { lifetime: random.between(0.01, 60.0) },
            1 => Self::Sawtooth { period: random.between(5.0, 90.0) },
            2 => {
                let from = random.between(0.0, 500.0);
                Self::Burst { from, to: from + random.between(5.0, 60.0) }
            }
            3 => Self::Cache { full_after: random.between(10.0, 200.0) },
            4 => Self::StartUp,
            5 => Self::Pool,
            6 => Self::Noise { lifetime: random.between(0.1, 20.0), period: random.between(1.0, 30.0) },
            _ => Self::Vocabulary,
        }
    }
}

/// A sample: when it began and ended.
struct Drawn {
    begin: f64,
    end: f64,
}

struct SimulatedSite {
    size: f64,
    weight: f64,
    drawn: Vec<Drawn>,
}

impl SimulatedSite {
    /// `bytes`: per second, at a rate of 1.
    fn new(pattern: &Pattern, size: f64, bytes: f64, interval: f64, random: &mut Random) -> Self {
        let chance = 1.0 - (-size / interval).exp();
        let mut drawn = Vec::new();
        let mut second = 0.0;
        while second < END {
            let mean = pattern.rate(second) * bytes / size * chance;
            // A Poisson number of samples, by the gaps between them.
            let mut gap = || if mean > 0.0 { exponential(random, 1.0 / mean) } else { FOR_EVER };
            let mut at = second + gap();
            let mut begins = Vec::new();
            while at < second + 1.0 {
                begins.push(at);
                at += gap();
            }
            drawn.extend(begins.into_iter().map(|begin| Drawn { begin, end: pattern.end(begin, random) }));
            second += 1.0;
        }
        Self { size, weight: 1.0 / chance, drawn }
    }

    fn estimate(&self, samples: usize) -> Estimate {
        let mut estimate = Estimate::default();
        let count = samples as f64;
        estimate.samples = samples as u64;
        estimate.objects = count * self.weight;
        estimate.bytes = count * self.weight * self.size;
        estimate.objects_variance = count * self.weight * (self.weight - 1.0);
        estimate.bytes_variance = estimate.objects_variance * self.size * self.size;
        estimate
    }

    fn at(&self, id: u64, now: f64) -> Option<SiteUse> {
        let so_far: Vec<&Drawn> = self.drawn.iter().filter(|drawn| drawn.begin <= now).collect();
        let ended: Vec<&&Drawn> = so_far.iter().filter(|drawn| drawn.end <= now).collect();
        let lived: f64 = ended.iter().map(|drawn| drawn.end - drawn.begin).sum();
        Some(SiteUse {
            id,
            block_bytes: self.size as usize,
            allocated: self.estimate(so_far.len()),
            live: self.estimate(so_far.len() - ended.len()),
            ended: self.estimate(ended.len()),
            lifetime_ns: lived * self.weight * 1e9,
            first_ns: ns(so_far.first()?.begin),
            last_ns: ns(so_far.last()?.begin),
            ..SiteUse::default()
        })
    }
}

fn ns(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

struct Simulation {
    interval: f64,
    sites: Vec<SimulatedSite>,
    /// Sites that grow more and more slowly: with two moments alone that cannot be told from a leak.
    slowing: Vec<usize>,
}

impl Simulation {
    fn new(interval: usize) -> Self {
        Self { interval: interval as f64, sites: Vec::new(), slowing: Vec::new() }
    }

    fn put(&mut self, pattern: &Pattern, size: f64, bytes: f64, random: &mut Random) {
        if matches!(pattern, Pattern::Vocabulary) {
            self.slowing.push(self.sites.len() + 1);
        }
        self.sites.push(SimulatedSite::new(pattern, size, bytes, self.interval, random));
    }

    fn at(&self, now: f64) -> Sites {
        let mut summary = ProfileSummary::default();
        summary.interval = self.interval as usize;
        let mut all = Sites::new(ns(now), &summary);
        let mut known = HashMap::new();
        for (id, site) in self.sites.iter().enumerate() {
            if let Some(site) = site.at(id as u64 + 1, now) {
                all.add_with(&site, &[id + 1, 1000, 2000], &mut known);
            }
        }
        all
    }

    fn marks(&self) -> Vec<Mark> {
        let mut marks = Vec::new();
        let mut at = BEGIN + 15.0;
        while at < END {
            let sites = self.at(at).sites;
            marks.push(Mark::new(ns(at), sites.iter().map(|site| (site.id, site.live.bytes)).collect()));
            at += 15.0;
        }
        marks
    }

    /// With the history, and with two moments alone.
    fn leaks(&self) -> [Leaks; 2] {
        let (earlier, later) = (self.at(BEGIN), self.at(END));
        [self.marks(), Vec::new()].map(|marks| find(&earlier, &later, &marks, false))
    }
}

const KIB: f64 = 1024.0;
const INTERVALS: [usize; 2] = [512 << 10, 16 << 10];

/// Two hundred sites, each of which allocates some hundred kilobytes a second, and one of them one percent of it all, which it forgets.
fn two_hundred(seed: u64, with_leak: bool, interval: usize) -> Simulation {
    let mut random = Random(seed);
    let mut simulation = Simulation::new(interval);
    for number in 0..199 {
        let pattern = Pattern::healthy(random.next(), &mut random);
        let size = [64.0, 512.0, 4096.0, 30_000.0][number % 4];
        let bytes = random.between(20.0, 180.0) * KIB;
        simulation.put(&pattern, size, bytes, &mut random);
    }
    if with_leak {
        simulation.put(&Pattern::Leak, 256.0, 200.0 * KIB, &mut random);
    }
    simulation
}

#[test]
fn a_leak_among_two_hundred_sites_comes_first() {
    let mut missed = Vec::new();
    for seed in 0..20 {
        for (way, leaks) in two_hundred(seed, true, INTERVALS[0]).leaks().into_iter().enumerate() {
            if leaks.leaks.first().is_none_or(|first| first.frames[0] != 200) {
                missed.push((seed, way));
            }
            if let Some(leak) = leaks.leaks.first().filter(|first| first.frames[0] == 200) {
                // 200 KiB a second are 703 MiB an hour.
                let off = (leak.bytes_per_hour - 200.0 * KIB * 3600.0).abs();
                assert!(off < 4.0 * leak.error_per_hour, "seed {seed}: {leak}");
            }
        }
    }
    assert!(missed.len() <= 1, "seeds, and 1 for those with two moments only: {missed:?}");
}

#[test]
fn two_hundred_healthy_sites_have_no_leak() {
    let mut found = Vec::new();
    for seed in 100..120 {
        for interval in INTERVALS {
            let simulation = two_hundred(seed, false, interval);
            let [with_history, mut alone] = simulation.leaks();
            assert!(with_history.sites > 100);
            found.extend(with_history.leaks.into_iter().map(|leak| format!("seed {seed}, every {interval}: {leak}")));
            alone.leaks.retain(|leak| !simulation.slowing.contains(&leak.frames[0]));
            found.extend(alone.leaks.into_iter().map(|leak| format!("seed {seed}, every {interval}, two moments: {leak}")));
        }
    }
    assert!(found.is_empty(), "{} in 80 looks:\n{}", found.len(), found.join("\n"));
}

/// What is said of one site alone.
fn kind_of(pattern: &Pattern, bytes: f64, interval: usize, seed: u64) -> [Option<Kind>; 2] {
    let mut random = Random(seed);
    let mut simulation = Simulation::new(interval);
    simulation.put(pattern, 1024.0, bytes, &mut random);
    simulation.leaks().map(|leaks| leaks.leaks.iter().chain(&leaks.others).next().map(|growth| growth.kind))
}

#[test]
fn no_healthy_pattern_alone_is_a_leak() {
    let patterns = |random: &mut Random| {
        let mut all: Vec<Pattern> = (0..8).map(|kind| Pattern::healthy(kind, random)).collect();
        all.push(Pattern::Creep);
        all
    };
    for interval in INTERVALS {
        for seed in 0..20 {
            for (number, pattern) in patterns(&mut Random(seed)).iter().enumerate() {
                let mut kinds = kind_of(pattern, 300.0 * KIB, interval, seed);
                if matches!(pattern, Pattern::Vocabulary) {
                    // What grows more and more slowly shows with the history only.
                    kinds[1] = None;
                }
                assert!(!kinds.contains(&Some(Kind::Leak)), "pattern {number}, seed {seed}, every {interval}: {kinds:?}");
            }
        }
    }
}

#[test]
fn leaks_alone_are_leaks() {
    for interval in INTERVALS {
        for seed in 0..20 {
            assert_eq!(
                kind_of(&Pattern::Leak, 100.0 * KIB, interval, seed),
                [Some(Kind::Leak); 2],
                "seed {seed}, every {interval}"
            );
            let some = kind_of(&Pattern::LeakOfSome { lifetime: 5.0 }, 1000.0 * KIB, interval, seed);
            assert_eq!(some, [Some(Kind::Leak); 2], "seed {seed}, every {interval}");
        }
    }
}

#[test]
fn a_base_whose_blocks_are_replaced_does_not_leak() {
    for seed in 0..20 {
        let mut random = Random(seed);
        let mut simulation = Simulation::new(16 << 10);
        // Twenty megabytes before the first look; 15 KiB a second take the place of others, at random, all of them once within the time.
        simulation.put(&Pattern::Burst { from: 20.0, to: 40.0 }, 1024.0, 50.0 * KIB, &mut random);
        for drawn in &mut simulation.sites[0].drawn {
            drawn.end = BEGIN + exponential(&mut random, 1300.0);
        }
        simulation.put(&Pattern::Steady { lifetime: 1300.0 }, 1024.0, 15.0 * KIB, &mut random);
        simulation.sites[1].drawn.retain(|drawn| drawn.begin > BEGIN);
        let [_, alone] = simulation.leaks();
        let kinds: Vec<Kind> = alone.leaks.iter().chain(&alone.others).map(|growth| growth.kind).collect();
        assert!(!kinds.contains(&Kind::Leak), "seed {seed}: {kinds:?}");
    }
}

#[test]
fn load_explains_what_would_be_a_leak() {
    let mut simulation = Simulation::new(16 << 10);
    simulation.put(&Pattern::Leak, 1024.0, 100.0 * KIB, &mut Random(1));
    let leaks = find(&simulation.at(BEGIN), &simulation.at(END), &simulation.marks(), true);
    assert!(leaks.leaks.is_empty());
    assert_eq!(leaks.others[0].kind, Kind::Load);
}

#[test]
fn of_the_earlier_moment_a_mark_is_enough() {
    for seed in 0..5 {
        let simulation = two_hundred(seed, true, INTERVALS[1]);
        let later = simulation.at(END);
        let before = simulation.at(BEGIN).sites.iter().map(|site| (site.id, site.live.bytes)).collect();
        let mark = Mark::new(ns(BEGIN), before);
        let leaks = judge(&since_then(ns(BEGIN), &later, Some(&mark)), ns(BEGIN), &later, &simulation.marks(), false);
        assert_eq!(leaks.leaks.first().map(|leak| leak.frames[0]), Some(200), "seed {seed}");
    }
}

#[test]
fn the_wrong_order_shows_nothing() {
    let simulation = two_hundred(3, true, INTERVALS[0]);
    let leaks = find(&simulation.at(END), &simulation.at(BEGIN), &[], false);
    assert!(leaks.leaks.is_empty() && leaks.others.is_empty());
}

#[test]
fn more_sites_ask_for_more() {
    // Of the normal distribution, 0.0001 lies beyond 3.72, and 0.000001 beyond 4.75.
    assert!((score_min(100) - 3.72).abs() < 0.05, "{}", score_min(100));
    assert!((score_min(10_000) - 4.75).abs() < 0.05, "{}", score_min(10_000));
    assert!((score_min(0) - score_min(100)).abs() < f64::EPSILON);
}

#[test]
fn it_says_where() {
    let text = two_hundred(3, true, INTERVALS[0]).leaks()[0].to_string();
    assert!(text.starts_with("one call site leaks, of "), "{text}");
    assert!(text.contains(" an hour, ") && text.contains("0xc8\n") && text.contains("grown, and no leak:"), "{text}");
    assert!(text.lines().count() < 30, "{text}");
}
