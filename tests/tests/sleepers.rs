//! A thread that sleeps does not keep what it caches: others take it, or it says so itself. Nothing that the program has is touched.

use std::process::Command;

use freestone_tests::run;

fn scenario(name: &str) {
    let ending = run(Command::new(env!("CARGO_BIN_EXE_sleepers")).arg(name).env_remove("FREESTONE"));
    print!("{name}:\n{}", ending.out);
    assert_eq!((ending.code, ending.err.as_str()), (Some(0), ""), "{ending:#?}");
    // A scenario that cannot be played here says so.
    assert!(ending.out.ends_with("alive\n"));
}

#[test]
fn what_one_cached_is_taken() {
    scenario("one");
}

#[test]
fn what_many_cached_is_taken_while_they_wake_at_random() {
    scenario("many");
}

#[test]
fn who_says_that_it_is_idle_caches_nothing() {
    scenario("who_says_so");
}
