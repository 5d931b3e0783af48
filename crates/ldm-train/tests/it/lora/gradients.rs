//! Gradients of adapters against autograd.

use std::collections::BTreeMap;

use ldm_core::NoiseSource;
use ldm_core::device::test_device;
use ldm_core::noise::PerStep;
use ldm_testing::assert_close;
use ldm_train::{LoraConfig, LoraObjective, LoraTarget, Objective, StepInfo};
use tch::{Kind, Tensor};

use super::function::Function;
use super::{empty_batch, model_config};
use crate::lock_generator;

/// A nonlinear function of a convolution, a linear layer, and a linear layer that is not adapted.
fn chain([conv, linear, fixed, input]: [&Tensor; 4]) -> Tensor {
    let hidden = input.conv2d(conv, None::<&Tensor>, 1, 1, 1, 1).tanh().flatten(1, -1); // [2, 4·3·3]
    (hidden.linear(linear, None::<&Tensor>).sigmoid().linear(fixed, None::<&Tensor>))
        .square()
        .sum(Kind::Float)
}

#[test]
fn gradients_are_those_of_autograd() {
    let _lock = lock_generator();
    let mut noise = PerStep::new(3, 0, 0);
    let mut draw = |size: &[i64]| noise.like(&Tensor::zeros(size, (Kind::Float, test_device())));
    for (rank, alpha) in [(1, 1.), (2, 5.), (4, 0.5)] {
        let names = ["in_layers.2", "attn1.to_q", "attn1.norm"]
            .map(|end| format!("model.diffusion_model.x.{end}.weight"));
        let weights = [draw(&[4, 3, 3, 3]), draw(&[5, 36]), draw(&[2, 5])];
        let input = draw(&[2, 3, 3, 3]);
        let own: Vec<Tensor> = weights.iter().map(Tensor::copy).collect();
        let parts: [Tensor; 4] = [&own[0], &own[1], &own[2], &input].map(Tensor::shallow_clone);
        let function = Function {
            weights: names.iter().cloned().zip(own).collect(),
            loss: Box::new(move || chain(parts.each_ref())),
        };
        let config = LoraConfig {
            rank,
            alpha: Some(alpha),
            targets: vec![LoraTarget::Convolutions, LoraTarget::Attention],
            text_encoder: false,
        };
        let mut objective =
            LoraObjective::new(Box::new(function), &model_config(&[]), &config, &mut PerStep::new(7, 0, 0))
                .unwrap();
        let factors: BTreeMap<String, Tensor> = objective.phases().remove(0).trainable.into_iter().collect();
        assert_eq!(factors.len(), 4);
        for (name, factor) in &factors {
            // B is initialized to zero, A from U(±1/√in).
            let zero = factor.abs().max().double_value(&[]) == 0.;
            assert_eq!(zero, name.rsplit('.').next() == Some("up"), "{name}");
            tch::no_grad(|| factor.shallow_clone().copy_(&draw(&factor.size())));
        }
        objective.after_step(&mut PerStep::new(0, 0, 0));

        // Expected: W0 + s·B·A in the graph.
        let copies: BTreeMap<&String, Tensor> = factors
            .iter()
            .map(|(name, tensor)| (name, tensor.detach().copy().set_requires_grad(true)))
            .collect();
        let adapted = |index: usize| {
            let module = names[index].trim_end_matches(".weight");
            let [down, up] = ["down", "up"].map(|part| &copies[&format!("lora.{module}.{part}")]);
            let product = up.flatten(1, -1).mm(&down.flatten(1, -1)) * (alpha / rank as f64);
            &weights[index] + product.view(weights[index].size().as_slice())
        };
        let passes = 3;
        for _ in 0..passes {
            let loss = objective
                .loss(StepInfo { phase: 0, global_step: 0 }, &empty_batch(), &mut PerStep::new(0, 0, 0))
                .unwrap();
            let direct = chain([&adapted(0), &adapted(1), &weights[2], &input]);
            assert_close("the loss", &loss.total, &direct, 1e-6);
            loss.total.backward();
            objective.after_backward(0);
            direct.backward();
        }
        for (name, factor) in &factors {
            let want = copies[name].grad();
            assert!(want.abs().max().double_value(&[]) > 1e-3, "{name}: the expected gradient is zero");
            assert_close(name, &factor.grad(), &want, 1e-5);
        }
    }
}
