//! Floor 3. 256 bits, one for each page of a step.

use crate::units::STEP_PAGES;

/// 256 bits, one per page of a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct PageBits([u64; 4]);

impl PageBits {
    /// Every bit.
    pub(crate) const ALL: Self = Self([u64::MAX; 4]);

    const fn mask(from: u32, to: u32) -> u64 {
        // Both within one word; `to` may be 64.
        (if to == 64 { u64::MAX } else { (1 << to) - 1 }) & (u64::MAX << from)
    }

    /// Runs `change` on every word of `from..from + count`, with the bits concerned.
    fn for_words(&mut self, from: u32, count: u32, mut change: impl FnMut(&mut u64, u64)) {
        let end = from + count;
        let mut at = from;
        while at < end {
            let word = at / 64;
            let word_end = ((word + 1) * 64).min(end);
            change(&mut self.0[word as usize], Self::mask(at % 64, word_end - word * 64));
            at = word_end;
        }
    }

    pub(crate) fn set(&mut self, from: u32, count: u32) {
        self.for_words(from, count, |word, bits| *word |= bits);
    }

    pub(crate) fn clear(&mut self, from: u32, count: u32) {
        self.for_words(from, count, |word, bits| *word &= !bits);
    }

    pub(crate) fn count_in(mut self, from: u32, count: u32) -> u32 {
        let mut ones = 0;
        self.for_words(from, count, |word, bits| ones += (*word & bits).count_ones());
        ones
    }

    /// The first position at or after `from` whose bit is `value`, or 256.
    fn find(&self, value: bool, from: u32) -> u32 {
        let mut at = from;
        while at < STEP_PAGES {
            let word = self.0[at as usize / 64];
            let wanted = (if value { word } else { !word }) >> (at % 64);
            if wanted != 0 {
                return at + wanted.trailing_zeros();
            }
            at = (at / 64 + 1) * 64;
        }
        STEP_PAGES
    }

    /// The position behind the last bit before `end` that is set, or 0.
    fn end_of_set_before(&self, end: u32) -> u32 {
        let mut end = end;
        while let Some(last) = end.checked_sub(1) {
            let word = self.0[last as usize / 64] << (63 - last % 64);
            if word != 0 {
                return end - word.leading_zeros();
            }
            end = last / 64 * 64;
        }
        0
    }

    /// How long the run of bits is that are not set around these, which are not.
    pub(crate) fn gap_around(&self, at: u32, count: u32) -> u32 {
        self.find(true, at + count) - self.end_of_set_before(at)
    }

    /// Bits that are set in one of the two.
    pub(crate) fn or(self, other: Self) -> Self {
        Self(core::array::from_fn(|word| self.0[word] | other.0[word]))
    }

    /// Bits that are set here and not there.
    #[cfg(test)]
    pub(crate) fn and_not(self, other: Self) -> Self {
        Self(core::array::from_fn(|word| self.0[word] & !other.0[word]))
    }

    /// Every run of bits that are `value`, as (first, length).
    pub(crate) fn runs(&self, value: bool) -> impl Iterator<Item = (u32, u32)> {
        let mut at = 0;
        core::iter::from_fn(move || {
            let first = self.find(value, at);
            at = self.find(!value, first);
            (first < STEP_PAGES).then(|| (first, at - first))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_behave_like_bools() {
        let mut bits = PageBits::default();
        let mut model = [false; 256];
        let mut state = 7_u64;
        for _ in 0..2_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let from = (state >> 40) as u32 % 256;
            let count = 1 + (state >> 20) as u32 % (256 - from);
            if state >> 63 == 0 {
                bits.set(from, count);
            } else {
                bits.clear(from, count);
            }
            model[from as usize..(from + count) as usize].fill(state >> 63 == 0);
            let ones = model[from as usize..].iter().filter(|bit| **bit).count();
            assert_eq!(bits.count_in(from, 256 - from) as usize, ones);
            for value in [false, true] {
                let mut expected = Vec::new();
                let mut at = 0;
                while at < 256 {
                    let length = model[at..].iter().take_while(|bit| **bit == value).count();
                    if length > 0 {
                        expected.push((at as u32, length as u32));
                    }
                    at += length.max(1);
                }
                assert_eq!(bits.runs(value).collect::<Vec<_>>(), expected);
            }
            for (first, length) in bits.runs(false) {
                let at = first + (state >> 32) as u32 % length;
                let count = 1 + (state >> 16) as u32 % (first + length - at);
                assert_eq!(bits.gap_around(at, count), length);
            }
        }
    }
}
