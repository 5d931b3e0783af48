//! Down- and upsampling by two.

use ldm_core::nn::conv2d;
use tch::Tensor;
use tch::nn::{Conv2D, Path};

use crate::parameters::Parameters;

/// Which way a layer changes the size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Down,
    Up,
}

impl Direction {
    /// What diffusers calls the layers that do it.
    pub(crate) fn diffusers(self) -> &'static str {
        match self {
            Self::Down => "downsamplers",
            Self::Up => "upsamplers",
        }
    }

    /// The mean of 2×2 pixels, or each pixel 2×2 times.
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

/// A layer that changes the size and, with `conv`, has a convolution to do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ResamplePlan {
    pub(crate) way: Direction,
    pub(crate) channels: i64,
    pub(crate) conv: bool,
}

impl ResamplePlan {
    pub(crate) fn name(self) -> &'static str {
        match self.way {
            Direction::Down => "op",
            Direction::Up => "conv",
        }
    }

    pub(crate) fn parameters(self, list: &mut Parameters) {
        if self.conv {
            list.conv2d(self.name(), self.channels, self.channels, 3);
        }
    }
}

/// `Downsample` and `Upsample` of CompVis `openaimodel.py:91`, `:134`.
///
/// Down: a convolution of stride 2, padded on all four sides (the autoencoder's pads right and below only), or the
/// mean. Up: nearest, then the convolution.
#[derive(Debug)]
pub(crate) struct Resample {
    way: Direction,
    conv: Option<Conv2D>,
}

impl Resample {
    pub(crate) fn new(vs: &Path, plan: ResamplePlan) -> Self {
        let stride = if plan.way == Direction::Down { 2 } else { 1 };
        let conv = plan.conv.then(|| conv2d(&(vs / plan.name()), plan.channels, plan.channels, 3, stride, 1));
        Self { way: plan.way, conv }
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        match (self.way, &self.conv) {
            (Direction::Down, Some(conv)) => x.apply(conv),
            (Direction::Up, Some(conv)) => self.way.plain(x).apply(conv),
            (way, None) => way.plain(x),
        }
    }
}
