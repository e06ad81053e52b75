//! Random numbers that are the same on every machine and cost next to nothing: a step depends on the one before by one addition only, so
//! that what is measured is not the wait for the next number. (wyrand, from Wang Yi's wyhash.)

/// A generator; the seed says all.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// `seed` may be anything.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// The next number, any of 64 bits.
    #[inline]
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0xa076_1d64_78bd_642f);
        let product = u128::from(self.0) * u128::from(self.0 ^ 0xe703_7ed1_a0b4_28db);
        (product >> 64) as u64 ^ product as u64
    }

    /// A number below `bound`, which is not zero and below 2³².
    #[inline]
    pub fn below(&mut self, bound: usize) -> usize {
        self.two_below(bound, 1).0
    }

    /// Two numbers from one step, each below its bound.
    #[inline]
    pub fn two_below(&mut self, first: usize, second: usize) -> (usize, usize) {
        let number = self.number();
        let scaled = |half: u64, bound: usize| ((half * bound as u64) >> 32) as usize;
        (scaled(number >> 32, first), scaled(number & 0xffff_ffff, second))
    }

    /// A number from `low` to `high`, both included.
    #[inline]
    pub fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::Rng;

    #[test]
    fn numbers_stay_below_their_bounds_and_reach_all_of_them() {
        let mut rng = Rng::new(1);
        let mut seen = [false; 10];
        for _ in 0..1_000 {
            let (first, second) = rng.two_below(10, 3);
            seen[first] = true;
            assert!(second < 3);
            assert!((5..=7).contains(&rng.between(5, 7)));
        }
        assert_eq!(seen, [true; 10]);
    }
}
