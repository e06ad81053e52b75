//! Floor 5. The depot: whole magazines on their way from one thread to another.
//!
//! A few swap slots in front, a stack (the *shelf*) under a lock behind. A slot is null or a magazine, and changes hands by one atomic
//! operation; nobody looks into a magazine that he did not take out (readers of statistics look at the count in its header, which stays a
//! header for good). So there is no moment at which a stale pointer could matter: no
//! ABA, no reclamation scheme, and every operation on the slots ends after a bounded number of steps whatever others do.
//!
//! All of it several times over, in *shards*: whoever comes looks into the shard of the processor it runs on first. Threads that hand
//! blocks to each other tend to run side by side, and a block that stays on its processor is still in that processor's cache. With one
//! depot for all, a program of two producers and two consumers on two processors ran half as fast when these were far apart (2026-11).
//!
//! (The idea of exchanging whole magazines is Bonwick and Adams's, "Magazines and Vmem", USENIX 2001.)

use core::ptr;

use crate::atomic::{AtomicPtr, AtomicUsize, Ordering};
use crate::config::{DEPOT_SHARDS, DEPOT_SLOTS};
use crate::magazine::{Header, Magazine, Stack, peek_count};
use crate::sync::{Lock, Rank};

/// A look before an exchange keeps a line that would only be looked at from being taken away from others. loom 0.7 forgets other threads' looks
/// once a thread has looked itself, and would explore next to nothing.
const LOOKS_FIRST: bool = cfg!(not(loom));

/// Slots that hold a magazine or nothing.
struct SwapSlots([AtomicPtr<Header>; DEPOT_SLOTS]);

impl SwapSlots {
    crate::atomic::const_unless_loom! {
        fn new() -> Self {
            #[cfg(not(loom))]
            let slots = [const { AtomicPtr::new(ptr::null_mut()) }; DEPOT_SLOTS];
            #[cfg(loom)]
            let slots = core::array::from_fn(|_| AtomicPtr::new(ptr::null_mut()));
            Self(slots)
        }
    }

    /// Leaves a magazine in one of the first `usable` slots, or hands it back.
    #[inline]
    fn put(&self, magazine: Magazine, usable: usize) -> Result<(), Magazine> {
        let raw = magazine.into_raw();
        // Release: whoever takes the magazine sees what is in it, and the freeing thread's last writes to its blocks. Pairs with
        // the Acquire in `take`.
        let publish = if cfg!(freestone_seeded_bug) { Ordering::Relaxed } else { Ordering::Release };
        for slot in self.0.iter().take(usable) {
            // Relaxed: a look; the exchange decides.
            let taken = LOOKS_FIRST && !slot.load(Ordering::Relaxed).is_null();
            if !taken && slot.compare_exchange(ptr::null_mut(), raw, publish, Ordering::Relaxed).is_ok() {
                return Ok(());
            }
        }
        // SAFETY: given up above, and no slot took it.
        Err(unsafe { Magazine::from_raw(raw) }.expect("a magazine is not null"))
    }

    #[inline]
    fn take(&self) -> Option<Magazine> {
        for slot in &self.0 {
            // Relaxed: a look; the exchange decides.
            if LOOKS_FIRST && slot.load(Ordering::Relaxed).is_null() {
                continue;
            }
            // Acquire: see `put`.
            let raw = slot.swap(ptr::null_mut(), Ordering::Acquire);
            // SAFETY: the swap took it out, so this is the only taking-back; Acquire shows what `put` published.
            if let Some(magazine) = unsafe { Magazine::from_raw(raw) } {
                return Some(magazine);
            }
        }
        None
    }

    /// Blocks in the magazines at this moment.
    fn blocks(&self) -> usize {
        // Acquire: the header is written. Pairs with the Release in `put`.
        self.0.iter().map(|slot| peek_count(slot.load(Ordering::Acquire))).sum()
    }
}

/// Magazines behind the slots. Small, so that a shard is one cache line.
struct Shelf {
    stack: Stack,
    blocks: u32,
    /// The fewest magazines that were here since [`Depot::watch_surplus`]: so many nobody needed.
    surplus: u32,
}

/// One shard, on a cache line of its own.
#[repr(align(64))]
struct Shard {
    slots: SwapSlots,
    /// Magazines on the shelf. A look that saves taking the lock.
    shelved: AtomicUsize,
    /// Blocks that may be on the shelf.
    bound: AtomicUsize,
    /// Magazines were taken here since the bound was raised the last time: 1.
    taken: AtomicUsize,
    shelf: Lock<Shelf>,
}

impl Shard {
    crate::atomic::const_unless_loom! {
        fn new(rank: Rank) -> Self {
            Self {
                slots: SwapSlots::new(),
                shelved: AtomicUsize::new(0),
                bound: AtomicUsize::new(0),
                taken: AtomicUsize::new(0),
                shelf: Lock::new(rank, Shelf { stack: Stack::new(), blocks: 0, surplus: 0 }),
            }
        }
    }

    #[inline]
    fn take(&self, waited: &mut u64) -> Option<Magazine> {
        let magazine = self.slots.take().or_else(|| self.take_shelved(waited))?;
        // Relaxed, here and below: a hint. The cache line is this processor's since the exchange.
        if self.taken.load(Ordering::Relaxed) == 0 {
            self.taken.store(1, Ordering::Relaxed);
        }
        Some(magazine)
    }

    fn take_shelved(&self, waited: &mut u64) -> Option<Magazine> {
        // Relaxed, here and below: a look; the lock orders the stack itself. A magazine shelved just now is missed, as if we had come
        // earlier.
        if LOOKS_FIRST && self.shelved.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.pop(&mut self.shelf.lock_noting(waited))
    }

    fn pop(&self, shelf: &mut Shelf) -> Option<Magazine> {
        let magazine = shelf.stack.pop()?;
        shelf.blocks -= magazine.count() as u32;
        let left = self.shelved.load(Ordering::Relaxed) - 1;
        shelf.surplus = shelf.surplus.min(left as u32);
        self.shelved.store(left, Ordering::Relaxed);
        Some(magazine)
    }

    /// One that nobody needed, and of how many blocks the allowance goes with it.
    fn take_surplus(&self) -> Option<(Magazine, usize)> {
        // Relaxed: a look, as above.
        if self.shelved.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut shelf = self.shelf.lock();
        shelf.surplus = shelf.surplus.checked_sub(1)?;
        let magazine = self.pop(&mut shelf)?;
        let count = magazine.count();
        // Relaxed: an allowance. What is left of it may be less by now.
        let less = |bound: usize| Some(bound - bound.min(count));
        let allowed = self.bound.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).unwrap_or(0);
        Some((magazine, allowed.min(count)))
    }

    fn put(&self, magazine: Magazine, usable: usize, waited: &mut u64) -> Result<(), Magazine> {
        let magazine = match self.slots.put(magazine, usable) {
            Ok(()) => return Ok(()),
            Err(magazine) => magazine,
        };
        let mut shelf = self.shelf.lock_noting(waited);
        let blocks = shelf.blocks as usize + magazine.count();
        if blocks > self.bound.load(Ordering::Relaxed) {
            return Err(magazine);
        }
        shelf.blocks = blocks as u32;
        shelf.stack.push(magazine);
        self.shelved.store(self.shelved.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        Ok(())
    }
}

/// Magazines that belong together: the full ones of one class, or the empty ones of one capacity. `here` is the number of the calling
/// processor, or any other number: it only says where to look first.
pub(crate) struct Depot([Shard; DEPOT_SHARDS]);

macro_rules! shards {
    ($rank:expr) => {{
        #[cfg(not(loom))]
        let shards = [const { Shard::new($rank) }; DEPOT_SHARDS];
        #[cfg(loom)]
        let shards = core::array::from_fn(|_| Shard::new($rank));
        shards
    }};
}

impl Depot {
    crate::atomic::const_unless_loom! {
        /// For magazines with blocks, of one class.
        pub(crate) fn full() -> Self {
            Self(shards!(Rank::Depot))
        }

        /// For magazines without blocks, of one capacity. Its locks come last, because magazines are emptied under others.
        pub(crate) fn empty() -> Self {
            Self(shards!(Rank::Empties))
        }
    }

    /// Takes a magazine: the nearest. Adds to `waited` how many cycles others were in the way.
    #[inline]
    pub(crate) fn take(&self, here: usize, waited: &mut u64) -> Option<Magazine> {
        (0..DEPOT_SHARDS).find_map(|further| self.0[(here + further) % DEPOT_SHARDS].take(waited))
    }

    /// Leaves a magazine here, in one of the first `usable` slots or on the shelf. Hands it back when the shelf would hold more than its
    /// bound. `waited`: as in [`take`](Self::take).
    #[inline]
    pub(crate) fn put(&self, magazine: Magazine, here: usize, usable: usize, waited: &mut u64) -> Result<(), Magazine> {
        self.0[here % DEPOT_SHARDS].put(magazine, usable, waited)
    }

    /// Is what lies here of use to anybody? So it is at first, and then as long as something was taken since [`raise_bound`](Self::raise_bound).
    pub(crate) fn is_in_demand(&self, here: usize) -> bool {
        let shard = &self.0[here % DEPOT_SHARDS];
        shard.bound.load(Ordering::Relaxed) == 0 || shard.taken.swap(0, Ordering::Relaxed) != 0
    }

    /// Allows `more` blocks on the shelf here.
    pub(crate) fn raise_bound(&self, here: usize, more: usize) {
        // Relaxed: an allowance orders nothing.
        self.0[here % DEPOT_SHARDS].bound.fetch_add(more, Ordering::Relaxed);
    }

    /// Allows here what is allowed where nothing is on the shelf; says whether that was anything. A thread that changes its processor takes its blocks
    /// along.
    pub(crate) fn move_bounds(&self, here: usize) -> bool {
        let here = &self.0[here % DEPOT_SHARDS];
        let is_idle = |shard: &&Shard| {
            // Relaxed: looks. Who shelves a magazine at this moment leaves it there, beyond the bound.
            shard.bound.load(Ordering::Relaxed) != 0 && shard.shelved.load(Ordering::Relaxed) == 0
        };
        let others = self.0.iter().filter(|shard| !ptr::eq(*shard, here)).filter(is_idle);
        // Relaxed: an allowance orders nothing. One operation per shard, as below.
        let moved: usize = others.map(|shard| shard.bound.swap(0, Ordering::Relaxed)).sum();
        here.bound.fetch_add(moved, Ordering::Relaxed);
        moved != 0
    }

    /// Takes back all that [`raise_bound`](Self::raise_bound) allowed anywhere; says how much it was.
    pub(crate) fn lower_bounds(&self) -> usize {
        // Relaxed: as above. A look first, so that a page that nobody used stays untouched; one operation per shard, so that no allowance is taken back
        // twice.
        let some = self.0.iter().filter(|shard| shard.bound.load(Ordering::Relaxed) != 0);
        some.map(|shard| shard.bound.swap(0, Ordering::Relaxed)).sum()
    }

    /// Blocks in all magazines. Exact when nobody comes or goes.
    pub(crate) fn blocks(&self) -> usize {
        self.0.iter().map(|shard| shard.shelf.lock().blocks as usize + shard.slots.blocks()).sum()
    }

    /// Takes a magazine that was needed at no moment since [`watch_surplus`](Self::watch_surplus); says of how many blocks the allowance goes with it.
    ///
    /// (Bonwick and Adams, as above: a depot's working set is what was not there all the time.)
    pub(crate) fn take_surplus(&self) -> Option<(Magazine, usize)> {
        self.0.iter().find_map(Shard::take_surplus)
    }

    /// From now on it is watched what nobody needs.
    pub(crate) fn watch_surplus(&self) {
        // Relaxed: a look. A program that never came here is not to touch the page because of us.
        for shard in self.0.iter().filter(|shard| shard.shelved.load(Ordering::Relaxed) != 0) {
            let mut shelf = shard.shelf.lock();
            // Relaxed: changes under the lock.
            shelf.surplus = shard.shelved.load(Ordering::Relaxed) as u32;
        }
    }

    /// A number that changes when a magazine comes or goes; 0: there is none.
    #[cfg_attr(loom, allow(dead_code))]
    pub(crate) fn stamp(&self) -> u64 {
        let mut stamp = 0_u64;
        for shard in &self.0 {
            for slot in &shard.slots.0 {
                // Relaxed: only compared.
                stamp = stamp.rotate_left(9) ^ slot.load(Ordering::Relaxed).addr() as u64;
            }
            // Comings and goings that leave as many are rare, and a later look finds them. Without the lock: a program that never came here is
            // not to touch the page because of us.
            stamp = stamp.rotate_left(9) ^ shard.shelved.load(Ordering::Relaxed) as u64;
        }
        stamp
    }

    pub(crate) fn before_fork(&self) {
        self.0.iter().for_each(|shard| shard.shelf.before_fork());
    }

    pub(crate) fn after_fork(&self) {
        self.0.iter().for_each(|shard| shard.shelf.after_fork());
    }
}

#[cfg(all(test, loom))]
mod model;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::meta::Meta;

    #[test]
    fn what_nobody_takes_is_in_no_demand() {
        let (depot, meta) = (Depot::full(), Meta::new());
        let magazine = || {
            let memory = meta.take(Magazine::bytes(4), align_of::<usize>()).expect("there is memory");
            // SAFETY: so many zeros, aligned, and ours for good.
            unsafe { Magazine::new(memory, 4) }
        };
        assert!(depot.is_in_demand(0), "nobody knows yet");
        depot.raise_bound(0, 4);
        assert!(!depot.is_in_demand(0));
        depot.put(magazine(), 0, 1, &mut 0).expect("there is room");
        assert!(!depot.is_in_demand(0));
        assert!(depot.take(0, &mut 0).is_some());
        assert!(depot.is_in_demand(0));
        assert!(!depot.is_in_demand(0), "that was said once");
    }

    /// What a program takes again and again stays, what lies beneath goes, and its allowance with it.
    #[test]
    fn what_is_never_needed_is_surplus() {
        let (depot, meta) = (Depot::full(), Meta::new());
        let put = || depot.put(of_four(&meta), 0, 0, &mut 0).expect("there is room");
        depot.raise_bound(0, 40);
        (0..10).for_each(|_| put());
        assert!(depot.take_surplus().is_none(), "nobody watched");
        depot.watch_surplus();
        for _ in 0..5 {
            (0..3).for_each(|_| assert!(depot.take(0, &mut 0).is_some()));
            (0..3).for_each(|_| put());
        }
        let surplus = || core::iter::from_fn(|| depot.take_surplus().map(|(_, less)| less)).collect::<Vec<_>>();
        assert_eq!(surplus(), [4; 7]);
        assert_eq!((depot.blocks(), depot.lower_bounds()), (12, 12));
        depot.watch_surplus();
        assert_eq!(surplus(), [0; 3], "nobody came");
        assert_eq!(depot.blocks(), 0);
    }

    fn of_four(meta: &Meta) -> Magazine {
        let memory = meta.take(Magazine::bytes(4), align_of::<usize>()).expect("there is memory");
        // SAFETY: so many zeros, aligned, and ours for good.
        let mut magazine = unsafe { Magazine::new(memory, 4) };
        magazine.room().fill(ptr::dangling_mut());
        magazine.set_range(0, 4);
        magazine
    }

    #[test]
    fn an_allowance_goes_where_it_is_used() {
        let (depot, meta) = (Depot::full(), Meta::new());
        let magazine = || of_four(&meta);
        depot.raise_bound(0, 8);
        depot.put(magazine(), 0, 0, &mut 0).expect("eight blocks may be here");
        assert!(!depot.move_bounds(1), "what is used stays");
        depot.put(magazine(), 1, 0, &mut 0).expect_err("none may be here");
        assert!(depot.take(1, &mut 0).is_some());
        assert!(depot.move_bounds(1));
        for _ in 0..2 {
            depot.put(magazine(), 1, 0, &mut 0).expect("eight blocks may be here now");
        }
        depot.put(magazine(), 1, 0, &mut 0).expect_err("these were eight");
        depot.put(magazine(), 0, 0, &mut 0).expect_err("none may be here any more");
        assert_eq!(depot.lower_bounds(), 8);
    }
}
