//! Services: every request is answered rightly whoever owns the memory of messages and however requests are sent; what goes wrong is a sentence;
//! and no process is left behind.

#![cfg(feature = "service")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

#[allow(dead_code, reason = "other tests run the harness")]
mod common;
use common::{folder, stderr, stdout};

const SUBJECT: &str = env!("CARGO_BIN_EXE_subject-system");
const CLIENT: &str = env!("CARGO_BIN_EXE_client");

fn run(subject: &Path, workload: &str, percent: &str, chosen: &[&str]) -> Output {
    Command::new(subject).args([workload, percent, ""]).args(chosen).output().expect("the subject was built")
}

/// What a run measured.
fn measured(workload: &str, percent: &str, chosen: &[&str]) -> Value {
    let output = run(Path::new(SUBJECT), workload, percent, chosen);
    assert!(output.status.success(), "{workload} {chosen:?}: {}", stderr(&output));
    assert_eq!(stderr(&output), "", "{workload} {chosen:?}");
    let line: Value = serde_json::from_str(&stdout(&output)).expect("one line of JSON");
    let (notes, latency) = (&line["notes"], &line["latencies"]["request"]);
    assert_eq!(notes["errors"], 0, "{workload} {chosen:?}");
    assert_eq!(notes["error_ppm"], 0);
    for figure in [
        &line["nanos"],
        &notes["qps"],
        &notes["server_cpu_ns"],
        &notes["client_cpu_ns"],
        &notes["load_end_rss"],
        &latency["mean_ns"],
        &latency["max_ns"],
    ] {
        assert!(figure.as_u64() > Some(0), "{line}");
    }
    assert_eq!(latency["count"], line["operations"], "every request has a time");
    let points = latency["points"].as_array().expect("a list of points");
    let times: Vec<u64> = points.iter().filter_map(|point| point[1].as_u64()).collect();
    assert_eq!(times.len(), 10);
    assert!(times.is_sorted());
    assert!(times[9] <= latency["max_ns"].as_u64().expect("a number"));
    line
}

#[test]
fn a_call_has_the_same_answer_in_all_variants_and_loops() {
    let mut checksums = Vec::new();
    for variant in ["plain", "pooled", "direct"] {
        for how in ["closed", "open"] {
            // More requests than the client has orders, more streams than places, so that everything is used again.
            let (variant, how) = (format!("variant={variant}"), format!("loop={how}"));
            let line = measured(
                "grpc",
                "100",
                &[&variant, &how, "requests=2500", "rate=5000", "streams=48", "connections=3", "kept=40"],
            );
            assert_eq!(line["operations"], 2_500);
            checksums.push(line["checksum"].to_string());
        }
    }
    assert_ne!(checksums[0], "\"0000000000000000\"");
    assert!(checksums.iter().all(|checksum| *checksum == checksums[0]), "{checksums:?}");
    let fewer = measured("grpc", "100", &["requests=2499"]);
    assert_ne!(fewer["checksum"].to_string(), checksums[0], "every answer counts");
}

#[test]
fn many_streams_on_one_connection_and_few_on_many() {
    let one = measured("grpc", "100", &["streams=2048", "connections=1", "requests=5000"]);
    let many = measured("grpc", "100", &["streams=3", "connections=64", "workers=1", "requests=5000", "kept=0"]);
    assert_eq!(one["checksum"], many["checksum"]);
}

#[test]
fn json_has_the_same_answers_in_both_loops() {
    let closed = measured("http-json", "100", &["requests=2000", "connections=16"]);
    let open = measured("http-json", "100", &["requests=2000", "connections=5", "loop=open", "rate=4000"]);
    assert_eq!(closed["operations"], 2_000);
    assert_eq!(closed["checksum"], open["checksum"]);
}

#[test]
fn a_cache_says_the_same_whatever_it_evicts_and_lets_go_in_silence() {
    let chosen = ["requests=3000", "bursts=2", "idle_ms=50", "connections=8"];
    let wide = measured("cache", "100", &chosen);
    let narrow = measured("cache", "100", &[chosen[0], chosen[1], chosen[2], "connections=2", "capacity_mib=1"]);
    assert_eq!(wide["checksum"], narrow["checksum"]);
    let note = |line: &Value, name: &str| line["notes"][name].as_u64().expect(name);
    assert_eq!(note(&wide, "evictions"), 0);
    assert!(note(&narrow, "evictions") > 0);
    assert!(note(&narrow, "misses") > note(&wide, "misses"));
    assert!(note(&narrow, "burst_end_live_bytes") <= 1 << 20);
    for line in [&wide, &narrow] {
        assert!(note(line, "burst_end_live_bytes") > 0);
        assert!(note(line, "silence_end_live_bytes") <= note(line, "burst_end_live_bytes") / 4);
        assert!(note(line, "silence_end_rss") > 0);
        assert!(note(line, "burst_end_rss") > note(line, "burst_end_live_bytes"));
    }
    let of_one_size = measured("cache", "100", &["requests=500", "bursts=1", "idle_ms=0", "smallest=1000", "largest=1000"]);
    let entries = note(&of_one_size, "burst_end_live_bytes") / 1_000;
    assert!(entries > 100 && entries < 500, "{of_one_size}");
}

#[test]
fn a_share_of_the_requests_is_as_good() {
    for (workload, full) in [("grpc", 80_000), ("http-json", 80_000), ("cache", 60_000)] {
        assert_eq!(measured(workload, "1", &[])["operations"], full / 100);
    }
    assert_eq!(measured("grpc", "10", &["requests=1000"])["operations"], 100);
    assert_eq!(measured("grpc", "10", &["loop=open", "rate=400"])["operations"], 100);
}

/// A subject beside a client of our own.
fn beside(name: &str, client: Option<&str>) -> PathBuf {
    let folder = folder(name);
    let subject = folder.join("subject");
    // A link of the other kind would lead the subject back to where it was built.
    fs::hard_link(SUBJECT, &subject).or_else(|_| fs::copy(SUBJECT, &subject).map(drop)).expect("the folder is writable");
    if let Some(script) = client {
        fs::write(folder.join("client"), format!("#!/bin/sh\n{script}\n")).expect("the folder is writable");
        fs::set_permissions(folder.join("client"), fs::Permissions::from_mode(0o755)).expect("it is ours");
    }
    subject
}

#[test]
fn a_client_that_does_not_do_its_part_fails_the_run_with_a_sentence() {
    let report = |errors: u64| {
        let latency = json!({ "count": 0, "mean_ns": 0, "max_ns": 0, "points": [] });
        json!({
            "requests": 7, "errors": errors, "complaint": "it was blue", "elapsed_ns": 5, "cpu_ns": 5, "checksum": 1, "latency": latency,
        })
    };
    let all_wrong = format!("echo ready; read go; echo '{}'", report(7));
    let cases: &[(&str, Option<&str>, &str)] = &[
        ("client-missing", None, "cannot be started: No such file"),
        ("client-silent", Some("exit 0"), "the client ended too early (exit status: 0)"),
        ("client-crashes", Some("echo 'it broke' >&2; kill -9 $$"), "the client ended too early (signal: 9 (SIGKILL)): it broke"),
        ("client-crashes-later", Some("echo ready; read go; exit 7"), "the client ended too early (exit status: 7)"),
        ("client-talks", Some("echo hello; read go"), "the client said 'hello' instead of 'ready'"),
        ("client-babbles", Some("echo ready; read go; echo '{\"requests\": 1'"), "which is no report"),
        ("client-hangs", Some("exec sleep 600"), "nothing was served for 1 s, and the client does not end"),
        ("client-hangs-later", Some("echo ready; read go; exec sleep 600"), "nothing was served for 1 s"),
        ("client-stays", Some("echo ready; read go; echo '{}'; exec sleep 600"), "the client had to be killed"),
        ("client-all-wrong", Some(&all_wrong), "the client got no right answer: it was blue"),
    ];
    thread::scope(|scope| {
        for (name, client, expected) in cases {
            scope.spawn(move || {
                let subject = beside(name, *client);
                let output = run(&subject, "grpc", "1", &["patience_s=1"]);
                assert_eq!(output.status.code(), Some(3), "{name}: {}", stderr(&output));
                assert_eq!(stdout(&output), "", "{name}");
                let said = stderr(&output);
                assert_eq!(said.lines().count(), 1, "{name}: {said}");
                assert!(said.contains(expected), "{name}: {said}");
            });
        }
        scope.spawn(|| {
            // Some are wrong: measured, counted, and said.
            let subject = beside("client-some-wrong", Some(&format!("echo ready; read go; echo '{}'", report(2))));
            let output = run(&subject, "grpc", "1", &[]);
            assert!(output.status.success(), "{}", stderr(&output));
            assert_eq!(stderr(&output), "2 of 7 requests failed; the first: it was blue\n");
            let line: Value = serde_json::from_str(&stdout(&output)).expect("one line of JSON");
            assert_eq!((&line["operations"], &line["notes"]["errors"]), (&7.into(), &2.into()));
            assert_eq!(line["notes"]["error_ppm"], 285_714);
        });
    });
}

#[test]
fn sizes_that_contradict_each_other_are_refused() {
    let output = run(Path::new(SUBJECT), "cache", "1", &["smallest=200", "largest=100"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).contains("there is none in between"), "{}", stderr(&output));
}

/// Runs the client against a service of our own, and tells it to go.
fn client(workload: &str, address: &str, chosen: &[&str]) -> Output {
    let mut client = Command::new(CLIENT);
    client.args([workload, address]).args(chosen).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut client = client.spawn().expect("the client was built");
    // It may have ended already, which its status tells.
    let _ = client.stdin.take().expect("a pipe").write_all(b"go\n");
    client.wait_with_output().expect("it is ours")
}

#[test]
fn where_nobody_listens_the_client_says_so() {
    let closed = TcpListener::bind("127.0.0.1:0").expect("loopback").local_addr().expect("bound").to_string();
    for workload in ["grpc", "http-json", "cache"] {
        let output = client(workload, &closed, &[]);
        assert_eq!(output.status.code(), Some(3), "{workload}");
        let said = stderr(&output);
        assert!(
            said.starts_with(&format!("the service at {closed} cannot be reached: Connection refused")),
            "{workload}: {said}"
        );
    }
    assert_eq!(client("grpc", "nowhere", &[]).status.code(), Some(2));
    assert_eq!(client("post", &closed, &[]).status.code(), Some(3));
}

/// A service that answers every request of each connection with the next of these, again and again. What a request is, blank lines say: of HTTP,
/// the head ends with one.
fn impostor(answers: &'static [&'static str]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = listener.local_addr().expect("bound").to_string();
    let serve = move |connection: TcpStream| {
        let mut reader = BufReader::new(connection.try_clone().expect("it is open"));
        let mut connection = connection;
        for answer in answers.iter().cycle() {
            let mut length = 0;
            let mut line = String::new();
            while {
                line.clear();
                reader.read_line(&mut line).is_ok_and(|read| read > 2)
            } {
                if let Some(number) = line.strip_prefix("content-length: ") {
                    length = number.trim().parse().expect("a number");
                }
            }
            if line.is_empty()
                || reader.read_exact(&mut vec![0; length]).is_err()
                || connection.write_all(answer.as_bytes()).is_err()
            {
                return;
            }
        }
    };
    thread::spawn(move || listener.incoming().flatten().for_each(|connection| drop(thread::spawn(move || serve(connection)))));
    address
}

#[test]
fn answers_that_are_wrong_are_errors() {
    let cases: &[(&[&str], &str)] = &[
        (&["HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"], "has a wrong answer of 2 bytes"),
        (&["HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n"], "the answer is HTTP/1.1 500 No"),
        (&["HTTP/1.1 200 OK\r\n\r\n{}"], "the connection broke"),
        (&["what?\r\n\r\n"], "the connection broke"),
    ];
    for (answers, expected) in cases {
        let output = client("http-json", &impostor(answers), &["requests=20", "connections=2"]);
        assert!(output.status.success(), "{}", stderr(&output));
        let said = stdout(&output);
        let (ready, report) = said.split_once('\n').expect("two lines");
        assert_eq!(ready, "ready");
        let report: Value = serde_json::from_str(report).expect("one line of JSON");
        assert_eq!(
            (&report["requests"], &report["errors"], &report["checksum"]),
            (&20.into(), &20.into(), &0.into()),
            "{report}"
        );
        assert!(report["complaint"].as_str().is_some_and(|complaint| complaint.contains(expected)), "{report}");
    }
}

#[test]
fn a_service_that_does_not_answer_is_given_up() {
    for workload in ["http-json", "cache"] {
        let silent = impostor(&[""]);
        let output = client(workload, &silent, &["requests=20", "connections=2", "patience_s=1"]);
        assert_eq!(output.status.code(), Some(3), "{workload}");
        assert!(stderr(&output).contains("no answer for 1 s, after 0 of 20 requests"), "{workload}: {}", stderr(&output));
    }
}

/// Is this process there, and not only its exit status?
fn is_alive(process: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    !status.is_empty() && !status.contains("State:\tZ")
}

fn children(process: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|child| child.parse().ok()).collect()
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < Duration::from_mins(1), "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_client_does_not_outlive_its_server() {
    for workload in ["grpc", "http-json", "cache"] {
        let mut subject = Command::new(SUBJECT);
        subject.args([workload, "100", "", "requests=1000000000"]).stdout(Stdio::null()).stderr(Stdio::null());
        let mut subject = subject.spawn().expect("the subject was built");
        until("the client starts", || !children(subject.id()).is_empty());
        let client = children(subject.id())[0];
        // Well into the load, or on its way there: it has to end at any moment.
        thread::sleep(Duration::from_millis(300));
        assert!(is_alive(client));
        subject.kill().expect("it is ours");
        subject.wait().expect("it is ours");
        until("the client ends", || !is_alive(client));
    }
}

#[test]
fn a_client_that_is_killed_ends_the_run() {
    let mut subject = Command::new(SUBJECT);
    subject.args(["grpc", "100", "", "requests=1000000000"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let subject = subject.spawn().expect("the subject was built");
    until("the client starts", || !children(subject.id()).is_empty());
    thread::sleep(Duration::from_millis(300));
    let client = children(subject.id())[0].to_string();
    assert!(Command::new("kill").args(["-9", &client]).status().expect("there is a kill").success());
    let output = subject.wait_with_output().expect("it is ours");
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(stderr(&output), "the client ended too early (signal: 9 (SIGKILL))\n");
}
