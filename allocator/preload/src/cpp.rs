//! Floor 11. `operator new` and `operator delete` of C++, in all their forms, under the names that the compiler gives them.
//!
//! When memory is out, C++ wants the new-handler called, and an exception thrown. Both belong to the C++ library in the process, so its own
//! operator takes over then: it asks us once more, and does the rest. We only have to leave before it does: what it throws must not meet a
//! frame of ours, so it is jumped to.

use core::ffi::{CStr, c_void};

use super::{allocate, allocate_aligned, check_size, release};
use crate::config::CHECKED;
use crate::fatal::last_words;
use crate::heap;

/// The C++ library's own operator of this name.
#[cold]
unsafe extern "C" fn library_operator(name: *const core::ffi::c_char) -> *mut c_void {
    // SAFETY: the name ends with a zero byte.
    let found = unsafe { libc::dlsym(libc::RTLD_NEXT, name) };
    if !found.is_null() {
        return found;
    }
    // Loaded by a plugin, for nobody else to see.
    for library in [c"libstdc++.so.6", c"libc++abi.so.1", c"libc++.so.1"] {
        // SAFETY: the name ends with a zero byte; nothing is loaded that was not.
        let library = unsafe { libc::dlopen(library.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
        if !library.is_null() {
            // SAFETY: as above.
            let found = unsafe { libc::dlsym(library, name) };
            if !found.is_null() {
                return found;
            }
        }
    }
    // SAFETY: the name ends with a zero byte.
    let name = unsafe { CStr::from_ptr(name) };
    last_words(&["out of memory in ", name.to_str().unwrap_or("operator new"), ", and there is no C++ library to throw an exception"]);
}

/// Forms of `operator new`: the attempt is ours; if it fails the C++ library's operator of the same name is jumped to, with the same
/// arguments.
macro_rules! operators_new {
    ($($(#[$doc:meta])* $name:ident = $symbol:literal ($($argument:ident),*) => $attempt:expr;)+) => {$(
        $(#[$doc])*
        ///
        /// # Safety
        ///
        /// - C++ calls it.
        #[unsafe(export_name = $symbol)]
        pub unsafe extern "C" fn $name($($argument: usize),*) -> *mut c_void {
            let block: *mut u8 = $attempt;
            if block.is_null() {
                // SAFETY: its arguments are ours; a call in this place is a jump.
                return unsafe { failed::$name($($argument),*) };
            }
            block.cast()
        }
    )+

        mod failed {
            use core::ffi::c_void;
            $(
                #[cold]
                #[unsafe(naked)]
                pub(super) unsafe extern "C" fn $name($($argument: usize),*) -> *mut c_void {
                    core::arch::naked_asm!(
                        "push rdi",
                        "push rsi",
                        "push rdx",
                        "lea rdi, [rip + 2f]",
                        "call {find}",
                        "pop rdx",
                        "pop rsi",
                        "pop rdi",
                        "jmp rax",
                        concat!("2: .asciz \"", $symbol, "\""),
                        find = sym super::library_operator,
                    )
                }
            )+
        }
    };
}

operators_new! {
    /// `operator new(size_t)`.
    new = "_Znwm" (size) => allocate(size);
    /// `operator new[](size_t)`.
    new_array = "_Znam" (size) => allocate(size);
    /// `operator new(size_t, const std::nothrow_t&)`.
    new_nothrow = "_ZnwmRKSt9nothrow_t" (size, _tag) => allocate(size);
    /// `operator new[](size_t, const std::nothrow_t&)`.
    new_array_nothrow = "_ZnamRKSt9nothrow_t" (size, _tag) => allocate(size);
    /// `operator new(size_t, std::align_val_t)`.
    new_aligned = "_ZnwmSt11align_val_t" (size, align) => allocate_aligned(size, align);
    /// `operator new[](size_t, std::align_val_t)`.
    new_array_aligned = "_ZnamSt11align_val_t" (size, align) => allocate_aligned(size, align);
    /// `operator new(size_t, std::align_val_t, const std::nothrow_t&)`.
    new_aligned_nothrow = "_ZnwmSt11align_val_tRKSt9nothrow_t" (size, align, _tag) => allocate_aligned(size, align);
    /// `operator new[](size_t, std::align_val_t, const std::nothrow_t&)`.
    new_array_aligned_nothrow = "_ZnamSt11align_val_tRKSt9nothrow_t" (size, align, _tag) => allocate_aligned(size, align);
}

/// Forms of `operator delete` that say nothing but an address.
macro_rules! operators_delete {
    ($($(#[$doc:meta])* $name:ident = $symbol:literal ($($argument:ident),*);)+) => {$(
        $(#[$doc])*
        ///
        /// # Safety
        ///
        /// - C++ calls it.
        #[unsafe(export_name = $symbol)]
        pub unsafe extern "C" fn $name(block: *mut c_void, $($argument: usize),*) {
            release(block.cast());
        }
    )+};
}

operators_delete! {
    /// `operator delete(void*)`.
    delete = "_ZdlPv" ();
    /// `operator delete[](void*)`.
    delete_array = "_ZdaPv" ();
    /// `operator delete(void*, const std::nothrow_t&)`.
    delete_nothrow = "_ZdlPvRKSt9nothrow_t" (_tag);
    /// `operator delete[](void*, const std::nothrow_t&)`.
    delete_array_nothrow = "_ZdaPvRKSt9nothrow_t" (_tag);
    /// `operator delete(void*, std::align_val_t)`.
    delete_aligned = "_ZdlPvSt11align_val_t" (_align);
    /// `operator delete[](void*, std::align_val_t)`.
    delete_array_aligned = "_ZdaPvSt11align_val_t" (_align);
    /// `operator delete(void*, std::align_val_t, const std::nothrow_t&)`.
    delete_aligned_nothrow = "_ZdlPvSt11align_val_tRKSt9nothrow_t" (_align, _tag);
    /// `operator delete[](void*, std::align_val_t, const std::nothrow_t&)`.
    delete_array_aligned_nothrow = "_ZdaPvSt11align_val_tRKSt9nothrow_t" (_align, _tag);
}

/// Takes a block back whose size the caller says. Programs that delete an object as another type say a wrong one, and have run for years on
/// allocators that do not listen; so it is checked only where that was asked for.
#[inline(always)]
fn release_sized(block: *mut u8, size: usize, align: usize) {
    if CHECKED || heap::checks_every_exchange() {
        check_size(block, size, align);
    }
    release(block);
}

/// Forms of `operator delete` that also say the size.
macro_rules! operators_delete_sized {
    ($($(#[$doc:meta])* $name:ident = $symbol:literal ($($argument:ident),*) with $align:expr;)+) => {$(
        $(#[$doc])*
        ///
        /// # Safety
        ///
        /// - C++ calls it.
        #[unsafe(export_name = $symbol)]
        pub unsafe extern "C" fn $name(block: *mut c_void, size: usize, $($argument: usize),*) {
            release_sized(block.cast(), size, $align);
        }
    )+};
}

operators_delete_sized! {
    /// `operator delete(void*, size_t)`.
    delete_sized = "_ZdlPvm" () with 1;
    /// `operator delete[](void*, size_t)`.
    delete_array_sized = "_ZdaPvm" () with 1;
    /// `operator delete(void*, size_t, std::align_val_t)`.
    delete_sized_aligned = "_ZdlPvmSt11align_val_t" (align) with align;
    /// `operator delete[](void*, size_t, std::align_val_t)`.
    delete_array_sized_aligned = "_ZdaPvmSt11align_val_t" (align) with align;
}
