//! Patterns with several threads. An operation is one allocation and one free unless the description says otherwise.

use std::collections::VecDeque;
use std::hint::black_box;
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread;

use super::block::Block;
use super::{Context, Outcome, Rng, Workload, opaque_box, timed};

/// The patterns with threads, in the order of the table.
pub const WORKLOADS: &[Workload] = &[
    Workload {
        name: "handover",
        about: "one thread allocates 64 B boxes, another frees them; a ring without locks between them",
        telling: true,
        run: handover,
    },
    Workload {
        name: "channel",
        about: "the same over a bounded channel of std",
        telling: false,
        run: channel,
    },
    Workload {
        name: "larson-1",
        about: "sets of 1,000 blocks of 16–512 B, replaced at random; sets wander from thread to thread; 1 thread",
        telling: false,
        run: |context| larson(context, 1),
    },
    Workload { name: "larson-2", about: "the same with 2 threads", telling: true, run: |context| larson(context, 2) },
    Workload { name: "larson-4", about: "the same with 4 threads", telling: true, run: |context| larson(context, 4) },
    Workload { name: "larson-8", about: "the same with 8 threads", telling: false, run: |context| larson(context, 8) },
    Workload {
        name: "thread-birth",
        about: "short threads that allocate a little; every other block outlives its thread; an operation is one thread",
        telling: false,
        run: thread_birth,
    },
];

/// A ring of pointers between one producer and one consumer. The two indices live on lines of their own, and each side keeps a copy of
/// the other's, so that the ring itself costs little.
struct Ring {
    places: Vec<AtomicPtr<[u64; 8]>>,
    written: Line,
    read: Line,
}

#[repr(align(128))]
struct Line(AtomicUsize);

impl Ring {
    fn new(places: usize) -> Self {
        Self {
            places: (0..places).map(|_| AtomicPtr::new(ptr::null_mut())).collect(),
            written: Line(AtomicUsize::new(0)),
            read: Line(AtomicUsize::new(0)),
        }
    }
}

fn handover(context: &Context) -> Outcome {
    const PLACES: usize = 4096;
    let operations = context.scaled(12_000_000) as usize;
    let ring = Ring::new(PLACES);
    timed(|| {
        let sum = thread::scope(|scope| {
            scope.spawn(|| {
                let mut read = 0;
                for index in 0..operations {
                    while index - read == PLACES {
                        // Acquire: the consumer is done with the place. Pairs with its Release.
                        read = ring.read.0.load(Ordering::Acquire);
                        if index - read == PLACES {
                            thread::yield_now();
                        }
                    }
                    let block = opaque_box(Box::new([index as u64; 8]));
                    ring.places[index % PLACES].store(Box::into_raw(block), Ordering::Relaxed);
                    if index % 32 == 31 || index + 1 == operations {
                        // Release: the blocks are there. Pairs with the consumer's Acquire.
                        ring.written.0.store(index + 1, Ordering::Release);
                    }
                }
            });
            let consumer = scope.spawn(|| {
                let mut sum = 0_u64;
                let mut written = 0;
                for index in 0..operations {
                    while index == written {
                        // Acquire: see the producer.
                        written = ring.written.0.load(Ordering::Acquire);
                        if index == written {
                            thread::yield_now();
                        }
                    }
                    let raw = ring.places[index % PLACES].load(Ordering::Relaxed);
                    // SAFETY: the producer put a box there, and this is its only taker.
                    let block = opaque_box(unsafe { Box::from_raw(raw) });
                    sum = sum.wrapping_mul(31).wrapping_add(block[0]);
                    drop(block);
                    if index % 32 == 31 {
                        // Release: see the producer.
                        ring.read.0.store(index + 1, Ordering::Release);
                    }
                }
                sum
            });
            consumer.join().expect("the consumer does not panic")
        });
        (operations as u64, sum)
    })
}

fn channel(context: &Context) -> Outcome {
    let operations = context.scaled(3_000_000);
    timed(|| {
        let (sender, receiver) = sync_channel::<Box<[u64; 8]>>(1024);
        let sum = thread::scope(|scope| {
            scope.spawn(move || {
                for index in 0..operations {
                    sender.send(opaque_box(Box::new([index; 8]))).expect("the receiver takes them all");
                }
            });
            receiver.iter().fold(0_u64, |sum, block| sum.wrapping_mul(31).wrapping_add(opaque_box(block)[3]))
        });
        (operations, sum)
    })
}

/// A set of blocks that wanders from thread to thread.
struct Set {
    blocks: Vec<Block>,
    rng: Rng,
    turns: usize,
    sum: u64,
}

impl Set {
    const BLOCKS: usize = 1_000;
    const REPLACED_PER_TURN: usize = 5_000;

    fn new(seed: u64, turns: usize) -> Self {
        let mut rng = Rng::new(seed);
        let blocks = (0..Self::BLOCKS).map(|_| Block::new(rng.between(16, 512), 0)).collect();
        Self { blocks, rng, turns, sum: 0 }
    }

    fn turn(&mut self) {
        for _ in 0..Self::REPLACED_PER_TURN {
            let (place, more) = self.rng.two_below(Self::BLOCKS, 497);
            let place = &mut self.blocks[place];
            self.sum = self.sum.wrapping_add(place.word());
            *place = Block::new(16 + more, more as u64);
        }
        self.turns -= 1;
    }
}

/// After Larson and Krishnan, "Memory allocation for long-running server applications" (1998): sets of blocks outlive the threads that
/// work on them. One set more than threads; whoever ends a turn leaves his set and takes the one that has waited longest. Every set gets the
/// same number of turns, so the checksum does not depend on the scheduler.
fn larson(context: &Context, threads: usize) -> Outcome {
    let sets = threads + 1;
    let turns = (context.scaled(1_600) as usize).div_ceil(sets);
    let waiting: Mutex<VecDeque<Set>> = Mutex::new((0..sets as u64).map(|seed| Set::new(seed, turns)).collect());
    let finished = Mutex::new(0_u64);
    let left = AtomicUsize::new(sets);
    timed(|| {
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while left.load(Ordering::Relaxed) > 0 {
                        let Some(mut set) = waiting.lock().expect("no thread panics").pop_front() else {
                            thread::yield_now();
                            continue;
                        };
                        set.turn();
                        if set.turns > 0 {
                            waiting.lock().expect("no thread panics").push_back(set);
                        } else {
                            let mut finished = finished.lock().expect("no thread panics");
                            *finished = finished.wrapping_add(set.sum);
                            left.fetch_sub(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        let sum = finished.lock().expect("no thread panics");
        ((turns * sets * Set::REPLACED_PER_TURN) as u64, *sum)
    })
}

fn thread_birth(context: &Context) -> Outcome {
    let operations = context.scaled(6_000);
    timed(|| {
        let mut sum = 0_u64;
        let mut survivors: Vec<Vec<u8>> = Vec::new();
        for index in 0..operations {
            let block = thread::spawn(move || {
                let mut rng = Rng::new(index);
                let mut blocks: Vec<Vec<u8>> = (0..20).map(|_| Vec::with_capacity(rng.between(16, 2048))).collect();
                blocks.swap_remove(3)
            })
            .join()
            .expect("the thread does not panic");
            sum = sum.wrapping_mul(31).wrapping_add(block.capacity() as u64);
            if index % 2 == 0 {
                survivors.push(block);
            }
        }
        (operations, sum.wrapping_add(survivors.len() as u64))
    })
}
