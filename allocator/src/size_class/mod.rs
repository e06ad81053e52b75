//! Floor 2. Size classes: which block serves which request.
//!
//! A request is a size and an alignment. Rounding the size up to a multiple of the alignment is all it takes: every class above
//! 128 bytes is a multiple of the step of its doubling, so a rounded size either is a class or lies below one that is a multiple
//! of the alignment too, and spans start on a page. That holds up to [`CLASS_ALIGN_MAX`].
//!
//! With a constant `Layout` all of this folds into a constant; see the golden test.

mod table;

use crate::config::{CLASS_BYTES_MAX, SMALL_BYTES_MAX, SPLITS, STACK_BYTES_MAX};
use crate::units::PAGE_BYTES;
#[cfg(any(freestone_c, test))]
use table::SMALL_FOR_C;
use table::{MEDIUM, ROWS, Row, SMALL};

#[cfg(any(freestone_c, test))]
pub(crate) use table::C_ALIGN;
pub(crate) use table::SLOT_WORDS;

/// The largest alignment that a class can promise: spans start on a page.
pub(crate) const CLASS_ALIGN_MAX: usize = PAGE_BYTES;

/// A size class. Kept as its number times [`SLOT_WORDS`], which is where its slot begins in a thread's record: the processor multiplies by eight
/// while it addresses, and a shift between the table of classes and the slot costs 7 % of a pair of runtime sizes (2026-11).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub(crate) struct SizeClass(u16);

/// How a class is cached by threads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shape {
    /// An alloc array and a free array.
    Split,
    /// One stack.
    Stack,
    /// Blocks that are spans of their own, each with a state that every free checks.
    Whole,
}

impl SizeClass {
    /// How many classes there are.
    pub(crate) const COUNT: usize = table::COUNT;
    /// How many are small. They are the first ones.
    pub(crate) const SMALL_COUNT: usize = table::SMALL_COUNT;
    /// How many the inlined path serves: those with split magazines and those with a stack.
    pub(crate) const INLINE_COUNT: usize = table::STACK_END;

    /// The class of a request, if it has one that threads keep in split magazines. Small requests first: they are the rule.
    #[inline(always)]
    pub(crate) fn split(size: usize, align: usize) -> Option<Self> {
        let size = rounded(size, align);
        if SPLITS && size <= SMALL_BYTES_MAX { Some(Self(SMALL[size.div_ceil(8)])) } else { None }
    }

    /// The class of a request that is not [`split`](Self::split), if threads keep it in a stack.
    #[inline(always)]
    pub(crate) fn stacked(size: usize, align: usize) -> Option<Self> {
        let size = rounded(size, align);
        if !SPLITS && size <= SMALL_BYTES_MAX {
            Some(Self(SMALL[size.div_ceil(8)]))
        } else if size <= STACK_BYTES_MAX && align <= CLASS_ALIGN_MAX {
            Some(Self(MEDIUM[size.div_ceil(128)]))
        } else {
            None
        }
    }

    /// The class of any request that has one.
    #[inline]
    pub(crate) fn of(size: usize, align: usize) -> Option<Self> {
        let size = rounded(size, align);
        if size <= SMALL_BYTES_MAX {
            return Some(Self(SMALL[size.div_ceil(8)]));
        }
        if size <= CLASS_BYTES_MAX && align <= CLASS_ALIGN_MAX { Some(Self::above_small(size)) } else { None }
    }

    /// Sizes above [`SMALL_BYTES_MAX`], at most [`CLASS_BYTES_MAX`]: the bits below the leading one count the classes.
    fn above_small(size: usize) -> Self {
        let last = size - 1;
        let doubling = last.ilog2() as usize;
        let index = if last < STACK_BYTES_MAX {
            // 8 per doubling; doubling 10 (1 KiB) starts at class 40.
            40 + (doubling - 10) * 8 + ((last >> (doubling - 3)) & 7)
        } else {
            // 4 per doubling; doubling 15 (32 KiB) starts at class 80.
            80 + (doubling - 15) * 4 + ((last >> (doubling - 2)) & 3)
        };
        Self::from_index(index)
    }

    /// The class with this index.
    ///
    /// # Panics
    ///
    /// When there is none.
    #[inline]
    pub(crate) const fn from_index(index: usize) -> Self {
        assert!(index < Self::COUNT);
        Self((index * SLOT_WORDS) as u16)
    }

    /// The class of a small request from C: aligned to 16, and of one byte at least.
    #[inline(always)]
    #[cfg(any(freestone_c, test))]
    pub(crate) fn small_for_c(size: usize) -> Option<Self> {
        let last = size.wrapping_sub(1);
        if last < SMALL_BYTES_MAX { Some(Self(SMALL_FOR_C[last / C_ALIGN])) } else { None }
    }

    /// What stands for the class in a byte of which zero means none.
    #[inline]
    pub(crate) const fn byte(self) -> u8 {
        self.index() as u8 + 1
    }

    /// The class that a byte stands for, if it is one that the inlined path serves.
    #[inline(always)]
    #[cfg(any(freestone_c, test))]
    pub(crate) fn inline_of_byte(byte: u8) -> Option<Self> {
        let index = u32::from(byte).wrapping_sub(1);
        if (index as usize) < Self::INLINE_COUNT { Some(Self((index * SLOT_WORDS as u32) as u16)) } else { None }
    }

    /// The class that a byte stands for.
    #[inline]
    #[cfg(any(freestone_c, test))]
    pub(crate) fn of_byte(byte: u8) -> Option<Self> {
        let index = usize::from(byte).wrapping_sub(1);
        if index < Self::COUNT { Some(Self::from_index(index)) } else { None }
    }

    /// All classes, smallest first.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..Self::COUNT).map(Self::from_index)
    }

    #[inline(always)]
    pub(crate) const fn index(self) -> usize {
        self.0 as usize / SLOT_WORDS
    }

    /// Where the slot of the class begins, if it is one of those that the inlined path serves; in words of eight bytes.
    #[inline(always)]
    pub(crate) const fn slot_words(self) -> usize {
        self.0 as usize
    }

    #[inline(always)]
    fn row(self) -> &'static Row {
        &ROWS[self.index()]
    }

    /// Block size.
    #[inline(always)]
    pub(crate) fn bytes(self) -> usize {
        self.row().bytes as usize
    }

    /// Span length in pages.
    #[inline]
    pub(crate) fn span_pages(self) -> u32 {
        u32::from(self.row().pages)
    }

    /// Span length in bytes.
    #[inline]
    pub(crate) fn span_bytes(self) -> usize {
        self.span_pages() as usize * PAGE_BYTES
    }

    /// Blocks per span.
    #[inline]
    pub(crate) fn span_blocks(self) -> u32 {
        u32::from(self.row().blocks)
    }

    /// May its blocks lie in the seed?
    #[inline]
    pub(crate) fn is_small(self) -> bool {
        self.index() < Self::SMALL_COUNT
    }

    /// How threads cache it.
    #[inline]
    pub(crate) fn shape(self) -> Shape {
        if SPLITS && self.is_small() {
            Shape::Split
        } else if self.index() < Self::INLINE_COUNT {
            Shape::Stack
        } else {
            Shape::Whole
        }
    }

    /// `offset` divided by the block size. Exact up to the length of a span of many blocks; garbage beyond.
    #[inline(always)]
    pub(crate) fn quotient(self, offset: usize) -> u32 {
        ((offset as u64).wrapping_mul(u64::from(self.row().reciprocal)) >> 32) as u32
    }

    /// Which block of its span begins `offset` bytes after the span's start, or which it lies in.
    #[inline(always)]
    pub(crate) fn block_at(self, offset: usize) -> Place {
        let row = self.row();
        let product = (offset as u64).wrapping_mul(u64::from(row.reciprocal));
        let (index, rest) = ((product >> 32) as u32, product as u32);
        if index >= u32::from(row.blocks) {
            Place::Tail
        } else if rest < row.reciprocal {
            // What is left below the quotient grows by the reciprocal with every byte beyond a multiple.
            Place::Block(index)
        } else {
            Place::Inside
        }
    }
}

/// Where an address lies in a span.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// At the start of the block with this index.
    Block(u32),
    /// Inside a block.
    Inside,
    /// Behind the last block.
    Tail,
}

/// `size` rounded up to a multiple of `align`. A `Layout` promises that this does not overflow; sizes of zero become one block.
#[inline(always)]
fn rounded(size: usize, align: usize) -> usize {
    if align <= 8 { size } else { (if size == 0 { 1 } else { size } + (align - 1)) & !(align - 1) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::fmt::Write;

    #[test]
    fn every_size_gets_the_smallest_class_that_holds_it() {
        for size in 0..=CLASS_BYTES_MAX {
            let class = SizeClass::of(size, 1).expect("within the table");
            assert!(class.bytes() >= size, "{size}");
            if class.index() > 0 {
                let below = SizeClass::from_index(class.index() - 1);
                assert!(below.bytes() < size, "{size} would fit into {}", below.bytes());
            }
        }
        assert_eq!(SizeClass::of(CLASS_BYTES_MAX + 1, 1), None);
        assert_eq!(SizeClass::of(isize::MAX as usize, 1), None);
    }

    #[test]
    fn every_alignment_that_a_class_promises_is_kept_by_every_block() {
        for shift in 0..=CLASS_ALIGN_MAX.ilog2() {
            let align = 1 << shift;
            for size in 0..=2 * CLASS_ALIGN_MAX + 100 {
                let class = SizeClass::of(size, align).expect("within the table");
                assert!(class.bytes() >= size);
                assert_eq!(class.bytes() % align, 0, "{size} aligned to {align} got {}", class.bytes());
            }
        }
        assert_eq!(SizeClass::of(1, CLASS_ALIGN_MAX * 2), None);
    }

    #[test]
    fn the_three_ways_in_agree() {
        for size in 0..=CLASS_BYTES_MAX {
            for align in [1, 8, 16, 64, 4096] {
                let class = SizeClass::of(size, align).expect("within the table");
                match class.shape() {
                    Shape::Split => assert_eq!(SizeClass::split(size, align), Some(class)),
                    Shape::Stack => {
                        assert_eq!(SizeClass::split(size, align), None);
                        assert_eq!(SizeClass::stacked(size, align), Some(class));
                    }
                    Shape::Whole => {
                        assert_eq!(SizeClass::split(size, align), None);
                        assert_eq!(SizeClass::stacked(size, align), None);
                        assert_eq!(class.span_bytes(), class.bytes());
                    }
                }
            }
        }
    }

    #[test]
    fn what_c_asks_for_gets_the_smallest_aligned_class_and_a_byte_says_which() {
        assert_eq!(SizeClass::small_for_c(0), None);
        for size in 1..=2 * SMALL_BYTES_MAX {
            let class = SizeClass::small_for_c(size);
            assert_eq!(class, SizeClass::split(size, C_ALIGN), "{size}");
            assert!(class.is_none_or(|class| class.bytes().is_multiple_of(C_ALIGN)), "{size}");
        }
        for byte in 0..=u8::MAX {
            let class = SizeClass::of_byte(byte);
            assert!(class.is_none_or(|class| class.byte() == byte));
            assert_eq!(SizeClass::inline_of_byte(byte), class.filter(|class| class.shape() != Shape::Whole));
        }
        assert_eq!((0..=u8::MAX).filter_map(SizeClass::of_byte).count(), SizeClass::COUNT);
    }

    #[test]
    fn division_by_multiplication_is_exact_everywhere() {
        for class in SizeClass::all().filter(|class| class.shape() != Shape::Whole) {
            for offset in 0..class.span_bytes() {
                let index = offset / class.bytes();
                let expected = if index >= class.span_blocks() as usize {
                    Place::Tail
                } else if offset % class.bytes() == 0 {
                    Place::Block(index as u32)
                } else {
                    Place::Inside
                };
                assert_eq!(class.block_at(offset), expected, "class {} offset {offset}", class.bytes());
            }
            // Runs of the seed are up to 4 KiB long, whatever the span.
            for offset in 0..4096 {
                assert_eq!(class.quotient(offset) as usize, offset / class.bytes());
            }
        }
    }

    /// The table as people read it; the same text stands in `docs/architecture.md`, and this keeps it true.
    #[test]
    fn the_printed_table_is_true_and_wastes_little() {
        let mut text = String::from("class  block B  span pages  blocks  tail %  worst waste %\n");
        let mut previous = 0;
        for class in SizeClass::all() {
            let tail = class.span_bytes() - class.bytes() * class.span_blocks() as usize;
            let tail = tail as f64 * 100.0 / class.span_bytes() as f64;
            let worst = (class.bytes() - previous - 1) as f64 * 100.0 / class.bytes() as f64;
            let _ = writeln!(
                text,
                "{:>5}  {:>7}  {:>10}  {:>6}  {tail:>6.1}  {worst:>13.1}",
                class.index(),
                class.bytes(),
                class.span_pages(),
                class.span_blocks(),
            );
            let worst_allowed = match class.bytes() {
                0..=128 => 100.0,
                129..=32768 => 11.2,
                _ => 20.0,
            };
            assert!(worst <= worst_allowed, "class {} wastes {worst:.1} %", class.bytes());
            assert!(tail <= 3.0, "class {} leaves {tail:.1} % of its span", class.bytes());
            previous = class.bytes();
        }
        let page = include_str!("../../../docs/architecture.md");
        assert!(page.contains(&text), "docs/architecture.md must contain:\n{text}");
    }
}
