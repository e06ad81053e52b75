//! Floor 5. A lock whose holder does the work of those who came while it was held.
//!
//! A thread that wants to give a magazine to central and finds the lock taken does not wait: it leaves the magazine on a list and
//! goes on. The scheduler may have stopped the holder, and nobody should stand still for that.
//!
//! 1. Who gives: tries the lock. If that fails, pushes the magazine and *tries once more*, because the holder may have looked at the
//!    list just before the push.
//! 2. Who holds: before going, takes the list and works it off; unlocks; and *looks once more*, because a magazine may have come
//!    between the taking and the unlocking. If one did, tries the lock again.
//!
//! So of the one who pushes and the one who unlocks, at least one sees the other, and no magazine is left behind. The two second looks
//! are separated from what precedes them by sequentially consistent fences: this is Dekker's problem, a store and a look at the other
//! side's store. The list is only pushed and taken as a whole, so it has no ABA.

use core::ptr;

use crate::atomic::{AtomicPtr, Ordering, fence};
use crate::magazine::{Header, Magazine, Stack};
use crate::sync::{Guard, Lock};

/// A value behind a lock, and magazines waiting for its holder.
pub(crate) struct Combining<T> {
    lock: Lock<T>,
    waiting: AtomicPtr<Header>,
}

impl<T> Combining<T> {
    crate::atomic::const_unless_loom! {
        pub(crate) fn new(lock: Lock<T>) -> Self {
            Self { lock, waiting: AtomicPtr::new(ptr::null_mut()) }
        }
    }

    /// Runs `act` on the value, waiting for the lock, and then works off what came in: `work` gets every magazine. Adds to `waited` how long
    /// somebody else held the lock, see [`Lock::lock_noting`].
    pub(crate) fn act<R>(&self, waited: &mut u64, act: impl FnOnce(&mut T) -> R, mut work: impl FnMut(&mut T, Magazine)) -> R {
        let mut guard = self.lock.lock_noting(waited);
        let result = act(&mut guard);
        self.leave(guard, &mut work);
        result
    }

    /// Has `magazine` worked on by `work`, here or by whoever holds the lock.
    pub(crate) fn give(&self, magazine: Magazine, mut work: impl FnMut(&mut T, Magazine)) {
        if let Some(mut guard) = self.lock.try_lock() {
            work(&mut guard, magazine);
            self.leave(guard, &mut work);
            return;
        }
        self.push(magazine);
        // SeqCst: orders the push before the second try. Pairs with the fence in `leave`.
        fence(Ordering::SeqCst);
        if let Some(guard) = self.lock.try_lock() {
            self.leave(guard, &mut work);
        }
    }

    fn push(&self, magazine: Magazine) {
        let next = magazine.next();
        // Relaxed: a first guess. Under loom a bad one, see `depot`.
        let mut top = if cfg!(loom) { ptr::null_mut() } else { self.waiting.load(Ordering::Relaxed) };
        let next: *const AtomicPtr<Header> = next;
        let raw = magazine.into_raw();
        loop {
            // SAFETY: headers stay headers for good (I-forever), and nobody else has this one before the exchange below.
            // Relaxed: the exchange publishes it.
            unsafe { &*next }.store(top, Ordering::Relaxed);
            // Release: shows the magazine and its link to whoever takes the list. Pairs with the Acquire in `leave`.
            match self.waiting.compare_exchange_weak(top, raw, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => top = now,
            }
        }
    }

    /// Works off the list and unlocks, as often as something came in.
    fn leave<'a>(&'a self, mut guard: Guard<'a, T>, work: &mut impl FnMut(&mut T, Magazine)) {
        loop {
            // Relaxed: a look that saves an exchange; what is missed here is seen below. Under loom there is none, see `depot`.
            if cfg!(loom) || !self.waiting.load(Ordering::Relaxed).is_null() {
                // Acquire: see `push`.
                let top = self.waiting.swap(ptr::null_mut(), Ordering::Acquire);
                // SAFETY: the swap took the whole chain, and every link was published by the push that wrote it.
                let mut list = unsafe { Stack::from_chain(top) };
                while let Some(magazine) = list.pop() {
                    work(&mut guard, magazine);
                }
            }
            drop(guard);
            if cfg!(freestone_seeded_bug) {
                return;
            }
            // SeqCst: orders the unlocking before the second look. Pairs with the fence in `give`.
            fence(Ordering::SeqCst);
            // Relaxed: the fence orders it.
            if self.waiting.load(Ordering::Relaxed).is_null() {
                return;
            }
            match self.lock.try_lock() {
                Some(again) => guard = again,
                // Somebody holds the lock and will look before going.
                None => return,
            }
        }
    }

    /// Works off what came while a fork held the lock: its holder does not look before going.
    #[cfg_attr(loom, allow(dead_code))]
    pub(crate) fn look_again(&self, mut work: impl FnMut(&mut T, Magazine)) {
        // SeqCst: orders the unlocking before this look. Pairs with the fence in `give`.
        fence(Ordering::SeqCst);
        // Relaxed: the fence orders it.
        if self.waiting.load(Ordering::Relaxed).is_null() {
            return;
        }
        // Who holds it looks before going.
        if let Some(guard) = self.lock.try_lock() {
            self.leave(guard, &mut work);
        }
    }

    pub(crate) fn before_fork(&self) {
        self.lock.before_fork();
    }

    pub(crate) fn after_fork(&self) {
        self.lock.after_fork();
    }
}

#[cfg(all(test, loom))]
mod model;
