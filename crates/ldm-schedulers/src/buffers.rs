//! The schedule buffers of CompVis checkpoints.

use crate::{ForwardPosterior, NoiseSchedule, Parameterization};

impl NoiseSchedule {
    /// The twelve buffers that a CompVis checkpoint has at its root, by name: `[T]` f32 each,
    /// computed in f64.
    ///
    /// CompVis `ddpm.py:117` `register_schedule`.
    pub fn buffers(&self) -> Vec<(&'static str, Vec<f32>)> {
        let posterior = |read: fn(&ForwardPosterior) -> f64| self.each(|t| read(&self.posterior(t)));
        let alpha_bar = |read: fn(f64) -> f64| self.each(|t| read(self.alphas_bar[t]));
        vec![
            ("betas", self.each(|t| self.betas[t])),
            ("alphas_cumprod", alpha_bar(|a| a)),
            ("alphas_cumprod_prev", self.each(|t| self.alpha_bar_prev(t))),
            ("sqrt_alphas_cumprod", alpha_bar(f64::sqrt)),
            ("sqrt_one_minus_alphas_cumprod", alpha_bar(|a| (1. - a).sqrt())),
            ("log_one_minus_alphas_cumprod", alpha_bar(|a| (1. - a).ln())),
            ("sqrt_recip_alphas_cumprod", alpha_bar(|a| (1. / a).sqrt())),
            ("sqrt_recipm1_alphas_cumprod", alpha_bar(|a| (1. / a - 1.).sqrt())),
            ("posterior_variance", posterior(|p| p.variance)),
            ("posterior_log_variance_clipped", posterior(ForwardPosterior::log_variance_clipped)),
            ("posterior_mean_coef1", posterior(|p| p.x0)),
            ("posterior_mean_coef2", posterior(|p| p.xt)),
        ]
    }

    /// The weights of the variational bound by timestep, `[T]`; the first is that of the second, since its own is not
    /// finite.
    ///
    /// For x_0 CompVis divides by `2 * 1 - ᾱ`, that is 2 − ᾱ, where 2·(1 − ᾱ) was meant; the same is done here, as
    /// models were trained with it. CompVis has no v; Stability AI's successor weighs all timesteps of v equally.
    ///
    /// Ho et al. 2020, eq. 12. CompVis `ddpm.py:158`.
    pub fn lvlb_weights(&self, parameterization: Parameterization) -> Vec<f32> {
        let mut weights = self.each(|t| {
            let (beta, alpha_bar) = (self.betas[t], self.alphas_bar[t]);
            match parameterization {
                Parameterization::Eps => {
                    beta.powi(2) / (2. * self.posterior(t).variance * (1. - beta) * (1. - alpha_bar))
                }
                Parameterization::X0 => 0.5 * alpha_bar.sqrt() / (2. * 1. - alpha_bar),
                Parameterization::V => 1.,
            }
        });
        weights[0] = weights[1];
        weights
    }

    fn each(&self, value: impl Fn(usize) -> f64) -> Vec<f32> {
        (0..self.timesteps()).map(|t| value(t) as f32).collect()
    }
}
