//! Pooling of feature maps to one vector.

use std::fmt;

use ldm_core::nn::{Conv2d, GroupNorm, Linear, conv1d_1x1, linear, variable, zero_conv2d};
use ldm_core::{Error, Result};
use tch::nn::{Conv1D, Init, Path};
use tch::{Kind, Tensor};

use crate::attention::{Order, attend, per_position};
use crate::block::BlockPlan;
use crate::encoder_config::{EncoderUNetConfig, Pool};
use crate::parameters::ParameterNames;
use crate::resblock::EPS;

/// Channels between the means and the output.
const HIDDEN: i64 = 2048;

/// Sizes of a [`PoolLayer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PoolPlan {
    Adaptive { channels: i64, channels_out: i64 },
    Attention { channels: i64, channels_out: i64, heads: i64, positions: i64 },
    Spatial { features: i64, channels_out: i64, norm: bool },
}

impl PoolPlan {
    pub(crate) fn new(config: &EncoderUNetConfig, input: &[BlockPlan], middle: &BlockPlan) -> Result<Self> {
        let (channels, channels_out) = (middle.channels, config.out_channels);
        let features = input.iter().map(|block| block.channels).sum::<i64>() + channels;
        Ok(match config.pool {
            Pool::Adaptive => Self::Adaptive { channels, channels_out },
            Pool::Spatial => Self::Spatial { features, channels_out, norm: false },
            Pool::SpatialV2 => Self::Spatial { features, channels_out, norm: true },
            Pool::Attention => {
                if config.num_head_channels == -1 {
                    return Err(Error::invalid(
                        "num_head_channels: expected a number for pool attention, got -1",
                    ));
                }
                let [height, width] = config.image_size.ok_or_else(|| {
                    Error::invalid("image_size: expected a size for pool attention, got none")
                })?;
                let factor = config.backbone().factor();
                if height <= 0 || width <= 0 || height % factor != 0 || width % factor != 0 {
                    return Err(Error::invalid(format!(
                        "image_size: expected multiples of {factor} for pool attention, got {height}x{width}"
                    )));
                }
                let positions = (height / factor) * (width / factor);
                Self::Attention { channels, channels_out, heads: config.heads(channels)?, positions }
            }
        })
    }

    /// True if it takes the means of every block instead of the last feature map.
    pub(crate) fn pools_every_block(self) -> bool {
        matches!(self, Self::Spatial { .. })
    }

    /// Lists the parameters below `out`.
    pub(crate) fn parameters(self, list: &mut ParameterNames) {
        match self {
            Self::Adaptive { channels, channels_out } => {
                list.norm(0, channels);
                list.conv2d(3, channels, channels_out, 1);
            }
            Self::Attention { channels, channels_out, positions, .. } => {
                list.norm(0, channels);
                list.within(2, |list| {
                    list.add("positional_embedding", &[channels, positions + 1]);
                    list.conv1d("qkv_proj", channels, 3 * channels);
                    list.conv1d("c_proj", channels, channels_out);
                });
            }
            Self::Spatial { features, channels_out, norm } => {
                list.linear(0, features, HIDDEN);
                if norm {
                    list.norm(1, HIDDEN);
                }
                list.linear(if norm { 3 } else { 2 }, HIDDEN, channels_out);
            }
        }
    }
}

impl fmt::Display for PoolPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Adaptive { channels, channels_out } => {
                write!(f, "adaptive pool {channels} -> {channels_out}")
            }
            Self::Attention { channels, channels_out, heads, positions } => {
                let width = channels / heads;
                write!(
                    f,
                    "attention pool {channels} -> {channels_out} ({heads} heads of {width}, {positions} positions)"
                )
            }
            Self::Spatial { features, channels_out, norm } => {
                let name = if *norm { "spatial_v2" } else { "spatial" };
                write!(f, "{name} pool {features} -> {HIDDEN} -> {channels_out}")
            }
        }
    }
}

/// CompVis `openaimodel.py:893`.
#[derive(Debug)]
pub(crate) enum PoolLayer {
    Adaptive { norm: GroupNorm, conv: Conv2d },
    Attention { norm: GroupNorm, position: Tensor, qkv: Box<Conv1D>, out: Box<Conv1D>, heads: i64 },
    Spatial { first: Linear, norm: Option<GroupNorm>, second: Linear },
}

impl PoolLayer {
    pub(crate) fn new(vs: &Path, plan: PoolPlan) -> Result<Self> {
        Ok(match plan {
            PoolPlan::Adaptive { channels, channels_out } => Self::Adaptive {
                norm: GroupNorm::new(&(vs / 0), channels, EPS)?,
                conv: zero_conv2d(&(vs / 3), channels, channels_out, 1),
            },
            PoolPlan::Attention { channels, channels_out, heads, positions } => {
                let pool = vs / 2;
                let init = Init::Randn { mean: 0., stdev: 1. / (channels as f64).sqrt() };
                Self::Attention {
                    norm: GroupNorm::new(&(vs / 0), channels, EPS)?,
                    position: variable(&pool, "positional_embedding", &[channels, positions + 1], init),
                    qkv: Box::new(conv1d_1x1(&(&pool / "qkv_proj"), channels, 3 * channels)),
                    out: Box::new(conv1d_1x1(&(&pool / "c_proj"), channels, channels_out)),
                    heads,
                }
            }
            PoolPlan::Spatial { features, channels_out, norm } => Self::Spatial {
                first: linear(&(vs / 0), features, HIDDEN, true),
                norm: if norm { Some(GroupNorm::new(&(vs / 1), HIDDEN, EPS)?) } else { None },
                second: linear(&(vs / if norm { 3 } else { 2 }), HIDDEN, channels_out, true),
            },
        })
    }

    /// Pools `[B, C, h, w]`, or `[B, features]` if [`PoolPlan::pools_every_block`], to `[B, channels_out]`.
    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        match self {
            Self::Adaptive { norm, conv } => x
                .apply(norm)
                .silu()
                .mean_dim([2_i64, 3].as_slice(), true, None::<Kind>)
                .apply(conv)
                .flatten(1, 3),
            Self::Attention { norm, position, qkv, out, heads } => {
                let tokens = x.apply(norm).silu().flatten(2, 3).transpose(1, 2); //             [B, h·w, C]
                assert_eq!(
                    tokens.size()[1] + 1,
                    position.size()[1],
                    "an attention pool takes feature maps of one size"
                );
                let mean = tokens.mean_dim([1_i64].as_slice(), true, None::<Kind>);
                let tokens = Tensor::cat(&[mean, tokens], 1) + position.transpose(0, 1); //     [B, h·w + 1, C]
                let tokens = attend(&per_position(&tokens, qkv), *heads, Order::QkvFirst);
                per_position(&tokens.narrow(1, 0, 1), out).squeeze_dim(1)
            }
            Self::Spatial { first, norm, second } => {
                let h = x.apply(first);
                let h = match norm {
                    Some(norm) => h.apply(norm).silu(),
                    None => h.relu(),
                };
                h.apply(second)
            }
        }
    }
}
