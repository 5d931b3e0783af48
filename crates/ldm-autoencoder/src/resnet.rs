//! The residual block.

use ldm_core::Result;
use ldm_core::nn::{GroupNorm, add, conv2d, silu};
use tch::Tensor;
use tch::nn::{Conv2D, Module, Path};

use crate::layer_context::LayerContext;

/// Eps of the autoencoder's norms (CompVis `model.py:38`).
pub(crate) const NORM_EPS: f64 = 1e-6;

/// x + conv2(swish(norm2(conv1(swish(norm1(x)))))), with a 1×1 convolution of x if the number of channels changes.
///
/// CompVis `model.py:82`, without the time embedding that the autoencoder never has.
#[derive(Debug)]
pub(crate) struct ResnetBlock {
    norm1: GroupNorm,
    conv1: Conv2D,
    norm2: GroupNorm,
    dropout: f64,
    conv2: Conv2D,
    shortcut: Option<Conv2D>,
}

impl ResnetBlock {
    pub(crate) fn new(vs: &Path, channels_in: i64, channels_out: i64, dropout: f64) -> Result<Self> {
        Ok(Self {
            norm1: GroupNorm::new(&(vs / "norm1"), channels_in, NORM_EPS)?,
            conv1: conv2d(&(vs / "conv1"), channels_in, channels_out, 3, 1, 1),
            norm2: GroupNorm::new(&(vs / "norm2"), channels_out, NORM_EPS)?,
            dropout,
            conv2: conv2d(&(vs / "conv2"), channels_out, channels_out, 3, 1, 1),
            shortcut: (channels_in != channels_out)
                .then(|| conv2d(&(vs / "nin_shortcut"), channels_in, channels_out, 1, 1, 0)),
        })
    }

    pub(crate) fn forward(&self, x: &Tensor, context: &mut LayerContext) -> Tensor {
        let h = self.conv1.forward(&silu(self.norm1.forward_by(x, &mut context.norm_stats)));
        let h = silu(self.norm2.forward_by(&h, &mut context.norm_stats));
        let h = if context.train && self.dropout > 0. { h.dropout(self.dropout, true) } else { h };
        let h = self.conv2.forward(&h);
        match &self.shortcut {
            Some(shortcut) => add(h, &shortcut.forward(x)),
            None => add(h, x),
        }
    }
}
