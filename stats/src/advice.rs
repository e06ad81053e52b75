//! Advice: which call sites allocate more than they need to, and what would save it.
//!
//! ```
//! # use freestone::Freestone;
//! # #[global_allocator]
//! # static GLOBAL: Freestone = Freestone::new();
//! let advice = freestone_stats::advice();
//! for item in &advice.items {
//!     println!("{}: {} {}", item.kind.key(), item.sentence, item.advice);
//! }
//! ```
//!
//! All of it is made from samples, so what stands on few of them is not said at all: an item names its confidence, and is left out where the standard error
//! of what it is about is more than a third of it.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt;

use bytesize::ByteSize;
use freestone::profile::{self, Estimate};

use crate::frames::Names;
use crate::profile::sites::{self, SiteUse, Sites, sum};
use crate::verdict::Confidence;

/// What is less than this share of all is not worth anybody's time.
const SHARE_MIN: f64 = 0.01;
/// Of all bytes, what is lost as slack at one place is much sooner: nobody has anything of it.
const SLACK_SHARE_MIN: f64 = 0.001;
/// Fewer samples say nothing.
const SAMPLES_MIN: u64 = 16;
/// Standard errors, as a share of what they are errors of: below the first is high confidence, below the second medium; above nothing is said.
const ERRORS_MAX: [f64; 2] = [0.15, 1.0 / 3.0];
/// Blocks are temporary by nature if this share of them is.
const TEMPORARY_MIN: f64 = 0.5;
/// Buffers that move so often as they grow are worth a capacity.
const MOVES_MIN: f64 = 2.0;
/// Slack of such a share of a block is much.
const SLACK_MIN: f64 = 0.06;
/// So many of each kind.
const ITEMS_PER_KIND: usize = 5;
/// Blocks up to this size fit on a stack.
const STACK_BYTES: f64 = 1024.0;
/// Blocks up to this size are small: an arena packs them.
const SMALL_BYTES: f64 = 512.0;

/// What an item is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum Kind {
    /// Many blocks.
    Count,
    /// Many bytes.
    Bytes,
    /// Blocks that end within a millisecond, on the thread that allocated them.
    Temporary,
    /// Buffers that move as they grow.
    Growth,
    /// Blocks larger than what was asked for.
    Slack,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Count, Self::Bytes, Self::Temporary, Self::Growth, Self::Slack];

    /// Its name in exports: lower case; stable.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Bytes => "bytes",
            Self::Temporary => "temporary",
            Self::Growth => "growth",
            Self::Slack => "slack",
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::Count => "most blocks",
            Self::Bytes => "most bytes",
            Self::Temporary => "gone within a millisecond",
            Self::Growth => "moved as they grew",
            Self::Slack => "larger than asked for",
        }
    }
}

/// What could be better at a call site.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct Item {
    /// What it is about.
    pub kind: Kind,
    /// How sure that is.
    pub confidence: Confidence,
    /// What there is, in a sentence.
    pub sentence: String,
    /// What to do about it, in a sentence.
    pub advice: String,
    /// Its part in all blocks, or in all bytes, of what it is about.
    pub share: f64,
    /// Blocks it is about, by samples.
    pub blocks: f64,
    /// Their bytes.
    pub bytes: f64,
    /// The standard error of those.
    pub error_bytes: f64,
    /// Samples that it stands on.
    pub samples: u64,
    /// Bytes of each of its blocks. `None`: they differ.
    pub block_bytes: Option<usize>,
    /// The tag it allocates under; 0: none.
    pub tag: u32,
    /// Where it is: return addresses, innermost first.
    pub frames: Vec<usize>,
}

/// What [`advice`] found. Prints as a report.
#[derive(Clone, PartialEq, Debug, Default)]
#[non_exhaustive]
pub struct Advice {
    /// What could be better, by kind; of each kind that with the largest share first, up to five.
    pub items: Vec<Item>,
    /// Call sites that were looked at.
    pub sites: usize,
    /// Samples that all of it stands on.
    pub samples: u64,
    /// Bytes between two samples, on average; 0: sampling is off.
    pub sample_interval: usize,
}

/// Which call sites allocate more than they need to, by all samples since the start of the process.
#[must_use]
pub fn advice() -> Advice {
    profile::without_samples(|| {
        let heap = freestone::snapshot();
        let sizes: Vec<usize> = heap.classes.iter().map(|class| class.block_bytes).collect();
        of(&sites::sites(), &sizes)
    })
}

/// Sites that have something in common.
#[derive(Clone, Debug, Default)]
struct Group {
    /// One of them, for its frames and its tag.
    first: usize,
    block_bytes: Option<usize>,
    allocated: Estimate,
    live: Estimate,
    grown: Estimate,
    ended: Estimate,
    temporary: Estimate,
    lifetime_ns: f64,
    largest: usize,
}

impl Group {
    fn put(&mut self, site: &SiteUse) {
        if self.allocated.samples == 0 {
            self.block_bytes = (site.block_bytes > 0).then_some(site.block_bytes);
        } else if self.block_bytes != Some(site.block_bytes) {
            self.block_bytes = None;
        }
        self.allocated = sum(self.allocated, site.allocated);
        self.live = sum(self.live, site.live);
        self.grown = sum(self.grown, site.grown);
        self.ended = sum(self.ended, site.ended);
        self.temporary = sum(self.temporary, site.temporary);
        self.lifetime_ns += site.lifetime_ns;
        self.largest = self.largest.max(site.block_bytes);
    }

    fn mean_bytes(&self) -> f64 {
        if self.allocated.objects > 0.0 { self.allocated.bytes / self.allocated.objects } else { 0.0 }
    }

    fn temporary_share(&self) -> f64 {
        if self.ended.objects > 0.0 { self.temporary.objects / self.ended.objects } else { 0.0 }
    }

    /// What to do about blocks as these are.
    fn remedy(&self) -> &'static str {
        let (is_short, size) = (self.temporary_share() >= TEMPORARY_MIN, self.mean_bytes());
        if is_short && size <= STACK_BYTES {
            "Keep them on the stack (an array, a `SmallVec`), or keep one and use it again."
        } else if is_short {
            "Keep one buffer and use it again: `clear()` instead of a new one."
        } else if self.live.objects > self.allocated.objects / 2.0 && size <= SMALL_BYTES {
            "They stay: an arena, or one `Vec` of all of them, takes less memory and less time."
        } else if self.ended.objects > self.allocated.objects / 2.0 && size > SMALL_BYTES {
            "They come and go: a pool hands the same ones out again."
        } else {
            "Fewer and larger ones do the same: `with_capacity`, an arena, or shared slices."
        }
    }
}

/// How sure is what has such a standard error? `None`: not enough to speak of.
fn confidence(value: f64, variance: f64, samples: u64) -> Option<Confidence> {
    let error = variance.sqrt() / value.max(f64::MIN_POSITIVE);
    match samples {
        0..SAMPLES_MIN => None,
        _ if error <= ERRORS_MAX[0] => Some(Confidence::High),
        _ if error <= ERRORS_MAX[1] => Some(Confidence::Medium),
        _ => None,
    }
}

fn grouped(sites: &Sites, key: impl Fn(&SiteUse, &[usize]) -> u64) -> Vec<Group> {
    let mut places: HashMap<(u64, u32), usize> = HashMap::new();
    let mut groups: Vec<Group> = Vec::new();
    for (number, site) in sites.sites.iter().enumerate().filter(|(_, site)| site.allocated.samples > 0) {
        let place = *places.entry((key(site, sites.frames(site)), site.tag)).or_insert_with(|| {
            groups.push(Group { first: number, ..Group::default() });
            groups.len() - 1
        });
        groups[place].put(site);
    }
    groups
}

fn of(sites: &Sites, sizes: &[usize]) -> Advice {
    let all = sites.sites.iter().fold(Estimate::default(), |all, site| sum(all, site.allocated));
    let by_stack = grouped(sites, |site, _| site.stack_key);
    // What allocates a buffer and what moves it are different calls in one function: their callers are the same.
    let by_caller =
        grouped(sites, |site, frames| frames.get(1..).filter(|rest| !rest.is_empty()).map_or(site.stack_key, sites::key_of));
    let look = Look { sites, all, sizes };
    let mut items = Vec::new();
    Look::best(&mut items, SHARE_MIN, by_stack.iter().filter_map(|group| look.count(group)));
    Look::best(&mut items, SHARE_MIN, by_stack.iter().filter_map(|group| look.bytes(group)));
    Look::best(&mut items, SHARE_MIN, by_stack.iter().filter_map(|group| look.temporary(group)));
    Look::best(&mut items, SHARE_MIN, by_caller.iter().filter_map(|group| look.growth(group)));
    Look::best(&mut items, SLACK_SHARE_MIN, sites.sites.iter().enumerate().filter_map(|(number, site)| look.slack(number, site)));
    Advice { items, sites: by_stack.len(), samples: all.samples, sample_interval: sites.summary.interval }
}

struct Look<'a> {
    sites: &'a Sites,
    all: Estimate,
    /// Of blocks, the smallest first.
    sizes: &'a [usize],
}

impl Look<'_> {
    /// Those with the largest shares.
    fn best(items: &mut Vec<Item>, least: f64, found: impl Iterator<Item = Item>) {
        let mut found: Vec<Item> = found.filter(|item| item.share >= least).collect();
        found.sort_by_key(|item| Reverse((item.share * 1e9) as u64));
        found.truncate(ITEMS_PER_KIND);
        items.append(&mut found);
    }

    /// An item about a part of what a group allocated.
    fn item(&self, kind: Kind, group: &Group, of: Estimate, share: f64, confidence: Confidence, words: [String; 2]) -> Item {
        let site = &self.sites.sites[group.first];
        let [sentence, advice] = words;
        Item {
            kind,
            confidence,
            sentence,
            advice,
            share,
            blocks: of.objects,
            bytes: of.bytes,
            error_bytes: of.bytes_variance.sqrt(),
            samples: of.samples,
            block_bytes: group.block_bytes,
            tag: site.tag,
            frames: self.sites.frames(site).to_vec(),
        }
    }

    fn share_of_blocks(&self, blocks: f64) -> f64 {
        blocks / self.all.objects.max(1.0)
    }

    fn share_of_bytes(&self, bytes: f64) -> f64 {
        bytes / self.all.bytes.max(1.0)
    }

    fn count(&self, group: &Group) -> Option<Item> {
        let of = group.allocated;
        let confidence = confidence(of.objects, of.objects_variance, of.samples)?;
        let share = self.share_of_blocks(of.objects);
        let (blocks, size, percent) = (short(of.objects), bytes(group.mean_bytes()), share * 100.0);
        let sentence = format!("{blocks} blocks of {size} come from here, {percent:.0} % of all blocks.");
        Some(self.item(Kind::Count, group, of, share, confidence, [sentence, group.remedy().to_owned()]))
    }

    fn bytes(&self, group: &Group) -> Option<Item> {
        let of = group.allocated;
        let confidence = confidence(of.bytes, of.bytes_variance, of.samples)?;
        let share = self.share_of_bytes(of.bytes);
        let (all, size, percent) = (bytes(of.bytes), bytes(group.mean_bytes()), share * 100.0);
        let sentence = format!("{all} come from here in blocks of {size}, {percent:.0} % of all bytes.");
        Some(self.item(Kind::Bytes, group, of, share, confidence, [sentence, group.remedy().to_owned()]))
    }

    fn temporary(&self, group: &Group) -> Option<Item> {
        let of = group.temporary;
        let part = group.temporary_share();
        let confidence = confidence(of.objects, of.objects_variance, of.samples).filter(|_| part >= TEMPORARY_MIN)?;
        let (blocks, size, percent) = (short(of.objects), bytes(group.mean_bytes()), part * 100.0);
        let sentence = format!(
            "{percent:.0} % of the blocks from here end within a millisecond, on the thread that took them: {blocks} of {size}."
        );
        let share = self.share_of_blocks(of.objects);
        Some(self.item(Kind::Temporary, group, of, share, confidence, [sentence, group.remedy().to_owned()]))
    }

    fn growth(&self, group: &Group) -> Option<Item> {
        let (moved, all) = (group.grown, group.allocated);
        let fresh = all.objects - moved.objects;
        let fresh_variance = (all.objects_variance - moved.objects_variance).max(0.0);
        let moved_confidence = confidence(moved.objects, moved.objects_variance, moved.samples)?;
        let share = self.share_of_blocks(moved.objects).max(self.share_of_bytes(moved.bytes));
        let largest = match group.largest {
            0 => "more than a size class has".to_owned(),
            size => format!("up to {}", bytes(size as f64)),
        };
        // How many there were at first is often hard to tell: they are small, and few of them samples.
        let fresh_confidence = confidence(fresh, fresh_variance, all.samples - moved.samples);
        let (words, confidence) = match fresh_confidence {
            Some(_) if moved.objects < MOVES_MIN * fresh => return None,
            Some(of_fresh) => {
                let moves = moved.objects / fresh;
                let sentence = format!("Each of {} buffers moved {moves:.0} times as it grew, {largest}.", short(fresh));
                (
                    [sentence, format!("`with_capacity` or `reserve` would save {moves:.0} moves each.")],
                    moved_confidence.min(of_fresh),
                )
            }
            None => {
                let sentence = format!("Buffers moved {} times as they grew, {largest}.", short(moved.objects));
                (
                    [sentence, "`with_capacity` or `reserve` would save these moves.".to_owned()],
                    Confidence::Medium.min(moved_confidence),
                )
            }
        };
        Some(self.item(Kind::Growth, group, moved, share, confidence, words))
    }

    fn slack(&self, number: usize, site: &SiteUse) -> Option<Item> {
        let of = site.allocated;
        let confidence = confidence(of.bytes, of.bytes_variance, of.samples)?;
        let block = site.block_bytes;
        let lost = 1.0 - site.requested_bytes / of.bytes.max(1.0);
        if block == 0 || !(SLACK_MIN..1.0).contains(&lost) {
            return None;
        }
        let request = block as f64 * (1.0 - lost);
        let below = self.sizes.iter().copied().filter(|&size| size < block).max().filter(|&size| request > size as f64)?;
        // A sum of weights is not round to the last digit.
        let less = (request - below as f64 - 0.01).ceil();
        let (saved, percent) = (1.0 - below as f64 / block as f64, lost * 100.0);
        let sentence =
            format!("{request:.0} bytes are asked for here, on average, and a block has {block}: {percent:.0} % lost.");
        let advice = format!("{less:.0} bytes less would do with {below}, and save {:.0} % of it.", saved * 100.0);
        let mut group = Group { first: number, ..Group::default() };
        group.put(site);
        let share = self.share_of_bytes(of.bytes * lost);
        let mut item = self.item(Kind::Slack, &group, of, share, confidence, [sentence, advice]);
        (item.bytes, item.error_bytes) = (of.bytes * lost, of.bytes_variance.sqrt() * lost);
        Some(item)
    }
}

fn bytes(bytes: f64) -> ByteSize {
    ByteSize(bytes.max(0.0) as u64)
}

/// A number of things with three digits or so.
fn short(count: f64) -> String {
    match count {
        ..1e4 => format!("{count:.0}"),
        ..1e6 => format!("{:.1} k", count / 1e3),
        ..1e9 => format!("{:.1} M", count / 1e6),
        _ => format!("{:.1} G", count / 1e9),
    }
}

/// So many frames of a stack are printed.
const FRAMES_PRINTED: usize = 8;

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { items, sites, samples, sample_interval } = self;
        if *sample_interval == 0 && *samples == 0 {
            return writeln!(f, "sampling is off: there is no advice");
        }
        writeln!(f, "by {samples} samples at {sites} call sites:")?;
        if items.is_empty() {
            writeln!(f, "nothing stands out, or there are too few samples to tell")?;
        }
        let (mut last, mut names) = (None, Names::new());
        for item in items {
            if last.replace(item.kind) != Some(item.kind) {
                writeln!(f, "\n{}", item.kind.title())?;
            }
            let tag = crate::tag::name(item.tag).map_or_else(String::new, |tag| format!(" [tag {tag}]"));
            writeln!(f, "  {} ({} confidence, {} samples){tag}", item.sentence, item.confidence, item.samples)?;
            writeln!(f, "  {}", item.advice)?;
            f.write_str(&names.lines(&item.frames, FRAMES_PRINTED, 2))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use freestone::profile::ProfileSummary;

    use super::*;

    const INTERVAL: f64 = 524_288.0;

    /// As many samples as chance would bring about, of so many blocks.
    fn estimate(blocks: f64, size: usize) -> Estimate {
        let (size, mut estimate) = (size as f64, Estimate::default());
        let chance = 1.0 - (-size / INTERVAL).exp();
        let weight = 1.0 / chance;
        estimate.samples = (blocks * chance).round() as u64;
        let samples = estimate.samples as f64;
        (estimate.objects, estimate.bytes) = (samples * weight, samples * weight * size);
        estimate.objects_variance = samples * weight * (weight - 1.0);
        estimate.bytes_variance = estimate.objects_variance * size * size;
        estimate
    }

    struct Made {
        sites: Sites,
        known: HashMap<u64, u32>,
    }

    impl Made {
        fn new() -> Self {
            let mut summary = ProfileSummary::default();
            summary.interval = INTERVAL as usize;
            Self { sites: Sites::new(1, &summary), known: HashMap::new() }
        }

        fn put(&mut self, frames: &[usize], size: usize, blocks: f64, change: impl FnOnce(&mut SiteUse)) {
            let mut site = SiteUse { block_bytes: size, allocated: estimate(blocks, size), ..SiteUse::default() };
            site.requested_bytes = site.allocated.bytes;
            change(&mut site);
            self.sites.add_with(&site, frames, &mut self.known);
        }

        fn items(&self, kind: Kind) -> Vec<Item> {
            let sizes: Vec<usize> = (1..=72).map(|class| class * 64).collect();
            of(&self.sites, &sizes).items.into_iter().filter(|item| item.kind == kind).collect()
        }
    }

    #[test]
    fn buffers_that_grow_are_counted_with_what_they_began_as() {
        let mut made = Made::new();
        // A million buffers of 32 bytes, doubled eleven times; allocated and moved by two calls of one function, with the same callers.
        made.put(&[100, 7, 8], 32, 1e6, |_| ());
        for step in 1..=11 {
            made.put(&[140, 7, 8], 32 << step, 1e6, |site| site.grown = site.allocated);
        }
        let [item] = &made.items(Kind::Growth)[..] else { panic!("{:?}", made.items(Kind::Growth)) };
        assert_eq!(item.advice, "`with_capacity` or `reserve` would save 11 moves each.");
        assert!(
            item.sentence.starts_with("Each of ") && item.sentence.contains(" buffers moved 11 times as it grew, up to 64.0 KiB")
        );
        assert!(item.confidence >= Confidence::Medium, "{item:?}");
        // Of one that moves once, nothing is said.
        let mut made = Made::new();
        made.put(&[100, 7, 8], 4096, 1e6, |_| ());
        made.put(&[140, 7, 8], 8192, 1e6, |site| site.grown = site.allocated);
        assert_eq!(made.items(Kind::Growth), []);
    }

    #[test]
    fn slack_says_how_many_bytes_too_many_there_are() {
        let mut made = Made::new();
        made.put(&[1], 576, 1e6, |site| site.requested_bytes = site.allocated.bytes * 520.0 / 576.0);
        // In a class that fits, and in one that cannot be helped.
        made.put(&[2], 576, 1e6, |_| ());
        made.put(&[3], 64, 1e6, |site| site.requested_bytes = site.allocated.bytes / 2.0);
        let [item] = &made.items(Kind::Slack)[..] else { panic!("{:?}", made.items(Kind::Slack)) };
        assert_eq!(item.sentence, "520 bytes are asked for here, on average, and a block has 576: 10 % lost.");
        assert_eq!(item.advice, "8 bytes less would do with 512, and save 11 % of it.");
        assert_eq!(item.frames, [1]);
    }

    #[test]
    fn what_is_gone_at_once_goes_on_the_stack_or_is_used_again() {
        let mut made = Made::new();
        for (place, size) in [(1, 64), (2, 4096)] {
            made.put(&[place], size, 3e6, |site| (site.ended, site.temporary) = (site.allocated, site.allocated));
        }
        let mut items = made.items(Kind::Temporary);
        items.sort_by_key(|item| item.block_bytes);
        let advice: Vec<String> = items.into_iter().map(|item| item.advice).collect();
        assert_eq!(advice.len(), 2);
        assert!(advice[0].contains("stack") && advice[1].contains("`clear()`"), "{advice:?}");
    }

    #[test]
    fn what_stands_on_little_is_not_said() {
        let mut made = Made::new();
        // Nine samples.
        made.put(&[1], 4096, 1200.0, |_| ());
        let advice = of(&made.sites, &[4096]);
        assert_eq!(advice.items, []);
        assert_eq!(advice.samples, 9);
        assert!(advice.to_string().contains("too few samples"), "{advice}");
        assert_eq!(Advice::default().to_string(), "sampling is off: there is no advice\n");
    }

    #[test]
    fn the_best_come_first_and_are_few() {
        let mut made = Made::new();
        for place in 1..=20 {
            made.put(&[place], 4096, 1e5 * place as f64, |_| ());
        }
        let items = made.items(Kind::Bytes);
        assert_eq!(items.iter().map(|item| item.frames[0]).collect::<Vec<_>>(), [20, 19, 18, 17, 16]);
        assert!((items[0].share - 20.0 / 210.0).abs() < 1e-3, "{}", items[0].share);
    }
}
