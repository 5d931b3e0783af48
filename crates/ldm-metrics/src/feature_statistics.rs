//! Mean and covariance of features, and the Fréchet distance.

use ldm_core::{Error, Result};
use tch::{Device, Kind, Tensor};

/// Streaming mean and covariance of features in f64; no set is held in memory.
///
/// Batches are merged by their means (Chan et al. 1979), without cancellation.
#[derive(Debug)]
pub struct FeatureStatistics {
    count: i64,
    mean: Tensor,
    /// `[D, D]`: sum of products of deviations from the mean.
    products: Tensor,
}

impl FeatureStatistics {
    /// Creates empty statistics of `features` features per image.
    pub fn new(features: i64, device: Device) -> Self {
        let options = (Kind::Double, device);
        Self {
            count: 0,
            mean: Tensor::zeros([features], options),
            products: Tensor::zeros([features; 2], options),
        }
    }

    /// Adds a batch.
    ///
    /// # Shapes
    /// - `features`: `[B, D]`
    ///
    /// # Panics
    /// If D differs.
    pub fn add(&mut self, features: &Tensor) {
        let count = features.size()[0];
        if count == 0 {
            return;
        }
        let features = features.detach().to_device(self.mean.device()).to_kind(Kind::Double);
        let mean = features.mean_dim([0_i64].as_slice(), false, Kind::Double);
        let apart = features - &mean;
        self.merge(&Self { count, mean, products: apart.tr().matmul(&apart) });
    }

    /// Merges other statistics.
    pub fn merge(&mut self, other: &Self) {
        let (n, m) = (self.count as f64, other.count as f64);
        if m == 0. {
            return;
        }
        let gap = &other.mean - &self.mean;
        self.products += &other.products + gap.outer(&gap) * (n * m / (n + m));
        self.mean += gap * (m / (n + m));
        self.count += other.count;
    }

    /// Number of images.
    pub fn count(&self) -> i64 {
        self.count
    }

    /// `[D]` f64.
    pub fn mean(&self) -> &Tensor {
        &self.mean
    }

    /// `[D, D]` f64, divided by n − 1 as in NumPy's `cov`; NaN or Inf with fewer than two images.
    pub fn covariance(&self) -> Tensor {
        &self.products / (self.count - 1) as f64
    }

    /// Returns the moments as a Gaussian.
    ///
    /// # Errors
    /// [`Error::Invalid`] with fewer than two images.
    pub fn gaussian(&self) -> Result<Gaussian> {
        if self.count < 2 {
            return Err(Error::invalid(format!(
                "covariance: expected at least 2 images, got {}",
                self.count
            )));
        }
        Ok(Gaussian { mean: self.mean.copy(), covariance: self.covariance() })
    }
}

/// A Gaussian of features.
#[derive(Debug)]
pub struct Gaussian {
    /// `[D]` f64.
    pub mean: Tensor,
    /// `[D, D]` f64.
    pub covariance: Tensor,
}

impl Gaussian {
    /// Returns the squared Fréchet distance to another Gaussian, which is FID for Inception's features (Heusel et al.
    /// 2017, eq. 6): |μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2(Σ₁Σ₂)^½).
    ///
    /// The root's trace is the sum of the roots of the eigenvalues of Σ₁^½ Σ₂ Σ₁^½, which is symmetric; pytorch-fid takes
    /// the root of Σ₁Σ₂ by Schur's method, and adds to its diagonal if that fails.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the numbers of features differ.
    pub fn distance(&self, other: &Self) -> Result<f64> {
        let [own, others] = [self, other].map(|gaussian| gaussian.mean.size()[0]);
        if own != others {
            return Err(Error::invalid(format!(
                "features: expected equal numbers per image, got {own} and {others}"
            )));
        }
        let device = self.mean.device();
        let (mean, covariance) = (other.mean.to_device(device), other.covariance.to_device(device));
        let (values, vectors) = self.covariance.linalg_eigh("L");
        let root = (&vectors * values.clamp_min(0.).sqrt()).matmul(&vectors.tr());
        let between = root.matmul(&covariance).matmul(&root);
        let roots = between.linalg_eigvalsh("L").clamp_min(0.).sqrt().sum(Kind::Double);
        let means = (&self.mean - mean).square().sum(Kind::Double);
        let distance = means + self.covariance.trace() + covariance.trace() - roots * 2.;
        Ok(distance.double_value(&[]))
    }
}
