//! Tracers can attach to the slow paths, and what they count is what the counters count: two measures of one thing.
//!
//! Every program has the documented probes, with the documented arguments, each at a `nop`. Where bpftrace may attach, the documented scripts run on a
//! program at work, all of them at once, and their sums are those of its snapshots, to the last one.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use freestone_tests::c::Library;
use freestone_tests::{Build, build};
use object::{Object, ObjectSection};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_probes");
/// Far more than any step here needs.
const PATIENCE: Duration = Duration::from_mins(1);

fn documents() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/probes")
}

/// Past the test runner, which shows what a test prints only when it fails.
fn skip(why: &str) {
    let _ = writeln!(std::io::stderr(), "\nSKIPPED: whether probes and counters agree was not tested: {why}\n");
}

// ---- notes -------------------------------------------------------------------------------------------------------------

/// Probes by name, and how many arguments each has.
type Probes = BTreeMap<String, usize>;

/// What `docs/probes/README.md` promises: the rows of its table.
fn documented() -> Probes {
    let text = std::fs::read_to_string(documents().join("README.md")).expect("it is there");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| {
        let (name, rest) = row.split_once('`').expect("a name ends");
        let arguments = rest.split('|').nth(1).expect("a second column");
        (name.to_owned(), arguments.matches('`').count() / 2)
    })
    .collect()
}

fn word(data: &[u8], at: usize) -> usize {
    u32::from_le_bytes(data[at..at + 4].try_into().expect("four bytes")) as usize
}

fn address(data: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(data[at..at + 8].try_into().expect("eight bytes"))
}

/// The probes of Freestone's in a program or library, each of which stands at a `nop`.
fn noted(file: &Path) -> Probes {
    let content = std::fs::read(file).expect("it was built");
    let file = object::File::parse(content.as_slice()).expect("an executable");
    let notes = file.section_by_name(".note.stapsdt").expect("there are notes");
    let notes = notes.data().expect("readable");
    let base = file.section_by_name(".stapsdt.base").expect("where notes count from").address();
    let mut probes = Probes::new();
    let mut at = 0;
    while at < notes.len() {
        let (owner_bytes, note_bytes, kind) = (word(notes, at), word(notes, at + 4), word(notes, at + 8));
        let owner = at + 12;
        let note = owner + owner_bytes.next_multiple_of(4);
        at = note + note_bytes.next_multiple_of(4);
        assert_eq!((&notes[owner..owner + owner_bytes], kind), (b"stapsdt\0".as_slice(), 3));
        let texts = str::from_utf8(&notes[note + 24..note + note_bytes]).expect("names and registers");
        let texts: Vec<&str> = texts.split('\0').collect();
        let [provider, name, arguments, ""] = texts[..] else { panic!("three texts, not {texts:?}") };
        let place = address(notes, note);
        // Of another library.
        if provider != "freestone" {
            continue;
        }
        assert_eq!(address(notes, note + 16), 0, "{name} has a semaphore, which some tracers do not serve");
        let place = place.wrapping_add(base).wrapping_sub(address(notes, note + 8));
        let text = file.section_by_name(".text").expect("code");
        let instruction = text.data_range(place, 1).expect("readable").expect("a probe lies within the code");
        assert_eq!(instruction, [0x90], "{name} at {place:#x}: a function that was left out leaves no note");
        let count = arguments.split(' ').count();
        assert_eq!(*probes.entry(name.to_owned()).or_insert(count), count, "{name} has the same arguments everywhere");
    }
    probes
}

fn is_elsewhere() -> bool {
    let is_elsewhere = cfg!(not(all(target_arch = "x86_64", target_os = "linux")));
    if is_elsewhere {
        skip("probes are tried on x86-64 Linux only");
    }
    is_elsewhere
}

#[test]
fn every_program_has_the_documented_probes() {
    if is_elsewhere() {
        return;
    }
    let documented = documented();
    assert!(documented.len() > 5, "{documented:?}");
    assert_eq!(noted(Path::new(PROGRAM)), documented);
    let shipped = build("probes", Build::Release);
    assert_eq!(noted(&shipped), documented);
    assert_eq!(noted(&Library::Usual.shared()), documented);
    if freestone_tests::c::has("strip", "programs without symbols") {
        let stripped = Path::new(env!("CARGO_TARGET_TMPDIR")).join("probes-stripped");
        let status = Command::new("strip").arg("-o").arg(&stripped).arg(&shipped).status().expect("strip runs");
        assert!(status.success());
        assert_eq!(noted(&stripped), documented);
    }
}

// ---- attaching ---------------------------------------------------------------------------------------------------------

/// The program, at a point where it waits for a line.
struct Waiting {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    errors: Receiver<String>,
}

/// The lines of a stream, read by a thread of their own.
fn lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    lines
}

/// What is said up to a line that is looked for, and that line. What it should be is said by the panic when it does not come.
fn until(lines: &Receiver<String>, what: &str, is_it: impl Fn(&str) -> bool) -> Vec<String> {
    let mut said = Vec::new();
    loop {
        match lines.recv_timeout(PATIENCE) {
            Ok(line) => said.push(line),
            Err(end) => panic!("no {what} ({end}) after {said:#?}"),
        }
        if said.last().is_some_and(|line| is_it(line)) {
            return said;
        }
    }
}

impl Waiting {
    fn start(scenario: &str) -> Self {
        let mut command = Command::new(PROGRAM);
        command.arg(scenario).env_remove("FREESTONE").env_remove("FREESTONE_MEMORY_LIMIT");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let (said, errors) = (lines(child.stdout.take().expect("piped")), lines(child.stderr.take().expect("piped")));
        let input = child.stdin.take();
        let waiting = Self { child, input, lines: said, errors };
        println!("{}", until(&waiting.lines, "first stop", |line| line == "ready").join("\n"));
        waiting
    }

    fn go_on(&mut self) {
        self.input.as_mut().expect("it was not closed").write_all(b"\n").expect("it reads");
    }

    fn end(mut self) -> ExitStatus {
        drop(self.input.take());
        self.child.wait().expect("a child")
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // Of a test that failed; otherwise it has ended.
        let _ = self.child.kill();
    }
}

/// A bpftrace that is attached to a program.
struct Attached {
    child: Child,
    lines: Receiver<String>,
    errors: Receiver<String>,
}

impl Attached {
    /// A script of ours, on a process.
    fn start(name: &str, pid: u32) -> Self {
        let script = documents().join(name).with_extension("bt");
        let mut command = Command::new("bpftrace");
        command.args(["-f", "json", "-p", &pid.to_string()]).args([&script, Path::new(PROGRAM)]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("bpftrace starts");
        let (said, errors) = (lines(child.stdout.take().expect("piped")), lines(child.stderr.take().expect("piped")));
        Self { child, lines: said, errors }
    }

    /// Waits until it has attached. What a script prints in the beginning is shown only after that.
    fn wait(&self, name: &str) {
        let mut lines = std::iter::from_fn(|| self.lines.recv_timeout(PATIENCE).ok());
        if !lines.any(|line| line.contains(r#""type": "printf""#)) {
            let errors = std::iter::from_fn(|| self.errors.recv_timeout(Duration::from_secs(1)).ok());
            panic!("{name} does not attach: {:#?}", errors.collect::<Vec<_>>());
        }
    }

    /// Ends it as Ctrl-C does; says what its maps contain, by their names, and which of them are histograms.
    fn end(mut self, name: &str) -> BTreeMap<String, Value> {
        // One that comes while it is busy with what it was asked before may get lost.
        let status = (0..PATIENCE.as_secs()).step_by(5).find_map(|_| {
            // SAFETY: our child, which nobody has waited for.
            assert_eq!(unsafe { libc::kill(self.child.id().cast_signed(), libc::SIGINT) }, 0);
            (0..50).find_map(|_| {
                std::thread::sleep(Duration::from_millis(100));
                self.child.try_wait().expect("a child")
            })
        });
        let status = status.unwrap_or_else(|| panic!("{name} does not end"));
        let mut maps = BTreeMap::new();
        for line in self.lines.iter().filter(|line| !line.is_empty()) {
            let value: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{name}: {error}: {line}"));
            // A map that is printed again has grown.
            if let Some(data) = value["data"].as_object().filter(|_| value["type"] != "attached_probes") {
                maps.extend(data.clone());
            }
        }
        assert!(status.success(), "{name}: {status}");
        maps
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        // As above.
        let _ = self.child.kill();
    }
}

/// May probes be attached to here? If not, says loudly why. For this the file system with the kernel's events is mounted, if it is not yet.
fn may_attach() -> bool {
    if is_elsewhere() {
        return false;
    }
    if Command::new("bpftrace").arg("--version").output().is_err() {
        skip("bpftrace is not installed (apt-get install bpftrace)");
        return false;
    }
    // SAFETY: no arguments, nothing to go wrong.
    if unsafe { libc::geteuid() } != 0 {
        skip("only root may attach to a program");
        return false;
    }
    if !Path::new("/sys/kernel/tracing/events").exists() {
        let _ = Command::new("mount").args(["-t", "tracefs", "nodev", "/sys/kernel/tracing"]).output();
    }
    // It ends once it has attached.
    let program = format!("usdt:{PROGRAM}:freestone:refill {{ @ = sum(arg1); }} interval:ms:10 {{ exit(); }}");
    let tried = Command::new("bpftrace").args(["-e", &program]).output().expect("bpftrace starts");
    if !tried.status.success() {
        skip(&format!("this kernel lets nobody attach: {}", String::from_utf8_lossy(&tried.stderr).trim()));
    }
    tried.status.success()
}

/// The scripts of `docs/probes`, by name.
fn scripts() -> Vec<String> {
    let names = std::fs::read_dir(documents()).expect("it is there").map(|entry| entry.expect("readable").file_name());
    let mut names: Vec<String> = names.filter_map(|name| Some(name.to_str()?.strip_suffix(".bt")?.to_owned())).collect();
    names.sort();
    names
}

/// The sum over a map's keys; 0 if there are none.
fn sum(map: Option<&Value>) -> u64 {
    let values = map.and_then(Value::as_object).into_iter().flat_map(|keys| keys.values());
    values.map(|value| value.as_u64().expect("a count")).sum()
}

#[test]
fn probes_and_counters_agree() {
    if !may_attach() {
        return;
    }
    let scripts = scripts();
    assert_eq!(scripts, ["limits", "refills", "releases", "samples", "slow-paths", "spans"], "new ones are to be compared below");
    let mut program = Waiting::start("work");
    let attached: Vec<Attached> = scripts.iter().map(|name| Attached::start(name, program.child.id())).collect();
    for (script, name) in attached.iter().zip(&scripts) {
        script.wait(name);
    }
    program.go_on();
    let said = until(&program.lines, "end of work", |line| line == "done");
    let counters: BTreeMap<&str, u64> = said
        .iter()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, count)| (name, count.parse().expect("a number")))
        .collect();
    println!("{counters:?}");
    // Scripts that print every second do so at least once.
    std::thread::sleep(Duration::from_millis(1500));
    let found: BTreeMap<&str, BTreeMap<String, Value>> =
        attached.into_iter().zip(&scripts).map(|(script, name)| (name.as_str(), script.end(name))).collect();
    assert!(program.end().success());

    // Everything in one place, by the names of the counters.
    let count = |script: &str, map: &str, key: &str| found[script].get(map).and_then(|map| map[key].as_u64()).unwrap_or(0);
    let mut compared = BTreeSet::new();
    let mut compare = |name: &str, traced: u64| {
        assert_eq!(traced, counters[name], "{name}: tracer and counter");
        compared.insert(name.to_owned());
    };
    for name in documented().keys().filter(|name| *name != "fatal") {
        compare(name, count("slow-paths", "@total", name));
    }
    for kind in ["at leisure", "assist", "all"] {
        for (map, of) in [("@releases", "releases"), ("@bytes", "bytes"), ("@ns", "ns")] {
            compare(&format!("{of} {kind}"), count("releases", map, kind));
        }
    }
    for kind in ["assist", "exceeded", "fuse", "refusal"] {
        compare(&format!("limits {kind}"), count("limits", "@limits", kind));
    }
    compare("refill", sum(found["refills"].get("@refills")));
    compare("flush", sum(found["refills"].get("@flushes")));
    compare("sample", sum(found["samples"].get("@samples")));
    compare("sample_end", sum(found["samples"].get("@ends")));
    compare("span_birth", sum(found["spans"].get("@born")));
    compare("span_death", sum(found["spans"].get("@died")));
    compare("slow", sum(found["releases"].get("@slow")));
    assert_eq!(compared, counters.keys().map(|&name| name.to_owned()).collect(), "every counter was compared");
    assert_eq!(count("slow-paths", "@total", "fatal"), 0);
    // And there was something to compare.
    for (name, least) in [
        ("refill", 100),
        ("flush", 100),
        ("sample", 10),
        ("sample_end", 10),
        ("span_birth", 100),
        ("span_death", 100),
        ("map", 1),
        ("unmap", 1),
        ("purge", 10),
        ("releases at leisure", 1),
        ("releases all", 4),
        ("limits assist", 1),
        ("limits exceeded", 1),
        ("limits fuse", 1),
        ("limits refusal", 1),
    ] {
        assert!(counters[name] >= least, "{name}: {}", counters[name]);
    }
    // A span is a span of its class, and blocks came in magazines.
    let blocks = sum(found["refills"].get("@refilled_blocks"));
    assert!(blocks > counters["refill"], "{blocks} blocks in {} refills", counters["refill"]);
    assert!(found["spans"].contains_key("@life_ms"), "lives were timed: {:?}", found["spans"]);
}

#[test]
fn the_last_probe_says_which_pointer() {
    if !may_attach() {
        return;
    }
    let mut program = Waiting::start("fatal");
    let attached = Attached::start("limits", program.child.id());
    attached.wait("limits");
    program.go_on();
    let line = program.errors.recv_timeout(PATIENCE).expect("it says why it ends");
    let pointer = line.strip_prefix("freestone: fatal: invalid free: ptr=").and_then(|rest| rest.split(' ').next());
    let pointer = pointer.unwrap_or_else(|| panic!("another line: {line}"));
    let status = program.end();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(libc::SIGABRT), "{status}");
    let probe = format!("fatal 6, pointer {pointer},");
    until(&attached.lines, &probe, |line| line.contains(&probe));
}
