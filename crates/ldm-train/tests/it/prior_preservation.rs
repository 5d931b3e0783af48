//! Prior preservation: the loss, batches of instance and class images, resume bit for bit, and refusals.

use std::path::Path;

use ldm_core::Prompt;
use ldm_core::device::test_device;
use ldm_core::noise::PerStep;
use ldm_data::{Loader, LoaderConfig};
use ldm_testing::fill_weights;
use ldm_train::{Objective, StepInfo, Trainer};
use tch::{IndexOp, Kind, Tensor};

use crate::conditioners::{images, objective, objective_with};
use crate::tiny::{self, check_resume};
use crate::{batch_of, check_refused, config, configs, lock_generator, run_to_end};

const STEP: StepInfo = StepInfo { phase: 0, global_step: 0 };

/// [`tiny::diffusion`] with class images in the batches.
fn dreambooth(first_stage: &Path) -> String {
    let class_images = "{target: scenes, params: {size: 16, objects: [1, 1], count: 8, split: validation}}";
    tiny::diffusion(first_stage)
        .replace("num_workers: 0,", &format!("num_workers: 0, class_images: {class_images},"))
        .replace("batch_size: 4", "batch_size: 2")
        .replace(
            "  conditioning_dropout: 0.3\n",
            "  with_prior_preservation: true\n  prior_loss_weight: 0.5\n",
        )
}

#[test]
fn the_loss_of_class_images_is_added_with_its_weight() {
    let _lock = lock_generator();
    let images = images(); // instance, class, instance, class
    let batch = || batch_of(images.shallow_clone(), Prompt::default());
    let noise = || PerStep::new(7, 0, 3);
    // The last layers of an untrained model are zero.
    let plain = objective(&[], 0.).unwrap();
    fill_weights(plain.model().vs(), 3);
    // With a weight of 1 both halves count as in a batch of twice the images, whose loss is a mean.
    let mean = plain.loss(STEP, &batch(), &mut noise()).unwrap().total.double_value(&[]);
    let with = |weight: f64| {
        let objective = objective_with(&[], Some(weight)).unwrap();
        fill_weights(objective.model().vs(), 3);
        let loss = objective.loss(STEP, &batch(), &mut noise()).unwrap();
        let part = |wanted: &str| {
            let found = loss.parts.iter().find(|(name, _)| *name == wanted);
            found.unwrap_or_else(|| panic!("{wanted}")).1.double_value(&[])
        };
        (loss.total.double_value(&[]), part("loss_simple"), part("loss_prior"), part("loss"))
    };
    let near = |a: f64, b: f64| assert!((a / b - 1.).abs() < 1e-5, "{a} {b}");
    let (total, instance, prior, logged) = with(1.);
    near(total, 2. * mean);
    near(total, instance + prior);
    near(logged, total);
    assert!((instance / prior - 1.).abs() > 1e-4, "the halves differ: {instance} {prior}");
    for weight in [0., 0.3, 2.] {
        let (total, ..) = with(weight);
        near(total, instance + weight * prior);
    }
    // The instance images are the even ones: another class image changes the loss of class images alone.
    let _ = images.i(1).fill_(0.);
    let (_, same, other, _) = with(1.);
    near(same, instance);
    assert!((other / prior - 1.).abs() > 1e-4, "{other} {prior}");
}

#[test]
fn batches_are_half_instance_half_class_images() {
    let folder = tempfile::tempdir().unwrap();
    for (set, count, red) in [("instance", 3_i64, -0.9), ("class", 40, 0.5)] {
        std::fs::create_dir(folder.path().join(set)).unwrap();
        for index in 0..count {
            let color = Tensor::from_slice(&[red, index as f64 / 50., 0.]).view([3, 1, 1]);
            let image = color.expand([3, 16, 16], false).to_kind(Kind::Float);
            let path = folder.path().join(format!("{set}/{index}.png"));
            ldm_core::image::write_png(path, &image, &[]).unwrap();
        }
    }
    let text = format!(
        "data: {{target: data_module, params: {{batch_size: 2, num_workers: 0, {}, class_images: {}}}}}",
        "train: {target: images, params: {path: instance, captions: {text: a photo of sks dog}}}",
        "{target: images, params: {path: class, captions: {text: a photo of a dog}}}",
    );
    let path = folder.path().join("data.yaml");
    std::fs::write(&path, text).unwrap();
    let data = ldm_train::DataModule::read(&path).unwrap();
    let open = |set: &ldm_data::DatasetConfig| set.open(folder.path()).unwrap();
    let [instances, class_images] = [open(&data.train), open(&data.class_images.unwrap())];
    let joined = std::sync::Arc::new(
        ldm_data::PriorPreservation::new(std::sync::Arc::clone(&instances), class_images).unwrap(),
    );
    let loader = |workers| {
        let config = LoaderConfig { workers, ..LoaderConfig::new(2, 5) };
        Loader::new(joined.clone(), config, ldm_data::Position::default()).unwrap()
    };
    let mut seen = std::collections::BTreeSet::new();
    let prompts = ["a photo of sks dog", "a photo of a dog"].repeat(2);
    for (batch, other) in loader(0).zip(loader(2)).take(40) {
        let (batch, other) = (batch.unwrap(), other.unwrap());
        assert_eq!(batch.images.size(), [4, 3, 16, 16]);
        assert_eq!((&batch.images, &batch.names), (&other.images, &other.names));
        let reds: Vec<f32> = Vec::try_from(batch.images.i((.., 0, 0, 0))).unwrap();
        assert!(reds[0] < 0. && reds[1] > 0. && reds[2] < 0. && reds[3] > 0., "{reds:?}");
        assert_eq!(batch.prompt.text.unwrap(), prompts);
        seen.extend([batch.names[1].clone(), batch.names[3].clone()]);
    }
    assert!(seen.len() > 25, "more class images than instances are drawn: {}", seen.len());
    let alone = ldm_data::Dataset::fingerprint(&*instances);
    assert_ne!(ldm_data::Dataset::fingerprint(&*joined), alone);
}

#[test]
fn a_run_with_class_images_resumes_bit_exactly() {
    let _lock = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    check_resume(&dreambooth(&tiny::first_stage(folder.path())), 2);
}

#[test]
fn instance_and_class_images_are_overfit_and_adapters_take_them_too() {
    let _lock = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    let first = tiny::first_stage(folder.path());
    let text = dreambooth(&first);
    let overrides = [
        "data.params.train.params.count=2",
        "data.params.class_images.params.count=2",
        "train.accumulate=4",
        "train.steps=150",
        "train.learning_rate=0.002",
        "train.prior_loss_weight=1.0",
        "train.checkpoint_every=1000",
        "model.params.unet_config.params.dropout=0.0",
    ];
    let root = folder.path().join("run");
    let lines = run_to_end(&mut Trainer::create(config(&text, &overrides), &root, test_device()).unwrap());
    let last = lines.last().unwrap();
    // The losses of an untrained model are 1.
    assert!(last["loss_simple"] < 0.4 && last["loss_prior"] < 0.4, "{last:?}");

    let base = format!("train.init_from={{path: {}}}", root.display());
    let overrides = [base.as_str(), "train.lora={rank: 2}", "train.steps=5"];
    let lora = folder.path().join("lora");
    let lines = run_to_end(&mut Trainer::create(config(&text, &overrides), &lora, test_device()).unwrap());
    let last = lines.last().unwrap();
    let sum = last["loss_simple"] + 0.5 * last["loss_prior"];
    assert!((last["loss"] / sum - 1.).abs() < 1e-4, "{last:?}");
}

#[test]
fn settings_that_do_not_fit_are_refused() {
    let _lock = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    let text = dreambooth(&tiny::first_stage(folder.path()));
    check_refused(
        &text,
        &["data.params.class_images=null"],
        "data.params.class_images: expected class images for train.with_prior_preservation, got none",
    );
    check_refused(
        &text,
        &["train.with_prior_preservation=false", "train.prior_loss_weight=1.0"],
        "data.params.class_images: expected train.with_prior_preservation: true with it, got false",
    );
    check_refused(
        &text,
        &["train.prior_loss_weight=-1"],
        "train.prior_loss_weight: expected at least 0, got -1",
    );
    check_refused(
        &tiny::kl(),
        &["train.prior_loss_weight=0.5"],
        "train.prior_loss_weight: expected with_prior_preservation: true with it, got false",
    );
    check_refused(&text, &["train.cache_latents=true"], "train.cache_latents: expected false");
    let scenes = configs::scenes(4);
    check_refused(
        &tiny::kl(),
        &["train.with_prior_preservation=true", &format!("data.params.class_images={scenes}")],
        "train.with_prior_preservation: expected a diffusion model, got another one",
    );
    let other = "data.params.class_images={target: scenes, params: {size: 32, count: 4}}";
    check_refused(&text, &[other], "expected 16x16");
}
