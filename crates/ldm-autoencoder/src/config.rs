//! First-stage configuration, in CompVis' YAML.

use std::path::PathBuf;

use ldm_core::Result;
use serde::{Deserialize, Serialize};
use serde_yaml::Value;

use crate::checks::{positive, refuse};
use crate::codebook::CodebookConfig;
use crate::encoder_config::EncoderConfig;
use crate::image_kind::ImageKind;
use crate::remap::UnknownIndex;

/// Configuration of a first stage: the tree `{target, params}`.
///
/// `target` is `kl`, `vq` or `identity`, or CompVis' dotted class name, so that CompVis files load unchanged.
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
/// The model is built from `embed_dim`, `ddconfig` and `colorize_nlabels`. Weight loading uses `ckpt_path` and
/// `ignore_keys`; the trainer uses `lossconfig`, `image_key` and `monitor`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KlConfig {
    /// Channels of the latent.
    pub embed_dim: i64,
    /// The encoder and its mirror, the decoder.
    pub ddconfig: EncoderConfig,
    /// The loss, parsed by the trainer.
    #[serde(default)]
    pub lossconfig: Option<Value>,
    /// Initial weights.
    #[serde(default)]
    pub ckpt_path: Option<PathBuf>,
    /// Name prefixes to skip in `ckpt_path`.
    #[serde(default)]
    pub ignore_keys: Vec<String>,
    /// Images that are encoded: `image`, or `segmentation` for one-hot label maps. The trainer refuses other keys.
    #[serde(default = "image")]
    pub image_key: String,
    /// Classes of a segmentation map, which [`Autoencoder::to_rgb`](crate::Autoencoder::to_rgb) shows in color.
    #[serde(default)]
    pub colorize_nlabels: Option<i64>,
    /// Logged metric that selects the best checkpoint.
    #[serde(default)]
    pub monitor: Option<String>,
}

/// CompVis' `VQModel` and `VQModelInterface`: every field of their constructor, and three of the quantizer's
/// (`beta`, `legacy`, `unknown_index`), which CompVis fixes in code and are the defaults here; and two of ours.
///
/// The model is built from `embed_dim`, `n_embed`, `ddconfig`, `remap`, `sane_index_shape`, `colorize_nlabels` and
/// those five. Weight loading uses `ckpt_path` and `ignore_keys`; the trainer uses the rest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VqConfig {
    /// Channels of the latent and of the codebook's entries.
    pub embed_dim: i64,
    /// Entries of the codebook.
    pub n_embed: i64,
    /// The encoder and its mirror, the decoder.
    pub ddconfig: EncoderConfig,
    /// The loss, parsed by the trainer.
    #[serde(default)]
    pub lossconfig: Option<Value>,
    /// Initial weights.
    #[serde(default)]
    pub ckpt_path: Option<PathBuf>,
    /// Name prefixes to skip in `ckpt_path`.
    #[serde(default)]
    pub ignore_keys: Vec<String>,
    /// Images that are encoded: `image`, or `segmentation` for one-hot label maps. The trainer refuses other keys.
    #[serde(default = "image")]
    pub image_key: String,
    /// Classes of a segmentation map, which [`Autoencoder::to_rgb`](crate::Autoencoder::to_rgb) shows in color.
    #[serde(default)]
    pub colorize_nlabels: Option<i64>,
    /// Logged metric that selects the best checkpoint.
    #[serde(default)]
    pub monitor: Option<String>,
    /// Smallest and largest size, in pixels, to which the trainer resizes each batch.
    #[serde(default)]
    pub batch_resize_range: Option<[i64; 2]>,
    /// Learning-rate schedule, parsed by the trainer.
    #[serde(default)]
    pub scheduler_config: Option<Value>,
    /// The autoencoder's learning rate as a multiple of the discriminator's.
    #[serde(default = "one")]
    pub lr_g_factor: f64,
    /// A `.npy` file of the indices in use; indices are renumbered to positions in it.
    #[serde(default)]
    pub remap: Option<PathBuf>,
    /// If true, indices have shape `[B, h, w]` instead of flat.
    #[serde(default)]
    pub sane_index_shape: bool,
    /// If true, the trainer keeps an EMA of the weights.
    #[serde(default)]
    pub use_ema: bool,
    /// Weight of one of the two codebook loss terms; see `legacy`.
    #[serde(default = "quarter")]
    pub beta: f64,
    /// If true, `beta` weights the codebook term (every official model), else the commitment term (the paper).
    #[serde(default = "yes")]
    pub legacy: bool,
    /// Replacement for an index not listed in `remap`.
    #[serde(default)]
    pub unknown_index: UnknownIndex,
    /// Ours: EMA decay of the entries in training; without it they follow gradients.
    #[serde(default)]
    pub ema_decay: Option<f64>,
    /// Ours: training steps without use after which an entry is replaced by a latent of the batch.
    #[serde(default)]
    pub restart_after: Option<i64>,
}

/// CompVis' `IdentityFirstStage`, which ignores every argument but `vq_interface`; here other keys are errors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdentityConfig {
    /// If true, CompVis' `quantize` has the interface of a VQ model. Without effect: there is nothing to quantize.
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
    /// The encoder and decoder of an autoencoder; none of the identity.
    pub fn network(&self) -> Option<&EncoderConfig> {
        match self {
            Self::Kl(config) => Some(&config.ddconfig),
            Self::Vq(config) => Some(&config.ddconfig),
            Self::Identity(_) => None,
        }
    }

    /// CompVis' `image_key`; none of the identity.
    pub fn image_key(&self) -> Option<&str> {
        match self {
            Self::Kl(config) => Some(&config.image_key),
            Self::Vq(config) => Some(&config.image_key),
            Self::Identity(_) => None,
        }
    }

    /// Images that the model encodes: label maps with `image_key: segmentation`, else pixels.
    pub fn input(&self) -> ImageKind {
        let pixels = |config: &Option<IdentityConfig>| config.clone().unwrap_or_default().channels;
        match (self, self.network()) {
            (Self::Identity(config), _) => ImageKind::Pixels(pixels(config)),
            (_, Some(net)) if self.image_key() == Some(ImageKind::SEGMENTATION) => {
                ImageKind::LabelMap(net.in_channels)
            }
            (_, net) => ImageKind::Pixels(net.map_or(3, |net| net.in_channels)),
        }
    }

    /// Channels of the narrowest convolution, 0 without any.
    pub fn narrowest(&self) -> i64 {
        let Some(net) = self.network() else { return 0 };
        net.ch * net.ch_mult.iter().min().copied().unwrap_or(1)
    }

    /// Checks that a model can be built.
    ///
    /// # Errors
    /// [`ldm_core::Error::Invalid`] with the key and the value.
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
    /// Creates a config with defaults for everything used only in training.
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
    /// Creates a config with a codebook of `n_embed` entries and defaults for everything used only in training.
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

    /// Returns the configuration of the codebook.
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

fn labels(count: Option<i64>) -> Result<()> {
    count.map_or(Ok(()), |count| positive("colorize_nlabels", count))
}
