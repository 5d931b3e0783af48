//! Down- and upsampling by two.

use tch::Tensor;
use tch::nn::Path;

use crate::conv_nd::{ConvNd, ConvSizes, halves};
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

    /// Average pooling by two, or nearest-neighbor upsampling by two; of volumes, the last two axes alone.
    pub(crate) fn plain(self, x: &Tensor) -> Tensor {
        let size = x.size();
        let by = halves(x.dim() as i64 - 2);
        let none = vec![0; by.len()];
        let doubled: Vec<i64> = size[2..].iter().zip(&by).map(|(side, by)| side * by).collect();
        match (self, by.len()) {
            (Self::Down, 1) => x.avg_pool1d(&by, &by, none, false, true),
            (Self::Down, 2) => x.avg_pool2d(&by, &by, none, false, true, None),
            (Self::Down, _) => x.avg_pool3d(&by, &by, none, false, true, None),
            (Self::Up, 1) => x.upsample_nearest1d(doubled, None),
            (Self::Up, 2) => x.upsample_nearest2d(doubled, None, None),
            (Self::Up, _) => x.upsample_nearest3d(doubled, None, None, None),
        }
    }
}

/// A resampling layer, with a convolution if `conv`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ResamplePlan {
    pub(crate) dims: i64,
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

    fn conv(self) -> ConvSizes {
        ConvSizes { dims: self.dims, channels_in: self.channels, channels_out: self.channels, kernel: 3 }
    }

    pub(crate) fn parameters(self, list: &mut ParameterNames) {
        if self.conv {
            list.conv(self.name(), self.conv());
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
    conv: Option<ConvNd>,
}

impl Resample {
    pub(crate) fn new(vs: &Path, plan: ResamplePlan) -> Self {
        let vs = vs / plan.name();
        let conv = plan.conv.then(|| match plan.direction {
            Direction::Down => ConvNd::halving(&vs, plan.dims, plan.channels),
            Direction::Up => ConvNd::new(&vs, plan.conv()),
        });
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
