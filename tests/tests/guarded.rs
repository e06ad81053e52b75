//! Guarded blocks: whoever writes beyond one, before it or into what is left of it is stopped at that instruction, or at the free at the latest, and told where
//! the block came from. Whoever does nothing wrong notices nothing, and whoever handles faults himself goes on doing so.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use freestone_tests::{Build, Ending, build, run, seed};

/// Every sample of every allocation, as long as there are slots.
const ALL: &str = "sample_interval:1,guard_interval:1";
const TOLD: &str = "sample_interval:1,guard_interval:1,fault_report:1";

fn program() -> PathBuf {
    build("guarded", Build::Plain)
}

fn ending(arguments: &[&str], environment: &str) -> Ending {
    run(Command::new(program()).args(arguments).env("FREESTONE", environment))
}

/// What the child said of itself: names and numbers.
fn facts(ending: &Ending) -> BTreeMap<String, usize> {
    let number = |text: &str| match text.strip_prefix("0x") {
        Some(digits) => usize::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    };
    let fact = |line: &str| line.split_once(' ').and_then(|(name, text)| Some((name.to_owned(), number(text)?)));
    ending.out.lines().filter_map(fact).collect()
}

/// The addresses of the line that begins with this, and its thread.
fn stack(ending: &Ending, what: &str) -> (usize, Vec<usize>) {
    let beginning = format!("freestone: guarded: {what} by thread ");
    let line =
        ending.err.lines().find_map(|line| line.strip_prefix(&beginning)).unwrap_or_else(|| panic!("no {what}: {ending:?}"));
    let (head, addresses) = line.split_once(':').expect("a colon");
    let thread = head.split(',').next().and_then(|thread| thread.parse().ok()).expect("a number");
    let address = |text: &str| usize::from_str_radix(text.strip_prefix("0x").expect("hexadecimal"), 16).expect("a number");
    (thread, addresses.split_whitespace().map(address).collect())
}

/// The first address of that stack lies in this function of the child's.
fn check_stack(ending: &Ending, what: &str, function: &str) -> usize {
    /// The functions are short; there are few, so that what lies behind one is not taken for another.
    const FUNCTION_BYTES: usize = 256;
    let facts = facts(ending);
    let (thread, addresses) = stack(ending, what);
    let start = facts[function];
    let next = facts.values().copied().filter(|&other| other > start).min().unwrap_or(usize::MAX);
    let end = (start + FUNCTION_BYTES).min(next);
    assert!((start..end).contains(&addresses[0]), "{what} is not in {function}: {ending:?}");
    thread
}

#[test]
fn what_touches_a_closed_page_dies_at_once_and_is_told_of() {
    for (case, access, kind, distance) in [
        ("overflow-1", "write", "overflow", "1 B past the end of"),
        ("overflow-8", "write", "overflow", "8 B past the end of"),
        ("overflow-page", "write", "overflow", "4096 B past the end of"),
        ("underflow", "write", "underflow", "1 B before the start of"),
        ("use-after-free-read", "read", "use after free", "12 B into freed"),
        ("use-after-free-write", "write", "use after free", "12 B into freed"),
    ] {
        let told = ending(&[case], TOLD);
        assert_eq!(told.signal, Some(libc::SIGSEGV), "{case}: {told:?}");
        assert!(!told.out.contains("went on"), "{case}");
        let facts = facts(&told);
        let block = facts["block"];
        let line = told.err.lines().next().expect("something was said");
        assert!(line.starts_with(&format!("freestone: guarded: {kind}: {access} at 0x")), "{case}: {line}");
        let size = if kind == "use after free" { 100 } else { 64 };
        assert!(line.contains(&format!(", {distance} ptr={block:#x} class=")), "{case}: {line}");
        assert!(line.contains(&format!(" ({size} B), by thread {}", facts["thread"])), "{case}: {line}");
        assert_eq!(check_stack(&told, "access", access), facts["thread"]);
        assert_eq!(check_stack(&told, "allocation", "allocate"), facts["thread"]);
        if kind == "use after free" {
            assert_ne!(check_stack(&told, "free", "free"), facts["thread"], "another thread freed it");
        } else {
            assert!(!told.err.contains("guarded: free"), "{told:?}");
        }
        let base = told.err.lines().last().expect("some lines");
        assert!(base.contains("the program is loaded at 0x"), "{base}");
        // Without somebody to tell, the same without a word.
        let silent = ending(&[case], ALL);
        assert_eq!((silent.signal, silent.err.as_str()), (Some(libc::SIGSEGV), ""), "{case}");
        assert!(!silent.out.contains("went on"));
    }
}

#[test]
fn what_does_not_reach_a_closed_page_is_found_at_the_free() {
    for (case, kind, distance) in [
        ("overflow-padding", "overflow", "1 B past its end"),
        ("overflow-within", "overflow", "1 B past its end"),
        ("underflow-within", "underflow", "1 B before its start"),
    ] {
        let ending = ending(&[case], ALL);
        assert_eq!(ending.signal, Some(libc::SIGABRT), "{case}: {ending:?}");
        assert!(ending.out.ends_with("done wrong\n"), "{case}: {ending:?}");
        let facts = facts(&ending);
        let (first, rest) = ending.err.split_once('\n').expect("lines");
        assert!(first.starts_with(&format!("freestone: fatal: {kind}: ptr={:#x} class=", facts["block"])), "{case}: {first}");
        assert!(rest.contains(distance), "{case}: {rest}");
        assert_eq!(check_stack(&ending, "this free", "free"), facts["thread"]);
        assert_eq!(check_stack(&ending, "allocation", "allocate"), facts["thread"]);
    }
}

#[test]
fn a_double_free_comes_with_three_stacks() {
    let ending = ending(&["double-free"], ALL);
    assert_eq!(ending.signal, Some(libc::SIGABRT), "{ending:?}");
    let facts = facts(&ending);
    assert!(ending.err.starts_with(&format!("freestone: fatal: double free: ptr={:#x} class=", facts["block"])), "{ending:?}");
    for (what, function) in [("this free", "free"), ("allocation", "allocate"), ("free", "free")] {
        assert_eq!(check_stack(&ending, what, function), facts["thread"]);
    }
    let (_, this) = stack(&ending, "this free");
    let (_, before) = stack(&ending, "free");
    assert_eq!(this[0], before[0], "from the same place");
}

#[test]
fn other_wrong_frees_die_as_well() {
    for (case, kind) in [("wrong-layout", "size mismatch"), ("interior", "interior pointer")] {
        let ending = ending(&[case], ALL);
        assert_eq!(ending.signal, Some(libc::SIGABRT), "{case}: {ending:?}");
        assert!(ending.err.starts_with(&format!("freestone: fatal: {kind}: ptr=0x")), "{case}: {ending:?}");
        check_stack(&ending, "this free", "free");
    }
}

#[test]
fn a_million_operations_raise_no_false_alarm() {
    let seed = seed();
    for (mode, environment) in [(Build::Plain, ALL), (Build::Checked, TOLD)] {
        let program = build("guarded", mode);
        let ending = run(Command::new(program).arg("innocent").env("FREESTONE", environment).env("SEED", seed.to_string()));
        assert_eq!((ending.code, ending.err.as_str()), (Some(0), ""), "{ending:?}");
        let guarded: usize = ending.out.split_whitespace().next().and_then(|count| count.parse().ok()).expect("a count");
        assert!(guarded > 100_000, "only {guarded} blocks were guarded");
    }
}

#[test]
fn when_the_slots_are_in_use_samples_are_ordinary_ones() {
    for build_as in [Build::Plain, Build::Checked] {
        let program = build("guarded", build_as);
        let ending = run(Command::new(program).arg("full").env("FREESTONE", ALL));
        assert_eq!((ending.code, ending.err.as_str()), (Some(0), ""), "{ending:?}");
        let count: usize = ending.out.split_whitespace().next().and_then(|count| count.parse().ok()).expect("a count");
        // Some slots may rest.
        assert!((20..=64).contains(&count), "{ending:?}");
        let live: usize = ending.out.split(", ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok()).expect("a count");
        assert!((count..=64).contains(&live), "{ending:?}");
        assert!(ending.out.contains("approximate false"), "the accounts close: {ending:?}");
    }
}

#[test]
fn none_is_guarded_when_nobody_wants_any() {
    for environment in ["sample_interval:1,guard_interval:0", "sample_interval:0,guard_interval:1"] {
        let ending = ending(&["full"], environment);
        assert_eq!((ending.code, ending.err.as_str()), (Some(0), ""), "{ending:?}");
        assert!(ending.out.starts_with("0 of 1000 guarded, 0 live"), "{ending:?}");
    }
}

#[test]
fn where_address_space_is_scarce_samples_are_ordinary_ones() {
    let script = format!("ulimit -v 12000; exec {} full", program().display());
    let ending = run(Command::new("sh").args(["-c", &script]).env("FREESTONE", ALL));
    assert_eq!((ending.code, ending.err.as_str()), (Some(0), ""), "{ending:?}");
}

#[test]
fn a_child_of_a_fork_has_its_own() {
    let ending = ending(&["forks"], ALL);
    assert_eq!((ending.code, ending.err.as_str(), ending.out.as_str()), (Some(0), "", "child 0\n"), "{ending:?}");
}

#[test]
fn handlers_of_the_program_see_what_they_would_have_seen() {
    // Both with and without its own stack, as it chose.
    for (handler, alternate) in [("own-before", 0), ("own-alternate-before", 1), ("own-after", 1)] {
        let ending = ending(&["foreign-own", handler], ALL);
        assert_eq!((ending.code, ending.err.as_str()), (Some(0), ""), "{handler}: {ending:?}");
        assert_eq!(ending.out.matches("own handler").count(), 1, "{handler}: {ending:?}");
        assert!(ending.out.contains(&format!("right true alternate {alternate} held back 1")), "{handler}: {ending:?}");
    }
    let old = ending(&["foreign-default", "old-before"], ALL);
    assert_eq!((old.code, old.err.as_str(), old.out.as_str()), (Some(7), "", "old handler\n"));
}

#[test]
fn a_handler_that_was_there_before_is_called_after_the_report() {
    let told = ending(&["overflow-1", "old-before"], ALL);
    assert_eq!(told.code, Some(7), "{told:?}");
    assert!(told.out.ends_with("old handler\n"), "{told:?}");
    assert_eq!(told.err.matches("freestone: guarded: overflow").count(), 1, "{told:?}");
    // One that has the access repeated, and go well: it is told of once, and the free finds it.
    let repeated = ending(&["overflow-1", "own-before"], ALL);
    assert!(repeated.out.contains("own handler\nwent on\n"), "{repeated:?}");
    assert_eq!(repeated.err.matches("freestone: guarded: overflow").count(), 1, "{repeated:?}");
}

#[test]
fn foreign_faults_end_the_process_as_ever() {
    for (case, handler) in [
        ("foreign-default", ""),
        ("foreign-null", ""),
        ("foreign-default", "default-before"),
        ("foreign-default", "ignored-before"),
        ("foreign-default", "twice"),
        ("foreign-sent", ""),
        ("foreign-sent", "default-before"),
    ] {
        let told = ending(&[case, handler], TOLD);
        let expected = if case == "foreign-sent" && handler.is_empty() {
            // The standard library's handler lets one pass that is none of its own, and is gone.
            ending(&[case], "")
        } else {
            assert_eq!(told.signal, Some(libc::SIGSEGV), "{case} {handler}: {told:?}");
            Ending { code: None, signal: Some(libc::SIGSEGV), out: String::new(), err: String::new() }
        };
        assert_eq!(told, expected, "{case} {handler}");
    }
    let ignored = ending(&["foreign-sent", "ignored-before"], ALL);
    assert_eq!((ignored.code, ignored.out.as_str()), (Some(0), "survived\n"), "{ignored:?}");
}

#[test]
fn the_standard_library_still_tells_of_an_overflown_stack() {
    let ending = ending(&["foreign-overflow", "twice"], ALL);
    assert_eq!(ending.signal, Some(libc::SIGABRT), "{ending:?}");
    assert!(ending.err.contains("has overflowed its stack"), "{ending:?}");
}
