//! The tables of the page. Every cell carries its number, so that a click on a heading sorts by it.

use maud::{Markup, html};

use super::plots::tip;
use super::{number, shown, unit_of, verdict, verdict_class};
use crate::report::COUNTS;
use crate::report::figures::{Figure, Line, Matrix, Verdict};
use crate::report::services::columns;

/// A figure of all rows that have it: every subject beside the base, and who is ahead.
pub(super) fn figure(matrix: &Matrix<'_>, figure: &Figure) -> Markup {
    let rows: Vec<&Line<'_>> = matrix.rows.iter().filter(|row| has(row, figure)).collect();
    let judges = rows.iter().any(|row| matrix.judge(row, figure).is_some());
    let base = matrix.base_name();
    html! {
        div.scroll {
            table.sorts {
                caption { b { (figure.title) } @if judges { " – each with how many times as well " (base) " does" } }
                thead {
                    tr {
                        th scope="col" { "row" }
                        @for subject in shown(matrix) { th scope="col" class=[(subject == matrix.base).then_some("base")] { (matrix.subjects[subject]) } }
                        @if judges {
                            th scope="col" { "best other" }
                            th scope="col" style="text-align:left" { (base) " is" }
                        }
                    }
                }
                tbody {
                    @for row in &rows {
                        @let unit = unit_of(row, figure);
                        tr {
                            th scope="row" { (row.title) }
                            @for subject in shown(matrix) { (cell(matrix, row, figure, subject, unit)) }
                            @if judges {
                                @match matrix.judge(row, figure) {
                                    Some(judged) => {
                                        td data-v=(judged.lead.ratio.median) data-tip=(tip(&judged.lead)) {
                                            (format!("{:.2}", judged.lead.ratio.median))
                                            @if judged.lead.ratio.is_sure() {
                                                " " span.interval { (format!("({:.2}–{:.2})", judged.lead.ratio.low, judged.lead.ratio.high)) }
                                            }
                                        }
                                        td class={ "verdict " (verdict_class(judged.lead.verdict)) } { (verdict(figure, &judged.lead, judged.best)) }
                                    }
                                    None => { td { "–" } td."verdict"."even" { "not comparable" } }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

pub(super) fn has(row: &Line<'_>, figure: &Figure) -> bool {
    row.tallies.iter().any(|tally| tally.estimate(&figure.name).is_some())
}

/// A median with its interval, and how many times as well the base does; or that it failed.
fn cell(matrix: &Matrix<'_>, row: &Line<'_>, figure: &Figure, subject: usize, unit: (f64, &'static str)) -> Markup {
    let tally = &row.tallies[subject];
    let Some(estimate) = tally.estimate(&figure.name) else {
        return html! { td { @if tally.failures.is_empty() { "–" } @else { span.failed { "failed" } } } };
    };
    let lead = tally.lead(&figure.name).filter(|_| subject != matrix.base);
    html! {
        td class=[(subject == matrix.base).then_some("base")] data-v=(estimate.median) data-tip=[lead.as_ref().map(tip)] {
            (number(figure, estimate.median, unit))
            @if estimate.is_sure() && estimate.median > 0.0 { " " span.pm { (format!("±{:.0}%", (estimate.spread() * 100.0).ceil())) } }
            @if !tally.failures.is_empty() { " " span.failed { (tally.failures.len()) " failed" } }
            @if let Some(lead) = lead {
                @let mark = match lead.verdict { Verdict::Even => "~ ", Verdict::Noisy | Verdict::Unknown => "? ", Verdict::Better | Verdict::Worse => "" };
                span class={ "times " (verdict_class(lead.verdict)) } { (mark) (format!("{:.2}×", lead.ratio.median)) }
            }
        }
    }
}

/// What a row noted besides: a line for each note.
pub(super) fn notes(matrix: &Matrix<'_>, row: &Line<'_>, prefix: &str, title: &str) -> Option<Markup> {
    let figures: Vec<&Figure> = matrix.figures.iter().filter(|its| its.name.starts_with(prefix) && has(row, its)).collect();
    if figures.is_empty() {
        return None;
    }
    Some(html! {
        div.scroll style="margin-bottom:1rem" {
            table.sorts {
                caption { b { (row.title) } ": " (title) }
                thead {
                    tr {
                        th scope="col" { "what" }
                        @for subject in shown(matrix) { th scope="col" class=[(subject == matrix.base).then_some("base")] { (matrix.subjects[subject]) } }
                    }
                }
                tbody {
                    @for figure in figures {
                        @let unit = unit_of(row, figure);
                        tr {
                            th scope="row" { (figure.title) }
                            @for subject in shown(matrix) { (cell(matrix, row, figure, subject, unit)) }
                        }
                    }
                }
            }
        }
    })
}

/// Services: of every workload with its variants a line for each number of streams and each subject.
pub(super) fn services(matrix: &Matrix<'_>) -> Vec<Markup> {
    let served: Vec<&Line<'_>> =
        matrix.rows.iter().filter(|row| row.is_service() && row.tallies.iter().any(|its| !its.timed.is_empty())).collect();
    let mut groups: Vec<String> = Vec::new();
    for row in &served {
        let group = group(row);
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    groups.iter().map(|name| service(matrix, name, &served)).collect()
}

/// The title without what is a column of its own.
fn group(row: &Line<'_>) -> String {
    let is_column = |word: &&str| word.starts_with("streams=") || word.starts_with("connections=");
    row.title.split(' ').filter(|word| !is_column(word)).collect::<Vec<_>>().join(" ")
}

fn service(matrix: &Matrix<'_>, name: &str, served: &[&Line<'_>]) -> Markup {
    let rows: Vec<&Line<'_>> = served.iter().copied().filter(|row| group(row) == name).collect();
    let columns = columns(matrix, &rows);
    html! {
        div.scroll style="margin-bottom:1rem" {
            table.sorts {
                caption { b { (name) } ": requests per second, times and memory, by streams at once and allocator" }
                thead {
                    tr {
                        th scope="col" { "streams" }
                        th scope="col" style="text-align:left" { "allocator" }
                        @for (_, title) in &columns { th scope="col" { (title) } }
                    }
                }
                tbody {
                    @for row in &rows {
                        @let streams = row.parameter("streams").or(row.parameter("connections")).unwrap_or("–");
                        @for subject in shown(matrix) {
                            tr {
                                td data-v=(streams) { (streams) }
                                th scope="row" style="text-align:left" class=[(subject == matrix.base).then_some("base")] { (matrix.subjects[subject]) }
                                @for (figure, _) in &columns { (cell(matrix, row, figure, subject, unit_of(row, figure))) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The figures that all rows may have, and that deserve a table each.
pub(super) fn main_figures<'m>(matrix: &'m Matrix<'_>) -> Vec<&'m Figure> {
    let is_main = |figure: &&Figure| {
        ["time", "peak_rss", "rate", "instructions", "os_calls", "faults"].contains(&&*figure.name)
            || (figure.name.starts_with("latency.") && figure.name.rsplit('.').next() == Some("p99"))
    };
    // All that are nothing everywhere have nothing to say.
    let says_something = |figure: &&Figure| {
        let medians = matrix.rows.iter().flat_map(|row| &row.tallies).filter_map(|its| its.estimate(&figure.name));
        figure.units != COUNTS || medians.into_iter().any(|its| its.median > 0.0)
    };
    matrix.figures.iter().filter(is_main).filter(says_something).collect()
}
