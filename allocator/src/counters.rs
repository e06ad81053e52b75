//! Floor 2. Counts of what the slow paths did. Every room books where it happens; readers add up.
//!
//! Counts only grow. Those of a thread's record have one writer, its thread; those of the heap are written by everybody.

use crate::atomic::{AtomicU64, Ordering};

/// What is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Event {
    /// A thread's alloc array ran dry and changed places with its free array.
    Exchange,
    /// A thread got blocks from central.
    Refill,
    /// A magazine went to central.
    Flush,
    /// A thread got a magazine from the depot.
    DepotTake,
    /// A thread left a magazine in the depot.
    DepotPut,
    /// A span began to hold blocks.
    SpanBirth,
    /// A span went back to the page heap.
    SpanDeath,
    /// Address space was asked for.
    Map,
    /// Address space was given back.
    Unmap,
    /// Memory was given back.
    Purge,
    /// The kernel was told which pages to use.
    Advise,
    /// Pages were moved instead of copied.
    Move,
    /// The system refused one of the above.
    Refused,
    /// The hard limit refused memory.
    LimitRefused,
    /// A thread's record was made.
    RecordBirth,
    /// A thread took over the record of one that had ended.
    RecordAdoption,
    /// Somebody looked whether memory should go back.
    Tick,
    /// A tick, an assist or somebody who asked gave memory back.
    ReleaseRound,
    /// Huge pages took so long to come that the heap did without them for a while.
    HugePagePause,
    /// A block was allocated in the sampled zone.
    Sampled,
    /// The end of a sampled block was seen.
    SampledEnd,
    /// The background thread was to be started.
    BackgroundStart,
    /// A block could not be taken back: a signal handler freed it while its thread was in a slow path.
    Dropped,
}

impl Event {
    /// How many kinds there are.
    pub(crate) const COUNT: usize = Self::Dropped as usize + 1;
}

/// One count per event.
#[derive(Debug)]
pub(crate) struct Counters([AtomicU64; Event::COUNT]);

impl Counters {
    pub(crate) const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; Event::COUNT])
    }

    /// One more, from whichever thread.
    #[inline]
    pub(crate) fn count(&self, event: Event) {
        // Release: who sees this count also sees those that came before it, such as the birth before the death. Pairs with the Acquire in
        // `get`.
        self.0[event as usize].fetch_add(1, Ordering::Release);
    }

    /// One more, from the only thread that ever writes here: no locked instruction.
    #[inline]
    pub(crate) fn count_alone(&self, event: Event) {
        let count = &self.0[event as usize];
        // Relaxed: one writer, so nothing is lost between load and store. Release: as in `count`.
        count.store(count.load(Ordering::Relaxed) + 1, Ordering::Release);
    }

    pub(crate) fn get(&self, event: Event) -> u64 {
        // Acquire: see `count`.
        self.0[event as usize].load(Ordering::Acquire)
    }
}

/// Blocks allocated and freed that no slot counts, and their bytes.
#[derive(Debug)]
pub(crate) struct Tally {
    allocations: AtomicU64,
    frees: AtomicU64,
    allocated_bytes: AtomicU64,
    freed_bytes: AtomicU64,
}

/// What a [`Tally`] says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Tallied {
    pub(crate) blocks: u64,
    pub(crate) bytes: u64,
}

impl Tally {
    pub(crate) const fn new() -> Self {
        Self {
            allocations: AtomicU64::new(0),
            frees: AtomicU64::new(0),
            allocated_bytes: AtomicU64::new(0),
            freed_bytes: AtomicU64::new(0),
        }
    }

    /// More blocks, from whichever thread.
    pub(crate) fn allocated(&self, Tallied { blocks, bytes }: Tallied) {
        // Release: a reader that sees this block's free also sees its allocation. Pairs with the Acquire in `allocations`. Bytes first, so that
        // no block is seen without.
        self.allocated_bytes.fetch_add(bytes, Ordering::Release);
        self.allocations.fetch_add(blocks, Ordering::Release);
    }

    /// Fewer.
    pub(crate) fn freed(&self, Tallied { blocks, bytes }: Tallied) {
        // Release: as above.
        self.freed_bytes.fetch_add(bytes, Ordering::Release);
        self.frees.fetch_add(blocks, Ordering::Release);
    }

    /// One more, from the only thread that ever writes here: no locked instruction.
    #[inline]
    pub(crate) fn allocated_alone(&self, bytes: usize) {
        // Relaxed: one writer. Release: as in `allocated`.
        self.allocated_bytes.store(self.allocated_bytes.load(Ordering::Relaxed) + bytes as u64, Ordering::Release);
        self.allocations.store(self.allocations.load(Ordering::Relaxed) + 1, Ordering::Release);
    }

    /// As [`allocated_alone`](Self::allocated_alone).
    #[inline]
    pub(crate) fn freed_alone(&self, bytes: usize) {
        // Relaxed and Release: as above.
        self.freed_bytes.store(self.freed_bytes.load(Ordering::Relaxed) + bytes as u64, Ordering::Release);
        self.frees.store(self.frees.load(Ordering::Relaxed) + 1, Ordering::Release);
    }

    pub(crate) fn allocations(&self) -> Tallied {
        // Acquire: see `allocated`.
        Tallied { blocks: self.allocations.load(Ordering::Acquire), bytes: self.allocated_bytes.load(Ordering::Acquire) }
    }

    pub(crate) fn frees(&self) -> Tallied {
        // Acquire: see `allocated`.
        Tallied { blocks: self.frees.load(Ordering::Acquire), bytes: self.freed_bytes.load(Ordering::Acquire) }
    }
}
