//! Subject: snmalloc, from its cmake build.

use std::hint::black_box;
use std::process::ExitCode;

use freestone_bench::controls::Controls;
use snmalloc_rs::SnMalloc;

#[global_allocator]
static GLOBAL: SnMalloc = SnMalloc;

/// snmalloc's own count of what it took from the system follows what is asked for.
fn proof() -> Result<String, String> {
    let before = SnMalloc::memory_stats().peak_memory_usage;
    // Not touched, so that the proof does not show in the peak that is reported.
    drop(black_box(Vec::<u8>::with_capacity(64 << 20)));
    let after = SnMalloc::memory_stats().peak_memory_usage;
    if after - before >= 32 << 20 {
        Ok(version())
    } else {
        Err(format!("64 MiB raised its peak by {} bytes only", after - before))
    }
}

/// snmalloc itself has no version that a program can ask for, so its crate's, from the lock file.
fn version() -> String {
    const LOCK: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.lock"));
    let entry = LOCK.split("[[package]]").find(|entry| entry.contains("name = \"snmalloc-rs\""));
    let version = entry.and_then(|entry| entry.split("version = \"").nth(1)).and_then(|rest| rest.split('"').next());
    format!("snmalloc-rs {}", version.unwrap_or("of unknown version"))
}

fn main() -> ExitCode {
    freestone_bench::subject::main("snmalloc", proof, Controls::NONE)
}
