//! The ledger: every byte of the process in exactly one line, first the heap's, then what the heap gave back, then everybody else's.

use std::fmt;

use bytesize::ByteSize;

use crate::process::Process;
use crate::{Snapshot, slack, snapshot};

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
    /// How many bytes. Only *unexplained* could be negative.
    pub bytes: i64,
    /// Half of the 95 % interval, for lines that are estimated from samples. `None`: exact.
    pub error_bytes: Option<u64>,
    /// What it is, in a few words.
    pub meaning: &'static str,
}

/// Reads the heap's books and the kernel's, for every minute, not for every request: the kernel walks over the pages of the process for it, some
/// 35 ns for each that is resident (150 ms for 4 GiB in small pages), and threads that map or unmap memory meanwhile wait for it.
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
        // Where blocks end is exact, where requests end within them is not; together they are what is held.
        let slack = slack::estimate(&self.snapshot.heap);
        let estimated = |line| Line { error_bytes: Some(slack.error_bytes), ..line };
        let slack_bytes = slack.bytes as usize;
        vec![
            estimated(line("live", "live", bytes.live - slack_bytes, "what the program asked for and has")),
            estimated(line("slack", "slack", slack_bytes, "the rest of its blocks")),
            line("thread_cache", "thread caches", bytes.thread_cached, "free, at hand for the thread that freed it"),
            line("depot", "depots", bytes.depot, "free, on its way between threads"),
            line("holes", "holes", bytes.holes, "free, in spans that are in use"),
            line("dirty", "dirty", bytes.dirty, "free pages that still hold memory"),
            line("metadata", "metadata", bytes.metadata, "for the allocator itself"),
            line("profiler", "profiler", bytes.profiler, "for samples, beyond their blocks"),
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

        let of_resident = if table.resident.is_some() { "of RSS" } else { "" };
        writeln!(f, "{}", format!("{:<35} {of_resident:>8}", "The heap, by its own books").trim_end())?;
        if self.snapshot.heap.approximate {
            writeln!(f, "  (threads were at work: figures may be off by what was on its way)")?;
        }
        table.lines(f, &lines, Part::Heap)?;
        table.row(f, "= committed", bytes.committed() as i64, "the most of it that can be in memory")?;

        writeln!(f, "What it gave back")?;
        table.lines(f, &lines, Part::GivenBack)?;
        write_row(f, "= reserved", bytes.reserved() as i64, "", "all address space of the heap")?;

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
            let limit = process.cgroup_limit.map_or_else(|| "no limit".to_owned(), |limit| format!("a limit of {}", size(limit)));
            writeln!(f, "  The control group has {}, page cache and others in it included, and {limit}.", size(charged))?;
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
                Part::GivenBack => write_row(f, line.name, line.bytes, "", &meaning)?,
                _ => self.row(f, line.name, line.bytes, &meaning)?,
            }
        }
        Ok(())
    }

    fn row(&self, f: &mut fmt::Formatter<'_>, name: &str, bytes: i64, meaning: &str) -> fmt::Result {
        let share = match self.resident {
            Some(resident @ 1..) => percent(bytes as f64 * 100.0 / resident as f64),
            _ => String::new(),
        };
        write_row(f, name, bytes, &share, meaning)
    }
}

/// Memory that was never touched may come to any multiple of what is resident.
fn percent(share: f64) -> String {
    match share {
        1000.0.. => "> 999 %".to_owned(),
        ..-1000.0 => "< -999 %".to_owned(),
        _ => format!("{share:.1} %"),
    }
}

fn write_row(f: &mut fmt::Formatter<'_>, name: &str, bytes: i64, share: &str, meaning: &str) -> fmt::Result {
    let sign = if bytes < 0 { "-" } else { "" };
    let size = format!("{sign}{}", ByteSize(bytes.unsigned_abs()));
    writeln!(f, "{}", format!("  {name:<18}{size:>14} {share:>9}   {meaning}").trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDTH: usize = 100;

    /// A ledger in which everything is as long as it can be.
    fn extreme() -> Ledger {
        let mut snapshot = snapshot();
        snapshot.heap.approximate = true;
        let bytes = &mut snapshot.heap.bytes;
        for line in [&mut bytes.live, &mut bytes.thread_cached, &mut bytes.holes, &mut bytes.dirty, &mut bytes.released] {
            *line = 1023 << 38;
        }
        let most = Some(1023 << 40);
        let process = Process {
            resident: Some(1 << 40),
            heap: most,
            heap_swapped: most,
            swapped: most,
            huge_pages: most,
            huge_tlb: most,
            malloc_held: most,
            malloc_live: most,
            cgroup_bytes: most,
            cgroup_limit: most,
            largest_unexplained: vec![(usize::MAX - 1..usize::MAX, 1023 << 40); 3],
            ..Process::default()
        };
        Ledger { snapshot, process }
    }

    fn sum(ledger: &Ledger, part: Part) -> i64 {
        ledger.lines().iter().filter(|line| line.part == part).map(|line| line.bytes).sum()
    }

    #[test]
    fn every_part_sums_to_what_it_says() {
        let ledger = extreme();
        let bytes = &ledger.snapshot.heap.bytes;
        assert_eq!(sum(&ledger, Part::Heap), bytes.committed() as i64);
        assert_eq!(sum(&ledger, Part::Heap) + sum(&ledger, Part::GivenBack), bytes.reserved() as i64);
        assert_eq!(sum(&ledger, Part::Resident), 1 << 40);
        let keys: Vec<_> = ledger.lines().iter().map(|line| line.key).collect();
        let mut unique = keys.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), keys.len(), "{keys:?}");
    }

    #[test]
    fn it_fits_a_terminal() {
        let text = extreme().to_string();
        for line in text.lines() {
            assert!(line.chars().count() <= WIDTH && !line.ends_with(' '), "{line:?} in\n{text}");
        }
        let column = |line: &str| line.find('%').map(|at| line[..at].chars().count());
        let columns: Vec<_> = text.lines().filter(|line| line.starts_with("  ")).filter_map(column).collect();
        assert!(columns.len() > 12 && columns.iter().all(|&at| at == columns[0]), "{text}");
        assert!(text.contains(&format!("  unexplained{:>21}", "-1022.0 TiB")), "{text}");
    }

    #[test]
    fn what_cannot_be_read_is_said_and_the_heaps_lines_are_there() {
        let process =
            Process { unread: vec!["cannot read /proc/self/smaps: Permission denied".to_owned()], ..Process::default() };
        let ledger = Ledger { process, ..extreme() };
        assert_eq!(ledger.lines().iter().filter(|line| line.part == Part::Resident).count(), 0);
        let text = ledger.to_string();
        assert!(text.contains("  live                   255.8 TiB             ± "), "{text}");
        assert!(
            text.ends_with("The process, by the kernel's books\n  cannot read /proc/self/smaps: Permission denied.\n"),
            "{text}"
        );
        assert!(!text.contains('%') && !text.contains("RSS"), "{text}");
    }
}
