//! Records that somebody cut short, edited, or made to do harm: each gets one sentence with file and line, and what comes before it is shown.

mod common;

use std::fs;
use std::io::Write;

use common::{folder, harness, stderr, stdout};

const MACHINE: &str = r#"{"cpu":"A Fine CPU","cores":2,"is_virtual":false,"memory_bytes":1073741824,"kernel":"Linux 6","huge_pages":"madvise","governor":null,"rustc":"1.95.0","load_average":"0 0 0"}"#;

fn session() -> String {
    let subjects = r#"[{"subject":"system","version":"2"},{"subject":"freestone","version":"1"}]"#;
    format!(
        r#"{{"record":"session","date":"d","commit":null,"machine":{MACHINE},"seed":7,"repetitions":2,"percent":100,"workloads":["strings","hot-64"],"subjects":{subjects},"left_out":[],"environment":[]}}"#
    ) + "\n"
}

fn run(round: u64, subject: &str, workload: &str) -> String {
    let figures = r#""operations":10,"nanos":50,"checksum":"a","peak_rss_bytes":1048576,"minor_faults":0,"major_faults":0,"notes":{"faults":3}"#;
    format!(
        r#"{{"record":"run","session":"d","date":"d","round":{round},"subject":"{subject}","version":"1","workload":"{workload}","outcome":{{"measured":{{{figures}}}}}}}"#
    ) + "\n"
}

const END: &str = r#"{"record":"end","session":"d","seconds":60,"cores_of_others":0.0}
"#;

fn file(name: &str, bytes: impl AsRef<[u8]>) -> String {
    let path = folder(name).join("kept.jsonl");
    fs::write(&path, bytes).expect("the folder is writable");
    path.display().to_string()
}

/// What is wrong with a file, without its name: nothing is shown of it.
fn refused(name: &str, bytes: impl AsRef<[u8]>) -> String {
    let path = file(name, bytes);
    let output = harness(&["report", &path]);
    let said = stderr(&output);
    assert_eq!((output.status.code(), &*stdout(&output), said.lines().count()), (Some(2), "", 1), "{said}");
    said.trim_end().trim_start_matches("freestone-bench: ").replace(&path, "FILE")
}

/// What is wrong with a file whose first session has good runs in lines 2 and 3: they are shown, and nothing else.
fn shown(name: &str, rest: impl AsRef<[u8]>) -> String {
    let good = session() + &run(1, "system", "strings") + &run(1, "freestone", "strings");
    let path = file(name, [good.as_bytes(), rest.as_ref()].concat());
    let output = harness(&["report", &path]);
    let (text, said) = (stdout(&output), stderr(&output));
    assert_eq!((output.status.code(), said.lines().count()), (Some(2), 1), "{said}");
    let cells = |name| {
        text.lines()
            .find(|line| line.trim_start().starts_with(name))
            .map(|line| line.split_whitespace().skip(1).collect::<Vec<_>>().join(" "))
    };
    assert_eq!(cells("strings").as_deref(), Some("5.00 ns 5.00 ns 1.00 ? system"), "{text}");
    assert_eq!(cells("hot-64").as_deref(), Some("– – – – not comparable"), "{text}");
    assert!(text.contains("cut short: some runs are missing"), "{text}");
    let said = said.trim_end().trim_start_matches("freestone-bench: ").replace(&path, "FILE");
    said.strip_suffix("; the report is of what comes before it").unwrap_or_else(|| panic!("{said}")).to_owned()
}

#[test]
fn a_session_that_is_whole_is_well() {
    let text = session() + &run(1, "system", "strings") + &run(1, "freestone", "strings") + "\n" + END;
    let output = harness(&["report", &file("whole", text)]);
    assert_eq!((&*stderr(&output), output.status.code()), ("", Some(0)));
}

#[test]
fn half_a_line_at_the_end_is_left_out_and_said() {
    let line = run(1, "system", "hot-64");
    for (name, half) in [("half", &line.as_bytes()[..100]), ("almost", &line.as_bytes()[..line.len() - 2]), ("brace", b"{")] {
        assert_eq!(shown(&format!("cut-{name}"), half), "line 4 of FILE, its last one, was cut short");
    }
    // In the middle of a letter.
    let half = format!("{}µ", &line[..20]);
    assert_eq!(shown("cut-letter", &half.as_bytes()[..half.len() - 1]), "line 4 of FILE, its last one, was cut short");
    // Whole but for the end of the line.
    let text = session() + &run(1, "system", "strings") + END.trim_end();
    assert_eq!(harness(&["report", &file("cut-nothing", text)]).status.code(), Some(0));
    // With an end, it is no half of a line.
    assert!(shown("half-ended", "{\n").starts_with("line 4 of FILE is not a record of a session: EOF while parsing"));
}

#[test]
fn lines_that_are_no_records_end_their_session() {
    let rest = |wrong: &[u8]| [wrong, b"\n", run(2, "system", "hot-64").as_bytes(), END.as_bytes()].concat();
    let no_record = "line 4 of FILE is not a record of a session: ";
    for (index, wrong) in [
        "\0\0\0\0",
        "Dear diary,",
        "[]",
        "{}",
        r#"{"record":"pause"}"#,
        r#"{"record":"end","session":"d","seconds":99999999999999999999,"cores_of_others":0}"#,
        r#"{"record":"end","session":"d","seconds":1,"cores_of_others":1e999}"#,
        r#"{"record":"end","session":"d","seconds":-1,"cores_of_others":0}"#,
        &"[".repeat(100_000),
        &(r#"{"record":"end","session":"d","seconds":1,"cores_of_others":0,"x":"#.to_owned() + &"[".repeat(100_000)),
    ]
    .iter()
    .enumerate()
    {
        let said = shown(&format!("no-record-{index}"), rest(wrong.as_bytes()));
        assert!(said.starts_with(no_record), "{said}");
    }
    assert_eq!(shown("latin", rest(b"{\"record\":\"\xe9\"}")), "line 4 of FILE is not UTF-8");
}

#[test]
fn runs_that_do_not_fit_their_session_end_it() {
    let other = run(2, "system", "strings").replace(r#""session":"d""#, r#""session":"e""#);
    let figure = |from: &str, to: &str| run(2, "system", "strings").replace(from, to);
    let long = "n".repeat(513);
    let cases = [
        (run(2, "jemalloc", "strings"), "is a run of 'jemalloc', who is no subject of its session"),
        (run(2, "system", "large"), "is a run on 'large', which is no row of its session"),
        (run(1, "system", "strings"), "is a second run of system on strings in round 1"),
        (run(3, "system", "strings"), "is a run of round 3, and its session has rounds 1 to 2"),
        (run(0, "system", "strings"), "is a run of round 0, and its session has rounds 1 to 2"),
        (other, "belongs to the session 'e', and stands in that of 'd'"),
        (END.replace("\"d\"", "\"e\""), "belongs to the session 'e', and stands in that of 'd'"),
        (figure("\"operations\":10", "\"operations\":0"), "says that nothing was done"),
        (figure("\"nanos\":50", "\"nanos\":18446744073709551615"), "says that it took more than a year"),
        (figure("1048576", "18446744073709551615"), "says that it had more memory than can be addressed"),
        (figure("faults\":3", &format!("{long}\":3")), "names something by more than 512 letters"),
    ];
    for (index, (wrong, why)) in cases.into_iter().enumerate() {
        let rest = wrong + &run(2, "freestone", "hot-64") + END;
        assert_eq!(shown(&format!("misfit-{index}"), rest), format!("line 4 of FILE {why}"));
    }
    // The same run, looked at in another way, is another run.
    let calls = run(1, "system", "strings").replace(r#""outcome""#, r#""view":"calls","outcome""#);
    let output = harness(&["report", &file("views", session() + &run(1, "system", "strings") + &calls + END)]);
    assert_eq!((&*stderr(&output), output.status.code()), ("", Some(0)));
}

#[test]
fn kinds_of_figures_are_bounded() {
    let notes: Vec<String> = (0..4_097).map(|number| format!("\"n{number}\":1")).collect();
    let rest = run(2, "system", "strings").replace("\"faults\":3", &notes.join(","));
    let why = "line 4 of FILE is the one with which its session has more than 4096 kinds of figures";
    assert_eq!(shown("kinds", rest), why);
}

#[test]
fn sessions_that_nobody_can_have_held_are_refused() {
    let names = |count: usize| (0..count).map(|number| format!("\"r{number}\"")).collect::<Vec<_>>().join(",");
    let subject = r#"{"subject":"system","version":"2"}"#;
    let long = "n".repeat(513);
    let cases = [
        ("\"repetitions\":2", "\"repetitions\":0", "is a session of 0 rounds, where 1 to 10000 make sense"),
        (
            "\"repetitions\":2",
            "\"repetitions\":18446744073709551615",
            "is a session of 18446744073709551615 rounds, where 1 to 10000 make sense",
        ),
        ("\"percent\":100", "\"percent\":0", "is a session of 0 % of the operations"),
        (r#""strings","hot-64""#, "", "is a session of 0 rows, where 1 to 4096 make sense"),
        (r#""strings","hot-64""#, &names(4_097), "is a session of 4097 rows, where 1 to 4096 make sense"),
        (r#""hot-64""#, r#""strings""#, "names the row 'strings' twice"),
        (r#""hot-64""#, &format!("\"{long}\""), "names a row by more than 512 letters"),
        ("freestone", "system", "names the subject 'system' twice"),
        (subject, &[subject; 256].join(","), "is a session of 257 subjects, where 1 to 256 make sense"),
        ("\"left_out\"", r#""floors":{"large":{"min_qps":1.0}},"left_out""#, "has a floor for 'large', which is no row of it"),
    ];
    for (index, (from, to, why)) in cases.into_iter().enumerate() {
        let text = session().replace(from, to) + &run(1, "system", "strings") + END;
        assert_eq!(refused(&format!("nobody-{index}"), text), format!("line 1 of FILE {why}"));
    }
}

#[test]
fn of_several_sessions_the_last_counts_and_damage_before_it_does_not() {
    let damaged = session() + &run(1, "system", "strings")[..100];
    let again = session().replace("\"date\":\"d\"", "\"date\":\"e\"");
    let end = END.replace("\"d\"", "\"e\"");
    let output = harness(&["report", &file("several", format!("{damaged}\n{again}{end}"))]);
    assert_eq!((&*stderr(&output), output.status.code()), ("", Some(0)));
    assert!(stdout(&output).contains("Session   e, "), "{}", stdout(&output));
    // But damage that is itself a session leaves none that could be meant.
    let why = "line 2 of FILE is a session of 0 rounds, where 1 to 10000 make sense";
    assert_eq!(refused("several-last", session() + &again.replace("\"repetitions\":2", "\"repetitions\":0")), why);
}

#[test]
fn a_line_without_an_end_is_not_read_to_its_end() {
    let path = folder("endless").join("kept.jsonl");
    let mut file = fs::File::create(&path).expect("the folder is writable");
    file.write_all(session().as_bytes()).expect("there is room");
    // A gigabyte of zeros, which takes no room.
    file.set_len(1 << 30).expect("there is room");
    let path = path.display().to_string();
    let output = harness(&["report", &path]);
    let why = format!(
        "freestone-bench: line 2 of {path} has more than 16 MiB, which no record needs; the report is of what comes before it\n"
    );
    assert_eq!((stderr(&output), output.status.code()), (why, Some(2)));
}

#[test]
fn nothing_in_a_file_steers_a_terminal() {
    let evil = r"\u001b[2J\u001b]0;title\u0007\r\u009b31m\u202e";
    let text =
        session().replace("hot-64", &format!("hot{evil}")).replace("\"version\":\"2\"", &format!("\"version\":\"{evil}\""));
    let failed = format!(r#"{{"failed":"{evil}"}}"#);
    let fails = run(1, "system", "strings");
    let fails = format!("{}{failed}}}\n", &fails[..fails.find(r#"{"measured""#).expect("it was measured")]);
    let wrong = run(1, evil, "strings");
    for (name, rest, code) in
        [("terminal", "", 3), ("terminal-damage", &*wrong, 2), ("terminal-kind", "{\"record\":\"\\u001b[31m\"}\n", 2)]
    {
        for format in [&[][..], &["--markdown"]] {
            let path = file(name, text.clone() + &fails + rest);
            let output = harness(&[&["report", &path], format].concat());
            assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
            for said in [stdout(&output), stderr(&output)] {
                assert!(said.chars().all(|letter| letter == '\n' || !letter.is_control()), "{said:?}");
                assert!(!said.contains('\u{202e}') && said.contains("\\u{1b}["), "{said}");
            }
        }
    }
}

#[test]
fn a_session_that_is_added_to_a_line_that_was_cut_begins_a_line_of_its_own() {
    use std::os::unix::fs::symlink;

    let folder = folder("appended");
    symlink(env!("CARGO_BIN_EXE_subject-system"), folder.join("subject-system")).expect("the folder is writable");
    let kept = folder.join("kept.jsonl");
    fs::write(&kept, session() + &run(1, "system", "strings")[..50]).expect("the folder is writable");
    let (binaries, kept) = (folder.display().to_string(), kept.display().to_string());
    let arguments = ["--prebuilt", &binaries, "--json", &kept, "--subjects", "system", "--workloads", "runtime-64"];
    let output = harness(&[&arguments[..], &["--percent", "1", "--repetitions", "1"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let again = harness(&["report", &kept]);
    assert_eq!((&*stderr(&again), again.status.code()), ("", Some(0)));
    assert!(stdout(&again).contains("runtime-64"), "{}", stdout(&again));
}
