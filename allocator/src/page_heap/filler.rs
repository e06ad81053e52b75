//! Floor 4. The filler: which pages of which step are taken.
//!
//! Packs page runs into steps so that steps, and the huge pages behind them, stay full or become empty: a run is cut from the step
//! whose longest free run is the shortest that fits, and among those from one with many runs, because the number of runs, not
//! of pages, tells how soon a step will be empty. (After tcmalloc's Temeraire, `docs/temeraire.md` there.)
//!
//! ```text
//!   heads[longest free run]      0   1   2   3  …  256   vacated     one list of steps each
//!                                    │       └─▶ step ⇄ step
//!                                    └─▶ step ⇄ step ⇄ step
//!
//!   a step:  used   ████░░██░░░░████      a page is used or free;
//!            clean  ····▒···▒▒▒▒····      a free page is clean (holds no memory) or dirty;
//!            zero   ····▒···▒▒▒▒▒▒··      clean pages are zero, and so are untouched ones that came with a huge page
//! ```
//!
//! Not shared: lives behind the page heap's lock. Knows numbers only, never touches pages.

use super::page_bits::PageBits;
use crate::units::{PageIndex, STEP_PAGES};

/// What lies behind the addresses of a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub(crate) enum Backing {
    /// Not ours, or no longer mapped.
    #[default]
    Unmapped,
    /// Mapped; small kernel pages.
    SmallPages,
    /// Mapped; the kernel may use a huge page.
    HugePages,
}

/// What the filler knows of a step.
#[derive(Clone, Debug, Default)]
#[repr(C)]
pub(crate) struct Step {
    used: PageBits,
    /// Holds no memory. Meaningful, as is `zero`, where `used` is not set.
    clean: PageBits,
    /// Reads as zero: never touched since the kernel gave it.
    zero: PageBits,
    /// Neighbours on its list: step plus one, 0 for none.
    next: u32,
    previous: u32,
    /// Length of the longest free run; which list the step is on, unless it is vacated.
    longest: u16,
    used_pages: u16,
    /// Page runs in use: few means nearly empty.
    runs: u16,
    pub(crate) backing: Backing,
    /// All of it was given back, its tables' entries too. Not used again before [`Filler::reopen`].
    vacated: bool,
    /// The tick in which pages last became free.
    freed_tick: u32,
    /// Some of it was used since it was added or reopened.
    was_used: bool,
}

impl Step {
    fn list(&self) -> usize {
        if self.vacated { VACATED } else { usize::from(self.longest) }
    }
}

/// Bytes between the steps' entries in their table.
pub(crate) const STEP_ENTRY_BYTES: usize = size_of::<Step>();

/// The list of steps that nobody uses.
const EMPTY: usize = STEP_PAGES as usize;
/// The list of those that were given back as a whole.
const VACATED: usize = EMPTY + 1;
const LISTS: usize = VACATED + 1;

/// How many steps of a list are looked at before the best seen is taken.
const LOOKS: u32 = 8;

/// How many lists are looked at for a place that holds memory already.
const LOOKS_FOR_DIRTY: u32 = 2;

/// Sums over all steps.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct PageTotals {
    /// Pages of mapped steps.
    pub(crate) mapped: usize,
    /// Pages in use; while a run is being purged it counts as used.
    pub(crate) used: usize,
    /// Free pages that hold no memory.
    pub(crate) clean: usize,
    /// Pages that hold no memory and are claimed together with others that do.
    pub(crate) claimed_clean: usize,
    /// Steps that were given back as a whole, their tables' entries too.
    pub(crate) vacated_steps: usize,
}

impl PageTotals {
    /// Free pages that still hold memory.
    pub(crate) fn dirty(&self) -> usize {
        self.mapped - self.used - self.clean
    }

    /// Pages that hold memory, used or free.
    pub(crate) fn held(&self) -> usize {
        self.mapped - self.clean - self.claimed_clean
    }
}

/// A run of pages cut from a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Run {
    pub(crate) page: PageIndex,
    pub(crate) pages: u32,
    /// All of it reads as zero.
    pub(crate) zeroed: bool,
}

/// Why no run was cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NotTaken {
    /// No step has one.
    NoRoom,
    /// More pages would hold memory than may.
    TooMuch,
}

/// Where a run can be cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Place {
    step: u32,
    at: u32,
    /// Pages of it that hold no memory yet.
    clean: u32,
}

/// The steps of one zone.
pub(crate) struct Filler {
    /// Address of the table of [`Step`]s.
    steps: *mut Step,
    heads: [u32; LISTS],
    /// Bit per list: is there a step on it?
    occupied: [u64; LISTS.div_ceil(64)],
    /// The step that has been empty for the longest, plus one: the other end of that list.
    oldest_empty: u32,
    totals: PageTotals,
    /// What [`PageTotals::held`] was when that was noted last.
    noted: usize,
    /// Steps that were mapped once and are not now: they are mapped again first. Step plus one, linked by `next`.
    unmapped: u32,
    /// Steps that were ever added: from here, kept as its complement (a heap begins as zeros) …
    first: u32,
    /// … to here.
    end: u32,
    /// Where looking for dirty pages in used steps goes on.
    hand: u32,
}

// SAFETY: the table belongs to the filler alone.
unsafe impl Send for Filler {}

impl Filler {
    pub(crate) const fn new() -> Self {
        Self {
            steps: core::ptr::null_mut(),
            heads: [0; LISTS],
            occupied: [0; LISTS.div_ceil(64)],
            oldest_empty: 0,
            totals: PageTotals { mapped: 0, used: 0, clean: 0, claimed_clean: 0, vacated_steps: 0 },
            noted: 0,
            unmapped: 0,
            first: 0,
            end: 0,
            hand: 0,
        }
    }

    /// Says where the table is.
    ///
    /// # Safety
    ///
    /// - Entries are mapped, zero at first and nobody else's, from now on for every step that is [`add`](Self::add)ed.
    pub(crate) unsafe fn settle(&mut self, steps: *mut Step) {
        self.steps = steps;
    }

    pub(crate) fn totals(&self) -> PageTotals {
        self.totals
    }

    /// How many pages more hold memory than when this was asked last; negative: fewer.
    pub(crate) fn take_change(&mut self) -> isize {
        let held = self.totals.held();
        held.cast_signed() - core::mem::replace(&mut self.noted, held).cast_signed()
    }

    #[inline]
    fn step(&mut self, step: u32) -> &mut Step {
        debug_assert!(!self.steps.is_null());
        // SAFETY: `settle` was told that entries of added steps are mapped; only such steps reach this.
        let entry = unsafe { self.steps.add(step as usize) };
        // SAFETY: as above, and `&mut self` makes the access unique.
        unsafe { &mut *entry }
    }

    /// A step was mapped: all its pages are free and clean.
    pub(crate) fn add(&mut self, step: u32, backing: Backing) {
        debug_assert_ne!(backing, Backing::Unmapped);
        let entry = self.step(step);
        *entry = Step { backing, longest: STEP_PAGES as u16, ..Step::default() };
        entry.clean.set(0, STEP_PAGES);
        entry.zero.set(0, STEP_PAGES);
        self.link(step);
        self.totals.mapped += STEP_PAGES as usize;
        self.totals.clean += STEP_PAGES as usize;
        self.first = self.first.max(!step);
        self.end = self.end.max(step + 1);
    }

    /// A step that was given back as a whole is taken into use again, with the backing it has or another one.
    pub(crate) fn vacated(&mut self) -> Option<(u32, Backing)> {
        let step = self.heads[VACATED].checked_sub(1)?;
        Some((step, self.step(step).backing))
    }

    /// Takes the step that [`vacated`](Self::vacated) named into use again.
    pub(crate) fn reopen(&mut self, step: u32, backing: Backing) {
        self.unlink(step);
        let entry = self.step(step);
        debug_assert!(entry.vacated);
        entry.vacated = false;
        entry.was_used = false;
        entry.backing = backing;
        self.totals.vacated_steps -= 1;
        self.link(step);
    }

    /// A step that was mapped once, to be mapped again.
    pub(crate) fn take_unmapped(&mut self) -> Option<u32> {
        let step = self.unmapped.checked_sub(1)?;
        self.unmapped = self.step(step).next;
        Some(step)
    }

    /// Puts a step where [`take_unmapped`](Self::take_unmapped) finds it. It must be on no list.
    pub(crate) fn put_unmapped(&mut self, step: u32) {
        let next = self.unmapped;
        *self.step(step) = Step { next, ..Step::default() };
        self.unmapped = step + 1;
    }

    fn link(&mut self, step: u32) {
        let list = self.step(step).list();
        let head = self.heads[list];
        let entry = self.step(step);
        entry.next = head;
        entry.previous = 0;
        if let Some(first) = head.checked_sub(1) {
            self.step(first).previous = step + 1;
        } else if list == EMPTY {
            self.oldest_empty = step + 1;
        }
        self.heads[list] = step + 1;
        self.occupied[list / 64] |= 1 << (list % 64);
    }

    fn unlink(&mut self, step: u32) {
        let entry = self.step(step);
        let (next, previous, list) = (entry.next, entry.previous, entry.list());
        if let Some(next) = next.checked_sub(1) {
            self.step(next).previous = previous;
        } else if list == EMPTY {
            self.oldest_empty = previous;
        }
        if let Some(previous) = previous.checked_sub(1) {
            self.step(previous).next = next;
        } else {
            self.heads[list] = next;
            if next == 0 {
                self.occupied[list / 64] &= !(1 << (list % 64));
            }
        }
    }

    /// Puts a step on the list it now belongs to: its longest free run has so many pages.
    fn refile(&mut self, step: u32, longest: u32) {
        let longest = longest as u16;
        if longest != self.step(step).longest {
            self.unlink(step);
            self.step(step).longest = longest;
            self.link(step);
        }
    }

    /// The first list at or after `from` that has a step, other than that of vacated ones.
    fn occupied_list(&self, from: u32) -> Option<usize> {
        let mut list = from as usize;
        while list <= EMPTY {
            let bits = self.occupied[list / 64] >> (list % 64);
            if bits != 0 {
                return Some(list + bits.trailing_zeros() as usize).filter(|&list| list <= EMPTY);
            }
            list = (list / 64 + 1) * 64;
        }
        None
    }

    /// Cuts a run that starts at a multiple of `align` pages, if at most `most` more pages hold memory for it.
    pub(crate) fn take(&mut self, pages: u32, align: u32, most: usize) -> Result<Run, NotTaken> {
        debug_assert!((1..=STEP_PAGES).contains(&pages));
        debug_assert!(align.is_power_of_two());
        // Where no memory lies free, the tightest list has the answer. Else it is worth a look whether another one saves touching more.
        let may_be_dirty = self.totals.dirty() >= pages as usize;
        let mut looks = if may_be_dirty { LOOKS_FOR_DIRTY } else { 0 };
        let mut best: Option<Place> = None;
        let mut list = self.occupied_list(pages);
        while let Some(found) = list {
            if let Some(place) = self.best_of_list(found, pages, align)
                && best.as_ref().is_none_or(|best| place.clean < best.clean)
            {
                best = Some(place);
            }
            // Only alignment makes a long enough run useless.
            if best.as_ref().is_some_and(|best| best.clean == 0 || looks == 0) {
                break;
            }
            looks = looks.saturating_sub(1);
            list = self.occupied_list(found as u32 + 1);
        }
        let place = best.ok_or(NotTaken::NoRoom)?;
        // It is never more than a step's.
        if most < STEP_PAGES as usize {
            let more = if self.comes_whole(place.step) { STEP_PAGES } else { place.clean };
            if more as usize > most {
                return Err(NotTaken::TooMuch);
            }
        }
        Ok(self.cut(place.step, place.at, pages))
    }

    /// The first touch of a huge page brings memory for all of it. If the kernel has none just then, this counts too much as dirty, never too
    /// little.
    fn comes_whole(&mut self, step: u32) -> bool {
        let entry = self.step(step);
        entry.clean == PageBits::ALL && entry.backing == Backing::HugePages
    }

    /// Of the first few steps of a list, the one with the most runs, and where in it.
    fn best_of_list(&mut self, list: usize, pages: u32, align: u32) -> Option<Place> {
        let mut best = None;
        let mut most_runs = 0;
        let mut looks = 0;
        let mut link = self.heads[list];
        while let Some(step) = link.checked_sub(1) {
            let entry = self.step(step);
            link = entry.next;
            if best.is_none() || entry.runs > most_runs {
                // Memory that is there already, rather than more of it; then the tightest place.
                let all_dirty = entry.clean == PageBits::default();
                let places = entry.used.runs(false).filter_map(|(first, length)| {
                    let at = first.next_multiple_of(align);
                    let fits = at + pages <= first + length;
                    fits.then(|| (if all_dirty { 0 } else { entry.clean.count_in(at, pages) }, length, at))
                });
                if let Some((clean, _, at)) = places.min() {
                    best = Some(Place { step, at, clean });
                    most_runs = entry.runs;
                }
            }
            looks += 1;
            if looks >= LOOKS && best.is_some() {
                break;
            }
        }
        best
    }

    fn cut(&mut self, step: u32, at: u32, pages: u32) -> Run {
        let entry = self.step(step);
        entry.runs += 1;
        let zeroed = self.occupy(step, at, pages);
        Run { page: PageIndex::of_step(step).plus(at), pages, zeroed }
    }

    /// Free → used. Says whether all of it reads as zero.
    fn occupy(&mut self, step: u32, at: u32, pages: u32) -> bool {
        let entry = self.step(step);
        debug_assert_eq!(entry.used.count_in(at, pages), 0);
        let gap = entry.used.gap_around(at, pages);
        entry.used.set(at, pages);
        // In a step that has been in use for a while there is nothing clean left, nor zero.
        let mut clean = 0;
        if entry.clean != PageBits::default() {
            let (first, count) = if self.comes_whole(step) { (0, STEP_PAGES) } else { (at, pages) };
            let entry = self.step(step);
            clean = entry.clean.count_in(first, count);
            entry.clean.clear(first, count);
        }
        let entry = self.step(step);
        let mut zero = 0;
        if entry.zero != PageBits::default() {
            zero = entry.zero.count_in(at, pages);
            entry.zero.clear(at, pages);
        }
        entry.used_pages += pages as u16;
        if gap == u32::from(entry.longest) {
            let longest = entry.used.runs(false).map(|(_, pages)| pages).max().unwrap_or(0);
            self.refile(step, longest);
        }
        self.totals.used += pages as usize;
        self.totals.clean -= clean as usize;
        zero == pages
    }

    /// Used → free and dirty.
    fn vacate(&mut self, step: u32, at: u32, pages: u32, tick: u32) {
        let entry = self.step(step);
        debug_assert_eq!(entry.used.count_in(at, pages), pages);
        entry.used.clear(at, pages);
        entry.used_pages -= pages as u16;
        entry.freed_tick = tick;
        entry.was_used = true;
        let gap = entry.used.gap_around(at, pages);
        let longest = gap.max(u32::from(entry.longest));
        self.refile(step, longest);
        self.totals.used -= pages as usize;
    }

    /// Takes a run back. Its pages are dirty now.
    pub(crate) fn give(&mut self, page: PageIndex, pages: u32, tick: u32) {
        let step = page.step();
        self.step(step).runs -= 1;
        self.vacate(step, page.in_step(), pages, tick);
    }

    /// Takes a run back all of which was purged meanwhile, in a step that was [broken up](Self::break_up) for that. Its pages are clean and zero.
    pub(crate) fn give_clean(&mut self, page: PageIndex, pages: u32, tick: u32) {
        debug_assert_ne!(self.step(page.step()).backing, Backing::HugePages);
        self.give(page, pages, tick);
        let entry = self.step(page.step());
        entry.clean.set(page.in_step(), pages);
        entry.zero.set(page.in_step(), pages);
        self.totals.clean += pages as usize;
    }

    /// Makes a run longer where it is, if the pages behind it are free. `Some(true)`: the new pages are zero.
    /// At most `most` pages more may hold memory for it.
    pub(crate) fn extend(&mut self, page: PageIndex, pages: u32, more: u32, most: usize) -> Option<bool> {
        let step = page.step();
        let at = page.in_step() + pages;
        let entry = self.step(step);
        if at + more > STEP_PAGES || entry.used.count_in(at, more) != 0 || entry.clean.count_in(at, more) as usize > most {
            return None;
        }
        Some(self.occupy(step, at, more))
    }

    /// Makes a run shorter where it is: its last `less` pages are free now.
    pub(crate) fn shorten(&mut self, page: PageIndex, pages: u32, less: u32, tick: u32) {
        self.vacate(page.step(), page.in_step() + pages - less, less, tick);
    }

    /// Claims the step that has been empty for the longest, if that was in or before tick `until` and it was used: it holds memory, or if all
    /// of it went piece by piece, its tables' entries do. All its pages count as used until [`purged`](Self::purged).
    pub(crate) fn claim_empty_dirty(&mut self, until: u32) -> Option<DirtyRun> {
        let mut link = self.oldest_empty;
        // Few are empty and were never used: those that were added just now.
        for _ in 0..LOOKS {
            let step = link.checked_sub(1)?;
            let entry = self.step(step);
            if entry.was_used {
                return is_by(entry.freed_tick, until).then(|| self.claim(step, 0, STEP_PAGES));
            }
            link = entry.previous;
        }
        None
    }

    /// Looks for dirty pages in steps that are in use, from where it stopped the last time, and claims the first run of them: in small
    /// pages that became free in or before tick `rested.until`, and in huge ones if nothing happened there since tick `rested.broken_until`,
    /// because that breaks them up.
    ///
    /// Only whole kernel pages, of `grain` pages each. `Err`: so many steps were looked at in vain; they are few, because others wait meanwhile.
    pub(crate) fn claim_in_used(&mut self, rested: Rested, grain: u32) -> Result<DirtyRun, u32> {
        const LOOKS_IN_USED: u32 = 64;
        if self.totals.dirty() == 0 {
            return Err(self.end.saturating_sub(!self.first).max(1));
        }
        for _ in 0..LOOKS_IN_USED {
            if !(!self.first..self.end).contains(&self.hand) {
                self.hand = !self.first;
            }
            let step = self.hand;
            let entry = self.step(step);
            let until = match entry.backing {
                Backing::Unmapped => None,
                Backing::SmallPages => Some(rested.until),
                Backing::HugePages => Some(rested.broken_until),
            };
            if entry.used_pages > 0
                && until.is_some_and(|until| is_by(entry.freed_tick, until))
                && let Some((at, pages)) = entry.used.or(entry.clean).runs(false).find_map(|(first, length)| {
                    let (at, end) = (first.next_multiple_of(grain), (first + length) / grain * grain);
                    (end > at).then(|| (at, end - at))
                })
            {
                return Ok(self.claim(step, at, pages));
            }
            self.hand += 1;
        }
        Err(LOOKS_IN_USED)
    }

    fn claim(&mut self, step: u32, at: u32, pages: u32) -> DirtyRun {
        let entry = self.step(step);
        let breaks_up = entry.backing == Backing::HugePages && pages < STEP_PAGES;
        let (clean, zero) = (entry.clean, entry.zero);
        let dirty = pages - clean.count_in(at, pages);
        self.occupy(step, at, pages);
        self.totals.claimed_clean += (pages - dirty) as usize;
        DirtyRun { page: PageIndex::of_step(step).plus(at), pages, dirty, breaks_up, clean, zero }
    }

    /// Ends what a claim began: the pages are free again, and clean if that worked; else as they were. A whole step is
    /// [vacated](Self::vacated) then.
    pub(crate) fn purged(&mut self, run: &DirtyRun, clean: bool) {
        let step = run.page.step();
        let tick = self.step(step).freed_tick;
        self.vacate(step, run.page.in_step(), run.pages, tick);
        self.totals.claimed_clean -= (run.pages - run.dirty) as usize;
        if !clean {
            // Something else is tried first the next time.
            if self.hand == step {
                self.hand += 1;
            }
            for page in run.page.in_step()..run.page.in_step() + run.pages {
                let entry = self.step(step);
                if run.zero.count_in(page, 1) > 0 {
                    entry.zero.set(page, 1);
                }
                if run.clean.count_in(page, 1) > 0 {
                    entry.clean.set(page, 1);
                    self.totals.clean += 1;
                }
            }
            return;
        }
        let entry = self.step(step);
        entry.clean.set(run.page.in_step(), run.pages);
        entry.zero.set(run.page.in_step(), run.pages);
        self.totals.clean += run.pages as usize;
        if run.breaks_up {
            self.step(step).backing = Backing::SmallPages;
        }
        if run.pages == STEP_PAGES {
            self.unlink(step);
            self.step(step).vacated = true;
            self.link(step);
            self.totals.vacated_steps += 1;
        }
    }

    /// Is anything of this step in use? `None`: there are no steps from here on.
    pub(crate) fn is_in_use(&mut self, step: u32) -> Option<bool> {
        (step < self.end).then(|| step >= !self.first && self.step(step).used_pages > 0)
    }

    /// Part of a step in use is about to be purged: its huge page, if it has one, will be none any more.
    pub(crate) fn break_up(&mut self, step: u32) -> bool {
        let entry = self.step(step);
        let breaks = entry.backing == Backing::HugePages;
        if breaks {
            entry.backing = Backing::SmallPages;
        }
        breaks
    }

    /// Takes out a step that nobody uses, to be unmapped. `None`: there is none.
    pub(crate) fn claim_empty(&mut self) -> Option<u32> {
        let step = self.heads[VACATED].checked_sub(1).or(self.heads[EMPTY].checked_sub(1))?;
        let entry = self.step(step);
        let clean = entry.clean.count_in(0, STEP_PAGES) as usize;
        self.unlink(step);
        let entry = self.step(step);
        self.totals.vacated_steps -= usize::from(core::mem::take(&mut entry.vacated));
        self.totals.mapped -= STEP_PAGES as usize;
        self.totals.clean -= clean;
        Some(step)
    }

    /// Puts back a step that could not be unmapped. It is dirty for all we know.
    pub(crate) fn restore_empty(&mut self, step: u32) {
        let entry = self.step(step);
        entry.clean = PageBits::default();
        entry.zero = PageBits::default();
        entry.was_used = true;
        self.link(step);
        self.totals.mapped += STEP_PAGES as usize;
    }

    /// Asserts every equation of the structure, walking all of it.
    #[cfg(test)]
    pub(crate) fn check(&mut self, steps: u32) {
        let mut totals = PageTotals::default();
        let mut on_lists = 0;
        for list in 0..LISTS {
            let mut link = self.heads[list];
            assert_eq!(link != 0, self.occupied[list / 64] >> (list % 64) & 1 == 1, "list {list}");
            let mut previous = 0;
            while let Some(step) = link.checked_sub(1) {
                let entry = self.step(step).clone();
                assert_eq!(entry.list(), list);
                assert!(!entry.vacated || (entry.used_pages == 0 && entry.clean == PageBits::ALL));
                totals.vacated_steps += usize::from(entry.vacated);
                assert_eq!(entry.previous, previous);
                assert_eq!(entry.used.runs(false).map(|(_, pages)| pages).max().unwrap_or(0), u32::from(entry.longest));
                assert_eq!(entry.used.count_in(0, STEP_PAGES), u32::from(entry.used_pages));
                assert_eq!(entry.zero.and_not(entry.used), entry.zero);
                assert_eq!(entry.clean.and_not(entry.zero), PageBits::default());
                if list == EMPTY && entry.next == 0 {
                    assert_eq!(self.oldest_empty, link);
                }
                totals.mapped += STEP_PAGES as usize;
                totals.used += usize::from(entry.used_pages);
                totals.clean += entry.clean.count_in(0, STEP_PAGES) as usize;
                on_lists += 1;
                previous = link;
                link = entry.next;
            }
        }
        assert!(on_lists <= steps);
        assert_eq!(totals, self.totals);
    }
}

/// Was it in or before tick `until`? Ticks wrap round.
pub(crate) fn is_by(tick: u32, until: u32) -> bool {
    until.wrapping_sub(tick) < u32::MAX / 2
}

/// How long what is claimed must have rested.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Rested {
    /// Free since this tick at the latest.
    pub(crate) until: u32,
    /// The same for pages whose release breaks a huge page up.
    pub(crate) broken_until: u32,
}

impl Rested {
    /// Whatever is free at tick `now`.
    pub(crate) const fn any(now: u32) -> Self {
        Self { until: now, broken_until: now }
    }
}

/// Dirty pages on their way to be purged.
#[derive(PartialEq, Eq, Debug)]
#[must_use]
pub(crate) struct DirtyRun {
    pub(crate) page: PageIndex,
    pub(crate) pages: u32,
    /// How many of them hold memory: of a whole step perhaps not all.
    pub(crate) dirty: u32,
    /// It is part of a huge page.
    pub(crate) breaks_up: bool,
    /// What was clean and zero in the step before the claim.
    clean: PageBits,
    zero: PageBits,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const STEPS: u32 = 6;

    fn filler(steps: u32) -> Filler {
        let table = Vec::leak(vec![Step::default(); steps as usize]);
        let mut filler = Filler::new();
        // SAFETY: the table is leaked and has an entry for every step that the test adds.
        unsafe { filler.settle(table.as_mut_ptr()) };
        for step in 0..steps {
            filler.add(step, if step % 2 == 0 { Backing::SmallPages } else { Backing::HugePages });
        }
        filler
    }

    fn take(filler: &mut Filler, pages: u32, align: u32) -> Option<Run> {
        filler.take(pages, align, usize::MAX).ok()
    }

    #[test]
    fn no_more_memory_is_taken_than_may_be() {
        let mut filler = filler(2);
        assert_eq!(filler.take(10, 1, 9).err(), Some(NotTaken::TooMuch));
        let (small, huge) = (filler.take(256, 1, 256).expect("room"), filler.take(256, 1, 256).expect("room"));
        assert_eq!(filler.take(1, 1, 256).err(), Some(NotTaken::NoRoom));
        filler.give(small.page, 256, 1);
        assert!(filler.take(256, 1, 0).is_ok(), "what holds memory already is no more of it");
        filler.give(huge.page, 256, 1);
        let claimed = filler.claim_empty_dirty(1).expect("it is empty");
        filler.purged(&claimed, true);
        filler.reopen(huge.page.step(), Backing::HugePages);
        assert_eq!(filler.take(1, 1, 255).err(), Some(NotTaken::TooMuch), "a huge page comes as a whole");
        assert!(filler.take(1, 1, 256).is_ok());
        filler.check(2);
    }

    /// A random walk beside the simplest model: which pages are used, which hold memory, which were touched.
    #[test]
    #[allow(clippy::too_many_lines, reason = "one arm for each thing that happens")]
    fn runs_never_overlap_and_the_sums_hold() {
        let mut filler = filler(STEPS);
        let mut live: BTreeMap<u32, u32> = BTreeMap::new();
        let mut dirty = [false; (STEPS * STEP_PAGES) as usize];
        let mut touched = dirty;
        // Odd steps have a huge page, which comes as a whole, until it is broken up.
        let mut small: [bool; STEPS as usize] = std::array::from_fn(|step| step % 2 == 0);
        let touch = |small: &[bool], dirty: &mut [bool], touched: &mut [bool], range: std::ops::Range<usize>| {
            let step = range.start / STEP_PAGES as usize;
            let whole = step * STEP_PAGES as usize..(step + 1) * STEP_PAGES as usize;
            if !small[step] && !dirty[whole.clone()].contains(&true) {
                dirty[whole].fill(true);
            }
            dirty[range.clone()].fill(true);
            touched[range].fill(true);
        };
        let mut state = 99_u64;
        let mut random = move |below: u32| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as u32 % below
        };
        for tick in 0..60_000 {
            match random(10) {
                0..5 => {
                    let pages = if random(20) == 0 { 1 + random(STEP_PAGES) } else { 1 + random(12) };
                    let align = 1 << random(4);
                    if let Some(run) = take(&mut filler, pages, align) {
                        assert_eq!(run.page.0 % align, 0);
                        assert_eq!(run.page.step(), run.page.plus(pages - 1).step());
                        let range = run.page.0 as usize..(run.page.0 + pages) as usize;
                        assert_eq!(run.zeroed, !touched[range.clone()].contains(&true));
                        touch(&small, &mut dirty, &mut touched, range);
                        if let Some((before, length)) = live.range(..=run.page.0).next_back() {
                            assert!(before + length <= run.page.0);
                        }
                        assert!(live.range(run.page.0..run.page.0 + pages).next().is_none());
                        live.insert(run.page.0, pages);
                    }
                }
                5..8 if !live.is_empty() => {
                    let nth = random(live.len() as u32) as usize;
                    let (&page, &pages) = live.iter().nth(nth).expect("within the count");
                    live.remove(&page);
                    if random(4) > 0 {
                        filler.give(PageIndex(page), pages, tick);
                    } else {
                        let step = PageIndex(page).step();
                        assert_eq!(filler.break_up(step), !core::mem::replace(&mut small[step as usize], true));
                        filler.give_clean(PageIndex(page), pages, tick);
                        dirty[page as usize..(page + pages) as usize].fill(false);
                        touched[page as usize..(page + pages) as usize].fill(false);
                    }
                }
                8 if !live.is_empty() => {
                    let nth = random(live.len() as u32) as usize;
                    let (&page, &pages) = live.iter().nth(nth).expect("within the count");
                    let more = 1 + random(9);
                    let behind = page + pages..page + pages + more;
                    let is_free = live.range(behind.clone()).next().is_none() && page % STEP_PAGES + pages + more <= STEP_PAGES;
                    let extended = filler.extend(PageIndex(page), pages, more, usize::MAX);
                    assert_eq!(extended.is_some(), is_free);
                    if let Some(zeroed) = extended {
                        let range = behind.start as usize..behind.end as usize;
                        assert_eq!(zeroed, !touched[range.clone()].contains(&true));
                        touch(&small, &mut dirty, &mut touched, range);
                        let less = 1 + random(pages + more - 1);
                        filler.shorten(PageIndex(page), pages + more, less, tick);
                        live.insert(page, pages + more - less);
                    }
                }
                _ => {
                    let rested = if random(2) == 0 {
                        Rested::any(tick)
                    } else {
                        Rested { until: tick, broken_until: tick.wrapping_sub(u32::MAX / 2) }
                    };
                    let claimed = match filler.claim_empty_dirty(tick) {
                        Some(whole) => Some(whole),
                        None => filler.claim_in_used(rested, 1).ok(),
                    };
                    if let Some(run) = claimed {
                        let range = run.page.0 as usize..(run.page.0 + run.pages) as usize;
                        assert!(run.pages == STEP_PAGES || dirty[range.clone()].iter().all(|dirty| *dirty));
                        assert_eq!(run.dirty, dirty[range.clone()].iter().filter(|dirty| **dirty).count() as u32);
                        assert!(live.range(run.page.0..run.page.0 + run.pages).next().is_none());
                        let works = random(4) != 0;
                        filler.purged(&run, works);
                        small[range.start / STEP_PAGES as usize] |= run.breaks_up && works;
                        if works {
                            dirty[range.clone()].fill(false);
                            touched[range].fill(false);
                        }
                    }
                    if random(3) == 0
                        && let Some((step, backing)) = filler.vacated()
                    {
                        assert_eq!(backing == Backing::SmallPages, small[step as usize]);
                        filler.reopen(step, backing);
                    }
                }
            }
            if tick % 64 == 0 {
                filler.check(STEPS);
                let used: usize = live.values().map(|pages| *pages as usize).sum();
                assert_eq!(filler.totals().used, used);
                let is_live = |page: u32| live.range(..=page).next_back().is_some_and(|(first, length)| first + length > page);
                let clean = (0..STEPS * STEP_PAGES).filter(|page| !dirty[*page as usize] && !is_live(*page)).count();
                assert_eq!(filler.totals().clean, clean);
            }
        }
    }

    #[test]
    fn the_tightest_fit_is_taken() {
        let mut filler = filler(2);
        let wall = take(&mut filler, 200, 1).expect("room");
        let small = take(&mut filler, 50, 1).expect("room");
        assert_eq!(small.page.step(), wall.page.step(), "56 pages are left there; the other step stays whole");
        let large = take(&mut filler, 256, 1).expect("the other step is whole");
        assert_ne!(large.page.step(), wall.page.step());
        assert_eq!(take(&mut filler, 7, 1), None);
        assert!(take(&mut filler, 6, 1).is_some());
    }

    #[test]
    fn only_pages_that_rest_are_claimed() {
        let mut filler = filler(2);
        let (stays, run) = (take(&mut filler, 10, 1).expect("room"), take(&mut filler, 10, 1).expect("room"));
        filler.give(run.page, 10, 5);
        assert_eq!(filler.claim_in_used(Rested::any(4), 1).ok(), None);
        let backing = filler.step(run.page.step()).backing;
        let broken = backing == Backing::HugePages;
        let (until, broken_until) = if broken { (9, 4) } else { (4, 9) };
        assert_eq!(filler.claim_in_used(Rested { until, broken_until }, 1).ok(), None, "{backing:?}");
        let claimed = filler.claim_in_used(Rested::any(5), 1).expect("old enough");
        assert_eq!((claimed.page.step(), claimed.breaks_up), (stays.page.step(), broken));
        filler.purged(&claimed, true);
        assert_eq!(filler.step(run.page.step()).backing, Backing::SmallPages);
        assert_eq!(filler.claim_in_used(Rested::any(9), 1).ok().is_some(), filler.totals().dirty() > 0);
        filler.check(2);
    }

    #[test]
    fn the_step_that_was_empty_first_goes_first() {
        let mut filler = filler(3);
        let runs: Vec<Run> = (0..3).map(|_| take(&mut filler, 256, 1).expect("room")).collect();
        for (tick, index) in [(1, 2), (2, 0), (3, 1)] {
            filler.give(runs[index].page, 256, tick);
        }
        assert_eq!(filler.claim_empty_dirty(0), None);
        for (tick, index) in [(1, 2), (2, 0), (3, 1)] {
            assert_eq!(filler.claim_empty_dirty(tick - 1), None);
            let claimed = filler.claim_empty_dirty(tick).expect("it has rested");
            assert_eq!((claimed.page, claimed.pages), (runs[index].page, 256));
            filler.purged(&claimed, true);
            filler.check(3);
        }
        assert_eq!((filler.totals().vacated_steps, filler.totals().held()), (3, 0));
        assert_eq!(take(&mut filler, 1, 1), None, "what was given back is reopened first");
        let (step, backing) = filler.vacated().expect("there are three");
        filler.reopen(step, backing);
        assert_eq!(take(&mut filler, 1, 1).map(|run| run.zeroed), Some(true));
        filler.check(3);
    }

    #[test]
    fn a_step_that_went_piece_by_piece_is_given_back_as_a_whole() {
        const MANY: u32 = 3 * LOOKS;
        let mut filler = filler(MANY + 1);
        let runs: Vec<Run> = (0..2 * MANY).map(|_| take(&mut filler, 128, 1).expect("room")).collect();
        let last = take(&mut filler, 256, 1).expect("room");
        for (tick, run) in runs.iter().enumerate() {
            filler.break_up(run.page.step());
            filler.give_clean(run.page, 128, tick as u32);
        }
        assert_eq!((filler.totals().held(), filler.take_change()), (256, 256));
        filler.give(last.page, 256, 2 * MANY);
        // Or nobody would look as far as the one that holds memory.
        for _ in 0..MANY {
            let claimed = filler.claim_empty_dirty(2 * MANY).expect("its tables' entries go");
            assert_eq!((claimed.pages, claimed.dirty), (256, 0));
            filler.purged(&claimed, true);
        }
        let claimed = filler.claim_empty_dirty(2 * MANY).expect("it is the last");
        assert_eq!((claimed.page, claimed.dirty), (last.page, 256));
        filler.purged(&claimed, true);
        assert_eq!((filler.totals().vacated_steps as u32, filler.take_change()), (MANY + 1, -256));
        filler.check(MANY + 1);
    }

    #[test]
    fn an_empty_step_leaves_and_returns() {
        let mut filler = filler(2);
        let run = take(&mut filler, 256, 1).expect("room");
        let other = filler.claim_empty().expect("one step is unused");
        assert_ne!(other, run.page.step());
        assert_eq!(filler.claim_empty(), None);
        filler.put_unmapped(other);
        assert_eq!(filler.totals().mapped, 256);
        assert_eq!(filler.take_unmapped(), Some(other));
        assert_eq!(filler.take_unmapped(), None);
        filler.add(other, Backing::SmallPages);
        assert_eq!(filler.totals().clean, 256);
        filler.check(2);
    }
}
