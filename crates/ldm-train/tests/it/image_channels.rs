//! First stages and diffusion models of other images than RGB: gray, alpha, label maps; CompVis' `DDPM` of pixels.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use ldm_core::device::test_device;
use ldm_core::noise::Replay;
use ldm_core::{Prompt, image};
use ldm_pipelines::{LoadOptions, Model, ModelConfig, ModelFile};
use ldm_testing::{Golden, assert_close, fill_weights};
use ldm_train::{
    AutoencoderObjective, DiffusionObjective, DiffusionTraining, Event, Finished, Objective, StepInfo,
    Trainer,
};
use tch::{Kind, Tensor};

use crate::{batch_of, check_refused, config, configs, lock_generator};

/// Labels of the first stages; the scenes have 11.
const LABELS: i64 = 21;
const TRAIN: &str = "train: {steps: 2, learning_rate: 1.0e-3, log_every: 1, samples: {count: 3, steps: 2}}\n";

fn first_stage(kind: &str, channels: i64, params: &[&str], data: &str) -> String {
    let net = [format!("in_channels: {channels}"), format!("out_ch: {channels}")];
    let model = configs::first_stage(kind, params, &[]).replace("in_channels: 3, out_ch: 3", &net.join(", "));
    format!("model: {model}\n{data}{TRAIN}")
}

fn scenes() -> String {
    configs::data(&configs::scenes(8), Some(configs::VALIDATION))
}

/// A folder of four images of `channels`.
fn folder_of(channels: i64) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for index in 0..4 {
        let values = Tensor::arange(channels * 256, (Kind::Float, tch::Device::Cpu)) * (index + 1);
        let pixels = (values * 0.37).sin().view([channels, 16, 16]);
        image::write_png(folder.path().join(format!("{index}.png")), &pixels, &[]).unwrap();
    }
    folder
}

fn images(folder: &Path, more: &str) -> String {
    let set =
        format!("{{target: images, params: {{path: {}, transform: {{size: 16}}{more}}}}}", folder.display());
    configs::data(&set, Some(&set))
}

/// Trains for two steps; returns the last value of each metric.
fn train(text: &str, root: &Path) -> BTreeMap<String, f64> {
    let _lock = lock_generator();
    let mut trainer = Trainer::create(config(text, &[]), root, test_device()).unwrap();
    let mut metrics = BTreeMap::new();
    let mut observe = |event: Event| {
        if let Event::Logged(line) | Event::Validated(line) = event {
            metrics.extend(line.clone());
        }
    };
    assert_eq!(trainer.run(&AtomicBool::new(false), &mut observe).unwrap(), Finished::Done);
    metrics
}

#[test]
fn gray_images_are_trained_shown_and_sampled() {
    let folder = tempfile::tempdir().unwrap();
    let first = folder.path().join("first");
    let line = train(&first_stage("kl", 1, &[], &scenes()), &first);
    assert!(line["rec_loss"].is_finite() && line["val/psnr"].is_finite(), "{line:?}");
    // Images, reconstructions and samples of the prior, three columns.
    let sheet = image::read(first.join("samples/step-0000002.png")).unwrap();
    assert_eq!(sheet.dimensions(), (3 * 18 + 2, 3 * 18 + 2));
    assert!(sheet.pixels().all(|pixel| pixel.0[0] == pixel.0[1] && pixel.0[1] == pixel.0[2]), "gray");

    let params = [
        format!(
            "unet_config: {}",
            configs::unet(4, &["num_heads: 2, attention_resolutions: [], channel_mult: [1]"])
        ),
        format!("first_stage_config: {{target: run, params: {{path: {}}}}}", first.display()),
        "cond_stage_config: __is_unconditional__, scale_by_std: true".into(),
    ];
    let params: Vec<&str> = params.iter().map(String::as_str).collect();
    let text = format!("{}{}{TRAIN}", configs::diffusion(8, 4, &params), scenes());
    let second = folder.path().join("second");
    train(&text, &second);
    let Model::Diffusion(model) =
        Model::open(&second, &LoadOptions::new(test_device()), &mut |_| {}).unwrap()
    else {
        panic!("a diffusion model")
    };
    let request = ldm_pipelines::Sampling { steps: 2, ..model.default_sampling() };
    let prompt = Prompt::default();
    let made = ldm_pipelines::GenerateRequest::new(&prompt, &[1], &request);
    let images = ldm_pipelines::generate(&model, &made, &mut |_| {}).unwrap().images;
    assert_eq!(images.size(), [1, 1, 16, 16]);
    assert_eq!(image::to_8bit(&images.get(0)).color().channel_count(), 1);
}

#[test]
fn alpha_is_trained_on_where_the_data_have_it() {
    for channels in [2, 4] {
        let files = folder_of(channels);
        let folder = tempfile::tempdir().unwrap();
        let with = images(files.path(), ", alpha: true");
        let line = train(&first_stage("vq", channels, &[], &with), &folder.path().join("run"));
        assert!(line["val/psnr"].is_finite(), "{line:?}");
        let without = images(files.path(), "");
        check(&first_stage("vq", channels, &[], &without), "expected an alpha channel for the first stage's");
    }
}

#[test]
fn label_maps_are_trained_and_shown_in_colors() {
    for (kind, rows) in [("kl", 3), ("vq", 2)] {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("run");
        let params = ["image_key: segmentation", &format!("colorize_nlabels: {LABELS}")];
        let line = train(&first_stage(kind, LABELS, &params, &scenes()), &root);
        assert!((0. ..=100.).contains(&line["val/accuracy"]), "{line:?}");
        assert!(!line.contains_key("val/psnr"));
        let sheet = image::read(root.join("samples/step-0000002.png")).unwrap();
        assert_eq!(sheet.dimensions(), (3 * 18 + 2, rows * 18 + 2));
        assert!(sheet.pixels().any(|pixel| pixel.0[0] != pixel.0[1]), "in colors");
    }
}

/// [`check_refused`] alone with the generator, without overrides.
#[track_caller]
fn check(text: &str, expected: &str) {
    let _lock = lock_generator();
    check_refused(text, &[], expected);
}

#[test]
fn images_that_do_not_fit_are_refused_before_a_run_exists() {
    let one_sided = first_stage("kl", 3, &[], &scenes()).replace("out_ch: 3", "out_ch: 1");
    check(&one_sided, "model.params.ddconfig.out_ch: expected in_channels, 3, got 1");
    check(
        &first_stage("kl", 7, &[], &scenes()),
        "ddconfig.in_channels: expected 1 (gray), 2 (gray and alpha), 3",
    );
    let key = |key: &str| first_stage("kl", 3, &[&format!("image_key: {key}")], &scenes());
    check(&key("depth"), "model.params.image_key: expected image or segmentation, got depth");
    let labels = "model.params.ddconfig.in_channels: expected at least 11 for the data's 11 labels, got 3";
    check(&key("segmentation"), labels);
    let params = ["image_key: segmentation", "colorize_nlabels: 4"];
    check(
        &first_stage("kl", LABELS, &params, &scenes()),
        "`colorize_nlabels`: expected the 21 decoded channels, got 4",
    );
    let files = folder_of(3);
    let params = ["image_key: segmentation"];
    check(
        &first_stage("kl", LABELS, &params, &images(files.path(), "")),
        "expected a map of the first stage's 21 labels",
    );
}

#[test]
fn pixels_of_other_channels_are_refused_by_a_diffusion_model() {
    let model = |channels: i64| {
        let params = [
            format!(
                "unet_config: {}",
                configs::unet(channels, &["num_heads: 2, attention_resolutions: [], channel_mult: [1]"])
            ),
            format!("first_stage_config: {{target: identity, params: {{channels: {channels}}}}}"),
            "cond_stage_config: __is_unconditional__".into(),
        ];
        let params: Vec<&str> = params.iter().map(String::as_str).collect();
        format!("{}{}{TRAIN}", configs::diffusion(16, channels, &params), scenes())
    };
    check(&model(4), "expected an alpha channel for the first stage's 4 channels, got RGB");
    check(
        &model(6),
        "first stage: expected 1 (gray), 2 (gray and alpha), 3 (RGB) or 4 (RGBA) channels, got 6",
    );
}

/// A `DDPM` config of gray scenes.
fn ddpm() -> String {
    let unet = configs::unet(1, &["num_heads: 2, attention_resolutions: [], channel_mult: [1, 2]"]);
    format!(
        "model: {{target: ldm.models.diffusion.ddpm.DDPM, params: {{image_size: 16, channels: 1, timesteps: 20, \
         unet_config: {unet}}}}}\n{}{TRAIN}",
        scenes()
    )
}

#[test]
fn pixel_diffusion_is_trained_and_its_run_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("run");
    let line = train(&ddpm(), &root);
    assert!(line["loss_simple"].is_finite() && line["val/loss"].is_finite(), "{line:?}");
    let Model::Diffusion(model) = Model::open(&root, &LoadOptions::new(test_device()), &mut |_| {}).unwrap()
    else {
        panic!("a diffusion model")
    };
    assert_eq!(model.config.clip_denoised, Some(true));
    assert!(model.default_sampling().thresholding.is_some());
}

/// CompVis' `DDPM.p_losses`; `ldm-pipelines/tests/golden/generate_ddpm.py` makes the file.
#[test]
fn the_loss_of_pixel_diffusion_equals_compvis() {
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../ldm-pipelines/tests/golden");
    let overrides = ["model.params.original_elbo_weight=0.1", "model.params.l_simple_weight=0.7"];
    let file = ModelFile::read(format!("{golden}/ddpm.yaml"), &overrides.map(str::to_owned)).unwrap();
    let ModelConfig::LatentDiffusion(config) = file.model else { panic!("a diffusion model") };
    let golden = Golden::open(format!("{golden}/ddpm_pixels.safetensors"), test_device());
    let objective =
        DiffusionObjective::new(&config, None, DiffusionTraining::default(), test_device()).unwrap();
    fill_weights(objective.model().vs(), 5);
    let draws = ["t", "eps"].map(|name| golden.get(&format!("loss.{name}")).shallow_clone());
    let batch = batch_of(golden.get("loss.x").shallow_clone(), Prompt::default());
    let info = StepInfo { phase: 0, global_step: 0 };
    let loss = objective.loss(info, &batch, &mut Replay::new(draws)).unwrap();
    let parts = ["loss_simple", "loss_vlb", "loss"]
        .map(|name| loss.parts.iter().find(|(part, _)| *part == name).unwrap().1.to_kind(Kind::Float));
    assert_close("parts", &Tensor::stack(&parts, 0), golden.get("loss.parts"), 1e-5);
}

#[test]
fn a_conditional_discriminator_sees_label_maps_or_classes() {
    let loss = |channels: i64| {
        format!(
            "lossconfig: {{target: lpips_with_discriminator, params: {{disc_start: 0, perceptual_weight: 0, \
             disc_num_layers: 1, disc_ndf: 8, disc_conditional: true, disc_in_channels: {channels}}}}}"
        )
    };
    let folder = tempfile::tempdir().unwrap();
    let text = first_stage("kl", 3, &[&loss(3 + LABELS)], &scenes());
    let line = train(&text, &folder.path().join("run"));
    assert!(line["disc_loss"].is_finite() && line["g_loss"].is_finite(), "{line:?}");
    check(
        &first_stage("kl", 3, &[&loss(3)], &scenes()),
        "`disc_in_channels`: expected the images' 3 channels and those of",
    );
    check(
        &first_stage("kl", 3, &[&loss(5)], &scenes()),
        "disc_in_channels: expected at least 14 for the data's 11 labels, got 5",
    );

    // Without label maps, planes of the class.
    let ModelConfig::Kl(config) =
        ModelFile::parse(&format!("model: {}", configs::first_stage("kl", &[&loss(5)], &[])), "kl.yaml", &[])
            .unwrap()
            .model
    else {
        panic!("a first stage")
    };
    let objective =
        AutoencoderObjective::new(&ldm_autoencoder::FirstStageConfig::Kl(config), test_device()).unwrap();
    let images = Tensor::zeros([2, 3, 16, 16], (Kind::Float, tch::Device::Cpu));
    objective.check_batch(&batch_of(images.shallow_clone(), Prompt::class(&[0, 1]))).unwrap();
    for (prompt, expected) in [
        (Prompt::class(&[0, 2]), "disc_conditional: class: expected classes 0 to 1, got 2"),
        (Prompt::default(), "disc_conditional: expected label maps or classes in the data, got none"),
    ] {
        let error = objective.check_batch(&batch_of(images.shallow_clone(), prompt)).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn labels_of_maps_beyond_the_models_are_refused_with_their_file() {
    let (files, maps) = (folder_of(3), tempfile::tempdir().unwrap());
    let write = |index: i64, label: i64| {
        let map = Tensor::zeros([1, 16, 16], (Kind::Float, tch::Device::Cpu));
        let _ = map.narrow(1, 2, 1).narrow(2, 5, 1).fill_(label);
        image::write_png(maps.path().join(format!("{index}.png")), &(map * 2. / 255. - 1.), &[]).unwrap();
    };
    (0..4).for_each(|index| write(index, index));
    let data = |n_labels: i64| {
        let set =
            format!(", label_maps: {{files: {{path: {}}}, n_labels: {n_labels}}}", maps.path().display());
        images(files.path(), &set)
    };
    let encoder = |data: &str| first_stage("kl", LABELS, &["image_key: segmentation"], data);
    let discriminator = |channels: i64, data: &str| {
        let loss = format!(
            "lossconfig: {{target: lpips_with_discriminator, params: {{disc_start: 0, perceptual_weight: 0, \
             disc_num_layers: 1, disc_ndf: 8, disc_conditional: true, disc_in_channels: {channels}}}}}"
        );
        first_stage("kl", 3, &[&loss], data)
    };
    let diffusion = |data: &str| {
        let unet = configs::unet(3, &["num_heads: 2, attention_resolutions: [], channel_mult: [1]"]);
        let map = "{target: spatial, params: {n_stages: 0, in_channels: 21, out_channels: 2}}";
        let params = [
            &format!("unet_config: {}", unet.replace("in_channels: 3", "in_channels: 5")),
            "first_stage_config: {target: identity, params: {channels: 3}}",
            &format!("cond_stage_config: {map}, conditioning_key: concat"),
        ];
        format!("{}{data}{TRAIN}", configs::diffusion(16, 3, &params))
    };
    let folder = tempfile::tempdir().unwrap();
    train(&encoder(&data(256)), &folder.path().join("first"));
    train(&diffusion(&data(256)), &folder.path().join("second"));
    // A label that the data have and the model has not, and one that neither has.
    write(2, LABELS);
    for text in [encoder(&data(256)), discriminator(3 + LABELS, &data(256)), diffusion(&data(256))] {
        check(&text, "/2.png: expected the model's labels 0 to 20, got 21 at column 5, row 2");
    }
    check(&diffusion(&data(21)), "/2.png: expected values of 21 labels, got 21 at column 5, row 2");
    // Classes in place of maps.
    for index in 0..4 {
        std::fs::write(files.path().join(format!("{index}.cls")), index.to_string()).unwrap();
    }
    let few = "disc_in_channels: expected at least 7 for the data's 4 classes, got 5";
    check(&discriminator(5, &images(files.path(), "")), few);
}
