//! The verb `patterns`: the classic patterns on several malloc libraries, each run a process of its own, which is this program again.

use std::ffi::OsStr;
use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::arguments::{Patterns, found};
use crate::cargo::Cargo;
use crate::child::{Failure, Launcher};
use crate::machine::Machine;
use crate::pattern::{self, Done, Extent, PATTERNS, Pattern};
use crate::program::measurement;
use crate::record::{Kind, Measurement, Session};
use crate::report::Format;
use crate::{Ending, Misuse, preload, rounds, say, session, show};

/// Proves, runs, keeps and compares.
pub(crate) fn compare(asked: &Patterns, format: Format) -> Result<Ending> {
    if asked.list {
        say(&list());
        return Ok(Ending::Well);
    }
    let patterns = chosen(&asked.names)?;
    let wanted = preload::wanted(&asked.preloads)?;
    let cargo = Cargo::find()?;
    let date = rounds::now();
    let subjects = preload::proved(&wanted, &cargo, None)?;

    let session = Session {
        commit: session::commit(cargo.workspace()),
        seed: session::seed(asked.preloads.course.seed),
        repetitions: asked.preloads.course.repetitions.unwrap_or(6),
        percent: asked.percent,
        threads: asked.threads,
        workloads: patterns.iter().map(|pattern| pattern.name.to_owned()).collect(),
        subjects: subjects.iter().map(preload::Preload::version).collect(),
        environment: asked.env.iter().map(|(name, value)| format!("{name}={value}")).collect(),
        ..Session::new(date, Kind::Patterns, Machine::look(cargo.rustc().to_owned()))
    };
    let launcher =
        Launcher { environment: Some(asked.env.clone()), ..Launcher::new(Duration::from_secs(asked.preloads.course.timeout)) };
    let extent = Extent { percent: asked.percent, threads: asked.threads };
    let path = session::kept_at(asked.preloads.course.json.as_deref(), &cargo, &session.date)?;
    let started = Instant::now();
    let kept = session::hold(session, &path, &[], |_, pattern, subject| {
        launched(&launcher, subjects[subject].library.as_deref(), patterns[pattern], extent)
    })?;
    let ending = show(&kept, format);
    if format == Format::Text {
        say(&session::farewell(&path, started.elapsed()));
    }
    Ok(ending)
}

/// One run in a process of its own. Its time is what it says itself; what else it cost is seen from outside.
fn launched(launcher: &Launcher, library: Option<&Path>, pattern: &Pattern, extent: Extent) -> Result<Measurement, Failure> {
    let percent = format!("--percent={}", extent.percent);
    let threads = extent.threads.map(|threads| format!("--threads={threads}"));
    let mut command: Vec<&OsStr> = vec![launcher.program.as_ref(), "pattern".as_ref(), pattern.name.as_ref(), percent.as_ref()];
    command.extend(threads.as_ref().map(AsRef::<OsStr>::as_ref));
    let (ran, text) = launcher.listen(library, &command)?;
    let done: Done =
        serde_json::from_str(&text).map_err(|error| Failure::once(format!("printed something unexpected: {error}")))?;
    Ok(measurement(&ran, 1, done.nanos, done.checksum))
}

/// The hidden verb: does it here.
pub(crate) fn run(name: &str, extent: Extent) -> Result<()> {
    let pattern = pattern::by_name(name).with_context(|| Misuse(format!("there is no pattern '{name}'")))?;
    println!("{}", serde_json::to_string(&pattern.run(extent))?);
    Ok(())
}

fn chosen(names: &[String]) -> Result<Vec<&'static Pattern>> {
    let all: Vec<&str> = PATTERNS.iter().map(|pattern| pattern.name).collect();
    let mut chosen = Vec::new();
    for wanted in names {
        let found = found(wanted, &all);
        ensure!(!found.is_empty(), Misuse(format!("there is no pattern '{wanted}'; patterns --list names them")));
        chosen.extend(found);
    }
    Ok(PATTERNS.iter().filter(|pattern| chosen.is_empty() || chosen.contains(&pattern.name)).collect())
}

fn list() -> String {
    let mut text = String::from("The patterns; each is a fixed amount of work.\n\n");
    for pattern in PATTERNS {
        let _ = writeln!(text, "{:<14} {}", pattern.name, pattern.about);
    }
    text
}
