//! What a profile of 100,000 stacks costs: time, and memory while it is made and written. First of stacks that were thought up, then of this program's own.
//!
//! ```text
//! $ cargo run --release -p freestone-stats --features pprof --example profile_cost
//! ```

use std::hint::black_box;
use std::io::{self, Write};
use std::time::Instant;

use freestone::Freestone;
use freestone_stats::profile::{self, Builder, Context, Kind, Profile, Row};

#[global_allocator]
/// With room for as many sites of its own.
static GLOBAL: Freestone = Freestone::new().profile_memory(128 << 20);

const STACKS: u64 = 100_000;
const FRAMES: u64 = 30;
/// Places that calls come from: those of a large program.
const CALLS: u64 = 20_000;

fn main() {
    let before = live();
    for _ in 0..3 {
        round(before);
    }
    let kept = allocate_everywhere();
    for _ in 0..3 {
        own(live());
    }
    drop(kept);
}

/// As many blocks as there are stacks, each allocated from another one, and each a sample.
fn allocate_everywhere() -> Vec<Vec<u8>> {
    freestone::control::set_sample_interval(1);
    let mut kept = Vec::with_capacity(STACKS as usize);
    (0..STACKS).for_each(|path| climb(path, FRAMES - 13, &mut kept));
    freestone::control::set_sample_interval(0);
    kept
}

/// Left or right at every height: every path is a stack of its own.
fn climb(path: u64, height: u64, kept: &mut Vec<Vec<u8>>) {
    if height == 0 {
        kept.push(vec![0; 64]);
    } else if path & 1 == 0 {
        left(path >> 1, height - 1, kept);
    } else {
        right(path >> 1, height - 1, kept);
    }
}

#[inline(never)]
fn left(path: u64, height: u64, kept: &mut Vec<Vec<u8>>) {
    climb(path, height, kept);
    black_box(1);
}

#[inline(never)]
fn right(path: u64, height: u64, kept: &mut Vec<Vec<u8>>) {
    climb(path, height, kept);
    // Another number, or both would be one function.
    black_box(2);
}

/// A profile of this program.
fn own(before: u64) {
    let begin = Instant::now();
    let profile = profile::take(Kind::Heap);
    let taken = begin.elapsed();
    let mut sink = Sink { bytes: 0, peak: live() };
    profile.write_pprof(&mut sink, &mut Context::default()).expect("a sink takes everything");
    let all = begin.elapsed();
    println!(
        "own: {} rows, {} addresses: taken in {taken:.1?}, with writing {all:.1?}, {} KiB of gzip; at most {} KiB meanwhile",
        profile.rows.len(),
        profile.addresses().len(),
        sink.bytes >> 10,
        (sink.peak - before) >> 10,
    );
}

fn round(before: u64) {
    let begin = Instant::now();
    let mut builder = Builder::new(Kind::Heap);
    let mut frames = Vec::new();
    let mut peak = 0;
    for stack in 0..STACKS {
        fill(stack, &mut frames);
        let objects = 524_288.0 / 64.0 + stack as f64;
        let values = [objects, objects * 64.0, objects / 2.0, objects * 32.0];
        let mut row = Row::new(stack, 1, values, values);
        row.block_bytes = 64;
        builder.push(row, &frames);
        if stack % 1000 == 0 {
            peak = peak.max(live());
        }
    }
    peak = peak.max(live());
    let profile = builder.finish();
    let made = begin.elapsed();
    let holds = live() - before;

    let begin = Instant::now();
    let mut sink = Sink { bytes: 0, peak };
    profile.write_pprof(&mut sink, &mut Context::default()).expect("a sink takes everything");
    let written = begin.elapsed();

    let begin = Instant::now();
    let difference = profile.since(&empty());
    let subtracted = begin.elapsed();
    println!(
        "{} rows, {} addresses: made in {made:.1?}, {} KiB; written in {written:.1?}, {} KiB of gzip; at most {} KiB meanwhile; \
         subtracted in {subtracted:.1?}",
        difference.rows.len(),
        profile.addresses().len(),
        holds >> 10,
        sink.bytes >> 10,
        (sink.peak - before) >> 10,
    );
}

fn empty() -> Profile {
    Builder::new(Kind::Heap).finish()
}

/// Return addresses of a stack, innermost first: like leaves of a tree, of which neighbours have the outer frames in common.
fn fill(stack: u64, frames: &mut Vec<usize>) {
    frames.clear();
    frames.extend((0..FRAMES).map(|height| {
        let branch = (stack >> (height * 17 / FRAMES)) * FRAMES + height;
        0x5555_5555_0000 + (branch.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33) as usize % CALLS as usize * 16
    }));
}

fn live() -> u64 {
    freestone::snapshot().bytes.live as u64
}

/// Counts what it is given, and looks how much is alive meanwhile.
struct Sink {
    bytes: u64,
    peak: u64,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes += bytes.len() as u64;
        self.peak = self.peak.max(live());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
