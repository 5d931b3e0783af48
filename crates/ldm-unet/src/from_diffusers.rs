//! Conversion of diffusers' `config.json` of a U-Net to a config.

use ldm_core::diffusers::{Fields, wrong};
use ldm_core::{Error, Result};
use serde_json::{Value, json};

use crate::config::UNetConfig;
use crate::plan::Plan;

/// The only supported values of these fields of both classes, which are diffusers' defaults too.
fn supported_values() -> Value {
    json!({
        "act_fn": ["silu", "swish"],
        "center_input_sample": [false],
        "class_embed_type": [null],
        "downsample_padding": [1],
        "flip_sin_to_cos": [true],
        "freq_shift": [0],
        "mid_block_scale_factor": [1],
        "norm_eps": [1e-5],
        "norm_num_groups": [32],
        "time_embedding_type": ["positional"],
    })
}

/// The same for `UNet2DModel`.
fn supported_values_without_context() -> Value {
    json!({ "add_attention": [true], "mid_block_type": ["UNetMidBlock2D"] })
}

/// The same for `UNet2DConditionModel`.
fn supported_values_with_context() -> Value {
    json!({
        "addition_embed_type": [null],
        "attention_type": ["default"],
        "class_embeddings_concat": [false],
        "conv_in_kernel": [3],
        "conv_out_kernel": [3],
        "cross_attention_norm": [null],
        "dual_cross_attention": [false],
        "encoder_hid_dim": [null],
        "encoder_hid_dim_type": [null],
        "mid_block_only_cross_attention": [null, false],
        "mid_block_type": ["UNetMidBlock2DCrossAttn"],
        "num_attention_heads": [null],
        "only_cross_attention": [false],
        "resnet_out_scale_factor": [1],
        "resnet_skip_time_act": [false],
        "reverse_transformer_layers_per_block": [null],
        "time_cond_proj_dim": [null],
        "time_embedding_act_fn": [null],
        "timestep_post_act": [null],
    })
}

/// Converts diffusers' `config.json` of a `UNet2DConditionModel` (spatial transformers) or a `UNet2DModel` (attention
/// without context) to a config.
///
/// `attention_head_dim` is the channels per head in `UNet2DModel`, and a misnomer for the number of heads in
/// `UNet2DConditionModel`.
///
/// # Errors
/// [`Error::Invalid`] with the field, if it is missing or has a value that CompVis' networks do not support.
pub fn from_diffusers(json: &Value) -> Result<UNetConfig> {
    let fields = Fields::new(json)?;
    let context = match fields.class()? {
        "UNet2DConditionModel" => true,
        "UNet2DModel" => false,
        _ => {
            let expected = "UNet2DConditionModel or UNet2DModel";
            return Err(wrong("_class_name", expected, json.get("_class_name")));
        }
    };
    if fields.flag("use_linear_projection", false)? {
        return Err(Error::invalid(
            "`use_linear_projection`: expected false, got true, as in Stable Diffusion 2 and XL, which are not supported",
        ));
    }
    fields.check(&supported_values())?;
    fields.check(&if context {
        supported_values_with_context()
    } else {
        supported_values_without_context()
    })?;
    let widths = fields.integers("block_out_channels")?;
    let first = widths.first().copied().unwrap_or(0);
    if first < 1 || widths.len() > 31 || widths.iter().any(|width| *width < 1 || width % first != 0) {
        let expected = "1 to 31 multiples of the first";
        return Err(wrong("block_out_channels", expected, fields.get("block_out_channels")));
    }
    let time_width = fields.maybe_integer("time_embedding_dim")?;
    if time_width.is_some_and(|width| first.checked_mul(4) != Some(width)) {
        let expected = "null or four times the first of block_out_channels";
        return Err(wrong("time_embedding_dim", expected, fields.get("time_embedding_dim")));
    }
    let scale_shift = fields.word("resnet_time_scale_shift", &["default", "scale_shift"])? == "scale_shift";
    let blocks = Blocks::read(&fields, context, widths.len())?;
    let channels = if context { 4 } else { 3 };
    let mut config = UNetConfig::new(
        [fields.integer("in_channels", channels)?, fields.integer("out_channels", channels)?],
        first,
        fields.same_on_all("layers_per_block", 2)?,
        widths.iter().map(|width| width / first).collect(),
        (0..widths.len()).filter(|level| blocks.attends[*level]).map(|level| 1 << level).collect(),
    );
    config.image_size = fields.size("sample_size")?;
    config.dropout = fields.maybe_number("dropout")?.unwrap_or(0.);
    config.num_classes = fields.maybe_integer("num_class_embeds")?;
    config.use_scale_shift_norm = scale_shift;
    config.resblock_updown = blocks.residual;
    if context {
        if fields.is_null("cross_attention_dim") {
            return Err(wrong("cross_attention_dim", "the width of the context", Some(&Value::Null)));
        }
        config.use_spatial_transformer = true;
        config.context_dim = Some(fields.same_on_all("cross_attention_dim", 1280)?);
        config.transformer_depth = fields.same_on_all("transformer_layers_per_block", 1)?;
        heads_of_levels(&fields, &widths, &blocks.attends, &mut config)?;
    } else {
        // Otherwise the attention of the middle block has no norm (`UNetMidBlock2D`).
        if scale_shift && fields.maybe_integer("attn_norm_num_groups")? != Some(32)
            || !scale_shift && fields.integer("attn_norm_num_groups", 32)? != 32
        {
            let expected = if scale_shift { "32" } else { "null or 32" };
            return Err(wrong("attn_norm_num_groups", expected, json.get("attn_norm_num_groups")));
        }
        if fields.is_null("attention_head_dim") {
            config.num_heads = 1;
        } else {
            config.num_head_channels = fields.integer("attention_head_dim", 8)?;
        }
    }
    Plan::new(&config)?;
    Ok(config)
}

/// Reads the heads of a `UNet2DConditionModel`: one number, or one per level; equal numbers or equal channels per head.
fn heads_of_levels(fields: &Fields, widths: &[i64], attends: &[bool], config: &mut UNetConfig) -> Result<()> {
    const KEY: &str = "attention_head_dim";
    let refuse = |expected: &str| wrong(KEY, expected, fields.get(KEY));
    if fields.is_null(KEY) {
        return Err(wrong(KEY, "a number of heads", Some(&Value::Null)));
    }
    let heads = if fields.get(KEY).is_some() { fields.integers(KEY)? } else { vec![8] };
    if let [heads] = heads.as_slice() {
        config.num_heads = *heads;
        return Ok(());
    }
    if heads.len() != widths.len() || heads.iter().any(|heads| *heads < 1) {
        return Err(refuse("a number of heads, or one per level"));
    }
    // The middle block has attention, with the channels of the last level.
    let last = widths.len() - 1;
    let counted: Vec<(i64, i64)> = (0..widths.len())
        .filter(|level| attends[*level] || *level == last)
        .map(|level| (heads[level], widths[level]))
        .collect();
    let (first, width) = counted[0];
    if counted.iter().all(|(heads, _)| *heads == first) {
        config.num_heads = first;
    } else if width % first == 0
        && counted.iter().all(|(heads, channels)| heads.checked_mul(width / first) == Some(*channels))
    {
        config.num_head_channels = width / first;
    } else {
        return Err(refuse(
            "the same number of heads, or of channels per head, at every level with attention",
        ));
    }
    Ok(())
}

/// The structure given by the block types.
struct Blocks {
    attends: Vec<bool>,
    /// Down- and upsampling are residual blocks.
    residual: bool,
}

impl Blocks {
    fn read(fields: &Fields, context: bool, levels: usize) -> Result<Self> {
        let (attend, names) = if context {
            (["CrossAttnDownBlock2D", "CrossAttnUpBlock2D"], [["DownBlock2D", ""], ["UpBlock2D", ""]])
        } else {
            let down = ["DownBlock2D", "ResnetDownsampleBlock2D"];
            (["AttnDownBlock2D", "AttnUpBlock2D"], [down, ["UpBlock2D", "ResnetUpsampleBlock2D"]])
        };
        let mut read = Vec::new();
        for (side, [key, resampling]) in
            [["down_block_types", "downsample_type"], ["up_block_types", "upsample_type"]].iter().enumerate()
        {
            let mut types = fields.block_types(key)?;
            let known = |name: &&str| *name == attend[side] || names[side].contains(name);
            if types.len() != levels || !types.iter().all(known) {
                let named = names[side].iter().filter(|name| !name.is_empty()).copied();
                let expected: Vec<&str> = named.chain([attend[side]]).collect();
                return Err(wrong(key, &format!("{levels} of {}", expected.join(", ")), fields.get(key)));
            }
            if side == 1 {
                types.reverse();
            }
            let attends: Vec<bool> = types.iter().map(|name| *name == attend[side]).collect();
            let residual = !context && fields.word(resampling, &["conv", "resnet"])? == "resnet";
            // The level without resampling does not count.
            let resamples = if side == 0 { 0..levels - 1 } else { 1..levels };
            let kinds =
                resamples.map(|level| if attends[level] { residual } else { types[level] == names[side][1] });
            let kinds: Vec<bool> = kinds.collect();
            read.push((attends, kinds));
        }
        let (up, down) = (read.remove(1), read.remove(0));
        if up.0 != down.0 {
            return Err(wrong(
                "up_block_types",
                "the mirror of down_block_types",
                fields.get("up_block_types"),
            ));
        }
        let mut kinds = down.1.iter().chain(&up.1);
        let residual = kinds.clone().next().copied().unwrap_or(false);
        if kinds.any(|kind| *kind != residual) {
            let expected = "resampling only by convolutions or only by residual blocks";
            return Err(wrong("down_block_types", expected, fields.get("down_block_types")));
        }
        Ok(Self { attends: down.0, residual })
    }
}
