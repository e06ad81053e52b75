//! Floor 2. The background thread: whether there is one, whether there should be, and how it sleeps and is woken.
//!
//! ```text
//!   ABSENT ──start──▶ STARTING ──▶ AWAKE ⇄ PARKED
//!      ▲                 │           │
//!      └──── refused ────┘           └──▶ ABSENT, when it is told to end; and in the child of a fork
//! ```
//!
//! A second thread changes a process: `putc` takes locks, `unshare` fails. So by default there is none before it is of use. What it does
//! is not this room's business.

use core::ffi::c_void;

use crate::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use crate::config::{BACKGROUND_FREE_BYTES, BACKGROUND_FREE_NS, DROP_BYTES, TICK_NS};
use crate::options::{Background as Choice, Face};
use crate::os;

/// After a refusal the next attempt is so much later.
const RETRY_NS: u64 = 10_000_000_000;

const ABSENT: u32 = 0;
const STARTING: u32 = 1;
const AWAKE: u32 = 2;
const PARKED: u32 = 3;

/// For what else the thread is wanted. Bits of one number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Purpose {
    /// To tell the watcher when memory that is held reaches a bound.
    Watcher = 1,
    /// To write the trace.
    Trace = 2,
}

/// The thread of a heap.
#[derive(Debug)]
pub(crate) struct Background {
    state: AtomicU32,
    /// Raised to wake it. What it sleeps on.
    bell: AtomicU32,
    /// It has rung, and nobody has answered yet: ringing again would be a system call for nothing.
    rung: AtomicU32,
    choice: AtomicU8,
    face: AtomicU8,
    /// Somebody waits for what only the thread can tell in time: bits of [`Purpose`].
    asked_for: AtomicU8,
    /// It should be started.
    wanted: AtomicU8,
    /// Since when much is free; 0: it is not.
    free_since_ns: AtomicU64,
    /// When starting it failed the last time; 0: never.
    refused_ns: AtomicU64,
    /// When the process was seen to have one thread the last time; 0: never. In C it then gets no second one.
    alone_ns: AtomicU64,
}

// Relaxed unless said otherwise: choices and times order nothing.
impl Background {
    pub(crate) const fn new() -> Self {
        Self {
            state: AtomicU32::new(ABSENT),
            bell: AtomicU32::new(0),
            rung: AtomicU32::new(0),
            choice: AtomicU8::new(Choice::Auto as u8),
            face: AtomicU8::new(Face::Rust as u8),
            asked_for: AtomicU8::new(0),
            wanted: AtomicU8::new(0),
            free_since_ns: AtomicU64::new(0),
            refused_ns: AtomicU64::new(0),
            alone_ns: AtomicU64::new(0),
        }
    }

    pub(crate) fn choose(&self, choice: Choice, face: Face) {
        self.choice.store(choice as u8, Ordering::Relaxed);
        self.face.store(face as u8, Ordering::Relaxed);
        self.ring();
    }

    fn choice(&self) -> Choice {
        match self.choice.load(Ordering::Relaxed) {
            1 => Choice::On,
            2 => Choice::Off,
            _ => Choice::Auto,
        }
    }

    /// From now on, or until it is taken back, the thread is wanted for more than giving back.
    pub(crate) fn ask_for(&self, purpose: Purpose) {
        self.asked_for.fetch_or(purpose as u8, Ordering::Relaxed);
    }

    /// It is not wanted for this any more.
    pub(crate) fn no_longer(&self, purpose: Purpose) {
        if self.asked_for.load(Ordering::Relaxed) & purpose as u8 != 0 {
            self.asked_for.fetch_and(!(purpose as u8), Ordering::Relaxed);
        }
    }

    /// Is there to be no thread at all?
    pub(crate) fn is_forbidden(&self) -> bool {
        self.choice() == Choice::Off
    }

    pub(crate) fn is_there(&self) -> bool {
        matches!(self.state.load(Ordering::Relaxed), AWAKE | PARKED)
    }

    /// Looks whether it should be started now that `free` bytes could be given back.
    pub(crate) fn look(&self, free: usize, now_ns: u64) {
        set(&self.wanted, u8::from(self.should_be(now_ns, free)));
    }

    /// Should it be started?
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed) != 0 && self.state.load(Ordering::Relaxed) == ABSENT
    }

    /// Did the system refuse it?
    pub(crate) fn was_refused(&self) -> bool {
        self.refused_ns.load(Ordering::Relaxed) != 0
    }

    fn should_be(&self, now_ns: u64, free: usize) -> bool {
        let much = free >= BACKGROUND_FREE_BYTES;
        let since = match self.free_since_ns.load(Ordering::Relaxed) {
            _ if !much => 0,
            0 => now_ns.max(1),
            since => since,
        };
        if since != self.free_since_ns.load(Ordering::Relaxed) {
            self.free_since_ns.store(since, Ordering::Relaxed);
        }
        let wanted = match self.choice() {
            Choice::Off => false,
            Choice::On => true,
            Choice::Auto => {
                let long = much && now_ns.saturating_sub(since) >= BACKGROUND_FREE_NS;
                long || free >= DROP_BYTES || self.asked_for.load(Ordering::Relaxed) != 0
            }
        };
        let refused = self.refused_ns.load(Ordering::Relaxed);
        let may_try = refused == 0 || now_ns.saturating_sub(refused) >= RETRY_NS;
        let absent = self.state.load(Ordering::Relaxed) == ABSENT;
        let is_c = self.face.load(Ordering::Relaxed) == Face::C as u8;
        wanted && may_try && absent && (!is_c || self.choice() == Choice::On || self.has_company(now_ns))
    }

    /// Does the process have more threads? Asked once a tick: whoever answers that reads a file.
    fn has_company(&self, now_ns: u64) -> bool {
        let seen_ns = self.alone_ns.load(Ordering::Relaxed);
        if seen_ns != 0 && now_ns.saturating_sub(seen_ns) < TICK_NS {
            return false;
        }
        let has_threads = os::has_threads();
        self.alone_ns.store(if has_threads { 0 } else { now_ns.max(1) }, Ordering::Relaxed);
        has_threads
    }

    /// Starts it, unless somebody else does. `false`: the system refused.
    pub(crate) fn start(&self, now_ns: u64, entry: extern "C" fn(*mut c_void) -> *mut c_void) -> bool {
        if self.state.compare_exchange(ABSENT, STARTING, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return true;
        }
        self.wanted.store(0, Ordering::Relaxed);
        if os::spawn(entry) {
            self.refused_ns.store(0, Ordering::Relaxed);
            return true;
        }
        self.refused_ns.store(now_ns.max(1), Ordering::Relaxed);
        self.state.store(ABSENT, Ordering::Relaxed);
        false
    }

    // ---- for the thread itself ---------------------------------------------------------------------------------------

    /// It has begun.
    pub(crate) fn begin(&self) {
        os::name_thread(c"freestone");
        // SeqCst: see `ring`.
        self.state.store(AWAKE, Ordering::SeqCst);
    }

    /// It ends: from here on another one may begin.
    pub(crate) fn end(&self) {
        self.state.store(ABSENT, Ordering::Relaxed);
    }

    /// How often the bell has rung: what is seen here wakes the sleep that follows, if it changes in between.
    pub(crate) fn rings(&self) -> u32 {
        // SeqCst: whoever finds it unanswered after this rings anew, and whoever finds it answered before wrote what we look at next. Pairs
        // with the swap in `ring`.
        self.rung.swap(0, Ordering::SeqCst);
        // Acquire: what was done before the ring. Pairs with the Release in `ring`.
        self.bell.load(Ordering::Acquire)
    }

    /// Sleeps until the bell rings again, or for so long.
    pub(crate) fn sleep(&self, rings: u32, ns: u64) {
        os::wait_for(&self.bell, rings, ns);
    }

    /// Sleeps until the bell rings again, however long that takes.
    pub(crate) fn park(&self, rings: u32) {
        self.state.store(PARKED, Ordering::Relaxed);
        os::wait(&self.bell, rings);
        self.state.store(AWAKE, Ordering::Relaxed);
    }

    /// Wakes it.
    pub(crate) fn ring(&self) {
        // SeqCst: see `rings`.
        if self.rung.swap(1, Ordering::SeqCst) != 0 {
            return;
        }
        // Release: see `rings`.
        self.bell.fetch_add(1, Ordering::Release);
        // SeqCst: a thread that begins looks at everything anyway; one that is there is seen to be. Pairs with the store in `begin`.
        if self.state.load(Ordering::SeqCst) >= AWAKE {
            os::wake_one(&self.bell);
        }
    }

    /// In the child of a fork it is not there.
    pub(crate) fn after_fork_in_child(&self) {
        self.state.store(ABSENT, Ordering::Relaxed);
        self.rung.store(0, Ordering::Relaxed);
        self.free_since_ns.store(0, Ordering::Relaxed);
    }
}

/// Writes only what is new: every thread passes here now and then.
fn set(flag: &AtomicU8, value: u8) {
    if flag.load(Ordering::Relaxed) != value {
        flag.store(value, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::sim::{Plan, World};

    const SECOND_NS: u64 = 1_000_000_000;

    extern "C" fn nothing(_: *mut c_void) -> *mut c_void {
        core::ptr::null_mut()
    }

    #[test]
    fn by_default_it_is_wanted_when_much_is_free_for_a_while() {
        let background = Background::new();
        let little = BACKGROUND_FREE_BYTES - 1;
        assert!(!background.should_be(SECOND_NS, little));
        assert!(!background.should_be(10 * SECOND_NS, little));
        assert!(!background.should_be(11 * SECOND_NS, BACKGROUND_FREE_BYTES), "just now");
        assert!(!background.should_be(12 * SECOND_NS - 1, BACKGROUND_FREE_BYTES));
        assert!(background.should_be(12 * SECOND_NS, BACKGROUND_FREE_BYTES));
        assert!(!background.should_be(13 * SECOND_NS, little));
        assert!(!background.should_be(14 * SECOND_NS, BACKGROUND_FREE_BYTES), "it begins anew");
        assert!(background.should_be(14 * SECOND_NS, DROP_BYTES), "so much at any moment");
        assert!(!background.should_be(14 * SECOND_NS, 0));
        background.ask_for(Purpose::Trace);
        assert!(background.should_be(14 * SECOND_NS, 0));
        background.ask_for(Purpose::Watcher);
        background.no_longer(Purpose::Trace);
        assert!(background.should_be(14 * SECOND_NS, 0), "the other one is still there");
        background.no_longer(Purpose::Watcher);
        assert!(!background.should_be(14 * SECOND_NS, 0));
    }

    #[test]
    fn a_choice_is_a_choice() {
        let background = Background::new();
        background.choose(Choice::On, Face::Rust);
        assert!(background.should_be(1, 0));
        background.choose(Choice::Off, Face::Rust);
        background.ask_for(Purpose::Watcher);
        assert!(!background.should_be(SECOND_NS, usize::MAX));
        assert!(background.is_forbidden());
    }

    #[test]
    fn a_refusal_is_not_answered_by_asking_again_at_once() {
        let world = World::new();
        let _here = world.enter();
        let background = Background::new();
        background.choose(Choice::On, Face::Rust);
        world.plan(Plan::From(0));
        assert!(!background.start(SECOND_NS, nothing));
        assert!(!background.should_be(SECOND_NS + RETRY_NS - 1, 0));
        assert!(background.should_be(SECOND_NS + RETRY_NS, 0));
        world.plan(Plan::Nothing);
        assert!(background.start(SECOND_NS + RETRY_NS, nothing));
        assert!(!background.should_be(SECOND_NS + RETRY_NS, 0), "it is on its way");
        assert!(!background.is_there());
        background.begin();
        assert!(background.is_there());
        assert!(!background.is_forbidden());
        background.after_fork_in_child();
        assert!(background.should_be(2 * SECOND_NS + 2 * RETRY_NS, 0), "and a child may have one of its own");
    }

    #[test]
    fn a_bell_that_rang_before_the_sleep_ends_it() {
        let background = Background::new();
        background.begin();
        let rings = background.rings();
        background.ring();
        background.park(rings);
        background.sleep(rings, u64::MAX / 2);
        assert!(background.is_there());
    }
}
