//! Random numbers that a seed replays.

/// splitmix64.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// `seed` may be anything.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not zero.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next_u64() % bound as u64) as usize
    }

    /// A number from `low` to `high`, both included; every doubling is as likely as every other.
    pub fn spread(&mut self, low: usize, high: usize) -> usize {
        let bits = self.below(high.ilog2() as usize - low.ilog2() as usize + 1) + low.ilog2() as usize;
        ((1 << bits) + self.below(1 << bits)).clamp(low, high)
    }

    /// Brings things into a random order.
    pub fn shuffle<T>(&mut self, things: &mut [T]) {
        for nth in (1..things.len()).rev() {
            things.swap(nth, self.below(nth + 1));
        }
    }
}
