//! Floor 1. The one door to the machine: address space, time, waiting, the end of threads, and how to die.
//!
//! Address space is in one of four states; every function below says which transition it is.
//!
//! ```text
//!              map_at, map_anywhere                first touch
//!   Unmapped ─────────────────────────▶ Clean ─────────────────────▶ Dirty
//!     │ ▲                                │  ▲ ▲                        │
//!     │ └──────────── unmap ─────────────┴──│─│──────── purge ─────────┘
//!     │                                     │ └── reads as zero, holds no memory
//!     └─ reserve_at ─▶ Closed ──── open ────┘
//!                         ▲── close ── Clean or Dirty: cannot be touched, holds no memory
//! ```
//!
//! The system may say no to any of them. A no is returned, never fatal here; what it means is the caller's business. Nothing in
//! this room allocates, and the functions return what happened instead of counting it.
//!
//! The system is chosen once, here: Linux, or in the rooms' own tests `sim`, which is Linux with failures on demand, a clock
//! that the test moves, and a book of every mapping.

use core::ptr::NonNull;

cfg_select! {
    loom => { mod model; use model as system; }
    test => { #[allow(dead_code, reason = "tests run over the simulated system")] mod linux; pub(crate) mod sim; use sim as system; }
    _ => { mod linux; use linux as system; }
}

#[cfg(not(loom))]
mod faults;
#[cfg(not(loom))]
pub(crate) use faults::{Access, Fault, Watcher, are_faults_handled, watch_faults};

/// Why address space could not be had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(loom, allow(dead_code))]
pub(crate) enum MapError {
    /// Something of somebody else's lies there, or the system cannot place mappings there.
    Occupied,
    /// No memory, no address space left under the limit, or too many mappings.
    OutOfMemory,
}

pub(crate) use system::{cycles, thread_id, wait, wake_one};

#[cfg(not(loom))]
pub(crate) use system::{
    KeepErrno, abort, address_space_is_limited, allow_barriers, at_fork, barrier, close, environment, exit, exit_key, exit_value,
    extend_mapping, has_threads, is_mapped, is_on_signal_stack, is_readable, load_base, map_anywhere, map_at, memory_bytes,
    move_mapping, name_thread, now_ns, open, page_bytes, populate, process_id, processor, purge, random, read_file, reserve_at,
    set_exit_value, spawn, stack_top, thread_cpu_ns, thread_is_gone, unmap, use_huge_pages, use_small_pages, wait_for,
    wall_clock_ns, write_at_once, write_error,
};

#[cfg(all(not(loom), any(freestone_c, test)))]
pub(crate) use system::map_untouchable;
#[cfg(freestone_c)]
pub(crate) use system::{hand_environment, set_errno};

/// No stack is larger than this, for who has to tell whether an address lies on one. What does not fit is not looked at.
#[cfg(not(loom))]
pub(crate) const STACK_BYTES_MAX: usize = 64 << 20;

/// How often the system runs the destructors of a dying thread before it gives up (`PTHREAD_DESTRUCTOR_ITERATIONS`).
/// `ThreadSanitizer` takes its own leave in the last one, and nothing that it watches may run after that.
pub(crate) const EXIT_ROUNDS: usize = if cfg!(freestone_tsan) { 3 } else { 4 };

/// The pointer that belongs to an address inside a mapping of ours.
///
/// Mappings are joined, split and moved behind Rust's back, so a block's pointer cannot be derived from the pointer of the
/// call that mapped it. Every mapping exposes its provenance when it is made; this takes it up again (I-exposed).
#[inline(always)]
pub(crate) fn pointer(address: usize) -> *mut u8 {
    core::ptr::with_exposed_provenance_mut(address)
}

/// [`pointer()`] for an address that is known not to be zero.
#[inline(always)]
pub(crate) fn block(address: usize) -> NonNull<u8> {
    debug_assert_ne!(address, 0);
    // SAFETY: no mapping contains address zero (the kernel's mmap_min_addr), and callers pass addresses in mappings.
    unsafe { NonNull::new_unchecked(pointer(address)) }
}
