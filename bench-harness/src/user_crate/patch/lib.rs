//! Brings one allocator into a program, the one that a feature names, and proves when it is asked to that this one serves the program.
//!
//! `freestone-bench cargo` writes this crate beside the copy of the program's sources. The copy registers `ALLOCATOR` in its root, so the static
//! there has the allocator's own type, with nothing in between.

#[cfg(feature = "system")]
#[path = "serves/system.rs"]
mod serves;
#[cfg(feature = "system")]
mod chosen {
    pub use std::alloc::System as Allocator;

    pub const ALLOCATOR: Allocator = Allocator;

    #[cfg(target_env = "gnu")]
    pub fn version() -> String {
        unsafe extern "C" {
            safe fn gnu_get_libc_version() -> *const std::ffi::c_char;
        }
        // SAFETY: a text that is never freed.
        format!("glibc {}", unsafe { std::ffi::CStr::from_ptr(gnu_get_libc_version()) }.to_string_lossy())
    }

    #[cfg(not(target_env = "gnu"))]
    pub fn version() -> String {
        "of an unnamed C library".to_owned()
    }
}

#[cfg(feature = "freestone")]
#[path = "serves/freestone.rs"]
mod serves;
#[cfg(feature = "freestone")]
mod chosen {
    pub use freestone::Freestone as Allocator;

    pub const ALLOCATOR: Allocator = Allocator::new();

    /// This crate bears Freestone's.
    pub fn version() -> String {
        env!("CARGO_PKG_VERSION").to_owned()
    }
}

#[cfg(feature = "jemalloc")]
#[path = "serves/jemalloc.rs"]
mod serves;
#[cfg(feature = "jemalloc")]
mod chosen {
    pub use tikv_jemallocator::Jemalloc as Allocator;

    pub(crate) use crate::serves::version;

    pub const ALLOCATOR: Allocator = Allocator;
}

#[cfg(feature = "mimalloc")]
#[path = "serves/mimalloc.rs"]
mod serves;
#[cfg(feature = "mimalloc")]
mod chosen {
    pub use mimalloc::MiMalloc as Allocator;

    pub const ALLOCATOR: Allocator = Allocator;

    pub fn version() -> String {
        crate::serves::version().map(|number| number.to_string()).join(".")
    }
}

#[cfg(feature = "snmalloc")]
#[path = "serves/snmalloc.rs"]
mod serves;
#[cfg(feature = "snmalloc")]
mod chosen {
    pub use snmalloc_rs::SnMalloc as Allocator;

    pub const ALLOCATOR: Allocator = Allocator;

    /// It has none that a program can ask for.
    pub fn version() -> String {
        String::new()
    }
}

pub use chosen::{ALLOCATOR, Allocator};

/// Called before `main` of any program that this crate is linked to, whatever that program forbids itself.
#[used]
// SAFETY: the section holds pointers to functions that the C library calls at the start, and this is one.
#[unsafe(link_section = ".init_array")]
static AT_START: extern "C" fn() = prove_if_asked;

/// The proof is what a program does that is asked for it; nothing of its own runs. Otherwise this looks at one variable.
extern "C" fn prove_if_asked() {
    unsafe extern "C" {
        fn getenv(name: *const std::ffi::c_char) -> *const std::ffi::c_char;
        safe fn _exit(code: std::ffi::c_int) -> !;
    }
    // SAFETY: the name ends with a zero byte, and no other thread runs yet that could change the environment.
    if unsafe { getenv(c"FREESTONE_BENCH_PROOF".as_ptr()) }.is_null() {
        return;
    }
    match serves::boxes() {
        Ok(()) => {
            println!("freestone-bench-proof {}", chosen::version());
            _exit(0)
        }
        Err(reason) => {
            eprintln!("{reason}");
            _exit(1)
        }
    }
}
