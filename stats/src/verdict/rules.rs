//! The rules: from a series of points to what it shows.
//!
//! 1. **What lives** is looked at by its floor ([`growth`]). It grows without end, or up to a bound, or only just now, or not. Growth that goes on is
//!    held against the load ([`load`]): blocks that come and go per second, and threads.
//! 2. **What is free** is held against the most that lived lately ([`idle`]): the heap keeps that on purpose, and a program that comes and goes
//!    needs it again. What is more and stays is *retention*, where pages or caches are kept; *fragmentation*, where blocks that live keep
//!    their neighbours' pages.
//! 3. **What is not the heap's** is what the kernel counts beyond the heap's own books ([`others`]).
//!
//! Each may find something. What grows weighs more than what is there ([`Thresholds::growth_weight`]); the heaviest is the verdict.

use std::time::Duration;

use bytesize::ByteSize;

use super::series::{self, Reading};
use super::{Confidence, Diagnosis, Figure, Finding, Unit, Verdict};
use crate::Point;

/// From where on something is worth a word.
#[derive(Clone, Copy, PartialEq, Debug)]
#[non_exhaustive]
pub struct Thresholds {
    /// What lives has grown, if its floor has by so many bytes: warming up takes less.
    pub growth_bytes_min: u64,
    /// And by such a share of what lived before, with so much evidence: what chance brings about on its own has an evidence of 1. The
    /// smaller the share, the more is asked for; below the last one nothing counts.
    pub growth_evidence: [(f64, f64); 3],
    /// If the number of blocks grows as well, by these measures, growth in bytes needs no more evidence than this: sizes that vary make noise in bytes,
    /// and none in blocks.
    pub seconded_evidence_min: f64,
    /// And it may be so many times the most that was ever given back at a stretch, instead of …
    pub seconded_drawdowns: f64,
    /// … so many times: then it stands out.
    pub clear_drawdowns: f64,
    /// Between a few points, of which nobody knows what lies between, growth is this share of what lived before, and …
    pub sparse_share_min: f64,
    /// … so many bytes.
    pub sparse_bytes_min: u64,
    /// Fewer points than this are few.
    pub points_min: usize,
    /// Where it does not, its floor must rise by this share of it, and by this share of what lived before, …
    pub noisy_drawdowns: f64,
    /// … as above.
    pub noisy_share_min: f64,
    /// … with so many turning points, …
    pub troughs_min: usize,
    /// … of which, or of the mean, the trend is so many standard deviations from chance, …
    pub trend_min: f64,
    /// … and with noise that does not wander: it moves this part, at most, of what a walk at random would, squared.
    pub wander_max: f64,
    /// If it does wander, the turning points alone must have so much evidence.
    pub floor_evidence_min: f64,
    /// And be so many.
    pub wandering_troughs_min: usize,
    /// Growth goes on if the last third has at least this share of what a third should have; else it comes to an end.
    pub lasting_share: f64,
    /// The same, where noise is larger than growth.
    pub noisy_lasting_share: f64,
    /// The load has risen if there is so many times as much of it.
    pub load_factor_min: f64,
    /// And explains growth if it has risen by this share of it, …
    pub load_share_min: f64,
    /// … and steadily: threads with such an agreement, from -1 to 1 (of all pairs of windows, those that rise less those that fall); …
    pub threads_agreement_min: f64,
    /// … work, which was there from the start, with such a share of frees in all allocations, …
    pub work_share_min: f64,
    /// … of which there is more and less at all times, by a trend of so many standard deviations, …
    pub work_trend_min: f64,
    /// … and by so many times what it jitters from window to window.
    pub work_jitters: f64,
    /// What lives lies on a line over the load if so little is left beside it, from 0 to 1.
    pub load_misfit_max: f64,
    /// And that line, or one over time, is so many times closer than one over the work done so far.
    pub work_misfit: f64,
    /// Free memory beyond recent need is much from so many bytes on that are such a share of what lives: a large heap sooner than a small one.
    pub idle_min: [(u64, f64); 2],
    /// It stays if in the end there is still such a share of it.
    pub idle_staying_share: f64,
    /// So long after the heap should have given back what is free, it is late, in milliseconds: its ticks, and caches of threads that sleep.
    pub settle_margin_ms: u32,
    /// Others grow from so many bytes on, …
    pub others_bytes_min: u64,
    /// … that are such a share of what was resident.
    pub others_share_min: f64,
    /// A byte by which something grows counts as so many that are just there.
    pub growth_weight: f64,
}

impl Thresholds {
    /// What [`judge`](super::judge()) goes by.
    pub const DEFAULT: Self = Self {
        growth_bytes_min: 512 << 10,
        growth_evidence: [(0.2, 3.0), (0.05, 4.0), (0.01, 10.0)],
        seconded_evidence_min: 1.0,
        seconded_drawdowns: 1.0,
        sparse_share_min: 0.25,
        sparse_bytes_min: 4 << 20,
        points_min: 12,
        clear_drawdowns: 1.5,
        noisy_drawdowns: 0.25,
        noisy_share_min: 0.05,
        troughs_min: 5,
        trend_min: 2.3,
        wander_max: 0.35,
        floor_evidence_min: 4.0,
        wandering_troughs_min: 10,
        lasting_share: 0.5,
        noisy_lasting_share: 0.25,
        load_factor_min: 1.5,
        load_share_min: 0.5,
        threads_agreement_min: 0.8,
        work_share_min: 0.05,
        work_trend_min: 2.6,
        work_jitters: 8.0,
        load_misfit_max: 0.1,
        work_misfit: 1.5,
        idle_min: [(64 << 20, 0.5), (4 << 20, 1.0)],
        idle_staying_share: 0.7,
        settle_margin_ms: 1000,
        others_bytes_min: 4 << 20,
        others_share_min: 0.1,
        growth_weight: 4.0,
    };
}

impl Default for Thresholds {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// How long free memory may stay where nobody said: the default of the option `retain`.
const SETTLES_MS: u32 = 5800;
/// Windows that a row is divided into where the floors of a few are looked at.
const WINDOWS: usize = 6;
/// Windows, or groups of turning points, for what needs more of them.
const NARROW_WINDOWS: usize = 12;
/// Parts of the time that growth is looked for in: a program that starts or was loaded meanwhile shows what it does in the later ones.
const PARTS: [f64; 4] = [1.0, 5.0 / 6.0, 2.0 / 3.0, 0.5];

/// The points of a process, later and later, and what is often asked of them.
struct Series {
    points: Vec<Point>,
    /// What lives, in bytes.
    live: Vec<Reading>,
    /// What lives, in blocks.
    blocks: Vec<Reading>,
}

impl Series {
    fn of(points: &[Point]) -> Self {
        let mut kept: Vec<Point> = Vec::with_capacity(points.len());
        for &point in points {
            if let Some(last) = kept.last() {
                if point.at_ns <= last.at_ns {
                    continue;
                }
                // Counts that fall are those of another process: only the last one is looked at.
                if point.allocations < last.allocations || point.frees < last.frees {
                    kept.clear();
                }
            }
            kept.push(point);
        }
        let mut series = Self { points: kept, live: Vec::new(), blocks: Vec::new() };
        series.live = series.row(|point| point.live);
        series.blocks = series.row(|point| point.allocations.saturating_sub(point.frees));
        series
    }

    fn first(&self) -> Point {
        self.points.first().copied().unwrap_or_default()
    }

    fn last(&self) -> Point {
        self.points.last().copied().unwrap_or_default()
    }

    /// Seconds since the first point.
    fn at(&self, point: &Point) -> f64 {
        (point.at_ns - self.first().at_ns) as f64 / 1e9
    }

    fn row(&self, of: impl Fn(&Point) -> u64) -> Vec<Reading> {
        self.points.iter().map(|point| Reading { at: self.at(point), value: of(point) as f64 }).collect()
    }

    fn duration(&self) -> f64 {
        series::duration(&self.live)
    }

    /// Points of the last `share` of the time.
    fn last_part(&self, share: f64) -> &[Point] {
        &self.points[self.points.len() - series::last_part(&self.live, share).len()..]
    }
}

/// What the floor of what lives does.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Growth {
    /// Nothing that counts.
    None,
    /// It has grown, and that is over, or nearly so.
    Ending { bytes: f64 },
    /// It grows, and it will not end by itself, as far as one can see.
    Lasting {
        bytes: f64,
        per_second: f64,
        confidence: Confidence,
        /// In the last so much of the time.
        part: f64,
    },
}

fn growth(by: &Thresholds, series: &Series) -> Growth {
    if series.points.len() < by.points_min {
        return growth_of_few(by, &series.live);
    }
    let found: Vec<(f64, Option<Lasting>)> = PARTS.iter().map(|&part| (part, lasting_growth(by, series, part))).collect();
    let floors = series::floors(&series.live, WINDOWS);
    let [Some(first), Some(last)] = [floors.first(), floors.last()] else { return Growth::None };
    let whole = last.value - first.value;
    // What shows in the whole shows in its later parts as well, unless it is chance; in noise, chance makes much.
    let agree = found.iter().filter(|(_, lasting)| lasting.is_some()).count();
    let stands = |lasting: &Lasting| lasting.is_firm && (lasting.is_clear || agree > 1);
    let Some(&(part, Some(lasting))) = found.iter().find(|(_, lasting)| lasting.as_ref().is_some_and(stands)) else {
        let has_grown = whole >= by.growth_bytes_min as f64 && whole >= first.value * by.sparse_share_min;
        return if has_grown { Growth::Ending { bytes: whole } } else { Growth::None };
    };
    let confidence = match agree {
        1 => Confidence::Low,
        2 => Confidence::Medium,
        _ if series.points.len() < 2 * by.points_min => Confidence::Medium,
        _ if lasting.is_clear || agree == PARTS.len() => Confidence::High,
        _ => Confidence::Medium,
    };
    Growth::Lasting { bytes: whole.max(lasting.bytes), per_second: lasting.per_second, confidence, part }
}

/// A few points: from the first to the last it has grown by much, on every step, and on the last one as well.
fn growth_of_few(by: &Thresholds, live: &[Reading]) -> Growth {
    let [first, .., last] = live else { return Growth::None };
    let bytes = last.value - first.value;
    if bytes < by.sparse_bytes_min as f64 || bytes < first.value * by.sparse_share_min {
        return Growth::None;
    }
    let per_second = bytes / (last.at - first.at);
    let goes_on = live.windows(2).all(|pair| pair[1].value > pair[0].value)
        && live
            .iter()
            .rev()
            .nth(1)
            .is_some_and(|before| (last.value - before.value) / (last.at - before.at) >= per_second * by.lasting_share);
    if goes_on { Growth::Lasting { bytes, per_second, confidence: Confidence::Low, part: 1.0 } } else { Growth::Ending { bytes } }
}

#[derive(Clone, Copy, PartialEq, Debug)]
struct Lasting {
    bytes: f64,
    per_second: f64,
    /// It stands out of the noise.
    is_clear: bool,
    /// And so does that it goes on.
    is_firm: bool,
}

/// Growth of the floor that does not come to an end within the last `part` of the time.
fn lasting_growth(by: &Thresholds, series: &Series, part: f64) -> Option<Lasting> {
    let row = series::last_part(&series.live, part);
    let blocks = series::last_part(&series.blocks, part);
    // Of the whole time: what was given back at a stretch before may be given back again. But where the noise is that large, half as much growth, and
    // half as much of a trend, in half of the time are as much of a sign.
    let drawdown = series::drawdown(&series.live);
    clear_growth(by, row, blocks, drawdown).or_else(|| noisy_growth(by, row, drawdown, part))
}

/// How the floor of a row rises.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Rise {
    /// By how much, from the first window to the last.
    height: f64,
    /// In parts of what there was.
    share: f64,
    /// How much the steps agree.
    evidence: f64,
    /// It does so all along.
    is_lasting: bool,
}

impl Rise {
    fn of(by: &Thresholds, row: &[Reading]) -> Option<Self> {
        let floors = series::floors(row, WINDOWS);
        let [first, _, .., last] = floors[..] else { return None };
        let height = last.value - first.value;
        let even = height / (last.at - first.at);
        // What grows at once and then stays does not.
        let before = floors[floors.len() - 1 - floors.len() / 3];
        let recent = (last.value - before.value) / (last.at - before.at);
        Some(Self {
            height,
            share: height / first.value.max(1.0),
            evidence: series::evidence(&series::floors(row, NARROW_WINDOWS.min(row.len() / 3))),
            is_lasting: height > 0.0 && recent >= even * by.lasting_share,
        })
    }

    /// Is it beyond doubt, by itself?
    fn is_evident(&self, by: &Thresholds) -> bool {
        let asked_for = by.growth_evidence.iter().find(|&&(share, _)| self.share >= share);
        self.is_lasting && asked_for.is_some_and(|&(_, evidence)| self.evidence >= evidence)
    }
}

/// Growth that is larger than anything that was given back meanwhile, spread over the time, and more than a walk at random makes.
fn clear_growth(by: &Thresholds, row: &[Reading], blocks: &[Reading], drawdown: f64) -> Option<Lasting> {
    let rise = Rise::of(by, row)?;
    let stands_out = rise.height >= drawdown * by.clear_drawdowns && rise.is_evident(by);
    let is_seconded = || {
        let smallest = by.growth_evidence[by.growth_evidence.len() - 1].0;
        rise.height >= drawdown * by.seconded_drawdowns
            && rise.share >= smallest
            && rise.evidence >= by.seconded_evidence_min
            && Rise::of(by, blocks).is_some_and(|rise| rise.is_evident(by))
    };
    if rise.height < by.growth_bytes_min as f64 || !(stands_out || is_seconded()) {
        return None;
    }
    let per_second = series::slope(&series::floors(row, WINDOWS));
    // From the first window to the last, one is missing.
    let bytes = rise.height.max(per_second * series::duration(row));
    Some(Lasting { bytes, per_second, is_clear: true, is_firm: true })
}

/// Growth that is smaller than the noise above it: the turning points below rise, all along, and so does the mean.
fn noisy_growth(by: &Thresholds, row: &[Reading], drawdown: f64, part: f64) -> Option<Lasting> {
    let troughs = series::troughs(row, drawdown / 3.0);
    if troughs.len() < by.troughs_min {
        return None;
    }
    let floors = series::grouped(&troughs, NARROW_WINDOWS);
    let means = series::means(row, NARROW_WINDOWS);
    let level = series::mean(row);
    let per_second = series::slope(&floors).min(series::slope(&means));
    let bytes = per_second * series::duration(row);
    let enough = (drawdown * part * by.noisy_drawdowns).max(level * by.noisy_share_min);
    // Noise that wanders leaves no mean to look at, but teeth turn where the one before turned, and a little higher.
    let noise_comes_back = series::wander(row, row.len() / NARROW_WINDOWS) <= by.wander_max;
    let is_rising =
        noise_comes_back || troughs.len() >= by.wandering_troughs_min && series::evidence(&floors) >= by.floor_evidence_min;
    // Noise with a hard floor shows growth best there, noise around a middle in the mean: the better witness is heard.
    let is_heard = |row: &Vec<Reading>| series::trend(row) >= by.trend_min * part && goes_on(by, row);
    let is_firm = bytes >= enough && (is_heard(&floors) || is_heard(&means));
    // Half of it is enough for a part that only agrees with another.
    let is_large = bytes >= by.growth_bytes_min as f64 && bytes >= enough / 2.0;
    (is_large && is_rising).then_some(Lasting { bytes, per_second, is_clear: false, is_firm })
}

/// Of what came from the first third to the last, half should have come since the second: has enough of it?
fn goes_on(by: &Thresholds, row: &[Reading]) -> bool {
    let [first, second, third] = series::means(row, 3)[..] else { return false };
    third.value - second.value >= (third.value - first.value) / 2.0 * by.noisy_lasting_share
}

/// A load that explains growth.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Load {
    /// Blocks that come and go per second, so many times as many as at first: frees, as what stays is no load but what it is held against.
    Turnover(f64),
    /// Threads, so many times as many.
    Threads(f64),
}

/// What the load did in the last `part` of the time, if it rose and what lives rose with it.
fn load(by: &Thresholds, series: &Series, growth: Growth) -> Option<Load> {
    let (part, is_lasting) = match growth {
        Growth::None => return None,
        Growth::Ending { .. } => (1.0, false),
        Growth::Lasting { part, .. } => (part, true),
    };
    let points = series.last_part(part);
    let (first, last) = (points.first()?, points.last()?);
    if points.len() < by.points_min {
        // Of a few points only the number of threads is known.
        let threads = f64::from(last.threads) / f64::from(first.threads.max(1));
        let live = last.live as f64 / first.live.max(1) as f64;
        return explains(by, threads, live).then_some(Load::Threads(threads));
    }
    let at = series::lived(&points.iter().map(|point| series.at(point)).collect::<Vec<_>>());
    let lived = |values: &mut dyn Iterator<Item = f64>| -> Vec<Reading> {
        at.iter().zip(values).map(|(&at, value)| Reading { at, value }).collect()
    };
    let row = |of: fn(&Point) -> f64| lived(&mut points.iter().map(of));
    let lives =
        [&series.live, &series.blocks].map(|row| lived(&mut series::last_part(row, part).iter().map(|reading| reading.value)));
    let live = risen(&series::means(&lives[0], WINDOWS))?;
    let threads = series::means(&row(|point| f64::from(point.threads)), WINDOWS);
    if let Some(factor) = risen(&threads)
        && series::agreement(&threads) >= by.threads_agreement_min
        && explains(by, factor, live)
    {
        return Some(Load::Threads(factor));
    }
    // What stays is no load, but what is to be explained: blocks that go are. Where growth has ended, allocations have to explain it as well: a
    // cache that is full lets go of as much as it takes in, at the same load.
    let windows = NARROW_WINDOWS.min(points.len() / 3);
    let frees = row(|point| point.frees as f64);
    let gone = rates(&frees, windows);
    let made = rates(&row(|point| point.allocations as f64), windows);
    let factor = risen(&gone)?;
    let rise = gone.last()?.value - gone.first()?.value;
    let begins = |row: &[Reading]| row.iter().take(2).map(|rate| rate.value).sum::<f64>();
    let has_risen = begins(&gone) >= begins(&made) * by.work_share_min
        && series::trend(&gone) >= by.work_trend_min
        && rise >= by.work_jitters * series::jitter(&gone)
        && (is_lasting || explains(by, risen(&made)?, live));
    (has_risen && explains(by, factor, live) && follows_load(by, &frees, &lives, windows)).then_some(Load::Turnover(factor))
}

/// How many were counted per second, for each window.
fn rates(counts: &[Reading], windows: usize) -> Vec<Reading> {
    let mut before = counts.first().copied();
    let rate = |part: &[Reading]| {
        let (from, to) = (before?, *part.last()?);
        before = Some(to);
        (to.at > from.at).then(|| Reading { at: to.at, value: (to.value - from.value) / (to.at - from.at) })
    };
    series::windows(counts, windows).into_iter().filter_map(rate).collect()
}

/// How many times as much there is in the last two windows as in the first two.
fn risen(row: &[Reading]) -> Option<f64> {
    let [first, second, .., before, last] = row else { return None };
    let (old, new) = (first.value + second.value, before.value + last.value);
    (old > 0.0).then_some(new / old)
}

/// Has the load risen, and by enough to explain that so many times as much lives?
fn explains(by: &Thresholds, load: f64, live: f64) -> bool {
    load >= by.load_factor_min && load - 1.0 >= (live - 1.0) * by.load_share_min
}

/// Does what lives follow the load rather than the work done? A leak takes its share of all work: it lies on a line over blocks that were ever freed,
/// and grows faster as the load rises. What is held for a load that rises evenly lies on a line over time; what is held for any load, on one over
/// blocks that are freed per second, as far as that can be measured.
fn follows_load(by: &Thresholds, frees: &[Reading], lives: &[Vec<Reading>; 2], windows: usize) -> bool {
    let over = |over: &mut dyn Iterator<Item = f64>, lives: &[Reading]| {
        series::misfit(&over.zip(lives).map(|(at, lives)| Reading { at, value: lives.value }).collect::<Vec<_>>())
    };
    let misfits = lives.each_ref().map(|lives| {
        let of_windows = series::means(lives, windows);
        let over_work = over(&mut frees.iter().map(|frees| frees.value), lives);
        let over_time = series::misfit(lives);
        let over_load = over(&mut rates(frees, windows).iter().map(|rate| rate.value), &of_windows);
        [over_work, over_time, if over_load <= by.load_misfit_max { over_load } else { 1.0 }]
    });
    // In bytes or in blocks, whichever lies on a line at all: sizes that vary make noise in bytes, and a few large blocks say nothing by their number.
    let least = |misfits: &[f64; 3]| misfits.iter().copied().fold(1.0, f64::min);
    let best = misfits.into_iter().min_by(|a, b| least(a).total_cmp(&least(b)));
    best.is_some_and(|[over_work, over_time, over_load]| over_time.min(over_load) * by.work_misfit <= over_work)
}

/// Free memory beyond what recent need explains, in bytes, by who keeps it.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
struct Idle {
    /// In free pages.
    pages: f64,
    /// In caches of threads and on the way between them, and in spans that these hold.
    caches: f64,
    /// Beside blocks that live.
    holes: f64,
}

impl Idle {
    fn retained(&self) -> f64 {
        self.pages + self.caches
    }

    fn sum(&self) -> f64 {
        self.retained() + self.holes
    }

    fn least(self, other: Self) -> Self {
        Self { pages: self.pages.min(other.pages), caches: self.caches.min(other.caches), holes: self.holes.min(other.holes) }
    }

    /// At `point`, if at most `need` bytes lived lately.
    fn beyond(point: &Point, need: u64) -> Self {
        let all = point.idle() as f64;
        if all <= 0.0 {
            return Self::default();
        }
        let beyond = point.live.saturating_add(point.idle()).saturating_sub(need) as f64;
        let cached = (point.thread_cached.saturating_add(point.depot)) as f64;
        // A cached block keeps its page as one that lives does; but it takes many to keep much.
        let out = cached + point.live as f64;
        let beside_cached = (point.holes as f64 * cached / out.max(1.0)).min(2.0 * cached);
        let share = beyond / all;
        Self {
            pages: point.dirty as f64 * share,
            caches: (cached + beside_cached) * share,
            holes: (point.holes as f64 - beside_cached) * share,
        }
    }
}

/// What is free, was so for longer than the heap should keep it, and stays. `None`: nobody can know yet, the time was too short.
fn idle(by: &Thresholds, series: &Series) -> Option<Idle> {
    let settles_ns = settles_ns(by, &series.last());
    let (first, last) = (series.first(), series.last());
    if last.at_ns - first.at_ns < settles_ns {
        return None;
    }
    // What is between a few points is not known: it must have been there from the start.
    if series.points.len() < by.points_min {
        return Some(Idle::beyond(&last, last.live).least(Idle::beyond(&first, first.live)));
    }
    let recent = &series.points[series.points.partition_point(|point| point.at_ns.saturating_add(settles_ns) < last.at_ns)..];
    let need = recent.iter().map(|point| point.live).max().unwrap_or(0);
    let tail = series.last_part(0.25);
    let stays = |of: fn(&Idle) -> f64| {
        let [begin, end] = [tail.first().unwrap_or(&last), &last].map(|point| of(&Idle::beyond(point, point.live)));
        end >= begin * by.idle_staying_share
    };
    // The least of the last few: blocks come and go.
    let few = &recent[recent.len().saturating_sub(3)..];
    let least = few.iter().map(|point| Idle::beyond(point, need)).reduce(Idle::least)?;
    let kept = |of: fn(&Idle) -> f64| if stays(of) { of(&least) } else { 0.0 };
    Some(Idle { pages: kept(|idle| idle.pages), caches: kept(|idle| idle.caches), holes: kept(|idle| idle.holes) })
}

/// How long free memory may stay before it is late.
fn settles_ns(by: &Thresholds, point: &Point) -> u64 {
    let ms = match point.settles_ms {
        0 => SETTLES_MS + by.settle_margin_ms,
        // Nobody waits for it to go: what matters is whether the program needs it again.
        Point::KEPT => SETTLES_MS,
        ms => ms.saturating_add(by.settle_margin_ms),
    };
    u64::from(ms) * 1_000_000
}

/// What is not the heap's.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
struct Others {
    /// By how much what no file backs has grown.
    anonymous: f64,
    /// By how much what files back has.
    files: f64,
}

fn others(series: &Series) -> Others {
    let grown = |of: &dyn Fn(&Point) -> Option<u64>| {
        let row: Vec<Reading> =
            series.points.iter().filter_map(|point| Some(Reading { at: series.at(point), value: of(point)? as f64 })).collect();
        let floors = series::floors(&row, if row.len() < WINDOWS { row.len().max(1) } else { WINDOWS });
        match floors[..] {
            [first, .., last] => last.value - first.value,
            _ => 0.0,
        }
    };
    Others { anonymous: grown(&Point::not_ours), files: grown(&|point| point.resident.map(|resident| resident.file_backed)) }
}

/// All that is known when the words are chosen.
struct Case<'a> {
    by: &'a Thresholds,
    series: &'a Series,
    growth: Growth,
    load: Option<Load>,
    idle: Option<Idle>,
    others: Others,
}

pub(super) fn judge(by: &Thresholds, points: &[Point]) -> Diagnosis {
    let series = Series::of(points);
    let growth = growth(by, &series);
    let load = load(by, &series, growth);
    let case = Case { by, series: &series, growth, load, idle: idle(by, &series), others: others(&series) };
    let mut findings = case.findings();
    let weight = |found: &Finding| {
        let grows = matches!(found.verdict, Verdict::LeakSuspected | Verdict::GrowthWithLoad | Verdict::NotOurs);
        found.bytes as f64 * if grows { by.growth_weight } else { 1.0 }
    };
    findings.sort_by(|a, b| weight(b).total_cmp(&weight(a)));
    let (verdict, confidence) = match findings.first() {
        Some(found) => (found.verdict, found.confidence),
        None => (Verdict::Steady, case.confidence_in_steadiness()),
    };
    let [sentence, advice] = case.words(verdict);
    Diagnosis {
        verdict,
        confidence,
        sentence,
        advice,
        figures: case.figures(verdict),
        findings,
        grown: Vec::new(),
        sites: Vec::new(),
        anomalies: Vec::new(),
        interval: Duration::from_secs_f64(series.duration()),
        points: series.points.len(),
    }
}

impl Case<'_> {
    /// For what looks at ends, or at levels: by how many points there are.
    fn confidence_by_points(&self) -> Confidence {
        match self.series.points.len() {
            0..3 => Confidence::Low,
            count if count < self.by.points_min => Confidence::Medium,
            _ => Confidence::High,
        }
    }

    fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        match (self.growth, self.load) {
            (Growth::None, _) | (Growth::Ending { .. }, None) => {}
            (Growth::Ending { bytes }, Some(_)) => {
                findings.push(Finding { verdict: Verdict::GrowthWithLoad, confidence: Confidence::Medium, bytes: bytes as u64 });
            }
            (Growth::Lasting { bytes, confidence, .. }, load) => {
                let verdict = if load.is_some() { Verdict::GrowthWithLoad } else { Verdict::LeakSuspected };
                findings.push(Finding { verdict, confidence, bytes: bytes as u64 });
            }
        }
        if let Some(idle) = self.idle
            && self.is_much(idle.sum())
        {
            let (verdict, bytes) = if idle.holes > idle.retained() {
                (Verdict::Fragmentation, idle.holes)
            } else {
                (Verdict::Retention, idle.retained())
            };
            findings.push(Finding { verdict, confidence: self.confidence_by_points(), bytes: bytes as u64 });
        }
        let (bytes, _) = self.others_grown();
        let resident = self.series.first().resident.map_or(0, |resident| resident.total);
        if bytes >= self.by.others_bytes_min as f64 && bytes >= resident as f64 * self.by.others_share_min {
            findings.push(Finding { verdict: Verdict::NotOurs, confidence: self.confidence_by_points(), bytes: bytes as u64 });
        }
        findings
    }

    /// Is so much free memory worth a word?
    fn is_much(&self, bytes: f64) -> bool {
        let live = self.series.last().live as f64;
        self.by.idle_min.iter().any(|&(least, share)| bytes >= least as f64 && bytes >= live * share)
    }

    /// By how much others have grown, the one kind and the other, and which has more.
    fn others_grown(&self) -> (f64, &'static str) {
        let Others { anonymous, files } = self.others;
        let what =
            if files > anonymous { "files that are mapped, or shared memory" } else { "memory of others, which no file backs" };
        (anonymous.max(0.0) + files.max(0.0), what)
    }

    /// Nothing was found. How sure is that?
    fn confidence_in_steadiness(&self) -> Confidence {
        match self.growth {
            Growth::Ending { .. } => Confidence::Medium.min(self.confidence_by_points()),
            _ if self.series.points.len() < self.by.points_min || self.idle.is_none() => Confidence::Low,
            _ => Confidence::High,
        }
    }

    fn figures(&self, verdict: Verdict) -> Vec<Figure> {
        let (first, last) = (self.series.first(), self.series.last());
        let rates = last.since(&first);
        let idle = self.idle.unwrap_or_default();
        let (grown, per_second) = match self.growth {
            Growth::None => (0.0, 0.0),
            Growth::Ending { bytes } => (bytes, 0.0),
            Growth::Lasting { bytes, per_second, .. } => (bytes, per_second),
        };
        let figure = |key, name, value, unit| Figure { key, name, value, unit };
        let resident = |point: &Point| point.resident.map_or(0, |resident| resident.total) as f64;
        let load = match self.load {
            Some(Load::Turnover(factor) | Load::Threads(factor)) => factor,
            None => 1.0,
        };
        let mut figures = vec![
            figure("live_earlier_bytes", "live before", first.live as f64, Unit::Bytes),
            figure("live_later_bytes", "live now", last.live as f64, Unit::Bytes),
            figure("floor_growth_bytes", "floor growth", grown, Unit::Bytes),
            figure("floor_growth_bytes_per_second", "growth rate", per_second, Unit::BytesPerSecond),
            figure("load_factor", "load factor", load, Unit::Ratio),
            figure("threads", "threads", f64::from(last.threads), Unit::Count),
            figure("allocations_per_second", "allocations", rates.allocations_per_second(), Unit::PerSecond),
            figure("churn_per_second", "churn", rates.churn(), Unit::PerSecond),
            figure("kept_in_pages_bytes", "kept in free pages", idle.pages, Unit::Bytes),
            figure("kept_in_caches_bytes", "kept by caches", idle.caches, Unit::Bytes),
            figure("kept_beside_blocks_bytes", "kept beside blocks", idle.holes, Unit::Bytes),
            figure("free_bytes", "free now", last.idle() as f64, Unit::Bytes),
            figure("committed_bytes", "the heap has", last.committed() as f64, Unit::Bytes),
            figure("resident_earlier_bytes", "resident before", resident(&first), Unit::Bytes),
            figure("resident_later_bytes", "resident now", resident(&last), Unit::Bytes),
            figure("others_growth_bytes", "growth of others", self.others.anonymous, Unit::Bytes),
            figure("files_growth_bytes", "growth of mapped files", self.others.files, Unit::Bytes),
            figure("interval_seconds", "interval", self.series.duration(), Unit::Seconds),
            figure("points", "points", self.series.points.len() as f64, Unit::Count),
        ];
        let telling: &[&str] = match verdict {
            Verdict::Steady => {
                &["live_earlier_bytes", "live_later_bytes", "free_bytes", "resident_later_bytes", "churn_per_second"]
            }
            Verdict::LeakSuspected => {
                &["live_earlier_bytes", "live_later_bytes", "floor_growth_bytes", "floor_growth_bytes_per_second"]
            }
            Verdict::GrowthWithLoad => {
                &["live_earlier_bytes", "live_later_bytes", "load_factor", "threads", "allocations_per_second"]
            }
            Verdict::Fragmentation => &["kept_beside_blocks_bytes", "live_later_bytes", "free_bytes", "resident_later_bytes"],
            Verdict::Retention => &["kept_in_pages_bytes", "kept_in_caches_bytes", "live_later_bytes", "resident_later_bytes"],
            Verdict::NotOurs => &[
                "others_growth_bytes",
                "files_growth_bytes",
                "committed_bytes",
                "resident_earlier_bytes",
                "resident_later_bytes",
            ],
        };
        figures.sort_by_key(|figure| telling.iter().position(|key| *key == figure.key).unwrap_or(telling.len()));
        figures
    }

    /// What is going on, and what to do.
    fn words(&self, verdict: Verdict) -> [String; 2] {
        let bytes = |bytes: f64| ByteSize(bytes.max(0.0) as u64);
        let (first, last) = (self.series.first(), self.series.last());
        match verdict {
            Verdict::Steady => [self.calm(), "Nothing is to be done.".to_owned()],
            Verdict::LeakSuspected => {
                let Growth::Lasting { bytes: grown, per_second, .. } = self.growth else { return Default::default() };
                let what = if self.series.points.len() < self.by.points_min {
                    format!("The program holds {} more than it did, and few points say whether that goes on.", bytes(grown))
                } else {
                    format!(
                        "What the program never gives back has grown by {}, {}/s lately, and goes on growing; the load does not explain it.",
                        bytes(grown),
                        bytes(per_second)
                    )
                };
                let advice = "Find who holds it: size classes that grow, then a heap profile of what is live. \
                              A collection without a bound looks the same.";
                [what, advice.to_owned()]
            }
            Verdict::GrowthWithLoad => {
                let grown = last.live as f64 / first.live.max(1) as f64;
                let what = match self.load {
                    Some(Load::Threads(factor)) => format!("there were {factor:.1} times as many threads"),
                    Some(Load::Turnover(factor)) => format!("blocks came and went {factor:.1} times as fast"),
                    None => "the load rose".to_owned(),
                };
                [
                    format!("The program holds {grown:.1} times what it did, while {what}."),
                    "Look again when the load falls: what it holds should fall too. If memory is short, bound the load."
                        .to_owned(),
                ]
            }
            Verdict::Fragmentation => {
                let idle = self.idle.unwrap_or_default();
                [
                    format!(
                        "{} are free beside blocks that live ({} in all), and cannot be given back while these stay.",
                        bytes(idle.holes),
                        bytes(last.live as f64)
                    ),
                    "Make what lives long before or apart from what lives short, or copy it once the rest is gone. No option helps."
                        .to_owned(),
                ]
            }
            Verdict::Retention => self.retained(),
            Verdict::NotOurs => {
                let (grown, what) = self.others_grown();
                [
                    format!("The process has grown by {} that this heap does not have: {what}.", bytes(grown)),
                    "The ledger says whose it is. Look at libraries in C, thread stacks, and mapped files; nothing in this heap helps."
                        .to_owned(),
                ]
            }
        }
    }

    fn retained(&self) -> [String; 2] {
        let idle = self.idle.unwrap_or_default();
        let last = self.series.last();
        let live = ByteSize(last.live);
        if idle.caches > idle.pages {
            return [
                format!(
                    "{} are free and kept by the caches of {} threads, beside {live} that live.",
                    ByteSize(idle.caches as u64),
                    last.threads
                ),
                "Let threads that wait call `control::thread_idle()`, or turn the background thread on; or have fewer threads."
                    .to_owned(),
            ];
        }
        let pages = ByteSize(idle.pages as u64);
        if last.settles_ms == Point::KEPT {
            return [
                format!("{pages} of free pages are kept beside {live} that live, because `retain:keep` says so."),
                "Set `retain` to its default, or call `control::release_to_os()` after each peak.".to_owned(),
            ];
        }
        [
            format!(
                "{pages} of free pages are kept beside {live} that live, for longer than `retain` says: nobody gives them back."
            ),
            "Turn the background thread on (`background:on`), or call `control::release_to_os()` after each peak. If it is on: free parts of huge \
             pages stay while blocks beside them come and go (`huge_pages:never`)."
                .to_owned(),
        ]
    }

    /// Why all is steady.
    fn calm(&self) -> String {
        let last = self.series.last();
        if self.series.points.len() < 2 {
            return "There is one point in time, and nothing to compare it with.".to_owned();
        }
        if let Growth::Ending { bytes } = self.growth {
            return format!(
                "What the program holds has grown by {}: that has ended, or slows down, or is less than it gave back before.",
                ByteSize(bytes as u64)
            );
        }
        let free = ByteSize(last.idle());
        if self.idle.is_none() {
            return format!("Nothing grows; {free} are free, and the time was too short to say whether they stay.");
        }
        format!("Nothing grows without end, and the {free} that are free are no more than recent need explains.")
    }
}
