use super::*;
use crate::chance;
use crate::os::sim::World;
use crate::supply::Supply;
use crate::units::in_sampled_zone;
use std::collections::{BTreeMap, BTreeSet};

/// A heap of its own, for good.
fn supply() -> &'static Supply {
    Box::leak(Box::new(Supply::new()))
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        let random;
        (self.0, random) = chance::next(self.0);
        (random % bound as u64) as usize
    }
}

/// A call from nowhere in particular; each number is another site.
fn caller(site: usize) -> Caller {
    Caller { stack_pointer: 0, frame_pointer: 0, return_address: 0x10_0000 + site }
}

fn who(bounds: &StackBounds) -> Who<'_> {
    Who { thread: 7, tag: 0, interval: 4096, bounds }
}

fn all_sites(sampling: &Sampling) -> Vec<Site> {
    let (mut from, mut found, mut some) = (0, Vec::new(), vec![Site::default(); 16]);
    loop {
        let portion = sampling.sites(from, &mut some);
        found.extend_from_slice(&some[..portion.count]);
        from = portion.next;
        if portion.is_last {
            return found;
        }
    }
}

fn class_of(bytes: usize) -> SizeClass {
    SizeClass::of(bytes, 8).expect("it has one")
}

/// Takes a sampled block for a site.
fn take(supply: &Supply, site: usize, bytes: usize, bounds: &StackBounds) -> Option<usize> {
    let (caller, class) = (caller(site), class_of(bytes));
    let request = Request { size: bytes, align: 8, grown: false, caller: &caller };
    let block = supply.sampling.allocate(class, &request, &who(bounds), None, || None, supply.sampling_ground())?;
    Some(block.addr().get())
}

fn give(supply: &Supply, address: usize, bytes: usize) {
    supply.sampling.free(address, class_of(bytes), 7, supply.sampling_ground()).expect("a live block");
}

#[test]
fn sampled_blocks_are_packed_never_overlap_and_their_spans_end() {
    let world = World::new();
    let _here = world.enter();
    let (supply, bounds) = (supply(), StackBounds::new());
    let mut random = Random(11);
    let mut live: BTreeMap<usize, usize> = BTreeMap::new();
    for step in 0..20_000 {
        if random.below(2) == 0 || live.is_empty() {
            let bytes = [8, 64, 72, 1000, 3000, 5000, 20_000, 32 << 10][random.below(8)];
            let Some(address) = take(supply, random.below(5), bytes, &bounds) else { continue };
            let bytes = class_of(bytes).bytes();
            assert!(in_sampled_zone(address), "step {step}");
            let before = live.range(..=address).next_back();
            assert!(
                before.is_none_or(|(start, length)| start + length <= address),
                "step {step}: it overlaps with the one before"
            );
            let after = live.range(address..).next();
            assert!(after.is_none_or(|(start, _)| address + bytes <= *start), "step {step}: it overlaps with the one behind");
            live.insert(address, bytes);
        } else {
            let (&address, &bytes) = live.iter().nth(random.below(live.len())).expect("one of them");
            live.remove(&address);
            give(supply, address, bytes);
            let again = supply.sampling.free(address, class_of(bytes), 7, supply.sampling_ground());
            assert!(matches!(again, Err(Misuse::DoubleFree | Misuse::NeverAllocated)), "step {step}: {again:?}");
        }
        // Packed: at most a span of each class is not full by more than what was freed since; here a loose bound on the whole.
        // Blocks in place of ordinary ones are no cost.
        let in_place: usize = live.values().sum();
        assert!(supply.sampling.zone_bytes() - in_place <= ZONE_MIN_BYTES + supply.page_heap.held() / ZONE_LIVE_SHARE);
    }
    let bytes: usize = live.values().sum();
    assert!((supply.sampling.summary().live.samples as usize) == live.len() && bytes > 0);
    for (address, bytes) in std::mem::take(&mut live) {
        give(supply, address, bytes);
    }
    supply.sampling.trim(supply.sampling_ground());
    assert_eq!(supply.sampling.zone_bytes(), 0);
    let summary = supply.sampling.summary();
    assert_eq!((summary.live.samples, summary.ends + summary.untracked), (0, summary.samples));
    supply.page_heap.check();
}

/// There is no memory for the block: nothing was allocated, so nothing is recorded.
#[test]
fn what_cannot_be_had_is_no_sample() {
    let world = World::new();
    let _here = world.enter();
    let (supply, bounds) = (supply(), StackBounds::new());
    let taken = (0..1 << 20).map_while(|nth| take(supply, nth % 7, 64, &bounds)).count();
    assert!(taken < 1 << 20, "the zone has no end");
    let summary = supply.sampling.summary();
    assert_eq!((summary.samples, summary.untracked), (taken as u64, 0));
    assert_eq!(supply.page_heap.counters.get(Event::Sampled), taken as u64);
}

#[test]
fn wrong_frees_in_the_zone_are_named() {
    let world = World::new();
    let _here = world.enter();
    let (supply, bounds) = (supply(), StackBounds::new());
    let address = take(supply, 1, 64, &bounds).expect("there is room");
    let free = |address, bytes| supply.sampling.free(address, class_of(bytes), 7, supply.sampling_ground()).map(|_| ());
    assert_eq!(free(address, 72), Err(Misuse::SizeMismatch));
    assert_eq!(free(address + 8, 64), Err(Misuse::Interior));
    assert_eq!(free(address + 1, 64), Err(Misuse::Misaligned));
    assert_eq!(free(address + 64, 64), Err(Misuse::NeverAllocated));
    assert_eq!(free(address, 64), Ok(()));
    assert_eq!(free(address, 64), Err(Misuse::DoubleFree));
}

/// The peak of each site is what a full copy at the highest moment would have had.
#[test]
fn peaks_are_those_of_the_highest_moment() {
    let world = World::new();
    let _here = world.enter();
    let (supply, bounds) = (supply(), StackBounds::new());
    let mut random = Random(5);
    let mut live: Vec<(usize, usize, usize)> = Vec::new();
    let (mut by_site, mut total) = ([0_u64; 8], 0.0);
    let (mut highest, mut at_peak) = (0.0, [0_u64; 8]);
    for step in 0..30_000_usize {
        // Up for a while, then down for a while.
        let grows = random.below(100) < if (step / 3000).is_multiple_of(2) { 60 } else { 40 };
        if live.is_empty() || (grows && live.len() < 3000) {
            let (site, bytes) = (random.below(8), [16, 64, 200][random.below(3)]);
            let address = take(supply, site, bytes, &bounds).expect("there is room");
            live.push((address, site, bytes));
            by_site[site] += 1;
            total += class_of(bytes).bytes() as f64 * chance::weight(class_of(bytes).bytes(), 4096);
            if total > highest + 1e-6 {
                (highest, at_peak) = (total, by_site);
            }
        } else {
            let (address, site, bytes) = live.swap_remove(random.below(live.len()));
            give(supply, address, bytes);
            by_site[site] -= 1;
            total -= class_of(bytes).bytes() as f64 * chance::weight(class_of(bytes).bytes(), 4096);
        }
    }
    let mut found = [0_u64; 8];
    for site in all_sites(&supply.sampling) {
        found[site.stack.frames()[0] - 0x10_0000] += site.peak.samples;
    }
    assert_eq!(found, at_peak);
    let summary = supply.sampling.summary();
    assert!((summary.peak.bytes - highest).abs() < 1e-3, "{} and {highest}", summary.peak.bytes);
    supply.sampling.reset_peak(&supply.page_heap);
    let now: u64 = all_sites(&supply.sampling).iter().map(|site| site.peak.samples).sum();
    assert_eq!(now, live.len() as u64);
}

/// Sites are many, memory is little: the oldest of which nothing is alive make room, and nothing that was counted is lost.
#[test]
fn the_oldest_dead_sites_make_room() {
    const BYTES: usize = 256 << 10;
    let world = World::new();
    let _here = world.enter();
    let (supply, bounds) = (supply(), StackBounds::new());
    supply.choices.choose(4096, usize::MAX, 0, BYTES);
    let kept: Vec<usize> = (0..50).map(|site| take(supply, site, 64, &bounds).expect("there is room")).collect();
    for site in 50..20_000 {
        let address = take(supply, site, 64, &bounds).expect("there is room");
        give(supply, address, 64);
        assert!(supply.sampling.summary().memory_bytes <= BYTES + 4096, "site {site}");
    }
    let (sites, summary) = (all_sites(&supply.sampling), supply.sampling.summary());
    let known: BTreeSet<usize> = sites.iter().map(|site| site.stack.frames()[0] - 0x10_0000).collect();
    assert!((0..50).all(|site| known.contains(&site)), "what is alive stays");
    assert!((20_000 - known.len() + 50..20_000).all(|site| known.contains(&site)), "of the others the youngest stay");
    assert!(known.len() > 300 && summary.forgotten_sites > 15_000, "{} are known", known.len());
    assert_eq!(summary.sites as u64 + summary.forgotten_sites, 20_000);
    let counted: f64 = sites.iter().map(|site| site.allocated.bytes).sum();
    assert!((counted + summary.forgotten.bytes - summary.allocated.bytes).abs() < 1e-3 * summary.allocated.bytes);
    assert_eq!(summary.lost, 0);
    // Where all is alive there is no room for more: the sample is counted, and nothing else is known of it.
    let mut more = Vec::new();
    for site in 30_000..40_000 {
        more.extend(take(supply, site, 64, &bounds));
    }
    let full = supply.sampling.summary();
    assert!(full.lost > 5_000 && full.memory_bytes <= BYTES + 4096, "{full:?}");
    assert_eq!(full.samples, 30_000);
    for address in kept.into_iter().chain(more) {
        give(supply, address, 64);
    }
    assert_eq!(supply.sampling.summary().live.samples, 0);
}

/// Large blocks are found by their address, whatever else happens to them.
#[test]
fn large_blocks_are_followed_by_their_address() {
    let world = World::new();
    let _here = world.enter();
    let (supply, bounds) = (supply(), StackBounds::new());
    let ground = supply.sampling_ground();
    let mut random = Random(3);
    let mut live = BTreeSet::new();
    let follow = |address: usize| {
        let caller = caller(address % 3);
        let request = Request { size: 100_000, align: 8, grown: false, caller: &caller };
        supply.sampling.follow(address, None, 100_000 + address % 7 * 8192, &request, &who(&bounds), ground);
    };
    for step in 0..20_000 {
        // Addresses that fall together in the table, too.
        let address = 0x7000_0000 + random.below(300) * 0x2000;
        match (live.contains(&address), random.below(3)) {
            (false, 0) => assert!(supply.sampling.lose_sight(address).is_none(), "step {step}"),
            (false, _) => {
                follow(address);
                live.insert(address);
            }
            (true, 0) => {
                let followed = supply.sampling.lose_sight(address).expect("it is followed");
                assert!(supply.sampling.lose_sight(address).is_none());
                supply.sampling.find_again(followed);
            }
            (true, _) => {
                assert!(supply.sampling.may_follow(address));
                supply.sampling.leave(address, 8, &supply.page_heap);
                live.remove(&address);
            }
        }
        assert_eq!(supply.sampling.summary().live.samples, live.len() as u64, "step {step}");
    }
    let sites = all_sites(&supply.sampling);
    assert!(sites.iter().all(|site| site.block_bytes == 0 && site.ended_elsewhere.samples == site.ended.samples));
    assert!(live.iter().all(|&address| supply.sampling.may_follow(address)));
}

/// A step of sizes begins where it says, and no block is smaller than the size that its chance goes by.
#[test]
fn sizes_beyond_the_classes_go_in_eighths() {
    for bytes in (1..4_000).map(|nth| nth * 8192 + 300_000).chain([1 << 30, (1 << 40) + 1, 8]) {
        let odds = odds_bytes(None, bytes);
        assert!(odds <= bytes && bytes < odds + odds / 8 + 1, "{bytes}: {odds}");
        assert_eq!(Size::of(None, bytes), Size::of(None, odds));
    }
}
