//! Floor 13. `operator new` and `operator delete` of C++, in all their forms, under the names that the compiler gives them.
//!
//! When memory is out, C++ wants the new-handler called, and an exception thrown. Both belong to the C++ library in the process, so its own
//! operator takes over then: it asks us once more, and does the rest. We only have to leave before it does: what it throws must not meet a
//! frame of ours, so it is jumped to.
//!
//! A program may replace some operators and not others: the rest, says the standard, calls those. `delete[]` calls `delete`, and so does a `delete`
//! that is told a size, which compilers call since C++14 whether the program replaced that one or not. So every form but the plain ones goes by
//! the dynamic linker's table to the one it stands for, which costs a jump; if that is ours, it ends there. The forms of `new` that do not throw
//! cannot go that way, since what they would call throws: they look once whether all the others are ours, and leave it to the library if not.

use core::arch::asm;
use core::ffi::{CStr, c_void};
use core::mem::MaybeUninit;
use core::ptr;
use core::sync::atomic::{AtomicU8, Ordering::Relaxed};

use super::blocks::{allocate, allocate_aligned, check_size, release};
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
    last_words(&[
        "out of memory in ",
        name.to_str().unwrap_or("operator new"),
        ", and there is no C++ library to throw an exception",
    ]);
}

/// What the process calls by this name: ours, or the program's.
macro_rules! in_force {
    ($symbol:literal) => {{
        let operator: *const c_void;
        // SAFETY: reads the linker's entry of a function that is defined here.
        unsafe {
            asm!(
                concat!("mov {}, qword ptr [rip + ", $symbol, "@GOTPCREL]"),
                out(reg) operator,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        operator
    }};
}

/// Has the program replaced none of the operators that others stand for?
fn operators_are_ours() -> bool {
    const UNKNOWN: u8 = 0;
    const OURS: u8 = 1;
    const REPLACED: u8 = 2;
    static SEEN: AtomicU8 = AtomicU8::new(UNKNOWN);

    #[cold]
    fn look() -> u8 {
        let operators = [
            in_force!("_Znwm"),
            in_force!("_Znam"),
            in_force!("_ZnwmSt11align_val_t"),
            in_force!("_ZnamSt11align_val_t"),
            in_force!("_ZdlPv"),
            in_force!("_ZdaPv"),
            in_force!("_ZdlPvSt11align_val_t"),
            in_force!("_ZdaPvSt11align_val_t"),
        ];
        let own = object_of((&raw const SEEN).cast());
        if operators.into_iter().all(|operator| object_of(operator) == own) { OURS } else { REPLACED }
    }

    // Relaxed: whoever looks finds the same.
    let mut seen = SEEN.load(Relaxed);
    if seen == UNKNOWN {
        seen = look();
        SEEN.store(seen, Relaxed);
    }
    seen == OURS
}

/// Where the program or library that holds this address is loaded.
fn object_of(address: *const c_void) -> *mut c_void {
    let mut info = MaybeUninit::<libc::Dl_info>::uninit();
    // SAFETY: the place can be written to.
    if unsafe { libc::dladdr(address, info.as_mut_ptr()) } == 0 {
        return ptr::null_mut();
    }
    // SAFETY: written, since it was found.
    unsafe { info.assume_init() }.dli_fbase
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
    /// `operator new(size_t, const std::nothrow_t&)`.
    new_nothrow = "_ZnwmRKSt9nothrow_t" (size, _tag) => unless_replaced(|| allocate(size));
    /// `operator new[](size_t, const std::nothrow_t&)`.
    new_array_nothrow = "_ZnamRKSt9nothrow_t" (size, _tag) => unless_replaced(|| allocate(size));
    /// `operator new(size_t, std::align_val_t)`.
    new_aligned = "_ZnwmSt11align_val_t" (size, align) => allocate_aligned(size, align);
    /// `operator new(size_t, std::align_val_t, const std::nothrow_t&)`.
    new_aligned_nothrow = "_ZnwmSt11align_val_tRKSt9nothrow_t" (size, align, _tag) => unless_replaced(|| allocate_aligned(size, align));
    /// `operator new[](size_t, std::align_val_t, const std::nothrow_t&)`.
    new_array_aligned_nothrow = "_ZnamSt11align_val_tRKSt9nothrow_t" (size, align, _tag) => unless_replaced(|| allocate_aligned(size, align));
}

/// The attempt of an operator that does not throw; null, so that the library's is asked, if that has to call the program's.
#[inline(always)]
fn unless_replaced(attempt: impl FnOnce() -> *mut u8) -> *mut u8 {
    if operators_are_ours() { attempt() } else { ptr::null_mut() }
}

/// Forms of `operator new` that are another one by a second name, with the same arguments.
macro_rules! operators_new_again {
    ($($(#[$doc:meta])* $name:ident = $symbol:literal ($($argument:ident),*) as $plain:literal;)+) => {$(
        $(#[$doc])*
        ///
        /// # Safety
        ///
        /// - C++ calls it.
        #[unsafe(export_name = $symbol)]
        #[unsafe(naked)]
        pub unsafe extern "C" fn $name($($argument: usize),*) -> *mut c_void {
            // Not called: it may throw.
            core::arch::naked_asm!(concat!("jmp qword ptr [rip + ", $plain, "@GOTPCREL]"))
        }
    )+};
}

operators_new_again! {
    /// `operator new[](size_t)`.
    new_array = "_Znam" (_size) as "_Znwm";
    /// `operator new[](size_t, std::align_val_t)`.
    new_array_aligned = "_ZnamSt11align_val_t" (_size, _align) as "_ZnwmSt11align_val_t";
}

/// `operator delete(void*)`.
///
/// # Safety
///
/// - C++ calls it.
#[unsafe(export_name = "_ZdlPv")]
pub unsafe extern "C" fn delete(block: *mut c_void) {
    release(block.cast());
}

/// `operator delete(void*, std::align_val_t)`.
///
/// # Safety
///
/// - C++ calls it.
#[unsafe(export_name = "_ZdlPvSt11align_val_t")]
pub unsafe extern "C" fn delete_aligned(block: *mut c_void, _align: usize) {
    release(block.cast());
}

/// Programs that delete an object as another type say a wrong size, and have run for years on allocators that do not listen; so it is checked
/// only where that was asked for.
#[inline(always)]
fn check_deleted(block: *mut c_void, size: usize, align: usize) {
    if (CHECKED || heap::checks_every_exchange()) && operators_are_ours() {
        check_size(block.cast(), size, align);
    }
}

/// Forms of `operator delete` that are another one with something more to say.
macro_rules! operators_delete {
    ($($(#[$doc:meta])* $name:ident = $symbol:literal ($($argument:ident),*) as $plain:literal ($($passed:ident),*) $(checks ($size:expr, $align:expr))?;)+) => {$(
        $(#[$doc])*
        ///
        /// # Safety
        ///
        /// - C++ calls it.
        #[unsafe(export_name = $symbol)]
        pub unsafe extern "C" fn $name(block: *mut c_void, $($argument: usize),*) {
            $(check_deleted(block, $size, $align);)?
            let plain = in_force!($plain);
            // SAFETY: an operator of this name has these arguments.
            let plain: unsafe extern "C" fn(*mut c_void, $(operators_delete!(@ $passed)),*) = unsafe { core::mem::transmute(plain) };
            // SAFETY: the caller's block, as it is.
            unsafe { plain(block, $($passed),*) };
        }
    )+};
    (@ $passed:ident) => { usize };
}

operators_delete! {
    /// `operator delete[](void*)`.
    delete_array = "_ZdaPv" () as "_ZdlPv" ();
    /// `operator delete(void*, const std::nothrow_t&)`.
    delete_nothrow = "_ZdlPvRKSt9nothrow_t" (_tag) as "_ZdlPv" ();
    /// `operator delete[](void*, const std::nothrow_t&)`.
    delete_array_nothrow = "_ZdaPvRKSt9nothrow_t" (_tag) as "_ZdaPv" ();
    /// `operator delete[](void*, std::align_val_t)`.
    delete_array_aligned = "_ZdaPvSt11align_val_t" (align) as "_ZdlPvSt11align_val_t" (align);
    /// `operator delete(void*, std::align_val_t, const std::nothrow_t&)`.
    delete_aligned_nothrow = "_ZdlPvSt11align_val_tRKSt9nothrow_t" (align, _tag) as "_ZdlPvSt11align_val_t" (align);
    /// `operator delete[](void*, std::align_val_t, const std::nothrow_t&)`.
    delete_array_aligned_nothrow = "_ZdaPvSt11align_val_tRKSt9nothrow_t" (align, _tag) as "_ZdaPvSt11align_val_t" (align);
    /// `operator delete(void*, size_t)`.
    delete_sized = "_ZdlPvm" (size) as "_ZdlPv" () checks (size, 1);
    /// `operator delete[](void*, size_t)`.
    delete_array_sized = "_ZdaPvm" (size) as "_ZdaPv" () checks (size, 1);
    /// `operator delete(void*, size_t, std::align_val_t)`.
    delete_sized_aligned = "_ZdlPvmSt11align_val_t" (size, align) as "_ZdlPvSt11align_val_t" (align) checks (size, align);
    /// `operator delete[](void*, size_t, std::align_val_t)`.
    delete_array_sized_aligned = "_ZdaPvmSt11align_val_t" (size, align) as "_ZdaPvSt11align_val_t" (align) checks (size, align);
}
