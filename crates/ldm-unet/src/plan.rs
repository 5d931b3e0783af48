//! The plan of a network: every block with its channels and attention, without tensors.

use std::fmt;

use ldm_core::{Error, Result};

use crate::attention::{AttentionPlan, Order};
use crate::block::{BlockPlan, LayerPlan};
use crate::config::UNetConfig;
use crate::control_net_config::ControlNetConfig;
use crate::conv_nd::ConvSizes;
use crate::encoder_config::EncoderUNetConfig;
use crate::hint_encoder::HintPlan;
use crate::parameters::ParameterNames;
use crate::plan_builder::PlanBuilder;
use crate::pool;
use crate::time::{TimeEmbedding, time_channels};
use crate::transformer::TransformerPlan;

/// Description of every block of a network, computed from its config: the network is built from it, it lists the
/// parameters, and [`fmt::Display`] prints it.
///
/// CompVis `openaimodel.py:411` `UNetModel`, `:748` `EncoderUNetModel`.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    pub(crate) model_channels: i64,
    pub(crate) input: Vec<BlockPlan>,
    pub(crate) middle: BlockPlan,
    pub(crate) output: Vec<BlockPlan>,
    pub(crate) classes: Option<i64>,
    pub(crate) head: OutputHead,
}

/// The layers after the last block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OutputHead {
    /// A norm and a convolution; with `ids`, the predictor of codebook ids is used instead.
    Map { dims: i64, channels_out: i64, ids: Option<i64> },
    /// A pool.
    Pool(pool::PoolPlan),
    /// A convolution of kernel 1 after each block, and the encoder of the hint.
    Residuals(HintPlan),
}

impl Plan {
    /// Plans a U-Net.
    ///
    /// # Errors
    /// [`ldm_core::Error::Invalid`] with the key, if the config is inconsistent.
    pub fn new(config: &UNetConfig) -> Result<Self> {
        config.check()?;
        let attention = |channels, up| {
            let heads = config.heads(channels, up)?;
            Ok(match config.context_dim {
                Some(context) => {
                    let depth = config.transformer_depth;
                    LayerPlan::Transformer(TransformerPlan { channels, heads, depth, context })
                }
                None => self_attention(channels, heads, config.use_new_attention_order),
            })
        };
        let builder = PlanBuilder { backbone: config.backbone(), attention: &attention };
        let input = builder.down()?;
        let middle = builder.middle(&input)?;
        Ok(Self {
            model_channels: config.model_channels,
            output: builder.up(&input, middle.channels)?,
            input,
            middle,
            classes: config.num_classes,
            head: OutputHead::Map {
                dims: config.dims,
                channels_out: config.out_channels,
                ids: config.n_embed,
            },
        })
    }

    /// Plans the encoder half with a pool.
    ///
    /// # Errors
    /// As [`Plan::new`].
    pub fn encoder(config: &EncoderUNetConfig) -> Result<Self> {
        config.backbone().check()?;
        if config.dims != 2 {
            return Err(Error::invalid(format!("dims: expected 2 (images), got {}", config.dims)));
        }
        let order = config.use_new_attention_order;
        let attention = |channels, _up| Ok(self_attention(channels, config.heads(channels)?, order));
        let builder = PlanBuilder { backbone: config.backbone(), attention: &attention };
        let input = builder.down()?;
        let middle = builder.middle(&input)?;
        let head = OutputHead::Pool(pool::PoolPlan::new(config, &input, &middle)?);
        Ok(Self {
            model_channels: config.model_channels,
            input,
            middle,
            output: Vec::new(),
            classes: None,
            head,
        })
    }

    /// Plans a ControlNet.
    ///
    /// # Errors
    /// As [`Plan::new`].
    pub fn control_net(config: &ControlNetConfig) -> Result<Self> {
        config.check()?;
        let plan = Self::new(&config.unet)?;
        let hint = HintPlan {
            channels: config.hint_channels,
            widths: config.hint_widths.clone(),
            channels_out: plan.model_channels,
        };
        Ok(Self { output: Vec::new(), head: OutputHead::Residuals(hint), ..plan })
    }

    /// Lists names and shapes of every parameter, in the order of CompVis' `state_dict`.
    pub fn parameters(&self) -> Vec<(String, Vec<i64>)> {
        self.names().into_list()
    }

    /// [`Plan::parameters`], to be found among those of a network.
    pub(crate) fn names(&self) -> ParameterNames {
        let mut list = ParameterNames::default();
        TimeEmbedding::parameters(self.model_channels, &mut list);
        if let Some(classes) = self.classes {
            let width = time_channels(self.model_channels);
            list.within("label_emb", |list| list.add("weight", &[classes, width]));
        }
        list_blocks("input_blocks", &self.input, &mut list);
        list.within("middle_block", |list| self.middle.parameters(list));
        list_blocks("output_blocks", &self.output, &mut list);
        match &self.head {
            &OutputHead::Map { dims, channels_out, ids } => {
                let channels = self.model_channels;
                let conv =
                    |channels_out, kernel| ConvSizes { dims, channels_in: channels, channels_out, kernel };
                list.within("out", |list| {
                    list.norm(0, channels);
                    list.conv(2, conv(channels_out, 3));
                });
                if let Some(ids) = ids {
                    list.within("id_predictor", |list| {
                        list.norm(0, channels);
                        list.conv(1, conv(ids, 1));
                    });
                }
            }
            OutputHead::Pool(plan) => list.within("out", |list| plan.parameters(list)),
            OutputHead::Residuals(hint) => {
                list.within("zero_convs", |list| {
                    for (index, block) in self.input.iter().enumerate() {
                        list.conv2d(format!("{index}.0"), block.channels, block.channels, 1);
                    }
                });
                list.within("input_hint_block", |list| hint.parameters(list));
                list.conv2d("middle_block_out.0", self.middle.channels, self.middle.channels, 1);
            }
        }
        list
    }
}

fn list_blocks(name: &str, blocks: &[BlockPlan], list: &mut ParameterNames) {
    list.within(name, |list| {
        for (index, block) in blocks.iter().enumerate() {
            list.within(index, |list| block.parameters(list));
        }
    });
}

fn self_attention(channels: i64, heads: i64, new_order: bool) -> LayerPlan {
    let order = if new_order { Order::QkvFirst } else { Order::HeadsFirst };
    LayerPlan::Attention(AttentionPlan { channels, heads, order })
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let channels = self.model_channels;
        writeln!(f, "time_embed  {channels} -> {}", time_channels(channels))?;
        if let Some(classes) = self.classes {
            writeln!(f, "label_emb  {classes} classes")?;
        }
        for (index, block) in self.input.iter().enumerate() {
            writeln!(f, "input_blocks.{index}  {block}")?;
        }
        writeln!(f, "middle_block  {}", self.middle)?;
        for (index, block) in self.output.iter().enumerate() {
            writeln!(f, "output_blocks.{index}  {block}")?;
        }
        match &self.head {
            OutputHead::Map { channels_out, ids, .. } => {
                writeln!(f, "out  {channels} -> {channels_out}")?;
                ids.map_or(Ok(()), |ids| writeln!(f, "id_predictor  {channels} -> {ids}"))?;
            }
            OutputHead::Pool(plan) => writeln!(f, "out  {plan}")?,
            OutputHead::Residuals(hint) => writeln!(f, "input_hint_block  {hint}")?,
        }
        let parameters = self.parameters();
        let total: i64 = parameters.iter().map(|(_, shape)| shape.iter().product::<i64>()).sum();
        writeln!(f, "{total} parameters in {} tensors", parameters.len())
    }
}
