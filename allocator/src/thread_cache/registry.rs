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
pub(crate) trait Enlisted: Sized + Sync + 'static {
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
    pool: Lock<AtomicPtr<R>>,
    pooled: AtomicUsize,
}

impl<R: Enlisted> Registry<R> {
    crate::atomic::const_unless_loom! {
        pub(crate) fn new() -> Self {
            Self {
                newest: AtomicPtr::new(ptr::null_mut()),
                count: AtomicUsize::new(0),
                pool: Lock::new(Rank::Registry, AtomicPtr::new(ptr::null_mut())),
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

    /// The record that was enlisted last, or before another one.
    #[cfg_attr(loom, allow(dead_code))]
    pub(crate) fn before(&self, record: Option<&'static R>) -> Option<&'static R> {
        match record {
            None => self.records().next(),
            // SAFETY: null or an enlisted record, which is there for good; the link was written before the record was published.
            Some(record) => unsafe { record.older().load(Ordering::Relaxed).as_ref() },
        }
    }

    // Relaxed for all links of the pool: its lock orders them. The number is a look.

    /// Puts a record behind a link of the pool.
    fn insert(&self, link: &AtomicPtr<R>, record: &'static R) {
        record.pooled_before().store(link.load(Ordering::Relaxed), Ordering::Relaxed);
        link.store(ptr::from_ref(record).cast_mut(), Ordering::Relaxed);
        self.pooled.fetch_add(1, Ordering::Relaxed);
    }

    /// What is behind a link of the pool.
    fn behind(link: &AtomicPtr<R>) -> Option<&'static R> {
        // SAFETY: null or a pooled record, which is there for good.
        unsafe { link.load(Ordering::Relaxed).as_ref() }
    }

    /// Leaves a record to the next thread that is born. Its owner touches it no more.
    pub(crate) fn pool(&self, record: &'static R) {
        self.insert(&self.pool.lock(), record);
    }

    /// Leaves a record below all others of the pool: it is the coldest.
    pub(crate) fn pool_last(&self, record: &'static R) {
        let pool = self.pool.lock();
        let mut link: &AtomicPtr<R> = &pool;
        while let Some(above) = Self::behind(link) {
            link = above.pooled_before();
        }
        self.insert(link, record);
    }

    /// Takes over the record that was pooled last: its memory is the warmest.
    pub(crate) fn adopt(&self) -> Option<&'static R> {
        // A look that saves the lock; a record pooled just now is missed, as if we had come earlier. Under loom there is none, see `depot`.
        if cfg!(not(loom)) && self.pooled.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.take_pooled(|_| true)
    }

    /// Takes the first record of the pool that `which` chooses. The others stay where newborns find them.
    pub(crate) fn take_pooled(&self, which: impl Fn(&R) -> bool) -> Option<&'static R> {
        let pool = self.pool.lock();
        let mut link: &AtomicPtr<R> = &pool;
        loop {
            let record = Self::behind(link)?;
            if which(record) {
                link.store(record.pooled_before().load(Ordering::Relaxed), Ordering::Relaxed);
                self.pooled.fetch_sub(1, Ordering::Relaxed);
                return Some(record);
            }
            link = record.pooled_before();
        }
    }

    /// Makes the pool anew out of the records that `which` chooses: in the child of a fork, where threads that had taken one out are gone.
    pub(crate) fn rebuild_pool(&self, which: impl Fn(&R) -> bool) {
        let pool = self.pool.lock();
        pool.store(ptr::null_mut(), Ordering::Relaxed);
        self.pooled.store(0, Ordering::Relaxed);
        for record in self.records().filter(|record| which(record)) {
            self.insert(&pool, record);
        }
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
