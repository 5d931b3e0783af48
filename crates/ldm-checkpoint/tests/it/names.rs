//! Names: scopes, EMA weights, and other implementations' names.

use ldm_checkpoint::{Checkpoint, KeyMap};
use proptest::prelude::*;

use crate::{assert_same_bits, golden};

fn names(checkpoint: &Checkpoint) -> Vec<&str> {
    checkpoint.names().collect()
}

fn lightning() -> Checkpoint {
    Checkpoint::open(golden("lightning.ckpt")).unwrap()
}

#[test]
fn scope_only_and_without() {
    let model = lightning().scope("model.");
    assert_eq!(
        names(&model),
        ["conv.bias", "conv.weight", "norm.bias", "norm.weight", "out.bias", "out.weight"]
    );
    assert_eq!(
        names(&lightning().only(&["model.norm", "steps"])),
        ["model.norm.bias", "model.norm.weight", "steps"]
    );
    assert_eq!(names(&lightning().without(&["model", "betas"])), ["steps"]);
}

#[test]
fn ema_replaces_weights() {
    assert!(lightning().has_ema());
    assert!(!lightning().without(&["model_ema.conv", "model_ema.norm", "model_ema.out"]).has_ema());
    let plain = lightning();
    let ema = lightning().with_ema_weights(&[]);
    assert!(names(&ema).iter().all(|name| !name.starts_with("model_ema.")));
    assert_eq!(ema.names().count(), 8);
    for name in ema.names() {
        // The generator's EMA weights are the weights plus 1.
        let value = plain.tensor(name).unwrap();
        let want = if name.starts_with("model.") { value + 1. } else { value };
        assert_same_bits(name, &ema.tensor(name).unwrap(), &want);
    }
}

#[test]
fn ema_is_found_by_the_models_own_names() {
    // A file of EMA weights alone.
    let alone = lightning().without(&["model."]);
    assert_eq!(names(&alone.clone().with_ema_weights(&[])), ["betas", "steps"]);
    let native = ["model.conv.weight", "model.absent.weight", "other.weight"].map(str::to_owned);
    assert_eq!(names(&alone.with_ema_weights(&native)), ["betas", "model.conv.weight", "steps"]);
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

/// A few of diffusers' names for an autoencoder.
fn diffusers() -> KeyMap {
    KeyMap::new(
        pairs(&[
            ("encoder.mid_block.resnets.1", "encoder.mid.block_2"),
            ("encoder.mid_block.attentions.0", "encoder.mid.attn_1"),
            ("encoder.conv_norm_out", "encoder.norm_out"),
            ("encoder.down_blocks.1.resnets.0", "encoder.down.1.block.0"),
            ("encoder.down_blocks.1.resnets.10", "encoder.down.1.block.10"),
            ("encoder", "encoder"),
        ]),
        pairs(&[
            ("conv_shortcut", "nin_shortcut"),
            ("to_out.0", "proj_out"),
            ("to_q", "q"),
            ("group_norm", "norm"),
        ]),
    )
}

#[test]
fn mapped_names_become_native_and_back() {
    let cases = [
        (
            "encoder.down_blocks.1.resnets.0.conv_shortcut.weight",
            "encoder.down.1.block.0.nin_shortcut.weight",
        ),
        ("encoder.down_blocks.1.resnets.10.norm1.bias", "encoder.down.1.block.10.norm1.bias"),
        ("encoder.mid_block.attentions.0.to_out.0.bias", "encoder.mid.attn_1.proj_out.bias"),
        ("encoder.mid_block.attentions.0.to_q.weight", "encoder.mid.attn_1.q.weight"),
        ("encoder.conv_norm_out.weight", "encoder.norm_out.weight"),
        ("encoder.conv_in.weight", "encoder.conv_in.weight"),
        ("quant_conv.weight", "quant_conv.weight"),
        ("encoder.mid_block.resnets.1", "encoder.mid.block_2"),
    ];
    let (map, inverse) = (diffusers(), diffusers().inverse());
    for (mapped, native) in cases {
        assert_eq!(map.apply(mapped), native);
        assert_eq!(inverse.apply(native), mapped);
    }
    assert_eq!(inverse.inverse(), map);
    // Only whole words match, and a leaf only below a module.
    assert_eq!(map.apply("encoderx.to_q.weight"), "encoderx.to_q.weight");
    assert_eq!(map.apply("decoder.to_q.weight"), "decoder.to_q.weight");
    let everywhere = KeyMap::new(pairs(&[("", "")]), pairs(&[("gamma", "weight")]));
    assert_eq!(everywhere.apply("gamma"), "weight");
    let below = KeyMap::new(pairs(&[("", "model")]), Vec::new());
    assert_eq!((below.apply("w"), below.inverse().apply("model.w")), ("model.w".into(), "w".into()));
}

#[test]
fn rename_keeps_both_of_two_names_that_collide() {
    let map = KeyMap::new(pairs(&[("model.conv", "model.norm")]), Vec::new());
    let four = ["model.conv.bias", "model.conv.weight", "model.norm.bias", "model.norm.weight"];
    assert_eq!(names(&lightning().only(&["model.conv", "model.norm"]).rename(&map)), four);
    let map = KeyMap::new(
        pairs(&[("model.conv", "one"), ("model.norm", "one"), ("model.out", "model.norm")]),
        Vec::new(),
    );
    let renamed = lightning().only(&["model."]).rename(&map);
    let six = [
        "model.norm.bias",
        "model.norm.bias'",
        "model.norm.weight",
        "model.norm.weight'",
        "one.bias",
        "one.weight",
    ];
    assert_eq!(names(&renamed), six);
}

#[test]
fn rename_swaps_names() {
    let map = KeyMap::new(pairs(&[("model.conv", "model.norm"), ("model.norm", "model.conv")]), Vec::new());
    let renamed = lightning().rename(&map);
    assert_eq!(renamed.info("model.norm.weight"), lightning().info("model.conv.weight"));
    assert_eq!(renamed.info("model.conv.weight"), lightning().info("model.norm.weight"));
}

proptest! {
    #[test]
    fn a_map_of_distinct_words_is_a_bijection(
        modules in prop::collection::btree_set("[a-d](\\.[a-d0-9]){0,3}", 1..8),
        leaves in prop::collection::btree_set("[x-z](\\.[x-z]){0,1}", 0..4),
        rest in "[x-z](\\.[x-z]){0,2}\\.weight",
    ) {
        // Native names are reversed mapped ones, so that prefixes nest differently on the two sides.
        let reversed = |name: &String| name.split('.').rev().collect::<Vec<_>>().join("_");
        let pair = |names: &std::collections::BTreeSet<String>| {
            names.iter().map(|name| (name.clone(), reversed(name))).collect::<Vec<_>>()
        };
        let map = KeyMap::new(pair(&modules), pair(&leaves));
        for module in &modules {
            let mapped = format!("{module}.{rest}");
            prop_assert_eq!(map.inverse().apply(&map.apply(&mapped)), mapped);
        }
    }
}
