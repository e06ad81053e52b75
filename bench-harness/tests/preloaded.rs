//! What is preloaded, as somebody meets it: what is said when asked for what there is not, that a library that does not serve memory is
//! found out, and that processes are measured for themselves.

mod common;
#[path = "common/table.rs"]
mod table;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use common::{folder, harness, stderr, stdout};
use table::cells;

/// A session on the C library's malloc alone, kept in an empty folder.
fn session(folder: &Path, arguments: &[&str]) -> Output {
    let kept = folder.join("kept.jsonl").display().to_string();
    let (verb, more) = arguments.split_first().expect("there is a verb");
    let mut all = vec![*verb, "--json", &kept, "--only", "system", "--repetitions", "2", "--seed", "1"];
    all.extend(more);
    harness(&all)
}

fn records(folder: &Path) -> Vec<serde_json::Value> {
    let kept = fs::read_to_string(folder.join("kept.jsonl")).expect("it was kept");
    kept.lines().map(|line| serde_json::from_str(line).expect("every line is a record")).collect()
}

#[test]
fn a_wrong_command_line_gets_one_sentence() {
    let prose = folder("prose-library").join("prose.so");
    fs::write(&prose, "Dear diary,\n").expect("the folder is writable");
    let prose = prose.display().to_string();
    let (given, no_library) = (format!("other={prose}"), format!("{prose} is not a shared library of this machine"));
    let help = "; --help shows what there is";
    let cases: &[(&[&str], &str)] = &[
        (&["program"], &format!("the following required arguments were not provided: <COMMAND>...{help}")),
        (&["program", "--", "no-such-command"], "there is no command 'no-such-command'"),
        (&["program", "--", "/etc/passwd"], "there is no command '/etc/passwd'"),
        (
            &["program", "--subject", "other", "--", "true"],
            &format!("invalid value 'other' for '--subject <NAME=FILE>': it is not of the form NAME=FILE{help}"),
        ),
        (
            &["program", "--subject", "other=/no/such/file.so", "--", "true"],
            "there is no library /no/such/file.so for the subject 'other'",
        ),
        (&["program", "--subject", "other=no-such.so", "--", "true"], "there is no library no-such.so for the subject 'other'"),
        (&["program", "--subject", &given, "--", "true"], &no_library),
        (&["program", "--subject", "system=libm.so.6", "--", "true"], "there are two subjects named 'system'"),
        (&["program", "--subject", "a=libm.so.6", "--subject", "a=libc.so.6", "--", "true"], "there are two subjects named 'a'"),
        (&["program", "--only", "other", "--", "true"], "there is no subject 'other'; they are system, freestone"),
        (&["patterns", "lars0n"], "there is no pattern 'lars0n'; patterns --list names them"),
        (&["patterns", ""], "there is no pattern ''; patterns --list names them"),
        (&["patterns", "--threads", "0"], &format!("invalid value '0' for '--threads <N>': 0 is not in 1..=256{help}")),
        (&["patterns", "--subject", "system=libm.so.6"], "there are two subjects named 'system'"),
    ];
    for (arguments, sentence) in cases {
        let output = harness(arguments);
        assert_eq!(stderr(&output), format!("freestone-bench: {sentence}\n"));
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_library_that_somebody_preloads_already_is_refused() {
    let mut harness = Command::new(env!("CARGO_BIN_EXE_freestone-bench"));
    let output = harness.args(["program", "--only", "system", "--", "true"]).env("LD_PRELOAD", "libm.so.6").output();
    let output = output.expect("the harness was built");
    assert!(stderr(&output).contains("LD_PRELOAD is set already, to 'libm.so.6'"), "{}", stderr(&output));
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_library_that_does_not_serve_memory_is_found_out() {
    let output = harness(&["program", "--subject", "math=libm.so.6", "--only", "math", "--", "true"]);
    let said = stderr(&output);
    assert!(said.contains("math does not serve memory"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn a_command_is_measured_kept_and_reported() {
    let folder = folder("command");
    let output = session(&folder, &["program", "--", "true"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(text.contains("Command: true"), "{text}");
    assert!(text.lines().any(|line| line.trim_start().starts_with("system again")), "{text}");
    let records = records(&folder);
    assert_eq!(records.len(), 1 + 4 + 1);
    for run in &records[1..5] {
        assert_eq!(run["outcome"]["measured"]["checksum"], "exit status: 0");
        assert!(run["outcome"]["measured"]["minor_faults"].as_u64() > Some(0), "{run}");
    }
    let again = harness(&["report", &folder.join("kept.jsonl").display().to_string()]);
    assert!(text.starts_with(&stdout(&again)), "a report is what was printed:\n{}", stdout(&again));
}

#[test]
fn patterns_run_in_processes_of_their_own_and_are_reported() {
    let folder = folder("patterns");
    let output = session(&folder, &["patterns", "--percent", "1", "cfrac", "cache*"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    let rows = |text: &str, name: &str| text.lines().filter(|line| line.trim_start().starts_with(name)).count();
    for name in ["cfrac", "cache-scratch", "cache-thrash", "geometric mean"] {
        assert_eq!(rows(&text, name), 3, "time, processor time and memory of {name}:\n{text}");
    }
    assert_eq!(rows(&text, "larson"), 0);
    assert_eq!(records(&folder).len(), 1 + 6 + 1);
    let again = harness(&["report", &folder.join("kept.jsonl").display().to_string()]);
    assert!(text.starts_with(&stdout(&again)), "a report is what was printed:\n{}", stdout(&again));
}

#[test]
fn the_list_of_patterns_says_what_they_do() {
    let list = stdout(&harness(&["patterns", "--list"]));
    assert!(list.lines().any(|line| line.starts_with("larson ") && line.contains("4 threads")), "{list}");
}

#[test]
fn what_a_command_prints_goes_where_it_was_asked_to() {
    let folder = folder("prints");
    let printed = folder.join("printed").display().to_string();
    let output = session(&folder, &["program", "--output", &printed, "--", "sh", "-c", "echo well; echo so >&2"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(fs::read_to_string(&printed).expect("it was written"), "well\nso\n".repeat(4));
}

#[test]
fn a_command_that_always_fails_is_measured_and_said_to_fail() {
    let output = session(&folder("fails"), &["program", "--", "sh", "-c", "exit 3"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stdout(&output).contains("The command ended with exit status: 3 on every subject."), "{}", stdout(&output));
}

#[test]
fn a_command_that_ends_differently_is_an_error() {
    let folder = folder("differently");
    let mark = folder.join("mark").display().to_string();
    let output = session(&folder, &["program", "--", "mkdir", &mark]);
    assert_eq!(output.status.code(), Some(3));
    let said = stderr(&output);
    assert!(said.contains("ended differently: exit status: 0 on ") && said.contains("; exit status: 1 on "), "{said}");
}

#[test]
fn a_command_that_never_ends_is_given_up_with_all_that_it_started() {
    let folder = folder("never");
    let number = folder.join("number").display().to_string();
    let script = format!("sleep 1000 & echo $! > {number}; wait");
    let output = session(&folder, &["program", "--timeout", "1", "--", "sh", "-c", &script]);
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).contains("took more than 1 s"), "{}", stderr(&output));
    let number = fs::read_to_string(&number).expect("it was started");
    // It may still have to notice that it was ended, and whoever inherits it that it has: a matter of moments, where nothing else is to be done.
    let state = || fs::read_to_string(format!("/proc/{}/stat", number.trim())).unwrap_or_else(|_| ") Z".to_owned());
    let patience = Instant::now() + Duration::from_secs(10);
    while !state().contains(") Z") && Instant::now() < patience {
        thread::sleep(Duration::from_millis(10));
    }
    assert!(state().contains(") Z"), "{}", state());
}

/// The kernel lets a process inherit the peak of whoever executes it; see `child.rs`.
#[test]
fn a_peak_is_that_of_the_command_alone() {
    let held = vec![1_u8; 64 << 20];
    let output = harness(&["launch", "--", "true"]);
    assert!(std::hint::black_box(&held).iter().all(|byte| *byte == 1));
    let word: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one line");
    let peak = word["ran"]["peak_rss_bytes"].as_u64().expect("it ran");
    assert!((64 << 10..2 << 20).contains(&peak), "{peak} bytes");
}

/// The report of a session of six rounds, as it is kept. `runs` are a subject, a row, nanoseconds per noise, and MiB.
fn report(name: &str, kind: &str, subjects: &[&str], rows: &[&str], runs: &[(&str, &str, u64, u64)]) -> String {
    let machine = r#"{"cpu":"A Fine CPU","cores":2,"is_virtual":false,"memory_bytes":1073741824,"kernel":"Linux 6","huge_pages":"madvise","governor":null,"rustc":"1.95.0","load_average":"0 0 0"}"#;
    let date = "2026-01-01T00:00:00Z";
    let subjects: Vec<String> = subjects.iter().map(|subject| format!(r#"{{"subject":"{subject}","version":"1"}}"#)).collect();
    let mut lines = vec![format!(
        r#"{{"record":"session","date":"{date}","kind":"{kind}","commit":null,"machine":{machine},"seed":7,"repetitions":6,"percent":100,"workloads":{rows:?},"subjects":[{}],"left_out":[],"environment":[]}}"#,
        subjects.join(",")
    )];
    for (round, noise) in [100, 101, 102, 103, 104, 105].into_iter().enumerate() {
        for (subject, row, nanos, mib) in runs {
            lines.push(format!(
                r#"{{"record":"run","session":"{date}","date":"{date}","round":{},"subject":"{subject}","version":"1","workload":"{row}","outcome":{{"measured":{{"operations":1,"nanos":{},"checksum":"exit status: 0","peak_rss_bytes":{},"minor_faults":1234,"major_faults":0,"notes":{{"cpu_ns":{nanos}}}}}}}}}"#,
                round + 1,
                nanos * noise,
                mib << 20
            ));
        }
    }
    let path = folder(name).join("kept.jsonl");
    fs::write(&path, lines.join("\n")).expect("the folder is writable");
    let output = harness(&["report", &path.display().to_string()]);
    assert_eq!(stderr(&output), "");
    stdout(&output)
}

#[test]
fn a_command_is_compared_with_the_first_subject() {
    let runs = [("system", "cmd", 10_000, 10), ("system again", "cmd", 10_000, 10), ("other", "cmd", 5_000, 20)];
    let text = report("ratios", "program", &["system", "system again", "other"], &["cmd"], &runs);
    let title = "Command: cmd";
    assert_eq!(cells(&text, title, "system "), "1025 µs 10.0 µs 10.0 MiB 1,234 0");
    let other = "512 µs 0.50 (0.50–0.50) 5.00 µs 0.50 (0.50–0.50) 20.0 MiB 2.00 (2.00–2.00) 1,234 0";
    assert_eq!(cells(&text, title, "other"), other);
    assert!(cells(&text, title, "system again").contains("~ 1.00 (1.00–1.00)"), "{text}");
}

#[test]
fn patterns_are_compared_with_the_best_of_the_row() {
    let runs = [("a", "larson", 1_000, 8), ("b", "larson", 2_000, 4), ("a", "sh6", 4_000, 4), ("b", "sh6", 2_000, 4)];
    let text = report("best", "patterns", &["a", "b"], &["larson", "sh6"], &runs);
    assert_eq!(cells(&text, "Time\n", "larson"), "102 µs a 1 2.00 ±0%");
    assert_eq!(cells(&text, "Time\n", "sh6"), "205 µs b 2.00 ±0% 1");
    assert_eq!(cells(&text, "Time\n", "geometric mean"), "1.41 ±0% 1.41 ±0%");
    assert_eq!(cells(&text, "Peak memory", "larson"), "4.00 MiB b 2.00 ±0% 1");
    assert_eq!(cells(&text, "Peak memory", "sh6"), "4.00 MiB a 1 ~ 1.00 ±0%");
}

/// Compiles a file of Rust with the compiler of this workspace.
fn compile(folder: &Path, name: &str, text: &str, flags: &[&str]) -> String {
    let (source, product) = (folder.join(format!("{name}.rs")), folder.join(name).display().to_string());
    fs::write(&source, text).expect("the folder is writable");
    let mut rustc = Command::new("rustc");
    rustc
        .args(["--edition", "2024", "--crate-name", "made_by_a_test", "-C", "panic=abort", "-o", &product])
        .args(flags)
        .arg(&source);
    let output = rustc.output().expect("who runs tests has a compiler");
    assert!(output.status.success(), "{}", stderr(&output));
    product
}

/// A malloc that is a library's own, made of the C library's.
const LIBRARY: &str = r#"
use std::ffi::c_void;
unsafe extern "C" {
    fn __libc_malloc(size: usize) -> *mut c_void;
    fn __libc_calloc(count: usize, size: usize) -> *mut c_void;
    fn __libc_realloc(block: *mut c_void, size: usize) -> *mut c_void;
    fn __libc_free(block: *mut c_void);
    fn __libc_memalign(alignment: usize, size: usize) -> *mut c_void;
}
#[unsafe(no_mangle)]
extern "C" fn malloc(size: usize) -> *mut c_void { unsafe { __libc_malloc(size) } }
#[unsafe(no_mangle)]
extern "C" fn calloc(count: usize, size: usize) -> *mut c_void { unsafe { __libc_calloc(count, size) } }
#[unsafe(no_mangle)]
extern "C" fn realloc(block: *mut c_void, size: usize) -> *mut c_void { unsafe { __libc_realloc(block, size) } }
#[unsafe(no_mangle)]
extern "C" fn free(block: *mut c_void) { unsafe { __libc_free(block) } }
#[unsafe(no_mangle)]
extern "C" fn aligned_alloc(alignment: usize, size: usize) -> *mut c_void { unsafe { __libc_memalign(alignment, size) } }
#[unsafe(no_mangle)]
extern "C" fn posix_memalign(to: &mut *mut c_void, alignment: usize, size: usize) -> i32 {
    *to = unsafe { __libc_memalign(alignment, size) };
    0
}
"#;

/// The linker has no part in the start of a program that is linked statically: it runs on its own malloc whatever is preloaded.
#[cfg(target_env = "gnu")]
#[test]
fn a_command_that_no_library_gets_into_is_refused() {
    let folder = folder("static");
    let library = compile(&folder, "own.so", LIBRARY, &["--crate-type", "cdylib"]);
    let subject = format!("own={library}");
    let kept = folder.join("kept.jsonl").display().to_string();
    let run = |command: &str| {
        harness(&["program", "--json", &kept, "--subject", &subject, "--only", "own", "--repetitions", "1", "--", command])
    };
    let refused = run(&compile(&folder, "static", "fn main() {}", &["-C", "target-feature=+crt-static"]));
    let said = stderr(&refused);
    assert!(
        said.contains("own cannot be put into ") && said.contains("perhaps because the command is linked statically"),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1, "{said}");
    assert_eq!(refused.status.code(), Some(3));
    assert!(!folder.join("kept.jsonl").exists(), "nothing was measured");
    // It is the command that is at fault: another one runs on the library.
    let runs = run(&compile(&folder, "dynamic", "fn main() {}", &[]));
    assert!(runs.status.success(), "{}", stderr(&runs));
}
