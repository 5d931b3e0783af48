//! Denoising diffusion implicit models (Song et al. 2020, arXiv:2010.02502).

use ldm_core::{Error, NoiseSource, Result};
use tch::Tensor;

use crate::{Denoiser, NoiseLevel, Sampler, Step};

/// DDIM: exact for a prediction that does not change along the way, first order otherwise.
///
/// CompVis `ddim.py:164` `p_sample_ddim`, which draws noise also for η = 0; here a step that needs none draws none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ddim {
    eta: f64,
}

impl Ddim {
    /// The solver with `eta` of the ancestral noise: 0 is deterministic, 1 has the variance of DDPM.
    ///
    /// # Errors
    /// When `eta` is not in `[0, 1]`: above 1 a step would add more noise than its end holds.
    pub fn new(eta: f64) -> Result<Self> {
        if (0. ..=1.).contains(&eta) {
            Ok(Self { eta })
        } else {
            Err(Error::invalid(format!("eta: expected a number in [0, 1], got {eta}")))
        }
    }
}

impl Sampler for Ddim {
    fn sample(
        &self,
        denoiser: &dyn Denoiser,
        mut x: Tensor,
        levels: &[NoiseLevel],
        noise: &mut dyn NoiseSource,
        observe: &mut dyn FnMut(Step),
    ) -> Tensor {
        for (index, pair) in levels.windows(2).enumerate() {
            let [from, to] = [pair[0], pair[1]];
            let denoised = denoiser.denoise(&x, from);
            observe(Step { index, level: from, x: &x, denoised: &denoised });
            // Song et al. 2020, eq. 16 (σ_τ, the noise put back), then eq. 12.
            let lost = (1. - from.alpha_bar() / to.alpha_bar()).max(0.);
            let up = self.eta * to.sigma / from.sigma * lost.sqrt();
            let down = (to.sigma.powi(2) - up.powi(2)).max(0.).sqrt();
            x = &denoised.x0 * to.alpha + &denoised.eps * down;
            if up > 0. {
                x += noise.like(&x) * up;
            }
        }
        x
    }
}
