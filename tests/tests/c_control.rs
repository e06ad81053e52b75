//! What an operator can ask of the C face, by `freestone.h` and by `FREESTONE` in the environment.

use freestone_tests::c::{Joined, Library, Program, runs};
use freestone_tests::run;

const VERSION: &str = concat!("-DVERSION=\"", env!("CARGO_PKG_VERSION"), "\"");

fn control(joined: Joined, library: Library) -> Program {
    Program::with_flags("control.c", joined, library, &[VERSION])
}

#[test]
fn freestone_h_keeps_its_word() {
    let joined =
        [Joined::Preloaded, Joined::Linked, Joined::Archived, Joined::AllArchived].map(|joined| (joined, Library::Usual));
    let built = [Library::Checked, Library::Dlopen].map(|library| (Joined::Preloaded, library));
    for (joined, library) in joined.into_iter().chain(built) {
        let ending = run(&mut control(joined, library).command());
        assert_eq!((ending.code, ending.out.as_str()), (Some(0), "kept\n"), "{joined:?}, {library:?}: {ending:#?}");
        // It goes up to the hard limit, which is said aloud.
        let of_the_fuse =
            |line: &str| line.starts_with("freestone: memory: ") && line.contains(" of the hard limit of 65536 KiB ");
        assert!(!ending.err.is_empty() && ending.err.lines().all(of_the_fuse), "{}", ending.err);
    }
}

#[test]
fn it_says_nothing_where_the_systems_allocator_serves() {
    for joined in [Joined::Preloaded, Joined::Linked, Joined::Archived] {
        let ending = runs(control(joined, Library::Usual).command().env("FREESTONE", "bypass:1"));
        assert_eq!(ending.out, "kept\n", "{joined:?}");
    }
}

#[test]
fn an_unknown_option_is_one_line_and_no_more() {
    let program = Program::new("accounts.c", Joined::Preloaded, Library::Usual);
    for (options, named) in
        [("nonsense:1", "nonsense"), ("bypass:2", "bypass"), ("zero_size:", "zero_size"), ("foreign:maybe", "foreign")]
    {
        // A guarded block can be used up to what was asked for, and is counted as one of its class.
        let ending = run(program.command().env("FREESTONE", format!("{options},guard_interval:0")));
        assert_eq!(ending.code, Some(0), "{ending:#?}");
        let lines: Vec<&str> = ending.err.lines().filter(|line| line.contains("FREESTONE")).collect();
        let [line] = lines[..] else { panic!("one line, not {lines:?}") };
        assert!(line.starts_with("freestone: ") && line.contains(named), "{line}");
    }
}
