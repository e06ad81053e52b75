use super::record::Life;
use super::*;
use crate::frames::Caller;
use crate::os::sim::{Plan, World};
use crate::sampling::Request;
use crate::slot::SlotCounts;
use crate::snapshot;
use std::collections::BTreeMap;
use std::sync::mpsc;

struct Heap {
    supply: Supply,
    registry: Registry<Record>,
}

/// For good: its mappings and records outlive it.
fn heap() -> &'static Heap {
    Box::leak(Box::new(Heap { supply: Supply::new(), registry: Registry::new() }))
}

/// One thread's view of a heap, and what it knows to be live.
struct Thread {
    heap: &'static Heap,
    record: &'static Record,
}

impl Thread {
    fn born(heap: &'static Heap) -> Self {
        Self { heap, record: birth(&heap.registry, &heap.supply).expect("memory is there") }
    }

    fn ends(self) {
        self.record.set_life(Life::Pooled);
        self.heap.registry.pool(self.record);
    }

    fn alloc(&self, class: SizeClass) -> Option<usize> {
        let popped = match class.shape() {
            // SAFETY: this thread owns the record.
            Shape::Split => unsafe { self.record.hot().split(class).pop() }.or_else(|| self.record.alloc_quickly(class)),
            // SAFETY: as above.
            Shape::Stack => unsafe { self.record.hot().stack(class).pop() }.map(|taken| taken.block),
            Shape::Whole => None,
        };
        let block = popped.or_else(|| self.record.alloc_slow(class, &REQUEST, &self.heap.supply).map(|taken| taken.block))?;
        Some(block.addr().get())
    }

    fn free(&self, address: usize, class: SizeClass) {
        let block = os::block(address);
        let pushed = !in_sampled_zone(address)
            && match class.shape() {
                // SAFETY: this thread owns the record, and the test has the block.
                Shape::Split => (unsafe { self.record.hot().split(class).push(block) }) || self.record.free_quickly(block, class),
                // SAFETY: as above.
                Shape::Stack => unsafe { self.record.hot().stack(class).push(block) },
                Shape::Whole => false,
            };
        if !pushed {
            self.record.free_slow(block, class, REQUEST.caller, &self.heap.supply);
        }
    }
}

/// From nowhere.
const REQUEST: Request<'static> =
    Request { size: 8, align: 8, grown: false, caller: &Caller { stack_pointer: 0, frame_pointer: 0, return_address: 0 } };

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) as usize % bound
    }

    /// Small classes more often than large ones.
    fn class(&mut self) -> SizeClass {
        let among = [16, SizeClass::SMALL_COUNT, SizeClass::INLINE_COUNT, SizeClass::COUNT][self.below(4)];
        SizeClass::from_index(self.below(among))
    }
}

/// Central knows what is out; threads and depots know what they have; the rest must be live.
fn check_conservation(heap: &Heap, live: impl Fn(SizeClass) -> u64) {
    for class in SizeClass::all() {
        let cached: u64 = heap.registry.records().map(|record| record.counts(class).0.cached).sum();
        let depot = heap.supply.depot(class).blocks() as u64;
        assert_eq!(heap.supply.central(class).out(), live(class) + cached + depot, "class {}", class.index());
    }
    let snapshot = snapshot::take(&heap.supply, &heap.registry);
    assert!(!snapshot.approximate, "{snapshot:?}");
    let live: u64 = SizeClass::all().map(|class| live(class) * class.bytes() as u64).sum();
    assert_eq!(snapshot.bytes.live as u64, live);
}

/// A walk over all classes beside a map of who has which bytes and a table of how often what was done.
fn walk(thread: &Thread, seed: u64, steps: usize, mut between: impl FnMut(usize)) {
    let mut random = Random(seed);
    let mut live: BTreeMap<usize, SizeClass> = BTreeMap::new();
    let mut done = vec![(0_u64, 0_u64); SizeClass::COUNT];
    let before: Vec<SlotCounts> = SizeClass::all().map(|class| thread.record.counts(class).0).collect();
    for step in 0..steps {
        let growing = step / 3_000 % 2 == 0;
        if random.below(10) < if growing { 6 } else { 4 } {
            let class = random.class();
            let Some(address) = thread.alloc(class) else { continue };
            assert_eq!(address % (class.bytes() & class.bytes().wrapping_neg()).min(8192), 0, "aligned like its class");
            if let Some((before, other)) = live.range(..=address).next_back() {
                assert!(before + other.bytes() <= address, "two owners");
            }
            assert!(live.range(address..address + class.bytes()).next().is_none(), "two owners");
            live.insert(address, class);
            done[class.index()].0 += 1;
        } else if let Some((&address, &class)) = live.range(random.below(usize::MAX >> 1)..).next().or_else(|| live.iter().next())
        {
            live.remove(&address);
            thread.free(address, class);
            done[class.index()].1 += 1;
        }
        between(step);
        if step % 1_024 == 0 {
            for class in SizeClass::all() {
                let (counts, exact) = thread.record.counts(class);
                let before = before[class.index()];
                assert!(exact);
                assert_eq!(
                    (counts.allocations - before.allocations, counts.frees - before.frees),
                    done[class.index()],
                    "class {}",
                    class.index()
                );
            }
        }
    }
    check_conservation(thread.heap, |class| live.values().filter(|other| **other == class).count() as u64);
    for (address, class) in live {
        thread.free(address, class);
    }
    check_conservation(thread.heap, |_| 0);
}

#[test]
fn a_random_walk_counts_exactly_and_hands_no_byte_to_two() {
    let heap = heap();
    let thread = Thread::born(heap);
    walk(&thread, 1, 150_000, |_| {});
    thread.record.drain(&heap.supply);
    check_conservation(heap, |_| 0);
    assert!(SizeClass::all().all(|class| heap.supply.depot(class).blocks() == 0 || class.shape() != Shape::Whole));
}

#[test]
fn every_exchange_may_be_checked() {
    let heap = heap();
    heap.supply.set_check_every_exchange(true);
    walk(&Thread::born(heap), 2, 60_000, |_| {});
}

#[test]
fn a_drained_record_begins_anew() {
    let heap = heap();
    let thread = Thread::born(heap);
    for round in 0..20 {
        // Frees first after a drain: there is a free array then, but no alloc array.
        let class = SizeClass::of(64, 1).expect("within the table");
        let blocks: Vec<usize> = (0..300).map(|_| thread.alloc(class).expect("memory is there")).collect();
        thread.record.drain(&heap.supply);
        assert!(thread.record.is_empty(), "round {round}");
        for address in blocks {
            thread.free(address, class);
        }
    }
    check_conservation(heap, |_| 0);
}

#[test]
fn records_are_adopted_with_all_they_hold() {
    let heap = heap();
    let class = SizeClass::of(100, 1).expect("within the table");
    for _ in 0..1_000 {
        let thread = Thread::born(heap);
        let block = thread.alloc(class).expect("memory is there");
        thread.free(block, class);
        thread.ends();
    }
    assert_eq!(heap.registry.count(), 1);
    let record = heap.registry.records().next().expect("there is one");
    assert_eq!((record.counts(class).0.allocations, record.counts(class).0.frees), (1_000, 1_000));
    check_conservation(heap, |_| 0);
}

#[test]
fn the_chosen_allocation_is_sampled_and_no_other() {
    let heap = heap();
    let thread = Thread::born(heap);
    for bytes in [64, 1024, 4096, 32 << 10] {
        let class = SizeClass::of(bytes, 1).expect("within the table");
        for nth in [1, 2, 3, 4, 5, 127, 128, 129, 1_000] {
            assert!(thread.record.sample_after(class, nth));
            let mut live = Vec::new();
            for allocation in 1..=nth + 300 {
                let address = thread.alloc(class).expect("memory is there");
                assert_eq!(in_sampled_zone(address), allocation == nth, "{allocation} of {nth}, {bytes} B");
                live.push(address);
                // Frees in between move the arrays about, which must not move the sample.
                if allocation % 3 == 0 && allocation != nth {
                    let last = live.len() - 2;
                    let address = live.swap_remove(last);
                    if in_sampled_zone(address) {
                        live.push(address);
                    } else {
                        thread.free(address, class);
                    }
                }
            }
            for address in live {
                thread.free(address, class);
            }
            check_conservation(heap, |_| 0);
        }
    }
    let counters = heap.supply.counters();
    assert_eq!((counters.get(Event::Sampled), counters.get(Event::SampledEnd)), (36, 36));
}

#[test]
fn what_a_thread_caches_stays_within_its_budget() {
    let heap = heap();
    let thread = Thread::born(heap);
    let mut random = Random(5);
    let mut live: Vec<(usize, SizeClass)> = Vec::new();
    for _ in 0..400_000 {
        let class = SizeClass::from_index(random.below(SizeClass::INLINE_COUNT));
        if live.len() < 2_000 {
            live.push((thread.alloc(class).expect("memory is there"), class));
        } else {
            let (address, class) = live.swap_remove(random.below(2_000));
            thread.free(address, class);
        }
    }
    let cached: usize = SizeClass::all().map(|class| thread.record.counts(class).0.cached as usize * class.bytes()).sum();
    // Two arrays may hold twice their depth for a moment; the first few blocks of every class are always granted.
    let granted: usize =
        SizeClass::all().take(SizeClass::INLINE_COUNT).map(|class| crate::supply::depth_min(class) * class.bytes()).sum();
    let most = 2 * (crate::config::BUDGET_MAX_BYTES + granted);
    assert!(cached <= most, "{cached} bytes cached, at most {most} expected");
}

#[test]
fn blocks_wander_between_threads_and_none_is_lost() {
    let heap = heap();
    let (to_second, at_second) = mpsc::sync_channel::<(usize, SizeClass)>(500);
    let (to_first, at_first) = mpsc::sync_channel::<(usize, SizeClass)>(500);
    let work = |seed: u64, outbox: mpsc::SyncSender<(usize, SizeClass)>, inbox: mpsc::Receiver<(usize, SizeClass)>| {
        let thread = Thread::born(heap);
        let mut random = Random(seed);
        let stamp = |address: usize, class: SizeClass| (address ^ class.index()) as u64;
        for _ in 0..60_000 {
            let class = SizeClass::from_index(random.below(SizeClass::INLINE_COUNT));
            let address = thread.alloc(class).expect("memory is there");
            // SAFETY: a block of at least 8 bytes that this thread has.
            unsafe { os::pointer(address).cast::<u64>().write(stamp(address, class)) };
            if let Err(mpsc::TrySendError::Full((address, class)) | mpsc::TrySendError::Disconnected((address, class))) =
                outbox.try_send((address, class))
            {
                thread.free(address, class);
            }
            while let Ok((address, class)) = inbox.try_recv() {
                // SAFETY: the other thread sent it and has it no more.
                assert_eq!(unsafe { os::pointer(address).cast::<u64>().read() }, stamp(address, class));
                thread.free(address, class);
            }
        }
        drop(outbox);
        for (address, class) in inbox {
            thread.free(address, class);
        }
        thread.ends();
    };
    std::thread::scope(|scope| {
        scope.spawn(|| work(1, to_second, at_first));
        scope.spawn(|| work(2, to_first, at_second));
    });
    check_conservation(heap, |_| 0);
}

/// Every call to the system fails at every place, once and from then on; afterwards the heap works and its accounts hold.
#[test]
fn every_call_may_fail_at_every_place() {
    let script = |world: &World, plan: Plan| {
        world.plan(plan);
        let heap = heap();
        if let Some(record) = birth(&heap.registry, &heap.supply) {
            walk(&Thread { heap, record }, 3, 3_000, |_| {});
        }
        world.plan(Plan::Nothing);
        walk(&Thread::born(heap), 4, 3_000, |_| {});
    };
    let calls = {
        let world = World::new();
        let _here = world.enter();
        script(&world, Plan::Nothing);
        world.calls()
    };
    assert!(calls > 10, "the script makes {calls} calls");
    for at in 0..calls {
        for plan in [Plan::Once(at), Plan::From(at)] {
            let world = World::new();
            let _here = world.enter();
            script(&world, plan);
            // Which shard of a depot is the nearest depends on the processor, so that now and then there are fewer calls than the first time.
            assert!(world.failed() > 0 || world.calls() <= at, "{plan:?}");
        }
    }
}

/// A reader that looks while two threads work never sees more frees than allocations, and never less than before.
#[test]
fn a_reader_sees_counts_that_only_grow() {
    let heap = heap();
    let done = core::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..2)
            .map(|seed| {
                scope.spawn(move || {
                    let thread = Thread::born(heap);
                    let mut random = Random(seed);
                    let mut live: Vec<(usize, SizeClass)> = Vec::new();
                    for _ in 0..300_000 {
                        if live.len() < 500 && random.below(2) == 0 {
                            let class = SizeClass::from_index(random.below(SizeClass::INLINE_COUNT));
                            live.push((thread.alloc(class).expect("memory is there"), class));
                        } else if !live.is_empty() {
                            let nth = random.below(live.len());
                            let (address, class) = live.swap_remove(nth);
                            thread.free(address, class);
                        }
                    }
                    for (address, class) in live {
                        thread.free(address, class);
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            let mut last = (0, 0);
            while !done.load(Ordering::Relaxed) {
                let now = snapshot::take(&heap.supply, &heap.registry);
                assert!(now.frees <= now.allocations, "{} frees of {} allocations", now.frees, now.allocations);
                if !now.approximate {
                    assert!(now.allocations >= last.0);
                    assert!(now.frees >= last.1);
                    last = (now.allocations, now.frees);
                }
            }
        });
        for worker in workers {
            worker.join().expect("no worker panics");
        }
        done.store(true, Ordering::Relaxed);
    });
    check_conservation(heap, |_| 0);
}

/// A thread that was stopped in the middle of an operation when its cache was taken, and ends that operation later.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stopped {
    Nowhere,
    /// It is about to take a block.
    Popping,
    /// It is about to leave one.
    Pushing,
}

#[test]
fn a_recalled_cache_loses_nothing_wherever_its_thread_was_stopped() {
    let mut random = Random(77);
    for bytes in [8, 64, 1024, 1152, 4096, 32 << 10] {
        let class = SizeClass::of(bytes, 1).expect("within the table");
        for (round, stopped) in [Stopped::Nowhere, Stopped::Popping, Stopped::Pushing].into_iter().cycle().take(300).enumerate() {
            // Takes the heap's mappings along when it ends: there is a new one in every round.
            let world = World::new();
            let _here = world.enter();
            let heap = heap();
            let thread = Thread::born(heap);
            let other = Thread::born(heap);
            let mut live: Vec<usize> = Vec::new();
            for _ in 0..random.below(600) {
                if random.below(2) == 0 || live.is_empty() {
                    live.push(thread.alloc(class).expect("memory is there"));
                } else {
                    let index = random.below(live.len());
                    thread.free(live.swap_remove(index), class);
                }
            }
            let in_hand = if live.is_empty() { None } else { Some(live.swap_remove(0)) };
            let before = thread.record.counts(class).0;
            thread.record.recall(&heap.supply);
            assert!(thread.record.is_empty());
            let recalled = thread.record.counts(class).0;
            assert_eq!((recalled.allocations, recalled.frees), (before.allocations, before.frees));
            assert!(recalled.cached <= 1, "{recalled:?}");
            // Somebody else gets what was taken, and must not meet what the thread may still take.
            let mut others: Vec<usize> = (0..random.below(300)).filter_map(|_| other.alloc(class)).collect();
            // Now the operation ends; the slots are where they were.
            match (stopped, in_hand) {
                (Stopped::Popping, _) => {
                    let popped = match class.shape() {
                        // SAFETY: the test is this thread, stopped in the middle of this.
                        Shape::Split => unsafe { thread.record.hot().split(class).pop() }.map(|block| block.addr().get()),
                        // SAFETY: as above.
                        _ => unsafe { thread.record.hot().stack(class).pop() }.map(|taken| taken.block.addr().get()),
                    };
                    live.extend(popped);
                    live.extend(in_hand);
                }
                (Stopped::Pushing, Some(block)) => {
                    let pushed = match class.shape() {
                        // SAFETY: as above, and the test has the block.
                        Shape::Split => unsafe { thread.record.hot().split(class).push(os::block(block)) },
                        // SAFETY: as above.
                        _ => unsafe { thread.record.hot().stack(class).push(os::block(block)) },
                    };
                    if !pushed {
                        live.push(block);
                    }
                }
                _ => live.extend(in_hand),
            }
            thread.record.settle(&heap.supply);
            assert_eq!(thread.record.counts(class).0.cached, 0, "{stopped:?}");
            others.extend((0..random.below(300)).filter_map(|_| thread.alloc(class)));
            let mut all: Vec<usize> = live.iter().chain(&others).copied().collect();
            all.sort_unstable();
            assert!(
                all.windows(2).all(|pair| pair[0] + class.bytes() <= pair[1]),
                "two owners in round {round}, {stopped:?}, {bytes} B"
            );
            check_conservation(heap, |of| if of == class { all.len() as u64 } else { 0 });
            for address in all {
                thread.free(address, class);
            }
            check_conservation(heap, |_| 0);
        }
    }
}

#[test]
fn caches_are_taken_again_and_again() {
    let heap = heap();
    let thread = Thread::born(heap);
    let mut random = Random(5);
    walk(&thread, 3, 60_000, |_| {
        if random.below(400) == 0 {
            let counts = || {
                SizeClass::all()
                    .map(|class| thread.record.counts(class).0)
                    .map(|its| (its.allocations, its.frees))
                    .collect::<Vec<_>>()
            };
            let before = counts();
            thread.record.recall(&heap.supply);
            assert_eq!(counts(), before);
            thread.record.settle(&heap.supply);
            assert_eq!(counts(), before);
        }
    });
}

#[test]
fn what_a_thread_did_not_use_for_a_while_goes() {
    let heap = heap();
    let thread = Thread::born(heap);
    let (used, idle) = (SizeClass::of(64, 1).expect("within the table"), SizeClass::of(640, 1).expect("within the table"));
    let churn = |class| {
        let blocks: Vec<usize> = (0..500).map(|_| thread.alloc(class).expect("memory is there")).collect();
        for block in blocks {
            thread.free(block, class);
        }
    };
    churn(idle);
    for _ in 0..600 {
        thread.record.next_entry();
    }
    assert!(thread.record.shed_is_due(1).is_none(), "not yet");
    let before = thread.record.shed_is_due(100).expect("it is time");
    assert_eq!(before, 0);
    let before = thread.record.entry();
    for _ in 0..20 {
        thread.record.next_entry();
        churn(used);
    }
    thread.record.shed_idle(before, &heap.supply);
    assert_eq!(thread.record.counts(idle).0.cached, 0);
    assert!(thread.record.counts(used).0.cached > 0);
    check_conservation(heap, |_| 0);
}

#[test]
fn counts_do_not_begin_anew_with_the_number_of_changes() {
    let world = World::new();
    let _entered = world.enter();
    let heap = heap();
    let thread = Thread::born(heap);
    for class in [SizeClass::from_index(7), SizeClass::from_index(SizeClass::SMALL_COUNT)] {
        let blocks: Vec<usize> = (0..5000).map(|_| thread.alloc(class).expect("memory is there")).collect();
        thread.record.cold(class).wind_up();
        let (before, _) = thread.record.counts(class);
        assert_eq!(before.allocations, 5000);
        for (count, &block) in blocks.iter().enumerate() {
            thread.free(block, class);
            let (counts, _) = thread.record.counts(class);
            assert_eq!((counts.allocations, counts.frees), (5000, count as u64 + 1));
        }
    }
}
