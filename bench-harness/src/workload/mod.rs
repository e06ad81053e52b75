//! What is measured: patterns that isolate one habit of programs, memory over time, and real work.
//!
//! A workload runs in a process of its own, on whatever allocator that process has registered. It prepares, then times its operations,
//! and returns a checksum over what it computed, which must be the same on every allocator. Pointers pass through
//! [`black_box`](std::hint::black_box), or the compiler would remove the allocation together with its free.

mod block;
pub mod memory;
pub mod patterns;
pub mod real;
mod rng;
pub mod threads;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::controls::Controls;

pub use rng::Rng;

/// What a workload needs to know.
#[derive(Clone, Debug)]
pub struct Context {
    /// Share of the full number of operations, in percent. Tests run a little of everything.
    pub percent: u64,
    /// Folder with the input of the real workloads.
    pub inputs: PathBuf,
    /// What the allocator offers besides memory.
    pub controls: Controls,
}

impl Default for Context {
    /// All of the operations, no inputs, and an allocator that only allocates.
    fn default() -> Self {
        Self { percent: 100, inputs: PathBuf::new(), controls: Controls::NONE }
    }
}

impl Context {
    /// So many operations of `full`, at least one.
    #[must_use]
    pub fn scaled(&self, full: u64) -> u64 {
        (full * self.percent / 100).max(1)
    }
}

/// What a workload did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// Operations timed. What an operation is, the workload's description says.
    pub operations: u64,
    /// How long they took.
    pub elapsed: Duration,
    /// Computed from what the operations did; the same on every allocator.
    pub checksum: u64,
}

/// Passes a pointer where the compiler cannot look. Does what [`black_box`](std::hint::black_box) does, but keeps the pointer in a register:
/// a trip through memory would cost as much as what is measured.
#[inline(always)]
#[must_use]
pub fn opaque<T>(mut pointer: *mut T) -> *mut T {
    // SAFETY: no instruction at all.
    unsafe { std::arch::asm!("/* {} */", inout(reg) pointer, options(nostack, preserves_flags)) };
    pointer
}

/// [`opaque`] for a box.
#[inline(always)]
pub(crate) fn opaque_box<T>(value: Box<T>) -> Box<T> {
    let raw = opaque(Box::into_raw(value));
    // SAFETY: the pointer is the one that was just taken out of the box.
    unsafe { Box::from_raw(raw) }
}

/// Times `work`, which returns how many operations it did and a checksum.
pub(crate) fn timed(work: impl FnOnce() -> (u64, u64)) -> Outcome {
    let start = Instant::now();
    let (operations, checksum) = work();
    Outcome { operations, elapsed: start.elapsed(), checksum }
}

/// A workload by name.
#[derive(Clone, Copy)]
pub struct Workload {
    /// The name in tables and on the command line.
    pub name: &'static str,
    /// Why it exists, whom it favours, what an operation is.
    pub about: &'static str,
    /// Is it one of the dozen rows of the default run?
    pub telling: bool,
    /// Runs it.
    pub run: fn(&Context) -> Outcome,
}

impl std::fmt::Debug for Workload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workload").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Workload {
    /// Is it real work, rather than a pattern?
    #[must_use]
    pub fn is_real(&self) -> bool {
        real::WORKLOADS.iter().any(|its| its.name == self.name)
    }

    /// Is it about memory over time, which takes its time, so that it runs only when it is named?
    #[must_use]
    pub fn is_over_time(&self) -> bool {
        memory::WORKLOADS.iter().any(|its| its.name == self.name)
    }
}

/// All workloads, in the order of the table.
pub fn all() -> impl Iterator<Item = &'static Workload> {
    real::WORKLOADS.iter().chain(patterns::WORKLOADS).chain(threads::WORKLOADS).chain(memory::WORKLOADS)
}

/// The workload with this name.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static Workload> {
    all().find(|workload| workload.name == name)
}
