//! Budgets: a tag has more alive than it should, and somebody wants to know.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};

use freestone::profile::Estimate;

use super::{OTHER, Tag, live_by_tag};
use crate::history;

/// So many there may be.
const BUDGETS_MAX: usize = 1024;
/// Below so much of the budget it is kept again.
const KEPT_AGAIN: f64 = 0.9;

/// Whether a budget is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum BudgetState {
    /// The tag has more than its budget, by more than chance: the estimate less its standard error is above it.
    Exceeded,
    /// It had, and now the estimate is below 90 % of the budget.
    KeptAgain,
}

/// What a callback is told.
#[derive(Clone, Copy, PartialEq, Debug)]
#[non_exhaustive]
pub struct BudgetEvent {
    /// Whose budget.
    pub tag: Tag,
    /// What happened.
    pub state: BudgetState,
    /// What the tag has, by samples, in bytes.
    pub live_bytes: f64,
    /// The standard error of that.
    pub error_bytes: f64,
    /// The budget, in bytes.
    pub budget_bytes: u64,
}

/// Why there is no budget: one sentence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum BudgetError {
    /// The name is empty.
    NoTag,
    /// There are as many tags as there may be, so this one shares the tag `other` with all that were refused.
    TagRefused,
    /// There are 1,024 budgets.
    TooMany,
}

impl fmt::Display for BudgetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoTag => "a tag without a name has no budget",
            Self::TagRefused => "there are as many tags as there may be, and this one is not among them: see tag::set_max",
            Self::TooMany => "there are 1,024 budgets, and no room for more",
        })
    }
}

impl std::error::Error for BudgetError {}

type Callback = dyn Fn(&BudgetEvent) + Send + Sync;

struct Watch {
    number: u64,
    tag: Tag,
    bytes: u64,
    is_exceeded: AtomicBool,
    callback: Weak<Callback>,
}

/// A budget that is watched. Dropping it ends that.
#[must_use = "dropping a budget ends it"]
pub struct Budget {
    number: u64,
    /// The list only borrows it.
    _callback: Arc<Callback>,
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget").field("number", &self.number).finish_non_exhaustive()
    }
}

impl Drop for Budget {
    fn drop(&mut self) {
        if let Some(mut watches) = watches() {
            watches.retain(|watch| watch.number != self.number);
            // Relaxed: a hint.
            COUNT.store(watches.len(), Ordering::Relaxed);
        }
    }
}

static WATCHES: Mutex<Vec<Arc<Watch>>> = Mutex::new(Vec::new());
/// How many of them there are, for who does not want to lock for nothing.
static COUNT: AtomicUsize = AtomicUsize::new(0);
static NUMBERS: AtomicU64 = AtomicU64::new(0);

/// `None`: somebody has it who is not there: this is the child of a fork.
fn watches() -> Option<MutexGuard<'static, Vec<Arc<Watch>>>> {
    for _ in 0..1000 {
        match WATCHES.try_lock() {
            Ok(watches) => return Some(watches),
            Err(TryLockError::Poisoned(poisoned)) => return Some(PoisonError::into_inner(poisoned)),
            Err(TryLockError::WouldBlock) => std::thread::yield_now(),
        }
    }
    None
}

/// Calls `callback` when a tag has more than `bytes` alive, and again when it is back below 90 % of that, until the budget is dropped.
///
/// What is alive is an estimate, looked at every second by the thread of the [`history`], which this starts. There the callback
/// runs, never within an allocation: it may allocate, lock, print. While it runs no points are taken, so long work is for others. One that panics has its panic caught.
///
/// # Errors
///
/// The tag has no name, or there is no room for the tag or the budget.
///
/// ```
/// use freestone_stats::tag;
///
/// let budget = tag::budget("tenant-42", 64 << 20, |event| {
///     eprintln!("{:?} has {:.0} bytes: {:?}", event.tag, event.live_bytes, event.state);
/// })?;
/// # drop(budget);
/// # Ok::<(), tag::BudgetError>(())
/// ```
pub fn budget(
    tag: impl Into<Tag>,
    bytes: u64,
    callback: impl Fn(&BudgetEvent) + Send + Sync + 'static,
) -> Result<Budget, BudgetError> {
    let tag = tag.into();
    match tag.0 {
        0 => return Err(BudgetError::NoTag),
        OTHER => return Err(BudgetError::TagRefused),
        _ => {}
    }
    let callback: Arc<Callback> = Arc::new(callback);
    // Relaxed: a number that nobody else gets.
    let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
    let watch = Watch { number, tag, bytes, is_exceeded: AtomicBool::new(false), callback: Arc::downgrade(&callback) };
    {
        let mut watches = watches().ok_or(BudgetError::TooMany)?;
        if watches.len() >= BUDGETS_MAX {
            return Err(BudgetError::TooMany);
        }
        watches.push(Arc::new(watch));
        // Relaxed: a hint.
        COUNT.store(watches.len(), Ordering::Relaxed);
    }
    history::start();
    Ok(Budget { number, _callback: callback })
}

/// Looks at all budgets, and calls. By the thread of the history, and by nobody else.
pub(crate) fn check() {
    // Relaxed: a hint; the next look sees it.
    if COUNT.load(Ordering::Relaxed) == 0 {
        return;
    }
    let live = freestone::profile::without_samples(live_by_tag);
    check_against(&live);
}

fn check_against(live: &[Estimate]) {
    // Nothing is locked during a call: it may well end a budget, or begin one.
    let all: Vec<Arc<Watch>> = watches().map_or_else(Vec::new, |watches| watches.clone());
    for watch in all {
        let live = live.get(watch.tag.0 as usize).copied().unwrap_or_default();
        if let Some(event) = watch.look(live) {
            call(&watch.callback, &event);
        }
    }
}

impl Watch {
    /// Is there something to be told?
    fn look(&self, live: Estimate) -> Option<BudgetEvent> {
        let error_bytes = live.bytes_variance.sqrt();
        let budget = self.bytes as f64;
        // Relaxed: one thread looks.
        let was_exceeded = self.is_exceeded.load(Ordering::Relaxed);
        let state = if !was_exceeded && live.bytes - error_bytes > budget {
            BudgetState::Exceeded
        } else if was_exceeded && live.bytes < KEPT_AGAIN * budget {
            BudgetState::KeptAgain
        } else {
            return None;
        };
        self.is_exceeded.store(state == BudgetState::Exceeded, Ordering::Relaxed);
        Some(BudgetEvent { tag: self.tag, state, live_bytes: live.bytes, error_bytes, budget_bytes: self.bytes })
    }
}

/// Calls, if the budget has not ended. A panic ends here: this is the history's thread, which others need.
fn call(callback: &Weak<Callback>, event: &BudgetEvent) {
    let Some(callback) = callback.upgrade() else { return };
    let called = catch_unwind(AssertUnwindSafe(move || {
        callback(event);
        drop(callback);
    }));
    if let Err(payload) = called
        // The payload may panic as it ends. What such a panic carries is not touched any more.
        && let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(payload)))
    {
        std::mem::forget(payload);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(bytes: f64, error: f64) -> Estimate {
        let mut live = Estimate::default();
        (live.bytes, live.bytes_variance) = (bytes, error * error);
        live
    }

    #[test]
    fn it_is_told_once_each_way() {
        use BudgetState::{Exceeded, KeptAgain};

        let callback: Arc<Callback> = Arc::new(|_: &BudgetEvent| ());
        let watch = Watch {
            number: 0,
            tag: Tag(5),
            bytes: 1000,
            is_exceeded: AtomicBool::new(false),
            callback: Arc::downgrade(&callback),
        };
        let states = |all: &[(f64, f64)]| -> Vec<Option<BudgetState>> {
            all.iter().map(|&(bytes, error)| watch.look(live(bytes, error)).map(|event| event.state)).collect()
        };
        // The error says that 1,100 may be less than 1,000.
        assert_eq!(states(&[(900.0, 0.0), (1100.0, 150.0), (1100.0, 50.0)]), [None, None, Some(Exceeded)]);
        assert_eq!(states(&[(2000.0, 0.0), (950.0, 0.0), (899.0, 500.0)]), [None, None, Some(KeptAgain)]);
        assert_eq!(states(&[(0.0, 0.0), (1001.0, 0.0)]), [None, Some(Exceeded)]);
    }

    #[test]
    fn callbacks_may_panic_and_end_their_own_budget() {
        let called = Arc::new(AtomicUsize::new(0));
        let slot: Arc<Mutex<Option<Budget>>> = Arc::default();
        let (own, count) = (Arc::clone(&slot), Arc::clone(&called));
        let ends_itself = budget("ends itself", 10, move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            drop(own.lock().map(|mut own| own.take()));
        });
        *slot.lock().expect("nobody panics") = Some(ends_itself.expect("there is room"));
        let panics = budget("panics", 10, |_| panic!("on purpose")).expect("there is room");
        let count = Arc::clone(&called);
        let last = budget("last", 10, move |_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        let last = last.expect("there is room");
        let much = vec![live(1e6, 0.0); super::super::registry::count() + 2];
        let none = vec![live(0.0, 0.0); much.len()];
        for live in [&much, &none, &much] {
            check_against(live);
        }
        // The one that ended heard once, the last one each time.
        assert_eq!(called.load(Ordering::Relaxed), 4);
        assert!(slot.lock().expect("nobody panics").is_none());
        drop((panics, last));
        check_against(&none);
        assert_eq!(called.load(Ordering::Relaxed), 4, "dropped budgets are silent");
    }

    #[test]
    fn what_cannot_be_is_told_in_a_sentence() {
        assert_eq!(budget("", 1, |_| ()).err(), Some(BudgetError::NoTag));
        assert_eq!(budget("other", 1, |_| ()).err(), Some(BudgetError::TagRefused));
        assert!(BudgetError::TagRefused.to_string().contains("tag::set_max"));
    }
}
