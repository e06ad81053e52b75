//! The registry on a heap that tests drive.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, OnceLock};
use std::thread;

use super::*;

/// A heap that holds what it is told.
struct Driven {
    held_bytes: AtomicUsize,
    limits: Mutex<Limits>,
    bounds: Mutex<Bounds>,
}

impl Heap for Driven {
    fn held_bytes(&self) -> usize {
        // SeqCst, here and below: the tests are about something else.
        self.held_bytes.load(Ordering::SeqCst)
    }

    fn limits(&self) -> Limits {
        *self.limits.lock().expect("nobody panics with it")
    }

    fn set_bounds(&self, bounds: Bounds) {
        *self.bounds.lock().expect("nobody panics with it") = bounds;
    }
}

type Driver = Registry<Driven>;

impl Driver {
    fn driven() -> Arc<Self> {
        let heap = Driven { held_bytes: AtomicUsize::new(0), limits: Mutex::default(), bounds: Mutex::new(Bounds::WIDEST) };
        Arc::new(Self::new(heap))
    }

    fn set_held(&self, bytes: usize) {
        self.heap.held_bytes.store(bytes, Ordering::SeqCst);
    }

    fn bounds(&self) -> Bounds {
        *self.heap.bounds.lock().expect("nobody panics with it")
    }

    fn is_outside(&self) -> bool {
        let (held, bounds) = (self.heap.held_bytes(), self.bounds());
        held >= bounds.above || held < bounds.below
    }

    /// Holds so much from now on, and looks whether to call, once, as the heap does.
    fn hold(&self, bytes: usize) {
        self.set_held(bytes);
        if self.is_outside() {
            self.heard(bytes, false);
        }
    }

    fn set_limits(&self, memory: Option<usize>, hard: Option<usize>) {
        *self.heap.limits.lock().expect("nobody panics with it") = Limits { memory, hard };
        self.heard(self.heap.held_bytes(), false);
    }

    fn register(&self, threshold: Threshold, callback: impl Fn(&Pressure) + Send + Sync + 'static) -> (Number, Callback) {
        let callback: Callback = Arc::new(callback);
        let number = self.insert(threshold, &callback);
        self.settle();
        (number, callback)
    }

    fn end(&self, number: Number) {
        self.remove(number);
        self.settle();
    }
}

/// What callbacks saw, in order.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<(char, Pressure)>>>);

impl Log {
    fn note(&self, name: char, pressure: &Pressure) {
        self.0.lock().expect("nobody panics with it").push((name, *pressure));
    }

    fn callback(&self, name: char) -> impl Fn(&Pressure) + Send + Sync + 'static {
        let log = self.clone();
        move |pressure| log.note(name, pressure)
    }

    /// Who was called since the last time.
    fn take(&self) -> String {
        self.take_all().iter().map(|&(name, _)| name).collect()
    }

    fn take_all(&self) -> Vec<(char, Pressure)> {
        std::mem::take(&mut self.0.lock().expect("nobody panics with it"))
    }
}

#[test]
fn each_crossing_calls_once() {
    let (driver, log) = (Driver::driven(), Log::default());
    let _low = driver.register(Threshold::bytes(70), log.callback('l'));
    let _high = driver.register(Threshold::bytes(90), log.callback('h'));
    assert_eq!(driver.bounds(), Bounds { above: 70, below: 0 });
    for (held, called) in
        [(69, ""), (70, "l"), (89, ""), (95, "h"), (85, ""), (95, ""), (80, ""), (91, "h"), (62, ""), (100, "lh"), (0, "")]
    {
        driver.hold(held);
        assert_eq!(log.take(), called, "at {held}");
    }
    driver.hold(75);
    let pressure = Pressure { held_bytes: 75, threshold_bytes: 70, fuse: false };
    assert_eq!(log.take_all(), [('l', pressure)]);
    assert_eq!(driver.bounds(), Bounds { above: 90, below: 63 });
}

#[test]
fn a_threshold_that_is_exceeded_already_waits_for_the_next_look() {
    let (driver, log) = (Driver::driven(), Log::default());
    driver.hold(80);
    let (number, _callback) = driver.register(Threshold::bytes(70), log.callback('a'));
    assert_eq!(log.take(), "", "registration calls nobody");
    assert_eq!(driver.bounds().above, 70);
    driver.hold(80);
    assert_eq!(log.take(), "a");
    driver.end(number);
    assert_eq!(driver.bounds(), Bounds::WIDEST);
}

#[test]
fn percentages_follow_their_limits() {
    let (driver, log) = (Driver::driven(), Log::default());
    let _memory = driver.register(Threshold::of_memory_limit(70), log.callback('m'));
    let _hard = driver.register(Threshold::of_hard_limit(90), log.callback('h'));
    assert_eq!(driver.bounds(), Bounds::WIDEST);
    driver.hold(1_000_000);
    driver.heard(1_000_000, false);
    assert_eq!(log.take(), "", "there are no limits");
    driver.hold(71);
    driver.set_limits(Some(100), None);
    assert_eq!(log.take(), "m");
    driver.set_limits(Some(105), Some(200));
    assert_eq!(driver.bounds(), Bounds { above: 73, below: 0 }, "both moved above");
    driver.hold(75);
    driver.hold(180);
    assert_eq!(log.take(), "mh");
    driver.set_limits(None, None);
    assert_eq!(driver.bounds(), Bounds::WIDEST);
}

#[test]
fn the_fuse_calls_everybody_and_crosses_nothing_else() {
    let (driver, log) = (Driver::driven(), Log::default());
    driver.set_limits(None, Some(100));
    let _crossed = driver.register(Threshold::bytes(50), log.callback('a'));
    let _armed = driver.register(Threshold::bytes(2000), log.callback('b'));
    let _without = driver.register(Threshold::of_memory_limit(1), log.callback('c'));
    driver.hold(60);
    assert_eq!(log.take(), "a");
    driver.set_held(95);
    driver.heard(95, true);
    let fuse = |threshold_bytes| Pressure { held_bytes: 95, threshold_bytes, fuse: true };
    assert_eq!(log.take_all(), [('a', fuse(50)), ('b', fuse(2000)), ('c', fuse(usize::MAX))]);
    driver.hold(2000);
    assert_eq!(log.take(), "b", "the fuse is no crossing");
    driver.heard(2000, true);
    assert_eq!(log.take(), "abc", "it can trip again");
}

#[test]
fn a_callback_that_crosses_another_threshold_has_that_one_called_afterwards() {
    let (driver, log) = (Driver::driven(), Log::default());
    let _high = driver.register(Threshold::bytes(90), log.callback('h'));
    let (registry, inner) = (Arc::downgrade(&driver), log.clone());
    let _low = driver.register(Threshold::bytes(70), move |pressure| {
        let driver = registry.upgrade().expect("it makes the call");
        inner.note('(', pressure);
        driver.hold(95);
        inner.note(')', pressure);
    });
    driver.hold(75);
    assert_eq!(log.take(), "()h");
}

#[test]
fn memory_that_rises_during_a_call_is_seen_without_the_heap() {
    let (driver, log) = (Driver::driven(), Log::default());
    let _high = driver.register(Threshold::bytes(90), log.callback('h'));
    let (registry, inner) = (Arc::downgrade(&driver), log.clone());
    let _low = driver.register(Threshold::bytes(70), move |pressure| {
        registry.upgrade().expect("it makes the call").set_held(95);
        inner.note('l', pressure);
    });
    driver.hold(75);
    assert_eq!(log.take(), "lh");
}

#[test]
fn a_crossing_that_is_over_calls_once() {
    let (driver, log) = (Driver::driven(), Log::default());
    let (registry, inner) = (Arc::downgrade(&driver), log.clone());
    let _subscription = driver.register(Threshold::bytes(70), move |pressure| {
        inner.note('a', pressure);
        // The heap comes again meanwhile.
        registry.upgrade().expect("it makes the call").heard(50, false);
        assert!(pressure.held_bytes == 95);
    });
    driver.set_held(50);
    driver.heard(95, false);
    assert_eq!(log.take(), "a");
}

#[test]
fn who_was_called_by_the_fuse_is_called_for_a_crossing_at_the_next_look() {
    let (driver, log) = (Driver::driven(), Log::default());
    let (registry, inner) = (Arc::downgrade(&driver), log.clone());
    let _rising = driver.register(Threshold::bytes(70), move |pressure| {
        registry.upgrade().expect("it makes the call").set_held(2000);
        inner.note('r', pressure);
    });
    let _high = driver.register(Threshold::bytes(2000), log.callback('h'));
    driver.set_held(95);
    driver.heard(95, true);
    assert_eq!(log.take(), "rh");
    driver.hold(2000);
    assert_eq!(log.take(), "h");
}

#[test]
fn a_panic_is_caught_and_changes_nothing() {
    /// A payload that panics when it is dropped.
    struct Mine;
    impl Drop for Mine {
        fn drop(&mut self) {
            std::panic::resume_unwind(Box::new("again"));
        }
    }
    let (driver, log) = (Driver::driven(), Log::default());
    let _first = driver.register(Threshold::bytes(10), |_| std::panic::resume_unwind(Box::new("panic")));
    let inner = log.clone();
    let _second = driver.register(Threshold::bytes(10), move |pressure| {
        inner.note('p', pressure);
        std::panic::resume_unwind(Box::new(Mine));
    });
    let _third = driver.register(Threshold::bytes(10), log.callback('q'));
    for _ in 0..3 {
        driver.hold(10);
        assert_eq!(log.take(), "pq");
        driver.hold(0);
    }
}

#[test]
fn callbacks_may_end_themselves_and_others() {
    let (driver, log) = (Driver::driven(), Log::default());
    let subscriptions: Arc<Mutex<Vec<(Number, Callback)>>> = Arc::default();
    let (registry, held, inner) = (Arc::downgrade(&driver), Arc::clone(&subscriptions), log.clone());
    let first = driver.register(Threshold::bytes(10), move |pressure| {
        inner.note('1', pressure);
        let driver = registry.upgrade().expect("it makes the call");
        for (number, callback) in std::mem::take(&mut *held.lock().expect("nobody panics with it")) {
            driver.end(number);
            drop(callback);
        }
        inner.note('.', pressure);
    });
    let second = driver.register(Threshold::bytes(10), log.callback('2'));
    let _third = driver.register(Threshold::bytes(10), log.callback('3'));
    subscriptions.lock().expect("nobody panics with it").extend([first, second]);
    driver.hold(10);
    assert_eq!(log.take(), "1.3");
    driver.hold(0);
    driver.hold(10);
    assert_eq!(log.take(), "3");
}

#[test]
fn who_registers_during_a_call_is_called_at_the_next_look() {
    let (driver, log) = (Driver::driven(), Log::default());
    let later: Arc<Mutex<Vec<(Number, Callback)>>> = Arc::default();
    let (registry, held, inner) = (Arc::downgrade(&driver), Arc::clone(&later), log.clone());
    let _first = driver.register(Threshold::bytes(10), move |pressure| {
        inner.note('1', pressure);
        let new = registry.upgrade().expect("it makes the call").register(Threshold::bytes(5), inner.callback('n'));
        held.lock().expect("nobody panics with it").push(new);
    });
    driver.hold(10);
    assert_eq!(log.take(), "1");
    driver.hold(10);
    assert_eq!(log.take(), "n");
}

#[test]
fn what_a_callback_captured_ends_with_its_subscription() {
    let driver = Driver::driven();
    let captured = Arc::new(());
    let inner = Arc::clone(&captured);
    let (number, callback) = driver.register(Threshold::bytes(10), move |_| {
        let _ = &inner;
    });
    driver.hold(10);
    assert_eq!(Arc::strong_count(&captured), 2);
    driver.end(number);
    drop(callback);
    assert_eq!(Arc::strong_count(&captured), 1, "at once, whatever the epoch still has");
}

/// Looks, as the heap does, until it is so.
fn look_until(driver: &Driver, what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..10_000_000 {
        if is_so() {
            return;
        }
        if driver.is_outside() {
            driver.heard(driver.heap.held_bytes(), false);
        }
        thread::yield_now();
    }
    panic!("{what} never comes");
}

fn is_armed(driver: &Driver, number: Number) -> bool {
    let handle = driver.collector.register();
    let guard = handle.pin();
    driver.list(&guard).iter().any(|listed| listed.number == number && listed.watch.state() == State::Armed)
}

/// Ends the other threads, also when this one panics.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn four_threads_register_under_fire() {
    const CROSSINGS: usize = 500;
    let driver = Driver::driven();
    let inside = Arc::new(AtomicBool::new(false));
    let captured = Arc::new(());
    let crossings = Arc::new(AtomicUsize::new(0));
    let stop = AtomicBool::new(false);
    let counting = |calls: &Arc<AtomicUsize>| {
        let (calls, inside, captured) = (Arc::clone(calls), Arc::clone(&inside), Arc::clone(&captured));
        move |pressure: &Pressure| {
            // What does not hold here is not counted, and missed below: the registry would catch a panic.
            if pressure.held_bytes >= pressure.threshold_bytes && !inside.swap(true, Ordering::SeqCst) {
                calls.fetch_add(1, Ordering::SeqCst);
            }
            thread::yield_now();
            inside.store(false, Ordering::SeqCst);
            let _ = &captured;
        }
    };
    let calls = Arc::new(AtomicUsize::new(0));
    let (lasting, callback) = driver.register(Threshold::bytes(900), counting(&calls));
    thread::scope(|scope| {
        for seed in 0..4_u64 {
            let (driver, crossings, stop, counting) = (&driver, &crossings, &stop, &counting);
            scope.spawn(move || {
                let mut state = seed;
                let mut random = move |below: u64| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    (state >> 33) % below
                };
                let mut mine = Vec::new();
                while !stop.load(Ordering::SeqCst) {
                    if mine.len() < 8 && random(2) == 0 {
                        let calls = Arc::new(AtomicUsize::new(0));
                        let before = crossings.load(Ordering::SeqCst);
                        let (number, callback) = driver.register(Threshold::bytes(500 + random(400) as usize), counting(&calls));
                        mine.push((number, callback, calls, before));
                    } else if !mine.is_empty() {
                        let (number, callback, calls, before) = mine.swap_remove(random(mine.len() as u64) as usize);
                        driver.end(number);
                        drop(callback);
                        let during = crossings.load(Ordering::SeqCst) - before;
                        // One more: memory may have been there already at registration.
                        assert!(calls.load(Ordering::SeqCst) <= during + 1);
                    }
                }
                for (number, ..) in mine {
                    driver.end(number);
                }
            });
        }
        let _stop = Stop(&stop);
        for crossing in 1..=CROSSINGS {
            crossings.fetch_add(1, Ordering::SeqCst);
            driver.set_held(1000);
            look_until(&driver, "the call", || calls.load(Ordering::SeqCst) >= crossing);
            driver.set_held(100);
            look_until(&driver, "the arming", || is_armed(&driver, lasting));
            assert_eq!(calls.load(Ordering::SeqCst), crossing, "one call per crossing");
        }
    });
    assert_eq!(driver.bounds(), Bounds { above: 900, below: 0 }, "only the lasting one is left");
    driver.end(lasting);
    drop(callback);
    assert_eq!(driver.bounds(), Bounds::WIDEST);
    assert_eq!(Arc::strong_count(&captured), 1, "all callbacks have ended");
}

/// The system's allocator, which calls us from within as the heap does: on the way of the allocations and frees that a thread
/// names.
struct Interrupting;

/// So many allocations and frees from now on; counted down to zero, and past it nothing happens.
type Countdown = Cell<usize>;

thread_local! {
    static FIRST: Countdown = const { Cell::new(0) };
    static SECOND: Countdown = const { Cell::new(0) };
    static INTERRUPTED: Cell<bool> = const { Cell::new(false) };
}

fn interrupt() {
    for countdown in [&FIRST, &SECOND] {
        let left = countdown.get();
        countdown.set(left.saturating_sub(1));
        // The heap does not call while a call is under way.
        if left == 1 && !INTERRUPTED.replace(true) {
            fall_and_rise();
            INTERRUPTED.set(false);
        }
    }
}

// SAFETY: the system's allocator does the work, unchanged.
unsafe impl GlobalAlloc for Interrupting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        interrupt();
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`, and we had the block from `System`.
        unsafe { System.dealloc(block, layout) };
        interrupt();
    }
}

#[global_allocator]
static GLOBAL: Interrupting = Interrupting;

fn interrupted() -> &'static Arc<Driver> {
    static DRIVER: OnceLock<Arc<Driver>> = OnceLock::new();
    DRIVER.get_or_init(Driver::driven)
}

fn fall_and_rise() {
    interrupted().hold(0);
    interrupted().hold(15);
}

/// One crossing, or two, at each allocation and free on the way of a registration and its end; its callback changes the list in
/// the middle of the change.
#[test]
fn every_allocation_on_the_way_may_call_from_within() {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let driver = interrupted();
    let _lasting = driver.register(Threshold::bytes(10), |_| {
        CALLS.fetch_add(1, Ordering::SeqCst);
        let (number, _callback) = interrupted().register(Threshold::bytes(20), |_| ());
        interrupted().end(number);
    });
    let calls_with = |first, second| {
        CALLS.store(0, Ordering::SeqCst);
        FIRST.set(first);
        SECOND.set(second);
        let (number, _callback) = driver.register(Threshold::bytes(30), |_| ());
        driver.end(number);
        let calls = CALLS.load(Ordering::SeqCst);
        let reached = (FIRST.replace(0) == 0, SECOND.replace(0) == 0);
        let handle = driver.collector.register();
        let list_length = driver.list(&handle.pin()).len();
        assert_eq!(list_length, 1, "no change was lost, {first} and {second}");
        driver.hold(0);
        assert_eq!(driver.bounds(), Bounds { above: 10, below: 0 }, "{first} and {second}");
        (calls, reached)
    };
    let mut places = 0;
    for first in 1.. {
        let (calls, (reached, _)) = calls_with(first, 0);
        if !reached {
            break;
        }
        assert_eq!(calls, 1, "at {first}");
        places = first;
    }
    assert!(places >= 8, "{places} allocations and frees");
    for first in 1..=places {
        for second in first + 1..=places {
            let (calls, reached) = calls_with(first, second);
            let least = usize::from(reached.0);
            // The second may fall into the callback of the first, or be fulfilled together with it.
            assert!((least..=2).contains(&calls), "{calls} at {first} and {second}");
        }
    }
}
