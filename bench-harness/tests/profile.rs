//! `freestone-bench profile` as somebody meets it: names for addresses of a real program, tables and pictures, and what is no profile.

mod common;

use std::collections::HashMap;
use std::ffi::CString;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use common::{folder, harness, stderr, stdout};
use freestone_stats::names::{Binary, demangle};
use freestone_stats::profile::pprof::proto::{Function, Line, Location, Mapping, Profile, Sample, ValueType};
use freestone_stats::profile::pprof::{decode, encode};

/// Where the program lies in profiles of these tests.
const START: u64 = 0x5555_5540_0000;

/// The program whose addresses are named: the harness itself.
const PROGRAM: &str = env!("CARGO_BIN_EXE_freestone-bench");

/// A profile as it grows.
struct Made(Profile);

impl Made {
    fn new() -> Self {
        let mut made = Self(Profile { string_table: vec![String::new()], ..Profile::default() });
        for (name, unit) in [("alloc_space", "bytes"), ("inuse_objects", "count"), ("inuse_space", "bytes")] {
            let (name, unit) = (made.string(name), made.string(unit));
            made.0.sample_type.push(ValueType { r#type: name, unit });
        }
        made.0.default_sample_type = made.string("inuse_space");
        made
    }

    fn string(&mut self, text: &str) -> i64 {
        let known = self.0.string_table.iter().position(|its| its == text);
        known.unwrap_or_else(|| {
            self.0.string_table.push(text.to_owned());
            self.0.string_table.len() - 1
        }) as i64
    }

    fn mapping(mut self, file: &str, build_id: &str) -> Self {
        let (filename, build_id) = (self.string(file), self.string(build_id));
        let id = self.0.mapping.len() as u64 + 1;
        let memory_start = START + (id - 1) * (4 << 30);
        let memory_limit = memory_start + (1 << 30);
        self.0.mapping.push(Mapping { id, memory_start, memory_limit, filename, build_id, ..Mapping::default() });
        self
    }

    /// A stack of one address, with these values.
    fn address(mut self, address: u64, values: [i64; 3]) -> Self {
        let id = self.0.location.len() as u64 + 1;
        let mapping_id =
            self.0.mapping.iter().find(|its| (its.memory_start..its.memory_limit).contains(&address)).map_or(0, |its| its.id);
        self.0.location.push(Location { id, mapping_id, address, ..Location::default() });
        self.0.sample.push(Sample { location_id: vec![id], value: values.to_vec(), label: vec![] });
        self
    }

    /// A stack of functions with names, root first.
    fn stack(mut self, functions: &[&str], values: [i64; 3]) -> Self {
        let mut sample = Sample { value: values.to_vec(), ..Sample::default() };
        for function in functions.iter().rev() {
            let name = self.string(function);
            let known = self.0.function.iter().find(|its| its.name == name).map(|its| its.id);
            let id = known.unwrap_or_else(|| {
                let id = self.0.function.len() as u64 + 1;
                self.0.function.push(Function { id, name, ..Function::default() });
                self.0.location.push(Location {
                    id,
                    line: vec![Line { function_id: id, ..Line::default() }],
                    ..Location::default()
                });
                id
            });
            sample.location_id.push(id);
        }
        self.0.sample.push(sample);
        self
    }

    fn to(&self, path: &Path) -> String {
        fs::write(path, encode(&self.0)).expect("the folder is writable");
        path.display().to_string()
    }
}

fn towers() -> Made {
    Made::new()
        .stack(&["main", "tower::build", "tower::raise"], [9 << 20, 3, 3 << 20])
        .stack(&["main", "tower::build", "tower::raise"], [0, 1, 1 << 20])
        .stack(&["main", "tower::build", "tower::build", "tower;floor"], [1000, 2, 2048])
        .stack(&["main"], [10, 0, 0])
}

fn skipped(package: &str) {
    let _ = writeln!(std::io::stderr(), "\nSKIPPED: {package} is not installed: apt-get install {package}\n");
}

fn build_id(path: &Path) -> String {
    Binary::open(path, &[]).expect("a program").build_id().unwrap_or_default().to_owned()
}

/// Runs what may be missing here.
fn tool(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).output().ok()?;
    assert!(output.status.success(), "{command:?}: {output:?}");
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A function with its file and its line, of several the innermost first.
type Place = (String, String, i64);

/// Addresses within functions of a program, by places in its file, and what binutils say of them.
fn truth(program: &Path, count: usize) -> Option<Vec<(u64, u64, Vec<Place>)>> {
    let symbols = tool(Command::new("nm").args(["--defined-only", "--print-size"]).arg(program))?;
    let mut functions: Vec<(u64, u64)> = symbols
        .lines()
        .filter_map(|line| {
            let mut words = line.splitn(4, ' ');
            let mut number = || u64::from_str_radix(words.next()?, 16).ok();
            let (begin, length) = (number()?, number()?);
            "tT".contains(words.next()?).then_some((begin, length))
        })
        .collect();
    functions.sort_unstable();
    functions.dedup();
    let headers = tool(Command::new("readelf").arg("-lW").arg(program))?;
    // LOAD offset address physical file-size …
    let segments: Vec<[u64; 3]> = headers
        .lines()
        .filter_map(|line| {
            let words: Vec<&str> = line.trim().strip_prefix("LOAD")?.split_whitespace().collect();
            let number = |index: usize| u64::from_str_radix(words.get(index)?.trim_start_matches("0x"), 16).ok();
            Some([number(0)?, number(1)?, number(3)?])
        })
        .collect();
    let mut state: u64 = std::env::var("FREESTONE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0x5eed);
    println!("seed {state}; FREESTONE_SEED sets it");
    let mut random = |below: u64| {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (state >> 33) % below
    };
    let addresses: Vec<u64> = (0..count)
        .map(|_| {
            let (begin, length) = functions[random(functions.len() as u64) as usize];
            begin + random(length.max(1))
        })
        .collect();
    let asked = addresses.iter().fold(String::new(), |text, its| format!("{text}{its:#x}\n"));
    let mut addr2line = Command::new("addr2line")
        .args(["--addresses", "--functions", "--inlines", "--exe"])
        .arg(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    let mut input = addr2line.stdin.take().expect("a pipe");
    let writer = std::thread::spawn(move || input.write_all(asked.as_bytes()));
    let said = addr2line.wait_with_output().expect("it ends");
    writer.join().expect("no panic").expect("it reads");
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let mut places: Vec<Vec<Place>> = Vec::new();
    let mut lines = said.lines();
    while let Some(line) = lines.next() {
        if line.starts_with("0x") {
            places.push(Vec::new());
            continue;
        }
        let position = lines.next().unwrap_or_default().split(" (").next().unwrap_or_default();
        let (file, line_number) = position.rsplit_once(':').unwrap_or((position, "?"));
        places.last_mut()?.push((demangle(line), file.to_owned(), line_number.parse().unwrap_or(0)));
    }
    let offset = |address: u64| {
        let [offset, begin, _] = segments.iter().find(|[_, begin, bytes]| (*begin..begin + bytes).contains(&address))?;
        Some(address - begin + offset)
    };
    Some(addresses.iter().zip(places).filter_map(|(&address, places)| Some((address, offset(address)?, places))).collect())
}

fn places(profile: &Profile, location: &Location) -> Vec<Place> {
    let functions: HashMap<u64, &Function> = profile.function.iter().map(|its| (its.id, its)).collect();
    let text = |index: i64| profile.string_table[index as usize].clone();
    let place = |line: &Line| (text(functions[&line.function_id].name), text(functions[&line.function_id].filename), line.line);
    location.line.iter().map(place).collect()
}

#[test]
fn functions_files_lines_and_what_was_inlined_are_those_of_binutils() {
    let folder = folder("profile-lines");
    let Some(truth) = truth(Path::new(PROGRAM), 1000) else { return skipped("binutils") };
    let mut made = Made::new().mapping("/somewhere/else/freestone-bench", &build_id(Path::new(PROGRAM)));
    for (_, offset, _) in &truth {
        made = made.address(START + offset, [1, 1, 1]);
    }
    let file = made.to(&folder.join("heap.pb.gz"));
    let output = harness(&["profile", "name", &file, "--binary", PROGRAM]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let named = decode(&fs::read(folder.join("heap.named.pb.gz")).expect("it was written")).expect("a profile");
    let (mut equal, mut functions, mut inlined, mut lines) = (0, 0, 0, 0);
    for ((address, _, expected), location) in truth.iter().zip(&named.location) {
        let got = places(&named, location);
        inlined += usize::from(got.len() > 1);
        lines += usize::from(got.first().is_some_and(|its| its.2 > 0));
        // Files: binutils put folders together in another way now and then, so the last part has to do.
        let short = |places: &[Place]| -> Vec<Place> {
            // A unit of code without lines is no file that somebody wrote.
            let file = |file: &str| {
                file.rsplit('/').next().filter(|its| *its != "??" && !its.contains("-cgu.")).unwrap_or_default().to_owned()
            };
            places.iter().map(|(name, path, line)| (name.clone(), file(path), *line)).collect()
        };
        let last = |places: &[Place]| places.last().map(|its| its.0.clone());
        functions += usize::from(last(&got) == last(expected));
        equal += usize::from(short(&got) == short(expected));
        if short(&got) != short(expected) {
            println!("{address:#x}: {:?}\n  binutils: {:?}", short(&got), short(expected));
        }
    }
    let count = truth.len();
    println!(
        "{count} addresses, {inlined} with inlined functions, {lines} with lines: {functions} functions and {equal} places agree"
    );
    assert!(count >= 990 && inlined >= count / 20 && lines >= count / 2);
    assert!(functions >= count * 99 / 100 && equal >= count * 98 / 100);
    assert!(named.mapping[0].has_functions);
    let said = format!("{count} of {count} addresses have names");
    assert!(stderr(&output).contains(&said), "{}", stderr(&output));
}

#[test]
fn a_stripped_program_gets_lines_from_its_debug_file() {
    let folder = folder("profile-debug");
    let id = build_id(Path::new(PROGRAM));
    let Some(truth) = truth(Path::new(PROGRAM), 100) else { return skipped("binutils") };
    if id.len() < 3 {
        return skipped("a linker that writes build ids");
    }
    let stripped = folder.join("freestone-bench");
    tool(Command::new("strip").arg("-o").arg(&stripped).arg(PROGRAM)).expect("binutils are here");
    let debug = folder.join("debug").join(".build-id").join(&id[..2]);
    fs::create_dir_all(&debug).expect("the folder is writable");
    let debug_file = debug.join(format!("{}.debug", &id[2..]));
    tool(Command::new("objcopy").args(["--only-keep-debug", "--compress-debug-sections=zlib", PROGRAM]).arg(&debug_file))
        .expect("binutils are here");
    // The program is found where it was when the profile was taken.
    let mut made = Made::new().mapping(&stripped.display().to_string(), &id).mapping("/lib/of_nobody.so", "0123");
    for (_, offset, _) in &truth {
        made = made.address(START + offset, [1, 1, 1]);
    }
    let file = made.address(START + (4 << 30) + 5, [1, 1, 1]).to(&folder.join("heap.pb.gz"));
    let named = folder.join("named");
    let run = |arguments: &[&str]| {
        let output = harness(&[&["profile", "name", &file, "-o", &named.display().to_string()], arguments].concat());
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        (decode(&fs::read(&named).expect("it was written")).expect("a profile"), stderr(&output))
    };
    let (profile, said) = run(&["--debug-dir", &folder.join("debug").display().to_string()]);
    let right = truth.iter().zip(&profile.location).filter(|((_, _, expected), location)| {
        let got = places(&profile, location);
        got.last().map(|its| (&its.0, its.2)) == expected.last().map(|its| (&its.0, its.2))
    });
    assert!(right.count() >= 95);
    assert!(said.contains("1 without names are in /lib/of_nobody.so\n"), "{said}");
    // Without it there are beginnings of functions, and never a wrong name.
    let (profile, said) = run(&[]);
    let all: Vec<Place> = profile.location[..100].iter().flat_map(|its| places(&profile, its)).collect();
    assert!(all.iter().all(|its| its.0.starts_with("freestone-bench!0x") && its.2 == 0), "{all:?}");
    assert!(said.contains("and 0 of these lines\n"), "{said}");
    // Names that were kept, by the verb that keeps them.
    let kept = harness(&["profile", "symbols", PROGRAM, "-o", &folder.join("freestone-bench.symbols").display().to_string()]);
    assert_eq!(kept.status.code(), Some(0), "{}", stderr(&kept));
    let (profile, _) = run(&[]);
    let right = truth.iter().zip(&profile.location).filter(|((_, _, expected), location)| {
        places(&profile, location).last().map(|its| &its.0) == expected.last().map(|its| &its.0)
    });
    assert!(right.count() >= 95);
    // Or within the program, which runs on.
    fs::remove_file(folder.join("freestone-bench.symbols")).expect("it was written");
    let kept = harness(&["profile", "symbols", PROGRAM, "--into", &stripped.display().to_string()]);
    assert_eq!(kept.status.code(), Some(0), "{}", stderr(&kept));
    let (profile, _) = run(&[]);
    assert!(places(&profile, &profile.location[0])[0].0 == truth[0].2.last().expect("a function").0);
    assert!(Command::new(&stripped).arg("--version").output().expect("it runs").status.success());
}

#[test]
fn another_build_is_not_believed() {
    let folder = folder("profile-builds");
    let id = build_id(Path::new(PROGRAM));
    let program = Made::new().mapping("/srv/app", "00c0ffee").address(START + 0x1000, [1, 1, 1]);
    let file = program.to(&folder.join("heap.pb.gz"));
    let refused = harness(&["profile", "name", &file, "--binary", PROGRAM]);
    let why = format!(
        "freestone-bench: {PROGRAM} is another build than app in {file}: its build id is {id}, and that one's is 00c0ffee; --force uses it all the same\n"
    );
    assert_eq!((stderr(&refused), refused.status.code()), (why, Some(2)));
    assert!(!folder.join("heap.named.pb.gz").exists());
    let forced = harness(&["profile", "name", &file, "--binary", PROGRAM, "--force"]);
    assert_eq!(forced.status.code(), Some(0), "{}", stderr(&forced));
    assert!(stderr(&forced).contains("is not known: their build ids do not say so"), "{}", stderr(&forced));

    let alone = harness(&["profile", "name", &file]);
    let why = format!(
        "freestone-bench: none of the files that {file} is of is here as the same build; --binary says where the program is\n"
    );
    assert_eq!((stderr(&alone), alone.status.code()), (why, Some(2)));
    let bare = towers().to(&folder.join("bare.pb.gz"));
    let nowhere = harness(&["profile", "name", &bare, "--binary", PROGRAM]);
    assert_eq!(stderr(&nowhere), format!("freestone-bench: {bare} does not say which files its addresses come from\n"));

    // Without build ids names have to do, and somebody has to say so where they differ.
    let unknown = Made::new().mapping("/srv/app", "").address(START + 0x1000, [1, 1, 1]).to(&folder.join("unknown.pb.gz"));
    let refused = harness(&["profile", "name", &unknown, "--binary", PROGRAM]);
    assert!(
        stderr(&refused).starts_with(&format!("freestone-bench: nothing says that {PROGRAM} belongs to ")),
        "{}",
        stderr(&refused)
    );
    let same = Made::new().mapping("/srv/freestone-bench", "").address(START + 0x1000, [1, 1, 1]).to(&folder.join("same.pb.gz"));
    assert_eq!(harness(&["profile", "name", &same, "--binary", PROGRAM]).status.code(), Some(0));
}

/// The cells of the rows of a table, below its header.
fn rows(text: &str) -> Vec<Vec<String>> {
    let rows = text.lines().skip_while(|line| !line.contains("with all it calls")).skip(1);
    let rows = rows.take_while(|line| !line.is_empty()).filter(|line| line.contains('%') || line.contains(" - "));
    rows.map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(str::to_owned).collect()).collect()
}

#[test]
fn tables_say_who_has_the_most() {
    let file = towers().to(&folder("profile-top").join("heap.pb.gz"));
    let output = harness(&["profile", "top", &file]);
    assert_eq!((stderr(&output).as_str(), output.status.code()), ("", Some(0)));
    let text = stdout(&output);
    assert!(text.starts_with(&format!("{file}: inuse_space\n\n4.00 MiB in 3 stacks.\n\n")), "{text}");
    assert_eq!(
        rows(&text),
        [
            ["4.00 MiB", "100.0%", "4.00 MiB", "100.0%", "tower::raise"],
            ["2.00 KiB", "0.0%", "2.00 KiB", "0.0%", "tower;floor"],
            // Twice in one stack, and counted once.
            ["0 B", "0.0%", "4.00 MiB", "100.0%", "main"],
            ["0 B", "0.0%", "4.00 MiB", "100.0%", "tower::build"],
        ],
        "{text}"
    );
    let text = stdout(&harness(&["profile", "top", &file, "--sample", "inuse_objects", "-n", "1"]));
    assert_eq!(rows(&text), [["4", "66.7%", "4", "66.7%", "tower::raise"]], "{text}");
    assert!(text.contains("\n3 more functions have less; -n shows them.\n"), "{text}");
    let text = stdout(&harness(&["profile", "top", &file, "--markdown"]));
    assert!(text.starts_with("## ") && text.lines().any(|line| line.starts_with("| 4.00 MiB")), "{text}");
    // What the library takes for somebody is his.
    let library = ["alloc::vec::Vec<T>::with_capacity", "<alloc::alloc::Global>::alloc_impl", "alloc::alloc::alloc"];
    let through = Made::new()
        .stack(&[&["main", "tower::raise", "<T as alloc::string::ToString>::to_string"], &library[..]].concat(), [0, 0, 100])
        .stack(&["alloc::alloc::alloc"], [0, 0, 1])
        .to(&folder("profile-library").join("heap.pb.gz"));
    let found = rows(&stdout(&harness(&["profile", "top", &through])));
    assert_eq!(found[0], ["100 B", "99.0%", "100 B", "99.0%", "tower::raise"], "{found:?}");
    assert_eq!(found[1], ["1 B", "1.0%", "101 B", "100.0%", "alloc::alloc::alloc"], "{found:?}");
    let output = harness(&["profile", "top", &file, "--sample", "space"]);
    let why = format!("freestone-bench: {file} has no values called 'space'; it has alloc_space, inuse_objects, inuse_space\n");
    assert_eq!((stderr(&output), output.status.code()), (why, Some(2)));
    // Addresses without names say where they are, and what to do.
    let bare = Made::new().mapping("/srv/app", "").address(START + 0x1234, [1, 1, 1]);
    let text = stdout(&harness(&["profile", "top", &bare.to(&folder("profile-bare").join("heap.pb.gz"))]));
    assert!(
        text.contains("app+0x1234") && text.contains("\n1 of 1 samples have no names: freestone-bench profile name "),
        "{text}"
    );
}

#[test]
fn what_changed_is_told_in_tables_lines_and_graphs() {
    let folder = folder("profile-diff");
    let before = towers().to(&folder.join("before.pb.gz"));
    let after = Made::new()
        .stack(&["main", "tower::build", "tower::raise"], [0, 1, 1 << 20])
        .stack(&["main", "tower::leak"], [0, 9, 8 << 20])
        .to(&folder.join("after.pb.gz"));
    let output = harness(&["profile", "diff", &before, &after]);
    assert_eq!(stderr(&output), "");
    let text = stdout(&output);
    assert!(text.contains("\n4.00 MiB before, 9.00 MiB now: +5.00 MiB (+124.9%).\n"), "{text}");
    let first = rows(&text);
    assert_eq!(first[0], ["+8.00 MiB", "+199.9%", "+8.00 MiB", "+199.9%", "tower::leak"], "{text}");
    assert_eq!(first[1], ["-3.00 MiB", "-75.0%", "-3.00 MiB", "-75.0%", "tower::raise"], "{text}");
    assert_eq!(stdout(&harness(&["profile", "top", &after, "--base", &before])), text);

    let lines = stdout(&harness(&["profile", "folded", &after, "--base", &before]));
    assert_eq!(
        lines,
        "main;tower::leak 0 8388608\nmain;tower::build;tower::raise 4194304 1048576\nmain;tower::build;tower::build;tower:floor 2048 0\n"
    );
    let svg = folder.join("diff.svg").display().to_string();
    let output = harness(&["profile", "flamegraph", &after, "--base", &before, "-o", &svg]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let svg = fs::read_to_string(svg).expect("it was written");
    assert!(svg.contains("tower::leak") && svg.contains("; +") && svg.ends_with("</svg>"), "{svg}");
    // The same column under another unit is another one.
    let mut other = towers();
    other.0.sample_type[2].unit = other.string("count");
    let other = other.to(&folder.join("other.pb.gz"));
    let output = harness(&["profile", "diff", &other, &after]);
    let why = format!("freestone-bench: {other} counts count in 'inuse_space', where the other file counts bytes\n");
    assert_eq!((stderr(&output), output.status.code()), (why, Some(2)));
}

#[test]
fn lines_and_graphs_are_made_of_every_stack() {
    let folder = folder("profile-folded");
    let file = towers().to(&folder.join("heap.pb.gz"));
    let text = stdout(&harness(&["profile", "folded", &file]));
    assert_eq!(text, "main;tower::build;tower::raise 4194304\nmain;tower::build;tower::build;tower:floor 2048\n");
    let lines = folder.join("lines");
    assert_eq!(stdout(&harness(&["profile", "folded", &file, "-o", &lines.display().to_string()])), "");
    assert_eq!(fs::read_to_string(lines).expect("it was written"), text);
    let svg = folder.join("heap.svg").display().to_string();
    assert_eq!(harness(&["profile", "flamegraph", &file, "-o", &svg]).status.code(), Some(0));
    let svg = fs::read_to_string(svg).expect("it was written");
    assert!(svg.contains("tower::raise (4,194,304 bytes, ") && !svg.contains("http-equiv"), "{svg}");
    let nothing = Made::new().stack(&["main"], [1, 0, 0]).to(&folder.join("nothing.pb.gz"));
    let output = harness(&["profile", "flamegraph", &nothing, "-o", &folder.join("nothing.svg").display().to_string()]);
    assert_eq!(stderr(&output), format!("freestone-bench: {nothing} has no inuse_space, so there is nothing to draw\n"));
}

#[test]
fn a_profile_is_read_from_the_standard_input_too() {
    let mut harness = Command::new(PROGRAM)
        .args(["profile", "top", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the harness was built");
    harness.stdin.take().expect("a pipe").write_all(&encode(&towers().0)).expect("it reads");
    let output = harness.wait_with_output().expect("it ends");
    assert!(output.status.success() && stdout(&output).contains("tower::raise"), "{output:?}");
}

/// One sentence, and nothing else.
fn complains(output: &Output, begins: &str, code: i32) {
    let said = stderr(output);
    assert!(said.starts_with(&format!("freestone-bench: {begins}")), "{said}");
    assert_eq!((said.lines().count(), output.status.code(), stdout(output).as_str()), (1, Some(code), ""), "{said}");
}

#[test]
fn what_is_no_profile_or_no_program_gets_one_sentence() {
    let folder = folder("profile-noes");
    let good = encode(&towers().0);
    let files: [(&str, &[u8]); 6] = [
        ("empty", b""),
        ("prose", b"Dear diary,\nall is well.\n"),
        ("cut.pb.gz", &good[..good.len() / 2]),
        ("header.pb.gz", &[0x1f, 0x8b]),
        ("zeros", &[0; 10_000]),
        ("bytes", &[0xff; 10_000]),
    ];
    for (name, bytes) in files {
        let path = folder.join(name);
        fs::write(&path, bytes).expect("the folder is writable");
        let path = path.display().to_string();
        for arguments in [
            &["top", &path][..],
            &["folded", &path],
            &["name", &path, "--binary", PROGRAM],
            &["flamegraph", &path, "-o", "/dev/null"],
            &["diff", &path, &path],
        ] {
            complains(&harness(&[&["profile"], arguments].concat()), &format!("cannot read {path}: "), 2);
        }
    }
    complains(&harness(&["profile", "top", "nowhere.pb.gz"]), "cannot read nowhere.pb.gz: No such file or directory", 2);
    complains(&harness(&["profile", "top", "/"]), "cannot read /: Is a directory", 2);
    complains(&harness(&["profile", "top"]), "", 2);
    complains(&harness(&["profile", "flamegraph", "x"]), "", 2);
    complains(&harness(&["profile"]), "", 2);

    let file = Made::new().mapping("/srv/app", "0123").address(START, [1, 1, 1]).to(&folder.join("heap.pb.gz"));
    let prose = folder.join("prose").display().to_string();
    complains(&harness(&["profile", "name", &file, "--binary", &prose]), &format!("{prose} is not an ELF file"), 2);
    complains(&harness(&["profile", "name", &file, "--binary", "/"]), "cannot read /: it is not a file", 2);
    complains(
        &harness(&["profile", "name", &file, "--binary", "/nowhere"]),
        "cannot read /nowhere: No such file or directory",
        2,
    );
    complains(&harness(&["profile", "symbols", &prose]), &format!("{prose} is not an ELF file"), 2);
    let cut = folder.join("cut-program");
    fs::write(&cut, &fs::read(PROGRAM).expect("it was built")[..60]).expect("the folder is writable");
    let cut = cut.display().to_string();
    complains(
        &harness(&["profile", "symbols", &cut]),
        &format!("{cut} is an ELF file of another kind of machine, or cut off"),
        2,
    );
    // A pipe that nobody writes to.
    let pipe = folder.join("pipe");
    let name = CString::new(pipe.display().to_string()).expect("no zero");
    // SAFETY: a path that ends with a zero.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    let pipe = pipe.display().to_string();
    complains(&harness(&["profile", "name", &file, "--binary", &pipe]), &format!("cannot read {pipe}: it is not a file"), 2);

    let towers = towers().to(&folder.join("towers.pb.gz"));
    let nowhere = PathBuf::from("/nowhere/x.svg").display().to_string();
    complains(&harness(&["profile", "flamegraph", &towers, "-o", &nowhere]), &format!("cannot write {nowhere}: "), 3);
}

#[test]
fn damaged_programs_and_profiles_never_make_it_panic() {
    let folder = folder("profile-damage");
    let mut state: u64 = std::env::var("FREESTONE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0xbad);
    println!("seed {state}; FREESTONE_SEED sets it");
    let mut random = |below: usize| {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (state >> 33) as usize % below
    };
    // A small program, with everything in it.
    let source = folder.join("small.c");
    fs::write(
        &source,
        "static int twice(int x) { return x + x; }\nint main(int c, char **v) { (void)v; return twice(c) + twice(c + 1); }\n",
    )
    .expect("the folder is writable");
    let small = folder.join("small");
    if !Command::new("cc")
        .args(["-g", "-O1", "-Wl,--build-id", "-o"])
        .arg(&small)
        .arg(&source)
        .status()
        .is_ok_and(|its| its.success())
    {
        return skipped("gcc");
    }
    let whole = fs::read(&small).expect("it was built");
    let mut made = Made::new().mapping("/srv/small", &build_id(&small));
    for offset in (0..whole.len() as u64).step_by(31) {
        made = made.address(START + offset, [1, 1, 1]);
    }
    let file = made.to(&folder.join("heap.pb.gz"));
    let (damaged, named) = (folder.join("damaged"), folder.join("named").display().to_string());
    let mut well = 0;
    for round in 0..150 {
        let mut bytes = whole.clone();
        for _ in 0..=random(20) {
            // Headers and tables more often than code.
            let at = if random(3) == 0 { random(1024) } else { random(bytes.len()) };
            bytes[at] = [0, 1, 0x7f, 0x80, 0xff, random(256) as u8][random(6)];
        }
        if random(4) == 0 {
            bytes.truncate(random(bytes.len()));
        }
        fs::write(&damaged, bytes).expect("the folder is writable");
        let damaged = damaged.display().to_string();
        let output = harness(&["profile", "name", &file, "--binary", &damaged, "--force", "-o", &named]);
        assert!(matches!(output.status.code(), Some(0 | 2)), "round {round}: {output:?}");
        assert!(!stderr(&output).contains("panicked"), "round {round}: {}", stderr(&output));
        well += usize::from(output.status.success());
    }
    println!("{well} of 150 damaged programs had something to say");
    let good = encode(&made.0);
    let plain = {
        use std::io::Read as _;
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&good[..]).read_to_end(&mut plain).expect("gzip");
        plain
    };
    for round in 0..150 {
        let mut bytes = plain.clone();
        for _ in 0..=random(5) {
            let at = random(bytes.len());
            bytes[at] = [0, 1, 0x7f, 0x80, 0xff, random(256) as u8][random(6)];
        }
        fs::write(&damaged, bytes).expect("the folder is writable");
        let damaged = damaged.display().to_string();
        let arguments: [&[&str]; 4] = [
            &["top", &damaged],
            &["folded", &damaged],
            &["flamegraph", &damaged, "-o", &named],
            &["name", &damaged, "--binary", &small.display().to_string(), "--force", "-o", &named],
        ];
        let output = harness(&[&["profile"], arguments[round % 4]].concat());
        assert!(matches!(output.status.code(), Some(0 | 2)), "round {round}: {output:?}");
        assert!(!stderr(&output).contains("panicked"), "round {round}: {}", stderr(&output));
    }
}
