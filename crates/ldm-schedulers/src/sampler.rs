//! Solvers: how a ladder is walked down.

use std::fmt;
use std::str::FromStr;

use ldm_core::{Error, NoiseSource, Result};
use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::{Ddim, Ddpm, Denoised, Denoiser, NoiseLevel, NoiseSchedule, Spacing};

/// What an observer sees of a step: the sample it starts from, and what the denoiser said of it.
#[derive(Debug)]
pub struct Step<'a> {
    /// Number of the step, from 0.
    pub index: usize,
    /// The noise level of `x`.
    pub level: NoiseLevel,
    /// The noisy sample.
    pub x: &'a Tensor,
    /// The denoiser's answer.
    pub denoised: &'a Denoised,
}

/// A solver. Its state is its local variables: a sampler is plain data and can be used again.
pub trait Sampler: fmt::Debug {
    /// Walks `x` down `levels`, noisiest first, and returns the sample at the last of them.
    ///
    /// `x` is noise of unit variance, or a sample noised to the first level; a solver that works in another
    /// scale converts it itself. It should be f32 also when the network runs in half precision. Noise is drawn
    /// only by a step that uses it. `observe` is called once a step of the ladder.
    ///
    /// # Shapes
    /// - `x`: `[B, C, h, w]`; returns the same
    fn sample(
        &self,
        denoiser: &dyn Denoiser,
        x: Tensor,
        levels: &[NoiseLevel],
        noise: &mut dyn NoiseSource,
        observe: &mut dyn FnMut(Step),
    ) -> Tensor;
}

/// A sampler by name, as a config or a command line writes it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case", deny_unknown_fields)]
pub enum SamplerConfig {
    /// [`Ddpm`].
    Ddpm {},
    /// [`Ddim`].
    Ddim {
        /// Share of the ancestral noise, 0 (none) to 1 (as DDPM).
        #[serde(default)]
        eta: f64,
    },
}

impl SamplerConfig {
    /// Every name that [`FromStr`] reads.
    pub const NAMES: [&'static str; 2] = ["ddpm", "ddim"];

    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ddpm {} => "ddpm",
            Self::Ddim { .. } => "ddim",
        }
    }

    /// The same sampler with η.
    ///
    /// # Errors
    /// When the sampler has no η.
    pub fn with_eta(self, eta: f64) -> Result<Self> {
        match self {
            Self::Ddim { .. } => Ok(Self::Ddim { eta }),
            Self::Ddpm {} => Err(Error::invalid(format!("sampler {} has no eta", self.name()))),
        }
    }

    /// The solver.
    ///
    /// # Errors
    /// When η is not in `[0, 1]`.
    pub fn build(&self, schedule: &NoiseSchedule) -> Result<Box<dyn Sampler>> {
        Ok(match *self {
            Self::Ddpm {} => Box::new(Ddpm { v_posterior: schedule.v_posterior() }),
            Self::Ddim { eta } => Box::new(Ddim::new(eta)?),
        })
    }

    /// The spacing this sampler is used with in the reference.
    pub fn spacing(&self) -> Spacing {
        match self {
            Self::Ddpm {} => Spacing::Leading,
            Self::Ddim { .. } => Spacing::Uniform,
        }
    }

    /// The number of steps where nobody names one: every level for DDPM, else 50, as the reference's scripts; at
    /// most as many as there are levels.
    pub fn steps(&self, schedule: &NoiseSchedule) -> usize {
        match self {
            Self::Ddpm {} => schedule.timesteps(),
            Self::Ddim { .. } => schedule.timesteps().min(50),
        }
    }
}

impl FromStr for SamplerConfig {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "ddpm" => Ok(Self::Ddpm {}),
            "ddim" => Ok(Self::Ddim { eta: 0. }),
            _ => {
                let names = Self::NAMES.join(", ");
                Err(Error::invalid(format!("unknown sampler, expected one of {names}: {name}")))
            }
        }
    }
}
