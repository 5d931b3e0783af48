//! Parameterizations: ε, x_0 and v, converted here and nowhere else.

use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::noise_level::compute_kind;
use crate::{BatchLevel, Denoised, NoiseLevel};

/// The quantity the network predicts (Salimans & Ho 2022, §4 and appendix D).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Parameterization {
    /// The noise ε (Ho et al. 2020).
    #[default]
    Eps,
    /// The clean sample x_0.
    X0,
    /// The velocity v = α·ε − σ·x_0.
    V,
}

impl Parameterization {
    /// Converts the network's output to x_0 and ε; the inverse of [`target`](Self::target).
    ///
    /// `at` must have α > 0 for [`Eps`](Self::Eps) and σ > 0 for [`X0`](Self::X0): otherwise the prediction does not
    /// determine the other quantity. [`V`](Self::V) is defined at every level.
    ///
    /// # Shapes
    /// - `output`, `x`: `[B, …]`; returns two of `[B, …]`
    ///
    /// Ho et al. 2020, eq. 15. CompVis `ddpm.py:214` `predict_start_from_noise`.
    pub fn to_denoised(self, output: Tensor, x: &Tensor, at: NoiseLevel) -> Denoised {
        let NoiseLevel { alpha, sigma, .. } = at;
        match self {
            Self::Eps => Denoised { x0: (x - &output * sigma) / alpha, eps: output },
            Self::X0 => Denoised { eps: (x - &output * alpha) / sigma, x0: output },
            Self::V => Denoised { x0: x * alpha - &output * sigma, eps: x * sigma + &output * alpha },
        }
    }

    /// Converts the network's output for a batch of several noise levels to x_0, in f32.
    ///
    /// # Shapes
    /// - `output`, `x`: `[B, …]`; returns `[B, …]`
    pub fn to_x0(self, output: &Tensor, x: &Tensor, at: &BatchLevel) -> Tensor {
        match self {
            Self::Eps => (x - output * &at.sigma) / &at.alpha,
            Self::X0 => output.to_kind(compute_kind(x)),
            Self::V => x * &at.alpha - output * &at.sigma,
        }
    }

    /// The training target of the network.
    ///
    /// # Shapes
    /// - `x0`, `eps`: `[B, …]`; returns `[B, …]`
    ///
    /// CompVis `ddpm.py:294` for ε and x_0 (CompVis has no v).
    pub fn target(self, x0: &Tensor, eps: &Tensor, at: &BatchLevel) -> Tensor {
        match self {
            Self::Eps => eps.shallow_clone(),
            Self::X0 => x0.shallow_clone(),
            Self::V => (eps * &at.alpha - x0 * &at.sigma).to_kind(x0.kind()),
        }
    }
}
