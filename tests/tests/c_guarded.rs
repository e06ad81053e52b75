//! Guarded blocks under programs in C, which ask how large a block is, and free without saying so.

use freestone_tests::c::{Joined, Library, Program, runs};
use freestone_tests::run;

const ALL: &str = "sample_interval:1,guard_interval:1";

#[test]
fn all_that_a_block_says_it_has_may_be_used() {
    for (joined, library) in [
        (Joined::Preloaded, Library::Usual),
        (Joined::Archived, Library::Usual),
        (Joined::Preloaded, Library::Checked),
        (Joined::Preloaded, Library::Dlopen),
    ] {
        for more in ["", ",check:exchange", ",fault_report:1"] {
            let options = format!("{ALL}{more}");
            let program = Program::new("guarded.c", joined, library);
            assert_eq!(
                runs(program.command().arg("right").env("FREESTONE", &options)).out,
                "",
                "{joined:?} {library:?} {options}"
            );
        }
    }
}

#[test]
fn what_goes_wrong_is_stopped_and_told_of() {
    for library in [Library::Usual, Library::Checked] {
        let program = Program::new("guarded.c", Joined::Preloaded, library);
        for (case, signal, said) in [
            ("overflow", libc::SIGSEGV, "freestone: guarded: overflow: write at 0x"),
            ("underflow", libc::SIGSEGV, "freestone: guarded: underflow: write at 0x"),
            ("use-after-free", libc::SIGSEGV, "freestone: guarded: use after free: read at 0x"),
            ("padding", libc::SIGABRT, "freestone: fatal: overflow: ptr=0x"),
            ("double-free", libc::SIGABRT, "freestone: fatal: double free: ptr=0x"),
            ("interior", libc::SIGABRT, "freestone: fatal: interior pointer: ptr=0x"),
            ("closed", libc::SIGABRT, "freestone: fatal: invalid free: ptr=0x"),
            ("realloc-of-freed", libc::SIGABRT, "freestone: fatal: double free: ptr=0x"),
            ("usable-size-of-freed", libc::SIGABRT, "freestone: fatal: double free: ptr=0x"),
            ("wrong-size", libc::SIGABRT, "freestone: fatal: size mismatch: ptr=0x"),
        ] {
            let ending = run(program.command().arg(case).env("FREESTONE", format!("{ALL},fault_report:1")));
            assert_eq!(ending.signal, Some(signal), "{case}: {ending:?}");
            assert!(ending.err.starts_with(said), "{case}: {ending:?}");
        }
    }
}
