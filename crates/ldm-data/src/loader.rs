//! The loader: batches made ahead by worker threads, the same whatever their number.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use ldm_core::{Error, Result};

use crate::batch::Batch;
use crate::batch_builder::{BatchBuilder, BuiltBatch};
use crate::dataset::Dataset;
use crate::order::ShuffleSampler;
use crate::workers::Workers;

/// How batches are made of a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoaderConfig {
    /// Examples a batch, on each rank.
    pub batch_size: usize,
    /// The seed of the order, of crops and of flips.
    pub seed: u64,
    /// Threads that make batches; with 0 they are made by the caller's.
    pub workers: usize,
    /// Whether a last, smaller batch of an epoch is left out.
    pub drop_last: bool,
    /// Whether each epoch has its own order.
    pub shuffle: bool,
    /// Whether an image that cannot be read is an error; otherwise another takes its place.
    pub strict: bool,
    /// Which rank this is.
    pub rank: usize,
    /// How many ranks share an epoch.
    pub world: usize,
    /// How many batches are made ahead.
    pub prefetch: usize,
}

impl LoaderConfig {
    /// Shuffled, full batches for one rank; two workers, four batches ahead.
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
        }
    }
}

/// Where in the epochs a loader is: the batch it gives next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    /// Epochs completed.
    pub epoch: u64,
    /// Batches given in this epoch.
    pub batch: u64,
}

/// Gives batches, without end or for one pass, from any position.
///
/// A batch is a function of the dataset, the config's seed, rank, world and batch size, and its position; not of the
/// workers, nor of what was given before. So a run that resumes at [`Loader::position`] sees what it would have seen.
///
/// An image that cannot be read does not stop a run: in an endless loader another one, drawn by the same seed, takes
/// its place, so that batches stay full on all ranks; in one pass it is left out. [`Loader::skipped`] names it. With
/// `strict` it is an error.
pub struct Loader {
    maker: Arc<BatchBuilder>,
    workers: Option<Workers>,
    /// Batches given, from the start of epoch 0.
    given: u64,
    end: Option<u64>,
    skipped: BTreeMap<usize, String>,
}

impl Loader {
    /// A loader that goes on over the epochs without end, from `start`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the config cannot be, when the dataset has fewer examples than one step needs, when
    /// `start` is past its epoch's end, or when an epoch's last step leaves a rank without an image.
    pub fn new(dataset: Arc<dyn Dataset>, config: LoaderConfig, start: Position) -> Result<Self> {
        let maker = BatchBuilder::new(dataset, &config, true)?;
        let (order, batches) = (&maker.turns.order, maker.turns.batches());
        if order.starves_a_rank() {
            return Err(Error::invalid(format!(
                "loader: the last step of an epoch has {} images for {} ranks; set drop_last: true",
                order.len % (order.batch_size * order.world),
                order.world
            )));
        }
        if start.batch >= batches {
            return Err(Error::invalid(format!(
                "loader: cannot start at batch {}; an epoch of this dataset has {batches}",
                start.batch
            )));
        }
        let given = start.epoch * batches + start.batch;
        Self::start(maker, &config, given, None)
    }

    /// A loader that gives every image of epoch 0 once, e.g. to evaluate; `drop_last` does not apply. Ranks may give
    /// different numbers of batches.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the config cannot be.
    pub fn one_pass(dataset: Arc<dyn Dataset>, config: LoaderConfig) -> Result<Self> {
        let config = LoaderConfig { drop_last: false, ..config };
        let maker = BatchBuilder::new(dataset, &config, false)?;
        let end = maker.turns.batches();
        Self::start(maker, &config, 0, Some(end))
    }

    fn start(maker: BatchBuilder, config: &LoaderConfig, given: u64, end: Option<u64>) -> Result<Self> {
        let maker = Arc::new(maker);
        let workers = (config.workers > 0)
            .then(|| Workers::start(&maker, config.workers, config.prefetch.max(1) as u64, given, end))
            .transpose()?;
        Ok(Self { maker, workers, given, end, skipped: BTreeMap::new() })
    }

    /// How many batches an epoch has.
    pub fn batches(&self) -> u64 {
        self.maker.turns.batches()
    }

    /// The first `count` examples, in batches of which the last may be smaller.
    pub fn head(mut self, count: usize) -> impl Iterator<Item = Result<Batch>> {
        let mut left = count;
        std::iter::from_fn(move || {
            // Nothing is waited for that nobody asks for.
            let batch = if left > 0 { self.next()? } else { return None };
            Some(batch.map(|batch| {
                let batch = batch.head(left);
                left -= batch.names.len();
                batch
            }))
        })
    }

    /// Where a loader must start to go on after the batches given so far.
    pub fn position(&self) -> Position {
        let batches = self.batches();
        Position { epoch: self.given / batches, batch: self.given % batches }
    }

    /// The images among those given so far that could not be read: the number of each and what is wrong with it.
    pub fn skipped(&self) -> &BTreeMap<usize, String> {
        &self.skipped
    }

    fn make_next(&mut self) -> Result<BuiltBatch> {
        let number = self.given;
        self.given += 1;
        match &mut self.workers {
            Some(workers) => workers.take(number),
            None => self.maker.make(number, &|| false),
        }
    }
}

impl Iterator for Loader {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.end.is_none_or(|end| self.given < end) {
            let made = match self.make_next() {
                Ok(made) => made,
                Err(error) => return Some(Err(error)),
            };
            self.skipped.extend(made.skipped);
            // In one pass nothing may be left of a batch: none of its images could be read, or it was another rank's.
            if let Some(batch) = made.batch {
                return Some(Ok(batch));
            }
        }
        None
    }
}

impl fmt::Debug for Loader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loader")
            .field("order", &self.maker.turns.order)
            .field("position", &self.position())
            .finish_non_exhaustive()
    }
}

pub(crate) fn order(config: &LoaderConfig, len: usize) -> Result<ShuffleSampler> {
    let wrong = |message: String| Err(Error::invalid(format!("loader: {message}")));
    if config.batch_size == 0 || config.world == 0 {
        return wrong(format!(
            "batch_size and world must be at least 1, got {} and {}",
            config.batch_size, config.world
        ));
    }
    if config.rank >= config.world {
        return wrong(format!("rank must be below world, got {} of {}", config.rank, config.world));
    }
    let order = ShuffleSampler {
        len,
        batch_size: config.batch_size,
        seed: config.seed,
        shuffle: config.shuffle,
        drop_last: config.drop_last,
        rank: config.rank,
        world: config.world,
    };
    if order.batches() == 0 {
        return wrong(format!(
            "the dataset has {len} images, fewer than one step of {} on {} ranks; lower the batch size or set \
             drop_last: false",
            config.batch_size, config.world
        ));
    }
    Ok(order)
}
