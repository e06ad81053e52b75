//! Floor 5. The seed: the first bytes of a heap, where blocks of all small classes lie side by side.
//!
//! A span holds blocks of one class, so a program with a few blocks of each of forty classes would touch forty times 4 KiB. Most
//! processes on a machine are such programs. So the first 128 KiB are cut into short *runs* of blocks instead: a run starts with
//! about 256 bytes and is longer the more blocks of its class live here. A run whose blocks are all free is cut anew, for any class.
//!
//! ```text
//!   granules of 64 B   ├24├24├24├24├24├·┤├──── 512 ────┤├8├8├8├8├8├8├8├8┤├──── 96 ───├ …
//!                       run of class 2    class 31        class 0           class 11
//! ```
//!
//! Once the seed is used up, spans take over and this room is only asked again when one of its blocks comes back.

use core::ops::Range;

use crate::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU16, AtomicU64, AtomicUsize, Ordering};
use crate::config::{SEED_BYTES, UNSIZED};
use crate::fatal::Misuse;
use crate::meta::Meta;
use crate::os;
use crate::size_class::SizeClass;
use crate::span::page_table::SEED_GRANULE_SHIFT;
use crate::sync::{Lock, Rank};

/// What runs are measured in.
const GRANULE_BYTES: usize = 1 << SEED_GRANULE_SHIFT;
const GRANULES: usize = SEED_BYTES / GRANULE_BYTES;
/// A class's first run here is about this long.
const FIRST_RUN_BYTES: usize = 256;
/// No run is longer …
const RUN_BYTES_MAX: usize = 4096;
/// … or shorter: of the blocks of any class, as many as fit into [`FIRST_RUN_BYTES`], but at least one, reach into the third granule.
const GRANULES_MIN: usize = 3;
/// Bits of a word.
const WORD_BITS: usize = 64;
const _: () = assert!(RUN_BYTES_MAX / GRANULE_BYTES <= WORD_BITS);
/// A run's blocks fit into one word of bits.
const RUN_BLOCKS_MAX: usize = 64;

/// A few blocks of one class.
#[derive(Debug)]
struct BlockRun {
    /// Which blocks central has.
    free: AtomicU64,
    first_granule: AtomicU16,
    granules: AtomicU16,
    class: AtomicU8,
    blocks: AtomicU8,
    /// Neighbours among the class's runs with free blocks: index plus one.
    next: AtomicU16,
    previous: AtomicU16,
}

/// The tables of a seed. Changed under the lock; read without it by checks: as long as somebody rightly has a block, what concerns it
/// does not change, and it was written before the block was handed out.
#[derive(Debug)]
struct Tables {
    /// Granule → run plus one; 0: free.
    owners: [AtomicU16; GRANULES],
    /// Granule → [`SizeClass::byte`] of its run; 0: free. Where frees do not say the class, it is found here.
    classes: [AtomicU8; if UNSIZED { GRANULES } else { 0 }],
    /// Runs by index; there are never more.
    runs: [BlockRun; GRANULES / GRANULES_MIN],
}

/// What only the holder of the lock needs.
struct Cut {
    /// Runs from this index on were never used.
    fresh: u16,
    /// Runs that ended, linked by `next`: index plus one.
    ended: u16,
    /// Per class: runs with free blocks.
    heads: [u16; SizeClass::SMALL_COUNT],
    /// Per class: blocks that are not here at the moment.
    out: [u16; SizeClass::SMALL_COUNT],
    /// Granules that are in a run, as bits. All zeros at first, or the heap's statics would have to lie in the program's file.
    taken: [u64; GRANULES / WORD_BITS],
}

/// The seed of a heap.
pub(crate) struct Seed {
    cut: Lock<Cut>,
    /// Address of the seed's first byte; 0 while there is none.
    start: AtomicUsize,
    tables: AtomicPtr<Tables>,
    /// Nothing is left to cut. A hint: saves the lock.
    used_up: AtomicBool,
}

// Relaxed in the whole file unless said otherwise: writers hold the lock, and see `Tables` for readers without it.
impl Seed {
    pub(crate) const fn new() -> Self {
        Self {
            cut: Lock::new(
                Rank::Seed,
                Cut {
                    fresh: 0,
                    ended: 0,
                    heads: [0; SizeClass::SMALL_COUNT],
                    out: [0; SizeClass::SMALL_COUNT],
                    taken: [0; GRANULES / WORD_BITS],
                },
            ),
            start: AtomicUsize::new(0),
            tables: AtomicPtr::new(core::ptr::null_mut()),
            used_up: AtomicBool::new(false),
        }
    }

    /// Puts blocks into `room`, from its end downwards so that they are popped in address order; says how many. `land` provides the
    /// seed's memory when it is first needed, and is told where the classes of its granules will stand.
    pub(crate) fn take(
        &self,
        class: SizeClass,
        room: &mut [*mut u8],
        meta: &Meta,
        land: impl FnOnce(usize) -> Option<usize>,
    ) -> usize {
        if self.used_up.load(Ordering::Relaxed) {
            return 0;
        }
        let mut cut = self.cut.lock();
        if self.tables().is_none() && self.settle(meta, land).is_none() {
            // Without a seed there are spans. Not tried again: the heap has other worries now.
            self.used_up.store(true, Ordering::Relaxed);
            return 0;
        }
        let Some(tables) = self.tables() else { return 0 };
        let run = cut.heads[class.index()].checked_sub(1);
        let Some(run) = run.or_else(|| cut.cut(tables, class, room.len())) else {
            self.used_up.store(true, Ordering::Relaxed);
            return 0;
        };
        let start = self.start.load(Ordering::Relaxed);
        cut.pop(tables, start, run, class, room)
    }

    /// Takes a block back.
    pub(crate) fn give(&self, address: usize, class: SizeClass) -> Result<(), Misuse> {
        let mut cut = self.cut.lock();
        let (tables, run, block) = self.find(address, class)?;
        if cut.push(tables, run, block, class) {
            self.used_up.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Is this a block of the class that a program or a cache could have? Takes no lock.
    pub(crate) fn inspect(&self, address: usize, class: SizeClass) -> Result<(), Misuse> {
        self.find(address, class).map(|_| ())
    }

    /// The run of blocks of the class that an address lies in. Takes no lock.
    pub(crate) fn extent_of(&self, address: usize, class: SizeClass) -> Result<Range<usize>, Misuse> {
        let (tables, run) = self.run_of(address, class)?;
        let entry = tables.run(run);
        let start = self.start.load(Ordering::Relaxed) + usize::from(entry.first_granule.load(Ordering::Relaxed)) * GRANULE_BYTES;
        let range = start..start + usize::from(entry.blocks.load(Ordering::Relaxed)) * class.bytes();
        if range.contains(&address) { Ok(range) } else { Err(Misuse::NeverAllocated) }
    }

    /// As [`extent_of`](Self::extent_of), for who wants to know quickly. `None`: not in a run of the class, for whatever reason.
    #[inline]
    pub(crate) fn extent_at(&self, address: usize, class: SizeClass) -> Option<Range<usize>> {
        let tables = self.tables()?;
        let seed = self.start.load(Ordering::Relaxed);
        let owner = tables.owners.get(address.wrapping_sub(seed) / GRANULE_BYTES)?;
        let entry = tables.run(owner.load(Ordering::Relaxed).checked_sub(1)?);
        if usize::from(entry.class.load(Ordering::Relaxed)) != class.index() {
            return None;
        }
        let start = seed + usize::from(entry.first_granule.load(Ordering::Relaxed)) * GRANULE_BYTES;
        let range = start..start + usize::from(entry.blocks.load(Ordering::Relaxed)) * class.bytes();
        range.contains(&address).then_some(range)
    }

    /// Bytes of the seed; 0 while there is none.
    pub(crate) fn bytes(&self) -> usize {
        if self.tables().is_none() { 0 } else { SEED_BYTES }
    }

    /// Of each small class, blocks that are not here at the moment.
    pub(crate) fn out(&self) -> [u16; SizeClass::SMALL_COUNT] {
        self.cut.lock().out
    }

    pub(crate) fn before_fork(&self) {
        self.cut.before_fork();
    }

    pub(crate) fn after_fork(&self) {
        self.cut.after_fork();
    }

    fn tables(&self) -> Option<&'static Tables> {
        // Acquire: the tables are zeros by now, and `start` is set. Pairs with the Release in `settle`.
        let tables = self.tables.load(Ordering::Acquire);
        // SAFETY: null, or made by `settle` and there for good (I-forever); all zeros are valid tables.
        unsafe { tables.as_ref() }
    }

    fn settle(&self, meta: &Meta, land: impl FnOnce(usize) -> Option<usize>) -> Option<()> {
        let tables = meta.take(size_of::<Tables>(), align_of::<Tables>())?.cast::<Tables>();
        // SAFETY: ours for good (I-forever); all zeros are valid tables.
        self.start.store(land(unsafe { tables.as_ref() }.classes.as_ptr().expose_provenance())?, Ordering::Relaxed);
        // Release: see `tables`.
        self.tables.store(tables.as_ptr(), Ordering::Release);
        Some(())
    }

    /// The run of an address, if it is one of the class.
    fn run_of(&self, address: usize, class: SizeClass) -> Result<(&'static Tables, u16), Misuse> {
        let tables = self.tables().ok_or(Misuse::Foreign)?;
        let offset = address.wrapping_sub(self.start.load(Ordering::Relaxed));
        let owner = tables.owners.get(offset / GRANULE_BYTES).ok_or(Misuse::Foreign)?;
        let run = owner.load(Ordering::Relaxed).checked_sub(1).ok_or(Misuse::NeverAllocated)?;
        if usize::from(tables.run(run).class.load(Ordering::Relaxed)) != class.index() {
            return Err(Misuse::SizeMismatch);
        }
        Ok((tables, run))
    }

    /// The run of an address and the block in it, if that is a block of the class and not free.
    fn find(&self, address: usize, class: SizeClass) -> Result<(&'static Tables, u16, u32), Misuse> {
        let (tables, run) = self.run_of(address, class)?;
        let entry = tables.run(run);
        let offset = address.wrapping_sub(self.start.load(Ordering::Relaxed));
        let within = offset.wrapping_sub(usize::from(entry.first_granule.load(Ordering::Relaxed)) * GRANULE_BYTES);
        // A run is far shorter than the longest span of its class, so the division by multiplication holds here too.
        let block = class.quotient(within);
        if block >= u32::from(entry.blocks.load(Ordering::Relaxed)) {
            return Err(Misuse::NeverAllocated);
        }
        if block as usize * class.bytes() != within {
            return Err(Misuse::Interior);
        }
        if entry.free.load(Ordering::Relaxed) & (1 << block) != 0 {
            return Err(Misuse::DoubleFree);
        }
        Ok((tables, run, block))
    }
}

impl Tables {
    fn run(&self, run: u16) -> &BlockRun {
        &self.runs[usize::from(run)]
    }
}

impl Cut {
    /// Cuts a new run for a class: for a class with many blocks here a longer one.
    fn cut(&mut self, tables: &Tables, class: SizeClass, wanted: usize) -> Option<u16> {
        let bytes = class.bytes();
        let first_run = FIRST_RUN_BYTES / bytes;
        let fair = first_run.max(usize::from(self.out[class.index()]) / 4);
        let blocks = fair.min(wanted.max(first_run)).min(RUN_BYTES_MAX / bytes).clamp(1, RUN_BLOCKS_MAX);
        let granules = (blocks * bytes).div_ceil(GRANULE_BYTES);
        // A block must be aligned as in a span: to the largest power of two that divides its size.
        let align = (bytes & bytes.wrapping_neg()).div_ceil(GRANULE_BYTES);
        let first = self.first_fit(granules, align)?;
        // The last granule may have room for more.
        let blocks = (granules * GRANULE_BYTES / bytes).min(RUN_BLOCKS_MAX);
        let run = self.new_index(tables);
        let entry = tables.run(run);
        entry.free.store(if blocks == 64 { u64::MAX } else { (1 << blocks) - 1 }, Ordering::Relaxed);
        entry.first_granule.store(first as u16, Ordering::Relaxed);
        entry.granules.store(granules as u16, Ordering::Relaxed);
        entry.class.store(class.index() as u8, Ordering::Relaxed);
        entry.blocks.store(blocks as u8, Ordering::Relaxed);
        self.own(tables, first, granules, run + 1);
        self.link(tables, run);
        Some(run)
    }

    fn new_index(&mut self, tables: &Tables) -> u16 {
        if let Some(run) = self.ended.checked_sub(1) {
            self.ended = tables.run(run).next.load(Ordering::Relaxed);
            return run;
        }
        self.fresh += 1;
        self.fresh - 1
    }

    /// The lowest place for so many free granules at a multiple of `align`.
    fn first_fit(&self, granules: usize, align: usize) -> Option<usize> {
        debug_assert!((GRANULES_MIN..=WORD_BITS).contains(&granules));
        debug_assert!(align.is_power_of_two() && align < WORD_BITS);
        // One bit at every multiple of `align`.
        let aligned = u64::MAX / ((1 << align) - 1);
        (0..self.taken.len()).find_map(|word| {
            let behind = !self.taken.get(word + 1).copied().unwrap_or(u64::MAX);
            // Bit n: so many granules from n on are free. A run that begins in this word ends in the next one at the latest.
            let mut starts = u128::from(behind) << WORD_BITS | u128::from(!self.taken[word]);
            let mut length = 1;
            while length < granules {
                let more = length.min(granules - length);
                starts &= starts >> more;
                length += more;
            }
            let starts = starts as u64 & aligned;
            (starts != 0).then(|| word * WORD_BITS + starts.trailing_zeros() as usize)
        })
    }

    /// Gives granules to a run, `owner` being its index plus one, or takes them back from it: 0.
    fn own(&mut self, tables: &Tables, first: usize, granules: usize, owner: u16) {
        for granule in first..first + granules {
            tables.owners[granule].store(owner, Ordering::Relaxed);
            if let Some(byte) = tables.classes.get(granule) {
                byte.store(
                    owner.checked_sub(1).map_or(0, |run| tables.run(run).class.load(Ordering::Relaxed) + 1),
                    Ordering::Relaxed,
                );
            }
            let bit = 1 << (granule % WORD_BITS);
            let word = &mut self.taken[granule / WORD_BITS];
            *word = if owner == 0 { *word & !bit } else { *word | bit };
        }
    }

    fn link(&mut self, tables: &Tables, run: u16) {
        let entry = tables.run(run);
        let head = &mut self.heads[usize::from(entry.class.load(Ordering::Relaxed))];
        entry.next.store(*head, Ordering::Relaxed);
        entry.previous.store(0, Ordering::Relaxed);
        if let Some(first) = head.checked_sub(1) {
            tables.run(first).previous.store(run + 1, Ordering::Relaxed);
        }
        *head = run + 1;
    }

    fn unlink(&mut self, tables: &Tables, run: u16) {
        let entry = tables.run(run);
        let (next, previous) = (entry.next.load(Ordering::Relaxed), entry.previous.load(Ordering::Relaxed));
        if let Some(next) = next.checked_sub(1) {
            tables.run(next).previous.store(previous, Ordering::Relaxed);
        }
        match previous.checked_sub(1) {
            Some(previous) => tables.run(previous).next.store(next, Ordering::Relaxed),
            None => self.heads[usize::from(entry.class.load(Ordering::Relaxed))] = next,
        }
    }

    /// Takes a run's free blocks into `room`, from its end downwards.
    fn pop(&mut self, tables: &Tables, start: usize, run: u16, class: SizeClass, room: &mut [*mut u8]) -> usize {
        let entry = tables.run(run);
        let first = start + usize::from(entry.first_granule.load(Ordering::Relaxed)) * GRANULE_BYTES;
        let mut free = entry.free.load(Ordering::Relaxed);
        let mut taken = 0;
        for place in room.iter_mut().rev() {
            if free == 0 {
                break;
            }
            *place = os::pointer(first + free.trailing_zeros() as usize * class.bytes());
            free &= free - 1;
            taken += 1;
        }
        entry.free.store(free, Ordering::Relaxed);
        if free == 0 {
            self.unlink(tables, run);
        }
        self.out[class.index()] += taken as u16;
        taken
    }

    /// Puts a block back. `true`: its run ended, so there is something to cut again.
    fn push(&mut self, tables: &Tables, run: u16, block: u32, class: SizeClass) -> bool {
        self.out[class.index()] -= 1;
        let entry = tables.run(run);
        let before = entry.free.load(Ordering::Relaxed);
        let free = before | 1 << block;
        entry.free.store(free, Ordering::Relaxed);
        let ends = free.count_ones() == u32::from(entry.blocks.load(Ordering::Relaxed));
        if !ends {
            if before == 0 {
                self.link(tables, run);
            }
            return false;
        }
        if before != 0 {
            self.unlink(tables, run);
        }
        let first = usize::from(entry.first_granule.load(Ordering::Relaxed));
        self.own(tables, first, usize::from(entry.granules.load(Ordering::Relaxed)), 0);
        entry.next.store(self.ended, Ordering::Relaxed);
        self.ended = run + 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[allow(clippy::unnecessary_wraps, reason = "as the seed wants it")]
    fn land(_: usize) -> Option<usize> {
        let memory = os::map_anywhere(2 * SEED_BYTES).expect("memory is there").addr().get();
        Some(memory.next_multiple_of(crate::units::PAGE_BYTES))
    }

    #[test]
    fn blocks_never_overlap_are_aligned_and_runs_are_cut_anew() {
        let (seed, meta) = (Seed::new(), Meta::new());
        let mut live: BTreeMap<usize, SizeClass> = BTreeMap::new();
        let mut state = 5_u64;
        let mut random = move |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize % below
        };
        for step in 0..200_000 {
            // Waves: mostly taking, then mostly giving.
            let taking = if step / 2_000 % 2 == 0 { 7 } else { 3 };
            if random(10) < taking {
                let class = SizeClass::from_index(random(SizeClass::SMALL_COUNT));
                let mut room = [core::ptr::null_mut(); 8];
                let taken = seed.take(class, &mut room, &meta, land);
                let blocks = &room[8 - taken..];
                assert!(blocks.windows(2).all(|pair| pair[0] > pair[1]), "popped in address order");
                for block in blocks {
                    let address = block.addr();
                    assert_eq!(address % (class.bytes() & class.bytes().wrapping_neg()), 0);
                    if let Some((before, other)) = live.range(..=address).next_back() {
                        assert!(before + other.bytes() <= address);
                    }
                    assert!(live.range(address..address + class.bytes()).next().is_none());
                    live.insert(address, class);
                }
            } else if !live.is_empty() {
                let (&address, &class) = live.iter().nth(random(live.len())).expect("within the count");
                let wrong = SizeClass::from_index((class.index() + 1) % SizeClass::SMALL_COUNT);
                assert_eq!(seed.give(address, wrong), Err(Misuse::SizeMismatch));
                assert_eq!(seed.give(address, class), Ok(()));
                assert!(seed.give(address, class).is_err(), "given twice");
                live.remove(&address);
            }
        }
        for (address, class) in live {
            assert_eq!(seed.give(address, class), Ok(()));
        }
        let cut = seed.cut.lock();
        let tables = seed.tables().expect("there is a seed");
        assert!(tables.owners.iter().all(|owner| owner.load(Ordering::Relaxed) == 0));
        assert!(cut.out.iter().all(|out| *out == 0));
        assert!(cut.heads.iter().all(|head| *head == 0));
    }

    #[test]
    fn many_classes_share_few_pages() {
        let (seed, meta) = (Seed::new(), Meta::new());
        let mut bytes = 0;
        let mut highest = 0;
        let mut start = usize::MAX;
        for round in 0..3 {
            for class in SizeClass::all().take(SizeClass::SMALL_COUNT) {
                let mut room = [core::ptr::null_mut(); 1];
                assert_eq!(seed.take(class, &mut room, &meta, land), 1, "round {round}");
                bytes += class.bytes();
                start = start.min(room[0].addr());
                highest = highest.max(room[0].addr() + class.bytes());
            }
        }
        assert!(highest - start <= bytes + bytes / 4, "{bytes} bytes of blocks spread over {}", highest - start);
    }

    #[test]
    fn without_land_there_is_no_seed() {
        let (seed, meta) = (Seed::new(), Meta::new());
        let mut room = [core::ptr::null_mut(); 1];
        assert_eq!(seed.take(SizeClass::from_index(0), &mut room, &meta, |_| None), 0);
        assert_eq!(seed.bytes(), 0);
    }
}
