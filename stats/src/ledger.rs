//! The ledger: every byte of the process in exactly one line, first the heap's, then what the heap gave back, then everybody else's.

use std::fmt;

use bytesize::ByteSize;

use crate::process::Process;
use crate::{Snapshot, snapshot};

/// Mappings without an owner are named from here on.
const UNEXPLAINED_NAMED_BYTES: u64 = 1 << 20;

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
            meaning: "address space without memory, or not touched yet",
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

    /// Of what the heap holds, how much is not in memory: pages that were never touched, and pages in swap. `None`: nobody says what is.
    fn not_in_memory(&self) -> Option<u64> {
        Some((self.snapshot.heap.bytes.committed() as u64).saturating_sub(self.process.heap?))
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (lines, process) = (self.lines(), &self.process);
        let bytes = &self.snapshot.heap.bytes;
        let table = Table { resident: process.resident };

        writeln!(f, "{:<35} {:>8}", "The heap, by its own books", if table.resident.is_some() { "of RSS" } else { "" })?;
        if self.snapshot.heap.approximate {
            writeln!(f, "  (threads were at work: figures may be off by what was on its way)")?;
        }
        table.lines(f, &lines, Part::Heap)?;
        table.row(f, "= committed", bytes.committed() as i64, "the most of it that can be in memory")?;

        writeln!(f, "What it gave back")?;
        table.lines(f, &lines, Part::GivenBack)?;
        table.row_without_share(f, "= reserved", bytes.reserved() as i64, "all address space of the heap")?;

        writeln!(f, "The process, by the kernel's books")?;
        table.lines(f, &lines, Part::Resident)?;
        if let Some(resident) = process.resident {
            table.row(f, "= resident", resident.cast_signed(), "RSS")?;
        }
        self.remarks(f)
    }
}

impl Ledger {
    /// What is not a line of the sums, but explains them.
    fn remarks(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let process = &self.process;
        let size = |bytes: u64| ByteSize(bytes).to_string();
        if let Some(absent) = self.not_in_memory() {
            let swapped = process.heap_swapped.unwrap_or(0).min(absent);
            let never = size(absent - swapped);
            writeln!(f, "  Of what the heap committed, {never} was never touched, and {} is in swap.", size(swapped))?;
        }
        if let (Some(held), Some(live)) = (process.malloc_held, process.malloc_live) {
            writeln!(f, "  The C library's malloc holds {}, {} of it live, by its own account.", size(held), size(live))?;
        }
        if let Some(swapped) = process.swapped.filter(|&swapped| swapped > 0) {
            writeln!(f, "  In swap: {} of the whole process.", size(swapped))?;
        }
        if let Some(huge) = process.huge_pages.filter(|&huge| huge > 0) {
            writeln!(f, "  In huge pages: {} of what is resident.", size(huge))?;
        }
        if let Some(huge) = process.huge_tlb.filter(|&huge| huge > 0) {
            writeln!(f, "  In huge pages that were set aside, and do not count as resident: {}.", size(huge))?;
        }
        if let Some(charged) = process.cgroup_bytes {
            let limit = process.cgroup_limit.map_or_else(|| "without a limit".to_owned(), |limit| format!("of {}", size(limit)));
            writeln!(f, "  The control group is charged with {} {limit}, page cache and others in it included.", size(charged))?;
        }
        for (range, bytes) in &process.largest_unexplained {
            if *bytes >= UNEXPLAINED_NAMED_BYTES {
                writeln!(f, "  Unexplained: {} at {:x}-{:x}.", size(*bytes), range.start, range.end)?;
            }
        }
        for refusal in &process.unread {
            writeln!(f, "  {refusal}.")?;
        }
        Ok(())
    }
}

/// The columns: name, size, share of what is resident, meaning.
struct Table {
    resident: Option<u64>,
}

impl Table {
    fn lines(&self, f: &mut fmt::Formatter<'_>, lines: &[Line], part: Part) -> fmt::Result {
        for line in lines.iter().filter(|line| line.part == part) {
            let meaning = match line.error_bytes {
                Some(error) => format!("± {}; {}", ByteSize(error), line.meaning),
                None => line.meaning.to_owned(),
            };
            match part {
                Part::GivenBack => self.row_without_share(f, line.name, line.bytes, &meaning)?,
                _ => self.row(f, line.name, line.bytes, &meaning)?,
            }
        }
        Ok(())
    }

    fn row(&self, f: &mut fmt::Formatter<'_>, name: &str, bytes: i64, meaning: &str) -> fmt::Result {
        let share = match self.resident {
            Some(resident @ 1..) => format!("{:.1} %", bytes as f64 * 100.0 / resident as f64),
            _ => String::new(),
        };
        write_row(f, name, bytes, &share, meaning)
    }

    fn row_without_share(&self, f: &mut fmt::Formatter<'_>, name: &str, bytes: i64, meaning: &str) -> fmt::Result {
        write_row(f, name, bytes, "", meaning)
    }
}

fn write_row(f: &mut fmt::Formatter<'_>, name: &str, bytes: i64, share: &str, meaning: &str) -> fmt::Result {
    let sign = if bytes < 0 { "-" } else { "" };
    let size = format!("{sign}{}", ByteSize(bytes.unsigned_abs()));
    writeln!(f, "{}", format!("  {name:<18}{size:>14} {share:>9}   {meaning}").trim_end())
}
