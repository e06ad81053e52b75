//! What the workloads say they do, they do: the compiler has not removed it.
//!
//! Rust may drop an allocation together with its free when nobody looks at the block in between. A benchmark whose operations are gone
//! measures an empty loop, and all allocators look alike. So every workload runs here on an allocator that counts, and the count is compared
//! with what the workload claims.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use freestone_bench::workload::{self, Context};

/// Counts what passes through it. The order of counts does not matter: they are read when the threads are gone.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static FREES: AtomicU64 = AtomicU64::new(0);
static REALLOCATIONS: AtomicU64 = AtomicU64::new(0);
/// Allocations are counted from this size on …
static LEAST: AtomicUsize = AtomicUsize::new(0);
/// … up to this one.
static MOST: AtomicUsize = AtomicUsize::new(usize::MAX);

fn is_counted(layout: Layout) -> bool {
    (LEAST.load(Ordering::Relaxed)..=MOST.load(Ordering::Relaxed)).contains(&layout.size())
}

// SAFETY: everything is `System`'s.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_counted(layout) {
            ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_counted(layout) {
            ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if is_counted(layout) {
            FREES.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        REALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(block, layout, size) }
    }
}

#[global_allocator]
static GLOBAL: Counting = Counting;

/// What a workload claims of each of its operations.
struct Claim {
    workload: &'static str,
    /// So many allocations, and as many frees …
    allocations: u64,
    /// … of blocks from this size …
    least: usize,
    /// … to that.
    most: usize,
    reallocations: u64,
}

/// One allocation and one free.
const fn one(workload: &'static str, least: usize, most: usize) -> Claim {
    Claim { workload, allocations: 1, least, most, reallocations: 0 }
}

const CLAIMS: &[Claim] = &[
    // A document has dozens of strings, arrays and maps.
    Claim { allocations: 30, ..one("real-json", 1, usize::MAX) },
    one("real-index", 1, 64),
    one("real-btree", 1, 64),
    Claim { allocations: 10, ..one("real-documents", 1, usize::MAX) },
    one("hot-64", 64, 64),
    one("hot-4k", 4096, 4096),
    one("runtime-64", 64, 64),
    one("batch-100", 64, 64),
    one("batch-10k", 64, 64),
    one("random-1k", 8, 1024),
    one("random-1k-read", 8, 1024),
    one("random-100k", 8, 1024),
    one("random-100k-read", 8, 1024),
    one("random-1m", 8, 1024),
    one("random-1m-read", 8, 1024),
    one("strings", 1, 64),
    one("hash-of-boxes", 48, 48),
    // 4 words at first; then 8, 16, … 1024.
    Claim { reallocations: 8, ..one("vec-grow-1k", 32, usize::MAX) },
    // … 2²⁰.
    Claim { reallocations: 18, ..one("vec-grow-1m", 32, usize::MAX) },
    one("cold-growth", 64, 64),
    one("zeroed", 1 << 10, 1 << 20),
    one("large", 33 << 10, 400 << 10),
    one("xlarge", 1 << 20, 16 << 20),
    one("small-program", 8, 1024 + 8),
    Claim { allocations: 0, ..one("empty-program", 0, usize::MAX) },
    one("handover", 64, 64),
    one("channel", 64, 64),
    one("larson-1", 16, 512),
    one("larson-2", 16, 512),
    one("larson-4", 16, 512),
    one("larson-8", 16, 512),
    Claim { allocations: 20, ..one("thread-birth", 16, 2048) },
    one("latency-small", 8, 1024),
    one("latency-threads", 8, 1024),
    Claim { reallocations: 1, ..one("latency-large", 32 << 10, 4 << 20) },
    Claim { allocations: 40, ..one("latency-open", 16, 4 << 10) },
    one("burst-idle-64m-small", 8, 1024),
    one("burst-idle-64m-mixed", 8, 8 + (1 << 17)),
    one("burst-idle-64m-large", 256 << 10, 8 << 20),
    one("burst-idle-64m-scattered", 8, 1024),
    one("burst-idle-1g-small", 8, 1024),
    one("burst-idle-1g-mixed", 8, 8 + (1 << 17)),
    one("burst-idle-1g-large", 256 << 10, 8 << 20),
    one("burst-idle-1g-scattered", 8, 1024),
    one("burst-idle-1g-around", 8, 8 + (1 << 17)),
    one("saw-tooth", 8, 8 + (1 << 11)),
    one("limit-under-load", 16, 32 << 10),
    one("limit-under-load-free", 16, 32 << 10),
    one("limit-below-live", 16, 32 << 10),
    one("many-idle-threads", 16, 4 << 10),
    one("many-idle-threads-told", 16, 4 << 10),
    one("purge-policies", 16, 32 << 10),
    Claim { allocations: 40, ..one("load-curve", 16, 32 << 10) },
];

/// Small ones, of the same form as the harness prepares.
fn inputs() -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("small-inputs");
    fs::create_dir_all(&folder).expect("cargo gives tests a folder");
    let packages: Vec<_> = (0..20)
        .map(|index| serde_json::json!({ "name": format!("package-{index}"), "targets": ["lib", "bin"], "features": { "default": [] } }))
        .collect();
    let metadata = serde_json::json!({ "packages": packages, "version": 1 });
    fs::write(folder.join(workload::real::METADATA), metadata.to_string()).expect("the folder is writable");
    let lines: Vec<String> = (0..200).map(|index| format!("fn number_{index}() -> u32 {{ one_more({index}) }}")).collect();
    fs::write(folder.join(workload::real::SOURCES), lines.join("\n")).expect("the folder is writable");
    folder
}

#[test]
fn every_workload_does_what_it_says() {
    let context = Context { percent: 1, inputs: inputs(), ..Context::default() };
    let claimed: Vec<&str> = CLAIMS.iter().map(|claim| claim.workload).collect();
    // A service needs a client, whose binary lies beside the subjects'; that its operations happen, the client sees (`service.rs`).
    let all: Vec<&str> = workload::all().filter(|workload| !workload.is_service()).map(|workload| workload.name).collect();
    assert_eq!(claimed, all, "every workload has a claim");

    for claim in CLAIMS {
        let workload = workload::by_name(claim.workload).expect("compared above");
        LEAST.store(claim.least, Ordering::Relaxed);
        MOST.store(claim.most, Ordering::Relaxed);
        let read = || [&ALLOCATIONS, &FREES, &REALLOCATIONS].map(|count| count.load(Ordering::Relaxed));
        let before = read();
        let outcome = (workload.run)(&context);
        let after = read();
        let [allocations, frees, reallocations] = [0, 1, 2].map(|index| after[index] - before[index]);
        let (name, operations) = (claim.workload, outcome.operations);
        assert!(operations > 0, "{name} does something");
        assert!(allocations >= operations * claim.allocations, "{name}: {allocations} allocations in {operations} operations");
        assert!(frees >= operations * claim.allocations, "{name}: {frees} frees in {operations} operations");
        assert!(
            reallocations >= operations * claim.reallocations,
            "{name}: {reallocations} reallocations in {operations} operations"
        );

        // In the same test, because tests run at the same time and share the counts.
        let again = (workload.run)(&context);
        assert_eq!(
            (outcome.operations, outcome.checksum),
            (again.operations, again.checksum),
            "{name} computes the same every time"
        );
    }
}
