//! Floor 1. A machine for tests: Linux underneath, with failures on demand, a clock that only the test moves, and a book of
//! every mapping, so that touching what is not ours fails at once and not some day.
//!
//! A test builds a [`World`] and enters it; the threads it starts enter the same one. Outside a world nothing fails.

use core::cell::RefCell;
use core::ffi::{CStr, c_void};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::sync::{Arc, Mutex};

use super::{MapError, linux};

pub(crate) use linux::{
    KeepErrno, abort, at_fork, exit, exit_key, exit_value, has_threads, is_mapped, is_on_signal_stack, is_readable, load_base,
    map_untouchable, name_thread, page_bytes, process_id, processor, set_exit_value, stack_top, thread_cpu_ns, thread_id,
    thread_is_gone, wait, wait_for, wake_one, wall_clock_ns, write_at_once, write_error,
};
#[cfg(freestone_c)]
pub(crate) use linux::{hand_environment, set_errno};

/// Which calls fail. Calls that can fail are numbered from zero, in the order in which a world sees them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Plan {
    /// None.
    Nothing,
    /// One.
    Once(u64),
    /// This one and all later ones.
    From(u64),
}

/// What a world knows.
#[derive(Debug)]
struct Book {
    plan: Plan,
    calls: u64,
    failed: u64,
    /// Start → end of everything mapped.
    mapped: BTreeMap<usize, usize>,
    /// No more than this may be mapped at a time.
    limit_bytes: usize,
    now_ns: u64,
    /// How long the kernel takes to put memory behind an address that it is asked to.
    populate_ns: u64,
    /// Files that can be read, by path. There are no others.
    files: BTreeMap<CString, Vec<u8>>,
    memory_bytes: usize,
}

/// A machine of its own.
#[derive(Debug)]
pub(crate) struct World(Mutex<Book>);

std::thread_local! {
    static WORLD: RefCell<Option<Arc<World>>> = const { RefCell::new(None) };
}

/// Leaves the world when dropped.
#[derive(Debug)]
pub(crate) struct Entered(());

impl Drop for Entered {
    fn drop(&mut self) {
        WORLD.with(|world| world.borrow_mut().take());
    }
}

impl World {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Book {
            plan: Plan::Nothing,
            calls: 0,
            failed: 0,
            mapped: BTreeMap::new(),
            limit_bytes: usize::MAX,
            now_ns: 1,
            populate_ns: 0,
            files: BTreeMap::new(),
            memory_bytes: 1 << 34,
        })))
    }

    /// The calling thread lives in this world until the result is dropped.
    pub(crate) fn enter(self: &Arc<Self>) -> Entered {
        WORLD.with(|world| *world.borrow_mut() = Some(Arc::clone(self)));
        Entered(())
    }

    fn book<T>(&self, read: impl FnOnce(&mut Book) -> T) -> T {
        read(&mut self.0.lock().expect("no test panics while it writes the book"))
    }

    pub(crate) fn plan(&self, plan: Plan) {
        self.book(|book| book.plan = plan);
    }

    pub(crate) fn limit(&self, bytes: usize) {
        self.book(|book| book.limit_bytes = bytes);
    }

    /// From now on a populated page takes so long.
    pub(crate) fn populating_takes(&self, ns: u64) {
        self.book(|book| book.populate_ns = ns);
    }

    /// There is a file with this content.
    pub(crate) fn write_file(&self, path: &CStr, content: &str) {
        self.book(|book| book.files.insert(path.to_owned(), content.as_bytes().to_vec()));
    }

    /// Time passes.
    pub(crate) fn wait(&self, ns: u64) {
        self.book(|book| book.now_ns += ns);
    }

    /// How many calls that can fail were made.
    pub(crate) fn calls(&self) -> u64 {
        self.book(|book| book.calls)
    }

    /// How many of them failed by plan.
    pub(crate) fn failed(&self) -> u64 {
        self.book(|book| book.failed)
    }

    pub(crate) fn mapped_bytes(&self) -> usize {
        self.book(|book| book.mapped_bytes())
    }
}

/// A world that ends takes its mappings along: heaps of tests live for ever, and the system has places for a few thousand only.
impl Drop for World {
    fn drop(&mut self) {
        let Ok(book) = self.0.get_mut() else { return };
        for (start, end) in core::mem::take(&mut book.mapped) {
            // SAFETY: whoever mapped it lived in this world, and nobody lives here any more.
            unsafe { linux::unmap(start, end - start) };
        }
    }
}

impl Book {
    /// Counts a call; says whether it is to fail.
    fn refuses(&mut self) -> bool {
        let number = self.calls;
        self.calls += 1;
        let refuses = match self.plan {
            Plan::Nothing => false,
            Plan::Once(at) => number == at,
            Plan::From(at) => number >= at,
        };
        self.failed += u64::from(refuses);
        refuses
    }

    fn mapped_bytes(&self) -> usize {
        self.mapped.iter().map(|(start, end)| end - start).sum()
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.mapped_bytes().saturating_add(bytes) <= self.limit_bytes
    }

    fn add(&mut self, start: usize, bytes: usize) {
        let end = start + bytes;
        if let Some((_, before)) = self.mapped.range(..end).next_back() {
            assert!(*before <= start, "mapped twice: {start:#x}");
        }
        self.mapped.insert(start, end);
    }

    /// Is all of this range mapped? Neighbouring mappings count as one.
    fn covers(&self, start: usize, bytes: usize) -> bool {
        let mut reached = start;
        while reached < start + bytes {
            match self.mapped.range(..=reached).next_back() {
                Some((_, end)) if *end > reached => reached = *end,
                _ => return false,
            }
        }
        true
    }

    fn remove(&mut self, start: usize, bytes: usize) {
        assert!(self.covers(start, bytes), "unmapped what was not mapped: {start:#x} + {bytes:#x}");
        let end = start + bytes;
        let touched: Vec<_> = self.mapped.range(..end).filter(|(_, e)| **e > start).map(|(s, e)| (*s, *e)).collect();
        for (from, to) in touched {
            self.mapped.remove(&from);
            if from < start {
                self.mapped.insert(from, start);
            }
            if to > end {
                self.mapped.insert(end, to);
            }
        }
    }
}

/// Runs `act` in the world's book; outside a world, `None`.
fn with_book<T>(act: impl FnOnce(&mut Book) -> T) -> Option<T> {
    WORLD.with(|world| world.borrow().as_ref().map(|world| world.book(act)))
}

pub(crate) fn map_at(address: usize, bytes: usize) -> Result<(), MapError> {
    if with_book(|book| book.refuses() || !book.has_room(bytes)) == Some(true) {
        return Err(MapError::OutOfMemory);
    }
    linux::map_at(address, bytes)?;
    with_book(|book| book.add(address, bytes));
    Ok(())
}

pub(crate) unsafe fn extend_mapping(address: usize, from_bytes: usize, to_bytes: usize) -> Result<(), MapError> {
    let more = to_bytes - from_bytes;
    if with_book(|book| book.refuses() || !book.has_room(more)) == Some(true) {
        return Err(MapError::OutOfMemory);
    }
    with_book(|book| assert!(book.covers(address, from_bytes), "extended what was not mapped: {address:#x}"));
    // SAFETY: handed on to the caller.
    unsafe { linux::extend_mapping(address, from_bytes, to_bytes) }?;
    with_book(|book| book.add(address + from_bytes, more));
    Ok(())
}

pub(crate) fn map_anywhere(bytes: usize) -> Option<NonNull<u8>> {
    if with_book(|book| book.refuses() || !book.has_room(bytes)) == Some(true) {
        return None;
    }
    let got = linux::map_anywhere(bytes)?;
    with_book(|book| book.add(got.addr().get(), bytes));
    Some(got)
}

pub(crate) fn reserve_at(address: usize, bytes: usize) -> Result<(), MapError> {
    if with_book(|book| book.refuses() || !book.has_room(bytes)) == Some(true) {
        return Err(MapError::OutOfMemory);
    }
    linux::reserve_at(address, bytes)?;
    with_book(|book| book.add(address, bytes));
    Ok(())
}

/// # Safety
///
/// As in `linux`.
pub(crate) unsafe fn open(address: usize, bytes: usize) -> bool {
    if with_book(Book::refuses) == Some(true) {
        return false;
    }
    with_book(|book| assert!(book.covers(address, bytes), "opened what was not mapped: {address:#x} + {bytes:#x}"));
    // SAFETY: handed on to the caller.
    unsafe { linux::open(address, bytes) }
}

/// # Safety
///
/// As in `linux`.
pub(crate) unsafe fn close(address: usize, bytes: usize) -> bool {
    if with_book(Book::refuses) == Some(true) {
        return false;
    }
    with_book(|book| assert!(book.covers(address, bytes), "closed what was not mapped: {address:#x} + {bytes:#x}"));
    // SAFETY: handed on to the caller.
    unsafe { linux::close(address, bytes) }
}

/// # Safety
///
/// As in `linux`.
pub(crate) unsafe fn unmap(address: usize, bytes: usize) -> bool {
    if with_book(Book::refuses) == Some(true) {
        return false;
    }
    with_book(|book| book.remove(address, bytes));
    // SAFETY: handed on to the caller.
    unsafe { linux::unmap(address, bytes) }
}

/// # Safety
///
/// As in `linux`.
pub(crate) unsafe fn purge(address: usize, bytes: usize) -> bool {
    if with_book(Book::refuses) == Some(true) {
        return false;
    }
    with_book(|book| {
        assert!(book.covers(address, bytes), "purged what was not mapped: {address:#x} + {bytes:#x}");
    });
    // SAFETY: handed on to the caller.
    unsafe { linux::purge(address, bytes) }
}

pub(crate) fn use_huge_pages(address: usize, bytes: usize) -> bool {
    with_book(Book::refuses) != Some(true) && linux::use_huge_pages(address, bytes)
}

pub(crate) fn use_small_pages(address: usize, bytes: usize) -> bool {
    with_book(Book::refuses) != Some(true) && linux::use_small_pages(address, bytes)
}

/// Takes as long as the test says.
pub(crate) fn populate(address: usize, bytes: usize) -> bool {
    if with_book(Book::refuses) == Some(true) {
        return false;
    }
    with_book(|book| {
        assert!(book.covers(address, bytes), "populated what was not mapped: {address:#x} + {bytes:#x}");
        book.now_ns += book.populate_ns;
    });
    linux::populate(address, bytes)
}

/// # Safety
///
/// As in `linux`.
pub(crate) unsafe fn move_mapping(from: usize, from_bytes: usize, to: usize, to_bytes: usize) -> bool {
    if with_book(Book::refuses) == Some(true) {
        // As the least friendly kernels do: the target is gone all the same.
        with_book(|book| book.remove(to, to_bytes));
        // SAFETY: the caller mapped the target and knows that it may be lost.
        unsafe { linux::unmap(to, to_bytes) };
        return false;
    }
    with_book(|book| {
        assert!(book.covers(to, to_bytes), "moved onto what was not mapped: {to:#x}");
        book.remove(from, from_bytes);
    });
    // SAFETY: handed on to the caller.
    unsafe { linux::move_mapping(from, from_bytes, to, to_bytes) }
}

pub(crate) fn now_ns() -> u64 {
    with_book(|book| book.now_ns).unwrap_or_else(linux::now_ns)
}

/// As the clock, so that what a test times is what it says.
pub(crate) fn cycles() -> u64 {
    now_ns()
}

/// A thread that never gets a processor.
pub(crate) fn spawn(_entry: extern "C" fn(*mut c_void) -> *mut c_void) -> bool {
    with_book(Book::refuses) != Some(true)
}

pub(crate) fn read_file<'a>(path: &CStr, into: &'a mut [u8]) -> Option<&'a [u8]> {
    with_book(|book| {
        if book.refuses() {
            return None;
        }
        let content = book.files.get(path)?;
        let length = content.len().min(into.len());
        into[..length].copy_from_slice(&content[..length]);
        Some(length)
    })
    .flatten()
    .map(|length| &into[..length])
}

pub(crate) fn memory_bytes() -> usize {
    with_book(|book| book.memory_bytes).unwrap_or_else(linux::memory_bytes)
}

pub(crate) fn allow_barriers() -> bool {
    with_book(Book::refuses) != Some(true) && linux::allow_barriers()
}

pub(crate) fn barrier() -> bool {
    with_book(Book::refuses) != Some(true) && linux::barrier()
}

/// Every heap of a test run gets a window of its own.
pub(crate) fn random() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    // Relaxed: only the numbers have to differ.
    NEXT.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

pub(crate) fn address_space_is_limited() -> bool {
    with_book(|book| book.limit_bytes != usize::MAX).unwrap_or(false)
}

pub(crate) fn environment(_name: &CStr) -> Option<&'static [u8]> {
    None
}
