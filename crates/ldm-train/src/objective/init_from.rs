//! `train.init_from`: initial weights of a new run.

use std::path::PathBuf;

use ldm_checkpoint::Checkpoint;
use ldm_core::Result;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::optim::copy_named;

/// `train.init_from`: starts a new run from the weights of an existing model. CompVis `ddpm.py:178` `init_from_ckpt`, whose
/// `ckpt_path` and `ignore_keys` mean the same.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct InitFrom {
    /// A run, a model folder, a diffusers folder or a checkpoint, as `--model` takes it.
    pub path: PathBuf,
    /// Takes the EMA where the model has both.
    #[serde(default = "yes")]
    pub ema: bool,
    /// Prefixes of names that keep their fresh weights.
    #[serde(default)]
    pub ignore: Vec<String>,
}

fn yes() -> bool {
    true
}

impl InitFrom {
    /// Loads `checkpoint` into `targets`, except the ignored ones. All others must match both ways, as when a model is loaded;
    /// CompVis skips mismatches, and trains from half a model.
    ///
    /// # Errors
    /// [`ldm_core::Error::Weights`] listing every mismatch; then nothing has changed.
    pub(crate) fn fill(&self, targets: Vec<(String, Tensor)>, checkpoint: Checkpoint) -> Result<()> {
        let ignored: Vec<&str> = self.ignore.iter().map(String::as_str).collect();
        let wanted = |name: &str| !ignored.iter().any(|start| name.starts_with(start));
        let targets = targets.into_iter().filter(|(name, _)| wanted(name)).collect();
        copy_named(targets, &checkpoint.without(&ignored))
    }
}
