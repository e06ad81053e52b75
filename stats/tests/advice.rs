//! Advice and agreement on a program that runs on Freestone, this one: each of five bad habits is called by its name, at the place where it is; and what
//! samples add up to agrees with what is counted.

use std::hint::black_box;

use freestone::{Freestone, control, profile};
use freestone_stats::advice::{Item, Kind};
use freestone_stats::{Agreement, advice, agreement};

#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

/// 520 bytes: a block of 576.
#[inline(never)]
fn a_little_too_large() -> Box<[u8; 520]> {
    black_box(Box::new([1; 520]))
}

#[inline(never)]
fn temporary() {
    drop(black_box(Box::new([1_u8; 64])));
}

#[inline(never)]
fn grows_step_by_step(length: usize) -> Vec<u64> {
    let mut list = Vec::new();
    for number in 0..length as u64 {
        list.push(black_box(number));
    }
    list
}

fn is_within(item: &Item, function: usize) -> bool {
    item.frames.iter().any(|frame| (function..function + 512).contains(frame))
}

#[test]
fn bad_habits_are_called_by_their_names() {
    // The first thread has some blocks armed already.
    control::set_sample_interval(2048);
    let agreed = std::thread::spawn(work).join().expect("nobody panics");
    assert!(agreed.samples > 1000, "{agreed}");
    assert!(agreed.holds(), "{agreed}");
    // Without what was there before, and with all that came since the change, they still agree.
    let now = agreement();
    assert!(now.holds(), "{now}");
}

fn work() -> Agreement {
    profile::seed(1);
    let kept: Vec<Box<[u8; 520]>> = (0..5_000).map(|_| a_little_too_large()).collect();
    for _ in 0..200_000 {
        temporary();
    }
    let lists: Vec<Vec<u64>> = (0..300).map(|_| grows_step_by_step(8192)).collect();
    let found = advice();
    println!("{found}");
    let items = |kind: Kind| found.items.iter().filter(move |item| item.kind == kind);
    let slack =
        items(Kind::Slack).find(|item| is_within(item, a_little_too_large as *const () as usize)).expect("slack is found");
    assert_eq!(slack.sentence, "520 bytes are asked for here, on average, and a block has 576: 10 % lost.");
    assert_eq!(slack.advice, "8 bytes less would do with 512, and save 11 % of it.");
    let short =
        items(Kind::Temporary).find(|item| is_within(item, temporary as *const () as usize)).expect("temporary blocks are found");
    assert!((short.blocks - 200_000.0).abs() < 20_000.0, "{short:?}");
    assert!(short.advice.contains("stack"), "{short:?}");
    assert!(items(Kind::Count).any(|item| is_within(item, temporary as *const () as usize)));
    assert!(items(Kind::Bytes).next().is_some());
    // Of 4 elements, 8, … and 8,192: moved eleven times.
    let growth = items(Kind::Growth).next().expect("growth is found");
    assert!(growth.advice.contains("`with_capacity`"), "{growth:?}");
    println!("{}", growth.sentence);
    let agreed = agreement();
    drop((kept, lists));
    agreed
}
