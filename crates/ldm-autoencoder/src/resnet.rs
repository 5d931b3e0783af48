//! The residual block.

use ldm_core::Result;
use ldm_core::nn::{Added, Conv2d, GroupNorm, NormStats, conv2d, silu};
use tch::Tensor;
use tch::nn::{Module, Path};

use crate::layer_context::LayerContext;

/// Eps of the autoencoder's norms (CompVis `model.py:38`).
pub(crate) const NORM_EPS: f64 = 1e-6;

/// x + conv2(swish(norm2(conv1(swish(norm1(x)))))), with a 1×1 convolution of x if the number of channels changes.
///
/// CompVis `model.py:82`, without the time embedding that the autoencoder never has.
#[derive(Debug)]
pub(crate) struct ResnetBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    norm2: GroupNorm,
    dropout: f64,
    conv2: Conv2d,
    shortcut: Option<Conv2d>,
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
        let stats = &mut context.norm_stats;
        let h = match &mut *stats {
            NormStats::Local => self.conv1.normed_to_norm(&self.norm1, x, None),
            stats => normed(&self.conv1, &self.norm1, x, Added::default(), stats).into(),
        };
        let shortcut = self.shortcut.as_ref().map(|shortcut| shortcut.forward(x));
        let added = Added { to_image: None, residual: Some(shortcut.as_ref().unwrap_or(x)) };
        if context.train && self.dropout > 0. {
            let h = match h.whole() {
                Some(h) => silu(self.norm2.forward_by(h, stats)),
                None => self.norm2.forward_silu_of(&h, None),
            };
            return self.conv2.plus(&h.dropout(self.dropout, true), added);
        }
        match h.whole() {
            Some(h) => normed(&self.conv2, &self.norm2, h, added, stats),
            None => self.conv2.normed_sum(&self.norm2, &h, added),
        }
    }
}

/// The convolution of silu(norm(x)) with the given statistics, plus what is added.
pub(crate) fn normed(
    conv: &Conv2d,
    norm: &GroupNorm,
    x: &Tensor,
    added: Added<'_>,
    stats: &mut NormStats,
) -> Tensor {
    match stats {
        NormStats::Local => conv.normed(norm, x, added),
        stats => conv.plus(&silu(norm.forward_by(x, stats)), added),
    }
}
