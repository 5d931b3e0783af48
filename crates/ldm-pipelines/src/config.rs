//! The config tree of a model: CompVis' own, read strictly.

use std::path::Path;

use ldm_autoencoder::{FirstStageConfig, KlConfig, VqConfig};
use ldm_conditioning::{ClassConfig, ConditionerConfig};
use ldm_core::config::{self, Value};
use ldm_core::{Error, Result};
use ldm_schedulers::{BetaSchedule, Parameterization, ScheduleConfig};
use ldm_unet::UNetConfig;
use serde::Deserialize;
use serde::de::IgnoredAny;

/// `model` of a config file. Unknown fields beside `target` and `params` are refused by [`ModelFile::parse`], which
/// reads them a second time: `base_learning_rate` sits there, and a tagged enum would refuse it too.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "target", content = "params")]
pub enum ModelConfig {
    /// A diffusion model on the latents of a first stage.
    #[serde(rename = "latent_diffusion", alias = "ldm.models.diffusion.ddpm.LatentDiffusion")]
    LatentDiffusion(Box<LatentDiffusionConfig>),
    /// A KL first stage.
    #[serde(rename = "kl", alias = "ldm.models.autoencoder.AutoencoderKL")]
    Kl(KlConfig),
    /// A VQ first stage.
    #[serde(
        rename = "vq",
        alias = "ldm.models.autoencoder.VQModel",
        alias = "ldm.models.autoencoder.VQModelInterface"
    )]
    Vq(VqConfig),
}

impl ModelConfig {
    /// The first stage alone, when that is what is described.
    pub fn first_stage(&self) -> Option<FirstStageConfig> {
        match self {
            Self::Kl(config) => Some(FirstStageConfig::Kl(config.clone())),
            Self::Vq(config) => Some(FirstStageConfig::Vq(config.clone())),
            Self::LatentDiffusion(_) => None,
        }
    }
}

/// The fields beside `target` and `params`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Siblings {
    #[serde(default)]
    base_learning_rate: Option<f64>,
    #[serde(rename = "target")]
    _target: String,
    #[serde(rename = "params", default)]
    _params: IgnoredAny,
}

/// A whole config file as far as a model is concerned; `data`, `train` and `lightning` are for the trainer.
#[derive(Debug, Clone)]
pub struct ModelFile {
    /// The model described.
    pub model: ModelConfig,
    /// CompVis' `base_learning_rate`, where given.
    pub base_learning_rate: Option<f64>,
}

impl ModelFile {
    /// Reads a config file, with `overrides` as `a.b.c=value`.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Config`] with the key, what was expected, and the line.
    pub fn read(path: impl AsRef<Path>, overrides: &[String]) -> Result<Self> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
        Self::parse(&text, path, overrides)
    }

    /// [`ModelFile::read`] from text; `path` is named in errors.
    pub fn parse(text: &str, path: impl AsRef<Path>, overrides: &[String]) -> Result<Self> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Tree<M> {
            model: M,
            #[serde(rename = "data", default)]
            _data: IgnoredAny,
            #[serde(rename = "train", default)]
            _train: IgnoredAny,
            #[serde(rename = "lightning", default)]
            _lightning: IgnoredAny,
        }
        let path = path.as_ref();
        let siblings: Tree<Siblings> = config::parse(text, path, overrides)?;
        let tree: Tree<ModelConfig> = config::parse(text, path, overrides)?;
        Ok(Self { model: tree.model, base_learning_rate: siblings.model.base_learning_rate })
    }
}

/// `unet_config`.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "target", content = "params", deny_unknown_fields)]
pub enum UNetSection {
    /// The U-Net.
    #[serde(rename = "unet", alias = "ldm.modules.diffusionmodules.openaimodel.UNetModel")]
    UNet(UNetConfig),
}

/// Where a conditioning enters the U-Net. CompVis `ddpm.py:1402`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConditioningKey {
    /// Joined to x_t on the channels.
    Concat,
    /// Attended to.
    Crossattn,
    /// Both.
    Hybrid,
    /// Added to the time embedding.
    Adm,
}

/// How a prediction is compared with its target.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LossType {
    /// Absolute difference.
    L1,
    /// Squared difference.
    #[default]
    L2,
}

/// The fields of CompVis' `DDPM` and `LatentDiffusion` (`ddpm.py:44`, `ddpm.py:424`), with their defaults.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // the reference's names; reference/diffusion.md §3 is restated in docs/configs.md
pub struct LatentDiffusionConfig {
    pub unet_config: UNetSection,
    pub first_stage_config: FirstStageConfig,
    pub cond_stage_config: ConditionerConfig,
    #[serde(default = "thousand")]
    pub timesteps: usize,
    #[serde(default)]
    pub beta_schedule: BetaSchedule,
    #[serde(default = "linear_start")]
    pub linear_start: f64,
    #[serde(default = "linear_end")]
    pub linear_end: f64,
    #[serde(default = "cosine_s")]
    pub cosine_s: f64,
    #[serde(default)]
    pub given_betas: Option<Vec<f64>>,
    #[serde(default)]
    pub v_posterior: f64,
    #[serde(default = "eps")]
    pub parameterization: Parameterization,
    #[serde(default)]
    pub loss_type: LossType,
    #[serde(default = "one")]
    pub l_simple_weight: f64,
    #[serde(default)]
    pub original_elbo_weight: f64,
    #[serde(default)]
    pub learn_logvar: bool,
    #[serde(default)]
    pub logvar_init: f64,
    #[serde(default = "image")]
    pub first_stage_key: String,
    #[serde(default = "image")]
    pub cond_stage_key: String,
    #[serde(default)]
    pub cond_stage_trainable: bool,
    #[serde(default)]
    pub cond_stage_forward: Option<String>,
    #[serde(default)]
    pub conditioning_key: Option<ConditioningKey>,
    #[serde(default)]
    pub concat_mode: Option<bool>,
    #[serde(default = "one_usize")]
    pub num_timesteps_cond: usize,
    /// Side of the latent square the model was trained at (the reference's 256 is its default).
    #[serde(default = "side")]
    pub image_size: i64,
    /// Channels of the latent.
    #[serde(default = "three")]
    pub channels: i64,
    #[serde(default = "one")]
    pub scale_factor: f64,
    #[serde(default)]
    pub scale_by_std: bool,
    #[serde(default = "yes")]
    pub use_ema: bool,
    #[serde(default = "hundred")]
    pub log_every_t: usize,
    #[serde(default)]
    pub clip_denoised: Option<bool>,
    #[serde(default)]
    pub monitor: Option<String>,
    #[serde(default)]
    pub scheduler_config: Option<Value>,
    #[serde(default)]
    pub ckpt_path: Option<std::path::PathBuf>,
    #[serde(default)]
    pub ignore_keys: Vec<String>,
    #[serde(default)]
    pub load_only_unet: bool,
    #[serde(default)]
    pub use_positional_encodings: bool,
}

fn thousand() -> usize {
    1000
}
fn linear_start() -> f64 {
    1e-4
}
fn linear_end() -> f64 {
    2e-2
}
fn cosine_s() -> f64 {
    8e-3
}
fn eps() -> Parameterization {
    Parameterization::Eps
}
fn one() -> f64 {
    1.
}
fn one_usize() -> usize {
    1
}
fn image() -> String {
    "image".into()
}
fn side() -> i64 {
    256
}
fn three() -> i64 {
    3
}
fn yes() -> bool {
    true
}
fn hundred() -> usize {
    100
}

impl LatentDiffusionConfig {
    /// The noise schedule's part.
    pub fn schedule(&self) -> ScheduleConfig {
        ScheduleConfig {
            beta_schedule: self.beta_schedule,
            timesteps: self.timesteps,
            linear_start: self.linear_start,
            linear_end: self.linear_end,
            cosine_s: self.cosine_s,
            given_betas: self.given_betas.clone(),
            v_posterior: self.v_posterior,
        }
    }

    /// The U-Net's part.
    pub fn unet(&self) -> &UNetConfig {
        let UNetSection::UNet(config) = &self.unet_config;
        config
    }

    /// The class embedder's part, where the model is conditioned on classes.
    pub fn class(&self) -> Option<&ClassConfig> {
        match &self.cond_stage_config {
            ConditionerConfig::Class(config) => Some(config),
            _ => None,
        }
    }

    /// Width of the tokens the conditioner gives.
    pub fn context_dim(&self) -> Option<i64> {
        self.class().map(|class| class.embed_dim)
    }

    /// Where the conditioning enters: as said, else by `concat_mode` as the reference, else (the reference would
    /// say concat, which no class embedder can be) where the conditioner's output fits.
    pub fn conditioning_key(&self) -> Option<ConditioningKey> {
        if self.cond_stage_config == ConditionerConfig::Unconditional {
            return None;
        }
        Some(self.conditioning_key.unwrap_or(match self.concat_mode {
            Some(true) => ConditioningKey::Concat,
            Some(false) | None => ConditioningKey::Crossattn,
        }))
    }

    /// Refuses by name what the reference has and this version has not.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the field and its value.
    pub fn check(&self) -> Result<()> {
        let refuse = |field: &str, why: &str| Err(Error::invalid(format!("{field}: {why}")));
        if self.num_timesteps_cond != 1 {
            return refuse(
                "num_timesteps_cond",
                "a shortened conditioning schedule is not supported, expected 1",
            );
        }
        if self.use_positional_encodings {
            return refuse("use_positional_encodings", "the reference never published them, expected false");
        }
        if self.learn_logvar {
            return refuse("learn_logvar", "a learned log-variance is not supported yet, expected false");
        }
        if self.logvar_init != 0. {
            return refuse("logvar_init", "a log-variance in the loss is not supported yet, expected 0");
        }
        if self.cond_stage_forward.is_some() {
            return refuse("cond_stage_forward", "no conditioner has another method, leave it out");
        }
        if self.clip_denoised == Some(true) {
            return refuse("clip_denoised", "latents are not bounded, the reference forces false");
        }
        if self.timesteps == 0 {
            return refuse("timesteps", "expected at least 1");
        }
        if !(self.scale_factor.is_finite() && self.scale_factor > 0.) {
            return refuse("scale_factor", &format!("expected a positive number, got {}", self.scale_factor));
        }
        if self.scale_by_std && self.scale_factor != 1. {
            return refuse("scale_by_std", "the scale is measured, leave out `scale_factor`");
        }
        match self.conditioning_key() {
            None | Some(ConditioningKey::Crossattn) => Ok(()),
            Some(other) => {
                let word = format!("{other:?}").to_lowercase();
                refuse("conditioning_key", &format!("the class embedder gives `crossattn`, got {word}"))
            }
        }
    }
}
