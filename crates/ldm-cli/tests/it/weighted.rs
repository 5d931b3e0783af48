//! Weighted prompts, CLIP skip, textual inversion, ControlNets and the safety checker on the command line.

use std::collections::BTreeMap;
use std::path::Path;

use image::{Rgb, RgbImage};
use ldm_checkpoint::{Checkpoint, Shapes};
use ldm_core::device::test_device;
use ldm_testing::{Golden, Sandbox, filled, tiny};
use ldm_unet::{ControlNetConfig, Plan};
use serde_json::Value;
use tch::{Device, Kind, Tensor};

use crate::LDM;

/// The configuration of CLIP's text model.
const CLIP: &str = "{target: clip_text, params: {hidden_size: 16, intermediate_size: 32, num_hidden_layers: 2, \
                    num_attention_heads: 2, vocab_size: 520}}";

/// A run `text` of a model that reads text through CLIP.
fn sandbox() -> Sandbox {
    let first = tiny::first_stage(
        "batch_size: 4",
        "steps: 2, learning_rate: 1.0e-3, checkpoint_every: 2, samples: {count: 4}",
    );
    let train = "steps: 2, learning_rate: 1.0e-2, checkpoint_every: 2, samples: {count: 0}";
    let text =
        tiny::conditioned(CLIP, "batch_size: 4", train).replace("    cond_stage_trainable: true\n", "");
    let sandbox = Sandbox::new(LDM, &[("first.yaml", &first), ("text.yaml", &text)]);
    std::fs::create_dir_all(sandbox.weights("clip-tokenizer")).unwrap();
    let merges = sandbox.weights("clip-tokenizer/bpe_simple_vocab_16e6.txt.gz");
    std::fs::write(merges, "#version\nc a\nca t</w>\n").unwrap();
    sandbox.output(&["train", "first.yaml", "--run", "first"]);
    sandbox.output(&["train", "text.yaml", "--run", "text"]);
    sandbox
}

/// Samples with these words; returns the latents, stderr and the text of the PNG.
fn draw(sandbox: &Sandbox, words: &[&str]) -> (Tensor, String, String) {
    let fixed =
        ["txt2img", "--model", "text", "--steps", "3", "--out", "out", "--force", "--save-latents", "z"];
    let (_, stderr) = sandbox.output(&[&fixed[..], words].concat());
    let latents = Checkpoint::open(sandbox.path("z")).unwrap().tensor("latents").unwrap();
    (latents, stderr, sandbox.output(&["inspect", "out/00000.png"]).0)
}

fn save(path: &Path, name: &str, tensor: Tensor) {
    ldm_checkpoint::save(path, &[(name.into(), tensor)], &BTreeMap::new()).unwrap();
}

#[test]
fn prompts_with_weights_skipped_layers_and_learned_words() {
    let sandbox = sandbox();
    let (plain, stderr, text) = draw(&sandbox, &["a (cat:1.5)"]);
    assert_eq!(
        stderr,
        "warning: the weights and breaks in the prompt were read as text; try --prompt-syntax weights\n"
    );
    assert!(text.contains("a (cat:1.5)\nSteps: 3") && text.contains(", Emphasis: None, "), "{text}");
    let weights = ["--prompt-syntax", "weights"];
    let (weighted, stderr, text) = draw(&sandbox, &[&["a (cat:1.5)"][..], &weights].concat());
    assert_eq!(stderr, "");
    assert!(text.contains("a (cat:1.5)\nSteps: 3") && !text.contains("Emphasis"), "{text}");
    assert_ne!(plain, weighted);
    // Without weights both are the same.
    let (one, _, text) = draw(&sandbox, &["a cat"]);
    let (other, _, _) = draw(&sandbox, &[&["a cat"][..], &weights].concat());
    assert!(!text.contains("Emphasis"), "{text}");
    assert_eq!(one, other);
    // Long prompts; a negative prompt of another number of chunks.
    let long = "a ".repeat(100) + "cat";
    let (_, stderr, _) = draw(&sandbox, &[&long]);
    assert!(stderr.contains("was truncated"), "{stderr}");
    let (first, stderr, _) =
        draw(&sandbox, &[&[&*long, "--negative-prompt", "a BREAK b BREAK c"], &weights[..]].concat());
    assert_eq!(stderr, "");
    let (second, _, _) = draw(&sandbox, &[&[&*long], &weights[..]].concat());
    assert_ne!(first, second);
    let command = ["txt2img", "--model", "text", "--prompt-syntax", "weights", "--out", "x"];
    sandbox.err(&[&command[..], &["(a:1.2.3)"]].concat(), 1, "prompt: weight: expected a number such as 1.2");

    let (skipped, _, text) = draw(&sandbox, &["a cat", "--clip-skip", "2"]);
    assert!(text.contains(", Clip skip: 2, "), "{text}");
    assert_ne!(one, skipped);
    let command = ["txt2img", "a", "--model", "text", "--out", "x", "--clip-skip", "3"];
    sandbox.err(&command, 1, "clip skip: expected 1 to 2, the layers of the text model, got 3");

    let vectors = Tensor::full([2, 16], 0.5, (Kind::Float, Device::Cpu));
    save(&sandbox.path("dog.safetensors"), "emb_params", vectors.shallow_clone());
    let (unknown, _, _) = draw(&sandbox, &["a dog"]);
    let (learned, _, text) = draw(&sandbox, &["a dog", "--embedding", "dog.safetensors"]);
    assert!(text.contains(", Embeddings: dog, "), "{text}");
    assert_ne!(unknown, learned);
    let (named, _, _) = draw(&sandbox, &["a <x>", "--embedding", "dog.safetensors:<x>"]);
    assert_eq!(learned, named);
    save(&sandbox.path("wide.safetensors"), "<cat>", vectors.repeat([1, 2]));
    let command = ["txt2img", "a", "--model", "text", "--out", "x", "--embedding"];
    sandbox.err(
        &[&command[..], &["wide.safetensors"]].concat(),
        1,
        "embedding `<cat>`: expected vectors [n, 16], as wide as the model's tokens, got [2, 32]",
    );
    sandbox.err(&[&command[..], &["nowhere.pt"]].concat(), 1, "nowhere.pt");
    sandbox.err(
        &[&command[..], &["dog.safetensors", "--embedding", "dog.safetensors"]].concat(),
        1,
        "embedding `dog`: expected a new word, got one that was added before",
    );
}

/// Writes a ControlNet of the tiny model under lllyasviel's names, and its hint image.
fn control_net(sandbox: &Sandbox, name: &str, seed: u64) {
    let unet = serde_json::json!({
        "in_channels": 4, "out_channels": 4, "model_channels": 32, "attention_resolutions": [1], "num_res_blocks": 1,
        "channel_mult": [1, 1], "num_heads": 2, "use_spatial_transformer": true, "context_dim": 16,
    });
    let config = ControlNetConfig::of(&serde_json::from_value(unet).unwrap(), 4);
    let config = ControlNetConfig { hint_widths: vec![16, 32], ..config };
    let shapes: Shapes = Plan::control_net(&config).unwrap().parameters().into_iter().collect();
    let tensors: Vec<_> =
        filled(&shapes, seed).into_iter().map(|(name, x)| (format!("control_model.{name}"), x)).collect();
    ldm_checkpoint::save(sandbox.path(&format!("{name}.safetensors")), &tensors, &BTreeMap::new()).unwrap();
    let hint = RgbImage::from_fn(40, 24, |x, y| Rgb([x as u8 * 6, y as u8 * 10, seed as u8 * 20]));
    hint.save(sandbox.path(&format!("{name}.png"))).unwrap();
}

#[test]
fn images_are_steered_by_control_nets() {
    let sandbox = sandbox();
    control_net(&sandbox, "edges", 1);
    control_net(&sandbox, "depth", 2);
    let edges = ["a cat", "--controlnet", "edges.safetensors", "--control-image", "edges.png"];
    let depth = ["--controlnet", "depth.safetensors", "--control-image", "depth.png"];
    let both = [&edges[..], &depth].concat();
    let (plain, _, text) = draw(&sandbox, &["a cat"]);
    assert!(!text.contains("ControlNet"), "{text}");
    let (one, _, text) = draw(&sandbox, &edges);
    let entry = "ControlNet 0: \"Module: none, Model: edges, Weight: 1, Guidance Start: 0, Guidance End: 1, Image: edges.png\"";
    assert!(text.contains(entry), "{text}");
    assert_ne!(one, plain);
    let (off, _, _) = draw(&sandbox, &[&edges[..], &["--control-scale", "0"]].concat());
    assert_eq!(off, plain);
    let values = ["--control-scale", "1", "--control-scale", "-0.5", "--control-start", "0.3"];
    let values =
        [&values[..], &["--control-start", "0", "--control-end", "1", "--control-end", "0.7"]].concat();
    let (two, _, text) = draw(&sandbox, &[&both[..], &values].concat());
    assert!(text.contains("Model: depth, Weight: -0.5, Guidance Start: 0, Guidance End: 0.7"), "{text}");
    assert!(two != one && two != plain);

    sandbox
        .ok(&[&["img2img", "edges.png"][..], &edges, &["--model", "text", "--steps", "3", "--out", "i"]]
            .concat());
    let refused = |words: &[&str], text: &str| {
        let command = [&["txt2img", "--model", "text", "--steps", "3", "--out", "x"][..], words].concat();
        sandbox.err(&command, 1, text);
    };
    refused(&both[..7], "control images: expected 2, one for each ControlNet, got 1");
    refused(
        &[&both[..], &["--control-scale", "1"]].concat(),
        "control scales: expected 2, one for each ControlNet, got 1",
    );
    refused(&["a cat", "--control-end", "0.5"], "control ends: expected 0, one for each ControlNet, got 1");
    refused(
        &[&edges[..], &["--control-start", "0.5", "--control-end", "0.6"]].concat(),
        "expected an interval that contains a whole step of 4, got 0.5 to 0.6",
    );
    refused(
        &["a cat", "--controlnet", "edges.png", "--control-image", "edges.png"],
        "edges.png: expected safetensors",
    );
    let (inspected, _) = sandbox.output(&["inspect", "edges.safetensors"]);
    assert!(inspected.contains("a ControlNet: an addition to a U-Net"), "{inspected}");
    // A folder of diffusers.
    let golden =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../ldm-pipelines/tests/golden/control.safetensors");
    let net: Value = serde_json::from_str(Golden::open(golden, test_device()).metadata("net")).unwrap();
    let shapes: Shapes = serde_json::from_value(net["shapes"].clone()).unwrap();
    std::fs::create_dir(sandbox.path("net")).unwrap();
    let weights = sandbox.path("net/diffusion_pytorch_model.safetensors");
    ldm_checkpoint::save(weights, &filled(&shapes, 1), &BTreeMap::new()).unwrap();
    std::fs::write(sandbox.path("net/config.json"), net["config"].to_string()).unwrap();
    let (inspected, _) = sandbox.output(&["inspect", "net"]);
    let architecture = "ControlNet of a U-Net 4 -> 4, levels of 32, 64 channels, attends to tokens of 16, hints of 3 channels";
    assert!(
        inspected.contains(architecture) && inspected.contains("fits          all names and shapes"),
        "{inspected}"
    );
    let command = ["txt2img", "a", "--model", "edges.safetensors", "--out", "x"];
    sandbox.err(&command, 1, "a ControlNet: an addition to a U-Net; try --model BASE --controlnet FILE");
}

/// Writes a safety checker all of whose thresholds are `threshold`.
fn checker(folder: &Path, threshold: f64) {
    let golden =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../ldm-conditioning/tests/golden/safety.safetensors");
    let golden = Golden::open(golden, test_device());
    let shapes: Shapes = serde_json::from_str(golden.metadata("shapes")).unwrap();
    let mut tensors = filled(&shapes, 6);
    for name in ["concept_embeds", "special_care_embeds"] {
        let count = shapes[name][0];
        tensors
            .push((format!("{name}_weights"), Tensor::full([count], threshold, (Kind::Float, Device::Cpu))));
    }
    std::fs::create_dir_all(folder).unwrap();
    ldm_checkpoint::save(folder.join("model.safetensors"), &tensors, &BTreeMap::new()).unwrap();
    std::fs::write(folder.join("config.json"), golden.metadata("config")).unwrap();
}

#[test]
fn unsafe_images_are_blocked_or_reported() {
    let sandbox = sandbox();
    checker(&sandbox.path("strict"), -2.);
    checker(&sandbox.path("lenient"), 2.);
    let draw = |words: &[&str]| {
        let fixed = ["txt2img", "a cat", "--model", "text", "--steps", "2", "-n", "3", "--batch-size", "2"];
        let (stdout, stderr) =
            sandbox.output(&[&fixed[..], &["--json", "--out", "out", "--force"], words].concat());
        let last: Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
        (last["nsfw_content_detected"].as_bool(), stderr, sandbox.pixels("out/00002.png"))
    };
    let (flag, stderr, free) = draw(&[]);
    assert_eq!((flag, &*stderr), (None, ""), "no checker next to the model");
    assert!(free.iter().any(|pixel| *pixel > 0));
    let (flag, stderr, pixels) = draw(&["--safety-checker", "strict"]);
    assert_eq!(flag, Some(true));
    assert_eq!(
        stderr,
        "warning: the safety checker found 3 of 3 images unsafe; replaced by black images; try another prompt or \
         seed, or --safety warn\n"
    );
    assert!(pixels.iter().all(|pixel| *pixel == 0));
    let (flag, stderr, pixels) = draw(&["--safety-checker", "strict", "--safety", "warn"]);
    assert_eq!((flag, pixels), (Some(true), free.clone()));
    assert!(stderr.contains("3 of 3 images unsafe; left as they are"), "{stderr}");
    let (flag, stderr, pixels) = draw(&["--safety-checker", "strict", "--safety", "off"]);
    assert_eq!((flag, &*stderr, pixels), (None, "", free.clone()));
    let (flag, stderr, pixels) = draw(&["--safety-checker", "lenient"]);
    assert_eq!((flag, &*stderr, pixels), (Some(false), "", free));
    // The checker in the folder of the model is on by default.
    checker(&sandbox.path("text/safety_checker"), -2.);
    assert_eq!(draw(&[]).0, Some(true));
    let command =
        ["txt2img", "a", "--model", "text", "--out", "x", "--steps", "2", "--safety-checker", "nowhere"];
    sandbox.err(&command, 1, "nowhere");
}
