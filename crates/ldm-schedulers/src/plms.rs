//! Pseudo linear multistep (Liu et al. 2022, arXiv:2202.09778).

use tch::Tensor;

use crate::walk::{slope, weighted};
use crate::{NoiseLevel, Rung, Sampler, Walk};

/// PLMS: DDIM's step with the noise extrapolated from up to four steps by the formula of Adams and Bashforth. The
/// first step asks the denoiser twice.
///
/// The formula is that of even steps, whatever the ladder: second order where they are not even in σ/α.
///
/// CompVis `plms.py:113` `plms_sampling`; diffusers' `PNDMScheduler` with `skip_prk_steps`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Plms;

impl Sampler for Plms {
    fn walk(&self, walk: Walk, x: Tensor) -> Tensor {
        let denoiser = walk.denoiser;
        let mut slopes: Vec<Tensor> = Vec::new(); // newest first
        walk.down(x, |rung| {
            slopes.insert(0, rung.slope());
            slopes.truncate(4);
            let Rung { from, to, x, steps, .. } = rung;
            // Liu et al. 2022, eq. 9 and 12.
            let factors: &[f64] = match slopes.len() {
                1 => &[1.],
                2 => &[3. / 2., -1. / 2.],
                3 => &[23. / 12., -16. / 12., 5. / 12.],
                _ => &[55. / 24., -59. / 24., 37. / 24., -9. / 24.],
            };
            let way = to.sigma - to.alpha * from.ratio();
            let mut terms = vec![(to.alpha / from.alpha, x)];
            terms.extend(factors.iter().zip(&slopes).map(|(factor, slope)| (way * factor, slope)));
            let ahead = weighted(&terms);
            if slopes.len() > 1 || to.sigma == 0. {
                return ahead;
            }
            // The start: the mean of the slopes at both ends, as Heun. A walk of one step has no next level to tell
            // the network of, and the reference tells it of the same again.
            let at = if steps == 1 { NoiseLevel { t: from.t, ..to } } else { to };
            let there = slope(&ahead, &denoiser.denoise(&ahead, at).x0, at);
            weighted(&[(to.alpha / from.alpha, x), (way / 2., &slopes[0]), (way / 2., &there)])
        })
    }
}
