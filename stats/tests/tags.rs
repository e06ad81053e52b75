//! Tags on a program that runs on Freestone, this one: what is allocated within a scope, or by a future, is on account of its tag, to the byte, and nobody
//! else's; wherever scopes begin and end, and whatever thread a future is polled and dropped on.

use std::future::poll_fn;
use std::hint::black_box;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use freestone::{Freestone, control};
use freestone_stats::tag::{self, BudgetState, Tag, TagStats, Tagged, TaggedFuture};

#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

/// Of 104 bytes, which is a size class.
type Block = Box<[u8; 104]>;

/// So many blocks.
fn allocate(count: usize) -> Vec<Block> {
    (0..count).map(|_| black_box(Box::new([1; 104]))).collect()
}

/// So many bytes are allocated by [`allocate`], and by nothing else: the list was there before.
fn fill(list: &mut Vec<Block>, count: usize) {
    for _ in 0..count {
        list.push(black_box(Box::new([1; 104])));
    }
}

fn of(name: &str) -> TagStats {
    *tag::tags().iter().find(|stats| stats.name == name).unwrap_or_else(|| panic!("there is no tag {name}"))
}

/// Own allocations and bytes, then those with all within.
fn counts(name: &str) -> [u64; 4] {
    let stats = of(name);
    [stats.allocations, stats.allocated_bytes, stats.total_allocations, stats.total_allocated_bytes]
}

fn blocks(own: u64, total: u64) -> [u64; 4] {
    [own, own * 104, total, total * 104]
}

/// One after the other: a tag's counts are the whole process's.
#[test]
fn what_a_tag_allocates_is_on_its_account() {
    nothing_is_there_before_the_first();
    the_quick_count_is_the_whole_count();
    scopes_lie_in_each_other();
    scopes_end_in_any_order();
    scopes_repeat_and_are_too_many();
    futures_take_their_tag_along();
    open_scopes_count();
    threads_end_with_open_scopes();
    threads_begin_with_a_scope();
    live_is_estimated_and_budgets_call();
    the_set_is_bounded();
}

fn nothing_is_there_before_the_first() {
    assert!(tag::tags().is_empty());
    assert!(tag::report().starts_with("no tag was ever set"), "{}", tag::report());
}

/// Scopes go by a count that leaves out classes which the thread never used.
fn the_quick_count_is_the_whole_count() {
    every_class();
    thread::spawn(every_class).join().expect("nobody panics");
    // One that has the cache of an ended one, and changes what it samples.
    control::set_sample_interval(1000);
    thread::spawn(every_class).join().expect("nobody panics");
    control::set_sample_interval(0);
    thread::spawn(every_class).join().expect("nobody panics");
    control::set_sample_interval(512 << 10);
}

/// Up to a megabyte, and in odd order.
fn every_class() {
    let mut kept: Vec<Vec<u8>> = Vec::new();
    for step in 0..700 {
        let bytes = (f64::from(step * 37 % 700) / 35.0).exp2() as usize;
        kept.push(black_box(vec![1; bytes]));
        check_count();
        if step % 3 == 0 {
            kept.swap_remove(step as usize % kept.len());
            check_count();
        }
    }
}

fn check_count() {
    let quick = freestone::thread_allocated();
    let whole = freestone::this_thread().map(|thread| [thread.allocations, thread.allocated_bytes]);
    assert_eq!(quick, whole);
}

fn scopes_lie_in_each_other() {
    let mut list = Vec::with_capacity(100);
    fill(&mut list, 1);
    {
        let _outer = freestone_stats::tag("outer");
        fill(&mut list, 10);
        {
            let _inner = freestone_stats::tag("inner");
            fill(&mut list, 5);
            let _none = freestone_stats::tag(Tag::NONE);
            fill(&mut list, 3);
        }
        fill(&mut list, 2);
    }
    fill(&mut list, 7);
    assert_eq!(counts("outer"), blocks(12, 20));
    assert_eq!(counts("inner"), blocks(5, 8));
    assert_eq!(of("outer").enters, 1);
}

fn scopes_end_in_any_order() {
    let mut list = Vec::with_capacity(100);
    let first = freestone_stats::tag("first");
    let second = freestone_stats::tag("second");
    let third = freestone_stats::tag("third");
    fill(&mut list, 1);
    drop(second);
    fill(&mut list, 2);
    drop(first);
    fill(&mut list, 4);
    drop(third);
    fill(&mut list, 8);
    assert_eq!(counts("third"), blocks(7, 7));
    assert_eq!(counts("second"), blocks(0, 1));
    assert_eq!(counts("first"), blocks(0, 3));
}

fn recurse(depth: usize, list: &mut Vec<Block>) {
    let _again = freestone_stats::tag("again");
    fill(list, 1);
    if depth > 0 {
        recurse(depth - 1, list);
    }
}

fn scopes_repeat_and_are_too_many() {
    let mut list = Vec::with_capacity(1000);
    recurse(99, &mut list);
    assert_eq!(counts("again"), blocks(100, 100));
    assert_eq!(of("again").enters, 100);
    // The same tag outside and far within: what is within both counts once.
    {
        let _a = freestone_stats::tag("around");
        let _b = freestone_stats::tag("between");
        let _c = freestone_stats::tag("around");
        fill(&mut list, 3);
    }
    assert_eq!(counts("around"), blocks(3, 3));
    assert_eq!(counts("between"), blocks(0, 3));
    // The outer one ends first.
    {
        let a = freestone_stats::tag("around");
        let _b = freestone_stats::tag("between");
        let _c = freestone_stats::tag("around");
        fill(&mut list, 3);
        drop(a);
        fill(&mut list, 1);
    }
    assert_eq!(counts("around"), blocks(7, 7));
    let tags: Vec<Tag> = (0..40).map(|number| Tag::new(&format!("depth {number}"))).collect();
    let scopes: Vec<_> = tags.iter().map(|&tag| freestone_stats::tag(tag)).collect();
    fill(&mut list, 1);
    drop(scopes);
    assert_eq!(counts("depth 31"), [1, 104, 1, 104], "the last for which there was room");
    assert_eq!(counts("depth 39"), [0; 4]);
    fill(&mut list, 1);
    assert_eq!(counts("depth 31"), [1, 104, 1, 104], "and all of them have ended");
}

/// Allocates as it is polled, the second time, and as it is dropped.
struct Busy {
    list: Vec<Block>,
    polls: usize,
}

impl Future for Busy {
    type Output = usize;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<usize> {
        self.polls += 1;
        let count = self.polls;
        fill(&mut self.list, count);
        if self.polls == 3 { Poll::Ready(self.list.len()) } else { Poll::Pending }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        fill(&mut self.list, 10);
    }
}

fn busy() -> Busy {
    Busy { list: Vec::with_capacity(100), polls: 0 }
}

fn futures_take_their_tag_along() {
    let mut task = Box::pin(busy().tagged("tenant-42"));
    let poll = |task: &mut Pin<Box<TaggedFuture<Busy>>>| task.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(poll(&mut task).is_pending());
    assert_eq!(counts("tenant-42"), blocks(1, 1));
    allocate(50);
    // On another thread, and with a tag of its own around it.
    let mut task = thread::spawn(move || {
        let _around = freestone_stats::tag("worker");
        assert!(poll(&mut task).is_pending());
        task
    })
    .join()
    .expect("nobody panics");
    assert_eq!(counts("tenant-42"), blocks(3, 3));
    assert_eq!(of("worker").total_allocations, 2);
    assert_eq!(of("worker").allocations, 0);
    assert_eq!(poll(&mut task), Poll::Ready(6));
    assert_eq!(counts("tenant-42"), blocks(6, 6));
    thread::spawn(move || drop(task)).join().expect("nobody panics");
    assert_eq!(counts("tenant-42"), blocks(16, 16), "the destructor is its own");
    // Two in turns on one thread, in a third.
    let (mut a, mut b) = (pin!(busy().tagged("a")), pin!(busy().tagged("b")));
    let both = poll_fn(|context| {
        let [a, b] = [a.as_mut().poll(context), b.as_mut().poll(context)];
        if a.is_ready() && b.is_ready() { Poll::Ready(()) } else { Poll::Pending }
    });
    let mut both = pin!(both.tagged("both"));
    while both.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {}
    assert_eq!(counts("a"), blocks(6, 6));
    assert_eq!(counts("b"), blocks(6, 6));
    assert_eq!(counts("both"), blocks(0, 12));
}

fn open_scopes_count() {
    let (ready, go_on) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (is_ready, may_go_on) = (Arc::clone(&ready), Arc::clone(&go_on));
    let worker = thread::spawn(move || {
        let mut list = Vec::with_capacity(100);
        // For as long as the thread lives.
        let _t = freestone_stats::tag("for ever");
        fill(&mut list, 20);
        is_ready.store(1, Ordering::Release);
        while may_go_on.load(Ordering::Acquire) == 0 {
            thread::yield_now();
        }
    });
    while ready.load(Ordering::Acquire) == 0 {
        thread::yield_now();
    }
    assert_eq!(counts("for ever"), blocks(20, 20));
    assert_eq!(counts("for ever"), blocks(20, 20), "and once only");
    go_on.store(1, Ordering::Release);
    worker.join().expect("nobody panics");
    assert_eq!(counts("for ever"), blocks(20, 20));
}

fn threads_end_with_open_scopes() {
    thread::spawn(|| {
        let mut list = Vec::with_capacity(100);
        std::mem::forget(freestone_stats::tag("forgotten"));
        std::mem::forget(freestone_stats::tag("forgotten too"));
        fill(&mut list, 3);
    })
    .join()
    .expect("nobody panics");
    assert_eq!(of("forgotten too").allocations, 3);
    assert_eq!((of("forgotten").allocations, of("forgotten").total_allocations), (0, 3));
    // Its desk is the next one's, with nothing on it.
    thread::spawn(|| {
        let mut list = Vec::with_capacity(100);
        fill(&mut list, 5);
        drop(freestone_stats::tag("next"));
        fill(&mut list, 5);
    })
    .join()
    .expect("nobody panics");
    assert_eq!(counts("next"), [0; 4]);
    assert_eq!(of("forgotten too").allocations, 3);
}

/// A thread takes over the counts of one that has ended: those are not on account of its first scope.
fn threads_begin_with_a_scope() {
    let early = Tag::new("early");
    for _ in 0..8 {
        thread::spawn(|| drop(allocate(1000))).join().expect("nobody panics");
        thread::spawn(move || {
            let _t = freestone_stats::tag(early);
            drop(black_box(Box::new([1_u8; 104])));
        })
        .join()
        .expect("nobody panics");
    }
    assert_eq!(counts("early"), blocks(8, 8));
}

fn live_is_estimated_and_budgets_call() {
    freestone_stats::history::set_interval(Duration::from_millis(10));
    let events = Arc::new([const { AtomicUsize::new(0) }; 2]);
    let heard = Arc::clone(&events);
    let budget = tag::budget("much", 400_000, move |event| {
        assert_eq!(event.tag.name(), Some("much"));
        let is_over = event.state == BudgetState::Exceeded;
        assert_eq!(event.live_bytes > 400_000.0, is_over, "{event:?}");
        heard[usize::from(is_over)].fetch_add(1, Ordering::Relaxed);
    })
    .expect("there is room for a budget");
    // A thread takes over a cache, and in it may be a block that was chosen by the interval of before, with its weight: half of all there is here.
    let held = thread::spawn(|| {
        control::set_sample_interval(4096);
        let _t = freestone_stats::tag("much");
        allocate(10_000)
    })
    .join()
    .expect("nobody panics");
    let live = of("much").live;
    if live.samples == 0 {
        println!("SKIPPED: live bytes and budgets, as nothing is sampled");
        return;
    }
    let exact = of("much").allocated_bytes as f64;
    let error = of("much").live_error_bytes();
    assert!((live.bytes - exact).abs() < 5.0 * error, "{} ± {error} of {exact}", live.bytes);
    assert!(error < exact / 5.0, "± {error} of {exact} from {} samples", live.samples);
    let wait = |place: usize| {
        let began = Instant::now();
        while events[place].load(Ordering::Relaxed) == 0 {
            assert!(began.elapsed() < Duration::from_mins(1), "nobody called");
            thread::sleep(Duration::from_millis(5));
        }
    };
    wait(1);
    drop(held);
    wait(0);
    assert_eq!(events.each_ref().map(|count| count.load(Ordering::Relaxed)), [1, 1]);
    assert!(of("much").live.bytes < 1.0);
    drop(budget);
}

fn the_set_is_bounded() {
    tag::set_max(20);
    let known = tag::tags().len();
    assert!(known > 20, "those that are there stay");
    let mut list = Vec::with_capacity(100);
    for number in 0..30 {
        let _t = freestone_stats::tag(format!("tenant {number}").as_str());
        fill(&mut list, 1);
    }
    assert_eq!(tag::refused(), 30);
    assert_eq!(counts("other"), blocks(30, 30));
    assert_eq!(tag::tags().len(), known + 1);
    let outer = freestone_stats::tag("outer");
    fill(&mut list, 1);
    drop(outer);
    assert_eq!(of("outer").allocations, 13, "it is known");
    let report = tag::report();
    assert!(report.contains("30 scopes had a name too many"), "{report}");
    assert!(report.lines().any(|line| line.starts_with("tenant-42 ") && line.contains(" 16 ")), "{report}");
}
