//! Learning-rate schedules.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

/// A learning-rate schedule: a multiplier of the learning rate for every step.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(tag = "target", content = "params", rename_all = "snake_case", deny_unknown_fields)]
pub enum LearningRate {
    /// Linear warm-up, then constant.
    Constant {
        /// Steps of warm-up.
        #[serde(default)]
        warm_up: u64,
    },
    /// Linear warm-up, then half a cosine to `minimum` at the last step.
    Cosine {
        /// Steps of warm-up.
        #[serde(default)]
        warm_up: u64,
        /// Multiplier at the last step.
        #[serde(default)]
        minimum: f64,
    },
    /// Linear warm-up, then linear decay to `minimum` at the last step.
    Linear {
        /// Steps of warm-up.
        #[serde(default)]
        warm_up: u64,
        /// Multiplier at the last step.
        #[serde(default)]
        minimum: f64,
    },
    /// CompVis `lr_scheduler.py:4` `LambdaWarmUpCosineScheduler`: linear from `lr_start` to `lr_max`, then half a cosine
    /// to `lr_min` at step `max_decay_steps`, then constant.
    #[serde(alias = "ldm.lr_scheduler.LambdaWarmUpCosineScheduler")]
    WarmUpCosine {
        /// Steps of warm-up.
        warm_up_steps: u64,
        /// Multiplier after the decay.
        lr_min: f64,
        /// Multiplier after the warm-up.
        lr_max: f64,
        /// Multiplier of step 0.
        lr_start: f64,
        /// The step at which the decay ends.
        max_decay_steps: u64,
        /// CompVis prints the multiplier at this interval; only 0, as the log has the learning rate.
        #[serde(default)]
        verbosity_interval: u64,
    },
    /// CompVis `lr_scheduler.py:36` `LambdaWarmUpCosineScheduler2`: in each cycle linear from `f_start` to `f_max`, then
    /// half a cosine to `f_min` at the end of the cycle.
    #[serde(alias = "ldm.lr_scheduler.LambdaWarmUpCosineScheduler2")]
    WarmUpCosineCycles(LearningRateCycles),
    /// CompVis `lr_scheduler.py:79` `LambdaLinearScheduler`: in each cycle linear from `f_start` to `f_max`, then linear,
    /// on the line from `f_max` at the start of the cycle to `f_min` at its end.
    #[serde(alias = "ldm.lr_scheduler.LambdaLinearScheduler")]
    LinearCycles(LearningRateCycles),
}

/// The cycles of a learning-rate schedule; one entry per cycle in each list.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LearningRateCycles {
    /// Steps of warm-up.
    pub warm_up_steps: Vec<u64>,
    /// Multiplier at the end of the cycle.
    pub f_min: Vec<f64>,
    /// Multiplier after the warm-up.
    pub f_max: Vec<f64>,
    /// Multiplier at the start of the cycle.
    pub f_start: Vec<f64>,
    /// Steps of the cycle.
    pub cycle_lengths: Vec<u64>,
    /// CompVis prints the multiplier at this interval; only 0, as the log has the learning rate.
    #[serde(default)]
    pub verbosity_interval: u64,
}

impl Default for LearningRate {
    fn default() -> Self {
        Self::Constant { warm_up: 0 }
    }
}

impl LearningRate {
    /// The multiplier of step `step` (from 0) of `steps`; the schedule is checked for `steps`.
    pub fn at(&self, step: u64, steps: u64) -> f64 {
        let (warm_up, minimum) = match self {
            Self::Constant { warm_up } => (*warm_up, 1.),
            Self::Cosine { warm_up, minimum } | Self::Linear { warm_up, minimum } => (*warm_up, *minimum),
            Self::WarmUpCosine { warm_up_steps, lr_min, lr_max, lr_start, max_decay_steps, .. } => {
                if step < *warm_up_steps {
                    return ramp(*lr_start, *lr_max, step, *warm_up_steps);
                }
                return cosine(*lr_max, *lr_min, step - warm_up_steps, max_decay_steps - warm_up_steps);
            }
            Self::WarmUpCosineCycles(cycles) | Self::LinearCycles(cycles) => {
                return cycles.at(step, matches!(self, Self::LinearCycles(_)));
            }
        };
        if step < warm_up {
            return (step + 1) as f64 / (warm_up + 1) as f64;
        }
        let span = steps.saturating_sub(warm_up + 1).max(1);
        match self {
            Self::Cosine { .. } => cosine(1., minimum, step - warm_up, span),
            _ => minimum + (1. - minimum) * (1. - ((step - warm_up) as f64 / span as f64).min(1.)),
        }
    }

    /// Checks the values for a run of `steps` steps. The message of an error begins with the key.
    pub(crate) fn check(&self, steps: u64) -> Result<(), String> {
        let multiplier = |key: &str, value: f64| {
            if value.is_finite() && value >= 0. {
                return Ok(());
            }
            Err(format!("params.{key}: expected a multiplier of at least 0, got {value}"))
        };
        match self {
            Self::Constant { .. } => Ok(()),
            Self::Cosine { minimum, .. } | Self::Linear { minimum, .. } => multiplier("minimum", *minimum),
            Self::WarmUpCosine {
                warm_up_steps,
                lr_min,
                lr_max,
                lr_start,
                max_decay_steps,
                verbosity_interval,
            } => {
                quiet(*verbosity_interval)?;
                [("lr_min", lr_min), ("lr_max", lr_max), ("lr_start", lr_start)]
                    .into_iter()
                    .try_for_each(|(key, value)| multiplier(key, *value))?;
                if max_decay_steps <= warm_up_steps {
                    return Err(format!(
                        "params.max_decay_steps: expected more than warm_up_steps, {warm_up_steps}, got \
                         {max_decay_steps}"
                    ));
                }
                Ok(())
            }
            Self::WarmUpCosineCycles(cycles) | Self::LinearCycles(cycles) => {
                quiet(cycles.verbosity_interval)?;
                for (key, values) in
                    [("f_min", &cycles.f_min), ("f_max", &cycles.f_max), ("f_start", &cycles.f_start)]
                {
                    values.iter().try_for_each(|value| multiplier(key, *value))?;
                }
                cycles.check(steps, matches!(self, Self::WarmUpCosineCycles(_)))
            }
        }
    }
}

impl LearningRateCycles {
    fn at(&self, step: u64, is_linear: bool) -> f64 {
        let (mut cycle, mut step) = (0, step);
        while cycle + 1 < self.cycle_lengths.len() && step > self.cycle_lengths[cycle] {
            step -= self.cycle_lengths[cycle];
            cycle += 1;
        }
        let (warm_up, length) = (self.warm_up_steps[cycle], self.cycle_lengths[cycle]);
        let (start, max, min) = (self.f_start[cycle], self.f_max[cycle], self.f_min[cycle]);
        if step < warm_up {
            ramp(start, max, step, warm_up)
        } else if is_linear {
            min + (max - min) * (length as f64 - step as f64) / length as f64
        } else {
            cosine(max, min, step - warm_up, length - warm_up)
        }
    }

    fn check(&self, steps: u64, is_cosine: bool) -> Result<(), String> {
        let count = self.cycle_lengths.len();
        let lists = [
            ("warm_up_steps", self.warm_up_steps.len()),
            ("f_min", self.f_min.len()),
            ("f_max", self.f_max.len()),
            ("f_start", self.f_start.len()),
        ];
        if count == 0 {
            return Err("params.cycle_lengths: expected at least one cycle, got none".into());
        }
        if let Some((key, got)) = lists.into_iter().find(|(_, length)| *length != count) {
            return Err(format!("params.{key}: expected {count} values, as cycle_lengths has, got {got}"));
        }
        for (warm_up, length) in self.warm_up_steps.iter().zip(&self.cycle_lengths) {
            let least = if is_cosine { warm_up + 1 } else { 1 };
            if *length < least {
                return Err(format!("params.cycle_lengths: expected at least {least} steps, got {length}"));
            }
        }
        let sum = self.cycle_lengths.iter().fold(0, |sum: u64, length| sum.saturating_add(*length));
        // CompVis fails at the step after the last cycle.
        if steps > sum.saturating_add(1) {
            return Err(format!(
                "params.cycle_lengths: expected cycles of {steps} steps, train.steps, got {sum}"
            ));
        }
        Ok(())
    }
}

fn quiet(verbosity_interval: u64) -> Result<(), String> {
    if verbosity_interval == 0 {
        return Ok(());
    }
    Err(format!(
        "params.verbosity_interval: expected 0, as metrics.jsonl has the learning rate, got {verbosity_interval}; try \
         train.log_every"
    ))
}

/// Linear from `start` at step 0 to `end` at step `steps`.
fn ramp(start: f64, end: f64, step: u64, steps: u64) -> f64 {
    (end - start) / steps as f64 * step as f64 + start
}

/// Half a cosine from `start` at step 0 to `end` from step `steps` on.
fn cosine(start: f64, end: f64, step: u64, steps: u64) -> f64 {
    let t = (step as f64 / steps as f64).min(1.);
    end + 0.5 * (start - end) * (1. + (PI * t).cos())
}

#[cfg(test)]
mod tests {
    use super::LearningRate::{self, Constant, Cosine, Linear};

    #[track_caller]
    fn check(rate: &LearningRate, expected: &[(u64, f64)]) {
        for (step, want) in expected {
            let got = rate.at(*step, 101);
            assert!((got - want).abs() < 1e-12, "{rate:?} at {step}: got {got}, want {want}");
        }
    }

    #[test]
    fn multipliers() {
        check(&Constant { warm_up: 0 }, &[(0, 1.), (100, 1.), (1000, 1.)]);
        check(&Constant { warm_up: 9 }, &[(0, 0.1), (8, 0.9), (9, 1.), (50, 1.)]);
        check(&Cosine { warm_up: 0, minimum: 0.2 }, &[(0, 1.), (50, 0.6), (100, 0.2), (500, 0.2)]);
        check(&Linear { warm_up: 0, minimum: 0. }, &[(0, 1.), (25, 0.75), (100, 0.), (101, 0.)]);
        check(&Linear { warm_up: 1, minimum: 0. }, &[(0, 0.5), (1, 1.), (100, 0.)]);
    }
}
