//! Latent consistency models (Luo et al. 2023, arXiv:2310.04378).

use tch::Tensor;

use crate::solver_step::linear_combination;
use crate::{Sampler, SamplerRun, SolverStep};

/// LCM: a model trained to see the end of the path from anywhere on it; each step goes there and back up with fresh
/// noise. For any other model it is a poor sampler.
///
/// diffusers' `LCMScheduler`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lcm;

/// σ_data of the two factors, and what t is multiplied by in them.
const DEVIATION: f64 = 0.5;
const TIME_SCALE: f64 = 10.;

impl Sampler for Lcm {
    fn walk(&self, walk: SamplerRun, x: Tensor) -> Tensor {
        walk.down(x, |SolverStep { from, to, x, denoised, noise, .. }| {
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
