//! The verb `program`: any command on several malloc libraries, in turns, and what it costs on each of them.
//!
//! The first subject runs twice in every round, the second time under the name "… again". What the table says of that one is noise, and shows
//! how much there is.

use std::env;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::arguments::Program;
use crate::cargo::Cargo;
use crate::child::{Failure, Launcher, Ran};
use crate::machine::Machine;
use crate::record::{Kind, Measurement, Session};
use crate::report::{CPU_NOTE, Format};
use crate::{Ending, preload, rounds, say, session, show};

/// Beginnings of the variables that steer an allocator. A command gets them with the rest of the environment, and the table names them.
const STEERING: [&str; 8] =
    ["FREESTONE", "GLIBC_TUNABLES", "JE_MALLOC", "MALLOC_", "MIMALLOC_", "SCUDO_", "SNMALLOC_", "TCMALLOC_"];

/// Proves, runs, keeps and compares.
pub(crate) fn compare(asked: &Program, format: Format) -> Result<Ending> {
    let wanted = preload::wanted(&asked.preloads)?;
    preload::can_be_executed(&asked.command)?;
    let output = asked.output.as_deref().map(writable).transpose()?;
    let cargo = Cargo::find()?;
    let date = rounds::now();
    let mut subjects = preload::proved(&wanted, &cargo, Some(&asked.command))?;
    subjects.insert(1, subjects[0].again());

    let session = Session {
        commit: session::commit(cargo.workspace()),
        seed: session::seed(asked.preloads.course.seed),
        repetitions: asked.preloads.course.repetitions.unwrap_or(10),
        workloads: vec![in_one_line(&asked.command)],
        subjects: subjects.iter().map(preload::Preload::version).collect(),
        environment: steering(),
        ..Session::new(date, Kind::Program, Machine::look(cargo.rustc().to_owned()))
    };
    let launcher = Launcher {
        environment: None,
        output: Some(output.unwrap_or_else(|| PathBuf::from("/dev/null"))),
        ..Launcher::new(Duration::from_secs(asked.preloads.course.timeout))
    };
    let path = session::kept_at(asked.preloads.course.json.as_deref(), &cargo, &session.date)?;
    let started = Instant::now();
    let kept =
        session::hold(session, &path, &[], |_, _, subject| run(&launcher, subjects[subject].library.as_deref(), &asked.command))?;
    let ending = show(&kept, format);
    if format == Format::Text {
        say(&session::farewell(&path, started.elapsed()));
    }
    Ok(ending)
}

/// One run. A command that fails is measured, too: whether that is right, comparing how it ended will show.
pub(crate) fn run(launcher: &Launcher, library: Option<&Path>, command: &[OsString]) -> Result<Measurement, Failure> {
    let (ran, _) = launcher.run(library, command)?;
    Ok(measurement(&ran, 1, ran.wall_nanos, ran.status().to_string()))
}

/// What was seen from outside, with what is known from inside.
pub(crate) fn measurement(ran: &Ran, operations: u64, nanos: u64, checksum: String) -> Measurement {
    Measurement {
        operations,
        nanos,
        checksum,
        peak_rss_bytes: ran.peak_rss_bytes,
        minor_faults: ran.minor_faults,
        major_faults: ran.major_faults,
        notes: [(CPU_NOTE.to_owned(), ran.cpu_nanos)].into(),
        ..Measurement::default()
    }
}

/// The absolute path of a file that can be written.
pub(crate) fn writable(path: &Path) -> Result<PathBuf> {
    OpenOptions::new().append(true).create(true).open(path).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(std::path::absolute(path)?)
}

/// A command as one types it.
pub(crate) fn in_one_line(command: &[OsString]) -> String {
    let words: Vec<_> = command.iter().map(|word| word.to_string_lossy()).collect();
    words.join(" ").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What is in the environment that steers an allocator.
pub(crate) fn steering() -> Vec<String> {
    let all = env::vars_os().map(|(name, value)| format!("{}={}", name.display(), value.display()));
    all.filter(|pair| STEERING.iter().any(|beginning| pair.starts_with(beginning))).collect()
}
