//! Everything a resumed run needs, in one folder.

use std::collections::BTreeMap;
use std::path::Path;

use ldm_core::weights::{self, Checkpoint};
use ldm_core::{Error, Result, files};
use ldm_data::Position;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::ema::Ema;
use crate::objective::Objective;
use crate::optimizer::{AdamW, copy_named};

/// Where a run stands.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TrainState {
    /// Optimizer steps taken.
    pub step: u64,
    /// Pictures seen.
    pub images: u64,
    /// Seconds of training, over all resumptions.
    pub seconds: f64,
    /// The next batch.
    pub epoch: u64,
    /// Its place in the epoch.
    pub batch: u64,
    /// Updates of the running average.
    pub ema_updates: u64,
    /// Ranks that share the epochs.
    #[serde(default = "one")]
    pub ranks: usize,
}

/// What checkpoints from before there were ranks mean.
fn one() -> usize {
    1
}

impl TrainState {
    /// Where the loader goes on.
    pub fn position(&self) -> Position {
        Position { epoch: self.epoch, batch: self.batch }
    }
}

/// Writes a checkpoint's four files into `folder`; `state.json` is the last, so a folder that has it is whole.
pub(crate) fn write<'a>(
    folder: &Path,
    state: &TrainState,
    objective: &dyn Objective,
    optimizers: impl Iterator<Item = &'a AdamW>,
    ema: Option<&Ema>,
) -> Result<()> {
    let metadata = BTreeMap::from([("step".to_owned(), state.step.to_string())]);
    weights::save(folder.join("model.safetensors"), &objective.weights(), &metadata)?;
    let moments: Vec<(String, Tensor)> = optimizers.flat_map(AdamW::state).collect();
    weights::save(folder.join("optimizer.safetensors"), &moments, &metadata)?;
    if let Some(ema) = ema {
        weights::save(folder.join("ema.safetensors"), &ema.state(), &metadata)?;
    }
    let text = serde_json::to_string_pretty(state).expect("plain numbers");
    files::write_bytes(folder.join("state.json"), format!("{text}\n").as_bytes())
}

/// Reads what [`write`] wrote.
pub(crate) fn read<'a>(
    folder: &Path,
    objective: &mut dyn Objective,
    optimizers: impl Iterator<Item = &'a mut AdamW>,
    ema: Option<&mut Ema>,
) -> Result<TrainState> {
    let path = folder.join("state.json");
    let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
    let state: TrainState =
        serde_json::from_str(&text).map_err(|error| Error::format(&path, error.to_string()))?;
    objective.load(Checkpoint::open(folder.join("model.safetensors"))?)?;
    let moments = optimizers.flat_map(|optimizer| optimizer.state()).collect();
    copy_named(moments, &Checkpoint::open(folder.join("optimizer.safetensors"))?)?;
    if let Some(ema) = ema {
        ema.load(&Checkpoint::open(folder.join("ema.safetensors"))?, state.ema_updates)?;
    }
    Ok(state)
}

/// Writes the folder one hands on: the config of the model, and its weights with the averages in their places.
pub(crate) fn write_model(
    folder: &Path,
    config: &str,
    classes: &[String],
    objective: &dyn Objective,
    ema: Option<&Ema>,
) -> Result<()> {
    let mut tensors: BTreeMap<String, Tensor> = objective.weights().into_iter().collect();
    tensors.extend(ema.map(Ema::state).unwrap_or_default());
    let tensors: Vec<(String, Tensor)> = tensors.into_iter().collect();
    files::write_bytes(folder.join("config.yaml"), config.as_bytes())?;
    let mut metadata = BTreeMap::new();
    if !classes.is_empty() {
        metadata.insert("classes".to_owned(), serde_json::to_string(classes).expect("a list of words"));
    }
    weights::save(folder.join("model.safetensors"), &tensors, &metadata)
}
