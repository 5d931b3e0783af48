//! `ldm eval` as a person meets it.

#![allow(clippy::unwrap_used, reason = "clippy knows tests, not the functions beside them")]

mod desk;

use desk::Desk;
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
    num_workers: 0
    train: {target: scenes, params: {size: 16, objects: [1, 1], count: 64}}
    validation: {target: scenes, params: {size: 16, objects: [1, 1], count: 24, split: validation}}
train: {steps: 2, learning_rate: 1.0e-3, samples: {count: 4}}
";

fn number(document: &Value, name: &str) -> f64 {
    document[name].as_f64().unwrap_or_else(|| panic!("{name}: {document}"))
}

#[test]
fn reconstructions_and_made_pictures_are_measured() {
    let desk = Desk::new(&[("first.yaml", FIRST_STAGE)]);
    desk.done(&["train", "first.yaml", "--run", "first"]);
    let measure = |data: &str, extra: &[&str]| {
        let words = ["eval", "reconstruction", data, "--model", "first", "--json"];
        let said = desk.done(&[&words[..], extra].concat());
        serde_json::from_str::<Value>(&said).unwrap()
    };
    // Of a config what is held back; the numbers do not depend on batches.
    let all = measure("first.yaml", &["--out", "all"]);
    let batches = measure("first.yaml", &["--batch-size", "5", "--out", "batches"]);
    assert_eq!(all["images"], 24);
    for (name, part) in [("psnr", "mean"), ("ssim", "std"), ("lpips", "mean")] {
        let [one, other] = [&all, &batches].map(|document| number(&document[name], part));
        assert!((one / other - 1.).abs() < 1e-4, "{name}: {one} {other}");
    }
    assert!(number(&all, "frechet_distance") > 0.);
    assert_eq!(all["features"], "random VGG16, mean of relu5_3");
    let written: Value =
        serde_json::from_slice(&std::fs::read(desk.path("all/results.json")).unwrap()).unwrap();
    assert_eq!(written, all, "the file is what was said");
    // Eight pictures over eight.
    assert_eq!(image::image_dimensions(desk.path("all/worst.png")).unwrap(), (8 * 18 + 2, 2 * 18 + 2));
    assert!(desk.pixels("all/worst.png") != desk.pixels("all/best.png"));
    let some = measure("scenes", &["--size", "16", "-n", "6", "--out", "some"]);
    assert_eq!(some["images"], 6);

    let fails = |words: &[&str], code: i32, expected: &str| {
        desk.fails(&[&["eval"], words].concat(), code, expected);
    };
    let first = ["reconstruction", "first.yaml", "--model", "first", "--out"];
    fails(
        &[&first[..], &["all"]].concat(),
        1,
        "results.json: exists, and is not overwritten without --force",
    );
    fails(&[&first[..], &["no", "-n", "25"]].concat(), 1, "has 24 pictures, 25 are asked for");
    fails(&[&first[..], &["no", "--size", "16"]].concat(), 1, "--size: first.yaml says how large");
    fails(
        &["reconstruction", "scenes", "--size", "17", "--model", "first", "--out", "no"],
        1,
        "must be multiples of 2",
    );

    // Made pictures: an output folder of ours, without its grid.
    let files: Vec<String> = (0..12)
        .map(|index| {
            let name = format!("picture-{index}.png");
            let grey = image::Rgb([40 + 15 * index as u8, 90, 200 - 10 * index as u8]);
            let picture = image::RgbImage::from_fn(16, 16, |x, y| {
                if (x + y) % (index + 2) == 0 { grey } else { image::Rgb([255; 3]) }
            });
            picture.save(desk.path(&name)).unwrap();
            name
        })
        .collect();
    let mut words = vec!["reconstruct", "--model", "first", "--out", "made"];
    words.extend(files.iter().map(String::as_str));
    desk.done(&words);
    assert!(desk.path("made/grid.png").is_file());
    let compare = |made: &str, real: &str| {
        let said = desk.done(&["eval", "generation", made, real, "--size", "16", "-n", "12", "--json"]);
        serde_json::from_str::<Value>(&said).unwrap()
    };
    let apart = compare("made", "scenes");
    assert_eq!((&apart["made_images"], &apart["inception_score"]), (&Value::from(12), &Value::Null));
    assert!(number(&apart, "frechet_distance") > 0. && number(&apart["kernel_distance"], "mean") > 0.);
    std::fs::remove_file(desk.path("made/grid.png")).unwrap();
    let same = compare("made", "made");
    assert!(number(&same, "frechet_distance").abs() < 1e-3 * number(&apart, "frechet_distance"), "{same}");
    for name in ["precision", "recall", "coverage"] {
        assert_eq!(number(&same, name), 1., "{name}");
    }
    assert!(
        desk.done(&["eval", "generation", "made", "scenes", "--size", "16", "-n", "9"])
            .contains("9 made pictures")
    );
    fails(&["generation", "none", "scenes", "--size", "16"], 1, "none");
}
