//! Floor 7. The registry: every record there ever was, and those whose threads have ended.
//!
//! Records are added and never removed, so a reader walks the list without a lock and cannot meet a record that goes away. A thread
//! that ends leaves its record, magazines and all, in the *pool*; the next thread that is born takes it over. That makes an end and a
//! birth a few instructions, and a program with a hundred thousand short threads has as many records as it ever had threads at a
//! time.

use core::ptr;

use crate::atomic::{AtomicPtr, AtomicUsize, Ordering};
use crate::sync::{Lock, Rank};

/// What the registry needs of a record: two links. The first is written once; the second while the record is in the pool, under the
/// registry's lock, and otherwise by whoever took it out.
pub(crate) trait Enlisted: Sized + 'static {
    /// The record that was added before this one.
    fn older(&self) -> &AtomicPtr<Self>;
    /// The record that was pooled before this one.
    fn pooled_before(&self) -> &AtomicPtr<Self>;
}

/// Every record of a heap.
pub(crate) struct Registry<R> {
    newest: AtomicPtr<R>,
    count: AtomicUsize,
    /// The record that was pooled last.
    pool: Lock<*mut R>,
    pooled: AtomicUsize,
}

// SAFETY: the registry hands out shared references to records only, which are `Sync`; the pool's pointer is behind a lock.
unsafe impl<R: Sync> Sync for Registry<R> {}
// SAFETY: as above.
unsafe impl<R: Sync> Send for Registry<R> {}

impl<R: Enlisted> Registry<R> {
    crate::atomic::const_unless_loom! {
        pub(crate) fn new() -> Self {
            Self {
                newest: AtomicPtr::new(ptr::null_mut()),
                count: AtomicUsize::new(0),
                pool: Lock::new(Rank::Registry, ptr::null_mut()),
                pooled: AtomicUsize::new(0),
            }
        }
    }

    /// Adds a record, for good.
    pub(crate) fn enlist(&self, record: &'static R) {
        let raw = ptr::from_ref(record).cast_mut();
        // Relaxed: a first guess. Under loom a bad one, see `depot`.
        let mut newest = if cfg!(loom) { ptr::null_mut() } else { self.newest.load(Ordering::Relaxed) };
        loop {
            // Relaxed: the exchange publishes it.
            record.older().store(newest, Ordering::Relaxed);
            // Release: readers see the record as it is now. Pairs with the Acquire in `records`.
            let publish = if cfg!(freestone_seeded_bug) { Ordering::Relaxed } else { Ordering::Release };
            match self.newest.compare_exchange_weak(newest, raw, publish, Ordering::Relaxed) {
                Ok(_) => break,
                Err(now) => newest = now,
            }
        }
        // Relaxed: a count.
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// Every record that was enlisted before this call, newest first.
    pub(crate) fn records(&self) -> impl Iterator<Item = &'static R> {
        // Acquire: see `enlist`. The chain behind it was published by earlier exchanges on the same word, which this one's release
        // sequence carries along.
        let mut next = self.newest.load(Ordering::Acquire);
        core::iter::from_fn(move || {
            // SAFETY: null or an enlisted record, which is there for good (I-forever) and published.
            let record = unsafe { next.as_ref() }?;
            // Relaxed: written before the record was published.
            next = record.older().load(Ordering::Relaxed);
            Some(record)
        })
    }

    /// Leaves a record to the next thread that is born. Its owner touches it no more.
    pub(crate) fn pool(&self, record: &'static R) {
        let mut pool = self.pool.lock();
        // Relaxed: the lock orders the link, and the number is a look.
        record.pooled_before().store(*pool, Ordering::Relaxed);
        *pool = ptr::from_ref(record).cast_mut();
        self.pooled.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes over the record that was pooled last: its memory is the warmest.
    pub(crate) fn adopt(&self) -> Option<&'static R> {
        // Relaxed: a look that saves the lock; a record pooled just now is missed, as if we had come earlier. Under loom there is none, see
        // `depot`.
        if cfg!(not(loom)) && self.pooled.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut pool = self.pool.lock();
        // SAFETY: null or a pooled record, which is there for good.
        let record = unsafe { pool.as_ref() }?;
        // Relaxed: as in `pool`.
        *pool = record.pooled_before().load(Ordering::Relaxed);
        self.pooled.fetch_sub(1, Ordering::Relaxed);
        Some(record)
    }

    /// Takes a pooled record that `which` chooses, wherever it lies in the pool. The others stay where newborns find them.
    pub(crate) fn take_pooled(&self, which: impl Fn(&R) -> bool) -> Option<&'static R> {
        let pool = self.pool.lock();
        let mut link: Option<&'static R> = None;
        // SAFETY: null or a pooled record, which is there for good.
        let mut next = unsafe { pool.as_ref() };
        while let Some(record) = next {
            // Relaxed, here and below: as in `pool`.
            let below = record.pooled_before().load(Ordering::Relaxed);
            if which(record) {
                match link {
                    Some(above) => above.pooled_before().store(below, Ordering::Relaxed),
                    None => {
                        let mut pool = pool;
                        *pool = below;
                    }
                }
                self.pooled.fetch_sub(1, Ordering::Relaxed);
                return Some(record);
            }
            link = Some(record);
            // SAFETY: as above.
            next = unsafe { below.as_ref() };
        }
        None
    }

    /// Leaves a record below all others of the pool: it is the coldest.
    pub(crate) fn pool_last(&self, record: &'static R) {
        let mut pool = self.pool.lock();
        let raw = ptr::from_ref(record).cast_mut();
        // Relaxed, here and below: as in `pool`.
        record.pooled_before().store(ptr::null_mut(), Ordering::Relaxed);
        // SAFETY: null or a pooled record, which is there for good.
        let Some(mut last) = (unsafe { pool.as_ref() }) else {
            *pool = raw;
            self.pooled.fetch_add(1, Ordering::Relaxed);
            return;
        };
        // SAFETY: as above.
        while let Some(below) = unsafe { last.pooled_before().load(Ordering::Relaxed).as_ref() } {
            last = below;
        }
        last.pooled_before().store(raw, Ordering::Relaxed);
        self.pooled.fetch_add(1, Ordering::Relaxed);
    }

    /// Makes the pool anew out of the records that `which` chooses: in the child of a fork, where threads that had taken one out are gone.
    pub(crate) fn rebuild_pool(&self, which: impl Fn(&R) -> bool) {
        let mut pool = self.pool.lock();
        *pool = ptr::null_mut();
        let mut pooled = 0;
        for record in self.records().filter(|record| which(record)) {
            // Relaxed, here and below: as in `pool`.
            record.pooled_before().store(*pool, Ordering::Relaxed);
            *pool = ptr::from_ref(record).cast_mut();
            pooled += 1;
        }
        self.pooled.store(pooled, Ordering::Relaxed);
    }

    /// How many records there are.
    pub(crate) fn count(&self) -> usize {
        // Relaxed, here and in `pooled`: a number that may be old.
        self.count.load(Ordering::Relaxed)
    }

    /// How many of them wait for a thread.
    pub(crate) fn pooled(&self) -> usize {
        self.pooled.load(Ordering::Relaxed)
    }

    pub(crate) fn before_fork(&self) {
        self.pool.before_fork();
    }

    pub(crate) fn after_fork(&self) {
        self.pool.after_fork();
    }
}

#[cfg(all(test, loom))]
mod model;
