//! One batch, from its number.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use ldm_core::{Error, Result};

use crate::batch::{Batch, collate};
use crate::dataset::Dataset;
use crate::example::Example;
use crate::loader::{LoaderConfig, order};
use crate::rank_sampler::RankSampler;
use crate::rng::Rng;

/// How many images are tried for one place of a batch before the set is given up.
const TRIES: u64 = 32;

/// Makes batches: a pure function of their number.
pub(crate) struct BatchBuilder {
    dataset: Arc<dyn Dataset>,
    pub(crate) turns: RankSampler,
    strict: bool,
    substitute: bool,
}

/// A batch and the images that could not be in it.
pub(crate) struct BuiltBatch {
    pub(crate) batch: Option<Batch>,
    pub(crate) skipped: Vec<(usize, String)>,
}

impl BatchBuilder {
    pub(crate) fn new(dataset: Arc<dyn Dataset>, config: &LoaderConfig, substitute: bool) -> Result<Self> {
        let order = order(config, dataset.len())?;
        let turns = RankSampler::new(order, dataset.shards_by_rank().as_deref(), config, substitute)?;
        Ok(Self { dataset, turns, strict: config.strict, substitute })
    }

    /// Makes batch `number`, counted from the start of epoch 0; given up with nothing when `stop` says so. A panic
    /// inside the dataset becomes an error, so that a worker never dies without a word.
    pub(crate) fn make(&self, number: u64, stop: &dyn Fn() -> bool) -> Result<BuiltBatch> {
        // The dataset is pure, and what was half made is thrown away: nothing broken can be seen afterward.
        catch_unwind(AssertUnwindSafe(|| self.make_batch(number, stop))).unwrap_or_else(|panic| {
            let said = panic.downcast_ref::<&str>().map(|said| (*said).to_owned());
            let said = said.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            Err(Error::data(self.dataset.name(), format!("making batch {number} panicked: {said}")))
        })
    }

    fn make_batch(&self, number: u64, stop: &dyn Fn() -> bool) -> Result<BuiltBatch> {
        let (epoch, batch) = (number / self.turns.batches(), number % self.turns.batches());
        let mut examples = Vec::with_capacity(self.turns.order.batch_size);
        let mut skipped = Vec::new();
        for index in self.turns.indices(epoch, batch) {
            if stop() {
                return Ok(BuiltBatch { batch: None, skipped });
            }
            examples.extend(self.example(epoch, index, &mut skipped)?);
        }
        let batch = if examples.is_empty() { None } else { Some(collate(examples)?) };
        Ok(BuiltBatch { batch, skipped })
    }

    fn example(
        &self,
        epoch: u64,
        index: usize,
        skipped: &mut Vec<(usize, String)>,
    ) -> Result<Option<Example>> {
        let tries = if self.substitute { TRIES } else { 1 };
        let mut chance = Rng::of(&[self.turns.order.seed, epoch, index as u64, 1]);
        let mut candidate = index;
        for _ in 0..tries {
            let seed = Rng::of(&[self.turns.order.seed, epoch, candidate as u64]).bits();
            match self.dataset.get(candidate, seed) {
                Ok(example) => return Ok(Some(example)),
                Err(error) if self.strict => return Err(error),
                Err(error) => skipped.push((candidate, error.to_string())),
            }
            candidate = self.turns.any(&mut chance);
        }
        if !self.substitute {
            return Ok(None);
        }
        let (_, last) = skipped.last().expect("every try was skipped");
        Err(Error::data(
            self.dataset.name(),
            format!("{TRIES} images in a row could not be read, the last: {last}"),
        ))
    }
}
