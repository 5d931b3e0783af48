//! The part of the configuration that both networks share, the downsampling half.

use ldm_core::{Error, MAX_LAYERS, MAX_SIZE, Result};

/// The fields shared by [`UNetConfig`](crate::UNetConfig) and [`EncoderUNetConfig`](crate::EncoderUNetConfig).
pub(crate) struct BackboneConfig<'a> {
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
    pub(crate) use_scale_shift_norm: bool,
    pub(crate) resblock_updown: bool,
}

/// The shared fields of a config, which both have under the same names; serde's `flatten` would lose line numbers.
macro_rules! backbone {
    ($config:expr) => {
        $crate::backbone_config::BackboneConfig {
            in_channels: $config.in_channels,
            model_channels: $config.model_channels,
            out_channels: $config.out_channels,
            num_res_blocks: $config.num_res_blocks,
            attention_resolutions: &$config.attention_resolutions,
            dropout: $config.dropout,
            channel_mult: &$config.channel_mult,
            conv_resample: $config.conv_resample,
            dims: $config.dims,
            num_heads: $config.num_heads,
            num_head_channels: $config.num_head_channels,
            use_scale_shift_norm: $config.use_scale_shift_norm,
            resblock_updown: $config.resblock_updown,
        }
    };
}
pub(crate) use backbone;

/// The most levels; a factor of 2^30 exceeds any image.
const MAX_LEVELS: usize = 31;

impl BackboneConfig<'_> {
    /// Checks that a network can be built.
    pub(crate) fn check(&self) -> Result<()> {
        if !(1..=3).contains(&self.dims) {
            let got = self.dims;
            return Err(Error::invalid(format!(
                "dims: expected 1 (sequences), 2 (images) or 3 (volumes), got {got}"
            )));
        }
        positive("in_channels", self.in_channels)?;
        positive("out_channels", self.out_channels)?;
        layers("num_res_blocks", self.num_res_blocks)?;
        positive("model_channels", self.model_channels)?;
        if self.channel_mult.len() > MAX_LEVELS {
            let levels = self.channel_mult.len();
            return Err(Error::expected("channel_mult", format!("at most {MAX_LEVELS} levels"), levels));
        }
        if self.channel_mult.is_empty() || self.channel_mult.iter().any(|each| *each < 1) {
            return Err(Error::invalid(format!(
                "channel_mult: expected one factor of at least 1 per level, got {:?}",
                self.channel_mult
            )));
        }
        if self.model_channels % 32 != 0 {
            return Err(Error::invalid(format!(
                "model_channels: expected a multiple of 32, the groups of group norm, got {}",
                self.model_channels
            )));
        }
        if !(0. ..1.).contains(&self.dropout) {
            return Err(Error::invalid(format!(
                "dropout: expected a probability in [0, 1), got {}",
                self.dropout
            )));
        }
        if self.num_heads == -1 && self.num_head_channels == -1 {
            return Err(Error::invalid(
                "num_heads: expected num_heads or num_head_channels, got -1 for both",
            ));
        }
        Ok(())
    }

    /// The downsampling factor of the deepest level.
    pub(crate) fn factor(&self) -> i64 {
        1 << (self.channel_mult.len() - 1)
    }
}

/// Checks that `value` is positive and not absurd.
pub(crate) fn positive(key: &str, value: i64) -> Result<()> {
    match value {
        1..=MAX_SIZE => Ok(()),
        ..1 => Err(Error::expected(key, "at least 1", value)),
        _ => Err(Error::expected(key, format!("at most {MAX_SIZE}"), value)),
    }
}

/// Checks a number of layers.
pub(crate) fn layers(key: &str, value: i64) -> Result<()> {
    if value > MAX_LAYERS {
        return Err(Error::expected(key, format!("at most {MAX_LAYERS}"), value));
    }
    positive(key, value)
}

/// Checks a number of heads.
pub(crate) fn divide_by_heads(key: &str, heads: i64, channels: i64) -> Result<i64> {
    positive(key, heads)?;
    if channels % heads == 0 {
        return Ok(heads);
    }
    Err(Error::invalid(format!(
        "{key}: expected a divisor of the {channels} channels of an attention layer, got {heads}"
    )))
}

/// Number of heads of `width` channels.
pub(crate) fn divide_by_width(width: i64, channels: i64) -> Result<i64> {
    positive("num_head_channels", width)?;
    if channels % width == 0 {
        return Ok(channels / width);
    }
    Err(Error::invalid(format!(
        "num_head_channels: expected a divisor of the {channels} channels of an attention layer, got {width}"
    )))
}
