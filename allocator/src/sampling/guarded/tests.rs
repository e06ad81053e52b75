//! Guarded blocks without the heap around them: slots of one region, on the real system and on one that says no.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::os::sim::{Plan, World};

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        let random;
        (self.0, random) = chance::next(self.0);
        random
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// Slots, and what they need.
struct Yard {
    guarded: Guarded,
    meta: Meta,
    region: usize,
}

const HIGH: u64 = 1 << 63;
const LOW: u64 = 0;

impl Yard {
    fn new() -> Self {
        let places = 1 << (46 - crate::units::WINDOW_SHIFT - 2);
        let region = (1 + os::random() as usize % (places - 1)) * 4 * WINDOW_BYTES;
        Self { guarded: Guarded::new(), meta: Meta::new(), region }
    }

    fn allocate(&self, size: usize, align: usize, random: u64) -> Option<usize> {
        let class = SizeClass::of(size, align)?;
        let wanted = Wanted { size, align, class };
        let address = self.guarded.allocate(&wanted, &actor(1), random, self.region, &self.meta)?.addr().get();
        self.guarded.set_token(address, Token { site: 7, stand_in: size });
        Some(address)
    }

    fn free(&self, address: usize) -> Result<Freed, Misuse> {
        self.guarded.free(address, None, &actor(2), |_| {})
    }

    fn mistake(&self, address: usize) -> Option<Mistake> {
        self.guarded.explain(address).map(|report| report.mistake)
    }
}

fn actor(thread: u32) -> Actor<'static> {
    Actor { thread, now_ns: u64::from(thread) * 1000, stack: &[0x40_1000, 0x40_2000, 0x40_3000] }
}

fn write(address: usize, content: u8) {
    // SAFETY: an address in an open slot.
    unsafe { os::pointer(address).write_volatile(content) };
}

fn read(address: usize) -> u8 {
    // SAFETY: an address in an open slot.
    unsafe { os::pointer(address).read_volatile() }
}

#[test]
fn a_block_lies_at_one_end_of_its_slot() {
    let yard = Yard::new();
    let mut random = Random(1);
    for _ in 0..2_000 {
        let align = 1 << random.below(8);
        let size = 1 + random.below(GUARDED_BYTES_MAX);
        for side in [HIGH, LOW] {
            let address = yard.allocate(size, align, random.next() >> 1 | side).expect("a slot has rested");
            assert!(in_sampled_zone(address));
            assert!(yard.guarded.owns(address));
            assert!(address.is_multiple_of(align.max(8)));
            let unit = slot_bytes();
            if side == HIGH {
                let end = (address + size).next_multiple_of(unit);
                let padding = end - (address + size);
                assert!(padding < align.max(8), "{padding} B of padding for {size} B aligned to {align}");
                assert!(!os::is_readable(end), "closed behind it");
            } else {
                assert!(address.is_multiple_of(unit));
                assert!(!os::is_readable(address - 8), "closed before it");
            }
            for byte in [0, size / 2, size - 1] {
                write(address + byte, 0xee);
            }
            assert_eq!(yard.guarded.request_at(address), Ok((size, SizeClass::of(size, align).expect("small"))));
            let freed = yard.free(address).expect("nothing was wrong");
            assert_eq!(
                (freed.size, freed.token, freed.thread, freed.since_ns),
                (size, Token { site: 7, stand_in: size }, 1, 1000)
            );
            assert!(!os::is_readable(address & !7), "closed again");
        }
    }
    assert_eq!(yard.guarded.counts(), (4_000, 0));
}

#[test]
fn what_is_too_large_is_not_guarded() {
    let yard = Yard::new();
    assert_eq!(yard.allocate(GUARDED_BYTES_MAX + 1, 8, HIGH), None);
    assert_eq!(yard.allocate(8, 2 * GUARDED_BYTES_MAX, HIGH), None);
    assert_eq!(
        yard.guarded.allocate(&Wanted { size: 8, align: 8, class: SizeClass::from_index(0) }, &actor(1), 0, 0, &yard.meta),
        None
    );
    assert!(yard.allocate(GUARDED_BYTES_MAX, GUARDED_BYTES_MAX, HIGH).is_some());
}

#[test]
fn writing_beside_a_block_is_found_at_its_free() {
    let yard = Yard::new();
    // Alone in its slot, so that all that lies around it is pattern.
    for (side, size, offset, expected) in [
        (HIGH, 13, 13_isize, Misuse::Overflow),
        (HIGH, 13, 15, Misuse::Overflow),
        (HIGH, 64, -1, Misuse::Underflow),
        (HIGH, 64, -8000, Misuse::Underflow),
        (LOW, 64, 64, Misuse::Overflow),
        (LOW, 13, 13, Misuse::Overflow),
        (LOW, 100, 8191, Misuse::Overflow),
    ] {
        for content in [0, 1, 0xff] {
            let address = yard.allocate(size, 8, side).expect("a slot has rested");
            let place = address.wrapping_add_signed(offset);
            let before = read(place);
            assert_ne!(before, content, "what the pattern never has");
            write(place, content);
            assert_eq!(yard.guarded.damage(address), Some(place));
            assert_eq!(yard.free(address), Err(expected), "{size} B, written at {offset}");
            write(place, before);
            assert!(yard.free(address).is_ok(), "as it was");
        }
    }
}

/// A fork may come between the two: memory without a count is known of, a count without memory is not.
#[test]
fn a_free_is_counted_once_and_before_its_memory_goes() {
    let yard = Yard::new();
    let address = yard.allocate(64, 8, HIGH).expect("a slot is there");
    let mut counted = 0;
    let mut free = || {
        yard.guarded.free(address, None, &actor(2), |_| {
            assert_eq!(yard.guarded.bytes().0, slot_bytes());
            counted += 1;
        })
    };
    assert!(free().is_ok());
    assert_eq!(free(), Err(Misuse::DoubleFree));
    assert_eq!((counted, yard.guarded.bytes().0), (1, 0));
}

#[test]
fn wrong_frees_are_told_apart() {
    let yard = Yard::new();
    assert_eq!(yard.guarded.free(0x1000, None, &actor(2), |_| {}), Err(Misuse::NeverAllocated));
    let address = yard.allocate(64, 8, HIGH).expect("a slot is there");
    let class = SizeClass::of(64, 8).expect("small");
    let other = SizeClass::of(72, 8).expect("small");
    assert_eq!(yard.guarded.free(address, Some(other), &actor(2), |_| {}), Err(Misuse::SizeMismatch));
    assert_eq!(yard.free(address + 8), Err(Misuse::Interior));
    assert_eq!(yard.free(address + slot_bytes()), Err(Misuse::NeverAllocated), "a closed page");
    assert_eq!(yard.free(address + 2 * slot_bytes()), Err(Misuse::NeverAllocated), "a slot that was never used, or no slot");
    assert!(yard.guarded.free(address, Some(class), &actor(2), |_| {}).is_ok());
    assert_eq!(yard.free(address), Err(Misuse::DoubleFree));
    assert_eq!(yard.free(address + 8), Err(Misuse::NeverAllocated));
}

#[test]
fn of_two_frees_at_the_same_instant_one_wins() {
    let yard = Yard::new();
    for round in 0..2_000 {
        let address = yard.allocate(64, 8, round << 40).expect("a slot has rested");
        let won = std::thread::scope(|scope| {
            let other = scope.spawn(|| yard.free(address).is_ok());
            usize::from(yard.free(address).is_ok()) + usize::from(other.join().expect("it went well"))
        });
        // The other one looks at nothing that is being closed.
        assert_eq!(won, 1);
    }
}

#[test]
fn faults_are_explained_by_the_nearest_block() {
    let yard = Yard::new();
    // Three slots side by side.
    let mut found = BTreeSet::new();
    let mut seed = Random(3);
    while let Some(address) = yard.allocate(100, 4, seed.next() | HIGH) {
        found.insert(address);
    }
    let all: Vec<usize> = found.into_iter().collect();
    assert_eq!(all.len(), SLOTS, "all of them");
    let (left, middle) = (all[4], all[5]);
    assert_eq!(middle - left, 2 * slot_bytes());
    let end = left + 100;
    assert_eq!(yard.mistake(end + 4), Some(Mistake::Overflow(5)));
    assert_eq!(yard.mistake(end + 4096), Some(Mistake::Overflow(4097)));
    let before_slot = middle / slot_bytes() * slot_bytes() - 1;
    assert_eq!(
        yard.mistake(before_slot),
        Some(Mistake::Underflow(middle - before_slot)),
        "nearer to this one, although it lies high"
    );
    assert_eq!(yard.mistake(all[0] / slot_bytes() * slot_bytes() - 1), Some(Mistake::Underflow(all[0] % slot_bytes() + 1)));
    yard.free(left).expect("all is well");
    assert_eq!(yard.mistake(left), Some(Mistake::UseAfterFree(0)));
    assert_eq!(yard.mistake(left + 99), Some(Mistake::UseAfterFree(99)));
    assert_eq!(yard.mistake(left - 8), Some(Mistake::UseAfterFree(-8)));
    assert_eq!(yard.mistake(before_slot), Some(Mistake::Underflow(middle - before_slot)), "a live block is likelier");
    yard.free(middle).expect("all is well");
    assert!(matches!(yard.mistake(before_slot), Some(Mistake::UseAfterFree(_))));
    let far = all[0] / slot_bytes() * slot_bytes() - slot_bytes() - 1;
    assert_eq!(yard.mistake(far), None, "not ours");
    assert_eq!(yard.mistake(0), None);
    let fresh = Yard::new();
    let only = fresh.allocate(8, 8, 5).expect("a slot is there");
    let beyond = only + 10 * slot_bytes();
    assert_eq!(fresh.mistake(beyond), Some(Mistake::Wild));
}

#[test]
fn a_slot_rests_until_half_as_many_others_were_freed() {
    let yard = Yard::new();
    let mut random = Random(os::random());
    let mut freed_at = BTreeMap::new();
    let mut order = Vec::new();
    for round in 0..10_000_usize {
        let address = yard.allocate(64, 8, random.next() | HIGH).expect("enough slots have rested");
        if let Some(before) = freed_at.insert(address, round) {
            assert!(round - before > SLOTS / 2, "freed in round {before}, used again in round {round}");
            order.push(round - before);
        }
        yard.free(address).expect("all is well");
    }
    assert_eq!(freed_at.len(), SLOTS, "every slot has its turn");
    order.sort_unstable();
    order.dedup();
    assert!(order.len() > SLOTS / 2, "in no order");
}

#[test]
fn when_all_slots_are_in_use_there_is_none() {
    let yard = Yard::new();
    let mut random = Random(os::random());
    let all: Vec<usize> = (0..SLOTS).map(|_| yard.allocate(64, 8, random.next()).expect("a slot is unused")).collect();
    assert_eq!(yard.allocate(64, 8, random.next()), None);
    assert_eq!(yard.guarded.bytes(), (SLOTS * slot_bytes(), (SLOTS + 1) * slot_bytes()));
    for &address in &all[..SLOTS / 2] {
        yard.free(address).expect("all is well");
    }
    assert_eq!(yard.allocate(64, 8, random.next()), None, "none has rested");
    yard.free(all[SLOTS - 1]).expect("all is well");
    assert!(yard.allocate(64, 8, random.next()).is_some(), "the first one has");
}

#[test]
fn a_system_that_says_no_leaves_the_block_an_ordinary_one() {
    // Every call fails once; then all from some point on.
    for nth in 0..8 {
        for plan in [Plan::Once(nth), Plan::From(nth)] {
            let world = World::new();
            let _here = world.enter();
            let yard = Yard::new();
            world.plan(plan);
            let mut random = Random(nth);
            for _ in 0..200 {
                if let Some(address) = yard.allocate(64, 8, random.next()) {
                    write(address, 1);
                    write(address + 63, 1);
                    yard.free(address).expect("nothing was wrong");
                }
            }
            world.plan(Plan::Nothing);
            let (_, live) = yard.guarded.counts();
            assert_eq!(live, 0);
            assert!(yard.allocate(64, 8, 1).is_some() || yard.guarded.run.load(Ordering::Relaxed) == NEVER, "it heals: {plan:?}");
        }
    }
    let world = World::new();
    let _here = world.enter();
    world.limit(run_bytes() - 1);
    let yard = Yard::new();
    assert_eq!(yard.allocate(64, 8, 1), None);
    world.limit(usize::MAX);
    assert_eq!(yard.allocate(64, 8, 1), None, "not tried again");
}

/// Many threads at once: every block is whole, no alarm is false.
#[test]
fn threads_share_the_slots() {
    let yard = Yard::new();
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let yard = &yard;
            scope.spawn(move || {
                let mut random = Random(thread);
                let mut held: Vec<(usize, usize)> = Vec::new();
                for _ in 0..20_000 {
                    if held.len() < 8 && random.below(2) == 0 {
                        let bits = random.below(14);
                        let size = 1 + random.below(1 << bits).min(GUARDED_BYTES_MAX - 1);
                        if let Some(address) = yard.allocate(size, 8, random.next()) {
                            write(address, thread as u8);
                            write(address + size - 1, thread as u8);
                            held.push((address, size));
                        }
                    } else if !held.is_empty() {
                        let (address, size) = held.swap_remove(random.below(held.len()));
                        assert_eq!((read(address), read(address + size - 1)), (thread as u8, thread as u8));
                        assert_eq!(yard.free(address).expect("nothing was wrong").size, size);
                    }
                }
                for (address, _) in held {
                    assert!(yard.free(address).is_ok());
                }
            });
        }
    });
    assert_eq!(yard.guarded.counts().1, 0);
    assert!(yard.guarded.counts().0 > 10_000);
}

#[test]
fn one_in_so_many_bytes_is_guarded() {
    const INTERVAL: usize = 64 << 20;
    let guarded = Guarded::new();
    assert_eq!(guarded.is_next(8, 1 << 40, 0), None, "nobody wants any");
    assert!((0..1000).all(|_| guarded.is_next(8, 8, 1).is_some()));
    let samples = 2_000_000_u32;
    let drawn = (0..samples).filter(|_| guarded.is_next(100, 512 << 10, INTERVAL).is_some()).count();
    let expected = f64::from(samples) / 128.0;
    // A Poisson process, seen every 512 KiB.
    assert!((drawn as f64 - expected).abs() < 5.0 * expected.sqrt() + expected / 200.0, "{drawn}, not {expected}");
    while guarded.until.load(Ordering::Relaxed) > 0 {
        assert_eq!(guarded.is_next(GUARDED_BYTES_MAX + 1, 512 << 10, INTERVAL), None);
    }
    assert!(guarded.is_next(8, 8, INTERVAL).is_some(), "one that is too large leaves its turn");
    assert_eq!(guarded.is_next(8, 1 << 40, 0), None);
}
