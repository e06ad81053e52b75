//! A reading: a snapshot of the heap, and when it was taken.

use std::time::Instant;

use freestone::Snapshot;

use crate::Rates;

/// What the allocator said at one moment. Prints as a report of about forty lines.
///
/// ```
/// let reading = freestone_stats::read();
/// println!("{} live in {} blocks", reading.heap.bytes.live, reading.heap.live_blocks());
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Reading {
    /// When it was taken, on the clock that never goes back.
    pub at: Instant,
    /// The numbers.
    pub heap: Snapshot,
}

/// Takes a reading now. See [`freestone::snapshot`] for what it costs.
#[must_use]
pub fn read() -> Reading {
    // The clock first: events between the two reads then belong to this reading, and make its rate too high rather than lost.
    Reading { at: Instant::now(), heap: freestone::snapshot() }
}

impl Reading {
    /// What happened between an earlier reading and this one. Given in the wrong order, the two make a `Rates` of zeros.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Rates {
        Rates::between(earlier, self)
    }
}
