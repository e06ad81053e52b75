#![expect(clippy::float_cmp, reason = "these numbers are exact")]

use std::time::Duration;

use super::super::tests::towers;
use super::super::{Builder, StallKind};
use super::*;

/// A row of a heap profile: live and allocated blocks of 64 bytes, each with the variance of its count.
fn row(id: u64, allocated: [f64; 2], live: [f64; 2]) -> Row {
    let [objects, live_objects] = [allocated[0], live[0]];
    let [error, live_error] = [allocated[1].sqrt(), live[1].sqrt()];
    Row {
        id,
        block_bytes: 64,
        samples: objects as u64 / 100,
        values: [objects, 64.0 * objects, live_objects, 64.0 * live_objects],
        errors: [error, 64.0 * error, live_error, 64.0 * live_error],
        ..Row::default()
    }
}

fn profile(rows: &[(Row, &[usize])]) -> Profile {
    let mut builder = Builder::new(Kind::Heap);
    for (row, frames) in rows {
        builder.push(row.clone(), frames);
    }
    builder.finish()
}

#[test]
fn nothing_happened_is_nothing_give_or_take_nothing() {
    let (mut later, earlier) = (towers(), towers());
    later.taken += Duration::from_secs(30);
    let difference = later.since(&earlier);
    assert!(difference.rows.is_empty(), "{difference:?}");
    assert_eq!(difference.duration, Some(Duration::from_secs(30)));
    assert_eq!(difference.exact.totals, [Some(0); 4]);
    assert!(Arc::ptr_eq(&difference.stacks, &later.stacks), "stacks are shared");
}

#[test]
fn what_came_and_went_is_told_apart() {
    let earlier = profile(&[
        (row(1, [1000.0, 100.0], [800.0, 80.0]), &[0x10, 0x30]),
        (row(2, [500.0, 50.0], [500.0, 50.0]), &[0x20, 0x30]),
    ]);
    let later = profile(&[
        (row(3, [300.0, 30.0], [300.0, 30.0]), &[0x40, 0x30]),
        (row(1, [1000.0, 100.0], [200.0, 20.0]), &[0x10, 0x30]),
    ]);
    let difference = later.since(&earlier);
    let by_id = |id: u64| difference.rows.iter().find(|row| row.id == id).expect("a row");

    let new = by_id(3);
    assert_eq!(new.values, [300.0, 300.0 * 64.0, 300.0, 300.0 * 64.0]);
    assert!((new.errors[2] - 30_f64.sqrt()).abs() < 1e-9, "all of it is new: {}", new.errors[2]);
    assert_eq!(new.samples, 3);

    let freed = by_id(1);
    assert_eq!(freed.values, [0.0, 0.0, -600.0, -600.0 * 64.0]);
    assert_eq!(freed.errors[0], 0.0, "nothing was allocated");
    assert!((freed.errors[2] - 60_f64.sqrt()).abs() < 1e-9, "only what went is uncertain: {}", freed.errors[2]);

    let gone = by_id(2);
    assert_eq!(gone.values, [0.0, 0.0, -500.0, -500.0 * 64.0]);
    assert!((gone.errors[3] - 64.0 * 50_f64.sqrt()).abs() < 1e-9);
    assert_eq!(difference.frames(gone).collect::<Vec<_>>(), [0x20, 0x30], "it brings its stack");
    assert_eq!(difference.total(2), -800.0);
}

/// Blocks that came and went in between are in the bound twice, and blocks that stayed not at all: with all samples known, the bound is what it says.
#[test]
fn errors_of_differences_are_no_smaller_than_they_are() {
    let mut seed = 0x5eed_u64;
    let mut chance = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as f64 / f64::from(1_u32 << 31)
    };
    for _ in 0..1000 {
        // Variances of blocks: alive before, then freed or kept; allocated in between, then freed or kept.
        let [old_freed, old_kept, new_freed, new_kept] = [(); 4].map(|()| chance() * 100.0);
        let before = row(1, [100.0, old_freed + old_kept + 7.0], [100.0, old_freed + old_kept]);
        let all = old_freed + old_kept + 7.0 + new_freed + new_kept;
        let after = row(1, [300.0, all], [90.0, old_kept + new_kept]);
        let difference = profile(&[(after, &[1])]).since(&profile(&[(before, &[1])]));
        let bound = difference.rows[0].errors[2].powi(2);
        let truth = old_freed + new_kept;
        assert!(bound >= truth - 1e-6, "{bound} is less than {truth}");
        assert!(bound <= truth + 2.0 * new_freed + 1e-6, "{bound} is far more than {truth}");
        let allocated = difference.rows[0].errors[0].powi(2);
        assert!((allocated - new_freed - new_kept).abs() < 1e-6);
    }
}

#[test]
fn histograms_and_stalls_are_differences_too() {
    let lifetimes = |ended: f64, histogram| {
        let mut builder = Builder::new(Kind::Lifetimes);
        let row = Row { id: 1, values: [ended, ended * 64.0, 0.0, 1e9], ..Row::default() };
        builder.push_lifetimes(row, &[0x10], histogram);
        builder.finish()
    };
    let (mut before, mut after) = ([0; LIFETIME_BUCKETS], [2; LIFETIME_BUCKETS]);
    (before[3], after[3]) = (4, 9);
    let difference = lifetimes(200.0, after).since(&lifetimes(100.0, before));
    let histogram = difference.lifetimes(&difference.rows[0]).expect("a histogram");
    assert_eq!((histogram[3], histogram[0]), (5, 2));

    let stall = |count: f64, longest| {
        let mut builder = Builder::new(Kind::Contention);
        let row = Row { id: 1, samples: count as u64, values: [count, count * 1e6, 0.0, 0.0], ..Row::default() };
        builder.push_stall(row, &[0x10], StallKind::Lock, Duration::from_millis(longest));
        builder.finish()
    };
    let difference = stall(5.0, 9).since(&stall(3.0, 4));
    assert_eq!(difference.rows[0].values[..2], [2.0, 2e6]);
    assert_eq!(difference.stall(&difference.rows[0]).map(|stall| stall.longest), Some(Duration::from_millis(9)));
}

#[test]
#[should_panic(expected = "profiles of one kind can be compared")]
fn kinds_are_not_mixed() {
    let _ = Builder::new(Kind::Peak).finish().since(&towers());
}
