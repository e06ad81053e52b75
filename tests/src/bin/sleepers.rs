//! What threads cache that do nothing at the moment. One scenario per process; the argument says which. `tests/sleepers.rs` runs it.
//!
//! The allocator is not registered, so that every count is a scenario's own.

use std::alloc::{Layout, System};
use std::cell::RefCell;
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use freestone::{Background, Freestone, control, snapshot};
use freestone_tests::{Block, Random, comes_true, join_all, seed};

#[global_allocator]
static HARNESS: System = System;

static HEAP: Freestone = Freestone::new().background(Background::On);

const KIB: usize = 1 << 10;
/// A cache is taken after a second or two of sleep.
const PATIENCE: Duration = Duration::from_secs(15);

type Blocks = Vec<Block<'static, Freestone>>;

fn take(size: usize) -> Block<'static, Freestone> {
    let layout = Layout::from_size_align(size, 8).expect("a small size");
    let mut block = Block::new(&HEAP, layout).expect("memory is there");
    block.fill(size as u8);
    block
}

fn fill_cache() {
    for _ in 0..60 {
        for size in (1..64).map(|step| step * 64) {
            drop((0..16).map(|_| take(size)).collect::<Blocks>());
        }
    }
}

/// Can caches be taken at all? Needs the kernel's `membarrier`, the private and expedited kind.
fn kernel_has_barriers() -> bool {
    const QUERY: i32 = 0;
    const PRIVATE_EXPEDITED: i64 = 1 << 3;
    // SAFETY: asks what there is.
    let kinds = unsafe { libc::syscall(libc::SYS_membarrier, QUERY, 0) };
    let has = kinds >= 0 && kinds & PRIVATE_EXPEDITED != 0;
    if !has {
        println!("SKIPPED: this kernel has no membarrier, so nobody's cache is taken");
    }
    has
}

/// A thread falls asleep with a full cache. It is taken, and when the thread is back everything is where it was.
fn one() {
    if !kernel_has_barriers() {
        return;
    }
    let (wake, is_woken) = mpsc::channel::<()>();
    let (report, reported) = mpsc::channel();
    let sleeper = thread::spawn(move || {
        let blocks: Blocks = (1..500).map(|nth| take(nth * 16)).collect();
        for _ in 0..3 {
            fill_cache();
            report.send(()).expect("somebody listens");
            is_woken.recv().expect("somebody wakes");
            blocks.iter().for_each(Block::check);
        }
        fill_cache();
        drop(blocks);
    });
    for round in 1..=3 {
        reported.recv().expect("the thread reports");
        let full = snapshot();
        let is_taken = || snapshot().events.recalls >= round;
        assert!(comes_true(PATIENCE, is_taken), "{:?}", snapshot().events);
        let taken = snapshot();
        println!("cached {} KiB, then {}", full.bytes.thread_cached >> 10, taken.bytes.thread_cached >> 10);
        assert_eq!(taken.events.recalls, round, "once per sleep");
        assert!(full.bytes.thread_cached >= 100 * KIB, "there was something to take");
        // One block per class may stay.
        let one_each: usize =
            taken.classes.iter().filter(|class| class.block_bytes <= 32 * KIB).map(|class| class.block_bytes).sum();
        assert!(
            taken.bytes.thread_cached <= full.bytes.thread_cached / 2 && taken.bytes.thread_cached <= one_each,
            "{:?}",
            taken.bytes
        );
        assert_eq!((taken.live_blocks(), taken.bytes.live), (full.live_blocks(), full.bytes.live));
        wake.send(()).expect("the thread waits");
    }
    sleeper.join().expect("the thread does not panic");
    ends_exactly(0);
}

/// Nobody does anything any more: so many blocks live, and every count says so.
fn ends_exactly(live: u64) {
    assert!(comes_true(PATIENCE, || !snapshot().approximate), "{:?}", snapshot());
    let now = snapshot();
    assert_eq!((now.allocations - now.frees, now.live_blocks()), (live, live));
}

/// Threads fall asleep and wake at random, some just when their caches are taken. Every block stays what it was, and the counts are right.
fn many() {
    const SLEEPERS: u64 = 24;
    if !kernel_has_barriers() {
        return;
    }
    let taken = AtomicU64::new(0);
    let seed = seed();
    let enough = AtomicBool::new(false);
    let held = thread::scope(|scope| {
        let sleeper = |nth: u64| {
            let (enough, taken) = (&enough, &taken);
            move || {
                let mut random = Random::new(seed ^ nth);
                let mut blocks = Blocks::new();
                while !enough.load(Ordering::Relaxed) {
                    for _ in 0..random.spread(1, 4000) {
                        let most = [200, 2000, 30 * KIB, 200 * KIB][random.below(4)];
                        if random.below(2) == 0 && blocks.len() < 300 {
                            taken.fetch_add(1, Ordering::Relaxed);
                            blocks.push(take(random.spread(1, most)));
                        } else if !blocks.is_empty() {
                            drop(blocks.swap_remove(random.below(blocks.len())));
                        }
                    }
                    // Around the time when caches are taken; now and then much shorter, and somebody may wake us before.
                    let ms = if random.below(3) == 0 { random.below(50) } else { 900 + random.below(2200) };
                    thread::park_timeout(Duration::from_millis(ms as u64));
                    blocks.iter().for_each(Block::check);
                }
                blocks
            }
        };
        let sleepers: Vec<_> = (0..SLEEPERS).map(|nth| scope.spawn(sleeper(nth))).collect();
        let mut random = Random::new(!seed);
        let wakes_somebody = || {
            if random.below(4) == 0 {
                sleepers[random.below(sleepers.len())].thread().unpark();
            }
            snapshot().events.recalls >= 3 * SLEEPERS
        };
        assert!(comes_true(2 * PATIENCE, wakes_somebody), "{:?}", snapshot().events);
        enough.store(true, Ordering::Relaxed);
        for sleeper in &sleepers {
            sleeper.thread().unpark();
        }
        join_all(sleepers).into_iter().flatten().collect::<Blocks>()
    });
    println!("{} recalls, {} allocations", snapshot().events.recalls, taken.load(Ordering::Relaxed));
    ends_exactly(held.len() as u64);
    assert_eq!(snapshot().allocations, taken.load(Ordering::Relaxed));
    drop(held);
    ends_exactly(0);
}

static KEY: AtomicU32 = AtomicU32::new(0);
static ROUNDS: AtomicU64 = AtomicU64::new(0);

/// In every round of destructors that the system grants, the last of which comes after the allocator's own.
unsafe extern "C" fn idle_in_every_round(value: *mut c_void) {
    ROUNDS.fetch_add(1, Ordering::Relaxed);
    control::thread_idle();
    drop(take(100));
    control::thread_idle();
    // SAFETY: the key exists.
    unsafe { libc::pthread_setspecific(KEY.load(Ordering::Relaxed), value) };
}

struct IdleWhenDropped(Blocks);

impl Drop for IdleWhenDropped {
    fn drop(&mut self) {
        control::thread_idle();
        self.0.clear();
        control::thread_idle();
        self.0.push(take(200));
    }
}

thread_local! {
    static LOCAL: RefCell<Option<IdleWhenDropped>> = const { RefCell::new(None) };
}

/// A thread that says that it will be idle caches nothing from then on, and may say so at any time.
fn who_says_so() {
    control::thread_idle();
    control::set_background(Background::Off);
    assert!(comes_true(PATIENCE, || !snapshot().background_thread));
    let blocks: Blocks = (1..500).map(|nth| take(nth * 16)).collect();
    fill_cache();
    let full = snapshot();
    assert!(full.bytes.thread_cached >= 100 * KIB, "{:?}", full.bytes);
    for _ in 0..2 {
        control::thread_idle();
        let idle = snapshot();
        assert_eq!((idle.bytes.thread_cached, idle.live_blocks()), (0, full.live_blocks()));
        assert!(!idle.approximate);
    }
    fill_cache();
    assert!(snapshot().bytes.thread_cached > 0, "and goes on as before");
    blocks.iter().for_each(Block::check);
    control::thread_idle();

    // A thread that never had a block gets no record for it.
    let records = snapshot().events.record_births;
    let unborn = thread::spawn(|| {
        control::thread_idle();
        control::thread_idle();
        snapshot().events.record_births
    });
    assert_eq!(unborn.join().expect("the thread does not panic"), records);

    let mut key = 0;
    // SAFETY: a place to write to and a function that stays.
    assert_eq!(unsafe { libc::pthread_key_create(&raw mut key, Some(idle_in_every_round)) }, 0);
    KEY.store(key, Ordering::Relaxed);
    for has_blocks in [false, true] {
        let ends = thread::spawn(move || {
            let mine = if has_blocks { (1..50).map(take).collect() } else { Blocks::new() };
            LOCAL.set(Some(IdleWhenDropped(mine)));
            // SAFETY: the key exists.
            unsafe { libc::pthread_setspecific(KEY.load(Ordering::Relaxed), std::ptr::without_provenance(1)) };
        });
        ends.join().expect("the thread does not panic");
    }
    // How many rounds there are is the system's business: four, as a rule.
    assert!(ROUNDS.load(Ordering::Relaxed) >= 2 * 2);
    ends_exactly(blocks.len() as u64);
    drop(blocks);
    ends_exactly(0);
}

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("one") => one(),
        Some("many") => many(),
        Some("who_says_so") => who_says_so(),
        _ => panic!("which scenario?"),
    }
    println!("alive");
}
