//! What every subject's binary does: prove which allocator it runs on, run one workload, and say one line of JSON about it.

use std::ffi::CStr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde_json::{Map, Value, json};

use crate::controls::Controls;
use crate::distribution::Distribution;
use crate::workload::parameters::Parameters;
use crate::workload::{self, Context, turns};

/// What a workload noted besides its time.
static NOTES: Mutex<Vec<(&str, u64)>> = Mutex::new(Vec::new());

fn notes() -> MutexGuard<'static, Vec<(&'static str, u64)>> {
    NOTES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes a figure under a name. The name says the unit, and the report goes by it: `_ns` at its end for time, `bytes` or `rss` in it
/// for memory; else it is a count. May allocate, so a workload that is not to does it later.
pub fn note(name: &'static str, figure: u64) {
    notes().push((name, figure));
}

/// How long single operations of a workload took, by kind.
static LATENCIES: Mutex<Vec<(&str, Distribution)>> = Mutex::new(Vec::new());

fn latencies() -> MutexGuard<'static, Vec<(&'static str, Distribution)>> {
    LATENCIES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes how long operations of one kind took. A kind is noted once.
pub fn note_latency(kind: &'static str, distribution: Distribution) {
    latencies().push((kind, distribution));
}

/// The C library, with its version where it says one.
#[cfg(target_env = "gnu")]
#[must_use]
pub fn c_library() -> String {
    // SAFETY: takes no argument.
    let text = unsafe { libc::gnu_get_libc_version() };
    // SAFETY: a text that is never freed.
    format!("glibc {}", unsafe { CStr::from_ptr(text) }.to_string_lossy())
}

/// The C library.
#[cfg(not(target_env = "gnu"))]
#[must_use]
pub fn c_library() -> String {
    "of an unnamed C library".to_owned()
}

/// The version of a crate in the lock file, which is what subjects are built from. Constant, so that it costs a subject no memory.
#[must_use]
pub const fn locked(package: &str) -> Option<&'static str> {
    const LOCK: &[u8] = include_bytes!("../../Cargo.lock");
    const NAME: &[u8] = b"\nname = \"";
    const VERSION: &[u8] = b"\"\nversion = \"";
    let mut at = 0;
    while at + NAME.len() < LOCK.len() {
        // Where a line begins: what follows it is compared at once, or this would take a compiler seconds.
        if LOCK[at] == b'\n' && LOCK[at + 1] == b'n' && is_at(LOCK, at, NAME) {
            let name = at + NAME.len();
            let end = name + package.len();
            if is_at(LOCK, name, package.as_bytes()) && is_at(LOCK, end, VERSION) {
                let mut quote = end + VERSION.len();
                while LOCK[quote] != b'"' {
                    quote += 1;
                }
                let (until, _) = LOCK.split_at(quote);
                let (_, version) = until.split_at(end + VERSION.len());
                return match std::str::from_utf8(version) {
                    Ok(version) => Some(version),
                    Err(_) => None,
                };
            }
        }
        at += 1;
    }
    None
}

/// Does `text` have `part` at this place?
const fn is_at(text: &[u8], at: usize, part: &[u8]) -> bool {
    if text.len() < at + part.len() {
        return false;
    }
    let mut index = 0;
    while index < part.len() {
        if text[at + index] != part[index] {
            return false;
        }
        index += 1;
    }
    true
}

/// Ends the process with one sentence: the run counts as failed.
pub fn fail(sentence: &str) -> ! {
    eprintln!("{sentence}");
    std::process::exit(3)
}

/// What the kernel says of the process, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Memory {
    /// `VmHWM`: the most that was ever resident. Not `ru_maxrss`, which a child inherits from its parent.
    pub peak: u64,
    /// `VmRSS`.
    pub resident: u64,
    /// `RssAnon`: of that, what no file backs.
    pub anonymous: u64,
}

impl Memory {
    /// Reads `/proc/self/status` into a buffer on the stack, so that reading costs none of what it measures.
    #[must_use]
    pub fn now() -> Self {
        let mut text = [0_u8; 4096];
        let length = read_file(c"/proc/self/status", &mut text);
        let text = std::str::from_utf8(&text[..length]).unwrap_or("");
        let line = |name: &str| {
            let rest = text.lines().find_map(|line| line.strip_prefix(name));
            let kib = rest.and_then(|rest| rest.trim().split(' ').next()).and_then(|number| number.parse::<u64>().ok());
            kib.unwrap_or(0) * 1024
        };
        Self { peak: line("VmHWM:"), resident: line("VmRSS:"), anonymous: line("RssAnon:") }
    }
}

fn read_file(path: &CStr, into: &mut [u8]) -> usize {
    // SAFETY: the path ends with a zero byte.
    let file = unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
    if file < 0 {
        return 0;
    }
    // SAFETY: `into` is writable for its length.
    let length = unsafe { libc::read(file, into.as_mut_ptr().cast(), into.len()) };
    // SAFETY: opened above.
    unsafe { libc::close(file) };
    usize::try_from(length).unwrap_or(0)
}

/// What the process has cost until now, all its threads together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cost {
    /// Page faults served from memory.
    pub minor_faults: u64,
    /// Page faults that waited for a disk.
    pub major_faults: u64,
    /// Processor time in nanoseconds, the kernel's part included.
    pub cpu_nanos: u64,
}

impl Cost {
    /// Asks the kernel.
    #[must_use]
    pub fn now() -> Self {
        // SAFETY: all zeros is a valid `rusage`.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: `usage` is a valid place to write to.
        unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
        let nanos = |time: libc::timeval| time.tv_sec as u64 * 1_000_000_000 + time.tv_usec as u64 * 1_000;
        Self {
            minor_faults: usage.ru_minflt as u64,
            major_faults: usage.ru_majflt as u64,
            cpu_nanos: nanos(usage.ru_utime) + nanos(usage.ru_stime),
        }
    }
}

/// Notes what the allocator's own books say, if it keeps any.
fn note_books(controls: &Controls) {
    if let Some(bytes) = controls.heap_in_use.and_then(|ask| ask()) {
        note(HEAP_IN_USE, bytes);
    }
    if let Some(count) = controls.allocations.map(|ask| ask()) {
        note(ALLOCATIONS, count);
    }
    if let Some(tell) = controls.books {
        tell(&mut |name, figure| note(name, figure));
    }
}

/// The note of what the program holds at the end, as the allocator sees it.
pub const HEAP_IN_USE: &str = "heap_in_use_bytes";
/// The note of how many allocations there were.
pub const ALLOCATIONS: &str = "allocations";

/// What a subject is told that runs on a simulated processor, whose kernel does not show everything that a proof asks for: the same binary has proved
/// itself outside, or it would not be here.
pub const SIMULATED: (&str, &str) = ("simulated", "yes");

/// Is the clock that of `bench-harness/repeatable`? No other one takes the same step eight times.
fn clock_goes_by_looks() -> bool {
    let looks: [Instant; 9] = std::array::from_fn(|_| Instant::now());
    let mut steps = looks.windows(2).map(|pair| pair[1] - pair[0]);
    steps.next().is_some_and(|first| !first.is_zero() && steps.all(|step| step == first))
}

/// The main function of a subject. `proof` shows that the named allocator is the one that serves `Box` and returns its version, or says what
/// it found instead; `controls` is what else it offers.
///
/// Arguments: workload, percent of the full number of operations, folder of the inputs, then what was chosen about the workload, `NAME=VALUE`.
#[must_use]
pub fn main(name: &str, proof: fn() -> Result<String, String>, controls: Controls) -> ExitCode {
    // Whoever measures it may be killed; nobody would end it then.
    // SAFETY: no memory is involved.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    let mut arguments = std::env::args().skip(1);
    let workload = arguments.next().unwrap_or_default();
    let percent = arguments.next().and_then(|percent| percent.parse().ok()).unwrap_or(100);
    let inputs = PathBuf::from(arguments.next().unwrap_or_default());
    let chosen = arguments.filter_map(|word| word.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())));
    let mut chosen: Vec<(String, String)> = chosen.collect();
    if let Some(place) = chosen.iter().position(|(name, _)| name == turns::PROCESSOR) {
        let (_, processor) = chosen.remove(place);
        let shared = processor.parse().map_err(std::io::Error::other).and_then(turns::share);
        if let Err(error) = shared {
            fail(&format!("processor {processor} cannot be shared: {error}"));
        }
    }
    let words = chosen.len();
    chosen.retain(|(name, value)| (&**name, &**value) != SIMULATED);
    let is_simulated = chosen.len() < words;
    let parameters = Parameters::new(chosen);
    let Some(workload) = workload::by_name(&workload) else {
        eprintln!("there is no workload '{workload}'");
        return ExitCode::from(2);
    };
    if is_simulated && !clock_goes_by_looks() {
        fail("its instructions would depend on the clock: the library that makes time repeatable was not preloaded");
    }
    let version = match proof() {
        Ok(version) => version,
        Err(_) if is_simulated => "as proved before".to_owned(),
        Err(found) => fail(&format!("this binary does not run on {name}: {found}")),
    };
    let outcome = (workload.run)(&Context { percent, inputs, controls, parameters });
    let memory = Memory::now();
    let cost = Cost::now();
    // Behind everything that is measured: looking may take memory, and time.
    note_books(&controls);
    let notes: Map<String, Value> = notes().iter().map(|(name, figure)| ((*name).to_owned(), json!(figure))).collect();
    let latencies: Map<String, Value> = latencies().iter().map(|(kind, times)| ((*kind).to_owned(), json!(times))).collect();
    let mut line = json!({
        "subject": name,
        "version": version,
        "workload": workload.name,
        "percent": percent,
        "operations": outcome.operations,
        "nanos": u64::try_from(outcome.elapsed.as_nanos()).unwrap_or(u64::MAX),
        "checksum": format!("{:016x}", outcome.checksum),
        "peak_rss_bytes": memory.peak,
        "anonymous_bytes": memory.anonymous,
        "minor_faults": cost.minor_faults,
        "major_faults": cost.major_faults,
        "notes": notes,
    });
    if !latencies.is_empty() {
        line["latencies"] = Value::Object(latencies);
    }
    println!("{line}");
    ExitCode::SUCCESS
}
