//! ControlNets against diffusers (`golden/generate_control_net.py`).

use std::collections::BTreeMap;

use ldm_checkpoint::{Checkpoint, Shapes, save};
use ldm_core::Conditioning;
use ldm_core::device::test_device;
use ldm_testing::{Golden, assert_close, filled};
use ldm_unet::{
    ControlNet, ControlNetConfig, ControlResiduals, Plan, UNet, UNetConfig, control_net_diffusers_layout,
    diffusers_layout, from_diffusers,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

use crate::{golden, sha256};

#[derive(Deserialize)]
struct Case {
    seed: u64,
    unet: Saved,
    net: Saved,
}

#[derive(Deserialize)]
struct Saved {
    config: Value,
    shapes: Shapes,
}

#[derive(Deserialize)]
struct Official {
    config: Value,
    tensors: usize,
    shapes_sha256: String,
    names_sha256: String,
}

fn file() -> Golden {
    Golden::open(golden("control_net.safetensors"), test_device())
}

fn cases(file: &Golden) -> BTreeMap<String, Case> {
    serde_json::from_str(file.metadata("cases")).unwrap()
}

/// Writes the file that diffusers would have written.
fn written(saved: &Saved, seed: u64, folder: &tempfile::TempDir) -> Checkpoint {
    let path = folder.path().join("file");
    save(&path, &filled(&saved.shapes, seed), &BTreeMap::new()).unwrap();
    Checkpoint::open(&path).unwrap()
}

fn load(case: &Case) -> (UNet, ControlNet) {
    let folder = tempfile::tempdir().unwrap();
    let config = from_diffusers(&case.unet.config).unwrap();
    let mut vs = VarStore::new(test_device());
    let unet = UNet::new(&vs.root(), &config).unwrap();
    let layout = diffusers_layout(&config).unwrap();
    written(&case.unet, case.seed, &folder).into_native(&layout).load_into(&mut vs).unwrap();

    let config = ControlNetConfig::from_diffusers(&case.net.config).unwrap();
    let mut vs = VarStore::new(test_device());
    let net = ControlNet::new(&vs.root(), &config).unwrap();
    let layout = control_net_diffusers_layout(&config).unwrap();
    let file = written(&case.net, case.seed + 50, &folder).into_native(&layout);
    file.load_into(&mut vs).unwrap();
    // The sizes of the hint encoder are those of its weights.
    let read =
        ControlNetConfig::of(unet.config(), config.unet.in_channels).with_hint_encoder_of(&file.shapes());
    assert_eq!(ControlNetConfig { bgr: config.bgr, ..read.unwrap() }, config);
    (unet, net)
}

fn residuals(net: &ControlNet, get: &dyn Fn(&str) -> Tensor) -> ControlResiduals {
    let cond = Conditioning { context: Some(get("context")), ..Conditioning::default() };
    tch::no_grad(|| {
        let hint = net.encode_hint(&get("hint"));
        net.forward(&get("x"), &get("t"), &net.precompute(&cond), &hint)
    })
}

#[test]
fn residuals_and_controlled_unet_equal_diffusers() {
    let file = file();
    let all = cases(&file);
    assert_eq!(all.len(), 2);
    for (name, case) in &all {
        let (unet, net) = load(case);
        net.config().check_fits(unet.config()).unwrap();
        let get = |part: &str| file.get(&format!("{name}.{part}")).shallow_clone();
        let control = residuals(&net, &get).scaled(0.7);
        for (index, residual) in control.down.iter().enumerate() {
            let part = format!("down.{index}");
            assert_close(&format!("{name}: {part}"), residual, &get(&part), 1e-5);
        }
        assert!(!file.has(&format!("{name}.down.{}", control.down.len())));
        assert_close(&format!("{name}: middle"), &control.middle, &get("middle"), 1e-5);

        let cond = Conditioning { context: Some(get("context")), ..Conditioning::default() };
        let cond = unet.precompute(&cond);
        let run =
            |control| tch::no_grad(|| unet.forward_controlled(&get("x"), &get("t"), &cond, control, false));
        assert_close(name, &run(Some(&control)), &get("y"), 1e-5);
        assert!(!run(None).allclose(&get("y"), 1e-2, 1e-2, false), "{name}: residuals matter");
    }
}

#[test]
fn a_new_network_has_no_effect_and_residuals_add_up() {
    let config = ControlNetConfig {
        hint_widths: vec![4, 8],
        ..ControlNetConfig::of(&crate::diffusers::config_of(json!({})), 4)
    };
    let vs = VarStore::new(Device::Cpu);
    let net = ControlNet::new(&vs.root(), &config).unwrap();
    let zeros = |shape: &[i64]| Tensor::zeros(shape, (Kind::Float, Device::Cpu));
    let (x, t) = (zeros(&[2, 4, 8, 8]) + 1, zeros(&[2]));
    let hint = net.encode_hint(&(zeros(&[1, 3, 16, 16]) + 0.5));
    let none = net.forward(&x, &t, &net.precompute(&Conditioning::default()), &hint);
    let (down, middle) = (none.down.iter(), [&none.middle]);
    assert!(down.chain(middle).all(|residual| residual.abs().max().double_value(&[]) == 0.));
    let sum = ControlResiduals { down: vec![zeros(&[1]) + 1], middle: zeros(&[1]) + 2 }
        + ControlResiduals { down: vec![zeros(&[1]) + 3], middle: zeros(&[1]) + 4 };
    assert_eq!([&sum.down[0], &sum.middle].map(|sum| sum.double_value(&[0])), [4., 6.]);
}

#[test]
fn the_control_net_of_stable_diffusion_has_diffusers_names_and_shapes() {
    let official: Official = serde_json::from_str(file().metadata("official")).unwrap();
    let config = ControlNetConfig::from_diffusers(&official.config).unwrap();
    assert_eq!(config.hint_factor(), 8);
    let native: Shapes = Plan::control_net(&config).unwrap().parameters().into_iter().collect();
    let layout = control_net_diffusers_layout(&config).unwrap();
    let mapped = layout.mapped_shapes(&native);
    assert_eq!(mapped.len(), official.tensors);
    let digest = |lines: Vec<String>| {
        let mut lines: Vec<String> = lines.into_iter().map(|line| line + "\n").collect();
        lines.sort();
        sha256(&lines.concat())
    };
    let shapes = mapped.iter().map(|(key, shape)| format!("{key} {shape:?}")).collect();
    assert_eq!(digest(shapes), official.shapes_sha256, "names and shapes");
    let back = layout.keys.inverse();
    let table = native.keys().map(|key| format!("{} {key}", back.apply(key))).collect();
    assert_eq!(digest(table), official.names_sha256, "the table of diffusers' converter");

    // The sizes of lllyasviel's files are inferred from the U-Net's config and the shapes of the hint encoder.
    let unet: UNetConfig = UNetConfig { in_channels: 9, ..config.unet.clone() };
    let read = ControlNetConfig::of(&unet, 4).with_hint_encoder_of(&native).unwrap();
    assert_eq!(read, config);
    let text = Plan::control_net(&config).unwrap().to_string();
    assert!(text.contains("input_hint_block  3 -> 16 -> 32 -> 96 -> 256 -> 320"), "{text}");
}

#[test]
fn configs_that_do_not_fit_are_refused() {
    let config = cases(&file()).remove("three_levels").unwrap().net.config;
    let check = |key: &str, value: Value, expected: &str| {
        let mut config = config.clone();
        config[key] = value;
        let error = ControlNetConfig::from_diffusers(&config).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(
        "_class_name",
        json!("ControlNetUnionModel"),
        "expected ControlNetModel, got \"ControlNetUnionModel\"",
    );
    check("global_pool_conditions", json!(true), "`global_pool_conditions`: expected false, as shuffle");
    check("use_linear_projection", json!(true), "as in Stable Diffusion 2 and XL");
    check("addition_embed_type", json!("text_time"), "`addition_embed_type`");
    check("num_class_embeds", json!(3), "`num_class_embeds`: expected null, got 3");
    check("conditioning_embedding_out_channels", json!([]), "expected 1 to 31 positive numbers, got []");
    check("controlnet_conditioning_channel_order", json!("gbr"), "expected rgb or bgr, got \"gbr\"");

    let own = ControlNetConfig::from_diffusers(&config).unwrap();
    let unlike = |change: &dyn Fn(&mut UNetConfig)| {
        let mut other = own.unet.clone();
        change(&mut other);
        own.check_fits(&other).unwrap_err().to_string()
    };
    assert_eq!(
        unlike(&|unet| unet.context_dim = Some(768)),
        "context: expected 768 channels, as in the model's U-Net, got 24"
    );
    assert_eq!(
        unlike(&|unet| unet.channel_mult = vec![1, 2]),
        "blocks: expected channels [32, 32, 32, 64], as in the model's U-Net, got [32, 32, 32, 64, 64, 64]"
    );
    let none = ControlNetConfig::of(&own.unet, 4).with_hint_encoder_of(&Shapes::new());
    assert_eq!(none.unwrap_err().to_string(), "input_hint_block: expected convolutions, got none");
}
