//! Floor 3. What programs ask for, by samples: how much smaller than their blocks requests are.
//!
//! Nothing remembers what was asked for: a block's class is all that its free needs. But a slow path knows the request that brought the thread
//! there, and requests that come to a slow path are as good as any: which one it is depends on how many came before. So every so many slow paths
//! note theirs, once a thread has had some.

use crate::atomic::{AtomicU64, Ordering};
use crate::size_class::SizeClass;

/// Requests that were looked at. Together with how many blocks are live this estimates their slack: count × mean, give or take count × deviation
/// ÷ √samples.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct RequestSamples {
    /// How many.
    pub count: u64,
    /// The sum of their slack: bytes of the block that were not asked for.
    pub slack_bytes: u64,
    /// The sum of the squares of their slack, for the deviation.
    pub slack_squared: u64,
}

#[derive(Debug)]
struct Sums {
    count: AtomicU64,
    slack_bytes: AtomicU64,
    slack_squared: AtomicU64,
}

impl Sums {
    const fn new() -> Self {
        Self { count: AtomicU64::new(0), slack_bytes: AtomicU64::new(0), slack_squared: AtomicU64::new(0) }
    }
}

/// The samples of every class, and last of the blocks beyond.
#[derive(Debug)]
pub(crate) struct Requests([Sums; SizeClass::COUNT + 1]);

/// The first so many slow paths of a thread note nothing: small programs have no more, and are not to touch memory for it.
const NONE_BEFORE: u32 = 256;
/// Those up to here all do, …
const ALL_BEFORE: u32 = 1024;
/// … then one of so many.
const ONE_IN: u32 = 8;

// Relaxed in the whole file: counts, which nobody expects to be of one moment.
impl Requests {
    pub(crate) const fn new() -> Self {
        Self([const { Sums::new() }; SizeClass::COUNT + 1])
    }

    /// Is a thread's slow path of this number one of those that note?
    pub(crate) fn is_sampled(entry: u32) -> bool {
        entry >= NONE_BEFORE && (entry < ALL_BEFORE || entry.is_multiple_of(ONE_IN))
    }

    /// How many blocks a refill of so many is to leave out, where it comes with a request that is noted: programs that ask for the same sizes in turns
    /// would else have the same one of them noted each time, if as many turns as a refill has blocks come to a round number.
    pub(crate) fn jitter(entry: u32, blocks: usize) -> usize {
        if Self::is_sampled(entry) { (entry.wrapping_mul(0x9e37_79b1) >> 16) as usize % (blocks / 4 + 1) } else { 0 }
    }

    /// Somebody asked for so much less than a block of this class has; `None`: than its pages have.
    pub(crate) fn note(&self, class: Option<SizeClass>, slack_bytes: usize) {
        let sums = &self.0[class.map_or(SizeClass::COUNT, SizeClass::index)];
        let slack = slack_bytes as u64;
        sums.count.fetch_add(1, Ordering::Relaxed);
        sums.slack_bytes.fetch_add(slack, Ordering::Relaxed);
        sums.slack_squared.fetch_add(slack * slack, Ordering::Relaxed);
    }

    pub(crate) fn read(&self, class: Option<SizeClass>) -> RequestSamples {
        let sums = &self.0[class.map_or(SizeClass::COUNT, SizeClass::index)];
        RequestSamples {
            count: sums.count.load(Ordering::Relaxed),
            slack_bytes: sums.slack_bytes.load(Ordering::Relaxed),
            slack_squared: sums.slack_squared.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_add_up_per_class() {
        let requests = Requests::new();
        let class = SizeClass::from_index(5);
        for slack in [0, 3, 4] {
            requests.note(Some(class), slack);
        }
        requests.note(None, 8191);
        assert_eq!(requests.read(Some(class)), RequestSamples { count: 3, slack_bytes: 7, slack_squared: 25 });
        assert_eq!(requests.read(None), RequestSamples { count: 1, slack_bytes: 8191, slack_squared: 8191 * 8191 });
        assert_eq!(requests.read(Some(SizeClass::from_index(6))), RequestSamples::default());
    }

    #[test]
    fn refills_that_come_with_a_note_differ() {
        assert!((0..256).all(|entry| Requests::jitter(entry, 128) == 0));
        let jitters: std::collections::BTreeSet<usize> = (256..1024).map(|entry| Requests::jitter(entry, 128)).collect();
        assert_eq!((jitters.len(), jitters.last()), (33, Some(&32)));
        assert!((256..1024).all(|entry| Requests::jitter(entry, 3) == 0));
    }

    #[test]
    fn the_first_are_not_noted_then_all_then_one_of_eight() {
        assert!(!(0..256).any(Requests::is_sampled));
        assert!((256..1024).all(Requests::is_sampled));
        assert_eq!((1024..1824).filter(|&entry| Requests::is_sampled(entry)).count(), 100);
    }
}
