//! Floor 8. Limits in force: from what somebody chose to the marks that growing memory is held against, and who is told when they are reached.
//!
//! The soft limit is on what the process has resident: once a second the kernel is asked how much that is beyond, or short of, what the
//! heap holds. The hard limit is on what the heap holds alone, so that when an allocation fails does not depend on anybody else.

use core::fmt;

use crate::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use crate::config::SURROUNDINGS_NS;
use crate::counters::Event;
use crate::fatal::NoWayOut;
use crate::limit::{Call, FuseBox, Others, percent_of};
use crate::options::Limit;
use crate::page_heap::PageHeap;
use crate::probes::{self, AtLimit};
use crate::surroundings;
use crate::sync::{Lock, Rank};

/// What the heap tells the one watcher of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct HeldEvent {
    /// Memory that the heap holds, in bytes.
    pub held_bytes: usize,
    /// The fuse tripped: 95 % of the hard limit are reached.
    pub fuse: bool,
}

/// Somebody who is told.
pub type Watcher = fn(HeldEvent);

/// What limits did so far, and where they are. See [`crate::Snapshot`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct LimitSnapshot {
    /// The soft limit in bytes, on what the process has resident. `None`: there is none.
    pub memory_limit: Option<usize>,
    /// The hard limit in bytes, on what the heap holds. `None`: there is none.
    pub hard_limit: Option<usize>,
    /// Memory that the heap holds for blocks, in bytes: in use, cached, and free but not given back.
    pub held: usize,
    /// Times that a thread had to give back because it took memory above the soft limit.
    pub assists: u64,
    /// Times that it should have and did not, because it had spent half of its time on that already, or because there was nothing to give
    /// back: the heap grew over the soft limit.
    pub exceeded: u64,
    /// Times that the fuse tripped.
    pub fuse_trips: u64,
    /// It tripped three times within ten minutes. Stays `true` for the rest of the process's life.
    pub fuse_sticky: bool,
    /// Times that the hard limit refused memory. What lies idle is then given back and memory asked for again, so an allocation may be refused
    /// twice, and then fail, or once, and succeed.
    pub refusals: u64,
}

struct Limits {
    soft: usize,
    hard: usize,
    fuse: FuseBox,
    measured_ns: u64,
}

/// The limits of a heap.
pub(crate) struct Guard {
    limits: Lock<Limits>,
    others: Others,
    /// A [`Watcher`], or null.
    watcher: AtomicPtr<()>,
    /// The watcher is told when less than this is held.
    below: AtomicUsize,
    /// It is being told something.
    is_telling: AtomicBool,
    assists: AtomicU64,
    exceeded: AtomicU64,
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").finish_non_exhaustive()
    }
}

/// No limit, in [`Limits`]: a heap begins as zeros.
const NONE: usize = 0;

const fn or_nowhere(limit: usize) -> usize {
    if limit == NONE { usize::MAX } else { limit }
}

const fn said(limit: usize) -> Option<usize> {
    if limit == NONE { None } else { Some(limit) }
}

/// A limit in bytes.
fn resolve(limit: Limit) -> usize {
    match limit {
        Limit::None => NONE,
        Limit::Bytes(bytes) => bytes.max(1),
        // Where nobody knows how much there is, a share of it is no limit.
        Limit::Percent(percent) => {
            surroundings::memory_bytes().map_or(NONE, |bytes| percent_of(bytes, usize::from(percent.clamp(1, 100))).max(1))
        }
    }
}

// Relaxed for counts and times; the lock orders the limits.
impl Guard {
    pub(crate) const fn new() -> Self {
        Self {
            limits: Lock::new(Rank::Guard, Limits { soft: NONE, hard: NONE, fuse: FuseBox::new(), measured_ns: 0 }),
            others: Others::new(),
            watcher: AtomicPtr::new(core::ptr::null_mut()),
            below: AtomicUsize::new(0),
            is_telling: AtomicBool::new(false),
            assists: AtomicU64::new(0),
            exceeded: AtomicU64::new(0),
        }
    }

    /// Puts limits in force.
    pub(crate) fn set(&self, soft: Limit, hard: Limit, page_heap: &PageHeap) {
        let (soft, hard) = (resolve(soft), resolve(hard));
        let resident = if soft == NONE { None } else { surroundings::resident_bytes() };
        let mut limits = self.limits.lock();
        (limits.soft, limits.hard) = (soft, hard);
        limits.fuse.rearm(page_heap.held(), or_nowhere(hard));
        self.measure(&limits, resident, page_heap);
        let marks = &page_heap.marks;
        marks.set_hard(or_nowhere(hard));
        marks.set_fuse(limits.fuse.mark(or_nowhere(hard)));
        drop(limits);
        // Whoever is above a limit that was lowered notices at once.
        marks.took(0, page_heap.held());
        // Shares of limits are something else now.
        marks.call(Call::Watch);
    }

    /// Moves the marks of the soft limit to where they belong while so much is resident. Read before: the lock is not held while the kernel
    /// is asked.
    fn measure(&self, limits: &Limits, resident: Option<usize>, page_heap: &PageHeap) {
        if let Some(resident) = resident {
            self.others.measure(resident, page_heap.held());
        }
        page_heap.marks.set_soft(self.others.allow(or_nowhere(limits.soft)));
    }

    /// Looks at what changes with time: what else is resident, and whether so little is held that the fuse or the watcher may hear of it.
    pub(crate) fn look(&self, now_ns: u64, page_heap: &PageHeap) {
        let held = page_heap.held();
        if held < self.below.load(Ordering::Relaxed) {
            page_heap.marks.call(Call::Watch);
        }
        let Some(mut limits) = self.limits.try_lock() else { return };
        let hard = or_nowhere(limits.hard);
        if limits.fuse.rearm(held, hard) {
            page_heap.marks.set_fuse(limits.fuse.mark(hard));
        }
        if now_ns.saturating_sub(limits.measured_ns) >= SURROUNDINGS_NS && limits.soft != NONE {
            limits.measured_ns = now_ns;
            drop(limits);
            let resident = surroundings::resident_bytes();
            self.measure(&self.limits.lock(), resident, page_heap);
        }
    }

    /// The mark of the fuse was reached: does it trip? Says how often it has by now.
    pub(crate) fn trips(&self, now_ns: u64, page_heap: &PageHeap) -> Option<u64> {
        let mut limits = self.limits.lock();
        let hard = or_nowhere(limits.hard);
        if !limits.fuse.trips(now_ns, page_heap.held(), hard) {
            return None;
        }
        page_heap.marks.set_fuse(limits.fuse.mark(hard));
        probes::limit(page_heap.held(), hard, AtLimit::Fuse, 0);
        Some(limits.fuse.trips)
    }

    /// A thread gave memory back because `debt` bytes were taken above the soft limit.
    pub(crate) fn assisted(&self, debt: usize, page_heap: &PageHeap) {
        self.assists.fetch_add(1, Ordering::Relaxed);
        probes::limit(page_heap.held(), page_heap.marks.soft(), AtLimit::Assist, debt);
    }

    /// It did not, or gave back less.
    pub(crate) fn exceeded(&self, debt: usize, page_heap: &PageHeap) {
        self.exceeded.fetch_add(1, Ordering::Relaxed);
        probes::limit(page_heap.held(), page_heap.marks.soft(), AtLimit::Exceeded, debt);
    }

    /// Is there something that changes with time and that somebody wants to hear of?
    pub(crate) fn must_look(&self) -> bool {
        let limits = self.limits.lock();
        limits.soft != NONE || limits.fuse.is_tripped() || self.below.load(Ordering::Relaxed) != 0
    }

    pub(crate) fn snapshot(&self, page_heap: &PageHeap) -> LimitSnapshot {
        let limits = self.limits.lock();
        LimitSnapshot {
            memory_limit: said(limits.soft),
            hard_limit: said(limits.hard),
            held: page_heap.held(),
            assists: self.assists.load(Ordering::Relaxed),
            exceeded: self.exceeded.load(Ordering::Relaxed),
            fuse_trips: limits.fuse.trips,
            fuse_sticky: limits.fuse.sticky,
            refusals: page_heap.counters.get(Event::LimitRefused),
        }
    }

    // ---- the watcher -------------------------------------------------------------------------------------------------

    pub(crate) fn set_watcher(&self, watcher: Watcher) {
        // Release: what the program did before. Pairs with the Acquire in `tell`.
        self.watcher.store(watcher as *mut (), Ordering::Release);
    }

    pub(crate) fn set_watch_bounds(&self, above: usize, below: usize, page_heap: &PageHeap) {
        self.below.store(below, Ordering::Relaxed);
        let limits = self.limits.lock();
        page_heap.marks.set_watch(above);
        drop(limits);
        page_heap.marks.took(0, page_heap.held());
    }

    /// Tells the watcher. `false`: it is being told something else at the moment. The calling thread must be in no room of ours.
    pub(crate) fn tell(&self, event: HeldEvent) -> bool {
        // Acquire: see `set_watcher`.
        let watcher = self.watcher.load(Ordering::Acquire);
        if watcher.is_null() {
            return true;
        }
        // Acquire, Release: one after the other.
        if self.is_telling.swap(true, Ordering::Acquire) {
            return false;
        }
        // SAFETY: `set_watcher` stored nothing but such functions.
        let watcher = unsafe { core::mem::transmute::<*mut (), Watcher>(watcher) };
        // It would unwind through an allocation.
        let no_way_out = NoWayOut("a watcher panicked");
        watcher(event);
        core::mem::forget(no_way_out);
        self.is_telling.store(false, Ordering::Release);
        true
    }

    pub(crate) fn before_fork(&self) {
        self.limits.before_fork();
    }

    pub(crate) fn after_fork(&self) {
        self.limits.after_fork();
    }

    /// In the child of a fork, whoever was telling is not there any more.
    pub(crate) fn after_fork_in_child(&self) {
        self.is_telling.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::Meta;
    use crate::os::sim::{Plan, World};

    const MIB: usize = 1 << 20;

    fn heap() -> (&'static PageHeap, &'static Meta) {
        (Box::leak(Box::new(PageHeap::new())), Box::leak(Box::new(Meta::new())))
    }

    #[test]
    fn a_share_is_of_what_there_is() {
        let world = World::new();
        let _here = world.enter();
        let (heap, _) = heap();
        let guard = Guard::new();
        world.write_file(c"/sys/fs/cgroup/memory.max", "104857600\n");
        guard.set(Limit::Percent(90), Limit::Percent(100), heap);
        let limits = guard.snapshot(heap);
        assert_eq!((limits.memory_limit, limits.hard_limit), (Some(90 * MIB), Some(100 * MIB)));
        world.plan(Plan::From(0));
        guard.set(Limit::Percent(50), Limit::None, heap);
        assert_eq!(
            guard.snapshot(heap).memory_limit,
            Some(1 << 33),
            "files that cannot be read are absent: the machine's memory is known"
        );
        guard.set(Limit::None, Limit::Bytes(0), heap);
        assert_eq!((guard.snapshot(heap).memory_limit, heap.marks.hard()), (None, 1));
    }

    #[test]
    fn at_the_hard_limit_there_is_no_more() {
        let world = World::new();
        let _here = world.enter();
        let (heap, meta) = heap();
        let guard = Guard::new();
        heap.set_huge_pages(crate::options::HugePages::Never);
        guard.set(Limit::None, Limit::Bytes(8 * MIB), heap);
        let first = heap.take_huge(5 * MIB, 1, meta).expect("below the limit");
        assert!(heap.take_huge(4 * MIB, 1, meta).is_none());
        assert!(heap.take_run(256, 1, crate::page_heap::Zone::Window).is_some());
        assert!(heap.take_run(256, 1, crate::page_heap::Zone::Window).is_none());
        heap.give_huge(first.address.addr().get()).expect("a live block");
        assert!(heap.take_huge(5 * MIB, 1, meta).is_some(), "what is free and held already does not count twice");
        guard.set(Limit::None, Limit::None, heap);
        assert!(heap.take_huge(40 * MIB, 1, meta).is_some());
        heap.check();
    }

    #[test]
    fn the_watcher_hears_one_thing_at_a_time() {
        static TOLD: AtomicUsize = AtomicUsize::new(0);
        static GUARD: Guard = Guard::new();
        assert!(GUARD.tell(HeldEvent { held_bytes: 1, fuse: false }), "nobody is there to be told");
        GUARD.set_watcher(|event| {
            TOLD.fetch_add(event.held_bytes, Ordering::Relaxed);
            assert!(!GUARD.tell(HeldEvent { held_bytes: 1000, fuse: false }));
        });
        assert!(GUARD.tell(HeldEvent { held_bytes: 5, fuse: false }));
        assert!(GUARD.tell(HeldEvent { held_bytes: 7, fuse: true }));
        assert_eq!(TOLD.load(Ordering::Relaxed), 12);
    }

    #[test]
    fn memory_that_is_reached_or_left_is_told() {
        let world = World::new();
        let _here = world.enter();
        let (heap, meta) = heap();
        let guard = Guard::new();
        guard.set_watch_bounds(4 * MIB, 0, heap);
        let block = heap.take_huge(3 * MIB, 1, meta).expect("memory is there");
        assert!(!heap.marks.answer(Call::Watch));
        let other = heap.take_huge(3 * MIB, 1, meta).expect("memory is there");
        assert!(heap.marks.answer(Call::Watch));
        guard.set_watch_bounds(usize::MAX, 2 * MIB, heap);
        guard.look(1, heap);
        assert!(!heap.marks.answer(Call::Watch));
        for block in [block, other] {
            heap.give_huge(block.address.addr().get()).expect("a live block");
        }
        heap.release_all(crate::page_heap::Rested::any(0));
        guard.look(2, heap);
        assert!(heap.marks.answer(Call::Watch));
    }
}
