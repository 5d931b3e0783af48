//! The spatial transformer, with optional cross-attention to a context.

use std::slice;

use ldm_core::Result;
use ldm_core::nn::{Added, Conv2d, GroupNorm, conv2d, layer_norm, zero_conv2d};
use tch::Tensor;
use tch::nn::{LayerNorm, Path};

use crate::block::MergedMap;
use crate::checkpointed::Checkpointed;
use crate::cross_attention::{CrossAttention, CrossAttentionPlan, GatedFeedForward, KeyValue};
use crate::parameters::ParameterNames;
use crate::token_merging::MergedTokens;

/// Eps of the norm before the transformer (`attention.py:77`).
const EPS: f64 = 1e-6;

/// Sizes of a [`SpatialTransformer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TransformerPlan {
    pub(crate) channels: i64,
    pub(crate) heads: i64,
    pub(crate) depth: i64,
    pub(crate) context: i64,
}

impl TransformerPlan {
    fn self_attention(self) -> CrossAttentionPlan {
        CrossAttentionPlan { channels: self.channels, context: self.channels, heads: self.heads }
    }

    fn cross_attention(self) -> CrossAttentionPlan {
        CrossAttentionPlan { context: self.context, ..self.self_attention() }
    }

    fn block_parameters(self, list: &mut ParameterNames) {
        list.within("attn1", |list| self.self_attention().parameters(list));
        list.within("ff", |list| GatedFeedForward::parameters(self.channels, list));
        list.within("attn2", |list| self.cross_attention().parameters(list));
        for name in ["norm1", "norm2", "norm3"] {
            list.norm(name, self.channels);
        }
    }

    pub(crate) fn parameters(self, list: &mut ParameterNames) {
        list.norm("norm", self.channels);
        list.conv2d("proj_in", self.channels, self.channels, 1);
        list.within("transformer_blocks", |list| {
            for index in 0..self.depth {
                list.within(index, |list| self.block_parameters(list));
            }
        });
        list.conv2d("proj_out", self.channels, self.channels, 1);
    }
}

/// Self-attention, cross-attention and a feed-forward layer, each pre-normalized with a residual connection.
///
/// CompVis `attention.py:196` `BasicTransformerBlock`.
#[derive(Debug)]
pub(crate) struct TransformerBlock {
    attn1: CrossAttention,
    ff: GatedFeedForward,
    attn2: CrossAttention,
    norm1: LayerNorm,
    norm2: LayerNorm,
    norm3: LayerNorm,
}

impl TransformerBlock {
    fn new(vs: &Path, plan: TransformerPlan) -> Self {
        Self {
            attn1: CrossAttention::new(&(vs / "attn1"), plan.self_attention()),
            ff: GatedFeedForward::new(&(vs / "ff"), plan.channels),
            attn2: CrossAttention::new(&(vs / "attn2"), plan.cross_attention()),
            norm1: layer_norm(&(vs / "norm1"), plan.channels),
            norm2: layer_norm(&(vs / "norm2"), plan.channels),
            norm3: layer_norm(&(vs / "norm3"), plan.channels),
        }
    }

    /// `inputs` are `x` `[B, N, C]` and, with a context, its keys and values; without one, the second attention is
    /// self-attention too (`attention.py:177`).
    fn forward(&self, inputs: &[Tensor], merging: Option<MergedMap>) -> Tensor {
        let x = &inputs[0];
        let x = match merging {
            None => self.attn1.attend_self(&x.apply(&self.norm1), Some(x)),
            Some(map) => {
                let merged = MergedTokens::new(x, map.size, map.share);
                let attended = self.attn1.attend_self(&merged.merge(&x.apply(&self.norm1)), None);
                merged.unmerge(&attended) + x
            }
        };
        let normed = x.apply(&self.norm2);
        let x = match inputs {
            [_, key, value] => self.attn2.attend(&normed, key, value, Some(&x)),
            _ => self.attn2.attend_self(&normed, Some(&x)),
        };
        self.ff.forward(&x.apply(&self.norm3), &x)
    }
}

/// Transformer blocks over the positions of a feature map, with a residual connection; initialized as the identity.
///
/// Without dropout, also if the config has it: CompVis ignores it here (`attention.py:218`).
#[derive(Debug)]
pub(crate) struct SpatialTransformer {
    norm: GroupNorm,
    proj_in: Conv2d,
    blocks: Vec<Checkpointed<TransformerBlock>>,
    proj_out: Conv2d,
}

impl SpatialTransformer {
    pub(crate) fn new(vs: &Path, plan: TransformerPlan, use_checkpoint: bool) -> Result<Self> {
        let channels = plan.channels;
        let block = |index| {
            let vs = vs / "transformer_blocks" / index;
            Checkpointed::new(
                TransformerBlock::new(&vs, plan),
                &vs,
                |list| plan.block_parameters(list),
                use_checkpoint,
            )
        };
        Ok(Self {
            norm: GroupNorm::new(&(vs / "norm"), channels, EPS)?,
            proj_in: conv2d(&(vs / "proj_in"), channels, channels, 1, 1, 0),
            blocks: (0..plan.depth).map(block).collect(),
            proj_out: zero_conv2d(&(vs / "proj_out"), channels, channels, 1),
        })
    }

    /// Transformer blocks.
    pub(crate) fn depth(&self) -> usize {
        self.blocks.len()
    }

    /// Projects the context to the keys and values of each block.
    pub(crate) fn project(&self, context: &Tensor) -> impl Iterator<Item = KeyValue> {
        self.blocks.iter().map(|block| block.with(|block| block.attn2.project(context)))
    }

    /// Maps `[B, C, h, w]` to the same shape. Takes one [`KeyValue`] per block from `context`, if any.
    /// `merging` merges the tokens of maps of its size.
    pub(crate) fn forward(
        &self,
        x: &Tensor,
        context: &mut Option<slice::Iter<KeyValue>>,
        merging: Option<MergedMap>,
        train: bool,
    ) -> Tensor {
        let (batch, channels, height, width) = x.size4().expect("[B, C, h, w]");
        let merging = merging.filter(|map| map.size == [height, width]);
        // No copy of a channels_last map: its positions are already contiguous.
        let mut tokens = x.apply(&self.norm).apply(&self.proj_in).flatten(2, 3).transpose(1, 2).contiguous();
        for block in &self.blocks {
            let pair = context
                .as_mut()
                .map(|pairs| pairs.next().expect("one pair per block, by `UNet::precompute`"));
            let inputs = match pair {
                Some(pair) => vec![&tokens, &pair.key, &pair.value],
                None => vec![&tokens],
            };
            tokens = block.run(train, &inputs, move |block, inputs| block.forward(inputs, merging));
        }
        let h = tokens.transpose(1, 2).view([batch, channels, height, width]);
        self.proj_out.plus(&h, Added { to_image: None, residual: Some(x) })
    }
}
