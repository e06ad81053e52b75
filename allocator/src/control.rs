//! Floor 12. The face for operators: what can be done to a running heap.

use core::time::Duration;

use crate::heap;
use crate::options::{Background, Fuse, HugePages, Limit, Options, Retain, Trace};
use crate::size_class::SizeClass;
use crate::thread_cache::record::Record;

pub use crate::guard::{HeldEvent, Watcher};

/// The options in force: what was built in, what the environment said, and what was changed since.
#[must_use]
pub fn configuration() -> Options {
    heap::configuration()
}

/// Changes how much free memory is kept. Takes effect at the next tick, a tenth of a second later at most where there is a background thread.
pub fn set_retain(retain: Retain) {
    heap::configure(|options| options.retain = Retain::unpack(retain.pack()));
}

/// Changes whether there is a background thread. `On` starts it now; `Off` ends it within a tick.
pub fn set_background(background: Background) {
    heap::configure(|options| options.background = background);
}

/// Changes which pages new memory asks for.
pub fn set_huge_pages(huge_pages: HugePages) {
    heap::configure(|options| options.huge_pages = huge_pages);
}

/// Sets, moves or removes the soft limit: on what the process has resident, as far as it is in memory and not backed by files. From 95 % of
/// it on, everything that is free goes back at once; above it, threads that take memory first give as much back, for at most half of
/// their time. No allocation ever fails for it.
///
/// A percentage is of what the machine has or the control group (version 2) allows, as it is now.
///
/// # Examples
///
/// ```
/// use freestone::{Limit, control};
///
/// control::set_memory_limit(Limit::Bytes(512 << 20));
/// assert_eq!(control::memory_limit(), Some(512 << 20));
/// control::set_memory_limit(Limit::None);
/// ```
pub fn set_memory_limit(limit: Limit) {
    heap::configure(|options| options.memory_limit = limit);
}

/// The soft limit in bytes.
#[must_use]
pub fn memory_limit() -> Option<usize> {
    heap::limits().memory_limit
}

/// Sets, moves or removes the hard limit: on what the heap holds. An allocation that would pass it returns null, after everything that is
/// free was given back.
pub fn set_hard_limit(limit: Limit) {
    heap::configure(|options| options.hard_limit = limit);
}

/// The hard limit in bytes.
#[must_use]
pub fn hard_limit() -> Option<usize> {
    heap::limits().hard_limit
}

/// Changes what happens when 95 % of the hard limit are reached.
pub fn set_fuse(fuse: Fuse) {
    heap::configure(|options| options.fuse = fuse);
}

/// Changes whether the allocator says in lines of text what it is doing; from the next slow path on. The first line says what is in force. A
/// line that is on its way when the trace is switched off is still written.
///
/// # Examples
///
/// ```
/// use freestone::{Trace, control};
///
/// control::set_trace(Trace::Anomalies);
/// // … what is to be looked at.
/// control::set_trace(Trace::Off);
/// ```
pub fn set_trace(trace: Trace) {
    heap::configure(|options| options.trace = trace);
}

/// Changes the time between two lines of the trace: from 100 ms to an hour. What lies beyond is taken for that.
pub fn set_trace_interval(interval: Duration) {
    heap::configure(|options| options.trace_interval = Options::within_bounds(interval));
}

/// Changes the descriptor that lines of the trace are written to. It stays the program's: a line that it does not take is lost.
pub fn set_trace_fd(descriptor: u32) {
    heap::configure(|options| options.trace_fd = descriptor);
}

/// Memory that the heap holds for blocks, in bytes: in use, cached, and free but not given back. Tables and records of the allocator come on
/// top. Costs a few loads.
#[must_use]
pub fn held_bytes() -> usize {
    heap::held_bytes()
}

/// Empties the calling thread's cache: for threads that are about to wait for long. Other threads, and the system, can then use what was in
/// it; the thread's next allocations take the slow path, a few microseconds in all. About 5 ns per block that was cached.
///
/// A thread that merely sleeps has its cache taken after a second or two anyway, where somebody else is awake (the background thread, or
/// threads on their slow paths) and the kernel has `membarrier` (4.14); this is for programs with hundreds of threads, and for those without
/// the one or the other.
///
/// # Examples
///
/// With tokio: `runtime::Builder::new_multi_thread().on_thread_park(freestone::control::thread_idle)`. Worker threads park often, so
/// this pays where they are many and mostly idle. With rayon, at the end of what a pool has to do:
/// `pool.broadcast(|_| freestone::control::thread_idle())`.
pub fn thread_idle() {
    heap::thread_idle();
}

/// Registers the one watcher of the process: it is called when memory that is held reaches or leaves the bounds, when limits change, and when
/// the fuse trips; outside every lock, by the background thread where there is one, else by the thread whose allocation crossed. It may
/// allocate, and is never called while a call is under way. `freestone_stats::pressure` is made of it.
#[doc(hidden)]
pub fn watch_held(watcher: Watcher) {
    heap::watch_held(watcher);
}

/// The watcher is called when so much is held (`usize::MAX`: never), or less than so much (0: never).
#[doc(hidden)]
pub fn set_watch_bounds(above: usize, below: usize) {
    heap::set_watch_bounds(above, below);
}

/// Gives back to the operating system all memory that no program and no other living thread's cache has; returns how many bytes that was.
///
/// Empties the calling thread's cache, the caches of threads that have ended, and the depots; then purges every free page, in huge pages
/// too. Takes about 0.3 ns per byte that was dirty. No lock that an allocation needs is held for longer than one purge takes to book.
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

/// Changes how many bytes lie between two samples, on average: 0, none is taken; 1, every allocation is a sample; at most 1 GiB. What was sampled until
/// now keeps its weight. Threads other than the calling one hear of it when they run out of blocks next. See [`profile`](crate::profile).
pub fn set_sample_interval(bytes: usize) {
    heap::configure(|options| options.sample_interval = bytes.min(Options::SAMPLE_INTERVAL_MAX));
    // Drawn anew by the calling thread now, by others when their next sample comes.
    heap::with_record(Record::follow_interval);
}

/// Changes how many bytes are allocated between two guarded blocks, on average: 0, there are no new ones; 1, every sample of up to 8 KiB is one, as long as
/// there is room. Guarded blocks are samples, so there are none while sampling is off.
///
/// A guarded block has pages on both sides that cannot be touched, and leaves such a page behind when it is freed: writing beyond its end, before its start, or
/// into it after its free ends the process at once, and what does not reach these pages is found when the block is freed. At most 64 are live at a time.
pub fn set_guard_interval(bytes: usize) {
    heap::configure(|options| options.guard_interval = bytes);
}

/// From now on a fault beside a guarded block is told of on standard error before the process ends: what was done to which block, and the stacks of that, of
/// its allocation and of its free, as addresses. `false`: the system does not allow it. See [`set_guard_interval`].
///
/// Sets handlers for `SIGSEGV` and `SIGBUS` that run on the thread's stack for signals, if it has one, and then have happen what would have happened without
/// them: handlers that were there before are called, for all other faults too, as if nobody stood before them. Handlers that are set later take their place.
///
/// # Examples
///
/// ```
/// assert!(freestone::control::report_faults());
/// ```
pub fn report_faults() -> bool {
    heap::report_faults()
}

/// Bytes between two samples, on average; 0: sampling is off.
#[must_use]
pub fn sample_interval() -> usize {
    heap::configuration().sample_interval
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
    class.and_then(|class| heap::with_record(|record, _| record.sample_after(class, allocations))).unwrap_or(false)
}

/// Does a guarded block, or what is left of one, lie at this address?
#[doc(hidden)]
#[must_use]
pub fn is_guarded(block: *const u8) -> bool {
    heap::is_guarded(block.addr())
}

/// Does this address lie in the sampled zone?
#[doc(hidden)]
#[must_use]
pub fn is_sampled(block: *const u8) -> bool {
    crate::units::in_sampled_zone(block.addr())
}
