//! Subject: mimalloc v3.

#[path = "../peers/mimalloc.rs"]
mod peer;

use std::process::ExitCode;

use freestone_bench::controls::Controls;
use mimalloc::MiMalloc;

#[global_allocator]
static GLOBAL: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    freestone_bench::subject::main("mimalloc", peer::proof_of_v3, Controls::NONE)
}
