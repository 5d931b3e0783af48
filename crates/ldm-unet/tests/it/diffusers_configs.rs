//! Configs of diffusers: defaults, and errors about unsupported ones.

use ldm_unet::{diffusers_layout, from_diffusers, to_diffusers};
use serde_json::{Value, json};

use crate::diffusers::config_of;

fn condition() -> Value {
    json!({
        "_class_name": "UNet2DConditionModel", "block_out_channels": [64, 128], "cross_attention_dim": 24,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
    })
}

fn plain() -> Value {
    json!({
        "_class_name": "UNet2DModel", "block_out_channels": [64, 128],
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D"], "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    })
}

#[test]
fn absent_fields_have_the_defaults_of_diffusers() {
    let config = from_diffusers(&condition()).unwrap();
    assert_eq!((config.num_heads, config.num_head_channels, config.num_res_blocks), (8, -1, 2));
    assert_eq!((config.in_channels, config.out_channels, config.image_size), (4, 4, None));
    let mut json = plain();
    json["a_field_of_tomorrow"] = 1.into();
    // The names of the first versions.
    json["down_block_types"] = json!(["UNetResDownBlock2D", "UNetResAttnDownBlock2D"]);
    let config = from_diffusers(&json).unwrap();
    assert_eq!(config.attention_resolutions, [2]);
    assert_eq!((config.num_heads, config.num_head_channels, config.in_channels), (-1, 8, 3));
    json["attention_head_dim"] = Value::Null;
    let config = from_diffusers(&json).unwrap();
    assert_eq!((config.num_heads, config.num_head_channels), (1, -1));
}

#[track_caller]
fn check_refused(mut json: Value, key: &str, value: Value, message: &str) {
    json[key] = value;
    assert_eq!(from_diffusers(&json).unwrap_err().to_string(), message);
}

#[test]
fn unsupported_values_are_refused_by_name() {
    check_refused(
        condition(),
        "_class_name",
        json!("UNet3DConditionModel"),
        r#"`_class_name`: expected UNet2DConditionModel or UNet2DModel, got "UNet3DConditionModel""#,
    );
    check_refused(
        condition(),
        "use_linear_projection",
        json!(true),
        "`use_linear_projection`: expected false, got true, as in Stable Diffusion 2 and XL, which are not supported",
    );
    for (key, value, expected) in [
        ("act_fn", json!("gelu"), r#""silu" or "swish""#),
        ("norm_num_groups", json!(null), "32"),
        ("norm_eps", json!(1e-6), "0.00001"),
        ("time_embedding_type", json!("fourier"), r#""positional""#),
        ("flip_sin_to_cos", json!(false), "true"),
        ("freq_shift", json!(1), "0"),
        ("downsample_padding", json!(0), "1"),
        ("class_embed_type", json!("timestep"), "null"),
        ("addition_embed_type", json!("text_time"), "null"),
        ("dual_cross_attention", json!(true), "false"),
        ("only_cross_attention", json!([false, true]), "false"),
        ("attention_type", json!("gated"), r#""default""#),
        ("num_attention_heads", json!(8), "null"),
        ("mid_block_type", json!("UNetMidBlock2DSimpleCrossAttn"), r#""UNetMidBlock2DCrossAttn""#),
        ("resnet_time_scale_shift", json!("ada_group"), "default or scale_shift"),
        ("cross_attention_dim", json!(null), "the width of the context"),
        ("cross_attention_dim", json!([24, 32]), "one value for all levels"),
        ("transformer_layers_per_block", json!([1, 2]), "one value for all levels"),
        ("layers_per_block", json!([1, 2]), "one value for all levels"),
        ("attention_head_dim", json!(null), "a number of heads"),
        ("attention_head_dim", json!([1, 2, 3]), "a number of heads, or one per level"),
        ("time_embedding_dim", json!(512), "null or four times the first of block_out_channels"),
        ("block_out_channels", json!([64, 96]), "1 to 31 multiples of the first"),
        ("down_block_types", json!(["DownBlock2D"]), "2 of DownBlock2D, CrossAttnDownBlock2D"),
    ] {
        let message = format!("`{key}`: expected {expected}, got {value}");
        check_refused(condition(), key, value, &message);
    }
    for (key, value, expected) in [
        ("add_attention", json!(false), "true"),
        ("mid_block_type", json!(null), r#""UNetMidBlock2D""#),
        ("downsample_type", json!("pool"), "conv or resnet"),
        ("attn_norm_num_groups", json!(16), "null or 32"),
        ("up_block_types", json!(["UpBlock2D", "UpBlock2D"]), "the mirror of down_block_types"),
    ] {
        let message = format!("`{key}`: expected {expected}, got {value}");
        check_refused(plain(), key, value, &message);
    }
    check_refused(
        plain(),
        "resnet_time_scale_shift",
        json!("scale_shift"),
        "`attn_norm_num_groups`: expected 32, got nothing",
    );
    check_refused(
        plain(),
        "upsample_type",
        json!("resnet"),
        r#"`down_block_types`: expected resampling only by convolutions or only by residual blocks, got ["DownBlock2D","AttnDownBlock2D"]"#,
    );
    check_refused(
        plain(),
        "attention_head_dim",
        json!(48),
        "num_head_channels: expected a divisor of the 128 channels of an attention layer, got 48",
    );
}

#[test]
fn models_unknown_to_diffusers_are_refused_by_name() {
    for (change, message) in [
        (json!({"n_embed": 8}), "`n_embed`: expected none (the only value in diffusers), got 8"),
        (
            json!({"conv_resample": false}),
            "`conv_resample`: expected true (the only value in diffusers), got false",
        ),
        (
            json!({"use_spatial_transformer": true, "context_dim": 8, "resblock_updown": true}),
            "`resblock_updown`: expected false with use_spatial_transformer (the only value in diffusers), got true",
        ),
        (
            json!({"channel_mult": [1, 2, 4]}),
            "`num_heads`: expected equal channels per head (the only kind in diffusers' UNet2DModel), got [16, 32]",
        ),
    ] {
        let config = config_of(change);
        assert_eq!(to_diffusers(&config).unwrap_err().to_string(), message);
        assert_eq!(diffusers_layout(&config).unwrap_err().to_string(), message);
    }
}
