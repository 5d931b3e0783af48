//! A classifier of noisy latents: overfitting, bit-exact resume, refusals.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use ldm_checkpoint::Checkpoint;
use ldm_core::device::test_device;
use ldm_pipelines::{Classifier, GuidingClassifier, LoadOptions, Model};
use ldm_train::{Event, Finished, RunConfig, Trainer};
use tch::{Kind, Tensor};

use crate::{configs, lock_generator, run_to_end};

const CLASSIFIER_TRAIN: &str = "
train:
  steps: 20
  learning_rate: 1.0e-3
  accumulate: 2
  ema: {decay: 0.99}
  log_every: 5
  checkpoint_every: 10
  samples: {count: 2}
";

fn first_stage_run() -> String {
    let model = configs::first_stage("vq", &[], &[]);
    let data = configs::data(&configs::scenes(64), None);
    format!(
        "model: {model}\n{data}train: {{steps: 3, learning_rate: 1.0e-3, ema: null, samples: {{count: 0}}}}\n"
    )
}

/// Unconditional, with deterministic latents, and noise levels at which the class is visible.
fn diffusion_run(first_stage: &Path) -> String {
    let path = format!("ckpt_path: {}", first_stage.display());
    let first_stage = configs::first_stage("vq", &[&path], &[]);
    let attention = "attention_resolutions: [2], num_head_channels: 16";
    let unet = configs::unet(4, &[attention, "channel_mult: [1, 2], dropout: 0.1, use_checkpoint: true"]);
    let params = [
        "timesteps: 100, linear_start: 0.0015, linear_end: 0.0195, scale_by_std: true",
        &format!("unet_config: {unet}"),
        &format!("first_stage_config: {first_stage}"),
        "cond_stage_config: __is_unconditional__",
    ];
    let (model, data) = (configs::diffusion(8, 4, &params), configs::data(&configs::scenes(64), None));
    format!("{model}{data}train: {{steps: 1, learning_rate: 1.0e-3, ema: null, samples: {{count: 0}}}}\n")
}

fn classifier_run(diffusion: &Path) -> String {
    let diffusion = diffusion.display();
    let data = configs::data(&configs::scenes(64), Some(configs::VALIDATION));
    format!(
        "model:
  target: ldm.models.diffusion.classifier.NoisyLatentImageClassifier
  params: {{diffusion_path: {diffusion}, num_classes: 10, label_key: class_label, log_steps: 4, monitor: val/acc@1}}
{data}{CLASSIFIER_TRAIN}"
    )
}

fn create(text: &str, overrides: &[&str], root: &Path) -> ldm_core::Result<Trainer> {
    let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
    Trainer::create(RunConfig::parse(text, "tiny.yaml", &overrides)?, root, test_device())
}

/// The last line of the log.
fn run(trainer: &mut Trainer) -> BTreeMap<String, f64> {
    run_to_end(trainer).pop().unwrap()
}

/// A diffusion model in `folder`, and the config of a classifier of its latents.
fn diffusion(folder: &Path) -> (PathBuf, String) {
    let [first, second] = ["first-stage", "diffusion"].map(|name| folder.join(name));
    run(&mut create(&first_stage_run(), &[], &first).unwrap());
    run(&mut create(&diffusion_run(&first), &[&cache(folder)], &second).unwrap());
    let text = classifier_run(&second);
    (second, text)
}

/// The latent cache of the diffusion model.
fn cache(folder: &Path) -> String {
    format!("train.cache_latents={}", folder.join("latents.safetensors").display())
}

fn files(run: &Path) -> Vec<(String, Vec<u8>)> {
    let checkpoint = "checkpoints/step-0000020";
    let names = ["model", "ema", "optimizer"].map(|name| format!("{checkpoint}/{name}.safetensors"));
    let others = ["model/config.yaml", "model/model.safetensors", "samples/step-0000020.png"];
    let names = names.into_iter().chain(others.map(String::from));
    names.map(|name| (name.clone(), std::fs::read(run.join(name)).unwrap())).collect()
}

#[test]
fn a_classifier_resumes_bit_exactly() {
    let _lock = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    let (_, text) = diffusion(folder.path());
    let (whole, broken) = (folder.path().join("whole"), folder.path().join("broken"));
    let last = run(&mut create(&text, &[], &whole).unwrap());
    assert!(last["acc@5"] >= last["acc@1"] && last["loss"].is_finite(), "{last:?}");

    let stop = AtomicBool::new(false);
    let mut first = create(&text, &["data.params.num_workers=2"], &broken).unwrap();
    let finished = first
        .run(&stop, &mut |event| {
            if let Event::Step { step: 9, .. } = event {
                stop.store(true, Ordering::Relaxed);
            }
        })
        .unwrap();
    assert_eq!(finished, Finished::Stopped);
    drop(first);
    run(&mut Trainer::resume(&broken, &[], test_device()).unwrap());
    for ((name, whole), (_, broken)) in files(&whole).into_iter().zip(files(&broken)) {
        assert!(whole == broken, "{name} differs after a resume");
    }
}

#[test]
fn a_classifier_overfits_a_few_images_and_is_exported() {
    let _lock = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    let (diffusion, text) = diffusion(folder.path());
    let root = folder.path().join("classifier");
    let overrides = [
        "data.params.train.params.count=4",
        "data.params.validation=null",
        "train.accumulate=4",
        "train.steps=80",
        "train.learning_rate=0.002",
        "train.ema=null",
        "train.log_every=20",
        "train.checkpoint_every=1000",
        "train.cache_latents=true",
    ];
    let last = run(&mut create(&text, &overrides, &root).unwrap());
    assert!(last["loss"] < 0.3 && last["acc@1"] > 0.9, "{last:?}");

    // It does not need the files of the diffusion model, and refuses another latent space.
    let Model::Diffusion(mut model) =
        Model::open(&diffusion, &LoadOptions::new(test_device()), &mut |_| {}).unwrap()
    else {
        panic!("a diffusion model")
    };
    let moved = folder.path().join("moved");
    std::fs::rename(&diffusion, &moved).unwrap();
    let text = std::fs::read_to_string(root.join("model/config.yaml")).unwrap();
    assert!(!text.contains("diffusion_path") && text.contains("classifier_config"), "{text}");
    let open = || Classifier::open(&root, &LoadOptions::new(test_device()), &mut |_| {}).unwrap();
    let classifier = open();
    assert_eq!((classifier.num_classes(), classifier.classes.len()), (10, 10));
    let x = Tensor::zeros([2, 4, 8, 8], (Kind::Float, test_device()));
    let all: Vec<Tensor> = (0..10_i64)
        .map(|class| {
            classifier.log_probability(&x, 3.5, &Tensor::from_slice(&[class; 2]).to_device(test_device()))
        })
        .collect();
    let sum = Tensor::stack(&all, 0).exp().sum_dim_intlist([0_i64].as_slice(), false, Kind::Float);
    assert!((sum - 1.).abs().max().double_value(&[]) < 1e-5);
    GuidingClassifier::new(classifier, 1., &model).unwrap();
    model.scale_factor *= 1.01;
    let error = GuidingClassifier::new(open(), 1., &model).unwrap_err().to_string();
    assert!(error.contains("expected a classifier for the model's scale_factor"), "{error}");

    // A run from its weights starts at its loss.
    let overrides =
        [&overrides[..3], &["train.steps=1", "train.learning_rate=1e-9", "train.ema=null"]].concat();
    let text = classifier_run(&moved);
    let path = format!("model.params.ckpt_path={}", root.display());
    let again = folder.path().join("again");
    let last = run(&mut create(&text, &[&overrides[..], &[&path]].concat(), &again).unwrap());
    assert!(last["loss"] < 0.5, "{last:?}");
    let error = create(
        &text,
        &[&overrides[..], &[&format!("train.init_from={{path: {}}}", moved.display())]].concat(),
        &folder.path().join("not"),
    );
    assert!(error.unwrap_err().to_string().contains("expected a classifier of noisy latents"));
}

#[test]
fn validation_has_the_names_of_compvis() {
    let _lock = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    let (_, text) = diffusion(folder.path());
    let root = folder.path().join("run");
    let cache = cache(folder.path());
    let overrides = ["train.steps=2", "model.params.weight_decay=0.3", &cache];
    let mut trainer = create(&text, &overrides, &root).unwrap();
    let mut found = BTreeMap::new();
    let observe = &mut |event: Event| {
        assert!(!matches!(event, Event::Caching { .. }), "the cache of the diffusion model is reused");
        if let Event::Validated(metrics) = event {
            found.clone_from(metrics);
        }
    };
    trainer.run(&AtomicBool::new(false), observe).unwrap();
    assert_eq!(found.keys().collect::<Vec<_>>(), ["step", "val/acc@1", "val/acc@5", "val/loss"]);
    // After two steps, all ten classes are about equally likely.
    assert!((found["val/loss"] - 10_f64.ln()).abs() < 0.7, "{found:?}");
    assert!(found["val/acc@5"] >= found["val/acc@1"] && found["val/acc@1"] >= 0.);
    let config = std::fs::read_to_string(root.join("config.yaml")).unwrap();
    assert!(config.contains("weight_decay: 0.3"), "{config}");
    assert_eq!(RunConfig::read(root.join("config.yaml"), &[]).unwrap().train.optimizer.weight_decay, 0.3);
    let weights = Checkpoint::open(root.join("model/model.safetensors")).unwrap();
    assert!(weights.names().all(|name| name.starts_with("model.") || name.starts_with("diffusion_model.")));
    let grid = ldm_core::image::read(root.join("samples/step-0000002.png")).unwrap();
    assert!(grid.width() > 4 * 16 && grid.height() > 2 * 16, "a row per image, a column per noise level");
    let framed = grid.pixels().filter(|pixel| [[255, 0, 0], [0, 255, 0]].contains(&pixel.0)).count();
    assert!(framed >= 8 * 60, "eight frames of one pixel, found {framed}");
}

#[test]
fn invalid_configs_are_refused_before_anything_is_written() {
    let _lock = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    let (diffusion, text) = diffusion(folder.path());
    let root = folder.path().join("run");
    let check = |text: &str, overrides: &[&str], expected: &str| {
        let error = create(text, overrides, &root).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains('\n'), "{error}");
        assert!(!root.exists(), "something was written");
    };
    check(
        &text,
        &["model.params.num_classes=3"],
        "model.params.num_classes: expected at least the data's 10 classes, got 3",
    );
    check(
        &text,
        &["model.params.diffusion_path=null"],
        "tiny.yaml: model.params.diffusion_path: expected the diffusion model whose noisy latents",
    );
    check(&text, &["model.params.diffusion_path=nowhere"], "nowhere: ");
    let first = format!("model.params.diffusion_path={}", folder.path().join("first-stage").display());
    check(&text, &[&first], "first-stage: expected a diffusion model, got another model");
    check(
        &text,
        &["model.params.label_key=segmentation"],
        "label_key: expected class_label, got segmentation",
    );
    let unknown = "model.params.scheduler_config: unknown variant `x`";
    check(&text, &["model.params.scheduler_config={target: x}"], unknown);
    check(&text, &["model.params.log_steps=101"], "log_steps: expected at most 100, got 101");
    check(
        &text,
        &["model.params.weight_decay=0.3", "train.optimizer.weight_decay=0.2"],
        "model.params.weight_decay: expected train.optimizer.weight_decay, 0.2, got 0.3",
    );
    check(
        &text,
        &["train.conditioning_dropout=0.1"],
        "train.conditioning_dropout: expected a diffusion model, got a classifier",
    );
    check(&text, &["train.lora={rank: 2}"], "train.lora: expected a diffusion model, got a classifier");
    check(
        &text,
        &["data.params.train.params.size=32"],
        "latent: expected 8x8 (a classifier with pool attention), got 16x16",
    );
    let network = "model.params.classifier_config={in_channels: 3, out_channels: 10, model_channels: 32,
                   num_res_blocks: 1, attention_resolutions: [2]}";
    check(&text, &[network], "classifier_config.in_channels: expected the latent's 4 channels, got 3");
    assert!(diffusion.exists());
}
