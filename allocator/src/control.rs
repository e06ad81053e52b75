//! Floor 10. The face for operators: what can be done to a running heap.

use crate::heap;
use crate::size_class::SizeClass;

/// Gives back to the operating system all memory that no program and no other living thread's cache has; returns how many bytes that was.
///
/// Empties the calling thread's cache, the caches of threads that have ended, and the depots; then purges every free page, in huge pages
/// too. Takes about 0.3 ns per byte that was dirty, without holding a lock for longer than one purge takes to book.
///
/// # Examples
///
/// ```
/// let before = freestone::snapshot().bytes.dirty;
/// let released = freestone::control::release_to_os();
/// println!("{released} bytes went back, of {before} that were dirty and some that were cached");
/// ```
pub fn release_to_os() -> usize {
    heap::release_all()
}

/// Has the `allocations`-th allocation of this layout's size class that the calling thread makes from now on served from the sampled
/// zone, counting from 1; 0 takes it back. Returns `false` for layouts that cannot be chosen by count (above 32 KiB),
/// and before the heap's first block.
///
/// This is the hook that sampling uses; by itself it only shows that the chosen block, and no other, is found and that its end is seen
/// (the counts `samples` and `sample_ends` of [`Events`](crate::Events)). Costs nothing on the fast path.
#[doc(hidden)]
pub fn sample_after(layout: core::alloc::Layout, allocations: u32) -> bool {
    let class = SizeClass::of(layout.size(), layout.align());
    class.is_some_and(|class| heap::sample_after(class, allocations))
}

/// Does this address lie in the sampled zone?
#[doc(hidden)]
#[must_use]
pub fn is_sampled(block: *const u8) -> bool {
    crate::units::in_sampled_zone(block.addr())
}
