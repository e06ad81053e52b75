//! Brings one allocator into a program, the one that a feature names, and proves when it is asked to that this one serves the program.
//!
//! `freestone-bench cargo` writes this crate beside the copy of the program's sources. The copy registers `ALLOCATOR` in its root, so the static
//! there has the allocator's own type, with nothing in between.

#[cfg(feature = "system")]
mod chosen {
    use std::hint::black_box;

    pub use std::alloc::System as Allocator;

    pub const ALLOCATOR: Allocator = Allocator;

    /// A small block of the main thread lies in the kernel's `[heap]` only if the C library's allocator served it.
    pub fn proof() -> Result<String, String> {
        let block = black_box(Box::new([0_u8; 100]));
        let address = std::ptr::from_ref(&*block).addr();
        let maps = std::fs::read_to_string("/proc/self/maps").map_err(|error| error.to_string())?;
        let heap = maps.lines().find(|line| line.ends_with("[heap]")).ok_or("the process has no [heap]")?;
        let (low, high) = heap.split(' ').next().and_then(|range| range.split_once('-')).ok_or("unreadable map")?;
        let bound = |text: &str| usize::from_str_radix(text, 16).map_err(|error| error.to_string());
        if (bound(low)?..bound(high)?).contains(&address) {
            Ok(version())
        } else {
            Err(format!("{address:#x} lies outside [heap]"))
        }
    }

    #[cfg(target_env = "gnu")]
    fn version() -> String {
        unsafe extern "C" {
            safe fn gnu_get_libc_version() -> *const std::ffi::c_char;
        }
        // SAFETY: a text that is never freed.
        format!("glibc {}", unsafe { std::ffi::CStr::from_ptr(gnu_get_libc_version()) }.to_string_lossy())
    }

    #[cfg(not(target_env = "gnu"))]
    fn version() -> String {
        "of an unnamed C library".to_owned()
    }
}

#[cfg(feature = "freestone")]
mod chosen {
    use std::hint::black_box;

    pub use freestone::Freestone as Allocator;

    pub const ALLOCATOR: Allocator = Allocator::new();

    /// Freestone counts what it serves. This crate bears its version.
    pub fn proof() -> Result<String, String> {
        let before = freestone::snapshot().allocations;
        for _ in 0..10 {
            drop(black_box(Box::new([0_u8; 100])));
        }
        match freestone::snapshot().allocations - before {
            10.. => Ok(env!("CARGO_PKG_VERSION").to_owned()),
            counted => Err(format!("of 10 boxes it served {counted}")),
        }
    }
}

#[cfg(feature = "jemalloc")]
mod chosen {
    use std::ffi::{CStr, c_char, c_uint};
    use std::hint::black_box;
    use std::ptr;

    pub use tikv_jemallocator::Jemalloc as Allocator;

    pub const ALLOCATOR: Allocator = Allocator;

    /// jemalloc knows the arena of every block it served, and of no other.
    pub fn proof() -> Result<String, String> {
        let block = black_box(Box::new([0_u8; 100]));
        let mut pointer = ptr::from_ref(&*block);
        let mut arena: c_uint = 0;
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
        let mut text: *const c_char = ptr::null();
        let mut length = size_of_val(&text);
        // SAFETY: writes a pointer of the length given, and only reads names.
        let code = unsafe {
            tikv_jemalloc_sys::mallctl(c"version".as_ptr(), (&raw mut text).cast(), &raw mut length, ptr::null_mut(), 0)
        };
        if code != 0 || text.is_null() {
            return "of unknown version".to_owned();
        }
        // SAFETY: a text that jemalloc never frees.
        let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
        text.split('-').next().unwrap_or_default().to_owned()
    }
}

#[cfg(feature = "mimalloc")]
mod chosen {
    use std::ffi::{c_int, c_void};
    use std::hint::black_box;

    pub use mimalloc::MiMalloc as Allocator;

    pub const ALLOCATOR: Allocator = Allocator;

    unsafe extern "C" {
        fn mi_is_in_heap_region(pointer: *const c_void) -> bool;
        safe fn mi_version() -> c_int;
    }

    /// mimalloc knows which addresses lie in its heaps.
    pub fn proof() -> Result<String, String> {
        let block = black_box(Box::new([0_u8; 100]));
        // SAFETY: the pointer is only looked at as a number.
        if !unsafe { mi_is_in_heap_region(std::ptr::from_ref(&*block).cast()) } {
            return Err("a boxed block is in none of its heaps".to_owned());
        }
        // Major, and two digits each for minor and patch; one digit each before 3.3.
        Ok(match mi_version() {
            version @ ..1000 => format!("{}.{}.{}", version / 100, version / 10 % 10, version % 10),
            version => format!("{}.{}.{}", version / 10_000, version / 100 % 100, version % 100),
        })
    }
}

#[cfg(feature = "snmalloc")]
mod chosen {
    use std::hint::black_box;

    pub use snmalloc_rs::SnMalloc as Allocator;

    pub const ALLOCATOR: Allocator = Allocator;

    /// snmalloc's own count of what it took from the system follows what is asked for. It has no version that a program can ask for.
    pub fn proof() -> Result<String, String> {
        let before = Allocator::memory_stats().peak_memory_usage;
        drop(black_box(Vec::<u8>::with_capacity(64 << 20)));
        let after = Allocator::memory_stats().peak_memory_usage;
        if after - before >= 32 << 20 {
            Ok(String::new())
        } else {
            Err(format!("64 MiB raised its peak by {} bytes only", after - before))
        }
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
    match chosen::proof() {
        Ok(version) => {
            println!("freestone-bench-proof {version}");
            _exit(0)
        }
        Err(reason) => {
            eprintln!("{reason}");
            _exit(1)
        }
    }
}
