//! What the encoder half is made of.

use ldm_core::Result;
use serde::{Deserialize, Serialize};

use crate::UNetConfig;
use crate::backbone::{BackboneConfig, divide_by_heads, divide_by_width};
use crate::serde_helpers;

/// The arguments of CompVis' `EncoderUNetModel`: the noisy classifier, the U-Net's way down and a pool.
///
/// `openaimodel.py:748`; the fields are those of [`UNetConfig`]. There is no transformer in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncoderUNetConfig {
    /// Height and width of the latent; the pool [`Pool::Attention`] needs it.
    #[serde(default, deserialize_with = "serde_helpers::size")]
    pub image_size: Option<[i64; 2]>,
    /// Channels of the input: those of the latent.
    pub in_channels: i64,
    /// Width of the first level; a multiple of 32.
    pub model_channels: i64,
    /// Classes, or the width of the answer.
    pub out_channels: i64,
    /// Residual blocks a level.
    pub num_res_blocks: i64,
    /// Downsampling factors at which levels attend.
    pub attention_resolutions: Vec<i64>,
    /// Probability of dropout in the residual blocks.
    #[serde(default)]
    pub dropout: f64,
    /// Width of each level in units of `model_channels`; the first need not be 1 here.
    #[serde(default = "serde_helpers::channel_mult")]
    pub channel_mult: Vec<i64>,
    /// Whether downsampling has a convolution.
    #[serde(default = "serde_helpers::yes")]
    pub conv_resample: bool,
    /// Dimensions of the signal; 2 is the only value.
    #[serde(default = "serde_helpers::two")]
    pub dims: i64,
    /// Whether training runs blocks again in backward.
    #[serde(default)]
    pub use_checkpoint: bool,
    /// Accepted, without effect.
    #[serde(default)]
    pub use_fp16: bool,
    /// Heads of every attention layer; here 1 where it is not given.
    #[serde(default = "serde_helpers::one")]
    pub num_heads: i64,
    /// Channels of a head, or -1.
    #[serde(default = "serde_helpers::unset")]
    pub num_head_channels: i64,
    /// Accepted, without effect: there is no way up.
    #[serde(default = "serde_helpers::unset")]
    pub num_heads_upsample: i64,
    /// Whether time scales and shifts the normalized activation.
    #[serde(default)]
    pub use_scale_shift_norm: bool,
    /// Whether downsampling is a residual block.
    #[serde(default)]
    pub resblock_updown: bool,
    /// Whether queries, keys and values are split before the heads are.
    #[serde(default)]
    pub use_new_attention_order: bool,
    /// How a map becomes one vector.
    #[serde(default)]
    pub pool: Pool,
}

/// How [`crate::EncoderUNet`] makes one vector of its maps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pool {
    /// The mean over positions, then a linear layer.
    #[default]
    Adaptive,
    /// Attention from the mean of all positions, as CLIP.
    Attention,
    /// The means of every block, then two layers with ReLU.
    Spatial,
    /// The means of every block, then two layers with a group norm and SiLU.
    SpatialV2,
}

impl EncoderUNetConfig {
    /// The classifier CompVis trains beside a U-Net: its arguments, another output and a pool.
    ///
    /// `classifier.py:95` `load_classifier`; what a transformer needs is dropped there too.
    pub fn for_classifier(unet: &UNetConfig, classes: i64, pool: Pool) -> Self {
        Self {
            image_size: unet.image_size,
            in_channels: unet.out_channels,
            model_channels: unet.model_channels,
            out_channels: classes,
            num_res_blocks: unet.num_res_blocks,
            attention_resolutions: unet.attention_resolutions.clone(),
            dropout: unet.dropout,
            channel_mult: unet.channel_mult.clone(),
            conv_resample: unet.conv_resample,
            dims: unet.dims,
            use_checkpoint: unet.use_checkpoint,
            use_fp16: unet.use_fp16,
            num_heads: if unet.num_heads == -1 { 1 } else { unet.num_heads },
            num_head_channels: unet.num_head_channels,
            num_heads_upsample: unet.num_heads_upsample,
            use_scale_shift_norm: unet.use_scale_shift_norm,
            resblock_updown: unet.resblock_updown,
            use_new_attention_order: unet.use_new_attention_order,
            pool,
        }
    }

    pub(crate) fn backbone(&self) -> BackboneConfig<'_> {
        BackboneConfig {
            in_channels: self.in_channels,
            model_channels: self.model_channels,
            out_channels: self.out_channels,
            num_res_blocks: self.num_res_blocks,
            attention_resolutions: &self.attention_resolutions,
            dropout: self.dropout,
            channel_mult: &self.channel_mult,
            conv_resample: self.conv_resample,
            dims: self.dims,
            num_heads: self.num_heads,
            num_head_channels: self.num_head_channels,
            scale_shift: self.use_scale_shift_norm,
            resblock_updown: self.resblock_updown,
        }
    }

    pub(crate) fn heads(&self, channels: i64) -> Result<i64> {
        match self.num_head_channels {
            -1 => divide_by_heads("num_heads", self.num_heads, channels),
            width => divide_by_width(width, channels),
        }
    }
}
