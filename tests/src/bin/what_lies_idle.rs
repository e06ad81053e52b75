//! What no program uses any more is there for whoever needs it. One scenario per process; the argument says which. `tests/what_lies_idle.rs` runs it.

use std::alloc::{Layout, alloc, dealloc, realloc};
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

use freestone::{Freestone, snapshot};
use freestone_tests::limit_address_space;

#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).expect("a small power of two")
}

/// A block with its first byte written; null when memory is out.
fn take(size: usize) -> *mut u8 {
    // SAFETY: sizes here are not zero.
    let block = black_box(unsafe { alloc(layout(size)) });
    if !block.is_null() {
        // SAFETY: a new block.
        unsafe { block.write(1) };
    }
    block
}

/// Takes what there is, in blocks of 4 KiB; says how many.
fn take_all() -> usize {
    let mut count = 0;
    while !take(4 * KIB).is_null() {
        count += 1;
    }
    count
}

/// Runs `work` in so many threads, all of which are there at the same time.
fn together(threads: usize, work: fn()) {
    let all_here = Arc::new(Barrier::new(threads));
    let started: Vec<_> = (0..threads)
        .map(|_| {
            let all_here = Arc::clone(&all_here);
            let body = move || {
                all_here.wait();
                work();
                all_here.wait();
            };
            thread::Builder::new().stack_size(128 * KIB).spawn(body).expect("there is room for a thread")
        })
        .collect();
    for thread in started {
        thread.join().expect("the thread does not panic");
    }
}

fn fill_caches() {
    for _ in 0..60 {
        for size in (9..256).map(|step| step * 128) {
            let blocks: [*mut u8; 16] = std::array::from_fn(|_| take(size));
            for block in blocks {
                // SAFETY: a live block of this layout.
                unsafe { dealloc(block, layout(size)) };
            }
        }
    }
}

/// Memory is out: what ended threads cached is used before anybody hears of it.
fn caches_of_ended_threads() {
    together(16, fill_caches);
    assert!(snapshot().bytes.thread_cached >= MIB, "the scenario has something to find");
    limit_address_space(96 * MIB);
    let count = take_all();
    let left = snapshot().bytes;
    println!(
        "{count} blocks; cached {} KiB, depot {} KiB, dirty {} KiB",
        left.thread_cached >> 10,
        left.depot >> 10,
        left.dirty >> 10
    );
    assert!(count > 1000);
    assert!(left.thread_cached + left.depot <= 128 * KIB, "{left:?}");
    freestone::control::release_to_os();
    let more = take_all();
    assert!(more * 4 * KIB <= 128 * KIB, "{more} blocks more after everything was given back by hand");
}

/// Address space is out: what was mapped ahead of a growing block goes back.
fn room_of_growing_blocks() {
    limit_address_space(1024 * MIB);
    let old = take(300 * MIB);
    assert!(!old.is_null());
    // SAFETY: a live block of this layout.
    let grown = unsafe { realloc(old, layout(300 * MIB), 300 * MIB + 4 * KIB) };
    assert!(!grown.is_null());
    assert!(!take(500 * MIB).is_null(), "300 and 500 MiB fit into 1024");
}

/// What the kernel says is resident between two addresses.
fn resident_bytes_between(low: usize, high: usize) -> usize {
    let text = std::fs::read_to_string("/proc/self/smaps").expect("the kernel tells");
    let mut inside = false;
    let mut kib = 0;
    for line in text.lines() {
        let start = line.split_once('-').and_then(|(start, _)| usize::from_str_radix(start, 16).ok());
        inside = start.map_or(inside, |start| (low..high).contains(&start));
        if inside && let Some(rest) = line.strip_prefix("Rss:") {
            kib += rest.trim().trim_end_matches(" kB").parse::<usize>().expect("a number of KiB");
        }
    }
    kib * KIB
}

/// Steps are unmapped and mapped again: the ledger still holds what their tables hold.
fn tables_of_steps_that_went() {
    const COUNT: usize = 200_000;
    limit_address_space(2048 * MIB);
    let mut blocks = Vec::with_capacity(COUNT);
    blocks.resize_with(COUNT, || take(4 * KIB));
    for block in blocks.drain(..).filter(|block| !block.is_null()) {
        // SAFETY: live blocks of this layout.
        unsafe { dealloc(block, layout(4 * KIB)) };
    }
    drop(blocks);
    freestone::control::release_to_os();
    let now = snapshot();
    // The region lies there; see `page_heap`.
    let resident = resident_bytes_between(1 << 45, 1 << 46);
    println!("committed {} KiB, resident {} KiB", now.bytes.committed() >> 10, resident >> 10);
    assert!(!now.approximate);
    assert!(now.bytes.metadata >= 5 * MIB, "tables of {COUNT} blocks");
    assert!(
        now.bytes.committed() + 64 * KIB >= resident,
        "{} bytes are said to hold memory, {resident} do",
        now.bytes.committed()
    );
}

/// Threads come and go while another one gives everything back all the time: there are as many records as there were threads at a time.
fn records_of_ended_threads() {
    static ENOUGH: AtomicBool = AtomicBool::new(false);
    let releases = thread::spawn(|| {
        while !ENOUGH.load(Ordering::Relaxed) {
            freestone::control::release_to_os();
        }
    });
    let births = || {
        for _ in 0..5_000 {
            thread::spawn(|| drop(black_box(vec![1_u8; 100]))).join().expect("the thread does not panic");
        }
    };
    let parents = [thread::spawn(births), thread::spawn(births)];
    for parent in parents {
        parent.join().expect("the thread does not panic");
    }
    ENOUGH.store(true, Ordering::Relaxed);
    releases.join().expect("the thread does not panic");
    // The main thread, the one that releases, two parents, their children, of which one may end while the next one begins; and one that is
    // being emptied.
    let records = snapshot().thread_records;
    println!("{records} records");
    assert!(records <= 10, "{records} records");
}

/// A fork while another thread empties records of ended ones: the child can reach all of them.
fn records_in_the_child_of_a_fork() {
    static ENOUGH: AtomicBool = AtomicBool::new(false);
    together(100, || drop((1..50).map(|step| vec![1_u8; step * 16]).collect::<Vec<_>>()));
    let releases = thread::spawn(|| {
        while !ENOUGH.load(Ordering::Relaxed) {
            freestone::control::release_to_os();
        }
    });
    for _ in 0..200 {
        // SAFETY: the child does nothing but look and leave.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let now = snapshot();
            // All but the one of the thread that forked.
            let reachable = now.thread_records_pooled + 1 == now.thread_records;
            // SAFETY: ends the process.
            unsafe { libc::_exit(i32::from(!reachable)) };
        }
        assert!(child > 0);
        let mut status = 0;
        // SAFETY: a child of ours and a place to write to.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!(status, 0, "the child has records that nobody can reach");
    }
    ENOUGH.store(true, Ordering::Relaxed);
    releases.join().expect("the thread does not panic");
}

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("caches") => caches_of_ended_threads(),
        Some("room") => room_of_growing_blocks(),
        Some("tables") => tables_of_steps_that_went(),
        Some("records") => records_of_ended_threads(),
        Some("fork") => records_in_the_child_of_a_fork(),
        _ => panic!("which scenario?"),
    }
    println!("alive");
}
