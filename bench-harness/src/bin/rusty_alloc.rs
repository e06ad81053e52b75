//! Subject: rusty_alloc, mimalloc's design in Rust.

#[path = "../peers/rusty_alloc.rs"]
mod peer;

use std::process::ExitCode;

use freestone_bench::controls::Controls;
use rusty_alloc_api::RustyAlloc;

#[global_allocator]
static GLOBAL: RustyAlloc = RustyAlloc;

fn main() -> ExitCode {
    freestone_bench::subject::main("rusty-alloc", peer::proof, Controls::NONE)
}
