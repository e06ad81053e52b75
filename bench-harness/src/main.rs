//! The harness of Freestone: builds every allocator into a binary of its own, runs them all in turns, and prints how they compare.
//!
//! The story is told from top to bottom in [`measure`]; each chapter has its file:
//!
//! ```text
//!   arguments → subjects, cargo → inputs → rounds → statistics → report
//!   what to do  who, built        what      every    how sure     the tables
//!                                 they read process
//!                  machine, record: where figures come from, and where they are kept
//! ```
//!
//! Two verbs tell a shorter one, about libraries that are put in front of the C library's malloc: `program` runs any command on them, and
//! `patterns` the classic patterns, which are in `pattern/`.
//!
//! ```text
//!   arguments → preload → program or patterns → child, rounds → statistics → report
//!               who, proved                     every process
//! ```
//!
//! And three measure nothing: `recorder` reads what a flight recorder wrote, and `profile` heap profiles; each has a folder to itself. `trace` sums up
//! what a program has said (`report/trace.rs`).

mod arguments;
mod cargo;
mod child;
mod inputs;
mod machine;
mod pattern;
mod patterns;
mod preload;
mod profile;
mod program;
mod record;
mod recorder;
mod report;
mod rounds;
mod session;
mod statistics;
mod subjects;

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use freestone_bench::workload::{self, Workload};

use arguments::{Arguments, Verb, found, sentence};
use cargo::Cargo;
use machine::Machine;
use pattern::Extent;
use record::{Kept, Kind, LeftOut, Session, Version};
use report::{Format, Log, Report};
use rounds::Launch;
use subjects::{Built, Subject};

/// Somebody asked for what there is not: exit code 2, like all that is wrong with the command line.
#[derive(Debug)]
struct Misuse(String);

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Misuse {}

/// Did everything go well that was asked for?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ending {
    Well,
    Badly,
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) if !error.use_stderr() => {
            // --help or --version.
            let printed = error.print();
            return if printed.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        }
        Err(error) => {
            eprintln!("freestone-bench: {}", sentence(&error));
            return ExitCode::from(2);
        }
    };
    match obey(&arguments) {
        Ok(Ending::Well) => ExitCode::SUCCESS,
        Ok(Ending::Badly) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("freestone-bench: {error:#}");
            if error.is::<Misuse>() { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

fn obey(arguments: &Arguments) -> Result<Ending> {
    let format = if arguments.markdown { Format::Markdown } else { Format::Text };
    if arguments.list {
        say(&report::list());
        return Ok(Ending::Well);
    }
    match &arguments.verb {
        None => measure(arguments, format),
        Some(Verb::Report { file }) => Ok(show(&Kept::read(file)?, format)),
        Some(Verb::Trace { file }) => sum_up(file, format),
        Some(Verb::Program(asked)) => program::compare(asked, format),
        Some(Verb::Patterns(asked)) => patterns::compare(asked, format),
        Some(Verb::Pattern { name, percent, threads }) => {
            patterns::run(name, Extent { percent: *percent, threads: *threads })?;
            Ok(Ending::Well)
        }
        Some(Verb::Recorder(asked)) => {
            recorder::obey(asked)?;
            Ok(Ending::Well)
        }
        Some(Verb::Profile(asked)) => {
            profile::obey(asked, format)?;
            Ok(Ending::Well)
        }
        Some(Verb::Launch { library, output, command }) => {
            child::launch(library.as_deref(), output.as_deref(), command).context("cannot launch a command")?;
            Ok(Ending::Well)
        }
        Some(Verb::Proof) => {
            preload::say_whose_malloc();
            Ok(Ending::Well)
        }
    }
}

/// Builds, runs, keeps and compares.
fn measure(arguments: &Arguments, format: Format) -> Result<Ending> {
    let workloads = chosen_workloads(arguments)?;
    let subjects = chosen_subjects(arguments)?;
    let cargo = Cargo::find()?;
    let date = rounds::now();

    let (built, failed) = match &arguments.prebuilt {
        Some(folder) => (subjects::prebuilt(folder, &subjects)?, Vec::new()),
        None => cargo.build(&subjects)?,
    };
    let mut left_out: Vec<LeftOut> = failed.into_iter().map(does_not_build).collect();
    let inputs = if workloads.iter().any(|its| its.is_real()) { inputs::prepare(&cargo)? } else { PathBuf::new() };
    let launch = Launch {
        percent: arguments.percent,
        inputs: &inputs,
        environment: &arguments.env,
        timeout: Duration::from_secs(arguments.timeout),
    };
    let (proved, unproved) = prove(&launch, built)?;
    // Where there is no make, a peer is missing and said to be; but who asked for it, or built it in vain, is to notice.
    let asked_for = |name: &str| arguments.subjects.iter().chain(&arguments.with).any(|asked| asked == name);
    let incomplete = !unproved.is_empty() || left_out.iter().any(|its| asked_for(&its.subject));
    left_out.extend(unproved);
    for its in &left_out {
        eprintln!("{} is left out: {}", its.subject, its.reason);
    }

    let session = Session {
        date,
        kind: Kind::Workloads,
        commit: if arguments.prebuilt.is_none() { session::commit(cargo.workspace()) } else { None },
        machine: Machine::look(cargo.rustc().to_owned()),
        seed: session::seed(arguments.seed),
        repetitions: arguments.repetitions.unwrap_or(if arguments.full { 10 } else { 6 }),
        percent: arguments.percent,
        threads: None,
        workloads: workloads.iter().map(|workload| workload.name.to_owned()).collect(),
        subjects: proved
            .iter()
            .map(|(built, version)| Version {
                subject: built.subject.name.to_owned(),
                version: version.clone(),
                option: built.subject.variant.map(|variant| format!("{}={}", variant.variable, variant.value)),
            })
            .collect(),
        left_out,
        environment: arguments.env.iter().map(|(name, value)| format!("{name}={value}")).collect(),
    };
    let path = session::kept_at(arguments.json.as_deref(), &cargo, &session.date)?;
    let started = Instant::now();
    let kept = session::hold(session, &path, |workload, subject| launch.run(&proved[subject].0, workloads[workload]))?;

    let all = arguments.full;
    let ending = show(&kept, format);
    if format == Format::Text {
        say(&farewell(&path, started.elapsed(), all));
    }
    Ok(if incomplete { Ending::Badly } else { ending })
}

/// Prints what a log with a trace in it says, and loudly what of it cannot be read.
fn sum_up(file: &Path, format: Format) -> Result<Ending> {
    let log = if file.as_os_str() == "-" {
        Log::read(io::stdin().lock(), "the standard input")?
    } else {
        let name = file.display().to_string();
        let opened = File::open(file).with_context(|| format!("cannot read {name}"))?;
        Log::read(BufReader::new(opened), &name)?
    };
    say(&log.print(format));
    Ok(match log.problem() {
        None => Ending::Well,
        Some(problem) => {
            eprintln!("ERROR: {problem}");
            Ending::Badly
        }
    })
}

/// Prints the tables, and loudly what went wrong.
fn show(kept: &Kept, format: Format) -> Ending {
    let report = Report::of(kept);
    let text = report.print(format);
    say(&if format == Format::Text { report::styled(&text) } else { text });
    let problems = report.problems();
    for problem in &problems {
        eprintln!("ERROR: {problem}");
    }
    if problems.is_empty() { Ending::Well } else { Ending::Badly }
}

/// To stdout, with styles where they can be seen. That nobody listens is no reason to panic.
fn say(text: &str) {
    let _ = anstream::stdout().write_all(text.as_bytes());
}

fn chosen_workloads(arguments: &Arguments) -> Result<Vec<&'static Workload>> {
    let all: Vec<&str> = workload::all().map(|its| its.name).collect();
    let mut names = Vec::new();
    for wanted in &arguments.workloads {
        let found = found(wanted, &all);
        ensure!(!found.is_empty(), Misuse(format!("there is no workload '{wanted}'; --list names them")));
        names.extend(found);
    }
    let is_chosen = |its: &&Workload| {
        if names.is_empty() { (arguments.full && !its.is_over_time()) || its.telling } else { names.contains(&its.name) }
    };
    Ok(workload::all().filter(is_chosen).collect())
}

fn chosen_subjects(arguments: &Arguments) -> Result<Vec<&'static Subject>> {
    let mut names = arguments.subjects.clone();
    names.extend_from_slice(&arguments.with);
    for name in &names {
        let all: Vec<&str> = subjects::ALL.iter().map(|subject| subject.name).collect();
        ensure!(Subject::by_name(name).is_some(), Misuse(format!("there is no subject '{name}'; they are {}", all.join(", "))));
    }
    let is_chosen = |subject: &&Subject| {
        names.iter().any(|name| name == subject.name) || (arguments.subjects.is_empty() && subject.by_default)
    };
    Ok(subjects::ALL.iter().filter(is_chosen).collect())
}

fn does_not_build(subject: &'static Subject) -> LeftOut {
    let reason = format!("it does not build here, which takes {}", subject.needs);
    LeftOut { subject: subject.name.to_owned(), reason }
}

type Proved = Vec<(Built, String)>;

/// Lets every subject show once that it runs, and on the allocator that it is named after.
fn prove(launch: &Launch<'_>, built: Vec<Built>) -> Result<(Proved, Vec<LeftOut>)> {
    let probe = workload::by_name("hot-64").context("there is no workload to try the subjects with")?;
    let mut proved = Vec::new();
    let mut unproved = Vec::new();
    for built in built {
        match launch.probe(&built, probe) {
            Ok(version) => proved.push((built, version)),
            Err(reason) => unproved.push(LeftOut { subject: built.subject.name.to_owned(), reason }),
        }
    }
    ensure!(!proved.is_empty(), "no subject runs: {}", unproved.first().map_or("there is none", |its| &its.reason));
    proved.sort_by_key(|(built, _)| subjects::ALL.iter().position(|subject| subject == built.subject));
    Ok((proved, unproved))
}

/// Where the records are, and what else there is to do.
fn farewell(kept: &Path, took: Duration, all: bool) -> String {
    let mut text = session::farewell(kept, took);
    if !all {
        let _ = writeln!(text, "All workloads, ten times: cargo run --release -- --full   (about 20 minutes)");
    }
    text
}
