//! Cached latents: training with them is bit-identical, and a cache with another fingerprint is refused.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use ldm_checkpoint::Checkpoint;
use ldm_core::device::test_device;
use ldm_core::image::write_png;
use ldm_core::noise::Seeded;
use ldm_core::{NoiseSource, Result};
use ldm_data::collate;
use ldm_train::{Event, Finished, RunConfig, Trainer};
use tch::{Device, Kind, Tensor};

use crate::{config, configs};

/// A run of one step of a first stage.
fn first_stage_run(kind: &str, seed: u64) -> String {
    let model = configs::first_stage(kind, &[], &[]);
    let data = configs::data("{target: scenes, params: {size: 16, count: 8}}", None);
    let train =
        format!("train: {{steps: 1, learning_rate: 1.0e-3, seed: {seed}, ema: null, samples: {{count: 0}}}}");
    format!("model: {model}\n{data}{train}\n")
}

const DIFFUSION_TRAIN: &str = "
train: {steps: 6, learning_rate: 1.0e-3, conditioning_dropout: 0.3, ema: null, log_every: 1, checkpoint_every: 2,
        samples: {count: 2, steps: 2}}
";

fn done(trainer: &mut Trainer) -> Result<()> {
    assert_eq!(trainer.run(&AtomicBool::new(false), &mut |_| {})?, Finished::Done);
    Ok(())
}

/// `count` images of two classes in `folder/images`.
fn images(folder: &Path, count: u64) -> PathBuf {
    let root = folder.join("images");
    for index in 0..count {
        let class = root.join(if index % 2 == 0 { "cat" } else { "dog" });
        std::fs::create_dir_all(&class).unwrap();
        let noise = Seeded::new([index]).like(&Tensor::zeros([1, 3, 20, 24], (Kind::Float, Device::Cpu)));
        write_png(class.join(format!("{index:02}.png")), &noise.squeeze_dim(0).clamp(-1., 1.), &[]).unwrap();
    }
    root
}

/// A first stage that was trained for one step.
fn first_stage(folder: &Path, kind: &str, seed: u64) -> String {
    let root = folder.join(format!("{kind}-{seed}"));
    let config = config(&first_stage_run(kind, seed), &[]);
    done(&mut Trainer::create(config, &root, test_device()).unwrap()).unwrap();
    configs::first_stage(kind, &[&format!("ckpt_path: {}", root.display())], &[])
}

/// A run of a class-conditional diffusion model on images of two classes.
fn diffusion_run(first_stage: &str, images: &Path) -> String {
    let unet = configs::unet(4, &["attention_resolutions: [], channel_mult: [1]", configs::CROSS_ATTENTION]);
    let params = [
        "scale_by_std: true, cond_stage_trainable: true",
        &format!("unet_config: {unet}"),
        &format!("first_stage_config: {first_stage}"),
        "cond_stage_config: {target: class, params: {embed_dim: 16, n_classes: 3, null_class: 2}}",
    ];
    let images = images.display();
    let data = configs::data(
        &format!("{{target: images, params: {{path: {images}, transform: {{size: 16}}}}}}"),
        None,
    );
    format!("{}{data}{DIFFUSION_TRAIN}", configs::diffusion(8, 4, &params))
}

fn weights(run: &Path) -> Vec<u8> {
    std::fs::read(run.join("checkpoints/step-0000006/model.safetensors")).unwrap()
}

#[test]
fn training_is_the_same_with_cached_latents() {
    let folder = tempfile::tempdir().unwrap();
    let root = |name: &str| folder.path().join(name);
    let set = images(folder.path(), 19);
    for kind in ["kl", "vq"] {
        let text = diffusion_run(&first_stage(folder.path(), kind, 1), &set);
        let [uncached, cached, resumed] =
            ["uncached", "cached", "resumed"].map(|name| root(&format!("{name}-{kind}")));
        done(&mut Trainer::create(config(&text, &[]), &uncached, test_device()).unwrap()).unwrap();
        let on = "train.cache_latents=true";
        done(&mut Trainer::create(config(&text, &[on]), &cached, test_device()).unwrap()).unwrap();
        assert!(weights(&uncached) == weights(&cached), "{kind}: bit-identical");
        let file = Checkpoint::open(cached.join("latents.safetensors")).unwrap();
        // The last chunk has the remaining 3 of 19 images.
        let channels = if kind == "kl" { 8 } else { 4 };
        assert_eq!(file.info("0/000000000016").unwrap().shape, [3, channels, 8, 8]);

        // Stopped while encoding, then resumed.
        let stop = AtomicBool::new(false);
        let mut first = Trainer::create(config(&text, &[on]), &resumed, test_device()).unwrap();
        let finished = first.run(&stop, &mut |event| {
            if let Event::Caching { done, of } = event {
                assert_eq!((done, of), (4, 19));
                stop.store(true, Ordering::Relaxed);
            }
        });
        assert_eq!(finished.unwrap(), Finished::Stopped);
        drop(first); // releases the lock of the folder
        assert!(!resumed.join("latents.safetensors").exists());
        done(&mut Trainer::resume(&resumed, &[], test_device()).unwrap()).unwrap();
        assert!(weights(&uncached) == weights(&resumed), "{kind}: bit-identical after a stop");
    }
}

#[test]
fn flipped_images_are_cached_both_ways() {
    let folder = tempfile::tempdir().unwrap();
    let set = images(folder.path(), 8);
    let text = diffusion_run(&first_stage(folder.path(), "kl", 1), &set)
        .replace("{size: 16}", "{size: 16, flip: 0.5}");
    let root = folder.path().join("run");
    let config = config(&text, &["train.cache_latents=true"]);
    done(&mut Trainer::create(config, &root, test_device()).unwrap()).unwrap();
    let file = Checkpoint::open(root.join("latents.safetensors")).unwrap();
    assert_eq!(
        file.names().collect::<Vec<_>>(),
        ["0/000000000000", "0/000000000004", "1/000000000000", "1/000000000004"]
    );
    let [original, flipped] = ["0", "1"].map(|view| file.tensor(&format!("{view}/000000000000")).unwrap());
    assert_ne!(original, flipped);
    // A convolutional encoder is roughly equivariant to flips.
    let distance = |a: &Tensor| (a - &original).abs().mean(Kind::Float).double_value(&[]);
    assert!(distance(&flipped.flip([3])) < distance(&flipped));
}

#[test]
fn another_fingerprint_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (set, shared) = (images(folder.path(), 8), folder.path().join("shared.safetensors"));
    let on = format!("train.cache_latents={}", shared.display());
    let one = diffusion_run(&first_stage(folder.path(), "kl", 1), &set);
    let other = diffusion_run(&first_stage(folder.path(), "kl", 2), &set);
    let mut runs = 0;
    let mut run = |text: &str| {
        runs += 1;
        let root = folder.path().join(format!("run-{runs}"));
        done(&mut Trainer::create(config(text, &[&on]), &root, test_device())?)
    };
    run(&one).unwrap();
    let written = std::fs::metadata(&shared).unwrap().modified().unwrap();
    run(&one).unwrap();
    assert_eq!(std::fs::metadata(&shared).unwrap().modified().unwrap(), written, "used, not written again");
    let mut check = |text: &str, expected: &str| {
        let error = run(text).unwrap_err().to_string();
        assert_eq!(
            error,
            format!(
                "{}: expected {expected}; try removing the file to encode the images again",
                shared.display()
            )
        );
    };
    check(&other, "latents of this model's first stage, got latents of another first stage");
    check(
        &one.replace("{size: 16}", "{size: 32}"),
        "latents of the training images, got latents of other images",
    );
    images(folder.path(), 9);
    check(&one, "latents of the training images, got latents of other images");
    let whole = std::fs::read(&shared).unwrap();
    std::fs::write(&shared, &whole[..whole.len() - 8]).unwrap();
    assert!(run(&one).unwrap_err().to_string().contains("shared.safetensors"));
    std::fs::remove_file(&shared).unwrap();
    run(&one).unwrap();
}

#[test]
fn random_augmentations_and_first_stages_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let set = images(folder.path(), 8);
    let text = diffusion_run(&first_stage(folder.path(), "kl", 1), &set);
    let root = folder.path().join("run");
    let check = |text: &str, expected: &str| {
        let config = config(text, &["train.cache_latents=true"]);
        let error = Trainer::create(config, &root, test_device()).unwrap_err().to_string();
        assert!(error.contains(expected) && !root.exists(), "{error}");
    };
    let random = text.replace("{size: 16}", "{size: 16, crop: random}");
    check(&random, "train.cache_latents: expected deterministic crops, got crop: random");
    check(
        &first_stage_run("kl", 1),
        "train.cache_latents: expected a model that trains on latents, got one of images",
    );
    let error =
        RunConfig::parse(&text, "tiny.yaml", &["train.cache_latents=3".into()]).unwrap_err().to_string();
    assert!(error.contains("true, false, or the path of a file"), "{error}");
}

#[test]
fn an_unreadable_image_is_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let set = images(folder.path(), 12);
    std::fs::write(set.join("cat/02.png"), "no image").unwrap();
    let text = diffusion_run(&first_stage(folder.path(), "kl", 1), &set);
    let [uncached, cached] = ["uncached", "cached"].map(|name| folder.path().join(name));
    done(&mut Trainer::create(config(&text, &[]), &uncached, test_device()).unwrap()).unwrap();
    let mut trainer =
        Trainer::create(config(&text, &["train.cache_latents=true"]), &cached, test_device()).unwrap();
    let mut skipped = Vec::new();
    let finished = trainer.run(&AtomicBool::new(false), &mut |event| {
        if let Event::Skipped(why) = event {
            skipped.push(why.to_owned());
        }
    });
    assert_eq!(finished.unwrap(), Finished::Done);
    assert!(weights(&uncached) == weights(&cached), "the same image replaces it");
    assert!(skipped.len() == 1 && skipped[0].contains("02.png"), "{skipped:?}");
    let strict = config(&text, &["train.cache_latents=true", "data.params.strict=true"]);
    let error = done(&mut Trainer::create(strict, &folder.path().join("strict"), test_device()).unwrap());
    assert!(error.unwrap_err().to_string().contains("02.png"));
}

/// The file holds the moments of each chunk, by an encoder that sees one chunk at a time, whatever the number of threads
/// that decode ahead; NaN for images that cannot be read.
#[test]
fn the_cache_has_the_bytes_of_chunks_encoded_one_by_one() {
    let folder = tempfile::tempdir().unwrap();
    let set = images(folder.path(), 19);
    // Sorted by folder: `cat` has 10 images and `dog` 9. One of the first chunk, all of the second, the last of all.
    let names = (0..19).step_by(2).chain((1..19).step_by(2)).collect::<Vec<_>>();
    let unreadable = [2, 4, 5, 6, 7, 18];
    for place in unreadable {
        let index = names[place];
        let class = if index % 2 == 0 { "cat" } else { "dog" };
        std::fs::write(set.join(format!("{class}/{index:02}.png")), "no image").unwrap();
    }
    let text = diffusion_run(&first_stage(folder.path(), "kl", 1), &set);
    let mut files = Vec::new();
    for workers in [0, 1, 3] {
        let root = folder.path().join(format!("workers-{workers}"));
        let workers = format!("data.params.num_workers={workers}");
        let overrides = ["train.cache_latents=true", "train.steps=1", workers.as_str()];
        let mut trainer = Trainer::create(config(&text, &overrides), &root, test_device()).unwrap();
        let mut seen = Vec::new();
        let finished = trainer.run(&AtomicBool::new(false), &mut |event| {
            if let Event::Caching { done, of } = event {
                seen.push((done, of));
            }
        });
        assert_eq!(finished.unwrap(), Finished::Done);
        assert_eq!(seen, [(4, 19), (8, 19), (12, 19), (16, 19), (19, 19)]);
        files.push((trainer, root.join("latents.safetensors")));
    }
    let bytes: Vec<Vec<u8>> = files.iter().map(|(_, path)| std::fs::read(path).unwrap()).collect();
    assert!(bytes[0] == bytes[1] && bytes[0] == bytes[2], "for any number of threads");

    let (trainer, path) = &files[0];
    let file = Checkpoint::open(path).unwrap();
    let dataset = config(&text, &[]).data.train.open(folder.path()).unwrap();
    let encoder = trainer.train_step().objective().as_latent_encoder().unwrap();
    for start in (0..19_usize).step_by(4) {
        let cached = file.tensor(&format!("0/{start:012}")).unwrap();
        let places: Vec<usize> = (start..19).take(4).collect();
        assert_eq!(cached.size(), [places.len() as i64, 8, 8, 8]);
        let readable = |place: &&usize| !unreadable.contains(*place);
        let mut examples: Vec<_> =
            places.iter().filter(readable).map(|place| dataset.get(*place, 0).unwrap()).collect();
        let moments = examples.last().cloned().map(|last| {
            examples.resize(4, last);
            encoder.latent_moments(&collate(examples).unwrap()).unwrap().to_device(Device::Cpu)
        });
        let mut next = 0;
        for (row, place) in (0..).zip(&places) {
            if unreadable.contains(place) {
                assert!(cached.get(row).isnan().all().int64_value(&[]) == 1, "image {place}");
            } else {
                assert_eq!(cached.get(row), moments.as_ref().unwrap().get(next), "image {place}");
                next += 1;
            }
        }
    }
}
