//! `--lora`: images and converted models with a merged LoRA, and errors.

use std::collections::BTreeMap;
use std::path::Path;

use ldm_checkpoint::{Checkpoint, save};
use ldm_testing::{Sandbox, assert_close};
use tch::{Device, Kind, Tensor};

use crate::LDM;

pub(crate) const MODEL: &str = "
model:
  target: latent_diffusion
  params:
    image_size: 16
    channels: 3
    cond_stage_trainable: true
    unet_config:
      target: unet
      params: {in_channels: 3, out_channels: 3, model_channels: 32, attention_resolutions: [1], num_res_blocks: 1,
               channel_mult: [1], num_heads: 2, use_spatial_transformer: true, context_dim: 16}
    first_stage_config: {target: identity}
    cond_stage_config: {target: class, params: {embed_dim: 16, n_classes: 20}}
data:
  target: data_module
  params:
    batch_size: 4
    train: {target: scenes, params: {size: 16, objects: [1, 1], count: 8}}
train: {steps: 1, learning_rate: 1.0e-3, samples: {count: 0}}
";

/// Latents of one sample of the model with these LoRAs.
fn sampled(sandbox: &Sandbox, model: &str, loras: &[&str]) -> Tensor {
    let (out, latents) = (tempfile::tempdir_in(sandbox.work()).unwrap(), sandbox.path("latents.safetensors"));
    let folder = out.path().join("images");
    let mut args = vec!["sample", "--model", model, "--class", "3", "--steps", "2", "--force"];
    args.extend(["--out", folder.to_str().unwrap(), "--save-latents", latents.to_str().unwrap()]);
    args.extend(loras.iter().flat_map(|lora| ["--lora", lora]));
    sandbox.ok(&args);
    let parameters = sandbox.ok(&["inspect", folder.join("00000.png").to_str().unwrap()]);
    assert_eq!(parameters.contains("Lora: "), !loras.is_empty(), "{parameters}");
    Checkpoint::open(&latents).unwrap().tensor("latents").unwrap()
}

/// Writes a LoRA of the network's last convolution, with kohya-ss' names.
fn lora(path: &Path, out: i64) {
    let ones = |size: &[i64]| Tensor::full(size, 0.02, (Kind::Float, Device::Cpu));
    let tensors = [("lora_down.weight", ones(&[2, 32, 3, 3])), ("lora_up.weight", ones(&[out, 2, 1, 1]))];
    let tensors = tensors.map(|(leaf, tensor)| (format!("lora_unet_conv_out.{leaf}"), tensor));
    save(path, &tensors, &BTreeMap::new()).unwrap();
}

#[test]
fn images_and_converted_models_have_the_lora_merged() {
    let sandbox = Sandbox::new(LDM, &[("model.yaml", MODEL)]);
    sandbox.ok(&["train", "model.yaml", "--run", "base"]);
    std::fs::create_dir(sandbox.path("trained")).unwrap();
    lora(&sandbox.path("style.safetensors"), 3);
    lora(&sandbox.path("trained/pytorch_lora_weights.safetensors"), 3);
    lora(&sandbox.path("wide.safetensors"), 4);

    let plain = sampled(&sandbox, "base", &[]);
    let whole = sampled(&sandbox, "base", &["style.safetensors"]);
    assert_ne!(plain, whole);
    assert_eq!(plain, sampled(&sandbox, "base", &["style.safetensors=0"]));
    // Twice half of the same LoRA; a folder is read as the file in it.
    let halves = sampled(&sandbox, "base", &["style.safetensors=0.5", "trained=0.5"]);
    assert_close("two halves", &halves, &whole, 1e-5);
    sandbox.ok(&["convert", "base", "merged", "--to", "ldm", "--lora", "style.safetensors"]);
    assert_eq!(whole, sampled(&sandbox, "merged", &[]));

    let sample = |lora: &'static str| ["sample", "--model", "base", "--class", "3", "--lora", lora];
    sandbox.err(&sample("nowhere.safetensors"), 1, "nowhere.safetensors: ");
    sandbox.err(
        &sample("wide.safetensors"),
        1,
        "lora_unet_conv_out: [2, 32, 3, 3] and [4, 2, 1, 1] for [3, 32, 3, 3]",
    );
    sandbox.err(&sample("style.safetensors=nan"), 2, "expected a finite strength");
    sandbox.err(&["sample", "--model", "style.safetensors"], 1, "try --model BASE --lora FILE");
    assert!(!sandbox.path("outputs").exists(), "an error leaves nothing behind");
    sandbox.err(
        &["convert", "base", "out", "--to", "ldm", "--lora", "wide.safetensors"],
        1,
        "expected updates of the weights' shapes",
    );
    assert!(!sandbox.path("out").exists());
}
