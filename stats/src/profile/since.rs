//! The difference between two profiles: what happened in between.
//!
//! Columns that only grow are subtracted; so are those of a moment, where less than before is a negative number, as in Go's `?seconds=`. A site of the
//! earlier profile that the later one does not know was forgotten meanwhile, because nothing of it was alive any more: it has lost what it had.
//!
//! How far off differences are: a sample that is in both profiles cancels out, whatever it stands for. So of sums that only grow, the variance of the
//! difference is the difference of the variances, exactly. What is live changed by blocks that came and blocks that went. All that came, at most, is what
//! was allocated in between; what went is what must have gone for the sum to be what it is:
//!
//! ```text
//!   variance(live later − live earlier)  ≤  came + went  =  came + (live earlier + came − live later)      (variances, all of them)
//! ```
//!
//! and it is never more than that of both together, which is what is known of columns without a sum of what came. A heap in which nothing happened thus
//! differs by 0 ± 0.

use std::sync::Arc;

use super::builder::Detail;
use super::stacks::{Interner, NumberMap};
use super::{Details, Exact, Kind, LIFETIME_BUCKETS, Profile, Row, VALUES_MAX};

impl Profile {
    /// What happened since `earlier`, which is of the same process and kind. In columns [of a moment](Kind::is_cumulative) less than before is a negative
    /// number. Rows in which nothing happened are not in it.
    ///
    /// # Panics
    ///
    /// If `earlier` is of another kind: their columns have nothing in common.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        assert_eq!(self.kind.value_types(), earlier.kind.value_types(), "profiles of one kind can be compared");
        freestone::profile::without_samples(|| Difference::new(self, earlier).finish())
    }
}

struct Difference<'a> {
    later: &'a Profile,
    earlier: &'a Profile,
    rows: Vec<Row>,
    details: Details,
}

impl<'a> Difference<'a> {
    fn new(later: &'a Profile, earlier: &'a Profile) -> Self {
        Self { later, earlier, rows: Vec::new(), details: Details::of(later.kind) }
    }

    fn finish(mut self) -> Profile {
        let (later, earlier) = (self.later, self.earlier);
        let mut before: NumberMap<u64, u32> =
            earlier.rows.iter().enumerate().map(|(index, row)| (row.id, index as u32)).collect();
        for row in &later.rows {
            let old = before.remove(&row.id).map(|index| &earlier.rows[index as usize]);
            self.push(row, old);
        }
        let stacks = self.gone(before.into_values());
        let totals = |index: usize| Some(later.exact.totals[index]?.saturating_sub(earlier.exact.totals[index]?));
        Profile {
            kind: later.kind,
            taken: later.taken,
            duration: Some(later.taken.duration_since(earlier.taken).unwrap_or_default()),
            summary: later.summary,
            exact: Exact { totals: std::array::from_fn(totals) },
            rows: self.rows,
            details: self.details,
            stacks,
        }
    }

    /// A row that the later profile has.
    fn push(&mut self, row: &Row, old: Option<&Row>) {
        let nothing = Row::default();
        let old_row = old.unwrap_or(&nothing);
        let mut difference = Row { samples: row.samples.abs_diff(old_row.samples), ..row.clone() };
        for index in 0..VALUES_MAX {
            difference.values[index] = row.values[index] - old_row.values[index];
            difference.errors[index] = error(self.later.kind, index, row, old_row);
        }
        if difference.values.iter().all(|&value| value == 0.0) {
            return;
        }
        difference.detail = self.details.push(self.detail(row, old));
        self.rows.push(difference);
    }

    /// What is beyond values: histograms are subtracted.
    fn detail(&self, row: &Row, old: Option<&Row>) -> Detail {
        if let Some(lifetimes) = self.later.lifetimes(row) {
            let before = old.and_then(|row| self.earlier.lifetimes(row)).copied().unwrap_or([0; LIFETIME_BUCKETS]);
            return Detail::Lifetimes(std::array::from_fn(|bucket| lifetimes[bucket].saturating_sub(before[bucket])));
        }
        self.later.stall(row).map_or(Detail::None, Detail::Stall)
    }

    /// Rows that only the earlier profile has: what they had is gone. They bring their stacks.
    fn gone(&mut self, rows: impl Iterator<Item = u32>) -> Arc<super::Stacks> {
        let (kind, earlier) = (self.later.kind, self.earlier);
        let mut gone: Vec<&Row> = rows.map(|index| &earlier.rows[index as usize]).collect();
        let of_a_moment = |row: &Row, index: usize| !kind.is_cumulative(index) && row.values[index] != 0.0;
        gone.retain(|row| (0..VALUES_MAX).any(|index| of_a_moment(row, index)));
        if gone.is_empty() {
            return Arc::clone(&self.later.stacks);
        }
        // By their place in the profile: maps have no order of their own, and what is written of it is to be the same every time.
        gone.sort_unstable_by_key(|row| row.id);
        let mut interner = Interner::of(self.later.stacks.as_ref().clone());
        for row in gone {
            let kept = |index: usize, value: f64| if kind.is_cumulative(index) { 0.0 } else { value };
            let frames: Vec<usize> = earlier.frames(row).collect();
            self.rows.push(Row {
                stack: interner.stack(frames.iter().copied(), earlier.is_cut(row)),
                detail: u32::MAX,
                samples: 0,
                values: std::array::from_fn(|index| kept(index, -row.values[index])),
                errors: std::array::from_fn(|index| kept(index, row.errors[index])),
                ..row.clone()
            });
        }
        Arc::new(interner.into_stacks())
    }
}

/// The standard error of a difference. See the top of this file.
fn error(kind: Kind, index: usize, row: &Row, old: &Row) -> f64 {
    let variance = |row: &Row, index: usize| row.errors[index] * row.errors[index];
    let (now, before) = (variance(row, index), variance(old, index));
    if kind.is_cumulative(index) {
        return (now - before).max(0.0).sqrt();
    }
    let both = now + before;
    let least = (now - before).abs();
    let bound = match kind {
        Kind::Heap | Kind::Allocs => {
            // What came is two columns before what is live.
            let came = (variance(row, index - 2) - variance(old, index - 2)).max(0.0);
            (came + (before + came - now)).clamp(least, both)
        }
        _ => both,
    };
    bound.sqrt()
}

#[cfg(test)]
mod tests;
