//! What a workload holds, said to whoever watches the process from outside, for the price of a store.
//!
//! ```text
//!   harness ── memfd ──→ subject          a cache line each
//!      ↑                    │             ┌───────┬────────┬────────┬─ … ─┐
//!      └── every 10 ms ─────┴── a store   │ title │ heap 0 │ heap 1 │     │
//!                                         └───────┴────────┴────────┴─ … ─┘
//! ```
//!
//! The harness makes a [`Sheet`] of shared memory before it starts a subject, which inherits the file and finds its number in the variable
//! [`VARIABLE`]. Whatever of a workload holds blocks gets a line of it, so that threads do not meet there: [`Held`]. From [`begin`] on, all lines
//! together are what the program holds. A subject that is started by hand has no sheet, and then nothing happens.
//!
//! Shared memory is no anonymous memory, so what is written here is not counted among what is resident.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::ptr::{self, NonNull};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::subject::Memory;

/// The variable with the number of the sheet's file.
pub const VARIABLE: &str = "BENCH_LIVE";

/// So many places a sheet has: some more than the most threads of any workload.
const PLACES: usize = 1023;

/// One for each that writes.
#[repr(C, align(64))]
struct Line(AtomicU64);

/// The first line of a sheet.
#[repr(C, align(64))]
struct Title {
    /// That it is a sheet, and how it is ruled.
    mark: AtomicU64,
    /// Places that have been taken, and more if more were asked for.
    taken: AtomicU64,
    /// When [`begin`] was called, as [`monotonic_ns`] has it; 0 before.
    began_ns: AtomicU64,
    /// What was resident then.
    before_bytes: AtomicU64,
}

/// What lies in the file.
#[repr(C)]
struct Ruled {
    title: Title,
    /// Bytes that somebody holds.
    places: [Line; PLACES],
}

const MARK: u64 = u64::from_le_bytes(*b"live\0\0\0\x01");

/// Maps a file that is as long as a sheet.
fn map(file: RawFd) -> io::Result<NonNull<Ruled>> {
    // SAFETY: a new mapping, where the kernel likes.
    let place =
        unsafe { libc::mmap(ptr::null_mut(), size_of::<Ruled>(), libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, file, 0) };
    if place == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(place.cast()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

/// The time of the clock that all processes share and nobody sets, in nanoseconds.
#[must_use]
pub fn monotonic_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid place to write to.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// A sheet, as the harness has it.
#[derive(Debug)]
pub struct Sheet {
    ruled: NonNull<Ruled>,
    file: File,
}

/// When a workload began, and what was resident then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Beginning {
    /// As [`monotonic_ns`] has it.
    pub at_ns: u64,
    /// Resident, without files.
    pub before_bytes: u64,
}

impl Sheet {
    /// An empty one.
    ///
    /// # Errors
    ///
    /// There is no memory for it, or no number for its file.
    pub fn new() -> io::Result<Self> {
        // Not closed on `execve`: that is how the subject gets it.
        // SAFETY: the name ends with a zero byte.
        let number = unsafe { libc::memfd_create(c"live".as_ptr(), 0) };
        if number < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: opened above, and nobody else has it.
        let file = unsafe { File::from_raw_fd(number) };
        file.set_len(size_of::<Ruled>() as u64)?;
        let sheet = Self { ruled: map(number)?, file };
        // Relaxed: the subject does not exist yet.
        sheet.ruled().title.mark.store(MARK, Ordering::Relaxed);
        Ok(sheet)
    }

    fn ruled(&self) -> &Ruled {
        // SAFETY: mapped until the sheet is dropped; all zeros is a valid `Ruled`, and everything in it is atomic, whoever else writes it.
        unsafe { self.ruled.as_ref() }
    }

    /// The value of [`VARIABLE`] for who inherits it.
    #[must_use]
    pub fn number(&self) -> String {
        self.file.as_raw_fd().to_string()
    }

    /// `None` until the workload says that it begins.
    #[must_use]
    pub fn beginning(&self) -> Option<Beginning> {
        let title = &self.ruled().title;
        // Acquire: `before_bytes` is written. Pairs with the Release in `begin`.
        let at_ns = title.began_ns.load(Ordering::Acquire);
        // Relaxed: ordered by the line above.
        (at_ns != 0).then(|| Beginning { at_ns, before_bytes: title.before_bytes.load(Ordering::Relaxed) })
    }

    /// What the program holds, if it has begun to say. The lines are read one after the other, so while several threads write it is not quite
    /// of one moment.
    #[must_use]
    pub fn live_bytes(&self) -> Option<u64> {
        self.beginning()?;
        let ruled = self.ruled();
        // Relaxed: places are taken before the beginning; what is written there stands for itself.
        let taken = usize::try_from(ruled.title.taken.load(Ordering::Relaxed)).ok()?;
        let places = ruled.places.get(..taken)?;
        Some(places.iter().map(|line| line.0.load(Ordering::Relaxed)).sum())
    }
}

impl Drop for Sheet {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` in this length; nobody has a reference into it that outlives the sheet.
        unsafe { libc::munmap(self.ruled.as_ptr().cast(), size_of::<Ruled>()) };
    }
}

/// The sheet that this process was given, if any.
fn given() -> Option<&'static Ruled> {
    static GIVEN: OnceLock<Option<&'static Ruled>> = OnceLock::new();
    *GIVEN.get_or_init(|| {
        let number: RawFd = std::env::var(VARIABLE).ok()?.parse().ok()?;
        // SAFETY: all zeros is a valid `stat`.
        let mut about: libc::stat = unsafe { std::mem::zeroed() };
        // A number that means something else here is not to be written to, nor to be read beyond its end.
        // SAFETY: `about` is a valid place to write to.
        let is_as_long =
            unsafe { libc::fstat(number, &raw mut about) } == 0 && about.st_size == size_of::<Ruled>() as libc::off_t;
        let ruled = if is_as_long { map(number).ok()? } else { return None };
        // SAFETY: mapped, never unmapped, as long as the file; everything in it is atomic.
        let ruled: &'static Ruled = unsafe { ruled.as_ref() };
        // Relaxed: written before this process began.
        (ruled.title.mark.load(Ordering::Relaxed) == MARK).then_some(ruled)
    })
}

/// What something of a workload holds. Dropped, it stands as it was: a look at a process that is just ending is not to see a fall.
#[derive(Debug)]
pub struct Held(Option<&'static AtomicU64>);

impl Held {
    /// Takes the next place. To be called before [`begin`].
    #[must_use]
    pub fn nothing() -> Self {
        Self(given().and_then(|ruled| {
            // Relaxed: a number that nobody else gets; where it lies beyond the last place, the harness sees that and knows nothing.
            let place = ruled.title.taken.fetch_add(1, Ordering::Relaxed);
            Some(&ruled.places.get(usize::try_from(place).ok()?)?.0)
        }))
    }

    /// Now it is so many bytes.
    #[inline]
    pub fn set(&self, bytes: usize) {
        if let Some(place) = self.0 {
            // Relaxed: whoever looks takes what is there.
            place.store(bytes as u64, Ordering::Relaxed);
        }
    }
}

/// Says that the workload is prepared: what is resident now is what it found, and what it holds from now on is what its places say.
pub fn begin() {
    if let Some(ruled) = given() {
        // Relaxed: ordered by the next line.
        ruled.title.before_bytes.store(Memory::now().anonymous, Ordering::Relaxed);
        // Release: publishes what is before it. Pairs with the Acquire in `beginning`.
        ruled.title.began_ns.store(monotonic_ns(), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::{Held, Ordering, PLACES, Sheet};

    #[test]
    fn a_sheet_says_nothing_until_the_workload_has_begun() {
        let sheet = Sheet::new().expect("there is memory");
        let title = &sheet.ruled().title;
        title.taken.store(2, Ordering::Relaxed);
        let held = sheet.ruled().places.each_ref().map(|line| &line.0);
        held[0].store(5, Ordering::Relaxed);
        held[1].store(7, Ordering::Relaxed);
        held[2].store(1_000, Ordering::Relaxed);
        assert_eq!((sheet.beginning(), sheet.live_bytes()), (None, None));
        title.before_bytes.store(100, Ordering::Relaxed);
        title.began_ns.store(3, Ordering::Relaxed);
        assert_eq!(sheet.beginning().map(|its| (its.at_ns, its.before_bytes)), Some((3, 100)));
        assert_eq!(sheet.live_bytes(), Some(12), "places that nobody took do not count");
        title.taken.store(PLACES as u64 + 1, Ordering::Relaxed);
        assert_eq!(sheet.live_bytes(), None, "somebody got no place, so nobody knows");
    }

    #[test]
    fn without_a_sheet_nothing_happens() {
        let held = Held::nothing();
        held.set(100);
        assert!(held.0.is_none());
        super::begin();
    }
}
