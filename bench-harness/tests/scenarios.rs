//! Scenarios as somebody meets them: each mistake is named with its line and key, what is typed has the last word, and floors are judged.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use common::{folder, harness, stderr, stdout};
use freestone_bench::workload::{self, Workload};

/// The scenarios that come with the harness.
const SHIPPED: [&str; 7] = ["smoke", "default", "full", "service", "memory", "scaling", "tuned"];

fn file(name: &str, text: impl AsRef<[u8]>) -> String {
    let path = folder(name).join("own.toml");
    fs::write(&path, text).expect("the folder is writable");
    path.display().to_string()
}

/// The mistakes of a text: what `check` says of it, but for the file's name and the last line, which counts them.
fn mistakes(name: &str, text: impl AsRef<[u8]>) -> Vec<String> {
    let path = file(name, text);
    let output = harness(&["check", &path]);
    let said = stderr(&output);
    assert_eq!((output.status.code(), &*stdout(&output)), (Some(2), ""), "{said}");
    let mut lines: Vec<&str> = said.lines().collect();
    let last = lines.pop().expect("something is said");
    let plural = if lines.len() == 1 { "" } else { "s" };
    assert_eq!(last, format!("freestone-bench: {path} has {} mistake{plural}", lines.len()), "{said}");
    let without = |line: &str| line.strip_prefix(&format!("{path}:")).unwrap_or_else(|| panic!("no file in {line}")).to_owned();
    lines.into_iter().map(without).collect()
}

/// The one mistake in a row that is right otherwise, from its key on. The row is in lines 1 to 3.
fn mistake(name: &str, row: &str) -> String {
    let mistakes = mistakes(name, format!("[[row]]\n{row}\n"));
    let [one] = &mistakes[..] else { panic!("not one mistake: {mistakes:#?}") };
    one.clone()
}

#[test]
fn every_mistake_is_named_with_its_line_and_key() {
    let text = r#"about = ""
subjets = ["system"]
subjects = ["system", "jemaloc", "system", 3]
repetitions = 0
percent = "half"
timeout_s = -1
seed = 1.5
calls = "yes"
instructions = 1

[environment]
"A=B" = "x"
LEVEL = 3

[[row]]
workloads = ["hot-65", "nothing-*", "hot-64"]
patience = 1

[[row]]
workloads = ["strings"]
parameters = { streams = 3 }

[[row]]
floors = { min_qps = 1 }

[[row]]
workloads = []
"#;
    let expected = [
        "1: about: '' is not a sentence in one line of at most 200 letters",
        "2: subjets: there is no such key; did you mean 'subjects'?",
        "3: subjects[2]: there is no subject 'jemaloc'; did you mean 'jemalloc'?",
        "3: subjects[3]: 'system' is there already",
        "3: subjects[4]: 3 is not a name",
        "4: repetitions: 0 is not a whole number from 1 to 1000",
        "5: percent: 'half' is not a whole number from 1 to 100",
        "6: timeout_s: -1 is not a whole number from 1 to 86400",
        "7: seed: 1.5 is not a whole number from 0 to 18446744073709551615",
        "8: calls: 'yes' is neither true nor false",
        "9: instructions: 1 is neither true nor false",
        "12: environment.\"A=B\": no variable can have such a name",
        "13: environment.LEVEL: 3 is not a string that a variable can hold",
        "16: row[1].workloads[1]: there is no workload 'hot-65'; did you mean 'hot-4k'?",
        "16: row[1].workloads[2]: no workload is like 'nothing-*'; freestone-bench --list names them",
        "17: row[1].patience: there is no such key; there are workloads, parameters, floors",
        "21: row[2].parameters.streams: strings has no such parameter",
        "23: row[3].workloads: it is missing",
        "27: row[4].workloads: an empty list is not a list of names",
    ];
    let found = mistakes("mistakes", text);
    for (found, expected) in found.iter().zip(expected) {
        // Which of two that are equally near is proposed does not matter.
        let end = found.find("; did you mean 'hot-").unwrap_or(found.len());
        let expected = expected.split("; did you mean 'hot-").next().unwrap_or_default();
        assert_eq!(&found[..end], expected);
    }
    assert_eq!(found.len(), expected.len(), "{found:#?}");
}

#[test]
fn rows_that_are_there_twice_are_found_however_they_are_written() {
    let text = "[[row]]\nworkloads = [\"random-*\"]\n[[row]]\nworkloads = [\"hot-64\", \"random-1k\", \"hot-64\"]\n";
    let expected = [
        "4: row[2].workloads[2]: 'random-1k' is there already, by row[1].workloads[1] in line 2",
        "4: row[2].workloads[3]: 'hot-64' is there already, by row[2].workloads[1] in line 4",
    ];
    assert_eq!(mistakes("twice", text), expected);
}

#[test]
fn floors_have_to_fit_their_rows() {
    let floors = |floors: &str| format!("workloads = [\"hot-64\"]\nfloors = {floors}");
    let cases = [
        ("{ min_qps = 0 }", "3: row[1].floors.min_qps: 0 is not a number above 0"),
        ("{ min_qps = inf }", "3: row[1].floors.min_qps: inf is not a number above 0"),
        ("{ min_qps = \"many\" }", "3: row[1].floors.min_qps: 'many' is not a number above 0"),
        ("{ max_qps = 1 }", "3: row[1].floors.max_qps: there is no such key; did you mean 'min_qps'?"),
        ("{ max_p99_us = 5 }", "3: row[1].floors.max_p99_us: hot-64 does not time its operations one by one"),
        ("{ max_error_rate = 0 }", "3: row[1].floors.max_error_rate: hot-64 has no requests that could fail"),
        (
            "{ max_peak_rss = \"5 MB\" }",
            "3: row[1].floors.max_peak_rss: '5 MB' is not a size such as \"512 MiB\", in B, KiB, MiB or GiB",
        ),
        ("{ max_peak_rss = 512 }", "3: row[1].floors.max_peak_rss: no process is as small as 512"),
        ("{}", "3: row[1].floors: an empty table is not a table with some of min_qps, max_p99_us, max_error_rate, max_peak_rss"),
        ("7", "3: row[1].floors: 7 is not a table with some of min_qps, max_p99_us, max_error_rate, max_peak_rss"),
    ];
    for (index, (text, expected)) in cases.into_iter().enumerate() {
        assert_eq!(mistake(&format!("floors-{index}"), &floors(text)), expected);
    }
    let waits = mistake("floors-waits", "workloads = [\"saw-tooth\"]\nfloors = { min_qps = 1 }");
    assert_eq!(waits, "3: row[1].floors.min_qps: saw-tooth waits most of its time, so a rate says nothing about it");
}

#[test]
fn parameters_have_to_be_what_their_workload_takes() {
    let chosen = |chosen: &str| format!("workloads = [\"grpc\"]\nparameters = {{ {chosen} }}");
    let cases = [
        ("streams = \"many\"", "streams: 'many' is not a whole number from 1 to 10000"),
        ("streams = \"8\"", "streams: '8' is not a whole number from 1 to 10000"),
        ("streams = 10_001", "streams: 10001 is not a whole number from 1 to 10000"),
        ("streams = [1, 0]", "streams[2]: 0 is not a whole number from 1 to 10000"),
        ("streams = [1, 0x1]", "streams[2]: 1 is there already"),
        ("streams = []", "streams: an empty list makes no row"),
        ("variant = \"fast\"", "variant: 'fast' is none of plain, pooled, direct"),
        ("variant = true", "variant: true is none of plain, pooled, direct"),
        ("stream = 1", "stream: grpc has no such parameter; did you mean 'streams'?"),
    ];
    for (index, (text, expected)) in cases.into_iter().enumerate() {
        let expected = format!("3: row[1].parameters.{expected}");
        assert_eq!(mistake(&format!("parameters-{index}"), &chosen(text)), expected);
    }
    // What was not chosen is the default, so that these are the same.
    let text =
        "[[row]]\nworkloads = [\"grpc\"]\n[[row]]\nworkloads = [\"grpc\"]\nparameters = { variant = [\"pooled\", \"plain\"] }\n";
    let same = "4: row[2].workloads[1]: 'grpc variant=plain' is there already, by row[1].workloads[1] in line 2";
    assert_eq!(mistakes("parameters-same", text), [same]);
    let open = "workloads = [\"grpc\"]\nparameters = { loop = \"open\", rate = [900, 1_100] }\nfloors = { min_qps = 1_000 }";
    let never = "4: row[1].floors.min_qps: 1000 can never be reached, as the row sends 900 requests per second (rate)";
    assert_eq!(mistake("parameters-open", open), never);
}

#[test]
fn what_is_no_scenario_is_one_mistake() {
    let first = |name: &str, text: &[u8]| mistakes(name, text).remove(0);
    assert_eq!(first("no-rows", b"about = \"Nothing.\"\n"), "1: row: there is none, so there is nothing to run");
    assert_eq!(first("empty", b""), "1: row: there is none, so there is nothing to run");
    assert_eq!(first("row-number", b"row = 3"), "1: row: 3 is not a list of tables, each under [[row]]");
    assert_eq!(first("row-table", b"[row]\nworkloads = []\n"), "1: row: a table is not a list of tables, each under [[row]]");
    assert_eq!(first("latin", b"a = 1\nb = \"\xe9\"\n"), "2: this is not UTF-8");
    // The words are those of the crate; the line is what matters.
    assert!(first("prose", b"Dear diary,\n").starts_with("1: "));
    assert!(first("open", b"\nabout = \"x\n").starts_with("2: "));
    assert!(first("again", b"\nseed = 1\nseed = 2\n").starts_with("3: "));
    assert!(first("deep", format!("a = {}", "[".repeat(50_000)).as_bytes()).starts_with("1: "));
    assert_eq!(
        first("escape", b"\"\\u001b[31m\" = 1\n[[row]]\nworkloads = [\"hot-64\"]\n"),
        "1: \"\\u{1b}[31m\": there is no such key; there are about, calls, environment, instructions, percent, repetitions, row, seed, subjects, timeout_s"
    );
}

#[test]
fn what_cannot_be_read_gets_one_sentence() {
    let folder = folder("unreadable");
    let (folder, huge) = (folder.display().to_string(), file("huge", "#".repeat((1 << 20) + 1)));
    let cases = [
        ("nowhere.toml", "cannot read nowhere.toml: No such file or directory (os error 2)".to_owned()),
        ("smok", "there is no scenario and no file 'smok'; did you mean 'smoke'?".to_owned()),
        (&*folder, format!("cannot read {folder}: it is no file")),
        (&*huge, format!("cannot read {huge}: it has more than a megabyte, which no scenario needs")),
    ];
    for (path, sentence) in cases {
        for verb in ["check", "run"] {
            let output = harness(&[verb, path]);
            assert_eq!(stderr(&output), format!("freestone-bench: {sentence}\n"));
            assert_eq!((output.status.code(), &*stdout(&output)), (Some(2), ""));
        }
    }
}

#[test]
fn many_files_are_checked_and_each_is_heard_of() {
    let (good, bad) = (file("good", "[[row]]\nworkloads = [\"hot-*\"]\nfloors = { min_qps = 1 }\n"), file("bad", "x = 1"));
    let output = harness(&["check", &bad, "nowhere.toml", &good]);
    assert_eq!(output.status.code(), Some(2));
    let said = stderr(&output);
    assert!(said.contains(&format!("{bad}:1: x: there is no such key")), "{said}");
    assert!(said.contains(&format!("freestone-bench: {bad} has 2 mistakes\n")), "{said}");
    assert!(said.ends_with("freestone-bench: cannot read nowhere.toml: No such file or directory (os error 2)\n"), "{said}");
    assert_eq!(stdout(&output), format!("{good}: no mistakes; 2 rows × the usual subjects × 10 runs, 2 floors\n"));
}

/// Is everything there that a scenario is about? Subjects and workloads come from other rooms.
fn is_complete(scenario: &str) -> bool {
    match scenario {
        "service" => workload::by_name("grpc").is_some(),
        "tuned" => mistakes_of_subjects("freestone-tuned").is_empty(),
        _ => true,
    }
}

fn mistakes_of_subjects(name: &str) -> String {
    let path = file("subjects", format!("subjects = [\"{name}\"]\n[[row]]\nworkloads = [\"hot-64\"]\n"));
    stderr(&harness(&["check", &path]))
}

#[test]
fn the_scenarios_that_come_along_have_no_mistakes() {
    let list = stdout(&harness(&["--list"]));
    for name in SHIPPED.into_iter().filter(|name| is_complete(name)) {
        let output = harness(&["check", name]);
        assert_eq!((&*stderr(&output), output.status.code()), ("", Some(0)));
        assert!(stdout(&output).starts_with(&format!("{name}: no mistakes; ")), "{}", stdout(&output));
        let line = list.lines().find(|line| line.starts_with(&format!("  {name} ")));
        assert!(line.is_some_and(|line| line.ends_with('.')), "{name} says of itself what it is about:\n{list}");
    }
}

/// The names in a scenario that comes along.
fn rows(name: &str) -> Vec<&'static str> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("scenarios/{name}.toml"));
    let text = fs::read_to_string(path).expect("it is there");
    // Of a pattern, the beginning; so this finds at least what the pattern does.
    let words: Vec<&str> = text.split('"').skip(1).step_by(2).collect();
    let is_named = |its: &&Workload| {
        words.iter().any(|word| *word == its.name || word.strip_suffix('*').is_some_and(|head| its.name.starts_with(head)))
    };
    workload::all().filter(is_named).map(|its| its.name).collect()
}

#[test]
fn the_default_is_all_that_tells_and_full_is_all_that_does_not_wait_or_serve() {
    let telling: Vec<&str> = workload::all().filter(|its| its.telling).map(|its| its.name).collect();
    assert_eq!(rows("default"), telling, "the star in the list says the same");
    let full: Vec<&str> = workload::all().filter(|its| !its.is_over_time() && !its.is_service()).map(|its| its.name).collect();
    assert_eq!(rows("full"), full);
    assert!(rows("memory").iter().all(|name| workload::by_name(name).is_some_and(Workload::is_over_time)));
}

/// A subject that takes so many nanoseconds for ten operations, on whatever it is asked, and says with what.
fn subject(folder: &Path, name: &str, nanos: u64, peak: u64) {
    let line = format!(
        r#"{{"version":"9","operations":10,"nanos":{nanos},"checksum":"no","peak_rss_bytes":{peak},"anonymous_bytes":1,"minor_faults":1,"major_faults":0,"notes":{{}}}}"#
    );
    let path = folder.join(format!("subject-{name}"));
    fs::write(&path, format!("#!/bin/sh\necho \"$* [$KNOB]\" >> {}\necho '{line}'\n", folder.join("asked").display()))
        .expect("the folder is writable");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("the file is ours");
}

struct Session {
    folder: PathBuf,
    output: Output,
}

impl Session {
    /// Follows a scenario on two subjects: one that does a million operations a second in 1 MiB, and one that does twice as many in twice the memory.
    fn new(name: &str, scenario: &str, more: &[&str]) -> Self {
        let folder = folder(name);
        subject(&folder, "system", 10_000, 1 << 20);
        subject(&folder, "freestone", 5_000, 2 << 20);
        fs::write(folder.join("own.toml"), scenario).expect("the folder is writable");
        let path = |name: &str| folder.join(name).display().to_string();
        let (binaries, kept, own) = (path(""), path("kept.jsonl"), path("own.toml"));
        let output = harness(&[&["run", &own, "--prebuilt", &binaries, "--json", &kept], more].concat());
        Self { folder, output }
    }

    /// What the subjects were asked, once for each, without the probes and the processor that some share.
    fn asked(&self) -> Vec<String> {
        let text = fs::read_to_string(self.folder.join("asked")).unwrap_or_default();
        let without = |line: &str| line.split(' ').filter(|word| !word.starts_with("processor=")).collect::<Vec<_>>().join(" ");
        let mut asked: Vec<String> = text.lines().filter(|line| !line.starts_with("hot-64 1 ")).map(without).collect();
        asked.sort();
        asked.dedup();
        asked
    }

    fn kept(&self) -> serde_json::Value {
        let text = fs::read_to_string(self.folder.join("kept.jsonl")).expect("it was kept");
        serde_json::from_str(text.lines().next().unwrap_or_default()).expect("a record")
    }
}

const OWN: &str = r#"
subjects = ["system", "freestone"]
repetitions = 2
percent = 50
seed = 5
environment = { KNOB = "low" }

[[row]]
workloads = ["strings", "batch-*"]
"#;

#[test]
fn a_scenario_is_followed() {
    let session = Session::new("followed", OWN, &[]);
    assert_eq!(session.output.status.code(), Some(0), "{}", stderr(&session.output));
    assert_eq!(session.asked(), ["batch-100 50  [low]", "batch-10k 50  [low]", "strings 50  [low]"]);
    let kept = session.kept();
    assert_eq!((kept["scenario"].as_str(), kept["seed"].as_u64(), kept["repetitions"].as_u64()), (Some("own"), Some(5), Some(2)));
    assert_eq!(kept["environment"][0], "KNOB=low");
    assert_eq!(kept["workloads"], serde_json::json!(["strings", "batch-100", "batch-10k"]));
}

#[test]
fn what_is_typed_has_the_last_word() {
    let typed = ["--percent", "7", "--repetitions", "1", "--seed", "9", "--env", "KNOB=high", "--subjects", "freestone"];
    let session = Session::new("typed", OWN, &typed);
    assert_eq!(session.output.status.code(), Some(0), "{}", stderr(&session.output));
    assert_eq!(session.asked(), ["batch-100 7  [high]", "batch-10k 7  [high]", "strings 7  [high]"]);
    let kept = session.kept();
    assert_eq!((kept["seed"].as_u64(), kept["repetitions"].as_u64(), kept["percent"].as_u64()), (Some(9), Some(1), Some(7)));
    let subjects: Vec<&str> =
        kept["subjects"].as_array().into_iter().flatten().filter_map(|its| its["subject"].as_str()).collect();
    assert_eq!(subjects, ["freestone", "freestone again"]);
    // Other rows make another session of it, whatever else it has from the scenario.
    let session = Session::new("typed-rows", OWN, &["--workloads", "runtime-64,strings"]);
    assert_eq!(session.asked(), ["runtime-64 50  [low]", "strings 50  [low]"]);
    assert_eq!(session.kept()["scenario"], serde_json::Value::Null);
    let output = harness(&["run", "smoke", "--full"]);
    assert_eq!(stderr(&output), "freestone-bench: --full is the scenario full, so it cannot be added to the scenario smoke\n");
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_scenario_with_mistakes_is_not_run() {
    let session = Session::new("not-run", &OWN.replace("repetitions", "repetition"), &[]);
    assert_eq!(session.output.status.code(), Some(2));
    let said = stderr(&session.output);
    assert!(said.contains("own.toml:3: repetition: there is no such key; did you mean 'repetitions'?\n"), "{said}");
    assert!(!session.folder.join("asked").exists() && !session.folder.join("kept.jsonl").exists());
}

#[test]
fn floors_that_are_missed_are_said_and_are_exit_code_one() {
    let floors = "floors = { min_qps = 1_500_000, max_peak_rss = \"1.5 MiB\" }\n";
    let session = Session::new("missed", &format!("{OWN}{floors}"), &["--workloads", "batch-100,strings"]);
    let (text, said) = (stdout(&session.output), stderr(&session.output));
    assert_eq!(session.output.status.code(), Some(1), "{said}");
    assert!(said.ends_with("freestone-bench: 4 of 8 floors are missed\n"), "{said}");
    for row in ["batch-100", "strings"] {
        let slow = format!("- system on {row}: 1,000,000 operations per second, where the floor is 1,500,000 (min_qps)\n");
        let large = format!("- freestone on {row}: a peak of 2.00 MiB, where 1.50 MiB are allowed (max_peak_rss)\n");
        assert!(text.contains(&slow) && text.contains(&large), "{text}");
    }
    // A report of it says the same.
    let kept = session.folder.join("kept.jsonl").display().to_string();
    let again = harness(&["report", &kept]);
    assert_eq!(again.status.code(), Some(1));
    assert!(text.starts_with(&stdout(&again)), "{}", stdout(&again));
    let markdown = stdout(&harness(&["report", &kept, "--markdown"]));
    assert!(markdown.contains("### Floors\n\nMissed are 4 of 8."), "{markdown}");

    let floors = "floors = { min_qps = 900_000, max_peak_rss = \"2 MiB\" }\n";
    let session = Session::new("reached", &format!("{OWN}{floors}"), &["--workloads", "strings"]);
    assert_eq!((session.output.status.code(), stderr(&session.output).contains("floor")), (Some(0), false));
    assert!(stdout(&session.output).contains("Nobody misses any of the 4 floors.\n"), "{}", stdout(&session.output));
}

/// A kept session of one subject and one row with these floors and two runs, of which each has ten operations, this outcome and these notes.
fn judged(name: &str, floors: &str, outcome: &str) -> (Option<i32>, String) {
    let machine = r#"{"cpu":"A Fine CPU","cores":2,"is_virtual":false,"memory_bytes":1073741824,"kernel":"Linux 6","huge_pages":"madvise","governor":null,"rustc":"1.95.0","load_average":"0 0 0"}"#;
    let session = format!(
        r#"{{"record":"session","date":"d","commit":null,"machine":{machine},"seed":7,"repetitions":2,"percent":100,"workloads":["grpc"],"subjects":[{{"subject":"system","version":"2"}}],"left_out":[],"environment":[],"floors":{{"grpc":{floors}}}}}"#
    );
    let run = |round: u64| {
        format!(
            r#"{{"record":"run","session":"d","date":"d","round":{round},"subject":"system","version":"2","workload":"grpc","outcome":{outcome}}}"#
        )
    };
    let path = folder(name).join("kept.jsonl");
    let end = r#"{"record":"end","session":"d","seconds":60,"cores_of_others":0.0}"#;
    fs::write(&path, format!("{session}\n{}\n{}\n{end}\n", run(1), run(2))).expect("the folder is writable");
    let output = harness(&["report", &path.display().to_string()]);
    let text = stdout(&output);
    let floors = text.split("\nFloors\n\n").nth(1).and_then(|text| text.split("\n\nFigures are medians of").next());
    (output.status.code(), floors.unwrap_or_default().trim_end().to_owned())
}

#[test]
fn percentiles_and_errors_are_judged_where_they_are_known() {
    let measured = |notes: &str, latencies: &str| {
        format!(
            r#"{{"measured":{{"operations":10,"nanos":10,"checksum":"a","peak_rss_bytes":1048576,"minor_faults":0,"major_faults":0,"notes":{{{notes}}},"latencies":{{{latencies}}}}}}}"#
        )
    };
    let request = |nanos: u64| {
        format!(r#""request":{{"count":9,"mean_ns":1,"max_ns":1,"points":[[500000,1],[990000,{nanos}],[1000000,9999999]]}}"#)
    };
    let late = r#""free":{"count":9,"mean_ns":1,"max_ns":1,"points":[[1000000,9000000]]}"#;
    let missed = "Missed are 1 of 1. Figures are medians, shares those of all runs together.\n\n- system on grpc: ";
    let kept = "Nobody misses any of the 1 floor.";
    let p99 = r#"{"max_p99_us":2000}"#;
    let cases = [
        (p99, measured("", &request(2_000_000)), Some(0), kept.to_owned()),
        // What is no request has no say where there are requests.
        (p99, measured("", &format!("{},{late}", request(2_000_000))), Some(0), kept.to_owned()),
        (
            p99,
            measured("", &request(2_000_001)),
            Some(1),
            format!("{missed}99 % of 'request' within 2,001 µs, where 2,000 µs are allowed (max_p99_us)"),
        ),
        (
            p99,
            measured("", late),
            Some(1),
            format!("{missed}99 % of 'free' within 9,000 µs, where 2,000 µs are allowed (max_p99_us)"),
        ),
        (p99, measured("", ""), Some(1), format!("{missed}its P99 is not known, and must not be above 2,000 µs (max_p99_us)")),
        (r#"{"max_error_rate":0.0}"#, measured(r#""errors":0"#, ""), Some(0), kept.to_owned()),
        (
            r#"{"max_error_rate":0.05}"#,
            measured(r#""errors":1"#, ""),
            Some(1),
            format!("{missed}2 errors in 20 operations, where a share of 0.05 is allowed (max_error_rate)"),
        ),
        (
            r#"{"max_error_rate":0.0}"#,
            measured("", ""),
            Some(1),
            format!("{missed}its errors are not known, and their share must not be above 0 (max_error_rate)"),
        ),
        // What failed was not served: 5 of 10 in 10 ns.
        (
            r#"{"min_qps":6e8}"#,
            measured(r#""errors":5"#, ""),
            Some(1),
            format!("{missed}500,000,000 operations per second, where the floor is 600,000,000 (min_qps)"),
        ),
        // What is not known is not reached; but a failed run is what the exit code tells.
        (
            r#"{"min_qps":6e8}"#,
            r#"{"failed":"it crashed"}"#.to_owned(),
            Some(3),
            format!("{missed}its rate is not known, and must not be below 600,000,000 (min_qps)"),
        ),
    ];
    for (index, (floors, outcome, code, expected)) in cases.into_iter().enumerate() {
        assert_eq!(judged(&format!("judged-{index}"), floors, &outcome), (code, expected), "{floors} {outcome}");
    }
}
