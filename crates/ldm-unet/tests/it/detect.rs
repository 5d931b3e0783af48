//! Configs inferred from names and shapes alone.

use std::collections::BTreeMap;

use ldm_checkpoint::Shapes;
use ldm_unet::{Plan, UNetConfig, infer_config};
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{golden, shapes_of};

#[derive(Deserialize)]
struct Manifest {
    unets: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    params: UNetConfig,
}

fn official() -> BTreeMap<String, UNetConfig> {
    let text = std::fs::read_to_string(golden("manifest.yaml")).unwrap();
    let manifest: Manifest = serde_yaml::from_str(&text).unwrap();
    manifest.unets.into_iter().map(|(name, entry)| (name, entry.params)).collect()
}

#[test]
fn official_unets_are_inferred_with_their_heads() {
    let official = official();
    assert_eq!(official.len(), 20);
    for (name, config) in official {
        let got = infer_config(&shapes_of(&config)).unwrap();
        assert_eq!(Plan::new(&got).unwrap(), Plan::new(&config).unwrap(), "{name}");
        let size = match name.as_str() {
            // One network was trained on latents of 64 and of 128.
            "semantic_synthesis256" | "semantic_synthesis512" => None,
            // The file has 32, marked as unused.
            "sd-v1" => Some([64, 64]),
            _ => config.image_size,
        };
        assert_eq!(got.image_size, size, "{name}");
    }
}

#[test]
fn inpainting_models_have_the_heads_of_their_base_model() {
    let config = UNetConfig { in_channels: 9, ..official().remove("sd-v1").unwrap() };
    let got = infer_config(&shapes_of(&config)).unwrap();
    assert_eq!((got.in_channels, got.num_heads, got.out_channels), (9, 8, 4));
}

/// The error about a U-Net that is not published.
fn refusal(config: &UNetConfig) -> String {
    infer_config(&shapes_of(config)).unwrap_err().to_string()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// Everything but the heads: the error names only them, after all names and shapes were compared.
    #[test]
    fn any_unet_is_inferred_except_its_heads(
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
        prop_assert_eq!(refusal(&config), format!(
            "num_heads: expected a published U-Net, as shapes do not show its heads, got model_channels 32 and channel_mult {mult:?}; try a config"
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
        "expected the names of a U-Net, got none called input_blocks.0.0.weight",
    );
    check_refused(
        |shapes| shapes.retain(|name, _| !name.starts_with("output_blocks")),
        "expected the names of a U-Net, got none called output_blocks.0.0.in_layers.0.weight",
    );
    check_refused(
        |shapes| shapes.retain(|name, _| !name.starts_with("output_blocks.3")),
        "output_blocks: expected a multiple of 2 levels, at least 2 blocks each, got 3 blocks",
    );
    check_refused(
        |shapes| drop(shapes.insert("input_blocks.3.0.out_layers.3.weight".into(), vec![40, 40, 3, 3])),
        "input_blocks.3.0.out_layers.3.weight: expected a multiple of the 32 channels of input_blocks.0.0, got 40",
    );
    check_refused(
        |shapes| {
            shapes.insert("input_blocks.0.1.weight".into(), vec![1]);
            shapes.remove("out.0.bias");
            shapes.insert("time_embed.0.bias".into(), vec![]);
        },
        "expected the names and shapes of a U-Net, got 1 missing: out.0.bias; 1 unexpected: input_blocks.0.1.weight; 1 of another shape: time_embed.0.bias (model [128], file [])",
    );
    check_refused(
        |shapes| drop(shapes.insert("out.2.weight".into(), vec![])),
        "out.2.weight: expected a size along axis 0, got shape []",
    );
}
