//! The report at exit: programs that call `init` say what is still there when `FREESTONE_LEAK_REPORT=1` asks for it, and nothing otherwise.

use std::hint::black_box;
use std::process::{Command, Output, Stdio};

use freestone::Freestone;

#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

/// What leaks, in a child.
#[test]
#[ignore = "the other test runs it, in a process of its own"]
fn program() {
    freestone_stats::init();
    freestone_stats::init();
    let _t = freestone_stats::tag("careless");
    for _ in 0..20_000 {
        std::mem::forget(black_box(vec![1_u8; 1000]));
        drop(black_box(vec![1_u8; 5000]));
    }
}

fn run(settings: &[(&str, &str)], stderr: Stdio) -> Output {
    let this = std::env::current_exe().expect("this program has a path");
    let mut command = Command::new(this);
    command.args(["--ignored", "--exact", "program"]).env_remove("FREESTONE").env_remove("FREESTONE_LEAK_REPORT");
    command.stdout(Stdio::null()).stderr(stderr);
    let output = command
        .envs(settings.iter().copied())
        .spawn()
        .and_then(std::process::Child::wait_with_output)
        .expect("this program runs");
    assert!(output.status.success(), "{output:?}");
    output
}

fn said(settings: &[(&str, &str)]) -> String {
    String::from_utf8(run(settings, Stdio::piped()).stderr).expect("it is text")
}

#[test]
fn who_asks_is_told_what_is_left() {
    let text = said(&[("FREESTONE_LEAK_REPORT", "1"), ("FREESTONE", "sample_interval:64KiB")]);
    let mut lines = text.lines();
    let head = lines.next().expect("there is a report");
    assert!(head.starts_with("freestone: at exit ") && head.contains(" (one every 64.0 KiB) at "), "{text}");
    let first = lines.next().expect("something is left");
    // 20,000 blocks of 1,024 bytes, by some 300 samples.
    assert!(first.starts_with("  1. ") && first.contains(", tag careless, the first "), "{text}");
    let blocks: f64 =
        first.split(" in ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok()).expect("a number of blocks");
    assert!((blocks - 20_000.0).abs() < 6_000.0, "{text}");
    assert!(lines.next().is_some_and(|frame| frame.starts_with("      ")), "{text}");
    assert_eq!(
        text.matches("tag careless").count(),
        1,
        "what was dropped is not left, and init twice is as good as once:\n{text}"
    );
    assert!(text.lines().count() < 300, "{text}");
}

#[test]
fn nobody_else_is() {
    assert_eq!(said(&[]), "");
    assert_eq!(said(&[("FREESTONE_LEAK_REPORT", "0")]), "");
    assert_eq!(
        said(&[("FREESTONE_LEAK_REPORT", "yes\nplease")]),
        "freestone: FREESTONE_LEAK_REPORT=yesplease is not understood; 1 asks for a report at exit\n"
    );
}

#[test]
fn without_samples_it_says_so() {
    let text = said(&[("FREESTONE_LEAK_REPORT", "1"), ("FREESTONE", "sample_interval:0")]);
    assert_eq!(text, "freestone: no report of leaks, as sampling is off\n");
}

#[test]
fn a_closed_standard_error_is_no_reason_to_fail() {
    // A pipe that nobody reads.
    let (reader, writer) = std::io::pipe().expect("there is room for a pipe");
    drop(reader);
    run(&[("FREESTONE_LEAK_REPORT", "1"), ("FREESTONE", "sample_interval:64KiB")], writer.into());
}
