//! Command lines from the parameters in PNGs.

use std::path::{Path, PathBuf};

use ldm::{Redo, Result, input_fields};
use ldm_core::image;
use tch::{Device, Kind, Tensor};

/// A folder with an image of these parameters, and a model next to it.
fn folder(parameters: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image.png");
    let pixels = Tensor::zeros([3, 4, 4], (Kind::Float, Device::Cpu));
    image::write_png(&path, &pixels, &[("parameters", parameters)]).unwrap();
    std::fs::create_dir(folder.path().join("tiny")).unwrap();
    (folder, path)
}

fn redo(path: &Path, options: &[&str]) -> Result<Redo> {
    Redo::read(path, &options.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
}

/// The words without the folder of the image.
fn words(path: &Path, options: &[&str]) -> String {
    let folder = format!("{}/", path.parent().unwrap().display());
    redo(path, options).unwrap().arguments.join(" ").replace(&folder, "")
}

const OURS: &str = "a cat\nNegative prompt: blurry\nSteps: 3, Sampler: ddim, CFG scale: 5, Seed: 7, Size: 24x16, Model: \
                    tiny";

#[test]
fn our_parameters_become_the_command() {
    let (_folder, path) = folder(&format!("{OURS}, Version: ldm 0.1.0"));
    let command = "txt2img --model=tiny --negative-prompt=blurry --sampler=ddim --steps=3 --guidance-scale=5 --width=24 \
                   --height=16 --seed=7 -- a cat";
    assert_eq!(words(&path, &[]), command);
    assert!(redo(&path, &[]).unwrap().notes.is_empty());
    // Options that are given take the place of those in the image.
    let got = words(&path, &["--steps", "9", "--seed=8", "--model", "other"]);
    assert_eq!(
        got,
        "txt2img --negative-prompt=blurry --sampler=ddim --guidance-scale=5 --width=24 --height=16 --steps 9 --seed=8 \
         --model other -- a cat"
    );
}

#[test]
fn every_field_is_followed() {
    let more = "Variation seed: 9, Variation seed strength: 0.5, CFG rescale: 0.7, CFG interval: 0.3..5, Eta: 1, Spacing: \
                999,500,1, Tile: 32, Tile tie: 0.1..1, Temperature: 0.9, Noise dropout: 0.1, Quantize denoised: true, Deep \
                cache: 3:2, Token merging ratio: 0.5, Clip skip: 2, Prompt syntax: weights, Denoising strength: 0.6, Hires upscale: 2, Hires steps: 4, Hires \
                upscaler: Lanczos, Dtype: bf16, EMA: false, Watermark: false";
    let (_folder, path) = folder(&format!("{OURS}, {more}, Version: ldm 0.1.0"));
    let got = words(&path, &[]);
    for word in [
        "--variation-seed=9",
        "--variation-strength=0.5",
        "--guidance-rescale=0.7",
        "--guidance-interval=0.3..5",
        "--deep-cache=3:2",
        "--token-merging=0.5",
        "--eta=1",
        "--spacing=999,500,1",
        "--tile=32",
        "--tile-tie=0.1..1",
        "--temperature=0.9",
        "--noise-dropout=0.1",
        "--quantize-denoised",
        "--clip-skip=2",
        "--prompt-syntax=weights",
        "--hires=2",
        "--hires-strength=0.6",
        "--hires-steps=4",
        "--dtype=bf16",
        "--no-ema",
        "--no-watermark",
    ] {
        assert!(got.split(' ').any(|each| each == word), "{word}: {got}");
    }
    assert!(redo(&path, &[]).unwrap().notes.is_empty());
}

/// The whole batch is sampled for one of its images.
#[test]
fn the_place_in_a_batch_is_that_of_the_image() {
    let (_folder, path) = folder(&format!("{OURS}, Batch size: 4, Batch pos: 2, Version: ldm 0.1.0"));
    let got = words(&path, &[]);
    assert!(got.contains("--num-images=4 --batch-size=4 --only=2 --seed=5 "), "{got}");
    let got = words(&path, &["--seed", "20"]);
    assert!(got.contains("--only=2 --seed 18 "), "{got}");
    let got = words(&path, &["-n", "2"]);
    assert!(got.contains("--seed=7 -n 2 ") && !got.contains("--only"), "{got}");
}

#[test]
fn classes_and_initial_images_are_inputs() {
    let line = "Steps: 3, Sampler: ddim, CFG scale: 1, Seed: 7, Size: 16x16, Model: tiny";
    let (_folder, path) = folder(&format!(
        "class: dog\n{line}, Override: \"model.params.v_posterior=0.5\", Version: ldm 0.1.0"
    ));
    let got = words(&path, &[]);
    assert!(
        got.starts_with("sample --model=tiny --class=dog ")
            && got.ends_with(" -- model.params.v_posterior=0.5"),
        "{got}"
    );
    let (_folder, path) = folder(&format!("{line}, Version: ldm 0.1.0"));
    assert!(words(&path, &[]).starts_with("sample --model=tiny --sampler=ddim "));

    let (folder, path) = folder("x");
    let sketch = folder.path().join("my, sketch.png");
    std::fs::write(&sketch, b"first").unwrap();
    let fields = input_fields("Init image", &sketch).unwrap();
    assert_eq!(fields, ", Init image: \"my, sketch.png\", Init image hash: a7937b64b8");
    let text = format!("a cat\n{line}, Denoising strength: 0.6{fields}, Resize: 32, Version: ldm 0.1.0");
    let pixels = Tensor::zeros([3, 4, 4], (Kind::Float, Device::Cpu));
    image::write_png(&path, &pixels, &[("parameters", &text)]).unwrap();
    let got = words(&path, &[]);
    assert!(got.starts_with("img2img ") && got.ends_with("--seed=7 -- my, sketch.png a cat"), "{got}");
    assert!(
        got.contains("--resize=32") && got.contains("--strength=0.6") && !got.contains("--width"),
        "{got}"
    );
    std::fs::write(&sketch, b"second").unwrap();
    let error = redo(&path, &[]).unwrap_err().to_string();
    assert!(
        error.contains("my, sketch.png: expected the file that ")
            && error.ends_with(" was made from, got another")
    );
    std::fs::remove_file(&sketch).unwrap();
    let error = redo(&path, &[]).unwrap_err().to_string();
    assert!(
        error.contains("expected the initial image `my, sketch.png` here, in runs/ or next to the image"),
        "{error}"
    );
}

#[test]
fn images_masks_maps_and_layouts_are_inputs() {
    let line = "Steps: 3, Sampler: ddim, CFG scale: 1, Seed: 7, Size: 16x16, Model: tiny";
    let (folder, path) = folder("x");
    for name in ["photo.png", "mask.png", "boxes.json", "colors.json"] {
        std::fs::write(folder.path().join(name), name).unwrap();
    }
    let fields = |inputs: &[(&str, &str)]| -> String {
        inputs.iter().map(|(field, name)| input_fields(field, &folder.path().join(name)).unwrap()).collect()
    };
    let check = |heading: &str, fields: String, expected: &str| {
        let pixels = Tensor::zeros([3, 4, 4], (Kind::Float, Device::Cpu));
        let text = format!("{heading}\n{line}{fields}, Version: ldm 0.1.0");
        image::write_png(&path, &pixels, &[("parameters", &text)]).unwrap();
        assert_eq!(words(&path, &[]), expected.replace('@', "--sampler=ddim --steps=3 --guidance-scale=1"));
    };
    let photo = ("Init image", "photo.png");
    check(
        "a cat\nNegative prompt: dog\ninpaint: photo.png, mask.png",
        format!(
            ", Denoising strength: 0.5{}, Resize: 32, Resize mask: true, Feather: 3",
            fields(&[photo, ("Mask", "mask.png")])
        ),
        "inpaint --model=tiny --negative-prompt=dog @ --resize=32 --feather=3 --resize-mask --strength=0.5 --seed=7 -- \
         photo.png mask.png a cat",
    );
    // A path cannot add options.
    check(
        "outpaint: a, out /, left 1, left 4, right 0, top 0, bottom 8",
        format!(", Denoising strength: 1{}", fields(&[photo])),
        "outpaint --model=tiny @ --bottom=8 --top=0 --right=0 --left=4 --seed=7 -- photo.png",
    );
    check("upscale: photo.png", fields(&[photo]), "upscale --model=tiny @ --seed=7 -- photo.png");
    check(
        "map: photo.png",
        fields(&[photo, ("Palette", "colors.json")]),
        "semantic2img --model=tiny @ --palette=colors.json --seed=7 -- photo.png",
    );
    let boxes = fields(&[("Layout", "boxes.json")]);
    let layout = "layout2img --model=tiny @ --width=16 --height=16 ! --seed=7 -- boxes.json";
    check("layout: boxes.json", boxes.clone(), &layout.replace("! ", ""));
    check("layout: a.png", boxes, &layout.replace('!', "--image=a.png"));
}

/// The text names neither the file of a ControlNet nor the folder of its hint.
#[test]
fn control_nets_are_given_again() {
    let field = "ControlNet 0: \"Module: none, Model: edges, Weight: 1, Image: edges.png\"";
    let (_folder, path) = folder(&format!("{OURS}, {field}, Version: ldm 0.1.0"));
    let error = redo(&path, &[]).unwrap_err().to_string();
    let expected = "expected an image made without a ControlNet, whose file the text does not name, got ControlNet 0; try \
                    ldm redo with --controlnet and --control-image";
    assert_eq!(error, format!("{}: {expected}", path.display()));
    let given = ["--controlnet", "edges", "--control-image", "edges.png"];
    let found = redo(&path, &given).unwrap();
    assert!(found.arguments.join(" ").ends_with(" --controlnet edges --control-image edges.png -- a cat"));
    assert!(found.notes.is_empty());
}

/// Fields that cannot be followed are named.
#[test]
fn parameters_of_web_uis_are_followed_as_far_as_they_go() {
    let text = "a (red:1.2) cat <lora:x:1>,\nwide\nNegative prompt: blurry\nSteps: 20, Sampler: DPM++ 2M, Schedule type: \
                Karras, CFG scale: 7, Seed: 5, Size: 512x768, Model hash: 6ce0161689, Model: tiny, VAE: x.pt, Clip skip: \
                2, Version: v1.9.4";
    let (_folder, path) = folder(text);
    let found = redo(&path, &[]).unwrap();
    let got = words(&path, &[]);
    assert_eq!(
        got,
        "txt2img --model=tiny --negative-prompt=blurry --prompt-syntax=weights --spacing=karras --sampler=dpmpp_2m \
         --steps=20 --guidance-scale=7 --clip-skip=2 --width=512 --height=768 --seed=5 -- a (red:1.2) cat <lora:x:1>,\nwide"
    );
    let path = path.display();
    assert_eq!(
        found.notes,
        [
            format!("{path}: made by another program, whose noise differs: expect another image"),
            format!("{path}: ignored Model hash, VAE, <lora:…> in the prompt, which is read as text"),
        ]
    );
}

#[test]
fn what_is_missing_is_named() {
    let check = |text: &str, options: &[&str], expected: &str| {
        let (_folder, path) = folder(text);
        let error = redo(&path, options).unwrap_err().to_string();
        assert!(error.starts_with(&path.display().to_string()) && error.contains(expected), "{error}");
        assert!(!error.contains('\n'), "{error}");
    };
    let line = "Steps: 3, Sampler: ddim, CFG scale: 1, Seed: 7, Size: 16x16";
    check("a cat", &[], "expected a text `parameters` with a line of `Steps: …`, got another");
    check(
        &format!("a cat\n{line}, Model: gone"),
        &[],
        "expected the model `gone` here, in runs/ or next to the image",
    );
    for name in ["..", "/", "../tiny", ""] {
        check(&format!("a cat\n{line}, Model: {name}"), &[], "got none; try --model");
    }
    let lora = format!("a cat\n{line}, Model: tiny, Lora: my style:0.5");
    check(
        &lora,
        &[],
        "expected the LoRA `my style` here, in runs/ or next to the image, got none; try --lora",
    );
    let neighbors = format!("a cat\nknn2img: db\n{line}, Model: tiny, Version: ldm 0.1.0");
    check(
        &neighbors,
        &[],
        "expected an image of another command, got one of knn2img, whose neighbors the text",
    );
    let inpainted = format!("inpaint: a.png, m.png\n{line}, Model: tiny, Version: ldm 0.1.0");
    check(&inpainted, &[], "expected the name of the initial image in the text, got none; try ldm inpaint");
    let gone =
        inpainted.replace("Model: tiny", "Model: tiny, Init image: gone.png, Init image hash: a7937b64b8");
    check(
        &gone,
        &[],
        "expected the initial image `gone.png` here, in runs/ or next to the image, got none; try ldm inpaint",
    );
    let img2img = format!("a cat\n{line}, Denoising strength: 0.5, Model: tiny");
    check(&img2img, &[], "expected the name of the initial image in the text, got none; try ldm img2img");
    let (folder, path) = folder(&lora);
    std::fs::write(folder.path().join("my style.safetensors"), b"").unwrap();
    assert!(words(&path, &[]).contains("--lora=my style.safetensors=0.5 "));
    assert!(words(&path, &["--lora", "other"]).ends_with(" --lora other -- a cat"));
    let none = path.with_file_name("none.png");
    image::write_png(&none, &Tensor::zeros([3, 4, 4], (Kind::Float, Device::Cpu)), &[]).unwrap();
    let error = redo(&none, &[]).unwrap_err().to_string();
    assert!(error.ends_with("expected a text `parameters` with a line of `Steps: …`, got none"), "{error}");
}
