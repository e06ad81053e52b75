//! A point: what is worth remembering of a snapshot, in some two hundred bytes.

use std::time::Duration;

use freestone::{PauseKind, Retain, control};

use crate::{Rates, Resident, Snapshot};

/// What is worth remembering of a snapshot: numbers of one moment for [`history`](crate::history) and for
/// [`verdict::judge`](crate::verdict::judge). All bytes are bytes, all counts are totals since the start of the process.
///
/// One that was recorded elsewhere is made from [`Point::default`], field by field.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Point {
    /// When, in nanoseconds on the clock that never goes back (`CLOCK_MONOTONIC`).
    pub at_ns: u64,
    /// Blocks that the program has, in bytes.
    pub live: u64,
    /// Free blocks in thread caches, in bytes.
    pub thread_cached: u64,
    /// Free blocks on their way between threads, in bytes.
    pub depot: u64,
    /// Free blocks in spans that are in use, in bytes.
    pub holes: u64,
    /// Free pages that still hold memory, in bytes.
    pub dirty: u64,
    /// What the allocator has for itself, in bytes.
    pub metadata: u64,
    /// What samples take beyond their blocks, in bytes.
    pub profiler: u64,
    /// What a fork left behind, in bytes.
    pub lost_at_fork: u64,
    /// Address space without memory, in bytes.
    pub released: u64,
    /// Blocks ever allocated.
    pub allocations: u64,
    /// Blocks ever freed.
    pub frees: u64,
    /// Their bytes, at block size.
    pub allocated_bytes: u64,
    /// Their bytes, at block size.
    pub freed_bytes: u64,
    /// Calls to the operating system, so far.
    pub os_calls: u64,
    /// Bytes that were given back to the system, so far.
    pub given_back: u64,
    /// What the kernel holds in memory for the process. `None`: it did not say.
    pub resident: Option<Resident>,
    /// Threads that are there and have allocated.
    pub threads: u32,
    /// How long free memory may stay after the last need for it before it goes back, in milliseconds, by the option `retain` as it was.
    /// 0: not known. [`Point::KEPT`]: it stays.
    pub settles_ms: u32,
}

impl Point {
    /// In [`settles_ms`](Self::settles_ms): free memory stays until somebody asks (`retain:keep`).
    pub const KEPT: u32 = u32::MAX;

    /// What is worth remembering of a snapshot of this process, and of its option `retain` as it is now.
    #[must_use]
    pub fn of(snapshot: &Snapshot) -> Self {
        Self { settles_ms: settles_ms(control::configuration().retain), ..Self::of_another(snapshot) }
    }

    /// What is worth remembering of a snapshot of another process, of which the options are not known.
    #[must_use]
    pub fn of_another(snapshot: &Snapshot) -> Self {
        let heap = &snapshot.heap;
        let bytes = &heap.bytes;
        let gave_back = [PauseKind::Release, PauseKind::Assist, PauseKind::ReleaseAll];
        Self {
            at_ns: heap.at_ns,
            live: bytes.live as u64,
            thread_cached: bytes.thread_cached as u64,
            depot: bytes.depot as u64,
            holes: bytes.holes as u64,
            dirty: bytes.dirty as u64,
            metadata: bytes.metadata as u64,
            profiler: bytes.profiler as u64,
            lost_at_fork: bytes.lost_at_fork as u64,
            released: bytes.released as u64,
            allocations: heap.allocations,
            frees: heap.frees,
            allocated_bytes: heap.allocated_bytes,
            freed_bytes: heap.freed_bytes,
            os_calls: heap.events.os_calls(),
            given_back: gave_back.iter().map(|&kind| heap.pauses[kind as usize].bytes).sum(),
            resident: snapshot.resident,
            threads: heap.thread_records.saturating_sub(heap.thread_records_pooled) as u32,
            settles_ms: 0,
        }
    }

    /// What the heap holds memory for, in bytes: the sum of its lines without `released`.
    #[must_use]
    pub fn committed(&self) -> u64 {
        [self.idle(), self.metadata, self.profiler, self.lost_at_fork].into_iter().fold(self.live, u64::saturating_add)
    }

    /// Of that, what is free: in caches, in holes, in whole pages.
    #[must_use]
    pub fn idle(&self) -> u64 {
        [self.depot, self.holes, self.dirty].into_iter().fold(self.thread_cached, u64::saturating_add)
    }

    /// What of the memory that no file backs cannot be the heap's, in bytes: at least so much belongs to others. `None`: the kernel did
    /// not say.
    ///
    /// A heap that holds memory which was never touched has room to hide others in, so it may be more.
    #[must_use]
    pub fn not_ours(&self) -> Option<u64> {
        let resident = self.resident?;
        Some(resident.total.saturating_sub(resident.file_backed).saturating_sub(self.committed()))
    }

    /// What happened between an earlier point and this one. Given in the wrong order, the two make a `Rates` of zeros.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Rates {
        let Some(interval_ns) = self.at_ns.checked_sub(earlier.at_ns) else { return Rates::default() };
        let allocated_bytes = self.allocated_bytes.saturating_sub(earlier.allocated_bytes);
        let freed_bytes = self.freed_bytes.saturating_sub(earlier.freed_bytes);
        Rates {
            interval: Duration::from_nanos(interval_ns),
            allocations: self.allocations.saturating_sub(earlier.allocations),
            frees: self.frees.saturating_sub(earlier.frees),
            allocated_bytes,
            freed_bytes,
            live_growth_bytes: allocated_bytes.wrapping_sub(freed_bytes) as i64,
            live_bytes: u64::midpoint(earlier.live, self.live),
            os_calls: self.os_calls.saturating_sub(earlier.os_calls),
        }
    }
}

/// When free memory has gone back, by the option. What is kept above the peak is not counted: it never goes.
fn settles_ms(retain: Retain) -> u32 {
    /// From one look of the heap at itself to the next.
    const TICK_MS: u32 = 100;
    match retain {
        Retain::Off => TICK_MS,
        Retain::Peak { window_ms, steps, .. } => u32::from(window_ms) + u32::from(steps) * TICK_MS,
        _ => Point::KEPT,
    }
}
