//! What a U-Net is made of, under the reference's field names and defaults.

use ldm_core::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::backbone::{BackboneConfig, divide_by_heads, divide_by_width, positive};
use crate::serde_helpers;

/// The arguments of CompVis' `UNetModel`, one field each, with its defaults.
///
/// `openaimodel.py:411`. Read from YAML strictly: an unknown key is an error. Whether the values go together is
/// checked once, by [`crate::Plan::new`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UNetConfig {
    /// Height and width of the latent the model was trained on, from one number or two. The network does not use it.
    #[serde(default, deserialize_with = "serde_helpers::size")]
    pub image_size: Option<[i64; 2]>,
    /// Channels of the input, those of `Conditioning::concat` included.
    pub in_channels: i64,
    /// Width of the first level; a multiple of 32.
    pub model_channels: i64,
    /// Channels of the output.
    pub out_channels: i64,
    /// Residual blocks a level on the way down; the way up has one more.
    pub num_res_blocks: i64,
    /// Downsampling factors (1, 2, 4, …) at which levels attend. Factors that no level has are no error.
    pub attention_resolutions: Vec<i64>,
    /// Probability of dropout in the residual blocks. The transformers have none, as in the reference.
    #[serde(default)]
    pub dropout: f64,
    /// Width of each level in units of `model_channels`; the first is 1.
    #[serde(default = "serde_helpers::channel_mult")]
    pub channel_mult: Vec<i64>,
    /// Whether down- and upsampling have a convolution.
    #[serde(default = "serde_helpers::yes")]
    pub conv_resample: bool,
    /// Dimensions of the signal; 2 is the only value.
    #[serde(default = "serde_helpers::two")]
    pub dims: i64,
    /// Classes of a label added to the time embedding.
    #[serde(default)]
    pub num_classes: Option<i64>,
    /// Whether training keeps the inputs of blocks only and runs each block again in backward.
    ///
    /// The reference does so for its attention layers even when this is false; gradients are the same either way.
    #[serde(default)]
    pub use_checkpoint: bool,
    /// Accepted, without effect: the reference's conversion is a stub. The weights' dtype is the `VarStore`'s.
    #[serde(default)]
    pub use_fp16: bool,
    /// Heads of every attention layer, or -1. `num_head_channels` goes before it.
    #[serde(default = "serde_helpers::unset")]
    pub num_heads: i64,
    /// Channels of a head, or -1.
    #[serde(default = "serde_helpers::unset")]
    pub num_head_channels: i64,
    /// Heads on the way up, or -1 for `num_heads`. Heeded where `num_heads` counts, without a transformer, and with
    /// `legacy`.
    #[serde(default = "serde_helpers::unset")]
    pub num_heads_upsample: i64,
    /// Whether time scales and shifts the normalized activation, and is not just added.
    #[serde(default)]
    pub use_scale_shift_norm: bool,
    /// Whether down- and upsampling are residual blocks.
    #[serde(default)]
    pub resblock_updown: bool,
    /// Whether queries, keys and values are split before the heads are.
    #[serde(default)]
    pub use_new_attention_order: bool,
    /// Whether attention layers are transformers with cross-attention.
    #[serde(default)]
    pub use_spatial_transformer: bool,
    /// Blocks a transformer.
    #[serde(default = "serde_helpers::one")]
    pub transformer_depth: i64,
    /// Width of the context, a number or a list of one; given if and only if `use_spatial_transformer`.
    #[serde(default, deserialize_with = "serde_helpers::number_or_list")]
    pub context_dim: Option<i64>,
    /// Entries of a codebook whose ids are predicted in place of the output.
    #[serde(default)]
    pub n_embed: Option<i64>,
    /// The reference's older choice of heads; it matters to `num_heads_upsample` alone.
    #[serde(default = "serde_helpers::yes")]
    pub legacy: bool,
}

impl UNetConfig {
    /// The network of these, everything else as the reference has it by default. Heads are not given yet.
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

    /// What both networks' configs say about the way down.
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

    /// Checks what [`BackboneConfig::check`] does not.
    pub(crate) fn check(&self) -> Result<()> {
        self.backbone().check()?;
        if self.channel_mult[0] != 1 {
            return Err(Error::invalid(format!(
                "channel_mult must begin with 1, as the output layer is model_channels wide, got: {:?}",
                self.channel_mult
            )));
        }
        for (key, value) in
            [("num_classes", self.num_classes), ("context_dim", self.context_dim), ("n_embed", self.n_embed)]
        {
            positive(key, value.unwrap_or(1))?;
        }
        match (self.use_spatial_transformer, self.context_dim) {
            (true, None) => {
                Err(Error::invalid("use_spatial_transformer needs context_dim, which is not given"))
            }
            (false, Some(width)) => Err(Error::invalid(format!(
                "context_dim needs use_spatial_transformer, which is false, got context_dim: {width}"
            ))),
            _ => positive("transformer_depth", self.transformer_depth),
        }
    }

    /// Heads of the attention of `channels` on the way down or `up`.
    ///
    /// The reference overwrites its `num_heads` as it walks, and its two branches of `legacy` differ in more than
    /// they do: this is all that is left of them where heads divide channels (`openaimodel.py:543`, `:638`).
    pub(crate) fn heads(&self, channels: i64, up: bool) -> Result<i64> {
        let upsample = up && self.legacy && !self.use_spatial_transformer && self.num_heads_upsample != -1;
        match self.num_head_channels {
            -1 if upsample => divide_by_heads("num_heads_upsample", self.num_heads_upsample, channels),
            -1 => divide_by_heads("num_heads", self.num_heads, channels),
            width => divide_by_width(width, channels),
        }
    }
}
