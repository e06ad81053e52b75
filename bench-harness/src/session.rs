//! A session from its first record to its last, whatever its rows are.

use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::BuildHasher;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::cargo::Cargo;
use crate::child::Failure;
use crate::machine::{Usage, is_busy, said};
use crate::record::{End, Keeper, Kept, Measurement, Record, Session};
use crate::rounds;

/// Runs everything, and keeps it in the file at `path` while it goes. `run` takes the places of a workload and of a subject.
pub(crate) fn hold(session: Session, path: &Path, run: impl Fn(usize, usize) -> Result<Measurement, Failure>) -> Result<Kept> {
    if let Some(cores) = Usage::cores_of_others().filter(|&cores| is_busy(cores, session.machine.cores)) {
        let all = session.machine.cores;
        eprintln!("this machine is busy: others use {cores:.1} of {all} cores, so the figures will be noisy");
    }
    let mut keeper = Keeper::open(path.to_owned())?;
    keeper.keep(&Record::Session(session.clone()))?;
    let (started, usage) = (Instant::now(), Usage::now());
    let runs = rounds::run(&session, &mut keeper, run)?;
    let cores_of_others = usage.and_then(|before| Some(Usage::now()?.cores_of_others_since(&before)));
    let end = End { session: session.date.clone(), seconds: started.elapsed().as_secs(), cores_of_others };
    keeper.keep(&Record::End(end.clone()))?;
    Ok(Kept { session, runs, end: Some(end) })
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
    let git = |arguments: &[&str]| said(Command::new("git").arg("-C").arg(workspace).args(arguments));
    let commit = git(&["rev-parse", "--short", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|changes| !changes.is_empty());
    Some(if changed { format!("{commit}+") } else { commit })
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
