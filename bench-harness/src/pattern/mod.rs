//! The classic patterns of allocator benchmarks, each a fixed amount of work with the C library's face: `malloc` and its siblings, called by
//! name, so that whoever is preloaded serves them.
//!
//! They are our own, after what is known of the programs they are named after; no line is theirs, and figures are not comparable with theirs.
//! What is kept is the habit that makes each of them hard. Work is fixed, not time: every thread draws its sizes from a generator of its own and
//! never lets what another thread does decide what is drawn next. So the blocks of a pattern are the same in every run, whoever frees them
//! when, and the sum over them has to be the same on every allocator.
//!
//! ```text
//!   single    one thread: bursts, bignums, sets, large blocks
//!   batches   whole batches of blocks, freed in another order or by another thread
//!   servers   tables of blocks replaced at random, handed on, with threads that come and go
//!   lines     blocks that share a cache line
//! ```

mod batches;
mod block;
mod lines;
mod servers;
mod single;

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use freestone_bench::workload::Rng;
use serde::{Deserialize, Serialize};

/// How much to do, and with how many threads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    /// Share of the full amount.
    pub(crate) percent: u64,
    /// In place of what patterns with several threads have.
    pub(crate) threads: Option<u64>,
}

impl Extent {
    /// So much of `full`, at least one.
    fn scaled(self, full: u64) -> u64 {
        (full * self.percent / 100).max(1)
    }

    /// So many threads, unless others were asked for.
    fn threads(self, usual: u64) -> u64 {
        self.threads.unwrap_or(usual)
    }
}

/// A pattern by name.
#[derive(Clone, Copy)]
pub(crate) struct Pattern {
    /// In tables and on the command line.
    pub(crate) name: &'static str,
    /// What it does.
    pub(crate) about: &'static str,
    /// Does it, and returns a sum over all blocks.
    run: fn(Extent) -> u64,
}

impl Pattern {
    /// Does all of it, and times that.
    pub(crate) fn run(&self, extent: Extent) -> Done {
        let start = Instant::now();
        let sum = (self.run)(extent);
        let nanos = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Done { nanos, checksum: format!("{sum:016x}") }
    }
}

/// The line that a pattern's process prints.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Done {
    /// How long it took.
    pub(crate) nanos: u64,
    /// The same on every allocator.
    pub(crate) checksum: String,
}

/// All of them, in the order of the table.
pub(crate) const PATTERNS: &[Pattern] = &[
    Pattern {
        name: "glibc-simple",
        about: "1 thread: bursts of 25 to 1,600 blocks of one size between others that stay",
        run: single::glibc_simple,
    },
    Pattern {
        name: "lifo-batches",
        about: "1 thread: stacks of up to 200 blocks of 16–512 B, freed from the top",
        run: single::lifo_batches,
    },
    Pattern {
        name: "cfrac",
        about: "1 thread: numbers of 8–48 B that live for a few steps, and some that stay",
        run: single::cfrac,
    },
    Pattern {
        name: "espresso",
        about: "1 thread: sets of 8–300 B in tables that grow by realloc, copied into others from calloc",
        run: single::espresso,
    },
    Pattern {
        name: "malloc-large",
        about: "1 thread: 20 blocks of 5–25 MiB, replaced at random, written once per page here and there",
        run: single::malloc_large,
    },
    Pattern {
        name: "glibc-thread",
        about: "2 threads, each replaces 1,024 blocks of 8 B–32 KiB at random",
        run: servers::glibc_thread,
    },
    Pattern {
        name: "larson",
        about: "4 threads, each replaces 1,000 blocks of 8–1,000 B at random, and leaves them to a new thread now and then",
        run: servers::larson,
    },
    Pattern {
        name: "mstress",
        about: "4 threads that end soon: 8 B to 512 KiB, aligned and zeroed ones, exchanged through shared places",
        run: servers::mstress,
    },
    Pattern {
        name: "rptest",
        about: "4 threads in a ring, 16 B–16 KiB: every fourth block is freed by the neighbour",
        run: servers::rptest,
    },
    Pattern { name: "mleak", about: "2 lines of short threads, each leaves 500 blocks to the next", run: servers::mleak },
    Pattern {
        name: "handover",
        about: "2 threads: each frees the batches of 256 blocks of 16–256 B that the other allocates",
        run: batches::handover,
    },
    Pattern { name: "xmalloc", about: "2 threads allocate batches of 120 blocks, 2 free them", run: batches::xmalloc },
    Pattern {
        name: "sh6",
        about: "4 threads: batches of one small size after another, freed from the top, from the bottom or at random",
        run: batches::sh6,
    },
    Pattern { name: "sh8", about: "the same, and every other batch is freed by another thread", run: batches::sh8 },
    Pattern {
        name: "cache-scratch",
        about: "2 threads start with neighbouring blocks of 8 B, free them, and write to their own over and over",
        run: lines::scratch,
    },
    Pattern {
        name: "cache-thrash",
        about: "2 threads allocate blocks of 8 B, and write to them over and over",
        run: lines::thrash,
    },
];

/// The pattern with this name.
pub(crate) fn by_name(name: &str) -> Option<&'static Pattern> {
    PATTERNS.iter().find(|pattern| pattern.name == name)
}

/// A size from `low` to below `high`, both powers of two: each doubling is as likely as any other, so most are small. Takes one number.
fn skewed(rng: &mut Rng, low: usize, high: usize) -> usize {
    let doublings = (high / low).ilog2() as usize;
    let (doubling, share) = rng.two_below(doublings, 1 << 16);
    let least = low << doubling;
    least + ((least * share) >> 16)
}

/// Lets so many threads work, each knowing its number, and adds up what they return.
fn on_threads(threads: u64, work: impl Fn(u64) -> u64 + Sync) -> u64 {
    let sum = AtomicU64::new(0);
    thread::scope(|scope| {
        for number in 0..threads {
            let (sum, work) = (&sum, &work);
            // Relaxed: whoever reads it has joined all of them.
            scope.spawn(move || sum.fetch_add(work(number), Ordering::Relaxed));
        }
    });
    sum.into_inner()
}

#[cfg(test)]
mod tests {
    use super::{Extent, PATTERNS, by_name, skewed};
    use freestone_bench::workload::Rng;

    #[test]
    fn a_pattern_computes_the_same_every_time() {
        for pattern in PATTERNS {
            let extent = Extent { percent: 1, threads: None };
            assert_eq!(pattern.run(extent).checksum, pattern.run(extent).checksum, "{}", pattern.name);
        }
    }

    #[test]
    fn a_pattern_runs_with_any_number_of_threads() {
        for pattern in PATTERNS {
            for threads in [1, 3] {
                let extent = Extent { percent: 1, threads: Some(threads) };
                assert_eq!(pattern.run(extent).checksum, pattern.run(extent).checksum, "{} on {threads}", pattern.name);
            }
        }
    }

    #[test]
    fn names_are_names() {
        for pattern in PATTERNS {
            assert_eq!(by_name(pattern.name).map(|its| its.about), Some(pattern.about));
        }
    }

    #[test]
    fn skewed_sizes_reach_from_end_to_end() {
        let mut rng = Rng::new(1);
        let mut sizes: Vec<usize> = (0..10_000).map(|_| skewed(&mut rng, 8, 1 << 15)).collect();
        sizes.sort_unstable();
        assert!(sizes[0] == 8 && sizes[9_999] < 1 << 15 && sizes[9_999] > 30_000);
        // Half of the twelve doublings.
        assert!((400..650).contains(&sizes[5_000]), "{}", sizes[5_000]);
    }
}
