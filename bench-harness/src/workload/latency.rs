//! How long single operations take: not on average, but at the worst.
//!
//! An allocator that is fast on average may be slow now and then: when a magazine runs dry, when a page is mapped, when memory is given back.
//! A program with a deadline meets these moments. So every call is timed here, and each kind of call has a histogram of its own, in which a time is
//! kept to one in a thousand. The histograms are made and written before the first call, and recording allocates nothing.
//!
//! All figures contain one reading of the clock, which is noted as [`CLOCK_NOTE`]. The elapsed time is the sum of the timed calls.
//! A machine that stops the process has its part in the tail, too: a worst of milliseconds is more often the scheduler's than the allocator's.

use std::array;
use std::hint::spin_loop;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::block::Block;
use super::clock::Clock;
use super::memory::{small, up_to_4_kib};
use super::threads::Patience;
use super::{Context, Outcome, Rng, Workload};
use crate::distribution::Distribution;
use crate::subject::{note, note_latency};

/// Tails, in the order of the table.
pub const WORKLOADS: &[Workload] = &[
    Workload {
        name: "latency-small",
        about: "100,000 blocks of 8–1024 B; at a random place one is read and freed and another allocated, each call timed: the time is for \
                its tail; an operation is one allocation and one free, here and in the next",
        telling: true,
        run: replace_small,
    },
    Workload {
        name: "latency-threads",
        about: "two threads allocate blocks of 8–1024 B and free each other's, 64 at a time, each call timed",
        telling: false,
        run: exchange,
    },
    Workload {
        name: "latency-large",
        about: "64 blocks of 32 KiB to 4 MiB: one is freed, one allocated and touched page by page, one resized, each of it timed: who does \
                not keep what is freed pays when it is touched; an operation is all of that",
        telling: false,
        run: replace_large,
    },
    Workload {
        name: "latency-open",
        about: "requests of 40 blocks of 16 B to 4 KiB come 20,000 times a second, whether or not the one before is done: timed from when \
                they were due (request) and from when they began (service); an operation is one request",
        telling: false,
        run: open_loop,
    },
];

/// The note of what one reading of the clock adds to each time.
pub const CLOCK_NOTE: &str = "clock_ns";

/// How long calls of one kind took, all of them.
struct Times {
    histogram: Histogram<u64>,
    /// All together.
    nanos: u64,
}

impl Times {
    /// Who takes longer is said to have taken so long.
    const LONGEST: Duration = Duration::from_mins(1);

    fn new() -> Self {
        let longest = Self::LONGEST.as_nanos() as u64;
        let mut histogram = Histogram::new_with_bounds(1, longest, 3).expect("three digits of a minute fit any memory");
        // What was zero before is written all the same, so that the first call to be recorded meets no page fault. The compiler, which knows that it
        // was zero, is not to know.
        std::hint::black_box(&mut histogram).reset();
        Self { histogram, nanos: 0 }
    }

    #[inline(always)]
    fn record(&mut self, nanos: u64) {
        self.histogram.saturating_record(nanos);
        self.nanos = self.nanos.saturating_add(nanos);
    }

    /// Does something and records how long it took.
    #[inline(always)]
    fn time<R>(&mut self, clock: &Clock, work: impl FnOnce() -> R) -> R {
        let start = clock.now();
        let result = work();
        let end = clock.now();
        self.record(clock.nanos(start, end));
        result
    }

    /// Takes another thread's calls in.
    fn add(&mut self, other: &Self) {
        self.histogram.add(&other.histogram).expect("all histograms have the same bounds");
        self.nanos += other.nanos;
    }
}

/// Notes what was found out, and makes it an outcome.
fn noted<const KINDS: usize>(clock: &Clock, operations: u64, checksum: u64, kinds: [(&'static str, &Times); KINDS]) -> Outcome {
    note(CLOCK_NOTE, clock.cost_ns());
    for (kind, times) in kinds {
        note_latency(kind, Distribution::of(&times.histogram));
    }
    let nanos = kinds.iter().map(|(_, times)| times.nanos).sum();
    Outcome { operations, elapsed: Duration::from_nanos(nanos), checksum }
}

fn replace_small(context: &Context) -> Outcome {
    const BLOCKS: usize = 100_000;
    let operations = context.scaled(500_000);
    let clock = Clock::calibrated();
    let (mut allocate, mut free) = (Times::new(), Times::new());
    let mut rng = Rng::new(23);
    let mut blocks: Vec<Option<Block>> = (0..BLOCKS as u64).map(|word| Some(Block::new(small(&mut rng), word))).collect();
    let mut sum = 0_u64;
    for word in 0..operations {
        let place = rng.below(BLOCKS);
        if let Some(block) = blocks[place].take() {
            sum = sum.wrapping_mul(31).wrapping_add(block.word());
            free.time(&clock, || drop(block));
        }
        let size = small(&mut rng);
        blocks[place] = Some(allocate.time(&clock, || Block::new(size, word)));
    }
    noted(&clock, operations, sum, [("allocate", &allocate), ("free", &free)])
}

/// 32 KiB to 4 MiB, every doubling equally often.
fn from_32_kib_to_4_mib(rng: &mut Rng) -> usize {
    let least = 1 << rng.between(15, 21);
    least + rng.below(least)
}

fn replace_large(context: &Context) -> Outcome {
    const BLOCKS: usize = 64;
    let operations = context.scaled(4_000);
    let clock = Clock::calibrated();
    let [mut allocate, mut touch, mut resize, mut free] = array::from_fn(|_| Times::new());
    let mut rng = Rng::new(29);
    // Touching overwrites a byte of each word, so any other is to tell it from the rest.
    let word = |number: u64| number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut blocks: [Option<Block>; BLOCKS] = array::from_fn(|number| {
        let block = Block::new(from_32_kib_to_4_mib(&mut rng), word(number as u64));
        block.touch();
        Some(block)
    });
    let mut sum = 0_u64;
    for number in 0..operations {
        let (replaced, resized) = rng.two_below(BLOCKS, BLOCKS);
        if let Some(block) = blocks[replaced].take() {
            sum = sum.wrapping_mul(31).wrapping_add(block.word());
            free.time(&clock, || drop(block));
        }
        let size = from_32_kib_to_4_mib(&mut rng);
        let block = allocate.time(&clock, || Block::new(size, word(number)));
        touch.time(&clock, || block.touch());
        blocks[replaced] = Some(block);

        let size = from_32_kib_to_4_mib(&mut rng);
        if let Some(block) = blocks[resized].take() {
            let block = resize.time(&clock, || block.resized(size));
            // Not timed: of what it has grown by, the pages are as fresh as those of a new block, which are.
            block.touch();
            blocks[resized] = Some(block);
        }
    }
    let kinds = [("allocate", &allocate), ("touch", &touch), ("reallocate", &resize), ("free", &free)];
    noted(&clock, operations, sum, kinds)
}

/// One of two threads that free what the other has allocated.
struct Side {
    rng: Rng,
    sender: SyncSender<Vec<Block>>,
    receiver: Receiver<Vec<Block>>,
    allocate: Times,
    free: Times,
    sum: u64,
}

impl Side {
    /// Blocks that are handed over at once.
    const BATCH: usize = 64;
    /// So many batches a thread may be ahead of the other.
    const AHEAD: usize = 4;

    fn new(seed: u64, sender: SyncSender<Vec<Block>>, receiver: Receiver<Vec<Block>>) -> Self {
        Self { rng: Rng::new(seed), sender, receiver, allocate: Times::new(), free: Times::new(), sum: 0 }
    }

    /// Allocates so many batches and frees as many. The tables of the batches travel with the blocks and come back with others.
    fn run(mut self, clock: &Clock, batches: u64) -> Self {
        let mut tables: Vec<Vec<Block>> = (0..Self::AHEAD).map(|_| Vec::with_capacity(Self::BATCH)).collect();
        for batch in 0..batches {
            let mut table = match tables.pop() {
                Some(table) => table,
                None => self.receive(clock),
            };
            for index in 0..Self::BATCH as u64 {
                let size = small(&mut self.rng);
                table.push(self.allocate.time(clock, || Block::new(size, batch ^ index)));
            }
            // There is room. If nobody is there, the other thread has panicked, and joining it says so.
            let _ = self.sender.send(table);
        }
        for _ in 0..batches.min(Self::AHEAD as u64) {
            self.receive(clock);
        }
        self
    }

    /// Frees a batch of the other's, and returns the empty table.
    fn receive(&mut self, clock: &Clock) -> Vec<Block> {
        let mut patience = Patience::new();
        loop {
            match self.receiver.try_recv() {
                Ok(mut table) => {
                    for block in table.drain(..) {
                        self.sum = self.sum.wrapping_mul(31).wrapping_add(block.word());
                        self.free.time(clock, || drop(block));
                    }
                    return table;
                }
                Err(TryRecvError::Empty) => patience.wait(),
                Err(TryRecvError::Disconnected) => return Vec::new(),
            }
        }
    }
}

fn exchange(context: &Context) -> Outcome {
    let batches = context.scaled(500_000).div_ceil(Side::BATCH as u64);
    let clock = Clock::calibrated();
    // Either has taken what the other had when it last gave, so twice as many are on their way at most, and nobody sleeps until there is room.
    let (to_right, from_left) = sync_channel(2 * Side::AHEAD);
    let (to_left, from_right) = sync_channel(2 * Side::AHEAD);
    let (left, right) = (Side::new(31, to_right, from_right), Side::new(37, to_left, from_left));
    let (mut left, right) = thread::scope(|scope| {
        let other = scope.spawn(|| right.run(&clock, batches));
        (left.run(&clock, batches), other.join().expect("the thread does not panic"))
    });
    left.allocate.add(&right.allocate);
    left.free.add(&right.free);
    let operations = 2 * batches * Side::BATCH as u64;
    let sum = left.sum.wrapping_add(right.sum);
    noted(&clock, operations, sum, [("allocate", &left.allocate), ("free", &left.free)])
}

/// Waits without sleeping: who sleeps is woken late, by the kernel, and what would be timed is that.
fn open_loop(context: &Context) -> Outcome {
    const PERIOD_NS: u64 = 50_000;
    const CACHED: usize = 8192;
    const BLOCKS: usize = 40;
    const KEPT: usize = 4;
    let requests = context.scaled(40_000);
    let clock = Clock::calibrated();
    let (mut request, mut service) = (Times::new(), Times::new());
    let mut rng = Rng::new(41);
    let mut cache: Vec<Option<Block>> = (0..CACHED as u64).map(|word| Some(Block::new(up_to_4_kib(&mut rng), word))).collect();
    let mut sum = 0_u64;
    let first = clock.now();
    for number in 0..requests {
        // Where a request is late, the next is due all the same; its time then holds how long it had to wait.
        let due = first + clock.ticks(number * PERIOD_NS);
        while clock.now() < due {
            spin_loop();
        }
        let start = clock.now();
        let blocks: [Block; BLOCKS] = array::from_fn(|_| Block::new(up_to_4_kib(&mut rng), number));
        for (index, block) in blocks.into_iter().enumerate() {
            let done = if index < KEPT { cache[rng.below(CACHED)].replace(block) } else { Some(block) };
            sum = sum.wrapping_mul(31).wrapping_add(done.map_or(0, |block| block.word()));
        }
        let end = clock.now();
        request.record(clock.nanos(due, end));
        service.record(clock.nanos(start, end));
    }
    let outcome = noted(&clock, requests, sum, [("request", &request), ("service", &service)]);
    // From when they were due is no work of anybody's.
    Outcome { elapsed: Duration::from_nanos(service.nanos), ..outcome }
}

#[cfg(test)]
mod tests {
    use super::{Clock, Times};
    use crate::distribution::Distribution;

    #[test]
    fn times_are_kept_to_one_in_a_thousand_and_none_is_lost() {
        let mut times = Times::new();
        for nanos in 1..=100_000 {
            times.record(nanos);
        }
        times.record(u64::MAX);
        assert_eq!(times.histogram.len(), 100_001);
        let found = Distribution::of(&times.histogram);
        for &(parts, nanos) in &found.points {
            let true_nanos = u64::from(parts) / 10;
            assert!(nanos.abs_diff(true_nanos) <= true_nanos / 1_000 + 1, "{parts}: {nanos}");
        }
        let longest = Times::LONGEST.as_nanos() as u64;
        assert!(found.max_ns.abs_diff(longest) <= longest / 1_000, "{}", found.max_ns);
    }

    #[test]
    fn threads_add_up() {
        let (mut one, mut other) = (Times::new(), Times::new());
        one.record(10);
        other.record(1_000);
        one.add(&other);
        assert_eq!((one.histogram.len(), one.nanos), (2, 1_010));
        assert_eq!(one.histogram.count_at(10), 1);
    }

    #[test]
    fn a_histogram_is_as_large_after_its_worst_as_before() {
        let mut times = Times::new();
        let before = times.histogram.distinct_values();
        assert!(!times.histogram.is_auto_resize());
        times.record(u64::MAX);
        assert_eq!(times.histogram.distinct_values(), before);
    }

    #[test]
    fn what_is_timed_takes_at_least_as_long_as_the_clock_does() {
        let clock = Clock::calibrated();
        let mut times = Times::new();
        let done = times.time(&clock, || {
            std::thread::sleep(std::time::Duration::from_millis(2));
            7
        });
        assert_eq!(done, 7);
        assert!(times.nanos >= 2_000_000, "{}", times.nanos);
    }
}
