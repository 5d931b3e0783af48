//! The properties of a sampler, from which a run is planned.

use crate::{NoiseSchedule, Spacing};

/// The properties of a sampler, from which a run is planned; a constant of each solver.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplerProperties {
    /// The default spacing: that of the code the sampler comes from.
    pub spacing: Spacing,
    /// The default number of steps; one for each training timestep if absent.
    pub steps: Option<usize>,
    /// Denoiser evaluations per step (NFE); a run may save some at its ends.
    pub nfe_per_step: usize,
    /// Divides by the distance to the levels of earlier steps, so that noise levels must be strictly decreasing. False for
    /// PLMS, which is multistep but divides by no distance.
    pub needs_decreasing_levels: bool,
    /// Starts at σ times standard normal noise (σ/α times in k-diffusion's scale); the others start at standard normal
    /// noise.
    pub starts_at_sigma: bool,
    /// Steps from pure noise, where σ/α is not finite; the others start at σ/α = 4096.
    pub from_pure_noise: bool,
}

impl SamplerProperties {
    /// A one-step solver of one evaluation and 50 steps, which starts at unit noise and needs a finite σ/α.
    pub const fn new(spacing: Spacing) -> Self {
        Self {
            spacing,
            steps: Some(50),
            nfe_per_step: 1,
            needs_decreasing_levels: false,
            starts_at_sigma: false,
            from_pure_noise: false,
        }
    }

    /// With a default number of steps.
    #[must_use]
    pub const fn with_steps(mut self, steps: Option<usize>) -> Self {
        self.steps = steps;
        self
    }

    /// With `nfe_per_step`.
    #[must_use]
    pub const fn with_nfe_per_step(mut self, nfe: usize) -> Self {
        self.nfe_per_step = nfe;
        self
    }

    /// With `needs_decreasing_levels`.
    #[must_use]
    pub const fn needs_decreasing_levels(mut self) -> Self {
        self.needs_decreasing_levels = true;
        self
    }

    /// With `starts_at_sigma`.
    #[must_use]
    pub const fn starts_at_sigma(mut self) -> Self {
        self.starts_at_sigma = true;
        self
    }

    /// With `from_pure_noise`.
    #[must_use]
    pub const fn from_pure_noise(mut self) -> Self {
        self.from_pure_noise = true;
        self
    }

    /// The default number of steps on a schedule, at most as many as it has timesteps.
    pub fn default_steps(&self, schedule: &NoiseSchedule) -> usize {
        let total = schedule.timesteps();
        self.steps.map_or(total, |steps| total.min(steps))
    }
}
