//! Conversion from and to diffusers: configs, names, shapes and values; `golden/generate_diffusers.py` ran diffusers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use ldm_checkpoint::{Checkpoint, Shapes, save};
use ldm_core::Conditioning;
use ldm_core::device::test_device;
use ldm_testing::{Golden, assert_close, filled};
use ldm_unet::{Plan, UNet, UNetConfig, diffusers_layout, from_diffusers, to_diffusers};
use serde::Deserialize;
use serde_json::{Value, json};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

use crate::{golden, sha256, shapes_of};

/// As `digest` of `generate_diffusers.py`.
fn digest(lines: impl Iterator<Item = String>) -> String {
    let mut lines: Vec<String> = lines.map(|line| line + "\n").collect();
    lines.sort();
    sha256(&lines.concat())
}

#[derive(Deserialize)]
struct Manifest {
    unets: BTreeMap<String, Official>,
}

#[derive(Deserialize)]
struct Official {
    params: UNetConfig,
}

#[derive(Deserialize)]
struct Models {
    models: BTreeMap<String, Model>,
}

#[derive(Deserialize)]
struct Model {
    /// Channels per head of a model that diffusers does not support.
    head_widths: Option<Vec<i64>>,
    #[serde(default)]
    config: Value,
    #[serde(default)]
    tensors: usize,
    #[serde(default)]
    shapes_sha256: String,
    names_sha256: Option<String>,
}

#[test]
fn official_models_are_diffusers_models() {
    let manifest: Manifest =
        serde_yaml::from_str(&std::fs::read_to_string(golden("manifest.yaml")).unwrap()).unwrap();
    let text = std::fs::read_to_string(golden("diffusers_official.json")).unwrap();
    let official: Models = serde_json::from_str(&text).unwrap();
    assert_eq!(official.models.len(), manifest.unets.len());
    let (mut tables, mut refused) = (0, Vec::new());
    for (name, model) in official.models {
        let config = &manifest.unets[&name].params;
        if let Some(widths) = model.head_widths {
            let error = to_diffusers(config).unwrap_err().to_string();
            assert_eq!(
                error,
                format!(
                    "`num_heads`: expected equal channels per head (the only kind in diffusers' UNet2DModel), got {widths:?}"
                ),
            );
            assert_eq!(diffusers_layout(config).unwrap_err().to_string(), error);
            refused.push(name);
            continue;
        }
        for (key, value) in to_diffusers(config).unwrap().as_object().unwrap() {
            assert_eq!(model.config.get(key), Some(value), "{name}: {key}");
        }
        let read = from_diffusers(&model.config).unwrap();
        assert_eq!(Plan::new(&read).unwrap(), Plan::new(config).unwrap(), "{name}");
        assert_eq!(read.image_size, config.image_size, "{name}");

        let native = shapes_of(config);
        let layout = diffusers_layout(config).unwrap();
        let mapped = layout.mapped_shapes(&native);
        assert_eq!(mapped.len(), model.tensors, "{name}");
        let lines = mapped.iter().map(|(key, shape)| format!("{key} {shape:?}"));
        assert_eq!(digest(lines), model.shapes_sha256, "{name}: names and shapes");
        let back = layout.keys.inverse();
        for key in mapped.keys() {
            assert_eq!(back.apply(&layout.keys.apply(key)), *key, "{name}: a bijection");
        }
        if let Some(hash) = model.names_sha256 {
            let table = native.keys().map(|key| format!("{} {key}", back.apply(key)));
            assert_eq!(digest(table), hash, "{name}: mapping of names");
            tables += 1;
        }
    }
    assert_eq!(tables, 8, "models that diffusers converts itself");
    assert_eq!(refused, ["inpainting_big", "lsun_churches-ldm-kl-8", "lsun_churches256"]);
}

#[derive(Deserialize)]
struct Case {
    seed: u64,
    config: Value,
    shapes: Shapes,
}

fn cases() -> (Golden, BTreeMap<String, Case>) {
    let file = Golden::open(golden("diffusers_forward.safetensors"), test_device());
    let cases = serde_json::from_str(file.metadata("cases")).unwrap();
    (file, cases)
}

fn sorted(mut tensors: Vec<(String, Tensor)>) -> Vec<(String, Tensor)> {
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    tensors
}

/// Writes the file that diffusers would have written, with its names or those of its older versions.
fn write(case: &Case, path: &Path, rename: impl Fn(&str) -> String) -> Vec<(String, Tensor)> {
    let tensors = sorted(filled(&case.shapes, case.seed));
    let renamed: Vec<_> =
        tensors.iter().map(|(name, tensor)| (rename(name), tensor.shallow_clone())).collect();
    save(path, &renamed, &BTreeMap::new()).unwrap();
    tensors
}

fn unchanged(name: &str) -> String {
    name.to_owned()
}

fn load(path: &Path, config: &UNetConfig) -> (VarStore, UNet) {
    let mut vs = VarStore::new(test_device());
    let unet = UNet::new(&vs.root(), config).unwrap();
    let layout = diffusers_layout(config).unwrap();
    Checkpoint::open(path).unwrap().into_native(&layout).load_into(&mut vs).unwrap();
    (vs, unet)
}

#[track_caller]
fn assert_same(what: &str, got: &[(String, Tensor)], want: &[(String, Tensor)]) {
    assert_eq!(got.len(), want.len(), "{what}");
    for ((got_name, got), (name, want)) in got.iter().zip(want) {
        assert_eq!((got_name, got.size(), got.kind()), (name, want.size(), want.kind()), "{what}");
        let got = got.to_device(Device::Cpu).to_kind(Kind::Double);
        assert!(got.equal(&want.to_kind(Kind::Double)), "{what}: {name}");
    }
}

#[test]
fn models_saved_by_diffusers_give_its_outputs() {
    let folder = tempfile::tempdir().unwrap();
    let (file, cases) = cases();
    assert_eq!(cases.len(), 4);
    for (name, case) in cases {
        let config = from_diffusers(&case.config).unwrap();
        let path = folder.path().join(&name);
        let tensors = write(&case, &path, unchanged);
        let (vs, unet) = load(&path, &config);
        let get = |part: &str| file.get(&format!("{name}.{part}"));
        let maybe = |part: &str| file.has(&format!("{name}.{part}")).then(|| get(part).shallow_clone());
        let cond =
            Conditioning { context: maybe("context"), label: maybe("label"), ..Conditioning::default() };
        let got = tch::no_grad(|| unet.forward(get("x"), get("t"), &cond, false));
        assert_close(&name, &got, get("y"), 1e-5);

        // And back: diffusers' file again, and its config.
        let ours: Vec<_> = vs.variables().into_iter().collect();
        let back = diffusers_layout(&config).unwrap().to_mapped(&ours).unwrap();
        assert_same(&name, &sorted(back), &tensors);
        let written = to_diffusers(&config).unwrap();
        for (key, value) in written.as_object().unwrap() {
            let theirs = case.config.get(key);
            // The block type of the last level has two equivalent names, as it does not resample.
            let equivalent = ["down_block_types", "up_block_types"].contains(&key.as_str());
            assert!(theirs == Some(value) || equivalent, "{name}: {key}: {theirs:?}, ours {value}");
        }
        let read = from_diffusers(&written).unwrap();
        assert_eq!(Plan::new(&read).unwrap(), Plan::new(&config).unwrap(), "{name}");
    }
}

#[test]
fn names_of_older_versions_are_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let (_, cases) = cases();
    let case = &cases["plain_head_width"];
    let config = from_diffusers(&case.config).unwrap();
    let (new, old) = (folder.path().join("new"), folder.path().join("old"));
    let older = |name: &str| {
        let names = [("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")];
        names.iter().fold(name.to_owned(), |name, (new, old)| name.replace(new, old))
    };
    write(case, &new, unchanged);
    write(case, &old, older);
    let read = |path: &Path| sorted(load(path, &config).0.variables().into_iter().collect());
    assert_same("older names", &read(&old), &read(&new));
}

pub(crate) fn config_of(change: Value) -> UNetConfig {
    let mut config = json!({
        "in_channels": 4, "out_channels": 3, "model_channels": 32, "num_res_blocks": 2,
        "attention_resolutions": [2, 4], "channel_mult": [1, 2, 2], "num_heads": 4,
    });
    for (key, value) in change.as_object().unwrap() {
        config[key] = value.clone();
    }
    serde_json::from_value(config).unwrap()
}

#[test]
fn round_trip_is_exact() {
    let folder = tempfile::tempdir().unwrap();
    let kinds = [Kind::Float, Kind::BFloat16, Kind::Half];
    for (change, kind) in [
        json!({"num_classes": 3}),
        json!({"use_new_attention_order": true, "resblock_updown": true, "use_scale_shift_norm": true}),
        json!({"use_spatial_transformer": true, "context_dim": 24, "transformer_depth": 2}),
    ]
    .into_iter()
    .zip(kinds)
    {
        let config = config_of(change);
        let layout = diffusers_layout(&config).unwrap();
        let tensors: Vec<(String, Tensor)> = filled(&shapes_of(&config), 3)
            .into_iter()
            .map(|(name, tensor)| (name, tensor.to_kind(kind)))
            .collect();
        let tensors = sorted(tensors);
        let mapped = layout.to_mapped(&tensors).unwrap();
        let names: BTreeSet<&String> = mapped.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), mapped.len(), "no name twice");
        let path = folder.path().join("file");
        save(&path, &mapped, &BTreeMap::new()).unwrap();
        let file = Checkpoint::open(&path).unwrap().into_native(&layout);
        let back: Vec<_> = file.names().map(|name| (name.to_owned(), file.tensor(name).unwrap())).collect();
        assert_same("back", &back, &tensors);
    }
}

#[test]
fn the_attention_order_decides_the_rows() {
    let (old, new) = (config_of(json!({})), config_of(json!({"use_new_attention_order": true})));
    let tensors = filled(&shapes_of(&old), 3);
    let theirs = |config| sorted(diffusers_layout(config).unwrap().to_mapped(&tensors).unwrap());
    let (old, new) = (theirs(&old), theirs(&new));
    let at = old.iter().position(|(name, _)| name == "mid_block.attentions.0.to_q.weight").unwrap();
    assert_eq!(old[at].0, new[at].0);
    assert!(!old[at].1.equal(&new[at].1));
    let qkv = &tensors.iter().find(|(name, _)| name == "middle_block.1.qkv.weight").unwrap().1.squeeze();
    assert!(new[at].1.equal(&qkv.narrow(0, 0, 64)), "all queries come first");
    assert!(
        old[at].1.narrow(0, 16, 16).equal(&qkv.narrow(0, 48, 16)),
        "the second head's follow the first's values"
    );
}

#[test]
fn a_mismatched_file_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let (_, cases) = cases();
    let case = &cases["plain_head_width"];
    let config = from_diffusers(&case.config).unwrap();
    let path = folder.path().join("file");
    write(case, &path, |name| {
        name.replace("mid_block.attentions.0.to_q.weight", "mid_block.attentions.0.to_x.weight")
    });
    let mut vs = VarStore::new(Device::Cpu);
    UNet::new(&vs.root(), &config).unwrap();
    let file = Checkpoint::open(&path).unwrap().into_native(&diffusers_layout(&config).unwrap());
    let error = file.load_into(&mut vs).unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "{}: 1 missing: middle_block.1.qkv.weight; 3 unexpected: middle_block.1.to_k.weight, middle_block.1.to_v.weight, middle_block.1.to_x.weight",
            path.display()
        )
    );
    let wrong =
        [("middle_block.1.proj_out.weight".to_owned(), Tensor::zeros([3, 3], (Kind::Float, Device::Cpu)))];
    let error = diffusers_layout(&config).unwrap().to_mapped(&wrong).unwrap_err().to_string();
    for part in ["`middle_block.1.proj_out.weight`", "[96, 96, 1]", "[3, 3]"] {
        assert!(error.contains(part), "{error}");
    }
}
