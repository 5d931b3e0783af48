//! What a first stage is made of, as CompVis' YAML says it.

use std::path::PathBuf;

use ldm_core::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_yaml::Value;

use crate::codebook::CodebookConfig;
use crate::encoder_config::EncoderConfig;
use crate::remap::UnknownIndex;

/// Which first stage, and its parameters: the tree `{target, params}`.
///
/// `target` is `kl`, `vq` or `identity`, or CompVis' dotted class name, so that its own files read unchanged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "target", content = "params", rename_all = "snake_case", deny_unknown_fields)]
pub enum FirstStageConfig {
    /// An autoencoder whose latent is a Gaussian pulled to N(0, 1).
    #[serde(alias = "ldm.models.autoencoder.AutoencoderKL")]
    Kl(KlConfig),
    /// An autoencoder whose latent is quantized by a learned codebook, inside the decoder.
    #[serde(alias = "ldm.models.autoencoder.VQModelInterface", alias = "ldm.models.autoencoder.VQModel")]
    Vq(VqConfig),
    /// No first stage: diffusion in pixels. `params` may be left out.
    #[serde(alias = "ldm.models.autoencoder.IdentityFirstStage")]
    Identity(Option<IdentityConfig>),
}

/// CompVis' `AutoencoderKL`: every field of its constructor.
///
/// The model is built from `embed_dim`, `ddconfig` and `colorize_nlabels`. Who loads weights reads `ckpt_path` and
/// `ignore_keys`; the trainer reads `lossconfig`, `image_key` and `monitor`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KlConfig {
    /// Channels of the latent.
    pub embed_dim: i64,
    /// The encoder and its mirror, the decoder.
    pub ddconfig: EncoderConfig,
    /// The loss, as the trainer reads it.
    #[serde(default)]
    pub lossconfig: Option<Value>,
    /// Weights to start from.
    #[serde(default)]
    pub ckpt_path: Option<PathBuf>,
    /// Prefixes of names in `ckpt_path` that are left out.
    #[serde(default)]
    pub ignore_keys: Vec<String>,
    /// The entry of a batch that holds the image.
    #[serde(default = "image")]
    pub image_key: String,
    /// Classes of a segmentation map that [`Autoencoder::to_rgb`](crate::Autoencoder::to_rgb) shows as colors.
    #[serde(default)]
    pub colorize_nlabels: Option<i64>,
    /// The logged number by which the best checkpoint is kept.
    #[serde(default)]
    pub monitor: Option<String>,
}

/// CompVis' `VQModel` and `VQModelInterface`: every field of their constructor, and three of the quantizer's
/// (`beta`, `legacy`, `unknown_index`) that the reference fixes in code, with its values as defaults; and two of ours.
///
/// The model is built from `embed_dim`, `n_embed`, `ddconfig`, `remap`, `sane_index_shape`, `colorize_nlabels` and
/// those five. Who loads weights reads `ckpt_path` and `ignore_keys`; the trainer reads the rest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VqConfig {
    /// Channels of the latent and of the codebook's entries.
    pub embed_dim: i64,
    /// Entries of the codebook.
    pub n_embed: i64,
    /// The encoder and its mirror, the decoder.
    pub ddconfig: EncoderConfig,
    /// The loss, as the trainer reads it.
    #[serde(default)]
    pub lossconfig: Option<Value>,
    /// Weights to start from.
    #[serde(default)]
    pub ckpt_path: Option<PathBuf>,
    /// Prefixes of names in `ckpt_path` that are left out.
    #[serde(default)]
    pub ignore_keys: Vec<String>,
    /// The entry of a batch that holds the image.
    #[serde(default = "image")]
    pub image_key: String,
    /// Classes of a segmentation map that [`Autoencoder::to_rgb`](crate::Autoencoder::to_rgb) shows as colors.
    #[serde(default)]
    pub colorize_nlabels: Option<i64>,
    /// The logged number by which the best checkpoint is kept.
    #[serde(default)]
    pub monitor: Option<String>,
    /// Least and largest size, in pixels, to which the trainer resizes each batch.
    #[serde(default)]
    pub batch_resize_range: Option<[i64; 2]>,
    /// The learning rate's course, as the trainer reads it.
    #[serde(default)]
    pub scheduler_config: Option<Value>,
    /// The autoencoder's learning rate as a multiple of the discriminator's.
    #[serde(default = "one")]
    pub lr_g_factor: f64,
    /// A `.npy` file of the indices in use, to which indices are renumbered.
    #[serde(default)]
    pub remap: Option<PathBuf>,
    /// Whether indices come as `[B, h, w]` rather than flat.
    #[serde(default)]
    pub sane_index_shape: bool,
    /// Whether the trainer keeps a moving average of the weights.
    #[serde(default)]
    pub use_ema: bool,
    /// The weight of one of the two terms of the codebook's loss; see `legacy`.
    #[serde(default = "quarter")]
    pub beta: f64,
    /// Whether `beta` weighs the codebook's term (as every official model) and not the commitment's (as the paper).
    #[serde(default = "yes")]
    pub legacy: bool,
    /// What an index becomes that `remap` does not list.
    #[serde(default)]
    pub unknown_index: UnknownIndex,
    /// Ours: decay of the running averages that entries are in training; none has them follow gradients.
    #[serde(default)]
    pub ema_decay: Option<f64>,
    /// Ours: training steps without use after which an entry becomes a latent of the batch; none leaves it.
    #[serde(default)]
    pub restart_after: Option<i64>,
}

/// CompVis' `IdentityFirstStage`. It ignores every argument but `vq_interface`; here other keys are refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdentityConfig {
    /// Whether the reference's `quantize` answers as a VQ model's. There is nothing to quantize, so it changes nothing.
    #[serde(default)]
    pub vq_interface: bool,
    /// Channels of an image.
    #[serde(default = "three")]
    pub channels: i64,
}

fn image() -> String {
    "image".into()
}
fn yes() -> bool {
    true
}
fn one() -> f64 {
    1.
}
fn quarter() -> f64 {
    0.25
}
fn three() -> i64 {
    3
}

impl Default for IdentityConfig {
    fn default() -> Self {
        Self { vq_interface: false, channels: three() }
    }
}

impl FirstStageConfig {
    /// Channels of the narrowest convolutions; a first stage without any has 0.
    pub fn narrowest(&self) -> i64 {
        let net = match self {
            Self::Kl(config) => &config.ddconfig,
            Self::Vq(config) => &config.ddconfig,
            Self::Identity(_) => return 0,
        };
        net.ch * net.ch_mult.iter().min().copied().unwrap_or(1)
    }

    /// Refuses what no model can be built from.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the key and the value.
    pub fn validate(&self) -> Result<()> {
        match self {
            Self::Kl(config) => {
                positive("embed_dim", config.embed_dim)?;
                config.ddconfig.validate(true)?;
                labels(config.colorize_nlabels)
            }
            Self::Vq(config) => {
                positive("embed_dim", config.embed_dim)?;
                config.ddconfig.validate(false)?;
                config.codebook().validate()?;
                labels(config.colorize_nlabels)?;
                if let Some([least, largest]) = config.batch_resize_range {
                    positive("batch_resize_range", least)?;
                    if least > largest {
                        return refuse(
                            "batch_resize_range",
                            "[least, largest]",
                            format!("[{least}, {largest}]"),
                        );
                    }
                }
                if !(config.lr_g_factor > 0. && config.lr_g_factor.is_finite()) {
                    return refuse("lr_g_factor", "a positive number", config.lr_g_factor);
                }
                Ok(())
            }
            Self::Identity(config) => positive("channels", config.clone().unwrap_or_default().channels),
        }
    }
}

impl KlConfig {
    /// The autoencoder of these, without anything that training asks for.
    pub fn new(embed_dim: i64, ddconfig: EncoderConfig) -> Self {
        Self {
            embed_dim,
            ddconfig,
            lossconfig: None,
            ckpt_path: None,
            ignore_keys: Vec::new(),
            image_key: image(),
            colorize_nlabels: None,
            monitor: None,
        }
    }
}

impl VqConfig {
    /// The autoencoder of these with a codebook of `n_embed` entries, without anything that training asks for.
    pub fn new(embed_dim: i64, n_embed: i64, ddconfig: EncoderConfig) -> Self {
        Self {
            embed_dim,
            n_embed,
            ddconfig,
            lossconfig: None,
            ckpt_path: None,
            ignore_keys: Vec::new(),
            image_key: image(),
            colorize_nlabels: None,
            monitor: None,
            batch_resize_range: None,
            scheduler_config: None,
            lr_g_factor: one(),
            remap: None,
            sane_index_shape: false,
            use_ema: false,
            beta: quarter(),
            legacy: yes(),
            unknown_index: UnknownIndex::default(),
            ema_decay: None,
            restart_after: None,
        }
    }

    /// What the codebook is made of.
    pub fn codebook(&self) -> CodebookConfig {
        CodebookConfig {
            n_embed: self.n_embed,
            embed_dim: self.embed_dim,
            beta: self.beta,
            legacy: self.legacy,
            remap: self.remap.clone(),
            unknown_index: self.unknown_index,
            sane_index_shape: self.sane_index_shape,
            ema_decay: self.ema_decay,
            restart_after: self.restart_after,
        }
    }
}

pub(crate) fn refuse<T>(key: &str, expected: &str, got: impl std::fmt::Display) -> Result<T> {
    Err(Error::invalid(format!("`{key}`: expected {expected}, got: {got}")))
}

pub(crate) fn positive(key: &str, size: i64) -> Result<()> {
    if size > 0 { Ok(()) } else { refuse(key, "a positive number", size) }
}

fn labels(count: Option<i64>) -> Result<()> {
    count.map_or(Ok(()), |count| positive("colorize_nlabels", count))
}
