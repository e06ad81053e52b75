//! What sessions count besides time: calls into the system, by a tracer that has to agree with `strace` where there is one, and instructions of
//! the timed part alone. Where the machine forbids tracing, or has no valgrind, a session says so and goes on.

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use common::{folder, harness, stderr, stdout};
use serde_json::Value;

/// What the tracer says of a command: how it ended, and its calls; `None` where nobody may trace.
fn counted(command: &[&str]) -> Option<(i64, Value)> {
    let output = harness(&[&["count-calls", "--"], command].concat());
    let text = stdout(&output);
    let word: Value = serde_json::from_str(text.lines().last().expect("the tracer has the last word")).expect("a line of JSON");
    if word["nottraced"].is_string() {
        eprintln!("nobody may trace here: {word}");
        return None;
    }
    let counted = &word["counted"];
    Some((counted["status"].as_i64().expect("how it ended"), counted["calls"].clone()))
}

/// The interpreter itself, not something that starts it.
const PYTHON: &str = "/usr/bin/python3";

/// Three threads with fifty maps and yields each.
const PROGRAM: &str = "
import threading, os, mmap
def work():
    for _ in range(50):
        mmap.mmap(-1, 1 << 20).close()
        os.sched_yield()
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join()
";

#[test]
fn calls_of_all_threads_are_counted_and_strace_agrees() {
    if !Path::new(PYTHON).is_file() {
        eprintln!("there is no {PYTHON}, so nothing was traced");
        return;
    }
    let command = [PYTHON, "-S", "-c", PROGRAM];
    let Some((status, calls)) = counted(&command) else { return };
    assert_eq!(status, 0);
    assert_eq!(calls["sched_yield"], 150);
    let births = calls["clone3"].as_u64().unwrap_or(0) + calls["clone"].as_u64().unwrap_or(0);
    assert_eq!(births, 3, "{calls}");
    assert!(calls["munmap"].as_u64() >= Some(150), "{calls}");

    let list = folder("views-strace").join("list");
    let strace = Command::new("strace").args(["-f", "-c", "-o"]).arg(&list).args(command).status();
    if !strace.is_ok_and(|status| status.success()) {
        eprintln!("there is no strace, or it may not trace, so nobody was compared with");
        return;
    }
    let list = fs::read_to_string(list).expect("strace wrote it");
    for call in ["mmap", "munmap", "mprotect", "brk", "sched_yield", "clone3", "clone"] {
        let line = list.lines().find(|line| line.split_whitespace().last() == Some(call));
        // % time, seconds, usecs/call, calls, and perhaps errors.
        let count = line.map_or(0, |line| line.split_whitespace().nth(3).expect("five columns").parse().expect("a number"));
        let own = calls[call].as_u64().unwrap_or(0);
        // Whether a thread gets an arena of the C library's, or finds one that is free, is chance.
        let slack = if ["mmap", "munmap", "mprotect"].contains(&call) { 12 } else { 0 };
        assert!(own.abs_diff(count) <= slack, "{call}: {own} here, {count} there\n{list}");
    }
}

#[test]
fn processes_that_a_command_starts_live_and_are_not_counted() {
    // A traced call that nobody serves fails: were the child not traced, it could not map anything.
    let script = "i=0; while [ $i -lt 5 ]; do /bin/ls / >/dev/null || exit 7; i=$((i+1)); done";
    let Some((status, with)) = counted(&["/bin/sh", "-c", script]) else { return };
    assert_eq!(status, 0);
    let Some((_, without)) = counted(&["/bin/sh", "-c", ":"]) else { return };
    assert_eq!(with["mmap"], without["mmap"], "{with} {without}");
}

#[test]
fn a_command_that_dies_is_signalled_or_is_not_there_is_said_to_be() {
    let Some((status, _)) = counted(&["/bin/sh", "-c", "kill -SEGV $$"]) else { return };
    assert_eq!(status, 11);
    // A signal that it handles arrives.
    let Some((status, _)) = counted(&["/bin/sh", "-c", "trap 'exit 5' USR1; kill -USR1 $$; exit 6"]) else { return };
    assert_eq!(status, 5 << 8);
    let nowhere = stdout(&harness(&["count-calls", "--", "/nonexistent"]));
    assert!(nowhere.ends_with("{\"nottraced\":\"the command cannot be executed\"}\n"), "{nowhere}");
}

#[test]
fn a_command_that_is_stopped_stays_stopped_until_it_is_let_go_on() {
    if counted(&["/bin/true"]).is_none() {
        return;
    }
    let mut tracer = Command::new(env!("CARGO_BIN_EXE_freestone-bench"));
    tracer.args(["count-calls", "--", "/bin/sh", "-c", "echo $$; kill -STOP $$; echo on"]);
    let mut tracer = tracer.stdout(Stdio::piped()).spawn().expect("the harness was built");
    let mut reader = std::io::BufReader::new(tracer.stdout.take().expect("a pipe"));
    let mut line = String::new();
    std::io::BufRead::read_line(&mut reader, &mut line).expect("it says who it is");
    let process = line.trim().to_owned();
    let state = || {
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        status.lines().find_map(|line| line.strip_prefix("State:\t")).unwrap_or("gone").to_owned()
    };
    // T is stopped, t is stopped by its tracer.
    for _ in 0..1_000 {
        if state().starts_with(['T', 't']) {
            break;
        }
        thread::sleep(Duration::from_millis(5));
    }
    assert!(state().starts_with(['T', 't']), "{}", state());
    let on = Command::new("kill").args(["-CONT", &process]).status().expect("there is kill");
    assert!(on.success());
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut reader, &mut rest).expect("it goes on");
    assert!(rest.starts_with("on\n"), "{rest}");
    assert!(tracer.wait().expect("it ends").success());
}

/// The records of one kind of look, of a session in this folder.
fn records(folder: &Path, view: &str) -> Vec<Value> {
    let kept = fs::read_to_string(folder.join("kept.jsonl")).expect("it was kept");
    let records = kept.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON"));
    records.filter(|record| record["view"] == view).collect()
}

fn session(folder: &Path, more: &[&str]) -> (String, String) {
    let (binaries, kept) = (folder.display().to_string(), folder.join("kept.jsonl").display().to_string());
    let mut arguments = vec!["--prebuilt", &binaries, "--json", &kept, "--percent", "1", "--repetitions", "1", "--seed", "1"];
    arguments.extend(more);
    let output = harness(&arguments);
    assert!(output.status.success(), "{}{}", stdout(&output), stderr(&output));
    (stdout(&output), stderr(&output))
}

fn binaries(name: &str) -> std::path::PathBuf {
    let folder = folder(name);
    symlink(env!("CARGO_BIN_EXE_subject-system"), folder.join("subject-system")).expect("the folder is writable");
    symlink(env!("CARGO_BIN_EXE_subject-freestone"), folder.join("subject-freestone")).expect("the folder is writable");
    folder
}

#[test]
fn a_session_counts_calls_and_instructions_in_rounds_of_their_own() {
    let folder = binaries("views-session");
    let asked = ["--subjects", "system,freestone", "--workloads", "small-program,larson-2", "--calls", "--instructions"];
    let (text, said) = session(&folder, &asked);
    if said.contains("calls into the system are not counted") {
        eprintln!("nobody may trace here");
    } else {
        assert!(text.contains("Calls into the system"), "{text}");
        let calls = records(&folder, "calls");
        assert_eq!(calls.len(), 4);
        assert!(calls.iter().all(|run| run["outcome"]["measured"]["os_calls"]["mmap"].as_u64() > Some(0)), "{calls:?}");
    }
    if said.contains("instructions are not counted") {
        eprintln!("there is no valgrind");
        return;
    }
    assert!(text.contains("Instructions per operation"), "{text}");
    let counted = records(&folder, "instructions");
    // Not of the threads, which wait for each other.
    assert_eq!(counted.len(), 2, "{counted:?}");
    assert!(counted.iter().all(|run| run["workload"] == "small-program"), "{counted:?}");
    // Only the timed part: a process takes some hundred thousand until it gets there.
    for run in &counted {
        let measured = &run["outcome"]["measured"];
        let each = measured["instructions"].as_u64().expect("counted") / measured["operations"].as_u64().expect("some");
        // Freestone checks itself here, at every step.
        let most = if run["subject"] == "system" { 3_000 } else { 60_000 };
        assert!((20..most).contains(&each), "{run}");
    }
}

/// Freestone gives back by the clock: that of the simulated processor goes by how often somebody looks at it. In 400 allocations, whatever is done at
/// another moment is a large part. Its samples, which are drawn by chance, are switched off. Where the subject lies is no matter: its standard library has the
/// words that it was started with in blocks of its own.
#[test]
fn instructions_repeat() {
    let mut counts = Vec::new();
    for place in ["here", "in-a-folder-whose-name-is-of-another-size-class"] {
        let folder = binaries(&format!("views-repeat-{place}"));
        let quiet = "FREESTONE=background:off,sample_interval:0";
        let asked = ["--subjects", "system,freestone", "--workloads", "small-program", "--instructions", "--env", quiet];
        let (_, said) = session(&folder, &asked);
        if said.contains("instructions are not counted") {
            eprintln!("there is no valgrind");
            return;
        }
        let count = |run: &Value| run["outcome"]["measured"]["instructions"].as_u64().expect("counted") as f64;
        let mut records = records(&folder, "instructions");
        records.sort_by_key(|run| run["subject"].to_string());
        counts.push(records.iter().map(count).collect::<Vec<_>>());
    }
    let difference = |subject: usize| (counts[0][subject] / counts[1][subject] - 1.0).abs();
    let (freestone, system) = (0, 1);
    assert!(difference(system) < 0.001, "{counts:?}");
    assert!(difference(freestone) < 0.005, "{counts:?}");
}

/// Where `ld.so` does not preload what makes it repeatable, it goes on with a warning.
#[test]
fn a_subject_on_a_simulated_processor_refuses_a_clock_that_goes_by_itself() {
    let mut subject = Command::new(env!("CARGO_BIN_EXE_subject-freestone"));
    let output = subject.args(["small-program", "1", "", "simulated=yes"]).output().expect("the subject was built");
    assert!(!output.status.success() && output.stdout.is_empty());
    let sentence = "its instructions would depend on the clock: the library that makes time repeatable was not preloaded\n";
    assert_eq!(stderr(&output), sentence);
}

#[test]
fn without_valgrind_the_view_is_left_out_with_a_sentence() {
    let folder = binaries("views-no-valgrind");
    let cargo = Command::new("sh").args(["-c", "command -v cargo; command -v rustc"]).output().expect("there is a shell");
    let paths = String::from_utf8(cargo.stdout).expect("text");
    let empty = folder.join("path");
    fs::create_dir(&empty).expect("the folder is writable");
    for program in paths.lines() {
        symlink(program, empty.join(Path::new(program).file_name().expect("a name"))).expect("the folder is writable");
    }
    let mut harness = Command::new(env!("CARGO_BIN_EXE_freestone-bench"));
    harness.args([
        "--subjects",
        "freestone",
        "--workloads",
        "small-program",
        "--instructions",
        "--percent",
        "1",
        "--repetitions",
        "1",
    ]);
    harness.arg("--prebuilt").arg(&folder).arg("--json").arg(folder.join("kept.jsonl")).env("PATH", &empty);
    let output = harness.output().expect("the harness was built");
    assert!(output.status.success(), "{}", stderr(&output));
    let said = stderr(&output);
    assert!(said.contains("instructions are not counted: there is no valgrind (a package of every distribution)\n"), "{said}");
    assert!(records(&folder, "instructions").is_empty());
}

#[test]
fn a_binary_whose_timed_part_cannot_be_found_is_said_to_be() {
    let folder = folder("views-impostor");
    let line = r#"{"version":"9","operations":1,"nanos":1,"checksum":"no","peak_rss_bytes":1,"anonymous_bytes":1,"minor_faults":1,"major_faults":0,"notes":{}}"#;
    let path = folder.join("subject-freestone");
    fs::write(&path, format!("#!/bin/sh\necho '{line}'\n")).expect("the folder is writable");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("the file is ours");
    let (binaries, kept) = (folder.display().to_string(), folder.join("kept.jsonl").display().to_string());
    let asked = ["--subjects", "freestone", "--workloads", "small-program", "--repetitions", "1", "--instructions"];
    let output = harness(&[&["--prebuilt", &*binaries, "--json", &*kept], &asked[..]].concat());
    if stderr(&output).contains("there is no valgrind") {
        return;
    }
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("its timed part was not found: it is an older binary, or was stripped"),
        "{}",
        stderr(&output)
    );
}
