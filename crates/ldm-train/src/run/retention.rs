//! Checkpoint retention.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::config::TrainConfig;
use crate::run::state::TrainState;

/// Retention of the best checkpoints by a validation metric. CompVis `main.py:480` (`monitor`, `save_top_k`).
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct KeepBest {
    /// The metric's name in the log: `val/psnr`, `val/loss_simple`, …
    pub metric: String,
    /// The direction of the metric.
    pub mode: BestMode,
    /// The number of checkpoints.
    #[serde(default = "three")]
    pub count: usize,
}

/// The direction of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BestMode {
    /// Less is better: losses.
    Min,
    /// More is better: PSNR.
    Max,
}

fn three() -> usize {
    3
}

/// Checkpoint retention: the newest few, those at multiples of a step, and the best by a validation metric.
#[derive(Debug, Clone, PartialEq)]
pub struct Retention {
    /// The number of newest checkpoints.
    pub newest: usize,
    /// Checkpoints at multiples of this step are never removed; 0 for none.
    pub every: u64,
    /// The best by a validation metric.
    pub best: Option<KeepBest>,
}

impl From<&TrainConfig> for Retention {
    fn from(train: &TrainConfig) -> Self {
        Self { newest: train.keep, every: train.keep_every, best: train.keep_best.clone() }
    }
}

impl Retention {
    /// The steps whose checkpoints are retained, of `states`, oldest first.
    pub(crate) fn retained(&self, states: &[&TrainState]) -> BTreeSet<u64> {
        let newest = states.iter().rev().take(self.newest).map(|state| state.step);
        let periodic =
            states.iter().map(|state| state.step).filter(|step| self.every > 0 && step % self.every == 0);
        let mut retained: BTreeSet<u64> = newest.chain(periodic).collect();
        if let Some(best) = &self.best {
            let mut rated: Vec<(f64, u64)> = states
                .iter()
                .filter_map(|state| Some((*state.validation.get(&best.metric)?, state.step)))
                .filter(|(value, _)| value.is_finite())
                .map(|(value, step)| (if best.mode == BestMode::Max { -value } else { value }, step))
                .collect();
            // Ties go to the older checkpoint: the newer one is among the newest for a while.
            rated.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            retained.extend(rated.into_iter().take(best.count).map(|(_, step)| step));
        }
        retained
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn state(step: u64, psnr: Option<f64>) -> TrainState {
        let validation = psnr.map(|psnr| ("val/psnr".to_owned(), psnr));
        TrainState { step, validation: BTreeMap::from_iter(validation), ..TrainState::default() }
    }

    #[track_caller]
    fn check(retention: &Retention, expected: &[u64]) {
        let states = [
            state(100, Some(20.)),
            state(200, Some(30.)),
            state(250, None),
            state(300, Some(30.)),
            state(400, Some(25.)),
            state(450, Some(f64::NAN)),
        ];
        assert_eq!(
            retention.retained(&states.each_ref()).into_iter().collect::<Vec<_>>(),
            expected,
            "{retention:?}"
        );
    }

    #[test]
    fn the_newest_the_periodic_and_the_best_are_retained() {
        let best = |mode, count| Some(KeepBest { metric: "val/psnr".into(), mode, count });
        check(&Retention { newest: 2, every: 0, best: None }, &[400, 450]);
        check(&Retention { newest: 9, every: 0, best: None }, &[100, 200, 250, 300, 400, 450]);
        check(&Retention { newest: 1, every: 200, best: None }, &[200, 400, 450]);
        check(&Retention { newest: 1, every: 0, best: best(BestMode::Max, 1) }, &[200, 450]);
        check(&Retention { newest: 1, every: 0, best: best(BestMode::Max, 3) }, &[200, 300, 400, 450]);
        check(&Retention { newest: 1, every: 0, best: best(BestMode::Min, 2) }, &[100, 400, 450]);
    }
}
