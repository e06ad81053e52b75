//! Floor 13. What `freestone.h` declares: the face for operators, in C. Each function says there what it does.

use core::ffi::{CStr, c_char, c_int};

use crate::heap;
use crate::options::{Limit, Options};
use crate::os;

use super::blocks::OPTIONS;

/// `struct freestone_snapshot`. Grows at its end only; `size` says how much of it the caller knows.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct CSnapshot {
    size: u64,
    allocations: u64,
    frees: u64,
    allocated_bytes: u64,
    freed_bytes: u64,
    live_bytes: u64,
    thread_cached_bytes: u64,
    depot_bytes: u64,
    holes_bytes: u64,
    dirty_bytes: u64,
    metadata_bytes: u64,
    lost_at_fork_bytes: u64,
    released_bytes: u64,
    held_bytes: u64,
    memory_limit: u64,
    hard_limit: u64,
    os_calls: u64,
    threads: u64,
    background_thread: u64,
    approximate: u64,
}

/// See `freestone.h`.
///
/// # Safety
///
/// - `into` points to a `struct freestone_snapshot` whose `size` is set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn freestone_snapshot(into: *mut CSnapshot) -> c_int {
    // SAFETY: handed on to the caller: `size` is the first field.
    let known = if into.is_null() { 0 } else { unsafe { into.cast::<u64>().read() } } as usize;
    if known < size_of::<u64>() || !known.is_multiple_of(size_of::<u64>()) {
        return invalid();
    }
    let now = heap::take_snapshot();
    let bytes = &now.bytes;
    let known = known.min(size_of::<CSnapshot>());
    let full = CSnapshot {
        size: known as u64,
        allocations: now.allocations,
        frees: now.frees,
        allocated_bytes: now.allocated_bytes,
        freed_bytes: now.freed_bytes,
        live_bytes: bytes.live as u64,
        thread_cached_bytes: bytes.thread_cached as u64,
        depot_bytes: bytes.depot as u64,
        holes_bytes: bytes.holes as u64,
        dirty_bytes: bytes.dirty as u64,
        metadata_bytes: bytes.metadata as u64,
        lost_at_fork_bytes: bytes.lost_at_fork as u64,
        released_bytes: bytes.released as u64,
        held_bytes: now.limits.held as u64,
        memory_limit: now.limits.memory_limit.unwrap_or(0) as u64,
        hard_limit: now.limits.hard_limit.unwrap_or(0) as u64,
        os_calls: now.events.os_calls(),
        threads: (now.thread_records - now.thread_records_pooled) as u64,
        background_thread: u64::from(now.background_thread),
        approximate: u64::from(now.approximate),
    };
    // SAFETY: the caller has so many bytes; both are whole words.
    unsafe { core::ptr::copy_nonoverlapping((&raw const full).cast::<u8>(), into.cast::<u8>(), known) };
    0
}

/// −1 and `EINVAL`.
#[cold]
fn invalid() -> c_int {
    os::set_errno(libc::EINVAL);
    -1
}

/// See `freestone.h`.
#[unsafe(no_mangle)]
pub extern "C" fn freestone_release_to_os() -> usize {
    heap::release_all()
}

/// No limit is written as 0 in C.
fn limit_of(bytes: usize) -> Limit {
    if bytes == 0 { Limit::None } else { Limit::Bytes(bytes) }
}

/// See `freestone.h`.
#[unsafe(no_mangle)]
pub extern "C" fn freestone_set_memory_limit(bytes: usize) {
    heap::configure(|options| options.memory_limit = limit_of(bytes));
}

/// See `freestone.h`.
#[unsafe(no_mangle)]
pub extern "C" fn freestone_memory_limit() -> usize {
    heap::limits().memory_limit.unwrap_or(0)
}

/// See `freestone.h`.
#[unsafe(no_mangle)]
pub extern "C" fn freestone_set_hard_limit(bytes: usize) {
    heap::configure(|options| options.hard_limit = limit_of(bytes));
}

/// See `freestone.h`.
#[unsafe(no_mangle)]
pub extern "C" fn freestone_hard_limit() -> usize {
    heap::limits().hard_limit.unwrap_or(0)
}

/// See `freestone.h`.
#[unsafe(no_mangle)]
pub extern "C" fn freestone_held_bytes() -> usize {
    heap::held_bytes()
}

/// See `freestone.h`.
#[unsafe(no_mangle)]
pub extern "C" fn freestone_thread_idle() {
    heap::thread_idle();
}

/// See `freestone.h`.
///
/// # Safety
///
/// - `text` is null or ends with a zero byte.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn freestone_configure(text: *const c_char) -> c_int {
    if text.is_null() {
        return invalid();
    }
    // SAFETY: handed on to the caller.
    let text = unsafe { CStr::from_ptr(text) }.to_bytes();
    let mut is_understood = true;
    let mut tried = Options { bypass: heap::is_bypassed(&OPTIONS), ..heap::configuration() };
    tried.apply(text, |_| is_understood = false);
    // Who serves the program was decided with the first block.
    if !is_understood || tried.bypass != heap::is_bypassed(&OPTIONS) {
        return invalid();
    }
    heap::configure(|options| options.apply(text, |_| {}));
    0
}

/// See `freestone.h`.
#[unsafe(no_mangle)]
pub extern "C" fn freestone_is_bypassed() -> c_int {
    c_int::from(heap::is_bypassed(&OPTIONS))
}

/// See `freestone.h`.
#[unsafe(no_mangle)]
pub extern "C" fn freestone_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}
