//! Threads: what each has cached, and what it did.

use std::fmt;

use bytesize::ByteSize;
use freestone::ThreadSnapshot;

/// A thread that has allocated, or the cache of one that has ended and waits for the next. Prints as one line.
///
/// Counts belong to the cache: a thread that took over the cache of one that had ended goes on with its counts.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Thread {
    /// The kernel's number. `None`: it has ended.
    pub id: Option<u32>,
    /// Its name, as the kernel knows it: at most 15 bytes of what the program called it.
    pub name: Option<String>,
    /// Blocks allocated by whoever had this cache.
    pub allocations: u64,
    /// Blocks freed.
    pub frees: u64,
    /// Bytes allocated, at block size.
    pub allocated_bytes: u64,
    /// Bytes freed, at block size.
    pub freed_bytes: u64,
    /// Free blocks in the cache.
    pub cached_blocks: u64,
    /// Their bytes.
    pub cached_bytes: u64,
}

/// All of them, those with the most in their caches first. Reads a small file per thread for its name, about 2 µs each.
///
/// ```
/// for thread in freestone_stats::threads() {
///     println!("{thread}");   // "tokio-worker    1.2 MiB cached in 5120 blocks; …"
/// }
/// ```
#[must_use]
pub fn threads() -> Vec<Thread> {
    let mut threads: Vec<Thread> = records().iter().map(|record| Thread::new(record, name(record.id))).collect();
    threads.sort_by_key(|thread| std::cmp::Reverse(thread.cached_bytes));
    threads
}

/// What the heap knows of threads.
pub(crate) fn records() -> Vec<ThreadSnapshot> {
    let mut records = Vec::new();
    loop {
        let count = freestone::threads(&mut records);
        if count <= records.len() {
            records.truncate(count);
            return records;
        }
        // A few more, for those that are born meanwhile.
        records.resize(count + 8, ThreadSnapshot::default());
    }
}

/// The kernel's name of a thread. `None`: it has ended, or `/proc` cannot be read.
fn name(id: u32) -> Option<String> {
    if id == 0 {
        return None;
    }
    let text = std::fs::read(format!("/proc/self/task/{id}/comm")).ok()?;
    Some(String::from_utf8_lossy(text.strip_suffix(b"\n").unwrap_or(&text)).into_owned())
}

impl Thread {
    fn new(record: &ThreadSnapshot, name: Option<String>) -> Self {
        Self {
            id: (record.id != 0).then_some(record.id),
            name,
            allocations: record.allocations,
            frees: record.frees,
            allocated_bytes: record.allocated_bytes,
            freed_bytes: record.freed_bytes,
            cached_blocks: record.cached_blocks,
            cached_bytes: record.cached_bytes,
        }
    }
}

impl fmt::Display for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.id.map_or_else(|| "-".to_owned(), |id| id.to_string());
        let name = match (&self.name, self.id) {
            (Some(name), _) => name,
            (None, Some(_)) => "?",
            (None, None) => "(ended)",
        };
        write!(
            f,
            "{id:>8} {name:<16}{:>11} cached in {} blocks; {} allocations, {}; {} frees",
            ByteSize(self.cached_bytes).to_string(),
            self.cached_blocks,
            self.allocations,
            ByteSize(self.allocated_bytes),
            self.frees,
        )
    }
}
