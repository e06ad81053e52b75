//! Floor 3. Spans: runs of pages with one use, and how an address finds its own.
//!
//! [`PageTable`] turns addresses into page numbers and page numbers into places in flat tables; [`PageRecord`] and [`Bitmap`] are
//! what stands in those places.

pub(crate) mod bitmap;
pub(crate) mod page_table;
pub(crate) mod record;

use crate::atomic::{AtomicU64, Ordering};
use crate::units::PageIndex;

use bitmap::Bitmap;
use page_table::{PAGE_RECORD_BYTES, PageTable, Table};
use record::PageRecord;

const _: () = assert!(size_of::<PageRecord>() == PAGE_RECORD_BYTES);

impl PageTable {
    /// The record of a page.
    ///
    /// # Safety
    ///
    /// - The page exists: it came from [`locate`](Self::locate), or lies in a step that was mapped.
    #[inline]
    pub(crate) unsafe fn record(&self, page: PageIndex) -> &PageRecord {
        let entry = crate::os::pointer(self.entry(Table::Records, page)).cast::<PageRecord>();
        // SAFETY: the tables of existing pages are mapped, stay mapped, and begin as zeros, which is a valid record (I-table).
        unsafe { &*entry }
    }

    /// The bits of the span that starts at this page, `blocks` of them.
    ///
    /// # Safety
    ///
    /// - The page exists and is the first of a span of so many blocks.
    #[inline]
    pub(crate) unsafe fn bitmap(&self, page: PageIndex, blocks: u32) -> Bitmap<'_> {
        // SAFETY: handed on to the caller.
        let record = unsafe { self.record(page) };
        // Relaxed: written at the span's birth; the class's lock orders it, and for who looks without, that it got a block of the span.
        let cell = record.cell.load(Ordering::Relaxed);
        let bits = if cell == 0 { self.entry(Table::Bits, page) } else { cell as usize };
        let words = crate::os::pointer(bits).cast::<AtomicU64>();
        // SAFETY: mapped for good, zeros at first (I-table); every page of the span brings 256 bits, a cell as many as there are blocks.
        Bitmap(unsafe { core::slice::from_raw_parts(words, (blocks as usize).div_ceil(64)) })
    }
}
