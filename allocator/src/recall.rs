//! Floor 8. Recalling what a sleeping thread caches.
//!
//! A thread's cache is its own: the fast path reads and writes it without any synchronisation. A thread that sleeps keeps what it has, and
//! a handful of blocks can keep as many spans from ending. So after a while somebody else takes them, without the thread's help:
//!
//! ```text
//!   recaller                                     the thread, should it not be asleep after all
//!   recalled ← 1                                 fast path:   word → slots → one block taken or left
//!   word: its slots → AWAY  (one exchange)       quick turn:  turning ← 1; recalled? then not
//!   membarrier                                   slow path:   word ← BUSY; recalled? then wait for the lock, and settle
//!   word still AWAY, and not turning?
//!     no:  recalled ← 0, as if nothing had been
//!     yes: everything but one block per class goes to central
//! ```
//!
//! `AWAY` is an empty heap, so whatever the thread does next takes the slow path. The barrier (`membarrier(2)`: every thread of the process
//! passes one) makes the two sides agree without any cost to the thread: either it sees `recalled`, or we see what it is doing. One thing
//! it cannot rule out: the thread was stopped within an operation of the fast path, after it had read its word. It then ends that one
//! operation, at most, on slots that are still where they were; `slot` says how that is allowed for.
//!
//! Where the kernel has no such barrier nothing is recalled, and a thread keeps what it caches until it runs again or ends. What all this
//! relies on is I-word and I-recall.

use core::sync::atomic::AtomicPtr;

use crate::atomic::{AtomicU8, AtomicU64, Ordering};
use crate::os;
use crate::supply::Supply;
use crate::sync::{Lock, Rank};
use crate::thread_cache::record::{HotSlots, Life, Record};

const UNKNOWN: u8 = 0;
const ALLOWED: u8 = 1;
const REFUSED: u8 = 2;

/// Takes caches back.
pub(crate) struct Recaller {
    /// Held while a record is taken from its thread, and while a thread takes it back. Its thread-local word stays where it is meanwhile.
    lock: Lock<()>,
    barriers: AtomicU8,
    recalls: AtomicU64,
}

impl Recaller {
    pub(crate) const fn new() -> Self {
        Self { lock: Lock::new(Rank::Recall, ()), barriers: AtomicU8::new(UNKNOWN), recalls: AtomicU64::new(0) }
    }

    /// How many caches were taken.
    pub(crate) fn recalls(&self) -> u64 {
        // Relaxed: a count.
        self.recalls.load(Ordering::Relaxed)
    }

    fn has_barriers(&self) -> bool {
        // Relaxed: asked again by whoever does not know yet.
        match self.barriers.load(Ordering::Relaxed) {
            UNKNOWN => {
                let allowed = os::allow_barriers();
                self.barriers.store(if allowed { ALLOWED } else { REFUSED }, Ordering::Relaxed);
                allowed
            }
            known => known == ALLOWED,
        }
    }

    /// Takes all that the record's thread caches, if that thread is not in the middle of anything. `away` is the empty heap that it finds when
    /// it comes back. `false`: nothing was taken.
    pub(crate) fn recall(&self, record: &Record, away: *const HotSlots, supply: &Supply) -> bool {
        if !self.has_barriers() {
            return false;
        }
        let _alone = self.lock.lock();
        let (word, thread) = (record.word.load(Ordering::Relaxed), record.thread.load(Ordering::Relaxed));
        let can_be = record.life() == Life::Active && word > 1 && thread != 0 && record.recalled.load(Ordering::Relaxed) == 0;
        // A thread that ended without telling us took its word along.
        if !can_be || os::thread_is_gone(thread) {
            return false;
        }
        // SAFETY: the word of a thread that is there, and stays until it has had our lock (I-word).
        let word: &AtomicPtr<HotSlots> = unsafe { &*os::pointer(word).cast() };
        let (slots, away) = (core::ptr::from_ref(record.hot()).cast_mut(), away.cast_mut());
        // Relaxed: the barrier orders it.
        record.recalled.store(1, Ordering::Relaxed);
        let left = word.compare_exchange(slots, away, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        let taken = left
            && os::barrier()
            // Acquire: what the last turn did. Pairs with the Release in `Record::turn`.
            && record.turning.load(Ordering::Acquire) == 0
            && word.load(Ordering::Relaxed) == away;
        if !taken {
            record.recalled.store(0, Ordering::Relaxed);
            if left {
                // If this fails the thread is in its slow path, and puts its slots back itself.
                let _ = word.compare_exchange(away, slots, Ordering::Relaxed, Ordering::Relaxed);
            }
            return false;
        }
        record.recall(supply);
        self.recalls.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// The thread is back, in its slow path.
    #[cold]
    pub(crate) fn settle(&self, record: &Record, supply: &Supply) {
        let _alone = self.lock.lock();
        Self::settle_alone(record, supply);
    }

    fn settle_alone(record: &Record, supply: &Supply) {
        // Relaxed: the lock orders it.
        if record.recalled.load(Ordering::Relaxed) != 0 {
            record.settle(supply);
            record.recalled.store(0, Ordering::Relaxed);
        }
    }

    /// The thread ends, or was found to have ended: from here on its word is not touched.
    pub(crate) fn retire(&self, record: &Record, supply: &Supply) {
        let _alone = self.lock.lock();
        record.word.store(0, Ordering::Relaxed);
        Self::settle_alone(record, supply);
    }

    pub(crate) fn before_fork(&self) {
        self.lock.before_fork();
    }

    pub(crate) fn after_fork(&self) {
        self.lock.after_fork();
    }
}
