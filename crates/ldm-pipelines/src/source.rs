//! What a path holds: a config, and tensors under CompVis' names. What is opened, converted and looked at begins here.

use std::path::{Path, PathBuf};

use ldm_checkpoint::Checkpoint;
use ldm_core::{Error, Result};

use crate::diffusers::component::{Component, weights_of};
use crate::diffusers::folder;
use crate::diffusers::scheduler::{DiffusersScheduler, read_json};
use crate::{ModelConfig, ModelFile, detect};

/// A model that was found and not built yet: what it is, and its tensors, none of which is read.
#[derive(Debug)]
pub struct ModelSource {
    /// What it is.
    pub config: ModelConfig,
    /// Its tensors under CompVis' names; also what a file holds beside the model.
    pub checkpoint: Checkpoint,
    /// Where a tokenizer may lie beside it.
    pub folder: Option<PathBuf>,
    /// What a diffusers folder says of sampling.
    pub scheduler: Option<DiffusersScheduler>,
    /// What a person may want to know, in sentences.
    pub notes: Vec<String>,
    /// Whether the scale factor in the config was measured, as `scale_by_std`.
    pub(crate) measured: bool,
}

impl ModelSource {
    /// Finds the model at `path`: a run directory (its `model/` is taken), a folder with `config.yaml` and
    /// `model.safetensors`, a diffusers folder, the folder of a first stage in one, or a checkpoint file. A file's config
    /// is `config`, else `NAME.yaml` or `config.yaml` beside `NAME.ckpt`, else what names and shapes tell.
    ///
    /// `ema` matters to a diffusers folder alone, whose averages and weights as trained lie in two files (`non_ema`);
    /// other files hold both in one.
    ///
    /// # Errors
    /// When nothing of that is there, when a config is refused, and when names and shapes do not tell everything: then
    /// the message names the field.
    pub fn find(path: &Path, config: Option<&Path>, ema: bool) -> Result<Self> {
        if path.is_file() {
            return Self::of_file(path, config);
        }
        std::fs::metadata(path).map_err(Error::io(path))?;
        if path.join("model_index.json").is_file() {
            without_config(path, config)?;
            return folder::read(path, ema);
        }
        if path.join("config.json").is_file() {
            without_config(path, config)?;
            let (weights, variant) = weights_of(path, ema)?;
            let mut found = Self::of_component(&weights)?;
            found
                .notes
                .extend(variant.map(|name| format!("{}: the variant {name} is taken", path.display())));
            return Ok(found);
        }
        let weights = weights_in(path)?;
        Self::of_file(&weights, config)
    }

    fn of_file(weights: &Path, config: Option<&Path>) -> Result<Self> {
        let beside = [weights.with_extension("yaml"), weights.with_file_name("config.yaml")];
        let config = config.map(Path::to_path_buf).or_else(|| beside.into_iter().find(|path| path.is_file()));
        if config.is_none() && is_component(weights) {
            return Self::of_component(weights);
        }
        let checkpoint = Checkpoint::open(weights)?;
        let (config, notes) = match &config {
            Some(config) => {
                let file = ModelFile::read(config, &[])?;
                (file.model, file.notes)
            }
            None => (detect::infer_config(&checkpoint)?, Vec::new()),
        };
        let checkpoint = match &config {
            // A first stage cut out of a whole model without its root's name.
            ModelConfig::Kl(_) | ModelConfig::Vq(_) if !checkpoint.contains("decoder.conv_out.weight") => {
                checkpoint.scope("first_stage_model.")
            }
            _ => checkpoint,
        };
        let folder = weights.parent().map(Path::to_path_buf);
        Ok(Self { config, checkpoint, folder, scheduler: None, notes, measured: false })
    }

    /// A first stage of diffusers, by its weights.
    fn of_component(weights: &Path) -> Result<Self> {
        let found = Component::of_file(weights, ldm_autoencoder::from_diffusers, |(config, _)| {
            ldm_autoencoder::diffusers_layout(config)
        })?;
        let config = ModelConfig::of_first_stage(found.config.0).expect("diffusers' classes are KL and VQ");
        let checkpoint = found.checkpoint;
        Ok(Self { config, checkpoint, folder: None, scheduler: None, notes: Vec::new(), measured: false })
    }
}

/// Whether the weights are a first stage of a diffusers folder.
fn is_component(weights: &Path) -> bool {
    let json = read_json(&weights.with_file_name("config.json"));
    json.is_ok_and(|json| matches!(json["_class_name"].as_str(), Some("AutoencoderKL" | "VQModel")))
}

fn without_config(path: &Path, config: Option<&Path>) -> Result<()> {
    match config {
        None => Ok(()),
        Some(_) => Err(Error::format(path, "a diffusers folder says itself what it is: leave out --config")),
    }
}

/// The weights of a run or a model folder.
fn weights_in(path: &Path) -> Result<PathBuf> {
    for folder in [path.join("model"), path.to_path_buf()] {
        let weights = folder.join("model.safetensors");
        if weights.is_file() {
            return Ok(weights);
        }
    }
    let why = if [path.join("model"), path.to_path_buf()]
        .iter()
        .any(|folder| folder.join("lora.safetensors").is_file())
    {
        "a LoRA's run or folder: give the model it was trained for, and this by --lora"
    } else if path.join("checkpoints").is_dir() {
        "a run that has not written its model yet (it does at its first checkpoint)"
    } else {
        "no model here: expected model_index.json, or model.safetensors and config.yaml, in it or in its folder model/"
    };
    Err(Error::format(path, why))
}

/// The weights' file of a model that is given as [`Model::open`](crate::Model::open) takes it, where it has one.
///
/// # Errors
/// When there is none, and for a diffusers folder, whose parts have a file each.
pub fn weights_file(path: &Path) -> Result<PathBuf> {
    if path.is_file() {
        return Ok(path.to_path_buf());
    }
    std::fs::metadata(path).map_err(Error::io(path))?;
    if path.join("model_index.json").is_file() {
        return Err(Error::format(path, "a diffusers folder, whose parts have a file of weights each"));
    }
    if path.join("config.json").is_file() {
        return Ok(weights_of(path, true)?.0);
    }
    weights_in(path)
}
