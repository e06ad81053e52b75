//! Floor 3. What we know of a page: which span it belongs to, and at a span's first page everything about that span.
//!
//! A record is 32 bytes in a flat table beside the heap. All fields are atomics because a free may look at the record of any page
//! at any time; who may write them when is said at each field. A pointer that a program rightly holds was handed out after its
//! span's record was written, so what its free reads is settled; a wild pointer may read anything, and is told so.

use crate::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};
use crate::size_class::SizeClass;

/// What a page is part of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Nothing, or the inside of a whole block. What a table starts with.
    Free = 0,
    /// A span of many blocks of one class.
    Blocks = 1,
    /// The seed: runs of blocks of many classes.
    Seed = 2,
    /// The first page of a span that is one block of a class.
    Whole = 3,
    /// The first page of a page run.
    Run = 4,
    /// A span of sampled blocks of one class.
    Sampled = 5,
}

/// Who has a block that is a span of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Holder {
    /// We do: in a cache, or about to be one.
    Us = 0,
    /// The program does.
    Program = 1,
}

/// The record of one page.
#[derive(Debug)]
#[repr(C, align(32))]
pub(crate) struct PageRecord {
    /// Kind, class, and in spans of many blocks the pages between this one and the first: a byte each, in one word because every free that
    /// is checked asks for all three. Written at birth and death of a span.
    identity: AtomicU32,
    /// First page of whole blocks and runs: swapped by every allocation and free.
    holder: AtomicU8,
    /// First page: untouched blocks read as zero. Written at birth.
    zeroed: AtomicU8,
    /// First page: which of the class's lists the span is on, plus one; 0 when on none. Class lock.
    pub(crate) list: AtomicU8,
    /// First page: what was seen when somebody looked last for free memory within the span; see `central::within`. Class lock.
    pub(crate) seen: AtomicU8,
    /// First page: the span's length. Written at birth, and by growing and shrinking in place.
    pages: AtomicU16,
    /// First page: blocks that central has, bits and untouched ones together. Class lock.
    pub(crate) free: AtomicU16,
    /// First page: blocks from this index on were never handed out. Class lock.
    pub(crate) fresh: AtomicU16,
    /// First page: kernel pages within the span that were given back, because only free blocks lie there. Class lock.
    pub(crate) released: AtomicU16,
    /// First page: neighbours on that list, page index plus one. Class lock.
    pub(crate) next: AtomicU32,
    /// See [`next`](Self::next).
    pub(crate) previous: AtomicU32,
    /// First page of spans whose bits do not fit beside their pages: address of the cell that has them; of spans of sampled blocks: address of what
    /// is known of them. Written at birth.
    pub(crate) cell: AtomicU64,
}

const fn identity(kind: Kind, class: u8, back: u8) -> u32 {
    u32::from_le_bytes([kind as u8, class, back, 0])
}

// Relaxed everywhere in this file: see the head of the file for what orders these fields instead.
impl PageRecord {
    #[inline]
    pub(crate) fn kind(&self) -> Kind {
        match self.identity.load(Ordering::Relaxed).to_le_bytes()[0] {
            1 => Kind::Blocks,
            2 => Kind::Seed,
            3 => Kind::Whole,
            4 => Kind::Run,
            5 => Kind::Sampled,
            _ => Kind::Free,
        }
    }

    /// If the page belongs to a span of many blocks of this class: how many pages lie between it and the span's first. The question of every
    /// free that is checked.
    #[inline]
    pub(crate) fn back_in_blocks_of(&self, class: SizeClass) -> Option<u32> {
        let back = self.identity.load(Ordering::Relaxed) ^ identity(Kind::Blocks, class.index() as u8, 0);
        (back as u16 == 0).then_some(back >> 16)
    }

    /// Is this the first page of a block of this class that is a span of its own?
    #[inline]
    pub(crate) fn is_whole_of(&self, class: SizeClass) -> bool {
        self.identity.load(Ordering::Relaxed) == identity(Kind::Whole, class.index() as u8, 0)
    }

    /// The class, where the kind has one.
    #[inline]
    pub(crate) fn class(&self) -> SizeClass {
        SizeClass::from_index(usize::from(self.identity.load(Ordering::Relaxed).to_le_bytes()[1]))
    }

    /// If this is the first page of a span of many blocks: their class. One look, for who has no lock.
    pub(crate) fn class_of_span(&self) -> Option<SizeClass> {
        let [kind, class, back, _] = self.identity.load(Ordering::Relaxed).to_le_bytes();
        (kind == Kind::Blocks as u8 && back == 0).then(|| SizeClass::from_index(usize::from(class)))
    }

    #[inline]
    pub(crate) fn pages(&self) -> u32 {
        u32::from(self.pages.load(Ordering::Relaxed))
    }

    #[inline]
    pub(crate) fn set_pages(&self, pages: u32) {
        self.pages.store(pages as u16, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn is_zeroed(&self) -> bool {
        self.zeroed.load(Ordering::Relaxed) != 0
    }

    /// Free → part of a span of many blocks, `back` pages behind its first.
    pub(crate) fn begin_blocks(&self, class: SizeClass, back: u32, pages: u32, zeroed: bool) {
        self.pages.store(pages as u16, Ordering::Relaxed);
        self.free.store(class.span_blocks() as u16, Ordering::Relaxed);
        self.fresh.store(0, Ordering::Relaxed);
        self.zeroed.store(u8::from(zeroed), Ordering::Relaxed);
        self.list.store(0, Ordering::Relaxed);
        self.seen.store(0, Ordering::Relaxed);
        self.released.store(0, Ordering::Relaxed);
        self.identity.store(identity(Kind::Blocks, class.index() as u8, back as u8), Ordering::Relaxed);
    }

    /// Free → first page of a block that is a span of its own.
    pub(crate) fn begin_whole(&self, kind: Kind, class: Option<SizeClass>, pages: u32, zeroed: bool, holder: Holder) {
        debug_assert!(matches!(kind, Kind::Whole | Kind::Run | Kind::Seed));
        self.pages.store(pages as u16, Ordering::Relaxed);
        self.zeroed.store(u8::from(zeroed), Ordering::Relaxed);
        self.holder.store(holder as u8, Ordering::Relaxed);
        let class = class.map_or(u8::MAX, |class| class.index() as u8);
        self.identity.store(identity(kind, class, 0), Ordering::Relaxed);
    }

    /// Free → part of a span of sampled blocks, `back` pages behind its first; what is known of them stands at `span`.
    pub(crate) fn begin_sampled(&self, class: SizeClass, back: u32, pages: u32, zeroed: bool, span: u64) {
        self.pages.store(pages as u16, Ordering::Relaxed);
        self.zeroed.store(u8::from(zeroed), Ordering::Relaxed);
        self.cell.store(span, Ordering::Relaxed);
        self.identity.store(identity(Kind::Sampled, class.index() as u8, back as u8), Ordering::Relaxed);
    }

    /// Of a span of sampled blocks: where it stands what is known of them.
    pub(crate) fn span_address(&self) -> u64 {
        self.cell.load(Ordering::Relaxed)
    }

    /// How many pages lie between this one and the span's first.
    pub(crate) fn back(&self) -> u32 {
        u32::from(self.identity.load(Ordering::Relaxed).to_le_bytes()[2])
    }

    /// Anything → Free.
    pub(crate) fn end(&self) {
        self.identity.store(identity(Kind::Free, 0, 0), Ordering::Relaxed);
    }

    /// Who has a whole block?
    #[cfg(freestone_c)]
    pub(crate) fn is_held_by(&self, holder: Holder) -> bool {
        self.holder.load(Ordering::Relaxed) == holder as u8
    }

    /// Hands a whole block over; says who had it. One instruction, so that of two frees at the same instant one sees the other.
    #[inline]
    #[must_use]
    pub(crate) fn hand_to(&self, holder: Holder) -> Holder {
        // AcqRel: a block given back by one thread and taken by another carries its content; pairs with itself.
        if self.holder.swap(holder as u8, Ordering::AcqRel) == Holder::Program as u8 { Holder::Program } else { Holder::Us }
    }
}
