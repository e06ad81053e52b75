//! Assertions for tests: so many allocations and no more, by the calling thread, counted exactly.
//!
//! Other threads do not matter, so tests may run side by side, as `cargo test` has them do; and for the same reason what the function hands
//! to other threads is not seen. The test must run on Freestone:
//!
//! ```
//! use freestone::Freestone;
//! use freestone_stats::assert;
//!
//! #[global_allocator]
//! static GLOBAL: Freestone = Freestone::new();
//!
//! # let mut scratch = Vec::with_capacity(64);
//! // Parsing into a buffer that is large enough allocates nothing.
//! let sum = assert::no_alloc(|| {
//!     scratch.clear();
//!     scratch.extend("1 2 3".split(' ').map(|word| word.parse::<u32>().unwrap()));
//!     scratch.iter().sum::<u32>()
//! });
//! assert_eq!(sum, 6);
//! // A copy is one allocation.
//! let copy = assert::max_allocs(1, || scratch.clone());
//! # drop(copy);
//! ```
//!
//! A block that is made larger or smaller in place counts as an allocation too: where it happens depends on its neighbours.

use std::fmt;
use std::hint::black_box;

use freestone::ThreadSnapshot;

/// What a function did on its thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Counts {
    /// Blocks allocated, and blocks whose size was changed.
    pub allocations: u64,
    /// Blocks freed, and blocks whose size was changed.
    pub frees: u64,
    /// Bytes allocated, at block size: what a request of 520 bytes takes is 576.
    pub allocated_bytes: u64,
    /// Bytes freed, at block size.
    pub freed_bytes: u64,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { allocations, frees, allocated_bytes, freed_bytes } = self;
        write!(f, "{allocations} allocations of {allocated_bytes} bytes, {frees} frees of {freed_bytes} bytes")
    }
}

/// Counts what `work` does on the calling thread. A few microseconds more than `work` itself.
///
/// # Panics
///
/// Where the program does not run on Freestone, so that nothing would be counted.
pub fn count<R>(work: impl FnOnce() -> R) -> (R, Counts) {
    let before = here();
    let result = work();
    let after = here();
    let counts = Counts {
        allocations: after.allocations - before.allocations,
        frees: after.frees - before.frees,
        allocated_bytes: after.allocated_bytes - before.allocated_bytes,
        freed_bytes: after.freed_bytes - before.freed_bytes,
    };
    (result, counts)
}

/// Runs `work`, which must not allocate; freeing is fine.
///
/// # Panics
///
/// If it does, saying what it did. And as [`count`].
#[track_caller]
pub fn no_alloc<R>(work: impl FnOnce() -> R) -> R {
    max_allocs(0, work)
}

/// Runs `work`, which may allocate so many blocks.
///
/// # Panics
///
/// If it allocates more, saying what it did. And as [`count`].
#[track_caller]
pub fn max_allocs<R>(most: u64, work: impl FnOnce() -> R) -> R {
    let (result, counts) = count(work);
    assert!(counts.allocations <= most, "at most {most} allocations were allowed; it made {counts}");
    result
}

/// Runs `work`, which may allocate so many bytes in all, at block size, freed ones included.
///
/// # Panics
///
/// If it allocates more, saying what it did. And as [`count`].
#[track_caller]
pub fn max_bytes<R>(most: u64, work: impl FnOnce() -> R) -> R {
    let (result, counts) = count(work);
    assert!(counts.allocated_bytes <= most, "at most {most} bytes were allowed; it made {counts}");
    result
}

/// What this thread did so far. Makes sure that it has done something: only then is there anything to look at.
fn here() -> ThreadSnapshot {
    if let Some(here) = freestone::this_thread() {
        return here;
    }
    drop(black_box(Box::new(0_u64)));
    freestone::this_thread()
        .expect("these assertions count what Freestone allocates: register it as the test's #[global_allocator]")
}
