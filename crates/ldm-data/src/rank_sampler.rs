//! Whose turn it is: which examples make a rank's batches, out of all of them or out of shards of its own.

use std::ops::Range;

use ldm_core::{Error, Result};

use crate::loader::LoaderConfig;
use crate::order::ShuffleSampler;
use crate::rng::Rng;

/// The examples of each batch of this rank.
///
/// Ranks share one order over all examples, unless the dataset asks for shards by rank: then shard `s` belongs to rank
/// `s % world`, which shuffles the examples of its own and reads no other shard. Both are functions of seed, epoch and
/// batch, so that a run resumes at any batch.
#[derive(Debug)]
pub(crate) struct RankSampler {
    pub(crate) order: ShuffleSampler,
    /// The indices this rank has, where they are not all.
    own: Option<Vec<Range<usize>>>,
    batches: u64,
}

impl RankSampler {
    /// The turns over an order that all ranks share.
    fn shared(order: ShuffleSampler) -> Self {
        let batches = order.batches();
        Self { order, own: None, batches }
    }

    /// The turns of a config, over shards of so many examples where each rank has its own. An epoch of an `endless`
    /// loader ends on all ranks when it ends on one: what the others have left comes first or last in other epochs.
    pub(crate) fn new(
        order: ShuffleSampler,
        shards: Option<&[usize]>,
        config: &LoaderConfig,
        endless: bool,
    ) -> Result<Self> {
        let Some(shards) = shards.filter(|_| config.world > 1) else { return Ok(Self::shared(order)) };
        let refuse = |message: String| Err(Error::invalid(format!("loader: {message}")));
        let (world, filled) = (config.world, shards.iter().filter(|count| **count > 0).count());
        if filled < world {
            return refuse(format!(
                "shards_by_rank shares {filled} shards among {world} ranks, which leaves a rank without one; use at \
                 least {world} shards or leave shards_by_rank out"
            ));
        }
        if endless && !config.drop_last {
            return refuse(
                "shards_by_rank needs drop_last: true, since ranks have unequal numbers".to_owned(),
            );
        }
        let mut start = 0;
        let mut of_ranks = vec![Vec::new(); world];
        // Empty shards (all of a shard may be excluded) take no turn.
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
                "shards_by_rank leaves a rank fewer images than a batch of {}; lower the batch size or share out \
                 more evenly",
                config.batch_size
            ));
        }
        // Ranks of one seed must not shuffle alike.
        let seed = Rng::of(&[config.seed, config.rank as u64, 2]).bits();
        let order = ShuffleSampler { len, seed, drop_last: endless, rank: 0, world: 1, ..order };
        Ok(Self { order, own: Some(own), batches: batches as u64 })
    }

    /// How many batches an epoch has; the same on every rank of an endless loader.
    pub(crate) fn batches(&self) -> u64 {
        self.batches
    }

    /// The indices of this rank's batch `batch` of `epoch`.
    pub(crate) fn indices(&self, epoch: u64, batch: u64) -> Vec<usize> {
        self.order.indices(epoch, batch).into_iter().map(|position| self.locate(position)).collect()
    }

    /// Any of this rank's indices.
    pub(crate) fn any(&self, rng: &mut Rng) -> usize {
        self.locate(rng.below(self.order.len as u64) as usize)
    }

    fn locate(&self, mut position: usize) -> usize {
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
    use crate::loader::order;

    fn turns(shards: &[usize], config: &LoaderConfig, endless: bool) -> Result<RankSampler> {
        let config = LoaderConfig { drop_last: endless && config.drop_last, ..config.clone() };
        RankSampler::new(order(&config, shards.iter().sum())?, Some(shards), &config, endless)
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
                let turns = turns(&shards, &rank(number, world, batch_size), false).unwrap();
                for batch in 0..turns.batches() {
                    turns.indices(0, batch).into_iter().for_each(|index| seen[index].push(number));
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
        fn an_endless_epoch_is_as_long_on_every_rank(
            shards in proptest::collection::vec(8usize..40, 4..9), world in 2usize..5, epoch in 0u64..5,
        ) {
            let all: Vec<RankSampler> =
                (0..world).map(|number| turns(&shards, &rank(number, world, 4), true).unwrap()).collect();
            for turns in &all {
                prop_assert_eq!(turns.batches(), all[0].batches());
                let mut seen: Vec<usize> =
                    (0..turns.batches()).flat_map(|batch| turns.indices(epoch, batch)).collect();
                prop_assert_eq!(seen.len() as u64, 4 * turns.batches());
                seen.sort_unstable();
                seen.dedup();
                prop_assert_eq!(seen.len() as u64, 4 * turns.batches(), "an example came twice");
            }
        }
    }

    #[test]
    fn over_epochs_everything_comes() {
        let turns = turns(&[5, 40], &rank(1, 2, 4), true).unwrap();
        let seen: std::collections::BTreeSet<usize> =
            (0..200).flat_map(|epoch| turns.indices(epoch, 0)).collect();
        assert_eq!((turns.batches(), seen.len(), seen.first()), (1, 40, Some(&5)));
    }

    #[test]
    fn one_rank_has_all_shards() {
        let config = LoaderConfig::new(4, 7);
        let by_shard = turns(&[5, 40], &config, true).unwrap();
        let shared = RankSampler::new(order(&config, 45).unwrap(), None, &config, true).unwrap();
        assert_eq!(by_shard.indices(3, 2), shared.indices(3, 2));
    }

    #[test]
    fn what_cannot_be_shared_is_refused() {
        let check = |shards: &[usize], config: LoaderConfig, expected: &str| {
            let error = turns(shards, &config, true).unwrap_err().to_string();
            assert_eq!(error, format!("loader: shards_by_rank {expected}"));
        };
        check(
            &[9, 0, 9],
            rank(0, 3, 2),
            "shares 2 shards among 3 ranks, which leaves a rank without one; use at least 3 shards or leave \
             shards_by_rank out",
        );
        check(
            &[9, 9],
            LoaderConfig { drop_last: false, ..rank(0, 2, 2) },
            "needs drop_last: true, since ranks have unequal numbers",
        );
        check(
            &[3, 9],
            rank(1, 2, 4),
            "leaves a rank fewer images than a batch of 4; lower the batch size or share out more evenly",
        );
    }
}
