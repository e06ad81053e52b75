//! A global allocator is older than `main` and lives longer: constructors in libraries allocate before the standard library knows of the process,
//! and destructors and `atexit` handlers, also those that were registered by others, after it has forgotten.

use std::process::Command;

use freestone_tests::{Build, Ending, build, run};

const EXPECTED: &str = "\
before main
main
thread-local dropped
late thread-local dropped
at exit
at exit, registered at exit
at exit, registered there
balanced
";

fn check(ending: &Ending) {
    assert_eq!((ending.code, ending.out.as_str(), ending.err.as_str()), (Some(0), EXPECTED, ""), "{ending:#?}");
}

#[test]
fn with_every_assertion_on() {
    check(&run(&mut Command::new(env!("CARGO_BIN_EXE_before_main_and_at_exit"))));
}

/// The thread-local is reached in another way when everything is linked into one piece.
#[test]
fn as_users_build_it() {
    check(&run(&mut Command::new(build("before_main_and_at_exit", Build::Release))));
}
