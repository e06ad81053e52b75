//! What no program uses any more is there for whoever needs it, and the ledger knows of it.

fn scenario(name: &str) {
    assert_eq!(freestone_tests::scenario(env!("CARGO_BIN_EXE_what_lies_idle"), name).err, "");
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
