//! A Rust program with this allocator, under the library for C: two copies in one process, each with its own blocks.

use std::process::Command;

use freestone_tests::c::Library;
use freestone_tests::{Build, build, run};

fn under_the_library(build_as: Build, arguments: &[&str]) -> freestone_tests::Ending {
    let mut command = Command::new(build("two_heaps", build_as));
    run(command.args(arguments).env("LD_PRELOAD", Library::Usual.shared()).env_remove("FREESTONE"))
}

#[test]
fn both_work() {
    for build_as in [Build::Plain, Build::Checked] {
        let ending = under_the_library(build_as, &["both"]);
        assert_eq!((ending.code, ending.out.as_str(), ending.err.as_str()), (Some(0), "done\nall back\n", ""), "{ending:#?}");
    }
}

#[test]
fn a_block_that_crosses_is_known_to_be_the_other_ones() {
    for build_as in [Build::Plain, Build::Checked] {
        for size in [64, 4096, 256 << 10, 300 << 10, 5 << 20] {
            for who in ["rust", "c"] {
                let ending = under_the_library(build_as, &[who, &size.to_string()]);
                assert_eq!(ending.signal, Some(libc::SIGABRT), "{who} frees {size} B: {ending:#?}");
                let line = ending.err.trim_end_matches('\n');
                assert!(line.starts_with("freestone: fatal: foreign pointer: ptr=0x"), "{who} frees {size} B: {line}");
                assert!(line.contains("another copy of Freestone"), "{who} frees {size} B: {line}");
                assert_eq!(line.lines().count(), 1);
                // Only small blocks of Rust are not looked at before they come back to central.
                let is_late = who == "rust" && build_as == Build::Plain && size < 256 << 10;
                assert_eq!(ending.out, if is_late { "done\n" } else { "" }, "{who} frees {size} B");
            }
        }
    }
}
