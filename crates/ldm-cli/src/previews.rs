//! Previews of the denoised images during sampling.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::Context;
use ldm_core::image;
use ldm_pipelines::{LatentDiffusion, LatentRgb};
use ldm_schedulers::SamplingStep;

use crate::output;

/// Writer of previews, `previews/00000-step-0010.png`: one pixel per latent position, without the decoder.
pub(crate) struct Previews {
    every: NonZeroUsize,
    folder: PathBuf,
    colors: LatentRgb,
    /// The first error: the observer of the steps cannot return it.
    result: anyhow::Result<()>,
}

impl Previews {
    pub(crate) fn new(every: NonZeroUsize, images: &Path, model: &LatentDiffusion) -> anyhow::Result<Self> {
        let colors = LatentRgb::fit(model).context("--preview-every")?;
        Ok(Self { every, folder: folder(images), colors, result: Ok(()) })
    }

    /// Writes every N-th step of a batch whose first image is `first`.
    pub(crate) fn observe(&mut self, first: usize, step: &SamplingStep) {
        let done = step.index + 1;
        if self.result.is_ok() && done.is_multiple_of(self.every.get()) {
            self.result = self.write(first, done, step);
        }
    }

    fn write(&self, first: usize, done: usize, step: &SamplingStep) -> anyhow::Result<()> {
        output::make(&self.folder)?;
        let images = self.colors.images(&step.denoised.x0);
        for index in 0..images.size()[0] {
            let name = format!("{:05}-step-{done:04}.png", first + index as usize);
            image::write_png(self.folder.join(name), &images.get(index), &[])?;
        }
        Ok(())
    }

    /// Returns the first error, and resets it.
    pub(crate) fn result(&mut self) -> anyhow::Result<()> {
        std::mem::replace(&mut self.result, Ok(()))
    }
}

/// Returns the folder of the previews, next to the images.
pub(crate) fn folder(images: &Path) -> PathBuf {
    images.join("previews")
}
