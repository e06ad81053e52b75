//! Owners on mappings and memory that tests make up.

// A list of ranges may have one.
#![allow(clippy::single_range_in_vec_init)]

use std::collections::HashMap;

use crate::random::Random;

use super::*;

const PAGE: u64 = PAGE_BYTES as u64;
/// Where the made-up mappings begin: at a multiple of 64 MiB.
const BASE: usize = 0x7f00_0000_0000;

/// Pages that are there, and what is written in them.
#[derive(Default)]
struct Pages4k {
    pages: HashMap<usize, Vec<u8>>,
    /// Nobody says which pages are there.
    blind: bool,
}

impl Pages4k {
    fn touch(&mut self, range: Range<usize>) -> u64 {
        for page in range.clone().step_by(PAGE_BYTES) {
            self.pages.entry(page).or_insert_with(|| vec![0; PAGE_BYTES]);
        }
        range.len() as u64
    }

    fn write(&mut self, address: usize, words: &[usize]) {
        for (nth, word) in words.iter().enumerate() {
            let at = address + nth * 8;
            let page = self.pages.entry(at & !(PAGE_BYTES - 1)).or_insert_with(|| vec![0; PAGE_BYTES]);
            page[at % PAGE_BYTES..][..8].copy_from_slice(&(*word as u64).to_ne_bytes());
        }
    }

    /// As glibc does for one large block.
    fn write_block(&mut self, start: usize, before: usize, bytes: usize) {
        self.write(start + before, &[before, (bytes - before) | 2]);
    }
}

impl Memory for Pages4k {
    fn resident(&self, range: &Range<usize>) -> Option<u64> {
        assert!(range.start.is_multiple_of(PAGE_BYTES) && range.end.is_multiple_of(PAGE_BYTES), "{range:x?}");
        let there = range.clone().step_by(PAGE_BYTES).filter(|page| self.pages.contains_key(page)).count();
        (!self.blind).then_some(there as u64 * PAGE)
    }

    fn read(&self, address: usize, into: &mut [u8]) -> Option<()> {
        let page = self.pages.get(&(address & !(PAGE_BYTES - 1)))?;
        into.copy_from_slice(page.get(address % PAGE_BYTES..)?.get(..into.len())?);
        Some(())
    }
}

fn anonymous(range: Range<usize>, resident: u64) -> Mapping {
    Mapping {
        range,
        label: Label::Anonymous,
        access: Access::Some,
        pages: Pages::Any,
        resident,
        huge: 0,
        huge_tlb: 0,
        swapped: 0,
    }
}

fn guard(range: Range<usize>) -> Mapping {
    Mapping { access: Access::None, ..anonymous(range, 0) }
}

/// Whose the mappings are, and what remains.
fn owners(known: &Known, memory: &Pages4k, mappings: &[Mapping]) -> (Shares, u64) {
    let mut owners = Owners::new(known, memory);
    for mapping in mappings {
        owners.add(mapping);
    }
    owners.finish();
    let rest = owners.rest.iter().map(|piece| piece.resident).sum();
    let Shares { heap, other_allocators, stacks, files, shared, named } = owners.shares;
    assert_eq!(heap + other_allocators + stacks + files + shared + named + rest, owners.total.resident, "{:?}", owners.shares);
    (owners.shares, rest)
}

#[test]
fn a_mapping_with_one_owner_keeps_the_kernels_count() {
    let known = Known {
        heap: vec![BASE..BASE + (64 << 20)],
        static_data: vec![BASE + (1 << 30)..BASE + (1 << 30) + 8192],
        ..Known::default()
    };
    let heap = anonymous(BASE + 4096..BASE + 81920, 12_288);
    let zeroed = anonymous(BASE + (1 << 30)..BASE + (1 << 30) + 8192, 4096);
    let named = Mapping { label: Label::Named, ..anonymous(BASE + (2 << 30)..BASE + (2 << 30) + 8192, 8192) };
    let file = Mapping { label: Label::File, ..anonymous(BASE + (3 << 30)..BASE + (3 << 30) + 8192, 4096) };
    // Memory that nobody touched: whoever counts pages finds none.
    let (shares, rest) = owners(&known, &Pages4k::default(), &[heap, zeroed, named, file]);
    assert_eq!(shares, Shares { heap: 12_288, files: 8192, named: 8192, ..Shares::default() });
    assert_eq!(rest, 0);
}

#[test]
fn neighbours_that_the_kernel_joined_are_counted_page_by_page() {
    let known =
        Known { heap: vec![BASE + 16_384..BASE + 32_768], static_data: vec![BASE + 40_960..BASE + 45_056], ..Known::default() };
    let mut memory = Pages4k::default();
    let mut resident = 0;
    for touched in [0..4096, 20_480..32_768, 36_864..40_960, 40_960..45_056, 49_152..57_344] {
        resident += memory.touch(BASE + touched.start..BASE + touched.end);
    }
    let (shares, rest) = owners(&known, &memory, &[anonymous(BASE..BASE + 65_536, resident)]);
    assert_eq!((shares.heap, shares.files, rest), (12_288, 4096, 16_384));
    // Where pages cannot be counted, the length decides.
    memory.blind = true;
    let (shares, _) = owners(&known, &memory, &[anonymous(BASE..BASE + 65_536, 65_536)]);
    assert_eq!(shares.heap, 16_384);
}

#[test]
fn the_heaps_own_name_in_swap_is_seen() {
    let known = Known { heap: vec![BASE..BASE + 8192], ..Known::default() };
    let memory = Pages4k::default();
    let mut owners = Owners::new(&known, &memory);
    owners.add(&Mapping { swapped: 4096, ..anonymous(BASE..BASE + 8192, 0) });
    owners.add(&Mapping { swapped: 4096, ..anonymous(BASE + 8192..BASE + 16_384, 0) });
    assert_eq!((owners.total.swapped, owners.total.heap_swapped), (8192, 4096));
}

#[test]
fn stacks_are_where_threads_are() {
    let stack = 2 << 20;
    let bottoms = [BASE + 4096, BASE + 8192 + stack];
    let marks = [
        StackMark { address: bottoms[0] + stack - 5000, place: Place::NearTop },
        StackMark { address: bottoms[1] + stack / 2, place: Place::Anywhere },
    ];
    let known = Known { stacks: marks.to_vec(), stack_bytes: 8 << 20, ..Known::default() };
    let mappings = [
        guard(BASE..bottoms[0]),
        anonymous(bottoms[0]..bottoms[0] + stack, 8192),
        guard(bottoms[1] - 4096..bottoms[1]),
        anonymous(bottoms[1]..bottoms[1] + stack, 12_288),
    ];
    let (shares, rest) = owners(&known, &Pages4k::default(), &mappings);
    assert_eq!((shares.stacks, rest), (20_480, 0));
}

#[test]
fn what_lies_above_a_stack_is_not_of_it() {
    let stack = 2 << 20;
    let mark = StackMark { address: BASE + stack - 5000, place: Place::NearTop };
    let known = Known { stacks: vec![mark], ..Known::default() };
    let mut memory = Pages4k::default();
    let of_stack = memory.touch(BASE + stack - 8192..BASE + stack);
    let of_others = memory.touch(BASE + stack + (1 << 20)..BASE + stack + (9 << 20));
    let joined = anonymous(BASE..BASE + stack + (16 << 20), of_stack + of_others);
    assert_eq!(
        owners(&known, &memory, std::slice::from_ref(&joined)),
        (Shares { stacks: of_stack, ..Shares::default() }, of_others)
    );
    // Kernels that keep stacks apart say so.
    let apart = Mapping { pages: Pages::Small, ..joined };
    assert_eq!(owners(&known, &memory, &[apart]).0.stacks, of_stack + of_others);
}

#[test]
fn stacks_of_ended_threads_look_like_those_of_others() {
    let stack = 300 << 10;
    let alive = BASE + 4096;
    let ended = alive + stack + 4096;
    let mark = StackMark { address: alive + 100_000, place: Place::Anywhere };
    let known = Known { stacks: vec![mark], ..Known::default() };
    let mappings = |above_guard| {
        [
            guard(BASE..alive),
            anonymous(alive..alive + stack, 4096),
            guard(ended - 4096..ended),
            anonymous(ended + above_guard..ended + above_guard + stack, 16_384),
        ]
    };
    assert_eq!(owners(&known, &Pages4k::default(), &mappings(0)).0.stacks, 20_480);
    assert_eq!(owners(&known, &Pages4k::default(), &mappings(4096)).1, 16_384, "the guard is not right below it");
    let nobody = Known::default();
    let as_a_stack = mappings(0).map(|mapping| Mapping { pages: Pages::Small, ..mapping });
    assert_eq!(owners(&nobody, &Pages4k::default(), &as_a_stack).0.stacks, 20_480, "made as one");
    assert_eq!(owners(&nobody, &Pages4k::default(), &mappings(0)).1, 20_480, "of no length that a stack has");
}

#[test]
fn arenas_are_found_by_their_header() {
    let arena = BASE + ARENA_BYTES_MAX;
    let committed = 1 << 20;
    let known = Known { arena_bytes: committed + (132 << 10), ..Known::default() };
    let mut memory = Pages4k::default();
    let of_other = memory.touch(arena - 8192..arena);
    memory.write(arena, &[arena + 0x30, 0, 700_000, committed]);
    let of_arena = memory.touch(arena..arena + 65_536);
    let joined = anonymous(arena - (1 << 20)..arena + committed, of_other + of_arena);
    let (shares, rest) = owners(&known, &memory, std::slice::from_ref(&joined));
    assert_eq!((shares.other_allocators, rest), (of_arena, of_other));
    // A second heap of the same arena: it says where the one before is.
    memory.write(arena, &[BASE - ARENA_BYTES_MAX + 0x30, BASE - ARENA_BYTES_MAX, 4096, committed]);
    assert_eq!(owners(&known, &memory, std::slice::from_ref(&joined)).0.other_allocators, of_arena);
    for wrong in [
        [0, 0, 4096, committed],
        [arena + 0x30, 0, committed + 1, committed],
        [arena + 0x30, 0, 4096, committed + 1],
        [arena + 0x30, 0, 4096, 2 * ARENA_BYTES_MAX],
        [arena + 0x30, 0, 0, committed],
        [arena + 0x30, 77, 4096, committed],
        [arena + (1 << 20), 0, 4096, committed],
    ] {
        memory.write(arena, &wrong);
        assert_eq!(owners(&known, &memory, std::slice::from_ref(&joined)).0.other_allocators, 0, "{wrong:x?}");
    }
}

#[test]
fn large_blocks_of_glibc_are_found_by_their_headers() {
    let mut memory = Pages4k::default();
    // A mapping of somebody else, three blocks side by side (one of them aligned to 64 bytes, one to 16 KiB), and somebody else again.
    let blocks = [
        (BASE + 20_480, 0, 200 << 10),
        (BASE + 20_480 + (200 << 10), 48, 400 << 10),
        (BASE + 20_480 + (600 << 10), 16_368, 300 << 10),
    ];
    let end = BASE + 20_480 + (900 << 10);
    let of_others = memory.touch(BASE..BASE + 8192) + memory.touch(end..end + 16_384);
    for (start, before, bytes) in blocks {
        memory.write_block(start, before, bytes);
    }
    let of_blocks = 3 * PAGE + memory.touch(BASE + 20_480 + (300 << 10)..BASE + 20_480 + (340 << 10));
    let joined = anonymous(BASE..end + (1 << 20), of_others + of_blocks);
    let found = |bytes, memory: &Pages4k| {
        let known = Known { block_mapping_bytes: bytes, ..Known::default() };
        owners(&known, memory, std::slice::from_ref(&joined)).0.other_allocators
    };
    assert_eq!(found(900 << 10, &memory), of_blocks);
    assert_eq!(found(600 << 10, &memory), of_blocks - PAGE, "no more than there can be");
    assert_eq!(found(0, &memory), 0, "without any, nobody looks");
    for wrong in [
        [0, 200 << 10],
        [0, (200 << 10) | 1],
        [0, (200 << 10) | 3],
        [0, (200 << 10) + 18],
        [8, (200 << 10) | 2],
        [0, usize::MAX << 12 | 2],
    ] {
        memory.write(blocks[0].0, &wrong);
        assert_eq!(found(900 << 10, &memory), of_blocks - PAGE, "{wrong:x?}");
    }
}

fn ranges(random: &mut Random) -> Vec<Range<usize>> {
    let count = random.below(6);
    let mut one = || {
        let start = BASE + random.below(400) * PAGE_BYTES;
        start..start + random.below(60) * PAGE_BYTES
    };
    (0..count).map(|_| one()).collect()
}

/// Whatever is known, and however wrong: every byte has one owner, or none. `owners` checks that.
#[test]
fn nothing_is_lost_or_counted_twice() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_250_101);
    println!("replay with SEED={seed}");
    let mut random = Random(seed);
    for _ in 0..2000 {
        let mut known = Known {
            heap: in_order(ranges(&mut random)),
            static_data: in_order(ranges(&mut random)),
            arena_bytes: random.below(2) << 20,
            block_mapping_bytes: random.below(2) << 20,
            ..Known::default()
        };
        let mut memory = Pages4k { blind: random.below(4) == 0, ..Pages4k::default() };
        let mut mappings = Vec::new();
        let mut at = BASE;
        for _ in 0..10 {
            at += random.below(20) * PAGE_BYTES;
            let end = at + (1 + random.below(60)) * PAGE_BYTES;
            let touched =
                (0..random.below(9)).map(|_| at + random.below((end - at) / PAGE_BYTES) * PAGE_BYTES).collect::<Vec<_>>();
            for &page in &touched {
                memory.touch(page..page + PAGE_BYTES);
                if random.below(2) == 0 {
                    memory.write_block(page, 0, (1 + random.below(20)) * PAGE_BYTES);
                }
            }
            // Now and then the kernel's count is of another moment.
            let resident = memory.pages.keys().filter(|page| (at..end).contains(page)).count() + random.below(10) / 9;
            let mapping = anonymous(at..end, resident as u64 * PAGE);
            mappings.push(match random.below(8) {
                0 => Mapping { label: Label::Named, ..mapping },
                1 => Mapping { pages: Pages::Small, ..mapping },
                2 => guard(at..end),
                _ => mapping,
            });
            if random.below(3) == 0 {
                let place = if random.below(2) == 0 { Place::Anywhere } else { Place::NearTop };
                known.stacks.push(StackMark { address: at + random.below(end - at), place });
            }
            at = end;
        }
        owners(&known, &memory, &mappings);
    }
}

#[test]
fn ranges_are_put_in_order() {
    assert_eq!(in_order(vec![5..6, 1..3, 9..9, 3..4, 2..3]), [1..4, 5..6]);
    assert_eq!(in_order(vec![1..9, 2..3, 8..10]), [1..10]);
}
