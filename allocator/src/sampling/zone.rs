//! Floor 5. Where sampled blocks of the classes up to 32 KiB lie: spans of their own, in the sampled zone, packed by class.
//!
//! ```text
//!   page record ──▶ Span │ head │ place  │ place  │ place  │ …      for ourselves
//!                               ┆        ┆        ┆        ┆
//!   pages                │ block  │ block  │ block  │ …             the program's
//! ```
//!
//! Beside each block stands what is to be known of it: which call site, when, by whom. Not shared: lives behind the lock of the samples.

use core::ptr::{self, NonNull};

use crate::fatal::Misuse;
use crate::meta::Meta;
use crate::page_heap::PageHeap;
use crate::size_class::SizeClass;
use crate::span::record::Kind;
use crate::units::{PAGE_BYTES, PageIndex};

/// One sampled block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// Which call site; the number of its record plus one. 0: the block is free.
    pub(super) site: u32,
    /// Which thread allocated it, by the kernel's number.
    pub(super) thread: u32,
    pub(super) began_ns: u64,
    /// The ordinary block that would have been handed out, and keeps its place in its span meanwhile. Where it lies, blocks like the sampled
    /// one lie, so what is free beside it is what they keep from going back.
    pub(super) stand_in: Option<NonNull<u8>>,
}

/// Where a sample stands. All zeros: the block is free.
#[derive(Clone, Copy, Debug)]
struct Place {
    sample: Sample,
    /// Of a free one: the next free one of its span, plus one.
    next: u32,
}

/// A span of sampled blocks, and behind it a [`Place`] for each.
#[repr(C)]
struct Span {
    page: PageIndex,
    live: u32,
    /// Blocks from here on were never handed out.
    fresh: u32,
    /// The first free one of those that were, plus one.
    free: u32,
    /// Neighbours among the spans of the class that have room; of a spare one, the next spare one.
    next: *mut Span,
    previous: *mut Span,
    places: [Place; 0],
}

/// The spans of all classes.
pub(super) struct Spans {
    with_room: [*mut Span; SizeClass::INLINE_COUNT],
    /// Records of spans that have ended.
    spare: [*mut Span; SizeClass::INLINE_COUNT],
    /// Bytes of all spans.
    bytes: usize,
    /// Of these, blocks that have no stand-in: without samples they would lie elsewhere, so they are no cost of ours.
    in_place_bytes: usize,
    /// Bytes of what is known of spans; spare records too, which serve one class only.
    record_bytes: usize,
}

// SAFETY: what it points to belongs to it alone.
unsafe impl Send for Spans {}

/// How long a span is: as short as can be without losing more than an eighth behind the last block.
pub(super) fn span_pages(class: SizeClass) -> u32 {
    const PAGES_MAX: u32 = 8;
    let fits = |pages: &u32| {
        let bytes = *pages as usize * PAGE_BYTES;
        bytes >= class.bytes() && bytes % class.bytes() <= bytes / 8
    };
    (1..PAGES_MAX).find(fits).unwrap_or(PAGES_MAX)
}

fn span_blocks(class: SizeClass) -> u32 {
    (span_bytes(class) / class.bytes()) as u32
}

/// Bytes of what is to be known of a span of a class.
fn record_bytes(class: SizeClass) -> usize {
    size_of::<Span>() + span_blocks(class) as usize * size_of::<Place>()
}

fn span_bytes(class: SizeClass) -> usize {
    span_pages(class) as usize * PAGE_BYTES
}

impl Spans {
    pub(super) const fn new() -> Self {
        Self {
            with_room: [ptr::null_mut(); SizeClass::INLINE_COUNT],
            spare: [ptr::null_mut(); SizeClass::INLINE_COUNT],
            bytes: 0,
            in_place_bytes: 0,
            record_bytes: 0,
        }
    }

    /// Bytes of all spans.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What the zone would cost with one span more of a class.
    pub(super) fn cost_with_one_more(&self, class: SizeClass) -> usize {
        let record_bytes = if self.spare[class.index()].is_null() { record_bytes(class) } else { 0 };
        self.bytes + span_bytes(class) + self.record_bytes + record_bytes - self.in_place_bytes
    }

    /// Is there a free block of a class?
    pub(super) fn has_room(&self, class: SizeClass) -> bool {
        !self.with_room[class.index()].is_null()
    }

    /// Takes a free block of a class, of which there is one, for a sample; says where it is.
    pub(super) fn take(&mut self, class: SizeClass, sample: Sample, page_heap: &PageHeap) -> usize {
        let span = self.with_room[class.index()];
        // SAFETY: a span that has room; the lock keeps others away.
        let head = unsafe { &mut *span };
        let reused = head.free.checked_sub(1);
        let index = reused.unwrap_or(head.fresh);
        // SAFETY: an index below the number of blocks.
        let place = unsafe { &mut *place_at(span, index) };
        match reused {
            Some(_) => head.free = place.next,
            None => head.fresh += 1,
        }
        place.sample = sample;
        head.live += 1;
        let (is_full, page) = (head.live == span_blocks(class), head.page);
        if is_full {
            self.unlink(span, class);
        }
        if sample.stand_in.is_none() {
            self.in_place_bytes += class.bytes();
        }
        page_heap.table.address(page) + index as usize * class.bytes()
    }

    /// A run of pages becomes a span. `false`: no memory for its record.
    pub(super) fn begin(&mut self, class: SizeClass, page: PageIndex, zeroed: bool, page_heap: &PageHeap, meta: &Meta) -> bool {
        let span = if self.spare[class.index()].is_null() {
            let Some(memory) = meta.take(record_bytes(class), align_of::<Span>()) else { return false };
            self.record_bytes += record_bytes(class);
            memory.as_ptr().cast::<Span>()
        } else {
            let spare = self.spare[class.index()];
            // SAFETY: a spare record of ours.
            self.spare[class.index()] = unsafe { (*spare).next };
            spare
        };
        // SAFETY: ours alone, and long enough.
        unsafe {
            span.write(Span { page, live: 0, fresh: 0, free: 0, next: ptr::null_mut(), previous: ptr::null_mut(), places: [] });
        }
        for back in 0..span_pages(class) {
            // SAFETY: the run's pages exist and are the caller's.
            let record = unsafe { page_heap.table.record(page.plus(back)) };
            record.begin_sampled(class, back, span_pages(class), zeroed, span.expose_provenance() as u64);
        }
        self.bytes += span_bytes(class);
        self.link(span, class);
        true
    }

    fn link(&mut self, span: *mut Span, class: SizeClass) {
        let first = self.with_room[class.index()];
        // SAFETY: a span of ours; the lock keeps others away.
        let Span { next, previous, .. } = unsafe { &mut *span };
        (*next, *previous) = (first, ptr::null_mut());
        // SAFETY: as above.
        if let Some(first) = unsafe { first.as_mut() } {
            first.previous = span;
        }
        self.with_room[class.index()] = span;
    }

    fn unlink(&mut self, span: *mut Span, class: SizeClass) {
        // SAFETY: a span that is linked; the lock keeps others away.
        let Span { next, previous, .. } = *unsafe { &*span };
        // SAFETY: as above.
        match unsafe { previous.as_mut() } {
            Some(previous) => previous.next = next,
            None => self.with_room[class.index()] = next,
        }
        // SAFETY: as above.
        if let Some(next) = unsafe { next.as_mut() } {
            next.previous = previous;
        }
    }

    /// Takes a block back. Its sample, and the span's first page if the span is empty now and its pages are the caller's. The
    /// only one of its class is kept: the next sample needs it.
    pub(super) fn give(
        &mut self,
        address: usize,
        class: SizeClass,
        page_heap: &PageHeap,
    ) -> Result<(Sample, Option<PageIndex>), Misuse> {
        let (span, index) = find(address, class, page_heap)?;
        // SAFETY: `find` says that there is such a block.
        let place = unsafe { &mut *place_at(span, index) };
        if place.sample.site == 0 {
            return Err(Misuse::DoubleFree);
        }
        let ended = place.sample;
        // SAFETY: as above; a place is not part of what is borrowed here.
        let head = unsafe { &mut *span };
        (place.sample.site, place.next) = (0, head.free);
        if ended.stand_in.is_none() {
            self.in_place_bytes -= class.bytes();
        }
        head.free = index + 1;
        let was_full = head.live == span_blocks(class);
        head.live -= 1;
        let live = head.live;
        let kept = self.with_room[class.index()];
        if was_full {
            self.link(span, class);
        }
        // SAFETY: as above.
        let is_only_one = self.with_room[class.index()] == span && unsafe { (*span).next.is_null() };
        let empty = match live {
            0 if is_only_one => None,
            0 => Some(span),
            // What was kept because it was the only one is so no more.
            // SAFETY: null, or a span that has room.
            _ if was_full && unsafe { kept.as_ref() }.is_some_and(|kept| kept.live == 0) => Some(kept),
            _ => None,
        };
        Ok((ended, empty.map(|empty| self.end(empty, class, page_heap))))
    }

    /// Ends the kept span of a class, if there is one: its first page, which is the caller's then. It is the only one, so the first.
    pub(super) fn end_kept(&mut self, class: SizeClass, page_heap: &PageHeap) -> Option<PageIndex> {
        let kept = self.with_room[class.index()];
        // SAFETY: null, or a span that has room; the lock keeps others away.
        let is_empty = unsafe { kept.as_ref() }.is_some_and(|kept| kept.live == 0);
        is_empty.then(|| self.end(kept, class, page_heap))
    }

    fn end(&mut self, span: *mut Span, class: SizeClass, page_heap: &PageHeap) -> PageIndex {
        self.bytes -= span_bytes(class);
        self.unlink(span, class);
        // SAFETY: a span of ours.
        let page = unsafe { (*span).page };
        for back in 0..span_pages(class) {
            // SAFETY: the span's pages exist.
            unsafe { page_heap.table.record(page.plus(back)) }.end();
        }
        // SAFETY: nobody uses it any more.
        unsafe { (*span).next = self.spare[class.index()] };
        self.spare[class.index()] = span;
        page
    }

    /// Hands each sample of the span that begins at a page to `each`, if one does and it has any.
    pub(super) fn each_live(page: PageIndex, page_heap: &PageHeap, mut each: impl FnMut(&Sample, SizeClass)) {
        // SAFETY: callers have pages of the zone, which exist.
        let record = unsafe { page_heap.table.record(page) };
        if record.kind() != Kind::Sampled || record.back() != 0 {
            return;
        }
        let class = record.class();
        let span: *mut Span = ptr::with_exposed_provenance_mut(record.span_address() as usize);
        // SAFETY: a span of ours; the lock keeps others away.
        for index in 0..unsafe { (*span).fresh } {
            // SAFETY: as above.
            let place = unsafe { &*place_at(span, index) };
            if place.sample.site != 0 {
                each(&place.sample, class);
            }
        }
    }

    /// Is there a live block of this class at this address?
    #[cfg_attr(not(freestone_c), expect(dead_code, reason = "only C asks"))]
    pub(super) fn inspect(address: usize, class: SizeClass, page_heap: &PageHeap) -> Result<(), Misuse> {
        let (span, index) = find(address, class, page_heap)?;
        // SAFETY: `find` says that there is such a block.
        if unsafe { (*place_at(span, index)).sample.site } == 0 { Err(Misuse::DoubleFree) } else { Ok(()) }
    }
}

fn place_at(span: *mut Span, index: u32) -> *mut Place {
    // SAFETY: a span of ours.
    let places = unsafe { &raw mut (*span).places }.cast::<Place>();
    // SAFETY: places follow the head, as many as there are blocks, and callers have such an index.
    unsafe { places.add(index as usize) }
}

/// The span of a block, and which of its blocks it is.
fn find(address: usize, class: SizeClass, page_heap: &PageHeap) -> Result<(*mut Span, u32), Misuse> {
    let table = &page_heap.table;
    let page = table.locate(address).ok_or(Misuse::Foreign)?;
    // SAFETY: `locate` found it.
    let record = unsafe { table.record(page) };
    if record.kind() != Kind::Sampled {
        return Err(Misuse::NeverAllocated);
    }
    if record.class() != class {
        return Err(Misuse::SizeMismatch);
    }
    let first = PageIndex(page.0 - record.back());
    let offset = address - table.address(first);
    if !offset.is_multiple_of(class.bytes()) {
        return Err(if address.is_multiple_of(8) { Misuse::Interior } else { Misuse::Misaligned });
    }
    let index = (offset / class.bytes()) as u32;
    // SAFETY: the first page of a span of ours.
    let span: *mut Span = ptr::with_exposed_provenance_mut(unsafe { table.record(first) }.span_address() as usize);
    // SAFETY: written when the span began; the lock keeps others away.
    if index >= unsafe { (*span).fresh } { Err(Misuse::NeverAllocated) } else { Ok((span, index)) }
}
