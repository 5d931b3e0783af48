//! Parity with the samplers of CompVis (PLMS, masks, img2img, DPM-Solver), k-diffusion and diffusers
//! (`golden/generate_samplers.py`): the sample before every step, with their noise replayed.

use ldm_core::device::test_device;
use ldm_core::noise::Replay;
use ldm_schedulers::{
    AncestralNoise, Ddim, Ddpm, Denoised, Denoiser, Dpmpp2m, DynamicThresholding, InpaintMask, Lcm,
    NoiseLevel, NoiseSchedule, Parameterization, Plms, Sampler, SamplerConfig, SamplerRun, SamplingStep,
    SigmaTable, Spacing, UniPc, stochastic_encode, zero_terminal_snr,
};
use ldm_testing::{Golden, assert_close};
use tch::Tensor;

use super::{golden, run};

/// CompVis computes in f32.
const SINGLE: f64 = 1e-5;
/// The others are run in f64.
const DOUBLE: f64 = 1e-9;

fn schedule(config: &serde_json::Value) -> NoiseSchedule {
    NoiseSchedule::new(&serde_json::from_value(config.clone()).unwrap()).unwrap()
}

fn config(golden: &Golden) -> serde_json::Value {
    serde_json::from_str(golden.metadata("config")).unwrap()
}

/// `toy` of `golden/generate.py`, a network that predicts ε.
fn toy(total: usize) -> impl Fn(&Tensor, NoiseLevel) -> Denoised {
    move |x, at| {
        let s = at.t / total as f64;
        let eps = (x * (0.5 + 0.5 * s)).tanh() * (0.3 + 0.7 * s) + 0.1 * (1. - s);
        Parameterization::Eps.to_denoised(eps, x, at)
    }
}

fn draws(noise: &Tensor) -> Replay {
    Replay::new((0..noise.size()[0]).map(|index| noise.get(index)))
}

/// Samples over `levels` from the first of `want`, and compares each sample, and each x_0 where there is one.
#[track_caller]
fn check(
    name: &str,
    sampler: &dyn Sampler,
    levels: &[NoiseLevel],
    want: &Tensor,
    clean: Option<&Tensor>,
    noise: Option<&Tensor>,
    tolerance: f64,
) {
    assert_eq!(want.size()[0], levels.len() as i64, "{name}: number of samples");
    let mut observe = |step: SamplingStep| {
        let index = step.index as i64;
        assert_eq!(step.level, levels[step.index]);
        assert_close(&format!("{name}, x before step {index}"), step.x, &want.get(index), tolerance);
        if let Some(clean) = clean {
            let what = format!("{name}, x0 of step {index}");
            assert_close(&what, &step.denoised.x0, &clean.get(index), tolerance);
        }
    };
    let mut noise = noise.map_or_else(Replay::default, draws);
    let denoiser = &toy(1000);
    let x = sampler.sample(
        want.get(0),
        SamplerRun {
            denoiser,
            levels,
            mask: None,
            noise: &mut noise,
            ancestral: AncestralNoise::default(),
            observe: &mut observe,
            stop: None,
        },
    );
    assert_close(&format!("{name}, the end"), &x, &want.get(-1), tolerance);
}

#[test]
fn plms() {
    let golden = golden("plms");
    let schedule = schedule(&config(&golden));
    for (name, steps) in [("twenty", 20), ("two", 2), ("one", 1)] {
        let levels = schedule.noise_levels(&Spacing::Uniform, steps).unwrap();
        check(name, &Plms, &levels, golden.get(&format!("{name}.x")), None, None, SINGLE);
    }
}

#[test]
fn dpm_solver_of_stable_diffusion() {
    let golden = golden("dpm_solver");
    let schedule = schedule(&config(&golden));
    // Below 15 steps the last is of first order.
    for steps in [10, 20] {
        let levels = schedule.noise_levels(&SamplerConfig::DpmSolver {}.spacing(), steps).unwrap();
        let want = Vec::<f64>::try_from(golden.get(&format!("{steps}.t"))).unwrap();
        for (level, want) in levels.iter().zip(want) {
            assert!((level.t - want).abs() < 1e-3, "t: got {}, want {want}", level.t);
        }
        let sampler = Dpmpp2m { lower_order_final: true };
        check(&steps.to_string(), &sampler, &levels, golden.get(&format!("{steps}.x")), None, None, SINGLE);
    }
}

#[test]
fn masks() {
    let golden = golden("masks");
    let configs = config(&golden);
    let mask = InpaintMask { x0: golden.get("x0").shallow_clone(), mask: golden.get("mask").shallow_clone() };
    let masked = |sampler: &dyn Sampler,
                  total: usize,
                  levels: &[NoiseLevel],
                  observe: &mut dyn FnMut(SamplingStep)| {
        let denoiser = toy(total);
        let noise = &mut draws(golden.get("noise"));
        let run = SamplerRun {
            denoiser: &denoiser,
            levels,
            mask: Some(&mask),
            noise,
            ancestral: AncestralNoise::default(),
            observe,
            stop: None,
        };
        sampler.sample(golden.get("start").shallow_clone(), run)
    };
    let levels = schedule(&configs["ddim"]).noise_levels(&Spacing::Uniform, 20).unwrap();
    let samplers: [(&str, &dyn Sampler); 3] =
        [("ddim", &Ddim::new(0.).unwrap()), ("ddim_eta1", &Ddim::new(1.).unwrap()), ("plms", &Plms)];
    for (name, sampler) in samplers {
        // CompVis reports the sample before it blends in the mask, but x_0 after. PLMS' x_0 is of the extrapolated
        // noise, which no observer sees here.
        let clean = golden.get(&format!("{name}.x0"));
        let end = masked(sampler, 1000, &levels, &mut |step| {
            let index = step.index as i64;
            if name != "plms" {
                let what = format!("{name}, x0 of step {index}");
                assert_close(&what, &step.denoised.x0, &clean.get(index), SINGLE);
            }
        });
        assert_close(&format!("{name}, the end"), &end, golden.get(&format!("{name}.end")), SINGLE);
    }
    let schedule = schedule(&configs["ddpm"]);
    let levels = schedule.noise_levels(&Spacing::Leading, 20).unwrap();
    let want = golden.get("ddpm.x");
    let end = masked(&Ddpm::default(), 20, &levels, &mut |step| {
        let index = step.index as i64;
        assert_close(&format!("ddpm, x before step {index}"), step.x, &want.get(index), SINGLE);
    });
    assert_close("ddpm, the end", &end, &want.get(-1), SINGLE);
}

#[test]
fn encode_and_decode_from_the_middle() {
    let golden = golden("encode");
    let schedule = schedule(&config(&golden));
    let levels = schedule.noise_levels(&Spacing::Uniform, 20).unwrap();
    let x0 = golden.get("x0");
    for steps in [1, 8, 19] {
        let mut noise = Replay::new([golden.get("noise").shallow_clone()]);
        let (z, rest) = stochastic_encode(x0, &levels, steps, &mut noise);
        assert_eq!(rest.len(), steps + 1);
        assert_close("encoded", &z, golden.get(&format!("{steps}.encoded")), SINGLE);
        let decoded = run(&Ddim::new(0.).unwrap(), &toy(1000), z, rest, &mut Replay::default());
        assert_close("decoded", &decoded, golden.get(&format!("{steps}.decoded")), SINGLE);
    }
    // All steps, with which CompVis fails: noise of the first level.
    let mut noise = Replay::new([golden.get("noise").shallow_clone()]);
    let (z, rest) = stochastic_encode(x0, &levels, 20, &mut noise);
    assert_eq!(rest, levels);
    assert_close("encoded", &z, &(x0 * levels[0].alpha + golden.get("noise") * levels[0].sigma), 1e-6);
}

#[test]
fn noise_levels_of_k_diffusion() {
    let golden = golden("k_diffusion");
    let schedule = schedule(&config(&golden));
    let mut seen = 0;
    for (name, want) in golden.scope("noise_levels.") {
        let (spacing, steps) = name.split_once('.').unwrap();
        let levels = schedule.noise_levels(&spacing.parse().unwrap(), steps.parse().unwrap()).unwrap();
        let (end, visited) = levels.split_last().unwrap();
        assert_eq!(*end, NoiseLevel::CLEAN);
        let rows: [fn(NoiseLevel) -> f64; 2] = [NoiseLevel::noise_to_signal, |level| level.t];
        for (row, value) in rows.into_iter().enumerate() {
            let got: Vec<f64> = visited.iter().map(|level| value(*level)).collect();
            let got = Tensor::from_slice(&got).to_device(test_device());
            assert_close(&format!("{name}, row {row}"), &got, &want.get(row as i64), 1e-9);
        }
        seen += 1;
    }
    assert_eq!(seen, 15);
}

#[test]
fn samplers_of_k_diffusion() {
    let golden = golden("k_diffusion");
    let schedule = schedule(&config(&golden));
    let levels = schedule.noise_levels(&Spacing::Karras, 10).unwrap();
    let mut seen = 0;
    for (name, want) in golden.scope("") {
        let Some(name) = name.strip_suffix(".x") else { continue };
        let (sampler, eta) = match name.rsplit_once('_') {
            Some((sampler, "half")) => (sampler, Some(0.5)),
            Some((sampler, "zero")) => (sampler, Some(0.)),
            _ => (name, None),
        };
        let mut config: SamplerConfig = sampler.parse().unwrap();
        if let Some(eta) = eta {
            config = config.with_eta(eta).unwrap();
        }
        let sampler = config.build(&schedule).unwrap();
        let clean = golden.get(&format!("{name}.x0"));
        check(name, &*sampler, &levels, &want, Some(clean), Some(golden.get("noise")), DOUBLE);
        seen += 1;
    }
    assert_eq!(seen, 12);
}

#[test]
fn unipc() {
    let golden = golden("diffusers");
    let schedule = schedule(&config(&golden));
    let times = Vec::<f64>::try_from(golden.get("times")).unwrap();
    let clean = schedule.noise_levels(&Spacing::Explicit(times.clone()), times.len()).unwrap();
    let mut to_level_0 = clean.clone();
    *to_level_0.last_mut().unwrap() = schedule.level(0);
    for order in [1, 2, 3] {
        for (final_sigmas, levels) in [("zero", &clean), ("sigma_min", &to_level_0)] {
            let name = format!("unipc.{order}.{final_sigmas}");
            let sampler = UniPc::new(order, final_sigmas == "zero").unwrap();
            check(&name, &sampler, levels, golden.get(&name), None, None, DOUBLE);
        }
    }
}

#[test]
fn lcm() {
    let golden = golden("diffusers");
    let schedule = schedule(&config(&golden));
    for steps in [1, 4, 8] {
        let levels = schedule.noise_levels(&Spacing::Lcm, steps).unwrap();
        let times: Vec<f64> = levels[..steps].iter().map(|level| level.t).collect();
        assert_eq!(times, Vec::<f64>::try_from(golden.get(&format!("lcm.{steps}.t"))).unwrap());
        let name = format!("lcm.{steps}");
        check(&name, &Lcm, &levels, golden.get(&name), None, Some(golden.get("noise")), DOUBLE);
    }
}

#[test]
fn dynamic_thresholding() {
    let golden = golden("diffusers");
    let given = |x: &Tensor, _: NoiseLevel| Denoised { x0: x.shallow_clone(), eps: x.shallow_clone() };
    let thresholded = DynamicThresholding { denoiser: Box::new(given), ratio: 0.9, max: 1.7 };
    let x0 = golden.get("threshold.x0");
    let got = thresholded.denoise(x0, NoiseLevel::CLEAN);
    assert_close("x0", &got.x0, golden.get("threshold.held"), 1e-12);
    assert_close("the noise", &got.eps, x0, 0.);
}

#[test]
fn zero_terminal_snr_of_lin_et_al() {
    let golden = golden("diffusers");
    let config = config(&golden);
    let betas = schedule(&config).buffers().remove(0).1;
    let betas: Vec<f64> = betas.into_iter().map(f64::from).collect();
    let got = Tensor::from_slice(&zero_terminal_snr(&betas)).to_device(test_device());
    // The betas passed through f32 here.
    assert_close("betas", &got, golden.get("zero_terminal_snr"), 1e-6);
    let mut config = config;
    config["zero_terminal_snr"] = true.into();
    let schedule = schedule(&config);
    assert_eq!(schedule.level(999), NoiseLevel { t: 999., alpha: 0., sigma: 1. });
    // A solver over λ starts at a finite σ/α, as diffusers' do; DDIM at pure noise.
    let first = |sampler: SamplerConfig, spacing| sampler.plan(&schedule, &spacing, 10).unwrap().levels()[0];
    assert_eq!(first(SamplerConfig::Ddim { eta: 0. }, Spacing::Trailing).alpha, 0.);
    for spacing in [Spacing::Trailing, Spacing::Karras, Spacing::SgmUniform, Spacing::Linspace] {
        let level = first(SamplerConfig::Dpmpp2m { lower_order_final: false }, spacing);
        assert_eq!(level.t, 999.);
        assert!((level.alpha.powi(2) * 2_f64.powi(24) - 1.).abs() < 1e-6, "{level:?}");
    }
    assert!(SigmaTable::new(&schedule).level(100.).t < 999.);
}
