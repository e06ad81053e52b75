//! Who takes part, as somebody meets it: that an allocator that is linked and not in use is refused, that everyone is built by a call of cargo of
//! his own and nobody's failing stops the others, and that knobs reach those they are for.

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output};

use common::{folder, harness, stderr, stdout};

/// What a subject says that does one operation in a nanosecond.
const LINE: &str = r#"{"version":"VERSION","operations":1,"nanos":NANOS,"checksum":"no","peak_rss_bytes":1048576,"anonymous_bytes":1,"minor_faults":1,"major_faults":0,"notes":{}}"#;

fn script(path: &Path, text: &str) {
    fs::write(path, format!("#!/bin/sh\n{text}\n")).expect("the folder is writable");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("the file is ours");
}

/// A program that passes for a subject, and takes what `version` is in a shell for its version.
fn impostor(folder: &Path, subject: &str, version: &str, nanos: &str) {
    let line = LINE.replace("VERSION", "'\"$version\"'").replace("NANOS", nanos);
    script(&folder.join(format!("subject-{subject}")), &format!("version=\"{version}\"\necho '{line}'"));
}

fn session(folder: &Path, more: &[&str]) -> Output {
    let (binaries, kept) = (folder.display().to_string(), folder.join("kept.jsonl").display().to_string());
    let mut arguments = vec!["--prebuilt", &binaries, "--json", &kept, "--workloads", "hot-64", "--percent", "1"];
    arguments.extend(["--repetitions", "1", "--seed", "1"]);
    arguments.extend(more);
    harness(&arguments)
}

/// Runs a subject's binary by itself, under an environment of one variable at most.
fn alone(program: &Path, variable: Option<(&str, &str)>) -> Output {
    let mut subject = Command::new(program);
    subject.args(["hot-64", "1", ""]).env_clear().envs(variable);
    subject.output().expect("the subject was built")
}

/// Peers are in there whose feature this test was built with.
const LINKED: &[(&str, bool)] = &[
    ("freestone", true),
    ("freestone-checked", true),
    ("jemalloc", cfg!(feature = "jemalloc")),
    ("jemalloc-stats", cfg!(feature = "jemalloc-stats")),
    ("mimalloc", cfg!(feature = "mimalloc")),
    ("mimalloc-v2", cfg!(feature = "mimalloc")),
    ("rpmalloc", cfg!(feature = "rpmalloc")),
    ("rusty-alloc", cfg!(feature = "rusty-alloc")),
    ("snmalloc", cfg!(feature = "snmalloc")),
    ("stoolap-jemalloc", cfg!(feature = "stoolap-jemalloc")),
    ("tcmalloc", cfg!(feature = "tcmalloc")),
];

#[test]
fn who_is_linked_and_not_registered_is_refused_by_his_own_proof() {
    let folder = folder("refused");
    for (subject, _) in LINKED.iter().filter(|(_, is_linked)| *is_linked) {
        let program = folder.join(format!("subject-{subject}"));
        symlink(env!("CARGO_BIN_EXE_unregistered"), &program).expect("the folder is writable");
        let output = alone(&program, None);
        let said = stderr(&output);
        assert!(said.starts_with(&format!("this binary does not run on {subject}: ")), "{subject}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert_eq!(output.status.code(), Some(3), "{subject}");
        assert!(output.stdout.is_empty(), "{}", stdout(&output));
    }
}

#[test]
fn who_is_refused_is_never_measured() {
    let folder = folder("unregistered");
    symlink(env!("CARGO_BIN_EXE_subject-system"), folder.join("subject-system")).expect("the folder is writable");
    symlink(env!("CARGO_BIN_EXE_unregistered"), folder.join("subject-freestone")).expect("the folder is writable");
    let output = session(&folder, &["--subjects", "system,freestone"]);
    let reason = if cfg!(feature = "checked") { "it was built to check every free" } else { "of 10 boxes it served 0" };
    let (said, refused) = (stderr(&output), format!("this binary does not run on freestone: {reason}\n"));
    assert!(said.lines().any(|line| line.starts_with("freestone is left out: ")) && said.contains(&refused), "{said}");
    assert_eq!(output.status.code(), Some(3));
    assert!(stdout(&output).contains("Left out"), "{}", stdout(&output));
    let kept = fs::read_to_string(folder.join("kept.jsonl")).expect("the other one was measured");
    assert!(
        kept.lines().filter(|line| line.contains("\"record\":\"run\"")).all(|line| line.contains("\"subject\":\"system")),
        "{kept}"
    );
}

#[test]
fn plain_freestone_does_not_run_with_the_checks_of_the_other_build() {
    let output = alone(Path::new(env!("CARGO_BIN_EXE_subject-freestone")), None);
    if cfg!(feature = "checked") {
        assert_eq!(stderr(&output), "this binary does not run on freestone: it was built to check every free\n");
    } else {
        assert!(stdout(&output).contains(concat!("\"version\":\"", env!("CARGO_PKG_VERSION"), "\"")), "{}", stdout(&output));
    }
}

#[test]
fn what_is_in_use_is_noted_at_the_end_by_who_can_say() {
    let system = alone(Path::new(env!("CARGO_BIN_EXE_subject-system")), None);
    let line: serde_json::Value = serde_json::from_slice(&system.stdout).expect("one line");
    // The harness' own strings, and no more than that.
    let in_use = line["notes"]["heap_in_use_bytes"].as_u64();
    assert!(!cfg!(target_env = "gnu") || in_use.is_some_and(|bytes| (1 << 10..1 << 20).contains(&bytes)), "{line}");
    if cfg!(not(feature = "checked")) {
        let freestone = alone(Path::new(env!("CARGO_BIN_EXE_subject-freestone")), None);
        let line: serde_json::Value = serde_json::from_slice(&freestone.stdout).expect("one line");
        let (operations, allocations) = (line["operations"].as_u64(), line["notes"]["allocations"].as_u64());
        assert!(operations > Some(1000) && allocations > operations, "{line}");
        let in_use = line["notes"]["heap_in_use_bytes"].as_u64().expect("it counts");
        assert!((1 << 8..1 << 20).contains(&in_use), "{line}");
    }
}

/// A cargo that builds impostors, and of `rpmalloc` nothing. It writes down what it was asked for.
fn cargo(folder: &Path) -> String {
    let line = LINE.replace("VERSION", "1").replace("NANOS", "5");
    let text = format!(
        r#"here="{}"
[ "$1" = build ] || exit 1
echo "$*" >> "$here/calls"
case "$*" in *"--features rpmalloc"*) echo "error: no C compiler, of all things" >&2; exit 101;; esac
while [ $# -gt 0 ]; do
  if [ "$1" = --bin ]; then
    printf '#!/bin/sh\necho '"'"'%s'"'"'\n' '{line}' > "$here/$2"; chmod 755 "$here/$2"
    printf '{{"reason":"compiler-artifact","target":{{"name":"%s"}},"executable":"%s"}}\n' "$2" "$here/$2"
  fi
  shift
done"#,
        folder.display()
    );
    script(&folder.join("cargo"), &text);
    folder.join("cargo").display().to_string()
}

#[test]
fn everyone_is_built_by_a_call_of_his_own_and_who_fails_is_left_out() {
    let folder = folder("everyone");
    let kept = folder.join("kept.jsonl").display().to_string();
    let run = |subjects: &str| {
        let mut harness = Command::new(env!("CARGO_BIN_EXE_freestone-bench"));
        harness.args(["--subjects", subjects, "--workloads", "hot-64", "--repetitions", "1", "--json", &kept]);
        harness.env("CARGO", cargo(&folder)).env("RUSTC", "rustc").output().expect("the harness was built")
    };
    let output = run("all");
    let said = stderr(&output);
    assert!(said.contains("rpmalloc does not build; cargo says:\nerror: no C compiler, of all things\n"), "{said}");
    assert!(said.contains("rpmalloc is left out: it does not build here, which takes a C compiler"), "{said}");
    assert_eq!(output.status.code(), Some(0), "nobody named it: {said}");
    let text = stdout(&output);
    for subject in
        ["system", "jemalloc-stats", "mimalloc-v2", "tcmalloc", "rusty-alloc", "freestone-profiled", "freestone-checked"]
    {
        assert!(text.contains(&format!("{subject} 1")), "{subject}: {text}");
    }

    // No call has two features, and what is on by one is in no other's binary.
    let calls = fs::read_to_string(folder.join("calls")).expect("it was called");
    let calls: Vec<(Vec<&str>, Vec<&str>)> = calls
        .lines()
        .map(|call| {
            let words: Vec<&str> = call.split(' ').collect();
            let behind = |option: &str| words.windows(2).filter(|pair| pair[0] == option).map(|pair| pair[1]).collect::<Vec<_>>();
            (behind("--features"), behind("--bin"))
        })
        .collect();
    assert_eq!(calls[0], (vec![], vec!["subject-freestone", "subject-system"]));
    for (features, binaries) in &calls[1..] {
        let [feature] = features[..] else { panic!("one feature a call: {features:?}") };
        let name = if feature == "checked" { "freestone-checked" } else { feature };
        assert_eq!(binaries[..], [format!("subject-{name}")], "{feature}");
    }
    assert_eq!(calls.len(), 1 + 10);

    assert_eq!(run("rpmalloc,system").status.code(), Some(3), "who names it misses it");
}

#[test]
fn everyone_who_was_built_before_is_who_is_there() {
    let folder = folder("prebuilt");
    impostor(&folder, "system", "1", "5");
    impostor(&folder, "tcmalloc", "1", "5");
    let output = session(&folder, &["--subjects", "all"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stdout(&output).contains("tcmalloc 1"), "{}", stdout(&output));
    assert!(stderr(&output).contains("jemalloc is left out: there is no subject-jemalloc in "), "{}", stderr(&output));
    let output = session(&folder, &["--subjects", "system,jemalloc"]);
    assert!(stderr(&output).starts_with("freestone-bench: there is no subject-jemalloc in "), "{}", stderr(&output));
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn knobs_are_turned_in_a_table_of_its_own_and_stand_in_the_record() {
    let folder = folder("tuned");
    impostor(&folder, "system", "9 $GLIBC_TUNABLES", "9");
    impostor(&folder, "jemalloc", "8 $_RJEM_MALLOC_CONF", "8");
    impostor(&folder, "mimalloc", "7 $MIMALLOC_PURGE_DELAY", "7");
    impostor(&folder, "freestone", "5 $FREESTONE", "5");
    let output = session(&folder, &["--tuned"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    let kept = fs::read_to_string(folder.join("kept.jsonl")).expect("it was kept");
    let record: serde_json::Value = serde_json::from_str(kept.lines().next().expect("there is a session")).expect("a record");
    let subjects = record["subjects"].as_array().expect("several").iter();
    let subjects: Vec<_> = subjects.filter(|its| its["subject"].as_str().is_some_and(|name| !name.ends_with(" again"))).collect();
    for (its, name) in subjects.iter().zip(["system-tuned", "jemalloc-tuned", "mimalloc-tuned", "freestone-tuned"]) {
        assert_eq!(its["subject"], name);
        let (_, got) = its["version"].as_str().and_then(|version| version.split_once(' ')).expect("it says what it got");
        let (_, option) = its["option"].as_str().and_then(|option| option.split_once('=')).expect("the record says what it was");
        assert_eq!(got, option, "{name}");
        assert!(text.contains(option), "{text}");
    }
    assert_eq!(subjects.len(), 4);
    // Tuned Freestone is compared with the best of those that are tuned, too …
    let row = text.lines().find(|line| line.trim_start().starts_with("hot-64")).expect("there is a row").to_owned();
    assert!(row.contains("mimalloc-tuned"), "{row}");
    // … and plain Freestone with none of them.
    let output = session(&folder, &["--subjects", "system,mimalloc-tuned,freestone"]);
    let text = stdout(&output);
    let row = text.lines().find(|line| line.trim_start().starts_with("hot-64")).expect("there is a row").to_owned();
    assert!(row.contains("system") && !row.contains("mimalloc-tuned"), "{row}");
    let output = session(&folder, &["--subjects", "snmalloc", "--tuned"]);
    assert_eq!(stderr(&output), "freestone-bench: none of these subjects has knobs; --list names those that have\n");
    assert_eq!(output.status.code(), Some(2));
}

#[cfg(feature = "jemalloc")]
#[test]
fn a_knob_that_jemalloc_does_not_turn_is_found_out() {
    let jemalloc = |knobs: &str| alone(Path::new(env!("CARGO_BIN_EXE_subject-jemalloc")), Some(("_RJEM_MALLOC_CONF", knobs)));
    let tuned = jemalloc("background_thread:true,metadata_thp:auto,dirty_decay_ms:30000,muzzy_decay_ms:30000,abort_conf:true");
    assert!(tuned.status.success(), "{}", stderr(&tuned));
    let wrong = jemalloc("no_such_knob:1");
    assert!(stderr(&wrong).contains("it has no knob no_such_knob with a value like 1"), "{}", stderr(&wrong));
    assert_eq!(wrong.status.code(), Some(3));
    let out_of_range = jemalloc("dirty_decay_ms:-77");
    assert!(stderr(&out_of_range).contains("not -77 as was asked"), "{}", stderr(&out_of_range));
}

#[cfg(feature = "mimalloc")]
#[test]
fn a_knob_that_mimalloc_does_not_turn_is_found_out() {
    let mimalloc = |delay: &str| {
        let name = if cfg!(feature = "mimalloc-v2") { "subject-mimalloc-v2" } else { "subject-mimalloc" };
        let program = Path::new(env!("CARGO_BIN_EXE_subject-mimalloc")).with_file_name(name);
        alone(&program, Some(("MIMALLOC_PURGE_DELAY", delay)))
    };
    let tuned = mimalloc("30000");
    assert!(tuned.status.success(), "{}", stderr(&tuned));
    let wrong = mimalloc("soon");
    assert!(stderr(&wrong).contains("not soon as was asked"), "{}", stderr(&wrong));
    assert_eq!(wrong.status.code(), Some(3));
}
