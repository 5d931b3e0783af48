//! A sampler by name.

use std::str::FromStr;

use ldm_core::{Error, Result};
use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::sigma_table::SigmaTable;
use crate::{
    Ddim, Ddpm, Dpm2, Dpmpp2m, Dpmpp2mSde, Dpmpp3mSde, Euler, EulerAncestral, Heun, Lcm, Lms, NoiseLevel,
    NoiseSchedule, Plms, Sampler, SchedulerFamily, Spacing, TimestepSpacing, UniPc,
};

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
    /// [`Plms`].
    Plms {},
    /// [`Euler`].
    Euler {},
    /// [`EulerAncestral`].
    EulerA {
        /// Share of the ancestral noise, 0 (as Euler) to 1.
        #[serde(default = "one")]
        eta: f64,
    },
    /// [`Heun`].
    Heun {},
    /// [`Dpm2`].
    Dpm2 {},
    /// [`Lms`].
    Lms {},
    /// Stable Diffusion's DPM-Solver: [`Dpmpp2m`] with a last step of the first order where there are few.
    DpmSolver {},
    /// [`Dpmpp2m`].
    #[serde(rename = "dpmpp_2m")]
    Dpmpp2m {
        /// Of fewer than 15 steps the last is of the first order.
        #[serde(default)]
        lower_order_final: bool,
    },
    /// [`Dpmpp2mSde`].
    #[serde(rename = "dpmpp_2m_sde")]
    Dpmpp2mSde {
        /// Share of the reverse diffusion's noise, 0 (as 2M) to 1.
        #[serde(default = "one")]
        eta: f64,
        /// Of fewer than 15 steps the last is of the first order.
        #[serde(default)]
        lower_order_final: bool,
    },
    /// [`Dpmpp3mSde`].
    #[serde(rename = "dpmpp_3m_sde")]
    Dpmpp3mSde {
        /// Share of the reverse diffusion's noise, 0 (none) to 1.
        #[serde(default = "one")]
        eta: f64,
    },
    /// [`UniPc`].
    Unipc {
        /// Order of the predictor, 1 to 3.
        #[serde(default = "two")]
        order: usize,
        /// The order falls to 1 over the last steps.
        #[serde(default = "yes")]
        lower_order_final: bool,
    },
    /// [`Lcm`].
    Lcm {},
}

impl SamplerConfig {
    /// Every sampler, as its name alone means it.
    pub const ALL: [Self; 14] = [
        Self::Ddpm {},
        Self::Ddim { eta: 0. },
        Self::Plms {},
        Self::Euler {},
        Self::EulerA { eta: 1. },
        Self::Heun {},
        Self::Dpm2 {},
        Self::Lms {},
        Self::DpmSolver {},
        Self::Dpmpp2m { lower_order_final: false },
        Self::Dpmpp2mSde { eta: 1., lower_order_final: false },
        Self::Dpmpp3mSde { eta: 1. },
        Self::Unipc { order: 2, lower_order_final: true },
        Self::Lcm {},
    ];

    /// Every name that [`FromStr`] reads.
    pub const NAMES: [&'static str; 14] = {
        let mut names = [""; 14];
        let mut index = 0;
        while index < names.len() {
            names[index] = Self::ALL[index].name();
            index += 1;
        }
        names
    };

    /// Its name.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Ddpm {} => "ddpm",
            Self::Ddim { .. } => "ddim",
            Self::Plms {} => "plms",
            Self::Euler {} => "euler",
            Self::EulerA { .. } => "euler_a",
            Self::Heun {} => "heun",
            Self::Dpm2 {} => "dpm2",
            Self::Lms {} => "lms",
            Self::DpmSolver {} => "dpm_solver",
            Self::Dpmpp2m { .. } => "dpmpp_2m",
            Self::Dpmpp2mSde { .. } => "dpmpp_2m_sde",
            Self::Dpmpp3mSde { .. } => "dpmpp_3m_sde",
            Self::Unipc { .. } => "unipc",
            Self::Lcm {} => "lcm",
        }
    }

    /// η, where the sampler has one.
    pub fn eta(&self) -> Option<f64> {
        match *self {
            Self::Ddim { eta }
            | Self::EulerA { eta }
            | Self::Dpmpp2mSde { eta, .. }
            | Self::Dpmpp3mSde { eta } => Some(eta),
            _ => None,
        }
    }

    /// The same sampler with η.
    ///
    /// # Errors
    /// When the sampler has no η.
    pub fn with_eta(mut self, new: f64) -> Result<Self> {
        match &mut self {
            Self::Ddim { eta }
            | Self::EulerA { eta }
            | Self::Dpmpp2mSde { eta, .. }
            | Self::Dpmpp3mSde { eta } => *eta = new,
            _ => return Err(Error::invalid(format!("sampler {} has no eta", self.name()))),
        }
        Ok(self)
    }

    /// The solver.
    ///
    /// # Errors
    /// When η is not in `[0, 1]`, or an order is not there.
    pub fn build(&self, schedule: &NoiseSchedule) -> Result<Box<dyn Sampler>> {
        Ok(match *self {
            Self::Ddpm {} => Box::new(Ddpm { v_posterior: schedule.v_posterior() }),
            Self::Ddim { eta } => Box::new(Ddim::new(eta)?),
            Self::Plms {} => Box::new(Plms),
            Self::Euler {} => Box::new(Euler),
            Self::EulerA { eta } => Box::new(EulerAncestral::new(eta)?),
            Self::Heun {} => Box::new(Heun),
            Self::Dpm2 {} => Box::new(Dpm2::new(schedule)),
            Self::Lms {} => Box::new(Lms),
            Self::DpmSolver {} => Box::new(Dpmpp2m { lower_order_final: true }),
            Self::Dpmpp2m { lower_order_final } => Box::new(Dpmpp2m { lower_order_final }),
            Self::Dpmpp2mSde { eta, lower_order_final } => Box::new(Dpmpp2mSde::new(eta, lower_order_final)?),
            Self::Dpmpp3mSde { eta } => Box::new(Dpmpp3mSde::new(eta)?),
            Self::Unipc { order, lower_order_final } => Box::new(UniPc::new(order, lower_order_final)?),
            Self::Lcm {} => Box::new(Lcm),
        })
    }

    /// The spacing this sampler is used with where it comes from.
    pub fn spacing(&self) -> Spacing {
        match self {
            Self::Ddpm {} => Spacing::Leading,
            Self::Ddim { .. } | Self::Plms {} => Spacing::Uniform,
            Self::Euler {} | Self::EulerA { .. } | Self::Heun {} | Self::Dpm2 {} | Self::Lms {} => {
                Spacing::Linspace
            }
            Self::DpmSolver {} => Spacing::TimeUniform,
            Self::Dpmpp2m { .. } | Self::Dpmpp2mSde { .. } => Spacing::Karras,
            Self::Dpmpp3mSde { .. } => Spacing::Exponential,
            Self::Unipc { .. } => Spacing::SgmUniform,
            Self::Lcm {} => Spacing::Lcm,
        }
    }

    /// The number of steps where nobody names one: every level for DDPM, 4 for LCM, else 50, as the reference's
    /// scripts; at most as many as there are levels.
    pub fn steps(&self, schedule: &NoiseSchedule) -> usize {
        let total = schedule.timesteps();
        match self {
            Self::Ddpm {} => total,
            Self::Lcm {} => total.min(4),
            _ => total.min(50),
        }
    }

    /// [`NoiseSchedule::noise_levels`] for this sampler.
    ///
    /// A schedule that ends in pure noise has no finite σ/α there; a sampler that needs one begins at 4096, as in
    /// diffusers.
    ///
    /// # Errors
    /// As [`NoiseSchedule::noise_levels`], and when a spacing visits a level twice and the sampler, which looks back at the steps
    /// before, would divide by the distance.
    pub fn noise_levels(
        &self,
        schedule: &NoiseSchedule,
        spacing: &Spacing,
        steps: usize,
    ) -> Result<Vec<NoiseLevel>> {
        let mut levels = schedule.noise_levels(spacing, steps)?;
        let looks_back = matches!(
            self,
            Self::Lms {}
                | Self::DpmSolver {}
                | Self::Dpmpp2m { .. }
                | Self::Dpmpp2mSde { .. }
                | Self::Dpmpp3mSde { .. }
                | Self::Unipc { .. }
        );
        if looks_back
            && let Some(pair) =
                levels.windows(2).find(|pair| pair[0].noise_to_signal() <= pair[1].noise_to_signal())
        {
            let (name, t) = (self.name(), pair[0].t);
            return Err(Error::invalid(format!(
                "sampler {name} needs a level with less noise at each step, and this spacing visits {t} twice"
            )));
        }
        if !matches!(self, Self::Ddpm {} | Self::Ddim { .. } | Self::Lcm {}) {
            for level in &mut levels {
                *level = SigmaTable::finite(*level);
            }
        }
        Ok(levels)
    }

    /// What a run begins with, from noise of unit variance: σ of it where the sampler comes from k-diffusion, which
    /// starts at σ/α times the noise; else the noise as it is.
    ///
    /// diffusers does the first but for a spacing that leads; k-diffusion, always.
    pub fn start(&self, spacing: &Spacing, noise: Tensor, first: NoiseLevel) -> Tensor {
        let scaled = match spacing {
            Spacing::Leading => false,
            Spacing::Diffusers(spacing) => {
                spacing.family == SchedulerFamily::Euler && spacing.times != TimestepSpacing::Leading
            }
            _ => {
                matches!(
                    self,
                    Self::Euler {} | Self::EulerA { .. } | Self::Heun {} | Self::Dpm2 {} | Self::Lms {}
                )
            }
        };
        if scaled { noise * first.sigma } else { noise }
    }
}

impl FromStr for SamplerConfig {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|sampler| sampler.name() == name).ok_or_else(|| {
            let names = Self::NAMES.join(", ");
            Error::invalid(format!("unknown sampler, expected one of {names}: {name}"))
        })
    }
}

pub(crate) fn check_eta(eta: f64) -> Result<f64> {
    if (0. ..=1.).contains(&eta) {
        Ok(eta)
    } else {
        Err(Error::invalid(format!("eta: expected a number in [0, 1], got {eta}")))
    }
}

fn one() -> f64 {
    1.
}

fn two() -> usize {
    2
}

fn yes() -> bool {
    true
}
