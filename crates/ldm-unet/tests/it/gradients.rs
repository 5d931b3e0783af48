//! Gradients against CompVis' own networks, and gradient checkpointing.
//!
//! Dropout and the initialization of parameters draw from libtorch's global generators: tests run one at a time.

use std::collections::BTreeMap;
use std::sync::Mutex;

use ldm_core::Conditioning;
use ldm_core::device::test_device;
use ldm_libtorch::{channels_last, to_channels_last};
use ldm_testing::{Golden, assert_close, fill_weights, relative_l2};
use ldm_unet::{EncoderUNet, EncoderUNetConfig, UNet, UNetConfig};
use serde::Deserialize;
use serde_json::json;
use tch::nn::VarStore;
use tch::{Kind, Tensor};

static GENERATOR: Mutex<()> = Mutex::new(());

#[derive(Deserialize)]
pub(crate) struct Case {
    seed: u64,
    config: UNetConfig,
}

/// The output, and gradients of the inputs and of every parameter, of sum(y · w).
pub(crate) struct Run {
    pub(crate) y: Tensor,
    pub(crate) inputs: BTreeMap<&'static str, Tensor>,
    pub(crate) params: BTreeMap<String, Tensor>,
}

fn run(golden: &Golden, name: &str, case: &Case, train: bool) -> Run {
    run_in(golden, name, case, train, false)
}

/// [`run`], in channels_last if `last`.
pub(crate) fn run_in(golden: &Golden, name: &str, case: &Case, train: bool, last: bool) -> Run {
    let vs = VarStore::new(test_device());
    let unet = UNet::new(&vs.root(), &case.config).expect("a valid config");
    fill_weights(&vs, case.seed);
    if last {
        channels_last(&vs);
    }
    let get = |input: &str| golden.get(&format!("{name}.{input}"));
    let leaf = |input: &'static str| {
        let has = golden.has(&format!("{name}.{input}"));
        let of = |x: &Tensor| if last && x.dim() == 4 { to_channels_last(x) } else { x.shallow_clone() };
        has.then(|| of(get(input)).copy().set_requires_grad(true))
    };
    let (x, context) = (leaf("x").expect("every case has a latent"), leaf("context"));
    let label = golden.has(&format!("{name}.label")).then(|| get("label").shallow_clone());
    let cond = Conditioning {
        context: context.as_ref().map(Tensor::shallow_clone),
        label,
        ..Conditioning::default()
    };
    ldm_libtorch::set_seed(case.seed);
    let y = unet.forward(&x, get("t"), &cond, train);
    (&y * get("w")).sum(Kind::Float).backward();
    let mut inputs = BTreeMap::from([("x", x.grad())]);
    inputs.extend(context.map(|context| ("context", context.grad())));
    let params = vs.variables().into_iter().map(|(name, variable)| (name, variable.grad())).collect();
    Run { y: y.detach(), inputs, params }
}

pub(crate) fn open() -> (Golden, BTreeMap<String, Case>) {
    let golden = Golden::open(crate::golden("gradients.safetensors"), test_device());
    let cases = serde_json::from_str(golden.metadata("cases")).expect("the cases of generate.py");
    (golden, cases)
}

fn check_against_reference(train: bool) {
    let _guard = GENERATOR.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mode = if train { "train" } else { "eval" };
    let (golden, cases) = open();
    let cases = cases.into_iter().filter(|(name, _)| golden.has(&format!("{name}.{mode}.y")));
    let cases: Vec<_> = cases.collect();
    assert_eq!(cases.len(), if train { 1 } else { 2 }, "the cases of generate.py");
    for (name, mut case) in cases {
        for use_checkpoint in [false, true] {
            case.config.use_checkpoint = use_checkpoint;
            let run = run(&golden, &name, &case, train);
            let what = format!("{name}, {mode}, use_checkpoint {use_checkpoint}");
            assert_close(&format!("{what}: y"), &run.y, golden.get(&format!("{name}.{mode}.y")), 1e-5);
            for (input, grad) in &run.inputs {
                let want = golden.get(&format!("{name}.{mode}.inputs.{input}"));
                assert_close(&format!("{what}: {input}"), grad, want, 1e-5);
            }
            let wanted = golden.scope(&format!("{name}.{mode}.grad."));
            assert!(wanted.len() >= 8);
            for (param, want) in wanted {
                assert_close(&format!("{what}: {param}"), &run.params[&param], &want, 1e-5);
            }
        }
    }
}

#[test]
fn gradients_equal_compvis() {
    check_against_reference(false);
}

/// CompVis' dropout comes from the CPU generator; on another device the same seed drops other values.
#[test]
fn gradients_with_dropout_equal_compvis() {
    if !test_device().is_cuda() {
        check_against_reference(true);
    }
}

#[test]
fn checkpointing_does_not_change_gradients() {
    let _guard = GENERATOR.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (golden, cases) = open();
    for (name, mut case) in cases {
        let plain = run(&golden, &name, &case, true);
        case.config.use_checkpoint = true;
        let again = run(&golden, &name, &case, true);
        assert_close(&name, &again.y, &plain.y, 1e-6);
        assert_eq!(plain.params.len(), again.params.len());
        for (param, want) in &plain.params {
            assert!(
                want.defined() && want.abs().max().double_value(&[]) > 0.,
                "{name}: no gradient of {param}"
            );
            assert_close(&format!("{name}: {param}"), &again.params[param], want, 1e-6);
        }
        for (input, want) in &plain.inputs {
            assert_close(&format!("{name}: {input}"), &again.inputs[input], want, 1e-6);
        }
        // Dropout is on: another seed must give another output.
        case.seed += 1;
        let reseeded = run(&golden, &name, &case, true);
        assert!(relative_l2(&reseeded.y, &plain.y) > 1e-2);
    }
}

/// Mixed precision as in training: bf16 products, f32 weights.
#[test]
fn autocast_applies_to_checkpointed_blocks() {
    let _guard = GENERATOR.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (golden, cases) = open();
    for (name, mut case) in cases {
        let full = run(&golden, &name, &case, false);
        let wide = run(&golden, &name, &case, true);
        let _autocast = ldm_libtorch::autocast(test_device(), Kind::BFloat16);
        let plain = run(&golden, &name, &case, true);
        case.config.use_checkpoint = true;
        let again = run(&golden, &name, &case, true);
        assert_close(&name, &again.y, &plain.y, 1e-6);
        for (param, want) in &plain.params {
            assert_eq!(want.kind(), Kind::Float);
            // A checkpointed block returns one bf16 gradient of its input, another one returns that of each branch: the sums
            // round differently, depending on the CPU. Both are equally close to the gradient in f32.
            let far = |run: &Run| relative_l2(&run.params[param], &wide.params[param]);
            assert!(
                far(&again) <= 1.5 * far(&plain) + 1e-3,
                "{name}: {param}: {} {}",
                far(&again),
                far(&plain)
            );
            assert!(far(&plain) < 5e-2, "{name}: {param}: {}", far(&plain));
        }
        let half = run(&golden, &name, &case, false);
        assert_close(&name, &half.y, &full.y, 3e-2);
        assert!(relative_l2(&half.y, &full.y) > 1e-4, "{name}: bf16 makes a difference");
    }
}

/// CompVis' checkpoint function fails here: it detaches every input, None too.
#[test]
fn a_transformer_without_context_can_be_checkpointed() {
    let _guard = GENERATOR.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut gradients = Vec::new();
    for use_checkpoint in [false, true] {
        let config: UNetConfig = serde_json::from_value(json!({
            "in_channels": 3, "out_channels": 3, "model_channels": 32, "num_res_blocks": 1, "channel_mult": [1],
            "attention_resolutions": [1], "num_heads": 2, "use_spatial_transformer": true, "context_dim": 32,
            "use_checkpoint": use_checkpoint, "dropout": 0.5,
        }))
        .unwrap();
        let vs = VarStore::new(test_device());
        let unet = UNet::new(&vs.root(), &config).unwrap();
        fill_weights(&vs, 1);
        let x = Tensor::ones([2, 3, 4, 4], (Kind::Float, test_device()));
        let t = Tensor::from_slice(&[3_i64, 5]).to_device(test_device());
        ldm_libtorch::set_seed(5);
        unet.forward(&x, &t, &Conditioning::default(), true).square().sum(Kind::Float).backward();
        let to_k = "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight";
        gradients.push(vs.variables()[to_k].grad());
    }
    assert!(gradients[0].abs().max().double_value(&[]) > 0.);
    assert_close("to_k", &gradients[1], &gradients[0], 1e-6);
}

#[test]
fn the_encoder_can_be_checkpointed() {
    let _guard = GENERATOR.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut gradients = Vec::new();
    for use_checkpoint in [false, true] {
        let config: EncoderUNetConfig = serde_json::from_value(json!({
            "in_channels": 3, "out_channels": 4, "model_channels": 32, "num_res_blocks": 1, "channel_mult": [1, 2],
            "attention_resolutions": [1], "num_heads": 2, "use_checkpoint": use_checkpoint, "dropout": 0.5,
        }))
        .unwrap();
        let vs = VarStore::new(test_device());
        let encoder = EncoderUNet::new(&vs.root(), &config).unwrap();
        fill_weights(&vs, 1);
        let x = Tensor::ones([2, 3, 4, 4], (Kind::Float, test_device())).set_requires_grad(true);
        let t = Tensor::from_slice(&[3_i64, 5]).to_device(test_device());
        ldm_libtorch::set_seed(5);
        // Classifier guidance takes the gradient with respect to the latent.
        encoder.forward(&x, &t, true).log_softmax(-1, None::<Kind>).select(1, 0).sum(Kind::Float).backward();
        gradients.push(x.grad());
    }
    assert!(gradients[0].abs().max().double_value(&[]) > 0.);
    assert_close("x", &gradients[1], &gradients[0], 1e-6);
}
