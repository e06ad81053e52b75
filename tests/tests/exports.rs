//! Four things name the metrics: the table in `freestone-stats`, the text that is scraped, the dashboard and the alerts in `docs/`, and the page that
//! explains them. Who follows one of them must find the same in the others.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};

use freestone::{Freestone, Limit, control};
use freestone_stats::metrics::{self, Kind, Metric, Reading};
use freestone_stats::openmetrics;
use serde_json::Value;
use yaml_rust2::{Yaml, YamlLoader};

#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

fn docs(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(file)
}

fn read(file: &str) -> String {
    std::fs::read_to_string(docs(file)).unwrap_or_else(|error| panic!("docs/{file}: {error}"))
}

/// A reading in which every family has samples.
fn full_reading() -> Reading {
    control::set_memory_limit(Limit::Bytes(1 << 40));
    control::set_hard_limit(Limit::Bytes(1 << 41));
    drop(freestone_stats::tag("ingest"));
    Reading::now()
}

#[test]
fn what_is_scraped_is_what_the_table_says() {
    let text = openmetrics::prometheus_text_of(&full_reading());
    let described: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    // In that format an info is a gauge.
    let kind = |metric: &Metric| if metric.kind == Kind::Info { "gauge" } else { metric.kind.as_str() };
    let table: BTreeMap<&str, &str> = metrics::all().iter().map(|metric| (metric.name, kind(metric))).collect();
    assert_eq!(described, table);
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let series = line.split(['{', ' ']).next().unwrap_or_default();
        assert!(metric_of(series).is_some(), "{line}");
    }
}

/// The metric that a series belongs to: a histogram has three series.
fn metric_of(series: &str) -> Option<&'static Metric> {
    metrics::all().iter().find(|metric| {
        let suffix = series.strip_prefix(metric.name);
        match metric.kind {
            Kind::Histogram => matches!(suffix, Some("_bucket" | "_sum" | "_count")),
            _ => suffix == Some(""),
        }
    })
}

/// What a query selects by, and what by it sums up.
struct Labels {
    /// Series, key, and the values that it is compared with.
    matched: Vec<(String, String, Vec<String>)>,
    /// In `by (…)` and `without (…)`.
    grouped: Vec<String>,
    /// Series without and with braces.
    series: Vec<String>,
}

/// Reads as much of a query as is needed here: names of series, what stands in braces behind them, and lists behind `by` and `without`.
fn labels(query: &str) -> Labels {
    let mut labels = Labels { matched: Vec::new(), grouped: Vec::new(), series: Vec::new() };
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut rest = query;
    while let Some(start) = rest.find(is_word) {
        let from_word = &rest[start..];
        let end = from_word.find(|c| !is_word(c)).unwrap_or(from_word.len());
        let (word, behind) = from_word.split_at(end);
        rest = behind;
        if word.starts_with("freestone_") {
            labels.series.push(word.to_owned());
            let Some(inside) = behind.strip_prefix('{') else { continue };
            let (matchers, behind) = inside.split_once('}').unwrap_or_else(|| panic!("a brace is open in {query}"));
            rest = behind;
            for matcher in matchers.split(',').filter(|matcher| !matcher.trim().is_empty()) {
                let (key, values) = matcher.split_once('=').unwrap_or_else(|| panic!("{matcher} in {query}"));
                let values = values.trim_start_matches('~').trim().trim_matches('"').split('|').map(str::to_owned).collect();
                labels.matched.push((word.to_owned(), key.trim().trim_end_matches('!').to_owned(), values));
            }
        } else if matches!(word, "by" | "without") {
            let (list, behind) = behind.trim_start().strip_prefix('(').and_then(|list| list.split_once(')')).expect(query);
            rest = behind;
            labels.grouped.extend(list.split(',').map(|key| key.trim().to_owned()));
        }
    }
    labels
}

/// Labels that Prometheus puts to every series, or to every bucket.
const GIVEN: [&str; 3] = ["job", "instance", "le"];

/// Every name, label and label value of a query is one that is exported.
fn check(query: &str, reading: &Reading) {
    let Labels { matched, grouped, series } = labels(query);
    assert!(!series.is_empty(), "{query}");
    let mut known: BTreeSet<&str> = GIVEN.into();
    for series in &series {
        let metric = metric_of(series).unwrap_or_else(|| panic!("nothing exports {series}: {query}"));
        known.extend(metric.labels);
    }
    for key in grouped {
        assert!(known.contains(key.as_str()), "nothing has a label {key}: {query}");
    }
    for (series, key, values) in matched {
        let Some(metric) = metric_of(&series).filter(|_| !GIVEN.contains(&key.as_str())) else { continue };
        let of_samples: BTreeSet<String> = metric
            .samples(reading)
            .iter()
            .flat_map(|sample| sample.labels.clone())
            .filter(|(of, _)| *of == key)
            .map(|(_, value)| value.into_owned())
            .collect();
        for value in values {
            assert!(of_samples.contains(&value), "{series} has no {key}={value}, but {of_samples:?}: {query}");
        }
    }
}

#[test]
fn the_dashboard_asks_for_what_is_exported() {
    let dashboard: Value = serde_json::from_str(&read("grafana.json")).expect("docs/grafana.json is JSON");
    let reading = full_reading();
    let mut asked = BTreeSet::new();
    let panels = dashboard["panels"].as_array().expect("panels");
    for panel in panels {
        let targets = panel["targets"].as_array().expect("a panel has targets");
        assert!(!targets.is_empty(), "{panel}");
        for target in targets {
            let query = target["expr"].as_str().expect("a target has a query");
            check(query, &reading);
            asked.extend(labels(query).series);
        }
        let place = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().expect("a panel has a place"));
        assert!(place[0] + place[2] <= 24, "{} reaches beyond the page", panel["title"]);
    }
    for variable in dashboard["templating"]["list"].as_array().expect("variables") {
        if let Some(query) = variable["definition"].as_str() {
            check(query, &reading);
        }
    }
    for must in [
        "freestone_memory_bytes",
        "freestone_process_resident_bytes",
        "freestone_allocations_total",
        "freestone_given_back_bytes_total",
        "freestone_held_bytes",
    ] {
        assert!(asked.contains(must), "the dashboard does not show {must}");
    }
}

#[test]
fn the_alerts_ask_for_what_is_exported() {
    let files = YamlLoader::load_from_str(&read("alerts.yml")).expect("docs/alerts.yml is YAML");
    let [file] = files.as_slice() else { panic!("one document") };
    let groups = file["groups"].as_vec().expect("groups");
    let rules: Vec<&Yaml> = groups.iter().flat_map(|group| group["rules"].as_vec().expect("rules")).collect();
    let reading = full_reading();
    let mut names = Vec::new();
    for rule in rules {
        check(rule["expr"].as_str().expect("a rule has a query"), &reading);
        names.push(rule["alert"].as_str().expect("a rule has a name"));
        for annotation in ["summary", "description"] {
            assert!(rule["annotations"][annotation].as_str().is_some_and(|text| !text.is_empty()), "{rule:?}");
        }
    }
    assert_eq!(names, ["FreestoneLiveMemoryGrows", "FreestoneRetainsMemory", "FreestoneNearMemoryLimit"]);
}

#[test]
fn a_query_is_read_as_it_is_meant() {
    let query = r#"sum by (le, path) (rate(freestone_a_bucket{job=~"$job", x=~"b|c",y!="d"}[5m])) / freestone_z offset 1h"#;
    let Labels { matched, grouped, series } = labels(query);
    assert_eq!(series, ["freestone_a_bucket", "freestone_z"]);
    assert_eq!(grouped, ["le", "path"]);
    let matched: Vec<String> = matched.iter().map(|(_, key, values)| format!("{key}: {}", values.join(" "))).collect();
    assert_eq!(matched, ["job: $job", "x: b c", "y: d"]);
}

/// With `UPDATE_DOCS=1` in the environment the page is written instead.
#[test]
fn the_page_explains_every_metric() {
    const BEGIN: &str = "<!-- The table is made by tests/tests/exports.rs with UPDATE_DOCS=1 in the environment. -->\n";
    const END: &str = "<!-- end of the table -->\n";
    let reading = full_reading();
    let mut table = String::from("\n| metric | kind | labels | what it says | in OpenTelemetry |\n|---|---|---|---|---|\n");
    for metric in metrics::all() {
        let labels: Vec<String> = metric
            .labels
            .iter()
            .map(|key| {
                let mut values: Vec<String> = Vec::new();
                for (of, value) in metric.samples(&reading).iter().flat_map(|sample| sample.labels.clone()) {
                    if of == *key && !values.contains(&value.clone().into_owned()) {
                        values.push(value.into_owned());
                    }
                }
                // What an info says is different everywhere.
                if metric.kind == Kind::Info { format!("`{key}`") } else { format!("`{key}`: {}", values.join(", ")) }
            })
            .collect();
        let _ = writeln!(
            table,
            "| `{}` | {} | {} | {} | `{}`, {} |",
            metric.name,
            metric.kind.as_str(),
            labels.join("; "),
            metric.help,
            metric.otel.name,
            metric.otel.unit,
        );
    }
    table.push('\n');
    let page = read("metrics.md");
    let (before, rest) = page.split_once(BEGIN).expect("the page has a table");
    let (found, after) = rest.split_once(END).expect("the table has an end");
    if std::env::var_os("UPDATE_DOCS").is_some_and(|value| value == "1") {
        let page = [before, BEGIN, &table, END, after].concat();
        std::fs::write(docs("metrics.md"), page).expect("the page can be written");
    } else {
        assert!(found == table, "docs/metrics.md is out of date; this test writes it with UPDATE_DOCS=1 in the environment");
    }
}

/// Every key at any depth, but those of `config`, which are options.
fn keys(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                into.insert(key.clone());
                if key != "config" {
                    keys(value, into);
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| keys(value, into)),
        _ => {}
    }
}

#[test]
fn the_page_explains_every_key_of_the_document() {
    let document: Value = serde_json::from_str(&freestone_stats::json::stats()).expect("it is JSON");
    let mut written = BTreeSet::new();
    keys(&document, &mut written);
    let page = read("json.md");
    // `summaries[]` stands for what is in an array.
    let explained: BTreeSet<&str> =
        page.split('`').skip(1).step_by(2).flat_map(|word| word.split('.')).map(|word| word.trim_end_matches("[]")).collect();
    let missing: Vec<&String> = written.iter().filter(|key| !explained.contains(key.as_str())).collect();
    assert!(missing.is_empty(), "docs/json.md does not explain {missing:?}");
    let lines = document["ledger"].as_array().expect("lines");
    assert!(lines.iter().any(|line| line["part"] == "resident"), "{lines:?}");
    let tuning = read("tuning.md") + &read("c.md");
    for option in document["config"].as_object().expect("options").keys() {
        assert!(tuning.contains(option), "nobody explains the option {option}");
    }
}
