//! Floor 3. Records for ourselves: magazines, thread records, tables. Cut from chunks that the system maps, one after the other.
//!
//! What is made here is never given back, so a record stays a record for as long as the process lives. That is what makes the
//! lock-free rooms simple: whoever holds a stale address of a record reads an old record, never something else. The rooms keep
//! spare ones and use them again.
//!
//! User memory never holds anything of ours, and this room's chunks never hold anything of the user's.

use core::ops::Range;
use core::ptr::NonNull;

use crate::atomic::{AtomicUsize, Ordering};
use crate::config::META_CHUNK_BYTES;
use crate::os;
use crate::sync::{Lock, Rank};

/// The store of records.
pub(crate) struct Meta {
    cut: Lock<Cut>,
    mapped_bytes: AtomicUsize,
    used_bytes: AtomicUsize,
}

/// Where the next record comes from: `next..end` of the newest chunk.
struct Cut {
    next: usize,
    end: usize,
    /// The chunk made last; 0: none.
    newest: usize,
    /// Cells that came back, linked through their first word. Per size: one line, two lines.
    spare_cells: [usize; CELL_LINES_MAX],
}

/// What every chunk begins with, so that readers find them all.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct ChunkLink {
    /// The chunk made before; 0: none.
    older: usize,
    /// Where this one ends.
    end: usize,
}

/// A [cell](Meta::cell) is so many bytes or a small multiple of it.
const CELL_LINE_BYTES: usize = 64;
/// Cache lines of a cell at most: a bit for each 8 bytes of a page.
const CELL_LINES_MAX: usize = 2;

impl Meta {
    pub(crate) const fn new() -> Self {
        Self {
            cut: Lock::new(Rank::Meta, Cut { next: 0, end: 0, newest: 0, spare_cells: [0; CELL_LINES_MAX] }),
            mapped_bytes: AtomicUsize::new(0),
            used_bytes: AtomicUsize::new(0),
        }
    }

    /// `bytes` of zeros that are ours for good, aligned to `align` (a power of two, at most a kernel page).
    pub(crate) fn take(&self, bytes: usize, align: usize) -> Option<NonNull<u8>> {
        let mut cut = self.cut.lock();
        let mut at = cut.next.next_multiple_of(align);
        if cut.next == 0 || at + bytes > cut.end {
            // The lock is held across this call. It happens once per 128 KiB of records, and whoever needs a record has to wait
            // for it anyway. What was left of the old chunk is lost; it was never touched.
            let chunk_bytes = (bytes + align.max(size_of::<ChunkLink>())).next_multiple_of(META_CHUNK_BYTES);
            let chunk = os::map_anywhere(chunk_bytes)?;
            // Relaxed, here and below: read for statistics only.
            self.mapped_bytes.fetch_add(chunk_bytes, Ordering::Relaxed);
            self.used_bytes.fetch_add(size_of::<ChunkLink>(), Ordering::Relaxed);
            let link = ChunkLink { older: cut.newest, end: chunk.addr().get() + chunk_bytes };
            // SAFETY: just mapped, page-aligned, and longer than this.
            unsafe { chunk.cast::<ChunkLink>().write(link) };
            cut.newest = chunk.addr().get();
            cut.end = link.end;
            at = (cut.newest + size_of::<ChunkLink>()).next_multiple_of(align);
        }
        cut.next = at + bytes;
        self.used_bytes.fetch_add(bytes, Ordering::Relaxed);
        Some(os::block(at))
    }

    /// A small piece of zeros that may come back: `bits` of them.
    pub(crate) fn cell(&self, bits: u32) -> Option<NonNull<u8>> {
        let lines = cell_lines(bits);
        let mut cut = self.cut.lock();
        let spare = &mut cut.spare_cells[lines - 1];
        if *spare == 0 {
            drop(cut);
            return self.take(lines * CELL_LINE_BYTES, CELL_LINE_BYTES);
        }
        let cell = os::block(*spare);
        // SAFETY: a spare cell is ours alone, and `spare_cell` wrote the link into its first word.
        *spare = unsafe { cell.cast::<usize>().read() };
        // SAFETY: as above; the cell has so many lines.
        unsafe { cell.write_bytes(0, lines * CELL_LINE_BYTES) };
        Some(cell)
    }

    /// Takes a cell back.
    ///
    /// # Safety
    ///
    /// - `cell` came from [`cell`](Self::cell) for so many bits and nobody uses it any more.
    pub(crate) unsafe fn spare_cell(&self, cell: NonNull<u8>, bits: u32) {
        let mut cut = self.cut.lock();
        let spare = &mut cut.spare_cells[cell_lines(bits) - 1];
        // SAFETY: the caller gives the cell up, and it has room for a word.
        unsafe { cell.cast::<usize>().write(*spare) };
        *spare = cell.addr().get();
    }

    /// The chunks, newest first.
    pub(crate) fn each_chunk(&self, each: &mut dyn FnMut(Range<usize>)) {
        let mut chunk = self.cut.lock().newest;
        while chunk != 0 {
            // SAFETY: `take` wrote it when it made the chunk, chunks are there for good, and nobody writes there again.
            let link = unsafe { os::block(chunk).cast::<ChunkLink>().read() };
            each(chunk..link.end);
            chunk = link.older;
        }
    }

    pub(crate) fn mapped_bytes(&self) -> usize {
        // Relaxed, here and below: as in `take`.
        self.mapped_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn used_bytes(&self) -> usize {
        self.used_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn before_fork(&self) {
        self.cut.before_fork();
    }

    pub(crate) fn after_fork(&self) {
        self.cut.after_fork();
    }
}

fn cell_lines(bits: u32) -> usize {
    let lines = (bits as usize).div_ceil(CELL_LINE_BYTES * 8);
    debug_assert!((1..=CELL_LINES_MAX).contains(&lines));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::sim::{Plan, World};

    #[test]
    fn records_are_zero_aligned_and_apart() {
        let meta = Meta::new();
        let mut taken: Vec<(usize, usize)> = Vec::new();
        for step in 0..2_000_usize {
            let bytes = 16 + step * 7 % 3_000;
            let align = 1 << (step % 7);
            let record = meta.take(bytes, align).expect("memory is there");
            let start = record.addr().get();
            assert_eq!(start % align, 0);
            // SAFETY: `take` made these bytes ours.
            let content = unsafe { core::slice::from_raw_parts_mut(record.as_ptr(), bytes) };
            assert!(content.iter().all(|&byte| byte == 0));
            content.fill(0xa5);
            taken.push((start, start + bytes));
        }
        taken.sort_unstable();
        assert!(taken.windows(2).all(|pair| pair[0].1 <= pair[1].0));
        assert!(meta.used_bytes() <= meta.mapped_bytes());
    }

    #[test]
    fn a_spare_cell_is_used_again_and_is_zero() {
        let meta = Meta::new();
        for bits in [512, 1024] {
            let cell = meta.cell(bits).expect("memory is there");
            // SAFETY: the cell is ours.
            unsafe { cell.write_bytes(0xff, bits as usize / 8) };
            // SAFETY: it came from `cell` and is not used below.
            unsafe { meta.spare_cell(cell, bits) };
            assert_ne!(meta.cell(1536 - bits), Some(cell), "the other size has its own");
            let again = meta.cell(bits).expect("one is spare");
            assert_eq!(again, cell);
            // SAFETY: the cell is ours.
            let content = unsafe { core::slice::from_raw_parts(again.as_ptr(), bits as usize / 8) };
            assert!(content.iter().all(|&byte| byte == 0));
        }
    }

    #[test]
    fn no_memory_is_an_answer_and_heals() {
        let world = World::new();
        let _here = world.enter();
        world.plan(Plan::From(0));
        let meta = Meta::new();
        assert_eq!(meta.take(64, 8), None);
        assert_eq!(meta.cell(1), None);
        world.plan(Plan::Nothing);
        assert!(meta.take(64, 8).is_some());
    }
}
