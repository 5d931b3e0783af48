//! Noise levels, of a sample and of a batch.

use tch::{Kind, Tensor};

/// A noise level: x_t = α·x_0 + σ·ε with α² + σ² = 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NoiseLevel {
    /// The timestep given to the network, in `0..T`; may be fractional.
    pub t: f64,
    /// α, the factor of the clean sample.
    pub alpha: f64,
    /// σ, the factor of the noise.
    pub sigma: f64,
}

impl NoiseLevel {
    /// No noise: the last level of most runs. The network is never evaluated at it.
    pub const CLEAN: Self = Self { t: 0., alpha: 1., sigma: 0. };

    /// The level with signal variance ᾱ at timestep `t`.
    pub(crate) fn from_alpha_bar(t: usize, alpha_bar: f64) -> Self {
        Self { t: t as f64, alpha: alpha_bar.sqrt(), sigma: (1. - alpha_bar).sqrt() }
    }

    /// ᾱ = α², the variance of the signal.
    pub fn alpha_bar(self) -> f64 {
        self.alpha * self.alpha
    }

    /// The level with `ratio` = σ/α at timestep `t`.
    pub(crate) fn from_noise_to_signal(t: f64, ratio: f64) -> Self {
        let norm = ratio.hypot(1.);
        Self { t, alpha: 1. / norm, sigma: ratio / norm }
    }

    /// σ/α: noise over signal, the σ of Karras et al. 2022 and of k-diffusion.
    pub fn noise_to_signal(self) -> f64 {
        self.sigma / self.alpha
    }

    /// λ = ln(α/σ); infinite without noise.
    pub fn lambda(self) -> f64 {
        -self.noise_to_signal().ln()
    }

    /// This level for a whole batch like `x`.
    pub fn batch(self, x: &Tensor) -> BatchLevel {
        let options = (compute_kind(x), x.device());
        BatchLevel {
            alpha: Tensor::full([1], self.alpha, options),
            sigma: Tensor::full([1], self.sigma, options),
        }
    }
}

/// The noise levels of a batch in training, where each sample has its own.
#[derive(Debug)]
pub struct BatchLevel {
    /// α, in a shape that broadcasts over the batch: `[B, 1, 1, 1]` for images.
    pub alpha: Tensor,
    /// σ, likewise.
    pub sigma: Tensor,
}

impl BatchLevel {
    /// Adds noise: α·x_0 + σ·ε, in the dtype of `x0`.
    pub fn mix(&self, x0: &Tensor, eps: &Tensor) -> Tensor {
        (x0 * &self.alpha + eps * &self.sigma).to_kind(x0.kind())
    }
}

/// The dtype of factors: f32 for half-precision samples, f64 for f64 ones.
pub(crate) fn compute_kind(x: &Tensor) -> Kind {
    if x.kind() == Kind::Double { Kind::Double } else { Kind::Float }
}
