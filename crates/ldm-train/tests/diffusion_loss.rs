//! The losses of diffusion models and their training against CompVis' `LatentDiffusion`, and the weights' properties.
//!
//! `golden/generate_diffusion.py` makes the files; both sides run in f32 with the same weights and draws.

#![allow(clippy::unwrap_used, reason = "clippy knows tests, not the functions beside them")]

use std::collections::BTreeMap;

use ldm_core::device::test_device;
use ldm_core::noise::Replay;
use ldm_core::testing::{Golden, assert_close, fill_weights};
use ldm_core::weights::{self, Checkpoint};
use ldm_core::{NoiseSource, Prompt};
use ldm_data::Batch;
use ldm_pipelines::{LatentDiffusionConfig, ModelConfig, ModelFile};
use ldm_schedulers::{NoiseSchedule, Parameterization, ScheduleConfig};
use ldm_train::{
    AdamW, AdamWConfig, DiffusionObjective, DiffusionTraining, Ema, EmaConfig, LatentStatistics, Loss,
    Moment, Objective, min_snr_weights,
};
use serde_json::Value;
use tch::{Kind, Tensor};

const CLASS: &str = include_str!("../../ldm-pipelines/tests/golden/class.yaml");
/// As in `generate_diffusion.py`.
const SEED: u64 = 7;
const NOW: Moment = Moment { turn: 0, step: 0 };

fn golden(name: &str) -> Golden {
    Golden::open(format!("{}/tests/golden/{name}.safetensors", env!("CARGO_MANIFEST_DIR")), test_device())
}

fn config(overrides: &[String]) -> LatentDiffusionConfig {
    let file = ModelFile::parse(CLASS, "class.yaml", overrides).unwrap();
    let ModelConfig::LatentDiffusion(config) = file.model else { panic!("a diffusion model") };
    *config
}

fn objective(overrides: &[String], training: DiffusionTraining) -> DiffusionObjective {
    let objective = DiffusionObjective::new(&config(overrides), None, training, test_device()).unwrap();
    fill_weights(objective.model().vs(), SEED);
    objective
}

/// `{"loss_type": "l1"}` as overrides.
fn overrides(of: &Value) -> Vec<String> {
    let one = |(key, value): (&String, &Value)| format!("model.params.{key}={value}").replace('"', "");
    of.as_object().unwrap().iter().map(one).collect()
}

fn batch(images: &Tensor, class: &Tensor) -> Batch {
    Batch {
        images: images.shallow_clone(),
        latents: None,
        prompt: Prompt { class: Some(class.shallow_clone()), ..Prompt::default() },
        label_map: None,
        names: vec!["a".into()],
    }
}

fn parts(loss: &Loss) -> BTreeMap<&'static str, Tensor> {
    loss.parts.iter().map(|(name, value)| (*name, value.shallow_clone())).collect()
}

#[test]
fn losses_and_gradients_are_the_references() {
    let golden = golden("diffusion_losses");
    let [image, posterior, eps, t, class] =
        ["image", "posterior_noise", "eps", "t", "class"].map(|key| golden.get(key));
    let batch = batch(image, class);
    let settings: Value = serde_json::from_str(golden.metadata("config")).unwrap();
    let cases = settings["cases"].as_object().unwrap();
    assert_eq!(cases.len(), 7);
    for (case, of) in cases {
        let objective = objective(&overrides(of), DiffusionTraining::default());
        let mut noise = Replay::new([posterior, t, eps].map(Tensor::shallow_clone));
        let loss = objective.loss(NOW, &batch, &mut noise).unwrap();
        loss.total.backward();
        let parts = parts(&loss);
        let named: BTreeMap<String, Tensor> = objective.turns().remove(0).trainable.into_iter().collect();
        let (mut values, mut gradients) = (0, 0);
        for (name, want) in golden.scope(&format!("{case}/")) {
            let what = format!("{case}: {name}");
            if let Some(parameter) = name.strip_prefix("grad.") {
                assert_close(&what, &named[parameter].grad(), &want, 1e-5);
                gradients += 1;
            } else {
                assert_close(&what, &parts[name.as_str()], &want, 1e-5);
                values += 1;
            }
        }
        assert_eq!(values, parts.len(), "{case}: every part is the reference's");
        assert_eq!(gradients, if named.contains_key("logvar") { 11 } else { 10 });
    }
}

/// The size of a change and its product with a wave, as `probe` of the script.
fn probe(change: &Tensor) -> Tensor {
    let flat = change.flatten(0, -1).to_kind(Kind::Double);
    let wave = (Tensor::arange(flat.numel() as i64, (Kind::Double, flat.device())) * 0.7).sin();
    Tensor::stack(&[flat.norm(), (flat * wave).sum(Kind::Double)], 0)
}

#[test]
fn five_steps_end_where_the_references_end() {
    let golden = golden("diffusion_training");
    let settings: Value = serde_json::from_str(golden.metadata("config")).unwrap();
    let objective = objective(&overrides(&settings["overrides"]), DiffusionTraining::default());
    let trainable = objective.turns().remove(0).trainable;
    let before: Vec<Tensor> = trainable.iter().map(|(_, tensor)| tensor.detach().copy()).collect();
    let clone = || trainable.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone()));
    let mut optimizer = AdamW::new(clone().collect(), AdamWConfig::default());
    let mut ema = Ema::new(objective.averaged(), &EmaConfig::default());
    for step in 0..5 {
        let at = |key: &str| golden.get(key).get(step);
        optimizer.zero_grad();
        let mut noise = Replay::new([at("posterior_noise"), at("t"), at("eps")]);
        let loss = objective.loss(NOW, &batch(&at("image"), &at("class")), &mut noise).unwrap();
        assert_close(&format!("loss {step}"), &loss.total, &golden.get("losses").get(step), 1e-5);
        loss.total.backward();
        optimizer.step(settings["lr"].as_f64().unwrap(), None);
        ema.update();
    }
    let named: BTreeMap<String, Tensor> = clone().collect();
    for (name, want) in golden.scope("after.") {
        assert_close(&name, &named[&name], &want, 1e-4);
    }
    let averages: BTreeMap<String, Tensor> = ema.state().into_iter().collect();
    let wanted = golden.scope("ema.");
    assert_eq!(wanted.len(), 9);
    for (name, want) in wanted {
        assert_close(&name, &averages[&name], &want, 1e-4);
    }
    // Every other parameter by how far it moved, and where to.
    let changes: Vec<Tensor> =
        named.values().zip(&before).map(|(after, before)| probe(&(after.detach() - before))).collect();
    assert_close("changes", &Tensor::stack(&changes, 0), golden.get("changes"), 1e-4);
}
