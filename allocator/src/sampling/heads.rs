//! Floor 4. Chains of a hash table that grows by one chain at a time (linear hashing; Litwin 1980): no insertion ever moves more than one chain, so nobody
//! who waits for the lock above waits for a table that is being built anew.
//!
//! Entries are numbers or addresses, 0 being none; what they stand for knows its own hash, and the next entry of its chain.

use core::ptr::{self, NonNull};

use crate::meta::Meta;

/// Chains of the first segment. Each further segment has as many as all before it.
const FIRST: usize = 64;
const SEGMENTS: usize = 24;

/// Where chains begin.
pub(super) struct Heads {
    segments: [*mut u64; SEGMENTS],
    chains: usize,
    entries: usize,
}

// SAFETY: the segments belong to whoever has this, alone.
unsafe impl Send for Heads {}

impl Heads {
    pub(super) const fn new() -> Self {
        Self { segments: [ptr::null_mut(); SEGMENTS], chains: 0, entries: 0 }
    }

    /// Bytes of all segments.
    pub(super) fn bytes(&self) -> usize {
        self.chains * size_of::<u64>()
    }

    /// The chain of a hash: with all bits below that of the next doubling, or with one less where that chain has not come yet.
    fn chain_of(&self, hash: u64) -> usize {
        let doubling = self.chains.next_power_of_two();
        let chain = hash as usize & (doubling - 1);
        if chain < self.chains { chain } else { chain & (doubling / 2 - 1) }
    }

    fn place(&mut self, chain: usize) -> *mut u64 {
        let segment = (chain / FIRST).checked_ilog2().map_or(0, |log| log as usize + 1);
        let first = if segment == 0 { 0 } else { FIRST << (segment - 1) };
        // SAFETY: chains below the count lie in segments that exist, each as long as all before it.
        unsafe { self.segments[segment].add(chain - first) }
    }

    /// Where the chain of a hash begins. `None`: there are no chains, and no memory for the first.
    pub(super) fn head(&mut self, hash: u64, meta: &Meta) -> Option<NonNull<u64>> {
        if self.chains == 0 {
            self.segments[0] = meta.take(FIRST * size_of::<u64>(), align_of::<u64>())?.as_ptr().cast();
            self.chains = FIRST;
        }
        let chain = self.chain_of(hash);
        NonNull::new(self.place(chain))
    }

    /// An entry came. Makes one chain more if there are as many entries as chains: `next_and_hash` says of an entry where its link to the next one is,
    /// and its hash.
    pub(super) fn entered(&mut self, meta: &Meta, next_and_hash: impl Fn(u64) -> (*mut u64, u64)) {
        self.entries += 1;
        if self.entries < self.chains {
            return;
        }
        let chain = self.chains;
        let segment = (chain / FIRST).ilog2() as usize + 1;
        if segment == SEGMENTS {
            return;
        }
        if self.segments[segment].is_null() {
            let Some(memory) = meta.take(chain * size_of::<u64>(), align_of::<u64>()) else { return };
            self.segments[segment] = memory.as_ptr().cast();
        }
        // The chain that the new one is split off from.
        let from = self.place(chain & !(1 << chain.ilog2()));
        self.chains += 1;
        let to = self.place(chain);
        // SAFETY: both are places of chains; the lock above keeps others away.
        let mut entry = unsafe { from.replace(0) };
        while entry != 0 {
            let (next, hash) = next_and_hash(entry);
            let target = if self.chain_of(hash) == chain { to } else { from };
            // SAFETY: as above; the entry's link is the caller's to change.
            let head = unsafe { target.replace(entry) };
            // SAFETY: as above.
            entry = unsafe { next.replace(head) };
        }
    }

    /// An entry went.
    pub(super) fn left(&mut self) {
        self.entries -= 1;
    }
}
