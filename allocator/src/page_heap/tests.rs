use super::*;
use crate::config::{HUGE_PAUSE_NS, HUGE_STALL_NS, HUGE_STALLS_MAX};
use crate::os::sim::{Plan, World};
use std::collections::BTreeMap;

/// A page heap and a store of records, for good: their mappings outlive them.
fn heap() -> (&'static PageHeap, &'static Meta) {
    (Box::leak(Box::new(PageHeap::new())), Box::leak(Box::new(Meta::new())))
}

fn fill(address: usize, bytes: usize, byte: u8) {
    // SAFETY: the test took this memory from the page heap under test.
    unsafe { os::pointer(address).write_bytes(byte, bytes) };
}

fn is_filled(address: usize, bytes: usize, byte: u8) -> bool {
    // SAFETY: as in `fill`.
    unsafe { core::slice::from_raw_parts(os::pointer(address), bytes) }.iter().all(|&found| found == byte)
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        ((self.0 >> 33) as usize) % bound
    }
}

#[test]
fn a_run_is_zero_at_first_and_its_pages_belong_to_nobody_else() {
    let world = World::new();
    let _here = world.enter();
    let (heap, _) = heap();
    let first = heap.take_run(3, 1, Zone::Window).expect("memory is there");
    let second = heap.take_run(256, 1, Zone::Window).expect("memory is there");
    for run in [first, second] {
        let (address, bytes) = (heap.table.address(run.page), run.pages as usize * PAGE_BYTES);
        assert!(run.zeroed);
        assert!(is_filled(address, bytes, 0));
        fill(address, bytes, 0xa5);
        assert_eq!(heap.table.locate(address), Some(run.page));
        assert_eq!(heap.table.locate(address + bytes - 1), Some(run.page.plus(run.pages - 1)));
    }
    heap.give_run(first.page, first.pages);
    let again = heap.take_run(3, 1, Zone::Window).expect("memory is there");
    assert!(!again.zeroed, "its content is still there");
    heap.check();
}

/// A huge block chooses the region, whose first step belongs to the window.
#[test]
fn the_first_run_of_all_may_be_a_sampled_one() {
    let (heap, meta) = heap();
    let huge = heap.take_huge(8 << 20, 1, meta).expect("memory is there");
    let sampled = heap.take_run(2, 1, Zone::Sampled).expect("memory is there");
    let ordinary = heap.take_run(2, 1, Zone::Window).expect("memory is there");
    for run in [sampled, ordinary] {
        fill(heap.table.address(run.page), 2 * PAGE_BYTES, 0x5a);
        heap.give_run(run.page, 2);
    }
    assert_eq!(heap.give_huge(huge.address.addr().get()), Ok(8 << 20));
    heap.check();
}

/// While one thread unmaps what lies behind the program's bytes, the program may give its block back or change it.
#[test]
fn a_block_may_be_freed_and_resized_while_it_is_trimmed() {
    let (heap, meta) = heap();
    let done = core::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(core::sync::atomic::Ordering::Relaxed) {
                heap.release_all(Rested { until: heap.tick(), broken_until: heap.tick().wrapping_sub(1 << 30) });
            }
        });
        for round in 0..2_000 {
            let block = heap.take_huge(12 << 20, 1, meta).expect("memory is there");
            let address = block.address.addr().get();
            fill(address + (11 << 20), 4096, 0x5a);
            let resized = heap.resize_huge(address, 3 << 20).expect("it is live");
            if round % 3 == 0 {
                heap.resize_huge(address, 9 << 20).expect("it is live");
            }
            let size = heap.give_huge(address).expect("it is live");
            assert!(resized.is_none() || size <= 12 << 20);
            assert_eq!(heap.give_huge(address), Err(NotLive::Free));
        }
        done.store(true, core::sync::atomic::Ordering::Relaxed);
    });
    heap.check();
    assert_eq!(heap.in_use(), 0);
}

#[test]
fn the_sampled_zone_is_told_by_one_bit() {
    let (heap, _) = heap();
    let ordinary = heap.take_run(2, 1, Zone::Window).expect("memory is there");
    let sampled = heap.take_run(2, 1, Zone::Sampled).expect("memory is there");
    assert!(!crate::units::in_sampled_zone(heap.table.address(ordinary.page)));
    assert!(crate::units::in_sampled_zone(heap.table.address(sampled.page)));
    assert_eq!(heap.table.locate(heap.table.address(sampled.page)), Some(sampled.page));
    heap.give_run(sampled.page, 2);
    heap.give_run(ordinary.page, 2);
    heap.check();
    assert_eq!(heap.bytes().runs, 0);
}

#[test]
fn addresses_of_others_are_not_ours() {
    let (heap, _) = heap();
    assert_eq!(heap.table.locate(0x1000), None, "before the region is chosen");
    let run = heap.take_run(1, 1, Zone::Window).expect("memory is there");
    let start = heap.table.address(PageIndex(0));
    let local = 0_u8;
    for address in [0, 8, usize::MAX, start - 1, (&raw const local).addr(), start + WINDOW_BYTES, start + 64 * STEP_BYTES] {
        assert_eq!(heap.table.locate(address), None, "{address:#x}");
    }
    heap.give_run(run.page, 1);
}

#[test]
fn a_step_of_somebody_else_is_skipped() {
    let (heap, _) = heap();
    let first = heap.take_run(256, 1, Zone::Window).expect("memory is there");
    let next = heap.table.address(first.page) + STEP_BYTES;
    os::map_at(next, PAGE_BYTES).expect("the test takes a page of the next step");
    let second = heap.take_run(256, 1, Zone::Window).expect("memory is there");
    assert_eq!(heap.table.address(second.page), next + STEP_BYTES);
    // SAFETY: mapped above, by this test.
    assert!(unsafe { os::unmap(next, PAGE_BYTES) });
    heap.check();
}

#[test]
fn what_is_released_is_gone_and_comes_back_as_zero() {
    let world = World::new();
    let _here = world.enter();
    let (heap, _) = heap();
    // Huge pages would bring more memory than what is taken.
    heap.set_huge_pages(HugePages::Never);
    let runs: Vec<Run> = (0..8).map(|_| heap.take_run(100, 1, Zone::Window).expect("memory is there")).collect();
    for run in &runs {
        fill(heap.table.address(run.page), 100 * PAGE_BYTES, 0xff);
    }
    for run in &runs[1..] {
        heap.give_run(run.page, run.pages);
    }
    let dirty = heap.free();
    assert_eq!(dirty, 7 * 100 * PAGE_BYTES);
    let first = heap.release_some(Rested::any(0), false).expect("there is something");
    assert!(first > 0 && first < dirty, "one call: {first} of {dirty}");
    assert_eq!(first + heap.release_all(Rested::any(0)), dirty);
    assert_eq!(heap.free(), 0);
    assert!(is_filled(heap.table.address(runs[0].page), 100 * PAGE_BYTES, 0xff), "what is in use is untouched");
    let again = heap.take_run(100, 1, Zone::Window).expect("memory is there");
    assert!(again.zeroed);
    assert!(is_filled(heap.table.address(again.page), 100 * PAGE_BYTES, 0));
    heap.check();
}

#[test]
fn a_warm_slot_whose_room_somebody_else_took_stays_of_use() {
    let world = World::new();
    let _here = world.enter();
    let (heap, meta) = heap();
    let first = heap.take_huge(3 << 20, 1, meta).expect("memory is there");
    let address = first.address.addr().get();
    fill(address, first.size, 1);
    heap.give_huge(address).expect("a live block");
    os::map_at(address + first.size, PAGE_BYTES).expect("the test takes a page of the room");
    let longer = heap.take_huge(5 << 20, 1, meta).expect("memory is there");
    assert_ne!(longer.address.addr().get(), address);
    let again = heap.take_huge(3 << 20, 1, meta).expect("memory is there");
    assert_eq!((again.address.addr().get(), again.dirty), (address, first.size), "still warm");
    heap.give_huge(address).expect("a live block");
    heap.release_all(Rested::any(0));
    assert_eq!(heap.free(), 0);
    heap.check();
}

#[test]
fn huge_pages_that_stall_are_not_asked_for() {
    let world = World::new();
    let _here = world.enter();
    let (heap, _) = heap();
    // Large enough that every step would be huge.
    for _ in 0..HUGE_PAGES_HEAP_BYTES / STEP_BYTES {
        heap.take_run(STEP_PAGES, 1, Zone::Window).expect("memory is there");
    }
    // A huge page comes as a whole: what is left of its step is free, but not clean.
    let next_is_huge = || {
        let before = heap.free();
        heap.take_run(STEP_PAGES - 56, 1, Zone::Window).expect("memory is there");
        let dirty = heap.free() - before;
        assert!(dirty == 0 || dirty == 56 * PAGE_BYTES, "{dirty}");
        dirty > 0
    };
    assert!(next_is_huge());
    world.populating_takes(HUGE_STALL_NS + 1);
    for _ in 0..HUGE_STALLS_MAX {
        assert!(next_is_huge());
    }
    assert!(!next_is_huge());
    world.wait(HUGE_PAUSE_NS);
    assert!(next_is_huge(), "tried again");
    assert!(!next_is_huge());
    heap.set_huge_pages(HugePages::Always);
    assert!(next_is_huge(), "who says always gets them");
    heap.set_huge_pages(HugePages::Auto);
    world.populating_takes(HUGE_STALL_NS);
    world.wait(HUGE_PAUSE_NS);
    for _ in 0..2 * HUGE_STALLS_MAX {
        assert!(next_is_huge());
    }
    heap.check();
}

#[test]
fn a_purge_that_fails_leaves_the_pages_dirty() {
    let world = World::new();
    let _here = world.enter();
    let (heap, _) = heap();
    let run = heap.take_run(10, 1, Zone::Window).expect("memory is there");
    heap.give_run(run.page, 10);
    world.plan(Plan::From(world.calls()));
    assert_eq!(heap.release_all(Rested::any(0)), 0);
    assert_eq!(heap.free(), 10 * PAGE_BYTES);
    world.plan(Plan::Nothing);
    assert_eq!(heap.release_all(Rested::any(0)), 10 * PAGE_BYTES);
    heap.check();
}

#[test]
fn where_address_space_is_scarce_empty_steps_are_unmapped_and_mapped_again() {
    let world = World::new();
    let _here = world.enter();
    world.limit(64 << 20);
    let (heap, _) = heap();
    let runs: Vec<Run> = core::iter::from_fn(|| heap.take_run(256, 1, Zone::Window)).collect();
    assert!(runs.len() >= 28, "{} steps of 2 MiB fit into 64 MiB", runs.len());
    for run in &runs {
        fill(heap.table.address(run.page), PAGE_BYTES, 1);
        heap.give_run(run.page, 256);
    }
    heap.release_all(Rested::any(0));
    assert!(world.mapped_bytes() < 2 << 20, "{} bytes stayed mapped", world.mapped_bytes());
    let again: Vec<Run> = core::iter::from_fn(|| heap.take_run(256, 1, Zone::Window)).collect();
    assert_eq!(again.len(), runs.len());
    assert!(again.iter().all(|run| run.zeroed));
    heap.check();
}

#[test]
fn a_huge_block_grows_in_place_and_keeps_its_content() {
    let (heap, meta) = heap();
    let mut size = 3 << 20;
    let HugeBlock { address, dirty, .. } = heap.take_huge(size, PAGE_BYTES, meta).expect("memory is there");
    assert_eq!(dirty, 0);
    let start = address.addr().get();
    fill(start, size, 7);
    for _ in 0..4 {
        let (old, grown) = heap.resize_huge(start, 2 * size).expect("it is live").expect("its slot has room");
        assert_eq!((old, grown.size, grown.dirty), (size, 2 * size, size));
        assert!(is_filled(start, size, 7));
        assert!(is_filled(start + size, size, 0));
        size *= 2;
        fill(start, size, 7);
    }
    heap.check();
    assert_eq!(heap.give_huge(start), Ok(size));
    assert_eq!(heap.give_huge(start), Err(NotLive::Free));
    heap.check();
}

#[test]
fn a_huge_block_that_outgrows_its_slot_moves_without_copying() {
    let (heap, meta) = heap();
    let size = 40 << 20;
    let block = heap.take_huge(size, PAGE_BYTES, meta).expect("memory is there");
    let start = block.address.addr().get();
    fill(start, size, 9);
    let larger = 64 << 30;
    assert_eq!(heap.resize_huge(start, larger).map(|resized| resized.is_some()), Ok(false));
    let moved = heap.move_huge(start, 2 << 30, PAGE_BYTES, meta).expect("it is live");
    let (old, moved) = moved.expect("there is a slot that large");
    assert_eq!((old, moved.size, moved.dirty), (size, 2 << 30, size));
    let target = moved.address.addr().get();
    assert!(is_filled(target, size, 9));
    assert!(is_filled(target + size, 1 << 20, 0));
    heap.check();
    assert_eq!(heap.give_huge(target), Ok(2 << 30));
    heap.release_all(Rested::any(0));
    assert_eq!(heap.bytes().mapped - heap.bytes().runs, heap.bytes().clean);
    heap.check();
}

#[test]
fn a_retained_block_is_not_zero_and_says_so() {
    let (heap, meta) = heap();
    let size = 5 << 20;
    let first = heap.take_huge(size, PAGE_BYTES, meta).expect("memory is there");
    fill(first.address.addr().get(), size, 3);
    heap.give_huge(first.address.addr().get()).expect("it is live");
    let second = heap.take_huge(4 << 20, PAGE_BYTES, meta).expect("memory is there");
    assert_eq!((second.address, second.dirty), (first.address, 4 << 20));
    let (_, grown) = heap.resize_huge(second.address.addr().get(), 6 << 20).expect("it is live").expect("room");
    assert_eq!(grown.dirty, size, "what the first owner wrote lies there still");
    heap.check();
}

#[test]
fn any_alignment_up_to_a_gigabyte_is_kept() {
    let (heap, meta) = heap();
    for shift in 13..=30 {
        let block = heap.take_huge(3 << 20, 1 << shift, meta).expect("memory is there");
        assert_eq!(block.address.addr().get() % (1 << shift), 0);
        heap.give_huge(block.address.addr().get()).expect("it is live");
    }
    heap.check();
}

#[test]
fn too_much_is_refused_and_changes_nothing() {
    let (heap, meta) = heap();
    for size in [isize::MAX as usize, usize::MAX - PAGE_BYTES, usize::MAX, 1 << 46, 1 << 47] {
        assert!(heap.take_huge(size, PAGE_BYTES, meta).is_none());
    }
    heap.check();
    assert_eq!(heap.bytes().huge, 0);
}

/// Takes, gives, grows and releases at random beside a map of what is live, each block filled with a byte of its own.
fn walk(heap: &PageHeap, meta: &Meta, seed: u64, steps: usize) {
    let mut random = Random(seed);
    let mut live: BTreeMap<usize, (usize, u8, bool)> = BTreeMap::new();
    for step in 0..steps {
        let byte = 1 + (step % 250) as u8;
        match random.below(10) {
            0..4 => {
                let most = if random.below(8) == 0 { 256 } else { 20 };
                let pages = 1 + random.below(most);
                if let Some(run) = heap.take_run(pages as u32, 1 << random.below(3), Zone::Window) {
                    let (address, bytes) = (heap.table.address(run.page), pages * PAGE_BYTES);
                    assert!(!run.zeroed || is_filled(address, bytes, 0));
                    fill(address, bytes, byte);
                    live.insert(address, (bytes, byte, false));
                }
            }
            4 => {
                let bytes = (2 << 20) + random.below(6 << 20);
                if let Some(block) = heap.take_huge(bytes, PAGE_BYTES, meta) {
                    let address = block.address.addr().get();
                    assert!(is_filled(address + block.dirty, block.size - block.dirty, 0));
                    fill(address, block.size, byte);
                    live.insert(address, (block.size, byte, true));
                }
            }
            5..8 if !live.is_empty() => {
                let (&address, &(bytes, byte, huge)) = live.iter().nth(random.below(live.len())).expect("within the count");
                assert!(is_filled(address, bytes, byte));
                live.remove(&address);
                if huge {
                    assert_eq!(heap.give_huge(address), Ok(bytes));
                } else {
                    let page = heap.table.locate(address).expect("it is ours");
                    heap.give_run(page, (bytes / PAGE_BYTES) as u32);
                }
            }
            8 if !live.is_empty() => {
                let (&address, &(bytes, byte, huge)) = live.iter().nth(random.below(live.len())).expect("within the count");
                if huge {
                    let wanted = 1 + random.below(2 * bytes);
                    if let Ok(Some((old, block))) = heap.resize_huge(address, wanted) {
                        assert_eq!(old, bytes);
                        assert!(is_filled(address, bytes.min(block.size), byte));
                        fill(address, block.size, byte);
                        live.insert(address, (block.size, byte, true));
                    }
                } else {
                    let (page, pages) = (heap.table.locate(address).expect("it is ours"), (bytes / PAGE_BYTES) as u32);
                    let more = 1 + random.below(9) as u32;
                    if let Some(zeroed) = heap.extend_run(page, pages, more) {
                        assert!(!zeroed || is_filled(address + bytes, more as usize * PAGE_BYTES, 0));
                        let bytes = (pages + more) as usize * PAGE_BYTES;
                        fill(address, bytes, byte);
                        live.insert(address, (bytes, byte, false));
                    }
                }
            }
            _ => {
                heap.set_tick(step as u32);
                for _ in 0..random.below(5) {
                    let _ = heap.release_some(Rested::any(step as u32), false);
                }
            }
        }
        if step % 128 == 0 {
            heap.check();
        }
    }
    for (address, (bytes, byte, huge)) in live {
        assert!(is_filled(address, bytes, byte));
        if huge {
            assert_eq!(heap.give_huge(address), Ok(bytes));
        } else {
            heap.give_run(heap.table.locate(address).expect("it is ours"), (bytes / PAGE_BYTES) as u32);
        }
    }
    heap.check();
    assert_eq!(heap.in_use(), 0);
}

#[test]
fn a_random_walk_keeps_every_content() {
    let world = World::new();
    let _here = world.enter();
    let (heap, meta) = heap();
    walk(heap, meta, 2026, 3_000);
    let bytes = heap.bytes();
    assert_eq!(bytes.mapped + bytes.tables + meta.mapped_bytes(), world.mapped_bytes(), "the books of both sides agree");
}

/// Every call to the system fails at every place, once and from then on; afterwards everything works and nothing was lost.
#[test]
fn every_call_may_fail_at_every_place() {
    let script = |world: &World, plan: Plan| {
        let (heap, meta) = heap();
        world.plan(plan);
        walk(heap, meta, 7, 60);
        let failed = world.failed();
        world.plan(Plan::Nothing);
        walk(heap, meta, 8, 60);
        failed
    };
    let calls = {
        let world = World::new();
        let _here = world.enter();
        script(&world, Plan::Nothing);
        world.calls()
    };
    assert!(calls > 20, "the script makes {calls} calls");
    for at in 0..calls {
        for plan in [Plan::Once(at), Plan::From(at)] {
            let world = World::new();
            let _here = world.enter();
            script(&world, plan);
        }
    }
}
