//! Building a batch from its number.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use ldm_core::{Error, Result};
use tch::Device;

use crate::dataset::{Dataset, refuse_passed_over};
use crate::example::Example;
use crate::loader::batch::{Batch, collate};
use crate::loader::config::LoaderConfig;
use crate::loader::rank_sampler::RankSampler;
use crate::rng::Rng;

/// Images that are tried for one place of a batch before the loader gives up.
const TRIES: u64 = 32;

/// Builds batches: a pure function of their number.
pub(crate) struct BatchBuilder {
    dataset: Arc<dyn Dataset>,
    pub(crate) sampler: RankSampler,
    strict: bool,
    substitute: bool,
    device: Device,
}

/// A batch, and the images that could not be read for it.
pub(crate) struct BuiltBatch {
    pub(crate) batch: Option<Batch>,
    pub(crate) skipped: Vec<(usize, String)>,
}

impl BatchBuilder {
    pub(crate) fn new(dataset: Arc<dyn Dataset>, config: &LoaderConfig, substitute: bool) -> Result<Self> {
        if config.strict {
            refuse_passed_over(&*dataset)?;
        }
        let sampler = config.sampler(dataset.len())?;
        let sampler = RankSampler::new(sampler, dataset.shards_by_rank().as_deref(), config, substitute)?;
        let sampler = match dataset.weights().filter(|_| substitute) {
            Some(weights) => sampler.with_weights(weights)?,
            None => sampler,
        };
        Ok(Self { dataset, sampler, strict: config.strict, substitute, device: config.device })
    }

    /// Builds batch `number`, counted from the start of epoch 0; stops without one as soon as `stop` returns true. A
    /// panic inside the dataset becomes an error, so that no worker dies silently.
    pub(crate) fn build(&self, number: u64, stop: &dyn Fn() -> bool) -> Result<BuiltBatch> {
        // The dataset is pure, and the unfinished batch is dropped: no broken state can be observed.
        catch_unwind(AssertUnwindSafe(|| self.build_batch(number, stop))).unwrap_or_else(|panic| {
            let message = panic.downcast_ref::<&str>().map(|message| (*message).to_owned());
            let message = message.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            Err(Error::data(self.dataset.name(), format!("building batch {number} panicked: {message}")))
        })
    }

    fn build_batch(&self, number: u64, stop: &dyn Fn() -> bool) -> Result<BuiltBatch> {
        let (epoch, batch) = (number / self.sampler.batches(), number % self.sampler.batches());
        let mut examples = Vec::with_capacity(self.sampler.shuffle.batch_size);
        let mut skipped = Vec::new();
        for index in self.sampler.indices(epoch, batch) {
            if stop() {
                return Ok(BuiltBatch { batch: None, skipped });
            }
            if let Some((example, companion)) = self.example(epoch, index, &mut skipped)? {
                examples.push(example);
                examples.extend(companion);
            }
        }
        let batch = if examples.is_empty() { None } else { Some(collate(examples)?.pinned(self.device)) };
        Ok(BuiltBatch { batch, skipped })
    }

    /// Makes an example and its companion, where it has one.
    fn example(
        &self,
        epoch: u64,
        index: usize,
        skipped: &mut Vec<(usize, String)>,
    ) -> Result<Option<(Example, Option<Example>)>> {
        let tries = if self.substitute { TRIES } else { 1 };
        let mut chance = Rng::of(&[self.sampler.shuffle.seed, epoch, index as u64, 1]);
        let mut candidate = index;
        for _ in 0..tries {
            let seed = Rng::of(&[self.sampler.shuffle.seed, epoch, candidate as u64]).bits();
            let made = self.dataset.get(candidate, seed);
            match made.and_then(|example| Ok((example, self.dataset.companion(candidate, seed)?))) {
                Ok(both) => return Ok(Some(both)),
                Err(error) if self.strict => return Err(error),
                Err(error) => skipped.push((candidate, error.to_string())),
            }
            candidate = self.sampler.any(epoch, &mut chance);
        }
        if !self.substitute {
            return Ok(None);
        }
        let (_, last) = skipped.last().expect("every try was skipped");
        Err(Error::data(
            self.dataset.name(),
            format!("expected a readable image, got {TRIES} in a row that are not, the last {last}"),
        ))
    }
}
