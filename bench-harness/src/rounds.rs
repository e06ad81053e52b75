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
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use freestone_bench::workload::{Rng, Workload};
use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use serde::Deserialize;

use crate::record::{Keeper, Measurement, Outcome, Record, Run};
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
        little.run(built, workload).map(|line| line.version).map_err(|failure| failure.reason)
    }

    fn run(&self, built: &Built, workload: &Workload) -> Result<Line, Failure> {
        let mut command = Command::new(&built.program);
        command.arg(workload.name).arg(self.percent.to_string()).arg(self.inputs);
        command.env_clear().envs(built.subject.environment(self.environment));
        let text = output(&mut command, self.timeout)?;
        serde_json::from_str(&text).map_err(|error| Failure::once(format!("printed something unexpected: {error}")))
    }
}

/// Why a run counts for nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Failure {
    reason: String,
    /// Would another run take as long for nothing?
    hopeless: bool,
}

impl Failure {
    fn once(reason: String) -> Self {
        Self { reason, hopeless: false }
    }
}

/// What a process printed, if it ended well and in time. Waits without looking at a clock again and again, which would cost the process time
/// on a machine with few cores.
fn output(command: &mut Command, timeout: Duration) -> Result<String, Failure> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| Failure::once(format!("cannot be started: {error}")))?;
    let (sender, receiver) = channel();
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    thread::spawn(move || {
        // A subject says one line at most on stderr, which fits a pipe; so one after the other will do.
        let texts = (all(stdout), all(stderr));
        // The other end is gone when it took too long.
        let _ = sender.send(texts);
    });
    let texts = receiver.recv_timeout(timeout);
    let status = end(&mut child, texts.is_err()).map_err(|error| Failure::once(format!("cannot be waited for: {error}")))?;
    match texts {
        Ok((stdout, _)) if status.success() => Ok(stdout),
        Ok((_, stderr)) => {
            let said = stderr.lines().rfind(|line| !line.trim().is_empty()).map_or_else(String::new, |line| format!(": {line}"));
            Err(Failure::once(format!("{status}{said}")))
        }
        Err(RecvTimeoutError::Timeout) => {
            Err(Failure { reason: format!("took more than {} s", timeout.as_secs()), hopeless: true })
        }
        Err(RecvTimeoutError::Disconnected) => Err(Failure::once("cannot be listened to".to_owned())),
    }
}

fn all(pipe: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        // What came before an error is all there is.
        let _ = pipe.read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn end(child: &mut Child, by_force: bool) -> std::io::Result<ExitStatus> {
    if by_force {
        child.kill()?;
    }
    child.wait()
}

/// Who runs what how often.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    /// The date of the session.
    pub(crate) session: &'a str,
    /// Who, with its version.
    pub(crate) subjects: &'a [(Built, String)],
    /// What.
    pub(crate) workloads: &'a [&'static Workload],
    /// How often.
    pub(crate) repetitions: u64,
    /// Decides the order.
    pub(crate) seed: u64,
    /// How.
    pub(crate) launch: Launch<'a>,
}

impl Plan<'_> {
    /// Does it all. A run that fails is a record like others; only a file that cannot be written ends it early.
    pub(crate) fn run(&self, keeper: &mut Keeper) -> Result<Vec<Run>> {
        let mut rng = Rng::new(self.seed);
        let mut runs = Vec::new();
        let mut hopeless = HashSet::new();
        let bar = self.progress()?;
        for round in 1..=self.repetitions {
            let started = Instant::now();
            for (workload, (built, version)) in order(&mut rng, self.workloads, self.subjects) {
                let name = built.subject.name;
                bar.set_message(format!("round {round} of {}: {name} on {}", self.repetitions, workload.name));
                if !hopeless.contains(&(name, workload.name)) {
                    let outcome = match self.launch.run(built, workload) {
                        Ok(line) => Outcome::Measured(line.measurement),
                        Err(failure) => {
                            if failure.hopeless {
                                hopeless.insert((name, workload.name));
                            }
                            bar.suspend(|| eprintln!("{name} on {} in round {round}: {}", workload.name, failure.reason));
                            Outcome::Failed(failure.reason)
                        }
                    };
                    let run = Run {
                        session: self.session.to_owned(),
                        date: now(),
                        round,
                        subject: name.to_owned(),
                        version: version.clone(),
                        workload: workload.name.to_owned(),
                        outcome,
                    };
                    keeper.keep(&Record::Run(run.clone()))?;
                    runs.push(run);
                }
                bar.inc(1);
            }
            if bar.is_hidden() {
                eprintln!("round {round} of {} took {:.0} s", self.repetitions, started.elapsed().as_secs_f64());
            }
        }
        bar.finish_and_clear();
        Ok(runs)
    }

    /// Drawn between the runs and never during one.
    fn progress(&self) -> Result<ProgressBar> {
        let bar = ProgressBar::new(self.workloads.len() as u64 * self.subjects.len() as u64 * self.repetitions);
        let template = "running  {bar:30} {pos:>3}/{len}, {eta} left, {wide_msg}";
        bar.set_style(ProgressStyle::with_template(template).context("the progress bar's template is wrong")?);
        Ok(bar)
    }
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
    use super::{Failure, order, output};
    use freestone_bench::workload::Rng;
    use std::process::Command;
    use std::time::Duration;

    fn shell(script: &str, timeout: Duration) -> Result<String, Failure> {
        output(Command::new("sh").args(["-c", script]), timeout)
    }

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

    #[test]
    fn a_process_that_ends_well_is_heard() {
        assert_eq!(shell("echo well", Duration::from_mins(1)), Ok("well\n".to_owned()));
    }

    #[test]
    fn a_crash_names_the_signal_and_a_failure_says_its_last_line() {
        let crash = shell("kill -SEGV $$", Duration::from_mins(1)).expect_err("it crashes");
        assert!(crash.reason.contains("SIGSEGV"), "{}", crash.reason);
        let failure = shell("echo so; echo no >&2; exit 3", Duration::from_mins(1)).expect_err("it fails");
        assert_eq!(failure.reason, "exit status: 3: no");
    }

    #[test]
    fn a_process_that_never_ends_is_given_up() {
        let failure = shell("exec sleep 1000", Duration::from_millis(50)).expect_err("it takes too long");
        assert!(failure.hopeless);
    }
}
