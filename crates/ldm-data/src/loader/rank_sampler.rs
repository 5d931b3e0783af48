//! Sampling for one of several ranks, from all examples or from whole shards.

use std::ops::Range;

use ldm_core::{Error, Result};

use crate::loader::config::LoaderConfig;
use crate::loader::shuffle_sampler::ShuffleSampler;
use crate::loader::weighted_draws::WeightedDraws;
use crate::rng::Rng;

/// Sampler of the batches of one rank.
///
/// Ranks share one order over all examples, unless the dataset has shards by rank: then shard `s` belongs to rank `s %
/// world`, which shuffles its own examples and reads no other shard. Both are functions of seed, epoch and batch, so
/// that a run resumes at any batch.
#[derive(Debug)]
pub(crate) struct RankSampler {
    pub(crate) shuffle: ShuffleSampler,
    /// The indices of this rank if it has its own shards.
    own: Option<Vec<Range<usize>>>,
    weighted: Option<WeightedDraws>,
    batches: u64,
}

impl RankSampler {
    /// Creates the sampler over an order that all ranks share.
    fn shared(shuffle: ShuffleSampler) -> Self {
        let batches = shuffle.batches();
        Self { shuffle, own: None, weighted: None, batches }
    }

    /// Draws examples by their weights, in place of each once an epoch.
    ///
    /// # Errors
    /// [`Error::Invalid`] when a weight is not a number of at least 0, or all are 0.
    pub(crate) fn with_weights(self, weights: &[f64]) -> Result<Self> {
        Ok(Self { weighted: Some(WeightedDraws::new(weights)?), ..self })
    }

    /// Creates the sampler of a config; `shards` are the sizes of the shards where each rank reads its own. An epoch of
    /// an `endless` loader ends on all ranks when it ends on one: the examples that others have left come in other
    /// epochs.
    pub(crate) fn new(
        shuffle: ShuffleSampler,
        shards: Option<&[usize]>,
        config: &LoaderConfig,
        endless: bool,
    ) -> Result<Self> {
        let Some(shards) = shards.filter(|_| config.world > 1) else { return Ok(Self::shared(shuffle)) };
        let refuse = |message: String| Err(Error::invalid(format!("loader: {message}")));
        let (world, filled) = (config.world, shards.iter().filter(|count| **count > 0).count());
        if filled < world {
            return refuse(format!(
                "shards_by_rank: expected at least {world} shards for {world} ranks, got {filled}; try leaving it out"
            ));
        }
        if endless && !config.drop_last {
            return refuse(
                "shards_by_rank: expected drop_last: true, since ranks have unequal numbers of images"
                    .to_owned(),
            );
        }
        let mut start = 0;
        let mut of_ranks = vec![Vec::new(); world];
        // A shard may be empty, where all of its images are excluded: it counts for no rank.
        for (number, &count) in shards.iter().filter(|count| **count > 0).enumerate() {
            of_ranks[number % world].push(start..start + count);
            start += count;
        }
        let count = |ranges: &Vec<Range<usize>>| ranges.iter().map(Range::len).sum::<usize>();
        let own = of_ranks[config.rank].clone();
        let len = count(&own);
        let batches = if endless {
            of_ranks.iter().map(count).min().unwrap_or(0) / config.batch_size
        } else {
            len.div_ceil(config.batch_size)
        };
        if batches == 0 {
            return refuse(format!(
                "shards_by_rank: expected at least a batch of {} images on every rank; try a smaller batch size or \
                 shards of equal size",
                config.batch_size
            ));
        }
        // Ranks must not shuffle alike.
        let seed = Rng::of(&[config.seed, config.rank as u64, 2]).bits();
        let shuffle = ShuffleSampler { len, seed, drop_last: endless, rank: 0, world: 1, ..shuffle };
        Ok(Self { shuffle, own: Some(own), weighted: None, batches: batches as u64 })
    }

    /// Batches of an epoch; the same on every rank of an endless loader.
    pub(crate) fn batches(&self) -> u64 {
        self.batches
    }

    /// Indices of this rank's batch `batch` of `epoch`.
    pub(crate) fn indices(&self, epoch: u64, batch: u64) -> Vec<usize> {
        self.shuffle.indices(epoch, batch).into_iter().map(|position| self.locate(epoch, position)).collect()
    }

    /// Draws one of this rank's indices of `epoch`.
    pub(crate) fn any(&self, epoch: u64, rng: &mut Rng) -> usize {
        self.locate(epoch, rng.below(self.shuffle.len as u64) as usize)
    }

    fn locate(&self, epoch: u64, mut position: usize) -> usize {
        if let Some(weighted) = &self.weighted {
            return weighted.index(position, Rng::of(&[self.shuffle.seed, epoch, 3]).unit());
        }
        let Some(own) = &self.own else { return position };
        for range in own {
            if position < range.len() {
                return range.start + position;
            }
            position -= range.len();
        }
        unreachable!("a position is below the number of this rank's examples")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sampler(shards: &[usize], config: &LoaderConfig, endless: bool) -> Result<RankSampler> {
        let config = LoaderConfig { drop_last: endless && config.drop_last, ..config.clone() };
        RankSampler::new(config.sampler(shards.iter().sum())?, Some(shards), &config, endless)
    }

    fn rank(rank: usize, world: usize, batch_size: usize) -> LoaderConfig {
        LoaderConfig { rank, world, ..LoaderConfig::new(batch_size, 7) }
    }

    proptest! {
        #[test]
        fn one_pass_gives_each_example_once_and_each_rank_reads_its_shards(
            shards in proptest::collection::vec(0usize..40, 4..9), world in 2usize..5, batch_size in 1usize..6,
        ) {
            prop_assume!(shards.iter().filter(|count| **count > 0).count() >= world);
            let mut seen = vec![Vec::new(); shards.iter().sum()];
            for number in 0..world {
                let sampler = sampler(&shards, &rank(number, world, batch_size), false).unwrap();
                for batch in 0..sampler.batches() {
                    sampler.indices(0, batch).into_iter().for_each(|index| seen[index].push(number));
                }
            }
            let mut start = 0;
            for &count in &shards {
                let of_shard = &seen[start..start + count];
                prop_assert!(of_shard.iter().all(|ranks| ranks.len() == 1 && ranks == &of_shard[0]));
                start += count;
            }
        }

        #[test]
        fn an_endless_epoch_has_the_same_length_on_every_rank(
            shards in proptest::collection::vec(8usize..40, 4..9), world in 2usize..5, epoch in 0u64..5,
        ) {
            let all: Vec<RankSampler> =
                (0..world).map(|number| sampler(&shards, &rank(number, world, 4), true).unwrap()).collect();
            for sampler in &all {
                prop_assert_eq!(sampler.batches(), all[0].batches());
                let mut seen: Vec<usize> =
                    (0..sampler.batches()).flat_map(|batch| sampler.indices(epoch, batch)).collect();
                prop_assert_eq!(seen.len() as u64, 4 * sampler.batches());
                seen.sort_unstable();
                seen.dedup();
                prop_assert_eq!(seen.len() as u64, 4 * sampler.batches(), "an example came twice");
            }
        }
    }

    proptest! {
        #[test]
        fn weighted_examples_come_as_often_as_their_weights_say(
            weights in proptest::collection::vec(0.1f64..3., 4..40), seed: u64, epoch in 0u64..5,
        ) {
            let len = weights.len();
            let config = LoaderConfig { drop_last: false, seed, ..LoaderConfig::new(4, 7) };
            let all = RankSampler::new(config.sampler(len).unwrap(), None, &config, true).unwrap();
            let sampler = all.with_weights(&weights).unwrap();
            let mut counts = vec![0.; len];
            for batch in 0..sampler.batches() {
                sampler.indices(epoch, batch).into_iter().for_each(|index| counts[index] += 1.);
            }
            let total: f64 = weights.iter().sum();
            for (count, weight) in counts.iter().zip(&weights) {
                let expected = len as f64 * weight / total;
                prop_assert!((count - expected).abs() < 1., "{count} times, expected {expected}");
            }
        }
    }

    #[test]
    fn every_example_comes_in_some_epoch() {
        let sampler = sampler(&[5, 40], &rank(1, 2, 4), true).unwrap();
        let seen: std::collections::BTreeSet<usize> =
            (0..200).flat_map(|epoch| sampler.indices(epoch, 0)).collect();
        assert_eq!((sampler.batches(), seen.len(), seen.first()), (1, 40, Some(&5)));
    }

    #[test]
    fn one_rank_has_all_shards() {
        let config = LoaderConfig::new(4, 7);
        let by_shard = sampler(&[5, 40], &config, true).unwrap();
        let shared = RankSampler::new(config.sampler(45).unwrap(), None, &config, true).unwrap();
        assert_eq!(by_shard.indices(3, 2), shared.indices(3, 2));
    }

    #[test]
    fn shards_that_cannot_be_shared_are_refused() {
        let check = |shards: &[usize], config: LoaderConfig, expected: &str| {
            let error = sampler(shards, &config, true).unwrap_err().to_string();
            assert_eq!(error, format!("loader: shards_by_rank: {expected}"));
        };
        check(&[9, 0, 9], rank(0, 3, 2), "expected at least 3 shards for 3 ranks, got 2; try leaving it out");
        check(
            &[9, 9],
            LoaderConfig { drop_last: false, ..rank(0, 2, 2) },
            "expected drop_last: true, since ranks have unequal numbers of images",
        );
        check(
            &[3, 9],
            rank(1, 2, 4),
            "expected at least a batch of 4 images on every rank; try a smaller batch size or shards of equal size",
        );
    }
}
