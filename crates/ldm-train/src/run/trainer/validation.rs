//! How good a model under training is: numbers and images of held-back examples.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use ldm_core::{Error, Result};
use ldm_data::{Batch, Dataset, Loader, LoaderConfig};

use super::Trainer;
use crate::run::meter::integers;

impl Trainer {
    /// Held-back images in order, or the training set's own where there are none.
    pub(super) fn held_back(
        &self,
        count: usize,
        shuffle: bool,
    ) -> Result<impl Iterator<Item = Result<Batch>> + use<>> {
        self.images(self.validation.as_ref().unwrap_or(&self.data), count, shuffle)
    }

    /// `count` images of a set, always the same; 0 for all.
    pub(super) fn images(
        &self,
        data: &Arc<dyn Dataset>,
        count: usize,
        shuffle: bool,
    ) -> Result<impl Iterator<Item = Result<Batch>> + use<>> {
        let batch_size = self.config.data.batch_size;
        let config = LoaderConfig {
            workers: self.config.data.num_workers,
            strict: self.config.data.strict,
            drop_last: false,
            shuffle,
            ..LoaderConfig::new(batch_size, 0)
        };
        let batches = if count == 0 { usize::MAX } else { count.div_ceil(batch_size) };
        Ok(Loader::one_pass(Arc::clone(data), config)?.take(batches))
    }

    /// Runs `body` with the averages in place of the weights, where there are any.
    pub(super) fn ema_parameters<T>(&self, body: impl FnOnce() -> T) -> T {
        match &self.ema {
            Some(ema) => tch::no_grad(|| ema.swapped(body)),
            None => tch::no_grad(body),
        }
    }

    /// Writes an image of how far the model is.
    pub(super) fn sample(&self) -> Result<PathBuf> {
        let config = &self.config.train.samples;
        // Shuffled, always sync_weights: sets are often sorted by class.
        let mut batches = self.held_back(config.count, true)?;
        let first = batches.next().ok_or_else(|| Error::data(self.run.root(), "no image to show"))??;
        let image = self.ema_parameters(|| self.objective.preview(&first, config))?;
        let path = self.run.sample(self.state.step);
        ldm_core::image::write_png(&path, &image, &[])?;
        Ok(path)
    }

    /// The numbers of the held-back images, logged.
    pub(super) fn validate(&self) -> Result<BTreeMap<String, f64>> {
        let mut batches = self.held_back(self.config.train.validate_images, false)?;
        let found = self.ema_parameters(|| self.objective.validate(&mut batches))?;
        let mut line: BTreeMap<String, f64> =
            found.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        if let Some(best) = &self.config.train.keep_best
            && !line.is_empty()
            && !line.contains_key(&best.metric)
        {
            let known: Vec<&str> = line.keys().map(String::as_str).collect();
            let (known, metric) = (known.join(", "), &best.metric);
            let message = format!("train.keep_best.metric: the validation gives {known}, got: {metric}");
            return Err(Error::config(self.run.config(), message));
        }
        if !line.is_empty() {
            line.insert("step".into(), self.state.step as f64);
            self.run.log(&integers(&line))?;
        }
        Ok(line)
    }
}
