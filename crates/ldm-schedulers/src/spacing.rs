//! Which noise levels a run visits.

use std::str::FromStr;

use ldm_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// Which noise levels a run of some number of steps visits, of the `T` there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spacing {
    /// The reference's DDIM: every `T / steps`-th level (rounded down), plus one, ending at the level 0.
    ///
    /// Where `steps` does not divide `T` there are more steps than asked for (30 of 1000 gives 31). A level past
    /// the last, at which the reference fails (`steps` 300, or above `T/2`), is the last; each level is there once.
    #[default]
    Uniform,
    /// The reference's `quad`: dense near the clean end, from 0.8·T down, ending at the level 0. Its lowest
    /// levels repeat, as in the reference.
    Quad,
    /// Every `T / steps`-th level (rounded down) from 0, ending without noise, as diffusers' `leading`; with
    /// `steps` = `T` every level, the reference's DDPM.
    Leading,
}

impl Spacing {
    /// Every name that [`FromStr`] reads.
    pub const NAMES: [&'static str; 3] = ["uniform", "quad", "leading"];

    /// The steps of training visited, noisiest first, without the end of the ladder.
    ///
    /// CompVis `diffusionmodules/util.py:46` `make_ddim_timesteps`.
    pub(crate) fn timesteps(self, steps: usize, total: usize) -> Vec<usize> {
        let stride = total / steps;
        let mut visited: Vec<usize> = match self {
            Self::Uniform => (0..total).step_by(stride).map(|t| (t + 1).min(total - 1)).collect(),
            Self::Quad => {
                // As numpy's linspace, whose last value is exact: the squares are cut to integers.
                let end = (total as f64 * 0.8).sqrt();
                let step = end / (steps.max(2) - 1) as f64;
                let root = |i: usize| if i > 0 && i + 1 == steps { end } else { i as f64 * step };
                (0..steps).map(|i| (root(i).powi(2) as usize + 1).min(total - 1)).collect()
            }
            Self::Leading => (0..steps).map(|i| i * stride).collect(),
        };
        if self == Self::Uniform {
            visited.dedup();
        }
        visited.reverse();
        visited
    }
}

impl FromStr for Spacing {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "uniform" => Ok(Self::Uniform),
            "quad" => Ok(Self::Quad),
            "leading" => Ok(Self::Leading),
            _ => {
                let names = Self::NAMES.join(", ");
                Err(Error::invalid(format!("unknown spacing, expected one of {names}: {name}")))
            }
        }
    }
}
