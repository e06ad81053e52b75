//! Samples for which there is no room in their zone: at an interval of one each allocation is a sample all the same, at a wider one as many are as ever; and
//! what nobody is to see of is none. All of them come back.

use std::hint::black_box;
use std::thread;

use freestone::profile;
use freestone::{Freestone, control};

#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

/// Samples under a tag, the blocks they stand for, and samples whose end nobody will see: other threads have none.
fn of(tag: u32) -> (u64, f64, u64) {
    let mut sum = (0, 0.0, 0);
    profile::each_site(|site| {
        if site.tag == tag {
            sum = (sum.0 + site.allocated.samples, sum.1 + site.allocated.objects, sum.2 + site.untracked.samples);
        }
    });
    sum
}

/// One after the other: the interval is the process's.
#[test]
fn where_there_is_no_room() {
    what_cannot_be_sampled_is_an_ordinary_block();
    as_many_are_chosen_as_ever();
}

fn as_many_are_chosen_as_ever() {
    const INTERVAL: f64 = 2048.0;
    control::set_sample_interval(INTERVAL as usize);
    thread::spawn(|| {
        profile::seed(7);
        // Of every class a block, so that there is nothing left that another could use.
        let kept: Vec<Vec<u8>> = (0..40_000).map(|number| black_box(vec![1; 8 + number % 4000])).collect();
        for bytes in [512_usize, 5120] {
            profile::set_tag(bytes as u32);
            let count = 40_000;
            let held: Vec<Vec<u8>> = (0..count).map(|_| black_box(vec![1_u8; bytes])).collect();
            (0..count).for_each(|_| drop(black_box(vec![1_u8; bytes])));
            profile::set_tag(0);
            let (samples, _, untracked) = of(bytes as u32);
            assert!(untracked > 0, "there was room for all");
            let chance = 1.0 - (-(bytes as f64) / INTERVAL).exp();
            let expected = f64::from(2 * count) * chance;
            let deviation = (expected * (1.0 - chance)).sqrt();
            // One is the list of them.
            assert!(
                (samples as f64 - 1.0 - expected).abs() < 5.0 * deviation,
                "{bytes}: {samples} of {expected} ± {deviation}, seed 7"
            );
            drop(held);
        }
        drop(kept);
    })
    .join()
    .expect("nobody panics");
}

fn what_cannot_be_sampled_is_an_ordinary_block() {
    control::set_sample_interval(1);
    // A new thread: one that has some blocks armed would be a little late.
    thread::spawn(|| {
        for bytes in [8, 64, 1024, 1025, 20_000, 32_768] {
            let tag = 10_000 + bytes as u32;
            profile::set_tag(tag);
            let hidden: Vec<Vec<u8>> = profile::without_samples(|| (0..100).map(|_| black_box(vec![1; bytes])).collect());
            assert_eq!(of(tag).0, 0, "{bytes}");
            // More than the zone has room for.
            let blocks = (16 << 20) / bytes.max(1024);
            let list: Vec<Vec<u8>> = (0..blocks).map(|_| black_box(vec![1_u8; bytes])).collect();
            profile::set_tag(0);
            let (samples, objects, _) = of(tag);
            // And the list of them.
            assert_eq!(samples, blocks as u64 + 1, "{bytes}");
            assert!((objects - blocks as f64 - 1.0).abs() < 0.5, "{bytes}");
            drop((hidden, list));
        }
        assert!(profile::summary().untracked > 0, "there was room for all");
    })
    .join()
    .expect("nobody panics");
}
