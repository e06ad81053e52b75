//! Subject: stoolap-jemalloc, jemalloc's design in Rust.

#[path = "../peers/stoolap_jemalloc.rs"]
mod peer;

use std::process::ExitCode;

use freestone_bench::controls::Controls;
use stoolap_jemalloc::Jemalloc;

#[global_allocator]
static GLOBAL: Jemalloc = Jemalloc::new();

fn main() -> ExitCode {
    freestone_bench::subject::main("stoolap-jemalloc", peer::proof, Controls::NONE)
}
