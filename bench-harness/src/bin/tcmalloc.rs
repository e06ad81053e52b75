//! Subject: TCMalloc, with the thread in the background that its readme begins with.

#[path = "../peers/tcmalloc.rs"]
mod peer;

use std::process::ExitCode;

use tcmalloc_better::TCMalloc;

#[global_allocator]
static GLOBAL: TCMalloc = TCMalloc;

fn main() -> ExitCode {
    freestone_bench::subject::main("tcmalloc", peer::proof, peer::CONTROLS)
}
