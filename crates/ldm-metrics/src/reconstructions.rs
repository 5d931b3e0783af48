//! Reconstruction metrics of a first stage over a set.

use ldm_core::Result;
use tch::{Tensor, no_grad};

use crate::{FeatureNetwork, Lpips, MeanStd, Retain, SetFeatures, Trunk, psnr, ssim};

/// Metrics of images and their reconstructions, added batch by batch.
#[derive(Debug)]
pub struct Reconstructions {
    lpips: Lpips,
    network: FeatureNetwork,
    /// In dB.
    pub psnr: MeanStd,
    /// The mean structural similarity.
    pub ssim: MeanStd,
    /// The perceptual distance, by [`Reconstructions::trunk`].
    pub lpips_distance: MeanStd,
    real: SetFeatures,
    /// Features of the reconstructions, with the logits of a classifier.
    pub back: SetFeatures,
}

impl Reconstructions {
    /// Creates empty metrics.
    pub fn new(lpips: Lpips, network: FeatureNetwork) -> Self {
        let [real, back] = [Retain::Nothing, Retain::Logits].map(SetFeatures::retaining);
        let [psnr, ssim, lpips_distance] = [(); 3].map(|()| MeanStd::new());
        Self { lpips, network, psnr, ssim, lpips_distance, real, back }
    }

    /// Adds a batch; returns the PSNR of each image, `[B]`.
    ///
    /// # Shapes
    /// - `made`, `images`: `[B, 3, H, W]`; images in `[-1, 1]`; `made` is clamped to that, as on saving
    ///
    /// # Errors
    /// As [`ssim`] and [`FeatureNetwork::features`], for images that are too small.
    pub fn add(&mut self, made: &Tensor, images: &Tensor) -> Result<Tensor> {
        let made = made.clamp(-1., 1.);
        let decibels = psnr(&made, images);
        self.psnr.add(&decibels);
        self.ssim.add(&ssim(&made, images)?);
        self.lpips_distance.add(&no_grad(|| self.lpips.distance(&made, images)));
        let _ = self.real.add(&self.network, images)?;
        let _ = self.back.add(&self.network, &made)?;
        Ok(decibels)
    }

    /// Number of images.
    pub fn count(&self) -> i64 {
        self.real.count()
    }

    /// Returns the network whose features are compared.
    pub fn network(&self) -> &FeatureNetwork {
        &self.network
    }

    /// Returns the network of the perceptual distance.
    pub fn trunk(&self) -> Trunk {
        self.lpips.trunk()
    }

    /// Computes the squared Fréchet distance of images and reconstructions (rFID), and that of spatial features if the
    /// network has them.
    ///
    /// # Errors
    /// [`ldm_core::Error::Invalid`] with fewer than two images.
    pub fn frechet(&self) -> Result<(f64, Option<f64>)> {
        self.real.moments()?.frechet(&self.back.moments()?)
    }
}
