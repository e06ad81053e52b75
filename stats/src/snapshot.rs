//! A snapshot: the heap's numbers of a moment, when that was, and what the kernel held in memory for the process.

use std::cmp::Reverse;
use std::time::{Instant, SystemTime};

use freestone::anomaly::{self, Anomaly, Vitals};
use freestone::{PAUSES_KEPT, Pause};

use crate::{Rates, history};

/// So many of the longest pauses are in a snapshot.
const PAUSES_LISTED: usize = 16;

/// What the allocator and the kernel said at one moment. Prints as a report of about forty lines.
///
/// ```
/// let now = freestone_stats::snapshot();
/// println!("{} bytes live in {} blocks", now.heap.bytes.live, now.heap.live_blocks());
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Snapshot {
    /// When it was taken, on the clock that never goes back.
    pub at: Instant,
    /// When it was taken, on the clock on the wall.
    pub taken: SystemTime,
    /// The heap's numbers.
    pub heap: freestone::Snapshot,
    /// What the process had in memory. `None`: `/proc` cannot be read.
    pub resident: Option<Resident>,
    /// See [`longest_pauses`](Self::longest_pauses); behind them pauses that took no time.
    longest_pauses: [Pause; PAUSES_LISTED],
}

/// What the kernel held in memory for the process, by its quick count: it may be off by some pages per thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Resident {
    /// All of it, in bytes.
    pub total: u64,
    /// Of that, what is backed by files or shared with other processes.
    pub file_backed: u64,
}

/// Takes a snapshot now. Allocates nothing, stops nobody; costs what [`freestone::snapshot`] does, and a read of a small file in `/proc`.
#[must_use]
pub fn snapshot() -> Snapshot {
    // The clock first: events between the two reads then belong to this snapshot, and make its rate too high rather than lost.
    let (at, taken) = (Instant::now(), SystemTime::now());
    let resident =
        freestone::resident().map(|[total, file_backed]| Resident { total: total as u64, file_backed: file_backed as u64 });
    Snapshot { at, taken, heap: freestone::snapshot(), resident, longest_pauses: longest_pauses() }
}

/// Of the latest pauses the longest, longest first.
fn longest_pauses() -> [Pause; PAUSES_LISTED] {
    let mut recent = [Pause::default(); PAUSES_KEPT];
    let count = freestone::recent_pauses(&mut recent);
    let recent = &mut recent[..count];
    // Not the stable sort: that allocates.
    recent.sort_unstable_by_key(|pause| Reverse((pause.took_ns, pause.ended_ns)));
    let mut longest = [Pause::default(); PAUSES_LISTED];
    for (listed, pause) in longest.iter_mut().zip(recent) {
        *listed = *pause;
    }
    longest
}

impl Snapshot {
    /// All zeros, taken then: to be filled with what was recorded.
    #[cfg(feature = "recorder")]
    pub(crate) fn blank(at: Instant) -> Self {
        let heap = freestone::Snapshot::default();
        Self { at, taken: SystemTime::UNIX_EPOCH, heap, resident: None, longest_pauses: [Pause::default(); PAUSES_LISTED] }
    }

    /// Of the latest 256 slow paths that took longer than 100 µs, and releases of memory, those that took longest: longest first, 16 at most.
    #[must_use]
    pub fn longest_pauses(&self) -> &[Pause] {
        let count = self.longest_pauses.iter().take_while(|pause| pause.took_ns > 0).count();
        &self.longest_pauses[..count]
    }

    /// What was wrong between an earlier snapshot of this process and this one, by the thresholds of the [`history`]. Allocates nothing.
    pub(crate) fn each_anomaly_since(&self, earlier: &freestone::Snapshot, each: impl FnMut(Anomaly)) {
        // Sums do not tell how long one of many releases took; the pauses do.
        let vitals = Vitals::between(earlier, &self.heap).including(self.longest_pauses(), &self.heap);
        anomaly::find(&vitals, &history::thresholds(), each);
    }

    /// What happened between an earlier snapshot and this one. Given in the wrong order, the two make a `Rates` of zeros.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Rates {
        Rates::between(earlier, self)
    }

    /// A pause longer than all others.
    #[cfg(test)]
    pub(crate) fn with_longest_pause(mut self, pause: Pause) -> Self {
        self.longest_pauses = [pause; PAUSES_LISTED];
        self
    }
}

#[cfg(test)]
mod anomaly_tests {
    use freestone::PauseKind;
    use freestone::anomaly::Kind;

    use super::*;

    #[test]
    fn one_long_release_among_many_short_ones_is_found() {
        let mut earlier = freestone::Snapshot::default();
        let mut later = snapshot();
        (earlier.at_ns, later.heap.at_ns) = (1_000, 1_000_001_000);
        let release = PauseKind::Release as usize;
        // One of 20 ms was long before; of eleven since then one took 15.
        (earlier.pauses[release].count, earlier.pauses[release].total_ns, earlier.pauses[release].max_ns) =
            (1, 20_000_000, 20_000_000);
        later.heap.pauses = earlier.pauses;
        (later.heap.pauses[release].count, later.heap.pauses[release].total_ns) = (12, 36_000_000);
        let found = |later: &Snapshot| {
            let mut kinds = Vec::new();
            later.each_anomaly_since(&earlier, |anomaly| kinds.push(anomaly.kind));
            kinds.contains(&Kind::ReleasePause)
        };
        let mut pause = Pause::default();
        (pause.kind, pause.ended_ns, pause.took_ns) = (PauseKind::Release, 500, 20_000_000);
        later.longest_pauses = [Pause::default(); PAUSES_LISTED];
        later.longest_pauses[0] = pause;
        assert!(!found(&later), "that one was before");
        (pause.ended_ns, pause.took_ns) = (500_000, 15_000_000);
        later.longest_pauses[1] = pause;
        assert!(found(&later));
    }
}
