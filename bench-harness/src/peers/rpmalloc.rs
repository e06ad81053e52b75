//! rpmalloc: how it shows that it is in use.

use std::ptr::{self, NonNull};

use freestone_bench::subject::locked;
use rpmalloc_sys::{rpfree, rpmalloc};

/// rpmalloc cuts blocks of one size from the same span, which is aligned to its size; a block of anybody else's lies in none of its spans. It
/// can also be asked for the size of a block, but dies of one that is not its own; and that it is initialised says nothing, because it sees to that
/// before `main`.
pub(crate) fn proof() -> Result<String, String> {
    const SPAN_BYTES: usize = 64 << 10;
    let span_of = |address: usize| address / SPAN_BYTES;
    let before = own_block()?;
    let block = std::hint::black_box(Box::new([0_u8; 100]));
    let after = own_block()?;
    let address = ptr::from_ref(&*block).addr();
    // One of the two, for the box may be the last of its span or the first of the next.
    let is_its_own = [before, after].iter().any(|own| span_of(own.addr().get()) == span_of(address));
    for own in [before, after] {
        // SAFETY: rpmalloc's own block, from above.
        unsafe { rpfree(own.as_ptr().cast()) };
    }
    if !is_its_own {
        return Err("a boxed block is in none of its spans".to_owned());
    }
    // The C library has no version that a program can ask for.
    const VERSION: Option<&str> = locked("rpmalloc");
    Ok(format!("rpmalloc-rs {}", VERSION.unwrap_or("of unknown version")))
}

/// A block as large as the box, from rpmalloc itself.
fn own_block() -> Result<NonNull<u8>, String> {
    // SAFETY: takes a size.
    NonNull::new(unsafe { rpmalloc(100) }.cast()).ok_or_else(|| "it has no memory".to_owned())
}
