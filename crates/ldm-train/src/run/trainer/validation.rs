//! Validation and previews.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ldm_core::{Error, Result};
use ldm_data::{Batch, Dataset, Loader, LoaderConfig, none_readable};

use super::Trainer;
use crate::run::meter::to_json;

/// The metrics of a validation, and the errors of images that could not be read.
type ValidationLine = (BTreeMap<String, f64>, BTreeSet<String>);

impl Trainer {
    /// Batches of the held-out set, or of the training set if there is none.
    fn held_out(&self, count: usize, shuffle: bool) -> Result<FirstBatches> {
        self.images(self.held_out_set(), count, shuffle)
    }

    fn held_out_set(&self) -> &Arc<dyn Dataset> {
        self.validation.as_ref().unwrap_or(&self.data)
    }

    /// Batches of `count` images of a dataset, the same at every call; 0 for all.
    pub(super) fn images(
        &self,
        data: &Arc<dyn Dataset>,
        count: usize,
        shuffle: bool,
    ) -> Result<FirstBatches> {
        let batch_size = self.loading.batch_size;
        let config = LoaderConfig {
            workers: self.loading.workers,
            strict: self.loading.strict,
            drop_last: false,
            shuffle,
            device: self.device,
            ..LoaderConfig::new(batch_size, 0)
        };
        let batches = if count == 0 { usize::MAX } else { count.div_ceil(batch_size) };
        Ok(FirstBatches {
            loader: Loader::one_pass(Arc::clone(data), config)?,
            left: batches,
            is_empty: true,
        })
    }

    /// Writes a preview image; `None` if `stop` was set before it was there.
    ///
    /// # Panics
    /// If the objective renders none.
    pub(super) fn sample(&self, stop: &AtomicBool) -> Result<Option<PathBuf>> {
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let config = &self.config.samples;
        // Shuffled, the same at every step: sets are often sorted by class.
        let mut batches = self.held_out(config.count, true)?;
        let Some(first) = batches.next() else {
            return Err(none_readable(&**self.held_out_set(), batches.skipped().next()));
        };
        let first = first?;
        let image = self.train_step.with_ema(|objective| {
            objective.as_preview().expect("checked when samples are due").preview(&first, config, stop)
        });
        let image = match image {
            Err(Error::Stopped) => return Ok(None),
            image => image?,
        };
        let path = self.run.sample(self.state.step);
        ldm_core::image::write_png(&path, &image, &[])?;
        Ok(Some(path))
    }

    /// Computes and logs the validation metrics; returns them, and the errors of images that could not be read. `None` if
    /// `stop` was set meanwhile.
    pub(super) fn validate(&self, stop: &AtomicBool) -> Result<Option<ValidationLine>> {
        let stopped = || stop.load(Ordering::Relaxed);
        let mut batches = self.held_out(self.config.validate_images, false)?;
        let mut until_stop = batches.by_ref().take_while(|_| !stopped());
        let metrics = self.train_step.with_ema(|objective| match objective.as_validate() {
            Some(objective) => objective.validate(&mut until_stop),
            None => Ok(Vec::new()),
        })?;
        if stopped() {
            return Ok(None);
        }
        let mut line: BTreeMap<String, f64> =
            metrics.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let skipped: BTreeSet<String> = batches.skipped().map(str::to_owned).collect();
        if batches.is_empty && !skipped.is_empty() {
            return Err(none_readable(&**self.held_out_set(), batches.skipped().next()));
        }
        if !skipped.is_empty() && !line.is_empty() {
            line.insert("val/unreadable".into(), skipped.len() as f64);
        }
        if let Some(best) = &self.config.keep_best
            && !line.is_empty()
            && !line.contains_key(&best.metric)
        {
            let known: Vec<&str> = line.keys().map(String::as_str).collect();
            let message =
                format!("train.keep_best.metric: expected one of {}, got {}", known.join(", "), best.metric);
            return Err(Error::config(self.run.config(), message));
        }
        if !line.is_empty() {
            line.insert("step".into(), self.state.step as f64);
            self.run.log(&to_json(&line))?;
        }
        Ok(Some((line, skipped)))
    }
}

/// The first batches of a dataset.
pub(super) struct FirstBatches {
    loader: Loader,
    left: usize,
    /// Set until the first batch.
    is_empty: bool,
}

impl FirstBatches {
    /// Errors of the images so far that could not be read.
    fn skipped(&self) -> impl Iterator<Item = &str> {
        self.loader.skipped().values().map(String::as_str)
    }
}

impl Iterator for FirstBatches {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let batch = self.loader.next();
        self.is_empty &= batch.is_none();
        batch
    }
}
