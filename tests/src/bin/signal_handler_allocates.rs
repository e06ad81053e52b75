//! A timer interrupts the main thread every so many microseconds, wherever it is, and the handler allocates and frees. Argument: what the main
//! thread is busy with, `large` or `small` blocks, `snapshots` or `forks`; and `forks` a second time if the handler forks, too. `tests/signal_handler_allocates.rs` says what is promised.

use std::alloc::{GlobalAlloc, Layout};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use freestone::Freestone;
use freestone_tests::{Block, Random};

static UNDER_TEST: Freestone = Freestone::new();

/// What the main thread uses beside the blocks it works on: nothing of the allocator under test.
#[global_allocator]
static BESIDE: std::alloc::System = std::alloc::System;

const INTERVAL_US: i64 = 200;
const SIGNALS: u32 = 2_000;

/// Does the handler fork, too?
static FORKS: AtomicBool = AtomicBool::new(false);
static RUNS: AtomicU32 = AtomicU32::new(0);
static SERVED: AtomicU32 = AtomicU32::new(0);
static REFUSED: AtomicU32 = AtomicU32::new(0);

/// What the handler asks for: of every kind, and of no class that the main thread uses.
const OF_THE_HANDLER: [usize; 6] = [24, 200, 900, 3_000, 150 << 10, 3 << 20];

extern "C" fn handler(_: i32) {
    let run = RUNS.fetch_add(1, Ordering::Relaxed);
    if FORKS.load(Ordering::Relaxed) && run.is_multiple_of(4) {
        fork_once();
    }
    let mut blocks = [ptr::null_mut(); 2 * OF_THE_HANDLER.len()];
    for (nth, (block, size)) in blocks.iter_mut().zip(OF_THE_HANDLER.into_iter().cycle()).enumerate() {
        let layout = layout(size);
        // SAFETY: the size is not zero.
        *block = unsafe { UNDER_TEST.alloc(layout) };
        if block.is_null() {
            REFUSED.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        SERVED.fetch_add(1, Ordering::Relaxed);
        // SAFETY: a live block of this size.
        unsafe { block.write_bytes((run as usize + nth) as u8, size.min(4096)) };
    }
    for (nth, (block, size)) in blocks.into_iter().zip(OF_THE_HANDLER.into_iter().cycle()).enumerate() {
        if block.is_null() {
            continue;
        }
        // SAFETY: written above.
        let content = unsafe { std::slice::from_raw_parts(block, size.min(4096)) };
        assert!(content.iter().all(|&byte| byte == (run as usize + nth) as u8), "a block of the handler's changed");
        // SAFETY: a live block of this layout.
        unsafe { UNDER_TEST.dealloc(block, layout(size)) };
    }
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).expect("a small power of two")
}

fn set_timer(interval_us: i64) {
    let interval = libc::timeval { tv_sec: 0, tv_usec: interval_us };
    let timer = libc::itimerval { it_interval: interval, it_value: interval };
    // SAFETY: the times are readable; the old ones are not wanted.
    assert_eq!(unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, ptr::null_mut()) }, 0);
}

/// Works on blocks of these sizes, except those of a class that the handler uses too.
fn work_on_blocks(least: usize, most: usize) -> impl FnMut() {
    let bytes = freestone::snapshot().classes.map(|class| class.block_bytes);
    let class_of = move |size: usize| bytes.iter().position(|&bytes| bytes >= size);
    let is_of_the_handler = move |size: usize| OF_THE_HANDLER.iter().any(|&other| class_of(other) == class_of(size));
    let size = move |random: &mut Random| loop {
        let size = random.spread(least, most);
        if size > 32 << 10 || !is_of_the_handler(size) {
            return size;
        }
    };
    let mut random = Random::new(1);
    let mut blocks: Vec<Block<'_, Freestone>> = Vec::with_capacity(40);
    let mut steps = 0_u32;
    move || {
        steps += 1;
        if blocks.len() < 40 {
            let mut block = Block::new(&UNDER_TEST, layout(size(&mut random))).expect("memory is there");
            block.fill(steps as u8);
            blocks.push(block);
            return;
        }
        let nth = random.below(40);
        match random.below(3) {
            0 => assert!(blocks[nth].resize(size(&mut random))),
            _ => drop(blocks.swap_remove(nth)),
        }
        if steps.is_multiple_of(5_000) {
            freestone::control::release_to_os();
        }
    }
}

fn fork_once() {
    // SAFETY: the child does nothing but end.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: always allowed.
        unsafe { libc::_exit(0) };
    }
    let mut status = 0;
    // SAFETY: our child.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    assert_eq!(status, 0);
}

fn main() {
    let mut work: Box<dyn FnMut()> = match std::env::args().nth(1).as_deref() {
        Some("large") => Box::new(work_on_blocks(33 << 10, 6 << 20)),
        Some("small") => Box::new(work_on_blocks(1, 8 << 10)),
        Some("snapshots") => Box::new(|| {
            assert!(freestone::snapshot().allocations > 0);
            // And something else for about as long.
            (0..10_000).map(std::hint::black_box).for_each(|_: u32| {});
        }),
        Some("forks") => Box::new(fork_once),
        _ => panic!("what to be busy with: large, small, snapshots or forks?"),
    };
    FORKS.store(std::env::args().nth(2).is_some_and(|also| also == "forks"), Ordering::Relaxed);
    // Born before the first signal.
    drop(Block::new(&UNDER_TEST, layout(64 << 10)));
    // SAFETY: all zeros are a valid action: no flags, nothing blocked.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as extern "C" fn(i32) as usize;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: the action is readable, and the handler stays.
    assert_eq!(unsafe { libc::sigaction(libc::SIGALRM, &raw const action, ptr::null_mut()) }, 0);
    set_timer(INTERVAL_US);
    let mut steps = 0_u64;
    while RUNS.load(Ordering::Relaxed) < SIGNALS {
        work();
        steps += 1;
    }
    set_timer(0);
    drop(work);
    let now = freestone::snapshot();
    println!(
        "{steps} steps, {} signals: {} blocks served, {} refused, {} lost",
        RUNS.load(Ordering::Relaxed),
        SERVED.load(Ordering::Relaxed),
        REFUSED.load(Ordering::Relaxed),
        now.events.dropped
    );
    assert!(now.frees <= now.allocations);
}
