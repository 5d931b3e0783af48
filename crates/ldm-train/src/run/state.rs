//! Everything a resumed run needs, in one folder.

use std::collections::BTreeMap;
use std::path::Path;

use ldm_checkpoint::Checkpoint;
use ldm_core::{Error, Result, files};
use ldm_data::Position;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::objective::{Exported, Objective};
use crate::optim::Ema;
use crate::optim::LossScale;
use crate::optim::{AdamW, copy_named};

/// Where a run stands.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TrainState {
    /// Optimizer steps taken.
    pub step: u64,
    /// Images seen.
    pub images: u64,
    /// Seconds of training, over all resumptions.
    pub seconds: f64,
    /// The next batch.
    pub epoch: u64,
    /// Its place in the epoch.
    pub batch: u64,
    /// Updates of the running average.
    pub ema_updates: u64,
    /// Steps left out because a gradient was no number.
    #[serde(default)]
    pub skipped: u64,
    /// The validation of this very step, where there was one.
    #[serde(default)]
    pub validation: BTreeMap<String, f64>,
    /// Distributed that share the epochs.
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
    loss_scale: Option<&LossScale>,
) -> Result<()> {
    let metadata = BTreeMap::from([("step".to_owned(), state.step.to_string())]);
    ldm_checkpoint::save(folder.join("model.safetensors"), &objective.weights(), &metadata)?;
    let mut moments: Vec<(String, Tensor)> = optimizers.flat_map(AdamW::state).collect();
    moments.extend(loss_scale.map(LossScale::state).unwrap_or_default());
    ldm_checkpoint::save(folder.join("optimizer.safetensors"), &moments, &metadata)?;
    if let Some(ema) = ema {
        ema.write(folder, &metadata)?;
    }
    let text = serde_json::to_string_pretty(state).expect("plain numbers");
    files::write_bytes(folder.join("state.json"), format!("{text}\n").as_bytes())
}

/// Where a run stood when it wrote the checkpoint in `folder`.
pub(crate) fn read_state(folder: &Path) -> Result<TrainState> {
    let path = folder.join("state.json");
    let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
    serde_json::from_str(&text).map_err(|error| Error::format(&path, error.to_string()))
}

/// Reads what [`write`] wrote.
pub(crate) fn read<'a>(
    folder: &Path,
    objective: &mut dyn Objective,
    optimizers: impl Iterator<Item = &'a mut AdamW>,
    ema: Option<&mut Ema>,
    loss_scale: Option<&LossScale>,
) -> Result<TrainState> {
    let state = read_state(folder)?;
    objective.load(Checkpoint::open(folder.join("model.safetensors"))?)?;
    let mut moments: Vec<(String, Tensor)> = optimizers.flat_map(|optimizer| optimizer.state()).collect();
    moments.extend(loss_scale.map(LossScale::state).unwrap_or_default());
    copy_named(moments, &Checkpoint::open(folder.join("optimizer.safetensors"))?)?;
    if let Some(ema) = ema {
        ema.read(folder, state.ema_updates)?;
    }
    Ok(state)
}

/// Writes the folder one hands on: the config of the model, and its weights with the averages in their places; or a
/// LoRA's file alone.
pub(crate) fn write_model(
    folder: &Path,
    config: &str,
    metadata: BTreeMap<String, String>,
    objective: &dyn Objective,
    ema: Option<&Ema>,
) -> Result<()> {
    let averages = ema.map(Ema::state).unwrap_or_default();
    let tensors = match objective.export(&averages)? {
        Exported::Lora { tensors, metadata } => {
            return ldm_checkpoint::save(folder.join("lora.safetensors"), &tensors, &metadata);
        }
        Exported::Model(tensors) => tensors,
    };
    let mut tensors: BTreeMap<String, Tensor> = tensors.into_iter().collect();
    for (name, average) in averages {
        tensors.entry(name).and_modify(|tensor| *tensor = average);
    }
    let tensors: Vec<(String, Tensor)> = tensors.into_iter().collect();
    files::write_bytes(folder.join("config.yaml"), config.as_bytes())?;
    ldm_checkpoint::save(folder.join("model.safetensors"), &tensors, &metadata)
}
