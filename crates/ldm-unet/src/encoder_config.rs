//! Configuration of the encoder half.

use ldm_core::Result;
use serde::{Deserialize, Serialize};

use crate::UNetConfig;
use crate::backbone_config::{BackboneConfig, backbone, divide_by_heads, divide_by_width};
use crate::serde_helpers;

/// The arguments of CompVis' `EncoderUNetModel`, the noisy classifier: the down path of the U-Net and a pool.
///
/// `openaimodel.py:748`; the fields are those of [`UNetConfig`], without transformers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncoderUNetConfig {
    /// Height and width of the latent; required by [`Pool::Attention`].
    #[serde(default, deserialize_with = "serde_helpers::size")]
    pub image_size: Option<[i64; 2]>,
    /// Input channels: those of the latent.
    pub in_channels: i64,
    /// Channels of the first level; a multiple of 32.
    pub model_channels: i64,
    /// Number of classes, or channels of the output.
    pub out_channels: i64,
    /// Residual blocks per level.
    pub num_res_blocks: i64,
    /// Downsampling factors of the levels with attention.
    pub attention_resolutions: Vec<i64>,
    /// Dropout probability of the residual blocks.
    #[serde(default)]
    pub dropout: f64,
    /// Channels of each level in units of `model_channels`; here the first need not be 1.
    #[serde(default = "serde_helpers::channel_mult")]
    pub channel_mult: Vec<i64>,
    /// Use a convolution for downsampling.
    #[serde(default = "serde_helpers::yes")]
    pub conv_resample: bool,
    /// Dimensions of the signal; only 2 is supported.
    #[serde(default = "serde_helpers::two")]
    pub dims: i64,
    /// Gradient checkpointing.
    #[serde(default)]
    pub use_checkpoint: bool,
    /// Inert.
    #[serde(default)]
    pub use_fp16: bool,
    /// Heads of every attention layer; here the default is 1.
    #[serde(default = "serde_helpers::one")]
    pub num_heads: i64,
    /// Channels per head, or -1.
    #[serde(default = "serde_helpers::unset")]
    pub num_head_channels: i64,
    /// Inert: there is no up path.
    #[serde(default = "serde_helpers::unset")]
    pub num_heads_upsample: i64,
    /// The time embedding scales and shifts the normalized activation.
    #[serde(default)]
    pub use_scale_shift_norm: bool,
    /// Use residual blocks for downsampling.
    #[serde(default)]
    pub resblock_updown: bool,
    /// Split queries, keys and values before the heads.
    #[serde(default)]
    pub use_new_attention_order: bool,
    /// Pooling of the feature maps.
    #[serde(default)]
    pub pool: Pool,
}

/// Pooling of feature maps to one vector in [`crate::EncoderUNet`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pool {
    /// The mean over positions, then a linear layer.
    #[default]
    Adaptive,
    /// Attention from the mean of all positions, as in CLIP.
    Attention,
    /// The means of every block, then two layers with ReLU.
    Spatial,
    /// The means of every block, then two layers with a group norm and SiLU.
    SpatialV2,
}

impl EncoderUNetConfig {
    /// Creates the config of the classifier that CompVis trains for a U-Net: the same arguments, another output and a pool.
    ///
    /// `classifier.py:95` `load_classifier`; arguments of transformers are dropped there too.
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
        backbone!(self)
    }

    pub(crate) fn heads(&self, channels: i64) -> Result<i64> {
        match self.num_head_channels {
            -1 => divide_by_heads("num_heads", self.num_heads, channels),
            width => divide_by_width(width, channels),
        }
    }
}
