//! Floor 7. What happens when an array of a thread is dry or full.
//!
//! Split, dry: exchange the arrays if enough was freed meanwhile, else take a whole magazine from the depot, else fill one from central.
//! Split, full: exchange if the alloc array is nearly dry too, else leave the full magazine in the depot.
//!
//! Every entry also doubles what the thread means to have of the class (its *depth*), as far as its budget goes, so that a class in
//! use is soon here rarely and one that is not stays small.

use core::ptr;

use crate::atomic::Ordering;
use crate::config::{EXCHANGE_CHECK_PERIOD, MAGAZINE_BLOCKS_MIN, STACK_ARMED};
use crate::magazine::{Magazine, entries_of};
use crate::size_class::{Shape, SizeClass};
use crate::slot::{ARMED_ONE, ColdSlot, SplitSlot, StackSlot, blocks_of};
use crate::supply::{Supply, depth_max, depth_min};

/// What the record decides for its slots: how far they may grow, and when an exchange is checked.
pub(crate) trait Household {
    /// May the thread hold `bytes` more of this class? If so it counts as held.
    fn may_hold(&self, class: SizeClass, bytes: usize, supply: &Supply) -> bool;
    /// It does hold `bytes` more, whether it may or not.
    fn holds(&self, bytes: usize);
    /// The thread has allocated so many more bytes, and earns.
    fn earn(&self, bytes: usize);
    /// Counts an exchange.
    fn count_exchange(&self);
    /// The number of the present slow entry.
    fn entry(&self) -> u32;
}

/// What a slow entry for an allocation found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refilled {
    /// There are blocks now: pop again.
    Ready,
    /// This allocation is to be sampled.
    Sample,
    /// No memory.
    OutOfMemory,
}

// Relaxed in the whole file: the thread that owns the record is the only writer, and readers are warned by `ColdSlot::change`. The hot
// counters are stored with Release all the same, for readers that see no change going on.

/// Doubles the depth of a class if the budget allows. Both sides may come to hold as many blocks.
fn deepen(cold: &ColdSlot, class: SizeClass, household: &impl Household, supply: &Supply) {
    cold.touched.store(household.entry(), Ordering::Relaxed);
    let depth = usize::from(cold.depth.load(Ordering::Relaxed));
    let sides = if class.shape() == Shape::Split { 2 } else { 1 };
    if depth == 0 {
        // The first few blocks are always granted, or nothing would ever work.
        let first = depth_min(class);
        household.holds(sides * first * class.bytes());
        cold.depth.store(first as u16, Ordering::Relaxed);
    } else if depth < depth_max(class) && household.may_hold(class, sides * depth * class.bytes(), supply) {
        cold.depth.store(2 * depth as u16, Ordering::Relaxed);
    } else if class.shape() == Shape::Split && !supply.checks_every_exchange() {
        // As deep as it gets for now: the next turns need not look at budgets.
        cold.quick_turns.store(EXCHANGE_CHECK_PERIOD as u16 - 1, Ordering::Relaxed);
    }
}

/// What a class may hold by its depth. What [`deepen`] told the household.
pub(crate) fn held_bytes(cold: &ColdSlot, class: SizeClass) -> usize {
    let sides = if class.shape() == Shape::Split { 2 } else { 1 };
    usize::from(cold.depth.load(Ordering::Relaxed)) * sides * class.bytes()
}

// ---- split ---------------------------------------------------------------------------------------------------------

/// Makes `n` entries at the bottom of an array available to the fast path, except those behind an allocation that is to be sampled.
fn arm(hot: &SplitSlot, cold: &ColdSlot, base: *mut *mut u8, entries: usize) {
    let until_sample = cold.until_sample.load(Ordering::Relaxed) as usize;
    let open = match until_sample {
        0 => entries,
        nth => entries.min(nth - 1),
    };
    if until_sample != 0 {
        cold.until_sample.store((until_sample - open) as u32, Ordering::Relaxed);
    }
    let hidden = entries - open;
    cold.hidden.store(hidden as u16, Ordering::Relaxed);
    cold.armed.store(cold.armed.load(Ordering::Relaxed) + open as u64, Ordering::Relaxed);
    // SAFETY: the base is that of `entries` entries, and `hidden` is at most that.
    let raised = unsafe { base.add(hidden) };
    hot.alloc_base.store(raised, Ordering::Relaxed);
    hot.alloc_left.store(open, Ordering::Release);
}

/// Has the `allocations`-th allocation from now on sampled; 0: none.
pub(crate) fn sample_after_split(hot: &SplitSlot, cold: &ColdSlot, allocations: u32) {
    cold.change(|cold| {
        let (base, entries) = disarm(hot, cold);
        cold.until_sample.store(allocations, Ordering::Relaxed);
        arm(hot, cold, base, entries);
    });
}

/// Takes back what the fast path did not use of the alloc array; says where the entries begin and how many there are.
fn disarm(hot: &SplitSlot, cold: &ColdSlot) -> (*mut *mut u8, usize) {
    let open = hot.alloc_left.load(Ordering::Relaxed);
    let hidden = usize::from(cold.hidden.load(Ordering::Relaxed));
    let until_sample = cold.until_sample.load(Ordering::Relaxed);
    if until_sample != 0 {
        cold.until_sample.store(until_sample + open as u32, Ordering::Relaxed);
    }
    cold.armed.store(cold.armed.load(Ordering::Relaxed) - open as u64, Ordering::Relaxed);
    cold.hidden.store(0, Ordering::Relaxed);
    hot.alloc_left.store(0, Ordering::Release);
    let raised = hot.alloc_base.load(Ordering::Relaxed);
    // SAFETY: `arm` raised the base by `hidden`. A null base has nothing hidden.
    let base = unsafe { raised.sub(hidden) };
    (base, hidden + open)
}

/// Opens a free array: room for `room` more blocks below `capacity − room` that are there.
fn open(hot: &SplitSlot, cold: &ColdSlot, magazine: Option<Magazine>, room: usize) {
    let (base, capacity) = magazine.as_ref().map_or((ptr::null_mut(), 0), |magazine| (magazine.entries(), magazine.capacity()));
    cold.free_capacity.store(capacity as u16, Ordering::Relaxed);
    cold.supplied.store(cold.supplied.load(Ordering::Relaxed) + room as i64, Ordering::Relaxed);
    hot.free_base.store(base, Ordering::Relaxed);
    hot.free_room.store(room, Ordering::Release);
    cold.set_free_magazine(magazine);
}

/// Closes the free array: what is in it has been freed, what is left of its room never will be. Says where its blocks begin and how
/// many there are; the magazine, if there is one, is the caller's.
fn close(hot: &SplitSlot, cold: &ColdSlot) -> (Option<Magazine>, usize, usize) {
    let room = hot.free_room.load(Ordering::Relaxed);
    let capacity = usize::from(cold.free_capacity.load(Ordering::Relaxed));
    cold.supplied.store(cold.supplied.load(Ordering::Relaxed) - room as i64, Ordering::Relaxed);
    cold.free_capacity.store(0, Ordering::Relaxed);
    hot.free_room.store(0, Ordering::Release);
    (cold.take_free_magazine(), room, capacity - room)
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

/// The two arrays change places, where that is all there is to do: both are as long as they are going to be, enough was freed for the
/// one, and what is left in the other is little. No call, no lock, no system. `false`: nothing was done.
///
/// Every so many turns this refuses, and the whole slow path looks at budgets and checks the blocks.
#[inline(always)]
pub(crate) fn turn_quickly(hot: &SplitSlot, cold: &ColdSlot, class: SizeClass, household: &impl Household) -> bool {
    let quick_turns = cold.quick_turns.load(Ordering::Relaxed);
    let depth = usize::from(cold.depth.load(Ordering::Relaxed));
    let left = hot.alloc_left.load(Ordering::Relaxed);
    let room = hot.free_room.load(Ordering::Relaxed);
    let as_long = usize::from(cold.alloc_capacity.load(Ordering::Relaxed)) == depth
        && usize::from(cold.free_capacity.load(Ordering::Relaxed)) == depth;
    let samples = cold.until_sample.load(Ordering::Relaxed) != 0;
    if quick_turns == 0 || !as_long || samples || left > depth / 4 || room > depth / 2 {
        return false;
    }
    cold.quick_turns.store(quick_turns - 1, Ordering::Relaxed);
    household.count_exchange();
    let freed = depth - room;
    household.earn(freed * class.bytes());
    cold.change(|cold| {
        let (dry, full) = (cold.alloc_magazine.load(Ordering::Relaxed), cold.free_magazine.load(Ordering::Relaxed));
        cold.alloc_magazine.store(full, Ordering::Relaxed);
        cold.free_magazine.store(dry, Ordering::Relaxed);
        // What is left of the one lies at the end of the other, as if it had just been freed, but is not counted so.
        let old_base = hot.alloc_base.load(Ordering::Relaxed);
        let new_room = depth - left;
        for entry in 0..left {
            // SAFETY: entries below `alloc_left` exist.
            let from = unsafe { old_base.add(entry) };
            // SAFETY: `left` is at most a quarter of the entries, so this is within them, and behind all that is read here.
            let to = unsafe { entries_of(dry).add(new_room + entry) };
            // SAFETY: as above.
            let block = unsafe { from.read() };
            // SAFETY: as above.
            unsafe { to.write(block) };
        }
        let (armed, opened) = (cold.armed.load(Ordering::Relaxed), cold.supplied.load(Ordering::Relaxed));
        cold.armed.store(armed.wrapping_add(freed as u64).wrapping_sub(left as u64), Ordering::Relaxed);
        cold.supplied.store(opened - room as i64 + new_room as i64, Ordering::Relaxed);
        // SAFETY: entries from `free_room` on exist.
        let new_base = unsafe { hot.free_base.load(Ordering::Relaxed).add(room) };
        hot.alloc_base.store(new_base, Ordering::Relaxed);
        hot.alloc_left.store(freed, Ordering::Release);
        hot.free_base.store(entries_of(dry), Ordering::Relaxed);
        hot.free_room.store(new_room, Ordering::Release);
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
        cold.change(|cold| {
            let (base, entries) = disarm(hot, cold);
            cold.until_sample.store(0, Ordering::Relaxed);
            arm(hot, cold, base, entries);
        });
        return Refilled::Sample;
    }
    let capacity = usize::from(cold.free_capacity.load(Ordering::Relaxed));
    let freed = capacity - hot.free_room.load(Ordering::Relaxed);
    let depth = usize::from(cold.depth.load(Ordering::Relaxed));
    deepen(cold, class, household, supply);
    let enough = freed > 0 && freed >= depth / 2;
    if enough {
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

/// The free array becomes the alloc array, and the other way round.
fn exchange(hot: &SplitSlot, cold: &ColdSlot, class: SizeClass, household: &impl Household, supply: &Supply) {
    cold.change(|cold| {
        let (freed, first, count) = close(hot, cold);
        let dry = cold.take_alloc_magazine();
        if let Some(mut freed) = freed {
            freed.set_range(first, count);
            if checks_now(cold, supply) {
                supply.check_blocks(class, freed.blocks());
            }
            household.count_exchange();
            household.earn(count * class.bytes());
            // SAFETY: `first` is within the entries.
            let base = unsafe { freed.entries().add(first) };
            cold.set_alloc_magazine(Some(freed));
            arm(hot, cold, base, count);
        }
        let depth = usize::from(cold.depth.load(Ordering::Relaxed));
        let room = resized(dry, depth, supply);
        let capacity = room.as_ref().map_or(0, Magazine::capacity);
        open(hot, cold, room, capacity);
    });
}

/// Fills the dry alloc array from the shared rooms, leaving the free array as it is.
fn replenish(hot: &SplitSlot, cold: &ColdSlot, class: SizeClass, household: &impl Household, supply: &Supply) -> bool {
    if let Some(full) = supply.take_magazine(class) {
        cold.change(|cold| {
            household.earn(full.count() * class.bytes());
            let count = full.count();
            // SAFETY: `first` is within the entries.
            let base = unsafe { full.entries().add(full.first()) };
            if let Some(dry) = cold.take_alloc_magazine() {
                supply.spare_magazine(dry);
            }
            cold.set_alloc_magazine(Some(full));
            arm(hot, cold, base, count);
        });
        return true;
    }
    let depth = usize::from(cold.depth.load(Ordering::Relaxed));
    cold.change(|cold| {
        let Some(mut magazine) = resized(cold.take_alloc_magazine(), depth, supply) else { return false };
        // Slow start: as many as there are already. Central may give fewer.
        let wanted = depth.min(magazine.capacity());
        let room = &mut magazine.room()[..wanted];
        let got = supply.refill(class, room);
        household.earn(got * class.bytes());
        // SAFETY: `got` is at most `wanted`, which is within the entries.
        let base = unsafe { magazine.entries().add(wanted - got) };
        cold.set_alloc_magazine(Some(magazine));
        arm(hot, cold, base, got);
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
    let left = hot.alloc_left.load(Ordering::Relaxed) + usize::from(cold.hidden.load(Ordering::Relaxed));
    let capacity = usize::from(cold.free_capacity.load(Ordering::Relaxed));
    if capacity == 0 {
        cold.change(|cold| {
            let room = supply.empty_magazine(depth);
            let capacity = room.as_ref().map_or(0, Magazine::capacity);
            open(hot, cold, room, capacity);
            capacity > 0
        })
    } else if capacity < depth {
        // Replaced by a larger one, with what is in it.
        cold.change(|cold| {
            let Some(mut larger) = supply.empty_magazine(depth) else { return false };
            let (full, first, count) = close(hot, cold);
            let room = larger.capacity() - count;
            if let Some(mut full) = full {
                full.set_range(first, count);
                larger.room()[room..].copy_from_slice(full.blocks());
                full.set_range(0, 0);
                supply.spare_magazine(full);
            }
            open(hot, cold, Some(larger), room);
            true
        })
    } else if left <= capacity / 4 {
        // Both sides are at an end: exchange, and let what was left on the other side lie at the end of the new free array. That keeps
        // a steady program away from the depot, whichever side ends first.
        cold.change(|cold| turn_over(hot, cold, class, household, supply, left))
    } else {
        cold.change(|cold| {
            let Some(room) = supply.empty_magazine(depth.max(capacity)) else { return false };
            let (full, first, count) = close(hot, cold);
            if let Some(mut full) = full {
                full.set_range(first, count);
                supply.give_magazine(class, full);
            }
            let capacity = room.capacity();
            open(hot, cold, Some(room), capacity);
            true
        })
    }
}

/// Exchange with `left` blocks still in the alloc array.
fn turn_over(
    hot: &SplitSlot,
    cold: &ColdSlot,
    class: SizeClass,
    household: &impl Household,
    supply: &Supply,
    left: usize,
) -> bool {
    let wanted = usize::from(cold.depth.load(Ordering::Relaxed).max(cold.free_capacity.load(Ordering::Relaxed)));
    let Some(mut room) = supply.empty_magazine(wanted) else { return false };
    let (base, entries) = disarm(hot, cold);
    debug_assert_eq!(entries, left);
    let free_room = room.capacity() - left;
    if left > 0 {
        // SAFETY: `disarm` says that so many entries are there; the new magazine is another one.
        let old = unsafe { core::slice::from_raw_parts(base, left) };
        room.room()[free_room..].copy_from_slice(old);
    }
    if let Some(dry) = cold.take_alloc_magazine() {
        supply.spare_magazine(dry);
    }
    let (full, first, count) = close(hot, cold);
    if let Some(mut full) = full {
        full.set_range(first, count);
        if checks_now(cold, supply) {
            supply.check_blocks(class, full.blocks());
        }
        household.count_exchange();
        household.earn(count * class.bytes());
        // SAFETY: `first` is within the entries.
        let base = unsafe { full.entries().add(first) };
        cold.set_alloc_magazine(Some(full));
        arm(hot, cold, base, count);
    }
    open(hot, cold, Some(room), free_room);
    true
}

/// Gives everything of a class to central.
pub(crate) fn drain_split(hot: &SplitSlot, cold: &ColdSlot, class: SizeClass, supply: &Supply) {
    cold.change(|cold| {
        let (base, entries) = disarm(hot, cold);
        if let Some(magazine) = cold.take_alloc_magazine() {
            if entries > 0 {
                // SAFETY: `disarm` says that so many entries are there.
                supply.flush_blocks(class, unsafe { core::slice::from_raw_parts(base, entries) });
            }
            supply.spare_magazine(magazine);
        }
        let (freed, first, count) = close(hot, cold);
        if let Some(mut freed) = freed {
            freed.set_range(first, count);
            if count > 0 {
                supply.flush_blocks(class, freed.blocks());
            }
            supply.spare_magazine(freed);
        }
        cold.depth.store(0, Ordering::Relaxed);
    });
}

// ---- stack ---------------------------------------------------------------------------------------------------------

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
    let count = blocks_of(state) as usize;
    if state < ARMED_ONE {
        if cold.until_sample.load(Ordering::Relaxed) == 1 {
            cold.until_sample.store(0, Ordering::Relaxed);
            cold.change(|cold| arm_stack(hot, cold, class, count, household, supply));
            return Refilled::Sample;
        }
        household.count_exchange();
        if checks_stack(cold, supply) {
            supply.check_blocks(class, stack_blocks(hot, count));
        }
        cold.change(|cold| arm_stack(hot, cold, class, count, household, supply));
        if count > 0 {
            return Refilled::Ready;
        }
    }
    if blocks_of(hot.state.load(Ordering::Relaxed)) > 0 {
        return Refilled::Ready;
    }
    deepen(cold, class, household, supply);
    let got = cold.change(|cold| {
        let depth = usize::from(cold.depth.load(Ordering::Relaxed));
        let Some(mut magazine) = resized(cold.take_alloc_magazine(), depth, supply) else { return 0 };
        let got = match supply.take_magazine(class) {
            Some(full) => {
                let got = full.count().min(magazine.capacity());
                magazine.room()[..got].copy_from_slice(&full.blocks()[full.count() - got..]);
                if full.count() > got {
                    supply.flush_blocks(class, &full.blocks()[..full.count() - got]);
                }
                supply.spare_magazine(full);
                got
            }
            None => {
                // Half of what it may hold, so that the next free finds room.
                let wanted = (depth / 2).max(1).min(magazine.capacity());
                let room = &mut magazine.room()[..wanted];
                let got = supply.refill(class, room);
                room.copy_within(wanted - got.., 0);
                got
            }
        };
        put_stack(hot, cold, magazine, got);
        cold.supplied.store(cold.supplied.load(Ordering::Relaxed) + got as i64, Ordering::Relaxed);
        got
    });
    if got > 0 { Refilled::Ready } else { Refilled::OutOfMemory }
}

/// As [`checks_now`]: a stack counts its own turns, because all of them come here.
fn checks_stack(cold: &ColdSlot, supply: &Supply) -> bool {
    let turns = cold.quick_turns.load(Ordering::Relaxed).wrapping_add(1);
    cold.quick_turns.store(turns, Ordering::Relaxed);
    u32::from(turns).is_multiple_of(EXCHANGE_CHECK_PERIOD) || supply.checks_every_exchange()
}

/// The blocks a stack holds.
fn stack_blocks(hot: &StackSlot, count: usize) -> &[*mut u8] {
    if count == 0 {
        return &[];
    }
    // SAFETY: entries below the count exist, and the calling thread owns them.
    unsafe { core::slice::from_raw_parts(hot.base.load(Ordering::Relaxed), count) }
}

/// Lets the fast path make some more allocations.
fn arm_stack(hot: &StackSlot, cold: &ColdSlot, class: SizeClass, count: usize, household: &impl Household, supply: &Supply) {
    // Where every exchange is checked, the stack is looked at as often as an array would be exchanged.
    let period = if supply.checks_every_exchange() { depth_max(class) } else { STACK_ARMED };
    let until_sample = cold.until_sample.load(Ordering::Relaxed) as usize;
    let more = match until_sample {
        0 => period,
        nth => period.min(nth - 1),
    };
    if until_sample != 0 {
        cold.until_sample.store((until_sample - more) as u32, Ordering::Relaxed);
    }
    household.earn(more * class.bytes());
    cold.armed.store(cold.armed.load(Ordering::Relaxed) + more as u64, Ordering::Relaxed);
    hot.state.store(more as u64 * ARMED_ONE + count as u64, Ordering::Release);
}

/// As [`sample_after_split`].
pub(crate) fn sample_after_stack(hot: &StackSlot, cold: &ColdSlot, allocations: u32) {
    cold.change(|cold| {
        let state = hot.state.load(Ordering::Relaxed);
        // What was armed is taken back; the next allocation comes to the slow path, which arms anew.
        cold.armed.store(cold.armed.load(Ordering::Relaxed) - state / ARMED_ONE, Ordering::Relaxed);
        hot.state.store(blocks_of(state), Ordering::Release);
        cold.until_sample.store(allocations, Ordering::Relaxed);
    });
}

/// Makes a magazine with `count` blocks the stack.
fn put_stack(hot: &StackSlot, cold: &ColdSlot, magazine: Magazine, count: usize) {
    let armed = hot.state.load(Ordering::Relaxed) / ARMED_ONE;
    hot.base.store(magazine.entries(), Ordering::Relaxed);
    // The depth rules, not the magazine, which has at least a few entries.
    let capacity = magazine.capacity().min(usize::from(cold.depth.load(Ordering::Relaxed)).max(count));
    hot.capacity.store(capacity as u64, Ordering::Relaxed);
    hot.state.store(armed * ARMED_ONE + count as u64, Ordering::Release);
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
    let depth = usize::from(cold.depth.load(Ordering::Relaxed));
    let count = blocks_of(hot.state.load(Ordering::Relaxed)) as usize;
    household.count_exchange();
    if checks_stack(cold, supply) {
        supply.check_blocks(class, stack_blocks(hot, count));
    }
    cold.change(|cold| {
        if depth > count {
            let Some(mut larger) = supply.empty_magazine(depth.max(MAGAZINE_BLOCKS_MIN)) else { return false };
            larger.room()[..count].copy_from_slice(stack_blocks(hot, count));
            if let Some(old) = cold.take_alloc_magazine() {
                supply.spare_magazine(old);
            }
            put_stack(hot, cold, larger, count);
            return true;
        }
        // The older half lies at the bottom.
        let away = count.div_ceil(2);
        let capacity = away.next_power_of_two().max(MAGAZINE_BLOCKS_MIN);
        let Some(mut magazine) = supply.empty_magazine(capacity) else { return false };
        let Some(mut stack) = cold.take_alloc_magazine() else { return false };
        magazine.room()[..away].copy_from_slice(stack_blocks(hot, away));
        magazine.set_range(0, away);
        stack.room().copy_within(away..count, 0);
        put_stack(hot, cold, stack, count - away);
        cold.supplied.store(cold.supplied.load(Ordering::Relaxed) - away as i64, Ordering::Relaxed);
        supply.give_magazine(class, magazine);
        true
    })
}

/// As [`drain_split`].
pub(crate) fn drain_stack(hot: &StackSlot, cold: &ColdSlot, class: SizeClass, supply: &Supply) {
    cold.change(|cold| {
        let state = hot.state.load(Ordering::Relaxed);
        let count = blocks_of(state) as usize;
        if count > 0 {
            supply.flush_blocks(class, stack_blocks(hot, count));
        }
        cold.supplied.store(cold.supplied.load(Ordering::Relaxed) - count as i64, Ordering::Relaxed);
        hot.capacity.store(0, Ordering::Relaxed);
        hot.base.store(ptr::null_mut(), Ordering::Relaxed);
        hot.state.store(state - count as u64, Ordering::Release);
        if let Some(stack) = cold.take_alloc_magazine() {
            supply.spare_magazine(stack);
        }
        cold.depth.store(0, Ordering::Relaxed);
    });
}
