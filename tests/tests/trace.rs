//! A program that is asked to says in lines what its heap does, and they are true: what was written is read back the same, and adds up to what the
//! program itself counts. Nobody is harmed by it: not where nobody reads, not across a fork, not a program that must stay alone.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use freestone::anomaly::Kind;
use freestone_stats::trace::{Event, Interval, Line, Start, Who, parse_all};
use freestone_tests::{Ending, run};

const PROGRAM: &str = env!("CARGO_BIN_EXE_trace");

fn play(scenario: &str, environment: &str) -> Ending {
    let ending = run(Command::new(PROGRAM).arg(scenario).env("FREESTONE", environment));
    assert_eq!(ending.code, Some(0), "{ending:#?}");
    // A line that was on its way when the trace was switched off may follow.
    assert!(ending.out.lines().any(|line| line == "alive"), "{ending:#?}");
    ending
}

/// What a trace says. Every line can be read, and is written as it was read.
fn lines(text: &str) -> Vec<Line> {
    let mut lines = Vec::new();
    for line in parse_all(text.as_bytes()) {
        let (number, line) = line.expect("memory can be read");
        let line = line.unwrap_or_else(|error| panic!("line {number}: {error}\n{text}"));
        assert_eq!(Some(line.to_string().as_str()), text.lines().nth(number as usize - 1));
        lines.push(line);
    }
    lines
}

fn intervals(lines: &[Line]) -> Vec<&Interval> {
    lines.iter().filter_map(|line| if let Event::Interval(interval) = &line.event { Some(&**interval) } else { None }).collect()
}

fn starts(lines: &[Line]) -> Vec<&Start> {
    lines.iter().filter_map(|line| if let Event::Start(start) = &line.event { Some(&**start) } else { None }).collect()
}

/// The numbers that a program printed as `name=number`.
fn told(out: &str) -> BTreeMap<&str, u64> {
    let pairs = out.split_whitespace().filter_map(|word| word.split_once('='));
    pairs.map(|(name, number)| (name, number.parse().expect("a number"))).collect()
}

#[test]
fn what_is_told_adds_up_to_what_the_program_counts() {
    let ending = play("work", "trace:2,trace_interval:100ms");
    let lines = lines(&ending.err);
    assert_eq!(lines.len(), ending.err.lines().count(), "nothing else was said: {}", ending.err);
    assert!(lines.is_sorted_by_key(|line| line.t), "{}", ending.err);
    assert!(lines.iter().all(|line| line.pid == lines[0].pid));
    let [start] = starts(&lines)[..] else { panic!("one start: {}", ending.err) };
    assert!(matches!(lines[0].event, Event::Start(_)), "{}", ending.err);
    assert_eq!((start.version.as_str(), start.trace, start.trace_fd), (env!("CARGO_PKG_VERSION"), 2, 2));
    assert_eq!(start.trace_interval, Duration::from_millis(100));

    let intervals = intervals(&lines);
    assert!(intervals.len() >= 3, "{}", ending.err);
    for its in &intervals {
        let sum =
            its.live + its.thread_cached + its.depot + its.holes + its.dirty + its.metadata + its.profiler + its.lost_at_fork;
        assert_eq!(sum, its.committed);
        assert_eq!(its.lost, 0);
    }
    let sum = |count: fn(&Interval) -> u64| intervals.iter().map(|its| count(its)).sum::<u64>();
    let (last, told) = (intervals.last().expect("there are some"), told(&ending.out));
    for (name, last, sum) in [
        ("allocs_total", last.allocs_total, sum(|its| its.allocs)),
        ("frees_total", last.frees_total, sum(|its| its.frees)),
        ("alloc_bytes_total", last.alloc_bytes_total, sum(|its| its.alloc_bytes)),
        ("free_bytes_total", last.free_bytes_total, sum(|its| its.free_bytes)),
        ("live_blocks", last.live_blocks, sum(|its| its.allocs) - sum(|its| its.frees)),
        ("live", last.live, sum(|its| its.alloc_bytes) - sum(|its| its.free_bytes)),
    ] {
        assert_eq!((last, sum), (told[name], told[name]), "{name}");
    }
    // Times add up too, to the microseconds that are cut off.
    let time: Duration = intervals.iter().map(|its| its.dt).sum();
    let end = lines.iter().rev().find(|line| matches!(line.event, Event::Interval(_))).expect("there are some").t;
    assert!(end.abs_diff(time) <= Duration::from_micros(intervals.len() as u64), "{end:?}, {time:?}");
    // What went back is told twice, at the time and in sum.
    let mut gone = BTreeMap::new();
    for line in &lines {
        if let Event::Release(release) = &line.event {
            *gone.entry(release.who.to_string()).or_insert(0) += release.bytes;
            assert!(release.longest <= release.took && release.calls > 0, "{release:?}");
        }
    }
    assert_eq!(gone.get(&Who::Asked.to_string()), Some(&told["asked"]), "{gone:?}");
    assert_eq!(gone.values().sum::<u64>(), sum(|its| its.release_bytes), "{}", ending.err);
}

#[test]
fn an_anomaly_is_a_line_once_per_interval() {
    let ending = play("over_the_limit", "trace:2,trace_interval:100ms,memory_limit:1MiB");
    let lines = lines(&ending.err);
    assert_eq!(starts(&lines)[0].memory_limit, Some(1 << 20));
    let mut of_limit = 0;
    let mut open = 0;
    for line in &lines {
        match &line.event {
            Event::Interval(interval) => {
                assert_eq!(open, 0, "{}", ending.err);
                open = interval.anomalies;
            }
            Event::Anomaly(anomaly) => {
                open -= 1;
                of_limit += usize::from(anomaly.kind() == Some(Kind::LimitExceeded));
                assert!(anomaly.value > anomaly.threshold, "{anomaly:?}");
            }
            _ => {}
        }
    }
    assert_eq!(open, 0, "all that was counted was told: {}", ending.err);
    let all = intervals(&lines).len();
    assert!(of_limit >= 1 && of_limit <= all, "{of_limit} of {all}");
    let fewer = play("over_the_limit", "trace:1,trace_interval:100ms,memory_limit:1MiB");
    assert!(!fewer.err.contains("kind=anomaly"), "{}", fewer.err);
    assert!(intervals(&self::lines(&fewer.err)).iter().any(|its| its.anomalies > 0), "{}", fewer.err);
}

#[test]
fn a_line_goes_where_it_is_to_go() {
    let file = std::env::temp_dir().join(format!("freestone-trace-{}", std::process::id()));
    let script = format!("exec {PROGRAM} work 3>{}", file.display());
    let ending = run(Command::new("sh").args(["-c", &script]).env("FREESTONE", "trace:1,trace_fd:3,trace_interval:100ms"));
    let text = std::fs::read_to_string(&file).expect("it was written");
    std::fs::remove_file(&file).expect("a file of ours");
    assert_eq!((ending.code, ending.err.as_str()), (Some(0), ""));
    assert!(intervals(&lines(&text)).len() >= 3, "{text}");
}

#[test]
fn it_can_be_changed_at_run_time_and_begins_anew() {
    for environment in ["", "trace:0,trace_interval:10s"] {
        let ending = play("at_run_time", environment);
        let (err, out) = (lines(&ending.err), lines(&ending.out));
        let levels = |lines: &[Line]| starts(lines).iter().map(|start| (start.trace, start.trace_fd)).collect::<Vec<_>>();
        assert_eq!((levels(&err), levels(&out)), (vec![(1, 2), (2, 2)], vec![(2, 1)]), "{ending:#?}");
        assert!(starts(&err).iter().all(|start| start.trace_interval == Duration::from_millis(100)), "the shortest there is");
        assert!(!intervals(&err).is_empty() && !intervals(&out).is_empty(), "{ending:#?}");
    }
}

#[test]
fn the_builder_takes_effect_and_the_environment_wins() {
    let built = lines(&play("built", "").err);
    assert_eq!((starts(&built)[0].trace, starts(&built)[0].trace_interval), (1, Duration::from_millis(100)));
    assert!(!intervals(&built).is_empty());
    let changed = lines(&play("built", "trace:2,trace_interval:200ms").err);
    assert_eq!((starts(&changed)[0].trace, starts(&changed)[0].trace_interval), (2, Duration::from_millis(200)));
}

/// Without a background thread the program's own threads write.
#[test]
fn a_program_that_must_stay_alone_does() {
    for (scenario, environment) in
        [("alone", "trace:1,trace_interval:100ms,background:off"), ("for_c", "trace:1,trace_interval:100ms")]
    {
        let lines = lines(&play(scenario, environment).err);
        let intervals = intervals(&lines);
        assert!(intervals.len() >= 2, "{scenario}: {lines:#?}");
        assert!(intervals.iter().all(|its| !its.background_thread), "{scenario}");
    }
}

#[test]
fn a_child_of_a_fork_has_a_trace_of_its_own() {
    let ending = play("forks", "trace:1,trace_interval:100ms");
    let lines = lines(&ending.err);
    let parent = lines[0].pid;
    let children: Vec<u32> = ending.out.lines().filter_map(|line| line.strip_prefix("child=")?.parse().ok()).collect();
    assert_eq!(children.len(), 3);
    for pid in children.iter().copied().chain([parent]) {
        let own: Vec<Line> = lines.iter().filter(|line| line.pid == pid).cloned().collect();
        assert!(matches!(own[0].event, Event::Start(_)), "{own:#?}");
        assert_eq!(starts(&own).len(), 1, "{own:#?}");
        assert!(intervals(&own).len() >= 2, "{own:#?}");
        assert!(own.is_sorted_by_key(|line| line.t), "{own:#?}");
        let sum: u64 = intervals(&own).iter().map(|its| its.allocs).sum();
        assert_eq!(sum, intervals(&own).last().expect("there are some").allocs_total);
    }
    assert_eq!(lines.iter().filter(|line| line.pid != parent && !children.contains(&line.pid)).count(), 0);
}

#[test]
fn nobody_need_read() {
    for background in ["auto", "off"] {
        assert_eq!(play("nobody_reads", &format!("background:{background}")).err, "");
    }
}

#[test]
fn nobody_waits_for_a_reader_who_learns_what_he_missed() {
    let ending = play("reader_sleeps", "");
    let lines = lines(&ending.out);
    let lost: Vec<u64> = intervals(&lines).iter().map(|its| its.lost).collect();
    assert_eq!(lost.first(), Some(&0), "{ending:#?}");
    assert!(lost.last().is_some_and(|&lost| lost > 0), "{ending:#?}");
}

#[test]
fn it_is_silent_unless_asked() {
    for environment in ["", "trace:0", "trace:0,trace_interval:100ms,trace_fd:2", "bypass:0"] {
        assert_eq!(play("silent", environment).err, "", "{environment}");
    }
    for (environment, complaint) in [
        ("trace:3", "option 'trace' has no value '3'"),
        ("trace_interval:1", "option 'trace_interval' has no value '1'"),
        ("trace_interval:99ms", "option 'trace_interval' has no value '99ms'"),
        ("trace_fd:stderr", "option 'trace_fd' has no value 'stderr'"),
    ] {
        assert_eq!(play("silent", environment).err, format!("freestone: FREESTONE: {complaint}; ignored\n"), "{environment}");
    }
}
