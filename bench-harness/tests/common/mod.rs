//! What the tests of the command line share: runs of the harness, what it said, and empty folders.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Runs the harness to its end, with nothing preloaded.
pub(crate) fn harness(arguments: &[&str]) -> Output {
    let mut harness = Command::new(env!("CARGO_BIN_EXE_freestone-bench"));
    harness.args(arguments).env_remove("LD_PRELOAD").output().expect("the harness was built")
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text")
}

/// An empty folder.
pub(crate) fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("cargo gives tests a folder");
    folder
}
