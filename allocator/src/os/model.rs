//! Floor 1. What loom's models need of a machine: sleeping and waking.

use loom::sync::atomic::{AtomicU32, Ordering};
use loom::sync::{Condvar, Mutex};

loom::lazy_static! {
    static ref SLEEPERS: (Mutex<()>, Condvar) = (Mutex::new(()), Condvar::new());
}

pub(crate) fn wait(word: &AtomicU32, expected: u32) {
    let mut asleep = SLEEPERS.0.lock().expect("no model panics in here");
    // As a futex does: looks once more when nobody can wake in between. Relaxed: the mutex orders it.
    if word.load(Ordering::Relaxed) == expected {
        asleep = SLEEPERS.1.wait(asleep).expect("no model panics in here");
    }
    drop(asleep);
}

pub(crate) fn wake_one(_word: &AtomicU32) {
    let _awake = SLEEPERS.0.lock().expect("no model panics in here");
    SLEEPERS.1.notify_all();
}

/// Models have no numbers for their threads.
pub(crate) fn thread_id() -> u32 {
    0
}

/// Models measure nothing.
pub(crate) fn cycles() -> u64 {
    0
}
