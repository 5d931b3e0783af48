//! Euler's method over σ/α (Karras et al. 2022, arXiv:2206.00364, algorithm 2 without churn).

use tch::Tensor;

use crate::sampler_run::linear_combination;
use crate::{NoiseLevel, Sampler, SamplerProperties, SamplerRun, SolverStep, Spacing};

/// Euler: along the derivative at the start of a step. First order; equal to DDIM without noise as long as the denoiser's x_0
/// and ε satisfy x = α·x_0 + σ·ε.
///
/// k-diffusion `sampling.py:118` `sample_euler`; diffusers' `EulerDiscreteScheduler`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Euler;

impl Euler {
    /// As diffusers.
    pub(crate) const PROPERTIES: SamplerProperties =
        SamplerProperties::new(Spacing::Linspace).starts_at_sigma();
}

impl Sampler for Euler {
    fn sample(&self, x: Tensor, run: SamplerRun) -> Tensor {
        run.each_step(x, |SolverStep { from, to, x, denoised, .. }| euler(x, &denoised.x0, from, to))
    }
}

/// x/α moved by (σ′/α′ − σ/α) along its derivative, at the scale of `to`. The sum does not divide by α.
pub(crate) fn euler(x: &Tensor, x0: &Tensor, from: NoiseLevel, to: NoiseLevel) -> Tensor {
    let scale = to.sigma / from.sigma;
    linear_combination(&[(scale, x), (to.alpha - from.alpha * scale, x0)])
}
