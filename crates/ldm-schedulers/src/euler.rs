//! Euler's method over σ/α (Karras et al. 2022, arXiv:2206.00364, algorithm 2 without churn).

use tch::Tensor;

use crate::solver_step::linear_combination;
use crate::{NoiseLevel, Sampler, SamplerRun, SolverStep};

/// Euler: along the derivative at the start of a step. First order; DDIM without noise, but for a denoiser whose two
/// answers do not fit each other.
///
/// k-diffusion `sampling.py:118` `sample_euler`; diffusers' `EulerDiscreteScheduler`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Euler;

impl Sampler for Euler {
    fn walk(&self, walk: SamplerRun, x: Tensor) -> Tensor {
        walk.down(x, |SolverStep { from, to, x, denoised, .. }| euler(x, &denoised.x0, from, to))
    }
}

/// x/α moved by (σ′/α′ − σ/α) along its derivative, at the scale of `to`: needs no α, so that a walk may begin at pure noise.
pub(crate) fn euler(x: &Tensor, x0: &Tensor, from: NoiseLevel, to: NoiseLevel) -> Tensor {
    let left = to.sigma / from.sigma;
    linear_combination(&[(left, x), (to.alpha - from.alpha * left, x0)])
}
