//! Floor 4. Blocks of no bytes, for C, where `malloc(0)` is a block that can be freed and nothing else. Each has an address of its own in a stretch of
//! address space that cannot be touched, so that a program which reads or writes one is stopped there and then.
//!
//! There are 65,536 of them. A program that has more at a time gets ordinary blocks for the rest.

use core::sync::atomic::AtomicBool;

use crate::atomic::{AtomicU64, AtomicUsize, Ordering};
use crate::fatal::Misuse;
use crate::meta::Meta;
use crate::os;
use crate::size_class::C_ALIGN;
use crate::sync::{Lock, Rank};

/// How many there are.
const COUNT: usize = 1 << 16;
const WORDS: usize = COUNT / 64;
const STRETCH_BYTES: usize = COUNT * C_ALIGN;

/// The blocks without bytes of a heap.
pub(crate) struct ZeroBlocks {
    /// Address of the first; 0 before there is one.
    start: AtomicUsize,
    /// Ordinary blocks do instead.
    usable: AtomicBool,
    handed: Lock<Handed>,
}

/// Which ones the program has.
struct Handed {
    /// A bit for each: set while the program has it.
    bits: Option<&'static [AtomicU64; WORDS]>,
    /// Where to look for the next one: behind the one before, so that an address is used again as late as possible.
    next: usize,
}

// Relaxed in the whole file: writers hold the lock, and a block's owner reads what was written before the block was handed out.
impl ZeroBlocks {
    pub(crate) const fn new() -> Self {
        Self {
            start: AtomicUsize::new(0),
            usable: AtomicBool::new(false),
            handed: Lock::new(Rank::Zero, Handed { bits: None, next: 0 }),
        }
    }

    /// Has ordinary blocks take their place from now on, or not.
    pub(crate) fn set_usable(&self, usable: bool) {
        self.usable.store(usable, Ordering::Relaxed);
    }

    /// A block. `None`: an ordinary one is to do.
    pub(crate) fn take(&self, meta: &Meta) -> Option<usize> {
        if self.usable.load(Ordering::Relaxed) {
            return None;
        }
        let mut handed = self.handed.lock();
        let bits = match handed.bits {
            Some(bits) => bits,
            None => self.settle(&mut handed, meta)?,
        };
        let first = handed.next / 64;
        for word in (first..WORDS).chain(0..=first) {
            // Of the first word, only what lies behind the last block; at its second turn the rest.
            let behind = if word == first { u64::MAX << (handed.next % 64) } else { u64::MAX };
            let free = !bits[word].load(Ordering::Relaxed);
            let candidates = if free & behind != 0 { free & behind } else { free };
            if candidates != 0 {
                let bit = candidates.trailing_zeros() as usize;
                bits[word].fetch_or(1 << bit, Ordering::Relaxed);
                let index = word * 64 + bit;
                handed.next = (index + 1) % COUNT;
                return Some(self.start.load(Ordering::Relaxed) + index * C_ALIGN);
            }
        }
        None
    }

    fn settle(&self, handed: &mut Handed, meta: &Meta) -> Option<&'static [AtomicU64; WORDS]> {
        // What was had the last time stays: where memory is out, this is tried again and again.
        if self.start.load(Ordering::Relaxed) == 0 {
            self.start.store(os::map_untouchable(STRETCH_BYTES)?, Ordering::Relaxed);
        }
        let memory = meta.take(size_of::<[AtomicU64; WORDS]>(), align_of::<AtomicU64>())?;
        // SAFETY: so many zeros, aligned, ours for good (I-forever).
        let bits: &'static [AtomicU64; WORDS] = unsafe { memory.cast().as_ref() };
        handed.bits = Some(bits);
        Some(bits)
    }

    /// Is this the address of such a block, or inside one?
    pub(crate) fn contains(&self, address: usize) -> bool {
        let start = self.start.load(Ordering::Relaxed);
        start != 0 && address.wrapping_sub(start) < STRETCH_BYTES
    }

    /// Takes one back, or with `stays` only says whether the program has it.
    pub(crate) fn give(&self, address: usize, stays: bool) -> Result<(), Misuse> {
        let offset = address - self.start.load(Ordering::Relaxed);
        if !offset.is_multiple_of(C_ALIGN) {
            return Err(Misuse::Misaligned);
        }
        let handed = self.handed.lock();
        let (index, bit) = (offset / C_ALIGN / 64, 1 << (offset / C_ALIGN % 64));
        let bits = handed.bits.ok_or(Misuse::NeverAllocated)?;
        if bits[index].load(Ordering::Relaxed) & bit == 0 {
            return Err(Misuse::DoubleFree);
        }
        if !stays {
            bits[index].fetch_and(!bit, Ordering::Relaxed);
        }
        Ok(())
    }

    #[cfg(freestone_c)]
    pub(crate) fn before_fork(&self) {
        self.handed.before_fork();
    }

    #[cfg(freestone_c)]
    pub(crate) fn after_fork(&self) {
        self.handed.after_fork();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_different_and_come_back() {
        let (zero, meta) = (ZeroBlocks::new(), Meta::new());
        for _ in 0..3 {
            let mut blocks: Vec<usize> = (0..COUNT).map(|_| zero.take(&meta).expect("there are so many")).collect();
            assert_eq!(zero.take(&meta), None, "there are no more");
            blocks.sort_unstable();
            assert!(blocks.windows(2).all(|pair| pair[1] - pair[0] == C_ALIGN));
            assert!(blocks.iter().all(|&block| zero.contains(block) && zero.give(block, false) == Ok(())));
        }
    }

    #[test]
    fn an_address_rests_before_it_is_used_again_and_freeing_it_twice_is_noticed() {
        let (zero, meta) = (ZeroBlocks::new(), Meta::new());
        let first = zero.take(&meta).expect("there is one");
        assert_eq!(zero.give(first, true), Ok(()));
        assert_eq!(zero.give(first, false), Ok(()));
        for _ in 0..COUNT - 1 {
            let block = zero.take(&meta).expect("there is one");
            assert_ne!(block, first);
            assert_eq!(zero.give(first, false), Err(Misuse::DoubleFree));
            assert_eq!(zero.give(block, false), Ok(()));
        }
        assert_eq!(zero.take(&meta), Some(first));
        assert_eq!(zero.give(first + 1, false), Err(Misuse::Misaligned));
        assert!(!zero.contains(first - 1 + STRETCH_BYTES * 2));
    }

    #[test]
    fn where_they_are_to_be_usable_there_are_none() {
        let (zero, meta) = (ZeroBlocks::new(), Meta::new());
        zero.set_usable(true);
        assert_eq!(zero.take(&meta), None);
        assert!(!zero.contains(0));
    }
}
