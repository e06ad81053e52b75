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

#[test]
fn the_promises_of_cpp_are_kept() {
    if !has_cpp() {
        return;
    }
    for (joined, library) in WAYS {
        let program = Program::new("contract.cpp", joined, library);
        for options in ["", "check:exchange", "bypass:1"] {
            let mut command = program.command();
            if joined == Joined::AllArchived {
                command.arg("memory_lasts");
            }
            assert_eq!(runs(command.env("FREESTONE", options)).out, "kept\n");
        }
    }
}

/// Its own operators, which would throw, are not linked where ours are: what cannot be promised there is an exception.
#[test]
fn cpp_without_a_library_to_throw_ends_with_a_line_when_memory_does() {
    if !has_cpp() {
        return;
    }
    let ending = run(&mut Program::new("contract.cpp", Joined::AllArchived, Library::Usual).command());
    let line = "freestone: fatal: out of memory in _Znwm, and there is no C++ library to throw an exception\n";
    assert_eq!((ending.signal, ending.err.as_str()), (Some(libc::SIGABRT), line), "{ending:?}");
}

/// The numbers behind `name="`.
fn attribute(element: &str, name: &str) -> u64 {
    let (_, rest) = element.split_once(&format!(" {name}=\"")).unwrap_or_else(|| panic!("{element} says {name}"));
    rest.split('"').next().and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{element}: {name} is a number"))
}

/// The elements of a text in XML without text between them, or what is wrong with it.
fn elements(xml: &str) -> Result<Vec<&str>, String> {
    let (mut open, mut found) = (Vec::new(), Vec::new());
    let mut rest = xml.trim_end();
    while !rest.is_empty() {
        let inside = rest.strip_prefix('<').ok_or_else(|| format!("text between elements: {rest}"))?;
        let (element, behind) = inside.split_once('>').ok_or("an element that does not end")?;
        rest = behind.trim_start();
        let name = element.trim_matches('/').split(' ').next().unwrap_or_default();
        if name.is_empty() || element.contains('<') || element.matches('"').count() % 2 != 0 {
            return Err(format!("not an element: {element}"));
        }
        if element.starts_with('/') {
            if open.pop() != Some(name) {
                return Err(format!("{name} was not open"));
            }
            continue;
        }
        if !element.ends_with('/') {
            if open.is_empty() && !found.is_empty() {
                return Err("a second root".to_owned());
            }
            open.push(name);
        }
        found.push(element);
    }
    if open.is_empty() { Ok(found) } else { Err(format!("still open: {open:?}")) }
}

#[test]
fn a_text_that_is_not_well_formed_is_noticed() {
    assert_eq!(elements("<a b=\"1\">\n<c/>\n</a>\n").map(|found| found.len()), Ok(2));
    for broken in ["<a>", "<a></b>", "<a/>x", "<a b=\"></a>", "</a>", "<a></a><b></b>", "<a"] {
        assert!(elements(broken).is_err(), "{broken}");
    }
}

#[test]
fn the_heap_tells_the_truth_in_the_words_of_glibc() {
    for (joined, library) in WAYS {
        let program = Program::new("accounts.c", joined, library);
        // A guarded block can be used up to what was asked for, and is counted as one of its class.
        let ending = run(program.command().env("FREESTONE", "guard_interval:0"));
        assert_eq!(ending.code, Some(0), "{ending:#?}");
        let (lines, xml) = ending.out.split_once("xml\n").expect("the program says both");
        let numbers: HashMap<&str, u64> = lines
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(name, number)| (name, number.parse().expect("a number")))
            .collect();

        let elements = elements(xml).unwrap_or_else(|wrong| panic!("{wrong}: {xml}"));
        let named = |name: &str| {
            elements.iter().copied().filter(move |element| element.split(' ').next() == Some(name)).collect::<Vec<_>>()
        };
        let classes: u64 = named("size").iter().map(|class| attribute(class, "bytes") * attribute(class, "live")).sum();
        let [large] = named("large")[..] else { panic!("one line of large blocks: {xml}") };
        assert_eq!(attribute(large, "live"), numbers["hblks"]);
        assert_eq!(attribute(large, "bytes"), numbers["hblkhd"]);
        let total = |kind: &str| {
            let line = named("total").into_iter().find(|total| total.contains(&format!("type=\"{kind}\"")));
            attribute(line.unwrap_or_else(|| panic!("{kind} is in {xml}")), "size")
        };
        assert_eq!(total("live"), numbers["uordblks"]);
        assert_eq!(total("live"), classes + attribute(large, "bytes"), "{xml}");
        let [threads] = named("threads")[..] else { panic!("one line of threads: {xml}") };
        assert_eq!(attribute(threads, "count"), 1);

        // For people: the same in KiB, and a last line with counts.
        let said: Vec<&str> = ending.err.lines().collect();
        assert!(said.iter().all(|line| line.starts_with("freestone: ")), "{said:#?}");
        let live = format!("freestone: {:<13} {:>12} KiB", "live", numbers["uordblks"].div_ceil(1024));
        assert!(said.contains(&live.as_str()), "{live} is in {said:#?}");
        assert_eq!(said.len(), 10, "nine accounts and the counts: {said:#?}");
        assert!(said[9].contains(" blocks live of ") && said[9].ends_with(" calls to the system"), "{}", said[9]);
    }
}
