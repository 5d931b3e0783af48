//! A small random generator whose numbers are a pure function of its seeds.

use ldm_core::noise::splitmix_finalizer;

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// A splitmix64 generator: plain data, the same numbers on every machine.
///
/// Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators". It is seeded by a list of words that
/// identify the draw, e.g. `(seed, epoch, index)`, so that any draw can be repeated without repeating those before it.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// Creates a generator that depends on every word and on their order.
    pub fn of(words: &[u64]) -> Self {
        Self(words.iter().fold(GOLDEN, |state, word| {
            splitmix_finalizer(state ^ splitmix_finalizer(word.wrapping_add(GOLDEN)))
        }))
    }

    /// Draws 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        splitmix_finalizer(self.0)
    }

    /// Draws an integer in `0..end`.
    ///
    /// # Panics
    /// When `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        assert!(end > 0, "the range 0..0 is empty");
        // Multiply and keep the high word (Lemire 2019); its bias of at most end / 2^64 is not corrected.
        ((u128::from(self.bits()) * u128::from(end)) >> 64) as u64
    }

    /// Draws a number in `[0, 1)`.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Draws a number in `[low, high)`.
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// Draws one of `items`.
    ///
    /// # Panics
    /// When `items` is empty.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len() as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first numbers of splitmix64 from state 0, as published with its reference code.
    #[test]
    fn numbers_are_those_of_splitmix64() {
        let mut rng = Rng(0);
        assert_eq!(rng.bits(), 0xe220_a839_7b1d_cdaf);
        assert_eq!(rng.bits(), 0x6e78_9e6a_a1b9_65f4);
    }

    #[test]
    fn words_and_their_order_matter() {
        let first = |words: &[u64]| Rng::of(words).bits();
        assert_eq!(first(&[1, 2, 3]), first(&[1, 2, 3]));
        for other in [&[1, 3, 2][..], &[1, 2], &[1, 2, 3, 0], &[0, 2, 3]] {
            assert_ne!(first(&[1, 2, 3]), first(other), "{other:?}");
        }
    }

    #[test]
    fn draws_fill_their_range_evenly() {
        let mut rng = Rng::of(&[7]);
        let mut counts = [0; 5];
        for _ in 0..10_000 {
            counts[rng.below(5) as usize] += 1;
        }
        // 2000 expected, standard deviation 40.
        assert!(counts.iter().all(|count| (1800..2200).contains(count)), "{counts:?}");
        let mean = (0..10_000).map(|_| rng.between(2.0, 4.0)).sum::<f64>() / 10_000.0;
        assert!((mean - 3.0).abs() < 0.03, "{mean}");
    }
}
