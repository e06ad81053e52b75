//! Whoever asks the history is answered: in the child of a fork, whoever held what at that moment; and from the middle of an allocation, which is where
//! the callbacks of limits run.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use freestone::Freestone;
use freestone_stats::history;

thread_local! {
    static ASKS: Cell<bool> = const { Cell::new(false) };
}

static ASKED: AtomicU32 = AtomicU32::new(0);

/// Freestone, with a callback in the middle of allocations.
struct Calls(Freestone);

// SAFETY: hands everything on.
unsafe impl GlobalAlloc for Calls {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if ASKS.replace(false) {
            let _ = std::hint::black_box(freestone_stats::rates());
            ASKED.fetch_add(1, Ordering::Relaxed);
            ASKS.set(true);
        }
        // SAFETY: as for this function.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as for this function.
        unsafe { self.0.dealloc(block, layout) }
    }
}

#[global_allocator]
static GLOBAL: Calls = Calls(Freestone::new());

#[test]
fn nobody_allocates_while_others_wait() {
    history::start();
    let (done, is_done) = mpsc::channel();
    thread::spawn(move || {
        ASKS.set(true);
        drop((history::points(), history::anomalies()));
        ASKS.set(false);
        done.send(())
    });
    assert_eq!(is_done.recv_timeout(Duration::from_secs(20)), Ok(()), "who allocates waits for himself");
    assert!(ASKED.load(Ordering::Relaxed) >= 2);
}

/// What the child does is to end at once.
fn in_a_child(what: fn()) {
    // SAFETY: the child does what a child on this allocator may.
    let child = unsafe { libc::fork() };
    if child == 0 {
        what();
        // SAFETY: always allowed.
        unsafe { libc::_exit(0) };
    }
    let begun = Instant::now();
    // SAFETY: our child; nobody wants its status.
    while unsafe { libc::waitpid(child, std::ptr::null_mut(), libc::WNOHANG) } == 0 {
        if begun.elapsed() > Duration::from_secs(20) {
            // SAFETY: our child.
            unsafe { libc::kill(child, libc::SIGKILL) };
            panic!("a child waits for a thread of its parent");
        }
        thread::sleep(Duration::from_micros(100));
    }
}

#[test]
fn a_child_has_thresholds() {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                history::set_thresholds(std::hint::black_box(history::thresholds()));
            }
        });
        // The thread above ends whatever happens here.
        let children =
            std::panic::catch_unwind(|| (0..200).for_each(|_| in_a_child(|| history::set_thresholds(history::thresholds()))));
        done.store(true, Ordering::Relaxed);
        children.expect("every child ends");
    });
}
