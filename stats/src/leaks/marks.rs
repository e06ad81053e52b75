//! Marks: what the largest sites had at some moments of the past, taken by the thread of the [`history`](crate::history).
//!
//! ```text
//!   one mark every 15 points or so      … ten minutes back │ one of two, of four, of eight …      … the start of the history
//!   now ───────────────────────────────────────────────────┼──────────────────────────────────────────────────────────▶ past
//! ```
//!
//! 64 marks of 384 sites at most: 300 KiB, and far less where there are fewer sites. A mark costs a walk over all sites.

use std::ops::RangeInclusive;
use std::sync::{Mutex, MutexGuard, TryLockError};

use freestone::profile;

/// One mark for so many points of the history, at most and at least: not always for as many, since what a program does every minute would else look the same in
/// each.
const POINTS_PER_MARK: RangeInclusive<u32> = 8..=22;
/// So many are kept as they come.
const FINE: usize = 40;
/// So many older ones.
const COARSE: usize = 24;
/// Of so many sites, those that have most.
const SITES: usize = 384;

/// What sites had at a moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mark {
    pub(crate) at_ns: u64,
    /// There were more sites than are written down.
    is_cut: bool,
    /// By number.
    ids: Vec<u64>,
    bytes: Vec<f32>,
}

impl Mark {
    /// Of these sites, what lives.
    pub(crate) fn new(at_ns: u64, mut live: Vec<(u64, f64)>) -> Self {
        let is_cut = live.len() > SITES;
        if is_cut {
            live.select_nth_unstable_by(SITES, |a, b| b.1.total_cmp(&a.1));
            live.truncate(SITES);
        }
        live.sort_unstable_by_key(|site| site.0);
        let (ids, bytes) = live.into_iter().map(|(id, bytes)| (id, bytes as f32)).unzip();
        Self { at_ns, is_cut, ids, bytes }
    }

    fn now() -> Self {
        let mut live = Vec::new();
        profile::each_site(|site| {
            if site.live.bytes > 0.0 {
                live.push((site.id, site.live.bytes));
            }
        });
        Self::new(freestone::snapshot().at_ns, live)
    }

    /// What a site had, in bytes; 0 also for those that are not written down.
    pub(crate) fn live(&self, id: u64) -> f64 {
        self.ids.binary_search(&id).map_or(0.0, |place| f64::from(self.bytes[place]))
    }

    /// All sites are in it.
    pub(crate) fn is_whole(&self) -> bool {
        !self.is_cut
    }
}

/// Marks, bounded; the oldest first.
#[derive(Debug)]
struct Marks {
    /// Points until the next mark.
    points: u32,
    random: u32,
    fine: Vec<Mark>,
    coarse: Vec<Mark>,
    /// Of so many that leave `fine`, one goes to `coarse`.
    every: u64,
    left: u64,
}

impl Marks {
    const fn new() -> Self {
        Self { points: 0, random: 0, fine: Vec::new(), coarse: Vec::new(), every: 1, left: 0 }
    }

    fn push(&mut self, mark: Mark) {
        if self.fine.len() == FINE {
            let old = self.fine.remove(0);
            if self.left.is_multiple_of(self.every) {
                self.coarse.push(old);
            }
            self.left += 1;
        }
        if self.coarse.len() > COARSE {
            let mut place = 0;
            self.coarse.retain(|_| {
                place += 1;
                place % 2 == 1
            });
            self.every *= 2;
        }
        self.fine.push(mark);
    }

    fn iter(&self) -> impl Iterator<Item = &Mark> {
        self.coarse.iter().chain(&self.fine)
    }
}

static MARKS: Mutex<Marks> = Mutex::new(Marks::new());

/// `None`: somebody has it, who may not be there any more: this is the child of a fork.
fn marks() -> Option<MutexGuard<'static, Marks>> {
    for _ in 0..100 {
        match MARKS.try_lock() {
            Ok(marks) => return Some(marks),
            Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => std::thread::yield_now(),
        }
    }
    None
}

/// After how many points there is to be another mark.
fn points_to_next(random: &mut u32) -> u32 {
    // Numerical Recipes' quick generator: its upper bits will do.
    *random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
    let (least, most) = (POINTS_PER_MARK.start(), POINTS_PER_MARK.end());
    least + (*random >> 16) % (most - least + 1)
}

/// To be called for every point of the history: makes a mark when it is time for one.
pub(crate) fn remember() {
    let is_due = marks().is_some_and(|mut marks| {
        let is_due = marks.points == 0;
        marks.points = if is_due { points_to_next(&mut marks.random) } else { marks.points - 1 };
        is_due
    });
    if is_due && profile::summary().samples > 0 {
        profile::without_samples(|| {
            let mark = Mark::now();
            if let Some(mut marks) = marks() {
                marks.push(mark);
            }
        });
    }
}

/// The marks between two moments, the oldest first.
pub(super) fn between(begin_ns: u64, end_ns: u64) -> Vec<Mark> {
    let is_between = |mark: &&Mark| begin_ns < mark.at_ns && mark.at_ns < end_ns;
    marks().map_or_else(Vec::new, |marks| marks.iter().filter(is_between).cloned().collect())
}

/// The last mark up to a moment.
pub(super) fn at(moment_ns: u64) -> Option<Mark> {
    marks()?.iter().take_while(|mark| mark.at_ns <= moment_ns).last().cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_bounded_and_in_order() {
        let mut marks = Marks::new();
        for at_ns in 0..5000 {
            marks.push(Mark::new(at_ns, vec![(at_ns, 1.0)]));
            assert!(marks.iter().count() <= FINE + COARSE + 1);
        }
        let times: Vec<u64> = marks.iter().map(|mark| mark.at_ns).collect();
        assert!(times.is_sorted_by(|a, b| a < b), "{times:?}");
        assert_eq!(times[0], 0, "the first stays");
        assert_eq!(times[times.len() - FINE..], (5000 - FINE as u64..5000).collect::<Vec<_>>());
        let widest = times.windows(2).map(|pair| pair[1] - pair[0]).max();
        assert!(widest <= Some(600), "they are spread over all of it: {times:?}");
    }

    #[test]
    fn marks_are_irregular() {
        let mut random = 0;
        let gaps: Vec<u32> = (0..1000).map(|_| points_to_next(&mut random)).collect();
        assert!(gaps.iter().all(|gap| POINTS_PER_MARK.contains(gap)));
        assert!(POINTS_PER_MARK.into_iter().all(|gap| gaps.iter().filter(|other| **other == gap).count() > 30), "{gaps:?}");
    }

    #[test]
    fn a_mark_has_the_largest() {
        let all: Vec<(u64, f64)> = (0..1000).map(|id| (id, (id * 7 % 1000) as f64)).collect();
        let mark = Mark::new(1, all.clone());
        assert_eq!(mark.ids.len(), SITES);
        assert!(!mark.is_whole());
        for (id, bytes) in all {
            let found = if bytes >= (1000 - SITES) as f64 { bytes } else { 0.0 };
            assert!((mark.live(id) - found).abs() < 0.5, "{id}");
        }
        assert!(Mark::new(1, vec![(5, 2.0)]).is_whole());
    }
}
