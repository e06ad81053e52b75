//! Does mimalloc serve this program, and which?

use std::ffi::{c_int, c_void};
use std::hint::black_box;

unsafe extern "C" {
    fn mi_is_in_heap_region(pointer: *const c_void) -> bool;
    safe fn mi_version() -> c_int;
}

/// mimalloc knows which addresses lie in its heaps.
pub(crate) fn boxes() -> Result<(), String> {
    let block = black_box(Box::new([0_u8; 100]));
    // SAFETY: the pointer is only looked at as a number.
    let is_its = unsafe { mi_is_in_heap_region(std::ptr::from_ref(&*block).cast()) };
    if is_its { Ok(()) } else { Err("a boxed block is in none of its heaps".to_owned()) }
}

/// Major, minor and patch: of two digits each but for the first, or of one digit each before 2.3.2 and 3.3.
pub(crate) fn version() -> [c_int; 3] {
    match mi_version() {
        version @ 10_000.. => [version / 10_000, version / 100 % 100, version % 100],
        version => [version / 100, version / 10 % 10, version % 10],
    }
}
