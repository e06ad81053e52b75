//! Limits on memory, and what happens near to them and beyond. One scenario per process; the argument says which. `tests/limits.rs` runs it.
//!
//! The allocator is not registered: what fails at a limit is a scenario's own block, and nothing else moves the heap.

use std::alloc::{Layout, System};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use freestone::control::{self, HeldEvent};
use freestone::{Background, Freestone, HugePages, Limit, PauseKind, Retain, snapshot};
use freestone_tests::{Block, Random, comes_true, join_all, resident_anonymous_bytes, seed};

#[global_allocator]
static HARNESS: System = System;

static HEAP: Freestone = Freestone::new();

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
/// What comes with the next tick, or with the look once a second; a machine that is busy may take longer.
const PATIENCE: Duration = Duration::from_secs(15);

type Blocks = Vec<Block<'static, Freestone>>;

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).expect("a small size")
}

/// A block with content. `None`: memory is out.
fn try_take(size: usize) -> Option<Block<'static, Freestone>> {
    let mut block = Block::new(&HEAP, layout(size))?;
    block.fill(size as u8);
    Some(block)
}

fn take(size: usize) -> Block<'static, Freestone> {
    try_take(size).expect("memory is there")
}

/// Blocks that together take up no more than so much, as the allocator counts it.
struct Stock {
    blocks: Blocks,
    live: usize,
    most: usize,
    class_bytes: Vec<usize>,
}

impl Stock {
    fn new(most: usize) -> Self {
        let class_bytes = snapshot().classes.iter().map(|class| class.block_bytes).collect();
        Self { blocks: Blocks::new(), live: 0, most, class_bytes }
    }

    fn bytes_of(&self, size: usize) -> usize {
        self.class_bytes[self.class_bytes.partition_point(|&bytes| bytes < size)]
    }

    /// One more, in place of as many as it takes.
    fn replace(&mut self, size: usize, random: &mut Random) {
        self.live += self.bytes_of(size);
        while self.live > self.most {
            let block = self.blocks.swap_remove(random.below(self.blocks.len()));
            self.live -= self.bytes_of(block.layout().size());
        }
        self.blocks.push(take(size));
    }
}

/// The live heap is four fifths of the soft limit, and the heap would keep all that it ever had. The process stays below, because somebody
/// gives back.
fn soft() {
    const LIMIT: usize = 96 * MIB;
    const MOST: usize = LIMIT + LIMIT / 20 + 16 * MIB;
    const THREADS: usize = 8;
    drop(take(1));
    control::set_retain(Retain::Keep);
    drop((0..200).map(|_| take(MIB)).collect::<Blocks>());
    drop((0..200 * 1024).map(|_| take(KIB)).collect::<Blocks>());
    assert!(control::held_bytes() > LIMIT * 3 / 2, "the scenario has something to give back");
    control::set_memory_limit(Limit::Bytes(LIMIT));
    assert_eq!(control::memory_limit(), Some(LIMIT));
    let (enough, seed) = (AtomicBool::new(false), seed());
    let worker = |nth: usize| {
        let enough = &enough;
        move || {
            let mut random = Random::new(seed ^ nth as u64);
            let mut stock = Stock::new(LIMIT / 5 * 4 / THREADS - 2 * MIB);
            while !enough.load(Ordering::Relaxed) {
                for _ in 0..1000 {
                    stock.replace(random.spread(64, 32 * KIB), &mut random);
                }
                // And something large, for a moment.
                drop(take(random.spread(300 * KIB, 2 * MIB)));
            }
        }
    };
    let mut highest = 0;
    thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS).map(|nth| scope.spawn(worker(nth))).collect();
        let is_near = || snapshot().bytes.live >= LIMIT / 5 * 3;
        assert!(comes_true(PATIENCE, is_near), "the scenario comes near the limit");
        assert!(comes_true(PATIENCE, || resident_anonymous_bytes() <= MOST), "{:?}", snapshot());
        for _ in 0..100 {
            highest = highest.max(resident_anonymous_bytes());
            thread::sleep(Duration::from_millis(20));
        }
        let now = snapshot();
        println!("live {} KiB, held {} KiB, highest {} KiB", now.bytes.live >> 10, now.limits.held >> 10, highest >> 10);
        enough.store(true, Ordering::Relaxed);
        join_all(workers);
    });
    let now = snapshot();
    let given_back = [PauseKind::Release, PauseKind::Assist].map(|kind| now.pauses[kind as usize].bytes);
    println!("{given_back:?}, {:?}", now.limits);
    assert!(highest <= MOST, "{highest}");
    assert!(now.limits.assists > 0 || given_back.iter().sum::<u64>() > 0, "something was done about it");
    assert_eq!(now.live_blocks(), 0);
}

/// What lives is four fifths of the soft limit, but in other sizes all the time: what is free is free in the wrong places, in depots and in spans
/// of sizes that are not wanted any more. Free blocks between live ones cannot be given back (a third of what lives, when it goes fast), and the limit
/// is passed by them; by nothing else.
fn soft_in_other_sizes() {
    const LIMIT: usize = 96 * MIB;
    const MORE: usize = LIMIT / 20 + 16 * MIB;
    const THREADS: usize = 8;
    drop(take(1));
    control::set_memory_limit(Limit::Bytes(LIMIT));
    let (left, seed) = (AtomicU64::new(THREADS as u64), seed());
    let worker = |nth: u64| {
        let left = &left;
        move || {
            let mut random = Random::new(seed ^ nth);
            let mut stock = Stock::new(LIMIT / 5 * 4 / THREADS);
            for step in 0..10_000 {
                let most = (4 * KIB) << (step / 500 % 5);
                stock.replace(random.spread(most / 16, most), &mut random);
            }
            left.fetch_sub(1, Ordering::Relaxed);
        }
    };
    let (mut highest, mut accounts) = (0, snapshot().bytes);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS as u64).map(|nth| scope.spawn(worker(nth))).collect();
        while left.load(Ordering::Relaxed) > 0 {
            let (resident, bytes) = (resident_anonymous_bytes(), snapshot().bytes);
            if resident > highest {
                (highest, accounts) = (resident, bytes);
            }
            thread::sleep(Duration::from_millis(5));
        }
        join_all(workers);
    });
    let now = snapshot();
    println!("highest {} KiB: {accounts:?}, {:?}", highest >> 10, now.limits);
    assert!(highest <= LIMIT.max(accounts.live + accounts.holes) + MORE, "{highest}");
    assert!(accounts.dirty + accounts.thread_cached + accounts.depot <= MORE, "{accounts:?}");
    assert_eq!(now.live_blocks(), 0);
}

/// What lives is above the soft limit: no allocation fails, the program finishes, and the limit says that it did not hold.
fn soft_below_live() {
    drop(take(1));
    control::set_memory_limit(Limit::Bytes(16 * MIB));
    let seed = seed();
    thread::scope(|scope| {
        let worker = |nth: u64| {
            move || {
                let mut random = Random::new(seed ^ nth);
                let mut stock = Stock::new(16 * MIB);
                for _ in 0..40_000 {
                    stock.replace(random.spread(64, 8 * KIB), &mut random);
                }
            }
        };
        join_all((0..4).map(|nth| scope.spawn(worker(nth))).collect::<Vec<_>>());
    });
    let now = snapshot();
    println!("{:?}", now.limits);
    assert!(now.limits.exceeded > 0);
    assert_eq!(now.limits.memory_limit, Some(16 * MIB));
    assert_eq!(now.live_blocks(), 0);
}

/// At the hard limit the answer is null, and never is more held; what is freed can be had again, in other sizes too.
fn hard() {
    const LIMIT: usize = 32 * MIB;
    drop(take(1));
    control::set_hard_limit(Limit::Bytes(LIMIT));
    assert_eq!(control::hard_limit(), Some(LIMIT));
    for size in [24, 500, 4 * KIB, 40 * KIB, 300 * KIB, 3 * MIB] {
        let mut blocks = Blocks::new();
        while let Some(block) = try_take(size) {
            assert!(control::held_bytes() <= LIMIT);
            blocks.push(block);
        }
        println!("{} blocks of {size}, {} KiB held", blocks.len(), control::held_bytes() >> 10);
        assert!(blocks.len() * size >= LIMIT / 4 * 3, "{} of {size}: {:?}", blocks.len(), snapshot().bytes);
        assert!(control::held_bytes() <= LIMIT);
        let half = blocks.len() / 2;
        blocks.truncate(half);
        while blocks.len() < half * 3 / 2 {
            blocks.push(take(size));
        }
        // As many as before, of another size.
        blocks.truncate(half);
        let others: Blocks = (0..LIMIT / 3 / (2 * KIB)).map(|_| take(2 * KIB)).collect();
        assert!(control::held_bytes() <= LIMIT);
        drop((blocks, others));
        assert_eq!(snapshot().live_blocks(), 0);
    }
}

/// Eight threads run into the hard limit together, and not past it, while somebody looks on.
fn hard_together() {
    const LIMIT: usize = 32 * MIB;
    drop(take(1));
    control::set_hard_limit(Limit::Bytes(LIMIT));
    let (enough, seed, refusals) = (AtomicBool::new(false), seed(), AtomicU64::new(0));
    thread::scope(|scope| {
        let worker = |nth: u64| {
            let refusals = &refusals;
            move || {
                let mut random = Random::new(seed ^ nth);
                for _ in 0..20 {
                    let mut blocks = Blocks::new();
                    while let Some(block) = try_take(random.spread(16, 64 * KIB)) {
                        blocks.push(block);
                    }
                    refusals.fetch_add(1, Ordering::Relaxed);
                }
            }
        };
        let watcher = scope.spawn(|| {
            while !enough.load(Ordering::Relaxed) {
                let held = control::held_bytes();
                assert!(held <= LIMIT, "{held}");
                thread::yield_now();
            }
        });
        join_all((0..8).map(|nth| scope.spawn(worker(nth))).collect::<Vec<_>>());
        enough.store(true, Ordering::Relaxed);
        join_all([watcher]);
    });
    assert_eq!(refusals.into_inner(), 8 * 20);
    let now = snapshot();
    assert!(!now.approximate);
    assert_eq!(now.live_blocks(), 0);
}

/// A thread waits at the limit until another one removes it.
fn hard_removed() {
    const LIMIT: usize = 16 * MIB;
    const SIZE: usize = 32 * KIB;
    drop(take(1));
    control::set_hard_limit(Limit::Bytes(LIMIT));
    let mut blocks = Blocks::new();
    while let Some(block) = try_take(SIZE) {
        blocks.push(block);
    }
    assert!(blocks.len() * SIZE <= LIMIT);
    assert!(try_take(SIZE).is_none(), "it stays so");
    let remover = thread::spawn(|| control::set_hard_limit(Limit::None));
    assert!(comes_true(PATIENCE, || try_take(SIZE).is_some()));
    remover.join().expect("the thread does not panic");
    assert_eq!((control::hard_limit(), snapshot().limits.hard_limit), (None, None));
    while blocks.len() * SIZE < 2 * LIMIT {
        blocks.push(take(SIZE));
    }
    assert!(control::held_bytes() >= 2 * LIMIT);
    // What is given back by hand is as much as is said, and as the kernel sees it.
    drop(blocks);
    let (before, dirty) = (resident_anonymous_bytes(), snapshot().bytes.dirty);
    let released = control::release_to_os();
    let after = resident_anonymous_bytes();
    println!(
        "{} KiB were dirty, {} KiB went, resident {} KiB and then {}",
        dirty >> 10,
        released >> 10,
        before >> 10,
        after >> 10
    );
    assert!(released >= dirty);
    assert!(before - after + MIB >= released, "{before} - {after}, {released}");
    assert!(before - after <= released + MIB, "{before} - {after}, {released}");
    assert_eq!(control::release_to_os(), 0, "all of it went at once");
}

/// What the fuse's exit must run.
extern "C" fn at_exit() {
    let line = "at exit\n";
    // SAFETY: the line is readable.
    unsafe { libc::write(1, line.as_ptr().cast(), line.len()) };
}

/// Held memory comes near the hard limit, which the environment sets to 32 MiB, three times. Each time one line is said, and no more on the way
/// to the limit; unless the first one is the end.
fn fuse() {
    const LIMIT: usize = 32 * MIB;
    const SIZE: usize = 64 * KIB;
    // SAFETY: a function that stays.
    assert_eq!(unsafe { libc::atexit(at_exit) }, 0);
    drop(take(1));
    assert_eq!(control::hard_limit(), Some(LIMIT));
    for trip in 1..=3 {
        let mut blocks = Blocks::new();
        while control::held_bytes() < LIMIT / 100 * 90 {
            blocks.push(take(SIZE));
        }
        assert_eq!(snapshot().limits.fuse_trips, trip - 1, "not so early");
        while let Some(block) = try_take(SIZE) {
            blocks.push(block);
        }
        assert!(blocks.len() * SIZE >= LIMIT / 100 * 95, "the program goes on, up to the limit");
        let limits = snapshot().limits;
        assert_eq!((limits.fuse_trips, limits.fuse_sticky), (trip, trip == 3), "{limits:?}");
        // A little less, which is too little for another one, and up again.
        blocks.truncate(LIMIT / 100 * 94 / SIZE);
        control::release_to_os();
        some_ticks_pass();
        blocks.extend(std::iter::from_fn(|| try_take(SIZE)));
        assert_eq!(snapshot().limits.fuse_trips, trip, "once per approach");
        drop(blocks);
        control::release_to_os();
        some_ticks_pass();
    }
    println!("held {} KiB at the end", control::held_bytes() >> 10);
}

/// Waits until whoever ticks, maybe this thread on its slow paths, has looked at what is held.
fn some_ticks_pass() {
    let ticks = || snapshot().events.ticks;
    let before = ticks();
    let a_few = || {
        (0..20).for_each(|_| drop(take(300 * KIB)));
        ticks() >= before + 3
    };
    assert!(comes_true(PATIENCE, a_few), "{:?}", snapshot().events);
}

/// What the threads of [`changes`] and the watcher did.
static TAKEN: AtomicU64 = AtomicU64::new(0);
static TOLD: AtomicU64 = AtomicU64::new(0);

fn counted(size: usize) -> Block<'static, Freestone> {
    TAKEN.fetch_add(1, Ordering::Relaxed);
    take(size)
}

fn watcher(event: HeldEvent) {
    TOLD.fetch_add(1, Ordering::Relaxed);
    // A watcher may allocate.
    drop(counted(1 + event.held_bytes % 1000));
}

fn change_something(random: &mut Random) {
    let limit = |random: &mut Random, least| match random.below(4) {
        0 => Limit::None,
        1 => Limit::Percent(50 + random.below(51) as u8),
        _ => Limit::Bytes(random.spread(least, 8 * least)),
    };
    match random.below(6) {
        0 => control::set_memory_limit(limit(random, 16 * MIB)),
        // Far above what is needed.
        1 => control::set_hard_limit(limit(random, 2048 * MIB)),
        2 => {
            let window_ms = random.below(2000) as u16;
            let some = Retain::Peak { percent: random.below(100) as u16, window_ms, steps: random.below(10) as u8 };
            control::set_retain([Retain::Off, Retain::Keep, Retain::DEFAULT, some][random.below(4)]);
        }
        3 => control::set_background([Background::Auto, Background::On, Background::Off][random.below(3)]),
        4 => control::set_huge_pages([HugePages::Auto, HugePages::Never, HugePages::Always][random.below(3)]),
        _ => control::set_watch_bounds(random.spread(MIB, 100 * MIB), random.below(100 * MIB)),
    }
}

/// Whatever is changed while threads allocate, and some sleep so long that their caches are taken: nothing fails, nothing is overwritten, and
/// in the end every count is right.
fn changes() {
    let (seed, enough) = (seed(), AtomicBool::new(false));
    let end = Instant::now() + Duration::from_secs(8);
    drop(counted(1));
    control::watch_held(watcher);
    thread::scope(|scope| {
        let changer = |nth: u64| {
            let enough = &enough;
            move || {
                let mut random = Random::new(seed ^ nth);
                let mut changes = 0;
                while !enough.load(Ordering::Relaxed) {
                    change_something(&mut random);
                    changes += 1;
                    thread::sleep(Duration::from_micros(random.spread(50, 20_000) as u64));
                }
                changes
            }
        };
        let worker = |nth: u64| {
            move || {
                let mut random = Random::new(seed ^ nth << 32);
                let mut blocks = Blocks::new();
                let mut steps = 0_u64;
                while Instant::now() < end {
                    for _ in 0..200 {
                        let most = [1000, 1000, 30 * KIB, 600 * KIB][random.below(4)];
                        match random.below(20) {
                            0..11 if blocks.len() < 400 => blocks.push(counted(random.spread(1, most))),
                            _ if !blocks.is_empty() => drop(blocks.swap_remove(random.below(blocks.len()))),
                            _ => {}
                        }
                    }
                    steps += 1;
                    // Every other thread falls asleep for long, twice or so.
                    if nth.is_multiple_of(2) && random.below(60) == 0 {
                        thread::sleep(Duration::from_millis(2000 + random.below(1000) as u64));
                    }
                }
                steps
            }
        };
        let changers: Vec<_> = (0..4).map(|nth| scope.spawn(changer(nth))).collect();
        let workers: Vec<_> = (0..4).map(|nth| scope.spawn(worker(nth))).collect();
        let steps = join_all(workers);
        enough.store(true, Ordering::Relaxed);
        println!("steps {steps:?}, changes {:?}, told {}", join_all(changers), TOLD.load(Ordering::Relaxed));
    });
    assert!(TOLD.load(Ordering::Relaxed) > 0, "bounds were crossed");
    control::set_watch_bounds(usize::MAX, 0);
    control::set_background(Background::Off);
    assert!(comes_true(PATIENCE, || !snapshot().background_thread && !snapshot().approximate), "{:?}", snapshot());
    let now = snapshot();
    println!("recalls {}, starts {}, {:?}", now.events.recalls, now.events.background_starts, now.limits);
    assert_eq!((now.allocations, now.live_blocks(), now.bytes.live), (TAKEN.load(Ordering::Relaxed), 0, 0));
    control::set_retain(Retain::DEFAULT);
    control::set_memory_limit(Limit::None);
    control::set_hard_limit(Limit::None);
    drop((0..1000).map(|nth| take(1 + nth * 50)).collect::<Blocks>());
    control::release_to_os();
    let end = snapshot();
    assert!(!end.approximate);
    assert_eq!((end.bytes.live, end.bytes.thread_cached, end.bytes.depot, end.bytes.dirty), (0, 0, 0, 0), "{:?}", end.bytes);
}

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("soft") => soft(),
        Some("soft_below_live") => soft_below_live(),
        Some("hard") => hard(),
        Some("hard_removed") => hard_removed(),
        Some("hard_together") => hard_together(),
        Some("soft_in_other_sizes") => soft_in_other_sizes(),
        Some("fuse") => fuse(),
        Some("changes") => changes(),
        _ => panic!("which scenario?"),
    }
    println!("alive");
}
