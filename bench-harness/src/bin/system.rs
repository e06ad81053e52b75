//! Subject: the allocator of the C library.

use std::alloc::System;
use std::process::ExitCode;

use freestone_bench::controls::Controls;
use freestone_bench::subject::c_library;

#[global_allocator]
static GLOBAL: System = System;

/// A small block of the main thread lies in the kernel's `[heap]` only if the C library's allocator served it.
fn proof() -> Result<String, String> {
    let block = std::hint::black_box(Box::new([0_u8; 100]));
    let address = std::ptr::from_ref(&*block).addr();
    let maps = std::fs::read_to_string("/proc/self/maps").map_err(|error| error.to_string())?;
    let heap = maps.lines().find(|line| line.ends_with("[heap]")).ok_or("the process has no [heap]")?;
    let (low, high) = heap.split(' ').next().and_then(|range| range.split_once('-')).ok_or("unreadable map")?;
    let bound = |text: &str| usize::from_str_radix(text, 16).map_err(|error| error.to_string());
    if (bound(low)?..bound(high)?).contains(&address) {
        Ok(c_library())
    } else {
        Err(format!("{address:#x} lies outside [heap]"))
    }
}

fn main() -> ExitCode {
    freestone_bench::subject::main("system", proof, Controls::NONE)
}
