//! The library under all that a process can do before `main`, after it, in threads, in plugins, in children.

use freestone_tests::c::{Joined, Library, Program, runs};

const EVERYWHERE: [(Joined, Library); 5] = [
    (Joined::Preloaded, Library::Usual),
    (Joined::Linked, Library::Usual),
    (Joined::Archived, Library::Usual),
    (Joined::Preloaded, Library::Checked),
    (Joined::Preloaded, Library::Dlopen),
];

#[test]
fn before_main_and_after_it() {
    let order = "first constructor\nlast constructor\nmain\nhandlers\ndestructor\n";
    // What is built for being loaded late is not built for the time before thread-local variables have their values. Nor does anything allocate then
    // in a program that is all archives: it has no such variables yet.
    let early = EVERYWHERE.into_iter().filter(|(_, library)| *library != Library::Dlopen);
    for (joined, library) in early.chain([(Joined::AllArchived, Library::Usual)]) {
        for flags in [&["-Wl,-z,lazy"][..], &["-Wl,-z,now"][..]] {
            let program = Program::with_flags("early.c", joined, library, flags);
            assert_eq!(runs(&mut program.command()).out, order, "{joined:?}, {library:?}");
            assert_eq!(runs(program.command().env("LD_BIND_NOW", "1")).out, order, "{joined:?}, {library:?}, bound at once");
            assert_eq!(runs(program.command().env("FREESTONE", "bypass:1")).out, order, "{joined:?}, {library:?}, bypassed");
        }
    }
}

#[test]
fn threads_end_in_every_way() {
    for (joined, library) in EVERYWHERE {
        assert_eq!(runs(&mut Program::new("thread_ends.c", joined, library).command()).out, "kept\n", "{joined:?}, {library:?}");
    }
}

#[test]
fn plugins_come_and_go() {
    let plugin = Program::plugin("plugin.c", &[]);
    for (joined, library) in EVERYWHERE {
        let program = Program::new("loading.c", joined, library);
        assert_eq!(runs(program.command().arg("plugin").arg(&plugin)).out, "kept\n", "{joined:?}, {library:?}");
    }
}

#[test]
fn the_library_is_loaded_late_and_stays() {
    let program = Program::new("loading.c", Joined::Not, Library::Usual);
    for library in [Library::Usual, Library::Dlopen, Library::Checked] {
        assert_eq!(runs(program.command().arg("library").arg(library.shared())).out, "kept\n", "{library:?}");
    }
}

#[test]
fn without_room_for_thread_local_memory_it_is_refused_or_was_built_for_that() {
    let program = Program::new("loading.c", Joined::Not, Library::Usual);
    // The linker keeps a little more than 1.5 KiB.
    let greedy = [1024, 512, 256, 128, 64, 32, 16, 8, 1].map(|bytes| Program::plugin("plugin.c", &[&format!("-DTLS_BYTES={bytes}")]));
    let ending = runs(program.command().arg("library").arg(Library::Usual.shared()).args(&greedy));
    assert_eq!(ending.out, "refused\n");
    let ending = runs(program.command().arg("library").arg(Library::Dlopen.shared()).args(&greedy));
    assert_eq!(ending.out, "kept\n");
}
