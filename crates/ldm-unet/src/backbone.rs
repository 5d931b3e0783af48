//! What the configs of both networks say about the way down, and its checks.

use ldm_core::{Error, Result};

/// The fields both networks share.
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
    pub(crate) scale_shift: bool,
    pub(crate) resblock_updown: bool,
}

impl BackboneConfig<'_> {
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

pub(crate) fn positive(key: &str, value: i64) -> Result<()> {
    if value > 0 { Ok(()) } else { Err(Error::invalid(format!("{key} must be at least 1, got: {value}"))) }
}

pub(crate) fn divide_by_heads(key: &str, heads: i64, channels: i64) -> Result<i64> {
    positive(key, heads)?;
    if channels % heads == 0 {
        return Ok(heads);
    }
    Err(Error::invalid(format!(
        "{key} must divide the {channels} channels of an attention layer, got: {heads}"
    )))
}

pub(crate) fn divide_by_width(width: i64, channels: i64) -> Result<i64> {
    positive("num_head_channels", width)?;
    if channels % width == 0 {
        return Ok(channels / width);
    }
    Err(Error::invalid(format!(
        "num_head_channels must divide the {channels} channels of an attention layer, got: {width}"
    )))
}
