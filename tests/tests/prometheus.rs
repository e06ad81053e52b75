//! A real Prometheus scrapes the example service, and what its query API then says is what the JSON document beside it says. Rounding, units, a name that
//! its parser takes for something else, a family that it drops: only the real one shows them. `promtool` reads the same text, the alerts and their tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use freestone::{Limit, control};
use freestone_stats::json::Document;
use serde_json::Value;

/// The service itself, and with it the allocator under this test.
#[allow(dead_code)]
#[path = "../../stats/examples/prometheus.rs"]
mod service;

/// So long it may take Prometheus to start and to scrape.
const PATIENCE: Duration = Duration::from_mins(1);

/// Where a program is. `None`, and said aloud, where it is not installed.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file());
    if found.is_none() {
        // Past the test runner, which shows what a test prints only when it fails.
        let _ = writeln!(
            std::io::stderr(),
            "\nSKIPPED: {program} is not installed, so nothing was compared with it: apt-get install prometheus\n"
        );
    }
    found
}

fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("prometheus").join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("the folder for tests can be written to");
    folder
}

fn alerts() -> PathBuf {
    fs::canonicalize(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/alerts.yml")).expect("docs/alerts.yml is there")
}

/// A child that does not outlive the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a server answers to a GET. `None`: nobody is there yet, or it is not ready.
fn get(server: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(server).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    // Version 1.0: the answer comes in one piece, and ends with the connection.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {server}\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.split(' ').nth(1).is_some_and(|status| status == "200").then(|| body.to_owned())
}

/// What Prometheus knows of a query: the labels of each series in one line, and its value.
fn query(server: SocketAddr, query: &str) -> BTreeMap<String, f64> {
    let encoded: Vec<String> = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let encoded = encoded.concat();
    let Some(body) = get(server, &format!("/api/v1/query?query={encoded}")) else { return BTreeMap::new() };
    let answer: Value = serde_json::from_str(&body).expect("Prometheus answers with JSON");
    assert_eq!(answer["status"], "success", "{query}: {answer}");
    let series = answer["data"]["result"].as_array().expect("a vector");
    series
        .iter()
        .map(|series| {
            let labels = series["metric"].as_object().expect("labels");
            let name = labels["__name__"].as_str().expect("a name");
            let own = labels.iter().filter(|(key, _)| !matches!(key.as_str(), "__name__" | "job" | "instance"));
            let own: Vec<String> = own.map(|(key, value)| label(key, value.as_str().expect("a label has a value"))).collect();
            let value = series["value"][1].as_str().and_then(|value| value.parse().ok()).expect("a value");
            (format!("{name}{{{}}}", own.join(",")), value)
        })
        .collect()
}

/// The ends of buckets are numbers, and one number is written in many ways.
fn label(key: &str, value: &str) -> String {
    match value.parse::<f64>() {
        Ok(end) if key == "le" => format!("le=\"{end:?}\""),
        _ => format!("{key}={value:?}"),
    }
}

/// The samples of a text, in the same form.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let sample = |line: &str| {
        let (series, value) = line.rsplit_once(' ').expect("a sample has a value");
        let (name, labels) = series.trim_end_matches('}').split_once('{').unwrap_or((series, ""));
        // No value of ours has a comma but that of `features`, which is not split here.
        let labels = labels.strip_suffix('"').unwrap_or(labels).replace("=\"", "=\u{0}");
        let mut labels: Vec<String> = labels.split("\",").filter(|label| !label.is_empty()).map(str::to_owned).collect();
        labels.sort();
        let whole = |text: &String| {
            let (key, value) = text.split_once("=\u{0}").expect("a label has a value");
            label(key, value)
        };
        let labels: Vec<String> = labels.iter().map(whole).collect();
        (format!("{name}{{{}}}", labels.join(",")), value.parse().expect("a value is a number"))
    };
    text.lines().filter(|line| !line.starts_with('#')).map(sample).collect()
}

#[derive(Default)]
struct Expected(BTreeMap<String, f64>);

impl Expected {
    fn is(&mut self, series: &str, value: f64) {
        self.0.insert(series.to_owned(), value);
    }
}

/// What the document says, by the names of the metrics: written here a second time, so that a wrong line in the table is seen.
fn expected(document: &Document) -> BTreeMap<String, f64> {
    let mut expected = Expected::default();
    let mut is = |series: &str, count: u64| expected.is(series, count as f64);
    let heap = &document.heap;
    let bytes = &heap.bytes;
    for line in document.ledger.iter().filter(|line| line.part == "heap") {
        is(&format!("freestone_memory_bytes{{class=\"{}\"}}", line.key), line.bytes.unsigned_abs());
    }
    is("freestone_released_bytes{}", bytes.released);
    is("freestone_mapped_bytes{}", bytes.reserved);
    is("freestone_allocations_total{}", heap.allocations);
    is("freestone_frees_total{}", heap.frees);
    is("freestone_allocated_bytes_total{}", heap.allocated_bytes);
    is("freestone_freed_bytes_total{}", heap.freed_bytes);
    is("freestone_allocation_size_bytes_count{}", heap.allocations);
    is("freestone_allocation_size_bytes_sum{}", heap.allocated_bytes);
    is("freestone_free_size_bytes_count{}", heap.frees);
    is("freestone_free_size_bytes_sum{}", heap.freed_bytes);
    for power in 3..=18 {
        let end = 1_u64 << power;
        let up_to_here = document.classes.iter().filter(|class| class.block_bytes <= end);
        let (allocations, frees): (Vec<u64>, Vec<u64>) = up_to_here.map(|class| (class.allocations, class.frees)).unzip();
        is(&format!("freestone_allocation_size_bytes_bucket{{le=\"{end}.0\"}}"), allocations.iter().sum());
        is(&format!("freestone_free_size_bytes_bucket{{le=\"{end}.0\"}}"), frees.iter().sum());
    }
    is("freestone_allocation_size_bytes_bucket{le=\"inf\"}", heap.allocations);
    is("freestone_free_size_bytes_bucket{le=\"inf\"}", heap.frees);
    let limits = &heap.limits;
    is("freestone_memory_limit_bytes{}", limits.memory_limit_bytes.expect("set above"));
    is("freestone_hard_limit_bytes{}", limits.hard_limit_bytes.expect("set above"));
    is("freestone_held_bytes{}", limits.held_bytes);
    is("freestone_limit_assists_total{}", limits.assists);
    is("freestone_limit_exceeded_total{}", limits.exceeded);
    is("freestone_fuse_trips_total{}", limits.fuse_trips);
    is("freestone_limit_refusals_total{}", limits.refusals);
    let events = &heap.events;
    for (name, count) in [
        ("exchanges", events.exchanges),
        ("refills", events.refills),
        ("flushes", events.flushes),
        ("depot_takes", events.depot_takes),
        ("depot_puts", events.depot_puts),
        ("span_births", events.span_births),
        ("span_deaths", events.span_deaths),
        ("samples", events.samples),
        ("dropped_frees", events.dropped),
        ("os_refusals", events.refusals),
        ("ticks", events.ticks),
        ("recalls", events.recalls),
        ("release_rounds", events.release_rounds),
        ("huge_page_pauses", events.huge_page_pauses),
    ] {
        is(&format!("freestone_{name}_total{{}}"), count);
    }
    let with_free = document.classes.iter().flat_map(|class| &class.spans_by_free).map(|&spans| u64::from(spans)).sum();
    is("freestone_spans{fill=\"full\"}", document.classes.iter().map(|class| class.spans).sum::<u64>() - with_free);
    is("freestone_spans{fill=\"partial\"}", with_free);
    for (call, count) in [
        ("map", events.maps),
        ("unmap", events.unmaps),
        ("purge", events.purges),
        ("advise", events.advices),
        ("move", events.moves),
    ] {
        is(&format!("freestone_os_calls_total{{call=\"{call}\"}}"), count);
    }
    for (by, kind) in [("release", "release"), ("assist", "assist"), ("request", "release_all")] {
        let summary = document.pauses.summaries.iter().find(|summary| summary.kind == kind).expect(kind);
        is(&format!("freestone_given_back_bytes_total{{by=\"{by}\"}}"), summary.bytes);
    }
    is("freestone_thread_records{state=\"in_use\"}", heap.thread_records - heap.thread_records_pooled);
    is("freestone_thread_records{state=\"waiting\"}", heap.thread_records_pooled);
    // The reading is older than the first second that the history could look at.
    for kind in freestone::anomaly::Kind::ALL {
        is(&format!("freestone_anomalies_total{{kind=\"{}\"}}", kind.name()), 0);
    }
    is("freestone_background_thread{}", u64::from(heap.background_thread));
    is("freestone_approximate{}", u64::from(heap.approximate));
    for times in &document.slow_paths {
        let mut is = |series: &str, count: u64| expected.is(series, count as f64);
        let of_path = format!("path=\"{}\"", times.path);
        let mut up_to_here = 0;
        for bucket in &times.buckets {
            up_to_here += bucket.count;
            let end = bucket.end_ns.map_or(f64::INFINITY, |ns| ns as f64 / 1e9);
            is(&format!("freestone_slow_path_seconds_bucket{{le=\"{end:?}\",{of_path}}}"), up_to_here);
        }
        is(&format!("freestone_slow_path_seconds_count{{{of_path}}}"), times.count);
        let seconds = times.total_ns as f64 / 1e9;
        expected.is(&format!("freestone_slow_path_seconds_sum{{{of_path}}}"), seconds);
    }
    expected.0
}

/// What is not the same in both, in words.
fn differences(known: &BTreeMap<String, f64>, meant: &BTreeMap<String, f64>) -> Vec<String> {
    let of = |series: &String| (known.get(series).copied(), meant.get(series).copied());
    let both: BTreeSet<&String> = known.keys().chain(meant.keys()).collect();
    let differ = both.into_iter().filter(|series| of(series).0 != of(series).1);
    differ
        .map(|series| format!("{series}: Prometheus knows {:?}, and was meant to know {:?}", of(series).0, of(series).1))
        .collect()
}

/// Series that the document of a snapshot alone does not have: what the kernel says of the process, and what is on account of tags.
fn is_of_the_process(series: &str) -> bool {
    ["freestone_process_resident_bytes{", "freestone_process_age_seconds{", "freestone_info{", "freestone_tag_"]
        .iter()
        .any(|name| series.starts_with(name))
}

#[test]
fn prometheus_knows_what_the_document_says() {
    let Some(prometheus) = find("prometheus") else { return };
    let folder = folder("server");
    control::set_memory_limit(Limit::Bytes(1 << 40));
    control::set_hard_limit(Limit::Bytes(1 << 41));
    let _words = service::work();
    control::release_to_os();

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    let service = listener.local_addr().expect("it listens");
    // One reading for all that follows: whoever asks allocates, and so would change what is asked for.
    std::thread::spawn(move || service::serve(&listener, Duration::from_hours(1)));
    let document = get(service, "/stats.json").expect("the service answers");
    let document = Document::parse(&document).expect("it is a document");
    let text = get(service, "/metrics").expect("the service answers");

    let configuration = format!(
        "global: {{scrape_interval: 1s}}\n\
         rule_files: [{alerts:?}]\n\
         scrape_configs:\n  - job_name: freestone\n    static_configs: [{{targets: [\"{service}\"]}}]\n",
        alerts = alerts(),
    );
    fs::write(folder.join("prometheus.yml"), configuration).expect("the folder can be written to");
    let (_running, server) = start(&prometheus, &folder);

    let began = Instant::now();
    let known = loop {
        let known = query(server, r#"{job="freestone", __name__=~"freestone_.*"}"#);
        if !known.is_empty() {
            break known;
        }
        assert!(began.elapsed() < PATIENCE, "Prometheus has not scraped: {}", log(&folder));
        std::thread::sleep(Duration::from_millis(100));
    };
    // What it was given in the other format, with everything in it.
    assert_eq!(differences(&known, &samples(&text)), [""; 0]);
    let (of_process, of_heap): (BTreeMap<_, _>, BTreeMap<_, _>) =
        known.into_iter().partition(|(series, _)| is_of_the_process(series));
    assert_eq!(differences(&of_heap, &expected(&document)), [""; 0]);
    assert!(of_process.keys().any(|series| series.starts_with("freestone_info{")), "{of_process:?}");

    // The sums that names promise, as Prometheus makes them.
    let sum = |expression: &str| {
        let answer = query(server, &format!(r#"label_replace({expression}, "__name__", "sum", "", "")"#));
        *answer.get("sum{}").unwrap_or_else(|| panic!("{expression}: {answer:?}"))
    };
    assert_eq!(sum("sum(freestone_memory_bytes)").to_bits(), (document.heap.bytes.committed as f64).to_bits());
    assert_eq!(sum("sum(freestone_os_calls_total)").to_bits(), (document.heap.events.os_calls as f64).to_bits());
    let rules = get(server, "/api/v1/rules").expect("Prometheus has rules");
    for alert in ["FreestoneLiveMemoryGrows", "FreestoneRetainsMemory", "FreestoneNearMemoryLimit"] {
        assert!(rules.contains(alert), "{rules}");
    }
    assert!(!rules.contains("\"health\":\"err\""), "{rules}");
}

/// Prometheus, on a port that was free a moment ago.
fn start(prometheus: &Path, folder: &Path) -> (Running, SocketAddr) {
    for _ in 0..5 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let server = listener.local_addr().expect("it listens");
        drop(listener);
        let log = fs::File::create(folder.join("log")).expect("the folder can be written to");
        let child = Command::new(prometheus)
            .arg(format!("--config.file={}", folder.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address={server}"))
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("Prometheus starts");
        let mut running = Running(child);
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if get(server, "/-/ready").is_some() {
                return (running, server);
            }
            // Somebody else may have taken the port.
            if running.0.try_wait().is_ok_and(|ended| ended.is_some()) {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    panic!("Prometheus does not start: {}", log(folder));
}

fn log(folder: &Path) -> String {
    fs::read_to_string(folder.join("log")).unwrap_or_default()
}

/// Runs `promtool` in a folder; says whether it was content, and what it said.
fn promtool(program: &Path, folder: &Path, arguments: &[&str], input: &str) -> (bool, String) {
    let mut child = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool starts");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("promtool reads");
    let output = child.wait_with_output().expect("promtool ends");
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    (output.status.success(), said)
}

#[test]
fn promtool_has_nothing_to_say() {
    let Some(program) = find("promtool") else { return };
    let folder = folder("promtool");
    let text = freestone_stats::openmetrics::prometheus_text();
    let (is_content, said) = promtool(&program, &folder, &["check", "metrics"], &text);
    assert!(is_content && said.is_empty(), "{said}");
    // That it would: a counter must end in _total.
    let wrong = text.replace("freestone_frees_total", "freestone_frees");
    let (is_content, said) = promtool(&program, &folder, &["check", "metrics"], &wrong);
    assert!(!is_content && said.contains("freestone_frees"), "{said}");
    let alerts = alerts();
    let (is_content, said) = promtool(&program, &folder, &["check", "rules", alerts.to_str().expect("a path in UTF-8")], "");
    assert!(is_content && said.contains("3 rules found"), "{said}");
}

/// Six programs, four hours each: one that grows, one whose load comes and goes, one that holds what it does not use, one near its hard limit, one over
/// its soft limit, and one that does nothing.
#[test]
fn alerts_fire_where_they_should_and_nowhere_else() {
    let Some(program) = find("promtool") else { return };
    let folder = folder("alerts");
    // Minutes: the load is a gigabyte for half an hour, and two for another.
    let sawtooth: String = (0..240).map(|minute| if minute / 30 % 2 == 0 { "1e9 " } else { "2e9 " }).collect();
    let tests = format!(
        r#"
rule_files: [{alerts:?}]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {{series: 'freestone_memory_bytes{{class="live", instance="grows"}}', values: '1e9+1e6x240'}}
      - {{series: 'freestone_memory_bytes{{class="live", instance="comes and goes"}}', values: '{sawtooth}'}}
      - {{series: 'freestone_memory_bytes{{class="live", instance="retains"}}', values: '1e8+0x240'}}
      - {{series: 'freestone_memory_bytes{{class="dirty", instance="retains"}}', values: '2e8+0x240'}}
      - {{series: 'freestone_memory_bytes{{class="holes", instance="retains"}}', values: '2e8+0x240'}}
      - {{series: 'freestone_held_bytes{{instance="near"}}', values: '91+0x240'}}
      - {{series: 'freestone_hard_limit_bytes{{instance="near"}}', values: '100+0x240'}}
      - {{series: 'freestone_held_bytes{{instance="over"}}', values: '90+0x240'}}
      - {{series: 'freestone_memory_limit_bytes{{instance="over"}}', values: '100+0x240'}}
      - {{series: 'freestone_limit_exceeded_total{{instance="over"}}', values: '0+3x240'}}
      - {{series: 'freestone_memory_bytes{{class="live", instance="quiet"}}', values: '1e9+0x240'}}
      - {{series: 'freestone_memory_bytes{{class="dirty", instance="quiet"}}', values: '4e8+0x240'}}
      - {{series: 'freestone_held_bytes{{instance="quiet"}}', values: '90+0x240'}}
      - {{series: 'freestone_hard_limit_bytes{{instance="quiet"}}', values: '100+0x240'}}
      - {{series: 'freestone_limit_exceeded_total{{instance="quiet"}}', values: '7+0x240'}}
    promql_expr_test:
      - expr: 'count by (alertname, instance) (ALERTS{{alertstate="firing"}})'
        eval_time: 235m
        exp_samples:
          - {{labels: '{{alertname="FreestoneLiveMemoryGrows", instance="grows"}}', value: 1}}
          - {{labels: '{{alertname="FreestoneRetainsMemory", instance="retains"}}', value: 1}}
          - {{labels: '{{alertname="FreestoneNearMemoryLimit", instance="near"}}', value: 1}}
          - {{labels: '{{alertname="FreestoneNearMemoryLimit", instance="over"}}', value: 1}}
"#,
        alerts = alerts(),
    );
    fs::write(folder.join("tests.yml"), tests).expect("the folder can be written to");
    let (is_content, said) = promtool(&program, &folder, &["test", "rules", "tests.yml"], "");
    assert!(is_content, "{said}");
}
