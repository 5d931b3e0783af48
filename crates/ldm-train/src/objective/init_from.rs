//! `train.init_from`: initial weights of a new run.

use std::path::PathBuf;

use ldm_checkpoint::Checkpoint;
use ldm_core::Result;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::optim::copy_named;

/// `train.init_from`: starts a new run from the weights of an existing model. CompVis `ddpm.py:178` `init_from_ckpt`
/// with `ckpt_path` and `ignore_keys`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct InitFrom {
    /// A run, a model folder, a diffusers folder or a checkpoint, as for `--model`.
    pub path: PathBuf,
    /// Loads the EMA if the model has one.
    #[serde(default = "yes")]
    pub ema: bool,
    /// Prefixes of tensors that are not loaded.
    #[serde(default)]
    pub ignore: Vec<String>,
}

fn yes() -> bool {
    true
}

impl InitFrom {
    /// Loads `checkpoint` into `targets`, except ignored tensors. All other names and shapes must match; CompVis
    /// silently skips mismatches.
    ///
    /// # Errors
    /// [`ldm_core::Error::Weights`] listing every mismatch; then `targets` are unchanged.
    pub(crate) fn fill(&self, targets: Vec<(String, Tensor)>, checkpoint: Checkpoint) -> Result<()> {
        let ignored: Vec<&str> = self.ignore.iter().map(String::as_str).collect();
        let loaded = |name: &str| !ignored.iter().any(|prefix| name.starts_with(prefix));
        let targets = targets.into_iter().filter(|(name, _)| loaded(name)).collect();
        copy_named(targets, &checkpoint.without(&ignored))
    }
}
