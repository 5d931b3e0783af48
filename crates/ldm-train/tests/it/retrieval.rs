//! Training a retrieval-augmented model on the neighbors of its images: it overfits, resumes bit for bit, and refuses other
//! data.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use ldm_core::NoiseSource;
use ldm_core::device::test_device;
use ldm_core::image::write_png;
use ldm_core::noise::Seeded;
use ldm_retrieval::{IndexWriter, NeighborTable, Search};
use ldm_train::{Finished, Trainer};
use tch::{Device, Kind, Tensor};

use crate::{check_refused, config, lock_generator, run_to_end};

/// Noise of these seeds, one sample each.
fn noise(seeds: std::ops::Range<u64>, shape: &[i64]) -> Tensor {
    let size = [&[(seeds.end - seeds.start) as i64], shape].concat();
    Seeded::new(seeds).like(&Tensor::zeros(size, (Kind::Float, Device::Cpu)))
}

/// Four images of different patterns, their database, a database of eight others, and a table of two neighbors of each image.
fn data(folder: &Path) {
    let images = folder.join("images");
    std::fs::create_dir(&images).unwrap();
    let names: Vec<String> = (0..4).map(|index| format!("{index}.png")).collect();
    for (name, image) in names.iter().zip(noise(0..4, &[3, 8, 8]).sign().unbind(0)) {
        write_png(images.join(name), &(image * 0.7), &[]).unwrap();
    }
    let write = |name: &str, rows: &Tensor, names: &[String]| {
        let mut writer = IndexWriter::new(folder.join(name)).unwrap();
        writer.push(rows, names).unwrap();
        writer.finish(None, false).unwrap()
    };
    let own = write("own.safetensors", &noise(10..14, &[16]), &names);
    let others: Vec<String> = (0..8).map(|index| format!("other-{index}.png")).collect();
    // Two rows near each image's own.
    let near = noise(10..14, &[16]).repeat([2, 1]) + noise(20..28, &[16]) * 0.3;
    let database = write("database.safetensors", &near, &others);
    let table = folder.join("table.safetensors");
    NeighborTable::write(table, &own, &database, 2, Search::Exact, &mut |_| {}).unwrap();
}

/// A model of pixels: x_0 of nearly pure noise, so that only the neighbors distinguish the images.
fn run(folder: &Path, train: &str) -> String {
    let [images, database, table] = ["images", "database.safetensors", "table.safetensors"]
        .map(|name| folder.join(name).display().to_string());
    format!(
        r"
model:
  target: latent_diffusion
  params:
    timesteps: 2
    given_betas: [0.98, 0.99]
    parameterization: x0
    image_size: 8
    channels: 3
    conditioning_key: crossattn
    unet_config:
      target: unet
      params: {{in_channels: 3, out_channels: 3, model_channels: 32, attention_resolutions: [1], num_res_blocks: 1,
               channel_mult: [1], num_heads: 2, use_spatial_transformer: true, context_dim: 16}}
    first_stage_config: {{target: identity}}
    cond_stage_config: {{target: identity}}
data:
  target: data_module
  params:
    batch_size: 4
    num_workers: 1
    train:
      target: images
      params: {{path: {images}, transform: {{size: 8}}, neighbors: {{database: {database}, table: {table}}}}}
train: {{{train}, ema: null, samples: {{count: 0}}}}
"
    )
}

#[test]
fn a_model_of_neighbors_overfits_a_few_images() {
    let _lock = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    data(folder.path());
    let train =
        "steps: 200, learning_rate: 3.0e-3, clip_grad: 1, log_every: 20, optimizer: {weight_decay: 0}";
    let text = run(folder.path(), train);
    let root = folder.path().join("run");
    let lines = run_to_end(&mut Trainer::create(config(&text, &[]), &root, test_device()).unwrap());
    // An unconditional model stays above 0.35: see `conditioners.rs`.
    let last = lines.last().unwrap()["loss"];
    assert!(last < 0.1, "{last}");
}

#[test]
fn training_on_neighbors_resumes_bit_for_bit() {
    let _lock = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    data(folder.path());
    let train = "steps: 6, learning_rate: 1.0e-3, conditioning_dropout: 0.3, checkpoint_every: 3";
    let text = run(folder.path(), train);
    let [whole, resumed] = ["whole", "resumed"].map(|name| folder.path().join(name));
    let run_on = |mut trainer: Trainer| {
        assert_eq!(trainer.run(&AtomicBool::new(false), &mut |_| {}).unwrap(), Finished::Done);
    };
    run_on(Trainer::create(config(&text, &[]), &whole, test_device()).unwrap());
    run_on(Trainer::create(config(&text, &["train.steps=3"]), &resumed, test_device()).unwrap());
    run_on(Trainer::resume(&resumed, &["train.steps=6".into()], test_device()).unwrap());
    let weights =
        |root: &Path| std::fs::read(root.join("checkpoints/step-0000006/model.safetensors")).unwrap();
    assert!(weights(&whole) == weights(&resumed));
    // The neighbors are part of the data of a run.
    let fingerprint = |root: &Path| {
        let text = std::fs::read_to_string(root.join("environment.json")).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap()["data"].clone()
    };
    let one = folder.path().join("one");
    let k = "data.params.train.params.neighbors.k=1";
    run_on(Trainer::create(config(&text, &[k, "train.steps=1"]), &one, test_device()).unwrap());
    assert_ne!(fingerprint(&one), fingerprint(&whole));
}

#[test]
fn other_neighbors_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path());
    let text = run(folder.path(), "steps: 1, learning_rate: 1.0e-3");
    let of = |key: &str, value: &str| format!("data.params.train.params.neighbors.{key}={value}");
    let own = folder.path().join("own.safetensors").display().to_string();
    for (change, expected) in [
        (of("k", "3"), "k: expected 1 to 2, the neighbors in "),
        (of("database", &own), "own.safetensors, got those in another database"),
        (of("table", &own), "expected a table of neighbors, got another file; try ldm retrieve neighbors"),
        (of("count", "3"), "count"),
        ("model.params.unet_config.params.context_dim=8".into(), "the context: expected shape [B, L, 8]"),
    ] {
        check_refused(&text, &[change.as_str()], expected);
    }
    std::fs::rename(folder.path().join("images/0.png"), folder.path().join("images/new.png")).unwrap();
    let expected =
        "expected neighbors of every image, got none for 1 of 4, e.g. new.png; try ldm retrieve neighbors";
    check_refused(&text, &[], expected);
}
