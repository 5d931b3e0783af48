//! Consistency tuning: few-step samples of a tuned model, bit-exact resume, refusals.

use std::path::Path;

use ldm_conditioning::TextOptions;
use ldm_core::Prompt;
use ldm_core::device::test_device;
use ldm_data::{Loader, LoaderConfig};
use ldm_pipelines::{GenerateRequest, LoadOptions, Model, Sampling, generate};
use ldm_schedulers::{AncestralNoise, SamplerConfig, Spacing};
use ldm_train::Trainer;
use tch::{Kind, Tensor};

use crate::tiny::check_resume;
use crate::{check_refused, config, configs, lock_generator, run_to_end};

/// An unconditional model of the pixels of two scenes.
fn text(train: &str) -> String {
    let unet = configs::unet(3, &["attention_resolutions: [2], channel_mult: [1, 2], num_heads: 2"]);
    let params = [
        "first_stage_config: {target: identity}, cond_stage_config: __is_unconditional__, parameterization: v",
        "linear_start: 0.00085, linear_end: 0.012, scale_by_std: true",
        &format!("unet_config: {unet}"),
    ];
    let data = configs::data(&configs::scenes(2), None).replace("batch_size: 4", "batch_size: 2");
    format!("{}{data}\ntrain: {{{train}}}\n", configs::diffusion(16, 3, &params))
}

/// The mean distance of samples in one step to the nearest training image.
fn distance(run: &Path, images: &Tensor) -> f64 {
    let Model::Diffusion(model) = Model::open(run, &LoadOptions::new(test_device()), &mut |_| {}).unwrap()
    else {
        panic!("expected a diffusion model");
    };
    let sampling = Sampling {
        sampler: SamplerConfig::Lcm {},
        spacing: Spacing::Lcm,
        steps: 1,
        guidance: 1_f64.into(),
        size: None,
        tile: None,
        thresholding: None,
        tile_tie: None,
        ancestral: AncestralNoise::default(),
        quantize_denoised: false,
        deep_cache: None,
        text: TextOptions::default(),
    };
    let seeds: Vec<u64> = (0..16).collect();
    let prompt = Prompt::default();
    let request = GenerateRequest::new(&prompt, &seeds, &sampling);
    let samples = generate(&model, &request, &mut |_| {}).unwrap().images; // [16, 3, h, w]
    let gaps = (samples.unsqueeze(1) - images.to_device(samples.device()).unsqueeze(0)).square();
    let nearest = gaps.mean_dim([2, 3, 4].as_slice(), false, Kind::Float).min_dim(1, false).0;
    nearest.sqrt().mean(Kind::Float).double_value(&[])
}

#[test]
fn a_tuned_model_samples_in_one_step_better_than_its_base() {
    let _lock = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    let [base, tuned] = ["base", "tuned"].map(|name| folder.path().join(name));
    let steps = "steps: 1000, samples: {count: 0}, learning_rate: 1.0e-3, ema: {decay: 0.97}, schedule: {target: cosine, params: {warm_up: 10}}";
    let run = config(&text(steps), &[]);
    let data = run.data.train.open(Path::new(".")).unwrap();
    let loader = LoaderConfig { workers: 0, shuffle: false, ..LoaderConfig::new(2, 0) };
    let images = Loader::one_pass(data, loader).unwrap().next().unwrap().unwrap().images;
    run_to_end(&mut Trainer::create(run, &base, test_device()).unwrap());
    let from = format!("init_from: {{path: {}}}", base.display());
    let tuning = format!("{steps}, {from}, consistency: {{stages: 4, P_mean: 1.0, P_std: 1.2}}");
    run_to_end(&mut Trainer::create(config(&text(&tuning), &[]), &tuned, test_device()).unwrap());
    let [before, after] = [&base, &tuned].map(|run| distance(run, &images));
    assert!(after < 0.85 * before, "base {before:.3}, tuned {after:.3}");
}

#[test]
fn consistency_tuning_resumes_bit_exactly() {
    let _lock = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().join("base");
    run_to_end(
        &mut Trainer::create(
            config(&text("steps: 2, samples: {count: 0}, learning_rate: 1.0e-3"), &[]),
            &base,
            test_device(),
        )
        .unwrap(),
    );
    let train = format!(
        "steps: 20, samples: {{count: 4, steps: 2}}, learning_rate: 1.0e-3, ema: {{decay: 0.99}}, log_every: 5, checkpoint_every: 10, init_from: {{path: {}}}, consistency: {{stages: 3}}",
        base.display()
    );
    check_resume(&text(&train), 0);
}

#[test]
fn contradictions_are_refused() {
    check_refused(
        &text("steps: 2, learning_rate: 1.0e-3, consistency: {}"),
        &[],
        "train.consistency: expected a model to tune in train.init_from",
    );
    let with = |more: &str| {
        text(&format!("steps: 2, learning_rate: 1.0e-3, init_from: {{path: base}}, consistency: {more}"))
    };
    check_refused(&with("{q: 1.0}"), &[], "train.consistency.q: expected more than 1, got 1");
    check_refused(&with("{stages: 0}"), &[], "train.consistency.stages: expected at least 1, got 0");
    check_refused(&with("{P_std: -1.0}"), &[], "train.consistency.P_std: expected at least 0, got -1");
    check_refused(
        &with("{}, min_snr_gamma: 5.0"),
        &[],
        "train.consistency: expected none with train.min_snr_gamma, got one",
    );
    let dropout = ["model.params.unet_config.params.dropout=0.1"];
    check_refused(&with("{}"), &dropout, "dropout: expected 0 with train.consistency, got 0.1");
}
