//! Subject: Freestone with a fault planted in it, to see whether the harness finds it.
//!
//! Every [`EVERY`]th allocation of a thread spins a little, which is where a slow path would be, and so many bytes more are resident from the
//! start. `PLANTED_SPIN` and `PLANTED_RSS` say how much; `PLANTED=off` plants nothing, so that the wrapper itself costs both sides the same.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::env;
use std::hint::black_box;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};

use freestone::Freestone;
use freestone_bench::controls::Controls;

/// Of so many allocations one is slow.
const EVERY: u32 = 16;
/// Rounds of nothing, about a third of a nanosecond each: 3 % of an allocation and its free, spread over [`EVERY`].
const SPIN_DEFAULT: u32 = 8;

/// Rounds of nothing that a slow allocation makes. Relaxed: written before there is a second thread.
static SPIN: AtomicU32 = AtomicU32::new(0);

thread_local! {
    /// Allocations of this thread.
    static ALLOCATIONS: Cell<u32> = const { Cell::new(0) };
}

struct Planted(Freestone);

/// Counts an allocation, and lets every so many of them spin.
#[inline]
fn fault() {
    let count = ALLOCATIONS.get().wrapping_add(1);
    ALLOCATIONS.set(count);
    if count.is_multiple_of(EVERY) {
        for round in 0..SPIN.load(Ordering::Relaxed) {
            black_box(round);
        }
    }
}

// SAFETY: all of it is Freestone's; what is added touches no memory of the program.
unsafe impl GlobalAlloc for Planted {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        fault();
        // SAFETY: what the caller promises.
        unsafe { self.0.alloc(layout) }
    }

    #[inline]
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: what the caller promises.
        unsafe { self.0.dealloc(pointer, layout) };
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        fault();
        // SAFETY: what the caller promises.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    #[inline]
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        fault();
        // SAFETY: what the caller promises.
        unsafe { self.0.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static GLOBAL: Planted = Planted(Freestone::new());

fn proof() -> Result<String, String> {
    let before = freestone::snapshot().allocations;
    for _ in 0..10 {
        drop(black_box(Box::new([0_u8; 100])));
    }
    match freestone::snapshot().allocations - before {
        10.. => Ok(format!("{} with a fault", env!("CARGO_PKG_VERSION"))),
        counted => Err(format!("of 10 boxes it served {counted}")),
    }
}

/// A number from the environment.
fn number(name: &str) -> Option<usize> {
    env::var(name).ok()?.parse().ok()
}

fn main() -> ExitCode {
    if env::var_os("PLANTED").is_none_or(|planted| planted != "off") {
        SPIN.store(number("PLANTED_SPIN").map_or(SPIN_DEFAULT, |rounds| rounds as u32), Ordering::Relaxed);
        // Written to, so resident; and never given back.
        black_box(vec![1_u8; number("PLANTED_RSS").unwrap_or(0)].leak());
    }
    freestone_bench::subject::main("freestone-planted", proof, Controls::NONE)
}
