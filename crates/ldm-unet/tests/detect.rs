//! U-Nets told from names and shapes alone.

#![allow(clippy::unwrap_used, reason = "clippy knows tests, not the functions beside them")]

use std::collections::BTreeMap;

use ldm_checkpoint::Shapes;
use ldm_unet::{Plan, UNetConfig, infer_config};
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Manifest {
    unets: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    params: UNetConfig,
}

fn shapes_of(config: &UNetConfig) -> Shapes {
    Plan::new(config).unwrap().parameters().into_iter().collect()
}

fn official() -> BTreeMap<String, UNetConfig> {
    let path = format!("{}/tests/golden/manifest.yaml", env!("CARGO_MANIFEST_DIR"));
    let manifest: Manifest = serde_yaml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    manifest.unets.into_iter().map(|(name, entry)| (name, entry.params)).collect()
}

#[test]
fn official_unets_are_recognized_with_their_heads() {
    let official = official();
    assert_eq!(official.len(), 20);
    for (name, config) in official {
        let got = infer_config(&shapes_of(&config)).unwrap();
        assert_eq!(Plan::new(&got).unwrap(), Plan::new(&config).unwrap(), "{name}");
        let size = match name.as_str() {
            // Latents of 64 and of 128 have been trained with one network.
            "semantic_synthesis256" | "semantic_synthesis512" => None,
            // The file says 32, and that it is unused.
            "sd-v1" => Some([64, 64]),
            _ => config.image_size,
        };
        assert_eq!(got.image_size, size, "{name}");
    }
}

#[test]
fn inpainting_models_are_the_model_they_came_from() {
    let config = UNetConfig { in_channels: 9, ..official().remove("sd-v1").unwrap() };
    let got = infer_config(&shapes_of(&config)).unwrap();
    assert_eq!((got.in_channels, got.num_heads, got.out_channels), (9, 8, 4));
}

/// What was told of a U-Net that is no published one.
fn told(config: &UNetConfig) -> String {
    infer_config(&shapes_of(config)).unwrap_err().to_string()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// All of it but the heads: the refusal names nothing but them, after the whole manifest was compared.
    #[test]
    fn any_unet_is_told_but_for_its_heads(
        levels in prop::collection::vec(1_i64..=3, 0..=3),
        res_blocks in 1_i64..=3,
        attention in prop::sample::subsequence(vec![1, 2, 4, 16], 0..=4),
        (scale_shift, updown, resample) in any::<(bool, bool, bool)>(),
        transformer in prop::option::of((1_i64..=2, prop::sample::select(vec![24_i64, 32]))),
        (classes, ids) in (prop::option::of(1_i64..5), prop::option::of(1_i64..5)),
    ) {
        let mult: Vec<i64> = [1].into_iter().chain(levels).collect();
        let config: UNetConfig = serde_json::from_value(json!({
            "in_channels": 3, "out_channels": 2, "model_channels": 32, "num_res_blocks": res_blocks,
            "attention_resolutions": attention, "channel_mult": mult, "num_heads": 1,
            "use_scale_shift_norm": scale_shift, "resblock_updown": updown, "conv_resample": resample,
            "num_classes": classes, "n_embed": ids, "use_spatial_transformer": transformer.is_some(),
            "transformer_depth": transformer.map_or(1, |each| each.0), "context_dim": transformer.map(|each| each.1),
        })).unwrap();
        prop_assert_eq!(told(&config), format!(
            "names and shapes do not tell the heads of a U-Net (`num_heads` or `num_head_channels`), and with model_channels 32 and channel_mult {mult:?} it is none of the published ones: it needs a config"
        ));
    }
}

#[track_caller]
fn check_refused(change: impl FnOnce(&mut Shapes), message: &str) {
    let config: Value = json!({
        "in_channels": 3, "out_channels": 3, "model_channels": 32, "num_res_blocks": 1, "attention_resolutions": [2],
        "channel_mult": [1, 2], "num_heads": 4,
    });
    let mut shapes = shapes_of(&serde_json::from_value(config).unwrap());
    change(&mut shapes);
    assert_eq!(infer_config(&shapes).unwrap_err().to_string(), message);
}

#[test]
fn other_names_are_refused() {
    check_refused(
        std::collections::BTreeMap::clear,
        "not the names of a U-Net: input_blocks.0.0.weight is missing",
    );
    check_refused(
        |shapes| shapes.retain(|name, _| !name.starts_with("output_blocks")),
        "not the names of a U-Net: output_blocks.0.0.in_layers.0.weight is missing",
    );
    check_refused(
        |shapes| shapes.retain(|name, _| !name.starts_with("output_blocks.3")),
        "not the names of a U-Net: 3 output blocks cannot be 2 levels",
    );
    check_refused(
        |shapes| drop(shapes.insert("input_blocks.3.0.out_layers.3.weight".into(), vec![40, 40, 3, 3])),
        "input_blocks.3.0.out_layers.3.weight: expected a multiple of the 32 channels of input_blocks.0.0, got: 40",
    );
    check_refused(
        |shapes| {
            shapes.insert("input_blocks.0.1.weight".into(), vec![1]);
            shapes.remove("out.0.bias");
            shapes.insert("time_embed.0.bias".into(), vec![]);
        },
        "nearly the names and shapes of a U-Net: 1 missing: out.0.bias; 1 unexpected: input_blocks.0.1.weight; 1 of another shape: time_embed.0.bias (model [128], file [])",
    );
    check_refused(
        |shapes| drop(shapes.insert("out.2.weight".into(), vec![])),
        "out.2.weight: expected a size along axis 0, got the shape: []",
    );
}
