//! stoolap-jemalloc: how it shows that it is in use.

use std::hint::black_box;

use freestone_bench::subject::locked;

/// Its count of what it has from the system for huge blocks follows what is asked for.
pub(crate) fn proof() -> Result<String, String> {
    /// More than it would keep after the free, so that nothing is left of the proof.
    const BYTES: usize = 64 << 20;
    let before = stoolap_jemalloc::stats().huge;
    // Not touched, so that the proof does not show in the peak that is reported.
    let block = black_box(Vec::<u8>::with_capacity(BYTES));
    let grown = stoolap_jemalloc::stats().huge.saturating_sub(before);
    drop(block);
    if grown < BYTES {
        return Err(format!("64 MiB raised what it has for huge blocks by {grown} bytes only"));
    }
    const VERSION: Option<&str> = locked("stoolap-jemalloc");
    Ok(VERSION.unwrap_or("of unknown version").to_owned())
}
