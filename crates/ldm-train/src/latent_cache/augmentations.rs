//! The ways in which a set prepares an image, each a set of its own: what a cache of latents holds.

use std::path::Path;
use std::sync::Arc;

use ldm_core::{Error, Result};
use ldm_data::{Crop, Dataset, DatasetConfig};

use crate::config::RunConfig;

/// Images and seeds looked at to see whether a set prepares an image in one way.
const LOOKED_AT: usize = 4;
const SEEDS: u64 = 4;

/// The sets of which each prepares an image in one way, and how likely the second is.
pub struct Views {
    pub(crate) sets: Vec<Arc<dyn Dataset>>,
    /// Probability of the second set, the mirrored one.
    pub(crate) flip: f64,
}

impl std::fmt::Debug for Views {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Views").field("sets", &self.sets.len()).field("flip", &self.flip).finish()
    }
}

impl Views {
    /// The views of the set of `config`: one, or where images are mirrored by chance both, as they are and mirrored.
    ///
    /// # Errors
    /// [`Error::Invalid`] when images are prepared by chance otherwise, as by random crops: there are too many ways
    /// to keep them all, and fewer would be another set. As [`DatasetConfig::open`] besides.
    pub fn open(config: &DatasetConfig, base: &Path) -> Result<Self> {
        let mut flip = 0.;
        let mut sets = vec![config.clone()];
        if let DatasetConfig::Images(images) = config {
            if let crop @ (Crop::Random | Crop::RandomSquare) = images.transform.crop {
                let crop = if crop == Crop::Random { "random" } else { "random_square" };
                return Err(Error::invalid(format!(
                    "train.cache_latents: the images are cut at random (crop: {crop}), and a cache would hold one \
                     cut of each: set crop: center, or leave cache_latents out"
                )));
            }
            flip = images.transform.flip;
            if flip > 0. {
                let with = |flip: f64| {
                    let mut images = images.clone();
                    images.transform.flip = flip;
                    DatasetConfig::Images(images)
                };
                sets = vec![with(0.), with(1.)];
            }
        }
        let sets = sets.iter().map(|set| set.open(base)).collect::<Result<Vec<_>>>()?;
        let views = Self { sets, flip };
        views.check()?;
        Ok(views)
    }

    /// The views of a run's training set.
    pub(crate) fn of(config: &RunConfig) -> Result<Self> {
        Self::open(&config.data.train, config.path().parent().unwrap_or(Path::new(".")))
    }

    /// Looks whether a seed changes an image, for what the config's words do not say.
    fn check(&self) -> Result<()> {
        for set in &self.sets {
            for index in 0..set.len().min(LOOKED_AT) {
                // An image that cannot be read is the loader's to name.
                let made = |seed| set.get(index, seed).ok().map(|example| example.image);
                let first = made(0);
                if (1..SEEDS).any(|seed| made(seed) != first) {
                    return Err(Error::invalid(
                        "train.cache_latents: the set prepares its images by chance, and a cache would hold one \
                         way of each: leave one of them out",
                    ));
                }
            }
        }
        Ok(())
    }
}
