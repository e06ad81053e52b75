//! Floor 3. From an address to what we know of it: shift, add, one load.
//!
//! A heap lives in a *region* of address space, of which nothing is reserved; pieces are mapped as they are needed.
//!
//! ```text
//!   region                                                                       multiple of 4 windows
//!   ├─ window ───────────────┬─ sampled zone ──────────┬─ tables ────────────┐
//!   │ steps ▶       huge ▶   │ steps ▶                 │ bits records steps  │
//!   └────────────────────────┴─────────────────────────┴─────────────────────┘
//!     ▲ start: the first step, at a random place        same offset, one address bit set
//! ```
//!
//! Pages are numbered from `start` on. All tables are arrays over that number,
//! so a table's entry needs no pointer. How far pages exist is kept in two limits, one per zone; an address beyond is not ours.

use crate::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use crate::config::{CHECKED, UNSIZED};
use crate::fatal::Misuse;
use crate::os;
use crate::units::{PAGE_BYTES, PAGE_SHIFT, PageIndex, WINDOW_BYTES, WINDOW_SHIFT};

/// Bytes of bits beside a page: one bit per 32 bytes. Smaller blocks have theirs in a cell: bits for them beside
/// every page would cost all other pages 0.4 % of their memory.
pub(crate) const PAGE_BITMAP_BYTES: usize = 32;

/// Bytes of a page's record.
pub(crate) const PAGE_RECORD_BYTES: usize = 32;

/// The tables of a region, in order, and how many bytes each has per page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Table {
    /// Which blocks central has.
    Bits,
    /// What is known of each page.
    Records,
    /// One bit per 8 bytes: is a live block here? Only in builds that check every free.
    Live,
    /// One byte: of which class are the blocks here? Only where frees do not say. See [`PageTable::class_byte`].
    Classes,
}

impl Table {
    /// Those that a step needs.
    pub(crate) const NEEDED: &'static [Self] = match (UNSIZED, CHECKED) {
        (false, false) => &[Self::Bits, Self::Records],
        (false, true) => &[Self::Bits, Self::Records, Self::Live],
        (true, false) => &[Self::Bits, Self::Records, Self::Classes],
        (true, true) => &[Self::Bits, Self::Records, Self::Classes, Self::Live],
    };

    pub(crate) const fn bytes_per_page(self) -> usize {
        match self {
            Self::Bits => PAGE_BITMAP_BYTES,
            Self::Records => PAGE_RECORD_BYTES,
            Self::Live => PAGE_BYTES / 64,
            Self::Classes => 1,
        }
    }

    /// Where the table begins, counted from the region's start. Two zones of pages, so each table is `2^(WINDOW_SHIFT + 1 - 13)`
    /// entries long; the places are spaced for the largest.
    pub(crate) const fn offset(self) -> usize {
        let place = match self {
            Self::Bits => 0,
            Self::Records => 1,
            Self::Live => 2,
            Self::Classes => 3,
        };
        2 * WINDOW_BYTES + place * (WINDOW_BYTES >> 4)
    }
}

const TABLE_BYTES_MAX: usize = (PAGE_BYTES / 64) << (WINDOW_SHIFT + 1 - PAGE_SHIFT);
const _: () = assert!(TABLE_BYTES_MAX <= WINDOW_BYTES >> 4);

/// Bytes of a region, and its alignment.
pub(crate) const REGION_BYTES: usize = WINDOW_BYTES * 4;

/// What the table of classes says of pages of the seed, where blocks of many classes lie side by side.
pub(crate) const SEED_BYTE: u8 = u8::MAX;

/// log2 of what the seed is cut into.
pub(crate) const SEED_GRANULE_SHIFT: u32 = 6;

/// Pages of a zone. The sampled zone's first page has this number.
pub(crate) const ZONE_PAGES: u32 = (WINDOW_BYTES >> PAGE_SHIFT) as u32;

/// No block starts at an address that is not a multiple of this, where frees do not say how a block is aligned.
const UNIT_SHIFT: u32 = 4;

/// Where the pages of one heap are. Hardly ever written, and read by every free in C: so it shares no cache line with anything that is.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct PageTable {
    /// Address of page 0; 0 before the region is chosen.
    start: AtomicUsize,
    /// As `limit`, in units of 16 bytes.
    unit_limit: AtomicUsize,
    /// Address of the table of classes.
    classes: AtomicUsize,
    /// Address of the seed's table of classes, less the number of the granule that the seed begins with.
    seed_classes: AtomicUsize,
    /// Bytes from `start` that hold pages, for the window …
    limit: AtomicUsize,
    /// … and for the sampled zone.
    sampled_limit: AtomicUsize,
    /// Address of the region's start.
    region: AtomicUsize,
}

impl PageTable {
    pub(crate) const fn new() -> Self {
        Self {
            start: AtomicUsize::new(0),
            unit_limit: AtomicUsize::new(0),
            classes: AtomicUsize::new(0),
            seed_classes: AtomicUsize::new(0),
            limit: AtomicUsize::new(0),
            sampled_limit: AtomicUsize::new(0),
            region: AtomicUsize::new(0),
        }
    }

    /// Chooses the region. Before this, no address is ours.
    pub(crate) fn settle(&self, region: usize, start: usize) {
        debug_assert_eq!(region % REGION_BYTES, 0);
        // Relaxed: no page exists before `raise_limit`, whose Release publishes these too.
        self.region.store(region, Ordering::Relaxed);
        self.start.store(start, Ordering::Relaxed);
        self.classes.store(self.entry(Table::Classes, PageIndex(0)), Ordering::Relaxed);
    }

    /// The address of page 0, once the region is chosen.
    pub(crate) fn start(&self) -> Option<usize> {
        // Relaxed, here and below: whoever has a page, or the lock under which regions are chosen, sees what `settle` wrote. Who only wonders
        // whether there is a region may be told no.
        let start = self.start.load(Ordering::Relaxed);
        (start != 0).then_some(start)
    }

    pub(crate) fn region(&self) -> usize {
        self.region.load(Ordering::Relaxed)
    }

    /// Pages below `pages` (of the zone that `pages` lies in) exist from now on. Their tables must be mapped.
    pub(crate) fn raise_limit(&self, pages: PageIndex) {
        let (limit, bytes) = if pages.0 <= ZONE_PAGES {
            (&self.limit, pages.offset_bytes())
        } else {
            (&self.sampled_limit, pages.offset_bytes() - WINDOW_BYTES)
        };
        // Release: the tables of these pages are mapped. Pairs with the Acquire in `locate`.
        limit.fetch_max(bytes, Ordering::Release);
        if pages.0 <= ZONE_PAGES {
            // Release: as above. Pairs with the Acquire in `class_byte`.
            self.unit_limit.fetch_max(bytes >> UNIT_SHIFT, Ordering::Release);
        }
    }

    /// The page of an address, or `None` if it is not one of ours.
    #[inline]
    pub(crate) fn locate(&self, address: usize) -> Option<PageIndex> {
        // Acquire: the tables of these pages are mapped. Pairs with the Release in `raise_limit`.
        let limit = self.limit.load(Ordering::Acquire);
        let offset = address.wrapping_sub(self.start.load(Ordering::Relaxed));
        if offset < limit {
            return Some(PageIndex((offset >> PAGE_SHIFT) as u32));
        }
        self.locate_sampled(offset)
    }

    #[cold]
    fn locate_sampled(&self, offset: usize) -> Option<PageIndex> {
        // Acquire: as in `locate`.
        let limit = self.sampled_limit.load(Ordering::Acquire);
        let within = offset.wrapping_sub(WINDOW_BYTES);
        (within < limit).then_some(PageIndex((offset >> PAGE_SHIFT) as u32))
    }

    /// The pages of the sampled zone.
    pub(crate) fn sampled_pages(&self) -> core::ops::Range<u32> {
        // Acquire: as in `locate`.
        let limit = self.sampled_limit.load(Ordering::Acquire);
        ZONE_PAGES..ZONE_PAGES + (limit >> PAGE_SHIFT) as u32
    }

    /// What to call an address that is not ours. A heap like this one has its tables at the same places of its own region.
    #[cold]
    pub(crate) fn stranger(&self, address: usize) -> Misuse {
        let region = address & !(REGION_BYTES - 1);
        let has_tables = [Table::Bits.offset(), Table::Records.offset(), REGION_BYTES - WINDOW_BYTES];
        let is_like_ours = region != 0 && region != self.region.load(Ordering::Relaxed);
        if is_like_ours && has_tables.iter().all(|&offset| os::is_mapped(region.wrapping_add(offset))) {
            Misuse::Sibling
        } else {
            Misuse::Foreign
        }
    }

    /// The address of a page.
    #[inline]
    pub(crate) fn address(&self, page: PageIndex) -> usize {
        self.start.load(Ordering::Relaxed) + page.offset_bytes()
    }

    /// What the table of classes says of the page of an address: the class that `SizeClass::of_byte` reads from it if the page belongs to
    /// a span of many blocks or begins a block that is a span of its own, [`SEED_BYTE`] in the seed. 0: neither, or the address is not ours,
    /// or no block starts there because it is not a multiple of 16.
    #[inline(always)]
    #[cfg(any(freestone_c, doc))]
    pub(crate) fn class_byte(&self, address: usize) -> u8 {
        // Turned round, so that one comparison finds both addresses out of range and those between multiples of 16.
        let unit = address.wrapping_sub(self.start.load(Ordering::Relaxed)).rotate_right(UNIT_SHIFT);
        // Acquire: the tables of these pages are mapped. Pairs with the Release in `raise_limit`.
        if unit >= self.unit_limit.load(Ordering::Acquire) {
            return 0;
        }
        let entry = self.classes.load(Ordering::Relaxed) + (unit >> (PAGE_SHIFT - UNIT_SHIFT));
        // SAFETY: the tables of existing pages are mapped, stay mapped, and begin as zeros (I-table).
        let entry = unsafe { &*os::pointer(entry).cast::<AtomicU8>() };
        // Relaxed: written before any block of the page was handed out.
        entry.load(Ordering::Relaxed)
    }

    /// What the seed says of an address for which [`class_byte`](Self::class_byte) says [`SEED_BYTE`].
    #[inline(always)]
    #[cfg(freestone_c)]
    pub(crate) fn seed_byte(&self, address: usize) -> u8 {
        // Relaxed: written before the pages were the seed's.
        let entry = self.seed_classes.load(Ordering::Relaxed).wrapping_add(address >> SEED_GRANULE_SHIFT);
        // SAFETY: the seed has a byte for each granule of its pages, for good (I-forever).
        let entry = unsafe { &*os::pointer(entry).cast::<AtomicU8>() };
        // Relaxed: written before any block there was handed out.
        entry.load(Ordering::Relaxed)
    }

    /// The seed begins at `start`, and its table of classes at `classes`.
    pub(crate) fn settle_seed(&self, start: usize, classes: usize) {
        self.seed_classes.store(classes.wrapping_sub(start >> SEED_GRANULE_SHIFT), Ordering::Relaxed);
    }

    /// Says what [`class_byte`](Self::class_byte) is to say of some pages. Where frees say their class, nobody asks.
    ///
    /// # Safety
    ///
    /// - The pages exist, and belong to the caller.
    #[inline]
    pub(crate) unsafe fn set_class_byte(&self, first: PageIndex, pages: u32, byte: u8) {
        if UNSIZED {
            let first = self.entry(Table::Classes, first);
            for page in 0..pages as usize {
                // SAFETY: the tables of existing pages are mapped (I-table).
                let entry = unsafe { &*os::pointer(first + page).cast::<AtomicU8>() };
                // Relaxed: see `class_byte`.
                entry.store(byte, Ordering::Relaxed);
            }
        }
    }

    /// Address of a table's entry for a page.
    #[inline]
    pub(crate) fn entry(&self, table: Table, page: PageIndex) -> usize {
        self.region.load(Ordering::Relaxed) + table.offset() + page.0 as usize * table.bytes_per_page()
    }

    /// The word of the live bits for an address, and the bit in it.
    ///
    /// # Safety
    ///
    /// - The address lies in an existing page, and this build has the table ([`CHECKED`]).
    pub(crate) unsafe fn live_bit(&self, address: usize) -> (&AtomicU64, u64) {
        let offset = address - self.start.load(Ordering::Relaxed);
        let word = self.entry(Table::Live, PageIndex(0)) + offset / 512 * 8;
        // SAFETY: mapped for good, zeros at first (I-table).
        let word = unsafe { &*os::pointer(word).cast::<AtomicU64>() };
        (word, 1 << (offset / 8 % 64))
    }
}
