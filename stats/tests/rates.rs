//! Windows of rates, and the history behind them, in a program that runs on Freestone: this one. Nobody keeps any state, a fork has the child begin
//! anew, and where the system refuses a thread there are windows all the same.

use std::fs;
use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

use freestone::anomaly::{Kind, Thresholds};
use freestone::{Freestone, Limit, control};
use freestone_stats::{diagnose, history, rates, snapshot, verdict};

#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

/// One after the other: each looks at what the whole process does.
#[test]
fn rates_need_no_state() {
    // Before there was one: its stack would be kept for the next, and a thread on it not be refused.
    without_a_thread_there_are_windows();
    windows_begin_with_the_process();
    let points = points_come_by_themselves();
    windows_follow_the_program();
    a_child_begins_anew(points);
    what_is_wrong_is_said();
    what_is_wrong_is_noticed();
}

/// The state that the kernel gives for our thread that samples: its blocked signals, in hexadecimal. `None`: there is no such thread.
fn sampler() -> Option<String> {
    let of = |task: fs::DirEntry| {
        let status = fs::read_to_string(task.path().join("status")).ok()?;
        let field = |name: &str| status.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()));
        (field("Name:")? == "freestone-stats").then(|| field("SigBlk:"))?
    };
    fs::read_dir("/proc/self/task").expect("there is /proc").find_map(|task| of(task.ok()?))
}

/// Waits, as long as a machine with much else to do may take.
fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_mins(1), "waited in vain until {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn windows_begin_with_the_process() {
    assert!(history::points().is_empty(), "nobody has asked");
    assert_eq!(sampler(), None);
    // Longer than a test takes, so that there is nothing but the first point, and that one is young.
    history::set_interval(Duration::from_mins(1));
    let blocks: Vec<Box<[u8; 480]>> = (0..1000).map(|_| black_box(Box::new([7; 480]))).collect();
    let age = snapshot().heap.age_ns;
    let windows = rates();
    // Half a minute of history would do; there is none.
    assert!(windows.last_60s.interval >= Duration::from_nanos(age), "{windows:?}");
    assert!(windows.last_60s.allocations >= 1001, "{windows:?}");
    assert!(windows.last_60s.allocated_bytes >= 480_000, "{windows:?}");
    drop(blocks);
}

/// Says how many points there are.
fn points_come_by_themselves() -> usize {
    history::set_interval(Duration::from_millis(10));
    wait_until("there are ten points", || history::points().len() >= 10);
    let points = history::points();
    assert!(points.is_sorted_by(|a, b| a.at_ns < b.at_ns));
    assert!(points.is_sorted_by_key(|point| point.allocations));
    let last = points.last().expect("there are ten");
    assert!(last.resident.expect("there is /proc").total > last.live, "{last:?}");
    let blocked = sampler().expect("there is a thread");
    // All but those of glibc, 32 and 33, those that cannot be blocked, 9 and 19, and those that a thread brings upon itself.
    assert_eq!(blocked, "fffffffe3ffbfa07");
    points.len()
}

fn windows_follow_the_program() {
    let before = snapshot();
    let seen = history::points().len();
    wait_until("there is another point", || history::points().len() > seen);
    drop(black_box(vec![1_u8; 3 << 20]));
    let after = snapshot();
    let windows = rates();
    for window in [windows.last_1s, windows.last_10s, windows.last_60s] {
        assert!(window.interval >= after.at - before.at || window.interval >= Duration::from_secs(1), "{windows:?}");
    }
    assert!(windows.last_60s.allocated_bytes >= 3 << 20, "{windows:?}");
    assert!(windows.last_60s.allocations >= windows.last_1s.allocations, "{windows:?}");
    // What lies between two snapshots is taken from the history.
    wait_until("there are points between", || diagnose(&before, &snapshot()).points >= 5);
}

fn what_is_wrong_is_said() {
    let before = snapshot();
    let much = black_box(vec![1_u8; 8 << 20]);
    control::set_memory_limit(Limit::Bytes(1 << 20));
    let diagnosis = diagnose(&before, &snapshot());
    control::set_memory_limit(Limit::None);
    drop(much);
    assert!(diagnosis.anomalies.iter().any(|anomaly| anomaly.kind == Kind::LimitExceeded), "{diagnosis:?}");
    assert!(diagnosis.to_string().lines().last().is_some_and(|line| line.contains("limit_exceeded")), "{diagnosis}");
}

/// The thread notices by itself; what counts can be chosen.
fn what_is_wrong_is_noticed() {
    let place = Kind::ALL.iter().position(|&kind| kind == Kind::CacheHoarding).expect("it is one of all");
    assert_eq!(history::anomaly_counts()[place], 0, "{:?}", history::anomalies());
    let mut strict = Thresholds::DEFAULT;
    // Some block is always cached.
    (strict.hoarding_bytes, strict.hoarding_percent_of_live) = (0.0, 0.0);
    history::set_thresholds(strict);
    assert_eq!(history::thresholds(), strict);
    wait_until("it is noticed", || history::anomaly_counts()[place] > 0);
    history::set_thresholds(Thresholds::DEFAULT);
    assert!(history::anomalies().iter().any(|noticed| noticed.anomaly.kind == Kind::CacheHoarding));
    let recent = verdict::recent(Duration::from_mins(1));
    let hoards = recent.anomalies.iter().filter(|anomaly| anomaly.kind == Kind::CacheHoarding).count();
    assert_eq!(hoards, 1, "of each kind the worst: {recent:?}");
}

/// Runs `check` in the child of a fork. A panic is a bad end as well.
fn in_a_child(check: impl Fn()) {
    // SAFETY: the child runs on the thread that forked, on an allocator that is made for it, and leaves by `_exit`.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(&check));
        // SAFETY: ends the process.
        unsafe { libc::_exit(i32::from(result.is_err())) };
    }
    assert!(child > 0);
    let mut status = 0;
    // SAFETY: a child of ours, and a place to write to.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0, "the child did not end well");
}

fn a_child_begins_anew(points: usize) {
    for _ in 0..20 {
        in_a_child(|| {
            assert_eq!(sampler(), None, "threads stay in the parent");
            // What the parent remembered is there, unless it was just writing.
            let found = history::points().len();
            assert!(found == 0 || found >= points, "{found} of {points}");
            assert!(rates().last_60s.allocations > 0);
            wait_until("the child has points", || history::points().len() >= found + 2);
            assert!(sampler().is_some());
        });
    }
}

fn without_a_thread_there_are_windows() {
    in_a_child(|| {
        let limit = |bytes: libc::rlim_t| {
            let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
            // SAFETY: a limit of our own.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) }, 0);
        };
        // The history first, then no room for a stack.
        assert_eq!(history::points().len(), 0);
        limit(1 << 20);
        let windows = rates();
        let refused = sampler().is_none();
        limit(libc::RLIM_INFINITY);
        assert!(refused);
        assert!(windows.last_60s.allocations > 0);
        assert_eq!(history::points().len(), 0);
        history::start();
        wait_until("who asks again has one", || sampler().is_some());
    });
}
