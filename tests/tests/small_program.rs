//! Most processes of a machine are small: what an allocator costs before it does anything good is paid by all of them. With 62 KiB live, a program on
//! Freestone may have at most 100 KiB more anonymous memory than one that allocates nothing, and at most 64 KiB more than on the system's allocator.
//!
//! Memory is measured, not time. The least of several runs counts: some pages come and go with the loader.

use std::path::Path;
use std::process::Command;

use freestone_tests::{Build, build, run};

const LIVE_BYTES: usize = 62 << 10;
const RUNS: usize = 30;

/// The least anonymous memory of several runs with so many bytes live.
fn resident(program: &Path, live: usize) -> usize {
    let one = |_| {
        let ending = run(Command::new(program).arg(live.to_string()));
        assert_eq!(ending.code, Some(0), "{ending:#?}");
        ending.out.trim().parse::<usize>().expect("a number of bytes")
    };
    (0..RUNS).map(one).min().expect("there are runs")
}

/// As users ship it: with debug assertions there is one table more.
#[test]
fn costs_little() {
    let freestone = build("small_program", Build::Release);
    let system = build("small_program_on_system", Build::Release);
    let (idle, busy) = (resident(&freestone, 0), resident(&freestone, LIVE_BYTES));
    let (system_idle, system_busy) = (resident(&system, 0), resident(&system, LIVE_BYTES));
    let kib = |bytes: usize| bytes as f64 / 1024.0;
    println!("on Freestone: {} KiB with nothing, {} KiB with 62 KiB live", kib(idle), kib(busy));
    println!("on the system's: {} KiB with nothing, {} KiB with 62 KiB live", kib(system_idle), kib(system_busy));
    assert!(idle > 0 && busy > idle, "{idle} and {busy} bytes: nothing was measured");
    assert!(busy - idle <= 100 << 10, "{} KiB more than with nothing", kib(busy - idle));
    // The goal is 32 KiB. 60 are reached: three pages of statics, six of records and magazines, two of tables, where glibc has one and a
    // half; see docs/decisions/0005-seed.md.
    assert!(busy <= system_busy + (64 << 10), "{} KiB, on the system's allocator {} KiB", kib(busy), kib(system_busy));
}
