//! Floor 4. The page heap: the store of pages, and the only room that asks the system for memory for programs.
//!
//! Runs of pages up to a step come from the [`Filler`]s, one per zone; larger blocks are huge [`Slots`]. What a run is used for is the
//! business of the rooms above.
//!
//! The window grows by one step at a time, at the address behind the last, so that the kernel sees one mapping that gets longer. If
//! something of somebody else's lies there, that step is skipped. Nothing is reserved, so a limit on address space
//! (`RLIMIT_AS`, set before or after) only means fewer steps, and other code finds room too.
//!
//! Locks: `growth` is held while the window changes, system calls included; `state` and `huge` never across a system call: what is
//! being purged or mapped is claimed first, so that nobody else sees it.

mod filler;
mod huge;
mod zones;

use core::ptr::NonNull;

use crate::atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering};
use crate::config::{HUGE_PAGES_HEAP_BYTES, TABLE_GROWTH_BYTES};
use crate::counters::{Counters, Event};
use crate::meta::Meta;
use crate::options::HugePages;
use crate::os::{self, MapError};
use crate::span::page_table::{PageTable, REGION_BYTES, Table, ZONE_PAGES};
use crate::sync::{Lock, Rank};
use crate::units::{PAGE_BYTES, PageIndex, STEP_BYTES, STEP_PAGES, STEP_SHIFT, WINDOW_BYTES, WINDOW_SHIFT, round_up};

use filler::{Backing, Filler, STEP_ENTRY_BYTES, Step};
use huge::{Slot, Slots, State};
use zones::{GrowthPace, StallGuard};

pub(crate) use filler::{Run, Thorough};
pub(crate) use huge::NotLive;

/// The largest page run: one step. Larger blocks get huge slots.
pub(crate) const RUN_BYTES_MAX: usize = STEP_BYTES;
/// The largest alignment that is served.
pub(crate) const ALIGN_MAX: usize = 1 << 30;

/// Which part of the region a run comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Zone {
    /// The window.
    Window = 0,
    /// Where sampled blocks live.
    Sampled = 1,
}

/// Retained huge slots beyond this, or beyond what is in use where that is more, are released by whoever frees one.
const RETAINED_MAX_BYTES: usize = 64 << 20;

/// The first steps of a zone that the tables of steps tell apart: the sampled zone's come one window later.
const ZONE_STEPS: u32 = ZONE_PAGES / STEP_PAGES;

/// Steps that turn out to be somebody else's, one after the other, before growing gives up.
const SKIPS_MAX: u32 = 64;

/// The page heap.
pub(crate) struct PageHeap {
    pub(crate) table: PageTable,
    pub(crate) counters: Counters,
    growth: Lock<Growth>,
    state: Lock<[Filler; 2]>,
    huge: Lock<Slots>,
    /// Counts successful growths, so that a thread that waited for one does not grow again.
    generation: AtomicU32,
    /// Bytes that rooms above or programs have. Approximate while they change.
    in_use: AtomicUsize,
    /// The most that was in use since somebody asked.
    peak: AtomicUsize,
    /// The current tick, told by the scavenger.
    tick: AtomicU32,
    huge_pages: AtomicU8,
    stall_guard: StallGuard,
}

/// How far the region is mapped.
struct Growth {
    /// The next step of each zone, counted from the zone's first.
    next_step: [u32; 2],
    /// Mapped bytes of each table, per zone; the table of steps comes last.
    tables: [[usize; Table::NEEDED.len() + 1]; 2],
    pace: GrowthPace,
    /// The window's first step was mapped when the region was chosen.
    first_step_is_mapped: bool,
}

/// What the page heap holds, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct PageHeapBytes {
    /// Mapped for runs and slots.
    pub(crate) mapped: usize,
    /// In runs that were taken and not given back.
    pub(crate) runs: usize,
    /// In huge slots that the program has.
    pub(crate) huge: usize,
    /// Free and holding memory.
    pub(crate) dirty: usize,
    /// Free and holding none.
    pub(crate) clean: usize,
    /// Mapped for the tables.
    pub(crate) tables: usize,
    /// Of that, what belongs to steps that were ever reached. It stays when steps go.
    pub(crate) tables_used: usize,
}

/// A huge block.
#[derive(Debug)]
pub(crate) struct HugeBlock {
    pub(crate) address: NonNull<u8>,
    /// Bytes the program has.
    pub(crate) size: usize,
    /// Of those, bytes from the start that are not known to be zero.
    pub(crate) dirty: usize,
}

impl PageHeap {
    pub(crate) const fn new() -> Self {
        Self {
            table: PageTable::new(),
            counters: Counters::new(),
            growth: Lock::new(
                Rank::Growth,
                Growth {
                    next_step: [0; 2],
                    tables: [[0; Table::NEEDED.len() + 1]; 2],
                    pace: GrowthPace::new(),
                    first_step_is_mapped: false,
                },
            ),
            state: Lock::new(Rank::PageHeap, [const { Filler::new() }; 2]),
            huge: Lock::new(Rank::Huge, Slots::new()),
            generation: AtomicU32::new(0),
            in_use: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            tick: AtomicU32::new(0),
            huge_pages: AtomicU8::new(0),
            stall_guard: StallGuard::new(),
        }
    }

    /// Chooses which pages new steps ask for.
    pub(crate) fn set_huge_pages(&self, option: HugePages) {
        // Relaxed, here and in `huge_pages`: the option orders nothing.
        self.huge_pages.store(option as u8, Ordering::Relaxed);
    }

    /// What was chosen; and where the choice is ours, none while they stall.
    fn huge_pages(&self, now_ns: u64) -> HugePages {
        match self.huge_pages.load(Ordering::Relaxed) {
            1 => HugePages::Never,
            2 => HugePages::Always,
            _ if self.stall_guard.allows(now_ns) => HugePages::Auto,
            _ => HugePages::Never,
        }
    }

    /// Bytes in use by the rooms above and by programs.
    pub(crate) fn in_use(&self) -> usize {
        // Relaxed: an estimate for policies.
        self.in_use.load(Ordering::Relaxed)
    }

    /// The most that was in use since this was asked last.
    pub(crate) fn take_peak(&self) -> usize {
        // Relaxed, here and in `gain`: as for `in_use`.
        self.peak.swap(self.in_use(), Ordering::Relaxed).max(self.in_use())
    }

    /// More is in use.
    fn gain(&self, bytes: usize) {
        let in_use = self.in_use.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if in_use > self.peak.load(Ordering::Relaxed) {
            self.peak.fetch_max(in_use, Ordering::Relaxed);
        }
    }

    /// Less is in use.
    fn lose(&self, bytes: usize) {
        self.in_use.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Time goes on: what is freed from now on is younger than what was freed before.
    pub(crate) fn set_tick(&self, tick: u32) {
        // Relaxed, here and in `tick`: an age, nothing is ordered by it.
        self.tick.store(tick, Ordering::Relaxed);
    }

    pub(crate) fn tick(&self) -> u32 {
        self.tick.load(Ordering::Relaxed)
    }

    // ---- runs ------------------------------------------------------------------------------------------------------

    /// Takes a run of `pages` pages that starts at a multiple of `align` pages. `None`: no memory.
    pub(crate) fn take_run(&self, pages: u32, align: u32, zone: Zone) -> Option<Run> {
        loop {
            // Acquire: sees the steps of the growths it counts. Pairs with the Release in `grow`.
            let generation = self.generation.load(Ordering::Acquire);
            let taken = self.state.lock()[zone as usize].take(pages, align);
            if let Some(run) = taken {
                self.gain(pages as usize * PAGE_BYTES);
                return Some(run);
            }
            self.grow(zone, generation)?;
        }
    }

    /// Takes a run back. Nobody uses its pages any more.
    pub(crate) fn give_run(&self, page: PageIndex, pages: u32) {
        self.lose(pages as usize * PAGE_BYTES);
        self.state.lock()[zone_of(page) as usize].give(page, pages, self.tick());
    }

    /// Makes a run longer where it is. `Some(true)`: the new pages are zero. `None`: it cannot grow there.
    pub(crate) fn extend_run(&self, page: PageIndex, pages: u32, more: u32) -> Option<bool> {
        let zeroed = self.state.lock()[zone_of(page) as usize].extend(page, pages, more)?;
        self.gain(more as usize * PAGE_BYTES);
        Some(zeroed)
    }

    /// Makes a run shorter where it is, by its last `less` pages.
    pub(crate) fn shorten_run(&self, page: PageIndex, pages: u32, less: u32) {
        self.lose(less as usize * PAGE_BYTES);
        self.state.lock()[zone_of(page) as usize].shorten(page, pages, less, self.tick());
    }

    // ---- growing ---------------------------------------------------------------------------------------------------

    /// Adds a step to a zone, unless somebody did since `generation`. `None`: no memory or no address space.
    #[cold]
    fn grow(&self, zone: Zone, generation: u32) -> Option<()> {
        let mut growth = self.growth.lock();
        // Relaxed: only growers change it, and they hold the lock.
        if self.generation.load(Ordering::Relaxed) != generation {
            return Some(());
        }
        if self.table.start().is_none() {
            self.settle(&mut growth)?;
        }
        let (again, gap_bytes) = {
            let filler = &mut self.state.lock()[zone as usize];
            let totals = filler.totals();
            (filler.take_unmapped(), (totals.mapped - totals.used) * PAGE_BYTES)
        };
        let step = match again {
            Some(step) => match self.map_step(step) {
                Ok(()) => step,
                // Somebody else's by now: left alone for good.
                Err(MapError::Occupied) => return Some(()),
                Err(MapError::OutOfMemory) => {
                    self.state.lock()[zone as usize].put_unmapped(step);
                    return None;
                }
            },
            None => self.map_next_step(&mut growth, zone)?,
        };
        let address = self.table.address(PageIndex::of_step(step));
        let now_ns = os::now_ns();
        let huge = zone == Zone::Window
            && growth.pace.next_step_is_huge(self.huge_pages(now_ns), self.in_use(), gap_bytes, now_ns);
        self.advise(address, STEP_BYTES, huge);
        let backing = if huge { Backing::HugePages } else { Backing::SmallPages };
        self.state.lock()[zone as usize].add(step, backing);
        // Release: the step is there. Pairs with the Acquire in `take_run`.
        self.generation.fetch_add(1, Ordering::Release);
        drop(growth);
        if huge {
            self.watch_huge_page(address);
        }
        Some(())
    }

    /// A step is about to be touched, which brings all of it; so it may as well be now, where it can be timed. Holds no lock of the page heap.
    fn watch_huge_page(&self, address: usize) {
        let asked_ns = os::now_ns();
        self.counters.count(Event::Advise);
        if os::populate(address, PAGE_BYTES) {
            let came_ns = os::now_ns();
            self.stall_guard.came(came_ns.saturating_sub(asked_ns), came_ns);
        }
    }

    fn map_step(&self, step: u32) -> Result<(), MapError> {
        self.map(self.table.address(PageIndex::of_step(step)), STEP_BYTES)
    }

    /// Maps the step behind the last of a zone, skipping what is somebody else's.
    fn map_next_step(&self, growth: &mut Growth, zone: Zone) -> Option<u32> {
        for _ in 0..SKIPS_MAX {
            let position = growth.next_step[zone as usize];
            // The window's upper half is for huge slots. The start lies somewhere in its first quarter.
            if position as usize * STEP_BYTES >= WINDOW_BYTES / 4 {
                return None;
            }
            let step = position + zone as u32 * ZONE_STEPS;
            self.map_tables(growth, zone, position)?;
            let is_mapped = zone == Zone::Window && core::mem::take(&mut growth.first_step_is_mapped);
            let mapped = if is_mapped { Ok(()) } else { self.map_step(step) };
            if mapped == Err(MapError::OutOfMemory) {
                return None;
            }
            growth.next_step[zone as usize] = position + 1;
            if mapped.is_ok() {
                self.table.raise_limit(PageIndex::of_step(step + 1));
                return Some(step);
            }
        }
        None
    }

    /// Makes sure that the tables have entries for a zone's step. They are mapped in larger pieces, one behind the other.
    fn map_tables(&self, growth: &mut Growth, zone: Zone, position: u32) -> Option<()> {
        let first_page = PageIndex(zone as u32 * ZONE_PAGES);
        for (index, mapped) in growth.tables[zone as usize].iter_mut().enumerate() {
            let (start, needed) = match Table::NEEDED.get(index) {
                Some(&table) => {
                    let pages = (position as usize + 1) * STEP_PAGES as usize;
                    (self.table.entry(table, first_page), pages * table.bytes_per_page())
                }
                None => (self.steps_address() + first_page.step() as usize * STEP_ENTRY_BYTES, (position as usize + 1) * STEP_ENTRY_BYTES),
            };
            debug_assert_eq!(start % TABLE_GROWTH_BYTES, 0);
            while *mapped < needed {
                self.map(start + *mapped, TABLE_GROWTH_BYTES).ok()?;
                *mapped += TABLE_GROWTH_BYTES;
            }
        }
        Some(())
    }

    /// Where the table of steps begins. Behind the page tables of the region.
    fn steps_address(&self) -> usize {
        self.table.region() + REGION_BYTES - WINDOW_BYTES
    }

    /// Chooses the region: tries places until the first step and the first tables can be mapped there.
    #[cold]
    fn settle(&self, growth: &mut Growth) -> Option<()> {
        let random = os::random();
        for attempt in 0..REGION_ATTEMPTS {
            let Some(region) = region_candidate(attempt, random) else { continue };
            // The start is somewhere in the window's first quarter: addresses differ from run to run.
            let steps = (random >> 24) as usize % (WINDOW_BYTES >> (STEP_SHIFT + 2));
            let start = region + steps * STEP_BYTES;
            if self.map(start, STEP_BYTES).is_err() {
                continue;
            }
            self.table.settle(region, start);
            if self.map_tables(growth, Zone::Window, 0).is_none() {
                // What was mapped of the tables stays mapped, unused: little, and at most once per attempt.
                growth.tables = [[0; Table::NEEDED.len() + 1]; 2];
                self.table.settle(0, 0);
                // SAFETY: mapped above, nobody knows of it.
                unsafe { self.unmap(start, STEP_BYTES) };
                continue;
            }
            growth.first_step_is_mapped = true;
            let steps_table = os::pointer(self.steps_address()).cast::<Step>();
            let mut state = self.state.lock();
            for filler in state.iter_mut() {
                // SAFETY: `map_tables` maps the entry of every step before it is added.
                unsafe { filler.settle(steps_table) };
            }
            drop(state);
            let huge_start = region + WINDOW_BYTES / 2 + steps * STEP_BYTES / 2;
            self.huge.lock().settle(huge_start.next_multiple_of(ALIGN_MAX.min(WINDOW_BYTES / 8)), region + WINDOW_BYTES);
            return Some(());
        }
        None
    }

    fn map(&self, address: usize, bytes: usize) -> Result<(), MapError> {
        self.counters.count(Event::Map);
        let mapped = os::map_at(address, bytes);
        if mapped.is_err() {
            self.counters.count(Event::Refused);
        }
        mapped
    }

    /// # Safety
    ///
    /// - As [`os::unmap`].
    unsafe fn unmap(&self, address: usize, bytes: usize) -> bool {
        self.counters.count(Event::Unmap);
        // SAFETY: handed on to the caller.
        let unmapped = unsafe { os::unmap(address, bytes) };
        if !unmapped {
            self.counters.count(Event::Refused);
        }
        unmapped
    }

    /// # Safety
    ///
    /// - As [`os::purge`].
    unsafe fn purge(&self, address: usize, bytes: usize) -> bool {
        self.counters.count(Event::Purge);
        // SAFETY: handed on to the caller.
        let purged = unsafe { os::purge(address, bytes) };
        if !purged {
            self.counters.count(Event::Refused);
        }
        purged
    }

    fn advise(&self, address: usize, bytes: usize, huge: bool) {
        self.counters.count(Event::Advise);
        // A no is fine: such a kernel has one kind of page.
        let _ = if huge { os::use_huge_pages(address, bytes) } else { os::use_small_pages(address, bytes) };
    }

    // ---- huge slots ------------------------------------------------------------------------------------------------

    /// Takes a block of more than a step, or one that is going to grow. `None`: no memory.
    pub(crate) fn take_huge(&self, bytes: usize, align: usize, meta: &Meta) -> Option<HugeBlock> {
        let size = huge_size(bytes)?;
        if self.table.start().is_none() {
            let mut growth = self.growth.lock();
            if self.table.start().is_none() {
                // Without a region there are still mappings outside of it.
                let _ = self.settle(&mut growth);
            }
        }
        loop {
            let claimed = self.huge.lock().claim(size, align, meta);
            let Some(slot) = claimed else { return self.take_outside(size, align, meta) };
            match self.map_slot(&slot, size) {
                Ok(mapped) => return Some(self.hand_out(slot, mapped, size)),
                Err(MapError::OutOfMemory) => {
                    self.put_back(slot);
                    return None;
                }
                // What it has is ours all the same; it cannot get longer.
                Err(MapError::Occupied) if slot.mapped > 0 => {
                    self.huge.lock().settle_slot(Slot { room: slot.mapped, state: State::Retained, ..slot });
                }
                Err(MapError::Occupied) => self.huge.lock().abandon(slot.address),
            }
        }
    }

    /// Maps what a busy slot lacks to hold `size` bytes; says how much is mapped then.
    fn map_slot(&self, slot: &Slot, size: usize) -> Result<usize, MapError> {
        if slot.mapped >= size {
            return Ok(slot.mapped);
        }
        let more = size - slot.mapped;
        self.map(slot.address + slot.mapped, more)?;
        if more >= STEP_BYTES && self.block_is_huge(size) {
            // All of it, so that the slot stays one mapping, which moving needs.
            self.advise(slot.address, size, true);
        }
        Ok(size)
    }

    /// Shall a fresh huge block ask for huge pages? It is touched from its start on, and at most one page too many is taken.
    fn block_is_huge(&self, size: usize) -> bool {
        match self.huge_pages(os::now_ns()) {
            HugePages::Never => false,
            HugePages::Always => true,
            HugePages::Auto => self.in_use() + size >= HUGE_PAGES_HEAP_BYTES,
        }
    }

    fn hand_out(&self, slot: Slot, mapped: usize, size: usize) -> HugeBlock {
        self.gain(size);
        let live = Slot { mapped, size, dirty: slot.dirty.max(size), state: State::Live, ..slot };
        self.huge.lock().settle_slot(live);
        HugeBlock { address: os::block(slot.address), size, dirty: slot.dirty.min(size) }
    }

    /// Puts a busy slot back as it was.
    fn put_back(&self, slot: Slot) {
        let state = if slot.mapped > 0 { State::Retained } else { State::Vacant };
        self.huge.lock().settle_slot(Slot { state, ..slot });
    }

    /// A mapping of its own, for blocks that do not fit the window.
    #[cold]
    fn take_outside(&self, size: usize, align: usize, meta: &Meta) -> Option<HugeBlock> {
        let padded = if align > PAGE_BYTES { size.checked_add(align)? } else { size.checked_add(PAGE_BYTES)? };
        self.counters.count(Event::Map);
        let Some(mapping) = os::map_anywhere(padded) else {
            self.counters.count(Event::Refused);
            return None;
        };
        let start = mapping.addr().get();
        let address = start.next_multiple_of(align.max(PAGE_BYTES));
        let before = address - start;
        let behind = padded - before - size;
        let kept = [(start, before), (address + size, behind)].into_iter().all(|(at, bytes)| {
            // SAFETY: the edges of a mapping made above, of which nobody knows.
            bytes == 0 || unsafe { self.unmap(at, bytes) }
        });
        // If an edge could not be trimmed, it stays mapped behind our back; the block is good all the same.
        let _ = kept;
        if !self.huge.lock().adopt(address, size, meta) {
            // SAFETY: as above.
            unsafe { self.unmap(address, size) };
            return None;
        }
        let slot = Slot {
            address,
            room: size,
            mapped: size,
            dirty: 0,
            size: 0,
            state: State::Busy,
            freed_tick: 0,
            outside: true,
        };
        Some(self.hand_out(slot, size, size))
    }

    /// Takes a huge block back: it stays warm for the next one, within bounds.
    pub(crate) fn give_huge(&self, address: usize) -> Result<usize, NotLive> {
        let claimed = {
            let mut huge = self.huge.lock();
            match huge.claim_live(address)? {
                Some(slot) => Ok(slot),
                None => Err(huge.leave_trimmed(address, self.tick())?),
            }
        };
        let slot = match claimed {
            Ok(slot) => slot,
            Err(size) => {
                self.lose(size);
                return Ok(size);
            }
        };
        self.lose(slot.size);
        if slot.outside {
            let _ = self.drop_outside(slot);
            return Ok(slot.size);
        }
        let retained = Slot { state: State::Retained, size: 0, freed_tick: self.tick(), ..slot };
        let free_dirty = {
            let mut huge = self.huge.lock();
            huge.settle_slot(retained);
            huge.totals().free_dirty()
        };
        if free_dirty > RETAINED_MAX_BYTES.max(self.in_use()) {
            self.release_slots(free_dirty - RETAINED_MAX_BYTES, self.tick());
        }
        Ok(slot.size)
    }

    /// Gives the address space of a claimed slot outside the window back. `false`: the system would not take it.
    fn drop_outside(&self, slot: Slot) -> bool {
        // Forgotten first: once unmapped, the addresses are anybody's, and another slot's perhaps.
        self.huge.lock().forget(slot.address);
        // SAFETY: the block was given up by its owner, and the slot was claimed (I-claim).
        let unmapped = unsafe { self.unmap(slot.address, slot.mapped) };
        if !unmapped {
            // Should there be no room to remember it, it stays mapped for good.
            let _ = self.huge.lock().restore(Slot { state: State::Retained, size: 0, freed_tick: self.tick(), ..slot });
        }
        unmapped
    }

    /// Changes the size of a huge block where it is. `Ok(None)`: it cannot. Otherwise its old size, and the block as it is now.
    pub(crate) fn resize_huge(&self, address: usize, bytes: usize) -> Result<Option<(usize, HugeBlock)>, NotLive> {
        // Not now, if its end is being unmapped: a copy is made instead.
        let Some(slot) = self.huge.lock().claim_live(address)? else { return Ok(None) };
        let target = huge_size(bytes).filter(|&size| size <= slot.room);
        let resized = target.and_then(|size| {
            // Address space is cheaper than calls, unless there is a limit on it: a slot that grows is mapped up to its next doubling.
            let ahead = slot.mapped.saturating_mul(2).clamp(size, slot.room);
            let ahead = if size > slot.mapped && os::address_space_is_limited() { size } else { ahead };
            let mapped = self.map_slot(&slot, if size > slot.mapped { ahead } else { size });
            mapped.or_else(|_| self.map_slot(&slot, size)).ok().map(|mapped| (size, mapped))
        });
        let Some((size, mapped)) = resized else {
            self.huge.lock().settle_slot(Slot { state: State::Live, ..slot });
            return Ok(None);
        };
        self.lose(slot.size);
        self.gain(size);
        let live = Slot { mapped, size, dirty: slot.dirty.max(size), state: State::Live, ..slot };
        self.huge.lock().settle_slot(live);
        Ok(Some((slot.size, HugeBlock { address: os::block(address), size, dirty: slot.dirty.min(size) })))
    }

    /// Moves the pages of a huge block into a larger slot without copying. `Ok(None)`: that is not possible, or copying into warm
    /// memory is better; nothing changed. Otherwise as [`resize_huge`](Self::resize_huge).
    pub(crate) fn move_huge(
        &self,
        address: usize,
        bytes: usize,
        align: usize,
        meta: &Meta,
    ) -> Result<Option<(usize, HugeBlock)>, NotLive> {
        let Some(size) = huge_size(bytes) else { return Ok(None) };
        let Some(old) = self.huge.lock().claim_live(address)? else { return Ok(None) };
        let keep = Slot { state: State::Live, ..old };
        let new = if old.outside { None } else { self.claim_empty_slot(size, align, meta) };
        let Some(new) = new else {
            self.huge.lock().settle_slot(keep);
            return Ok(None);
        };
        // The target is mapped first: that proves that the addresses are ours, which moving onto them would not ask.
        let mapped = self.map_slot(&new, size);
        self.counters.count(Event::Move);
        // SAFETY: both slots are claimed (I-claim); of the source all that is mapped moves, and the target is as long and mapped just now.
        let moved = mapped.is_ok() && unsafe { os::move_mapping(old.address, old.mapped, new.address, size.max(old.mapped)) };
        let mut huge = self.huge.lock();
        if !moved {
            huge.settle_slot(keep);
            // Some kernels unmap the target before they refuse, and then it may be somebody else's by now. If it is still mapped, whoever
            // claims the slot next finds it occupied and leaves it alone.
            huge.settle_slot(Slot { mapped: 0, dirty: 0, state: State::Vacant, ..new });
            return Ok(None);
        }
        let dirty = old.dirty;
        huge.settle_slot(Slot { mapped: 0, dirty: 0, size: 0, state: State::Vacant, ..old });
        let live = Slot { mapped: size.max(old.mapped), dirty: dirty.max(size), size, state: State::Live, ..new };
        huge.settle_slot(live);
        drop(huge);
        self.lose(old.size);
        self.gain(size);
        Ok(Some((old.size, HugeBlock { address: os::block(new.address), size, dirty: dirty.min(size) })))
    }

    /// A busy slot with nothing mapped and room for `size`, unless a warm one could take a copy.
    fn claim_empty_slot(&self, size: usize, align: usize, meta: &Meta) -> Option<Slot> {
        let mut huge = self.huge.lock();
        if let Some(warm) = huge.claim_warm(size, align) {
            huge.settle_slot(Slot { state: State::Retained, ..warm });
            return None;
        }
        let slot = huge.claim(size, align, meta)?;
        if slot.mapped > 0 {
            huge.settle_slot(Slot { state: State::Retained, ..slot });
            return None;
        }
        Some(slot)
    }

    // ---- giving memory back ----------------------------------------------------------------------------------------

    /// Gives back up to `bytes` of free dirty memory that became free in or before tick `until`; says how much it was.
    pub(crate) fn release(&self, bytes: usize, until: u32, thorough: Thorough) -> usize {
        let mut released = self.release_slots(bytes, until);
        if os::address_space_is_limited() {
            released += self.unmap_empty_steps(bytes.saturating_sub(released));
        }
        for zone in [Zone::Window, Zone::Sampled] {
            while released < bytes {
                let claimed = self.state.lock()[zone as usize].claim_dirty(until, thorough);
                let Some(run) = claimed else { break };
                let purged = self.purge_run(run.page, run.pages);
                self.state.lock()[zone as usize].purged(&run, purged);
                if !purged {
                    return released;
                }
                released += run.pages as usize * PAGE_BYTES;
            }
        }
        released
    }

    /// Purges a claimed run. Where the kernel's page is larger than ours, only whole kernel pages; the caller then believes that
    /// nothing was purged, which is safe.
    fn purge_run(&self, page: PageIndex, pages: u32) -> bool {
        let address = self.table.address(page);
        let bytes = pages as usize * PAGE_BYTES;
        let aligned = address.is_multiple_of(os::page_bytes()) && bytes.is_multiple_of(os::page_bytes());
        // SAFETY: the run is claimed (I-claim): nobody has it, and its content is of no use.
        aligned && unsafe { self.purge(address, bytes) }
    }

    /// Unmaps retained slots and the dirty tails of live ones, oldest first, until `bytes` are gone.
    fn release_slots(&self, bytes: usize, until: u32) -> usize {
        let mut released = 0;
        while released < bytes {
            let claimed = self.huge.lock().claim_retained(until);
            let Some(slot) = claimed else { break };
            if slot.outside {
                if !self.drop_outside(slot) {
                    return released;
                }
            } else {
                // SAFETY: the slot is claimed (I-claim) and no program has it.
                let unmapped = unsafe { self.unmap(slot.address, slot.mapped) };
                if !unmapped {
                    self.put_back(slot);
                    return released;
                }
                self.huge.lock().settle_slot(Slot { mapped: 0, dirty: 0, state: State::Vacant, ..slot });
            }
            released += slot.dirty;
        }
        let scarce = os::address_space_is_limited();
        while released < bytes {
            let claimed = self.huge.lock().claim_tail(STEP_BYTES, scarce);
            let Some(slot) = claimed else { break };
            // SAFETY: the program has the first `size` bytes, and gets no more while the slot is `Trimmed`; what lies behind is ours (I-claim).
            let unmapped = unsafe { self.unmap(slot.address + slot.size, slot.mapped - slot.size) };
            self.huge.lock().settle_tail(slot.address, if unmapped { slot.size } else { slot.mapped });
            if !unmapped {
                return released;
            }
            released += slot.dirty - slot.size;
        }
        released
    }

    /// Where address space is scarce: gives steps back that nobody uses.
    fn unmap_empty_steps(&self, bytes: usize) -> usize {
        let mut released = 0;
        // Growing waits: a step must not be mapped again while it is being unmapped.
        let _growth = self.growth.lock();
        while released < bytes {
            let claimed = self.state.lock()[Zone::Window as usize].claim_empty();
            let Some(step) = claimed else { break };
            // SAFETY: the step is claimed (I-claim) and nobody uses any of its pages.
            let unmapped = unsafe { self.unmap(self.table.address(PageIndex::of_step(step)), STEP_BYTES) };
            let mut state = self.state.lock();
            if !unmapped {
                state[Zone::Window as usize].restore_empty(step);
                return released;
            }
            state[Zone::Window as usize].put_unmapped(step);
            released += STEP_BYTES;
        }
        released
    }

    // ---- reading ---------------------------------------------------------------------------------------------------

    /// What is held, at one moment per part.
    pub(crate) fn bytes(&self) -> PageHeapBytes {
        let pages = {
            let state = self.state.lock();
            state.iter().map(Filler::totals).fold((0, 0, 0, 0), |sum, totals| {
                (sum.0 + totals.mapped, sum.1 + totals.used, sum.2 + totals.dirty(), sum.3 + totals.clean)
            })
        };
        let slots = self.huge.lock().totals();
        let (tables, steps) = {
            let growth = self.growth.lock();
            (growth.tables.iter().flatten().sum(), growth.next_step.iter().sum::<u32>() as usize)
        };
        let per_page: usize = Table::NEEDED.iter().map(|table| table.bytes_per_page()).sum();
        PageHeapBytes {
            mapped: pages.0 * PAGE_BYTES + slots.mapped,
            runs: pages.1 * PAGE_BYTES,
            huge: slots.live,
            dirty: pages.2 * PAGE_BYTES + slots.free_dirty(),
            clean: pages.3 * PAGE_BYTES + slots.mapped - slots.dirty,
            tables,
            tables_used: steps * (STEP_PAGES as usize * per_page + STEP_ENTRY_BYTES),
        }
    }

    /// Free memory that could be given back.
    pub(crate) fn dirty(&self) -> usize {
        let pages: usize = self.state.lock().iter().map(|filler| filler.totals().dirty()).sum();
        pages * PAGE_BYTES + self.huge.lock().totals().free_dirty()
    }

    /// Takes every lock, in order.
    pub(crate) fn before_fork(&self) {
        self.growth.before_fork();
        self.state.before_fork();
        self.huge.before_fork();
    }

    /// Gives them back, on both sides.
    pub(crate) fn after_fork(&self) {
        self.huge.after_fork();
        self.state.after_fork();
        self.growth.after_fork();
    }

    /// Asserts every equation of the structures, walking all of them.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        let steps = self.growth.lock().next_step;
        let mut state = self.state.lock();
        for (filler, steps) in state.iter_mut().zip(steps) {
            filler.check(steps);
        }
        drop(state);
        self.huge.lock().check();
        let bytes = self.bytes();
        assert_eq!(bytes.mapped, bytes.runs + bytes.huge + bytes.dirty + bytes.clean);
        assert_eq!(self.in_use(), bytes.runs + bytes.huge);
    }
}

/// What a huge block of so many bytes takes: whole pages, of ours and of the kernel's.
fn huge_size(bytes: usize) -> Option<usize> {
    round_up(bytes, PAGE_BYTES.max(os::page_bytes()))
}

fn zone_of(page: PageIndex) -> Zone {
    if page.0 < ZONE_PAGES { Zone::Window } else { Zone::Sampled }
}

/// How many places are tried for a region.
const REGION_ATTEMPTS: u64 = 24;

/// Places for a region, best first: far from where programs, heaps and libraries live; then by the place the system likes.
fn region_candidate(attempt: u64, random: u64) -> Option<usize> {
    /// Nothing of a usual process lies between these addresses on x86-64 and on 48-bit Arm.
    const QUIET: core::ops::Range<usize> = 1 << 45..1 << 46;
    if attempt < 8 {
        let places = (QUIET.end - QUIET.start) / REGION_BYTES;
        return Some(QUIET.start + (random as usize).wrapping_add(attempt as usize * 3) % places * REGION_BYTES);
    }
    let page = os::map_anywhere(os::page_bytes())?.addr().get();
    // SAFETY: mapped above, nobody knows of it.
    unsafe { os::unmap(page, os::page_bytes()) };
    let here = page / REGION_BYTES;
    let place = if attempt < 16 { here.checked_sub(attempt as usize - 7)? } else { (here / 2).checked_sub(attempt as usize - 16)? };
    Some(place * REGION_BYTES)
}

const _: () = assert!(WINDOW_SHIFT as usize > 30);

#[cfg(test)]
mod tests;
