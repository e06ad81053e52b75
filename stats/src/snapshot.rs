//! A snapshot: the heap's numbers of a moment, when that was, and what the kernel held in memory for the process.

use std::time::{Instant, SystemTime};

use crate::Rates;

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
    Snapshot { at, taken, heap: freestone::snapshot(), resident }
}

impl Snapshot {
    /// What happened between an earlier snapshot and this one. Given in the wrong order, the two make a `Rates` of zeros.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Rates {
        Rates::between(earlier, self)
    }
}
