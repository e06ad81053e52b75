//! Floor 7. What happens when an array of a thread is dry or full.
//!
//! Split, dry: exchange the arrays if enough was freed meanwhile, else take a whole magazine from the depot, else fill one from central.
//! Split, full: exchange if the alloc array is nearly dry too, else leave the full magazine in the depot.
//!
//! Every entry also doubles what the thread means to have of the class (its *depth*), as far as its budget goes, so that a class in
//! use is soon here rarely and one that is not stays small.

use core::ptr::{self, NonNull};

use crate::atomic::Ordering;
use crate::config::{EXCHANGE_CHECK_PERIOD, MAGAZINE_BLOCKS_MIN, STACK_ARMED, STACK_ARMED_CHECKED, STACK_CHECK_BLOCKS};
use crate::counters::{Counters, Event};
use crate::histogram::Histogram;
use crate::magazine::{Magazine, entries_of};
use crate::probes;
use crate::requests::Requests;
use crate::size_class::{Shape, SizeClass};
use crate::slot::{ARMED_ONE, ColdSlot, SplitSlot, StackBlock, StackSlot, blocks_of};
use crate::supply::{Supply, depth_max, depth_min};

/// What the record decides for its slots: how far they may grow, and when an exchange is checked.
pub(crate) trait Household {
    /// May the thread hold `bytes` more of this class? If so it counts as held.
    fn may_hold(&self, class: SizeClass, bytes: usize, supply: &Supply) -> bool;
    /// It does hold `bytes` more, whether it may or not.
    fn holds(&self, bytes: usize);
    /// Has the thread earned as much as anybody may?
    fn is_rich(&self) -> bool;
    /// The thread has allocated so many more bytes, and earns.
    fn earn(&self, bytes: usize);
    /// Where the thread's doings are counted.
    fn counters(&self) -> &Counters;
    /// Where it is counted how long its refills take.
    fn refills(&self) -> &Histogram;
    /// The number of the present slow entry.
    fn entry(&self) -> u32;
    /// How many allocations of a class go by until one is to be sampled, that one included; 0: none is.
    fn draw(&self, class: SizeClass) -> u32;
}

/// What a slow entry for an allocation found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refilled {
    /// There are blocks now: pop again.
    Ready,
    /// This allocation is to be sampled. The block that it would have had is taken out of the cache, and counted: it keeps the place of the sampled one in its
    /// span. `None`: there is none.
    Sample(Option<NonNull<u8>>),
    /// No memory.
    OutOfMemory,
}

// Relaxed in the whole file: the thread that owns the record is the only writer (but for what is said at I-recall), and readers are warned by
// `ColdSlot::begin_change`. The hot counters are stored with Release all the same, for readers that see no change going on.

/// Doubles the depth of a class if the budget allows.
#[inline(always)]
fn deepen(cold: &ColdSlot, class: SizeClass, household: &impl Household, supply: &Supply) {
    cold.touched.store(household.entry(), Ordering::Relaxed);
    let depth = usize::from(cold.depth.load(Ordering::Relaxed));
    if depth == 0 {
        // A few to begin with. Who has not earned much and has used it up gets one, or nothing would ever work.
        let first = depth_min(class);
        let first = if household.may_hold(class, first * class.bytes(), supply) {
            first
        } else {
            let first = if household.is_rich() { first } else { 1 };
            household.holds(first * class.bytes());
            first
        };
        cold.depth.store(first as u16, Ordering::Relaxed);
    } else if depth < depth_min(class) && household.is_rich() {
        household.holds((depth_min(class) - depth) * class.bytes());
        cold.depth.store(depth_min(class) as u16, Ordering::Relaxed);
    } else if depth < depth_max(class) && household.may_hold(class, depth * class.bytes(), supply) {
        cold.depth.store(2 * depth as u16, Ordering::Relaxed);
    } else if class.shape() == Shape::Split && !supply.checks_every_exchange() {
        // As deep as it gets for now: the next turns need not look at budgets.
        cold.quick_turns.store(EXCHANGE_CHECK_PERIOD as u16 - 1, Ordering::Relaxed);
    }
}

/// What a class is booked with in the thread's budget: its depth. Two arrays hold between a quarter and five quarters of that, and up to twice
/// as much for the moment before a slow entry.
pub(crate) fn held_bytes(cold: &ColdSlot, class: SizeClass) -> usize {
    usize::from(cold.depth.load(Ordering::Relaxed)) * class.bytes()
}

// ---- split ---------------------------------------------------------------------------------------------------------

/// Allocations until one is to be sampled; drawn now, if the last one was.
#[inline]
fn until_sample(cold: &ColdSlot, class: SizeClass, household: &impl Household) -> usize {
    match cold.until_sample.load(Ordering::Relaxed) {
        0 => {
            let drawn = household.draw(class);
            cold.until_sample.store(drawn, Ordering::Relaxed);
            drawn as usize
        }
        armed => armed as usize,
    }
}

/// Makes `entries` entries at the bottom of an array available to the fast path, except those behind an allocation that is to be sampled.
fn arm(hot: &SplitSlot, cold: &ColdSlot, base: *mut *mut u8, entries: usize, class: SizeClass, household: &impl Household) {
    let until_sample = until_sample(cold, class, household);
    let open = match until_sample {
        0 => entries,
        nth => entries.min(nth - 1),
    };
    if until_sample != 0 {
        cold.until_sample.store((until_sample - open) as u32, Ordering::Relaxed);
    }
    let hidden = entries - open;
    cold.hidden.store(hidden as u16, Ordering::Relaxed);
    // SAFETY: the base is that of `entries` entries, and `hidden` is at most that.
    cold.set_alloc_side(hot, unsafe { base.add(hidden) }, open);
}

/// Takes back what the fast path did not use of the alloc array; says where the entries begin and how many there are.
fn disarm(hot: &SplitSlot, cold: &ColdSlot) -> (*mut *mut u8, usize) {
    let (end, open) = hot.alloc_side();
    let hidden = usize::from(cold.hidden.load(Ordering::Relaxed));
    let until_sample = cold.until_sample.load(Ordering::Relaxed);
    if until_sample != 0 {
        cold.until_sample.store(until_sample + open as u32, Ordering::Relaxed);
    }
    cold.hidden.store(0, Ordering::Relaxed);
    cold.set_alloc_side(hot, end, 0);
    // SAFETY: `arm` raised the end by `hidden`. A null one has nothing hidden.
    (unsafe { end.sub(hidden) }, hidden + open)
}

/// Makes a magazine the free array, with room for `room` more blocks below those that are in it.
fn open(hot: &SplitSlot, cold: &ColdSlot, magazine: Option<Magazine>, room: usize) {
    let (base, capacity) = magazine.as_ref().map_or((ptr::null_mut(), 0), |magazine| (magazine.entries(), magazine.capacity()));
    cold.free_capacity.store(capacity as u16, Ordering::Relaxed);
    cold.set_free_side(hot, base, room);
    cold.set_free_magazine(magazine);
}

/// Ends the free array: its magazine, if it has one, is the caller's, with the blocks that are in it.
fn close(hot: &SplitSlot, cold: &ColdSlot) -> Option<Magazine> {
    let (end, room) = hot.free_side();
    let capacity = usize::from(cold.free_capacity.load(Ordering::Relaxed));
    cold.free_capacity.store(0, Ordering::Relaxed);
    cold.set_free_side(hot, end, 0);
    let mut magazine = cold.take_free_magazine()?;
    magazine.set_range(room, capacity - room);
    Some(magazine)
}

/// Makes a magazine with blocks the alloc array.
fn load(hot: &SplitSlot, cold: &ColdSlot, magazine: Magazine, class: SizeClass, household: &impl Household) {
    // SAFETY: `first` is within the entries.
    let base = unsafe { magazine.entries().add(magazine.first()) };
    let count = magazine.count();
    cold.set_alloc_magazine(Some(magazine));
    arm(hot, cold, base, count, class, household);
}

/// A magazine without blocks of the wanted capacity: `old` if that has it, else another one. If there is no memory, `old`.
fn resized(old: Option<Magazine>, depth: usize, supply: &Supply) -> Option<Magazine> {
    let capacity = depth.max(MAGAZINE_BLOCKS_MIN);
    match old {
        Some(old) if old.capacity() == capacity => Some(old),
        None => supply.empty_magazine(capacity),
        Some(old) => match supply.empty_magazine(capacity) {
            Some(new) => {
                supply.spare_magazine(old);
                Some(new)
            }
            None => Some(old),
        },
    }
}

/// Has the `allocations`-th allocation from now on sampled; 0: that is drawn anew.
pub(crate) fn sample_after_split(
    hot: &SplitSlot,
    cold: &ColdSlot,
    allocations: u32,
    class: SizeClass,
    household: &impl Household,
) {
    cold.change_split(hot, |cold| {
        let (base, entries) = disarm(hot, cold);
        cold.until_sample.store(allocations, Ordering::Relaxed);
        arm(hot, cold, base, entries, class, household);
    });
}

/// The two arrays change places, where that is all there is to do: both are as long as they are going to be, enough was freed for the
/// one, and what is left in the other is little. No call, no lock, no system. `false`: nothing was done.
///
/// Every so many turns this refuses, and the whole slow path looks at budgets and checks the blocks.
#[inline(always)]
pub(crate) fn turn_quickly(hot: &SplitSlot, cold: &ColdSlot, class: SizeClass, household: &impl Household) -> bool {
    let quick_turns = cold.quick_turns.load(Ordering::Relaxed);
    let depth = usize::from(cold.depth.load(Ordering::Relaxed));
    let (alloc_end, left) = hot.alloc_side();
    let (free_end, room) = hot.free_side();
    let as_long = usize::from(cold.alloc_capacity.load(Ordering::Relaxed)) == depth
        && usize::from(cold.free_capacity.load(Ordering::Relaxed)) == depth;
    if quick_turns == 0 || !as_long || left > depth / 4 || room > depth - depth / 4 {
        return false;
    }
    let freed = depth - room;
    // What is left of the one had been armed, and what is in the other will be, but for what comes behind an allocation that is to be sampled.
    let until_sample = cold.until_sample.load(Ordering::Relaxed) as usize;
    let mut open = freed;
    if until_sample != 0 {
        if cold.hidden.load(Ordering::Relaxed) != 0 {
            return false;
        }
        let until_sample = until_sample + left;
        open = freed.min(until_sample - 1);
        cold.until_sample.store((until_sample - open) as u32, Ordering::Relaxed);
    }
    cold.quick_turns.store(quick_turns - 1, Ordering::Relaxed);
    household.counters().count_alone(Event::Exchange);
    household.earn(freed * class.bytes());
    cold.change_split(hot, |cold| {
        let (dry, full) = (cold.alloc_magazine.load(Ordering::Relaxed), cold.free_magazine.load(Ordering::Relaxed));
        cold.alloc_magazine.store(full, Ordering::Relaxed);
        cold.free_magazine.store(dry, Ordering::Relaxed);
        // What is left of the one lies at the end of the other, as if it had just been freed, but is not counted so. From above: the
        // two places may overlap, and the new one is never below the old one.
        let new_room = depth - left;
        for entry in (0..left).rev() {
            // SAFETY: so many entries are left.
            let from = unsafe { alloc_end.add(entry) };
            // SAFETY: `left` is at most a quarter of the entries, so this is within them.
            let to = unsafe { entries_of(dry).add(new_room + entry) };
            // SAFETY: as above.
            let block = unsafe { from.read() };
            // SAFETY: as above.
            unsafe { to.write(block) };
        }
        cold.hidden.store((freed - open) as u16, Ordering::Relaxed);
        // SAFETY: behind the room come the entries that were freed.
        cold.set_alloc_side(hot, unsafe { free_end.add(room + freed - open) }, open);
        cold.set_free_side(hot, entries_of(dry), new_room);
    });
    true
}

/// The alloc array is dry.
#[inline(never)]
pub(crate) fn refill_split(
    hot: &SplitSlot,
    cold: &ColdSlot,
    class: SizeClass,
    household: &impl Household,
    supply: &Supply,
) -> Refilled {
    if cold.hidden.load(Ordering::Relaxed) > 0 {
        // The fast path stopped in front of the block that is to be sampled. Uncover the rest.
        let stand_in = cold.change_split(hot, |cold| {
            let (base, entries) = disarm(hot, cold);
            cold.until_sample.store(0, Ordering::Relaxed);
            let taken = usize::from(class.is_small());
            // SAFETY: something was hidden, so there is an entry.
            let top = unsafe { base.add(entries - 1) };
            // SAFETY: as above; the slow path wrote it.
            let stand_in = (taken > 0).then(|| unsafe { top.read() });
            arm(hot, cold, base, entries - taken, class, household);
            cold.allocated_split(taken);
            stand_in
        });
        return Refilled::Sample(stand_in.and_then(NonNull::new));
    }
    let capacity = usize::from(cold.free_capacity.load(Ordering::Relaxed));
    let freed = capacity - hot.free_side().1;
    let depth = usize::from(cold.depth.load(Ordering::Relaxed));
    deepen(cold, class, household, supply);
    if freed > 0 && freed >= depth / 2 {
        exchange(hot, cold, class, household, supply);
    } else if !replenish(hot, cold, class, household, supply) {
        if freed == 0 {
            return Refilled::OutOfMemory;
        }
        exchange(hot, cold, class, household, supply);
    }
    // Even now the first of the new blocks may be the one to be sampled; then the fast path comes here again at once.
    Refilled::Ready
}

/// Is this exchange one of those that are checked? One that follows a whole period of quick ones is, and all where that is chosen.
fn checks_now(cold: &ColdSlot, supply: &Supply) -> bool {
    let settled = cold.quick_turns.load(Ordering::Relaxed) == EXCHANGE_CHECK_PERIOD as u16 - 1;
    settled || supply.checks_every_exchange()
}

/// The free array, with what is in it, becomes the alloc array.
fn load_freed(hot: &SplitSlot, cold: &ColdSlot, class: SizeClass, household: &impl Household, supply: &Supply) {
    let Some(freed) = close(hot, cold) else { return };
    if checks_now(cold, supply) {
        supply.check_blocks(class, freed.blocks());
    }
    household.counters().count_alone(Event::Exchange);
    household.earn(freed.count() * class.bytes());
    load(hot, cold, freed, class, household);
}

/// The free array becomes the alloc array, and the other way round.
fn exchange(hot: &SplitSlot, cold: &ColdSlot, class: SizeClass, household: &impl Household, supply: &Supply) {
    cold.change_split(hot, |cold| {
        let dry = cold.take_alloc_magazine();
        load_freed(hot, cold, class, household, supply);
        let room = resized(dry, usize::from(cold.depth.load(Ordering::Relaxed)), supply);
        let capacity = room.as_ref().map_or(0, Magazine::capacity);
        open(hot, cold, room, capacity);
    });
}

/// Fills the dry alloc array from the shared rooms, leaving the free array as it is. `false`: no memory.
fn replenish(hot: &SplitSlot, cold: &ColdSlot, class: SizeClass, household: &impl Household, supply: &Supply) -> bool {
    if let Some(full) = supply.take_magazine(class, household.counters()) {
        cold.change_split(hot, |cold| {
            household.earn(full.count() * class.bytes());
            cold.gained(full.count());
            if let Some(dry) = cold.take_alloc_magazine() {
                supply.spare_magazine(dry);
            }
            load(hot, cold, full, class, household);
        });
        return true;
    }
    cold.change_split(hot, |cold| {
        let depth = usize::from(cold.depth.load(Ordering::Relaxed));
        let Some(mut magazine) = resized(cold.take_alloc_magazine(), depth, supply) else { return false };
        // Slow start: as many as there may be by now. Central may give fewer.
        let wanted = depth.min(magazine.capacity());
        let wanted = wanted - Requests::jitter(household.entry(), wanted);
        let got = supply.refill(class, &mut magazine.room()[..wanted], household.counters(), household.refills());
        magazine.set_range(wanted - got, got);
        household.earn(got * class.bytes());
        cold.gained(got);
        load(hot, cold, magazine, class, household);
        got > 0
    })
}

/// The free array is full, or there is none yet. Afterwards there is room for at least one block, or `false`: no memory for that.
#[inline(never)]
pub(crate) fn make_room_split(
    hot: &SplitSlot,
    cold: &ColdSlot,
    class: SizeClass,
    household: &impl Household,
    supply: &Supply,
) -> bool {
    deepen(cold, class, household, supply);
    let depth = usize::from(cold.depth.load(Ordering::Relaxed));
    let capacity = usize::from(cold.free_capacity.load(Ordering::Relaxed));
    let left = hot.alloc_side().1 + usize::from(cold.hidden.load(Ordering::Relaxed));
    let wanted = depth.max(capacity).max(MAGAZINE_BLOCKS_MIN);
    let turns = capacity > 0 && left <= capacity / 4;
    let again = turns && usize::from(cold.alloc_capacity.load(Ordering::Relaxed)) == wanted;
    let fresh = if again { None } else { supply.empty_magazine(wanted) };
    if fresh.is_none() && !again {
        return false;
    }
    cold.change_split(hot, |cold| {
        let mut kept = 0;
        let mut room = fresh;
        if turns {
            // Both sides are at an end: they change places, and what was left on the one lies at the end of the other. That keeps a
            // steady program away from the depot, whichever side ends first.
            let (base, entries) = disarm(hot, cold);
            kept = entries;
            let dry = cold.take_alloc_magazine();
            let spare = match room {
                Some(_) => dry,
                None => {
                    room = dry;
                    None
                }
            };
            if let Some(room) = &room {
                let place = room.entries().wrapping_add(room.capacity() - kept);
                // SAFETY: `disarm` says that so many entries are there, and they are few enough for the place; both may be in one magazine.
                unsafe { ptr::copy(base, place, kept) };
            }
            if let Some(spare) = spare {
                supply.spare_magazine(spare);
            }
            load_freed(hot, cold, class, household, supply);
        } else if let Some(full) = close(hot, cold) {
            if capacity < depth {
                // The array gets longer, with what is in it.
                kept = full.count();
                if let Some(room) = &mut room {
                    let capacity = room.capacity();
                    room.room()[capacity - kept..].copy_from_slice(full.blocks());
                }
                supply.spare_magazine(full);
            } else {
                cold.lost(full.count());
                supply.give_magazine(class, full, household.counters());
            }
        }
        let capacity = room.as_ref().map_or(0, Magazine::capacity);
        open(hot, cold, room, capacity - kept);
        true
    })
}

/// Gives everything of a class to central.
pub(crate) fn drain_split(hot: &SplitSlot, cold: &ColdSlot, class: SizeClass, supply: &Supply) {
    cold.change_split(hot, |cold| {
        let (base, entries) = disarm(hot, cold);
        if let Some(magazine) = cold.take_alloc_magazine() {
            if entries > 0 {
                // SAFETY: `disarm` says that so many entries are there.
                supply.flush_blocks(class, unsafe { core::slice::from_raw_parts(base, entries) });
                cold.lost(entries);
            }
            supply.spare_magazine(magazine);
        }
        if let Some(freed) = close(hot, cold) {
            if freed.count() > 0 {
                supply.flush_blocks(class, freed.blocks());
                cold.lost(freed.count());
            }
            supply.spare_magazine(freed);
        }
        cold.depth.store(0, Ordering::Relaxed);
        cold.quick_turns.store(0, Ordering::Relaxed);
    });
}

/// Gives everything of a class to central but what the thread it belongs to may be about to take; that thread sleeps, and does the rest in
/// [`settle_split`] when it is back.
pub(crate) fn recall_split(hot: &SplitSlot, cold: &ColdSlot, class: SizeClass, supply: &Supply) {
    cold.recall_split(hot, |blocks| supply.flush_blocks(class, blocks));
}

/// The thread is back: the slot is as good as new afterwards.
pub(crate) fn settle_split(hot: &SplitSlot, cold: &ColdSlot, class: SizeClass, supply: &Supply) {
    let left = cold.settle_split(hot, |cold| {
        disarm(hot, cold);
        if let Some(magazine) = cold.take_alloc_magazine() {
            supply.spare_magazine(magazine);
        }
        if let Some(magazine) = close(hot, cold) {
            supply.spare_magazine(magazine);
        }
        // What was armed and taken away is not made up for: chance has no memory, so the next one is drawn anew.
        cold.until_sample.store(0, Ordering::Relaxed);
        cold.depth.store(0, Ordering::Relaxed);
        cold.quick_turns.store(0, Ordering::Relaxed);
    });
    give_left(class, left, supply);
}

fn give_left(class: SizeClass, left: [Option<NonNull<u8>>; 2], supply: &Supply) {
    for block in left.into_iter().flatten() {
        supply.flush_blocks(class, &[block.as_ptr()]);
    }
}

// ---- stack ---------------------------------------------------------------------------------------------------------

/// Bytes of a cache line.
const LINE_BYTES: usize = 64;

/// The stack is dry, or its armed allocations are used up.
#[inline(never)]
pub(crate) fn refill_stack(
    hot: &StackSlot,
    cold: &ColdSlot,
    class: SizeClass,
    household: &impl Household,
    supply: &Supply,
) -> Refilled {
    let state = hot.state.load(Ordering::Relaxed);
    if state < ARMED_ONE {
        let samples = cold.until_sample.load(Ordering::Relaxed) == 1;
        if samples {
            cold.until_sample.store(0, Ordering::Relaxed);
        } else {
            turn_stack(hot, cold, class, household, supply);
        }
        let stand_in = cold.change_stack(hot, |cold| {
            arm_stack(hot, cold, class, household, supply);
            let newest = stack_blocks(hot).last().filter(|_| samples && class.is_small())?;
            cold.allocated_stack(hot);
            Some(StackBlock::from_entry(*newest).block)
        });
        if samples {
            return Refilled::Sample(stand_in);
        }
    }
    if blocks_of(state) > 0 {
        return Refilled::Ready;
    }
    deepen(cold, class, household, supply);
    let got = cold.change_stack(hot, |cold| {
        let depth = usize::from(cold.depth.load(Ordering::Relaxed));
        let Some(mut magazine) = resized(cold.take_alloc_magazine(), depth, supply) else { return 0 };
        let got = match supply.take_magazine(class, household.counters()) {
            Some(full) => {
                let got = full.count().min(magazine.capacity());
                let (rest, taken) = full.blocks().split_at(full.count() - got);
                magazine.room()[..got].copy_from_slice(taken);
                if !rest.is_empty() {
                    household.counters().count_alone(Event::Flush);
                    probes::flush(class.bytes(), rest.len());
                    supply.flush_blocks(class, rest);
                }
                supply.spare_magazine(full);
                got
            }
            None => {
                // Half of what it may hold, so that the next free finds room; but a cache line at least, or two threads that are new write to the same.
                let wanted = (depth / 2).max((LINE_BYTES / class.bytes()).max(1)).min(magazine.capacity());
                let wanted = wanted - Requests::jitter(household.entry(), wanted);
                let room = &mut magazine.room()[..wanted];
                let got = supply.refill(class, room, household.counters(), household.refills());
                room.copy_within(wanted - got.., 0);
                got
            }
        };
        put_stack(hot, cold, magazine, got);
        cold.gained(got);
        got
    });
    if got > 0 { Refilled::Ready } else { Refilled::OutOfMemory }
}

/// What an exchange is for split magazines: the moment at which the blocks are looked at, every so many times. A stack counts its own,
/// because all of them come here.
fn turn_stack(hot: &StackSlot, cold: &ColdSlot, class: SizeClass, household: &impl Household, supply: &Supply) {
    household.counters().count_alone(Event::Exchange);
    let turns = cold.quick_turns.load(Ordering::Relaxed).wrapping_add(1);
    cold.quick_turns.store(turns, Ordering::Relaxed);
    if u32::from(turns).is_multiple_of(EXCHANGE_CHECK_PERIOD) || supply.checks_every_exchange() {
        let blocks = stack_blocks(hot);
        let most = if supply.checks_every_exchange() { 2 * STACK_ARMED_CHECKED } else { STACK_CHECK_BLOCKS };
        let newest = most.min(blocks.len());
        supply.check_blocks(class, &blocks[blocks.len() - newest..]);
    }
}

/// The blocks a stack holds.
fn stack_blocks(hot: &StackSlot) -> &[*mut u8] {
    let count = blocks_of(hot.state.load(Ordering::Relaxed)) as usize;
    if count == 0 {
        return &[];
    }
    // SAFETY: entries below the count exist, and the calling thread owns them.
    unsafe { core::slice::from_raw_parts(hot.base.load(Ordering::Relaxed), count) }
}

/// Lets the fast path make some more allocations.
fn arm_stack(hot: &StackSlot, cold: &ColdSlot, class: SizeClass, household: &impl Household, supply: &Supply) {
    let period = if supply.checks_every_exchange() { depth_max(class).min(STACK_ARMED_CHECKED) } else { STACK_ARMED };
    let until_sample = until_sample(cold, class, household);
    let armed = match until_sample {
        0 => period,
        nth => period.min(nth - 1),
    };
    if until_sample != 0 {
        cold.until_sample.store((until_sample - armed) as u32, Ordering::Relaxed);
    }
    household.earn(armed * class.bytes());
    cold.set_stack(hot, armed as u64, blocks_of(hot.state.load(Ordering::Relaxed)));
}

/// As [`sample_after_split`].
pub(crate) fn sample_after_stack(hot: &StackSlot, cold: &ColdSlot, allocations: u32) {
    cold.change_stack(hot, |cold| {
        // What was armed is taken back; the next allocation comes to the slow path, which arms anew.
        cold.set_stack(hot, 0, blocks_of(hot.state.load(Ordering::Relaxed)));
        cold.until_sample.store(allocations, Ordering::Relaxed);
    });
}

/// Makes a magazine with `count` blocks the stack.
fn put_stack(hot: &StackSlot, cold: &ColdSlot, magazine: Magazine, count: usize) {
    hot.base.store(magazine.entries(), Ordering::Relaxed);
    // The depth rules, not the magazine, which has at least a few entries.
    let capacity = magazine.capacity().min(usize::from(cold.depth.load(Ordering::Relaxed)).max(count));
    hot.capacity.store(capacity as u64, Ordering::Relaxed);
    cold.set_stack(hot, hot.state.load(Ordering::Relaxed) / ARMED_ONE, count as u64);
    cold.set_alloc_magazine(Some(magazine));
}

/// The stack is full, or there is none yet: makes it longer, or gives its older half away. `false`: no memory for that.
#[inline(never)]
pub(crate) fn make_room_stack(
    hot: &StackSlot,
    cold: &ColdSlot,
    class: SizeClass,
    household: &impl Household,
    supply: &Supply,
) -> bool {
    deepen(cold, class, household, supply);
    turn_stack(hot, cold, class, household, supply);
    let depth = usize::from(cold.depth.load(Ordering::Relaxed));
    let count = stack_blocks(hot).len();
    cold.change_stack(hot, |cold| {
        if depth > count {
            let Some(mut longer) = supply.empty_magazine(depth.max(MAGAZINE_BLOCKS_MIN)) else { return false };
            longer.room()[..count].copy_from_slice(stack_blocks(hot));
            if let Some(old) = cold.take_alloc_magazine() {
                supply.spare_magazine(old);
            }
            put_stack(hot, cold, longer, count);
            return true;
        }
        // The older half lies at the bottom. With what came from a depot there may be more than there should be.
        let away = count.div_ceil(2).max(count + 1 - depth);
        let capacity = away.next_power_of_two().max(MAGAZINE_BLOCKS_MIN);
        let Some(mut magazine) = supply.empty_magazine(capacity) else { return false };
        let Some(mut stack) = cold.take_alloc_magazine() else { return false };
        magazine.room()[..away].copy_from_slice(&stack_blocks(hot)[..away]);
        magazine.set_range(0, away);
        stack.room().copy_within(away..count, 0);
        put_stack(hot, cold, stack, count - away);
        cold.lost(away);
        supply.give_magazine(class, magazine, household.counters());
        true
    })
}

/// As [`drain_split`].
pub(crate) fn drain_stack(hot: &StackSlot, cold: &ColdSlot, class: SizeClass, supply: &Supply) {
    cold.change_stack(hot, |cold| {
        let blocks = stack_blocks(hot);
        if !blocks.is_empty() {
            supply.flush_blocks(class, blocks);
            cold.lost(blocks.len());
        }
        forget_stack(hot, cold, supply);
    });
}

/// A stack without blocks becomes what it was at first. The slot is being changed.
fn forget_stack(hot: &StackSlot, cold: &ColdSlot, supply: &Supply) {
    cold.set_stack(hot, hot.state.load(Ordering::Relaxed) / ARMED_ONE, 0);
    hot.capacity.store(0, Ordering::Relaxed);
    hot.base.store(ptr::null_mut(), Ordering::Relaxed);
    if let Some(stack) = cold.take_alloc_magazine() {
        supply.spare_magazine(stack);
    }
    cold.depth.store(0, Ordering::Relaxed);
}

/// As [`recall_split`].
pub(crate) fn recall_stack(hot: &StackSlot, cold: &ColdSlot, class: SizeClass, supply: &Supply) {
    cold.recall_stack(hot, |blocks| supply.flush_blocks(class, blocks));
}

/// As [`settle_split`].
pub(crate) fn settle_stack(hot: &StackSlot, cold: &ColdSlot, class: SizeClass, supply: &Supply) {
    let left = cold.settle_stack(hot, |cold| forget_stack(hot, cold, supply));
    give_left(class, left, supply);
}
