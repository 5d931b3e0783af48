//! Time embedding.

use ldm_core::nn::{Linear, TimestepEmbedding, linear};
use tch::Tensor;
use tch::nn::Path;

use crate::parameters::ParameterNames;

/// Channels of the time embedding of a network of `model_channels`.
pub(crate) fn time_channels(model_channels: i64) -> i64 {
    4 * model_channels
}

/// Sinusoidal embedding of the time and two linear layers: `time_embed` of CompVis `openaimodel.py:502`.
#[derive(Debug)]
pub(crate) struct TimeEmbedding {
    first: Linear,
    second: Linear,
    sines: TimestepEmbedding,
}

impl TimeEmbedding {
    pub(crate) fn parameters(channels: i64, list: &mut ParameterNames) {
        let width = time_channels(channels);
        list.within("time_embed", |list| {
            list.linear(0, channels, width);
            list.linear(2, width, width);
        });
    }

    /// Builds the layers at `vs / "time_embed"`.
    pub(crate) fn new(vs: &Path, channels: i64) -> Self {
        let (vs, width) = (vs / "time_embed", time_channels(channels));
        Self {
            first: linear(&(&vs / 0), channels, width, true),
            second: linear(&(&vs / 2), width, width, true),
            sines: TimestepEmbedding::new(channels, vs.device()),
        }
    }

    /// Embeds `[B]`, integer or fractional, as `[B, 4·channels]` in the dtype of the weights; the sines are f32.
    pub(crate) fn forward(&self, t: &Tensor) -> Tensor {
        (self.sines.forward(t)).to_kind(self.first.kind()).apply(&self.first).silu().apply(&self.second)
    }
}
