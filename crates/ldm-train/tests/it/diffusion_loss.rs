//! The losses of diffusion models and their training against CompVis' `LatentDiffusion`, and properties of loss
//! weights.
//!
//! `golden/generate_diffusion.py` writes the golden files; both sides run in f32 with the same weights and noise.

use std::collections::BTreeMap;

use ldm_checkpoint::Checkpoint;
use ldm_core::Prompt;
use ldm_core::device::test_device;
use ldm_core::noise::{Replay, Seeded};
use ldm_data::Batch;
use ldm_pipelines::{LatentDiffusionConfig, ModelConfig, ModelFile};
use ldm_schedulers::{NoiseSchedule, Parameterization};
use ldm_testing::{Golden, assert_close, fill_weights};
use ldm_train::{
    AdamW, AdamWConfig, DiffusionLoss, DiffusionObjective, DiffusionTraining, Ema, EmaConfig,
    LatentStatistics, Loss, Objective, StepInfo, min_snr_weights,
};
use serde_json::Value;
use tch::{Kind, Tensor};

const CLASS: &str = include_str!("../../../ldm-pipelines/tests/golden/class.yaml");
/// As in `generate_diffusion.py`.
const SEED: u64 = 7;
const FIRST_STEP: StepInfo = StepInfo { phase: 0, global_step: 0 };

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
        crops: Vec::new(),
        names: vec!["a".into()],
    }
}

fn parts(loss: &Loss) -> BTreeMap<&'static str, Tensor> {
    loss.parts.iter().map(|(name, value)| (*name, value.shallow_clone())).collect()
}

#[test]
fn losses_and_gradients_match_compvis() {
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
        let loss = objective.loss(FIRST_STEP, &batch, &mut noise).unwrap();
        loss.total.backward();
        let parts = parts(&loss);
        let named: BTreeMap<String, Tensor> = objective.phases().remove(0).trainable.into_iter().collect();
        let (mut values, mut gradients) = (0, 0);
        for (name, want) in golden.scope(&format!("{case}/")) {
            let label = format!("{case}: {name}");
            if let Some(parameter) = name.strip_prefix("grad.") {
                assert_close(&label, &named[parameter].grad(), &want, 1e-5);
                gradients += 1;
            } else {
                assert_close(&label, &parts[name.as_str()], &want, 1e-5);
                values += 1;
            }
        }
        assert_eq!(values, parts.len(), "{case}: every part is compared");
        assert_eq!(gradients, if named.contains_key("logvar") { 11 } else { 10 });
    }
}

/// The norm of a change and its product with a sine, as `probe` of the script.
fn probe(change: &Tensor) -> Tensor {
    let flat = change.flatten(0, -1).to_kind(Kind::Double);
    let wave = (Tensor::arange(flat.numel() as i64, (Kind::Double, flat.device())) * 0.7).sin();
    Tensor::stack(&[flat.norm(), (flat * wave).sum(Kind::Double)], 0)
}

#[test]
fn five_steps_match_compvis() {
    let golden = golden("diffusion_training");
    let settings: Value = serde_json::from_str(golden.metadata("config")).unwrap();
    let objective = objective(&overrides(&settings["overrides"]), DiffusionTraining::default());
    let trainable = objective.phases().remove(0).trainable;
    let before: Vec<Tensor> = trainable.iter().map(|(_, tensor)| tensor.detach().copy()).collect();
    let clone = || trainable.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone()));
    let mut optimizer = AdamW::new(clone().collect(), AdamWConfig::default());
    let mut ema = Ema::new(objective.ema_parameters(), &EmaConfig::default());
    for step in 0..5 {
        let at = |key: &str| golden.get(key).get(step);
        optimizer.zero_grad();
        let mut noise = Replay::new([at("posterior_noise"), at("t"), at("eps")]);
        let loss = objective.loss(FIRST_STEP, &batch(&at("image"), &at("class")), &mut noise).unwrap();
        assert_close(&format!("loss {step}"), &loss.total, &golden.get("losses").get(step), 1e-5);
        loss.total.backward();
        optimizer.step(settings["lr"].as_f64().unwrap(), None, None);
        ema.update();
    }
    let named: BTreeMap<String, Tensor> = clone().collect();
    for (name, want) in golden.scope("after.") {
        assert_close(&name, &named[&name], &want, 1e-4);
    }
    let ema: BTreeMap<String, Tensor> = ema.state().into_iter().collect();
    let wanted = golden.scope("ema.");
    assert_eq!(wanted.len(), 9);
    for (name, want) in wanted {
        assert_close(&name, &ema[&name], &want, 1e-4);
    }
    // All parameters by norm and direction of their changes.
    let changes: Vec<Tensor> =
        named.values().zip(&before).map(|(after, before)| probe(&(after.detach() - before))).collect();
    assert_close("changes", &Tensor::stack(&changes, 0), golden.get("changes"), 1e-4);
}

fn schedule() -> NoiseSchedule {
    NoiseSchedule::new(&config(&[]).schedule()).unwrap()
}

/// An error `d` of x_0 is an error `d·α/σ` of ε and `d/σ` of v, so that the three weights of one error agree.
#[test]
fn min_snr_weights_of_one_error_agree_for_all_parameterizations() {
    let (schedule, gamma) = (schedule(), 5.);
    let weights = |parameterization| min_snr_weights(&schedule, parameterization, gamma).unwrap();
    let [x0, eps, v] = [Parameterization::X0, Parameterization::Eps, Parameterization::V].map(weights);
    let mut capped = 0;
    for t in 0..1000 {
        let level = schedule.level(t);
        let snr = (level.alpha / level.sigma).powi(2);
        let of_x0 = f64::from(x0[t]);
        assert!((of_x0 - snr.min(gamma)).abs() < 1e-6 * of_x0);
        assert!((f64::from(eps[t]) * snr - of_x0).abs() < 1e-5 * of_x0);
        assert!((f64::from(v[t]) / level.sigma.powi(2) - of_x0).abs() < 1e-5 * of_x0);
        capped += usize::from(snr > gamma);
    }
    assert!((10..990).contains(&capped), "some SNRs are above γ, some below: {capped}");
}

/// The losses of one wrong x_0 agree for the three targets.
#[test]
fn min_snr_losses_agree_through_the_model() {
    let z = Tensor::from_slice(&[0.3f32, -0.6, 0.9, 0.1]).view([1, 4, 1, 1]);
    let (wrong, eps) = (&z + 0.25, Tensor::from_slice(&[1f32, -0.5, 0.2, 0.7]).view([1, 4, 1, 1]));
    let t = Tensor::from_slice(&[40_i64]);
    let schedule = schedule();
    let at = schedule.levels(&t, &z);
    let noisy = schedule.add_noise(&z, &eps, &t);
    let losses = ["x0", "eps", "v"].map(|name| {
        let config = config(&[format!("model.params.parameterization={name}")]);
        let loss = DiffusionLoss::new(&config, &schedule, Some(5.), z.device()).unwrap();
        let p = config.parameterization;
        // The prediction that corresponds to the wrong x_0.
        let prediction =
            p.target(&wrong, &((&noisy - &wrong * &at.alpha) / &at.sigma).to_kind(Kind::Float), &at);
        loss.reduce(&loss.per_sample(&prediction, &p.target(&z, &eps, &at)), &t).total.double_value(&[])
    });
    assert!(
        (losses[0] - losses[1]).abs() < 1e-4 * losses[0] && (losses[0] - losses[2]).abs() < 1e-4 * losses[0],
        "{losses:?}"
    );
    assert!((losses[0] - 5. * 0.0625).abs() < 1e-4, "{losses:?}");
}

#[test]
fn offset_noise_is_constant_over_a_channel() {
    let image = Tensor::zeros([2, 3, 16, 16], (Kind::Float, test_device()));
    let latent = |fill: f64| Tensor::full([2, 4, 8, 8], fill, (Kind::Float, test_device()));
    let each = Tensor::arange(8, (Kind::Float, test_device())).view([2, 4, 1, 1]);
    let t = Tensor::from_slice(&[500_i64, 900]).to_device(test_device());
    let batch = batch(&image, &Tensor::from_slice(&[0_i64, 1]));
    let total = |offset_noise: f64, draws: Vec<Tensor>| {
        let objective = objective(&[], DiffusionTraining { offset_noise, ..DiffusionTraining::default() });
        objective.loss(FIRST_STEP, &batch, &mut Replay::new(draws)).unwrap().total
    };
    let with = total(0.1, vec![latent(0.), t.shallow_clone(), latent(0.3), each.shallow_clone()]);
    let without = total(0., vec![latent(0.), t, latent(0.3) + each * 0.1]);
    assert_close("loss", &with, &without, 1e-6);
}

#[test]
fn v_has_its_own_target() {
    let golden = golden("diffusion_losses");
    let of = |overrides: &[String]| {
        let objective = objective(overrides, DiffusionTraining::default());
        let mut noise =
            Replay::new(["posterior_noise", "t", "eps"].map(|key| golden.get(key).shallow_clone()));
        parts(
            &objective
                .loss(FIRST_STEP, &batch(golden.get("image"), golden.get("class")), &mut noise)
                .unwrap(),
        )
    };
    let v = of(&["model.params.parameterization=v".into(), "model.params.original_elbo_weight=0.5".into()]);
    // With v, all timesteps have the same weight in the bound.
    assert_close("loss_vlb", &v["loss_vlb"], &v["loss_simple"], 1e-6);
    assert_close("loss", &v["loss"], &(&v["loss_simple"] * 1.5), 1e-6);
    assert!((&v["loss_simple"] - &of(&[])["loss_simple"]).abs().double_value(&[]) > 1e-2);
}

#[test]
fn a_learned_log_variance_is_saved_and_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let learned = [
        "model.params.learn_logvar=true".to_owned(),
        "model.params.scale_factor=1".into(),
        "model.params.scale_by_std=true".into(),
    ];
    let mut first = objective(&learned, DiffusionTraining::default());
    let phases = first.phases();
    let (_, logvar) = phases[0].trainable.iter().find(|(name, _)| name == "logvar").unwrap();
    tch::no_grad(|| {
        logvar.shallow_clone().copy_(&Tensor::linspace(-1., 1., 1000, (Kind::Float, test_device())));
    });
    let image = Tensor::linspace(-1., 1., 2 * 3 * 256, (Kind::Float, test_device())).view([2, 3, 16, 16]);
    let batch = batch(&image, &Tensor::from_slice(&[0_i64, 1]));
    first.prepare(&batch, &mut Seeded::new([1, 2])).unwrap();
    assert!(first.model().scale_factor != 1.);
    ldm_checkpoint::save(&path, &first.weights(), &BTreeMap::new()).unwrap();
    let mut second = objective(&learned, DiffusionTraining::default());
    second.load(Checkpoint::open(&path).unwrap()).unwrap();
    // The scale is loaded, not computed again.
    assert!(second.model().scale_factor == first.model().scale_factor);
    let again = second.weights().into_iter().find(|(name, _)| name == "logvar").unwrap().1;
    assert_eq!(again, *logvar);
}

#[test]
fn the_scale_is_read_from_the_first_stages_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let scaled = ["model.params.scale_factor=1".to_owned(), "model.params.scale_by_std=true".into()];
    let source = objective(&scaled, DiffusionTraining::default());
    let first_stage: Vec<(String, Tensor)> = source
        .weights()
        .into_iter()
        .filter_map(|(name, tensor)| Some((name.strip_prefix("first_stage_model.")?.to_owned(), tensor)))
        .collect();
    let write = |json: &str| {
        let metadata = BTreeMap::from([("latent_statistics".to_owned(), json.to_owned())]);
        ldm_checkpoint::save(&path, &first_stage, &metadata).unwrap();
        Checkpoint::open(&path).unwrap()
    };
    let checkpoint = write(r#"{"images": 9, "mean": [0, 1, 2, 3], "std": [1, 1, 2, 2], "overall_std": 1.6}"#);
    let found = LatentStatistics::of(&checkpoint, 4).unwrap().unwrap();
    assert_eq!((found.mean, found.std, found.overall_std), (vec![0., 1., 2., 3.], vec![1., 1., 2., 2.], 1.6));
    let mut objective = DiffusionObjective::new(
        &config(&scaled),
        Some(checkpoint),
        DiffusionTraining::default(),
        test_device(),
    )
    .unwrap();
    let image = Tensor::zeros([2, 3, 16, 16], (Kind::Float, test_device()));
    objective.prepare(&batch(&image, &Tensor::from_slice(&[0_i64, 1])), &mut Seeded::new([1, 2])).unwrap();
    assert!(objective.model().scale_factor == f64::from(0.625f32));
    for (json, expected) in [
        (
            r#"{"images": 9, "mean": [0], "std": [1, 1, 2, 2], "overall_std": 1}"#,
            "metadata `latent_statistics`: mean: expected 4 channels, got 1",
        ),
        (
            r#"{"images": 9, "mean": [0, 0, 0, 0], "std": [1, 1, 2, 2], "overall_std": 0}"#,
            "overall_std: expected a positive number, got 0",
        ),
        (r#"{"images": 9, "mean": 0}"#, "metadata `latent_statistics`: "),
    ] {
        let error = LatentStatistics::of(&write(json), 4).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("model.safetensors"), "{error}");
    }
}
