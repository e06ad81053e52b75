//! Does the C library's allocator serve this program? Here as in the files beside, with nothing but the allocator and the standard library: subjects of the
//! harness ask, and so do programs that it builds for a user.

use std::hint::black_box;

/// A small block of the main thread lies in the kernel's `[heap]` only if the C library's allocator served it.
pub(crate) fn boxes() -> Result<(), String> {
    let block = black_box(Box::new([0_u8; 100]));
    let address = std::ptr::from_ref(&*block).addr();
    let maps = std::fs::read_to_string("/proc/self/maps").map_err(|error| error.to_string())?;
    let heap = maps.lines().find(|line| line.ends_with("[heap]")).ok_or("the process has no [heap]")?;
    let (low, high) = heap.split(' ').next().and_then(|range| range.split_once('-')).ok_or("unreadable map")?;
    let bound = |text: &str| usize::from_str_radix(text, 16).map_err(|error| error.to_string());
    if (bound(low)?..bound(high)?).contains(&address) { Ok(()) } else { Err(format!("{address:#x} lies outside [heap]")) }
}
