//! A thread that sleeps does not keep what it caches: others take it, or it says so itself. Nothing that the program has is touched.

fn scenario(name: &str) {
    assert_eq!(freestone_tests::scenario(env!("CARGO_BIN_EXE_sleepers"), name).err, "");
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
