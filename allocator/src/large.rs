//! Floor 5. Blocks beyond the classes: page runs up to a step, huge slots above.
//!
//! A block that grows past the classes goes to a huge slot even when a run would do: a slot has room, so a `Vec` that doubles is copied
//! up to 256 KiB once and never again. Which of the two a block is, its address tells.
//!
//! Every free looks its block up and swaps the holder, so wrong and double frees are found at the call.

use core::ptr::NonNull;

use crate::counters::{Tallied, Tally};
use crate::fatal::Misuse;
use crate::meta::Meta;
use crate::os;
use crate::page_heap::{ALIGN_MAX, HugeBlock, NotLive, PageHeap, RUN_BYTES_MAX, Zone};
use crate::span::record::{Holder, Kind, PageRecord};
use crate::units::{PAGE_BYTES, PageIndex};

/// Large and huge blocks: the counts of threads that have no record of their own.
#[derive(Debug)]
pub(crate) struct Large {
    pub(crate) shared: Tally,
}

/// A block, and how much of it may not be zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LargeBlock {
    pub(crate) address: NonNull<u8>,
    pub(crate) dirty: usize,
}

/// A block that begins, and how many bytes it counts with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TakenLarge {
    pub(crate) block: LargeBlock,
    pub(crate) bytes: usize,
}

/// Shall the block be ready to grow?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Growing {
    No,
    Yes,
}

impl Large {
    pub(crate) const fn new() -> Self {
        Self { shared: Tally::new() }
    }

    fn count_allocation(&self, own: Option<&Tally>, bytes: usize) {
        match own {
            Some(own) => own.allocated_alone(bytes),
            None => self.shared.allocated(Tallied { blocks: 1, bytes: bytes as u64 }),
        }
    }

    fn count_free(&self, own: Option<&Tally>, bytes: usize) {
        match own {
            Some(own) => own.freed_alone(bytes),
            None => self.shared.freed(Tallied { blocks: 1, bytes: bytes as u64 }),
        }
    }

    /// A block of at least `size` bytes. `own` is where the calling thread counts, if it has a record. `None`: no memory, or more than anybody could have.
    pub(crate) fn allocate(
        &self,
        size: usize,
        align: usize,
        growing: Growing,
        own: Option<&Tally>,
        page_heap: &PageHeap,
        meta: &Meta,
    ) -> Option<TakenLarge> {
        if align > ALIGN_MAX || size > isize::MAX as usize {
            return None;
        }
        let fits_a_run = size <= RUN_BYTES_MAX && align <= RUN_BYTES_MAX;
        if growing == Growing::Yes || !fits_a_run {
            match page_heap.take_huge(size.max(1), align, meta) {
                Some(HugeBlock { address, dirty, size }) => {
                    self.count_allocation(own, size);
                    return Some(TakenLarge { block: LargeBlock { address, dirty }, bytes: size });
                }
                None if !fits_a_run => return None,
                // Where address space is scarce, pages that are mapped already may still do.
                None => {}
            }
        }
        let pages = size.div_ceil(PAGE_BYTES).max(1) as u32;
        let run = page_heap.take_run(pages, align.div_ceil(PAGE_BYTES) as u32, Zone::Window)?;
        // SAFETY: the page heap handed this run out, so its pages exist.
        let record = unsafe { page_heap.table.record(run.page) };
        record.begin_whole(Kind::Run, None, pages, run.zeroed, Holder::Program);
        let bytes = pages as usize * PAGE_BYTES;
        self.count_allocation(own, bytes);
        let address = os::block(page_heap.table.address(run.page));
        Some(TakenLarge { block: LargeBlock { address, dirty: if run.zeroed { 0 } else { bytes } }, bytes })
    }

    /// Takes a block back.
    pub(crate) fn free(&self, address: usize, own: Option<&Tally>, page_heap: &PageHeap) -> Result<(), Misuse> {
        let bytes = match run_at(address, page_heap)? {
            Some((page, record)) => {
                if record.hand_to(Holder::Us) == Holder::Us {
                    return Err(Misuse::DoubleFree);
                }
                record.end();
                let pages = record.pages();
                page_heap.give_run(page, pages);
                pages as usize * PAGE_BYTES
            }
            None => page_heap.give_huge(address).map_err(|kind| misuse_of(kind, address, page_heap))?,
        };
        self.count_free(own, bytes);
        Ok(())
    }

    /// Changes the size of a block without copying it: where it is, or (huge ones) by moving its pages. `Ok(None)`: copying is the way.
    /// In the result `dirty` says how many bytes are not known to be zero.
    pub(crate) fn resize(
        &self,
        address: usize,
        size: usize,
        align: usize,
        own: Option<&Tally>,
        page_heap: &PageHeap,
        meta: &Meta,
    ) -> Result<Option<TakenLarge>, Misuse> {
        let Some((page, record)) = run_at(address, page_heap)? else {
            return self.resize_huge(address, size, align, own, page_heap, meta);
        };
        let (old, new) = (record.pages(), size.div_ceil(PAGE_BYTES));
        if new > RUN_BYTES_MAX / PAGE_BYTES {
            return Ok(None);
        }
        let new = new as u32;
        if new < old {
            record.set_pages(new);
            page_heap.shorten_run(page, old, old - new);
        } else if new > old {
            if page_heap.extend_run(page, old, new - old).is_none() {
                return Ok(None);
            }
            record.set_pages(new);
        }
        // The new one first: in between, the block is counted twice rather than not at all.
        self.count_allocation(own, new as usize * PAGE_BYTES);
        self.count_free(own, old as usize * PAGE_BYTES);
        let bytes = new as usize * PAGE_BYTES;
        Ok(Some(TakenLarge { block: LargeBlock { address: os::block(address), dirty: bytes }, bytes }))
    }

    fn resize_huge(
        &self,
        address: usize,
        size: usize,
        align: usize,
        own: Option<&Tally>,
        page_heap: &PageHeap,
        meta: &Meta,
    ) -> Result<Option<TakenLarge>, Misuse> {
        let name = |kind| misuse_of(kind, address, page_heap);
        let resized = match page_heap.resize_huge(address, size).map_err(name)? {
            Some(resized) => Some(resized),
            None => page_heap.move_huge(address, size, align, meta).map_err(name)?,
        };
        Ok(resized.map(|(old_size, block)| {
            self.count_allocation(own, block.size);
            self.count_free(own, old_size);
            TakenLarge { block: LargeBlock { address: block.address, dirty: block.dirty }, bytes: block.size }
        }))
    }
}

/// Bytes of a live block.
#[cfg(freestone_c)]
pub(crate) fn bytes(address: usize, page_heap: &PageHeap) -> Result<usize, Misuse> {
    match run_at(address, page_heap)? {
        Some((_, record)) => Ok(record.pages() as usize * PAGE_BYTES),
        None => page_heap.huge_bytes(address).map_err(|kind| misuse_of(kind, address, page_heap)),
    }
}

fn misuse_of(not_live: NotLive, address: usize, page_heap: &PageHeap) -> Misuse {
    match not_live {
        NotLive::Unknown => page_heap.table.stranger(address),
        NotLive::Inside => Misuse::Interior,
        NotLive::Free => Misuse::DoubleFree,
    }
}

/// The page run that starts at an address; `None`: the address lies outside the steps, so it may be a huge slot.
fn run_at(address: usize, page_heap: &PageHeap) -> Result<Option<(PageIndex, &PageRecord)>, Misuse> {
    let Some(page) = page_heap.table.locate(address) else { return Ok(None) };
    // SAFETY: `locate` found it.
    let record = unsafe { page_heap.table.record(page) };
    if record.kind() == Kind::Run && address.is_multiple_of(PAGE_BYTES) {
        return Ok(Some((page, record)));
    }
    Err(match record.kind() {
        Kind::Run if address.is_multiple_of(8) => Misuse::Interior,
        Kind::Run => Misuse::Misaligned,
        Kind::Free => Misuse::NeverAllocated,
        _ => Misuse::SizeMismatch,
    })
}
