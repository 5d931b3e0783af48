//! The config of a diffusion model: CompVis' fields and their defaults.

use ldm_autoencoder::{FirstStageConfig, ImageKind};
use ldm_conditioning::{ClassConfig, ConditionerConfig};
use ldm_core::config::Value;
use ldm_core::{Error, Result};
use ldm_schedulers::{BetaSchedule, Parameterization, ScheduleConfig};
use ldm_unet::UNetConfig;
use serde::{Deserialize, Serialize};

use crate::condition_schedule;
use crate::conditioning_kind::methods;

/// `unet_config`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(tag = "target", content = "params", deny_unknown_fields)]
pub enum UNetSection {
    /// The U-Net.
    #[serde(rename = "unet", alias = "ldm.modules.diffusionmodules.openaimodel.UNetModel")]
    UNet(UNetConfig),
}

/// The input of the U-Net that takes the conditioning. CompVis `ddpm.py:1402`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ConditioningKey {
    /// Concatenated to x_t along the channels.
    Concat,
    /// Cross-attention.
    Crossattn,
    /// Both.
    Hybrid,
    /// Added to the time embedding.
    Adm,
}

impl ConditioningKey {
    /// The name in a config.
    pub fn name(self) -> &'static str {
        match self {
            Self::Concat => "concat",
            Self::Crossattn => "crossattn",
            Self::Hybrid => "hybrid",
            Self::Adm => "adm",
        }
    }
}

/// A condition concatenated to x_t in hybrid models. Stable Diffusion's inpainting, `ddpm.py` `LatentInpaintDiffusion`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ConcatKey {
    /// The mask at the latent's size, 1 where to inpaint: one channel.
    Mask,
    /// The scaled latent of the image with masked pixels gray.
    MaskedImage,
}

/// The loss of a prediction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LossType {
    /// Absolute difference.
    L1,
    /// Squared difference.
    #[default]
    L2,
}

/// The fields of CompVis' `DDPM` and `LatentDiffusion` (`ddpm.py:44`, `ddpm.py:424`), with their defaults, and those
/// of Stable Diffusion's `LatentInpaintDiffusion`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // CompVis' names, described in docs/guide/configs.md
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
    /// Rescales the noise schedule to end in pure noise (Lin et al. 2023); CompVis has no such key.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub zero_terminal_snr: bool,
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
    /// Side of the latent square the model was trained at (CompVis' 256 is its default).
    #[serde(default = "side")]
    pub image_size: i64,
    /// Channels of the latent.
    #[serde(default = "three")]
    pub channels: i64,
    #[serde(default = "one")]
    pub scale_factor: f64,
    #[serde(default)]
    pub scale_by_std: bool,
    /// Scales the concatenated latent of the masked image by the scale factor, as x_t; CompVis has no such key.
    #[serde(default)]
    pub scale_concat: bool,
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
    #[serde(default)]
    pub unet_trainable: Option<bool>,
    #[serde(default)]
    pub concat_keys: Option<Vec<ConcatKey>>,
    #[serde(default)]
    pub masked_image_key: Option<String>,
    #[serde(default)]
    pub finetune_keys: Option<Vec<String>>,
    #[serde(default)]
    pub keep_finetune_dims: Option<i64>,
    #[serde(default)]
    pub c_concat_log_start: Option<i64>,
    #[serde(default)]
    pub c_concat_log_end: Option<i64>,
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
    /// The config of these fields, with CompVis' defaults for the others.
    ///
    /// # Errors
    /// [`Error::Invalid`] when a field is unknown, missing, or not of its type.
    pub(crate) fn of(fields: serde_json::Value) -> Result<Self> {
        serde_json::from_value(fields).map_err(|error| Error::invalid(error.to_string()))
    }

    /// The config of the noise schedule.
    pub fn schedule(&self) -> ScheduleConfig {
        ScheduleConfig {
            beta_schedule: self.beta_schedule,
            timesteps: self.timesteps,
            linear_start: self.linear_start,
            linear_end: self.linear_end,
            cosine_s: self.cosine_s,
            given_betas: self.given_betas.clone(),
            v_posterior: self.v_posterior,
            zero_terminal_snr: self.zero_terminal_snr,
        }
    }

    /// The config of the U-Net.
    pub fn unet(&self) -> &UNetConfig {
        let UNetSection::UNet(config) = &self.unet_config;
        config
    }

    /// The config of the class embedder, where the model has one.
    pub fn class(&self) -> Option<&ClassConfig> {
        match &self.cond_stage_config {
            ConditionerConfig::Class(config) => Some(config),
            ConditionerConfig::Hybrid(hybrid) => match &*hybrid.c_crossattn_config {
                ConditionerConfig::Class(config) => Some(config),
                _ => None,
            },
            _ => None,
        }
    }

    /// The number of classes of a class-conditional model, with an embedder or labels.
    pub fn classes(&self) -> Option<i64> {
        match self.conditioning_key() {
            Some(ConditioningKey::Adm) => self.unet().num_classes,
            _ => self.class().map(|class| class.n_classes),
        }
    }

    /// Images that the first stage encodes. `first_stage_key: segmentation` makes label maps of its images, for configs in
    /// which the first stage has no `image_key` of its own.
    pub fn input(&self) -> ImageKind {
        match self.first_stage_config.input() {
            ImageKind::Pixels(channels) if self.first_stage_key == "segmentation" => {
                ImageKind::LabelMap(channels)
            }
            kind => kind,
        }
    }

    /// The number of classes of a semantic map, where the model is conditioned on one.
    pub fn map_classes(&self) -> Option<i64> {
        match &self.cond_stage_config {
            ConditionerConfig::Spatial(config) => Some(config.in_channels),
            ConditionerConfig::Hybrid(hybrid) => match &*hybrid.c_concat_config {
                ConditionerConfig::Spatial(config) => Some(config.in_channels),
                _ => None,
            },
            _ => None,
        }
    }

    /// Returns true when the model reads text through CLIP, as Stable Diffusion does.
    pub fn clip(&self) -> bool {
        matches!(self.cond_stage_config, ConditionerConfig::ClipText(_))
    }

    /// The conditioning key: as given, else by `concat_mode`, whose default is CompVis' `true` (`ddpm.py:443`)
    /// where the conditioner's output has height and width, and false for tokens.
    pub fn conditioning_key(&self) -> Option<ConditioningKey> {
        let conditioner = &self.cond_stage_config;
        if *conditioner == ConditionerConfig::Unconditional {
            return None;
        }
        let by_mode = |concat| if concat { ConditioningKey::Concat } else { ConditioningKey::Crossattn };
        if matches!(conditioner, ConditionerConfig::Hybrid(_)) {
            return self.conditioning_key.or(Some(ConditioningKey::Hybrid));
        }
        Some(
            self.conditioning_key
                .unwrap_or_else(|| by_mode(self.concat_mode.unwrap_or(spatial(conditioner)))),
        )
    }

    /// The conditions concatenated to x_t in a hybrid model, in order; by default the mask and then the masked image.
    pub fn concat_keys(&self) -> &[ConcatKey] {
        self.concat_keys.as_deref().unwrap_or(&[ConcatKey::Mask, ConcatKey::MaskedImage])
    }

    /// Checks the requirements of the class named by `target`.
    pub(crate) fn check_target(&self, target: &str) -> Result<()> {
        if target.ends_with(".Layout2ImgDiffusion") && self.cond_stage_key != "coordinates_bbox" {
            let got = &self.cond_stage_key;
            return Err(Error::invalid(format!(
                "cond_stage_key: expected coordinates_bbox for Layout2ImgDiffusion, got {got}"
            )));
        }
        if target.ends_with(".LatentInpaintDiffusion")
            && self.conditioning_key() != Some(ConditioningKey::Hybrid)
        {
            let got = self.conditioning_key().map_or("none", ConditioningKey::name);
            return Err(Error::invalid(format!(
                "conditioning_key: expected hybrid for LatentInpaintDiffusion, got {got}"
            )));
        }
        Ok(())
    }

    /// Checks the fields, and refuses by name those of CompVis that are not supported.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the field and its value.
    pub fn check(&self) -> Result<()> {
        let refuse = |field: &str, why: &str| Err(Error::invalid(format!("{field}: {why}")));
        condition_schedule::check(self)?;
        if self.use_positional_encodings {
            return refuse("use_positional_encodings", "expected false, got true, which was never published");
        }
        if !self.logvar_init.is_finite() {
            return refuse("logvar_init", &format!("expected a finite number, got {}", self.logvar_init));
        }
        if let Some(got) = &self.cond_stage_forward
            && !methods(&self.cond_stage_config).contains(&got.as_str())
        {
            let known = methods(&self.cond_stage_config).join(" or ");
            return refuse(
                "cond_stage_forward",
                &format!("expected {known}, the methods of the conditioner, got {got}"),
            );
        }
        if self.clip_denoised == Some(true)
            && !matches!(self.first_stage_config, FirstStageConfig::Identity(_))
        {
            return refuse("clip_denoised", "expected false, since latents are not bounded, got true");
        }
        if self.unet().dims != 2 {
            let got = self.unet().dims;
            return refuse(
                "unet_config.params.dims",
                &format!("expected 2, since models are of images, got {got}"),
            );
        }
        if self.zero_terminal_snr && self.parameterization == Parameterization::Eps {
            return refuse(
                "zero_terminal_snr",
                "expected parameterization v or x0, got eps, which is undefined in pure noise",
            );
        }
        if self.timesteps == 0 {
            return refuse("timesteps", "expected at least 1, got 0");
        }
        if !(self.scale_factor.is_finite() && self.scale_factor > 0.) {
            return refuse("scale_factor", &format!("expected a positive number, got {}", self.scale_factor));
        }
        if self.scale_by_std && self.scale_factor != 1. {
            return refuse(
                "scale_by_std",
                "expected no scale_factor with it, since the scale is measured, got one",
            );
        }
        if self.scale_concat && self.cond_stage_config != ConditionerConfig::FirstStage {
            return refuse(
                "scale_concat",
                "expected false, since no latent of the first stage is concatenated, got true",
            );
        }
        if self.masked_image_key.as_deref().is_some_and(|key| key != "masked_image") {
            let got = self.masked_image_key.as_deref().unwrap_or_default();
            return refuse("masked_image_key", &format!("expected masked_image, got {got}"));
        }
        Ok(())
    }
}

/// Returns true when the conditioner's output has height and width.
fn spatial(conditioner: &ConditionerConfig) -> bool {
    matches!(
        conditioner,
        ConditionerConfig::FirstStage | ConditionerConfig::Spatial(_) | ConditionerConfig::Identity
    )
}
