//! Images from images, maps and boxes: models are trained for two steps on synthetic scenes, then sampled.

use image::{GrayImage, Luma, Rgb, RgbImage};
use ldm_checkpoint::Checkpoint;
use ldm_pipelines::watermark;
use ldm_testing::Sandbox;

use crate::LDM;

const TASKS: [(&str, &str, &str); 4] = [
    ("boxes", include_str!("../../../../configs/experiments/tiny/layout.yaml"), ""),
    ("map", include_str!("../../../../configs/experiments/tiny/semantic.yaml"), ", task: {target: semantic}"),
    (
        "small",
        include_str!("../../../../configs/experiments/tiny/super-resolution.yaml"),
        ", task: {target: super_resolution, params: {degradation: pil_bicubic, downscale_f: 2}}",
    ),
    (
        "hole",
        include_str!("../../../../configs/experiments/tiny/inpainting.yaml"),
        ", task: {target: inpainting, params: {masks: {target: thick}}}",
    ),
];

/// The config of the first stage that all four models share, taken from theirs.
fn first_stage() -> String {
    let (_, text) = TASKS[0].1.split_once("    first_stage_config:\n").unwrap();
    let (text, _) = text.split_once("    cond_stage_config:").unwrap();
    let model: Vec<&str> = text.lines().map(|line| &line[4..]).collect();
    format!("model:\n{}\n{}", model.join("\n"), data(""))
}

fn data(task: &str) -> String {
    format!(
        "data:\n  target: data_module\n  params:\n    batch_size: 2\n    num_workers: 0\n    train: {{target: scenes, \
         params: {{size: 16, objects: [1, 1], count: 8{task}}}}}\ntrain: {{steps: 2, learning_rate: 1.0e-3, \
         samples: {{count: 4, steps: 2}}}}\n"
    )
}

/// The super-resolution model without its condition.
fn unconditional() -> String {
    let model = TASKS[2].1;
    let unconditional =
        model.replace("    conditioning_key: concat\n", "").replace("in_channels: 6", "in_channels: 3");
    unconditional
        .replace("cond_stage_config:\n      target: identity", "cond_stage_config: __is_unconditional__")
}

fn trained() -> Sandbox {
    let sandbox = Sandbox::new(LDM, &[("first.yaml", &first_stage())]);
    sandbox.ok(&["train", "first.yaml", "--run", "first"]);
    let tasks = TASKS.map(|(name, model, task)| (name, model.to_owned(), task));
    for (name, model, task) in tasks.into_iter().chain([("plain", unconditional(), "")]) {
        std::fs::write(sandbox.path("second.yaml"), format!("{model}{}", data(task))).unwrap();
        let first = "model.params.first_stage_config.params.ckpt_path=first";
        sandbox.ok(&["train", "second.yaml", first, "--run", name]);
    }
    sandbox
}

fn image(sandbox: &Sandbox, name: &str, width: u32, height: u32) {
    let pixel = |x: u32, y: u32| Rgb([(x * 13 % 256) as u8, (y * 29 % 256) as u8, ((x + y) * 7 % 256) as u8]);
    RgbImage::from_fn(width, height, pixel).save(sandbox.path(name)).unwrap();
}

fn size(sandbox: &Sandbox, name: &str) -> (u32, u32) {
    image::image_dimensions(sandbox.path(name)).unwrap()
}

#[test]
fn each_task_generates_its_images() {
    let sandbox = trained();
    let two = ["-n", "2", "--steps", "2", "--out"];
    let generate = |words: &[&str], out: &str| {
        sandbox.ok(&[words, &two[..], &[out, "--save-latents", &format!("{out}.safetensors")]].concat())
    };
    upscales(&sandbox, &generate);
    inpaints(&sandbox, &generate);
    generates_from_boxes(&sandbox, &generate);
    generates_from_maps(&sandbox, &generate);
    outpaints(&sandbox, &generate);
    samples_in_tiles(&sandbox);
    interpolates_seeds(&sandbox);
    makes_again(&sandbox);
    // The error names the right command.
    for (model, command) in
        [("boxes", "layout2img"), ("map", "semantic2img"), ("small", "upscale"), ("hole", "inpaint")]
    {
        sandbox.err(&["sample", "--model", model, "--out", "no"], 1, &format!("try ldm {command}"));
    }
}

fn upscales(sandbox: &Sandbox, generate: &dyn Fn(&[&str], &str) -> String) {
    image(sandbox, "small.png", 8, 12);
    generate(&["upscale", "small.png", "--model", "small"], "large");
    assert_eq!(size(sandbox, "large/00001.png"), (16, 24), "a size other than the training size");
    assert_ne!(sandbox.pixels("large/00000.png"), sandbox.pixels("large/00001.png"));
    image(sandbox, "odd.png", 8, 9);
    sandbox.err(&["upscale", "odd.png", "--model", "small", "--out", "no"], 1, "odd.png");
    sandbox.err(&["upscale", "small.png", "--model", "hole", "--out", "no"], 1, "try ldm inpaint");
}

fn inpaints(sandbox: &Sandbox, generate: &dyn Fn(&[&str], &str) -> String) {
    image(sandbox, "photo.png", 16, 16);
    let white = |x: u32, y: u32| (4..12).contains(&x) && (4..10).contains(&y);
    let mask = |side: u32| GrayImage::from_fn(side, side, |x, y| Luma([if white(x, y) { 255 } else { 100 }]));
    mask(16).save(sandbox.path("mask.png")).unwrap();
    mask(32).save(sandbox.path("large.png")).unwrap();
    mask(4).save(sandbox.path("black.png")).unwrap();
    generate(&["inpaint", "photo.png", "mask.png", "--model", "hole"], "filled");
    generate(&["inpaint", "photo.png", "mask.png", "--model", "hole", "--feather", "1"], "soft");
    let [before, after, soft] =
        ["photo.png", "filled/00000.png", "soft/00000.png"].map(|name| sandbox.pixels(name));
    let mut changed = 0;
    for (at, (before, (after, soft))) in before.iter().zip(after.iter().zip(&soft)).enumerate() {
        let (x, y) = (at as u32 / 3 % 16, at as u32 / 48);
        if !white(x, y) {
            assert_eq!((before, before), (after, soft), "column {x}, row {y} is outside the mask");
        } else if (5..11).contains(&x) && (5..9).contains(&y) {
            assert_eq!(after, soft, "column {x}, row {y} is not at the edge");
            changed += u32::from(before != after);
        } else {
            let between = f64::midpoint(f64::from(*before), f64::from(*after));
            assert!((f64::from(*soft) - between).abs() <= 1., "column {x}, row {y}: {before} {after} {soft}");
        }
    }
    assert!(changed > 40, "{changed} of 72 values inside differ");
    // A model that is not trained for inpainting.
    generate(&["inpaint", "photo.png", "mask.png", "--model", "plain", "--strength", "0.5"], "blended");
    let blended = sandbox.pixels("blended/00001.png");
    let differs = before.iter().zip(&blended).enumerate().filter(|(_, (before, after))| before != after);
    let differs: Vec<(u32, u32)> = differs.map(|(at, _)| (at as u32 / 3 % 16, at as u32 / 48)).collect();
    assert!(differs.len() > 60 && differs.iter().all(|(x, y)| white(*x, *y)), "{differs:?}");
    let soft =
        ["inpaint", "photo.png", "mask.png", "--model", "plain", "--strength", "0.5", "--feather", "1"];
    generate(&soft, "blended-soft");
    let soft = sandbox.pixels("blended-soft/00001.png");
    for (at, (hard, soft)) in blended.iter().zip(&soft).enumerate() {
        let (x, y) = (at as u32 / 3 % 16, at as u32 / 48);
        if (5..11).contains(&x) && (5..9).contains(&y) {
            assert_eq!(hard, soft, "only the edge is blended, column {x}, row {y}");
        }
    }
    let plain = ["inpaint", "photo.png", "mask.png", "--model", "plain", "--out", "no", "--strength", "1.5"];
    sandbox.err(&plain, 2, "expected a number from 0 to 1");
    let fails = |words: &[&str], expected: &str| {
        sandbox.err(&[&["inpaint"], words, &["--model", "hole", "--out", "no"]].concat(), 1, expected);
    };
    fails(&["photo.png", "large.png"], "large.png: expected 16x16, as the image, got 32x32");
    generate(&["inpaint", "photo.png", "large.png", "--model", "hole", "--resize-mask"], "resized");
    fails(
        &["photo.png", "black.png", "--resize-mask"],
        "black.png: expected white pixels in the mask, got none",
    );
    fails(&["photo.png", "mask.png", "a cat"], "expected a text-conditional model for the prompt");
    fails(
        &["photo.png", "mask.png", "--negative-prompt", "a cat"],
        "expected a text-conditional model for --neg",
    );
    fails(
        &["photo.png", "mask.png", "--strength", "0.5"],
        "--strength: expected a model not trained for inpainting, got hole",
    );
    // Image and mask are resized together.
    image(sandbox, "double.png", 32, 32);
    let double = ["inpaint", "double.png", "large.png", "--model", "hole", "--resize", "16"];
    generate(&double, "small");
    assert_eq!(size(sandbox, "small/00000.png"), (16, 16));
    image(sandbox, "odd.png", 17, 16);
    fails(&["odd.png", "mask.png", "--resize-mask"], "odd.png");
}

fn generates_from_boxes(sandbox: &Sandbox, generate: &dyn Fn(&[&str], &str) -> String) {
    let own = |label: &str, rect: &str, more: &str| {
        format!("{{{more}\"boxes\": [{{\"label\": {label}, \"box\": {rect}}}]}}")
    };
    let write = |name: &str, text: String| std::fs::write(sandbox.path(name), text).unwrap();
    write("parts.json", own("\"star\"", "[0.25, 0.5, 0.25, 0.5]", ""));
    write("pixels.json", own("\"star\"", "[25, 100, 25, 100]", "\"width\": 100, \"height\": 200, "));
    let coco = r#"{"images": [{"id": 7, "file_name": "a.png", "width": 100, "height": 200},
                              {"id": 8, "file_name": "b.png", "width": 10, "height": 10}],
                   "annotations": [{"image_id": 7, "category_id": 3, "bbox": [25, 100, 25, 100]}],
                   "categories": [{"id": 3, "name": "star"}]}"#;
    write("coco.json", coco.into());
    for name in ["parts", "pixels", "coco"] {
        generate(&["layout2img", &format!("{name}.json"), "--model", "boxes"], name);
    }
    let pixels = |name: &str| sandbox.pixels(&format!("{name}/00001.png"));
    assert!(
        pixels("parts") == pixels("pixels") && pixels("parts") == pixels("coco"),
        "one layout in three formats"
    );
    write("other.json", own("\"circle\"", "[0.25, 0.5, 0.25, 0.5]", ""));
    generate(&["layout2img", "other.json", "--model", "boxes"], "other");
    // After two steps the condition has a small effect, below a pixel's resolution: compare latents.
    let latents = |name: &str| {
        Checkpoint::open(sandbox.path(&format!("{name}.safetensors"))).unwrap().tensor("latents").unwrap()
    };
    assert_ne!(latents("parts"), latents("other"));
    let fails = |text: String, expected: &str| {
        write("wrong.json", text);
        sandbox.err(&["layout2img", "wrong.json", "--model", "boxes", "--out", "no"], 1, expected);
    };
    fails(own("\"dog\"", "[0, 0, 1, 1]", ""), "wrong.json: label: expected one of circle, ");
    fails(own("10", "[0, 0, 1, 1]", ""), ", got 10");
    fails(own("\"star\"", "[0.5, 0, 0.6, 1]", ""), "within an image of 1 x 1, got [0.5, 0.0, 0.6, 1.0]");
    fails(own("\"star\"", "[0, 0, 1]", ""), "wrong.json");
    fails(own("\"star\"", "[0, 0, 1, 1]", "\"width\": 3, "), "both of width and height, or neither");
    fails(coco.replace("[25, 100", "[80, 100"), "within an image of 1 x 1");
    let coco = ["layout2img", "coco.json", "--model", "boxes", "--out", "no", "--image"];
    sandbox.err(&[&coco[..], &["b.png"]].concat(), 1, "coco.json: expected boxes of image b.png, got none");
}

fn generates_from_maps(sandbox: &Sandbox, generate: &dyn Fn(&[&str], &str) -> String) {
    let label = |x: u32, _y: u32| if x < 8 { 1 } else { 3 };
    let save = |name: &str, of: &dyn Fn(u32, u32) -> u8| {
        GrayImage::from_fn(16, 16, |x, y| Luma([of(x, y)])).save(sandbox.path(name)).unwrap();
    };
    save("map.png", &label);
    save("wrong.png", &|x, y| if (x, y) == (2, 3) { 11 } else { 0 });
    let colors = [[0, 0, 0], [200, 0, 0], [0, 0, 200], [0, 200, 0]];
    let color = |x: u32, y: u32| Rgb(colors[usize::from(label(x, y))]);
    RgbImage::from_fn(16, 16, color).save(sandbox.path("colored.png")).unwrap();
    let classes: Vec<_> =
        (0..4).map(|id| serde_json::json!({"id": id, "name": "x", "color": colors[id]})).collect();
    std::fs::write(sandbox.path("palette.json"), serde_json::json!({"classes": classes}).to_string())
        .unwrap();
    generate(&["semantic2img", "map.png", "--model", "map"], "drawn");
    generate(&["semantic2img", "colored.png", "--palette", "palette.json", "--model", "map"], "colored");
    assert_eq!(sandbox.pixels("drawn/00001.png"), sandbox.pixels("colored/00001.png"));
    let fails = |words: &[&str], expected: &str| {
        sandbox.err(&[&["semantic2img"], words, &["--model", "map", "--out", "no"]].concat(), 1, expected);
    };
    fails(&["wrong.png"], "expected a class from 0 to 10 at column 2, row 3, got 11");
    fails(
        &["colored.png"],
        "colored.png: expected a gray or palette PNG of at most 8 bits, got Rgb of 8 bits",
    );
    fails(
        &["photo.png", "--palette", "palette.json"],
        "expected a color of palette.json at column 1, row 0, got [",
    );
}

fn outpaints(sandbox: &Sandbox, generate: &dyn Fn(&[&str], &str) -> String) {
    for model in ["hole", "plain"] {
        let out = format!("on-{model}");
        generate(&["outpaint", "photo.png", "--left", "4", "--bottom", "8", "--model", model], &out);
        let path = format!("{out}/00001.png");
        assert_eq!(size(sandbox, &path), (20, 24));
        let (before, after) = (sandbox.pixels("photo.png"), sandbox.pixels(&path));
        for (row, before) in before.chunks(48).enumerate() {
            assert_eq!(before, &after[row * 60 + 12..(row + 1) * 60], "{model}: row {row} of the image");
        }
        let added: Vec<u8> = (0..16).flat_map(|row| after[row * 60..row * 60 + 12].to_vec()).collect();
        let next_to_it: Vec<u8> =
            (0..16).flat_map(|row| after[row * 60 + 12..row * 60 + 24].to_vec()).collect();
        assert_ne!(added, next_to_it);
    }
    let none = ["outpaint", "photo.png", "--model", "hole", "--out", "no"];
    sandbox.err(&none, 1, "expected --left, --right, --top or --bottom, got none");
    let deep = ["--left", "4", "--feather", "4"];
    let deepest = "feather: expected at most 3 for a mask 4 pixels deep, got 4";
    sandbox.err(&[&none[..], &deep].concat(), 1, deepest);
    sandbox.err(&[&none[..], &["--left", "4000000000"]].concat(), 2, "--left");
    sandbox.err(
        &[&none[..], &["--left", "3"]].concat(),
        1,
        "expected height and width in multiples of 2, got 16x19; try 16x18 or 16x20",
    );
}

fn sample<'a>(extra: &[&'a str], out: &'a str) -> Vec<&'a str> {
    [&["sample", "--model", "plain", "--steps", "2", "--out", out], extra].concat()
}

fn samples_in_tiles(sandbox: &Sandbox) {
    let large = ["--height", "256", "--width", "264", "--tile", "64", "--preview-every", "2"];
    sandbox.ok(&sample(&large, "large-tiles"));
    assert_eq!(size(sandbox, "large-tiles/00000.png"), (264, 256));
    assert_eq!(size(sandbox, "large-tiles/previews/00000-step-0002.png"), (132, 128));
    assert!(sandbox.ok(&["inspect", "large-tiles/00000.png"]).contains("Tile: 64, Version"));
    sandbox.ok(&sample(&[&large[..], &["--watermark"]].concat(), "marked"));
    let mut marked = image::open(sandbox.path("large-tiles/00000.png")).unwrap().into_rgb8();
    watermark::embed(&mut marked, watermark::STABLE_DIFFUSION).unwrap();
    assert!(sandbox.pixels("marked/00000.png") == *marked.as_raw());
    // This image retains its watermark; other images may lose it.
    let mut gray = RgbImage::from_pixel(256, 256, Rgb([128, 128, 132]));
    watermark::embed(&mut gray, watermark::STABLE_DIFFUSION).unwrap();
    gray.save(sandbox.path("gray.png")).unwrap();
    assert!(sandbox.ok(&["inspect", "gray.png"]).contains("watermark: StableDiffusionV1"));
    sandbox.err(
        &sample(&["--watermark"], "no"),
        1,
        "expected at least 65536 pixels and a block of 8x8 pixels",
    );
    sandbox.err(&sample(&["--preview-every", "0"], "no"), 2, "--preview-every");
    sandbox.err(
        &sample(&["--preview-every", "3"], "no"),
        1,
        "--preview-every: expected at most 2, the number of steps, got 3",
    );
    sandbox.err(&sample(&["--guidance-rescale", "0.7"], "no"), 1, "expected a guidance scale other than 1");
    sandbox.err(
        &sample(&["--tile", "15"], "no"),
        1,
        "tile: expected a multiple of 4 pixels (nearest: 12 and 16), got 15",
    );
    sandbox.err(&sample(&["--height", "18", "--width", "16"], "no"), 1, "(nearest: 16 and 20), got 18");
    sandbox.err(&["sample", "--model", "plain", "--out", "no", "--steps", "1001"], 1, "1001");
    sandbox.err(&sample(&["--sampler", "best"], "no"), 2, "possible values: ddpm, ddim");
    let boxes = ["layout2img", "parts.json", "--model", "boxes", "--tile", "8", "--out", "no"];
    sandbox.err(&boxes, 1, "tile: expected a model without a layout");
}

fn interpolates_seeds(sandbox: &Sandbox) {
    let sample = |seed: &str, extra: &[&str], out: &str| {
        sandbox.ok(&sample(&[&["--seed", seed], extra].concat(), out));
    };
    sample("3", &["-n", "1"], "from");
    sample("9", &["-n", "1"], "to");
    sample("3", &["-n", "3", "--variation-seed", "9", "--variation-strength", "0..1"], "between");
    let pixels = |name: &str| sandbox.pixels(name);
    // Alone and in a batch the last bits differ, which may round to another gray value.
    for (alone, in_batch) in [("from/00000.png", "between/00000.png"), ("to/00000.png", "between/00002.png")]
    {
        let (alone, in_batch) = (pixels(alone), pixels(in_batch));
        assert!(
            alone.iter().zip(&in_batch).all(|(a, b)| a.abs_diff(*b) <= 1) && alone.len() == in_batch.len()
        );
    }
    assert!(
        pixels("between/00001.png") != pixels("between/00000.png")
            && pixels("between/00001.png") != pixels("between/00002.png")
    );
    let stdout = sandbox.ok(&["inspect", "between/00001.png"]);
    assert!(
        stdout.contains("Seed: 3, ") && stdout.contains("Variation seed: 9, Variation seed strength: 0.5"),
        "{stdout}"
    );
    let alone = ["sample", "--model", "plain", "--out", "no", "--variation-seed", "9"];
    sandbox.err(&alone, 2, "--variation-strength");
}

/// Each task is made again from the parameters of its second image, byte for byte.
fn makes_again(sandbox: &Sandbox) {
    let images = ["large", "filled", "soft", "blended", "resized", "small", "on-hole", "on-plain"];
    for name in images.iter().chain(&["parts", "coco", "drawn", "colored"]) {
        let image = format!("{name}/00001.png");
        let again = format!("{name}-again");
        let (_, stderr) = sandbox.output(&["redo", &image, "--out", &again, "--skip-grid"]);
        assert_eq!(stderr, "", "{name}");
        let read = |path: &str| std::fs::read(sandbox.path(path)).unwrap();
        assert!(read(&image) == read(&format!("{again}/00001.png")), "{name}");
    }
}
