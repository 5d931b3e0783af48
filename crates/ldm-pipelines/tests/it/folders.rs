//! diffusers' pipelines: folders of `save_pretrained`, with samples equal to those of diffusers.
//!
//! `golden/generate_folders.py` ran diffusers; both sides compute the weights by the same formula.

use std::collections::BTreeMap;
use std::path::Path;

use ldm_checkpoint::{Shapes, save, save_torch};
use ldm_core::Prompt;
use ldm_core::device::test_device;
use ldm_pipelines::{
    ConditioningKind, GenerateRequest, LatentDiffusion, LoadOptions, Model, ModelSource, Sampling, generate,
};
use ldm_schedulers::{Parameterization, SamplerConfig};
use ldm_testing::{Golden, assert_close, filled};
use serde::Deserialize;
use serde_json::Value;
use tch::Kind;

const TOLERANCE: f64 = 1e-5;
/// As in `generate_folders.py`.
const SEEDS: [(&str, u64); 5] = [("vae", 1), ("vqvae", 1), ("unet", 2), ("text_encoder", 3), ("bert", 3)];
const TEXTS: [&str; 2] = ["A big red circle, left of the cat", "blue stars"];

#[derive(Deserialize)]
struct Case {
    texts: BTreeMap<String, String>,
    /// Indices into the list of names and shapes.
    weights: BTreeMap<String, usize>,
}

fn golden() -> Golden {
    Golden::open(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/folders.safetensors"), test_device())
}

/// Writes the folder of a case; `weights` writes a file of weights.
fn folder(name: &str, weights: impl Fn(&Path, &[(String, tch::Tensor)])) -> tempfile::TempDir {
    let mut cases: BTreeMap<String, Case> = serde_json::from_str(golden().metadata("cases")).unwrap();
    let all: Vec<Shapes> = serde_json::from_str(golden().metadata("shapes")).unwrap();
    let case = cases.remove(name).unwrap();
    let root = tempfile::tempdir().unwrap();
    for (path, text) in case.texts {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    for (path, shapes) in case.weights {
        let part = path.split('/').next().unwrap();
        let (_, seed) = SEEDS.iter().find(|(known, _)| *known == part).unwrap();
        weights(&root.path().join(&path), &filled(&all[shapes], *seed));
    }
    root
}

fn safetensors(path: &Path, tensors: &[(String, tch::Tensor)]) {
    save(path, tensors, &BTreeMap::new()).unwrap();
}

fn whole(name: &str) -> tempfile::TempDir {
    folder(name, safetensors)
}

fn open(folder: &Path) -> (LatentDiffusion, Vec<String>) {
    let mut notes = Vec::new();
    let model =
        Model::open(folder, &LoadOptions::new(test_device()), &mut |note| notes.push(note.to_owned()))
            .unwrap();
    let Model::Diffusion(model) = model else { panic!("a whole model") };
    (*model, notes)
}

#[track_caller]
fn check(name: &str, kind: ConditioningKind, expected: (SamplerConfig, Parameterization)) {
    let folder = whole(name);
    let (model, notes) = open(folder.path());
    assert_eq!(notes, [""; 0], "{name}");
    assert_eq!(ConditioningKind::of(&model.config), kind);
    let (sampler, spacing, note) = model.scheduler.as_ref().unwrap().sampler();
    assert_eq!(((sampler, model.parameterization), note), (expected, None), "{name}");
    let golden = golden();
    let get = |key: &str| {
        let key = format!("{name}.{key}");
        golden.has(&key).then(|| golden.get(&key).shallow_clone())
    };
    let text = kind == ConditioningKind::Text && get("tokens").is_none();
    let prompt = Prompt {
        image: get("image"),
        mask: get("mask"),
        tokens: get("tokens"),
        text: text.then(|| TEXTS.map(str::to_owned).into()),
        ..Prompt::default()
    };
    let negative = get("nothing").map(|tokens| Prompt { tokens: Some(tokens), ..Prompt::default() });
    let guidance_scale: f64 =
        if matches!(kind, ConditioningKind::Unconditional | ConditioningKind::LowResolution) {
            1.
        } else {
            3.
        };
    let sampling = Sampling {
        spacing,
        guidance: guidance_scale.into(),
        thresholding: model.scheduler.as_ref().unwrap().thresholding,
        ..Sampling::new(sampler, 5)
    };
    let noise = get("noise");
    let made = generate(
        &model,
        &GenerateRequest::new(&prompt, &[0, 1], &sampling).negative(negative.as_ref()).init(noise.as_ref()),
        &mut |_| {},
    )
    .unwrap();
    assert_close(&format!("{name}: latents"), &made.latents, &get("latents").unwrap(), TOLERANCE);
    assert_close(&format!("{name}: images"), &made.images, &get("images").unwrap(), TOLERANCE);
}

const DDIM: SamplerConfig = SamplerConfig::Ddim { eta: 0. };

#[test]
fn stable_diffusion_equals_diffusers() {
    for (name, parameterization) in [
        ("stable_diffusion", Parameterization::Eps),
        ("stable_diffusion_v", Parameterization::V),
        ("stable_diffusion_cosine", Parameterization::X0),
    ] {
        check(name, ConditioningKind::Text, (DDIM, parameterization));
    }
    check("stable_diffusion_pndm", ConditioningKind::Text, (SamplerConfig::Plms {}, Parameterization::Eps));
    check("inpainting", ConditioningKind::TextInpainting, (DDIM, Parameterization::Eps));
}

#[test]
fn latent_diffusion_pipelines_equal_diffusers() {
    check("text_to_image", ConditioningKind::Text, (DDIM, Parameterization::Eps));
    // Leading spacing without an offset, to α = 1, with clipping.
    check("unconditional", ConditioningKind::Unconditional, (DDIM, Parameterization::Eps));
    check("super_resolution", ConditioningKind::LowResolution, (DDIM, Parameterization::Eps));
}

/// Preference among files of weights, which differ by dtype.
#[test]
fn formats_and_variants_are_preferred_in_order() {
    let root = whole("unconditional");
    let unet = root.path().join("unet");
    let [plain, half] =
        ["", "fp16."].map(|variant| unet.join(format!("diffusion_pytorch_model.{variant}safetensors")));
    let tensors: Vec<(String, tch::Tensor)> = {
        let checkpoint = ldm_checkpoint::Checkpoint::open(&plain).unwrap();
        checkpoint
            .names()
            .map(|name| (name.to_owned(), checkpoint.tensor(name).unwrap().to_kind(Kind::Half)))
            .collect()
    };
    let kind = |ema: bool| {
        let found = ModelSource::find(root.path(), None, ema).unwrap();
        let name = "model.diffusion_model.input_blocks.0.0.weight";
        (found.checkpoint.info(name).unwrap().kind, found.notes)
    };
    save(&half, &tensors, &BTreeMap::new()).unwrap();
    assert_eq!(kind(true), (Kind::Float, vec![]), "no variant first");
    std::fs::remove_file(&plain).unwrap();
    let (found, notes) = kind(true);
    assert_eq!((found, notes[0].contains("loaded the variant fp16")), (Kind::Half, true), "{notes:?}");
    save_torch(unet.join("diffusion_pytorch_model.bin"), &tensors, &BTreeMap::new()).unwrap();
    assert_eq!(kind(true), (Kind::Half, vec![]), ".bin before a variant");
    let trained: Vec<_> =
        tensors.iter().map(|(name, tensor)| (name.clone(), tensor.to_kind(Kind::Double))).collect();
    save(unet.join("diffusion_pytorch_model.non_ema.safetensors"), &trained, &BTreeMap::new()).unwrap();
    assert_eq!(kind(true).0, Kind::Half);
    assert_eq!(kind(false).0, Kind::Double, "--no-ema");
}

#[test]
fn variants_of_any_component_are_reported() {
    let root = whole("text_to_image");
    let [plain, half] =
        ["model", "model.fp16"].map(|name| root.path().join(format!("bert/{name}.safetensors")));
    std::fs::rename(plain, half).unwrap();
    let (_, notes) = open(root.path());
    assert!(notes.len() == 1 && notes[0].ends_with("loaded the variant fp16"), "{notes:?}");
}

#[test]
fn a_component_alone_is_a_first_stage() {
    let root = whole("text_to_image");
    let part = root.path().join("vqvae");
    for path in [part.clone(), part.join("diffusion_pytorch_model.safetensors")] {
        let model = Model::open(&path, &LoadOptions::new(test_device()), &mut |_| {}).unwrap();
        assert!(matches!(model, Model::FirstStage(_)));
        let golden = golden();
        let z = golden.get("text_to_image.latents") / 0.3;
        assert_close("decoded", &model.decode(&z), golden.get("text_to_image.images"), TOLERANCE);
    }
}

/// A change of a JSON file, and its error.
#[test]
fn unsupported_settings_are_refused_by_key() {
    let cases: [(&str, &str, Value, &str); 9] = [
        (
            "model_index.json",
            "text_encoder_2",
            serde_json::json!(["transformers", "CLIPTextModelWithProjection"]),
            "`text_encoder_2`: expected no such component in a latent diffusion model, got CLIPTextModelWithProjection",
        ),
        (
            "model_index.json",
            "controlnet",
            serde_json::json!(["diffusers", "ControlNetModel"]),
            "`controlnet`: expected no such component in a latent diffusion model, got ControlNetModel",
        ),
        (
            "model_index.json",
            "unet",
            serde_json::json!([null, null]),
            "`unet`: expected a component, got none",
        ),
        (
            "scheduler/scheduler_config.json",
            "rescale_betas_zero_snr",
            true.into(),
            "`rescale_betas_zero_snr`: expected false with epsilon, which is undefined in pure noise, got true",
        ),
        (
            "scheduler/scheduler_config.json",
            "beta_schedule",
            "sigmoid".into(),
            "`beta_schedule`: expected linear or scaled_linear",
        ),
        (
            "scheduler/scheduler_config.json",
            "prediction_type",
            "flow_prediction".into(),
            "`prediction_type`: expected epsilon",
        ),
        (
            "unet/config.json",
            "in_channels",
            8.into(),
            "`in_channels`: expected 4 or, for inpainting, 9, got 8",
        ),
        ("unet/config.json", "use_linear_projection", true.into(), "`use_linear_projection`"),
        (
            "vae/config.json",
            "_class_name",
            "AutoencoderTiny".into(),
            "`_class_name`: expected AutoencoderKL or VQModel",
        ),
    ];
    let root = whole("stable_diffusion");
    for (file, key, value, expected) in cases {
        let path = root.path().join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        let mut json: Value = serde_json::from_str(&text).unwrap();
        json[key] = value;
        std::fs::write(&path, json.to_string()).unwrap();
        let error = ModelSource::find(root.path(), None, true).unwrap_err().to_string();
        let name = Path::new(file).file_name().unwrap().to_str().unwrap();
        assert!(error.contains(expected) && error.contains(name), "{key}: {error}");
        std::fs::write(&path, text).unwrap();
    }
    let safe = root.path().join("model_index.json");
    let mut json: Value = serde_json::from_str(&std::fs::read_to_string(&safe).unwrap()).unwrap();
    json["safety_checker"] = serde_json::json!(["stable_diffusion", "StableDiffusionSafetyChecker"]);
    std::fs::write(&safe, json.to_string()).unwrap();
    let (_, notes) = open(root.path());
    assert!(notes.is_empty(), "the safety checker is opened next to the model: {notes:?}");
    json["image_encoder"] = serde_json::json!(["transformers", "CLIPVisionModelWithProjection"]);
    std::fs::write(&safe, json.to_string()).unwrap();
    let (_, notes) = open(root.path());
    assert!(notes.len() == 1 && notes[0].ends_with("ignored image_encoder"), "{notes:?}");
    let error = ModelSource::find(root.path(), Some(Path::new("x.yaml")), true).unwrap_err().to_string();
    assert!(error.contains("expected no --config for a diffusers folder"), "{error}");
}
