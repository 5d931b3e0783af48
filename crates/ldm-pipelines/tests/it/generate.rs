//! A tiny model: samples depend on seeds and prompts only; saved models load strictly.

use std::collections::BTreeMap;

use ldm_checkpoint::Checkpoint;
use ldm_core::device::test_device;
use ldm_core::noise::Seeded;
use ldm_core::{NoiseSource, Prompt};
use ldm_pipelines::{
    ClassifierFreeGuidance, GenerateRequest, Guidance, LatentDiffusion, LatentDiffusionConfig, LoadOptions,
    Model, ModelConfig, ModelFile, Network, Sampling, SamplingOptions, generate,
};
use ldm_schedulers::{Denoised, Denoiser, NoiseLevel, SamplerConfig};
use ldm_testing::{assert_close, fill_weights, relative_l2};
use tch::{Kind, Tensor};

const TINY: &str = include_str!("../tiny.yaml");

fn config() -> LatentDiffusionConfig {
    match ModelFile::parse(TINY, "tiny.yaml", &[]).unwrap().model {
        ModelConfig::LatentDiffusion(config) => *config,
        other => panic!("{other:?}"),
    }
}

fn model() -> LatentDiffusion {
    let model = LatentDiffusion::new(&config(), None, test_device()).unwrap();
    fill_weights(model.vs(), 1);
    model
}

fn sampling(sampler: SamplerConfig, steps: usize, guidance_scale: f64) -> Sampling {
    Sampling { guidance: guidance_scale.into(), ..Sampling::new(sampler, steps) }
}

fn load_options(ema: bool, kind: Kind) -> LoadOptions {
    LoadOptions { ema, kind, ..LoadOptions::new(test_device()) }
}

const DDIM: SamplerConfig = SamplerConfig::Ddim { eta: 0. };

#[test]
fn an_image_does_not_depend_on_its_batch() {
    let model = model();
    for sampler in SamplerConfig::all().chain([SamplerConfig::Ddim { eta: 1. }]) {
        let how = sampling(sampler, 5, 3.);
        let all = generate(
            &model,
            &GenerateRequest::new(&Prompt::class(&[1, 2, 3]), &[7, 8, 9], &how),
            &mut |_| {},
        )
        .unwrap();
        let one =
            generate(&model, &GenerateRequest::new(&Prompt::class(&[2]), &[8], &how), &mut |_| {}).unwrap();
        assert_close("latents", &one.latents, &all.latents.narrow(0, 1, 1), 1e-5);
        // From the same latents: a decoder with random weights amplifies the rounding of different ones.
        let decoded = model.decode(&all.latents.narrow(0, 1, 1));
        assert_close("images", &decoded, &all.images.narrow(0, 1, 1), 1e-5);
        assert!(relative_l2(&all.latents.get(0), &all.latents.get(1)) > 0.1);
    }
}

#[test]
fn deep_features_are_reused_between_steps() {
    let model = model();
    let (prompt, seeds) = (Prompt::class(&[1, 2]), [7, 8]);
    let run = |how: &Sampling| generate(&model, &GenerateRequest::new(&prompt, &seeds, how), &mut |_| {});
    let full = sampling(DDIM, 6, 3.);
    let reusing = |cache: &str| Sampling { deep_cache: Some(cache.parse().unwrap()), ..full.clone() };
    let want = run(&full).unwrap().latents;
    let distances = ["2:1", "6:1"].map(|cache| relative_l2(&run(&reusing(cache)).unwrap().latents, &want));
    assert!(0. < distances[0] && distances[0] < distances[1], "{distances:?}");
    // One step evaluates the network once.
    let one = Sampling { steps: 1, ..reusing("2:1") };
    let want = run(&Sampling { steps: 1, ..full.clone() }).unwrap().latents;
    assert_eq!(run(&one).unwrap().latents, want);

    let error = run(&reusing("2:99")).unwrap_err().to_string();
    assert!(error.starts_with("deep cache: expected a depth of 1 to "), "{error}");
    let error = run(&Sampling { tile: Some(16), ..reusing("2") }).unwrap_err().to_string();
    assert!(error.starts_with("deep cache: expected no tiles"), "{error}");
}

#[test]
fn more_merged_tokens_are_further_from_the_full_run() {
    let model = model();
    let (prompt, seeds) = (Prompt::class(&[1, 2]), [7, 8]);
    let run = |token_merging| {
        let how = Sampling { token_merging, ..sampling(DDIM, 6, 3.) };
        generate(&model, &GenerateRequest::new(&prompt, &seeds, &how), &mut |_| {})
    };
    let want = run(0.).unwrap().latents;
    let distances = [0.1, 0.7].map(|share| relative_l2(&run(share).unwrap().latents, &want));
    assert!(0. < distances[0] && distances[0] < distances[1], "{distances:?}");
    for share in [1., -0.5, f64::NAN] {
        let error = run(share).unwrap_err().to_string();
        assert!(error.starts_with("token merging: expected a share from 0 to below 1"), "{error}");
    }
}

#[test]
fn fast_sampling_changes_defaults_only() {
    let model = model();
    let resolve = |options: SamplingOptions| options.fast().resolve(&model, &mut |_| {}).unwrap();
    let fast = resolve(SamplingOptions::default());
    assert_eq!((fast.sampler.name(), fast.steps), ("dpmpp_2m", 20));
    assert_eq!(fast.deep_cache, Some("2".parse().unwrap()));
    let own = SamplingOptions {
        sampler: Some(DDIM),
        spacing: Some("999,500,1".parse().unwrap()),
        deep_cache: Some("3:1".parse().unwrap()),
        ..SamplingOptions::default()
    };
    let own = resolve(own);
    assert_eq!((own.sampler, own.steps, own.deep_cache), (DDIM, 3, Some("3:1".parse().unwrap())));
}

#[test]
fn an_image_does_not_depend_on_the_number_of_threads() {
    let model = model();
    let before = ldm_libtorch::threads();
    for sampler in [DDIM, SamplerConfig::Ddim { eta: 1. }, "dpmpp_2m_sde".parse().unwrap()] {
        let how = Sampling { size: Some([32, 48]), ..sampling(sampler, 10, 3.) };
        let [one, four] = [1, 4].map(|threads| {
            ldm_libtorch::set_threads(threads);
            let made =
                generate(&model, &GenerateRequest::new(&Prompt::class(&[1, 2]), &[7, 8], &how), &mut |_| {});
            made.unwrap().latents
        });
        assert_close("latents", &four, &one, 1e-5);
    }
    ldm_libtorch::set_threads(before);
}

#[test]
fn guidance_is_that_of_ho_and_salimans() {
    let model = model();
    let (x, cond) = {
        let x = Seeded::new([3, 4]).like(&Tensor::zeros([2, 4, 8, 8], (Kind::Float, test_device())));
        (x, model.conditioner.condition(&Prompt::class(&[1, 5]), false).unwrap())
    };
    let uncond = model.conditioner.unconditional(2).unwrap();
    let at = model.schedule.level(400);
    let eps = |cond: &ldm_core::Conditioning| {
        let t = Tensor::full([2], 400., (Kind::Float, test_device()));
        tch::no_grad(|| model.unet.forward(&x, &t, cond, false))
    };
    let want = eps(&uncond) + (eps(&cond) - eps(&uncond)) * 2.5;
    let guided =
        ClassifierFreeGuidance::new(Network::new(&model.unet, model.parameterization), &uncond, &cond, 2.5);
    let got: Denoised = tch::no_grad(|| guided.denoise(&x, at));
    assert_close("eps", &got.eps, &want, 1e-5);
    let NoiseLevel { alpha, sigma, .. } = at;
    assert_close("x0", &got.x0, &((&x - &want * sigma) / alpha), 1e-5);
}

#[test]
fn guidance_is_rescaled_and_limited_to_its_interval() {
    let model = model();
    let x = Seeded::new([3, 4]).like(&Tensor::zeros([2, 4, 8, 8], (Kind::Float, test_device())));
    let cond = model.conditioner.condition(&Prompt::class(&[1, 5]), false).unwrap();
    let uncond = model.conditioner.unconditional(2).unwrap();
    let eps = |guidance: Guidance, t: usize| {
        let guided = ClassifierFreeGuidance::new(
            Network::new(&model.unet, model.parameterization),
            &uncond,
            &cond,
            guidance,
        );
        tch::no_grad(|| guided.denoise(&x, model.schedule.level(t)).eps)
    };
    let (plain, cond_eps) = (eps(6.0.into(), 400), eps(1.0.into(), 400));
    // Lin et al. 2023, eq. 15 and 16, sample by sample.
    let rescaled = eps(Guidance { rescale: 0.7, ..6.0.into() }, 400);
    for sample in 0..2 {
        let [plain, cond_eps, got] = [&plain, &cond_eps, &rescaled].map(|eps| eps.get(sample));
        let whole = &plain * (cond_eps.std(true) / plain.std(true));
        assert_close("rescaled", &got, &(whole * 0.7 + &plain * 0.3), 1e-5);
        assert!(relative_l2(&got, &plain) > 1e-4, "the deviations differ");
    }
    let ratio = model.schedule.level(400).noise_to_signal();
    let within = |interval| Guidance { interval, ..6.0.into() };
    assert_close("inside", &eps(within([0., ratio]), 400), &plain, 1e-5);
    assert_close("below", &eps(within([ratio, 1e9]), 400), &cond_eps, 1e-5);
    assert_close("above", &eps(within([0., 0.99 * ratio]), 400), &cond_eps, 1e-5);
}

#[test]
fn sampling_starts_from_the_given_noise() {
    let model = model();
    let how = sampling(DDIM, 4, 1.);
    let noise = Seeded::new([5]).like(&Tensor::zeros([1, 4, 8, 8], (Kind::Float, test_device())));
    let seeded =
        generate(&model, &GenerateRequest::new(&Prompt::class(&[1]), &[5], &how), &mut |_| {}).unwrap();
    let given = generate(
        &model,
        &GenerateRequest::new(&Prompt::class(&[1]), &[999], &how).init(Some(&noise)),
        &mut |_| {},
    )
    .unwrap();
    assert_eq!(seeded.latents, given.latents);
    let wrong = generate(
        &model,
        &GenerateRequest::new(&Prompt::class(&[1]), &[5], &how).init(Some(&noise.narrow(1, 0, 3))),
        &mut |_| {},
    );
    assert!(
        wrong.unwrap_err().to_string().contains("init noise: expected shape [1, 4, 8, 8], got [1, 3, 8, 8]")
    );
}

#[test]
fn valid_sizes_are_sampled_and_others_are_refused() {
    let model = model();
    let how = |size| Sampling { size: Some(size), ..sampling(DDIM, 2, 1.) };
    let made =
        generate(&model, &GenerateRequest::new(&Prompt::class(&[1]), &[0], &how([24, 32])), &mut |_| {})
            .unwrap();
    assert_eq!(made.images.size(), [1, 3, 24, 32]);
    assert_eq!(made.latents.size(), [1, 4, 12, 16]);
    let refused =
        generate(&model, &GenerateRequest::new(&Prompt::class(&[1]), &[0], &how([30, 32])), &mut |_| {})
            .unwrap_err();
    assert!(refused.to_string().contains("multiples of 4 (nearest: 28 and 32), got 30"), "{refused}");
    let refused =
        generate(&model, &GenerateRequest::new(&Prompt::default(), &[0], &how([16, 16])), &mut |_| {})
            .unwrap_err();
    assert!(refused.to_string().contains("conditioned on"), "{refused}");
}

#[test]
fn latents_are_scaled_after_encoding_and_before_decoding() {
    let model = model();
    let image = Seeded::new([1]).like(&Tensor::zeros([1, 3, 16, 16], (Kind::Float, test_device()))).tanh();
    let z = model.encode(&image, &mut Seeded::new([2]));
    let unscaled = tch::no_grad(|| model.first_stage.encode(&image).mode());
    assert_close("encode", &z, &(&unscaled * 0.5), 1e-6);
    assert_close("decode", &model.decode(&z), &tch::no_grad(|| model.first_stage.decode(&unscaled)), 1e-5);
}

#[test]
fn a_saved_model_loads_with_ema_weights_and_class_names() {
    let model = model();
    let folder = tempfile::tempdir().unwrap();
    let mut tensors: Vec<(String, Tensor)> = model.vs().variables().into_iter().collect();
    // CompVis' EMA weights have the U-Net's names without dots.
    let ema_weights: Vec<(String, Tensor)> = tensors
        .iter()
        .filter(|(name, _)| name.starts_with("model."))
        .map(|(name, tensor)| {
            (
                format!("model_ema.{}", name.trim_start_matches("model.").replace('.', "")),
                tensor.detach() * 2.,
            )
        })
        .collect();
    tensors.extend(ema_weights);
    let buffers = model.schedule.buffers().into_iter();
    tensors.extend(buffers.map(|(name, values)| (name.to_owned(), Tensor::from_slice(&values))));
    let metadata = BTreeMap::from([("classes".to_owned(), "[\"cat\",\"dog\"]".to_owned())]);
    let path = folder.path().join("model.safetensors");
    ldm_checkpoint::save(&path, &tensors, &metadata).unwrap();
    std::fs::write(folder.path().join("config.yaml"), TINY).unwrap();

    for (ema, factor) in [(false, 1.), (true, 2.)] {
        let Model::Diffusion(loaded) =
            Model::open(folder.path(), &load_options(ema, Kind::Float), &mut |_| {}).unwrap()
        else {
            panic!("a diffusion model")
        };
        assert_eq!(loaded.classes, ["cat", "dog"]);
        let name = "model.diffusion_model.input_blocks.0.0.weight";
        let (saved, got) = (&model.vs().variables()[name], &loaded.vs().variables()[name]);
        assert_close(name, got, &(saved * factor), 1e-7);
    }

    let half = Model::open(folder.path(), &load_options(false, Kind::BFloat16), &mut |_| {}).unwrap();
    assert!(half.vs().variables().values().all(|tensor| tensor.kind() == Kind::BFloat16));

    let without = Checkpoint::open(&path).unwrap().without(&["model.diffusion_model.out.2.bias"]);
    let error = LatentDiffusion::load(&config(), without, None, &load_options(false, Kind::Float))
        .unwrap_err()
        .to_string();
    assert!(error.contains("1 missing: model.diffusion_model.out.2.bias"), "{error}");
}

#[test]
fn invalid_configs_are_refused_by_key() {
    #[track_caller]
    fn check(overrides: &[&str], expected: &str) {
        let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
        let error = ModelFile::parse(TINY, "tiny.yaml", &overrides)
            .and_then(|file| match file.model {
                ModelConfig::LatentDiffusion(config) => {
                    LatentDiffusion::new(&config, None, test_device()).map(|_| ())
                }
                _ => panic!("a diffusion model"),
            })
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected) && !error.contains('\n'), "{error}");
    }
    check(&["model.params.unet_config.params.num_res_blockz=1"], "unknown field `num_res_blockz`");
    check(&["model.params.num_timesteps_cond=0"], "num_timesteps_cond");
    check(&["model.params.use_positional_encodings=true"], "use_positional_encodings");
    check(&["model.params.logvar_init=.inf"], "logvar_init");
    check(&["model.params.clip_denoised=true"], "clip_denoised");
    check(&["model.params.scale_by_std=true"], "scale_by_std");
    check(&["model.params.scale_factor=-1"], "scale_factor: expected a positive number");
    check(
        &["model.params.conditioning_key=concat"],
        "cond_stage_config: expected one that outputs a feature map for `concat`",
    );
    check(
        &["model.params.conditioning_key=hybrid"],
        "expected the latent's 4 channels and the 5 of cond_stage_config, 9, got 4",
    );
    check(
        &["model.params.conditioning_key=adm"],
        "context_dim: expected none, the width of the conditioner, got 16",
    );
    check(
        &["model.params.unet_config.params.num_classes=3"],
        "num_classes: expected none without `conditioning_key: adm`, got 3",
    );
    check(
        &["model.params.cond_stage_config=__is_first_stage__"],
        "cond_stage_config: expected one that outputs tokens for `crossattn`",
    );
    check(
        &["model.params.cond_stage_config={target: spatial}"],
        "cond_stage_config: expected one that outputs tokens for `crossattn`",
    );
    check(
        &["model.target=ldm.models.diffusion.ddpm.Layout2ImgDiffusion"],
        "cond_stage_key: expected coordinates_bbox for Layout2ImgDiffusion, got ",
    );
    check(
        &["model.target=ldm.models.diffusion.ddpm.LatentInpaintDiffusion"],
        "conditioning_key: expected hybrid for LatentInpaintDiffusion, got crossattn",
    );
    check(&["model.params.concat_keys=[lr]"], "unknown variant `lr`, expected `mask` or `masked_image`");
    check(&["model.params.personalization_config={}"], "unknown field `personalization_config`");
    check(
        &["model.params.scale_concat=true"],
        "scale_concat: expected false, since no latent of the first stage is concatenated, got true",
    );
    check(&["model.params.channels=3"], "channels: expected 4, those of the first stage's latents, got 3");
    check(&["model.params.unet_config.params.in_channels=7"], "in_channels");
    check(
        &["model.params.unet_config.params.context_dim=8"],
        "context_dim: expected 16, the width of the conditioner, got 8",
    );
    check(&["model.params.image_size=7"], "7");
    check(&["model.lr=1"], "unknown field `lr`");
    check(&["modle=1"], "unknown field `modle`");
    let error = ModelFile::parse(
        &TINY.replace("timesteps", "timestepz").replace("image_size", "image_sise"),
        "tiny.yaml",
        &[],
    );
    let error = error.unwrap_err().to_string();
    assert!(error.contains("image_sise") && error.contains("at line"), "{error}");
}
