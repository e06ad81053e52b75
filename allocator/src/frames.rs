//! Floor 2. Where a call came from: the return addresses on the calling stack, found by frame pointers.
//!
//! Code that keeps frame pointers leaves a chain on its stack. Each link is two words, and the frame pointer of the youngest one is in a register:
//!
//! ```text
//!   sp            fp                       ┌────────────────┐
//!   │ locals …    │ fp of the caller ──────┘  return address│ …    │ 0 │ top of the stack
//!   └─────────────┴───────────── addresses grow ────────────────────────────▶
//! ```
//!
//! The chain is the program's, and may be anything: code without frame pointers uses the register for other things, hand-written assembly and
//! overwritten stacks leave whatever they leave. So nothing that is found there is believed. Links must lie on the stack, above each other;
//! return addresses must look like addresses of code; and no page is read of which it is not known that it can be.
//!
//! *What can be read.* Pages between the stack pointer and the top of a thread's stack are there for as long as the thread is in the function that asks. Where
//! that top is, the thread pointer says, or for the first thread the kernel ([`os::stack_top`]). Neither says that there is no hole in between, so the pages
//! are tested one by one, once: a system call that reads a word and answers that it could not ([`os::is_readable`]). What was found
//! is kept in [`StackBounds`], and grows as the stack does. A stack that is not the thread's own, a fiber's or that of signals, may be gone the next time, so of those
//! nothing is kept: pages are tested from the stack pointer upwards as far as links lead, without a gap, so that a wrong
//! one does not lead to memory that another thread takes away in that moment.
//!
//! *Where it begins.* The slow paths that capture stacks are entered through [`entry!`], which takes down the registers before any code of ours has changed
//! them. Hence the first address is exact, whatever the program is compiled with: it is where the inlined fast path called.
//!
//! Nothing here allocates, takes a lock, or faults. Thirty frames take about 40 ns, and a few hundred where the bounds are not known yet. With the feature `backtrace` what has no frame pointers is
//! unwound by tables instead, which keeps none of these promises; see there.

use core::ops::Range;

use crate::atomic::{AtomicUsize, Ordering};
use crate::os;

/// Pages that one capture tests at most, in each direction.
const PAGES_TESTED_MAX: usize = 64;

/// Addresses of code lie above this: the kernel maps nothing below (`mmap_min_addr`).
const CODE_FROM: usize = 64 << 10;

/// Addresses of code lie below this: more than 47 bits (48 on ARM) must be asked for, which nobody does for code.
const CODE_TO: usize = 1 << if cfg!(target_arch = "aarch64") { 48 } else { 47 };

/// A link of the chain: two words.
const LINK_BYTES: usize = 2 * size_of::<usize>();

/// What the registers were when a slow path was entered; see [`entry!`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    /// The end of the stack that is in use.
    pub(crate) stack_pointer: usize,
    /// The youngest link, or anything.
    pub(crate) frame_pointer: usize,
    /// Where the slow path was called from: the instruction behind the call. 0: nobody knows, on processors without an [`entry!`].
    pub(crate) return_address: usize,
}

impl Caller {
    /// What the trampolines of [`entry!`] hand over.
    #[inline(always)]
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn entered(stack_pointer: usize, frame_pointer: usize, _: usize) -> Self {
        // SAFETY: at the entry of a function its return address is what the stack pointer points to, and stays there until it returns.
        let return_address = unsafe { os::pointer(stack_pointer).cast::<usize>().read() };
        Self { stack_pointer, frame_pointer, return_address }
    }

    /// What the trampolines of [`entry!`] hand over.
    #[inline(always)]
    #[cfg(not(target_arch = "x86_64"))]
    pub(crate) fn entered(stack_pointer: usize, frame_pointer: usize, return_address: usize) -> Self {
        Self { stack_pointer, frame_pointer, return_address: without_signature(return_address) }
    }
}

/// Makes a function that takes down the registers it finds and goes on in another one, which gets them as its last argument, a [`Caller`]:
///
/// ```ignore
/// frames::entry! {
///     /// Documented like any function.
///     pub(crate) fn alloc_slow(size: usize, align: usize, options: &Options) -> *mut u8 => alloc_slow_from
/// }
///
/// fn alloc_slow_from(size: usize, align: usize, options: &Options, caller: Caller) -> *mut u8 {
///     alloc_slow_of(&Request { size, align, grown: false, caller: &caller }, options)
/// }
/// ```
///
/// Up to four arguments, each an integer or a reference. The function ends in a jump, so it has no frame of its own, and whoever unwinds the stack does not see
/// it, and that nothing on the stack has changed is all that it has to say to unwinders which a signal handler starts. An `unsafe fn` becomes one, with an `unsafe fn` to go on in. It must not unwind.
macro_rules! entry {
    ($(#[$about:meta])* $view:vis fn $name:ident($($argument:ident: $kind:ty),*) $(-> $result:ty)? => $inner:path) => {
        $crate::frames::entry! { @ ($(#[$about])* $view) () $name ($($argument: $kind),*) ($($result)?) $inner }
    };
    ($(#[$about:meta])* $view:vis unsafe fn $name:ident($($argument:ident: $kind:ty),*) $(-> $result:ty)? => $inner:path) => {
        $crate::frames::entry! { @ ($(#[$about])* $view) (unsafe) $name ($($argument: $kind),*) ($($result)?) $inner }
    };
    (@ ($($about:tt)*) ($($safety:tt)?) $name:ident ($a:ident: $ta:ty) ($($result:ty)?) $inner:path) => {
        $crate::frames::entry! { @ ($($about)*) ($($safety)?) $name ($a: $ta) ($($result)?) $inner,
            "mov rsi, rsp", "mov rdx, rbp"; "mov x1, sp", "mov x2, x29", "mov x3, x30" }
    };
    (@ ($($about:tt)*) ($($safety:tt)?) $name:ident ($a:ident: $ta:ty, $b:ident: $tb:ty) ($($result:ty)?) $inner:path) => {
        $crate::frames::entry! { @ ($($about)*) ($($safety)?) $name ($a: $ta, $b: $tb) ($($result)?) $inner,
            "mov rdx, rsp", "mov rcx, rbp"; "mov x2, sp", "mov x3, x29", "mov x4, x30" }
    };
    (@ ($($about:tt)*) ($($safety:tt)?) $name:ident ($a:ident: $ta:ty, $b:ident: $tb:ty, $c:ident: $tc:ty) ($($result:ty)?) $inner:path) => {
        $crate::frames::entry! { @ ($($about)*) ($($safety)?) $name ($a: $ta, $b: $tb, $c: $tc) ($($result)?) $inner,
            "mov rcx, rsp", "mov r8, rbp"; "mov x3, sp", "mov x4, x29", "mov x5, x30" }
    };
    (@ ($($about:tt)*) ($($safety:tt)?) $name:ident
        ($a:ident: $ta:ty, $b:ident: $tb:ty, $c:ident: $tc:ty, $d:ident: $td:ty) ($($result:ty)?) $inner:path) => {
        $crate::frames::entry! { @ ($($about)*) ($($safety)?) $name ($a: $ta, $b: $tb, $c: $tc, $d: $td) ($($result)?) $inner,
            "mov r8, rsp", "mov r9, rbp"; "mov x4, sp", "mov x5, x29", "mov x6, x30" }
    };
    (@ ($($about:tt)*) ($($safety:tt)?) $name:ident ($($argument:ident: $kind:ty),*) ($($result:ty)?) $inner:path,
        $($x86:literal),*; $($arm:literal),*) => {
        /// Where the function of this name goes on: types and functions have names of their own.
        #[allow(non_camel_case_types)]
        enum $name {}

        impl $name {
            #[cfg(target_arch = "x86_64")]
            $($safety)? extern "C" fn entered($($argument: $kind,)* stack_pointer: usize, frame_pointer: usize) $(-> $result)? {
                let caller = $crate::frames::Caller::entered(stack_pointer, frame_pointer, 0);
                $crate::frames::entry! { @call ($($safety)?) $inner($($argument,)* caller) }
            }

            #[cfg(target_arch = "aarch64")]
            $($safety)? extern "C" fn entered(
                $($argument: $kind,)*
                stack_pointer: usize,
                frame_pointer: usize,
                return_address: usize,
            ) $(-> $result)? {
                let caller = $crate::frames::Caller::entered(stack_pointer, frame_pointer, return_address);
                $crate::frames::entry! { @call ($($safety)?) $inner($($argument,)* caller) }
            }
        }

        #[cfg(target_arch = "x86_64")]
        #[unsafe(naked)]
        $($about)* $($safety)? extern "C" fn $name($($argument: $kind),*) $(-> $result)? {
            core::arch::naked_asm!(".cfi_startproc", $($x86,)* "jmp {inner}", ".cfi_endproc", inner = sym $name::entered)
        }

        #[cfg(target_arch = "aarch64")]
        #[unsafe(naked)]
        $($about)* $($safety)? extern "C" fn $name($($argument: $kind),*) $(-> $result)? {
            core::arch::naked_asm!(".cfi_startproc", $($arm,)* "b {inner}", ".cfi_endproc", inner = sym $name::entered)
        }

        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        $($about)* $($safety)? extern "C" fn $name($($argument: $kind),*) $(-> $result)? {
            let caller = $crate::frames::Caller { stack_pointer: 0, frame_pointer: 0, return_address: 0 };
            $crate::frames::entry! { @call ($($safety)?) $inner($($argument,)* caller) }
        }
    };
    (@call () $($call:tt)*) => { $($call)* };
    // SAFETY: handed on to the caller.
    (@call (unsafe) $($call:tt)*) => { unsafe { $($call)* } };
}
pub(crate) use entry;

/// What [`capture`] found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Captured {
    /// So many return addresses were written, innermost first; 0 only where not even the caller's is known.
    pub(crate) depth: usize,
    /// The chain goes on: there was no room for more, or the next link could not be believed although it lies on the stack.
    pub(crate) is_cut: bool,
    /// There was no chain to begin with, only the address of the caller: this code keeps no frame pointers.
    pub(crate) is_failed: bool,
}

/// The part of a thread's own stack that is known to be readable: from here to its top. Belongs into the thread's record, and is
/// to [`forget`](Self::forget) when another thread takes that over.
#[derive(Debug)]
pub(crate) struct StackBounds {
    /// `UNKNOWN`, or the address from which on all pages below `top` were found readable.
    from: AtomicUsize,
    top: AtomicUsize,
}

impl StackBounds {
    const UNKNOWN: usize = 0;

    pub(crate) const fn new() -> Self {
        Self { from: AtomicUsize::new(Self::UNKNOWN), top: AtomicUsize::new(Self::UNKNOWN) }
    }

    /// From now on these are another thread's.
    pub(crate) fn forget(&self) {
        // Relaxed, here and below: only the thread that the bounds belong to reads and writes them; who hands records over orders that.
        self.from.store(Self::UNKNOWN, Ordering::Relaxed);
        self.top.store(Self::UNKNOWN, Ordering::Relaxed);
    }

    /// What is known so far; empty if nothing is.
    fn known(&self) -> Range<usize> {
        self.from.load(Ordering::Relaxed)..self.top.load(Ordering::Relaxed)
    }

    /// Has the known part begin at the page of the stack pointer or, if it is far from there, a little closer to it. Says what is known then.
    #[cold]
    fn extend(&self, stack_pointer: usize) -> Range<usize> {
        let page_bytes = os::page_bytes();
        let known = self.known();
        let top = if known.is_empty() { os::stack_top(stack_pointer) } else { Some(known.end) };
        // A known top may be far above a fiber, which is then no business of these bounds; so may be the stack of a signal handler.
        let Some(top) = top.filter(|&top| is_below(stack_pointer, top) && !os::is_on_signal_stack()) else { return known };
        let mut from = if known.is_empty() { top } else { known.start };
        let wanted = stack_pointer & !(page_bytes - 1);
        for _ in 0..PAGES_TESTED_MAX {
            let page = (from - 1) & !(page_bytes - 1);
            if from <= wanted || !os::is_readable(page) {
                break;
            }
            from = page;
        }
        if from < top {
            self.top.store(top, Ordering::Relaxed);
            self.from.store(from, Ordering::Relaxed);
        }
        from..top
    }
}

/// Is this a stack pointer of the stack with this top? What is further away is taken for another stack.
fn is_below(stack_pointer: usize, top: usize) -> bool {
    (1..=os::STACK_BYTES_MAX).contains(&top.wrapping_sub(stack_pointer))
}

/// Writes down where the caller was called from, and where that was called from, as far as there is room and a chain to follow. `bounds` are the calling thread's.
pub(crate) fn capture(caller: &Caller, into: &mut [usize], bounds: &StackBounds) -> Captured {
    let Some(first) = into.first_mut() else { return Captured { depth: 0, is_cut: true, is_failed: false } };
    if caller.return_address == 0 {
        return Captured { depth: 0, is_cut: false, is_failed: true };
    }
    *first = caller.return_address;
    let mut stack = Readable::new(caller.stack_pointer, bounds);
    let mut depth = 1;
    let mut lowest = caller.stack_pointer;
    let mut link = caller.frame_pointer;
    let mut is_cut = false;
    // Code that keeps no frame pointers may leave anything here, and the outermost code, that of the C library, does. So a link that cannot be one
    // ends the chain, and only what is wrong about one that could have been counts as cut off.
    while link >= lowest && link.is_multiple_of(size_of::<usize>()) && stack.can_read(link) {
        // SAFETY: `can_read`: two words of a stack, mapped while the calling thread is above them. Volatile: whose they are the compiler cannot know.
        let next = unsafe { os::pointer(link).cast::<usize>().read_volatile() };
        // SAFETY: as above.
        let return_address = unsafe { os::pointer(link + size_of::<usize>()).cast::<usize>().read_volatile() };
        let return_address = without_signature(return_address);
        if return_address == 0 {
            break;
        }
        if !(CODE_FROM..CODE_TO).contains(&return_address) || stack.is_part(return_address) {
            is_cut = depth > 1;
            break;
        }
        let Some(place) = into.get_mut(depth) else {
            is_cut = true;
            break;
        };
        *place = return_address;
        depth += 1;
        lowest = link + LINK_BYTES;
        link = next;
    }
    #[cfg(feature = "backtrace")]
    if depth == 1 && into.len() > 1 {
        return tables::capture(caller, into);
    }
    Captured { depth, is_cut, is_failed: depth == 1 && into.len() > 1 }
}

/// What of the stack can be read, as far as one capture knows.
struct Readable {
    /// From the stack pointer upwards without a gap.
    near: Range<usize>,
    /// The known part of the thread's own stack, which it may not be on.
    own: Range<usize>,
    tests_left: usize,
}

impl Readable {
    #[inline]
    fn new(stack_pointer: usize, bounds: &StackBounds) -> Self {
        let mut own = bounds.known();
        if !own.contains(&stack_pointer) {
            own = bounds.extend(stack_pointer);
        }
        let end = if own.contains(&stack_pointer) { own.end } else { stack_pointer & !(os::page_bytes() - 1) };
        Self { near: stack_pointer..end, own, tests_left: PAGES_TESTED_MAX }
    }

    /// Are both words of this link readable?
    #[inline]
    fn can_read(&mut self, link: usize) -> bool {
        let Some(end) = link.checked_add(LINK_BYTES) else { return false };
        end <= self.near.end || (self.own.start <= link && end <= self.own.end) || self.test_until(end)
    }

    /// Does this address lie on the stack?
    fn is_part(&self, address: usize) -> bool {
        self.near.contains(&address) || self.own.contains(&address)
    }

    #[cold]
    fn test_until(&mut self, end: usize) -> bool {
        let page_bytes = os::page_bytes();
        // What cannot be reached need not be tried.
        if self.own.contains(&self.near.start) || end.saturating_sub(self.near.end) > self.tests_left * page_bytes {
            return false;
        }
        while self.near.end < end {
            if self.own.contains(&self.near.end) {
                self.near.end = self.own.end;
                continue;
            }
            if self.tests_left == 0 || !os::is_readable(self.near.end) {
                return false;
            }
            self.tests_left -= 1;
            self.near.end += page_bytes;
        }
        true
    }
}

/// ARM's processors can sign return addresses in the bits that addresses do not use.
const fn without_signature(return_address: usize) -> usize {
    if cfg!(target_arch = "aarch64") { return_address & (CODE_TO - 1) } else { return_address }
}

/// Stacks by the tables that exceptions are unwound with: for code without frame pointers.
///
/// It is the C runtime that walks here. It takes some microseconds per frame, a lock of the dynamic linker, and in odd builds memory, which it does not get:
/// the slow path that is under way answers null. It believes its tables: where these are wrong, as after handwritten assembly that says nothing, it may read where
/// nothing is, and the process dies. In the child of a fork from several threads the lock may be nobody's to give back. Hence a feature.
#[cfg(feature = "backtrace")]
mod tables {
    use core::ffi::{c_int, c_void};

    use super::{Caller, Captured};

    #[cfg_attr(freestone_c, link(name = "gcc_s"))]
    unsafe extern "C" {
        fn _Unwind_Backtrace(visit: extern "C" fn(*mut c_void, *mut c_void) -> c_int, walk: *mut c_void) -> c_int;
        fn _Unwind_GetIP(context: *mut c_void) -> usize;
    }

    const GO_ON: c_int = 0;
    /// Any other answer ends the walk; this is `_URC_NORMAL_STOP`.
    const STOP: c_int = 4;

    struct Walk<'a> {
        into: &'a mut [usize],
        /// The first address, below which it is our own frames.
        caller: usize,
        depth: usize,
        is_cut: bool,
    }

    pub(super) fn capture(caller: &Caller, into: &mut [usize]) -> Captured {
        let mut walk = Walk { into, caller: caller.return_address, depth: 0, is_cut: false };
        // SAFETY: `visit` gets what it expects, for as long as the walk takes.
        unsafe { _Unwind_Backtrace(visit, (&raw mut walk).cast()) };
        let is_failed = walk.depth <= 1;
        // The address of the caller was written before, and is right whatever came of the walk.
        Captured { depth: walk.depth.max(1), is_cut: walk.is_cut, is_failed }
    }

    extern "C" fn visit(context: *mut c_void, walk: *mut c_void) -> c_int {
        // SAFETY: what `capture` handed over; nobody else has it meanwhile.
        let walk = unsafe { &mut *walk.cast::<Walk<'_>>() };
        // SAFETY: the context is the unwinder's.
        let address = unsafe { _Unwind_GetIP(context) };
        if address == 0 {
            return STOP;
        }
        if walk.depth == 0 && address != walk.caller {
            return GO_ON;
        }
        let Some(place) = walk.into.get_mut(walk.depth) else {
            walk.is_cut = true;
            return STOP;
        };
        *place = address;
        walk.depth += 1;
        GO_ON
    }
}

#[cfg(test)]
mod tests;
