//! Batches built ahead by worker threads, the same for any number of them.

pub(crate) mod batch;
pub(crate) mod batch_builder;
pub(crate) mod config;
pub(crate) mod rank_sampler;
pub(crate) mod shuffle_sampler;
pub(crate) mod weighted_draws;
pub(crate) mod workers;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use ldm_core::{Error, Result};

use crate::dataset::Dataset;
use crate::loader::batch::Batch;
use crate::loader::batch_builder::{BatchBuilder, BuiltBatch};
use crate::loader::config::{LoaderConfig, Position};
use crate::loader::workers::Workers;

/// Iterator over the batches of a dataset, endless or for one pass, from any position.
///
/// A batch is a function of the dataset, the config's seed, rank, world and batch size, and its position; not of the
/// workers, nor of the batches before. So a run that resumes at [`Loader::position`] gets the batches it would have
/// got.
///
/// An image that cannot be read does not stop a run: an endless loader replaces it by another one drawn from the same
/// seed, so that batches stay full on all ranks; one pass leaves it out. [`Loader::skipped`] names it. With `strict` it
/// is an error.
pub struct Loader {
    builder: Arc<BatchBuilder>,
    workers: Option<Workers>,
    /// Batches given, from the start of epoch 0.
    given: u64,
    end: Option<u64>,
    skipped: BTreeMap<usize, String>,
}

impl Loader {
    /// Creates an endless loader that starts at `start`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the config is invalid, when the dataset has fewer examples than one step needs, when
    /// `start` is past the end of its epoch, or when the last step of an epoch leaves a rank without an image.
    pub fn new(dataset: Arc<dyn Dataset>, config: LoaderConfig, start: Position) -> Result<Self> {
        let builder = BatchBuilder::new(dataset, &config, true)?;
        let (shuffle, batches) = (&builder.sampler.shuffle, builder.sampler.batches());
        if shuffle.starves_a_rank() {
            return Err(Error::invalid(format!(
                "loader: expected an image for each of {} ranks in the last step of an epoch, got {}; try drop_last: true",
                shuffle.world,
                shuffle.len % (shuffle.batch_size * shuffle.world)
            )));
        }
        if start.batch >= batches {
            return Err(Error::invalid(format!(
                "loader: expected to start at a batch below {batches}, which an epoch of this dataset has, got {}",
                start.batch
            )));
        }
        let given = start.epoch * batches + start.batch;
        Self::start(builder, &config, given, None)
    }

    /// Creates a loader of every image of epoch 0, once, e.g. for evaluation; `drop_last` does not apply. Ranks may
    /// have different numbers of batches.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the config is invalid.
    pub fn one_pass(dataset: Arc<dyn Dataset>, config: LoaderConfig) -> Result<Self> {
        let config = LoaderConfig { drop_last: false, ..config };
        let builder = BatchBuilder::new(dataset, &config, false)?;
        let end = builder.sampler.batches();
        Self::start(builder, &config, 0, Some(end))
    }

    fn start(builder: BatchBuilder, config: &LoaderConfig, given: u64, end: Option<u64>) -> Result<Self> {
        let builder = Arc::new(builder);
        let workers = (config.workers > 0)
            .then(|| Workers::start(&builder, config.workers, config.prefetch.max(1) as u64, given, end))
            .transpose()?;
        Ok(Self { builder, workers, given, end, skipped: BTreeMap::new() })
    }

    /// Batches of an epoch.
    pub fn batches(&self) -> u64 {
        self.builder.sampler.batches()
    }

    /// Takes the first `count` examples, in batches of which the last may be smaller.
    pub fn head(self, count: usize) -> LoaderHead {
        LoaderHead { loader: self, left: count }
    }

    /// The position after the batches given so far, at which a resumed loader starts.
    pub fn position(&self) -> Position {
        let batches = self.batches();
        Position { epoch: self.given / batches, batch: self.given % batches }
    }

    /// Images so far that could not be read: the index of each, and the error.
    pub fn skipped(&self) -> &BTreeMap<usize, String> {
        &self.skipped
    }

    fn build_next(&mut self) -> Result<BuiltBatch> {
        let number = self.given;
        self.given += 1;
        match &mut self.workers {
            Some(workers) => workers.take(number),
            None => self.builder.build(number, &|| false),
        }
    }
}

impl Iterator for Loader {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.end.is_none_or(|end| self.given < end) {
            let built = match self.build_next() {
                Ok(built) => built,
                Err(error) => return Some(Err(error)),
            };
            self.skipped.extend(built.skipped);
            // A batch of one pass may be empty: no image of it could be read, or all were another rank's.
            if let Some(batch) = built.batch {
                return Some(Ok(batch));
            }
        }
        None
    }
}

/// The first examples of a [`Loader`], in batches: see [`Loader::head`].
#[derive(Debug)]
pub struct LoaderHead {
    loader: Loader,
    left: usize,
}

impl LoaderHead {
    /// Errors of the images so far that could not be read, in the order of the dataset.
    pub fn skipped(&self) -> impl Iterator<Item = &str> {
        self.loader.skipped().values().map(String::as_str)
    }
}

impl Iterator for LoaderHead {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        // Does not wait for a batch that is not needed.
        let batch = if self.left > 0 { self.loader.next()? } else { return None };
        Some(batch.map(|batch| {
            let batch = batch.head(self.left);
            self.left -= batch.names.len();
            batch
        }))
    }
}

impl fmt::Debug for Loader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loader")
            .field("sampler", &self.builder.sampler)
            .field("position", &self.position())
            .finish_non_exhaustive()
    }
}
