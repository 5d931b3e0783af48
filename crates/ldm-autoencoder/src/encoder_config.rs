//! Encoder and decoder configuration, in CompVis' YAML.

use ldm_core::{MAX_LAYERS, Result};
use serde::{Deserialize, Serialize};

use crate::checks::{positive, refuse};

/// CompVis' `ddconfig`: the encoder and its mirror, the decoder.
///
/// CompVis ignores unknown keys; here they are errors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncoderConfig {
    /// If true, the encoder outputs mean and log-variance: true for `kl`, false for `vq`.
    #[serde(default = "yes")]
    pub double_z: bool,
    /// Channels between the encoder and `quant_conv`.
    pub z_channels: i64,
    /// Nominal side of an image in pixels. It places attention (`attn_resolutions`) and does not restrict inputs.
    pub resolution: i64,
    /// Channels of the input image.
    pub in_channels: i64,
    /// Channels of the output image.
    pub out_ch: i64,
    /// Channels of the first level.
    pub ch: i64,
    /// Channels of each level as multiples of `ch`. The resolution halves between levels.
    #[serde(default = "doubling")]
    pub ch_mult: Vec<i64>,
    /// Residual blocks per level; the decoder has one more.
    pub num_res_blocks: i64,
    /// Nominal resolutions with attention after every residual block.
    pub attn_resolutions: Vec<i64>,
    /// Dropout probability in training.
    #[serde(default)]
    pub dropout: f64,
    /// If true, resampling uses learned convolutions, else only average pooling and nearest-neighbor upsampling.
    #[serde(default = "yes")]
    pub resamp_with_conv: bool,
    /// The kind of attention, in the middle block too.
    #[serde(default)]
    pub attn_type: AttentionType,
    /// Overrides `attn_type` with linear attention.
    #[serde(default)]
    pub use_linear_attn: bool,
    /// If true, the decoder ends in tanh.
    #[serde(default)]
    pub tanh_out: bool,
    /// If true, the decoder returns the features before its last norm and convolution.
    #[serde(default)]
    pub give_pre_end: bool,
}

/// Attention of the autoencoder.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttentionType {
    /// One head over all pixels.
    #[default]
    Vanilla,
    /// Linear attention (Shen et al. 2018), without norm and without residual.
    Linear,
    /// None, not in the middle block either.
    None,
}

fn doubling() -> Vec<i64> {
    vec![1, 2, 4, 8]
}
fn yes() -> bool {
    true
}

impl EncoderConfig {
    /// The downsampling factor, 2^(levels − 1).
    pub fn factor(&self) -> i64 {
        1 << (self.levels() - 1)
    }

    /// Channels of the decoder's output: `out_ch`, or those of the features before it with `give_pre_end`.
    pub(crate) fn output_channels(&self) -> i64 {
        if self.give_pre_end { self.channels(0) } else { self.out_ch }
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

    /// The kind of attention after the decoder's blocks at `level`. It differs from the encoder's if the factor does not
    /// divide the resolution: CompVis counts up from the smallest (`model.py:481`).
    pub(crate) fn decoder_attention(&self, level: usize) -> AttentionType {
        let last = self.levels() - 1;
        self.attention_at((self.resolution >> last) << (last - level))
    }

    fn attention_at(&self, resolution: i64) -> AttentionType {
        if self.attn_resolutions.contains(&resolution) { self.attention() } else { AttentionType::None }
    }

    /// The kind of attention with `use_linear_attn` applied.
    pub(crate) fn attention(&self) -> AttentionType {
        if self.use_linear_attn { AttentionType::Linear } else { self.attn_type }
    }

    pub(crate) fn validate(&self, gaussian: bool) -> Result<()> {
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
        if self.num_res_blocks > MAX_LAYERS {
            return refuse("ddconfig.num_res_blocks", &format!("at most {MAX_LAYERS}"), self.num_res_blocks);
        }
        if self.double_z != gaussian {
            let why = if gaussian {
                "true, as a Gaussian has mean and variance"
            } else {
                "false, as a codebook has no variance"
            };
            return refuse("ddconfig.double_z", why, self.double_z);
        }
        // A factor of 2^30 exceeds any image; past 62 levels it overflows.
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
