//! A table of cases: what a process did in five minutes, as a point per second would show it, and what that is called. Each at three sizes and with
//! twenty seeds; and what the rules say where they know little.

use super::*;
use crate::Resident;
use crate::random::Random;

const MIB: f64 = 1_048_576.0;

/// About 0, most of the time within 1.
fn noise(random: &mut Random) -> f64 {
    (0..4).map(|_| random.part() - 0.5).sum()
}

/// What a process is like at a moment, in MiB and per second.
#[derive(Clone, Copy)]
struct State {
    live: f64,
    cached: f64,
    holes: f64,
    dirty: f64,
    others: f64,
    files: f64,
    /// Blocks that come and go, thousands per second.
    turnover: f64,
    /// Blocks that live, thousands. 0: as many as the bytes make, at 256 B.
    blocks: f64,
    threads: u32,
    settles_ms: u32,
}

const CALM: State = State {
    live: 40.0,
    cached: 2.0,
    holes: 4.0,
    dirty: 4.0,
    others: 1.0,
    files: 5.0,
    turnover: 20.0,
    blocks: 0.0,
    threads: 8,
    settles_ms: 5800,
};

/// The points of a process, one per second.
fn series(scale: f64, seconds: usize, mut at: impl FnMut(f64) -> State) -> Vec<Point> {
    let bytes = |mib: f64| (mib.max(0.0) * scale * MIB) as u64;
    let mut points: Vec<Point> = Vec::new();
    for second in 0..=seconds {
        let state = at(second as f64 / seconds as f64);
        let before = points.last().copied().unwrap_or_default();
        let turned = (state.turnover * 1e3) as u64;
        let live = bytes(state.live);
        let blocks = if state.blocks > 0.0 { (state.blocks * 1e3) as u64 } else { live / (256 * scale as u64) };
        let lived = before.allocations - before.frees;
        let mut point = Point {
            at_ns: 7_000_000_000 + second as u64 * 1_000_000_000,
            live,
            thread_cached: bytes(state.cached),
            holes: bytes(state.holes),
            dirty: bytes(state.dirty),
            metadata: bytes(state.live / 80.0),
            allocations: before.allocations + turned + blocks.saturating_sub(lived),
            frees: before.frees + turned + lived.saturating_sub(blocks),
            threads: state.threads,
            settles_ms: state.settles_ms,
            ..Point::default()
        };
        let file_backed = bytes(state.files);
        point.resident = Some(Resident { total: point.committed() + bytes(state.others) + file_backed, file_backed });
        points.push(point);
    }
    points
}

/// The same at other times: it begins slowly, and a few times the machine has better things to do.
fn stalled(mut points: Vec<Point>, random: &mut Random) -> Vec<Point> {
    let stalls = [(2, 20), (30 + random.below(200), 12), (30 + random.below(200), 9)];
    for (place, seconds) in stalls {
        for point in &mut points[place..] {
            point.at_ns += seconds * 1_000_000_000;
        }
    }
    points
}

/// Something that a process does, at a size, by chance.
type Doing = fn(f64, &mut Random) -> Vec<Point>;

const CASES: &[(&str, Verdict, Doing)] = &[
    ("nothing", Verdict::Steady, |scale, _| series(scale, 300, |_| CALM)),
    ("a true leak", Verdict::LeakSuspected, |scale, random| {
        series(scale, 300, |time| State { live: 40.0 + 20.0 * time + noise(random), ..CALM })
    }),
    ("a leak that begins with the program", Verdict::LeakSuspected, |scale, random| {
        series(scale, 300, |time| {
            let base = if time < 0.02 { 1.0 } else { 40.0 };
            State { live: base + 15.0 * time + noise(random) * 0.5, ..CALM }
        })
    }),
    ("a small leak without noise", Verdict::LeakSuspected, |scale, _| {
        series(scale, 300, |time| State { live: 40.0 + 1.5 * time, ..CALM })
    }),
    ("a slow leak in noise", Verdict::LeakSuspected, |scale, random| {
        series(scale, 300, |time| State { live: 40.0 + 10.0 * time + 20.0 * random.part(), ..CALM })
    }),
    ("a leak below teeth", Verdict::LeakSuspected, |scale, _| {
        series(scale, 300, |time| State { live: 40.0 + 12.0 * time + 20.0 * (time * 30.0).fract(), ..CALM })
    }),
    ("a leak at a load that rises", Verdict::LeakSuspected, |scale, random| {
        series(scale, 300, |time| State {
            live: 40.0 + 30.0 * (time + time * time) + noise(random),
            turnover: 10.0 * (1.0 + 2.0 * time) + noise(random),
            ..CALM
        })
    }),
    ("a leak among blocks of all sizes", Verdict::LeakSuspected, |scale, random| {
        let mut sizes = 0.0;
        series(scale, 300, |time| {
            sizes = 0.97 * sizes + 0.5 * noise(random);
            State { live: 40.0 + 16.0 * time + sizes, blocks: 160.0 + 64.0 * time, ..CALM }
        })
    }),
    ("six teeth, each a little higher: who knows", Verdict::Steady, |scale, _| {
        series(scale, 300, |time| State { live: 40.0 + 12.0 * time + 24.0 * (time * 6.0).fract(), ..CALM })
    }),
    ("one tooth, and most of the next", Verdict::Steady, |scale, random| {
        let drop = 0.05 + 0.1 * random.part();
        series(scale, 300, |time| {
            let tooth = 40.0 * (time - drop + 0.99).fract();
            State { live: 40.0 + tooth, ..CALM }
        })
    }),
    ("teeth", Verdict::Steady, |scale, random| {
        let (count, begin) = (2.0 + 60.0 * random.part(), random.part());
        series(scale, 300, |time| {
            let tooth = 40.0 * (time * count + begin).fract();
            State { live: 40.0 + tooth, dirty: 44.0 - tooth, ..CALM }
        })
    }),
    ("a burst", Verdict::Steady, |scale, random| {
        let begin = 0.1 + 0.6 * random.part();
        series(scale, 300, |time| {
            let after = time - begin;
            match after {
                0.0..0.05 => State { live: 200.0, ..CALM },
                0.05..0.075 => State { dirty: 160.0, ..CALM },
                _ => CALM,
            }
        })
    }),
    ("a cache that fills to a bound", Verdict::Steady, |scale, random| {
        let full_at = 0.1 + 0.4 * random.part();
        series(scale, 300, |time| State { live: 40.0 + 80.0 * (time / full_at).min(1.0) + noise(random) * 0.2, ..CALM })
    }),
    ("a cache that fills to a bound, in noise", Verdict::Steady, |scale, random| {
        let full_at = 0.1 + 0.3 * random.part();
        series(scale, 300, |time| State { live: 40.0 + 15.0 * (time / full_at).min(1.0) + 12.0 * random.part(), ..CALM })
    }),
    ("a queue that is full and empty all the time", Verdict::Steady, |scale, random| {
        series(scale, 300, |_| State { live: 40.0 + 40.0 * random.part(), ..CALM })
    }),
    ("a cache that fills ever slower", Verdict::Steady, |scale, random| {
        let speed = 5.0 + 10.0 * random.part();
        series(scale, 300, |time| State { live: 40.0 + 80.0 * (1.0 - (-time * speed).exp()) + noise(random) * 0.2, ..CALM })
    }),
    ("a cache that evicts at random", Verdict::Steady, |scale, random| {
        let speed = 5.0 + 5.0 * random.part();
        series(scale, 300, |time| {
            let full = 1.0 - (-time * speed).exp();
            State { live: 40.0 + 80.0 * full + noise(random) * 0.2, turnover: 8.0 * full, ..CALM }
        })
    }),
    ("free pages that are on their way back", Verdict::Steady, |scale, _| {
        series(scale, 300, |time| State { dirty: 200.0 - 140.0 * time, ..CALM })
    }),
    ("pinned pages", Verdict::Fragmentation, |scale, random| {
        let wave = random.part() * 6.0;
        series(scale, 300, |time| State { live: 12.0 + (time * 40.0 + wave).sin(), holes: 70.0, ..CALM })
    }),
    ("retain:keep", Verdict::Retention, |scale, random| {
        let end = 0.1 + 0.5 * random.part();
        series(scale, 300, |time| {
            let (live, dirty) = if time < end { (150.0, 4.0) } else { (40.0, 114.0) };
            State { live, dirty, settles_ms: Point::KEPT, ..CALM }
        })
    }),
    ("nobody gives back", Verdict::Retention, |scale, random| {
        let end = 0.1 + 0.5 * random.part();
        series(scale, 300, |time| if time < end { State { live: 150.0, ..CALM } } else { State { dirty: 114.0, ..CALM } })
    }),
    ("caches of many threads", Verdict::Retention, |scale, random| {
        let cached = 30.0 + 30.0 * random.part();
        series(scale, 300, |_| State { live: 10.0, cached, holes: 20.0, threads: 200, ..CALM })
    }),
    ("a library in C grows", Verdict::NotOurs, |scale, random| {
        series(scale, 300, |time| State { others: 1.0 + 40.0 * time, live: 40.0 + noise(random), ..CALM })
    }),
    ("files are mapped", Verdict::NotOurs, |scale, random| {
        series(scale, 300, |time| State { files: 5.0 + 60.0 * time, live: 40.0 + noise(random), ..CALM })
    }),
    ("memory that was taken before is touched", Verdict::Steady, |scale, _| {
        let mut points = series(scale, 300, |_| State { live: 400.0, ..CALM });
        for (place, point) in points.iter_mut().enumerate() {
            let resident = point.resident.as_mut().expect("they have one");
            resident.total -= (300.0 - place as f64).max(0.0) as u64 * MIB as u64 * scale as u64;
        }
        points
    }),
    ("steady churn", Verdict::Steady, |scale, random| {
        series(scale, 300, |_| State { live: 40.0 + 3.0 * noise(random), turnover: 500.0, ..CALM })
    }),
    ("sessions are opened", Verdict::GrowthWithLoad, |scale, random| {
        series(scale, 300, |time| {
            let sessions = 1.0 + 3.0 * time;
            State { live: 10.0 + 20.0 * sessions + noise(random), turnover: 10.0 * sessions + noise(random), ..CALM }
        })
    }),
    ("sessions are opened, and now and then the machine stalls", Verdict::GrowthWithLoad, |scale, random| {
        let points = series(scale, 300, |time| {
            let sessions = 1.0 + 3.0 * time;
            State { live: 10.0 + 20.0 * sessions + noise(random), turnover: 10.0 * sessions + 0.1 * noise(random), ..CALM }
        });
        stalled(points, random)
    }),
    ("a true leak, and now and then the machine stalls", Verdict::LeakSuspected, |scale, random| {
        let points = series(scale, 300, |time| State { live: 40.0 + 20.0 * time + noise(random), ..CALM });
        stalled(points, random)
    }),
    ("sessions are opened, and do little", Verdict::GrowthWithLoad, |scale, random| {
        series(scale, 300, |time| {
            let sessions = 1.0 + 3.0 * time;
            State { live: 10.0 + 20.0 * sessions + 0.1 * noise(random), turnover: 0.1 * sessions, ..CALM }
        })
    }),
    ("threads are started", Verdict::GrowthWithLoad, |scale, random| {
        series(scale, 300, |time| {
            let threads = 10.0 + 40.0 * time;
            State { live: 4.0 + threads + noise(random), threads: threads as u32, ..CALM }
        })
    }),
    ("the load rises and stays", Verdict::GrowthWithLoad, |scale, random| {
        series(scale, 300, |time| {
            let load = 1.0 + 2.0 * (time * 1.6).min(1.0);
            State { live: 10.0 + 20.0 * load + noise(random), turnover: 10.0 * load + 0.3 * noise(random), ..CALM }
        })
    }),
];

#[test]
fn each_case_is_called_by_its_name() {
    let mut wrong = Vec::new();
    for (name, is, doing) in CASES {
        for scale in [1.0, 8.0, 64.0] {
            for seed in 1..21 {
                let diagnosis = judge(&doing(scale, &mut Random(seed << 32)));
                assert!(diagnosis.to_string().lines().count() <= 6, "{diagnosis}");
                assert!(!diagnosis.sentence.is_empty() && !diagnosis.advice.is_empty(), "{diagnosis}");
                if diagnosis.verdict != *is {
                    wrong.push(format!("{name}, {scale} times, seed {seed}: {diagnosis}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// A queue whose length is the sum of all that happened before it: no rule can tell its way up from a leak that is as long. One in twenty may be
/// called one.
#[test]
fn a_walk_at_random_is_seldom_called_a_leak() {
    let called = |seed: u64| {
        let mut random = Random(seed << 32);
        let mut live: f64 = 40.0;
        let points = series(1.0, 300, |_| {
            live = (live + noise(&mut random)).max(10.0);
            State { live, ..CALM }
        });
        judge(&points)
    };
    let leaks: Vec<Diagnosis> = (1..501).map(called).filter(|it| it.verdict == Verdict::LeakSuspected).collect();
    let sure = leaks.iter().filter(|it| it.confidence == Confidence::High).count();
    assert!(leaks.len() <= 25, "{} of 500", leaks.len());
    assert!(sure <= 10, "{sure} of 500 with high confidence");
}

/// The first point and the last of a case, and what is said of these two alone.
#[test]
fn two_points_are_called_what_they_can_be() {
    let two = |earlier: State, later: State, seconds: u64| {
        let mut points = series(1.0, 1, |time| if time < 0.5 { earlier } else { later });
        points[1].at_ns = points[0].at_ns + seconds * 1_000_000_000;
        judge(&points)
    };
    let cases = [
        ("nothing", CALM, 60, Verdict::Steady),
        ("a little more", State { live: 44.0, ..CALM }, 60, Verdict::Steady),
        ("much more", State { live: 80.0, ..CALM }, 60, Verdict::LeakSuspected),
        ("much more, and twice the threads", State { live: 80.0, threads: 16, ..CALM }, 60, Verdict::GrowthWithLoad),
        ("less", State { live: 10.0, dirty: 30.0, ..CALM }, 60, Verdict::Steady),
        ("others", State { others: 30.0, ..CALM }, 60, Verdict::NotOurs),
    ];
    for (name, later, seconds, is) in cases {
        let diagnosis = two(CALM, later, seconds);
        assert_eq!(diagnosis.verdict, is, "{name}: {diagnosis}");
        assert_eq!(diagnosis.confidence, Confidence::Low, "{name}: {diagnosis}");
    }
    let kept = State { live: 10.0, dirty: 100.0, ..CALM };
    assert_eq!(two(kept, kept, 60).verdict, Verdict::Retention, "it was there then and is there now");
    assert_eq!(two(kept, kept, 3).verdict, Verdict::Steady, "it may still go");
    let pinned = State { live: 10.0, holes: 100.0, ..CALM };
    assert_eq!(two(pinned, pinned, 60).verdict, Verdict::Fragmentation);
}

#[test]
fn what_cannot_be_judged_is_steady_and_says_so() {
    let some = series(1.0, 300, |time| State { live: 40.0 + 40.0 * time, ..CALM });
    for points in [&[], &some[..1]] {
        let diagnosis = judge(points);
        assert_eq!((diagnosis.verdict, diagnosis.confidence), (Verdict::Steady, Confidence::Low));
        assert!(diagnosis.sentence.contains("nothing to compare"), "{diagnosis}");
    }
    let same = [some[0]; 40];
    assert_eq!(judge(&same).points, 1, "a moment counts once");
    // The wrong way round: only the first is not earlier than one before.
    let back: Vec<Point> = some.iter().rev().copied().collect();
    assert_eq!(judge(&back).verdict, Verdict::Steady);
    let nobody_says: Vec<Point> = some.iter().map(|point| Point { resident: None, ..*point }).collect();
    assert_eq!(judge(&nobody_says).verdict, Verdict::LeakSuspected);
    let most = Point {
        at_ns: u64::MAX,
        live: u64::MAX,
        thread_cached: u64::MAX,
        depot: u64::MAX,
        holes: u64::MAX,
        dirty: u64::MAX,
        metadata: u64::MAX,
        profiler: u64::MAX,
        lost_at_fork: u64::MAX,
        released: u64::MAX,
        allocations: u64::MAX,
        frees: u64::MAX,
        allocated_bytes: u64::MAX,
        freed_bytes: u64::MAX,
        os_calls: u64::MAX,
        given_back: u64::MAX,
        resident: Some(Resident { total: u64::MAX, file_backed: u64::MAX }),
        threads: u32::MAX,
        settles_ms: u32::MAX - 1,
    };
    // Whatever a file holds: there is an answer.
    let mut all = vec![Point::default(); 30];
    for (place, point) in all.iter_mut().enumerate() {
        let at_ns = u64::MAX - 30 + place as u64;
        *point = if place % 2 == 0 { Point { at_ns, ..*point } } else { Point { at_ns, allocations: 0, frees: 0, ..most } };
    }
    assert_eq!(judge(&[Point::default(), most]).points, 2);
    assert_eq!(judge(&all).points, 30);
    assert!(!judge(&all).to_string().is_empty());
}

#[test]
fn a_process_that_was_started_anew_is_looked_at_alone() {
    let mut points = series(1.0, 300, |_| State { live: 400.0, ..CALM });
    let end_ns = points.last().expect("there are some").at_ns;
    points.extend(series(1.0, 300, |_| CALM).into_iter().map(|point| Point { at_ns: point.at_ns + end_ns, ..point }));
    let diagnosis = judge(&points);
    assert_eq!(diagnosis.points, 301);
    assert_eq!(diagnosis.verdict, Verdict::Steady);
}

#[test]
fn a_look_that_was_interrupted_does_not_hide_those_before_it() {
    let points = series(1.0, 60, |part| State { live: 40.0 + 100.0 * part, ..CALM });
    let (first, last) = (points[0], points[60]);
    let mut history = points[1..60].to_vec();
    assert_eq!(between(first, history.clone(), last), points);
    // It began before the last look, and what it counted is of later.
    history.push(Point { at_ns: last.at_ns - 1, allocations: last.allocations + 800, ..last });
    history.push(Point { at_ns: last.at_ns - 1, frees: last.frees + 1, ..last });
    history.insert(0, Point { at_ns: first.at_ns + 1, frees: first.frees - 1, ..first });
    assert_eq!(between(first, history.clone(), last), points);
    let of_history = [&[first], &history[..], &[last]].concat();
    assert_eq!(judge(&of_history).points, 1, "by themselves they look like another process");
}

#[test]
fn more_points_are_surer() {
    let of = |count: usize| {
        let mut random = Random(5);
        judge(&series(1.0, count, |time| State { live: 40.0 + 40.0 * time + 0.1 * noise(&mut random), ..CALM }))
    };
    let confidence = [1, 15, 300].map(|count| of(count).confidence);
    assert_eq!(confidence, [Confidence::Low, Confidence::Medium, Confidence::High]);
}

#[test]
fn what_weighs_more_comes_first_and_nothing_is_lost() {
    let of = |grown: f64, kept: f64| {
        let points = series(1.0, 300, |time| State { live: 40.0 + grown * time, dirty: kept, settles_ms: Point::KEPT, ..CALM });
        judge(&points).findings.iter().map(|found| found.verdict).collect::<Vec<_>>()
    };
    assert_eq!(of(40.0, 100.0), [Verdict::LeakSuspected, Verdict::Retention], "growth counts four times");
    assert_eq!(of(10.0, 100.0), [Verdict::Retention, Verdict::LeakSuspected]);
}

#[test]
fn keys_are_what_they_were() {
    let keys = Verdict::ALL.map(Verdict::key);
    assert_eq!(keys, ["steady", "leak_suspected", "fragmentation", "retention", "growth_with_load", "not_ours"]);
    assert!(Verdict::ALL.iter().all(|verdict| Verdict::from_key(verdict.key()) == Some(*verdict)));
    assert_eq!(Verdict::from_key("leak"), None);
    let figures: Vec<&str> = judge(&series(1.0, 3, |_| CALM)).figures.iter().map(|figure| figure.key).collect();
    let mut unique = figures.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), figures.len());
}

#[test]
fn it_prints_what_one_wants_to_know() {
    let mut random = Random(1);
    let text = judge(&series(1.0, 300, |time| State { live: 40.0 + 20.0 * time + 0.1 * noise(&mut random), ..CALM })).to_string();
    assert!(text.starts_with("leak suspected (high confidence: 301 points in 300.0 s)\n"), "{text}");
    assert!(text.contains("live before 40."), "{text}");
    assert!(text.contains("floor growth 19."), "{text}");
    assert!(text.contains("KiB/s"), "{text}");
}
