//! The midpoint method in ln(σ/α), after DPM-Solver-2 (Lu et al. 2022, arXiv:2206.00927).

use tch::Tensor;

use crate::euler::euler;
use crate::solver_step::linear_combination;
use crate::{NoiseSchedule, Sampler, SamplerRun, SigmaTable, SolverStep};

/// DPM2: along the derivative at the geometric mean of a step's two σ/α. Second order; asks the denoiser twice, but for a
/// step that ends without noise.
///
/// k-diffusion `sampling.py:188` `sample_dpm_2`.
#[derive(Debug, Clone)]
pub struct Dpm2 {
    sigmas: SigmaTable,
}

impl Dpm2 {
    /// The solver; from `schedule` comes what the network is told of the levels in the middle of a step.
    pub fn new(schedule: &NoiseSchedule) -> Self {
        Self { sigmas: SigmaTable::new(schedule) }
    }
}

impl Sampler for Dpm2 {
    fn walk(&self, walk: SamplerRun, x: Tensor) -> Tensor {
        let denoiser = walk.denoiser;
        walk.down(x, |SolverStep { from, to, x, denoised, .. }| {
            if to.sigma == 0. {
                return euler(x, &denoised.x0, from, to);
            }
            let middle = self.sigmas.level((from.noise_to_signal() * to.noise_to_signal()).sqrt());
            let halfway = euler(x, &denoised.x0, from, middle);
            let there = denoiser.denoise(&halfway, middle).x0;
            let way = (to.sigma - to.alpha * from.noise_to_signal()) / middle.sigma;
            linear_combination(&[(to.alpha / from.alpha, x), (way, &halfway), (-way * middle.alpha, &there)])
        })
    }
}
