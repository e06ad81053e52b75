//! Where the two sides come from: files that sessions kept, folders with binaries, revisions that have to be built, the tree as it is.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use freestone_bench::workload::{self, service::CLIENT};

use super::findings::{Findings, Standing};
use crate::arguments::Gate;
use crate::cargo::Cargo;
use crate::machine::{Machine, said};
use crate::plan::{Plan, Row};
use crate::record::{Keeper, Kept, Kind, Outcome, Record, Run, Session, Version, View};
use crate::rounds::{self, Launch};
use crate::subjects::{self, Built, EVERYONE, FREESTONE, Subject, is_again};
use crate::tables::replaced;
use crate::{Misuse, calls, inputs, instructions, interrupt, possible, session};

/// One of the two.
#[derive(Debug)]
pub(crate) struct Side {
    /// As it was typed, or what it is.
    pub(super) name: String,
    pub(super) kept: Kept,
}

impl Side {
    pub(super) fn runs(&self, view: View) -> impl Iterator<Item = &Run> {
        self.kept.runs.iter().filter(move |run| run.view == view)
    }
}

/// Before and after.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(super) base: Side,
    pub(super) new: Side,
    /// Where the records are of what was measured for this.
    pub(super) kept_at: Option<PathBuf>,
    pub(super) by_instructions_only: bool,
    /// What was measured for this can be run again.
    rig: Option<Rig>,
}

/// Binaries of both sides, and how they are run.
#[derive(Debug)]
struct Rig {
    rows: Vec<Row>,
    /// Before, then after; each in the order of `subjects`.
    built: [Vec<Built>; 2],
    percent: u64,
    inputs: PathBuf,
    environment: Vec<(String, String)>,
    timeout: Duration,
    repeatable: PathBuf,
}

impl Rig {
    fn launch(&self) -> Launch<'_> {
        Launch {
            percent: self.percent,
            inputs: &self.inputs,
            environment: &self.environment,
            timeout: self.timeout,
            repeatable: &self.repeatable,
        }
    }
}

/// What somebody typed.
#[derive(Debug)]
enum Source {
    Kept(Box<Kept>),
    Binaries(PathBuf),
    Revision(String),
    Tree,
}

impl Source {
    fn of(typed: &str, cargo: &Cargo) -> Result<Self> {
        let path = Path::new(typed);
        if path.is_dir() {
            return Ok(Self::Binaries(path.to_owned()));
        }
        if path.exists() {
            return Kept::read(path).map(|kept| Self::Kept(Box::new(kept))).map_err(|error| Misuse(format!("{error:#}")).into());
        }
        let revision = format!("{typed}^{{commit}}");
        let mut git = Command::new("git");
        git.arg("-C").arg(cargo.workspace()).args(["rev-parse", "--verify", "--quiet", "--end-of-options", &revision]);
        let commit = said(git.stderr(Stdio::null()));
        let sentence =
            || Misuse(format!("'{}' is neither a file or a folder nor a revision that git knows", typed.escape_debug()));
        Ok(Self::Revision(commit.with_context(sentence).map_err(|_| sentence())?))
    }
}

impl Pair {
    /// Reads, or builds and measures.
    pub(super) fn of(asked: &Gate) -> Result<Self> {
        let cargo = Cargo::find()?;
        let base = Source::of(&asked.base, &cargo)?;
        let new = asked.new.as_deref().map_or(Ok(Source::Tree), |typed| Source::of(typed, &cargo))?;
        let new_name = asked.new.clone().unwrap_or_else(|| "the tree as it is".to_owned());
        match (base, new) {
            (Source::Kept(base), Source::Kept(new)) => Ok(Self {
                base: Side { name: asked.base.clone(), kept: *base },
                new: Side { name: new_name, kept: *new },
                kept_at: None,
                by_instructions_only: false,
                rig: None,
            }),
            (Source::Kept(base), new) => {
                let base = Side { name: asked.base.clone(), kept: *base };
                let (kept, path) = counted(asked, &cargo, &Count::of(asked, &base.kept)?, &new)?;
                let new = Side { name: new_name, kept };
                Ok(Self { base, new, kept_at: Some(path), by_instructions_only: true, rig: None })
            }
            (_, Source::Kept(_)) => {
                let sentence = "a build before and a file after cannot be compared: both have to be measured by turns";
                bail!(Misuse(sentence.to_owned()))
            }
            (base, new) => measured(asked, &cargo, [(asked.base.clone(), base), (new_name, new)]),
        }
    }

    /// Were the runs of a round beside each other in time?
    pub(super) fn is_one_session(&self) -> bool {
        self.base.kept.session.date == self.new.kept.session.date && self.base.kept.session.seed == self.new.kept.session.seed
    }

    /// On whom the two are compared: those that were named, or Freestone, or if one of the two has none, all that both have.
    pub(super) fn subjects(&self, asked: &Gate) -> Result<Vec<String>> {
        let names = |side: &Side| side.kept.session.subjects.iter().map(|its| its.subject.clone()).collect::<Vec<_>>();
        let (before, after) = (names(&self.base), names(&self.new));
        let both: Vec<String> = before.iter().filter(|name| after.contains(name) && !is_again(name)).cloned().collect();
        let named: Vec<&String> = asked.measure.subjects.iter().chain(&asked.measure.with).collect();
        let chosen = if named.iter().any(|name| *name == EVERYONE) {
            both
        } else if named.is_empty() {
            // One that the base has and the new side lacks is found missing.
            let freestone: Vec<String> = before.iter().filter(|name| *name == FREESTONE).cloned().collect();
            if freestone.is_empty() { both } else { freestone }
        } else {
            // One that the base has and the new one lacks is found missing.
            for name in &named {
                ensure!(before.contains(name), Misuse(format!("'{}' was not measured before", name.escape_debug())));
            }
            named.into_iter().cloned().collect()
        };
        ensure!(!chosen.is_empty(), Misuse("the two sessions have no subject in common".to_owned()));
        Ok(chosen)
    }

    /// Where a row got worse and both builds are at hand, counts the calls of both. `true`: there is more to see than before.
    pub(super) fn look_closer(&mut self, findings: &Findings) -> Result<bool> {
        let worse = findings.worse();
        let (Some(rig), Some(path)) = (&self.rig, &self.kept_at) else { return Ok(false) };
        if worse.is_empty() || findings.standing(Standing::TooMuch).next().is_none() {
            return Ok(false);
        }
        if let Err(reason) = calls::possible() {
            eprintln!("calls into the system are not counted: {reason}");
            return Ok(false);
        }
        let mut keeper = Keeper::open(path.clone())?;
        let launch = rig.launch();
        for (row, subject) in &worse {
            let Some(row) = rig.rows.iter().find(|its| its.title() == *row) else { continue };
            for (side, built) in [&mut self.base, &mut self.new].into_iter().zip(&rig.built) {
                let Some(built) = built.iter().find(|its| its.subject.name == *subject) else { continue };
                if side.runs(View::Calls).any(|run| run.workload == row.title() && run.subject == *subject) {
                    // Somebody asked for them before.
                    continue;
                }
                if interrupt::is_asked() {
                    return Ok(true);
                }
                let outcome =
                    calls::count(&launch, built, row).map_or_else(|failure| Outcome::Failed(failure.reason), Outcome::Measured);
                let run = run(&side.kept.session, built, row, View::Calls, outcome);
                keeper.keep(&Record::Run(Run { subject: sided(built, &side.name), ..run.clone() }))?;
                side.kept.runs.push(run);
            }
        }
        Ok(true)
    }
}

/// What a subject of a side is called in the records of a session with both.
fn sided(built: &Built, side: &str) -> String {
    format!("{} of {side}", built.subject.name)
}

fn run(session: &Session, built: &Built, row: &Row, view: View, outcome: Outcome) -> Run {
    let version = session.subjects.iter().find(|its| its.subject == built.subject.name);
    Run {
        session: session.date.clone(),
        date: rounds::now(),
        round: 1,
        subject: built.subject.name.to_owned(),
        version: version.map_or_else(String::new, |its| its.version.clone()),
        workload: row.title(),
        view,
        took_ms: None,
        outcome,
    }
}

/// Runs both by turns, in one session.
fn measured(asked: &Gate, cargo: &Cargo, sources: [(String, Source); 2]) -> Result<Pair> {
    ensure!(asked.measure.prebuilt.is_none(), Misuse("--prebuilt: give the folders as --base and --new".to_owned()));
    let mut plan = Plan::typed(&asked.measure)?;
    if asked.measure.subjects.is_empty() {
        plan.subjects.retain(|subject| subject.name == FREESTONE || asked.measure.with.iter().any(|name| name == subject.name));
    }
    let [(base_name, base), (new_name, new)] = sources;
    // A name of both would make one column of the two.
    let names =
        if base_name == new_name { [format!("{base_name} before"), format!("{new_name} after")] } else { [base_name, new_name] };
    let services = plan.has_services();
    let built = [binaries(cargo, &base, &plan.subjects, services)?, binaries(cargo, &new, &plan.subjects, services)?];
    let inputs = if plan.rows.iter().any(|row| row.workload.is_real()) { inputs::prepare(cargo)? } else { PathBuf::new() };
    let views = possible(plan.views());
    let repeatable = instructions::repeatable(cargo, &views)?;
    let rig = Rig {
        rows: plan.rows,
        built,
        percent: plan.percent,
        inputs,
        environment: plan.environment,
        timeout: plan.timeout,
        repeatable,
    };
    let launch = rig.launch();
    let (mut versions, mut flat) = (Vec::new(), Vec::new());
    for (name, built) in names.iter().zip(&rig.built) {
        for built in built {
            versions.push(Version { subject: sided(built, name), version: proved(&launch, built, name)?, option: None });
            flat.push(built);
        }
    }
    let session = Session {
        commit: session::commit(cargo.workspace()),
        seed: session::seed(plan.seed),
        repetitions: plan.repetitions,
        percent: plan.percent,
        workloads: rig.rows.iter().map(Row::title).collect(),
        subjects: versions,
        environment: rig.environment.iter().map(|(name, value)| format!("{name}={value}")).collect(),
        ..Session::new(rounds::now(), Kind::Workloads, Machine::look(cargo.rustc().to_owned()))
    };
    let path = session::kept_at(asked.measure.json.as_deref(), cargo, &session.date)?;
    let kept = session::hold(session, &path, &views, |view, row, subject| launch.look(view, flat[subject], &rig.rows[row]))?;
    let kept = session::whole(kept, &path)?;
    let [base, new] = names.map(|name| Side { kept: half(&kept, &rig.built[0], &name), name });
    Ok(Pair { base, new, kept_at: Some(path), by_instructions_only: false, rig: Some(rig) })
}

/// What is a side's own of a session with both, by the subjects' own names.
fn half(both: &Kept, built: &[Built], side: &str) -> Kept {
    let own = |sided_name: &str| built.iter().find(|its| sided(its, side) == *sided_name).map(|its| its.subject.name.to_owned());
    let subjects = both.session.subjects.iter().filter_map(|its| Some(Version { subject: own(&its.subject)?, ..its.clone() }));
    let runs = both.runs.iter().filter_map(|its| Some(Run { subject: own(&its.subject)?, ..its.clone() }));
    Kept {
        session: Session { subjects: subjects.collect(), ..both.session.clone() },
        runs: runs.collect(),
        end: both.end.clone(),
    }
}

/// Lets a binary show that it runs, and on the allocator that it is named after.
fn proved(launch: &Launch<'_>, built: &Built, side: &str) -> Result<String> {
    let probe = workload::by_name("hot-64").context("there is no workload to try the subjects with")?;
    let proof = launch.probe(built, &Row::plain(probe));
    proof.map_err(|reason| anyhow!("{} of {} does not run: {reason}", built.subject.name, side.escape_debug()))
}

/// What is counted, and how.
struct Count {
    subjects: Vec<&'static Subject>,
    rows: Vec<Row>,
    percent: u64,
    environment: Vec<(String, String)>,
}

impl Count {
    /// What a baseline begins with: what programs do most, in one thread, and nothing that is fed with what changes for other reasons, such as our own
    /// sources.
    const ROWS: [&str; 16] = [
        "hot-64",
        "hot-4k",
        "runtime-64",
        "batch-100",
        "batch-10k",
        "random-1k",
        "random-100k",
        "strings",
        "hash-of-boxes",
        "vec-grow-1k",
        "cold-growth",
        "vec-grow-1m",
        "zeroed",
        "large",
        "xlarge",
        "small-program",
    ];

    /// Samples are drawn by chance, and the background thread sleeps by the clock of the kernel: with both, counts wander by 2 %.
    const ENVIRONMENT: (&str, &str) = ("FREESTONE", "background:off,sample_interval:0");

    fn first() -> Self {
        let rows = Self::ROWS.iter().filter_map(|name| workload::by_name(name)).map(Row::plain).collect();
        let subjects = Subject::by_name(FREESTONE).into_iter().collect();
        let (name, value) = Self::ENVIRONMENT;
        Self { subjects, rows, percent: 2, environment: vec![(name.to_owned(), value.to_owned())] }
    }

    /// As it was done in a file.
    fn of(asked: &Gate, base: &Kept) -> Result<Self> {
        let name = asked.base.escape_debug().to_string();
        let before: Vec<&Run> = base.runs.iter().filter(|run| run.view == View::Instructions).collect();
        let sentence =
            "holds no instruction counts, and times are compared only by turns: give a revision, or files on both sides";
        ensure!(!before.is_empty(), Misuse(format!("{name} {sentence}")));
        ensure!(
            asked.measure.workloads.is_empty() && !asked.measure.full,
            Misuse(format!("the rows are those of {name}, all of them"))
        );
        let had = |subject: &&Subject| before.iter().any(|run| run.subject == subject.name);
        let subjects: Vec<&'static Subject> = subjects::ALL.iter().filter(had).collect();
        ensure!(!subjects.is_empty(), Misuse(format!("{name} holds no subject that there is")));
        let percents: Vec<u64> = before.iter().filter_map(|run| percent(run)).collect();
        let percent = percents.first().copied().unwrap_or(base.session.percent);
        ensure!(
            percents.iter().all(|its| *its == percent),
            Misuse(format!("{name} holds counts of different shares of the operations, which nobody can do at once"))
        );
        // Others were only timed; and a row that there is no more is found missing.
        let titles = base.session.workloads.iter().filter(|title| before.iter().any(|run| run.workload == **title));
        let rows: Vec<Row> = titles.filter_map(|title| row(title)).collect();
        ensure!(!rows.is_empty(), Misuse(format!("{name} holds no row that there is")));
        let environment = base.session.environment.iter().filter_map(|text| text.split_once('='));
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Ok(Self { subjects, rows, percent: percent.clamp(1, 100), environment })
    }
}

/// Counts the instructions of a build.
fn counted(asked: &Gate, cargo: &Cargo, count: &Count, new: &Source) -> Result<(Kept, PathBuf)> {
    let Count { subjects, rows, percent, environment } = count;
    instructions::possible().map_err(|reason| anyhow!("instructions are not counted: {reason}"))?;
    let built = binaries(cargo, new, subjects, false)?;
    let inputs = if rows.iter().any(|row| row.workload.is_real()) { inputs::prepare(cargo)? } else { PathBuf::new() };
    let timeout = Duration::from_secs(asked.measure.timeout.unwrap_or(120));
    let views = [View::Instructions];
    let repeatable = instructions::repeatable(cargo, &views)?;
    let launch = Launch { percent: *percent, inputs: &inputs, environment, timeout, repeatable: &repeatable };
    let mut session = Session {
        commit: session::commit(cargo.workspace()),
        // By the clock, which costs next to nothing and proves that the row runs at all.
        repetitions: 1,
        percent: *percent,
        workloads: rows.iter().map(Row::title).collect(),
        environment: environment.iter().map(|(name, value)| format!("{name}={value}")).collect(),
        ..Session::new(rounds::now(), Kind::Workloads, Machine::look(cargo.rustc().to_owned()))
    };
    for built in &built {
        let version = proved(&launch, built, asked.new.as_deref().unwrap_or("the tree as it is"))?;
        session.subjects.push(Version { subject: built.subject.name.to_owned(), version, option: None });
    }
    let path = session::kept_at(asked.measure.json.as_deref(), cargo, &session.date)?;
    let kept = session::hold(session, &path, &views, |view, row, subject| launch.look(view, &built[subject], &rows[row]))?;
    let kept = session::whole(kept, &path)?;
    Ok((kept, path))
}

/// Counts everything in the base's file anew and puts it in its place: all of it, or nothing. Begins the file where there is none.
pub(super) fn renew(asked: &Gate) -> Result<String> {
    let cargo = Cargo::find()?;
    let file = Path::new(&asked.base);
    let count = match file.exists().then(|| Source::of(&asked.base, &cargo)).transpose()? {
        None => Count::first(),
        Some(Source::Kept(base)) => Count::of(asked, &base)?,
        Some(_) => bail!(Misuse("--renew: the base has to be a file with instruction counts".to_owned())),
    };
    let (kept, path) = counted(asked, &cargo, &count, &Source::Tree)?;
    let failed =
        kept.runs.iter().find_map(|run| if let Outcome::Failed(reason) = &run.outcome { Some((run, reason)) } else { None });
    if let Some((run, reason)) = failed {
        bail!("{} is as it was: {} failed on {}: {reason}", asked.base, run.subject, run.workload);
    }
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).map_or(Ok(()), fs::create_dir_all);
    let put = |unfinished: &Path| fs::copy(&path, unfinished).map(drop).map_err(anyhow::Error::from);
    folder
        .map_err(anyhow::Error::from)
        .and_then(|()| replaced(file, put))
        .with_context(|| format!("cannot write {}", file.display()))?;
    Ok(format!("{} holds the instructions of {} rows now.\n", file.display(), kept.session.workloads.len()))
}

fn percent(run: &Run) -> Option<u64> {
    if let Outcome::Measured(measurement) = &run.outcome {
        measurement.notes.get(instructions::PERCENT_NOTE).copied()
    } else {
        None
    }
}

/// A row by its title.
fn row(title: &str) -> Option<Row> {
    let mut words = title.split(' ');
    let mut row = Row::plain(workload::by_name(words.next()?)?);
    row.parameters =
        words.map(|word| word.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()))).collect::<Option<_>>()?;
    Some(row)
}

/// The subjects' binaries of a source, perhaps with what the services need.
fn binaries(cargo: &Cargo, source: &Source, subjects: &[&'static Subject], services: bool) -> Result<Vec<Built>> {
    match source {
        Source::Binaries(folder) => prebuilt(folder, subjects),
        Source::Tree => all_of(cargo.build(subjects, services)?, "the tree as it is"),
        Source::Revision(commit) => of_revision(cargo, commit, subjects, services),
        Source::Kept(_) => bail!("a file of records cannot be run"),
    }
}

fn all_of((built, failed): (Vec<Built>, Vec<&'static Subject>), of: &str) -> Result<Vec<Built>> {
    ensure!(failed.is_empty(), "{} of {of} does not build", failed.first().map_or("a subject", |its| its.name));
    Ok(built)
}

/// Builds the subjects of a revision, from a copy of its sources in the target folder. The tree and its repository are left alone. What was built
/// once is there the next time.
fn of_revision(cargo: &Cargo, commit: &str, subjects: &[&'static Subject], services: bool) -> Result<Vec<Built>> {
    let home = cargo.folder().join("gate");
    let mut hasher = DefaultHasher::new();
    (cargo.rustc(), session::flags(cargo.workspace(), None), services).hash(&mut hasher);
    let binaries = home.join(format!("{commit}-{:016x}", hasher.finish()));
    if let Ok(built) = prebuilt(&binaries, subjects) {
        return Ok(built);
    }
    let sources = Sources::of(cargo.workspace(), commit, home.join("sources"))?;
    let elsewhere = cargo.elsewhere(sources.0.clone(), home.join("target"));
    let built = all_of(elsewhere.build(subjects, services)?, commit)?;
    drop(sources);
    let kept = |error: io::Error| anyhow!("cannot write to {}: {error}", binaries.display());
    fs::create_dir_all(&binaries).map_err(kept)?;
    // Subjects last: by them, the next time knows that all is there.
    let client = built.first().filter(|_| services).map(|its| its.program.with_file_name(CLIENT));
    let programs: Vec<PathBuf> = client.into_iter().chain(built.iter().map(|its| its.program.clone())).collect();
    for program in &programs {
        let unfinished = binaries.join("unfinished");
        let name = program.file_name().unwrap_or_default();
        fs::copy(program, &unfinished).and_then(|_| fs::rename(&unfinished, binaries.join(name))).map_err(kept)?;
    }
    prebuilt(&binaries, subjects)
}

/// All of the subjects, or none.
fn prebuilt(folder: &Path, subjects: &[&'static Subject]) -> Result<Vec<Built>> {
    Ok(subjects::prebuilt(folder, subjects, &[])?.0)
}

/// A copy of a revision's sources, which goes when it is no longer needed; what an interruption has left, the next one removes.
struct Sources(PathBuf);

impl Sources {
    fn of(workspace: &Path, commit: &str, folder: PathBuf) -> Result<Self> {
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let sources = Self(folder);
        let archive = sources.0.join("sources.tar");
        let mut git = Command::new("git");
        git.arg("-C").arg(workspace).args(["archive", "--format=tar", "--output"]).arg(&archive).arg(commit);
        done(&mut git)?;
        // With the times of now: cargo takes what is older than its last build for built.
        done(Command::new("tar").arg("-x").arg("--touch").arg("-C").arg(&sources.0).arg("-f").arg(&archive))?;
        Ok(sources)
    }
}

impl Drop for Sources {
    fn drop(&mut self) {
        // It lies in the target folder, and the next gate begins with removing it.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs a command that has nothing to say unless it fails.
fn done(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {name}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name} fails: {}", said.lines().next().unwrap_or("it does not say why"));
    Ok(())
}
