//! Round trips through CompVis' and diffusers' formats: every tensor bit-exact, or an error that names the key.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ldm_checkpoint::{Checkpoint, save};
use ldm_pipelines::{
    ConvertOptions, ConvertTarget, FirstStageModel, LatentDiffusion, LoadOptions, Model, ModelConfig,
    ModelFile, ModelSource, convert,
};
use ldm_testing::{fill_weights, shared_data};
use tch::{Device, Kind, Tensor};

/// Files of configs/experiments/tiny, with overrides.
const KINDS: [(&str, &str, &[&str]); 12] = [
    ("KL first stage", "first-stage-kl-f2.yaml", &[]),
    ("VQ first stage", "first-stage-vq-f4.yaml", &[]),
    ("class", "diffusion-class.yaml", &[]),
    ("text by BERT", "diffusion-text-bert.yaml", &[]),
    ("text by CLIP", "diffusion-text-clip.yaml", &[]),
    ("inpainting", "inpainting.yaml", &[]),
    ("layout", "layout.yaml", &[]),
    ("semantic", "semantic.yaml", &[]),
    ("super-resolution", "super-resolution.yaml", &[]),
    (
        "hybrid",
        "diffusion-text-clip.yaml",
        &["model.params.conditioning_key=hybrid", "model.params.unet_config.params.in_channels=9"],
    ),
    ("unconditional VQ", "super-resolution.yaml", &UNCONDITIONAL),
    (
        "unconditional KL, v",
        "diffusion-class.yaml",
        &[
            "model.params.cond_stage_config=__is_unconditional__",
            "model.params.conditioning_key=null",
            "model.params.unet_config.params.use_spatial_transformer=false",
            "model.params.unet_config.params.context_dim=null",
            "model.params.parameterization=v",
            "model.params.beta_schedule=cosine",
        ],
    ),
];
const UNCONDITIONAL: [&str; 3] = [
    "model.params.cond_stage_config=__is_unconditional__",
    "model.params.conditioning_key=null",
    "model.params.unet_config.params.in_channels=3",
];

/// The key that diffusers cannot express, if any.
fn refused(kind: &str) -> Option<&'static str> {
    match kind {
        "class" | "inpainting" | "semantic" => Some("`cond_stage_config`"),
        "layout" => Some("`max_seq_len`"),
        _ => None,
    }
}

pub(crate) fn config(name: &str, overrides: &[&str]) -> (ModelConfig, String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/experiments/tiny").join(name);
    let text = std::fs::read_to_string(&path).unwrap();
    let overrides: Vec<String> = overrides.iter().map(|each| (*each).to_owned()).collect();
    let tree = ldm_core::config::merge(&text, &path, &overrides).unwrap();
    let mut alone = serde_yaml::Mapping::new();
    alone.insert("model".into(), tree["model"].clone());
    let text = serde_yaml::to_string(&alone).unwrap();
    (ModelFile::parse(&text, &path, &[]).unwrap().model, text)
}

/// Writes a model folder, as the trainer does.
fn write_source(folder: &Path, name: &str, overrides: &[&str]) {
    write_filled(folder, name, overrides, 3);
}

/// [`write_source`] with weights of a seed.
pub(crate) fn write_filled(folder: &Path, name: &str, overrides: &[&str], seed: u64) {
    let (config, text) = config(name, overrides);
    let mut tensors: Vec<(String, Tensor)> = match &config {
        ModelConfig::LatentDiffusion(config) => {
            let model = LatentDiffusion::new(config, None, Device::Cpu).unwrap();
            fill_weights(model.vs(), seed);
            let buffers = model.schedule.buffers().into_iter();
            let mut all: Vec<(String, Tensor)> =
                buffers.map(|(name, values)| (name.to_owned(), Tensor::from_slice(&values))).collect();
            if config.scale_by_std {
                all.push(("scale_factor".into(), Tensor::from(0.731_234_5_f32)));
            }
            all.extend(model.vs().variables());
            all
        }
        alone => {
            let model = FirstStageModel::new(&alone.first_stage().unwrap(), Device::Cpu).unwrap();
            fill_weights(&model.vs, seed);
            model.vs.variables().into_iter().collect()
        }
    };
    for (_, tensor) in &mut tensors {
        *tensor = tensor.detach();
    }
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("config.yaml"), text).unwrap();
    save(folder.join("model.safetensors"), &tensors, &BTreeMap::new()).unwrap();
}

pub(crate) fn options(to: ConvertTarget) -> ConvertOptions {
    let tokenizer = None;
    ConvertOptions { to, kind: None, ema: true, tokenizer, merge: None, loras: Vec::new(), force: false }
}

fn tokenizer(kind: &str) -> Option<PathBuf> {
    let file = match kind {
        "text by BERT" => "bert-base-uncased-vocab.txt",
        _ => "bpe_simple_vocab_16e6.txt.gz",
    };
    Some(shared_data()?.join("tokenizers").join(file))
}

pub(crate) fn run(from: &Path, to: &Path, options: &ConvertOptions) -> ldm_core::Result<Vec<String>> {
    let mut notes = Vec::new();
    convert(&ModelSource::find(from, None, options.ema)?, to, options, &mut |note| {
        notes.push(note.to_owned());
    })?;
    Ok(notes)
}

pub(crate) fn tensors(path: &Path) -> BTreeMap<String, Tensor> {
    let checkpoint = Checkpoint::open(path).unwrap();
    checkpoint.names().map(|name| (name.to_owned(), checkpoint.tensor(name).unwrap())).collect()
}

#[track_caller]
fn assert_same_weights(what: &str, got: &Path, want: &Path) {
    let (got, want) = (tensors(&got.join("model.safetensors")), tensors(&want.join("model.safetensors")));
    assert_eq!(got.keys().collect::<Vec<_>>(), want.keys().collect::<Vec<_>>(), "{what}");
    for (name, want) in want {
        let got = &got[&name];
        assert!(got.kind() == want.kind() && got.size() == want.size() && got.equal(&want), "{what}: {name}");
    }
}

#[test]
fn round_trips_through_compvis_are_exact() {
    for (kind, name, overrides) in KINDS {
        let sandbox = tempfile::tempdir().unwrap();
        let at = |name: &str| sandbox.path().join(name);
        write_source(&at("source"), name, overrides);
        for file in ["one.ckpt", "two.safetensors"] {
            run(&at("source"), &at(file), &options(ConvertTarget::Compvis)).unwrap();
            let back = at(&format!("back-{file}"));
            run(&at(file), &back, &options(ConvertTarget::Ldm)).unwrap();
            assert_same_weights(&format!("{kind} by {file}"), &back, &at("source"));
        }
        // No other files remain.
        assert_eq!(sandbox.path().read_dir().unwrap().count(), 7, "{kind}");
        let copies =
            tensors(&at("one.ckpt")).keys().any(|name| name.starts_with("cond_stage_model.encoder."));
        assert_eq!(copies, kind == "inpainting", "{kind}: CompVis holds the first stage twice");
    }
}

#[test]
fn round_trips_through_diffusers_are_exact() {
    for (kind, name, overrides) in KINDS {
        let sandbox = tempfile::tempdir().unwrap();
        let at = |name: &str| sandbox.path().join(name);
        write_source(&at("source"), name, overrides);
        let mut forth = options(ConvertTarget::Diffusers);
        if refused(kind).is_none() && (kind.starts_with("text") || kind == "hybrid") {
            forth.tokenizer = tokenizer(kind);
            if forth.tokenizer.is_none() {
                eprintln!("skipped: no shared data with tokenizers ({kind})");
                continue;
            }
        }
        let made = run(&at("source"), &at("diffusers"), &forth);
        if let Some(key) = refused(kind) {
            let error = made.unwrap_err().to_string();
            assert!(error.contains(key), "{kind}: {error}");
            assert_eq!(sandbox.path().read_dir().unwrap().count(), 1, "{kind}: no output");
            continue;
        }
        assert_eq!(made.unwrap(), [""; 0], "{kind}");
        run(&at("diffusers"), &at("back"), &options(ConvertTarget::Ldm))
            .unwrap_or_else(|error| panic!("{kind}: {error}"));
        assert_same_weights(kind, &at("back"), &at("source"));
        assert_eq!(sandbox.path().read_dir().unwrap().count(), 3, "{kind}");
        // From diffusers to diffusers: the scheduler and the tokenizer are unchanged.
        run(&at("diffusers"), &at("again"), &options(ConvertTarget::Diffusers)).unwrap();
        for file in ["scheduler/scheduler_config.json", "tokenizer/tokenizer_config.json", "model_index.json"]
        {
            let read = |folder: &str| std::fs::read(at(folder).join(file)).ok();
            assert_eq!(read("again"), read("diffusers"), "{kind}: {file}");
        }
    }
}

#[test]
fn dtypes_apply_to_weights_and_not_to_buffers() {
    let sandbox = tempfile::tempdir().unwrap();
    let at = |name: &str| sandbox.path().join(name);
    write_source(&at("source"), "diffusion-class.yaml", &[]);
    let half = ConvertOptions { kind: Some(Kind::Half), ..options(ConvertTarget::Compvis) };
    run(&at("source"), &at("half.ckpt"), &half).unwrap();
    let (half, whole) = (tensors(&at("half.ckpt")), tensors(&at("source").join("model.safetensors")));
    for (name, tensor) in half {
        let buffer = !name.contains('.');
        let want = if buffer { whole[&name].shallow_clone() } else { whole[&name].to_kind(Kind::Half) };
        assert!(tensor.kind() == want.kind() && tensor.equal(&want), "{name}");
    }
}

#[test]
fn overflowing_dtypes_are_refused() {
    let sandbox = tempfile::tempdir().unwrap();
    let at = |name: &str| sandbox.path().join(name);
    write_source(&at("source"), "first-stage-kl-f2.yaml", &[]);
    let mut all = tensors(&at("source").join("model.safetensors"));
    let name = "encoder.conv_in.bias";
    let _ = all.get_mut(name).unwrap().get(0).fill_(-7e4);
    save(at("source/model.safetensors"), &all.into_iter().collect::<Vec<_>>(), &BTreeMap::new()).unwrap();
    let as_half = |to| ConvertOptions { kind: Some(Kind::Half), ..options(to) };
    for to in [ConvertTarget::Ldm, ConvertTarget::Compvis, ConvertTarget::Diffusers] {
        let error = run(&at("source"), &at("half"), &as_half(to)).unwrap_err().to_string();
        let expected = format!("tensor `{name}`: expected values in the range of Half, got 7.000e4");
        assert!(error.starts_with(&expected), "{to:?}: {error}");
    }
    assert_eq!(sandbox.path().read_dir().unwrap().count(), 1, "no output");
    run(
        &at("source"),
        &at("wide"),
        &ConvertOptions { kind: Some(Kind::BFloat16), ..options(ConvertTarget::Ldm) },
    )
    .unwrap();
}

#[test]
fn buffers_of_another_schedule_are_refused() {
    let sandbox = tempfile::tempdir().unwrap();
    let at = |name: &str| sandbox.path().join(name);
    write_source(&at("source"), "diffusion-class.yaml", &[]);
    let config = std::fs::read_to_string(at("source/config.yaml")).unwrap();
    let change = |from: &str, to: &str| {
        let changed = config.replace(from, to);
        assert_ne!(changed, config);
        std::fs::write(at("source/config.yaml"), changed).unwrap();
        run(&at("source"), &at("new"), &options(ConvertTarget::Ldm)).unwrap_err().to_string()
    };
    let error = change("linear_end: 0.0195", "linear_end: 0.0205");
    let expected = "expected the noise schedule of the config, got another: `betas` from 1.500e-3 to 1.950e-2 over 1000 \
                    steps in the file, from 1.500e-3 to 2.050e-2 over 1000 steps in the config";
    assert!(error.ends_with(expected), "{error}");
    let error = change("timesteps: 1000", "timesteps: 500");
    assert!(error.ends_with("over 500 steps in the config"), "{error}");
    let opened =
        Model::open(&at("source"), &LoadOptions::new(Device::Cpu), &mut |_| {}).unwrap_err().to_string();
    assert_eq!(opened, error);

    // A file with `alphas_cumprod` alone is checked by it; half precision is tolerated.
    let mut all = tensors(&at("source").join("model.safetensors"));
    let write = |all: &BTreeMap<String, Tensor>| {
        let list: Vec<_> = all.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect();
        save(at("source/model.safetensors"), &list, &BTreeMap::new()).unwrap();
    };
    all.remove("betas");
    write(&all);
    let error = change("linear_start: 0.0015", "linear_start: 0.00085");
    assert!(error.contains("`alphas_cumprod` from 9.985e-1 to "), "{error}");
    std::fs::write(at("source/config.yaml"), &config).unwrap();
    for kind in [Kind::Half, Kind::BFloat16] {
        let _ = all.values_mut().map(|tensor| *tensor = tensor.to_kind(kind)).count();
        write(&all);
        run(&at("source"), &at(&format!("{kind:?}")), &options(ConvertTarget::Ldm)).unwrap();
    }
}

#[test]
fn ema_weights_replace_the_weights_by_default() {
    let sandbox = tempfile::tempdir().unwrap();
    let at = |name: &str| sandbox.path().join(name);
    write_source(&at("source"), "inpainting.yaml", &[]);
    let mut all = tensors(&at("source").join("model.safetensors"));
    let name = "model.diffusion_model.out.2.bias";
    all.insert("model_ema.diffusion_modelout2bias".into(), &all[name] + 1.);
    all.insert("model_ema.decay".into(), Tensor::from(0.9_f32));
    let all: Vec<(String, Tensor)> = all.into_iter().collect();
    save(at("source/model.safetensors"), &all, &BTreeMap::new()).unwrap();
    for (ema, added) in [(true, 1.), (false, 0.)] {
        let out = at(&format!("out-{ema}"));
        run(&at("source"), &out, &ConvertOptions { ema, ..options(ConvertTarget::Ldm) }).unwrap();
        let got = tensors(&out.join("model.safetensors"));
        let want = &all.iter().find(|(known, _)| known == name).unwrap().1 + added;
        assert!(got[name].equal(&want), "{ema}");
        assert!(got.keys().all(|name| !name.starts_with("model_ema.")));
    }
}

#[test]
fn existing_outputs_are_preserved_and_failures_leave_no_files() {
    let sandbox = tempfile::tempdir().unwrap();
    let at = |name: &str| sandbox.path().join(name);
    write_source(&at("source"), "first-stage-kl-f2.yaml", &[]);
    for to in [ConvertTarget::Ldm, ConvertTarget::Compvis, ConvertTarget::Diffusers] {
        std::fs::write(at("taken"), "mine").unwrap();
        assert!(run(&at("source"), &at("taken"), &options(to)).is_err(), "{to:?}");
        assert_eq!(std::fs::read(at("taken")).unwrap(), b"mine", "{to:?}");
    }
    let forced = ConvertOptions { force: true, ..options(ConvertTarget::Ldm) };
    run(&at("source"), &at("source"), &forced).unwrap(); // over itself
    run(&at("source"), &at("copy"), &options(ConvertTarget::Ldm)).unwrap();
    run(&at("source"), &at("copy"), &forced).unwrap();
    for to in [ConvertTarget::Ldm, ConvertTarget::Diffusers] {
        let error = run(&at("source"), &at("taken"), &ConvertOptions { to, ..forced.clone() }).unwrap_err();
        let expected =
            "expected the folder of a converted model to replace by a folder, got a file; try another path";
        assert_eq!(error.to_string(), format!("{}: {expected}", at("taken").display()));
        assert_eq!(std::fs::read(at("taken")).unwrap(), b"mine", "{to:?}");
    }
    assert_same_weights("over another", &at("copy"), &at("source"));
    // A missing tensor is an error before anything is written.
    let mut fewer = tensors(&at("source/model.safetensors"));
    fewer.pop_first();
    save(at("source/model.safetensors"), &fewer.into_iter().collect::<Vec<_>>(), &BTreeMap::new()).unwrap();
    let error = run(&at("source"), &at("new"), &options(ConvertTarget::Diffusers)).unwrap_err().to_string();
    assert!(error.contains("1 missing"), "{error}");
    let mut names: Vec<_> =
        sandbox.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["copy", "source", "taken"]);
}
