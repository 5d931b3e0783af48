//! The spatial rescaler against CompVis', and the identity.

use std::collections::BTreeMap;

use ldm_conditioning::{
    Conditioner, ConditionerConfig, Identity, RescaleMethod, SpatialConfig, SpatialRescaler,
};
use ldm_core::Prompt;
use ldm_core::device::test_device;
use ldm_testing::assert_close;
use tch::nn::VarStore;
use tch::{Kind, Tensor};

use crate::open_golden;

#[test]
fn spatial_equals_the_reference() {
    let golden = open_golden("spatial.safetensors");
    let cases: BTreeMap<String, SpatialConfig> = serde_json::from_str(golden.metadata("cases")).unwrap();
    assert_eq!(cases.len(), 7);
    for (name, config) in cases {
        let vs = VarStore::new(test_device());
        let conditioner = SpatialRescaler::new(&vs.root(), &config).unwrap();
        let weights: BTreeMap<String, Tensor> =
            golden.scope(&format!("{name}.weights.")).into_iter().collect();
        let names: Vec<String> = vs.variables().into_keys().collect();
        assert_eq!(names.len(), weights.len(), "{name}: {names:?}");
        tch::no_grad(|| vs.variables().iter_mut().for_each(|(key, value)| value.copy_(&weights[key])));
        let mask = golden.get(&format!("{name}.mask"));
        let want = golden.get(&format!("{name}.concat"));
        let prompts = [
            Prompt { mask: Some(mask.shallow_clone()), ..Prompt::default() },
            Prompt { image: Some(mask.shallow_clone()), ..Prompt::default() },
            Prompt { mask: Some(mask.to_kind(Kind::Double)), ..Prompt::default() },
        ];
        for prompt in prompts {
            let cond = conditioner.condition(&prompt, false).unwrap();
            assert!(cond.context.is_none() && cond.label.is_none());
            assert_close(&name, &cond.concat.unwrap(), want, 1e-5);
        }
        let channels = ConditionerConfig::Spatial(config).concat_channels();
        assert_eq!(channels, want.size().get(1).copied(), "{name}");
    }
}

fn mask(size: [i64; 4]) -> Prompt {
    Prompt { mask: Some(Tensor::zeros(size, (Kind::Float, test_device()))), ..Prompt::default() }
}

#[test]
fn invalid_maps_are_refused() {
    let vs = VarStore::new(test_device());
    let config = SpatialConfig { n_stages: 2, in_channels: 5, ..SpatialConfig::default() };
    let conditioner = SpatialRescaler::new(&vs.root(), &config).unwrap();
    let error = |prompt: &Prompt| conditioner.condition(prompt, false).unwrap_err().to_string();
    assert_eq!(error(&Prompt::class(&[1])), "this model is conditioned on `mask`, and the prompt has none");
    assert_eq!(error(&mask([1, 4, 8, 8])), "mask: expected shape [B, 5, H, W], got [1, 4, 8, 8]");
    assert_eq!(
        error(&mask([1, 5, 8, 3])),
        "mask: expected shape sides of at least 1 after 2 times 0.5, got [1, 5, 8, 3]",
    );
    let flat =
        Prompt { image: Some(Tensor::zeros([5, 8, 8], (Kind::Float, test_device()))), ..Prompt::default() };
    assert_eq!(error(&flat), "image: expected shape [B, K, H, W], got [5, 8, 8]");
    let message = conditioner.unconditional(1).unwrap_err().to_string();
    assert!(message.starts_with("conditioning: expected a null prompt"), "{message}");
}

#[test]
fn invalid_configs_are_refused() {
    let base = SpatialConfig::default;
    for (config, message) in [
        (SpatialConfig { n_stages: -1, ..base() }, "n_stages: expected at least 0, got -1"),
        (SpatialConfig { multiplier: 0., ..base() }, "multiplier: expected a positive number, got 0"),
        (SpatialConfig { multiplier: f64::NAN, ..base() }, "multiplier: expected a positive number, got NaN"),
        (SpatialConfig { in_channels: 0, ..base() }, "in_channels: expected at least 1, got 0"),
        (SpatialConfig { out_channels: Some(0), ..base() }, "out_channels: expected at least 1, got 0"),
        (
            SpatialConfig { method: RescaleMethod::Linear, ..base() },
            "method: expected nearest, bilinear, bicubic or area, got linear",
        ),
        (
            SpatialConfig { method: RescaleMethod::Trilinear, ..base() },
            "method: expected nearest, bilinear, bicubic or area, got trilinear",
        ),
    ] {
        let vs = VarStore::new(test_device());
        let error = SpatialRescaler::new(&vs.root(), &config).unwrap_err().to_string();
        assert_eq!(error, format!("spatial conditioning: {message}"));
    }
}

#[test]
fn identity_passes_on_its_inputs() {
    let identity = Identity::new(test_device());
    let image = Tensor::rand([2, 3, 4, 4], (Kind::Float, test_device()));
    let embedding = Tensor::rand([2, 5, 7], (Kind::Float, test_device()));
    let of_image = Prompt { image: Some(image.shallow_clone()), ..Prompt::default() };
    let cond = identity.condition(&of_image, false).unwrap();
    assert_eq!(cond.concat.unwrap(), image);
    assert!(cond.context.is_none());
    let of_vectors = Prompt { embedding: Some(embedding.shallow_clone()), ..Prompt::default() };
    let cond = identity.condition(&of_vectors, false).unwrap();
    assert_eq!(cond.context.unwrap(), embedding);
    assert!(cond.concat.is_none());
    let null = identity.unconditional_like(&of_vectors).unwrap();
    assert_eq!(null.context.unwrap(), embedding.zeros_like());
}

#[test]
fn identity_reports_errors() {
    let identity = Identity::new(test_device());
    let error = |prompt: &Prompt| identity.condition(prompt, false).unwrap_err().to_string();
    assert_eq!(
        error(&Prompt::class(&[1])),
        "this model is conditioned on `image` or `embedding`, and the prompt has none"
    );
    let flat = || Some(Tensor::zeros([2, 7], (Kind::Float, test_device())));
    let prompt = Prompt { embedding: flat(), ..Prompt::default() };
    assert_eq!(error(&prompt), "embedding: expected shape [B, L, D], got [2, 7]");
    let prompt = Prompt { image: flat(), ..Prompt::default() };
    assert_eq!(error(&prompt), "image: expected shape [B, C, h, w], got [2, 7]");
    let image = Prompt { image: flat(), ..Prompt::default() };
    let message = identity.null_like(&image).unwrap_err().to_string();
    assert!(message.starts_with("conditioning: expected a null prompt"), "{message}");
    let message = identity.null_prompt(1).unwrap_err().to_string();
    assert!(message.ends_with("try null_like"), "{message}");
}
