//! What no program uses any more is there for whoever needs it, and the ledger knows of it.

use std::process::Command;

use freestone_tests::run;

fn scenario(name: &str) {
    let ending = run(Command::new(env!("CARGO_BIN_EXE_what_lies_idle")).arg(name));
    print!("{name}:\n{}", ending.out);
    assert_eq!(ending.code, Some(0), "{ending:#?}");
    assert!(ending.out.ends_with("alive\n"));
}

#[test]
fn caches_of_ended_threads_serve_before_memory_is_out() {
    scenario("caches");
}

#[test]
fn room_mapped_ahead_goes_back_where_address_space_is_scarce() {
    scenario("room");
}

#[test]
fn tables_of_unmapped_steps_stay_in_the_ledger() {
    scenario("tables");
}

#[test]
fn records_are_as_many_as_threads_at_a_time() {
    scenario("records");
}

#[test]
fn a_child_reaches_the_records_of_all_ended_threads() {
    scenario("fork");
}
