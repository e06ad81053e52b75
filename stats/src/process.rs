//! The process around the heap: what the kernel holds in memory for it, and for whom.

mod cgroup;
mod host;
mod owners;
pub(crate) mod smaps;

use std::fs::File;
use std::ops::Range;
use std::path::Path;

use crate::ledger::{Line, Part};
use owners::{Known, Memory, Owners};

/// How many mappings without an owner are kept, the largest first.
const UNEXPLAINED_KEPT: usize = 3;

/// What is resident, and whose it is. All in bytes; `None` where the system does not say, and then [`unread`](Self::unread) says why.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Process {
    /// All of it: the sum of `Rss` over `/proc/self/smaps`. `smaps_rollup` would say the same, and take as long again; it is asked where `smaps`
    /// cannot be read, and after it the kernel's quick count.
    pub resident: Option<u64>,
    /// In the heap's own address ranges.
    pub heap: Option<u64>,
    /// In those of other allocators: the C library's heap.
    pub other_allocators: Option<u64>,
    /// Stacks of threads, the main one included, with what is thread-local; and those that the C library keeps for the next thread.
    pub thread_stacks: Option<u64>,
    /// Code, static data, and files that are mapped.
    pub file_backed: Option<u64>,
    /// Shared memory that is no file.
    pub shared: Option<u64>,
    /// In mappings that somebody gave a name (`[anon:…]`), and that are none of the above.
    pub named: Option<u64>,
    /// The largest mappings that nobody is known to own, and what of each is in memory.
    pub largest_unexplained: Vec<(Range<usize>, u64)>,
    /// What is not in memory but in swap.
    pub swapped: Option<u64>,
    /// Of that, the heap's.
    pub heap_swapped: Option<u64>,
    /// Of what is resident, in huge pages that the kernel made by itself.
    pub huge_pages: Option<u64>,
    /// In huge pages that somebody set aside (`MAP_HUGETLB`). The kernel does not count them as resident.
    pub huge_tlb: Option<u64>,
    /// How many mappings there are; `vm.max_map_count` limits them.
    pub mappings: Option<usize>,
    /// What the C library's malloc holds, by its own account (`mallinfo2`).
    pub malloc_held: Option<u64>,
    /// Of that, what is allocated.
    pub malloc_live: Option<u64>,
    /// What the control group is charged with, page cache and other processes included.
    pub cgroup_bytes: Option<u64>,
    /// What it may have.
    pub cgroup_limit: Option<u64>,
    /// What could not be read, and why: one sentence each.
    pub unread: Vec<String>,
}

impl Process {
    /// Asks the kernel. The owners of mappings are found in one pass over them, so this costs what the kernel's walk over the page tables of the
    /// process does; see [`ledger`](crate::ledger()).
    #[must_use]
    pub fn read() -> Self {
        Self::read_from(Path::new("/"))
    }

    /// `root` is where `/proc` and `/sys` are: a test may say elsewhere.
    fn read_from(root: &Path) -> Self {
        let malloc = host::malloc();
        let group = cgroup::read(root);
        let mut process = Self {
            malloc_held: malloc.map(|malloc| (malloc.arena_bytes + malloc.block_mapping_bytes) as u64),
            malloc_live: malloc.map(|malloc| malloc.live_bytes as u64),
            cgroup_bytes: group.bytes,
            cgroup_limit: group.limit,
            ..Self::default()
        };
        let malloc = malloc.unwrap_or_default();
        let known = Known {
            heap: owners::in_order(host::heap_ranges()),
            static_data: owners::in_order(host::segments()),
            stacks: host::stack_marks(),
            stack_bytes: host::stack_bytes(),
            arena_bytes: malloc.arena_bytes,
            block_mapping_bytes: malloc.block_mapping_bytes,
        };
        process.read_mappings(root, &known);
        process
    }

    fn read_mappings(&mut self, root: &Path, known: &Known) {
        let memory = host::OwnMemory::open();
        let mut owners = match survey(root, known, &memory) {
            Ok(owners) => owners,
            Err(refusal) => {
                self.unread.push(refusal);
                self.resident = rollup(root).or_else(|| freestone::resident().map(|[total, _]| total as u64));
                return;
            }
        };
        owners.finish();
        if let Some(refusal) = memory.refusal().filter(|_| owners.looked_for_more()) {
            self.unread.push(format!("cannot read /proc/self/mem to find mappings of malloc: {refusal}"));
        }
        let (total, shares) = (owners.total, owners.shares);
        self.resident = Some(total.resident);
        self.heap = Some(shares.heap);
        self.other_allocators = Some(shares.other_allocators);
        self.thread_stacks = Some(shares.stacks);
        self.file_backed = Some(shares.files);
        self.shared = Some(shares.shared);
        self.named = Some(shares.named);
        self.swapped = Some(total.swapped);
        self.heap_swapped = Some(total.heap_swapped);
        self.huge_pages = Some(total.huge);
        self.huge_tlb = Some(total.huge_tlb);
        self.mappings = Some(total.mappings);
        self.largest_unexplained =
            owners.rest.into_iter().take(UNEXPLAINED_KEPT).map(|piece| (piece.range, piece.resident)).collect();
    }

    /// What is resident without being any of the others. `None`: nobody says what is resident.
    #[must_use]
    pub fn unexplained(&self) -> Option<i64> {
        let explained: u64 = self.owners().into_iter().filter_map(|(_, _, bytes, _)| bytes).fold(0, u64::saturating_add);
        Some(self.resident?.cast_signed() - explained.cast_signed())
    }

    fn owners(&self) -> [(&'static str, &'static str, Option<u64>, &'static str); 6] {
        [
            ("heap", "heap", self.heap, "in the heap's own address ranges"),
            ("other_allocators", "other allocators", self.other_allocators, "the C library's heap"),
            ("thread_stacks", "stacks", self.thread_stacks, "of all threads, and kept for the next"),
            ("file_backed", "files", self.file_backed, "code, static data, files that are mapped"),
            ("shared", "shared memory", self.shared, "that is no file"),
            ("named", "named mappings", self.named, "somebody else's who says so"),
        ]
    }

    /// The lines of [`Part::Resident`]: they sum to what is resident. None of them where that is not known.
    pub(crate) fn lines(&self) -> Vec<Line> {
        let Some(unexplained) = self.unexplained() else { return Vec::new() };
        let line = |key, name, bytes, meaning| Line { part: Part::Resident, key, name, bytes, error_bytes: None, meaning };
        let mut lines: Vec<Line> = self
            .owners()
            .into_iter()
            .filter_map(|(key, name, bytes, meaning)| Some(line(key, name, bytes?.cast_signed(), meaning)))
            .collect();
        lines.push(line("unexplained", "unexplained", unexplained, "nobody is known to own it"));
        lines
    }
}

/// What is resident in all, by the kernel's own sum. `None`: it cannot be read (there is none before Linux 4.14).
fn rollup(root: &Path) -> Option<u64> {
    let mut file = File::open(root.join("proc/self/smaps_rollup")).ok()?;
    smaps::total(&mut file).ok()?.map(|total| total.resident)
}

/// All mappings, and whose they are as far as that is seen at once.
fn survey<'a>(root: &Path, known: &'a Known, memory: &'a dyn Memory) -> Result<Owners<'a>, String> {
    let path = root.join("proc/self/smaps");
    let mut owners = Owners::new(known, memory);
    let read = File::open(&path).and_then(|mut file| smaps::each_mapping(&mut file, &mut |mapping| owners.add(&mapping)));
    match read {
        Ok(()) if owners.total.mappings > 0 => Ok(owners),
        Ok(()) => Err(format!("{} says nothing, so owners are unknown", path.display())),
        Err(refusal) => Err(format!("cannot read {}, so owners are unknown: {refusal}", path.display())),
    }
}

#[cfg(test)]
mod tests;
