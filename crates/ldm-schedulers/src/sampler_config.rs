//! The table of samplers: names, settings, properties and constructors.

use std::any::Any;
use std::str::FromStr;

use ldm_core::{Error, Result};
use serde::de::value::{Error as NameError, MapDeserializer};
use serde::{Deserialize, Serialize};

use crate::{
    Ddim, Ddpm, Dpm2, Dpmpp2m, Dpmpp2mSde, Dpmpp3mSde, Euler, EulerAncestral, Heun, Lcm, Lms, NoiseSchedule,
    Plms, Sampler, SamplerPlan, SamplerProperties, Spacing, UniPc,
};

/// Builds [`SamplerConfig`] from lines of name, variant with its settings, properties, and solver (a function of the
/// schedule in which the settings are variables).
macro_rules! samplers {
    ($(
        $(#[$doc:meta])* $name:literal $variant:ident { $($(#[$meta:meta])* $setting:ident: $ty:ty),* $(,)? }
            => $properties:expr, |$schedule:pat_param| $solver:expr;
    )*) => {
        /// A sampler by name with its settings, as a config or a command line states it.
        #[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "name", deny_unknown_fields)]
        pub enum SamplerConfig {
            $($(#[$doc])* #[serde(rename = $name)] $variant { $($(#[$meta])* $setting: $ty),* }),*
        }

        impl SamplerConfig {
            /// Every name.
            pub const NAMES: [&'static str; [$($name),*].len()] = [$($name),*];

            /// Its name.
            pub const fn name(&self) -> &'static str {
                match self { $(Self::$variant { .. } => $name),* }
            }

            /// Default spacing and steps, NFE per step, and other properties.
            pub fn properties(&self) -> SamplerProperties {
                match self { $(Self::$variant { .. } => $properties),* }
            }

            /// The solver.
            ///
            /// # Errors
            /// When η is not in `[0, 1]`, or there is no solver of the order.
            pub fn build(&self, schedule: &NoiseSchedule) -> Result<Box<dyn Sampler>> {
                match *self {
                    $(Self::$variant { $($setting),* } => {
                        let $schedule = schedule;
                        Ok(Box::new($solver))
                    })*
                }
            }

            /// The setting of a name and a type.
            fn setting<T: 'static>(&mut self, name: &str) -> Option<&mut T> {
                let settings: Vec<(&str, &mut dyn Any)> = match self {
                    $(Self::$variant { $($setting),* } => vec![$((stringify!($setting), $setting)),*]),*
                };
                settings.into_iter().find(|(own, _)| *own == name)?.1.downcast_mut()
            }
        }
    };
}

samplers! {
    /// [`Ddpm`].
    "ddpm" Ddpm {} => Ddpm::PROPERTIES, |schedule| Ddpm { v_posterior: schedule.v_posterior() };
    /// [`Ddim`].
    "ddim" Ddim {
        /// Fraction of the ancestral noise, 0 (none) to 1 (as DDPM).
        #[serde(default)]
        eta: f64,
    } => Ddim::PROPERTIES, |_| Ddim::new(eta)?;
    /// [`Plms`].
    "plms" Plms {} => Plms::PROPERTIES, |_| Plms;
    /// [`Euler`].
    "euler" Euler {} => Euler::PROPERTIES, |_| Euler;
    /// [`EulerAncestral`].
    "euler_a" EulerA {
        /// Fraction of the ancestral noise, 0 (as Euler) to 1.
        #[serde(default = "one")]
        eta: f64,
    } => EulerAncestral::PROPERTIES, |_| EulerAncestral::new(eta)?;
    /// [`Heun`].
    "heun" Heun {} => Heun::PROPERTIES, |_| Heun;
    /// [`Dpm2`].
    "dpm2" Dpm2 {} => Dpm2::PROPERTIES, |schedule| Dpm2::new(schedule);
    /// [`Lms`].
    "lms" Lms {} => Lms::PROPERTIES, |_| Lms;
    /// Stable Diffusion's DPM-Solver: [`Dpmpp2m`] with a first-order last step in runs of fewer than 15.
    "dpm_solver" DpmSolver {}
        => SamplerProperties { spacing: Spacing::TimeUniform, ..Dpmpp2m::PROPERTIES },
        |_| Dpmpp2m { lower_order_final: true };
    /// [`Dpmpp2m`].
    "dpmpp_2m" Dpmpp2m {
        /// First-order last step in runs of fewer than 15.
        #[serde(default)]
        lower_order_final: bool,
    } => Dpmpp2m::PROPERTIES, |_| Dpmpp2m { lower_order_final };
    /// [`Dpmpp2mSde`].
    "dpmpp_2m_sde" Dpmpp2mSde {
        /// Fraction of the reverse diffusion's noise, 0 (as 2M) to 1.
        #[serde(default = "one")]
        eta: f64,
        /// First-order last step in runs of fewer than 15.
        #[serde(default)]
        lower_order_final: bool,
    } => Dpmpp2mSde::PROPERTIES, |_| Dpmpp2mSde::new(eta, lower_order_final)?;
    /// [`Dpmpp3mSde`].
    "dpmpp_3m_sde" Dpmpp3mSde {
        /// Fraction of the reverse diffusion's noise, 0 (none) to 1.
        #[serde(default = "one")]
        eta: f64,
    } => Dpmpp3mSde::PROPERTIES, |_| Dpmpp3mSde::new(eta)?;
    /// [`UniPc`].
    "unipc" Unipc {
        /// Order of the predictor, 1 to 3.
        #[serde(default = "two")]
        order: usize,
        /// The order falls to 1 over the last steps.
        #[serde(default = "yes")]
        lower_order_final: bool,
    } => UniPc::PROPERTIES, |_| UniPc::new(order, lower_order_final)?;
    /// [`Lcm`].
    "lcm" Lcm {} => Lcm::PROPERTIES, |_| Lcm;
}

impl SamplerConfig {
    /// Every sampler, with its default settings.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::NAMES.into_iter().map(|name| name.parse().expect("a name of the table"))
    }

    /// η, where the sampler has one.
    pub fn eta(&self) -> Option<f64> {
        let mut own = *self;
        own.setting("eta").copied()
    }

    /// True if it adds noise in its steps: η is above 0, or it is one of the samplers that always do.
    pub fn adds_noise(&self) -> bool {
        self.eta().map_or(matches!(self, Self::Ddpm {} | Self::Lcm {}), |eta| eta > 0.)
    }

    /// The same sampler with η.
    ///
    /// # Errors
    /// When the sampler has no η.
    pub fn with_eta(mut self, eta: f64) -> Result<Self> {
        let name = self.name();
        let own = self.setting("eta").ok_or_else(|| {
            let takes = Self::all().filter(|sampler| sampler.eta().is_some()).map(|sampler| sampler.name());
            let takes = takes.collect::<Vec<_>>().join(", ");
            Error::invalid(format!("eta: expected a sampler that has it ({takes}), got {name}"))
        })?;
        *own = eta;
        Ok(self)
    }

    /// The default spacing: that of the code the sampler comes from.
    pub fn spacing(&self) -> Spacing {
        self.properties().spacing
    }

    /// The default number of steps: every timestep for DDPM, 4 for LCM, else 50, as CompVis' scripts; at most as
    /// many as there are timesteps.
    pub fn steps(&self, schedule: &NoiseSchedule) -> usize {
        self.properties().default_steps(schedule)
    }

    /// Plans a run of `steps` steps: noise levels, solver and initial scale, checked to fit one another.
    ///
    /// A schedule that ends in pure noise has no finite σ/α there; a sampler that needs one starts at 4096, as in
    /// diffusers.
    ///
    /// # Errors
    /// As [`SamplerPlan::new`], and when η is not in `[0, 1]` or there is no solver of the order.
    pub fn plan(&self, schedule: &NoiseSchedule, spacing: &Spacing, steps: usize) -> Result<SamplerPlan> {
        SamplerPlan::new(self.name(), self.build(schedule)?, &self.properties(), schedule, spacing, steps)
    }
}

impl FromStr for SamplerConfig {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let fields = MapDeserializer::<_, NameError>::new([("name", name)].into_iter());
        Self::deserialize(fields).map_err(|_| {
            let names = Self::NAMES.join(", ");
            Error::invalid(format!("sampler: expected one of {names}, got {name}"))
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
