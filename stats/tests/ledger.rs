//! The ledger of a program that runs on Freestone: this one. It closes, its estimates hold, and it says whose memory is whose.

use std::hint::black_box;
use std::sync::Barrier;
use std::thread;

use freestone::Freestone;
use freestone_stats::{Ledger, Part};

#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

const MIB: u64 = 1 << 20;

/// One after the other: each looks at the whole process.
#[test]
fn the_ledger_says_where_every_byte_is() {
    what_was_asked_for_is_estimated();
    memory_that_nobody_knows_is_unexplained_until_it_has_a_name();
    what_was_not_touched_is_not_resident();
    threads_have_names();
}

fn bytes(ledger: &Ledger, key: &str) -> i64 {
    ledger.lines().iter().find(|line| line.key == key).unwrap_or_else(|| panic!("no line {key}")).bytes
}

fn sum(ledger: &Ledger, part: Part) -> i64 {
    ledger.lines().iter().filter(|line| line.part == part).map(|line| line.bytes).sum()
}

fn check(ledger: &Ledger) {
    let heap = &ledger.snapshot.heap.bytes;
    assert_eq!(sum(ledger, Part::Heap), heap.committed() as i64, "{ledger}");
    assert_eq!(sum(ledger, Part::Heap) + sum(ledger, Part::GivenBack), heap.reserved() as i64, "{ledger}");
    assert_eq!(Some(sum(ledger, Part::Resident)), ledger.process.resident.map(|bytes| bytes as i64), "{ledger}");
    assert_eq!(bytes(ledger, "live") + bytes(ledger, "slack"), heap.live as i64, "{ledger}");
}

fn what_was_asked_for_is_estimated() {
    let mut asked: u64 = 0;
    let mut blocks: Vec<Vec<u8>> = Vec::with_capacity(300_000);
    for number in 0..300_000_usize {
        // Mostly small ones, of every size; now and then one beyond the classes.
        let length = 1 + number.wrapping_mul(2_654_435_761) % if number % 5000 == 0 { 600_000 } else { 900 };
        asked += length as u64;
        blocks.push(Vec::with_capacity(length));
    }
    asked += (blocks.capacity() * size_of::<Vec<u8>>()) as u64;
    let ledger = freestone_stats::ledger();
    check(&ledger);
    let line = *ledger.lines().iter().find(|line| line.key == "live").expect("a line");
    let error = line.error_bytes.expect("it is an estimate");
    assert!(error < asked / 20, "± {error} of {asked}");
    // Three of its 95 % intervals, and what the test itself holds.
    let off = line.bytes.abs_diff(asked as i64);
    assert!(off <= 3 * error + (64 << 10), "{asked} were asked for, {off} off:\n{ledger}");
    drop(blocks);
}

fn memory_that_nobody_knows_is_unexplained_until_it_has_a_name() {
    let before = freestone_stats::ledger();
    check(&before);
    let mut own = memmap2::MmapMut::map_anon(32 * MIB as usize).expect("a mapping");
    own.fill(1);
    let with = freestone_stats::ledger();
    check(&with);
    let grown = bytes(&with, "unexplained") - bytes(&before, "unexplained");
    assert!(grown.abs_diff(32 * MIB as i64) < MIB, "{grown}\n{with}");
    let (range, resident) = with.process.largest_unexplained.first().expect("there is one").clone();
    assert!(range.contains(&own.as_ptr().addr()) && resident >= 32 * MIB, "{with}");
    assert!(with.to_string().contains("  Unexplained: 32."), "{with}");
    // SAFETY: gives a mapping of ours a name.
    let status = unsafe { libc::prctl(libc::PR_SET_VMA, libc::PR_SET_VMA_ANON_NAME, own.as_ptr(), own.len(), c"test".as_ptr()) };
    if status != 0 {
        println!("SKIPPED: this kernel gives no names to mappings");
        return;
    }
    let named = freestone_stats::ledger();
    check(&named);
    assert_eq!(bytes(&named, "named"), 32 * MIB as i64, "{named}");
    assert!(bytes(&named, "unexplained") < MIB as i64, "{named}");
}

fn what_was_not_touched_is_not_resident() {
    let reserved: Vec<u8> = Vec::with_capacity(256 * MIB as usize);
    let ledger = freestone_stats::ledger();
    check(&ledger);
    assert!(bytes(&ledger, "live") >= 256 * MIB as i64);
    assert!(ledger.process.heap < Some(200 * MIB), "{ledger}");
    black_box(reserved);
}

fn threads_have_names() {
    const THREADS: usize = 50;
    let (there, seen) = (&Barrier::new(THREADS + 1), &Barrier::new(THREADS + 1));
    thread::scope(|scope| {
        for nth in 0..THREADS {
            let work = move || {
                // Those with the most in their caches have allocated the least.
                (0..(THREADS - nth) * 100).for_each(|number| drop(black_box(Box::new(number))));
                let blocks: Vec<Box<[u8; 64]>> = (0..nth * 20).map(|_| Box::new([1; 64])).collect();
                drop(black_box(blocks));
                there.wait();
                seen.wait();
            };
            thread::Builder::new().name(format!("worker {nth}")).spawn_scoped(scope, work).expect("a thread");
        }
        there.wait();
        let threads = freestone_stats::threads();
        assert!(threads.is_sorted_by_key(|thread| std::cmp::Reverse(thread.cached_bytes)), "{threads:#?}");
        for nth in 0..THREADS {
            let name = format!("worker {nth}");
            let thread = threads.iter().find(|thread| thread.name.as_ref() == Some(&name)).expect("a thread of that name");
            assert!(thread.id.is_some() && thread.allocations >= nth as u64 * 20, "{thread:?}");
            let text = thread.to_string();
            assert!(text.contains(&name) && text.contains(" cached in ") && !text.contains('\n'), "{text}");
        }
        let unique: std::collections::BTreeSet<_> = threads.iter().filter_map(|thread| thread.id).collect();
        assert!(unique.len() > THREADS);
        seen.wait();
    });
}
