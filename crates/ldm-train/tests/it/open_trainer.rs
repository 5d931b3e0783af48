//! A custom objective and dataset: a linear model, trained and resumed by the builder.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ldm_checkpoint::Checkpoint;
use ldm_core::device::test_device;
use ldm_core::{NoiseSource, Result};
use ldm_data::{Batch, Dataset, Example, Peek};
use ldm_train::{
    CacheLatents, Event, Finished, Loss, NamedTensors, Objective, Phase, RunConfig, StepInfo, TrainConfig,
    Trainer, TrainerBuilder,
};
use tch::nn::VarStore;
use tch::{Kind, Tensor};

use crate::run_to_end;

/// Denoises images by one linear layer.
pub(crate) struct Linear {
    vs: VarStore,
    weight: Tensor,
}

impl Linear {
    pub(crate) fn new() -> Self {
        let vs = VarStore::new(test_device());
        let weight = vs.root().zeros("weight", &[12, 12]);
        Self { vs, weight }
    }
}

impl Objective for Linear {
    fn phases(&self) -> Vec<Phase> {
        vec![Phase::new("linear", self.weights())]
    }

    fn loss(&self, _info: StepInfo, batch: &Batch, noise: &mut dyn NoiseSource) -> Result<Loss> {
        let x = batch.images.to_device(self.vs.device()).flatten(1, -1); // [B, 12]
        let noisy = &x + noise.like(&x) * 0.01;
        let total = (noisy.mm(&self.weight) - x).square().mean(Kind::Float);
        Ok(Loss { parts: vec![("loss", total.detach())], total })
    }

    fn weights(&self) -> NamedTensors {
        vec![("weight".into(), self.weight.shallow_clone())]
    }

    fn load(&mut self, checkpoint: Checkpoint) -> Result<()> {
        checkpoint.load_into(&mut self.vs)
    }
}

/// 16 images of 2x2 pixels; with `random` they depend on the seed.
pub(crate) struct Waves {
    pub(crate) random: bool,
}

impl Dataset for Waves {
    fn len(&self) -> usize {
        16
    }

    fn get(&self, index: usize, seed: u64) -> Result<Example> {
        let phase = index as f32 + if self.random { seed as f32 } else { 0. };
        let image = (0..12).map(|pixel| (phase * 1.7 + pixel as f32).sin()).collect();
        Ok(Example { name: index.to_string(), ..Example::new(image, [3, 2, 2]) })
    }

    fn peek(&self, index: usize) -> Result<Peek> {
        Ok(Peek { name: index.to_string(), size: [2, 2], class: None, caption: None })
    }

    fn classes(&self) -> &[String] {
        &[]
    }

    fn name(&self) -> String {
        "waves".into()
    }

    fn fingerprint(&self) -> String {
        "0".repeat(64)
    }
}

pub(crate) fn train() -> TrainConfig {
    TrainConfig {
        steps: 40,
        learning_rate: Some(0.01),
        accumulate: 2,
        log_every: 10,
        checkpoint_every: 20,
        ..TrainConfig::default()
    }
}

pub(crate) fn builder(config: TrainConfig, root: &Path) -> TrainerBuilder {
    let builder = Trainer::builder(config).objective(Linear::new()).data(Arc::new(Waves { random: false }));
    builder.device(test_device()).batch_size(4).run_dir(root)
}

#[test]
fn a_custom_objective_trains_and_resumes_bit_exactly() {
    let folder = tempfile::tempdir().unwrap();
    let [whole, broken] = ["whole", "broken"].map(|name| folder.path().join(name));
    let lines = run_to_end(&mut builder(train(), &whole).build().unwrap());
    assert!(lines[3]["loss"] < 0.3 * lines[0]["loss"], "{lines:?}");

    let stop = AtomicBool::new(false);
    let mut first = builder(train(), &broken).workers(0).build().unwrap();
    let finished = first.run(&stop, &mut |event| {
        stop.store(matches!(event, Event::Step { step: 13, .. }), Ordering::Relaxed);
    });
    assert_eq!(finished.unwrap(), Finished::Stopped);
    drop(first);
    let mut second = builder(train(), &broken).resume().unwrap();
    assert_eq!((second.state().step, second.parameters()), (13, 144));
    run_to_end(&mut second);
    for name in ["model", "ema", "optimizer"] {
        let file = format!("checkpoints/step-0000040/{name}.safetensors");
        let [whole, broken] = [&whole, &broken].map(|run| std::fs::read(run.join(&file)).unwrap());
        assert!(whole == broken, "{name} differs after a resume");
    }
}

#[test]
fn the_run_directory_of_a_custom_objective() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("run");
    let validation = Arc::new(Waves { random: false });
    run_to_end(&mut builder(train(), &root).validation(validation).build().unwrap());
    let config = std::fs::read_to_string(root.join("config.yaml")).unwrap();
    assert!(config.contains("batch_size: 4") && config.contains("steps: 40"), "{config}");
    assert!(!config.contains("model:") && RunConfig::read(root.join("config.yaml"), &[]).is_err());
    let model = root.join("model");
    assert_eq!(Checkpoint::open(model.join("model.safetensors")).unwrap().names().count(), 1);
    assert!(!model.join("config.yaml").exists(), "there is no model config");
    assert_eq!(std::fs::read_dir(root.join("samples")).unwrap().count(), 0, "and no preview");
}

#[test]
fn incomplete_builders_are_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("run");
    let check = |builder: TrainerBuilder, expected: &str| {
        let error = builder.build().unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains('\n'), "{error}");
        assert!(!root.exists(), "something was written");
    };
    check(Trainer::builder(train()), "expected an objective, got none");
    check(Trainer::builder(train()).objective(Linear::new()), "expected training data, got none");
    let complete = |config: TrainConfig| builder(config, &root);
    check(complete(TrainConfig { learning_rate: None, ..train() }), "train.learning_rate: expected");
    check(complete(TrainConfig { steps: 0, ..train() }), "train.steps: expected at least 1, got 0");
    check(complete(train()).batch_size(0), "batch_size: expected at least 1, got 0");
    check(complete(train()).batch_size(17), "the 16 images of the set in a step, got 17");
    let cached = TrainConfig { cache_latents: CacheLatents::InRun, ..train() };
    check(complete(cached.clone()), "train.cache_latents: expected a model that trains on latents");
    let random = complete(cached).data(Arc::new(Waves { random: true }));
    check(random, "expected deterministic images, got a random augmentation");
}
