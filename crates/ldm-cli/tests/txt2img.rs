//! Text to pictures as a person meets it: training on captions, prompts, the tokenizer, what is refused.

#![allow(clippy::unwrap_used, reason = "clippy knows tests, not the functions beside them")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use ldm_core::weights::Checkpoint;
use serde_json::Value;

const FIRST_STAGE: &str = "
model:
  target: kl
  params:
    embed_dim: 4
    ddconfig: {double_z: true, z_channels: 4, resolution: 16, in_channels: 3, out_ch: 3, ch: 32, ch_mult: [1, 1],
               num_res_blocks: 1, attn_resolutions: [], attn_type: none}
data:
  target: data_module
  params:
    batch_size: 4
    train: {target: scenes, params: {size: 16, objects: [1, 1], count: 64}}
train: {steps: 2, learning_rate: 1.0e-3, checkpoint_every: 2, samples: {count: 4}}
";

const TEXT: &str = "
model:
  target: latent_diffusion
  params:
    image_size: 8
    channels: 4
    cond_stage_trainable: true
    unet_config:
      target: unet
      params: {in_channels: 4, out_channels: 4, model_channels: 32, attention_resolutions: [1], num_res_blocks: 1,
               channel_mult: [1, 1], num_heads: 2, use_spatial_transformer: true, context_dim: 16}
    first_stage_config:
      target: kl
      params:
        embed_dim: 4
        ckpt_path: first
        ddconfig: {double_z: true, z_channels: 4, resolution: 16, in_channels: 3, out_ch: 3, ch: 32, ch_mult: [1, 1],
                   num_res_blocks: 1, attn_resolutions: [], attn_type: none}
    cond_stage_config: {target: bert, params: {n_embed: 16, n_layer: 1, vocab_size: 40, max_seq_len: 9}}
data:
  target: data_module
  params:
    batch_size: 4
    train: {target: scenes, params: {size: 16, objects: [1, 1], count: 64}}
train: {steps: 2, learning_rate: 1.0e-3, checkpoint_every: 2, samples: {count: 8, steps: 2, guidance_scale: 2},
        conditioning_dropout: 0.5}
";

const WORDS: &str =
    "[PAD] [UNK] [CLS] [SEP] [MASK] a the of in on and red green blue yellow small big circle star cat";

/// A folder to work in, and beside it the place of `ldm weights`.
struct Desk(tempfile::TempDir);

impl Desk {
    fn new() -> Self {
        let desk = Self(tempfile::tempdir().unwrap());
        std::fs::create_dir_all(desk.path("work")).unwrap();
        std::fs::write(desk.path("work/first.yaml"), FIRST_STAGE).unwrap();
        std::fs::write(desk.path("work/text.yaml"), TEXT).unwrap();
        desk
    }

    /// What `ldm weights get bert-tokenizer` would do.
    fn install(&self) {
        std::fs::create_dir_all(self.path("weights/bert-tokenizer")).unwrap();
        std::fs::write(self.path("weights/bert-tokenizer/vocab.txt"), WORDS.replace(' ', "\n")).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ldm"));
        command.args(args).current_dir(self.path("work")).env("LDM_WEIGHTS", self.path("weights"));
        command.stdin(Stdio::null()).output().unwrap()
    }

    #[track_caller]
    fn done(&self, args: &[&str]) -> (String, String) {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        (text(&output.stdout), text(&output.stderr))
    }

    /// The command fails with `code`, says `expected` on one line, and leaves nothing behind.
    #[track_caller]
    fn fails(&self, args: &[&str], code: i32, expected: &str) {
        let before = listing(&self.path("work"));
        let output = self.run(args);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {error}");
        assert!(error.lines().any(|line| line.contains(expected)), "{args:?}: {error}");
        assert_eq!(listing(&self.path("work")), before, "{args:?} left something behind");
    }

    fn pixels(&self, name: &str) -> Vec<u8> {
        ldm_core::image::read(self.path("work").join(name)).unwrap().into_raw()
    }

    /// The first picture's.
    fn latents(&self, name: &str) -> Vec<f32> {
        let latents = Checkpoint::open(self.path("work").join(name)).unwrap().tensor("latents").unwrap();
        Vec::try_from(latents.get(0).view(-1)).unwrap()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn listing(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path.clone());
            }
            found.push(path);
        }
    }
    found.sort();
    found
}

#[test]
fn from_captions_to_pictures() {
    let desk = Desk::new();
    desk.done(&["train", "first.yaml", "--run", "first"]);
    let train = ["train", "text.yaml", "--run", "text"];
    desk.fails(&train, 1, "type `ldm weights get bert-tokenizer`");
    desk.install();
    desk.done(&train);
    assert!(desk.path("work/text/model/tokenizer/vocab.txt").is_file(), "what is handed on is whole");
    assert!(desk.done(&["inspect", "text"]).0.contains("conditioned on a text by crossattn"));
    std::fs::remove_dir_all(desk.path("weights")).unwrap();

    // The model's own tokenizer; the parameters as web UIs read them; a JSON line a picture.
    let draw = |out: &str, extra: &[&str]| {
        desk.done(&[&["txt2img", "--model", "text", "--steps", "3", "--out", out][..], extra].concat())
    };
    let (said, warned) = draw(
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
    assert_eq!(warned, "");
    let line: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert_eq!(
        (line["prompt"].as_str(), line["negative_prompt"].as_str()),
        (Some("a red circle"), Some("blue star"))
    );
    assert_eq!((line["seed"].as_u64(), line["path"].as_str()), (Some(5), Some("a/00001.png")));
    let parameters = "a red circle\nNegative prompt: blue star\nSteps: 3, Sampler: ddim, CFG scale: 5, Seed: 5, \
                      Size: 16x16, Model: text, Version: ldm ";
    assert!(desk.done(&["inspect", "a/00001.png"]).0.contains(parameters));
    assert!(desk.path("work/a/grid.png").is_file());

    // Several prompts, two pictures each, in batches that cut across them; a picture is what its seed and text say.
    std::fs::write(desk.path("work/prompts.txt"), "the cat\n\n  a red circle \n").unwrap();
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
    assert_eq!(listing(&desk.path("work/b")).len(), 5);
    let differ = |one: &str, other: &str| {
        let (one, other) = (desk.pixels(one), desk.pixels(other));
        one.iter().zip(&other).map(|(one, other)| one.abs_diff(*other)).max().unwrap()
    };
    assert!(differ("a/00000.png", "b/00002.png") <= 1, "the same seed and text");
    // A model this young says little of a prompt, less than a pixel's last bit: the latents tell.
    draw(
        "c",
        &["the cat", "--seed", "4", "--negative-prompt", "blue star", "--save-latents", "c.safetensors"],
    );
    draw("d", &["a red circle", "--seed", "4", "--save-latents", "d.safetensors"]);
    let first = desk.latents("a.safetensors");
    assert_ne!(first, desk.latents("c.safetensors"), "another prompt");
    assert_ne!(first, desk.latents("d.safetensors"), "another negative prompt");

    // What does not fit is said.
    let (_, warned) = draw("e", &["a red circle in the big blue star and the cat"]);
    assert_eq!(warned, "warning: the prompt is longer than the model reads, left out: star and the cat\n");

    // A tokenizer of one's own; one that is not there, or is nothing of the kind.
    std::fs::write(desk.path("work/words.txt"), WORDS.replace(' ', "\n")).unwrap();
    draw("f", &["a red circle", "--seed", "4", "--tokenizer", "words.txt"]);
    assert_eq!(differ("d/00000.png", "f/00000.png"), 0);
    let draw = ["txt2img", "a cat", "--model", "text", "--steps", "2", "--out", "x"];
    let with = |extra: &[&'static str]| [&draw[..], extra].concat();
    desk.fails(&with(&["--tokenizer", "nowhere"]), 1, "nowhere: no bert tokenizer at this place");
    desk.fails(&with(&["--tokenizer", "text.yaml"]), 1, "text.yaml: not a BERT vocabulary");
    std::fs::remove_dir_all(desk.path("work/text/model/tokenizer")).unwrap();
    desk.fails(&draw, 1, "type `ldm weights get bert-tokenizer`, or say --tokenizer PATH");

    // The wrong command for a model, and the wrong words.
    desk.fails(
        &["sample", "--model", "text"],
        1,
        "text: this model is conditioned on a text: use ldm txt2img",
    );
    let off = [
        "cond_stage_config=__is_unconditional__",
        "unet_config.params.use_spatial_transformer=false",
        "unet_config.params.context_dim=null",
    ];
    let off = off.map(|each| format!("model.params.{each}"));
    let off: Vec<&str> = off.iter().map(String::as_str).collect();
    desk.done(
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
    desk.fails(
        &["txt2img", "a cat", "--model", "free"],
        1,
        "free: this model is conditioned on nothing: use ldm sample",
    );
    desk.done(&["sample", "--model", "free", "--steps", "2", "--out", "g"]);
    desk.fails(
        &["sample", "--model", "free", "--guidance-scale", "2"],
        1,
        "--guidance-scale: this model is unconditional",
    );
    desk.fails(&["txt2img", "--model", "text"], 2, "PROMPT");
    desk.fails(
        &["txt2img", "a", "--prompts-from", "prompts.txt", "--model", "text"],
        2,
        "cannot be used with",
    );
    std::fs::write(desk.path("work/none.txt"), "\n").unwrap();
    desk.fails(
        &["txt2img", "--prompts-from", "none.txt", "--model", "text"],
        1,
        "none.txt: expected a prompt a line",
    );
    assert!(desk.done(&["txt2img", "--help"]).0.contains("Example"));
}
