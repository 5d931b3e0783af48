//! U-Net configuration, under CompVis' field names and defaults.

use ldm_core::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::backbone_config::{BackboneConfig, backbone, divide_by_heads, divide_by_width, layers, positive};
use crate::serde_helpers;

/// The arguments of CompVis' `UNetModel`, one field each, with its defaults.
///
/// `openaimodel.py:411`. An unknown key is an error. [`crate::Plan::new`] checks the values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UNetConfig {
    /// Height and width of the training latents, one number or two. The network does not use it.
    #[serde(default, deserialize_with = "serde_helpers::size")]
    pub image_size: Option<[i64; 2]>,
    /// Input channels, including those of `Conditioning::concat`.
    pub in_channels: i64,
    /// Channels of the first level; a multiple of 32.
    pub model_channels: i64,
    /// Channels of the output.
    pub out_channels: i64,
    /// Residual blocks per level of the down path; the up path has one more.
    pub num_res_blocks: i64,
    /// Downsampling factors (1, 2, 4, …) of the levels with attention. Factors beyond the last level are allowed.
    pub attention_resolutions: Vec<i64>,
    /// Dropout probability of the residual blocks. The transformers have none, as in CompVis.
    #[serde(default)]
    pub dropout: f64,
    /// Channels of each level in units of `model_channels`; the first is 1.
    #[serde(default = "serde_helpers::channel_mult")]
    pub channel_mult: Vec<i64>,
    /// Use a convolution for down- and upsampling.
    #[serde(default = "serde_helpers::yes")]
    pub conv_resample: bool,
    /// Axes of the signal: 1 (sequences), 2 (images) or 3 (volumes, downsampled along the last two axes). Pipelines are
    /// of images, and transformers are for 2 only, as in CompVis.
    #[serde(default = "serde_helpers::two")]
    pub dims: i64,
    /// Number of classes of a label embedding added to the time embedding.
    #[serde(default)]
    pub num_classes: Option<i64>,
    /// Gradient checkpointing: training keeps only the inputs of blocks and recomputes the rest in backward.
    ///
    /// CompVis does so for its attention layers even if false; gradients are the same.
    #[serde(default)]
    pub use_checkpoint: bool,
    /// Inert: CompVis' conversion is a stub. The `VarStore` decides the dtype of the weights.
    #[serde(default)]
    pub use_fp16: bool,
    /// Heads of every attention layer, or -1. `num_head_channels` takes precedence.
    #[serde(default = "serde_helpers::unset")]
    pub num_heads: i64,
    /// Channels per head, or -1.
    #[serde(default = "serde_helpers::unset")]
    pub num_head_channels: i64,
    /// Heads in the up path, or -1 for `num_heads`. Used only together with `num_heads` and `legacy`, without
    /// transformers.
    #[serde(default = "serde_helpers::unset")]
    pub num_heads_upsample: i64,
    /// The time embedding scales and shifts the normalized activation instead of being added.
    #[serde(default)]
    pub use_scale_shift_norm: bool,
    /// Use residual blocks for down- and upsampling.
    #[serde(default)]
    pub resblock_updown: bool,
    /// Split queries, keys and values before the heads.
    #[serde(default)]
    pub use_new_attention_order: bool,
    /// Use spatial transformers with cross-attention as attention layers.
    #[serde(default)]
    pub use_spatial_transformer: bool,
    /// Blocks per transformer.
    #[serde(default = "serde_helpers::one")]
    pub transformer_depth: i64,
    /// Channels of the context, a number or a list of one; required with `use_spatial_transformer`, else absent.
    #[serde(default, deserialize_with = "serde_helpers::number_or_list")]
    pub context_dim: Option<i64>,
    /// Entries of a codebook whose ids are predicted instead of the output.
    #[serde(default)]
    pub n_embed: Option<i64>,
    /// CompVis' older choice of heads; it affects only `num_heads_upsample`.
    #[serde(default = "serde_helpers::yes")]
    pub legacy: bool,
}

impl UNetConfig {
    /// Creates a config with the defaults of CompVis for everything else. Heads must still be set.
    pub fn new(
        [in_channels, out_channels]: [i64; 2],
        model_channels: i64,
        num_res_blocks: i64,
        channel_mult: Vec<i64>,
        attention_resolutions: Vec<i64>,
    ) -> Self {
        Self {
            image_size: None,
            in_channels,
            model_channels,
            out_channels,
            num_res_blocks,
            attention_resolutions,
            dropout: 0.,
            channel_mult,
            conv_resample: true,
            dims: serde_helpers::two(),
            num_classes: None,
            use_checkpoint: false,
            use_fp16: false,
            num_heads: serde_helpers::unset(),
            num_head_channels: serde_helpers::unset(),
            num_heads_upsample: serde_helpers::unset(),
            use_scale_shift_norm: false,
            resblock_updown: false,
            use_new_attention_order: false,
            use_spatial_transformer: false,
            transformer_depth: serde_helpers::one(),
            context_dim: None,
            n_embed: None,
            legacy: true,
        }
    }

    /// The fields shared with the encoder half.
    pub(crate) fn backbone(&self) -> BackboneConfig<'_> {
        backbone!(self)
    }

    /// Checks the backbone, and the fields that only the U-Net has.
    pub(crate) fn check(&self) -> Result<()> {
        self.backbone().check()?;
        if self.channel_mult[0] != 1 {
            return Err(Error::invalid(format!(
                "channel_mult: expected 1 first, as the output layer has model_channels, got {:?}",
                self.channel_mult
            )));
        }
        for (key, value) in
            [("num_classes", self.num_classes), ("context_dim", self.context_dim), ("n_embed", self.n_embed)]
        {
            positive(key, value.unwrap_or(1))?;
        }
        if self.use_spatial_transformer && self.dims != 2 {
            let got = self.dims;
            return Err(Error::invalid(format!(
                "dims: expected 2 (images) with use_spatial_transformer, got {got}"
            )));
        }
        match (self.use_spatial_transformer, self.context_dim) {
            (true, None) => {
                Err(Error::invalid("context_dim: expected a number with use_spatial_transformer, got none"))
            }
            (false, Some(width)) => Err(Error::invalid(format!(
                "context_dim: expected none without use_spatial_transformer, got {width}"
            ))),
            _ => layers("transformer_depth", self.transformer_depth),
        }
    }

    /// Heads of an attention layer of `channels`, in the down or the `up` path.
    ///
    /// CompVis overwrites its `num_heads` on the way, and its branches of `legacy` reduce to this if heads divide
    /// channels (`openaimodel.py:543`, `:638`).
    pub(crate) fn heads(&self, channels: i64, up: bool) -> Result<i64> {
        let upsample = up && self.legacy && !self.use_spatial_transformer && self.num_heads_upsample != -1;
        match self.num_head_channels {
            -1 if upsample => divide_by_heads("num_heads_upsample", self.num_heads_upsample, channels),
            -1 => divide_by_heads("num_heads", self.num_heads, channels),
            width => divide_by_width(width, channels),
        }
    }
}
