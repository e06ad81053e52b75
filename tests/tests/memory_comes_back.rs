//! What a program does not use any more goes back to the system: while it sleeps, by a thread of the allocator's own; where there is none, by
//! those that run. As much as was chosen is kept, and what is kept or given back is told.

fn scenario(name: &str) {
    assert_eq!(freestone_tests::scenario(env!("CARGO_BIN_EXE_memory_comes_back"), name).err, "");
}

#[test]
fn all_of_a_burst_while_the_program_sleeps() {
    scenario("all");
}

#[test]
fn all_pages_without_survivors_while_the_program_sleeps() {
    scenario("survivors");
}

#[test]
fn a_drop_starts_the_thread_that_gives_it_back() {
    scenario("drop");
}

#[test]
fn a_drop_without_thread_is_given_back_by_who_frees() {
    scenario("alone");
}

#[test]
fn what_is_kept_stays() {
    scenario("kept");
}

#[test]
fn what_is_kept_stays_without_thread() {
    scenario("kept_alone");
}

#[test]
fn a_program_in_c_gets_no_second_thread_but_a_third() {
    scenario("for_c");
}

#[test]
fn pauses_tell_of_it() {
    scenario("pauses");
}

#[test]
fn all_that_is_not_locked() {
    scenario("some_locked");
}

#[test]
fn nothing_breaks_where_all_is_locked() {
    scenario("all_locked");
}

#[test]
fn by_slow_paths_where_no_thread_can_be_made() {
    scenario("refused");
}

#[test]
fn a_fork_meanwhile_gets_a_whole_heap() {
    scenario("forks");
}
