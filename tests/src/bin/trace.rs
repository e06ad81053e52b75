//! What the trace tells of. `tests/trace.rs` runs it, with options in the environment. The argument is the scenario; each prints what the test
//! compares with the lines, and `alive` at its end.
//!
//! Nothing but what a scenario does itself comes from Freestone, so that counts are known.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::time::{Duration, Instant};

use freestone::{Freestone, Limit, Trace, control, snapshot};
use freestone_tests::{comes_true, thread_count};

#[global_allocator]
static BESIDE: System = System;

static HEAP: Freestone = Freestone::new();
static FOR_C: Freestone = Freestone::new().for_c();
static BUILT: Freestone = Freestone::new().trace(Trace::Lines).trace_interval(Duration::from_millis(100));

const MIB: usize = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(20);
/// What the test chooses, and the shortest there is.
const INTERVAL: Duration = Duration::from_millis(100);

/// A block of Freestone's, written to.
struct Held(*mut u8, Layout);

impl Held {
    fn new(bytes: usize) -> Self {
        let layout = Layout::from_size_align(bytes, 8).expect("a layout");
        // SAFETY: the size is not zero.
        let block = unsafe { HEAP.alloc(layout) };
        assert!(!block.is_null());
        // SAFETY: a block of so many bytes.
        unsafe { block.write_bytes(1, bytes) };
        Self(black_box(block), layout)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // SAFETY: a block of this layout, freed once.
        unsafe { HEAP.dealloc(self.0, self.1) };
    }
}

/// So many MiB in blocks of all small sizes.
fn hold(mib: usize) -> Vec<Held> {
    let mut held = Vec::new();
    let mut bytes = 0;
    while bytes < mib * MIB {
        let size = 16 + held.len() * 40 % 5_000;
        bytes += size;
        held.push(Held::new(size));
    }
    held
}

/// Slow paths, until a few intervals are over.
fn take_slow_paths() {
    let begun = Instant::now();
    while begun.elapsed() < 5 * INTERVAL {
        drop(hold(1));
    }
}

/// Waits for the background thread.
fn wait_for_thread() {
    assert!(comes_true(PATIENCE, || snapshot().background_thread), "there is no background thread");
}

/// Work, a burst that goes back, and rest. Then the trace ends, and what it told last is what is so.
fn work() {
    take_slow_paths();
    wait_for_thread();
    let held = hold(8);
    drop(hold(32));
    let released = control::release_to_os();
    assert!(released > 0);
    // At rest for a whole interval at least, however late its line.
    std::thread::sleep(5 * INTERVAL);
    control::set_trace(Trace::Off);
    let now = snapshot();
    println!(
        "allocs_total={} frees_total={} live_blocks={} live={}",
        now.allocations,
        now.frees,
        now.live_blocks(),
        now.bytes.live
    );
    println!("alloc_bytes_total={} free_bytes_total={}", now.allocated_bytes, now.freed_bytes);
    println!("asked={released}");
    drop(held);
}

/// More lives than the soft limit allows.
fn over_the_limit() {
    let held = hold(8);
    wait_for_thread();
    std::thread::sleep(10 * INTERVAL);
    drop(held);
}

/// Everything that can be changed is, at run time.
fn at_run_time() {
    drop(Held::new(100));
    // It holds no place for the others: options are those of the first operation.
    control::set_trace_interval(Duration::ZERO);
    control::set_trace(Trace::Lines);
    drop(Held::new(100_000));
    wait_for_thread();
    std::thread::sleep(3 * INTERVAL);
    control::set_trace(Trace::Anomalies);
    std::thread::sleep(3 * INTERVAL);
    control::set_trace_fd(1);
    std::thread::sleep(3 * INTERVAL);
    control::set_trace(Trace::Off);
    let bytes = snapshot().allocations;
    assert!(bytes > 0);
}

fn alone() {
    take_slow_paths();
    assert_eq!((snapshot().background_thread, thread_count()), (false, 1));
}

/// A child of a fork has a trace of its own, and a background thread if it is to have one.
fn forks() {
    drop(hold(1));
    wait_for_thread();
    for _ in 0..3 {
        // SAFETY: the child does what it may, and ends.
        match unsafe { libc::fork() } {
            -1 => panic!("there is no second process"),
            0 => {
                take_slow_paths();
                wait_for_thread();
                std::thread::sleep(3 * INTERVAL);
                // SAFETY: ends the child without what was to happen at the end of its parent.
                unsafe { libc::_exit(0) };
            }
            child => {
                take_slow_paths();
                let mut status = 0;
                // SAFETY: `status` is a place for it.
                assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
                assert_eq!(status, 0);
                println!("child={child}");
            }
        }
    }
}

fn pipe() -> [i32; 2] {
    let mut ends = [0; 2];
    // SAFETY: a place for two descriptors.
    assert_eq!(unsafe { libc::pipe(ends.as_mut_ptr()) }, 0);
    ends
}

fn errno() -> *mut i32 {
    // SAFETY: always allowed.
    unsafe { libc::__errno_location() }
}

/// Nobody reads: a program to which that is fatal does not notice, and its `errno` stays.
fn nobody_reads() {
    // SAFETY: as a program in C begins.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    let [reader, writer] = pipe();
    drop(Held::new(100));
    control::set_trace_fd(writer.cast_unsigned());
    control::set_trace_interval(INTERVAL);
    control::set_trace(Trace::Anomalies);
    for round in 0..3 {
        let begun = Instant::now();
        while begun.elapsed() < 3 * INTERVAL {
            // SAFETY: this thread's own.
            unsafe { errno().write(77) };
            let held: [Held; 200] = std::array::from_fn(|index| Held::new(1_000 + index * 10));
            drop(held);
            // SAFETY: as above.
            assert_eq!(unsafe { errno().read() }, 77);
        }
        match round {
            // SAFETY: a descriptor of ours.
            0 => assert_eq!(unsafe { libc::close(reader) }, 0),
            // SAFETY: as above.
            _ => drop(unsafe { libc::close(writer) }),
        }
    }
}

/// Who reads sleeps: nobody waits for him, and when he is back he learns how much he missed.
fn reader_sleeps() {
    let [reader, writer] = pipe();
    // It is full after a few lines.
    // SAFETY: a descriptor of ours.
    assert!(unsafe { libc::fcntl(writer, libc::F_SETPIPE_SZ, 16 << 10) } > 0);
    drop(Held::new(100));
    control::set_trace_fd(writer.cast_unsigned());
    control::set_trace_interval(INTERVAL);
    control::set_trace(Trace::Lines);
    wait_for_thread();
    let mut bytes = vec![0_u8; 1 << 16];
    let mut read = || {
        // SAFETY: `bytes` is writable.
        let got = unsafe { libc::read(reader, bytes.as_mut_ptr().cast(), bytes.len()) };
        String::from_utf8(bytes[..usize::try_from(got).expect("a pipe can be read")].to_vec()).expect("ASCII")
    };
    // The heap goes on, whoever writes.
    for _ in 0..10 {
        take_slow_paths();
    }
    let lines = read();
    print!("{lines}");
    // There is room again.
    let later = read();
    print!("{later}");
}

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("work") => work(),
        Some("over_the_limit") => over_the_limit(),
        Some("at_run_time") => at_run_time(),
        Some("alone") => alone(),
        Some("for_c") => {
            // SAFETY: the size is not zero. Whoever comes first decides; the block stays.
            assert!(!unsafe { FOR_C.alloc(Layout::new::<u64>()) }.is_null());
            alone();
        }
        Some("built") => {
            // SAFETY: as above.
            assert!(!unsafe { BUILT.alloc(Layout::new::<u64>()) }.is_null());
            wait_for_thread();
            std::thread::sleep(3 * INTERVAL);
        }
        Some("forks") => forks(),
        Some("nobody_reads") => nobody_reads(),
        Some("reader_sleeps") => reader_sleeps(),
        Some("silent") => {
            drop(hold(4));
            control::set_memory_limit(Limit::None);
            take_slow_paths();
        }
        _ => panic!("which scenario?"),
    }
    println!("alive");
}
