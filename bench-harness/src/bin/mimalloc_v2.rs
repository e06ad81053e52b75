//! Subject: mimalloc v2.

#[path = "../peers/mimalloc.rs"]
mod peer;

use std::process::ExitCode;

use freestone_bench::controls::Controls;
use mimalloc::MiMalloc;

#[global_allocator]
static GLOBAL: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    freestone_bench::subject::main("mimalloc-v2", peer::proof_of_v2, Controls::NONE)
}
