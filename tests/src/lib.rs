//! What the scenarios share: seeds that replay, an oracle for walks, and children that are expected to die or to be poor.

use std::path::PathBuf;
use std::process::{Command, Output};

pub mod oracle;
mod random;

pub use random::Random;

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

/// Runs a child to its end.
///
/// # Panics
///
/// When it cannot be started.
#[must_use]
pub fn run(command: &mut Command) -> Ending {
    command.output().expect("the child starts").into()
}

/// What the kernel says is resident and not backed by a file, in bytes. Allocates nothing.
#[must_use]
pub fn resident_anonymous_bytes() -> usize {
    let mut text = [0_u8; 4096];
    // SAFETY: the path ends with a zero byte.
    let file = unsafe { libc::open(c"/proc/self/status".as_ptr(), libc::O_RDONLY) };
    // SAFETY: the buffer is writable for its length.
    let length = unsafe { libc::read(file, text.as_mut_ptr().cast(), text.len()) };
    // SAFETY: opened above.
    unsafe { libc::close(file) };
    let text = std::str::from_utf8(&text[..usize::try_from(length).unwrap_or(0)]).unwrap_or("");
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap_or("");
    line.trim().split(' ').next().and_then(|kib| kib.parse::<usize>().ok()).unwrap_or(0) * 1024
}
