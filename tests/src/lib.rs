//! What the scenarios share: seeds that replay, an oracle for walks, and children that are expected to die or to be poor.

use std::alloc::Layout;
use std::ffi::CStr;
use std::os::unix::process::CommandExt;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use freestone::Freestone;

mod block;
pub mod c;
pub mod oracle;
mod random;
mod small;
mod stopped;

pub use block::Block;
pub use random::Random;
pub use small::run_small_program;
pub use stopped::Stopped;

/// The seed of this run: from `SEED` in the environment, or one that differs from run to run. Printed, so that a failure can be replayed.
#[must_use]
pub fn seed() -> u64 {
    let chosen = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = chosen.unwrap_or_else(|| {
        let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        since_1970.as_nanos() as u64 ^ u64::from(std::process::id()) << 40
    });
    println!("replay with SEED={seed}");
    seed
}

/// Locks a mutex, also one whose holder panicked: that one has said so itself.
///
/// Under `ThreadSanitizer` without the standard library's waiting, which is not built for it: what comes after would look like a race.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    while cfg!(freestone_tsan) {
        match mutex.try_lock() {
            Ok(guard) => return guard,
            Err(TryLockError::Poisoned(poisoned)) => return poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => thread::yield_now(),
        }
    }
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps the tests of a binary apart that look at the same counts: one runs at a time, and begins when the threads of those before it are
/// past their ends. Such a thread gives its cache back after it has let go of the lock.
///
/// # Panics
///
/// When they are still there after a minute.
pub fn alone(allocator: &'static Freestone) -> MutexGuard<'static, ()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let alone = lock(&ONE_AT_A_TIME);
    drop(Block::new(allocator, Layout::new::<u64>()));
    let began = Instant::now();
    while let now = freestone::snapshot()
        && now.thread_records - now.thread_records_pooled > 1
    {
        assert!(
            began.elapsed() < Duration::from_mins(1),
            "other threads use the allocator: {} of {}",
            now.thread_records_pooled,
            now.thread_records
        );
        thread::yield_now();
    }
    alone
}

/// Waits for threads to end and collects what they have to say. A scope waits for its threads too, but not in a way that `ThreadSanitizer` sees.
///
/// # Panics
///
/// When one of them panicked, but not before all of them have ended.
pub fn join_all<'scope, T>(threads: impl IntoIterator<Item = ScopedJoinHandle<'scope, T>>) -> Vec<T> {
    let ended: Vec<thread::Result<T>> = threads.into_iter().map(ScopedJoinHandle::join).collect();
    ended.into_iter().map(|said| said.unwrap_or_else(|panic| resume_unwind(panic))).collect()
}

/// How a binary of this package is built for a test.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Build {
    /// As users ship it: optimised, no debug assertions, fat LTO.
    Release,
    /// Quickly, but without debug assertions, so that only what is always checked is checked.
    Plain,
    /// The same with the feature `checked`.
    Checked,
}

/// Builds a binary of this package and says where it is. Cargo knows what is up to date.
///
/// # Panics
///
/// When it does not build.
#[must_use]
pub fn build(binary: &str, build: Build) -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--package", "freestone-tests", "--bin", binary]);
    let (profile, folder) = match build {
        Build::Release => ("release", "release"),
        Build::Plain => ("plain", "plain"),
        Build::Checked => ("plain", "checked"),
    };
    let target = target_folder().join("scenarios").join(folder);
    command.args(["--profile", profile, "--target-dir"]).arg(&target);
    if build == Build::Checked {
        command.args(["--features", "checked"]);
    }
    // What the outer cargo set for this test must not change what is built here.
    command.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    let status = command.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo runs");
    assert!(status.success(), "{binary} does not build");
    target.join(profile).join(binary)
}

/// The folder that cargo builds into, as seen from a test: `target/debug/deps/test`.
fn target_folder() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows where it is");
    test.ancestors().nth(3).expect("a test lies three folders deep").to_path_buf()
}

/// How a child ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ending {
    /// Exit code, unless a signal ended it.
    pub code: Option<i32>,
    /// The signal, if one ended it.
    pub signal: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl From<Output> for Ending {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            signal: std::os::unix::process::ExitStatusExt::signal(&output.status),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// How long a child may take before it counts as hanging: far more than any of them needs.
const PATIENCE: Duration = Duration::from_mins(2);

/// Runs a child to its end. One that hangs is killed, and its [`Ending`] says signal 9.
///
/// A panic in a child prints no backtrace: that would allocate, and where memory is out the standard library then waits for itself.
///
/// # Panics
///
/// When it cannot be started.
#[must_use]
pub fn run(command: &mut Command) -> Ending {
    let command = command.env("RUST_BACKTRACE", "0").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.process_group(0).spawn().expect("the child starts");
    let pid = child.id();
    let (ended, end) = mpsc::channel::<()>();
    let watchdog = thread::spawn(move || {
        if end.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            // SAFETY: our child, which nobody has waited for in all that time, and those of its own that would keep its output open.
            unsafe { libc::kill(-pid.cast_signed(), libc::SIGKILL) };
        }
    });
    let output = child.wait_with_output().expect("the child can be waited for");
    drop(ended);
    watchdog.join().expect("the watchdog does not panic");
    output.into()
}

/// Plays a scenario of one of this crate's programs, without options from outside. It must come to its end; what it said is printed.
///
/// # Panics
///
/// When it does not.
pub fn scenario(program: &str, name: &str) -> Ending {
    let ending = run(Command::new(program).arg(name).env_remove("FREESTONE"));
    print!("{name}:\n{}", ending.out);
    assert_eq!(ending.code, Some(0), "{ending:#?}");
    // A scenario that cannot be played here says so.
    assert!(ending.out.ends_with("alive\n"), "{ending:#?}");
    ending
}

/// Waits for a state, however long that takes, up to a time that no machine needs. Says whether it came; allocates nothing.
///
/// The state is the claim, not the time.
#[must_use]
pub fn comes_true(patience: Duration, mut state: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    while !state() {
        if begun.elapsed() > patience {
            return false;
        }
        thread::sleep(Duration::from_millis(20));
    }
    true
}

/// How many threads the process has.
///
/// # Panics
///
/// When the kernel does not tell.
#[must_use]
pub fn thread_count() -> usize {
    std::fs::read_dir("/proc/self/task").expect("the kernel tells").count()
}

/// What the kernel says is resident and not backed by a file, in bytes. Allocates nothing.
///
/// Not from `/proc/self/status`, where kernels before 6.16 leave out what single processors have not handed in yet.
#[must_use]
pub fn resident_anonymous_bytes() -> usize {
    own_bytes(c"/proc/self/smaps_rollup", "Anonymous:")
}

/// What the kernel says is mapped, in bytes. Allocates nothing.
#[must_use]
pub fn mapped_bytes() -> usize {
    own_bytes(c"/proc/self/status", "VmSize:")
}

/// From now on the process may have so many bytes mapped (`RLIMIT_AS`). Allocates nothing.
///
/// # Panics
///
/// When the kernel refuses.
pub fn limit_address_space(bytes: usize) {
    let limit = libc::rlimit { rlim_cur: bytes as u64, rlim_max: bytes as u64 };
    // SAFETY: the limit is readable.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) }, 0);
}

/// The line of a file of the kernel's that begins like this, in bytes; 0 if there is none.
fn own_bytes(path: &CStr, name: &str) -> usize {
    let mut text = [0_u8; 4096];
    // SAFETY: the path ends with a zero byte.
    let file = unsafe { libc::open(path.as_ptr(), libc::O_RDONLY) };
    // SAFETY: the buffer is writable for its length.
    let length = unsafe { libc::read(file, text.as_mut_ptr().cast(), text.len()) };
    // SAFETY: opened above.
    unsafe { libc::close(file) };
    let text = std::str::from_utf8(&text[..usize::try_from(length).unwrap_or(0)]).unwrap_or("");
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("");
    line.trim().split(' ').next().and_then(|kib| kib.parse::<usize>().ok()).unwrap_or(0) * 1024
}
