//! The gate, as somebody meets it who changed something: what it finds, what it does not fail for, where it says that a regression comes from,
//! and what it refuses to compare. Most of it on diaries that were written here, with figures that are known.

mod common;

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use common::{folder, harness, stderr, stdout};

/// A session as it is kept, of which everything can be chosen that the gate asks for.
#[derive(Clone)]
struct Diary {
    cpu: &'static str,
    rustc: &'static str,
    percent: u64,
    environment: &'static str,
    date: &'static str,
    rows: Vec<&'static str>,
    subjects: Vec<&'static str>,
    runs: String,
    is_whole: bool,
}

/// What one run measured.
#[derive(Clone, Copy)]
struct Figures {
    nanos: u64,
    peak: u64,
    p99: Option<u64>,
    notes: &'static str,
}

const PLAIN: Figures = Figures { nanos: 1_000_000, peak: 10 << 20, p99: None, notes: "" };

impl Diary {
    fn new() -> Self {
        Self {
            cpu: "A Fine CPU",
            rustc: "1.95.0",
            percent: 100,
            environment: "",
            date: "2026-01-01T00:00:00Z",
            rows: vec!["hot-64"],
            subjects: vec!["freestone"],
            runs: String::new(),
            is_whole: true,
        }
    }

    /// The same kind of session, another day.
    fn later() -> Self {
        Self { date: "2026-02-02T00:00:00Z", ..Self::new() }
    }

    fn line(&mut self, round: usize, subject: &str, row: &str, view: &str, outcome: &str) -> &mut Self {
        let (date, run) = (self.date, format!(r#""round":{round},"subject":"{subject}","workload":"{row}""#));
        let line = format!(
            r#"{{"record":"run","session":"{date}","date":"{date}","version":"1",{run},"view":"{view}","outcome":{outcome}}}"#
        );
        writeln!(self.runs, "{line}").expect("a string takes everything");
        self
    }

    /// A thousand operations.
    fn timed(&mut self, round: usize, row: &str, figures: Figures) -> &mut Self {
        let Figures { nanos, peak, p99, notes } = figures;
        let latencies = p99.map_or_else(String::new, |p99| {
            format!(r#","latencies":{{"malloc":{{"count":1000,"mean_ns":9,"max_ns":99999,"points":[[500000,9],[990000,{p99}],[999000,9999]]}}}}"#)
        });
        let outcome = format!(
            r#"{{"measured":{{"operations":1000,"nanos":{nanos},"checksum":"aa","peak_rss_bytes":{peak},"minor_faults":100,"major_faults":0,"notes":{{{notes}}}{latencies}}}}}"#
        );
        self.line(round, "freestone", row, "timed", &outcome)
    }

    /// Ten runs, each a little other than the one before.
    fn ten(&mut self, row: &str, figures: Figures) -> &mut Self {
        for round in 1..=10 {
            let noise = (round as u64 * 7) % 10;
            let p99 = figures.p99.map(|p99| p99 + p99 * noise / 10_000);
            let nanos = figures.nanos + figures.nanos * noise / 10_000;
            self.timed(round, row, Figures { nanos, peak: figures.peak + 4096 * noise, p99, ..figures });
        }
        self
    }

    fn instructions(&mut self, row: &str, instructions: u64, percent: u64) -> &mut Self {
        let outcome = format!(
            r#"{{"measured":{{"operations":1000,"nanos":9,"checksum":"aa","peak_rss_bytes":1,"minor_faults":1,"major_faults":0,"notes":{{"percent":{percent}}},"instructions":{instructions}}}}}"#
        );
        self.line(1, "freestone", row, "instructions", &outcome)
    }

    fn calls(&mut self, row: &str, calls: &str) -> &mut Self {
        let outcome = format!(
            r#"{{"measured":{{"operations":1000,"nanos":9,"checksum":"aa","peak_rss_bytes":1,"minor_faults":1,"major_faults":0,"notes":{{}},"os_calls":{{{calls}}}}}}}"#
        );
        self.line(1, "freestone", row, "calls", &outcome)
    }

    fn text(&self) -> String {
        let Self { cpu, rustc, percent, environment, date, rows, subjects, runs, .. } = self;
        let machine = format!(
            r#"{{"cpu":"{cpu}","cores":2,"is_virtual":false,"memory_bytes":1073741824,"kernel":"Linux 6","huge_pages":"madvise","governor":null,"rustc":"{rustc}","c_library":"glibc 2.36","load_average":"0 0 0"}}"#
        );
        let subjects: Vec<String> = subjects.iter().map(|its| format!(r#"{{"subject":"{its}","version":"1"}}"#)).collect();
        let subjects = subjects.join(",");
        let session = format!(
            r#"{{"record":"session","date":"{date}","commit":"abc1234","machine":{machine},"seed":7,"repetitions":10,"percent":{percent},"workloads":{rows:?},"subjects":[{subjects}],"left_out":[],"environment":[{environment}]}}"#
        );
        let end = format!(r#"{{"record":"end","session":"{date}","seconds":60,"cores_of_others":0.0}}"#);
        format!("{session}\n{runs}{}", if self.is_whole { end + "\n" } else { String::new() })
    }
}

/// Lets the gate compare two diaries.
fn gate(name: &str, base: &Diary, new: &Diary, more: &[&str]) -> Output {
    compare(name, &base.text(), &new.text(), more)
}

fn compare(name: &str, base: &str, new: &str, more: &[&str]) -> Output {
    let folder = folder(name);
    let [base, new] = [("base.jsonl", base), ("new.jsonl", new)].map(|(name, text)| {
        let path = folder.join(name);
        fs::write(&path, text).expect("the folder is writable");
        path.display().to_string()
    });
    let mut arguments = vec!["gate", "--base", &base, "--new", &new];
    arguments.extend(more);
    harness(&arguments)
}

/// A base and a change of it.
fn pair(before: Figures, after: Figures) -> (Diary, Diary) {
    let (mut base, mut new) = (Diary::new(), Diary::later());
    base.ten("hot-64", before);
    new.ten("hot-64", after);
    (base, new)
}

/// The lines below a title, up to the next paragraph but one.
fn table<'a>(text: &'a str, title: &str) -> &'a str {
    let rest = text.split(title).nth(1).unwrap_or_else(|| panic!("no '{title}' in\n{text}"));
    rest.split("\n\n").nth(1).unwrap_or_else(|| panic!("nothing below '{title}' in\n{text}"))
}

const TOO_MUCH: &str = "Worse by more than it may be";

#[test]
fn what_got_slower_by_more_than_it_may_fails() {
    let (base, new) = pair(PLAIN, Figures { nanos: 1_100_000, ..PLAIN });
    let output = gate("gate-slower", &base, &new, &[]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(1), "{text}{}", stderr(&output));
    assert!(text.starts_with("Gate failed: 1 of 2 figures got worse"), "{text}");
    let line = table(&text, TOO_MUCH).lines().last().expect("a line").split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(line.starts_with("hot-64 freestone time per operation 1.00 µs 1.10 µs +10.0 % (-9.1 % throughput) 1."), "{line}");
    // The opposite is good news.
    let output = gate("gate-faster", &new, &base, &[]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(table(&text, "Better (1)").contains("time per operation"), "{text}");
}

#[test]
fn the_limit_is_of_the_throughput_and_can_be_set() {
    // 5.1 % more time is 4.85 % less throughput, 5.4 % is 5.1 %.
    for (nanos, more, code) in [
        (1_051_000, &[][..], 0),
        (1_054_000, &[], 1),
        (1_054_000, &["--max-slower", "6"], 0),
        (1_051_000, &["--max-slower", "2.5"], 1),
    ] {
        let (base, new) = pair(PLAIN, Figures { nanos, ..PLAIN });
        let output = gate("gate-limit", &base, &new, more);
        let text = stdout(&output);
        assert_eq!(output.status.code(), Some(code), "{nanos} {more:?}\n{text}");
        if code == 0 {
            assert!(table(&text, "Worse, within the limits (1)").contains("hot-64"), "{text}");
        }
    }
}

#[test]
fn what_may_be_chance_does_not_fail() {
    let (mut base, mut new) = (Diary::new(), Diary::later());
    for round in 1..=10 {
        // Both wander by a factor of two; the medians differ by a tenth.
        let nanos = 700_000 + (round as u64 * 7 % 10) * 90_000;
        base.timed(round, "hot-64", Figures { nanos, ..PLAIN });
        new.timed(round, "hot-64", Figures { nanos: nanos + 110_000, ..PLAIN });
    }
    let output = gate("gate-chance", &base, &new, &[]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("; 1 may have, or that is chance"), "{text}");
    assert!(table(&text, "Perhaps worse").contains("hot-64"), "{text}");
}

#[test]
fn a_few_runs_fail_for_nothing_and_say_so() {
    let (mut base, mut new) = (Diary::new(), Diary::later());
    for round in 1..=5 {
        base.timed(round, "hot-64", PLAIN);
        new.timed(round, "hot-64", Figures { nanos: 3_000_000, ..PLAIN });
    }
    let output = gate("gate-few", &base, &new, &[]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("Fewer than 6 runs on a side say nothing at 95 %"), "{text}");
    assert!(table(&text, "Perhaps worse").contains("too few runs"), "{text}");
}

#[test]
fn tails_and_peaks_have_limits_of_their_own() {
    let tails = |p99| Figures { p99: Some(p99), ..PLAIN };
    for (p99, code) in [(1_080, 0), (1_200, 1)] {
        let (base, new) = pair(tails(1_000), tails(p99));
        let output = gate("gate-tails", &base, &new, &[]);
        let text = stdout(&output);
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(code == 0 || table(&text, TOO_MUCH).contains("P99 of malloc"), "{text}");
    }
    for (peak, more, code) in [(104, &[][..], 0), (107, &[], 1), (107, &["--max-peak", "10"], 0)] {
        let (base, new) = pair(Figures { peak: 100 << 20, ..PLAIN }, Figures { peak: peak << 20, ..PLAIN });
        let output = gate("gate-peak", &base, &new, more);
        let text = stdout(&output);
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(code == 0 || table(&text, TOO_MUCH).contains("peak memory"), "{text}");
    }
}

#[test]
fn a_row_that_is_missing_or_fails_now_fails() {
    let (mut base, mut new) = pair(PLAIN, PLAIN);
    base.rows = vec!["hot-64", "strings", "large"];
    base.ten("strings", PLAIN).ten("large", PLAIN);
    new.rows = vec!["hot-64", "large", "zeroed"];
    new.ten("zeroed", PLAIN).timed(1, "large", PLAIN).line(
        2,
        "freestone",
        "large",
        "timed",
        r#"{"failed":"signal: 11 (SIGSEGV)"}"#,
    );
    let output = gate("gate-missing", &base, &new, &[]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("strings on freestone was measured before, and is missing now"), "{text}");
    assert!(text.contains("large on freestone was measured before, and fails now: signal: 11 (SIGSEGV)"), "{text}");
    assert!(text.starts_with("Gate failed: 2 of the rows that were there before are not."), "{text}");
    // What is new is nobody's fault, nor is what failed before as well.
    assert!(!text.contains("zeroed"), "{text}");
    let mut base = Diary::new();
    base.rows = vec!["hot-64", "large"];
    base.ten("hot-64", PLAIN).line(1, "freestone", "large", "timed", r#"{"failed":"no"}"#);
    assert_eq!(gate("gate-failed-before", &base, &new, &[]).status.code(), Some(0));
}

#[test]
fn sessions_that_differ_in_more_than_the_change_are_not_compared_by_time() {
    let (base, new) = pair(PLAIN, PLAIN);
    let cases = [
        (
            Diary { cpu: "A Better CPU", ..new.clone() },
            "were measured on different machines (processor: A Fine CPU and A Better CPU)",
        ),
        (Diary { percent: 50, ..new.clone() }, "did different amounts of work (percent: 100 and 50)"),
        (
            Diary { environment: r#""FREESTONE=retain:off""#, ..new.clone() },
            "had different environments (variables: none and FREESTONE=retain:off)",
        ),
    ];
    for (new, reason) in cases {
        let output = gate("gate-elsewhere", &base, &new, &[]);
        assert_eq!(
            stderr(&output),
            format!(
                "freestone-bench: the two sessions {reason}, so times and memory are not compared, and there is nothing else\n"
            )
        );
        assert_eq!(output.status.code(), Some(2));
        // Instructions are the same everywhere.
        let (mut base, mut new) = (base.clone(), new);
        base.instructions("hot-64", 100_000, 2);
        new.instructions("hot-64", 100_100, 2);
        let output = gate("gate-elsewhere-instructions", &base, &new, &[]);
        let text = stdout(&output);
        assert_eq!(output.status.code(), Some(0), "{text}");
        assert!(text.contains("only instructions are compared"), "{text}");
        assert!(text.contains("none of 1 figure got worse"), "{text}");
    }
    let mut other = Diary::later();
    other.rows = vec!["hot-64 streams=2"];
    other.ten("hot-64 streams=2", PLAIN);
    let said = stderr(&gate("gate-parameters", &base, &other, &[]));
    assert_eq!(
        said,
        "freestone-bench: 'hot-64' was measured before and 'hot-64 streams=2' after: different parameters are not compared\n"
    );
}

#[test]
fn instructions_are_exact_and_say_what_they_depend_on() {
    let counted = |instructions, rustc, percent| {
        let mut diary = Diary { rustc, ..Diary::later() };
        diary.instructions("hot-64", instructions, percent);
        diary
    };
    let base = counted(100_000, "1.95.0", 2);
    for (instructions, more, code) in
        [(100_900, &[][..], 0), (101_200, &[], 1), (101_200, &["--max-instructions", "2"], 0), (90_000, &[], 0)]
    {
        let output = gate("gate-instructions", &base, &counted(instructions, "1.95.0", 2), more);
        let text = stdout(&output);
        assert_eq!(output.status.code(), Some(code), "{text}");
        if code == 1 {
            let line = table(&text, TOO_MUCH).split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(line.ends_with("hot-64 freestone instructions per operation 100.00 101.20 +1.20 % exact"), "{line}");
        }
    }
    let output = gate("gate-compiler", &base, &counted(150_000, "1.96.0", 2), &[]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(
        text.contains("the base was built with rustc 1.95.0 and glibc 2.36, and this with rustc 1.96.0 and glibc 2.36"),
        "{text}"
    );
    assert!(table(&text, "Not to be concluded from (1)").contains("+50.00 %"), "{text}");
    // A share of the operations has its own share of what a process does once.
    let text = stdout(&gate("gate-share", &base, &counted(150_000, "1.95.0", 1), &[]));
    assert!(!text.contains("+50"), "{text}");
}

/// A change that planted more work in a class of 64 bytes, and calls.
fn planted() -> (Diary, Diary) {
    let (mut base, mut new) = pair(
        Figures {
            notes: r#""slow.refills":1000,"slow.flushes":500,"class.64.allocations":30000,"class.64.span_bytes":65536,"class.80.allocations":10"#,
            ..PLAIN
        },
        Figures {
            nanos: 1_300_000,
            notes: r#""slow.refills":4000,"slow.flushes":500,"class.64.allocations":30000,"class.64.span_bytes":262144,"class.80.allocations":10"#,
            ..PLAIN
        },
    );
    base.calls("hot-64", r#""madvise":3,"mmap":20"#);
    new.calls("hot-64", r#""madvise":300,"mmap":21,"munmap":9"#);
    (base, new)
}

#[test]
fn a_failure_names_classes_slow_paths_and_calls() {
    let (base, new) = planted();
    let output = gate("gate-causes", &base, &new, &[]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let causes = text.split("Where it comes from, hot-64 on freestone").nth(1).expect("causes").trim_start();
    let lines: Vec<&str> = causes.lines().take(3).map(str::trim).collect();
    assert_eq!(
        lines,
        [
            "size classes: 64 B: span 64.0 KiB → 256 KiB",
            "slow paths: refills 1,000 → 4,000",
            "calls into the system: madvise 3 → 300; munmap 0 → 9",
        ],
    );
    // Nobody noted anything.
    let (base, new) = pair(PLAIN, Figures { nanos: 1_300_000, ..PLAIN });
    let text = stdout(&gate("gate-no-causes", &base, &new, &[]));
    assert!(text.contains("slow paths: not known: at least one side's allocator does not say"), "{text}");
    assert!(text.contains("calls into the system: not known: at least one side did not count them (--calls)"), "{text}");
}

#[test]
fn a_comment_begins_with_the_verdict_and_ends_with_where_it_comes_from() {
    let (mut base, mut new) = planted();
    base.rows.push("strings");
    new.rows.push("strings");
    base.ten("strings", PLAIN);
    new.ten("strings", Figures { nanos: 500_000, ..PLAIN });
    let path = folder("gate-comment-file").join("comment.md");
    let output = gate("gate-comment", &base, &new, &["--comment", &path.display().to_string()]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let text = fs::read_to_string(&path).expect("it was written");
    assert!(text.starts_with("<!-- freestone-bench gate -->\n### Gate **failed**: 1 of 4 figures got worse"), "{text}");
    let places: Vec<usize> = [
        "#### Worse by more than it may be (1)",
        "| hot-64 ",
        "**Where it comes from, hot-64 on freestone**",
        "- slow paths: refills 1,000 → 4,000",
        "<details><summary>Better (1)</summary>\n\n| row ",
        "</details>",
        "- Limits: throughput -5 %".trim_end_matches("throughput -5 %"),
        "- Before: ",
        "sources abc1234",
        "- After: ",
    ]
    .iter()
    .map(|part| text.find(part).unwrap_or_else(|| panic!("no '{part}' in\n{text}")))
    .collect();
    assert!(places.is_sorted(), "{places:?}\n{text}");
    assert!(stdout(&gate("gate-markdown", &base, &new, &["--markdown"])).starts_with("### Gate **failed**"));

    let nowhere = gate("gate-nowhere", &base, &new, &["--comment", "/nonexistent/comment.md"]);
    assert_eq!(nowhere.status.code(), Some(3));
    assert_eq!(
        stderr(&nowhere),
        "freestone-bench: cannot write /nonexistent/comment.md: No such file or directory (os error 2)\n"
    );
}

#[test]
fn a_hostile_file_gets_a_sentence_or_a_harmless_table() {
    let good = pair(PLAIN, PLAIN).0.text();
    let cut = &good[..good.len() * 2 / 3];
    let cases = [
        ("prose", "Dear diary,\n".to_owned()),
        ("empty", String::new()),
        ("cut", cut.to_owned()),
        ("deep", "[".repeat(100_000)),
        ("large", good.replace("1000000,", "99999999999999999999999,")),
    ];
    for (name, text) in &cases {
        for (base, new) in [(text, &good), (&good, text)] {
            let output = compare(&format!("gate-hostile-{name}"), base, new, &[]);
            assert_eq!(output.status.code(), Some(2), "{name}: {}", stderr(&output));
            assert_eq!(stderr(&output).lines().count(), 1, "{name}: {}", stderr(&output));
        }
    }
    // Numbers that nothing can be divided by, and the largest that are believed; and names that are more than that.
    let nothing = good
        .replace(r#""nanos":1"#, r#""nanos":0,"anonymous_bytes":1"#)
        .replace(r#""peak_rss_bytes":1"#, r#""peak_rss_bytes":0,"x":1"#);
    let none = compare("gate-none", &nothing, &nothing, &[]);
    assert_eq!(none.status.code(), Some(2), "{}{}", stdout(&none), stderr(&none));
    let largest = (1_u64 << 57).to_string();
    let huge = good.replace("10485760", &largest);
    assert_eq!(compare("gate-huge", &huge, &huge, &[]).status.code(), Some(0));
    let (base, new) = planted();
    let faults = |diary: &Diary| {
        let most = u64::MAX;
        diary.text().replace(r#""minor_faults":100,"major_faults":0"#, &format!(r#""minor_faults":{most},"major_faults":{most}"#))
    };
    assert_eq!(compare("gate-faults", &faults(&base), &faults(&new), &[]).status.code(), Some(1));

    let hostile = |diary: &Diary| diary.text().replace("hot-64", r"<script>|@all `x` \u001b[31m");
    let output = compare("gate-names", &hostile(&base), &hostile(&new), &["--markdown"]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(1), "{text}{}", stderr(&output));
    assert!(text.contains(r"&lt;script>\|&#64;all \`x\` ·\[31m"), "{text}");
    assert!(!text.contains("<script>") && !text.contains("@all") && !text.contains('\u{1b}'), "{text}");
}

#[test]
fn what_is_no_base_or_no_limit_gets_one_sentence() {
    let (base, new) = pair(PLAIN, PLAIN);
    let folder = folder("gate-misuse");
    let kept = folder.join("base.jsonl");
    fs::write(&kept, base.text()).expect("the folder is writable");
    let (kept, folder) = (kept.display().to_string(), folder.display().to_string());
    let sentences = [
        (
            vec!["--base", "no-such-thing"],
            "'no-such-thing' is neither a file or a folder nor a revision that git knows".to_owned(),
        ),
        (vec!["--base", &folder, "--new", &folder], format!("there is no subject-freestone in {folder}")),
        (
            vec!["--base", &kept],
            format!(
                "{kept} holds no instruction counts, and times are compared only by turns: give a revision, or files on both sides"
            ),
        ),
        (
            vec!["--base", &folder, "--new", &kept],
            "a build before and a file after cannot be compared: both have to be measured by turns".to_owned(),
        ),
        (vec!["--base", &folder, "--renew"], "--renew: the base has to be a file with instruction counts".to_owned()),
        (
            vec!["--base", &kept, "--new", &kept, "--max-slower", "NaN"],
            "--max-slower NaN is not a share in percent; 5 is one".to_owned(),
        ),
        (vec!["--base", &kept, "--new", &kept, "--max-peak=-3"], "--max-peak -3 is not a share in percent; 5 is one".to_owned()),
    ];
    for (arguments, sentence) in sentences {
        let output = harness(&[&["gate"], &*arguments].concat());
        assert_eq!(stderr(&output), format!("freestone-bench: {sentence}\n"));
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
    let output = gate("gate-subject", &base, &new, &["--subjects", "system"]);
    assert_eq!(stderr(&output), "freestone-bench: 'system' was not measured before\n");
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn freestone_that_is_gone_is_not_passed_over_for_another() {
    let (mut base, mut new) = (Diary::new(), Diary::later());
    base.subjects = vec!["system", "freestone"];
    new.subjects = vec!["system"];
    base.ten("hot-64", PLAIN);
    for diary in [&mut base, &mut new] {
        let outcome = r#"{"measured":{"operations":1000,"nanos":9000,"checksum":"aa","peak_rss_bytes":1,"minor_faults":1,"major_faults":0,"notes":{}}}"#;
        diary.line(1, "system", "hot-64", "timed", outcome);
    }
    let output = gate("gone", &base, &new, &[]);
    assert_eq!(output.status.code(), Some(1), "{}", stdout(&output));
    assert!(stdout(&output).contains("is missing now"), "{}", stdout(&output));
}

#[test]
fn a_row_that_crashes_fails_though_its_instructions_can_be_counted() {
    let (mut base, mut new) = (Diary::new(), Diary::later());
    base.timed(1, "hot-64", PLAIN).instructions("hot-64", 50_000, 2);
    // Another machine, so that only instructions are compared.
    new.cpu = "Another CPU";
    new.line(1, "freestone", "hot-64", "timed", r#"{"failed":"signal: 11 (SIGSEGV)"}"#).instructions("hot-64", 50_000, 2);
    let output = gate("crashes", &base, &new, &[]);
    assert_eq!(output.status.code(), Some(1), "{}", stdout(&output));
    assert!(stdout(&output).contains("fails now: signal: 11 (SIGSEGV)"), "{}", stdout(&output));
}

#[test]
fn results_that_change_from_run_to_run_fail_and_others_than_before_are_said() {
    let (base, new) = pair(PLAIN, PLAIN);
    let other = |text: String, runs: usize| text.replacen(r#""checksum":"aa""#, r#""checksum":"bb""#, runs);
    let output = compare("wanders", &base.text(), &other(new.text(), 3), &[]);
    assert_eq!(output.status.code(), Some(1), "{}", stdout(&output));
    assert!(stdout(&output).contains("computes different results from run to run"), "{}", stdout(&output));
    let output = compare("other", &base.text(), &other(new.text(), 10), &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stdout(&output));
    assert!(stdout(&output).contains("hot-64 on freestone computes something else than before."), "{}", stdout(&output));
}

#[test]
fn freestone_is_compared_unless_others_are_named() {
    let (mut base, mut new) = pair(PLAIN, PLAIN);
    for (diary, nanos) in [(&mut base, 1_000_000), (&mut new, 2_000_000)] {
        diary.subjects = vec!["system", "freestone"];
        let more: String = diary.runs.lines().map(|line| line.replace("freestone", "system") + "\n").collect();
        diary.runs += &more.replace(r#""nanos":1"#, &format!(r#""nanos":{}"#, nanos / 1_000_000));
    }
    assert_eq!(gate("gate-default", &base, &new, &[]).status.code(), Some(0));
    for subjects in ["all", "system", "freestone,system"] {
        let output = gate("gate-named", &base, &new, &["--subjects", subjects]);
        assert_eq!(output.status.code(), Some(1), "{subjects}: {}{}", stdout(&output), stderr(&output));
    }
}

/// A folder with a binary of Freestone's that takes so long for everything, and does `more` before it says so.
fn build(folder: &Path, name: &str, nanos: u64, more: &str) -> PathBuf {
    let build = folder.join(name);
    fs::create_dir_all(&build).expect("the folder is writable");
    let line = format!(
        r#"{{"version":"9","operations":1000,"nanos":{nanos},"checksum":"no","peak_rss_bytes":1048576,"anonymous_bytes":1,"minor_faults":1,"major_faults":0,"notes":{{}}}}"#
    );
    let path = build.join("subject-freestone");
    fs::write(&path, format!("#!/bin/sh\necho '{line}'\n{more}\n")).expect("the folder is writable");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("the file is ours");
    build
}

#[test]
fn two_builds_run_by_turns_and_what_got_worse_runs_once_more_to_count_its_calls() {
    let folder = folder("gate-builds");
    let base = build(&folder, "base", 1_000_000, "").display().to_string();
    // Another program altogether, with other calls.
    let new = build(&folder, "new", 1_200_000, "exec ls -lR /proc/self/fdinfo >/dev/null").display().to_string();
    let kept = folder.join("kept.jsonl");
    let json = kept.display().to_string();
    let asked = ["--workloads", "batch-100", "--repetitions", "6", "--percent", "1", "--json", &json];
    let run = |base: &str, new: &str| harness(&[&["gate", "--base", base, "--new", new], &asked[..]].concat());
    let output = run(&base, &new);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(1), "{text}{}", stderr(&output));
    assert!(table(&text, TOO_MUCH).contains("batch-100"), "{text}");
    assert!(text.contains("Both ran in one session, by turns"), "{text}");
    let records = fs::read_to_string(&kept).expect("it was kept");
    assert_eq!(records.lines().filter(|line| line.contains(r#""record":"run""#) && !line.contains(r#""view""#)).count(), 12);
    if stderr(&output).contains("are not counted") {
        eprintln!("nobody may trace here: {}", stderr(&output));
    } else {
        assert!(text.contains("calls into the system: "), "{text}");
        assert!(text.contains(" mmap ") && text.contains(" → "), "{text}");
        assert_eq!(records.lines().filter(|line| line.contains(r#""view":"calls""#)).count(), 2);
    }
    assert_eq!(run(&base, &base).status.code(), Some(0), "a build is as good as itself");

    let broken = build(&folder, "broken", 1, "exit 9").display().to_string();
    let output = run(&base, &broken);
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).ends_with("does not run: exit status: 9\n"), "{}", stderr(&output));
}
