//! Patterns in one thread. An operation is one allocation and one free unless the description says otherwise.

use std::collections::HashMap;
use std::hint::black_box;
use std::mem::MaybeUninit;

use super::block::{Block, BlockTable};
use super::{Context, Outcome, Rng, Workload, opaque_box, timed};

/// The single-threaded patterns, in the order of the table.
pub const WORKLOADS: &[Workload] = &[
    Workload {
        name: "hot-64",
        about: "one 64 B box after the other, size known when compiling: the shortest path there is",
        telling: true,
        run: |context| hot::<8>(context, 30_000_000),
    },
    Workload {
        name: "hot-4k",
        about: "the same with 4 KiB boxes, of which one word is written",
        telling: false,
        run: |context| hot::<512>(context, 20_000_000),
    },
    Workload { name: "runtime-64", about: "64 B blocks whose size the compiler does not know", telling: false, run: runtime_64 },
    Workload {
        name: "batch-100",
        about: "100 boxes of 64 B, then all of them freed, last first and first first in turn",
        telling: true,
        run: |context| batch(context, 100, 20_000_000),
    },
    Workload {
        name: "batch-10k",
        about: "the same with 10,000 boxes: more than a thread caches",
        telling: false,
        run: |context| batch(context, 10_000, 16_000_000),
    },
    Workload {
        name: "random-1k",
        about: "8–1024 B, 1,000 live, replaced in random order",
        telling: true,
        run: |context| random(context, 1_000, 10_000_000, Reads::No),
    },
    Workload {
        name: "random-1k-read",
        about: "the same, and the program reads a block before it frees it",
        telling: false,
        run: |context| random(context, 1_000, 10_000_000, Reads::Yes),
    },
    Workload {
        name: "random-100k",
        about: "8–1024 B, 100,000 live (50 MiB), replaced in random order",
        telling: true,
        run: |context| random(context, 100_000, 4_000_000, Reads::No),
    },
    Workload {
        name: "random-100k-read",
        about: "the same, and the program reads a block before it frees it",
        telling: false,
        run: |context| random(context, 100_000, 4_000_000, Reads::Yes),
    },
    Workload {
        name: "random-1m",
        about: "8–1024 B, 1,000,000 live (500 MiB), replaced in random order",
        telling: false,
        run: |context| random(context, 1_000_000, 3_000_000, Reads::No),
    },
    Workload {
        name: "random-1m-read",
        about: "the same, and the program reads a block before it frees it",
        telling: false,
        run: |context| random(context, 1_000_000, 3_000_000, Reads::Yes),
    },
    Workload {
        name: "strings",
        about: "short strings formatted, cloned, joined; an operation is one string made and dropped",
        telling: true,
        run: strings,
    },
    Workload {
        name: "hash-of-boxes",
        about: "a hash map of boxed values under insertion and removal; an operation is one of each",
        telling: false,
        run: hash_of_boxes,
    },
    Workload {
        name: "vec-grow-1k",
        about: "a vector pushed from nothing to 1,000 words; an operation is one vector, 8 reallocations",
        telling: false,
        run: |context| vec_grow(context, 1_000, 600_000),
    },
    Workload {
        name: "vec-grow-1m",
        about: "a vector pushed from nothing to 1,000,000 words (8 MB); an operation is one vector",
        telling: true,
        run: |context| vec_grow(context, 1_000_000, 150),
    },
    Workload {
        name: "cold-growth",
        about: "1,000,000 boxes of 64 B in a fresh process, first touch included; an operation is one allocation",
        telling: true,
        run: cold_growth,
    },
    Workload {
        name: "zeroed",
        about: "zeroed buffers of 1 KiB to 1 MiB, of which one byte per page is read",
        telling: false,
        run: zeroed,
    },
    Workload {
        name: "large",
        about: "blocks of 33–400 KiB, 16 live, one byte per 4 KiB written",
        telling: true,
        run: |context| sized(context, 33 << 10, 400 << 10, 16, 120_000),
    },
    Workload {
        name: "xlarge",
        about: "blocks of 1–16 MiB, 4 live, one byte per 4 KiB written",
        telling: false,
        run: |context| sized(context, 1 << 20, 16 << 20, 4, 2_000),
    },
    Workload {
        name: "small-program",
        about: "62 KiB live in blocks of mixed sizes and nothing else: what a small process costs; an operation is one allocation",
        telling: true,
        run: |context| small_program(context, 62 << 10),
    },
    Workload {
        name: "empty-program",
        about: "nothing at all, for comparison with small-program",
        telling: false,
        run: |context| small_program(context, 0),
    },
];

fn hot<const WORDS: usize>(context: &Context, full: u64) -> Outcome {
    let operations = context.scaled(full);
    timed(|| {
        let mut sum = 0_u64;
        for step in 0..operations {
            let mut block = Box::<[MaybeUninit<u64>; WORDS]>::new_uninit();
            // SAFETY: the box has at least one word.
            unsafe { block.as_mut_ptr().cast::<u64>().write(step) };
            let block = opaque_box(block);
            // SAFETY: written above.
            sum = sum.wrapping_add(unsafe { block.as_ptr().cast::<u64>().read() });
        }
        (operations, sum)
    })
}

fn runtime_64(context: &Context) -> Outcome {
    let operations = context.scaled(20_000_000);
    timed(|| {
        let mut sum = 0_u64;
        for step in 0..operations {
            sum = sum.wrapping_add(Block::new(black_box(64), step).word());
        }
        (operations, sum)
    })
}

fn batch(context: &Context, size: usize, full: u64) -> Outcome {
    let rounds = context.scaled(full).div_ceil(size as u64);
    // Not options: asking whether there is a box would cost a fifth of what is measured.
    let mut boxes: Vec<MaybeUninit<Box<[MaybeUninit<u64>; 8]>>> = Vec::new();
    boxes.resize_with(size, MaybeUninit::uninit);
    timed(|| {
        let mut sum = 0_u64;
        for round in 0..rounds {
            for (index, place) in boxes.iter_mut().enumerate() {
                let mut block = Box::new([const { MaybeUninit::uninit() }; 8]);
                block[0].write(round ^ index as u64);
                place.write(opaque_box(block));
            }
            let mut free = |place: &mut MaybeUninit<Box<[MaybeUninit<u64>; 8]>>| {
                // SAFETY: written above, and not read again before it is written again.
                let block = unsafe { place.assume_init_read() };
                // SAFETY: written above.
                sum = sum.wrapping_add(unsafe { block[0].assume_init() });
            };
            if round % 2 == 0 {
                boxes.iter_mut().rev().for_each(&mut free);
            } else {
                boxes.iter_mut().for_each(&mut free);
            }
        }
        (rounds * size as u64, sum)
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reads {
    No,
    Yes,
}

fn random(context: &Context, live: usize, full: u64, reads: Reads) -> Outcome {
    const LEAST: usize = 8;
    const MORE: usize = 1024 - LEAST + 1;
    let operations = context.scaled(full);
    let live = if context.percent < 100 { live.min(10_000) } else { live };
    let mut rng = Rng::new(live as u64);
    let mut blocks = BlockTable::new((0..live).map(|_| LEAST + rng.below(MORE)));
    // A program that has been running for a while, not one that has just filled its memory in order.
    for step in 0..(2 * live as u64).min(operations) {
        let (place, more) = rng.two_below(live, MORE);
        // SAFETY: `place` is below `live`, and so many there are.
        unsafe { blocks.replace(place, LEAST + more, step) };
    }
    timed(|| {
        let mut sum = 0_u64;
        for step in 0..operations {
            let (place, more) = rng.two_below(live, MORE);
            if reads == Reads::Yes {
                sum = sum.wrapping_add(blocks.word(place));
            }
            // SAFETY: `place` is below `live`, and so many there are.
            unsafe { blocks.replace(place, LEAST + more, step) };
        }
        (operations, sum.wrapping_add(blocks.checksum()))
    })
}

fn strings(context: &Context) -> Outcome {
    let rounds = context.scaled(1_500);
    let per_round = 400_u64;
    timed(|| {
        let mut sum = 0_u64;
        for round in 0..rounds {
            let names: Vec<String> = (0..per_round).map(|index| format!("user-{}-{}", round * index, index)).collect();
            let copies: Vec<String> = black_box(&names).iter().rev().cloned().collect();
            let line = copies.join(",");
            sum = sum.wrapping_mul(31).wrapping_add(line.len() as u64).wrapping_add(u64::from(line.as_bytes()[line.len() / 2]));
        }
        (rounds * per_round * 2, sum)
    })
}

fn hash_of_boxes(context: &Context) -> Outcome {
    let operations = context.scaled(4_000_000);
    let mut rng = Rng::new(7);
    let mut map: HashMap<u64, Box<[u64; 6]>> = HashMap::new();
    timed(|| {
        let mut sum = 0_u64;
        for step in 0..operations {
            let value = opaque_box(Box::new([step; 6]));
            if let Some(old) = map.insert(rng.number() % 20_000, value) {
                sum = sum.wrapping_add(old[5]);
            }
            if let Some(old) = map.remove(&(rng.number() % 20_000)) {
                sum = sum.wrapping_mul(31).wrapping_add(old[0]);
            }
        }
        (operations, sum.wrapping_add(map.len() as u64))
    })
}

fn vec_grow(context: &Context, words: u64, full: u64) -> Outcome {
    let operations = context.scaled(full);
    timed(|| {
        let mut sum = 0_u64;
        for step in 0..operations {
            let mut vec = Vec::new();
            for word in 0..words {
                vec.push(black_box(word ^ step));
            }
            sum = sum.wrapping_mul(31).wrapping_add(vec[(step % words) as usize]);
        }
        (operations, sum)
    })
}

fn cold_growth(context: &Context) -> Outcome {
    let count = context.scaled(1_000_000);
    // The table of pointers is touched before the clock starts.
    let mut boxes: Vec<Option<Box<[u64; 8]>>> = Vec::new();
    boxes.resize_with(count as usize, || None);
    for place in &mut boxes {
        black_box(place);
    }
    timed(|| {
        for (index, place) in boxes.iter_mut().enumerate() {
            *place = Some(opaque_box(Box::new([index as u64; 8])));
        }
        let sum = boxes.iter().flatten().fold(0_u64, |sum, block| sum.wrapping_mul(31).wrapping_add(block[7]));
        (count, sum)
    })
}

fn zeroed(context: &Context) -> Outcome {
    let operations = context.scaled(60_000);
    let mut rng = Rng::new(11);
    let mut live: Vec<Vec<u8>> = vec![Vec::new(); 8];
    timed(|| {
        let mut sum = 0_u64;
        for step in 0..operations {
            // Sizes spread evenly over the doublings, 1 KiB to 1 MiB.
            let bytes = (1_usize << rng.between(10, 19)) + rng.below(1 << 10);
            let mut buffer = black_box(vec![0_u8; bytes]);
            for offset in (0..bytes).step_by(4096) {
                assert_eq!(buffer[offset], 0, "a zeroed buffer is zero");
                buffer[offset] = step as u8;
            }
            sum = sum.wrapping_mul(31).wrapping_add(buffer.len() as u64);
            let place = rng.below(live.len());
            live[place] = buffer;
        }
        (operations, sum)
    })
}

fn sized(context: &Context, low: usize, high: usize, live: usize, full: u64) -> Outcome {
    let operations = context.scaled(full);
    let mut rng = Rng::new(high as u64);
    let mut blocks: Vec<Option<Block>> = (0..live).map(|_| None).collect();
    timed(|| {
        let mut sum = 0_u64;
        for step in 0..operations {
            let (place, more) = rng.two_below(live, high - low + 1);
            // Freed before the next is allocated, as a buffer that is replaced usually is.
            if let Some(old) = blocks[place].take() {
                sum = sum.wrapping_mul(31).wrapping_add(old.size() as u64);
            }
            let block = Block::new(low + more, step);
            block.touch();
            blocks[place] = Some(block);
        }
        (operations, sum)
    })
}

fn small_program(_context: &Context, live: usize) -> Outcome {
    let mut rng = Rng::new(3);
    timed(|| {
        #[expect(clippy::large_stack_arrays, reason = "the list of blocks is to be no block of its own")]
        let mut blocks: [Option<Block>; 1024] = [const { None }; 1024];
        let mut bytes = 0;
        let mut count = 0;
        while bytes < live {
            // As programs do: many small ones, few large ones.
            let most = 1 << rng.between(4, 10);
            let size = 8 + rng.below(most);
            let block = Block::new(size, count as u64);
            block.fill(1);
            bytes += size;
            blocks[count] = Some(block);
            count += 1;
        }
        (count.max(1) as u64, black_box(&blocks).iter().flatten().map(|block| block.size() as u64).sum())
    })
}
