//! Conversion of a U-Net config to diffusers' `config.json`.

use ldm_core::diffusers::VERSION;
use ldm_core::{Error, Result};
use serde_json::{Value, json};

use crate::block::LayerPlan;
use crate::config::UNetConfig;
use crate::plan::Plan;

/// Converts a config to diffusers' `config.json` of a `UNet2DConditionModel` (with transformers) or a `UNet2DModel`.
///
/// # Errors
/// [`Error::Invalid`] with the key, if diffusers has no such model.
pub fn to_diffusers(config: &UNetConfig) -> Result<Value> {
    let plan = expressible(config)?;
    let context = config.use_spatial_transformer;
    let levels = config.channel_mult.len();
    let types = |plain: &str, attention: &str| -> Vec<String> {
        let attends = |level: usize| config.attention_resolutions.contains(&(1 << level));
        (0..levels).map(|level| if attends(level) { attention } else { plain }.to_owned()).collect()
    };
    let (down, mut up) = match (context, config.resblock_updown) {
        (true, _) => (types("DownBlock2D", "CrossAttnDownBlock2D"), types("UpBlock2D", "CrossAttnUpBlock2D")),
        (_, true) => (
            types("ResnetDownsampleBlock2D", "AttnDownBlock2D"),
            types("ResnetUpsampleBlock2D", "AttnUpBlock2D"),
        ),
        _ => (types("DownBlock2D", "AttnDownBlock2D"), types("UpBlock2D", "AttnUpBlock2D")),
    };
    up.reverse();
    let widths: Vec<i64> = config.channel_mult.iter().map(|mult| mult * config.model_channels).collect();
    let sample_size = match config.image_size {
        Some([height, width]) if height == width => json!(height),
        size => json!(size),
    };
    let mut json = json!({
        "_class_name": if context { "UNet2DConditionModel" } else { "UNet2DModel" },
        "_diffusers_version": VERSION,
        "act_fn": "silu",
        "block_out_channels": widths,
        "center_input_sample": false,
        "class_embed_type": null,
        "down_block_types": down,
        "downsample_padding": 1,
        "dropout": config.dropout,
        "flip_sin_to_cos": true,
        "freq_shift": 0,
        "in_channels": config.in_channels,
        "layers_per_block": config.num_res_blocks,
        "mid_block_scale_factor": 1,
        "norm_eps": 1e-5,
        "norm_num_groups": 32,
        "num_class_embeds": config.num_classes,
        "out_channels": config.out_channels,
        "resnet_time_scale_shift": if config.use_scale_shift_norm { "scale_shift" } else { "default" },
        "sample_size": sample_size,
        "time_embedding_type": "positional",
        "up_block_types": up,
    });
    if context {
        json["attention_head_dim"] = match config.num_head_channels {
            -1 => json!(config.num_heads),
            width => json!(widths.iter().map(|channels| (channels / width).max(1)).collect::<Vec<_>>()),
        };
        json["cross_attention_dim"] = json!(config.context_dim);
        json["mid_block_type"] = "UNetMidBlock2DCrossAttn".into();
        json["transformer_layers_per_block"] = config.transformer_depth.into();
        json["use_linear_projection"] = false.into();
    } else {
        let resampling = if config.resblock_updown { "resnet" } else { "conv" };
        json["attention_head_dim"] = json!(head_width(&plan)?);
        json["attn_norm_num_groups"] = if config.use_scale_shift_norm { json!(32) } else { Value::Null };
        json["downsample_type"] = resampling.into();
        json["mid_block_type"] = "UNetMidBlock2D".into();
        json["upsample_type"] = resampling.into();
    }
    Ok(json)
}

/// Channels per head of a network without transformers, or `None` if every attention layer has one head.
fn head_width(plan: &Plan) -> Result<Option<i64>> {
    let blocks = plan.input.iter().chain([&plan.middle]).chain(&plan.output);
    let attention = blocks.flat_map(|block| &block.layers).filter_map(|layer| match layer {
        LayerPlan::Attention(attention) => Some((attention.heads, attention.channels / attention.heads)),
        _ => None,
    });
    let (heads, mut widths): (Vec<i64>, Vec<i64>) = attention.unzip();
    widths.sort_unstable();
    widths.dedup();
    match widths.as_slice() {
        _ if heads.iter().all(|heads| *heads == 1) => Ok(None),
        [width] => Ok(Some(*width)),
        _ => Err(Error::invalid(format!(
            "`num_heads`: expected equal channels per head (the only kind in diffusers' UNet2DModel), got {widths:?}"
        ))),
    }
}

/// Returns the plan, if diffusers has such a model.
pub(crate) fn expressible(config: &UNetConfig) -> Result<Plan> {
    let plan = Plan::new(config)?;
    let refuse = |key: &str, expected: &str, got: String| {
        Err(Error::invalid(format!("`{key}`: expected {expected} (the only value in diffusers), got {got}")))
    };
    if let Some(count) = config.n_embed {
        return refuse("n_embed", "none", count.to_string());
    }
    if config.resblock_updown && config.use_spatial_transformer {
        return refuse("resblock_updown", "false with use_spatial_transformer", "true".to_owned());
    }
    if !config.conv_resample && !config.resblock_updown && config.channel_mult.len() > 1 {
        return refuse("conv_resample", "true", "false".to_owned());
    }
    if !config.use_spatial_transformer {
        head_width(&plan)?;
    }
    Ok(plan)
}
