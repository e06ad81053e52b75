//! The library for programs that know nothing of it: where it is, and how a program is started on it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Builds the library and says where it is. Cargo knows what is up to date.
///
/// # Panics
///
/// When it does not build.
pub fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let target = super::target_folder().join("scenarios").join("preload");
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.args(["build", "--quiet", "--package", "freestone-preload", "--profile", "preload", "--target-dir"]).arg(&target);
        // What the outer cargo set for this test must not change what is built here.
        command.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
        let status = command.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo runs");
        assert!(status.success(), "the library does not build");
        target.join("preload").join("libfreestone.so")
    })
}
