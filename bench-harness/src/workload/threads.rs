//! Patterns with several threads. An operation is one allocation and one free unless the description says otherwise.

use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{TryRecvError, TrySendError, sync_channel};
use std::thread;

use super::block::BlockTable;
use super::{Context, Outcome, Rng, Workload, opaque_box, timed};

/// The patterns with threads, in the order of the table.
pub const WORKLOADS: &[Workload] = &[
    Workload {
        name: "handover",
        about: "one thread allocates 64 B boxes and hands them over in batches of 256; another reads and frees them",
        telling: true,
        run: handover,
    },
    Workload { name: "channel", about: "the same one by one over a bounded channel of std", telling: false, run: channel },
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

/// How a side waits for the other: spinning, because it is about to come, but looking seldom, because every look takes the line away that
/// the other is writing; and giving way now and then, because it may have been stopped. Going to sleep would measure the kernel.
pub(super) struct Patience(u32);

impl Patience {
    const LOOKS: u32 = 200;
    const SPINS_PER_LOOK: u32 = 100;

    pub(super) fn new() -> Self {
        Self(0)
    }

    pub(super) fn wait(&mut self) {
        if self.0 < Self::LOOKS {
            self.0 += 1;
            (0..Self::SPINS_PER_LOOK).for_each(|_| std::hint::spin_loop());
        } else {
            thread::yield_now();
        }
    }

    fn end(&mut self) {
        self.0 = 0;
    }
}

fn handover(context: &Context) -> Outcome {
    const BATCH: usize = 256;
    type Message = Box<[MaybeUninit<u64>; 8]>;
    let batches = context.scaled(6_000_000).div_ceil(BATCH as u64);
    timed(|| {
        let (sender, receiver) = sync_channel::<Vec<Message>>(32);
        let sum = thread::scope(|scope| {
            scope.spawn(move || {
                let mut patience = Patience::new();
                for batch in 0..batches {
                    let mut messages = Vec::with_capacity(BATCH);
                    for index in 0..BATCH as u64 {
                        let mut message = opaque_box(Box::new([const { MaybeUninit::uninit() }; 8]));
                        message[0].write(batch ^ index);
                        messages.push(message);
                    }
                    while let Err(TrySendError::Full(back)) = sender.try_send(messages) {
                        messages = back;
                        patience.wait();
                    }
                    patience.end();
                }
            });
            let mut patience = Patience::new();
            let mut sum = 0_u64;
            loop {
                match receiver.try_recv() {
                    Ok(messages) => {
                        patience.end();
                        for message in messages {
                            // SAFETY: the producer wrote it.
                            sum = sum.wrapping_add(unsafe { opaque_box(message)[0].assume_init() });
                        }
                    }
                    Err(TryRecvError::Empty) => patience.wait(),
                    Err(TryRecvError::Disconnected) => break sum,
                }
            }
        });
        (batches * BATCH as u64, sum)
    })
}

fn channel(context: &Context) -> Outcome {
    let operations = context.scaled(3_000_000);
    timed(|| {
        let (sender, receiver) = sync_channel::<Box<[u64; 8]>>(1024);
        let sum = thread::scope(|scope| {
            scope.spawn(move || {
                let mut patience = Patience::new();
                for index in 0..operations {
                    let mut block = opaque_box(Box::new([index; 8]));
                    while let Err(TrySendError::Full(back)) = sender.try_send(block) {
                        block = back;
                        patience.wait();
                    }
                    patience.end();
                }
            });
            let mut patience = Patience::new();
            let mut sum = 0_u64;
            loop {
                match receiver.try_recv() {
                    Ok(block) => {
                        sum = sum.wrapping_mul(31).wrapping_add(opaque_box(block)[3]);
                        patience.end();
                    }
                    Err(TryRecvError::Empty) => patience.wait(),
                    Err(TryRecvError::Disconnected) => break sum,
                }
            }
        });
        (operations, sum)
    })
}

/// A set of blocks that wanders from thread to thread.
struct Set {
    blocks: BlockTable,
    rng: Rng,
    turns: usize,
}

impl Set {
    const BLOCKS: usize = 1_000;
    const REPLACED_PER_TURN: usize = 5_000;

    fn new(seed: u64, turns: usize) -> Self {
        let mut rng = Rng::new(seed);
        let blocks = BlockTable::new((0..Self::BLOCKS).map(|_| rng.between(16, 512)));
        Self { blocks, rng, turns }
    }

    fn turn(&mut self) {
        for _ in 0..Self::REPLACED_PER_TURN {
            let (place, more) = self.rng.two_below(Self::BLOCKS, 497);
            // SAFETY: `place` is below the number of blocks.
            unsafe { self.blocks.replace(place, 16 + more, more as u64) };
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
                            *finished = finished.wrapping_add(set.blocks.checksum());
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
