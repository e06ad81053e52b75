//! Floor 5. What is chosen about samples. Apart from the rest, because every program touches it, and most that are small nothing else.

use core::ptr;

use crate::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use crate::chance;
use crate::config::{PROFILE_LIVE_SHARE, PROFILE_MEMORY_BYTES};
use crate::os::{self, Watcher};
use crate::page_heap::PageHeap;

/// The options in force, and where the next thread's chance begins.
pub(crate) struct Choices {
    /// Bytes between two samples; 0: none.
    interval: AtomicU32,
    /// Blocks of so many bytes are samples without having been drawn.
    above: AtomicUsize,
    /// Threads that are held up for so long are recorded.
    stall_ns: AtomicU64,
    /// What sites may take; 0: a share of what the heap holds.
    memory_max: AtomicUsize,
    /// What the chance of the next thread begins with; 0: nobody said.
    next_seed: AtomicU64,
    /// See [`Guarded::is_next`](super::guarded::Guarded::is_next).
    guard_interval: AtomicUsize,
    /// Who is to be told of faults beside guarded blocks; null: nobody.
    watcher: AtomicPtr<Watcher>,
}

// Relaxed: numbers that order nothing.
impl Choices {
    pub(crate) const fn new() -> Self {
        Self {
            interval: AtomicU32::new(0),
            above: AtomicUsize::new(0),
            stall_ns: AtomicU64::new(0),
            memory_max: AtomicUsize::new(0),
            next_seed: AtomicU64::new(0),
            guard_interval: AtomicUsize::new(0),
            watcher: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// Says what was chosen: bytes between samples, from which size on a block is one in any case, from when on a stall is, and what sites may take.
    pub(crate) fn choose(&self, interval: usize, above: usize, stall_ns: u64, memory_max: usize) {
        self.interval.store(interval as u32, Ordering::Relaxed);
        self.above.store(above, Ordering::Relaxed);
        self.stall_ns.store(stall_ns, Ordering::Relaxed);
        self.memory_max.store(memory_max, Ordering::Relaxed);
    }

    /// Says of guarded blocks how many bytes lie between two, and who is told of faults.
    pub(crate) fn choose_guarded(&self, interval: usize, watcher: Option<&'static Watcher>) {
        self.guard_interval.store(interval, Ordering::Relaxed);
        let watcher = watcher.map_or(ptr::null_mut(), |watcher| ptr::from_ref(watcher).cast_mut());
        // Release: what it says. Pairs with the Acquire in `watcher`.
        self.watcher.store(watcher, Ordering::Release);
    }

    pub(super) fn guard_interval(&self) -> usize {
        self.guard_interval.load(Ordering::Relaxed)
    }

    pub(super) fn watcher(&self) -> Option<&'static Watcher> {
        // Acquire: pairs with the Release in `choose_guarded`.
        // SAFETY: null, or it came from such a reference.
        unsafe { self.watcher.load(Ordering::Acquire).as_ref() }
    }

    /// Has threads that are born from now on begin with numbers that follow from this one.
    pub(crate) fn set_seed(&self, seed: u64) {
        self.next_seed.store(seed | 1, Ordering::Relaxed);
    }

    /// What the chance of a new thread begins with.
    pub(crate) fn seed(&self) -> u64 {
        let mut seed = self.next_seed.load(Ordering::Relaxed);
        if seed == 0 {
            seed = os::random() | 1;
        }
        // Two threads that are born at the same moment may begin with the same number: then they draw the same, each for itself, which is as good.
        let (state, random) = chance::next(seed);
        self.next_seed.store(state | 1, Ordering::Relaxed);
        random
    }

    /// Bytes between two samples; 0: none.
    #[inline]
    pub(crate) fn interval(&self) -> u32 {
        self.interval.load(Ordering::Relaxed)
    }

    /// Is a block of so many bytes a sample without having been drawn?
    pub(crate) fn is_above(&self, bytes: usize) -> bool {
        bytes >= self.above.load(Ordering::Relaxed)
    }

    /// What sites may take.
    pub(super) fn memory_max(&self, page_heap: &PageHeap) -> usize {
        match self.memory_max.load(Ordering::Relaxed) {
            0 => PROFILE_MEMORY_BYTES + page_heap.held() / PROFILE_LIVE_SHARE,
            chosen => chosen,
        }
    }

    /// A thread was held up for so long: is that to be recorded?
    pub(crate) fn records_stall(&self, ns: u64) -> bool {
        self.interval() != 0 && ns >= self.stall_ns.load(Ordering::Relaxed)
    }
}
