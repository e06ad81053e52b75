//! Does snmalloc serve this program?

use std::hint::black_box;

use snmalloc_rs::SnMalloc;

/// snmalloc's own count of what it took from the system follows what is asked for.
pub(crate) fn boxes() -> Result<(), String> {
    let before = SnMalloc::memory_stats().peak_memory_usage;
    // Not touched, so that the proof does not show in the peak that is reported.
    drop(black_box(Vec::<u8>::with_capacity(64 << 20)));
    let after = SnMalloc::memory_stats().peak_memory_usage;
    if after - before >= 32 << 20 { Ok(()) } else { Err(format!("64 MiB raised its peak by {} bytes only", after - before)) }
}
