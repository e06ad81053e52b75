//! Subject: snmalloc, from its cmake build.

#[path = "../peers/snmalloc.rs"]
mod peer;

use std::process::ExitCode;

use freestone_bench::controls::Controls;
use snmalloc_rs::SnMalloc;

#[global_allocator]
static GLOBAL: SnMalloc = SnMalloc;

fn main() -> ExitCode {
    freestone_bench::subject::main("snmalloc", peer::proof, Controls::NONE)
}
