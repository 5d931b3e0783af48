//! The model inside the program: images without a path, a download or a network.

use ldm_testing::Sandbox;

use crate::LDM;

const QUICK: [&str; 4] = ["--steps", "2", "--out", "drawn"];

#[test]
fn a_prompt_alone_gives_an_image() {
    let sandbox = Sandbox::new(LDM, &[]);
    let paths = sandbox.ok(&[&["txt2img", "red heart", "-n", "2"][..], &QUICK].concat());
    assert_eq!(paths, "drawn/00000.png\ndrawn/00001.png\n");
    let image = image::open(sandbox.path("drawn/00000.png")).unwrap();
    assert_eq!((image.width(), image.height()), (64, 64));
    assert!(sandbox.ok(&["inspect", "drawn/00000.png"]).contains("Model: emoji"));

    // The folder is unpacked once, beside the weights of `ldm weights`, and is a model like others.
    let unpacked = sandbox.weights("embedded/emoji-1/emoji/model.safetensors");
    let written = unpacked.metadata().unwrap().modified().unwrap();
    let folder = unpacked.parent().unwrap().to_str().unwrap().to_owned();
    let again = ["txt2img", "red heart", "-n", "2", "--model", &folder, "--steps", "2", "--out", "again"];
    sandbox.ok(&again);
    assert_eq!(unpacked.metadata().unwrap().modified().unwrap(), written);
    let bytes = |path: &str| std::fs::read(sandbox.path(path)).unwrap();
    assert_eq!(bytes("drawn/00001.png"), bytes("again/00001.png"));
    sandbox.ok(&["redo", "drawn/00001.png", "--out", "redone", "--skip-grid"]);
    assert_eq!(bytes("drawn/00001.png"), bytes("redone/00001.png"));
}

#[test]
fn other_commands_know_the_model_by_its_name() {
    let sandbox = Sandbox::new(LDM, &[]);
    let text = sandbox.ok(&["inspect", "emoji"]);
    assert!(text.contains("latent diffusion") && text.contains("a text by crossattn"), "{text}");
    sandbox.ok(&[&["txt2img", "pizza", "--model", "emoji"][..], &QUICK].concat());
    let on = ["img2img", "drawn/00000.png", "red heart", "--steps", "2", "--out", "changed"];
    sandbox.ok(&on);
    sandbox.ok(&["encode", "drawn/00000.png", "--model", "emoji", "--out", "latents.safetensors"]);
    // A folder of that name comes first.
    std::fs::create_dir(sandbox.path("emoji")).unwrap();
    sandbox.err(&["inspect", "emoji"], 1, "emoji: ");
    // Commands that the model does not serve want a model.
    sandbox.err(&["sample", "--out", "x"], 2, "--model <MODEL>");
}

#[test]
fn a_cache_that_cannot_be_written_is_named() {
    let sandbox = Sandbox::new(LDM, &[]);
    let file = sandbox.path("file");
    std::fs::write(&file, "").unwrap();
    let output = sandbox.command(&["txt2img", "pizza"]).env("LDM_WEIGHTS", &file).output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && message.contains(file.to_str().unwrap()), "{message}");
}
