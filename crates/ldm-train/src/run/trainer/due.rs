//! The schedule of logs, validations, checkpoints and samples.

use crate::config::TrainConfig;

/// The actions due after a step, by the config's intervals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent of each other")]
pub(super) struct Due {
    /// The last step of the run.
    pub(super) at_end: bool,
    /// A stop was requested.
    pub(super) stop: bool,
    /// Reads the counts of skipped steps from the device.
    pub(super) check_finite: bool,
    pub(super) log: bool,
    pub(super) validate: bool,
    pub(super) checkpoint: bool,
    pub(super) samples: bool,
}

impl Due {
    /// The actions of a step whose validation was stopped.
    pub(super) fn stopped(self) -> Self {
        Self { stop: true, checkpoint: true, samples: false, ..self }
    }

    /// These actions, and a checkpoint that was asked for, with a line of the log.
    pub(super) fn with_checkpoint(self) -> Self {
        Self { check_finite: true, log: true, checkpoint: true, ..self }
    }

    /// The actions due after `step` steps; `has_validation` if there is a held-out set, `has_preview` if the objective
    /// renders previews.
    pub(super) fn after(
        step: u64,
        train: &TrainConfig,
        stop: bool,
        has_validation: bool,
        has_preview: bool,
    ) -> Self {
        let at_end = step == train.steps;
        let due = |every: u64| at_end || (every > 0 && step.is_multiple_of(every));
        let log = step.is_multiple_of(train.log_every) || at_end || stop;
        let validate = has_validation && due(train.validate_every) && !stop;
        Self {
            at_end,
            stop,
            check_finite: log || step.is_multiple_of(train.max_skipped),
            log,
            validate,
            checkpoint: due(train.checkpoint_every) || (train.keep_best.is_some() && validate) || stop,
            samples: has_preview && train.samples.count > 0 && due(train.samples.every) && !stop,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_the_end_and_a_stop() {
        let train = TrainConfig {
            steps: 10,
            log_every: 2,
            checkpoint_every: 4,
            validate_every: 3,
            max_skipped: 5,
            ..TrainConfig::default()
        };
        let after = |step, stop| Due::after(step, &train, stop, true, true);
        let none = Due {
            at_end: false,
            stop: false,
            check_finite: false,
            log: false,
            validate: false,
            checkpoint: false,
            samples: false,
        };
        assert_eq!(after(1, false), none);
        assert_eq!(after(3, false), Due { validate: true, ..none });
        assert_eq!(after(4, false), Due { log: true, check_finite: true, checkpoint: true, ..none });
        assert_eq!(after(5, false), Due { check_finite: true, ..none });
        let stopped = Due { stop: true, log: true, check_finite: true, checkpoint: true, ..none };
        assert_eq!(after(3, true), stopped, "a stop writes a checkpoint without validation or samples");
        let end = after(10, false);
        assert!(end.at_end && end.log && end.validate && end.checkpoint && end.samples);
        let best = crate::KeepBest { metric: "val/loss".into(), mode: crate::BestMode::Min, count: 1 };
        let train = TrainConfig { keep_best: Some(best), ..train };
        assert!(Due::after(3, &train, false, true, true).checkpoint, "for keep_best");
    }
}
