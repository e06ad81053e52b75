//! Subject: Freestone.

#[path = "../peers/freestone.rs"]
mod peer;

use std::process::ExitCode;

use freestone::Freestone;

#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

fn main() -> ExitCode {
    freestone_bench::subject::main("freestone", peer::proof, peer::CONTROLS)
}
