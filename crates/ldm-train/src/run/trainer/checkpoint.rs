//! What a run writes for later.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ldm_core::Result;
use ldm_pipelines::{ModelConfig, export_tokenizer};

use super::Trainer;
use crate::latents::LatentStatistics;
use crate::run::retention::Retention;
use crate::run::state;

/// Images whose latents are measured at the end of a first stage's training.
const STATISTICS_OF: usize = 1024;

impl Trainer {
    /// Writes a checkpoint, and the model one hands on.
    pub(super) fn checkpoint(&self, at_end: bool) -> Result<PathBuf> {
        let (objective, ema) = (&*self.objective, self.ema.as_ref());
        let path = self.run.checkpoint(self.state.step, &Retention::from(&self.config.train), |folder| {
            let optimizers = self.phases.iter().map(|(_, optimizer, _)| optimizer);
            state::write(folder, &self.state, objective, optimizers, ema, self.loss_scale.as_ref())
        })?;
        self.export_model(at_end)?;
        Ok(path)
    }

    /// Writes the model one hands on; at the end with what a second stage asks of a first one.
    pub(super) fn export_model(&self, at_end: bool) -> Result<()> {
        let (objective, ema) = (&*self.objective, self.ema.as_ref());
        let mut metadata = BTreeMap::new();
        for (kind, names) in [
            ("classes", self.data.classes()),
            ("box_classes", self.data.box_classes()),
            ("label_classes", self.data.label_classes()),
        ] {
            if !names.is_empty() {
                metadata.insert(kind.to_owned(), serde_json::to_string(names).expect("a list of words"));
            }
        }
        if at_end && self.config.model.first_stage().is_some() {
            let mut batches = self.images(&self.data, STATISTICS_OF, true)?;
            let found = self.ema_parameters(|| self.objective.latent_statistics(&mut batches))?;
            metadata.extend(found.as_ref().map(LatentStatistics::entry));
        }
        state::write_model(&self.run.model(), &self.config.model_text(), metadata, objective, ema)?;
        if let ModelConfig::LatentDiffusion(model) = &self.config.model
            && self.config.train.lora.is_none()
        {
            export_tokenizer(&model.cond_stage_config, &self.run.model())?;
        }
        Ok(())
    }
}
