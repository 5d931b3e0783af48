//! Checkpoints and the exported model.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use ldm_core::Result;
use ldm_data::Batch;
use ldm_pipelines::{ModelConfig, export_tokenizer};

use super::Trainer;
use crate::latents::LatentStatistics;
use crate::run::retention::Retention;
use crate::run::state;

/// Number of training images for the latent statistics of a first stage.
const STATISTICS_IMAGES: usize = 1024;

impl Trainer {
    /// Writes a checkpoint, and the exported model ([`Trainer::export_model`]).
    pub(super) fn checkpoint(&self, at_end: Option<&AtomicBool>) -> Result<PathBuf> {
        let path = self.write_checkpoint()?;
        self.export_model(at_end)?;
        Ok(path)
    }

    /// Writes a checkpoint.
    pub(super) fn write_checkpoint(&self) -> Result<PathBuf> {
        self.run.checkpoint(self.state.step, &Retention::from(&self.config), |folder| {
            state::write(folder, &self.state, &self.train_step)
        })
    }

    /// Writes the exported model as it is after the last step: a run that was killed after a checkpoint may have an older
    /// one, or none.
    ///
    /// # Errors
    /// [`ldm_core::Error::Io`] when it cannot be written.
    pub fn export(&self) -> Result<()> {
        self.export_model(None)
    }

    /// Writes the exported model; at the end of a first stage's training, given the flag that stops it, with its latent
    /// statistics.
    pub(super) fn export_model(&self, at_end: Option<&AtomicBool>) -> Result<()> {
        let mut metadata = BTreeMap::new();
        for (kind, names) in [
            ("classes", self.data.classes()),
            ("box_classes", self.data.box_classes()),
            ("label_classes", self.data.label_classes()),
        ] {
            if !names.is_empty() {
                metadata.insert(kind.to_owned(), serde_json::to_string(names).expect("a list of strings"));
            }
        }
        if let Some(stop) = at_end
            && let Some(found) = self.latent_statistics(stop)?
        {
            metadata.extend([found.entry()]);
        }
        let config = self.run_config.as_ref();
        let text = config.map(crate::RunConfig::model_text);
        state::write_model(&self.run.model(), text.as_deref(), metadata, &self.train_step)?;
        if let Some(ModelConfig::LatentDiffusion(model)) = config.map(|config| &config.model)
            && self.config.lora.is_none()
            && self.config.embedding.is_none()
        {
            export_tokenizer(&model.cond_stage_config, &self.run.model())?;
        }
        Ok(())
    }

    /// Computes latent statistics over training images if the objective is a first stage and `stop` is not set
    /// meanwhile.
    fn latent_statistics(&self, stop: &AtomicBool) -> Result<Option<LatentStatistics>> {
        // Opened on demand: most objectives read no batch.
        let mut loader: Option<Box<dyn Iterator<Item = Result<Batch>>>> = None;
        let mut batches = std::iter::from_fn(|| {
            if stop.load(Ordering::Relaxed) {
                return None;
            }
            if loader.is_none() {
                match self.images(&self.data, STATISTICS_IMAGES, true) {
                    Ok(images) => loader = Some(Box::new(images)),
                    Err(error) => return Some(Err(error)),
                }
            }
            loader.as_mut()?.next()
        });
        if self.train_step.objective().as_export().is_none() {
            return Ok(None);
        }
        let found = self.train_step.with_ema(|objective| match objective.as_export() {
            Some(export) => export.latent_statistics(&mut batches),
            None => Ok(None),
        })?;
        Ok(found.filter(|_| !stop.load(Ordering::Relaxed)))
    }
}
