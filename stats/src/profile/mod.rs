//! Heap profiles: which call sites hold memory, took it, or pin it. Sampled from the first allocation on; nothing has to be prepared.
//!
//! ```
//! use freestone::Freestone;
//! use freestone_stats::profile::{self, Context, Kind};
//!
//! #[global_allocator]
//! static GLOBAL: Freestone = Freestone::new();
//!
//! let before = profile::take(Kind::Heap);
//! // … an hour later:
//! let profile = profile::take(Kind::Heap);
//! println!("{}", profile.top(profile.kind.default_value(), &mut Context::default()));
//! for row in &profile.since(&before).rows {
//!     println!("{:+} bytes ± {} at {:x?}", row.values[3], row.errors[3], profile.frames(row).collect::<Vec<_>>());
//! }
//! ```
//!
//! | as | by | for |
//! |---|---|---|
//! | pprof | [`Profile::pprof`], [`Profile::write_pprof`] (feature `pprof`) | `go tool pprof`, Pyroscope, Parca, speedscope |
//! | folded text | [`Profile::folded`] | every tool for flame graphs, speedscope |
//! | a table | [`Profile::top`] | people at a terminal |
//! | JSON | [`Profile::json`] (feature `json`) | programs |
//! | DHAT's format | `profile::dhat` (feature `json`) | the Firefox profiler, Valgrind's `dh_view.html` |
//! | a flame graph | [`Profile::flamegraph`] (feature `flamegraph`) | people with a browser |
//!
//! All of them take a [`Context`] that knows what functions and tags are called; the default one knows nothing, and addresses stand where names would.
//! What they allocate while they write is in no profile.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

pub use freestone::profile::{LIFETIME_BUCKETS, ProfileSummary, StallKind};

mod builder;
#[cfg(feature = "json")]
mod dhat;
#[cfg(feature = "flamegraph")]
mod flamegraph;
mod folded;
mod interval;
#[cfg(feature = "json")]
pub mod json;
mod labels;
mod namer;
mod notes;
#[cfg(feature = "pprof")]
pub mod pprof;
mod read;
mod since;
pub(crate) mod sites;
mod stacks;
#[cfg(test)]
mod tests;
mod top;

pub use builder::Builder;
#[cfg(feature = "json")]
pub use dhat::dhat;
pub use interval::interval_95;
pub use namer::{Context, Frame, Namer};
pub use read::take;
pub use sites::{SiteUse, Sites, sites};
use stacks::Stacks;
pub use top::{Top, TopFunction};

/// What a profile is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Kind {
    /// What the program has, and all it ever allocated.
    Heap,
    /// The same, with what it ever allocated in front.
    Allocs,
    /// What the program had when its live bytes were highest.
    Peak,
    /// How long blocks lived.
    Lifetimes,
    /// Free memory that cannot go back because blocks lie beside it.
    Fragmentation,
    /// Threads that the allocator held up.
    Contention,
}

/// A column of a profile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ValueType {
    /// As in the formats of others: `inuse_space`.
    pub name: &'static str,
    /// `count`, `bytes` or `nanoseconds`.
    pub unit: &'static str,
}

const fn of(name: &'static str, unit: &'static str) -> ValueType {
    ValueType { name, unit }
}

/// Columns that a profile has at most.
pub const VALUES_MAX: usize = 4;

impl Kind {
    /// Its name in addresses and file names: `heap`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Heap => "heap",
            Self::Allocs => "allocs",
            Self::Peak => "peak",
            Self::Lifetimes => "lifetimes",
            Self::Fragmentation => "fragmentation",
            Self::Contention => "contention",
        }
    }

    /// All of them.
    pub const ALL: [Self; 6] = [Self::Heap, Self::Allocs, Self::Peak, Self::Lifetimes, Self::Fragmentation, Self::Contention];

    /// The one with this [`name`](Self::name).
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The column with this name: `inuse_space`.
    #[must_use]
    pub fn value_of_name(self, name: &str) -> Option<usize> {
        self.value_types().iter().position(|value| value.name == name)
    }

    /// Does a column only grow, so that a difference says what happened in between? The others are of a moment, and may be less later.
    #[must_use]
    pub const fn is_cumulative(self, value: usize) -> bool {
        match self {
            Self::Heap | Self::Allocs => value < 2,
            Self::Lifetimes | Self::Contention => true,
            Self::Peak | Self::Fragmentation => false,
        }
    }

    /// What [`Row::values`] are, in this order; those beyond are unused. The names and their order are those of Go where Go has them.
    #[must_use]
    pub const fn value_types(self) -> &'static [ValueType] {
        match self {
            Self::Heap | Self::Allocs => {
                const {
                    &[
                        of("alloc_objects", "count"),
                        of("alloc_space", "bytes"),
                        of("inuse_objects", "count"),
                        of("inuse_space", "bytes"),
                    ]
                }
            }
            Self::Peak => const { &[of("inuse_objects", "count"), of("inuse_space", "bytes")] },
            Self::Lifetimes => {
                const {
                    &[
                        of("ended_objects", "count"),
                        of("ended_space", "bytes"),
                        of("temporary_objects", "count"),
                        of("lifetime", "nanoseconds"),
                    ]
                }
            }
            Self::Fragmentation => const { &[of("pinned_space", "bytes"), of("inuse_space", "bytes")] },
            Self::Contention => const { &[of("contentions", "count"), of("delay", "nanoseconds")] },
        }
    }

    /// Which of its columns is shown unless somebody chooses.
    #[must_use]
    pub const fn default_value(self) -> usize {
        match self {
            Self::Heap => 3,
            Self::Allocs | Self::Peak | Self::Contention => 1,
            Self::Lifetimes | Self::Fragmentation => 0,
        }
    }
}

/// One stack under one tag, with blocks of one size class.
///
/// What is known of [lifetimes](Profile::lifetimes) and [stalls](Profile::stall) stands beside, in profiles that are about them.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Row {
    /// Tells it from all others for as long as the process lives: the same in an earlier and a later profile.
    pub id: u64,
    /// A position in [`Stacks`].
    stack: u32,
    /// A place in [`Details`].
    detail: u32,
    /// The tag it was allocated under; 0: none. See [`Context::tags`].
    pub tag: u32,
    /// Bytes of each of its blocks; 0: they differ, or it is not about blocks.
    pub block_bytes: usize,
    /// Samples that the values stand on: of the first of them, where they are of different samples. Of [`Kind::Contention`]: stalls.
    pub samples: u64,
    /// Estimates, one for each of [`Kind::value_types`]. Negative ones are in differences of what is of a moment.
    pub values: [f64; VALUES_MAX],
    /// Their standard errors.
    pub errors: [f64; VALUES_MAX],
}

impl Row {
    /// For [`Builder::push`], without a stack yet; of blocks of different sizes, and without a tag.
    #[must_use]
    pub fn new(id: u64, samples: u64, values: [f64; VALUES_MAX], errors: [f64; VALUES_MAX]) -> Self {
        Self { id, samples, values, errors, ..Self::default() }
    }
}

/// Exact counts of the same moment, of the whole heap, for what is estimated.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Exact {
    /// What each of the profile's values would be if every allocation were a sample; `None`: nobody counts that. Negative ones are in differences.
    pub totals: [Option<i64>; VALUES_MAX],
}

/// What was seen of a thread that the allocator held up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct StallDetail {
    /// Why.
    pub kind: StallKind,
    /// The longest time, ever: in a difference too.
    pub longest: Duration,
}

impl StallDetail {
    /// Why, in the words of formats: `lock`, `slow_path`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self.kind {
            StallKind::Lock => "lock",
            StallKind::SlowPath => "slow_path",
            _ => "other",
        }
    }
}

/// What some kinds of profiles say beyond values.
#[derive(Clone, PartialEq, Debug)]
enum Details {
    None,
    Lifetimes(Vec<[u32; LIFETIME_BUCKETS]>),
    Stalls(Vec<StallDetail>),
}

/// A profile: rows, and what they stand for.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct Profile {
    /// What it is about.
    pub kind: Kind,
    /// When it was taken.
    pub taken: SystemTime,
    /// Of the difference between two: how long it was between them.
    pub duration: Option<Duration>,
    /// All samples together, at the moment it was taken.
    pub summary: ProfileSummary,
    /// Exact counts beside the estimates.
    pub exact: Exact,
    /// Stacks, sizes, tags and their values; of any order.
    pub rows: Vec<Row>,
    details: Details,
    /// Shared with differences, which are of the same stacks.
    stacks: Arc<Stacks>,
}

impl Profile {
    /// The stack of a row: return addresses, innermost first.
    pub fn frames(&self, row: &Row) -> impl DoubleEndedIterator<Item = usize> + ExactSizeIterator + Clone + '_ {
        let addresses = self.stacks.addresses();
        self.stacks.numbers(row.stack).map(|number| addresses[number as usize])
    }

    /// The same as indices of [`addresses`](Self::addresses).
    pub fn frame_indices(&self, row: &Row) -> impl DoubleEndedIterator<Item = usize> + ExactSizeIterator + Clone + '_ {
        self.stacks.numbers(row.stack).map(|number| number as usize)
    }

    /// Is the end of a row's stack missing: that of `main`?
    #[must_use]
    pub fn is_cut(&self, row: &Row) -> bool {
        self.stacks.is_cut(row.stack)
    }

    /// All return addresses of its stacks, each once.
    #[must_use]
    pub fn addresses(&self) -> &[usize] {
        self.stacks.addresses()
    }

    /// In a profile of lifetimes: samples that ended, by how long they had lived. See [`lifetime_bucket_end`].
    #[must_use]
    pub fn lifetimes(&self, row: &Row) -> Option<&[u32; LIFETIME_BUCKETS]> {
        match &self.details {
            Details::Lifetimes(lifetimes) => lifetimes.get(row.detail as usize),
            _ => None,
        }
    }

    /// In a profile of lifetimes: which part of the blocks that ended lived for less than a millisecond, and ended by the hand of the thread that
    /// allocated them.
    #[must_use]
    pub fn temporary_share(&self, row: &Row) -> Option<f64> {
        (self.kind == Kind::Lifetimes && row.values[0] > 0.0).then(|| (row.values[2] / row.values[0]).clamp(0.0, 1.0))
    }

    /// In a profile of contention: what was seen.
    #[must_use]
    pub fn stall(&self, row: &Row) -> Option<StallDetail> {
        match &self.details {
            Details::Stalls(stalls) => stalls.get(row.detail as usize).copied(),
            _ => None,
        }
    }

    /// The sum of a column over all rows.
    #[must_use]
    pub fn total(&self, value: usize) -> f64 {
        self.rows.iter().map(|row| row.values[value]).sum()
    }

    /// Its standard error: rows err independently of each other.
    #[must_use]
    pub fn total_error(&self, value: usize) -> f64 {
        self.rows.iter().map(|row| row.errors[value] * row.errors[value]).sum::<f64>().sqrt()
    }

    /// Samples that it stands on.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.rows.iter().map(|row| row.samples).sum()
    }
}

/// The time that blocks in a bucket of [`Profile::lifetimes`] lived less than, and not less than that of the bucket before; `None`: the last bucket,
/// which has no end.
#[must_use]
pub fn lifetime_bucket_end(bucket: usize) -> Option<Duration> {
    (bucket + 1 < LIFETIME_BUCKETS).then(|| Duration::from_micros(1 << (2 * bucket)))
}
