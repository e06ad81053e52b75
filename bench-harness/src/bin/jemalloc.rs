//! Subject: jemalloc 5.3.

use std::process::ExitCode;

use freestone_bench::controls::Controls;
use tikv_jemallocator::Jemalloc;

#[global_allocator]
static GLOBAL: Jemalloc = Jemalloc;

/// jemalloc knows the arena of every block it served, and of no other.
fn proof() -> Result<String, String> {
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
    if code == 0 { Ok(version()) } else { Err(format!("it does not know a boxed block (error {code})")) }
}

/// Such as `5.3.1`, without the commit behind it.
fn version() -> String {
    let mut text: *const libc::c_char = std::ptr::null();
    let mut length = size_of_val(&text);
    // SAFETY: writes a pointer of the length given, and only reads names.
    let code = unsafe {
        tikv_jemalloc_sys::mallctl(c"version".as_ptr(), (&raw mut text).cast(), &raw mut length, std::ptr::null_mut(), 0)
    };
    if code != 0 || text.is_null() {
        return "of unknown version".to_owned();
    }
    // SAFETY: a text that jemalloc never frees.
    let text = unsafe { std::ffi::CStr::from_ptr(text) }.to_string_lossy();
    text.split('-').next().unwrap_or_default().to_owned()
}

fn main() -> ExitCode {
    freestone_bench::subject::main("jemalloc", proof, Controls::NONE)
}
