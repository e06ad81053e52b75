//! Floor 9. Numbers of one moment: what was allocated and freed, where every byte is, and what the slow paths did.

use core::mem::MaybeUninit;
use core::time::Duration;

use crate::anomaly::{ClassVitals, Vitals};
use crate::atomic::Ordering;
use crate::central::LISTS;
use crate::counters::{Event, Tallied};
use crate::guard::LimitSnapshot;
use crate::histogram::{SlowPath, SlowPathSnapshot};
use crate::os;
use crate::pauses::{Pause, PauseKind, PauseSummary};
use crate::requests::RequestSamples;
use crate::size_class::SizeClass;
use crate::supply::Supply;
use crate::thread_cache::record::{Life, Record};
use crate::thread_cache::registry::Registry;

/// How many size classes a [`Snapshot`] tells apart.
pub const CLASSES: usize = SizeClass::COUNT;

/// One size class in a [`Snapshot`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct ClassSnapshot {
    /// Block size in bytes.
    pub block_bytes: usize,
    /// Blocks ever allocated. Never falls.
    pub allocations: u64,
    /// Blocks ever freed. Never falls, and is never more than `allocations`.
    pub frees: u64,
    /// Blocks in thread caches.
    pub thread_cached: u64,
    /// Blocks in the depot, on their way between threads.
    pub depot: u64,
    /// Spans that hold blocks of this class.
    pub spans: u64,
    /// Bytes of each of them.
    pub span_bytes: usize,
    /// Of these spans, those with free blocks: with one, with two or three, with four to seven, and so on. The others are full. Blocks in caches
    /// and depots count as used.
    pub spans_by_free: [u32; SPANS_BY_FREE],
    /// Free bytes in these spans: free blocks, and what is left behind the last one. Pages of them may have been given back.
    pub holes_bytes: usize,
    /// Requests for such blocks that were looked at.
    pub requests: RequestSamples,
}

/// How many groups [`ClassSnapshot::spans_by_free`] tells apart.
pub const SPANS_BY_FREE: usize = LISTS;

impl ClassSnapshot {
    /// Blocks that the program has.
    #[must_use]
    pub fn live(&self) -> u64 {
        self.allocations.saturating_sub(self.frees)
    }

    /// Spans of which every block is used: live, cached, or on its way between threads.
    #[must_use]
    pub fn full_spans(&self) -> u64 {
        self.spans.saturating_sub(self.spans_by_free.iter().map(|&spans| u64::from(spans)).sum())
    }
}

/// Blocks beyond the classes (above 256 KiB, or aligned to more than 8 KiB) in a [`Snapshot`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct LargeSnapshot {
    /// Blocks ever allocated; growing or shrinking one in place counts as a free and an allocation.
    pub allocations: u64,
    /// Blocks ever freed.
    pub frees: u64,
    /// Bytes of these allocations, whole pages.
    pub allocated_bytes: u64,
    /// Bytes of these frees.
    pub freed_bytes: u64,
    /// Requests for such blocks that were looked at.
    pub requests: RequestSamples,
}

/// Where every byte is. The lines are disjoint; together they are [`reserved`](Self::reserved).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Bytes {
    /// Blocks that the program has, at their block size.
    pub live: usize,
    /// Free blocks in thread caches.
    pub thread_cached: usize,
    /// Free blocks in depots, on their way between threads.
    pub depot: usize,
    /// Free blocks in central's spans, what is left of spans behind their last block, and of the seed what is not handed out.
    pub holes: usize,
    /// Free pages that still hold memory.
    pub dirty: usize,
    /// Free pages, and unused ends of tables, that hold no memory: never touched, or given back.
    pub released: usize,
    /// What the allocator uses for itself.
    pub metadata: usize,
    /// What samples take beyond their blocks: the rest of the spans, or of the slots of guarded ones, that they lie in. Their call sites are part of `metadata`.
    pub profiler: usize,
    /// Free blocks in caches of threads that a `fork` left behind, and pages they had just taken: the child cannot use them.
    pub lost_at_fork: usize,
}

impl Bytes {
    /// All address space that is mapped: the sum of all lines.
    #[must_use]
    pub fn reserved(&self) -> usize {
        self.committed() + self.released
    }

    /// The lines in words, for a last message.
    pub(crate) fn accounts(&self) -> [(&'static str, usize); 5] {
        let cached = self.thread_cached + self.depot;
        [("live", self.live), ("cached", cached), ("holes", self.holes), ("free", self.dirty), ("metadata", self.metadata)]
    }

    /// What may hold memory: `reserved` without `released`. The kernel's count of resident pages is at most this.
    #[must_use]
    pub fn committed(&self) -> usize {
        self.live + self.thread_cached + self.depot + self.holes + self.dirty + self.metadata + self.profiler + self.lost_at_fork
    }
}

/// How often the slow paths did what. All of these only grow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Events {
    /// A thread's two arrays of a class changed places.
    pub exchanges: u64,
    /// A thread got blocks from central.
    pub refills: u64,
    /// Blocks went to central.
    pub flushes: u64,
    /// A thread took a magazine from a depot.
    pub depot_takes: u64,
    /// A thread left a magazine in a depot.
    pub depot_puts: u64,
    /// A span began to hold blocks.
    pub span_births: u64,
    /// A span went back to the page heap.
    pub span_deaths: u64,
    /// Calls that asked the system for address space.
    pub maps: u64,
    /// Calls that gave address space back.
    pub unmaps: u64,
    /// Calls that gave memory back.
    pub purges: u64,
    /// Calls that told the kernel which pages to use.
    pub advices: u64,
    /// Calls that moved pages instead of copying them.
    pub moves: u64,
    /// Calls of these kinds that the system refused.
    pub refusals: u64,
    /// Thread records made.
    pub record_births: u64,
    /// Thread records taken over from threads that had ended.
    pub record_adoptions: u64,
    /// Times that somebody looked whether memory should go back.
    pub ticks: u64,
    /// Times that memory was given back: ticks in which it was, assists, and times that somebody asked.
    pub release_rounds: u64,
    /// Times that the heap did without huge pages for a while, because the kernel took long to find some.
    pub huge_page_pauses: u64,
    /// Caches of sleeping threads that were taken.
    pub recalls: u64,
    /// Times that the background thread was started, or was to be: a refusal counts under `refusals` too.
    pub background_starts: u64,
    /// Blocks allocated in the sampled zone.
    pub samples: u64,
    /// Ends of such blocks that were seen.
    pub sample_ends: u64,
    /// Frees by a signal handler that interrupted its thread's slow path: the block is lost.
    pub dropped: u64,
}

impl Events {
    /// Calls to the operating system, of all kinds.
    #[must_use]
    pub fn os_calls(&self) -> u64 {
        self.maps + self.unmaps + self.purges + self.advices + self.moves
    }
}

/// The allocator's numbers of one moment. See [`crate::snapshot()`].
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Snapshot {
    /// When it was taken, on the clock of [`Pause::ended_ns`](crate::Pause::ended_ns), in nanoseconds.
    pub at_ns: u64,
    /// How long ago the heap's first operation was, in nanoseconds. All that is counted below was counted since then.
    pub age_ns: u64,
    /// Blocks of all kinds ever allocated.
    pub allocations: u64,
    /// Blocks of all kinds ever freed.
    pub frees: u64,
    /// Bytes of these allocations, at block size.
    pub allocated_bytes: u64,
    /// Bytes of these frees, at block size.
    pub freed_bytes: u64,
    /// Where every byte is.
    pub bytes: Bytes,
    /// What the slow paths did.
    pub events: Events,
    /// Per size class, smallest first.
    pub classes: [ClassSnapshot; CLASSES],
    /// Blocks beyond the classes.
    pub large: LargeSnapshot,
    /// Thread records: of living threads, and waiting for the next one.
    pub thread_records: usize,
    /// Of these, waiting.
    pub thread_records_pooled: usize,
    /// The limits in force, and what they did.
    pub limits: LimitSnapshot,
    /// How long slow paths and releases of memory took, by [`PauseKind`]: all releases, and what took longer than 100 µs of the others.
    pub pauses: [PauseSummary; PauseKind::COUNT],
    /// How often slow paths took how long, by [`SlowPath`].
    pub slow_paths: [SlowPathSnapshot; SlowPath::COUNT],
    /// There is a background thread.
    pub background_thread: bool,
    /// Some thread was in a slow path at every attempt to look at it, or blocks changed hands between two looks: the parts may then
    /// differ from the whole by what was on its way. `false` promises that every counter is exact for some moment during the call.
    pub approximate: bool,
}

impl Snapshot {
    /// Blocks that the program has.
    #[must_use]
    pub fn live_blocks(&self) -> u64 {
        self.allocations.saturating_sub(self.frees)
    }

    /// Nothing, and not even what classes there are.
    // SAFETY: numbers, `false` and `None` are zeros: the compiler refuses a constant that is not what its type says.
    pub(crate) const ZEROS: Self = unsafe { MaybeUninit::zeroed().assume_init() };

    /// Nothing: what a process without this allocator sees.
    pub(crate) fn empty() -> Self {
        let mut snapshot = Self::ZEROS;
        snapshot.clear();
        snapshot
    }

    /// As [`ZEROS`](Self::ZEROS), in place: it is large, and stacks may be small.
    pub(crate) fn zero(&mut self) {
        // SAFETY: zeros are what it says there.
        unsafe { core::ptr::from_mut(self).write_bytes(0, 1) };
    }

    /// As [`empty`](Self::empty), in place.
    fn clear(&mut self) {
        self.zero();
        for class in SizeClass::all() {
            self.classes[class.index()].block_bytes = class.bytes();
        }
    }
}

/// Nothing was counted: for who fills one in from elsewhere, such as a file.
impl Default for Snapshot {
    fn default() -> Self {
        Self::empty()
    }
}

/// As [`take_into`].
#[cfg(test)]
pub(crate) fn take(supply: &Supply, registry: &Registry<Record>) -> Snapshot {
    let mut snapshot = Snapshot::ZEROS;
    take_into(&mut snapshot, supply, registry);
    snapshot
}

/// Looks at every room, without stopping anybody. Frees are summed before allocations, over all threads, so that no free is seen
/// without its allocation.
pub(crate) fn take_into(snapshot: &mut Snapshot, supply: &Supply, registry: &Registry<Record>) {
    snapshot.clear();
    snapshot.at_ns = os::now_ns();
    let mut cached = 0;
    let mut sampled = 0;
    let mut holes = supply.seed_bytes();
    // Relaxed: written in the child of a fork, while it has one thread.
    let mut lost = supply.direct.lost_pages_bytes.load(Ordering::Relaxed);
    for pass in [Pass::Frees, Pass::Allocations] {
        snapshot.approximate |= !read_classes(pass, &mut snapshot.classes, supply, registry);
        read_large(pass, &mut snapshot.large, supply, registry);
    }
    let out_of_seed = supply.out_of_seed();
    for class in SizeClass::all() {
        let bytes = class.bytes();
        let central = supply.central(class);
        let entry = &mut snapshot.classes[class.index()];
        entry.depot = supply.depot(class).blocks() as u64;
        entry.spans = central.span_count() as u64;
        snapshot.allocations += entry.allocations;
        snapshot.frees += entry.frees;
        snapshot.allocated_bytes += entry.allocations * bytes as u64;
        snapshot.freed_bytes += entry.frees * bytes as u64;
        snapshot.bytes.live += entry.live() as usize * bytes;
        snapshot.bytes.depot += entry.depot as usize * bytes;
        cached += entry.thread_cached as usize * bytes;
        entry.span_bytes = class.span_bytes();
        entry.spans_by_free = supply.listed[class.index()].read();
        entry.requests = supply.requests.read(Some(class));
        // Holes are what the spans are without the blocks that are out.
        let (spans_bytes, out) = (entry.spans as usize * class.span_bytes(), central.out() as usize);
        holes = holes.wrapping_add(spans_bytes).wrapping_sub(out * bytes);
        let seeded = out_of_seed.get(class.index()).map_or(0, |&blocks| usize::from(blocks));
        entry.holes_bytes = spans_bytes.saturating_sub(out.saturating_sub(seeded) * bytes);
        sampled += supply.sampling.allocations(class).saturating_sub(supply.sampling.frees(class)) as usize * bytes;
        // Relaxed: as above.
        lost += supply.direct.lost[class.index()].load(Ordering::Relaxed) as usize * bytes;
    }
    // Sampled blocks lie in spans of their own, of which they are live bytes like all others. Read in this order, the spans may have gone since.
    let (guarded, closed) = supply.sampling.guarded.bytes();
    snapshot.bytes.profiler = (supply.sampling.zone_bytes() + guarded).saturating_sub(sampled);
    snapshot.large.requests = supply.requests.read(None);
    let large = snapshot.large;
    snapshot.allocations += large.allocations;
    snapshot.frees += large.frees;
    snapshot.allocated_bytes += large.allocated_bytes;
    snapshot.freed_bytes += large.freed_bytes;
    snapshot.bytes.live += large.allocated_bytes.saturating_sub(large.freed_bytes) as usize;
    snapshot.bytes.thread_cached = cached;
    snapshot.bytes.lost_at_fork = lost;
    // Of the holes, pages that were given back hold no memory.
    let within = supply.page_heap.all_released_within();
    holes = holes.wrapping_sub(within);
    // Blocks that moved between two looks may make this negative; then there are no holes to speak of.
    let torn = holes > isize::MAX as usize;
    snapshot.approximate |= torn;
    snapshot.bytes.holes = if torn { 0 } else { holes };

    let page_heap = supply.page_heap.bytes();
    let metadata_mapped = supply.meta.mapped_bytes() + page_heap.tables;
    snapshot.bytes.metadata = (supply.meta.used_bytes() + page_heap.tables_used).min(metadata_mapped);
    snapshot.bytes.dirty = page_heap.dirty;
    snapshot.bytes.released = page_heap.clean + within + closed + metadata_mapped - snapshot.bytes.metadata;
    // The parts were read one after the other; only together with the page heap's own sum do they say whether they fit.
    snapshot.approximate |= snapshot.bytes.reserved() != page_heap.mapped + guarded + closed + metadata_mapped;

    snapshot.thread_records = registry.records().filter(|record| record.life() != Life::Orphaned).count();
    snapshot.thread_records_pooled = registry.pooled();
    snapshot.events = read_events(supply, registry);
    read_slow_paths(&mut snapshot.slow_paths, supply, registry);
    for kind in PauseKind::ALL {
        snapshot.pauses[kind as usize] = supply.page_heap.pauses.summary(kind);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    Frees,
    Allocations,
}

/// Adds up all classes over all records, record by record: that is the order in which they lie in memory. `false`: some record was being changed
/// at every attempt.
fn read_classes(pass: Pass, entries: &mut [ClassSnapshot; CLASSES], supply: &Supply, registry: &Registry<Record>) -> bool {
    let mut steady = true;
    for record in registry.records().filter(|record| record.life() != Life::Orphaned) {
        for class in SizeClass::all() {
            let (counts, exact) = record.counts(class);
            let entry = &mut entries[class.index()];
            match pass {
                Pass::Frees => entry.frees += counts.frees,
                Pass::Allocations => {
                    entry.allocations += counts.allocations;
                    entry.thread_cached += counts.cached;
                }
            }
            steady &= exact;
        }
    }
    for class in SizeClass::all() {
        let entry = &mut entries[class.index()];
        // Acquire: pairs with the Release of whoever counts; see `Sampling::allocate`.
        match pass {
            Pass::Frees => {
                entry.frees += supply.direct.frees[class.index()].load(Ordering::Acquire) + supply.sampling.frees(class);
            }
            Pass::Allocations => {
                let direct = supply.direct.allocations[class.index()].load(Ordering::Acquire);
                entry.allocations += direct + supply.sampling.allocations(class);
            }
        }
    }
    steady
}

fn read_large(pass: Pass, entry: &mut LargeSnapshot, supply: &Supply, registry: &Registry<Record>) {
    let of_threads = registry.records().filter(|record| record.life() != Life::Orphaned).map(|record| &record.large);
    for tally in of_threads.chain([&supply.large.shared]) {
        match pass {
            Pass::Frees => {
                let Tallied { blocks, bytes } = tally.frees();
                entry.frees += blocks;
                entry.freed_bytes += bytes;
            }
            Pass::Allocations => {
                let Tallied { blocks, bytes } = tally.allocations();
                entry.allocations += blocks;
                entry.allocated_bytes += bytes;
            }
        }
    }
}

fn read_slow_paths(into: &mut [SlowPathSnapshot; SlowPath::COUNT], supply: &Supply, registry: &Registry<Record>) {
    let pauses = &supply.page_heap.pauses;
    pauses.pace.compare(os::now_ns(), os::cycles());
    for record in registry.records() {
        record.refills.add_to(&mut into[SlowPath::Refill as usize]);
    }
    pauses.maps.add_to(&mut into[SlowPath::Map as usize]);
    pauses.releases.add_to(&mut into[SlowPath::Release as usize]);
    pauses.lock_waits.add_to(&mut into[SlowPath::LockWait as usize]);
}

fn read_events(supply: &Supply, registry: &Registry<Record>) -> Events {
    let total = |event| {
        let of_threads: u64 = registry.records().map(|record| record.counters.get(event)).sum();
        supply.counters().get(event) + of_threads
    };
    // Ends before beginnings, so that none is seen without its own; each is counted after the other by whoever sees both.
    let span_deaths = total(Event::SpanDeath);
    let sample_ends = total(Event::SampledEnd);
    let refusals = total(Event::Refused);
    Events {
        exchanges: total(Event::Exchange),
        refills: total(Event::Refill),
        flushes: total(Event::Flush),
        depot_takes: total(Event::DepotTake),
        depot_puts: total(Event::DepotPut),
        span_births: total(Event::SpanBirth),
        span_deaths,
        maps: total(Event::Map),
        unmaps: total(Event::Unmap),
        purges: total(Event::Purge),
        advices: total(Event::Advise),
        moves: total(Event::Move),
        refusals,
        record_births: total(Event::RecordBirth),
        record_adoptions: total(Event::RecordAdoption),
        ticks: total(Event::Tick),
        release_rounds: total(Event::ReleaseRound),
        huge_page_pauses: total(Event::HugePagePause),
        recalls: 0,
        background_starts: total(Event::BackgroundStart),
        samples: total(Event::Sampled),
        sample_ends,
        dropped: total(Event::Dropped),
    }
}

// ---- for anomalies -------------------------------------------------------------------------------------------------

impl Snapshot {
    /// All releases of memory together, as far as sums go.
    pub(crate) fn releases(&self) -> PauseSummary {
        PauseKind::RELEASES.into_iter().fold(PauseSummary::default(), |sum, kind| {
            let pauses = self.pauses[kind as usize];
            PauseSummary {
                count: sum.count + pauses.count,
                total_ns: sum.total_ns + pauses.total_ns,
                bytes: sum.bytes + pauses.bytes,
                max_ns: sum.max_ns.max(pauses.max_ns),
                ..sum
            }
        })
    }
}

impl Vitals {
    /// What the rules about anomalies look at, from two snapshots. Given in the wrong order, the two make an interval of zero.
    ///
    /// How long the longest release took is exact where it was the longest ever or the only one of its kind; else it is the mean, which it is not below.
    /// [`including`](Self::including) makes it exact.
    #[must_use]
    pub fn between(earlier: &Snapshot, later: &Snapshot) -> Self {
        let mut longest_release_ns = 0;
        for kind in PauseKind::RELEASES {
            let (old, new) = (earlier.pauses[kind as usize], later.pauses[kind as usize]);
            let mean_ns = new.total_ns.saturating_sub(old.total_ns) / new.count.saturating_sub(old.count).max(1);
            longest_release_ns = longest_release_ns.max(if new.max_ns > old.max_ns { new.max_ns } else { mean_ns });
        }
        let (limits, before) = (&later.limits, &earlier.limits);
        let is_over = limits.memory_limit.is_some_and(|limit| limits.held > limit);
        let exceeded = limits.exceeded.saturating_sub(before.exceeded) + limits.fuse_trips.saturating_sub(before.fuse_trips);
        let mut vitals = Self {
            interval: Duration::from_nanos(later.at_ns.saturating_sub(earlier.at_ns)),
            release_rounds: later.events.release_rounds.saturating_sub(earlier.events.release_rounds),
            longest_release_ns,
            given_back_bytes: later.releases().bytes.saturating_sub(earlier.releases().bytes),
            committed_before_bytes: earlier.bytes.committed() as u64,
            committed_bytes: later.bytes.committed() as u64,
            live_bytes: later.bytes.live as u64,
            cached_bytes: (later.bytes.thread_cached + later.bytes.depot) as u64,
            limit_exceeded: exceeded + u64::from(is_over),
            huge_page_stalls: later.events.huge_page_pauses.saturating_sub(earlier.events.huge_page_pauses),
            ..Self::default()
        };
        for (class, (old, new)) in vitals.classes.iter_mut().zip(earlier.classes.iter().zip(&later.classes)) {
            *class =
                ClassVitals { allocations: new.allocations.saturating_sub(old.allocations), live: old.live().max(new.live()) };
        }
        vitals
    }

    /// Knows the pauses of [`recent_pauses`](crate::recent_pauses) too: those that ended within the interval that ends at `later`.
    #[must_use]
    pub fn including(mut self, pauses: &[Pause], later: &Snapshot) -> Self {
        let begin_ns = u128::from(later.at_ns).saturating_sub(self.interval.as_nanos());
        let within = |pause: &&Pause| u128::from(pause.ended_ns) > begin_ns && pause.ended_ns <= later.at_ns;
        for pause in pauses.iter().filter(within).filter(|pause| PauseKind::RELEASES.contains(&pause.kind)) {
            self.longest_release_ns = self.longest_release_ns.max(pause.took_ns);
        }
        self
    }
}
