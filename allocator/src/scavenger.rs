//! Floor 8. Gives memory back: a little at every tick, or all of it when asked.
//!
//! In this form it has no thread of its own: slow paths look at the clock now and then, and the first one to find a tick due does the
//! work, which [`Retention`] keeps small.

use crate::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::config::{POOLED_RECORD_TICKS, TICK_NS};
use crate::counters::Event;
use crate::page_heap::Thorough;
use crate::retention::Retention;
use crate::supply::Supply;
use crate::sync::{Lock, Rank};
use crate::thread_cache::record::{Life, Record};
use crate::thread_cache::registry::Registry;

/// The scavenger of a heap.
pub(crate) struct Scavenger {
    /// When the last tick was.
    last_ns: AtomicU64,
    ticks: AtomicU32,
    retention: Lock<Retention>,
}

impl Scavenger {
    pub(crate) const fn new() -> Self {
        Self {
            last_ns: AtomicU64::new(0),
            ticks: AtomicU32::new(0),
            retention: Lock::new(Rank::Scavenger, Retention::new()),
        }
    }

    /// Does a tick's work if one is due and nobody else does it.
    pub(crate) fn tick_if_due(&self, now_ns: u64, supply: &Supply, registry: &Registry<Record>) {
        // Relaxed, here and below: times and counts; the exchange picks one thread.
        let last = self.last_ns.load(Ordering::Relaxed);
        if now_ns.saturating_sub(last) < TICK_NS {
            return;
        }
        if self.last_ns.compare_exchange(last, now_ns, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.tick(now_ns, supply, registry);
        }
    }

    #[cold]
    fn tick(&self, now_ns: u64, supply: &Supply, registry: &Registry<Record>) {
        supply.counters().count(Event::Tick);
        let tick = self.ticks.fetch_add(1, Ordering::Relaxed) + 1;
        let page_heap = &supply.page_heap;
        page_heap.set_tick(tick);
        drain_pooled(registry, supply, |record| {
            tick.wrapping_sub(record.pooled_tick.load(Ordering::Relaxed)) >= POOLED_RECORD_TICKS
        });
        let bytes = match self.retention.try_lock() {
            Some(mut retention) => retention.tick(now_ns, page_heap.in_use(), page_heap.take_peak(), page_heap.dirty()),
            None => 0,
        };
        if bytes > 0 {
            // Pages that became free since the last tick are left alone: they may be wanted again at once.
            page_heap.release(bytes, tick.wrapping_sub(1), Thorough::No);
        }
    }

    /// The number of the current tick, for ages.
    pub(crate) fn now(&self) -> u32 {
        self.ticks.load(Ordering::Relaxed)
    }

    /// Gives back all memory that no program and no living thread's cache has; says how many bytes it was.
    pub(crate) fn release_all(&self, supply: &Supply, registry: &Registry<Record>) -> usize {
        drain_pooled(registry, supply, |_| true);
        supply.drain_depots();
        supply.page_heap.release(usize::MAX, self.now(), Thorough::Yes)
    }

    pub(crate) fn before_fork(&self) {
        self.retention.before_fork();
    }

    pub(crate) fn after_fork(&self) {
        self.retention.after_fork();
    }
}

/// Empties the records of ended threads that `which` chooses, one after the other: the others stay in the pool, or a thread that is born
/// meanwhile would make a new one, for good.
fn drain_pooled(registry: &Registry<Record>, supply: &Supply, which: impl Fn(&Record) -> bool) {
    for _ in 0..registry.pooled() {
        let Some(record) = registry.take_pooled(|record| !record.is_empty() && which(record)) else { break };
        debug_assert_eq!(record.life(), Life::Pooled);
        record.drain(supply);
        registry.pool_last(record);
    }
}
