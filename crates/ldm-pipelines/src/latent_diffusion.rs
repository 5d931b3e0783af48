//! Diffusion models: first stage, U-Net, conditioner, noise schedule and scale factor.

use std::cell::Cell;

use ldm_autoencoder::{FirstStage, ImageKind, Posterior};
use ldm_checkpoint::{Checkpoint, FileWatch};
use ldm_conditioning::{Conditioner, ConditionerConfig, Tokenizer, Unconditional};
use ldm_core::nn::skip_init;
use ldm_core::{Error, NoiseSource, Result};
use ldm_schedulers::{NoiseSchedule, Parameterization};
use ldm_unet::{Recordings, UNet};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

use crate::convert::measured;
use crate::detect::schedule as detect_schedule;
use crate::memory::Footprint;
use crate::{DiffusersScheduler, LatentDiffusionConfig, LoadOptions, compatibility};

/// The buffers at the root of a CompVis checkpoint, which follow from the config.
pub const SCHEDULE_BUFFERS: [&str; 12] = [
    "betas",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
];

/// A diffusion model on the latents of a first stage. CompVis `ddpm.py:424` `LatentDiffusion`.
///
/// One variable store holds all parts under CompVis' roots `model.diffusion_model`, `first_stage_model` and
/// `cond_stage_model`.
#[derive(Debug)]
pub struct LatentDiffusion {
    vs: VarStore,
    /// True when the first stage runs channels_last; the U-Net follows the format of its weights.
    channels_last: bool,
    /// True once the weights are channels_last.
    is_channels_last: Cell<bool>,
    kind: Kind,
    /// The files of the weights, none of a model with fresh ones.
    files: FileWatch,
    /// Pixels ↔ latents.
    pub first_stage: Box<dyn FirstStage>,
    /// The denoising network.
    pub unet: UNet,
    /// Prompt → conditioning, without the first stage; see [`LatentDiffusion::condition`].
    pub conditioner: Box<dyn Conditioner>,
    /// β over training time.
    pub schedule: NoiseSchedule,
    /// The network's prediction: eps, x0 or v.
    pub parameterization: Parameterization,
    /// The factor of latents after encoding; they are divided by it before decoding.
    pub scale_factor: f64,
    /// Names of the classes, where the file has them (metadata `classes`, a JSON list).
    pub classes: Vec<String>,
    /// Names of the classes of boxes, likewise (`box_classes`).
    pub box_classes: Vec<String>,
    /// Names of the labels of a map, likewise (`label_classes`).
    pub label_classes: Vec<String>,
    /// The `scheduler_config.json` of a diffusers folder.
    pub scheduler: Option<DiffusersScheduler>,
    /// Evaluations of the U-Net that [`generate`](crate::generate) replays: on CUDA, graphs of a loaded model. A new one, to
    /// be trained, has none, whose memory training needs.
    pub recordings: Recordings,
    /// The config it was built from.
    pub config: LatentDiffusionConfig,
}

impl LatentDiffusion {
    /// Builds the model with fresh weights (drawn from libtorch's global generator) on `device`. A model conditioned on
    /// text needs a `tokenizer` only for text prompts.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an invalid config of a part, or parts that do not fit each other.
    pub fn new(config: &LatentDiffusionConfig, tokenizer: Option<Tokenizer>, device: Device) -> Result<Self> {
        let mut model = Self::build(config, tokenizer, device, Kind::Float)?;
        model.channels_last = ldm_libtorch::prefers_channels_last(device, 0, true);
        model.to_channels_last();
        Ok(model)
    }

    /// [`LatentDiffusion::new`] in the dtype and memory format of a loaded model: see
    /// [`Model::from_config`](crate::Model::from_config).
    pub(crate) fn from_config(config: &LatentDiffusionConfig, device: Device, kind: Kind) -> Result<Self> {
        let mut model = Self::build(config, None, device, kind)?;
        model.channels_last = Self::infers_channels_last(config, device, kind);
        model.recordings = Recordings::on(device);
        Ok(model)
    }

    /// Returns true when an inference-only model runs channels_last.
    fn infers_channels_last(config: &LatentDiffusionConfig, device: Device, kind: Kind) -> bool {
        let narrowest = config.unet().model_channels.min(config.first_stage_config.narrowest());
        ldm_libtorch::infers_in_channels_last(device, narrowest, kind)
    }

    /// Builds all parts, with parameters of `kind`.
    fn build(
        config: &LatentDiffusionConfig,
        tokenizer: Option<Tokenizer>,
        device: Device,
        kind: Kind,
    ) -> Result<Self> {
        config.check()?;
        let mut vs = VarStore::new(device);
        vs.set_kind(kind);
        let root = vs.root();
        let unet = UNet::new(&(&root / "model" / "diffusion_model"), config.unet())?;
        let first_stage = ldm_autoencoder::build(&(&root / "first_stage_model"), &config.first_stage_config)?;
        let conditioner: Box<dyn Conditioner> = match &config.cond_stage_config {
            // The model's own first stage, see `condition`.
            ConditionerConfig::FirstStage => Box::new(Unconditional),
            other => other.build(&(&root / "cond_stage_model"), tokenizer)?,
        };
        let model = Self {
            vs,
            channels_last: false,
            is_channels_last: Cell::new(false),
            kind,
            files: FileWatch::default(),
            first_stage,
            unet,
            conditioner,
            schedule: NoiseSchedule::new(&config.schedule())?,
            parameterization: config.parameterization,
            scale_factor: config.scale_factor,
            classes: Vec::new(),
            box_classes: Vec::new(),
            label_classes: Vec::new(),
            scheduler: None,
            recordings: Recordings::default(),
            config: config.clone(),
        };
        compatibility::check(config, model.first_stage.latent_channels())?;
        model.unet.check_size([config.image_size, config.image_size])?;
        Ok(model)
    }

    /// Converts the weights to channels_last, once, where that is faster. On the CPU this copies most of the
    /// memory-mapped weights. Called by everything that runs the model.
    pub fn to_channels_last(&self) {
        if self.channels_last && !self.is_channels_last.replace(true) {
            ldm_libtorch::channels_last(&self.vs);
        }
    }

    /// Moves an input of the first stage to the device, dtype and memory format of the weights.
    pub(crate) fn to_model(&self, x: &Tensor) -> Tensor {
        self.to_channels_last();
        let x = x.to_device(self.vs.device()).to_kind(self.kind());
        if self.channels_last { ldm_libtorch::to_channels_last(&x) } else { x }
    }

    /// Builds the model and loads every weight from a CompVis state dict (or ours, which has the same names).
    ///
    /// Schedule buffers and leftovers of training (`logvar`, EMA copies) are ignored; all other names must match. The
    /// file must not change while the model exists: see [`Checkpoint::load_mmap`].
    ///
    /// # Errors
    /// As [`LatentDiffusion::new`]; [`Error::Weights`] listing every name that does not match; [`Error::Format`] when
    /// the file's buffers are not those of the config's schedule.
    pub fn load(
        config: &LatentDiffusionConfig,
        checkpoint: Checkpoint,
        tokenizer: Option<Tokenizer>,
        options: &LoadOptions,
    ) -> Result<Self> {
        let &LoadOptions { ema, device, kind, .. } = options;
        let mut model = skip_init(|| Self::build(config, tokenizer, device, kind))?;
        for (kind, names) in [
            ("classes", &mut model.classes),
            ("box_classes", &mut model.box_classes),
            ("label_classes", &mut model.label_classes),
        ] {
            if let Some(found) = checkpoint.metadata().get(kind) {
                *names = serde_json::from_str(found).map_err(|error| {
                    Error::format(checkpoint.path(), format!("metadata `{kind}`: {error}"))
                })?;
            }
        }
        detect_schedule::check(&checkpoint, &model.schedule)?;
        model.weights_of(checkpoint.clone(), ema).load_mmap(&mut model.vs)?;
        model.files = checkpoint.watch();
        model.channels_last = Self::infers_channels_last(config, device, kind);
        model.recordings = Recordings::on(device);
        if config.scale_by_std {
            model.scale_factor = measured(&checkpoint)?;
        }
        Ok(model)
    }

    /// The weights in a checkpoint: EMA weights with `ema`, where there are some, and no schedule buffers or leftovers
    /// of training.
    pub fn weights_of(&self, checkpoint: Checkpoint, ema: bool) -> Checkpoint {
        let names: Vec<String> = self.vs.variables().into_keys().collect();
        let checkpoint =
            if ema && checkpoint.has_ema() { checkpoint.with_ema_weights(&names) } else { checkpoint };
        let conditioner = &self.config.cond_stage_config;
        let mut left_out = SCHEDULE_BUFFERS.to_vec();
        left_out.extend(["scale_factor", "logvar", "model_ema.", "first_stage_model.loss."]);
        if *conditioner == ConditionerConfig::FirstStage {
            left_out.push("cond_stage_model."); // CompVis writes the first stage twice
        }
        let ignored = conditioner.ignored_names().iter();
        let ignored: Vec<String> = ignored.map(|name| format!("cond_stage_model.{name}")).collect();
        left_out.extend(ignored.iter().map(String::as_str));
        checkpoint.without(&left_out)
    }

    /// Checks a checkpoint against `config`; returns its weights, not read, and the noise schedule.
    ///
    /// # Errors
    /// As [`LatentDiffusion::load`].
    pub(crate) fn check(
        config: &LatentDiffusionConfig,
        checkpoint: Checkpoint,
        ema: bool,
    ) -> Result<(Checkpoint, NoiseSchedule)> {
        let model = skip_init(|| Self::build(config, None, Device::Cpu, Kind::Float))?;
        detect_schedule::check(&checkpoint, &model.schedule)?;
        let weights = model.weights_of(checkpoint, ema);
        weights.check(&model.vs)?;
        Ok((weights, model.schedule))
    }

    /// Loads the first stage's weights from a checkpoint of a first stage alone.
    ///
    /// # Errors
    /// [`Error::Weights`] listing every name that does not match.
    pub fn load_first_stage(&mut self, checkpoint: Checkpoint) -> Result<()> {
        checkpoint.without(&["loss.", "model_ema."]).load_scope(&self.vs, "first_stage_model.")
    }

    /// Checks that no program wrote to the files of the weights since the model was loaded: its tensors lie over their
    /// pages. [`generate`](crate::generate) calls it.
    ///
    /// # Errors
    /// [`Error::Format`] with the file.
    pub fn check_files(&self) -> Result<()> {
        self.files.check()
    }

    /// All variables of all parts.
    pub fn vs(&self) -> &VarStore {
        &self.vs
    }

    /// The store, for loading into it.
    pub fn vs_mut(&mut self) -> &mut VarStore {
        &mut self.vs
    }

    /// The dtype of the weights.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The first stage in the memory of the device.
    pub(crate) fn footprint(&self) -> Footprint {
        let channels = self.config.first_stage_config.network().map_or(0, |network| network.ch);
        Footprint { device: self.vs.device(), kind: self.kind, channels }
    }

    /// Encodes images into scaled latents; KL posteriors are sampled. CompVis `ddpm.py:545`.
    ///
    /// # Shapes
    /// - `image`: `[B, C', H, W]` in `[-1, 1]`, as [`LatentDiffusion::posterior`]; returns `[B, C, H/f, W/f]` f32
    pub fn encode(&self, image: &Tensor, noise: &mut dyn NoiseSource) -> Tensor {
        let posterior = self.posterior(image);
        tch::no_grad(|| posterior.sample(noise).to_kind(Kind::Float) * self.scale_factor)
    }

    /// Checks that images of `[H, W]` can be encoded and their latents denoised.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the nearest valid sizes.
    pub fn check_image_size(&self, size: [i64; 2]) -> Result<()> {
        self.first_stage.check_image_size(size)?;
        let [_, height, width] = self.first_stage.latent_size(size);
        self.unet.check_size([height, width])
    }

    /// Images that the first stage encodes: [`LatentDiffusionConfig::input`].
    pub fn input(&self) -> ImageKind {
        self.config.input()
    }

    /// Encodes images into the posterior of their latents, unscaled, without gradients. Images of 1 to 4 channels are
    /// converted to those of the first stage ([`ldm_core::channels::convert`]).
    ///
    /// # Shapes
    /// - `image`: `[B, C', H, W]` in `[-1, 1]`; for a first stage of label maps one-hot, 0 or 1
    pub fn posterior(&self, image: &Tensor) -> Posterior {
        let image = self.to_model(&self.input().convert(image));
        tch::no_grad(|| self.first_stage.encode(&image))
    }
}
