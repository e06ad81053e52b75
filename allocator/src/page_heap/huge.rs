//! Floor 4. Huge slots: blocks above 2 MiB, and smaller ones that outgrew the classes, each in a stretch of address space of its own with
//! room to grow.
//!
//! ```text
//!   slot   ├──── size ────┼─ dirty ─┼─── mapped ───┼──────────── room ────────────┤
//!           program's       ours,     ours, clean    unmapped, but nobody else's
//! ```
//!
//! A slot's room is several times its size, because address space is free and a `Vec` that doubles then grows in place. A slot that
//! the program gives back stays mapped and warm for the next request (`Retained`) until memory is given back (`Vacant`: the address
//! space is kept, nothing is mapped).
//!
//! Not shared: lives behind a lock. Knows numbers only; mapping is done by `page_heap` while the slot is `Busy`, without the lock.

use core::ops::Range;
use core::ptr::NonNull;

use crate::meta::Meta;

/// Who has a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// Nobody; nothing is mapped.
    Vacant,
    /// Nobody; memory is mapped and warm.
    Retained,
    /// The program.
    Live,
    /// The program, while one of our threads unmaps what lies behind its bytes.
    Trimmed,
    /// Nobody: the program gave it back while it was being trimmed. Whoever trims it makes it `Retained`.
    Left,
    /// One of our threads, which is about to map, unmap or move it.
    Busy,
}

impl State {
    /// Does the program have it?
    fn is_live(self) -> bool {
        matches!(self, Self::Live | Self::Trimmed)
    }
}

/// One slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Slot {
    pub(crate) address: usize,
    /// Address space that is ours.
    pub(crate) room: usize,
    /// Bytes from the start that are mapped.
    pub(crate) mapped: usize,
    /// Bytes from the start that may hold memory. At most `mapped`.
    pub(crate) dirty: usize,
    /// Bytes that the program has. At most `dirty`; 0 unless live.
    pub(crate) size: usize,
    pub(crate) state: State,
    /// The tick in which it was last given back.
    pub(crate) freed_tick: u32,
    /// Outside the window: its address space goes back with it.
    pub(crate) outside: bool,
}

/// Sums over all slots.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct SlotTotals {
    pub(crate) mapped: usize,
    pub(crate) dirty: usize,
    pub(crate) live: usize,
}

impl SlotTotals {
    /// Bytes that hold memory which no program has.
    pub(crate) fn free_dirty(&self) -> usize {
        self.dirty - self.live
    }
}

/// All slots, ordered by address.
pub(crate) struct Slots {
    /// `slots[..count]` of `capacity`. Grown by doubling; old arrays stay in `meta`, together no larger than the newest.
    slots: *mut Slot,
    count: usize,
    capacity: usize,
    totals: SlotTotals,
    /// How much of it was dirty when that was noted last.
    noted: usize,
    /// The next unused address, and the end of the range for slots.
    next: usize,
    end: usize,
    /// How many of the slots are live: with too many, rooms get narrow so that neighbours share a mapping.
    live: usize,
}

// SAFETY: the array belongs to `Slots` alone.
unsafe impl Send for Slots {}

/// A slot's room is so many times its size, or so much …
const ROOM_FACTOR: usize = 16;
/// See [`ROOM_FACTOR`]: a `Vec` that begins small may well become this large without moving.
const ROOM_MIN: usize = 64 << 20;
/// … while fewer than this are live. The kernel allows 65,530 mappings.
const ROOMY_SLOTS_MAX: usize = 4096;

/// Why an address is not that of a live slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NotLive {
    /// No slot reaches there.
    Unknown,
    /// It lies inside a slot.
    Inside,
    /// It is a slot that the program does not have.
    Free,
}

impl Slots {
    pub(crate) const fn new() -> Self {
        Self {
            slots: core::ptr::null_mut(),
            count: 0,
            capacity: 0,
            totals: SlotTotals { mapped: 0, dirty: 0, live: 0 },
            noted: 0,
            next: 0,
            end: 0,
            live: 0,
        }
    }

    /// Says which addresses slots may use.
    pub(crate) fn settle(&mut self, next: usize, end: usize) {
        self.next = next;
        self.end = end;
    }

    pub(crate) fn totals(&self) -> SlotTotals {
        self.totals
    }

    /// How many bytes more may hold memory than when this was asked last; negative: fewer.
    pub(crate) fn take_change(&mut self) -> isize {
        let dirty = self.totals.dirty;
        dirty.cast_signed() - core::mem::replace(&mut self.noted, dirty).cast_signed()
    }

    fn all(&self) -> &[Slot] {
        if self.count == 0 {
            return &[];
        }
        // SAFETY: `insert` wrote `count` slots into an array of `meta`.
        unsafe { core::slice::from_raw_parts(self.slots, self.count) }
    }

    fn all_mut(&mut self) -> &mut [Slot] {
        if self.count == 0 {
            return &mut [];
        }
        // SAFETY: as in `all`, and `&mut self` makes the access unique.
        unsafe { core::slice::from_raw_parts_mut(self.slots, self.count) }
    }

    /// The slot that reaches over an address.
    fn index_of(&self, address: usize) -> Option<usize> {
        let index = self.all().partition_point(|slot| slot.address <= address).checked_sub(1)?;
        let slot = &self.all()[index];
        (address - slot.address < slot.room).then_some(index)
    }

    /// Changes a slot through `change` and keeps the sums.
    fn update(&mut self, index: usize, change: impl FnOnce(&mut Slot)) -> Slot {
        let before = self.all()[index];
        let after = {
            let slot = &mut self.all_mut()[index];
            change(slot);
            *slot
        };
        debug_assert!(after.size <= after.dirty);
        debug_assert!(after.dirty <= after.mapped);
        debug_assert!(after.mapped <= after.room);
        let totals = &mut self.totals;
        totals.mapped = totals.mapped + after.mapped - before.mapped;
        totals.dirty = totals.dirty + after.dirty - before.dirty;
        totals.live = totals.live + after.size - before.size;
        self.live = self.live + usize::from(after.state.is_live()) - usize::from(before.state.is_live());
        after
    }

    /// Makes room for one more entry.
    fn reserve(&mut self, meta: &Meta) -> Option<()> {
        if self.count < self.capacity {
            return Some(());
        }
        let capacity = (self.capacity * 2).max(16);
        let memory: NonNull<Slot> = meta.take(capacity * size_of::<Slot>(), align_of::<Slot>())?.cast();
        // SAFETY: the new array is ours, longer than the old one, and apart from it.
        unsafe { memory.copy_from_nonoverlapping(NonNull::from(self.all()).cast(), self.count) };
        self.slots = memory.as_ptr();
        self.capacity = capacity;
        Some(())
    }

    /// Adds a slot; its address must lie in no other. Slots of the window come in order, so this nearly always appends.
    fn insert(&mut self, slot: Slot, meta: &Meta) -> Option<usize> {
        self.reserve(meta)?;
        let index = self.all().partition_point(|other| other.address < slot.address);
        self.place(index, slot);
        Some(index)
    }

    /// Puts an entry at an index; there is room for one more.
    fn place(&mut self, index: usize, slot: Slot) {
        assert!(self.count < self.capacity);
        // SAFETY: within the array.
        let end = unsafe { self.slots.add(self.count) };
        // SAFETY: as above; nobody else has the array.
        unsafe { end.write(slot) };
        self.count += 1;
        self.all_mut()[index..].rotate_right(1);
    }

    /// Chooses a slot for `size` bytes and makes it `Busy`: a retained one that is large enough, else the largest retained one
    /// that can grow, else a vacant one, else a new one. `None`: no address space, no memory for the entry.
    pub(crate) fn claim(&mut self, size: usize, align: usize, meta: &Meta) -> Option<Slot> {
        let index = self.best(size, align).or_else(|| self.new_slot(size, align, meta))?;
        Some(self.update(index, |slot| slot.state = State::Busy))
    }

    /// A retained slot whose memory is already there for at least `size`: worth copying into instead of moving pages.
    pub(crate) fn claim_warm(&mut self, size: usize, align: usize) -> Option<Slot> {
        let index = self.best(size, align).filter(|&index| self.all()[index].dirty >= size)?;
        Some(self.update(index, |slot| slot.state = State::Busy))
    }

    fn best(&self, size: usize, align: usize) -> Option<usize> {
        // Lower is better. Warm enough: the least too much. Else the most warm, else any vacant one of fitting room.
        let rank = |slot: &Slot| match slot.state {
            State::Retained if slot.dirty >= size => Some((0, slot.dirty)),
            State::Retained => Some((1, usize::MAX - slot.dirty)),
            State::Vacant => Some((2, slot.room)),
            State::Live | State::Trimmed | State::Left | State::Busy => None,
        };
        let fits = |slot: &Slot| slot.room >= size && slot.address.is_multiple_of(align);
        let candidates = self.all().iter().enumerate().filter(|(_, slot)| fits(slot));
        let ranked = candidates.filter_map(|(index, slot)| rank(slot).map(|rank| (rank, index)));
        ranked.min().map(|(_, index)| index)
    }

    fn new_slot(&mut self, size: usize, align: usize, meta: &Meta) -> Option<usize> {
        let tight = size.max(align).checked_next_power_of_two()?;
        let roomy = tight.checked_mul(ROOM_FACTOR).filter(|_| self.live < ROOMY_SLOTS_MAX).map(|room| room.max(ROOM_MIN));
        let left = self.end - self.next;
        // A roomy slot may not use up more than an eighth of what is left.
        let room = roomy.filter(|&roomy| roomy <= left / 8).unwrap_or(tight);
        let address = self.next.next_multiple_of(tight);
        if self.end == 0 || address >= self.end || self.end - address < room {
            return None;
        }
        let slot = Slot { address, room, mapped: 0, dirty: 0, size: 0, state: State::Vacant, freed_tick: 0, outside: false };
        let index = self.insert(slot, meta)?;
        self.next = address + room;
        Some(index)
    }

    /// Adds a mapping outside the window as a busy slot.
    pub(crate) fn adopt(&mut self, address: usize, mapped: usize, meta: &Meta) -> bool {
        let slot = Slot { address, room: mapped, mapped: 0, dirty: 0, size: 0, state: State::Busy, freed_tick: 0, outside: true };
        let Some(index) = self.insert(slot, meta) else { return false };
        self.update(index, |slot| slot.mapped = mapped);
        true
    }

    /// Takes a slot outside the window up again whose address space could not be given back. `false`: there is no room for it in the table.
    pub(crate) fn restore(&mut self, slot: Slot) -> bool {
        let has_room = self.count < self.capacity;
        has_room && {
            let index = self.all().partition_point(|other| other.address < slot.address);
            self.place(index, Slot { mapped: 0, dirty: 0, size: 0, ..slot });
            self.update(index, |entry| *entry = slot);
            true
        }
    }

    /// The mappings outside the window.
    pub(crate) fn each_outside(&self, each: &mut dyn FnMut(Range<usize>)) {
        for slot in self.all().iter().filter(|slot| slot.outside) {
            each(slot.address..slot.address + slot.room);
        }
    }

    /// Forgets a busy slot outside the window: its address space is about to go.
    pub(crate) fn forget(&mut self, address: usize) {
        let Some(index) = self.index_of(address) else { return };
        self.update(index, |slot| {
            slot.mapped = 0;
            slot.dirty = 0;
            slot.size = 0;
        });
        self.all_mut()[index..].rotate_left(1);
        self.count -= 1;
    }

    /// The live slot that starts at `address`, by index.
    fn live_at(&self, address: usize) -> Result<usize, NotLive> {
        let index = self.index_of(address).ok_or(NotLive::Unknown)?;
        let slot = &self.all()[index];
        if !slot.state.is_live() {
            return Err(NotLive::Free);
        }
        if slot.address != address {
            return Err(NotLive::Inside);
        }
        Ok(index)
    }

    /// Bytes that the program has of the slot that starts at `address`.
    #[cfg(freestone_c)]
    pub(crate) fn bytes_at(&self, address: usize) -> Result<usize, NotLive> {
        self.live_at(address).map(|index| self.all()[index].size)
    }

    /// The live slot that starts at `address` becomes `Busy`; it keeps its size. `None`: it is being trimmed, so it cannot change now.
    pub(crate) fn claim_live(&mut self, address: usize) -> Result<Option<Slot>, NotLive> {
        let index = self.live_at(address)?;
        let free = self.all()[index].state == State::Live;
        Ok(free.then(|| self.update(index, |slot| slot.state = State::Busy)))
    }

    /// The program gives back the slot that starts at `address`, which is being trimmed; says its size.
    pub(crate) fn leave_trimmed(&mut self, address: usize, tick: u32) -> Result<usize, NotLive> {
        let index = self.live_at(address)?;
        let size = self.all()[index].size;
        self.update(index, |slot| *slot = Slot { state: State::Left, size: 0, freed_tick: tick, ..*slot });
        Ok(size)
    }

    /// The oldest retained slot that was given back in or before tick `until` becomes `Busy`.
    pub(crate) fn claim_retained(&mut self, until: u32) -> Option<Slot> {
        let old_enough = |slot: &Slot| until.wrapping_sub(slot.freed_tick) < u32::MAX / 2;
        let retained = self.all().iter().enumerate().filter(|(_, slot)| slot.state == State::Retained && old_enough(slot));
        let (index, _) = retained.max_by_key(|(_, slot)| until.wrapping_sub(slot.freed_tick))?;
        Some(self.update(index, |slot| slot.state = State::Busy))
    }

    /// A live slot with at least `bytes` of dirty memory behind the program's, or where address space is `scarce` of mapped memory, becomes
    /// `Trimmed`. Not one outside the window: the end of its address space would be anybody's.
    pub(crate) fn claim_tail(&mut self, bytes: usize, scarce: bool) -> Option<Slot> {
        let end = |slot: &Slot| if scarce { slot.mapped } else { slot.dirty };
        let has_tail = |slot: &Slot| slot.state == State::Live && !slot.outside && end(slot) - slot.size >= bytes;
        let index = self.all().iter().position(has_tail)?;
        Some(self.update(index, |slot| slot.state = State::Trimmed))
    }

    /// Ends what [`claim_tail`](Self::claim_tail) began: `mapped` bytes are left. The program may have given the slot back meanwhile.
    pub(crate) fn settle_tail(&mut self, address: usize, mapped: usize) {
        let Some(index) = self.index_of(address) else { return };
        self.update(index, |slot| {
            slot.mapped = mapped;
            slot.dirty = slot.dirty.min(mapped);
            slot.state = if slot.state == State::Left { State::Retained } else { State::Live };
        });
    }

    /// Ends what a claim began: writes back what has become of a busy slot.
    pub(crate) fn settle_slot(&mut self, slot: Slot) {
        debug_assert_ne!(slot.state, State::Busy);
        if let Some(index) = self.index_of(slot.address) {
            self.update(index, |entry| *entry = slot);
        }
    }

    /// Takes a busy slot out of use for good: its address space turned out not to be ours.
    pub(crate) fn abandon(&mut self, address: usize) {
        if let Some(index) = self.index_of(address) {
            self.update(index, |slot| slot.state = State::Busy);
        }
    }

    /// Asserts every equation of the structure, walking all of it.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        let mut totals = SlotTotals::default();
        for slot in self.all() {
            assert!(slot.size <= slot.dirty);
            assert!(slot.dirty <= slot.mapped);
            assert!(slot.mapped <= slot.room);
            assert!(slot.size == 0 || slot.state.is_live() || slot.state == State::Busy);
            assert!(slot.mapped == 0 || slot.state != State::Vacant);
            totals.mapped += slot.mapped;
            totals.dirty += slot.dirty;
            totals.live += slot.size;
        }
        assert_eq!(totals, self.totals);
        assert_eq!(self.live, self.all().iter().filter(|slot| slot.state.is_live()).count());
        assert!(self.all().windows(2).all(|pair| pair[0].address + pair[0].room <= pair[1].address));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;
    const BASE: usize = 1 << 40;

    fn slots() -> (Slots, Meta) {
        let mut slots = Slots::new();
        slots.settle(BASE, BASE + (1 << 38));
        (slots, Meta::new())
    }

    fn live(slots: &mut Slots, meta: &Meta, size: usize, align: usize) -> Slot {
        let mut slot = slots.claim(size, align, meta).expect("address space is there");
        assert_eq!(slot.address % align, 0);
        assert!(slot.room >= size);
        slot.mapped = slot.mapped.max(size);
        slot.dirty = slot.dirty.max(size);
        slot.size = size;
        slot.state = State::Live;
        slots.settle_slot(slot);
        slots.check();
        slot
    }

    fn give(slots: &mut Slots, address: usize, tick: u32) {
        let slot = slots.claim_live(address).expect("it is live").expect("and not being trimmed");
        slots.settle_slot(Slot { state: State::Retained, size: 0, freed_tick: tick, ..slot });
        slots.check();
    }

    #[test]
    fn the_best_warm_slot_is_used_again() {
        let (mut slots, meta) = slots();
        let four = live(&mut slots, &meta, 4 * MIB, 4096);
        let nine = live(&mut slots, &meta, 9 * MIB, 4096);
        give(&mut slots, four.address, 1);
        give(&mut slots, nine.address, 2);
        assert_eq!(slots.totals().free_dirty(), 13 * MIB);
        assert_eq!(live(&mut slots, &meta, 3 * MIB, 4096).address, four.address);
        assert_eq!(live(&mut slots, &meta, 20 * MIB, 4096).address, nine.address, "warm, and with room to grow");
        let fresh = live(&mut slots, &meta, 3 * MIB, 4096);
        assert!(fresh.address != four.address && fresh.address != nine.address);
    }

    #[test]
    fn a_slot_that_is_being_trimmed_is_the_programs_still() {
        let (mut slots, meta) = slots();
        let slot = live(&mut slots, &meta, 9 * MIB, 4096);
        give(&mut slots, slot.address, 1);
        let slot = live(&mut slots, &meta, 3 * MIB, 4096);
        for given_back in [false, true] {
            slots.settle_slot(Slot { mapped: 9 * MIB, dirty: 9 * MIB, ..slot });
            assert_eq!(slots.claim_tail(2 * MIB, false).map(|slot| slot.address), Some(slot.address));
            assert_eq!(slots.claim_tail(2 * MIB, false), None, "by one thread at a time");
            assert_eq!(slots.claim_live(slot.address), Ok(None));
            slots.check();
            if given_back {
                assert_eq!(slots.leave_trimmed(slot.address, 2), Ok(3 * MIB));
                assert_eq!(slots.claim_live(slot.address), Err(NotLive::Free), "once");
                assert_eq!(slots.claim_retained(9), None, "not before it is trimmed");
            }
            slots.settle_tail(slot.address, 3 * MIB);
            slots.check();
            assert_eq!(
                slots.totals(),
                SlotTotals { mapped: 3 * MIB, dirty: 3 * MIB, live: if given_back { 0 } else { 3 * MIB } }
            );
        }
        assert_eq!(slots.claim_retained(9).map(|slot| slot.address), Some(slot.address));
    }

    #[test]
    fn misuse_is_told_apart() {
        let (mut slots, meta) = slots();
        let slot = live(&mut slots, &meta, 4 * MIB, 4096);
        assert_eq!(slots.claim_live(slot.address - 1), Err(NotLive::Unknown));
        assert_eq!(slots.claim_live(slot.address + 4096), Err(NotLive::Inside));
        give(&mut slots, slot.address, 1);
        assert_eq!(slots.claim_live(slot.address), Err(NotLive::Free));
    }

    #[test]
    fn the_oldest_goes_first() {
        let (mut slots, meta) = slots();
        let first = live(&mut slots, &meta, 4 * MIB, 4096);
        let second = live(&mut slots, &meta, 4 * MIB, 4096);
        give(&mut slots, second.address, 7);
        give(&mut slots, first.address, 9);
        assert_eq!(slots.claim_retained(6), None);
        assert_eq!(slots.claim_retained(9).map(|slot| slot.address), Some(second.address));
        assert_eq!(slots.claim_retained(8), None);
        assert_eq!(slots.claim_retained(9).map(|slot| slot.address), Some(first.address));
    }

    #[test]
    fn mappings_outside_the_window_come_and_go_in_any_order() {
        let (mut slots, meta) = slots();
        let inside = live(&mut slots, &meta, 4 * MIB, 1 << 30);
        assert_eq!(inside.address % (1 << 30), 0);
        for address in [BASE / 2, 2 * BASE, BASE / 4] {
            assert!(slots.adopt(address, 3 * MIB, &meta));
            slots.check();
        }
        slots.forget(BASE / 2);
        slots.check();
        assert_eq!(slots.claim_live(BASE / 2), Err(NotLive::Unknown));
        assert_eq!(slots.claim_live(inside.address).map(|slot| slot.map(|slot| slot.address)), Ok(Some(inside.address)));
        assert_eq!(slots.totals().mapped, 10 * MIB);
    }

    #[test]
    fn address_space_can_run_out() {
        let mut slots = Slots::new();
        let meta = Meta::new();
        assert_eq!(slots.claim(4 * MIB, 4096, &meta), None, "no range yet");
        slots.settle(BASE, BASE + 16 * MIB);
        assert!(slots.claim(4 * MIB, 4096, &meta).is_some());
        assert!(slots.claim(8 * MIB, 4096, &meta).is_some());
        assert_eq!(slots.claim(8 * MIB, 4096, &meta), None);
        assert_eq!(slots.claim(usize::MAX / 2 + 2, 4096, &meta), None);
    }
}
