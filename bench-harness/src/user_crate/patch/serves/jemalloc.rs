//! Does jemalloc serve this program, and which?

use std::ffi::{CStr, c_char, c_uint};
use std::hint::black_box;
use std::ptr;

use tikv_jemalloc_sys::mallctl;

/// jemalloc knows the arena of every block it served, and of no other.
pub(crate) fn boxes() -> Result<(), String> {
    let block = black_box(Box::new([0_u8; 100]));
    let mut pointer = ptr::from_ref(&*block);
    let mut arena: c_uint = 0;
    let mut length = size_of_val(&arena);
    // SAFETY: reads a pointer and writes an arena number, each of the length given.
    let code = unsafe {
        mallctl(
            c"arenas.lookup".as_ptr(),
            (&raw mut arena).cast(),
            &raw mut length,
            (&raw mut pointer).cast(),
            size_of_val(&pointer),
        )
    };
    if code == 0 { Ok(()) } else { Err(format!("it does not know a boxed block (error {code})")) }
}

/// Such as `5.3.1`, without the commit behind it.
pub(crate) fn version() -> String {
    let mut text: *const c_char = ptr::null();
    let mut length = size_of_val(&text);
    // SAFETY: writes a pointer of the length given, and only reads names.
    let code = unsafe { mallctl(c"version".as_ptr(), (&raw mut text).cast(), &raw mut length, ptr::null_mut(), 0) };
    if code != 0 || text.is_null() {
        return "of unknown version".to_owned();
    }
    // SAFETY: a text that jemalloc never frees.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    text.split('-').next().unwrap_or_default().to_owned()
}
