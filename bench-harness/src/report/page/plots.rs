//! The drawings of the page: our own SVG, without a library and without a font.
//!
//! Places are percentages of the drawing's width and height, and words stand beside it as HTML, so that a drawing is as sharp and its words as
//! large on a telephone as on a wall. Only lines with many corners have a coordinate system, which is stretched; their strokes are not.

use std::fmt::Write;

use maud::{Markup, html};

use super::{Names, shown, verdict_class};
use crate::record::{Sample, thinned};
use crate::report::figures::{Better, Figure, Lead, Line, Matrix, Verdict};
use crate::report::{BYTES, TIMES, Units, value};
use crate::statistics::{Estimate, geometric_mean};

/// Looks that differ in colour and shape; with more subjects than that they are used again.
pub(super) const LOOKS: usize = 10;

/// What an axis of time counts in.
const MILLISECONDS: Units = &[(1e3, "s"), (1.0, "ms")];

/// As many moments of a run are drawn: more than there are pixels for on a telephone.
const MOMENTS_MAX: usize = 240;

/// From values to percentages of a width.
struct Scale {
    low: f64,
    high: f64,
    is_log: bool,
    /// What a linear axis counts in: its ticks are round in that.
    grain: f64,
}

impl Scale {
    /// Logarithmic, around all values, with a little air. `None` where nothing is above zero.
    fn log(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let values = values.into_iter().filter(|value| value.is_finite() && *value > 0.0);
        let (low, high) = values.fold((f64::INFINITY, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)));
        let air = (high / low).powf(0.05).max(1.01);
        (high > 0.0).then(|| Self { low: low / air, high: high * air, is_log: true, grain: 1.0 })
    }

    /// From nothing to the largest.
    fn linear(values: impl IntoIterator<Item = f64>, units: Units) -> Self {
        let most = values.into_iter().fold(0.0, f64::max);
        let grain = units.iter().find(|(from, _)| most >= *from).or(units.last()).map_or(1.0, |(from, _)| *from);
        Self { low: 0.0, high: if most > 0.0 { most * 1.04 } else { grain }, is_log: false, grain }
    }

    fn place(&self, value: f64) -> f64 {
        let share = if self.is_log {
            (value.max(f64::MIN_POSITIVE) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        share.clamp(0.0, 1.0) * 100.0
    }

    /// Round values, at most seven: the closest series of them that is no denser.
    fn ticks(&self) -> Vec<f64> {
        const TICKS_MAX: usize = 7;
        let mut steps: Vec<Vec<f64>> = Vec::new();
        if self.is_log {
            let decades = (self.low.log10().floor() as i32)..=(self.high.log10().ceil() as i32);
            let of = |digits: &[f64]| -> Vec<f64> {
                decades.clone().flat_map(|decade| digits.iter().map(move |digit| digit * 10_f64.powi(decade))).collect()
            };
            // Close to 1 there is nothing round but hundredths.
            if self.high / self.low < 2.0 {
                steps.extend([0.01, 0.02, 0.05, 0.1, 0.25].map(|step| Self::multiples(step, self.low, self.high)));
            }
            steps.extend([of(&[1.0, 1.5, 2.0, 3.0, 5.0, 7.0]), of(&[1.0, 2.0, 5.0]), of(&[1.0, 3.0]), of(&[1.0])]);
            steps.extend([2, 3, 6].map(|every| of(&[1.0]).into_iter().step_by(every).collect()));
        } else {
            let decade = 10_f64.powf((self.high / self.grain / TICKS_MAX as f64).log10().floor()) * self.grain;
            steps.extend([1.0, 2.0, 5.0, 10.0].map(|step| Self::multiples(step * decade, self.low, self.high)));
        }
        let within = |ticks: &Vec<f64>| -> Vec<f64> {
            ticks.iter().copied().filter(|tick| (self.low..=self.high).contains(tick)).collect()
        };
        steps.iter().map(within).find(|ticks| (1..=TICKS_MAX).contains(&ticks.len())).unwrap_or_default()
    }

    fn multiples(step: f64, low: f64, high: f64) -> Vec<f64> {
        const MANY: f64 = 64.0;
        if (high - low) / step > MANY {
            return Vec::new();
        }
        ((low / step).ceil() as u64..=(high / step).floor() as u64).map(|count| count as f64 * step).collect()
    }
}

fn percent(place: f64) -> String {
    format!("{place:.2}%")
}

/// A ratio on an axis: `0.5`, `1`, `20`.
fn ratio_word(ratio: f64) -> String {
    let text = format!("{ratio:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text}×")
}

/// The outline of a look around nothing.
fn outline(look: usize, size: f64) -> String {
    let (s, t) = (size, size * 0.42);
    match look % LOOKS {
        0 => format!("M{s} 0A{s} {s} 0 1 1 -{s} 0A{s} {s} 0 1 1 {s} 0Z"),
        1 => format!("M-{a} -{a}H{a}V{a}H-{a}Z", a = size * 0.88),
        2 => format!("M0 -{a}L{a} 0L0 {a}L-{a} 0Z", a = size * 1.25),
        3 => format!("M0 -{a}L{a} {s}H-{a}Z", a = size * 1.15),
        4 => format!("M0 {a}L{a} -{s}H-{a}Z", a = size * 1.15),
        5 => format!("M-{t} -{s}H{t}V-{t}H{s}V{t}H{t}V{s}H-{t}V{t}H-{s}V-{t}H-{t}Z"),
        6 => format!("M0 -{s}L{s} -{t}L{b} {s}H-{b}L-{s} -{t}Z", b = size * 0.65),
        7 => format!("M-{s} -{t}H{s}V{t}H-{s}Z"),
        8 => format!("M-{t} -{s}H{t}V{s}H-{t}Z"),
        _ => format!("M-{s} -{s}L0 -{t}L{s} -{s}L{t} 0L{s} {s}L0 {t}L-{s} {s}L-{t} 0Z"),
    }
}

/// A mark at a place of a drawing.
fn mark(look: usize, (x, y): (f64, f64), size: f64, class: &str, row: Option<&str>, tip: &str) -> Markup {
    html! {
        svg x=(percent(x)) y=(percent(y)) overflow="visible" class=(class) data-row=[row] data-tip=(tip) {
            path d=(outline(look, size)) {}
        }
    }
}

/// Who is who, each with a box that takes it out of the drawing.
fn legend(names: &Names, subjects: impl IntoIterator<Item = usize>, matrix: &Matrix<'_>) -> Markup {
    html! {
        fieldset.legend {
            legend.hidden { "Shown" }
            @for subject in subjects {
                @let look = names.look(subject);
                label {
                    input type="checkbox" checked value=(look);
                    svg viewBox="-8 -8 16 16" aria-hidden="true" { path class={ "fill s" (look) } d=(outline(look, 6.0)) {} }
                    (matrix.subjects[subject])
                }
            }
        }
    }
}

/// Ratios of one figure, a row each: dot and whisker on a logarithmic axis, and the same in words.
pub(super) fn forest(matrix: &Matrix<'_>, figure: &Figure, group: &str) -> Markup {
    let others: Vec<usize> = matrix.others().collect();
    let base = matrix.base_name();
    let best: Vec<(&Line<'_>, &str, Lead)> =
        matrix.rows.iter().filter_map(|row| matrix.judge(row, figure).map(|judged| (row, judged.best, judged.lead))).collect();
    let mut panes = vec![("the best other".to_owned(), best)];
    if others.len() > 1 {
        panes.extend(others.iter().map(|&other| {
            let name = matrix.subjects[other];
            let of = |row| -> Option<(&Line<'_>, &str, Lead)> {
                let row: &Line<'_> = row;
                Some((row, name, row.tallies[other].lead(&figure.name)?))
            };
            (name.to_owned(), matrix.rows.iter().filter_map(of).collect())
        }));
    }
    html! {
        div.tabs {
            @if panes.len() > 1 {
                fieldset.choice {
                    legend.hidden { (figure.title) ": " (base) " against" }
                    @for (index, (name, _)) in panes.iter().enumerate() {
                        label { input type="radio" name=(group) value=(index) checked[index == 0]; (name) }
                    }
                }
            }
            @for (index, (name, rows)) in panes.iter().enumerate() {
                div class={ "pane pane" (index) } style=[(panes.len() == 1).then_some("display:block")] {
                    (forest_table(matrix, figure, name, rows))
                }
            }
        }
    }
}

fn forest_table(matrix: &Matrix<'_>, figure: &Figure, against: &str, rows: &[(&Line<'_>, &str, Lead)]) -> Markup {
    let base = matrix.base_name();
    let noises: Vec<Option<Estimate>> = rows.iter().map(|(row, ..)| row.noise(&figure.name)).collect();
    let ends = rows
        .iter()
        .flat_map(|(_, _, lead)| if lead.ratio.is_sure() { [lead.ratio.low, lead.ratio.high] } else { [lead.ratio.median; 2] });
    let bands = noises.iter().flatten().flat_map(|noise| [noise.low, noise.high]);
    let Some(scale) = Scale::log(ends.chain(bands).chain([0.8, 1.25])) else { return html! {} };
    let ticks = scale.ticks();
    let (good, bad) = super::words(figure);
    let better = match figure.better {
        Better::More => format!("{base} divided by {against}"),
        _ => format!("{against} divided by {base}"),
    };
    html! {
        div.scroll {
            table."forest"."sorts" {
                caption { b { (figure.title) } ": " (better) ", with 95 % intervals. Right of 1 " (base) " is " (good) "." }
                thead {
                    tr {
                        th scope="col" { "row" }
                        th.track scope="col" {
                            span.ends { span.worse-word { "← " (bad) } span.better-word { (good) " →" } }
                            span.axis aria-hidden="true" {
                                @for tick in &ticks { span style={ "left:" (percent(scale.place(*tick))) } { (ratio_word(*tick)) } }
                            }
                        }
                        th scope="col" { "ratio" }
                        th.verdict scope="col" style="text-align:left" { (base) " is" }
                    }
                }
                tbody {
                    @for ((row, other, lead), noise) in rows.iter().zip(&noises) {
                        @let words = super::verdict(figure, lead, other);
                        tr {
                            th scope="row" { (row.title) }
                            td.track data-v=(lead.ratio.median) {
                                svg role="img" aria-label={ (row.title) ": " (ratio_word(lead.ratio.median)) ", " (words) }
                                    data-tip={ (row.title) "\n" (tip(lead)) "\n" (base) " is " (words) } {
                                    @for tick in &ticks {
                                        @let at = percent(scale.place(*tick));
                                        line class="grid" x1=(at) x2=(at) y1="-10%" y2="110%" {}
                                    }
                                    @if let Some(noise) = noise {
                                        @let (low, high) = (scale.place(noise.low), scale.place(noise.high));
                                        rect.noise x=(percent(low)) width=(percent((high - low).max(0.3))) y="0" height="100%" {}
                                    }
                                    @let one = percent(scale.place(1.0));
                                    line.one x1=(one) x2=(one) y1="-10%" y2="110%" {}
                                    @let class = verdict_class(lead.verdict);
                                    @if lead.ratio.is_sure() {
                                        line class={ "ink whisker " (class) } y1="50%" y2="50%"
                                            x1=(percent(scale.place(lead.ratio.low))) x2=(percent(scale.place(lead.ratio.high))) {}
                                    }
                                    @let look = match lead.verdict { Verdict::Better => 0, Verdict::Worse => 2, _ => 7 };
                                    svg x=(percent(scale.place(lead.ratio.median))) y="50%" overflow="visible" {
                                        path class={ "ink " (class) } d=(outline(look, 5.0)) {}
                                    }
                                }
                            }
                            td data-v=(lead.ratio.median) {
                                (format!("{:.2}", lead.ratio.median))
                                @if lead.ratio.is_sure() {
                                    " " span.interval { "(" (format!("{:.2}–{:.2}", lead.ratio.low, lead.ratio.high)) ")" }
                                }
                            }
                            td class={ "verdict " (verdict_class(lead.verdict)) } { (words) }
                        }
                    }
                }
            }
        }
    }
}

/// A comparison for who points at it.
pub(super) fn tip(lead: &Lead) -> String {
    let mut text = format!("{:.3}", lead.ratio.median);
    if lead.ratio.is_sure() {
        let _ = write!(text, ", 95 %: {:.3} to {:.3}, p = {:.4}", lead.ratio.low, lead.ratio.high, lead.p);
    }
    let _ = write!(text, ", {} runs", lead.ratio.runs);
    text
}

/// Memory against speed: faint, every row; bold, the geometric mean of rows that everybody ran.
pub(super) fn scatter(matrix: &Matrix<'_>, names: &Names) -> Markup {
    let others: Vec<usize> = matrix.others().collect();
    let both = |row: &Line<'_>, other: usize| -> Option<(f64, f64)> {
        let tally = &row.tallies[other];
        let (time, memory) = (tally.lead("time")?.ratio.median, tally.lead("peak_rss")?.ratio.median);
        (time > 0.0 && memory > 0.0).then_some((time, memory))
    };
    let common: Vec<&Line<'_>> =
        matrix.rows.iter().filter(|row| others.iter().all(|&other| both(row, other).is_some())).collect();
    let mean = |other: usize| -> Option<(f64, f64)> {
        let (times, memories): (Vec<f64>, Vec<f64>) = common.iter().filter_map(|row| both(row, other)).unzip();
        Some((geometric_mean(times)?, geometric_mean(memories)?))
    };
    let all: Vec<(f64, f64)> =
        matrix.rows.iter().flat_map(|row| others.iter().filter_map(move |&other| both(row, other))).collect();
    let (Some(x), Some(y)) = (
        Scale::log(all.iter().map(|point| point.0).chain([0.8, 1.25])),
        Scale::log(all.iter().map(|point| point.1).chain([0.8, 1.25])),
    ) else {
        return html! {};
    };
    if all.is_empty() {
        return html! {};
    }
    let at = |(time, memory): (f64, f64)| (x.place(time), 100.0 - y.place(memory));
    let base = matrix.base_name();
    let said = |(time, memory): (f64, f64)| format!("{time:.2}× the time, {memory:.2}× the memory of {base}");
    let means: Vec<(usize, (f64, f64))> = others.iter().filter_map(|&other| Some((other, mean(other)?))).collect();
    let description: Vec<String> =
        means.iter().map(|(other, its)| format!("{}: {}", matrix.subjects[*other], said(*its))).collect();
    html! {
        figure {
            figcaption {
                b { "Memory against speed" }
                span {
                    "Multiples of what " (base) " takes, both axes logarithmic. Right is slower, up is larger. Faint: single rows. Bold: the geometric mean of the "
                    (common.len()) " rows that all of them ran."
                }
            }
            (legend(names, [matrix.base].into_iter().chain(others.iter().copied()), matrix))
            p.js {
                label { "One row: "
                    select data-of="scatter" {
                        option value="" { "all" }
                        @for row in &matrix.rows { option value=(row.title) { (row.title) } }
                    }
                }
            }
            div."plot"."scatter" #scatter {
                (y_axis(&y, &ratio_word))
                div.area {
                    svg.canvas role="img" aria-labelledby="scatter-title scatter-words" {
                        title #scatter-title { "Memory against speed" }
                        desc #scatter-words { "Geometric means. " (description.join("; ")) }
                        (grid(&x, &y))
                        @let one = at((1.0, 1.0));
                        line.one x1=(percent(one.0)) x2=(percent(one.0)) y1="0" y2="100%" {}
                        line.one y1=(percent(one.1)) y2=(percent(one.1)) x1="0" x2="100%" {}
                        svg x="99%" y="2%" overflow="visible" { text.note text-anchor="end" y="12" { (base) " is faster and smaller" } }
                        @for row in &matrix.rows {
                            @for &other in &others {
                                @if let Some(point) = both(row, other) {
                                    @let look = names.look(other);
                                    @let tip = format!("{}, {}\n{}", matrix.subjects[other], row.title, said(point));
                                    (mark(look, at(point), 3.6, &format!("fill faint s{look}"), Some(row.title), &tip))
                                }
                            }
                        }
                        @for (other, point) in &means {
                            @let look = names.look(*other);
                            @let tip = format!("{}, geometric mean\n{}", matrix.subjects[*other], said(*point));
                            (mark(look, at(*point), 7.0, &format!("fill halo mean s{look}"), None, &tip))
                        }
                        @let look = names.look(matrix.base);
                        (mark(look, one, 7.0, &format!("fill halo mean s{look}"), None, base))
                        @for (index, (subject, point)) in [(matrix.base, (1.0, 1.0))].iter().chain(&means).enumerate() {
                            @let (left, top) = at(*point);
                            @let look = names.look(*subject);
                            // Neighbours write above and below each other.
                            @let is_low = index % 2 == 0;
                            svg x=(percent(left)) y=(percent(top)) overflow="visible" class={ "mean s" (look) } {
                                text.name-of text-anchor=(if left > 80.0 { "end" } else { "start" }) x=(if left > 80.0 { -11 } else { 11 })
                                    y=(if is_low { 16 } else { -8 }) { (matrix.subjects[*subject]) }
                            }
                        }
                    }
                }
                (x_axis(&x, &ratio_word, &format!("time, multiples of {base}'s")))
            }
        }
    }
}

fn y_axis(scale: &Scale, word: &dyn Fn(f64) -> String) -> Markup {
    html! {
        div.y aria-hidden="true" {
            @for tick in scale.ticks() { span style={ "top:" (percent(100.0 - scale.place(tick))) } { (word(tick)) } }
        }
    }
}

fn x_axis(scale: &Scale, word: &dyn Fn(f64) -> String, name: &str) -> Markup {
    html! {
        div.x aria-hidden="true" {
            @for tick in scale.ticks() { span style={ "left:" (percent(scale.place(tick))) } { (word(tick)) } }
        }
        div.name { (name) }
    }
}

fn grid(x: &Scale, y: &Scale) -> Markup {
    html! {
        @for tick in x.ticks() { @let at = percent(x.place(tick)); line.grid x1=(at) x2=(at) y1="0" y2="100%" {} }
        @for tick in y.ticks() { @let at = percent(100.0 - y.place(tick)); line.grid y1=(at) y2=(at) x1="0" x2="100%" {} }
    }
}

/// A line of a drawing: who, whether dashed, and its points with what they say.
struct Series {
    subject: usize,
    is_live: bool,
    points: Vec<(f64, f64, String)>,
}

/// Lines over an axis, with a box for each subject and what to read off.
struct Chart<'a> {
    id: String,
    title: String,
    words: String,
    /// For those who do not see it.
    description: String,
    series: Vec<Series>,
    x: Scale,
    y: Scale,
    x_word: &'a dyn Fn(f64) -> String,
    y_word: &'a dyn Fn(f64) -> String,
    x_name: &'a str,
    has_marks: bool,
}

impl Chart<'_> {
    fn draw(&self, matrix: &Matrix<'_>, names: &Names) -> Markup {
        let place = |x: f64, y: f64| (self.x.place(x), 100.0 - self.y.place(y));
        let subjects: Vec<usize> = self.series.iter().filter(|series| !series.is_live).map(|series| series.subject).collect();
        html! {
            figure {
                figcaption { b { (self.title) } span { (self.words) } }
                (legend(names, subjects, matrix))
                div.plot {
                    (y_axis(&self.y, self.y_word))
                    div."area"."read" {
                        svg.canvas role="img" aria-labelledby={ (self.id) "-title " (self.id) "-words" } {
                            title id={ (self.id) "-title" } { (self.title) }
                            desc id={ (self.id) "-words" } { (self.description) }
                            (grid(&self.x, &self.y))
                            @for series in &self.series {
                                @let look = names.look(series.subject);
                                @let name = format!("{}{}", matrix.subjects[series.subject], if series.is_live { ", live" } else { "" });
                                @let at: Vec<(f64, f64)> = series.points.iter().map(|(x, y, _)| place(*x, *y)).collect();
                                g class={ "s" (look) } data-name=(name)
                                    data-x=(at.iter().map(|its| format!("{:.2}", its.0)).collect::<Vec<_>>().join(" "))
                                    data-t=(series.points.iter().map(|its| &*its.2).collect::<Vec<_>>().join("|")) {
                                    svg viewBox="0 0 1000 1000" preserveAspectRatio="none" width="100%" height="100%" overflow="visible" {
                                        polyline class={ "line stroke" (if series.is_live { " live" } else { "" }) }
                                            points=(at.iter().map(|(x, y)| format!("{:.1},{:.1}", x * 10.0, y * 10.0)).collect::<Vec<_>>().join(" ")) {}
                                    }
                                    @if self.has_marks {
                                        @for &(x, y) in &at {
                                            svg x=(percent(x)) y=(percent(y)) overflow="visible" { path.fill d=(outline(look, 3.6)) {} }
                                        }
                                    } @else if let Some(&(x, y)) = at.iter().max_by(|a, b| b.1.total_cmp(&a.1)).filter(|_| !series.is_live) {
                                        // One mark at the top is enough to tell the lines apart without their colours.
                                        svg x=(percent(x)) y=(percent(y)) overflow="visible" { path."fill"."halo" d=(outline(look, 5.0)) {} }
                                    }
                                }
                            }
                        }
                    }
                    (x_axis(&self.x, self.x_word, self.x_name))
                }
            }
        }
    }
}

/// How long operations took, from the middle to the far end of the distribution: one drawing for each row and kind.
pub(super) fn latencies(matrix: &Matrix<'_>, names: &Names) -> Vec<Markup> {
    let mut drawings = Vec::new();
    for (number, row) in matrix.rows.iter().enumerate() {
        let mut kinds: Vec<&String> =
            row.tallies.iter().flat_map(|its| &its.timed).flat_map(|its| its.latencies.keys()).collect();
        kinds.sort();
        kinds.dedup();
        for (place, kind) in kinds.into_iter().enumerate() {
            let series: Vec<Series> = shown(matrix)
                .filter_map(|subject| {
                    let points = median_points(row, subject, kind);
                    (!points.is_empty()).then_some(Series { subject, is_live: false, points })
                })
                .collect();
            let points = || series.iter().flat_map(|series| &series.points);
            let (Some(x), Some(y)) = (Scale::log(points().map(|its| its.0)), Scale::log(points().map(|its| its.1))) else {
                continue;
            };
            let ends =
                series.iter().filter_map(|its| Some(format!("{}: {}", matrix.subjects[its.subject], its.points.last()?.2)));
            let chart = Chart {
                id: format!("latency-{number}-{place}"),
                title: format!("{}: {kind}", row.title),
                words: "The time that so many of a hundred operations stayed within; both axes logarithmic, medians of all runs."
                    .to_owned(),
                description: format!("At the far end, {}", ends.collect::<Vec<_>>().join("; ")),
                x_word: &rarity_word,
                y_word: &time_word,
                x_name: "share of operations, %",
                has_marks: true,
                series,
                x,
                y,
            };
            drawings.push(chart.draw(matrix, names));
        }
    }
    drawings
}

/// For each point of a distribution the median of the runs; on the axis stands how rare it is to be beyond: one in so many.
fn median_points(row: &Line<'_>, subject: usize, kind: &str) -> Vec<(f64, f64, String)> {
    const MILLION: u32 = 1_000_000;
    let runs = || row.tallies[subject].timed.iter().filter_map(|its| its.latencies.get(kind));
    let mut parts: Vec<u32> = runs().flat_map(|its| &its.points).map(|its| its.0).filter(|parts| *parts < MILLION).collect();
    parts.sort_unstable();
    parts.dedup();
    let point = |parts: u32| {
        let nanos = runs().filter_map(|its| its.points.iter().find(|its| its.0 == parts)).map(|its| its.1 as f64);
        let mut nanos: Vec<f64> = nanos.collect();
        nanos.sort_by(f64::total_cmp);
        let middle = *nanos.get(nanos.len() / 2)?;
        let one_in = f64::from(MILLION) / f64::from(MILLION - parts);
        (middle > 0.0).then(|| (one_in, middle, format!("{} of {} %", time_word(middle), f64::from(parts) / 1e4)))
    };
    parts.into_iter().filter_map(point).collect()
}

/// `99.9 %` for one in a thousand.
fn rarity_word(one_in: f64) -> String {
    let share = 100.0 - 100.0 / one_in;
    let digits = (one_in.log10().round() as usize).saturating_sub(2);
    format!("{share:.digits$}")
}

fn time_word(nanos: f64) -> String {
    let unit = TIMES.iter().find(|(from, _)| nanos >= *from).copied().unwrap_or((1.0, "ns"));
    value(nanos, unit)
}

fn bytes_word(bytes: f64) -> String {
    if bytes == 0.0 {
        return "0".to_owned();
    }
    let unit = BYTES.iter().find(|(from, _)| bytes >= *from).or(BYTES.last()).copied().unwrap_or((1024.0, "KiB"));
    let text = value(bytes, unit);
    text.replace(".00 ", " ").replace(".0 ", " ")
}

/// What was resident over time: one drawing for each row that was watched, of every subject the run with the middle peak.
pub(super) fn resident(matrix: &Matrix<'_>, names: &Names) -> Vec<Markup> {
    let mut drawings = Vec::new();
    for (number, row) in matrix.rows.iter().enumerate() {
        let mut series = Vec::new();
        for subject in shown(matrix) {
            let mut runs: Vec<_> = row.tallies[subject].timed.iter().filter(|its| !its.resident.is_empty()).collect();
            runs.sort_by_key(|its| its.peak_rss_bytes);
            let Some(run) = runs.get(runs.len() / 2) else { continue };
            let samples = thinned(&run.resident, MOMENTS_MAX);
            let point = |sample: &Sample, bytes: u64| {
                (sample.ms as f64, bytes as f64, format!("{} after {:.1} s", bytes_word(bytes as f64), sample.ms as f64 / 1e3))
            };
            let live = samples.iter().filter_map(|sample| Some(point(sample, sample.live_bytes?))).collect::<Vec<_>>();
            // All do the same work, so the program holds the same everywhere; one line says it.
            if !live.is_empty() && !series.iter().any(|its: &Series| its.is_live) {
                series.push(Series { subject, is_live: true, points: live });
            }
            series.push(Series {
                subject,
                is_live: false,
                points: samples.iter().map(|its| point(its, its.rss_bytes)).collect(),
            });
        }
        if series.is_empty() {
            continue;
        }
        let points = || series.iter().flat_map(|series| &series.points);
        let (x, y) = (Scale::linear(points().map(|its| its.0), MILLISECONDS), Scale::linear(points().map(|its| its.1), BYTES));
        let has_live = series.iter().any(|its| its.is_live);
        let ends = series.iter().filter(|its| !its.is_live);
        let ends = ends.filter_map(|its| Some(format!("{}: {}", matrix.subjects[its.subject], its.points.last()?.2)));
        let chart = Chart {
            id: format!("resident-{number}"),
            title: row.title.to_owned(),
            words: format!(
                "Resident without files, the run with the middle peak of each.{}",
                if has_live { " Dashed: what the program held." } else { "" }
            ),
            description: format!("At the end, {}", ends.collect::<Vec<_>>().join("; ")),
            x_word: &|ms| format!("{}", ms / 1e3),
            y_word: &bytes_word,
            x_name: "seconds since the process began",
            has_marks: false,
            series,
            x,
            y,
        };
        drawings.push(chart.draw(matrix, names));
    }
    drawings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_few_and_within() {
        for (low, high) in [(0.9, 1.1), (0.2, 50.0), (0.98, 1.03), (1e-3, 1e9), (3.0, 3.1), (1.0, 1e12)] {
            let scale = Scale::log([low, high]).expect("both are above zero");
            let ticks = scale.ticks();
            assert!((1..=7).contains(&ticks.len()), "{low} to {high}: {ticks:?}");
            assert!(ticks.iter().all(|tick| (scale.low..=scale.high).contains(tick)), "{low} to {high}: {ticks:?}");
        }
        assert_eq!(Scale::linear([100.0], &[]).ticks(), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        assert!(Scale::log([0.0, f64::NAN]).is_none());
    }

    #[test]
    fn places_go_from_end_to_end_whatever_the_value() {
        let scale = Scale::log([0.5, 2.0]).expect("both are above zero");
        assert!((scale.place(1.0) - 50.0).abs() < 1e-9);
        for value in [0.0, -1.0, f64::INFINITY, 1e300] {
            assert!((0.0..=100.0).contains(&scale.place(value)), "{value}");
        }
    }

    #[test]
    fn shares_are_said_with_as_many_nines_as_they_have() {
        assert_eq!(rarity_word(10.0), "90");
        assert_eq!(rarity_word(1_000.0), "99.9");
        assert_eq!(rarity_word(100_000.0), "99.999");
    }
}
