//! `freestone-bench trace` as somebody meets it: what it makes of a log, and of what is none.

mod common;

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use common::{folder, harness, stderr, stdout};

/// A log as a service writes it, line by line.
struct Log(String);

impl Log {
    fn new() -> Self {
        Self("listening on :8080\n".to_owned())
    }

    fn line(mut self, pid: u32, kind: &str, t: f64, rest: &str) -> Self {
        writeln!(self.0, "freestone: trace v=1 kind={kind} pid={pid} t={t:.6} {rest} end").expect("a string takes everything");
        self
    }

    fn start(self, pid: u32) -> Self {
        let options = "check=sampled huge_pages=auto retain=25% retain_window=5.000000 retain_steps=8 background=auto memory_limit=1073741824 fuse=off";
        let rest =
            format!("unix=1795276660.949041 version=0.1.0 os_page=4096 {options} trace=2 trace_interval=1.000000 trace_fd=2");
        self.line(pid, "start", 0.0001, &rest)
    }

    /// A second in which so many blocks of 100 bytes were allocated, and at the end of which so many MiB live.
    fn second(self, pid: u32, t: f64, allocs: u64, mib: u64) -> Self {
        self.noted(pid, t, allocs, mib, 0, 0)
    }

    fn noted(self, pid: u32, t: f64, allocs: u64, mib: u64, anomalies: u64, lost: u64) -> Self {
        let (live, committed, resident) = (mib << 20, (mib + 1) << 20, (mib + 2) << 20);
        let rest = format!(
            "dt=1.000000 allocs={allocs} frees=0 alloc_bytes={} free_bytes=0 live_blocks={allocs} live={live} thread_cached=0 depot=0 holes=1048576 dirty=0 metadata=0 profiler=0 lost_at_fork=0 committed={committed} released=0 resident={resident} threads=1 refills=1 flushes=1 os_calls=3 purges=1 refused=0 pauses=2 pause_longest=0.002500 release_rounds=1 release_bytes=1 release_took=0.000001 release_longest=0.000001 taken_bytes=0 assists=0 exceeded=0 fuse_trips=0 huge_page_pauses=0 allocs_total=1 frees_total=1 alloc_bytes_total=1 free_bytes_total=1 background_thread=1 approximate=0 anomalies={anomalies} lost={lost}",
            allocs * 100
        );
        self.line(pid, "interval", t, &rest)
    }

    /// Two processes, of which one is a child of the other.
    fn usual() -> Self {
        let released = |who: &str, bytes: u64| format!("who={who} bytes={bytes} calls=2 took=0.001500 longest=0.001000");
        let storm = |value: f64| format!("name=allocation_storm value={value:.3} threshold=5000.000 class=7 block=64");
        Self::new()
            .start(12)
            .second(12, 1.0, 1_000_000, 1)
            .second(12, 2.0, 3_000, 300)
            .line(12, "release", 2.1, &released("background", 8 << 20))
            .line(12, "release", 2.2, &released("background", 4 << 20))
            .start(77)
            .second(77, 2.5, 5, 1)
            .noted(12, 3.0, 1_000, 200, 1, 0)
            .line(12, "anomaly", 3.0, &storm(6_000.0))
            .line(12, "release", 3.1, &released("asked", 1 << 20))
            .noted(12, 4.0, 2_000, 100, 2, 5)
            .line(12, "anomaly", 4.0, &storm(21_000.5))
            .line(12, "anomaly", 4.0, "name=drought value=3.500 threshold=1.000")
    }
}

fn summed_up(name: &str, log: &[u8]) -> Output {
    let path = folder(name).join("log");
    fs::write(&path, log).expect("the folder is writable");
    harness(&["trace", &path.display().to_string()])
}

/// The cells of the row that begins so.
fn cells(text: &str, name: &str) -> String {
    let row = text.lines().find_map(|line| line.trim_start().strip_prefix(name));
    row.unwrap_or_else(|| panic!("no row '{name}' in\n{text}")).split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_summary_says_what_happened() {
    let output = summed_up("usual", Log::usual().0.as_bytes());
    assert_eq!((stderr(&output).as_str(), output.status.code()), ("", Some(0)));
    let text = stdout(&output);
    assert!(text.starts_with("Process 12, 4.0 s in 4 intervals, from 2026-11-21T15:57:40Z\n"), "{text}");
    assert!(text.contains("\nFreestone 0.1.0, retain:25%, memory_limit 1.00 GiB\n"), "{text}");
    assert_eq!(cells(&text, "live"), "1.00 MiB 300 MiB 100 MiB");
    assert_eq!(cells(&text, "committed"), "2.00 MiB 301 MiB 101 MiB");
    assert_eq!(cells(&text, "resident, files aside"), "3.00 MiB 302 MiB 102 MiB");
    assert_eq!(cells(&text, "allocations"), "1,000 2,500 1,000,000");
    assert_eq!(cells(&text, "bytes allocated"), "97.7 KiB 244 KiB 95.4 MiB");
    assert_eq!(cells(&text, "calls to the system"), "3 3 3");
    assert!(text.contains("\n1,006,000 blocks were allocated, 0 freed; 2,000 live at the end.\n"), "{text}");
    assert!(text.contains("\n8 slow paths took more than 0.1 ms, the longest 2.50 ms.\n"), "{text}");
    assert_eq!(cells(&text, "the background thread"), "2 4 12.0 MiB 3.00 ms 1.00 ms");
    assert_eq!(cells(&text, "who asked"), "1 2 1.00 MiB 1.50 ms 1.00 ms");
    let storm = "allocation_storm in 2 intervals from 3.0 s to 4.0 s\n  21,000 allocations/s per live block at worst, in blocks of 64 bytes; more than 5,000 is too much\n  blocks of one size";
    assert!(text.contains(storm), "{text}");
    assert!(
        text.contains("drought at 4.0 s\n  3.5 at worst; more than 1 is too much\n  a rule that this version does not know\n"),
        "{text}"
    );
    assert!(text.contains("\n5 lines of this trace nobody took"), "{text}");
    assert!(text.contains("\nProcess 77, 1.0 s in 1 interval, from "), "{text}");
    assert!(text.contains("\nNo anomalies.\n"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
}

#[test]
fn the_tables_are_markdown_when_asked_for() {
    let path = folder("trace-markdown").join("log");
    fs::write(&path, Log::usual().0).expect("the folder is writable");
    let text = stdout(&harness(&["trace", &path.display().to_string(), "--markdown"]));
    assert!(text.starts_with("## Process 12, ") && text.contains("\n### Anomalies\n"), "{text}");
    assert!(text.lines().any(|line| line.starts_with("| live ")), "{text}");
}

#[test]
fn a_log_is_read_from_the_standard_input_too() {
    let mut harness = Command::new(env!("CARGO_BIN_EXE_freestone-bench"))
        .args(["trace", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the harness was built");
    harness.stdin.take().expect("a pipe").write_all(Log::usual().0.as_bytes()).expect("it reads");
    let output = harness.wait_with_output().expect("it ends");
    assert!(output.status.success() && stdout(&output).starts_with("Process 12, "), "{output:?}");
}

#[test]
fn what_is_no_trace_gets_one_sentence() {
    let whole = Log::new().start(12).0;
    let cases: [(&str, &[u8], &str); 6] = [
        ("empty", b"", " is empty"),
        (
            "prose",
            b"Dear diary,\nall is well.\n",
            " has no line of a trace that can be read; FREESTONE=trace:1 makes a program on Freestone write one",
        ),
        (
            "later",
            b"x\nfreestone: trace v=2 kind=start end\n",
            " has no line of a trace that can be read; line 2: the line is of version '2' of the trace, and only version 1 is known here",
        ),
        ("stump", &whole.as_bytes()[..200], " has no line of a trace that can be read; its last line is one, but was cut off"),
        (
            "bytes",
            &[0xff; 10_000],
            " has no line of a trace that can be read; FREESTONE=trace:1 makes a program on Freestone write one",
        ),
        (
            "zeros",
            &[0; 10_000],
            " has no line of a trace that can be read; FREESTONE=trace:1 makes a program on Freestone write one",
        ),
    ];
    for (name, log, sentence) in cases {
        let output = summed_up(&format!("trace-{name}"), log);
        let said = stderr(&output);
        assert!(said.starts_with("freestone-bench: ") && said.ends_with(&format!("{sentence}\n")), "{said}");
        assert_eq!((said.lines().count(), output.status.code(), stdout(&output).as_str()), (1, Some(2), ""), "{name}");
    }
    for (path, reason) in [("nowhere.log", "No such file or directory"), ("/", "Is a directory")] {
        let output = harness(&["trace", path]);
        assert!(stderr(&output).starts_with(&format!("freestone-bench: cannot read {path}: {reason}")), "{}", stderr(&output));
        assert_eq!(output.status.code(), Some(2));
    }
    let output = harness(&["trace"]);
    assert_eq!((stderr(&output).lines().count(), output.status.code()), (1, Some(2)), "{}", stderr(&output));
}

#[test]
fn lines_that_cannot_be_read_are_counted_and_the_rest_is_summed_up() {
    let log = Log::usual().0.replacen("calls=2", "calls=two", 2).replacen("allocs=3000 ", "", 1);
    let output = summed_up("trace-unreadable", log.as_bytes());
    let said = "freestone-bench: 3 lines of the trace cannot be read; the first is line 4: the field 'allocs' is missing\n";
    assert_eq!((stderr(&output).as_str(), output.status.code()), (said, Some(2)));
    assert_eq!(cells(&stdout(&output), "live"), "1.00 MiB 200 MiB 100 MiB");
}

#[test]
fn a_log_that_ends_in_the_middle_is_said_to() {
    let whole = Log::new().start(12).second(12, 1.0, 1, 1).second(12, 2.0, 1, 2).second(12, 3.0, 1, 3).0;
    let output = summed_up("trace-cut", &whole.as_bytes()[..whole.len() - 20]);
    let text = stdout(&output);
    assert_eq!((stderr(&output).as_str(), output.status.code()), ("", Some(0)), "{text}");
    assert!(
        text.ends_with("\nThe last line of the log was cut off: the program ended while it wrote, or it is still writing.\n"),
        "{text}"
    );
    assert_eq!(cells(&text, "live"), "1.00 MiB 2.00 MiB 2.00 MiB");
    // The beginning may be missing as well, in a log that was moved away.
    let rotated = whole.splitn(3, '\n').nth(2).expect("there are more lines");
    let text = stdout(&summed_up("trace-rotated", rotated.as_bytes()));
    assert!(
        text.contains("The log begins in the middle of its trace.") && text.starts_with("Process 12, 3.0 s in 3 intervals\n"),
        "{text}"
    );
    // What happened before a trace began says nothing about a second.
    let late = Log::new().start(12).0 + &Log::new().second(12, 1.0, 9_000_000, 1).0.replace("dt=1.0", "dt=3.0");
    let text = stdout(&summed_up("trace-late", (late + &Log::new().second(12, 2.0, 5, 1).0).as_bytes()));
    assert_eq!(cells(&text, "allocations"), "5 5 5");
    let text = stdout(&summed_up("trace-short", Log::new().start(12).0.as_bytes()));
    assert!(text.contains("No interval was told"), "{text}");
}

#[test]
fn of_many_processes_those_that_tell_the_most_are_shown() {
    let mut log = Log::new();
    for pid in 1..=20 {
        log = log.start(pid).second(pid, 1.0, 1, 1);
    }
    log = log.second(20, 2.0, 1, 1);
    let text = stdout(&summed_up("trace-many", log.0.as_bytes()));
    assert_eq!(text.matches("Process ").count(), 8, "{text}");
    assert!(text.contains("Process 20, ") && text.contains("\n12 shorter traces are not shown.\n"), "{text}");
    // Some told nothing but who they were.
    let text = stdout(&summed_up("trace-brief", Log::usual().start(30).start(31).0.as_bytes()));
    assert_eq!(text.matches("Process ").count(), 2, "{text}");
    assert!(text.contains("\n2 more traces tell nothing but a beginning.\n"), "{text}");
    // The same process begins again: a program that changed its trace, or another one with its number.
    let text = stdout(&summed_up("trace-again", Log::usual().start(12).second(12, 9.0, 1, 1).0.as_bytes()));
    assert_eq!(text.matches("Process 12, ").count(), 2, "{text}");
}
