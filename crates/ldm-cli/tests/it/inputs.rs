//! Odd inputs of the command line: unreadable images, entries that are no files, orientation, encodings, hostile sizes.

use std::os::unix::fs::symlink;

use image::{ImageEncoder, Rgb, RgbImage};
use ldm_testing::{Sandbox, claiming_png, listing, tiny};
use serde_json::Value;

use crate::LDM;

/// Folders `a`, six images; `b`, five and one of junk; `bad`, six of junk.
fn sets() -> Sandbox {
    let first = tiny::first_stage(
        "batch_size: 4, num_workers: 0",
        "steps: 2, learning_rate: 1.0e-3, samples: {count: 0}",
    );
    let sandbox = Sandbox::new(LDM, &[("first.yaml", &first)]);
    for name in ["a", "b", "bad"] {
        std::fs::create_dir(sandbox.path(name)).unwrap();
        for number in 0..6u8 {
            let path = sandbox.path(&format!("{name}/{number}.png"));
            let image = RgbImage::from_fn(32, 32, |x, y| Rgb([x as u8 * 8, y as u8 * 8, number * 40]));
            image.save(&path).unwrap();
            if name == "bad" || name == "b" && number == 3 {
                std::fs::write(path, "junk").unwrap();
            }
        }
    }
    sandbox
}

const UNREADABLE: &str = "b/3.png: expected an image, got first bytes that are none of png";

#[test]
fn unreadable_images_are_named_where_numbers_are_made() {
    let sandbox = sets();
    sandbox.ok(&["train", "first.yaml", "--run", "first"]);
    let evaluate = |words: &[&str]| {
        let (stdout, stderr) = sandbox.output(&[&["eval"], words, &["--size", "32", "--json"]].concat());
        assert!(stderr.contains(&format!("warning: unreadable, left out: {UNREADABLE}")), "{stderr}");
        serde_json::from_str::<Value>(&stdout).unwrap()
    };
    let features = ["--features", "random-vgg16"];
    let named = |found: &Value, key: &str| {
        let list = found[key].as_array().unwrap();
        assert!(list.len() == 1 && list[0].as_str().unwrap().starts_with(UNREADABLE), "{found}");
    };
    let found = evaluate(&[&["generation", "a", "b", "--out", "e0"][..], &features].concat());
    assert_eq!((&found["made_images"], &found["images"]), (&6.into(), &5.into()));
    named(&found, "unreadable");
    let found = evaluate(&[&["generation", "b", "a", "--out", "e1"][..], &features].concat());
    assert_eq!((&found["made_images"], &found["images"]), (&5.into(), &6.into()));
    named(&found, "made_unreadable");
    assert_eq!(found["unreadable"], Value::Array(Vec::new()));
    let found = evaluate(&["reconstruction", "b", "--model", "first", "--out", "e2"]);
    assert_eq!(found["images"], 5);
    named(&found, "unreadable");

    let none = "bad: expected readable images, got none of 6, e.g. bad/";
    for words in
        [["generation", "a", "bad"], ["generation", "bad", "a"], ["reconstruction", "bad", "--model=first"]]
    {
        let words = [&["eval"], &words[..], &["--size", "32", "--out", "no"]].concat();
        sandbox.err(&words, 1, none);
        let one: Vec<&str> = words.iter().map(|&word| if word == "bad" { "b" } else { word }).collect();
        sandbox.err(&[&one[..], &["--strict"]].concat(), 1, UNREADABLE);
    }
    sandbox.err(&["data", "preview", "bad", "--out", "p.png"], 1, none);
    let (_, stderr) = sandbox.output(&["data", "preview", "b", "--out", "p.png"]);
    assert!(stderr.contains(&format!("warning: unreadable: {UNREADABLE}")), "{stderr}");
}

#[test]
fn unreadable_held_out_images_are_counted_or_refused() {
    let sandbox = sets();
    let set = |name: &str| {
        let path = sandbox.path(name).display().to_string();
        format!(
            "data.params.validation={{target: images, params: {{path: {path}, transform: {{size: 16}}}}}}"
        )
    };
    let (_, stderr) =
        sandbox.output(&["train", "first.yaml", "--run", "run", &set("b"), "train.validate_every=1"]);
    assert_eq!(stderr.matches("b/3.png: expected an image").count(), 1, "named once: {stderr}");
    let metrics = std::fs::read_to_string(sandbox.path("run/metrics.jsonl")).unwrap();
    assert!(metrics.contains("\"val/unreadable\":1"), "{metrics}");
    sandbox.err(
        &["train", "first.yaml", "--run", "new", &set("bad")],
        1,
        "bad: expected readable images, got none of 6, e.g. ",
    );
    assert!(!sandbox.path("new").exists());
    symlink("/nonexistent", sandbox.path("a/gone.png")).unwrap();
    let (_, stderr) = sandbox.output(&["train", "first.yaml", "--run", "other", &set("a")]);
    assert!(stderr.contains("a/gone.png: expected a link to a file"), "{stderr}");
    sandbox.err(
        &["train", "first.yaml", "--run", "new", &set("a"), "--strict"],
        1,
        "expected files and folders, got 1 other entries, e.g. ",
    );
}

#[test]
fn odd_entries_of_a_folder_do_not_refuse_it() {
    let sandbox = sets();
    symlink("/nonexistent", sandbox.path("a/dangling.md")).unwrap();
    symlink(".", sandbox.path("a/self")).unwrap();
    let fifo = std::process::Command::new("mkfifo").arg(sandbox.path("a/fifo.png")).status().unwrap();
    assert!(fifo.success());
    let stdout = sandbox.ok(&["data", "info", "a"]);
    assert!(stdout.contains("a: 6 images"), "{stdout}");
    for name in ["dangling.md", "self", "fifo.png"] {
        assert!(stdout.contains(&format!("passed over  a/{name}: expected ")), "{stdout}");
    }
    let found: Value = serde_json::from_str(&sandbox.ok(&["data", "info", "a", "--json"])).unwrap();
    assert_eq!(found["passed_over"].as_array().unwrap().len(), 3);
    sandbox.err(&["data", "info", "a", "--strict"], 1, "a: expected files and folders, got 3 other entries");
    sandbox.err(&["data", "preview", "a", "--strict", "--out", "p.png"], 1, "got 3 other entries");
}

/// A PNG that the camera's sensor wrote on its side: 64x48, shown as 48x64.
fn on_its_side() -> Vec<u8> {
    let exif = b"MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    let mut file = Vec::new();
    let mut encoder = image::codecs::png::PngEncoder::new(&mut file);
    encoder.set_exif_metadata(exif.to_vec()).unwrap();
    let image = RgbImage::from_fn(64, 48, |x, y| Rgb([x as u8, y as u8, 90]));
    image.write_with_encoder(encoder).unwrap();
    file
}

#[test]
fn images_are_turned_by_their_orientation_in_every_command() {
    let sandbox = sets();
    sandbox.ok(&["train", "first.yaml", "--run", "first"]);
    std::fs::create_dir(sandbox.path("photos")).unwrap();
    std::fs::write(sandbox.path("photos/phone.png"), on_its_side()).unwrap();
    sandbox.ok(&["reconstruct", "photos/phone.png", "--model", "first", "--out", "o"]);
    assert_eq!(image::image_dimensions(sandbox.path("o/00000.png")).unwrap(), (48, 64));
    assert!(sandbox.ok(&["data", "info", "photos"]).contains("size         48x64: 1"));
    sandbox.ok(&["data", "preview", "photos", "--out", "p.png"]);
    assert_eq!(image::image_dimensions(sandbox.path("p.png")).unwrap(), (48 + 4, 64 + 4));
    sandbox.ok(&["encode", "photos/phone.png", "--model", "first", "--out", "z.safetensors"]);
    sandbox.ok(&["decode", "z.safetensors", "--model", "first", "--out", "d"]);
    let decoded = listing(&sandbox.path("d")).into_iter().find(|path| path.ends_with("00000.png")).unwrap();
    assert_eq!(image::image_dimensions(decoded).unwrap(), (48, 64));
}

#[test]
fn the_size_that_a_png_claims_does_not_decide_the_memory() {
    let sandbox = sets();
    std::fs::write(sandbox.path("bomb.png"), claiming_png(200_000)).unwrap();
    let expected = "bomb.png: expected an image of at most 536870912 bytes, got 200000x200000";
    sandbox.err(&["inspect", "bomb.png"], 1, expected);
    std::fs::create_dir(sandbox.path("set")).unwrap();
    std::fs::write(sandbox.path("set/bomb.png"), claiming_png(200_000)).unwrap();
    assert!(
        sandbox.ok(&["data", "info", "set"]).contains("unreadable   set/bomb.png: expected a readable image")
    );
}

#[test]
fn datasets_of_a_config_need_no_other_section() {
    let sandbox = sets();
    let params = "{batch_size: 1, train: {target: images, params: {path: a}}}";
    std::fs::write(sandbox.path("data.yaml"), format!("data: {{target: data_module, params: {params}}}"))
        .unwrap();
    assert!(sandbox.ok(&["data", "info", "data.yaml"]).contains(": 6 images"));
}
