//! A session as a page: one file without anything outside it, for people who did not see it run.
//!
//! It says the score in one sentence, then every row by name, whoever wins it; then what went wrong, where the figures come from, and how to
//! read them; then drawings, then tables. All of it can be read without a script and without a network, by eye or by ear, light or dark, on
//! a telephone or on a wall. What comes from a record is escaped wherever it goes: a record may come from anybody.

mod plots;
mod tables;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::figures::{Better, Figure, Lead, Line, Matrix, Score, Verdict, capitalised};
use super::{COUNTS, Report, plural, unit, value};
use crate::record::Floors;
use crate::statistics::Estimate;
use crate::subjects::is_again;

/// Nothing is fetched; the styles and the script are those that stand in the page.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'";

/// The whole page.
pub(super) fn text(matrix: &Matrix<'_>) -> String {
    let time = matrix.figure("time").map(|figure| matrix.score(figure));
    let memory = matrix.figure("peak_rss").map(|figure| matrix.score(figure));
    let session = &matrix.kept.session;
    let names = Names { base: matrix.base };
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="generator" content=(concat!("freestone-bench ", env!("CARGO_PKG_VERSION")));
                title { "Allocators compared, " (session.date) }
                style { (PreEscaped(include_str!("style.css"))) }
            }
            body {
                header {
                    div.bar {
                        p { "Allocators compared · " time datetime=(session.date) { (session.date.replace('T', " ").replace('Z', " UTC")) } }
                        (theme())
                    }
                    h1 { (headline(matrix, time.as_ref(), memory.as_ref())) }
                    p.where { (in_short(matrix)) }
                }
                main {
                    div.scores {
                        @for name in ["time", "peak_rss"] {
                            @if let Some(figure) = matrix.figure(name) { (score(matrix, figure)) }
                        }
                    }
                    (went_wrong(matrix))
                    (provenance(matrix))
                    (how_to_read(matrix))
                    (drawings(matrix, &names))
                    (all_tables(matrix))
                }
                footer { p { "Made from a record of one session by " code { "freestone-bench report --format html" } ". The session as it was kept, machine-readable, is in the source of this page." } }
                // "<" is the one character that could end the element.
                script type="application/json" #session { (PreEscaped(record(matrix))) }
                script { (PreEscaped(include_str!("behaviour.js"))) }
            }
        }
    };
    page.into_string()
}

/// The session's record, so that a page can be traced to its runs when it has lost its file.
fn record(matrix: &Matrix<'_>) -> String {
    serde_json::to_string(&matrix.kept.session).unwrap_or_default().replace('<', "\\u003c")
}

/// Who looks how: the base is always the first look, whatever its place.
struct Names {
    base: usize,
}

impl Names {
    fn look(&self, subject: usize) -> usize {
        let place = match subject.cmp(&self.base) {
            std::cmp::Ordering::Equal => 0,
            std::cmp::Ordering::Less => subject + 1,
            std::cmp::Ordering::Greater => subject,
        };
        if place == 0 { 0 } else { (place - 1) % (plots::LOOKS - 1) + 1 }
    }
}

/// All columns: whoever took part, but for the one that ran twice.
fn shown<'m>(matrix: &'m Matrix<'_>) -> impl Iterator<Item = usize> + use<'m> {
    let names = matrix.subjects.iter().enumerate();
    let is_shown: Vec<usize> = names.filter(|(_, name)| !is_again(name)).map(|(index, _)| index).collect();
    is_shown.into_iter()
}

/// How being better and being worse is called.
fn words(figure: &Figure) -> (&'static str, &'static str) {
    match &*figure.name {
        "time" => ("faster", "slower"),
        "peak_rss" => ("smaller", "larger"),
        name if name.starts_with("latency.") => ("quicker", "slower"),
        _ if figure.better == Better::More => ("ahead", "behind"),
        _ => ("lower", "higher"),
    }
}

/// Such as `slower than jemalloc`.
fn verdict(figure: &Figure, lead: &Lead, other: &str) -> String {
    let (better, worse) = words(figure);
    let preposition = if better == "ahead" { "of" } else { "than" };
    match lead.verdict {
        Verdict::Better => format!("{better} {preposition} {other}"),
        Verdict::Worse if worse == "behind" => format!("behind {other}"),
        Verdict::Worse => format!("{worse} than {other}"),
        Verdict::Even => format!("~ {other}"),
        Verdict::Noisy => format!("? noisy, {other}"),
        Verdict::Unknown => format!("? {other}"),
    }
}

fn verdict_class(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Better => "better",
        Verdict::Worse => "worse",
        Verdict::Even | Verdict::Noisy | Verdict::Unknown => "even",
    }
}

/// One unit for all of a row.
fn unit_of(row: &Line<'_>, figure: &Figure) -> (f64, &'static str) {
    let estimates: Vec<Option<Estimate>> = row.tallies.iter().map(|tally| tally.estimate(&figure.name)).collect();
    unit(&estimates, figure.units)
}

/// A number in a table. A few instructions have tenths; what is counted otherwise is whole.
fn number(figure: &Figure, median: f64, unit: (f64, &'static str)) -> String {
    if figure.units == COUNTS && median.fract() != 0.0 && median < 999.5 { format!("{median:.1}") } else { value(median, unit) }
}

fn theme() -> Markup {
    html! {
        fieldset.theme {
            legend.hidden { "Colours" }
            @for (name, word) in [("auto", "auto"), ("light", "light"), ("dark", "dark")] {
                label { input.hidden type="radio" name="theme" id={ "theme-" (name) } checked[name == "auto"]; (word) }
            }
        }
    }
}

/// The honest score, in a sentence.
fn headline(matrix: &Matrix<'_>, time: Option<&Score<'_>>, memory: Option<&Score<'_>>) -> Markup {
    let base = capitalised(matrix.base_name());
    let (Some(time), Some(memory)) = (time.filter(|its| its.rows() > 0), memory) else {
        let subjects = shown(matrix).count();
        return html! { (subjects) " allocator" (plural(subjects)) " on " (matrix.rows.len()) " row" (plural(matrix.rows.len())) ", with nothing to compare" };
    };
    if time.unknown.len() == time.rows() {
        return html! {
            (base) " against the best of the others in " (time.rows()) " row" (plural(time.rows())) ": too few runs for a verdict"
        };
    }
    let others = matrix.others().count();
    let rival = if others == 1 {
        matrix.others().map(|other| matrix.subjects[other]).next().unwrap_or("the other")
    } else {
        "the best other allocator"
    };
    html! {
        (base) " is " b.better { "faster" } " than " (rival) " in " (time.better.len()) " of " (time.rows()) " row" (plural(time.rows()))
        " and " b.worse { "slower" } " in " (time.worse.len())
        @if !time.even.is_empty() { ", with no difference in " (time.even.len()) }
        @if !time.noisy.is_empty() { ", and too much noise to say in " (time.noisy.len()) }
        "; its peak memory is " b.better { "smaller" } " in " (memory.better.len()) " and " b.worse { "larger" } " in " (memory.worse.len())
        @if !memory.even.is_empty() { ", alike in " (memory.even.len()) }
        @if !memory.noisy.is_empty() { ", too noisy to say in " (memory.noisy.len()) }
        "."
    }
}

/// What was compared where.
fn in_short(matrix: &Matrix<'_>) -> String {
    let session = &matrix.kept.session;
    let versions: Vec<String> = session
        .subjects
        .iter()
        .filter(|its| !is_again(&its.subject))
        .map(|its| format!("{} {}", its.subject, its.version))
        .collect();
    format!(
        "{}. {} run{} each, every one a process of its own, in random order, on {}, {} core{}{}.",
        versions.join(", "),
        session.repetitions,
        plural(session.repetitions as usize),
        session.machine.cpu,
        session.machine.cores,
        plural(session.machine.cores),
        if session.machine.is_virtual { " (virtual)" } else { "" },
    )
}

/// How a figure went: a bar, and all rows by name.
fn score(matrix: &Matrix<'_>, figure: &Figure) -> Markup {
    let score = matrix.score(figure);
    let (better, worse) = words(figure);
    if score.rows() == 0 {
        return html! {};
    }
    let parts = [
        ("worse", worse, &score.worse),
        ("better", better, &score.better),
        ("even", "no difference", &score.even),
        ("even", "too noisy to say", &score.noisy),
        ("even", "too few runs to say", &score.unknown),
    ];
    html! {
        section.score {
            h2 { (figure.title) }
            div.share aria-hidden="true" {
                @for (class, _, rows) in &parts { @if !rows.is_empty() { i class=(class) style={ "flex:" (rows.len()) } {} } }
            }
            dl {
                @for (class, word, rows) in &parts {
                    @if !rows.is_empty() {
                        dt class={ (class) "-word" } { (capitalised(word)) " in " (rows.len()) }
                        dd {
                            @for (row, judged) in *rows {
                                span class={ "chip " (class) } data-tip={ (verdict(figure, &judged.lead, judged.best)) "\n" (plots::tip(&judged.lead)) } {
                                    (row.title) " " b { (format!("{:.2}×", judged.lead.ratio.median)) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Failures, who is missing, and what was not reached, said before anything is shown.
fn went_wrong(matrix: &Matrix<'_>) -> Markup {
    let report = Report::of(matrix.kept);
    let (problems, missed) = (report.problems(), report.missed());
    let session = &matrix.kept.session;
    let mut doubts: Vec<String> = report.warnings().iter().map(|warning| format!("{}.", capitalised(warning))).collect();
    if session.percent < 100 {
        doubts.push(format!("Only {} % of the operations were run: not comparable with other sessions.", session.percent));
    }
    if let Some(threads) = session.threads {
        doubts.push(format!(
            "{threads} thread{} in rows that have several: not comparable with other sessions.",
            plural(threads as usize)
        ));
    }
    let left_out: Vec<String> = session.left_out.iter().map(|its| format!("{}: {}", its.subject, its.reason)).collect();
    let lists = [
        ("What failed", problems),
        ("Floors that were missed", missed),
        ("Left out", left_out),
        ("To be read with care", doubts),
    ];
    if lists.iter().all(|(_, list)| list.is_empty()) {
        return html! { p.fine { "No run failed, nobody was left out, and no floor was missed." } };
    }
    html! {
        @for (title, list) in &lists {
            @if !list.is_empty() {
                section.alarm {
                    h2 { (title) }
                    ul { @for its in list { li { (its) } } }
                }
            }
        }
    }
}

/// Everything that is known about where the figures come from.
fn provenance(matrix: &Matrix<'_>) -> Markup {
    let session = &matrix.kept.session;
    let machine = &session.machine;
    let unless_empty = |words: &[String]| if words.is_empty() { "none".to_owned() } else { words.join(" ") };
    let mut facts: Vec<(&str, String)> = session
        .subjects
        .iter()
        .map(|its| {
            (
                "subject",
                format!(
                    "{} {}{}",
                    its.subject,
                    its.version,
                    its.option.as_ref().map_or_else(String::new, |option| format!(" with {option}"))
                ),
            )
        })
        .collect();
    facts.extend([
        ("processor", format!("{}, {} core{}", machine.cpu, machine.cores, plural(machine.cores))),
        ("virtual", if machine.is_virtual { "yes: a hypervisor stands between" } else { "no" }.to_owned()),
        ("memory", value(machine.memory_bytes as f64, (f64::from(1_u32 << 30), "GiB"))),
        ("kernel", machine.kernel.clone()),
        ("huge pages", machine.huge_pages.clone()),
        ("clock rate", machine.governor.clone().unwrap_or_else(|| "not said".to_owned())),
        ("load before", machine.load_average.clone()),
        ("compiler", format!("rustc {}", machine.rustc)),
        ("built with", unless_empty(&session.flags)),
        ("sources", session.commit.clone().unwrap_or_else(|| "commit not known".to_owned())),
        ("session", session.date.clone()),
        ("scenario", session.scenario.clone().unwrap_or_else(|| "none".to_owned())),
        ("typed", unless_empty(&session.arguments)),
        ("order", format!("random, --seed {}", session.seed)),
        ("runs", format!("{} of each subject on each of {} rows", session.repetitions, session.workloads.len())),
        ("operations", format!("{} %", session.percent)),
        ("environment", unless_empty(&session.environment)),
    ]);
    facts.extend(session.floors.iter().map(|(row, floors)| ("floors", format!("{row}: {}", floor_words(floors)))));
    if let Some(end) = &matrix.kept.end {
        facts.push(("took", format!("{} s", end.seconds)));
        facts.push((
            "others used",
            end.cores_of_others.map_or_else(|| "not known".to_owned(), |cores| format!("{cores:.2} cores on average")),
        ));
        let share = |share: Option<f64>| share.map_or_else(|| "not known".to_owned(), |share| format!("{:.1} %", share * 100.0));
        facts.push(("the host took", share(end.stolen)));
        facts.push(("the harness took", format!("{} of a core", share(end.own_cpu_share))));
    }
    html! {
        details.box {
            summary { "Where the figures come from" }
            dl.facts { @for (name, fact) in &facts { dt { (name) } dd { (fact) } } }
        }
    }
}

fn floor_words(floors: &Floors) -> String {
    let words = [
        floors.min_qps.map(|its| format!("at least {its} operations a second")),
        floors.max_p99_us.map(|its| format!("99 % within {its} µs")),
        floors.max_error_rate.map(|its| format!("at most {its} of all operations fail")),
        floors.max_peak_rss.map(|its| format!("a peak of at most {its} bytes")),
    ];
    words.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn how_to_read(matrix: &Matrix<'_>) -> Markup {
    let base = matrix.base_name();
    let has_noise = matrix.subjects.iter().any(|subject| is_again(subject));
    html! {
        details.box {
            summary { "How to read it" }
            ul {
                li { "Each figure is the median of " (matrix.kept.session.repetitions) " runs. ± is how far its 95 % interval reaches." }
                li { "A ratio compares round by round, because in each round everybody ran once, in random order, on the same machine in the same minutes. Above 1, " (base) " is better, whatever the figure." }
                li { "“The best other” is chosen anew in each row, which is harder than any one of them. The columns show each." }
                li { "~ means that no difference was found: the interval contains 1, or the test of Mann and Whitney (of Wilcoxon, in rows that ran side by side) says that chance could have done it, or the difference is below half a percent. Noisy is a difference by which the same binary differs from itself as well. ? means fewer than " (Estimate::RUNS_MIN) " runs, of which nothing can be said." }
                @if has_noise { li { span.key {} " The band behind a ratio is what the same binary showed against itself: differences within it are noise." } }
                li { "Marks differ in shape as well as in colour. Point at one to read it off; click on a heading to sort; take a subject out of a drawing by its name." }
                li { "Patterns are not programs: a program that spends a tenth of its time in the allocator gains a tenth of the lead." }
            }
        }
    }
}

fn drawings(matrix: &Matrix<'_>, names: &Names) -> Markup {
    let compares = matrix.others().next().is_some();
    let latencies = plots::latencies(matrix, names);
    let resident = plots::resident(matrix, names);
    html! {
        @if compares {
            h2 { "Time" }
            p { "How many times as long the others take. Every row is there, also those that " (matrix.base_name()) " loses; sort by the ratio to have them together." }
            @if let Some(figure) = matrix.figure("time") { (plots::forest(matrix, figure, "forest-time")) }
            h2 { "Memory" }
            p { "How many times as much is resident at the peak, the binary and its libraries included." }
            @if let Some(figure) = matrix.figure("peak_rss") { (plots::forest(matrix, figure, "forest-memory")) }
            h2 { "Memory against speed" }
            p { "An allocator can buy one with the other. Who is below and left of the cross is ahead in both." }
            (plots::scatter(matrix, names))
        }
        @if !latencies.is_empty() {
            h2 { "Latency" }
            p { "The median hides what a user notices. To the right it gets rarer: one operation in ten, in a hundred, in a thousand." }
            div.plots { @for drawing in &latencies { (drawing) } }
        }
        @if !resident.is_empty() {
            h2 { "Memory over time" }
            p { "What stays resident when the program no longer needs it." }
            div.plots { @for drawing in &resident { (drawing) } }
        }
    }
}

fn all_tables(matrix: &Matrix<'_>) -> Markup {
    let services = tables::services(matrix);
    let notes: Vec<Markup> = matrix.rows.iter().filter_map(|row| tables::notes(matrix, row, "note.", "also noted")).collect();
    let calls: Vec<Markup> =
        matrix.rows.iter().filter_map(|row| tables::notes(matrix, row, "os_calls.", "calls into the system")).collect();
    html! {
        @if !services.is_empty() {
            h2 { "Services" }
            p { "Requests over loopback, by how many are under way at once." }
            @for table in &services { (table) }
        }
        h2 { "All figures" }
        p { "Less is better, but for what is counted per second. In each cell: the median, how far its interval reaches, and how many times as well " (matrix.base_name()) " does." }
        @for figure in tables::main_figures(matrix) { div style="margin-bottom:1rem" { (tables::figure(matrix, figure)) } }
        @if !notes.is_empty() {
            h2 { "What the workloads noted" }
            @for table in &notes { (table) }
        }
        @if !calls.is_empty() {
            details.box { summary { "Calls into the system, by name" } @for table in &calls { (table) } }
        }
    }
}
