//! Mapping to diffusers' state dict of a ControlNet.

use ldm_checkpoint::{KeyMap, StateDictMapping};
use ldm_core::Result;

use crate::control_net_config::ControlNetConfig;
use crate::keys::diffusers_layout;
use crate::plan::Plan;

/// Returns the mapping between the state dicts of this ControlNet and of diffusers' `ControlNetModel`: that of the U-Net's
/// encoder half, the hint encoder, and the convolutions of the residuals.
///
/// # Errors
/// As [`diffusers_layout`].
pub fn control_net_diffusers_layout(config: &ControlNetConfig) -> Result<StateDictMapping> {
    let StateDictMapping { keys, changes } = diffusers_layout(&config.unet)?;
    let ours = ["time_embed.", "input_blocks.", "middle_block."];
    let mut modules = keys.modules;
    modules.retain(|(_, native)| ours.iter().any(|prefix| native.starts_with(prefix)));
    let last = 2 * config.hint_widths.len() - 1;
    for index in 0..=last {
        let theirs = match index {
            0 => "conv_in".to_owned(),
            _ if index == last => "conv_out".to_owned(),
            _ => format!("blocks.{}", index - 1),
        };
        let theirs = format!("controlnet_cond_embedding.{theirs}");
        modules.push((theirs, format!("input_hint_block.{}", 2 * index)));
    }
    for index in 0..Plan::control_net(config)?.input.len() {
        modules.push((format!("controlnet_down_blocks.{index}"), format!("zero_convs.{index}.0")));
    }
    modules.push(("controlnet_mid_block".into(), "middle_block_out.0".into()));
    Ok(StateDictMapping { keys: KeyMap::new(modules, keys.leaves).with_older(keys.older), changes })
}
