//! A model against CompVis' `LatentDiffusion` with the same weights: stages, and runs of DDIM and DDPM.
//!
//! `golden/generate.py` makes the files from the same config; both sides run in f32.

use ldm_core::device::test_device;
use ldm_core::noise::Replay;
use ldm_core::{Conditioning, Prompt};
use ldm_pipelines::{
    ClassifierFreeGuidance, Conditioned, LatentDiffusion, ModelConfig, ModelFile, Network, QuantizedDenoiser,
};
use ldm_schedulers::{
    AncestralNoise, Ddim, Denoiser, Sampler, SamplerConfig, SamplerRun, SamplingStep, Spacing,
};
use ldm_testing::{Golden, assert_close, fill_weights};
use tch::Tensor;

const CONFIG: &str = include_str!("../golden/class.yaml");
/// CompVis' `DDPM` of gray pixels.
const PIXELS: &str = include_str!("../golden/ddpm.yaml");
const TOLERANCE: f64 = 1e-5;
/// As in `generate.py`.
const SEED: u64 = 5;
const STEPS: usize = 20;
const SEEN: [usize; 6] = [0, 1, 4, 9, 14, 18];

fn model(overrides: &[&str]) -> LatentDiffusion {
    model_of(CONFIG, overrides)
}

fn model_of(config: &str, overrides: &[&str]) -> LatentDiffusion {
    let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
    let ModelConfig::LatentDiffusion(config) =
        ModelFile::parse(config, "model.yaml", &overrides).unwrap().model
    else {
        panic!("expected a diffusion model")
    };
    let model = LatentDiffusion::new(&config, None, test_device()).unwrap();
    fill_weights(model.vs(), SEED);
    model
}

fn golden(name: &str) -> Golden {
    let path = format!("{}/tests/golden/{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
    Golden::open(path, test_device())
}

fn class(model: &LatentDiffusion) -> Conditioning {
    tch::no_grad(|| model.conditioner.condition(&Prompt::class(&[3, 8]), false).unwrap())
}

#[test]
fn encoding_and_decoding_equal_the_reference() {
    let (model, golden) = (model(&[]), golden("stages"));
    let image = golden.get("image");
    let sampled = model.encode(image, &mut Replay::new([golden.get("noise").shallow_clone()]));
    assert_close("sampled", &sampled, golden.get("sampled"), TOLERANCE);
    let mode = tch::no_grad(|| model.first_stage.encode(image).mode()) * model.scale_factor;
    assert_close("mode", &mode, golden.get("mode"), TOLERANCE);
    assert_close("decoded", &model.decode(golden.get("sampled")), golden.get("decoded"), TOLERANCE);
}

#[test]
fn the_networks_prediction_equals_the_reference() {
    let (model, golden) = (model(&[]), golden("stages"));
    let prompt = Prompt { class: Some(golden.get("class").shallow_clone()), ..Prompt::default() };
    let prediction = tch::no_grad(|| {
        let cond = model.conditioner.condition(&prompt, false).unwrap();
        model.unet.forward(golden.get("x"), golden.get("t"), &cond, false)
    });
    assert_close("prediction", &prediction, golden.get("prediction"), TOLERANCE);
}

/// Samples from the recorded noise and compares some steps, the latents and the image.
#[track_caller]
fn check_run(
    model: &LatentDiffusion,
    golden: &Golden,
    denoiser: &dyn Denoiser,
    sampler: &dyn Sampler,
    spacing: &Spacing,
) {
    check_noisy_run(model, golden, denoiser, sampler, spacing, AncestralNoise::default());
}

#[track_caller]
fn check_noisy_run(
    model: &LatentDiffusion,
    golden: &Golden,
    denoiser: &dyn Denoiser,
    sampler: &dyn Sampler,
    spacing: &Spacing,
    ancestral: AncestralNoise,
) {
    let levels = model.schedule.noise_levels(spacing, STEPS).unwrap();
    assert_eq!(levels.len(), STEPS + 1);
    let recorded = if golden.has("noise") { golden.get("noise").unbind(0) } else { Vec::new() };
    let mut noise = Replay::new(recorded);
    let mut seen = Vec::new();
    let latents = tch::no_grad(|| {
        let observe: &mut dyn FnMut(SamplingStep) =
            &mut |step| seen.push((step.x.shallow_clone(), step.denoised.x0.shallow_clone()));
        let run = SamplerRun {
            denoiser,
            levels: &levels,
            mask: None,
            noise: &mut noise,
            ancestral,
            observe,
            stop: None,
        };
        sampler.sample(golden.get("x_T").shallow_clone(), run)
    });
    for step in SEEN {
        let (x, x0): &(Tensor, Tensor) = &seen[step];
        assert_close(&format!("x of step {step}"), x, golden.get(&format!("x.{step}")), TOLERANCE);
        let name = format!("x0.{step}");
        if golden.has(&name) {
            assert_close(&format!("x0 of step {step}"), x0, golden.get(&name), TOLERANCE);
        }
    }
    assert_close("latents", &latents, golden.get("latents"), TOLERANCE);
    if golden.has("decoded") {
        assert_close("decoded", &model.decode(&latents), golden.get("decoded"), TOLERANCE);
    }
}

#[track_caller]
fn check_ddim(eta: f64, name: &str) {
    let model = model(&[]);
    let uncond = tch::no_grad(|| model.conditioner.unconditional(2).unwrap());
    let guided = ClassifierFreeGuidance::new(
        Network::new(&model.unet, model.parameterization),
        &uncond,
        &class(&model),
        3.,
    );
    check_run(&model, &golden(name), &guided, &Ddim::new(eta).unwrap(), &Spacing::Uniform);
}

#[test]
fn guided_ddim_equals_the_reference() {
    check_ddim(0., "ddim");
}

#[test]
fn guided_ddim_with_noise_equals_the_reference() {
    check_ddim(1., "ddim_eta1");
}

#[test]
fn ddpm_over_all_timesteps_equals_the_reference() {
    let model = model(&["model.params.timesteps=20", "model.params.linear_end=0.195"]);
    let sampler = SamplerConfig::Ddpm {}.build(&model.schedule).unwrap();
    let unguided = Conditioned::new(Network::new(&model.unet, model.parameterization), &class(&model));
    check_run(&model, &golden("ddpm"), &unguided, &*sampler, &SamplerConfig::Ddpm {}.spacing());
}

/// CompVis' `DDPM`, whose predicted pixels are clipped.
#[test]
fn pixel_diffusion_equals_compvis() {
    let model = model_of(PIXELS, &[]);
    let sampler = SamplerConfig::Ddpm {}.build(&model.schedule).unwrap();
    let network = Network::new(&model.unet, model.parameterization);
    let clipped = model.thresholding().expect("clip_denoised is true by default");
    let denoiser = clipped.apply(Box::new(Conditioned::new(network, &Conditioning::default())));
    check_run(&model, &golden("ddpm_pixels"), &*denoiser, &*sampler, &SamplerConfig::Ddpm {}.spacing());
}

/// DDIM on a VQ first stage with quantized clean samples, temperature 0.7 and noise dropout 0.3.
#[test]
fn quantized_ddim_with_temperature_and_dropout_equals_compvis() {
    let first = "model.params.first_stage_config";
    let model = model(&[
        "model.params.scale_factor=1",
        &format!("{first}.target=vq"),
        &format!("{first}.params.n_embed=64"),
        &format!("{first}.params.ddconfig.double_z=false"),
    ]);
    let golden = golden("ddim_quantized");
    let codebook = "first_stage_model.quantize.embedding.weight";
    tch::no_grad(|| model.vs().variables().get_mut(codebook).unwrap().copy_(golden.get("codebook")));
    let network = Network::new(&model.unet, model.parameterization);
    let denoiser =
        QuantizedDenoiser::new(Box::new(Conditioned::new(network, &class(&model))), &model).unwrap();
    let ancestral = AncestralNoise { temperature: 0.7, dropout: 0.3 };
    let sampler = Ddim::new(1.).unwrap();
    check_noisy_run(&model, &golden, &denoiser, &sampler, &Spacing::Uniform, ancestral);
}
