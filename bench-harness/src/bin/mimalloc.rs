//! Subject: mimalloc v3.

use std::process::ExitCode;

use mimalloc::MiMalloc;

#[global_allocator]
static GLOBAL: MiMalloc = MiMalloc;

unsafe extern "C" {
    fn mi_is_in_heap_region(pointer: *const std::ffi::c_void) -> bool;
    fn mi_version() -> std::ffi::c_int;
}

/// mimalloc knows which addresses lie in its heaps.
fn proof() -> Result<(), String> {
    let block = std::hint::black_box(Box::new([0_u8; 100]));
    // SAFETY: takes no argument.
    let version = unsafe { mi_version() };
    // SAFETY: the pointer is only looked at as a number.
    if !unsafe { mi_is_in_heap_region(std::ptr::from_ref(&*block).cast()) } {
        return Err("a boxed block is in none of its heaps".to_owned());
    }
    if (300..400).contains(&version) || (30000..40000).contains(&version) {
        Ok(())
    } else {
        Err(format!("this is version {version}"))
    }
}

fn main() -> ExitCode {
    freestone_bench::subject::main("mimalloc", proof)
}
