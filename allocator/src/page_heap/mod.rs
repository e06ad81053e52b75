//! Floor 4. The page heap: the store of pages, and the only room that asks the system for memory for programs.
//!
//! Runs of pages up to a step come from the [`Filler`]s, one per zone; larger blocks are huge [`Slots`]. What a run is used for is the
//! business of the rooms above.
//!
//! The window grows by one step at a time, at the address behind the last, so that the kernel sees one mapping that gets longer. If
//! something of somebody else's lies there, that step is skipped. Nothing is reserved, so a limit on address space
//! (`RLIMIT_AS`, set before or after) only means fewer steps, and other code finds room too.
//!
//! Locks: `growth` is held while the window changes, and `releasing` while memory is given back, system calls included; `state` and `huge`
//! never across a system call: what is being purged or mapped is claimed first, so that nobody else sees it.

pub(crate) mod filler;
mod huge;
mod page_bits;
mod zones;

use core::ops::Range;
use core::ptr::NonNull;

use crate::atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering};
use crate::config::{HUGE_PAGES_HEAP_BYTES, RELEASE_CALL_BYTES, TABLE_GROWTH_BYTES, UNSIZED};
use crate::counters::{Counters, Event};
use crate::limit::Marks;
use crate::meta::Meta;
use crate::options::HugePages;
use crate::os::{self, MapError};
use crate::pauses::{PauseKind, Pauses};
use crate::probes::{self, AtLimit};
use crate::span::page_table::{PageTable, REGION_BYTES, Table, ZONE_PAGES};
use crate::sync::{Guard, Lock, Rank};
use crate::units::{PAGE_BYTES, PageIndex, STEP_BYTES, STEP_PAGES, STEP_SHIFT, WINDOW_BYTES, WINDOW_SHIFT, round_up};

use filler::{Backing, DirtyRun, Filler, NotTaken, STEP_ENTRY_BYTES, Step};
use huge::{Slot, Slots, State};
use zones::{GrowthPace, StallGuard};

pub(crate) use filler::{Rested, Run};
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
    pub(crate) pauses: Pauses,
    pub(crate) table: PageTable,
    pub(crate) counters: Counters,
    /// What growing and shrinking memory is held against.
    pub(crate) marks: Marks,
    /// Held across every call that gives memory back, so that none is under way when the process forks.
    releasing: Lock<()>,
    growth: Lock<Growth>,
    state: Lock<[Filler; 2]>,
    huge: Lock<Slots>,
    /// Counts successful growths, so that a thread that waited for one does not grow again.
    generation: AtomicU32,
    /// Bytes that rooms above or programs have. Approximate while they change.
    in_use: AtomicUsize,
    /// The most that was in use since somebody asked.
    peak: AtomicUsize,
    /// Bytes of pages and slots that hold memory, used or free, less what was given back within runs in use. One number, so that whoever reads
    /// it never finds more than was granted.
    held: AtomicUsize,
    /// Bytes within runs in use that were given back all the same, because only central's free blocks were there.
    released_within: AtomicUsize,
    /// Bytes that somebody is about to hold, in a slot or within a run in use.
    coming: AtomicUsize,
    /// The current tick, told by the scavenger.
    tick: AtomicU32,
    huge_pages: AtomicU8,
    stall_guard: StallGuard,
}

/// See [`PageHeap::set_aside`].
#[must_use]
pub(crate) struct SetAside<'a> {
    page_heap: &'a PageHeap,
    bytes: usize,
}

impl Drop for SetAside<'_> {
    fn drop(&mut self) {
        // Release: by now it is held. Pairs with the Acquire in `may_hold`.
        self.page_heap.coming.fetch_sub(self.bytes, Ordering::Release);
    }
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
    /// Mapped for the tables, and for the log of pauses.
    pub(crate) tables: usize,
    /// Of that, what belongs to steps that were ever reached, other than those whose entries were given back with them.
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
            pauses: Pauses::new(),
            marks: Marks::new(),
            releasing: Lock::new(Rank::Release, ()),
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
            held: AtomicUsize::new(0),
            released_within: AtomicUsize::new(0),
            coming: AtomicUsize::new(0),
            tick: AtomicU32::new(0),
            huge_pages: AtomicU8::new(0),
            stall_guard: StallGuard::new(),
        }
    }

    /// Ranges of addresses in which all that is mapped is ours: the region first.
    pub(crate) fn each_mapping(&self, each: &mut dyn FnMut(Range<usize>)) {
        if self.table.start().is_some() {
            let region = self.table.region();
            each(region..region + REGION_BYTES);
        }
        if let Some(log) = self.pauses.mapping() {
            each(log);
        }
        self.huge.lock().each_outside(each);
    }

    /// Chooses which pages new steps ask for.
    pub(crate) fn set_huge_pages(&self, option: HugePages) {
        // Relaxed, here and below: the option orders nothing.
        self.huge_pages.store(option as u8, Ordering::Relaxed);
    }

    /// What was chosen; but where the choice is ours, none while they stall.
    fn huge_pages(&self, now_ns: u64) -> HugePages {
        match self.huge_pages.load(Ordering::Relaxed) {
            1 => HugePages::Never,
            2 => HugePages::Always,
            _ if !self.stall_guard.allows(now_ns) => HugePages::Never,
            _ => HugePages::Auto,
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
        // SeqCst: see `Marks::freed`, which follows.
        self.in_use.fetch_sub(bytes, Ordering::SeqCst);
    }

    /// Memory that the heap holds from the system, tables and records of our own aside.
    pub(crate) fn held(&self) -> usize {
        // Relaxed, here and below: numbers of a moment.
        self.held.load(Ordering::Relaxed)
    }

    /// Free memory that could be given back.
    pub(crate) fn free(&self) -> usize {
        (self.held() + self.all_released_within()).saturating_sub(self.in_use())
    }

    /// The steps, and how long that took if it took long.
    #[inline]
    fn state(&self) -> Guard<'_, [Filler; 2]> {
        let mut waited = 0;
        let state = self.state.lock_noting(&mut waited);
        self.pauses.waited(PauseKind::PageHeap, waited);
        state
    }

    /// Notes what a filler holds now; says by how much that is more than before. The lock is held.
    fn note_steps(&self, filler: &mut Filler) -> usize {
        self.note(filler.take_change() * PAGE_BYTES as isize)
    }

    /// The same for slots.
    fn note_slots(&self, slots: &mut Slots) -> usize {
        self.note(slots.take_change())
    }

    /// So much more is held, or less; says how much more.
    fn note(&self, change: isize) -> usize {
        if change != 0 {
            // Adding wraps round, so that less is added as well.
            self.held.fetch_add(change.cast_unsigned(), Ordering::Relaxed);
        }
        change.max(0).cast_unsigned()
    }

    /// How many bytes more may be held. Asked under the lock of the steps, so that who asks sees what others have just been granted.
    fn may_hold(&self) -> usize {
        let hard = self.marks.hard();
        if hard == usize::MAX {
            return hard;
        }
        // Acquire: what is not to come any more is held. Pairs with the Release of `SetAside`. In this order some bytes may count twice for a
        // moment, and none never.
        let coming = self.coming.load(Ordering::Acquire);
        hard.saturating_sub(self.held().saturating_add(coming))
    }

    /// Sets `more` bytes aside that are going to be held, if they may be, until the result is dropped.
    pub(crate) fn set_aside(&self, more: usize) -> Option<SetAside<'_>> {
        if more == 0 || self.marks.hard() == usize::MAX {
            return Some(SetAside { page_heap: self, bytes: 0 });
        }
        let state = self.state();
        if more > self.may_hold() {
            drop(state);
            return self.refuse(more);
        }
        self.coming.fetch_add(more, Ordering::Relaxed);
        Some(SetAside { page_heap: self, bytes: more })
    }

    /// The hard limit does not allow so many bytes more. Whoever wanted them may give back what lies idle and ask again.
    #[cold]
    fn refuse<T>(&self, more: usize) -> Option<T> {
        self.counters.count(Event::LimitRefused);
        probes::limit(self.held(), self.marks.hard(), AtLimit::Refusal, more);
        None
    }

    /// So many bytes within runs in use were given back, because only free blocks lay there.
    pub(crate) fn released_within(&self, bytes: usize) {
        self.released_within.fetch_add(bytes, Ordering::Relaxed);
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// They hold memory again, or will soon: they were set aside.
    pub(crate) fn regained_within(&self, bytes: usize) {
        self.held.fetch_add(bytes, Ordering::Relaxed);
        self.released_within.fetch_sub(bytes, Ordering::Relaxed);
        self.marks.took(bytes, self.held());
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
            let mut state = self.state();
            let most = self.may_hold() / PAGE_BYTES;
            match state[zone as usize].take(pages, align, most) {
                Ok(run) => {
                    let more = self.note_steps(&mut state[zone as usize]);
                    drop(state);
                    self.gain(pages as usize * PAGE_BYTES);
                    if more > 0 {
                        self.marks.took(more, self.held());
                    }
                    return Some(run);
                }
                Err(NotTaken::TooMuch) => {
                    drop(state);
                    return self.refuse(pages as usize * PAGE_BYTES);
                }
                Err(NotTaken::NoRoom) => {}
            }
            drop(state);
            self.grow(zone, generation)?;
        }
    }

    /// Takes a run back. Nobody uses its pages any more.
    pub(crate) fn give_run(&self, page: PageIndex, pages: u32) {
        self.lose(pages as usize * PAGE_BYTES);
        self.state()[zone_of(page) as usize].give(page, pages, self.tick());
        self.marks.freed(self.free());
    }

    /// Takes a run back whose pages hold no memory any more. Of that, `released` bytes were [given back within it](Self::released_within) before.
    pub(crate) fn give_clean_run(&self, page: PageIndex, pages: u32, released: usize) {
        self.lose(pages as usize * PAGE_BYTES);
        let mut state = self.state();
        let filler = &mut state[zone_of(page) as usize];
        filler.give_clean(page, pages, self.tick());
        self.note(filler.take_change() * PAGE_BYTES as isize + released.cast_signed());
        drop(state);
        self.released_within.fetch_sub(released, Ordering::Relaxed);
    }

    /// Makes a run longer where it is. `Some(true)`: the new pages are zero. `None`: it cannot grow there.
    pub(crate) fn extend_run(&self, page: PageIndex, pages: u32, more: u32) -> Option<bool> {
        let mut state = self.state();
        let most = self.may_hold() / PAGE_BYTES;
        let filler = &mut state[zone_of(page) as usize];
        let zeroed = filler.extend(page, pages, more, most)?;
        let grown = self.note_steps(filler);
        drop(state);
        self.gain(more as usize * PAGE_BYTES);
        self.marks.took(grown, self.held());
        Some(zeroed)
    }

    /// Makes a run shorter where it is, by its last `less` pages.
    pub(crate) fn shorten_run(&self, page: PageIndex, pages: u32, less: u32) {
        self.lose(less as usize * PAGE_BYTES);
        self.state()[zone_of(page) as usize].shorten(page, pages, less, self.tick());
        self.marks.freed(self.free());
    }

    // ---- growing ---------------------------------------------------------------------------------------------------

    /// Adds a step to a zone, unless somebody did since `generation`. `None`: no memory or no address space.
    #[cold]
    fn grow(&self, zone: Zone, generation: u32) -> Option<()> {
        self.pauses.watch(PauseKind::PageHeap, STEP_BYTES, || self.grow_now(zone, generation))
    }

    fn grow_now(&self, zone: Zone, generation: u32) -> Option<()> {
        let mut growth = self.growth.lock();
        // Relaxed: only growers change it, and they hold the lock.
        if self.generation.load(Ordering::Relaxed) != generation {
            return Some(());
        }
        if self.table.start().is_none() {
            self.settle(&mut growth)?;
        }
        let (vacated, again, gap_bytes) = {
            let filler = &mut self.state()[zone as usize];
            let totals = filler.totals();
            let vacated = filler.vacated();
            let open = totals.mapped - totals.vacated_steps * STEP_PAGES as usize;
            let again = if vacated.is_some() { None } else { filler.take_unmapped() };
            (vacated, again, (open - totals.used) * PAGE_BYTES)
        };
        // One that was given back, one that was unmapped, or a new one.
        let step = match (vacated, again) {
            (Some((step, _)), _) => step,
            (None, Some(step)) => match self.map_step(step) {
                Ok(()) => step,
                // Somebody else's by now: left alone for good.
                Err(MapError::Occupied) => return Some(()),
                Err(MapError::OutOfMemory) => {
                    self.state()[zone as usize].put_unmapped(step);
                    return None;
                }
            },
            (None, None) => self.map_next_step(&mut growth, zone)?,
        };
        let address = self.table.address(PageIndex::of_step(step));
        let now_ns = os::now_ns();
        let huge =
            zone == Zone::Window && growth.pace.next_step_is_huge(self.huge_pages(now_ns), self.in_use(), gap_bytes, now_ns);
        let backing = if huge { Backing::HugePages } else { Backing::SmallPages };
        if vacated.is_none_or(|(_, before)| before != backing) {
            self.advise(address, STEP_BYTES, huge);
        }
        {
            let filler = &mut self.state()[zone as usize];
            match vacated {
                Some(_) => filler.reopen(step, backing),
                None => filler.add(step, backing),
            }
        }
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
            if self.stall_guard.came(came_ns.saturating_sub(asked_ns), came_ns) {
                self.counters.count(Event::HugePagePause);
            }
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
                None => (
                    self.steps_address() + first_page.step() as usize * STEP_ENTRY_BYTES,
                    (position as usize + 1) * STEP_ENTRY_BYTES,
                ),
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
            let mut state = self.state();
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

    /// A call to the system: counted, timed, and remembered if it took long.
    fn call<R>(&self, event: Event, bytes: usize, call: impl FnOnce() -> R) -> R {
        self.counters.count(event);
        let (result, cycles) = self.pauses.time(PauseKind::System, bytes, call);
        let asks = matches!(event, Event::Map | Event::Move);
        let histogram = if asks { &self.pauses.maps } else { &self.pauses.releases };
        histogram.note(self.pauses.pace.ns(cycles));
        result
    }

    fn map(&self, address: usize, bytes: usize) -> Result<(), MapError> {
        probes::map(address, bytes);
        let mapped = self.call(Event::Map, bytes, || os::map_at(address, bytes));
        if mapped.is_err() {
            self.counters.count(Event::Refused);
        }
        mapped
    }

    /// # Safety
    ///
    /// - As [`os::unmap`].
    unsafe fn unmap(&self, address: usize, bytes: usize) -> bool {
        probes::unmap(address, bytes);
        // SAFETY: handed on to the caller.
        let unmapped = self.call(Event::Unmap, bytes, || unsafe { os::unmap(address, bytes) });
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
        probes::purge(address, bytes);
        let began = os::cycles();
        // SAFETY: handed on to the caller.
        let purged = unsafe { os::purge(address, bytes) };
        // Whoever releases remembers it if it took long.
        self.pauses.releases.note(self.pauses.pace.ns(os::cycles().wrapping_sub(began)));
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
        self.pauses.watch(PauseKind::PageHeap, bytes, || self.take_huge_now(bytes, align, meta))
    }

    fn take_huge_now(&self, bytes: usize, align: usize, meta: &Meta) -> Option<HugeBlock> {
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
            let Some(_aside) = self.set_aside(size.saturating_sub(slot.dirty)) else {
                self.put_back(slot);
                return None;
            };
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
        if slot.mapped == 0 {
            self.map(slot.address, more)?;
        } else {
            probes::map(slot.address + slot.mapped, more);
            // SAFETY: so much of the slot is mapped, and it is claimed (I-claim).
            let extended = self.call(Event::Map, more, || unsafe { os::extend_mapping(slot.address, slot.mapped, size) });
            extended.inspect_err(|_| self.counters.count(Event::Refused))?;
        }
        if more >= STEP_BYTES && self.block_is_huge(size) {
            // All of it, so that the slot stays one mapping, which moving needs.
            self.advise(slot.address, size, true);
        }
        Ok(size)
    }

    /// Shall a fresh huge block ask for huge pages? A `Vec` is touched from its start on, and at most one page too many is taken. What C asks for
    /// is as often a buffer as large as the worst case, of which here and there something is used: `xz` would take 24 % more memory.
    fn block_is_huge(&self, size: usize) -> bool {
        match self.huge_pages(os::now_ns()) {
            HugePages::Never => false,
            HugePages::Always => true,
            HugePages::Auto => !UNSIZED && self.in_use() + size >= HUGE_PAGES_HEAP_BYTES,
        }
    }

    fn hand_out(&self, slot: Slot, mapped: usize, size: usize) -> HugeBlock {
        self.gain(size);
        self.settle_and_note(Slot { mapped, size, dirty: slot.dirty.max(size), state: State::Live, ..slot });
        HugeBlock { address: os::block(slot.address), size, dirty: slot.dirty.min(size) }
    }

    /// Ends what a claim began; more of the slot may hold memory than before.
    fn settle_and_note(&self, slot: Slot) {
        let mut huge = self.huge.lock();
        huge.settle_slot(slot);
        let more = self.note_slots(&mut huge);
        drop(huge);
        self.marks.took(more, self.held());
    }

    /// Puts a busy slot back as it was.
    fn put_back(&self, slot: Slot) {
        let state = if slot.mapped > 0 { State::Retained } else { State::Vacant };
        self.huge.lock().settle_slot(Slot { state, ..slot });
    }

    /// A mapping of its own, for blocks that do not fit the window.
    #[cold]
    fn take_outside(&self, size: usize, align: usize, meta: &Meta) -> Option<HugeBlock> {
        let _aside = self.set_aside(size)?;
        let padded = if align > PAGE_BYTES { size.checked_add(align)? } else { size.checked_add(PAGE_BYTES)? };
        probes::map(0, padded);
        let Some(mapping) = self.call(Event::Map, padded, || os::map_anywhere(padded)) else {
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
        let slot =
            Slot { address, room: size, mapped: size, dirty: 0, size: 0, state: State::Busy, freed_tick: 0, outside: true };
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
        let mut surplus = if free_dirty > RETAINED_MAX_BYTES.max(self.in_use()) { free_dirty - RETAINED_MAX_BYTES } else { 0 };
        while surplus > 0
            && let Ok(released) = self.releasing(|| self.release_of_slot(self.tick()))
        {
            let Some(released) = released else { break };
            surplus = surplus.saturating_sub(released);
        }
        self.marks.freed(self.free());
        Ok(slot.size)
    }

    /// Gives the address space of a claimed slot outside the window back. `false`: the system would not take it.
    fn drop_outside(&self, slot: Slot) -> bool {
        // Forgotten first: once unmapped, the addresses are anybody's, and another slot's perhaps.
        {
            let mut huge = self.huge.lock();
            huge.forget(slot.address);
            self.note_slots(&mut huge);
        }
        // SAFETY: the block was given up by its owner, and the slot was claimed (I-claim).
        let unmapped = unsafe { self.unmap(slot.address, slot.mapped) };
        if !unmapped {
            // Should there be no room to remember it, it stays mapped for good.
            let _ = self.huge.lock().restore(Slot { state: State::Retained, size: 0, freed_tick: self.tick(), ..slot });
        }
        unmapped
    }

    /// Bytes of a live huge block.
    #[cfg(freestone_c)]
    pub(crate) fn huge_bytes(&self, address: usize) -> Result<usize, NotLive> {
        self.huge.lock().bytes_at(address)
    }

    /// Changes the size of a huge block where it is. `Ok(None)`: it cannot. Otherwise its old size, and the block as it is now.
    pub(crate) fn resize_huge(&self, address: usize, bytes: usize) -> Result<Option<(usize, HugeBlock)>, NotLive> {
        // Not now, if its end is being unmapped: a copy is made instead.
        let Some(slot) = self.huge.lock().claim_live(address)? else { return Ok(None) };
        let target = huge_size(bytes).filter(|&size| size <= slot.room);
        let aside = self.set_aside(target.unwrap_or(0).saturating_sub(slot.dirty));
        let resized = target.filter(|_| aside.is_some()).and_then(|size| {
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
        self.settle_and_note(Slot { mapped, size, dirty: slot.dirty.max(size), state: State::Live, ..slot });
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
        let aside = self.set_aside(size.saturating_sub(old.dirty));
        let fits = !old.outside && aside.is_some();
        let new = if fits { self.claim_empty_slot(size, align, meta) } else { None };
        let Some(new) = new else {
            self.huge.lock().settle_slot(keep);
            return Ok(None);
        };
        // The target is mapped first: that proves that the addresses are ours, which moving onto them would not ask.
        let mapped = self.map_slot(&new, size);
        let to = size.max(old.mapped);
        let moved = mapped.is_ok()
            && self.call(Event::Move, old.mapped, || {
                // SAFETY: both slots are claimed (I-claim); of the source all that is mapped moves, and the target is as long and mapped just now.
                unsafe { os::move_mapping(old.address, old.mapped, new.address, to) }
            });
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
        let more = self.note_slots(&mut huge);
        drop(huge);
        self.marks.took(more, self.held());
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

    /// Gives back some free memory, in one call to the system, which is short: what has been free for the longest and breaks nothing up
    /// first. `scarce`: address space is limited and goes back too. Says how many bytes it was; `Err`: there is none that has rested.
    ///
    /// Where the system refuses (locked memory, for instance), something else is tried: what was refused waits for another time.
    pub(crate) fn release_some(&self, rested: Rested, scarce: bool) -> Result<usize, ()> {
        let _alone = self.releasing.lock();
        self.release_alone(rested, scarce)
    }

    /// As [`release_some`](Self::release_some); `None`: somebody else is at it, and may have lost the processor.
    pub(crate) fn release_unless_busy(&self, rested: Rested) -> Option<Result<usize, ()>> {
        let _alone = self.releasing.try_lock()?;
        Some(self.release_alone(rested, false))
    }

    fn release_alone(&self, rested: Rested, scarce: bool) -> Result<usize, ()> {
        const REFUSALS_MAX: u32 = 8;
        for _ in 0..REFUSALS_MAX {
            if let Some(released) = self.try_release(rested, scarce)? {
                return Ok(released);
            }
        }
        Err(())
    }

    /// As [`release_some`](Self::release_some); `None`: the system refused.
    fn try_release(&self, rested: Rested, scarce: bool) -> Result<Option<usize>, ()> {
        for zone in [Zone::Window, Zone::Sampled] {
            if scarce && zone == Zone::Window {
                if let Ok(released) = self.unmap_empty_step() {
                    return Ok(released);
                }
                continue;
            }
            let claimed = self.state()[zone as usize].claim_empty_dirty(rested.until);
            if let Some(run) = claimed {
                return Ok(self.purge_run(&run, zone));
            }
        }
        if let Ok(released) = self.release_of_slot(rested.until).or_else(|()| self.release_of_tail(scarce)) {
            return Ok(released);
        }
        for zone in [Zone::Window, Zone::Sampled] {
            let mut looked = 0;
            loop {
                let mut state = self.state();
                let steps = state[zone as usize].totals().mapped / STEP_PAGES as usize;
                match state[zone as usize].claim_in_used(rested, kernel_page_pages()) {
                    Ok(run) => {
                        drop(state);
                        return Ok(self.purge_run(&run, zone));
                    }
                    // Steps that are unmapped for a while are looked at too, so twice round is surely all of them.
                    Err(some) => looked += some as usize,
                }
                if looked > 2 * steps {
                    break;
                }
            }
        }
        Err(())
    }

    /// Gives back all that is free and has rested; says how many bytes it was.
    pub(crate) fn release_all(&self, rested: Rested) -> usize {
        let scarce = os::address_space_is_limited();
        let mut released = 0;
        while let Ok(some) = self.release_some(rested, scarce) {
            released += some;
        }
        released
    }

    /// Purges a claimed run; of a whole step, the entries in the tables as well. `None`: the system refused.
    fn purge_run(&self, run: &DirtyRun, zone: Zone) -> Option<usize> {
        let address = self.table.address(run.page);
        let bytes = run.pages as usize * PAGE_BYTES;
        debug_assert!(address.is_multiple_of(os::page_bytes()) && bytes.is_multiple_of(os::page_bytes()));
        // SAFETY: the run is claimed (I-claim): nobody has it, and its content is of no use.
        let purged = unsafe { self.purge(address, bytes) };
        if purged && run.breaks_up {
            // Or the kernel might put the huge page together again, and the memory with it.
            let step = PageIndex::of_step(run.page.step());
            self.advise(self.table.address(step), STEP_BYTES, false);
        }
        if purged && run.pages == STEP_PAGES {
            for &table in Table::NEEDED {
                let bytes = STEP_PAGES as usize * table.bytes_per_page();
                let entries = self.table.entry(table, run.page);
                if entries.is_multiple_of(os::page_bytes()) && bytes.is_multiple_of(os::page_bytes()) {
                    // SAFETY: entries of pages that are all claimed: they say that nothing is there, which is what zeros say (I-table).
                    // Somebody who asks for a wild address may read either.
                    unsafe { self.purge(entries, bytes) };
                }
            }
        }
        let filler = &mut self.state()[zone as usize];
        filler.purged(run, purged);
        self.note_steps(filler);
        purged.then_some(run.dirty as usize * PAGE_BYTES)
    }

    /// Purges the end of the retained slot that has rested for the longest, or unmaps it when little is left. `None`: the system refused.
    fn release_of_slot(&self, until: u32) -> Result<Option<usize>, ()> {
        /// Unmapping what holds no memory still takes a while where there is very much of it.
        const UNMAP_BYTES: usize = 1 << 30;
        loop {
            let claimed = self.huge.lock().claim_retained(until);
            let slot = claimed.ok_or(())?;
            if slot.outside {
                return Ok(self.drop_outside(slot).then_some(slot.dirty));
            }
            let end = slot.address + slot.dirty;
            let (left, done) = if slot.dirty > RELEASE_CALL_BYTES {
                // To the boundary of a huge page, so that none is broken up.
                let start = slot.address.max((end - 1) / RELEASE_CALL_BYTES * RELEASE_CALL_BYTES);
                // SAFETY: the slot is claimed (I-claim) and no program has it.
                let purged = unsafe { self.purge(start, end - start) };
                (Slot { dirty: start - slot.address, state: State::Retained, ..slot }, purged)
            } else {
                let keep = if slot.mapped > UNMAP_BYTES { slot.mapped - UNMAP_BYTES.min(slot.mapped - slot.dirty) } else { 0 };
                // SAFETY: as above.
                let unmapped = unsafe { self.unmap(slot.address + keep, slot.mapped - keep) };
                let state = if keep > 0 { State::Retained } else { State::Vacant };
                (Slot { mapped: keep, dirty: slot.dirty.min(keep), state, ..slot }, unmapped)
            };
            if !done {
                // As if it had just become free: the others first.
                self.put_back(Slot { freed_tick: self.tick(), ..slot });
                return Ok(None);
            }
            let mut huge = self.huge.lock();
            huge.settle_slot(left);
            self.note_slots(&mut huge);
            drop(huge);
            if slot.dirty > left.dirty {
                return Ok(Some(slot.dirty - left.dirty));
            }
        }
    }

    /// Unmaps what lies dirty behind a block that a program has, or where address space is scarce what lies mapped there.
    /// `None`: the system refused.
    fn release_of_tail(&self, scarce: bool) -> Result<Option<usize>, ()> {
        let claimed = self.huge.lock().claim_tail(STEP_BYTES, scarce);
        let slot = claimed.ok_or(())?;
        // From the end, a piece at a time.
        let dirty = slot.dirty - slot.size;
        let keep = if dirty > RELEASE_CALL_BYTES { slot.dirty - RELEASE_CALL_BYTES } else { slot.size };
        debug_assert!(keep >= slot.size);
        // SAFETY: the program has the first `size` bytes, and gets no more while the slot is `Trimmed`; what lies behind is ours (I-claim).
        let unmapped = unsafe { self.unmap(slot.address + keep, slot.mapped - keep) };
        let mut huge = self.huge.lock();
        huge.settle_tail(slot.address, if unmapped { keep } else { slot.mapped });
        self.note_slots(&mut huge);
        // Refused once, it will be again; the others come another time.
        if unmapped { Ok(Some(slot.dirty.saturating_sub(keep))) } else { Err(()) }
    }

    /// Runs something that gives memory back within runs in use, through [`purge_within`](Self::purge_within).
    pub(crate) fn releasing<R>(&self, work: impl FnOnce() -> R) -> R {
        let _alone = self.releasing.lock();
        work()
    }

    /// Gives back the memory of some kernel pages within a run in use.
    ///
    /// # Safety
    ///
    /// - The caller has claimed them (I-claim): nobody uses what lies there, nor will before it is told so.
    pub(crate) unsafe fn purge_within(&self, page: PageIndex, offset: usize, bytes: usize) -> bool {
        if self.state()[zone_of(page) as usize].break_up(page.step()) {
            self.advise(self.table.address(PageIndex::of_step(page.step())), STEP_BYTES, false);
        }
        // SAFETY: handed on to the caller.
        unsafe { self.purge(self.table.address(page) + offset, bytes) }
    }

    /// Is anything in this step of the window in use? `None`: there are no steps from here on.
    pub(crate) fn is_step_in_use(&self, step: u32) -> Option<bool> {
        self.state()[Zone::Window as usize].is_in_use(step)
    }

    /// Bytes that were given back within runs in use.
    pub(crate) fn all_released_within(&self) -> usize {
        self.released_within.load(Ordering::Relaxed)
    }

    /// Where address space is scarce: gives a step back that nobody uses. `None`: the system refused.
    fn unmap_empty_step(&self) -> Result<Option<usize>, ()> {
        // Growing waits: a step must not be mapped again while it is being unmapped.
        let _growth = self.growth.lock();
        let before = self.held();
        let claimed = self.state()[Zone::Window as usize].claim_empty();
        let step = claimed.ok_or(())?;
        // SAFETY: the step is claimed (I-claim) and nobody uses any of its pages.
        let unmapped = unsafe { self.unmap(self.table.address(PageIndex::of_step(step)), STEP_BYTES) };
        let mut state = self.state();
        let filler = &mut state[Zone::Window as usize];
        if unmapped {
            filler.put_unmapped(step);
        } else {
            filler.restore_empty(step);
        }
        self.note_steps(filler);
        drop(state);
        if unmapped { Ok(Some(before.saturating_sub(self.held()))) } else { Err(()) }
    }

    // ---- reading ---------------------------------------------------------------------------------------------------

    /// What is held, at one moment per part.
    pub(crate) fn bytes(&self) -> PageHeapBytes {
        let (pages, vacated) = {
            let state = self.state();
            let pages = state.iter().map(Filler::totals).fold((0, 0, 0, 0), |sum, totals| {
                (sum.0 + totals.mapped, sum.1 + totals.used, sum.2 + totals.dirty(), sum.3 + totals.clean)
            });
            (pages, state.iter().map(|filler| filler.totals().vacated_steps).sum::<usize>())
        };
        let slots = self.huge.lock().totals();
        let (tables, steps) = {
            let growth = self.growth.lock();
            (growth.tables.iter().flatten().sum::<usize>(), growth.next_step.iter().sum::<u32>() as usize)
        };
        let per_page: usize = Table::NEEDED.iter().map(|table| table.bytes_per_page()).sum();
        PageHeapBytes {
            mapped: pages.0 * PAGE_BYTES + slots.mapped,
            runs: pages.1 * PAGE_BYTES,
            huge: slots.live,
            dirty: pages.2 * PAGE_BYTES + slots.free_dirty(),
            clean: pages.3 * PAGE_BYTES + slots.mapped - slots.dirty,
            tables: tables + self.pauses.mapped_bytes(),
            tables_used: self.pauses.used_bytes() + steps * (STEP_PAGES as usize * per_page + STEP_ENTRY_BYTES)
                - vacated * STEP_PAGES as usize * per_page,
        }
    }

    /// Waits until no memory is being given back, and keeps it so. Comes before all other locks of the rooms above.
    pub(crate) fn hold_releases(&self) {
        self.releasing.before_fork();
    }

    /// Ends [`hold_releases`](Self::hold_releases).
    pub(crate) fn resume_releases(&self) {
        self.releasing.after_fork();
    }

    /// Takes every other lock, in order.
    pub(crate) fn before_fork(&self) {
        self.growth.before_fork();
        self.state.before_fork();
        self.huge.before_fork();
    }

    /// In the child of a fork nobody is about to hold anything.
    pub(crate) fn after_fork_in_child(&self) {
        self.coming.store(0, Ordering::Relaxed);
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
        let mut state = self.state();
        for (filler, steps) in state.iter_mut().zip(steps) {
            filler.check(steps);
        }
        drop(state);
        self.huge.lock().check();
        let bytes = self.bytes();
        assert_eq!(bytes.mapped, bytes.runs + bytes.huge + bytes.dirty + bytes.clean);
        assert_eq!(self.in_use(), bytes.runs + bytes.huge);
        assert_eq!(self.free(), bytes.dirty);
    }
}

/// What a huge block of so many bytes takes: whole pages, of ours and of the kernel's.
fn huge_size(bytes: usize) -> Option<usize> {
    round_up(bytes, PAGE_BYTES.max(os::page_bytes()))
}

/// So many pages of ours make one of the kernel's, or one.
fn kernel_page_pages() -> u32 {
    (os::page_bytes() / PAGE_BYTES).max(1) as u32
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
    let place =
        if attempt < 16 { here.checked_sub(attempt as usize - 7)? } else { (here / 2).checked_sub(attempt as usize - 16)? };
    Some(place * REGION_BYTES)
}

const _: () = assert!(WINDOW_SHIFT as usize > 30);

#[cfg(test)]
mod tests;
