//! `ldm redo`, the second pass of `--hires`, and changes of the config: images made again byte for byte.

use image::RgbImage;
use ldm_data::{Interpolation, resize};
use ldm_testing::{Sandbox, listing};
use tch::{Device, Kind, Tensor};

use crate::LDM;
use crate::lora::MODEL;
use crate::txt2img::trained;

fn same_bytes(sandbox: &Sandbox, one: &str, other: &str) -> bool {
    std::fs::read(sandbox.path(one)).unwrap() == std::fs::read(sandbox.path(other)).unwrap()
}

#[test]
fn images_of_a_text_are_made_again_byte_for_byte() {
    let sandbox = trained();
    let text =
        ["txt2img", "a red circle", "--negative-prompt", "blue star", "--model", "text", "--steps", "3"];
    let draw = |out: &str, extra: &[&str]| sandbox.ok(&[&text[..], &["--out", out], extra].concat());
    let redo = |image: &str, out: &str, extra: &[&str]| {
        sandbox.output(&[&["redo", image, "--out", out, "--skip-grid"], extra].concat()).1
    };
    // Each image of a batch, and the last, which is alone in its own.
    draw("a", &["--seed", "4", "-n", "3", "--batch-size", "2", "--eta", "0.5", "--spacing", "trailing"]);
    for (image, again) in [("00000", "00000"), ("00001", "00001"), ("00002", "00000")] {
        let out = format!("again-{image}");
        assert_eq!(redo(&format!("a/{image}.png"), &out, &[]), "");
        assert_eq!(listing(&sandbox.path(&out)), [sandbox.path(&format!("{out}/{again}.png"))]);
        assert!(same_bytes(&sandbox, &format!("a/{image}.png"), &format!("{out}/{again}.png")), "{image}");
    }
    // Another seed, and other steps, in place of those in the image.
    draw("b", &["--seed", "9"]);
    draw("c", &["--seed", "4"]);
    redo("c/00000.png", "again-c", &["--seed", "9"]);
    assert!(
        same_bytes(&sandbox, "b/00000.png", "again-c/00000.png")
            && !same_bytes(&sandbox, "b/00000.png", "c/00000.png")
    );
    redo("c/00000.png", "steps", &["--steps=2"]);
    assert!(sandbox.ok(&["inspect", "steps/00000.png"]).contains("Steps: 2, "));

    // Two passes: those of txt2img and img2img by hand.
    draw("large", &["--seed", "4", "--hires", "2", "--hires-strength", "0.7", "--hires-steps", "4"]);
    redo("large/00000.png", "again-large", &[]);
    assert!(same_bytes(&sandbox, "large/00000.png", "again-large/00000.png"));
    let small: RgbImage = image::open(sandbox.path("c/00000.png")).unwrap().into_rgb8();
    resize(&small, 32, 32, Interpolation::Lanczos).save(sandbox.path("sketch.png")).unwrap();
    let by_hand = [
        &["img2img", "sketch.png", "a red circle", "--negative-prompt", "blue star", "--model", "text"][..],
        &["--seed", "4", "--steps", "4", "--strength", "0.7", "--out", "by-hand"],
    ];
    sandbox.ok(&by_hand.concat());
    assert_eq!(sandbox.pixels("by-hand/00000.png"), sandbox.pixels("large/00000.png"));
    // The initial image is found by its name, and known by its hash.
    redo("by-hand/00000.png", "again-by-hand", &[]);
    assert!(same_bytes(&sandbox, "by-hand/00000.png", "again-by-hand/00000.png"));
    std::fs::copy(sandbox.path("c/00000.png"), sandbox.path("sketch.png")).unwrap();
    sandbox.err(
        &["redo", "by-hand/00000.png", "--out", "x"],
        1,
        "sketch.png: expected the file that by-hand/00000.png",
    );

    // A model that has moved.
    std::fs::rename(sandbox.path("text"), sandbox.path("moved")).unwrap();
    sandbox.err(&["redo", "c/00000.png", "--out", "x"], 1, "c/00000.png: expected the model `text` here");
    redo("c/00000.png", "moved-c", &["--model", "moved"]);
    assert_eq!(sandbox.pixels("moved-c/00000.png"), sandbox.pixels("c/00000.png"));

    // Parameters of another program.
    let parameters = "a red circle\nNegative prompt: blue star\nSteps: 3, Sampler: Euler a, CFG scale: 5, Seed: 4, Size: \
                      16x16, Model hash: 6ce0161689, Model: moved, Emphasis: None, Version: v1.9.4";
    let pixels = Tensor::zeros([3, 4, 4], (Kind::Float, Device::Cpu));
    ldm_core::image::write_png(sandbox.path("foreign.png"), &pixels, &[("parameters", parameters)]).unwrap();
    let notes = redo("foreign.png", "foreign", &[]);
    assert_eq!(
        notes,
        "warning: foreign.png: made by another program, whose noise differs: expect another image\nwarning: foreign.png: \
         ignored Model hash\n"
    );
    let made = sandbox.ok(&["inspect", "foreign/00000.png"]);
    assert!(
        made.contains("Steps: 3, Sampler: euler_a, CFG scale: 5, Seed: 4, Size: 16x16, Model: moved"),
        "{made}"
    );
    sandbox.err(&["redo", "moved/model/config.yaml"], 1, "moved/model/config.yaml: ");
    sandbox.err(&["redo", "c/00000.png", "--model", "moved", "--step", "3"], 2, "--step");
}

#[test]
fn keys_of_the_config_are_changed_in_sampling_and_merged_models_are_converted() {
    let sandbox = Sandbox::new(LDM, &[("model.yaml", MODEL)]);
    sandbox.ok(&["train", "model.yaml", "--run", "a"]);
    sandbox.ok(&["train", "model.yaml", "--run", "b", "train.seed=1"]);
    let sample = ["sample", "--model", "a", "--class", "3", "--steps", "2"];
    let draw = |out: &str, extra: &[&str]| sandbox.ok(&[&sample[..], &["--out", out], extra].concat());
    draw("plain", &[]);
    draw("x0", &["model.params.parameterization=x0", "model.params.v_posterior=0.5"]);
    assert_ne!(sandbox.pixels("plain/00000.png"), sandbox.pixels("x0/00000.png"));
    sandbox.ok(&["redo", "x0/00000.png", "--out", "again", "--skip-grid"]);
    assert!(same_bytes(&sandbox, "x0/00000.png", "again/00000.png"));
    let refused =
        |key: &str, expected: &str| sandbox.err(&[&sample[..], &["--out", "x", key]].concat(), 1, expected);
    refused("model.params.parametrization=v", "unknown field `parametrization`");
    refused("modle=1", "unknown field `modle`");
    refused("dog", "override `dog`: expected key.path=value");

    let merged = |out: &str, weight: &str, extra: &[&str]| {
        let words = ["convert", "a", out, "--to", "ldm", "--merge", "b", "--weight", weight];
        sandbox.ok(&[&words[..], extra].concat());
    };
    for (model, weight, extra) in [("a", "0", &[][..]), ("b", "1", &[]), ("a", "-0.7", &["--minus", "b"])] {
        let out = format!("merged-{model}{weight}");
        merged(&out, weight, extra);
        sandbox.ok(&["convert", model, &format!("plain-{out}"), "--to", "ldm"]);
        let weights = |folder: &str| format!("{folder}/model.safetensors");
        assert!(same_bytes(&sandbox, &weights(&out), &weights(&format!("plain-{out}"))), "{out}");
    }
    let words = ["convert", "a", "x", "--to", "ldm", "--merge", "b"];
    sandbox.err(&words, 2, "--weight");
    sandbox.err(&[&words[..], &["--weight", "nan"]].concat(), 2, "expected a finite number");
    sandbox.err(&["convert", "a", "x", "--to", "ldm", "--minus", "b"], 2, "--merge");
}
