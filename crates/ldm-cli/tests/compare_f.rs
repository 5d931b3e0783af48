//! `ldm compare-f` as a person meets it.

#![allow(clippy::unwrap_used, reason = "clippy knows tests, not the functions beside them")]

mod sandbox;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ldm_core::config;
use ldm_pipelines::{ModelConfig, ModelFile};
use ldm_unet::Plan;
use sandbox::{Sandbox, listing, text};
use serde_json::Value;

const STUDY: &str = "
study:
  factors:
    - f: 1
      diffusion: {model.params.unet_config.params.channel_mult: [1, 1]}
    - f: 2
      first_stage: {model.params.ddconfig.ch_mult: [1, 1]}
      diffusion: {model.params.unet_config.params.channel_mult: [1]}
  budget: {first_stage: {images: 12}, diffusion: {steps: 6}}
  measure: {images: 10, reference: 8, reconstructions: 8, points: 3, progress_steps: 2, sampling_steps: [1, 3], batch_size: 4}
first_stage:
  model:
    target: kl
    params:
      embed_dim: 4
      ddconfig: {double_z: true, z_channels: 4, resolution: 16, in_channels: 3, out_ch: 3, ch: 32, num_res_blocks: 1,
                 attn_resolutions: [], attn_type: none}
  data:
    target: data_module
    params:
      batch_size: 4
      num_workers: 0
      train: {target: scenes, params: {size: 16, objects: [1, 1], count: 64}}
      validation: {target: scenes, params: {size: 16, objects: [1, 1], count: 24, split: validation}}
  train: {learning_rate: 1.0e-3, samples: {count: 0}}
diffusion:
  model:
    target: latent_diffusion
    params:
      scale_by_std: true
      unet_config: {target: unet, params: {model_channels: 32, num_res_blocks: 1, attention_resolutions: [1], num_heads: 2,
                    use_spatial_transformer: true, context_dim: 16}}
      cond_stage_trainable: true
      cond_stage_config: {target: class, params: {embed_dim: 16, n_classes: 10}}
  data:
    target: data_module
    params:
      batch_size: 4
      num_workers: 0
      train: {target: scenes, params: {size: 16, objects: [1, 1], count: 64}}
      validation: {target: scenes, params: {size: 16, objects: [1, 1], count: 24, split: validation}}
  train: {learning_rate: 1.0e-3, log_every: 1, samples: {count: 0}}
";

fn sandbox() -> Sandbox {
    Sandbox::new(&[("f.yaml", STUDY)])
}

fn results(sandbox: &Sandbox, study: &str) -> Value {
    serde_json::from_slice(&std::fs::read(sandbox.path(&format!("{study}/results.json"))).unwrap()).unwrap()
}

/// The study without what depends on the clock and on the machine's memory.
fn without_times(mut value: Value) -> Value {
    fn clear(value: &mut Value) {
        match value {
            Value::Object(map) => {
                for key in [
                    "seconds",
                    "images_per_second",
                    "seconds_per_image",
                    "peak_memory",
                    "encoded_per_second",
                    "decoded_per_second",
                ] {
                    map.remove(key);
                }
                map.values_mut().for_each(clear);
            }
            Value::Array(values) => values.iter_mut().for_each(clear),
            _ => {}
        }
    }
    clear(&mut value);
    value
}

#[test]
fn a_study_finds_numbers_for_every_factor_and_can_be_taken_up_again() {
    let sandbox = sandbox();
    let said = sandbox.done(&["compare-f", "f.yaml", "--out", "whole", "--threads", "1", "-q"]);
    assert!(said.trim_end().ends_with("report.html"), "{said}");
    let found = results(&sandbox, "whole");
    let factors = found["factors"].as_array().unwrap();
    assert_eq!(factors.iter().map(|factor| factor["f"].as_i64().unwrap()).collect::<Vec<_>>(), [1, 2]);
    assert!(factors[0]["first_stage"].is_null(), "pixels have no first stage");
    assert!(factors[1]["first_stage"]["psnr"]["mean"].as_f64().unwrap() > 0.);
    assert_eq!(factors[1]["first_stage"]["training"]["steps"], 3, "12 images in batches of 4");
    assert_eq!(factors[0]["diffusion"]["latent"], serde_json::json!([3, 16, 16]));
    assert_eq!(factors[1]["diffusion"]["latent"], serde_json::json!([4, 8, 8]));
    for factor in factors {
        let points = factor["diffusion"]["points"].as_array().unwrap();
        assert_eq!(points.iter().map(|point| point["step"].as_i64().unwrap()).collect::<Vec<_>>(), [2, 4, 6]);
        let by_steps = factor["sampling"]["by_steps"].as_array().unwrap();
        assert_eq!(by_steps.iter().map(|by| by["steps"].as_i64().unwrap()).collect::<Vec<_>>(), [1, 3]);
        for by in by_steps {
            assert!(by["images_per_second"].as_f64().unwrap() > 0.);
            assert!(by["quality"]["frechet_distance"].as_f64().unwrap() > 0.);
            assert_eq!(by["quality"]["images"], 10, "more than there are to be told of: 8");
        }
        assert!(factor["diffusion"]["training"]["peak_memory"].as_u64().unwrap() > 1_000_000);
    }
    assert!(found["reference"]["features"].as_str().unwrap().contains("VGG16"));
    assert_eq!(found["reference"]["images"], 8);
    let csv = std::fs::read_to_string(sandbox.path("whole/results.csv")).unwrap();
    assert_eq!(csv.lines().count(), 1 + 2 * (3 + 2));
    let columns = csv.lines().next().unwrap().split(',').count();
    assert!(csv.lines().all(|line| line.split(',').count() == columns), "{csv}");
    let page = std::fs::read_to_string(sandbox.path("whole/report.html")).unwrap();
    assert_eq!(page.matches("<svg").count(), 3);
    assert!(page.contains("f = 2: samples after 6 steps") && !page.contains("NaN"));

    // One that is ended by a signal in the midst of it, and taken up again, finds the same.
    let mut child = Command::new(env!("CARGO_BIN_EXE_ldm"))
        .args(["compare-f", "f.yaml", "--out", "parts", "--threads", "1", "-q"])
        .current_dir(sandbox.work())
        .env("LDM_WEIGHTS", sandbox.weights(""))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while !sandbox.path("parts/f1/diffusion/checkpoints/latest").exists() {
        assert!(begun.elapsed() < Duration::from_mins(2), "no checkpoint");
        std::thread::sleep(Duration::from_millis(5));
    }
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(143));
    assert!(!sandbox.path("parts/report.html").exists());
    sandbox.done(&["compare-f", "--resume", "parts", "--threads", "1", "-q"]);
    assert_eq!(without_times(results(&sandbox, "parts")), without_times(found));
    assert!(!listing(&sandbox.path("parts")).iter().any(|path| path.ends_with("first-stage.trial")));

    // What is done is not done again.
    let before = std::fs::metadata(sandbox.path("parts/f2/sampling.json")).unwrap().modified().unwrap();
    sandbox.done(&["compare-f", "--resume", "parts", "--threads", "1", "-q"]);
    assert_eq!(
        std::fs::metadata(sandbox.path("parts/f2/sampling.json")).unwrap().modified().unwrap(),
        before
    );
}

#[test]
fn a_budget_of_seconds_is_kept() {
    let sandbox = sandbox();
    let overrides = [
        "study.factors=[{f: 1, diffusion: {model.params.unet_config.params.channel_mult: [1]}}]",
        "study.budget.diffusion={seconds: 3}",
        "study.measure.points=1",
        "study.measure.sampling_steps=[1]",
    ];
    let words = [&["compare-f", "f.yaml", "--out", "timed", "--threads", "1", "-q"], &overrides[..]].concat();
    sandbox.done(&words);
    let training = &results(&sandbox, "timed")["factors"][0]["diffusion"]["training"];
    let (seconds, steps) = (training["seconds"].as_f64().unwrap(), training["steps"].as_u64().unwrap());
    // The machine may be busier in the run than in the trial, or less so.
    assert!((0.5..18.).contains(&seconds) && steps > 5, "{seconds} s, {steps} steps");
}

#[test]
fn what_cannot_be_compared_is_refused_before_anything_is_trained() {
    let sandbox = sandbox();
    let fails = |overrides: &[&str], expected: &str| {
        let words = [&["compare-f", "f.yaml", "--out", "study"], overrides].concat();
        sandbox.fails(&words, 1, expected);
    };
    fails(&["study.factors.1.f=4"], "`ch_mult` has levels for f = 2, and this is f = 4");
    fails(&["study.factors.1.f=1"], "study.factors: expected each f once and at least 1, got: 1");
    fails(&["study.factors.1.f=0"], "expected each f once and at least 1, got: 0");
    fails(&["study.factors=[]"], "study.factors: nothing to compare");
    fails(
        &["study.factors.0.first_stage={model.params.embed_dim: 3}"],
        "study.factors: f = 1 has no first stage to configure",
    );
    fails(
        &["study.factors.1.diffusion={model.params.unet_config.params.channel_mult: [1, 1, 1, 1, 1]}"],
        "images of 16x16 pixels have latents of 8x8, which the U-Net cannot halve 4 times",
    );
    fails(
        &[
            "study.factors.1.f=32",
            "study.factors.1.first_stage={model.params.ddconfig.ch_mult: [1, 1, 1, 1, 1, 1]}",
        ],
        "images of 16x16 pixels, whose sides f does not divide",
    );
    fails(&["study.budget.diffusion={steps: 3, seconds: 4}"], "expected one of steps, images and seconds");
    fails(
        &["study.budget.diffusion={}"],
        "study.budget.diffusion: expected one of steps, images and seconds",
    );
    fails(&["study.measure.images=1"], "study.measure.images: expected at least 2, got: 1");
    fails(&["study.measure.sampling_steps=[]"], "study.measure.sampling_steps: expected at least 1, got: 0");
    fails(&["study.measure.image=1"], "unknown field `image`");
    fails(&["first_stage.train.steps=9"], "first_stage.train.steps: study.budget.first_stage says how long");
    fails(&["diffusion.model.params.chanels=9"], "unknown field `chanels`");
    fails(&["diffusion.model={target: kl, params: {}}"], "diffusion");
    sandbox.fails(&["compare-f"], 1, "expected the file of a study, or --profile");
    sandbox.fails(&["compare-f", "nothing.yaml"], 1, "nothing.yaml");
    sandbox.fails(&["compare-f", "--resume", "."], 1, "not the folder of a study: it has no study.yaml");
    std::fs::create_dir_all(sandbox.path("taken/f1")).unwrap();
    sandbox.fails(&["compare-f", "f.yaml", "--out", "taken"], 1, "exists; go on with it");
}

/// Tab. 13 of the paper and the profiles like it: models of one study have as many parameters, within a few percent.
#[test]
fn the_profiles_compare_networks_of_one_size() {
    let sandbox = sandbox();
    for (name, size, factors) in [
        ("quick", 32, &[1, 2, 4, 8][..]),
        ("cifar", 32, &[1, 2, 4, 8]),
        ("photos", 128, &[2, 4, 8, 16, 32]),
        ("paper", 256, &[1, 2, 4, 8, 16, 32]),
    ] {
        // Scenes stand in for the images, which are not everybody's; the classes of ImageNet for theirs.
        let scenes = format!("{{target: scenes, params: {{size: {size}, objects: [1, 1], count: 8}}}}");
        let data: Vec<String> = ["first_stage", "diffusion"]
            .iter()
            .flat_map(|stage| {
                ["train", "validation"].map(|set| format!("{stage}.data.params.{set}={scenes}"))
            })
            .collect();
        let study = sandbox.path(&format!("study-{name}"));
        plan_only(&sandbox, name, &data, &study);
        let counts: Vec<i64> =
            factors.iter().map(|f| parameters(&study.join(format!("f{f}/diffusion.yaml")))).collect();
        let (least, most) = (*counts.iter().min().unwrap() as f64, *counts.iter().max().unwrap() as f64);
        assert!(most / least < 1.1, "{name}: {counts:?}");
        if name == "paper" {
            // As counted by the reference's own code; the table's 396, 391, 391, 395, 395 and 395 million.
            let millions: Vec<i64> =
                counts.iter().map(|count| (*count as f64 / 1e6).round() as i64).collect();
            assert_eq!(millions, [397, 391, 401, 395, 395, 395]);
        }
    }
}

/// Has the program write the runs' configs, and ends it when they are there.
fn plan_only(sandbox: &Sandbox, profile: &str, overrides: &[String], out: &Path) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_ldm"))
        .args(["compare-f", "--profile", profile, "--threads", "1", "-q", "--out"])
        .arg(out)
        .args(overrides)
        .current_dir(sandbox.work())
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while !out.join("study.yaml").exists() {
        let ended = child.try_wait().unwrap().is_some();
        assert!(!ended, "{profile}: {}", text(&child.wait_with_output().unwrap().stderr));
        assert!(begun.elapsed() < Duration::from_mins(1), "{profile}: no plan");
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

fn parameters(path: &Path) -> i64 {
    let text = std::fs::read_to_string(path).unwrap();
    let tree: Value = config::parse(&text, path, &[]).unwrap();
    let model = config::to_text(&serde_yaml::to_value(serde_json::json!({"model": tree["model"]})).unwrap());
    let ModelConfig::LatentDiffusion(model) = ModelFile::parse(&model, path, &[]).unwrap().model else {
        panic!("a diffusion model")
    };
    let plan = Plan::new(model.unet()).unwrap();
    plan.parameters().iter().map(|(_, shape)| shape.iter().product::<i64>()).sum()
}
