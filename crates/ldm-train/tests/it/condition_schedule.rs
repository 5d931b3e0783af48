//! Conditions that are noised in training, against CompVis; `golden/generate_cond_schedule.py` makes the file.

use ldm_core::Prompt;
use ldm_core::device::test_device;
use ldm_core::noise::Replay;
use ldm_data::Batch;
use ldm_pipelines::{GenerateRequest, ModelConfig, ModelFile, Sampling, generate};
use ldm_testing::{Golden, assert_close, fill_weights};
use ldm_train::{DiffusionObjective, DiffusionTraining, Objective, StepInfo};
use tch::{Kind, Tensor};

use crate::batch_of;

const CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../ldm-pipelines/tests/golden/class.yaml");

fn objective(overrides: &[&str]) -> ldm_core::Result<DiffusionObjective> {
    let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
    let ModelConfig::LatentDiffusion(config) = ModelFile::read(CONFIG, &overrides)?.model else {
        panic!("a diffusion model")
    };
    let objective = DiffusionObjective::new(&config, None, DiffusionTraining::default(), test_device())?;
    fill_weights(objective.model().vs(), 5);
    Ok(objective)
}

const SHORT: [&str; 3] =
    ["model.params.num_timesteps_cond=8", "model.params.timesteps=20", "model.params.linear_end=0.195"];

#[test]
fn the_loss_with_a_noised_condition_equals_compvis() {
    let objective = objective(&[&SHORT[..], &["model.params.scale_factor=1"]].concat()).unwrap();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/cond_schedule.safetensors");
    let golden = Golden::open(path, test_device());
    let get = |name: &str| golden.get(name).shallow_clone();
    let prompt = Prompt { class: Some(get("class")), ..Prompt::default() };
    // The latents are given, so the batch has no images; the posterior of a point draws nothing.
    let images = Tensor::zeros([3, 3, 0, 0], (Kind::Float, test_device()));
    let batch = Batch { latents: Some(get("z")), ..batch_of(images, prompt) };
    let mut noise = Replay::new(["t", "noise.latent", "noise.condition"].map(get));
    let info = StepInfo { phase: 0, global_step: 0 };
    let loss = objective.loss(info, &batch, &mut noise).unwrap();
    let parts = ["loss_simple", "loss_vlb", "loss"]
        .map(|name| loss.parts.iter().find(|(part, _)| *part == name).unwrap().1.to_kind(Kind::Float));
    assert_close("parts", &Tensor::stack(&parts, 0), golden.get("parts"), 1e-5);
}

#[test]
fn sampling_noises_the_condition_by_the_seed() {
    let images = |overrides: &[&str], seeds: &[u64]| {
        let objective = objective(overrides).unwrap();
        let sampling = Sampling { steps: 3, guidance: 2.0.into(), ..objective.model().default_sampling() };
        let prompt = Prompt::class(&vec![3; seeds.len()]);
        let request = GenerateRequest::new(&prompt, seeds, &sampling);
        generate(objective.model(), &request, &mut |_| {}).unwrap().latents
    };
    let noised = images(&SHORT, &[7, 8]);
    assert_eq!(noised, images(&SHORT, &[7, 8]), "the same seeds give the same images");
    // Kernels round differently for another batch size.
    assert_close("seed 8 alone", &images(&SHORT, &[8]), &noised.narrow(0, 1, 1), 1e-5);
    let clean = images(&SHORT[1..], &[7, 8]);
    assert!((&noised - clean).abs().max().double_value(&[]) > 1e-3);
}

#[test]
fn schedules_that_do_not_fit_are_refused() {
    let check = |overrides: &[&str], expected: &str| {
        let error = objective(overrides).map(drop).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(
        &["model.params.num_timesteps_cond=0"],
        "num_timesteps_cond: expected 1 to 1000, the timesteps, got 0",
    );
    check(&["model.params.num_timesteps_cond=1001"], "expected 1 to 1000, the timesteps, got 1001");
    check(
        &["model.params.num_timesteps_cond=3", "model.params.cond_stage_config=__is_unconditional__"],
        "num_timesteps_cond: expected 1, as only tokens or maps",
    );
    check(
        &["model.params.cond_stage_forward=encode"],
        "cond_stage_forward: expected forward, the methods of the",
    );
    let _: DiffusionObjective = objective(&["model.params.cond_stage_forward=forward"]).unwrap();
}
