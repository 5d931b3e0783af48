//! Conditions that are noised themselves: CompVis' shortened schedule of the condition, `num_timesteps_cond`.

use std::cell::RefCell;

use ldm_core::noise::{Seeded, mix};
use ldm_core::{Conditioning, Error, NoiseSource, Result};
use ldm_schedulers::{Denoised, Denoiser, NoiseLevel};
use tch::{Kind, Tensor};

use crate::diffusion_config::ConditioningKey;
use crate::{ClassifierFreeGuidance, Conditioned, Guidance, LatentDiffusion, LatentDiffusionConfig, Network};

/// Word that separates the noise of the condition from that of the sample of the same seed.
const STREAM: u64 = 44;

/// Checks `num_timesteps_cond`.
///
/// # Errors
/// [`Error::Invalid`] when it is not in `1..=timesteps`, or the model is conditioned on nothing that can be noised.
pub(crate) fn check(config: &LatentDiffusionConfig) -> Result<()> {
    let (count, timesteps) = (config.num_timesteps_cond, config.timesteps);
    if count == 0 || count > timesteps {
        let message = format!("num_timesteps_cond: expected 1 to {timesteps}, the timesteps, got {count}");
        return Err(Error::invalid(message));
    }
    match config.conditioning_key() {
        Some(ConditioningKey::Concat | ConditioningKey::Crossattn) => Ok(()),
        _ if count == 1 => Ok(()),
        key => Err(Error::invalid(format!(
            "num_timesteps_cond: expected 1, as only tokens or maps of conditioning_key crossattn or concat are noised, \
             got {count} with {}",
            key.map_or("none", ConditioningKey::name)
        ))),
    }
}

impl LatentDiffusion {
    /// True if the condition is noised, with `num_timesteps_cond` above 1.
    pub fn noises_condition(&self) -> bool {
        self.config.num_timesteps_cond > 1
    }

    /// The timestep of the condition at each timestep of the sample, `[T]` i64: `num_timesteps_cond` evenly spaced ones,
    /// and then the last. CompVis `ddpm.py:471` `make_cond_schedule`.
    fn condition_timesteps(&self) -> Tensor {
        let (count, last) = (self.config.num_timesteps_cond as i64, self.config.timesteps as i64 - 1);
        let device = self.vs().device();
        let ids = Tensor::full([last + 1], last, (Kind::Int64, device));
        let spaced = Tensor::linspace(0., last as f64, count, (Kind::Float, device)).round();
        ids.narrow(0, 0, count).copy_(&spaced.to_kind(Kind::Int64));
        ids
    }

    /// Noises tokens and maps to the timesteps of the condition that belong to those of the sample; without
    /// `num_timesteps_cond` above 1 the condition is returned as it is.
    ///
    /// # Shapes
    /// - `t`: `[B]` i64 timesteps of the sample, on the model's device
    ///
    /// CompVis `ddpm.py:870` `forward`.
    pub fn noise_condition(
        &self,
        cond: Conditioning,
        t: &Tensor,
        noise: &mut dyn NoiseSource,
    ) -> Conditioning {
        if !self.noises_condition() {
            return cond;
        }
        let t = self.condition_timesteps().index_select(0, t);
        let mut noised = |slot: Option<Tensor>| {
            slot.map(|x| self.schedule.add_noise(&x, &noise.like(&x.to_kind(Kind::Float)), &t))
        };
        Conditioning { concat: noised(cond.concat), context: noised(cond.context), label: cond.label }
    }
}

/// A denoiser whose condition is noised anew at every step, to the level that belongs to the step's.
///
/// CompVis' loop (`ddpm.py:1195`) noises the condition that it noised before, so that the noise adds up; here every step
/// starts from the clean condition, as in training. CompVis' DDIM and PLMS leave the condition clean, on which the model
/// was not trained.
pub(crate) struct NoisyConditioned<'a> {
    pub(crate) model: &'a LatentDiffusion,
    pub(crate) network: Network<'a>,
    pub(crate) cond: Conditioning,
    pub(crate) uncond: Option<Conditioning>,
    pub(crate) guidance: Guidance,
    /// The noise of the condition.
    pub(crate) noise: RefCell<Seeded>,
}

impl NoisyConditioned<'_> {
    /// A source of its own for each seed of a sample.
    pub(crate) fn noise(seeds: &[u64]) -> RefCell<Seeded> {
        RefCell::new(Seeded::new(seeds.iter().map(|seed| mix(*seed, &[STREAM]))))
    }
}

impl Denoiser for NoisyConditioned<'_> {
    fn denoise(&self, x: &Tensor, at: NoiseLevel) -> Denoised {
        let last = self.model.config.timesteps as f64 - 1.;
        let t = at.t.round().clamp(0., last) as i64;
        let t = Tensor::full([x.size()[0]], t, (Kind::Int64, x.device()));
        let noised = |cond: &Conditioning| {
            self.model.noise_condition(cond.narrow(0, x.size()[0]), &t, &mut *self.noise.borrow_mut())
        };
        let (network, cond) = (self.network.clone(), noised(&self.cond));
        match &self.uncond {
            None => Conditioned::new(network, &cond).denoise(x, at),
            Some(uncond) => {
                ClassifierFreeGuidance::new(network, &noised(uncond), &cond, self.guidance).denoise(x, at)
            }
        }
    }
}
