//! The house has floors: a file of the allocator imports only from floors below its own, never from its own or from above. That keeps every room
//! testable without the ones that use it, and walks through the house going down. Each file says its floor in its first line; this test reads
//! the sources and names every import that climbs.
//!
//! A folder is one room: its `mod.rs` may use its own files, and `lib.rs`, at the top, everything. Tests and models (`tests.rs`, `model.rs`,
//! what stands under `#[cfg(test)]`) may use what they like.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

/// Files of one floor that use each other all the same, and why.
const EXCEPTIONS: [(&str, &str, &str); 4] = [
    ("os/linux.rs", "os/mod.rs", "the contract that this file fulfils, and its words"),
    ("os/sim.rs", "os/mod.rs", "as above"),
    ("os/faults.rs", "os/mod.rs", "a part of it"),
    ("os/sim.rs", "os/linux.rs", "a machine for tests is the real one with failures on demand"),
];

/// Sources by their path under `allocator/src`, and those of the face for C.
type Sources = BTreeMap<String, String>;

fn read_sources(folder: &Path, below: &str, sources: &mut Sources) {
    for entry in std::fs::read_dir(folder).expect("the sources are there") {
        let path = entry.expect("readable").path();
        let is_source = path.extension().is_some_and(|extension| extension == "rs");
        let name = format!("{below}{}", path.file_name().expect("it has one").to_str().expect("in ASCII"));
        if path.is_dir() {
            read_sources(&path, &format!("{name}/"), sources);
        } else if is_source {
            let source = std::fs::read_to_string(&path).expect("readable");
            sources.insert(name, source);
        }
    }
}

/// Tests and models stand outside the house.
fn is_exempt(file: &str) -> bool {
    ["tests.rs", "model.rs"].contains(&file.rsplit('/').next().unwrap_or(file)) && !file.starts_with("os/")
}

/// What a file's first line says.
fn floor_of(source: &str) -> Option<u32> {
    let rest = source.lines().next()?.strip_prefix("//! Floor ")?;
    rest.split_once('.')?.0.parse().ok()
}

/// `thread_cache/slow.rs` is `thread_cache::slow`, `os/mod.rs` is `os`, `lib.rs` is the crate itself, an empty path.
fn module_of(file: &str) -> Vec<&str> {
    let path = file.strip_suffix(".rs").expect("a source");
    let path = path.strip_suffix("/mod").unwrap_or(path);
    if path == "lib" { Vec::new() } else { path.split('/').collect() }
}

// ---- reading -----------------------------------------------------------------------------------------------------------

/// A word, a `::`, or a single other character, and the line it stands on.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Token {
    line: usize,
    text: String,
}

/// Takes a source apart, without comments, strings and characters.
fn tokens(source: &str) -> Vec<Token> {
    let characters: Vec<char> = source.chars().collect();
    let at = |index: usize| characters.get(index).copied().unwrap_or('\0');
    let is_word = |character: char| character.is_alphanumeric() || character == '_';
    let mut found = Vec::new();
    let (mut index, mut line) = (0, 1);
    while index < characters.len() {
        let begin = index;
        match at(index) {
            '/' if at(index + 1) == '/' => {
                while index < characters.len() && at(index) != '\n' {
                    index += 1;
                }
            }
            '/' if at(index + 1) == '*' => {
                let mut depth = 0;
                loop {
                    match (at(index), at(index + 1)) {
                        ('/', '*') => depth += 1,
                        ('*', '/') => depth -= 1,
                        _ => {
                            index += 1;
                            continue;
                        }
                    }
                    index += 2;
                    if depth == 0 {
                        break;
                    }
                }
            }
            'r' if at(index + 1) == '"' || (at(index + 1) == '#' && (at(index + 2) == '"' || at(index + 2) == '#')) => {
                let hashes = characters[index + 1..].iter().take_while(|&&character| character == '#').count();
                index += hashes + 2;
                while at(index) != '"' || (0..hashes).any(|nth| at(index + 1 + nth) != '#') {
                    index += 1;
                }
                index += hashes + 1;
            }
            '"' => {
                index += 1;
                while at(index) != '"' {
                    index += if at(index) == '\\' { 2 } else { 1 };
                }
                index += 1;
            }
            // A character, not a lifetime.
            '\'' if at(index + 1) == '\\' || at(index + 2) == '\'' => {
                index += if at(index + 1) == '\\' { 3 } else { 2 };
                while at(index) != '\'' {
                    index += 1;
                }
                index += 1;
            }
            ':' if at(index + 1) == ':' => {
                found.push(Token { line, text: "::".to_owned() });
                index += 2;
            }
            character if is_word(character) => {
                while is_word(at(index)) {
                    index += 1;
                }
                found.push(Token { line, text: characters[begin..index].iter().collect() });
            }
            character => {
                if !character.is_whitespace() {
                    found.push(Token { line, text: character.to_string() });
                }
                index += 1;
            }
        }
        line += characters[begin..index].iter().filter(|&&character| character == '\n').count();
    }
    found
}

/// Leaves out every item under an attribute that begins `cfg(test` or `cfg(all(test`.
fn without_tests(tokens: &[Token]) -> Vec<Token> {
    let begins_with = |index: usize, texts: &[&str]| {
        texts.iter().enumerate().all(|(nth, text)| tokens.get(index + nth).is_some_and(|token| token.text == *text))
    };
    let mut kept = Vec::new();
    let mut index = 0;
    while index < tokens.len() {
        if !begins_with(index, &["#", "[", "cfg", "(", "test"])
            && !begins_with(index, &["#", "[", "cfg", "(", "all", "(", "test"])
        {
            kept.push(tokens[index].clone());
            index += 1;
            continue;
        }
        // To the end of the attribute, and then of the item: a semicolon, or the brace that closes its first one.
        index = after_closing(tokens, index + 1);
        while index < tokens.len() && !["{", ";"].contains(&tokens[index].text.as_str()) {
            index += 1;
        }
        index = if begins_with(index, &["{"]) { after_closing(tokens, index) } else { index + 1 };
    }
    kept
}

/// The position behind the bracket that closes the one at `index`.
fn after_closing(tokens: &[Token], mut index: usize) -> usize {
    let mut depth = 0;
    while let Some(token) = tokens.get(index) {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        index += 1;
        if depth == 0 {
            break;
        }
    }
    index
}

/// Every path of the crate that a file mentions: from the root, and the line.
fn mentions(file: &str, source: &str) -> Vec<(usize, Vec<String>)> {
    let tokens = without_tests(&tokens(source));
    let own: Vec<String> = module_of(file).into_iter().map(str::to_owned).collect();
    // Modules written out within the file: `super` leads out of them first.
    let mut inner: Vec<Option<String>> = Vec::new();
    let mut found = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        let text = |index: usize| tokens.get(index).map_or("", |token| token.text.as_str());
        match token.text.as_str() {
            "{" => {
                let name = (index >= 2 && text(index - 2) == "mod").then(|| text(index - 1).to_owned());
                inner.push(name);
            }
            "}" => {
                inner.pop();
            }
            "crate" | "super" | "self" if text(index + 1) == "::" && (index == 0 || text(index - 1) != "::") => {
                let here = own.iter().cloned().chain(inner.iter().flatten().cloned());
                let start: Vec<String> = if token.text == "crate" { Vec::new() } else { here.collect() };
                let mut paths = Vec::new();
                collect(&tokens, index, &start, &mut paths);
                found.extend(paths.into_iter().map(|path| (token.line, path)));
            }
            _ => {}
        }
    }
    found
}

/// Follows the path that begins at `index`, into every branch of its groups; says where it ends.
fn collect(tokens: &[Token], mut index: usize, start: &[String], paths: &mut Vec<Vec<String>>) -> usize {
    let text = |index: usize| tokens.get(index).map_or("", |token| token.text.as_str());
    let mut path = start.to_vec();
    loop {
        match text(index) {
            "crate" | "self" => {}
            "super" => {
                path.pop();
            }
            "{" => {
                index += 1;
                while text(index) != "}" && index < tokens.len() {
                    index = collect(tokens, index, &path, paths);
                    // An alias, and the comma.
                    while ![",", "}"].contains(&text(index)) && index < tokens.len() {
                        index += 1;
                    }
                    index += usize::from(text(index) == ",");
                }
                return index + 1;
            }
            word if word.starts_with(|first: char| first.is_alphabetic() || first == '_') => path.push(word.to_owned()),
            _ => {
                paths.push(path);
                return index;
            }
        }
        index += 1;
        if text(index) != "::" {
            paths.push(path);
            return index;
        }
        index += 1;
    }
}

// ---- judging -----------------------------------------------------------------------------------------------------------

/// The file that a path leads into: the one with the longest module path that it begins with.
fn file_of<'a>(path: &[String], sources: &'a Sources) -> &'a str {
    let fits = |file: &&String| {
        let module = module_of(file);
        module.len() <= path.len() && module.iter().zip(path).all(|(module, part)| module == part)
    };
    let files = sources.keys().filter(fits);
    files.max_by_key(|file| module_of(file).len()).map_or("lib.rs", String::as_str)
}

/// Everything that breaks the rule, one line each.
fn violations(sources: &Sources) -> Vec<String> {
    let mut found = Vec::new();
    for (file, source) in sources.iter().filter(|(file, _)| !is_exempt(file)) {
        let Some(floor) = floor_of(source) else {
            found.push(format!("{file}:1: does not begin with `//! Floor N.`"));
            continue;
        };
        for (line, path) in mentions(file, source) {
            let target = file_of(&path, sources);
            let Some(below) = sources.get(target).and_then(|source| floor_of(source)) else { continue };
            let own_folder = file.strip_suffix("mod.rs").is_some_and(|folder| target.starts_with(folder));
            let is_excepted = EXCEPTIONS.iter().any(|&(from, to, _)| (from, to) == (file, target));
            let is_free = target == file || file == "lib.rs" || own_folder || is_excepted;
            if below >= floor && !is_free {
                let path = path.join("::");
                found.push(format!("{file}:{line}: floor {floor} uses crate::{path} of {target}, floor {below}"));
            }
        }
    }
    found
}

/// Who lives where, the top floor first.
fn plan(sources: &Sources) -> String {
    let mut floors: BTreeMap<u32, Vec<&str>> = BTreeMap::new();
    for (file, source) in sources {
        if let Some(floor) = floor_of(source) {
            floors.entry(floor).or_default().push(file);
        }
    }
    floors.iter().rev().fold(String::new(), |mut text, (floor, files)| {
        writeln!(text, "{floor:>4}  {}", files.join(" · ")).expect("a string takes it");
        text
    })
}

#[test]
fn nobody_imports_upwards() {
    let mut sources = Sources::new();
    let allocator = Path::new(env!("CARGO_MANIFEST_DIR")).join("../allocator");
    read_sources(&allocator.join("src"), "", &mut sources);
    // In builds for C this is the module `c`.
    read_sources(&allocator.join("preload/src"), "c/", &mut sources);
    assert!(sources.len() > 20, "only {} sources were found", sources.len());
    let found = violations(&sources);
    assert!(found.is_empty(), "{}\n\nThe floors:\n{}", found.join("\n"), plan(&sources));
    // The scanner did see the house: what everybody knows to be imported is among what it found.
    let of_heap = mentions("heap.rs", &sources["heap.rs"]);
    assert!(of_heap.iter().any(|(_, path)| file_of(path, &sources) == "supply.rs"), "{of_heap:?}");
    for (from, to, _) in EXCEPTIONS {
        let used = mentions(from, &sources[from]).iter().any(|(_, path)| file_of(path, &sources) == to);
        assert!(used, "{from} does not use {to} any more: the exception can go");
    }
}

/// The scanner itself, on made-up houses.
mod scanner {
    use super::{Sources, mentions, violations};

    fn house(files: &[(&str, &str)]) -> Sources {
        files.iter().map(|(file, source)| ((*file).to_owned(), (*source).to_owned())).collect()
    }

    /// A house whose file on floor 2 has this text; around it one file on every floor, and a folder.
    fn found(text: &str) -> Vec<String> {
        violations(&house(&[
            ("lib.rs", "//! Floor 9.\nmod high; use crate::high::Thing;"),
            ("high.rs", "//! Floor 3.\nuse crate::middle;"),
            ("middle.rs", &format!("//! Floor 2.\n{text}")),
            ("beside.rs", "//! Floor 2."),
            ("low.rs", "//! Floor 1."),
            ("room/mod.rs", "//! Floor 2.\nmod corner; use corner::Chair; use crate::room::corner; use crate::low;"),
            ("room/corner.rs", "//! Floor 2."),
        ]))
    }

    #[test]
    fn going_down_is_fine() {
        assert_eq!(found(""), [""; 0]);
        assert_eq!(found("use crate::low::Thing; fn f() { crate::low::call(); }"), [""; 0]);
        assert_eq!(found("use core::mem; use std::high::Thing; use other::beside;"), [""; 0]);
        assert_eq!(found("pub(crate) struct Own; fn f(_: crate::middle::Own) { self::g() } fn g() {}"), [""; 0]);
    }

    #[test]
    fn climbing_is_named() {
        let named = "middle.rs:2: floor 2 uses crate::high::Thing of high.rs, floor 3";
        for text in [
            "use crate::high::Thing;",
            "use crate::{low, high::Thing};",
            "use crate::{low::{self, Other}, high::{Thing as Renamed}, low as l};",
            "fn f() -> crate::high::Thing { loop {} }",
            "fn f() { let _ = \"//\"; crate::high::Thing::new(); }".replace("::new", "").as_str(),
            "use super::high::Thing;",
            "mod inner { use super::super::high::Thing; }",
            "pub(crate) use crate::high::Thing;",
            "fn f<'a>(c: &'a char) -> bool { *c == '{' && *c == '\"' && *c == '\\'' } use crate::high::Thing;",
            "#[cfg(not(test))] use crate::high::Thing;",
        ] {
            assert_eq!(found(text), [named], "{text}");
        }
        assert_eq!(found("use crate::{high::{A, B}};").len(), 2);
        assert_eq!(found("\n\nuse crate::high::*;"), ["middle.rs:4: floor 2 uses crate::high of high.rs, floor 3"]);
        assert_eq!(found("crate::high::call!();"), ["middle.rs:2: floor 2 uses crate::high::call of high.rs, floor 3"]);
    }

    #[test]
    fn a_neighbour_is_not_below() {
        assert_eq!(found("use crate::beside;"), ["middle.rs:2: floor 2 uses crate::beside of beside.rs, floor 2"]);
        assert_eq!(
            found("use crate::room::corner;"),
            ["middle.rs:2: floor 2 uses crate::room::corner of room/corner.rs, floor 2"]
        );
    }

    #[test]
    fn what_is_not_code_is_not_read() {
        for text in [
            "// use crate::high::Thing;",
            "/// See [`crate::high::Thing`].\nfn f() {}",
            "/* crate::high /* nested */ crate::high */",
            "const A: &str = \"crate::high\"; const B: &str = r#\"crate::high \" crate::high\"#;",
            "mod inner { use super::Own; } struct Own;",
        ] {
            assert_eq!(found(text), [""; 0], "{text}");
        }
    }

    #[test]
    fn tests_may_use_what_they_like() {
        for text in [
            "#[cfg(test)] mod tests { use crate::high::Thing; fn f() { { } } }",
            "#[cfg(all(test, not(loom)))]\nmod tests { use crate::high::Thing; }",
            "#[cfg(test)] use crate::high::Thing;",
            "#[cfg(test)] pub(crate) fn check(&self) -> crate::high::Thing { crate::high::call() }",
        ] {
            assert_eq!(found(text), [""; 0], "{text}");
            assert_eq!(found(&format!("{text} use crate::high;")).len(), 1, "what follows is read again: {text}");
        }
    }

    #[test]
    fn every_file_says_its_floor() {
        let silent =
            house(&[("lib.rs", "//! Floor 9."), ("silent.rs", "//! The silent room."), ("room/tests.rs", "use crate::silent;")]);
        assert_eq!(violations(&silent), ["silent.rs:1: does not begin with `//! Floor N.`"]);
    }

    #[test]
    fn a_file_may_not_use_the_head_of_its_folder() {
        let climbs = house(&[
            ("lib.rs", "//! Floor 9."),
            ("room/mod.rs", "//! Floor 2."),
            ("room/corner.rs", "//! Floor 2.\nuse super::Thing;"),
        ]);
        assert_eq!(violations(&climbs), ["room/corner.rs:2: floor 2 uses crate::room::Thing of room/mod.rs, floor 2"]);
    }

    #[test]
    fn paths_are_read_to_their_end() {
        let paths: Vec<String> = mentions("a/b.rs", "use super::{c, d::{E, F}}; fn f() { self::g::<u8>(); crate::h::I::J }")
            .into_iter()
            .map(|(_, path)| path.join("::"))
            .collect();
        assert_eq!(paths, ["a::c", "a::d::E", "a::d::F", "a::b::g", "h::I::J"]);
    }
}
