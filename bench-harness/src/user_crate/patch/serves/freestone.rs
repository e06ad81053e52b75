//! Does Freestone serve this program?

use std::hint::black_box;

/// Freestone counts what it serves.
pub(crate) fn boxes() -> Result<(), String> {
    let before = freestone::snapshot().allocations;
    for _ in 0..10 {
        drop(black_box(Box::new([0_u8; 100])));
    }
    match freestone::snapshot().allocations - before {
        10.. => Ok(()),
        counted => Err(format!("of 10 boxes it served {counted}")),
    }
}
