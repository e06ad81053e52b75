//! Floor 5. Blocks chosen for a closer look live in a zone of their own, told apart by one bit of their address.
//!
//! Which allocation is chosen is decided by a count that the thread cache arms (see `thread_cache`); that a chosen block ends its life is
//! seen by the zone bit, at once, because such a block never enters a magazine. This room gives chosen blocks their memory: whole
//! pages each, so that a record or a guard page can stand beside one.

use core::ptr::NonNull;

use crate::atomic::{AtomicU64, Ordering};
use crate::counters::Event;
use crate::fatal::Misuse;
use crate::os;
use crate::page_heap::{PageHeap, Zone};
use crate::size_class::SizeClass;
use crate::span::record::{Holder, Kind};
use crate::units::PAGE_BYTES;

/// Counts of sampled blocks, which no thread's slots count.
pub(crate) struct Sampling {
    allocations: [AtomicU64; SizeClass::COUNT],
    frees: [AtomicU64; SizeClass::COUNT],
}

impl Sampling {
    pub(crate) const fn new() -> Self {
        Self {
            allocations: [const { AtomicU64::new(0) }; SizeClass::COUNT],
            frees: [const { AtomicU64::new(0) }; SizeClass::COUNT],
        }
    }

    /// A block in the sampled zone. `None`: no memory there.
    pub(crate) fn allocate(&self, class: SizeClass, page_heap: &PageHeap) -> Option<NonNull<u8>> {
        let pages = class.bytes().div_ceil(PAGE_BYTES) as u32;
        let run = page_heap.take_run(pages, 1, Zone::Sampled)?;
        // SAFETY: the page heap handed this run out, so its pages exist.
        let record = unsafe { page_heap.table.record(run.page) };
        record.begin_whole(Kind::Sampled, Some(class), pages, run.zeroed, Holder::Program);
        // Release: a reader that sees the free of this block, and so sums it, also sees its allocation. Pairs with the Acquire in
        // `frees`.
        self.allocations[class.index()].fetch_add(1, Ordering::Release);
        page_heap.counters.count(Event::Sampled);
        Some(os::block(page_heap.table.address(run.page)))
    }

    /// The end of a block in the sampled zone.
    pub(crate) fn free(&self, address: usize, class: SizeClass, page_heap: &PageHeap) -> Result<(), Misuse> {
        let page = page_heap.table.locate(address).ok_or(Misuse::Foreign)?;
        // SAFETY: `locate` found it.
        let record = unsafe { page_heap.table.record(page) };
        if record.kind() != Kind::Sampled {
            return Err(Misuse::NeverAllocated);
        }
        if !address.is_multiple_of(PAGE_BYTES) {
            return Err(Misuse::Interior);
        }
        if record.class() != class {
            return Err(Misuse::SizeMismatch);
        }
        if record.hand_to(Holder::Us) == Holder::Us {
            return Err(Misuse::DoubleFree);
        }
        record.end();
        // Counted before the pages go, so that they are never both. Release: as in `allocate`.
        self.frees[class.index()].fetch_add(1, Ordering::Release);
        page_heap.counters.count(Event::SampledEnd);
        page_heap.give_run(page, record.pages());
        Ok(())
    }

    pub(crate) fn allocations(&self, class: SizeClass) -> u64 {
        // Acquire: see `allocate`.
        self.allocations[class.index()].load(Ordering::Acquire)
    }

    pub(crate) fn frees(&self, class: SizeClass) -> u64 {
        // Acquire: see `allocate`.
        self.frees[class.index()].load(Ordering::Acquire)
    }
}
