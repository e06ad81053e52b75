//! Floor 2. The table of size classes, derived at compile time.
//!
//! Steps of 8 bytes to 128 (legal because Rust tells the alignment), 8 classes per doubling to 32 KiB, 4 per doubling above. With
//! 8 per doubling the worst block is 1/9 larger than its request; with 4, 1/5, but then the tail is whole pages that are never
//! touched. Above 32 KiB every class is a multiple of the page, and a span is one block.

use crate::config::{CLASS_BYTES_MAX, SMALL_BYTES_MAX, SPAN_TAIL_PERMILLE_MAX, STACK_BYTES_MAX};
use crate::units::PAGE_BYTES;

/// How many classes there are.
pub(crate) const COUNT: usize = 92;
/// The small classes come first …
pub(crate) const SMALL_COUNT: usize = 40;
/// … then those with one stack; the rest are whole spans.
pub(crate) const STACK_END: usize = 80;

/// How long the hot half of a class's slot in a thread's record is, in words of eight bytes.
pub(crate) const SLOT_WORDS: usize = 4;

/// What is fixed for a class.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    /// Block size.
    pub(crate) bytes: u32,
    /// Span length.
    pub(crate) pages: u16,
    /// Blocks in a span.
    pub(crate) blocks: u16,
    /// ceil(2³² / bytes): the index of a block is its offset in the span times this, shifted by 32. Exact for every offset in a
    /// span; a test tries them all.
    pub(crate) reciprocal: u32,
}

/// One row per class, smallest first.
pub(crate) static ROWS: [Row; COUNT] = derive();

/// Class of every size up to [`SMALL_BYTES_MAX`], in units of 8 bytes; times [`SLOT_WORDS`], as a `SizeClass` is kept.
pub(crate) static SMALL: [u16; SMALL_BYTES_MAX / 8 + 1] = derive_classes(8);

/// Class of every size up to [`STACK_BYTES_MAX`] that is no smaller one's, in units of 128 bytes. Computing it takes no longer, but the
/// shorter code is what lets the compiler inline the whole path where the size is known at run time only.
pub(crate) static MEDIUM: [u16; STACK_BYTES_MAX / 128 + 1] = derive_classes(128);

/// What C promises of every block that no alignment is asked for: that of `max_align_t`.
#[cfg(any(freestone_c, test))]
pub(crate) const C_ALIGN: usize = 16;

/// Class of every size from 1 to [`SMALL_BYTES_MAX`] with that alignment, in units of it: the sizes from 1 to 16 stand first.
#[cfg(any(freestone_c, test))]
pub(crate) static SMALL_FOR_C: [u16; SMALL_BYTES_MAX / C_ALIGN] = derive_classes_for_c();

#[cfg(any(freestone_c, test))]
const fn derive_classes_for_c() -> [u16; SMALL_BYTES_MAX / C_ALIGN] {
    let in_eights: [u16; SMALL_BYTES_MAX / 8 + 1] = derive_classes(8);
    let mut classes = [0; SMALL_BYTES_MAX / C_ALIGN];
    let mut units = 0;
    while units < classes.len() {
        classes[units] = in_eights[(units + 1) * C_ALIGN / 8];
        units += 1;
    }
    classes
}

const fn block_bytes(class: usize) -> usize {
    if class < 16 {
        return 8 * (class + 1);
    }
    if class < 80 {
        let doubling = (class - 16) / 8;
        let step = (class - 16) % 8 + 1;
        return (128 << doubling) + step * (16 << doubling);
    }
    let doubling = (class - 80) / 4;
    let step = (class - 80) % 4 + 1;
    (32768 << doubling) + step * (8192 << doubling)
}

/// The fewest blocks that make a span worth its record.
const fn blocks_min(bytes: usize) -> usize {
    match bytes {
        0..=256 => 64,
        257..=1024 => 32,
        1025..=4096 => 16,
        4097..=8192 => 8,
        _ => 4,
    }
}

const fn span_pages(bytes: usize) -> usize {
    if bytes > STACK_BYTES_MAX {
        return bytes / PAGE_BYTES;
    }
    let mut pages = 1;
    loop {
        let span = pages * PAGE_BYTES;
        let blocks = span / bytes;
        let tail = span - blocks * bytes;
        if blocks >= blocks_min(bytes) && tail * 1000 <= span * SPAN_TAIL_PERMILLE_MAX {
            return pages;
        }
        pages += 1;
    }
}

const fn derive() -> [Row; COUNT] {
    let mut rows = [Row { bytes: 0, pages: 0, blocks: 0, reciprocal: 0 }; COUNT];
    let mut class = 0;
    while class < COUNT {
        let bytes = block_bytes(class);
        let pages = span_pages(bytes);
        rows[class] = Row {
            bytes: bytes as u32,
            pages: pages as u16,
            blocks: (pages * PAGE_BYTES / bytes) as u16,
            reciprocal: (1_u64 << 32).div_ceil(bytes as u64) as u32,
        };
        class += 1;
    }
    rows
}

const fn derive_classes<const UNITS: usize>(unit: usize) -> [u16; UNITS] {
    let mut classes = [0; UNITS];
    let mut class = 0;
    let mut units = 0;
    while units < UNITS {
        while block_bytes(class) < units * unit {
            class += 1;
        }
        classes[units] = (class * SLOT_WORDS) as u16;
        units += 1;
    }
    classes
}

const _: () = assert!(block_bytes(SMALL_COUNT - 1) == SMALL_BYTES_MAX);
const _: () = assert!(block_bytes(STACK_END - 1) == STACK_BYTES_MAX);
const _: () = assert!(block_bytes(COUNT - 1) == CLASS_BYTES_MAX);
