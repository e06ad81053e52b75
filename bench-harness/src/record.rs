//! What is kept of a session: a file of JSON lines, written as the runs end, so that nothing is lost when a later one fails.
//!
//! ```text
//! {"record":"session", …}   the machine, the seed, who takes part
//! {"record":"run", …}       one per process
//! {"record":"end", …}       missing when the session was cut short
//! ```

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::machine::Machine;

/// One line of the file.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "lowercase")]
#[expect(clippy::large_enum_variant, reason = "it lives for as long as a line is written or read")]
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
    /// The scenario that it follows, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) scenario: Option<String>,
    /// What was typed behind the program's name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) arguments: Vec<String>,
    /// How the subjects were built.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) flags: Vec<String>,
    /// What each row has to keep to, by its name in `workloads`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) floors: BTreeMap<String, Floors>,
    /// How runs are looked at besides by the clock.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) views: Vec<View>,
}

impl Session {
    /// A session about which nothing is known but when, what and where.
    pub(crate) fn new(date: String, kind: Kind, machine: Machine) -> Self {
        Self {
            date,
            kind,
            commit: None,
            machine,
            seed: 0,
            repetitions: 0,
            percent: 100,
            threads: None,
            workloads: Vec::new(),
            subjects: Vec::new(),
            left_out: Vec::new(),
            environment: Vec::new(),
            scenario: None,
            // Lossy: what was typed is for people to read.
            arguments: env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect(),
            flags: Vec::new(),
            floors: BTreeMap::new(),
            views: Vec::new(),
        }
    }
}

/// What a row has to reach, on every subject. `None` is no floor.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Floors {
    /// Operations per second, at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) min_qps: Option<f64>,
    /// The time in microseconds that 99 of 100 operations stay below, at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max_p99_us: Option<f64>,
    /// The share of operations that fail, at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max_error_rate: Option<f64>,
    /// Peak memory in bytes, at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max_peak_rss: Option<u64>,
}

impl Floors {
    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        [self.min_qps.is_some(), self.max_p99_us.is_some(), self.max_error_rate.is_some(), self.max_peak_rss.is_some()]
            .into_iter()
            .filter(|is_there| *is_there)
            .count()
    }
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
    /// How it was looked at.
    #[serde(default, skip_serializing_if = "View::is_timed")]
    pub(crate) view: View,
    /// How long it took in milliseconds, start and preparations included. Older files do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) took_ms: Option<u64>,
    /// How it went.
    pub(crate) outcome: Outcome,
}

/// How a run is looked at. What disturbs a run has a run of its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum View {
    /// By the clock, left in peace.
    #[default]
    Timed,
    /// Stopped at each call into the system that is about memory or waiting; its times mean nothing.
    Calls,
    /// On a simulated processor that counts instructions (callgrind); its times mean nothing.
    Instructions,
}

impl View {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
    fn is_timed(&self) -> bool {
        *self == Self::Timed
    }
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
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
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
    /// How long single operations took, by kind.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) latencies: BTreeMap<String, Latency>,
    /// What was resident over time, as seen from outside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) resident: Vec<Sample>,
    /// Calls into the system by their name ([`View::Calls`]).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) os_calls: BTreeMap<String, u64>,
    /// Instructions of the timed operations ([`View::Instructions`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) instructions: Option<u64>,
}

/// The distribution of a time.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Latency {
    /// Of how many operations.
    pub(crate) count: u64,
    /// On average, in nanoseconds.
    pub(crate) mean_ns: u64,
    /// The longest.
    pub(crate) max_ns: u64,
    /// Points of the distribution, from the middle outwards: so many of a million operations took at most so many nanoseconds.
    pub(crate) points: Vec<(u32, u64)>,
}

/// What was resident at a moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// Since the process began.
    pub(crate) ms: u64,
    /// Resident, without files.
    pub(crate) rss_bytes: u64,
    /// What the program held, if it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) live_bytes: Option<u64>,
}

/// At most so many samples: of each stretch of time the one with the most, so that no peak is lost.
pub(crate) fn thinned(samples: &[Sample], most: usize) -> Vec<Sample> {
    let stretch = samples.len().div_ceil(most).max(1);
    samples.chunks(stretch).filter_map(|chunk| chunk.iter().max_by_key(|sample| sample.rss_bytes).copied()).collect()
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
    /// The share of the processors' time that the host took for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) stolen: Option<f64>,
    /// What the harness itself took of one core while runs were in progress, their start included: starting, watching and listening.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) own_cpu_share: Option<f64>,
}

/// A session and its runs. How it is read is in `kept.rs`.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Kept {
    /// Where the figures come from.
    pub(crate) session: Session,
    /// As they ended.
    pub(crate) runs: Vec<Run>,
    /// `None` when it was cut short.
    pub(crate) end: Option<End>,
}

/// Writes a session down while it runs.
#[derive(Debug)]
pub(crate) struct Keeper {
    path: PathBuf,
    file: File,
}

impl Keeper {
    /// Continues the file at `path`, or begins it. A line that was cut short stays, and gets an end.
    pub(crate) fn open(path: PathBuf) -> Result<Self> {
        let cannot = || format!("cannot write {}", path.display());
        let mut file = OpenOptions::new().create(true).append(true).open(&path).with_context(cannot)?;
        if ends_within_a_line(&path) {
            file.write_all(b"\n").with_context(cannot)?;
        }
        Ok(Self { path, file })
    }

    /// Adds a line, in one piece.
    pub(crate) fn keep(&mut self, record: &Record) -> Result<()> {
        let line = format!("{}\n", serde_json::to_string(record)?);
        self.file.write_all(line.as_bytes()).with_context(|| format!("cannot write {}", self.path.display()))
    }
}

/// Is there a file, and something behind its last line?
fn ends_within_a_line(path: &Path) -> bool {
    let last = |file: &File| {
        let mut byte = [0];
        let end = file.metadata().ok().filter(fs::Metadata::is_file)?.len().checked_sub(1)?;
        file.read_exact_at(&mut byte, end).ok().map(|()| byte[0])
    };
    // Who may write and not read will see for himself.
    File::open(path).is_ok_and(|file| last(&file).is_some_and(|byte| byte != b'\n'))
}

#[cfg(test)]
mod tests {
    use super::{Sample, thinned};

    #[test]
    fn thinning_keeps_the_peak() {
        let sample = |ms| Sample { ms, rss_bytes: if ms == 7_777 { 9 } else { 1 }, live_bytes: None };
        let samples: Vec<Sample> = (0..10_000).map(sample).collect();
        let thin = thinned(&samples, 240);
        assert!(thin.len() <= 240);
        assert!(thin.iter().any(|sample| sample.rss_bytes == 9));
    }
}
