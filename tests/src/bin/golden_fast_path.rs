//! The fast paths as a program has them: single calls with constant layouts, each in a function of its own whose instructions
//! `tests/golden_fast_path.rs` reads. Run, it does nothing but keep them alive.

use std::alloc::{Layout, alloc, dealloc};
use std::hint::black_box;

use freestone::Freestone;

#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

const fn layout(size: usize) -> Layout {
    match Layout::from_size_align(size, 8) {
        Ok(layout) => layout,
        Err(_) => panic!("a small power of two"),
    }
}

/// Two functions of a size: one that allocates, one that frees. They may unwind, as far as the compiler knows: that they cannot would cost them a
/// frame of their own, which has nothing to do with allocating.
macro_rules! golden {
    ($($allocate:ident $free:ident $size:expr;)+) => {
        $(
            // SAFETY: nothing else in the program has this name.
            #[unsafe(no_mangle)]
            #[inline(never)]
            extern "C-unwind" fn $allocate() -> *mut u8 {
                // SAFETY: the size is not zero.
                unsafe { alloc(const { layout($size) }) }
            }

            // SAFETY: nothing else in the program has this name.
            #[unsafe(no_mangle)]
            #[inline(never)]
            extern "C-unwind" fn $free(block: *mut u8) {
                // SAFETY: `main` hands in live blocks of this layout.
                unsafe { dealloc(block, const { layout($size) }) };
            }
        )+
        type Pair = (extern "C-unwind" fn() -> *mut u8, extern "C-unwind" fn(*mut u8));
        const ALL: [Pair; [$($size),+].len()] = [$(($allocate, $free)),+];
    };
}

golden! {
    golden_alloc_64 golden_free_64 64;
    golden_alloc_1024 golden_free_1024 1024;
    golden_alloc_4096 golden_free_4096 4096;
    golden_alloc_32768 golden_free_32768 32 << 10;
}

fn main() {
    for (allocate, free) in black_box(ALL) {
        free(black_box(allocate()));
    }
}
