//! Pressure: callbacks when the heap holds too much.
//!
//! ```
//! use std::sync::atomic::{AtomicUsize, Ordering};
//!
//! use freestone_stats::pressure::{self, Threshold};
//!
//! /// How much the cache is to drop when it has the time.
//! static SHED_BYTES: AtomicUsize = AtomicUsize::new(0);
//!
//! let shedding = pressure::on(Threshold::of_memory_limit(70), |pressure| {
//!     SHED_BYTES.store(pressure.held_bytes.saturating_sub(pressure.threshold_bytes / 2), Ordering::Relaxed);
//! });
//! // … and no longer:
//! drop(shedding);
//! ```
//!
//! # When
//!
//! A callback runs once for each time that held memory ([`freestone::control::held_bytes`]) comes up to its threshold. Then
//! memory must fall below 90 % of the threshold before it can run again. The heap sees a rise as it happens, and a fall at its
//! ticks, ten a second: a shorter dip may go unseen, and so may a rise that is over before other callbacks have ended. A
//! threshold that memory is above already when it is registered counts as crossed when the heap next looks, with its next growth
//! or tick.
//!
//! A threshold in percent of a limit moves with the limit, and is looked at anew: moved above what is held, it is armed; moved
//! below, it is crossed, unless it was already. While the limit is not set it rests.
//!
//! At 95 % of the hard limit the *fuse* trips: every callback runs, whatever its threshold, with [`Pressure::fuse`] set. What is
//! not given back now may be refused to the next allocation.
//!
//! # Where
//!
//! Callbacks run one after the other, in the order of registration, never nested. They may allocate, register and unregister,
//! their own subscription included. One that allocates over another threshold has that one called afterwards; but each is called
//! at most once before the heap looks again.
//!
//! They run on the heap's background thread where there is one. **Where there is none (`background:off`, or it has not started
//! yet) they run on the thread whose allocation crossed**, in the middle of whatever it was doing, with whatever locks of the
//! program it holds; also, rarely, on a thread that is registering or unregistering at that moment. A callback that waits for
//! such a lock waits for ever; so does one that sends into a channel on which that thread is just about to wait. So a callback
//! should set a flag, unpark a thread, or use `try_lock`, and leave long work to others: while it runs, nobody else is called.
//! Printing takes a lock, too.
//!
//! A callback that panics has its panic caught, and stays registered; the others run. (With `panic = "abort"` the process ends.)
//! A child of `fork` keeps its subscriptions; where the fork happened during a callback on another thread, they rest in the child
//! for good.
//!
//! # Cost
//!
//! Nothing on the way of an allocation, beyond a comparison in the heap's slow paths. Registering and unregistering copy the list
//! of subscriptions: some microseconds, for rare use.

mod plan;
mod registry;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use freestone::control::{self, HeldEvent};

pub use plan::Threshold;
use plan::{Bounds, Limits};
use registry::{Callback, Heap, Number, Registry};

/// Why a callback runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Pressure {
    /// What the heap held from the system, in bytes: when this was noticed, not now ([`freestone::control::held_bytes`]).
    pub held_bytes: usize,
    /// The threshold of this subscription at the time, in bytes. `usize::MAX` if it is in percent of a limit that is not set,
    /// which can only be seen at the fuse.
    pub threshold_bytes: usize,
    /// 95 % of the hard limit are reached, and everybody is called: `held_bytes` may be below this threshold.
    pub fuse: bool,
}

/// A callback that is registered. Dropping it unregisters.
///
/// Dropping does not wait: a call that another thread is just making may go on for a while, or just begin. What the callback
/// captured is dropped here, or at the end of that call.
#[must_use = "dropping a subscription unregisters its callback"]
pub struct Subscription {
    number: Number,
    /// The list only borrows it.
    _callback: Callback,
}

impl Subscription {
    /// Keeps the callback registered until the process ends. It is never dropped.
    pub fn forever(self) {
        std::mem::forget(self);
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let registry = registry();
        registry.remove(self.number);
        registry.settle();
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("number", &self.number).finish_non_exhaustive()
    }
}

/// Calls `callback` whenever held memory comes up to `threshold`, until the subscription is dropped. See the [module](self) for
/// when, where and at what cost; mind what it says about locks.
///
/// The first registration of a process also asks the heap to start its background thread, unless that is turned off.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicBool, Ordering};
///
/// use freestone_stats::pressure::{self, Threshold};
///
/// let full = Arc::new(AtomicBool::new(false));
/// let flag = Arc::clone(&full);
/// // Relaxed: a hint, that nothing else depends on.
/// pressure::on(Threshold::of_hard_limit(90), move |_| flag.store(true, Ordering::Relaxed)).forever();
/// assert!(!full.load(Ordering::Relaxed), "there is no hard limit");
/// ```
pub fn on(threshold: Threshold, callback: impl Fn(&Pressure) + Send + Sync + 'static) -> Subscription {
    let callback: Callback = Arc::new(callback);
    let registry = registry();
    let number = registry.insert(threshold, &callback);
    // Relaxed: one thread sees `false`, and what it does then does not depend on the others. Not a `Once`: the heap may call us
    // from within, and a callback may come here again.
    if !WATCHING.swap(true, Ordering::Relaxed) {
        control::watch_held(heard);
    }
    registry.settle();
    Subscription { number, _callback: callback }
}

static REGISTRY: OnceLock<Registry<TheHeap>> = OnceLock::new();
/// Has the heap been told whom to call?
static WATCHING: AtomicBool = AtomicBool::new(false);

/// The one registry of the process. Made before the heap knows of us, so that nobody is called from within.
fn registry() -> &'static Registry<TheHeap> {
    REGISTRY.get_or_init(|| Registry::new(TheHeap))
}

/// What the heap calls.
fn heard(event: HeldEvent) {
    registry().heard(event.held_bytes, event.fuse);
}

/// The heap of this process.
struct TheHeap;

impl Heap for TheHeap {
    fn held_bytes(&self) -> usize {
        control::held_bytes()
    }

    fn limits(&self) -> Limits {
        Limits { memory: control::memory_limit(), hard: control::hard_limit() }
    }

    fn set_bounds(&self, bounds: Bounds) {
        control::set_watch_bounds(bounds.above, bounds.below);
    }
}
