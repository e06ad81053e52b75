//! Names of functions in a running program: its own, those of its libraries, and what is left of them when it was stripped.
//!
//! The programs under test are copies of this one, which are given something to do by the environment.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::hint::black_box;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use freestone::Freestone;
use freestone_stats::names::{Binary, Mapping, Symbols, mappings};
use freestone_stats::profile::{self, Kind};

#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

/// Says to a copy of this program what to do.
const TASK: &str = "NAMES_TASK";

mod tower {
    use std::hint::black_box;

    pub(super) struct Tower<T>(pub(super) T);

    impl<T: Copy + Into<u64>> Tower<T> {
        #[inline(never)]
        pub(super) fn raise(&self, by: u64) -> u64 {
            black_box(self.0.into() + by)
        }
    }

    pub(super) trait Falls {
        fn fall(&self) -> u64;
    }

    impl Falls for Tower<u8> {
        #[inline(never)]
        fn fall(&self) -> u64 {
            black_box(u64::from(self.0))
        }
    }

    #[inline(never)]
    pub(super) fn stand() -> u64 {
        black_box(7)
    }
}

#[unsafe(no_mangle)]
extern "C" fn plain_name_of_c() -> u64 {
    black_box(8)
}

/// Functions of this program, and the ends of their names.
fn known() -> Vec<(u64, &'static [&'static str])> {
    use tower::{Falls, Tower};
    let raise: fn(&Tower<u32>, u64) -> u64 = Tower::<u32>::raise;
    let fall: fn(&Tower<u8>) -> u64 = <Tower<u8> as Falls>::fall;
    let c: extern "C" fn() -> u64 = plain_name_of_c;
    vec![
        (raise as usize as u64, &["tower::Tower<T>::raise", "tower::Tower<u32>>::raise"]),
        (fall as usize as u64, &["tower::Tower<u8> as names::tower::Falls>::fall"]),
        (tower::stand as fn() -> u64 as usize as u64, &["names::tower::stand"]),
        (c as usize as u64, &["plain_name_of_c"]),
    ]
}

/// What has to be added to the addresses of this program's file.
fn bias() -> u64 {
    unsafe extern "C" fn first(info: *mut libc::dl_phdr_info, _: libc::size_t, bias: *mut libc::c_void) -> libc::c_int {
        // SAFETY: what the dynamic linker gives.
        let found = unsafe { (*info).dlpi_addr };
        // SAFETY: what is given to it below.
        unsafe { bias.cast::<u64>().write(found) };
        1
    }
    let mut bias = 0_u64;
    // SAFETY: `first` takes a place for a number.
    unsafe { libc::dl_iterate_phdr(Some(first), (&raw mut bias).cast()) };
    bias
}

fn skipped(package: &str) {
    // Past what the test harness catches.
    let _ = writeln!(std::io::stderr(), "\nSKIPPED: {package} is not installed: apt-get install {package}\n");
}

fn run(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).output().ok()?;
    assert!(output.status.success(), "{command:?}: {output:?}");
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The build id that binutils find, or a dash. Without binutils there is no answer.
fn readelf(path: &Path) -> Option<String> {
    let notes = run(Command::new("readelf").arg("-n").arg(path).stderr(Stdio::null()))?;
    Some(notes.lines().find_map(|line| line.trim().strip_prefix("Build ID: ")).unwrap_or("-").to_owned())
}

fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("names").join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("cargo gives tests a folder");
    folder
}

/// Runs a copy of this program.
fn child(program: &Path, task: &str, prepare: impl FnOnce(&mut Command)) -> String {
    let mut command = Command::new(program);
    command
        .args(["--exact", "a_task_is_done", "--nocapture", "--test-threads=1"])
        .env(TASK, task)
        .env_remove("FREESTONE_SYMBOLS");
    prepare(&mut command);
    let Output { status, stdout, stderr } = command.output().expect("it runs");
    let (said, complained) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{status} {said} {complained}");
    said.into_owned()
}

/// No test: what copies of this program do. Without a task it does nothing.
#[test]
fn a_task_is_done() {
    let Some(task) = std::env::var_os(TASK) else { return };
    let task = task.into_string().expect("text");
    let mut said = String::new();
    match task.split_once(' ').unwrap_or((&task, "")) {
        ("mappings", _) => {
            for Mapping { start, end, file_offset, path, build_id, is_main, is_deleted, .. } in mappings() {
                let id = build_id.as_deref().unwrap_or("-");
                let _ =
                    writeln!(said, "mapping {start:x} {end:x} {file_offset:x} {id} {is_main} {is_deleted} {}", path.display());
            }
        }
        ("known", how) => {
            if how == "gone" {
                fs::remove_file(std::env::current_exe().expect("a program knows where it is")).expect("it may be deleted");
            }
            let mut symbols = Symbols::new();
            for (address, _) in known() {
                let _ = writeln!(said, "name {}", symbols.function(address).unwrap_or_default());
            }
        }
        // Addresses of the file, in hexadecimal, from a file.
        ("named", list) => {
            let (bias, mut symbols) = (bias(), Symbols::new());
            for line in fs::read_to_string(list).expect("the parent wrote it").lines() {
                let address = u64::from_str_radix(line, 16).expect("a number");
                let _ = writeln!(said, "name {}", symbols.function(bias + address).unwrap_or_default());
            }
        }
        // What a profile of this very process says: addresses of the file and names, stack by stack.
        ("samples", _) => {
            freestone::control::set_sample_interval(4 << 10);
            let held: Vec<Vec<Box<[u8]>>> = (0..50).map(|round| vec![allocate(round), allocate_deeper(round)]).collect();
            let numbers: Vec<String> = (0..20_000).map(|number| number.to_string()).collect();
            let tree: std::collections::BTreeMap<usize, String> = numbers.iter().cloned().enumerate().collect();
            let table: HashMap<String, Vec<u8>> =
                numbers.iter().map(|number| (number.repeat(9), number.clone().into_bytes())).collect();
            let shared: Vec<std::rc::Rc<[u8]>> = numbers.iter().map(|number| number.as_bytes().into()).collect();
            let profile = profile::take(Kind::Heap);
            let (bias, mut symbols) = (bias(), Symbols::new());
            for row in &profile.rows {
                let _ = writeln!(said, "stack {}", row.samples);
                for address in profile.frames(row) {
                    let call = address as u64 - 1;
                    let in_file = call.wrapping_sub(bias);
                    let _ = writeln!(said, "frame {in_file:x} {}", symbols.function(call).unwrap_or_default());
                }
            }
            drop((held, numbers, tree, table, shared));
        }
        // How many of ten thousand addresses have names, what that takes, and how often it was sampled.
        ("memory", _) => {
            freestone::control::set_sample_interval(1);
            let main = mappings().swap_remove(0);
            let step = ((main.end - main.start) / 10_000) as usize;
            let live = || freestone::snapshot().bytes.live as i64;
            let samples = || freestone::profile::summary().samples;
            let (before, sampled) = (live(), samples());
            let mut symbols = Symbols::new();
            let (mut most, mut named) = (0, 0);
            for address in (main.start..main.end).step_by(step) {
                named += usize::from(symbols.function(address).is_some());
                most = most.max(live() - before);
            }
            let _ = writeln!(said, "memory {named} {most} {}", samples() - sampled);
        }
        // The same of any file: what it takes, and how long.
        ("file", path) => {
            let before = freestone::snapshot().bytes.live;
            let started = std::time::Instant::now();
            let mut binary = Binary::open(Path::new(path), &[]).expect("a file");
            let bytes = fs::metadata(path).expect("it is there").len();
            let named = |number| binary.address_of(bytes / 10_000 * number).is_some_and(|at| binary.function(at).is_some());
            let named = (0..10_000).map(named).filter(|is_named| *is_named).count();
            let took = freestone::snapshot().bytes.live - before;
            let _ = writeln!(said, "{named} names took {took} bytes and {:?}", started.elapsed());
        }
        _ => panic!("{task}?"),
    }
    print!("\n{said}");
}

#[inline(never)]
fn allocate(bytes: usize) -> Box<[u8]> {
    black_box(vec![1; 1000 + bytes].into_boxed_slice())
}

#[inline(never)]
fn allocate_deeper(bytes: usize) -> Box<[u8]> {
    let deep = allocate(bytes * 100);
    black_box(deep)
}

fn names_in(said: &str) -> Vec<&str> {
    said.lines().filter_map(|line| line.strip_prefix("name ")).collect()
}

#[test]
fn mappings_are_those_of_the_kernel_and_ids_those_of_binutils() {
    // Without those of another test, which come and go.
    let all: Vec<Mapping> = mappings().into_iter().filter(|its| !its.path.starts_with(env!("CARGO_TARGET_TMPDIR"))).collect();
    let mine = std::env::current_exe().expect("a test knows where it is");
    assert!(all[0].is_main && all[0].path == mine && !all[0].is_deleted, "{all:?}");
    assert!(all[0].contains(known()[0].0));
    assert!(all[1..].windows(2).all(|two| two[0].is_main || two[0].end <= two[1].start), "{all:?}");
    let libc = all.iter().find(|its| its.contains(libc::malloc_usable_size as *const () as usize as u64)).expect("it is loaded");
    assert!(!libc.is_main && libc.path.is_absolute(), "{libc:?}");

    // Every one is a line with an x, but for names.
    let text = fs::read("/proc/self/maps").expect("the kernel says");
    let text = String::from_utf8_lossy(&text);
    for its in &all {
        let line = format!("{:08x}-{:08x} r-xp {:08x}", its.start, its.end, its.file_offset);
        assert!(text.contains(&line), "{line} is not in\n{text}");
    }

    let vdso = all.iter().find(|its| its.path == Path::new("[vdso]")).expect("every process has one");
    // SAFETY: the kernel's, whole pages of it.
    let bytes = unsafe { std::slice::from_raw_parts(vdso.start as usize as *const u8, (vdso.end - vdso.start) as usize) };
    let copy = folder("vdso").join("vdso.so");
    fs::write(&copy, bytes).expect("the folder is writable");
    let mut ids = 0;
    for its in &all {
        let file = if its == vdso { &copy } else { &its.path };
        let Some(id) = readelf(file) else { return skipped("binutils") };
        assert_eq!(its.build_id.as_deref().unwrap_or("-"), id, "{its:?}");
        ids += usize::from(id != "-");
    }
    assert!(ids >= 2, "{ids} build ids of {all:?}");
}

#[test]
fn functions_have_the_names_that_they_were_given() {
    let mut symbols = Symbols::new();
    for (address, ends) in known() {
        let name = symbols.function(address).expect("this program has symbols");
        assert!(ends.iter().any(|end| name.ends_with(end)), "{name} is none of {ends:?}");
    }
    // Of libraries without symbols, names that they export; of the kernel's own as well.
    let malloc = symbols.function(libc::malloc_usable_size as *const () as usize as u64);
    assert_eq!(malloc, Some("malloc_usable_size"));
    for nowhere in [0, 8, u64::MAX] {
        assert_eq!(symbols.function(nowhere), None);
    }
    // The heap is no code.
    let heap = Box::new(1_u64);
    assert_eq!(symbols.function(&raw const *heap as u64), None);
}

#[test]
fn the_kernels_own_functions_have_names() {
    let vdso = mappings().into_iter().find(|its| its.path == Path::new("[vdso]")).expect("every process has one");
    let mut symbols = Symbols::new();
    let named: Vec<String> =
        (vdso.start..vdso.end).step_by(16).filter_map(|address| symbols.function(address).map(str::to_owned)).collect();
    assert!(named.iter().any(|name| name == "__vdso_clock_gettime" || name == "__kernel_clock_gettime"), "{named:?}");
}

#[test]
fn a_program_at_a_fixed_address_is_one_like_others() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["rustc", "--quiet", "--test", "names", "--message-format=json", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .args(["--", "-C", "relocation-model=static"])
        .output()
        .expect("cargo runs");
    let text = String::from_utf8_lossy(&built.stdout);
    let path = text.rsplit("\"executable\":\"").next().and_then(|rest| rest.split('"').next()).expect("cargo says where");
    assert!(built.status.success(), "{built:?}");
    let header = fs::read(path).expect("it was built");
    assert_eq!(header[16], 2, "it is an executable at a fixed address");

    let said = child(Path::new(path), "mappings", |_| ());
    let main: Vec<&str> =
        said.lines().find_map(|line| line.strip_prefix("mapping ")).expect("the first one").split(' ').collect();
    assert_eq!((main[4], main[5], main[6]), ("true", "false", path), "{said}");
    let Some(id) = readelf(Path::new(path)) else { return skipped("binutils") };
    assert_eq!(main[3], id);
    let said = child(Path::new(path), "known", |_| ());
    for (name, (_, ends)) in names_in(&said).into_iter().zip(known()) {
        assert!(ends.iter().any(|end| name.ends_with(end)), "{name} is none of {ends:?}");
    }
}

/// A library with a function of this name.
fn library(path: &Path, function: &str) -> bool {
    let source = folder(&format!("library-{function}")).join("library.c");
    fs::write(&source, format!("int {function}(int x) {{ return x * 3 + 1; }}\n")).expect("the folder is writable");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-Wl,--build-id=sha1", "-o"]).arg(path).arg(&source).status();
    built.is_ok_and(|status| status.success())
}

#[test]
fn a_library_with_a_strange_name_is_known_at_once_and_even_when_its_file_has_gone() {
    let folder = folder("a folder");
    let path = folder.join(OsStr::from_bytes(b"with space\nand \xff line (deleted)"));
    if !library(&path, "first_build") {
        return skipped("gcc");
    }
    assert!(mappings().iter().all(|its| its.path != path));
    let name = std::ffi::CString::new(path.as_os_str().as_bytes()).expect("no zero");
    // SAFETY: a library without anything that runs by itself.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW) };
    assert!(!handle.is_null());
    // SAFETY: an open library.
    let function = unsafe { libc::dlsym(handle, c"first_build".as_ptr()) } as u64;
    let its = |all: Vec<Mapping>| all.into_iter().find(|its| its.contains(function)).expect("it is mapped");
    let mapping = its(mappings());
    assert_eq!((&mapping.path, mapping.is_deleted, mapping.is_main), (&path, false, false));
    assert_eq!(Symbols::new().function(function), Some("first_build"));
    let id = mapping.build_id.clone().expect("the linker was told to");

    // Another build takes its place. Its names are not for this one.
    let other = folder.join("other");
    assert!(library(&other, "second_build"));
    fs::rename(&other, &path).expect("they are in one folder");
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let mapping = its(mappings());
    assert_eq!((&mapping.path, mapping.is_deleted, mapping.build_id.as_ref()), (&path, true, Some(&id)));
    let mut symbols = Symbols::new();
    let name = symbols.function(function);
    // Whoever may ask the kernel for the file that is mapped has its name still.
    assert!(name.is_none_or(|name| name == "first_build"), "{name:?}");
    // SAFETY: open, and not used any more.
    unsafe { libc::dlclose(handle) };
    assert!(mappings().iter().all(|its| !its.contains(function)), "the dynamic linker says that it went");
}

/// Addresses in this program's functions, and their names and beginnings, from binutils.
fn truth(program: &Path, count: usize) -> Option<Vec<(u64, String, u64)>> {
    let text = run(Command::new("nm").args(["--defined-only", "--print-size", "--numeric-sort"]).arg(program))?;
    let mut functions: Vec<(u64, u64, String)> = text
        .lines()
        .filter_map(|line| {
            let mut words = line.splitn(4, ' ');
            let mut number = || u64::from_str_radix(words.next()?, 16).ok();
            let (begin, length) = (number()?, number()?);
            let kind = words.next()?;
            "tTwW".contains(kind).then_some((begin, length, words.next()?.to_owned()))
        })
        .collect();
    functions.sort();
    functions.dedup_by_key(|its| its.0);
    let mut state: u64 = std::env::var("FREESTONE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0x5eed);
    println!("seed {state}; FREESTONE_SEED sets it");
    let mut random = |below: u64| {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (state >> 33) % below
    };
    let picked = (0..count).map(|_| {
        let (begin, length, name) = &functions[random(functions.len() as u64) as usize];
        (begin + random((*length).max(1)), name.clone(), *begin)
    });
    Some(picked.collect())
}

/// The names that stand at each address: any of them will do.
fn names_at(program: &Path) -> HashMap<u64, Vec<String>> {
    let mut names: HashMap<u64, Vec<String>> = HashMap::new();
    let all = run(Command::new("nm").args(["--defined-only"]).arg(program)).expect("binutils are here");
    for line in all.lines() {
        let mut words = line.splitn(3, ' ');
        if let (Some(Ok(at)), _, Some(name)) =
            (words.next().map(|word| u64::from_str_radix(word, 16)), words.next(), words.next())
        {
            names.entry(at).or_default().push(demangled(name));
        }
    }
    names
}

/// Names without what compilers add to tell things apart.
fn demangled(name: &str) -> String {
    format!("{:#}", rustc_demangle::demangle(name))
}

#[test]
fn names_survive_strip_by_what_is_left_or_was_kept() {
    let mine = std::env::current_exe().expect("a test knows where it is");
    let folder = folder("stripped");
    let Some(truth) = truth(&mine, 2000) else { return skipped("binutils") };
    let list = folder.join("addresses");
    fs::write(&list, truth.iter().fold(String::new(), |text, (at, ..)| format!("{text}{at:x}\n")))
        .expect("the folder is writable");
    let names = names_at(&mine);
    let right = |program: &Path, prepare: &dyn Fn(&mut Command)| {
        let said = child(program, &format!("named {}", list.display()), prepare);
        let got: Vec<String> = names_in(&said).into_iter().map(str::to_owned).collect();
        assert_eq!(got.len(), truth.len());
        let right = got.iter().zip(&truth).filter(|(got, (_, _, begin))| names[begin].contains(got)).count();
        (right as f64 / truth.len() as f64, got)
    };
    let strip = |name: &str, how: &[&str]| {
        let copy = folder.join(name);
        fs::copy(&mine, &copy).expect("the folder is writable");
        run(Command::new("strip").args(how).arg(&copy)).expect("binutils are here");
        copy
    };

    // No DWARF, and no debug file with any.
    let copy = strip("without-debug", &["--strip-debug"]);
    let (share, got) = right(&copy, &|_| ());
    println!("strip --strip-debug: {:.1} % of {} names are right", share * 100.0, got.len());
    assert!(share >= 0.95, "{share} {got:?}");

    // Nothing but what exceptions need: beginnings.
    let bare = strip("bare", &["--strip-all"]);
    let (share, got) = right(&bare, &|_| ());
    let beginnings = got.iter().zip(&truth).filter(|(got, (_, _, begin))| **got == format!("bare!{begin:#x}")).count();
    let named = got.iter().filter(|got| !got.contains('!') && !got.is_empty()).count();
    println!(
        "strip --strip-all: {:.1} % of names are right, {named} of {} say any; {beginnings} say where the function begins",
        share * 100.0,
        got.len()
    );
    assert!(beginnings as f64 / truth.len() as f64 >= 0.9, "{got:?}");
    assert!(named as f64 <= share * truth.len() as f64 + 0.5, "a name that is there is right");

    // Kept before it was stripped: beside it, in a folder, within it.
    let kept = Binary::open(&mine, &[]).expect("this program").symbols_to_keep().expect("it has symbols");
    let size = fs::metadata(&mine).expect("it is there").len();
    println!("{} bytes kept of {size}, beside {}", kept.len(), fs::metadata(&bare).expect("it is there").len());
    let beside = strip("beside", &["--strip-all"]);
    fs::write(folder.join("beside.symbols"), &kept).expect("the folder is writable");
    let id = Binary::open(&mine, &[]).expect("this program").build_id().map(str::to_owned);
    let within = strip("within", &["--strip-all"]);
    fs::write(&within, [fs::read(&within).expect("it is there"), kept.clone()].concat()).expect("the folder is writable");
    let mut cases = vec![(beside, None), (within, None)];
    if let Some(id) = &id {
        let symbols = folder.join("symbols");
        fs::create_dir_all(&symbols).expect("the folder is writable");
        fs::write(symbols.join(format!("{id}.symbols")), &kept).expect("the folder is writable");
        cases.push((bare.clone(), Some(symbols)));
    }
    // The debug file that the file names.
    let linked = strip("linked", &["--strip-all"]);
    let debug = folder.join(".debug");
    fs::create_dir_all(&debug).expect("the folder is writable");
    run(Command::new("objcopy").arg("--only-keep-debug").arg(&mine).arg(debug.join("linked.debug"))).expect("binutils are here");
    run(Command::new("objcopy").arg(format!("--add-gnu-debuglink={}", debug.join("linked.debug").display())).arg(&linked))
        .expect("binutils are here");
    cases.push((linked, None));
    for (program, symbols) in cases {
        let (share, got) = right(&program, &|command| {
            if let Some(folder) = &symbols {
                command.env("FREESTONE_SYMBOLS", folder);
            }
        });
        println!("{}: {:.1} % of names are right", program.display(), share * 100.0);
        assert!(share >= 0.95, "{program:?} {got:?}");
    }

    // What was kept of another build is not believed.
    if id.is_some() {
        let other = strip("other", &["--strip-all"]);
        let mut kept = kept;
        let id_ends = kept.len() - 32;
        kept[id_ends - 1] ^= 1;
        fs::write(folder.join("other.symbols"), &kept).expect("the folder is writable");
        assert!(right(&other, &|_| ()).0 <= named as f64 / truth.len() as f64);
    }
    // A program whose file is deleted while it runs is still itself.
    let gone = strip("gone", &["--strip-debug"]);
    let said = child(&gone, "known gone", |_| ());
    assert!(!gone.exists());
    for (name, (_, ends)) in names_in(&said).into_iter().zip(known()) {
        assert!(ends.iter().any(|end| name.ends_with(end)), "{name} is none of {ends:?}");
    }
}

#[test]
fn samples_of_a_stripped_program_have_the_right_names() {
    let mine = std::env::current_exe().expect("a test knows where it is");
    let folder = folder("samples");
    let (stripped, bare) = (folder.join("stripped"), folder.join("bare"));
    if run(Command::new("strip").args(["--strip-debug", "-o"]).arg(&stripped).arg(&mine)).is_none() {
        return skipped("binutils");
    }
    run(Command::new("strip").args(["--strip-all", "-o"]).arg(&bare).arg(&mine)).expect("binutils are here");
    let kept = Binary::open(&mine, &[]).expect("this program").symbols_to_keep().expect("it has symbols");
    fs::write(folder.join("bare.symbols"), kept).expect("the folder is writable");
    let names = names_at(&mine);
    let mut begins: Vec<u64> = names.keys().copied().collect();
    begins.sort_unstable();
    for program in [stripped, bare] {
        let said = child(&program, "samples", |_| ());
        let (mut samples, mut right, mut frames) = (0, 0, 0);
        for stack in said.split("stack ").skip(1) {
            let (count, rest) = stack.split_once('\n').expect("a line");
            let count: u64 = count.parse().expect("a number");
            let is_right = |line: &str| {
                let (address, name) = line.split_once(' ').expect("two words");
                let address = u64::from_str_radix(address, 16).expect("a number");
                let begin = begins[..begins.partition_point(|begin| *begin <= address)].last();
                // Frames of the C library are further away than this program is large, and it has names for those that it exports only.
                let is_ours = address < fs::metadata(&mine).expect("it is there").len();
                !is_ours || begin.is_some_and(|begin| names[begin].iter().any(|its| its == name))
            };
            let lines: Vec<&str> = rest.lines().filter_map(|line| line.strip_prefix("frame ")).collect();
            frames += lines.len();
            samples += count;
            if !lines.is_empty() && lines.iter().all(|line| is_right(line)) {
                right += count;
            } else {
                println!("{lines:#?}");
            }
        }
        println!("{}: of {samples} samples with {frames} frames {right} have the right names", program.display());
        assert!(samples >= 200 && frames >= 20, "{said}");
        assert!(right * 100 >= samples * 95, "{said}");
        assert!(said.contains(" names::allocate\n"), "{said}");
    }
}

#[test]
fn names_take_little_memory_and_none_of_it_is_in_profiles() {
    let said = child(&std::env::current_exe().expect("a test knows where it is"), "memory", |_| ());
    let numbers: Vec<i64> = said
        .lines()
        .find_map(|line| line.strip_prefix("memory "))
        .expect("it says")
        .split(' ')
        .map(|word| word.parse().expect("a number"))
        .collect();
    println!("{} names took {} bytes of the heap at most, and {} samples", numbers[0], numbers[1], numbers[2]);
    assert!(numbers[0] > 5000, "{said}");
    assert!(numbers[1] < 4 << 20, "{said}");
    assert_eq!(numbers[2], 0, "{said}");
}
