//! The decoder.

use ldm_core::Result;
use ldm_core::nn::{Added, Conv2d, GroupNorm, conv2d};
use tch::Tensor;
use tch::nn::{Module, Path};

use crate::attention::Attention;
use crate::encoder_config::EncoderConfig;
use crate::layer_context::LayerContext;
use crate::mid_block::MidBlock;
use crate::resample::Upsample;
use crate::resnet::{NORM_EPS, ResnetBlock, normed};

/// The convolutional decoder: mirrors the encoder, with one more residual block per level.
///
/// CompVis `model.py:462` `Decoder`.
#[derive(Debug)]
pub struct Decoder {
    conv_in: Conv2d,
    mid: MidBlock,
    /// In order of execution, smallest first. Names count from full resolution.
    levels: Vec<DecoderLevel>,
    norm_out: GroupNorm,
    conv_out: Conv2d,
    give_pre_end: bool,
    tanh_out: bool,
}

#[derive(Debug)]
struct DecoderLevel {
    blocks: Vec<(ResnetBlock, Attention)>,
    upsample: Option<Upsample>,
}

impl Decoder {
    /// Builds the decoder; [`FirstStageConfig::validate`](crate::FirstStageConfig::validate) has passed.
    pub(crate) fn new(vs: &Path, config: &EncoderConfig) -> Result<Self> {
        let mut channels = config.channels(config.levels() - 1);
        let conv_in = conv2d(&(vs / "conv_in"), config.z_channels, channels, 3, 1, 1);
        let mid = MidBlock::new(&(vs / "mid"), channels, config.attention(), config.dropout)?;
        let mut levels = Vec::with_capacity(config.levels());
        for index in (0..config.levels()).rev() {
            let vs = vs / "up" / index;
            let mut blocks = Vec::new();
            for block in 0..=config.num_res_blocks {
                let width = config.channels(index);
                let resnet = ResnetBlock::new(&(&vs / "block" / block), channels, width, config.dropout)?;
                let kind = config.decoder_attention(index);
                blocks.push((resnet, Attention::new(&(&vs / "attn" / block), width, kind)?));
                channels = width;
            }
            let upsample =
                (index != 0).then(|| Upsample::new(&(&vs / "upsample"), channels, config.resamp_with_conv));
            levels.push(DecoderLevel { blocks, upsample });
        }
        Ok(Self {
            conv_in,
            mid,
            levels,
            norm_out: GroupNorm::new(&(vs / "norm_out"), channels, NORM_EPS)?,
            conv_out: conv2d(&(vs / "conv_out"), channels, config.out_ch, 3, 1, 1),
            give_pre_end: config.give_pre_end,
            tanh_out: config.tanh_out,
        })
    }

    /// Decodes features to pixels.
    ///
    /// # Shapes
    /// - `z`: `[B, z_channels, h, w]`
    /// - returns `[B, out_ch, h·f, w·f]`, or features `[B, c_0, h·f, w·f]` with `give_pre_end`
    pub fn forward(&self, z: &Tensor, train: bool) -> Tensor {
        self.forward_in(z, &mut LayerContext::whole(train))
    }

    /// [`Decoder::forward`] of a latent or a tile of one.
    pub(crate) fn forward_in(&self, z: &Tensor, context: &mut LayerContext) -> Tensor {
        let mut h = self.mid.forward(&self.conv_in.forward(z), context);
        for level in &self.levels {
            for (resnet, attention) in &level.blocks {
                h = attention.forward(resnet.forward(&h, context), context);
            }
            if let Some(upsample) = &level.upsample {
                h = upsample.forward(&h);
            }
        }
        if self.give_pre_end {
            return h;
        }
        let image = normed(&self.conv_out, &self.norm_out, &h, Added::default(), &mut context.norm_stats);
        if self.tanh_out { image.tanh() } else { image }
    }

    /// The weight of the last convolution, for the adaptive weight of the adversarial loss.
    pub fn last_layer(&self) -> &Tensor {
        self.conv_out.weight()
    }
}
