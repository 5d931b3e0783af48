//! The encoder of a ControlNet's hint image.

use std::fmt;

use ldm_core::nn::{Conv2d, conv2d, zero_conv2d};
use tch::Tensor;
use tch::nn::Path;

use crate::parameters::ParameterNames;

/// Sizes of a [`HintEncoder`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HintPlan {
    /// Channels of the hint.
    pub(crate) channels: i64,
    /// Channels at each resolution.
    pub(crate) widths: Vec<i64>,
    /// Channels of the output.
    pub(crate) channels_out: i64,
}

impl HintPlan {
    /// Channels before and after each convolution, and its stride: two convolutions per resolution, of which the second
    /// halves the size, and one at the end.
    fn convolutions(&self) -> Vec<[i64; 3]> {
        let mut list = vec![[self.channels, self.widths[0], 1]];
        for pair in self.widths.windows(2) {
            list.extend([[pair[0], pair[0], 1], [pair[0], pair[1], 2]]);
        }
        list.push([self.widths[self.widths.len() - 1], self.channels_out, 1]);
        list
    }

    /// The number of convolutions.
    pub(crate) fn len(&self) -> usize {
        2 * self.widths.len()
    }

    pub(crate) fn parameters(&self, list: &mut ParameterNames) {
        for (index, [channels_in, channels_out, _]) in self.convolutions().into_iter().enumerate() {
            list.conv2d(2 * index, channels_in, channels_out, 3);
        }
    }
}

impl fmt::Display for HintPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.channels)?;
        self.widths.iter().chain([&self.channels_out]).try_for_each(|width| write!(f, " -> {width}"))
    }
}

/// Convolutions with SiLU between them; the last one is initialized to zero.
///
/// lllyasviel/ControlNet `cldm/cldm.py:147` `input_hint_block`.
#[derive(Debug)]
pub(crate) struct HintEncoder(Vec<Conv2d>);

impl HintEncoder {
    pub(crate) fn new(vs: &Path, plan: &HintPlan) -> Self {
        let last = plan.len() - 1;
        let layer = |(index, [channels_in, channels_out, stride]): (usize, [i64; 3])| {
            let vs = vs / (2 * index); // a SiLU between two
            if index == last {
                zero_conv2d(&vs, channels_in, channels_out, 3)
            } else {
                conv2d(&vs, channels_in, channels_out, 3, stride, 1)
            }
        };
        Self(plan.convolutions().into_iter().enumerate().map(layer).collect())
    }

    pub(crate) fn forward(&self, hint: &Tensor) -> Tensor {
        let (first, rest) = self.0.split_first().expect("at least two convolutions");
        rest.iter().fold(hint.apply(first), |h, layer| h.silu().apply(layer))
    }
}
