//! A program with a heap of its own, under a library that has the same one for everything in C. Says what it does; `tests/two_heaps.rs` starts it with
//! the library. Arguments: `both`, or who frees what the other one has allocated, and the block's size.

use std::alloc::{GlobalAlloc, Layout};
use std::collections::BTreeMap;
use std::ffi::{c_int, c_void};
use std::hint::black_box;

use freestone::Freestone;

#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

/// The beginning of `struct freestone_snapshot`.
#[repr(C)]
struct CSnapshot {
    size: u64,
    allocations: u64,
    frees: u64,
    allocated_bytes: u64,
}

/// What the library's heap says of itself.
fn in_c() -> CSnapshot {
    // SAFETY: the name ends with a zero byte.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"freestone_snapshot".as_ptr()) };
    assert!(!found.is_null(), "the library was loaded before the program");
    // SAFETY: the library's function of this name has this type.
    let snapshot: unsafe extern "C" fn(*mut CSnapshot) -> c_int = unsafe { std::mem::transmute(found) };
    let mut now = CSnapshot { size: size_of::<CSnapshot>() as u64, allocations: 0, frees: 0, allocated_bytes: 0 };
    // SAFETY: its size is set.
    assert_eq!(unsafe { snapshot(&raw mut now) }, 0);
    now
}

/// Both are at work, and neither sees what the other one does.
fn both() {
    let (rust_before, c_before) = (freestone::snapshot().allocations, in_c().allocations);
    let frees_before = in_c().frees;
    let map: BTreeMap<usize, Vec<u8>> = (0..1_000).map(|key| (key, vec![key as u8; key])).collect();
    let rust_after = freestone::snapshot().allocations;
    assert!(rust_after >= rust_before + 999, "{rust_before}, {rust_after}");
    assert_eq!(in_c().allocations, c_before, "the program's blocks are none of the library's");

    // SAFETY: always allowed.
    let blocks: Vec<*mut c_void> = (0..1_000).map(|size| black_box(unsafe { libc::malloc(size * 10 + 1) })).collect();
    assert!(blocks.iter().all(|block| !block.is_null()));
    assert_eq!(in_c().allocations, c_before + 1_000);
    for block in blocks {
        // SAFETY: allocated above, by the same library.
        unsafe { libc::free(block) };
    }
    assert_eq!(in_c().frees, frees_before + 1_000);
    let threads: Vec<_> = (0..4).map(|seed| std::thread::spawn(move || vec![seed; 10_000].len())).collect();
    assert!(threads.into_iter().all(|thread| thread.join().expect("no panic") == 10_000));
    assert_eq!(map.values().map(Vec::len).sum::<usize>(), 999 * 1_000 / 2);
}

fn say(line: &str) {
    // SAFETY: the line is readable.
    unsafe { libc::write(1, line.as_ptr().cast(), line.len()) };
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let size = arguments.get(2).and_then(|size| size.parse().ok()).unwrap_or(64);
    let layout = Layout::from_size_align(size, 8).expect("a small power of two");
    match arguments[1].as_str() {
        "both" => both(),
        "rust" => {
            // SAFETY: always allowed.
            let block = black_box(unsafe { libc::malloc(size) });
            // SAFETY: not so: the block is C's.
            unsafe { GLOBAL.dealloc(block.cast(), layout) };
        }
        "c" => {
            // SAFETY: the size is not zero.
            let block = black_box(unsafe { GLOBAL.alloc(layout) });
            // SAFETY: not so: the block is Rust's.
            unsafe { libc::free(block.cast()) };
        }
        _ => panic!("both, rust or c?"),
    }
    say("done\n");
    freestone::control::release_to_os();
    say("all back\n");
}
