//! Does one wrong thing to the allocator, then behaves well for a while. Whether and when it dies is what `tests/misuse.rs` looks at.
//!
//! Arguments: what to do wrong, block size. Says `done wrong` after the act, `went on` after a thousand innocent operations, `all back` after
//! everything idle went back to the shared rooms.

use std::alloc::{GlobalAlloc, Layout};
use std::hint::black_box;
use std::process::ExitCode;

use freestone::Freestone;

#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).expect("a small power of two")
}

fn alloc(size: usize) -> *mut u8 {
    // SAFETY: the size is not zero.
    black_box(unsafe { GLOBAL.alloc(layout(size)) })
}

fn free(block: *mut u8, size: usize) {
    // SAFETY: not always: that is what this program is for.
    unsafe { GLOBAL.dealloc(black_box(block), layout(size)) };
}

fn pairs(size: usize, count: usize) {
    for _ in 0..count {
        free(alloc(size), size);
    }
}

fn misuse(what: &str, size: usize) -> bool {
    // Neighbours on both sides, so that addresses near the block are in use.
    let neighbours: Vec<*mut u8> = (0..20).map(|_| alloc(size)).collect();
    let block = alloc(size);
    let _more: Vec<*mut u8> = (0..20).map(|_| alloc(size)).collect();
    match what {
        "nothing" => free(block, size),
        "double-at-once" => {
            free(block, size);
            free(block, size);
        }
        "double-one-between" => {
            free(block, size);
            free(neighbours[7], size);
            free(block, size);
        }
        "double-after-a-thousand" => {
            free(block, size);
            pairs(size, 1_000);
            free(block, size);
        }
        "double-by-another-thread" => {
            free(block, size);
            let address = block.expose_provenance();
            let other = std::thread::spawn(move || free(std::ptr::with_exposed_provenance_mut(address), size));
            other.join().expect("the thread does not panic");
        }
        "three-times" => (0..3).for_each(|_| free(block, size)),
        "wrong-layout" => free(block, size / 2),
        "foreign-stack" => {
            let mut local = [0_u64; 8];
            free(local.as_mut_ptr().cast(), size);
        }
        "foreign-wild" => free(std::ptr::without_provenance_mut(0x1234_5678_9ab0), size),
        "interior" => free(block.wrapping_add(16), size),
        "misaligned" => free(block.wrapping_add(1), size),
        _ => return false,
    }
    true
}

/// One line at a time, without the allocator.
fn say(line: &str) {
    // SAFETY: the line is readable.
    unsafe { libc::write(1, line.as_ptr().cast(), line.len()) };
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let size = arguments.get(2).and_then(|size| size.parse().ok()).unwrap_or(0_usize);
    if !size.is_power_of_two() || !misuse(&arguments[1], size) {
        say("usage: misuse WHAT SIZE\n");
        return ExitCode::from(2);
    }
    say("done wrong\n");
    pairs(size, 1_000);
    pairs(size / 2, 1_000);
    say("went on\n");
    freestone::control::release_to_os();
    say("all back\n");
    ExitCode::SUCCESS
}
