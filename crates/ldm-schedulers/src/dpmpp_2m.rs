//! DPM-Solver++ 2M (Lu et al. 2022, arXiv:2211.01095).

use tch::Tensor;

use crate::solver_step::linear_combination;
use crate::{Sampler, SamplerRun, SolverStep};

/// DPM-Solver++ 2M: x_0 is taken to change evenly in λ, at the rate of the last two steps. Second order; the first
/// step, and one that ends without noise, are of the first.
///
/// k-diffusion `sampling.py:585` `sample_dpmpp_2m`; diffusers' `DPMSolverMultistepScheduler`. With
/// `lower_order_final`, down the spacing `time_uniform`, it is what Stable Diffusion's scripts call DPM-Solver:
/// CompVis stable-diffusion `dpm_solver/sampler.py:80`, method "multistep", order 2, which predicts x_0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dpmpp2m {
    /// Of fewer than 15 steps the last is of the first order.
    pub lower_order_final: bool,
}

impl Sampler for Dpmpp2m {
    fn walk(&self, walk: SamplerRun, x: Tensor) -> Tensor {
        let mut memory = Memory::default();
        walk.down(x, |step| memory.step(step, 0., self.lower_order_final))
    }
}

/// What the step before left: its x_0 and how far it went in λ.
#[derive(Default)]
pub(crate) struct Memory(Option<(Tensor, f64)>);

impl Memory {
    /// A step without its noise, of which there is more with `eta`.
    ///
    /// Lu et al. 2022, algorithm 2, and with η the SDE of k-diffusion `sampling.py:611`, at the scale of x_t.
    pub(crate) fn step(&mut self, step: SolverStep, eta: f64, lower_order_final: bool) -> Tensor {
        let first_order = step.to.sigma == 0. || (lower_order_final && step.is_last_of_few());
        let SolverStep { from, to, x, denoised, .. } = step;
        let h = to.lambda() - from.lambda();
        // 1 − e^(−h(1+η)); 1 where the step ends without noise.
        let gain = -to.alpha * (-h * (1. + eta)).exp_m1();
        let kept = if to.sigma == 0. { 0. } else { to.sigma / from.sigma * (-eta * h).exp() };
        let x = match &self.0 {
            Some((before, last)) if !first_order => {
                let ahead = h / (2. * last);
                linear_combination(&[(kept, x), (gain * (1. + ahead), &denoised.x0), (-gain * ahead, before)])
            }
            _ => linear_combination(&[(kept, x), (gain, &denoised.x0)]),
        };
        self.0 = Some((denoised.x0, h));
        x
    }
}
