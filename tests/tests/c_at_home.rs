//! The library under all that a process can do before `main`, after it, in threads, in plugins, in children.

use std::os::unix::fs::{PermissionsExt, chown};

use freestone_tests::c::{Joined, Library, Program, runs};
use freestone_tests::run;

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
    let greedy =
        [1024, 512, 256, 128, 64, 32, 16, 8, 1].map(|bytes| Program::plugin("plugin.c", &[&format!("-DTLS_BYTES={bytes}")]));
    let ending = runs(program.command().arg("library").arg(Library::Usual.shared()).args(&greedy));
    assert_eq!(ending.out, "refused\n");
    let ending = runs(program.command().arg("library").arg(Library::Dlopen.shared()).args(&greedy));
    assert_eq!(ending.out, "kept\n");
}

fn has_children(way: &str, count: u32) {
    for (joined, library) in
        [(Joined::Preloaded, Library::Usual), (Joined::Archived, Library::Usual), (Joined::Preloaded, Library::Checked)]
    {
        let program = Program::new("children.c", joined, library);
        assert_eq!(runs(program.command().args([way, &count.to_string()])).out, "kept\n", "{way}, {joined:?}, {library:?}");
    }
}

/// Closing measurement: 10,000.
#[test]
fn a_process_at_work_forks_and_every_child_works() {
    has_children("forks", 150);
}

#[test]
fn a_process_at_work_starts_programs() {
    has_children("vforks", 30);
    has_children("spawns", 30);
    has_children("shells", 10);
}

#[test]
fn a_signal_handler_forks_whatever_it_interrupted() {
    has_children("forks_in_handlers", 100);
}

#[test]
fn a_process_that_nobody_told_of_has_threads() {
    let program = Program::new("clone.c", Joined::Preloaded, Library::Usual);
    for _ in 0..5 {
        assert_eq!(runs(&mut program.command()).out, "kept\n");
    }
}

#[test]
fn handlers_around_fork_that_came_first_allocate() {
    let library = Program::plugin("handlers.c", &["-DLIBRARY"]);
    let library = library.to_str().expect("a path in UTF-8");
    let program = Program::with_flags("handlers.c", Joined::Preloaded, Library::Usual, &[library]);
    assert_eq!(runs(&mut program.command()).out, "kept\n");
}

/// Closing measurement: 100,000.
#[test]
fn many_threads_come_and_go_and_leave_nothing() {
    for (joined, library) in EVERYWHERE {
        // Without samples: what is known of call sites grows for a while, and is not what threads leave.
        let ending = runs(Program::new("threads.c", joined, library).command().arg("4000").env("FREESTONE", "sample_interval:0"));
        println!("{joined:?}, {library:?}: {}", ending.out);
        assert!(ending.out.ends_with("kept\n"));
    }
}

#[test]
fn a_program_with_one_thread_keeps_to_it() {
    for (joined, library) in EVERYWHERE {
        assert_eq!(runs(&mut Program::new("alone.c", joined, library).command()).out, "kept\n", "{joined:?}, {library:?}");
    }
}

/// The dynamic linker itself does not preload for such a process, so the library is linked.
#[test]
fn who_runs_with_anothers_rights_does_not_listen_to_the_environment() {
    const NOBODY: u32 = 65534;
    let program = Program::new("secure.c", Joined::Archived, Library::Usual);
    let listens = run(program.command().env("FREESTONE", "zero_size:usable,nonsense:1"));
    assert_eq!(listens.out, "secure=0 usable=1 bypassed=0\n");
    assert_eq!(listens.err.lines().count(), 1, "{}", listens.err);

    let secured = program.path().with_extension("secured");
    std::fs::copy(program.path(), &secured).expect("there is room beside it");
    // Owner first: changing that takes the bit away.
    let made = chown(&secured, Some(NOBODY), None)
        .and_then(|()| std::fs::set_permissions(&secured, std::fs::Permissions::from_mode(0o4755)));
    let ending = run(std::process::Command::new(&secured).env("FREESTONE", "zero_size:usable,bypass:1,nonsense:1"));
    if made.is_err() || ending.out.starts_with("secure=0") {
        println!(
            "SKIPPED: who is not root, or on a file system without such bits, cannot run with another's rights: {made:?}, {}",
            ending.out
        );
        return;
    }
    assert_eq!((ending.out.as_str(), ending.err.as_str()), ("secure=1 usable=0 bypassed=0\n", ""));
}
