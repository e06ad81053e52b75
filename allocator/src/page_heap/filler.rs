//! Floor 4. The filler: which pages of which step are taken.
//!
//! Packs page runs into steps so that steps, and the huge pages behind them, stay full or become empty: a run is cut from the step
//! whose longest free run is the shortest that fits, and among those from one with many runs, because the number of runs, not
//! of pages, tells how soon a step will be empty. (After tcmalloc's Temeraire, `docs/temeraire.md` there.)
//!
//! ```text
//!   heads[longest free run]      0   1   2   3  …  256          one list of steps each
//!                                    │       └─▶ step ⇄ step
//!                                    └─▶ step ⇄ step ⇄ step
//!
//!   a step:  used   ████░░██░░░░████      a page is used or free;
//!            clean  ····▒···▒▒▒▒····      a free page is clean (holds no memory) or dirty;
//!            zero   ····▒···▒▒▒▒▒▒··      clean pages are zero, and so are untouched ones that came with a huge page
//! ```
//!
//! Not shared: lives behind the page heap's lock. Knows numbers only, never touches pages.

use crate::units::{PageIndex, STEP_PAGES};

/// 256 bits, one per page of a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct PageBits([u64; 4]);

impl PageBits {
    const fn mask(from: u32, to: u32) -> u64 {
        // Both within one word; `to` may be 64.
        (if to == 64 { u64::MAX } else { (1 << to) - 1 }) & (u64::MAX << from)
    }

    /// Runs `change` on every word of `from..from + count`, with the bits concerned.
    fn for_words(&mut self, from: u32, count: u32, mut change: impl FnMut(&mut u64, u64)) {
        let end = from + count;
        let mut at = from;
        while at < end {
            let word = at / 64;
            let word_end = ((word + 1) * 64).min(end);
            change(&mut self.0[word as usize], Self::mask(at % 64, word_end - word * 64));
            at = word_end;
        }
    }

    fn set(&mut self, from: u32, count: u32) {
        self.for_words(from, count, |word, bits| *word |= bits);
    }

    fn clear(&mut self, from: u32, count: u32) {
        self.for_words(from, count, |word, bits| *word &= !bits);
    }

    fn count_in(mut self, from: u32, count: u32) -> u32 {
        let mut ones = 0;
        self.for_words(from, count, |word, bits| ones += (*word & bits).count_ones());
        ones
    }

    /// The first position at or after `from` whose bit is `value`, or 256.
    fn find(&self, value: bool, from: u32) -> u32 {
        let mut at = from;
        while at < STEP_PAGES {
            let word = self.0[at as usize / 64];
            let wanted = (if value { word } else { !word }) >> (at % 64);
            if wanted != 0 {
                return at + wanted.trailing_zeros();
            }
            at = (at / 64 + 1) * 64;
        }
        STEP_PAGES
    }

    /// The position behind the last bit before `end` that is set, or 0.
    fn end_of_set_before(&self, end: u32) -> u32 {
        let mut end = end;
        while let Some(last) = end.checked_sub(1) {
            let word = self.0[last as usize / 64] << (63 - last % 64);
            if word != 0 {
                return end - word.leading_zeros();
            }
            end = last / 64 * 64;
        }
        0
    }

    /// How long the run of bits is that are not set around these, which are not.
    fn gap_around(&self, at: u32, count: u32) -> u32 {
        self.find(true, at + count) - self.end_of_set_before(at)
    }

    /// Every run of bits that are `value`, as (first, length).
    fn runs(&self, value: bool) -> impl Iterator<Item = (u32, u32)> {
        let mut at = 0;
        core::iter::from_fn(move || {
            let first = self.find(value, at);
            at = self.find(!value, first);
            (first < STEP_PAGES).then(|| (first, at - first))
        })
    }
}

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
    /// Neighbours on the list of steps with the same longest free run: step plus one, 0 for none.
    next: u32,
    previous: u32,
    /// Length of the longest free run; which list the step is on.
    longest: u16,
    used_pages: u16,
    /// Page runs in use: few means nearly empty.
    runs: u16,
    pub(crate) backing: Backing,
    /// The tick in which pages last became free.
    freed_tick: u32,
}

/// Bytes between the steps' entries in their table.
pub(crate) const STEP_ENTRY_BYTES: usize = size_of::<Step>();

const LISTS: usize = STEP_PAGES as usize + 1;

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
}

impl PageTotals {
    /// Free pages that still hold memory.
    pub(crate) fn dirty(&self) -> usize {
        self.mapped - self.used - self.clean
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
    totals: PageTotals,
    /// Steps that were mapped once and are not now: they are mapped again first. Step plus one, linked by `next`.
    unmapped: u32,
}

// SAFETY: the table belongs to the filler alone.
unsafe impl Send for Filler {}

impl Filler {
    pub(crate) const fn new() -> Self {
        Self {
            steps: core::ptr::null_mut(),
            heads: [0; LISTS],
            occupied: [0; LISTS.div_ceil(64)],
            totals: PageTotals { mapped: 0, used: 0, clean: 0 },
            unmapped: 0,
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
        let list = usize::from(self.step(step).longest);
        let head = self.heads[list];
        let entry = self.step(step);
        entry.next = head;
        entry.previous = 0;
        if let Some(first) = head.checked_sub(1) {
            self.step(first).previous = step + 1;
        }
        self.heads[list] = step + 1;
        self.occupied[list / 64] |= 1 << (list % 64);
    }

    fn unlink(&mut self, step: u32) {
        let entry = self.step(step);
        let (next, previous, list) = (entry.next, entry.previous, usize::from(entry.longest));
        if let Some(next) = next.checked_sub(1) {
            self.step(next).previous = previous;
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

    /// The first list at or after `from` that has a step.
    fn occupied_list(&self, from: u32) -> Option<usize> {
        let mut list = from as usize;
        while list < LISTS {
            let bits = self.occupied[list / 64] >> (list % 64);
            if bits != 0 {
                return Some(list + bits.trailing_zeros() as usize);
            }
            list = (list / 64 + 1) * 64;
        }
        None
    }

    /// Cuts a run that starts at a multiple of `align` pages. `None`: no step has one.
    pub(crate) fn take(&mut self, pages: u32, align: u32) -> Option<Run> {
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
        best.map(|place| self.cut(place.step, place.at, pages))
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
            // The first touch of a huge page brings memory for all of it. If the kernel has none just then, this counts too much as dirty,
            // never too little.
            let comes_whole = entry.backing == Backing::HugePages && entry.clean.count_in(0, STEP_PAGES) == STEP_PAGES;
            let (first, count) = if comes_whole { (0, STEP_PAGES) } else { (at, pages) };
            clean = entry.clean.count_in(first, count);
            entry.clean.clear(first, count);
        }
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

    /// Makes a run longer where it is, if the pages behind it are free. `Some(true)`: the new pages are zero.
    pub(crate) fn extend(&mut self, page: PageIndex, pages: u32, more: u32) -> Option<bool> {
        let step = page.step();
        let at = page.in_step() + pages;
        if at + more > STEP_PAGES || self.step(step).used.count_in(at, more) != 0 {
            return None;
        }
        Some(self.occupy(step, at, more))
    }

    /// Makes a run shorter where it is: its last `less` pages are free now.
    pub(crate) fn shorten(&mut self, page: PageIndex, pages: u32, less: u32, tick: u32) {
        self.vacate(page.step(), page.in_step() + pages - less, less, tick);
    }

    /// Claims dirty pages to be purged: they count as used until [`purged`](Self::purged). Whole empty steps first, then runs in
    /// steps with small pages, then (`Thorough::Yes`) in steps with huge pages too, which breaks those up. Only pages that became
    /// free in or before tick `until`.
    pub(crate) fn claim_dirty(&mut self, until: u32, thorough: Thorough) -> Option<DirtyRun> {
        self.claim_dirty_in_list(STEP_PAGES as usize, until, thorough).or_else(|| {
            let mut list = 1;
            while let Some(found) = self.occupied_list(list) {
                if found == STEP_PAGES as usize {
                    break;
                }
                if let Some(run) = self.claim_dirty_in_list(found, until, thorough) {
                    return Some(run);
                }
                list = found as u32 + 1;
            }
            None
        })
    }

    fn claim_dirty_in_list(&mut self, list: usize, until: u32, thorough: Thorough) -> Option<DirtyRun> {
        let mut link = self.heads[list];
        while let Some(step) = link.checked_sub(1) {
            let entry = self.step(step);
            link = entry.next;
            let whole = list == STEP_PAGES as usize;
            let old_enough = until.wrapping_sub(entry.freed_tick) < u32::MAX / 2;
            let may_split = entry.backing == Backing::SmallPages || thorough == Thorough::Yes;
            if !old_enough || !(whole || may_split) {
                continue;
            }
            let mut taken = entry.used;
            for (word, clean) in taken.0.iter_mut().zip(entry.clean.0) {
                *word |= clean;
            }
            let Some((at, pages)) = taken.runs(false).next() else { continue };
            let at_all = whole && entry.clean == PageBits::default();
            self.occupy(step, at, pages);
            return Some(DirtyRun { page: PageIndex::of_step(step).plus(at), pages, whole_step: at_all });
        }
        None
    }

    /// Ends what [`claim_dirty`](Self::claim_dirty) began: the pages are free again, and clean if that worked.
    pub(crate) fn purged(&mut self, run: &DirtyRun, clean: bool) {
        let step = run.page.step();
        let tick = self.step(step).freed_tick;
        self.vacate(step, run.page.in_step(), run.pages, tick);
        if clean {
            let entry = self.step(step);
            entry.clean.set(run.page.in_step(), run.pages);
            entry.zero.set(run.page.in_step(), run.pages);
            self.totals.clean += run.pages as usize;
        }
    }

    /// Takes out a step that nobody uses, to be unmapped. `None`: there is none.
    pub(crate) fn claim_empty(&mut self) -> Option<u32> {
        let step = self.heads[STEP_PAGES as usize].checked_sub(1)?;
        let entry = self.step(step);
        let clean = entry.clean.count_in(0, STEP_PAGES) as usize;
        self.unlink(step);
        self.totals.mapped -= STEP_PAGES as usize;
        self.totals.clean -= clean;
        Some(step)
    }

    /// Puts back a step that could not be unmapped. It is dirty for all we know.
    pub(crate) fn restore_empty(&mut self, step: u32) {
        self.step(step).clean = PageBits::default();
        self.step(step).zero = PageBits::default();
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
                assert_eq!(usize::from(entry.longest), list);
                assert_eq!(entry.previous, previous);
                assert_eq!(entry.used.runs(false).map(|(_, pages)| pages).max().unwrap_or(0), u32::from(entry.longest));
                assert_eq!(entry.used.count_in(0, STEP_PAGES), u32::from(entry.used_pages));
                assert!(entry.zero.0.iter().zip(entry.used.0).all(|(zero, used)| zero & used == 0));
                assert!(entry.clean.0.iter().zip(entry.zero.0).all(|(clean, zero)| clean & !zero == 0));
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

/// May huge pages be broken up?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Thorough {
    /// Only small pages and whole steps.
    No,
    /// Whatever is dirty.
    Yes,
}

/// Dirty pages on their way to be purged.
#[derive(PartialEq, Eq, Debug)]
#[must_use]
pub(crate) struct DirtyRun {
    pub(crate) page: PageIndex,
    pub(crate) pages: u32,
    /// It is a step's every page.
    pub(crate) whole_step: bool,
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

    #[test]
    fn bits_behave_like_bools() {
        let mut bits = PageBits::default();
        let mut model = [false; 256];
        let mut state = 7_u64;
        for _ in 0..2_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let from = (state >> 40) as u32 % 256;
            let count = 1 + (state >> 20) as u32 % (256 - from);
            if state >> 63 == 0 {
                bits.set(from, count);
            } else {
                bits.clear(from, count);
            }
            model[from as usize..(from + count) as usize].fill(state >> 63 == 0);
            let ones = model[from as usize..].iter().filter(|bit| **bit).count();
            assert_eq!(bits.count_in(from, 256 - from) as usize, ones);
            for value in [false, true] {
                let mut expected = Vec::new();
                let mut at = 0;
                while at < 256 {
                    let length = model[at..].iter().take_while(|bit| **bit == value).count();
                    if length > 0 {
                        expected.push((at as u32, length as u32));
                    }
                    at += length.max(1);
                }
                assert_eq!(bits.runs(value).collect::<Vec<_>>(), expected);
            }
            for (first, length) in bits.runs(false) {
                let at = first + (state >> 32) as u32 % length;
                let count = 1 + (state >> 16) as u32 % (first + length - at);
                assert_eq!(bits.gap_around(at, count), length);
            }
        }
    }

    /// A random walk beside the simplest model: which pages are used, which hold memory, which were touched.
    #[test]
    fn runs_never_overlap_and_the_sums_hold() {
        let mut filler = filler(STEPS);
        let mut live: BTreeMap<u32, u32> = BTreeMap::new();
        let mut dirty = [false; (STEPS * STEP_PAGES) as usize];
        let mut touched = dirty;
        // Odd steps have a huge page, which comes as a whole.
        let touch = |dirty: &mut [bool], touched: &mut [bool], range: std::ops::Range<usize>| {
            let step = range.start / STEP_PAGES as usize;
            let whole = step * STEP_PAGES as usize..(step + 1) * STEP_PAGES as usize;
            if step % 2 == 1 && !dirty[whole.clone()].contains(&true) {
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
                    if let Some(run) = filler.take(pages, align) {
                        assert_eq!(run.page.0 % align, 0);
                        assert_eq!(run.page.step(), run.page.plus(pages - 1).step());
                        let range = run.page.0 as usize..(run.page.0 + pages) as usize;
                        assert_eq!(run.zeroed, !touched[range.clone()].contains(&true));
                        touch(&mut dirty, &mut touched, range);
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
                    filler.give(PageIndex(page), pages, tick);
                }
                8 if !live.is_empty() => {
                    let nth = random(live.len() as u32) as usize;
                    let (&page, &pages) = live.iter().nth(nth).expect("within the count");
                    let more = 1 + random(9);
                    let behind = page + pages..page + pages + more;
                    let is_free = live.range(behind.clone()).next().is_none() && page % STEP_PAGES + pages + more <= STEP_PAGES;
                    let extended = filler.extend(PageIndex(page), pages, more);
                    assert_eq!(extended.is_some(), is_free);
                    if let Some(zeroed) = extended {
                        let range = behind.start as usize..behind.end as usize;
                        assert_eq!(zeroed, !touched[range.clone()].contains(&true));
                        touch(&mut dirty, &mut touched, range);
                        let less = 1 + random(pages + more - 1);
                        filler.shorten(PageIndex(page), pages + more, less, tick);
                        live.insert(page, pages + more - less);
                    }
                }
                _ => {
                    let thorough = if random(2) == 0 { Thorough::Yes } else { Thorough::No };
                    if let Some(run) = filler.claim_dirty(tick, thorough) {
                        let range = run.page.0 as usize..(run.page.0 + run.pages) as usize;
                        assert!(dirty[range.clone()].iter().all(|dirty| *dirty));
                        let works = random(4) != 0;
                        filler.purged(&run, works);
                        dirty[range.clone()].fill(!works);
                        touched[range].fill(!works);
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
        let wall = filler.take(200, 1).expect("room");
        let small = filler.take(50, 1).expect("room");
        assert_eq!(small.page.step(), wall.page.step(), "56 pages are left there; the other step stays whole");
        let large = filler.take(256, 1).expect("the other step is whole");
        assert_ne!(large.page.step(), wall.page.step());
        assert_eq!(filler.take(7, 1), None);
        assert!(filler.take(6, 1).is_some());
    }

    #[test]
    fn only_pages_that_rest_are_claimed() {
        let mut filler = filler(1);
        let run = filler.take(10, 1).expect("room");
        filler.give(run.page, 10, 5);
        assert_eq!(filler.claim_dirty(4, Thorough::Yes), None);
        let claimed = filler.claim_dirty(5, Thorough::No).expect("old enough");
        assert_eq!((claimed.page, claimed.pages, claimed.whole_step), (run.page, 10, false));
        filler.purged(&claimed, true);
        assert_eq!(filler.totals().dirty(), 0);
    }

    #[test]
    fn an_empty_step_leaves_and_returns() {
        let mut filler = filler(2);
        let run = filler.take(256, 1).expect("room");
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
