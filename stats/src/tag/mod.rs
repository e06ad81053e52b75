//! Tags: which part of the program it is that allocates: a component, a tenant, a kind of request.
//!
//! ```
//! # use freestone::Freestone;
//! # #[global_allocator]
//! # static GLOBAL: Freestone = Freestone::new();
//! use freestone_stats::tag::{self, Tagged};
//!
//! fn ingest() -> Vec<String> {
//!     let _t = freestone_stats::tag("ingest");
//!     // All that this thread allocates from here on, until `_t` ends, is on account of "ingest".
//!     (0..100).map(|number| format!("row {number}")).collect()
//! }
//! let rows = ingest();
//!
//! // A future takes its tag along, wherever it is polled, and wherever it ends.
//! let work = async { vec![0_u8; 4096] }.tagged("tenant-42");
//! # drop(work);
//!
//! for tag in tag::tags() {
//!     println!("{}: {} bytes in {} allocations", tag.name, tag.allocated_bytes, tag.allocations);
//! }
//! # drop(rows);
//! ```
//!
//! # What is exact, and what is not
//!
//! *Allocations and their bytes* are exact: the allocator counts for each thread anyway, and a scope reads these counts where it begins and where it
//! ends. What happens in an inner scope is the inner tag's own, and in the [total](TagStats::total_allocations) of both. *Live bytes* are estimated from
//! samples, with an error, because nothing is written into a block that could say whose it is when it ends.
//!
//! # How many
//!
//! The set of tags is bounded ([`set_max`]): names may come from a request, and every tag is a row in each export, for good. Names beyond are all counted
//! under the tag `other`, and as [refused](refused()).
//!
//! # Cost
//!
//! Nothing where no tag is set. A scope costs 0.13 µs with a [`Tag`] made beforehand, most of it two readings of the thread's counts; to find a name takes
//! 0.03 µs more. A poll of a tagged future costs what a scope with a `Tag` does. (2026-11-21, EPYC, busy; `examples/tag_cost.rs`.)

mod budget;
mod desk;
mod future;
mod registry;

use std::fmt;
use std::marker::PhantomData;

use freestone::profile::{self, Estimate};

use crate::profile::sites;

pub(crate) use budget::check as check_budgets;
pub use budget::{Budget, BudgetError, BudgetEvent, BudgetState, budget};
pub use future::{Tagged, TaggedFuture};

/// The number of the tag `other`.
const OTHER: u32 = 1;
/// So many tags there may be, unless [`set_max`] says otherwise.
pub const MAX_DEFAULT: usize = 1024;
/// What [`set_max`] takes at most.
pub const MAX_LIMIT: usize = 65_536;
/// A longer name is cut.
pub const NAME_BYTES_MAX: usize = 128;

/// A tag: a small number that stands for a name. Copied freely; to find the name's number once and not at every scope.
///
/// ```
/// use freestone_stats::tag::Tag;
///
/// let ingest = Tag::new("ingest");
/// for _ in 0..3 {
///     let _t = freestone_stats::tag(ingest);
/// }
/// assert_eq!(ingest.name(), Some("ingest"));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Tag(u32);

impl Tag {
    /// No tag: what is allocated within its scope is on nobody's account, whatever is outside of it.
    pub const NONE: Self = Self(0);

    /// The tag of this name. Names are cut to [`NAME_BYTES_MAX`]; the empty one is [`Tag::NONE`]; one too many is the tag `other`.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(registry::find_or_insert(cut(name)))
    }

    /// Its number, as in [`freestone::profile::Site::tag`].
    #[must_use]
    pub const fn id(self) -> u32 {
        self.0
    }

    /// Its name. `None`: [`Tag::NONE`].
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        name(self.0)
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tag").field(&self.name().unwrap_or("none")).finish()
    }
}

impl From<&str> for Tag {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

impl From<&String> for Tag {
    fn from(name: &String) -> Self {
        Self::new(name)
    }
}

/// As much of a name as there is room for.
fn cut(name: &str) -> &str {
    &name[..name.floor_char_boundary(NAME_BYTES_MAX)]
}

/// Puts all that the calling thread allocates on account of a tag, until the scope that comes back is dropped. Scopes may lie in each other: the innermost
/// counts.
///
/// One that ends before one within it is taken out of the middle, and the innermost goes on. More than 32 different ones within each other are one too
/// many: from there on all is on account of the 32nd.
///
/// ```
/// let _t = freestone_stats::tag("ingest");
/// ```
pub fn tag(tag: impl Into<Tag>) -> Scope {
    Scope { serial: desk::enter(tag.into()), _not_send: PhantomData }
}

/// A stretch of a thread's time that is on account of a tag: from [`tag()`] until this is dropped.
#[must_use = "a scope ends when it is dropped: let _t = tag(…), with a name"]
pub struct Scope {
    serial: Option<desk::Serial>,
    /// A thread's counts are its own.
    _not_send: PhantomData<*const ()>,
}

impl Drop for Scope {
    fn drop(&mut self) {
        if let Some(serial) = self.serial {
            desk::leave(serial);
        }
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").finish_non_exhaustive()
    }
}

/// The name of a tag's number, as in [`freestone::profile::Site::tag`]. `None`: 0, or nobody's number.
#[must_use]
pub fn name(id: u32) -> Option<&'static str> {
    registry::get(id).map(registry::Entry::name)
}

/// Changes how many tags there may be, from 1 to [`MAX_LIMIT`]; 1,024 unless told otherwise. Those that are there stay.
pub fn set_max(max: usize) {
    registry::set_max(max.clamp(1, MAX_LIMIT));
}

/// How often a name was refused because there were as many as there may be.
#[must_use]
pub fn refused() -> u64 {
    registry::refused()
}

/// What is on account of a tag. Counts only grow.
#[derive(Clone, Copy, PartialEq, Debug)]
#[non_exhaustive]
pub struct TagStats {
    /// The tag.
    pub tag: Tag,
    /// Its name.
    pub name: &'static str,
    /// Scopes that began, and polls of futures.
    pub enters: u64,
    /// Blocks allocated in its scopes, without those in scopes within them: exact.
    pub allocations: u64,
    /// Their bytes, at block size: exact.
    pub allocated_bytes: u64,
    /// Blocks allocated in its scopes, and in all within them: exact, once the scopes have ended.
    pub total_allocations: u64,
    /// Their bytes, at block size.
    pub total_allocated_bytes: u64,
    /// What of all this is still there: an estimate.
    pub live: Estimate,
}

impl TagStats {
    /// The standard error of what is live, in bytes.
    #[must_use]
    pub fn live_error_bytes(&self) -> f64 {
        self.live.bytes_variance.sqrt()
    }
}

/// All tags there are, the one that allocated most first; the tag `other` among them if it was used. Scopes that have not ended count as far as they have come.
#[must_use]
pub fn tags() -> Vec<TagStats> {
    profile::without_samples(|| {
        let mut tags = all();
        tags.sort_by_key(|stats| (std::cmp::Reverse(stats.allocated_bytes), stats.tag.0));
        tags
    })
}

/// All tags that were used, in the order in which they came up.
fn all() -> Vec<TagStats> {
    let mut tags: Vec<TagStats> = registry::all().into_iter().map(registry::Entry::stats).collect();
    desk::add_open(&mut tags);
    tags.retain(|stats| stats.tag.0 != OTHER || stats.enters > 0);
    if !tags.is_empty() {
        let live = live_by_tag();
        for stats in &mut tags {
            stats.live = live.get(stats.tag.0 as usize).copied().unwrap_or_default();
        }
    }
    tags
}

/// Estimates of what is live, by number of the tag.
fn live_by_tag() -> Vec<Estimate> {
    let mut live = vec![Estimate::default(); registry::count() + OTHER as usize + 1];
    profile::each_site(|site| {
        if let Some(sum) = live.get_mut(site.tag as usize) {
            *sum = sites::sum(*sum, site.live);
        }
    });
    live
}

/// So many tags have a line of their own in [`report`], and samples of their own in metrics.
pub(crate) const EXPORTED: usize = 128;

/// For metrics: the first so many tags that came up, so that none goes away again, and last of all the others together.
pub(crate) fn for_export() -> Vec<TagStats> {
    profile::without_samples(|| {
        let mut tags = all();
        // `other` is the first by number. It takes in what has no line of its own.
        let other = tags.iter().position(|stats| stats.tag.0 == OTHER).map(|place| tags.remove(place));
        let rest = tags.split_off(tags.len().min(EXPORTED));
        let others = rest.into_iter().chain(other).reduce(|sum, more| TagStats {
            tag: Tag(OTHER),
            name: registry::OTHER_NAME,
            enters: sum.enters + more.enters,
            allocations: sum.allocations + more.allocations,
            allocated_bytes: sum.allocated_bytes + more.allocated_bytes,
            total_allocations: sum.total_allocations + more.total_allocations,
            total_allocated_bytes: sum.total_allocated_bytes + more.total_allocated_bytes,
            live: sites::sum(sum.live, more.live),
        });
        tags.extend(others.map(|others| TagStats { tag: Tag(OTHER), name: registry::OTHER_NAME, ..others }));
        tags
    })
}

/// All tags as a table, for a terminal.
#[must_use]
pub fn report() -> String {
    use bytesize::ByteSize;
    use std::fmt::Write as _;

    let tags = tags();
    if tags.is_empty() {
        return "no tag was ever set: let _t = freestone_stats::tag(\"ingest\"), or future.tagged(\"tenant-42\")\n".to_owned();
    }
    let mut text = format!(
        "{:<32}{:>12}{:>16}{:>12}{:>12}{:>22}\n",
        "tag", "scopes", "allocations", "allocated", "with inner", "live, about"
    );
    for stats in tags.iter().take(EXPORTED) {
        let name: String = stats.name.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).take(31).collect();
        let live = format!("{} ± {}", ByteSize(stats.live.bytes as u64), ByteSize(stats.live_error_bytes() as u64));
        let _ = writeln!(
            text,
            "{name:<32}{:>12}{:>16}{:>12}{:>12}{live:>22}",
            stats.enters,
            stats.allocations,
            ByteSize(stats.allocated_bytes).to_string(),
            ByteSize(stats.total_allocated_bytes).to_string(),
        );
    }
    if tags.len() > EXPORTED {
        let _ = writeln!(text, "and {} tags more", tags.len() - EXPORTED);
    }
    if refused() > 0 {
        let _ = writeln!(text, "{} scopes had a name too many, and are counted under `{}`", refused(), registry::OTHER_NAME);
    }
    text
}

#[cfg(test)]
mod tests;
