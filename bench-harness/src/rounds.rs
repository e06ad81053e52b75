//! Runs the subjects: a process for every run, all subjects on a workload one right after the other, or side by side, in random order.
//!
//! ```text
//!   round 1:  workload c: s1 s3 s2   workload a: s2|s1|s3   workload b: …
//!   round 2:  workload b: s3 s2 s1   workload c: …
//! ```
//!
//! Machines drift: they get warm, and other programs come and go. Runs of one workload and one round lie close together in time, so a drift
//! hits them alike, and they are compared with each other (`report`). Running one subject six times in a row and then the next would
//! measure the hour of the day. The first subject runs twice in each round, the second time under another name
//! ([`is_again`]): how far these two are apart is what the machine does, and not the allocator.
//!
//! Where that changes nothing about the work, the subjects run at the same time and share a processor by turns: what the machine's moods do to one,
//! they do to all ([`turns`](freestone_bench::workload::turns)).
//!
//! Nothing of the harness runs while a subject does but threads that wait: the progress is drawn between the runs, and the processor time that it
//! takes all the same is kept ([`Done::own_cpu_share`]).
//!
//! After the timed rounds there is one round for each other [`View`], in which a subject need not run twice.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::panic::resume_unwind;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use freestone_bench::subject::Cost;
use freestone_bench::workload::{self, Rng, Workload, turns};
use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use serde::Deserialize;

use crate::child::{Failure, output_sampled};
use crate::interrupt;
use crate::plain::plain;
use crate::plan::Row;
use crate::record::{Keeper, Measurement, Outcome, Record, Run, Session, Version, View};
use crate::sampler::{Detail, Sampler};
use crate::statistics::Difference;
use crate::subjects::{Built, is_again};
use crate::{calls, instructions};

/// What a subject is told that it is called: whoever it is and wherever it lies, its allocator gets a word of the same length to keep. The length alone is
/// 9 % of the time of `small-program` (decision 25).
pub(crate) const SUBJECT: &str = "subject";

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
    /// What makes a run on a simulated processor repeatable ([`instructions::repeatable`]), where there are such runs.
    pub(crate) repeatable: &'a Path,
}

/// The line that a subject prints.
#[derive(Debug, Deserialize)]
struct Line {
    version: String,
    #[serde(flatten)]
    measurement: Measurement,
}

impl Launch<'_> {
    /// Runs a little of the row and returns the version that the allocator says of itself, or why it cannot take part.
    pub(crate) fn probe(&self, built: &Built, row: &Row) -> Result<String, String> {
        let little = Launch { percent: 1, ..*self };
        little.say(built, row).map(|line| line.version).map_err(|failure| failure.reason)
    }

    /// One run, looked at in this way.
    pub(crate) fn look(&self, view: View, built: &Built, row: &Row) -> Result<Measurement, Failure> {
        match view {
            View::Timed => self.run(built, row),
            View::Calls => calls::count(self, built, row),
            View::Instructions => instructions::count(self, built, row),
        }
    }

    /// One run by the clock.
    pub(crate) fn run(&self, built: &Built, row: &Row) -> Result<Measurement, Failure> {
        self.say(built, row).map(|line| line.measurement)
    }

    fn say(&self, built: &Built, row: &Row) -> Result<Line, Failure> {
        let mut command = Command::new(&built.program);
        command.arg0(SUBJECT).args(self.words(row)).env_clear().envs(built.subject.environment(self.environment));
        if row.workload.is_side_by_side() {
            command.arg(format!("{}={}", turns::PROCESSOR, shared_processor()));
        }
        let is_about_memory = row.workload.is_over_time() || row.workload.is_service();
        let mut sampler = Sampler::new(if is_about_memory { Detail::Fine } else { Detail::Coarse }, &mut command);
        let mut line = line(&output_sampled(&mut command, self.timeout, &mut sampler)?.stdout)?;
        line.measurement.resident = sampler.samples();
        Ok(line)
    }

    /// What a subject is told on a row: its arguments.
    pub(crate) fn words(&self, row: &Row) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec![row.workload.name.into(), self.percent.to_string().into(), self.inputs.into()];
        words.extend(row.parameters.iter().map(|(name, value)| format!("{name}={value}").into()));
        words
    }

    /// What a subject's line says that somebody else has run.
    pub(crate) fn understood(text: &str) -> Result<Measurement, Failure> {
        line(text).map(|line| line.measurement)
    }
}

fn line(text: &str) -> Result<Line, Failure> {
    serde_json::from_str(text).map_err(|error| Failure::once(format!("printed something unexpected: {error}")))
}

/// The processor that subjects share: the last of those that the harness may use, as most look for work at the first.
fn shared_processor() -> usize {
    // SAFETY: all zeros is a set without any processor.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is as long as we say. Where it is too short for this machine, it stays empty.
    unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) };
    // SAFETY: the set has a place for each of these.
    (0..libc::CPU_SETSIZE as usize).rev().find(|&processor| unsafe { libc::CPU_ISSET(processor, &set) }).unwrap_or(0)
}

/// Do subjects run this row side by side?
pub(crate) fn is_side_by_side(title: &str) -> bool {
    title.split(' ').next().and_then(workload::by_name).is_some_and(Workload::is_side_by_side)
}

/// How figures of a row compare, round by round.
pub(crate) fn difference(title: &str, figures: &BTreeMap<u64, f64>, others: &BTreeMap<u64, f64>) -> Option<Difference> {
    if is_side_by_side(title) { Difference::side_by_side(figures, others) } else { Difference::by_round(figures, others) }
}

/// A run that is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Turn {
    view: View,
    round: u64,
    /// Its place in the session's list.
    workload: usize,
    /// Its place in the session's list.
    subject: usize,
}

/// All runs of a session in their order, which its seed decides.
pub(crate) fn all_turns(session: &Session, views: &[View]) -> Vec<Turn> {
    let mut rng = Rng::new(session.seed);
    let workloads: Vec<usize> = (0..session.workloads.len()).collect();
    let all: Vec<usize> = (0..session.subjects.len()).collect();
    let once: Vec<usize> = all.iter().copied().filter(|&subject| !is_again(&session.subjects[subject].subject)).collect();
    let mut turns = Vec::new();
    let timed = (1..=session.repetitions).map(|round| (View::Timed, round, &all));
    for (view, round, subjects) in timed.chain(views.iter().map(|&view| (view, 1, &once))) {
        let order =
            order(&mut rng, &workloads, subjects).into_iter().filter(|(place, _)| shows(view, &session.workloads[*place]));
        turns.extend(order.map(|(workload, &subject)| Turn { view, round, workload, subject }));
    }
    turns
}

/// Is there something to see of this row in this view?
pub(crate) fn shows(view: View, title: &str) -> bool {
    let workload = title.split(' ').next().and_then(workload::by_name);
    view != View::Instructions || workload.is_none_or(|workload| instructions::refused(workload).is_none())
}

/// What came of the runs of a session.
#[derive(Debug)]
pub(crate) struct Done {
    /// As they ended, those of an earlier beginning first.
    pub(crate) runs: Vec<Run>,
    /// Why it ended before all were done.
    pub(crate) cut: Option<Cut>,
    /// The processor time that the harness took while runs were in progress, as a share of the time that they took.
    pub(crate) own_cpu_share: f64,
}

/// Why a session ends early.
#[derive(Debug)]
pub(crate) enum Cut {
    /// Somebody pressed Ctrl-C.
    Interrupted,
    /// What was measured can no longer be written down.
    Unkept(anyhow::Error),
}

/// Does all runs of a session but those that are `there` already: `run` takes the view, and the places of a workload and of a subject in the
/// session's lists. A run that fails is a record like others.
pub(crate) fn run(
    session: &Session,
    keeper: &mut Keeper,
    views: &[View],
    there: Vec<Run>,
    mut pace: Pace,
    run: impl Fn(View, usize, usize) -> Result<Measurement, Failure> + Sync,
) -> Result<Done> {
    let mut turns = all_turns(session, views);
    turns.retain(|turn| !there.iter().any(|run| turn.is_of(session, run)));
    let mut done = Done { runs: there, cut: None, own_cpu_share: 0.0 };
    let (mut own, mut whole) = (Duration::ZERO, Duration::ZERO);
    let mut hopeless = HashSet::new();
    let bar = progress(turns.len())?;
    let mut round_began = Instant::now();
    let mut rest = &turns[..];
    while let Some(first) = rest.first() {
        let (beside, after) = rest.split_at(rest.iter().take_while(|turn| first.is_beside(turn, session)).count().max(1));
        let Turn { view, round, workload, .. } = *first;
        let title = &session.workloads[workload];
        let said = first.round_in_words(session.repetitions);
        if interrupt::is_asked() {
            done.cut = Some(Cut::Interrupted);
            break;
        }
        let due: Vec<Turn> = beside.iter().copied().filter(|turn| !hopeless.contains(&(view, workload, turn.subject))).collect();
        let who = match &due[..] {
            [one] => &*session.subjects[one.subject].subject,
            _ => "all side by side",
        };
        if !due.is_empty() {
            bar.set_message(format!("{} left, {said}: {who} on {title}", in_words(pace.of_all(rest))));
        }
        let (began, own_before) = (Instant::now(), own_cpu());
        let outcomes = at_once(&due, |turn| run(view, workload, turn.subject));
        let took = began.elapsed();
        own += own_cpu().saturating_sub(own_before);
        whole += took;
        // What was killed says nothing, neither about its subject nor about how long it takes.
        let has_failed = outcomes.iter().any(Result::is_err);
        if if has_failed { interrupt::is_asked_by_now() } else { interrupt::is_asked() } {
            done.cut = Some(Cut::Interrupted);
            break;
        }
        let took = took / u32::try_from(due.len().max(1)).unwrap_or(u32::MAX);
        for (turn, outcome) in due.into_iter().zip(outcomes) {
            let Version { subject: name, version, .. } = &session.subjects[turn.subject];
            let outcome = match outcome {
                Ok(measurement) => {
                    pace.learn(turn, took);
                    Outcome::Measured(measurement)
                }
                Err(failure) => {
                    if failure.hopeless {
                        hopeless.insert((view, workload, turn.subject));
                    }
                    bar.suspend(|| eprintln!("{name} on {title} in {said}: {}", plain(&failure.reason)));
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
                view,
                took_ms: Some(took.as_millis() as u64),
                outcome,
            };
            let kept = keeper.keep(&Record::Run(run.clone()));
            done.runs.push(run);
            if let Err(error) = kept {
                done.cut = Some(Cut::Unkept(error));
                break;
            }
        }
        if done.cut.is_some() {
            break;
        }
        bar.inc(beside.len() as u64);
        rest = after;
        if rest.first().is_none_or(|next| (next.view, next.round) != (view, round)) {
            if bar.is_hidden() {
                let left = if rest.is_empty() { String::new() } else { format!("; {} left", in_words(pace.of_all(rest))) };
                eprintln!("{said} took {:.0} s{left}", round_began.elapsed().as_secs_f64());
            }
            round_began = Instant::now();
        }
    }
    bar.finish_and_clear();
    if !whole.is_zero() {
        done.own_cpu_share = own.as_secs_f64() / whole.as_secs_f64();
    }
    Ok(done)
}

/// Does all of these at the same time: a thread waits for each. What comes of them, in their order.
fn at_once<R: Send>(turns: &[Turn], run: impl Fn(Turn) -> R + Sync) -> Vec<R> {
    match turns {
        // Without a thread: children are killed when the thread that started them ends.
        &[one] => vec![run(one)],
        several => thread::scope(|scope| {
            let run = &run;
            let waiting: Vec<_> = several.iter().map(|&turn| scope.spawn(move || run(turn))).collect();
            waiting.into_iter().map(|one| one.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
        }),
    }
}

impl Turn {
    /// Do the two run at the same time?
    fn is_beside(&self, other: &Self, session: &Session) -> bool {
        let place = |turn: &Self| (turn.view, turn.round, turn.workload);
        place(self) == place(other) && self.view == View::Timed && is_side_by_side(&session.workloads[self.workload])
    }

    /// Has this run been done?
    fn is_of(&self, session: &Session, run: &Run) -> bool {
        (self.view, self.round) == (run.view, run.round)
            && session.workloads[self.workload] == run.workload
            && session.subjects[self.subject].subject == run.subject
    }

    fn round_in_words(&self, repetitions: u64) -> String {
        match self.view {
            View::Timed => format!("round {} of {repetitions}", self.round),
            View::Calls => "the round that counts calls".to_owned(),
            View::Instructions => "the round that counts instructions".to_owned(),
        }
    }
}

/// How long runs take, as far as anybody knows: from the rounds before, from an earlier session, or by guess.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pace {
    /// In seconds: the latest of this subject on this workload.
    known: HashMap<(View, usize, usize), f64>,
    /// In seconds, by workload: what somebody thinks before anything is known.
    guessed: Vec<f64>,
}

impl Pace {
    /// Nothing is known but how long somebody thinks that each workload takes, in seconds.
    pub(crate) fn guessed(guessed: Vec<f64>) -> Self {
        Self { known: HashMap::new(), guessed }
    }

    /// A run took so long.
    pub(crate) fn learn(&mut self, turn: Turn, took: Duration) {
        self.known.insert((turn.view, turn.workload, turn.subject), took.as_secs_f64());
    }

    /// How long runs are going to take.
    pub(crate) fn of_all(&self, turns: &[Turn]) -> Duration {
        Duration::from_secs_f64(turns.iter().map(|turn| self.of(turn)).sum())
    }

    /// As long as last time, or as others on this workload, or as somebody thinks.
    fn of(&self, turn: &Turn) -> f64 {
        // What each view costs, as a multiple of a run that is left in peace.
        let slower = match turn.view {
            View::Timed => 1.0,
            View::Calls => 2.0,
            View::Instructions => 50.0,
        };
        let known = |view, subject| self.known.get(&(view, turn.workload, subject)).copied();
        let others = || {
            let of_row = |wanted: View| {
                let its = self.known.iter().filter(move |((view, workload, _), _)| (*view, *workload) == (wanted, turn.workload));
                its.map(|(_, seconds)| *seconds).reduce(f64::max)
            };
            of_row(turn.view).or_else(|| Some(of_row(View::Timed)? * slower))
        };
        let guess = || self.guessed.get(turn.workload).copied().unwrap_or(1.0) * slower;
        known(turn.view, turn.subject).or_else(others).unwrap_or_else(guess)
    }
}

/// Such as `25 s`, `4 min`, `2.5 h`; about.
pub(crate) fn in_words(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds @ ..90.0 => format!("{seconds:.0} s"),
        seconds @ ..5_400.0 => format!("{:.0} min", seconds / 60.0),
        seconds => format!("{:.1} h", seconds / 3_600.0),
    }
}

/// The processor time of this program until now, all of its threads, without its children's.
fn own_cpu() -> Duration {
    Duration::from_nanos(Cost::now().cpu_nanos)
}

/// Drawn between the runs and never during one.
fn progress(turns: usize) -> Result<ProgressBar> {
    let bar = ProgressBar::new(turns as u64);
    let template = "running  {bar:30} {pos:>3}/{len}, {wide_msg}";
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
    use super::{Pace, Turn, in_words, order};
    use crate::record::View;
    use freestone_bench::workload::Rng;
    use std::time::Duration;

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
    fn what_is_left_is_learnt_from_the_runs_that_were() {
        let turn = |workload, subject| Turn { view: View::Timed, round: 1, workload, subject };
        let mut pace = Pace::guessed(vec![1.0, 10.0]);
        let all = [turn(0, 0), turn(0, 1), turn(1, 0), turn(1, 1)];
        assert_eq!(pace.of_all(&all), Duration::from_secs(22));
        pace.learn(turn(0, 0), Duration::from_secs(3));
        // The other subject is likely to be as slow; the other workload is as unknown as before.
        assert_eq!(pace.of_all(&all), Duration::from_secs(26));
        pace.learn(turn(0, 1), Duration::from_secs(1));
        pace.learn(turn(1, 0), Duration::from_secs(5));
        assert_eq!(pace.of_all(&all), Duration::from_secs(14));
        let calls = Turn { view: View::Calls, ..turn(1, 1) };
        assert_eq!(pace.of_all(&[calls]), Duration::from_secs(10));
        assert_eq!(in_words(Duration::from_secs(26)), "26 s");
        assert_eq!(in_words(Duration::from_secs(200)), "3 min");
        assert_eq!(in_words(Duration::from_hours(2)), "2.0 h");
    }
}
