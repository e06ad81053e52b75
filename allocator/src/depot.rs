//! Floor 5. The depot: whole magazines on their way from one thread to another.
//!
//! A few swap slots in front, a stack under a lock behind. A slot is null or a magazine, and changes hands by one atomic
//! operation; nobody looks into a magazine that he did not take out. So there is no moment at which a stale pointer could matter: no
//! ABA, no reclamation scheme, and every operation on the slots ends after a bounded number of steps whatever others do.
//!
//! (The idea of exchanging whole magazines is Bonwick and Adams's, "Magazines and Vmem", USENIX 2001.)

use core::ptr;

use crate::atomic::{AtomicPtr, AtomicUsize, Ordering};
use crate::config::{DEPOT_EMPTY_SLOTS, DEPOT_SLOTS};
use crate::magazine::{Header, Magazine, Stack, peek_count};
use crate::sync::{Lock, Rank};

/// Slots that hold a magazine or nothing.
struct SwapSlots<const COUNT: usize>([AtomicPtr<Header>; COUNT]);

impl<const COUNT: usize> SwapSlots<COUNT> {
    crate::atomic::const_unless_loom! {
        fn new() -> Self {
            #[cfg(not(loom))]
            let slots = [const { AtomicPtr::new(ptr::null_mut()) }; COUNT];
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
        for slot in &self.0[..usable] {
            // Relaxed: a look; the exchange decides.
            if slot.load(Ordering::Relaxed).is_null()
                && slot.compare_exchange(ptr::null_mut(), raw, publish, Ordering::Relaxed).is_ok()
            {
                return Ok(());
            }
        }
        // SAFETY: given up above, and no slot took it.
        Err(unsafe { Magazine::from_raw(raw) }.expect("a magazine is not null"))
    }

    /// Blocks in the magazines at this moment.
    fn blocks(&self) -> usize {
        // Acquire: the header is written. Pairs with the Release in `put`.
        self.0.iter().map(|slot| peek_count(slot.load(Ordering::Acquire))).sum()
    }

    #[inline]
    fn take(&self) -> Option<Magazine> {
        for slot in &self.0 {
            // Relaxed: a look; the exchange decides.
            if slot.load(Ordering::Relaxed).is_null() {
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
}

/// The full magazines of one class.
pub(crate) struct Depot {
    slots: SwapSlots<DEPOT_SLOTS>,
    /// Is there anything behind? A look that saves taking the lock.
    shelved: AtomicUsize,
    /// Blocks that may be on the shelf.
    bound: AtomicUsize,
    shelf: Lock<Shelf>,
}

/// Magazines behind the slots.
struct Shelf {
    stack: Stack,
    blocks: usize,
}

impl Depot {
    crate::atomic::const_unless_loom! {
        pub(crate) fn new() -> Self {
            Self {
                slots: SwapSlots::new(),
                shelved: AtomicUsize::new(0),
                bound: AtomicUsize::new(0),
                shelf: Lock::new(Rank::Depot, Shelf { stack: Stack::new(), blocks: 0 }),
            }
        }
    }

    /// Takes a magazine with blocks.
    pub(crate) fn take(&self) -> Option<Magazine> {
        self.slots.take().or_else(|| self.take_shelved())
    }

    fn take_shelved(&self) -> Option<Magazine> {
        // Relaxed: a look; the lock orders the stack itself. A magazine shelved just now is missed, as if we had come earlier.
        if self.shelved.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut shelf = self.shelf.lock();
        let magazine = shelf.stack.pop()?;
        shelf.blocks -= magazine.count();
        self.shelved.store(shelf.blocks, Ordering::Relaxed);
        Some(magazine)
    }

    /// Leaves a magazine with blocks, in one of the first `usable` slots or on the shelf. Hands it back when the shelf would hold more
    /// than its bound.
    pub(crate) fn put(&self, magazine: Magazine, usable: usize) -> Result<(), Magazine> {
        let magazine = match self.slots.put(magazine, usable) {
            Ok(()) => return Ok(()),
            Err(magazine) => magazine,
        };
        // Relaxed: an allowance and a look; asked again under the lock, this saves taking it.
        let bound = self.bound.load(Ordering::Relaxed);
        if self.shelved.load(Ordering::Relaxed) + magazine.count() > bound {
            return Err(magazine);
        }
        let mut shelf = self.shelf.lock();
        if shelf.blocks + magazine.count() > bound {
            return Err(magazine);
        }
        shelf.blocks += magazine.count();
        shelf.stack.push(magazine);
        self.shelved.store(shelf.blocks, Ordering::Relaxed);
        Ok(())
    }

    /// Allows `more` blocks on the shelf.
    pub(crate) fn raise_bound(&self, more: usize) {
        // Relaxed: an allowance orders nothing.
        self.bound.fetch_add(more, Ordering::Relaxed);
    }

    /// Takes back all that [`raise_bound`](Self::raise_bound) allowed; says how much it was.
    pub(crate) fn lower_bound(&self) -> usize {
        // Relaxed: as above. One operation, so that no allowance is taken back twice.
        self.bound.swap(0, Ordering::Relaxed)
    }

    /// Blocks in all magazines here. Exact when nobody comes or goes.
    pub(crate) fn blocks(&self) -> usize {
        self.shelf.lock().blocks + self.slots.blocks()
    }

    pub(crate) fn before_fork(&self) {
        self.shelf.before_fork();
    }

    pub(crate) fn after_fork(&self) {
        self.shelf.after_fork();
    }
}

/// Magazines of one capacity without blocks, for all classes.
pub(crate) struct Empties {
    slots: SwapSlots<DEPOT_EMPTY_SLOTS>,
    shelved: AtomicUsize,
    shelf: Lock<Stack>,
}

impl Empties {
    crate::atomic::const_unless_loom! {
        pub(crate) fn new() -> Self {
            Self {
                slots: SwapSlots::new(),
                shelved: AtomicUsize::new(0),
                shelf: Lock::new(Rank::Empties, Stack::new()),
            }
        }
    }

    pub(crate) fn take(&self) -> Option<Magazine> {
        if let Some(magazine) = self.slots.take() {
            return Some(magazine);
        }
        // Relaxed: as in `Depot::take_shelved`.
        if self.shelved.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut shelf = self.shelf.lock();
        let magazine = shelf.pop()?;
        self.shelved.fetch_sub(1, Ordering::Relaxed);
        Some(magazine)
    }

    pub(crate) fn put(&self, magazine: Magazine) {
        if let Err(magazine) = self.slots.put(magazine, DEPOT_EMPTY_SLOTS) {
            let mut shelf = self.shelf.lock();
            shelf.push(magazine);
            self.shelved.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn before_fork(&self) {
        self.shelf.before_fork();
    }

    pub(crate) fn after_fork(&self) {
        self.shelf.after_fork();
    }
}
