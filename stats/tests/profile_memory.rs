//! A profile of 100,000 stacks takes no more than 32 MiB while it is made and written, counted block by block.

use std::alloc::{GlobalAlloc, Layout};
use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};

use freestone::Freestone;
use freestone_stats::profile::{Builder, Context, Kind, Row};

/// Freestone, with a count of what lives and of the most that ever did. Relaxed: only the one thread of the test allocates much.
struct Counting(Freestone);

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn grow(bytes: usize) {
    let live = LIVE.fetch_add(bytes, Ordering::Relaxed) + bytes;
    PEAK.fetch_max(live, Ordering::Relaxed);
}

// SAFETY: every call goes to Freestone as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { self.0.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Freestone grows large blocks in place or moves their pages: there are never two.
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        grow(size);
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { self.0.realloc(block, layout, size) }
    }
}

#[global_allocator]
static GLOBAL: Counting = Counting(Freestone::new());

const STACKS: usize = 100_000;
const FRAMES: usize = 30;

/// Takes everything and keeps nothing.
struct Sink(usize);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn hundred_thousand_stacks_stay_within_their_room() {
    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let mut builder = Builder::new(Kind::Heap);
    let mut chance = 0x5eed_u64;
    for stack in 0..STACKS {
        // No two stacks have anything in common but their functions: no real program is as bad.
        let frames: [usize; FRAMES] = std::array::from_fn(|_| {
            chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            0x5555_5555_0000 + (chance >> 33) as usize % 50_000 * 16
        });
        builder.push(Row::new(stack as u64, 1, [stack as f64; 4], [1.0; 4]), &frames);
    }
    let profile = builder.finish();
    let mut sink = Sink(0);
    profile.write_pprof(&mut sink, &mut Context::default()).expect("a sink takes everything");
    let peak = PEAK.load(Ordering::Relaxed) - before;
    println!("{} KiB at most, {} KiB of gzip", peak >> 10, sink.0 >> 10);
    assert_eq!(profile.rows.len(), STACKS);
    assert!(peak <= 32 << 20, "{peak} bytes");
    // The whole file in memory as well, as somebody who sends it in one piece has it.
    let bytes = profile.pprof(&mut Context::default());
    let peak = PEAK.load(Ordering::Relaxed) - before;
    println!("{} KiB at most with the file", peak >> 10);
    assert!(peak <= 40 << 20, "{peak} bytes with a file of {}", bytes.len());
}
