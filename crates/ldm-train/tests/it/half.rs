//! f16: loss scaling and skipped steps.

use std::collections::BTreeMap;

use ldm_checkpoint::Checkpoint;
use ldm_core::device::test_device;
use ldm_train::{AdamW, AdamWConfig, LossScale, found_inf, grad_scale};
use tch::{Kind, Tensor};

fn scalar(value: f64) -> Tensor {
    Tensor::full([], value, (Kind::Float, test_device()))
}

#[test]
fn the_scale_halves_at_an_overflow_and_doubles_after_two_thousand_steps() {
    // The defaults of torch.amp.GradScaler.
    let mut scale = LossScale::new(test_device());
    let value = |scale: &LossScale| scale.scale().double_value(&[]);
    assert_eq!(value(&scale), 65_536.);
    scale.update(&scalar(1.));
    assert_eq!(value(&scale), 32_768.);
    (0..1999).for_each(|_| scale.update(&scalar(0.)));
    assert_eq!(value(&scale), 32_768.);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("scale.safetensors");
    ldm_checkpoint::save(&path, &scale.state(), &BTreeMap::new()).unwrap();
    let mut again = LossScale::new(test_device());
    again.load(&Checkpoint::open(&path).unwrap()).unwrap();
    for scale in [&mut scale, &mut again] {
        scale.update(&scalar(0.));
        assert_eq!(value(scale), 65_536., "the two-thousandth step");
    }
}

#[test]
fn an_overflow_changes_nothing_and_scaling_is_exact() {
    let param = |value: f64| Tensor::full([3], value, (Kind::Float, test_device())).set_requires_grad(true);
    let optimizer =
        |weight: &Tensor| AdamW::new(vec![("w".into(), weight.shallow_clone())], AdamWConfig::default());
    let (plain, scaled) = (param(2.), param(2.));
    let (mut one, mut other) = (optimizer(&plain), optimizer(&scaled));
    let scale = LossScale::new(test_device());
    let scale = scale.scale();
    for step in 0..3 {
        one.zero_grad();
        plain.square().sum(Kind::Float).backward();
        one.step(0.1, None, None);

        other.zero_grad();
        (scaled.square().sum(Kind::Float) * f64::INFINITY).backward();
        let before = (
            scaled.detach().copy(),
            other.state().iter().map(|(_, tensor)| tensor.copy()).collect::<Vec<_>>(),
        );
        let norm = other.grad_norm() / scale;
        let overflow = found_inf(&norm);
        assert_eq!(overflow.double_value(&[]), 1.);
        other.step(0.1, grad_scale(&norm, Some(1e9), Some(scale)).as_ref(), Some(&overflow));
        let after: Vec<Tensor> = other.state().into_iter().map(|(_, tensor)| tensor).collect();
        assert_eq!((scaled.detach(), after), before, "step {step} is skipped");

        other.zero_grad();
        (scaled.square().sum(Kind::Float) * scale).backward();
        let norm = other.grad_norm() / scale;
        let fine = found_inf(&norm);
        assert_eq!(fine.double_value(&[]), 0.);
        other.step(0.1, grad_scale(&norm, Some(1e9), Some(scale)).as_ref(), Some(&fine));
    }
    assert_eq!(plain, scaled, "scaling by a power of two is exact");
    assert_ne!(plain.double_value(&[0]), 2.);
}
