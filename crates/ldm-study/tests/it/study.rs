//! The study of the downsampling factor: plans, errors, and a run in this process.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use ldm_core::config;
use ldm_pipelines::{ModelConfig, ModelFile};
use ldm_study::Silent;
use ldm_study::study::{Study, StudyDir, StudyFile, StudyProfile};
use ldm_train::Finished;
use ldm_unet::Plan;
use serde_json::Value;
use tch::Device;

const STUDY: &str = include_str!("study.yaml");

fn create(text: &str, overrides: &[String], root: &Path) -> ldm_core::Result<StudyDir> {
    let path = Path::new("study.yaml");
    StudyDir::create(root, path, &StudyFile::parse(text, path, overrides)?)
}

#[test]
fn inconsistent_studies_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("study");
    let fails = |overrides: &[&str], expected: &str| {
        let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
        let error = create(STUDY, &overrides, &root).unwrap_err().to_string();
        assert!(error.contains(expected), "{overrides:?}: {error}");
        assert!(!root.exists(), "{overrides:?} left something behind");
    };
    fails(&["study.factors.1.f=4"], "expected a `ch_mult` for f = 4, got one for f = 2");
    fails(&["study.factors.1.f=1"], "study.factors: expected each f once and at least 1, got 1");
    fails(&["study.factors.1.f=0"], "expected each f once and at least 1, got 0");
    fails(&["study.factors=[]"], "study.factors: expected at least one factor");
    fails(
        &["study.factors.0.first_stage={model.params.embed_dim: 3}"],
        "study.factors: expected no first_stage for f = 1",
    );
    fails(
        &["study.factors.1.diffusion={model.params.unet_config.params.channel_mult: [1, 1, 1, 1, 1]}"],
        "expected latents that the U-Net can halve 4 times, got 8x8 of images of 16x16 pixels",
    );
    fails(
        &[
            "study.factors.1.f=32",
            "study.factors.1.first_stage={model.params.ddconfig.ch_mult: [1, 1, 1, 1, 1, 1]}",
        ],
        "expected an f that divides the sides, got images of 16x16 pixels",
    );
    fails(&["study.budget.diffusion={steps: 3, seconds: 4}"], "expected one of steps, images and seconds");
    fails(
        &["study.budget.diffusion={}"],
        "study.budget.diffusion: expected one of steps, images and seconds",
    );
    fails(&["study.measure.images=1"], "study.measure.images: expected at least 2, got 1");
    fails(&["study.measure.sampling_steps=[]"], "study.measure.sampling_steps: expected at least 1, got 0");
    fails(&["study.measure.image=1"], "unknown field `image`");
    fails(
        &["first_stage.train.steps=9"],
        "first_stage.train.steps: expected no such key; try study.budget.first_stage",
    );
    fails(&["diffusion.model.params.chanels=9"], "unknown field `chanels`");
    fails(&["diffusion.model={target: kl, params: {}}"], "diffusion");
}

#[test]
fn a_study_runs_in_this_process_and_stops_on_request() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("study");
    let overrides = [
        "study.factors=[{f: 1, diffusion: {model.params.unet_config.params.channel_mult: [1]}}]",
        "study.budget.diffusion={steps: 2}",
        "study.measure.points=1",
        "study.measure.sampling_steps=[1]",
    ];
    create(STUDY, &overrides.map(String::from), &root).unwrap();
    let run = |stop: bool| {
        let stop = AtomicBool::new(stop);
        let study = Study::open(StudyDir::open(&root).unwrap(), Device::Cpu, &stop, &Silent).unwrap();
        study.run_in_process().unwrap()
    };
    assert_eq!(run(true), Finished::Stopped);
    assert!(!root.join("report.html").exists());
    assert_eq!(run(false), Finished::Done);
    let page = std::fs::read_to_string(root.join("report.html")).unwrap();
    assert!(page.contains("f = 1: samples after 2 steps") && !page.contains("NaN"), "{page}");
}

/// Tab. 13 of the paper: the models of a study have the same number of parameters, within a few percent.
#[test]
fn profiles_compare_networks_of_one_size() {
    let folder = tempfile::tempdir().unwrap();
    for (profile, size, factors) in [
        (StudyProfile::Quick, 32, &[1, 2, 4, 8][..]),
        (StudyProfile::Cifar, 32, &[1, 2, 4, 8]),
        (StudyProfile::Photos, 128, &[2, 4, 8, 16, 32]),
        (StudyProfile::Paper, 256, &[1, 2, 4, 8, 16, 32]),
    ] {
        let name = profile.name();
        // Synthetic scenes instead of image sets.
        let scenes = format!("{{target: scenes, params: {{size: {size}, objects: [1, 1], count: 8}}}}");
        let data: Vec<String> = ["first_stage", "diffusion"]
            .iter()
            .flat_map(|stage| {
                ["train", "validation"].map(|set| format!("{stage}.data.params.{set}={scenes}"))
            })
            .collect();
        let study = folder.path().join(name);
        create(profile.text(), &data, &study).unwrap();
        let counts: Vec<i64> =
            factors.iter().map(|f| parameters(&study.join(format!("f{f}/diffusion.yaml")))).collect();
        let (least, most) = (*counts.iter().min().unwrap() as f64, *counts.iter().max().unwrap() as f64);
        assert!(most / least < 1.1, "{name}: {counts:?}");
        if name == "paper" {
            // As counted by CompVis' own code; the table's 396, 391, 391, 395, 395 and 395 million.
            let millions: Vec<i64> =
                counts.iter().map(|count| (*count as f64 / 1e6).round() as i64).collect();
            assert_eq!(millions, [397, 391, 401, 395, 395, 395]);
        }
    }
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
