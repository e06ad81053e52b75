//! Everything that a C program can do wrong with a pointer, and when it is stopped: by the wrong call itself, within a thousand operations, when the
//! blocks come back to central, or never.

use Stopped::{AtCentral, AtTheCall, Never, WithinAThousand};
use freestone_tests::c::{Joined, Library, Program, runs};
use freestone_tests::{Ending, Stopped, run};

const SIZES: [usize; 3] = [64, 4096, 256 << 10];

/// The twelve classic wrong calls, what they are called, and when they are stopped by default at the latest, in each of the three sizes.
const CLASSICS: [(&str, &str, [Stopped; 3]); 12] = [
    ("double-at-once", "double free", [AtCentral, AtCentral, AtTheCall]),
    ("double-one-between", "double free", [AtCentral, AtCentral, AtTheCall]),
    ("double-after-a-million", "double free", [AtCentral, AtCentral, AtTheCall]),
    ("interior", "interior pointer", [AtCentral, AtCentral, AtTheCall]),
    ("plus-one", "misaligned pointer", [AtTheCall; 3]),
    ("minus-one", "misaligned pointer", [AtTheCall; 3]),
    ("stack", "foreign pointer", [AtTheCall; 3]),
    ("static", "foreign pointer", [AtTheCall; 3]),
    ("wild", "foreign pointer", [AtTheCall; 3]),
    ("unmapped", "foreign pointer", [AtTheCall; 3]),
    ("realloc-of-freed", "double free", [AtCentral, AtCentral, AtTheCall]),
    ("usable-size-of-freed", "double free", [Never, Never, AtTheCall]),
];

/// Asserts that the program ended as the library ends it: by `SIGABRT`, with one line that names the kind.
fn check_line(ending: &Ending, kind: &str, what: &str) {
    assert_eq!(ending.signal, Some(libc::SIGABRT), "{what}: {ending:?}");
    let line = ending.err.trim_end_matches('\n');
    assert_eq!(line.lines().count(), 1, "{what}: one line, not {line:?}");
    assert!(line.starts_with(&format!("freestone: fatal: {kind}: ptr=0x")), "{what} is called {line:?}");
    assert!(line.contains(" class=") && line.contains(" B): "), "{line:?}");
    assert!(line.len() < 512, "{line:?}");
}

/// When each of the 36 is stopped. Without samples, which now and then are caught earlier, and called otherwise: see `c_guarded`.
fn stops(library: Library, options: &str) -> Vec<(&'static str, usize, Stopped)> {
    let options = &format!("sample_interval:0,{options}");
    let program = Program::new("misuse.c", Joined::Preloaded, library);
    let mut found = Vec::new();
    for (size, nth) in SIZES.into_iter().zip(0..) {
        for (what, kind, _) in CLASSICS {
            let ending = run(program.command().args([what, &size.to_string()]).env("FREESTONE", options));
            let when = Stopped::of(&ending);
            if when == Never {
                assert_eq!(ending.err, "");
            } else {
                check_line(&ending, kind, &format!("{what} of {size} B"));
            }
            found.push((what, nth, when));
        }
        let innocent = run(program.command().args(["nothing", &size.to_string()]).env("FREESTONE", options));
        assert_eq!((Stopped::of(&innocent), innocent.err.as_str()), (Never, ""), "{innocent:?}");
    }
    found
}

#[test]
fn by_default_most_are_stopped_and_it_is_known_when() {
    let found = stops(Library::Usual, "");
    for &(what, nth, when) in &found {
        let (_, _, expected) = CLASSICS.into_iter().find(|classic| classic.0 == what).expect("one of them");
        println!("{what} of {} B: {when:?}", SIZES[nth]);
        assert!(when <= expected[nth], "{what} of {} B: {when:?}", SIZES[nth]);
    }
    let count = found.iter().filter(|(_, _, when)| *when != Never).count();
    assert_eq!(count, 34, "of 36 are stopped");
}

#[test]
fn checking_every_exchange_stops_all_of_them() {
    for (what, nth, when) in stops(Library::Usual, "check:exchange") {
        println!("{what} of {} B: {when:?}", SIZES[nth]);
        assert!(when <= WithinAThousand, "{what} of {} B: {when:?}", SIZES[nth]);
    }
}

#[test]
fn the_feature_stops_all_of_them_at_the_call() {
    for (what, nth, when) in stops(Library::Checked, "") {
        assert_eq!(when, AtTheCall, "{what} of {} B", SIZES[nth]);
    }
}

#[test]
fn other_wrong_calls_are_stopped_at_the_call() {
    let cases = [
        ("double-of-nothing", 64, "double free"),
        ("realloc-of-freed-nothing", 64, "double free"),
        ("inside-nothing", 64, "misaligned pointer"),
        // Of a run of pages nobody remembers that it was a block once.
        ("double-at-once", 300 << 10, "invalid free"),
        ("double-after-a-million", 300 << 10, "invalid free"),
        ("realloc-of-freed", 300 << 10, "invalid free"),
        ("usable-size-of-freed", 300 << 10, "invalid free"),
        ("interior", 300 << 10, "interior pointer"),
        ("double-at-once", 3 << 20, "double free"),
        ("double-at-once", 64 << 20, "double free"),
        ("realloc-of-freed", 3 << 20, "double free"),
        ("usable-size-of-freed", 3 << 20, "double free"),
        ("interior", 3 << 20, "interior pointer"),
        ("usable-size-of-interior", 3 << 20, "interior pointer"),
        ("realloc-of-interior", 3 << 20, "interior pointer"),
        ("double-aligned", 64, "double free"),
        ("double-aligned", 5 << 20, "double free"),
        ("sized-too-small", 64, "size mismatch"),
        ("sized-too-large", 64, "size mismatch"),
        ("sized-too-small", 4096, "size mismatch"),
        ("sized-too-large", 4096, "size mismatch"),
        ("sized-too-small", 256 << 10, "size mismatch"),
        ("sized-too-large", 256 << 10, "size mismatch"),
        ("sized-too-small", 300 << 10, "size mismatch"),
        ("sized-too-large", 3 << 20, "size mismatch"),
        ("sized-other-align", 64, "size mismatch"),
        ("literal", 64, "foreign pointer"),
        ("function", 64, "foreign pointer"),
        ("mapping", 64, "foreign pointer"),
        ("break", 64, "foreign pointer"),
        ("small", 64, "foreign pointer"),
        ("kernel", 64, "foreign pointer"),
        ("non-canonical", 64, "foreign pointer"),
    ];
    for library in [Library::Usual, Library::Checked] {
        let program = Program::new("misuse.c", Joined::Preloaded, library);
        for (what, size, kind) in cases {
            let ending = run(program.command().args([what, &size.to_string()]));
            let what = format!("{what} of {size} B");
            assert_eq!(Stopped::of(&ending), AtTheCall, "{what}: {ending:?}");
            check_line(&ending, kind, &what);
        }
        // Of a block beyond the classes any size is right that it has.
        for (right, size) in [("sized-same-class", 100), ("sized-same-class", 3 << 20), ("sized-too-small", 3 << 20)] {
            let ending = run(program.command().args([right, &size.to_string()]));
            assert_eq!((Stopped::of(&ending), ending.err.as_str()), (Never, ""), "{right} of {size} B");
        }
    }
}

#[test]
fn a_slot_that_was_never_handed_out_is_not_taken_back() {
    for (library, options, latest) in
        [(Library::Usual, "", AtCentral), (Library::Usual, "check:exchange", WithinAThousand), (Library::Checked, "", AtTheCall)]
    {
        let program = Program::new("misuse.c", Joined::Preloaded, library);
        for size in [64, 1000, 4096, 100 << 10] {
            let ending = run(program.command().args(["never-handed-out", &size.to_string()]).env("FREESTONE", options));
            assert!(Stopped::of(&ending) <= latest, "{size} B: {ending:?}");
            // To central a block that was never out is as free as one that came back.
            let kind = if ending.err.contains("double free") { "double free" } else { "invalid free" };
            check_line(&ending, kind, &format!("{size} B"));
        }
    }
}

#[test]
fn foreign_pointers_are_ignored_where_that_was_asked_for() {
    for library in [Library::Usual, Library::Checked, Library::Dlopen] {
        let program = Program::new("misuse.c", Joined::Preloaded, library);
        runs(program.command().arg("ignored").env("FREESTONE", "foreign:ignore"));
    }
}
