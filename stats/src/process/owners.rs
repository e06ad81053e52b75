//! Whose memory a mapping is. The kernel counts per mapping, and says nothing of who asked for it; who did, is put together here from what is
//! known otherwise: the heap's own ranges, the segments of loaded programs, addresses that lie in stacks, and what the C library writes in
//! front of what it maps.
//!
//! In the order in which they are asked, for a private mapping without a name:
//!
//! 1. **The heap's ranges**, which the heap knows exactly.
//! 2. **Static data**: the segments that the loader made.
//! 3. **Arenas of glibc**: they begin at multiples of 64 MiB with a header that says how long they are.
//! 4. **Stacks**: some thread's thread-local word or stack pointer lies within.
//! 5. **What glibc mapped for one large block each**: the block's header is recognised, and all together are no more than `mallinfo2` says.
//! 6. **Stacks of threads that have ended**, which glibc keeps for the next: a guard below, and either made as a stack, which recent kernels
//!    show, or of the length of another one.
//!
//! What remains is nobody's, and said to be. Where two owners share a mapping (the kernel joins neighbours), the pages of each are counted one
//! by one (`mincore`). Nothing here is lost or counted twice: all owners together have what the kernel counted.

use std::ops::Range;

use super::smaps::{Access, Label, Mapping, Pages};

/// The smallest page, and the unit of every boundary.
const PAGE_BYTES: usize = 4096;
/// glibc's arenas begin at multiples of this, and are no longer.
const ARENA_BYTES_MAX: usize = 64 << 20;
/// What may lie above the thread-local word of a thread and still be of its stack: other thread-local data and the C library's record of it.
const ABOVE_WORD_BYTES: usize = 64 << 10;
/// Larger ones are no guards.
const GUARD_BYTES_MAX: usize = 64 << 10;
/// Threads of the standard library have this much stack, if nobody says otherwise.
const RUST_STACK_BYTES: usize = 2 << 20;
/// How many pages are looked at for the header of a large block of glibc: in all, and in one mapping without finding any.
const PROBES_MAX: usize = 8192;
const PROBES_IN_VAIN_MAX: usize = 1024;

/// The process's own memory, as far as it has to be looked at.
pub(super) trait Memory {
    /// Bytes of the range that are in memory; it begins and ends between pages. `None`: nobody can say.
    fn resident(&self, range: &Range<usize>) -> Option<u64>;
    /// Copies what is at `address`. `None`: it cannot be read, or not all of it.
    fn read(&self, address: usize, into: &mut [u8]) -> Option<()>;
}

/// What is known before the kernel is asked.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// In these ranges all memory is the heap's. In order, and apart from each other; see [`in_order`].
    pub(super) heap: Vec<Range<usize>>,
    /// Segments of loaded programs. Likewise.
    pub(super) static_data: Vec<Range<usize>>,
    /// Addresses in stacks, in order.
    pub(super) stacks: Vec<StackMark>,
    /// How long stacks are, if nobody says otherwise.
    pub(super) stack_bytes: usize,
    /// What glibc has in arenas, and in mappings for one block each.
    pub(super) arena_bytes: usize,
    pub(super) block_mapping_bytes: usize,
}

/// An address in the stack of some thread.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct StackMark {
    pub(super) address: usize,
    pub(super) place: Place,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Place {
    /// A thread-local word: close to the upper end.
    NearTop,
    /// A stack pointer.
    Anywhere,
}

/// Bytes in memory, by owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Shares {
    pub(super) heap: u64,
    pub(super) other_allocators: u64,
    pub(super) stacks: u64,
    pub(super) files: u64,
    pub(super) shared: u64,
    pub(super) named: u64,
}

/// A stretch of a mapping, and what of it is in memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Piece {
    pub(super) range: Range<usize>,
    pub(super) resident: u64,
    pages: Pages,
    /// How long the guard right below it is. Zero: there is none.
    guard_bytes: usize,
}

/// Takes the mappings of a process one by one, then says whose they are.
pub(super) struct Owners<'a> {
    known: &'a Known,
    memory: &'a dyn Memory,
    /// The sum over all mappings, and of some of their kinds.
    pub(super) total: Totals,
    pub(super) shares: Shares,
    /// What has no owner so far.
    pub(super) rest: Vec<Piece>,
    stack_lengths: Vec<usize>,
    arena_bytes_found: usize,
    /// The guard that ended where the next mapping may begin.
    guard: Range<usize>,
}

/// Sums over all mappings.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Totals {
    pub(super) mappings: usize,
    pub(super) resident: u64,
    pub(super) huge: u64,
    pub(super) huge_tlb: u64,
    pub(super) swapped: u64,
    /// Of that, in the heap's ranges.
    pub(super) heap_swapped: u64,
}

impl<'a> Owners<'a> {
    pub(super) fn new(known: &'a Known, memory: &'a dyn Memory) -> Self {
        Self {
            known,
            memory,
            total: Totals::default(),
            shares: Shares::default(),
            rest: Vec::new(),
            stack_lengths: vec![RUST_STACK_BYTES, known.stack_bytes],
            arena_bytes_found: 0,
            guard: 0..0,
        }
    }

    /// The next mapping, by address.
    pub(super) fn add(&mut self, mapping: &Mapping) {
        let range = &mapping.range;
        self.total.mappings += 1;
        for (sum, of_mapping) in [
            (&mut self.total.resident, mapping.resident),
            (&mut self.total.huge, mapping.huge),
            (&mut self.total.huge_tlb, mapping.huge_tlb),
            (&mut self.total.swapped, mapping.swapped),
        ] {
            *sum = sum.saturating_add(of_mapping);
        }
        let guard_bytes = if self.guard.end == range.start { self.guard.len() } else { 0 };
        if mapping.access == Access::None && mapping.label == Label::Anonymous {
            self.guard = range.clone();
        }
        if mapping.swapped > 0 && overlapping(&self.known.heap, range).next().is_some() {
            self.total.heap_swapped = self.total.heap_swapped.saturating_add(mapping.swapped);
        }
        if mapping.resident == 0 {
            return;
        }
        let share = match mapping.label {
            Label::OtherAllocator => &mut self.shares.other_allocators,
            Label::Stack => &mut self.shares.stacks,
            Label::File => &mut self.shares.files,
            Label::Shared => &mut self.shares.shared,
            Label::Anonymous | Label::Named => {
                return self.add_anonymous(
                    &Piece { range: range.clone(), resident: mapping.resident, pages: mapping.pages, guard_bytes },
                    mapping.label,
                );
            }
        };
        *share = share.saturating_add(mapping.resident);
    }

    fn add_anonymous(&mut self, piece: &Piece, label: Label) {
        let (heap, outside) = cut(piece, &self.known.heap, self.memory);
        self.shares.heap = self.shares.heap.saturating_add(heap);
        for piece in outside {
            if label == Label::Named {
                self.shares.named = self.shares.named.saturating_add(piece.resident);
                continue;
            }
            let (of_segments, outside) = cut(&piece, &self.known.static_data, self.memory);
            self.shares.files = self.shares.files.saturating_add(of_segments);
            for piece in outside {
                let arenas = self.arenas(&piece);
                let (of_arenas, outside) = cut(&piece, &arenas, self.memory);
                self.shares.other_allocators = self.shares.other_allocators.saturating_add(of_arenas);
                for piece in outside {
                    self.add_stack_or_rest(piece);
                }
            }
        }
    }

    /// Arenas of glibc that begin within the piece: `struct heap_info` stands at their beginning.
    fn arenas(&mut self, piece: &Piece) -> Vec<Range<usize>> {
        let mut found = Vec::new();
        let mut start = piece.range.start.next_multiple_of(ARENA_BYTES_MAX);
        while start < piece.range.end && self.arena_bytes_found < self.known.arena_bytes {
            if let Some(bytes) = self.arena_at(start) {
                self.arena_bytes_found += bytes;
                found.push(start..start + bytes);
            }
            start += ARENA_BYTES_MAX;
        }
        found
    }

    fn arena_at(&self, start: usize) -> Option<usize> {
        let mut header = [0; 32];
        self.memory.read(start, &mut header)?;
        let [state, previous, size, committed] = [0, 8, 16, 24].map(|at| word(&header, at));
        let first = previous == 0 && (start + 32..start + 128).contains(&state);
        let later = previous != 0 && previous.is_multiple_of(ARENA_BYTES_MAX) && state > previous && state - previous < 128;
        let sizes_fit = (1..=committed).contains(&size) && committed <= ARENA_BYTES_MAX && committed.is_multiple_of(PAGE_BYTES);
        ((first || later) && sizes_fit).then_some(committed)
    }

    fn add_stack_or_rest(&mut self, piece: Piece) {
        let from = self.known.stacks.partition_point(|mark| mark.address < piece.range.start);
        let marks = || self.known.stacks[from..].iter().take_while(|mark| mark.address < piece.range.end);
        let Some(last) = marks().last() else {
            self.rest.push(piece);
            return;
        };
        // What the kernel joined with the stack is above it: below is the guard.
        let exact = piece.pages == Pages::Small || marks().any(|mark| mark.place == Place::Anywhere);
        let top = last.address.saturating_add(ABOVE_WORD_BYTES).next_multiple_of(PAGE_BYTES);
        let stack = piece.range.start..if exact { piece.range.end } else { piece.range.end.min(top) };
        if exact && piece.guard_bytes > 0 && !self.stack_lengths.contains(&stack.len()) {
            self.stack_lengths.push(stack.len());
        }
        let (of_stack, outside) = cut(&piece, &[stack], self.memory);
        self.shares.stacks = self.shares.stacks.saturating_add(of_stack);
        self.rest.extend(outside);
    }

    /// To be called after the last mapping: what has no owner is looked at more closely.
    pub(super) fn finish(&mut self) {
        let mut block_bytes_left = self.known.block_mapping_bytes;
        let mut probes_left = PROBES_MAX;
        for piece in std::mem::take(&mut self.rest) {
            let blocks = self.mapped_blocks(&piece, &mut block_bytes_left, &mut probes_left);
            let (of_blocks, outside) = cut(&piece, &blocks, self.memory);
            self.shares.other_allocators = self.shares.other_allocators.saturating_add(of_blocks);
            for piece in outside {
                let guarded = (1..=GUARD_BYTES_MAX).contains(&piece.guard_bytes);
                if guarded && (piece.pages == Pages::Small || self.stack_lengths.contains(&piece.range.len())) {
                    self.shares.stacks = self.shares.stacks.saturating_add(piece.resident);
                } else {
                    self.rest.push(piece);
                }
            }
        }
        self.rest.sort_by_key(|piece| std::cmp::Reverse(piece.resident));
    }

    /// There is something that [`finish`](Self::finish) would have liked to look at.
    pub(super) fn looked_for_more(&self) -> bool {
        !self.rest.is_empty() && (self.known.arena_bytes > 0 || self.known.block_mapping_bytes > 0)
    }

    /// Mappings of glibc for one block each, side by side within the piece.
    fn mapped_blocks(&self, piece: &Piece, bytes_left: &mut usize, probes_left: &mut usize) -> Vec<Range<usize>> {
        let mut found: Vec<Range<usize>> = Vec::new();
        let mut in_vain = 0;
        let mut at = piece.range.start;
        let mut lowest = at;
        while at < piece.range.end && *bytes_left > 0 && *probes_left > 0 && in_vain < PROBES_IN_VAIN_MAX {
            let page = at..at + PAGE_BYTES;
            at = page.end;
            // Reading a page that is not there would bring it in.
            if self.memory.resident(&page).is_some_and(|bytes| bytes == 0) {
                continue;
            }
            *probes_left -= 1;
            in_vain += 1;
            let Some(block) = self.block_at(page.start, lowest..piece.range.end).filter(|block| block.len() <= *bytes_left)
            else {
                continue;
            };
            *bytes_left -= block.len();
            in_vain = 0;
            at = block.end;
            lowest = block.end;
            found.push(block);
        }
        found
    }

    /// The mapping of a block whose header is in the page: how far into the mapping it stands (not at its beginning if the block is
    /// aligned), and how long the rest is, with a bit that says "mapped".
    fn block_at(&self, page: usize, within: Range<usize>) -> Option<Range<usize>> {
        const MAPPED: usize = 2;
        const FLAGS: usize = 7;
        let mut bytes = [0; PAGE_BYTES];
        self.memory.read(page, &mut bytes)?;
        // Blocks begin 16 bytes behind their header, and aligned ones at a power of two.
        let places = std::iter::once(0).chain((5..=12).map(|power| (1 << power) - 16));
        places.into_iter().find_map(|place| {
            let (before, size) = (word(&bytes, place), word(&bytes, place + 8));
            let start = (page + place).checked_sub(before)?;
            let end = (page + place).checked_add(size & !FLAGS)?;
            let aligned = start.is_multiple_of(PAGE_BYTES) && end.is_multiple_of(PAGE_BYTES);
            let fits = within.start <= start && end <= within.end && end > page;
            (size & FLAGS == MAPPED && aligned && fits).then_some(start..end)
        })
    }
}

fn word(bytes: &[u8], at: usize) -> usize {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_ne_bytes(word) as usize
}

/// Sorts ranges and joins those that touch or overlap.
pub(super) fn in_order(mut ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    ranges.retain(|range| !range.is_empty());
    ranges.sort_by_key(|range| range.start);
    ranges.dedup_by(|next, before| {
        let joined = next.start <= before.end;
        if joined {
            before.end = before.end.max(next.end);
        }
        joined
    });
    ranges
}

/// Those of `known` that have something in common with `range`, and what.
fn overlapping<'a>(known: &'a [Range<usize>], range: &'a Range<usize>) -> impl Iterator<Item = Range<usize>> + 'a {
    let from = known.partition_point(|known| known.end <= range.start);
    known[from..]
        .iter()
        .take_while(|known| known.start < range.end)
        .map(|known| known.start.max(range.start)..known.end.min(range.end))
}

/// Cuts a piece along `known`: what is in memory inside, and the pieces outside.
///
/// A piece that is all inside, or all outside, keeps the kernel's count. Where it is cut, pages are counted one by one; where nobody can count
/// them, each part has as much as its length says. What was counted too often or not at all goes to the last part, so that nothing is lost.
fn cut(piece: &Piece, known: &[Range<usize>], memory: &dyn Memory) -> (u64, Vec<Piece>) {
    let mut inside = overlapping(known, &piece.range).peekable();
    match inside.peek() {
        None => return (0, vec![piece.clone()]),
        Some(all) if *all == piece.range => return (piece.resident, Vec::new()),
        Some(_) => {}
    }
    let mut left = piece.resident;
    let mut share = |range: &Range<usize>| {
        let counted = if range.end == piece.range.end {
            left
        } else {
            memory.resident(range).unwrap_or_else(|| {
                let part = u128::from(piece.resident) * range.len() as u128 / piece.range.len() as u128;
                u64::try_from(part).unwrap_or(u64::MAX)
            })
        };
        let bytes = counted.min(left);
        left -= bytes;
        bytes
    };
    let mut inside_bytes = 0;
    let mut outside = Vec::new();
    let mut at = piece.range.start;
    let mut end_of_guard = piece.guard_bytes;
    let mut leave = |range: Range<usize>, resident, guard_bytes| {
        outside.push(Piece { range, resident, pages: piece.pages, guard_bytes });
    };
    for part in inside {
        if at < part.start {
            let between = at..part.start;
            let bytes = share(&between);
            leave(between, bytes, std::mem::take(&mut end_of_guard));
        }
        end_of_guard = 0;
        inside_bytes += share(&part);
        at = part.end;
    }
    if at < piece.range.end {
        let last = at..piece.range.end;
        let bytes = share(&last);
        leave(last, bytes, end_of_guard);
    }
    (inside_bytes, outside)
}

#[cfg(test)]
#[path = "owners_tests.rs"]
mod tests;
