//! Invalid configs, sizes and conditionings, and their errors.

use ldm_core::Conditioning;
use ldm_core::device::test_device;
use ldm_unet::{EncoderUNet, EncoderUNetConfig, Plan, UNet, UNetConfig};
use serde_json::{Value, json};
use tch::nn::VarStore;
use tch::{Kind, Tensor};

fn base() -> Value {
    json!({
        "in_channels": 3, "out_channels": 3, "model_channels": 32, "num_res_blocks": 1,
        "attention_resolutions": [2], "channel_mult": [1, 2], "num_heads": 4,
    })
}

fn with(changes: Value) -> Value {
    let mut config = base();
    for (key, value) in changes.as_object().expect("an object of changes") {
        config[key] = value.clone();
    }
    config
}

fn unet(changes: Value) -> UNetConfig {
    serde_json::from_value(with(changes)).expect("a readable config")
}

#[test]
fn inconsistent_configs_are_refused() {
    for (changes, message) in [
        (json!({"dims": 0}), "dims: expected 1 (sequences), 2 (images) or 3 (volumes), got 0"),
        (json!({"dims": 4}), "dims: expected 1 (sequences), 2 (images) or 3 (volumes), got 4"),
        (
            json!({"dims": 1, "use_spatial_transformer": true, "context_dim": 8}),
            "dims: expected 2 (images) with use_spatial_transformer, got 1",
        ),
        (json!({"in_channels": 0}), "in_channels: expected at least 1, got 0"),
        (json!({"out_channels": -4}), "out_channels: expected at least 1, got -4"),
        (json!({"num_res_blocks": 0}), "num_res_blocks: expected at least 1, got 0"),
        (json!({"model_channels": 0}), "model_channels: expected at least 1, got 0"),
        (
            json!({"model_channels": 48}),
            "model_channels: expected a multiple of 32, the groups of group norm, got 48",
        ),
        (json!({"channel_mult": []}), "channel_mult: expected one factor of at least 1 per level, got []"),
        (
            json!({"channel_mult": [1, 0]}),
            "channel_mult: expected one factor of at least 1 per level, got [1, 0]",
        ),
        (
            json!({"channel_mult": [2, 4]}),
            "channel_mult: expected 1 first, as the output layer has model_channels, got [2, 4]",
        ),
        (json!({"dropout": 1.0}), "dropout: expected a probability in [0, 1), got 1"),
        (json!({"dropout": -0.1}), "dropout: expected a probability in [0, 1), got -0.1"),
        (json!({"num_heads": -1}), "num_heads: expected num_heads or num_head_channels, got -1 for both"),
        (json!({"num_heads": 0}), "num_heads: expected at least 1, got 0"),
        (
            json!({"num_heads": 5}),
            "num_heads: expected a divisor of the 64 channels of an attention layer, got 5",
        ),
        (
            json!({"num_head_channels": 24}),
            "num_head_channels: expected a divisor of the 64 channels of an attention layer, got 24",
        ),
        (json!({"num_head_channels": 0}), "num_head_channels: expected at least 1, got 0"),
        (
            json!({"num_heads_upsample": 7}),
            "num_heads_upsample: expected a divisor of the 64 channels of an attention layer, got 7",
        ),
        (
            json!({"use_spatial_transformer": true}),
            "context_dim: expected a number with use_spatial_transformer, got none",
        ),
        (json!({"context_dim": 512}), "context_dim: expected none without use_spatial_transformer, got 512"),
        (
            json!({"use_spatial_transformer": true, "context_dim": 0}),
            "context_dim: expected at least 1, got 0",
        ),
        (
            json!({"use_spatial_transformer": true, "context_dim": 8, "transformer_depth": 0}),
            "transformer_depth: expected at least 1, got 0",
        ),
        (json!({"num_classes": 0}), "num_classes: expected at least 1, got 0"),
        (json!({"n_embed": 0}), "n_embed: expected at least 1, got 0"),
    ] {
        let config = unet(changes);
        let vs = VarStore::new(test_device());
        assert_eq!(Plan::new(&config).unwrap_err().to_string(), message);
        assert_eq!(UNet::new(&vs.root(), &config).unwrap_err().to_string(), message);
        assert!(vs.is_empty(), "a refused config creates no parameters");
    }
}

#[test]
fn inconsistent_encoder_configs_are_refused() {
    for (changes, message) in [
        (json!({"dims": 3}), "dims: expected 2 (images), got 3"),
        (json!({"pool": "attention"}), "num_head_channels: expected a number for pool attention, got -1"),
        (
            json!({"pool": "attention", "num_head_channels": 16}),
            "image_size: expected a size for pool attention, got none",
        ),
        (
            json!({"pool": "attention", "num_head_channels": 16, "image_size": 9}),
            "image_size: expected multiples of 2 for pool attention, got 9x9",
        ),
        (
            json!({"num_heads": 3}),
            "num_heads: expected a divisor of the 64 channels of an attention layer, got 3",
        ),
    ] {
        let config: EncoderUNetConfig = serde_json::from_value(with(changes)).unwrap();
        let vs = VarStore::new(test_device());
        assert_eq!(EncoderUNet::new(&vs.root(), &config).unwrap_err().to_string(), message);
    }
}

#[test]
fn an_attention_pool_takes_one_size() {
    for (pool, refused) in [("attention", true), ("spatial_v2", false)] {
        let changes = json!({"pool": pool, "num_head_channels": 16, "image_size": [8, 12]});
        let config: EncoderUNetConfig = serde_json::from_value(with(changes)).unwrap();
        let encoder = EncoderUNet::new(&VarStore::new(test_device()).root(), &config).unwrap();
        assert!(encoder.check_size([8, 12]).is_ok());
        let found = encoder.check_size([12, 8]).map_err(|error| error.to_string());
        let message = "latent: expected 8x12 (a classifier with pool attention), got 12x8";
        assert_eq!(found, if refused { Err(message.into()) } else { Ok(()) });
    }
}

#[test]
fn unreadable_configs_are_refused() {
    for (changes, message) in [
        (json!({"num_res_blockz": 2}), "unknown field `num_res_blockz`"),
        (json!({"context_dim": [512, 768]}), "expected one number"),
        (json!({"image_size": [1, 2, 3]}), "expected one number or two"),
        (json!({"context_dim": "512"}), "expected a number or a list of numbers"),
        (json!({"in_channels": null}), "expected i64"),
    ] {
        let error = serde_json::from_value::<UNetConfig>(with(changes)).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
    let error =
        serde_json::from_value::<EncoderUNetConfig>(with(json!({"pool": "mean"}))).unwrap_err().to_string();
    assert!(error.contains("unknown variant `mean`"), "{error}");
    let error = serde_yaml::from_str::<UNetConfig>("in_channels: 3\n").unwrap_err().to_string();
    assert!(error.contains("missing field `model_channels`"), "{error}");
}

#[test]
fn equivalent_notations_give_equal_configs() {
    let plain = unet(json!({"image_size": 8, "use_spatial_transformer": true, "context_dim": 512}));
    let lists = unet(json!({"image_size": [8, 8], "use_spatial_transformer": true, "context_dim": [512]}));
    assert_eq!(plain, lists);
    assert_eq!(unet(json!({})), unet(json!({"image_size": null, "context_dim": null, "use_fp16": false})));
    assert_eq!(unet(json!({"image_size": [8, 12]})).image_size, Some([8, 12]));
    let written = serde_yaml::to_string(&plain).unwrap();
    assert_eq!(serde_yaml::from_str::<UNetConfig>(&written).unwrap(), plain);
    assert!(Plan::new(&unet(json!({"use_fp16": true, "attention_resolutions": [2, 16]}))).is_ok());
}

fn built(changes: Value) -> UNet {
    let vs = VarStore::new(test_device());
    UNet::new(&vs.root(), &unet(changes)).expect("a valid config")
}

#[test]
fn latent_sizes_are_checked() {
    let unet = built(json!({"channel_mult": [1, 1, 1]}));
    assert_eq!(unet.factor(), 4);
    for size in [[4, 4], [8, 12], [64, 4]] {
        assert!(unet.check_size(size).is_ok());
    }
    for (size, message) in [
        ([10, 12], "got 10x12; try 8x12 or 12x12"),
        ([3, 9], "got 3x9; try 4x8 or 4x12"),
        ([0, 8], "got 0x8; try 4x8"),
        ([-3, 8], "got -3x8; try 4x8"),
    ] {
        let error = unet.check_size(size).unwrap_err().to_string();
        assert_eq!(error, format!("latent: expected height and width in multiples of 4, {message}"));
    }
}

#[test]
fn networks_are_send() {
    fn assert_send<T: Send>() {}
    assert_send::<UNet>();
    assert_send::<EncoderUNet>();
    assert_send::<ldm_unet::ConditioningCache>();
}

fn zeros(size: &[i64]) -> Tensor {
    Tensor::zeros(size, (Kind::Float, test_device()))
}

#[test]
#[should_panic(expected = "expected a label if and only if num_classes is set")]
fn an_unused_label_panics() {
    let label = Some(Tensor::from_slice(&[1_i64]).to_device(test_device()));
    built(json!({})).precompute(&Conditioning { label, ..Conditioning::default() });
}

#[test]
#[should_panic(expected = "expected no context, as the network has no transformer")]
fn an_unused_context_panics() {
    built(json!({}))
        .precompute(&Conditioning { context: Some(zeros(&[1, 2, 32])), ..Conditioning::default() });
}

#[test]
#[should_panic(expected = "expected a context of this many channels")]
fn a_missing_context_panics() {
    built(json!({"use_spatial_transformer": true, "context_dim": 8})).precompute(&Conditioning::default());
}

#[test]
#[should_panic(expected = "expected a context of context_dim channels")]
fn a_context_of_other_channels_panics() {
    let unet = built(json!({"use_spatial_transformer": true, "context_dim": 8}));
    unet.precompute(&Conditioning { context: Some(zeros(&[1, 2, 9])), ..Conditioning::default() });
}

#[test]
#[should_panic(expected = "expected in_channels channels of latent and concat together")]
fn an_unused_concat_panics() {
    let cond = Conditioning { concat: Some(zeros(&[1, 1, 8, 8])), ..Conditioning::default() };
    let t = Tensor::from_slice(&[1_i64]).to_device(test_device());
    let _ = built(json!({})).forward(&zeros(&[1, 3, 8, 8]), &t, &cond, false);
}
