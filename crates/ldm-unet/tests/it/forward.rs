//! Outputs against CompVis' own networks (`golden/generate.py`).

use std::collections::BTreeMap;

use ldm_core::Conditioning;
use ldm_core::device::test_device;
use ldm_testing::{Golden, assert_close, fill_weights, relative_l2};
use ldm_unet::{EncoderUNet, EncoderUNetConfig, UNet, UNetConfig};
use serde::Deserialize;
use serde_json::json;
use tch::nn::VarStore;
use tch::{Kind, Tensor};

#[derive(Deserialize)]
pub(crate) struct Case<C> {
    seed: u64,
    config: C,
}

pub(crate) fn golden(name: &str) -> Golden {
    Golden::open(crate::golden(&format!("{name}.safetensors")), test_device())
}

pub(crate) fn cases<C: serde::de::DeserializeOwned>(golden: &Golden) -> BTreeMap<String, Case<C>> {
    serde_json::from_str(golden.metadata("cases")).expect("the cases of generate.py")
}

pub(crate) fn build(case: &Case<UNetConfig>) -> (VarStore, UNet) {
    let vs = VarStore::new(test_device());
    let unet = UNet::new(&vs.root(), &case.config).expect("a valid config");
    fill_weights(&vs, case.seed);
    (vs, unet)
}

fn optional(golden: &Golden, case: &str, input: &str) -> Option<Tensor> {
    let name = format!("{case}.{input}");
    golden.has(&name).then(|| golden.get(&name).shallow_clone())
}

pub(crate) fn conditioning(golden: &Golden, case: &str) -> Conditioning {
    let slot = |name| optional(golden, case, name);
    Conditioning { concat: slot("concat"), context: slot("context"), label: slot("label") }
}

#[test]
fn unet_equals_compvis() {
    let golden = golden("forward");
    let all = cases::<UNetConfig>(&golden);
    assert!(all.len() >= 13, "the cases of generate.py");
    for (name, case) in &all {
        let (_vs, unet) = build(case);
        let (x, t) = (golden.get(&format!("{name}.x")), golden.get(&format!("{name}.t")));
        let y = tch::no_grad(|| unet.forward(x, t, &conditioning(&golden, name), false));
        assert_close(name, &y, golden.get(&format!("{name}.y")), 1e-5);
    }
}

/// `golden/generate_dims.py` makes the file.
#[test]
fn unets_of_sequences_and_volumes_equal_compvis() {
    let golden = golden("dims");
    let all = cases::<UNetConfig>(&golden);
    assert_eq!(all.len(), 6, "the cases of generate_dims.py");
    for (name, case) in &all {
        let (vs, unet) = build(case);
        let plan = ldm_unet::Plan::new(&case.config).unwrap();
        for (parameter, shape) in plan.parameters() {
            assert_eq!(vs.variables()[&parameter].size(), shape, "{name}: {parameter}");
        }
        let (x, t) = (golden.get(&format!("{name}.x")), golden.get(&format!("{name}.t")));
        let y = tch::no_grad(|| unet.forward(x, t, &conditioning(&golden, name), false));
        assert_close(name, &y, golden.get(&format!("{name}.y")), 1e-5);
    }
}

#[test]
fn unet_is_the_same_in_channels_last() {
    let golden = golden("forward");
    for (name, case) in &cases::<UNetConfig>(&golden) {
        let (vs, unet) = build(case);
        ldm_libtorch::channels_last(&vs);
        let (x, t) = (golden.get(&format!("{name}.x")), golden.get(&format!("{name}.t")));
        let y = tch::no_grad(|| unet.forward(x, t, &conditioning(&golden, name), false));
        assert_close(name, &y, golden.get(&format!("{name}.y")), 1e-5);
        assert!(ldm_libtorch::is_channels_last(&y), "{name}: the output has the format of the weights");
    }
}

/// Fields that do not affect names and shapes must affect the output, or the cases above would not test them.
#[test]
fn other_values_give_other_outputs() {
    let golden = golden("forward");
    let all = cases::<UNetConfig>(&golden);
    for (name, field, value) in [
        ("heads", "num_heads", json!(2)),
        ("heads", "use_new_attention_order", json!(true)),
        ("head_channels_new_order", "use_new_attention_order", json!(false)),
        ("head_channels_new_order", "num_head_channels", json!(8)),
        ("heads_upsample", "num_heads_upsample", json!(4)),
        ("heads_upsample", "legacy", json!(false)),
        ("heads_upsample_not_legacy", "legacy", json!(true)),
        ("transformer", "num_heads", json!(4)),
        ("transformer_without_context", "num_head_channels", json!(16)),
        ("hybrid", "num_head_channels", json!(96)),
    ] {
        let mut config = serde_json::to_value(&all[name].config).unwrap();
        assert_ne!(config[field], value, "{name}: {field}");
        config[field] = value;
        let changed = Case { seed: all[name].seed, config: serde_json::from_value(config).unwrap() };
        let (_vs, unet) = build(&changed);
        let (x, t) = (golden.get(&format!("{name}.x")), golden.get(&format!("{name}.t")));
        let y = tch::no_grad(|| unet.forward(x, t, &conditioning(&golden, name), false));
        let distance = relative_l2(&y, golden.get(&format!("{name}.y")));
        assert!(distance > 1e-4, "{name}: {field} changed the output by {distance:.1e}");
    }
}

#[test]
fn a_conditioning_cache_serves_many_steps() {
    let golden = golden("forward");
    let all = cases::<UNetConfig>(&golden);
    for name in ["transformer", "hybrid", "label", "heads"] {
        let (_vs, unet) = build(&all[name]);
        let (x, t) = (golden.get(&format!("{name}.x")), golden.get(&format!("{name}.t")));
        let cached = unet.precompute(&conditioning(&golden, name));
        let _ = tch::no_grad(|| unet.forward_cached(&x.zeros_like(), t, &cached, false));
        let y = tch::no_grad(|| unet.forward_cached(x, t, &cached, false));
        assert_close(name, &y, golden.get(&format!("{name}.y")), 1e-5);
    }
}

#[test]
fn weights_of_other_dtypes_work() {
    let golden = golden("forward");
    let all = cases::<UNetConfig>(&golden);
    for name in ["scale_shift_updown", "transformer", "label", "concat_and_unreached_attention"] {
        // bf16 has 8 bits of precision, f16 has 11; over some thirty layers.
        for (kind, tolerance) in [(Kind::Double, 1e-5), (Kind::BFloat16, 5e-2), (Kind::Half, 1e-2)] {
            let (mut vs, unet) = build(&all[name]);
            vs.set_kind(kind);
            let (x, t) = (golden.get(&format!("{name}.x")), golden.get(&format!("{name}.t")));
            let y = tch::no_grad(|| unet.forward(x, t, &conditioning(&golden, name), false));
            assert_eq!(y.kind(), x.kind());
            assert_close(&format!("{name} in {kind:?}"), &y, golden.get(&format!("{name}.y")), tolerance);
        }
    }
}

#[test]
fn encoder_equals_compvis() {
    let golden = golden("encoder");
    let all = cases::<EncoderUNetConfig>(&golden);
    assert_eq!(all.len(), 4, "one case per pool");
    for (name, case) in &all {
        let vs = VarStore::new(test_device());
        let encoder = EncoderUNet::new(&vs.root(), &case.config).unwrap();
        fill_weights(&vs, case.seed);
        let (x, t) = (golden.get(&format!("{name}.x")), golden.get(&format!("{name}.t")));
        for last in [false, true] {
            if last {
                ldm_libtorch::channels_last(&vs);
            }
            let y = tch::no_grad(|| encoder.forward(x, t, false));
            assert_close(name, &y, golden.get(&format!("{name}.y")), 1e-5);

            // The gradient of classifier guidance.
            let x = x.copy().set_requires_grad(true);
            let class = golden.get(&format!("{name}.class")).unsqueeze(1);
            let log_p = encoder.forward(&x, t, false).log_softmax(-1, None::<Kind>).gather(1, &class, false);
            let found = Tensor::run_backward(&[log_p.sum(None::<Kind>)], &[&x], false, false);
            let what = format!("{name}: gradient");
            assert_close(&what, &found[0], golden.get(&format!("{name}.gradient")), 1e-4);
        }
    }
}

#[test]
fn the_output_of_a_new_network_is_zero() {
    let golden = golden("forward");
    for (name, case) in &cases::<UNetConfig>(&golden) {
        if case.config.n_embed.is_some() {
            continue; // the predictor of ids is initialized at random
        }
        let vs = VarStore::new(test_device());
        let unet = UNet::new(&vs.root(), &case.config).unwrap();
        let (x, t) = (golden.get(&format!("{name}.x")), golden.get(&format!("{name}.t")));
        let y = tch::no_grad(|| unet.forward(x, t, &conditioning(&golden, name), false));
        assert_eq!(y.abs().max().double_value(&[]), 0., "{name}");
        assert_eq!(y.size()[1], case.config.out_channels);
    }
}
