//! What every subject's binary does: prove which allocator it runs on, run one workload, and say one line of JSON about it.

use std::ffi::CStr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value, json};

use crate::controls::Controls;
use crate::workload::{self, Context};

/// What a workload noted besides its time.
static NOTES: Mutex<Vec<(&str, u64)>> = Mutex::new(Vec::new());

fn notes() -> MutexGuard<'static, Vec<(&'static str, u64)>> {
    NOTES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes a figure under a name. The name says the unit, and the report goes by it: `_ns` at its end for time, `bytes`, `rss` or `after` in it
/// for memory; else it is a count. May allocate, so a workload that is not to does it later.
pub fn note(name: &'static str, figure: u64) {
    notes().push((name, figure));
}

/// Notes what is resident at this moment, in bytes, under a name.
pub fn note_resident(name: &'static str) {
    let resident = Memory::now().resident;
    note(name, resident);
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

/// The main function of a subject. `proof` shows that the named allocator is the one that serves `Box` and returns its version, or says what
/// it found instead; `controls` is what else it offers.
///
/// Arguments: workload, percent of the full number of operations, folder of the inputs.
#[must_use]
pub fn main(name: &str, proof: fn() -> Result<String, String>, controls: Controls) -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let workload = arguments.next().unwrap_or_default();
    let percent = arguments.next().and_then(|percent| percent.parse().ok()).unwrap_or(100);
    let inputs = PathBuf::from(arguments.next().unwrap_or_default());
    let Some(workload) = workload::by_name(&workload) else {
        eprintln!("there is no workload '{workload}'");
        return ExitCode::from(2);
    };
    let version = match proof() {
        Ok(version) => version,
        Err(found) => fail(&format!("this binary does not run on {name}: {found}")),
    };
    let outcome = (workload.run)(&Context { percent, inputs, controls });
    let memory = Memory::now();
    let cost = Cost::now();
    let notes: Map<String, Value> = notes().iter().map(|(name, figure)| ((*name).to_owned(), json!(figure))).collect();
    let line = json!({
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
    println!("{line}");
    ExitCode::SUCCESS
}
