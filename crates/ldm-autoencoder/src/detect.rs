//! First-stage configuration inferred from names and shapes.

use ldm_checkpoint::Shapes;
use ldm_core::{Error, Result};

use crate::config::{FirstStageConfig, KlConfig, VqConfig};
use crate::encoder_config::{AttentionType, EncoderConfig};

/// Infers the config of a first stage from the names (CompVis', below `first_stage_model.`) and shapes of its weights.
///
/// Values that no shape shows are those of every published model: nominal resolution 256, no dropout, no `tanh_out` and
/// no `give_pre_end`.
///
/// # Errors
/// [`Error::Invalid`] if these are not the names of an autoencoder, or the config is ambiguous.
pub fn infer_config(shapes: &Shapes) -> Result<FirstStageConfig> {
    let weights = FirstStageShapes(shapes);
    let codebook = shapes.get("quantize.embedding.weight");
    if let Some(name) = ["quantize.used"].into_iter().find(|name| shapes.contains_key(*name)) {
        return Err(Error::invalid(format!(
            "{name}: expected no `remap` in weights without a config; try a config that names its file"
        )));
    }
    let colorize_nlabels = shapes.get("colorize").and_then(|shape| shape.get(1)).copied();
    let [z_channels, embed_dim] = weights.sizes("post_quant_conv.weight")?;
    let ddconfig = weights.encoder(codebook.is_none(), z_channels)?;
    let config = if let Some(codebook) = codebook {
        let n_embed = codebook.first().copied().unwrap_or(0);
        FirstStageConfig::Vq(VqConfig { colorize_nlabels, ..VqConfig::new(embed_dim, n_embed, ddconfig) })
    } else {
        FirstStageConfig::Kl(KlConfig { colorize_nlabels, ..KlConfig::new(embed_dim, ddconfig) })
    };
    config.validate()?;
    Ok(config)
}

struct FirstStageShapes<'a>(&'a Shapes);

impl FirstStageShapes<'_> {
    fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The first two sizes of a convolution's weight: channels out, channels in.
    fn sizes(&self, name: &str) -> Result<[i64; 2]> {
        match self.0.get(name).map(Vec::as_slice) {
            Some([channels_out, channels_in, ..]) if *channels_out > 0 && *channels_in > 0 => {
                Ok([*channels_out, *channels_in])
            }
            Some(shape) => Err(Error::invalid(format!(
                "{name}: expected the weight of a convolution, got shape {shape:?}"
            ))),
            None => Err(Error::invalid(format!(
                "expected the names of a KL or VQ autoencoder, got none called {name}"
            ))),
        }
    }

    /// Counts consecutive names `name(0)`, `name(1)`, …
    fn count(&self, name: impl Fn(usize) -> String) -> usize {
        (0..self.0.len()).take_while(|index| self.has(&name(*index))).count()
    }

    fn encoder(&self, double_z: bool, z_channels: i64) -> Result<EncoderConfig> {
        let [ch, in_channels] = self.sizes("encoder.conv_in.weight")?;
        let [out_ch, _] = self.sizes("decoder.conv_out.weight")?;
        let levels = self.count(|level| format!("encoder.down.{level}.block.0.conv1.weight"));
        if levels == 0 {
            self.sizes("encoder.down.0.block.0.conv1.weight")?; // the error names it
        }
        if levels > 31 {
            return Err(Error::invalid(format!("encoder.down: expected 1 to 31 levels, got {levels}")));
        }
        let mut ch_mult = Vec::new();
        for level in 0..levels {
            let name = format!("encoder.down.{level}.block.0.conv1.weight");
            let [channels, _] = self.sizes(&name)?;
            if channels % ch != 0 {
                let expected = format!("a multiple of the {ch} channels of encoder.conv_in");
                return Err(Error::invalid(format!("{name}: expected {expected}, got {channels}")));
            }
            ch_mult.push(channels / ch);
        }
        let (attn_type, levels_with) = self.attention("encoder", "down", levels);
        let (kind, others) = self.attention("decoder", "up", levels);
        if kind != attn_type || others != levels_with {
            return Err(Error::invalid(
                "decoder.up: expected attention at the same levels as in the encoder, got others, which depend on the \
                 resolution; try a config",
            ));
        }
        let resolution = 256.max(1 << levels.saturating_sub(1));
        Ok(EncoderConfig {
            double_z,
            z_channels,
            resolution,
            in_channels,
            out_ch,
            ch,
            ch_mult,
            num_res_blocks: self.count(|block| format!("encoder.down.0.block.{block}.conv1.weight")) as i64,
            attn_resolutions: levels_with.into_iter().map(|level| resolution >> level).collect(),
            dropout: 0.,
            resamp_with_conv: levels < 2 || self.has("encoder.down.0.downsample.conv.weight"),
            attn_type,
            use_linear_attn: false,
            tanh_out: false,
            give_pre_end: false,
        })
    }

    /// The kind of attention in the middle block of encoder or decoder, and the levels with attention.
    fn attention(&self, half: &str, direction: &str, levels: usize) -> (AttentionType, Vec<usize>) {
        let kind = if self.has(&format!("{half}.mid.attn_1.q.weight")) {
            AttentionType::Vanilla
        } else if self.has(&format!("{half}.mid.attn_1.to_qkv.weight")) {
            AttentionType::Linear
        } else {
            AttentionType::None
        };
        let attends = |level: &usize| {
            let place = format!("{half}.{direction}.{level}.attn.0");
            self.has(&format!("{place}.q.weight")) || self.has(&format!("{place}.to_qkv.weight"))
        };
        (kind, (0..levels).filter(attends).collect())
    }
}
