//! Profiles are put together row by row.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::stacks::Interner;
use super::{Details, Exact, Kind, LIFETIME_BUCKETS, Profile, ProfileSummary, Row, StallDetail, StallKind};

/// Puts a profile together: for tests of whatever reads profiles, and for samples that come from elsewhere.
///
/// ```
/// use freestone_stats::profile::{Builder, Kind, Row};
///
/// let mut builder = Builder::new(Kind::Peak);
/// builder.push(Row::new(1, 1, [8192.0, 524_288.0, 0.0, 0.0], [8191.5, 524_256.0, 0.0, 0.0]), &[0x1234, 0x5678]);
/// let profile = builder.finish();
/// assert_eq!(profile.total(1), 524_288.0);
/// assert_eq!(profile.frames(&profile.rows[0]).collect::<Vec<_>>(), [0x1234, 0x5678]);
/// ```
#[derive(Debug)]
pub struct Builder {
    kind: Kind,
    rows: Vec<Row>,
    details: Details,
    interner: Interner,
}

impl Builder {
    /// No rows yet.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        Self::with_rows(kind, 0)
    }

    /// As [`new`](Self::new), with room for so many rows.
    pub(super) fn with_rows(kind: Kind, rows: usize) -> Self {
        Self { kind, rows: Vec::with_capacity(rows), details: Details::of(kind), interner: Interner::default() }
    }

    /// One more row, with its stack: return addresses, innermost first.
    pub fn push(&mut self, row: Row, frames: &[usize]) {
        self.push_row(row, frames, false, Detail::None);
    }

    /// One more row of a profile of lifetimes; of others, as [`push`](Self::push).
    pub fn push_lifetimes(&mut self, row: Row, frames: &[usize], lifetimes: [u32; LIFETIME_BUCKETS]) {
        self.push_row(row, frames, false, Detail::Lifetimes(lifetimes));
    }

    /// One more row of a profile of contention; of others, as [`push`](Self::push).
    pub fn push_stall(&mut self, row: Row, frames: &[usize], kind: StallKind, longest: Duration) {
        self.push_row(row, frames, false, Detail::Stall(StallDetail { kind, longest }));
    }

    pub(super) fn push_row(&mut self, mut row: Row, frames: &[usize], is_cut: bool, detail: Detail) {
        row.detail = self.details.push(detail);
        row.stack = self.interner.stack(frames.iter().copied(), is_cut);
        push(&mut self.rows, row);
    }

    /// The profile of all rows, taken now, with nothing known of exact counts and of samples.
    #[must_use]
    pub fn finish(self) -> Profile {
        Profile {
            kind: self.kind,
            taken: SystemTime::now(),
            duration: None,
            summary: ProfileSummary::default(),
            exact: Exact::default(),
            rows: self.rows,
            details: self.details,
            stacks: Arc::new(self.interner.into_stacks()),
        }
    }
}

/// What a row says beyond values.
#[derive(Debug)]
pub(super) enum Detail {
    None,
    Lifetimes([u32; LIFETIME_BUCKETS]),
    Stall(StallDetail),
}

impl Details {
    /// No details, of the sort that a profile of this kind has.
    pub(super) fn of(kind: Kind) -> Self {
        match kind {
            Kind::Lifetimes => Self::Lifetimes(Vec::new()),
            Kind::Contention => Self::Stalls(Vec::new()),
            _ => Self::None,
        }
    }

    /// Notes what it has room for, and says where.
    pub(super) fn push(&mut self, detail: Detail) -> u32 {
        match (self, detail) {
            (Self::Lifetimes(all), Detail::Lifetimes(lifetimes)) => push(all, lifetimes),
            (Self::Stalls(all), Detail::Stall(stall)) => push(all, stall),
            _ => u32::MAX,
        }
    }
}

/// Rows of large profiles take many megabytes: they grow by an eighth, not to twice as many.
fn push<T>(all: &mut Vec<T>, one: T) -> u32 {
    if all.len() == all.capacity() {
        all.reserve_exact((all.len() / 8).max(64));
    }
    all.push(one);
    (all.len() - 1) as u32
}
