//! What a U-Net is made of, under the reference's field names and defaults.

use ldm_core::{Error, Result};
use serde::{Deserialize, Deserializer, Serialize, de};

/// The arguments of CompVis' `UNetModel`, one field each, with its defaults.
///
/// `openaimodel.py:411`. Read from YAML strictly: an unknown key is an error. Whether the values go together is
/// checked once, by [`crate::Plan::new`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UNetConfig {
    /// Height and width of the latent the model was trained on, from one number or two. The network does not use it.
    #[serde(default, deserialize_with = "size")]
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
    #[serde(default = "channel_mult")]
    pub channel_mult: Vec<i64>,
    /// Whether down- and upsampling have a convolution.
    #[serde(default = "yes")]
    pub conv_resample: bool,
    /// Dimensions of the signal; 2 is the only value.
    #[serde(default = "two")]
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
    #[serde(default = "unset")]
    pub num_heads: i64,
    /// Channels of a head, or -1.
    #[serde(default = "unset")]
    pub num_head_channels: i64,
    /// Heads on the way up, or -1 for `num_heads`. Heeded where `num_heads` counts, without a transformer, and with
    /// `legacy`.
    #[serde(default = "unset")]
    pub num_heads_upsample: i64,
    /// Whether time scales and shifts the normalised activation, and is not just added.
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
    #[serde(default = "one")]
    pub transformer_depth: i64,
    /// Width of the context, a number or a list of one; given if and only if `use_spatial_transformer`.
    #[serde(default, deserialize_with = "number_or_list")]
    pub context_dim: Option<i64>,
    /// Entries of a codebook whose ids are predicted in place of the output.
    #[serde(default)]
    pub n_embed: Option<i64>,
    /// The reference's older choice of heads; it matters to `num_heads_upsample` alone.
    #[serde(default = "yes")]
    pub legacy: bool,
}

impl UNetConfig {
    /// What both networks' configs say about the way down.
    pub(crate) fn trunk(&self) -> Trunk<'_> {
        Trunk {
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

    /// Checks what [`Trunk::check`] does not.
    pub(crate) fn check(&self) -> Result<()> {
        self.trunk().check()?;
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

/// The arguments of CompVis' `EncoderUNetModel`: the noisy classifier, the U-Net's way down and a pool.
///
/// `openaimodel.py:748`; the fields are those of [`UNetConfig`]. There is no transformer in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // said at the fields of `UNetConfig`
pub struct EncoderUNetConfig {
    /// Height and width of the latent; the pool [`Pool::Attention`] needs it.
    #[serde(default, deserialize_with = "size")]
    pub image_size: Option<[i64; 2]>,
    pub in_channels: i64,
    pub model_channels: i64,
    /// Classes, or the width of the answer.
    pub out_channels: i64,
    pub num_res_blocks: i64,
    pub attention_resolutions: Vec<i64>,
    #[serde(default)]
    pub dropout: f64,
    #[serde(default = "channel_mult")]
    pub channel_mult: Vec<i64>,
    #[serde(default = "yes")]
    pub conv_resample: bool,
    #[serde(default = "two")]
    pub dims: i64,
    #[serde(default)]
    pub use_checkpoint: bool,
    #[serde(default)]
    pub use_fp16: bool,
    /// Heads of every attention layer; here 1 where it is not given.
    #[serde(default = "one")]
    pub num_heads: i64,
    #[serde(default = "unset")]
    pub num_head_channels: i64,
    /// Accepted, without effect: there is no way up.
    #[serde(default = "unset")]
    pub num_heads_upsample: i64,
    #[serde(default)]
    pub use_scale_shift_norm: bool,
    #[serde(default)]
    pub resblock_updown: bool,
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
    /// `classifier.py:86` `load_classifier`; what a transformer needs is dropped there too.
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

    pub(crate) fn trunk(&self) -> Trunk<'_> {
        Trunk {
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

/// The fields both networks share.
pub(crate) struct Trunk<'a> {
    pub(crate) in_channels: i64,
    pub(crate) model_channels: i64,
    pub(crate) out_channels: i64,
    pub(crate) num_res_blocks: i64,
    pub(crate) attention_resolutions: &'a [i64],
    pub(crate) dropout: f64,
    pub(crate) channel_mult: &'a [i64],
    pub(crate) conv_resample: bool,
    pub(crate) dims: i64,
    pub(crate) num_heads: i64,
    pub(crate) num_head_channels: i64,
    pub(crate) scale_shift: bool,
    pub(crate) resblock_updown: bool,
}

impl Trunk<'_> {
    /// Refuses what no network could be built from.
    pub(crate) fn check(&self) -> Result<()> {
        if self.dims != 2 {
            return Err(Error::invalid(format!(
                "dims must be 2: this network is for images, got: {}",
                self.dims
            )));
        }
        positive("in_channels", self.in_channels)?;
        positive("out_channels", self.out_channels)?;
        positive("num_res_blocks", self.num_res_blocks)?;
        positive("model_channels", self.model_channels)?;
        if self.channel_mult.is_empty() || self.channel_mult.iter().any(|each| *each < 1) {
            return Err(Error::invalid(format!(
                "channel_mult must list one factor of at least 1 a level, got: {:?}",
                self.channel_mult
            )));
        }
        if self.model_channels % 32 != 0 {
            return Err(Error::invalid(format!(
                "model_channels must be divisible by 32, the groups of a group norm, got: {}",
                self.model_channels
            )));
        }
        if !(0. ..1.).contains(&self.dropout) {
            return Err(Error::invalid(format!("dropout must be in [0, 1), got: {}", self.dropout)));
        }
        if self.num_heads == -1 && self.num_head_channels == -1 {
            return Err(Error::invalid("one of num_heads and num_head_channels must be given, both are: -1"));
        }
        Ok(())
    }

    /// By how much the deepest level is smaller than the input.
    pub(crate) fn factor(&self) -> i64 {
        1 << (self.channel_mult.len() - 1)
    }
}

fn positive(key: &str, value: i64) -> Result<()> {
    if value > 0 { Ok(()) } else { Err(Error::invalid(format!("{key} must be at least 1, got: {value}"))) }
}

fn divide_by_heads(key: &str, heads: i64, channels: i64) -> Result<i64> {
    positive(key, heads)?;
    if channels % heads == 0 {
        return Ok(heads);
    }
    Err(Error::invalid(format!(
        "{key} must divide the {channels} channels of an attention layer, got: {heads}"
    )))
}

fn divide_by_width(width: i64, channels: i64) -> Result<i64> {
    positive("num_head_channels", width)?;
    if channels % width == 0 {
        return Ok(channels / width);
    }
    Err(Error::invalid(format!(
        "num_head_channels must divide the {channels} channels of an attention layer, got: {width}"
    )))
}

fn unset() -> i64 {
    -1
}

fn one() -> i64 {
    1
}

fn two() -> i64 {
    2
}

fn yes() -> bool {
    true
}

fn channel_mult() -> Vec<i64> {
    vec![1, 2, 4, 8]
}

fn size<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Option<[i64; 2]>, D::Error> {
    match deserializer.deserialize_any(Numbers)?.as_slice() {
        [] => Ok(None),
        [side] => Ok(Some([*side; 2])),
        [height, width] => Ok(Some([*height, *width])),
        more => Err(de::Error::invalid_length(more.len(), &"one number or two")),
    }
}

fn number_or_list<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Option<i64>, D::Error> {
    match deserializer.deserialize_any(Numbers)?.as_slice() {
        [] => Ok(None),
        [number] => Ok(Some(*number)),
        more => Err(de::Error::invalid_length(more.len(), &"one number")),
    }
}

/// Null, a number, or a list of numbers.
struct Numbers;

impl<'de> de::Visitor<'de> for Numbers {
    type Value = Vec<i64>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a number or a list of numbers")
    }

    fn visit_unit<E>(self) -> std::result::Result<Vec<i64>, E> {
        Ok(Vec::new())
    }

    fn visit_i64<E>(self, value: i64) -> std::result::Result<Vec<i64>, E> {
        Ok(vec![value])
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> std::result::Result<Vec<i64>, E> {
        i64::try_from(value).map(|value| vec![value]).map_err(E::custom)
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> std::result::Result<Vec<i64>, A::Error> {
        let mut all = Vec::new();
        while let Some(value) = list.next_element()? {
            all.push(value);
        }
        Ok(all)
    }
}
