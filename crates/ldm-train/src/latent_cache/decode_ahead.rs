//! Images of a latent cache, decoded by the loader's threads while the encoder runs.

use std::sync::Arc;

use ldm_core::Result;
use ldm_data::{Batch, Dataset, Example, Loader, LoaderConfig};
use tch::Device;

/// A dataset in chunks, in its order.
pub(super) struct DecodeAhead {
    loader: Loader,
    chunk: usize,
    /// The next chunk with a readable image, and its number.
    next: Option<(usize, Batch)>,
}

impl DecodeAhead {
    /// Starts `workers` threads that decode chunks of `chunk` images for an encoder on `device`.
    ///
    /// # Errors
    /// Those of [`Loader::one_pass`].
    pub(super) fn start(
        set: &Arc<dyn Dataset>,
        chunk: usize,
        strict: bool,
        workers: usize,
        device: Device,
    ) -> Result<Self> {
        let config = LoaderConfig { workers, strict, shuffle: false, device, ..LoaderConfig::new(chunk, 0) };
        Ok(Self { loader: Loader::one_pass(Arc::new(Unseeded(Arc::clone(set))), config)?, chunk, next: None })
    }

    /// Takes the readable images of chunk `number`, which has `count`, and their places in it; `None` if there are none.
    /// Chunks are taken in order.
    ///
    /// # Errors
    /// Those of the images, if strict; [`ldm_core::Error::Data`] when they differ in size.
    pub(super) fn take(&mut self, number: usize, count: usize) -> Result<Option<(Batch, Vec<i64>)>> {
        if self.next.is_none()
            && let Some(batch) = self.loader.next().transpose()?
        {
            let after = self.loader.position();
            let number = after.epoch * self.loader.batches() + after.batch - 1;
            self.next = Some((number as usize, batch));
        }
        Ok(self.next.take_if(|(next, _)| *next == number).map(|(_, batch)| {
            let is_readable =
                |place: &usize| !self.loader.skipped().contains_key(&(number * self.chunk + place));
            let places: Vec<i64> = (0..count).filter(is_readable).map(|place| place as i64).collect();
            assert_eq!(places.len(), batch.names.len(), "an image for each place that was not skipped");
            (batch, places)
        }))
    }
}

/// A dataset whose examples are those of seed 0.
struct Unseeded(Arc<dyn Dataset>);

impl Dataset for Unseeded {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn get(&self, index: usize, _seed: u64) -> Result<Example> {
        self.0.get(index, 0)
    }

    fn passed_over(&self) -> &[String] {
        self.0.passed_over()
    }

    fn name(&self) -> String {
        self.0.name()
    }
}
