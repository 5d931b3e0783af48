//! Denoising diffusion probabilistic models (Ho et al. 2020, arXiv:2006.11239): ancestral sampling.

use tch::Tensor;

use crate::sampler_run::linear_combination;
use crate::{BlendOrder, NoiseLevel, Sampler, SamplerProperties, SamplerRun, SolverStep, Spacing};

/// The posterior of the forward process, q(x_to | x_from, x_0): a Gaussian with mean `x0·x_0 + xt·x_from` (Ho et al. 2020, eq. 6 and 7).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ForwardPosterior {
    /// Factor of the clean sample in the mean.
    pub x0: f64,
    /// Factor of the noisy sample in the mean.
    pub xt: f64,
    /// Variance: (1 − v)·posterior + v·β.
    pub variance: f64,
}

impl ForwardPosterior {
    /// The posterior of one step. CompVis `ddpm.py:146`.
    pub(crate) fn new(beta: f64, alpha_bar: f64, alpha_bar_prev: f64, v: f64) -> Self {
        let posterior = beta * (1. - alpha_bar_prev) / (1. - alpha_bar);
        Self {
            x0: beta * alpha_bar_prev.sqrt() / (1. - alpha_bar),
            xt: (1. - alpha_bar_prev) * (1. - beta).sqrt() / (1. - alpha_bar),
            variance: (1. - v) * posterior + v * beta,
        }
    }

    /// The posterior between any two levels, `to` the less noisy: one long step with β = 1 − ᾱ_from/ᾱ_to.
    pub fn between(from: NoiseLevel, to: NoiseLevel, v: f64) -> Self {
        Self::new(1. - from.alpha_bar() / to.alpha_bar(), from.alpha_bar(), to.alpha_bar(), v)
    }

    /// log(variance), clipped to at least log(1e-20): the variance of the last step to x_0 is 0.
    pub fn log_variance_clipped(&self) -> f64 {
        self.variance.max(1e-20).ln()
    }
}

/// DDPM: each step draws from the posterior of the next level, given the predicted clean sample.
///
/// Over the whole schedule this is CompVis' loop (`ddpm.py:249` `p_sample_loop`); over other noise levels it
/// takes the posterior between the levels visited, as diffusers does. A step that ends without noise adds none, for any
/// `v_posterior`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Ddpm {
    /// Fraction of β in the variance of a step, in `[0, 1]` (Ho et al. 2020, §3.2: 0 and 1 are the two bounds).
    pub v_posterior: f64,
}

impl Ddpm {
    /// Every timestep, as CompVis' loop.
    pub(crate) const PROPERTIES: SamplerProperties =
        SamplerProperties::new(Spacing::Leading).with_steps(None).from_pure_noise();
}

impl Sampler for Ddpm {
    fn sample(&self, x: Tensor, run: SamplerRun) -> Tensor {
        run.each_step_blended(BlendOrder::After, x, |SolverStep { from, to, x, denoised, noise, .. }| {
            let posterior = ForwardPosterior::between(from, to, self.v_posterior);
            let mut x = linear_combination(&[(posterior.x0, &denoised.x0), (posterior.xt, x)]);
            if to.sigma > 0. {
                x += noise.like(&x) * (0.5 * posterior.log_variance_clipped()).exp();
            }
            x
        })
    }
}
