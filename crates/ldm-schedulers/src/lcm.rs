//! Latent consistency models (Luo et al. 2023, arXiv:2310.04378).

use tch::Tensor;

use crate::sampler_run::linear_combination;
use crate::{Sampler, SamplerProperties, SamplerRun, SolverStep, Spacing};

/// LCM: for consistency models, which predict the end of the path from any point on it. Each step goes there and adds fresh
/// noise. Poor for any other model.
///
/// diffusers' `LCMScheduler`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lcm;

impl Lcm {
    /// As diffusers, in 4 steps.
    pub(crate) const PROPERTIES: SamplerProperties =
        SamplerProperties::new(Spacing::Lcm).with_steps(Some(4)).from_pure_noise();
}

/// σ_data of the two factors, and the scale of t in them.
const DEVIATION: f64 = 0.5;
const TIME_SCALE: f64 = 10.;

impl Sampler for Lcm {
    fn sample(&self, x: Tensor, run: SamplerRun) -> Tensor {
        run.each_step(x, |SolverStep { from, to, x, denoised, noise, .. }| {
            // Luo et al. 2023, eq. 9 with the factors of Song et al. 2023 (arXiv:2303.01469), appendix C.
            let time = from.t * TIME_SCALE;
            let norm = time.hypot(DEVIATION);
            let [skip, out] = [(DEVIATION / norm).powi(2), time / norm];
            let mut x = linear_combination(&[(to.alpha * out, &denoised.x0), (to.alpha * skip, x)]);
            if to.sigma > 0. {
                x += noise.like(&x) * to.sigma;
            }
            x
        })
    }
}
