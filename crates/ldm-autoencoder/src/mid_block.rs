//! The middle block of encoder and decoder.

use ldm_core::Result;
use tch::Tensor;
use tch::nn::Path;

use crate::attention::Attention;
use crate::encoder_config::AttentionType;
use crate::layer_context::LayerContext;
use crate::resnet::ResnetBlock;

/// Residual block, attention, residual block, at the smallest resolution. CompVis `model.py:415`.
#[derive(Debug)]
pub(crate) struct MidBlock {
    block_1: ResnetBlock,
    attn_1: Attention,
    block_2: ResnetBlock,
}

impl MidBlock {
    pub(crate) fn new(vs: &Path, channels: i64, attention: AttentionType, dropout: f64) -> Result<Self> {
        Ok(Self {
            block_1: ResnetBlock::new(&(vs / "block_1"), channels, channels, dropout)?,
            attn_1: Attention::new(&(vs / "attn_1"), channels, attention)?,
            block_2: ResnetBlock::new(&(vs / "block_2"), channels, channels, dropout)?,
        })
    }

    pub(crate) fn forward(&self, x: &Tensor, context: &mut LayerContext) -> Tensor {
        let h = self.block_1.forward(x, context);
        let h = self.attn_1.forward(h, context);
        self.block_2.forward(&h, context)
    }
}
