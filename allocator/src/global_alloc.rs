//! Floor 12. The face for programs: [`Freestone`], registered with `#[global_allocator]`.

use core::alloc::{GlobalAlloc, Layout};
use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};
use core::time::Duration;

use crate::config::CHECKED;
use crate::frames::{self, Caller};
use crate::heap;
use crate::large::Growing;
use crate::options::{Background, Check, Face, Fuse, HugePages, Limit, Options, Retain, Trace};
use crate::sampling::Request;
use crate::size_class::SizeClass;
use crate::units::in_sampled_zone;
use crate::word;

/// The allocator. Has no memory of its own: every value is a handle to the one heap of the process.
///
/// ```
/// use freestone::Freestone;
///
/// #[global_allocator]
/// static GLOBAL: Freestone = Freestone::new();
///
/// let numbers: Vec<u32> = (0..1000).collect();
/// assert_eq!(numbers.iter().sum::<u32>(), 499_500);
/// assert!(freestone::snapshot().bytes.live >= 4000);
/// ```
///
/// Options are chosen by the builder methods, which work in a `static`, and overridden by the environment variable
/// `FREESTONE=key:value,key:value` when the process makes its first allocation. The variable is ignored in processes that run with
/// somebody else's rights (`AT_SECURE`); an unknown key or value is one line on standard error, and the rest holds.
///
/// ```
/// use freestone::{Check, Freestone, HugePages};
///
/// static GLOBAL: Freestone = Freestone::new().check(Check::Exchange).huge_pages(HugePages::Never);
/// ```
///
/// # What it promises
///
/// - Every size from 0 to `isize::MAX` and every alignment up to 1 GiB; null, never an abort and never an unwind, when memory is out.
/// - It works before `main`, in destructors of thread-locals, in `atexit` handlers, on both sides of a `fork`.
/// - A `realloc` that cannot be served leaves the block as it was; one that can keeps content and alignment.
/// - A wrong free that it finds ends the process with one line that names the pointer. Which it finds when: see
///   [`Check`] and the feature `checked`.
/// - Allocating in a signal handler is outside the contract, as with every allocator: it never deadlocks, but may return null.
#[derive(Clone, Copy, Debug)]
pub struct Freestone {
    options: Options,
}

impl Freestone {
    /// The allocator with default options.
    #[must_use]
    pub const fn new() -> Self {
        Self { options: Options::DEFAULT }
    }

    /// How often magazines that stay within a thread are checked for wrong frees. Environment: `check:sampled|exchange`.
    #[must_use]
    pub const fn check(mut self, check: Check) -> Self {
        self.options.check = check;
        self
    }

    /// Whether new memory asks for 2 MiB pages. Environment: `huge_pages:auto|never|always`.
    #[must_use]
    pub const fn huge_pages(mut self, huge_pages: HugePages) -> Self {
        self.options.huge_pages = huge_pages;
        self
    }

    /// How much free memory is kept. Environment: `retain:off|default|keep`, or a percentage such as `retain:25%`.
    #[must_use]
    pub const fn retain(mut self, retain: Retain) -> Self {
        self.options.retain = retain;
        self
    }

    /// Whether a thread of the allocator's own gives memory back. Environment: `background:auto|on|off`.
    #[must_use]
    pub const fn background(mut self, background: Background) -> Self {
        self.options.background = background;
        self
    }

    /// The soft limit on what the process has resident. Environment: `FREESTONE_MEMORY_LIMIT=2GiB`, or `memory_limit:90%`.
    #[must_use]
    pub const fn memory_limit(mut self, limit: Limit) -> Self {
        self.options.memory_limit = limit;
        self
    }

    /// The hard limit on what the heap holds: beyond it allocations return null. Environment: `hard_limit:2GiB`.
    #[must_use]
    pub const fn hard_limit(mut self, limit: Limit) -> Self {
        self.options.hard_limit = limit;
        self
    }

    /// What happens when 95 % of the hard limit are reached. Environment: `fuse:off|exit`.
    #[must_use]
    pub const fn fuse(mut self, fuse: Fuse) -> Self {
        self.options.fuse = fuse;
        self
    }

    /// Whether everything goes to the system's allocator instead: nothing of this one is used then, and nothing is counted. For canaries, and for going
    /// back without a build. Environment: `bypass:0|1`.
    #[must_use]
    pub const fn bypass(mut self, bypass: bool) -> Self {
        self.options.bypass = bypass;
        self
    }

    /// Whether the allocator says in lines of text what it is doing. Environment: `trace:0|1|2`.
    #[must_use]
    pub const fn trace(mut self, trace: Trace) -> Self {
        self.options.trace = trace;
        self
    }

    /// The time between two lines of the trace: from 100 ms to an hour; what lies beyond is taken for that. Environment: `trace_interval:500ms`.
    #[must_use]
    pub const fn trace_interval(mut self, interval: Duration) -> Self {
        self.options.trace_interval = Options::within_bounds(interval);
        self
    }

    /// The descriptor that lines of the trace are written to; 2, standard error, unless chosen otherwise. Environment: `trace_fd:3`.
    #[must_use]
    pub const fn trace_fd(mut self, descriptor: u32) -> Self {
        self.options.trace_fd = descriptor;
        self
    }

    /// Bytes between two samples, on average: 0, none is taken; 1, every allocation is a sample; at most 1 GiB. Environment: `sample_interval:512KiB`.
    #[must_use]
    pub const fn sample_interval(mut self, bytes: usize) -> Self {
        self.options.sample_interval = if bytes < Options::SAMPLE_INTERVAL_MAX { bytes } else { Options::SAMPLE_INTERVAL_MAX };
        self
    }

    /// From how many bytes on a block is a sample in any case. Environment: `sample_above:16MiB`.
    #[must_use]
    pub const fn sample_above(mut self, bytes: usize) -> Self {
        self.options.sample_above = bytes;
        self
    }

    /// For how long the allocator must hold a thread up for that to be recorded. Environment: `stall_above:100us`.
    #[must_use]
    pub const fn stall_above(mut self, time: Duration) -> Self {
        self.options.stall_above = time;
        self
    }

    /// What may be known of call sites, in bytes; 0: 1.5 MiB and 1/256 of what the heap holds. Environment: `profile_memory:8MiB`.
    #[must_use]
    pub const fn profile_memory(mut self, bytes: usize) -> Self {
        self.options.profile_memory = bytes;
        self
    }

    /// Bytes that are allocated between two guarded blocks, on average: 0, there are none; 1, every sample of up to 8 KiB is one, as long as there is room. An
    /// access beyond such a block, or to one that was freed, faults at once. Environment: `guard_interval:64MiB`.
    #[must_use]
    pub const fn guard_interval(mut self, bytes: usize) -> Self {
        self.options.guard_interval = bytes;
        self
    }

    /// Whether a fault beside a guarded block is told of before the process ends, by a handler that is set up with one of the first of them. Environment:
    /// `fault_report:0|1`. See [`report_faults`](crate::control::report_faults).
    #[must_use]
    pub const fn fault_report(mut self, report: bool) -> Self {
        self.options.fault_report = report;
        self
    }

    /// For a face that is called from C: a process that has no second thread is not given one, unless it says `background:on`.
    #[doc(hidden)]
    #[must_use]
    pub const fn for_c(mut self) -> Self {
        self.options.face = Face::C;
        self
    }
}

/// A block that the calling thread has at hand. `None`: the slow path has to look.
#[inline(always)]
fn pop(size: usize, align: usize) -> Option<NonNull<u8>> {
    if let Some(class) = SizeClass::split(size, align) {
        // SAFETY: the slots are the calling thread's (I-owner).
        let block = word::slots().and_then(|slots| unsafe { slots.split(class).pop() })?;
        if CHECKED {
            heap::mark_live(block, class);
        }
        return Some(block);
    }
    let class = SizeClass::stacked(size, align)?;
    // SAFETY: the slots are the calling thread's.
    let taken = word::slots().and_then(|slots| unsafe { slots.stack(class).pop() })?;
    if CHECKED {
        heap::mark_live(taken.block, class);
    }
    Some(taken.block)
}

impl Default for Freestone {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY: blocks come from mappings that nobody else has, no block is handed out twice before it is freed (I-once), sizes and alignments are
// those asked for or more, and nothing in this crate unwinds: every failure is null, and every broken contract ends the process.
unsafe impl GlobalAlloc for Freestone {
    #[inline(always)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        match pop(size, align) {
            Some(block) => block.as_ptr(),
            None => heap::alloc_slow(size, align, &self.options),
        }
    }

    #[inline(always)]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let (size, align) = (layout.size(), layout.align());
        // SAFETY: `alloc` never hands out null as a block.
        let block = unsafe { NonNull::new_unchecked(block) };
        if CHECKED {
            heap::check_free(block, size, align);
        }
        if !in_sampled_zone(block.addr().get()) {
            if let Some(class) = SizeClass::split(size, align) {
                // SAFETY: the slots are the calling thread's; the caller gives up a block of this class.
                if word::slots().is_some_and(|slots| unsafe { slots.split(class).push(block) }) {
                    return;
                }
            } else if let Some(class) = SizeClass::stacked(size, align) {
                // SAFETY: the slots are the calling thread's; the caller gives up a block of this class.
                if word::slots().is_some_and(|slots| unsafe { slots.stack(class).push(block) }) {
                    return;
                }
            }
        }
        // SAFETY: the caller gives the block up, and no slot took it.
        unsafe { heap::free_slow(block, size, align, &self.options) };
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if SizeClass::split(layout.size(), layout.align()).is_some() {
            // SAFETY: handed on to the caller.
            let block = unsafe { self.alloc(layout) };
            if !block.is_null() {
                // SAFETY: a block of at least this size, not the caller's yet.
                unsafe { block.write_bytes(0, layout.size()) };
            }
            return block;
        }
        heap::alloc_zeroed(layout.size(), layout.align(), &self.options)
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let (old, align) = (layout.size(), layout.align());
        if let (Some(from), Some(to)) = (SizeClass::split(old, align), SizeClass::split(new_size, align)) {
            // A sampled block may end where its guard page begins, though its class has room.
            if from == to && !in_sampled_zone(block.addr()) {
                return block;
            }
            let new = if let Some(new) = pop(new_size, align) {
                // SAFETY: two live blocks, apart, each at least this long.
                unsafe { copy_small(block, new.as_ptr(), old.min(new_size)) };
                new.as_ptr()
            } else {
                let new = heap::grow_slow(new_size, align, &self.options);
                if new.is_null() {
                    return new;
                }
                // SAFETY: as above. To the byte, because this one may be guarded, and then nothing is to be written behind its end.
                unsafe { ptr::copy_nonoverlapping(block, new, old.min(new_size)) };
                new
            };
            // SAFETY: the caller gives the old block up.
            unsafe { self.dealloc(block, layout) };
            return new;
        }
        // SAFETY: handed on to the caller.
        unsafe { realloc_large(block, old, align, new_size) }
    }
}

/// Copies `bytes` from one block of a split class to another, rounded up to whole words, which blocks consist of. A call of `memcpy` takes
/// longer than most of these copies: growing strings and short vectors is nearly all they are for.
///
/// # Safety
///
/// - Both are blocks of at least so many bytes, and not the same.
#[inline(always)]
unsafe fn copy_small(from: *const u8, to: *mut u8, bytes: usize) {
    const CALL_ABOVE_BYTES: usize = 64;
    if bytes > CALL_ABOVE_BYTES {
        // SAFETY: handed on to the caller.
        return unsafe { ptr::copy_nonoverlapping(from, to, bytes) };
    }
    for word in 0..bytes.div_ceil(size_of::<MaybeUninit<u64>>()) {
        // SAFETY: blocks are words long, and aligned to words.
        let from = unsafe { from.cast::<MaybeUninit<u64>>().add(word) };
        // SAFETY: as above.
        let to = unsafe { to.cast::<MaybeUninit<u64>>().add(word) };
        // SAFETY: as above; what was never written is copied as that.
        let content = unsafe { from.read() };
        // SAFETY: as above. Volatile, or the compiler would make it the call again.
        unsafe { to.write_volatile(content) };
    }
}

frames::entry! {
    /// Reallocation where at least one side is above 1 KiB.
    unsafe fn realloc_large(block: *mut u8, old: usize, align: usize, new_size: usize) -> *mut u8 => realloc_large_from
}

/// # Safety
///
/// - As for [`GlobalAlloc::realloc`].
unsafe fn realloc_large_from(block: *mut u8, old: usize, align: usize, new_size: usize, caller: Caller) -> *mut u8 {
    // Whoever has a block has been told the options in force.
    const OPTIONS: &Options = &Options::DEFAULT;
    let (from, to) = (SizeClass::of(old, align), SizeClass::of(new_size, align));
    if from.is_some() && from == to && !in_sampled_zone(block.addr()) {
        return block;
    }
    if from.is_none() && to.is_none() {
        // SAFETY: the caller's block is not null.
        let block = unsafe { NonNull::new_unchecked(block) };
        // SAFETY: handed on to the caller.
        if let Some(resized) = unsafe { heap::resize_large(block, old, new_size, align, OPTIONS, &caller) } {
            return resized.as_ptr();
        }
    }
    let Ok(layout) = Layout::from_size_align(old, align) else { return ptr::null_mut() };
    if Layout::from_size_align(new_size, align).is_err() {
        return ptr::null_mut();
    }
    // What outgrows the classes will probably grow again: it gets room for that.
    let growing = if to.is_none() && new_size > old { Growing::Yes } else { Growing::No };
    let popped = if growing == Growing::Yes { None } else { pop(new_size, align) };
    let new = popped.or_else(|| {
        let request = Request { size: new_size, align, grown: true, caller: &caller };
        heap::alloc_any(&request, growing, OPTIONS).map(|new| new.address)
    });
    let Some(new) = new else { return ptr::null_mut() };
    // SAFETY: two live blocks, apart, each at least this long.
    unsafe { ptr::copy_nonoverlapping(block, new.as_ptr(), old.min(new_size)) };
    // SAFETY: the caller gives the old block up.
    unsafe { GLOBAL.dealloc(block, layout) };
    new.as_ptr()
}

/// A handle like any other: all that is chosen is in force long since.
const GLOBAL: Freestone = Freestone::new();
