//! The ledger: every byte of the process in exactly one line, first the heap's, then what the heap gave back, then everybody else's.

use std::fmt;

use bytesize::ByteSize;

use crate::process::Process;
use crate::{Snapshot, snapshot};

/// Where every byte is: of the heap by its own books, of the rest of the process by the kernel's. Prints as a table.
///
/// ```
/// let ledger = freestone_stats::ledger();
/// let heap: i64 = ledger.lines().iter().filter(|line| line.part == freestone_stats::Part::Heap).map(|line| line.bytes).sum();
/// assert_eq!(heap, ledger.snapshot.heap.bytes.committed() as i64);
/// println!("{ledger}");
/// ```
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct Ledger {
    /// The heap's numbers.
    pub snapshot: Snapshot,
    /// What the kernel and other allocators say.
    pub process: Process,
}

/// Which sum a line belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Part {
    /// What the heap holds. These lines sum to [`freestone::Bytes::committed`].
    Heap,
    /// What the heap holds no memory for. With those before, these sum to [`freestone::Bytes::reserved`].
    GivenBack,
    /// What is resident, by the kernel's count. These lines sum to what it says of the whole process.
    Resident,
}

/// One line of the ledger.
#[derive(Clone, Copy, PartialEq, Debug)]
#[non_exhaustive]
pub struct Line {
    /// Which sum it belongs to.
    pub part: Part,
    /// Its name in exports: lower case, with underscores; stable.
    pub key: &'static str,
    /// Its name for people.
    pub name: &'static str,
    /// How many bytes. Only *unexplained* can be negative, where the parts were read at different moments.
    pub bytes: i64,
    /// Half of the 95 % interval, for lines that are estimated from samples. `None`: exact.
    pub error_bytes: Option<u64>,
    /// What it is, in a few words.
    pub meaning: &'static str,
}

/// Reads the heap's books and the kernel's. The kernel walks the page tables of the process for it, about 10 ms for every 4 GiB, and nobody
/// else waits; for every minute, not for every request.
#[must_use]
pub fn ledger() -> Ledger {
    let process = Process::read();
    Ledger { snapshot: snapshot(), process }
}

impl Ledger {
    /// All lines, in the order of [`Part`]. Lines of [`Part::Resident`] are only there as far as the kernel can be read.
    #[must_use]
    pub fn lines(&self) -> Vec<Line> {
        let mut lines = self.heap_lines();
        let bytes = &self.snapshot.heap.bytes;
        let released = Line {
            part: Part::GivenBack,
            key: "released",
            name: "released",
            bytes: bytes.released as i64,
            error_bytes: None,
            meaning: "address space without memory: given back, or never touched",
        };
        lines.push(released);
        lines.extend(self.process.lines());
        lines
    }

    fn heap_lines(&self) -> Vec<Line> {
        let bytes = &self.snapshot.heap.bytes;
        let line = |key, name, bytes: usize, meaning| Line {
            part: Part::Heap,
            key,
            name,
            bytes: bytes as i64,
            error_bytes: None,
            meaning,
        };
        vec![
            line("live", "live", bytes.live, "what the program asked for and has"),
            line("slack", "slack", 0, "at the end of its blocks, where nobody asked for it"),
            line("thread_cache", "thread caches", bytes.thread_cached, "free, at hand for the thread that freed it"),
            line("depot", "depots", bytes.depot, "free, on its way between threads"),
            line("holes", "holes", bytes.holes, "free, in spans that are in use"),
            line("dirty", "dirty", bytes.dirty, "free pages that still hold memory"),
            line("metadata", "metadata", bytes.metadata, "for the allocator itself"),
            line("profiler", "profiler", 0, "for samples"),
            line("lost_at_fork", "lost at fork", bytes.lost_at_fork, "in caches of threads that stayed in the parent"),
        ]
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in self.lines() {
            writeln!(f, "  {:<18}{:>12}   {}", line.name, ByteSize(line.bytes.unsigned_abs()).to_string(), line.meaning)?;
        }
        Ok(())
    }
}
