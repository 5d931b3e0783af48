//! DPM-Solver++ 2M with noise put back (Lu et al. 2022, arXiv:2211.01095, §5).

use ldm_core::Result;
use tch::Tensor;

use crate::dpmpp_2m::PreviousStep;
use crate::sampler_config::check_eta;
use crate::{Sampler, SamplerProperties, SamplerRun, SolverStep, Spacing};

/// DPM-Solver++ 2M SDE: 2M for the reverse diffusion, which replaces part of the noise at each step.
///
/// Its noise is an independent draw per step, as in diffusers (`algorithm_type: sde-dpmsolver++`). k-diffusion
/// (`sampling.py:611` `sample_dpmpp_2m_sde`, whose midpoint form this is) draws the increments of one Brownian path, so
/// that its noise for a seed depends less on the number of steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dpmpp2mSde {
    eta: f64,
    lower_order_final: bool,
}

impl Dpmpp2mSde {
    /// As k-diffusion's examples.
    pub(crate) const PROPERTIES: SamplerProperties =
        SamplerProperties::new(Spacing::Karras).needs_decreasing_levels();

    /// The solver with `eta` of the reverse diffusion's noise: 0 is 2M. With `lower_order_final` the last of fewer
    /// than 15 steps is of first order.
    ///
    /// # Errors
    /// When `eta` is not in `[0, 1]`.
    pub fn new(eta: f64, lower_order_final: bool) -> Result<Self> {
        Ok(Self { eta: check_eta(eta)?, lower_order_final })
    }
}

impl Sampler for Dpmpp2mSde {
    fn sample(&self, x: Tensor, run: SamplerRun) -> Tensor {
        let mut previous = PreviousStep::default();
        run.each_step(x, |mut step| {
            let noise = fresh_noise(&mut step, self.eta);
            let mut x = previous.step(step, self.eta, self.lower_order_final);
            if let Some(noise) = noise {
                x += noise;
            }
            x
        })
    }
}

/// The noise of a step of the reverse diffusion with η, of standard deviation σ′·√(1 − e^(−2ηh)).
pub(crate) fn fresh_noise(step: &mut SolverStep, eta: f64) -> Option<Tensor> {
    let h = step.to.lambda() - step.from.lambda();
    let deviation = step.to.sigma * (-(-2. * eta * h).exp_m1()).sqrt();
    (deviation > 0.).then(|| step.noise.like(step.x) * deviation)
}
