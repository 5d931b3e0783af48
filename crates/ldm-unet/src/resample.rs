//! Down- and upsampling by two.

use ldm_core::nn::conv2d;
use tch::Tensor;
use tch::nn::{Conv2D, Path};

use crate::parameters::ParameterNames;

/// Direction of resampling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Down,
    Up,
}

impl Direction {
    /// diffusers' name of these layers.
    pub(crate) fn diffusers(self) -> &'static str {
        match self {
            Self::Down => "downsamplers",
            Self::Up => "upsamplers",
        }
    }

    /// 2×2 average pooling, or nearest-neighbor upsampling.
    pub(crate) fn plain(self, x: &Tensor) -> Tensor {
        match self {
            Self::Down => x.avg_pool2d([2, 2], [2, 2], [0, 0], false, true, None),
            Self::Up => {
                let (_, _, height, width) = x.size4().expect("[B, C, h, w]");
                x.upsample_nearest2d([2 * height, 2 * width], None, None)
            }
        }
    }
}

/// A resampling layer, with a convolution if `conv`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ResamplePlan {
    pub(crate) direction: Direction,
    pub(crate) channels: i64,
    pub(crate) conv: bool,
}

impl ResamplePlan {
    pub(crate) fn name(self) -> &'static str {
        match self.direction {
            Direction::Down => "op",
            Direction::Up => "conv",
        }
    }

    pub(crate) fn parameters(self, list: &mut ParameterNames) {
        if self.conv {
            list.conv2d(self.name(), self.channels, self.channels, 3);
        }
    }
}

/// `Downsample` and `Upsample` of CompVis `openaimodel.py:91`, `:134`.
///
/// Down: a convolution of stride 2, padded on all four sides (the autoencoder pads right and bottom only), or average
/// pooling. Up: nearest neighbor, then the convolution.
#[derive(Debug)]
pub(crate) struct Resample {
    direction: Direction,
    conv: Option<Conv2D>,
}

impl Resample {
    pub(crate) fn new(vs: &Path, plan: ResamplePlan) -> Self {
        let stride = if plan.direction == Direction::Down { 2 } else { 1 };
        let conv = plan.conv.then(|| conv2d(&(vs / plan.name()), plan.channels, plan.channels, 3, stride, 1));
        Self { direction: plan.direction, conv }
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        match (self.direction, &self.conv) {
            (Direction::Down, Some(conv)) => x.apply(conv),
            (Direction::Up, Some(conv)) => self.direction.plain(x).apply(conv),
            (direction, None) => direction.plain(x),
        }
    }
}
