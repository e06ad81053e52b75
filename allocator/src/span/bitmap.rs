//! Floor 3. The free blocks of a span as bits beside it, one per block: set means that central has the block.
//!
//! The words are atomics only so that readers elsewhere are sound; whoever changes them holds the class's lock, and plain loads
//! and stores suffice.

use crate::atomic::{AtomicU64, Ordering};

/// The bits of one span.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bitmap<'a>(pub(crate) &'a [AtomicU64]);

impl Bitmap<'_> {
    /// No block is free.
    pub(crate) fn clear_all(self) {
        for word in self.0 {
            // Relaxed, here and below: the class's lock orders all accesses.
            word.store(0, Ordering::Relaxed);
        }
    }

    /// Marks a block free. `false`: it was.
    #[inline]
    #[must_use]
    pub(crate) fn set(self, index: u32) -> bool {
        let word = &self.0[index as usize / 64];
        let bit = 1 << (index % 64);
        let bits = word.load(Ordering::Relaxed);
        word.store(bits | bit, Ordering::Relaxed);
        bits & bit == 0
    }

    #[inline]
    pub(crate) fn is_set(self, index: u32) -> bool {
        self.0[index as usize / 64].load(Ordering::Relaxed) & (1 << (index % 64)) != 0
    }

    /// Takes up to `wanted` free blocks in address order, hands each to `each`, and says how many there were.
    #[inline]
    pub(crate) fn take_lowest(self, wanted: u32, mut each: impl FnMut(u32)) -> u32 {
        let mut taken = 0;
        for (position, word) in self.0.iter().enumerate() {
            let mut bits = word.load(Ordering::Relaxed);
            if bits == 0 {
                continue;
            }
            while bits != 0 {
                if taken == wanted {
                    word.store(bits, Ordering::Relaxed);
                    return taken;
                }
                each(position as u32 * 64 + bits.trailing_zeros());
                bits &= bits - 1;
                taken += 1;
            }
            word.store(0, Ordering::Relaxed);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn behaves_like_a_sorted_set() {
        let words: Vec<AtomicU64> = (0..16).map(|_| AtomicU64::new(0)).collect();
        let bitmap = Bitmap(&words);
        let mut model = BTreeSet::new();
        let mut state = 42_u64;
        for _ in 0..100_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let index = (state >> 33) as u32 % 1024;
            if state >> 62 == 0 {
                let wanted = index % 70;
                let mut taken = Vec::new();
                let count = bitmap.take_lowest(wanted, |index| taken.push(index));
                assert_eq!(count as usize, taken.len());
                let expected: Vec<u32> = model.iter().copied().take(wanted as usize).collect();
                assert_eq!(taken, expected);
                model.retain(|index| !taken.contains(index));
            } else {
                assert_eq!(bitmap.is_set(index), model.contains(&index));
                assert_eq!(bitmap.set(index), model.insert(index));
            }
        }
        bitmap.clear_all();
        assert_eq!(bitmap.take_lowest(1024, |_| panic!("nothing is left")), 0);
    }
}
