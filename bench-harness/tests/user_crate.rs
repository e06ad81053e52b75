//! Programs of users, as the verb `cargo` meets them: every edition, lints that forbid all sorts of things, workspaces, allocators of their own; and
//! that nothing of theirs is touched.

mod common;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::{folder, harness, stderr, stdout};

/// Built in seconds. What is optimised is not asked here.
const QUICK: &str = "[profile.release]\nopt-level = 0\nincremental = true\n";

/// Writes files, and the folders on the way to them.
fn write(folder: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().expect("a file lies in a folder")).expect("the folder is writable");
        fs::write(path, text).expect("the folder is writable");
    }
}

fn package(name: &str, edition: &str, more: &str) -> String {
    format!("[package]\nname = \"{name}\"\nversion = \"0.3.0\"\nedition = \"{edition}\"\n{more}\n")
}

/// All that there is in a folder: the mode, and what a file says or where a link points to.
fn everything(folder: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut all = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("the folder is readable") {
            let path = entry.expect("the folder is readable").path();
            let its = fs::symlink_metadata(&path).expect("it is there");
            let content = if its.is_dir() {
                folders.push(path.clone());
                Vec::new()
            } else if its.is_symlink() {
                fs::read_link(&path).expect("a link").into_os_string().into_encoded_bytes()
            } else {
                fs::read(&path).expect("a file")
            };
            all.insert(path, (its.permissions().mode(), content));
        }
    }
    all
}

/// The harness on a workspace, with a session kept in it beside the sources. Without arguments of the program.
fn measured(workspace: &Path, arguments: &[&str], of_the_program: &[&str]) -> (Output, Vec<serde_json::Value>) {
    let kept = workspace.with_extension("jsonl");
    let _ = fs::remove_file(&kept);
    let kept_at = kept.display().to_string();
    let mut all = vec!["cargo", "--json", &kept_at, "--repetitions", "2", "--seed", "1"];
    all.extend(arguments);
    all.push("--");
    all.extend(of_the_program);
    let output = harness(&all);
    let kept = fs::read_to_string(kept).unwrap_or_default();
    (output, kept.lines().map(|line| serde_json::from_str(line).expect("every line is a record")).collect())
}

#[test]
fn a_wrong_command_line_gets_one_sentence() {
    let folder = fs::canonicalize(folder("crate-misuse")).expect("it is there");
    write(
        &folder,
        &[
            ("Cargo.toml", "[workspace]\nmembers = [\"two\", \"lib\", \"twin\"]\nresolver = \"2\"\n"),
            ("two/Cargo.toml", &package("two", "2021", "")),
            ("two/src/bin/one.rs", "fn main() {}"),
            ("two/src/bin/other.rs", "fn main() {}"),
            ("lib/Cargo.toml", &package("lib", "2021", "")),
            ("lib/src/lib.rs", ""),
            ("twin/Cargo.toml", &package("twin", "2021", "")),
            ("twin/src/bin/one.rs", "fn main() {}"),
            ("broken/Cargo.toml", "[package\n"),
            (
                "outside/Cargo.toml",
                &package("outside", "2021", "[workspace]\n[[bin]]\nname = \"o\"\npath = \"../two/src/bin/one.rs\""),
            ),
        ],
    );
    let at = |path: &str| folder.join(path).display().to_string();
    let (root, two, lib, broken, outside) =
        (at("Cargo.toml"), at("two/Cargo.toml"), at("lib/Cargo.toml"), at("broken/Cargo.toml"), at("outside/Cargo.toml"));
    let cases: &[(&[&str], &str)] = &[
        (&["--manifest-path", "/no/such"], "there is no manifest /no/such; --manifest-path names one"),
        (&["--manifest-path", &two], &format!("{two} has several binaries, and --bin names none: one, other")),
        (&["--manifest-path", &root], &format!("{root} has several binaries, and --bin names none: one, other")),
        (&["--manifest-path", &two, "--bin", "third"], &format!("{two} has no binary 'third'; it has one, other")),
        (
            &["--manifest-path", &root, "--bin", "one"],
            &format!("{root} has several binaries 'one', in twin, two; --manifest-path chooses the package"),
        ),
        (&["--manifest-path", &lib], &format!("{lib} has no binary to measure")),
        (
            &["--manifest-path", &outside],
            &format!(
                "{} lies outside the workspace {}, which cannot be copied without it",
                at("two/src/bin/one.rs"),
                at("outside")
            ),
        ),
        (
            &["--subjects", "tcmalloc"],
            "there is no subject 'tcmalloc' that is built into programs; they are system, jemalloc, mimalloc, snmalloc, freestone",
        ),
        (&["--subjects", "system,system"], "there are two subjects named 'system'"),
    ];
    for (arguments, sentence) in cases {
        let output = harness(&[&["cargo"], *arguments].concat());
        assert_eq!(stderr(&output), format!("freestone-bench: {sentence}\n"));
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
    let output = harness(&["cargo", "--manifest-path", &broken]);
    assert!(stderr(&output).contains(&format!("cargo cannot read {broken}: ")), "{}", stderr(&output));
    assert_eq!(stderr(&output).lines().count(), 1);
    assert_eq!(output.status.code(), Some(2));
}

/// Prints what it was given and how many strings it made of that, then ends with 0.
const PROGRAM: &str = "
fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    println!(\"{} {}\", words.len(), words.join(\"+\"));
}";

/// A workspace in which every package is awkward in its own way.
fn orchard() -> PathBuf {
    let above = folder("crate-orchard");
    let orchard = above.join("orchard");
    write(
        &above,
        &[
            ("beside/Cargo.toml", &package("beside", "2021", "[workspace]")),
            ("beside/src/lib.rs", "pub fn beside() -> &'static str { \"beside\" }"),
            ("shared/notes.rs", "// Somebody else's."),
            (
                "orchard/Cargo.toml",
                &format!("[workspace]\nmembers = [\"apple\", \"pear\", \"plum\", \"quince\"]\nresolver = \"2\"\n{QUICK}"),
            ),
            // The oldest edition, a library beside the program, and an allocator of its own that it counts with.
            ("orchard/apple/Cargo.toml", &package("apple", "2015", "")),
            ("orchard/apple/src/lib.rs", "#![deny(warnings)]\npub fn seeds() -> usize { 5 }"),
            (
                "orchard/apple/src/main.rs",
                &format!(
                    "#![forbid(unsafe_code)]\n#![deny(warnings, missing_docs, unused_extern_crates, rust_2018_idioms)]\n//! Apples.\n\
                     extern crate apple;\nmod own;\n{PROGRAM}\n// No line ends here"
                ),
            ),
            (
                "orchard/apple/src/own.rs",
                "use apple;\nuse std::alloc::System;\n/* #[global_allocator] */\n#[cfg(any(unix, windows))]\n#[global_allocator]\n\
                 static OWN: System = System;\nfn _seeds() -> usize { apple::seeds() }\n",
            ),
            // Paths that lead out, in every kind of table; a name with a hyphen; lints in the manifest.
            (
                "orchard/pear/Cargo.toml",
                &package(
                    "pear-tree",
                    "2024",
                    "[features]\ndefault = []\nloud = []\n[lints.rust]\nunsafe_code = \"forbid\"\nmissing_docs = \"deny\"\n\
                     [target.'cfg(unix)'.dependencies]\nbeside = { path = \"../../beside\" }\n[build-dependencies.beside]\npath = \"../../beside\"",
                ),
            ),
            ("orchard/pear/build.rs", "//! Looks.\nfn main() { println!(\"cargo::rerun-if-changed={}.rs\", beside::beside()); }"),
            (
                "orchard/pear/src/main.rs",
                "#![doc = \"Pears.\"]\n#![no_implicit_prelude]\nfn main() { ::std::println!(\"{}\", ::beside::beside()); \
                 #[cfg(feature = \"loud\")] ::std::println!(\"LOUD\"); }\n",
            ),
            // Two programs, one of which is the default, with no main of Rust's.
            ("orchard/plum/Cargo.toml", &package("plum", "2021", "default-run = \"plum\"")),
            (
                "orchard/plum/src/bin/plum.rs",
                "#![no_main]\n#[no_mangle]\npub extern \"C\" fn main() -> i32 { std::hint::black_box(vec![1, 2, 3]).len() as i32 }\n",
            ),
            ("orchard/plum/src/bin/sloe.rs", "fn main() {}"),
            // What is not Rust, or no manifest that anybody reads.
            ("orchard/quince/Cargo.toml", &package("quince", "2018", "")),
            ("orchard/quince/src/main.rs", PROGRAM),
            ("orchard/quince/tests/data/Cargo.toml", "this = is = no toml"),
            ("orchard/quince/tests/data/latin.rs", "#[global_allocator]"),
            ("orchard/.git/HEAD", "ref: refs/heads/main\n"),
            ("orchard/target/CACHEDIR.TAG", "Signature: 8a477f597d28d172789f06886806bc55"),
            ("orchard/target/large", "not to be copied"),
        ],
    );
    fs::write(orchard.join("quince/tests/data/bytes.rs"), b"\xff\xfe#[global_allocator]").expect("the folder is writable");
    symlink("../../shared/notes.rs", orchard.join("quince/notes.rs")).expect("the folder is writable");
    symlink("../../shared", orchard.join("quince/shared")).expect("the folder is writable");
    symlink("nowhere", orchard.join("quince/dangling")).expect("the folder is writable");
    let read_only = fs::Permissions::from_mode(0o444);
    for file in ["apple/src/main.rs", "apple/src/own.rs", "apple/Cargo.toml"] {
        fs::set_permissions(orchard.join(file), read_only.clone()).expect("it is ours");
    }
    orchard
}

#[test]
fn programs_of_all_kinds_are_built_with_each_allocator_and_their_sources_stay_as_they_were() {
    let orchard = orchard();
    let above = orchard.parent().expect("it lies in a folder");
    let (root, kept) = (orchard.display().to_string(), above.join("printed"));
    let printed = kept.display().to_string();
    let before = everything(above);

    let manifests = ["apple", "pear", "plum", "quince"].map(|name| format!("{root}/{name}"));
    let [apple, pear, plum, quince] = &manifests;
    // What is asked for, what it prints, and how it ends.
    let cases: &[(&[&str], &str, &str)] = &[
        (&["--manifest-path", apple], "2 a+b c\n", "exit status: 0"),
        (&["--manifest-path", pear, "--features", "loud"], "beside\nLOUD\n", "exit status: 0"),
        (&["--manifest-path", plum], "", "exit status: 3"),
        (&["--manifest-path", &root, "--bin", "quince"], "2 a+b c\n", "exit status: 0"),
        (&["--manifest-path", quince], "2 a+b c\n", "exit status: 0"),
    ];
    for (arguments, says, ends) in cases {
        let all = [arguments, &["--subjects", "system,freestone", "--output", &printed][..]].concat();
        let (output, records) = measured(&orchard, &all, &["a", "b c"]);
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        assert_eq!(fs::read_to_string(&kept).expect("it was written"), says.repeat(6), "{arguments:?}");
        fs::remove_file(&kept).expect("it was written");

        let session = &records[0];
        assert_eq!(session["kind"], "program");
        let names: Vec<_> = session["subjects"].as_array().into_iter().flatten().map(|its| its["subject"].clone()).collect();
        assert_eq!(names, ["system", "system again", "freestone"]);
        assert_eq!(session["subjects"][2]["version"], env!("CARGO_PKG_VERSION"));
        for run in &records[1..7] {
            assert_eq!(run["outcome"]["measured"]["checksum"], *ends, "{arguments:?}");
        }
        let text = stdout(&output);
        assert!(text.contains("its release profile: incremental = true, opt-level = 0;"), "{text}");
        let own = "its own #[global_allocator] in line 5 of apple/src/own.rs does not count";
        assert_eq!(text.contains(own), arguments.contains(&&**apple), "{text}");
        assert!(!text.contains("latin.rs"), "{text}");
    }

    fs::remove_file(orchard.with_extension("jsonl")).expect("it was written");
    let after = everything(above);
    assert!(
        before == after,
        "somebody touched {:?}",
        before.keys().chain(after.keys()).find(|path| before.get(*path) != after.get(*path))
    );
}

#[test]
fn a_lock_file_is_kept_to_and_what_a_subject_needs_newer_is_said() {
    let workspace = folder("crate-locked").join("locked");
    write(
        &workspace,
        &[
            ("Cargo.toml", &package("locked", "2021", &format!("[workspace]\n[dependencies]\nlibc = \"0.2\"\n{QUICK}"))),
            ("src/main.rs", PROGRAM),
        ],
    );
    // A lock file that its owner has, from what is on this disk.
    let mut cargo = Command::new(env!("CARGO"));
    let made = cargo.args(["generate-lockfile", "--offline"]).current_dir(&workspace).output().expect("cargo is there");
    assert!(made.status.success(), "{}", stderr(&made));
    let lock = fs::read(workspace.join("Cargo.lock")).expect("it was made");
    let root = workspace.display().to_string();
    let (output, _) = measured(&workspace, &["--manifest-path", &root, "--subjects", "freestone"], &[]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stdout(&output).contains("all versions are those of its lock file."), "{}", stdout(&output));
    assert_eq!(fs::read(workspace.join("Cargo.lock")).expect("it is there"), lock);

    // What all subjects take is locked in the copy, for all of them, whoever is built.
    let copies = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("freestone-bench").join("crates");
    let copies = fs::read_dir(copies).expect("the copies are kept").filter_map(Result::ok);
    let copied = copies
        .map(|entry| entry.path())
        .find(|path| path.file_name().is_some_and(|name| name.display().to_string().starts_with("locked-")));
    let text = fs::read_to_string(copied.expect("it was copied").join("copy/Cargo.lock")).expect("it is there");
    assert!(text.contains("name = \"freestone\""), "{text}");
}

#[test]
fn a_binary_that_does_not_prove_what_serves_it_is_never_measured() {
    let workspace = folder("crate-unproved").join("unproved");
    // It ends before anybody can ask it.
    let early = "
        extern \"C\" fn early() { std::process::exit(0) }
        #[used]
        #[link_section = \".preinit_array\"]
        static EARLY: extern \"C\" fn() = early;
        fn main() {}";
    write(&workspace, &[("Cargo.toml", &package("unproved", "2021", &format!("[workspace]\n{QUICK}"))), ("src/main.rs", early)]);
    let root = workspace.display().to_string();
    let (output, records) = measured(&workspace, &["--manifest-path", &root, "--subjects", "system"], &[]);
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).contains("the program does not say whether it serves memory"), "{}", stderr(&output));
    assert!(records.is_empty());
}

#[test]
fn what_does_not_build_is_said_in_a_sentence_below_what_cargo_says() {
    let above = folder("crate-unbuilt");
    let workspace = above.join("unbuilt");
    write(
        &above,
        &[
            ("beside/Cargo.toml", &package("beside", "2021", "[workspace]")),
            ("beside/src/lib.rs", "#[global_allocator]\nstatic OWN: std::alloc::System = std::alloc::System;\n"),
            (
                "unbuilt/Cargo.toml",
                &package(
                    "unbuilt",
                    "2021",
                    &format!("[workspace]\n[dependencies]\nbeside = {{ path = \"../beside\" }}\n{QUICK}"),
                ),
            ),
            ("unbuilt/src/main.rs", "use beside as _;\nfn main() {}"),
        ],
    );
    let root = workspace.display().to_string();
    let (output, records) = measured(&workspace, &["--manifest-path", &root, "--subjects", "system"], &[]);
    assert_eq!(output.status.code(), Some(3));
    let said = stderr(&output);
    let sentence = said.lines().last().unwrap_or_default();
    assert!(
        sentence.starts_with("freestone-bench: unbuilt cannot be measured on system: unbuilt does not build with it: "),
        "{said}"
    );
    assert!(sentence.contains("conflicts with global allocator in: beside"), "{said}");
    assert!(records.is_empty());
}

/// Published programs, as their authors build them: each version is fixed, so that it is the harness that is tested.
const PUBLISHED: [(&str, &str); 3] = [("ripgrep", "15.2.0"), ("runiq", "2.1.0"), ("xsv", "0.13.0")];

/// Lets cargo fetch the sources of published programs, which lie in its registry then; `None`: there is no network.
fn fetched(folder: &Path) -> Option<Vec<PathBuf>> {
    let dependencies: Vec<String> = PUBLISHED.iter().map(|(name, version)| format!("{name} = \"={version}\"")).collect();
    let manifest = package("fetch", "2021", &format!("[workspace]\n[dependencies]\n{}", dependencies.join("\n")));
    write(folder, &[("fetch/Cargo.toml", &manifest), ("fetch/src/lib.rs", "")]);
    let fetched = Command::new(env!("CARGO")).arg("fetch").current_dir(folder.join("fetch")).output().expect("cargo is there");
    if !fetched.status.success() {
        return None;
    }
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(std::env::home_dir()?.join(".cargo")))?;
    let registries: Vec<PathBuf> =
        fs::read_dir(home.join("registry/src")).ok()?.filter_map(Result::ok).map(|entry| entry.path()).collect();
    let source = |(name, version): &(&str, &str)| {
        registries.iter().map(|all| all.join(format!("{name}-{version}"))).find(|its| its.is_dir())
    };
    PUBLISHED.iter().map(source).collect()
}

/// All lines of Rust in a folder, and a table of them.
fn input(sources: &[PathBuf], folder: &Path) -> (String, String) {
    let (mut lines, mut table) = (String::new(), String::from("file,line,length\n"));
    for (path, (_, content)) in sources.iter().flat_map(|source| everything(source)) {
        let Some(text) = String::from_utf8(content).ok().filter(|_| path.extension().is_some_and(|its| its == "rs")) else {
            continue;
        };
        for (number, line) in text.lines().enumerate() {
            lines.push_str(line);
            lines.push('\n');
            let _ = writeln!(table, "{},{number},{}", path.display(), line.len());
        }
    }
    let (lines_at, table_at) = (folder.join("lines.txt"), folder.join("table.csv"));
    fs::write(&lines_at, lines).expect("the folder is writable");
    fs::write(&table_at, table).expect("the folder is writable");
    (lines_at.display().to_string(), table_at.display().to_string())
}

#[test]
#[ignore = "builds three published programs four times each, optimised, which takes minutes and a network: cargo test -p freestone-bench --test user_crate -- --ignored"]
fn published_programs_are_built_with_each_allocator_and_measured_on_real_input() {
    // Not below the workspace of this crate, to which none of them belongs.
    let folder = std::env::temp_dir().join("freestone-published");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("there is room for temporary files");
    let folder = fs::canonicalize(folder).expect("it is there");
    let Some(sources) = fetched(&folder) else {
        eprintln!("SKIPPED: cargo cannot fetch the programs, so no published program was measured");
        return;
    };
    let (lines, table) = input(&sources, &folder);
    let commands: [&[&str]; 3] = [&["-c", "fn [a-z]+_[a-z]+", &lines], &[&lines], &["frequency", &table]];
    for (((name, version), source), command) in PUBLISHED.iter().zip(&sources).zip(commands) {
        let copy = Command::new("cp").arg("-r").arg(source).arg(folder.join(name)).status().expect("cp is there");
        assert!(copy.success());
        // One of them is a member of a workspace, whose settings count there.
        let root = folder.join(name);
        let workspace = if *name == "runiq" {
            let above = folder.join("workspace");
            write(
                &above,
                &[("Cargo.toml", "[workspace]\nmembers = [\"runiq\"]\nresolver = \"2\"\n[profile.release]\nlto = \"thin\"\n")],
            );
            fs::rename(root.join("Cargo.lock"), above.join("Cargo.lock")).expect("it is published with one");
            fs::rename(&root, above.join(name)).expect("the folder is writable");
            above
        } else {
            root
        };
        let before = everything(&workspace);
        let at = workspace.display().to_string();
        let (output, records) = measured(&workspace, &["--manifest-path", &at], command);
        let text = stdout(&output);
        assert!(output.status.success(), "{name}: {}", stderr(&output));
        println!("{text}");
        assert!(everything(&workspace) == before, "somebody touched {name}");
        let subjects: Vec<_> =
            records[0]["subjects"].as_array().into_iter().flatten().map(|its| its["subject"].clone()).collect();
        assert_eq!(subjects, ["system", "system again", "jemalloc", "mimalloc", "freestone"], "{text}");
        for run in &records[1..11] {
            assert_eq!(run["outcome"]["measured"]["checksum"], "exit status: 0", "{name}");
        }
        assert!(text.contains(&format!("Built: {name} {version}")), "{text}");
    }
    fs::remove_dir_all(&folder).expect("it is ours");
}
