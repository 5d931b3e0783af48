//! Runs that start from an existing model: all weights, some weights, and a LoRA.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use ldm_checkpoint::Checkpoint;
use ldm_core::device::test_device;
use ldm_pipelines::{ModelConfig, ModelSource};
use ldm_train::{DiffusionObjective, DiffusionTraining, Event, Finished, InitFrom, RunConfig, Trainer};

use crate::{configs, lock_generator};

const TRAIN: &str = "
train: {steps: 6, learning_rate: 1.0e-3, log_every: 2, checkpoint_every: 3, samples: {count: 0}, ema: {decay: 0.5}}
";

fn text() -> String {
    let more = "attention_resolutions: [1], channel_mult: [1], dropout: 0.1";
    let params = [
        "first_stage_config: {target: identity}",
        "cond_stage_config: {target: class, params: {embed_dim: 16, n_classes: 21}}",
        "cond_stage_trainable: true",
        &format!("unet_config: {}", configs::unet(3, &[more, configs::CROSS_ATTENTION])),
    ];
    format!("{}{}{TRAIN}", configs::diffusion(16, 3, &params), configs::data(&configs::scenes(64), None))
}

fn create(root: &Path, overrides: &[&str]) -> ldm_core::Result<Trainer> {
    let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
    Trainer::create(RunConfig::parse(&text(), "tiny.yaml", &overrides)?, root, test_device())
}

fn run(mut trainer: Trainer, stop_at: u64) -> Finished {
    let stop = AtomicBool::new(false);
    trainer
        .run(&stop, &mut |event| {
            if let Event::Step { step, .. } = event {
                stop.store(step == stop_at, Ordering::Relaxed);
            }
        })
        .unwrap()
}

fn weights(path: &Path) -> Vec<(String, tch::Tensor)> {
    let checkpoint = Checkpoint::open(path).unwrap();
    checkpoint.names().map(|name| (name.to_owned(), checkpoint.tensor(name).unwrap())).collect()
}

#[test]
fn init_from_loads_what_is_not_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().join("base");
    run(create(&base, &[]).unwrap(), 0);
    let from = format!("train.init_from={{path: {}, ignore: [cond_stage_model.]}}", base.display());
    // A learning rate too small to change any f32.
    let frozen = "train.learning_rate=1.0e-30";
    let root = folder.path().join("tuned");
    run(create(&root, &[&from, frozen, "train.seed=9", "train.optimizer={weight_decay: 0.0}"]).unwrap(), 0);
    let model = "model/model.safetensors";
    let (before, after) = (weights(&base.join(model)), weights(&root.join(model)));
    assert_eq!(before.len(), after.len());
    for ((name, before), (_, after)) in before.into_iter().zip(after) {
        let ignored = name.starts_with("cond_stage_model.");
        assert_eq!(before == after, !ignored, "{name}");
    }
}

#[test]
fn a_mismatch_is_refused_with_every_name() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().join("base");
    run(create(&base, &["train.steps=1"]).unwrap(), 0);
    let from = format!("train.init_from={{path: {}}}", base.display());
    let root = folder.path().join("other");
    let classes = "model.params.cond_stage_config.params.n_classes=30";
    let error = create(&root, &[&from, classes]).unwrap_err().to_string();
    assert!(error.contains("cond_stage_model.embedding.weight"), "{error}");
    assert!(!root.exists());
    let ignoring = format!("train.init_from={{path: {}, ignore: [cond_stage_model.]}}", base.display());
    create(&root, &[&ignoring, classes]).unwrap();
}

#[test]
fn a_lora_resumes_bit_exactly() {
    let _lock = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().join("base");
    run(create(&base, &["train.steps=3"]).unwrap(), 0);
    let from = format!("train.init_from={{path: {}}}", base.display());
    let overrides = [from.as_str(), "train.lora={rank: 2}"];
    let (whole, broken) = (folder.path().join("whole"), folder.path().join("broken"));
    assert_eq!(run(create(&whole, &overrides).unwrap(), 0), Finished::Done);
    assert_eq!(run(create(&broken, &overrides).unwrap(), 4), Finished::Stopped);
    assert_eq!(run(Trainer::resume(&broken, &[], test_device()).unwrap(), 0), Finished::Done);
    for file in ["model/lora.safetensors", "checkpoints/step-0000006/optimizer.safetensors"] {
        let read = |root: &Path| std::fs::read(root.join(file)).unwrap();
        assert!(read(&whole) == read(&broken), "{file} differs after a resume");
    }
    assert!(!whole.join("model/model.safetensors").exists(), "the base is not exported");
    let names: Vec<String> =
        weights(&whole.join("model/lora.safetensors")).into_iter().map(|(name, _)| name).collect();
    assert!(names.iter().any(|name| name.ends_with(".lora_up.weight")), "{names:?}");
}

#[test]
fn init_from_loads_the_scale_of_the_latents() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().join("base");
    let scaled = "model.params.scale_by_std=true";
    run(create(&base, &["train.steps=1", scaled]).unwrap(), 0);
    let model = base.join("model/model.safetensors");
    let scale = Checkpoint::open(model).unwrap().tensor("scale_factor").unwrap().double_value(&[]);
    assert!((scale - 1.).abs() > 1e-3, "a scale other than 1: {scale}");

    let config = RunConfig::parse(&text(), "tiny.yaml", &[scaled.to_owned()]).unwrap();
    let ModelConfig::LatentDiffusion(config) = &config.model else { panic!("a diffusion model") };
    let training = DiffusionTraining::default();
    let mut objective = DiffusionObjective::new(config, None, training, test_device()).unwrap();
    let from = InitFrom { path: base.clone(), ema: true, ignore: Vec::new() };
    objective.start_from(ModelSource::find(&base, None, true).unwrap(), &from).unwrap();
    assert_eq!(objective.model().scale_factor, scale);
}
