//! Initial images, masks and variations.

use ldm_core::device::test_device;
use ldm_core::noise::Seeded;
use ldm_core::{NoiseSource, Prompt};
use ldm_pipelines::{
    GenerateRequest, Init, InitImage, LatentDiffusion, ModelConfig, ModelFile, Sampling, Variation, generate,
};
use ldm_schedulers::{SamplerConfig, Spacing};
use ldm_testing::{assert_close, fill_weights};
use tch::{Kind, Tensor};

const DDIM: SamplerConfig = SamplerConfig::Ddim { eta: 0. };

fn model() -> LatentDiffusion {
    let ModelConfig::LatentDiffusion(config) =
        ModelFile::parse(include_str!("../tiny.yaml"), "tiny.yaml", &[]).unwrap().model
    else {
        panic!("tiny.yaml is a diffusion model")
    };
    let model = LatentDiffusion::new(&config, None, test_device()).unwrap();
    fill_weights(model.vs(), 1);
    model
}

fn sampling(sampler: SamplerConfig, spacing: Spacing) -> Sampling {
    Sampling { spacing, ..Sampling::new(sampler, 10) }
}

fn image() -> Tensor {
    Seeded::new([1]).like(&Tensor::zeros([1, 3, 16, 16], (Kind::Float, test_device()))).tanh()
}

/// Samples from an initial image; returns the visited timesteps, the sample of each, and the result.
fn run(model: &LatentDiffusion, init: &InitImage, how: &Sampling) -> (Vec<f64>, Vec<Tensor>, [Tensor; 2]) {
    let (mut visited, mut samples) = (Vec::new(), Vec::new());
    let made = generate(
        model,
        &GenerateRequest::new(&Prompt::class(&[1, 1]), &[3, 4], how).init(Init::Image(init)),
        &mut |step| {
            visited.push(step.level.t);
            samples.push(step.x.copy());
        },
    );
    let made = made.unwrap();
    (visited, samples, [made.latents, made.images])
}

/// The expected first sample: the seeds draw the posterior and then the noise.
fn noised(model: &LatentDiffusion, t: usize) -> Tensor {
    let mut noise = Seeded::new([3, 4]);
    let z = model.encode(&image().expand([2, -1, -1, -1], false), &mut noise);
    let at = model.schedule.level(t);
    &z * at.alpha + noise.like(&z) * at.sigma
}

#[test]
fn strength_selects_steps_as_in_the_reference() {
    let model = model();
    let how = sampling(DDIM, Spacing::Uniform);
    // int(0.79 * 10) = 7 steps, from ddim_timesteps[6] on; the noise is that of ddim_timesteps[7].
    let (visited, samples, _) = run(&model, &InitImage::new(image(), 0.79, None).unwrap(), &how);
    assert_eq!(visited, [601., 501., 401., 301., 201., 101., 1.]);
    assert_close("x", &samples[0], &noised(&model, 701), 1e-6);
    // Here CompVis' index is out of range.
    let (visited, samples, _) = run(&model, &InitImage::new(image(), 1., None).unwrap(), &how);
    assert_eq!((visited.len(), visited[0]), (10, 901.));
    assert_close("x", &samples[0], &noised(&model, 901), 1e-6);
    let (visited, _, [latents, images]) = run(&model, &InitImage::new(image(), 0., None).unwrap(), &how);
    assert!(visited.is_empty());
    let z = model.encode(&image().expand([2, -1, -1, -1], false), &mut Seeded::new([3, 4]));
    assert_close("latents", &latents, &z, 1e-6);
    assert_close("images", &images, &model.decode(&z), 1e-6);
}

#[test]
fn with_other_spacings_the_noise_is_that_of_the_first_level() {
    let model = model();
    for sampler in SamplerConfig::all() {
        let how = sampling(sampler, Spacing::Leading);
        let (visited, samples, _) = run(&model, &InitImage::new(image(), 0.5, None).unwrap(), &how);
        assert_eq!(visited, [400., 300., 200., 100., 0.], "{}", sampler.name());
        assert_close("x", &samples[0], &noised(&model, 400), 1e-6);
    }
}

#[test]
fn unmasked_latents_are_preserved() {
    let model = model();
    let fill = Tensor::zeros([1, 1, 16, 16], (Kind::Float, test_device()));
    let _ = fill.narrow(2, 3, 4).narrow(3, 8, 5).fill_(1.); // rows 3 to 6, columns 8 to 12: latents 1 to 3, 4 to 6
    let filled = Tensor::zeros([1, 1, 8, 8], (Kind::Bool, test_device()));
    let _ = filled.narrow(2, 1, 3).narrow(3, 4, 3).fill_(1);
    let init = InitImage::new(image(), 1., Some(fill)).unwrap();
    let z = model.encode(&image().expand([2, -1, -1, -1], false), &mut Seeded::new([3, 4]));
    let free = InitImage::new(image(), 1., None).unwrap();
    for sampler in [DDIM, SamplerConfig::Plms {}, SamplerConfig::Euler {}] {
        let how = sampling(sampler, Spacing::Uniform);
        let (_, samples, _) = run(&model, &init, &how);
        let (_, without, _) = run(&model, &free, &how);
        let at = model.schedule.level(1);
        let far = |x: &Tensor, part: &Tensor| {
            ((x - &z * at.alpha).abs().masked_fill(part, 0.).max() / at.sigma).double_value(&[])
        };
        // None of 384 draws is five standard deviations away; without a mask latents are anywhere.
        assert!(far(&samples[9], &filled) < 5., "{}: {}", sampler.name(), far(&samples[9], &filled));
        assert!(far(&without[9], &filled) > 10.);
        assert!(far(&samples[9], &filled.logical_not()) > 10., "masked latents are sampled");
    }
}

#[test]
fn invalid_strengths_and_sizes_are_refused() {
    let error = |strength, fill: Option<[i64; 4]>| {
        let fill = fill.map(|size| Tensor::zeros(size, (Kind::Float, test_device())));
        InitImage::new(image(), strength, fill).unwrap_err().to_string()
    };
    for strength in [-0.1, 1.1, f64::NAN] {
        assert_eq!(error(strength, None), format!("strength: expected a number in [0, 1], got {strength}"));
    }
    assert!(error(1., Some([1, 1, 16, 8])).contains("[1, 1, 16, 16], the image's"));
    let model = model();
    let init = InitImage::new(image(), 1., None).unwrap();
    let how = Sampling { size: Some([32, 16]), ..sampling(DDIM, Spacing::Uniform) };
    let made = generate(
        &model,
        &GenerateRequest::new(&Prompt::class(&[1]), &[3], &how).init(Init::Image(&init)),
        &mut |_| {},
    )
    .unwrap_err();
    let expected = "height and width: expected 16 x 16, the size of the initial image, got 32 x 16";
    assert_eq!(made.to_string(), expected);
}

#[test]
fn variations_interpolate_between_two_seeds() {
    let model = model();
    for sampler in [DDIM, SamplerConfig::Ddim { eta: 1. }] {
        let how = sampling(sampler, Spacing::Uniform);
        let prompt = Prompt::class(&[1, 1]);
        let made = |init: Init| {
            let mut first = None;
            let made =
                generate(&model, &GenerateRequest::new(&prompt, &[3, 4], &how).init(init), &mut |step| {
                    first.get_or_insert_with(|| step.x.copy());
                });
            (first.unwrap(), made.unwrap().images)
        };
        let between = |strengths: [f64; 2]| {
            made(Init::Between(&Variation { seeds: vec![8, 9], strengths: strengths.into() }))
        };
        let [own, none] = [made(Init::Seeds), between([0., 0.])];
        assert_close("strength 0", &none.0, &own.0, 1e-6);
        assert_close("strength 0", &none.1, &own.1, 1e-5);
        let all = Seeded::new([8, 9]).like(&own.0);
        assert_close("all", &between([1., 1.]).0, &all, 1e-6);
        // The midpoint has the norm of noise, where the mean of both would be shorter by √2.
        let half = between([0.5, 0.25]).0;
        let length = |x: &Tensor| x.get(0).square().mean(Kind::Double).double_value(&[]);
        assert!((length(&half) / f64::midpoint(length(&own.0), length(&all)) - 1.).abs() < 0.1);
        let toward = |strength: f64| (&own.0 * (1. - strength) + &all * strength).get(0);
        let cosine =
            |a: &Tensor, b: &Tensor| Tensor::cosine_similarity(&a.flatten(0, -1), &b.flatten(0, -1), 0, 1e-8);
        assert!(cosine(&half.get(0), &toward(0.5)).double_value(&[]) > 0.9999);
    }
    let how = sampling(DDIM, Spacing::Uniform);
    let short = Variation { seeds: vec![8], strengths: vec![0.5] };
    let error = generate(
        &model,
        &GenerateRequest::new(&Prompt::class(&[1, 1]), &[3, 4], &how).init(Init::Between(&short)),
        &mut |_| {},
    );
    let error = error.unwrap_err().to_string();
    assert_eq!(error, "variation: expected shape 2 seeds and strengths, one per image, got [1, 1]");
}
