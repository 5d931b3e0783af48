//! Features of a set, and the distance of two sets.

use ldm_core::{Error, Result};
use tch::{Device, Tensor};

use crate::{
    FeatureNetwork, FeatureStatistics, KernelDistance, Manifold, MeanStd, SetMoments, inception_score,
};

/// Parts of the Inception score.
const SPLITS: i64 = 10;

/// Per-image features to retain in addition to the moments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Retain {
    /// Features and logits, for every metric.
    #[default]
    All,
    /// Logits, for the Inception score.
    Logits,
    /// None.
    Nothing,
}

/// Features of a set of images, on the CPU. Moments accumulate batch by batch; images are not stored.
#[derive(Debug, Default)]
pub struct SetFeatures {
    retain: Retain,
    pooled: Vec<Tensor>,
    logits: Vec<Tensor>,
    statistics: Option<FeatureStatistics>,
    spatial: Option<FeatureStatistics>,
}

/// Distance of two sets, without the metrics for which the sets are too small or the network lacks features.
#[derive(Debug, Clone, PartialEq)]
pub struct SetDistance {
    /// The squared Fréchet distance.
    pub frechet: f64,
    /// That of spatial features (sFID).
    pub spatial: Option<f64>,
    /// The kernel distance over 100 subsets of at most 1000.
    pub kernel: Option<MeanStd>,
    /// Precision, recall, density and coverage with the third neighbor.
    pub manifold: Option<Manifold>,
    /// Inception score of the generated images in ten parts.
    pub inception_score: Option<MeanStd>,
}

impl SetFeatures {
    /// The neighbor that bounds the balls of precision and recall (Kynkäänniemi et al. 2019).
    pub const NEIGHBOR: i64 = 3;

    /// Creates an empty set that retains `retain` of each image.
    pub fn retaining(retain: Retain) -> Self {
        Self { retain, ..Self::default() }
    }

    /// Adds the features of a batch by `network`; returns them, `[B, D]` on the CPU.
    ///
    /// # Shapes
    /// - `images`: `[B, 3, H, W]` in `[-1, 1]`
    ///
    /// # Errors
    /// As [`FeatureNetwork::features`].
    pub fn add(&mut self, network: &FeatureNetwork, images: &Tensor) -> Result<Tensor> {
        let found = network.features(images)?;
        let pooled = found.pooled.to_device(Device::Cpu);
        let counted = |statistics: &mut Option<FeatureStatistics>, features: &Tensor| {
            let empty = || FeatureStatistics::new(features.size()[1], Device::Cpu);
            statistics.get_or_insert_with(empty).add(features);
        };
        counted(&mut self.statistics, &pooled);
        if let Some(spatial) = found.spatial {
            counted(&mut self.spatial, &spatial.to_device(Device::Cpu));
        }
        if self.retain == Retain::All {
            self.pooled.push(pooled.shallow_clone());
        }
        if self.retain != Retain::Nothing {
            self.logits.extend(found.logits.map(|logits| logits.to_device(Device::Cpu)));
        }
        Ok(pooled)
    }

    /// Number of images.
    pub fn count(&self) -> i64 {
        self.statistics.as_ref().map_or(0, FeatureStatistics::count)
    }

    /// Returns mean and covariance.
    ///
    /// # Errors
    /// [`Error::Invalid`] with fewer than two images.
    pub fn moments(&self) -> Result<SetMoments> {
        SetMoments::of([self.statistics.as_ref(), self.spatial.as_ref()])
    }

    /// Computes the Inception score in ten parts; `None` with fewer images, or if the network is no classifier.
    ///
    /// # Errors
    /// As [`inception_score`].
    pub fn inception_score(&self) -> Result<Option<MeanStd>> {
        let scored = !self.logits.is_empty() && self.count() >= SPLITS;
        scored.then(|| inception_score(&Tensor::cat(&self.logits, 0), SPLITS)).transpose()
    }

    /// Computes the distance of each of `features` to the nearest image of this set, `[B, D]` → `[B]` f32.
    ///
    /// # Errors
    /// [`Error::Shape`] for features of another network; [`Error::Invalid`] if none were retained.
    pub fn nearest(&mut self, features: &Tensor) -> Result<Tensor> {
        if self.pooled.is_empty() {
            return Err(Error::invalid("features: expected retained features, got none"));
        }
        if self.pooled.len() > 1 {
            self.pooled = vec![Tensor::cat(&self.pooled, 0)];
        }
        let own = &self.pooled[0];
        if features.dim() != 2 || features.size()[1] != own.size()[1] {
            let expected = format!("[B, {}]", own.size()[1]);
            return Err(Error::Shape { what: "features".into(), expected, got: features.size() });
        }
        Ok(crate::feature_sets::distances(&features.to_device(Device::Cpu), own)
            .amin([1_i64].as_slice(), false))
    }

    /// Computes the distance of the `made` (generated) set to this one, the real one.
    ///
    /// # Errors
    /// [`Error::Invalid`] with fewer than two images in a set, or if features were not retained.
    pub fn distance(&self, made: &Self) -> Result<SetDistance> {
        let of_moments = self.moments()?.distance(made)?;
        if [self, made].iter().any(|set| set.pooled.is_empty()) {
            return Err(Error::invalid(
                "features: expected retained features in both sets, got only moments",
            ));
        }
        let [real, drawn] = [self, made].map(|set| Tensor::cat(&set.pooled, 0));
        let least = self.count().min(made.count());
        let kernel = KernelDistance { size: least.min(1000), ..KernelDistance::default() };
        Ok(SetDistance {
            kernel: (least >= 2).then(|| kernel.of(&real, &drawn)).transpose()?,
            manifold: (least > Self::NEIGHBOR)
                .then(|| Manifold::of(&real, &drawn, Self::NEIGHBOR))
                .transpose()?,
            ..of_moments
        })
    }
}
