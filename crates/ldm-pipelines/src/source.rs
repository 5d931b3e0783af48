//! Models located at a path: a config, and tensors under CompVis' names.

use std::path::{Path, PathBuf};

use ldm_checkpoint::Checkpoint;
use ldm_core::{Error, Result};

use crate::detect::names::normalized;
use crate::diffusers::component::{Component, weights_of};
use crate::diffusers::folder;
use crate::diffusers::scheduler::{DiffusersScheduler, read_json};
use crate::{ModelConfig, ModelFile, detect};

/// A model located at a path and not built yet: its config, and its tensors, not read.
#[derive(Debug)]
pub struct ModelSource {
    /// The config.
    pub config: ModelConfig,
    /// The tensors under CompVis' names, including those that are not weights.
    pub checkpoint: Checkpoint,
    /// The folder that may hold a tokenizer.
    pub folder: Option<PathBuf>,
    /// The scheduler of a diffusers folder.
    pub scheduler: Option<DiffusersScheduler>,
    /// Messages for the user.
    pub notes: Vec<String>,
    /// True when the scale factor in the config was measured, as with `scale_by_std`.
    pub(crate) measured: bool,
}

/// Options of finding a model.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct FindOptions<'a> {
    /// The config of a file.
    pub(crate) config: Option<&'a Path>,
    /// See [`ModelSource::find`].
    pub(crate) ema: bool,
    /// Beginnings of names that are passed over.
    pub(crate) ignore: &'a [String],
    /// Changes of the config, `a.b.c=value`.
    pub(crate) overrides: &'a [String],
    /// The config of a file that has none; inferred where absent.
    pub(crate) like: Option<&'a ModelConfig>,
}

impl ModelSource {
    /// Finds the model at `path`: a run directory (with `model/`), a folder with `config.yaml` and `model.safetensors`,
    /// a diffusers folder, the folder of a first stage in one, or a checkpoint file. A file's config is `config`, else
    /// `NAME.yaml` or `config.yaml` next to `NAME.ckpt`, else inferred from names and shapes.
    ///
    /// `ema` matters only in diffusers folders, which have separate files of EMA and other weights (`non_ema`).
    ///
    /// # Errors
    /// When there is no model, when a config is invalid, and when a field cannot be inferred; the message names the
    /// field.
    pub fn find(path: &Path, config: Option<&Path>, ema: bool) -> Result<Self> {
        Self::find_without(path, config, ema, &[])
    }

    /// [`ModelSource::find`] without the tensors whose names start with one of `ignore`, as CompVis' `ignore_keys`.
    ///
    /// # Errors
    /// As [`ModelSource::find`]; [`Error::Format`] when no name starts with one of `ignore`.
    pub fn find_without(path: &Path, config: Option<&Path>, ema: bool, ignore: &[String]) -> Result<Self> {
        Self::locate(path, FindOptions { config, ema, ignore, ..FindOptions::default() })
    }

    pub(crate) fn locate(path: &Path, options: FindOptions) -> Result<Self> {
        let FindOptions { config, ema, ignore, overrides, .. } = options;
        if path.is_file() {
            return Self::of_file(path, options);
        }
        std::fs::metadata(path).map_err(Error::io(path))?;
        if path.join("model_index.json").is_file() {
            without_config(path, config, overrides)?;
            return folder::read(path, ema)?.ignoring(ignore);
        }
        if path.join("config.json").is_file() {
            without_config(path, config, overrides)?;
            let (weights, variant) = weights_of(path, ema)?;
            let mut found = Self::of_component(&weights)?.ignoring(ignore)?;
            found.notes.extend(variant.map(|name| format!("{}: loaded the variant {name}", path.display())));
            return Ok(found);
        }
        let weights = weights_in(path)?;
        Self::of_file(&weights, options)
    }

    fn ignoring(mut self, ignore: &[String]) -> Result<Self> {
        self.checkpoint = without(self.checkpoint, ignore)?;
        Ok(self)
    }

    fn of_file(weights: &Path, options: FindOptions) -> Result<Self> {
        let FindOptions { config, ignore, overrides, like, .. } = options;
        let configs = [weights.with_extension("yaml"), weights.with_file_name("config.yaml")];
        let config =
            config.map(Path::to_path_buf).or_else(|| configs.into_iter().find(|path| path.is_file()));
        if config.is_none() && is_component(weights) {
            without_config(weights, None, overrides)?;
            return Self::of_component(weights)?.ignoring(ignore);
        }
        let (checkpoint, markers) = normalized(without(Checkpoint::open(weights)?, ignore)?);
        let (mut config, mut notes) = if let Some(config) = &config {
            let file = ModelFile::read(config, overrides)?;
            (file.model, file.notes)
        } else {
            let inferred =
                like.map_or_else(|| detect::infer_config(&checkpoint), |config| Ok(config.clone()))?;
            (inferred.with_overrides(weights, overrides)?, Vec::new())
        };
        let checkpoint = match &mut config {
            ModelConfig::LatentDiffusion(config) => markers.obey(config, checkpoint, &mut notes)?,
            // The first stage of a diffusion model.
            ModelConfig::Kl(_) | ModelConfig::Vq(_) if !checkpoint.contains("decoder.conv_out.weight") => {
                checkpoint.scope("first_stage_model.")
            }
            _ => checkpoint,
        };
        let folder = weights.parent().map(Path::to_path_buf);
        Ok(Self { config, checkpoint, folder, scheduler: None, notes, measured: false })
    }

    /// The diffusers first stage of the file `weights`.
    fn of_component(weights: &Path) -> Result<Self> {
        let found = Component::of_file(weights, ldm_autoencoder::from_diffusers, |(config, _)| {
            ldm_autoencoder::diffusers_layout(config)
        })?;
        let config = ModelConfig::of_first_stage(found.config.0).expect("diffusers' classes are KL and VQ");
        let checkpoint = found.checkpoint;
        Ok(Self { config, checkpoint, folder: None, scheduler: None, notes: Vec::new(), measured: false })
    }
}

/// Drops the tensors whose names start with one of `ignore`.
fn without(checkpoint: Checkpoint, ignore: &[String]) -> Result<Checkpoint> {
    if let Some(unused) = ignore.iter().find(|name| !checkpoint.names().any(|each| each.starts_with(*name))) {
        let why =
            format!("ignore: expected the beginning of a tensor's name, got `{}`", unused.escape_debug());
        return Err(Error::format(checkpoint.path(), why));
    }
    let ignore: Vec<&str> = ignore.iter().map(String::as_str).collect();
    Ok(checkpoint.without(&ignore))
}

/// Returns true when the weights are a first stage of a diffusers folder.
fn is_component(weights: &Path) -> bool {
    let json = read_json(&weights.with_file_name("config.json"));
    json.is_ok_and(|json| matches!(json["_class_name"].as_str(), Some("AutoencoderKL" | "VQModel")))
}

fn without_config(path: &Path, config: Option<&Path>, overrides: &[String]) -> Result<()> {
    match (config, overrides) {
        (None, []) => Ok(()),
        (Some(_), _) => Err(Error::format(path, "expected no --config for a diffusers folder, got one")),
        (None, [first, ..]) => {
            let first = first.escape_debug();
            Err(Error::format(path, format!("expected no KEY=VALUE for a diffusers folder, got {first}")))
        }
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
        "expected a model, got a LoRA; try it as --lora with the model it was trained for"
    } else if path.join("checkpoints").is_dir() {
        "expected a model, got a run before its first checkpoint"
    } else {
        "expected model_index.json, or model.safetensors and config.yaml, in it or in model/, got none of them"
    };
    Err(Error::format(path, why))
}

/// Finds the file of weights of a model at a path as of [`Model::open`](crate::Model::open).
///
/// # Errors
/// When there is none, and for a diffusers folder, which has a file for each component.
pub fn weights_file(path: &Path) -> Result<PathBuf> {
    if path.is_file() {
        return Ok(path.to_path_buf());
    }
    std::fs::metadata(path).map_err(Error::io(path))?;
    if path.join("model_index.json").is_file() {
        return Err(Error::format(
            path,
            "expected one file of weights, got a diffusers folder, which has several",
        ));
    }
    if path.join("config.json").is_file() {
        return Ok(weights_of(path, true)?.0);
    }
    weights_in(path)
}
