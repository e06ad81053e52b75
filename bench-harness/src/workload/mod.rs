//! What is measured: patterns that isolate one habit of programs, memory over time, and real work.
//!
//! A workload runs in a process of its own, on whatever allocator that process has registered. It prepares, then times its operations,
//! and returns a checksum over what it computed, which must be the same on every allocator. Pointers pass through
//! [`black_box`](std::hint::black_box), or the compiler would remove the allocation together with its free.

mod block;
mod clock;
pub mod latency;
pub mod memory;
pub mod parameters;
pub mod patterns;
pub mod real;
mod rng;
pub mod service;
pub mod threads;
pub mod turns;

use std::path::PathBuf;
use std::time::Duration;

use crate::controls::Controls;
use parameters::{Parameter, Parameters};
use turns::Stopwatch;

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
    /// What was chosen of what the workload lets choose.
    pub parameters: Parameters,
}

impl Default for Context {
    /// All of the operations, no inputs, and an allocator that only allocates.
    fn default() -> Self {
        Self { percent: 100, inputs: PathBuf::new(), controls: Controls::NONE, parameters: Parameters::default() }
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
#[inline(always)]
pub(crate) fn timed(work: impl FnOnce() -> (u64, u64)) -> Outcome {
    let watch = Stopwatch::start();
    timed_part_begins();
    let (operations, checksum) = work();
    timed_part_ends();
    Outcome { operations, elapsed: watch.elapsed(), checksum }
}

/// Nothing, but by a name that outlives the linker: whoever counts instructions begins at this call. Two calls of nothing are what that costs a
/// run that is timed; a function around the timed part would keep the compiler from seeing through it.
#[inline(never)]
#[unsafe(export_name = "freestone_bench_timed_part_begins")]
extern "C" fn timed_part_begins() {
    // Unlike the other's, so that nobody makes one of the two.
    // SAFETY: no instruction at all.
    unsafe { std::arch::asm!("/* begins */", options(nostack, preserves_flags)) };
}

/// … and ends at this one.
#[inline(never)]
#[unsafe(export_name = "freestone_bench_timed_part_ends")]
extern "C" fn timed_part_ends() {
    // SAFETY: no instruction at all.
    unsafe { std::arch::asm!("/* ends */", options(nostack, preserves_flags)) };
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

    /// Does it serve requests? Those are built on request (feature `service`).
    #[must_use]
    pub fn is_service(&self) -> bool {
        service::WORKLOADS.iter().any(|its| its.name == self.name)
    }

    /// Does it do its work in several threads? Most of these wait for each other by looking again and again.
    #[must_use]
    pub fn has_threads(&self) -> bool {
        threads::WORKLOADS.iter().any(|its| its.name == self.name) || self.name == "real-documents"
    }

    /// Does it look at a clock at each operation?
    #[must_use]
    pub fn is_of_tails(&self) -> bool {
        latency::WORKLOADS.iter().any(|its| its.name == self.name)
    }

    /// Do subjects run it at the same time, by turns ([`turns`])? Only where that is the same work: in one thread, which never waits; with so little
    /// live that a turn of others leaves few cold caches; and with the same memory from beginning to end, so that nobody gives any back by the
    /// clock, which goes on in the turns of others.
    #[must_use]
    pub fn is_side_by_side(&self) -> bool {
        const NAMES: [&str; 9] = [
            "real-index",
            "hot-64",
            "hot-4k",
            "runtime-64",
            "batch-100",
            "random-1k",
            "random-1k-read",
            "strings",
            "vec-grow-1k",
        ];
        NAMES.contains(&self.name)
    }

    /// What can be chosen about it.
    #[must_use]
    pub fn parameters(&self) -> &'static [Parameter] {
        service::parameters(self.name)
    }

    /// Does it time every call, for the tail?
    #[must_use]
    pub fn is_latency(&self) -> bool {
        latency::WORKLOADS.iter().any(|its| its.name == self.name)
    }

    /// Is it about memory over time, which takes its time, so that it runs only when it is named?
    #[must_use]
    pub fn is_over_time(&self) -> bool {
        memory::WORKLOADS.iter().any(|its| its.name == self.name)
    }
}

/// All workloads, in the order of the table.
pub fn all() -> impl Iterator<Item = &'static Workload> {
    real::WORKLOADS
        .iter()
        .chain(patterns::WORKLOADS)
        .chain(threads::WORKLOADS)
        .chain(latency::WORKLOADS)
        .chain(memory::WORKLOADS)
        .chain(service::WORKLOADS)
}

/// The workload with this name.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static Workload> {
    all().find(|workload| workload.name == name)
}
