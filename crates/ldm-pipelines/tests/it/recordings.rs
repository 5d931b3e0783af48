//! Samples of recorded evaluations, compared with those of plain ones to the bit.

use ldm_core::Prompt;
use ldm_pipelines::{GenerateRequest, Guidance, LatentDiffusion, Sampling, generate};
use ldm_schedulers::SamplerConfig;
use ldm_unet::Recordings;
use tch::Tensor;

use crate::tiny_model::model;

fn samples(model: &LatentDiffusion, how: &Sampling) -> Tensor {
    let (prompt, seeds) = (Prompt::class(&[1, 2]), [7, 8]);
    generate(model, &GenerateRequest::new(&prompt, &seeds, how), &mut |_| {}).unwrap().latents
}

/// Samples plainly, and by recordings; returns the number of recorded shapes.
fn compared(model: &mut LatentDiffusion, how: &Sampling) -> usize {
    model.recordings = Recordings::default();
    let want = samples(model, how);
    model.recordings = Recordings::again();
    let got = samples(model, how);
    // Another run overwrites what the first one may have kept.
    let again = samples(model, how);
    assert!(got.equal(&want) && again.equal(&want), "{how:?}");
    model.recordings.count()
}

#[test]
fn no_sampler_keeps_what_the_next_evaluation_overwrites() {
    for parameterization in ["eps", "x0", "v"] {
        let mut model = model(&[&format!("model.params.parameterization={parameterization}")]);
        for sampler in SamplerConfig::all().chain([SamplerConfig::Ddim { eta: 1. }]) {
            // Without guidance, whose sum is a new tensor.
            assert_eq!(compared(&mut model, &Sampling::new(sampler, 5)), 1);
        }
    }
}

#[test]
fn options_of_the_network_give_the_same_samples() {
    let mut model = model(&[]);
    let how = Sampling { guidance: 3.0.into(), ..Sampling::new(SamplerConfig::Ddim { eta: 0. }, 6) };
    let interval = [0.3, 5.];
    let interval = Sampling { guidance: Guidance { interval, ..3.0.into() }, ..how.clone() };
    assert_eq!(compared(&mut model, &interval), 2, "with guidance, and without");
    let tiles = Sampling { size: Some([32, 24]), tile: Some(16), ..how.clone() };
    assert_eq!(compared(&mut model, &tiles), 1, "all tiles have one shape");
    let deep = Sampling { deep_cache: Some("2:1".parse().unwrap()), ..how.clone() };
    assert_eq!(compared(&mut model, &deep), 2, "all blocks, and the shallow ones");
    let merging = Sampling { token_merging: 0.5, ..how };
    assert_eq!(compared(&mut model, &merging), 0, "the number of merged tokens is read back");
}

#[test]
fn conditions_that_are_noised_at_every_step_are_read_at_every_step() {
    let mut model = model(&["model.params.num_timesteps_cond=4"]);
    let how = Sampling { guidance: 3.0.into(), ..Sampling::new(SamplerConfig::Ddim { eta: 0. }, 6) };
    assert_eq!(compared(&mut model, &how), 1);
}

#[test]
fn a_model_to_be_trained_records_nothing() {
    let model = model(&[]);
    let _ = samples(&model, &Sampling::new(SamplerConfig::Ddim { eta: 0. }, 9));
    assert_eq!(model.recordings.count(), 0);
}
