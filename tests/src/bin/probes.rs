//! A program to attach to: what it does between two snapshots is known to tracers and counters alike. `tests/probes.rs` runs it, and says on its
//! standard input when to go on.
//!
//! Between the first snapshot and the last one there is nothing but the work and waiting, and no second thread while it waits; neither reading nor
//! writing allocates.

use std::alloc::{GlobalAlloc, Layout};
use std::hint::black_box;
use std::io::Write;
use std::sync::Barrier;
use std::thread;

use freestone::{Background, Freestone, Limit, Retain, Snapshot, control, snapshot};
use freestone_tests::{Block, Random, join_all, seed};

#[global_allocator]
static GLOBAL: Freestone = Freestone::new().background(Background::Off);

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const THREADS: usize = 6;

type Blocks = Vec<Block<'static, Freestone>>;

fn try_take(size: usize) -> Option<Block<'static, Freestone>> {
    let mut block = Block::new(&GLOBAL, Layout::from_size_align(size, 8).expect("a small size"))?;
    block.fill(size as u8);
    Some(block)
}

fn take(size: usize) -> Block<'static, Freestone> {
    try_take(size).expect("memory is there")
}

// ---- work --------------------------------------------------------------------------------------------------------------

/// Threads allocate at random in all sizes; what one leaves, the next one frees.
fn threads(seed: u64) {
    let all_here = Barrier::new(THREADS);
    let worker = |nth: usize| {
        let all_here = &all_here;
        move || {
            let mut random = Random::new(seed ^ nth as u64);
            let mut blocks = Blocks::new();
            all_here.wait();
            for _ in 0..20_000 {
                match random.below(5) {
                    0..3 if blocks.len() < 2_000 => {
                        let most = [256, 4 * KIB, 64 * KIB, 600 * KIB][random.below(40).saturating_sub(36)];
                        blocks.push(take(random.spread(1, most)));
                    }
                    _ if !blocks.is_empty() => drop(blocks.swap_remove(random.below(blocks.len()))),
                    _ => {}
                }
            }
            blocks
        }
    };
    thread::scope(|scope| {
        let mut left = join_all((0..THREADS).map(|nth| scope.spawn(worker(nth))).collect::<Vec<_>>());
        left.rotate_left(1);
        join_all(left.into_iter().map(|blocks| scope.spawn(move || drop(blocks))).collect::<Vec<_>>());
    });
}

/// Spans of a few classes come and go; all that is free goes back because this program says so.
fn spans() {
    for size in [48, 700, 3000, 20 * KIB] {
        drop((0..8 * MIB / size).map(|_| take(size)).collect::<Blocks>());
        black_box(control::release_to_os());
    }
}

/// So much becomes free at once that whoever frees it gives it back.
fn drop_of_much() {
    drop((0..120).map(|_| take(MIB)).collect::<Blocks>());
    drop(take(300 * MIB));
}

/// What lives stays above the soft limit; once there is something to give back, and once there is not.
fn soft_limit() {
    // The limit is on what is resident; what is held and was never touched would count in our favour.
    control::release_to_os();
    control::set_retain(Retain::Keep);
    let mut blocks = Blocks::with_capacity(64 * 1024);
    blocks.extend((0..24 * 1024).map(|_| take(KIB)));
    let free: Blocks = (0..24).flat_map(|_| (0..16).map(|_| take(64 * KIB))).collect();
    control::set_memory_limit(Limit::Bytes(32 * MIB));
    drop(free);
    blocks.extend((0..24 * 1024).map(|nth| take(KIB + nth % 5 * 300)));
    control::set_memory_limit(Limit::None);
    control::set_retain(Retain::DEFAULT);
}

/// Memory ends at the hard limit: in blocks of pages, and in one that is too large from the start.
fn hard_limit() {
    let mut blocks = Blocks::with_capacity(4096);
    control::release_to_os();
    control::set_hard_limit(Limit::Bytes(control::held_bytes() + 24 * MIB));
    assert!(try_take(64 * MIB).is_none());
    blocks.extend(std::iter::from_fn(|| try_take(64 * KIB)).take(4000));
    assert!(blocks.len() < 4000);
    control::set_hard_limit(Limit::None);
}

// ---- counters ----------------------------------------------------------------------------------------------------------

/// What the counters say, by the names that `tests/probes.rs` looks for.
fn counters(now: &Snapshot) -> [(&'static str, u64); 25] {
    let (events, limits, pauses) = (&now.events, &now.limits, &now.pauses);
    let slow: u64 = pauses[..4].iter().map(|pause| pause.count).sum();
    let release: u64 = pauses[4..].iter().map(|pause| pause.count).sum();
    [
        ("refill", events.refills),
        ("flush", events.flushes),
        ("span_birth", events.span_births),
        ("span_death", events.span_deaths),
        ("sample", events.samples),
        ("sample_end", events.sample_ends),
        ("map", events.maps),
        ("unmap", events.unmaps),
        ("purge", events.purges),
        ("slow", slow),
        ("release", release),
        ("limit", limits.assists + limits.exceeded + limits.fuse_trips + limits.refusals),
        ("releases at leisure", pauses[4].count),
        ("releases assist", pauses[5].count),
        ("releases all", pauses[6].count),
        ("bytes at leisure", pauses[4].bytes),
        ("bytes assist", pauses[5].bytes),
        ("bytes all", pauses[6].bytes),
        ("ns at leisure", pauses[4].total_ns),
        ("ns assist", pauses[5].total_ns),
        ("ns all", pauses[6].total_ns),
        ("limits assist", limits.assists),
        ("limits exceeded", limits.exceeded),
        ("limits fuse", limits.fuse_trips),
        ("limits refusal", limits.refusals),
    ]
}

/// Writes without a buffer that would have to be allocated.
fn say(line: &[u8]) {
    // SAFETY: readable for its length.
    let written = unsafe { libc::write(1, line.as_ptr().cast(), line.len()) };
    assert_eq!(written, line.len().cast_signed());
}

/// Waits for a line, or for the end of standard input.
fn wait() {
    let mut line = [0_u8; 64];
    // SAFETY: writable for its length.
    let read = unsafe { libc::read(0, line.as_mut_ptr().cast(), line.len()) };
    assert!(read >= 0);
}

fn work() {
    let seed = seed();
    // Whatever is made once is made before.
    threads(seed);
    drop_of_much();
    let before = snapshot();
    say(b"ready\n");
    wait();
    threads(seed);
    spans();
    drop_of_much();
    soft_limit();
    hard_limit();
    let after = snapshot();
    for ((name, before), (_, after)) in counters(&before).into_iter().zip(counters(&after)) {
        let mut line = [0_u8; 80];
        let mut rest = line.as_mut_slice();
        writeln!(rest, "{name}: {}", after - before).expect("it is short");
        let length = 80 - rest.len();
        say(&line[..length]);
    }
    say(b"done\n");
    wait();
}

/// Frees a block twice that has pages of its own, which are nobody's by then.
fn fatal() {
    let layout = Layout::new::<[u8; 64 << 10]>();
    // SAFETY: the size is not zero.
    let block = black_box(unsafe { GLOBAL.alloc(layout) });
    say(b"ready\n");
    wait();
    for _ in 0..2 {
        // SAFETY: only the first time; that is what this is for.
        unsafe { GLOBAL.dealloc(black_box(block), layout) };
    }
}

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("work") => work(),
        Some("fatal") => fatal(),
        _ => panic!("which scenario?"),
    }
    // Destructors would go on working.
    // SAFETY: ends the process.
    unsafe { libc::_exit(0) };
}
