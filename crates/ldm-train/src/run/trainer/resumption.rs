//! Resumption of a run from a checkpoint.

use ldm_core::{Error, Result};

use super::{Trainer, TrainerBuilder};
use crate::run::checkpoints::Resumable;
use crate::run::run_dir::RunDir;
use crate::run::state;

impl TrainerBuilder {
    /// Loads a checkpoint; a `changed` config replaces that of the run.
    pub(super) fn resume_from(self, run: RunDir, from: Resumable, changed: bool) -> Result<Trainer> {
        if self.config.steps < from.step {
            let (config, step) = (run.config(), from.step);
            let message = format!(
                "train.steps: expected at least {step}, the steps taken, got {}; try an older checkpoint",
                self.config.steps
            );
            return Err(Error::config(config, message));
        }
        self.check_preview()?;
        let mut trainer = self.assemble(run)?;
        trainer.state = state::read(&from.path, &mut trainer.train_step)?;
        let (expected, got) = (trainer.state.ranks, trainer.train_step.distributed().world_size());
        if expected != got {
            return Err(Error::data(
                trainer.run.root(),
                format!(
                    "expected the {expected} ranks that the run was started with, got {got}; try --nproc {expected}"
                ),
            ));
        }
        trainer.train_step.set_global_step(from.step);
        trainer.note_resumption(&from);
        let aside = trainer.train_step.distributed().rank_zero_only(|| {
            // Nothing is changed before: the checkpoint is loaded and fits.
            let damaged = from.passed_over.len();
            let aside =
                if damaged == 0 { trainer.run.checkpoints().set_aside_after(from.step)? } else { Vec::new() };
            if let Some(config) = trainer.run_config.as_ref().filter(|_| changed) {
                trainer.run.write_config(&config.to_text())?;
            }
            trainer.run.truncate_metrics(from.step)?;
            // A killed run may not have come to it.
            trainer.run.checkpoints().name_latest(from.step)?;
            Ok(aside)
        })?;
        trainer.notes.extend(
            aside
                .unwrap_or_default()
                .iter()
                .map(|path| format!("a later checkpoint was renamed to {}", path.display())),
        );
        trainer.train_step.sync_weights()?;
        Ok(trainer)
    }
}

impl Trainer {
    /// Notes newer checkpoints that were passed over, and data that differ from those of the run's start.
    fn note_resumption(&mut self, from: &Resumable) {
        for damaged in &from.passed_over {
            self.notes.push(format!("passed over a damaged checkpoint: {damaged}"));
        }
        let (began, now) = (self.run.data_fingerprint(), self.data.fingerprint());
        if let Some(began) = began.filter(|began| *began != now) {
            let short = |text: &str| text.chars().take(8).collect::<String>();
            self.notes.push(format!(
                "the data set is not the one the run began with: expected fingerprint {}…, got {}…; the run goes on \
                 with other images",
                short(&began),
                short(&now)
            ));
        }
    }
}
