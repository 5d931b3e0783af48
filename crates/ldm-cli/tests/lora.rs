//! `--lora` as a person meets it: images and converted models with a LoRA in them, and what is refused.

#![allow(clippy::unwrap_used, reason = "clippy knows tests, not the functions beside them")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use ldm_checkpoint::{Checkpoint, save};
use ldm_testing::assert_close;
use tch::{Device, Kind, Tensor};

const MODEL: &str = "
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

struct Sandbox(tempfile::TempDir);

impl Sandbox {
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ldm"));
        command.args(args).current_dir(self.0.path()).stdin(Stdio::null()).output().unwrap()
    }

    #[track_caller]
    fn done(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    fn fails(&self, args: &[&str], code: i32, expected: &str) {
        let output = self.run(args);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {error}");
        assert!(error.contains(expected), "{args:?}: {error}");
    }

    /// Latents of one sample by the model with these LoRAs.
    fn sample(&self, model: &str, loras: &[&str]) -> Tensor {
        let (out, latents) = (tempfile::tempdir_in(self.0.path()).unwrap(), self.path("latents.safetensors"));
        let folder = out.path().join("images");
        let mut args = vec!["sample", "--model", model, "--class", "3", "--steps", "2", "--force"];
        args.extend(["--out", folder.to_str().unwrap(), "--save-latents", latents.to_str().unwrap()]);
        args.extend(loras.iter().flat_map(|lora| ["--lora", lora]));
        self.done(&args);
        let parameters = self.done(&["inspect", folder.join("00000.png").to_str().unwrap()]);
        assert_eq!(parameters.contains("Lora: "), !loras.is_empty(), "{parameters}");
        Checkpoint::open(&latents).unwrap().tensor("latents").unwrap()
    }
}

/// A change of the network's last convolution, as kohya-ss names it.
fn lora(path: &Path, out: i64) {
    let ones = |size: &[i64]| Tensor::full(size, 0.02, (Kind::Float, Device::Cpu));
    let tensors = [("lora_down.weight", ones(&[2, 32, 3, 3])), ("lora_up.weight", ones(&[out, 2, 1, 1]))];
    let tensors = tensors.map(|(leaf, tensor)| (format!("lora_unet_conv_out.{leaf}"), tensor));
    save(path, &tensors, &BTreeMap::new()).unwrap();
}

#[test]
fn images_and_converted_models_have_the_lora_in_them() {
    let sandbox = Sandbox(tempfile::tempdir().unwrap());
    std::fs::write(sandbox.path("model.yaml"), MODEL).unwrap();
    sandbox.done(&["train", "model.yaml", "--run", "base"]);
    std::fs::create_dir(sandbox.path("trained")).unwrap();
    lora(&sandbox.path("style.safetensors"), 3);
    lora(&sandbox.path("trained/pytorch_lora_weights.safetensors"), 3);
    lora(&sandbox.path("wide.safetensors"), 4);

    let plain = sandbox.sample("base", &[]);
    let whole = sandbox.sample("base", &["style.safetensors"]);
    assert_ne!(plain, whole);
    assert_eq!(plain, sandbox.sample("base", &["style.safetensors=0"]));
    // 0.5 + 0.5 of the same change; a folder stands for the file in it.
    let halves = sandbox.sample("base", &["style.safetensors=0.5", "trained=0.5"]);
    assert_close("two halves", &halves, &whole, 1e-5);
    sandbox.done(&["convert", "base", "merged", "--to", "ldm", "--lora", "style.safetensors"]);
    assert_eq!(whole, sandbox.sample("merged", &[]));

    let sample = |lora: &'static str| ["sample", "--model", "base", "--class", "3", "--lora", lora];
    sandbox.fails(&sample("nowhere.safetensors"), 1, "nowhere.safetensors: ");
    sandbox.fails(
        &sample("wide.safetensors"),
        1,
        "lora_unet_conv_out: [2, 32, 3, 3] and [4, 2, 1, 1] for [3, 32, 3, 3]",
    );
    sandbox.fails(&sample("style.safetensors=nan"), 2, "expected a strength that is a number");
    sandbox.fails(
        &["sample", "--model", "style.safetensors"],
        1,
        "give the model they were trained for, and this by --lora",
    );
    assert!(!sandbox.path("outputs").exists(), "a refusal leaves nothing behind");
    sandbox.fails(
        &["convert", "base", "out", "--to", "ldm", "--lora", "wide.safetensors"],
        1,
        "of another shape",
    );
    assert!(!sandbox.path("out").exists());
}
