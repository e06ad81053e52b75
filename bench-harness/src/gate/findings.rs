//! What got worse, and how sure that is.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};

use super::causes::Causes;
use super::share;
use super::sources::{Pair, Side};
use crate::Misuse;
use crate::arguments::Gate;
use crate::instructions::PERCENT_NOTE;
use crate::record::{Kept, Measurement, Outcome, Run, View};
use crate::report::{BYTES, COUNTS, TIMES, Units};
use crate::rounds::difference;
use crate::statistics::{self, Difference, Estimate};

/// How much worse is too much, as shares.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Limits {
    slower: f64,
    p99: f64,
    peak: f64,
    instructions: f64,
}

impl Limits {
    /// As they were typed.
    pub(super) fn of(asked: &Gate) -> Result<Self> {
        Ok(Self {
            slower: share("--max-slower", asked.max_slower)?,
            p99: share("--max-p99", asked.max_p99)?,
            peak: share("--max-peak", asked.max_peak)?,
            instructions: share("--max-instructions", asked.max_instructions)?,
        })
    }

    /// Such as `throughput −5 %, P99 +10 %, peak memory +5 %, instructions +1 %`.
    pub(super) fn in_words(&self) -> String {
        let percent = |share: f64| (share * 1e4).round() / 1e2;
        format!(
            "throughput −{} %, P99 +{} %, peak memory +{} %, instructions +{} %",
            percent(self.slower),
            percent(self.p99),
            percent(self.peak),
            percent(self.instructions)
        )
    }

    /// The largest ratio that is not too much.
    fn ratio_max(&self, what: &What) -> f64 {
        match what {
            // Throughput is the inverse of time; nobody can lose more than all of it.
            What::Time if self.slower >= 1.0 => f64::INFINITY,
            What::Time => 1.0 / (1.0 - self.slower),
            What::P99(_) => 1.0 + self.p99,
            What::Peak => 1.0 + self.peak,
            What::Instructions => 1.0 + self.instructions,
        }
    }
}

/// A figure that is watched. Less is better in all of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum What {
    /// Time per operation; its inverse is the throughput.
    Time,
    /// The time that 99 of 100 operations of this kind stay below.
    P99(String),
    /// Peak memory.
    Peak,
    /// Instructions per operation.
    Instructions,
}

impl What {
    /// What it is called in a table.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Time => "time per operation".to_owned(),
            Self::P99(kind) => format!("P99 of {kind}"),
            Self::Peak => "peak memory".to_owned(),
            Self::Instructions => "instructions per operation".to_owned(),
        }
    }

    pub(super) fn units(&self) -> Units {
        match self {
            Self::Time | Self::P99(_) => TIMES,
            Self::Peak => BYTES,
            Self::Instructions => COUNTS,
        }
    }

    fn view(&self) -> View {
        if *self == Self::Instructions { View::Instructions } else { View::Timed }
    }

    /// The figure in a run. What is zero or missing was not measured.
    fn figure(&self, measurement: &Measurement) -> Option<f64> {
        let per_operation = |sum: u64| sum as f64 / measurement.operations as f64;
        let figure = match self {
            Self::Time => per_operation(measurement.nanos),
            Self::P99(kind) => {
                let points = &measurement.latencies.get(kind)?.points;
                points.iter().find(|(parts, _)| *parts >= 990_000)?.1 as f64
            }
            Self::Peak => measurement.peak_rss_bytes as f64,
            Self::Instructions => per_operation(measurement.instructions?),
        };
        (figure.is_finite() && figure > 0.0).then_some(figure)
    }
}

/// How a figure stands after the change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Standing {
    /// Worse by more than it may be, and that is sure.
    TooMuch,
    /// Worse by more than it may be, but that may be chance, or there are too few runs to say.
    Perhaps,
    /// Worse for sure, and not by too much.
    Worse,
    /// No difference was found.
    Even,
    /// Better for sure.
    Better,
    /// Not to be compared: something else has changed, too.
    Excused,
}

/// One figure, before and after.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Finding {
    pub(super) row: String,
    pub(super) subject: String,
    pub(super) what: What,
    pub(super) before: f64,
    pub(super) after: f64,
    /// After, divided by before. Instructions have no interval: nothing about them is chance.
    pub(super) ratio: Estimate,
    pub(super) standing: Standing,
}

/// A row that was measured before, and is not any more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Gone {
    pub(super) row: String,
    pub(super) subject: String,
    /// Behind "… on …".
    pub(super) reason: String,
}

/// All that the gate has to say.
#[derive(Debug)]
pub(crate) struct Findings {
    pub(super) figures: Vec<Finding>,
    pub(super) gone: Vec<Gone>,
    /// Of each row and subject that got worse: where that comes from.
    pub(super) causes: Vec<Causes>,
    /// What else has to be known, a sentence each.
    pub(super) remarks: Vec<String>,
}

impl Findings {
    /// Compares the two sides. What cannot be compared at all is a misuse.
    pub(super) fn of(pair: &Pair, subjects: &[String], limits: &Limits) -> Result<Self> {
        let mut remarks = Vec::new();
        let has_instructions = [&pair.base, &pair.new].iter().all(|side| side.runs(View::Instructions).next().is_some());
        let is_timed = match pair.by_instructions_only.then(|| "only instructions are".to_owned()).or_else(|| elsewhere(pair)) {
            None => true,
            Some(reason) => {
                ensure!(
                    has_instructions,
                    Misuse(format!("{reason}, so times and memory are not compared, and there is nothing else"))
                );
                if !pair.by_instructions_only {
                    remarks.push(format!("{reason}, so only instructions are compared."));
                }
                false
            }
        };
        let excuse = has_instructions.then(|| otherwise_built(pair)).flatten();
        if let Some(excuse) = &excuse {
            remarks.push(format!(
                "{excuse}, and instructions depend on that: they are shown, and nothing is concluded from them. Renew the base."
            ));
        }
        same_parameters(pair)?;
        for (name, side) in [("before", &pair.base), ("after", &pair.new)] {
            if side.kept.end.is_none() {
                remarks.push(format!("The session {name} was cut short."));
            }
        }

        let mut findings = Self { figures: Vec::new(), gone: Vec::new(), causes: Vec::new(), remarks };
        for row in &pair.base.kept.session.workloads {
            for subject in subjects {
                findings.compare(pair, row, subject, is_timed, limits, excuse.is_some());
            }
        }
        ensure!(
            !(findings.figures.is_empty() && findings.gone.is_empty()),
            Misuse("what was measured before holds nothing that can be compared".to_owned())
        );
        findings.figures.sort_by(|a, b| b.ratio.median.total_cmp(&a.ratio.median));
        for (row, subject) in findings.worse() {
            findings.causes.push(Causes::of(pair, &row, &subject));
        }
        Ok(findings)
    }

    /// Rows and subjects on which something got worse by too much, in the order of how much.
    pub(super) fn worse(&self) -> Vec<(String, String)> {
        let mut seen = BTreeSet::new();
        let worse = self.standing(Standing::TooMuch).map(|finding| (finding.row.clone(), finding.subject.clone()));
        worse.filter(|place| seen.insert(place.clone())).collect()
    }

    pub(super) fn standing(&self, standing: Standing) -> impl Iterator<Item = &Finding> {
        self.figures.iter().filter(move |finding| finding.standing == standing)
    }

    /// Is the answer no?
    pub(super) fn fail(&self) -> bool {
        !self.gone.is_empty() || self.standing(Standing::TooMuch).next().is_some()
    }

    /// Who computes something else from run to run breaks memory. Something else than before may be another workload, or the same.
    fn compare_results(&mut self, pair: &Pair, row: &str, subject: &str) {
        let (before, after) = (results(&pair.base, row, subject), results(&pair.new, row, subject));
        if after.len() > 1 {
            let reason = "computes different results from run to run".to_owned();
            self.gone.push(Gone { row: row.to_owned(), subject: subject.to_owned(), reason });
        } else if before.len() == 1 && after.len() == 1 && before != after {
            self.remarks.push(format!("{row} on {subject} computes something else than before."));
        }
    }

    fn compare(&mut self, pair: &Pair, row: &str, subject: &str, is_timed: bool, limits: &Limits, is_excused: bool) {
        self.compare_results(pair, row, subject);
        let mut watched = vec![What::Instructions];
        if is_timed {
            watched.extend([What::Time, What::Peak]);
            watched.extend(kinds(&pair.base, row, subject).into_iter().map(What::P99));
        }
        let mut is_gone = false;
        for what in watched {
            let before = figures(&pair.base, row, subject, &what);
            if before.is_empty() {
                continue;
            }
            let after = figures(&pair.new, row, subject, &what);
            if let Some(reason) = gone(&pair.new, row, subject, &what, after.is_empty()) {
                // Once is enough, however many figures it had.
                if !is_gone {
                    self.gone.push(Gone { row: row.to_owned(), subject: subject.to_owned(), reason });
                }
                is_gone = true;
            } else if what == What::Instructions && percent(&pair.base, row, subject) != percent(&pair.new, row, subject) {
                let sentence = "instructions were counted on another share of its operations, so they are not compared";
                self.remarks.push(format!("{row} on {subject}: {sentence}."));
            } else {
                let mut finding = judged(pair, row, subject, &what, (&before, &after), limits);
                if what == What::Instructions && is_excused {
                    finding.standing = Standing::Excused;
                }
                self.figures.push(finding);
            }
        }
    }
}

/// What a row computed, in all of its runs on a subject.
fn results<'a>(side: &'a Side, row: &'a str, subject: &'a str) -> BTreeSet<&'a str> {
    measured(side, row, subject, View::Timed).map(|(_, its)| &*its.checksum).collect()
}

fn judged(
    pair: &Pair,
    row: &str,
    subject: &str,
    what: &What,
    (before, after): (&BTreeMap<u64, f64>, &BTreeMap<u64, f64>),
    limits: &Limits,
) -> Finding {
    let values = |figures: &BTreeMap<u64, f64>| figures.values().copied().collect::<Vec<_>>();
    let median = |figures: &BTreeMap<u64, f64>| Estimate::of(figures.values().copied()).map_or(f64::NAN, |its| its.median);
    let (was, is) = (median(before), median(after));
    let plain = Estimate { median: is / was, low: is / was, high: is / was, runs: before.len().min(after.len()) };
    let is_too_much = |ratio: f64| ratio > limits.ratio_max(what);
    let (ratio, side) = if *what == What::Instructions {
        let side = if is > was { statistics::Side::Above } else { statistics::Side::Below };
        (plain, if (plain.median - 1.0).abs() < SAME_INSTRUCTIONS { statistics::Side::Even } else { side })
    } else {
        let difference = if pair.is_one_session() {
            difference(row, after, before)
        } else {
            Difference::apart(&values(after), &values(before))
        };
        difference.map_or((plain, statistics::Side::Unknown), |its| (its.ratio, its.side()))
    };
    let standing = match side {
        statistics::Side::Above if is_too_much(ratio.median) => Standing::TooMuch,
        statistics::Side::Above => Standing::Worse,
        statistics::Side::Below => Standing::Better,
        statistics::Side::Even | statistics::Side::Unknown if is_too_much(ratio.median) => Standing::Perhaps,
        statistics::Side::Even | statistics::Side::Unknown => Standing::Even,
    };
    Finding { row: row.to_owned(), subject: subject.to_owned(), what: what.clone(), before: was, after: is, ratio, standing }
}

/// Seeds that the system hands out move instruction counts by less than this.
const SAME_INSTRUCTIONS: f64 = 0.001;

/// The figures of a row by round.
fn figures(side: &Side, row: &str, subject: &str, what: &What) -> BTreeMap<u64, f64> {
    measured(side, row, subject, what.view()).filter_map(|(round, its)| Some((round, what.figure(its)?))).collect()
}

/// The measurements of a row, with their rounds.
pub(super) fn measured<'a>(
    side: &'a Side,
    row: &'a str,
    subject: &'a str,
    view: View,
) -> impl Iterator<Item = (u64, &'a Measurement)> {
    let its = side.runs(view).filter(move |run| run.workload == row && run.subject == subject);
    its.filter_map(|run| if let Outcome::Measured(measurement) = &run.outcome { Some((run.round, measurement)) } else { None })
}

/// Why a figure that was there is not there any more. A run that fails now and then fails, even where others measured something.
fn gone(side: &Side, row: &str, subject: &str, what: &What, is_empty: bool) -> Option<String> {
    let runs = || side.runs(what.view()).filter(|run| run.workload == row && run.subject == subject);
    // That a row runs at all is proved by the clock, whatever is compared.
    let timed = side.runs(View::Timed).filter(|run| run.workload == row && run.subject == subject);
    let failed =
        runs().chain(timed).find_map(|run: &Run| if let Outcome::Failed(reason) = &run.outcome { Some(reason) } else { None });
    match failed {
        Some(reason) => Some(format!("was measured before, and fails now: {reason}")),
        None if runs().next().is_none() => Some("was measured before, and is missing now".to_owned()),
        None if is_empty => Some(format!("had a {} before, and has none now", what.name())),
        None => None,
    }
}

/// The kinds of operations whose latencies were taken.
fn kinds(side: &Side, row: &str, subject: &str) -> BTreeSet<String> {
    measured(side, row, subject, View::Timed).flat_map(|(_, its)| its.latencies.keys().cloned()).collect()
}

/// On what share of its operations instructions were counted.
fn percent(side: &Side, row: &str, subject: &str) -> BTreeSet<Option<u64>> {
    measured(side, row, subject, View::Instructions).map(|(_, its)| its.notes.get(PERCENT_NOTE).copied()).collect()
}

/// Why times of the two sides cannot be compared, if they cannot.
fn elsewhere(pair: &Pair) -> Option<String> {
    let (base, new) = (&pair.base.kept.session, &pair.new.kept.session);
    let (was, is) = (&base.machine, &new.machine);
    let shown = |value: &dyn std::fmt::Debug| format!("{value:?}");
    let on = "were measured on different machines";
    let facts = [
        (on, "processor", was.cpu.clone(), is.cpu.clone()),
        (on, "cores", was.cores.to_string(), is.cores.to_string()),
        (on, "memory", was.memory_bytes.to_string(), is.memory_bytes.to_string()),
        (on, "virtual", was.is_virtual.to_string(), is.is_virtual.to_string()),
        ("ran on different systems", "kernel", was.kernel.clone(), is.kernel.clone()),
        ("ran on different systems", "huge pages", was.huge_pages.clone(), is.huge_pages.clone()),
        ("ran on different systems", "governor", shown(&was.governor), shown(&is.governor)),
        ("did different amounts of work", "percent", base.percent.to_string(), new.percent.to_string()),
        ("did different amounts of work", "threads", shown(&base.threads), shown(&new.threads)),
        ("measured different things", "kind", shown(&base.kind), shown(&new.kind)),
        ("had different environments", "variables", base.environment.join(" "), new.environment.join(" ")),
    ];
    let (how, what, was, is) = facts.into_iter().find(|(_, _, was, is)| was != is)?;
    let quoted = |text: String| if text.is_empty() { "none".to_owned() } else { text };
    Some(format!("the two sessions {how} ({what}: {} and {})", quoted(was), quoted(is)))
}

/// What else instructions depend on, and has changed.
fn otherwise_built(pair: &Pair) -> Option<String> {
    let (was, is) = (&pair.base.kept.session.machine, &pair.new.kept.session.machine);
    let library = |kept: &Kept| kept.session.machine.c_library.clone().unwrap_or_else(|| "an unnamed C library".to_owned());
    let built = |rustc: &str, kept: &Kept| format!("rustc {rustc} and {}", library(kept));
    let (was, is) = (built(&was.rustc, &pair.base.kept), built(&is.rustc, &pair.new.kept));
    (was != is).then(|| format!("the base was built with {was}, and this with {is}"))
}

/// A row whose parameters have changed is no row that is missing.
fn same_parameters(pair: &Pair) -> Result<()> {
    let (before, after) = (&pair.base.kept.session.workloads, &pair.new.kept.session.workloads);
    for row in before.iter().filter(|row| !after.contains(row)) {
        let name = |row: &str| row.split(' ').next().unwrap_or_default().to_owned();
        let others = after.iter().filter(|other| !before.contains(other));
        if let Some(other) = others.filter(|other| name(other) == name(row)).min() {
            let sentence = format!("'{row}' was measured before and '{other}' after: different parameters are not compared");
            return Err(Misuse(sentence).into());
        }
    }
    Ok(())
}
