//! Leaks: which call sites take memory that never comes back.
//!
//! ```
//! # use freestone::Freestone;
//! # #[global_allocator]
//! # static GLOBAL: Freestone = Freestone::new();
//! use freestone_stats::profile;
//!
//! let earlier = profile::sites();
//! // … some minutes of work later:
//! let later = profile::sites();
//! let leaks = freestone_stats::leaks(&earlier, &later);
//! assert!(leaks.leaks.is_empty());
//! println!("{leaks}");
//! ```
//!
//! Everything that works grows now and then. A leak is growth that *survives*, and three things tell:
//!
//! 1. **Chance.** A profile is made of samples. Growth counts if it is so many standard errors that, among as many sites as there are, chance would not
//!    bring it about once in a hundred looks. What lives in both moments is the same samples, and so adds no error to the difference.
//! 2. **Age.** Blocks of a site that come and go live for a while, and so many of them are there as come in that while: rate × lifetime (Little's law), twice
//!    that at the top of a sawtooth. Growth up to there is no leak; nor is growth at a site that has stopped allocating, or where blocks took the
//!    places of others that ended elsewhere.
//! 3. **The way it went.** If the [`history`] runs, it keeps what the largest sites had at some moments in between. What is there for good is the lowest
//!    that comes later: a sawtooth has no such growth, a burst has it in the end only, a cache that is full not any more. A leak has it all the time.
//!
//! With nothing but two moments the third is missing: what grows more and more slowly looks like a leak then, and the [confidence](Growth::confidence) is never
//! high.

mod marks;
mod report;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use bytesize::ByteSize;
use freestone::profile::{self, Estimate};

use crate::frames::Names;
use crate::profile::sites::{self, SiteUse, Sites, since, sum};
use crate::verdict::{Confidence, Verdict};
use crate::{history, verdict};

pub(crate) use marks::{Mark, remember};
pub(crate) use report::start_from_environment;

/// Growth of fewer bytes is none, …
const GROWTH_BYTES_MIN: f64 = (512 << 10) as f64;
/// … nor is that of such a share of all that lives, …
const GROWTH_SHARE_MIN: f64 = 0.005;
/// … nor what stands on fewer samples.
const SAMPLES_MIN: u64 = 8;
/// In so many looks, chance may bring about one leak.
const LOOKS_PER_FALSE_ALARM: f64 = 100.0;
/// Small programs are looked at as if they had so many sites: many of them look.
const SITES_AT_LEAST: usize = 100;
/// A site has stopped if nothing came for this part of the time, …
const STOPPED_SHARE: f64 = 0.1;
/// … and for so many times what usually passes between two samples.
const STOPPED_GAPS: f64 = 6.0;
/// Blocks that come and go are so many times rate × lifetime, at most: a sawtooth, at its top, twice.
const LITTLE: f64 = 2.0;
/// Lifetimes are known from so many ends on.
const ENDS_MIN: u64 = 4;
/// So many moments, the two ends included, show which way it went.
const READINGS_MIN: usize = 6;
/// Growth in a part of the time is too slow to belong to a leak below this share of what it should be, …
const PACE_MIN: f64 = 0.3;
/// … and in the second half below this one: what grows ever more slowly is on its way to an end, …
const PACE_LATE_MIN: f64 = 0.6;
/// … if what is missing is so many standard errors of what should be there.
const PACE_ERRORS: f64 = 2.0;
/// What happens in the end is left out: whatever comes and goes may be at its top just then.
const WITHOUT_END: f64 = 0.875;
/// From so many moments on it shows in how many steps it grew: …
const STEPS_READINGS_MIN: usize = 12;
/// … of a leak the largest so many …
const STEPS: usize = 3;
/// … are no more than this share.
const STEPS_SHARE_MAX: f64 = 0.7;
/// So many sites that grow without leaking are told.
const OTHERS_TOLD: usize = 10;

/// What is going on at a site that has more than it had.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Kind {
    /// It takes memory that never comes back, and goes on taking.
    Leak,
    /// It has grown by so little that it may be chance, or of no matter.
    Slight,
    /// It has grown, and nothing came for a while: it took what it needed.
    Stopped,
    /// What it has is what comes in as much time as its blocks live.
    Lifetimes,
    /// Its blocks took the places of others that ended elsewhere.
    Replacement,
    /// It grew less and less: it is full, or will be.
    LevelsOff,
    /// It grew at the end of the time only.
    Recent,
    /// It grew in a few large steps: a pool, or a table that doubles.
    Steps,
    /// The program has more to do than it had, and so needs more.
    Load,
}

impl Kind {
    /// Its name in exports: lower case, with underscores; stable.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::Leak => "leak",
            Self::Slight => "slight",
            Self::Stopped => "stopped",
            Self::Lifetimes => "lifetimes",
            Self::Replacement => "replacement",
            Self::LevelsOff => "levels_off",
            Self::Recent => "recent",
            Self::Steps => "steps",
            Self::Load => "load",
        }
    }

    /// What it means, in a few words.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Leak => "never comes back",
            Self::Slight => "may be chance",
            Self::Stopped => "has stopped growing",
            Self::Lifetimes => "its blocks end, after a while",
            Self::Replacement => "took the place of others",
            Self::LevelsOff => "grows less and less",
            Self::Recent => "began to grow just now",
            Self::Steps => "grew in a few large steps",
            Self::Load => "grows with the load",
        }
    }
}

/// A call site that has more than it had: one stack under one tag, blocks of all sizes together.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct Growth {
    /// What is going on.
    pub kind: Kind,
    /// How sure that is.
    pub confidence: Confidence,
    /// The tag it allocates under; 0: none.
    pub tag: u32,
    /// Bytes of each of its blocks. `None`: they differ.
    pub block_bytes: Option<usize>,
    /// By how many bytes it has grown.
    pub grown_bytes: f64,
    /// The standard error of that.
    pub error_bytes: f64,
    /// By how many blocks.
    pub grown_blocks: f64,
    /// How much of this survives, by all that is known: what the site is ranked by, less its error.
    pub surviving_bytes: f64,
    /// How much an hour that makes, at this pace.
    pub bytes_per_hour: f64,
    /// The standard error of that.
    pub error_per_hour: f64,
    /// Its part in all that has grown.
    pub share: f64,
    /// What it has.
    pub live_bytes: f64,
    /// What it allocated meanwhile.
    pub allocated_bytes: f64,
    /// By how many samples it has grown.
    pub samples: u64,
    /// How long ago it was seen first, which none of its blocks is older than.
    pub age: Duration,
    /// How long blocks of it lived that ended meanwhile, on average. `None`: none or few did.
    pub lifetime: Option<Duration>,
    /// How many standard errors what survives is.
    pub score: f64,
    /// Moments that it was seen at.
    pub readings: usize,
    /// Where it is: return addresses, innermost first.
    pub frames: Vec<usize>,
}

impl Growth {
    /// What it is ranked by: what survives, if chance was against it.
    fn rank(&self) -> f64 {
        self.surviving_bytes - 2.0 * self.error_bytes
    }
}

/// What [`leaks`] found. Prints as a list, with stacks.
#[derive(Clone, PartialEq, Debug, Default)]
#[non_exhaustive]
pub struct Leaks {
    /// From the earlier moment to the later one.
    pub interval: Duration,
    /// Sites that leak, the worst first.
    pub leaks: Vec<Growth>,
    /// Sites that have grown for other reasons, the most first: up to ten.
    pub others: Vec<Growth>,
    /// Call sites that were looked at.
    pub sites: usize,
    /// Samples there were meanwhile.
    pub samples: u64,
    /// Bytes between two samples, on average; 0: sampling is off, and nothing can be said.
    pub sample_interval: usize,
}

/// Which sites took memory from one moment to another that never comes back. Given in the wrong order, the two show nothing.
#[must_use]
pub fn leaks(earlier: &Sites, later: &Sites) -> Leaks {
    profile::without_samples(|| {
        let marks = marks::between(earlier.at_ns, later.at_ns);
        find(earlier, later, &marks, grows_with_load(earlier.at_ns, later.at_ns))
    })
}

/// Which sites took memory in the last so much time that never comes back, as far as the [`history`] goes back. The first call starts it.
#[must_use]
pub fn recent(reach: Duration) -> Leaks {
    history::start();
    profile::without_samples(|| {
        let later = sites::sites();
        let begin_ns = later.at_ns.saturating_sub(reach.as_nanos() as u64);
        // What was there before the first mark is not known.
        let mark = marks::at(begin_ns).or_else(|| marks::between(begin_ns, later.at_ns).into_iter().next());
        let begin_ns = mark.as_ref().map_or(begin_ns, |mark| mark.at_ns.max(begin_ns));
        let marks = marks::between(begin_ns, later.at_ns);
        judge(&since_then(begin_ns, &later, mark.as_ref()), begin_ns, &later, &marks, grows_with_load(begin_ns, later.at_ns))
    })
}

/// Does the [`history`] know of a load that explains growth?
fn grows_with_load(begin_ns: u64, end_ns: u64) -> bool {
    let points = history::points();
    let first = points.partition_point(|point| point.at_ns < begin_ns);
    let last = points.partition_point(|point| point.at_ns <= end_ns).max(first);
    let points = &points[first..last];
    // Few points show growth, but not what it goes with.
    points.len() >= verdict::Thresholds::DEFAULT.points_min && verdict::judge(points).verdict == Verdict::GrowthWithLoad
}

/// The sites that a verdict of a leak is about: the worst three that have grown since, leaks first.
pub(crate) fn suspects(begin_ns: u64) -> Vec<Growth> {
    profile::without_samples(|| {
        let later = sites::sites();
        let marks = marks::between(begin_ns, later.at_ns);
        let groups = since_then(begin_ns, &later, marks::at(begin_ns).as_ref());
        let Leaks { leaks, others, .. } = judge(&groups, begin_ns, &later, &marks, false);
        let mut all: Vec<Growth> = leaks.into_iter().chain(others).collect();
        // The verdict has said already that it is not chance.
        let least = all.first().map_or(0.0, |first| first.surviving_bytes / 10.0).max(1.0);
        all.retain(|growth| growth.surviving_bytes >= least);
        all.truncate(3);
        all
    })
}

/// What two moments say of one stack under one tag.
#[derive(Clone, Debug, Default)]
struct Group {
    tag: u32,
    /// A site of it, for its frames.
    site: usize,
    sizes: Vec<usize>,
    /// Sites of it, by number.
    ids: Vec<u64>,
    before: Estimate,
    live: Estimate,
    /// In between: allocated, …
    allocated: Estimate,
    /// … and ended.
    ended: Estimate,
    lifetime_ns: f64,
    first_ns: u64,
    last_ns: u64,
}

impl Group {
    fn put(&mut self, later: &SiteUse, before: Estimate, allocated: Estimate, ended: Estimate, lifetime_ns: f64) {
        self.before = sum(self.before, before);
        self.live = sum(self.live, later.live);
        self.allocated = sum(self.allocated, allocated);
        self.ended = sum(self.ended, ended);
        self.lifetime_ns += lifetime_ns;
        self.first_ns = if self.ids.is_empty() { later.first_ns } else { self.first_ns.min(later.first_ns) };
        self.last_ns = self.last_ns.max(later.last_ns);
        self.ids.push(later.id);
        self.sizes.push(later.block_bytes);
    }

    /// Sizes of its blocks.
    fn range(&self) -> RangeInclusive<usize> {
        let smallest = self.sizes.iter().copied().min().unwrap_or(0);
        smallest..=self.sizes.iter().copied().max().unwrap_or(0)
    }

    fn grown(&self) -> f64 {
        self.live.bytes - self.before.bytes
    }

    /// The variance of [`grown`](Self::grown): of samples, and of a number of blocks that comes and goes.
    fn variance(&self) -> f64 {
        // What lives in both moments is the same samples; what came and went in between counts twice in the first sum.
        let samples = (self.allocated.bytes_variance + self.ended.bytes_variance)
            .min(self.before.bytes_variance + self.live.bytes_variance);
        let least = if self.before.objects < self.live.objects { self.before } else { self.live };
        let block = if least.objects > 0.0 { least.bytes / least.objects } else { 0.0 };
        samples + 2.0 * least.objects * block * block
    }
}

/// Groups by stack and tag, from two moments.
fn between(earlier: &Sites, later: &Sites) -> Vec<Group> {
    let known: HashMap<u64, &SiteUse> = earlier.sites.iter().map(|site| (site.id, site)).collect();
    grouped(later, |site| {
        let nothing = SiteUse::default();
        let before = known.get(&site.id).copied().unwrap_or(&nothing);
        (
            before.live,
            since(site.allocated, before.allocated),
            since(site.ended, before.ended),
            (site.lifetime_ns - before.lifetime_ns).max(0.0),
        )
    })
}

/// The same where of the earlier moment only a mark is known, or nothing: then as if every site had grown at one pace all the time.
fn since_then(begin_ns: u64, later: &Sites, mark: Option<&Mark>) -> Vec<Group> {
    grouped(later, |site| {
        let (age, reach) = (later.at_ns.saturating_sub(site.first_ns), later.at_ns.saturating_sub(begin_ns));
        let part = if age > reach { reach as f64 / age as f64 } else { 1.0 };
        let rest = match mark {
            _ if part >= 1.0 => 0.0,
            Some(mark) if site.live.bytes > 0.0 => (mark.live(site.id) / site.live.bytes).min(1.0),
            Some(_) => 0.0,
            None => 1.0 - part,
        };
        (times(site.live, rest), times(site.allocated, part), times(site.ended, part), site.lifetime_ns * part)
    })
}

/// A part of an estimate.
fn times(whole: Estimate, part: f64) -> Estimate {
    let mut result = whole;
    result.samples = (whole.samples as f64 * part).round() as u64;
    result.objects *= part;
    result.bytes *= part;
    result.objects_variance *= part;
    result.bytes_variance *= part;
    result
}

fn grouped(later: &Sites, of: impl Fn(&SiteUse) -> (Estimate, Estimate, Estimate, f64)) -> Vec<Group> {
    let mut places: HashMap<(u64, u32), usize> = HashMap::new();
    let mut groups: Vec<Group> = Vec::new();
    for (number, site) in later.sites.iter().enumerate() {
        let place = *places.entry((site.stack_key, site.tag)).or_insert_with(|| {
            groups.push(Group { tag: site.tag, site: number, ..Group::default() });
            groups.len() - 1
        });
        let (before, allocated, ended, lifetime_ns) = of(site);
        groups[place].put(site, before, allocated, ended, lifetime_ns);
    }
    groups
}

/// [`leaks`], with all that it looks at handed in.
fn find(earlier: &Sites, later: &Sites, marks: &[Mark], with_load: bool) -> Leaks {
    if later.at_ns <= earlier.at_ns {
        return Leaks { sample_interval: later.summary.interval, ..Leaks::default() };
    }
    let mut leaks = judge(&between(earlier, later), earlier.at_ns, later, marks, with_load);
    leaks.samples = later.summary.samples.saturating_sub(earlier.summary.samples);
    leaks
}

fn judge(groups: &[Group], begin_ns: u64, later: &Sites, marks: &[Mark], with_load: bool) -> Leaks {
    let end_ns = later.at_ns;
    let is_active = |group: &Group| group.allocated.samples > 0 && group.last_ns > begin_ns;
    let look = Look {
        begin_ns,
        end_ns,
        marks,
        score_min: score_min(groups.iter().filter(|group| is_active(group)).count()),
        bytes_min: GROWTH_BYTES_MIN.max(GROWTH_SHARE_MIN * groups.iter().map(|group| group.live.bytes).sum::<f64>()),
        all_grown: groups.iter().map(|group| group.grown().max(0.0)).sum::<f64>().max(1.0),
        vacated: vacated(groups, begin_ns, end_ns),
        with_load,
    };
    let mut growths: Vec<Growth> = groups
        .iter()
        .filter(|group| group.grown() > 0.0)
        .map(|group| look.at(group, later.frames(&later.sites[group.site])))
        .collect();
    growths.sort_by(|a, b| b.rank().total_cmp(&a.rank()));
    let (leaks, mut others): (Vec<Growth>, Vec<Growth>) = growths.into_iter().partition(|growth| growth.kind == Kind::Leak);
    others.sort_by(|a, b| b.grown_bytes.total_cmp(&a.grown_bytes));
    others.truncate(OTHERS_TOLD);
    Leaks {
        interval: Duration::from_nanos(end_ns.saturating_sub(begin_ns)),
        leaks,
        others,
        sites: groups.len(),
        samples: groups.iter().map(|group| group.allocated.samples).sum(),
        sample_interval: later.summary.interval,
    }
}

/// So many standard errors are more than chance brings about among so many sites, but for one look in a hundred.
fn score_min(sites: usize) -> f64 {
    let odds = (sites.max(SITES_AT_LEAST) as f64 * LOOKS_PER_FALSE_ALARM).ln();
    // The tail of a normal distribution, but for terms that do not matter here.
    (2.0 * odds - (4.0 * std::f64::consts::PI * odds).ln()).sqrt()
}

/// Nothing came for long.
fn has_stopped(group: &Group, begin_ns: u64, end_ns: u64) -> bool {
    let began = begin_ns.max(group.first_ns);
    let gap = group.last_ns.saturating_sub(began) as f64 / group.allocated.samples.max(1) as f64;
    let silence = end_ns.saturating_sub(group.last_ns) as f64;
    silence > STOPPED_SHARE * end_ns.saturating_sub(begin_ns) as f64 && silence > STOPPED_GAPS * gap
}

/// What is known beyond the site itself.
struct Look<'a> {
    begin_ns: u64,
    end_ns: u64,
    marks: &'a [Mark],
    score_min: f64,
    bytes_min: f64,
    all_grown: f64,
    vacated: Vec<Vacated>,
    with_load: bool,
}

impl Look<'_> {
    fn at(&self, group: &Group, stack: &[usize]) -> Growth {
        let interval = self.end_ns.saturating_sub(self.begin_ns) as f64;
        let grown = group.grown();
        let error = group.variance().sqrt();
        let rows = self.readings(group);
        let lifetime_ns =
            (group.ended.samples >= ENDS_MIN && group.ended.objects > 0.0).then(|| group.lifetime_ns / group.ended.objects);
        let (kind, surviving) = self.explain(group, &rows, error, lifetime_ns);
        // Less than the whole was looked at, and so was its error.
        let looked_at = if rows.len() >= READINGS_MIN { WITHOUT_END.sqrt() } else { 1.0 };
        let score = if error > 0.0 { surviving / (error * looked_at) } else { f64::from(u16::MAX) };
        let samples = group.live.samples.saturating_sub(group.before.samples);
        let is_slight = surviving < self.bytes_min || samples < SAMPLES_MIN || score < self.score_min;
        let kind = match kind {
            Kind::Leak if is_slight => Kind::Slight,
            kind => kind,
        };
        let confidence = match rows.len() {
            0..READINGS_MIN if score < 1.5 * self.score_min => Confidence::Low,
            READINGS_MIN.. if score >= 1.5 * self.score_min => Confidence::High,
            _ => Confidence::Medium,
        };
        let per_hour = 3.6e12 / interval.max(1.0);
        let same_size = group.sizes.iter().all(|size| *size == group.sizes[0] && *size > 0);
        Growth {
            kind,
            confidence,
            tag: group.tag,
            block_bytes: same_size.then(|| group.sizes[0]),
            grown_bytes: grown,
            error_bytes: error,
            grown_blocks: (group.live.objects - group.before.objects).max(0.0),
            surviving_bytes: surviving,
            bytes_per_hour: surviving * per_hour,
            error_per_hour: error * per_hour,
            share: grown / self.all_grown,
            live_bytes: group.live.bytes,
            allocated_bytes: group.allocated.bytes,
            samples,
            age: Duration::from_nanos(self.end_ns.saturating_sub(group.first_ns)),
            lifetime: lifetime_ns.map(|ns| Duration::from_nanos(ns as u64)),
            score,
            readings: rows.len(),
            frames: stack.to_vec(),
        }
    }

    /// Of its blocks, how many bytes may have taken the places of others that ended: those of a size that it has too.
    fn replaced(&self, group: &Group) -> f64 {
        let own = group.range();
        let is_alike = |gone: &&Vacated| gone.sizes.start() <= own.end() && own.start() <= gone.sizes.end();
        self.vacated.iter().filter(is_alike).map(|gone| gone.bytes).sum()
    }

    /// When, from 0 to 1, it had how much.
    fn readings(&self, group: &Group) -> Vec<(f64, f64)> {
        let interval = self.end_ns.saturating_sub(self.begin_ns).max(1) as f64;
        let of_marks =
            self.marks.iter().filter(|mark| self.begin_ns < mark.at_ns && mark.at_ns < self.end_ns).filter_map(|mark| {
                let live: f64 = group.ids.iter().map(|&id| mark.live(id)).sum();
                // Not among those that were written down: it may have had as much as the least of these.
                (live > 0.0 || mark.is_whole()).then(|| ((mark.at_ns - self.begin_ns) as f64 / interval, live))
            });
        [(0.0, group.before.bytes)].into_iter().chain(of_marks).chain([(1.0, group.live.bytes)]).collect()
    }

    /// What is going on, and how much of the growth survives.
    fn explain(&self, group: &Group, rows: &[(f64, f64)], error: f64, lifetime_ns: Option<f64>) -> (Kind, f64) {
        let grown = group.grown();
        if has_stopped(group, self.begin_ns, self.end_ns) {
            return (Kind::Stopped, 0.0);
        }
        // How it went is known at some moments only, and a program may be at the top of something in each of them. So what comes and goes is left out in any case.
        let busy_ns = self.end_ns.saturating_sub(self.begin_ns.max(group.first_ns)).max(1) as f64;
        let transient = lifetime_ns.map_or(0.0, |lifetime| LITTLE * group.allocated.bytes / busy_ns * lifetime);
        let mut surviving = grown - (transient - group.before.bytes).max(0.0);
        if surviving < grown / 4.0 {
            return (Kind::Lifetimes, surviving.max(0.0));
        }
        if rows.len() >= READINGS_MIN {
            let (kind, lasting) = the_way_it_went(rows, error);
            surviving = surviving.min(lasting);
            if kind != Kind::Leak {
                return (kind, surviving);
            }
        }
        let replaced = self.replaced(group).min(surviving);
        if replaced > surviving / 2.0 {
            return (Kind::Replacement, surviving - replaced);
        }
        surviving -= replaced;
        if self.with_load { (Kind::Load, surviving) } else { (Kind::Leak, surviving) }
    }
}

/// Bytes that ended at a site that has stopped, of blocks of these sizes: others may have taken their places.
struct Vacated {
    sizes: RangeInclusive<usize>,
    bytes: f64,
}

fn vacated(groups: &[Group], begin_ns: u64, end_ns: u64) -> Vec<Vacated> {
    let stopped = groups.iter().filter(|group| group.ended.bytes > 0.0 && has_stopped(group, begin_ns, end_ns));
    stopped.map(|group| Vacated { sizes: group.range(), bytes: group.ended.bytes }).collect()
}

/// What is there for good at a moment is the lowest that comes later. A leak has more and more of it, all the time.
fn the_way_it_went(rows: &[(f64, f64)], error: f64) -> (Kind, f64) {
    // From 0 to 1, without the end.
    let lasting = |at: f64| {
        let from = at * WITHOUT_END;
        rows.iter().filter(|(when, _)| *when >= from).map(|(_, live)| *live).fold(f64::INFINITY, f64::min)
    };
    let all = lasting(1.0) - lasting(0.0);
    let grown = rows.last().map_or(0.0, |last| last.1) - rows.first().map_or(0.0, |first| first.1);
    if all <= 0.1 * grown {
        return (Kind::Recent, all.max(0.0));
    }
    let per_byte = error * error / grown.max(1.0);
    let is_slow = |from: f64, to: f64, pace_min: f64| {
        let expected = (to - from) * all;
        let missing = expected - (lasting(to) - lasting(from));
        missing > (1.0 - pace_min) * expected && missing >= PACE_ERRORS * (expected * per_byte).sqrt()
    };
    let surviving = all / WITHOUT_END;
    if is_slow(0.0, 0.5, PACE_MIN) {
        (Kind::Recent, surviving)
    } else if is_slow(0.5, 1.0, PACE_LATE_MIN) || is_slow(0.75, 1.0, PACE_MIN) {
        (Kind::LevelsOff, surviving)
    } else if in_few_steps(rows, lasting, all) {
        (Kind::Steps, surviving)
    } else {
        (Kind::Leak, surviving)
    }
}

/// Did most of it come in a few steps?
fn in_few_steps(rows: &[(f64, f64)], lasting: impl Fn(f64) -> f64, all: f64) -> bool {
    let levels: Vec<f64> = rows.iter().map(|(when, _)| when / WITHOUT_END).filter(|when| *when <= 1.0).map(lasting).collect();
    let mut steps: Vec<f64> = levels.windows(2).map(|pair| pair[1] - pair[0]).collect();
    steps.sort_by(|a, b| b.total_cmp(a));
    rows.len() >= STEPS_READINGS_MIN && steps.iter().take(STEPS).sum::<f64>() > STEPS_SHARE_MAX * all
}

/// So many frames of a stack are printed.
const FRAMES_PRINTED: usize = 12;
/// So many leaks are.
const LEAKS_PRINTED: usize = 10;

impl fmt::Display for Leaks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { interval, leaks, others, sites, samples, sample_interval } = self;
        if *sample_interval == 0 {
            return writeln!(f, "sampling is off: nothing can be said about leaks");
        }
        let (mut names, seconds) = (Names::new(), interval.as_secs_f64());
        match leaks.len() {
            0 => writeln!(f, "no leak in {seconds:.1} s, at {sites} call sites with {samples} samples")?,
            1 => writeln!(f, "one call site leaks, of {sites} with {samples} samples in {seconds:.1} s")?,
            count => writeln!(f, "{count} call sites leak, of {sites} with {samples} samples in {seconds:.1} s")?,
        }
        for (place, leak) in leaks.iter().take(LEAKS_PRINTED).enumerate() {
            write!(f, "{:>3}. ", place + 1)?;
            leak.write(f, &mut names)?;
        }
        if leaks.len() > LEAKS_PRINTED {
            writeln!(f, "  and {} more", leaks.len() - LEAKS_PRINTED)?;
        }
        if !others.is_empty() {
            writeln!(f, "grown, and no leak:")?;
        }
        for other in others {
            let place = other.frames.first().map_or_else(|| "an unknown place".to_owned(), |&frame| names.name(frame));
            let (grown, error) = (ByteSize(other.grown_bytes as u64), ByteSize(other.error_bytes as u64));
            writeln!(f, "     +{grown} ± {error}  {}: {place}", other.kind.meaning())?;
        }
        Ok(())
    }
}

impl fmt::Display for Growth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, &mut Names::new())
    }
}

impl Growth {
    /// For people, as one of a list.
    pub(crate) fn write(&self, f: &mut fmt::Formatter<'_>, names: &mut Names) -> fmt::Result {
        let bytes = |bytes: f64| ByteSize(bytes.max(0.0) as u64);
        let blocks = match self.block_bytes {
            Some(size) => format!("{:.0} blocks of {}", self.grown_blocks, ByteSize(size as u64)),
            None => format!("{:.0} blocks", self.grown_blocks),
        };
        write!(f, "+{} ± {} in {blocks}", bytes(self.grown_bytes), bytes(self.error_bytes))?;
        if let Some(tag) = crate::tag::name(self.tag) {
            write!(f, ", tag {tag}")?;
        }
        writeln!(f, " ({} confidence)", self.confidence)?;
        write!(
            f,
            "     {} ± {} an hour, {:.0} % of all growth; it has {}, seen first {:.1} s ago, by {} samples",
            bytes(self.bytes_per_hour),
            bytes(self.error_per_hour),
            self.share * 100.0,
            bytes(self.live_bytes),
            self.age.as_secs_f64(),
            self.samples
        )?;
        if let Some(lifetime) = self.lifetime {
            write!(f, "; what ends does so after {lifetime:.1?}")?;
        }
        writeln!(f)?;
        f.write_str(&names.lines(&self.frames, FRAMES_PRINTED, 5))
    }
}
