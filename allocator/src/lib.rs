//! Floor 10. Freestone.
#![cfg_attr(not(test), no_std)]
// Only `heap` and tests use it; without its prelude nothing here allocates by accident.
#[allow(unused_extern_crates)]
extern crate std;

cfg_select! {
    // Models explore the rooms that hand things over without waiting for each other; the others do not build on loom's atomics.
    loom => {
        mod atomic;
        mod central {
            pub(crate) mod combining;
        }
        mod config;
        mod depot;
        mod magazine;
        mod os;
        mod sync;
        mod thread_cache {
            pub(crate) mod registry;
        }
    }
    _ => {
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
    }
}

/// Snapshot.
#[must_use]
#[cfg(not(loom))]
pub fn snapshot() -> Snapshot {
    heap::take_snapshot()
}
