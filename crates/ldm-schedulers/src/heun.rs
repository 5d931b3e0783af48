//! Heun's method over σ/α (Karras et al. 2022, arXiv:2206.00364, algorithm 1).

use tch::Tensor;

use crate::euler::euler;
use crate::sampler_run::linear_combination;
use crate::{Sampler, SamplerProperties, SamplerRun, SolverStep, Spacing};

/// Heun: along the mean of the derivatives at both ends of a step. Second order; two denoiser evaluations per step, one for a
/// step that ends without noise.
///
/// k-diffusion `sampling.py:159` `sample_heun`; diffusers' `HeunDiscreteScheduler`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Heun;

impl Heun {
    /// As diffusers.
    pub(crate) const PROPERTIES: SamplerProperties =
        SamplerProperties::new(Spacing::Linspace).with_nfe_per_step(2).starts_at_sigma();
}

impl Sampler for Heun {
    fn sample(&self, x: Tensor, run: SamplerRun) -> Tensor {
        let denoiser = run.denoiser;
        run.each_step(x, |SolverStep { from, to, x, denoised, .. }| {
            let x_euler = euler(x, &denoised.x0, from, to);
            if to.sigma == 0. {
                return x_euler;
            }
            let x0_next = denoiser.denoise(&x_euler, to).x0;
            // Karras et al. 2022, algorithm 1, lines 5, 7 and 8, in x/α and σ/α:
            //   d = (x − α·x_0)/σ, d' = (x' − α'·x_0')/σ', x ← x + (σ' − σ)·(d + d')/2.
            // The sum below collects the factors.
            let half = (to.sigma - to.alpha * from.noise_to_signal()) / 2.;
            let [here, end] = [half / from.sigma, half / to.sigma];
            linear_combination(&[
                (to.alpha / from.alpha + here, x),
                (-here * from.alpha, &denoised.x0),
                (end, &x_euler),
                (-end * to.alpha, &x0_next),
            ])
        })
    }
}
