//! The spacings of diffusers' schedulers, whose classes differ in details.

use serde::{Deserialize, Serialize};

use crate::NoiseLevel;
use crate::sigma_table::{Interpolate, SigmaTable};

/// The spacing of a `scheduler_config.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiffusersSpacing {
    /// The classes whose details apply.
    pub family: SchedulerFamily,
    /// `timestep_spacing`.
    pub times: TimestepSpacing,
    /// `steps_offset`: added to each timestep of a leading spacing.
    pub steps_offset: usize,
    /// `use_karras_sigmas` and `use_exponential_sigmas`.
    pub sigmas: Option<SigmaSpacing>,
    /// Ends without noise (`set_alpha_to_one`, `final_sigmas_type: zero`) in place of timestep 0.
    pub to_clean: bool,
}

/// Classes of diffusers with the same spacing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum SchedulerFamily {
    /// `DDIMScheduler`, `DDPMScheduler`, `PNDMScheduler`: whole timesteps.
    Ddim,
    /// `EulerDiscreteScheduler`, `EulerAncestralDiscreteScheduler`, `HeunDiscreteScheduler`, `LMSDiscreteScheduler`: fractional
    /// timesteps. The σ range of a Karras spacing is that of the unspaced levels.
    Euler,
    /// `DPMSolverMultistepScheduler`, `UniPCMultistepScheduler`: steps + 1 points, of which the last is dropped.
    /// The σ range of a Karras spacing is that of the schedule, and its timesteps are rounded.
    Multistep,
    /// `Multistep` with timesteps rounded down: `DPMSolverMultistepScheduler` on a cosine schedule, and exponential sigmas.
    MultistepFloor,
    /// `LCMScheduler` with its `original_inference_steps`.
    Lcm(usize),
}

/// diffusers' `timestep_spacing` (Lin et al. 2023, arXiv:2305.08891, table 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimestepSpacing {
    /// Up from 0.
    Leading,
    /// Down from the last.
    Trailing,
    /// Over all, both ends visited.
    Linspace,
}

/// A spacing of σ/α, between the ends of its [`SchedulerFamily`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SigmaSpacing {
    /// Even in the seventh root (Karras et al. 2022, eq. 5).
    Karras,
    /// Even in the logarithm.
    Exponential,
}

impl DiffusersSpacing {
    /// The levels visited, noisiest first, without the one the run ends at.
    pub(crate) fn levels(self, table: &SigmaTable, steps: usize) -> Vec<NoiseLevel> {
        use SchedulerFamily::{Ddim, Euler, Lcm, Multistep, MultistepFloor};
        if let Lcm(origin) = self.family {
            return lcm(table, origin, steps);
        }
        let multistep = matches!(self.family, Multistep | MultistepFloor);
        let spaced: Vec<NoiseLevel> =
            self.times(table.last(), steps, multistep).map(|t| table.at(t, Interpolate::Sigma)).collect();
        let Some(sigmas) = self.sigmas else { return spaced };
        let ends = if multistep {
            table.ends()
        } else {
            [spaced[0].noise_to_signal(), spaced[steps - 1].noise_to_signal()]
        };
        let rounded = |level: NoiseLevel| match self.family {
            Multistep => NoiseLevel { t: level.t.round_ties_even(), ..level },
            MultistepFloor => NoiseLevel { t: level.t.floor(), ..level },
            Ddim | Euler | Lcm(_) => level,
        };
        sigmas.ratios(ends, steps).map(|ratio| rounded(table.level(ratio))).collect()
    }

    /// Timesteps, highest first, `last` being T − 1.
    fn times(self, last: f64, steps: usize, multistep: bool) -> impl Iterator<Item = f64> {
        let total = last + 1.;
        let spaced = (steps + usize::from(multistep)) as f64;
        let whole = self.family != SchedulerFamily::Euler;
        (0..steps).map(move |index| {
            let index = index as f64;
            let t = match self.times {
                TimestepSpacing::Leading => {
                    (spaced - 1. - index) * (total / spaced).floor() + self.steps_offset as f64
                }
                TimestepSpacing::Trailing => (total - index * total / steps as f64).round_ties_even() - 1.,
                // A single step starts at the last timestep; numpy's linspace would give 0.
                TimestepSpacing::Linspace => {
                    let t = last - index * last / (spaced - 1.).max(1.);
                    if whole { t.round_ties_even() } else { t }
                }
            };
            t.clamp(0., last)
        })
    }
}

impl SigmaSpacing {
    /// σ/α of the steps, between `ends`.
    pub(crate) fn ratios(self, ends: [f64; 2], steps: usize) -> impl Iterator<Item = f64> {
        let into = |ratio: f64| match self {
            Self::Karras => ratio.powf(1. / 7.),
            Self::Exponential => ratio.ln(),
        };
        let out = move |value: f64| match self {
            Self::Karras => value.powi(7),
            Self::Exponential => value.exp(),
        };
        let [from, to] = ends.map(into);
        (0..steps).map(move |index| out(from + (to - from) * index as f64 / (steps.max(2) - 1) as f64))
    }
}

/// Evenly among `origin` levels, of which the last is the schedule's last.
pub(crate) fn lcm(table: &SigmaTable, origin: usize, steps: usize) -> Vec<NoiseLevel> {
    let total = table.last() as usize + 1;
    let stride = total / origin;
    let t = |index: usize| (origin - index * origin / steps) * stride - 1;
    (0..steps).map(|index| table.at(t(index) as f64, Interpolate::Sigma)).collect()
}
