//! Floor 5. Guarded blocks: one sampled block in many has memory that cannot be touched on both sides, and leaves such memory behind.
//!
//! What a program writes beyond the end of a block, before its start, or into a block that it has freed, mostly goes unnoticed until something else breaks.
//! Beside a guarded block it faults at once, at the instruction that did it. Blocks are chosen by chance, a few in a thousand million bytes, so that it
//! costs next to nothing and runs everywhere all the time; a mistake that many processes make many times is caught in one of them some day.
//! The idea is that of Electric Fence, the sampling that of GWP-ASan.
//!
//! ```text
//!   │ closed │ slot 0 │ closed │ slot 1 │ closed │ …  slot 63 │ closed │      64 slots, 8 KiB each
//!
//!   a slot in use, at its upper end:      │ pattern  pattern  pattern ┃ block ┃pad│
//!   or at its lower end:                  │┃ block ┃ pattern  pattern  pattern    │
//! ```
//!
//! A block lies at the upper end of its slot, where an overflow is caught, or at the lower one, where an underflow is; chance decides. Alignment may leave some
//! padding. That, and the rest of the slot, is filled with a pattern which the free looks at, so what does not reach
//! the closed pages is found then at the latest. A slot whose block was freed is closed and rests until half as many blocks as there are slots were freed after
//! it; then chance decides which of the rested ones is next.
//!
//! Addresses are beyond those that pages of the sampled zone can have, but in that zone: so a free sees from the same bit that the block is no ordinary one. Records lie
//! elsewhere. They may be read by a signal handler at any time, hence the atomics; who writes a record has
//! claimed its slot by changing its state, so there is no lock that the child of a fork or a signal handler could find held.
//!
//! All that can go wrong with the system (no address space, too many mappings) leaves the block an ordinary sample.

use core::ops::Range;
use core::ptr::{self, NonNull};

use crate::atomic::{AtomicBool, AtomicI64, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use crate::chance;
use crate::fatal::{self, Misuse};
use crate::line::Line;
use crate::meta::Meta;
use crate::os::{self, MapError, Watcher};
use crate::size_class::SizeClass;
use crate::units::{PAGE_BYTES, STEP_BYTES, WINDOW_BYTES, in_sampled_zone};

/// Slots at most, and so guarded blocks at a time: 512 KiB of memory.
const SLOTS: usize = 64;
/// A slot rests until so many blocks were freed after its own.
const REST_FREES: u32 = SLOTS as u32 / 2;
/// The largest guarded block.
pub(crate) const GUARDED_BYTES_MAX: usize = PAGE_BYTES;
/// No block of ours is aligned to less.
const ALIGN_MIN: usize = 8;
/// Frames that are remembered of each stack.
const FRAMES: usize = 32;
/// Places that are tried for the slots.
const ATTEMPTS: u32 = 8;

/// Why there is no run of slots; addresses are larger than these.
const NOT_YET: usize = 0;
const COMING: usize = 1;
const NEVER: usize = 2;

/// Guarded blocks.
pub(crate) struct Guarded {
    /// Where the first closed page is, or one of the numbers above.
    run: AtomicUsize,
    slots: AtomicPtr<[Slot; SLOTS]>,
    /// What slots are filled with.
    pattern: AtomicU64,
    /// Blocks freed so far: what slots rest by.
    frees: AtomicU32,
    live: AtomicU32,
    count: AtomicU64,
    /// Bytes until the next one …
    until: AtomicI64,
    /// … drawn with this interval.
    interval: AtomicUsize,
    chance: AtomicU64,
    /// Somebody watches for faults.
    is_watched: AtomicBool,
    /// When the slots were made.
    began_ns: AtomicU64,
}

/// What a slot is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
enum State {
    /// Nothing yet. What records start with.
    Unused = 0,
    /// Somebody is about to change it.
    Busy = 1,
    /// The program has its block.
    Live = 2,
    /// Its block was freed.
    Freed = 3,
}

/// The record of a slot. All zeros is one: nothing has happened there.
struct Slot {
    state: AtomicU32,
    class: AtomicU32,
    address: AtomicUsize,
    size: AtomicUsize,
    /// See [`Token`].
    site: AtomicU32,
    stand_in: AtomicUsize,
    /// How many blocks had been freed when this one was.
    freed_at: AtomicU32,
    allocation: Note,
    free: Note,
}

/// Who did something, when and where.
struct Note {
    at_ns: AtomicU64,
    thread: AtomicU32,
    depth: AtomicU32,
    frames: [AtomicUsize; FRAMES],
}

/// The thread that does something with a block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Actor<'a> {
    pub(crate) thread: u32,
    pub(crate) now_ns: u64,
    /// Return addresses, innermost first.
    pub(crate) stack: &'a [usize],
}

/// A block that is to be guarded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) size: usize,
    pub(crate) align: usize,
    pub(crate) class: SizeClass,
}

/// What the room above remembers of a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Token {
    /// Which call site; the number of its record plus one. 0: none that is known.
    pub(crate) site: u32,
    /// The ordinary block that keeps its place; 0: none.
    pub(crate) stand_in: usize,
}

/// A guarded block that ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Freed {
    pub(crate) size: usize,
    pub(crate) class: SizeClass,
    /// See [`Guarded::set_token`].
    pub(crate) token: Token,
    /// The thread that allocated it …
    pub(crate) thread: u32,
    /// … and when.
    pub(crate) since_ns: u64,
}

/// What an access at a closed page was probably meant for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mistake {
    /// It lies so many bytes behind the last one of a block.
    Overflow(usize),
    /// It lies so many bytes before the first one of a block.
    Underflow(usize),
    /// It lies so many bytes behind the first one of a block that was freed; negative: before it.
    UseAfterFree(isize),
    /// There is no block near.
    Wild,
}

/// What is known of an access at a closed page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Report {
    pub(crate) mistake: Mistake,
    slot: Option<usize>,
}

// Relaxed, where nothing else is said: who writes a record has its slot to himself, and the `Release` of the state that he leaves behind publishes it.
// Readers in signal handlers take what they find.
impl Note {
    fn write(&self, actor: &Actor<'_>) {
        self.at_ns.store(actor.now_ns, Ordering::Relaxed);
        self.thread.store(actor.thread, Ordering::Relaxed);
        let depth = actor.stack.len().min(FRAMES);
        self.depth.store(depth as u32, Ordering::Relaxed);
        for (place, &frame) in self.frames.iter().zip(actor.stack) {
            place.store(frame, Ordering::Relaxed);
        }
    }

    fn frames(&self) -> impl Iterator<Item = usize> {
        let depth = self.depth.load(Ordering::Relaxed) as usize;
        self.frames.iter().take(depth).map(|frame| frame.load(Ordering::Relaxed))
    }
}

impl Slot {
    fn state(&self) -> State {
        // Acquire: sees the record as whoever left this state wrote it. Pairs with the Release in `leave`.
        match self.state.load(Ordering::Acquire) {
            0 => State::Unused,
            2 => State::Live,
            3 => State::Freed,
            _ => State::Busy,
        }
    }

    /// `from` → Busy, if that is still its state: the caller has the slot to himself.
    #[must_use]
    fn claim(&self, from: State) -> bool {
        // Acquire: as in `state`.
        self.state.compare_exchange(from as u32, State::Busy as u32, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Busy → something.
    fn leave(&self, to: State) {
        // Release: the record. Pairs with the Acquires above.
        self.state.store(to as u32, Ordering::Release);
    }

    fn set_token(&self, token: Token) {
        self.site.store(token.site, Ordering::Relaxed);
        self.stand_in.store(token.stand_in, Ordering::Relaxed);
    }

    fn block(&self) -> Range<usize> {
        let address = self.address.load(Ordering::Relaxed);
        address..address + self.size.load(Ordering::Relaxed)
    }

    fn class(&self) -> SizeClass {
        SizeClass::from_index(self.class.load(Ordering::Relaxed) as usize)
    }
}

/// Bytes of a slot, and of a closed stretch: pages of ours and of the kernel's.
fn slot_bytes() -> usize {
    PAGE_BYTES.max(os::page_bytes())
}

/// Bytes of slots and closed stretches together.
fn run_bytes() -> usize {
    (2 * SLOTS + 1) * slot_bytes()
}

impl Guarded {
    pub(crate) const fn new() -> Self {
        Self {
            run: AtomicUsize::new(NOT_YET),
            slots: AtomicPtr::new(ptr::null_mut()),
            pattern: AtomicU64::new(0),
            frees: AtomicU32::new(0),
            live: AtomicU32::new(0),
            count: AtomicU64::new(0),
            until: AtomicI64::new(0),
            interval: AtomicUsize::new(0),
            chance: AtomicU64::new(0),
            is_watched: AtomicBool::new(false),
            began_ns: AtomicU64::new(0),
        }
    }

    fn draw(&self, interval: usize) -> u64 {
        let seed = match self.chance.load(Ordering::Relaxed) {
            0 => os::random() ^ 0x6775_6172_6465_6421,
            seed => seed,
        };
        // Two threads at the same moment may draw the same: as good as one that drew alone.
        let (state, random) = chance::next(seed);
        self.chance.store(state | 1, Ordering::Relaxed);
        self.until.store(chance::bytes_until(interval, random).cast_signed(), Ordering::Relaxed);
        random.rotate_left(17)
    }

    /// A sample stands for so many allocated bytes. Is it to be guarded, if one block in `interval` bytes is, on average? (0: none is, 1: every sample, as long
    /// as there are slots.) Then some random bits. One that is too large leaves its turn to the next.
    pub(crate) fn is_next(&self, size: usize, stands_for: usize, interval: usize) -> Option<u64> {
        if self.interval.load(Ordering::Relaxed) != interval {
            self.interval.store(interval, Ordering::Relaxed);
            self.draw(interval);
        }
        if interval == 0 {
            return None;
        }
        let left = self.until.fetch_sub(stands_for as i64, Ordering::Relaxed);
        (left <= stands_for as i64 && size <= GUARDED_BYTES_MAX).then(|| self.draw(interval))
    }

    /// Has somebody told of faults, from one of the first guarded blocks on: not before the standard library has set its own handler, in front of which ours
    /// is to stand, and which it sets if it finds none. Who has none after a while never will, and programs in C have none to begin with.
    pub(crate) fn watch_if_due(&self, watcher: &'static Watcher, now_ns: u64) {
        const START_NS: u64 = 1_000_000_000;
        if self.is_watched.load(Ordering::Relaxed) {
            return;
        }
        let age_ns = now_ns.saturating_sub(self.began_ns.load(Ordering::Relaxed));
        if cfg!(freestone_c) || age_ns > START_NS || os::are_faults_handled() {
            self.is_watched.store(true, Ordering::Relaxed);
            // If the system does not let us, faults end the process without a word.
            let _ = os::watch_faults(watcher);
        }
    }

    /// A block with closed pages on both sides; `random` decides where. `region` is where the heap's addresses begin. `None`: too large, no slot has
    /// rested enough, or the system says no.
    pub(crate) fn allocate(
        &self,
        wanted: &Wanted,
        by: &Actor<'_>,
        random: u64,
        region: usize,
        meta: &Meta,
    ) -> Option<NonNull<u8>> {
        let (size, align) = (wanted.size.max(1), wanted.align.max(ALIGN_MIN));
        if wanted.size > GUARDED_BYTES_MAX || align > GUARDED_BYTES_MAX || !self.is_ready(region, meta) {
            return None;
        }
        let (index, before) = self.claim_rested(random)?;
        let (slot, range) = (self.slot(index)?, self.slot_range(index));
        // SAFETY: the slot is ours, and claimed.
        if !unsafe { os::open(range.start, slot_bytes()) } {
            slot.leave(before);
            return None;
        }
        let lies_high = random >> 63 != 0;
        let address = if lies_high { (range.end - size) & !(align - 1) } else { range.start };
        // SAFETY: just opened; nobody else knows of it.
        unsafe { fill(&range, self.pattern.load(Ordering::Relaxed)) };
        slot.address.store(address, Ordering::Relaxed);
        slot.size.store(size, Ordering::Relaxed);
        slot.class.store(wanted.class.index() as u32, Ordering::Relaxed);
        slot.set_token(Token::default());
        slot.allocation.write(by);
        slot.leave(State::Live);
        self.live.fetch_add(1, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
        Some(os::block(address))
    }

    /// What the room above remembers of a block is known only after it is there.
    pub(crate) fn set_token(&self, address: usize, token: Token) {
        if let Some(slot) = self.index_of(address).and_then(|index| self.slot(index)) {
            slot.set_token(token);
        }
    }

    /// Does this address lie among the slots?
    #[inline]
    pub(crate) fn owns(&self, address: usize) -> bool {
        // Relaxed: whoever was handed a block of ours sees where it lies.
        let run = self.run.load(Ordering::Relaxed);
        run > NEVER && address.wrapping_sub(run) < run_bytes()
    }

    /// The size that was asked for, and the class, of the block at this address, if the program has one there.
    #[cfg(any(freestone_c, test))]
    pub(crate) fn request_at(&self, address: usize) -> Result<(usize, SizeClass), Misuse> {
        let slot = self.live_slot(address)?;
        Ok((slot.size.load(Ordering::Relaxed), slot.class()))
    }

    /// Of which class the latest block was where an address lies, whether it is live or not.
    #[cfg(freestone_c)]
    pub(crate) fn class_at(&self, address: usize) -> Result<SizeClass, Misuse> {
        let slot = self.index_of(address).and_then(|index| self.slot(index));
        slot.filter(|slot| slot.state() != State::Unused).map(Slot::class).ok_or(Misuse::NeverAllocated)
    }

    /// The end of a block. `class`: of what the caller takes it for, if he says. `count` is called before its memory goes: a fork may come between the two.
    pub(crate) fn free(
        &self,
        address: usize,
        class: Option<SizeClass>,
        by: &Actor<'_>,
        count: impl FnOnce(&Freed),
    ) -> Result<Freed, Misuse> {
        let slot = self.live_slot(address)?;
        if class.is_some_and(|class| class != slot.class()) {
            return Err(Misuse::SizeMismatch);
        }
        // Before anything is looked at: whoever frees it a second time at this moment closes it under nobody's eyes.
        if !slot.claim(State::Live) {
            return Err(Misuse::DoubleFree);
        }
        if let Some(damaged) = self.damage(address) {
            slot.leave(State::Live);
            return Err(if damaged < address { Misuse::Underflow } else { Misuse::Overflow });
        }
        let freed = Freed {
            size: slot.size.load(Ordering::Relaxed),
            class: slot.class(),
            token: Token { site: slot.site.load(Ordering::Relaxed), stand_in: slot.stand_in.load(Ordering::Relaxed) },
            thread: slot.allocation.thread.load(Ordering::Relaxed),
            since_ns: slot.allocation.at_ns.load(Ordering::Relaxed),
        };
        count(&freed);
        slot.free.write(by);
        let range = self.index_of(address).map_or(0..0, |index| self.slot_range(index));
        // SAFETY: the slot is ours and claimed; the program gave the block up. Should it fail, the slot just is not as strict as it could be.
        let _ = unsafe { os::close(range.start, slot_bytes()) };
        slot.freed_at.store(self.frees.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        self.live.fetch_sub(1, Ordering::Relaxed);
        slot.leave(State::Freed);
        Ok(freed)
    }

    /// What an access to this address, which faulted, was probably meant for. `None`: it is none of ours.
    pub(crate) fn explain(&self, address: usize) -> Option<Report> {
        if !self.owns(address) {
            return None;
        }
        let nothing = Report { mistake: Mistake::Wild, slot: None };
        // A slot's own page, or a closed one between two of them.
        let place = (address - self.run.load(Ordering::Relaxed)) / slot_bytes();
        let near = if place.is_multiple_of(2) { [place.checked_sub(2), Some(place)] } else { [Some(place - 1), None] };
        let candidates = near.into_iter().flatten().map(|place| place / 2).filter_map(|index| Some((index, self.slot(index)?)));
        let judged = candidates.filter_map(|(index, slot)| {
            let block = slot.block();
            let (distance, mistake) = match (slot.state(), address) {
                (State::Live, _) if address >= block.end => (address - block.end, Mistake::Overflow(address - block.end + 1)),
                (State::Live, _) if address < block.start => (block.start - address, Mistake::Underflow(block.start - address)),
                // What lies beside a freed block is rather something else, if there is anything else.
                (State::Freed, _) => {
                    let is_inside = !place.is_multiple_of(2);
                    let mistake = Mistake::UseAfterFree(address.wrapping_sub(block.start).cast_signed());
                    (if is_inside { 0 } else { usize::MAX }, mistake)
                }
                _ => return None,
            };
            Some((distance, Report { mistake, slot: Some(index) }))
        });
        Some(judged.min_by_key(|&(distance, _)| distance).map_or(nothing, |(_, report)| report))
    }

    /// Says on standard error what is known of an access that faulted. Allocates nothing.
    #[cold]
    #[inline(never)]
    pub(crate) fn say(&self, report: &Report, address: usize, access: &str, by: &Actor<'_>) {
        let slot = report.slot.and_then(|index| self.slot(index));
        let mut text = Text::new();
        text.text(match report.mistake {
            Mistake::Overflow(_) => "overflow: ",
            Mistake::Underflow(_) => "underflow: ",
            Mistake::UseAfterFree(_) => "use after free: ",
            Mistake::Wild => "wild access: ",
        });
        text.text(access);
        text.text(" at ");
        text.hexadecimal(address);
        let (bytes, where_from) = match report.mistake {
            Mistake::Overflow(bytes) => (bytes, " B past the end of"),
            Mistake::Underflow(bytes) => (bytes, " B before the start of"),
            Mistake::UseAfterFree(bytes @ ..0) => (bytes.unsigned_abs(), " B before the start of freed"),
            Mistake::UseAfterFree(bytes) => (bytes.unsigned_abs(), " B into freed"),
            Mistake::Wild => (0, " B from no block that is known"),
        };
        text.text(", ");
        text.decimal(bytes);
        text.text(where_from);
        if let Some(slot) = slot {
            text.block(slot);
        }
        text.text(", by thread ");
        text.decimal(by.thread as usize);
        text.end();
        text.stack("access", by.thread, None, by.stack.iter().copied());
        Self::say_history(slot, by.now_ns, text);
    }

    /// A free of a block among the slots that went wrong: says so, and where the block comes from, and ends the process.
    #[cold]
    #[inline(never)]
    pub(crate) fn die(&self, kind: Misuse, address: usize, class: Option<SizeClass>, by: &Actor<'_>) -> ! {
        let slot = self.index_of(address).and_then(|index| self.slot(index));
        let slot = slot.filter(|slot| slot.state() != State::Unused);
        let class = class.or_else(|| slot.map(Slot::class));
        let size = match (slot, kind) {
            (Some(slot), Misuse::Overflow | Misuse::Underflow | Misuse::DoubleFree) => slot.size.load(Ordering::Relaxed),
            _ => class.map_or(0, SizeClass::bytes),
        };
        fatal::misuse_with(kind, address, class.map(SizeClass::index), size, || {
            let mut text = Text::new();
            if let Some(slot) = slot {
                text.text("the block is");
                text.block(slot);
                self.say_damage(slot, &mut text);
                text.end();
            }
            text.stack("this free", by.thread, None, by.stack.iter().copied());
            Self::say_history(slot, by.now_ns, text);
        })
    }

    fn say_damage(&self, slot: &Slot, text: &mut Text) {
        let block = slot.block();
        let damaged = if slot.state() == State::Live { self.damage(block.start) } else { None };
        let Some(damaged) = damaged else { return };
        text.text("; the first byte that was written outside of it lies ");
        if damaged < block.start {
            text.decimal(block.start - damaged);
            text.text(" B before its start");
        } else {
            text.decimal(damaged - block.end + 1);
            text.text(" B past its end");
        }
    }

    /// Guarded blocks so far, and those that the program has.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.count.load(Ordering::Relaxed), u64::from(self.live.load(Ordering::Relaxed)))
    }

    /// Memory in slots, and address space that is closed.
    pub(crate) fn bytes(&self) -> (usize, usize) {
        if self.run.load(Ordering::Relaxed) <= NEVER {
            return (0, 0);
        }
        let held = self.live.load(Ordering::Relaxed) as usize * slot_bytes();
        (held, run_bytes() - held)
    }

    // ---- inside ----------------------------------------------------------------------------------------------------

    /// Makes the slots, the first time.
    fn is_ready(&self, region: usize, meta: &Meta) -> bool {
        // Acquire: the slots' records. Pairs with the Release below.
        match self.run.load(Ordering::Acquire) {
            NOT_YET => {}
            run => return run > NEVER,
        }
        if region == 0 || self.run.compare_exchange(NOT_YET, COMING, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return false;
        }
        let run = reserve(region).and_then(|run| {
            let slots = meta.take(size_of::<[Slot; SLOTS]>(), align_of::<Slot>())?;
            self.slots.store(slots.cast().as_ptr(), Ordering::Relaxed);
            // Nothing that is written often: zeros, text, all ones.
            let pattern = os::random() & 0x3f3f_3f3f_3f3f_3f3f | 0x8080_8080_8080_8080;
            self.pattern.store(pattern, Ordering::Relaxed);
            Some(run)
        });
        self.began_ns.store(os::now_ns(), Ordering::Relaxed);
        // Release: the records, all zeros, and where they are.
        self.run.store(run.unwrap_or(NEVER), Ordering::Release);
        run.is_some()
    }

    fn slot(&self, index: usize) -> Option<&Slot> {
        let slots = NonNull::new(self.slots.load(Ordering::Relaxed))?;
        // SAFETY: records from `meta`, which are there for good (I-forever); zeros are one, and all fields are atomics.
        unsafe { slots.as_ref() }.get(index)
    }

    /// The slot whose pages an address lies on.
    fn index_of(&self, address: usize) -> Option<usize> {
        let place = self.owns(address).then(|| (address - self.run.load(Ordering::Relaxed)) / slot_bytes())?;
        (!place.is_multiple_of(2)).then_some(place / 2)
    }

    fn slot_range(&self, index: usize) -> Range<usize> {
        let start = self.run.load(Ordering::Relaxed) + (2 * index + 1) * slot_bytes();
        start..start + slot_bytes()
    }

    /// The slot of the block that the program says it has here.
    fn live_slot(&self, address: usize) -> Result<&Slot, Misuse> {
        let slot = self.index_of(address).and_then(|index| self.slot(index)).ok_or(Misuse::NeverAllocated)?;
        let is_start = slot.address.load(Ordering::Relaxed) == address;
        match slot.state() {
            State::Live if is_start => Ok(slot),
            State::Live => Err(Misuse::Interior),
            State::Freed | State::Busy if is_start => Err(Misuse::DoubleFree),
            State::Freed | State::Busy | State::Unused => Err(Misuse::NeverAllocated),
        }
    }

    /// Claims a slot that has rested, whichever chance says; tells what it was before.
    fn claim_rested(&self, random: u64) -> Option<(usize, State)> {
        let frees = self.frees.load(Ordering::Relaxed);
        // An odd stride meets every slot once.
        let (first, stride) = (random as usize % SLOTS, (random >> 8) as usize | 1);
        (0..SLOTS).map(|nth| (first + nth.wrapping_mul(stride)) % SLOTS).find_map(|index| {
            let slot = self.slot(index)?;
            let state = slot.state();
            let has_rested = match state {
                State::Unused => true,
                State::Freed => frees.wrapping_sub(slot.freed_at.load(Ordering::Relaxed)) > REST_FREES,
                State::Live | State::Busy => false,
            };
            (has_rested && slot.claim(state)).then_some((index, state))
        })
    }

    /// Where the pattern around a block in an open slot is not what it was: the byte next to the block, if there are several.
    fn damage(&self, address: usize) -> Option<usize> {
        let index = self.index_of(address)?;
        let (block, range) = (self.slot(index)?.block(), self.slot_range(index));
        let pattern = self.pattern.load(Ordering::Relaxed);
        // SAFETY: a slot is open while its block is live, and until whoever claimed it has closed it, as callers made sure; what a program writes there at the same time, it must not.
        let behind = unsafe { first_difference(block.end..range.end, pattern) };
        // SAFETY: as above.
        behind.or_else(|| unsafe { first_difference(range.start..block.start, pattern) })
    }

    fn say_history(slot: Option<&Slot>, now_ns: u64, mut text: Text) {
        if let Some(slot) = slot {
            text.note("allocation", &slot.allocation, now_ns);
            if slot.state() != State::Live {
                text.note("free", &slot.free, now_ns);
            }
        }
        text.text("the program is loaded at ");
        text.hexadecimal(os::load_base());
        text.text(": `addr2line -e PROGRAM` takes its addresses less that");
        text.end();
    }
}

/// Address space for the slots: in the upper half of the sampled zone, which its pages never reach.
fn reserve(region: usize) -> Option<usize> {
    let from = region + WINDOW_BYTES + WINDOW_BYTES / 2;
    let mut random = os::random();
    for _ in 0..ATTEMPTS {
        let run = from + (random as usize % (WINDOW_BYTES / 4 / STEP_BYTES)) * STEP_BYTES;
        debug_assert!(in_sampled_zone(run) && in_sampled_zone(run + run_bytes()));
        match os::reserve_at(run, run_bytes()) {
            Ok(()) => return Some(run),
            Err(MapError::Occupied) => random = random.rotate_right(11),
            Err(MapError::OutOfMemory) => return None,
        }
    }
    None
}

/// Writes a pattern all over a range of whole words.
///
/// # Safety
///
/// - The range is mapped, and nobody's.
unsafe fn fill(range: &Range<usize>, pattern: u64) {
    for address in range.clone().step_by(size_of::<u64>()) {
        // SAFETY: handed on to the caller.
        unsafe { os::pointer(address).cast::<u64>().write(pattern) };
    }
}

/// The first byte of a range that is not what [`fill`] wrote.
///
/// # Safety
///
/// - The range is mapped.
unsafe fn first_difference(range: Range<usize>, pattern: u64) -> Option<usize> {
    const WORD: usize = size_of::<u64>();
    let mut address = range.start;
    while address < range.end {
        if address.is_multiple_of(WORD) && range.end - address >= WORD {
            // SAFETY: handed on to the caller. Volatile, here and below: the program may be writing there, which it must not.
            if unsafe { os::pointer(address).cast::<u64>().read_volatile() } == pattern {
                address += WORD;
                continue;
            }
        }
        // SAFETY: as above.
        if unsafe { os::pointer(address).read_volatile() } != pattern.to_ne_bytes()[address % WORD] {
            return Some(address);
        }
        address += 1;
    }
    None
}

/// Lines on their way to standard error, a piece at a time: there is no room on the stack for one that names many addresses.
struct Text {
    bytes: [u8; 192],
    length: usize,
    /// Nothing was said on this line yet.
    is_new: bool,
}

impl Text {
    fn new() -> Self {
        Self { bytes: [0; 192], length: 0, is_new: true }
    }

    /// The line ends; another one begins, if anything follows.
    fn end(&mut self) {
        self.text("\n");
        self.flush();
        self.is_new = true;
    }

    fn flush(&mut self) {
        os::write_error(&self.bytes[..self.length]);
        self.length = 0;
    }

    fn text(&mut self, text: &str) {
        let beginning = if core::mem::take(&mut self.is_new) { "freestone: guarded: " } else { "" };
        for &byte in beginning.as_bytes().iter().chain(text.as_bytes()) {
            if self.length == self.bytes.len() {
                self.flush();
            }
            self.bytes[self.length] = byte;
            self.length += 1;
        }
    }

    fn number(&mut self, write: impl FnOnce(&mut Line<24>)) {
        let mut line = Line::new();
        write(&mut line);
        let number = line.finish();
        self.text(core::str::from_utf8(&number[..number.len() - 1]).unwrap_or("?"));
    }

    fn decimal(&mut self, value: usize) {
        self.number(|line| line.decimal(value));
    }

    fn hexadecimal(&mut self, value: usize) {
        self.number(|line| line.hexadecimal(value));
    }

    fn block(&mut self, slot: &Slot) {
        self.text(" ptr=");
        self.hexadecimal(slot.block().start);
        self.text(" class=");
        self.decimal(slot.class().index());
        self.text(" (");
        self.decimal(slot.block().len());
        self.text(" B)");
    }

    fn note(&mut self, what: &str, note: &Note, now_ns: u64) {
        let ago_ns = now_ns.saturating_sub(note.at_ns.load(Ordering::Relaxed));
        self.stack(what, note.thread.load(Ordering::Relaxed), Some(ago_ns), note.frames());
    }

    /// One line: what was done, by whom, how long ago, and where.
    fn stack(&mut self, what: &str, thread: u32, ago_ns: Option<u64>, frames: impl Iterator<Item = usize>) {
        self.text(what);
        self.text(" by thread ");
        self.decimal(thread as usize);
        if let Some(ago_ns) = ago_ns {
            self.text(", ");
            self.number(|line| line.seconds(ago_ns));
            self.text(" s ago");
        }
        self.text(":");
        for frame in frames.take(FRAMES) {
            self.text(" ");
            self.hexadecimal(frame);
        }
        self.end();
    }
}

#[cfg(test)]
#[path = "guarded/tests.rs"]
mod tests;
