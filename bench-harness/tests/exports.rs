//! A session in other forms: each says what the session says, says where it comes from, and believes nothing that stands in a record. The page is
//! looked at in a browser where there is one.

#[path = "../../stats/tests/browser/mod.rs"]
mod browser;
mod common;
#[path = "common/table.rs"]
mod table;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use browser::{Browser, CONTRASTS, Network};
use common::{folder, harness, stderr, stdout};
use serde_json::{Value, json};
use table::cells;

/// What a record from a stranger may be called.
const HOSTILE: &str = "<script>alert(\"1\")</script>' onload=\"x, \n=1+1";

/// A session of six subjects, one of which ran twice, with everything that a session can hold.
struct Diary {
    lines: Vec<Value>,
    state: u64,
}

const SUBJECTS: [(&str, f64, f64); 6] = [
    // How many times Freestone's time and memory they take.
    ("system", 1.9, 0.92),
    ("system again", 1.9, 0.92),
    ("jemalloc", 1.4, 1.15),
    ("mimalloc", 1.25, 1.3),
    ("snmalloc", 1.3, 1.2),
    ("freestone", 1.0, 1.0),
];

const ROWS: [(&str, f64); 14] = [
    // In the last ones Freestone loses, or draws.
    ("real-json", 702_000.0),
    ("hot-64", 1.2),
    ("hot-4k", 1.2),
    ("runtime-64", 1.7),
    ("batch-100", 1.3),
    ("random-1k", 3.6),
    ("random-1m-read", 73.0),
    ("strings", 20.0),
    ("cold-growth", 8.9),
    ("real-btree", 135.0),
    ("vec-grow-1k", 551.0),
    ("small-program", 114.0),
    ("channel", 49.9),
    ("larson-8", 4.2),
];

impl Diary {
    fn new(repetitions: u64) -> Self {
        let machine = json!({"cpu": "A Fine CPU", "cores": 2, "is_virtual": true, "memory_bytes": 16_u64 << 30, "kernel": "Linux 6.1.0",
            "huge_pages": "madvise", "governor": null, "rustc": "1.95.0", "load_average": "0.10 0.20 0.30"});
        let mut workloads: Vec<String> = ROWS.iter().map(|row| row.0.to_owned()).collect();
        workloads.extend(["burst-idle-64m-small".to_owned(), HOSTILE.to_owned()]);
        workloads.extend([128, 512, 2048].map(|streams| format!("grpc streams={streams}")));
        let mut subjects: Vec<Value> = SUBJECTS.iter().map(|its| json!({"subject": its.0, "version": "5.3.1"})).collect();
        subjects[3] = json!({"subject": "mimalloc", "version": "3.3.2</dd><b>", "option": "MIMALLOC_X=\"1\"&amp;"});
        let session = json!({"record": "session", "date": "2026-01-01T00:00:00Z", "commit": "abc1234", "machine": machine, "seed": 7,
            "repetitions": repetitions, "percent": 100, "workloads": workloads, "subjects": subjects,
            "left_out": [{"subject": "rpmalloc", "reason": "it does not build here, which takes a C compiler"}],
            "environment": ["LANG=C"], "scenario": "full", "arguments": ["run", "full.toml", "--seed", "7"], "flags": ["-C", "opt-level=3"],
            "floors": {"grpc streams=128": {"min_qps": 1e9, "max_p99_us": 1e6}, "hot-64": {"max_peak_rss": 1}}});
        Self { lines: vec![session], state: 1 }
    }

    /// One, give or take a few percent.
    fn noise(&mut self, spread: f64) -> f64 {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        1.0 + ((self.state >> 33) as f64 / f64::from(1_u32 << 31) - 0.5) * 2.0 * spread
    }

    fn run(&mut self, round: u64, subject: &str, row: &str, view: &str, outcome: &Value) {
        let mut run = json!({"record": "run", "session": "2026-01-01T00:00:00Z", "date": "2026-01-01T00:00:01Z", "round": round,
            "subject": subject, "version": "1", "workload": row, "outcome": outcome});
        if view != "timed" {
            run["view"] = json!(view);
        }
        self.lines.push(run);
    }

    fn measured(&mut self, round: u64, subject: &str, row: &str, nanos: f64, mib: f64, more: &Value) {
        let mut measurement = json!({"operations": 1000, "nanos": (nanos * 1000.0) as u64, "checksum": "aa",
            "peak_rss_bytes": (mib * 1_048_576.0) as u64, "anonymous_bytes": 1, "minor_faults": (mib * 256.0) as u64, "major_faults": 0, "notes": {}});
        for (name, value) in more.as_object().expect("an object") {
            measurement[name] = value.clone();
        }
        self.run(round, subject, row, "timed", &json!({"measured": measurement}));
    }

    /// A session with everything.
    fn full(repetitions: u64) -> Self {
        let mut diary = Self::new(repetitions);
        for round in 1..=repetitions {
            for (place, (subject, slow, large)) in SUBJECTS.into_iter().enumerate() {
                for (index, (row, nanos)) in ROWS.into_iter().enumerate() {
                    let losing = [0.95, 0.93, 0.24, 0.6, 1.0];
                    let factor = match index.checked_sub(9) {
                        Some(lost) if subject != "freestone" => losing[lost] * (1.0 + place as f64 * 0.01),
                        _ => slow,
                    };
                    let noise = diary.noise(0.03);
                    let mib = (2.0 + 7.0 * index as f64) * large * diary.noise(0.01);
                    if (round, subject, row) == (1, "jemalloc", "real-json") {
                        diary.run(round, subject, row, "timed", &json!({"failed": "signal: 11 (SIGSEGV) <i>"}));
                    } else {
                        diary.measured(round, subject, row, nanos * factor * noise, mib, &json!({}));
                    }
                }
                diary.over_time(round, subject, large);
                diary.serve(round, subject, slow);
                let nanos = 10.0 * slow * diary.noise(0.02);
                diary.measured(round, subject, HOSTILE, nanos, 3.0, &json!({"notes": {"<b>_ns": 5}}));
                let calls = json!({"mmap": 10 + place, "madvise": 3, "futex": 2});
                diary.run(
                    round,
                    subject,
                    "hot-64",
                    "calls",
                    &json!({"measured": {"operations": 1000, "nanos": 1, "checksum": "aa",
                    "peak_rss_bytes": 1, "minor_faults": 1, "major_faults": 0, "notes": {}, "os_calls": calls}}),
                );
                diary.run(round, subject, "hot-64", "instructions", &json!({"measured": {"operations": 1000, "nanos": 1, "checksum": "aa",
                    "peak_rss_bytes": 1, "minor_faults": 1, "major_faults": 0, "notes": {}, "instructions": 16_000 + 4_321 * place}}));
            }
        }
        diary
    }

    /// A burst and what stays of it.
    fn over_time(&mut self, round: u64, subject: &str, large: f64) {
        let live = |ms: u64| if ms < 2_000 { ms * 32 } else { 1_024 } << 10;
        let kept = |ms: u64| match (subject, ms) {
            (_, ..2_000) => live(ms) as f64 * 1.05 * large,
            ("freestone", _) => (64.0 * 0.5_f64.powf((ms - 2_000) as f64 / 1_500.0) + 1.5) * 1_048_576.0,
            _ => 66.0 * large * 1_048_576.0,
        };
        let samples: Vec<Value> = (0..=600)
            .map(|index| {
                let ms = index * 20;
                json!({"ms": ms, "rss_bytes": kept(ms) as u64, "live_bytes": live(ms)})
            })
            .collect();
        let notes = json!({"area_over_live_bytes": (kept(8_000) * 10.0) as u64, "return_ns": 4_000_000_000_u64, "live_bytes": 1_u64 << 20});
        let nanos = 90.0 * self.noise(0.02);
        self.measured(round, subject, "burst-idle-64m-small", nanos, 68.0 * large, &json!({"resident": samples, "notes": notes}));
    }

    /// Requests and their times.
    fn serve(&mut self, round: u64, subject: &str, slow: f64) {
        for streams in [128_u64, 512, 2048] {
            let middle = 3_000.0 * streams as f64 * (0.7 + 0.3 * slow) * self.noise(0.03);
            let points: Vec<(u32, u64)> =
                [(500_000, 1.0), (900_000, 1.4), (990_000, 2.1), (999_000, 3.0 * slow), (999_900, 6.0 * slow), (999_990, 11.0)]
                    .map(|(parts, times)| (parts, (middle * times) as u64))
                    .into();
            let latency = json!({"count": 1000, "mean_ns": middle as u64, "max_ns": (middle * 20.0) as u64, "points": points});
            let notes = json!({"allocations_per_request": 41, "heap_in_use_peak_bytes": streams << 16});
            let nanos = 40_000.0 * (0.7 + 0.3 * slow) * self.noise(0.02);
            let more = json!({"latencies": {"request": latency}, "notes": notes});
            self.measured(round, subject, &format!("grpc streams={streams}"), nanos, 30.0, &more);
        }
    }

    fn end(mut self) -> String {
        self.lines.push(json!({"record": "end", "session": "2026-01-01T00:00:00Z", "seconds": 60, "cores_of_others": 0.0}));
        self.lines.iter().map(Value::to_string).collect::<Vec<_>>().join("\n") + "\n"
    }
}

fn kept(name: &str, text: &str) -> String {
    let path = folder(name).join("kept.jsonl");
    fs::write(&path, text).expect("the folder is writable");
    path.display().to_string()
}

fn exported(path: &str, format: &str) -> Output {
    let output = harness(&["report", path, "--format", format]);
    // One run failed, which every form says.
    assert!(stderr(&output).starts_with("ERROR: jemalloc failed on real-json in round 1: "), "{}", stderr(&output));
    output
}

#[test]
fn csv_has_a_line_for_each_run_with_all_that_is_known() {
    let diary = Diary::full(1);
    let runs = diary.lines.len() - 1;
    let text = stdout(&exported(&kept("csv", &diary.end()), "csv"));
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let lines: Vec<BTreeMap<String, String>> = reader.deserialize().map(|line| line.expect("a line of the table")).collect();
    assert_eq!(lines.len(), runs);
    for line in &lines {
        assert_eq!(line["machine"], "A Fine CPU");
        assert_eq!(line["commit"], "abc1234");
        assert_eq!(line["arguments"], "run full.toml --seed 7");
    }
    let of = |row: &str, view: &str| {
        lines.iter().find(|its| its["row"] == row && its["subject"] == "freestone" && its["view"] == view).expect("it ran")
    };
    let served = of("grpc streams=128", "timed");
    assert_eq!(served["note.allocations_per_request"], "41");
    let nanos: f64 = served["nanos"].parse().expect("a number");
    assert!((served["ns_per_operation"].parse::<f64>().expect("a number") - nanos / 1000.0).abs() < 1e-6);
    assert!(
        served["latency.request.p99_ns"].parse::<u64>().expect("a number")
            > served["latency.request.p50_ns"].parse().expect("a number")
    );
    assert_eq!(of(HOSTILE, "timed")["note.<b>_ns"], "5");
    assert_eq!(of("hot-64", "calls")["os_calls.mmap"], "15");
    assert_eq!(of("hot-64", "calls")["ns_per_operation"], "", "a run that was stopped at each call has no time");
    assert_eq!(of("hot-64", "instructions")["instructions"], "37605");
    let failed: Vec<_> = lines.iter().filter(|line| !line["error"].is_empty()).collect();
    assert_eq!(failed.len(), 1);
    assert_eq!((&*failed[0]["error"], &*failed[0]["nanos"]), ("signal: 11 (SIGSEGV) <i>", ""));
}

#[test]
fn json_is_a_matrix_with_verdicts_and_provenance() {
    let text = stdout(&exported(&kept("json", &Diary::full(8).end()), "json"));
    let document: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(document["format"], 1);
    assert_eq!(document["session"]["arguments"], json!(["run", "full.toml", "--seed", "7"]));
    assert_eq!(document["base"], "freestone");
    let row =
        |title: &str| document["rows"].as_array().expect("rows").iter().find(|row| row["row"] == title).expect("it ran").clone();
    let hot = row("hot-64");
    let time = &hot["cells"]["system"]["figures"]["time"];
    assert_eq!(time["runs"], 8);
    assert!((time["median"].as_f64().expect("a number") - 1.2 * 1.9).abs() < 0.1, "{time}");
    assert_eq!(time["base_is_better_by"]["verdict"], "better");
    assert!(time["base_is_better_by"]["p"].as_f64().expect("a number") < 0.01, "{time}");
    assert_eq!(hot["base_against_best_other"]["time"]["best_other"], "mimalloc");
    assert_eq!(row("small-program")["base_against_best_other"]["time"]["verdict"], "worse");
    assert_eq!(row("grpc streams=512")["base_against_best_other"]["rate"]["verdict"], "better", "more is better");
    assert!(hot["same_against_itself"]["time"]["low"].is_f64());
    let missed = document["floors_missed"].as_array().expect("a list");
    assert!(
        missed.iter().any(|its| its.as_str().is_some_and(|its| its.starts_with("freestone on grpc streams=128: "))),
        "{missed:?}"
    );
    assert_eq!(document["problems"].as_array().map(Vec::len), Some(1));
}

#[test]
fn bencher_metric_format_has_values_with_their_bounds() {
    let text = stdout(&exported(&kept("bmf", &Diary::full(6).end()), "bmf"));
    let document: BTreeMap<String, BTreeMap<String, BTreeMap<String, f64>>> =
        serde_json::from_str(&text).expect("names of names of numbers");
    let hot = &document["hot-64/freestone"];
    for name in ["latency", "peak-rss", "instructions", "os-calls"] {
        let its = &hot[name];
        assert!(its["lower_value"] <= its["value"] && its["value"] <= its["upper_value"], "{name}: {its:?}");
    }
    assert!(document["grpc streams=128/freestone"].contains_key("throughput"));
    let few = stdout(&exported(&kept("bmf-few", &Diary::full(2).end()), "bmf"));
    assert!(!few.contains("lower_value"), "two runs have no interval");
}

#[test]
fn markdown_and_the_table_are_what_is_printed() {
    let path = kept("printed", &Diary::full(2).end());
    assert_eq!(exported(&path, "markdown").stdout, harness(&["report", &path, "--markdown"]).stdout);
    let file = PathBuf::from(&path).with_extension("txt").display().to_string();
    let output = harness(&["report", &path, "-o", &file]);
    assert!(output.stdout.is_empty());
    assert_eq!(fs::read(&file).expect("it was written"), harness(&["report", &path]).stdout);
}

#[test]
fn services_are_told_in_requests_per_second_percentiles_and_memory() {
    let path = kept("services", &Diary::full(6).end());
    let text = stdout(&exported(&path, "table"));
    let (_, services) = text.split_once("\nServices\n").expect("there are some");
    let words = services.split("GRPC STREAMS=128").next().unwrap_or_default().split_whitespace();
    let title = "QPS mean P50 P99 P99.9 allocations heap peak per request in use at most RSS";
    assert_eq!(words.take_while(|word| !word.starts_with('─')).collect::<Vec<_>>().join(" "), title);
    for (streams, heap) in [(128, "8.00"), (512, "32.0"), (2048, "128")] {
        let freestone = cells(services, &format!("GRPC STREAMS={streams}"), "freestone");
        let document: Value = serde_json::from_str(&stdout(&exported(&path, "json"))).expect("it is JSON");
        let rows = document["rows"].as_array().expect("rows");
        let row = rows.iter().find(|row| row["row"] == format!("grpc streams={streams}")).expect("it is there");
        let p99 = row["cells"]["freestone"]["figures"]["latency.request.p99"]["median"].as_f64().expect("a number");
        let words: Vec<&str> = freestone.split(' ').collect();
        let nanos = words[5].parse::<f64>().expect("a number") * if words[6] == "ms" { 1e6 } else { 1e3 };
        assert!((nanos / p99 - 1.0).abs() < 0.01, "P99 is {p99} ns: {freestone}");
        assert_eq!(words[9..].join(" "), format!("41 {heap} MiB 30.0 MiB"));
    }
    assert!(!text.contains("Also noted, grpc"), "all of it is in one table");
}

#[test]
fn what_cannot_be_written_is_said_in_one_sentence() {
    let path = kept("unwritable", &Diary::full(1).end());
    let output = harness(&["report", &path, "--format", "html", "-o", "/nowhere/page.html"]);
    assert_eq!(stderr(&output), "freestone-bench: cannot write /nowhere/page.html: No such file or directory (os error 2)\n");
    assert_eq!(output.status.code(), Some(3));
    let full = fs::File::create("/dev/full").expect("Linux has it");
    let mut harness = Command::new(env!("CARGO_BIN_EXE_freestone-bench"));
    let output = harness
        .args(["report", &path, "--format", "csv"])
        .stdout(full)
        .stderr(Stdio::piped())
        .output()
        .expect("the harness was built");
    assert!(
        stderr(&output).starts_with("freestone-bench: cannot write to the standard output: No space left"),
        "{}",
        stderr(&output)
    );
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn that_nobody_listens_is_no_failure() {
    let path = kept("unheard", &Diary::full(4).end());
    for format in ["csv", "json", "html"] {
        let script = format!("{} report {path} --format {format} 2>&1 >&3 | cat >&2", env!("CARGO_BIN_EXE_freestone-bench"));
        let output =
            Command::new("bash").args(["-c", &format!("set -o pipefail; exec 3> >(exec true); sleep 0.1; {script}")]).output();
        let said = stderr(&output.expect("a shell"));
        assert!(!said.contains("panicked") && !said.contains("Broken pipe"), "{format}: {said}");
    }
}

fn page(name: &str, diary: Diary) -> (PathBuf, String) {
    let path = kept(name, &diary.end());
    let file = PathBuf::from(&path).with_extension("html");
    let output = harness(&["report", &path, "--format", "html", "--output", &file.display().to_string()]);
    assert!(stdout(&output).is_empty());
    let text = fs::read_to_string(&file).expect("it was written");
    (file, text)
}

#[test]
fn a_page_needs_nothing_from_outside_and_believes_nothing() {
    let (_, text) = page("page", Diary::full(6));
    check_nesting(&text);
    for needle in ["http://", "https://", "src=", "href=", "url(", "@import", "<link", "<iframe", "<img"] {
        assert!(!text.contains(needle), "{needle} in the page");
    }
    assert!(text.contains("content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'\""));
    for needle in ["<script>alert", "</dd><b>", "<i>", "onload=\"x"] {
        assert!(!text.contains(needle), "{needle} was not escaped");
    }
    assert_eq!(text.matches("<script").count(), 2, "the record and what the page does");
    let record = text.split("application/json\">").nth(1).and_then(|rest| rest.split("</script>").next()).expect("the record");
    let record: Value = serde_json::from_str(record).expect("JSON");
    assert_eq!(record["workloads"][15], HOSTILE);
}

#[test]
fn a_page_names_every_row_that_is_lost_and_all_that_went_wrong() {
    let (_, text) = page("honest", Diary::full(8));
    let headline = text.split("<h1>").nth(1).and_then(|rest| rest.split("</h1>").next()).expect("a headline");
    let headline: String = headline.split('<').map(|part| part.split_once('>').map_or(part, |(_, words)| words)).collect();
    assert!(
        headline.starts_with("Freestone is faster than the best other allocator in 13 of 19 rows and slower in 4, "),
        "{headline}"
    );
    let score = text.split("class=\"score\"").nth(1).expect("a score");
    let lost = score.split("Slower in 4").nth(1).and_then(|rest| rest.split("</dd>").next()).expect("what is lost");
    for row in ["real-btree", "vec-grow-1k", "small-program", "channel"] {
        assert!(lost.contains(row), "{row} in {lost}");
    }
    assert!(score.find("Slower in 4") < score.find("Faster in"), "what is lost comes first");
    for sentence in [
        "jemalloc failed on real-json in round 1: signal: 11 (SIGSEGV) &lt;i&gt;",
        "rpmalloc: it does not build here, which takes a C compiler",
        "freestone on hot-64: a peak of ",
    ] {
        assert!(text.contains(sentence), "{sentence}");
    }
}

#[test]
fn a_page_of_two_runs_claims_nothing_and_one_of_nobody_else_is_a_page() {
    let (_, text) = page("few", Diary::full(2));
    assert!(text.contains("too few runs for a verdict"), "{}", &text[..400]);
    let mut alone = Diary::full(1);
    alone.lines.retain(|line| line["record"] != "run" || line["subject"] == "freestone");
    alone.lines[0]["subjects"] = json!([{"subject": "freestone", "version": "0.1.0"}]);
    let (_, text) = page("alone", alone);
    check_nesting(&text);
    assert!(text.contains("with nothing to compare"));
}

/// Every element that is opened is closed, in the right order, and attributes are quoted.
fn check_nesting(text: &str) {
    const VOID: [&str; 3] = ["meta", "input", "br"];
    let mut open: Vec<&str> = Vec::new();
    let mut rest = text.strip_prefix("<!DOCTYPE html>").expect("a document type");
    while let Some(at) = rest.find('<') {
        rest = &rest[at + 1..];
        let end = rest.find('>').expect("an element ends");
        let inside = &rest[..end];
        assert_eq!(inside.matches('"').count() % 2, 0, "a quote that does not end: <{inside}>");
        let name = inside.split([' ', '\n']).next().expect("a name");
        rest = &rest[end + 1..];
        if let Some(name) = name.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "behind {}", &rest[..rest.len().min(80)]);
            continue;
        }
        assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric()), "<{inside}>");
        if !VOID.contains(&name) {
            open.push(name);
        }
        if name == "script" || name == "style" {
            rest = &rest[rest.find(&format!("</{name}>")).expect("it ends")..];
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn a_page_fits_its_window_complains_about_nothing_and_can_be_used() {
    let (file, _) = page("looked-at", Diary::full(8));
    let Some(mut browser) = Browser::start() else { return };
    for (width, scheme) in [(1280, "light"), (390, "dark"), (390, "light"), (1280, "dark")] {
        browser.look(width, 900, scheme);
        browser.open(&format!("file://{}", file.display()));
        let is_there = "document.readyState === 'complete' && document.documentElement.classList.contains('js')";
        while browser.evaluate(is_there) != true {}
        let picture = browser.picture(true);
        fs::write(file.with_file_name(format!("{width}-{scheme}.png")), picture).expect("the folder is writable");
        assert_eq!(browser.evaluate("document.documentElement.scrollWidth"), width, "{width} {scheme}: it scrolls sideways");
        // What is folded up is to be legible as well.
        browser.evaluate("document.querySelectorAll('details').forEach(its => its.open = true)");
        let contrasts = browser.evaluate(CONTRASTS);
        let contrasts = contrasts.as_array().expect("a list");
        assert!(contrasts.len() > 500, "{} texts", contrasts.len());
        for its in contrasts {
            assert!(its["ratio"].as_f64().expect("a number") >= 4.5, "{width} {scheme}: {its}");
        }
        assert_eq!(browser.complaints(Network::Heard), [""; 0]);
    }
    // The heading sorts: what is lost most comes first.
    let first = "document.querySelector('.pane0 table.forest tbody th').textContent";
    browser.evaluate("document.querySelectorAll('.pane0 table.forest thead button')[1].click()");
    assert_eq!(browser.evaluate(first), "small-program");
    browser.evaluate("document.querySelectorAll('.pane0 table.forest thead button')[1].click()");
    assert_ne!(browser.evaluate(first), "small-program");
    // Another opponent, another table.
    let shown =
        "[...document.querySelectorAll('.tabs')[0].querySelectorAll('.pane')].map(its => its.checkVisibility()).indexOf(true)";
    browser.evaluate("document.querySelectorAll('input[name=forest-time]')[2].click()");
    assert_eq!(browser.evaluate(shown), 2);
    // One row of the scatter, and a subject that is taken out.
    let chosen = "document.querySelectorAll('#scatter .chosen').length";
    browser.evaluate(
        "{ const its = document.querySelector('select'); its.value = 'channel'; its.dispatchEvent(new Event('change')); }",
    );
    assert_eq!(browser.evaluate(chosen), 4);
    browser.evaluate("document.querySelector('figure .legend input').click()");
    assert_eq!(browser.evaluate("document.querySelector('#scatter .s0').checkVisibility()"), false);
    assert_eq!(browser.complaints(Network::Heard), [""; 0]);
}
