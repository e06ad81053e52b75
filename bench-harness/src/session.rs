//! A session from its first record to its last, whatever its rows are.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::fmt::Write;
use std::fs;
use std::hash::BuildHasher;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use freestone_bench::workload;

use crate::cargo::Cargo;
use crate::child::Failure;
use crate::machine::{Machine, Usage, is_busy, said};
use crate::plan::{Plan, Row};
use crate::record::{End, Keeper, Kept, Kind, Measurement, Outcome, Record, Session, Version, View};
use crate::rounds::{Cut, Done, Pace};
use crate::{interrupt, rounds, subjects};

/// Runs everything, and keeps it in the file at `path` while it goes: the timed rounds, then one for each of the other `views`. `run` takes
/// the view, and the places of a workload and of a subject. A session that ends early, because somebody pressed Ctrl-C or the disk is full, has
/// no end, and all the runs that it came to.
pub(crate) fn hold(
    mut session: Session,
    path: &Path,
    views: &[View],
    run: impl Fn(View, usize, usize) -> Result<Measurement, Failure> + Sync,
) -> Result<Kept> {
    session.views = views.to_vec();
    let mut keeper = Keeper::open(path.to_owned())?;
    keeper.keep(&Record::Session(session.clone()))?;
    let pace = pace(&session, path.parent());
    all_runs(Kept { session, runs: Vec::new(), end: None }, keeper, pace, run)
}

/// The session, if it came to its end: half of one decides nothing.
pub(crate) fn whole(kept: Kept, path: &Path) -> Result<Kept> {
    ensure!(kept.end.is_some(), "the session was cut short, so nothing is decided; what was measured is in {}", path.display());
    Ok(kept)
}

/// Goes on with a session that was cut short.
pub(crate) fn go_on(
    kept: Kept,
    path: &Path,
    run: impl Fn(View, usize, usize) -> Result<Measurement, Failure> + Sync,
) -> Result<Kept> {
    let pace = pace(&kept.session, path.parent());
    all_runs(kept, Keeper::open(path.to_owned())?, pace, run)
}

fn all_runs(
    kept: Kept,
    mut keeper: Keeper,
    pace: Pace,
    run: impl Fn(View, usize, usize) -> Result<Measurement, Failure> + Sync,
) -> Result<Kept> {
    let Kept { session, runs, .. } = kept;
    if let Some(cores) = Usage::cores_of_others().filter(|&cores| is_busy(cores, session.machine.cores)) {
        let all = session.machine.cores;
        eprintln!("this machine is busy: others use {cores:.1} of {all} cores, so the figures will be noisy");
    }
    if session.machine.randomizes == Some(false) {
        eprintln!(
            "this kernel puts everything at the same addresses each time (randomize_va_space is 0), so a lucky layout stays lucky"
        );
    }
    interrupt::watch();
    let earlier: u64 = runs.iter().filter_map(|run| run.took_ms).fold(0, u64::saturating_add);
    let (started, usage) = (Instant::now(), Usage::now());
    let Done { runs, cut, own_cpu_share } = rounds::run(&session, &mut keeper, &session.views, runs, pace, run)?;
    let since = usage.and_then(|before| Some((before, Usage::now()?)));
    let end = End {
        session: session.date.clone(),
        seconds: earlier / 1_000 + started.elapsed().as_secs(),
        cores_of_others: since.map(|(before, now)| now.cores_of_others_since(&before)),
        stolen: since.map(|(before, now)| now.stolen_since(&before)),
        own_cpu_share: Some(own_cpu_share),
    };
    let cut = cut.or_else(|| keeper.keep(&Record::End(end.clone())).err().map(Cut::Unkept));
    if let Some(Cut::Unkept(error)) = &cut {
        eprintln!("freestone-bench: {error:#}; the session ends here, and what was measured is shown below");
    }
    Ok(Kept { session, runs, end: cut.is_none().then_some(end) })
}

/// How long the runs of a session are going to take, as earlier sessions in the same folder have it; of what none of them ran, by guess.
pub(crate) fn pace(session: &Session, folder: Option<&Path>) -> Pace {
    Earlier::look(folder).pace(session)
}

/// What earlier sessions say of how long runs take.
#[derive(Debug, Default)]
pub(crate) struct Earlier {
    /// In seconds for all of the operations, by workload.
    seconds: HashMap<String, f64>,
}

impl Earlier {
    /// So many files are read, from the latest back.
    const FILES_MAX: usize = 8;
    /// Longer ones are not read for that.
    const BYTES_MAX: u64 = 16 << 20;

    /// Whoever cannot be read says nothing.
    pub(crate) fn look(folder: Option<&Path>) -> Self {
        let entries = folder.and_then(|folder| fs::read_dir(folder).ok()).into_iter().flatten().flatten();
        // Files are named by their dates.
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        // A pipe may have that name, too, and would be waited for.
        let is_short = |path: &Path| path.metadata().is_ok_and(|its| its.is_file() && its.len() <= Self::BYTES_MAX);
        paths.retain(|path| path.extension() == Some("jsonl".as_ref()) && is_short(path));
        paths.sort();
        let mut seconds = HashMap::new();
        for kept in paths.iter().rev().take(Self::FILES_MAX).filter_map(|path| Kept::read(path).ok()) {
            let mut by_workload: HashMap<&str, Vec<f64>> = HashMap::new();
            for run in kept.runs.iter().filter(|run| run.view == View::Timed) {
                if let (Some(took), Outcome::Measured(_)) = (run.took_ms, &run.outcome) {
                    let whole = took as f64 / 1e3 * 100.0 / kept.session.percent.max(1) as f64;
                    by_workload.entry(&run.workload).or_default().push(whole);
                }
            }
            for (workload, runs) in by_workload {
                let mean = runs.iter().sum::<f64>() / runs.len() as f64;
                seconds.entry(workload.to_owned()).or_insert(mean);
            }
        }
        Self { seconds }
    }

    /// In seconds, a run of so much of a workload; and whether that is known.
    pub(crate) fn seconds(&self, title: &str, percent: u64) -> (f64, bool) {
        let known = self.seconds.get(title).copied();
        let guess = match title.split(' ').next().and_then(workload::by_name) {
            Some(workload) if workload.is_over_time() => 20.0,
            Some(workload) if workload.is_service() => 4.0,
            _ => 0.7,
        };
        (known.unwrap_or(guess) * percent as f64 / 100.0, known.is_some())
    }

    fn pace(&self, session: &Session) -> Pace {
        Pace::guessed(session.workloads.iter().map(|title| self.seconds(title, session.percent).0).collect())
    }
}

/// What a plan would run, and how long that would take. Nothing is built, and nothing is run.
pub(crate) fn foretell(plan: &Plan, folder: Option<&Path>) -> String {
    let earlier = Earlier::look(folder);
    let subjects: Vec<&str> = plan.subjects.iter().map(|subject| subject.name).collect();
    let mut text = format!(
        "{} × {} × {} of each, and {} twice; in random order, each a process of its own:\n\n",
        counted(plan.rows.len(), "workload"),
        counted(subjects.len(), "subject"),
        counted(plan.repetitions as usize, "run"),
        subjects.first().copied().unwrap_or("the first"),
    );
    let names: Vec<String> = subjects.iter().copied().map(str::to_owned).collect();
    let version = |subject: String| Version { subject, version: String::new(), option: None };
    let again = names.first().map(|first| subjects::again(first));
    let session = Session {
        repetitions: plan.repetitions,
        percent: plan.percent,
        workloads: plan.rows.iter().map(Row::title).collect(),
        subjects: names.into_iter().chain(again).map(version).collect(),
        ..Session::new(String::new(), Kind::Workloads, Machine::look(String::new()))
    };
    let width = session.workloads.iter().map(|title| title.chars().count()).max().unwrap_or(0);
    let mut guesses = 0;
    for title in &session.workloads {
        let (seconds, is_known) = earlier.seconds(title, plan.percent);
        guesses += usize::from(!is_known);
        let about = if is_known { "" } else { ", by guess" };
        let _ = writeln!(text, "  {title:<width$}  {seconds:.1} s a run{about}");
    }
    let _ = writeln!(text, "\nSubjects: {}.", subjects.join(", "));
    for view in plan.views() {
        let what = if view == View::Calls { "calls into the system" } else { "instructions" };
        let _ = writeln!(text, "After that, one round that counts {what}.");
    }
    let turns = rounds::all_turns(&session, &plan.views());
    let _ = writeln!(
        text,
        "That is {}, about {} without building{}. Nothing was built, and nothing was run.",
        counted(turns.len(), "run"),
        rounds::in_words(earlier.pace(&session).of_all(&turns)),
        if guesses == 0 {
            ", as earlier sessions took".to_owned()
        } else {
            format!("; no earlier session has run {guesses} of the {}", counted(session.workloads.len(), "workload"))
        },
    );
    text
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// The seed that was asked for, or one that is short enough to be typed.
pub(crate) fn seed(asked: Option<u64>) -> u64 {
    asked.unwrap_or_else(|| RandomState::new().hash_one(0) % 1_000_000)
}

/// The file of the session: the one that was asked for, or one of its own in the target folder.
pub(crate) fn kept_at(asked: Option<&Path>, cargo: &Cargo, date: &str) -> Result<PathBuf> {
    if let Some(path) = asked {
        return Ok(path.to_owned());
    }
    let folder = cargo.folder();
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    Ok(folder.join(format!("{}.jsonl", date.replace(':', "-"))))
}

/// The commit of the sources, if git knows; with a `+` when they were changed since.
pub(crate) fn commit(workspace: &Path) -> Option<String> {
    let git = |arguments: &[&str]| said(Command::new("git").arg("--no-optional-locks").arg("-C").arg(workspace).args(arguments));
    let commit = git(&["rev-parse", "--short", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|changes| !changes.is_empty());
    Some(if changed { format!("{commit}+") } else { commit })
}

/// How the subjects were built: the profile as it stands in the workspace, and what was in the environment and adds to it.
pub(crate) fn flags(workspace: &Path, prebuilt: Option<&Path>) -> Vec<String> {
    if let Some(folder) = prebuilt {
        return vec![format!("prebuilt={}", folder.display())];
    }
    let manifest = fs::read_to_string(workspace.join("Cargo.toml")).ok().and_then(|text| text.parse::<toml::Table>().ok());
    let profile = manifest.as_ref().and_then(|manifest| manifest.get("profile")?.get("release")?.as_table());
    let mut flags = vec!["profile=release".to_owned()];
    flags.extend(profile.into_iter().flatten().map(|(name, value)| format!("{name}={}", value.to_string().trim_matches('"'))));
    let rustflags = std::env::var("RUSTFLAGS").unwrap_or_default();
    let processor = rustflags.split("target-cpu=").nth(1).and_then(|rest| rest.split_whitespace().next());
    flags.push(format!("target-cpu={}", processor.unwrap_or("default")));
    let steers = |name: &str| {
        ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CFLAGS", "CXXFLAGS", "CC", "CXX"].contains(&name)
            || ["CARGO_PROFILE_RELEASE_", "CARGO_BUILD_", "CARGO_TARGET_"].iter().any(|beginning| name.starts_with(beginning))
    };
    let mut set: Vec<(String, String)> =
        std::env::vars_os().map(|(name, value)| (name.to_string_lossy().into(), value.to_string_lossy().into())).collect();
    set.retain(|(name, _)| steers(name) && name != "CARGO_TARGET_DIR");
    set.sort();
    flags.extend(set.into_iter().map(|(name, value)| format!("{name}={value}")));
    flags
}

/// How long it took, and where the records are.
pub(crate) fn farewell(kept: &Path, took: Duration) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    let kept = kept.strip_prefix(here).unwrap_or(kept).display();
    format!(
        "\nThis took {} s; every run is kept.\nPrint it again:           cargo run --release -- report {kept}\n",
        took.as_secs()
    )
}
