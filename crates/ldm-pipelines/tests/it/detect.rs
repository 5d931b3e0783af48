//! Files without a config: every published model is inferred from names, shapes and buffers; errors name the field.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use ldm_checkpoint::Shapes;
use ldm_conditioning::ConditionerConfig;
use ldm_core::nn::skip_init;
use ldm_pipelines::{
    FirstStageModel, LatentDiffusion, LatentDiffusionConfig, ModelConfig, ModelFile, ModelSource,
};
use ldm_schedulers::Parameterization;
use serde_json::{Map, Value, json};
use tch::Device;

/// Config files, and the field that names and shapes do not determine.
const WHOLE: [(&str, Option<&str>); 15] = [
    ("latent-diffusion/celebahq.yaml", None),
    ("latent-diffusion/ffhq.yaml", None),
    ("latent-diffusion/imagenet-f8.yaml", None),
    ("latent-diffusion/imagenet.yaml", None),
    ("latent-diffusion/inpainting.yaml", None),
    ("latent-diffusion/layout2img.yaml", None),
    ("latent-diffusion/lsun-bedrooms.yaml", None),
    ("latent-diffusion/lsun-churches.yaml", None),
    ("latent-diffusion/retrieval-768.yaml", Some("cond_stage_config")),
    ("latent-diffusion/semantic-256.yaml", Some("image_size")),
    ("latent-diffusion/super-resolution.yaml", None),
    ("latent-diffusion/text2img-256.yaml", None),
    ("latent-diffusion/text2img.yaml", None),
    ("stable-diffusion/v1.yaml", None),
    ("stable-diffusion/v1-inpainting.yaml", None),
];

fn config(name: &str) -> ModelConfig {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/models").join(name);
    ModelFile::read(path, &[]).unwrap().model
}

fn diffusion(model: ModelConfig) -> LatentDiffusionConfig {
    match model {
        ModelConfig::LatentDiffusion(config) => *config,
        other => panic!("{other:?}"),
    }
}

/// Names and shapes of the weights, which are not initialized.
fn shapes(model: &ModelConfig) -> Shapes {
    let variables = match model {
        ModelConfig::LatentDiffusion(config) => {
            skip_init(|| LatentDiffusion::new(config, None, Device::Cpu)).unwrap().vs().variables()
        }
        alone => skip_init(|| FirstStageModel::new(&alone.first_stage().unwrap(), Device::Cpu))
            .unwrap()
            .vs
            .variables(),
    };
    variables.into_iter().map(|(name, variable)| (name, variable.size())).collect()
}

/// Writes a sparse safetensors file of f16 tensors of these names and shapes, and of the `buffers`.
fn file(folder: &Path, shapes: &Shapes, buffers: &[(&str, Vec<f32>)]) -> PathBuf {
    let (mut header, mut bytes, mut at) = (Map::new(), Vec::new(), 0);
    for (name, values) in buffers {
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        let shape = if *name == "scale_factor" { vec![] } else { vec![values.len()] };
        header.insert(
            (*name).into(),
            json!({"dtype": "F32", "shape": shape, "data_offsets": [at, bytes.len()]}),
        );
        at = bytes.len();
    }
    for (name, shape) in shapes {
        let end = at + 2 * shape.iter().product::<i64>() as usize;
        header.insert(name.clone(), json!({"dtype": "F16", "shape": shape, "data_offsets": [at, end]}));
        at = end;
    }
    let header = Value::Object(header).to_string();
    let path = folder.join("model.safetensors");
    let mut file = File::create(&path).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.write_all(&bytes).unwrap();
    file.set_len((8 + header.len() + at) as u64).unwrap();
    path
}

fn buffers(config: &LatentDiffusionConfig) -> Vec<(&'static str, Vec<f32>)> {
    let mut buffers = ldm_schedulers::NoiseSchedule::new(&config.schedule()).unwrap().buffers();
    if config.scale_by_std {
        buffers.push(("scale_factor", vec![0.227_659_29]));
    }
    buffers
}

/// The fields that a forward, a checkpoint or a sample depends on.
fn network(config: &LatentDiffusionConfig) -> Value {
    let mut unet = config.unet().clone();
    // `bsr_sr` has a resolution without a level.
    let levels = unet.channel_mult.len();
    unet.attention_resolutions.retain(|factor| *factor < 1 << levels);
    unet.attention_resolutions.sort_unstable();
    (unet.image_size, unet.legacy, unet.use_checkpoint, unet.num_heads_upsample) = (None, true, false, -1);
    let mut first_stage = json!(config.first_stage_config);
    let params = first_stage["params"].as_object_mut().unwrap();
    params.retain(|key, _| ["embed_dim", "n_embed"].contains(&key.as_str()));
    let mut conditioner = config.cond_stage_config.clone();
    match &mut conditioner {
        ConditionerConfig::Bert(bert) => bert.device = None,
        ConditionerConfig::ClipText(clip) => clip.device = None,
        ConditionerConfig::Class(class) => class.key = "class".into(),
        _ => {}
    }
    json!({
        "unet": unet, "first_stage": first_stage, "conditioner": conditioner, "schedule": config.schedule(),
        "key": config.conditioning_key().map(ldm_pipelines::ConditioningKey::name),
        "side": config.image_size, "channels": config.channels,
        "scale": config.scale_factor, "measured": config.scale_by_std, "predicts": config.parameterization,
    })
}

#[test]
fn every_published_model_is_inferred() {
    let folder = tempfile::tempdir().unwrap();
    for (name, unknown) in WHOLE {
        let whole = config(name);
        let shapes = shapes(&whole);
        let whole = diffusion(whole);
        let path = file(folder.path(), &shapes, &buffers(&whole));
        match (ModelSource::find(&path, None, true), unknown) {
            (Ok(found), None) => {
                assert_eq!(network(&diffusion(found.config)), network(&whole), "{name}");
            }
            (Err(error), Some(field)) => {
                let error = error.to_string();
                assert!(error.contains(field) && error.contains("--config"), "{name}: {error}");
            }
            (found, _) => panic!("{name}: {:?}", found.map(|found| found.config)),
        }
    }
}

#[test]
fn first_stages_are_inferred_alone_and_below_their_root() {
    let folder = tempfile::tempdir().unwrap();
    for name in
        ["autoencoder/kl-f8.yaml", "autoencoder/vq-f4.yaml", "../experiments/tiny/first-stage-kl-f2.yaml"]
    {
        let whole = config(name);
        let alone = shapes(&whole);
        let mut rooted: Shapes =
            alone.iter().map(|(name, shape)| (format!("first_stage_model.{name}"), shape.clone())).collect();
        rooted.insert("first_stage_model.loss.logvar".into(), vec![]);
        for shapes in [&alone, &rooted] {
            let path = file(folder.path(), shapes, &[]);
            let found = ModelSource::find(&path, None, true).unwrap();
            assert_eq!(json!(found.config)["target"], json!(whole)["target"], "{name}");
            let names: Vec<&str> =
                found.checkpoint.names().filter(|name| !name.starts_with("loss.")).collect();
            assert_eq!(names, alone.keys().map(String::as_str).collect::<Vec<_>>(), "{name}");
        }
    }
}

/// The schedule is a formula that matches the buffers, else `given_betas`, else the default of the kind of model.
#[test]
fn schedules_are_inferred_from_buffers() {
    let folder = tempfile::tempdir().unwrap();
    let whole = config("stable-diffusion/v1.yaml");
    let shapes = shapes(&whole);
    let mut whole = diffusion(whole);
    let check = |buffers: &[(&str, Vec<f32>)]| {
        let found = ModelSource::find(&file(folder.path(), &shapes, buffers), None, true).unwrap();
        diffusion(found.config).schedule()
    };
    assert_eq!(check(&[]), whole.schedule());
    let cumulative: Vec<_> =
        buffers(&whole).into_iter().filter(|(name, _)| *name == "alphas_cumprod").collect();
    assert_eq!(check(&cumulative), whole.schedule());
    for (beta_schedule, start, end) in
        [("linear", 0.002, 0.01), ("sqrt_linear", 1e-4, 2e-2), ("cosine", 1e-4, 2e-2)]
    {
        whole.beta_schedule = serde_json::from_value(beta_schedule.into()).unwrap();
        (whole.linear_start, whole.linear_end, whole.timesteps) = (start, end, 400);
        let found = check(&buffers(&whole));
        assert_eq!(found, whole.schedule(), "{beta_schedule}");
    }
    let odd: Vec<f32> = (0..50).map(|t| 0.001 * (1 + t % 7) as f32).collect();
    let found = check(&[("betas", odd.clone())]);
    assert_eq!(found.given_betas, Some(odd.into_iter().map(f64::from).collect()));
    assert_eq!(found.timesteps, 50);
}

/// transformers 5 saves CLIP without `text_model`, and programs save its projection too.
#[test]
fn names_of_clip_from_other_programs() {
    let folder = tempfile::tempdir().unwrap();
    let whole = config("stable-diffusion/v1.yaml");
    let ours = shapes(&whole);
    let mut theirs: Shapes =
        ours.iter().map(|(name, shape)| (name.replace(".text_model.", "."), shape.clone())).collect();
    assert_ne!(ours, theirs);
    theirs.insert("cond_stage_model.transformer.text_projection.weight".into(), vec![768, 768]);
    theirs.insert("cond_stage_model.logit_scale".into(), vec![]);
    let found = ModelSource::find(&file(folder.path(), &theirs, &[]), None, true).unwrap();
    let model =
        skip_init(|| LatentDiffusion::new(&diffusion(found.config.clone()), None, Device::Cpu)).unwrap();
    let weights = model.weights_of(found.checkpoint, true);
    assert_eq!(weights.shapes(), ours);
    weights.check(model.vs()).unwrap();
}

/// `v_pred` and `ztsnr`, as A1111 and ComfyUI obey them.
#[test]
fn marker_tensors_set_parameterization_and_schedule() {
    let folder = tempfile::tempdir().unwrap();
    let whole = config("stable-diffusion/v1.yaml");
    let shapes = shapes(&whole);
    let schedule = buffers(&diffusion(whole));
    let find = |markers: &[&'static str], buffers: &[(&'static str, Vec<f32>)]| {
        let markers: Vec<_> = markers.iter().map(|name| (*name, Vec::new())).collect();
        let path = file(folder.path(), &shapes, &[markers, buffers.to_vec()].concat());
        ModelSource::find(&path, None, true).unwrap()
    };
    for buffers in [&[] as &[_], &schedule] {
        for (markers, parameterization, zero_terminal_snr, notes) in [
            (&[] as &[_], Parameterization::Eps, false, 0),
            (&["v_pred"], Parameterization::V, false, 1),
            (&["v_pred", "ztsnr"], Parameterization::V, true, 2),
            // Undefined for eps, and ComfyUI passes over it.
            (&["ztsnr"], Parameterization::Eps, false, 0),
        ] {
            let found = find(markers, buffers);
            let config = diffusion(found.config);
            assert_eq!(
                (config.parameterization, config.zero_terminal_snr),
                (parameterization, zero_terminal_snr)
            );
            assert_eq!(found.notes.len(), notes, "{:?}", found.notes);
            let model = skip_init(|| LatentDiffusion::new(&config, None, Device::Cpu)).unwrap();
            assert_eq!(
                model.weights_of(found.checkpoint, true).shapes(),
                shapes,
                "the markers are no weights"
            );
        }
    }
    let mut other = schedule;
    for (_, values) in &mut other {
        *values = values.iter().map(|value| value.powf(0.9)).collect();
    }
    other.retain(|(name, _)| *name == "betas");
    assert!(!diffusion(find(&["v_pred", "ztsnr"], &other).config).schedule().given_betas.unwrap().is_empty());
}

#[test]
fn tensors_to_ignore_are_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let whole = config("../experiments/tiny/first-stage-kl-f2.yaml");
    let ours = shapes(&whole);
    let mut more = ours.clone();
    more.insert("another.module.weight".into(), vec![2]);
    let path = file(folder.path(), &more, &[]);
    let ignore = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        ModelSource::find_without(&path, None, true, &names)
    };
    assert_eq!(ignore(&[]).unwrap().checkpoint.shapes(), more);
    assert_eq!(ignore(&["another."]).unwrap().checkpoint.shapes(), ours);
    let error = ignore(&["another.", "other."]).unwrap_err().to_string();
    assert!(error.ends_with("ignore: expected the beginning of a tensor's name, got `other.`"), "{error}");
}

#[test]
fn damaged_buffers_are_refused_with_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let shapes = shapes(&config("stable-diffusion/v1.yaml"));
    for (values, message) in [
        (vec![], "tensor `betas`: expected shape [T] without empty axes, got [0]"),
        (vec![f32::NAN; 1000], "tensor `betas`: expected finite numbers, got NaN or Inf at [0]"),
        (vec![0.5; 100_001], "tensor `betas`: expected at most 100000 timesteps, got 100001"),
    ] {
        let path = file(folder.path(), &shapes, &[("betas", values)]);
        let error = ModelSource::find(&path, None, true).unwrap_err().to_string();
        assert!(error.ends_with(message), "{error}");
    }
}

#[test]
fn other_models_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let check = |names: &[(&str, &[i64])], expected: &str| {
        let shapes: Shapes = names.iter().map(|(name, shape)| ((*name).into(), shape.to_vec())).collect();
        let error =
            ModelSource::find(&file(folder.path(), &shapes, &[]), None, true).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("model.safetensors"), "{error}");
    };
    check(&[("lora_unet_x.lora_up.weight", &[4, 4])], "a LoRA");
    check(&[("conditioner.embedders.1.x", &[4])], "Stable Diffusion XL");
    check(&[("model.diffusion_model.out.2.bias", &[4])], "first_stage_config");
    check(
        &[("layer.weight", &[4])],
        "model: expected a first stage or a latent diffusion model, got other names",
    );
}
