//! The walk through the levels, down and up.

use ldm_core::Result;

use crate::backbone::BackboneConfig;
use crate::block::{BlockPlan, LayerPlan};
use crate::resample::{Direction, ResamplePlan};
use crate::resblock::ResPlan;
use crate::time::time_channels;

/// The walk through the levels that both constructors of the reference make.
pub(crate) struct PlanBuilder<'a> {
    pub(crate) trunk: BackboneConfig<'a>,
    /// The attention layer at a width, on the way up or not.
    pub(crate) attention: &'a dyn Fn(i64, bool) -> Result<LayerPlan>,
}

impl PlanBuilder<'_> {
    fn res(&self, channels_in: i64, channels_out: i64, resample: Option<Direction>) -> LayerPlan {
        LayerPlan::Res(ResPlan {
            channels_in,
            channels_out,
            time_channels: time_channels(self.trunk.model_channels),
            scale_shift: self.trunk.scale_shift,
            resample,
            dropout: self.trunk.dropout,
        })
    }

    fn resample(&self, way: Direction, channels: i64) -> LayerPlan {
        if self.trunk.resblock_updown {
            self.res(channels, channels, Some(way))
        } else {
            LayerPlan::Resample(ResamplePlan { way, channels, conv: self.trunk.conv_resample })
        }
    }

    /// A residual block and, where this level attends, attention.
    fn step(&self, level: usize, channels_in: i64, up: bool) -> Result<BlockPlan> {
        let channels = self.trunk.channel_mult[level] * self.trunk.model_channels;
        let mut layers = vec![self.res(channels_in, channels, None)];
        // The reference calls these resolutions; they are the factors by which a level is smaller.
        if self.trunk.attention_resolutions.contains(&(1 << level)) {
            layers.push((self.attention)(channels, up)?);
        }
        Ok(BlockPlan { layers, channels })
    }

    pub(crate) fn down(&self) -> Result<Vec<BlockPlan>> {
        let mut channels = self.trunk.model_channels;
        let first = LayerPlan::Conv { channels_in: self.trunk.in_channels, channels_out: channels };
        let mut blocks = vec![BlockPlan { layers: vec![first], channels }];
        for level in 0..self.trunk.channel_mult.len() {
            for _ in 0..self.trunk.num_res_blocks {
                let block = self.step(level, channels, false)?;
                channels = block.channels;
                blocks.push(block);
            }
            if level + 1 < self.trunk.channel_mult.len() {
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

    /// Each block takes the answer of one of `input` beside its own input, last first.
    pub(crate) fn up(&self, input: &[BlockPlan], mut channels: i64) -> Result<Vec<BlockPlan>> {
        let mut skips = input.iter().rev().map(|block| block.channels);
        let mut blocks = Vec::with_capacity(input.len());
        for level in (0..self.trunk.channel_mult.len()).rev() {
            for index in 0..=self.trunk.num_res_blocks {
                let skip = skips.next().expect("as many blocks up as down");
                let mut block = self.step(level, channels + skip, true)?;
                channels = block.channels;
                if level > 0 && index == self.trunk.num_res_blocks {
                    block.layers.push(self.resample(Direction::Up, channels));
                }
                blocks.push(block);
            }
        }
        Ok(blocks)
    }
}
