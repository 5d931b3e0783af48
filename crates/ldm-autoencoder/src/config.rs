//! What a first stage is made of, as CompVis' YAML says it.

use std::path::PathBuf;

use ldm_core::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_yaml::Value;

use crate::codebook::CodebookConfig;
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
    /// An autoencoder whose latent is quantised by a learned codebook, inside the decoder.
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
    /// The entry of a batch that holds the picture.
    #[serde(default = "image")]
    pub image_key: String,
    /// Classes of a segmentation map that [`Autoencoder::to_rgb`](crate::Autoencoder::to_rgb) shows as colours.
    #[serde(default)]
    pub colorize_nlabels: Option<i64>,
    /// The logged number by which the best checkpoint is kept.
    #[serde(default)]
    pub monitor: Option<String>,
}

/// CompVis' `VQModel` and `VQModelInterface`: every field of their constructor, and three of the quantiser's
/// (`beta`, `legacy`, `unknown_index`) that the reference fixes in code, with its values as defaults.
///
/// The model is built from `embed_dim`, `n_embed`, `ddconfig`, `remap`, `sane_index_shape`, `colorize_nlabels` and
/// those three. Who loads weights reads `ckpt_path` and `ignore_keys`; the trainer reads the rest.
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
    /// The entry of a batch that holds the picture.
    #[serde(default = "image")]
    pub image_key: String,
    /// Classes of a segmentation map that [`Autoencoder::to_rgb`](crate::Autoencoder::to_rgb) shows as colours.
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
}

/// CompVis' `IdentityFirstStage`. It ignores every argument but `vq_interface`; here other keys are refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdentityConfig {
    /// Whether the reference's `quantize` answers as a VQ model's. There is nothing to quantise, so it changes nothing.
    #[serde(default)]
    pub vq_interface: bool,
    /// Channels of a picture.
    #[serde(default = "three")]
    pub channels: i64,
}

/// CompVis' `ddconfig`: the encoder and its mirror, the decoder.
///
/// The reference ignores keys it does not know; here they are refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncoderConfig {
    /// Whether the encoder gives mean and log-variance: true for `kl`, false for `vq`.
    #[serde(default = "yes")]
    pub double_z: bool,
    /// Channels between the encoder and `quant_conv`.
    pub z_channels: i64,
    /// The nominal side of a picture in pixels. It places attention (`attn_resolutions`) and binds no input.
    pub resolution: i64,
    /// Channels of the picture that comes in.
    pub in_channels: i64,
    /// Channels of the picture that goes out.
    pub out_ch: i64,
    /// Channels of the first level.
    pub ch: i64,
    /// Channels of each level as multiples of `ch`. The picture shrinks by two between levels.
    #[serde(default = "doubling")]
    pub ch_mult: Vec<i64>,
    /// Residual blocks a level; the decoder has one more.
    pub num_res_blocks: i64,
    /// Nominal resolutions at which every residual block is followed by attention.
    pub attn_resolutions: Vec<i64>,
    /// Probability with which dropout zeroes a value in training.
    #[serde(default)]
    pub dropout: f64,
    /// Whether a learned convolution resamples, rather than average pooling and repetition.
    #[serde(default = "yes")]
    pub resamp_with_conv: bool,
    /// The kind of attention, also of the one in the middle.
    #[serde(default)]
    pub attn_type: AttentionType,
    /// Makes `attn_type` linear, whatever it says.
    #[serde(default)]
    pub use_linear_attn: bool,
    /// Whether the decoder's output goes through tanh.
    #[serde(default)]
    pub tanh_out: bool,
    /// Whether the decoder stops before its last norm and convolution and gives features.
    #[serde(default)]
    pub give_pre_end: bool,
}

/// The attention of the autoencoder's blocks.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttentionType {
    /// One head over all pixels.
    #[default]
    Vanilla,
    /// Linear attention (Shen et al. 2018), without norm and without residual.
    Linear,
    /// None, in the middle neither.
    None,
}

fn image() -> String {
    "image".into()
}
fn doubling() -> Vec<i64> {
    vec![1, 2, 4, 8]
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

impl VqConfig {
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
        }
    }
}

impl EncoderConfig {
    /// How many times smaller a side of the latent is: 2^(levels − 1).
    pub fn factor(&self) -> i64 {
        1 << (self.levels() - 1)
    }

    pub(crate) fn levels(&self) -> usize {
        self.ch_mult.len()
    }

    /// Channels of level `level`, 0 being full resolution.
    pub(crate) fn channels(&self, level: usize) -> i64 {
        self.ch * self.ch_mult[level]
    }

    /// The kind of attention after the encoder's blocks at `level`.
    pub(crate) fn encoder_attention(&self, level: usize) -> AttentionType {
        self.attention_at(self.resolution >> level)
    }

    /// The kind of attention after the decoder's blocks at `level`. It differs from the encoder's for a resolution
    /// that `factor` does not divide: the reference counts up from the smallest (`model.py:481`).
    pub(crate) fn decoder_attention(&self, level: usize) -> AttentionType {
        let last = self.levels() - 1;
        self.attention_at((self.resolution >> last) << (last - level))
    }

    fn attention_at(&self, resolution: i64) -> AttentionType {
        if self.attn_resolutions.contains(&resolution) { self.attention() } else { AttentionType::None }
    }

    /// The kind of attention, after `use_linear_attn` has had its say.
    pub(crate) fn attention(&self) -> AttentionType {
        if self.use_linear_attn { AttentionType::Linear } else { self.attn_type }
    }

    fn validate(&self, gaussian: bool) -> Result<()> {
        let sizes = [
            ("z_channels", self.z_channels),
            ("resolution", self.resolution),
            ("in_channels", self.in_channels),
            ("out_ch", self.out_ch),
            ("ch", self.ch),
            ("num_res_blocks", self.num_res_blocks),
        ];
        for (key, size) in sizes {
            positive(&format!("ddconfig.{key}"), size)?;
        }
        if self.double_z != gaussian {
            let why = if gaussian {
                "true: a Gaussian has mean and variance"
            } else {
                "false: a codebook has no variance"
            };
            return refuse("ddconfig.double_z", why, self.double_z);
        }
        // 2^30 pixels a latent's side is more than any picture; past 62 the factor does not fit.
        if self.ch_mult.is_empty() || self.levels() > 31 {
            return refuse("ddconfig.ch_mult", "1 to 31 levels", self.levels());
        }
        for multiple in &self.ch_mult {
            positive("ddconfig.ch_mult", *multiple)?;
        }
        for channels in std::iter::once(self.ch).chain((0..self.levels()).map(|level| self.channels(level))) {
            if channels % 32 != 0 {
                return refuse(
                    "ddconfig.ch",
                    "channels divisible by 32 at every level (group norm)",
                    channels,
                );
            }
        }
        for resolution in &self.attn_resolutions {
            positive("ddconfig.attn_resolutions", *resolution)?;
        }
        if !(0. ..1.).contains(&self.dropout) {
            return refuse("ddconfig.dropout", "a probability from 0 to below 1", self.dropout);
        }
        Ok(())
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
