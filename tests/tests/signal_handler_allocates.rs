//! Allocating in a signal handler is outside the contract, as with every allocator: the fast path is a load, a load and a store, and a handler that
//! comes in between gets the same block. What is promised nevertheless is that it never deadlocks: a slow path that finds another one of its
//! own thread under way refuses.
//!
//! So the handler here tolerates null, and to be able to write to its blocks it uses classes that the main thread's fast path does not: then a
//! block is handed out once, content stays, and the program ends by itself.

use std::process::Command;

use freestone_tests::run;

fn survives(what: &str) {
    survives_with(what, &[]);
}

fn survives_with(what: &str, more: &[&str]) {
    let ending = run(Command::new(env!("CARGO_BIN_EXE_signal_handler_allocates")).arg(what).args(more));
    print!("{what}: {}", ending.out);
    assert_eq!((ending.code, ending.err.as_str()), (Some(0), ""), "{ending:#?}");
    let numbers: Vec<u64> = ending.out.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect();
    let [_, signals, served, refused, _] = numbers[..] else { panic!("{ending:#?}") };
    assert!(signals >= 2_000);
    // A thread that does nothing but take snapshots is hardly ever outside one.
    assert!(served > 0 || what == "snapshots", "the handler was never served");
    assert!(served + refused >= 2_000 * 12);
    if what == "large" {
        // Large operations are slow paths through and through, so some signals must have come in the middle of one.
        assert!(refused > 0, "no signal interrupted a slow path");
    }
}

#[test]
fn while_the_thread_works_on_large_blocks() {
    survives("large");
}

#[test]
fn while_the_thread_works_on_small_blocks() {
    survives("small");
}

/// A snapshot looks into every room and locks some of them for a moment.
#[test]
fn while_the_thread_takes_snapshots() {
    survives("snapshots");
}

/// Around a fork every lock is held.
#[test]
fn while_the_thread_forks() {
    survives("forks");
}

/// Wherever its thread is, in the middle of taking a lock, too.
#[test]
fn while_the_handler_forks() {
    survives_with("large", &["forks"]);
    survives_with("forks", &["forks"]);
}
