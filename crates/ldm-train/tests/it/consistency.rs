//! Consistency tuning: overfitting, bit-exact resume, refusals.

use ldm_core::device::test_device;
use ldm_train::Trainer;

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

#[test]
fn two_images_are_overfitted() {
    let _lock = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().join("base");
    let steps = "samples: {count: 0}, learning_rate: 1.0e-3, log_every: 5";
    run_to_end(
        &mut Trainer::create(config(&text(&format!("steps: 2, {steps}")), &[]), &base, test_device())
            .unwrap(),
    );
    // One stage: the gap does not shrink, so that the loss falls by learning alone.
    let tuning = format!(
        "steps: 400, {steps}, init_from: {{path: {}}}, consistency: {{stages: 1, P_mean: 1.0, P_std: 0.5}}",
        base.display()
    );
    let root = folder.path().join("tuned");
    let lines = run_to_end(&mut Trainer::create(config(&text(&tuning), &[]), &root, test_device()).unwrap());
    let losses: Vec<f64> = lines.iter().filter_map(|line| line.get("loss_consistency")).copied().collect();
    let (first, last) = (losses[..8].iter().sum::<f64>(), losses[losses.len() - 8..].iter().sum::<f64>());
    assert!(last < 0.5 * first, "{first} to {last}");
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
    let first_stage =
        crate::tiny::kl().replace("train:\n", "train:\n  init_from: {path: base}\n  consistency: {}\n");
    check_refused(&first_stage, &[], "train.consistency: expected a diffusion model, got another model");
    let dropout = ["model.params.unet_config.params.dropout=0.1"];
    check_refused(&with("{}"), &dropout, "dropout: expected 0 with train.consistency, got 0.1");
}
