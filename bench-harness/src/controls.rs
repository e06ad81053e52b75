//! What a subject's binary can do besides allocating. A workload asks for it through its [`Context`](crate::workload::Context) and does the
//! same work where there is none, so workloads know no allocator.

use std::time::Duration;

/// Takes the name of a figure and the figure.
pub type Note<'a> = dyn FnMut(&'static str, u64) + 'a;

/// What a program can tell its allocator, and ask it. `None` is what this allocator does not offer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Controls {
    /// Keep the process below so many bytes, if that is possible; `None` lifts the limit.
    pub set_memory_limit: Option<fn(bytes: Option<usize>)>,
    /// The calling thread is about to wait for long.
    pub thread_idle: Option<fn()>,
    /// How the program does: requests per second, and the time that 99 of 100 requests stay below.
    pub observe: Option<fn(requests_per_second: f64, p99: Duration)>,
    /// Figures of the allocator's own at the end of a workload, such as its pauses. The end of a name says the unit, as in all notes:
    /// `_bytes`, `_ns`, or nothing for a count.
    pub notes: Option<fn(&mut Note<'_>)>,
    /// Allocations until now, by all threads together.
    pub allocations: Option<fn() -> u64>,
    /// Bytes that the program holds at this moment, where the allocator can say.
    pub heap_in_use: Option<fn() -> Option<u64>>,
    /// More of what the allocator's own books say at the end of a workload: figures that only make sense beside each other, named like notes.
    pub books: Option<fn(&mut Note<'_>)>,
}

impl Controls {
    /// An allocator that only allocates.
    pub const NONE: Self = Self {
        set_memory_limit: None,
        thread_idle: None,
        observe: None,
        notes: None,
        allocations: None,
        heap_in_use: None,
        books: None,
    };
}
