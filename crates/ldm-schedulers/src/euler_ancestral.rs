//! Euler's method with fresh noise at each step.

use ldm_core::Result;
use tch::Tensor;

use crate::sampler_config::check_eta;
use crate::sampler_run::linear_combination;
use crate::{Sampler, SamplerProperties, SamplerRun, SolverStep, Spacing};

/// Euler ancestral: an Euler step down to σ_down, below the next level, then σ_up of new noise.
///
/// k-diffusion `sampling.py:139` `sample_euler_ancestral`; diffusers' `EulerAncestralDiscreteScheduler`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EulerAncestral {
    eta: f64,
}

impl EulerAncestral {
    /// As diffusers.
    pub(crate) const PROPERTIES: SamplerProperties =
        SamplerProperties::new(Spacing::Linspace).starts_at_sigma();

    /// The solver with `eta` of the ancestral noise: 0 is Euler, 1 has the variance of DDPM.
    ///
    /// # Errors
    /// When `eta` is not in `[0, 1]`.
    pub fn new(eta: f64) -> Result<Self> {
        Ok(Self { eta: check_eta(eta)? })
    }
}

impl Sampler for EulerAncestral {
    fn sample(&self, x: Tensor, run: SamplerRun) -> Tensor {
        run.each_step(x, |SolverStep { from, to, x, denoised, noise, .. }| {
            let end = to.noise_to_signal();
            // Song et al. 2020, eq. 16, in σ/α.
            let variance = 1. - (end / from.noise_to_signal()).powi(2);
            let up = (self.eta * end * variance.max(0.).sqrt()).min(end);
            let down = (end.powi(2) - up.powi(2)).sqrt();
            let scale = to.alpha * down / from.sigma;
            let mut x = linear_combination(&[(scale, x), (to.alpha - from.alpha * scale, &denoised.x0)]);
            if up > 0. {
                x += noise.like(&x) * (to.alpha * up);
            }
            x
        })
    }
}
