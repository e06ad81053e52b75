//! Subject: mimalloc v3.

use std::process::ExitCode;

use freestone_bench::controls::Controls;
use mimalloc::MiMalloc;

#[global_allocator]
static GLOBAL: MiMalloc = MiMalloc;

unsafe extern "C" {
    fn mi_is_in_heap_region(pointer: *const std::ffi::c_void) -> bool;
    fn mi_version() -> std::ffi::c_int;
}

/// mimalloc knows which addresses lie in its heaps.
fn proof() -> Result<String, String> {
    let block = std::hint::black_box(Box::new([0_u8; 100]));
    // SAFETY: takes no argument.
    let version = unsafe { mi_version() };
    // SAFETY: the pointer is only looked at as a number.
    if !unsafe { mi_is_in_heap_region(std::ptr::from_ref(&*block).cast()) } {
        return Err("a boxed block is in none of its heaps".to_owned());
    }
    // Major, and two digits each for minor and patch; one digit each before 3.3.
    match version {
        300..400 => Ok(format!("{}.{}.{}", version / 100, version / 10 % 10, version % 10)),
        30_000..40_000 => Ok(format!("{}.{}.{}", version / 10_000, version / 100 % 100, version % 100)),
        _ => Err(format!("this is version {version}")),
    }
}

fn main() -> ExitCode {
    freestone_bench::subject::main("mimalloc", proof, Controls::NONE)
}
