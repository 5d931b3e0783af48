//! Classifier guidance against closed forms, and with a tiny classifier of a tiny model's latents.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ldm_checkpoint::Checkpoint;
use ldm_core::Prompt;
use ldm_core::device::test_device;
use ldm_pipelines::{
    Classifier, ClassifierGuidance, GenerateRequest, GuidingClassifier, LatentDiffusion, LoadOptions, Model,
    ModelConfig, ModelFile, Sampling, generate,
};
use ldm_schedulers::{
    Denoised, Denoiser, NoiseLevel, NoiseSchedule, Parameterization, SamplerConfig, ScheduleConfig,
};
use ldm_testing::{assert_close, fill_weights, relative_l2};
use ldm_unet::EncoderUNet;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

pub(crate) const TINY: &str = include_str!("../tiny.yaml");

/// An exported classifier of the tiny model's latents.
const CLASSIFIER: &str = "
model:
  target: noisy_latent_classifier
  params:
    num_classes: 3
    classifier_config: {image_size: 8, in_channels: 4, out_channels: 3, model_channels: 32, num_res_blocks: 1,
                        attention_resolutions: [2], channel_mult: [1, 2], num_head_channels: 16, use_checkpoint: true,
                        pool: attention}
";

// ---- Closed forms --------------------------------------------------------------------------------------------------

/// Two classes of equal probability, each Gaussian: everything has a closed form.
struct Gaussians {
    means: [Tensor; 2],
    std: f64,
}

impl Gaussians {
    fn new() -> Self {
        let mean =
            |shift: f64| (Tensor::arange(8, (Kind::Double, Device::Cpu)) * 0.3 + shift).sin().view([2, 2, 2]);
        Self { means: [mean(0.), mean(2.)], std: 0.4 }
    }

    /// log p(x_t | y) up to a constant, `[B]`.
    fn log_density(&self, x: &Tensor, class: usize, at: NoiseLevel) -> Tensor {
        let variance = at.alpha_bar() * self.std * self.std + at.sigma * at.sigma;
        let off = x - &self.means[class] * at.alpha;
        off.square().sum_dim_intlist([1_i64, 2, 3].as_slice(), false, Kind::Double) / (-2. * variance)
    }

    /// log p(y | x_t), by Bayes.
    fn log_probability(&self, x: &Tensor, class: usize, at: NoiseLevel) -> Tensor {
        let both = [0, 1].map(|class| self.log_density(x, class, at));
        both[class].shallow_clone() - Tensor::stack(&both, 0).logsumexp([0_i64].as_slice(), false)
    }

    /// E[x_0 | x_t, y] and E[ε | x_t, y].
    fn conditional(&self, x: &Tensor, class: usize, at: NoiseLevel) -> Denoised {
        let variance = at.alpha_bar() * self.std * self.std + at.sigma * at.sigma;
        let off = x - &self.means[class] * at.alpha;
        let x0 = &self.means[class] + &off * (at.alpha * self.std * self.std / variance);
        Denoised { x0, eps: off * (at.sigma / variance) }
    }

    /// E[· | x_t]: the mean over the classes.
    fn denoise(&self, x: &Tensor, at: NoiseLevel) -> Denoised {
        let [one, other] = [0, 1].map(|class| self.conditional(x, class, at));
        let share = tch::no_grad(|| self.log_probability(x, 1, at)).exp().view([-1, 1, 1, 1]);
        Denoised {
            x0: &one.x0 + (other.x0 - &one.x0) * &share,
            eps: &one.eps + (other.eps - &one.eps) * share,
        }
    }
}

fn schedule() -> NoiseSchedule {
    NoiseSchedule::new(&ScheduleConfig::default()).unwrap()
}

/// x_t, `[3, 2, 2, 2]`.
fn noisy() -> Tensor {
    (Tensor::arange(24, (Kind::Double, Device::Cpu)) * 12.9898).sin().view([3, 2, 2, 2])
}

#[test]
fn guidance_by_an_exact_classifier_gives_the_conditional_denoiser() {
    let (known, x) = (Gaussians::new(), noisy());
    let denoiser = |x: &Tensor, at: NoiseLevel| known.denoise(x, at);
    for t in [0, 100, 500, 999] {
        let at = schedule().level(t);
        for class in [0, 1] {
            let log_probability = |x: &Tensor, at: NoiseLevel| known.log_probability(x, class, at);
            let (all, cond) = (known.denoise(&x, at), known.conditional(&x, class, at));
            assert!(t == 999 || relative_l2(&all.eps, &cond.eps) > 1e-3, "the class matters");
            for scale in [1., 2.5, -1.] {
                let guided = ClassifierGuidance {
                    denoiser: Box::new(&denoiser),
                    log_probability: Box::new(log_probability),
                    scale,
                };
                let got = tch::no_grad(|| guided.denoise(&x, at));
                let toward = |from: &Tensor, to: &Tensor| from + (to - from) * scale;
                assert_close("eps", &got.eps, &toward(&all.eps, &cond.eps), 1e-9);
                assert_close("x0", &got.x0, &toward(&all.x0, &cond.x0), 1e-9);
            }
        }
    }
}

#[test]
fn guidance_preserves_x_for_every_parameterization() {
    let known = Gaussians::new();
    let log_probability = |x: &Tensor, at: NoiseLevel| known.log_probability(x, 1, at);
    let (x, at) = (noisy(), schedule().level(600));
    for parameterization in [Parameterization::Eps, Parameterization::X0, Parameterization::V] {
        let denoiser = |x: &Tensor, at: NoiseLevel| parameterization.to_denoised(x.cos(), x, at);
        let guided = ClassifierGuidance {
            denoiser: Box::new(&denoiser),
            log_probability: Box::new(log_probability),
            scale: 3.,
        };
        let (plain, got) = (denoiser(&x, at), guided.denoise(&x, at));
        assert!(relative_l2(&got.eps, &plain.eps) > 1e-2, "guided");
        assert_close("x", &(&got.x0 * at.alpha + &got.eps * at.sigma), &x, 1e-12);
    }
}

#[test]
fn the_classifier_is_not_evaluated_at_scale_0_or_in_pure_noise() {
    let denoiser = |x: &Tensor, at: NoiseLevel| Parameterization::V.to_denoised(x.cos(), x, at);
    let never = |_: &Tensor, _: NoiseLevel| -> Tensor { panic!("evaluated") };
    let pure = NoiseLevel { t: 999., alpha: 0., sigma: 1. };
    for (scale, at) in [(0., schedule().level(300)), (2., pure)] {
        let guided =
            ClassifierGuidance { denoiser: Box::new(&denoiser), log_probability: Box::new(never), scale };
        let (x, plain) = (noisy(), denoiser(&noisy(), at));
        let got = guided.denoise(&x, at);
        assert_eq!((&got.x0, &got.eps), (&plain.x0, &plain.eps));
    }
}

#[test]
#[should_panic(expected = "must be differentiable")]
fn a_classifier_without_gradients_is_a_bug() {
    let denoiser = |x: &Tensor, at: NoiseLevel| Parameterization::V.to_denoised(x.cos(), x, at);
    let log_probability = |x: &Tensor, _: NoiseLevel| x.detach().sum(Kind::Double);
    let guided = ClassifierGuidance {
        denoiser: Box::new(&denoiser),
        log_probability: Box::new(log_probability),
        scale: 1.,
    };
    guided.denoise(&noisy(), schedule().level(300));
}

// ---- A tiny classifier ---------------------------------------------------------------------------------------------

pub(crate) fn diffusion(overrides: &[&str]) -> LatentDiffusion {
    let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
    let ModelConfig::LatentDiffusion(config) = ModelFile::parse(TINY, "tiny.yaml", &overrides).unwrap().model
    else {
        panic!("a diffusion model")
    };
    let model = LatentDiffusion::new(&config, None, test_device()).unwrap();
    fill_weights(model.vs(), 1);
    model
}

/// Overrides for an unconditional model.
const UNCONDITIONAL: [&str; 4] = [
    "model.params.cond_stage_config=__is_unconditional__",
    "model.params.conditioning_key=null",
    "model.params.unet_config.params.context_dim=null",
    "model.params.unet_config.params.use_spatial_transformer=false",
];

/// The tiny classifier with the weights that [`export`] writes.
fn network() -> (VarStore, EncoderUNet) {
    let ModelConfig::Classifier(config) = ModelFile::parse(CLASSIFIER, "c.yaml", &[]).unwrap().model else {
        panic!("a classifier")
    };
    let vs = VarStore::new(test_device());
    let network = EncoderUNet::new(&(vs.root() / "model"), &config.network().unwrap()).unwrap();
    fill_weights(&vs, 5);
    (vs, network)
}

/// Writes a classifier of `model`'s latents, as exported by a run.
fn export(folder: &Path, model: &LatentDiffusion, classes: &[&str]) -> PathBuf {
    let (vs, _) = network();
    let mut tensors: Vec<(String, Tensor)> = vs.variables().into_iter().collect();
    tensors.extend(model.latent_space());
    let mut metadata = BTreeMap::new();
    if !classes.is_empty() {
        metadata.insert("classes".to_owned(), serde_json::to_string(classes).unwrap());
    }
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("config.yaml"), CLASSIFIER).unwrap();
    ldm_checkpoint::save(folder.join("model.safetensors"), &tensors, &metadata).unwrap();
    folder.to_path_buf()
}

fn open(path: &Path) -> ldm_core::Result<Classifier> {
    Classifier::open(path, &LoadOptions::new(test_device()), &mut |_| {})
}

fn sampling() -> Sampling {
    let sampler = SamplerConfig::Ddim { eta: 0. };
    Sampling::new(sampler, 8)
}

#[test]
fn samples_of_an_unconditional_model_are_guided_to_their_classes() {
    let folder = tempfile::tempdir().unwrap();
    let model = diffusion(&UNCONDITIONAL);
    let path = export(folder.path(), &model, &[]);
    let prompt = Prompt::class(&[2, 0]);
    let plain =
        generate(&model, &GenerateRequest::new(&prompt, &[3, 4], &sampling()), &mut |_| {}).unwrap().latents;
    let guide = |scale| GuidingClassifier::new(open(&path).unwrap(), scale, &model).unwrap();
    let strong = guide(40.);
    let guided = generate(
        &model,
        &GenerateRequest::new(&prompt, &[3, 4], &sampling()).classifier(Some(&strong)),
        &mut |_| {},
    )
    .unwrap()
    .latents;
    assert!(!guided.requires_grad());
    // By the network itself, with the weights of the file.
    let (_, network) = network();
    let probability = |x: &Tensor| {
        let t = Tensor::ones([2], (Kind::Float, test_device()));
        let all = tch::no_grad(|| network.forward(x, &t, false)).softmax(-1, Kind::Double);
        [(0, 2), (1, 0)].map(|(sample, class)| all.double_value(&[sample, class]))
    };
    for (before, after) in probability(&plain).into_iter().zip(probability(&guided)) {
        assert!(after > 1.01 * before, "from {before} to {after}");
    }
    // Each alone: another class in the batch changes nothing.
    let prompt = Prompt::class(&[2]);
    let alone = generate(
        &model,
        &GenerateRequest::new(&prompt, &[3], &sampling()).classifier(Some(&strong)),
        &mut |_| {},
    )
    .unwrap()
    .latents;
    assert_close("alone", &alone, &guided.narrow(0, 0, 1), 1e-5);

    let off = guide(0.);
    let prompt = Prompt::class(&[2, 0]);
    let unguided = generate(
        &model,
        &GenerateRequest::new(&prompt, &[3, 4], &sampling()).classifier(Some(&off)),
        &mut |_| {},
    )
    .unwrap()
    .latents;
    assert_eq!(unguided, plain);
    let trained = model.vs().variables().into_values().filter(|tensor| tensor.grad().defined()).count();
    assert_eq!(trained, 0, "no parameter of the model has a gradient");
}

#[test]
fn guidance_gives_no_parameter_a_gradient() {
    let (vs, network) = network();
    assert!(vs.variables().into_values().all(|tensor| tensor.requires_grad()));
    let log_probability = |x: &Tensor, at: NoiseLevel| {
        let t = Tensor::full([x.size()[0]], at.t, (Kind::Float, x.device()));
        network.forward(x, &t, false).log_softmax(-1, Kind::Float).select(1, 1)
    };
    let denoiser = |x: &Tensor, at: NoiseLevel| Parameterization::Eps.to_denoised(x.cos(), x, at);
    let guided = ClassifierGuidance {
        denoiser: Box::new(&denoiser),
        log_probability: Box::new(log_probability),
        scale: 1.,
    };
    let x = (Tensor::arange(256, (Kind::Float, test_device())) * 12.9898).sin().view([1, 4, 8, 8]);
    let at = schedule().level(500);
    let got = tch::no_grad(|| guided.denoise(&x, at));
    assert!(relative_l2(&got.eps, &denoiser(&x, at).eps) > 1e-4);
    assert!(!got.eps.requires_grad() && !got.x0.requires_grad());
    assert!(vs.variables().into_values().all(|tensor| !tensor.grad().defined()));
}

#[test]
fn classifiers_of_other_latents_or_classes_are_refused() {
    #[track_caller]
    fn check(path: &Path, model: &LatentDiffusion, expected: &str) {
        let error = open(path)
            .and_then(|classifier| GuidingClassifier::new(classifier, 1., model))
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected) && error.contains("model.safetensors"), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
    let folder = tempfile::tempdir().unwrap();
    let model = diffusion(&[]);
    let path = export(folder.path(), &model, &["circle", "star", "square"]);
    let guide = GuidingClassifier::new(open(&path).unwrap(), 1., &model).unwrap();

    let other = diffusion(&["model.params.linear_end=0.012"]);
    check(
        &path,
        &other,
        "expected the noise schedule of the model, got another: `betas` from 1.500e-3 to 1.950e-2 over 1000",
    );
    let other = diffusion(&["model.params.scale_factor=0.6"]);
    check(&path, &other, "expected a classifier for the model's scale_factor 0.6, got 0.5");
    let other = diffusion(&[]);
    fill_weights(other.vs(), 2);
    check(&path, &other, "expected a classifier for the model's first stage, got another's");
    let mut other = diffusion(&[]);
    other.classes = ["circle", "star", "cube"].map(String::from).into();
    check(&path, &other, "expected the model's classes circle, star, cube, got circle, star, square");
    let other = diffusion(&[
        "model.params.channels=3",
        "model.params.unet_config.params.in_channels=3",
        "model.params.unet_config.params.out_channels=3",
        "model.params.first_stage_config.params.embed_dim=3",
    ]);
    check(&path, &other, "expected a model with latents of 4 channels, got 3");
    let error = GuidingClassifier::new(open(&path).unwrap(), f64::NAN, &model).unwrap_err().to_string();
    assert_eq!(error, "classifier scale: expected a finite number, got NaN");

    // Requests.
    let error = |prompt: &Prompt, size| {
        let how = Sampling { size, ..sampling() };
        generate(&model, &GenerateRequest::new(prompt, &[1], &how).classifier(Some(&guide)), &mut |_| {})
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        error(&Prompt::class(&[3]), None),
        "class: expected 0 to 2, the classes of the classifier, got 3"
    );
    let error = error(&Prompt::class(&[1]), Some([32, 16]));
    assert_eq!(error, "latent: expected 8x8 (a classifier with pool attention), got 16x8");
    let unconditional = diffusion(&UNCONDITIONAL);
    let exported = export(&folder.path().join("unconditional"), &unconditional, &[]);
    let own = GuidingClassifier::new(open(&exported).unwrap(), 1., &unconditional).unwrap();
    let empty = Prompt::default();
    let error = generate(
        &unconditional,
        &GenerateRequest::new(&empty, &[1], &sampling()).classifier(Some(&own)),
        &mut |_| {},
    )
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "class: expected one in the prompt for the classifier to guide to, got none"
    );

    // A classifier in place of a model, and the reverse.
    let error = Model::open(&path, &LoadOptions::new(test_device()), &mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("expected a diffusion model or a first stage, got a classifier"), "{error}");
    let whole = folder.path().join("whole");
    save(&model, &whole);
    let error = open(&whole).unwrap_err().to_string();
    assert!(error.contains("expected a classifier of noisy latents, got another model"), "{error}");
    let checkpoint = Checkpoint::open(path.join("model.safetensors")).unwrap().without(&["model.out."]);
    let ModelConfig::Classifier(config) = ModelFile::parse(CLASSIFIER, "c.yaml", &[]).unwrap().model else {
        panic!("a classifier")
    };
    let error = Classifier::load(&config, checkpoint, test_device()).unwrap_err().to_string();
    assert!(error.contains("model.out.2.c_proj.weight"), "{error}");
}

pub(crate) fn save(model: &LatentDiffusion, folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("config.yaml"), TINY).unwrap();
    let tensors: Vec<(String, Tensor)> = model.vs().variables().into_iter().collect();
    ldm_checkpoint::save(folder.join("model.safetensors"), &tensors, &BTreeMap::new()).unwrap();
}
