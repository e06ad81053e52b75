//! The registry: names, their numbers, and what is on account of each.
//!
//! ```text
//!   table   │ · │ ▶entry │ · │ ▶entry │ ▶entry │ · │ …    by the hash of the name; open addressing, never more than half full
//!   chunks  │ ▶ 64 entries │ ▶ 128 │ ▶ 256 │ …           by number; an entry never moves, and never goes
//! ```
//!
//! Looking up takes no lock: an entry is in the table before anybody hears its number, and is there for good. A table that is too small is replaced by
//! a larger one, and the old one left to the epoch, which frees it when nobody looks at it any more. Inserting is rare, and one at a time. The collector is our
//! own, so that nothing of the program's is ever freed by us.

use std::cell::RefCell;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, TryLockError};

use crossbeam_epoch::{Atomic, Collector, Guard, LocalHandle, Owned};
use freestone::profile;

use super::{MAX_DEFAULT, OTHER, Tag, TagStats, desk};

/// What has no tag of its own is counted here.
pub(super) const OTHER_NAME: &str = "other";
/// Places of the first table.
const PLACES_FIRST: usize = 64;
/// Threads are spread over so many sets of counts.
const SHARDS: usize = 4;
/// Entries of the first chunk; each has twice as many as the one before.
const CHUNK_FIRST: usize = 64;
/// With the last there are more than anybody may have.
const CHUNKS: usize = 11;

/// Counts that some threads write to: alone on their line of the cache.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Shard {
    enters: AtomicU64,
    allocations: AtomicU64,
    allocated_bytes: AtomicU64,
    total_allocations: AtomicU64,
    total_allocated_bytes: AtomicU64,
}

/// A tag.
#[derive(Debug)]
pub(super) struct Entry {
    id: u32,
    name: Box<str>,
    hash: u64,
    shards: [Shard; SHARDS],
}

// Relaxed in all of `Entry`: counts, which nobody expects to be of one moment.
impl Entry {
    fn new(id: u32, name: &str, hash: u64) -> Self {
        Self { id, name: name.into(), hash, shards: Default::default() }
    }

    pub(super) fn name(&'static self) -> &'static str {
        &self.name
    }

    pub(super) fn entered(&self, shard: usize) {
        self.shards[shard % SHARDS].enters.fetch_add(1, Ordering::Relaxed);
    }

    /// So many blocks and bytes on its own account.
    pub(super) fn book(&self, shard: usize, [allocations, bytes]: [u64; 2]) {
        if allocations > 0 {
            let shard = &self.shards[shard % SHARDS];
            shard.allocations.fetch_add(allocations, Ordering::Relaxed);
            shard.allocated_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// So many, with all that was within.
    pub(super) fn book_total(&self, shard: usize, [allocations, bytes]: [u64; 2]) {
        if allocations > 0 {
            let shard = &self.shards[shard % SHARDS];
            shard.total_allocations.fetch_add(allocations, Ordering::Relaxed);
            shard.total_allocated_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    pub(super) fn stats(&'static self) -> TagStats {
        let sum = |of: fn(&Shard) -> &AtomicU64| self.shards.iter().map(|shard| of(shard).load(Ordering::Relaxed)).sum();
        TagStats {
            tag: Tag(self.id),
            name: self.name(),
            enters: sum(|shard| &shard.enters),
            allocations: sum(|shard| &shard.allocations),
            allocated_bytes: sum(|shard| &shard.allocated_bytes),
            total_allocations: sum(|shard| &shard.total_allocations),
            total_allocated_bytes: sum(|shard| &shard.total_allocated_bytes),
            live: profile::Estimate::default(),
        }
    }
}

/// Entries by the hash of their names. As many places as a power of two.
struct Table(Box<[AtomicPtr<Entry>]>);

impl Table {
    fn new(places: usize) -> Self {
        Self((0..places).map(|_| AtomicPtr::default()).collect())
    }

    /// The places in which an entry of this hash may be, the likeliest first. There are always empty ones, where a search ends.
    fn places(&self, hash: u64) -> impl Iterator<Item = &AtomicPtr<Entry>> {
        let mask = self.0.len() - 1;
        (0..self.0.len()).map(move |step| &self.0[(hash as usize).wrapping_add(step) & mask])
    }

    fn find(&self, hash: u64, name: &str) -> Option<&'static Entry> {
        for place in self.places(hash) {
            // Acquire: pairs with the Release in `insert`; the entry is whole.
            let entry = place.load(Ordering::Acquire);
            // SAFETY: null, or an entry, which is never freed.
            let entry: &'static Entry = unsafe { entry.as_ref() }?;
            if entry.hash == hash && *entry.name == *name {
                return Some(entry);
            }
        }
        None
    }

    fn insert(&self, entry: &'static Entry) {
        // Relaxed: who inserts is alone.
        if let Some(place) = self.places(entry.hash).find(|place| place.load(Ordering::Relaxed).is_null()) {
            // Release: pairs with the Acquire in `find`.
            place.store(std::ptr::from_ref(entry).cast_mut(), Ordering::Release);
        }
    }
}

struct Registry {
    collector: Collector,
    hasher: RandomState,
    table: Atomic<Table>,
    chunks: [OnceLock<Box<[OnceLock<&'static Entry>]>>; CHUNKS],
    /// Entries, `other` included.
    count: AtomicUsize,
    inserting: Mutex<()>,
}

static REGISTRY: OnceLock<Registry> = OnceLock::new();
/// How many tags there may be, without `other`.
static MAX: AtomicUsize = AtomicUsize::new(MAX_DEFAULT);
static REFUSED: AtomicU64 = AtomicU64::new(0);

fn registry() -> &'static Registry {
    REGISTRY.get_or_init(|| desk::unbooked(Registry::new))
}

/// The chunk of an entry, and its place in there: numbers begin with 1.
fn place_of(id: u32) -> Option<(usize, usize)> {
    let number = (id as usize).checked_sub(OTHER as usize)? + CHUNK_FIRST;
    let chunk = (number / CHUNK_FIRST).ilog2() as usize;
    (chunk < CHUNKS).then(|| (chunk, number - (CHUNK_FIRST << chunk)))
}

impl Registry {
    fn new() -> Self {
        let registry = Self {
            collector: Collector::new(),
            hasher: RandomState::new(),
            table: Atomic::new(Table::new(PLACES_FIRST)),
            chunks: [const { OnceLock::new() }; CHUNKS],
            count: AtomicUsize::new(0),
            inserting: Mutex::new(()),
        };
        let guard = registry.collector.register().pin();
        registry.insert(OTHER_NAME, registry.hasher.hash_one(OTHER_NAME), &guard);
        drop(guard);
        registry
    }

    fn table<'g>(&self, guard: &'g Guard) -> &'g Table {
        // Acquire: pairs with the Release in `insert`.
        let table = self.table.load(Ordering::Acquire, guard);
        // SAFETY: never null, and pinned since before the load.
        unsafe { table.deref() }
    }

    /// Puts a new entry where everybody finds it. The caller is alone here. `None`: there are as many as there can be numbers.
    fn insert(&self, name: &str, hash: u64, guard: &Guard) -> Option<&'static Entry> {
        // Relaxed: who inserts is alone.
        let count = self.count.load(Ordering::Relaxed);
        let id = count as u32 + OTHER;
        let (chunk, place) = place_of(id)?;
        let entry: &'static Entry = Box::leak(Box::new(Entry::new(id, name, hash)));
        let chunk = self.chunks[chunk].get_or_init(|| (0..CHUNK_FIRST << chunk).map(|_| OnceLock::new()).collect());
        // It is empty: numbers are given once.
        let _ = chunk[place].set(entry);
        let table = self.table(guard);
        if 2 * (count + 1) > table.0.len() {
            let larger = Table::new(2 * table.0.len());
            for old in &table.0 {
                // SAFETY: null, or an entry, which is never freed. Relaxed: who inserts is alone.
                if let Some(old) = unsafe { old.load(Ordering::Relaxed).as_ref() } {
                    larger.insert(old);
                }
            }
            larger.insert(entry);
            // AcqRel: publishes the table to the Acquire in `table`.
            let old = self.table.swap(Owned::new(larger), Ordering::AcqRel, guard);
            // SAFETY: nobody finds it any more, and only who inserts comes here.
            unsafe { guard.defer_destroy(old) };
        } else {
            table.insert(entry);
        }
        // Release: who counts so many finds them. Pairs with the Acquire in `count`.
        self.count.store(count + 1, Ordering::Release);
        Some(entry)
    }

    fn find(&self, hash: u64, name: &str) -> Option<&'static Entry> {
        pinned(&self.collector, |guard| self.table(guard).find(hash, name))
    }

    /// `None`: somebody inserts who is not there: this is the child of a fork.
    fn alone(&self) -> Option<MutexGuard<'_, ()>> {
        for _ in 0..1000 {
            match self.inserting.try_lock() {
                Ok(alone) => return Some(alone),
                Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => std::thread::yield_now(),
            }
        }
        None
    }
}

/// Looks at a table that nobody frees meanwhile.
fn pinned<R>(collector: &Collector, look: impl FnOnce(&Guard) -> R) -> R {
    thread_local! {
        static HANDLE: RefCell<Option<LocalHandle>> = const { RefCell::new(None) };
    }
    // The thread's own handle is lent out while a table is freed, or gone at the thread's end: another one will do.
    let guard = HANDLE.try_with(|handle| {
        let mut handle = handle.try_borrow_mut().ok()?;
        Some(handle.get_or_insert_with(|| desk::unbooked(|| collector.register())).pin())
    });
    match guard {
        Ok(Some(guard)) => look(&guard),
        _ => look(&collector.register().pin()),
    }
}

/// The number of a name, of `other` if there are too many, of nothing if it is empty.
pub(super) fn find_or_insert(name: &str) -> u32 {
    if name.is_empty() {
        return 0;
    }
    let registry = registry();
    let hash = registry.hasher.hash_one(name);
    if let Some(entry) = registry.find(hash, name) {
        return entry.id;
    }
    let inserted = desk::unbooked(|| {
        let _alone = registry.alone()?;
        // Somebody else may have been faster.
        if let Some(entry) = registry.find(hash, name) {
            return Some(entry.id);
        }
        // Relaxed: a bound. One of the entries is `other`.
        if registry.count.load(Ordering::Relaxed) > MAX.load(Ordering::Relaxed) {
            return None;
        }
        pinned(&registry.collector, |guard| registry.insert(name, hash, guard)).map(|entry| entry.id)
    });
    inserted.unwrap_or_else(|| {
        // Relaxed: a count.
        REFUSED.fetch_add(1, Ordering::Relaxed);
        OTHER
    })
}

pub(super) fn get(id: u32) -> Option<&'static Entry> {
    let (chunk, place) = place_of(id)?;
    REGISTRY.get()?.chunks[chunk].get()?[place].get().copied()
}

/// All there are, by number. None before there was a first name.
pub(super) fn all() -> Vec<&'static Entry> {
    (OTHER..=count() as u32).filter_map(get).collect()
}

/// How many there are, `other` included.
pub(super) fn count() -> usize {
    // Acquire: pairs with the Release in `insert`.
    REGISTRY.get().map_or(0, |registry| registry.count.load(Ordering::Acquire))
}

pub(super) fn set_max(max: usize) {
    // Relaxed: a bound.
    MAX.store(max, Ordering::Relaxed);
}

pub(super) fn refused() -> u64 {
    // Relaxed: a count.
    REFUSED.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_one_place() {
        assert_eq!(place_of(0), None);
        let mut last = None;
        for id in OTHER..=OTHER + super::super::MAX_LIMIT as u32 {
            let (chunk, place) = place_of(id).expect("there is room for as many as there may be");
            assert!(place < CHUNK_FIRST << chunk, "{id}");
            assert!(last < Some((chunk, place)), "{id}");
            last = Some((chunk, place));
        }
        assert_eq!(place_of(u32::MAX), None);
    }

    #[test]
    fn tables_grow_and_lose_nothing_while_others_look() {
        let registry = Registry::new();
        let names: Vec<String> = (0..2000).map(|number| format!("name {number}")).collect();
        let hash = |name: &str| registry.hasher.hash_one(name);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut known = 0;
                    while known < names.len() {
                        // What was there stays there, under its number.
                        for (number, name) in names.iter().enumerate().take(known) {
                            let guard = registry.collector.register().pin();
                            let found = registry.table(&guard).find(hash(name), name).expect("it was there");
                            assert_eq!(found.id as usize, number + 2);
                        }
                        let guard = registry.collector.register().pin();
                        known = names.partition_point(|name| registry.table(&guard).find(hash(name), name).is_some());
                    }
                });
            }
            for name in &names {
                let guard = registry.collector.register().pin();
                assert!(registry.insert(name, hash(name), &guard).is_some());
            }
        });
        assert_eq!(registry.count.load(Ordering::Relaxed), names.len() + 1);
    }
}
