//! A sampler with the noise levels of a run, checked together.

use ldm_core::{Error, NoiseSource, Result};
use tch::Tensor;

use crate::sigma_table::SigmaTable;
use crate::{
    AncestralNoise, Denoiser, NoiseLevel, NoiseSchedule, Sampler, SamplerProperties, SamplerRun,
    SamplingStep, SchedulerFamily, Spacing, TimestepSpacing,
};

/// A sampler, the noise levels it visits and the scale of its first sample, checked once to fit one another.
#[derive(Debug)]
pub struct SamplerPlan {
    levels: Vec<NoiseLevel>,
    sampler: Box<dyn Sampler>,
    /// Unit noise times this; unit noise itself where absent.
    initial_scale: Option<f64>,
}

impl SamplerPlan {
    /// Plans a run of any sampler, also one from outside this crate; `name` is used in error messages.
    /// [`SamplerConfig::plan`](crate::SamplerConfig::plan) does it for those of this crate.
    ///
    /// # Errors
    /// As [`NoiseSchedule::noise_levels`], and when a multistep sampler would visit a level twice.
    pub fn new(
        name: &str,
        sampler: Box<dyn Sampler>,
        properties: &SamplerProperties,
        schedule: &NoiseSchedule,
        spacing: &Spacing,
        steps: usize,
    ) -> Result<Self> {
        let mut levels = schedule.noise_levels(spacing, steps)?;
        let repeated = |pair: &[NoiseLevel]| pair[0].noise_to_signal() <= pair[1].noise_to_signal();
        if properties.needs_decreasing_levels
            && let Some(pair) = levels.windows(2).find(|pair| repeated(pair))
        {
            let t = pair[0].t;
            return Err(Error::invalid(format!(
                "spacing: expected less noise at each step for the multistep sampler {name}, got level {t} twice"
            )));
        }
        if !properties.from_pure_noise {
            for level in &mut levels {
                *level = SigmaTable::finite(*level);
            }
        }
        let initial_scale = scales(properties, spacing).then(|| levels[0].sigma);
        Ok(Self { levels, sampler, initial_scale })
    }

    /// The levels visited, noisiest first, and the one the last step ends at.
    pub fn levels(&self) -> &[NoiseLevel] {
        &self.levels
    }

    /// The number of steps; may be more than planned for ([`Spacing::Uniform`]: 400 of 1000 timesteps give 500).
    pub fn steps(&self) -> usize {
        self.levels.len() - 1
    }

    /// The solver, to run it over a part of the levels or with a mask.
    pub fn sampler(&self) -> &dyn Sampler {
        &*self.sampler
    }

    /// The initial sample of a run from standard normal noise: the noise times σ for Euler, Heun, DPM2 and LMS, which
    /// start at σ/α times the noise in k-diffusion; otherwise the noise itself. diffusers' schedulers of the same names
    /// scale except with a leading spacing.
    ///
    /// # Shapes
    /// - `noise`: `[B, C, h, w]`; returns the same
    pub fn initial(&self, noise: Tensor) -> Tensor {
        match self.initial_scale {
            Some(sigma) => noise * sigma,
            None => noise,
        }
    }

    /// Samples from unit noise.
    ///
    /// # Shapes
    /// - `unit_noise`: `[B, C, h, w]`; returns the same
    pub fn sample(&self, denoiser: &dyn Denoiser, unit_noise: Tensor, noise: &mut dyn NoiseSource) -> Tensor {
        self.sample_observed(denoiser, unit_noise, noise, &mut |_| {})
    }

    /// [`sample`](Self::sample) with a callback for each step.
    pub fn sample_observed(
        &self,
        denoiser: &dyn Denoiser,
        unit_noise: Tensor,
        noise: &mut dyn NoiseSource,
        observe: &mut dyn FnMut(SamplingStep),
    ) -> Tensor {
        let run = SamplerRun {
            denoiser,
            levels: &self.levels,
            mask: None,
            noise,
            ancestral: AncestralNoise::default(),
            observe,
            stop: None,
        };
        self.sampler.sample(self.initial(unit_noise), run)
    }
}

fn scales(properties: &SamplerProperties, spacing: &Spacing) -> bool {
    match spacing {
        Spacing::Leading => false,
        Spacing::Diffusers(spacing) => {
            spacing.family == SchedulerFamily::Euler && spacing.times != TimestepSpacing::Leading
        }
        _ => properties.starts_at_sigma,
    }
}
