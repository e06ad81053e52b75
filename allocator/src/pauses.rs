//! Floor 2. How long things took: every slow path beyond [`SLOW_NS`] and every release of memory.
//!
//! A ring has the last 256 of them one by one, a histogram all of them since the start. Written by whoever waited, read by anybody; no
//! lock, because it is written where locks are held. An entry that is being written when somebody reads it is left out.
//!
//! Short slow paths must not pay for looking at a clock, so those that can be short read the processor's counter, twice, and only when
//! that has moved far is the time looked up.

use core::ops::Range;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering, fence};

use crate::histogram::{Histogram, Pace};
use crate::os;
use crate::probes;

/// A slow path is remembered from this long on.
const SLOW_NS: u64 = 100_000;
/// So many counts of the processor's counter are less than [`SLOW_NS`] on every machine: at 5 GHz it is 13 µs, at 1 GHz 66.
const SLOW_CYCLES: u64 = 1 << 16;

/// What took its time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
#[repr(u8)]
pub enum PauseKind {
    /// A thread waited for a depot.
    #[default]
    Depot = 0,
    /// A thread took blocks from central or gave blocks to it, waiting included, and what the page heap did meanwhile.
    Central = 1,
    /// A page heap that grew, or a huge block that was made.
    PageHeap = 2,
    /// A single call to the operating system that maps, unmaps or moves.
    System = 3,
    /// Memory was given back at leisure: one call.
    Release = 4,
    /// A thread gave memory back because it took some above the soft limit: all it did at a time.
    Assist = 5,
    /// All that was free was given back because somebody asked, or memory was out: in one go.
    ReleaseAll = 6,
}

impl PauseKind {
    /// How many kinds there are.
    pub const COUNT: usize = Self::ReleaseAll as usize + 1;
    /// All of them.
    pub const ALL: [Self; Self::COUNT] =
        [Self::Depot, Self::Central, Self::PageHeap, Self::System, Self::Release, Self::Assist, Self::ReleaseAll];
    /// Those in which memory is given back.
    pub const RELEASES: [Self; 3] = [Self::Release, Self::Assist, Self::ReleaseAll];

    /// For tracers: one was remembered.
    fn tell(self, took_ns: u64, bytes: usize) {
        match self {
            Self::Depot | Self::Central | Self::PageHeap | Self::System => probes::slow(bytes, took_ns, self as usize),
            Self::Release | Self::Assist | Self::ReleaseAll => probes::release(bytes, took_ns, self as usize),
        }
    }
}

/// Something that took its time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Pause {
    /// What.
    pub kind: PauseKind,
    /// When it ended, on the clock that never goes back (`CLOCK_MONOTONIC`), in nanoseconds.
    pub ended_ns: u64,
    /// How long it took, in nanoseconds.
    pub took_ns: u64,
    /// How many bytes it was about: given back, or asked for.
    pub bytes: u64,
}

/// All pauses of a kind since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct PauseSummary {
    /// How many.
    pub count: u64,
    /// How long all of them took together, in nanoseconds.
    pub total_ns: u64,
    /// Half of them took no longer than this. As all percentiles here at most a quarter too high, never too low.
    pub p50_ns: u64,
    /// 99 of 100 took no longer than this.
    pub p99_ns: u64,
    /// The longest.
    pub max_ns: u64,
    /// How many bytes they were about.
    pub bytes: u64,
}

/// The last so many pauses are kept one by one.
pub const PAUSES_KEPT: usize = 256;

/// One place of the ring.
struct Entry {
    /// Twice the number of the pause, plus one while it is being written, plus two when it is there; 0: never used.
    stamp: AtomicU64,
    /// Kind in the lowest byte, duration above.
    took: AtomicU64,
    ended_ns: AtomicU64,
    bytes: AtomicU64,
}

/// Four buckets per doubling, from 1 µs on: up to 17 s.
const BUCKETS: usize = 96;
const FIRST_BUCKET_SHIFT: u32 = 10;

struct Durations {
    buckets: [AtomicU32; BUCKETS],
    total_ns: AtomicU64,
    max_ns: AtomicU64,
    bytes: AtomicU64,
}

/// The pauses of a heap. Most programs are too small to have any: the log is made for the first.
pub(crate) struct Pauses {
    /// Null before the first pause.
    log: AtomicPtr<Log>,
    pub(crate) pace: Pace,
    /// How long slow paths took, however short, other than refills: those are with who has them.
    pub(crate) maps: Histogram,
    pub(crate) releases: Histogram,
    pub(crate) lock_waits: Histogram,
}

/// Where pauses are written down. All zeros is an empty one.
struct Log {
    next: AtomicU64,
    ring: [Entry; PAUSES_KEPT],
    histograms: [Durations; PauseKind::COUNT],
}

impl Log {
    /// The pause with this number. `None`: it is being written, or another one is where it was.
    fn read(&self, number: u64) -> Option<Pause> {
        let entry = &self.ring[number as usize % PAUSES_KEPT];
        // Acquire: see `remember`.
        let stamp = entry.stamp.load(Ordering::Acquire);
        let took = entry.took.load(Ordering::Relaxed);
        let (ended_ns, bytes) = (entry.ended_ns.load(Ordering::Relaxed), entry.bytes.load(Ordering::Relaxed));
        // Acquire: see `remember`.
        fence(Ordering::Acquire);
        if stamp != 2 * number + 2 || entry.stamp.load(Ordering::Relaxed) != stamp {
            return None;
        }
        Some(Pause { kind: PauseKind::ALL[took as usize & 0xff], ended_ns, took_ns: took >> 8, bytes })
    }
}

const fn bucket_of(ns: u64) -> usize {
    if ns < 1 << FIRST_BUCKET_SHIFT {
        return 0;
    }
    let doubling = ns.ilog2();
    let quarter = (ns >> (doubling - 2)) as usize & 3;
    let bucket = (doubling - FIRST_BUCKET_SHIFT) as usize * 4 + quarter;
    if bucket < BUCKETS { bucket } else { BUCKETS - 1 }
}

/// The longest that falls into a bucket.
const fn end_of_bucket(bucket: usize) -> u64 {
    let doubling = FIRST_BUCKET_SHIFT + bucket as u32 / 4;
    (1 << doubling) + ((bucket as u64 % 4 + 1) << (doubling - 2)) - 1
}

impl Pauses {
    pub(crate) const fn new() -> Self {
        Self {
            log: AtomicPtr::new(core::ptr::null_mut()),
            pace: Pace::new(),
            maps: Histogram::new(),
            releases: Histogram::new(),
            lock_waits: Histogram::new(),
        }
    }

    /// The log, if there was a pause yet.
    fn log(&self) -> Option<&Log> {
        // Acquire: the log is mapped. Pairs with the Release in `make_log`.
        let log = self.log.load(Ordering::Acquire);
        // SAFETY: null, or a mapping of this size, aligned to pages, zeros at first, and there for good.
        unsafe { log.as_ref() }
    }

    /// The log, made now if need be. `None`: no memory; then this pause is not remembered.
    fn make_log(&self) -> Option<&Log> {
        if self.log().is_none() {
            let memory = os::map_anywhere(Self::LOG_BYTES)?;
            // Release: see `log`.
            let made = memory.as_ptr().cast();
            if self.log.compare_exchange(core::ptr::null_mut(), made, Ordering::Release, Ordering::Relaxed).is_err() {
                // SAFETY: mapped above; nobody knows of it.
                unsafe { os::unmap(memory.addr().get(), Self::LOG_BYTES) };
            }
        }
        self.log()
    }

    const LOG_BYTES: usize = size_of::<Log>().next_multiple_of(64 << 10);

    /// Where it is mapped.
    pub(crate) fn mapping(&self) -> Option<Range<usize>> {
        let at = core::ptr::from_ref(self.log()?).addr();
        Some(at..at + Self::LOG_BYTES)
    }

    /// What is mapped for the log.
    pub(crate) fn mapped_bytes(&self) -> usize {
        if self.log().is_some() { Self::LOG_BYTES } else { 0 }
    }

    /// Of that, what is used.
    pub(crate) fn used_bytes(&self) -> usize {
        if self.log().is_some() { size_of::<Log>().next_multiple_of(os::page_bytes()) } else { 0 }
    }

    /// Runs something that is usually short, and remembers it if it was not.
    #[inline]
    pub(crate) fn watch<R>(&self, kind: PauseKind, bytes: usize, work: impl FnOnce() -> R) -> R {
        self.time(kind, bytes, work).0
    }

    /// As [`watch`](Self::watch); also says how many counts it took.
    #[inline]
    pub(crate) fn time<R>(&self, kind: PauseKind, bytes: usize, work: impl FnOnce() -> R) -> (R, u64) {
        let began = os::cycles();
        let result = work();
        let cycles = os::cycles().wrapping_sub(began);
        if cycles > SLOW_CYCLES {
            self.was_slow(kind, bytes, cycles);
        }
        (result, cycles)
    }

    /// Somebody waited for a lock for so many cycles; 0: it was free.
    #[inline]
    pub(crate) fn waited(&self, kind: PauseKind, cycles: u64) {
        self.waited_within(cycles);
        if cycles > SLOW_CYCLES {
            self.was_slow(kind, 0, cycles);
        }
    }

    /// As [`waited`](Self::waited), within something that is watched itself.
    #[inline]
    pub(crate) fn waited_within(&self, cycles: u64) {
        if cycles > 0 {
            self.lock_waits.note(self.pace.ns(cycles));
        }
    }

    /// How long that was is worked out from a short stretch that is measured on both.
    #[cold]
    #[inline(never)]
    fn was_slow(&self, kind: PauseKind, bytes: usize, cycles: u64) {
        const STRETCH_NS: u64 = 2_000;
        // A counter that went back: the thread came to a processor whose counter is behind.
        if cycles > u64::MAX / 2 {
            return;
        }
        let (began_ns, began) = (os::now_ns(), os::cycles());
        let mut now_ns = began_ns;
        while now_ns - began_ns < STRETCH_NS && !cfg!(test) {
            now_ns = os::now_ns();
        }
        let passed = os::cycles().wrapping_sub(began).max(1);
        let took_ns =
            if cfg!(test) { cycles } else { (u128::from(cycles) * u128::from(now_ns - began_ns) / u128::from(passed)) as u64 };
        if took_ns >= SLOW_NS {
            self.remember(kind, now_ns, took_ns, bytes);
        }
    }

    /// Remembers something that was timed, however short.
    #[cold]
    pub(crate) fn remember(&self, kind: PauseKind, ended_ns: u64, took_ns: u64, bytes: usize) {
        let Some(log) = self.make_log() else { return };
        kind.tell(took_ns, bytes);
        // Relaxed for the sums: counts.
        let histogram = &log.histograms[kind as usize];
        histogram.buckets[bucket_of(took_ns)].fetch_add(1, Ordering::Relaxed);
        histogram.total_ns.fetch_add(took_ns, Ordering::Relaxed);
        histogram.max_ns.fetch_max(took_ns, Ordering::Relaxed);
        histogram.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        // Relaxed: everybody gets another number.
        let number = log.next.fetch_add(1, Ordering::Relaxed);
        let entry = &log.ring[number as usize % PAUSES_KEPT];
        entry.stamp.store(2 * number + 1, Ordering::Relaxed);
        // Release: what follows is not seen with the stamp from before. Pairs with the Acquire fence in `recent`.
        fence(Ordering::Release);
        entry.took.store(took_ns << 8 | kind as u64, Ordering::Relaxed);
        entry.ended_ns.store(ended_ns, Ordering::Relaxed);
        entry.bytes.store(bytes as u64, Ordering::Relaxed);
        // Release: the entry is seen with its stamp. Pairs with the Acquire in `recent`.
        entry.stamp.store(2 * number + 2, Ordering::Release);
    }

    /// Copies the latest pauses, oldest first; says how many. Those that are being written meanwhile are left out.
    pub(crate) fn recent(&self, into: &mut [Pause]) -> usize {
        let Some(log) = self.log() else { return 0 };
        let end = log.next.load(Ordering::Relaxed);
        let first = end.saturating_sub(into.len().min(PAUSES_KEPT) as u64);
        let mut count = 0;
        for pause in (first..end).filter_map(|number| log.read(number)) {
            into[count] = pause;
            count += 1;
        }
        count
    }

    /// The longest pause of each kind that ended since then, as far as the ring still has it.
    pub(crate) fn longest_since(&self, since_ns: u64) -> [u64; PauseKind::COUNT] {
        let mut longest = [0; PauseKind::COUNT];
        if let Some(log) = self.log() {
            let end = log.next.load(Ordering::Relaxed);
            let all = (end.saturating_sub(PAUSES_KEPT as u64)..end).filter_map(|number| log.read(number));
            for pause in all.filter(|pause| pause.ended_ns > since_ns) {
                let longest = &mut longest[pause.kind as usize];
                *longest = pause.took_ns.max(*longest);
            }
        }
        longest
    }

    /// All pauses of a kind.
    pub(crate) fn summary(&self, kind: PauseKind) -> PauseSummary {
        let Some(log) = self.log() else { return PauseSummary::default() };
        // Relaxed: counts, each of its own moment.
        let histogram = &log.histograms[kind as usize];
        let mut counts = [0_u32; BUCKETS];
        for (count, bucket) in counts.iter_mut().zip(&histogram.buckets) {
            *count = bucket.load(Ordering::Relaxed);
        }
        let count: u64 = counts.iter().map(|&count| u64::from(count)).sum();
        let max_ns = histogram.max_ns.load(Ordering::Relaxed);
        let percentile = |percent: u64| {
            let wanted = (count * percent).div_ceil(100).max(1);
            let mut seen = 0;
            let bucket = counts.iter().position(|&count| {
                seen += u64::from(count);
                seen >= wanted
            });
            bucket.map_or(0, |bucket| end_of_bucket(bucket).min(max_ns))
        };
        PauseSummary {
            count,
            total_ns: histogram.total_ns.load(Ordering::Relaxed),
            p50_ns: percentile(50),
            p99_ns: percentile(99),
            max_ns,
            bytes: histogram.bytes.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Pause = Pause { kind: PauseKind::Depot, ended_ns: 0, took_ns: 0, bytes: 0 };

    #[test]
    fn every_duration_has_a_bucket_that_ends_behind_it() {
        let mut before = 0;
        for ns in (0..40_u32).flat_map(|shift| [1_u64 << shift, (1 << shift) + 1, (3 << shift) / 2, (2 << shift) - 1]) {
            let bucket = bucket_of(ns);
            assert!(bucket < BUCKETS);
            if bucket + 1 < BUCKETS {
                assert!(end_of_bucket(bucket) >= ns, "{ns}");
                assert!(bucket == 0 || end_of_bucket(bucket) <= ns + ns / 4, "{ns}");
                assert!(bucket == 0 || end_of_bucket(bucket - 1) < ns, "{ns}");
            }
            assert!(bucket >= before);
            before = bucket;
        }
    }

    #[test]
    fn the_ring_has_the_latest_and_the_histogram_all() {
        let pauses = Box::new(Pauses::new());
        let mut into = [NOTHING; PAUSES_KEPT];
        assert_eq!(pauses.recent(&mut into), 0);
        for number in 1..=1000 {
            pauses.remember(PauseKind::Release, number, number * 1000, 5);
        }
        assert_eq!(pauses.recent(&mut into), PAUSES_KEPT);
        assert_eq!((into[0].ended_ns, into[255].ended_ns), (745, 1000));
        assert_eq!(into[255], Pause { kind: PauseKind::Release, ended_ns: 1000, took_ns: 1_000_000, bytes: 5 });
        assert_eq!(pauses.recent(&mut into[..3]), 3);
        assert_eq!(into[0].ended_ns, 998);
        let summary = pauses.summary(PauseKind::Release);
        assert_eq!((summary.count, summary.max_ns, summary.bytes, summary.total_ns), (1000, 1_000_000, 5000, 500_500_000));
        assert!((500_000..=625_000).contains(&summary.p50_ns), "{summary:?}");
        assert!((990_000..=1_000_000).contains(&summary.p99_ns), "{summary:?}");
        assert_eq!(pauses.summary(PauseKind::Assist), PauseSummary::default());
        pauses.remember(PauseKind::Assist, 500, 7, 5);
        let longest = pauses.longest_since(999);
        assert_eq!((longest[PauseKind::Release as usize], longest[PauseKind::Assist as usize]), (1_000_000, 0));
        let longest = pauses.longest_since(400);
        assert_eq!((longest[PauseKind::Release as usize], longest[PauseKind::Assist as usize]), (1_000_000, 7));
        assert_eq!(pauses.longest_since(1000), [0; PauseKind::COUNT]);
    }

    #[test]
    fn short_ones_are_forgotten() {
        let pauses = Box::new(Pauses::new());
        let world = crate::os::sim::World::new();
        let _entered = world.enter();
        for ns in [0, SLOW_CYCLES + 1, SLOW_NS] {
            pauses.watch(PauseKind::Central, 7, || world.wait(ns));
        }
        assert_eq!(pauses.summary(PauseKind::Central).count, 1);
    }

    #[test]
    fn nobody_reads_half_of_an_entry() {
        let pauses = Box::new(Pauses::new());
        let pauses = &*pauses;
        let enough = core::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let writers: Vec<_> = (1..=2_u64)
                .map(|writer| {
                    scope.spawn(move || {
                        for number in 0..200_000 {
                            let value = number * 2 + writer;
                            pauses.remember(PauseKind::Depot, value, value, value as usize);
                        }
                    })
                })
                .collect();
            scope.spawn(|| {
                let mut into = [NOTHING; PAUSES_KEPT];
                while !enough.load(Ordering::Relaxed) {
                    let count = pauses.recent(&mut into);
                    assert!(into[..count].iter().all(|pause| pause.ended_ns == pause.took_ns && pause.bytes == pause.took_ns));
                }
            });
            for writer in writers {
                writer.join().expect("the writer does not panic");
            }
            enough.store(true, Ordering::Relaxed);
        });
    }
}
