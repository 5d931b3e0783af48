//! `ldm bench`, and its FLOP counts against torch's counter.

use std::path::Path;

use ldm_autoencoder::build;
use ldm_core::Conditioning;
use ldm_core::nn::skip_init;
use ldm_libtorch::{channels_last, count_operations, to_channels_last};
use ldm_pipelines::{ModelConfig, ModelFile};
use ldm_testing::Sandbox;
use ldm_unet::UNet;
use serde_json::Value;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

use crate::LDM;

const FIRST_STAGE: &str = "
model:
  target: kl
  params:
    embed_dim: 4
    ddconfig: {double_z: true, z_channels: 4, resolution: 16, in_channels: 3, out_ch: 3, ch: 32, ch_mult: [1, 1],
               num_res_blocks: 1, attn_resolutions: []}
";

const DIFFUSION: &str = "
model:
  target: latent_diffusion
  params:
    image_size: 8
    channels: 4
    unet_config:
      target: unet
      params: {in_channels: 4, out_channels: 4, model_channels: 32, attention_resolutions: [2], num_res_blocks: 1,
               channel_mult: [1, 2], num_heads: 2, use_spatial_transformer: true, context_dim: 16}
    first_stage_config:
      target: kl
      params:
        embed_dim: 4
        ddconfig: {double_z: true, z_channels: 4, resolution: 16, in_channels: 3, out_ch: 3, ch: 32, ch_mult: [1, 1],
                   num_res_blocks: 1, attn_resolutions: []}
    cond_stage_config: {target: class, params: {embed_dim: 16, n_classes: 10}}
";

const PIXELS: &str = "
model:
  target: latent_diffusion
  params:
    image_size: 16
    channels: 3
    unet_config:
      target: unet
      params: {in_channels: 3, out_channels: 3, model_channels: 32, attention_resolutions: [], num_res_blocks: 1,
               channel_mult: [1, 2], num_heads: 2}
    first_stage_config: {target: identity}
    cond_stage_config: __is_unconditional__
";

fn sandbox() -> Sandbox {
    Sandbox::new(LDM, &[("first.yaml", FIRST_STAGE), ("diffusion.yaml", DIFFUSION), ("pixels.yaml", PIXELS)])
}

fn bench(sandbox: &Sandbox, words: &[&str]) -> Value {
    let output = sandbox.ok(&[&["bench", "--json", "--repeats", "2", "--device", "cpu"], words].concat());
    serde_json::from_str(&output).unwrap()
}

#[track_caller]
fn number(document: &Value, name: &str) -> f64 {
    document[name].as_f64().unwrap_or_else(|| panic!("{name}: {document}"))
}

fn stages(document: &Value) -> Vec<&str> {
    document["stages"].as_array().unwrap().iter().map(|stage| stage["stage"].as_str().unwrap()).collect()
}

/// Checks the fields that every stage has.
#[track_caller]
fn check(document: &Value) {
    let machine = &document["machine"];
    let product = number(machine, "matrix_product_flop_per_second");
    assert!(product > 1e8 && number(machine, "copy_bytes_per_second") > 1e7, "{machine}");
    for stage in document["stages"].as_array().unwrap() {
        let (median, flop) = (number(stage, "median_seconds"), number(stage, "flop"));
        assert!(median >= number(stage, "min_seconds") && number(stage, "min_seconds") > 0., "{stage}");
        assert_eq!(stage["repeats"], 2);
        let batch = stage["shape"][0].as_f64().unwrap();
        for (name, expected) in [
            ("images_per_second", batch / median),
            ("flop_per_second", flop / median),
            ("of_matrix_product", flop / median / product),
        ] {
            assert!((number(stage, name) / expected - 1.).abs() < 1e-9, "{name}: {stage}");
        }
        assert_eq!(number(stage, "weight_bytes"), 4. * number(stage, "parameters"), "f32: {stage}");
        assert!(number(stage, "roof_seconds") >= 0.999 * flop / product, "{stage}");
        assert!(number(stage, "peak_memory") > number(stage, "weight_bytes"), "{stage}");
        let operations = stage["operations"].as_array().unwrap();
        for name in ["flop", "bytes"] {
            let sum: f64 = operations.iter().map(|each| number(each, name)).sum();
            assert_eq!(sum, number(stage, name), "{name}");
        }
        let sum = |of: &str| {
            let convolutions =
                operations.iter().filter(|each| each["name"].as_str().unwrap().contains("conv"));
            convolutions.map(|each| number(each, of)).sum::<f64>()
        };
        assert!(sum("seconds") > 0. && sum("flop") > 0.2 * flop, "{stage}");
    }
}

#[test]
fn a_config_is_timed_stage_by_stage() {
    let sandbox = sandbox();
    let all = bench(&sandbox, &["--config", "diffusion.yaml", "--steps", "4"]);
    check(&all);
    assert_eq!(stages(&all), ["encode", "decode", "unet", "sample"]);
    assert_eq!(
        (&all["weights"], &all["device"], &all["dtype"]),
        (&"fresh".into(), &"cpu".into(), &"f32".into())
    );
    let stage = |index: usize| &all["stages"][index];
    assert_eq!(stage(2)["shape"], serde_json::json!([1, 4, 8, 8]));
    assert_eq!((&stage(0)["steps_per_second"], stage(3)["shape"][3].as_i64()), (&Value::Null, Some(16)));
    let steps = number(stage(3), "steps_per_second") / number(stage(3), "images_per_second");
    assert!((steps - 4.).abs() < 1e-9, "{steps} steps an image");
    // Four forward passes and a decoding; keys and values of the context are computed once for all four.
    let (unet, decode) = (number(stage(2), "flop"), number(stage(1), "flop"));
    let sample = number(stage(3), "flop");
    assert!(sample > 3.9 * unet + decode && sample <= 4. * unet + decode, "{sample} {unet} {decode}");

    let two = bench(&sandbox, &["unet", "--config", "diffusion.yaml", "--batch-size", "2"]);
    check(&two);
    assert_eq!((stages(&two), number(&two["stages"][0], "flop")), (vec!["unet"], 2. * unet));
    let wide = ["autoencoder", "--config", "diffusion.yaml", "--height", "16", "--width", "32"];
    let wide = bench(&sandbox, &wide);
    check(&wide);
    assert_eq!(wide["stages"][1]["shape"], serde_json::json!([1, 4, 8, 16]));
    let half = bench(&sandbox, &["unet", "--config", "diffusion.yaml", "--dtype", "bf16"]);
    assert_eq!(number(&half["stages"][0], "weight_bytes"), 2. * number(&half["stages"][0], "parameters"));
    assert_eq!(number(&half["stages"][0], "flop"), unet);
    let alone = bench(&sandbox, &["--config", "first.yaml"]);
    assert_eq!(number(&alone["stages"][1], "flop"), decode);
    assert_eq!(stages(&alone), ["encode", "decode"]);
    assert_eq!(stages(&bench(&sandbox, &["--config", "pixels.yaml", "--steps", "2"])), ["unet", "sample"]);
}

#[test]
fn a_training_step_is_timed() {
    let sandbox = sandbox();
    let forward = bench(&sandbox, &["unet", "--config", "diffusion.yaml"]);
    let train = bench(&sandbox, &["train", "--config", "diffusion.yaml"]);
    check(&train);
    // Forward and both halves of the backward pass, and the frozen first stage's forward.
    assert!(number(&train["stages"][0], "flop") > 2.9 * number(&forward["stages"][0], "flop"), "{train}");
    let names: Vec<&str> = train["stages"][0]["operations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|each| each["name"].as_str().unwrap())
        .collect();
    for part in ["convolution_backward", "_fused_adamw_", "_foreach_lerp_"] {
        assert!(names.contains(&part), "{part} in {names:?}");
    }
    let first = bench(&sandbox, &["train", "--config", "first.yaml", "--batch-size", "2"]);
    check(&first);
    assert_eq!(first["stages"][0]["shape"], serde_json::json!([2, 3, 16, 16]));
}

#[test]
fn the_table_has_machine_stages_and_operations() {
    let sandbox = sandbox();
    let words = [
        "bench",
        "autoencoder",
        "--config",
        "first.yaml",
        "--repeats",
        "1",
        "--operations",
        "--kernels",
        "libtorch",
    ];
    let (table, progress) = sandbox.output(&words);
    let lines: Vec<&str> = table.lines().collect();
    assert!(
        lines[0].starts_with("first.yaml: ")
            && lines[0].contains(" GFLOP/s (")
            && lines[0].contains("), copy "),
        "{table}"
    );
    assert!(lines[1].starts_with("stage ") && lines[2].starts_with("encode  1x3x16x16 "), "{table}");
    assert!(lines.iter().any(|line| line.starts_with("conv2d ") && line.ends_with("arithmetic")), "{table}");
    assert_eq!(progress, "encode 1x3x16x16\ndecode 1x4x8x8\n");
}

#[test]
fn stages_that_a_model_lacks_are_refused() {
    let sandbox = sandbox();
    let fails = |words: &[&str], code: i32, expected: &str| {
        sandbox.err(&[&["bench"], words].concat(), code, expected);
    };
    let no_unet =
        "error: first.yaml: expected a diffusion model, got a first stage alone; try autoencoder or train";
    fails(&["unet", "--config", "first.yaml"], 1, no_unet);
    fails(&["sample", "--config", "first.yaml"], 1, no_unet);
    fails(
        &["autoencoder", "--config", "pixels.yaml"],
        1,
        "error: pixels.yaml: expected a first stage, got a diffusion model of pixels",
    );
    fails(&["unet"], 2, "--model <MODEL>");
    fails(&["decoder", "--config", "first.yaml"], 2, "invalid value 'decoder'");
    fails(&["--config", "first.yaml", "--batch-size", "0"], 2, "--batch-size");
    fails(&["--config", "first.yaml", "--repeats", "0"], 2, "--repeats");
    fails(&["--config", "first.yaml", "--dtype", "f8"], 1, "dtype: expected f32, bf16 or f16");
    fails(&["--config", "none.yaml"], 1, "none.yaml");
    for stage in ["autoencoder", "train"] {
        let odd = [stage, "--config", "first.yaml", "--height", "16", "--width", "17"];
        fails(&odd, 1, "expected height and width in multiples of 2");
    }
    let odd = ["unet", "--config", "diffusion.yaml", "--height", "18", "--width", "18"];
    fails(&odd, 1, "expected height and width in multiples of 2, got 9x9");
}

/// A config of the repository.
fn config(name: &str) -> ModelConfig {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/models").join(name);
    ModelFile::read(path, &[]).unwrap().model
}

fn flop(body: impl FnOnce() -> Tensor) -> i64 {
    let (_, seen) = tch::no_grad(|| count_operations(body));
    seen.iter().map(|each| each.flop).sum()
}

fn parameters(vs: &VarStore, parts: &[&str]) -> usize {
    let variables = vs.variables();
    let of = variables.iter().filter(|(name, _)| parts.iter().any(|part| name.starts_with(part)));
    of.map(|(_, tensor)| tensor.numel()).sum()
}

/// The FLOP and parameter counts equal those of diffusers, counted by docs/tools/performance/flop.py.
#[test]
fn flop_counts_equal_those_of_diffusers() {
    let golden: Value = serde_json::from_str(include_str!("../golden/flop.json")).unwrap();
    let zeros = |size: &[i64]| Tensor::zeros(size, (Kind::Float, Device::Cpu));
    let check = |name: &str, flop: i64, parameters: usize| {
        assert_eq!(golden[name], serde_json::json!({"flop": flop, "parameters": parameters}), "{name}");
    };
    // Only shapes matter: the weights need no initialization.
    for (name, file, context) in [
        ("stable-diffusion", "stable-diffusion/v1.yaml", [1, 77, 768]),
        ("imagenet", "latent-diffusion/imagenet.yaml", [1, 1, 512]),
    ] {
        let ModelConfig::LatentDiffusion(config) = config(file) else { panic!("{file}") };
        let vs = VarStore::new(Device::Cpu);
        let unet = skip_init(|| UNet::new(&vs.root(), config.unet())).unwrap();
        channels_last(&vs);
        let cond = Conditioning { context: Some(zeros(&context)), ..Conditioning::default() };
        let (x, t) = (zeros(&[1, config.channels, 64, 64]), Tensor::from_slice(&[500_i64]));
        check(name, flop(|| unet.forward(&x, &t, &cond, false)), parameters(&vs, &[""]));
    }
    let vs = VarStore::new(Device::Cpu);
    let first_stage = config("autoencoder/kl-f8.yaml").first_stage().unwrap();
    let model = skip_init(|| build(&vs.root(), &first_stage)).unwrap();
    channels_last(&vs);
    let z = to_channels_last(&zeros(&[1, 4, 32, 32]));
    let counted = flop(|| model.decode(&z));
    check("decoder-32", counted, parameters(&vs, &["decoder.", "post_quant_conv."]));
}
