//! The noise levels of a run, from a spacing and a number of steps.

use ldm_core::{Error, Result};

use crate::align_your_steps;
use crate::diffusers_spacing::lcm;
use crate::sigma_table::{Interpolate, SigmaTable};
use crate::{
    DiffusersSpacing, NoiseLevel, NoiseSchedule, SchedulerFamily, SigmaSpacing, Spacing, TimestepSpacing,
};

/// The number of levels a latent consistency model is trained at (diffusers' `original_inference_steps`).
const LCM_LEVELS: usize = 50;

impl NoiseSchedule {
    /// The levels that a run of `steps` steps visits, noisiest first, and the one it ends at.
    ///
    /// # Errors
    /// When `steps` is not in `1..=T`, or more than the levels of a consistency model; when a list of levels is not of
    /// `steps` falling timesteps of the schedule.
    pub fn noise_levels(&self, spacing: &Spacing, steps: usize) -> Result<Vec<NoiseLevel>> {
        let total = self.timesteps();
        if steps == 0 || steps > total {
            return Err(Error::invalid(format!(
                "steps: expected 1 to {total}, the timesteps of this model, got {steps}"
            )));
        }
        let level = |t: usize| self.level(t);
        let table = SigmaTable::new(self);
        // Evenly spaced in t, with timestep 0 at the index `last`.
        let even = |interpolate: Interpolate, last: usize| -> Vec<NoiseLevel> {
            let t = |index: usize| table.last() - table.last() * index as f64 / last.max(1) as f64;
            (0..steps).map(|index| table.at(t(index), interpolate)).collect()
        };
        let sigmas = |sigmas: SigmaSpacing| -> Vec<NoiseLevel> {
            sigmas.ratios(table.ends(), steps).map(|ratio| table.level(ratio)).collect()
        };
        let visited: Vec<NoiseLevel> = match spacing {
            Spacing::Uniform => uniform(steps, total).into_iter().map(level).collect(),
            Spacing::Quad => quad(steps, total).into_iter().map(level).collect(),
            Spacing::Leading => (0..steps).rev().map(|index| level(index * (total / steps))).collect(),
            Spacing::Trailing => {
                let trailing = DiffusersSpacing {
                    family: SchedulerFamily::Ddim,
                    times: TimestepSpacing::Trailing,
                    steps_offset: 0,
                    sigmas: None,
                    to_clean: true,
                };
                trailing.levels(&table, steps)
            }
            Spacing::Linspace => even(Interpolate::Sigma, steps - 1),
            Spacing::TimeUniform => even(Interpolate::LogAlpha, steps),
            Spacing::SgmUniform => even(Interpolate::LogSigma, steps),
            Spacing::Karras => sigmas(SigmaSpacing::Karras),
            Spacing::Exponential => sigmas(SigmaSpacing::Exponential),
            Spacing::AlignYourSteps => {
                let ratios = align_your_steps::ratios(table.ends()[0], steps)?;
                ratios.map(|ratio| table.level(ratio)).collect()
            }
            Spacing::Lcm => {
                let origin = LCM_LEVELS.min(total);
                check_lcm(origin, steps)?;
                lcm(&table, origin, steps)
            }
            Spacing::Explicit(list) => {
                check_list(list, steps, table.last())?;
                list.iter().map(|t| table.at(*t, Interpolate::LogSigma)).collect()
            }
            Spacing::Diffusers(spacing) => {
                if let SchedulerFamily::Lcm(origin) = spacing.family {
                    check_lcm(origin, steps)?;
                }
                spacing.levels(&table, steps)
            }
        };
        let ends_at_level_0 = match spacing {
            // CompVis' `alphas_prev` starts with ᾱ_0, not with 1 (`diffusionmodules/util.py:66`).
            Spacing::Uniform | Spacing::Quad | Spacing::TimeUniform => true,
            Spacing::Diffusers(spacing) => !spacing.to_clean,
            _ => false,
        };
        let end = if ends_at_level_0 { self.level(0) } else { NoiseLevel::CLEAN };
        Ok(visited.into_iter().chain([end]).collect())
    }
}

/// CompVis `diffusionmodules/util.py:46` `make_ddim_timesteps`, noisiest first.
fn uniform(steps: usize, total: usize) -> Vec<usize> {
    let mut visited: Vec<usize> = (0..total).step_by(total / steps).map(|t| (t + 1).min(total - 1)).collect();
    visited.dedup();
    visited.reverse();
    visited
}

fn quad(steps: usize, total: usize) -> Vec<usize> {
    // As numpy's linspace, whose last value is exact: the squares are truncated to integers.
    let end = (total as f64 * 0.8).sqrt();
    let step = end / (steps.max(2) - 1) as f64;
    let root = |i: usize| if i > 0 && i + 1 == steps { end } else { i as f64 * step };
    (0..steps).rev().map(|i| (root(i).powi(2) as usize + 1).min(total - 1)).collect()
}

fn check_lcm(origin: usize, steps: usize) -> Result<()> {
    if steps > origin {
        return Err(Error::invalid(format!(
            "steps: expected 1 to {origin}, the levels of spacing lcm, got {steps}"
        )));
    }
    Ok(())
}

/// Checks a list of timesteps, at most `last` = T − 1.
fn check_list(list: &[f64], steps: usize, last: f64) -> Result<()> {
    if list.len() != steps {
        let count = list.len();
        return Err(Error::invalid(format!(
            "steps: expected {count}, the length of the list of levels, got {steps}"
        )));
    }
    if let Some(t) = list.iter().find(|t| !(0. ..=last).contains(*t)) {
        return Err(Error::invalid(format!("spacing: expected levels in 0 to {last}, got {t}")));
    }
    match list.windows(2).find(|pair| pair[0] <= pair[1]) {
        Some(pair) => {
            let [before, after] = [pair[0], pair[1]];
            Err(Error::invalid(format!("spacing: expected falling levels, got {after} after {before}")))
        }
        None => Ok(()),
    }
}
