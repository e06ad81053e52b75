//! The instruments besides the clock of the whole: times of single calls, what is resident beside what is live, and what the harness itself takes.
//!
//! The subjects are shell scripts, and the system's allocator in a build that nobody has optimised; so nothing here is about how long anything
//! takes.

mod common;
#[path = "common/table.rs"]
mod table;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{folder, harness, stderr, stdout};
use freestone_bench::live::{self, Sheet};
use freestone_bench::workload::{self, Context};
use serde_json::Value;
use table::cells;

/// Counts what a thread allocates: tests run at the same time.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: everything is `System`'s.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // A thread that is ending has no count any more, and nobody asks for it.
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static GLOBAL: Counting = Counting;

/// The line of a subject that has nothing to say.
const LINE: &str = r#"{"version":"9","operations":1,"nanos":1,"checksum":"no","peak_rss_bytes":1,"anonymous_bytes":1,"minor_faults":1,"major_faults":0,"notes":{}}"#;

/// A subject that answers the probe at once, and else does what the script says before it answers.
fn impostor(folder: &Path, subject: &str, first: &str) {
    let script = format!("#!/bin/sh\nline='{LINE}'\n[ $1 = hot-64 ] && echo \"$line\" && exit\n{first}\necho \"$line\"\n");
    let path = folder.join(format!("subject-{subject}"));
    fs::write(&path, script).expect("the folder is writable");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("the file is ours");
}

fn with_system(name: &str) -> PathBuf {
    let folder = folder(name);
    symlink(env!("CARGO_BIN_EXE_subject-system"), folder.join("subject-system")).expect("the folder is writable");
    folder
}

/// Runs one subject once on one workload, and returns the records and what was printed.
fn session(folder: &Path, subject: &str, workload: &str, more: &[&str]) -> (Vec<Value>, String) {
    let (binaries, kept) = (folder.display().to_string(), folder.join("kept.jsonl").display().to_string());
    let mut arguments = vec!["--prebuilt", &binaries, "--json", &kept, "--repetitions", "1", "--seed", "1"];
    arguments.extend(["--subjects", subject, "--workloads", workload]);
    arguments.extend(more);
    let output = harness(&arguments);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = fs::read_to_string(&kept).expect("it was kept");
    (text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect(), stdout(&output))
}

/// What was measured in the only run that counts.
fn measured(records: &[Value]) -> &Value {
    let run = records.iter().find(|record| record["record"] == "run").expect("there was a run");
    &run["outcome"]["measured"]
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("no number: {value}"))
}

#[test]
fn a_process_that_grows_is_seen_to_grow_from_outside() {
    let folder = folder("grows");
    // A shell keeps what is in its variables: 16 MiB, for a while, and as much again.
    let grow = "sleep 0.2; a=$(head -c 16777216 /dev/zero | tr '\\0' x); sleep 0.3; b=$a$a; sleep 0.3";
    impostor(&folder, "system", grow);
    let (records, _) = session(&folder, "system", "batch-100", &[]);
    let resident = measured(&records)["resident"].as_array().expect("there are samples");
    assert!(resident.len() > 3, "{resident:?}");
    assert!(resident.len() <= 40, "{resident:?}");
    let bytes: Vec<u64> = resident.iter().map(|sample| number(&sample["rss_bytes"])).collect();
    assert!(bytes[0] < 8 << 20, "{bytes:?}");
    assert!(*bytes.last().expect("some") > 40 << 20, "{bytes:?}");
    let times: Vec<u64> = resident.iter().map(|sample| number(&sample["ms"])).collect();
    assert!(times.is_sorted(), "{times:?}");
    assert!(*times.last().expect("some") >= 600, "{times:?}");
    assert!(resident.iter().all(|sample| sample.get("live_bytes").is_none()), "a shell does not say what it holds");
}

#[test]
fn a_workload_about_memory_says_what_it_holds_and_what_was_there_before() {
    let folder = with_system("says-live");
    let (records, text) = session(&folder, "system", "burst-idle-1g-small", &["--percent", "20"]);
    let resident = measured(&records)["resident"].as_array().expect("there are samples").clone();
    let live: Vec<Option<u64>> = resident.iter().map(|sample| sample.get("live_bytes").map(number)).collect();
    let first = live.iter().position(Option::is_some).expect("it says so from some time on");
    assert_eq!(live[first], Some(0), "the first of them is the beginning");
    assert!(live[first..].iter().all(Option::is_some), "{live:?}");
    let most = live.iter().flatten().max().expect("some");
    // A fifth of 1 GiB, and the last block on top.
    assert!((100 << 20..(205 << 20) + 1024).contains(most), "{most}");
    let before = number(&resident[first]["rss_bytes"]);
    let peak = resident.iter().map(|sample| number(&sample["rss_bytes"])).max().expect("some");
    assert!(peak - before >= most - most / 50, "nobody holds {most} B in {peak} B, {before} B of which were there before");
    assert!(text.contains("Resident beyond live, seen from outside"), "{text}");
    assert!(text.lines().any(|line| line.starts_with(" beyond live, × time") && line.ends_with("MiB·s")), "{text}");
    // But for the one that names the file, which lies as deep as whoever runs this likes.
    let folder = folder.display().to_string();
    assert!(text.lines().filter(|line| !line.contains(&folder)).all(|line| line.chars().count() <= 130), "{text}");
}

#[test]
fn only_workloads_about_memory_are_told_where_to_say_what_they_hold() {
    let folder = folder("told");
    let tell = r#"line=$(echo "$line" | sed "s/\"no\"/\"told ${BENCH_LIVE:-nothing}\"/")"#;
    impostor(&folder, "system", tell);
    let (records, _) = session(&folder, "system", "batch-100", &[]);
    assert_eq!(measured(&records)["checksum"], "told nothing");
    fs::remove_file(folder.join("kept.jsonl")).expect("it is there");
    let (records, _) = session(&folder, "system", "saw-tooth", &[]);
    let told = measured(&records)["checksum"].as_str().expect("text").to_owned();
    assert!(told.strip_prefix("told ").is_some_and(|number| number.parse::<u32>().is_ok()), "{told}");
}

/// Runs a subject by hand, and returns what it printed.
fn by_hand(workload: &str, live: Option<&str>) -> Value {
    let mut subject = Command::new(env!("CARGO_BIN_EXE_subject-system"));
    subject.args([workload, "1", ""]).env_remove(live::VARIABLE);
    if let Some(number) = live {
        subject.env(live::VARIABLE, number);
    }
    let output = subject.output().expect("the subject was built");
    assert!(output.status.success(), "{}", stderr(&output));
    serde_json::from_str(&stdout(&output)).expect("a line of JSON")
}

#[test]
fn a_subject_by_itself_does_the_same_work_whatever_it_is_told() {
    let sheet = Sheet::new().expect("there is memory");
    let sum = by_hand("saw-tooth", None)["checksum"].clone();
    // No number, none of a file, of one that is no sheet, and of one that is.
    for told in ["", "x", "-1", "999999", "2", &sheet.number()] {
        assert_eq!(by_hand("saw-tooth", Some(told))["checksum"], sum, "{told}");
    }
    let beginning = sheet.beginning().expect("the last one began");
    assert!(beginning.at_ns < live::monotonic_ns());
    assert!(beginning.before_bytes > 0);
    assert!(sheet.live_bytes().is_some(), "what it held at its end stands there");
}

#[test]
fn every_call_is_timed_and_every_time_is_kept() {
    let kinds = [
        ("latency-small", vec![("allocate", 1), ("free", 1)]),
        ("latency-threads", vec![("allocate", 1), ("free", 1)]),
        ("latency-large", vec![("allocate", 1), ("free", 1), ("reallocate", 1), ("touch", 1)]),
        ("latency-open", vec![("request", 1), ("service", 1)]),
    ];
    let all: Vec<&str> = workload::latency::WORKLOADS.iter().map(|its| its.name).collect();
    assert_eq!(kinds.iter().map(|(name, _)| *name).collect::<Vec<_>>(), all);
    for (workload, expected) in kinds {
        let said = by_hand(workload, None);
        let latencies = said["latencies"].as_object().expect("it has latencies");
        let found: Vec<(&str, u64)> = latencies
            .iter()
            .map(|(kind, latency)| (kind.as_str(), number(&latency["count"]) / number(&said["operations"])))
            .collect();
        assert_eq!(found, expected, "{workload}");
        for (kind, latency) in latencies {
            let points: Vec<u64> = latency["points"].as_array().expect("points").iter().map(|point| number(&point[1])).collect();
            assert!(points.is_sorted(), "{workload}, {kind}: {points:?}");
            assert!(points[0] > 0, "{workload}, {kind}: nothing takes no time");
            assert!(points.last().is_some_and(|last| *last <= number(&latency["max_ns"])), "{workload}, {kind}");
        }
        assert!(number(&said["notes"]["clock_ns"]) > 0, "{workload}");
        if workload == "latency-open" {
            let [request, service] = ["request", "service"].map(|kind| number(&latencies[kind]["mean_ns"]));
            assert!(request >= service, "from when it was due is earlier: {request} ns, {service} ns");
        } else {
            let together: u64 = latencies.values().map(|its| number(&its["mean_ns"]) * number(&its["count"])).sum();
            let nanos = number(&said["nanos"]);
            // Means are rounded to the nanosecond, and times in the histogram to a thousandth.
            let rounded = latencies.values().map(|its| number(&its["count"])).sum::<u64>() + nanos / 500;
            assert!(together.abs_diff(nanos) <= rounded, "{workload}: {together} ns and {nanos} ns");
        }
    }
}

/// The blocks, their table, the histograms, and what is noted of them: nothing for any call that is timed.
#[test]
fn recording_a_time_allocates_nothing() {
    let count = |percent| {
        let before = ALLOCATIONS.get();
        let workload = workload::by_name("latency-small").expect("it is one");
        let outcome = (workload.run)(&Context { percent, ..Context::default() });
        (ALLOCATIONS.get() - before, outcome.operations)
    };
    // The first one has the lists of notes made.
    count(1);
    let ((few, few_operations), (many, many_operations)) = (count(1), count(3));
    assert!(many_operations > few_operations);
    let beyond = (many - many_operations).abs_diff(few - few_operations);
    // A list of notes may grow.
    assert!(beyond <= 4, "{few} for {few_operations}, {many} for {many_operations}");
}

/// A session of one row, in which every run noted the same latencies.
fn diary(count: u64, max_ns: [u64; 6]) -> String {
    let machine = r#"{"cpu":"A Fine CPU","cores":2,"is_virtual":false,"memory_bytes":1073741824,"kernel":"Linux 6","huge_pages":"madvise","governor":null,"rustc":"1.95.0","load_average":"0 0 0"}"#;
    let subjects = r#"[{"subject":"system","version":"glibc 2.36"},{"subject":"freestone","version":"0.1.0"}]"#;
    let mut text = format!(
        r#"{{"record":"session","date":"2026-01-01T00:00:00Z","commit":null,"machine":{machine},"seed":7,"repetitions":6,"percent":100,"workloads":["latency-small"],"subjects":{subjects},"left_out":[],"environment":[]}}"#
    ) + "\n";
    for (round, max_ns) in max_ns.into_iter().enumerate() {
        for (subject, factor) in [("system", 2), ("freestone", 1)] {
            let [p50, p99, p999, p9999] = [20, 300, 4_000, 50_000].map(|nanos| nanos * factor);
            let latency = format!(
                r#"{{"count":{count},"mean_ns":30,"max_ns":{},"points":[[500000,{p50}],[990000,{p99}],[999000,{p999}],[999900,{p9999}]]}}"#,
                max_ns * factor
            );
            let faults = 1_000 + 3_000 * (factor - 1);
            let measurement = format!(
                r#"{{"operations":10,"nanos":1000,"checksum":"aa","peak_rss_bytes":1048576,"anonymous_bytes":0,"minor_faults":{faults},"major_faults":0,"notes":{{"clock_ns":21}},"latencies":{{"free":{latency}}}}}"#
            );
            writeln!(
                text,
                r#"{{"record":"run","session":"2026-01-01T00:00:00Z","date":"2026-01-01T00:00:01Z","version":"1","round":{},"subject":"{subject}","workload":"latency-small","outcome":{{"measured":{measurement}}}}}"#,
                round + 1
            )
            .expect("a string takes everything");
        }
    }
    text + r#"{"record":"end","session":"2026-01-01T00:00:00Z","seconds":60,"cores_of_others":0.0,"own_cpu_share":0.034}"# + "\n"
}

fn reported(name: &str, text: &str) -> String {
    let path = folder(name).join("kept.jsonl");
    fs::write(&path, text).expect("the folder is writable");
    let output = harness(&["report", &path.display().to_string()]);
    assert!(output.status.success(), "{}", stderr(&output));
    stdout(&output)
}

#[test]
fn the_tail_is_a_table_and_so_are_the_faults() {
    let text = reported("tails", &diary(20_000, [9_000_000; 6]));
    let title = "Latency of single operations";
    assert_eq!(cells(&text, title, "free, P50"), "40.0 ns ±0% 20.0 ns ±0%");
    assert_eq!(cells(&text, title, "free, P99.9 "), "8.00 µs ±0% 4.00 µs ±0%");
    assert_eq!(cells(&text, title, "free, P99.99"), "100 µs ±0% 50.0 µs ±0%");
    assert_eq!(cells(&text, title, "free, longest"), "18.0 ms ±0% 9.00 ms ±0%");
    assert!(text.contains("one reading of the clock, 21.0 ns"), "{text}");
    assert!(!text.contains("Also noted"), "the clock is noted below its table:\n{text}");
    assert_eq!(cells(&text, "Page faults of the process", "latency-small"), "4,000 ±0% 1,000 ±0%");
    assert!(text.contains("3.4 % of a core went to the harness itself"), "{text}");
    assert!(text.contains("EVERY CALL TIMED"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 130), "{text}");
}

#[test]
fn a_percentile_beyond_which_no_operation_lies_is_not_shown() {
    let text = reported("few", &diary(9_999, [1, 2, 4, 8, 16, 32]));
    let title = "Latency of single operations";
    assert_eq!(cells(&text, title, "free, P99.99"), "– –");
    assert_eq!(cells(&text, title, "free, P99.9 "), "8.00 µs ±0% 4.00 µs ±0%");
    assert!(cells(&text, title, "free, longest").contains('±'), "{text}");
}

#[test]
fn the_harness_says_what_it_takes_for_itself() {
    let folder = folder("own-share");
    impostor(&folder, "system", "sleep 1");
    let (records, _) = session(&folder, "system", "saw-tooth", &[]);
    let end = records.last().expect("it ended");
    let share = end["own_cpu_share"].as_f64().expect("it says its share");
    // Of a core. Not what it is on an idle machine, but nowhere near a whole one, with which a loop would show that never sleeps.
    assert!((0.0..0.5).contains(&share), "{share}");
    assert!(share > 0.0);
}
