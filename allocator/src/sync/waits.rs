//! Floor 2. How long each thread waited for locks, so that it can be said on whose behalf.
//!
//! A lock does not know what its holder-to-be is in the middle of, and a thread has no memory of its own but one word (see `word`). So whoever had to
//! wait leaves a note under the number of its thread, and takes it up when its slow path is over. Threads whose numbers fall on one place may lose a note to each other; the
//! histogram of waits loses none.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::os;

const PLACES: usize = 64;

/// The number of the thread above, sixteenths of [cycles](os::cycles) below. The one static beside those of `heap`: it belongs to threads, not to a heap.
static NOTES: [AtomicU64; PLACES] = [const { AtomicU64::new(0) }; PLACES];

// Relaxed, here and below: a note is taken up by the thread that left it.

/// The calling thread, whose number this is, waited for so long.
pub(super) fn note(thread: u32, cycles: u64) {
    let thread = u64::from(thread);
    let place = &NOTES[thread as usize % PLACES];
    let before = place.load(Ordering::Relaxed);
    let before = if before >> 32 == thread { before & u64::from(u32::MAX) } else { 0 };
    place.store(thread << 32 | (before + cycles / 16).min(u64::from(u32::MAX)), Ordering::Relaxed);
}

/// How long it waited since this was asked last, in cycles.
pub(crate) fn take() -> u64 {
    let thread = u64::from(os::thread_id());
    let place = &NOTES[thread as usize % PLACES];
    let note = place.load(Ordering::Relaxed);
    if note >> 32 != thread {
        return 0;
    }
    place.store(0, Ordering::Relaxed);
    (note & u64::from(u32::MAX)) * 16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thread_takes_up_its_own() {
        let _ = take();
        note(os::thread_id(), 160);
        note(os::thread_id(), 1600);
        assert_eq!(std::thread::spawn(take).join().expect("it does not panic"), 0);
        assert_eq!(take(), 1760);
        assert_eq!(take(), 0);
    }
}
