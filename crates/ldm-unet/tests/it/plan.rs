//! Names and shapes of every official network against CompVis', without tensors; and of built networks against
//! their plans.

use std::collections::BTreeMap;

use ldm_core::device::test_device;
use ldm_unet::{EncoderUNet, EncoderUNetConfig, Plan, Pool, UNet, UNetConfig};
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::json;
use tch::nn::VarStore;

use crate::sha256;

#[derive(Deserialize)]
struct Manifest {
    unets: BTreeMap<String, Entry>,
    classifier: Entry,
}

#[derive(Deserialize)]
struct Entry {
    params: UNetConfig,
    tensors: usize,
    parameters: i64,
    sha256: String,
}

fn golden(name: &str) -> String {
    std::fs::read_to_string(crate::golden(name)).expect("a file of golden/")
}

fn manifest() -> Manifest {
    serde_yaml::from_str(&golden("manifest.yaml")).expect("the output of generate.py")
}

/// As `listing` of `generate.py`.
fn lines(plan: &Plan) -> String {
    let lines: Vec<_> = plan.parameters().iter().map(|(name, shape)| format!("{name} {shape:?}\n")).collect();
    lines.concat()
}

fn check(name: &str, plan: &Plan, entry: &Entry) {
    let parameters = plan.parameters();
    let total: i64 = parameters.iter().map(|(_, shape)| shape.iter().product::<i64>()).sum();
    assert_eq!(
        (parameters.len(), total),
        (entry.tensors, entry.parameters),
        "{name}: tensors and parameters"
    );
    assert_eq!(sha256(&lines(plan)), entry.sha256, "{name}: names, shapes and their order");
}

#[test]
fn official_unets_have_the_names_and_shapes_of_the_reference() {
    let manifest = manifest();
    assert_eq!(manifest.unets.len(), 20);
    for (name, entry) in &manifest.unets {
        check(name, &Plan::new(&entry.params).unwrap(), entry);
    }
}

#[test]
fn names_and_shapes_in_full() {
    let manifest = manifest();
    for name in ["sd-v1", "lsun_churches-ldm-kl-8"] {
        let got = lines(&Plan::new(&manifest.unets[name].params).unwrap());
        let want = golden(&format!("{name}.names.txt"));
        for (got, want) in got.lines().zip(want.lines()) {
            assert_eq!(got, want, "{name}");
        }
        assert_eq!(got.lines().count(), want.lines().count(), "{name}");
    }
}

/// Numbers of parameters in the papers and CompVis' README.
#[test]
fn parameter_counts_are_the_published_ones() {
    let manifest = manifest();
    for (name, parameters) in [
        ("celebahq-ldm-vq-4", 274_056_163),
        ("lsun_churches-ldm-kl-8", 294_966_916),
        ("cin256", 394_984_196),
        ("cin256-v2", 400_920_579),
        ("txt2img-1p4B-eval", 872_300_484),
        ("text2img256", 403_623_939),
        ("layout2img-openimages256", 246_277_379),
        ("bsr_sr", 113_622_563),
        ("semantic_synthesis256", 215_229_315),
        ("inpainting_big", 387_245_827),
        ("rdm-768x768", 1_335_480_400),
        ("sd-v1", 859_520_964),
    ] {
        assert_eq!(manifest.unets[name].parameters, parameters, "{name}");
    }
}

#[test]
fn the_classifier_of_cin256_has_the_names_and_shapes_of_the_reference() {
    let entry = manifest().classifier;
    let config = EncoderUNetConfig::for_classifier(&entry.params, 1000, Pool::Attention);
    check("classifier", &Plan::encoder(&config).unwrap(), &entry);
}

#[test]
fn the_plan_of_stable_diffusion_v1() {
    let plan = Plan::new(&manifest().unets["sd-v1"].params).unwrap().to_string();
    for (got, want) in plan.lines().zip(golden("sd-v1.plan.txt").lines()) {
        assert_eq!(got, want);
    }
    assert_eq!(plan, golden("sd-v1.plan.txt"));
}

fn assert_listed(plan: &Plan, vs: &VarStore) {
    let listed: BTreeMap<_, _> = plan.parameters().into_iter().collect();
    assert_eq!(listed.len(), plan.parameters().len(), "no name twice");
    let built: BTreeMap<_, _> =
        vs.variables().into_iter().map(|(name, variable)| (name, variable.size())).collect();
    assert_eq!(listed, built);
}

#[test]
fn encoders_have_the_parameters_of_their_plans() {
    for pool in ["adaptive", "attention", "spatial", "spatial_v2"] {
        let config: EncoderUNetConfig = serde_json::from_value(json!({
            "image_size": 8, "in_channels": 3, "out_channels": 4, "model_channels": 32, "num_res_blocks": 1,
            "attention_resolutions": [1], "channel_mult": [2, 1], "num_head_channels": 16, "pool": pool,
        }))
        .unwrap();
        let vs = VarStore::new(test_device());
        EncoderUNet::new(&vs.root(), &config).unwrap();
        assert_listed(&Plan::encoder(&config).unwrap(), &vs);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Layers create parameters, the plan lists them: both must agree.
    #[test]
    fn unets_have_the_parameters_of_their_plans(
        levels in prop::collection::vec(1_i64..=2, 0..=2),
        res_blocks in 1_i64..=2,
        attention in prop::sample::subsequence(vec![1, 2, 4, 16], 0..=4),
        heads in prop::sample::select(vec![(4_i64, -1_i64), (-1, 8), (1, 32)]),
        (scale_shift, updown, resample, legacy, use_checkpoint) in any::<(bool, bool, bool, bool, bool)>(),
        transformer in prop::option::of((1_i64..=2, prop::sample::select(vec![24_i64, 32]))),
        (classes, ids) in (prop::option::of(1_i64..5), prop::option::of(1_i64..5)),
    ) {
        let mult: Vec<i64> = [1].into_iter().chain(levels).collect();
        let config: UNetConfig = serde_json::from_value(json!({
            "in_channels": 3, "out_channels": 2, "model_channels": 32, "num_res_blocks": res_blocks,
            "attention_resolutions": attention, "channel_mult": mult, "num_heads": heads.0,
            "num_head_channels": heads.1, "use_scale_shift_norm": scale_shift, "resblock_updown": updown,
            "conv_resample": resample, "legacy": legacy, "use_checkpoint": use_checkpoint, "num_classes": classes, "n_embed": ids,
            "use_spatial_transformer": transformer.is_some(), "transformer_depth": transformer.map_or(1, |each| each.0),
            "context_dim": transformer.map(|each| each.1),
        })).unwrap();
        let vs = VarStore::new(test_device());
        UNet::new(&vs.root(), &config).unwrap();
        assert_listed(&Plan::new(&config).unwrap(), &vs);
    }
}
