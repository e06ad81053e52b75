//! Subject: rpmalloc 1.4.

#[path = "../peers/rpmalloc.rs"]
mod peer;

use std::process::ExitCode;

use freestone_bench::controls::Controls;
use rpmalloc::RpMalloc;

#[global_allocator]
static GLOBAL: RpMalloc = RpMalloc;

fn main() -> ExitCode {
    freestone_bench::subject::main("rpmalloc", peer::proof, Controls::NONE)
}
