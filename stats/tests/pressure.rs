//! Callbacks on a program that runs on Freestone: this one. The heap must see that it grows, and that it shrinks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use freestone::{Freestone, control};
use freestone_stats::pressure::{self, Threshold};

#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

const MIB: usize = 1 << 20;

/// One after the other: each looks at what the whole process holds.
#[test]
fn the_heap_calls() {
    each_rise_calls();
    subscriptions_that_have_ended_leave_nothing();
}

/// What calls leave behind. Without locks: where there is no background thread, a call comes in the middle of an allocation of
/// the test.
#[derive(Default)]
struct Calls {
    calls: AtomicUsize,
    /// Calls that should not have been, or with the wrong figures.
    wrong: AtomicUsize,
}

fn each_rise_calls() {
    let threshold = control::held_bytes() + 32 * MIB;
    let seen = Arc::new(Calls::default());
    let inner = Arc::clone(&seen);
    let subscription = pressure::on(Threshold::bytes(threshold), move |pressure| {
        let is_right = pressure.threshold_bytes == threshold && pressure.held_bytes >= threshold && !pressure.fuse;
        // SeqCst, here and below: the test is about something else.
        inner.wrong.fetch_add(usize::from(!is_right), Ordering::SeqCst);
        inner.calls.fetch_add(1, Ordering::SeqCst);
    });
    let calls = || seen.calls.load(Ordering::SeqCst);
    // A look between a fall and the next rise may come late: some rises are not seen, but not all of two hundred.
    for rise in 1..=200 {
        let before = calls();
        let large = rise_by_64_mib();
        for _ in 0..30 {
            if calls() > before {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(calls() <= rise, "one call for each rise");
        drop(large);
        control::release_to_os();
        if calls() >= 3 {
            break;
        }
        std::thread::sleep(Duration::from_millis(150));
    }
    assert!(calls() >= 3);
    assert_eq!(seen.wrong.load(Ordering::SeqCst), 0);
    drop(subscription);
    // Its callback ends with a subscription, or with the call that is under way.
    while Arc::strong_count(&seen) > 1 {
        std::thread::yield_now();
    }
}

fn rise_by_64_mib() -> Vec<Vec<u8>> {
    (0..64).map(|_| vec![7; MIB]).collect()
}

fn subscriptions_that_have_ended_leave_nothing() {
    let live = || freestone::snapshot().bytes.live;
    let register_many = |times| {
        for _ in 0..times {
            drop(pressure::on(Threshold::bytes(usize::MAX), |_| ()));
        }
    };
    register_many(100);
    let before = live();
    register_many(10_000);
    assert!(live() < before + MIB, "{} bytes before, {} after", before, live());
}
