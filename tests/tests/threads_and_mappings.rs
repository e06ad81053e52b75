//! Who wants to tell the heap's memory from other memory, and one thread's doings from another's, can: every block lies in a range that the
//! heap says is its own, no block of the system's does, and what threads did is what they are said to have done.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::ops::Range;
use std::sync::Barrier;
use std::thread;

use freestone::{Freestone, ThreadSnapshot};

#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

/// Room for more than there are.
const PLACES: usize = 64;

fn mappings() -> Vec<Range<usize>> {
    let mut found = [const { 0..0 }; PLACES];
    let mut count = 0;
    freestone::each_mapping(|range| {
        found[count] = range;
        count += 1;
    });
    found[..count].to_vec()
}

fn is_ours(address: *const u8) -> bool {
    mappings().iter().any(|range| range.contains(&address.addr()))
}

fn here() -> ThreadSnapshot {
    // SAFETY: asks for a number.
    let id = unsafe { libc::gettid() } as u32;
    let mut threads = [ThreadSnapshot::default(); PLACES];
    let count = freestone::threads(&mut threads);
    assert!(count <= PLACES);
    *threads[..count].iter().find(|thread| thread.id == id).expect("this thread has allocated")
}

/// One after the other: each looks at the whole process.
#[test]
fn the_heap_knows_what_is_its_own_and_who_did_what() {
    every_block_lies_in_a_mapping_and_no_other_does();
    threads_did_what_they_did();
    there_may_be_more_than_there_is_room_for();
}

fn every_block_lies_in_a_mapping_and_no_other_does() {
    // The last one fits no window.
    for bytes in [1, 100, 5_000, 100_000, 1 << 20, 1 << 30, 3 << 40] {
        let layout = Layout::from_size_align(bytes, 8).expect("a layout");
        // SAFETY: not a layout of nothing.
        let block = unsafe { GLOBAL.alloc(layout) };
        if block.is_null() {
            assert!(bytes > 1 << 30, "{bytes} bytes were refused");
            continue;
        }
        assert!(is_ours(block), "{bytes} bytes at {block:?}");
        assert!(is_ours(block.wrapping_add(bytes - 1)), "{bytes} bytes at {block:?}");
        // SAFETY: allocated above.
        unsafe { GLOBAL.dealloc(block, layout) };
        // SAFETY: as above.
        let foreign = unsafe { System.alloc(Layout::new::<[u64; 100]>()) };
        assert!(!is_ours(foreign));
        // SAFETY: as above.
        unsafe { System.dealloc(foreign, Layout::new::<[u64; 100]>()) };
    }
    let on_the_stack = 0_u8;
    assert!(!is_ours(&raw const on_the_stack));
    assert!(!is_ours(black_box(is_ours as fn(*const u8) -> bool) as *const u8));
    // The tables for many threads' records are in chunks of their own.
    let pooled = freestone::snapshot().bytes.metadata;
    assert!(pooled > 0 && mappings().len() >= 2, "{:?}", mappings());
}

fn threads_did_what_they_did() {
    const BLOCKS: u64 = 10_000;
    const BYTES: u64 = 320;
    let (allocated, seen) = (&Barrier::new(4), &Barrier::new(4));
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(move || {
                let before = here();
                let mut blocks: Vec<Box<[u64; BYTES as usize / 8]>> = Vec::with_capacity(BLOCKS as usize);
                blocks.extend((0..BLOCKS).map(|number| Box::new([number; BYTES as usize / 8])));
                black_box(&blocks);
                let mut since = here();
                since.allocations -= before.allocations;
                since.allocated_bytes -= before.allocated_bytes;
                // The array of boxes is one block more; up to 256 KiB it is counted here.
                assert_eq!(since.allocations, BLOCKS + 1, "{since:?}");
                assert!(since.allocated_bytes >= BLOCKS * (BYTES + 8), "{since:?}");
                assert!(since.allocated_bytes <= BLOCKS * (BYTES + 8) + (16 << 10), "{since:?}");
                assert_eq!(since.frees, before.frees);
                allocated.wait();
                seen.wait();
                drop(blocks);
                let after = here();
                assert_eq!(after.frees - since.frees, BLOCKS + 1, "{after:?}");
                assert!(after.cached_blocks > 0 && after.cached_bytes >= after.cached_blocks * 8, "{after:?}");
            });
        }
        allocated.wait();
        let mut threads = [ThreadSnapshot::default(); PLACES];
        let count = freestone::threads(&mut threads);
        let now = freestone::snapshot();
        let mut stacks: Vec<usize> = threads[..count].iter().filter(|thread| thread.id != 0).map(|thread| thread.tls).collect();
        stacks.sort_unstable();
        stacks.dedup();
        assert!(stacks.len() >= 4 && stacks[0] != 0, "every thread has its own: {stacks:x?}");
        let cached: u64 = threads[..count].iter().map(|thread| thread.cached_bytes).sum();
        if !now.approximate {
            // Nobody else is awake, and this thread has looked at both without allocating.
            assert_eq!(cached, now.bytes.thread_cached as u64);
        }
        seen.wait();
    });
    // A scope ends with its threads' work, a little before the threads.
    let mut threads = [ThreadSnapshot::default(); PLACES];
    let mut count = 0;
    for _ in 0..10_000 {
        count = freestone::threads(&mut threads);
        if threads[..count].iter().filter(|thread| thread.id == 0).count() >= 3 {
            break;
        }
        thread::sleep(std::time::Duration::from_millis(1));
    }
    let ended = threads[..count].iter().filter(|thread| thread.id == 0).count();
    assert!(ended >= 3, "{ended} of {count} have ended");
    assert!(threads[..count].iter().all(|thread| (thread.id == 0) == (thread.tls == 0)));
}

fn there_may_be_more_than_there_is_room_for() {
    let count = freestone::threads(&mut []);
    let mut one = [ThreadSnapshot::default()];
    assert!(count >= 4);
    assert_eq!(freestone::threads(&mut one), count);
    assert_ne!(one[0], ThreadSnapshot::default());
}
