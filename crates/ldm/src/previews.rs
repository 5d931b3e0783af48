//! Previews of the denoised images during sampling.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use ldm_core::{Result, files, image};
use ldm_pipelines::{LatentDiffusion, LatentRgb};
use ldm_schedulers::SamplingStep;

/// Writer of previews, `previews/00000-step-0010.png`: one pixel per latent position, without the decoder.
#[derive(Debug)]
pub struct Previews {
    every: NonZeroUsize,
    folder: PathBuf,
    colors: LatentRgb,
    /// The first error: the observer of the steps cannot return it.
    result: Result<()>,
}

impl Previews {
    /// A writer of every `every`-th step to the folder `previews` in the folder `images`.
    ///
    /// # Errors
    /// As [`LatentRgb::fit`].
    pub fn new(every: NonZeroUsize, images: &Path, model: &LatentDiffusion) -> Result<Self> {
        let colors = LatentRgb::fit(model)?;
        Ok(Self { every, folder: Self::folder(images), colors, result: Ok(()) })
    }

    /// The folder of the previews of a folder of images.
    pub fn folder(images: &Path) -> PathBuf {
        images.join("previews")
    }

    /// Writes every N-th step of a batch whose first image is `first`.
    pub fn observe(&mut self, first: usize, step: &SamplingStep) {
        let done = step.index + 1;
        if self.result.is_ok() && done.is_multiple_of(self.every.get()) {
            self.result = self.write(first, done, step);
        }
    }

    fn write(&self, first: usize, done: usize, step: &SamplingStep) -> Result<()> {
        files::make_folder(&self.folder)?;
        let images = self.colors.images(&step.denoised.x0);
        for index in 0..images.size()[0] {
            let name = format!("{:05}-step-{done:04}.png", first + index as usize);
            image::write_png(self.folder.join(name), &images.get(index), &[])?;
        }
        Ok(())
    }

    /// Returns the first error of [`observe`](Self::observe), and resets it.
    ///
    /// # Errors
    /// That one: [`Error::Io`](ldm_core::Error::Io).
    pub fn result(&mut self) -> Result<()> {
        std::mem::replace(&mut self.result, Ok(()))
    }
}
