//! Stage one's published losses against the reference's own code: each term, the gradients, and five steps of both
//! optimizers, through the objective and the optimizer that the trainer uses.

#![allow(clippy::print_stderr, reason = "a test that skips says so")]
#![allow(clippy::unwrap_used, reason = "clippy knows tests, not the functions beside them")]

use std::collections::BTreeMap;

use ldm_autoencoder::FirstStageConfig;
use ldm_checkpoint::{Checkpoint, Shapes};
use ldm_core::Prompt;
use ldm_core::device::test_device;
use ldm_core::noise::Replay;
use ldm_data::Batch;
use ldm_metrics::Lpips;
use ldm_testing::{Golden, assert_close, filled};
use ldm_train::{AdamW, AdamWConfig, AutoencoderObjective, Loss, Objective, Phase, StepInfo};
use serde_json::Value;
use tch::{Device, Kind, Tensor};

/// A single number, relative; an exact 0 must be 0 within it.
#[track_caller]
fn near(what: &str, got: &Tensor, want: &Tensor, tolerance: f64) {
    let (got, want) = (got.double_value(&[]), want.double_value(&[]));
    assert!((got - want).abs() <= tolerance * want.abs().max(1e-3), "{what}: got {got}, want {want}");
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

/// What the trainer holds of a run.
struct Sandbox {
    objective: AutoencoderObjective,
    phases: Vec<(Phase, AdamW)>,
    golden: Golden,
    run: Value,
}

impl Sandbox {
    fn new(name: &str) -> Self {
        let path = format!("{}/tests/golden/losses_{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
        let golden = Golden::open(path, test_device());
        let config: FirstStageConfig = serde_json::from_str(golden.metadata("config")).unwrap();
        let mut objective = AutoencoderObjective::with_lpips(&config, test_device(), lpips).unwrap();
        // As a run is resumed: by name, from a file. Weights by the formula, as the reference has them.
        let shapes: Shapes =
            objective.weights().into_iter().map(|(name, tensor)| (name, tensor.size())).collect();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("start.safetensors");
        ldm_checkpoint::save(&path, &filled(&shapes, 5), &BTreeMap::new()).unwrap();
        objective.load(Checkpoint::open(path).unwrap()).unwrap();
        // Adam.
        let adam = AdamWConfig { betas: [0.5, 0.9], weight_decay: 0., ..AdamWConfig::default() };
        let optimizer = |phase: Phase| {
            let params = phase.trainable.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone()));
            let optimizer = AdamW::new(params.collect(), adam);
            (phase, optimizer)
        };
        let phases: Vec<_> = objective.phases().into_iter().map(optimizer).collect();
        assert_eq!(phases.len(), 2);
        let run = serde_json::from_str(golden.metadata("run")).unwrap();
        Self { objective, phases, golden, run }
    }

    /// As `Trainer::backward`.
    fn backward(&mut self, moment: StepInfo, image: &Tensor, draw: &str) -> Loss {
        for (index, (phase, optimizer)) in self.phases.iter_mut().enumerate() {
            for (_, tensor) in &phase.trainable {
                let _ = tensor.set_requires_grad(index == moment.phase);
            }
            if index == moment.phase {
                optimizer.zero_grad();
            }
        }
        let draw = format!("noise.{draw}.{}", moment.phase);
        let draws = self.golden.has(&draw).then(|| self.golden.get(&draw).shallow_clone());
        let batch = Batch {
            images: image.shallow_clone(),
            prompt: Prompt::default(),
            label_map: None,
            crops: Vec::new(),
            names: Vec::new(),
            latents: None,
        };
        let loss = self.objective.loss(moment, &batch, &mut Replay::new(draws)).unwrap();
        loss.total.backward();
        loss
    }

    fn parameter(&self, name: &str) -> Tensor {
        let mut all = self.phases.iter().flat_map(|(phase, _)| &phase.trainable);
        all.find(|(each, _)| each == name).unwrap_or_else(|| panic!("no parameter {name}")).1.shallow_clone()
    }

    /// All that the reference logs in a phase.
    #[track_caller]
    fn compare_log(&self, prefix: &str, phase: usize, loss: &Loss, tolerance: f64) {
        let critic = ["disc_loss", "logits_real", "logits_fake"];
        let parts: BTreeMap<&str, &Tensor> = loss.parts.iter().map(|(name, value)| (*name, value)).collect();
        let mut count = 0;
        for (name, want) in self.golden.scope(&format!("{prefix}.")) {
            let in_turn = usize::from(critic.contains(&name.as_str()));
            if name.starts_with("gradient.") || in_turn != phase {
                continue;
            }
            let got = parts.get(name.as_str()).unwrap_or_else(|| panic!("{prefix}: {name} is not logged"));
            near(&format!("{prefix}.{name}"), got, &want, tolerance);
            count += 1;
        }
        assert!(count >= 3, "the reference logs at least three numbers a phase");
        let total = if phase == 0 { "total_loss" } else { "disc_loss" };
        near(total, &loss.total, parts[total], 1e-6);
    }
}

fn check(name: &str) {
    // The side of a kink (ReLU, the nearest code) that a value falls on decides whole gradients. The batches are chosen so that
    // rounding does not decide it with the kernels of AVX-512; those of older CPUs round otherwise.
    #[cfg(target_arch = "x86_64")]
    if !std::is_x86_feature_detected!("avx512f") {
        eprintln!("skipped: these golden values hang on the kernels of a CPU with AVX-512");
        return;
    }
    let mut sandbox = Sandbox::new(name);
    let number = |key: &str| sandbox.run[key].as_u64().unwrap();
    let (start, steps) = (number("disc_start"), number("steps"));
    let rate = sandbox.run["rate"].as_f64().unwrap();
    let image = |sandbox: &Sandbox, step: u64| sandbox.golden.get(&format!("image.{step}")).shallow_clone();

    for (moment, step) in [("before", start - 1), ("after", start)] {
        for phase in 0..2 {
            let loss = sandbox.backward(StepInfo { phase, step }, &image(&sandbox, 0), moment);
            sandbox.compare_log(moment, phase, &loss, 1e-5);
            let mut count = 0;
            for (name, want) in sandbox.golden.scope(&format!("{moment}.gradient.")) {
                if name.starts_with("loss.discriminator.") == (phase == 1) {
                    let what = format!("{moment}: gradient of {name}");
                    assert_close(&what, &sandbox.parameter(&name).grad(), &want, 1e-5);
                    count += 1;
                }
            }
            assert!(count >= if phase == 0 { 10 } else { 2 }, "{count} gradients");
            // Before `disc_start` the discriminator learns nothing, and never from the autoencoder's phase.
            for (name, tensor) in &sandbox.phases[1].0.trainable {
                let grad = tensor.grad();
                let any = grad.defined() && grad.abs().max().double_value(&[]) > 0.;
                assert!(!any || (phase == 1 && moment == "after"), "{name} learned {moment}, phase {phase}");
            }
        }
    }

    for step in 0..steps {
        for phase in 0..2 {
            let loss = sandbox.backward(StepInfo { phase, step }, &image(&sandbox, step), &step.to_string());
            sandbox.compare_log(&format!("step.{step}"), phase, &loss, 1e-4);
            let (phase, optimizer) = &mut sandbox.phases[phase];
            optimizer.step(rate * phase.rate, None);
        }
    }
    let state: BTreeMap<String, Tensor> = sandbox.objective.weights().into_iter().collect();
    let (mut got_all, mut want_all) = (Vec::new(), Vec::new());
    for (name, want) in sandbox.golden.scope("end.") {
        let value = state[&name].flatten(0, -1).to_kind(Kind::Float);
        let last = (value.size()[0] - 1) as f64;
        let places = Tensor::linspace(0., last, want.size()[0], (Kind::Float, Device::Cpu));
        let got = value.index_select(0, &places.to_kind(Kind::Int64).to_device(test_device()));
        assert_close(&name, &got, &want, 1e-4);
        if sandbox.golden.has(&format!("moved.{name}")) {
            let moved = sandbox.golden.get(&format!("moved.{name}"));
            got_all.push(got - (&want - moved));
            want_all.push(moved.shallow_clone());
        }
    }
    // Far finer than the weights: how far each has gone.
    assert!(want_all.len() > 40);
    assert_close("what the parameters moved by", &Tensor::cat(&got_all, 0), &Tensor::cat(&want_all, 0), 1e-2);
}

#[test]
fn kl_with_a_hinge() {
    check("kl_hinge");
}

#[test]
fn kl_with_cross_entropy_and_actnorm() {
    check("kl_vanilla_actnorm");
}

#[test]
fn vq_with_a_hinge() {
    check("vq_hinge");
}

#[test]
fn vq_with_cross_entropy_actnorm_and_squares() {
    check("vq_vanilla_actnorm");
}
