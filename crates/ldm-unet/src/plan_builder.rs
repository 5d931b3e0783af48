//! Construction of the blocks level by level, down and up.

use ldm_core::Result;

use crate::backbone_config::BackboneConfig;
use crate::block::{BlockPlan, LayerPlan};
use crate::resample::{Direction, ResamplePlan};
use crate::resblock::ResPlan;
use crate::time::time_channels;

/// Builds the blocks of both networks, in the order of the constructors of CompVis.
pub(crate) struct PlanBuilder<'a> {
    pub(crate) backbone: BackboneConfig<'a>,
    /// The attention layer for a number of channels, in the up path or not.
    pub(crate) attention: &'a dyn Fn(i64, bool) -> Result<LayerPlan>,
}

impl PlanBuilder<'_> {
    fn res(&self, channels_in: i64, channels_out: i64, resample: Option<Direction>) -> LayerPlan {
        LayerPlan::Res(ResPlan {
            dims: self.backbone.dims,
            channels_in,
            channels_out,
            time_channels: time_channels(self.backbone.model_channels),
            scale_shift: self.backbone.use_scale_shift_norm,
            resample,
            dropout: self.backbone.dropout,
        })
    }

    fn resample(&self, direction: Direction, channels: i64) -> LayerPlan {
        if self.backbone.resblock_updown {
            self.res(channels, channels, Some(direction))
        } else {
            let conv = self.backbone.conv_resample;
            LayerPlan::Resample(ResamplePlan { dims: self.backbone.dims, direction, channels, conv })
        }
    }

    /// A residual block and, if this level has it, attention.
    fn res_with_attention(&self, level: usize, channels_in: i64, up: bool) -> Result<BlockPlan> {
        let channels = self.backbone.channel_mult[level] * self.backbone.model_channels;
        let mut layers = vec![self.res(channels_in, channels, None)];
        // CompVis calls these resolutions; they are downsampling factors.
        if self.backbone.attention_resolutions.contains(&(1 << level)) {
            layers.push((self.attention)(channels, up)?);
        }
        Ok(BlockPlan { layers, channels })
    }

    pub(crate) fn down(&self) -> Result<Vec<BlockPlan>> {
        let mut channels = self.backbone.model_channels;
        let BackboneConfig { dims, in_channels, .. } = self.backbone;
        let first = LayerPlan::Conv { dims, channels_in: in_channels, channels_out: channels };
        let mut blocks = vec![BlockPlan { layers: vec![first], channels }];
        for level in 0..self.backbone.channel_mult.len() {
            for _ in 0..self.backbone.num_res_blocks {
                let block = self.res_with_attention(level, channels, false)?;
                channels = block.channels;
                blocks.push(block);
            }
            if level + 1 < self.backbone.channel_mult.len() {
                blocks.push(BlockPlan { layers: vec![self.resample(Direction::Down, channels)], channels });
            }
        }
        Ok(blocks)
    }

    pub(crate) fn middle(&self, input: &[BlockPlan]) -> Result<BlockPlan> {
        let channels = input.last().expect("the first convolution at least").channels;
        let res = self.res(channels, channels, None);
        Ok(BlockPlan { layers: vec![res, (self.attention)(channels, false)?, res], channels })
    }

    /// Each block takes its input concatenated with the output of one of `input`, last first.
    pub(crate) fn up(&self, input: &[BlockPlan], mut channels: i64) -> Result<Vec<BlockPlan>> {
        let mut skips = input.iter().rev().map(|block| block.channels);
        let mut blocks = Vec::with_capacity(input.len());
        for level in (0..self.backbone.channel_mult.len()).rev() {
            for index in 0..=self.backbone.num_res_blocks {
                let skip = skips.next().expect("as many up blocks as down blocks");
                let mut block = self.res_with_attention(level, channels + skip, true)?;
                channels = block.channels;
                if level > 0 && index == self.backbone.num_res_blocks {
                    block.layers.push(self.resample(Direction::Up, channels));
                }
                blocks.push(block);
            }
        }
        Ok(blocks)
    }
}
