//! Which checkpoints of a run stay.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::config::TrainConfig;
use crate::run::state::TrainState;

/// The best checkpoints by a number of the validation. CompVis `main.py:480` (`monitor`, `save_top_k`).
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct KeepBest {
    /// The number's name in the log: `val/psnr`, `val/loss_simple`, …
    pub metric: String,
    /// Whether less or more is better.
    pub mode: BestMode,
    /// How many are kept.
    #[serde(default = "three")]
    pub count: usize,
}

/// Whether less or more is better.
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

/// Which checkpoints of a run stay: the newest few, those at round steps, and the best by a number of the validation.
#[derive(Debug, Clone, PartialEq)]
pub struct Retention {
    /// How many of the newest.
    pub newest: usize,
    /// Those of steps that are multiples of it; 0 none.
    pub every: u64,
    /// The best.
    pub best: Option<KeepBest>,
}

impl From<&TrainConfig> for Retention {
    fn from(train: &TrainConfig) -> Self {
        Self { newest: train.keep, every: train.keep_every, best: train.keep_best.clone() }
    }
}

impl Retention {
    /// The steps whose checkpoints stay, of `states`, oldest first.
    pub(crate) fn of(&self, states: &[TrainState]) -> BTreeSet<u64> {
        let newest = states.iter().rev().take(self.newest).map(|state| state.step);
        let round =
            states.iter().map(|state| state.step).filter(|step| self.every > 0 && step % self.every == 0);
        let mut stays: BTreeSet<u64> = newest.chain(round).collect();
        if let Some(best) = &self.best {
            let mut rated: Vec<(f64, u64)> = states
                .iter()
                .filter_map(|state| Some((*state.validation.get(&best.metric)?, state.step)))
                .filter(|(value, _)| value.is_finite())
                .map(|(value, step)| (if best.mode == BestMode::Max { -value } else { value }, step))
                .collect();
            // Of equals the older: the newer is kept as such for a while.
            rated.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            stays.extend(rated.into_iter().take(best.count).map(|(_, step)| step));
        }
        stays
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
    fn check(keep: &Retention, expected: &[u64]) {
        let states = [
            state(100, Some(20.)),
            state(200, Some(30.)),
            state(250, None),
            state(300, Some(30.)),
            state(400, Some(25.)),
            state(450, Some(f64::NAN)),
        ];
        assert_eq!(keep.of(&states).into_iter().collect::<Vec<_>>(), expected, "{keep:?}");
    }

    #[test]
    fn newest_round_and_best_stay() {
        let best = |mode, count| Some(KeepBest { metric: "val/psnr".into(), mode, count });
        check(&Retention { newest: 2, every: 0, best: None }, &[400, 450]);
        check(&Retention { newest: 9, every: 0, best: None }, &[100, 200, 250, 300, 400, 450]);
        check(&Retention { newest: 1, every: 200, best: None }, &[200, 400, 450]);
        check(&Retention { newest: 1, every: 0, best: best(BestMode::Max, 1) }, &[200, 450]);
        check(&Retention { newest: 1, every: 0, best: best(BestMode::Max, 3) }, &[200, 300, 400, 450]);
        check(&Retention { newest: 1, every: 0, best: best(BestMode::Min, 2) }, &[100, 400, 450]);
    }
}
