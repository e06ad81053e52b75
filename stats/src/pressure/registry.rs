//! The registry: who wants to be called, and the calls.
//!
//! A registration, its end, and a callback may all happen while the heap allocates for one of the others, on the same thread:
//! whoever allocates here may find itself called from within. So nothing is done under a lock, in two parts.
//!
//! **The list** is immutable; whoever changes it publishes a changed copy, and leaves the old one to the epoch, which frees it
//! when nobody reads it any more. A copy that was overtaken by another change is made again. Every operation registers with the
//! collector by itself, for a few kilobytes meanwhile: what the heap interrupts then shares nothing with what interrupts it. The
//! collector is our own, so that nothing of the program's is ever freed by us, and nobody else's reading keeps our garbage alive.
//!
//! **A pass** looks at all thresholds, calls, and tells the heap when to look next. One thread does that at a time; who comes
//! meanwhile leaves a wish in `work` and goes its way. That is what keeps callbacks one after the other and never nested, and
//! what makes the bounds that the heap has last those of the list as it is last. While a callback runs nothing is held: no lock,
//! no epoch.
//!
//! What the list owns of a subscription is its watch, plain numbers. The callback belongs to the subscription, and is borrowed
//! for a call: when a subscription ends, so does what its callback captured, and never anywhere else.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use crossbeam_epoch::{Atomic, Collector, Guard, LocalHandle, Owned};

use super::Pressure;
use super::plan::{Bounds, Limits, State, Threshold, Verdict};

/// What a subscription keeps alive.
pub(super) type Callback = Arc<dyn Fn(&Pressure) + Send + Sync>;

/// The heap as seen from here: the real one, or one that a test drives.
pub(super) trait Heap {
    /// What it holds now.
    fn held_bytes(&self) -> usize;
    /// The limits that are set.
    fn limits(&self) -> Limits;
    /// Outside these it is to call [`Registry::heard`].
    fn set_bounds(&self, bounds: Bounds);
}

/// Which registration this is: the first is 1, and none comes twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Number(u64);

/// What is known of a threshold. Only passes write it, after registration.
#[derive(Debug)]
struct Watch {
    threshold: Threshold,
    /// Its state: where it was crossed, or [`ARMED`](Self::ARMED).
    crossed_at: AtomicUsize,
    /// The last pass that called.
    called_in: AtomicU64,
}

impl Watch {
    /// No memory reaches this, so nothing is crossed there.
    const ARMED: usize = usize::MAX;

    fn state(&self) -> State {
        // Relaxed: passes follow each other through `work`, the first follows registration through the list.
        match self.crossed_at.load(Ordering::Relaxed) {
            Self::ARMED => State::Armed,
            at => State::Crossed { at },
        }
    }

    fn set_state(&self, state: State) {
        let crossed_at = match state {
            State::Armed => Self::ARMED,
            State::Crossed { at } => at,
        };
        // Relaxed: as in `state`.
        self.crossed_at.store(crossed_at, Ordering::Relaxed);
    }

    /// Has this pass called already?
    fn was_called_in(&self, pass: u64) -> bool {
        // Relaxed: as in `state`.
        self.called_in.load(Ordering::Relaxed) == pass
    }

    fn set_called_in(&self, pass: u64) {
        // Relaxed: as in `state`.
        self.called_in.store(pass, Ordering::Relaxed);
    }
}

/// One line of the list.
#[derive(Clone)]
struct Listed {
    number: Number,
    watch: Arc<Watch>,
    callback: Weak<dyn Fn(&Pressure) + Send + Sync>,
}

/// Sorted by number.
type List = Vec<Listed>;

/// Somebody makes a pass.
const RUNNING: u8 = 1;
/// The list has changed: bounds are to be set.
const SETTLE: u8 = 2;
/// The heap has called: thresholds are to be looked at.
const LOOK: u8 = 4;
/// The fuse has tripped: everybody is to be called.
const FUSE: u8 = 8;

/// Everybody who wants to be called.
pub(super) struct Registry<H> {
    heap: H,
    collector: Collector,
    list: Atomic<List>,
    /// Registrations so far.
    registrations: AtomicU64,
    /// Wishes, and whether somebody is about to fulfil them.
    work: AtomicU8,
    /// Passes so far that called. Only passes use it.
    passes: AtomicU64,
}

impl<H: Heap> Registry<H> {
    pub(super) fn new(heap: H) -> Self {
        Self {
            heap,
            collector: Collector::new(),
            list: Atomic::new(List::new()),
            registrations: AtomicU64::new(0),
            work: AtomicU8::new(0),
            passes: AtomicU64::new(0),
        }
    }

    /// Adds to the list. Takes effect with the next [`settle`](Self::settle).
    pub(super) fn insert(&self, threshold: Threshold, callback: &Callback) -> Number {
        // Relaxed: only that no two are the same matters.
        let number = Number(self.registrations.fetch_add(1, Ordering::Relaxed) + 1);
        let watch = Watch { threshold, crossed_at: AtomicUsize::new(Watch::ARMED), called_in: AtomicU64::new(0) };
        let listed = Listed { number, watch: Arc::new(watch), callback: Arc::downgrade(callback) };
        self.replace(|list| {
            let place = list.partition_point(|other| other.number < number);
            let mut longer = List::with_capacity(list.len() + 1);
            longer.extend_from_slice(&list[..place]);
            longer.push(listed.clone());
            longer.extend_from_slice(&list[place..]);
            longer
        });
        number
    }

    /// Takes off the list. A call that has begun goes on.
    pub(super) fn remove(&self, number: Number) {
        self.replace(|list| list.iter().filter(|listed| listed.number != number).cloned().collect());
    }

    /// Publishes a changed copy of the list.
    fn replace(&self, change: impl Fn(&List) -> List) {
        let handle = self.collector.register();
        let guard = handle.pin();
        loop {
            // Acquire: pairs with the AcqRel of whoever published this list, and shows what it says.
            let current = self.list.load(Ordering::Acquire, &guard);
            // SAFETY: never null, and pinned since before the load: whoever has replaced it since cannot have had it freed.
            let changed = Owned::new(change(unsafe { current.deref() }));
            // AcqRel: publishes the copy to the Acquire loads; and our list continues from the one that it replaces. Relaxed: the
            // next turn loads again.
            if self.list.compare_exchange(current, changed, Ordering::AcqRel, Ordering::Relaxed, &guard).is_ok() {
                // SAFETY: it is off the list, and only the thread that took it off comes here. The pin keeps its address from
                // being used again, so the exchange compared lists, not addresses.
                unsafe { guard.defer_destroy(current) };
                return;
            }
        }
    }

    /// The list of this moment.
    fn list<'g>(&self, guard: &'g Guard) -> &'g List {
        // Acquire: pairs with the AcqRel in `replace`.
        let list = self.list.load(Ordering::Acquire, guard);
        // SAFETY: never null, and pinned since before the load.
        unsafe { list.deref() }
    }

    /// The heap says what it holds. Calls who is to be called, unless a pass is under way: then that one does.
    pub(super) fn heard(&self, held_bytes: usize, fuse: bool) {
        self.wish(if fuse { LOOK | FUSE } else { LOOK }, held_bytes);
    }

    /// The list has changed: tells the heap when to look.
    pub(super) fn settle(&self) {
        self.wish(SETTLE, 0);
    }

    /// Leaves a wish, and fulfils wishes until there are none, if nobody else does.
    ///
    /// Who wishes for a look says what the heap held, so that a crossing counts that is over by now. A wish that waits for
    /// somebody else's pass loses that: the heap may hear of one crossing twice meanwhile, and so may wish twice.
    fn wish(&self, wish: u8, mut heard_bytes: usize) {
        // Release: what was changed before the wish is seen by whoever fulfils it, whose swap acquires. Acquire: pairs with the
        // Release of the last pass, and shows what it wrote.
        if self.work.fetch_or(RUNNING | wish, Ordering::AcqRel) & RUNNING != 0 {
            return;
        }
        loop {
            // Acquire: pairs with the Release of who wished. Release: `wish` acquires what we see here from whoever comes next.
            let wishes = self.work.swap(RUNNING, Ordering::AcqRel);
            self.pass(wishes, heard_bytes);
            heard_bytes = 0;
            // Release: pairs with the Acquire of the next to run. Relaxed: after a failure the swap acquires.
            if self.work.compare_exchange(RUNNING, 0, Ordering::Release, Ordering::Relaxed).is_ok() {
                return;
            }
        }
    }

    /// Calls, if the heap wishes so, until nobody is left to call; then tells the heap when to look next.
    fn pass(&self, wishes: u8, heard_bytes: usize) {
        let handle = self.collector.register();
        if wishes & LOOK != 0 {
            // Relaxed, both: passes follow each other through `work`; of registrations only those that were there before it must
            // be seen, and those are on the list.
            let pass = self.passes.fetch_add(1, Ordering::Relaxed) + 1;
            let newest = Number(self.registrations.load(Ordering::Relaxed));
            let mut held_bytes = heard_bytes.max(self.heap.held_bytes());
            let fuse = wishes & FUSE != 0;
            // A callback may have allocated over the next threshold. Nobody is called twice, after the fuse neither, and nobody
            // who has come since is called, so this ends; the heap will see outside of its bounds what is left.
            while self.round(&handle, pass, newest, held_bytes, fuse) == Round::Called {
                held_bytes = self.heap.held_bytes();
            }
        }
        self.set_bounds(&handle);
    }

    /// Looks at each threshold once, in the order of registration, and calls.
    fn round(&self, handle: &LocalHandle, pass: u64, newest: Number, held_bytes: usize, fuse: bool) -> Round {
        let limits = self.heap.limits();
        let mut round = Round::Quiet;
        let mut last = Number(0);
        while let Some(listed) = self.next(handle, last).filter(|listed| listed.number <= newest) {
            last = listed.number;
            if listed.watch.was_called_in(pass) {
                continue;
            }
            let threshold = listed.watch.threshold.resolve(limits);
            let (state, verdict) = listed.watch.state().look(threshold, held_bytes);
            listed.watch.set_state(state);
            if verdict == Verdict::Call || fuse {
                listed.watch.set_called_in(pass);
                round = Round::Called;
                call(&listed.callback, &Pressure { held_bytes, threshold_bytes: threshold.unwrap_or(usize::MAX), fuse });
            }
        }
        round
    }

    /// The line behind this number. Looked for anew each time: the list may change during a call, and copying it would allocate.
    fn next(&self, handle: &LocalHandle, last: Number) -> Option<Listed> {
        let guard = handle.pin();
        let list = self.list(&guard);
        list.get(list.partition_point(|listed| listed.number <= last)).cloned()
    }

    /// Tells the heap when to look next, having armed what memory has fallen below.
    fn set_bounds(&self, handle: &LocalHandle) {
        let guard = handle.pin();
        let limits = self.heap.limits();
        let held_bytes = self.heap.held_bytes();
        let mut bounds = Bounds::WIDEST;
        for listed in self.list(&guard) {
            let threshold = listed.watch.threshold.resolve(limits);
            let state = listed.watch.state().rearmed(threshold, held_bytes);
            listed.watch.set_state(state);
            bounds = bounds.including(state, threshold);
        }
        drop(guard);
        self.heap.set_bounds(bounds);
    }
}

impl<H> Drop for Registry<H> {
    fn drop(&mut self) {
        let list = std::mem::replace(&mut self.list, Atomic::null());
        // SAFETY: nobody else has the registry any more, and the list is never null before this.
        drop(unsafe { list.into_owned() });
    }
}

/// What a look at all thresholds came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
enum Round {
    /// Nobody was called.
    Quiet,
    /// Somebody was, and may have changed everything.
    Called,
}

/// Calls, if the subscription has not ended. A panic ends here: below us is the allocator, through which nothing may unwind.
fn call(callback: &Weak<dyn Fn(&Pressure) + Send + Sync>, pressure: &Pressure) {
    let Some(callback) = callback.upgrade() else { return };
    // Who panics sees to its own invariants, as at the end of a thread. We may be the last to have the callback: its captures'
    // ends are caught too.
    let called = catch_unwind(AssertUnwindSafe(move || {
        callback(pressure);
        drop(callback);
    }));
    if let Err(payload) = called {
        // The payload may panic as it ends. What such a panic carries is not touched any more.
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            std::mem::forget(payload);
        }
    }
}

#[cfg(test)]
mod tests;
