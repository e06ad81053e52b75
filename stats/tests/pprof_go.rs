//! `go tool pprof http://…/debug/pprof/heap`, as somebody at a terminal types it, against a program that was stripped of its debug information: the
//! figures are those that were planted, and functions have their names, which the tool asks the program for.

mod client;

use std::alloc::{GlobalAlloc, Layout};
use std::collections::{BTreeMap, HashMap};
use std::hint::black_box;
use std::io::{BufRead, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use client::ask_bytes;
use freestone::{Freestone, control};
use freestone_stats::http;
use freestone_stats::profile::pprof::decode;

#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

const KIB: u64 = 1024;

/// Blocks that nobody frees, of a site that nobody else has. Freestone is called by its name, so that the site is the function that says so, whatever
/// the optimiser does.
macro_rules! site {
    ($name:ident, $block_bytes:expr) => {
        #[inline(never)]
        fn $name(blocks: usize) {
            let layout = Layout::from_size_align($block_bytes, 8).expect("a size");
            for _ in 0..blocks {
                // SAFETY: the layout is of more than nothing.
                let block = unsafe { GLOBAL.alloc(layout) };
                assert!(!black_box(block).is_null());
            }
        }
    };
}

site!(site_of_kilobytes, 1024);
site!(site_of_pages, 8192);
site!(site_that_grows, 2048);

/// A method of a trait, whose name pprof would cut short.
trait Fills {
    fn fill(&self);
}

struct Shelf<T>(T);

impl<T: Copy + Into<usize>> Fills for Shelf<T> {
    #[inline(never)]
    fn fill(&self) {
        let layout = Layout::from_size_align(4096, 8).expect("a size");
        for _ in 0..self.0.into() {
            // SAFETY: the layout is of more than nothing.
            let block = unsafe { GLOBAL.alloc(layout) };
            assert!(!black_box(block).is_null());
        }
    }
}

#[test]
fn what_the_tool_shows_is_what_the_program_did() {
    for (program, argument, package) in
        [("go", "version", "golang-go"), ("strip", "--version", "binutils"), ("nm", "--version", "binutils")]
    {
        if !Command::new(program).arg(argument).output().is_ok_and(|output| output.status.success()) {
            println!("SKIPPED: no {program} here (Debian package {package}), so nobody read the profiles with Go's tool");
            return;
        }
    }
    let work = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("pprof-go-{}", std::process::id()));
    std::fs::create_dir_all(&work).expect("a place for files");
    let program = Program::start(&work);
    let at = program.at;
    let url = |rest: &str| format!("http://{at}/debug/pprof/{rest}");
    let tool = |arguments: &[&str]| pprof(&work, arguments);

    // Each allocation of the program is a sample: estimates are exact.
    let planted = [
        ("site_of_kilobytes", 300 * KIB),
        ("site_of_pages", 50 * 8 * KIB),
        ("Shelf::fill", 20 * 4 * KIB),
        ("site_that_grows", 0),
    ];
    for source in [url("heap"), url("allocs"), url("heap?debug=1")] {
        for column in ["inuse_space", "alloc_space"] {
            let top = tool(&[
                "-symbolize=remote",
                &format!("-sample_index={column}"),
                "-nodecount=1000000",
                "-nodefraction=0",
                "-unit=B",
                "-top",
                &source,
            ]);
            let flat = flat_of(&top);
            for (site, bytes) in planted {
                assert_eq!(flat.get(site).copied().unwrap_or_default(), bytes as i64, "{site} in {column} of {source}:\n{top}");
            }
        }
    }
    let objects = tool(&[
        "-symbolize=remote",
        "-sample_index=inuse_objects",
        "-nodefraction=0",
        "-nodecount=1000000",
        "-top",
        &url("heap"),
    ]);
    assert_eq!(flat_of(&objects).get("site_of_kilobytes"), Some(&300), "{objects}");
    let traces = tool(&["-symbolize=remote", "-unit=B", "-traces", &url("heap")]);
    let at_site = traces.lines().position(|line| line.ends_with("::site_of_pages")).unwrap_or_else(|| panic!("{traces}"));
    assert!(traces.lines().nth(at_site).is_some_and(|line| line.contains("409600B")), "{traces}");

    // The difference of a file and the program of now.
    let (_, earlier) = ask_bytes(at, "GET", "/debug/pprof/heap", &[], b"");
    let file = work.join("earlier.pb.gz");
    std::fs::write(&file, &earlier).expect("a file");
    program.grow();
    let grown = tool(&[
        "-symbolize=remote",
        "-nodecount=1000000",
        "-nodefraction=0",
        "-unit=B",
        "-base",
        &file.to_string_lossy(),
        "-top",
        &url("heap"),
    ]);
    let flat = flat_of(&grown);
    assert_eq!(flat.get("site_that_grows"), Some(&(77 * 2 * KIB as i64)), "{grown}");
    assert_eq!(flat.get("site_of_pages").copied().unwrap_or_default(), 0, "{grown}");

    // The tool reads every kind, in both formats; waits for a difference; and shows our sentence when it is refused.
    for kind in ["heap", "allocs", "peak", "lifetimes", "fragmentation", "contention"] {
        for query in ["", "?debug=1"] {
            let output = run_pprof(&work, &["-symbolize=remote", "-top", &url(&format!("{kind}{query}"))]);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success() || said.contains("profile is empty"), "{kind}{query}: {said}");
        }
    }
    let delta = tool(&["-symbolize=remote", "-seconds=1", "-top", &url("delta")]);
    assert!(delta.contains("Type: inuse_space") && delta.contains("Duration: "), "{delta}");
    let refused = run_pprof(&work, &["-top", &url("peak?seconds=1")]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("\"seconds\" parameter is not supported for this profile type"), "{said}");

    names_are_right(&program);
    std::fs::remove_dir_all(&work).expect("it was there");
}

/// Of every function that a sample was taken in: the name is what the linker knows it by.
fn names_are_right(program: &Program) {
    let (_, body) = ask_bytes(program.at, "GET", "/debug/pprof/heap", &[], b"");
    let profile = decode(&body).expect("a profile");
    let main = &profile.mapping[0];
    let functions = functions_of(&std::env::current_exe().expect("a path"));
    let (&anchor, _) = functions.iter().find(|(_, name)| name.ends_with("::site_of_pages")).expect("a function");
    let bias = program.site_of_pages - anchor;
    // How often each place is in a sample.
    let mut uses: HashMap<u64, u64> = HashMap::new();
    for id in profile.sample.iter().flat_map(|sample| &sample.location_id) {
        *uses.entry(*id).or_default() += 1;
    }
    let places: Vec<(u64, u64)> = profile.location.iter().map(|location| (location.address, uses[&location.id])).collect();
    let words: Vec<String> = places.iter().map(|(address, _)| format!("{address:#x}")).collect();
    let (head, said) = ask_bytes(program.at, "POST", "/debug/pprof/symbol", &[], words.join("+").as_bytes());
    assert_eq!(head.status, 200);
    let said = String::from_utf8(said).expect("text");
    let names: HashMap<&str, &str> = said.lines().skip(1).filter_map(|line| line.split_once(' ')).collect();
    let (mut right, mut all) = (0, 0);
    for (word, (address, uses)) in words.iter().zip(places) {
        if !(main.memory_start..main.memory_limit).contains(&address) {
            continue;
        }
        let Some((_, expected)) = functions.range(..=address - bias).next_back() else { continue };
        all += uses;
        match names.get(word.as_str()) {
            Some(name) if last_word(name) == last_word(expected) => right += uses,
            other => println!("{word} is {expected}, and is called {other:?}"),
        }
    }
    println!("{right} of {all} frames in samples have the right name");
    assert!(all >= 40, "{all} frames");
    assert!(right * 100 >= all * 95, "{right} of {all}");
}

/// The last word of a path that is not of a closure or of parameters: names are the same in this, whoever demangles them.
fn last_word(name: &str) -> String {
    let mut bare = String::new();
    let mut depth = 0_u32;
    for letter in name.chars() {
        match letter {
            '<' | '{' => depth += 1,
            '>' | '}' => depth = depth.saturating_sub(1),
            letter if depth == 0 => bare.push(letter),
            _ => {}
        }
    }
    bare.split(|letter: char| !letter.is_alphanumeric() && letter != '_')
        .rfind(|word| !word.is_empty())
        .unwrap_or_default()
        .to_owned()
}

/// Functions by address, from the binary as it was before it was stripped.
fn functions_of(binary: &Path) -> BTreeMap<u64, String> {
    let output = Command::new("nm").args(["--defined-only", "--demangle=rust"]).arg(binary).output().expect("nm");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    let functions = text.lines().filter_map(|line| {
        let (address, rest) = line.split_once(' ')?;
        let (kind, name) = rest.split_once(' ')?;
        (matches!(kind, "t" | "T" | "w" | "W")).then_some((u64::from_str_radix(address, 16).ok()?, name.to_owned()))
    });
    functions.collect()
}

fn run_pprof(work: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new("go");
    command.args(["tool", "pprof"]).args(arguments);
    command.env("PPROF_TMPDIR", work).env("PPROF_BINARY_PATH", work.join("none")).env("HOME", work);
    command.output().expect("go")
}

fn pprof(work: &Path, arguments: &[&str]) -> String {
    let output = run_pprof(work, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// The first column of a table, by the end of the function's name: `planted` sites only.
fn flat_of(top: &str) -> HashMap<&'static str, i64> {
    let mut flat = HashMap::new();
    for line in top.lines() {
        for site in ["site_of_kilobytes", "site_of_pages", "site_that_grows", "Shelf::fill"] {
            if line.ends_with(&format!("::{site}")) {
                let number = line.split_whitespace().next().expect("a column").trim_end_matches('B');
                *flat.entry(site).or_default() += number.parse::<i64>().unwrap_or_else(|_| panic!("{line}"));
            }
        }
    }
    flat
}

/// This binary without its debug information, as another process.
struct Program {
    child: Child,
    at: SocketAddr,
    site_of_pages: u64,
    from: std::cell::RefCell<BufReader<std::process::ChildStdout>>,
}

impl Program {
    fn start(work: &Path) -> Self {
        let stripped = work.join("stripped");
        let status = Command::new("strip")
            .arg("--strip-debug")
            .arg("-o")
            .arg(&stripped)
            .arg(std::env::current_exe().expect("a path"))
            .status();
        assert!(status.expect("strip").success());
        let mut child = Command::new(&stripped)
            .args(["--exact", "child_that_serves", "--ignored", "--nocapture", "--test-threads=1"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a child");
        let mut from = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        while !line.contains("serves at ") {
            line.clear();
            assert_ne!(from.read_line(&mut line).expect("a child that speaks"), 0, "the child has ended");
        }
        let (_, said) = line.split_once("serves at ").expect("found above");
        let (at, site) = said.trim().split_once(" with ").expect("an address");
        let [at, site] = [at, site].map(str::to_owned);
        Self {
            child,
            at: at.parse().expect("an address"),
            site_of_pages: site.parse().expect("a number"),
            from: std::cell::RefCell::new(from),
        }
    }

    fn grow(&self) {
        writeln!(self.child.stdin.as_ref().expect("a pipe"), "grow").expect("a child that listens");
        let mut line = String::new();
        self.from.borrow_mut().read_line(&mut line).expect("a child that speaks");
        assert_eq!(line.trim(), "grown");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It would end with its pipe; whatever state it is in, it ends with this.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "runs as a child of the test above"]
fn child_that_serves() {
    let server = http::serve("127.0.0.1:0").expect("the loopback can be had");
    plant(|| {
        site_of_kilobytes(300);
        site_of_pages(50);
        Shelf(20_u16).fill();
        all_sorts();
    });
    println!("serves at {} with {}", server.address(), site_of_pages as fn(usize) as usize);
    for line in std::io::stdin().lines() {
        if line.is_ok_and(|line| line == "grow") {
            plant(|| site_that_grows(77));
            println!("grown");
        }
    }
}

/// Every allocation meanwhile is a sample, and keeps its weight of one.
fn plant(work: impl FnOnce()) {
    let before = control::sample_interval();
    control::set_sample_interval(1);
    work();
    control::set_sample_interval(before);
}

/// Allocations of the standard library, by many ways. None is freed.
fn all_sorts() {
    let words: Vec<String> = (0..40).map(|number| format!("word {number} of {:?}", Some(number))).collect();
    let by_length: BTreeMap<usize, Vec<&String>> = words.iter().fold(BTreeMap::new(), |mut map, word| {
        map.entry(word.len() * 31 % 17).or_insert_with(Vec::new).push(word);
        map
    });
    let places: HashMap<&str, usize> = words.iter().enumerate().map(|(place, word)| (word.as_str(), place)).collect();
    let mut sorted = words.clone();
    sorted.sort_by_key(|word| places[word.as_str()] * 7 % 13);
    let joined = sorted
        .join(", ")
        .to_uppercase()
        .replace("WORD", "letter")
        .split(' ')
        .map(str::to_owned)
        .collect::<std::collections::VecDeque<_>>();
    let paths: Vec<PathBuf> = words.iter().map(|word| Path::new("/tmp").join(word)).collect();
    let (to, from) = std::sync::mpsc::channel();
    let thread =
        std::thread::Builder::new().name("sorts".to_owned()).spawn(move || to.send(vec![7_u8; 300]).is_ok()).expect("a thread");
    let received = from.recv().expect("a message");
    assert!(thread.join().expect("a thread that ends"));
    let lengths = by_length.into_iter().map(|(length, words)| (length, words.len())).collect::<BTreeMap<_, _>>();
    black_box((lengths.len(), places.len()));
    std::mem::forget((words, sorted, joined, paths, received, lengths));
}
