//! Floor 13. `malloc` and its family, as glibc 2.36 and C23 have them. Where these differ, or leave a choice:
//!
//! | call | here |
//! |---|---|
//! | `malloc(0)` | a block of its own that cannot be touched (`zero_size:usable`: a block of 16 bytes) |
//! | `realloc(p, 0)` | frees `p`, returns null, keeps `errno`; undefined in C23, and so in glibc |
//! | `free`, and any success | `errno` is kept |
//! | no memory, or a size that nobody has | null and `ENOMEM` |
//! | `memalign` | an alignment that is no power of two is rounded up to one, and one that cannot be is `EINVAL`, as in glibc |
//! | `aligned_alloc` | `EINVAL` for such an alignment, as in glibc 2.38; the size may be anything, as in C17 |
//! | `posix_memalign` | `EINVAL` as well if the alignment is no multiple of `sizeof(void*)`; `errno` is kept, the place is not written on failure |
//! | `free_sized`, `free_aligned_sized` | the process ends if the block is of another class than these bytes would be |
//!
//! Nothing here is a point of cancellation, and nothing may be called from a signal handler, with one promise for who does it all the same: it does
//! not hang, but it may get null, and what it frees may be lost.

use core::ffi::{c_int, c_void};
use core::ptr;

use super::blocks::{Block, allocate, allocate_aligned, allocate_zeroed, check_size, no_memory, reallocate, release};
use crate::heap;
use crate::os;
use crate::system_heap;

/// `size` bytes.
#[unsafe(no_mangle)]
pub extern "C" fn malloc(size: usize) -> *mut c_void {
    allocate(size).cast()
}

/// Takes a block back.
///
/// # Safety
///
/// - `block` is null, or a live block of this allocator, and the caller gives it up.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free(block: *mut c_void) {
    release(block.cast());
}

/// As [`free`].
///
/// # Safety
///
/// - As for [`free`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cfree(block: *mut c_void) {
    release(block.cast());
}

/// As [`free`], of a block that was allocated with this size.
///
/// # Safety
///
/// - As for [`free`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free_sized(block: *mut c_void, size: usize) {
    check_size(block.cast(), size, 1);
    release(block.cast());
}

/// As [`free`], of a block that was allocated with this alignment and size.
///
/// # Safety
///
/// - As for [`free`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free_aligned_sized(block: *mut c_void, align: usize, size: usize) {
    check_size(block.cast(), size, align);
    release(block.cast());
}

/// `count` times `size` bytes, all zero.
#[unsafe(no_mangle)]
pub extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    count.checked_mul(size).map_or_else(no_memory, allocate_zeroed).cast()
}

/// Makes a block larger or smaller. Null: there is no memory, and the block is as it was.
///
/// # Safety
///
/// - As for [`free`], unless the result is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realloc(block: *mut c_void, size: usize) -> *mut c_void {
    if block.is_null() {
        return allocate(size).cast();
    }
    if size == 0 {
        release(block.cast());
        return ptr::null_mut();
    }
    reallocate(block.cast(), size).cast()
}

/// As [`realloc`], to `count` times `size` bytes.
///
/// # Safety
///
/// - As for [`realloc`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn reallocarray(block: *mut c_void, count: usize, size: usize) -> *mut c_void {
    match count.checked_mul(size) {
        // SAFETY: handed on to the caller.
        Some(bytes) => unsafe { realloc(block, bytes) },
        None => no_memory().cast(),
    }
}

/// `size` bytes, aligned.
#[unsafe(no_mangle)]
pub extern "C" fn aligned_alloc(align: usize, size: usize) -> *mut c_void {
    if !align.is_power_of_two() {
        return no_such_alignment();
    }
    allocate_aligned(size, align).cast()
}

/// Null and `EINVAL`.
#[cold]
fn no_such_alignment() -> *mut c_void {
    os::set_errno(libc::EINVAL);
    ptr::null_mut()
}

/// As [`aligned_alloc`], with an alignment that is rounded up to a power of two.
#[unsafe(no_mangle)]
pub extern "C" fn memalign(align: usize, size: usize) -> *mut c_void {
    align.checked_next_power_of_two().map_or_else(no_such_alignment, |align| allocate_aligned(size, align).cast())
}

/// As [`aligned_alloc`]; says `EINVAL` or `ENOMEM` as its result.
///
/// # Safety
///
/// - `place` can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn posix_memalign(place: *mut *mut c_void, align: usize, size: usize) -> c_int {
    if !align.is_power_of_two() || align < size_of::<*mut c_void>() {
        return libc::EINVAL;
    }
    let errno = os::KeepErrno::new();
    let block = allocate_aligned(size, align);
    drop(errno);
    if block.is_null() {
        return libc::ENOMEM;
    }
    // SAFETY: handed on to the caller.
    unsafe { place.write(block.cast()) };
    0
}

/// `size` bytes, aligned to a page.
#[unsafe(no_mangle)]
pub extern "C" fn valloc(size: usize) -> *mut c_void {
    allocate_aligned(size, os::page_bytes()).cast()
}

/// Whole pages, at least one.
#[unsafe(no_mangle)]
pub extern "C" fn pvalloc(size: usize) -> *mut c_void {
    let page = os::page_bytes();
    size.max(1).checked_next_multiple_of(page).map_or_else(no_memory, |size| allocate_aligned(size, page)).cast()
}

/// How many bytes of the block may be used: all that it has. 0 of null, and of `malloc(0)`.
///
/// # Safety
///
/// - `block` is null or a live block of this allocator.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn malloc_usable_size(block: *mut c_void) -> usize {
    if block.is_null() {
        return 0;
    }
    if heap::inline_class_at(block.addr()).is_none() && heap::is_bypassed(&super::blocks::OPTIONS) {
        // SAFETY: glibc's function of this name has this type, and all blocks are its.
        return unsafe { system_heap::usable_bytes(block.cast()) };
    }
    Block::at(block.addr()).bytes()
}
