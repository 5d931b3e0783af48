//! Posterior distribution of a latent.

use ldm_core::NoiseSource;
use tch::{Kind, Tensor};

/// Distribution of a latent given an image, over `[B, C, h, w]`.
#[derive(Debug)]
pub enum Posterior {
    /// Independent Gaussians. `logvar` lies in `[-30, 20]`.
    Gaussian {
        /// The mean, `[B, C, h, w]`.
        mean: Tensor,
        /// The logarithm of the variance, `[B, C, h, w]`.
        logvar: Tensor,
    },
    /// A single point: the latent of a VQ model before quantization, or pixels.
    Point(Tensor),
}

impl Posterior {
    /// Creates the Gaussian from the output of an encoder: means, then log-variances, clamped to `[-30, 20]`.
    ///
    /// # Shapes
    /// - `moments`: `[B, 2C, h, w]`
    ///
    /// CompVis `distributions.py:25`.
    pub fn from_moments(moments: &Tensor) -> Self {
        let channels = moments.size()[1] / 2;
        let mean = moments.narrow(1, 0, channels);
        let logvar = moments.narrow(1, channels, channels).clamp(-30., 20.);
        Self::Gaussian { mean, logvar }
    }

    /// Returns the most likely latent.
    pub fn mode(&self) -> Tensor {
        match self {
            Self::Gaussian { mean, .. } => mean.shallow_clone(),
            Self::Point(point) => point.shallow_clone(),
        }
    }

    /// Samples mean + std·ε. A point draws no noise.
    pub fn sample(&self, noise: &mut dyn NoiseSource) -> Tensor {
        match self {
            Self::Gaussian { mean, logvar } => mean + (logvar * 0.5).exp() * noise.like(mean),
            Self::Point(point) => point.shallow_clone(),
        }
    }

    /// KL(self ‖ N(0, 1)), summed over channels and pixels; 0 for a point, as in CompVis.
    ///
    /// # Shapes
    /// - returns `[B]`, f32 or wider
    ///
    /// CompVis `distributions.py:39`.
    pub fn kl(&self) -> Tensor {
        match self {
            Self::Gaussian { mean, logvar } => {
                let (mean, logvar) = (wide(mean), wide(logvar));
                sum(&(mean.square() + logvar.exp() - 1. - logvar)) * 0.5
            }
            Self::Point(point) => zero(point),
        }
    }

    /// KL(self ‖ other) of two Gaussians, summed over channels and pixels; 0 if either is a point.
    ///
    /// # Shapes
    /// - returns `[B]`, f32 or wider
    ///
    /// CompVis `distributions.py:48`.
    pub fn kl_to(&self, other: &Self) -> Tensor {
        match (self, other) {
            (Self::Gaussian { mean, logvar }, Self::Gaussian { mean: mean2, logvar: logvar2 }) => {
                let [mean, logvar, mean2, logvar2] = [mean, logvar, mean2, logvar2].map(wide);
                let distance = (mean - mean2).square() * (-&logvar2).exp();
                sum(&(distance + (&logvar - &logvar2).exp() - 1. - logvar + logvar2)) * 0.5
            }
            (one, _) => zero(&one.mode()),
        }
    }

    /// −log p(z), summed over channels and pixels; 0 for a point, as in CompVis.
    ///
    /// # Shapes
    /// - `z`: `[B, C, h, w]`
    /// - returns `[B]`, f32 or wider
    ///
    /// CompVis `distributions.py:53`.
    pub fn nll(&self, z: &Tensor) -> Tensor {
        match self {
            Self::Gaussian { mean, logvar } => {
                let [mean, logvar, z] = [mean, logvar, z].map(wide);
                let distance = (z - mean).square() * (-&logvar).exp();
                sum(&(distance + logvar + std::f64::consts::TAU.ln())) * 0.5
            }
            Self::Point(point) => zero(point),
        }
    }
}

/// The dtype for sums over `x`: half precision is too coarse for thousands of terms.
pub(crate) fn wide_kind(x: &Tensor) -> Kind {
    if x.kind() == Kind::Double { Kind::Double } else { Kind::Float }
}

fn wide(x: &Tensor) -> Tensor {
    x.to_kind(wide_kind(x))
}

fn sum(x: &Tensor) -> Tensor {
    x.sum_dim_intlist([1, 2, 3].as_slice(), false, x.kind())
}

fn zero(x: &Tensor) -> Tensor {
    Tensor::zeros([x.size()[0]], (wide_kind(x), x.device()))
}
