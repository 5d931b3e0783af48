//! Learning-rate schedules.

use serde::{Deserialize, Serialize};

/// A learning-rate schedule: a multiplier of the learning rate for every step.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
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
}

impl Default for LearningRate {
    fn default() -> Self {
        Self::Constant { warm_up: 0 }
    }
}

impl LearningRate {
    /// The multiplier of step `step` (from 0) of `steps`. Shapes as in CompVis `lr_scheduler.py`.
    pub fn at(self, step: u64, steps: u64) -> f64 {
        let (Self::Constant { warm_up } | Self::Cosine { warm_up, .. } | Self::Linear { warm_up, .. }) = self;
        if step < warm_up {
            return (step + 1) as f64 / (warm_up + 1) as f64;
        }
        let span = steps.saturating_sub(warm_up + 1).max(1) as f64;
        let t = ((step - warm_up) as f64 / span).min(1.);
        match self {
            Self::Constant { .. } => 1.,
            Self::Cosine { minimum, .. } => {
                minimum + 0.5 * (1. - minimum) * (1. + (std::f64::consts::PI * t).cos())
            }
            Self::Linear { minimum, .. } => minimum + (1. - minimum) * (1. - t),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::LearningRate::{self, Constant, Cosine, Linear};

    #[track_caller]
    fn check(rate: LearningRate, expected: &[(u64, f64)]) {
        for (step, want) in expected {
            let got = rate.at(*step, 101);
            assert!((got - want).abs() < 1e-12, "{rate:?} at {step}: got {got}, want {want}");
        }
    }

    #[test]
    fn multipliers() {
        check(Constant { warm_up: 0 }, &[(0, 1.), (100, 1.), (1000, 1.)]);
        check(Constant { warm_up: 9 }, &[(0, 0.1), (8, 0.9), (9, 1.), (50, 1.)]);
        check(Cosine { warm_up: 0, minimum: 0.2 }, &[(0, 1.), (50, 0.6), (100, 0.2), (500, 0.2)]);
        check(Linear { warm_up: 0, minimum: 0. }, &[(0, 1.), (25, 0.75), (100, 0.), (101, 0.)]);
        check(Linear { warm_up: 1, minimum: 0. }, &[(0, 0.5), (1, 1.), (100, 0.)]);
    }
}
