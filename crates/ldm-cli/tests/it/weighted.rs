//! Weighted prompts, CLIP skip, textual inversion and the safety checker on the command line.

use std::collections::BTreeMap;
use std::path::Path;

use ldm_checkpoint::{Checkpoint, Shapes};
use ldm_core::device::test_device;
use ldm_testing::{Golden, Sandbox, filled, tiny};
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
