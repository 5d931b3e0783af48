//! The published first-stage losses against CompVis' own code: each term, the gradients, and several steps of both
//! optimizers, through the training step of the trainer.

use std::collections::BTreeMap;

use ldm_autoencoder::FirstStageConfig;
use ldm_checkpoint::{Checkpoint, Shapes};
use ldm_core::Prompt;
use ldm_core::device::test_device;
use ldm_core::noise::Replay;
use ldm_data::Batch;
use ldm_metrics::Lpips;
use ldm_testing::{Golden, assert_close, filled};
use ldm_train::{
    AdamWConfig, AutoencoderObjective, Distributed, Loss, Objective, StepInfo, TrainStep, TrainStepConfig,
};
use serde_json::Value;
use tch::{Device, Kind, Tensor};

use crate::batch_of;

/// Compares scalars with a relative tolerance; 0 has the absolute tolerance of 1e-3.
#[track_caller]
fn near(name: &str, got: &Tensor, want: &Tensor, tolerance: f64) {
    let (got, want) = (got.double_value(&[]), want.double_value(&[]));
    assert!((got - want).abs() <= tolerance * want.abs().max(1e-3), "{name}: got {got}, want {want}");
}

/// The weights of `generate_lpips.py`: those of `fill_weights`, kernels doubled, heads positive.
fn lpips(device: Device) -> ldm_core::Result<Lpips> {
    let mut shapes = Shapes::new();
    let mut from = 3;
    let slices: [(&[i64], i64); 5] =
        [(&[0, 2], 64), (&[5, 7], 128), (&[10, 12, 14], 256), (&[17, 19, 21], 512), (&[24, 26, 28], 512)];
    for (slice, (layers, channels)) in slices.into_iter().enumerate() {
        for layer in layers {
            shapes.insert(format!("net.slice{}.{layer}.weight", slice + 1), vec![channels, from, 3, 3]);
            shapes.insert(format!("net.slice{}.{layer}.bias", slice + 1), vec![channels]);
            from = channels;
        }
        shapes.insert(format!("lin{slice}.model.1.weight"), vec![1, channels, 1, 1]);
    }
    let change = |(name, value): (String, Tensor)| {
        let value = if name.starts_with("lin") {
            value.abs()
        } else if value.dim() == 4 {
            value * 2.
        } else {
            value
        };
        (name, value)
    };
    let tensors: Vec<_> = filled(&shapes, 3).into_iter().map(change).collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lpips.safetensors");
    ldm_checkpoint::save(&path, &tensors, &BTreeMap::new())?;
    Lpips::from_checkpoint(Checkpoint::open(path)?, device)
}

/// A training step on the golden file's weights.
struct Parity {
    step: TrainStep,
    golden: Golden,
    run: Value,
}

impl Parity {
    fn new(name: &str) -> Self {
        let path = format!("{}/tests/golden/losses_{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
        let golden = Golden::open(path, test_device());
        let config: FirstStageConfig = serde_json::from_str(golden.metadata("config")).unwrap();
        let mut objective = AutoencoderObjective::with_lpips(&config, test_device(), lpips).unwrap();
        // Loaded by name from a file, as in a resume; `fill_weights` has the same formula in CompVis' run.
        let shapes: Shapes =
            objective.weights().into_iter().map(|(name, tensor)| (name, tensor.size())).collect();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("start.safetensors");
        ldm_checkpoint::save(&path, &filled(&shapes, 5), &BTreeMap::new()).unwrap();
        objective.load(Checkpoint::open(path).unwrap()).unwrap();
        let config = TrainStepConfig { optimizer: AdamWConfig::adversarial(), ..TrainStepConfig::default() };
        let step =
            TrainStep::new(Box::new(objective), config, test_device(), Distributed::default()).unwrap();
        assert_eq!(step.optimizers().len(), 2);
        let run = serde_json::from_str(golden.metadata("run")).unwrap();
        Self { step, golden, run }
    }

    fn backward(&mut self, info: StepInfo, image: &Tensor, noise: &str) -> Loss {
        // The label maps of a conditional discriminator, of the same step as the noise.
        let map = format!("map.{}", noise.parse::<u64>().unwrap_or(0));
        let map = self.golden.has(&map).then(|| self.golden.get(&map).to_kind(Kind::Uint8));
        let noise = format!("noise.{noise}.{}", info.phase);
        let noise = self.golden.has(&noise).then(|| self.golden.get(&noise).shallow_clone());
        let batch = Batch { label_map: map, ..batch_of(image.shallow_clone(), Prompt::default()) };
        self.step.set_global_step(info.global_step);
        self.step.forward_backward(info.phase, &batch, &mut Replay::new(noise)).unwrap()
    }

    fn parameter(&self, name: &str) -> Tensor {
        let mut all = self.step.optimizers().iter().flat_map(|each| &each.phase.trainable);
        all.find(|(each, _)| each == name).unwrap_or_else(|| panic!("no parameter {name}")).1.shallow_clone()
    }

    /// Compares everything that CompVis logs in a phase.
    #[track_caller]
    fn compare_log(&self, prefix: &str, phase: usize, loss: &Loss, tolerance: f64) {
        let discriminator = ["disc_loss", "logits_real", "logits_fake"];
        let parts: BTreeMap<&str, &Tensor> = loss.parts.iter().map(|(name, value)| (*name, value)).collect();
        let mut count = 0;
        for (name, want) in self.golden.scope(&format!("{prefix}.")) {
            let in_phase = usize::from(discriminator.contains(&name.as_str()));
            if name.starts_with("gradient.") || in_phase != phase {
                continue;
            }
            let got = parts.get(name.as_str()).unwrap_or_else(|| panic!("{prefix}: {name} is not logged"));
            near(&format!("{prefix}.{name}"), got, &want, tolerance);
            count += 1;
        }
        assert!(count >= 3, "CompVis logs at least three scalars per phase");
        let total = if phase == 0 { "total_loss" } else { "disc_loss" };
        near(total, &loss.total, parts[total], 1e-6);
    }
}

fn check(name: &str) {
    // At a kink (ReLU, nearest code) rounding can change whole gradients. The batches are chosen so that it does not
    // with AVX-512 kernels; those of older CPUs round differently.
    #[cfg(target_arch = "x86_64")]
    if !std::is_x86_feature_detected!("avx512f") {
        eprintln!("skipped: these golden values depend on the kernels of a CPU with AVX-512");
        return;
    }
    let mut parity = Parity::new(name);
    let number = |key: &str| parity.run[key].as_u64().unwrap();
    let (start, steps) = (number("disc_start"), number("steps"));
    let rate = parity.run["rate"].as_f64().unwrap();
    let image = |parity: &Parity, step: u64| parity.golden.get(&format!("image.{step}")).shallow_clone();

    for (when, step) in [("before", start - 1), ("after", start)] {
        for phase in 0..2 {
            let loss = parity.backward(StepInfo { phase, global_step: step }, &image(&parity, 0), when);
            parity.compare_log(when, phase, &loss, 1e-5);
            let mut count = 0;
            for (name, want) in parity.golden.scope(&format!("{when}.gradient.")) {
                if name.starts_with("loss.discriminator.") == (phase == 1) {
                    let label = format!("{when}: gradient of {name}");
                    assert_close(&label, &parity.parameter(&name).grad(), &want, 1e-5);
                    count += 1;
                }
            }
            assert!(count >= if phase == 0 { 10 } else { 2 }, "{count} gradients");
            // The discriminator has no gradient before `disc_start`, and none in the autoencoder's phase.
            for (name, tensor) in &parity.step.optimizers()[1].phase.trainable {
                let grad = tensor.grad();
                let any = grad.defined() && grad.abs().max().double_value(&[]) > 0.;
                assert!(
                    !any || (phase == 1 && when == "after"),
                    "{name} has a gradient {when}, phase {phase}"
                );
            }
        }
    }

    for step in 0..steps {
        for phase in 0..2 {
            let loss = parity.backward(
                StepInfo { phase, global_step: step },
                &image(&parity, step),
                &step.to_string(),
            );
            parity.compare_log(&format!("step.{step}"), phase, &loss, 1e-4);
            let _ = parity.step.optimizer_step(phase, rate).unwrap();
        }
    }
    let state: BTreeMap<String, Tensor> = parity.step.objective().weights().into_iter().collect();
    let (mut got_all, mut want_all) = (Vec::new(), Vec::new());
    for (name, want) in parity.golden.scope("end.") {
        let value = state[&name].flatten(0, -1).to_kind(Kind::Float);
        let last = (value.size()[0] - 1) as f64;
        let places = Tensor::linspace(0., last, want.size()[0], (Kind::Float, Device::Cpu));
        let got = value.index_select(0, &places.to_kind(Kind::Int64).to_device(test_device()));
        assert_close(&name, &got, &want, 1e-4);
        if parity.golden.has(&format!("moved.{name}")) {
            let moved = parity.golden.get(&format!("moved.{name}"));
            got_all.push(got - (&want - moved));
            want_all.push(moved.shallow_clone());
        }
    }
    // The change of the weights, a finer test than their values.
    assert!(want_all.len() > 40);
    assert_close("change of the parameters", &Tensor::cat(&got_all, 0), &Tensor::cat(&want_all, 0), 1e-2);
}

#[test]
fn kl_with_hinge_loss() {
    check("kl_hinge");
}

#[test]
fn kl_with_cross_entropy_and_actnorm() {
    check("kl_vanilla_actnorm");
}

#[test]
fn vq_with_hinge_loss() {
    check("vq_hinge");
}

#[test]
fn vq_with_cross_entropy_actnorm_and_l2() {
    check("vq_vanilla_actnorm");
}

#[test]
fn kl_with_a_conditional_discriminator() {
    check("kl_conditional");
}
