//! Text to image: training on captions, prompts, tokenizers, errors.

use ldm_checkpoint::Checkpoint;
use ldm_testing::tiny;
use ldm_testing::{Sandbox, listing};
use serde_json::Value;

use crate::LDM;

fn first_stage() -> String {
    tiny::first_stage(
        "batch_size: 4",
        "steps: 2, learning_rate: 1.0e-3, checkpoint_every: 2, samples: {count: 4}",
    )
}

/// A model conditioned on text through BERT.
fn text_model() -> String {
    tiny::conditioned(
        "{target: bert, params: {n_embed: 16, n_layer: 1, vocab_size: 40, max_seq_len: 9}}",
        "batch_size: 4",
        "steps: 2, learning_rate: 1.0e-3, checkpoint_every: 2, conditioning_dropout: 0.5, samples: {count: 8, steps: 2, \
         guidance_scale: 2}",
    )
}

const WORDS: &str =
    "[PAD] [UNK] [CLS] [SEP] [MASK] a the of in on and red green blue yellow small big circle star cat";

fn sandbox() -> Sandbox {
    Sandbox::new(LDM, &[("first.yaml", &first_stage()), ("text.yaml", &text_model())])
}

/// Installs a vocabulary as `ldm weights get bert-tokenizer` does.
fn install(sandbox: &Sandbox) {
    std::fs::create_dir_all(sandbox.weights("bert-tokenizer")).unwrap();
    std::fs::write(sandbox.weights("bert-tokenizer/vocab.txt"), WORDS.replace(' ', "\n")).unwrap();
}

/// A sandbox with the trained model `text`.
pub(crate) fn trained() -> Sandbox {
    let sandbox = sandbox();
    install(&sandbox);
    sandbox.output(&["train", "first.yaml", "--run", "first"]);
    sandbox.output(&["train", "text.yaml", "--run", "text"]);
    sandbox
}

/// The latent of the first image.
fn latents(sandbox: &Sandbox, name: &str) -> Vec<f32> {
    let latents = Checkpoint::open(sandbox.path(name)).unwrap().tensor("latents").unwrap();
    Vec::try_from(latents.get(0).view(-1)).unwrap()
}

#[test]
fn from_captions_to_images() {
    let sandbox = sandbox();
    sandbox.output(&["train", "first.yaml", "--run", "first"]);
    let train = ["train", "text.yaml", "--run", "text"];
    sandbox.err(&train, 1, "try `ldm weights get bert-tokenizer`");
    install(&sandbox);
    sandbox.output(&train);
    assert!(sandbox.path("text/model/tokenizer/vocab.txt").is_file(), "the exported model is complete");
    assert!(sandbox.output(&["inspect", "text"]).0.contains("conditioned on a text by crossattn"));
    std::fs::remove_dir_all(sandbox.weights("")).unwrap();

    // The model's own tokenizer; parameters in the format of web UIs; one JSON line per image.
    let draw = |out: &str, extra: &[&str]| {
        sandbox.output(&[&["txt2img", "--model", "text", "--steps", "3", "--out", out][..], extra].concat())
    };
    let (stdout, stderr) = draw(
        "a",
        &[
            "a red circle",
            "-n",
            "2",
            "--seed",
            "4",
            "--negative-prompt",
            "blue star",
            "--json",
            "--save-latents",
            "a.safetensors",
        ],
    );
    assert_eq!(stderr, "");
    let line: Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    assert_eq!(
        (line["prompt"].as_str(), line["negative_prompt"].as_str()),
        (Some("a red circle"), Some("blue star"))
    );
    assert_eq!((line["seed"].as_u64(), line["path"].as_str()), (Some(5), Some("a/00001.png")));
    let parameters = "a red circle\nNegative prompt: blue star\nSteps: 3, Sampler: ddim, CFG scale: 5, Seed: 5, \
                      Size: 16x16, Model: text, Batch size: 2, Batch pos: 1, Version: ldm ";
    assert!(sandbox.output(&["inspect", "a/00001.png"]).0.contains(parameters));
    assert!(sandbox.path("a/grid.png").is_file());

    // Several prompts, two images each, in batches across prompts: an image depends on its seed and prompt alone.
    std::fs::write(sandbox.path("prompts.txt"), "the cat\n\n  a red circle \n").unwrap();
    draw(
        "b",
        &[
            "--prompts-from",
            "prompts.txt",
            "-n",
            "2",
            "--batch-size",
            "3",
            "--seed",
            "2",
            "--negative-prompt",
            "blue star",
        ],
    );
    assert_eq!(listing(&sandbox.path("b")).len(), 5);
    let differ = |one: &str, other: &str| {
        let (one, other) = (sandbox.pixels(one), sandbox.pixels(other));
        one.iter().zip(&other).map(|(one, other)| one.abs_diff(*other)).max().unwrap()
    };
    assert!(differ("a/00000.png", "b/00002.png") <= 1, "the same seed and text");
    // After two steps the prompt has a small effect, below a pixel's resolution: compare latents.
    draw(
        "c",
        &["the cat", "--seed", "4", "--negative-prompt", "blue star", "--save-latents", "c.safetensors"],
    );
    draw("d", &["a red circle", "--seed", "4", "--save-latents", "d.safetensors"]);
    let first = latents(&sandbox, "a.safetensors");
    assert_ne!(first, latents(&sandbox, "c.safetensors"), "another prompt");
    assert_ne!(first, latents(&sandbox, "d.safetensors"), "another negative prompt");

    // img2img with strengths of 1, 0.5 and 0.
    let redraw = |strength: &str| {
        let out = format!("again-{strength}");
        let words = ["img2img", "d/00000.png", "the cat", "--model", "text", "--steps", "4", "--out", &out];
        sandbox.output(&[&words[..], &["--strength", strength]].concat());
        sandbox.pixels(&format!("{out}/00000.png"))
    };
    let [all, half, none] = ["1", "0.5", "0"].map(redraw);
    assert!(all != half && half != none);
    let stdout = sandbox.output(&["inspect", "again-0.5/00000.png"]).0;
    assert!(stdout.contains("Denoising strength: 0.5"), "{stdout}");
    let again = ["img2img", "d/00000.png", "the cat", "--model", "text", "--out", "x", "--strength", "1.1"];
    sandbox.err(&again, 2, "expected a number from 0 to 1");

    // Truncation of the prompt is reported.
    let (_, stderr) = draw("e", &["a red circle in the big blue star and the cat"]);
    assert_eq!(
        stderr,
        "warning: the prompt was truncated to the model's maximum length; ignored: star and the cat\n"
    );

    // A given tokenizer; a missing and a wrong one.
    std::fs::write(sandbox.path("words.txt"), WORDS.replace(' ', "\n")).unwrap();
    draw("f", &["a red circle", "--seed", "4", "--tokenizer", "words.txt"]);
    assert_eq!(differ("d/00000.png", "f/00000.png"), 0);
    let draw = ["txt2img", "a cat", "--model", "text", "--steps", "2", "--out", "x"];
    let with = |extra: &[&'static str]| [&draw[..], extra].concat();
    sandbox.err(&with(&["--tokenizer", "nowhere"]), 1, "nowhere: expected a bert tokenizer, got no file");
    sandbox.err(&with(&["--tokenizer", "text.yaml"]), 1, "text.yaml: expected a BERT vocabulary");
    std::fs::remove_dir_all(sandbox.path("text/model/tokenizer")).unwrap();
    sandbox.err(&draw, 1, "try `ldm weights get bert-tokenizer` or --tokenizer PATH");

    // The wrong command for a model, and wrong flags.
    sandbox.err(&["sample", "--model", "text"], 1, "text: expected a model conditioned on");
    let off = [
        "cond_stage_config=__is_unconditional__",
        "unet_config.params.use_spatial_transformer=false",
        "unet_config.params.context_dim=null",
    ];
    let off = off.map(|each| format!("model.params.{each}"));
    let off: Vec<&str> = off.iter().map(String::as_str).collect();
    sandbox.output(
        &[
            &[
                "train",
                "text.yaml",
                "--run",
                "free",
                "train.samples.guidance_scale=1",
                "train.conditioning_dropout=0",
            ][..],
            &off,
        ]
        .concat(),
    );
    sandbox.err(&["txt2img", "a cat", "--model", "free"], 1, "; try ldm sample");
    sandbox.output(&["sample", "--model", "free", "--steps", "2", "--out", "g"]);
    sandbox.err(
        &["sample", "--model", "free", "--guidance-scale", "2"],
        1,
        "--guidance-scale: expected a conditional model, got an unconditional one",
    );
    sandbox.err(&["txt2img", "--model", "text"], 2, "PROMPT");
    sandbox.err(
        &["txt2img", "a", "--prompts-from", "prompts.txt", "--model", "text"],
        2,
        "cannot be used with",
    );
    std::fs::write(sandbox.path("none.txt"), "\n").unwrap();
    sandbox.err(
        &["txt2img", "--prompts-from", "none.txt", "--model", "text"],
        1,
        "none.txt: expected one prompt per line, got none",
    );
    assert!(sandbox.output(&["txt2img", "--help"]).0.contains("Example"));
}
