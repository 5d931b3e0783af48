//! Models opened from run directories, model folders and checkpoint files.

use std::cell::Cell;
use std::path::{Path, PathBuf};

use ldm_autoencoder::{FirstStage, FirstStageConfig, ImageKind, Posterior};
use ldm_checkpoint::{Checkpoint, FileWatch};
use ldm_conditioning::Tokenizer;
use ldm_core::nn::skip_init;
use ldm_core::{Error, Result, Tiles};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

use crate::memory::Footprint;
use crate::source::FindOptions;
use crate::{LatentDiffusion, ModelConfig, ModelSource, find_tokenizer};

/// A first stage with its weights.
#[derive(Debug)]
pub struct FirstStageModel {
    /// The variables, under CompVis' names.
    pub vs: VarStore,
    channels_last: bool,
    /// True once the weights are channels_last.
    is_channels_last: Cell<bool>,
    kind: Kind,
    /// Channels of a convolution at full resolution.
    channels: i64,
    /// The files of the weights, none of a model with fresh ones.
    files: FileWatch,
    /// The network.
    pub first_stage: Box<dyn FirstStage>,
}

/// Options of loading a model.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// The config of a checkpoint file; the one next to it where absent.
    pub config: Option<PathBuf>,
    /// The tokenizer of a text model; that of [`find_tokenizer`] where absent.
    pub tokenizer: Option<PathBuf>,
    /// Changes of the config, `a.b.c=value`, as CompVis' `sample_diffusion.py` takes them.
    pub overrides: Vec<String>,
    /// Beginnings of the names of tensors that are passed over, as CompVis' `ignore_keys`.
    pub ignore: Vec<String>,
    /// EMA weights, where the file has them.
    pub ema: bool,
    /// The device of the model.
    pub device: Device,
    /// The dtype of the weights.
    pub kind: Kind,
}

impl LoadOptions {
    /// EMA weights where there are some, f32, the default config and tokenizer.
    pub fn new(device: Device) -> Self {
        let (overrides, ignore) = (Vec::new(), Vec::new());
        Self { config: None, tokenizer: None, overrides, ignore, ema: true, device, kind: Kind::Float }
    }
}

/// A loaded model.
#[derive(Debug)]
pub enum Model {
    /// A first stage alone.
    FirstStage(FirstStageModel),
    /// A whole diffusion model.
    Diffusion(Box<LatentDiffusion>),
}

impl Model {
    /// The dtype of the weights.
    pub fn kind(&self) -> Kind {
        match self {
            Self::FirstStage(model) => model.kind,
            Self::Diffusion(model) => model.kind(),
        }
    }

    /// Opens the model that [`ModelSource::find`] finds at `path`, with its tokenizer where it reads text.
    ///
    /// `note` is given the [`ModelSource::notes`].
    ///
    /// # Errors
    /// As [`ModelSource::find`], [`find_tokenizer`] and [`Model::load`].
    pub fn open(path: &Path, options: &LoadOptions, note: &mut dyn FnMut(&str)) -> Result<Self> {
        let LoadOptions { config, ema, ignore, overrides, .. } = options;
        let config = config.as_deref();
        let how = FindOptions { config, ema: *ema, ignore, overrides, like: None };
        let found = ModelSource::locate(path, how)?;
        found.notes.iter().for_each(|each| note(each));
        let tokenizer = match &found.config {
            ModelConfig::LatentDiffusion(config) => find_tokenizer(
                &config.cond_stage_config,
                options.tokenizer.as_deref(),
                found.folder.as_deref(),
            )?,
            _ => None,
        };
        let mut model = Self::load(&found.config, found.checkpoint, tokenizer, options)?;
        if let Self::Diffusion(model) = &mut model {
            model.scheduler = found.scheduler;
        }
        Ok(model)
    }

    /// Builds the model of `config` and loads its weights strictly.
    ///
    /// # Errors
    /// As [`LatentDiffusion::load`]; [`Error::Format`] for a classifier: see
    /// [`Classifier::load`](crate::Classifier::load).
    pub fn load(
        config: &ModelConfig,
        checkpoint: Checkpoint,
        tokenizer: Option<Tokenizer>,
        options: &LoadOptions,
    ) -> Result<Self> {
        let &LoadOptions { device, kind, .. } = options;
        if let ModelConfig::LatentDiffusion(config) = config {
            let model = LatentDiffusion::load(config, checkpoint, tokenizer, options)?;
            return Ok(Self::Diffusion(Box::new(model)));
        }
        if matches!(config, ModelConfig::Classifier(_)) {
            return Err(Error::format(
                checkpoint.path(),
                "expected a diffusion model or a first stage, got a classifier; try it as --classifier",
            ));
        }
        let config = config.first_stage().expect("every other model is a first stage");
        let mut model = skip_init(|| FirstStageModel::build(&config, device, kind))?;
        // CompVis' first stages hold the discriminator and the perceptual network under `loss.`.
        model.files = checkpoint.watch();
        checkpoint.without(&["loss.", "model_ema."]).load_mmap(&mut model.vs)?;
        model.channels_last = ldm_libtorch::infers_in_channels_last(device, config.narrowest(), kind);
        Ok(Self::FirstStage(model))
    }

    /// Builds the model of `config` with fresh weights (drawn from libtorch's global generator), in the dtype and
    /// memory format of [`Model::load`]: for benchmarks. It takes token ids, since it has no tokenizer.
    ///
    /// # Errors
    /// As [`LatentDiffusion::new`]; [`Error::Invalid`] for a classifier.
    pub fn from_config(config: &ModelConfig, device: Device, kind: Kind) -> Result<Self> {
        if let ModelConfig::LatentDiffusion(config) = config {
            return Ok(Self::Diffusion(Box::new(LatentDiffusion::from_config(config, device, kind)?)));
        }
        let Some(config) = config.first_stage() else {
            return Err(Error::invalid(
                "model: expected a diffusion model or a first stage, got a classifier",
            ));
        };
        let mut model = FirstStageModel::build(&config, device, kind)?;
        model.channels_last = ldm_libtorch::infers_in_channels_last(device, config.narrowest(), kind);
        Ok(Self::FirstStage(model))
    }

    /// The first stage, alone or of the diffusion model.
    pub fn first_stage(&self) -> &dyn FirstStage {
        match self {
            Self::FirstStage(model) => &*model.first_stage,
            Self::Diffusion(model) => &*model.first_stage,
        }
    }

    /// Images that the first stage encodes.
    pub fn input(&self) -> ImageKind {
        match self {
            Self::FirstStage(model) => model.first_stage.input(),
            Self::Diffusion(model) => model.input(),
        }
    }

    /// Encodes images, unscaled. See [`FirstStage::encode`] and [`LatentDiffusion::posterior`].
    ///
    /// # Shapes
    /// - `image`: `[B, C', H, W]` in `[-1, 1]`, any dtype and device
    pub fn encode(&self, image: &Tensor) -> Posterior {
        let image = self.to_model(&self.input().convert(image));
        tch::no_grad(|| self.first_stage().encode(&image))
    }

    /// [`Model::encode`] in tiles of `side` pixels, in the memory of one tile and the latent.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the factor of the first stage does not divide `side`.
    pub fn encode_tiled(&self, image: &Tensor, side: i64) -> Result<Posterior> {
        let size = image.size();
        let factor = self.first_stage().factor();
        let tiles = self.tiles([size[2] / factor, size[3] / factor], side)?;
        let image = self.input().convert(image);
        Ok(tch::no_grad(|| self.first_stage().encode_tiled(&self.to_model(&image), &tiles)))
    }

    /// Tiles of `side` pixels of a latent `[h, w]`; neighbors share a quarter.
    fn tiles(&self, latent: [i64; 2], side: i64) -> Result<Tiles> {
        let first_stage = self.first_stage();
        if side < first_stage.factor() {
            let (least, got) = (first_stage.factor(), side);
            return Err(Error::invalid(format!("tile: expected at least {least} pixels, got {got}")));
        }
        first_stage
            .check_image_size([side, side])
            .map_err(|error| Error::invalid(format!("tile: {error}")))?;
        let side = side / first_stage.factor();
        Ok(Tiles::new(latent, side, side / 4))
    }

    /// [`Model::decode`] without quantization, see [`FirstStage::decode_unquantized`].
    pub fn decode_unquantized(&self, z: &Tensor) -> Tensor {
        tch::no_grad(|| self.first_stage().decode_unquantized(&self.to_model(z)).to_kind(Kind::Float))
    }

    /// Decodes unscaled latents, not clamped. See [`FirstStage::decode`].
    ///
    /// # Shapes
    /// - `z`: `[B, C, h, w]`, any dtype and device; returns `[B, C', f·h, f·w]` f32
    pub fn decode(&self, z: &Tensor) -> Tensor {
        tch::no_grad(|| self.first_stage().decode(&self.to_model(z)).to_kind(Kind::Float))
    }

    /// [`Model::decode`] in tiles of `side` pixels, in the memory of one tile and the image.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the factor of the first stage does not divide `side`.
    pub fn decode_tiled(&self, z: &Tensor, side: i64) -> Result<Tensor> {
        let size = z.size();
        let tiles = self.tiles([size[2], size[3]], side)?;
        Ok(tch::no_grad(|| self.first_stage().decode_tiled(&self.to_model(z), &tiles).to_kind(Kind::Float)))
    }

    fn to_model(&self, x: &Tensor) -> Tensor {
        match self {
            Self::FirstStage(model) => {
                let x = x.to_device(model.vs.device()).to_kind(model.kind);
                if !model.channels_last {
                    return x;
                }
                // The weights are converted at their first use.
                if !model.is_channels_last.replace(true) {
                    ldm_libtorch::channels_last(&model.vs);
                }
                ldm_libtorch::to_channels_last(&x)
            }
            Self::Diffusion(model) => model.to_model(x),
        }
    }

    /// Refuses an image of `[height, width]` that cannot be encoded or decoded in the memory of the CPU, except in tiles.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the memory that is available and that is needed at least.
    pub fn check_memory(&self, size: [i64; 2]) -> Result<()> {
        let network = match self {
            Self::FirstStage(FirstStageModel { vs, kind, channels, .. }) => {
                Footprint { device: vs.device(), kind: *kind, channels: *channels }
            }
            Self::Diffusion(model) => model.footprint(),
        };
        network.check(1, size)
    }

    /// Returns the model for an image `[1, C, H, W]` that may fit in memory: [`Model::check_memory`].
    ///
    /// # Errors
    /// As [`Model::check_memory`].
    pub fn checked_for(&self, image: &Tensor) -> Result<&Self> {
        let size = image.size();
        self.check_memory([size[2], size[3]]).map(|()| self)
    }

    /// Checks that no program wrote to the files of the weights since the model was loaded; call it before results are
    /// kept.
    ///
    /// # Errors
    /// [`Error::Format`] with the file.
    pub fn check_files(&self) -> Result<()> {
        match self {
            Self::FirstStage(model) => model.files.check(),
            Self::Diffusion(model) => model.check_files(),
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
    /// [`ldm_core::Error::Invalid`] for an invalid config.
    pub fn new(config: &FirstStageConfig, device: Device) -> Result<Self> {
        Self::build(config, device, Kind::Float)
    }

    fn build(config: &FirstStageConfig, device: Device, kind: Kind) -> Result<Self> {
        let mut vs = VarStore::new(device);
        vs.set_kind(kind);
        let first_stage = ldm_autoencoder::build(&vs.root(), config)?;
        Ok(Self {
            vs,
            channels_last: false,
            is_channels_last: Cell::new(false),
            kind,
            channels: config.network().map_or(0, |network| network.ch),
            files: FileWatch::default(),
            first_stage,
        })
    }
}
