//! The C library's allocator: how it shows that it is in use, and what it says that is in use.

#[path = "../user_crate/patch/serves/system.rs"]
mod serves;

use freestone_bench::controls::Controls;
use freestone_bench::subject::c_library;

/// It serves boxes.
pub(crate) fn proof() -> Result<String, String> {
    serves::boxes()?;
    Ok(c_library())
}

/// What it says of itself.
#[cfg(target_env = "gnu")]
pub(crate) const CONTROLS: Controls = Controls { heap_in_use: Some(heap_in_use), ..Controls::NONE };

/// What it says of itself.
#[cfg(not(target_env = "gnu"))]
pub(crate) const CONTROLS: Controls = Controls::NONE;

/// In all arenas, and in mappings of their own. Free blocks that wait in a thread's cache count as in use there.
#[cfg(target_env = "gnu")]
#[expect(clippy::unnecessary_wraps, reason = "other allocators cannot always say")]
fn heap_in_use() -> Option<u64> {
    // SAFETY: takes no argument.
    let info = unsafe { libc::mallinfo2() };
    Some((info.uordblks + info.hblkhd) as u64)
}
