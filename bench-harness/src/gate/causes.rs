//! Where it comes from that a row got worse: what the allocator's own books say (`peers/freestone_books.rs`), what the process called, and how
//! often the kernel had to find a page for it.
//!
//! A count has *moved* when it differs by a twentieth, and when none of its runs before was as one of those after. That is no proof that it is the
//! cause; it is where to look first.

use std::collections::{BTreeMap, BTreeSet};

use super::findings::measured;
use super::sources::{Pair, Side};
use crate::record::{Measurement, View};
use crate::report::{BYTES, COUNTS, Units};
use crate::statistics::Estimate;

/// What moved on a row, on a subject.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Causes {
    pub(super) row: String,
    pub(super) subject: String,
    /// By size class: its block size, and what moved there.
    pub(super) classes: Moved,
    /// Slow paths of the allocator.
    pub(super) slow_paths: Moved,
    /// Calls into the system, and page faults.
    pub(super) calls: Moved,
}

/// What moved of some counts.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Moved {
    /// These, the most first, and so many more.
    These(Vec<Move>, usize),
    /// None of them.
    Nothing,
    /// At least one side did not count; in words.
    NotCounted(&'static str),
}

/// A count that moved.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Move {
    pub(super) name: String,
    pub(super) before: f64,
    pub(super) after: f64,
    pub(super) units: Units,
}

/// So many of each kind are told.
const TOLD_MAX: usize = 6;
/// What differs by less, as a share of the larger, has not moved …
const MOVED_MIN: f64 = 0.05;
/// … nor has what differs by fewer than this, which any process does for its own reasons.
const COUNT_MIN: f64 = 4.0;

impl Causes {
    pub(super) fn of(pair: &Pair, row: &str, subject: &str) -> Self {
        let both = |view, counts: fn(&Measurement) -> BTreeMap<String, u64>| {
            let of = |side: &Side| measured(side, row, subject, view).map(|(_, its)| counts(its)).collect::<Vec<_>>();
            (of(&pair.base), of(&pair.new))
        };
        // Books are kept in every run; where nobody timed, those of other runs will do.
        let view = [View::Timed, View::Instructions, View::Calls].into_iter().find(|&view| {
            let (before, after) = both(view, classes);
            has_some(&before) && has_some(&after)
        });
        let view = view.unwrap_or_default();
        let no_books = "at least one side's allocator does not say";
        let (before, after) = both(view, classes);
        let classes = Moved::of(&before, &after, no_books, class_in_words);
        let (before, after) = both(view, slow_paths);
        let slow_paths = Moved::of(&before, &after, no_books, |name| (name.replace('_', " "), COUNTS));
        let (before, after) = both(View::Calls, |its| its.os_calls.clone());
        let calls = if has_some(&before) && has_some(&after) {
            let mut moves = moves(&before, &after, |name| (name.to_owned(), COUNTS));
            let (before, after) = both(View::Timed, faults);
            moves.extend(self::moves(&before, &after, |name| (name.to_owned(), COUNTS)));
            Moved::these(moves)
        } else {
            Moved::NotCounted("at least one side did not count them (--calls)")
        };
        Self { row: row.to_owned(), subject: subject.to_owned(), classes, slow_paths, calls }
    }
}

fn has_some(runs: &[BTreeMap<String, u64>]) -> bool {
    runs.iter().any(|counts| !counts.is_empty())
}

/// The notes below a word and a dot, by the rest of their names.
fn below(measurement: &Measurement, beginning: &str) -> BTreeMap<String, u64> {
    let its = measurement.notes.iter().filter_map(|(name, count)| Some((name.strip_prefix(beginning)?.to_owned(), *count)));
    its.collect()
}

fn classes(measurement: &Measurement) -> BTreeMap<String, u64> {
    below(measurement, "class.")
}

fn slow_paths(measurement: &Measurement) -> BTreeMap<String, u64> {
    below(measurement, "slow.")
}

fn faults(measurement: &Measurement) -> BTreeMap<String, u64> {
    BTreeMap::from([("page faults".to_owned(), measurement.minor_faults.saturating_add(measurement.major_faults))])
}

/// Such as `64 B: holes`, and its units.
fn class_in_words(name: &str) -> (String, Units) {
    let (class, figure) = name.split_once('.').unwrap_or((name, ""));
    let class = if class == "large" { "beyond the classes".to_owned() } else { format!("{class} B") };
    let (figure, units) = figure.strip_suffix("_bytes").map_or((figure, COUNTS), |figure| (figure, BYTES));
    (format!("{class}: {}", figure.replace('_', " ")), units)
}

impl Moved {
    fn of(
        before: &[BTreeMap<String, u64>],
        after: &[BTreeMap<String, u64>],
        uncounted: &'static str,
        in_words: impl Fn(&str) -> (String, Units),
    ) -> Self {
        let is_counted = has_some(before) && has_some(after);
        if is_counted { Self::these(moves(before, after, in_words)) } else { Self::NotCounted(uncounted) }
    }

    /// Those that say most first, and not too many.
    fn these(mut moves: Vec<Move>) -> Self {
        moves.sort_by(|a, b| b.weight().total_cmp(&a.weight()));
        let more = moves.len().saturating_sub(TOLD_MAX);
        moves.truncate(TOLD_MAX);
        if moves.is_empty() { Self::Nothing } else { Self::These(moves, more) }
    }
}

/// What moved from some runs to others. What a run does not name did not happen in it.
fn moves(
    before: &[BTreeMap<String, u64>],
    after: &[BTreeMap<String, u64>],
    in_words: impl Fn(&str) -> (String, Units),
) -> Vec<Move> {
    let names: BTreeSet<&String> = before.iter().chain(after).flat_map(BTreeMap::keys).collect();
    let of_name = |name: &String| {
        let counts = |runs: &[BTreeMap<String, u64>]| -> Vec<f64> {
            runs.iter().map(|counts| counts.get(name).copied().unwrap_or(0) as f64).collect()
        };
        let (before, after) = moved(&counts(before), &counts(after))?;
        let (name, units) = in_words(name);
        Some(Move { name, before, after, units })
    };
    names.into_iter().filter_map(of_name).collect()
}

impl Move {
    /// How much it has to say: by what factor it changed, and a little by how much.
    fn weight(&self) -> f64 {
        let (before, after) = (self.before + 1.0, self.after + 1.0);
        (after / before).ln().abs() * before.max(after).ln()
    }
}

/// The medians, if they differ by enough and the runs do not overlap.
fn moved(before: &[f64], after: &[f64]) -> Option<(f64, f64)> {
    let (was, is) = (Estimate::of(before.iter().copied())?.median, Estimate::of(after.iter().copied())?.median);
    let least = |counts: &[f64]| counts.iter().copied().fold(f64::INFINITY, f64::min);
    let most = |counts: &[f64]| counts.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let apart = most(before) < least(after) || most(after) < least(before);
    let enough = (is - was).abs() >= (MOVED_MIN * was.max(is)).max(COUNT_MIN);
    (apart && enough).then_some((was, is))
}

#[cfg(test)]
mod tests {
    use super::{class_in_words, moved};

    #[test]
    fn what_wanders_by_itself_has_not_moved() {
        assert_eq!(moved(&[100.0, 110.0, 120.0], &[130.0, 140.0, 150.0]), Some((110.0, 140.0)));
        // One run before was as one of those after.
        assert_eq!(moved(&[100.0, 110.0, 135.0], &[130.0, 140.0, 150.0]), None);
        // A thirtieth.
        assert_eq!(moved(&[3_000.0; 3], &[3_100.0; 3]), None);
        // Three more of hardly any.
        assert_eq!(moved(&[1.0; 3], &[4.0; 3]), None);
        assert_eq!(moved(&[0.0; 3], &[4.0; 3]), Some((0.0, 4.0)));
        assert_eq!(moved(&[], &[4.0; 3]), None);
    }

    #[test]
    fn classes_are_named_by_their_blocks() {
        assert_eq!(class_in_words("64.span_bytes").0, "64 B: span");
        assert_eq!(class_in_words("64.allocations").0, "64 B: allocations");
        assert_eq!(class_in_words("large.allocated_bytes").0, "beyond the classes: allocated");
        assert_eq!(class_in_words("").0, " B: ");
    }
}
