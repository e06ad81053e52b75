//! Runs the subjects: a process for every run, all subjects on a workload one right after the other, in random order.
//!
//! ```text
//!   round 1:  workload c: s1 s3 s2   workload a: s2 s1 s3   workload b: …
//!   round 2:  workload b: s3 s2 s1   workload c: …
//! ```
//!
//! Machines drift: they get warm, and other programs come and go. Runs of one workload and one round lie close together in time, so a drift
//! hits them alike, and they are compared with each other (`report.rs`). Running one subject six times in a row and then the next would
//! measure the hour of the day.

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use freestone_bench::workload::{Rng, Workload};
use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use serde::Deserialize;

use crate::child::{Failure, output};
use crate::record::{Keeper, Measurement, Outcome, Record, Run, Session, Version};
use crate::subjects::Built;

/// How a subject's process is started, whatever it runs.
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    /// Share of the full number of operations.
    pub(crate) percent: u64,
    /// Folder with the input of the real workloads.
    pub(crate) inputs: &'a Path,
    /// All the environment there is, but for what makes a variant: what steers an allocator is passed on only when it was asked for.
    pub(crate) environment: &'a [(String, String)],
    /// When to give up on it.
    pub(crate) timeout: Duration,
}

/// The line that a subject prints.
#[derive(Debug, Deserialize)]
struct Line {
    version: String,
    #[serde(flatten)]
    measurement: Measurement,
}

impl Launch<'_> {
    /// Runs a little of the workload and returns the version that the allocator says of itself, or why it cannot take part.
    pub(crate) fn probe(&self, built: &Built, workload: &Workload) -> Result<String, String> {
        let little = Launch { percent: 1, ..*self };
        little.say(built, workload).map(|line| line.version).map_err(|failure| failure.reason)
    }

    /// One run.
    pub(crate) fn run(&self, built: &Built, workload: &Workload) -> Result<Measurement, Failure> {
        self.say(built, workload).map(|line| line.measurement)
    }

    fn say(&self, built: &Built, workload: &Workload) -> Result<Line, Failure> {
        let mut command = Command::new(&built.program);
        command.arg(workload.name).arg(self.percent.to_string()).arg(self.inputs);
        command.env_clear().envs(built.subject.environment(self.environment));
        let text = output(&mut command, self.timeout)?.stdout;
        serde_json::from_str(&text).map_err(|error| Failure::once(format!("printed something unexpected: {error}")))
    }
}

/// Does all runs of a session: `run` takes the places of a workload and of a subject in the session's lists. A run that fails is a record like
/// others; only a file that cannot be written ends it early.
pub(crate) fn run(
    session: &Session,
    keeper: &mut Keeper,
    run: impl Fn(usize, usize) -> Result<Measurement, Failure>,
) -> Result<Vec<Run>> {
    let mut rng = Rng::new(session.seed);
    let mut runs = Vec::new();
    let mut hopeless = HashSet::new();
    let bar = progress(session)?;
    let workloads: Vec<usize> = (0..session.workloads.len()).collect();
    let subjects: Vec<usize> = (0..session.subjects.len()).collect();
    for round in 1..=session.repetitions {
        let started = Instant::now();
        for (workload, &subject) in order(&mut rng, &workloads, &subjects) {
            let Version { subject: name, version, .. } = &session.subjects[subject];
            let title = &session.workloads[workload];
            bar.set_message(format!("round {round} of {}: {name} on {title}", session.repetitions));
            if !hopeless.contains(&(workload, subject)) {
                let outcome = match run(workload, subject) {
                    Ok(measurement) => Outcome::Measured(measurement),
                    Err(failure) => {
                        if failure.hopeless {
                            hopeless.insert((workload, subject));
                        }
                        bar.suspend(|| eprintln!("{name} on {title} in round {round}: {}", failure.reason));
                        Outcome::Failed(failure.reason)
                    }
                };
                let run = Run {
                    session: session.date.clone(),
                    date: now(),
                    round,
                    subject: name.clone(),
                    version: version.clone(),
                    workload: title.clone(),
                    outcome,
                };
                keeper.keep(&Record::Run(run.clone()))?;
                runs.push(run);
            }
            bar.inc(1);
        }
        if bar.is_hidden() {
            eprintln!("round {round} of {} took {:.0} s", session.repetitions, started.elapsed().as_secs_f64());
        }
    }
    bar.finish_and_clear();
    Ok(runs)
}

/// Drawn between the runs and never during one.
fn progress(session: &Session) -> Result<ProgressBar> {
    let bar = ProgressBar::new(session.workloads.len() as u64 * session.subjects.len() as u64 * session.repetitions);
    let template = "running  {bar:30} {pos:>3}/{len}, {eta} left, {wide_msg}";
    bar.set_style(ProgressStyle::with_template(template).context("the progress bar's template is wrong")?);
    Ok(bar)
}

/// This moment, to the second.
pub(crate) fn now() -> String {
    let now = Timestamp::now();
    now.round(jiff::Unit::Second).unwrap_or(now).to_string()
}

/// One round: all workloads in random order, and on each of them all subjects in random order.
fn order<'a, W: Copy, S>(rng: &mut Rng, workloads: &[W], subjects: &'a [S]) -> Vec<(W, &'a S)> {
    let mut workloads = workloads.to_vec();
    shuffle(rng, &mut workloads);
    let mut order = Vec::with_capacity(workloads.len() * subjects.len());
    for workload in workloads {
        let mut subjects: Vec<&S> = subjects.iter().collect();
        shuffle(rng, &mut subjects);
        order.extend(subjects.into_iter().map(|subject| (workload, subject)));
    }
    order
}

/// Fisher and Yates.
fn shuffle<T>(rng: &mut Rng, values: &mut [T]) {
    for last in (1..values.len()).rev() {
        values.swap(last, rng.below(last + 1));
    }
}

#[cfg(test)]
mod tests {
    use super::order;
    use freestone_bench::workload::Rng;

    #[test]
    fn a_round_runs_every_subject_once_per_workload_and_the_seed_says_in_which_order() {
        let (workloads, subjects) = (['a', 'b', 'c'], [1, 2, 3, 4]);
        let mut orders = Vec::new();
        for _ in 0..2 {
            let mut rng = Rng::new(5);
            orders.push([order(&mut rng, &workloads, &subjects), order(&mut rng, &workloads, &subjects)]);
        }
        assert_eq!(orders[0], orders[1]);
        let [first, second] = &orders[0];
        assert_ne!(first, second);
        for chunk in first.chunks(4) {
            assert!(chunk.iter().all(|(workload, _)| *workload == chunk[0].0), "one workload at a time");
        }
        let mut sorted = first.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), 12);
    }
}
