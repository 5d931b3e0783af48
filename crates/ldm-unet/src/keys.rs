//! Mapping to diffusers' state dict of a U-Net.

use ldm_checkpoint::{KeyMap, StateDictMapping, TensorChange};
use ldm_core::Result;

use crate::attention::{AttentionPlan, Order};
use crate::block::LayerPlan;
use crate::config::UNetConfig;
use crate::to_diffusers::expressible;

/// Returns the mapping between the state dicts of this U-Net and of diffusers' `UNet2DConditionModel` (with transformers)
/// or `UNet2DModel`.
///
/// diffusers groups blocks by level: residual blocks, attention, resampling. In attention without context, queries, keys
/// and values are three linear layers (`to_q.weight` `[C, C]`) there and one convolution (`qkv.weight` `[3C, C, 1]`, rows
/// head by head) here. The attention names before diffusers 0.15 are accepted too.
///
/// # Errors
/// [`ldm_core::Error::Invalid`] with the key, if diffusers has no such model.
pub fn diffusers_layout(config: &UNetConfig) -> Result<StateDictMapping> {
    let plan = expressible(config)?;
    let mut names = UNetKeys::default();
    for (theirs, ours) in ENDS {
        names.module(theirs.to_owned(), ours.to_owned());
    }
    let blocks = config.num_res_blocks as usize + 1;
    for (index, block) in plan.input.iter().enumerate().skip(1) {
        let (level, place) = ((index - 1) / blocks, (index - 1) % blocks);
        names.block(&format!("down_blocks.{level}"), place, &format!("input_blocks.{index}"), &block.layers);
    }
    for (index, layer) in plan.middle.layers.iter().enumerate() {
        names.layer("mid_block", index / 2, format!("middle_block.{index}"), layer);
    }
    for (index, block) in plan.output.iter().enumerate() {
        let (level, place) = (index / blocks, index % blocks);
        names.block(&format!("up_blocks.{level}"), place, &format!("output_blocks.{index}"), &block.layers);
    }
    let (mut leaves, mut older) = (pairs(&RESIDUAL), Vec::new());
    if !config.use_spatial_transformer {
        leaves.extend(pairs(&ATTENTION));
        older.extend(pairs(&OLDER_ATTENTION));
    }
    Ok(StateDictMapping {
        keys: KeyMap::new(names.modules, leaves).with_older(older),
        changes: names.changes,
    })
}

/// Modules before and after the blocks: diffusers' names and ours.
const ENDS: [(&str, &str); 6] = [
    ("time_embedding.linear_1", "time_embed.0"),
    ("time_embedding.linear_2", "time_embed.2"),
    ("class_embedding", "label_emb"),
    ("conv_in", "input_blocks.0.0"),
    ("conv_norm_out", "out.0"),
    ("conv_out", "out.2"),
];
const RESIDUAL: [(&str, &str); 6] = [
    ("norm1", "in_layers.0"),
    ("conv1", "in_layers.2"),
    ("time_emb_proj", "emb_layers.1"),
    ("norm2", "out_layers.0"),
    ("conv2", "out_layers.3"),
    ("conv_shortcut", "skip_connection"),
];
/// The names within a transformer are the same.
const ATTENTION: [(&str, &str); 2] = [("group_norm", "norm"), ("to_out.0", "proj_out")];
const OLDER_ATTENTION: [(&str, &str); 4] =
    [("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "proj_out")];

fn pairs(names: &[(&str, &str)]) -> Vec<(String, String)> {
    names.iter().map(|(theirs, ours)| ((*theirs).to_owned(), (*ours).to_owned())).collect()
}

#[derive(Default)]
struct UNetKeys {
    modules: Vec<(String, String)>,
    changes: Vec<(String, TensorChange)>,
}

impl UNetKeys {
    fn module(&mut self, theirs: String, ours: String) {
        self.modules.push((theirs, ours));
    }

    fn block(&mut self, theirs: &str, place: usize, ours: &str, layers: &[LayerPlan]) {
        for (index, layer) in layers.iter().enumerate() {
            self.layer(theirs, place, format!("{ours}.{index}"), layer);
        }
    }

    /// Adds the layer `ours`, the `place`th of its kind in the block `theirs`.
    fn layer(&mut self, theirs: &str, place: usize, ours: String, layer: &LayerPlan) {
        match layer {
            LayerPlan::Conv { .. } => {}
            LayerPlan::Res(plan) => match plan.resample {
                None => self.module(format!("{theirs}.resnets.{place}"), ours),
                Some(direction) => self.module(format!("{theirs}.{}.0", direction.diffusers()), ours),
            },
            LayerPlan::Resample(plan) => {
                let conv = format!("{ours}.{}", plan.name());
                self.module(format!("{theirs}.{}.0.conv", plan.direction.diffusers()), conv);
            }
            LayerPlan::Transformer(_) => self.module(format!("{theirs}.attentions.{place}"), ours),
            LayerPlan::Attention(plan) => {
                self.attention(&ours, *plan);
                self.module(format!("{theirs}.attentions.{place}"), ours);
            }
        }
    }

    fn attention(&mut self, ours: &str, plan: AttentionPlan) {
        let channels = plan.channels;
        let heads = match plan.order {
            Order::HeadsFirst => plan.heads,
            Order::QkvFirst => 1,
        };
        for (leaf, native, mapped) in [
            ("weight", vec![3 * channels, channels, 1], vec![channels, channels]),
            ("bias", vec![3 * channels], vec![channels]),
        ] {
            let names = ["to_q", "to_k", "to_v"].map(|part| format!("{ours}.{part}.{leaf}"));
            self.changes.push((
                format!("{ours}.qkv.{leaf}"),
                TensorChange::FusedQkv { names, native, mapped, heads },
            ));
        }
        let change =
            TensorChange::Reshaped { native: vec![channels, channels, 1], mapped: vec![channels, channels] };
        self.changes.push((format!("{ours}.proj_out.weight"), change));
    }
}
