//! The harness of Freestone: builds every allocator into a binary of its own, runs them all in turns, and prints how they compare.
//!
//! The story is told from top to bottom in [`measure`]; each chapter has its file:
//!
//! ```text
//!   arguments → subjects, cargo → inputs → rounds → statistics → report
//!   what to do  who, built        what      every    how sure     the tables
//!                                 they read process
//!      plan        machine, record: where figures come from, and where they are kept
//!   scenario
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
mod calls;
mod cargo;
mod child;
mod gate;
mod inputs;
mod instructions;
mod interrupt;
mod kept;
mod machine;
mod pattern;
mod patterns;
mod plain;
mod plan;
mod preload;
mod profile;
mod program;
mod record;
mod recorder;
mod report;
mod resident;
mod resume;
mod rounds;
mod sampler;
mod scenario;
mod session;
mod statistics;
mod subjects;
mod tables;
mod user_crate;

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use freestone_bench::workload;

use arguments::{Arguments, Export, Measure, Verb, sentence};
use cargo::Cargo;
use machine::Machine;
use pattern::Extent;
use plain::{plain, tamed};
use plan::{Plan, Row};
use record::{Kept, Kind, LeftOut, Session, Version, View};
use report::{Format, Log, Report};
use resume::Begun;
use rounds::Launch;
use subjects::{Built, Subject};

/// Somebody asked for what there is not, or gave what cannot be read: exit code 2, like all that is wrong with the command line.
#[derive(Debug)]
struct Misuse(String);

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Misuse {}

/// For what goes wrong with a file that somebody gave us.
trait Given<T> {
    /// Whatever it is, it is misuse.
    fn given(self) -> Result<T>;
}

impl<T> Given<T> for Result<T> {
    fn given(self) -> Result<T> {
        self.map_err(|error| Misuse(format!("{error:#}")).into())
    }
}

/// Did everything go well that was asked for?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ending {
    Well,
    /// All was done, and the answer is no: exit code 1.
    No,
    /// Something of it failed: exit code 3.
    Badly,
    /// Somebody pressed Ctrl-C: exit code 130, as shells have it.
    Interrupted,
}

impl Ending {
    /// The exit code when somebody interrupts.
    const INTERRUPTED: u8 = 130;
}

impl From<Ending> for ExitCode {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Well => Self::SUCCESS,
            Ending::No => Self::FAILURE,
            Ending::Badly => Self::from(3),
            Ending::Interrupted => Self::from(Ending::INTERRUPTED),
        }
    }
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
        Ok(ending) => ending.into(),
        Err(error) => {
            eprintln!("freestone-bench: {}", plain(&format!("{error:#}")));
            if interrupt::is_asked() {
                return Ending::Interrupted.into();
            }
            ExitCode::from(if error.is::<Misuse>() { 2 } else { 3 })
        }
    }
}

fn obey(arguments: &Arguments) -> Result<Ending> {
    let format = if arguments.markdown { Format::Markdown } else { Format::Text };
    if arguments.list {
        say(&format!("{}\n{}\n{}", report::list(), subjects::list(), scenario::list()));
        return Ok(Ending::Well);
    }
    match &arguments.verb {
        None => match &arguments.measure.resume {
            None => measure(&Plan::typed(&arguments.measure)?, None, &arguments.measure, format),
            Some(file) => {
                let begun = Begun::read(file)?;
                measure(&begun.plan(&arguments.measure)?, Some(begun), &arguments.measure, format)
            }
        },
        Some(Verb::Run { scenario, measure: asked }) => {
            ensure!(
                asked.resume.is_none(),
                Misuse("--resume goes without `run`: the file says which scenario it follows".to_owned())
            );
            measure(&Plan::following(scenario, asked)?, None, asked, format)
        }
        Some(Verb::Check { scenarios }) => scenario::check(scenarios),
        Some(Verb::Report { file, format: Export::Table, output: None }) => show_again(file, format),
        Some(Verb::Report { file, format, output }) => report::export(file, *format, output.as_deref()),
        Some(Verb::Gate(asked)) => gate::compare(asked, format),
        Some(Verb::Cargo(asked)) => user_crate::compare(asked, format),
        Some(Verb::Tables(asked)) => tables::obey(asked),
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
        Some(Verb::CountCalls { command }) => {
            calls::trace(command).context("cannot count the calls of a command")?;
            Ok(Ending::Well)
        }
        Some(Verb::Proof) => {
            preload::say_whose_malloc();
            Ok(Ending::Well)
        }
    }
}

/// Builds, runs, keeps and compares; or goes on with what was `begun`.
fn measure(plan: &Plan, begun: Option<Begun>, asked: &Measure, format: Format) -> Result<Ending> {
    if asked.dry_run {
        let folder = Cargo::find().ok().map(|cargo| cargo.folder());
        say(&session::foretell(plan, folder.as_deref()));
        return Ok(Ending::Well);
    }
    let cargo = Cargo::find()?;
    let date = rounds::now();

    let (built, mut left_out) = match &plan.prebuilt {
        Some(folder) => subjects::prebuilt(folder, &plan.subjects, &plan.named)?,
        None => {
            let (built, failed) = cargo.build(&plan.subjects, plan.has_services())?;
            (built, failed.into_iter().map(does_not_build).collect())
        }
    };
    let inputs = if plan.rows.iter().any(|row| row.workload.is_real()) { inputs::prepare(&cargo)? } else { PathBuf::new() };
    let views = possible(plan.views());
    let repeatable = instructions::repeatable(&cargo, &views)?;
    let launch = Launch {
        percent: plan.percent,
        inputs: &inputs,
        environment: &plan.environment,
        timeout: plan.timeout,
        repeatable: &repeatable,
    };
    let (proved, unproved) = prove(&launch, built)?;
    // Where there is no make, a peer is missing and said to be; but who asked for it, or built it in vain, is to notice.
    let incomplete = !unproved.is_empty() || left_out.iter().any(|its| plan.named.contains(&its.subject));
    left_out.extend(unproved);
    for its in &left_out {
        eprintln!("{} is left out: {}", its.subject, its.reason);
    }

    // The first runs twice in each round, so that the session says what the machine does by itself.
    let version = |(built, version): &(Built, String)| Version {
        subject: built.subject.name.to_owned(),
        version: version.clone(),
        option: built.subject.variant.map(|variant| variant.option()),
    };
    let mut subjects: Vec<Version> = proved.iter().map(version).collect();
    let again = Version { subject: subjects::again(&subjects[0].subject), ..subjects[0].clone() };
    subjects.insert(1, again);
    let session = Session {
        commit: if plan.prebuilt.is_none() { session::commit(cargo.workspace()) } else { None },
        seed: session::seed(plan.seed),
        repetitions: plan.repetitions,
        percent: plan.percent,
        workloads: plan.rows.iter().map(Row::title).collect(),
        subjects,
        left_out,
        environment: plan.environment.iter().map(|(name, value)| format!("{name}={value}")).collect(),
        scenario: plan.scenario.clone(),
        flags: session::flags(cargo.workspace(), plan.prebuilt.as_deref()),
        floors: plan.floors(),
        ..Session::new(date, Kind::Workloads, Machine::look(cargo.rustc().to_owned()))
    };
    let started = Instant::now();
    let run = |view: View, row: usize, subject: usize| launch.look(view, &proved[subject.saturating_sub(1)].0, &plan.rows[row]);
    let (kept, path) = match begun {
        None => {
            let path = session::kept_at(asked.json.as_deref(), &cargo, &session.date)?;
            (session::hold(session, &path, &views, run)?, path)
        }
        Some(begun) => {
            begun.check(&session)?;
            (session::go_on(begun.kept, &begun.path, run)?, begun.path)
        }
    };

    let ending = show(&kept, format);
    if format == Format::Text {
        say(&farewell(&kept, &path, started.elapsed(), asked.full));
    }
    Ok(if incomplete && ending != Ending::Interrupted { Ending::Badly } else { ending })
}

/// Those views that this machine allows; of the others, it says why they are left out.
fn possible(mut views: Vec<View>) -> Vec<View> {
    views.retain(|view| {
        let possible = match view {
            View::Timed => Ok(()),
            View::Calls => calls::possible().map_err(|reason| format!("calls into the system are not counted: {reason}")),
            View::Instructions => instructions::possible().map_err(|reason| format!("instructions are not counted: {reason}")),
        };
        possible.inspect_err(|sentence| eprintln!("{sentence}")).is_ok()
    });
    views
}

/// Prints what a log with a trace in it says, and loudly what of it cannot be read.
fn sum_up(file: &Path, format: Format) -> Result<Ending> {
    let log = if file.as_os_str() == "-" {
        Log::read(io::stdin().lock(), "the standard input").given()?
    } else {
        let name = file.display().to_string();
        let opened = File::open(file).with_context(|| format!("cannot read {name}")).given()?;
        Log::read(BufReader::new(opened), &name).given()?
    };
    say(&log.print(format));
    log.problem().map_or(Ok(Ending::Well), |problem| bail!(Misuse(problem)))
}

/// Prints the tables of a session that was just held. One that did not come to its end is no good ending, whatever its tables say.
fn show(kept: &Kept, format: Format) -> Ending {
    match print(kept, format) {
        _ if kept.end.is_none() && interrupt::is_asked() => Ending::Interrupted,
        _ if kept.end.is_none() => Ending::Badly,
        ending => ending,
    }
}

/// Prints the tables, and what there is to complain about.
fn print(kept: &Kept, format: Format) -> Ending {
    let kept = &tamed(kept, format);
    let report = Report::of(kept);
    let text = report.print(format);
    let text = plain(&text);
    say(&if format == Format::Text { report::styled(&text) } else { text.into_owned() });
    complain(&report)
}

/// Says loudly what went wrong, or what was not reached.
fn complain(report: &Report<'_>) -> Ending {
    let problems = report.problems();
    for problem in &problems {
        eprintln!("ERROR: {}", plain(problem));
    }
    let missed = report.missed().len();
    if missed > 0 {
        eprintln!("freestone-bench: {missed} of {} floors {} missed", report.floors(), if missed == 1 { "is" } else { "are" });
    }
    match (problems.is_empty(), missed) {
        (false, _) => Ending::Badly,
        (true, 0) => Ending::Well,
        (true, _) => Ending::No,
    }
}

/// Prints the tables of a kept session. Of a damaged file, those of what can be believed.
fn show_again(file: &Path, format: Format) -> Result<Ending> {
    let (kept, damage) = Kept::salvage(file)?;
    let ending = show(&kept, format);
    match damage {
        None => Ok(ending),
        Some(damage) => bail!(Misuse(format!("{damage}; the report is of what comes before it"))),
    }
}

/// To stdout, with styles where they can be seen. That nobody listens is no reason to panic.
fn say(text: &str) {
    let _ = anstream::stdout().write_all(text.as_bytes());
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
        match launch.probe(&built, &Row::plain(probe)) {
            Ok(version) => proved.push((built, version)),
            Err(reason) => unproved.push(LeftOut { subject: built.subject.name.to_owned(), reason }),
        }
    }
    ensure!(!proved.is_empty(), "no subject runs: {}", unproved.first().map_or("there is none", |its| &its.reason));
    proved.sort_by_key(|(built, _)| subjects::ALL.iter().position(|subject| subject == built.subject));
    Ok((proved, unproved))
}

/// Where the records are, and what else there is to do.
fn farewell(kept: &Kept, path: &Path, took: Duration, all: bool) -> String {
    let mut text = session::farewell(path, took);
    if kept.end.is_none() {
        let _ = writeln!(text, "Go on with it:            cargo run --release -- --resume {}", path.display());
    } else if !all {
        let _ = writeln!(text, "All workloads, ten times: cargo run --release -- --full   (about 20 minutes)");
    }
    text
}
