//! diffusers' `scheduler_config.json`: the same inputs of the network and the same result as its schedulers
//! (`golden/generate_schedulers.py`).

use std::cell::RefCell;
use std::collections::BTreeMap;

use ldm_core::device::test_device;
use ldm_core::noise::Replay;
use ldm_pipelines::DiffusersScheduler;
use ldm_schedulers::{Denoiser, NoiseLevel, NoiseSchedule, SamplerConfig};
use ldm_testing::{Golden, assert_close};
use serde::Deserialize;
use serde_json::json;
use tch::{Kind, Tensor};

#[derive(Deserialize)]
struct Case {
    text: String,
    steps: usize,
}

/// Reads the text from a file, since diffusers' files are not always JSON.
fn read(text: &str) -> ldm_core::Result<DiffusersScheduler> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("scheduler_config.json");
    std::fs::write(&path, text).unwrap();
    DiffusersScheduler::open(&path)
}

/// `toy` of `generate_schedulers.py`.
fn toy(x: &Tensor, t: f64) -> Tensor {
    let s = t / 1000.;
    (x * (0.5 + 0.5 * s)).tanh() * (0.3 + 0.7 * s) + 0.1 * (1. - s)
}

#[track_caller]
fn check(name: &str, case: &Case, golden: &Golden) {
    let scheduler = read(&case.text).unwrap();
    let (sampler, spacing, note) = scheduler.sampler();
    assert_eq!(note, None, "{name}");
    let schedule = NoiseSchedule::new(&scheduler.schedule).unwrap();
    let plan = sampler.plan(&schedule, &spacing, case.steps).unwrap();
    let get = |key: &str| golden.get(&format!("{name}.{key}")).to_kind(Kind::Double);
    let [inputs, times] = [get("asked"), get("times")];
    let calls = RefCell::new(0);
    // Some of diffusers' schedulers store x/α in f32: a step that shrinks it by r enlarges the relative rounding error
    // by r, to more than 1e-5 from r = 84 on, as with zero terminal SNR.
    let shrinks = plan
        .levels()
        .windows(2)
        .filter(|pair| pair[1].sigma > 0.)
        .map(|pair| pair[0].noise_to_signal() / pair[1].noise_to_signal());
    let bound = 1e-5_f64.max(shrinks.fold(1., f64::max) * 2f64.powi(-23));
    let network = |x: &Tensor, at: NoiseLevel| {
        let call = calls.replace_with(|count| *count + 1);
        assert_close(&format!("{name}, input of call {call}"), x, &inputs.get(call), bound);
        let want = times.double_value(&[call]);
        assert!((at.t - want).abs() <= 2e-4, "{name}, t of call {call}: got {}, want {want}", at.t);
        scheduler.parameterization.to_denoised(toy(x, at.t), x, at)
    };
    let noise = golden.get("noise").to_kind(Kind::Double);
    let mut noise = Replay::new((0..noise.size()[0]).map(|index| noise.get(index)));
    let mut denoiser: Box<dyn Denoiser + '_> = Box::new(network);
    if let Some(thresholding) = scheduler.thresholding {
        denoiser = thresholding.apply(denoiser);
    }
    let end = plan.sample(&*denoiser, golden.get("start").to_kind(Kind::Double), &mut noise);
    drop(denoiser);
    assert_close(&format!("{name}, the end"), &end, &get("end"), bound);
    assert_eq!(calls.into_inner(), inputs.size()[0], "{name}: number of calls");
}

#[test]
fn every_scheduler_equals_diffusers() {
    let golden = Golden::open(
        concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/schedulers.safetensors"),
        test_device(),
    );
    let cases: BTreeMap<String, Case> = serde_json::from_str(golden.metadata("cases")).unwrap();
    assert_eq!(cases.len(), 42);
    for (name, case) in cases {
        check(&name, &case, &golden);
    }
}

/// Unsupported settings are reported, and the nearest sampler is used.
#[test]
fn unsupported_settings_are_reported() {
    let dpm = SamplerConfig::Dpmpp2m { lower_order_final: true };
    let unipc = SamplerConfig::Unipc { order: 2, lower_order_final: true };
    let ddim = SamplerConfig::Ddim { eta: 0. };
    let cases = [
        (
            json!({"_class_name": "DEISMultistepScheduler"}),
            ddim,
            "DEISMultistepScheduler is not supported; sampling with ddim",
        ),
        (
            json!({"_class_name": "PNDMScheduler"}),
            SamplerConfig::Plms {},
            "`skip_prk_steps` false is not supported; the first step takes 2 NFE",
        ),
        (
            json!({"_class_name": "DPMSolverMultistepScheduler", "solver_type": "heun", "use_lu_lambdas": true}),
            dpm,
            "`solver_type` heun is not supported; `use_lu_lambdas` true is not supported",
        ),
        (
            json!({"_class_name": "DPMSolverMultistepScheduler", "solver_order": 3}),
            dpm,
            "`solver_order` 3 is not supported",
        ),
        (
            json!({"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}),
            dpm,
            "`algorithm_type` dpmsolver is not supported",
        ),
        (
            json!({"_class_name": "UniPCMultistepScheduler", "disable_corrector": [0]}),
            unipc,
            "`disable_corrector` [0] is not supported",
        ),
        (
            json!({"_class_name": "UniPCMultistepScheduler", "solver_type": "bh1"}),
            unipc,
            "`solver_type` bh1 is not supported",
        ),
        (
            json!({"_class_name": "EulerDiscreteScheduler", "timestep_type": "continuous"}),
            SamplerConfig::Euler {},
            "`timestep_type` continuous is not supported",
        ),
        (
            json!({"_class_name": "PNDMScheduler", "skip_prk_steps": true, "prediction_type": "v_prediction"}),
            SamplerConfig::Plms {},
            "`prediction_type` v_prediction: PNDMScheduler averages v, here eps is averaged",
        ),
        (
            json!({"_class_name": "DDIMScheduler", "timestep_spacing": "linspace"}),
            ddim,
            "`timestep_spacing` linspace: unlike in DDIMScheduler, each step ends at the next timestep",
        ),
    ];
    for (config, sampler, note) in cases {
        let got = read(&config.to_string()).unwrap().sampler();
        assert_eq!((got.0, got.2.as_deref()), (sampler, Some(note)), "{config}");
    }
}

#[test]
fn invalid_settings_are_refused_by_key() {
    let cases = [
        (
            json!({"_class_name": "EulerDiscreteScheduler", "rescale_betas_zero_snr": true}),
            "`rescale_betas_zero_snr`: expected false with epsilon, which is undefined in pure noise, got true",
        ),
        (
            json!({"_class_name": "LCMScheduler", "original_inference_steps": 1001}),
            "`original_inference_steps`: expected 1 to 1000, got 1001",
        ),
        (
            json!({"_class_name": "DDIMScheduler", "thresholding": true, "dynamic_thresholding_ratio": 2}),
            "`dynamic_thresholding_ratio`: expected a number in [0, 1], got 2",
        ),
        (
            json!({"_class_name": "DDIMScheduler", "steps_offset": -1}),
            "`steps_offset`: expected 0 or more, got -1",
        ),
        (
            json!({"_class_name": "DDIMScheduler", "timestep_spacing": "karras"}),
            "`timestep_spacing`: expected leading or linspace or trailing, got \"karras\"",
        ),
    ];
    for (config, message) in cases {
        let error = read(&config.to_string()).unwrap_err().to_string();
        assert!(error.contains(message), "{config}: {error}");
    }
}
