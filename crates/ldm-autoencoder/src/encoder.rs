//! The encoder.

use ldm_core::Result;
use ldm_core::nn::{Added, Conv2d, GroupNorm, conv2d};
use tch::Tensor;
use tch::nn::{Module, Path};

use crate::attention::Attention;
use crate::encoder_config::EncoderConfig;
use crate::layer_context::LayerContext;
use crate::mid_block::MidBlock;
use crate::resample::Downsample;
use crate::resnet::{NORM_EPS, ResnetBlock, normed};

/// The convolutional encoder: levels of residual blocks, each at half the resolution of the previous one.
///
/// CompVis `model.py:368` `Encoder`.
#[derive(Debug)]
pub struct Encoder {
    conv_in: Conv2d,
    levels: Vec<EncoderLevel>,
    mid: MidBlock,
    norm_out: GroupNorm,
    conv_out: Conv2d,
}

#[derive(Debug)]
struct EncoderLevel {
    blocks: Vec<(ResnetBlock, Attention)>,
    downsample: Option<Downsample>,
}

impl Encoder {
    /// Builds the encoder; [`FirstStageConfig::validate`](crate::FirstStageConfig::validate) has passed.
    pub(crate) fn new(vs: &Path, config: &EncoderConfig) -> Result<Self> {
        let last = config.levels() - 1;
        let mut channels = config.ch;
        let mut levels = Vec::with_capacity(config.levels());
        for index in 0..=last {
            let vs = vs / "down" / index;
            let mut blocks = Vec::new();
            for block in 0..config.num_res_blocks {
                let width = config.channels(index);
                let resnet = ResnetBlock::new(&(&vs / "block" / block), channels, width, config.dropout)?;
                let kind = config.encoder_attention(index);
                blocks.push((resnet, Attention::new(&(&vs / "attn" / block), width, kind)?));
                channels = width;
            }
            let downsample = (index != last)
                .then(|| Downsample::new(&(&vs / "downsample"), channels, config.resamp_with_conv));
            levels.push(EncoderLevel { blocks, downsample });
        }
        let moments = if config.double_z { 2 * config.z_channels } else { config.z_channels };
        Ok(Self {
            conv_in: conv2d(&(vs / "conv_in"), config.in_channels, config.ch, 3, 1, 1),
            levels,
            mid: MidBlock::new(&(vs / "mid"), channels, config.attention(), config.dropout)?,
            norm_out: GroupNorm::new(&(vs / "norm_out"), channels, NORM_EPS)?,
            conv_out: conv2d(&(vs / "conv_out"), channels, moments, 3, 1, 1),
        })
    }

    /// Encodes pixels to features.
    ///
    /// # Shapes
    /// - `image`: `[B, in_channels, H, W]`
    /// - returns `[B, z_channels, H/f, W/f]`, with twice the channels if `double_z`
    pub fn forward(&self, image: &Tensor, train: bool) -> Tensor {
        let context = &mut LayerContext::whole(train);
        let mut h = self.conv_in.forward(image);
        for level in &self.levels {
            for (resnet, attention) in &level.blocks {
                h = attention.forward(resnet.forward(&h, context), context);
            }
            if let Some(downsample) = &level.downsample {
                h = downsample.forward(&h);
            }
        }
        let h = self.mid.forward(&h, context);
        normed(&self.conv_out, &self.norm_out, &h, Added::default(), &mut context.norm_stats)
    }
}
