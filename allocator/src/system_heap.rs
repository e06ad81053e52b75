//! Floor 1. The allocator that the system came with, for programs that bypass this one.
//!
//! In a program that is whatever answers to `malloc`. The C face answers to that itself; there it is glibc's, under the names that glibc keeps
//! for such cases.

/// What `malloc` aligns to.
const MALLOC_ALIGN: usize = 16;

cfg_select! {
    freestone_c => { use glibc as c; }
    _ => { use libc as c; }
}

/// A block of glibc's, or null. Aligned to 16, or to `align` where that is more.
pub(crate) fn allocate(size: usize, align: usize) -> *mut u8 {
    if align <= MALLOC_ALIGN {
        // SAFETY: always allowed.
        return unsafe { c::malloc(size) }.cast();
    }
    // SAFETY: a power of two.
    unsafe { c::memalign(align, size) }.cast()
}

/// A zeroed block, aligned to 16, or null.
#[cfg(freestone_c)]
pub(crate) fn allocate_zeroed(size: usize) -> *mut u8 {
    // SAFETY: always allowed.
    unsafe { c::calloc(1, size) }.cast()
}

/// Takes a block of its own back.
///
/// # Safety
///
/// - `block` came from here, and the caller gives it up.
pub(crate) unsafe fn free(block: *mut u8) {
    // SAFETY: handed on to the caller.
    unsafe { c::free(block.cast()) };
}

/// Changes the size of a block; null: it is as it was.
///
/// # Safety
///
/// - `block` is null or came from here, and the caller gives it up unless the result is null.
#[cfg(freestone_c)]
pub(crate) unsafe fn reallocate(block: *mut u8, size: usize) -> *mut u8 {
    // SAFETY: handed on to the caller.
    unsafe { c::realloc(block.cast(), size) }.cast()
}

/// What a block of its own has.
///
/// # Safety
///
/// - `block` is a live block that came from here.
#[cfg(freestone_c)]
pub(crate) unsafe fn usable_bytes(block: *mut u8) -> usize {
    let theirs = function(c"malloc_usable_size");
    if theirs.is_null() {
        return 0;
    }
    // SAFETY: glibc's function of this name has this type.
    let theirs: unsafe extern "C" fn(*mut u8) -> usize = unsafe { core::mem::transmute(theirs) };
    // SAFETY: handed on to the caller.
    unsafe { theirs(block) }
}

/// A function of glibc's that has the same name as one of the C face, for what is asked so seldom that looking it up does not matter. Null where
/// there is none.
#[cfg(freestone_c)]
pub(crate) fn function(name: &core::ffi::CStr) -> *mut core::ffi::c_void {
    // SAFETY: the name ends with a zero byte.
    unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) }
}

/// glibc's functions under the names that are not replaced. Weak: a program that is linked statically, and thus against our `malloc` alone, has none.
#[cfg(freestone_c)]
mod glibc {
    use core::ffi::c_void;
    use core::mem::transmute;
    use core::ptr;

    macro_rules! weak {
        ($($name:ident as $symbol:literal: fn($($argument:ident: $type:ty),*) $(-> $result:ty, else $otherwise:expr)?;)+) => {$(
            pub(super) unsafe fn $name($($argument: $type),*) $(-> $result)? {
                let function: *const c_void;
                // SAFETY: reads the address of a function, or null, out of the library's own table.
                unsafe {
                    core::arch::asm!(
                        concat!(".weak ", $symbol),
                        concat!("mov {function}, qword ptr [rip + ", $symbol, "@GOTPCREL]"),
                        function = out(reg) function,
                        options(pure, readonly, nostack, preserves_flags),
                    );
                }
                if function.is_null() {
                    return $($otherwise)?;
                }
                // SAFETY: glibc's function of this name has this type.
                let function: unsafe extern "C" fn($($type),*) $(-> $result)? = unsafe { transmute(function) };
                // SAFETY: handed on to the caller.
                unsafe { function($($argument),*) }
            }
        )+};
    }

    weak! {
        malloc as "__libc_malloc": fn(size: usize) -> *mut c_void, else ptr::null_mut();
        calloc as "__libc_calloc": fn(count: usize, size: usize) -> *mut c_void, else ptr::null_mut();
        realloc as "__libc_realloc": fn(block: *mut c_void, size: usize) -> *mut c_void, else ptr::null_mut();
        memalign as "__libc_memalign": fn(align: usize, size: usize) -> *mut c_void, else ptr::null_mut();
        free as "__libc_free": fn(block: *mut c_void);
    }
}

/// Is there such an allocator?
pub(crate) fn exists() -> bool {
    if !cfg!(freestone_c) {
        return true;
    }
    let block = allocate(1, 1);
    // SAFETY: null or allocated above.
    unsafe { free(block) };
    !block.is_null()
}
