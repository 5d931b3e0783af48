//! A model from what people have: a run directory, a model folder, or a checkpoint file with its config.

use std::path::{Path, PathBuf};

use ldm_autoencoder::{FirstStage, FirstStageConfig, Posterior};
use ldm_core::weights::Checkpoint;
use ldm_core::{Error, Result};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

use crate::{LatentDiffusion, ModelConfig, ModelFile};

/// A first stage with its weights.
#[derive(Debug)]
pub struct FirstStageModel {
    /// Its variables, under CompVis' names.
    pub vs: VarStore,
    channels_last: bool,
    kind: Kind,
    /// The network.
    pub first_stage: Box<dyn FirstStage>,
}

/// What a path held.
#[derive(Debug)]
pub enum Model {
    /// A first stage alone.
    FirstStage(FirstStageModel),
    /// A whole diffusion model.
    Diffusion(Box<LatentDiffusion>),
}

impl Model {
    /// Opens `path`: a run directory (its `model/` is taken), a folder with `config.yaml` and
    /// `model.safetensors`, or a checkpoint file whose config is `config` or lies beside it as `config.yaml`.
    ///
    /// # Errors
    /// When nothing of that is there, when the config or the weights are refused, or when `path` is a diffusers
    /// folder, which this version does not read.
    pub fn open(path: &Path, config: Option<&Path>, ema: bool, device: Device, kind: Kind) -> Result<Self> {
        let (weights, beside) = locate(path)?;
        let config = match config {
            Some(config) => config.to_path_buf(),
            None if beside.is_file() => beside,
            None => {
                return Err(Error::config(
                    path,
                    "a checkpoint file needs its config: give it by --config, or put config.yaml beside it",
                ));
            }
        };
        let file = ModelFile::read(&config, &[])?;
        Self::load(&file.model, Checkpoint::open(&weights)?, ema, device, kind)
    }

    /// Builds what `config` describes and loads it strictly.
    ///
    /// # Errors
    /// As [`LatentDiffusion::load`].
    pub fn load(
        config: &ModelConfig,
        checkpoint: Checkpoint,
        ema: bool,
        device: Device,
        kind: Kind,
    ) -> Result<Self> {
        if let ModelConfig::LatentDiffusion(config) = config {
            return Ok(Self::Diffusion(Box::new(LatentDiffusion::load(
                config, checkpoint, ema, device, kind,
            )?)));
        }
        let config = config.first_stage().expect("every other model is a first stage");
        let mut model = FirstStageModel::new(&config, device)?;
        crate::latent_diffusion::cast(&mut model.vs, kind);
        model.kind = kind;
        model.channels_last = ldm_libtorch::prefers_channels_last(device, config.narrowest(), false);
        if model.channels_last {
            ldm_libtorch::channels_last(&model.vs);
        }
        // A first stage trained by CompVis holds its discriminator and its perceptual network under `loss.`.
        checkpoint.without(&["loss.", "model_ema."]).load_into(&mut model.vs)?;
        Ok(Self::FirstStage(model))
    }

    /// The first stage, alone or of the whole.
    pub fn first_stage(&self) -> &dyn FirstStage {
        match self {
            Self::FirstStage(model) => &*model.first_stage,
            Self::Diffusion(model) => &*model.first_stage,
        }
    }

    /// Encodes pictures, unscaled. See [`FirstStage::encode`].
    ///
    /// # Shapes
    /// - `image`: `[B, 3, H, W]` in `[-1, 1]`, any dtype and device
    pub fn encode(&self, image: &Tensor) -> Posterior {
        tch::no_grad(|| self.first_stage().encode(&self.place(image)))
    }

    /// Decodes unscaled latents, not clamped. See [`FirstStage::decode`].
    ///
    /// # Shapes
    /// - `z`: `[B, C, h, w]`, any dtype and device; returns `[B, 3, f·h, f·w]` f32
    pub fn decode(&self, z: &Tensor) -> Tensor {
        tch::no_grad(|| self.first_stage().decode(&self.place(z)).to_kind(Kind::Float))
    }

    fn place(&self, x: &Tensor) -> Tensor {
        match self {
            Self::FirstStage(model) => {
                let x = x.to_device(model.vs.device()).to_kind(model.kind);
                if model.channels_last { ldm_libtorch::to_channels_last(&x) } else { x }
            }
            Self::Diffusion(model) => model.place(x),
        }
    }

    /// Every variable.
    pub fn vs(&self) -> &VarStore {
        match self {
            Self::FirstStage(model) => &model.vs,
            Self::Diffusion(model) => model.vs(),
        }
    }
}

impl FirstStageModel {
    /// Builds a first stage with fresh weights (drawn from libtorch's global generator).
    ///
    /// # Errors
    /// [`Error::Invalid`] when it cannot be what its config says.
    pub fn new(config: &FirstStageConfig, device: Device) -> Result<Self> {
        let vs = VarStore::new(device);
        let first_stage = ldm_autoencoder::build(&vs.root(), config)?;
        Ok(Self { vs, channels_last: false, kind: Kind::Float, first_stage })
    }
}

/// The weights' file of a model that is given as [`Model::open`] takes it.
///
/// # Errors
/// When there is none.
pub fn weights_file(path: &Path) -> Result<PathBuf> {
    locate(path).map(|(weights, _)| weights)
}

/// The weights' file, and where its config would lie.
fn locate(path: &Path) -> Result<(PathBuf, PathBuf)> {
    if path.is_file() {
        return Ok((path.to_path_buf(), path.with_file_name("config.yaml")));
    }
    std::fs::metadata(path).map_err(Error::io(path))?;
    if path.join("model_index.json").is_file() {
        return Err(Error::format(path, "a diffusers folder, which this version does not read"));
    }
    for folder in [path.join("model"), path.to_path_buf()] {
        let weights = folder.join("model.safetensors");
        if weights.is_file() {
            return Ok((weights, folder.join("config.yaml")));
        }
    }
    let why = if path.join("checkpoints").is_dir() {
        "a run that has not written its model yet (it does at its first checkpoint)"
    } else {
        "no model here: expected model.safetensors and config.yaml, in it or in its folder model/"
    };
    Err(Error::format(path, why))
}
