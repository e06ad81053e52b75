//! Floor 5. Sampled blocks beyond 32 KiB: they stay where they are, and are found by their address when they end.
//!
//! ```text
//!   chains[hash of the address] ──▶ block ──▶ block      numbers, in pieces that are never given back
//! ```
//!
//! The heads of the chains can be looked at without the lock of the samples: most are empty, and then a block that ends is none of these.

use core::ptr;

use crate::atomic::{AtomicPtr, AtomicU32, Ordering};
use crate::meta::Meta;

/// A sampled block, and what is to be known of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Large {
    pub(super) address: usize,
    /// The number of its call site.
    pub(super) site: u32,
    /// Which thread allocated it, by the kernel's number.
    pub(super) thread: u32,
    pub(super) bytes: usize,
    pub(super) began_ns: u64,
}

/// One that cannot be found by its address: what becomes of it has to be said.
#[must_use]
#[derive(Debug)]
pub(crate) struct Followed(u32);

/// Where chains begin: the number of the first block, plus one. There are none before a block is followed for the first time.
pub(super) struct Chains(AtomicPtr<[AtomicU32; CHAINS]>);

const CHAINS: usize = 1 << 14;

// Relaxed, unless said otherwise: changed under the lock; who looks without it was told of the block by somebody who came here before.
impl Chains {
    pub(super) const fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    /// Has there be chains; under the lock. `false`: no memory.
    fn make(&self, meta: &Meta) -> bool {
        if !self.0.load(Ordering::Relaxed).is_null() {
            return true;
        }
        let Some(memory) = meta.take(size_of::<[AtomicU32; CHAINS]>(), align_of::<AtomicU32>()) else { return false };
        // Release: these are zeros. Pairs with the Acquire in `of`.
        self.0.store(memory.as_ptr().cast(), Ordering::Release);
        true
    }

    fn of(&self, address: usize) -> Option<&AtomicU32> {
        // Acquire: pairs with the Release in `make`.
        // SAFETY: null, or made by `make` and there for good (I-forever); all zeros are valid heads.
        let heads = unsafe { self.0.load(Ordering::Acquire).as_ref() }?;
        Some(&heads[(address >> 12).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (usize::BITS as usize - CHAINS.ilog2() as usize)])
    }

    /// Is there perhaps a block at this address?
    #[inline]
    pub(super) fn may_have(&self, address: usize) -> bool {
        self.of(address).is_some_and(|head| head.load(Ordering::Relaxed) != 0)
    }
}

#[derive(Clone, Copy)]
struct Place {
    block: Large,
    /// The next of its chain, or the next spare one; plus one.
    next: u32,
}

/// Places come in pieces of so many.
const PIECE: usize = 128;
const PIECES: usize = 4096;

/// All of them. Not shared: lives behind the lock of the samples.
pub(super) struct Blocks {
    pieces: [*mut Place; PIECES],
    count: u32,
    spare: u32,
}

// SAFETY: what it points to belongs to it alone.
unsafe impl Send for Blocks {}

impl Blocks {
    #[allow(clippy::large_stack_arrays, reason = "evaluated at compile time, into a static")]
    pub(super) const fn new() -> Self {
        Self { pieces: [ptr::null_mut(); PIECES], count: 0, spare: 0 }
    }

    fn at(&mut self, number: u32) -> &mut Place {
        let (piece, within) = (number as usize / PIECE, number as usize % PIECE);
        // SAFETY: numbers below the count lie in pieces that exist.
        let place = unsafe { self.pieces[piece].add(within) };
        // SAFETY: as above; `self` is borrowed, and with it every one of them.
        unsafe { &mut *place }
    }

    /// Has there be a spare place, and chains to find it by. `false`: no memory.
    pub(super) fn make_room(&mut self, chains: &Chains, meta: &Meta) -> bool {
        if self.spare != 0 {
            return true;
        }
        if !chains.make(meta) {
            return false;
        }
        let (number, piece) = (self.count, self.count as usize / PIECE);
        if (number as usize).is_multiple_of(PIECE) {
            let Some(place) = self.pieces.get_mut(piece) else { return false };
            let Some(memory) = meta.take(PIECE * size_of::<Place>(), align_of::<Place>()) else { return false };
            *place = memory.as_ptr().cast();
        }
        self.count += 1;
        // Zeros, and so the last of the spare ones.
        self.spare = number + 1;
        true
    }

    /// Follows a block; there is a spare place.
    pub(super) fn follow(&mut self, block: Large, chains: &Chains) {
        let number = self.spare - 1;
        self.spare = self.at(number).next;
        self.at(number).block = block;
        self.show(Followed(number), chains);
    }

    /// Has a block be found by its address again.
    pub(super) fn show(&mut self, Followed(number): Followed, chains: &Chains) {
        let place = self.at(number);
        let head = chains.of(place.block.address).expect("it was followed, so there are chains");
        place.next = head.load(Ordering::Relaxed);
        head.store(number + 1, Ordering::Relaxed);
    }

    /// Has the block at an address, if one is followed there, not be found any more.
    pub(super) fn hide(&mut self, address: usize, chains: &Chains) -> Option<Followed> {
        let head = chains.of(address)?;
        let (mut before, mut entry) = (0, head.load(Ordering::Relaxed));
        while entry != 0 && self.at(entry - 1).block.address != address {
            (before, entry) = (entry, self.at(entry - 1).next);
        }
        let number = entry.checked_sub(1)?;
        let next = self.at(number).next;
        match before {
            0 => head.store(next, Ordering::Relaxed),
            before => self.at(before - 1).next = next,
        }
        Some(Followed(number))
    }

    /// A block ended: its place is spare.
    pub(super) fn end(&mut self, Followed(number): Followed) -> Large {
        let spare = self.spare;
        let place = self.at(number);
        place.next = spare;
        let ended = place.block;
        self.spare = number + 1;
        ended
    }
}
