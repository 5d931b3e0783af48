//! Denoising diffusion implicit models (Song et al. 2020, arXiv:2010.02502).

use ldm_core::Result;
use tch::Tensor;

use crate::sampler_config::check_eta;
use crate::sampler_run::linear_combination;
use crate::{Sampler, SamplerProperties, SamplerRun, SolverStep, Spacing};

/// DDIM: exact for a prediction that is constant along the path, first order otherwise.
///
/// CompVis `ddim.py:164` `p_sample_ddim`, which draws noise even for η = 0; here a step that uses none draws none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ddim {
    eta: f64,
}

impl Ddim {
    /// CompVis' defaults.
    pub(crate) const PROPERTIES: SamplerProperties =
        SamplerProperties::new(Spacing::Uniform).from_pure_noise();

    /// The solver with `eta` of the ancestral noise: 0 is deterministic, 1 has the variance of DDPM.
    ///
    /// # Errors
    /// When `eta` is not in `[0, 1]`: above 1 a step would add more noise than its end holds.
    pub fn new(eta: f64) -> Result<Self> {
        Ok(Self { eta: check_eta(eta)? })
    }
}

impl Sampler for Ddim {
    fn sample(&self, x: Tensor, run: SamplerRun) -> Tensor {
        run.each_step(x, |SolverStep { from, to, denoised, noise, .. }| {
            // Song et al. 2020, eq. 16 (σ_τ, the noise put back), then eq. 12.
            let beta = (1. - from.alpha_bar() / to.alpha_bar()).max(0.);
            let up = self.eta * to.sigma / from.sigma * beta.sqrt();
            let down = (to.sigma.powi(2) - up.powi(2)).max(0.).sqrt();
            let mut x = linear_combination(&[(to.alpha, &denoised.x0), (down, &denoised.eps)]);
            if up > 0. {
                x += noise.like(&x) * up;
            }
            x
        })
    }
}
