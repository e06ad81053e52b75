//! Floor 10. Freestone.
#![cfg_attr(not(test), no_std)]
extern crate std;

mod atomic;
mod central;
mod config;
pub mod control;
mod counters;
mod depot;
mod fatal;
mod global_alloc;
mod heap;
mod large;
mod magazine;
mod meta;
mod options;
mod os;
mod page_heap;
mod retention;
mod sampling;
mod scavenger;
mod size_class;
mod slot;
mod snapshot;
mod span;
mod supply;
mod sync;
mod thread_cache;
mod units;

pub use global_alloc::Freestone;
pub use options::{Check, HugePages, Options};
pub use snapshot::{Bytes, CLASSES, ClassSnapshot, Events, LargeSnapshot, Snapshot};

/// Snapshot.
#[must_use]
pub fn snapshot() -> Snapshot {
    heap::take_snapshot()
}
