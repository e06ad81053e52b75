//! Every number that README and docs quote comes from a record: the tables of this repository are what their records say, and one that was
//! changed by hand, or whose record is gone, is found.

mod common;

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use common::{folder, harness, stderr, stdout};

const RECORD: &str = "bench-harness/record/a-fine-9000-2-cores-virtual/2026-01-01/full.jsonl";

/// A session in which Freestone takes so many nanoseconds for what takes the others 200.
fn diary(nanos: u64, date: &str) -> String {
    let machine = r#"{"cpu":"A Fine(R) CPU 9000","cores":2,"is_virtual":true,"memory_bytes":1073741824,"kernel":"Linux 6","huge_pages":"madvise","governor":null,"rustc":"1.95.0","load_average":"0 0 0"}"#;
    let subjects = r#"[{"subject":"system","version":"glibc 2.36"},{"subject":"freestone","version":"0.1.0"}]"#;
    let mut text = format!(
        r#"{{"record":"session","date":"{date}T00:00:00Z","commit":"abc1234","machine":{machine},"seed":7,"repetitions":6,"percent":100,"workloads":["real-json","hot-64","burst-idle-64m-small"],"subjects":{subjects},"left_out":[],"environment":["A_KNOB=/home/me/knob"],"arguments":["--full","--json","/home/me/new.jsonl"]}}"#
    );
    text.push('\n');
    for round in 1..=6 {
        for (subject, nanos) in [("system", 2000), ("freestone", nanos * 10)] {
            for row in ["real-json", "hot-64", "burst-idle-64m-small"] {
                let samples: Vec<String> = (0..1_000).map(|ms| format!(r#"{{"ms":{ms},"rss_bytes":{}}}"#, ms * round)).collect();
                writeln!(
                    text,
                    r#"{{"record":"run","session":"{date}T00:00:00Z","date":"{date}T00:00:01Z","version":"1","round":{round},"subject":"{subject}","workload":"{row}","outcome":{{"measured":{{"operations":10,"nanos":{},"checksum":"aa","peak_rss_bytes":{},"minor_faults":0,"major_faults":0,"notes":{{"before_bytes":1048576,"needed_bytes":2097152,"rss_12_s":3145728}},"resident":[{}]}}}}}}"#,
                    nanos + round,
                    (2 + round) << 20,
                    samples.join(",")
                )
                .expect("a string takes everything");
            }
        }
    }
    text + &format!(r#"{{"record":"end","session":"{date}T00:00:00Z","seconds":60,"cores_of_others":0.0}}"#) + "\n"
}

/// Sources with a README and a page of docs that wait for a record.
fn sources(name: &str) -> PathBuf {
    let root = folder(name);
    fs::create_dir_all(root.join("docs/deep")).expect("the folder is writable");
    fs::create_dir_all(root.join("bench-harness/record")).expect("the folder is writable");
    let readme = "# A\n\n<!-- table: record=pending:full what=comparison rows=hot-*,real-json -->\nan old table\n<!-- end of table -->\n\nB\n";
    fs::write(root.join("README.md"), readme).expect("the folder is writable");
    let page =
        "<!-- table: record=pending:full what=burst -->\n<!-- end of table -->\n\n```text\n<!-- table: an example -->\n```\n";
    fs::write(root.join("docs/deep/page.md"), page).expect("the folder is writable");
    fs::write(root.join("new.jsonl"), diary(100, "2026-01-01")).expect("the folder is writable");
    root
}

fn tables(root: &Path, more: &[&str]) -> (i32, String, String) {
    let root = root.display().to_string();
    let output = harness(&[&["tables", "--folder", &root], more].concat());
    (output.status.code().expect("it ended"), stdout(&output), stderr(&output))
}

fn keep(root: &Path, file: &str) -> (i32, String, String) {
    tables(root, &["--keep", &root.join(file).display().to_string(), "--name", "full"])
}

fn read(root: &Path, path: &str) -> String {
    fs::read_to_string(root.join(path)).expect("it is there")
}

#[test]
fn tables_and_links_of_this_repository_are_what_the_records_say() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the harness lies in the workspace");
    let (code, _, said) = tables(root, &["--check"]);
    assert_eq!(code, 0, "{said}");
}

#[test]
fn a_session_becomes_a_record_and_the_tables_that_wait_for_it_are_written() {
    let root = sources("tables");
    let (code, said, complaints) = keep(&root, "new.jsonl");
    assert_eq!((code, &*complaints), (0, ""));
    assert_eq!(said, format!("kept as {RECORD}\nwrote README.md\nwrote docs/deep/page.md\n"));
    let source = format!(
        "[Every run]({RECORD}): 2026-01-01, A Fine(R) CPU 9000, 2 cores (virtual), Linux 6; 6 runs of each; sources abc1234; \
         system glibc 2.36, freestone 0.1.0."
    );
    let wanted = format!(
        "# A\n\n<!-- table: record={RECORD} what=comparison rows=hot-*,real-json -->\n\
         | workload | Freestone | best other | ratio (95 %) |  | memory | least other |\n|---|--:|--:|--:|--:|--:|--:|\n\
         | real-json | 100 ns | 200 ns system | 2.00 (1.99–2.00) | faster | 5.50 MiB | 5.50 MiB system |\n\
         | hot-64 | 100 ns | 200 ns system | 2.00 (1.99–2.00) | faster | 5.50 MiB | 5.50 MiB system |\n\n\
         {source}\n<!-- end of table -->\n\nB\n"
    );
    assert_eq!(read(&root, "README.md"), wanted);
    let page = read(&root, "docs/deep/page.md");
    assert!(page.contains("| 64 MiB of 8 B–1 KiB | 2.0 | 2.0 | 2.0 |\n"), "{page}");
    assert!(page.contains(&format!("(../../{RECORD})")), "{page}");
    assert!(page.ends_with("```text\n<!-- table: an example -->\n```\n"), "{page}");

    // Once more changes nothing.
    assert_eq!(tables(&root, &[]), (0, String::new(), String::new()));
    assert_eq!(tables(&root, &["--check"]), (0, String::new(), String::new()));
    // A record is the session, but for what makes it large.
    let (record, session) = (read(&root, RECORD), read(&root, "new.jsonl"));
    assert!(record.len() < session.len() / 10, "{} of {}", record.len(), session.len());
    assert_eq!(record.lines().count(), session.lines().count());
    assert_eq!(record.matches("\"resident\"").count(), 6, "one run for each row and subject");
    // And but for whose machine it was.
    assert!(record.contains(r#""environment":["A_KNOB=knob"],"arguments":["--full","--json","new.jsonl"]"#), "{record:.900}");
}

#[test]
fn a_newer_record_takes_the_place_of_the_older_in_tables_and_links() {
    let root = sources("newer");
    assert_eq!(keep(&root, "new.jsonl").0, 0);
    let text = read(&root, "README.md") + &format!("\nTwice as fast ([measured]({RECORD})).\n");
    fs::write(root.join("README.md"), text).expect("the folder is writable");
    fs::write(root.join("newer.jsonl"), diary(50, "2026-02-01")).expect("the folder is writable");
    assert_eq!(keep(&root, "newer.jsonl").0, 0);
    let text = read(&root, "README.md");
    assert!(!text.contains("2026-01-01"), "{text}");
    assert!(text.contains("[measured](bench-harness/record/a-fine-9000-2-cores-virtual/2026-02-01/full.jsonl)"), "{text}");
    assert!(text.contains("| hot-64 | 50.3 ns |"), "{text}");
}

#[test]
fn what_was_changed_by_hand_is_found_with_its_line() {
    let root = sources("changed");
    let before = tables(&root, &["--check"]);
    assert_eq!(before.0, 0, "what waits is no mistake");
    assert!(before.2.contains("README.md:3: no record is kept as 'full' yet, so nothing proves this table\n"), "{}", before.2);
    keep(&root, "new.jsonl");
    let right = read(&root, "README.md");
    fs::write(root.join("README.md"), right.replace("| hot-64 | 100 ns", "| hot-64 | 90 ns")).expect("the folder is writable");
    let (code, _, said) = tables(&root, &["--check"]);
    assert_eq!((code, &*said), (1, "README.md:7: this is not what the record says; `freestone-bench tables` writes it anew\n"));
    fs::write(root.join("README.md"), right + "\n[gone](bench-harness/record/m/2026-01-01/gone.jsonl)\n")
        .expect("the folder is writable");
    let (code, _, said) = tables(&root, &["--check"]);
    assert_eq!((code, &*said), (1, "README.md:14: there is no bench-harness/record/m/2026-01-01/gone.jsonl\n"));
}

#[test]
fn mistakes_get_one_sentence_with_file_and_line() {
    let root = sources("mistakes");
    keep(&root, "new.jsonl");
    let right = read(&root, "README.md");
    for (before, after, sentence) in [
        (
            "what=comparison",
            "what=prophecy",
            "README.md:3: there is no table 'prophecy'; there are comparison, burst, patterns, services, figure, score",
        ),
        ("rows=hot-*", "rows=cold", "README.md:3: the record has no row 'cold'"),
        ("what=comparison", "what=services", "README.md:3: the record has no service in it"),
        (
            "what=comparison rows=hot-*,real-json",
            "what=figure figure=luck",
            "README.md:3: the record has no figure 'luck'; it has time, peak_rss, faults",
        ),
        ("<!-- end of table -->", "", "README.md:3: this table does not end"),
    ] {
        fs::write(root.join("README.md"), right.replace(before, after)).expect("the folder is writable");
        let (code, _, said) = tables(&root, &[]);
        assert!(said.starts_with(&format!("freestone-bench: {sentence}")), "{said}");
        assert_eq!((code, said.lines().count()), (2, 1), "{said}");
    }
    fs::write(root.join("cut.jsonl"), diary(1, "2026-01-01").rsplit_once("{\"record\":\"end\"").expect("it ends").0)
        .expect("the folder is writable");
    let (code, _, said) = keep(&root, "cut.jsonl");
    assert_eq!(code, 3);
    assert!(said.ends_with("holds a session that was cut short, which is no reference\n"), "{said}");
    let (code, _, said) = tables(&root, &["--keep", &root.join("new.jsonl").display().to_string(), "--name", "../../up"]);
    assert_eq!(code, 2);
    assert!(said.starts_with("freestone-bench: '../../up' is no name for a record"), "{said}");
}
