//! Validation and previews.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use ldm_core::{Error, Result};
use ldm_data::{Batch, Dataset, Loader, LoaderConfig};

use super::Trainer;
use crate::run::meter::integers;

impl Trainer {
    /// Batches of the held-out set, or of the training set if there is none.
    fn held_out(&self, count: usize, shuffle: bool) -> Result<impl Iterator<Item = Result<Batch>> + use<>> {
        self.images(self.validation.as_ref().unwrap_or(&self.data), count, shuffle)
    }

    /// Batches of `count` images of a dataset, the same at every call; 0 for all.
    pub(super) fn images(
        &self,
        data: &Arc<dyn Dataset>,
        count: usize,
        shuffle: bool,
    ) -> Result<impl Iterator<Item = Result<Batch>> + use<>> {
        let batch_size = self.loading.batch_size;
        let config = LoaderConfig {
            workers: self.loading.workers,
            strict: self.loading.strict,
            drop_last: false,
            shuffle,
            ..LoaderConfig::new(batch_size, 0)
        };
        let batches = if count == 0 { usize::MAX } else { count.div_ceil(batch_size) };
        Ok(Loader::one_pass(Arc::clone(data), config)?.take(batches))
    }

    /// Writes a preview image.
    ///
    /// # Panics
    /// If the objective renders none.
    pub(super) fn sample(&self) -> Result<PathBuf> {
        let config = &self.config.samples;
        // Shuffled, the same at every step: sets are often sorted by class.
        let mut batches = self.held_out(config.count, true)?;
        let none = || Error::data(self.run.root(), "expected an image for the preview, got none");
        let first = batches.next().ok_or_else(none)??;
        let image = self.train_step.with_ema(|objective| {
            objective.as_preview().expect("checked when samples are due").preview(&first, config)
        })?;
        let path = self.run.sample(self.state.step);
        ldm_core::image::write_png(&path, &image, &[])?;
        Ok(path)
    }

    /// Computes and logs the validation metrics.
    pub(super) fn validate(&self) -> Result<BTreeMap<String, f64>> {
        let mut batches = self.held_out(self.config.validate_images, false)?;
        let metrics = self.train_step.with_ema(|objective| match objective.as_validate() {
            Some(objective) => objective.validate(&mut batches),
            None => Ok(Vec::new()),
        })?;
        let mut line: BTreeMap<String, f64> =
            metrics.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
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
            self.run.log(&integers(&line))?;
        }
        Ok(line)
    }
}
