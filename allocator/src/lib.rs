//! Floor 12. Freestone: a global allocator cut from mmap'd pages, with thread caches in front and exact numbers inside.
//!
//! ```
//! use freestone::Freestone;
//!
//! #[global_allocator]
//! static GLOBAL: Freestone = Freestone::new();
//!
//! let words: Vec<String> = "so much and no more".split(' ').map(str::to_owned).collect();
//! let heap = freestone::snapshot();
//! assert!(heap.live_blocks() > words.len() as u64);
//! ```
//!
//! [`Freestone`] is what a program registers, [`snapshot()`] what it reads, [`control`] what it may ask for. The rest of this page is a
//! tour of the house, for who wants to know what happens behind these three doors, or to change it.
//!
//! # The cast
//!
//! A program gets **blocks**. A block belongs to a **size class** (8, 16, 24 … 256 KiB) or has pages of its own. Blocks of a class are
//! cut from a **span**, a run of 8 KiB **pages**; spans are packed into **steps** of 2 MiB; steps are mapped one after the other into the
//! **window**, a stretch of address space. Free blocks travel in **magazines**, arrays of up to 128 pointers. Nothing is ever
//! written into a free block, and no block has an owner: whichever thread frees it keeps it for its own next allocation.
//!
//! # One allocation
//!
//! `Box::new([0_u64; 8])` asks for 64 bytes. The layout is a constant, so the class is one too.
//!
//! 1. **Thread cache.** One thread-local word says where the thread's slots are; the slot of the class points into the *alloc array*. Is the
//!    array not used up, the block is its next entry: seven instructions, and we are done (`slot`).
//! 2. Used up: the thread's *free array*, into which it has been freeing, takes its place. A dozen instructions, once per array
//!    (`thread_cache`).
//! 3. Nothing there either: a full magazine from the **depot**, where threads that free leave what threads that allocate need. One
//!    atomic exchange (`depot`).
//! 4. Nothing there: **central** has the spans of the class, and takes free blocks from the fullest one, lowest address first, so that the
//!    others may run empty (`central`). A program that is still small gets its blocks from the **seed** instead, 128 KiB in which
//!    the classes lie side by side.
//! 5. No span has any: the **page heap** cuts a new one out of the fullest step that has room (`page_heap`).
//! 6. No step has room: the **system** maps the next one (`os`), small pages at first, huge pages once the heap is large or in a hurry.
//!
//! # One free
//!
//! `drop` brings the 64 bytes back, with their layout.
//!
//! 1. One bit of the address says whether the block was *sampled*; it was not. The class is a constant again. Has the free array room, the
//!    block is its next entry: nine instructions.
//! 2. Full: the two arrays change places if the other one is used up. Now and then the array is checked on this occasion.
//! 3. Else the full magazine goes to the depot, and an empty one comes back.
//! 4. The depot holds what it may: the blocks go to central, which finds their spans through a flat table, checks each one (a start of a block?
//!    of this class? not free already?) and sets its bit.
//! 5. A span whose blocks are all back goes to the page heap, which joins it with its neighbours.
//! 6. Ten times a second somebody compares what is free with what the last seconds needed; what lies above goes back to the system: by a
//!    thread of our own that is started once there is much of it (`background`), else by threads on their slow paths (`scavenger`).
//! 7. A thread that sleeps sits on what it cached. After a second or two others take that too (`recall`).
//!
//! Both walks only go down, and enter each room once, but for these last two steps, which somebody else takes later. Near a limit on memory
//! he comes at once (`limit`, `guard`).
//!
//! # Floors
//!
//! A file imports only from floors below its own; the first line of each says which that is, and a test holds everybody to it.
//!
//! ```text
//!  13  preload/src: the face for C, in builds for it
//!  12  lib · global_alloc (face for programs) · control (face for operators) · profile (face for who reads profiles)
//!  11  heap: the statics, a thread's birth and death, fork, what the background thread does
//!  10  trace (what happens, in lines of text)
//!   9  scavenger (what goes back, and when) · snapshot · thread_snapshot
//!   8  word (where a thread's slots are) · recall (caches of sleeping threads) · guard (limits in force)
//!   7  thread_cache: fast and slow paths, records, their registry
//!   6  supply: the shared rooms of one heap, and the way a magazine takes through them · rooms (doors for benchmarks)
//!   5  depot · central · slot · large · sampling
//!   4  page_heap: steps, runs of pages, huge slots · zero (`malloc(0)`)
//!   3  span: page table, page records, bitmaps · magazine · meta (memory for ourselves) · requests ·
//!      anomaly (what a heap should not be doing) · site (what profiles are made of)
//!   2  size_class · counters · pauses · sync (a lock) · retention, limit (decisions) · background (a thread) · surroundings (what the
//!      kernel says) · fatal (last words) · frames (where a call came from)
//!   1  os: the system, real or simulated · histogram · chance · system_heap (the allocator it came with)
//!   0  units · config (every tunable) · options · atomic · probes (what tracers can attach to) ·
//!      line (a line of text)
//! ```
//!
//! Pictures are in `docs/architecture.md`, every knob in `docs/tuning.md`; what `unsafe` code relies on is in `docs/invariants.md`, who
//! synchronises with whom in `docs/orderings.md`, why things are as they are in `docs/decisions/`.
#![cfg_attr(not(test), no_std)]
// Only the thread-local word and tests use it; without its prelude nothing here allocates by accident.
#[allow(unused_extern_crates)]
// Where nothing unwinds it would bring nothing but its weight into every process.
#[cfg(not(all(freestone_initial_exec, panic = "abort")))]
extern crate std;

cfg_select! {
    // Models explore the rooms that hand things over without waiting for each other; the others do not build on loom's atomics.
    loom => {
        mod atomic;
        mod central {
            pub(crate) mod combining;
        }
        mod config;
        mod depot;
        mod magazine;
        mod os;
        mod sync;
        mod thread_cache {
            pub(crate) mod registry;
        }
    }
    _ => {
        pub mod anomaly;
        mod atomic;
        mod background;
        #[cfg(freestone_c)]
        #[path = "../preload/src/mod.rs"]
        mod c;
        mod central;
        mod chance;
        mod config;
        pub mod control;
        mod counters;
        mod depot;
        mod fatal;
        #[allow(dead_code, unused_imports, unused_macros, reason = "until samples are taken")]
        mod frames;
        mod global_alloc;
        mod guard;
        mod heap;
        mod histogram;
        mod large;
        mod line;
        mod magazine;
        mod meta;
        mod limit;
        mod options;
        mod os;
        mod page_heap;
        mod pauses;
        mod probes;
        pub mod profile;
        mod recall;
        mod requests;
        mod retention;
        #[cfg(feature = "rooms")]
        #[doc(hidden)]
        pub mod rooms;
        mod sampling;
        mod scavenger;
        mod site;
        mod size_class;
        mod slot;
        mod snapshot;
        mod span;
        mod supply;
        mod surroundings;
        mod sync;
        mod thread_cache;
        mod thread_snapshot;
        mod trace;
        mod units;
        mod system_heap;
        mod word;
        #[cfg(any(freestone_c, test))]
        mod zero;

        pub use global_alloc::Freestone;
        pub use guard::LimitSnapshot;
        pub use histogram::{SlowPath, SlowPathSnapshot, TIME_BUCKETS};
        pub use options::{Background, Check, Foreign, Fuse, HugePages, Limit, Options, Retain, Trace, ZeroSize};
        pub use pauses::{PAUSES_KEPT, Pause, PauseKind, PauseSummary};
        pub use requests::RequestSamples;
        pub use snapshot::{Bytes, CLASSES, ClassSnapshot, Events, LargeSnapshot, SPANS_BY_FREE, Snapshot};
        pub use thread_snapshot::ThreadSnapshot;
    }
}

/// The allocator's numbers of this moment: what was allocated and freed, where every byte is, what the slow paths did.
///
/// Reads what is there, without stopping anybody: shared locks are held one at a time, for as long as it takes to read a few numbers. A
/// thread at work meanwhile may make parts of it [`approximate`](Snapshot::approximate). Allocates nothing. Costs 5 µs, and 0.1 to 0.5 µs for every thread:
/// to be asked every second, not for every request.
///
/// A process in which Freestone is not registered sees zeros; so does, with `approximate`, a signal handler that interrupted the allocator.
#[must_use]
#[cfg(not(loom))]
pub fn snapshot() -> Snapshot {
    heap::take_snapshot()
}

/// The latest slow paths that took longer than 100 µs, and the latest releases of memory, oldest first: at most [`PAUSES_KEPT`] of them.
/// Fills `into` from its start and says how many there were. Allocates nothing, takes no lock.
#[must_use]
#[cfg(not(loom))]
pub fn recent_pauses(into: &mut [Pause]) -> usize {
    heap::recent_pauses(into)
}

/// What the process has in memory, and how much of that is backed by files or shared with others, in bytes: the kernel's quick count, which
/// may be off by some pages per thread. `None`: `/proc` cannot be read. Allocates nothing; opens, reads and closes a small file, some microseconds.
#[must_use]
#[cfg(not(loom))]
pub fn resident() -> Option<[usize; 2]> {
    surroundings::resident()
}

/// The threads that have allocated, and the caches of ended ones that wait for the next, newest first: fills `into` from its start, and says how
/// many there are, which may be more than there was room for. Allocates nothing, takes no lock; some 0.3 µs a thread.
///
/// # Examples
///
/// ```
/// let mut threads = [freestone::ThreadSnapshot::default(); 64];
/// let count = freestone::threads(&mut threads);
/// let cached: u64 = threads.iter().take(count).map(|thread| thread.cached_bytes).sum();
/// println!("{count} threads have {cached} bytes in their caches");
/// ```
#[must_use]
#[cfg(not(loom))]
pub fn threads(into: &mut [ThreadSnapshot]) -> usize {
    heap::threads(into)
}

/// What the calling thread did, and what it caches: exactly, if nobody else takes what it caches just then. `None` before its first allocation, and in
/// the last of its destructors. Its counts go on from those of an ended thread whose cache it took over, so it is differences that matter.
///
/// # Examples
///
/// ```
/// # use std::hint::black_box;
/// # #[global_allocator]
/// # static GLOBAL: freestone::Freestone = freestone::Freestone::new();
/// # let _first = black_box(Box::new(1));
/// let before = freestone::this_thread().expect("this thread has allocated");
/// let block = black_box(Box::new([0_u64; 4]));
/// let after = freestone::this_thread().expect("this thread has allocated");
/// assert_eq!(after.allocations - before.allocations, 1);
/// assert_eq!(after.allocated_bytes - before.allocated_bytes, 32);
/// # drop(block);
/// ```
#[must_use]
#[cfg(not(loom))]
pub fn this_thread() -> Option<ThreadSnapshot> {
    heap::this_thread()
}

/// Blocks that the calling thread has allocated, and their bytes, as [`this_thread`] tells them, in a fraction of the time: for who asks at every step.
#[must_use]
#[doc(hidden)]
#[cfg(not(loom))]
pub fn thread_allocated() -> Option<[u64; 2]> {
    heap::thread_allocated()
}

/// Calls `each` for every range of addresses in which all that is mapped is the heap's: first the window and its tables, of which only a small
/// part is mapped, then what lies outside of them. For who wants to tell the heap's memory from other memory of the process.
///
/// `each` must neither allocate nor free: locks of the heap may be held.
#[cfg(not(loom))]
pub fn each_mapping(mut each: impl FnMut(core::ops::Range<usize>)) {
    heap::each_mapping(&mut each);
}

/// Memory that this process may have, in bytes: the machine's, or what the control group or one above it allows (version 2), whichever is
/// less. `None`: nobody can say. Allocates nothing; reads some small files.
#[must_use]
#[cfg(not(loom))]
pub fn memory_bytes() -> Option<usize> {
    surroundings::memory_bytes()
}
