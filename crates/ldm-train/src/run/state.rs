//! Checkpoints of a run, and the exported model.

use std::collections::BTreeMap;
use std::path::Path;

use ldm_checkpoint::Checkpoint;
use ldm_core::{Error, Result, files};
use ldm_data::Position;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::objective::Exported;
use crate::optim::{Ema, LossScale, copy_named};
use crate::train_step::TrainStep;

/// The progress of a run, stored in `state.json` of its checkpoints.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TrainState {
    /// Optimizer steps taken.
    pub step: u64,
    /// Images seen by all ranks.
    pub images: u64,
    /// Seconds of training, including earlier parts of a resumed run.
    pub seconds: f64,
    /// The epoch of the next batch.
    pub epoch: u64,
    /// The index of the next batch in its epoch.
    pub batch: u64,
    /// Number of EMA updates.
    pub ema_updates: u64,
    /// Steps that were skipped because a gradient was NaN or Inf.
    #[serde(default)]
    pub skipped: u64,
    /// Validation metrics of this step; empty if it was not validated.
    #[serde(default, with = "ldm_core::json::floats")]
    pub validation: BTreeMap<String, f64>,
    /// Number of ranks.
    #[serde(default = "one")]
    pub ranks: usize,
}

/// The default of checkpoints that predate the key.
fn one() -> usize {
    1
}

impl TrainState {
    /// The position from which the loader continues.
    pub fn position(&self) -> Position {
        Position { epoch: self.epoch, batch: self.batch }
    }
}

/// Writes a checkpoint's files into `folder`; `state.json` is the last, so a folder with it is complete.
pub(crate) fn write(folder: &Path, state: &TrainState, step: &TrainStep) -> Result<()> {
    let metadata = BTreeMap::from([("step".to_owned(), state.step.to_string())]);
    ldm_checkpoint::save(folder.join("model.safetensors"), &step.objective().weights(), &metadata)?;
    ldm_checkpoint::save(folder.join("optimizer.safetensors"), &optimizer_state(step), &metadata)?;
    if let Some(ema) = step.ema() {
        ema.write(folder, &metadata)?;
    }
    let text = serde_json::to_string_pretty(state).expect("plain numbers");
    files::write_bytes(folder.join("state.json"), format!("{text}\n").as_bytes())
}

/// The state of all optimizers and of the loss scale.
fn optimizer_state(step: &TrainStep) -> Vec<(String, Tensor)> {
    let mut state: Vec<(String, Tensor)> =
        step.optimizers().iter().flat_map(|each| each.optimizer.state()).collect();
    state.extend(step.scaler().map(LossScale::state).unwrap_or_default());
    state
}

/// Reads `state.json` of the checkpoint in `folder`.
pub(crate) fn read_state(folder: &Path) -> Result<TrainState> {
    let path = folder.join("state.json");
    let bytes = std::fs::read(&path).map_err(Error::io(&path))?;
    serde_json::from_slice(&bytes).map_err(|error| Error::format(&path, error.to_string()))
}

/// Reads the state of the checkpoint of step `step` in `folder`, and checks that its files are whole: `state.json`, and
/// every file of tensors, with a header of its length; the files `required` besides those that every checkpoint has.
///
/// # Errors
/// [`Error::Io`] when a file is missing, [`Error::Format`] when one is damaged.
pub(crate) fn check(folder: &Path, step: u64, required: &[String]) -> Result<TrainState> {
    let state = read_state(folder)?;
    if state.step != step {
        let message = format!("step: expected {step}, as in the folder's name, got {}", state.step);
        return Err(Error::format(folder.join("state.json"), message));
    }
    let ema = (state.ema_updates > 0).then_some("ema.safetensors");
    let names = ["model.safetensors", "optimizer.safetensors"].into_iter().chain(ema);
    for name in names.chain(required.iter().map(String::as_str)) {
        Checkpoint::open(folder.join(name))?;
    }
    Ok(state)
}

/// Loads a checkpoint into `step`.
pub(crate) fn read(folder: &Path, step: &mut TrainStep) -> Result<TrainState> {
    let state = read_state(folder)?;
    step.objective_mut().load(Checkpoint::open(folder.join("model.safetensors"))?)?;
    copy_named(optimizer_state(step), &Checkpoint::open(folder.join("optimizer.safetensors"))?)?;
    if let Some(ema) = step.ema_mut() {
        ema.read(folder, state.ema_updates)?;
    }
    Ok(state)
}

/// Writes the exported model: its config, if any, and its weights with the EMA in place of its parameters; or only a
/// LoRA file, or the file of a learned word.
pub(crate) fn write_model(
    folder: &Path,
    config: Option<&str>,
    metadata: BTreeMap<String, String>,
    step: &TrainStep,
) -> Result<()> {
    let ema = step.ema().map(Ema::state).unwrap_or_default();
    let objective = step.objective();
    let exported = match objective.as_export() {
        Some(objective) => objective.export(&ema)?,
        None => Exported::Model(objective.weights()),
    };
    let tensors = match exported {
        Exported::Lora { tensors, metadata } => {
            return ldm_checkpoint::save(folder.join("lora.safetensors"), &tensors, &metadata);
        }
        Exported::Embedding(embedding) => return embedding.save(folder.join("learned_embeds.safetensors")),
        Exported::Model(tensors) => tensors,
    };
    let mut tensors: BTreeMap<String, Tensor> = tensors.into_iter().collect();
    for (name, value) in ema {
        tensors.entry(name).and_modify(|tensor| *tensor = value);
    }
    let tensors: Vec<(String, Tensor)> = tensors.into_iter().collect();
    if let Some(config) = config {
        files::write_bytes(folder.join("config.yaml"), config.as_bytes())?;
    }
    ldm_checkpoint::save(folder.join("model.safetensors"), &tensors, &metadata)
}
