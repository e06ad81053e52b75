//! Subject: jemalloc 5.3.

use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static GLOBAL: Jemalloc = Jemalloc;

/// jemalloc knows the arena of every block it served, and of no other.
fn proof() -> Result<(), String> {
    let block = std::hint::black_box(Box::new([0_u8; 100]));
    let mut pointer = std::ptr::from_ref(&*block);
    let mut arena: libc::c_uint = 0;
    let mut length = size_of_val(&arena);
    // SAFETY: reads a pointer and writes an arena number, each of the length given.
    let code = unsafe {
        tikv_jemalloc_sys::mallctl(
            c"arenas.lookup".as_ptr(),
            (&raw mut arena).cast(),
            &raw mut length,
            (&raw mut pointer).cast(),
            size_of_val(&pointer),
        )
    };
    if code == 0 { Ok(()) } else { Err(format!("it does not know a boxed block (error {code})")) }
}

fn main() -> ExitCode {
    freestone_bench::subject::main("jemalloc", proof)
}
