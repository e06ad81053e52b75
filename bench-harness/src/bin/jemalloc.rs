//! Subject: jemalloc 5.3.

#[path = "../peers/jemalloc.rs"]
mod peer;

use std::process::ExitCode;

use freestone_bench::controls::Controls;
use tikv_jemallocator::Jemalloc;

#[global_allocator]
static GLOBAL: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    freestone_bench::subject::main("jemalloc", peer::proof, Controls::NONE)
}
