//! Every key is obeyed or refused before the first step: CompVis' keys, values out of range, classes beyond the model's.

use std::path::Path;

use ldm_core::device::test_device;
use ldm_train::{LearningRate, RunConfig, Trainer};
use serde_json::Value;
use tch::Device;

use crate::tiny::{diffusion, first_stage, kl, vq};
use crate::{check_refused, config, lock_generator, run_to_end};

#[test]
fn multipliers_are_those_of_compvis() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/schedules.json");
    let found: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(found.len(), 5);
    for mut each in found {
        let multipliers = each.as_object_mut().unwrap().remove("multipliers").unwrap();
        let schedule: LearningRate = serde_json::from_value(each.clone()).unwrap();
        for (step, want) in multipliers.as_array().unwrap().iter().enumerate() {
            let (got, want) = (schedule.at(step as u64, 120), want.as_f64().unwrap());
            assert!((got - want).abs() < 1e-12, "{each} at {step}: got {got}, want {want}");
        }
    }
}

#[test]
fn scheduler_config_is_the_schedule_of_the_run() {
    let _lock = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    let text = vq().replace("  schedule: {target: cosine, params: {warm_up: 3}}\n", "");
    let scheduler = "model.params.scheduler_config={target: ldm.lr_scheduler.LambdaLinearScheduler, params: \
                     {warm_up_steps: [4], cycle_lengths: [100], f_start: [0.2], f_max: [1.0], f_min: [1.0]}}";
    let root = folder.path().join("run");
    let overrides = [scheduler, "train.steps=5", "train.log_every=1"];
    let lines = run_to_end(&mut Trainer::create(config(&text, &overrides), &root, test_device()).unwrap());
    let rates: Vec<f64> = lines.iter().map(|line| (line["lr"] * 1e6).round() / 1e3).collect();
    assert_eq!(rates, [0.2, 0.4, 0.6, 0.8, 1.]);
    drop(Trainer::resume(&root, &[], test_device()).unwrap());
    let read = RunConfig::read(root.join("config.yaml"), &[]).unwrap();
    assert!(matches!(read.train.schedule, LearningRate::LinearCycles(_)));

    let given = "train.schedule={target: constant, params: {}}";
    check_refused(
        &text,
        &[scheduler, given],
        "model.params.scheduler_config: expected none with train.schedule, got one",
    );
    let unknown = "model.params.scheduler_config={target: torch.optim.lr_scheduler.StepLR}";
    check_refused(
        &text,
        &[unknown],
        "model.params.scheduler_config: unknown variant `torch.optim.lr_scheduler.StepLR`",
    );
    let with = |change: (&str, &str), expected: &str| {
        check_refused(&text, &[&scheduler.replace(change.0, change.1)], expected);
    };
    with(
        ("[100]", "[10]"),
        "scheduler_config.params.cycle_lengths: expected cycles of 20 steps, train.steps, got 10",
    );
    with(("[100]", "[100, 5]"), "params.warm_up_steps: expected 2 values, as cycle_lengths has, got 1");
    with(("[0.2]", "[.nan]"), "params.f_start: expected a multiplier of at least 0, got NaN");
    with(("f_min: [1.0]", "f_min: [1.0], verbosity_interval: 5"), "params.verbosity_interval: expected 0");
    let cosine = "train.schedule={target: warm_up_cosine, params: {warm_up_steps: 9, lr_min: 0, lr_max: 1, \
                  lr_start: 0, max_decay_steps: 9}}";
    check_refused(
        &text,
        &[cosine],
        "train.schedule.params.max_decay_steps: expected more than warm_up_steps, 9, got 9",
    );
    check_refused(
        &text,
        &["train.schedule={target: linear, params: {minimum: -1}}"],
        "train.schedule.params.minimum",
    );
}

#[test]
fn use_ema_is_obeyed_or_contradicted_by_name() {
    let read =
        |text: &str, use_ema: &str| config(text, &[&format!("model.params.use_ema={use_ema}")]).train.ema;
    let without = vq().replace("  ema: {decay: 0.99}\n", "");
    assert!(read(&without, "false").is_none());
    assert_eq!(read(&without, "true").unwrap().decay, 0.9999, "CompVis' decay");
    assert_eq!(read(&vq(), "true").unwrap().decay, 0.99);
    let refused = "train.ema: expected none, as model.params.use_ema is false, got one";
    check_refused(&vq(), &["model.params.use_ema=false"], refused);
    let refused = "train.ema: expected an EMA, as model.params.use_ema is true, got none";
    check_refused(&vq(), &["model.params.use_ema=true", "train.ema=null"], refused);
}

#[test]
fn batch_resize_range_trains_and_bad_sizes_are_refused() {
    let _lock = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    let range = "model.params.batch_resize_range=[16, 32]";
    let losses = |name: &str, range: &str| -> Vec<f64> {
        let overrides = [range, "train.steps=8", "train.log_every=1"];
        let root = folder.path().join(name);
        let lines =
            run_to_end(&mut Trainer::create(config(&vq(), &overrides), &root, test_device()).unwrap());
        lines.iter().map(|line| line["rec_loss"]).collect()
    };
    let (plain, resized) = (losses("plain", "train.seed=23"), losses("resized", range));
    assert!(plain[0] != resized[0], "the first steps are of 32x32");
    assert_eq!(resized, losses("again", range), "reproducible");
    assert_eq!(plain, losses("same", "model.params.batch_resize_range=[16, 16]"), "the size of the images");
    check_refused(&vq(), &["model.params.batch_resize_range=[17, 33]"], "model.params.batch_resize_range: ");
    check_refused(
        &vq(),
        &["model.params.batch_resize_range=[32, 16]"],
        "`batch_resize_range`: expected [least, largest]",
    );
}

#[test]
fn load_only_unet_leaves_everything_else() {
    let _lock = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    let text = diffusion(&first_stage(folder.path()));
    let base = folder.path().join("base");
    run_to_end(&mut Trainer::create(config(&text, &["train.steps=2"]), &base, test_device()).unwrap());
    let from = format!("model.params.ckpt_path={}", base.join("model/model.safetensors").display());
    let weights = |name: &str, only: &str| {
        let only = format!("model.params.load_only_unet={only}");
        let root = folder.path().join(name);
        let trainer =
            Trainer::create(config(&text, &[&from, &only, "train.seed=5"]), &root, test_device()).unwrap();
        trainer.train_step().objective().weights()
    };
    let (all, unet) = (weights("all", "false"), weights("unet", "true"));
    for ((name, all), (_, unet)) in all.iter().zip(&unet) {
        let equal = all.equal(unet);
        if name.starts_with("model.diffusion_model.") || name.starts_with("first_stage_model.") {
            assert!(equal, "{name}");
        } else if name.starts_with("cond_stage_model.") {
            assert!(!equal, "{name} is random");
        }
    }
    let bare = text.replace(", ckpt_path: ", ", ignore_keys: [x], monitor: ");
    check_refused(
        &bare,
        &[&from, "model.params.load_only_unet=true"],
        "expected a trained first stage, got none",
    );
}

#[test]
fn every_value_is_checked_before_the_first_step() {
    let _lock = lock_generator();
    check_refused(
        &kl(),
        &["model.params.image_key=jpg"],
        "model.params.image_key: expected image or segmentation, got jpg",
    );
    for (key, value, expected) in [
        ("optimizer.betas", "[2, 2]", "betas: expected numbers of at least 0 and below 1, got 2"),
        ("optimizer.betas", "[0.9, 1.0]", "betas: expected"),
        ("optimizer.betas", "[.nan, 0.9]", "got NaN"),
        ("optimizer.eps", "-1", "eps: expected at least 0, got -1"),
        ("optimizer.eps", ".inf", "eps: expected at least 0, got inf"),
        ("optimizer.weight_decay", ".nan", "weight_decay: expected at least 0, got NaN"),
        ("clip_grad", ".nan", "clip_grad: expected a positive number, got NaN"),
        ("clip_grad", ".inf", "clip_grad: expected a positive number, got inf"),
        ("min_snr_gamma", ".nan", "min_snr_gamma: expected a positive number, got NaN"),
        ("learning_rate", ".nan", "learning_rate: expected a positive number, got NaN"),
        ("learning_rate", ".inf", "learning_rate: expected a positive number, got inf"),
        ("ema.decay", ".nan", "ema.decay: expected"),
        ("conditioning_dropout", ".nan", "conditioning_dropout: expected a probability, got NaN"),
        ("offset_noise", ".nan", "offset_noise: expected at least 0, got NaN"),
        ("samples.steps", "0", "samples.steps: expected at least 1, got 0"),
        ("samples.eta", "5", "samples.eta: expected a number in [0, 1], got 5"),
        ("samples.eta", ".nan", "samples.eta: expected a number in [0, 1], got NaN"),
        ("samples.guidance_scale", ".nan", "samples.guidance_scale: expected a finite number, got NaN"),
        ("samples.count", "100000000", "samples.count: expected at most 1024, got 100000000"),
    ] {
        check_refused(
            &kl(),
            &[&format!("train.{key}={value}")],
            &format!("train.{}", key.split('.').next().unwrap()),
        );
        check_refused(&kl(), &[&format!("train.{key}={value}")], expected);
    }
    for value in ["-1", ".nan", ".inf"] {
        for key in ["kl_weight", "codebook_weight"] {
            let loss =
                format!("model.params.lossconfig={{target: reconstruction, params: {{{key}: {value}}}}}");
            check_refused(&kl(), &[&loss], &format!("lossconfig: `{key}`: expected at least 0"));
        }
    }
    let best = "train.keep_best={metric: val/snr, mode: max}";
    check_refused(
        &kl(),
        &[best],
        "train.keep_best.metric: expected one of val/psnr, val/rec_loss, got val/snr",
    );
    let folder = tempfile::tempdir().unwrap();
    let text = diffusion(&first_stage(folder.path()));
    check_refused(&text, &["train.samples.steps=100000"], "train.samples.steps: expected 1 to 1000");
    check_refused(
        &text,
        &["data.params.num_workers=100000000"],
        "data.params.num_workers: expected at most 1024, got 100000000",
    );
    let timesteps = "timesteps: expected 2 to 1000000, got 1000000000";
    check_refused(&text, &["model.params.timesteps=1000000000"], timesteps);
    if test_device() == Device::Cpu {
        let large = "train.samples.images: expected at most the ";
        check_refused(&text, &["model.params.image_size=100000000", "train.samples.count=2"], large);
    }
    let no_null = ["model.params.cond_stage_config.params.null_class=null", "train.conditioning_dropout=0"];
    let guided = [no_null[0], no_null[1], "train.samples.guidance_scale=2"];
    check_refused(&text, &guided, "train.samples.guidance_scale: expected 1, as null_class");
    for key in ["original_elbo_weight", "l_simple_weight"] {
        check_refused(
            &text,
            &[&format!("model.params.{key}=.nan")],
            &format!("model.params.{key}: expected at least 0"),
        );
    }
}

#[test]
fn classes_of_the_data_beyond_the_models_or_its_null_class_are_refused() {
    let _lock = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    let text = diffusion(&first_stage(folder.path()));
    let with = |n_classes: i64, null: &str| {
        let params = format!("{{embed_dim: 16, n_classes: {n_classes}, null_class: {null}}}");
        format!("model.params.cond_stage_config.params={params}")
    };
    // Scenes have ten classes.
    let few =
        "model.params.cond_stage_config.params.n_classes: expected at least the data's 10 classes, got 8";
    check_refused(&text, &[&with(8, "7")], few);
    let null = "cond_stage_config.params.null_class: expected a class beside the data's, 0 to 9, got 9";
    check_refused(&text, &[&with(10, "9")], null);
    let validation = format!("data.params.validation={}", crate::configs::VALIDATION);
    check_refused(&text, &[&validation, &with(8, "7")], few);
    // Both parts of a hybrid conditioner.
    let hybrid = |labels: i64, classes: i64| {
        format!(
            "model.params.cond_stage_config={{target: hybrid, params: {{c_concat_config: {{target: spatial, params: \
             {{in_channels: {labels}, out_channels: 2}}}}, c_crossattn_config: {{target: class, params: \
             {{embed_dim: 16, n_classes: {classes}}}}}}}}}"
        )
    };
    let params = ["model.params.conditioning_key=hybrid", "model.params.unet_config.params.in_channels=6"];
    for (part, expected) in [
        (
            hybrid(11, 8),
            "c_crossattn_config.params.n_classes: expected at least the data's 10 classes, got 8",
        ),
        (hybrid(5, 10), "c_concat_config.params.in_channels: expected at least the data's 11 classes, got 5"),
    ] {
        check_refused(&text, &[params[0], params[1], "train.conditioning_dropout=0", &part], expected);
    }
}

#[test]
fn batches_that_cannot_fit_in_memory_are_refused_before_a_run_exists() {
    if test_device() != Device::Cpu {
        return;
    }
    let _lock = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    let many = "{target: scenes, params: {size: 16, objects: [1, 1], count: 1000000000}}";
    let data = format!("data.params.train={many}");
    let of = |count: u64| format!("data.params.batch_size={count}");
    let expected = |count: u64| {
        format!("tiny.yaml: data.params.batch_size: expected at most the @, got {count} images of 16x16")
    };
    let check = |text: &str, overrides: &[&str], count: u64| {
        let expected = expected(count);
        let (before, after) = expected.split_once('@').unwrap();
        for part in [before, after] {
            check_refused(text, &[&[&data[..], &of(1_000_000_000)], overrides].concat(), part);
        }
    };
    let diffusion = diffusion(&first_stage(folder.path()));
    for text in [&kl(), &vq(), &diffusion] {
        check(text, &[], 1_000_000_000);
    }
    // Class images double a batch; cached latents of another run need no images.
    let prior = [&format!("data.params.class_images={many}"), "train.with_prior_preservation=true"];
    check(&diffusion, &prior, 2_000_000_000);
    std::fs::write(folder.path().join("latents"), "").unwrap();
    let cached = format!("train.cache_latents={}", folder.path().join("latents").display());
    check(&diffusion, &[&cached], 1_000_000_000);
}

#[test]
fn conditions_and_sizes_of_held_out_images_are_checked_before_the_first_step() {
    let _lock = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    let text = diffusion(&first_stage(folder.path()));
    let images = tempfile::tempdir().unwrap();
    let write = |name: &str| {
        let gray = tch::Tensor::zeros([3, 18, 18], (tch::Kind::Float, Device::Cpu));
        ldm_core::image::write_png(images.path().join(name), &gray, &[]).unwrap();
    };
    let validation = |transform: &str| {
        let path = images.path().display();
        format!(
            "data.params.validation={{target: images, params: {{path: {path}, transform: {{{transform}}}}}}}"
        )
    };
    write("1.png");
    check_refused(
        &text,
        &[&validation("size: 16")],
        "1.png: expected a class, which the model is conditioned on, got none",
    );
    check_refused(
        &text,
        &[&validation("")],
        "tiny.yaml: data.params.validation: latent: expected height and width in multiples of 2, got 9x9",
    );
    // An unreadable image in front hides nothing, also in the training set.
    std::fs::write(images.path().join("0.png"), "unreadable").unwrap();
    let train = validation("size: 16").replace("validation", "train");
    check_refused(
        &text,
        &[&train, "data.params.batch_size=1"],
        "1.png: expected a class, which the model is",
    );
}
