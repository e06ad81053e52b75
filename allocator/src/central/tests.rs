use super::*;
use crate::os::sim::{Plan, World};
use std::collections::BTreeMap;

struct Heap {
    page_heap: PageHeap,
    meta: Meta,
    seed: Seed,
    listed: [Listed; SizeClass::COUNT],
    centrals: Vec<Central>,
}

/// For good: the mappings outlive it.
fn heap() -> &'static Heap {
    Box::leak(Box::new(Heap {
        page_heap: PageHeap::new(),
        meta: Meta::new(),
        seed: Seed::new(),
        listed: [const { Listed::new() }; SizeClass::COUNT],
        centrals: (0..SizeClass::COUNT).map(|_| Central::new()).collect(),
    }))
}

impl Heap {
    fn ground(&self) -> Ground<'_> {
        Ground { page_heap: &self.page_heap, meta: &self.meta, seed: &self.seed, listed: &self.listed }
    }

    fn refill(&self, class: SizeClass, wanted: usize) -> Vec<*mut u8> {
        let mut room = vec![core::ptr::null_mut(); wanted];
        let got = self.centrals[class.index()].refill(class, &mut room, self.ground(), |_| {});
        let blocks = room.split_off(wanted - got);
        // As they are popped: from the end.
        blocks.into_iter().rev().map(|block| block.map_addr(|address| address & !ZEROED)).collect()
    }

    fn flush(&self, class: SizeClass, blocks: &[*mut u8]) {
        self.centrals[class.index()].flush_blocks(class, blocks, self.ground(), |_| {});
    }
}

fn class(bytes: usize) -> SizeClass {
    SizeClass::of(bytes, 1).expect("within the table")
}

#[test]
fn blocks_are_popped_in_address_order_and_spans_end_when_all_are_back() {
    let heap = heap();
    for class in SizeClass::all() {
        let blocks = heap.refill(class, 200);
        assert!(!blocks.is_empty());
        let whole = class.shape() == Shape::Whole;
        assert!(whole || blocks.windows(2).all(|pair| pair[0] < pair[1]), "class {}", class.index());
        assert!(blocks.iter().all(|block| inspect(block.addr(), class, heap.ground()) == Ok(())));
        assert_eq!(heap.centrals[class.index()].out(), blocks.len() as u64);
        heap.flush(class, &blocks);
        assert_eq!(heap.centrals[class.index()].out(), 0);
        assert_eq!(heap.centrals[class.index()].span_count(), 0);
        if !whole {
            assert!(blocks.iter().all(|block| inspect(block.addr(), class, heap.ground()).is_err()));
        }
    }
    assert_eq!(heap.page_heap.bytes().runs, crate::config::SEED_BYTES);
}

/// A fork holds every lock and does not look before it gives them back.
#[test]
fn what_comes_during_a_fork_is_not_left_behind() {
    let heap = heap();
    let class = class(64);
    let blocks = heap.refill(class, 4);
    let central = &heap.centrals[class.index()];
    let memory = heap.meta.take(Magazine::bytes(4), align_of::<usize>()).expect("memory is there");
    // SAFETY: so many zeros, aligned, and nobody else's.
    let mut magazine = unsafe { Magazine::new(memory, 4) };
    magazine.room().copy_from_slice(&blocks);
    magazine.set_range(0, 4);
    central.before_fork();
    std::thread::scope(|scope| {
        scope.spawn(|| central.flush(class, magazine, heap.ground(), |_| panic!("the lock is taken")));
    });
    assert_eq!(central.out(), 4, "it waits");
    central.after_fork();
    let mut emptied = 0;
    central.look_again(class, heap.ground(), |_| emptied += 1);
    assert_eq!((central.out(), emptied), (0, 1));
}

#[test]
fn the_fullest_span_is_drained_first() {
    let heap = heap();
    let class = class(2048);
    let per_span = class.span_blocks() as usize;
    let mut blocks: Vec<*mut u8> = (0..3).flat_map(|_| heap.refill(class, per_span)).collect();
    blocks.sort_unstable();
    let spans: Vec<&[*mut u8]> = blocks.chunks(per_span).collect();
    heap.flush(class, &spans[0][..per_span - 1]);
    heap.flush(class, &spans[1][..1]);
    heap.flush(class, &spans[2][..per_span / 2]);
    assert_eq!(heap.refill(class, 1), &spans[1][..1], "one free block: the fullest");
    assert_eq!(heap.refill(class, per_span / 2), &spans[2][..per_span / 2]);
    assert_eq!(heap.refill(class, 2), &spans[0][..2]);
}

#[test]
fn untouched_blocks_of_clean_pages_are_marked_zero() {
    let heap = heap();
    let class = class(4096);
    let mut room = [core::ptr::null_mut(); 4];
    assert_eq!(heap.centrals[class.index()].refill(class, &mut room, heap.ground(), |_| {}), 4);
    assert!(room.iter().all(|entry| entry.addr() & ZEROED != 0));
    heap.flush(class, &room[2..]);
    let mut again = [core::ptr::null_mut(); 2];
    assert_eq!(heap.centrals[class.index()].refill(class, &mut again, heap.ground(), |_| {}), 2);
    assert!(again.iter().all(|entry| entry.addr() & ZEROED == 0), "they were out, so somebody may have written");
}

#[test]
fn wrong_pointers_are_told_apart() {
    let heap = heap();
    let ground = heap.ground();
    let small = class(2048);
    let blocks = heap.refill(small, 8);
    let block = blocks[2].addr();
    assert_eq!(inspect(block, small, ground), Ok(()));
    assert_eq!(inspect(block + 1, small, ground), Err(Misuse::Misaligned));
    assert_eq!(inspect(block + 16, small, ground), Err(Misuse::Interior));
    assert_eq!(inspect(block, class(4096), ground), Err(Misuse::SizeMismatch));
    let beyond = blocks[7].addr() + 2048;
    assert_eq!(inspect(beyond, small, ground), Err(Misuse::NeverAllocated), "a block that was never handed out");
    let local = 0_u64;
    assert_eq!(inspect((&raw const local).addr(), small, ground), Err(Misuse::Foreign));
    assert_eq!(inspect(8, small, ground), Err(Misuse::Foreign));
    heap.flush(small, &blocks[2..3]);
    assert_eq!(inspect(block, small, ground), Err(Misuse::DoubleFree));

    let whole = class(64 << 10);
    let block = heap.refill(whole, 1)[0].addr();
    assert_eq!(inspect(block, whole, ground), Ok(()));
    assert_eq!(inspect(block + 3, whole, ground), Err(Misuse::Misaligned));
    assert_eq!(inspect(block + 8192, whole, ground), Err(Misuse::NeverAllocated), "its later pages have no record of their own");
    assert_eq!(inspect(block + 64, whole, ground), Err(Misuse::Interior));
    assert_eq!(inspect(block, class(80 << 10), ground), Err(Misuse::SizeMismatch));
}

#[test]
fn a_batch_with_one_wrong_block_is_found() {
    let heap = heap();
    let ground = heap.ground();
    for class in [class(64), class(2048)] {
        let mut blocks = heap.refill(class, 64);
        assert_eq!(inspect_all(&blocks, class, ground), Ok(()));
        let (first, last) = (blocks[0], blocks.len() - 1);
        blocks[last] = first;
        assert_eq!(inspect_all(&blocks, class, ground), Err((Misuse::DoubleFree, first.addr())));
        blocks[last] = first.wrapping_add(8);
        assert_eq!(inspect_all(&blocks, class, ground), Err((Misuse::Interior, first.addr() + 8)));
        blocks[last] = core::ptr::without_provenance_mut(4096);
        assert_eq!(inspect_all(&blocks, class, ground), Err((Misuse::Foreign, 4096)));
    }
}

/// Takes and gives batches of all classes at random beside a map of who has which bytes.
#[test]
fn a_random_walk_never_hands_a_byte_to_two() {
    let heap = heap();
    let mut live: BTreeMap<usize, SizeClass> = BTreeMap::new();
    let mut state = 11_u64;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as usize % below
    };
    for step in 0..20_000 {
        if random(10) < if step / 500 % 2 == 0 { 6 } else { 4 } {
            let class = SizeClass::from_index(random(SizeClass::COUNT));
            let wanted = 1 + random(if class.bytes() > 4096 { 4 } else { 40 });
            for block in heap.refill(class, wanted) {
                let address = block.addr();
                if let Some((before, other)) = live.range(..=address).next_back() {
                    assert!(before + other.bytes() <= address);
                }
                assert!(live.range(address..address + class.bytes()).next().is_none());
                live.insert(address, class);
            }
        } else if !live.is_empty() {
            let class = *live.values().nth(random(live.len())).expect("within the count");
            let blocks: Vec<*mut u8> =
                live.iter().filter(|(_, other)| **other == class).map(|(address, _)| os::pointer(*address)).collect();
            let from = random(blocks.len());
            let some = &blocks[from..(from + 1 + random(60)).min(blocks.len())];
            heap.flush(class, some);
            for block in some {
                live.remove(&block.addr());
            }
        }
        if step % 256 == 0 {
            for class in SizeClass::all() {
                let out = live.values().filter(|other| **other == class).count() as u64;
                assert_eq!(heap.centrals[class.index()].out(), out);
            }
            heap.page_heap.check();
        }
    }
    for class in SizeClass::all() {
        let rest: Vec<*mut u8> = live.iter().filter(|(_, of)| **of == class).map(|(address, _)| os::pointer(*address)).collect();
        heap.flush(class, &rest);
        assert_eq!(heap.centrals[class.index()].span_count(), 0, "class {}", class.index());
    }
}

#[test]
fn no_memory_is_an_answer_and_heals() {
    let world = World::new();
    let _here = world.enter();
    let heap = heap();
    world.plan(Plan::From(0));
    for class in SizeClass::all() {
        assert_eq!(heap.refill(class, 10), []);
    }
    world.plan(Plan::Nothing);
    for class in SizeClass::all() {
        assert!(!heap.refill(class, 10).is_empty());
    }
}

/// Many threads give magazines to one class at once: nobody waits for long, and every block arrives.
#[test]
fn a_contended_flush_loses_nothing() {
    let heap = heap();
    let class = class(256);
    let central = &heap.centrals[class.index()];
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..2_000 {
                    let words = Vec::leak(vec![0_usize; Magazine::bytes(32) / size_of::<usize>()]);
                    // SAFETY: zeros of the right size and alignment, leaked.
                    let mut magazine = unsafe { Magazine::new(core::ptr::NonNull::from(words).cast(), 32) };
                    let got = central.refill(class, magazine.room(), heap.ground(), |_| {});
                    magazine.set_range(32 - got, got);
                    central.flush(class, magazine, heap.ground(), |_| {});
                }
            });
        }
    });
    assert_eq!(central.out(), 0);
    assert_eq!(central.span_count(), 0);
}

/// The pages that hold memory, of those between two addresses.
fn resident_pages(start: usize, bytes: usize) -> Vec<bool> {
    let mut pages = vec![0_u8; bytes / os::page_bytes()];
    // SAFETY: a question about mapped pages, with a place for the answer.
    assert_eq!(unsafe { libc::mincore(os::pointer(start).cast(), bytes, pages.as_mut_ptr()) }, 0);
    pages.into_iter().map(|page| page & 1 == 1).collect()
}

#[test]
fn pages_without_a_block_that_is_out_are_given_back_and_no_other() {
    let mut state = 3_u64;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as usize % below
    };
    for class in SizeClass::all().filter(|class| class.shape() != Shape::Whole && class.bytes() >= 64) {
        let heap = heap();
        heap.page_heap.set_huge_pages(crate::options::HugePages::Never);
        // The seed is used up first: its blocks lie in no span.
        let mut blocks = Vec::new();
        while heap.centrals[class.index()].span_count() == 0 {
            blocks.extend(heap.refill(class, 64));
        }
        blocks.extend(heap.refill(class, 2 * class.span_blocks() as usize));
        for block in &blocks {
            // SAFETY: the test has the block.
            unsafe { block.write_bytes(7, class.bytes()) };
        }
        let mut kept = Vec::new();
        while kept.len() < 2 {
            let index = random(blocks.len());
            if span_of(blocks[index].addr(), class, heap.ground()).is_some() {
                kept.push(blocks.swap_remove(index));
            }
        }
        heap.flush(class, &blocks);
        let central = &heap.centrals[class.index()];
        let mut again = false;
        for round in 0..3 {
            let mut released = 0;
            let pages = heap.page_heap.bytes().mapped / PAGE_BYTES;
            for page in 0..pages as u32 {
                let page = PageIndex(page);
                // SAFETY: pages of steps that are mapped.
                let record = unsafe { heap.page_heap.table.record(page) };
                if within::class_of_span(record) == Some(class) {
                    let (bytes, later) = central.release_within(page, class, false, heap.ground(), |_| {});
                    released += bytes;
                    again |= later;
                }
            }
            assert!(round != 0 || released == 0, "what was just freed rests first");
            assert!(round != 2 || released == 0, "once");
        }
        assert!(again, "class {}", class.index());
        for block in &kept {
            let head = span_of(block.addr(), class, heap.ground()).expect("they are in spans");
            let start = heap.page_heap.table.address(head);
            let resident = resident_pages(start, class.span_bytes());
            for (index, resident) in resident.into_iter().enumerate() {
                let page = start + index * os::page_bytes()..start + (index + 1) * os::page_bytes();
                let holds = kept.iter().any(|kept| kept.addr() < page.end && kept.addr() + class.bytes() > page.start);
                assert_eq!(resident, holds, "class {}, page {index} of a span with a block that is out", class.index());
            }
            // SAFETY: the test has the block.
            let content = unsafe { core::slice::from_raw_parts(*block, class.bytes()) };
            assert!(content.iter().all(|byte| *byte == 7), "class {}", class.index());
        }
        // All of it can be had again, and goes in the end.
        let mut all = heap.refill(class, 4 * class.span_blocks() as usize);
        for block in &all {
            // SAFETY: the test has the block.
            unsafe { block.write_bytes(9, class.bytes()) };
        }
        assert!(kept.iter().all(|kept| !all.contains(kept)));
        all.extend(kept);
        heap.flush(class, &all);
        assert_eq!(heap.page_heap.all_released_within(), 0, "class {}", class.index());
        heap.page_heap.check();
    }
}

#[test]
fn a_span_that_cannot_be_purged_stays_as_it_was() {
    let world = World::new();
    let _here = world.enter();
    let heap = heap();
    let class = class(2048);
    let blocks = heap.refill(class, class.span_blocks() as usize);
    heap.flush(class, &blocks[1..]);
    let head = span_of(blocks[0].addr(), class, heap.ground()).expect("it is in a span");
    world.plan(Plan::From(world.calls()));
    let central = &heap.centrals[class.index()];
    for _ in 0..3 {
        assert_eq!(central.release_within(head, class, true, heap.ground(), |_| {}).0, 0);
    }
    world.plan(Plan::Nothing);
    assert_eq!(heap.page_heap.all_released_within(), 0);
    heap.flush(class, &blocks[..1]);
    assert_eq!(central.span_count(), 0);
    heap.page_heap.check();
}

#[test]
fn at_the_hard_limit_released_pages_stay_released() {
    let world = World::new();
    let _here = world.enter();
    let heap = heap();
    heap.page_heap.set_huge_pages(crate::options::HugePages::Never);
    let class = class(2048);
    let blocks = heap.refill(class, class.span_blocks() as usize);
    heap.flush(class, &blocks[1..]);
    let head = span_of(blocks[0].addr(), class, heap.ground()).expect("it is in a span");
    let (released, _) = heap.centrals[class.index()].release_within(head, class, true, heap.ground(), |_| {});
    assert!(released > 0);
    heap.page_heap.marks.set_hard(heap.page_heap.held());
    assert!(heap.refill(class, 1).is_empty(), "that would be more than may be held");
    heap.page_heap.marks.set_hard(usize::MAX);
    assert!(!heap.refill(class, 1).is_empty());
}

/// Pages that were given back within a span must not count as held again only because the span ends.
#[test]
fn at_the_hard_limit_a_span_ends_when_all_of_it_was_given_back() {
    let world = World::new();
    let _here = world.enter();
    let heap = heap();
    heap.page_heap.set_huge_pages(crate::options::HugePages::Never);
    let class = class(2048);
    let (central, blocks) = (&heap.centrals[class.index()], heap.refill(class, class.span_blocks() as usize));
    for block in &blocks {
        // SAFETY: the test has the block.
        unsafe { block.write_bytes(7, class.bytes()) };
    }
    heap.flush(class, &blocks[1..]);
    let head = span_of(blocks[0].addr(), class, heap.ground()).expect("it is in a span");
    let release = || central.release_within(head, class, true, heap.ground(), |_| {}).0;
    let released = release();
    let held = heap.page_heap.held();
    assert_eq!(released + held, class.span_bytes());
    heap.page_heap.marks.set_hard(held);
    heap.flush(class, &blocks[..1]);
    assert_eq!((central.span_count(), heap.page_heap.held()), (1, held), "no page came back, and none is held again");
    assert_eq!(release(), held);
    assert_eq!((central.span_count(), heap.page_heap.held(), heap.page_heap.all_released_within()), (0, 0, 0));
    heap.page_heap.check();
    heap.page_heap.marks.set_hard(usize::MAX);
    let again = heap.refill(class, 1);
    // SAFETY: the test has the block.
    let content = unsafe { core::slice::from_raw_parts(again[0].map_addr(|address| address & !ZEROED), class.bytes()) };
    assert!(content.iter().all(|byte| *byte == 0));
}
