//! Micro-benchmarks of the allocator's rooms: what one step of a walk through the house costs by itself, to see which of them a change moved.
//!
//! ```text
//! cargo bench -p freestone-bench --features rooms --bench rooms -- --save-baseline before
//! git switch …
//! cargo bench -p freestone-bench --features rooms --bench rooms -- --baseline before
//! ```
//!
//! Everything is in the caches here and the branches are foreseen, so these are lower bounds, and no sum of them is a program's time. And one binary is
//! run after the other: where a host has other guests, the same room was half as fast ten minutes later. What decides is `freestone-bench gate`.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use freestone::rooms::{OneBitmap, OneDepot, OneFiller, OneMagazine, block_at, class_of};
use freestone::{Freestone, Snapshot};
use freestone_bench::workload::Rng;

/// A snapshot is of a heap that serves a program.
#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

/// So many random values that no predictor learns them by heart.
const MANY: usize = 1024;

fn size_class(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("size class");
    group.throughput(Throughput::Elements(MANY as u64));
    for (name, most) in [("of small sizes", 1 << 10), ("of all sizes", 256 << 10)] {
        let mut rng = Rng::new(1);
        let sizes: Vec<usize> = (0..MANY).map(|_| 1 + rng.below(most)).collect();
        group.bench_function(name, |bencher| {
            bencher.iter(|| sizes.iter().filter_map(|&size| class_of(black_box(size), 8)).sum::<usize>());
        });
    }
    let class = class_of(48, 8).expect("48 bytes have a class");
    let mut rng = Rng::new(2);
    let offsets: Vec<usize> = (0..MANY).map(|_| 48 * rng.below(128)).collect();
    group.bench_function("which block", |bencher| {
        bencher.iter(|| offsets.iter().filter_map(|&offset| block_at(black_box(class), offset)).sum::<u32>());
    });
    group.finish();
}

fn magazine(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("magazine");
    for capacity in [16_usize, 128] {
        group.throughput(Throughput::Elements(capacity as u64));
        let mut magazine = OneMagazine::new(capacity);
        group.bench_function(BenchmarkId::new("fill and read", capacity), |bencher| {
            bencher.iter(|| magazine.fill_and_read(black_box(capacity)));
        });
    }
    group.finish();
}

fn depot(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("depot");
    for (name, usable) in [("by a slot", 1), ("by the shelf", 0)] {
        let depot = OneDepot::new(8);
        group.bench_function(name, |bencher| bencher.iter(|| assert!(depot.leave_and_take(black_box(usable)))));
    }
    group.finish();
}

fn bitmap(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("bitmap");
    group.throughput(Throughput::Elements(u64::from(OneBitmap::BLOCKS)));
    let mut rng = Rng::new(3);
    let mut blocks: Vec<u32> = (0..OneBitmap::BLOCKS).collect();
    for last in (1..blocks.len()).rev() {
        blocks.swap(last, rng.below(last + 1));
    }
    let bitmap = OneBitmap::default();
    let free_all = || assert!(blocks.iter().all(|&block| bitmap.free(block)), "every block is freed once");
    group.bench_function("free in random order, take in one go", |bencher| {
        bencher.iter(|| {
            free_all();
            bitmap.take(black_box(OneBitmap::BLOCKS))
        });
    });
    group.bench_function("free in random order, take by magazines of 64", |bencher| {
        bencher.iter(|| {
            free_all();
            (0..OneBitmap::BLOCKS / 64).map(|_| bitmap.take(black_box(64)).1).sum::<u32>()
        });
    });
    group.finish();
}

fn filler(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("filler");
    for steps in [8, 512] {
        group.bench_function(BenchmarkId::new("give a run and take one, steps", steps), |bencher| {
            let mut filler = OneFiller::new(steps);
            let mut rng = Rng::new(4);
            let mut random = || (rng.below(1 << 30), 1 + rng.below(16) as u32);
            while filler.take(random().1) {}
            let mut give_and_take = |(choice, pages)| {
                filler.give(choice);
                filler.take(pages)
            };
            // As full as a heap is that was used for a while: what was given leaves holes of all lengths.
            let taken = (0..10_000).filter(|_| give_and_take(random())).count();
            assert!(taken > 5_000, "of 10,000 times there was room only {taken} times");
            bencher.iter_batched(random, give_and_take, BatchSize::SmallInput);
        });
    }
    group.finish();
}

fn snapshot(criterion: &mut Criterion) {
    let mut rng = Rng::new(6);
    let blocks: Vec<Vec<u8>> = (0..100_000).map(|_| Vec::with_capacity(1 + rng.below(4096))).collect();
    criterion.bench_function("snapshot", |bencher| bencher.iter(|| black_box::<Snapshot>(freestone::snapshot())));
    black_box(blocks);
}

criterion_group! {
    name = rooms;
    config = Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(2));
    targets = size_class, magazine, depot, bitmap, filler, snapshot
}
criterion_main!(rooms);
