//! `ldm eval`: metrics of reconstructions and of generated images.

use ldm_testing::Sandbox;
use ldm_testing::tiny;
use serde_json::Value;

use crate::LDM;

fn first_stage() -> String {
    let held_out = "{target: scenes, params: {size: 16, objects: [1, 1], count: 24, split: validation}}";
    let data = format!("batch_size: 4, num_workers: 0, validation: {held_out}");
    tiny::first_stage(&data, "steps: 2, learning_rate: 1.0e-3, samples: {count: 4}")
}

fn diffusion() -> String {
    let train = "steps: 2, learning_rate: 1.0e-3, samples: {count: 4, steps: 2}, conditioning_dropout: 0.1";
    tiny::diffusion("batch_size: 4, num_workers: 0", train)
        .replace("scale_by_std: true", "conditioning_key: crossattn")
}

fn number(document: &Value, name: &str) -> f64 {
    document[name].as_f64().unwrap_or_else(|| panic!("{name}: {document}"))
}

#[test]
fn reconstructions_and_generated_images_are_evaluated() {
    let sandbox = Sandbox::new(LDM, &[("first.yaml", &first_stage())]);
    sandbox.ok(&["train", "first.yaml", "--run", "first"]);
    let measure = |data: &str, extra: &[&str]| {
        let words = ["eval", "reconstruction", data, "--model", "first", "--json"];
        let stdout = sandbox.ok(&[&words[..], extra].concat());
        serde_json::from_str::<Value>(&stdout).unwrap()
    };
    // The held-out set of a config; the numbers do not depend on batches.
    let all = measure("first.yaml", &["--out", "all"]);
    let batches = measure("first.yaml", &["--batch-size", "5", "--out", "batches"]);
    assert_eq!(all["images"], 24);
    for (name, part) in [("psnr", "mean"), ("ssim", "std"), ("lpips", "mean")] {
        let [one, other] = [&all, &batches].map(|document| number(&document[name], part));
        assert!((one / other - 1.).abs() < 1e-4, "{name}: {one} {other}");
    }
    assert!(number(&all, "frechet_distance") > 0.);
    assert_eq!(all["ms_ssim"], Value::Null, "sixteen pixels have no five scales");
    assert_eq!(all["features"], "random VGG16, mean of relu5_3");
    let written: Value =
        serde_json::from_slice(&std::fs::read(sandbox.path("all/results.json")).unwrap()).unwrap();
    assert_eq!(written, all, "the file equals the output");
    // Eight images over eight.
    assert_eq!(image::image_dimensions(sandbox.path("all/worst.png")).unwrap(), (8 * 18 + 2, 2 * 18 + 2));
    assert!(sandbox.pixels("all/worst.png") != sandbox.pixels("all/best.png"));
    let some = measure("scenes", &["--size", "16", "-n", "6", "--out", "some"]);
    assert_eq!(some["images"], 6);

    let fails = |words: &[&str], code: i32, expected: &str| {
        sandbox.err(&[&["eval"], words].concat(), code, expected);
    };
    let first = ["reconstruction", "first.yaml", "--model", "first", "--out"];
    fails(
        &[&first[..], &["all"]].concat(),
        1,
        "results.json: expected a new path, got an existing one; try --force",
    );
    fails(&[&first[..], &["no", "-n", "25"]].concat(), 1, "expected at most the 24 images of scenes, got 25");
    fails(&[&first[..], &["no", "--size", "16"]].concat(), 1, "--size: expected images, got first.yaml");
    fails(
        &["reconstruction", "scenes", "--size", "17", "--model", "first", "--out", "no"],
        1,
        "multiples of 2",
    );

    // Generated images: an output folder without its grid.
    let files: Vec<String> = (0..12)
        .map(|index| {
            let name = format!("image-{index}.png");
            let gray = image::Rgb([40 + 15 * index as u8, 90, 200 - 10 * index as u8]);
            let image = image::RgbImage::from_fn(16, 16, |x, y| {
                if (x + y) % (index + 2) == 0 { gray } else { image::Rgb([255; 3]) }
            });
            image.save(sandbox.path(&name)).unwrap();
            name
        })
        .collect();
    let mut words = vec!["reconstruct", "--model", "first", "--out", "made"];
    words.extend(files.iter().map(String::as_str));
    sandbox.ok(&words);
    assert!(sandbox.path("made/grid.png").is_file());
    let compare = |made: &str, real: &str| {
        let stdout = sandbox.ok(&["eval", "generation", made, real, "--size", "16", "-n", "12", "--json"]);
        serde_json::from_str::<Value>(&stdout).unwrap()
    };
    let apart = compare("made", "scenes");
    assert_eq!((&apart["made_images"], &apart["inception_score"]), (&Value::from(12), &Value::Null));
    assert!(number(&apart, "frechet_distance") > 0. && number(&apart["kernel_distance"], "mean") > 0.);
    std::fs::remove_file(sandbox.path("made/grid.png")).unwrap();
    let same = compare("made", "made");
    assert!(number(&same, "frechet_distance").abs() < 1e-3 * number(&apart, "frechet_distance"), "{same}");
    for name in ["precision", "recall", "coverage"] {
        assert_eq!(number(&same, name), 1., "{name}");
    }
    assert!(
        sandbox
            .ok(&["eval", "generation", "made", "scenes", "--size", "16", "-n", "9"])
            .contains("9 generated images")
    );
    fails(&["generation", "none", "scenes", "--size", "16"], 1, "none");
}

#[test]
fn images_generated_on_the_fly_equal_saved_ones() {
    let sandbox = Sandbox::new(LDM, &[("first.yaml", &first_stage()), ("second.yaml", &diffusion())]);
    sandbox.ok(&["train", "first.yaml", "--run", "first"]);
    sandbox.ok(&["train", "second.yaml", "--run", "second"]);
    let measure = |words: &[&str]| {
        let (stdout, stderr) =
            sandbox.output(&[&["eval", "generation", "--json", "--size", "16"], words].concat());
        (serde_json::from_str::<Value>(&stdout).unwrap(), stderr)
    };
    // Twelve images that cycle through ten classes, without the null class.
    let how = ["--steps", "2", "--seed", "3", "--eta", "1", "--guidance-scale", "2"];
    let classes = "0,1,2,3,4,5,6,7,8,9";
    let words = ["sample", "--model", "second", "-n", "12", "--class", classes, "--out", "made"];
    sandbox.ok(&[&words[..], &how].concat());
    let words = ["--model", "second", "scenes", "-n", "12", "--batch-size", "5", "--out", "fly"];
    let (fly, stderr) = measure(&[&words[..], &how].concat());
    let (saved, _) = measure(&["made", "scenes", "-n", "12", "--out", "saved"]);
    for name in ["frechet_distance", "precision", "recall", "density", "coverage"] {
        let [one, other] = [&fly, &saved].map(|document| number(document, name));
        assert!((one - other).abs() <= 1e-6 * other.abs(), "{name}: {one} {other}");
    }
    let [one, other] = [&fly, &saved].map(|document| number(&document["nearest_real"], "mean"));
    assert!((one / other - 1.).abs() < 1e-6);
    let rank = "12 images for 512 features: their covariance has not full rank";
    assert!(stderr.lines().any(|line| line.starts_with("warning: ") && line.contains(rank)), "{stderr}");
    let sampling = &fly["sampling"];
    for (name, value) in [("seed", 3.), ("steps", 2.), ("eta", 1.), ("guidance_scale", 2.), ("classes", 10.)]
    {
        assert_eq!(number(sampling, name), value, "{name}");
    }
    assert_eq!((&sampling["model"], &sampling["sampler"]), (&Value::from("second"), &Value::from("ddim")));
    assert_eq!((&fly["made_images"], &fly["images"]), (&Value::from(12), &Value::from(12)));
    assert_eq!(fly["fingerprint"], saved["fingerprint"]);
    assert_eq!(fly["features"], "random VGG16, mean of relu5_3");
    let written: Value =
        serde_json::from_slice(&std::fs::read(sandbox.path("fly/results.json")).unwrap()).unwrap();
    assert_eq!(written, fly, "the file equals the output");
    assert_eq!(image::image_dimensions(sandbox.path("fly/worst.png")).unwrap(), (8 * 18 + 2, 18 + 2));
    assert!(sandbox.pixels("fly/worst.png") != sandbox.pixels("fly/best.png"));
    let places = ["best", "worst"].map(|name| fly["nearest_real"][name].as_array().unwrap().clone());
    assert!(places[0][0]["name"].as_str().unwrap().starts_with("seed "));
    assert!(number(&places[0][0], "value") < number(&places[1][0], "value"));

    // Statistics in a file give the same metrics, where mean and covariance are enough.
    let file = ["scenes", "-n", "12", "--save-statistics", "real.npz"];
    assert_eq!(sandbox.ok(&[&["eval", "generation", "--size", "16"], &file[..]].concat()), "real.npz\n");
    let (summed, _) = measure(&["made", "real.npz", "--out", "summed"]);
    assert_eq!(summed["frechet_distance"], saved["frechet_distance"]);
    for name in ["dataset", "images", "fingerprint"] {
        assert_eq!(summed[name], saved[name], "{name}");
    }
    for name in ["kernel_distance", "precision", "nearest_real", "spatial_frechet_distance"] {
        assert_eq!(summed[name], Value::Null, "{name}");
    }
    assert_eq!(summed["statistics"]["sha256"].as_str().map(str::len), Some(64));
    assert!(!sandbox.path("summed/best.png").exists());
    let stdout = sandbox.ok(&["eval", "generation", "made", "real.npz", "--out", "table"]);
    assert!(stdout.contains("12 generated images (made)\n12 real images (scenes)\n"), "{stdout}");
    refuses(&sandbox);
}

fn refuses(sandbox: &Sandbox) {
    let fails = |words: &[&str], code: i32, expected: &str| {
        sandbox.err(&[&["eval", "generation"], words].concat(), code, expected);
    };
    fails(&["made", "real.npz", "--out", "table"], 1, "results.json: expected a new path");
    fails(&["scenes", "-n", "12", "--save-statistics", "real.npz"], 1, "real.npz: expected a new path");
    fails(
        &["made", "real.npz", "--save-statistics", "x.npz"],
        1,
        "expected images, got the statistics real.npz",
    );
    fails(&["scenes"], 2, "required");
    fails(&["made", "scenes", "--model", "second"], 2, "cannot be used with");
    fails(&["made", "scenes", "--steps", "2"], 1, "--steps: expected --model");
    fails(&["--model", "first", "scenes"], 1, "a first stage alone");
    fails(
        &["--model", "second", "scenes", "--steps", "2000"],
        1,
        "steps: expected 1 to 1000, the timesteps of this model, got 2000",
    );
    fails(&["made", "scenes", "--features", "resnet"], 2, "random-vgg16");
    fails(&["made", "scenes", "--features", "inception"], 1, "ldm weights get fid-inception");

    // Statistics of another feature network, detected by its name or its size.
    let other = |features: i64, name: Option<&str>| {
        use ldm_metrics::{Gaussian, Origin, SetMoments};
        let options = (tch::Kind::Double, tch::Device::Cpu);
        let pooled = Gaussian {
            mean: tch::Tensor::zeros([features], options),
            covariance: tch::Tensor::eye(features, options),
        };
        let origin = Origin { features: name.map(Into::into), ..Origin::default() };
        SetMoments { pooled, spatial: None, origin }.write_npz(sandbox.path("other.npz")).unwrap();
    };
    other(64, None);
    fails(
        &["made", "other.npz"],
        1,
        "statistics: expected 512 features of random VGG16, mean of relu5_3, got 64",
    );
    other(512, Some("VGG16, mean of relu5_3"));
    fails(
        &["made", "other.npz"],
        1,
        "statistics: expected features of random VGG16, mean of relu5_3, got VGG16, mean of relu5_3",
    );
    other(512, None);
    fails(&["--model", "second", "other.npz"], 1, "--num-images: expected a number");

    // Folders that cannot be evaluated.
    std::fs::create_dir(sandbox.path("empty")).unwrap();
    fails(&["made", "empty", "--size", "16"], 1, "empty: expected images, got no file");
    fails(&["empty", "scenes", "--size", "16"], 1, "empty: expected images, got no file");
    std::fs::create_dir(sandbox.path("mixed")).unwrap();
    for (name, side) in [("a.png", 16), ("b.png", 24)] {
        image::RgbImage::new(side, side).save(sandbox.path(&format!("mixed/{name}"))).unwrap();
    }
    fails(&["made", "mixed"], 1, "b.png: expected 16x16, as a.png, got 24x24; try --size");
    fails(&["mixed", "scenes"], 1, "b.png: expected 16x16, as a.png, got 24x24; try --size");
    // Scenes have 64 pixels a side, the generated images 16.
    fails(
        &["made", "scenes", "-n", "4"],
        1,
        "expected 64x64, as the images before it, got 16x16; try --size",
    );
    fails(
        &["--model", "second", "scenes", "-n", "4", "--steps", "2", "--size", "24"],
        1,
        "seed 0: expected 24x24, as the images before it, got 16x16; try another --size",
    );
}

#[test]
fn pairs_and_the_rate_distortion_curve_are_evaluated() {
    let sandbox = Sandbox::new(LDM, &[("first.yaml", &first_stage()), ("second.yaml", &diffusion())]);
    for (folder, files) in [("made", ["a.png", "c.png"]), ("real", ["a.png", "b.png"])] {
        std::fs::create_dir(sandbox.path(folder)).unwrap();
        for name in files {
            let image = image::RgbImage::from_fn(16, 16, |x, y| {
                image::Rgb([(x * 16) as u8, (y * 16) as u8, if folder == "made" { 90 } else { 100 }])
            });
            image.save(sandbox.path(&format!("{folder}/{name}"))).unwrap();
        }
    }
    let (stdout, stderr) = sandbox.output(&["eval", "paired", "made", "real", "--json"]);
    let found: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(
        (&found["images"], &found["made_unmatched"][0], &found["unmatched"][0]),
        (&Value::from(1), &Value::from("c.png"), &Value::from("b.png"))
    );
    // Blue differs by ten gray levels, a third of the values.
    let want = 10. * (255_f64.powi(2) / (100. / 3.)).log10();
    assert!((number(&found["psnr"], "mean") - want).abs() < 1e-6, "{found}");
    assert!(stderr.contains("warning: no original of this name, left out: c.png"), "{stderr}");
    assert!(sandbox.ok(&["eval", "paired", "made", "real"]).starts_with("1 pairs of made and real\nPSNR  "));
    sandbox.err(
        &["eval", "paired", "made", "real", "--strict"],
        1,
        "expected images in pairs, got 1 without",
    );

    sandbox.ok(&["train", "first.yaml", "--run", "first"]);
    sandbox.ok(&["train", "second.yaml", "--run", "second"]);
    let words = ["eval", "rate-distortion", "second.yaml", "--model", "second", "-n", "3", "--steps", "4"];
    let stdout = sandbox.ok(&[&words[..], &["--out", "curve", "--json"]].concat());
    let found: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&found["images"], found["points"].as_array().map(Vec::len)), (&Value::from(3), Some(4)));
    assert!(number(&found["points"][3], "rate") > number(&found["points"][0], "rate"), "{found}");
    let written: Value =
        serde_json::from_slice(&std::fs::read(sandbox.path("curve/results.json")).unwrap()).unwrap();
    assert_eq!(written, found, "the file equals the output");
    assert!(std::fs::read_to_string(sandbox.path("curve/curve.svg")).unwrap().starts_with("<svg"));
    assert_eq!(std::fs::read_to_string(sandbox.path("curve/curve.csv")).unwrap().lines().count(), 5);
    sandbox.err(&[&words[..], &["--out", "curve"]].concat(), 1, "expected a new path");
    let first = ["eval", "rate-distortion", "second.yaml", "--model", "first", "--out", "no"];
    sandbox.err(&first, 1, "expected a diffusion model, got a first stage alone");
}

/// A tiny CLIP with a vocabulary of letters, and the weights of the golden tests of `ldm-conditioning`.
pub(crate) fn clip(sandbox: &Sandbox) -> ldm_conditioning::Clip {
    use ldm_testing::{Golden, filled};
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../ldm-conditioning/tests/golden/clip.safetensors");
    let golden = Golden::open(golden, tch::Device::Cpu);
    let folder = sandbox.path("clip");
    std::fs::create_dir(&folder).unwrap();
    let tensors = filled(&serde_json::from_str(golden.metadata("shapes")).unwrap(), 6);
    ldm_checkpoint::save(folder.join("model.safetensors"), &tensors, &std::collections::BTreeMap::new())
        .unwrap();
    std::fs::write(folder.join("config.json"), golden.metadata("config")).unwrap();
    let letters = ('a'..='z').flat_map(|letter| [letter.to_string(), format!("{letter}</w>")]);
    let tokens = letters.chain(["<|startoftext|>".into(), "<|endoftext|>".into()]);
    let vocab: serde_json::Map<String, Value> =
        tokens.enumerate().map(|(number, token)| (token, Value::from(number))).collect();
    std::fs::write(folder.join("vocab.json"), Value::Object(vocab).to_string()).unwrap();
    std::fs::write(folder.join("merges.txt"), "#version: 0.2\n").unwrap();
    ldm_conditioning::Clip::open(folder, tch::Device::Cpu).unwrap()
}

#[test]
fn clip_scores_compare_each_image_with_its_prompt() {
    let sandbox = Sandbox::new(LDM, &[("prompts.txt", "red\na blue\n"), ("three.txt", "a\nb\nc\n")]);
    let clip = clip(&sandbox);
    std::fs::create_dir(sandbox.path("made")).unwrap();
    let images: Vec<tch::Tensor> = [("red", [200, 20, 40]), ("a blue", [10, 30, 250])]
        .iter()
        .enumerate()
        .map(|(number, (prompt, color))| {
            let image = image::RgbImage::from_fn(20, 20, |x, y| {
                image::Rgb([color[0], color[1] + x as u8, color[2] - y as u8])
            });
            let text = format!("{prompt}\nNegative prompt: gray\nSteps: 2, Sampler: ddim");
            let bytes = ldm_core::image::png(&image.clone().into(), &[("parameters", &text)]);
            std::fs::write(sandbox.path(&format!("made/0000{number}.png")), bytes).unwrap();
            ldm_core::image::from_rgb8(&image)
        })
        .collect();
    let measure = |words: &[&str]| {
        let stdout =
            sandbox.ok(&[&["eval", "clip-score", "made", "--clip", "clip", "--json"], words].concat());
        serde_json::from_str::<Value>(&stdout).unwrap()
    };
    let own = measure(&[]);
    let texts = clip.texts(&ldm_core::Prompt::text(["red", "a blue"])).unwrap();
    let shown = clip.images(&tch::Tensor::stack(&images, 0)).unwrap();
    let want = (texts * shown).sum(tch::Kind::Double).double_value(&[]) * 50.;
    let got = number(&own["clip_score"], "mean");
    assert!((got / want - 1.).abs() < 1e-4, "{got} {want}");
    assert_eq!((&own["made_images"], &own["clip"]), (&Value::from(2), &Value::from("clip")));
    let given = measure(&["--prompts-from", "prompts.txt", "--batch-size", "1"]);
    assert!((number(&given["clip_score"], "mean") / got - 1.).abs() < 1e-5);
    std::fs::write(sandbox.path("prompts.txt"), "a blue\nred\n").unwrap();
    let swapped = measure(&["--prompts-from", "prompts.txt"]);
    assert!((number(&swapped["clip_score"], "mean") / got - 1.).abs() > 1e-3, "{swapped}");
    assert!(
        sandbox
            .ok(&["eval", "clip-score", "made", "--clip", "clip"])
            .contains("2 generated images (made), by clip")
    );

    let fails = |words: &[&str], expected: &str| {
        sandbox.err(&[&["eval", "clip-score", "made"], words].concat(), 1, expected);
    };
    fails(
        &["--clip", "clip", "--prompts-from", "three.txt"],
        "three.txt: expected 2 lines, one per image, got 3",
    );
    fails(&["--clip", "none"], "config.json");
    image::RgbImage::new(20, 20).save(sandbox.path("made/00002.png")).unwrap();
    fails(&["--clip", "clip"], "00002.png: expected a prompt in its PNG text; try --prompts-from");
    std::fs::write(sandbox.path("made/00002.png"), b"no image").unwrap();
    let found = measure(&[]);
    assert_eq!(
        (&found["made_images"], found["made_unreadable"].as_array().map(Vec::len)),
        (&Value::from(2), Some(1))
    );
    fails(&["--clip", "clip", "--strict"], "00002.png: expected an image");
}
