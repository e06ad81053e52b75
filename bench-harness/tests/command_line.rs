//! The program as somebody meets it: what it says when asked for what there is not, what it prints of a kept file, and that a subject
//! that crashes, never ends or computes nonsense is shown and does not stop the others.

mod common;
#[path = "common/table.rs"]
mod table;

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::{folder, harness, stderr, stdout};
use table::cells;

fn file(name: &str, text: &str) -> String {
    let path = folder(name).join("kept.jsonl");
    fs::write(&path, text).expect("the folder is writable");
    path.display().to_string()
}

#[test]
fn a_wrong_command_line_gets_one_sentence() {
    let cases: &[(&[&str], &str)] = &[
        (&["--workloads", "foo"], "freestone-bench: there is no workload 'foo'; --list names them"),
        (&["--workloads", "hot-64,"], "freestone-bench: there is no workload ''; --list names them"),
        (&["--subjects", "malloc"], "freestone-bench: there is no subject 'malloc'; --list names them"),
        (&["--fast"], "freestone-bench: unexpected argument '--fast' found; --help shows what there is"),
        (
            &["--repetitions", "0"],
            "freestone-bench: invalid value '0' for '--repetitions <N>': 0 is not in 1..=1000; --help shows what there is",
        ),
        (&["report"], "freestone-bench: the following required arguments were not provided: <FILE>; --help shows what there is"),
        (
            &["--env", "FREESTONE"],
            "freestone-bench: invalid value 'FREESTONE' for '--env <NAME=VALUE>': it is not of the form NAME=VALUE; --help shows what there is",
        ),
    ];
    for (arguments, sentence) in cases {
        let output = harness(arguments);
        assert_eq!(stderr(&output), format!("{sentence}\n"));
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn help_and_the_list_are_no_errors() {
    let help = harness(&["--help"]);
    assert!(help.status.success());
    assert!(stdout(&help).contains("--repetitions"));
    let list = stdout(&harness(&["--list"]));
    for workload in freestone_bench::workload::all() {
        assert!(list.lines().any(|line| line.contains(workload.name) && line.contains(workload.about)), "{}", workload.name);
    }
}

#[test]
fn a_file_that_is_no_record_gets_one_sentence() {
    let cases = [
        (file("corrupt", "{\"record\":\"session\"}\n"), "line 1 of ", " is not a record of a session: missing field `date`"),
        (file("prose", "Dear diary,\n"), "line 1 of ", " is not a record of a session: expected value"),
        (
            file("beheaded", "{\"record\":\"end\",\"session\":\"\",\"seconds\":1,\"cores_of_others\":null}\n"),
            "line 1 of ",
            " comes before a session begins",
        ),
        (file("empty", ""), "", " is empty"),
        ("nowhere.jsonl".to_owned(), "cannot read ", ": No such file or directory"),
    ];
    for (path, before, after) in cases {
        let output = harness(&["report", &path]);
        let said = stderr(&output);
        assert!(said.starts_with(&format!("freestone-bench: {before}{path}{after}")), "{said}");
        assert_eq!(said.lines().count(), 1);
        assert_eq!(output.status.code(), Some(2));
    }
}

/// A session of two subjects and two workloads, as it is kept.
struct Diary(String);

impl Diary {
    fn new(repetitions: u64) -> Self {
        let machine = r#"{"cpu":"A Fine CPU","cores":2,"is_virtual":false,"memory_bytes":1073741824,"kernel":"Linux 6","huge_pages":"madvise","governor":null,"rustc":"1.95.0","load_average":"0 0 0"}"#;
        let subjects = r#"[{"subject":"system","version":"glibc 2.36"},{"subject":"freestone","version":"0.1.0"}]"#;
        Self(
            format!(
                r#"{{"record":"session","date":"2026-01-01T00:00:00Z","commit":null,"machine":{machine},"seed":7,"repetitions":{repetitions},"percent":100,"workloads":["real-json","hot-64"],"subjects":{subjects},"left_out":[],"environment":[]}}"#
            ) + "\n",
        )
    }

    fn line(&mut self, round: usize, subject: &str, workload: &str, outcome: &str) {
        let begin = r#"{"record":"run","session":"2026-01-01T00:00:00Z","date":"2026-01-01T00:00:01Z","version":"1""#;
        let run = format!(r#""round":{round},"subject":"{subject}","workload":"{workload}","outcome":{outcome}}}"#);
        writeln!(self.0, "{begin},{run}").expect("a string takes everything");
    }

    /// Ten operations in so many nanoseconds, and so many MiB.
    fn measured(&mut self, round: usize, subject: &str, workload: &str, nanos: u64, mib: u64) {
        self.noted(round, subject, workload, nanos, mib, "");
    }

    /// The same, with notes.
    fn noted(&mut self, round: usize, subject: &str, workload: &str, nanos: u64, mib: u64, notes: &str) {
        let bytes = mib << 20;
        let outcome = format!(
            r#"{{"measured":{{"operations":10,"nanos":{nanos},"checksum":"00000000000000aa","peak_rss_bytes":{bytes},"anonymous_bytes":0,"minor_faults":0,"major_faults":0,"notes":{{{notes}}}}}}}"#
        );
        self.line(round, subject, workload, &outcome);
    }

    fn end(mut self) -> String {
        self.0 += r#"{"record":"end","session":"2026-01-01T00:00:00Z","seconds":60,"cores_of_others":0.0}"#;
        self.0 + "\n"
    }
}

#[test]
fn the_table_says_who_wins_who_loses_and_where_there_is_no_difference() {
    let mut diary = Diary::new(6);
    for (round, noise) in [0, 10, 20, 30, 40, 50].into_iter().enumerate() {
        // Twice as fast, whatever the noise; half the memory.
        diary.measured(round + 1, "system", "real-json", 2_000 + 2 * noise, 20);
        diary.measured(round + 1, "freestone", "real-json", 1_000 + noise, 10);
        // Now this one is faster, now that one; more memory.
        diary.measured(round + 1, "system", "hot-64", 1_000, 10);
        diary.measured(round + 1, "freestone", "hot-64", 975 + noise, 20);
    }
    let output = harness(&["report", &file("verdicts", &diary.end())]);
    assert_eq!(stderr(&output), "");
    assert!(output.status.success());
    let text = stdout(&output);
    let (time, memory) = ("Time per operation", "Peak memory");
    assert_eq!(cells(&text, time, "real-json"), "205 ns ±2% 102 ns ±2% 2.00 (2.00–2.00) 0.002 faster than system");
    assert_eq!(cells(&text, time, "hot-64"), "100 ns ±0% 100 ns ±2% 1.00 (0.98–1.02) 0.844 ~ system");
    assert_eq!(cells(&text, memory, "real-json"), "20.0 MiB ±0% 10.0 MiB ±0% 2.00 (2.00–2.00) 0.002 smaller than system");
    assert_eq!(cells(&text, memory, "hot-64"), "10.0 MiB ±0% 20.0 MiB ±0% 0.50 (0.50–0.50) 0.031 larger than system");
    assert!(text.contains("time   faster in 1, slower in 0, no difference in 1"), "{text}");
    assert!(text.contains("memory smaller in 1, larger in 1, no difference in 0"), "{text}");
    assert!(!text.contains('\u{1b}'), "no colours but on a terminal");
    assert!(text.lines().all(|line| line.chars().count() <= 130), "{text}");
}

#[test]
fn what_was_resident_second_by_second_is_a_table_of_its_own() {
    let mut diary = Diary::new(3);
    for (round, mib) in [4, 6, 5].into_iter().enumerate() {
        for (subject, factor) in [("system", 10), ("freestone", 1)] {
            let bytes = |factor| (mib << 20) * factor;
            let series: Vec<String> =
                (0..16).map(|second| format!(r#""rss_{second:02}_s":{}"#, bytes(factor * (16 - second)))).collect();
            let beside = format!(
                r#""before_bytes":{},"live_bytes":{},"needed_bytes":{},"faults":{}"#,
                bytes(1),
                bytes(2),
                bytes(3),
                mib * 1_000
            );
            diary.noted(round + 1, subject, "hot-64", 1_000, 10, &format!("{},{beside}", series.join(",")));
        }
    }
    let text = diary.end().replace("hot-64", "burst-idle-64m-small");
    let text = stdout(&harness(&["report", &file("series", &text)]));
    let title = "Resident over time, burst-idle-64m-small";
    // Of 0, 1, 2, 4, 6, 8, 10, 12 and 15 s, medians.
    assert_eq!(cells(&text, title, "freestone"), "5.0 15.0 80.0 75.0 70.0 60.0 50.0 40.0 30.0 20.0 5.0");
    assert_eq!(cells(&text, title, "system"), "5.0 15.0 800.0 750.0 700.0 600.0 500.0 400.0 300.0 200.0 50.0");
    assert!(text.contains("10.0 MiB stay live"), "{text}");
    assert_eq!(cells(&text, "Also noted, burst-idle-64m-small", "page faults"), "5,000 5,000");
    assert!(text.contains("MEMORY OVER TIME"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 130), "{text}");
}

#[test]
fn two_runs_claim_nothing() {
    let mut diary = Diary::new(2);
    for round in 1..=2 {
        diary.measured(round, "system", "hot-64", 2_000, 10);
        diary.measured(round, "freestone", "hot-64", 1_000, 10);
    }
    let text = stdout(&harness(&["report", &file("two-runs", &diary.end())]));
    assert_eq!(cells(&text, "Time per operation", "hot-64"), "200 ns 100 ns 2.00 ? system");
    assert!(text.contains("Fewer than 6 runs say nothing"), "{text}");
}

#[test]
fn a_table_is_markdown_when_asked_for() {
    let mut diary = Diary::new(1);
    diary.measured(1, "system", "hot-64", 2_000, 10);
    diary.measured(1, "freestone", "hot-64", 1_000, 10);
    let text = stdout(&harness(&["report", &file("markdown", &diary.end()), "--markdown"]));
    assert!(text.lines().any(|line| line.starts_with("| hot-64 ")), "{text}");
}

#[test]
fn failures_different_results_and_a_session_cut_short_are_said_aloud() {
    let mut diary = Diary::new(1);
    diary.measured(1, "system", "real-json", 2_000, 10);
    diary.line(1, "freestone", "real-json", r#"{"failed":"signal: 11 (SIGSEGV)"}"#);
    diary.measured(1, "freestone", "hot-64", 1_000, 10);
    diary.measured(1, "system", "hot-64", 1_000, 10);
    let text = diary.0.replacen("00000000000000aa", "00000000000000bb", 3).replacen("00000000000000bb", "00000000000000aa", 2);
    let output = harness(&["report", &file("failures", &text)]);
    assert_eq!(output.status.code(), Some(3));
    let said = stderr(&output);
    assert!(said.contains("ERROR: freestone failed on real-json in round 1: signal: 11 (SIGSEGV)\n"), "{said}");
    let different =
        "hot-64 computed different results, so somebody breaks memory: 00000000000000aa on freestone; 00000000000000bb on system";
    assert!(said.contains(different), "{said}");
    let text = stdout(&output);
    assert_eq!(cells(&text, "Time per operation", "real-json"), "200 ns failed – – not comparable");
    assert!(text.contains("cut short"), "{text}");
}

/// Binaries of subjects that cargo built for this test, without optimisation to speak of.
fn binaries(name: &str) -> PathBuf {
    let folder = folder(name);
    symlink(env!("CARGO_BIN_EXE_subject-system"), folder.join("subject-system")).expect("the folder is writable");
    symlink(env!("CARGO_BIN_EXE_subject-freestone"), folder.join("subject-freestone")).expect("the folder is writable");
    folder
}

/// A subject that answers the probe (`hot-64`, 1 %) well and everything else as `otherwise` says.
fn impostor(folder: &Path, subject: &str, otherwise: &str) {
    let line = r#"{"version":"9","operations":1,"nanos":1,"checksum":"no","peak_rss_bytes":1,"anonymous_bytes":1,"minor_faults":1,"major_faults":0,"notes":{}}"#;
    let script = format!("#!/bin/sh\nline='{line}'\n[ $1 = hot-64 ] && echo \"$line\" && exit\n{otherwise}\n");
    let path = folder.join(format!("subject-{subject}"));
    fs::write(&path, script).expect("the folder is writable");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("the file is ours");
}

fn session(folder: &Path, more: &[&str]) -> Output {
    let (binaries, kept) = (folder.display().to_string(), folder.join("kept.jsonl").display().to_string());
    let mut arguments = vec!["--prebuilt", &binaries, "--json", &kept, "--percent", "1", "--repetitions", "2", "--seed", "1"];
    arguments.extend(more);
    harness(&arguments)
}

#[test]
fn a_session_measures_keeps_and_compares() {
    let folder = binaries("session");
    let output = session(&folder, &["--subjects", "system,freestone", "--workloads", "batch-100,small-*"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(text.contains("2 workloads × 2 subjects × 2 runs"), "{text}");
    assert!(text.contains("--seed 1"), "{text}");
    assert!(cells(&text, "Time per operation", "batch-100").ends_with("? system"), "{text}");

    let kept = fs::read_to_string(folder.join("kept.jsonl")).expect("it was kept");
    // The first subject runs twice.
    assert_eq!(kept.lines().count(), 1 + 12 + 1);
    let again = harness(&["report", &folder.join("kept.jsonl").display().to_string()]);
    assert!(text.starts_with(&stdout(&again)), "a report is what was printed:\n{}", stdout(&again));
}

#[test]
fn freestone_under_another_option_is_a_column_but_no_other_allocator() {
    let folder = folder("variants");
    // Says by its speed which option it got.
    let line = r#"{"version":"9","operations":1,"nanos":NANOS,"checksum":"no","peak_rss_bytes":1048576,"anonymous_bytes":1,"minor_faults":1,"major_faults":0,"notes":{}}"#;
    impostor(&folder, "system", &format!("echo '{}'", line.replace("NANOS", "9")));
    let [plain, eager] = ["5", "3"].map(|nanos| line.replace("NANOS", nanos));
    impostor(&folder, "freestone", &format!("[ \"$FREESTONE\" = retain:off ] && echo '{eager}' || echo '{plain}'"));
    let output = session(&folder, &["--subjects", "system,freestone-eager,freestone", "--workloads", "batch-100"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    assert_eq!(cells(&text, "Time per operation", "batch-100"), "9.00 ns 3.00 ns 5.00 ns 0.0% 1.80 ? system");
    assert!(text.contains("freestone-eager 9 with FREESTONE=retain:off"), "{text}");
    let alone = session(&folder, &["--subjects", "freestone-eager,freestone", "--workloads", "batch-100"]);
    assert!(!stdout(&alone).contains("best other"), "{}", stdout(&alone));
}

#[test]
fn the_same_seed_runs_in_the_same_order() {
    let order = |name: &str| {
        let folder = binaries(name);
        session(&folder, &["--subjects", "system,freestone", "--workloads", "batch-100,runtime-64,small-program"]);
        let kept = fs::read_to_string(folder.join("kept.jsonl")).expect("it was kept");
        let runs = kept.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        runs.map(|run| format!("{} {} {}", run["round"], run["workload"], run["subject"])).collect::<Vec<_>>()
    };
    assert_eq!(order("seed-a"), order("seed-b"));
}

#[test]
fn a_subject_that_crashes_is_shown_and_the_others_go_on() {
    let folder = binaries("crash");
    impostor(&folder, "jemalloc", "kill -SEGV $$");
    let output = session(&folder, &["--subjects", "system,jemalloc,freestone", "--workloads", "batch-100"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).contains("jemalloc failed on batch-100 in round 2: signal: 11 (SIGSEGV)"), "{}", stderr(&output));
    let text = stdout(&output);
    let cells = cells(&text, "Time per operation", "batch-100");
    assert!(cells.contains(" failed ") && cells.ends_with("? system"), "{text}");
}

#[test]
fn a_subject_that_never_ends_is_given_up_once() {
    let folder = binaries("hang");
    impostor(&folder, "jemalloc", "exec sleep 1000");
    let output = session(&folder, &["--subjects", "jemalloc,freestone", "--workloads", "batch-100", "--timeout", "1"]);
    assert_eq!(output.status.code(), Some(3));
    let said = stderr(&output);
    assert_eq!(said.matches("ERROR: jemalloc failed on batch-100").count(), 1, "{said}");
    assert!(said.contains("took more than 1 s"), "{said}");
}

#[test]
fn a_subject_that_computes_something_else_is_an_error() {
    let folder = binaries("nonsense");
    impostor(&folder, "jemalloc", "echo \"$line\"");
    let output = session(&folder, &["--subjects", "system,jemalloc,freestone", "--workloads", "batch-100"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).contains("ERROR: batch-100 computed different results"), "{}", stderr(&output));
}

#[test]
fn a_subject_that_does_not_run_is_left_out_and_said_to_be() {
    let folder = binaries("unproved");
    fs::write(folder.join("subject-jemalloc"), "no program").expect("the folder is writable");
    let output = session(&folder, &["--subjects", "system,jemalloc,freestone", "--workloads", "batch-100"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).contains("jemalloc is left out: cannot be started"), "{}", stderr(&output));
    assert!(stdout(&output).contains("Left out"), "{}", stdout(&output));
}

#[test]
fn what_steers_an_allocator_reaches_a_subject_only_when_asked_for() {
    let folder = binaries("environment");
    impostor(&folder, "jemalloc", "echo \"[$FREESTONE][$MALLOC_ARENA_MAX]\" >&2; exit 1");
    let (binaries, kept) = (folder.display().to_string(), folder.join("kept.jsonl").display().to_string());
    let output = Command::new(env!("CARGO_BIN_EXE_freestone-bench"))
        .args(["--prebuilt", &binaries, "--json", &kept, "--percent", "1", "--repetitions", "1"])
        .args(["--subjects", "jemalloc", "--workloads", "batch-100", "--env", "MALLOC_ARENA_MAX=1"])
        .env("FREESTONE", "check:exchange")
        .output()
        .expect("the harness was built");
    assert!(stderr(&output).contains("[][1]"), "{}", stderr(&output));
}
