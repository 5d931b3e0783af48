//! Heun's method over σ/α (Karras et al. 2022, arXiv:2206.00364, algorithm 1).

use tch::Tensor;

use crate::euler::euler;
use crate::solver_step::linear_combination;
use crate::{Sampler, SamplerRun, SolverStep};

/// Heun: along the mean of the slopes at both ends of a step. Second order; asks the denoiser twice, but for a step that
/// ends without noise.
///
/// k-diffusion `sampling.py:159` `sample_heun`; diffusers' `HeunDiscreteScheduler`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Heun;

impl Sampler for Heun {
    fn walk(&self, walk: SamplerRun, x: Tensor) -> Tensor {
        let denoiser = walk.denoiser;
        walk.down(x, |SolverStep { from, to, x, denoised, .. }| {
            let ahead = euler(x, &denoised.x0, from, to);
            if to.sigma == 0. {
                return ahead;
            }
            let there = denoiser.denoise(&ahead, to).x0;
            // Both slopes are (x − α·x_0)/σ; each is gone along half the way.
            let half = (to.sigma - to.alpha * from.noise_to_signal()) / 2.;
            let [here, end] = [half / from.sigma, half / to.sigma];
            linear_combination(&[
                (to.alpha / from.alpha + here, x),
                (-here * from.alpha, &denoised.x0),
                (end, &ahead),
                (-end * to.alpha, &there),
            ])
        })
    }
}
