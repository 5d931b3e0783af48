//! The deterministic variants of a dataset that a latent cache holds.

use std::path::Path;
use std::sync::Arc;

use ldm_core::{Error, Result};
use ldm_data::{Crop, Dataset, DatasetConfig};

/// Number of images and of seeds tried to detect random augmentations.
const IMAGES: usize = 4;
const SEEDS: u64 = 4;

/// The deterministic variants of a dataset: one, or with random flips the unflipped and the flipped one.
#[derive(Clone)]
pub struct Augmentations {
    pub(crate) sets: Vec<Arc<dyn Dataset>>,
    /// Probability of the second variant, the flipped one.
    pub(crate) flip: f64,
}

impl std::fmt::Debug for Augmentations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Augmentations").field("sets", &self.sets.len()).field("flip", &self.flip).finish()
    }
}

impl Augmentations {
    /// Opens the variants of the dataset of `config`; relative paths are looked up in `base`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for other random augmentations, such as random crops, which have too many variants to cache;
    /// the errors of [`DatasetConfig::open`].
    pub fn open(config: &DatasetConfig, base: &Path) -> Result<Self> {
        let mut flip = 0.;
        let mut sets = vec![config.clone()];
        if let DatasetConfig::Images(images) = config {
            if let crop @ (Crop::Random | Crop::RandomSquare) = images.transform.crop {
                let crop = if crop == Crop::Random { "random" } else { "random_square" };
                return Err(Error::invalid(format!(
                    "train.cache_latents: expected deterministic crops, got crop: {crop}; try \
                     crop: center or cache_latents: false"
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
        Self { sets, flip }.checked()
    }

    /// The only variant of a deterministic dataset.
    ///
    /// # Errors
    /// [`Error::Invalid`] when images depend on the seed.
    pub fn none(set: Arc<dyn Dataset>) -> Result<Self> {
        Self { sets: vec![set], flip: 0. }.checked()
    }

    /// Checks on a few images that they do not depend on the seed.
    fn checked(self) -> Result<Self> {
        for set in &self.sets {
            for index in 0..set.len().min(IMAGES) {
                // An unreadable image is reported by the loader.
                let image = |seed| set.get(index, seed).ok().map(|example| example.image);
                let first = image(0);
                if (1..SEEDS).any(|seed| image(seed) != first) {
                    return Err(Error::invalid(
                        "train.cache_latents: expected deterministic images, got a random augmentation; try \
                         cache_latents: false",
                    ));
                }
            }
        }
        Ok(self)
    }
}
