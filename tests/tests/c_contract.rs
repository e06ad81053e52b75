//! What C and C++ programs may take for granted of `malloc` and its family, whichever way they come to the library, and what the heap says of itself.

use std::collections::HashMap;

use freestone_tests::c::{Joined, Library, Program, has_cpp, runs};
use freestone_tests::run;

const WAYS: [(Joined, Library); 5] = [
    (Joined::Preloaded, Library::Usual),
    (Joined::Linked, Library::Usual),
    (Joined::Archived, Library::Usual),
    (Joined::AllArchived, Library::Usual),
    (Joined::Preloaded, Library::Checked),
];

fn kept(joined: Joined, library: Library, options: &str) {
    let ending = runs(Program::new("contract.c", joined, library).command().env("FREESTONE", options));
    assert_eq!(ending.out, "kept\n");
}

#[test]
fn the_contract_of_malloc_is_kept() {
    for (joined, library) in WAYS {
        kept(joined, library, "");
    }
}

#[test]
fn it_is_kept_with_other_options() {
    kept(Joined::Preloaded, Library::Usual, "zero_size:usable,check:exchange");
    kept(Joined::Preloaded, Library::Dlopen, "check:exchange");
}

#[test]
fn it_is_kept_when_the_systems_allocator_serves() {
    kept(Joined::Preloaded, Library::Usual, "bypass:1");
    kept(Joined::Archived, Library::Usual, "bypass:1");
    kept(Joined::Preloaded, Library::Checked, "bypass:1");
    kept(Joined::Preloaded, Library::Dlopen, "bypass:1");
}

#[test]
fn a_block_of_nothing_cannot_be_touched_unless_that_is_wanted() {
    let program = Program::new("contract.c", Joined::Preloaded, Library::Usual);
    for chapter in ["touch_zero", "read_zero"] {
        let ending = run(program.command().arg(chapter));
        assert_eq!((ending.signal, ending.out.as_str(), ending.err.as_str()), (Some(libc::SIGSEGV), "", ""), "{ending:?}");
        for options in ["zero_size:usable", "bypass:1"] {
            assert_eq!(runs(program.command().arg(chapter).env("FREESTONE", options)).out, "kept\n");
        }
    }
}
