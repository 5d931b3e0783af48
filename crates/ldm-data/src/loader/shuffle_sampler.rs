//! The order of examples: a pure function of seed, epoch and position.

use ldm_core::noise::splitmix_finalizer;

use crate::rng::Rng;

/// Rounds of the shuffle. Each round halves the remaining order; 64 suffice for any dataset that fits on a disk.
const ROUNDS: u64 = 64;

/// Sampler of the indices of each batch, on each rank.
///
/// It has no state: any batch of any epoch is computed on its own, so that a run resumes at any batch at no cost and an
/// epoch's order needs no memory. The order of an epoch is a permutation by the
/// swap-or-not shuffle (Hoang, Morris & Rogaway 2012, "An enciphering scheme based on a card shuffle").
///
/// Of an epoch's order, the first `batch_size * world` indices make the first step: rank 0 takes the first
/// `batch_size` of them, rank 1 the next, and so on. So `world` ranks together have, step by step, the examples of one
/// rank with a batch `world` times as large.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShuffleSampler {
    /// Number of images.
    pub len: usize,
    /// Images per batch, on each rank.
    pub batch_size: usize,
    /// Seed of the shuffle.
    pub seed: u64,
    /// Gives each epoch its own order; otherwise images keep theirs.
    pub shuffle: bool,
    /// Leaves out images that do not fill a step on all ranks. Otherwise they make a last, smaller step, divided as
    /// evenly as possible.
    pub drop_last: bool,
    /// This rank.
    pub rank: usize,
    /// Number of ranks.
    pub world: usize,
}

impl ShuffleSampler {
    /// Batches of an epoch, the same on every rank.
    pub fn batches(&self) -> u64 {
        let step = self.batch_size * self.world;
        (if self.drop_last { self.len / step } else { self.len.div_ceil(step) }) as u64
    }

    /// Indices of this rank's batch `batch` of `epoch`; empty past the end of the epoch, and possibly where the last
    /// step has fewer images than ranks.
    pub fn indices(&self, epoch: u64, batch: u64) -> Vec<usize> {
        if batch >= self.batches() {
            return Vec::new();
        }
        let start = batch as usize * self.batch_size * self.world;
        let (from, to) = self.share(self.len - start);
        (start + from..start + to).map(|position| self.at(epoch, position)).collect()
    }

    /// Returns true when some rank's last batch of an epoch is empty and another's is not.
    pub fn starves_a_rank(&self) -> bool {
        let rest = self.len % (self.batch_size * self.world);
        !self.drop_last && (1..self.world).contains(&rest)
    }

    /// The part of this rank in a step of at most `left` images.
    fn share(&self, left: usize) -> (usize, usize) {
        let step = left.min(self.batch_size * self.world);
        (step * self.rank / self.world, step * (self.rank + 1) / self.world)
    }

    /// The index at `position` of `epoch`'s order.
    fn at(&self, epoch: u64, position: usize) -> usize {
        if !self.shuffle {
            return position;
        }
        let len = self.len as u64;
        let mut keys = Rng::of(&[self.seed, epoch]);
        let mut x = position as u64;
        for _ in 0..ROUNDS {
            // Every round pairs each index with its mirror about a random point and swaps a random half of the pairs.
            let partner = (keys.below(len) + len - x) % len;
            let pair = x.max(partner);
            if splitmix_finalizer(keys.bits() ^ splitmix_finalizer(pair)) & 1 == 1 {
                x = partner;
            }
        }
        x as usize
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sampler(len: usize) -> ShuffleSampler {
        ShuffleSampler { len, batch_size: 4, seed: 1, shuffle: true, drop_last: false, rank: 0, world: 1 }
    }

    proptest! {
        #[test]
        fn each_index_once_an_epoch_over_all_ranks(
            len in 1usize..300, batch_size in 1usize..9, world in 1usize..5, seed: u64, epoch in 0u64..9, shuffle: bool,
        ) {
            let mut seen = vec![0; len];
            for rank in 0..world {
                let order = ShuffleSampler { len, batch_size, seed, shuffle, drop_last: false, rank, world };
                for batch in 0..order.batches() {
                    let indices = order.indices(epoch, batch);
                    prop_assert!(indices.len() <= batch_size);
                    for index in indices {
                        seen[index] += 1;
                    }
                }
            }
            prop_assert!(seen.iter().all(|&times| times == 1), "{seen:?}");
        }

        #[test]
        fn dropping_the_last_leaves_full_batches_each_index_at_most_once(
            len in 1usize..300, batch_size in 1usize..9, world in 1usize..5, seed: u64,
        ) {
            let mut seen = vec![0; len];
            for rank in 0..world {
                let order = ShuffleSampler { len, batch_size, seed, shuffle: true, drop_last: true, rank, world };
                for batch in 0..order.batches() {
                    let indices = order.indices(0, batch);
                    prop_assert_eq!(indices.len(), batch_size);
                    for index in indices {
                        seen[index] += 1;
                    }
                }
            }
            prop_assert!(seen.iter().all(|&times| times <= 1));
            prop_assert!(len - seen.iter().sum::<usize>() < batch_size * world);
        }

        #[test]
        fn ranks_see_together_what_one_rank_sees(len in 1usize..200, world in 2usize..5, seed: u64, batch in 0u64..9) {
            let together = ShuffleSampler { len, batch_size: 3 * world, seed, shuffle: true, drop_last: false, rank: 0, world: 1 };
            let apart: Vec<usize> = (0..world)
                .flat_map(|rank| ShuffleSampler { batch_size: 3, rank, world, ..together.clone() }.indices(2, batch))
                .collect();
            prop_assert_eq!(apart, together.indices(2, batch));
        }
    }

    #[test]
    fn every_permutation_position_is_equally_likely() {
        let epochs = 20_000;
        for len in [2, 5, 16] {
            let mut counts = vec![vec![0u32; len]; len];
            for epoch in 0..epochs {
                (0..len).for_each(|position| counts[position][sampler(len).at(epoch, position)] += 1);
            }
            let expected = f64::from(epochs as u32) / len as f64;
            let chi_square: f64 =
                counts.iter().flatten().map(|&count| (f64::from(count) - expected).powi(2) / expected).sum();
            // (len - 1)^2 degrees of freedom: mean d, standard deviation sqrt(2 d); five of them.
            let d = ((len - 1) * (len - 1)) as f64;
            assert!(chi_square < d + 5.0 * (2.0 * d).sqrt(), "{len}: {chi_square}");
        }
    }

    #[test]
    fn neighbors_do_not_stay_neighbors() {
        let sampler = sampler(1000);
        let near = (0..999).filter(|&p| sampler.at(0, p).abs_diff(sampler.at(0, p + 1)) == 1).count();
        assert!(near < 10, "{near} of 999 neighbors are still neighbors"); // 2 expected
    }

    #[test]
    fn seeds_and_epochs_give_other_orders() {
        let all = |order: &ShuffleSampler, epoch| {
            (0..25).flat_map(|batch| order.indices(epoch, batch)).collect::<Vec<_>>()
        };
        let one = sampler(100);
        assert_eq!(all(&one, 3), all(&one, 3));
        assert_ne!(all(&one, 3), all(&one, 4));
        assert_ne!(all(&one, 3), all(&ShuffleSampler { seed: 2, ..one.clone() }, 3));
    }

    #[test]
    fn a_last_step_of_fewer_images_than_ranks_is_detected() {
        let starves =
            |len, drop_last| ShuffleSampler { world: 3, drop_last, ..sampler(len) }.starves_a_rank();
        assert!(starves(13, false) && starves(14, false) && starves(1, false));
        assert!(!starves(12, false) && !starves(15, false) && !starves(13, true));
    }
}
