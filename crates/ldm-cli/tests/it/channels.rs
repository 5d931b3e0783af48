//! First stages of other images than RGB, codebook ids, and diffusion in pixels, by the commands.

use std::path::Path;

use ldm_checkpoint::Checkpoint;
use ldm_core::image;
use ldm_testing::{Sandbox, tiny};
use tch::{Device, Kind, Tensor};

use crate::LDM;

const IN: &str = "model.params.ddconfig.in_channels";
const OUT: &str = "model.params.ddconfig.out_ch";

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new(LDM, &[("first.yaml", tiny::FIRST_STAGE)]);
    for channels in 1..=4 {
        let values = Tensor::arange(channels * 256, (Kind::Float, Device::Cpu));
        let pixels = (values * 0.37).sin().view([channels, 16, 16]);
        std::fs::create_dir_all(sandbox.path(&format!("set{channels}"))).unwrap();
        let path = sandbox.path(&format!("set{channels}/a.png"));
        image::write_png(path, &pixels, &[]).unwrap();
    }
    sandbox
}

/// Trains for two steps with `overrides`.
fn train(sandbox: &Sandbox, run: &str, overrides: &[&str]) {
    let steps = ["train", "first.yaml", "--run", run, "train.steps=2", "train.checkpoint_every=2"];
    sandbox.ok(&[&steps[..], overrides].concat());
}

fn channels_of(path: &Path) -> u8 {
    ::image::open(path).unwrap().color().channel_count()
}

#[test]
fn gray_images_pass_through_every_command_of_a_first_stage() {
    let sandbox = sandbox();
    train(&sandbox, "gray", &[&format!("{IN}=1"), &format!("{OUT}=1")]);
    let weights = "gray/model/model.safetensors";
    // Without the config, the channels are inferred.
    std::fs::copy(sandbox.path(weights), sandbox.path("gray.safetensors")).unwrap();
    for model in ["gray", "gray.safetensors"] {
        for (index, set) in ["set1/a.png", "set3/a.png", "set4/a.png"].into_iter().enumerate() {
            let out = format!("{model}-{index}");
            sandbox.ok(&["reconstruct", set, "--model", model, "--out", &out]);
            assert_eq!(channels_of(&sandbox.path(&out).join("00000.png")), 1);
            // A grid is for looking at.
            assert_eq!(channels_of(&sandbox.path(&out).join("grid.png")), 3);
        }
    }
    sandbox.ok(&["encode", "set1/a.png", "--model", "gray", "--out", "z.safetensors", "--tile", "8"]);
    sandbox.ok(&["decode", "z.safetensors", "--model", "gray", "--out", "decoded", "--save-pixels", "p.st"]);
    let pixels = Checkpoint::open(sandbox.path("p.st")).unwrap().tensor("pixels").unwrap();
    assert_eq!(pixels.size(), [1, 1, 16, 16]);
    assert_eq!(channels_of(&sandbox.path("decoded/00000.png")), 1);
}

#[test]
fn gray_is_measured_as_rgb_and_alpha_is_refused_by_name() {
    let sandbox = sandbox();
    train(&sandbox, "gray", &[&format!("{IN}=1"), &format!("{OUT}=1")]);
    let eval = |model: &str| {
        ["eval", "reconstruction", "scenes", "--size", "16", "--model", model, "--num-images", "4"]
            .map(str::to_owned)
    };
    let args = eval("gray");
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    sandbox.ok(&[&args[..], &["--out", "rec"]].concat());
    let set = "data.params.train={target: images, params: {path: set4, alpha: true}}";
    train(&sandbox, "rgba", &[&format!("{IN}=4"), &format!("{OUT}=4"), set, "data.params.batch_size=1"]);
    sandbox.ok(&["reconstruct", "set4/a.png", "--model", "rgba", "--out", "back"]);
    assert_eq!(channels_of(&sandbox.path("back/00000.png")), 4);
    let args = eval("rgba");
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    sandbox.err(
        &args,
        1,
        "expected gray or RGB images, since LPIPS and FID have no alpha channel, got 4 channels",
    );
}

#[test]
fn first_stages_that_do_not_fit_images_are_refused_before_a_run_exists() {
    let sandbox = sandbox();
    let refused = |overrides: &[&str], expected: &str| {
        sandbox.err(&[&["train", "first.yaml", "--run", "refused"][..], overrides].concat(), 1, expected);
    };
    refused(&[&format!("{OUT}=1")], "model.params.ddconfig.out_ch: expected in_channels, 3, got 1");
    refused(
        &[&format!("{IN}=12"), &format!("{OUT}=12")],
        "model.params.ddconfig.in_channels: expected 1 (gray), 2",
    );
    refused(&[&format!("{IN}=4"), &format!("{OUT}=4")], "try alpha: true in the params of the dataset");
}

#[test]
fn codebook_ids_are_written_and_decoded() {
    let sandbox = sandbox();
    let vq = ["model.target=vq", "model.params.n_embed=16", "model.params.ddconfig.double_z=false"];
    train(&sandbox, "vq", &vq);
    sandbox.ok(&["encode", "set3/a.png", "--model", "vq", "--out", "z.safetensors"]);
    sandbox.ok(&["encode", "set3/a.png", "--model", "vq", "--out", "ids.safetensors", "--ids"]);
    let ids = Checkpoint::open(sandbox.path("ids.safetensors")).unwrap().tensor("ids").unwrap();
    assert_eq!((ids.size(), ids.kind()), (vec![1, 8, 8], Kind::Int64));
    for (file, out, more) in
        [("z", "latents", None), ("ids", "ids", None), ("z", "raw", Some("--no-quantize"))]
    {
        let file = format!("{file}.safetensors");
        let args = ["decode", &file, "--model", "vq", "--out", out];
        sandbox.ok(&[&args[..], more.as_slice()].concat());
    }
    assert_eq!(sandbox.pixels("latents/00000.png"), sandbox.pixels("ids/00000.png"));
    assert_ne!(sandbox.pixels("latents/00000.png"), sandbox.pixels("raw/00000.png"));
    let beyond = [("ids".to_owned(), Tensor::full([1, 8, 8], 16, (Kind::Int64, Device::Cpu)))];
    ldm_checkpoint::save(sandbox.path("beyond.safetensors"), &beyond, &std::collections::BTreeMap::new())
        .unwrap();
    sandbox.err(&["decode", "beyond.safetensors", "--model", "vq"], 1, "ids: expected 0 to 15, got 16");
    train(&sandbox, "kl", &[]);
    let args = ["encode", "set3/a.png", "--model", "kl", "--out", "none.safetensors", "--ids"];
    sandbox.err(&args, 1, "ids: expected a VQ first stage, got one without a codebook");
}

#[test]
fn label_maps_are_read_and_shown_in_colors() {
    let sandbox = sandbox();
    train(
        &sandbox,
        "maps",
        &["model.params.image_key=segmentation", &format!("{IN}=21"), &format!("{OUT}=21")],
    );
    let labels = ::image::GrayImage::from_fn(16, 16, |x, y| ::image::Luma([((x + y) % 21) as u8]));
    labels.save(sandbox.path("map.png")).unwrap();
    let line = sandbox.ok(&["reconstruct", "map.png", "--model", "maps", "--out", "back", "--json"]);
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert!((0. ..=100.).contains(&line["accuracy"].as_f64().unwrap()), "{line}");
    assert_eq!(channels_of(&sandbox.path("back/00000.png")), 3);
    ::image::GrayImage::from_pixel(16, 16, ::image::Luma([21])).save(sandbox.path("beyond.png")).unwrap();
    sandbox.err(&["reconstruct", "beyond.png", "--model", "maps"], 1, "expected labels from 0 to 20, got 21");
    sandbox.err(
        &["eval", "reconstruction", "scenes", "--size", "16", "--model", "maps"],
        1,
        "first stage: expected one of images, got one of maps of 21 labels",
    );
}

const PIXELS: &str = "
model:
  target: ldm.models.diffusion.ddpm.DDPM
  params:
    image_size: 16
    channels: 1
    timesteps: 20
    unet_config:
      target: unet
      params: {in_channels: 1, out_channels: 1, model_channels: 32, attention_resolutions: [], num_res_blocks: 1,
               channel_mult: [1], num_heads: 1}
data:
  target: data_module
  params: {batch_size: 4, train: {target: scenes, params: {size: 16, objects: [1, 1], count: 16}}}
train: {steps: 2, learning_rate: 1.0e-3, samples: {count: 2, steps: 2}}
";

#[test]
fn pixels_are_trained_and_sampled_with_a_temperature() {
    let sandbox = Sandbox::new(LDM, &[("ddpm.yaml", PIXELS)]);
    sandbox.ok(&["train", "ddpm.yaml", "--run", "run"]);
    let sample = |out: &str, more: &[&str]| {
        sandbox.ok(&[&["sample", "--model", "run", "--out", out, "--sampler", "ddpm"][..], more].concat());
        sandbox.pixels(&format!("{out}/00000.png"))
    };
    let plain = sample("plain", &[]);
    assert_eq!(channels_of(&sandbox.path("plain/00000.png")), 1);
    let cold = sample("cold", &["--temperature", "0.5", "--noise-dropout", "0.2"]);
    assert_ne!(plain, cold);
    let text = sandbox.ok(&["inspect", "cold/00000.png"]);
    assert!(text.contains("Temperature: 0.5, Noise dropout: 0.2"), "{text}");
    let refused = |more: &[&str], expected: &str| {
        sandbox.err(&[&["sample", "--model", "run", "--steps", "2"][..], more].concat(), 1, expected);
    };
    refused(
        &["--temperature", "0.5"],
        "temperature and noise dropout: expected a sampler that adds noise, got ddim",
    );
    refused(
        &["--quantize-denoised"],
        "quantize denoised: expected a model on a VQ first stage, got one without",
    );
}

const PAIR: &str = "
model:
  target: latent_diffusion
  params:
    image_size: 16
    channels: 3
    timesteps: 20
    conditioning_key: hybrid
    cond_stage_trainable: true
    unet_config:
      target: unet
      params: {in_channels: 5, out_channels: 3, model_channels: 32, attention_resolutions: [1], num_res_blocks: 1,
               channel_mult: [1], num_heads: 1, use_spatial_transformer: true, context_dim: 16}
    first_stage_config: {target: identity}
    cond_stage_config:
      target: hybrid
      params:
        c_concat_config: {target: spatial, params: {n_stages: 0, in_channels: 21, out_channels: 2}}
        c_crossattn_config: {target: class, params: {embed_dim: 16, n_classes: 21, null_class: 20}}
data:
  target: data_module
  params: {batch_size: 4, train: {target: scenes, params: {size: 16, objects: [1, 1], count: 16}}}
train: {steps: 2, learning_rate: 1.0e-3, conditioning_dropout: 0.1, samples: {count: 2, steps: 2}}
";

#[test]
fn a_map_and_a_class_are_trained_and_sampled() {
    let sandbox = Sandbox::new(LDM, &[("pair.yaml", PAIR)]);
    sandbox.ok(&["train", "pair.yaml", "--run", "run"]);
    ::image::GrayImage::from_fn(16, 16, |x, _| ::image::Luma([(x % 21) as u8]))
        .save(sandbox.path("map.png"))
        .unwrap();
    let sample = ["sample", "--model", "run", "--steps", "2"];
    let map = ["--class", "3", "--image", "map.png", "-n", "2", "--out", "out", "--guidance-scale", "2"];
    sandbox.ok(&[&sample[..], &map].concat());
    assert_ne!(sandbox.pixels("out/00000.png"), sandbox.pixels("out/00001.png"));
    let refused = |more: &[&str], expected: &str| sandbox.err(&[&sample[..], more].concat(), 1, expected);
    refused(
        &["--class", "3"],
        "--image: expected a semantic map, which the model is conditioned on, got none",
    );
    refused(&["--image", "map.png"], "--class: expected ");
}
