//! Subject: Freestone that checks every free at the call.

#[path = "../peers/freestone.rs"]
mod peer;

use std::process::ExitCode;

use freestone::Freestone;

#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

fn main() -> ExitCode {
    freestone_bench::subject::main("freestone-checked", peer::proof_of_checked, peer::CONTROLS)
}
