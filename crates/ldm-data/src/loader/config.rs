//! Configuration and position of a loader.

use ldm_core::{Error, Result};
use tch::Device;

use crate::loader::shuffle_sampler::ShuffleSampler;

/// Configuration of a [`Loader`](crate::Loader).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoaderConfig {
    /// Examples per batch, on each rank.
    pub batch_size: usize,
    /// Seed of the order, of crops and of flips.
    pub seed: u64,
    /// Threads that build batches; with 0 the calling thread builds them.
    pub workers: usize,
    /// Leaves out a last, smaller batch of an epoch.
    pub drop_last: bool,
    /// Gives each epoch its own order.
    pub shuffle: bool,
    /// Makes an image that cannot be read an error; otherwise another one replaces it.
    pub strict: bool,
    /// This rank.
    pub rank: usize,
    /// Ranks that share an epoch.
    pub world: usize,
    /// Batches that are built ahead.
    pub prefetch: usize,
    /// The device of the model. For CUDA, workers place batches in pinned memory, from which they are copied without
    /// waiting for the device ([`ldm_core::upload`]); batches are on the CPU and their values the same.
    pub device: Device,
}

impl LoaderConfig {
    /// Creates the config of shuffled, full batches for one rank; two workers, four batches ahead.
    pub fn new(batch_size: usize, seed: u64) -> Self {
        Self {
            batch_size,
            seed,
            workers: 2,
            drop_last: true,
            shuffle: true,
            strict: false,
            rank: 0,
            world: 1,
            prefetch: 4,
            device: Device::Cpu,
        }
    }

    /// Creates the sampler of this rank over `len` examples that all ranks share.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the config is invalid, or `len` is less than one step needs.
    pub(crate) fn sampler(&self, len: usize) -> Result<ShuffleSampler> {
        let wrong = |message: String| Err(Error::invalid(format!("loader: {message}")));
        if self.batch_size == 0 || self.world == 0 {
            return wrong(format!(
                "expected batch_size and world of at least 1, got {} and {}",
                self.batch_size, self.world
            ));
        }
        if self.rank >= self.world {
            return wrong(format!("expected rank below world, got {} of {}", self.rank, self.world));
        }
        let sampler = ShuffleSampler {
            len,
            batch_size: self.batch_size,
            seed: self.seed,
            shuffle: self.shuffle,
            drop_last: self.drop_last,
            rank: self.rank,
            world: self.world,
        };
        if sampler.batches() == 0 {
            return wrong(format!(
                "expected at least one step of {} images on {} ranks, got {len} images; try a smaller batch size or \
                 drop_last: false",
                self.batch_size, self.world
            ));
        }
        Ok(sampler)
    }
}

/// Position of a loader: the batch that comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    /// Epochs completed.
    pub epoch: u64,
    /// Batches completed in this epoch.
    pub batch: u64,
}
