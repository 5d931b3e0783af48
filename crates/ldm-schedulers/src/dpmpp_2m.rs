//! DPM-Solver++ 2M (Lu et al. 2022, arXiv:2211.01095).

use tch::Tensor;

use crate::sampler_run::linear_combination;
use crate::{Sampler, SamplerProperties, SamplerRun, SolverStep, Spacing};

/// DPM-Solver++ 2M: x_0 is extrapolated linearly in λ from the last two steps. Second order; the first step, and a step
/// that ends without noise, are of first order.
///
/// k-diffusion `sampling.py:585` `sample_dpmpp_2m`; diffusers' `DPMSolverMultistepScheduler`. With
/// `lower_order_final` and the spacing `time_uniform` it is what Stable Diffusion's scripts call DPM-Solver:
/// CompVis stable-diffusion `dpm_solver/sampler.py:80`, method "multistep", order 2, which predicts x_0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dpmpp2m {
    /// First-order last step in runs of fewer than 15.
    pub lower_order_final: bool,
}

impl Dpmpp2m {
    /// As k-diffusion's examples.
    pub(crate) const PROPERTIES: SamplerProperties =
        SamplerProperties::new(Spacing::Karras).needs_decreasing_levels();
}

impl Sampler for Dpmpp2m {
    fn sample(&self, x: Tensor, run: SamplerRun) -> Tensor {
        let mut previous = PreviousStep::default();
        run.each_step(x, |step| previous.step(step, 0., self.lower_order_final))
    }
}

/// The x_0 of the previous step and its length in λ.
#[derive(Default)]
pub(crate) struct PreviousStep(Option<(Tensor, f64)>);

impl PreviousStep {
    /// The deterministic part of a step.
    ///
    /// Lu et al. 2022, algorithm 2, and with η the SDE of k-diffusion `sampling.py:611`, at the scale of x_t:
    /// D = (1 + h/2h₋)·x_0 − h/2h₋·x_0₋ and x = σ'/σ·e^(−ηh)·x + α'·(1 − e^(−h(1+η)))·D, of which the sum below collects
    /// the factors.
    pub(crate) fn step(&mut self, step: SolverStep, eta: f64, lower_order_final: bool) -> Tensor {
        let first_order = step.to.sigma == 0. || (lower_order_final && step.is_last_of_few());
        let SolverStep { from, to, x, denoised, .. } = step;
        let h = to.lambda() - from.lambda();
        // 1 − e^(−h(1+η)); 1 where the step ends without noise.
        let gain = -to.alpha * (-h * (1. + eta)).exp_m1();
        let decay = if to.sigma == 0. { 0. } else { to.sigma / from.sigma * (-eta * h).exp() };
        let x = match &self.0 {
            Some((before, last)) if !first_order => {
                let weight = h / (2. * last);
                linear_combination(&[
                    (decay, x),
                    (gain * (1. + weight), &denoised.x0),
                    (-gain * weight, before),
                ])
            }
            _ => linear_combination(&[(decay, x), (gain, &denoised.x0)]),
        };
        self.0 = Some((denoised.x0, h));
        x
    }
}
