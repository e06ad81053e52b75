//! A table for spreadsheets and data frames: a line for each run, those that failed included, with all that is known about it.
//!
//! Every line says where it comes from, so that lines of several sessions can be put into one file. What a run does not have is empty.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use anyhow::{Context, Result};

use super::figures::{PERCENTILES, percentile};
use crate::plain::plain;
use crate::record::{Kept, Kind, Measurement, Outcome, Run, View};

/// The columns that there always are, in their order.
const ALWAYS: [&str; 31] = [
    "session",
    "date",
    "machine",
    "cores",
    "is_virtual",
    "memory_bytes",
    "kernel",
    "huge_pages",
    "governor",
    "rustc",
    "commit",
    "seed",
    "percent",
    "scenario",
    "arguments",
    "environment",
    "flags",
    "subject",
    "version",
    "option",
    "row",
    "round",
    "view",
    "operations",
    "nanos",
    "ns_per_operation",
    "peak_rss_bytes",
    "minor_faults",
    "major_faults",
    "checksum",
    "error",
];

/// The whole text.
pub(super) fn text(kept: &Kept) -> Result<String> {
    let runs: Vec<BTreeMap<String, String>> = kept.runs.iter().map(|run| fields(kept, run)).collect();
    let names: BTreeSet<&str> = runs.iter().flat_map(BTreeMap::keys).map(String::as_str).collect();
    let more = names.into_iter().filter(|name| !ALWAYS.contains(name));
    let columns: Vec<&str> = ALWAYS.into_iter().chain(more).collect();
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(&columns)?;
    for run in &runs {
        writer.write_record(columns.iter().map(|column| plain(run.get(*column).map_or("", String::as_str)).into_owned()))?;
    }
    let bytes = writer.into_inner().context("cannot write the table")?;
    Ok(String::from_utf8(bytes)?)
}

/// A line, by column.
fn fields(kept: &Kept, run: &Run) -> BTreeMap<String, String> {
    let (session, machine) = (&kept.session, &kept.session.machine);
    let option = session.subjects.iter().find(|its| its.subject == run.subject).and_then(|its| its.option.clone());
    let view = match run.view {
        View::Timed => "timed",
        View::Calls => "calls",
        View::Instructions => "instructions",
    };
    let mut fields: BTreeMap<String, String> = [
        ("session", run.session.clone()),
        ("date", run.date.clone()),
        ("machine", machine.cpu.clone()),
        ("cores", machine.cores.to_string()),
        ("is_virtual", machine.is_virtual.to_string()),
        ("memory_bytes", machine.memory_bytes.to_string()),
        ("kernel", machine.kernel.clone()),
        ("huge_pages", machine.huge_pages.clone()),
        ("governor", machine.governor.clone().unwrap_or_default()),
        ("rustc", machine.rustc.clone()),
        ("commit", session.commit.clone().unwrap_or_default()),
        ("seed", session.seed.to_string()),
        ("percent", session.percent.to_string()),
        ("scenario", session.scenario.clone().unwrap_or_default()),
        ("arguments", session.arguments.join(" ")),
        ("environment", session.environment.join(" ")),
        ("flags", session.flags.join(" ")),
        ("subject", run.subject.clone()),
        ("version", run.version.clone()),
        ("option", option.unwrap_or_default()),
        ("row", run.workload.clone()),
        ("round", run.round.to_string()),
        ("view", view.to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    match &run.outcome {
        Outcome::Failed(reason) => _ = fields.insert("error".to_owned(), reason.clone()),
        Outcome::Measured(measurement) => measured(&mut fields, run.view, session.kind, measurement),
    }
    fields
}

fn measured(fields: &mut BTreeMap<String, String>, view: View, kind: Kind, measurement: &Measurement) {
    let mut add = |name: &str, value: String| _ = fields.insert(name.to_owned(), value);
    add("operations", measurement.operations.to_string());
    add("nanos", measurement.nanos.to_string());
    // Only a clock that nobody disturbed says how long an operation takes, and a command has none.
    if view == View::Timed && kind != Kind::Program && measurement.operations > 0 {
        add("ns_per_operation", (measurement.nanos as f64 / measurement.operations as f64).to_string());
    }
    add("peak_rss_bytes", measurement.peak_rss_bytes.to_string());
    add("minor_faults", measurement.minor_faults.to_string());
    add("major_faults", measurement.major_faults.to_string());
    add("checksum", measurement.checksum.clone());
    for (name, value) in &measurement.notes {
        add(&format!("note.{name}"), value.to_string());
    }
    for (kind, latency) in &measurement.latencies {
        add(&format!("latency.{kind}.count"), latency.count.to_string());
        add(&format!("latency.{kind}.mean_ns"), latency.mean_ns.to_string());
        for (word, parts, _) in PERCENTILES {
            if let Some(nanos) = percentile(latency, parts) {
                add(&format!("latency.{kind}.{word}_ns"), nanos.to_string());
            }
        }
        add(&format!("latency.{kind}.max_ns"), latency.max_ns.to_string());
    }
    for (name, count) in &measurement.os_calls {
        add(&format!("os_calls.{name}"), count.to_string());
    }
    if let Some(instructions) = measurement.instructions {
        add("instructions", instructions.to_string());
    }
}
