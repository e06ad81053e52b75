//! Floor 1. What loom's models need of a machine: waiting is yielding, and threads have numbers.

use loom::sync::atomic::AtomicU32;

pub(crate) fn wait(_word: &AtomicU32, _expected: u32) {
    loom::thread::yield_now();
}

pub(crate) fn wake_one(_word: &AtomicU32) {}

pub(crate) fn thread_token() -> usize {
    1
}
