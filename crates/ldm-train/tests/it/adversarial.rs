//! First stages with a discriminator: overfitting, bit-exact resume, export, refusals.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use ldm_autoencoder::FirstStageConfig;
use ldm_checkpoint::Checkpoint;
use ldm_core::Prompt;
use ldm_core::device::test_device;
use ldm_core::noise::{NoiseSource, PerStep, Seeded};
use ldm_data::Batch;
use ldm_metrics::Lpips;
use ldm_train::{
    AdamWConfig, AutoencoderObjective, Event, Exported, Finished, Objective, RunConfig, StepInfo, Trainer,
};
use tch::{Kind, Tensor};

use crate::{batch_of, config, configs, lock_generator, run_to_end};

const TRAIN: &str = "
train:
  steps: 20
  learning_rate: 1.0e-3
  optimizer: {betas: [0.5, 0.9], weight_decay: 0.0}
  ema: {decay: 0.99}
  log_every: 5
  checkpoint_every: 10
  samples: {count: 0}
";

const KL: &str = "ldm.modules.losses.LPIPSWithDiscriminator";
const VQ: &str = "taming.modules.losses.vqperceptual.VQLPIPSWithDiscriminator";

fn kl(loss: &str) -> String {
    run_config("kl", &[], KL, loss)
}

fn vq(loss: &str) -> String {
    run_config("vq", &["ema_decay: 0.9, restart_after: 3"], VQ, loss)
}

fn run_config(kind: &str, params: &[&str], target: &str, loss: &str) -> String {
    let loss = format!(
        "lossconfig: {{target: {target}, params: {{disc_start: 4, disc_num_layers: 1, disc_ndf: 16, \
         disc_weight: 0.5, {loss}}}}}"
    );
    let model = configs::first_stage(kind, &[params, &[&loss]].concat(), &["dropout: 0.1"]);
    let data = configs::data(&configs::scenes(64), Some(configs::VALIDATION));
    format!("model: {model}\n{data}{TRAIN}")
}

fn trainer(text: &str, overrides: &[&str], root: &Path) -> Trainer {
    Trainer::create(config(text, overrides), root, test_device()).unwrap()
}

/// Ten steps, a stop, and ten more in a new trainer are bit-identical to twenty steps.
#[track_caller]
fn check_resume(text: &str) {
    let folder = tempfile::tempdir().unwrap();
    let (whole, broken) = (folder.path().join("whole"), folder.path().join("broken"));
    run_to_end(&mut trainer(text, &[], &whole));
    let stop = AtomicBool::new(false);
    let mut first = trainer(text, &[], &broken);
    let finished = first
        .run(&stop, &mut |event| {
            if let Event::Step { step: 10, .. } = event {
                stop.store(true, Ordering::Relaxed);
            }
        })
        .unwrap();
    assert_eq!(finished, Finished::Stopped);
    drop(first);
    let mut second = Trainer::resume(&broken, &[], test_device()).unwrap();
    assert_eq!(second.state().step, 10);
    run_to_end(&mut second);
    for name in ["model", "ema", "optimizer"] {
        let bytes = |run: &Path| {
            std::fs::read(run.join(format!("checkpoints/step-0000020/{name}.safetensors"))).unwrap()
        };
        assert!(bytes(&whole) == bytes(&broken), "{name} differs after a resume");
    }
    let model = Checkpoint::open(whole.join("checkpoints/step-0000020/model.safetensors")).unwrap();
    assert!(model.contains("loss.discriminator.main.0.weight"));
    assert!(!model.names().any(|name| name.starts_with("loss.perceptual_loss.")));
}

#[test]
fn a_kl_first_stage_with_every_option_resumes_bit_exactly() {
    let _lock = lock_generator();
    // Without LPIPS, which is slow and has no state.
    check_resume(&kl("perceptual_weight: 0.0, use_actnorm: true, learn_logvar: true, r1_weight: 0.1,
              lecam_weight: 0.1, disc_ramp: 8, disc_loss: vanilla"));
}

#[test]
fn a_vq_first_stage_with_ema_and_restarts_resumes_bit_exactly() {
    let _lock = lock_generator();
    check_resume(&vq("perceptual_weight: 0.0"));
}

#[test]
fn first_stages_overfit_a_few_images() {
    let _lock = lock_generator();
    for text in [kl("kl_weight: 1.0e-6"), vq("codebook_weight: 1.0")] {
        let folder = tempfile::tempdir().unwrap();
        let overrides = [
            "data.params.train.params.count=4",
            "train.steps=80",
            "train.learning_rate=0.003",
            "train.checkpoint_every=1000",
            "train.ema=null",
            "model.params.lossconfig.params.disc_start=30",
            "model.params.ddconfig.dropout=0.0",
        ];
        let lines = run_to_end(&mut trainer(&text, &overrides, &folder.path().join("run")));
        let (first, last) = (&lines[0], &lines[lines.len() - 1]);
        assert!(last["rec_loss"] < 0.6 * first["rec_loss"], "from {first:?} to {last:?}");
        assert_eq!((first["disc_factor"], last["disc_factor"]), (0., 1.));
        for name in ["total_loss", "p_loss", "nll_loss", "d_weight", "g_loss", "disc_loss", "logits_real"] {
            assert!(lines.iter().all(|line| line[name].is_finite()), "{name}");
        }
        assert_eq!(first["disc_loss"], 0., "before disc_start");
        assert!(last["disc_loss"] > 0.);
        if text.contains("n_embed") {
            assert!(
                (1. ..=32.).contains(&last["perplexity"])
                    && last["cluster_usage"] >= last["perplexity"].floor()
            );
        }
    }
}

fn objective(text: &str) -> AutoencoderObjective {
    let RunConfig { model, .. } = config(text, &[]);
    let config: FirstStageConfig = model.first_stage().unwrap();
    AutoencoderObjective::with_lpips(&config, test_device(), |device| Ok(Lpips::random(device))).unwrap()
}

fn batch(seed: u64) -> Batch {
    let like = Tensor::zeros([4, 3, 16, 16], (Kind::Float, tch::Device::Cpu));
    batch_of(Seeded::new(seed..seed + 4).like(&like).tanh(), Prompt::default())
}

#[test]
fn a_phase_trains_its_own_parameters() {
    let _lock = lock_generator();
    let names = |text: &str| -> Vec<BTreeSet<String>> {
        let phases = objective(text).phases();
        phases.into_iter().map(|phase| phase.trainable.into_iter().map(|(name, _)| name).collect()).collect()
    };
    let kl_names = names(&kl("perceptual_weight: 0.0"));
    let [generator, discriminator] = &kl_names[..] else { panic!("two phases") };
    assert!(generator.is_disjoint(discriminator));
    assert!(discriminator.iter().all(|name| name.starts_with("loss.discriminator.main.")));
    assert_eq!(discriminator.len(), 7);
    assert!(!generator.contains("loss.logvar"), "CompVis has logvar in no optimizer");
    assert!(names(&kl("perceptual_weight: 0.0, learn_logvar: true"))[0].contains("loss.logvar"));
    let with_ema = names(&vq("perceptual_weight: 0.0"));
    assert!(!with_ema[0].contains("quantize.embedding.weight"), "a codebook updated by EMA has no gradient");
    let by_gradient = vq("perceptual_weight: 0.0").replace("ema_decay: 0.9", "lr_g_factor: 2.5");
    assert!(names(&by_gradient)[0].contains("quantize.embedding.weight"));
    assert_eq!(objective(&by_gradient).phases()[0].lr_scale, 2.5);
}

#[test]
fn logvar_has_its_initial_value_and_gradient() {
    let _lock = lock_generator();
    let objective = objective(&kl("perceptual_weight: 0.0, logvar_init: 0.7, learn_logvar: true"));
    let logvar = objective.weights().into_iter().find(|(name, _)| name == "loss.logvar").unwrap().1;
    assert!((logvar.double_value(&[]) - 0.7).abs() < 1e-6);
    let loss =
        objective.loss(StepInfo { phase: 0, global_step: 0 }, &batch(1), &mut PerStep::new(1, 0, 0)).unwrap();
    loss.total.backward();
    let part = |name: &str| loss.parts.iter().find(|(each, _)| *each == name).unwrap().1.double_value(&[]);
    // d/ds of CHW·(rec·e⁻ˢ + s).
    let want = (3 * 16 * 16) as f64 * (1. - part("rec_loss") * (-0.7_f64).exp());
    let got = logvar.grad().double_value(&[]);
    assert!((got - want).abs() < 1e-3 * want.abs().max(1.), "got {got}, want {want}");
}

#[test]
fn the_ramp_grows_from_disc_start() {
    let _lock = lock_generator();
    let objective = objective(&kl("perceptual_weight: 0.0, disc_factor: 0.8, disc_ramp: 10"));
    for (step, generator) in [(0, 0.), (3, 0.), (4, 0.), (9, 0.4), (14, 0.8), (1000, 0.8)] {
        let loss = objective
            .loss(StepInfo { phase: 0, global_step: step }, &batch(1), &mut PerStep::new(1, 0, step))
            .unwrap();
        let factor = loss.parts.iter().find(|(name, _)| *name == "disc_factor").unwrap().1.double_value(&[]);
        assert!((factor - generator).abs() < 1e-6, "step {step}: {factor}");
    }
    let discriminator = |step| {
        let loss = objective
            .loss(StepInfo { phase: 1, global_step: step }, &batch(1), &mut PerStep::new(1, 0, step))
            .unwrap();
        loss.total.double_value(&[])
    };
    assert_eq!(discriminator(3), 0.);
    assert!(discriminator(4) > 0., "the discriminator has its full weight from disc_start");
}

#[test]
fn the_penalties_are_added_with_their_weights() {
    let _lock = lock_generator();
    let discriminator = |text: &str| {
        tch::manual_seed(1);
        let objective = objective(text);
        let loss = objective
            .loss(StepInfo { phase: 1, global_step: 4 }, &batch(1), &mut PerStep::new(1, 0, 4))
            .unwrap();
        loss.total.backward();
        let grad = objective.phases()[1].trainable[1].1.grad().norm().double_value(&[]);
        let mut parts: BTreeMap<&str, f64> =
            loss.parts.into_iter().map(|(name, value)| (name, value.double_value(&[]))).collect();
        parts.insert("grad", grad);
        parts
    };
    let plain = discriminator(&kl("perceptual_weight: 0.0, use_actnorm: true, disc_factor: 0.5"));
    let r1 =
        discriminator(&kl("perceptual_weight: 0.0, use_actnorm: true, disc_factor: 0.5, r1_weight: 10.0"));
    assert!(r1["r1"] > 0. && (r1["disc_loss"] - plain["disc_loss"] - 2.5 * r1["r1"]).abs() < 1e-4, "{r1:?}");
    assert!(r1["grad"] != plain["grad"], "the penalty has a gradient");
    let lecam =
        discriminator(&kl("perceptual_weight: 0.0, use_actnorm: true, disc_factor: 0.5, lecam_weight: 0.3"));
    let want = plain["disc_loss"] + 0.15 * lecam["lecam"];
    assert!(lecam["lecam"] > 0. && (lecam["disc_loss"] - want).abs() < 1e-4, "{lecam:?}");
}

#[test]
fn the_exported_model_has_no_loss() {
    let _lock = lock_generator();
    let objective = objective(&vq("perceptual_weight: 0.0, use_actnorm: true"));
    let all: BTreeSet<String> = objective.weights().into_iter().map(|(name, _)| name).collect();
    for name in
        ["loss.discriminator.main.3.initialized", "quantize.embedding.cluster_size", "quantize.unused_steps"]
    {
        assert!(all.contains(name), "{name}");
    }
    let Exported::Model(exported) = objective.as_export().unwrap().export(&[]).unwrap() else {
        panic!("a model")
    };
    let exported: BTreeSet<String> = exported.into_iter().map(|(name, _)| name).collect();
    let text = vq("").replace("{disc_start: 4, disc_num_layers: 1, disc_ndf: 16, disc_weight: 0.5, }", "{}");
    let text =
        text.replace(VQ, "reconstruction").replace("ema_decay: 0.9, restart_after: 3", "lr_g_factor: 1.0");
    let model: BTreeSet<String> =
        self::objective(&text).weights().into_iter().map(|(name, _)| name).collect();
    assert_eq!(exported, model);
}

#[test]
fn random_lpips_is_noted_where_lpips_has_a_weight() {
    let _lock = lock_generator();
    let notes = objective(&kl("perceptual_weight: 1.0")).notes();
    assert!(notes.len() == 1 && notes[0].contains("ldm weights get lpips-vgg16"), "{notes:?}");
    assert!(objective(&kl("perceptual_weight: 0.0")).notes().is_empty());
}

#[test]
fn lpips_of_a_compvis_checkpoint_is_skipped() {
    let _lock = lock_generator();
    let mut objective = objective(&kl("perceptual_weight: 0.0"));
    let mut tensors = objective.weights();
    tensors.push((
        "loss.perceptual_loss.lin0.model.1.weight".into(),
        Tensor::zeros([1], (Kind::Float, tch::Device::Cpu)),
    ));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    ldm_checkpoint::save(&path, &tensors, &BTreeMap::new()).unwrap();
    objective.load(Checkpoint::open(path).unwrap()).unwrap();
}

#[test]
fn latent_statistics_are_measured() {
    let _lock = lock_generator();
    let objective = objective(&kl("perceptual_weight: 0.0"));
    let mut batches = (0..3).map(|seed| Ok(batch(seed)));
    let found = objective.as_export().unwrap().latent_statistics(&mut batches).unwrap().unwrap();
    assert_eq!((found.images, found.mean.len(), found.std.len()), (12, 4, 4));
    assert!(found.overall_std.is_finite() && found.overall_std > 0.);
}

#[test]
fn all_loss_names_of_compvis_are_read() {
    let _lock = lock_generator();
    for target in [
        "reconstruction",
        "none",
        "torch.nn.Identity",
        "taming.modules.losses.DummyLoss",
        "ldm.modules.losses.contperceptual.DummyLoss",
    ] {
        let params = if target == "reconstruction" { "{kl_weight: 1.0}" } else { "null" };
        let text =
            kl("").replace("{disc_start: 4, disc_num_layers: 1, disc_ndf: 16, disc_weight: 0.5, }", params);
        assert_eq!(objective(&text.replace(KL, target)).phases().len(), 1, "{target}");
    }
    let all = "perceptual_weight: 0.0, pixelloss_weight: 1.0, disc_in_channels: 3, disc_factor: 1.0, use_actnorm: false,
              disc_conditional: false, disc_loss: hinge";
    for target in ["lpips_with_discriminator", "ldm.modules.losses.contperceptual.LPIPSWithDiscriminator"] {
        let text = kl(&format!("{all}, logvar_init: 0.0, kl_weight: 1.0")).replace(KL, target);
        assert_eq!(objective(&text).phases().len(), 2);
    }
    for target in ["vq_lpips_with_discriminator", "ldm.modules.losses.vqperceptual.VQLPIPSWithDiscriminator"]
    {
        let more = "codebook_weight: 1.0, n_classes: 32, perceptual_loss: lpips, pixel_loss: l2";
        let text = vq(&format!("{all}, {more}")).replace(VQ, target);
        assert_eq!(objective(&text).phases().len(), 2);
    }
}

#[test]
fn the_default_optimizer_is_that_of_compvis() {
    let line = "  optimizer: {betas: [0.5, 0.9], weight_decay: 0.0}\n";
    let [explicit, default] = [kl(""), kl("").replace(line, "")];
    assert_ne!(explicit, default);
    let reference = config(&explicit, &[]);
    assert_eq!(reference.train.optimizer, AdamWConfig::adversarial());
    assert_eq!(config(&default, &[]).train.optimizer, AdamWConfig::adversarial());
    assert_eq!(
        config(&default, &[]).to_text(),
        reference.to_text(),
        "the default is written to the config of the run"
    );
    let without = ["model.params.lossconfig.target=reconstruction", "model.params.lossconfig.params=null"];
    assert_eq!(config(&default, &without).train.optimizer, AdamWConfig::default());
    let decayed = config(&default, &["train.optimizer.weight_decay=0.1"]).train.optimizer;
    assert_eq!(decayed, AdamWConfig { weight_decay: 0.1, ..AdamWConfig::default() });
}

#[test]
fn invalid_settings_are_refused_by_key() {
    #[track_caller]
    fn check(text: &str, expected: &str) {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("run");
        let error = Trainer::create(config(text, &[]), &root, test_device()).unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains('\n'), "{error}");
        assert!(!root.exists(), "something was written");
    }
    let _lock = lock_generator();
    check(
        &kl("disc_conditional: true"),
        "lossconfig: `disc_in_channels`: expected the images' 3 channels and those of",
    );
    check(
        &kl("codebook_weight: 1.0"),
        "`codebook_weight`: expected a key of lpips_with_discriminator, got one of vq_",
    );
    check(
        &vq("kl_weight: 1.0"),
        "`kl_weight`: expected a key of vq_lpips_with_discriminator, got one of lpips_",
    );
    check(&vq("n_classes: 7"), "`n_classes`: expected the codebook's 32 entries, got 7");
    check(&vq("perceptual_loss: dists"), "unknown variant `dists`");
    check(&kl("disc_in_channels: 4"), "`disc_in_channels`: expected the images' 3 channels, got 4");
    check(&kl("disc_wait: 1"), "unknown field `disc_wait`");
    check(&kl("").replace("disc_start: 4, ", ""), "missing field `disc_start`");
    check(&kl("").replace("disc_num_layers: 1", "disc_num_layers: 0"), "`disc_num_layers`: expected 1 to 10");
    check(
        &kl("").replace("disc_num_layers: 1", "disc_num_layers: 3"),
        "at least 24x24 for `disc_num_layers` 3, got 16x16",
    );
    check(&kl("disc_factor: -1.0"), "`disc_factor`: expected at least 0");
    check(&kl("lecam_decay: 1.0"), "`lecam_decay`");
    check(&kl("").replace(KL, VQ), "expected the loss of a kl first stage, got vq_lpips_with_discriminator");
    check(&kl("").replace("dropout: 0.1", "give_pre_end: true"), "`give_pre_end`");
    check(&kl("").replace("out_ch: 3", "out_ch: 1"), "`disc_in_channels`");
    check(&kl("").replace(KL, "taming.modules.losses.segmentation.BCELossWithQuant"), "unknown variant");
}
