//! Pseudo linear multistep (Liu et al. 2022, arXiv:2202.09778).

use tch::Tensor;

use crate::sampler_run::{derivative, linear_combination};
use crate::{NoiseLevel, Sampler, SamplerProperties, SamplerRun, SolverStep, Spacing};

/// PLMS: DDIM's step with the noise extrapolated from up to four steps by the Adams–Bashforth formula. The first step
/// evaluates the denoiser twice.
///
/// The formula assumes even steps in σ/α; with other noise levels the order is 2.
///
/// CompVis `plms.py:113` `plms_sampling`; diffusers' `PNDMScheduler` with `skip_prk_steps`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Plms;

impl Plms {
    /// CompVis' defaults. It does not divide by the distance between levels.
    pub(crate) const PROPERTIES: SamplerProperties = SamplerProperties::new(Spacing::Uniform);
}

impl Sampler for Plms {
    fn sample(&self, x: Tensor, run: SamplerRun) -> Tensor {
        let denoiser = run.denoiser;
        let mut derivatives: Vec<Tensor> = Vec::new(); // newest first
        run.each_step(x, |step| {
            derivatives.insert(0, step.derivative());
            derivatives.truncate(4);
            let SolverStep { from, to, x, steps, .. } = step;
            // Liu et al. 2022, eq. 9 and 12.
            let factors: &[f64] = match derivatives.len() {
                1 => &[1.],
                2 => &[3. / 2., -1. / 2.],
                3 => &[23. / 12., -16. / 12., 5. / 12.],
                _ => &[55. / 24., -59. / 24., 37. / 24., -9. / 24.],
            };
            let distance = to.sigma - to.alpha * from.noise_to_signal();
            let mut terms = vec![(to.alpha / from.alpha, x)];
            terms.extend(
                factors.iter().zip(&derivatives).map(|(factor, derivative)| (distance * factor, derivative)),
            );
            let x_next = linear_combination(&terms);
            if derivatives.len() > 1 || to.sigma == 0. {
                return x_next;
            }
            // The first step: the mean of the derivatives at both ends, as Heun. A run of one step has no next timestep,
            // and CompVis gives the network the same one again.
            let at = if steps == 1 { NoiseLevel { t: from.t, ..to } } else { to };
            let derivative_next = derivative(&x_next, &denoiser.denoise(&x_next, at).x0, at);
            linear_combination(&[
                (to.alpha / from.alpha, x),
                (distance / 2., &derivatives[0]),
                (distance / 2., &derivative_next),
            ])
        })
    }
}
