//! Every block and every byte is in exactly one line of the accounts. At rest they hold to the last digit, beside a model that counts along;
//! under load every snapshot either says that it is approximate or holds, no counter ever falls, and no free is seen without its allocation;
//! afterwards all is exact again. And what the accounts call mapped is what the kernel calls mapped.
//!
//! The allocator under test is not registered, so that every count is this test's.

use std::alloc::{GlobalAlloc, Layout, System};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use freestone::{Events, Freestone, SlowPath, Snapshot, control, snapshot};
use freestone_tests::{Block, Random, alone, join_all, lock, run, seed};

static UNDER_TEST: Freestone = Freestone::new();

#[global_allocator]
static HARNESS: System = System;

const MIB: usize = 1 << 20;

type Blocks = Vec<Block<'static, Freestone>>;

/// All that must hold between the figures of one snapshot, at rest and under load.
fn check_sums(now: &Snapshot) {
    let classes = &now.classes;
    let sum = |figure: fn(&freestone::ClassSnapshot) -> u64| classes.iter().map(figure).sum::<u64>();
    assert_eq!(now.allocations, sum(|class| class.allocations) + now.large.allocations);
    assert_eq!(now.frees, sum(|class| class.frees) + now.large.frees);
    assert_eq!(now.allocated_bytes, sum(|class| class.allocations * class.block_bytes as u64) + now.large.allocated_bytes);
    assert_eq!(now.freed_bytes, sum(|class| class.frees * class.block_bytes as u64) + now.large.freed_bytes);
    let live = sum(|class| class.live() * class.block_bytes as u64) + now.large.allocated_bytes - now.large.freed_bytes;
    assert_eq!(now.bytes.live as u64, live);
    assert_eq!(now.bytes.thread_cached as u64, sum(|class| class.thread_cached * class.block_bytes as u64));
    assert_eq!(now.bytes.depot as u64, sum(|class| class.depot * class.block_bytes as u64));
    assert!(classes.iter().all(|class| class.frees <= class.allocations), "{classes:?}");
    assert!(now.large.frees <= now.large.allocations, "{:?}", now.large);
    assert!(now.large.freed_bytes <= now.large.allocated_bytes, "{:?}", now.large);
    assert!(now.frees <= now.allocations);
    // No line is the remainder of a subtraction gone below zero.
    assert!(now.bytes.reserved() < 1 << 40, "{:?}", now.bytes);
    assert!(now.events.sample_ends <= now.events.samples);
    assert!(now.thread_records_pooled <= now.thread_records);
    for class in classes {
        assert!(class.requests.slack_bytes <= class.requests.count * class.block_bytes as u64, "{class:?}");
        if !now.approximate {
            assert!(class.full_spans() <= class.spans, "{class:?}");
        }
    }
    for path in SlowPath::ALL {
        let times = now.slow_paths[path as usize];
        assert_eq!(times.count, times.buckets.iter().sum::<u64>());
        assert!(times.percentile_ns(50) <= times.percentile_ns(99), "{path:?}: {times:?}");
    }
}

/// Holes, class by class and as a whole, and the spans that have them, when nobody is at work.
fn check_holes(now: &Snapshot) {
    let of_classes: usize = now.classes.iter().map(|class| class.holes_bytes).sum();
    // The rest is in the seed; what was given back of them is no hole any more.
    assert!(now.bytes.holes <= of_classes + (128 << 10), "{of_classes} {:?}", now.bytes);
    for class in now.classes.iter().filter(|class| class.block_bytes <= 32 << 10) {
        let per_span = class.span_bytes / class.block_bytes;
        let partial: u64 = class.spans_by_free.iter().map(|&spans| u64::from(spans)).sum();
        assert!(partial <= class.spans, "{class:?}");
        let free =
            (class.holes_bytes - class.spans as usize * (class.span_bytes - per_span * class.block_bytes)) / class.block_bytes;
        let least: usize = class.spans_by_free.iter().enumerate().map(|(list, &spans)| (spans as usize) << list).sum();
        let most: usize =
            class.spans_by_free.iter().enumerate().map(|(list, &spans)| spans as usize * per_span.min((2 << list) - 1)).sum();
        assert!((least..=most).contains(&free), "{free} free blocks in {class:?}");
    }
}

/// What is timed is what is counted, once nobody is in the middle of it.
fn check_times(now: &Snapshot) {
    let [refill, map, release, _] = now.slow_paths.map(|path| path.count);
    let whole = |class: &&freestone::ClassSnapshot| class.block_bytes > 32 << 10;
    let of_whole: u64 = now.classes.iter().filter(whole).map(|class| class.allocations).sum();
    assert!((now.events.refills.saturating_sub(of_whole)..=now.events.refills).contains(&refill), "{refill} {:?}", now.events);
    assert_eq!(map, now.events.maps + now.events.moves);
    assert_eq!(release, now.events.purges + now.events.unmaps);
}

/// Which class serves a layout: the smallest whose blocks hold it. `None`: it is beyond the classes.
fn class_of(now: &Snapshot, layout: Layout) -> Option<usize> {
    let needed = layout.size().max(1).next_multiple_of(layout.align());
    let class = now.classes.iter().position(|class| class.block_bytes >= needed)?;
    (layout.align() <= 8 << 10).then_some(class)
}

#[test]
fn one_block_is_one_block() {
    let _alone = alone(&UNDER_TEST);
    let sizes = [1, 8, 24, 100, 128, 129, 1_000, 1 << 10, 1_025, 5_000, 32 << 10, 33_000, 100_000, 256 << 10, 257 << 10, 3 * MIB];
    for (size, align) in sizes.into_iter().flat_map(|size| [1, 8, 64, 4 << 10].map(|align| (size, align))) {
        let layout = Layout::from_size_align(size, align).expect("small enough");
        let before = snapshot();
        let block = Block::new(&UNDER_TEST, layout).expect("memory is there");
        let with = snapshot();
        let class = class_of(&with, layout);
        let bytes = class.map_or(size.next_multiple_of(8 << 10), |class| with.classes[class].block_bytes);
        assert!(!before.approximate && !with.approximate);
        assert_eq!(with.bytes.live, before.bytes.live + bytes, "{layout:?}");
        assert_eq!(with.allocated_bytes, before.allocated_bytes + bytes as u64);
        assert_eq!((with.allocations, with.frees), (before.allocations + 1, before.frees));
        assert_eq!(with.live_blocks(), before.live_blocks() + 1);
        if let Some(class) = class {
            assert_eq!(with.classes[class].live(), before.classes[class].live() + 1);
        }
        drop(block);
        let without = snapshot();
        assert_eq!(without.bytes.live, before.bytes.live);
        assert_eq!((without.allocations, without.frees), (before.allocations + 1, before.frees + 1));
        assert_eq!(without.freed_bytes, before.freed_bytes + bytes as u64);
        for now in [&before, &with, &without] {
            check_sums(now);
        }
    }
}

fn any_layout(random: &mut Random) -> Layout {
    let most = match random.below(200) {
        0 => 4 * MIB,
        1..10 => 300 << 10,
        10..50 => 32 << 10,
        _ => 1 << 10,
    };
    let align = [1, 8, 8, 16, 64, 4 << 10][random.below(6)];
    Layout::from_size_align(random.spread(1, most), align).expect("small enough")
}

#[test]
fn at_rest_they_hold_to_the_last_digit() {
    let _alone = alone(&UNDER_TEST);
    let mut random = Random::new(seed());
    let first = snapshot();
    assert_eq!(first.live_blocks(), 0, "nobody else allocates here");
    let mut live = Vec::new();
    let (mut allocations, mut frees) = (0, 0);
    for step in 0..40_000 {
        match random.below(100) {
            0 if random.below(40) == 0 => {
                control::release_to_os();
            }
            1 => {
                control::sample_after(any_layout(&mut random), random.below(50) as u32);
            }
            2..60 if live.len() < 3_000 => {
                let layout = any_layout(&mut random);
                let block =
                    if random.below(4) == 0 { Block::zeroed(&UNDER_TEST, layout) } else { Block::new(&UNDER_TEST, layout) };
                live.push(block.expect("memory is there"));
                allocations += 1;
            }
            _ if !live.is_empty() => {
                live.swap_remove(random.below(live.len()));
                frees += 1;
            }
            _ => {}
        }
        if step % 400 == 0 {
            let now = snapshot();
            assert!(!now.approximate);
            check_sums(&now);
            assert_eq!((now.allocations - first.allocations, now.frees - first.frees), (allocations, frees));
            assert_eq!(now.live_blocks(), live.len() as u64);
            let mut expected = vec![0_u64; now.classes.len()];
            let mut large_bytes = 0;
            for block in &live {
                match class_of(&now, block.layout()) {
                    Some(class) => expected[class] += 1,
                    None => large_bytes += block.layout().size().next_multiple_of(8 << 10) as u64,
                }
            }
            let found: Vec<u64> = now.classes.iter().map(freestone::ClassSnapshot::live).collect();
            assert_eq!(found, expected);
            assert_eq!(now.large.allocated_bytes - now.large.freed_bytes, large_bytes);
        }
    }
    live.clear();
    control::release_to_os();
    let end = snapshot();
    check_sums(&end);
    check_times(&end);
    check_holes(&end);
    assert!(!end.approximate);
    assert_eq!((end.live_blocks(), end.bytes.live), (0, 0));
    assert_eq!((end.bytes.thread_cached, end.bytes.depot, end.bytes.dirty), (0, 0, 0), "all of it went back: {:?}", end.bytes);
}

/// What the threads under load did, counted by themselves: an operation has certainly not happened before it began, and certainly has after
/// it ended.
#[derive(Default)]
struct Did {
    allocations_begun: AtomicU64,
    allocations_ended: AtomicU64,
    frees_begun: AtomicU64,
    frees_ended: AtomicU64,
}

impl Did {
    fn allocate(&self, layout: Layout) -> Block<'static, Freestone> {
        self.allocations_begun.fetch_add(1, Ordering::SeqCst);
        let mut block = Block::new(&UNDER_TEST, layout).expect("memory is there");
        self.allocations_ended.fetch_add(1, Ordering::SeqCst);
        block.fill(layout.size() as u8);
        block
    }

    fn free(&self, block: Block<'_, Freestone>) {
        self.frees_begun.fetch_add(1, Ordering::SeqCst);
        drop(block);
        self.frees_ended.fetch_add(1, Ordering::SeqCst);
    }
}

/// Allocates, frees, hands blocks over to whoever comes next, gives memory back now and then, and has some of it sampled.
fn churn(mut random: Random, steps: usize, did: &Did, market: &Mutex<Blocks>) {
    let mut mine = Blocks::new();
    for _ in 0..steps {
        match random.below(1_000) {
            0 if random.below(10) == 0 => {
                control::release_to_os();
            }
            1 => {
                control::sample_after(any_layout(&mut random), random.below(100) as u32);
            }
            2..20 => {
                let mut market = lock(market);
                market.append(&mut mine);
                for _ in 0..market.len() / 2 {
                    let nth = random.below(market.len());
                    mine.push(market.swap_remove(nth));
                }
            }
            20..530 if mine.len() < 300 => mine.push(did.allocate(any_layout(&mut random))),
            _ if !mine.is_empty() => did.free(mine.swap_remove(random.below(mine.len()))),
            _ => {}
        }
    }
    for block in mine {
        did.free(block);
    }
}

/// The counters, all of which only grow.
fn counters(now: &Snapshot) -> Vec<u64> {
    let Events { exchanges, refills, flushes, depot_takes, depot_puts, span_births, span_deaths, maps, unmaps, purges, .. } =
        now.events;
    let Events { advices, moves, refusals, record_births, record_adoptions, ticks, samples, sample_ends, dropped, .. } =
        now.events;
    let large = now.large;
    let mut all = vec![now.allocations, now.frees, now.allocated_bytes, now.freed_bytes, now.thread_records as u64];
    all.extend([
        exchanges,
        refills,
        flushes,
        depot_takes,
        depot_puts,
        span_births,
        span_deaths,
        maps,
        unmaps,
        purges,
        advices,
        moves,
    ]);
    all.extend([refusals, record_births, record_adoptions, ticks, samples, sample_ends, dropped]);
    all.extend([large.allocations, large.frees, large.allocated_bytes, large.freed_bytes]);
    all.extend(now.classes.iter().flat_map(|class| [class.allocations, class.frees]));
    all
}

#[test]
fn under_load_they_hold_or_say_so() {
    let _alone = alone(&UNDER_TEST);
    let seed = seed();
    let first = snapshot();
    assert_eq!(first.live_blocks(), 0);
    let (did, done, market) = (Did::default(), AtomicBool::new(false), Mutex::new(Blocks::new()));
    let (mut taken, mut exact) = (0, 0);
    // Fewer under `ThreadSanitizer`, which slows every step down.
    let (steps, families) = if cfg!(freestone_tsan) { (20_000, 15) } else { (200_000, 150) };
    thread::scope(|scope| {
        let (did, market) = (&did, &market);
        let mut workers: Vec<_> =
            (0..3).map(|nth| scope.spawn(move || churn(Random::new(seed ^ nth), steps, did, market))).collect();
        // Threads are born and die all the time.
        workers.push(scope.spawn(move || {
            for nth in 0..families {
                let child = thread::spawn(move || Random::new(seed.wrapping_add(nth)));
                let random = child.join().expect("the thread does not panic");
                thread::scope(|scope| {
                    let churn = |steps| {
                        let random = random.clone();
                        scope.spawn(move || churn(random, steps, did, market))
                    };
                    join_all([churn(200), churn(300)]);
                });
            }
        }));
        let watcher = scope.spawn(|| {
            let mut before = counters(&first);
            while !done.load(Ordering::Relaxed) {
                let least = (did.allocations_ended.load(Ordering::SeqCst), did.frees_ended.load(Ordering::SeqCst));
                let now = snapshot();
                let most = (did.allocations_begun.load(Ordering::SeqCst), did.frees_begun.load(Ordering::SeqCst));
                check_sums(&now);
                let after = counters(&now);
                let fell = before.iter().zip(&after).position(|(before, after)| before > after);
                assert_eq!(fell, None, "a counter fell: {before:?} became {after:?}");
                before = after;
                taken += 1;
                if !now.approximate {
                    exact += 1;
                    let seen = (now.allocations - first.allocations, now.frees - first.frees);
                    assert!((least.0..=most.0).contains(&seen.0), "{} allocations, {least:?} to {most:?} were made", seen.0);
                    assert!((least.1..=most.1).contains(&seen.1), "{} frees, {least:?} to {most:?} were made", seen.1);
                }
            }
        });
        let ended: Vec<_> = workers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::Relaxed);
        watcher.join().expect("a snapshot does not hold");
        assert!(ended.iter().all(Result::is_ok));
    });
    println!("{exact} of {taken} snapshots were exact");
    assert!(exact > 0, "none of {taken} snapshots was exact");
    let rest = market.into_inner().expect("nobody panics with the lock");
    for block in rest {
        did.free(block);
    }
    let last = snapshot();
    assert!(!last.approximate, "at rest again: {:?}", last.bytes);
    check_sums(&last);
    check_times(&last);
    check_holes(&last);
    assert_eq!(last.allocations - first.allocations, did.allocations_ended.into_inner());
    assert_eq!(last.frees - first.frees, did.frees_ended.into_inner());
    assert_eq!((last.live_blocks(), last.bytes.live), (0, 0));
}

/// Large amounts change hands between two looks of a reader that the system stopped in the middle.
#[test]
fn while_much_comes_and_goes() {
    let _alone = alone(&UNDER_TEST);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let tide = |size| {
            scope.spawn(move || {
                for _ in 0..10_000 {
                    let layout = Layout::from_size_align(size, 8).expect("small enough");
                    let _blocks: Blocks = (0..60).map(|_| Block::new(&UNDER_TEST, layout).expect("memory is there")).collect();
                }
            })
        };
        let watch = || {
            while !done.load(Ordering::Relaxed) {
                check_sums(&snapshot());
            }
        };
        let watchers = [scope.spawn(watch), scope.spawn(watch), scope.spawn(watch)];
        let tides = [40 << 10, 100 << 10, 200 << 10].map(tide).map(thread::ScopedJoinHandle::join);
        done.store(true, Ordering::Relaxed);
        join_all(watchers);
        assert!(tides.iter().all(Result::is_ok));
    });
    let last = snapshot();
    assert!(!last.approximate);
    assert_eq!(last.live_blocks(), 0);
}

#[test]
fn the_kernel_agrees_about_small_pages() {
    the_kernel_agrees("huge_pages:never");
}

#[test]
fn the_kernel_agrees_about_huge_pages() {
    the_kernel_agrees("huge_pages:auto");
}

fn the_kernel_agrees(environment: &str) {
    let ending = run(Command::new(env!("CARGO_BIN_EXE_accounts")).env("FREESTONE", environment));
    print!("{}", ending.out);
    assert_eq!((ending.code, ending.err.as_str()), (Some(0), ""), "{ending:#?}");
    assert!(ending.out.ends_with("agreed\n"));
}

/// The harness is on another allocator, or every count above would be someone else's too.
#[test]
fn only_this_test_is_counted() {
    let _alone = alone(&UNDER_TEST);
    let before = snapshot().allocations;
    let text = String::from("on the system's allocator");
    assert_eq!(snapshot().allocations, before, "{text}");
    let layout = Layout::new::<u64>();
    // SAFETY: the size is not zero.
    let block = unsafe { UNDER_TEST.alloc(layout) };
    assert_eq!(snapshot().allocations, before + 1);
    // SAFETY: a live block of this layout.
    unsafe { UNDER_TEST.dealloc(block, layout) };
}
