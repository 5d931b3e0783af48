//! Retrieval: a database of images, its neighbors, and a model trained and sampled on them.

use image::{Rgb, RgbImage};
use ldm_testing::Sandbox;
use serde_json::Value;

use crate::LDM;
use crate::eval::clip;

/// A model of pixels on the neighbors of six images, by a CLIP of 11 components.
const MODEL: &str = "
model:
  target: latent_diffusion
  params:
    timesteps: 20
    image_size: 8
    channels: 3
    conditioning_key: crossattn
    unet_config:
      target: unet
      params: {in_channels: 3, out_channels: 3, model_channels: 32, attention_resolutions: [1], num_res_blocks: 1,
               channel_mult: [1], num_heads: 2, use_spatial_transformer: true, context_dim: 11}
    first_stage_config: {target: identity}
    cond_stage_config: {target: identity}
data:
  target: data_module
  params:
    batch_size: 2
    num_workers: 0
    train:
      target: images
      params: {path: photos, transform: {size: 8}, neighbors: {database: photos.safetensors, table: near.safetensors}}
train: {steps: 2, learning_rate: 1.0e-3, conditioning_dropout: 0.2, samples: {count: 2, steps: 2}}
";

#[test]
fn a_retrieval_augmented_model_is_trained_and_sampled() {
    let sandbox = Sandbox::new(LDM, &[("rdm.yaml", MODEL)]);
    clip(&sandbox);
    std::fs::create_dir(sandbox.path("photos")).unwrap();
    for index in 0..6_u8 {
        let image = RgbImage::from_fn(24, 20, |x, y| {
            Rgb([index * 40, (x as u8 * 7).wrapping_mul(index + 1), (y as u8 * 11).wrapping_mul(index + 3)])
        });
        image.save(sandbox.path(&format!("photos/{index}.png"))).unwrap();
    }
    // The training set of a config, although the files of its neighbors do not exist yet.
    let index = ["retrieve", "index", "rdm.yaml", "--clip", "clip", "--out", "photos.safetensors"];
    assert_eq!(sandbox.ok(&index), "photos.safetensors: 6 images\n");
    sandbox.err(&index, 1, "photos.safetensors: expected a new path, got an existing one; try --force");
    let parts =
        ["retrieve", "index", "photos", "--clip", "clip", "--partition", "--out", "parts.safetensors"];
    sandbox.ok(&parts);

    let json = |words: &[&str]| serde_json::from_str::<Value>(&sandbox.ok(words)).unwrap();
    let search = ["retrieve", "search", "photos.safetensors", "red", "--clip", "clip", "-k", "3", "--json"];
    let found = json(&search)["neighbors"].clone();
    assert_eq!(found.as_array().unwrap().len(), 3);
    let itself =
        ["retrieve", "search", "parts.safetensors", "--image", "photos/4.png", "--clip", "clip", "-k", "1"];
    assert_eq!(sandbox.ok(&itself), "1.0000  4.png\n");

    let near = ["retrieve", "neighbors", "photos.safetensors", "-k", "2", "--out", "near.safetensors"];
    assert_eq!(sandbox.ok(&near), "near.safetensors\n");
    sandbox.ok(&["train", "rdm.yaml", "--run", "rdm"]);

    let knn = ["knn2img", "red", "--clip", "clip", "--model", "rdm", "--steps", "2", "--json"];
    let with = [&knn[..], &["--index", "photos.safetensors", "-k", "3", "-n", "2", "--out", "with"]].concat();
    let stdout = sandbox.ok(&with);
    let lines: Vec<Value> = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert!(lines.iter().all(|line| line["neighbors"] == found && line["prompt"] == "red"), "{stdout}");
    let shown = sandbox.ok(&["inspect", "with/00000.png"]);
    assert!(shown.contains("Neighbors: 3") && shown.contains("CFG scale: 5"), "{shown}");
    sandbox.err(&["redo", "with/00000.png"], 1, "got one of knn2img, whose neighbors the text does not name");
    sandbox.ok(&[&knn[..], &["--out", "alone"]].concat());
    let image = |name: &str| std::fs::read(sandbox.path(name)).unwrap();
    assert_ne!(image("with/00000.png"), image("alone/00000.png"), "the neighbors are part of the condition");
    let by_image = ["knn2img", "--image", "photos/1.png", "--clip", "clip", "--model", "rdm", "--steps", "2"];
    sandbox.ok(&[&by_image[..], &["--out", "by-image"]].concat());

    sandbox.err(&[&knn[..], &["--index", "none"]].concat(), 1, "none: No such file");
    let many = [&knn[..], &["--index", "photos.safetensors", "-k", "7"]].concat();
    sandbox.err(&many, 1, "k: expected 1 to 6, the images of photos.safetensors, got 7");
    sandbox.err(&["sample", "--model", "rdm"], 1, "try ldm knn2img");
    sandbox.err(
        &["retrieve", "index", "photos", "--out", "x"],
        1,
        "--clip: expected a CLIP model for images",
    );
}
