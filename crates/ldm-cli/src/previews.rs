//! What is under the noise, while it is taken away.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::Context;
use ldm_core::image;
use ldm_pipelines::{LatentDiffusion, LatentRgb};
use ldm_schedulers::SamplingStep;

use crate::output;

/// Small images of latents on the way, in `previews/00000-step-0010.png`: a pixel a latent, without the decoder.
pub(crate) struct Previews {
    every: NonZeroUsize,
    folder: PathBuf,
    colors: LatentRgb,
    /// What went wrong with a file: a step has no way to say it.
    wrong: anyhow::Result<()>,
}

impl Previews {
    pub(crate) fn new(every: NonZeroUsize, images: &Path, model: &LatentDiffusion) -> anyhow::Result<Self> {
        let colors = LatentRgb::fit(model).context("--preview-every")?;
        Ok(Self { every, folder: folder(images), colors, wrong: Ok(()) })
    }

    /// Shows the step of the images from `first` on, where it is its turn.
    pub(crate) fn see(&mut self, first: usize, step: &SamplingStep) {
        let done = step.index + 1;
        if self.wrong.is_ok() && done.is_multiple_of(self.every.get()) {
            self.wrong = self.write(first, done, step);
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

    /// What went wrong so far.
    pub(crate) fn wrong(&mut self) -> anyhow::Result<()> {
        std::mem::replace(&mut self.wrong, Ok(()))
    }
}

/// Where they lie beside the images.
pub(crate) fn folder(images: &Path) -> PathBuf {
    images.join("previews")
}
