//! What a session comes to, in numbers: what every round gave for each row, subject and figure, and how that compares.
//!
//! The printed tables show time and memory. Who exports wants all of it, so here every figure has a name, whatever way it was looked at:
//!
//! ```text
//! time  peak_rss  faults  major_faults  rate          timed runs
//! latency.KIND.{mean,p50,p90,p99,p999,p9999,max}      their latencies, where a workload takes them
//! note.NAME                                           what a workload noted besides
//! os_calls  os_calls.NAME                             runs that were stopped at each call into the system
//! instructions                                        runs on a simulated processor
//! ```

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::notes::note_in_words;
use super::services::is_service;
use super::{BYTES, COUNTS, Report, TIMES, Units, is_other};
use crate::record::{Kept, Kind, Latency, Measurement, Outcome, View};
use crate::resident::{self, Return};
use crate::rounds::difference;
use crate::statistics::{Difference, Estimate, Side};
use crate::subjects::{again, is_again};

/// The percentiles that have a figure of their own: the word, in parts per million, and how it is called.
pub(super) const PERCENTILES: [(&str, u32, &str); 5] = [
    ("p50", 500_000, "P50"),
    ("p90", 900_000, "P90"),
    ("p99", 990_000, "P99"),
    ("p999", 999_000, "P99.9"),
    ("p9999", 999_900, "P99.99"),
];

/// What is better.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Better {
    Less,
    More,
    /// A workload noted it, and did not say.
    Unsaid,
}

/// Something that has a number for each run.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Figure {
    /// Its name in files.
    pub(super) name: String,
    /// Its name on a page.
    pub(super) title: String,
    /// Its units on a page.
    pub(super) units: Units,
    /// What it is counted in.
    pub(super) unit: &'static str,
    /// In which direction.
    pub(super) better: Better,
}

impl Figure {
    pub(super) fn of(name: &str, kind: Kind) -> Self {
        let (title, units, better) = match name {
            "time" if kind == Kind::Workloads => ("Time per operation".to_owned(), TIMES, Better::Less),
            "time" => ("Time".to_owned(), TIMES, Better::Less),
            "peak_rss" => ("Peak memory of the process (RSS)".to_owned(), BYTES, Better::Less),
            "faults" => ("Page faults".to_owned(), COUNTS, Better::Less),
            "major_faults" => ("Page faults that waited for a disk".to_owned(), COUNTS, Better::Less),
            "rate" => ("Operations per second".to_owned(), COUNTS, Better::More),
            "os_calls" => ("Calls into the system".to_owned(), COUNTS, Better::Less),
            "instructions" => ("Instructions per operation".to_owned(), COUNTS, Better::Less),
            _ => {
                if let Some(call) = name.strip_prefix("os_calls.") {
                    (format!("Calls of {call}"), COUNTS, Better::Less)
                } else if let Some((kind, point)) = name.strip_prefix("latency.").and_then(|rest| rest.rsplit_once('.')) {
                    let point = PERCENTILES.iter().find(|its| its.0 == point).map_or(point, |its| its.2);
                    (format!("{point} of {kind}"), TIMES, Better::Less)
                } else {
                    let (words, units) = note_in_words(name.strip_prefix("note.").unwrap_or(name));
                    (capitalised(&words), units, Better::Unsaid)
                }
            }
        };
        let unit = match units.first() {
            Some((_, "s")) => "ns",
            Some((_, "GiB")) => "bytes",
            _ if name == "rate" => "1/s",
            _ => "",
        };
        Self { name: name.to_owned(), title, units, unit, better }
    }

    /// The place of a figure in a list: what everybody looks for first, then by name.
    fn order(name: &str) -> (usize, &str) {
        const FIRST: [&str; 8] = ["time", "peak_rss", "rate", "latency.", "instructions", "os_calls", "faults", "major_faults"];
        (FIRST.iter().position(|first| name.starts_with(first)).unwrap_or(FIRST.len()), name)
    }
}

/// The first letter large.
pub(super) fn capitalised(words: &str) -> String {
    let mut letters = words.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// What a subject did in a row.
#[derive(Default, Debug)]
pub(super) struct Tally<'a> {
    /// By the figure's name and the round.
    samples: BTreeMap<String, BTreeMap<u64, f64>>,
    /// What they come to, by the figure's name. Drawing intervals takes time, so it is done once.
    estimates: BTreeMap<String, Estimate>,
    /// How many times better the base is than this one.
    leads: BTreeMap<String, Lead>,
    /// Runs that failed, with their rounds.
    pub(super) failures: Vec<(u64, &'a str)>,
    /// Timed runs that went well.
    pub(super) timed: Vec<&'a Measurement>,
}

impl Tally<'_> {
    pub(super) fn estimate(&self, figure: &str) -> Option<Estimate> {
        self.estimates.get(figure).copied()
    }

    /// How many times better the base is than this subject: above 1 it wins, whatever is better in this figure.
    pub(super) fn lead(&self, figure: &str) -> Option<Lead> {
        self.leads.get(figure).copied()
    }
}

/// A row with all that was found.
#[derive(Debug)]
pub(super) struct Line<'a> {
    pub(super) title: &'a str,
    /// In the order of the subjects.
    pub(super) tallies: Vec<Tally<'a>>,
    /// How far the subject that ran twice is from itself, by figure: that is noise.
    floors: BTreeMap<String, Difference>,
}

impl Line<'_> {
    /// Once all samples are there: medians, intervals, and what is between each subject and the base.
    fn conclude(&mut self, base: usize, twice: Option<(usize, usize)>, figures: &[Figure]) {
        if let Some((first, again)) = twice {
            for (name, samples) in &self.tallies[again].samples {
                let floor = self.tallies[first].samples.get(name).and_then(|firsts| difference(self.title, samples, firsts));
                self.floors.extend(floor.map(|floor| (name.clone(), floor)));
            }
        }
        let bases = self.tallies.get(base).map(|tally| tally.samples.clone()).unwrap_or_default();
        for tally in &mut self.tallies {
            for (name, samples) in &tally.samples {
                if let Some(estimate) = Estimate::of(samples.values().copied()) {
                    tally.estimates.insert(name.clone(), estimate);
                }
                let better = figures.iter().find(|figure| figure.name == *name).map_or(Better::Unsaid, |figure| figure.better);
                let Some(bases) = bases.get(name) else { continue };
                let lead = match better {
                    Better::Less => difference(self.title, samples, bases),
                    Better::More => difference(self.title, bases, samples),
                    Better::Unsaid => None,
                };
                if let Some(lead) = lead {
                    tally.leads.insert(name.clone(), Lead::of(&lead, self.floors.get(name)));
                }
            }
        }
    }

    /// How far the subject that ran twice is from itself.
    pub(super) fn noise(&self, figure: &str) -> Option<Estimate> {
        self.floors.get(figure).map(|floor| floor.ratio)
    }

    /// The value of a parameter that differs from the workload's default.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.title.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    }

    /// Does it serve requests? Then it is told about in requests per second and percentiles.
    pub(super) fn is_service(&self) -> bool {
        is_service(self.title)
    }
}

/// How many times better the base is than another: above 1 it wins, whatever is better in this figure.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Lead {
    /// The quotient, round by round.
    pub(super) ratio: Estimate,
    /// How often two sets that do not differ look as different as these.
    pub(super) p: f64,
    /// What that comes to.
    pub(super) verdict: Verdict,
}

/// What a comparison comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(super) enum Verdict {
    #[serde(rename = "better")]
    Better,
    #[serde(rename = "worse")]
    Worse,
    /// No difference was found.
    #[serde(rename = "no difference")]
    Even,
    /// One was found, but the same allocator differs from itself by as much.
    #[serde(rename = "noise")]
    Noisy,
    /// Too few runs to say.
    #[serde(rename = "too few runs")]
    Unknown,
}

impl Lead {
    /// A difference, beside that of a subject from itself in the same row.
    pub(super) fn of(difference: &Difference, floor: Option<&Difference>) -> Self {
        let is_noise = floor.is_some_and(|floor| floor.effect() >= difference.effect());
        let verdict = match difference.side() {
            Side::Unknown => Verdict::Unknown,
            Side::Even => Verdict::Even,
            Side::Above | Side::Below if is_noise => Verdict::Noisy,
            Side::Above => Verdict::Better,
            Side::Below => Verdict::Worse,
        };
        Self { ratio: difference.ratio, p: difference.p, verdict }
    }
}

/// How the base does in a row, against the best of the others.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Judged<'a> {
    /// Who that is.
    pub(super) best: &'a str,
    /// How far from it.
    pub(super) lead: Lead,
}

/// All of a session.
#[derive(Debug)]
pub(super) struct Matrix<'a> {
    pub(super) kept: &'a Kept,
    pub(super) subjects: Vec<&'a str>,
    /// Whom the others are compared with: Freestone, or the first of a session without it.
    pub(super) base: usize,
    /// Or is it just the first?
    is_freestone: bool,
    /// In the order of a page.
    pub(super) figures: Vec<Figure>,
    pub(super) rows: Vec<Line<'a>>,
}

impl<'a> Matrix<'a> {
    pub(super) fn of(kept: &'a Kept) -> Self {
        let session = &kept.session;
        let subjects: Vec<&str> = session.subjects.iter().map(|version| &*version.subject).collect();
        let freestone = Report::of(kept).freestone();
        let base = freestone.unwrap_or(0);
        let mut rows: Vec<Line<'_>> = Vec::new();
        for title in &session.workloads {
            let tallies = subjects.iter().map(|_| Tally::default()).collect();
            rows.push(Line { title, tallies, floors: BTreeMap::new() });
        }
        for run in &kept.runs {
            let row = rows.iter_mut().find(|row| row.title == run.workload);
            let subject = subjects.iter().position(|subject| *subject == run.subject);
            let (Some(row), Some(subject)) = (row, subject) else { continue };
            let is_service = row.is_service();
            let tally = &mut row.tallies[subject];
            match &run.outcome {
                Outcome::Failed(reason) => tally.failures.push((run.round, reason)),
                Outcome::Measured(measurement) => {
                    if run.view == View::Timed {
                        tally.timed.push(measurement);
                    }
                    for (name, value) in samples(session.kind, run.view, measurement, is_service) {
                        tally.samples.entry(name).or_default().insert(run.round, value);
                    }
                }
            }
        }
        let names: BTreeSet<&String> = rows.iter().flat_map(|row| &row.tallies).flat_map(|its| its.samples.keys()).collect();
        let mut figures: Vec<Figure> = names.into_iter().map(|name| Figure::of(name, session.kind)).collect();
        figures.sort_by(|a, b| Figure::order(&a.name).cmp(&Figure::order(&b.name)));
        let twice = subjects.iter().position(|subject| is_again(subject)).and_then(|second| {
            let first = subjects.iter().position(|subject| again(subject) == subjects[second])?;
            Some((first, second))
        });
        for row in &mut rows {
            row.conclude(base, twice, &figures);
        }
        Self { kept, subjects, base, is_freestone: freestone.is_some(), figures, rows }
    }

    pub(super) fn base_name(&self) -> &'a str {
        self.subjects.get(self.base).copied().unwrap_or("nobody")
    }

    pub(super) fn figure(&self, name: &str) -> Option<&Figure> {
        self.figures.iter().find(|figure| figure.name == name)
    }

    /// Those that the base competes with, by their places.
    pub(super) fn others(&self) -> impl Iterator<Item = usize> {
        (0..self.subjects.len()).filter(|&subject| {
            let name = self.subjects[subject];
            subject != self.base && if self.is_freestone { is_other(name, self.base_name()) } else { !is_again(name) }
        })
    }

    /// How the base does against the best of the others, chosen by its median.
    pub(super) fn judge(&self, row: &Line<'_>, figure: &Figure) -> Option<Judged<'a>> {
        let medians = self.others().filter_map(|other| Some((other, row.tallies[other].estimate(&figure.name)?.median)));
        let (best, _) = match figure.better {
            Better::Less => medians.min_by(|a, b| a.1.total_cmp(&b.1)),
            Better::More => medians.max_by(|a, b| a.1.total_cmp(&b.1)),
            Better::Unsaid => None,
        }?;
        Some(Judged { best: self.subjects[best], lead: row.tallies[best].lead(&figure.name)? })
    }

    /// In how many rows the base is better, worse, about as good, and in how many nobody knows.
    pub(super) fn score(&self, figure: &Figure) -> Score<'_> {
        let mut score = Score::default();
        for row in &self.rows {
            let Some(judged) = self.judge(row, figure) else { continue };
            match judged.lead.verdict {
                Verdict::Better => &mut score.better,
                Verdict::Worse => &mut score.worse,
                Verdict::Even => &mut score.even,
                Verdict::Noisy => &mut score.noisy,
                Verdict::Unknown => &mut score.unknown,
            }
            .push((row, judged));
        }
        let by_ratio =
            |a: &(&Line<'_>, Judged<'_>), b: &(&Line<'_>, Judged<'_>)| a.1.lead.ratio.median.total_cmp(&b.1.lead.ratio.median);
        score.worse.sort_by(by_ratio);
        score.better.sort_by(|a, b| by_ratio(b, a));
        score
    }
}

/// Rows by how the base does in them, the clearest first.
#[derive(Default, Debug)]
pub(super) struct Score<'a> {
    pub(super) better: Vec<(&'a Line<'a>, Judged<'a>)>,
    pub(super) worse: Vec<(&'a Line<'a>, Judged<'a>)>,
    pub(super) even: Vec<(&'a Line<'a>, Judged<'a>)>,
    pub(super) noisy: Vec<(&'a Line<'a>, Judged<'a>)>,
    pub(super) unknown: Vec<(&'a Line<'a>, Judged<'a>)>,
}

impl Score<'_> {
    pub(super) fn rows(&self) -> usize {
        self.better.len() + self.worse.len() + self.even.len() + self.noisy.len() + self.unknown.len()
    }
}

/// A time that so many of a million operations stayed below: the first point that is at least as far out.
pub(super) fn percentile(latency: &Latency, parts: u32) -> Option<u64> {
    latency.points.iter().filter(|(its, _)| *its >= parts).min_by_key(|(its, _)| *its).map(|(_, nanos)| *nanos)
}

/// All figures of a run.
fn samples(kind: Kind, view: View, measurement: &Measurement, is_service: bool) -> Vec<(String, f64)> {
    let operations = measurement.operations.max(1) as f64;
    let mut all: Vec<(String, f64)> = Vec::new();
    let mut add = |name: &str, value: f64| all.push((name.to_owned(), value));
    match view {
        View::Timed => {
            let nanos = measurement.nanos as f64;
            add("time", if kind == Kind::Workloads { nanos / operations } else { nanos });
            add("peak_rss", measurement.peak_rss_bytes as f64);
            add("faults", measurement.minor_faults as f64);
            add("major_faults", measurement.major_faults as f64);
            if (is_service || !measurement.latencies.is_empty()) && measurement.nanos > 0 {
                add("rate", measurement.operations as f64 * 1e9 / nanos);
            }
            for (kind, latency) in &measurement.latencies {
                add(&format!("latency.{kind}.mean"), latency.mean_ns as f64);
                for (word, parts, _) in PERCENTILES {
                    if let Some(nanos) = percentile(latency, parts) {
                        add(&format!("latency.{kind}.{word}"), nanos as f64);
                    }
                }
                add(&format!("latency.{kind}.max"), latency.max_ns as f64);
            }
            for (name, value) in &measurement.notes {
                add(&format!("note.{name}"), *value as f64);
            }
            if let Some(area) = resident::area(&measurement.resident) {
                add("note.beyond_live_mib_s", area);
            }
            if let Some(Return::After(ms)) = resident::returned_after_ms(&measurement.resident) {
                add("note.back_within_10_percent_ns", ms as f64 * 1e6);
            }
        }
        View::Calls => {
            add("os_calls", measurement.os_calls.values().map(|count| *count as f64).sum::<f64>());
            for (name, count) in &measurement.os_calls {
                add(&format!("os_calls.{name}"), *count as f64);
            }
        }
        View::Instructions => {
            if let Some(instructions) = measurement.instructions {
                add("instructions", instructions as f64 / operations);
            }
        }
    }
    all
}
