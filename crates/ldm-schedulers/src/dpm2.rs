//! The midpoint method in ln(σ/α), after DPM-Solver-2 (Lu et al. 2022, arXiv:2206.00927).

use tch::Tensor;

use crate::euler::euler;
use crate::sampler_run::linear_combination;
use crate::{NoiseSchedule, Sampler, SamplerProperties, SamplerRun, SigmaTable, SolverStep, Spacing};

/// DPM2: along the derivative at the geometric mean of a step's two σ/α. Second order; two denoiser evaluations per step,
/// one for a step that ends without noise.
///
/// k-diffusion `sampling.py:188` `sample_dpm_2`.
#[derive(Debug, Clone)]
pub struct Dpm2 {
    sigmas: SigmaTable,
}

impl Dpm2 {
    /// As diffusers' `KDPM2DiscreteScheduler`.
    pub(crate) const PROPERTIES: SamplerProperties =
        SamplerProperties::new(Spacing::Linspace).with_nfe_per_step(2).starts_at_sigma();

    /// The solver; `schedule` gives the timesteps of the levels in the middle of a step.
    pub fn new(schedule: &NoiseSchedule) -> Self {
        Self { sigmas: SigmaTable::new(schedule) }
    }
}

impl Sampler for Dpm2 {
    fn sample(&self, x: Tensor, run: SamplerRun) -> Tensor {
        let denoiser = run.denoiser;
        run.each_step(x, |SolverStep { from, to, x, denoised, .. }| {
            if to.sigma == 0. {
                return euler(x, &denoised.x0, from, to);
            }
            // d at the geometric mean of σ/α; then x/α moves by d·(σ'/α' − σ/α).
            let middle = self.sigmas.level((from.noise_to_signal() * to.noise_to_signal()).sqrt());
            let x_middle = euler(x, &denoised.x0, from, middle);
            let x0_middle = denoiser.denoise(&x_middle, middle).x0;
            let distance = (to.sigma - to.alpha * from.noise_to_signal()) / middle.sigma;
            linear_combination(&[
                (to.alpha / from.alpha, x),
                (distance, &x_middle),
                (-distance * middle.alpha, &x0_middle),
            ])
        })
    }
}
