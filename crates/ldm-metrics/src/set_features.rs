//! The features of a set, and what two sets have in common.

use ldm_core::{Error, Result};
use tch::{Device, Tensor};

use crate::{FeatureNetwork, FeatureStatistics, KernelDistance, Manifold, MeanStd, inception_score};

/// Of how many parts the Inception score is the mean.
const SPLITS: i64 = 10;
/// To which neighbour balls reach (Kynkäänniemi et al. 2019).
const NEIGHBOUR: i64 = 3;

/// Features of a set of pictures, on the CPU.
#[derive(Debug, Default)]
pub struct SetFeatures {
    pooled: Vec<Tensor>,
    logits: Vec<Tensor>,
    statistics: Option<FeatureStatistics>,
}

/// How far two sets are apart; measures that the sets are too small for are left out.
#[derive(Debug, Clone, PartialEq)]
pub struct SetDistance {
    /// The squared Fréchet distance.
    pub frechet: f64,
    /// The kernel distance over 100 subsets of at most 1000.
    pub kernel: Option<MeanStd>,
    /// With balls that reach to the third neighbour.
    pub manifold: Option<Manifold>,
    /// Of the made pictures, in ten parts.
    pub inception_score: Option<MeanStd>,
}

impl SetFeatures {
    /// Adds a batch, as `network` sees it.
    ///
    /// # Shapes
    /// - `pictures`: `[B, 3, H, W]` in `[-1, 1]`
    ///
    /// # Errors
    /// As [`FeatureNetwork::features`].
    pub fn add(&mut self, network: &FeatureNetwork, pictures: &Tensor) -> Result<()> {
        let found = network.features(pictures)?;
        let pooled = found.pooled.to_device(Device::Cpu);
        self.statistics
            .get_or_insert_with(|| FeatureStatistics::new(pooled.size()[1], Device::Cpu))
            .add(&pooled);
        self.pooled.push(pooled);
        self.logits.extend(found.logits.map(|logits| logits.to_device(Device::Cpu)));
        Ok(())
    }

    /// How many pictures.
    pub fn count(&self) -> i64 {
        self.statistics.as_ref().map_or(0, FeatureStatistics::count)
    }

    /// Only the Fréchet distance, as of reconstructions (rFID).
    ///
    /// # Errors
    /// [`Error::Invalid`] with fewer than two pictures in a set.
    pub fn frechet(&self, other: &Self) -> Result<f64> {
        let gaussian = |set: &Self| match &set.statistics {
            Some(statistics) => statistics.gaussian(),
            None => Err(Error::invalid("a set without pictures has no features")),
        };
        gaussian(self)?.distance(&gaussian(other)?)
    }

    /// How far the `made` set is from this one, the real one.
    ///
    /// # Errors
    /// As [`SetFeatures::frechet`].
    pub fn distance(&self, made: &Self) -> Result<SetDistance> {
        let frechet = self.frechet(made)?;
        let [real, drawn] = [self, made].map(|set| Tensor::cat(&set.pooled, 0));
        let least = self.count().min(made.count());
        let kernel = KernelDistance { size: least.min(1000), ..KernelDistance::default() };
        let scored = !made.logits.is_empty() && made.count() >= SPLITS;
        Ok(SetDistance {
            frechet,
            kernel: (least >= 2).then(|| kernel.of(&real, &drawn)).transpose()?,
            manifold: (least > NEIGHBOUR).then(|| Manifold::of(&real, &drawn, NEIGHBOUR)).transpose()?,
            inception_score: scored
                .then(|| inception_score(&Tensor::cat(&made.logits, 0), SPLITS))
                .transpose()?,
        })
    }
}
