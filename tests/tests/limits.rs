//! The soft limit is held by giving back, the hard one by null, and before that the fuse says so in one line. They can be changed at any time.

use std::process::Command;
use std::sync::{Mutex, PoisonError};

use freestone_tests::{Ending, run};

/// One at a time: a limit is kept by threads that get to run.
static ALONE: Mutex<()> = Mutex::new(());

fn play(name: &str, environment: &str) -> Ending {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let ending = run(Command::new(env!("CARGO_BIN_EXE_limits")).arg(name).env("FREESTONE", environment));
    print!("{name}, {environment}:\n{}", ending.out);
    ending
}

fn scenario(name: &str) -> Ending {
    let ending = play(name, "");
    assert_eq!(ending.code, Some(0), "{ending:#?}");
    assert!(ending.out.ends_with("alive\n"), "{ending:#?}");
    ending
}

#[test]
fn below_the_soft_limit_by_giving_back() {
    assert_eq!(scenario("soft").err, "");
}

#[test]
fn below_the_soft_limit_in_other_sizes() {
    assert_eq!(scenario("soft_in_other_sizes").err, "");
}

#[test]
fn above_the_soft_limit_no_allocation_fails() {
    assert_eq!(scenario("soft_below_live").err, "");
}

/// The fuse's lines, and nothing else.
fn are_fuse_lines(err: &str) -> bool {
    err.lines().all(|line| line.starts_with("freestone: memory: ") && line.contains("; fuse trip "))
}

#[test]
fn at_the_hard_limit_nothing_more() {
    for name in ["hard", "hard_removed", "hard_together"] {
        let ending = scenario(name);
        assert!(are_fuse_lines(&ending.err), "{ending:#?}");
    }
}

#[test]
fn the_fuse_says_one_line_per_approach() {
    for background in ["background:off", "background:on"] {
        let ending = play("fuse", &format!("hard_limit:32MiB,{background}"));
        assert_eq!(ending.code, Some(0), "{ending:#?}");
        assert!(ending.out.ends_with("alive\nat exit\n"), "{ending:#?}");
        assert!(are_fuse_lines(&ending.err), "{ending:#?}");
        let trips: Vec<&str> = ending.err.lines().filter_map(|line| line.rsplit_once(' ')).map(|(_, trip)| trip).collect();
        assert_eq!(trips, ["1", "2", "3"], "{ending:#?}");
        assert!(ending.err.lines().all(|line| line.contains(" of the hard limit of 32768 KiB are held ")), "{ending:#?}");
    }
}

#[test]
fn the_fuse_ends_the_program_in_an_orderly_way() {
    for background in ["background:off", "background:on"] {
        let ending = play("fuse", &format!("fuse:exit,hard_limit:32MiB,{background}"));
        assert_eq!((ending.code, ending.signal), (Some(137), None), "{ending:#?}");
        assert_eq!(ending.out, "at exit\n");
        assert_eq!(ending.err.lines().count(), 1, "{ending:#?}");
        assert!(are_fuse_lines(&ending.err), "{ending:#?}");
        assert!(ending.err.ends_with("; fuse trip 1; exiting with code 137\n"), "{ending:#?}");
    }
}

#[test]
fn whatever_changes_under_load() {
    assert_eq!(scenario("changes").err, "");
}
