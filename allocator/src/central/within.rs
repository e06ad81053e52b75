//! Floor 5. Giving back memory within spans: kernel pages on which only free blocks lie.
//!
//! After a burst a span may be left with a single block, which keeps all its pages. What is claimed here is the span as a whole: it is on
//! no list while its pages are given back, so no block of it is handed out; blocks that come back meanwhile set their bits as ever.
//!
//! ```text
//!   blocks    free free free LIVE free free │ free free free free free free
//!   pages     ├──────── stays ──────────────┼────────── goes ──────────────┤
//! ```

use crate::atomic::Ordering;
use crate::os;
use crate::size_class::{Shape, SizeClass};
use crate::span::bitmap::Bitmap;
use crate::span::record::PageRecord;
use crate::units::{PAGE_BYTES, PageIndex};

/// In [`PageRecord::list`]: on no list, whatever is free, because somebody is at work on the span.
pub(crate) const CLAIMED: u8 = u8::MAX;

/// In [`PageRecord::seen`]: what could be given back in this state was.
const DONE: u8 = 0x80;

/// Kernel pages of the longest span that are told apart. Longer spans do without.
const PAGES_MAX: usize = 128;

/// What is to be done with a span.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Look {
    /// It is in use, or nothing can be gained.
    Leave,
    /// It rests: look again the next time.
    Again,
    /// Give these pages back: a bit each.
    Release(u128),
}

/// Something of how full the span is, never zero.
fn state_of(record: &PageRecord) -> u8 {
    // Relaxed, here and below: the class's lock orders it.
    (record.free.load(Ordering::Relaxed) % 127 + 1) as u8
}

/// Which class's span begins at this page, if one does that could be of interest. A look without the lock: asked again with it.
pub(crate) fn class_of_span(record: &PageRecord) -> Option<SizeClass> {
    record.class_of_span().filter(|class| class.shape() != Shape::Whole && is_in_kernel_pages(*class))
}

/// Do spans of this class consist of whole kernel pages, wherever they begin? Not where those are larger than ours.
fn is_in_kernel_pages(class: SizeClass) -> bool {
    PAGE_BYTES.is_multiple_of(os::page_bytes()) && class.span_bytes().is_multiple_of(os::page_bytes())
}

/// Looks at a span under the lock of its class. `at_once`: never mind whether it rests.
pub(crate) fn look(record: &PageRecord, class: SizeClass, bitmap: Bitmap<'_>, at_once: bool) -> Look {
    let (seen, state) = (record.seen.load(Ordering::Relaxed), state_of(record));
    let pages = class.span_bytes() / os::page_bytes();
    if record.list.load(Ordering::Relaxed) == CLAIMED || !(2..=PAGES_MAX).contains(&pages) || seen == state | DONE {
        return Look::Leave;
    }
    // A page's worth of blocks must be free for one to be all free.
    let free = usize::from(record.free.load(Ordering::Relaxed));
    if free * class.bytes() < os::page_bytes() {
        return Look::Leave;
    }
    if seen != state && !at_once {
        record.seen.store(state, Ordering::Relaxed);
        return Look::Again;
    }
    record.seen.store(state | DONE, Ordering::Relaxed);
    let free_pages = free_pages(record, class, bitmap);
    if free_pages.count_ones() <= u32::from(record.released.load(Ordering::Relaxed)) {
        return Look::Leave;
    }
    Look::Release(free_pages)
}

/// The kernel pages that no block reaches into which is out.
fn free_pages(record: &PageRecord, class: SizeClass, bitmap: Bitmap<'_>) -> u128 {
    let (page_bytes, bytes) = (os::page_bytes(), class.bytes());
    let fresh = u32::from(record.fresh.load(Ordering::Relaxed));
    let blocks = class.span_blocks();
    let mut free: u128 = (1_u128 << (class.span_bytes() / page_bytes - 1) << 1).wrapping_sub(1);
    for block in 0..blocks.min(fresh) {
        if !bitmap.is_set(block) {
            let start = block as usize * bytes;
            for page in start / page_bytes..=(start + bytes - 1) / page_bytes {
                free &= !(1 << page);
            }
        }
    }
    free
}

/// A span some of whose pages are being given back.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub(crate) struct Claimed {
    pub(crate) head: PageIndex,
    pub(crate) pages: u128,
}

impl Claimed {
    /// The stretches of the span that go, as (offset, length) in bytes.
    pub(crate) fn stretches(self) -> impl Iterator<Item = (usize, usize)> {
        let mut rest = self.pages;
        let mut at = 0;
        core::iter::from_fn(move || {
            if rest == 0 {
                return None;
            }
            let skipped = rest.trailing_zeros();
            rest >>= skipped;
            let length = rest.trailing_ones();
            rest = if length == 128 { 0 } else { rest >> length };
            let start = at + skipped as usize;
            at = start + length as usize;
            Some((start * os::page_bytes(), length as usize * os::page_bytes()))
        })
    }
}

const _: () = assert!(PAGE_BYTES >= 4096);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_are_the_runs_of_bits() {
        for pages in [0, 1, 0b1011_0001, u128::MAX, 1 << 127, u128::MAX - 1, 0b11 << 63] {
            let claimed = Claimed { head: PageIndex(0), pages };
            let mut seen = 0_u128;
            let mut end = 0;
            for (start, length) in claimed.stretches() {
                assert!(length > 0);
                assert!(start > end || end == 0, "stretches do not touch");
                end = start + length;
                for page in start / os::page_bytes()..end / os::page_bytes() {
                    seen |= 1 << page;
                }
            }
            assert_eq!(seen, pages);
        }
    }
}
