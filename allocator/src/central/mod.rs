//! Floor 5. Central: per class, the spans that have free blocks.
//!
//! ```text
//!   lists[log2 of free blocks]    0: 1   1: 2–3   2: 4–7  …  10: 1024        spans with so many free blocks
//!                                 └ taken from first: the fullest span, so that sparse ones drain and die
//!
//!   a span    block block block block block │ block block block block
//!   bits        ·     1     ·     1     ·   │       never handed out         1: central has it
//!                                           └ fresh
//! ```
//!
//! Blocks come from the fullest span, lowest address first; what was never handed out is not touched and has no bits. One address
//! direction is kept through flush and refill: blocks are laid into a magazine so that they are popped in ascending order.
//!
//! Everything that comes back is checked in full: range, start of a block, class, and that it is not here already. A double free is
//! found here at the latest.
//!
//! Relaxed for a span's record in the whole file: the class's lock orders it, and [`inspect`] says why it may look without.

pub(crate) mod combining;
pub(crate) mod seed;
pub(crate) mod within;

use crate::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use crate::config::{MAGAZINE_BLOCKS_MAX, STACK_ARMED_CHECKED};
use crate::counters::Event;
use crate::fatal::{Misuse, misuse};
use crate::magazine::{Magazine, ZEROED};
use crate::meta::Meta;
use crate::os;
use crate::page_heap::{PageHeap, Zone};
use crate::probes;
use crate::size_class::{CLASS_ALIGN_MAX, Place, Shape, SizeClass};
use crate::span::page_table::{PAGE_BITMAP_BYTES, SEED_BYTE};
use crate::span::record::{Holder, Kind, PageRecord};
use crate::sync::{Lock, Rank};
use crate::units::{PAGE_BYTES, PageIndex};

use combining::Combining;
use seed::Seed;
use within::{CLAIMED, Claimed, Look};

/// What central needs from below.
#[derive(Clone, Copy)]
pub(crate) struct Ground<'a> {
    pub(crate) page_heap: &'a PageHeap,
    pub(crate) meta: &'a Meta,
    pub(crate) seed: &'a Seed,
    pub(crate) listed: &'a [Listed; SizeClass::COUNT],
}

/// How many spans of a class are on each of its lists: for readers without the lock. Apart from what the lock guards, because small programs have
/// no spans, and are not to touch a page for it.
pub(crate) struct Listed([AtomicU32; LISTS]);

// Relaxed: written under the class's lock; readers only want a count.
impl Listed {
    pub(crate) const fn new() -> Self {
        Self([const { AtomicU32::new(0) }; LISTS])
    }

    fn gain(&self, list: u8) {
        let count = &self.0[usize::from(list)];
        count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    fn lose(&self, list: u8) {
        let count = &self.0[usize::from(list)];
        count.store(count.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
    }

    /// Spans of many blocks that have free ones in central: with one, with two or three, with four to seven …
    pub(crate) fn read(&self) -> [u32; LISTS] {
        core::array::from_fn(|list| self.0[list].load(Ordering::Relaxed))
    }
}

/// Lists of a class: the last is for spans with 1024 free blocks and more.
pub(crate) const LISTS: usize = 11;

/// The spans of one class that have free blocks.
struct Spans {
    /// Spans with 2ⁿ … 2ⁿ⁺¹ − 1 free blocks: page index of the first plus one.
    heads: [u32; LISTS],
    /// Bit n: is there a span on list n?
    occupied: u16,
}

/// One class.
pub(crate) struct Central {
    spans: Combining<Spans>,
    /// Blocks that are not here: in programs, threads and depots.
    out: AtomicU64,
    /// Spans of this class, partial and full.
    span_count: AtomicUsize,
}

impl Central {
    pub(crate) const fn new() -> Self {
        Self {
            spans: Combining::new(Lock::new(Rank::Central, Spans { heads: [0; LISTS], occupied: 0 })),
            out: AtomicU64::new(0),
            span_count: AtomicUsize::new(0),
        }
    }

    /// Puts free blocks into `room`, from its end downwards; says how many. Fewer than there is room for: that is all at the moment;
    /// none: no memory. `emptied` gets the magazines of others that were worked off on the way.
    pub(crate) fn refill(
        &self,
        class: SizeClass,
        room: &mut [*mut u8],
        ground: Ground<'_>,
        mut emptied: impl FnMut(Magazine),
    ) -> usize {
        if class.shape() == Shape::Whole {
            return self.refill_whole(class, room, ground);
        }
        let mut waited = 0;
        let got = self.spans.act(
            &mut waited,
            |spans| self.refill_locked(spans, class, room, ground),
            |spans, magazine| {
                self.flush_locked(spans, class, magazine.blocks(), ground);
                emptied(magazine);
            },
        );
        ground.page_heap.pauses.waited_within(waited);
        got
    }

    /// Takes a magazine's blocks back, now or by whoever is busy here. `emptied` gets the magazines that were worked off.
    pub(crate) fn flush(&self, class: SizeClass, magazine: Magazine, ground: Ground<'_>, mut emptied: impl FnMut(Magazine)) {
        if class.shape() == Shape::Whole {
            self.flush_whole(class, magazine.blocks(), ground);
            emptied(magazine);
            return;
        }
        self.spans.give(magazine, |spans, magazine| {
            self.flush_locked(spans, class, magazine.blocks(), ground);
            emptied(magazine);
        });
    }

    /// Takes blocks back that are in no magazine of their own, waiting for the lock.
    pub(crate) fn flush_blocks(
        &self,
        class: SizeClass,
        blocks: &[*mut u8],
        ground: Ground<'_>,
        mut emptied: impl FnMut(Magazine),
    ) {
        if class.shape() == Shape::Whole {
            return self.flush_whole(class, blocks, ground);
        }
        let mut waited = 0;
        self.spans.act(
            &mut waited,
            |spans| self.flush_locked(spans, class, blocks, ground),
            |spans, magazine| {
                self.flush_locked(spans, class, magazine.blocks(), ground);
                emptied(magazine);
            },
        );
        ground.page_heap.pauses.waited_within(waited);
    }

    /// Works off the magazines that came while a fork held the lock. `emptied` gets them.
    pub(crate) fn look_again(&self, class: SizeClass, ground: Ground<'_>, mut emptied: impl FnMut(Magazine)) {
        self.spans.look_again(|spans, magazine| {
            self.flush_locked(spans, class, magazine.blocks(), ground);
            emptied(magazine);
        });
    }

    /// Blocks that are not here.
    pub(crate) fn out(&self) -> u64 {
        // Relaxed: a count; exact when nobody works.
        self.out.load(Ordering::Relaxed)
    }

    /// Spans of this class.
    pub(crate) fn span_count(&self) -> usize {
        // Relaxed: as above.
        self.span_count.load(Ordering::Relaxed)
    }

    pub(crate) fn before_fork(&self) {
        self.spans.before_fork();
    }

    pub(crate) fn after_fork(&self) {
        self.spans.after_fork();
    }

    // ---- spans of many blocks, under the lock ----------------------------------------------------------------------

    fn refill_locked(&self, spans: &mut Spans, class: SizeClass, room: &mut [*mut u8], ground: Ground<'_>) -> usize {
        let wanted = room.len();
        let mut got = 0;
        while got < wanted {
            let page = match spans.fullest() {
                Some(page) => page,
                // Half a magazine of used blocks is better than touching fresh memory.
                None if got * 2 >= wanted && got > 0 => break,
                None => {
                    if class.is_small() && got == 0 {
                        got = ground.seed.take(class, room, ground.meta, |classes| seed_land(classes, ground));
                        if got > 0 {
                            break;
                        }
                    }
                    let Some(page) = self.begin_span(spans, class, ground) else { break };
                    page
                }
            };
            // SAFETY: a span on a list exists (I-span).
            let released = usize::from(unsafe { ground.page_heap.table.record(page) }.released.load(Ordering::Relaxed));
            // At the hard limit, what was given back cannot be had again.
            let Some(_aside) = ground.page_heap.set_aside(released * os::page_bytes()) else { break };
            got += take_from_span(spans, class, page, &mut room[..wanted - got], ground);
        }
        // Relaxed: written under the lock; readers only want a count.
        self.out.store(self.out.load(Ordering::Relaxed) + got as u64, Ordering::Relaxed);
        got
    }

    fn flush_locked(&self, spans: &mut Spans, class: SizeClass, blocks: &[*mut u8], ground: Ground<'_>) {
        let table = &ground.page_heap.table;
        let mut rest = blocks;
        while let Some((&first, _)) = rest.split_first() {
            let address = first.addr() & !ZEROED;
            let Some(head) = span_of(address, class, ground) else {
                if let Err(kind) = give_to_seed(address, class, ground) {
                    misuse(kind, address, Some(class.index()), class.bytes());
                }
                rest = &rest[1..];
                continue;
            };
            // Neighbours in a magazine are often neighbours in a span: all that follow and lie in this one are done at once.
            // SAFETY: `span_of` found the page through the table.
            let record = unsafe { table.record(head) };
            // SAFETY: as above; it is the first of a span of this class.
            let bitmap = unsafe { table.bitmap(head, class.span_blocks()) };
            let start = table.address(head);
            let fresh = u32::from(record.fresh.load(Ordering::Relaxed));
            let mut count = 0;
            for &block in rest {
                let address = block.addr() & !ZEROED;
                let offset = address.wrapping_sub(start);
                if offset >= class.span_bytes() {
                    break;
                }
                let kind = match class.block_at(offset) {
                    Place::Block(index) if index >= fresh => Misuse::NeverAllocated,
                    Place::Block(index) if bitmap.set(index) => {
                        count += 1;
                        continue;
                    }
                    Place::Block(_) => Misuse::DoubleFree,
                    Place::Inside => within_block(address),
                    Place::Tail => Misuse::NeverAllocated,
                };
                misuse(kind, address, Some(class.index()), class.bytes());
            }
            rest = &rest[count as usize..];
            self.gained(spans, class, head, record, count, ground);
        }
        // Relaxed: as in `refill_locked`.
        self.out.store(self.out.load(Ordering::Relaxed) - blocks.len() as u64, Ordering::Relaxed);
    }

    /// A span got blocks back: it moves to another list, or ends.
    fn gained(&self, spans: &mut Spans, class: SizeClass, head: PageIndex, record: &PageRecord, count: u32, ground: Ground<'_>) {
        let free = u32::from(record.free.load(Ordering::Relaxed)) + count;
        record.free.store(free as u16, Ordering::Relaxed);
        // Whoever has claimed it puts it where it belongs.
        if record.list.load(Ordering::Relaxed) != CLAIMED {
            self.place(spans, class, head, record, ground);
        }
    }

    /// Puts a span where it belongs by now: on a list, or to the page heap if all its blocks are here.
    fn place(&self, spans: &mut Spans, class: SizeClass, head: PageIndex, record: &PageRecord, ground: Ground<'_>) {
        let free = u32::from(record.free.load(Ordering::Relaxed));
        if free == class.span_blocks() {
            // For the page heap all of it holds memory. Where so much may not be held, it stays here until the rest was given back as well.
            let released = usize::from(record.released.load(Ordering::Relaxed)) * os::page_bytes();
            if let Some(_aside) = ground.page_heap.set_aside(released) {
                spans.unlist(head, record, ground);
                regain(record, ground);
                self.end_span(class, head, record, ground);
                ground.page_heap.give_run(head, class.span_pages());
                return;
            }
            record.seen.store(0, Ordering::Relaxed);
        }
        spans.relist(head, record, free, ground);
    }

    #[cold]
    fn begin_span(&self, spans: &mut Spans, class: SizeClass, ground: Ground<'_>) -> Option<PageIndex> {
        let blocks = class.span_blocks();
        let needs_cell = blocks as usize > class.span_pages() as usize * PAGE_BITMAP_BYTES * 8;
        let cell = if needs_cell { ground.meta.cell(blocks)?.addr().get() as u64 } else { 0 };
        let Some(run) = ground.page_heap.take_run(class.span_pages(), 1, Zone::Window) else {
            if cell != 0 {
                // SAFETY: taken above, used by nobody.
                unsafe { ground.meta.spare_cell(os::block(cell as usize), blocks) };
            }
            return None;
        };
        let table = &ground.page_heap.table;
        for back in 0..run.pages {
            // SAFETY: the page heap handed this run out, so its pages exist.
            let record = unsafe { table.record(run.page.plus(back)) };
            record.begin_blocks(class, back, run.pages, run.zeroed);
        }
        // SAFETY: as above, and they are ours.
        unsafe { table.set_class_byte(run.page, run.pages, class.byte()) };
        // SAFETY: as above.
        let record = unsafe { table.record(run.page) };
        record.cell.store(cell, Ordering::Relaxed);
        // SAFETY: as above; it is the first page of a span of so many blocks.
        unsafe { table.bitmap(run.page, blocks) }.clear_all();
        spans.relist(run.page, record, blocks, ground);
        self.span_count.fetch_add(1, Ordering::Relaxed);
        ground.page_heap.counters.count(Event::SpanBirth);
        probes::span_birth(class.bytes(), class.span_bytes(), table.address(run.page));
        Some(run.page)
    }

    // ---- giving memory back within spans -----------------------------------------------------------------------------

    /// Gives back the pages of the span at `head` on which only free blocks lie, if that has rested; says how many bytes that was, and
    /// whether it is worth looking again. `emptied`: as for [`refill`](Self::refill).
    pub(crate) fn release_within(
        &self,
        head: PageIndex,
        class: SizeClass,
        at_once: bool,
        ground: Ground<'_>,
        mut emptied: impl FnMut(Magazine),
    ) -> (usize, bool) {
        let table = &ground.page_heap.table;
        // SAFETY: the caller found it in a step that exists.
        let record = unsafe { table.record(head) };
        let mut again = false;
        let claimed = self.spans.act(
            &mut 0,
            |spans| {
                if within::class_of_span(record) != Some(class) {
                    return None;
                }
                // SAFETY: it is the first page of a span of this class, and stays so under the lock.
                let bitmap = unsafe { table.bitmap(head, class.span_blocks()) };
                match within::look(record, class, bitmap, at_once) {
                    Look::Leave => None,
                    Look::Again => {
                        again = true;
                        None
                    }
                    Look::Release(pages) => {
                        spans.unlist(head, record, ground);
                        record.list.store(CLAIMED, Ordering::Relaxed);
                        Some(Claimed { head, pages })
                    }
                }
            },
            |spans, magazine| {
                self.flush_locked(spans, class, magazine.blocks(), ground);
                emptied(magazine);
            },
        );
        let Some(claimed) = claimed else { return (0, again) };
        let purged = claimed.stretches().all(|(offset, bytes)| {
            // SAFETY: the span is claimed (I-claim): its free blocks are handed out to nobody, and nobody else's lie there.
            unsafe { ground.page_heap.purge_within(head, offset, bytes) }
        });
        let released = self.spans.act(
            &mut 0,
            |spans| self.end_claim(spans, claimed, purged, class, ground),
            |spans, magazine| {
                self.flush_locked(spans, class, magazine.blocks(), ground);
                emptied(magazine);
            },
        );
        (released, false)
    }

    /// Puts a claimed span where it belongs by now. Says how many bytes were given back that were not before.
    fn end_claim(&self, spans: &mut Spans, claimed: Claimed, purged: bool, class: SizeClass, ground: Ground<'_>) -> usize {
        // SAFETY: a claimed span exists.
        let record = unsafe { ground.page_heap.table.record(claimed.head) };
        record.list.store(0, Ordering::Relaxed);
        let before = usize::from(record.released.load(Ordering::Relaxed)) * os::page_bytes();
        let now = if purged { claimed.pages.count_ones() as usize * os::page_bytes() } else { before };
        if now == class.span_bytes() && u32::from(record.free.load(Ordering::Relaxed)) == class.span_blocks() {
            self.end_span(class, claimed.head, record, ground);
            ground.page_heap.give_clean_run(claimed.head, class.span_pages(), before);
        } else {
            record.released.store((now / os::page_bytes()) as u16, Ordering::Relaxed);
            ground.page_heap.released_within(now - before);
            self.place(spans, class, claimed.head, record, ground);
        }
        now - before
    }

    /// A span → pages of nobody's, which the caller gives back.
    #[cold]
    fn end_span(&self, class: SizeClass, head: PageIndex, record: &PageRecord, ground: Ground<'_>) {
        let cell = record.cell.swap(0, Ordering::Relaxed);
        if cell != 0 {
            // SAFETY: the span's bits, and the span ends here.
            unsafe { ground.meta.spare_cell(os::block(cell as usize), class.span_blocks()) };
        }
        for back in 0..class.span_pages() {
            // SAFETY: the pages of a span exist.
            unsafe { ground.page_heap.table.record(head.plus(back)) }.end();
        }
        // SAFETY: as above, and they are ours until they are given back below.
        unsafe { ground.page_heap.table.set_class_byte(head, class.span_pages(), 0) };
        self.span_count.fetch_sub(1, Ordering::Relaxed);
        ground.page_heap.counters.count(Event::SpanDeath);
        probes::span_death(class.bytes(), class.span_bytes(), ground.page_heap.table.address(head));
    }

    // ---- blocks that are spans -------------------------------------------------------------------------------------

    fn refill_whole(&self, class: SizeClass, room: &mut [*mut u8], ground: Ground<'_>) -> usize {
        let mut got = 0;
        for place in room.iter_mut().rev() {
            let Some(run) = ground.page_heap.take_run(class.span_pages(), 1, Zone::Window) else { break };
            // SAFETY: the page heap handed this run out, so its pages exist.
            let record = unsafe { ground.page_heap.table.record(run.page) };
            record.begin_whole(Kind::Whole, Some(class), run.pages, run.zeroed, Holder::Us);
            // SAFETY: as above.
            unsafe { ground.page_heap.table.set_class_byte(run.page, 1, class.byte()) };
            let tag = if run.zeroed { ZEROED } else { 0 };
            *place = os::pointer(ground.page_heap.table.address(run.page) | tag);
            got += 1;
        }
        // Relaxed, here and below: counts.
        self.out.fetch_add(got as u64, Ordering::Relaxed);
        self.span_count.fetch_add(got, Ordering::Relaxed);
        got
    }

    fn flush_whole(&self, class: SizeClass, blocks: &[*mut u8], ground: Ground<'_>) {
        for block in blocks {
            let address = block.addr() & !ZEROED;
            match whole_record(address, class, ground) {
                Ok((page, record)) => {
                    record.end();
                    // SAFETY: the block's first page, which exists, and is ours until it is given back below.
                    unsafe { ground.page_heap.table.set_class_byte(page, 1, 0) };
                    // Counted before the pages go, so that they are never both. Relaxed: counts.
                    self.out.fetch_sub(1, Ordering::Relaxed);
                    self.span_count.fetch_sub(1, Ordering::Relaxed);
                    ground.page_heap.give_run(page, class.span_pages());
                }
                Err(kind) => misuse(kind, address, Some(class.index()), class.bytes()),
            }
        }
    }
}

impl Spans {
    /// The fullest span that has free blocks.
    fn fullest(&self) -> Option<PageIndex> {
        if self.occupied == 0 {
            return None;
        }
        let list = self.occupied.trailing_zeros() as usize;
        Some(PageIndex(self.heads[list] - 1))
    }

    /// Puts a span on the list for `free` free blocks, `free` not being zero.
    fn relist(&mut self, page: PageIndex, record: &PageRecord, free: u32, ground: Ground<'_>) {
        let list = free.ilog2() as u8;
        if record.list.load(Ordering::Relaxed) == list + 1 {
            return;
        }
        self.unlist(page, record, ground);
        ground.listed[record.class().index()].gain(list);
        let head = &mut self.heads[usize::from(list)];
        let next = core::mem::replace(head, page.0 + 1);
        record.list.store(list + 1, Ordering::Relaxed);
        record.next.store(next, Ordering::Relaxed);
        record.previous.store(0, Ordering::Relaxed);
        if let Some(next) = next.checked_sub(1) {
            // SAFETY: a span on a list exists (I-span).
            unsafe { ground.page_heap.table.record(PageIndex(next)) }.previous.store(page.0 + 1, Ordering::Relaxed);
        }
        self.occupied |= 1 << list;
    }

    /// Takes a span off its list, if it is on one.
    fn unlist(&mut self, page: PageIndex, record: &PageRecord, ground: Ground<'_>) {
        let Some(list) = record.list.load(Ordering::Relaxed).checked_sub(1) else { return };
        ground.listed[record.class().index()].lose(list);
        let (next, previous) = (record.next.load(Ordering::Relaxed), record.previous.load(Ordering::Relaxed));
        if let Some(next) = next.checked_sub(1) {
            // SAFETY: a span on a list exists.
            unsafe { ground.page_heap.table.record(PageIndex(next)) }.previous.store(previous, Ordering::Relaxed);
        }
        if let Some(previous) = previous.checked_sub(1) {
            // SAFETY: as above.
            unsafe { ground.page_heap.table.record(PageIndex(previous)) }.next.store(next, Ordering::Relaxed);
        } else {
            debug_assert_eq!(self.heads[usize::from(list)], page.0 + 1);
            self.heads[usize::from(list)] = next;
            if next == 0 {
                self.occupied &= !(1 << list);
            }
        }
        record.list.store(0, Ordering::Relaxed);
    }
}

/// Moves free blocks of a span into `room`, from its end downwards: first those that were used before, then untouched ones.
fn take_from_span(spans: &mut Spans, class: SizeClass, page: PageIndex, room: &mut [*mut u8], ground: Ground<'_>) -> usize {
    let table = &ground.page_heap.table;
    // SAFETY: a span on a list exists (I-span).
    let record = unsafe { table.record(page) };
    // SAFETY: as above; it is the first page of a span of so many blocks.
    let bitmap = unsafe { table.bitmap(page, class.span_blocks()) };
    let (start, bytes) = (table.address(page), class.bytes());
    let free = u32::from(record.free.load(Ordering::Relaxed));
    let fresh = u32::from(record.fresh.load(Ordering::Relaxed));
    let untouched = class.span_blocks() - fresh;
    let wanted = room.len() as u32;
    regain(record, ground);
    let mut places = room.iter_mut().rev();
    let mut taken = 0;
    if free > untouched {
        taken = bitmap.take_lowest(wanted, |index| {
            if let Some(place) = places.next() {
                *place = os::pointer(start + index as usize * bytes);
            }
        });
    }
    let more = untouched.min(wanted - taken);
    let tag = if record.is_zeroed() && !class.is_small() { ZEROED } else { 0 };
    for (index, place) in (fresh..fresh + more).zip(places) {
        *place = os::pointer((start + index as usize * bytes) | tag);
    }
    record.fresh.store((fresh + more) as u16, Ordering::Relaxed);
    taken += more;
    let left = free - taken;
    record.free.store(left as u16, Ordering::Relaxed);
    if left == 0 {
        spans.unlist(page, record, ground);
    } else {
        spans.relist(page, record, left, ground);
    }
    taken as usize
}

/// The span's pages that were given back hold memory again, or soon will.
#[inline]
fn regain(record: &PageRecord, ground: Ground<'_>) {
    let released = record.released.load(Ordering::Relaxed);
    if released != 0 {
        record.released.store(0, Ordering::Relaxed);
        record.seen.store(0, Ordering::Relaxed);
        ground.page_heap.regained_within(usize::from(released) * os::page_bytes());
    }
}

/// The memory of the seed: a run of pages that say so.
fn seed_land(classes: usize, ground: Ground<'_>) -> Option<usize> {
    let pages = (crate::config::SEED_BYTES / PAGE_BYTES) as u32;
    let run = ground.page_heap.take_run(pages, 1, Zone::Window)?;
    for page in 0..pages {
        // SAFETY: the page heap handed this run out, so its pages exist.
        let record = unsafe { ground.page_heap.table.record(run.page.plus(page)) };
        record.begin_whole(Kind::Seed, None, pages, run.zeroed, Holder::Us);
    }
    let table = &ground.page_heap.table;
    table.settle_seed(table.address(run.page), classes);
    // SAFETY: as above.
    unsafe { table.set_class_byte(run.page, pages, SEED_BYTE) };
    Some(table.address(run.page))
}

/// The first page of the span of this class that an address lies in.
#[inline]
fn span_of(address: usize, class: SizeClass, ground: Ground<'_>) -> Option<PageIndex> {
    let page = ground.page_heap.table.locate(address)?;
    // SAFETY: `locate` found it.
    let record = unsafe { ground.page_heap.table.record(page) };
    record.back_in_blocks_of(class).map(|back| PageIndex(page.0 - back))
}

/// An address that is not in a span of its class: in the seed it may be right, else says what is wrong with it.
#[cold]
fn give_to_seed(address: usize, class: SizeClass, ground: Ground<'_>) -> Result<(), Misuse> {
    match kind_at(address, ground)? {
        Kind::Seed if class.is_small() => ground.seed.give(address, class).map_err(|kind| refine(kind, address)),
        kind => Err(wrong_kind(kind)),
    }
}

fn kind_at(address: usize, ground: Ground<'_>) -> Result<Kind, Misuse> {
    if !address.is_multiple_of(8) {
        return Err(Misuse::Misaligned);
    }
    let table = &ground.page_heap.table;
    let page = table.locate(address).ok_or_else(|| table.stranger(address))?;
    // SAFETY: `locate` found it.
    Ok(unsafe { ground.page_heap.table.record(page) }.kind())
}

const fn wrong_kind(kind: Kind) -> Misuse {
    match kind {
        Kind::Free => Misuse::NeverAllocated,
        Kind::Blocks | Kind::Seed | Kind::Whole | Kind::Run | Kind::Sampled => Misuse::SizeMismatch,
    }
}

/// Inside a block: where no block could begin at all, that is the better thing to say.
const fn within_block(address: usize) -> Misuse {
    if address.is_multiple_of(8) { Misuse::Interior } else { Misuse::Misaligned }
}

const fn refine(kind: Misuse, address: usize) -> Misuse {
    match kind {
        Misuse::Interior => within_block(address),
        other => other,
    }
}

/// Of which class a block at this address would be, by nothing but the address. `None`: of none, so it is a run or a huge block, if anything. Whether
/// a block begins there is not asked, only whether one could. Takes no lock.
#[cfg(freestone_c)]
pub(crate) fn class_at(address: usize, ground: Ground<'_>) -> Result<Option<SizeClass>, Misuse> {
    let table = &ground.page_heap.table;
    match table.class_byte(address) {
        SEED_BYTE => {
            return SizeClass::of_byte(table.seed_byte(address)).map_or(Err(Misuse::NeverAllocated), |class| Ok(Some(class)));
        }
        0 => {}
        byte => return Ok(SizeClass::of_byte(byte)),
    }
    let Some(page) = table.locate(address) else { return Ok(None) };
    if !address.is_multiple_of(crate::size_class::C_ALIGN) {
        return Err(Misuse::Misaligned);
    }
    // SAFETY: `locate` found it.
    let record = unsafe { table.record(page) };
    match record.kind() {
        Kind::Run => Ok(None),
        Kind::Sampled => Ok(Some(record.class())),
        // Only if it has just become something; then nobody rightly has a block of it.
        Kind::Blocks | Kind::Seed | Kind::Whole | Kind::Free => Err(Misuse::NeverAllocated),
    }
}

/// Is this a block of the class that a program or a cache could have? Takes no class lock: the bits it looks at do not change while
/// somebody rightly has the block.
pub(crate) fn inspect(address: usize, class: SizeClass, ground: Ground<'_>) -> Result<(), Misuse> {
    if class.shape() == Shape::Whole {
        return whole_record(address, class, ground).map(|_| ());
    }
    let Some(head) = span_of(address, class, ground) else {
        return match kind_at(address, ground)? {
            Kind::Seed if class.is_small() => ground.seed.inspect(address, class).map_err(|kind| refine(kind, address)),
            kind => Err(wrong_kind(kind)),
        };
    };
    let table = &ground.page_heap.table;
    match class.block_at(address - table.address(head)) {
        Place::Block(index) => {
            // SAFETY: `span_of` found the page through the table.
            let fresh = unsafe { table.record(head) }.fresh.load(Ordering::Relaxed);
            // SAFETY: as above; it is the first page of a span of this class.
            let bitmap = unsafe { table.bitmap(head, class.span_blocks()) };
            if index >= u32::from(fresh) {
                Err(Misuse::NeverAllocated)
            } else if bitmap.is_set(index) {
                Err(Misuse::DoubleFree)
            } else {
                Ok(())
            }
        }
        Place::Inside => Err(within_block(address)),
        Place::Tail => Err(Misuse::NeverAllocated),
    }
}

/// Are all of these blocks of the class, and all different? Asks less than [`inspect`]: range, class, start of a block; what central itself
/// knows is asked when they come back to it. Otherwise says what is wrong with which.
pub(crate) fn inspect_all(blocks: &[*mut u8], class: SizeClass, ground: Ground<'_>) -> Result<(), (Misuse, usize)> {
    // One bit per hashed address: a bit met twice is looked at closely. 32 for each block, so few are.
    const SEEN_BITS: usize = 32 * if MAGAZINE_BLOCKS_MAX < LOOKED_AT_MAX { MAGAZINE_BLOCKS_MAX } else { LOOKED_AT_MAX };
    // Of a deep stack only so many are looked at.
    const LOOKED_AT_MAX: usize = 2 * STACK_ARMED_CHECKED;
    let mut seen = [0_u64; SEEN_BITS / 64];
    // The seed's run of the block before; spans are not remembered, because in a magazine that has
    // been in use for a while the next block is from another one.
    let mut run = 0..0;
    for (position, entry) in blocks.iter().enumerate() {
        let address = entry.addr() & !ZEROED;
        let start = if run.contains(&address) {
            run.start
        } else if let Some(found) = ground.seed.extent_at(address, class) {
            run = found;
            run.start
        } else if let Some(head) = span_of(address, class, ground) {
            ground.page_heap.table.address(head)
        } else {
            return Err((not_in_seed(address, class, ground), address));
        };
        match class.block_at(address - start) {
            Place::Block(_) => {}
            Place::Inside => return Err((within_block(address), address)),
            Place::Tail => return Err((Misuse::NeverAllocated, address)),
        }
        let hash = address.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - SEEN_BITS.ilog2());
        let (word, bit) = (&mut seen[hash / 64], 1 << (hash % 64));
        if *word & bit != 0 && blocks[..position].iter().any(|other| other.addr() & !ZEROED == address) {
            return Err((Misuse::DoubleFree, address));
        }
        *word |= bit;
    }
    Ok(())
}

/// What an address is that lies in no span of its class, and in no run of the seed.
#[cold]
fn not_in_seed(address: usize, class: SizeClass, ground: Ground<'_>) -> Misuse {
    match kind_at(address, ground) {
        Ok(Kind::Seed) if class.is_small() => ground.seed.extent_of(address, class).err().unwrap_or(Misuse::NeverAllocated),
        Ok(kind) => wrong_kind(kind),
        Err(kind) => kind,
    }
}

/// The record of a block that is a span of its own.
pub(crate) fn whole_record(address: usize, class: SizeClass, ground: Ground<'_>) -> Result<(PageIndex, &PageRecord), Misuse> {
    let aligned = address.is_multiple_of(CLASS_ALIGN_MAX);
    if aligned && let Some(page) = ground.page_heap.table.locate(address) {
        // SAFETY: `locate` found it.
        let record = unsafe { ground.page_heap.table.record(page) };
        if record.is_whole_of(class) {
            return Ok((page, record));
        }
    }
    Err(match kind_at(address, ground)? {
        _ if !aligned => Misuse::Interior,
        // Pages inside a whole block have no record of their own.
        kind => wrong_kind(kind),
    })
}

#[cfg(test)]
mod tests;
