//! Floor 5. Call sites: every stack is kept once, with what was allocated there, by size class and tag, and what became of it.
//!
//! ```text
//!   Key (stack, size, tag, interval) ──▶ Record: counts of samples ──▶ Frames: return addresses, shared by the records of one stack
//! ```
//!
//! All samples of a record stand for equally many blocks, so whole numbers are enough: how many samples, of how many bytes. What they stand for is
//! worked out when somebody reads. That keeps sums exact: what was added when a block came is what is taken away when it goes.
//!
//! *The peak comes for free.* Whenever live bytes rise above all before them, a number goes up. A record that is about to change looks at the number:
//! another one than when it looked last means that it is now as it was at the highest moment since; so it remembers that. Nobody has to copy all records
//! when a peak is reached.
//!
//! Memory is bounded. Beyond the bound the records that were touched longest ago make room, if nothing of theirs is alive; what they had counted is
//! remembered in one sum. Everything here is behind one lock, held for some hundred nanoseconds at a time.

use core::ptr;

use crate::chance;
use crate::meta::Meta;
use crate::site::{Estimate, FRAMES_MAX, LIFETIME_BUCKETS, ProfileSummary, Site, Stack, Stall, StallKind, TEMPORARY_NS};
use crate::size_class::SizeClass;

use super::heads::Heads;

/// Of which size blocks are: the number of a class, or beyond them one of eight steps per doubling, counted from here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Size(u32);

const BEYOND: u32 = 1 << 16;

impl Size {
    pub(super) fn of(class: Option<SizeClass>, bytes: usize) -> Self {
        match class {
            Some(class) => Self(class.index() as u32),
            None => {
                let doubling = bytes.max(8).ilog2();
                Self(BEYOND + doubling * 8 + (bytes.max(8) >> (doubling - 3)) as u32 % 8)
            }
        }
    }

    /// The size that chance goes by: that of the class, or where the step begins.
    pub(super) fn odds_bytes(self) -> usize {
        match self.0.checked_sub(BEYOND) {
            Some(step) => (8 + step as usize % 8) << (step / 8 - 3),
            None => SizeClass::from_index(self.0 as usize).bytes(),
        }
    }

    fn block_bytes(self) -> usize {
        if self.0 < BEYOND { self.odds_bytes() } else { 0 }
    }
}

/// What tells one record from another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Key {
    pub(super) size: Size,
    pub(super) tag: u32,
    /// With which its samples were drawn; 1: they had no choice.
    pub(super) interval: u32,
}

/// A sampled block begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Birth {
    pub(super) key: Key,
    pub(super) bytes: usize,
    pub(super) requested: usize,
    pub(super) grown: bool,
    /// Of the stack only the innermost frame could be had.
    pub(super) stack_failed: bool,
    pub(super) now_ns: u64,
}

/// Will its end be seen?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Tracked {
    Yes,
    No,
}

/// What the heap holds at the moment, and what all of this may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound {
    pub(super) held: usize,
    pub(super) most: usize,
}

/// It ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Death {
    pub(super) bytes: usize,
    pub(super) lived_ns: u64,
    pub(super) elsewhere: bool,
}

/// A stack, of some capacity.
#[repr(C)]
struct Frames {
    hash: u64,
    /// The next of its chain; of a spare one, the next spare one.
    next: u64,
    /// Records that have it.
    users: u32,
    depth: u8,
    is_cut: bool,
    capacity: u8,
    frames: [usize; 0],
}

/// Capacities of stacks.
const CAPACITIES: [usize; 6] = [8, 16, 24, 32, 48, FRAMES_MAX];

impl Frames {
    fn bytes(capacity: usize) -> usize {
        size_of::<Self>() + capacity * size_of::<usize>()
    }

    /// # Safety
    ///
    /// - `this` is a stack of ours, and the lock is held.
    unsafe fn frames<'a>(this: *const Self) -> &'a [usize] {
        // SAFETY: as the caller says.
        let depth = usize::from(unsafe { (*this).depth });
        // SAFETY: so many frames follow.
        let first = unsafe { &raw const (*this).frames }.cast::<usize>();
        // SAFETY: as above; they do not change as long as the stack has users.
        unsafe { core::slice::from_raw_parts(first, depth) }
    }
}

/// Samples, and the bytes of their blocks.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct Count {
    samples: u64,
    bytes: u64,
}

impl Count {
    fn add(&mut self, bytes: usize) {
        self.samples += 1;
        self.bytes += bytes as u64;
    }

    fn take(&mut self, bytes: usize) {
        self.samples -= 1;
        self.bytes -= bytes as u64;
    }

    /// What it stands for, where each sample stands for so many blocks.
    fn estimate(self, weight: f64) -> Estimate {
        let (samples, bytes) = (self.samples as f64, self.bytes as f64);
        let variance = weight * (weight - 1.0);
        let squares = if self.samples == 0 { 0.0 } else { bytes * (bytes / samples) };
        Estimate {
            samples: self.samples,
            objects: samples * weight,
            bytes: bytes * weight,
            objects_variance: samples * variance,
            bytes_variance: squares * variance,
        }
    }
}

/// A call site. All zeros is one that nobody uses.
#[repr(C)]
struct Record {
    /// 0: a spare one.
    id: u64,
    /// The next of its chain; of a spare one, the next spare one.
    next: u64,
    stack: *mut Frames,
    key: Key,
    /// 1 + the number of a [`StallKind`], or 0 for blocks.
    stall: u32,
    newer: u32,
    older: u32,
    weight: f64,
    allocated: Count,
    live: Count,
    peak: Count,
    peak_number: u64,
    ended: Count,
    untracked: u64,
    grown: u64,
    temporary: u64,
    elsewhere: u64,
    requested_bytes: u64,
    /// Of stalls: all of them together.
    lifetime_ns: u64,
    /// Of stalls: the longest.
    longest_ns: u64,
    /// Bytes that are free beside sampled blocks, as counted in this round.
    pinned_bytes: u64,
    pinned_round: u64,
    first_ns: u64,
    last_ns: u64,
    lifetimes: [u32; LIFETIME_BUCKETS],
}

/// Records come in pieces of so many.
const PIECE: usize = 64;
const PIECES: usize = 1 << 13;
/// Of that, pointers to so many pieces are taken at a time.
const SHELF: usize = 64;

/// What one look at the records brought.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Portion {
    /// How many.
    pub(crate) count: usize,
    /// Where to go on.
    pub(crate) next: u32,
    /// There are no more.
    pub(crate) is_last: bool,
}

/// All call sites of a heap.
pub(super) struct Sites {
    shelves: [*mut *mut Record; PIECES / SHELF],
    /// Records that exist, spare ones among them.
    count: u32,
    /// The first spare one, plus one.
    spare: u64,
    used: u32,
    spare_stacks: [u64; CAPACITIES.len()],
    by_key: Heads,
    by_stack: Heads,
    /// Of the records of which nothing is alive, the one touched last, and the one touched longest ago, plus one.
    newest: u32,
    oldest: u32,
    next_id: u64,
    used_bytes: usize,
    /// Live bytes as samples have them, when they were highest, and how often that happened.
    live_bytes: f64,
    peak_bytes: f64,
    peak_number: u64,
    /// Rounds in which somebody counted what is free beside sampled blocks.
    pinned_round: u64,
    sums: ProfileSummary,
}

// SAFETY: what it points to belongs to it alone.
unsafe impl Send for Sites {}

const NOT_DRAWN: Key = Key { size: Size(0), tag: 0, interval: 1 };

impl Sites {
    pub(super) const fn new() -> Self {
        Self {
            shelves: [ptr::null_mut(); PIECES / SHELF],
            count: 0,
            spare: 0,
            used: 0,
            spare_stacks: [0; CAPACITIES.len()],
            by_key: Heads::new(),
            by_stack: Heads::new(),
            newest: 0,
            oldest: 0,
            next_id: 0,
            used_bytes: 0,
            live_bytes: 0.0,
            peak_bytes: 0.0,
            peak_number: 0,
            pinned_round: 0,
            // SAFETY: numbers, which zeros are.
            sums: unsafe { core::mem::zeroed() },
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.used_bytes + self.by_key.bytes() + self.by_stack.bytes()
    }

    // ---- records ---------------------------------------------------------------------------------------------------

    fn record(&self, index: u32) -> *mut Record {
        let (piece, within) = (index as usize / PIECE, index as usize % PIECE);
        // SAFETY: records below the count exist, and so does their piece.
        let piece = unsafe { self.place_of(piece).read() };
        // SAFETY: as above.
        unsafe { piece.add(within) }
    }

    /// Where the address of a piece stands, or will.
    fn place_of(&self, piece: usize) -> *mut *mut Record {
        // SAFETY: the shelf is made before any piece that has its place there.
        unsafe { self.shelves[piece / SHELF].add(piece % SHELF) }
    }

    fn at(&mut self, index: u32) -> &mut Record {
        // SAFETY: as in `record`; `self` is borrowed, and with it every record.
        unsafe { &mut *self.record(index) }
    }

    fn new_record(&mut self, meta: &Meta) -> Option<u32> {
        if let Some(index) = self.spare.checked_sub(1) {
            self.spare = self.at(index as u32).next;
            return Some(index as u32);
        }
        let index = self.count;
        let piece = index as usize / PIECE;
        if piece == PIECES {
            return None;
        }
        if (index as usize).is_multiple_of(PIECE) {
            if piece.is_multiple_of(SHELF) {
                self.shelves[piece / SHELF] =
                    meta.take(SHELF * size_of::<*mut Record>(), align_of::<*mut Record>())?.as_ptr().cast();
            }
            let memory = meta.take(PIECE * size_of::<Record>(), align_of::<Record>())?;
            // SAFETY: the shelf was made for this piece or an earlier one.
            unsafe { self.place_of(piece).write(memory.as_ptr().cast()) };
        }
        self.count += 1;
        Some(index)
    }

    fn unlink(&mut self, index: u32) {
        let (newer, older) = (self.at(index).newer, self.at(index).older);
        if newer == 0 {
            self.newest = older;
        } else {
            self.at(newer - 1).older = older;
        }
        if older == 0 {
            self.oldest = newer;
        } else {
            self.at(older - 1).newer = newer;
        }
    }

    fn link_newest(&mut self, index: u32) {
        let newest = self.newest;
        let record = self.at(index);
        (record.newer, record.older) = (0, newest);
        if newest == 0 {
            self.oldest = index + 1;
        } else {
            self.at(newest - 1).newer = index + 1;
        }
        self.newest = index + 1;
    }

    fn touch(&mut self, index: u32) {
        if self.newest != index + 1 {
            self.unlink(index);
            self.link_newest(index);
        }
    }

    // ---- stacks ----------------------------------------------------------------------------------------------------

    #[allow(clippy::unused_self, reason = "who has the sites, alone, has the stacks")]
    fn stack_at(&mut self, entry: u64) -> &mut Frames {
        // SAFETY: entries are addresses of stacks of ours; `self` is borrowed, and with it every stack.
        unsafe { &mut *ptr::with_exposed_provenance_mut(entry as usize) }
    }

    /// The stack that was captured, as it is kept. `None`: no memory.
    fn intern(&mut self, stack: &Stack, meta: &Meta) -> Option<*mut Frames> {
        let hash = hash_of(stack.frames());
        let head = self.by_stack.head(hash, meta)?;
        // SAFETY: the head of a chain; the lock keeps others away.
        let mut entry = unsafe { head.read() };
        while entry != 0 {
            let known = self.stack_at(entry);
            // SAFETY: a stack of ours.
            if known.hash == hash && unsafe { Frames::frames(known) } == stack.frames() {
                return Some(known);
            }
            entry = known.next;
        }
        let fits = CAPACITIES.iter().position(|&capacity| capacity >= stack.frames().len())?;
        // A spare one that is too long serves better than more memory.
        let size = (fits..CAPACITIES.len()).find(|&size| self.spare_stacks[size] != 0).unwrap_or(fits);
        let capacity = CAPACITIES[size];
        let fresh: *mut Frames = if self.spare_stacks[size] == 0 {
            meta.take(Frames::bytes(capacity), align_of::<Frames>())?.as_ptr().cast()
        } else {
            let spare: *mut Frames = self.stack_at(self.spare_stacks[size]);
            // SAFETY: a stack of ours.
            self.spare_stacks[size] = unsafe { (*spare).next };
            spare
        };
        let depth = stack.frames().len() as u8;
        // SAFETY: the head of the chain.
        let next = unsafe { head.read() };
        let new = Frames { hash, next, users: 0, depth, is_cut: stack.is_cut, capacity: capacity as u8, frames: [] };
        // SAFETY: so many bytes, ours alone.
        unsafe { fresh.write(new) };
        // SAFETY: as above.
        let room = unsafe { &raw mut (*fresh).frames }.cast::<usize>();
        // SAFETY: room for `capacity` frames follows, which is at least as many.
        unsafe { room.copy_from_nonoverlapping(stack.frames().as_ptr(), usize::from(depth)) };
        // SAFETY: as above.
        unsafe { head.write(fresh.expose_provenance() as u64) };
        self.used_bytes += Frames::bytes(capacity);
        self.by_stack.entered(meta, |entry| {
            // SAFETY: entries of this table are stacks of ours.
            let Frames { hash, next, .. } = unsafe { &mut *ptr::with_exposed_provenance_mut(entry as usize) };
            (&raw mut *next, *hash)
        });
        Some(fresh)
    }

    /// One user less. The last one takes the stack along.
    fn let_go(&mut self, stack: *mut Frames, meta: &Meta) {
        // SAFETY: a stack of ours, which the caller used.
        let Frames { hash, users, capacity, next, .. } = unsafe { stack.read() };
        // SAFETY: as above.
        unsafe { (*stack).users = users - 1 };
        if users > 1 {
            return;
        }
        let Some(head) = self.by_stack.head(hash, meta) else { return };
        let mut link = head.as_ptr();
        let own = stack.expose_provenance() as u64;
        // SAFETY: links of a chain, to which the stack belongs.
        while unsafe { link.read() } != own {
            // SAFETY: as above.
            let entry = unsafe { link.read() };
            link = &raw mut self.stack_at(entry).next;
        }
        // SAFETY: as above.
        unsafe { link.write(next) };
        self.by_stack.left();
        let capacity = usize::from(capacity);
        let size = CAPACITIES.iter().position(|&known| known == capacity).unwrap_or(0);
        // SAFETY: nobody uses it any more.
        unsafe { (*stack).next = self.spare_stacks[size] };
        self.spare_stacks[size] = own;
        self.used_bytes -= Frames::bytes(capacity);
    }

    // ---- finding ---------------------------------------------------------------------------------------------------

    /// The record of a key, made if there is none. `None`: no memory, or all of it is taken by what is alive.
    fn find(&mut self, stack: &Stack, key: Key, stall: u32, bytes_max: usize, now_ns: u64, meta: &Meta) -> Option<u32> {
        let frames = self.intern(stack, meta)?;
        let hash = hash_of(&[frames.addr(), key.size.0 as usize, key.tag as usize, key.interval as usize, stall as usize]);
        let head = self.by_key.head(hash, meta)?;
        // SAFETY: the head of a chain; the lock keeps others away.
        let mut entry = unsafe { head.read() };
        while entry != 0 {
            let index = entry as u32 - 1;
            let record = self.at(index);
            if record.stack == frames && record.key == key && record.stall == stall {
                if record.live.samples == 0 {
                    self.touch(index);
                }
                return Some(index);
            }
            entry = record.next;
        }
        // SAFETY: a stack of ours. One more user from here on, so that it stays while others go.
        unsafe { (*frames).users += 1 };
        let mut room = if self.make_room(bytes_max, meta) { self.new_record(meta) } else { None };
        if room.is_none()
            && let Some(index) = self.oldest.checked_sub(1)
        {
            self.forget(index, meta);
            room = self.new_record(meta);
        }
        let Some(index) = room else {
            self.let_go(frames, meta);
            return None;
        };
        self.next_id += 1;
        self.used += 1;
        self.used_bytes += size_of::<Record>();
        let (id, peak_number) = (self.next_id, self.peak_number);
        let head = self.by_key.head(hash, meta)?;
        let record = self.at(index);
        // SAFETY: numbers and a pointer, which zeros are.
        *record = unsafe { core::mem::zeroed() };
        (record.id, record.stack, record.key, record.stall) = (id, frames, key, stall);
        record.weight = chance::weight(key.size.odds_bytes(), key.interval as usize);
        (record.first_ns, record.last_ns, record.peak_number) = (now_ns, now_ns, peak_number);
        // SAFETY: the head of the chain.
        record.next = unsafe { head.read() };
        // SAFETY: as above.
        unsafe { head.write(u64::from(index) + 1) };
        self.link_newest(index);
        let this: *const Self = self;
        self.by_key.entered(meta, |entry| {
            // SAFETY: only the shelves are read, which `entered` does not touch.
            let record = unsafe { (*this).record(entry as u32 - 1) };
            // SAFETY: entries of this table are records.
            let Record { stack, key, stall, .. } = unsafe { record.read() };
            let hash = hash_of(&[stack.addr(), key.size.0 as usize, key.tag as usize, key.interval as usize, stall as usize]);
            // SAFETY: as above.
            (unsafe { &raw mut (*record).next }, hash)
        });
        Some(index)
    }

    /// Forgets what was touched longest ago until there is room for one more. `false`: all that is left is alive.
    fn make_room(&mut self, bytes_max: usize, meta: &Meta) -> bool {
        /// The bound may have fallen by much: others wait for the lock, and the next ones go on.
        const AT_A_TIME: u32 = 8;
        for _ in 0..AT_A_TIME {
            if self.bytes() + size_of::<Record>() <= bytes_max {
                break;
            }
            let Some(index) = self.oldest.checked_sub(1) else { return false };
            self.forget(index, meta);
        }
        true
    }

    fn forget(&mut self, index: u32, meta: &Meta) {
        self.unlink(index);
        let record = self.at(index);
        let (key, stack, stall, allocated) = (record.key, record.stack, record.stall, record.allocated.estimate(record.weight));
        let hash = hash_of(&[stack.addr(), key.size.0 as usize, key.tag as usize, key.interval as usize, stall as usize]);
        let next = record.next;
        if stall == 0 {
            add(&mut self.sums.forgotten, allocated);
        }
        self.sums.forgotten_sites += 1;
        if let Some(head) = self.by_key.head(hash, meta) {
            let mut link = head.as_ptr();
            // SAFETY: links of a chain, to which the record belongs.
            while unsafe { link.read() } != u64::from(index) + 1 {
                // SAFETY: as above.
                let entry = unsafe { link.read() } as u32 - 1;
                link = &raw mut self.at(entry).next;
            }
            // SAFETY: as above.
            unsafe { link.write(next) };
        }
        self.by_key.left();
        self.let_go(stack, meta);
        let spare = self.spare;
        let record = self.at(index);
        (record.id, record.next) = (0, spare);
        self.spare = u64::from(index) + 1;
        self.used -= 1;
        self.used_bytes -= size_of::<Record>();
    }

    // ---- counting --------------------------------------------------------------------------------------------------

    /// Before what a record has changes: if there was a peak since it changed last, this is what it had then.
    fn keep_peak(&mut self, index: u32) {
        let number = self.peak_number;
        let record = self.at(index);
        if record.peak_number != number {
            (record.peak, record.peak_number) = (record.live, number);
        }
    }

    /// A sampled block begins; says which record it belongs to. `None`: it is not known of.
    pub(super) fn begin(&mut self, stack: &Stack, birth: &Birth, tracked: Tracked, bound: Bound, meta: &Meta) -> Option<u32> {
        self.sums.samples += 1;
        self.sums.failed_stacks += u64::from(birth.stack_failed);
        self.sums.cut_stacks += u64::from(stack.is_cut);
        let found = self.find(stack, birth.key, 0, bound.most, birth.now_ns, meta);
        let weight = match found {
            Some(index) => self.at(index).weight,
            None => chance::weight(birth.key.size.odds_bytes(), birth.key.interval as usize),
        };
        let alone = Count { samples: 1, bytes: birth.bytes as u64 }.estimate(weight);
        add(&mut self.sums.allocated, alone);
        let Some(index) = found else {
            self.sums.lost += 1;
            add(&mut self.sums.forgotten, alone);
            return None;
        };
        self.keep_peak(index);
        let record = self.at(index);
        record.allocated.add(birth.bytes);
        record.requested_bytes += birth.requested as u64;
        record.grown += u64::from(birth.grown);
        record.last_ns = birth.now_ns;
        if tracked == Tracked::Yes {
            if record.live.samples == 0 {
                self.unlink(index);
            }
            self.at(index).live.add(birth.bytes);
            add(&mut self.sums.live, alone);
            self.live_bytes += alone.bytes;
            if self.live_bytes > self.peak_bytes {
                (self.peak_bytes, self.peak_number) = (self.live_bytes, self.peak_number + 1);
                self.sums.peak = self.sums.live;
                self.sums.peak_ns = birth.now_ns;
                self.sums.peak_held_bytes = bound.held;
            }
        } else {
            self.at(index).untracked += 1;
            self.sums.untracked += 1;
        }
        Some(index)
    }

    /// It ends.
    pub(super) fn end(&mut self, index: u32, death: &Death) {
        self.keep_peak(index);
        self.sums.ends += 1;
        let record = self.at(index);
        record.live.take(death.bytes);
        record.ended.add(death.bytes);
        record.temporary += u64::from(!death.elsewhere && death.lived_ns < TEMPORARY_NS);
        record.elsewhere += u64::from(death.elsewhere);
        record.lifetime_ns = record.lifetime_ns.saturating_add(death.lived_ns);
        record.lifetimes[lifetime_bucket(death.lived_ns)] += 1;
        let gone = Count { samples: 1, bytes: death.bytes as u64 }.estimate(record.weight);
        if record.live.samples == 0 {
            self.link_newest(index);
        }
        take(&mut self.sums.live, gone);
        self.live_bytes = self.sums.live.bytes;
    }

    /// What is free beside sampled blocks is counted anew.
    pub(super) fn begin_pinned(&mut self) -> u64 {
        self.pinned_round += 1;
        self.pinned_round
    }

    /// So much is free beside a sampled block.
    pub(super) fn pins(&mut self, index: u32, bytes: u64, round: u64) {
        if round != self.pinned_round {
            // Somebody else counts anew meanwhile.
            return;
        }
        let record = self.at(index);
        record.pinned_bytes = bytes + if record.pinned_round == round { record.pinned_bytes } else { 0 };
        record.pinned_round = round;
    }

    /// A thread was held up.
    pub(super) fn stalled(&mut self, stack: &Stack, kind: StallKind, ns: u64, now_ns: u64, bound: Bound, meta: &Meta) {
        let Some(index) = self.find(stack, NOT_DRAWN, 1 + kind as u32, bound.most, now_ns, meta) else { return };
        let record = self.at(index);
        record.allocated.samples += 1;
        record.lifetime_ns = record.lifetime_ns.saturating_add(ns);
        record.longest_ns = record.longest_ns.max(ns);
        record.last_ns = now_ns;
    }

    pub(super) fn reset_peak(&mut self, held: usize, now_ns: u64) {
        (self.peak_bytes, self.peak_number) = (self.live_bytes, self.peak_number + 1);
        self.sums.peak = self.sums.live;
        (self.sums.peak_ns, self.sums.peak_held_bytes) = (now_ns, held);
    }

    // ---- reading ---------------------------------------------------------------------------------------------------

    pub(super) fn summary(&self) -> ProfileSummary {
        ProfileSummary { sites: self.used as usize, memory_bytes: self.bytes(), ..self.sums }
    }

    /// The records from a number on: hands each to `each` until that has enough, or enough were looked at; says where to go on, and whether these were all.
    fn read(&self, from: u32, is_wanted: impl Fn(&Record) -> bool, mut each: impl FnMut(&Record) -> bool) -> (u32, bool) {
        /// Others wait for the lock.
        const LOOKS: u32 = 256;
        let mut index = from;
        while index < self.count && index - from < LOOKS {
            // SAFETY: records below the count exist; `self` is borrowed, and with it every record.
            let record = unsafe { &*self.record(index) };
            index += 1;
            if record.id != 0 && is_wanted(record) && !each(record) {
                break;
            }
        }
        (index, index >= self.count)
    }

    /// Fills `into` with sites from a number on.
    pub(super) fn sites(&self, from: u32, into: &mut [Site]) -> Portion {
        let mut count = 0;
        let room = into.len();
        let (next, is_last) = self.read(
            from,
            |record| record.stall == 0,
            |record| {
                self.describe(record, &mut into[count]);
                count += 1;
                count < room
            },
        );
        Portion { count, next, is_last }
    }

    fn describe(&self, record: &Record, into: &mut Site) {
        let weight = record.weight;
        let mean = record.allocated.bytes.checked_div(record.allocated.samples).unwrap_or(0);
        let of = |samples: u64| Count { samples, bytes: samples * mean }.estimate(weight);
        let peak = if record.peak_number == self.peak_number { record.peak } else { record.live };
        into.id = record.id;
        into.block_bytes = record.key.size.block_bytes();
        into.tag = record.key.tag;
        into.allocated = record.allocated.estimate(weight);
        into.live = record.live.estimate(weight);
        into.peak = peak.estimate(weight);
        into.ended = record.ended.estimate(weight);
        into.untracked = of(record.untracked);
        into.grown = of(record.grown);
        into.temporary = of(record.temporary);
        into.ended_elsewhere = of(record.elsewhere);
        into.lifetime_ns = record.lifetime_ns as f64 * weight;
        into.lifetimes = record.lifetimes;
        into.requested_bytes = record.requested_bytes as f64 * weight;
        into.pinned_bytes = if record.pinned_round == self.pinned_round { record.pinned_bytes as f64 * weight } else { 0.0 };
        (into.first_ns, into.last_ns) = (record.first_ns, record.last_ns);
        copy_stack(record.stack, &mut into.stack);
    }

    /// As [`sites`](Self::sites), of stalls.
    pub(super) fn stalls(&self, from: u32, into: &mut [Stall]) -> Portion {
        let mut count = 0;
        let room = into.len();
        let (next, is_last) = self.read(
            from,
            |record| record.stall != 0,
            |record| {
                let stall = &mut into[count];
                stall.id = record.id;
                stall.kind = if record.stall == 1 { StallKind::Lock } else { StallKind::SlowPath };
                (stall.count, stall.total_ns) = (record.allocated.samples, record.lifetime_ns);
                stall.max_ns = record.longest_ns;
                copy_stack(record.stack, &mut stall.stack);
                count += 1;
                count < room
            },
        );
        Portion { count, next, is_last }
    }
}

fn copy_stack(stack: *const Frames, into: &mut Stack) {
    // SAFETY: a record's stack is there as long as the record is, and the lock is held.
    let frames = unsafe { Frames::frames(stack) };
    into.frames[..frames.len()].copy_from_slice(frames);
    into.depth = frames.len() as u8;
    // SAFETY: as above.
    into.is_cut = unsafe { (*stack).is_cut };
}

fn add(sum: &mut Estimate, more: Estimate) {
    sum.samples += more.samples;
    sum.objects += more.objects;
    sum.bytes += more.bytes;
    sum.objects_variance += more.objects_variance;
    sum.bytes_variance += more.bytes_variance;
}

/// What is left of nothing is nothing, whatever rounding says.
fn take(sum: &mut Estimate, less: Estimate) {
    sum.samples -= less.samples;
    if sum.samples == 0 {
        *sum = Estimate::default();
        return;
    }
    sum.objects -= less.objects;
    sum.bytes -= less.bytes;
    sum.objects_variance -= less.objects_variance;
    sum.bytes_variance -= less.bytes_variance;
}

/// See [`Site::lifetimes`].
fn lifetime_bucket(ns: u64) -> usize {
    let doublings = (ns / 1_000).checked_ilog2().map_or(0, |log| log as usize / 2 + 1);
    doublings.min(LIFETIME_BUCKETS - 1)
}

/// A hash of some words: multiply and fold, as in `wyhash`.
fn hash_of(words: &[usize]) -> u64 {
    let mut hash = 0x9e37_79b9_7f4a_7c15_u64 ^ words.len() as u64;
    for &word in words {
        let product = u128::from(hash ^ word as u64) * 0xa076_1d64_78bd_642f_u128;
        hash = (product as u64) ^ (product >> 64) as u64 ^ 0x2545_f491_4f6c_dd1d;
    }
    hash
}
