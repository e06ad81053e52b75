//! Floor 0. Every number that somebody may want to turn, with its unit, its reason and what moves with it.
//!
//! What can be derived is derived; how values fit together is asserted at compile time. Under loom and in the rooms' own
//! tests some capacities shrink, so that the rare path becomes the common one.

/// Is every free checked at the call? Costs a table look-up and an atomic operation per operation.
pub(crate) const CHECKED: bool = cfg!(any(feature = "checked", debug_assertions));

/// Does a free say nothing but an address? So it is in C; in Rust it says the layout too.
pub(crate) const UNSIZED: bool = cfg!(freestone_c);

// ---- records for ourselves -----------------------------------------------------------------------------------------

/// Side tables are mapped in pieces of this size: few system calls, and a multiple of every kernel's page.
pub(crate) const TABLE_GROWTH_BYTES: usize = 64 << 10;

/// Records for ourselves come from chunks of this size. Untouched parts of a chunk cost nothing.
pub(crate) const META_CHUNK_BYTES: usize = 128 << 10;

// ---- size classes --------------------------------------------------------------------------------------------------

/// Up to here a block is small: it may lie in the seed, and sizes find their class by a table of eights.
pub(crate) const SMALL_BYTES_MAX: usize = 1 << 10;
/// Small classes have split magazines (an alloc array and a free array), larger ones a stack. In C all have stacks: with a call around each operation,
/// and more blocks that live briefly, what a stack saves in cache misses weighs more than its few instructions (decision 18).
/// Split arrays cycle through as many blocks as they hold, which costs cache misses once those blocks are large
/// (4 KiB hot loop: 1.5 ns split, 0.9 ns as a stack).
pub(crate) const SPLITS: bool = !UNSIZED;
/// Up to here a class is served by the inlined path; above, blocks are whole page runs.
pub(crate) const STACK_BYTES_MAX: usize = 32 << 10;
/// The largest class. Above come page runs of exact length.
pub(crate) const CLASS_BYTES_MAX: usize = 256 << 10;
/// A span is the shortest that has enough blocks and leaves at most this share (in 1/1000) behind the last one.
pub(crate) const SPAN_TAIL_PERMILLE_MAX: usize = 30;

// ---- thread caches -------------------------------------------------------------------------------------------------

/// Blocks per magazine for classes up to [`SMALL_BYTES_MAX`]. For split ones Measured against 64 (9 % slower on 100k live blocks) and 256 (no
/// faster where it counts, twice the memory).
pub(crate) const MAGAZINE_BLOCKS_MAX: usize = if cfg!(loom) {
    2
} else if UNSIZED {
    1024
} else {
    128
};
/// Slow start: the first magazine of a class. Doubles at every slow entry.
pub(crate) const MAGAZINE_BLOCKS_MIN: usize = if cfg!(loom) { 2 } else { 4 };
/// Slow start of stacks: the first one of a class holds about this many bytes.
pub(crate) const STACK_FIRST_BYTES: usize = 16 << 10;
/// A stack holds about this many bytes …
pub(crate) const STACK_BYTES_TARGET: usize = 64 << 10;
/// … but at least this many blocks: fewer, and programs that alternate between a handful of buffers fall through.
pub(crate) const STACK_BLOCKS_MIN: usize = 8;

/// What a thread may cache before it has earned more: enough for a few classes in use, little enough for 500 threads.
pub(crate) const BUDGET_AT_BIRTH_BYTES: usize = 32 << 10;
/// A thread earns one byte of cache for so many bytes allocated …
pub(crate) const BUDGET_EARNED_PER_BYTES: u64 = if UNSIZED { 8 } else { 32 };
/// … up to this.
pub(crate) const BUDGET_MAX_BYTES: usize = if UNSIZED { 4 << 20 } else { 1 << 20 };
/// Earned budget is leased from the process in pieces of this size.
pub(crate) const LEASE_BYTES: usize = 64 << 10;
/// A class that had no slow entry for so many slow entries of its thread gives its cache up when another one needs the budget.
pub(crate) const IDLE_ENTRIES: u32 = 4096;
/// The process lends at least this much to caches …
pub(crate) const LEND_MIN_BYTES: usize = if UNSIZED { 16 << 20 } else { 4 << 20 };
/// … and to caches and depots together this much: what lies in a depot waits for somebody who needs just that, and in a program with one thread
/// nobody does …
pub(crate) const DEPOT_LEND_MIN_BYTES: usize = 4 << 20;
/// … or this share of what is live, whichever is more.
pub(crate) const LEND_LIVE_SHARE: usize = if UNSIZED { 4 } else { 8 };

/// One exchange in so many is checked block by block. At 16 it costs up to 7 % of a loop that does nothing else, and elsewhere less than can
/// be measured; checking all costs 1.3–1.5 ×.
pub(crate) const EXCHANGE_CHECK_PERIOD: u32 = 16;
/// Of a stack, so many blocks are checked at such an occasion, those that were freed last: a stack is long, and not all of it moves. Where every exchange is
/// checked, twice as many as are allocated between two.
pub(crate) const STACK_CHECK_BLOCKS: usize = 64;
/// A stack has no exchanges; its down-counter is armed with this many allocations, and re-arming counts as an exchange.
pub(crate) const STACK_ARMED: usize = 256;
/// Where every exchange is checked, with at most so many: as often as arrays are exchanged.
pub(crate) const STACK_ARMED_CHECKED: usize = 128;

// ---- depot ---------------------------------------------------------------------------------------------------------

/// Shards of a depot. A power of two; processors share them beyond.
pub(crate) const DEPOT_SHARDS: usize = if cfg!(loom) { 1 } else { 4 };
/// Swap slots of a shard.
pub(crate) const DEPOT_SLOTS: usize = if cfg!(loom) { 1 } else { 2 };
/// A block in a depot takes at least this much of what the process lends. Its pointer costs 8 bytes of metadata, so bytes alone would let
/// depots of the smallest blocks outweigh them: 4 MiB of 16-byte blocks have 2 MiB of magazines.
pub(crate) const DEPOT_CHARGE_BYTES_MIN: usize = 256;
/// A class uses only as many slots of a shard as fit into so many bytes, but always one.
pub(crate) const DEPOT_SLOT_BYTES: usize = 32 << 10;

// ---- samples -------------------------------------------------------------------------------------------------------

/// The zone of sampled blocks may take so much …
pub(crate) const ZONE_MIN_BYTES: usize = 2 << 20;
/// … and this share of what the heap holds: beyond it samples are recorded whose end is not seen.
pub(crate) const ZONE_LIVE_SHARE: usize = 128;
/// Call sites may take so much …
pub(crate) const PROFILE_MEMORY_BYTES: usize = 1536 << 10;
/// … and this share of what the heap holds.
pub(crate) const PROFILE_LIVE_SHARE: usize = 256;

// ---- the seed ------------------------------------------------------------------------------------------------------

/// The first bytes of a heap hold blocks of all small classes side by side (see `central/seed.rs`).
pub(crate) const SEED_BYTES: usize = 128 << 10;

// ---- giving memory back --------------------------------------------------------------------------------------------

/// How often somebody looks whether memory should go back.
pub(crate) const TICK_NS: u64 = 100_000_000;
/// When nothing was to be done for long, it is this long between two looks.
pub(crate) const CALM_TICK_NS: u64 = 1_000_000_000;
/// Free memory of so much is always kept: less is not worth waking up for.
pub(crate) const RETAIN_ALWAYS_BYTES: usize = 1 << 20;
/// Giving back takes so many thousandths of a processor's time at most …
pub(crate) const RELEASE_CPU_PERMILLE: u64 = 10;
/// … over so long.
pub(crate) const RELEASE_CPU_WINDOW_NS: u64 = 60_000_000_000;
/// Whoever gives memory back at leisure does so for this long at a stretch …
pub(crate) const RELEASE_SLICE_NS: u64 = 1_000_000;
/// … and then pauses for this long.
pub(crate) const RELEASE_GAP_NS: u64 = 3_000_000;
/// One call gives back at most so much: 190 µs in small pages, 7 µs in a huge one.
pub(crate) const RELEASE_CALL_BYTES: usize = 2 << 20;
/// Records of dead threads are emptied when nobody adopted them for so many ticks.
pub(crate) const POOLED_RECORD_TICKS: u32 = 10;
/// A thread looks at its own cache every so many ticks: what was not used in between goes back. Free memory within spans must have rested for
/// as many.
pub(crate) const IDLE_TICKS: u32 = 10;
/// Depots and caches of sleeping threads are looked at this often.
pub(crate) const CACHE_ROUND_NS: u64 = 1_000_000_000;
/// A huge page is broken up only when nothing happened in it for so many ticks.
pub(crate) const BREAK_UP_TICKS: u32 = 50;

/// `background:auto` starts a thread once so much was free …
pub(crate) const BACKGROUND_FREE_BYTES: usize = 32 << 20;
/// … for so long, …
pub(crate) const BACKGROUND_FREE_NS: u64 = 1_000_000_000;
/// … or so much at any moment. Where there is to be no thread, who frees that much gives it back. A program that frees 64 MiB leaves so much
/// free for certain; the rest may lie in caches.
pub(crate) const DROP_BYTES: usize = 48 << 20;
/// … and does so again whenever one part in so many of what lives is free as well: few blocks can keep many pages.
pub(crate) const DROP_AGAIN_SHARE: usize = 8;
/// That ends when so much more lives than at the last time.
pub(crate) const DROP_ENDS_BYTES: usize = DROP_BYTES / 4;

/// A drop so soon after another shows that what was dropped was needed after all: the next one waits for as long, then for twice as long …
pub(crate) const DROP_SOON_NS: u64 = 4_000_000_000;
/// … up to this.
pub(crate) const DROP_PAUSE_MAX_NS: u64 = 64_000_000_000;

// ---- limits --------------------------------------------------------------------------------------------------------

/// A thread may spend so much more than half of its time on giving memory back.
pub(crate) const ASSIST_BURST_NS: u64 = 10_000_000;
/// An assist ends after this long.
pub(crate) const ASSIST_SLICE_NS: u64 = 500_000;
/// So many trips of the fuse …
pub(crate) const FUSE_TRIPS: usize = 3;
/// … within this time stick.
pub(crate) const FUSE_WINDOW_NS: u64 = 600_000_000_000;
/// How often files of the kernel's are read: what is resident, and how much programs wait for memory.
pub(crate) const SURROUNDINGS_NS: u64 = 1_000_000_000;
/// Programs that wait for memory for so many percent of the time (`some avg10`) are under pressure.
pub(crate) const PRESSURE_PERCENT: u32 = 10;

// ---- huge pages ----------------------------------------------------------------------------------------------------

/// A new step uses kernel huge pages when the heap has so many bytes …
pub(crate) const HUGE_PAGES_HEAP_BYTES: usize = 40 << 20;
/// … or so many, and it grows in a burst: the last step filled within [`GROWTH_BURST_NS`].
pub(crate) const HUGE_PAGES_BURST_BYTES: usize = 4 << 20;
/// See [`HUGE_PAGES_BURST_BYTES`].
pub(crate) const GROWTH_BURST_NS: u64 = 5_000_000;
/// A burst leaves at most one part in so many of the heap free.
pub(crate) const BURST_GAP_SHARE: usize = 32;
/// A huge page that takes longer than this to come stalls: the small pages it replaces take less.
pub(crate) const HUGE_STALL_NS: u64 = 640_000;
/// So many in a row turn huge pages off …
pub(crate) const HUGE_STALLS_MAX: u32 = 3;
/// … for so long; then one is tried again.
pub(crate) const HUGE_PAUSE_NS: u64 = 5_000_000_000;
/// A single one that takes longer than this means that the kernel is moving memory about …
pub(crate) const HUGE_LONG_STALL_NS: u64 = 5_000_000;
/// … and turns them off for longer.
pub(crate) const HUGE_LONG_PAUSE_NS: u64 = 60_000_000_000;

const _: () = assert!(SMALL_BYTES_MAX < STACK_BYTES_MAX);
const _: () = assert!(STACK_BYTES_MAX < CLASS_BYTES_MAX);
const _: () = assert!(MAGAZINE_BLOCKS_MAX.is_power_of_two());
const _: () = assert!(MAGAZINE_BLOCKS_MIN.is_power_of_two());
const _: () = assert!(MAGAZINE_BLOCKS_MIN <= MAGAZINE_BLOCKS_MAX);
