//! Floor 2. The lock of all shared rooms.
//!
//! Three states in one word, as in Drepper's "Futexes are tricky": free, held, and held with somebody waiting. Nobody spins for
//! long, because the scheduler may have stopped the holder; nothing waits or asks the system while holding one, unless that is the
//! lock's purpose, or a room above has to wait until the one below has grown.
//!
//! Locks have ranks and are taken in the order of the floors, which builds with debug assertions check.

cfg_select! {
    loom => { mod waits { pub(super) fn note(_thread: u32, _cycles: u64) {} } }
    _ => { pub(crate) mod waits; }
}

use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};

use crate::atomic::{AtomicU32, Ordering};
use crate::os;

/// Which lock may be taken while which is held: only ones further down this list.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub(crate) enum Rank {
    /// Held while a heap gets its options: the first thing that happens to it.
    Start,
    /// What the trace said last.
    Trace,
    /// The limits in force.
    Guard,
    /// How much memory to keep, and what goes next. Held for a slice of that work: nobody waits for it but a fork, and the background thread
    /// when it is woken.
    Scavenger,
    /// Held while a sleeping thread's cache is taken, while a thread that is back tidies up, and while one ends.
    Recall,
    /// The lists of thread records.
    Registry,
    /// Held across each call that gives memory back, so that a fork happens before or after it.
    Release,
    /// A shelf of magazines.
    Depot,
    /// A class's spans.
    Central,
    /// The blocks of all small classes in the first bytes of the heap.
    Seed,
    /// Held while the window grows or shrinks, system calls included: that is its purpose.
    Growth,
    /// The steps and their free pages.
    PageHeap,
    /// The huge slots.
    Huge,
    /// The blocks without bytes. Held once across the call that maps their addresses, before there are any.
    #[cfg_attr(not(any(freestone_c, test)), expect(dead_code, reason = "only C has them"))]
    Zero,
    /// A shelf of magazines without blocks.
    Empties,
    /// The samples and their call sites.
    Samples,
    /// Records for ourselves.
    Meta,
}

const FREE: u32 = 0;
const HELD: u32 = 1;
const AWAITED: u32 = 2;

/// Looks at a held lock before sleeping: about 100 ns, several times what a holder needs.
const SPINS: u32 = if cfg!(loom) { 0 } else { 40 };

/// A value that one thread at a time may touch.
pub(crate) struct Lock<T> {
    state: AtomicU32,
    rank: ranks::Checked,
    value: UnsafeCell<T>,
}

// SAFETY: the lock hands out one guard at a time, and with it the only access to the value.
unsafe impl<T: Send> Sync for Lock<T> {}
// SAFETY: moving the lock moves the value.
unsafe impl<T: Send> Send for Lock<T> {}

/// The right to touch the value; gives the lock back when dropped.
pub(crate) struct Guard<'a, T>(&'a Lock<T>);

impl<T> Lock<T> {
    crate::atomic::const_unless_loom! {
        /// A free lock.
        pub(crate) fn new(rank: Rank, value: T) -> Self {
            Self { state: AtomicU32::new(FREE), rank: ranks::Checked::new(rank), value: UnsafeCell::new(value) }
        }
    }

    /// Waits until nobody else holds it.
    #[inline]
    pub(crate) fn lock(&self) -> Guard<'_, T> {
        self.rank.taking();
        // Acquire: sees what the last holder wrote. Pairs with the Release in `unlock`.
        if self.state.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).is_err() {
            self.lock_slow();
        }
        Guard(self)
    }

    /// As [`lock`](Self::lock); adds to `waited` how many [cycles](os::cycles) somebody else held it.
    #[inline]
    pub(crate) fn lock_noting(&self, waited: &mut u64) -> Guard<'_, T> {
        self.rank.taking();
        // Acquire: as in `lock`.
        if self.state.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).is_err() {
            let began = os::cycles();
            self.lock_slow();
            *waited += os::cycles().wrapping_sub(began);
        }
        Guard(self)
    }

    /// Takes it if nobody holds it.
    #[inline]
    pub(crate) fn try_lock(&self) -> Option<Guard<'_, T>> {
        // Acquire: as in `lock`.
        self.state.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).ok()?;
        self.rank.taking();
        Some(Guard(self))
    }

    #[cold]
    fn lock_slow(&self) {
        // Asked for before the lock is held, for it is a call to the system.
        let thread = os::thread_id();
        let began = os::cycles();
        self.wait_for_it();
        waits::note(thread, os::cycles().wrapping_sub(began));
    }

    fn wait_for_it(&self) {
        for _ in 0..SPINS {
            // Relaxed: a look; the exchange that follows does the ordering.
            if self.state.load(Ordering::Relaxed) == FREE
                // Acquire: as in `lock`.
                && self.state.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).is_ok()
            {
                return;
            }
            core::hint::spin_loop();
        }
        // From here on the word says that somebody waits, so whoever unlocks wakes one. Acquire: as in `lock`.
        while self.state.swap(AWAITED, Ordering::Acquire) != FREE {
            os::wait(&self.state, AWAITED);
        }
    }

    #[inline]
    fn unlock(&self) {
        self.rank.given_back();
        // Release: shows the next holder what this one wrote. Pairs with the Acquire in `lock`, `try_lock` and `lock_slow`.
        if self.state.swap(FREE, Ordering::Release) == AWAITED {
            os::wake_one(&self.state);
        }
    }

    /// Before a fork: takes the lock, so that the child gets a whole value. The calling thread does not hold it.
    pub(crate) fn before_fork(&self) {
        core::mem::forget(self.lock());
    }

    /// After a fork, on both sides: undoes [`before_fork`](Self::before_fork). In the child nobody waits, whatever the word says.
    pub(crate) fn after_fork(&self) {
        self.unlock();
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the guard exists, so its thread holds the lock and nobody else has access (I-lock).
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard exists, so its thread holds the lock; `&mut self` makes the access unique within it.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.0.unlock();
    }
}

/// The order of locks, checked per thread in builds with debug assertions.
#[cfg(all(debug_assertions, not(loom)))]
mod ranks {
    use super::Rank;
    use core::cell::Cell;

    std::thread_local! {
        /// One bit per rank this thread holds.
        static HELD: Cell<u32> = const { Cell::new(0) };
    }

    /// The rank of a lock.
    pub(super) struct Checked(Rank);

    impl Checked {
        pub(super) const fn new(rank: Rank) -> Self {
            Self(rank)
        }

        pub(super) fn taking(&self) {
            let bit = 1_u32 << self.0 as u8;
            HELD.with(|held| {
                // During a fork all locks of a rank are held at once, so equal ranks pass.
                assert!(held.get() < bit << 1, "lock {:?} taken while locks {:#b} are held", self.0, held.get());
                held.set(held.get() | bit);
            });
        }

        pub(super) fn given_back(&self) {
            HELD.with(|held| held.set(held.get() & !(1 << self.0 as u8)));
        }
    }
}

#[cfg(not(all(debug_assertions, not(loom))))]
mod ranks {
    /// Nothing, so that a free lock is all zeros.
    pub(super) struct Checked;

    impl Checked {
        pub(super) const fn new(_rank: super::Rank) -> Self {
            Self
        }

        #[inline(always)]
        #[allow(clippy::unused_self, reason = "as where ranks are checked")]
        pub(super) fn taking(&self) {}

        #[inline(always)]
        #[allow(clippy::unused_self, reason = "as where ranks are checked")]
        pub(super) fn given_back(&self) {}
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn counts_of_many_threads_add_up() {
        let lock = Lock::new(Rank::Meta, 0_u64);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50_000 {
                        *lock.lock() += 1;
                    }
                });
            }
        });
        assert_eq!(*lock.lock(), 200_000);
    }

    #[test]
    fn a_held_lock_is_not_tried_twice() {
        let lock = Lock::new(Rank::Meta, ());
        let held = lock.lock();
        std::thread::scope(|scope| {
            scope.spawn(|| assert!(lock.try_lock().is_none()));
        });
        drop(held);
        assert!(lock.try_lock().is_some());
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "lock Depot taken while")]
    fn going_up_the_floors_is_noticed() {
        let below = Lock::new(Rank::PageHeap, ());
        let above = Lock::new(Rank::Depot, ());
        let _held = below.lock();
        drop(above.lock());
    }

    #[test]
    fn a_fork_takes_and_frees() {
        let lock = Lock::new(Rank::Central, ());
        lock.before_fork();
        assert!(lock.try_lock().is_none());
        lock.after_fork();
        assert!(lock.try_lock().is_some());
    }
}
