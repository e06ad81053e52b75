//! Accuracy is a workload: ten million operations over all classes and beyond, by eight threads at a time of which each dies young, and a
//! reader beside them.
//!
//! Every operation is written down by who makes it, before and after. So for each class, whatever a snapshot says must lie between what had
//! ended when it began and what had begun when it ended: it was exact for some moment in between. And when all is over, it is exact.
//!
//! The allocator under test is not registered, so that every count is this test's.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use freestone::{CLASSES, Freestone, Snapshot, snapshot};
use freestone_tests::{Random, join_all, lock, seed};

static UNDER_TEST: Freestone = Freestone::new();

#[global_allocator]
static HARNESS: System = System;

const OPERATIONS: u64 = 10_000_000;
const THREADS: u64 = 8;
/// Threads that follow each other on each of the eight places.
const LIVES: u64 = 10;
/// What a thread keeps at most before it frees.
const KEPT: usize = 500;

/// All classes, and behind them what lies beyond.
const KINDS: usize = CLASSES + 1;

/// What the threads wrote down.
struct Book {
    allocations_begun: [AtomicU64; KINDS],
    allocations_ended: [AtomicU64; KINDS],
    frees_begun: [AtomicU64; KINDS],
    frees_ended: [AtomicU64; KINDS],
}

static BOOK: Book = Book { allocations_begun: blank(), allocations_ended: blank(), frees_begun: blank(), frees_ended: blank() };

const fn blank() -> [AtomicU64; KINDS] {
    [const { AtomicU64::new(0) }; KINDS]
}

fn read(page: &[AtomicU64; KINDS]) -> [u64; KINDS] {
    std::array::from_fn(|kind| page[kind].load(Ordering::SeqCst))
}

#[derive(Clone, Copy)]
struct Kept {
    address: usize,
    layout: Layout,
    kind: usize,
}

fn allocate(kind: usize, layout: Layout) -> Kept {
    BOOK.allocations_begun[kind].fetch_add(1, Ordering::SeqCst);
    // SAFETY: not a layout of nothing.
    let block = unsafe { UNDER_TEST.alloc(layout) };
    BOOK.allocations_ended[kind].fetch_add(1, Ordering::SeqCst);
    assert!(!block.is_null(), "memory is there");
    Kept { address: block.expose_provenance(), layout, kind }
}

fn free(Kept { address, layout, kind }: Kept) {
    BOOK.frees_begun[kind].fetch_add(1, Ordering::SeqCst);
    // SAFETY: allocated with this layout, and nobody else has it.
    unsafe { UNDER_TEST.dealloc(std::ptr::with_exposed_provenance_mut(address), layout) };
    BOOK.frees_ended[kind].fetch_add(1, Ordering::SeqCst);
}

/// A request of any class, of the small ones more often; one of thousand lies beyond the classes.
fn any_request(random: &mut Random, sizes: &[usize; CLASSES]) -> (usize, Layout) {
    if random.below(1000) == 0 {
        let bytes = random.spread(300 << 10, 4 << 20);
        return (CLASSES, Layout::from_size_align(bytes, 8).expect("a layout"));
    }
    let kind = random.below(CLASSES).min(random.below(CLASSES));
    let below = if kind == 0 { 0 } else { sizes[kind - 1] };
    let bytes = below + 1 + random.below(sizes[kind] - below);
    (kind, Layout::from_size_align(bytes, 1).expect("a layout"))
}

/// One thread: some of what it allocated is freed by others, and it frees some of theirs.
fn live(mut random: Random, sizes: &[usize; CLASSES], left_over: &Mutex<Vec<Kept>>) {
    let mut mine = Vec::with_capacity(KEPT);
    for _ in 0..OPERATIONS / THREADS / LIVES {
        if mine.len() == KEPT || (!mine.is_empty() && random.below(1000) < 495) {
            free(mine.swap_remove(random.below(mine.len())));
        } else {
            let (kind, layout) = any_request(&mut random, sizes);
            mine.push(allocate(kind, layout));
        }
    }
    // Heirs free it.
    let inherited = std::mem::replace(&mut *lock(left_over), mine);
    inherited.into_iter().for_each(free);
}

fn by_kind(now: &Snapshot, of_class: fn(&freestone::ClassSnapshot) -> u64, beyond: u64) -> [u64; KINDS] {
    std::array::from_fn(|kind| now.classes.get(kind).map_or(beyond, of_class))
}

fn allocations(now: &Snapshot) -> [u64; KINDS] {
    by_kind(now, |class| class.allocations, now.large.allocations)
}

fn frees(now: &Snapshot) -> [u64; KINDS] {
    by_kind(now, |class| class.frees, now.large.frees)
}

fn none_below(these: &[u64; KINDS], those: &[u64; KINDS]) -> bool {
    these.iter().zip(those).all(|(this, that)| this >= that)
}

/// Says of how many snapshots the ledger closed to the byte, and of how many only nearly, because memory was on its way.
fn watch(enough: &AtomicBool) -> (u64, u64) {
    let (mut closed, mut nearly) = (0, 0);
    let mut before = snapshot();
    while !enough.load(Ordering::SeqCst) {
        let (allocated, freed) = (read(&BOOK.allocations_ended), read(&BOOK.frees_ended));
        let now = snapshot();
        let (allocating, freeing) = (read(&BOOK.allocations_begun), read(&BOOK.frees_begun));
        let (said_allocated, said_freed) = (allocations(&now), frees(&now));
        assert!(none_below(&said_allocated, &said_freed), "a free without its allocation: {now:?}");
        assert!(none_below(&said_allocated, &allocations(&before)), "allocations ran backwards: {before:?} {now:?}");
        assert!(none_below(&said_freed, &frees(&before)), "frees ran backwards: {before:?} {now:?}");
        assert!(now.allocations >= now.frees && now.allocated_bytes >= now.freed_bytes);
        assert_eq!(now.allocations, said_allocated.iter().sum::<u64>());
        assert_eq!(now.frees, said_freed.iter().sum::<u64>());
        // Whether lines of the ledger fit together or not, counters are exact.
        assert!(none_below(&said_allocated, &allocated), "allocations are missing: {allocated:?} {now:?}");
        assert!(none_below(&allocating, &said_allocated), "allocations before their time: {allocating:?} {now:?}");
        assert!(none_below(&said_freed, &freed), "frees are missing: {freed:?} {now:?}");
        assert!(none_below(&freeing, &said_freed), "frees before their time: {freeing:?} {now:?}");
        if now.approximate {
            nearly += 1;
        } else {
            closed += 1;
        }
        before = now;
    }
    (closed, nearly)
}

#[test]
fn ten_million_operations_are_counted_to_the_block_and_to_the_byte() {
    let mut random = Random::new(seed());
    let sizes: [usize; CLASSES] = snapshot().classes.map(|class| class.block_bytes);
    let enough = AtomicBool::new(false);
    let left_over = Mutex::new(Vec::new());
    let (closed, nearly) = thread::scope(|scope| {
        let reader = scope.spawn(|| watch(&enough));
        let places: Vec<_> = (0..THREADS)
            .map(|_| {
                let (sizes, left_over) = (&sizes, &left_over);
                let mut seeds = Random::new(random.next_u64());
                scope.spawn(move || {
                    for _ in 0..LIVES {
                        let random = Random::new(seeds.next_u64());
                        join_all([scope.spawn(move || live(random, sizes, left_over))]);
                    }
                })
            })
            .collect();
        join_all(places);
        enough.store(true, Ordering::SeqCst);
        join_all([reader])[0]
    });
    println!("the ledger closed in {closed} snapshots beside the load, nearly in {nearly}");
    assert!(closed > 0, "in none of {nearly}");

    // At rest.
    check_at_rest(&lock(&left_over));
    std::mem::take(&mut *lock(&left_over)).into_iter().for_each(free);
    check_at_rest(&[]);
    let begun: u64 = read(&BOOK.allocations_begun).iter().chain(&read(&BOOK.frees_begun)).sum();
    assert!(begun >= OPERATIONS, "{begun}");
    assert!(read(&BOOK.allocations_begun).iter().all(|&count| count > 0), "every class had its turn");
}

/// All counts are those of the book, live is what is left, and the ledger closes.
fn check_at_rest(left: &[Kept]) {
    let now = snapshot();
    assert!(!now.approximate);
    assert_eq!(allocations(&now), read(&BOOK.allocations_ended));
    assert_eq!(frees(&now), read(&BOOK.frees_ended));
    let block_bytes = |kept: &Kept| match now.classes.get(kept.kind) {
        Some(class) => class.block_bytes,
        None => kept.layout.size().next_multiple_of(8 << 10),
    };
    assert_eq!(now.bytes.live, left.iter().map(block_bytes).sum::<usize>());
    assert_eq!(now.live_blocks(), left.len() as u64);
    assert_eq!(now.allocated_bytes - now.freed_bytes, now.bytes.live as u64);
    // Every mapped byte is in one line: `approximate` is false only if the lines sum to what is mapped.
    assert_eq!(now.bytes.committed() + now.bytes.released, now.bytes.reserved());
    assert!(now.thread_records >= 8 && now.thread_records <= 64, "records are taken over: {}", now.thread_records);
}
