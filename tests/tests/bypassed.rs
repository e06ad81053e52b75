//! `FREESTONE=bypass:1`: the system's allocator serves a program that was built with this one. It works, and there is nothing to count.

use std::process::Command;

use freestone_tests::c::Library;
use freestone_tests::{Ending, run};

const NOTHING: &str = "released 0\nallocations 0, frees 0, live 0, held 0, system calls 0\nbypassed true\n";

fn bypassed(options: &str, preload: bool) -> Ending {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bypassed"));
    if preload {
        command.env("LD_PRELOAD", Library::Usual.shared());
    }
    let ending = run(command.env("FREESTONE", options));
    assert_eq!(ending.code, Some(0), "{options}: {ending:#?}");
    ending
}

#[test]
fn the_program_works_and_nothing_is_counted() {
    for preload in [false, true] {
        let ending = bypassed("bypass:1", preload);
        assert_eq!((ending.out.as_str(), ending.err.as_str()), (NOTHING, ""));
    }
}

#[test]
fn other_values_are_complained_of_in_one_line_and_nothing_is_bypassed() {
    for value in ["2", "", "yes", "01"] {
        // The hard limit is in force then, and fails what the program does with it.
        let ending = run(Command::new(env!("CARGO_BIN_EXE_bypassed")).env("FREESTONE", format!("bypass:{value}")));
        assert_ne!(ending.code, Some(0));
        let complaints: Vec<&str> = ending.err.lines().filter(|line| line.contains("FREESTONE")).collect();
        assert_eq!(complaints, [format!("freestone: FREESTONE: option 'bypass' has no value '{value}'; ignored")]);
    }
}
