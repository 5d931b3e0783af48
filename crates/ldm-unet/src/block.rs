//! A block: a sequence of layers, each of which takes what it needs of the time embedding and the context.

use std::{fmt, slice};

use ldm_core::Result;
use tch::Tensor;
use tch::nn::Path;

use crate::attention::{AttentionBlock, AttentionPlan};
use crate::checkpointed::Checkpointed;
use crate::conv_nd::{ConvNd, ConvSizes};
use crate::cross_attention::KeyValue;
use crate::parameters::ParameterNames;
use crate::resample::{Direction, Resample, ResamplePlan};
use crate::resblock::{ResBlock, ResPlan};
use crate::transformer::{SpatialTransformer, TransformerPlan};

/// Sizes of a [`BlockLayer`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum LayerPlan {
    /// The first convolution.
    Conv {
        dims: i64,
        channels_in: i64,
        channels_out: i64,
    },
    Res(ResPlan),
    Attention(AttentionPlan),
    Transformer(TransformerPlan),
    Resample(ResamplePlan),
}

impl LayerPlan {
    fn parameters(&self, list: &mut ParameterNames) {
        match self {
            Self::Conv { dims, channels_in, channels_out } => {
                let mut shape = vec![*channels_out, *channels_in];
                shape.resize(2 + *dims as usize, 3);
                list.add("weight", &shape);
                list.add("bias", &[*channels_out]);
            }
            Self::Res(plan) => plan.parameters(list),
            Self::Attention(plan) => plan.parameters(list),
            Self::Transformer(plan) => plan.parameters(list),
            Self::Resample(plan) => plan.parameters(list),
        }
    }
}

/// The layers of one block in order; their indices are their names.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BlockPlan {
    pub(crate) layers: Vec<LayerPlan>,
    /// Channels of the output.
    pub(crate) channels: i64,
}

impl BlockPlan {
    pub(crate) fn parameters(&self, list: &mut ParameterNames) {
        for (index, layer) in self.layers.iter().enumerate() {
            list.within(index, |list| layer.parameters(list));
        }
    }
}

impl fmt::Display for BlockPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, layer) in self.layers.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{layer}")?;
        }
        Ok(())
    }
}

impl fmt::Display for LayerPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conv { channels_in, channels_out, .. } => write!(f, "conv {channels_in} -> {channels_out}"),
            Self::Res(plan) => {
                write!(f, "res {} -> {}", plan.channels_in, plan.channels_out)?;
                match plan.resample {
                    Some(Direction::Down) => f.write_str(" down"),
                    Some(Direction::Up) => f.write_str(" up"),
                    None => Ok(()),
                }?;
                f.write_str(if plan.scale_shift { " scale-shift" } else { "" })
            }
            Self::Attention(plan) => {
                write!(
                    f,
                    "attention {} ({} heads of {})",
                    plan.channels,
                    plan.heads,
                    plan.channels / plan.heads
                )
            }
            Self::Transformer(plan) => write!(
                f,
                "transformer {} ({} heads of {}, depth {}, context {})",
                plan.channels,
                plan.heads,
                plan.channels / plan.heads,
                plan.depth,
                plan.context
            ),
            Self::Resample(plan) => {
                let direction = if plan.direction == Direction::Down { "down" } else { "up" };
                write!(
                    f,
                    "{direction} {}{}",
                    plan.channels,
                    if plan.conv { "" } else { " without convolution" }
                )
            }
        }
    }
}

/// Inputs of every block other than the feature map.
pub(crate) struct ForwardContext<'a> {
    /// `[B, 4·model_channels]`.
    pub(crate) emb: Tensor,
    /// Keys and values of the context, in the order of the transformers.
    pub(crate) keys_values: Option<slice::Iter<'a, KeyValue>>,
    /// Merges the tokens of transformers over maps of this size.
    pub(crate) merging: Option<MergedMap>,
    pub(crate) train: bool,
}

/// Maps whose tokens are merged around self-attention.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MergedMap {
    /// Height and width.
    pub(crate) size: [i64; 2],
    /// Share of the tokens.
    pub(crate) share: f64,
}

impl ForwardContext<'_> {
    /// Leaves out the keys and values of `count` transformer blocks.
    pub(crate) fn skip(&mut self, count: usize) {
        if let (Some(pairs), Some(last)) = (&mut self.keys_values, count.checked_sub(1)) {
            pairs.nth(last);
        }
    }
}

#[derive(Debug)]
enum BlockLayer {
    Conv(ConvNd),
    Res(Checkpointed<ResBlock>),
    Attention(Checkpointed<AttentionBlock>),
    Transformer(SpatialTransformer),
    Resample(Resample),
}

impl BlockLayer {
    fn new(vs: &Path, plan: &LayerPlan, use_checkpoint: bool) -> Result<Self> {
        Ok(match plan {
            &LayerPlan::Conv { dims, channels_in, channels_out } => {
                Self::Conv(ConvNd::new(vs, ConvSizes { dims, channels_in, channels_out, kernel: 3 }))
            }
            LayerPlan::Res(plan) => Self::Res(Checkpointed::new(
                ResBlock::new(vs, plan)?,
                vs,
                |list| plan.parameters(list),
                use_checkpoint,
            )),
            LayerPlan::Attention(plan) => {
                let block = AttentionBlock::new(vs, *plan)?;
                Self::Attention(Checkpointed::new(block, vs, |list| plan.parameters(list), use_checkpoint))
            }
            LayerPlan::Transformer(plan) => {
                Self::Transformer(SpatialTransformer::new(vs, *plan, use_checkpoint)?)
            }
            LayerPlan::Resample(plan) => Self::Resample(Resample::new(vs, *plan)),
        })
    }

    fn forward(&self, x: &Tensor, context: &mut ForwardContext) -> Tensor {
        let train = context.train;
        match self {
            Self::Conv(conv) => x.apply(conv),
            Self::Res(block) => block.run(train, &[x, &context.emb], move |block, inputs| {
                block.forward(&inputs[0], &inputs[1], train)
            }),
            Self::Attention(block) => block.run(train, &[x], |block, inputs| block.forward(&inputs[0])),
            Self::Transformer(transformer) => {
                transformer.forward(x, &mut context.keys_values, context.merging, train)
            }
            Self::Resample(layer) => layer.forward(x),
        }
    }
}

/// CompVis' `TimestepEmbedSequential` (`openaimodel.py:73`).
#[derive(Debug)]
pub(crate) struct UNetBlock(Vec<BlockLayer>);

impl UNetBlock {
    pub(crate) fn new(vs: &Path, plan: &BlockPlan, use_checkpoint: bool) -> Result<Self> {
        let layer = |(index, layer)| BlockLayer::new(&(vs / index), layer, use_checkpoint);
        plan.layers.iter().enumerate().map(layer).collect::<Result<_>>().map(Self)
    }

    /// `vs / 0`, `vs / 1`, …
    pub(crate) fn all(vs: &Path, plans: &[BlockPlan], use_checkpoint: bool) -> Result<Vec<Self>> {
        plans.iter().enumerate().map(|(index, plan)| Self::new(&(vs / index), plan, use_checkpoint)).collect()
    }

    pub(crate) fn forward(&self, x: &Tensor, context: &mut ForwardContext) -> Tensor {
        let (first, rest) = self.0.split_first().expect("a block has a layer");
        rest.iter().fold(first.forward(x, context), |h, layer| layer.forward(&h, context))
    }

    /// Transformer blocks, each with keys and values of its own.
    pub(crate) fn keys_values(&self) -> usize {
        let transformers = self.0.iter().map(|layer| match layer {
            BlockLayer::Transformer(transformer) => transformer.depth(),
            _ => 0,
        });
        transformers.sum()
    }

    /// Projects the context to the keys and values of the transformers, in the order of [`UNetBlock::forward`].
    pub(crate) fn project(&self, context: &Tensor) -> impl Iterator<Item = KeyValue> {
        self.0.iter().flat_map(move |layer| match layer {
            BlockLayer::Transformer(transformer) => transformer.project(context).collect(),
            _ => Vec::new(),
        })
    }
}
