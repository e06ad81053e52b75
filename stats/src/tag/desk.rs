//! Desks: which scopes a thread has open, and what it had allocated when it last passed from one to another.
//!
//! ```text
//!   open    │ "ingest", since 120 blocks │ "parse", since 150 │ ·  ·  ·     the innermost last
//!   edge    170 blocks: what comes from here on is on account of "parse"
//! ```
//!
//! At each *edge*, where a scope begins or ends, what was allocated since the last one goes on account of the innermost. A thread has a desk to itself from
//! its first scope on, and leaves it to the next when it ends. Only it writes; whoever wants to know of scopes that go on for hours reads along (a
//! sequence number is odd while something changes). Desks are in a list, and are never freed.

use std::cell::Cell;
use std::hint::black_box;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};

use freestone::{ThreadSnapshot, profile};

use super::{Tag, TagStats, registry};

/// So many different scopes within each other.
const DEPTH: usize = 32;

/// Blocks allocated, and their bytes.
type Counts = [u64; 2];

/// What a reader sees of a desk: the thread, the edge, and the tag of each open scope with what the thread had allocated when it began.
type Seen = (u32, Counts, Vec<(u32, Counts)>);

/// Tells scopes of a thread apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Serial(u64);

/// A scope that has not ended.
#[derive(Default)]
struct Open {
    /// 0: this place is free.
    serial: AtomicU64,
    tag: AtomicU32,
    /// So many more scopes of the same tag begin here.
    repeats: AtomicU32,
    /// What the thread had allocated when it began.
    entered: [AtomicU64; 2],
}

struct Desk {
    /// The next in the list. Never changes once it is in there.
    next: AtomicPtr<Desk>,
    /// The kernel's number of its thread; 0: it is free.
    thread: AtomicU32,
    number: usize,
    sequence: AtomicU32,
    depth: AtomicUsize,
    edge: [AtomicU64; 2],
    last_serial: AtomicU64,
    open: [Open; DEPTH],
}

static DESKS: AtomicPtr<Desk> = AtomicPtr::new(ptr::null_mut());

/// A thread's hold on its desk.
struct Lease(Cell<Option<&'static Desk>>);

thread_local! {
    static LEASE: Lease = const { Lease(Cell::new(None)) };
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(desk) = self.0.get() {
            desk.clear();
        }
    }
}

/// What the calling thread has allocated so far. `None`: it is at its end, or Freestone does not serve this program.
fn counts() -> Option<Counts> {
    freestone::thread_allocated().or_else(|| {
        // One that has not allocated yet may take over the counts of another with its first block.
        drop(black_box(Box::new(0_u8)));
        freestone::thread_allocated()
    })
}

/// From one reading to a later one.
fn between(earlier: Counts, later: Counts) -> Counts {
    [later[0].saturating_sub(earlier[0]), later[1].saturating_sub(earlier[1])]
}

/// The calling thread's desk. `None`: the thread is at its end.
fn mine() -> Option<&'static Desk> {
    LEASE
        .try_with(|lease| match lease.0.get() {
            Some(desk) => desk,
            None => {
                let desk = profile::without_samples(take);
                lease.0.set(Some(desk));
                desk
            }
        })
        .ok()
}

/// All desks there are.
fn all() -> impl Iterator<Item = &'static Desk> {
    // Acquire: pairs with the Release in `take`; the desk is whole, and so are those behind it. SAFETY: null, or one that is never freed.
    std::iter::successors(unsafe { DESKS.load(Ordering::Acquire).as_ref() }, |desk| {
        // Relaxed: written before it was in the list. SAFETY: as above.
        unsafe { desk.next.load(Ordering::Relaxed).as_ref() }
    })
}

/// One that is free, or a new one.
fn take() -> &'static Desk {
    // SAFETY: only asks.
    let thread = unsafe { libc::gettid() } as u32;
    // Acquire: pairs with the Release in `clear`.
    let is_taken = |desk: &&Desk| desk.thread.compare_exchange(0, thread, Ordering::Acquire, Ordering::Relaxed).is_ok();
    if let Some(desk) = all().find(is_taken) {
        return desk;
    }
    let desk = Box::leak(Box::new(Desk {
        next: AtomicPtr::new(ptr::null_mut()),
        thread: AtomicU32::new(thread),
        number: all().count(),
        sequence: AtomicU32::new(0),
        depth: AtomicUsize::new(0),
        edge: Default::default(),
        last_serial: AtomicU64::new(0),
        open: Default::default(),
    }));
    let mut first = DESKS.load(Ordering::Relaxed);
    loop {
        desk.next.store(first, Ordering::Relaxed);
        // Release: pairs with the Acquire in `all`.
        match DESKS.compare_exchange_weak(first, desk, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => return desk,
            Err(other) => first = other,
        }
    }
}

/// Begins a scope. `None`: there is no room for it, or the thread is at its end.
pub(super) fn enter(tag: Tag) -> Option<Serial> {
    let desk = mine()?;
    let depth = desk.depth();
    if let Some(entry) = registry::get(tag.0) {
        entry.entered(desk.number);
    }
    if let Some(innermost) = depth.checked_sub(1).map(|place| &desk.open[place])
        && innermost.tag.load(Ordering::Relaxed) == tag.0
    {
        // Relaxed: this thread's own. Nothing changes hands, so nothing is to be read.
        innermost.repeats.store(innermost.repeats.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        return Some(Serial(innermost.serial.load(Ordering::Relaxed)));
    }
    let open = desk.open.get(depth)?;
    let now = counts()?;
    // Relaxed: this thread's own.
    let serial = desk.last_serial.load(Ordering::Relaxed) + 1;
    desk.last_serial.store(serial, Ordering::Relaxed);
    desk.change(|| {
        desk.pass_edge(now);
        open.set(serial, tag.0, 0, now);
        desk.depth.store(depth + 1, Ordering::Relaxed);
    });
    profile::set_tag(tag.0);
    Some(Serial(serial))
}

/// Does something of our own, which is on nobody's account.
pub(super) fn unbooked<R>(work: impl FnOnce() -> R) -> R {
    let desk = LEASE.try_with(|lease| lease.0.get()).ok().flatten().filter(|desk| desk.depth() > 0);
    let before = desk.and_then(|_| counts());
    let result = profile::without_samples(work);
    if let (Some(desk), Some(before), Some(after)) = (desk, before, desk.and_then(|_| counts())) {
        // As if it had been before all that is open began.
        let [allocations, bytes] = between(before, after);
        let later = |counts: Counts| [counts[0] + allocations, counts[1] + bytes];
        desk.change(|| {
            desk.set_edge(later(desk.edge()));
            desk.open[..desk.depth()].iter().for_each(|open| open.enter_at(later(open.entered())));
        });
    }
    result
}

/// Ends a scope of the calling thread, wherever it is among the others. One that is not there has ended already.
pub(super) fn leave(Serial(serial): Serial) {
    let Ok(Some(desk)) = LEASE.try_with(|lease| lease.0.get()) else { return };
    let depth = desk.depth();
    // Relaxed, here and below: this thread's own.
    let Some(place) = desk.open[..depth].iter().rposition(|open| open.serial.load(Ordering::Relaxed) == serial) else { return };
    let ending = &desk.open[place];
    let repeats = ending.repeats.load(Ordering::Relaxed);
    if repeats > 0 {
        ending.repeats.store(repeats - 1, Ordering::Relaxed);
        return;
    }
    let (tag, entered) = (ending.tag.load(Ordering::Relaxed), ending.entered());
    desk.change(|| {
        if let Some(now) = counts() {
            desk.pass_edge(now);
            desk.book_total(place, tag, entered, now);
        }
        for place in place..depth - 1 {
            let from = &desk.open[place + 1];
            let [serial, repeats] = [from.serial.load(Ordering::Relaxed), u64::from(from.repeats.load(Ordering::Relaxed))];
            desk.open[place].set(serial, from.tag.load(Ordering::Relaxed), repeats as u32, from.entered());
        }
        desk.depth.store(depth - 1, Ordering::Relaxed);
    });
    let innermost = depth.checked_sub(2).map_or(0, |place| desk.open[place].tag.load(Ordering::Relaxed));
    profile::set_tag(innermost);
}

// Relaxed in all of it: `change` orders what readers see.
impl Open {
    fn set(&self, serial: u64, tag: u32, repeats: u32, entered: Counts) {
        self.serial.store(serial, Ordering::Relaxed);
        self.tag.store(tag, Ordering::Relaxed);
        self.repeats.store(repeats, Ordering::Relaxed);
        self.enter_at(entered);
    }

    fn enter_at(&self, entered: Counts) {
        self.entered.iter().zip(entered).for_each(|(count, value)| count.store(value, Ordering::Relaxed));
    }

    fn entered(&self) -> Counts {
        self.entered.each_ref().map(|count| count.load(Ordering::Relaxed))
    }
}

impl Desk {
    fn depth(&self) -> usize {
        self.depth.load(Ordering::Relaxed).min(DEPTH)
    }

    /// Changes what readers read along.
    fn change(&self, what: impl FnOnce()) {
        let even = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(even.wrapping_add(1), Ordering::Relaxed);
        // Release: who sees a part of the change sees the odd number. Pairs with the Acquire fence in `read`.
        fence(Ordering::Release);
        what();
        // Release: who sees the even number sees all of it. Pairs with the Acquire in `read`.
        self.sequence.store(even.wrapping_add(2), Ordering::Release);
    }

    /// What was allocated since the last edge goes on account of the innermost scope.
    fn pass_edge(&self, now: Counts) {
        if let Some(innermost) = self.depth().checked_sub(1)
            && let Some(entry) = registry::get(self.open[innermost].tag.load(Ordering::Relaxed))
        {
            entry.book(self.number, between(self.edge(), now));
        }
        self.set_edge(now);
    }

    fn set_edge(&self, now: Counts) {
        self.edge.iter().zip(now).for_each(|(count, value)| count.store(value, Ordering::Relaxed));
    }

    fn edge(&self) -> Counts {
        self.edge.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    /// The scope at `place` ends: what was allocated in it and all within, unless another of the same tag counts that anyway.
    fn book_total(&self, place: usize, tag: u32, entered: Counts, now: Counts) {
        let is_same = |open: &&Open| open.tag.load(Ordering::Relaxed) == tag;
        if self.open[..place].iter().any(|open| is_same(&open)) {
            return;
        }
        if let Some(within) = self.open[place + 1..self.depth()].iter().find(is_same) {
            // It ends out of turn: the one within counts for both.
            within.enter_at(entered);
        } else if let Some(entry) = registry::get(tag) {
            entry.book_total(self.number, between(entered, now));
        }
    }

    /// The thread ends. Scopes that are still open were forgotten.
    fn clear(&self) {
        if let Some(now) = counts() {
            self.change(|| {
                self.pass_edge(now);
                for place in (0..self.depth()).rev() {
                    let open = &self.open[place];
                    self.depth.store(place + 1, Ordering::Relaxed);
                    self.book_total(place, open.tag.load(Ordering::Relaxed), open.entered(), now);
                }
            });
        }
        self.change(|| self.depth.store(0, Ordering::Relaxed));
        profile::set_tag(0);
        // Release: pairs with the Acquire in `take`.
        self.thread.store(0, Ordering::Release);
    }

    /// `None`: it changes too fast.
    fn read(&self) -> Option<Seen> {
        let mut open = Vec::with_capacity(DEPTH);
        for _ in 0..100 {
            // Acquire: pairs with the Release in `change`.
            let sequence = self.sequence.load(Ordering::Acquire);
            if sequence.is_multiple_of(2) {
                open.clear();
                open.extend(self.open[..self.depth()].iter().map(|open| (open.tag.load(Ordering::Relaxed), open.entered())));
                let (thread, edge) = (self.thread.load(Ordering::Relaxed), self.edge());
                // Acquire: pairs with the Release fence in `change`.
                fence(Ordering::Acquire);
                if self.sequence.load(Ordering::Relaxed) == sequence {
                    return Some((thread, edge, open));
                }
            }
            std::hint::spin_loop();
        }
        None
    }
}

/// Adds what is on account of scopes that have not ended yet.
pub(super) fn add_open(tags: &mut [TagStats]) {
    if all().all(|desk| desk.depth() == 0) {
        return;
    }
    // Counts first: a scope that begins or ends meanwhile then counts for too little rather than for too much.
    let threads = threads();
    for (thread, edge, open) in all().filter_map(Desk::read) {
        let Some(now) = threads.iter().find(|known| known.id == thread).map(|known| [known.allocations, known.allocated_bytes])
        else {
            continue;
        };
        let mut seen: Vec<u32> = Vec::with_capacity(open.len());
        for (place, &(tag, entered)) in open.iter().enumerate() {
            let Some(stats) = tags.iter_mut().find(|stats| stats.tag.0 == tag) else { continue };
            if place + 1 == open.len() {
                let [allocations, bytes] = between(edge, now);
                stats.allocations += allocations;
                stats.allocated_bytes += bytes;
            }
            if !seen.contains(&tag) {
                seen.push(tag);
                let [allocations, bytes] = between(entered, now);
                stats.total_allocations += allocations;
                stats.total_allocated_bytes += bytes;
            }
        }
    }
}

/// What each thread has allocated.
fn threads() -> Vec<ThreadSnapshot> {
    let mut threads = vec![ThreadSnapshot::default(); freestone::threads(&mut []) + 8];
    let count = freestone::threads(&mut threads);
    threads.truncate(count);
    threads
}
