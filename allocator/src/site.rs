//! Floor 3. What profiles are made of: call sites, and what they did, in numbers for who reads them.
//!
//! A *sample* is an allocation that was looked at closely. Which ones are is left to chance, by bytes: a block of `s` bytes is chosen with probability
//! `p = 1 − exp(−s ÷ interval)`, independently of all others. One that was chosen stands for `w = 1 ÷ p` blocks, so that sums of weights are
//! right on average for every site, size and time (the estimator of Horvitz and Thompson); their variance is the sum of `w (w − 1)`.

/// Frames of a stack at most; what lies beyond is cut off, at the end of `main`.
pub const FRAMES_MAX: usize = 64;

/// Buckets of [`Site::lifetimes`]: the first ends at 1 µs, each of the following at four times as much, the last has no end.
pub const LIFETIME_BUCKETS: usize = 16;

/// A block that ends within this time, by the hand of the thread that allocated it, is *temporary*.
pub const TEMPORARY_NS: u64 = 1_000_000;

/// What samples say about blocks: sums of weights, and how far they may be off.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
#[non_exhaustive]
pub struct Estimate {
    /// Samples that it stands on.
    pub samples: u64,
    /// Blocks.
    pub objects: f64,
    /// Their bytes, at block size.
    pub bytes: f64,
    /// The variance of `objects`; its root is their standard error.
    pub objects_variance: f64,
    /// The variance of `bytes`.
    pub bytes_variance: f64,
}

/// Where a call came from: return addresses, innermost first. The first is exact; those that follow are as good as the frame pointers of the program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stack {
    pub(crate) depth: u8,
    /// The stack was deeper than [`FRAMES_MAX`], or went on where it could not be followed.
    pub is_cut: bool,
    pub(crate) frames: [usize; FRAMES_MAX],
}

impl Stack {
    pub(crate) const EMPTY: Self = Self { depth: 0, is_cut: false, frames: [0; FRAMES_MAX] };

    /// Return addresses, innermost first: the instruction after the call.
    #[must_use]
    pub fn frames(&self) -> &[usize] {
        &self.frames[..usize::from(self.depth)]
    }
}

impl Default for Stack {
    fn default() -> Self {
        Self::EMPTY
    }
}

/// A call site: one stack that allocated blocks of one size class under one tag, and what became of them.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
#[non_exhaustive]
pub struct Site {
    /// Tells it from all others for as long as the process lives.
    pub id: u64,
    /// Bytes of one of its blocks; 0: beyond the size classes, where sizes differ.
    pub block_bytes: usize,
    /// What [`set_tag`](crate::profile::set_tag) had said in the thread that allocated; 0: nothing.
    pub tag: u32,
    /// All that it ever allocated.
    pub allocated: Estimate,
    /// Of these, what the program still has. Without [`untracked`](Self::untracked).
    pub live: Estimate,
    /// What it had when live bytes of all sites together were highest.
    pub peak: Estimate,
    /// Of `allocated`, blocks whose end nobody will see: there was no room to follow them.
    pub untracked: Estimate,
    /// Of `allocated`, blocks that took the place of a smaller or larger one: `realloc`.
    pub grown: Estimate,
    /// Blocks that ended.
    pub ended: Estimate,
    /// Of these, [temporary](TEMPORARY_NS) ones.
    pub temporary: Estimate,
    /// Of these, by the hand of another thread.
    pub ended_elsewhere: Estimate,
    /// How long those that ended had lived, in nanoseconds: the sum over estimated blocks.
    pub lifetime_ns: f64,
    /// Samples that ended, by how long they had lived.
    pub lifetimes: [u32; LIFETIME_BUCKETS],
    /// Bytes of `allocated` that were asked for: the rest is slack.
    pub requested_bytes: f64,
    /// Free blocks beside its live ones, in the same spans, that nobody can give back because of them: bytes, shared among all that live there. Of blocks up
    /// to 1 KiB, as of the last [`measure_pinned`](crate::profile::measure_pinned).
    pub pinned_bytes: f64,
    /// When it was sampled first, on the clock of [`Snapshot::at_ns`](crate::Snapshot::at_ns).
    pub first_ns: u64,
    /// When it was sampled last.
    pub last_ns: u64,
    /// Where it is.
    pub stack: Stack,
}

/// Why a thread did not go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
#[repr(u8)]
pub enum StallKind {
    /// It waited for a lock of the allocator that another thread held.
    #[default]
    Lock = 0,
    /// Its slow path took long, for whatever reason.
    SlowPath = 1,
}

/// A call site at which threads were held up by the allocator.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Stall {
    /// Tells it from all others for as long as the process lives.
    pub id: u64,
    /// By what.
    pub kind: StallKind,
    /// How often.
    pub count: u64,
    /// For how long, in nanoseconds.
    pub total_ns: u64,
    /// The longest time.
    pub max_ns: u64,
    /// Where.
    pub stack: Stack,
}

/// What there is to know about all samples together. Counts only grow, unless their text says otherwise.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
#[non_exhaustive]
pub struct ProfileSummary {
    /// Bytes between two samples, on average; 0: sampling is off, 1: every allocation is a sample.
    pub interval: usize,
    /// Samples so far. Each fired the probe `sample`.
    pub samples: u64,
    /// Ends of samples that were seen. Each fired the probe `sample_end`.
    pub ends: u64,
    /// Samples whose end nobody will see: there was no room to follow them.
    pub untracked: u64,
    /// Samples that were not recorded at all: no memory, or a signal handler within the profiler.
    pub lost: u64,
    /// What all sites, also forgotten ones, ever allocated.
    pub allocated: Estimate,
    /// What all sites have at the moment.
    pub live: Estimate,
    /// The same when it was highest.
    pub peak: Estimate,
    /// When that was.
    pub peak_ns: u64,
    /// Memory that the heap held for blocks at that moment: exact.
    pub peak_held_bytes: usize,
    /// Sites that are known at the moment.
    pub sites: usize,
    /// Sites that were forgotten, because there was no room and nothing of theirs was alive.
    pub forgotten_sites: u64,
    /// What those had allocated.
    pub forgotten: Estimate,
    /// Stacks that were cut off.
    pub cut_stacks: u64,
    /// Stacks of which only the innermost frame could be had.
    pub failed_stacks: u64,
    /// What samples and sites take, in bytes, at the moment.
    pub memory_bytes: usize,
    /// Spans that sampled blocks lie in, in bytes, at the moment.
    pub zone_bytes: usize,
    /// Guarded blocks so far.
    pub guarded: u64,
    /// Guarded blocks at the moment.
    pub guarded_live: u64,
}
