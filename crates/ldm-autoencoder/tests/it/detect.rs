//! Configs inferred from names and shapes alone.

use ldm_autoencoder::{FirstStageConfig, infer_config};
use ldm_checkpoint::Shapes;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{official_path, read_model, shapes_of};

/// The part of a config that defines the network.
fn network(config: &FirstStageConfig) -> Value {
    let mut json = serde_json::to_value(config).unwrap();
    let params = json["params"].as_object_mut().unwrap();
    params.retain(|key, _| ["embed_dim", "n_embed", "ddconfig", "colorize_nlabels"].contains(&key.as_str()));
    json
}

#[test]
fn official_first_stages_are_inferred() {
    let text = include_str!("../golden/manifest.txt");
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
        let config = read_model(&official_path(name));
        assert_eq!(network(&infer_config(&shapes).unwrap()), network(&config), "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_first_stage_is_inferred(
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
fn ambiguous_weights_are_refused() {
    check_refused(
        std::collections::BTreeMap::clear,
        "expected the names of a KL or VQ autoencoder, got none called post_quant_conv.weight",
    );
    check_refused(
        |shapes| drop(shapes.insert("quantize.used".into(), vec![4])),
        "quantize.used: expected no `remap` in weights without a config; try a config that names its file",
    );
    check_refused(
        |shapes| shapes.retain(|name, _| !name.starts_with("decoder.up.0.attn")),
        "decoder.up: expected attention at the same levels as in the encoder, got others, which depend on the resolution; try a config",
    );
    check_refused(
        |shapes| drop(shapes.insert("encoder.conv_in.weight".into(), vec![0, 3, 3, 3])),
        "encoder.conv_in.weight: expected the weight of a convolution, got shape [0, 3, 3, 3]",
    );
    check_refused(
        |shapes| drop(shapes.insert("encoder.down.1.block.0.conv1.weight".into(), vec![48, 32, 3, 3])),
        "encoder.down.1.block.0.conv1.weight: expected a multiple of the 32 channels of encoder.conv_in, got 48",
    );
    check_refused(
        |shapes| shapes.retain(|name, _| !name.starts_with("encoder.down.0.block")),
        "expected the names of a KL or VQ autoencoder, got none called encoder.down.0.block.0.conv1.weight",
    );
}
