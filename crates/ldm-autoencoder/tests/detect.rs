//! First stages told from names and shapes alone.

#![allow(clippy::unwrap_used, reason = "clippy knows tests, not the functions beside them")]

use ldm_autoencoder::{Autoencoder, FirstStageConfig, infer_config};
use ldm_checkpoint::Shapes;
use proptest::prelude::*;
use serde_json::{Value, json};
use tch::Device;
use tch::nn::VarStore;

fn shapes_of(config: &FirstStageConfig) -> Shapes {
    let vs = VarStore::new(Device::Cpu);
    Autoencoder::new(&vs.root(), config).unwrap();
    vs.variables().into_iter().map(|(name, tensor)| (name, tensor.size())).collect()
}

/// What decides the network.
fn network(config: &FirstStageConfig) -> Value {
    let mut json = serde_json::to_value(config).unwrap();
    let params = json["params"].as_object_mut().unwrap();
    params.retain(|key, _| ["embed_dim", "n_embed", "ddconfig", "colorize_nlabels"].contains(&key.as_str()));
    json
}

#[test]
fn official_first_stages_are_recognized() {
    let text = include_str!("golden/manifest.txt");
    for section in text.split("\n[").skip(1) {
        let (name, lines) = section.split_once(']').unwrap();
        let shapes: Shapes = lines
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(' '))
            .map(|(key, sizes)| {
                (key.to_owned(), sizes.split(',').map(|size| size.parse().unwrap()).collect())
            })
            .collect();
        let path = format!("{}/../../configs/models/autoencoder/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
        let mut file: serde_yaml::Value =
            serde_yaml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        file["model"].as_mapping_mut().unwrap().remove("base_learning_rate");
        let config: FirstStageConfig = serde_yaml::from_value(file["model"].clone()).unwrap();
        assert_eq!(network(&infer_config(&shapes).unwrap()), network(&config), "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_first_stage_is_recognized(
        vq in prop::option::of(1_i64..9),
        mult in prop::collection::vec(1_i64..=2, 1..=3),
        blocks in 1_i64..=2,
        attention in prop::sample::subsequence(vec![256, 128, 64], 0..=3),
        kind in prop::sample::select(vec!["vanilla", "linear", "none"]),
        (conv, labels) in (any::<bool>(), prop::option::of(1_i64..4)),
        (z, embed, channels_in, channels_out) in (1_i64..5, 1_i64..5, 1_i64..5, 1_i64..5),
    ) {
        let levels = mult.len();
        let attention: Vec<i64> = attention.into_iter().filter(|each| *each >= 256 >> (levels - 1)).collect();
        let mut config = json!({ "target": if vq.is_some() { "vq" } else { "kl" }, "params": {
            "embed_dim": embed, "colorize_nlabels": labels, "ddconfig": {
                "double_z": vq.is_none(), "z_channels": z, "resolution": 256, "in_channels": channels_in,
                "out_ch": channels_out, "ch": 32, "ch_mult": mult, "num_res_blocks": blocks,
                "attn_resolutions": if kind == "none" { vec![] } else { attention }, "attn_type": kind,
                // A single level resamples nothing.
                "resamp_with_conv": conv || levels == 1,
            },
        }});
        if let Some(entries) = vq {
            config["params"]["n_embed"] = entries.into();
        }
        let config: FirstStageConfig = serde_json::from_value(config).unwrap();
        prop_assert_eq!(network(&infer_config(&shapes_of(&config)).unwrap()), network(&config));
    }
}

#[track_caller]
fn check_refused(change: impl FnOnce(&mut Shapes), message: &str) {
    let config = serde_json::from_value(json!({"target": "kl", "params": {"embed_dim": 4, "ddconfig": {
        "z_channels": 4, "resolution": 64, "in_channels": 3, "out_ch": 3, "ch": 32, "ch_mult": [1, 2],
        "num_res_blocks": 1, "attn_resolutions": [64],
    }}}));
    let mut shapes = shapes_of(&config.unwrap());
    change(&mut shapes);
    assert_eq!(infer_config(&shapes).unwrap_err().to_string(), message);
}

#[test]
fn what_cannot_be_told_is_refused() {
    check_refused(
        std::collections::BTreeMap::clear,
        "not the names of a KL or VQ autoencoder: post_quant_conv.weight is missing",
    );
    check_refused(
        |shapes| drop(shapes.insert("quantize.used".into(), vec![4])),
        "quantize.used is there: `remap` and its file must be given by a config",
    );
    check_refused(
        |shapes| shapes.retain(|name, _| !name.starts_with("decoder.up.0.attn")),
        "encoder and decoder attend at other levels, which depends on the resolution: it must be given by a config",
    );
    check_refused(
        |shapes| drop(shapes.insert("encoder.conv_in.weight".into(), vec![0, 3, 3, 3])),
        "encoder.conv_in.weight: expected a convolution's weight, got the shape: [0, 3, 3, 3]",
    );
    check_refused(
        |shapes| drop(shapes.insert("encoder.down.1.block.0.conv1.weight".into(), vec![48, 32, 3, 3])),
        "encoder.down.1.block.0.conv1.weight: expected a multiple of the 32 channels of encoder.conv_in, got: 48",
    );
    check_refused(
        |shapes| shapes.retain(|name, _| !name.starts_with("encoder.down.0.block")),
        "not the names of a KL or VQ autoencoder: encoder.down.0.block.0.conv1.weight is missing",
    );
}
