//! Recording: a thread that looks once an interval, and writes down what it sees.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::io::{self, Write as _};
use std::mem;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{self, Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, OnceLock, PoisonError, TryLockError};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant, UNIX_EPOCH};

use freestone::{PAUSES_KEPT, Pause, control};
use memmap2::{Advice, MmapMut, MmapOptions};

use super::file::{self, Identity};
use super::format::{Header, LimitFields, Moment, Recorded, Ring, TEXT_BYTES_MAX};
use super::writer::{self, SLOT_BYTES_MAX, Writer};
use super::{Ending, LimitKind, StartError, bus, surroundings};
use crate::Snapshot;
use crate::own_thread::without_signals;
use crate::pressure::{self, Subscription, Threshold};

/// The thread's name, as `top` shows it.
const THREAD_NAME: &str = "freestone-rec";
/// Address space for its stack. Optimised it touches a few pages; without, it copies snapshots from function to function, and a quarter of this
/// would not do.
const STACK_BYTES: usize = 2 << 20;
/// Of the pauses of an interval, the longest so many are kept.
const PAUSES_PER_INTERVAL: usize = 8;
/// Limits can wake the thread, but not more often than this.
const WAKES_APART: Duration = Duration::from_millis(100);
/// The callbacks that wake it run at so many percent of a limit.
const NEAR_PERCENT: u8 = 90;

/// A recording that is under way. Dropping it ends the recording, and says so in it.
#[must_use = "dropping a recorder ends the recording"]
pub struct Recorder {
    /// `None` while it is being dropped.
    running: Option<Running>,
}

struct Running {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
    /// They wake the thread when a limit is near; none where there was no limit.
    _subscriptions: Vec<Subscription>,
}

/// What the thread, its owner and the end of the process share.
struct Shared {
    path: PathBuf,
    identity: Identity,
    bytes: usize,
    /// The process that started it. A child of `fork` has its memory, but not the mapping nor the thread.
    pid: u32,
    interval: Duration,
    started: (Instant, Moment),
    /// `None` once recording has ended.
    writer: Mutex<Option<Writer<MmapMut>>>,
    stop: AtomicBool,
    /// Which limits called, by [`LimitKind`] as a bit.
    near: AtomicU8,
    /// The thread, for who must not wait. Set before anybody knows of this.
    thread: OnceLock<Thread>,
}

/// The recording of this process, for its end.
static ACTIVE: Mutex<Option<Arc<Shared>>> = Mutex::new(None);
/// The process whose recording that is, 0 for none: to be asked without the lock, which in the child of a fork nobody may be there to give back.
static ACTIVE_PID: AtomicU32 = AtomicU32::new(0);

/// Nobody panics while he holds one of ours; and if he did, what is under it is as good as before.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Recorder {
    pub(super) fn start(path: &Path, interval: Duration, bytes: usize) -> Result<Self, StartError> {
        let path = path::absolute(path).map_err(|error| StartError::Io("find", path.to_owned(), error))?;
        // Patiently: in the child of a fork nobody may be there to give it back.
        let Some(mut active) = patiently(&ACTIVE) else { return Err(StartError::Recording(path)) };
        // In the child of a fork this is about the parent's recording.
        if let Some(others) = active.take_if(|shared| shared.pid != process::id()) {
            others.abandon();
        }
        if let Some(shared) = &*active {
            return Err(StartError::Recording(shared.path.clone()));
        }
        let shared = Arc::new(Shared::new(path, interval, bytes)?);
        // The first look is this thread's: a process that ends at once has said something all the same.
        let mut seen = Seen { snapshot: None, pause_ended_ns: shared.started.1.steady_ns, said_elsewhere: false };
        look(&shared, &mut seen);
        let thread = spawn(Arc::clone(&shared), seen).inspect_err(|_| shared.undo())?;
        let _ = shared.thread.set(thread.thread().clone());
        *active = Some(Arc::clone(&shared));
        // Relaxed: read by this process's end, and by children of its forks.
        ACTIVE_PID.store(shared.pid, Ordering::Relaxed);
        drop(active);
        say_farewell_at_exit();
        let subscriptions = subscribe(&shared);
        Ok(Self { running: Some(Running { shared, thread, _subscriptions: subscriptions }) })
    }

    /// Records until the process ends.
    pub fn forever(mut self) {
        mem::forget(self.running.take());
    }

    /// Where to. An absolute path.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.running.as_ref().map_or(Path::new(""), |running| &running.shared.path)
    }

    /// Is it still recording? Not if its file was cut short, or in the child of a fork.
    #[must_use]
    pub fn is_recording(&self) -> bool {
        self.running.as_ref().is_some_and(|running| {
            running.shared.pid == process::id() && lock(&running.shared.writer).is_some() && !bus::was_struck()
        })
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let Some(running) = self.running.take() else { return };
        if running.shared.pid != process::id() {
            // A child of fork: there is no thread to wait for, the memory is not mapped, and the file is the parent's.
            mem::forget(running);
            return;
        }
        // Release: pairs with the Acquire of the thread. Nothing else is handed over.
        running.shared.stop.store(true, Ordering::Release);
        running.thread.thread().unpark();
        let _ = running.thread.join();
        running.shared.end(Some(Ending::Stopped));
        let mut active = lock(&ACTIVE);
        if active.as_ref().is_some_and(|active| Arc::ptr_eq(active, &running.shared)) {
            *active = None;
            ACTIVE_PID.store(0, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("path", &self.path()).finish_non_exhaustive()
    }
}

/// A path with the process's number in place of `%p`.
pub(super) fn with_pid(path: &OsStr) -> PathBuf {
    let mut bytes = Vec::new();
    let mut rest = path.as_bytes();
    while let Some(at) = rest.windows(2).position(|two| two == b"%p") {
        bytes.extend_from_slice(&rest[..at]);
        bytes.extend_from_slice(process::id().to_string().as_bytes());
        rest = &rest[at + 2..];
    }
    bytes.extend_from_slice(rest);
    OsString::from_vec(bytes).into()
}

/// A recording by this process that has just begun.
struct Made {
    writer: Writer<MmapMut>,
    identity: Identity,
    /// What two clocks said.
    started: (Instant, Moment),
}

fn make(path: &Path, interval: Duration, bytes: usize) -> Result<Made, StartError> {
    let started = (Instant::now(), Moment { unix_ns: unix_ns(std::time::SystemTime::now()), steady_ns: steady_ns() });
    let rings = Ring::of_file(bytes);
    let mut header = Header {
        rings,
        pid: process::id().into(),
        process_started_ticks: surroundings::process_started_ticks(process::id()).unwrap_or(0),
        boot: surroundings::boot().unwrap_or_default(),
        started: started.1,
        interval_ns: interval.as_nanos() as u64,
        page_bytes: page_bytes(),
        allowed_bytes: freestone::memory_bytes().unwrap_or(0) as u64,
        oom_kills: surroundings::oom_kills().unwrap_or(u64::MAX),
        exe: std::env::current_exe().map(|exe| exe.to_string_lossy().into_owned()).unwrap_or_default(),
        library: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let made = file::make(path, bytes, &mut header)?;
    let map_error = |error| StartError::Io("map", path.to_owned(), error);
    // SAFETY: nobody but us writes to the file (it is locked, and a recording has no other writers); we only ever store into the map and believe
    // nothing that is in it; and should somebody cut it short, `bus` puts other memory there.
    let map = unsafe { MmapOptions::new().len(bytes).map_mut(&made.file) }.map_err(map_error)?;
    // A child of fork is not to have it: it could write, and the lock would stay with it when we are gone. The descriptor ends here for the
    // same reason; the map keeps the file, and the lock.
    map.advise(Advice::DontFork).map_err(map_error)?;
    Ok(Made { writer: Writer::new(map, rings), identity: made.identity, started })
}

impl Shared {
    fn new(path: PathBuf, interval: Duration, bytes: usize) -> Result<Self, StartError> {
        let Made { mut writer, identity, started } = make(&path, interval, bytes)?;
        bus::guard(writer.memory());
        Ok(Self {
            path,
            identity,
            bytes,
            pid: process::id(),
            interval,
            started,
            writer: Mutex::new(Some(writer)),
            stop: AtomicBool::new(false),
            near: AtomicU8::new(0),
            thread: OnceLock::new(),
        })
    }

    /// Ends the recording, with or without a last word, and unmaps the file.
    fn end(&self, ending: Option<Ending>) {
        self.end_with(&mut lock(&self.writer), ending);
    }

    fn end_with(&self, writer: &mut Option<Writer<MmapMut>>, ending: Option<Ending>) {
        if let Some(mut writer) = writer.take() {
            if let Some(ending) = ending {
                let mut snapshot = crate::snapshot();
                let moment = self.moment(snapshot.at, snapshot.taken);
                writer.snapshot(moment, &mut snapshot);
                writer.ending(moment, ending);
            }
            bus::unguard();
        }
    }

    /// Nothing was recorded, and nothing will be.
    fn undo(&self) {
        self.end(None);
        let _ = fs::remove_file(&self.path);
    }

    /// In a child: lets go of what is the parent's, without unmapping what is not mapped here.
    fn abandon(self: Arc<Self>) {
        bus::unguard();
        mem::forget(self);
    }

    fn moment(&self, at: Instant, taken: std::time::SystemTime) -> Moment {
        let (instant, moment) = self.started;
        let since = at.saturating_duration_since(instant).as_nanos() as u64;
        Moment { unix_ns: unix_ns(taken), steady_ns: moment.steady_ns + since }
    }

    /// Wakes the thread because of a limit. Runs in the middle of somebody's allocation: no lock, no allocation.
    fn wake(&self, kind: LimitKind) {
        // Release: pairs with the Acquire of the thread, which then sees the numbers that led here.
        self.near.fetch_or(1 << kind as u8, Ordering::Release);
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// Is the file where it was, and as long?
    fn whereabouts(&self) -> Whereabouts {
        match fs::symlink_metadata(&self.path) {
            Ok(metadata) if Identity::of(&metadata) == self.identity => {
                if metadata.len() < self.bytes as u64 {
                    Whereabouts::CutShort
                } else {
                    Whereabouts::There
                }
            }
            _ => Whereabouts::Elsewhere,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Whereabouts {
    There,
    /// Deleted, renamed, or not to be seen from here any more. What is written goes to the same file still, whatever it is called.
    Elsewhere,
    /// A store could be the end, were it not for the handler; and nothing is gained by it.
    CutShort,
}

fn spawn(shared: Arc<Shared>, seen: Seen) -> Result<JoinHandle<()>, StartError> {
    let thread = thread::Builder::new().name(THREAD_NAME.to_owned()).stack_size(STACK_BYTES);
    without_signals(|| thread.spawn(move || record(&shared, seen))).map_err(StartError::Thread)
}

/// Asks for calls when a limit is near. Where no limit is set nobody is asked: a registration starts the heap's background thread.
fn subscribe(shared: &Arc<Shared>) -> Vec<Subscription> {
    let on = |threshold, kind| {
        let shared = Arc::clone(shared);
        // At the fuse everybody is called, whatever his threshold.
        pressure::on(threshold, move |pressure| shared.wake(if pressure.fuse { LimitKind::Fuse } else { kind }))
    };
    let soft = control::memory_limit().map(|_| on(Threshold::of_memory_limit(NEAR_PERCENT), LimitKind::NearMemoryLimit));
    let hard = control::hard_limit().map(|_| on(Threshold::of_hard_limit(NEAR_PERCENT), LimitKind::NearHardLimit));
    soft.into_iter().chain(hard).collect()
}

/// What the thread remembers from one look to the next.
struct Seen {
    snapshot: Option<Snapshot>,
    /// The end of the newest pause that was written.
    pause_ended_ns: u64,
    said_elsewhere: bool,
}

/// The thread. Allocates nothing.
fn record(shared: &Shared, mut seen: Seen) {
    let mut next = Instant::now();
    let mut began = next;
    loop {
        // At a steady pace; what was missed, because the process stood still, is not made up for.
        next += shared.interval;
        if next < began {
            next = began + shared.interval;
        }
        let earliest = began + WAKES_APART;
        loop {
            // Acquire: pairs with the Release in `drop`.
            if shared.stop.load(Ordering::Acquire) {
                return;
            }
            let now = Instant::now();
            // Acquire: pairs with the Release in `wake`.
            let called = shared.near.load(Ordering::Acquire) != 0;
            let until = if called { earliest.min(next) } else { next };
            if now >= until {
                break;
            }
            thread::park_timeout(until - now);
        }
        began = Instant::now();
        if !look(shared, &mut seen) {
            return;
        }
        // A look out of turn does not shift the others.
        if began < next {
            next -= shared.interval;
        }
    }
}

/// Looks once. `false`: there is nothing to write to any more.
fn look(shared: &Shared, seen: &mut Seen) -> bool {
    match shared.whereabouts() {
        Whereabouts::There => seen.said_elsewhere = false,
        Whereabouts::Elsewhere if !seen.said_elsewhere => {
            seen.said_elsewhere = true;
            say(&shared.path, "is not in its place any more: what is recorded ends with this process");
        }
        Whereabouts::Elsewhere => {}
        Whereabouts::CutShort => {
            say(&shared.path, "was cut short by somebody: recording has ended");
            shared.end(None);
            return false;
        }
    }
    let near = shared.near.swap(0, Ordering::Acquire);
    let mut snapshot = crate::snapshot();
    let moment = shared.moment(snapshot.at, snapshot.taken);
    let mut writer = lock(&shared.writer);
    let Some(writing) = &mut *writer else { return false };
    write_limits(writing, moment, near, seen.snapshot.as_ref(), &snapshot);
    write_anomalies(writing, moment, seen.snapshot.as_ref(), &snapshot);
    seen.pause_ended_ns = write_pauses(writing, seen.pause_ended_ns);
    writing.snapshot(moment, &mut snapshot);
    drop(writer);
    if bus::was_struck() {
        say(&shared.path, "cannot be written any more (it was cut short, or its disk failed): recording has ended");
        shared.end(None);
        return false;
    }
    seen.snapshot = Some(snapshot);
    true
}

/// What limits did since the look before, and which of them called.
fn write_limits(writer: &mut Writer<MmapMut>, moment: Moment, near: u8, earlier: Option<&Snapshot>, later: &Snapshot) {
    let limits = &later.heap.limits;
    let before = earlier.map(|its| its.heap.limits).unwrap_or_default();
    let (soft, hard) = (limits.memory_limit, limits.hard_limit);
    let called = |kind: LimitKind| u64::from(near >> kind as u8 & 1);
    for (kind, times, limit_bytes) in [
        (LimitKind::NearMemoryLimit, called(LimitKind::NearMemoryLimit), soft),
        (LimitKind::NearHardLimit, called(LimitKind::NearHardLimit), hard),
        (LimitKind::Assist, limits.assists.saturating_sub(before.assists), soft),
        (LimitKind::Exceeded, limits.exceeded.saturating_sub(before.exceeded), soft),
        (LimitKind::Refused, limits.refusals.saturating_sub(before.refusals), hard),
        (LimitKind::Fuse, limits.fuse_trips.saturating_sub(before.fuse_trips), hard),
    ] {
        if times > 0 {
            writer.limit(moment, LimitFields { kind, times, held_bytes: limits.held as u64, limit_bytes });
        }
    }
}

/// What rules find strange between two looks.
fn write_anomalies(writer: &mut Writer<MmapMut>, moment: Moment, earlier: Option<&Snapshot>, later: &Snapshot) {
    let Some(earlier) = earlier else { return };
    later.each_anomaly_since(&earlier.heap, |found| {
        // On the stack: this thread allocates nothing. Of what is longer, whole words are kept.
        let mut text = [0_u8; TEXT_BYTES_MAX];
        let mut room = &mut text[..];
        let _ = write!(room, "{found}");
        let left = room.len();
        let text = text[..TEXT_BYTES_MAX - left].utf8_chunks().next().map_or("", |chunk| chunk.valid());
        let text = text.rsplit_once(' ').filter(|_| left == 0).map_or(text, |(whole, _)| whole);
        writer.anomaly(moment, found.kind.name(), text);
    });
}

/// The longest pauses since the newest that was written. Returns the end of the newest now.
fn write_pauses(writer: &mut Writer<MmapMut>, written_ns: u64) -> u64 {
    let mut pauses = [Pause::default(); PAUSES_KEPT];
    let count = freestone::recent_pauses(&mut pauses).min(PAUSES_KEPT);
    let pauses = &mut pauses[..count];
    let newest_ns = pauses.iter().map(|pause| pause.ended_ns).max().unwrap_or(0);
    // Longest first, those that are known already at the end. In place: sorting must not allocate.
    pauses.sort_unstable_by_key(|pause| if pause.ended_ns > written_ns { u64::MAX - pause.took_ns } else { u64::MAX });
    for pause in pauses.iter_mut().take(PAUSES_PER_INTERVAL).filter(|pause| pause.ended_ns > written_ns) {
        writer.pause(pause);
    }
    newest_ns.max(written_ns)
}

/// One line on standard error. Allocates nothing.
fn say(path: &Path, what: &str) {
    // That nobody listens is no reason to panic.
    let _ = writeln!(io::stderr(), "freestone: the recording {} {what}", path.display());
}

/// Has a last word written when the process exits.
fn say_farewell_at_exit() {
    static REGISTERED: Once = Once::new();
    // SAFETY: a function that does not unwind, of a library that stays.
    REGISTERED.call_once(|| unsafe {
        libc::atexit(farewell);
    });
}

extern "C" fn farewell() {
    // Relaxed: see where it is written.
    if ACTIVE_PID.load(Ordering::Relaxed) != process::id() {
        return;
    }
    // Whoever exits may hold anything, so nobody waits here for long.
    let Some(active) = patiently(&ACTIVE) else { return };
    let Some(shared) = active.as_ref() else { return };
    let Some(mut writer) = patiently(&shared.writer) else { return };
    shared.end_with(&mut writer, Some(Ending::Exited));
}

/// Locks within a tenth of a second, or not at all.
fn patiently<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    for _ in 0..100 {
        match mutex.try_lock() {
            Ok(guard) => return Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(1)),
        }
    }
    None
}

fn unix_ns(taken: std::time::SystemTime) -> u64 {
    taken.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

/// The clock of [`Pause::ended_ns`], and of [`Instant`], which does not tell.
fn steady_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the place to write to is valid.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

fn page_bytes() -> u64 {
    // SAFETY: any name may be asked for.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(0)
}

/// See [`super::costs`].
#[doc(hidden)]
pub struct Costs {
    writer: Writer<MmapMut>,
    number: u64,
    started: (Instant, Moment),
    buffer: [u8; SLOT_BYTES_MAX],
}

impl fmt::Debug for Costs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Costs").finish_non_exhaustive()
    }
}

impl Costs {
    /// A recording that nobody writes to but who measures.
    ///
    /// # Errors
    ///
    /// See [`start`](super::start).
    pub fn new(path: &Path, bytes: usize) -> Result<Self, StartError> {
        let Made { mut writer, started, .. } = make(path, super::INTERVAL, bytes)?;
        bus::guard(writer.memory());
        Ok(Self { writer, number: 0, started, buffer: [0; SLOT_BYTES_MAX] })
    }

    /// How many snapshots it holds.
    #[must_use]
    pub fn snapshots(bytes: usize) -> u64 {
        Ring::of_file(bytes)[0].slots
    }

    /// As the thread does it: made, and stored into the map.
    pub fn store(&mut self, snapshot: &mut Snapshot) {
        self.writer.snapshot(self.moment(snapshot), snapshot);
    }

    /// Only made: a whole slot, for who writes it in another way.
    pub fn encode(&mut self, snapshot: &mut Snapshot) -> &[u8] {
        self.number += 1;
        let moment = self.moment(snapshot);
        let length = writer::slot(&mut self.buffer, self.number, 0, |encoder| Recorded { moment, snapshot }.fields(encoder));
        &self.buffer[..length]
    }

    fn moment(&self, snapshot: &Snapshot) -> Moment {
        let since = snapshot.at.saturating_duration_since(self.started.0).as_nanos() as u64;
        Moment { unix_ns: unix_ns(snapshot.taken), steady_ns: self.started.1.steady_ns + since }
    }
}
