//! Floor 0. The stretches of address space we count in, and numbers that must not be mixed: which page, how many bytes.
//!
//! ```text
//!   window   1 TiB, never mapped as a whole
//!   └ step   2 MiB, mapped at once; one huge page of the kernel
//!     └ page 8 KiB, the unit of spans
//! ```

/// Our page. 8 KiB is right for footprint; bigger pages only help heaps of many GiB.
pub(crate) const PAGE_BYTES: usize = 1 << PAGE_SHIFT;
/// log2 of [`PAGE_BYTES`].
pub(crate) const PAGE_SHIFT: u32 = 13;

/// A step: mapped at once, packed by the filler.
pub(crate) const STEP_BYTES: usize = 1 << STEP_SHIFT;
/// log2 of [`STEP_BYTES`].
pub(crate) const STEP_SHIFT: u32 = 21;
/// Pages in a step.
pub(crate) const STEP_PAGES: u32 = (STEP_BYTES / PAGE_BYTES) as u32;

/// log2 of [`WINDOW_BYTES`]: how far a heap may grow. 1 TiB where the kernel gives 47 bits and more to a process, 64 GiB where it
/// may be 39. `ThreadSanitizer` leaves programs 1.5 TiB, and unit tests want many windows.
pub(crate) const WINDOW_SHIFT: u32 = if cfg!(any(freestone_tsan, test, target_arch = "aarch64")) { 36 } else { 40 };
/// Bytes of a window; as a bit of an address it tells the sampled zone from the rest.
pub(crate) const WINDOW_BYTES: usize = 1 << WINDOW_SHIFT;

/// Does this address lie where only sampled blocks live? One bit, so that the fast path of a free can ask.
#[inline(always)]
pub(crate) const fn in_sampled_zone(address: usize) -> bool {
    address & WINDOW_BYTES != 0
}

/// Which page of the window, counted from the window's first step; those of the sampled zone come one window later.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct PageIndex(pub(crate) u32);

impl PageIndex {
    /// The first page of a step.
    #[inline]
    pub(crate) const fn of_step(step: u32) -> Self {
        Self(step * STEP_PAGES)
    }

    /// The step this page lies in.
    #[inline]
    pub(crate) const fn step(self) -> u32 {
        self.0 / STEP_PAGES
    }

    /// Its position within that step.
    #[inline]
    pub(crate) const fn in_step(self) -> u32 {
        self.0 % STEP_PAGES
    }

    /// Bytes between the window's start and this page.
    #[inline]
    pub(crate) const fn offset_bytes(self) -> usize {
        (self.0 as usize) << PAGE_SHIFT
    }

    /// The page `pages` further up.
    #[inline]
    pub(crate) const fn plus(self, pages: u32) -> Self {
        Self(self.0 + pages)
    }
}

/// `value` rounded up to a multiple of `align`, a power of two; `None` past the end of the address space.
#[inline]
pub(crate) const fn round_up(value: usize, align: usize) -> Option<usize> {
    match value.checked_add(align - 1) {
        Some(sum) => Some(sum & !(align - 1)),
        None => None,
    }
}

const _: () = assert!(WINDOW_SHIFT > STEP_SHIFT);
const _: () = assert!(STEP_SHIFT > PAGE_SHIFT);
