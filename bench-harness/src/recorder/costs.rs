//! What recording costs: by stores into a map, as the recorder does it, and by `write`, in turns.
//!
//! Each way writes the same snapshots of the same heap in the same layout: into a map, at its place in a file by one `pwrite`, or at the end of
//! a growing file by one `write`. All three survive SIGKILL. Once back to back, with everything in the processor's caches; once with a rest
//! before each; and once into pages that are on the disk already, of which the kernel wants to know when they are written to again. A recorder
//! at one record per second finds both: cold caches, and such pages.

use std::alloc::{GlobalAlloc, Layout};
use std::fmt::Write;
use std::fs::{self, File, OpenOptions};
use std::hint::black_box;
use std::io::Write as _;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use freestone::Freestone;
use freestone_stats::Snapshot;
use freestone_stats::recorder::costs::Costs;

use crate::statistics::Estimate;

/// What snapshots are of. The harness itself does not run on it; that a few blocks of every class live there is enough.
static HEAP: Freestone = Freestone::new();

/// Of the recording, as it is by default.
const BYTES: usize = 4 << 20;
const SLOT_BYTES: u64 = 4096;
const REST: Duration = Duration::from_millis(2);

/// How records follow each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Pace {
    AtOnce,
    Rested,
    /// As at once, after everything went to the disk.
    Clean,
}

impl Pace {
    const ALL: [Self; 3] = [Self::AtOnce, Self::Rested, Self::Clean];

    /// So many records make a turn. Into clean pages not more than there are.
    fn records(self) -> usize {
        match self {
            Self::AtOnce => 2000,
            Self::Rested => 100,
            Self::Clean => 800,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::AtOnce => "Back to back",
            Self::Rested => "After a rest of 2 ms each",
            Self::Clean => "Into pages that are on the disk already (fsync before each turn)",
        }
    }
}

/// What is done with a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// Nothing: what taking it costs, which the others have as well.
    Taken,
    /// The recorder's.
    Map,
    /// `pwrite` at the record's place in a ring.
    Pwrite,
    /// `write` at the end of a log.
    Write,
}

impl Way {
    const ALL: [Self; 4] = [Self::Taken, Self::Map, Self::Pwrite, Self::Write];

    fn words(self) -> &'static str {
        match self {
            Self::Taken => "snapshot() alone, for scale",
            Self::Map => "recorder: stores into a map",
            Self::Pwrite => "pwrite into a ring of the same size",
            Self::Write => "write at the end of a log",
        }
    }
}

/// One turn of a way.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
struct Turn {
    /// Time per record, in nanoseconds, and processor time of the thread.
    wall_ns: f64,
    processor_ns: f64,
}

/// Files to write to.
struct Ways {
    map: Costs,
    ring: File,
    log: File,
    number: u64,
    slots: u64,
    /// Removed with all that is in it.
    folder: PathBuf,
}

impl Drop for Ways {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Ways {
    fn new(folder: &Path) -> Result<Self> {
        let folder = folder.join(format!("freestone-recorder-{}", std::process::id()));
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let open = |name| {
            let path = folder.join(name);
            OpenOptions::new().create_new(true).write(true).open(&path).with_context(|| format!("cannot make {}", path.display()))
        };
        let (ring, log) = (open("ring")?, open("log")?);
        let map = Costs::new(&folder.join("map"), BYTES)?;
        let mut ways = Self { map, ring, log, number: 0, slots: Costs::snapshots(BYTES), folder };
        // Every page of every file is there once before it is measured.
        let mut snapshot = freestone_stats::snapshot();
        for _ in 0..ways.slots {
            ways.write(Way::Map, &mut snapshot)?;
            ways.write(Way::Pwrite, &mut snapshot)?;
        }
        Ok(ways)
    }

    fn write(&mut self, way: Way, snapshot: &mut Snapshot) -> Result<()> {
        self.number += 1;
        match way {
            Way::Taken => {
                black_box(&*snapshot);
            }
            Way::Map => self.map.store(snapshot),
            Way::Pwrite => {
                let at = self.number % self.slots * SLOT_BYTES;
                self.ring.write_all_at(self.map.encode(snapshot), at).context("cannot write")?;
            }
            Way::Write => self.log.write_all(self.map.encode(snapshot)).context("cannot write")?,
        }
        Ok(())
    }

    /// Takes snapshots and writes them. What counts is the writing, for [`Way::Taken`] the taking; and of a turn the record in the middle, since
    /// now and then somebody else wants the processor.
    fn turn(&mut self, way: Way, pace: Pace) -> Result<Turn> {
        if pace == Pace::Clean {
            for name in ["map", "ring", "log"] {
                File::open(self.folder.join(name)).and_then(|file| file.sync_all()).context("cannot flush a file")?;
            }
        }
        let mut records = Vec::with_capacity(pace.records());
        for _ in 0..pace.records() {
            if pace == Pace::Rested {
                thread::sleep(REST);
            }
            let taking = Stopwatch::start();
            let mut snapshot = freestone_stats::snapshot();
            let taken = taking.stop();
            let writing = Stopwatch::start();
            self.write(way, &mut snapshot)?;
            records.push(if way == Way::Taken { taken } else { writing.stop() });
        }
        self.log.set_len(0).context("cannot empty a file")?;
        let median = |of: fn(&Turn) -> f64| Estimate::of(records.iter().map(of)).map_or(0.0, |estimate| estimate.median);
        Ok(Turn { wall_ns: median(|turn| turn.wall_ns), processor_ns: median(|turn| turn.processor_ns) })
    }
}

struct Stopwatch {
    wall: Instant,
    processor_ns: u64,
}

impl Stopwatch {
    fn start() -> Self {
        Self { processor_ns: processor_ns(), wall: Instant::now() }
    }

    fn stop(&self) -> Turn {
        let wall_ns = self.wall.elapsed().as_nanos() as f64;
        Turn { wall_ns, processor_ns: processor_ns().saturating_sub(self.processor_ns) as f64 }
    }
}

/// What this thread has used of a processor.
fn processor_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the place to write to is valid.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Some blocks of every class, and some large ones, which stay.
fn populate() {
    for class in &freestone::snapshot().classes {
        let Ok(layout) = Layout::from_size_align(class.block_bytes, 8) else { continue };
        for _ in 0..64 {
            // SAFETY: the size is not zero.
            black_box(unsafe { HEAP.alloc(layout) });
        }
    }
}

/// Measures, and makes a table of it.
pub(super) fn compare(rounds: u64, folder: Option<&Path>) -> Result<String> {
    populate();
    let temporary = std::env::temp_dir();
    let folder = folder.unwrap_or(&temporary);
    let mut ways = Ways::new(folder)?;
    let mut text = format!("Recording a snapshot: {rounds} turns of each way, one after the other, in {}\n", folder.display());
    for pace in Pace::ALL {
        let mut turns: [Vec<Turn>; 4] = Default::default();
        for round in 0..rounds {
            // In another order each time, so that none always comes after the same.
            for place in 0..4 {
                let index = ((round + place) % 4) as usize;
                turns[index].push(ways.turn(Way::ALL[index], pace)?);
            }
        }
        table(&mut text, pace, &turns);
    }
    let clocks: Vec<Turn> = (0..1000).map(|_| Stopwatch::start().stop()).collect();
    let clock = |of: fn(&Turn) -> f64| Estimate::of(clocks.iter().map(of)).map_or(0.0, |estimate| estimate.median / 1e3);
    let _ = writeln!(
        text,
        "\nMedians over turns of the median record; ± is how far the 95 % interval reaches. Looking at the\n\
         clocks is in every figure: {:.2} µs of time, {:.2} µs of CPU. What the kernel writes to the\n\
         disk later, and when, is the same for the map and for pwrite, and is in none.",
        clock(|turn| turn.wall_ns),
        clock(|turn| turn.processor_ns),
    );
    Ok(text)
}

fn table(text: &mut String, pace: Pace, turns: &[Vec<Turn>; 4]) {
    let _ = writeln!(text, "\n{} ({} records a turn)", pace.words(), pace.records());
    let _ = writeln!(text, "  {:<38}{:>12}{:>9}{:>12}{:>19}", "", "time", "±", "CPU", "CPU share at 1/s");
    for (way, turns) in Way::ALL.into_iter().zip(turns) {
        let wall = Estimate::of(turns.iter().map(|turn| turn.wall_ns));
        let processor = Estimate::of(turns.iter().map(|turn| turn.processor_ns));
        if let (Some(wall), Some(processor)) = (wall, processor) {
            let _ = writeln!(
                text,
                "  {:<38}{:>9.2} µs{:>7.0} %{:>9.2} µs{:>17.5} %",
                way.words(),
                wall.median / 1e3,
                wall.spread() * 100.0,
                processor.median / 1e3,
                processor.median / 1e9 * 100.0,
            );
        }
    }
}
