//! Spacings: the noise levels a run visits.

use std::fmt;
use std::str::FromStr;

use ldm_core::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::DiffusersSpacing;

/// The noise levels that a run of some number of steps visits, of the `T` of the schedule.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Spacing {
    /// CompVis' DDIM: every `T / steps`-th level (rounded down), plus one, ending at timestep 0.
    ///
    /// If `steps` does not divide `T`, there are more steps than requested (30 of 1000 gives 31). A level past the last, at
    /// which CompVis fails (`steps` 300, or above `T/2`), is clamped to the last; each level appears once.
    #[default]
    Uniform,
    /// CompVis' `quad`: dense near the clean end, from 0.8·T down, ending at timestep 0. Its lowest
    /// levels repeat, as in CompVis.
    Quad,
    /// The grid of Stable Diffusion's DPM-Solver: even in t from the last level to timestep 0, at which it ends. ln α is
    /// interpolated linearly between timesteps.
    ///
    /// CompVis stable-diffusion `dpm_solver.py:410` `get_time_steps`.
    TimeUniform,
    /// Every `T / steps`-th level (rounded down) from 0, ending without noise, as diffusers' `leading`; with
    /// `steps` = `T` every level, CompVis' DDPM.
    Leading,
    /// Every `T / steps`-th level from the last down, rounded; ends without noise. diffusers' `trailing` (Lin et al.
    /// 2023, arXiv:2305.08891, §3.3).
    Trailing,
    /// Even in t from the last level to timestep 0, both visited, then without noise. σ/α is interpolated linearly between
    /// timesteps. diffusers' `linspace` as in its Euler.
    Linspace,
    /// Even in the seventh root of σ/α over the whole schedule, then without noise (Karras et al. 2022,
    /// arXiv:2206.00364, eq. 5).
    Karras,
    /// Even in ln(σ/α) over the whole schedule, then without noise. k-diffusion `sampling.py:26`.
    Exponential,
    /// Even in t from the last level to timestep 0, which is left out, then without noise: the common web UIs'
    /// `sgm_uniform`. ln(σ/α) is interpolated linearly between timesteps.
    SgmUniform,
    /// Align Your Steps for Stable Diffusion v1 (Sabour, Fidler & Kreis 2024, arXiv:2404.14507): ten optimized levels,
    /// interpolated for other numbers of steps; then without noise. Only on its noise schedule.
    AlignYourSteps,
    /// The levels a latent consistency model is trained at: even among 50 levels that end in the last; then without noise.
    /// diffusers' `LCMScheduler`.
    Lcm,
    /// These timesteps, falling, then without noise. ln(σ/α) is interpolated linearly between timesteps.
    Explicit(Vec<f64>),
    /// The levels of one of diffusers' schedulers.
    Diffusers(DiffusersSpacing),
}

impl Spacing {
    /// Every name that [`FromStr`] reads.
    pub const NAMES: [&'static str; 11] = [
        "uniform",
        "quad",
        "time_uniform",
        "leading",
        "trailing",
        "linspace",
        "karras",
        "exponential",
        "sgm_uniform",
        "align_your_steps",
        "lcm",
    ];

    /// The number of steps, where the spacing is a list.
    pub fn steps(&self) -> Option<usize> {
        match self {
            Self::Explicit(list) => Some(list.len()),
            _ => None,
        }
    }
}

/// A name of [`Spacing::NAMES`], or a list: `999,750.5,300`.
impl FromStr for Spacing {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Ok(match name {
            "uniform" => Self::Uniform,
            "quad" => Self::Quad,
            "time_uniform" => Self::TimeUniform,
            "leading" => Self::Leading,
            "trailing" => Self::Trailing,
            "linspace" => Self::Linspace,
            "karras" => Self::Karras,
            "exponential" => Self::Exponential,
            "sgm_uniform" => Self::SgmUniform,
            "align_your_steps" => Self::AlignYourSteps,
            "lcm" => Self::Lcm,
            _ => {
                let list: std::result::Result<_, _> = name.split(',').map(|t| t.trim().parse()).collect();
                Self::Explicit(list.map_err(|_| {
                    let names = Self::NAMES.join(", ");
                    Error::invalid(format!(
                        "spacing: expected one of {names} or levels as 999,500,1, got {name}"
                    ))
                })?)
            }
        })
    }
}

/// The name that [`FromStr`] reads; `diffusers` for a spacing of diffusers' schedulers.
impl fmt::Display for Spacing {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let list = |list: &[f64]| list.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        match self {
            Self::Uniform => f.write_str("uniform"),
            Self::Quad => f.write_str("quad"),
            Self::TimeUniform => f.write_str("time_uniform"),
            Self::Leading => f.write_str("leading"),
            Self::Trailing => f.write_str("trailing"),
            Self::Linspace => f.write_str("linspace"),
            Self::Karras => f.write_str("karras"),
            Self::Exponential => f.write_str("exponential"),
            Self::SgmUniform => f.write_str("sgm_uniform"),
            Self::AlignYourSteps => f.write_str("align_your_steps"),
            Self::Lcm => f.write_str("lcm"),
            Self::Explicit(levels) => f.write_str(&list(levels)),
            Self::Diffusers(_) => f.write_str("diffusers"),
        }
    }
}
