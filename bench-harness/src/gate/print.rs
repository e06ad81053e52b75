//! What the gate says: the same for a terminal and for a pull request, what got worse first.

use std::fmt::Write;

use comfy_table::{CellAlignment, Table, presets};

use super::causes::{Causes, Moved};
use super::findings::{Finding, Findings, Limits, Standing, What};
use super::sources::{Pair, Side};
use crate::machine::is_busy;
use crate::report::{Format, PLAIN, Units, value};
use crate::statistics::Estimate;

/// The first line of a comment, by which a later run finds the one that it replaces.
const MARK: &str = "<!-- freestone-bench gate -->";

/// A comment for a pull request.
pub(super) fn comment(pair: &Pair, findings: &Findings, limits: &Limits) -> String {
    format!("{MARK}\n{}", verdict(pair, findings, limits, Format::Markdown))
}

/// Everything there is to say.
pub(super) fn verdict(pair: &Pair, findings: &Findings, limits: &Limits, format: Format) -> String {
    let mut page = Page { text: String::new(), format };
    page.line(&headline(findings, format));
    for remark in &findings.remarks {
        page.line(&page.plain(remark));
    }
    for gone in &findings.gone {
        page.item(&format!("{} on {} {}", page.plain(&gone.row), page.plain(&gone.subject), page.plain(&gone.reason)));
    }
    page.table(findings, Standing::TooMuch, "Worse by more than it may be", Fold::Open);
    for causes in &findings.causes {
        page.causes(causes);
    }
    page.table(findings, Standing::Excused, "Not to be concluded from", Fold::Open);
    page.table(
        findings,
        Standing::Perhaps,
        "Perhaps worse: beyond the limit, but the interval contains 1, or there are too few runs",
        Fold::Folded,
    );
    page.table(findings, Standing::Worse, "Worse, within the limits", Fold::Folded);
    page.table(findings, Standing::Better, "Better", Fold::Folded);
    page.provenance(pair, findings, limits);
    page.text
}

/// One sentence that says it all.
fn headline(findings: &Findings, format: Format) -> String {
    let rows = |count: usize| format!("{count} figure{}", if count == 1 { "" } else { "s" });
    let (worse, gone) = (findings.standing(Standing::TooMuch).count(), findings.gone.len());
    let mut reasons = Vec::new();
    if worse > 0 {
        let worst = findings.standing(Standing::TooMuch).next();
        let worst =
            worst.map_or_else(String::new, |its| format!(" (at the worst {} on {}: {})", its.what.name(), its.row, change(its)));
        reasons.push(format!("{} of {} got worse by more than they may{worst}", worse, rows(findings.figures.len())));
    }
    if gone > 0 {
        reasons.push(format!("{gone} of the rows that were there before {} not", if gone == 1 { "is" } else { "are" }));
    }
    let (word, reasons) = if findings.fail() {
        ("failed", reasons.join(", and "))
    } else {
        let even = findings.standing(Standing::Perhaps).count();
        let perhaps = if even > 0 { format!("; {even} may have, or that is chance") } else { String::new() };
        ("passed", format!("none of {} got worse by more than it may{perhaps}", rows(findings.figures.len())))
    };
    match format {
        Format::Text => format!("Gate {word}: {}.", plain(&reasons, format)),
        Format::Markdown => format!("### Gate **{word}**: {}.", plain(&reasons, format)),
    }
}

/// Is a table in sight, or does one have to ask for it?
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fold {
    Open,
    Folded,
}

struct Page {
    text: String,
    format: Format,
}

impl Page {
    fn plain(&self, text: &str) -> String {
        plain(text, self.format)
    }

    fn line(&mut self, line: &str) {
        let _ = match self.format {
            Format::Text => writeln!(self.text, "{line}"),
            Format::Markdown => writeln!(self.text, "{line}\n"),
        };
    }

    fn item(&mut self, line: &str) {
        let _ = match self.format {
            Format::Text => writeln!(self.text, "  {line}"),
            Format::Markdown => writeln!(self.text, "- {line}"),
        };
    }

    fn table(&mut self, findings: &Findings, standing: Standing, title: &str, fold: Fold) {
        let figures: Vec<&Finding> = findings.standing(standing).collect();
        if figures.is_empty() {
            return;
        }
        let mut table = Table::new();
        table.set_header(["row", "subject", "figure", "before", "after", "change", "95 % interval"]);
        // What got better most is first among what got better.
        let best_first = standing == Standing::Better;
        let ordered: Vec<&&Finding> = if best_first { figures.iter().rev().collect() } else { figures.iter().collect() };
        for its in ordered {
            table.add_row([
                self.plain(&its.row),
                self.plain(&its.subject),
                self.plain(&its.what.name()),
                figure(its.before, &its.what),
                figure(its.after, &its.what),
                change(its),
                interval(its),
            ]);
        }
        for column in table.column_iter_mut().skip(3) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let title = format!("{title} ({})", figures.len());
        table.load_style(if self.format == Format::Markdown { presets::ASCII_MARKDOWN } else { PLAIN });
        let table = table.trim_fmt();
        let _ = match (self.format, fold) {
            (Format::Text, _) => writeln!(self.text, "\n{title}\n\n{table}"),
            (Format::Markdown, Fold::Open) => writeln!(self.text, "\n#### {title}\n\n{table}\n"),
            (Format::Markdown, Fold::Folded) => {
                writeln!(self.text, "\n<details><summary>{title}</summary>\n\n{table}\n\n</details>\n")
            }
        };
    }

    fn causes(&mut self, causes: &Causes) {
        let place = format!("{} on {}", self.plain(&causes.row), self.plain(&causes.subject));
        let _ = match self.format {
            Format::Text => writeln!(self.text, "\nWhere it comes from, {place}"),
            Format::Markdown => writeln!(self.text, "\n**Where it comes from, {place}**\n"),
        };
        let kinds =
            [("size classes", &causes.classes), ("slow paths", &causes.slow_paths), ("calls into the system", &causes.calls)];
        for (kind, moved) in kinds {
            let said = match moved {
                Moved::NotCounted(reason) => format!("not known: {reason}"),
                Moved::Nothing => "nothing moved".to_owned(),
                Moved::These(moves, more) => {
                    let mut said: Vec<String> = moves
                        .iter()
                        .map(|its| {
                            let (before, after) = (rounded(its.before, its.units), rounded(its.after, its.units));
                            format!("{} {before} → {after}", self.plain(&its.name))
                        })
                        .collect();
                    if *more > 0 {
                        said.push(format!("and {more} more"));
                    }
                    said.join("; ")
                }
            };
            self.item(&format!("{kind}: {said}"));
        }
    }

    fn provenance(&mut self, pair: &Pair, findings: &Findings, limits: &Limits) {
        let mut lines = vec![format!("Limits: {}. A change counts when its 95 % interval excludes 1.", limits.in_words())];
        let few = |its: &&Finding| its.what != What::Instructions && !its.ratio.is_sure();
        if findings.figures.iter().any(|its| few(&its)) {
            lines.push(format!(
                "Fewer than {} runs on a side say nothing at 95 %, so nothing fails for them.",
                Estimate::RUNS_MIN
            ));
        }
        lines.push(format!("Before: {}", side(&pair.base)));
        lines.push(format!("After: {}", side(&pair.new)));
        if pair.is_one_session() {
            lines.push("Both ran in one session, by turns; ratios are taken round by round.".to_owned());
        }
        if let Some(path) = &pair.kept_at {
            lines.push(format!("Records: {}", path.display()));
        }
        for kept in [&pair.base.kept, &pair.new.kept] {
            let cores = kept.session.machine.cores;
            let others = kept.end.as_ref().and_then(|end| end.cores_of_others).filter(|&busy| is_busy(busy, cores));
            if let Some(busy) = others {
                lines.push(format!(
                    "Other programs kept {busy:.1} of {cores} cores busy in the session of {}.",
                    kept.session.date
                ));
            }
            if pair.is_one_session() {
                break;
            }
        }
        let _ = match self.format {
            Format::Text => writeln!(self.text),
            Format::Markdown => writeln!(self.text, "\n---\n"),
        };
        for line in lines {
            let line = self.plain(&line);
            let _ = match self.format {
                Format::Text => writeln!(self.text, "{line}"),
                Format::Markdown => writeln!(self.text, "- {line}"),
            };
        }
    }
}

/// Where a side's figures come from, in one line.
fn side(side: &Side) -> String {
    let session = &side.kept.session;
    let machine = &session.machine;
    let versions = session.subjects.iter().map(|its| format!("{} {}", its.subject, its.version)).collect::<Vec<_>>().join(", ");
    let commit = session.commit.as_ref().map_or_else(String::new, |commit| format!(", sources {commit}"));
    let library = machine.c_library.as_ref().map_or_else(String::new, |library| format!(", {library}"));
    format!(
        "{}: {versions}; {}{commit}, --seed {}, {} run{} a row, {} % of the operations; {}, {} cores, {}, huge pages: {}, rustc {}{library}",
        side.name,
        session.date,
        session.seed,
        session.repetitions,
        if session.repetitions == 1 { "" } else { "s" },
        session.percent,
        machine.cpu,
        machine.cores,
        machine.kernel,
        machine.huge_pages,
        machine.rustc,
    )
}

/// Such as `12.3 ns`.
fn figure(figure: f64, what: &What) -> String {
    if *what == What::Instructions { format!("{figure:.2}") } else { rounded(figure, what.units()) }
}

fn rounded(figure: f64, units: Units) -> String {
    let unit = units.iter().find(|(from, _)| figure >= *from).or(units.last()).copied().unwrap_or((1.0, ""));
    value(figure, unit)
}

/// Such as `+5.3 %`. Of time also what that means for the throughput.
fn change(finding: &Finding) -> String {
    let percent = |ratio: f64| (ratio - 1.0) * 100.0;
    let ratio = finding.ratio.median;
    match finding.what {
        What::Time => format!("{:+.1} % ({:+.1} % throughput)", percent(ratio), percent(1.0 / ratio)),
        What::Instructions => format!("{:+.2} %", percent(ratio)),
        What::P99(_) | What::Peak => format!("{:+.1} %", percent(ratio)),
    }
}

fn interval(finding: &Finding) -> String {
    if finding.what == What::Instructions {
        "exact".to_owned()
    } else if finding.ratio.is_sure() {
        format!("{:.3}–{:.3}", finding.ratio.low, finding.ratio.high)
    } else {
        "too few runs".to_owned()
    }
}

/// Text out of a file or from the command line, which must not be anything but text: neither lines of a terminal's control characters, nor a
/// table's cells, nor HTML, nor somebody who is called.
fn plain(text: &str, format: Format) -> String {
    let mut plain = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\n' | '\t' => plain.push(' '),
            // Controls, and what turns the direction of text round.
            _ if letter.is_control()
                || matches!(letter, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') =>
            {
                plain.push('·');
            }
            '<' if format == Format::Markdown => plain.push_str("&lt;"),
            '&' if format == Format::Markdown => plain.push_str("&amp;"),
            '@' if format == Format::Markdown => plain.push_str("&#64;"),
            '|' | '\\' | '`' | '*' | '_' | '[' | ']' | '#' | '~' if format == Format::Markdown => {
                plain.push('\\');
                plain.push(letter);
            }
            _ => plain.push(letter),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::plain;
    use crate::report::Format;

    #[test]
    fn text_of_others_stays_text() {
        let hostile = "a|b\n<img src=x>@all `c` \u{1b}[31m\u{202e}";
        assert_eq!(plain(hostile, Format::Text), "a|b <img src=x>@all `c` ·[31m·");
        assert_eq!(plain(hostile, Format::Markdown), "a\\|b &lt;img src=x>&#64;all \\`c\\` ·\\[31m·");
    }
}
