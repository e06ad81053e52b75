//! What README and docs quote of a session: tables in Markdown, narrower than those of a report, and the line that says where they come from.

use std::fmt::Write;

use super::figures::{Figure, Lead, Line, Matrix, Verdict, capitalised};
use super::services::{cell, columns};
use super::{MIB, plural, unit, value};
use crate::arguments::found;
use crate::record::{Kept, Kind, Measurement};
use crate::statistics::{Estimate, geometric_mean};
use crate::subjects::is_again;

/// The tables that there are.
pub(crate) const KINDS: [(&str, &str); 6] = [
    ("comparison", "time and memory of a row, Freestone's and the best other's"),
    ("burst", "what is resident so long after a burst (second=12), without what was before"),
    ("patterns", "each subject's processor time, or figure=NAME, divided by that of the best"),
    ("services", "requests per second, times and memory by streams and subject"),
    ("figure", "the medians of figure=NAME for each subject"),
    ("score", "in how many rows Freestone is better, worse, and neither"),
];

/// What is wanted of a session.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Wanted {
    /// One of [`KINDS`].
    pub(crate) what: String,
    /// Names of rows, with `*` for anything; all, if there is none.
    pub(crate) rows: Vec<String>,
    /// The figure, for kinds that have a choice.
    pub(crate) figure: Option<String>,
    /// The second, of a burst.
    pub(crate) second: Option<u64>,
}

/// The table, or why there is none: the end of a sentence.
pub(crate) fn excerpt(kept: &Kept, wanted: &Wanted) -> Result<String, String> {
    let matrix = Matrix::of(kept);
    let titles: Vec<&str> = matrix.rows.iter().map(|row| row.title).collect();
    let mut chosen = Vec::new();
    for pattern in &wanted.rows {
        let names = found(pattern, &titles);
        if names.is_empty() {
            return Err(format!("the record has no row '{pattern}'"));
        }
        chosen.extend(names);
    }
    let rows: Vec<&Line<'_>> = matrix.rows.iter().filter(|row| chosen.is_empty() || chosen.contains(&row.title)).collect();
    let figure = |otherwise: &str| {
        let name = wanted.figure.as_deref().unwrap_or(otherwise);
        let known = || matrix.figures.iter().map(|its| &*its.name).collect::<Vec<_>>().join(", ");
        matrix.figure(name).ok_or_else(|| format!("the record has no figure '{name}'; it has {}", known()))
    };
    match &*wanted.what {
        "comparison" => comparison(&matrix, &rows),
        "burst" => burst(&matrix, &rows, wanted.second.unwrap_or(12)),
        "patterns" => {
            let usual = if kept.session.kind == Kind::Workloads { "time" } else { "note.cpu_ns" };
            Ok(patterns(&matrix, &rows, figure(usual)?))
        }
        "services" => services(&matrix, &rows),
        "figure" => Ok(medians(&matrix, &rows, figure("time")?)),
        "score" => score(&matrix),
        other => {
            let known = KINDS.map(|(name, _)| name).join(", ");
            Err(format!("there is no table '{other}'; there are {known}"))
        }
    }
}

/// Where it comes from, with a link to every run.
pub(crate) fn source(kept: &Kept, link: &str) -> String {
    let session = &kept.session;
    let machine = &session.machine;
    let date = session.date.split('T').next().unwrap_or(&session.date);
    let versions = session.subjects.iter().filter(|its| !is_again(&its.subject));
    let versions: Vec<String> = versions.map(|its| format!("{} {}", its.subject, its.version)).collect();
    let mut text = format!(
        "[Every run]({link}): {date}, {}, {} core{}{}, {}; {} run{} of each",
        machine.cpu,
        machine.cores,
        plural(machine.cores),
        if machine.is_virtual { " (virtual)" } else { "" },
        machine.kernel,
        session.repetitions,
        plural(session.repetitions as usize),
    );
    if let Some(commit) = &session.commit {
        let _ = write!(text, "; sources {commit}");
    }
    if session.percent < 100 {
        let _ = write!(text, "; {} % of the operations", session.percent);
    }
    let _ = write!(text, "; {}.", versions.join(", "));
    text
}

/// Lines of Markdown: cells between bars, of which the first `left` columns are words.
struct Lines {
    text: String,
}

impl Lines {
    fn new(header: &[String], left: usize) -> Self {
        let mut lines = Self { text: String::new() };
        lines.add(header);
        let _ = writeln!(
            lines.text,
            "|{}",
            (0..header.len()).map(|column| if column < left { "---|" } else { "--:|" }).collect::<String>()
        );
        lines
    }

    /// A bar within a cell would end it.
    fn add(&mut self, cells: &[String]) {
        let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|").replace('\n', " ")).collect();
        let _ = writeln!(self.text, "| {} |", cells.join(" | "));
    }
}

fn comparison(matrix: &Matrix<'_>, rows: &[&Line<'_>]) -> Result<String, String> {
    let (Some(time), Some(memory)) = (matrix.figure("time"), matrix.figure("peak_rss")) else {
        return Err("the record has no runs".to_owned());
    };
    let base = capitalised(matrix.base_name());
    let header = ["workload", &base, "best other", "ratio (95 %)", "", "memory", "least other"].map(str::to_owned);
    let mut lines = Lines::new(&header, 1);
    for row in rows {
        let mut cells = vec![row.title.to_owned()];
        cells.extend(against_best(matrix, row, time));
        let judged = matrix.judge(row, time);
        cells.extend(judged.map_or_else(
            || ["–".to_owned(), String::new()],
            |judged| [ratio(&judged.lead), verdict(judged.lead.verdict, "faster", "slower").to_owned()],
        ));
        cells.extend(against_best(matrix, row, memory));
        lines.add(&cells);
    }
    Ok(lines.text)
}

/// The base's figure, and the best other's with its name.
fn against_best(matrix: &Matrix<'_>, row: &Line<'_>, figure: &Figure) -> [String; 2] {
    let median = |subject: usize| row.tallies[subject].estimate(&figure.name).map(|its| its.median);
    let word = |median: f64| value(median, unit(&[Estimate::of([median])], figure.units));
    let none = || "–".to_owned();
    let best = matrix.judge(row, figure).and_then(|judged| {
        let subject = matrix.subjects.iter().position(|its| *its == judged.best)?;
        Some(format!("{} {}", word(median(subject)?), judged.best))
    });
    [median(matrix.base).map_or_else(none, word), best.unwrap_or_else(none)]
}

/// Such as `1.02 (0.99–1.03)`.
fn ratio(lead: &Lead) -> String {
    let its = &lead.ratio;
    if its.is_sure() { format!("{:.2} ({:.2}–{:.2})", its.median, its.low, its.high) } else { format!("{:.2}", its.median) }
}

fn verdict(verdict: Verdict, better: &'static str, worse: &'static str) -> &'static str {
    match verdict {
        Verdict::Better => better,
        Verdict::Worse => worse,
        Verdict::Even => "~",
        Verdict::Noisy => "? noisy",
        Verdict::Unknown => "?",
    }
}

/// What bursts are called where there is room for words.
const BURSTS: [(&str, &str); 9] = [
    ("burst-idle-64m-small", "64 MiB of 8 B–1 KiB"),
    ("burst-idle-64m-mixed", "64 MiB of 8 B–128 KiB"),
    ("burst-idle-64m-large", "64 MiB of 256 KiB–8 MiB"),
    ("burst-idle-1g-small", "1 GiB of 8 B–1 KiB"),
    ("burst-idle-1g-mixed", "1 GiB of 8 B–128 KiB"),
    ("burst-idle-1g-large", "1 GiB of 256 KiB–8 MiB"),
    ("burst-idle-64m-scattered", "64 MiB, every 64th survives"),
    ("burst-idle-1g-scattered", "1 GiB, every 64th survives"),
    ("burst-idle-1g-around", "1 GiB, 32 MiB around it survive"),
];

fn burst(matrix: &Matrix<'_>, rows: &[&Line<'_>], second: u64) -> Result<String, String> {
    let note = format!("rss_{second:02}_s");
    let others: Vec<usize> = [matrix.base].into_iter().chain(matrix.others()).collect();
    let mut header = vec!["burst, MiB".to_owned(), "needed".to_owned()];
    header.extend(others.iter().map(|&subject| capitalised_base(matrix, subject)));
    let mut lines = Lines::new(&header, 1);
    let word = |mebibytes: Option<f64>| {
        mebibytes.map_or_else(|| "–".to_owned(), |its| if its < 99.95 { format!("{its:.1}") } else { format!("{its:.0}") })
    };
    let mut found = 0;
    for row in rows {
        let kept = |subject: usize| {
            let beyond = |run: &&Measurement| Some(run.notes.get(&note)?.saturating_sub(*run.notes.get("before_bytes")?));
            median_mebibytes(row.tallies[subject].timed.iter().filter_map(beyond))
        };
        let needed = row.tallies[matrix.base].timed.iter().filter_map(|run| run.notes.get("needed_bytes").copied());
        if others.iter().all(|&subject| kept(subject).is_none()) {
            continue;
        }
        found += 1;
        let name = BURSTS.iter().find(|(name, _)| *name == row.title).map_or(row.title, |(_, words)| words);
        let mut cells = vec![name.to_owned(), word(median_mebibytes(needed))];
        cells.extend(others.iter().map(|&subject| word(kept(subject))));
        lines.add(&cells);
    }
    if found == 0 {
        return Err(format!("the record has no row that says what is resident after {second} s"));
    }
    Ok(lines.text)
}

fn median_mebibytes(bytes: impl Iterator<Item = u64>) -> Option<f64> {
    Estimate::of(bytes.map(|bytes| bytes as f64)).map(|its| its.median / MIB)
}

/// Freestone is a name, the others are called as their libraries are.
fn capitalised_base(matrix: &Matrix<'_>, subject: usize) -> String {
    let name = matrix.subjects[subject];
    if subject == matrix.base { capitalised(name) } else { name.to_owned() }
}

/// Every subject divided by the best of the row; and what the base's memory is to the least.
fn patterns(matrix: &Matrix<'_>, rows: &[&Line<'_>], figure: &Figure) -> String {
    let subjects: Vec<usize> = (0..matrix.subjects.len()).filter(|&subject| !is_again(matrix.subjects[subject])).collect();
    let mut header = vec!["pattern".to_owned(), "best".to_owned()];
    header.extend(subjects.iter().map(|&subject| capitalised_base(matrix, subject)));
    header.push(format!("{}'s memory ÷ least", capitalised(matrix.base_name())));
    let mut lines = Lines::new(&header, 1);
    let mut all: Vec<Vec<f64>> = vec![Vec::new(); subjects.len() + 1];
    for row in rows {
        let median = |subject: usize, name: &str| row.tallies[subject].estimate(name).map(|its| its.median);
        let least_of = |name: &str| {
            let medians = subjects.iter().filter_map(|&subject| Some((subject, median(subject, name)?)));
            medians.min_by(|a, b| a.1.total_cmp(&b.1))
        };
        let Some((best, least)) = least_of(&figure.name) else { continue };
        let least_word = value(least, unit(&[Estimate::of([least])], figure.units));
        let mut cells = vec![row.title.to_owned(), format!("{least_word} {}", matrix.subjects[best])];
        let mut times: Vec<Option<f64>> =
            subjects.iter().map(|&subject| median(subject, &figure.name).map(|median| median / least)).collect();
        times.push(median(matrix.base, "peak_rss").and_then(|memory| Some(memory / least_of("peak_rss")?.1)));
        for (times, all) in times.into_iter().zip(&mut all) {
            all.extend(times);
            cells.push(times.map_or_else(|| "–".to_owned(), times_word));
        }
        lines.add(&cells);
    }
    if rows.len() > 1 {
        let mut cells = vec!["geometric mean".to_owned(), String::new()];
        // Only over rows that all of them ran.
        let is_complete = all.iter().all(|values| values.len() == rows.len());
        cells.extend(all.into_iter().map(|values| {
            let mean = if is_complete { geometric_mean(values) } else { None };
            mean.map_or_else(|| "–".to_owned(), |mean| format!("{mean:.2}"))
        }));
        lines.add(&cells);
    }
    lines.text
}

/// Who is best is 1, and not 1.00.
fn times_word(times: f64) -> String {
    if (times - 1.0).abs() < f64::EPSILON { "1".to_owned() } else { format!("{times:.2}") }
}

fn services(matrix: &Matrix<'_>, rows: &[&Line<'_>]) -> Result<String, String> {
    let served: Vec<&Line<'_>> = rows.iter().copied().filter(|row| row.is_service()).collect();
    if served.is_empty() {
        return Err("the record has no service in it".to_owned());
    }
    let columns = columns(matrix, &served);
    let mut header = vec!["service".to_owned(), "allocator".to_owned()];
    header.extend(columns.iter().map(|(_, title)| (*title).to_owned()));
    let mut lines = Lines::new(&header, 2);
    for row in served {
        for (subject, name) in matrix.subjects.iter().enumerate().filter(|(_, name)| !is_again(name)) {
            let mut cells = vec![row.title.to_owned(), (*name).to_owned()];
            cells.extend(columns.iter().map(|(figure, _)| cell(row, subject, figure)));
            lines.add(&cells);
        }
    }
    Ok(lines.text)
}

fn medians(matrix: &Matrix<'_>, rows: &[&Line<'_>], figure: &Figure) -> String {
    let subjects: Vec<usize> = (0..matrix.subjects.len()).filter(|&subject| !is_again(matrix.subjects[subject])).collect();
    let mut header = vec![figure.title.clone()];
    header.extend(subjects.iter().map(|&subject| capitalised_base(matrix, subject)));
    let mut lines = Lines::new(&header, 1);
    for row in rows {
        let estimates: Vec<Option<Estimate>> =
            subjects.iter().map(|&subject| row.tallies[subject].estimate(&figure.name)).collect();
        if estimates.iter().all(Option::is_none) {
            continue;
        }
        let unit = unit(&estimates, figure.units);
        let mut cells = vec![row.title.to_owned()];
        cells.extend(estimates.iter().map(|its| its.map_or_else(|| "–".to_owned(), |its| value(its.median, unit))));
        lines.add(&cells);
    }
    lines.text
}

fn score(matrix: &Matrix<'_>) -> Result<String, String> {
    let base = capitalised(matrix.base_name());
    let mut text = format!("{base} against the best of the others in each row:\n\n");
    let before = text.len();
    for (name, better, worse) in [("time", "faster", "slower"), ("peak_rss", "smaller", "larger")] {
        let Some(figure) = matrix.figure(name) else { continue };
        let score = matrix.score(figure);
        let _ = write!(
            text,
            "- {}: {better} in {}, {worse} in {}",
            if name == "time" { "time" } else { "memory" },
            score.better.len(),
            score.worse.len()
        );
        let _ = writeln!(text, ", no difference in {}", score.even.len());
        let unsure = score.noisy.len() + score.unknown.len();
        if unsure > 0 {
            text.pop();
            let _ = writeln!(text, ", too noisy or too few runs to say in {unsure}");
        }
    }
    if text.len() == before { Err("the record has no runs".to_owned()) } else { Ok(text) }
}
