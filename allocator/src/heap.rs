//! Floor 11. The heap of this process: the one place with statics. Wires the rooms together, gives every thread its record and takes it
//! back at the thread's end, and keeps the whole in one piece across `fork`.
//!
//! A thread has one word of thread-local memory, which says where its hot slots are, or which of the empty heaps stands in for them:
//!
//! ```text
//!   UNBORN ──first operation──▶ a record ──last round of destructors──▶ GONE
//!      │                           │                                     │
//!      └───────── BUSY, while a slow path is under way ──────────────────┘
//!
//!   a record ◀──slow path── AWAY: the thread slept, and somebody took what it cached
//! ```
//!
//! `UNBORN`, `GONE`, `AWAY` and `BUSY` are empty heaps: every operation on them takes the slow path, which then sees what to do. A thread that is
//! gone works block by block on central. A slow path that finds `BUSY` was called by a signal handler that interrupted another slow
//! path of the same thread; it refuses, because the locks it would need may be held by the very code that it interrupted. `FORKING` is as
//! `BUSY`, from the moment a fork has all locks until it begins to give them back.

use core::ffi::c_void;
use core::mem::MaybeUninit;
use core::ops::Range;
use core::ptr::NonNull;

use crate::anomaly::{Anomaly, Kind};
use crate::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering, compiler_fence, fence};
use crate::background::{Background, Purpose};
use crate::config::{
    ASSIST_SLICE_NS, BACKGROUND_FREE_BYTES, CALM_TICK_NS, CHECKED, DROP_BYTES, RELEASE_GAP_NS, RELEASE_SLICE_NS,
    RETAIN_ALWAYS_BYTES, TICK_NS,
};
use crate::counters::{Event, Tallied};
use crate::fatal::{Misuse, NoWayOut, broken, complain, misuse, say_fuse};
use crate::frames::{self, Caller, StackBounds};
use crate::guard::{Guard, HeldEvent, Watcher};
use crate::large::{Growing, LargeBlock};
use crate::limit::Call;
use crate::options::{Check, Fuse, Limit, Options, Retain, Trace as TraceLevel};
use crate::os;
use crate::page_heap::ALIGN_MAX;
use crate::pauses::{Pause, PauseKind};
use crate::recall::Recaller;
use crate::requests::Requests;
use crate::sampling::Request;
use crate::sampling::guarded::Actor;
use crate::scavenger::{House, Scavenger, Slice};
use crate::site::StallKind;
use crate::size_class::{Shape, SizeClass};
use crate::snapshot::{self, Snapshot};
#[cfg(freestone_c)]
use crate::span::page_table::SEED_BYTE;
use crate::supply::Supply;
use crate::surroundings;
use crate::sync::{Lock, Rank, waits};
use crate::system_heap;
use crate::thread_cache::record::{HotSlots, Life, Record};
use crate::thread_cache::registry::Registry;
use crate::thread_cache::{alloc_direct, birth, free_direct, leave_if_followed};
use crate::thread_snapshot::{self, ThreadSnapshot};
use crate::trace::{Fields, Past, Trace};
use crate::units::{PAGE_BYTES, in_sampled_zone};
use crate::word::{self, AWAY, BUSY, FORKING, GONE, UNBORN};

/// Is a slow path of the calling thread under way?
fn is_busy(slots: *const HotSlots) -> bool {
    slots == BUSY || slots == FORKING
}

/// The heap: the shared rooms, the records, and what gives memory back. All zeros at first, so that it takes no place in the program's file;
/// and in this order, see [`Supply`]. Aligned, so that what small programs write to begins with a page, and they touch one page less.
#[repr(C, align(4096))]
struct Heap {
    registry: Registry<Record>,
    scavenger: Scavenger,
    recaller: Recaller,
    guard: Guard,
    background: Background,
    trace: Trace,
    /// The watcher has to be told that the fuse tripped …
    tell_fuse: AtomicBool,
    /// … or that a mark was reached.
    tell: AtomicBool,
    /// The process is to end, once that was told.
    to_exit: AtomicBool,
    started: AtomicBool,
    /// When the first operation was.
    began_ns: AtomicU64,
    /// Who serves the program: [`UNDECIDED`] before its first operation, then [`OURS`] or [`BYPASSED`].
    service: AtomicU8,
    /// The key whose destructor tells of a thread's end, plus one; 0: there is none, and records of ended threads are found otherwise.
    exit_key: AtomicU32,
    /// Records of threads that ended unnoticed are looked for when there are so many, and at least [`REAP_AT_LEAST`].
    reap_at: AtomicU32,
    /// While a fork is under way: what stands in the word of the thread that forks otherwise.
    forking: AtomicPtr<HotSlots>,
    /// Forks that signal handlers made in the middle of that.
    forks_within: AtomicU32,
    /// The options in force, from when it has started on. Held while hooks are set.
    options: Lock<MaybeUninit<Options>>,
    supply: Supply,
    /// What the trace said last. Behind all that others touch.
    past: Lock<Past>,
}

/// See [`Heap::service`].
const UNDECIDED: u8 = 0;
/// This allocator does.
const OURS: u8 = 1;
/// The system's does: `bypass:1`. No thread is ever born then, so every operation takes its slow path and finds out here.
const BYPASSED: u8 = 2;

/// See [`Heap::reap_at`].
const REAP_AT_LEAST: usize = 8;

static HEAP: Heap = Heap {
    registry: Registry::new(),
    scavenger: Scavenger::new(),
    recaller: Recaller::new(),
    guard: Guard::new(),
    background: Background::new(),
    trace: Trace::new(),
    tell_fuse: AtomicBool::new(false),
    tell: AtomicBool::new(false),
    to_exit: AtomicBool::new(false),
    started: AtomicBool::new(false),
    began_ns: AtomicU64::new(0),
    service: AtomicU8::new(UNDECIDED),
    exit_key: AtomicU32::new(0),
    reap_at: AtomicU32::new(0),
    forking: AtomicPtr::new(core::ptr::null_mut()),
    forks_within: AtomicU32::new(0),
    options: Lock::new(Rank::Start, MaybeUninit::zeroed()),
    supply: Supply::new(),
    past: Lock::new(Rank::Trace, Past::new()),
};

/// What slow paths and the background thread work on.
fn house() -> House<'static> {
    House { supply: &HEAP.supply, registry: &HEAP.registry, recaller: &HEAP.recaller, away: AWAY }
}

/// Takes a slow path of the calling thread: [`BUSY`] stands in for its slots meanwhile, and `errno` is kept for the program. `work` gets the
/// thread's record, or `None` if the thread is gone or cannot be born for lack of memory.
///
/// `None`: a slow path is under way already, further up this stack.
#[inline]
fn slow_path<R>(options: &Options, work: impl FnOnce(Option<&'static Record>) -> R) -> Option<R> {
    let before = word::load();
    if is_busy(before) {
        return None;
    }
    let errno = os::KeepErrno::new();
    word::store(BUSY);
    // An allocator must not unwind, and the rooms may be half changed: this is one of our own assertions.
    let no_way_out = NoWayOut("a slow path panicked");
    let mut after = before;
    let record = if before == GONE {
        None
    } else if before == UNBORN {
        let record = born(options);
        after = record.map_or(before, |record| core::ptr::from_ref(record.hot()));
        record
    } else if before == AWAY {
        // Only threads that have one with them are ever sent away.
        let record = own_record().unwrap_or_else(|| broken("a thread without a record had its cache taken"));
        after = core::ptr::from_ref(record.hot());
        Some(record)
    } else {
        // SAFETY: none of the empty heaps, so these are the hot slots of a record, which begin it.
        Some(unsafe { &*before.cast::<Record>() })
    };
    if let Some(record) = record {
        // Either we see that the cache was taken, or who takes it sees `BUSY`: the other side has every thread go through a barrier.
        compiler_fence(Ordering::SeqCst);
        if record.recalled.load(Ordering::Relaxed) != 0 {
            HEAP.recaller.settle(record, &HEAP.supply);
            HEAP.supply.page_heap.marks.flushed();
        }
    }
    let result = work(record);
    let is_time = record.is_none_or(|record| record.next_entry().is_multiple_of(ENTRIES_PER_LOOK));
    let attention = (is_time || HEAP.supply.page_heap.marks.has_calls()) && look_around(record, is_time);
    core::mem::forget(no_way_out);
    word::store(after);
    if attention {
        attend();
    }
    drop(errno);
    Some(result)
}

/// The record of the calling thread, whose word does not say which: it was left with the thread when that was born, and stays with it in the
/// child of a fork.
fn own_record() -> Option<&'static Record> {
    // Relaxed: written before the heap counted as started.
    let key = HEAP.exit_key.load(Ordering::Relaxed).checked_sub(1)?;
    // SAFETY: null, or what `born` set: a record, which is there for good.
    unsafe { os::exit_value(key).cast::<Record>().as_ref() }
}

/// In [`Record::word`]: the thread's end will be noticed, so its word may be told.
const WORD_TO_COME: usize = 1;

/// Slow entries of a thread between two looks at the clock.
const ENTRIES_PER_LOOK: u32 = 32;

// ---- giving memory back --------------------------------------------------------------------------------------------

/// At the end of a slow path, still in it, with no lock held: does what falls to this thread. `true`: there is more that can only be done
/// outside of any slow path.
#[cold]
#[inline(never)]
fn look_around(record: Option<&Record>, is_time: bool) -> bool {
    let (scavenger, marks) = (&HEAP.scavenger, &HEAP.supply.page_heap.marks);
    let now_ns = os::now_ns();
    if marks.answer(Call::Assist) {
        assist(record, now_ns);
    }
    if !HEAP.background.is_there() {
        let urged = marks.answer(Call::Urge) && patient(record, now_ns);
        if urged {
            scavenger.urge();
        }
        let ticked = scavenger.tick_if_due(now_ns, house());
        if ticked {
            HEAP.guard.look(now_ns, &HEAP.supply.page_heap);
        }
        let free = free_bytes();
        HEAP.background.look(free, now_ns);
        if !HEAP.background.is_wanted() && scavenger.must_drop(free, HEAP.supply.page_heap.held(), now_ns) {
            if let Some(record) = record {
                record.drain(&HEAP.supply);
            }
            scavenger.drop_now(&HEAP.supply);
        }
        if urged || ticked || scavenger.has_more(now_ns) {
            let slice_ns = if urged { ASSIST_SLICE_NS } else { RELEASE_SLICE_NS };
            let began_cpu_ns = if urged { os::thread_cpu_ns() } else { 0 };
            let _ = scavenger.work(slice_ns, house());
            if urged {
                spend(record, began_cpu_ns);
            }
        }
        trace_if_due(now_ns);
    }
    if let Some(record) = record {
        if is_time && record.word.load(Ordering::Relaxed) == WORD_TO_COME {
            // The word is there until the thread's end says otherwise (I-word). Not said at birth: a thread whose first allocation is in the last
            // round of its destructors ends without a word, but hardly after so many slow entries.
            record.word.store(core::ptr::from_ref(word::place()).expose_provenance(), Ordering::Relaxed);
        }
        // Relaxed: the owner's own.
        let sheds = scavenger.sheds();
        if record.sheds.swap(sheds, Ordering::Relaxed) != sheds {
            record.drain(&HEAP.supply);
        } else if let Some(before) = record.shed_is_due(scavenger.now()) {
            record.shed_idle(before, &HEAP.supply);
        }
    }
    marks.has_calls() || HEAP.background.is_wanted()
}

/// May this thread be made to give memory back?
fn patient(record: Option<&Record>, now_ns: u64) -> bool {
    let Some(record) = record else { return true };
    let mut patience = record.patience();
    let allows = patience.allows(now_ns);
    record.set_patience(patience);
    allows
}

/// It was, since it had used this processor for `began_cpu_ns`. What others use it for meanwhile is no reason to do less.
fn spend(record: Option<&Record>, began_cpu_ns: u64) {
    let Some(record) = record else { return };
    let mut patience = record.patience();
    patience.spent(os::thread_cpu_ns().saturating_sub(began_cpu_ns), os::now_ns());
    record.set_patience(patience);
}

/// Writes what the trace has to say, if it has. In a slow path or in the background thread, with no lock held.
#[inline]
fn trace_if_due(now_ns: u64) {
    if HEAP.trace.is_due(now_ns) {
        write_trace(now_ns);
    }
}

#[cold]
#[inline(never)]
fn write_trace(now_ns: u64) {
    let Some(turn) = HEAP.trace.take_turn(now_ns) else { return };
    // What this thread gave back until now is told now.
    let now_ns = os::now_ns();
    // One after the other, each with a frame of its own: lines are long, and whoever came here may have a small stack.
    if turn.is_first {
        write_start(now_ns);
    }
    for release in 0..PauseKind::RELEASES.len() {
        write_release(release, now_ns);
    }
    if turn.ends_interval {
        write_interval();
    }
}

/// The trace begins.
#[inline(never)]
fn write_start(now_ns: u64) {
    HEAP.past.lock().forget();
    let limits = HEAP.guard.snapshot(&HEAP.supply.page_heap);
    HEAP.trace.say(&mut HEAP.trace.start(now_ns, &options_in_force(), [limits.memory_limit, limits.hard_limit]));
}

/// Memory was given back, perhaps.
#[inline(never)]
fn write_release(release: usize, now_ns: u64) {
    let trace = &HEAP.trace;
    let line = HEAP.past.lock().release(release, now_ns, trace, &HEAP.supply.page_heap.pauses, HEAP.background.is_there());
    if let Some(mut line) = line {
        trace.say(&mut line);
    }
}

/// An interval of the trace is over.
#[inline(never)]
fn write_interval() {
    let trace = &HEAP.trace;
    let resident = surroundings::resident_bytes();
    let (mut line, mut found) = (Fields::new(), [None; Kind::COUNT]);
    let told = {
        let mut past = HEAP.past.lock();
        snapshot_into(past.next());
        past.interval(resident, trace, &HEAP.supply.page_heap.pauses, &mut line, &mut found)
    };
    let Some(at_ns) = told else { return };
    trace.say(&mut line);
    if trace.tells_anomalies() {
        for anomaly in found.iter().flatten() {
            write_anomaly(at_ns, anomaly);
        }
    }
}

/// As above: with a frame of its own.
#[inline(never)]
fn write_anomaly(at_ns: u64, anomaly: &Anomaly) {
    HEAP.trace.say(&mut HEAP.trace.anomaly(at_ns, anomaly));
}

/// Somebody took memory above the soft limit: as much is given back, here and now, if there is any.
fn assist(record: Option<&Record>, now_ns: u64) {
    let debt = HEAP.supply.page_heap.marks.take_debt();
    let exceeded = || HEAP.guard.exceeded(debt, &HEAP.supply.page_heap);
    if debt == 0 {
        return;
    }
    if !patient(record, now_ns) {
        exceeded();
        return;
    }
    let began_cpu_ns = os::thread_cpu_ns();
    let released = HEAP.scavenger.assist(debt, &HEAP.supply);
    HEAP.guard.assisted(debt, &HEAP.supply.page_heap);
    if released < debt {
        exceeded();
    }
    spend(record, began_cpu_ns);
}

/// Outside of any slow path: wakes or starts the background thread, or does for it what cannot wait.
#[cold]
#[inline(never)]
fn attend() {
    let (background, page_heap) = (&HEAP.background, &HEAP.supply.page_heap);
    let marks = &page_heap.marks;
    if marks.answer(Call::Fuse) {
        trip_fuse();
    }
    // Relaxed: flags, and the bell orders them.
    if marks.answer(Call::Watch) {
        HEAP.tell.store(true, Ordering::Relaxed);
    }
    let wake = marks.answer(Call::Wake);
    let urge = marks.answer(Call::Urge) && HEAP.scavenger.urge();
    if background.is_there() {
        if wake || urge || HEAP.tell.load(Ordering::Relaxed) {
            background.ring();
        }
        return;
    }
    let now_ns = os::now_ns();
    background.look(free_bytes(), now_ns);
    if background.is_wanted() {
        page_heap.counters.count(Event::BackgroundStart);
        if background.start(now_ns, background_thread) {
            return;
        }
        page_heap.counters.count(Event::Refused);
        set_free_mark();
    }
    tell_watcher();
}

/// Memory that could be given back, free blocks within spans included. An estimate; zero where the heap is small, or keeps what it has.
fn free_bytes() -> usize {
    let page_heap = &HEAP.supply.page_heap;
    let keeps = page_heap.held() < BACKGROUND_FREE_BYTES || HEAP.scavenger.retain() == Retain::Keep;
    if keeps { 0 } else { page_heap.free() + HEAP.supply.free_within_spans() }
}

/// Where free memory has somebody called who starts the background thread, or does without.
fn set_free_mark() {
    let mark = match HEAP.scavenger.retain() {
        Retain::Keep => usize::MAX,
        _ if HEAP.background.is_forbidden() || HEAP.background.was_refused() => DROP_BYTES,
        _ => BACKGROUND_FREE_BYTES,
    };
    HEAP.supply.page_heap.marks.set_free(mark);
}

/// Tells the watcher what there is to tell. The calling thread is in no slow path.
fn tell_watcher() {
    /// What the watcher does may be another thing that it has to be told; more often than this it waits for the next occasion.
    const ROUNDS: u32 = 8;
    for _ in 0..ROUNDS {
        let mut told = false;
        // Relaxed: flags; each is taken by one thread.
        for (flag, fuse) in [(&HEAP.tell_fuse, true), (&HEAP.tell, false)] {
            if flag.load(Ordering::Relaxed) && flag.swap(false, Ordering::Relaxed) {
                let event = HeldEvent { held_bytes: HEAP.supply.page_heap.held(), fuse };
                told = HEAP.guard.tell(event);
                if !told {
                    // Whoever is telling it something else looks again afterwards.
                    flag.store(true, Ordering::Relaxed);
                }
            }
        }
        if !told {
            break;
        }
    }
    if HEAP.to_exit.load(Ordering::Relaxed) {
        os::exit(EXIT_CODE_MEMORY);
    }
}

/// What container platforms read as "out of memory": 128 and the number of the signal that the kernel would have sent.
const EXIT_CODE_MEMORY: i32 = 137;
/// How long the thread at which the fuse trips waits for the background thread to end the process. It may hold a lock that a callback
/// waits for.
const EXIT_PATIENCE_NS: u64 = 2_000_000_000;

/// The hard limit is near: says so, has the watcher told, and ends the process if that was chosen. With a frame of its own: whoever
/// only wakes the background thread needs little stack.
#[cold]
#[inline(never)]
fn trip_fuse() {
    let Some(trips) = undisturbed(|| HEAP.guard.trips(os::now_ns(), &HEAP.supply.page_heap)) else { return };
    let exits = undisturbed(options_in_force).fuse == Fuse::Exit;
    // Not on the stack, of which this thread may have little.
    let (bytes, limits) = undisturbed(|| {
        let mut past = HEAP.past.lock();
        let now = past.next();
        snapshot_into(now);
        (now.bytes, now.limits)
    });
    say_fuse(trips, &bytes.accounts(), limits.held, limits.hard_limit.unwrap_or(0), exits);
    // Relaxed: flags, and the bell orders them.
    HEAP.tell_fuse.store(true, Ordering::Relaxed);
    HEAP.to_exit.store(exits, Ordering::Relaxed);
    if HEAP.background.is_there() {
        HEAP.background.ring();
        if exits {
            let never = AtomicU32::new(0);
            os::wait_for(&never, 0, EXIT_PATIENCE_NS);
            os::exit(EXIT_CODE_MEMORY);
        }
    } else {
        tell_watcher();
    }
}

/// What the background thread does all its life.
extern "C" fn background_thread(_: *mut c_void) -> *mut c_void {
    let (background, scavenger, page_heap) = (&HEAP.background, &HEAP.scavenger, &HEAP.supply.page_heap);
    // Its own slots, for callbacks, which may allocate; between them it is in a slow path.
    let mut mine = UNBORN;
    word::store(BUSY);
    background.begin();
    page_heap.marks.set_free(usize::MAX);
    let mut is_marked = false;
    loop {
        let rings = background.rings();
        if background.is_forbidden() {
            break;
        }
        let now_ns = os::now_ns();
        if scavenger.tick_if_due(now_ns, house()) {
            HEAP.guard.look(now_ns, page_heap);
        }
        let slice = scavenger.work(RELEASE_SLICE_NS, house());
        trace_if_due(now_ns);
        word::store(mine);
        if page_heap.marks.answer(Call::Watch) {
            HEAP.tell.store(true, Ordering::Relaxed);
        }
        tell_watcher();
        mine = word::load();
        word::store(BUSY);
        if slice != Slice::Calm && is_marked {
            is_marked = false;
            page_heap.marks.set_free(usize::MAX);
        }
        match slice {
            Slice::More if scavenger.is_urgent() => {}
            Slice::More => background.sleep(rings, RELEASE_GAP_NS),
            Slice::Done => {
                let now_ns = os::now_ns();
                background.sleep(rings, scavenger.ns_to_tick(now_ns).min(HEAP.trace.ns_to_line(now_ns)).max(RELEASE_GAP_NS));
            }
            // Caches that may fall asleep, limits that others come near to, lines that are due: those need a look now and then.
            Slice::Calm if HEAP.trace.is_on() || HEAP.guard.must_look() || Scavenger::has_caches(house()) => {
                background.sleep(rings, CALM_TICK_NS.min(HEAP.trace.ns_to_line(os::now_ns()).max(RELEASE_GAP_NS)));
            }
            Slice::Calm if !is_marked => {
                // From here on whoever frees anything rings. What became free before is seen by one more tick.
                is_marked = true;
                page_heap.marks.set_free(if scavenger.retain() == Retain::Keep { usize::MAX } else { RETAIN_ALWAYS_BYTES });
                // SeqCst: see `Marks::freed`.
                fence(Ordering::SeqCst);
                background.sleep(rings, TICK_NS);
            }
            Slice::Calm => {
                background.park(rings);
                is_marked = false;
                page_heap.marks.set_free(usize::MAX);
                scavenger.wake();
            }
        }
    }
    set_free_mark();
    background.end();
    word::store(mine);
    core::ptr::null_mut()
}

// ---- birth and death -----------------------------------------------------------------------------------------------

/// A thread's first operation.
#[cold]
fn born(options: &Options) -> Option<&'static Record> {
    if !is_started() {
        start(options);
    }
    // Relaxed: written before `started`.
    if HEAP.service.load(Ordering::Relaxed) == BYPASSED {
        return None;
    }
    reap_unnoticed();
    let record = birth(&HEAP.registry, &HEAP.supply)?;
    // Relaxed: for readers of numbers, who only compare it.
    record.tls.store(core::ptr::from_ref(word::place()).addr(), Ordering::Relaxed);
    // Relaxed: written before `started`.
    if let Some(key) = HEAP.exit_key.load(Ordering::Relaxed).checked_sub(1) {
        // If this fails, the end of the thread goes unnoticed, and its record is found by `reap_unnoticed`.
        let is_set = os::set_exit_value(key, core::ptr::from_ref(record).cast());
        record.word.store(if is_set { WORD_TO_COME } else { 0 }, Ordering::Relaxed);
    }
    // Whoever would give its cache back if it slept may be asleep itself.
    HEAP.supply.page_heap.marks.flushed();
    Some(record)
}

/// Are the options in force? From then on those that a caller hands in are not looked at.
fn is_started() -> bool {
    // Acquire: sees the hooks that the starter set. Pairs with the Release in `start`.
    HEAP.started.load(Ordering::Acquire)
}

/// Does the system's allocator serve this program? Decided at the first operation.
#[inline]
pub(crate) fn is_bypassed(options: &Options) -> bool {
    // Relaxed: who sees the decision needs nothing else of what led to it; births look at `started`.
    match HEAP.service.load(Ordering::Relaxed) {
        UNDECIDED => decide(options),
        service => service == BYPASSED,
    }
}

#[cold]
fn decide(options: &Options) -> bool {
    if is_busy(word::load()) {
        // The C library allocates while it is asked for what a heap needs at first.
        return false;
    }
    undisturbed(|| start(options));
    HEAP.service.load(Ordering::Relaxed) == BYPASSED
}

/// The heap's first operation: options and hooks.
#[cold]
fn start(options: &Options) {
    let mut chosen = HEAP.options.lock();
    // Relaxed: the lock orders it.
    if HEAP.started.load(Ordering::Relaxed) {
        return;
    }
    let mut in_force = *options;
    if let Some(text) = os::environment(c"FREESTONE") {
        in_force.apply(text, |complaint| complain("FREESTONE", complaint));
    }
    if let Some(text) = os::environment(c"FREESTONE_MEMORY_LIMIT")
        && let Err(complaint) = in_force.set(b"memory_limit", text.trim_ascii())
    {
        complain("FREESTONE_MEMORY_LIMIT", complaint);
    }
    in_force.bypass &= system_heap::exists();
    chosen.write(in_force);
    if in_force.bypass {
        HEAP.service.store(BYPASSED, Ordering::Relaxed);
        // Release: see `born`.
        HEAP.started.store(true, Ordering::Release);
        return;
    }
    HEAP.service.store(OURS, Ordering::Relaxed);
    let now_ns = os::now_ns();
    HEAP.scavenger.begin(now_ns);
    HEAP.supply.page_heap.pauses.pace.begin(now_ns, os::cycles());
    HEAP.began_ns.store(now_ns, Ordering::Relaxed);
    HEAP.trace.begin(now_ns);
    put_in_force(&in_force);
    // Relaxed: published by `started`.
    HEAP.exit_key.store(os::exit_key(thread_ends).map_or(0, |key| key + 1), Ordering::Relaxed);
    // If this fails there is no memory for a list entry of the C library; a fork then needs luck, as with any other allocator.
    let _ = os::at_fork(before_fork, after_fork_in_parent, after_fork_in_child);
    // Release: see `born`.
    HEAP.started.store(true, Ordering::Release);
}

/// Tells every room what was chosen.
fn put_in_force(options: &Options) {
    let page_heap = &HEAP.supply.page_heap;
    HEAP.supply.set_check_every_exchange(options.check == Check::Exchange);
    #[cfg(freestone_c)]
    HEAP.supply.zero.set_usable(options.zero_size == crate::options::ZeroSize::Usable);
    page_heap.set_huge_pages(options.huge_pages);
    let stall_ns = u64::try_from(options.stall_above.as_nanos()).unwrap_or(u64::MAX);
    HEAP.supply.choices.choose(options.sample_interval, options.sample_above, stall_ns, options.profile_memory);
    HEAP.supply.choices.choose_guarded(options.guard_interval, options.fault_report.then_some(&FAULT_WATCHER));
    HEAP.scavenger.set_retain(options.retain);
    // Before the thread is woken, which looks at it.
    HEAP.trace.set(options);
    match options.trace {
        TraceLevel::Off => HEAP.background.no_longer(Purpose::Trace),
        _ => HEAP.background.ask_for(Purpose::Trace),
    }
    HEAP.background.choose(options.background, options.face);
    if !HEAP.background.is_there() {
        set_free_mark();
    }
    // Most programs have no limits: theirs are not put together out of files that nobody needs.
    let is_limited = |limit: Limit| limit != Limit::None;
    if is_limited(options.memory_limit) || is_limited(options.hard_limit) || is_started() {
        HEAP.guard.set(options.memory_limit, options.hard_limit, page_heap);
    }
    // The next slow path looks whether there is to be a thread.
    page_heap.marks.call(Call::Wake);
}

/// Keeps signal handlers that allocate out of what the calling thread is doing: they are refused, because they might need its locks.
fn undisturbed<R>(work: impl FnOnce() -> R) -> R {
    let before = word::load();
    word::store(BUSY);
    let before = or_away(before);
    let result = work();
    word::store(before);
    result
}

/// What the calling thread's word is to be when `BUSY` is over: what it was, unless somebody took the thread's cache just before it was `BUSY`.
fn or_away(before: *const HotSlots) -> *const HotSlots {
    compiler_fence(Ordering::SeqCst);
    if !word::is_record(before) {
        return before;
    }
    // SAFETY: none of the empty heaps, so these are the hot slots of a record, which begin it.
    let record = unsafe { &*before.cast::<Record>() };
    // Relaxed: as in `slow_path`. The next operation takes the slow path, and sees what became of it.
    if record.recalled.load(Ordering::Relaxed) == 0 { before } else { AWAY }
}

/// Runs in every thread that ends, once per round of destructors. Other destructors may still allocate, so the record is kept until the
/// last round; who comes later is served without one.
unsafe extern "C" fn thread_ends(record: *mut c_void) {
    // SAFETY: the value that `born` set.
    let record = unsafe { &*record.cast::<Record>() };
    // Relaxed: the owner's own field.
    let round = usize::from(record.exit_rounds.load(Ordering::Relaxed)) + 1;
    record.exit_rounds.store(round as u8, Ordering::Relaxed);
    let key = HEAP.exit_key.load(Ordering::Relaxed).wrapping_sub(1);
    if round < os::EXIT_ROUNDS && os::set_exit_value(key, core::ptr::from_ref(record).cast()) {
        return;
    }
    word::store(GONE);
    // AcqRel: whoever takes the number away has the record; `reap_unnoticed` may have seen it while this thread was still about.
    if record.thread.swap(0, Ordering::AcqRel) != 0 {
        undisturbed(|| leave_to_next(record));
    }
}

fn leave_to_next(record: &'static Record) {
    HEAP.recaller.retire(record, &HEAP.supply);
    // Relaxed: the registry's lock orders it.
    record.pooled_tick.store(HEAP.scavenger.now(), Ordering::Relaxed);
    record.set_life(Life::Pooled);
    HEAP.registry.pool(record);
}

/// Finds records whose threads ended without our destructor running: born in a destructor of the last round, or killed by a bare `exit`
/// system call. Looks each time the number of records has doubled without any being found.
fn reap_unnoticed() {
    // Relaxed, here and below: a threshold.
    if HEAP.registry.pooled() > 0 || HEAP.registry.count() < REAP_AT_LEAST.max(HEAP.reap_at.load(Ordering::Relaxed) as usize) {
        return;
    }
    let mut found = 0;
    let process = os::process_id();
    // One that was left in the middle of a change is of no use.
    let is_whole = |record: &Record| !record.is_being_changed() || record.recalled.load(Ordering::Relaxed) != 0;
    for record in HEAP.registry.records().filter(|record| record.life() == Life::Active && is_whole(record)) {
        let thread = record.thread.load(Ordering::Relaxed);
        // Two newborns may look at the same time; only the one that changes the number has the record.
        if thread != 0
            && record.process.load(Ordering::Relaxed) == process
            && os::thread_is_gone(thread)
            && record.thread.compare_exchange(thread, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        {
            leave_to_next(record);
            found += 1;
        }
    }
    if found == 0 {
        HEAP.reap_at.store(2 * HEAP.registry.count() as u32, Ordering::Relaxed);
    }
}

// ---- allocating ----------------------------------------------------------------------------------------------------

/// The calling thread's record, if it has one and no slow path is under way.
#[inline]
pub(crate) fn current_record() -> Option<&'static Record> {
    let slots = word::load();
    // SAFETY: none of the empty heaps, so these are the hot slots of a record, which begin it.
    word::is_record(slots).then(|| unsafe { &*slots.cast::<Record>() })
}

frames::entry! {
    /// A block that the fast path did not have. Null: no memory.
    #[cold]
    pub(crate) fn alloc_slow(size: usize, align: usize, options: &Options) -> *mut u8 => alloc_slow_from
}

frames::entry! {
    /// As [`alloc_slow()`], for a block that takes the place of another one.
    #[cold]
    pub(crate) fn grow_slow(size: usize, align: usize, options: &Options) -> *mut u8 => grow_slow_from
}

frames::entry! {
    /// A block beyond the split classes, all zero: zeroes what is not known to be, and nothing else.
    pub(crate) fn alloc_zeroed(size: usize, align: usize, options: &Options) -> *mut u8 => alloc_zeroed_from
}

fn alloc_slow_from(size: usize, align: usize, options: &Options, caller: Caller) -> *mut u8 {
    alloc_slow_of(&Request { size, align, grown: false, caller: &caller }, options)
}

fn grow_slow_from(size: usize, align: usize, options: &Options, caller: Caller) -> *mut u8 {
    alloc_slow_of(&Request { size, align, grown: true, caller: &caller }, options)
}

/// See [`alloc_slow()`].
#[inline]
pub(crate) fn alloc_slow_of(request: &Request<'_>, options: &Options) -> *mut u8 {
    let Request { size, align, .. } = *request;
    if let Some(class) = SizeClass::split(size, align)
        && let Some(block) = current_record().and_then(|record| record.alloc_quickly(class))
    {
        if CHECKED {
            mark_live(block, class);
        }
        return block.as_ptr();
    }
    alloc_any(request, Growing::No, options).map_or(core::ptr::null_mut(), |block| block.address.as_ptr())
}

/// A block of any size. In the result `dirty` says how many of its bytes are not known to be zero. `None`: no memory.
#[inline(never)]
pub(crate) fn alloc_any(request: &Request<'_>, growing: Growing, options: &Options) -> Option<LargeBlock> {
    let Request { size, align, .. } = *request;
    if is_bypassed(options) {
        let address = NonNull::new(system_heap::allocate(size, align))?;
        return Some(LargeBlock { address, dirty: size });
    }
    slow_path(options, |record| {
        watched(request.caller, record, || match SizeClass::of(size, align) {
            Some(class) if growing == Growing::No => {
                if record.is_some_and(|record| Requests::is_sampled(record.entry())) {
                    HEAP.supply.requests.note(Some(class), class.bytes() - size);
                }
                let taken = insist(record, || match record {
                    Some(record) => record.alloc_slow(class, request, &HEAP.supply),
                    None => alloc_direct(class, &HEAP.supply),
                })?;
                if CHECKED && class.index() < SizeClass::INLINE_COUNT {
                    mark_live(taken.block, class);
                }
                Some(LargeBlock { address: taken.block, dirty: if taken.zeroed { 0 } else { class.bytes() } })
            }
            _ if align > ALIGN_MAX => None,
            _ => {
                let supply = &HEAP.supply;
                if record.is_some_and(|record| Requests::is_sampled(record.entry())) {
                    supply.requests.note(None, size.wrapping_neg() % PAGE_BYTES);
                }
                let own = record.map(|record| &record.large);
                let taken = insist(record, || supply.large.allocate(size, align, growing, own, &supply.page_heap, &supply.meta))?;
                if let Some(record) = record {
                    record.follow_if_drawn(taken.block.address.addr().get(), None, taken.bytes, request, supply);
                }
                Some(taken.block)
            }
        })
    })?
}

/// Runs a slow path, and records where it was called from if it was held up: for long, or by others who held a lock.
#[inline]
fn watched<R>(caller: &Caller, record: Option<&Record>, work: impl FnOnce() -> R) -> R {
    /// Some two microseconds: as long as a sample takes. Shorter waits for locks are told with the next longer one.
    const SHORT_CYCLES: u64 = 1 << 13;
    let began = os::cycles();
    let result = work();
    let cycles = os::cycles().wrapping_sub(began);
    if cycles > SHORT_CYCLES {
        held_up(caller, record, cycles);
    }
    result
}

#[cold]
#[inline(never)]
fn held_up(caller: &Caller, record: Option<&Record>, cycles: u64) {
    let supply = &HEAP.supply;
    let Some(record) = record.filter(|record| !record.is_muted()) else { return };
    let (waited, pace) = (waits::take(), &supply.page_heap.pauses.pace);
    let ground = supply.sampling_ground();
    // No more than it took: the rest was left by an entry that was too short to be looked at, or by a reader.
    let waited = waited.min(cycles);
    if waited > 0 && supply.choices.interval() != 0 {
        supply.sampling.stalled(StallKind::Lock, pace.ns(waited), caller, &record.bounds, ground);
    }
    // A counter that went back: the thread came to a processor whose counter is behind.
    let took_ns = if cycles > u64::MAX / 2 { 0 } else { pace.ns(cycles) };
    if supply.choices.records_stall(took_ns) {
        supply.sampling.stalled(StallKind::SlowPath, took_ns, caller, &record.bounds, ground);
    }
}

fn alloc_zeroed_from(size: usize, align: usize, options: &Options, caller: Caller) -> *mut u8 {
    alloc_zeroed_of(&Request { size, align, grown: false, caller: &caller }, options)
}

/// See [`alloc_zeroed()`].
#[inline]
pub(crate) fn alloc_zeroed_of(request: &Request<'_>, options: &Options) -> *mut u8 {
    let Request { size, align, .. } = *request;
    let stacked = SizeClass::stacked(size, align);
    // SAFETY: the slots are the calling thread's.
    let popped = stacked.and_then(|class| Some((class, unsafe { word::slots()?.stack(class).pop() }?)));
    let taken = match popped {
        Some((class, taken)) => {
            if CHECKED {
                mark_live(taken.block, class);
            }
            Some(LargeBlock { address: taken.block, dirty: if taken.zeroed { 0 } else { size } })
        }
        None => alloc_any(request, Growing::No, options),
    };
    let Some(LargeBlock { address, dirty }) = taken else { return core::ptr::null_mut() };
    // SAFETY: a block of at least `size` bytes, not the caller's yet.
    unsafe { address.write_bytes(0, dirty.min(size)) };
    address.as_ptr()
}

/// Tries once more when memory is out: what lies idle may be in the way.
fn insist<T>(record: Option<&Record>, take: impl Fn() -> Option<T>) -> Option<T> {
    take().or_else(|| {
        release_idle(record);
        take()
    })
}

/// Gives back all that lies idle, the calling thread's caches included; says how many bytes it was.
#[cold]
fn release_idle(record: Option<&Record>) -> usize {
    if let Some(record) = record {
        record.drain(&HEAP.supply);
    }
    HEAP.scavenger.release_all(house())
}

frames::entry! {
    /// Takes back a block that the fast path had no room for, or does not serve.
    ///
    /// # Safety
    ///
    /// - `block` is a live block of this size and alignment, and the caller gives it up.
    #[cold]
    pub(crate) unsafe fn free_slow(block: NonNull<u8>, size: usize, align: usize, options: &Options) => free_slow_from
}

/// # Safety
///
/// - As for [`free_slow()`].
unsafe fn free_slow_from(block: NonNull<u8>, size: usize, align: usize, options: &Options, caller: Caller) {
    if let Some(class) = SizeClass::split(size, align)
        && current_record().is_some_and(|record| record.free_quickly(block, class))
    {
        return;
    }
    if is_bypassed(options) {
        // SAFETY: handed on to the caller; all blocks are the system's.
        return unsafe { system_heap::free(block.as_ptr()) };
    }
    let freed = match SizeClass::of(size, align) {
        // SAFETY: handed on to the caller.
        Some(class) => return unsafe { free_of_class(block, class, options, &caller) },
        None => free_large(block.addr().get(), options, &caller),
    };
    if let Err(kind) = freed {
        misuse(kind, block.addr().get(), None, size);
    }
}

/// Takes back a block of a class that the fast path had no room for, or does not serve.
///
/// # Safety
///
/// - `block` is a live block of this class, and the caller gives it up.
pub(crate) unsafe fn free_of_class(block: NonNull<u8>, class: SizeClass, options: &Options, caller: &Caller) {
    let done = slow_path(options, |record| {
        watched(caller, record, || match record {
            Some(record) => record.free_slow(block, class, caller, &HEAP.supply),
            None => free_direct(block, class, caller, &HEAP.supply),
        });
    });
    drop_unless(done.is_some());
}

/// Takes back a block beyond the classes, or says why it is none.
pub(crate) fn free_large(address: usize, options: &Options, caller: &Caller) -> Result<(), Misuse> {
    let freed = slow_path(options, |record| {
        watched(caller, record, || {
            leave_if_followed(address, record.map_or(0, Record::thread_number), &HEAP.supply);
            HEAP.supply.large.free(address, record.map(|record| &record.large), &HEAP.supply.page_heap)
        })
    });
    drop_unless(freed.is_some());
    freed.unwrap_or(Ok(()))
}

/// A signal handler that interrupted a slow path cannot free: its block is lost, and counted.
fn drop_unless(done: bool) {
    if !done {
        HEAP.supply.counters().count(Event::Dropped);
    }
}

/// Changes the size of a block beyond the classes without copying it. `None`: copying is the way.
///
/// # Safety
///
/// - `block` is a live block of this old size and alignment, and so is the result of the new size.
pub(crate) unsafe fn resize_large(
    block: NonNull<u8>,
    old: usize,
    new: usize,
    align: usize,
    options: &Options,
    caller: &Caller,
) -> Option<NonNull<u8>> {
    let address = block.addr().get();
    if is_bypassed(options) {
        return None;
    }
    slow_path(options, |record| {
        let (own, supply) = (record.map(|record| &record.large), &HEAP.supply);
        let followed = supply.sampling.may_follow(address).then(|| supply.sampling.lose_sight(address)).flatten();
        let resized = match supply.large.resize(address, new, align, own, &supply.page_heap, &supply.meta) {
            Ok(resized) => resized,
            Err(kind) => misuse(kind, address, None, old),
        };
        let Some(taken) = resized else {
            // It stays what it was.
            if let Some(followed) = followed {
                supply.sampling.find_again(followed);
            }
            return None;
        };
        // As it is counted: one that ends, one that begins.
        if let Some(followed) = followed {
            supply.sampling.end(followed, record.map_or(0, Record::thread_number), &supply.page_heap);
        }
        if let Some(record) = record {
            let request = Request { size: new, align, grown: true, caller };
            record.follow_if_drawn(taken.block.address.addr().get(), None, taken.bytes, &request, supply);
        }
        Some(taken.block.address)
    })?
}

// ---- checking every free -------------------------------------------------------------------------------------------

/// Remembers that the program has this block. Only in builds that check every free.
#[inline]
pub(crate) fn mark_live(block: NonNull<u8>, class: SizeClass) {
    let address = block.addr().get();
    if is_guarded(address) {
        return;
    }
    debug_assert!(HEAP.supply.page_heap.table.locate(address).is_some());
    // SAFETY: the block came from a page that exists, and the table is there in these builds.
    let (word, bit) = unsafe { HEAP.supply.page_heap.table.live_bit(address) };
    // Relaxed: the program orders handing a block from thread to thread.
    if word.fetch_or(bit, Ordering::Relaxed) & bit != 0 {
        // Two owners: one of them freed twice, long ago.
        misuse(Misuse::DoubleFree, address, Some(class.index()), class.bytes());
    }
}

/// Guarded blocks know by themselves whether they are live.
pub(crate) fn is_guarded(address: usize) -> bool {
    in_sampled_zone(address) && HEAP.supply.sampling.guarded.owns(address)
}

/// Dies unless the program has this block and it fits the layout. Only in builds that check every free. Blocks that are spans of their own
/// and larger ones are checked by every free anyway.
#[cold]
#[inline(never)]
pub(crate) fn check_free(block: NonNull<u8>, size: usize, align: usize) {
    if let Some(class) = SizeClass::of(size, align) {
        check_free_of_class(block, class);
    }
}

/// As [`check_free`].
pub(crate) fn check_free_of_class(block: NonNull<u8>, class: SizeClass) {
    // Relaxed: decided before any block was handed out.
    if class.shape() == Shape::Whole || HEAP.service.load(Ordering::Relaxed) == BYPASSED {
        return;
    }
    let address = block.addr().get();
    let table = &HEAP.supply.page_heap.table;
    if is_guarded(address) {
        return;
    }
    // What lies in the sampled zone is checked there.
    if in_sampled_zone(address) && table.locate(address).is_some() {
        // SAFETY: `locate` found it, and the table is there in these builds.
        let (word, bit) = unsafe { table.live_bit(address) };
        word.fetch_and(!bit, Ordering::Relaxed);
        return;
    }
    if let Err(kind) = HEAP.supply.inspect(address, class) {
        misuse(kind, address, Some(class.index()), class.bytes());
    }
    // SAFETY: `inspect` found the address in a page that exists, and the table is there in these builds.
    let (word, bit) = unsafe { table.live_bit(address) };
    // Relaxed: as in `mark_live`. One operation, so that of two frees at the same instant one sees the other.
    if word.fetch_and(!bit, Ordering::Relaxed) & bit == 0 {
        misuse(Misuse::DoubleFree, address, Some(class.index()), class.bytes());
    }
}

// ---- for C -----------------------------------------------------------------------------------------------------------

/// The class of the blocks where an address lies, if it is one that the inlined path serves: what the fast path of a free has to know.
#[inline(always)]
#[cfg(freestone_c)]
pub(crate) fn inline_class_at(address: usize) -> Option<SizeClass> {
    let table = &HEAP.supply.page_heap.table;
    match table.class_byte(address) {
        SEED_BYTE => SizeClass::inline_of_byte(table.seed_byte(address)),
        byte => SizeClass::inline_of_byte(byte),
    }
}

/// Of which class a block at this address would be; see [`class_at`](crate::central::class_at).
#[inline]
#[cfg(freestone_c)]
pub(crate) fn class_at(address: usize) -> Result<Option<SizeClass>, Misuse> {
    HEAP.supply.class_at(address)
}

/// The size that was asked for, and the class, of a guarded block. `None`: the address is none of theirs.
#[cfg(freestone_c)]
pub(crate) fn guarded_at(address: usize) -> Option<Result<(usize, SizeClass), Misuse>> {
    is_guarded(address).then(|| HEAP.supply.sampling.guarded.request_at(address))
}

/// Is every exchange checked? Then questions about a block are too.
#[cfg(freestone_c)]
pub(crate) fn checks_every_exchange() -> bool {
    HEAP.supply.checks_every_exchange()
}

/// Says what is wrong with a block of a class that the program claims to have, if anything that can be found out: not on another thread's
/// cache, and not in a depot.
#[cold]
#[cfg(freestone_c)]
pub(crate) fn inspect(address: usize, class: SizeClass, options: &Options) -> Result<(), Misuse> {
    let inspected = slow_path(options, |record| {
        if in_sampled_zone(address) && class.shape() != Shape::Whole {
            return HEAP.supply.sampling.inspect(address, class, &HEAP.supply.page_heap);
        }
        HEAP.supply.inspect(address, class)?;
        if class.shape() == Shape::Whole {
            return HEAP.supply.inspect_whole(address, class);
        }
        if record.is_some_and(|record| record.caches(address, class)) { Err(Misuse::DoubleFree) } else { Ok(()) }
    });
    inspected.unwrap_or(Ok(()))
}

/// Bytes of a block beyond the classes.
#[cfg(freestone_c)]
pub(crate) fn large_bytes(address: usize, options: &Options) -> Result<usize, Misuse> {
    slow_path(options, |_| crate::large::bytes(address, &HEAP.supply.page_heap)).unwrap_or(Ok(0))
}

/// The blocks without bytes, and where their tables come from.
#[cfg(freestone_c)]
pub(crate) fn with_zero_blocks<R>(
    options: &Options,
    work: impl FnOnce(&crate::zero::ZeroBlocks, &crate::meta::Meta) -> R,
) -> Option<R> {
    slow_path(options, |_| work(&HEAP.supply.zero, &HEAP.supply.meta))
}

/// Does a block without bytes begin at this address, or lie there?
#[cfg(freestone_c)]
pub(crate) fn is_zero_block(address: usize) -> bool {
    HEAP.supply.zero.contains(address)
}

// ---- for operators -------------------------------------------------------------------------------------------------

/// Runs something with the shared rooms. `None`: not now, for this is a signal handler that interrupted a slow path, whose locks it would wait for.
pub(crate) fn read<R>(work: impl FnOnce(&'static Supply) -> R) -> Option<R> {
    (!is_busy(word::load())).then(|| undisturbed(|| work(&HEAP.supply)))
}

/// Runs something with the calling thread's record, in a slow path. `None`: there is no heap yet, or the thread is past its end or in a slow path.
pub(crate) fn with_record<R>(work: impl FnOnce(&Record, &'static Supply) -> R) -> Option<R> {
    if !is_started() {
        return None;
    }
    slow_path(&Options::DEFAULT, |record| record.map(|record| work(record, &HEAP.supply))).flatten()
}

/// See [`crate::snapshot()`].
pub(crate) fn take_snapshot() -> Snapshot {
    let mut snapshot = Snapshot::ZEROS;
    if read(|_| snapshot_into(&mut snapshot)).is_none() {
        return Snapshot { approximate: true, ..Snapshot::empty() };
    }
    snapshot
}

/// As above, in a slow path, with no lock held that comes behind that of the trace.
fn snapshot_into(snapshot: &mut Snapshot) {
    snapshot::take_into(snapshot, &HEAP.supply, &HEAP.registry);
    // Relaxed: written before the first block was handed out.
    let began_ns = HEAP.began_ns.load(Ordering::Relaxed);
    snapshot.age_ns = if began_ns == 0 { 0 } else { os::now_ns().saturating_sub(began_ns) };
    snapshot.limits = HEAP.guard.snapshot(&HEAP.supply.page_heap);
    snapshot.events.recalls = HEAP.recaller.recalls();
    snapshot.background_thread = HEAP.background.is_there();
}

/// See [`crate::threads`].
pub(crate) fn threads(into: &mut [ThreadSnapshot]) -> usize {
    thread_snapshot::read(&HEAP.registry, into)
}

/// See [`crate::this_thread`].
pub(crate) fn this_thread() -> Option<ThreadSnapshot> {
    let record = current_record().or_else(|| if word::load() == AWAY { own_record() } else { None })?;
    Some(ThreadSnapshot::of(record))
}

/// See [`crate::thread_allocated`].
pub(crate) fn thread_allocated() -> Option<[u64; 2]> {
    if let Some(record) = current_record() {
        let is_whole = || record.recalled.load(Ordering::Relaxed) == 0;
        if is_whole() {
            let Tallied { blocks, bytes } = record.allocated();
            // Acquire: whoever takes what a thread caches says so first, and has every thread go through a barrier before it changes anything: if we saw
            // part of a change, we see that there is one.
            fence(Ordering::Acquire);
            if is_whole() {
                return Some([blocks, bytes]);
            }
        }
    }
    this_thread().map(|thread| [thread.allocations, thread.allocated_bytes])
}

/// See [`crate::each_mapping`].
pub(crate) fn each_mapping(each: &mut dyn FnMut(Range<usize>)) {
    read(|supply| supply.each_mapping(each));
}

/// See [`crate::recent_pauses`].
pub(crate) fn recent_pauses(into: &mut [Pause]) -> usize {
    HEAP.supply.page_heap.pauses.recent(into)
}

/// The options in force.
pub(crate) fn configuration() -> Options {
    read(|_| options_in_force()).unwrap_or(Options::DEFAULT)
}

fn options_in_force() -> Options {
    if !is_started() {
        return Options::DEFAULT;
    }
    // SAFETY: written by `start`, before it said so.
    unsafe { HEAP.options.lock().assume_init() }
}

/// Changes options of the running heap.
pub(crate) fn configure(change: impl FnOnce(&mut Options)) {
    if is_busy(word::load()) {
        // A signal handler that interrupted a slow path, whose locks it would wait for.
        return;
    }
    #[cfg(not(freestone_c))]
    if !is_started() {
        // So that what the program registered with is known: it comes with the first allocation.
        drop(core::hint::black_box(std::boxed::Box::new(0_u8)));
    }
    undisturbed(|| {
        if !is_started() {
            start(&Options::DEFAULT);
        }
        let mut options = HEAP.options.lock();
        // SAFETY: written by `start`, before it said so.
        let options = unsafe { options.assume_init_mut() };
        change(options);
        if HEAP.service.load(Ordering::Relaxed) == OURS {
            put_in_force(options);
        }
    });
    attend();
}

/// See [`crate::control::thread_idle`].
pub(crate) fn thread_idle() {
    let word = word::load();
    if word != UNBORN && word != AWAY {
        slow_path(&Options::DEFAULT, |record| record.inspect(|record| record.drain(&HEAP.supply)));
    }
}

/// The limits in force.
pub(crate) fn limits() -> crate::guard::LimitSnapshot {
    read(|supply| HEAP.guard.snapshot(&supply.page_heap)).unwrap_or_default()
}

/// See [`crate::control::held_bytes`].
pub(crate) fn held_bytes() -> usize {
    HEAP.supply.page_heap.held()
}

/// See [`crate::control::watch_held`].
pub(crate) fn watch_held(watcher: Watcher) {
    HEAP.guard.set_watcher(watcher);
    HEAP.background.ask_for(Purpose::Watcher);
    HEAP.supply.page_heap.marks.call(Call::Wake);
    if is_started() && !is_busy(word::load()) {
        attend();
    }
}

/// See [`crate::control::set_watch_bounds`].
pub(crate) fn set_watch_bounds(above: usize, below: usize) {
    let is_set = read(|supply| HEAP.guard.set_watch_bounds(above, below, &supply.page_heap)).is_some();
    if is_set && HEAP.supply.page_heap.marks.has_calls() {
        attend();
    }
}

/// See [`crate::control::release_to_os`].
pub(crate) fn release_all() -> usize {
    if !is_started() {
        return 0;
    }
    slow_path(&Options::DEFAULT, release_idle).unwrap_or(0)
}

/// See [`crate::control::report_faults`].
pub(crate) fn report_faults() -> bool {
    os::watch_faults(&FAULT_WATCHER)
}

/// Tells of faults beside guarded blocks. Called by a signal handler.
static FAULT_WATCHER: os::Watcher =
    os::Watcher { concerns: |address| HEAP.supply.sampling.guarded.owns(address), tell: tell_fault };

fn tell_fault(fault: &os::Fault) {
    let guarded = &HEAP.supply.sampling.guarded;
    let Some(report) = guarded.explain(fault.address) else { return };
    let caller =
        Caller { stack_pointer: fault.stack_pointer, frame_pointer: fault.frame_pointer, return_address: fault.instruction };
    let mut stack = [0; 32];
    // Not the thread's bounds, which it may just be changing.
    let captured = frames::capture(&caller, &mut stack, &StackBounds::new());
    let access = match fault.access {
        os::Access::Read => "read",
        os::Access::Write => "write",
        os::Access::Unknown => "access",
    };
    let by = Actor { thread: os::thread_id(), now_ns: os::now_ns(), stack: &stack[..captured.depth] };
    guarded.say(&report, fault.address, access, &by);
}

// ---- fork ----------------------------------------------------------------------------------------------------------

/// Takes every lock, so that the child gets every room in one piece. Until they are given back the thread counts as being in a slow path:
/// a signal handler that needed one of these locks would wait for ever.
///
/// A handler that itself forks in the middle of a slow path does so without: its thread may hold some of these locks. The child is as good as
/// its parent was, if that had one thread; if there were more, it must not allocate, which POSIX says anyway.
unsafe extern "C" fn before_fork() {
    let before = word::load();
    if before == FORKING {
        // A handler forks within a fork. Relaxed, here and in `finish_fork`: who has all the locks is alone.
        HEAP.forks_within.store(HEAP.forks_within.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }
    if is_busy(before) {
        return;
    }
    word::store(BUSY);
    HEAP.options.before_fork();
    HEAP.past.before_fork();
    HEAP.guard.before_fork();
    HEAP.scavenger.before_fork();
    HEAP.recaller.before_fork();
    HEAP.registry.before_fork();
    HEAP.supply.before_fork();
    HEAP.forking.store(or_away(before).cast_mut(), Ordering::Relaxed);
    word::store(FORKING);
}

/// Gives the locks back and has `work` done, which may take them.
fn finish_fork(work: impl FnOnce()) {
    if word::load() != FORKING {
        return;
    }
    if let Some(within) = HEAP.forks_within.load(Ordering::Relaxed).checked_sub(1) {
        HEAP.forks_within.store(within, Ordering::Relaxed);
        return;
    }
    let before = HEAP.forking.load(Ordering::Relaxed);
    word::store(BUSY);
    HEAP.supply.after_fork();
    HEAP.registry.after_fork();
    HEAP.recaller.after_fork();
    HEAP.scavenger.after_fork();
    HEAP.guard.after_fork();
    HEAP.past.after_fork();
    HEAP.options.after_fork();
    HEAP.supply.look_again_after_fork();
    work();
    word::store(before);
}

unsafe extern "C" fn after_fork_in_parent() {
    finish_fork(|| {});
}

/// In the child only the forking thread goes on. What the others cached cannot be used: they may have been stopped anywhere. Their counts
/// are kept, their blocks are booked as lost.
unsafe extern "C" fn after_fork_in_child() {
    leave_others_behind();
    HEAP.guard.after_fork_in_child();
    HEAP.background.after_fork_in_child();
    HEAP.trace.after_fork_in_child();
    HEAP.supply.page_heap.after_fork_in_child();
    finish_fork(|| {
        set_free_mark();
        HEAP.registry.rebuild_pool(|record| record.life() == Life::Pooled);
        book_losses();
    });
}

/// Takes no lock.
fn leave_others_behind() {
    let mine = own_record();
    for record in HEAP.registry.records() {
        // Relaxed, here and below: this is the only thread.
        if record.life() == Life::Active && mine.is_some_and(|mine| core::ptr::eq(mine, record)) {
            record.thread.store(os::thread_id(), Ordering::Relaxed);
            record.process.store(os::process_id(), Ordering::Relaxed);
        } else if record.life() == Life::Active || (record.life() == Life::Pooled && record.is_being_changed()) {
            orphan(record);
        }
    }
}

fn orphan(record: &Record) {
    for class in SizeClass::all() {
        let (counts, _) = record.counts(class);
        HEAP.supply.direct.allocations[class.index()].fetch_add(counts.allocations, Ordering::Relaxed);
        HEAP.supply.direct.frees[class.index()].fetch_add(counts.frees, Ordering::Relaxed);
    }
    HEAP.supply.large.shared.allocated(record.large.allocations());
    HEAP.supply.large.shared.freed(record.large.frees());
    record.end_loans(&HEAP.supply);
    record.set_life(Life::Orphaned);
}

/// Makes the accounts of the child close. Threads were stopped between doing a thing and counting it; what is out of central and neither live
/// nor in a cache that can still be reached was on its way, or in an orphan: it is lost. What is counted as live and is not out any more had
/// just been freed. The same for pages.
fn book_losses() {
    let supply = &HEAP.supply;
    // Not on the stack, of which whoever forks may have little. The trace writes anew what is there.
    let mut past = HEAP.past.lock();
    let snapshot = past.next();
    snapshot::take_into(snapshot, supply, &HEAP.registry);
    for class in SizeClass::all() {
        let entry = &snapshot.classes[class.index()];
        let sampled = supply.sampling.allocations(class) - supply.sampling.frees(class);
        let known = (entry.live() - sampled) + entry.thread_cached + entry.depot;
        let out = supply.central(class).out();
        supply.direct.lost[class.index()].store(out.saturating_sub(known), Ordering::Relaxed);
        supply.direct.frees[class.index()].fetch_add(known.saturating_sub(out), Ordering::Relaxed);
    }
    // A child that forks again books anew what it inherited, with its own.
    supply.direct.lost_pages_bytes.store(0, Ordering::Relaxed);
    snapshot::take_into(snapshot, supply, &HEAP.registry);
    let (guarded, closed) = supply.sampling.guarded.bytes();
    let held = supply.page_heap.bytes().mapped + supply.metadata_mapped_bytes() + guarded + closed;
    let known = snapshot.bytes.reserved();
    supply.direct.lost_pages_bytes.store(held.saturating_sub(known), Ordering::Relaxed);
    supply.large.shared.freed(Tallied { blocks: 0, bytes: known.saturating_sub(held) as u64 });
}
