//! How a session is held and what it claims: noise is measured and nobody wins by less, what was measured survives Ctrl-C, a full disk and the
//! end of the harness, and a session that was cut short goes on as it began.

mod common;

use std::ffi::CString;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use common::{folder, harness, stderr, stdout};

/// A row, and its nanoseconds in a round, by subject.
type Row<'a> = (&'a str, &'a dyn Fn(u64) -> [Option<u64>; 4]);

/// A file of a session on system, which runs twice, jemalloc and freestone: of each workload, the nanoseconds by subject and round.
fn kept(name: &str, rounds: u64, rows: &[Row<'_>]) -> String {
    const SUBJECTS: [&str; 4] = ["system", "system again", "jemalloc", "freestone"];
    let machine = r#"{"cpu":"a CPU","cores":2,"is_virtual":false,"memory_bytes":8589934592,"kernel":"Linux 6","huge_pages":"never","governor":null,"rustc":"1.95.0","load_average":"0 0 0"}"#;
    let workloads: Vec<String> = rows.iter().map(|(workload, _)| format!("{workload:?}")).collect();
    let subjects = SUBJECTS.map(|subject| format!(r#"{{"subject":"{subject}","version":"1"}}"#));
    let (workloads, subjects) = (workloads.join(","), subjects.join(","));
    let mut text = format!(
        r#"{{"record":"session","date":"2026-01-01T00:00:00Z","commit":"abc","machine":{machine},"seed":1,"repetitions":{rounds},"percent":100,"workloads":[{workloads}],"subjects":[{subjects}],"left_out":[],"environment":[]}}"#
    );
    for (workload, nanos) in rows {
        for round in 1..=rounds {
            for (subject, nanos) in SUBJECTS.iter().zip(nanos(round)) {
                let outcome = match nanos {
                    Some(nanos) => format!(
                        r#"{{"measured":{{"operations":10,"nanos":{nanos},"checksum":"a","peak_rss_bytes":1048576,"minor_faults":0,"major_faults":0,"notes":{{}}}}}}"#
                    ),
                    None => r#"{"failed":"signal: 11 (SIGSEGV)"}"#.to_owned(),
                };
                let _ = write!(
                    text,
                    "\n{}",
                    format_args!(
                        r#"{{"record":"run","session":"2026-01-01T00:00:00Z","date":"2026-01-01T00:00:01Z","round":{round},"subject":"{subject}","version":"1","workload":"{workload}","outcome":{outcome}}}"#
                    )
                );
            }
        }
    }
    text +=
        "\n{\"record\":\"end\",\"session\":\"2026-01-01T00:00:00Z\",\"seconds\":60,\"cores_of_others\":0.0,\"stolen\":0.002}\n";
    let path = folder(name).join("kept.jsonl");
    fs::write(&path, text).expect("the folder is writable");
    path.display().to_string()
}

/// What no run is like another by.
fn noise(round: u64) -> u64 {
    round * 7 % 11
}

fn line<'a>(text: &'a str, beginning: &str) -> &'a str {
    let found = text.lines().find(|line| line.trim_start().starts_with(beginning));
    found.unwrap_or_else(|| panic!("no line '{beginning}' in\n{text}"))
}

fn words(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn nobody_wins_by_less_than_the_machine_differs_from_itself() {
    let clear = |round| [1_000, 1_001, 3_000, 500].map(|level| Some(level * 10 + noise(round)));
    // 3 % faster than the others; but system is 5 % faster than itself.
    let noisy = |round| [10_000, 9_500, 12_000, 9_700].map(|level| Some(level + noise(round)));
    let file = kept("noisy", 10, &[("real-btree", &clear), ("cold-growth", &noisy)]);
    let output = harness(&["report", &file]);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(words(line(&text, "real-btree")).contains("0.1% 2.00 (2.00–2.00) <0.001 faster than system"), "{text}");
    assert!(words(line(&text, "cold-growth")).contains("5.0% ! 1.03 (1.03–1.03) <0.001 ? noisy, system"), "{text}");
    assert!(text.contains("time   faster in 1, slower in 0, no difference in 0, too noisy to say in 1"), "{text}");
    assert!(text.contains("A/A is system against itself"), "{text}");
    assert!(text.contains("at most 5.0 % (cold-growth); looks like a difference in 1 of 2 rows"), "{text}");
    // One row of two may be chance.
    assert!(!text.contains("Warning"), "{text}");
    assert!(!text.contains("system again "), "it has no column of its own:\n{text}");
    assert!(text.contains("2 workloads × 3 subjects × 10 runs, system twice"), "{text}");
}

#[test]
fn a_machine_that_is_noisy_is_said_to_be() {
    let noisy = |round| [10_000, 9_500, 12_000, 9_700].map(|level| Some(level + noise(round)));
    let file = kept("warned", 10, &[("real-btree", &noisy), ("cold-growth", &noisy)]);
    let text = stdout(&harness(&["report", &file]));
    assert!(text.contains("system differs from itself in 2 of 2 rows, so the machine was noisy"), "{text}");

    let wild = |round| [10_000; 4].map(|level| Some(level + noise(round) * 1_000));
    let file = kept("wild", 10, &[("cold-growth", &wild)]);
    let text = stdout(&harness(&["report", &file]));
    assert!(text.contains("times are uncertain by ±"), "{text}");

    let robbed = fs::read_to_string(&file).expect("it was written").replace(r#""stolen":0.002"#, r#""stolen":0.125"#);
    fs::write(&file, robbed).expect("the file is ours");
    let text = stdout(&harness(&["report", &file]));
    assert!(text.contains("the host took 12.5 % of the processors' time for others"), "{text}");
}

#[test]
fn chance_is_no_winner_even_where_every_round_says_so() {
    // Freestone is ahead by 2 % in each round, but what drifts from round to round is twenty times that.
    let drifting = |round| [1_000, 1_000, 3_000, 980].map(|level| Some(level * (10 + round)));
    let file = kept("drift", 10, &[("cold-growth", &drifting)]);
    let text = stdout(&harness(&["report", &file]));
    assert!(words(line(&text, "cold-growth")).ends_with("~ system"), "{text}");
    // But where the runs of a round were side by side, the drift is the same for both.
    let file = kept("drift-beside", 10, &[("hot-64", &drifting)]);
    let text = stdout(&harness(&["report", &file]));
    assert!(words(line(&text, "hot-64")).ends_with("0.002 faster than system"), "{text}");
    assert!(text.contains("hot-64\nran side by side"), "{text}");
}

#[test]
fn means_are_over_the_rows_that_everybody_ran() {
    let all = |round| [10_000, 10_000, 20_000, 5_000].map(|level| Some(level + noise(round)));
    let not_jemalloc = |round| [Some(10_000 + noise(round)), Some(10_000), None, Some(40_000)];
    let file = kept("means", 10, &[("cold-growth", &all), ("random-1m", &not_jemalloc)]);
    let text = stdout(&harness(&["report", &file]));
    let mean = words(line(&text, "geometric mean"));
    assert!(mean.starts_with("geometric mean, 1 of 2 rows 2.00 × 4.00 × 1.00 ×"), "{mean}");
    assert!(mean.contains("2.00 (2.00–2.00)"), "{mean}");
}

#[test]
fn what_was_counted_with_a_heavy_hand_is_not_taken_for_time() {
    let quick = |round| [10_000, 10_000, 20_000, 5_000].map(|level| Some(level + noise(round)));
    let file = kept("views", 10, &[("cold-growth", &quick)]);
    let text = fs::read_to_string(&file).expect("it was written");
    let before = stdout(&harness(&["report", &file]));
    let run = text.lines().find(|line| line.contains(r#""subject":"freestone","version":"1","workload""#)).expect("it ran");
    let counted = run.replace(r#""workload""#, r#""view":"calls","workload""#).replace("500", "500000000");
    assert_ne!(run, counted);
    fs::write(&file, text.replace("{\"record\":\"end\"", &format!("{counted}\n{{\"record\":\"end\""))).expect("the file is ours");
    let after = stdout(&harness(&["report", &file]));
    for row in ["cold-growth", "time", "memory"] {
        assert_eq!(line(&after, row), line(&before, row));
    }
    assert!(after.contains("Calls into the system"), "it has a table of its own:\n{after}");
}

/// A subject that is a script, which `otherwise` says after the probe (`hot-64`) has been answered.
fn impostor(folder: &Path, subject: &str, otherwise: &str) {
    let line = r#"{"version":"9","operations":1,"nanos":1000,"checksum":"a","peak_rss_bytes":1048576,"anonymous_bytes":1,"minor_faults":1,"major_faults":0,"notes":{}}"#;
    let script = format!("#!/bin/sh\nline='{line}'\n[ $1 = hot-64 ] && echo \"$line\" && exit\n{otherwise}\necho \"$line\"\n");
    let path = folder.join(format!("subject-{subject}"));
    fs::write(&path, script).expect("the folder is writable");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("the file is ours");
}

/// A folder with two subjects of which nothing is real.
fn impostors(name: &str, system: &str) -> PathBuf {
    let folder = folder(name);
    impostor(&folder, "system", system);
    impostor(&folder, "freestone", "");
    folder
}

/// Three rounds of two subjects on two workloads, the first of them twice.
fn session(folder: &Path, json: &Path) -> Command {
    session_of(folder, json, ["batch-10k,small-program", "3"])
}

fn session_of(folder: &Path, json: &Path, [workloads, repetitions]: [&str; 2]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_freestone-bench"));
    command.env_remove("LD_PRELOAD").arg("--prebuilt").arg(folder).arg("--json").arg(json);
    command.args(["--subjects", "system,freestone", "--workloads", workloads, "--repetitions", repetitions, "--seed", "5"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn go_on(folder: &Path, json: &Path, more: &[&str]) -> Output {
    let mut arguments = vec!["--resume", json.to_str().expect("text"), "--prebuilt", folder.to_str().expect("text")];
    arguments.extend(more);
    harness(&arguments)
}

/// Who ran what when, of a file of records.
fn order(json: &Path) -> Vec<String> {
    let text = fs::read_to_string(json).expect("it was kept");
    let records = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let runs = records.filter(|record| record["record"] == "run");
    runs.map(|run| {
        assert!(run["outcome"]["measured"].is_object(), "{run}");
        format!("{} {} {}", run["round"], run["workload"], run["subject"])
    })
    .collect()
}

#[test]
fn the_first_subject_runs_twice_in_each_round_and_the_harness_says_what_it_took_itself() {
    let folder = impostors("twice", "");
    let json = folder.join("kept.jsonl");
    let output = session(&folder, &json).output().expect("the harness was built");
    assert!(output.status.success(), "{}", stderr(&output));
    let order = order(&json);
    assert_eq!(order.len(), 3 * 2 * 3);
    assert_eq!(order.iter().filter(|run| run.ends_with("\"system again\"")).count(), 6);
    let text = fs::read_to_string(&json).expect("it was kept");
    let first: serde_json::Value = serde_json::from_str(text.lines().next().expect("a session")).expect("a record");
    assert!(first["machine"]["page_bytes"].as_u64() >= Some(4096), "{first}");
    assert!(first["machine"]["randomizes"].is_boolean(), "{first}");
    assert!(first["flags"][0].as_str().expect("flags").starts_with("prebuilt="), "{first}");
    let end: serde_json::Value = serde_json::from_str(text.lines().last().expect("an end")).expect("a record");
    assert_eq!(end["record"], "end");
    assert!(end["own_cpu_share"].as_f64().expect("a share") >= 0.0, "{end}");
    assert!(stderr(&output).contains("round 1 of 3 took"), "{}", stderr(&output));
    assert!(stderr(&output).contains(" left\n"), "{}", stderr(&output));
}

#[test]
fn ctrl_c_keeps_what_was_measured_and_the_session_goes_on_in_the_same_order() {
    let whole = impostors("whole", "");
    let whole_json = whole.join("kept.jsonl");
    assert!(session(&whole, &whole_json).status().expect("the harness was built").success());

    // The fifth run of system never ends.
    let sleeper = "echo run >> $0.runs\nif [ $(wc -l < $0.runs) -eq 5 ]; then touch $0.sleeps; exec sleep 1000; fi";
    let folder = impostors("interrupted", sleeper);
    let json = folder.join("kept.jsonl");
    let mut harness = session(&folder, &json).spawn().expect("the harness was built");
    while !folder.join("subject-system.sleeps").exists() {
        assert_eq!(harness.try_wait().expect("it is a child"), None, "it ended, and nobody was asleep");
        thread::sleep(Duration::from_millis(5));
    }
    // SAFETY: no memory is involved, and nobody has waited for this child.
    unsafe { libc::kill(harness.id() as libc::pid_t, libc::SIGINT) };
    let output = harness.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(text.contains("cut short: some runs are missing"), "{text}");
    assert!(text.contains("--resume"), "{text}");
    let begun = order(&json);
    assert!(begun.len() >= 4, "{begun:?}");
    assert_eq!(begun, order(&whole_json)[..begun.len()]);

    // And the machine goes down in the middle of a line.
    let kept = fs::read_to_string(&json).expect("it was kept");
    fs::write(&json, &kept[..kept.len() - 30]).expect("the file is ours");
    let output = go_on(&folder, &json, &[]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("kept.jsonl was cut off, so that run is done again"), "{}", stderr(&output));
    assert_eq!(order(&json), order(&whole_json));
    assert!(!stdout(&output).contains("cut short"), "{}", stdout(&output));

    let output = go_on(&folder, &json, &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("ran to its end, so there is nothing to go on with"), "{}", stderr(&output));
}

#[test]
fn subjects_run_side_by_side_where_that_is_the_same_work() {
    // Each run says how many have begun half a second after it has itself, and whether it was told to share a processor.
    let look = r#"echo run >> $(dirname $0)/$1.begun; sleep 0.5; begun=$(wc -l < $(dirname $0)/$1.begun)
shared=$(echo "$*" | grep -c ' processor=[0-9]')
line=$(echo "$line" | sed "s/\"notes\":{}/\"notes\":{\"begun\":$begun,\"shared\":$shared}/")"#;
    let folder = folder("beside");
    impostor(&folder, "system", look);
    impostor(&folder, "freestone", look);
    let json = folder.join("kept.jsonl");
    let output = session_of(&folder, &json, ["batch-100,batch-10k", "1"]).output().expect("the harness was built");
    assert!(output.status.success(), "{}", stderr(&output));
    let text = fs::read_to_string(&json).expect("it was kept");
    let runs = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
    let runs: Vec<_> = runs.filter(|record| record["record"] == "run").collect();
    let noted = |workload: &str, name: &str| -> Vec<u64> {
        let its = runs.iter().filter(|run| run["workload"] == workload);
        its.map(|run| run["outcome"]["measured"]["notes"][name].as_u64().expect("a number")).collect()
    };
    assert_eq!((noted("batch-100", "begun"), noted("batch-100", "shared")), (vec![3; 3], vec![1; 3]));
    assert_eq!((noted("batch-10k", "begun"), noted("batch-10k", "shared")), (vec![1, 2, 3], vec![0; 3]));
}

#[test]
fn what_is_not_as_it_was_cannot_go_on() {
    let folder = impostors("changed", "");
    let json = folder.join("kept.jsonl");
    assert!(session(&folder, &json).status().expect("the harness was built").success());
    let text = fs::read_to_string(&json).expect("it was kept");
    let begun: String = text.split_inclusive('\n').take(4).collect();
    let refused = |text: &str, more: &[&str]| {
        fs::write(&json, text).expect("the file is ours");
        let output = go_on(&folder, &json, more);
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert_eq!(fs::read_to_string(&json).expect("it is there"), text, "nothing is added");
        stderr(&output)
    };
    let said = refused(&begun.replace(r#""version":"9""#, r#""version":"8""#), &[]);
    assert!(said.contains("kept.jsonl: system was 8, and is 9\n"), "{said}");
    let said = refused(&begun.replace(r#""kernel":"Linux "#, r#""kernel":"Linux 0."#), &[]);
    assert!(said.contains("kept.jsonl: the kernel was Linux 0."), "{said}");
    let said = refused(&begun.replace(r#""commit":null"#, r#""commit":"abc""#), &[]);
    assert!(said.contains("the commit of the sources was abc, and is none"), "{said}");
    let said = refused(&begun.replace(r#""flags":["#, r#""flags":["lto=off","#), &[]);
    assert!(said.contains("the way that subjects are built was lto=off prebuilt="), "{said}");
    let said = refused(&begun.replace("system again", "freestone again"), &[]);
    assert!(
        said.contains("its subjects are system, freestone again, freestone, and now are system, system again, freestone"),
        "{said}"
    );
    let said = refused(&begun.replace("small-program", "large-program"), &[]);
    assert!(said.contains("has a workload that is not known here: 'large-program'"), "{said}");
    let said = refused("", &[]);
    assert!(said.contains("kept.jsonl is empty"), "{said}");
    let said = refused(&format!("{begun}nonsense\n"), &[]);
    assert!(said.contains("line 5 of"), "{said}");
    let said = refused(&begun, &["--seed", "6"]);
    assert!(said.contains("cannot be used with"), "{said}");
    // And as it was, it goes on.
    fs::write(&json, &begun).expect("the file is ours");
    assert!(go_on(&folder, &json, &[]).status.success());
    assert_eq!(order(&json).len(), 18);
}

#[test]
fn a_plan_is_printed_and_nothing_is_done() {
    let empty = folder("dry");
    let kept = empty.join("kept.jsonl");
    let output = harness(&[
        "--dry-run",
        "--prebuilt",
        "/nowhere",
        "--json",
        &kept.display().to_string(),
        "--subjects",
        "system,freestone",
        "--workloads",
        "batch-10k,burst-idle-64m-small",
        "--calls",
    ]);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(text.contains("2 workloads × 2 subjects × 10 runs of each, and system twice"), "{text}");
    assert!(text.contains("one round that counts calls into the system"), "{text}");
    // 2 × 3 × 10, and 2 × 2 once more.
    assert!(text.contains("That is 64 runs, about "), "{text}");
    assert!(text.contains("Nothing was built, and nothing was run."), "{text}");
    assert!(!kept.exists());
}

#[test]
fn when_nothing_more_can_be_written_down_what_was_measured_is_shown() {
    let folder = impostors("full", "");
    let pipe = folder.join("kept.jsonl");
    let name = CString::new(pipe.as_os_str().as_bytes()).expect("no zero in it");
    // SAFETY: the name ends with a zero byte.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    let harness = session(&folder, &pipe).spawn().expect("the harness was built");
    // Whoever reads the session and three runs, and goes, is like a disk that is full then: from then on nothing can be written.
    let mut lines = BufReader::new(File::open(&pipe).expect("it is there")).lines();
    for _ in 0..4 {
        lines.next().expect("the harness writes").expect("text");
    }
    drop(lines);
    let output = harness.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert_eq!(stderr(&output).matches("freestone-bench: cannot write ").count(), 1, "{}", stderr(&output));
    assert!(stderr(&output).contains("Broken pipe"), "{}", stderr(&output));
    assert!(stdout(&output).contains("Time per operation"), "{}", stdout(&output));
    assert!(stdout(&output).contains("cut short"), "{}", stdout(&output));

    let nowhere = session(&folder, Path::new("/nowhere/kept.jsonl")).output().expect("the harness was built");
    assert_eq!(nowhere.status.code(), Some(3));
    assert!(stderr(&nowhere).contains("freestone-bench: cannot write /nowhere/kept.jsonl: No such file or directory"));
    let full = session(&folder, Path::new("/dev/full")).output().expect("the harness was built");
    assert_eq!(full.status.code(), Some(3));
    assert!(stderr(&full).contains("freestone-bench: cannot write /dev/full: No space left on device"), "{}", stderr(&full));
}
