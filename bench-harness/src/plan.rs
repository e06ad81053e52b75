//! What a session is to do: which rows on which subjects, how often, and what else is looked at. It comes from a scenario and from what was typed,
//! which has the last word.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use freestone_bench::workload::{self, Workload};

use crate::Misuse;
use crate::arguments::{Measure, found};
use crate::record::{Floors, View};
use crate::scenario::Scenario;
use crate::subjects::{self, EVERYONE, Subject};

/// A session before it begins.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The name of the scenario, if it follows one.
    pub(crate) scenario: Option<String>,
    /// What is run.
    pub(crate) rows: Vec<Row>,
    /// On whom.
    pub(crate) subjects: Vec<&'static Subject>,
    /// Those of them that somebody named, where a scenario naming what is usual does not count: that one is missing is then a failure.
    pub(crate) named: Vec<String>,
    /// Runs of each subject on each row.
    pub(crate) repetitions: u64,
    /// Share of the full number of operations.
    pub(crate) percent: u64,
    /// Decides the order of the runs.
    pub(crate) seed: Option<u64>,
    /// When to give up on a run.
    pub(crate) timeout: Duration,
    /// All the environment that subjects have, but for what makes a variant.
    pub(crate) environment: Vec<(String, String)>,
    /// Are instructions counted, too?
    pub(crate) instructions: bool,
    /// Are calls into the system counted, too?
    pub(crate) calls: bool,
    /// Where the subjects are that somebody else built.
    pub(crate) prebuilt: Option<PathBuf>,
}

/// A workload with its parameters, and what it has to reach.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// What is run.
    pub(crate) workload: &'static Workload,
    /// What was chosen of what it lets choose, in the order of its list.
    pub(crate) parameters: Vec<(String, String)>,
    /// What is to be reached.
    pub(crate) floors: Floors,
}

impl Row {
    /// A workload as it is.
    pub(crate) fn plain(workload: &'static Workload) -> Self {
        Self { workload, parameters: Vec::new(), floors: Floors::default() }
    }

    /// The row's name in tables and records, such as `grpc streams=512 variant=pooled`.
    pub(crate) fn title(&self) -> String {
        let mut title = self.workload.name.to_owned();
        for (name, value) in &self.parameters {
            let _ = write!(title, " {name}={value}");
        }
        title
    }
}

impl Plan {
    /// Does any of its rows serve requests? Then all subjects are built for it.
    pub(crate) fn has_services(&self) -> bool {
        self.rows.iter().any(|row| row.workload.is_service())
    }

    /// How runs are looked at besides by the clock.
    pub(crate) fn views(&self) -> Vec<View> {
        let asked = [(self.calls, View::Calls), (self.instructions, View::Instructions)];
        asked.into_iter().filter_map(|(is_asked, view)| is_asked.then_some(view)).collect()
    }

    /// What was typed, without a scenario's name.
    pub(crate) fn typed(asked: &Measure) -> Result<Self> {
        Self::following(if asked.full { "full" } else { "default" }, asked)
    }

    /// What a scenario asks for, and what was typed besides.
    pub(crate) fn following(scenario: &str, asked: &Measure) -> Result<Self> {
        ensure!(
            !asked.full || scenario == "full",
            Misuse(format!("--full is the scenario full, so it cannot be added to the scenario {scenario}"))
        );
        // What was typed is looked at first: its mistake is one, and a file's may be many.
        workloads(&asked.workloads, &[])?;
        subjects(asked)?;
        Self::merged(Scenario::load(scenario)?, asked)
    }

    fn merged(scenario: Scenario, asked: &Measure) -> Result<Self> {
        let names = if asked.subjects.is_empty() { scenario.subjects } else { asked.subjects.clone() };
        let is_extra = |name: &&String| Subject::by_name(name).is_none_or(|subject| !subject.by_default);
        let extra = names.iter().filter(is_extra).cloned();
        let named = asked.subjects.iter().chain(&asked.with).cloned().chain(extra).collect();
        let who = Measure { subjects: names, ..asked.clone() };
        let mut environment = scenario.environment;
        for (name, value) in &asked.env {
            environment.retain(|(its, _)| its != name);
            environment.push((name.clone(), value.clone()));
        }
        let follows = asked.workloads.is_empty();
        Ok(Self {
            // With other rows it is another session, whatever else it has from there.
            scenario: follows.then_some(scenario.name),
            rows: if follows { scenario.rows } else { workloads(&asked.workloads, &scenario.rows)? },
            subjects: subjects(&who)?,
            named,
            repetitions: asked.repetitions.unwrap_or(scenario.repetitions),
            percent: asked.percent.unwrap_or(scenario.percent),
            seed: asked.seed.or(scenario.seed),
            timeout: asked.timeout.map_or(scenario.timeout, Duration::from_secs),
            environment,
            instructions: asked.instructions || scenario.instructions,
            calls: asked.calls || scenario.calls,
            prebuilt: asked.prebuilt.clone(),
        })
    }

    /// What each row has to reach, by its title.
    pub(crate) fn floors(&self) -> BTreeMap<String, Floors> {
        self.rows.iter().filter(|row| row.floors.count() > 0).map(|row| (row.title(), row.floors)).collect()
    }
}

/// The workloads that were typed, in the order of the table: with a scenario's parameters and floors where it has some, and otherwise as they
/// are.
fn workloads(wanted: &[String], scenario: &[Row]) -> Result<Vec<Row>> {
    let all: Vec<&str> = workload::all().map(|its| its.name).collect();
    let mut names = Vec::new();
    for wanted in wanted {
        let found = found(wanted, &all);
        ensure!(!found.is_empty(), Misuse(format!("there is no workload '{wanted}'; --list names them")));
        names.extend(found);
    }
    let mut rows = Vec::new();
    for workload in workload::all().filter(|its| names.contains(&its.name)) {
        let before = rows.len();
        rows.extend(scenario.iter().filter(|row| row.workload.name == workload.name).cloned());
        if rows.len() == before {
            rows.push(Row::plain(workload));
        }
    }
    Ok(rows)
}

fn subjects(asked: &Measure) -> Result<Vec<&'static Subject>> {
    let mut names = asked.subjects.clone();
    names.extend_from_slice(&asked.with);
    for name in &names {
        let is_known = name == EVERYONE || Subject::by_name(name).is_some();
        ensure!(is_known, Misuse(format!("there is no subject '{name}'; --list names them")));
    }
    let chosen = subjects::chosen(&names, asked.subjects.is_empty());
    if !asked.tuned {
        return Ok(chosen);
    }
    let tuned: Vec<&Subject> = chosen.into_iter().filter_map(Subject::tuned).collect();
    ensure!(!tuned.is_empty(), Misuse("none of these subjects has knobs; --list names those that have".to_owned()));
    Ok(tuned)
}
