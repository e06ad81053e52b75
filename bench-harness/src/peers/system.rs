//! The C library's allocator: how it shows that it is in use, and what it says that is in use.

use freestone_bench::controls::Controls;
use freestone_bench::subject::c_library;

/// A small block of the main thread lies in the kernel's `[heap]` only if the C library's allocator served it.
pub(crate) fn proof() -> Result<String, String> {
    let block = std::hint::black_box(Box::new([0_u8; 100]));
    let address = std::ptr::from_ref(&*block).addr();
    let maps = std::fs::read_to_string("/proc/self/maps").map_err(|error| error.to_string())?;
    let heap = maps.lines().find(|line| line.ends_with("[heap]")).ok_or("the process has no [heap]")?;
    let (low, high) = heap.split(' ').next().and_then(|range| range.split_once('-')).ok_or("unreadable map")?;
    let bound = |text: &str| usize::from_str_radix(text, 16).map_err(|error| error.to_string());
    if (bound(low)?..bound(high)?).contains(&address) {
        Ok(c_library())
    } else {
        Err(format!("{address:#x} lies outside [heap]"))
    }
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
