//! The features of a set, and what two sets have in common.

use ldm_core::{Error, Result};
use tch::{Device, Tensor};

use crate::{
    FeatureNetwork, FeatureStatistics, KernelDistance, Manifold, MeanStd, SetMoments, inception_score,
};

/// Of how many parts the Inception score is the mean.
const SPLITS: i64 = 10;

/// What is kept of a set beside its moments, in numbers an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kept {
    /// Features and a classifier's answers: for every measure.
    #[default]
    All,
    /// The classifier's answers: for the Inception score.
    Answers,
    /// Nothing.
    Nothing,
}

/// Features of a set of images, on the CPU. Moments are added up batch by batch; of the images themselves nothing is held.
#[derive(Debug, Default)]
pub struct SetFeatures {
    kept: Kept,
    pooled: Vec<Tensor>,
    logits: Vec<Tensor>,
    statistics: Option<FeatureStatistics>,
    spatial: Option<FeatureStatistics>,
}

/// How far two sets are apart; measures that the sets are too small for, or that the network does not have, are left out.
#[derive(Debug, Clone, PartialEq)]
pub struct SetDistance {
    /// The squared Fréchet distance.
    pub frechet: f64,
    /// That of features which know where in the image they are (sFID).
    pub spatial: Option<f64>,
    /// The kernel distance over 100 subsets of at most 1000.
    pub kernel: Option<MeanStd>,
    /// With balls that reach to the third neighbor.
    pub manifold: Option<Manifold>,
    /// Of the made images, in ten parts.
    pub inception_score: Option<MeanStd>,
}

impl SetFeatures {
    /// To which neighbor the balls of precision and recall reach (Kynkäänniemi et al. 2019).
    pub const NEIGHBOR: i64 = 3;

    /// Nothing yet, and no more than `kept` of what comes.
    pub fn keeping(kept: Kept) -> Self {
        Self { kept, ..Self::default() }
    }

    /// Adds a batch, as `network` sees it, and gives its features, `[B, D]` on the CPU.
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
        if self.kept == Kept::All {
            self.pooled.push(pooled.shallow_clone());
        }
        if self.kept != Kept::Nothing {
            self.logits.extend(found.logits.map(|logits| logits.to_device(Device::Cpu)));
        }
        Ok(pooled)
    }

    /// How many images.
    pub fn count(&self) -> i64 {
        self.statistics.as_ref().map_or(0, FeatureStatistics::count)
    }

    /// Mean and covariance.
    ///
    /// # Errors
    /// [`Error::Invalid`] with fewer than two images.
    pub fn moments(&self) -> Result<SetMoments> {
        SetMoments::of([self.statistics.as_ref(), self.spatial.as_ref()])
    }

    /// Of the images, as made ones, in ten parts; nothing with fewer, or where the network is no classifier.
    ///
    /// # Errors
    /// As [`inception_score`].
    pub fn inception_score(&self) -> Result<Option<MeanStd>> {
        let scored = !self.logits.is_empty() && self.count() >= SPLITS;
        scored.then(|| inception_score(&Tensor::cat(&self.logits, 0), SPLITS)).transpose()
    }

    /// How far from the nearest image of this set each of `features` is, `[B, D]` → `[B]` f32.
    ///
    /// # Errors
    /// [`Error::Shape`] for features of another network; [`Error::Invalid`] when none were kept.
    pub fn nearest(&mut self, features: &Tensor) -> Result<Tensor> {
        if self.pooled.is_empty() {
            return Err(Error::invalid("a set whose features were not kept has no nearest image"));
        }
        if self.pooled.len() > 1 {
            self.pooled = vec![Tensor::cat(&self.pooled, 0)];
        }
        let own = &self.pooled[0];
        if features.dim() != 2 || features.size()[1] != own.size()[1] {
            let expected = format!("[B, {}]", own.size()[1]);
            return Err(Error::Shape { what: "features".into(), expected, got: features.size() });
        }
        Ok(crate::shapes::distances(&features.to_device(Device::Cpu), own).amin([1_i64].as_slice(), false))
    }

    /// How far the `made` set is from this one, the real one.
    ///
    /// # Errors
    /// [`Error::Invalid`] with fewer than two images in a set, or where features were not kept.
    pub fn distance(&self, made: &Self) -> Result<SetDistance> {
        let of_moments = self.moments()?.distance(made)?;
        if [self, made].iter().any(|set| set.pooled.is_empty()) {
            return Err(Error::invalid("sets whose features were not kept have no more than moments"));
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
