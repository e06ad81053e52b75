//! A program that works hard and looks at its numbers. `tests/bypassed.rs` runs it with `FREESTONE=bypass:1`, where there are none.

use std::alloc::{GlobalAlloc, Layout};
use std::collections::HashMap;

use freestone::{Freestone, Limit, control};

#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

fn work(seed: usize) -> usize {
    let mut map: HashMap<usize, Vec<u8>> = HashMap::new();
    for nth in 0..20_000 {
        let key = (nth * 7919 + seed) % 1_000;
        let bytes = map.entry(key).or_default();
        bytes.push(nth as u8);
        if bytes.len() > 30 {
            map.remove(&key);
        }
    }
    let zeros = vec![0_u8; 3 << 20];
    assert!(zeros.iter().all(|&byte| byte == 0));
    map.values().map(Vec::len).sum()
}

fn alignments() {
    for align in (0..=21).map(|power| 1 << power) {
        for size in [1, align, 3 * align + 1] {
            let layout = Layout::from_size_align(size, align).expect("a power of two");
            // SAFETY: the size is not zero.
            let block = unsafe { GLOBAL.alloc_zeroed(layout) };
            assert!(!block.is_null() && block.addr().is_multiple_of(align), "{size} B aligned to {align}");
            // SAFETY: a live block of this layout.
            let block = unsafe { GLOBAL.realloc(block, layout, 2 * size) };
            assert!(!block.is_null() && block.addr().is_multiple_of(align), "{size} B aligned to {align}");
            // SAFETY: readable for so long, and initialised, because it was zeroed.
            assert!(unsafe { std::slice::from_raw_parts(block, size) }.iter().all(|&byte| byte == 0));
            let layout = Layout::from_size_align(2 * size, align).expect("a power of two");
            // SAFETY: a live block of this layout.
            unsafe { GLOBAL.dealloc(block, layout) };
        }
    }
}

fn main() {
    let alone = work(1);
    let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(|| work(1))).collect();
    assert!(threads.into_iter().all(|thread| thread.join().expect("no panic") == alone));
    alignments();
    control::set_hard_limit(Limit::Bytes(1 << 20));
    drop(std::hint::black_box(Vec::<u8>::with_capacity(256 << 20)));
    control::thread_idle();
    println!("released {}", control::release_to_os());
    let now = freestone::snapshot();
    println!(
        "allocations {}, frees {}, live {}, held {}, system calls {}",
        now.allocations,
        now.frees,
        now.bytes.live,
        now.limits.held,
        now.events.os_calls()
    );
    println!("bypassed {}", control::configuration().bypass);
}
