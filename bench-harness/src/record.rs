//! What is kept of a session: a file of JSON lines, written as the runs end, so that nothing is lost when a later one fails.
//!
//! ```text
//! {"record":"session", …}   the machine, the seed, who takes part
//! {"record":"run", …}       one per process
//! {"record":"end", …}       missing when the session was cut short
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::machine::Machine;

/// One line of the file.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "lowercase")]
pub(crate) enum Record {
    /// Begins a session.
    Session(Session),
    /// One run.
    Run(Run),
    /// The session ran to its end.
    End(End),
}

/// Where figures come from, and how to get them again.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Session {
    /// When it began; also its name.
    pub(crate) date: String,
    /// What was run. Older files have workloads only, and do not say.
    #[serde(default)]
    pub(crate) kind: Kind,
    /// The commit of the sources, with a `+` when they were changed since.
    pub(crate) commit: Option<String>,
    /// What it ran on.
    pub(crate) machine: Machine,
    /// Decides the order of the runs.
    pub(crate) seed: u64,
    /// Runs of each subject on each workload.
    pub(crate) repetitions: u64,
    /// Share of the full number of operations.
    pub(crate) percent: u64,
    /// What patterns were told in place of their usual number of threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) threads: Option<u64>,
    /// In the order of the table.
    pub(crate) workloads: Vec<String>,
    /// In the order of the table.
    pub(crate) subjects: Vec<Version>,
    /// Who was to take part and could not, and why.
    pub(crate) left_out: Vec<LeftOut>,
    /// The whole environment of a subject's process, `NAME=VALUE`; a variant has an option more.
    pub(crate) environment: Vec<String>,
}

/// What the rows of a session are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// Workloads, on subjects that have their allocator built in.
    #[default]
    Workloads,
    /// One command, on subjects that are preloaded.
    Program,
    /// Patterns, on subjects that are preloaded.
    Patterns,
}

/// A subject that takes part.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Version {
    /// Its name.
    pub(crate) subject: String,
    /// What it says of itself.
    pub(crate) version: String,
    /// What makes it a variant, `NAME=VALUE`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) option: Option<String>,
}

/// A subject that does not.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct LeftOut {
    /// Its name.
    pub(crate) subject: String,
    /// Ends the sentence "… is left out: ".
    pub(crate) reason: String,
}

/// One process.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    /// The date of its session.
    pub(crate) session: String,
    /// When it ended.
    pub(crate) date: String,
    /// Every subject runs once in a round. From 1.
    pub(crate) round: u64,
    /// Who.
    pub(crate) subject: String,
    /// In which version.
    pub(crate) version: String,
    /// What.
    pub(crate) workload: String,
    /// How it went.
    pub(crate) outcome: Outcome,
}

/// How a run went.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    /// It ended well.
    Measured(Measurement),
    /// It did not; why, in a few words.
    Failed(String),
}

/// The line that a subject prints; see `subject.rs`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Measurement {
    /// Operations timed.
    pub(crate) operations: u64,
    /// How long they took.
    pub(crate) nanos: u64,
    /// The same for all subjects of a session; of a command, how it ended.
    pub(crate) checksum: String,
    /// The most that was ever resident.
    pub(crate) peak_rss_bytes: u64,
    /// Resident at the end, without files. Nobody looks into a command at its end.
    #[serde(default)]
    pub(crate) anonymous_bytes: u64,
    /// Page faults served from memory.
    pub(crate) minor_faults: u64,
    /// Page faults that waited for a disk.
    pub(crate) major_faults: u64,
    /// What a workload noted besides; the name says the unit (`subject::note`).
    pub(crate) notes: BTreeMap<String, u64>,
}

/// How a session ended.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct End {
    /// The date of the session.
    pub(crate) session: String,
    /// How long its runs took together.
    pub(crate) seconds: u64,
    /// Cores that other programs kept busy meanwhile, on average.
    pub(crate) cores_of_others: Option<f64>,
}

/// A session and its runs.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Kept {
    /// Where the figures come from.
    pub(crate) session: Session,
    /// As they ended.
    pub(crate) runs: Vec<Run>,
    /// `None` when it was cut short.
    pub(crate) end: Option<End>,
}

impl Kept {
    /// Reads a file and returns its last session.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut last: Option<Self> = None;
        for (number, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line)) {
            let record: Record = serde_json::from_str(line)
                .with_context(|| format!("line {number} of {} is not a record of a session", path.display()))?;
            match (record, &mut last) {
                (Record::Session(session), last) => *last = Some(Self { session, runs: Vec::new(), end: None }),
                (Record::Run(run), Some(last)) => last.runs.push(run),
                (Record::End(end), Some(last)) => last.end = Some(end),
                (_, None) => bail!("{} does not begin with a session", path.display()),
            }
        }
        last.with_context(|| format!("{} is empty", path.display()))
    }
}

/// Writes a session down while it runs.
#[derive(Debug)]
pub(crate) struct Keeper {
    path: PathBuf,
    file: File,
}

impl Keeper {
    /// Continues the file at `path`, or begins it.
    pub(crate) fn open(path: PathBuf) -> Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { path, file })
    }

    /// Adds a line, in one piece.
    pub(crate) fn keep(&mut self, record: &Record) -> Result<()> {
        let line = format!("{}\n", serde_json::to_string(record)?);
        self.file.write_all(line.as_bytes()).with_context(|| format!("cannot write {}", self.path.display()))
    }
}
