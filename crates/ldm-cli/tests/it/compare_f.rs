//! `ldm compare-f`: results, resumption, budgets and errors.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ldm_testing::{Sandbox, listing};
use serde_json::Value;

use crate::LDM;

pub(crate) const STUDY: &str = include_str!("../../../ldm-study/tests/it/study.yaml");

fn sandbox() -> Sandbox {
    Sandbox::new(LDM, &[("f.yaml", STUDY)])
}

pub(crate) fn results(sandbox: &Sandbox, study: &str) -> Value {
    serde_json::from_slice(&std::fs::read(sandbox.path(&format!("{study}/results.json"))).unwrap()).unwrap()
}

/// The results without the fields that depend on the clock or the memory of the machine.
pub(crate) fn without_times(mut value: Value) -> Value {
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
fn a_study_reports_every_factor_and_can_be_resumed() {
    let sandbox = sandbox();
    let output = sandbox.ok(&["compare-f", "f.yaml", "--out", "whole", "--threads", "1", "-q"]);
    assert!(output.trim_end().ends_with("report.html"), "{output}");
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
            assert_eq!(by["quality"]["images"], 10, "more than the 8 conditions");
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

    // A study that is interrupted by a signal and resumed has the same results.
    let mut child = Command::new(LDM)
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
    sandbox.ok(&["compare-f", "--resume", "parts", "--threads", "1", "-q"]);
    assert_eq!(without_times(results(&sandbox, "parts")), without_times(found));
    assert!(!listing(&sandbox.path("parts")).iter().any(|path| path.ends_with("first-stage.trial")));

    // Finished parts do not run again.
    let before = std::fs::metadata(sandbox.path("parts/f2/sampling.json")).unwrap().modified().unwrap();
    sandbox.ok(&["compare-f", "--resume", "parts", "--threads", "1", "-q"]);
    assert_eq!(
        std::fs::metadata(sandbox.path("parts/f2/sampling.json")).unwrap().modified().unwrap(),
        before
    );
}

#[test]
fn a_budget_in_seconds_is_met() {
    let sandbox = sandbox();
    let overrides = [
        "study.factors=[{f: 1, diffusion: {model.params.unet_config.params.channel_mult: [1]}}]",
        "study.budget.diffusion={seconds: 3}",
        "study.measure.points=1",
        "study.measure.sampling_steps=[1]",
    ];
    let words = [&["compare-f", "f.yaml", "--out", "timed", "--threads", "1", "-q"], &overrides[..]].concat();
    sandbox.ok(&words);
    let training = &results(&sandbox, "timed")["factors"][0]["diffusion"]["training"];
    let (seconds, steps) = (training["seconds"].as_f64().unwrap(), training["steps"].as_u64().unwrap());
    // The machine may be busier in the run than in the trial, or less so.
    assert!((0.5..18.).contains(&seconds) && steps > 5, "{seconds} s, {steps} steps");
}

#[test]
fn folders_without_a_study_are_refused() {
    let sandbox = sandbox();
    sandbox.err(&["compare-f", "f.yaml", "--out", "study", "study.factors.1.f=4"], 1, "f = 4: first_stage");
    sandbox.err(&["compare-f"], 1, "expected a study file or --profile, got neither");
    sandbox.err(&["compare-f", "nothing.yaml"], 1, "nothing.yaml");
    sandbox.err(
        &["compare-f", "--resume", "."],
        1,
        "expected the folder of a study, got one without study.yaml",
    );
    std::fs::create_dir_all(sandbox.path("taken/f1")).unwrap();
    sandbox.err(
        &["compare-f", "f.yaml", "--out", "taken"],
        1,
        "expected an empty folder; try ldm compare-f --resume",
    );
}
