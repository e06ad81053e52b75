//! Subject: jemalloc 5.3 that keeps books.

#[path = "../peers/jemalloc.rs"]
mod peer;

use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static GLOBAL: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    freestone_bench::subject::main("jemalloc-stats", peer::books::proof, peer::books::CONTROLS)
}
