//! Properties of the EMA and the optimizer.

use std::collections::BTreeMap;

use ldm_checkpoint::Checkpoint;
use ldm_core::device::test_device;
use ldm_testing::assert_close;
use ldm_train::{AdamW, AdamWConfig, Ema, EmaConfig, RunConfig, grad_scale};
use tch::{Kind, Tensor};

use crate::configs;

fn param(value: f64) -> Tensor {
    Tensor::full([2, 2], value, (Kind::Float, test_device())).set_requires_grad(true)
}

#[test]
fn the_ema_has_the_warm_up_of_compvis() {
    // LitEma increments n first, so the first decay is 2/11.
    let mut weight = param(1.);
    let mut ema = Ema::new(vec![("w".into(), weight.shallow_clone())], &EmaConfig::default());
    let _ = tch::no_grad(|| weight.fill_(12.));
    ema.update();
    let first = 12. - (2. / 11.) * (12. - 1.);
    assert!((ema.state()[0].1.double_value(&[0, 0]) - first).abs() < 1e-5);
    ema.update();
    let second = 12. - (3. / 12.) * (12. - first);
    assert!((ema.state()[0].1.double_value(&[1, 1]) - second).abs() < 1e-5);
    let inside = ema.swapped(|| weight.double_value(&[0, 0]));
    assert!((inside - second).abs() < 1e-5);
    assert_eq!(weight.double_value(&[0, 0]), 12., "the weights are restored");
    assert!((ema.state()[0].1.double_value(&[0, 0]) - second).abs() < 1e-5, "and so is the EMA");
}

#[test]
fn a_loaded_optimizer_steps_as_the_saved_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("optimizer.safetensors");
    let step = |optimizer: &mut AdamW, weight: &Tensor| {
        optimizer.zero_grad();
        (weight * weight).sum(Kind::Float).backward();
        let divisor = grad_scale(&optimizer.grad_norm(), Some(1.), None);
        optimizer.step(0.1, divisor.as_ref(), None);
    };
    let (one, mut other) = (param(2.), param(0.));
    let mut first = AdamW::new(vec![("w".into(), one.shallow_clone())], AdamWConfig::default());
    step(&mut first, &one);
    ldm_checkpoint::save(&path, &first.state(), &BTreeMap::new()).unwrap();
    tch::no_grad(|| other.copy_(&one));
    let mut second = AdamW::new(vec![("w".into(), other.shallow_clone())], AdamWConfig::default());
    second.load(&Checkpoint::open(&path).unwrap()).unwrap();
    step(&mut first, &one);
    step(&mut second, &other);
    assert_eq!(one, other);
    assert_ne!(one.double_value(&[0, 0]), 2.);

    let mut wrong = AdamW::new(vec![("v".into(), param(0.))], AdamWConfig::default());
    let error = wrong.load(&Checkpoint::open(&path).unwrap()).unwrap_err().to_string();
    assert!(error.contains("missing: exp_avg.v") && error.contains("unexpected: exp_avg.w"), "{error}");
}

/// The step with a divisor against clipping, and unscaling, before a plain step.
#[test]
fn the_divisor_of_a_step_clips_and_unscales_gradients() {
    #[track_caller]
    fn check(clip: Option<f64>, loss_scale: Option<f64>) {
        let weights = [0, 1].map(|_| {
            let values = Tensor::arange(24, (Kind::Float, test_device())) * 0.1 - 1.;
            values.view([4, 6]).set_requires_grad(true)
        });
        let [mut plain, mut folded] = weights
            .each_ref()
            .map(|weight| AdamW::new(vec![("w".into(), weight.shallow_clone())], AdamWConfig::default()));
        let factor = loss_scale.unwrap_or(1.);
        let loss_scale = loss_scale.map(|scale| Tensor::full([], scale, (Kind::Float, test_device())));
        for _ in 0..4 {
            plain.zero_grad();
            weights[0].square().sum(Kind::Float).backward();
            let mut grad = weights[0].grad();
            let norm = grad.norm().double_value(&[]);
            let _ = grad.g_mul_scalar_(clip.map_or(1., |clip| (clip / (norm + 1e-6)).min(1.)));
            plain.step(0.01, None, None);

            folded.zero_grad();
            (weights[1].square().sum(Kind::Float) * factor).backward();
            let found = folded.grad_norm() / factor;
            assert!((found.double_value(&[]) / norm - 1.).abs() < 1e-6);
            folded.step(0.01, grad_scale(&found, clip, loss_scale.as_ref()).as_ref(), None);
            // Division rounds otherwise than multiplication by the reciprocal.
            assert_close("gradients", &weights[1].grad(), &grad, 1e-6);
            assert_close("weights", &weights[1], &weights[0], 1e-6);
            let expected = clip.map_or(norm, |clip| clip.min(norm));
            assert!((grad.norm().double_value(&[]) / expected - 1.).abs() < 1e-5);
        }
    }
    // The norm without a limit is about 7.
    check(None, None);
    check(None, Some(65_536.));
    check(Some(0.5), None);
    check(Some(0.5), Some(65_536.));
    check(Some(100.), Some(65_536.));
}

#[test]
fn a_step_below_the_limit_has_the_bits_of_one_without() {
    let weights = [0, 1].map(|_| param(2.));
    let [mut plain, mut limited] = weights
        .each_ref()
        .map(|weight| AdamW::new(vec![("w".into(), weight.shallow_clone())], AdamWConfig::default()));
    for _ in 0..3 {
        for optimizer in [&mut plain, &mut limited] {
            optimizer.zero_grad();
        }
        for weight in &weights {
            (weight / 3.).sin().sum(Kind::Float).backward();
        }
        plain.step(0.1, None, None);
        limited.step(0.1, grad_scale(&limited.grad_norm(), Some(10.), None).as_ref(), None);
        assert_eq!(weights[0], weights[1]);
    }
    assert!(grad_scale(&Tensor::from(1_f32), None, None).is_none());
}

#[test]
fn each_decay_has_its_ema() {
    let weight = Tensor::full([2], 1., (Kind::Float, test_device()));
    let decays = EmaConfig { decay: 0.5, also: vec![0.999, 0.1] };
    let mut ema = Ema::new(vec![("w".into(), weight.shallow_clone())], &decays);
    let _ = weight.shallow_clone().fill_(2.);
    (0..20).for_each(|_| ema.update());
    let folder = tempfile::tempdir().unwrap();
    ema.write(folder.path(), &BTreeMap::new()).unwrap();
    let read = |name: &str| {
        Checkpoint::open(folder.path().join(name)).unwrap().tensor("w").unwrap().double_value(&[0])
    };
    let expected = |decay: f64| {
        2. - (1..=20).map(|n| decay.min((1. + f64::from(n)) / (10. + f64::from(n)))).product::<f64>()
    };
    let files = [("ema.safetensors", 0.5), ("ema-0.999.safetensors", 0.999), ("ema-0.1.safetensors", 0.1)];
    for (file, decay) in files {
        assert!((read(file) - expected(decay)).abs() < 1e-6, "{file}");
    }
    assert!(
        (ema.swapped(|| weight.double_value(&[0])) - expected(0.5)).abs() < 1e-6,
        "the first replaces the weights"
    );
    let mut again = Ema::new(vec![("w".into(), weight.zeros_like())], &decays);
    again.read(folder.path(), 20).unwrap();
    assert_eq!(again.state(), ema.state());
    std::fs::remove_file(folder.path().join("ema-0.1.safetensors")).unwrap();
    let error = again.read(folder.path(), 20).unwrap_err().to_string();
    assert!(error.contains("ema-0.1.safetensors"), "{error}");
}

/// CompVis' `--scale_lr`: the number of ranks times the batch size times the accumulated batches.
#[test]
fn base_learning_rate_is_multiplied_by_the_batch() {
    let data = configs::data(&configs::scenes(64), None); // micro-batches of 4
    let text =
        format!("model: {}\n{data}train: {{steps: 1, accumulate: 3}}", configs::first_stage("kl", &[], &[]));
    let rate = |overrides: &[&str], ranks| {
        let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
        RunConfig::parse(&text, "tiny.yaml", &overrides).unwrap().learning_rate(ranks).unwrap()
    };
    let base = "model.base_learning_rate=4.5e-6";
    for (ranks, factor) in [(1, 12.), (2, 24.)] {
        assert!((rate(&[base], ranks) / (4.5e-6 * factor) - 1.).abs() < 1e-12);
        assert_eq!(rate(&[base, "train.learning_rate=1.0e-3"], ranks), 1e-3);
    }
}
