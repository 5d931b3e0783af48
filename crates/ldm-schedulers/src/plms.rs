//! Pseudo linear multistep (Liu et al. 2022, arXiv:2202.09778).

use tch::Tensor;

use crate::solver_step::{derivative, linear_combination};
use crate::{NoiseLevel, Sampler, SamplerRun, SolverStep};

/// PLMS: DDIM's step with the noise extrapolated from up to four steps by the formula of Adams and Bashforth. The
/// first step asks the denoiser twice.
///
/// The formula is that of even steps, whatever the ladder: second order where they are not even in σ/α.
///
/// CompVis `plms.py:113` `plms_sampling`; diffusers' `PNDMScheduler` with `skip_prk_steps`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Plms;

impl Sampler for Plms {
    fn walk(&self, walk: SamplerRun, x: Tensor) -> Tensor {
        let denoiser = walk.denoiser;
        let mut slopes: Vec<Tensor> = Vec::new(); // newest first
        walk.down(x, |step| {
            slopes.insert(0, step.derivative());
            slopes.truncate(4);
            let SolverStep { from, to, x, steps, .. } = step;
            // Liu et al. 2022, eq. 9 and 12.
            let factors: &[f64] = match slopes.len() {
                1 => &[1.],
                2 => &[3. / 2., -1. / 2.],
                3 => &[23. / 12., -16. / 12., 5. / 12.],
                _ => &[55. / 24., -59. / 24., 37. / 24., -9. / 24.],
            };
            let way = to.sigma - to.alpha * from.noise_to_signal();
            let mut terms = vec![(to.alpha / from.alpha, x)];
            terms.extend(factors.iter().zip(&slopes).map(|(factor, derivative)| (way * factor, derivative)));
            let ahead = linear_combination(&terms);
            if slopes.len() > 1 || to.sigma == 0. {
                return ahead;
            }
            // The start: the mean of the slopes at both ends, as Heun. A walk of one step has no next level to tell
            // the network of, and the reference tells it of the same again.
            let at = if steps == 1 { NoiseLevel { t: from.t, ..to } } else { to };
            let there = derivative(&ahead, &denoiser.denoise(&ahead, at).x0, at);
            linear_combination(&[(to.alpha / from.alpha, x), (way / 2., &slopes[0]), (way / 2., &there)])
        })
    }
}
