//! What a process asks the system for, and what is another thing in every run: the time, chance, and the processor it is on. Preloaded into a subject
//! whose instructions are counted (`src/instructions.rs`), where such an answer decides what is counted: an allocator gives memory back by the clock,
//! and the simulated processor takes fifty times as long, or on a busy machine a hundred times.
//!
//! Here a clock goes on by a step whenever somebody looks at it, random bytes are always the same, and every thread is on processor 0. So what allocators
//! do by the clock they do after so many looks.
//!
//! Nothing in here allocates: it is called from within allocators.

use std::ffi::{c_int, c_uint, c_void};
use std::sync::atomic::{AtomicI64, Ordering};

const STEP_NS: i64 = 10_000;
/// Clocks that begin at zero are rare, and some programs take zero for "never".
const FIRST_S: i64 = 1_000;
const SECOND_NS: i64 = 1_000_000_000;

static LOOKS: AtomicI64 = AtomicI64::new(0);

/// All clocks are one: 10 µs after it was looked at last.
///
/// # Safety
///
/// As in the C library: `time` is a place to write to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(_clock: libc::clockid_t, time: *mut libc::timespec) -> c_int {
    // Relaxed: a number that nobody else gets is all that is wanted.
    let passed_ns = LOOKS.fetch_add(1, Ordering::Relaxed) * STEP_NS;
    let now = libc::timespec { tv_sec: FIRST_S + passed_ns / SECOND_NS, tv_nsec: passed_ns % SECOND_NS };
    // SAFETY: the caller's promise.
    unsafe { time.write(now) };
    0
}

/// Counts bytes up, from zero in each call.
///
/// # Safety
///
/// As in the C library: there is room for `length` bytes at `into`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(into: *mut c_void, length: usize, _flags: c_uint) -> isize {
    for place in 0..length {
        // SAFETY: the caller's promise.
        unsafe { into.cast::<u8>().wrapping_add(place).write(place as u8) };
    }
    length as isize
}

/// The first one.
#[unsafe(no_mangle)]
pub extern "C" fn sched_getcpu() -> c_int {
    0
}
