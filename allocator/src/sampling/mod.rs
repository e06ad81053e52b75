//! Floor 5. Samples: some allocations are looked at closely. Who asked, for how much, what became of the block, and after how long.
//!
//! Which ones is left to chance (`chance`), and the thread cache arms its arrays so that the ordinary "empty" branch fires in front of each (see `thread_cache`).
//! A chosen block of up to 32 KiB lies in a zone of its own, told apart by one bit of its address, and enters no magazine: so its end is seen at once
//! (`zone`). Larger blocks take a slow path anyway, which finds the chosen ones by their address in a small table. What is known is kept by call site (`sites`).
//!
//! One lock is behind all of this, and held for some hundred nanoseconds per sample. Nothing is asked of the system while it is held, but for memory for
//! ourselves, once in 128 KiB of it.

mod choices;
mod followed;
pub(crate) mod guarded;
mod heads;
mod sites;
mod zone;

use core::ptr::NonNull;

use crate::atomic::{AtomicU64, Ordering};
use crate::config::{ZONE_LIVE_SHARE, ZONE_MIN_BYTES};
use crate::counters::Event;
use crate::fatal::Misuse;
use crate::frames::{self, Caller, StackBounds};
use crate::meta::Meta;
use crate::os;
use crate::page_heap::{PageHeap, Zone};
use crate::probes;
use crate::site::{ProfileSummary, Site, Stack, Stall, StallKind};
use crate::size_class::{Shape, SizeClass};
use crate::sync::{Lock, Rank};
use crate::units::PageIndex;

pub(crate) use choices::Choices;
pub(crate) use followed::Followed;
use followed::{Blocks, Chains, Large};
use guarded::{Actor, Freed, Guarded, Token, Wanted};
pub(crate) use sites::Portion;
use sites::{Birth, Bound, Death, Key, Sites, Size, Tracked};
use zone::{Sample, Spans, span_pages};

/// What was asked for, and from where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) size: usize,
    pub(crate) align: usize,
    /// The block takes the place of another one.
    pub(crate) grown: bool,
    pub(crate) caller: &'a Caller,
}

/// The thread that asks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Who<'a> {
    /// The kernel's number.
    pub(crate) thread: u32,
    pub(crate) tag: u32,
    /// With which its samples are drawn.
    pub(crate) interval: u32,
    pub(crate) bounds: &'a StackBounds,
}

/// The rooms that memory comes from.
#[derive(Clone, Copy)]
pub(crate) struct Ground<'a> {
    pub(crate) page_heap: &'a PageHeap,
    pub(crate) meta: &'a Meta,
    pub(crate) choices: &'a Choices,
}

impl Ground<'_> {
    fn bound(&self) -> Bound {
        Bound { held: self.page_heap.held(), most: self.choices.memory_max(self.page_heap) }
    }
}

/// What is behind the lock.
struct State {
    sites: Sites,
    spans: Spans,
    large: Blocks,
}

/// The samples of a heap.
pub(crate) struct Sampling {
    /// Sampled blocks per class that lie in the zone and have no stand-in: no thread's slots count them.
    allocations: [AtomicU64; SizeClass::COUNT],
    frees: [AtomicU64; SizeClass::COUNT],
    pub(crate) guarded: Guarded,
    /// Where large sampled blocks are found.
    chains: Chains,
    state: Lock<State>,
}

impl Sampling {
    pub(crate) const fn new() -> Self {
        Self {
            allocations: [const { AtomicU64::new(0) }; SizeClass::COUNT],
            frees: [const { AtomicU64::new(0) }; SizeClass::COUNT],
            guarded: Guarded::new(),
            chains: Chains::new(),
            state: Lock::new(Rank::Samples, State { sites: Sites::new(), spans: Spans::new(), large: Blocks::new() }),
        }
    }

    fn capture(caller: &Caller, bounds: &StackBounds) -> (Stack, bool) {
        let mut stack = Stack::EMPTY;
        let captured = frames::capture(caller, &mut stack.frames, bounds);
        stack.depth = captured.depth as u8;
        stack.is_cut = captured.is_cut;
        (stack, captured.is_failed)
    }

    // ---- blocks of the classes up to 32 KiB ------------------------------------------------------------------------

    /// A block that was chosen. Where it can have no place in the zone it is the one that would stand in for it, or an `ordinary` one. `None`: no memory.
    #[inline(never)]
    pub(crate) fn allocate(
        &self,
        class: SizeClass,
        request: &Request<'_>,
        who: &Who<'_>,
        stand_in: Option<NonNull<u8>>,
        ordinary: impl FnOnce() -> Option<NonNull<u8>>,
        ground: Ground<'_>,
    ) -> Option<NonNull<u8>> {
        let now_ns = os::now_ns();
        let (stack, stack_failed) = Self::capture(request.caller, who.bounds);
        let key = Key { size: Size::of(Some(class), 0), tag: who.tag, interval: who.interval };
        let bytes = class.bytes();
        let birth = Birth { key, bytes, requested: request.size, grown: request.grown, stack_failed, now_ns };
        let bound = ground.bound();
        let wanted = Wanted { size: request.size, align: request.align, class };
        let actor = Actor { thread: who.thread, now_ns, stack: stack.frames() };
        if let Some(block) = self.guard_if_next(&wanted, &actor, who.interval as usize, ground) {
            let site = self.state.lock().sites.begin(&stack, &birth, Tracked::Yes, bound, ground.meta);
            // One that is not known of is one all the same.
            let token = Token { site: site.map_or(0, |site| site + 1), stand_in: stand_in.map_or(0, |block| block.addr().get()) };
            self.guarded.set_token(block.addr().get(), token);
            if stand_in.is_none() {
                // Release: as below.
                self.allocations[class.index()].fetch_add(1, Ordering::Release);
            }
            Self::count(bytes, request, ground);
            return Some(block);
        }
        loop {
            let mut state = self.state.lock();
            let State { sites, spans, .. } = &mut *state;
            if spans.has_room(class) {
                let Some(site) = sites.begin(&stack, &birth, Tracked::Yes, bound, ground.meta) else {
                    drop(state);
                    Self::count(bytes, request, ground);
                    return stand_in.or_else(ordinary);
                };
                let own = Sample { site: site + 1, thread: who.thread, began_ns: now_ns, stand_in };
                let address = spans.take(class, own, ground.page_heap);
                if stand_in.is_none() {
                    // Release: a reader that sees the free of this block, and so sums it, also sees its allocation. Pairs with the Acquire in
                    // `frees`.
                    self.allocations[class.index()].fetch_add(1, Ordering::Release);
                }
                drop(state);
                Self::count(bytes, request, ground);
                return Some(os::block(address));
            }
            let may_grow = spans.cost_with_one_more(class) <= ZONE_MIN_BYTES + ground.page_heap.held() / ZONE_LIVE_SHARE;
            drop(state);
            if !may_grow || !self.grow(class, ground) {
                break;
            }
        }
        let block = stand_in.or_else(ordinary)?;
        self.state.lock().sites.begin(&stack, &birth, Tracked::No, bound, ground.meta);
        Self::count(bytes, request, ground);
        Some(block)
    }

    fn count(bytes: usize, request: &Request<'_>, ground: Ground<'_>) {
        ground.page_heap.counters.count(Event::Sampled);
        probes::sample(bytes, request.size);
    }

    /// A sample with closed pages on both sides, if it is the next that is to have them.
    fn guard_if_next(&self, wanted: &Wanted, by: &Actor<'_>, interval: usize, ground: Ground<'_>) -> Option<NonNull<u8>> {
        // What it stands for, nearly: so many bytes go by between two samples, or one block.
        let random = self.guarded.is_next(wanted.size, wanted.class.bytes().max(interval), ground.choices.guard_interval())?;
        let block = self.guarded.allocate(wanted, by, random, ground.page_heap.table.region(), ground.meta)?;
        if let Some(watcher) = ground.choices.watcher() {
            self.guarded.watch_if_due(watcher, by.now_ns);
        }
        Some(block)
    }

    /// Another span for a class. `false`: no memory.
    fn grow(&self, class: SizeClass, ground: Ground<'_>) -> bool {
        let pages = span_pages(class);
        let Some(run) = ground.page_heap.take_run(pages, 1, Zone::Sampled) else { return false };
        let begun = self.state.lock().spans.begin(class, run.page, run.zeroed, ground.page_heap, ground.meta);
        if !begun {
            ground.page_heap.give_run(run.page, pages);
        }
        begun
    }

    /// A span ended, if one did: its pages go back. Without the lock.
    fn give_span(page: Option<PageIndex>, class: SizeClass, ground: Ground<'_>) {
        if let Some(page) = page {
            ground.page_heap.give_run(page, span_pages(class));
        }
    }

    /// Gives kept spans back that are empty.
    pub(crate) fn trim(&self, ground: Ground<'_>) {
        if self.zone_bytes() > 0 {
            for class in SizeClass::all().filter(|class| class.shape() != Shape::Whole) {
                let empty = self.state.lock().spans.end_kept(class, ground.page_heap);
                Self::give_span(empty, class, ground);
            }
        }
    }

    /// The end of a block in the sampled zone; says which ordinary block kept its place.
    pub(crate) fn free(
        &self,
        address: usize,
        class: SizeClass,
        thread: u32,
        ground: Ground<'_>,
    ) -> Result<Option<NonNull<u8>>, Misuse> {
        let now_ns = os::now_ns();
        let mut state = self.state.lock();
        let State { sites, spans, .. } = &mut *state;
        let (sample, empty) = spans.give(address, class, ground.page_heap)?;
        let lived_ns = now_ns.saturating_sub(sample.began_ns);
        sites.end(sample.site - 1, &Death { bytes: class.bytes(), lived_ns, elsewhere: sample.thread != thread });
        if sample.stand_in.is_none() {
            // Counted before the pages go, so that they are never both. Release: as in `allocate`.
            self.frees[class.index()].fetch_add(1, Ordering::Release);
        }
        drop(state);
        ground.page_heap.counters.count(Event::SampledEnd);
        probes::sample_end(class.bytes(), lived_ns);
        Self::give_span(empty, class, ground);
        Ok(sample.stand_in)
    }

    /// As [`free`](Self::free), of a guarded block. Dies if it is none, or if something was written beside it.
    #[cold]
    #[inline(never)]
    pub(crate) fn free_guarded(
        &self,
        address: usize,
        class: SizeClass,
        who: &Who<'_>,
        caller: &Caller,
        ground: Ground<'_>,
    ) -> Option<NonNull<u8>> {
        let (stack, _) = Self::capture(caller, who.bounds);
        let now_ns = os::now_ns();
        let thread = if who.thread == 0 { os::thread_id() } else { who.thread };
        let actor = Actor { thread, now_ns, stack: stack.frames() };
        let count = |freed: &Freed| {
            if freed.token.stand_in == 0 {
                // Release: as in `allocate`.
                self.frees[class.index()].fetch_add(1, Ordering::Release);
            }
        };
        let freed = match self.guarded.free(address, Some(class), &actor, count) {
            Ok(freed) => freed,
            Err(kind) => self.guarded.die(kind, address, Some(class), &actor),
        };
        let lived_ns = now_ns.saturating_sub(freed.since_ns);
        if let Some(site) = freed.token.site.checked_sub(1) {
            let death = Death { bytes: class.bytes(), lived_ns, elsewhere: freed.thread != who.thread };
            self.state.lock().sites.end(site, &death);
        }
        let stand_in = freed.token.stand_in;
        if freed.token.site != 0 {
            ground.page_heap.counters.count(Event::SampledEnd);
            probes::sample_end(class.bytes(), lived_ns);
        }
        (stand_in != 0).then(|| os::block(stand_in))
    }

    /// Is there a live block of this class at this address of the sampled zone?
    #[cfg(freestone_c)]
    pub(crate) fn inspect(&self, address: usize, class: SizeClass, page_heap: &PageHeap) -> Result<(), Misuse> {
        if self.guarded.owns(address) {
            let (_, of_block) = self.guarded.request_at(address)?;
            return if of_block == class { Ok(()) } else { Err(Misuse::SizeMismatch) };
        }
        let _state = self.state.lock();
        Spans::inspect(address, class, page_heap)
    }

    // ---- larger blocks ---------------------------------------------------------------------------------------------

    /// A block that was chosen stays where it is.
    #[inline(never)]
    pub(crate) fn follow(
        &self,
        address: usize,
        class: Option<SizeClass>,
        bytes: usize,
        request: &Request<'_>,
        who: &Who<'_>,
        ground: Ground<'_>,
    ) {
        let now_ns = os::now_ns();
        let (stack, stack_failed) = Self::capture(request.caller, who.bounds);
        let key = Key { size: Size::of(class, bytes), tag: who.tag, interval: who.interval };
        let birth = Birth { key, bytes, requested: request.size, grown: request.grown, stack_failed, now_ns };
        let bound = ground.bound();
        Self::count(bytes, request, ground);
        let mut state = self.state.lock();
        let State { sites, large, .. } = &mut *state;
        let tracked = if large.make_room(&self.chains, ground.meta) { Tracked::Yes } else { Tracked::No };
        let site = sites.begin(&stack, &birth, tracked, bound, ground.meta);
        if let (Some(site), Tracked::Yes) = (site, tracked) {
            large.follow(Large { address, site, thread: who.thread, bytes, began_ns: now_ns }, &self.chains);
        }
    }

    /// Is a block that is about to end perhaps one that is followed?
    #[inline]
    pub(crate) fn may_follow(&self, address: usize) -> bool {
        self.chains.may_have(address)
    }

    /// A large block is about to end: if it is followed, this is its end. To be called while nobody else can get a block at this address.
    #[cold]
    pub(crate) fn leave(&self, address: usize, thread: u32, page_heap: &PageHeap) {
        if let Some(followed) = self.lose_sight(address) {
            self.end(followed, thread, page_heap);
        }
    }

    /// A large block is about to change its address or its size, perhaps: nobody is to find it until that is settled.
    #[cold]
    pub(crate) fn lose_sight(&self, address: usize) -> Option<Followed> {
        self.state.lock().large.hide(address, &self.chains)
    }

    /// It stays as it was.
    pub(crate) fn find_again(&self, followed: Followed) {
        self.state.lock().large.show(followed, &self.chains);
    }

    /// It ended.
    pub(crate) fn end(&self, followed: Followed, thread: u32, page_heap: &PageHeap) {
        let now_ns = os::now_ns();
        let mut state = self.state.lock();
        let State { sites, large, .. } = &mut *state;
        let ended = large.end(followed);
        let lived_ns = now_ns.saturating_sub(ended.began_ns);
        sites.end(ended.site, &Death { bytes: ended.bytes, lived_ns, elsewhere: ended.thread != thread });
        drop(state);
        page_heap.counters.count(Event::SampledEnd);
        probes::sample_end(ended.bytes, lived_ns);
    }

    // ---- stalls ----------------------------------------------------------------------------------------------------

    #[cold]
    #[inline(never)]
    pub(crate) fn stalled(&self, kind: StallKind, ns: u64, caller: &Caller, bounds: &StackBounds, ground: Ground<'_>) {
        let (stack, _) = Self::capture(caller, bounds);
        let (now_ns, bound) = (os::now_ns(), ground.bound());
        self.state.lock().sites.stalled(&stack, kind, ns, now_ns, bound, ground.meta);
    }

    // ---- reading ---------------------------------------------------------------------------------------------------

    pub(crate) fn sites(&self, from: u32, into: &mut [Site]) -> Portion {
        self.state.lock().sites.sites(from, into)
    }

    pub(crate) fn stalls(&self, from: u32, into: &mut [Stall]) -> Portion {
        self.state.lock().sites.stalls(from, into)
    }

    pub(crate) fn summary(&self) -> ProfileSummary {
        let (guarded, guarded_live) = self.guarded.counts();
        let state = self.state.lock();
        ProfileSummary { zone_bytes: state.spans.bytes(), guarded, guarded_live, ..state.sites.summary() }
    }

    /// Counts what is free beside sampled blocks, and which sites they belong to. Holds the lock for some pages of the zone at a time.
    pub(crate) fn measure_pinned(&self, page_heap: &PageHeap) {
        const AT_A_TIME: usize = 16;
        let round = self.state.lock().sites.begin_pinned();
        for first in page_heap.table.sampled_pages().step_by(AT_A_TIME) {
            let mut state = self.state.lock();
            let pages = first..(first + AT_A_TIME as u32).min(page_heap.table.sampled_pages().end);
            for page in pages.map(PageIndex) {
                Spans::each_live(page, page_heap, |sample, class| {
                    if let Some(stand_in) = sample.stand_in {
                        state.sites.pins(sample.site - 1, pinned_beside(stand_in, class, page_heap), round);
                    }
                });
            }
        }
    }

    pub(crate) fn reset_peak(&self, page_heap: &PageHeap) {
        let (held, now_ns) = (page_heap.held(), os::now_ns());
        self.state.lock().sites.reset_peak(held, now_ns);
    }

    /// Spans in the zone, in bytes.
    pub(crate) fn zone_bytes(&self) -> usize {
        self.state.lock().spans.bytes()
    }

    pub(crate) fn allocations(&self, class: SizeClass) -> u64 {
        // Acquire: see `allocate`.
        self.allocations[class.index()].load(Ordering::Acquire)
    }

    pub(crate) fn frees(&self, class: SizeClass) -> u64 {
        // Acquire: see `allocate`.
        self.frees[class.index()].load(Ordering::Acquire)
    }

    pub(crate) fn before_fork(&self) {
        self.state.before_fork();
    }

    pub(crate) fn after_fork(&self) {
        self.state.after_fork();
    }
}

/// Bytes that are free in the span of an ordinary block and hold memory, shared among all that are live there.
fn pinned_beside(stand_in: NonNull<u8>, class: SizeClass, page_heap: &PageHeap) -> u64 {
    let table = &page_heap.table;
    let Some(page) = table.locate(stand_in.addr().get()) else { return 0 };
    // SAFETY: `locate` found it.
    let Some(back) = unsafe { table.record(page) }.back_in_blocks_of(class) else { return 0 };
    // SAFETY: as above: the first page of that span.
    let head = unsafe { table.record(PageIndex(page.0 - back)) };
    // Relaxed: numbers of a moment; the block is out, so the span does not end.
    let free = u32::from(head.free.load(Ordering::Relaxed)).min(class.span_blocks() - 1);
    let released = usize::from(head.released.load(Ordering::Relaxed)) * os::page_bytes();
    let bytes = (free as usize * class.bytes()).saturating_sub(released);
    bytes as u64 / u64::from(class.span_blocks() - free)
}

/// The size that chance goes by, for a block of a class or beyond them.
#[inline]
pub(crate) fn odds_bytes(class: Option<SizeClass>, bytes: usize) -> usize {
    Size::of(class, bytes).odds_bytes()
}

#[cfg(test)]
mod tests;
