//! Memory over time: how much a program still has that has stopped needing it, and what it costs to give it back.
//!
//! These run for seconds and sleep for some of them, so they are no part of a full run and are asked for by name. Resident means `RssAnon`:
//! what no file backs. What a workload keeps for itself (the table of its blocks) is allocated and touched before it measures for the first
//! time, and looking at the process allocates nothing, so nothing happens in a program that claims to be idle.
//!
//! Less than 100 percent of a workload does not sleep, and tells nothing about memory.

use std::array;
use std::hint::black_box;
use std::mem::MaybeUninit;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::block::Block;
use super::{Context, Outcome, Rng, Workload, timed};
use crate::live::{self, Held};
use crate::subject::{Cost, Memory, note};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const GIB: usize = 1 << 30;

/// Memory over time, in the order of the table.
pub const WORKLOADS: &[Workload] = &[
    Workload {
        name: "burst-idle-64m-small",
        about: "64 MiB of 8–1024 B blocks, all freed in random order, then 15 s of nothing: what is resident second by second; an \
                operation is one allocation and one free, here and in all that follow",
        telling: false,
        run: |context| burst(context, 64 * MIB, small, Survivors::None),
    },
    Workload {
        name: "burst-idle-64m-mixed",
        about: "the same with blocks of 8 B to 128 KiB",
        telling: false,
        run: |context| burst(context, 64 * MIB, mixed, Survivors::None),
    },
    Workload {
        name: "burst-idle-64m-large",
        about: "the same with blocks of 256 KiB to 8 MiB, which many allocators hand back at once: that shows in the time",
        telling: false,
        run: |context| burst(context, 64 * MIB, large, Survivors::None),
    },
    Workload {
        name: "burst-idle-64m-scattered",
        about: "64 MiB of 8–1024 B blocks of which every 64th, chosen at random, survives: favours whoever gives back single pages",
        telling: false,
        run: |context| burst(context, 64 * MIB, small, Survivors::Scattered),
    },
    Workload {
        name: "burst-idle-1g-small",
        about: "1 GiB of 8–1024 B blocks, all freed in random order, then 15 s of nothing",
        telling: false,
        run: |context| burst(context, GIB, small, Survivors::None),
    },
    Workload {
        name: "burst-idle-1g-mixed",
        about: "the same with blocks of 8 B to 128 KiB",
        telling: false,
        run: |context| burst(context, GIB, mixed, Survivors::None),
    },
    Workload {
        name: "burst-idle-1g-large",
        about: "the same with blocks of 256 KiB to 8 MiB",
        telling: false,
        run: |context| burst(context, GIB, large, Survivors::None),
    },
    Workload {
        name: "burst-idle-1g-scattered",
        about: "1 GiB of 8–1024 B blocks of which every 64th, chosen at random, survives",
        telling: false,
        run: |context| burst(context, GIB, small, Survivors::Scattered),
    },
    Workload {
        name: "burst-idle-1g-around",
        about: "1 GiB of mixed blocks, all freed; 16 MiB from before it and 16 MiB from its peak survive: against heaps that shrink at \
                their end only",
        telling: false,
        run: |context| burst(context, GIB, mixed, Survivors::Around),
    },
    Workload {
        name: "saw-tooth",
        about: "grows to 256 MiB in blocks of 8 B to 2 KiB and shrinks to 16 MiB, ten times, 0.7 s each: who gives memory back between \
                the peaks pays for it in page faults",
        telling: false,
        run: saw_tooth,
    },
    Workload {
        name: "limit-under-load",
        about: "8 threads replace blocks of 16 B to 32 KiB; live goes up and down between 50 % and 85 % of a limit of 307 MiB that the \
                allocator is told of, if it listens",
        telling: false,
        run: |context| limit(context, Limit::AboveLive),
    },
    Workload {
        name: "limit-under-load-free",
        about: "the same work, and nobody is told of a limit: what the limit saves and costs",
        telling: false,
        run: |context| limit(context, Limit::None),
    },
    Workload {
        name: "limit-below-live",
        about: "the same work under a limit of half of what is live, which nobody can keep: does the program still get on?",
        telling: false,
        run: |context| limit(context, Limit::BelowLive),
    },
    Workload {
        name: "many-idle-threads",
        about: "500 threads allocate and free 1 MiB each, keep 16 KiB and wait for 3 s: what a thread costs that does nothing",
        telling: false,
        run: |context| many_idle_threads(context, Farewell::None),
    },
    Workload {
        name: "many-idle-threads-told",
        about: "the same, and each thread tells the allocator that it is about to wait, if it listens",
        telling: false,
        run: |context| many_idle_threads(context, Farewell::Told),
    },
    Workload {
        name: "purge-policies",
        about: "20 s of changing demand (200, 20, 100, 20 MiB live for 2 s each) with steady replacement: what a policy keeps, and what \
                giving back costs; for freestone beside freestone-keep and freestone-eager",
        telling: false,
        run: purge_policies,
    },
    Workload {
        name: "load-curve",
        about: "a service through a day of 24 hours, a second each: requests of 40 blocks, from 1,000/s by night to 10,000/s, and a cache \
                that follows them; an operation is one request",
        telling: false,
        run: load_curve,
    },
];

/// Draws the size of a block.
type Sizes = fn(&mut Rng) -> usize;

/// 8–1024 B, all equally often.
pub(super) fn small(rng: &mut Rng) -> usize {
    rng.between(8, 1024)
}

/// 8 B to 128 KiB.
fn mixed(rng: &mut Rng) -> usize {
    let most = 1 << rng.between(4, 17);
    8 + rng.below(most)
}

/// 8 B to 2 KiB, most of them short.
fn mixed_small(rng: &mut Rng) -> usize {
    let most = 1 << rng.between(4, 11);
    8 + rng.below(most)
}

/// 16 B to 4 KiB, every doubling equally often.
pub(super) fn up_to_4_kib(rng: &mut Rng) -> usize {
    let least = 1 << rng.between(4, 11);
    least + rng.below(least)
}

/// 16 B to 32 KiB, every doubling equally often.
fn up_to_32_kib(rng: &mut Rng) -> usize {
    let least = 1 << rng.between(4, 14);
    least + rng.below(least)
}

/// 256 KiB to 8 MiB, every doubling equally often.
fn large(rng: &mut Rng) -> usize {
    let least = 1 << rng.between(18, 22);
    least + rng.below(least)
}

/// What a program holds: blocks of random sizes, every page of them written. What it does depends on its seed only.
struct Heap {
    blocks: Vec<Block>,
    rng: Rng,
    sizes: Sizes,
    /// In the blocks, at this moment …
    bytes: usize,
    /// … which whoever watches is to know.
    held: Held,
    /// The most there ever were.
    peak_bytes: usize,
    /// In all blocks there ever were.
    allocated_bytes: u64,
    /// Blocks there ever were.
    allocations: u64,
    /// Computed from all blocks freed, in their order.
    sum: u64,
}

impl Heap {
    /// No blocks yet, but the touched table for as many as so many bytes make, and `more` percent of them for a heap whose blocks change.
    fn new(seed: u64, sizes: Sizes, bytes: usize, more: usize) -> Self {
        let mut draw = Rng::new(seed);
        let (mut count, mut total) = (0, 0);
        while total < bytes {
            total += sizes(&mut draw);
            count += 1;
        }
        let mut blocks = Vec::with_capacity(count + count * more / 100);
        let table: &mut [MaybeUninit<Block>] = blocks.spare_capacity_mut();
        // SAFETY: as long as the slice, whose elements may hold anything.
        unsafe { table.as_mut_ptr().write_bytes(1, table.len()) };
        black_box(table);
        Self {
            blocks,
            rng: Rng::new(seed),
            sizes,
            bytes: 0,
            held: Held::nothing(),
            peak_bytes: 0,
            allocated_bytes: 0,
            allocations: 0,
            sum: 0,
        }
    }

    /// What the table of the blocks takes.
    fn table_bytes(&self) -> usize {
        self.blocks.capacity() * size_of::<Block>()
    }

    fn add(&mut self, block: Block) {
        self.bytes += block.size();
        self.held.set(self.bytes);
        self.peak_bytes = self.peak_bytes.max(self.bytes);
        self.allocated_bytes += block.size() as u64;
        self.allocations += 1;
        self.blocks.push(block);
    }

    fn make(&mut self) -> Block {
        let size = (self.sizes)(&mut self.rng);
        self.make_sized(size)
    }

    /// Its word is its number, multiplied so that it is told from others by any of its bytes: touching overwrites one of them.
    fn make_sized(&self, size: usize) -> Block {
        let block = Block::new(size, self.allocations.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        block.touch();
        block
    }

    fn count_freed(&mut self, block: &Block) {
        self.bytes -= block.size();
        self.held.set(self.bytes);
        self.sum = self.sum.wrapping_mul(31).wrapping_add(block.word());
    }

    /// Frees one at random, if there is one.
    fn free_one(&mut self) {
        if !self.blocks.is_empty() {
            let place = self.rng.below(self.blocks.len());
            let block = self.blocks.swap_remove(place);
            self.count_freed(&block);
        }
    }

    fn grow(&mut self, bytes: usize) {
        while self.bytes < bytes {
            let block = self.make();
            self.add(block);
        }
    }

    fn shrink(&mut self, bytes: usize) {
        while self.bytes > bytes {
            self.free_one();
        }
    }

    /// Replaces blocks at random without ever holding more than so many bytes.
    fn replace(&mut self, times: u64, most_bytes: usize) {
        for _ in 0..times {
            let size = (self.sizes)(&mut self.rng);
            self.shrink(most_bytes.saturating_sub(size));
            let block = self.make_sized(size);
            self.add(block);
        }
    }

    /// Reads blocks at random.
    fn read(&mut self, times: u64) {
        for _ in 0..times {
            let place = self.rng.below(self.blocks.len());
            self.sum = self.sum.wrapping_add(self.blocks[place].word());
        }
    }

    /// Fisher and Yates.
    fn shuffle(&mut self) {
        for last in (1..self.blocks.len()).rev() {
            self.blocks.swap(last, self.rng.below(last + 1));
        }
    }

    /// Frees all blocks but the first, one after the other.
    fn free_from(&mut self, first: usize) {
        while self.blocks.len() > first
            && let Some(block) = self.blocks.pop()
        {
            self.count_freed(&block);
        }
    }

    /// What the blocks that are left add up to, along with those that were freed.
    fn checksum(&self) -> u64 {
        self.blocks.iter().fold(self.sum, |sum, block| sum.wrapping_mul(31).wrapping_add(block.word()))
    }
}

/// Bytes of kernel pages of 4 KiB that hold a part of a block: what an allocator keeps that gives back all else and cannot move blocks.
/// Sorts them by address.
fn needed_bytes(blocks: &mut [Block]) -> u64 {
    const PAGE: usize = 4096;
    blocks.sort_unstable_by_key(Block::address);
    let (mut pages, mut next) = (0, 0);
    for block in blocks {
        let first = (block.address() / PAGE).max(next);
        let end = (block.address() + block.size()).div_ceil(PAGE);
        pages += end - first.min(end);
        next = end;
    }
    (pages * PAGE) as u64
}

/// What was resident, whenever somebody looked.
#[derive(Clone, Copy, Debug, Default)]
struct Resident {
    max: u64,
    sum: u64,
    looks: u64,
}

impl Resident {
    fn look(&mut self) {
        let bytes = Memory::now().anonymous;
        self.max = self.max.max(bytes);
        self.sum += bytes;
        self.looks += 1;
    }

    fn mean(&self) -> u64 {
        self.sum / self.looks.max(1)
    }

    /// Looks every so often from a thread of its own, which allocates nothing, while `work` is done.
    fn during<R>(every: Duration, work: impl FnOnce() -> R) -> (Self, R) {
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let watcher = scope.spawn(|| {
                let mut resident = Self::default();
                // Relaxed: nothing else is read after it; `join` orders the result.
                while !is_over.load(Ordering::Relaxed) {
                    resident.look();
                    thread::park_timeout(every);
                }
                resident
            });
            let result = work();
            is_over.store(true, Ordering::Relaxed);
            watcher.thread().unpark();
            (watcher.join().expect("looking does not panic"), result)
        })
    }
}

/// The clock of a program that has something to do every 10 ms and waits in between. Who is late waits less later, so a run takes as long on
/// every allocator.
struct Ticks {
    next: Instant,
    are_real: bool,
}

impl Ticks {
    const LENGTH: Duration = Duration::from_millis(10);
    const PER_SECOND: u64 = 100;

    fn new(context: &Context) -> Self {
        Self { next: Instant::now() + Self::LENGTH, are_real: context.percent == 100 }
    }

    fn wait(&mut self) {
        if self.are_real {
            thread::sleep(self.next.saturating_duration_since(Instant::now()));
            self.next += Self::LENGTH;
        }
    }
}

/// What survives a burst.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Survivors {
    None,
    /// Every 64th block.
    Scattered,
    /// None of the burst, but what was allocated before it and at its peak.
    Around,
}

fn burst(context: &Context, full: usize, sizes: Sizes, survivors: Survivors) -> Outcome {
    let bytes = context.scaled(full as u64) as usize;
    let around = if survivors == Survivors::Around { context.scaled(16 << 20) as usize } else { 0 };
    let mut heap = Heap::new(bytes as u64, sizes, bytes, 0);
    let mut others = Heap::new(1, sizes, 2 * around, 10);
    let before = Memory::now().anonymous;
    live::begin();
    let grown = timed(|| {
        others.grow(around);
        heap.grow(bytes);
        others.grow(2 * around);
        (heap.allocations, 0)
    });
    heap.shuffle();
    let kept = if survivors == Survivors::Scattered { heap.blocks.len() / 64 } else { 0 };
    let freed = timed(|| {
        heap.free_from(kept);
        (heap.allocations, heap.checksum().wrapping_add(others.checksum()))
    });
    if context.percent == 100 {
        let resident = idle();
        for (name, bytes) in SECONDS.into_iter().zip(resident) {
            note(name, bytes);
        }
        let live = heap.bytes + others.bytes;
        heap.blocks.append(&mut others.blocks);
        note("live_bytes", live as u64);
        note("needed_bytes", needed_bytes(&mut heap.blocks));
        note("before_bytes", before);
    }
    Outcome { elapsed: grown.elapsed + freed.elapsed, ..freed }
}

/// The names of the notes of [`idle`]. The report knows them as a series.
const SECONDS: [&str; 16] = [
    "rss_00_s", "rss_01_s", "rss_02_s", "rss_03_s", "rss_04_s", "rss_05_s", "rss_06_s", "rss_07_s", "rss_08_s", "rss_09_s",
    "rss_10_s", "rss_11_s", "rss_12_s", "rss_13_s", "rss_14_s", "rss_15_s",
];

/// What is resident now, and at every full second from now on.
fn idle() -> [u64; SECONDS.len()] {
    let start = Instant::now();
    array::from_fn(|second| {
        let due = start + Duration::from_secs(second as u64);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        Memory::now().anonymous
    })
}

fn saw_tooth(context: &Context) -> Outcome {
    const CYCLES: u64 = 10;
    let (low, high) = (context.scaled(16 << 20) as usize, context.scaled(256 << 20) as usize);
    // Makes a cycle of a plain allocator take about 0.7 s, so that the peaks lie as far apart as those of programs that people wait for.
    let reads = context.scaled(20_000_000);
    let mut heap = Heap::new(13, mixed_small, high, 5);
    let mut resident = Resident::default();
    live::begin();
    let before = Cost::now();
    let outcome = timed(|| {
        for _ in 0..CYCLES {
            heap.grow(high);
            heap.read(reads);
            resident.look();
            heap.shrink(low);
        }
        (heap.allocations, heap.checksum())
    });
    note("faults", Cost::now().minor_faults - before.minor_faults);
    note("peak_rss", resident.max);
    note("final_rss", Memory::now().anonymous);
    note_controls(context);
    outcome
}

/// Notes what the allocator itself has to say.
fn note_controls(context: &Context) {
    if let Some(notes) = context.controls.notes {
        notes(&mut note);
    }
}

/// Which limit the allocator is told of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Limit {
    None,
    AboveLive,
    BelowLive,
}

fn limit(context: &Context, limit: Limit) -> Outcome {
    const THREADS: usize = 8;
    const PHASES: usize = 10;
    // The limit is 60 % of what a heap of this work would like to have. What is live stays below 90 % of the limit, for the allocator's own
    // needs come on top.
    let full = context.scaled(512 << 20) as usize / 10 * 6;
    let [low, high] = [50, 85].map(|percent| full / 100 * percent / THREADS);
    let told = match limit {
        Limit::None => None,
        Limit::AboveLive => Some(full),
        Limit::BelowLive => Some(high * THREADS / 2),
    };
    let replacements = context.scaled(1_000_000);
    let mut heaps: Vec<Heap> = (0..THREADS as u64).map(|seed| Heap::new(seed, up_to_32_kib, high, 20)).collect();
    if let (Some(set), Some(bytes)) = (context.controls.set_memory_limit, told) {
        set(Some(bytes));
        note("limit_bytes", bytes as u64);
    }
    let barrier = Barrier::new(THREADS);
    live::begin();
    let before = Cost::now();
    let (resident, outcome) = Resident::during(Duration::from_millis(50), || {
        timed(|| {
            thread::scope(|scope| {
                for heap in &mut heaps {
                    scope.spawn(|| {
                        for phase in 0..PHASES {
                            let most = if phase % 2 == 0 { low } else { high };
                            heap.grow(most - most / 20);
                            heap.replace(replacements, most);
                            // All go up together, and down together.
                            barrier.wait();
                        }
                    });
                }
            });
            let sum = heaps.iter().fold(0_u64, |sum, heap| sum.wrapping_mul(31).wrapping_add(heap.checksum()));
            (heaps.iter().map(|heap| heap.allocations).sum(), sum)
        })
    });
    let after = Cost::now();
    note("live_peak_bytes", heaps.iter().map(|heap| heap.peak_bytes + heap.table_bytes()).sum::<usize>() as u64);
    note("max_rss", resident.max);
    note("faults", after.minor_faults - before.minor_faults);
    note("cpu_ns", after.cpu_nanos - before.cpu_nanos);
    note_controls(context);
    if let Some(set) = context.controls.set_memory_limit {
        set(None);
    }
    outcome
}

/// What a thread says before it waits.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Farewell {
    None,
    Told,
}

fn many_idle_threads(context: &Context, farewell: Farewell) -> Outcome {
    const LIVE: usize = 16 * KIB;
    let threads = context.scaled(500) as usize;
    let rest = |time: Duration| {
        if context.percent == 100 {
            thread::sleep(time);
        }
    };
    let mut heaps: Vec<Heap> = (0..threads as u64).map(|seed| Heap::new(seed, up_to_4_kib, LIVE, 200)).collect();
    let barrier = Barrier::new(threads + 1);
    let (mut waiting, mut idle) = (0, 0);
    let mut outcome = thread::scope(|scope| {
        for heap in &mut heaps {
            let builder = thread::Builder::new().stack_size(128 * KIB);
            let spawned = builder.spawn_scoped(scope, || {
                touch_stack();
                barrier.wait();
                // Here all wait that have allocated nothing yet.
                barrier.wait();
                while heap.allocated_bytes < MIB as u64 {
                    heap.replace(1, LIVE);
                }
                if let (Farewell::Told, Some(thread_idle)) = (farewell, context.controls.thread_idle) {
                    thread_idle();
                }
                barrier.wait();
                // And here all that have.
                barrier.wait();
            });
            if let Err(error) = spawned {
                crate::subject::fail(&format!("there can be no {threads} threads: {error}"));
            }
        }
        barrier.wait();
        rest(Duration::from_millis(200));
        waiting = Memory::now().anonymous;
        live::begin();
        let outcome = timed(|| {
            barrier.wait();
            barrier.wait();
            (0, 0)
        });
        rest(Duration::from_secs(3));
        idle = Memory::now().anonymous;
        barrier.wait();
        outcome
    });
    let live: usize = heaps.iter().map(|heap| heap.bytes).sum();
    note("live_bytes_per_thread", (live / threads) as u64);
    note("bytes_per_thread", idle.saturating_sub(waiting + live as u64) / threads as u64);
    note_controls(context);
    outcome.operations = heaps.iter().map(|heap| heap.allocations).sum();
    outcome.checksum = heaps.iter().fold(0, |sum: u64, heap| sum.wrapping_mul(31).wrapping_add(heap.checksum()));
    outcome
}

/// Touches as much of the stack as the thread will use, so that it does not count as what the allocator keeps.
#[inline(never)]
fn touch_stack() {
    black_box(&mut [1_u8; 16 * KIB]);
}

fn purge_policies(context: &Context) -> Outcome {
    const DEMAND_MIB: [u64; 10] = [200, 20, 100, 20, 200, 20, 100, 20, 200, 20];
    const SECONDS_PER_PHASE: u64 = 2;
    let replacements = context.scaled(4_000);
    let mut heap = Heap::new(17, up_to_32_kib, context.scaled(200 << 20) as usize, 20);
    let mut resident = Resident::default();
    let mut ticks = Ticks::new(context);
    let mut busy = Duration::ZERO;
    live::begin();
    let before = Cost::now();
    for demand in DEMAND_MIB {
        let most = context.scaled(demand << 20) as usize;
        for tick in 0..SECONDS_PER_PHASE * Ticks::PER_SECOND {
            let start = Instant::now();
            heap.grow(most - most / 20);
            heap.replace(replacements, most);
            busy += start.elapsed();
            ticks.wait();
            if tick % 10 == 0 {
                resident.look();
            }
        }
    }
    let after = Cost::now();
    note("max_rss", resident.max);
    note("mean_rss", resident.mean());
    note("allocated_bytes", heap.allocated_bytes);
    note("faults", after.minor_faults - before.minor_faults);
    note("cpu_ns", after.cpu_nanos - before.cpu_nanos);
    note_controls(context);
    Outcome { operations: heap.allocations, elapsed: busy, checksum: heap.checksum() }
}

/// The day of a service.
struct Day;

impl Day {
    /// Load in percent of the peak, hour by hour.
    const LOAD: [u64; 24] = [10, 10, 10, 10, 10, 15, 30, 50, 70, 85, 95, 100, 100, 95, 95, 100, 95, 85, 70, 55, 40, 25, 15, 10];
    const REQUESTS_PER_SECOND: u64 = 10_000;
    const CACHE_BYTES: u64 = 128 << 20;
    const BLOCKS_PER_REQUEST: usize = 40;
    /// Of these a request leaves so many in the cache, for which it removes up to twice as many when the cache is too large.
    const BLOCKS_KEPT: usize = 4;

    /// One request: its blocks live together, most of them until its end.
    fn serve(cache: &mut Heap, cache_bytes: usize) {
        let blocks: [Block; Self::BLOCKS_PER_REQUEST] = array::from_fn(|_| cache.make());
        for (index, block) in blocks.into_iter().enumerate() {
            if index < Self::BLOCKS_KEPT {
                cache.add(block);
            } else {
                cache.sum = cache.sum.wrapping_mul(31).wrapping_add(block.size() as u64);
            }
        }
        for _ in 0..2 * Self::BLOCKS_KEPT {
            if cache.bytes > cache_bytes {
                cache.free_one();
            }
        }
    }
}

fn load_curve(context: &Context) -> Outcome {
    let per_tick = |load: u64| (context.scaled(Day::REQUESTS_PER_SECOND) * load / 100 / Ticks::PER_SECOND).max(1);
    let requests: u64 = Day::LOAD.iter().map(|&load| per_tick(load) * Ticks::PER_SECOND).sum();
    let mut nanos: Vec<u64> = vec![1; requests as usize];
    nanos.clear();
    let mut cache = Heap::new(19, up_to_32_kib, context.scaled(Day::CACHE_BYTES) as usize, 20);
    let mut resident = Resident::default();
    let mut ticks = Ticks::new(context);
    live::begin();
    let before = Cost::now();
    for load in Day::LOAD {
        let cache_bytes = (context.scaled(Day::CACHE_BYTES) * load / 100) as usize;
        let first = nanos.len();
        for tick in 0..Ticks::PER_SECOND {
            for _ in 0..per_tick(load) {
                let start = Instant::now();
                Day::serve(&mut cache, cache_bytes);
                nanos.push(start.elapsed().as_nanos() as u64);
            }
            ticks.wait();
            if tick % 10 == 0 {
                resident.look();
            }
        }
        let p99 = ninety_nine_percent(&mut nanos[first..]);
        if let Some(observe) = context.controls.observe {
            observe((per_tick(load) * Ticks::PER_SECOND) as f64, Duration::from_nanos(p99));
        }
    }
    let after = Cost::now();
    note("max_rss", resident.max);
    note("mean_rss", resident.mean());
    note("faults", after.minor_faults - before.minor_faults);
    note("cpu_ns", after.cpu_nanos - before.cpu_nanos);
    note("p99_ns", ninety_nine_percent(&mut nanos));
    note_controls(context);
    Outcome { operations: requests, elapsed: Duration::from_nanos(nanos.iter().sum()), checksum: cache.checksum() }
}

/// The time that 99 of 100 do not exceed. Sorts them.
fn ninety_nine_percent(nanos: &mut [u64]) -> u64 {
    nanos.sort_unstable();
    nanos.get((nanos.len() * 99).div_ceil(100).saturating_sub(1)).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{Block, Context, Heap, WORKLOADS, needed_bytes, ninety_nine_percent, small};
    use crate::controls::Controls;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn the_pages_that_survivors_need_are_those_that_a_byte_of_them_lies_on() {
        let mut rng = super::Rng::new(1);
        let mut blocks: Vec<Block> = (0..3_000).map(|_| Block::new(super::mixed(&mut rng), 0)).collect();
        let mut holes = 0;
        blocks.retain(|_| {
            holes += 1;
            holes % 5 == 0
        });
        let mut pages: Vec<usize> =
            blocks.iter().flat_map(|block| (block.address()..block.address() + block.size()).map(|byte| byte / 4096)).collect();
        pages.sort_unstable();
        pages.dedup();
        assert_eq!(needed_bytes(&mut blocks), 4096 * pages.len() as u64);
        assert_eq!(needed_bytes(&mut []), 0);
    }

    #[test]
    fn a_heap_never_holds_more_than_it_may_and_its_table_does_not_grow() {
        let bytes = 1_000_000;
        let mut heap = Heap::new(3, small, bytes, 20);
        let capacity = heap.blocks.capacity();
        for most in [bytes, bytes / 2, bytes] {
            heap.replace(10_000, most);
            assert!(heap.bytes <= most);
            assert!(heap.bytes > most / 2);
        }
        assert_eq!(heap.bytes, heap.blocks.iter().map(Block::size).sum::<usize>());
        assert!(heap.peak_bytes <= bytes);
        assert_eq!(heap.allocations, 30_000);
        assert_eq!(heap.blocks.capacity(), capacity);
    }

    #[test]
    fn an_allocator_that_offers_controls_is_told() {
        static LIMITS: Mutex<Vec<Option<usize>>> = Mutex::new(Vec::new());
        static IDLE: AtomicU64 = AtomicU64::new(0);
        static REQUESTS: AtomicU64 = AtomicU64::new(0);
        let controls = Controls {
            set_memory_limit: Some(|bytes| LIMITS.lock().expect("no thread panics").push(bytes)),
            thread_idle: Some(|| _ = IDLE.fetch_add(1, Ordering::Relaxed)),
            observe: Some(|requests_per_second, _| _ = REQUESTS.fetch_add(requests_per_second as u64, Ordering::Relaxed)),
            notes: Some(|note| note("pauses", 7)),
            ..Controls::NONE
        };
        let context = Context { percent: 1, controls, ..Context::default() };
        let run = |name: &str| {
            let workload = WORKLOADS.iter().find(|workload| workload.name == name).expect("it is one of them");
            (workload.run)(&context)
        };

        let full = (512 << 20) / 100 / 10 * 6;
        let above = run("limit-under-load");
        assert_eq!(*LIMITS.lock().expect("no thread panics"), [Some(full), None]);
        let below = run("limit-below-live");
        let limits = LIMITS.lock().expect("no thread panics").clone();
        assert!(limits[2].is_some_and(|bytes| bytes < full / 2), "{limits:?}");
        assert_eq!(limits[3], None);
        let free = run("limit-under-load-free");
        assert_eq!(LIMITS.lock().expect("no thread panics").iter().flatten().count(), 2);
        assert_eq!(above.checksum, free.checksum, "a limit changes no work");
        assert_eq!(below.checksum, free.checksum);

        run("many-idle-threads");
        assert_eq!(IDLE.load(Ordering::Relaxed), 0);
        run("many-idle-threads-told");
        assert_eq!(IDLE.load(Ordering::Relaxed), 5);
        let day = run("load-curve");
        assert_eq!(REQUESTS.load(Ordering::Relaxed), day.operations, "every hour is one second");
    }

    #[test]
    fn ninety_nine_of_a_hundred_do_not_exceed_the_percentile() {
        assert_eq!(ninety_nine_percent(&mut (1..=100).rev().collect::<Vec<u64>>()), 99);
        assert_eq!(ninety_nine_percent(&mut (1..=1000).rev().collect::<Vec<u64>>()), 990);
        assert_eq!(ninety_nine_percent(&mut [7]), 7);
        assert_eq!(ninety_nine_percent(&mut []), 0);
    }
}
