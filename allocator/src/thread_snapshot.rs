//! Floor 9. Threads, one by one: what each did and what it caches, for readers.

use crate::atomic::Ordering;
use crate::size_class::SizeClass;
use crate::thread_cache::record::{Life, Record};
use crate::thread_cache::registry::Registry;

/// The cache of one thread, or of one that has ended and whose cache waits for the next. See [`crate::threads`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct ThreadSnapshot {
    /// The kernel's number of the thread; 0: it has ended.
    pub id: u32,
    /// An address in the thread's own static memory, which the C library lays out at the end of its stack; 0: it has ended. Not to be used for
    /// anything but comparing.
    pub tls: usize,
    /// Blocks allocated by this thread, and by those that had the cache before it.
    pub allocations: u64,
    /// Blocks freed, whoever had allocated them.
    pub frees: u64,
    /// Bytes of these allocations, at block size.
    pub allocated_bytes: u64,
    /// Bytes of these frees, at block size.
    pub freed_bytes: u64,
    /// Free blocks in the cache.
    pub cached_blocks: u64,
    /// Their bytes.
    pub cached_bytes: u64,
}

impl ThreadSnapshot {
    pub(crate) fn of(record: &Record) -> Self {
        // Relaxed: numbers of a moment. Which thread has the record may change between two of them.
        let mut thread = Self { id: record.thread.load(Ordering::Relaxed), ..Self::default() };
        if record.life() == Life::Active && thread.id != 0 {
            thread.tls = record.tls.load(Ordering::Relaxed);
        } else {
            thread.id = 0;
        }
        for class in SizeClass::all() {
            let (counts, bytes) = (record.counts(class).0, class.bytes() as u64);
            thread.allocations += counts.allocations;
            thread.frees += counts.frees;
            thread.allocated_bytes += counts.allocations * bytes;
            thread.freed_bytes += counts.frees * bytes;
            thread.cached_blocks += counts.cached;
            thread.cached_bytes += counts.cached * bytes;
        }
        for (allocated, freed) in [&record.large, &record.sampled].map(|tally| (tally.allocations(), tally.frees())) {
            thread.allocations += allocated.blocks;
            thread.frees += freed.blocks;
            thread.allocated_bytes += allocated.bytes;
            thread.freed_bytes += freed.bytes;
        }
        thread
    }
}

/// Fills `into` from its start; says how many there are, which may be more than there was room for.
pub(crate) fn read(registry: &Registry<Record>, into: &mut [ThreadSnapshot]) -> usize {
    let mut count = 0;
    for record in registry.records().filter(|record| record.life() != Life::Orphaned) {
        if let Some(place) = into.get_mut(count) {
            *place = ThreadSnapshot::of(record);
        }
        count += 1;
    }
    count
}
