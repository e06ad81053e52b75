//! Sites one by one: all that is known of each, for who compares them: leaks, advice, tags.
//!
//! A [`Profile`](super::Profile) has the columns of one view in the form of others' formats; this has the heap's own words, in less memory: the 64
//! places for a stack are most of a [`Site`], so stacks are kept apart, each once.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::SystemTime;

use freestone::profile::{self, Estimate, LIFETIME_BUCKETS, ProfileSummary, Site};

/// One stack that allocated blocks of one size under one tag, and what became of them: [`Site`] without what only profiles need.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
#[non_exhaustive]
pub struct SiteUse {
    /// Tells it from all others for as long as the process lives.
    pub id: u64,
    /// Bytes of each of its blocks; 0: they differ.
    pub block_bytes: usize,
    /// The tag it was allocated under; 0: none. See [`crate::tag`](mod@crate::tag).
    pub tag: u32,
    /// All that it ever allocated.
    pub allocated: Estimate,
    /// Of these, what the program still has.
    pub live: Estimate,
    /// Of `allocated`, blocks whose end nobody will see.
    pub untracked: Estimate,
    /// Of `allocated`, blocks that took the place of a smaller or larger one.
    pub grown: Estimate,
    /// Blocks that ended.
    pub ended: Estimate,
    /// Of these, those that ended within a millisecond, by the hand of the thread that allocated them.
    pub temporary: Estimate,
    /// How long those that ended had lived: the sum over estimated blocks, in nanoseconds.
    pub lifetime_ns: f64,
    /// Samples that ended, by how long they had lived: each bucket ends at four times as much as the one before, the first at 1 µs.
    pub lifetimes: [u32; LIFETIME_BUCKETS],
    /// Bytes of `allocated` that were asked for.
    pub requested_bytes: f64,
    /// When it was sampled first, as in [`Sites::at_ns`].
    pub first_ns: u64,
    /// When it was sampled last.
    pub last_ns: u64,
    /// Which stack: the same in an earlier and a later `Sites`, but for accidents of one in 2⁶⁴.
    pub stack_key: u64,
    pub(crate) stack: u32,
}

/// All call sites of a moment.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct Sites {
    /// When it was taken, on the clock of [`freestone::Snapshot::at_ns`].
    pub at_ns: u64,
    /// The same on the clock on the wall.
    pub taken: SystemTime,
    /// All samples together.
    pub summary: ProfileSummary,
    /// The sites, in no order.
    pub sites: Vec<SiteUse>,
    stacks: Stacks,
}

/// The sites of this moment. Nobody is stopped; what it allocates is not in it.
#[must_use]
pub fn sites() -> Sites {
    profile::without_samples(|| {
        let mut all = Sites::new(freestone::snapshot().at_ns, &profile::summary());
        let mut stacks = HashMap::new();
        profile::each_site(|site| all.add(site, &mut stacks));
        all
    })
}

impl Sites {
    pub(crate) fn new(at_ns: u64, summary: &ProfileSummary) -> Self {
        Self { at_ns, taken: SystemTime::now(), summary: *summary, sites: Vec::new(), stacks: Stacks::default() }
    }

    /// The stack of a site: return addresses, innermost first.
    #[must_use]
    pub fn frames(&self, site: &SiteUse) -> &[usize] {
        self.stacks.frames(site.stack)
    }

    fn add(&mut self, site: &Site, known: &mut HashMap<u64, u32>) {
        self.add_with(&SiteUse::of(site), site.stack.frames(), known);
    }

    /// Puts a site to the others; `known` has the stacks so far.
    pub(crate) fn add_with(&mut self, site: &SiteUse, frames: &[usize], known: &mut HashMap<u64, u32>) {
        let stack_key = key_of(frames);
        let stack = *known.entry(stack_key).or_insert_with(|| self.stacks.push(frames));
        self.sites.push(SiteUse { stack_key, stack, ..*site });
    }
}

impl SiteUse {
    fn of(site: &Site) -> Self {
        Self {
            id: site.id,
            block_bytes: site.block_bytes,
            tag: site.tag,
            allocated: site.allocated,
            live: site.live,
            untracked: site.untracked,
            grown: site.grown,
            ended: site.ended,
            temporary: site.temporary,
            lifetime_ns: site.lifetime_ns,
            lifetimes: site.lifetimes,
            requested_bytes: site.requested_bytes,
            first_ns: site.first_ns,
            last_ns: site.last_ns,
            stack_key: 0,
            stack: 0,
        }
    }
}

/// What tells stacks apart.
pub(crate) fn key_of(frames: &[usize]) -> u64 {
    // With the same keys each time: two moments are compared.
    let mut hasher = DefaultHasher::new();
    frames.hash(&mut hasher);
    hasher.finish()
}

/// Stacks one after the other.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Stacks {
    frames: Vec<usize>,
    ends: Vec<usize>,
}

impl Stacks {
    fn push(&mut self, frames: &[usize]) -> u32 {
        self.frames.extend_from_slice(frames);
        self.ends.push(self.frames.len());
        self.ends.len() as u32 - 1
    }

    fn frames(&self, stack: u32) -> &[usize] {
        let index = stack as usize;
        let begin = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.frames[begin..self.ends[index]]
    }
}

/// Adds up estimates of different blocks: errors add up as squares.
pub(crate) fn sum(a: Estimate, b: Estimate) -> Estimate {
    let mut sum = a;
    sum.samples += b.samples;
    sum.objects += b.objects;
    sum.bytes += b.bytes;
    sum.objects_variance += b.objects_variance;
    sum.bytes_variance += b.bytes_variance;
    sum
}

/// What came to an estimate that only grows, between two moments.
pub(crate) fn since(later: Estimate, earlier: Estimate) -> Estimate {
    let mut since = later;
    since.samples = later.samples.saturating_sub(earlier.samples);
    since.objects = (later.objects - earlier.objects).max(0.0);
    since.bytes = (later.bytes - earlier.bytes).max(0.0);
    since.objects_variance = (later.objects_variance - earlier.objects_variance).max(0.0);
    since.bytes_variance = (later.bytes_variance - earlier.bytes_variance).max(0.0);
    since
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacks_are_kept_once_and_found_again() {
        let mut all = Sites::new(5, &ProfileSummary::default());
        let mut known = HashMap::new();
        let stacks: [&[usize]; 4] = [&[1, 2, 3], &[], &[9], &[1, 2, 3]];
        for (id, frames) in stacks.iter().enumerate() {
            all.add_with(&SiteUse { id: id as u64, ..SiteUse::default() }, frames, &mut known);
        }
        for (site, frames) in all.sites.iter().zip(stacks) {
            assert_eq!(all.frames(site), frames);
        }
        assert_eq!(all.stacks.ends.len(), 3, "one of them was there");
        assert_eq!(all.sites[0].stack_key, all.sites[3].stack_key);
        assert_ne!(all.sites[0].stack_key, all.sites[1].stack_key);
    }

    #[test]
    fn differences_are_never_negative() {
        let mut few = Estimate::default();
        (few.samples, few.bytes, few.bytes_variance) = (3, 7.0, 2.0);
        assert_eq!(since(few, few), Estimate::default());
        assert_eq!(since(Estimate::default(), few), Estimate::default());
        assert_eq!(sum(few, few).samples, 6);
        assert_eq!(since(sum(few, few), few), few);
    }
}
