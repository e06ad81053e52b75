//! Subject: Freestone.

use std::hint::black_box;
use std::process::ExitCode;

use freestone::Freestone;
use freestone_bench::controls::Controls;

#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

/// Freestone counts what it serves. All crates of the workspace have one version.
fn proof() -> Result<String, String> {
    let before = freestone::snapshot().allocations;
    for _ in 0..10 {
        drop(black_box(Box::new([0_u8; 100])));
    }
    match freestone::snapshot().allocations - before {
        10.. => Ok(env!("CARGO_PKG_VERSION").to_owned()),
        counted => Err(format!("of 10 boxes it served {counted}")),
    }
}

/// What Freestone offers a program besides memory.
const CONTROLS: Controls = Controls { set_memory_limit: None, thread_idle: None, observe: None, notes: None };

fn main() -> ExitCode {
    freestone_bench::subject::main("freestone", proof, CONTROLS)
}
