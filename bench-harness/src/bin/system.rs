//! Subject: the allocator of the C library.

#[path = "../peers/system.rs"]
mod peer;

use std::alloc::System;
use std::process::ExitCode;

#[global_allocator]
static GLOBAL: System = System;

fn main() -> ExitCode {
    freestone_bench::subject::main("system", peer::proof, peer::CONTROLS)
}
