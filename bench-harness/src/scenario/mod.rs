//! Scenarios: sessions as data, in TOML files. [`reading`] says what can be in one.
//!
//! Some come with the harness, in `bench-harness/scenarios/`. They go by their names; what has a slash or ends in `.toml` is a file.

mod mistakes;
mod reading;

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::plan::Row;
use crate::subjects::EVERYONE;
use crate::{Ending, Misuse, say};
use mistakes::{Mistake, meant};

/// The scenarios that come with the harness, in the order of their length.
pub(crate) const SHIPPED: [(&str, &str); 7] = [
    ("smoke", include_str!("../../scenarios/smoke.toml")),
    ("default", include_str!("../../scenarios/default.toml")),
    ("full", include_str!("../../scenarios/full.toml")),
    ("service", include_str!("../../scenarios/service.toml")),
    ("memory", include_str!("../../scenarios/memory.toml")),
    ("scaling", include_str!("../../scenarios/scaling.toml")),
    ("tuned", include_str!("../../scenarios/tuned.toml")),
];

/// Larger files are not read: the largest that is shipped has two kilobytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What a file asks for.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    /// What sessions that follow it are said to follow.
    pub(crate) name: String,
    /// What it is good for, in a sentence.
    pub(crate) about: String,
    /// Who takes part; nobody stands for those who do by default.
    pub(crate) subjects: Vec<String>,
    /// Runs of each subject on each row.
    pub(crate) repetitions: u64,
    /// Share of the full number of operations.
    pub(crate) percent: u64,
    /// Decides the order of the runs.
    pub(crate) seed: Option<u64>,
    /// When to give up on a run.
    pub(crate) timeout: Duration,
    /// Are calls into the system counted, too?
    pub(crate) calls: bool,
    /// Are instructions counted, too?
    pub(crate) instructions: bool,
    /// What subjects have in their environment.
    pub(crate) environment: Vec<(String, String)>,
    /// What is run, and what it has to reach.
    pub(crate) rows: Vec<Row>,
}

impl Default for Scenario {
    /// What a file need not say.
    fn default() -> Self {
        Self {
            name: String::new(),
            about: String::new(),
            subjects: Vec::new(),
            repetitions: 10,
            percent: 100,
            seed: None,
            timeout: Duration::from_mins(2),
            calls: false,
            instructions: false,
            environment: Vec::new(),
            rows: Vec::new(),
        }
    }
}

impl Scenario {
    /// The scenario of a name or a file. All mistakes are said before this gives up.
    pub(crate) fn load(wanted: &str) -> Result<Self> {
        let file = if shipped(wanted).is_some() { format!("{wanted}.toml") } else { wanted.to_owned() };
        let text = text(wanted)?;
        let name = Path::new(&file).file_stem().map_or_else(|| file.clone(), |stem| stem.to_string_lossy().into_owned());
        Self::read(&file, &name, &text).map_err(|mistakes| {
            for mistake in &mistakes {
                eprintln!("{mistake}");
            }
            let count = mistakes.len();
            Misuse(format!("{file} has {count} mistake{}", if count == 1 { "" } else { "s" })).into()
        })
    }

    fn read(file: &str, name: &str, text: &[u8]) -> Result<Self, Vec<Mistake>> {
        match std::str::from_utf8(text) {
            Ok(text) => reading::scenario(file, name, text),
            Err(error) => {
                let line = text[..error.valid_up_to()].split(|byte| *byte == b'\n').count();
                Err(vec![Mistake { file: file.to_owned(), line, key: String::new(), what: "this is not UTF-8".to_owned() }])
            }
        }
    }

    /// In a line: how much it is.
    fn sum(&self) -> String {
        let subjects = match &self.subjects[..] {
            [] => "the usual subjects".to_owned(),
            [all] if all == EVERYONE => "all subjects".to_owned(),
            [one] => one.clone(),
            some => format!("{} subjects", some.len()),
        };
        let (rows, runs) = (self.rows.len(), self.repetitions);
        let plural = |count: u64| if count == 1 { "" } else { "s" };
        let mut sum = format!("{rows} row{} × {subjects} × {runs} run{}", plural(rows as u64), plural(runs));
        if self.percent < 100 {
            let _ = write!(sum, ", {} % of the operations", self.percent);
        }
        let floors = self.rows.iter().map(|row| row.floors.count()).sum::<usize>();
        if floors > 0 {
            let _ = write!(sum, ", {floors} floor{}", plural(floors as u64));
        }
        sum
    }
}

/// The verb `check`.
pub(crate) fn check(scenarios: &[String]) -> Result<Ending> {
    let mut wrong = Vec::new();
    for wanted in scenarios {
        match Scenario::load(wanted) {
            Ok(scenario) => say(&format!("{wanted}: no mistakes; {}\n", scenario.sum())),
            Err(error) => wrong.push(error),
        }
    }
    // The last of them ends the program; who checks many files wants to hear of each.
    let last = wrong.pop();
    for error in wrong {
        eprintln!("freestone-bench: {error:#}");
    }
    last.map_or(Ok(Ending::Well), Err)
}

/// The scenarios that come with the harness, for `--list`.
pub(crate) fn list() -> String {
    let mut text = String::from("The scenarios; `run NAME` follows one, and so can a file of your own.\n\n");
    for (name, its) in SHIPPED {
        let about = Scenario::read(name, name, its.as_bytes()).map(|scenario| scenario.about);
        let _ = writeln!(text, "  {name:<18} {}", about.unwrap_or_default());
    }
    text
}

fn shipped(name: &str) -> Option<&'static str> {
    SHIPPED.iter().find(|(its, _)| *its == name).map(|(_, text)| *text)
}

fn text(wanted: &str) -> Result<Vec<u8>> {
    if let Some(text) = shipped(wanted) {
        return Ok(text.as_bytes().to_owned());
    }
    let path = Path::new(wanted);
    let is_name = !wanted.contains('/') && path.extension().is_none();
    if is_name && !path.exists() {
        let names = SHIPPED.map(|(name, _)| name);
        bail!(Misuse(format!("there is no scenario and no file '{wanted}'{}", meant(wanted, &names))));
    }
    let cannot = || Misuse(format!("cannot read {wanted}"));
    // Opening a pipe that nobody writes to would wait for ever.
    let kind = path.metadata().with_context(cannot)?;
    ensure!(kind.is_file(), Misuse(format!("cannot read {wanted}: it is no file")));
    let mut bytes = Vec::new();
    File::open(path).with_context(cannot)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).with_context(cannot)?;
    ensure!(
        bytes.len() as u64 <= FILE_BYTES_MAX,
        Misuse(format!("cannot read {wanted}: it has more than a megabyte, which no scenario needs"))
    );
    Ok(bytes)
}
