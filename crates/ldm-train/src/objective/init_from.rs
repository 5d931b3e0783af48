//! The weights a new run starts from.

use std::path::PathBuf;

use ldm_checkpoint::Checkpoint;
use ldm_core::Result;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::optim::copy_named;

/// `train.init_from`: a new run starts from the weights of a model there is, and not from fresh ones. CompVis
/// `ddpm.py:178` `init_from_ckpt`, whose `ckpt_path` and `ignore_keys` mean the same.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct InitFrom {
    /// What `--model` takes: a run, a model folder, a diffusers folder, a checkpoint.
    pub path: PathBuf,
    /// Running averages in place of weights, where it holds both.
    #[serde(default = "yes")]
    pub ema: bool,
    /// Beginnings of names that keep their fresh weights.
    #[serde(default)]
    pub ignore: Vec<String>,
}

fn yes() -> bool {
    true
}

impl InitFrom {
    /// Gives `targets` their values in `checkpoint`, but for those that are ignored. Everything else must fit both ways,
    /// as where a model is loaded: the reference passes over what does not, and trains from half a model.
    ///
    /// # Errors
    /// [`ldm_core::Error::Weights`] listing what does not fit; then nothing has changed.
    pub(crate) fn fill(&self, targets: Vec<(String, Tensor)>, checkpoint: Checkpoint) -> Result<()> {
        let ignored: Vec<&str> = self.ignore.iter().map(String::as_str).collect();
        let wanted = |name: &str| !ignored.iter().any(|start| name.starts_with(start));
        let targets = targets.into_iter().filter(|(name, _)| wanted(name)).collect();
        copy_named(targets, &checkpoint.without(&ignored))
    }
}
