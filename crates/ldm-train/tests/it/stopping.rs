//! Stops and requests: within a validation, within the statistics of the end, and a checkpoint on demand.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ldm_checkpoint::Checkpoint;
use ldm_core::device::test_device;
use ldm_core::{Error, NoiseSource, Result};
use ldm_data::{Batch, Dataset, Example};
use ldm_train::{
    Event, Export, Exported, Finished, LatentStatistics, Loss, NamedTensors, Objective, Phase, Preview,
    SampleConfig, StepInfo, TrainConfig, Trainer, TrainerBuilder, Validate,
};
use tch::{Kind, Tensor};

use crate::open_trainer::{Linear, Waves, builder, train};

/// A linear model that counts the batches of its validation and of its statistics, and asks to stop in one of them.
struct Slow {
    linear: Linear,
    stop: Arc<AtomicBool>,
    /// Stops in the first batch of a validation, else in that of the statistics.
    in_validation: bool,
    seen: Arc<AtomicUsize>,
}

impl Slow {
    fn see(&self, batches: &mut dyn Iterator<Item = Result<Batch>>, stops: bool) {
        for _ in batches {
            self.seen.fetch_add(1, Ordering::SeqCst);
            if stops {
                self.stop.store(true, Ordering::SeqCst);
            }
        }
    }
}

impl Objective for Slow {
    fn phases(&self) -> Vec<Phase> {
        self.linear.phases()
    }
    fn loss(&self, info: StepInfo, batch: &Batch, noise: &mut dyn NoiseSource) -> Result<Loss> {
        self.linear.loss(info, batch, noise)
    }
    fn weights(&self) -> NamedTensors {
        self.linear.weights()
    }
    fn load(&mut self, checkpoint: Checkpoint) -> Result<()> {
        self.linear.load(checkpoint)
    }
    fn as_validate(&self) -> Option<&dyn Validate> {
        Some(self)
    }
    fn as_export(&self) -> Option<&dyn Export> {
        Some(self)
    }
}

impl Validate for Slow {
    fn validate(&self, batches: &mut dyn Iterator<Item = Result<Batch>>) -> Result<Vec<(&'static str, f64)>> {
        self.see(batches, self.in_validation);
        Ok(vec![("val/loss", 1.)])
    }
}

impl Export for Slow {
    fn export(&self, _ema: &[(String, tch::Tensor)]) -> Result<Exported> {
        Ok(Exported::Model(self.weights()))
    }

    fn latent_statistics(
        &self,
        batches: &mut dyn Iterator<Item = Result<Batch>>,
    ) -> Result<Option<LatentStatistics>> {
        self.see(batches, !self.in_validation);
        let (mean, std) = (vec![0.; 3], vec![1.; 3]);
        Ok(Some(LatentStatistics { images: 16, mean, std, overall_std: 1. }))
    }
}

fn slow(root: &Path, stop: &Arc<AtomicBool>, seen: &Arc<AtomicUsize>, in_validation: bool) -> TrainerBuilder {
    let (stop, seen) = (Arc::clone(stop), Arc::clone(seen));
    let objective = Slow { linear: Linear::new(), stop, in_validation, seen };
    let config = TrainConfig { validate_every: 20, ..train() };
    builder(config, root).objective(objective).validation(Arc::new(Waves { random: false }))
}

fn has_statistics(root: &Path) -> bool {
    Checkpoint::open(root.join("model/model.safetensors"))
        .unwrap()
        .metadata()
        .contains_key("latent_statistics")
}

#[test]
fn a_stop_in_a_validation_is_heeded_at_the_next_batch_and_the_resumed_run_validates() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("run");
    let (stop, seen) = (Arc::default(), Arc::default());
    let mut trainer = slow(&root, &stop, &seen, true).build().unwrap();
    // At step 20, then, resumed, at the end.
    for step in [20, 40] {
        assert_eq!(trainer.run(&stop, &mut |_| {}).unwrap(), Finished::Stopped);
        assert_eq!((trainer.state().step, seen.swap(0, Ordering::SeqCst)), (step, 1), "one batch of four");
        assert!(trainer.state().validation.is_empty() && !has_statistics(&root));
        stop.store(false, Ordering::SeqCst);
        drop(trainer);
        trainer = slow(&root, &stop, &seen, true).resume().unwrap();
        assert_eq!(trainer.state().step, step);
    }
    drop(trainer);
    let mut trainer = slow(&root, &Arc::default(), &seen, true).resume().unwrap();
    assert_eq!(trainer.run(&AtomicBool::new(false), &mut |_| {}).unwrap(), Finished::Done);
    assert_eq!(trainer.state().validation["val/loss"], 1.);
    assert!(has_statistics(&root));
    let state = std::fs::read_to_string(root.join("checkpoints/step-0000040/state.json")).unwrap();
    assert!(state.contains("\"val/loss\": 1.0"), "for keep_best: {state}");
}

#[test]
fn a_stop_in_the_statistics_of_the_end_is_heeded_and_the_resumed_run_computes_them() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("run");
    let (stop, seen) = (Arc::default(), Arc::new(AtomicUsize::new(0)));
    let mut trainer = slow(&root, &stop, &seen, false).build().unwrap();
    assert_eq!(trainer.run(&stop, &mut |_| {}).unwrap(), Finished::Stopped);
    assert_eq!(
        seen.load(Ordering::SeqCst),
        2 * 4 + 1,
        "two validations of four batches and one of the statistics"
    );
    assert!(!has_statistics(&root));
    drop(trainer);
    let mut trainer = slow(&root, &Arc::default(), &seen, false).resume().unwrap();
    assert_eq!(trainer.run(&AtomicBool::new(false), &mut |_| {}).unwrap(), Finished::Done);
    assert!(has_statistics(&root));
}

#[test]
fn a_checkpoint_on_demand_does_not_stop_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("run");
    let request = Arc::new(AtomicBool::new(false));
    let mut trainer = builder(TrainConfig { keep: 9, ..train() }, &root).build().unwrap();
    trainer.checkpoint_on(Arc::clone(&request));
    let finished = trainer.run(&AtomicBool::new(false), &mut |event| {
        if let Event::Step { step: 13, .. } = event {
            request.store(true, Ordering::SeqCst);
        }
    });
    assert_eq!(finished.unwrap(), Finished::Done);
    assert!(!request.load(Ordering::SeqCst));
    for (step, expected) in [(12, false), (13, true), (14, false), (20, true), (40, true)] {
        let path = root.join(format!("checkpoints/step-{step:07}/state.json"));
        assert_eq!(path.exists(), expected, "step {step}");
    }
}

/// 16 images, of which some cannot be read once `broken` is set.
struct Breaking(Arc<AtomicBool>);

impl Dataset for Breaking {
    fn len(&self) -> usize {
        16
    }

    fn get(&self, index: usize, seed: u64) -> Result<Example> {
        if self.0.load(Ordering::SeqCst) && index == 5 {
            return Err(ldm_core::Error::data("5.png", "expected an image, got none"));
        }
        Waves { random: false }.get(index, seed)
    }
}

#[test]
fn an_unreadable_image_of_a_strict_run_loses_no_step() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("run");
    let broken = Arc::new(AtomicBool::new(false));
    let config = TrainConfig { accumulate: 1, ..train() };
    let strict = |broken: &Arc<AtomicBool>| {
        builder(config.clone(), &root).data(Breaking(Arc::clone(broken))).strict(true).workers(0)
    };
    let mut trainer = strict(&broken).build().unwrap();
    let error = trainer.run(&AtomicBool::new(false), &mut |event| {
        if let Event::Step { step: 6, .. } = event {
            broken.store(true, Ordering::SeqCst);
        }
    });
    assert!(error.unwrap_err().to_string().contains("5.png"));
    let step = trainer.state().step;
    assert!((6..12).contains(&step), "before the first checkpoint: {step}");
    drop(trainer);
    let mut trainer = strict(&Arc::default()).resume().unwrap();
    assert_eq!((trainer.state().step, trainer.state().images), (step, 4 * step));
    assert_eq!(trainer.run(&AtomicBool::new(false), &mut |_| {}).unwrap(), Finished::Done);
}

/// A linear model that asks to stop while it draws its samples.
struct Drawing {
    linear: Linear,
    stop: Arc<AtomicBool>,
    seen: Arc<AtomicUsize>,
}

impl Objective for Drawing {
    fn phases(&self) -> Vec<Phase> {
        self.linear.phases()
    }
    fn loss(&self, info: StepInfo, batch: &Batch, noise: &mut dyn NoiseSource) -> Result<Loss> {
        self.linear.loss(info, batch, noise)
    }
    fn weights(&self) -> NamedTensors {
        self.linear.weights()
    }
    fn load(&mut self, checkpoint: Checkpoint) -> Result<()> {
        self.linear.load(checkpoint)
    }
    fn as_preview(&self) -> Option<&dyn Preview> {
        Some(self)
    }
}

impl Preview for Drawing {
    fn preview(&self, _batch: &Batch, _config: &SampleConfig, stop: &AtomicBool) -> Result<Tensor> {
        self.seen.fetch_add(1, Ordering::SeqCst);
        self.stop.store(true, Ordering::SeqCst);
        if stop.load(Ordering::SeqCst) {
            return Err(Error::Stopped);
        }
        Ok(Tensor::zeros([3, 2, 2], (Kind::Float, test_device())))
    }
}

#[test]
fn a_stop_while_samples_are_drawn_is_heeded_and_the_resumed_run_draws_those_of_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("run");
    let (stop, seen): (Arc<AtomicBool>, Arc<AtomicUsize>) = Default::default();
    let samples = SampleConfig { every: 10, ..SampleConfig::default() };
    let of = |stop: &Arc<AtomicBool>| {
        let objective = Drawing { linear: Linear::new(), stop: Arc::clone(stop), seen: Arc::clone(&seen) };
        builder(TrainConfig { samples, ..train() }, &root).objective(objective)
    };
    let mut trainer = of(&stop).build().unwrap();
    // In the middle of the run the next step ends it, with a checkpoint; at the end the checkpoint is there already.
    for (step, drawn) in [(11, 1), (21, 2), (31, 3), (40, 4)] {
        assert_eq!(trainer.run(&stop, &mut |_| {}).unwrap(), Finished::Stopped);
        assert_eq!((trainer.state().step, seen.load(Ordering::SeqCst)), (step, drawn));
        stop.store(false, Ordering::SeqCst);
        drop(trainer);
        trainer = of(&stop).resume().unwrap();
        assert_eq!(trainer.state().step, step);
    }
    let path = root.join("samples/step-0000040.png");
    assert!(!path.exists());
    drop(trainer);
    let mut trainer = of(&Arc::default()).resume().unwrap();
    assert_eq!(trainer.run(&AtomicBool::new(false), &mut |_| {}).unwrap(), Finished::Done);
    assert!(path.exists());
}

#[test]
fn samples_of_a_diffusion_model_stop_between_two_steps() {
    let _lock = crate::lock_generator();
    let folder = tempfile::tempdir().unwrap();
    let first = crate::tiny::first_stage(folder.path());
    let config = crate::config(&crate::tiny::diffusion(&first), &["train.samples.steps=1000"]);
    let root = folder.path().join("run");
    let mut trainer = Trainer::create(config, &root, test_device()).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (done, stop) = (root.join("checkpoints/step-0000020/state.json"), &stop);
        scope.spawn(move || {
            while !done.exists() {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            stop.store(true, Ordering::SeqCst);
        });
        assert_eq!(trainer.run(stop, &mut |_| {}).unwrap(), Finished::Stopped);
    });
    assert_eq!(trainer.state().step, 20);
    assert!(!root.join("samples/step-0000020.png").exists());
}
