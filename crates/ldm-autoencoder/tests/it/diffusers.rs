//! Conversion from and to diffusers: configs, names, shapes and values; `golden/generate_diffusers.py` ran diffusers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use ldm_autoencoder::{
    Autoencoder, FirstStage, FirstStageConfig, Posterior, diffusers_layout, from_diffusers, to_diffusers,
};
use ldm_checkpoint::{Checkpoint, Shapes, StateDictMapping, save};
use ldm_core::device::test_device;
use ldm_testing::{Golden, assert_close, filled};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

use crate::{golden, official_path, read_model, shapes_of};

/// The part of a config that defines the network.
fn network(config: &FirstStageConfig) -> (i64, Option<i64>, String) {
    match config {
        FirstStageConfig::Kl(kl) => (kl.embed_dim, None, format!("{:?}", kl.ddconfig)),
        FirstStageConfig::Vq(vq) => (vq.embed_dim, Some(vq.n_embed), format!("{:?}", vq.ddconfig)),
        FirstStageConfig::Identity(_) => panic!("no autoencoder"),
    }
}

/// As `digest` of `generate_diffusers.py`.
fn digest(lines: impl Iterator<Item = String>) -> String {
    let mut lines: Vec<String> = lines.map(|line| line + "\n").collect();
    lines.sort();
    Sha256::digest(lines.concat()).iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

#[derive(Deserialize)]
struct Official {
    models: BTreeMap<String, Model>,
}

#[derive(Deserialize)]
struct Model {
    config: Value,
    tensors: usize,
    shapes_sha256: String,
    names_sha256: Option<String>,
}

#[test]
fn official_models_are_diffusers_models() {
    let text = std::fs::read_to_string(golden("diffusers_official.json")).unwrap();
    let official: Official = serde_json::from_str(&text).unwrap();
    assert_eq!(official.models.len(), 9);
    let mut tables = 0;
    for (name, model) in official.models {
        let config = read_model(&official_path(&name));
        let written = to_diffusers(&config, 0.5).unwrap();
        for (key, value) in written.as_object().unwrap() {
            assert_eq!(model.config.get(key), Some(value), "{name}: {key}");
        }
        let (read, scale) = from_diffusers(&model.config).unwrap();
        assert_eq!((network(&read), scale), (network(&config), 0.5), "{name}");

        let native = shapes_of(&config);
        let layout = diffusers_layout(&config).unwrap();
        let mapped = layout.mapped_shapes(&native);
        assert_eq!((mapped.len(), native.len()), (model.tensors, model.tensors), "{name}: a bijection");
        let lines = mapped.iter().map(|(key, shape)| format!("{key} {shape:?}"));
        assert_eq!(digest(lines), model.shapes_sha256, "{name}: names and shapes");
        for key in mapped.keys() {
            assert!(native.contains_key(&layout.keys.apply(key)), "{name}: {key} leads nowhere");
        }
        if let Some(hash) = model.names_sha256 {
            let back = layout.keys.inverse();
            let table = native.keys().map(|key| format!("{} {key}", back.apply(key)));
            assert_eq!(digest(table), hash, "{name}: mapping of names");
            tables += 1;
        }
    }
    assert_eq!(tables, 4, "models that diffusers converts itself");
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

/// Writes the file that diffusers would have written, with its names or those of its older versions.
fn write(case: &Case, path: &Path, rename: impl Fn(&str) -> String) -> Vec<(String, Tensor)> {
    let mut tensors = filled(&case.shapes, case.seed);
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    let renamed: Vec<_> =
        tensors.iter().map(|(name, tensor)| (rename(name), tensor.shallow_clone())).collect();
    save(path, &renamed, &BTreeMap::new()).unwrap();
    tensors
}

fn unchanged(name: &str) -> String {
    name.to_owned()
}

fn load(path: &Path, config: &FirstStageConfig) -> (VarStore, Autoencoder) {
    let mut vs = VarStore::new(test_device());
    let model = Autoencoder::new(&vs.root(), config).unwrap();
    let layout = diffusers_layout(config).unwrap();
    Checkpoint::open(path).unwrap().into_native(&layout).load_into(&mut vs).unwrap();
    (vs, model)
}

#[test]
fn models_saved_by_diffusers_give_its_outputs() {
    let folder = tempfile::tempdir().unwrap();
    let (file, cases) = cases();
    assert_eq!(cases.len(), 3);
    for (name, case) in cases {
        let (config, scale) = from_diffusers(&case.config).unwrap();
        assert_eq!(Some(scale), case.config["scaling_factor"].as_f64());
        let path = folder.path().join(&name);
        let tensors = write(&case, &path, unchanged);
        let (vs, model) = load(&path, &config);
        let get = |part: &str| file.get(&format!("{name}.{part}"));
        let want = match config {
            FirstStageConfig::Kl(_) => Posterior::from_moments(get("h")).mode(),
            _ => get("h").shallow_clone(),
        };
        let got = tch::no_grad(|| (model.encode(get("x")).mode(), model.decode(get("z"))));
        assert_close(&format!("{name}: encode"), &got.0, &want, 1e-5);
        assert_close(&format!("{name}: decode"), &got.1, get("y"), 1e-5);

        // And back: diffusers' file again, and its config.
        let ours: Vec<_> = vs.variables().into_iter().collect();
        let mut back = diffusers_layout(&config).unwrap().to_mapped(&ours).unwrap();
        back.sort_by(|a, b| a.0.cmp(&b.0));
        assert_same(&name, &back, &tensors);
        for (key, value) in to_diffusers(&config, scale).unwrap().as_object().unwrap() {
            assert_eq!(case.config.get(key), Some(value), "{name}: {key}");
        }
    }
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
fn names_of_older_versions_are_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let (_, cases) = cases();
    let case = &cases["kl"];
    let (config, _) = from_diffusers(&case.config).unwrap();
    let (new, old) = (folder.path().join("new"), folder.path().join("old"));
    let older = |name: &str| {
        let names = [("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")];
        names.iter().fold(name.to_owned(), |name, (new, old)| name.replace(new, old))
    };
    write(case, &new, unchanged);
    write(case, &old, older);
    let read = |path: &Path| {
        let mut all: Vec<_> = load(path, &config).0.variables().into_iter().collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    };
    assert_same("older names", &read(&old), &read(&new));
}

#[test]
fn round_trip_is_exact() {
    let folder = tempfile::tempdir().unwrap();
    let ddconfig = json!({
        "double_z": false, "z_channels": 3, "resolution": 32, "in_channels": 3, "out_ch": 3, "ch": 32,
        "ch_mult": [1, 2, 1], "num_res_blocks": 2, "attn_resolutions": [32, 8],
    });
    let config: FirstStageConfig = serde_json::from_value(json!({
        "target": "vq", "params": { "embed_dim": 5, "n_embed": 7, "ddconfig": ddconfig },
    }))
    .unwrap();
    let layout: StateDictMapping = diffusers_layout(&config).unwrap();
    for kind in [Kind::Float, Kind::BFloat16, Kind::Half] {
        let mut tensors: Vec<(String, Tensor)> = filled(&shapes_of(&config), 3)
            .into_iter()
            .map(|(name, tensor)| (name, tensor.to_kind(kind)))
            .collect();
        tensors.sort_by(|a, b| a.0.cmp(&b.0));
        let mapped = layout.to_mapped(&tensors).unwrap();
        let names: BTreeSet<&String> = mapped.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), tensors.len());
        let path = folder.path().join("file");
        save(&path, &mapped, &BTreeMap::new()).unwrap();
        let file = Checkpoint::open(&path).unwrap().into_native(&layout);
        let back: Vec<_> = file.names().map(|name| (name.to_owned(), file.tensor(name).unwrap())).collect();
        assert_same("back", &back, &tensors);
    }
}

fn kl() -> Value {
    json!({
        "_class_name": "AutoencoderKL", "block_out_channels": [32, 64], "latent_channels": 4, "sample_size": 64,
        "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D"],
        "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D"],
    })
}

#[test]
fn absent_fields_have_the_defaults_of_diffusers() {
    let (config, scale) = from_diffusers(&kl()).unwrap();
    let FirstStageConfig::Kl(kl_config) = &config else { panic!("a KL autoencoder") };
    assert_eq!((scale, kl_config.embed_dim, kl_config.ddconfig.num_res_blocks), (0.18215, 4, 1));
    let mut vq = kl();
    vq["_class_name"] = "VQModel".into();
    vq["a_field_of_tomorrow"] = 1.into();
    let (config, scale) = from_diffusers(&vq).unwrap();
    let FirstStageConfig::Vq(vq) = &config else { panic!("a VQ autoencoder") };
    assert_eq!((scale, vq.embed_dim, vq.n_embed), (1., 4, 256));
}

#[track_caller]
fn check_refused(key: &str, value: Value, message: &str) {
    let mut json = kl();
    json[key] = value;
    assert_eq!(from_diffusers(&json).unwrap_err().to_string(), message);
}

#[test]
fn unsupported_values_are_refused_by_name() {
    check_refused(
        "_class_name",
        json!("AutoencoderTiny"),
        r#"`_class_name`: expected AutoencoderKL or VQModel, got "AutoencoderTiny""#,
    );
    check_refused("act_fn", json!("gelu"), r#"`act_fn`: expected "silu" or "swish", got "gelu""#);
    check_refused("norm_num_groups", json!(16), "`norm_num_groups`: expected 32, got 16");
    check_refused("shift_factor", json!(0.1), "`shift_factor`: expected null or 0, got 0.1");
    check_refused("use_quant_conv", json!(false), "`use_quant_conv`: expected true, got false");
    check_refused("latents_mean", json!([0.5]), "`latents_mean`: expected null, got [0.5]");
    check_refused("scaling_factor", json!(0), "`scaling_factor`: expected a positive number, got 0");
    check_refused(
        "block_out_channels",
        json!([64, 96]),
        "`block_out_channels`: expected 1 to 31 multiples of the first, got [64,96]",
    );
    check_refused(
        "down_block_types",
        json!(["DownEncoderBlock2D", "KDownBlock2D"]),
        r#"`down_block_types`: expected 2 of DownEncoderBlock2D and AttnDownEncoderBlock2D, got ["DownEncoderBlock2D","KDownBlock2D"]"#,
    );
    check_refused(
        "up_block_types",
        json!(["AttnUpDecoderBlock2D", "UpDecoderBlock2D"]),
        r#"`up_block_types`: expected the mirror of down_block_types, got ["AttnUpDecoderBlock2D","UpDecoderBlock2D"]"#,
    );
    check_refused(
        "layers_per_block",
        json!("two"),
        r#"`layers_per_block`: expected a whole number, got "two""#,
    );
    assert_eq!(from_diffusers(&json!([])).unwrap_err().to_string(), "expected a JSON object");
}

#[test]
fn models_unknown_to_diffusers_are_refused_by_name() {
    for (change, message) in [
        (json!({"embed_dim": 3}), "`embed_dim`: expected 4, the z_channels"),
        (json!({"colorize_nlabels": 9}), "`colorize_nlabels`: expected none"),
        (json!({"ddconfig": {"ch_mult": [2, 2]}}), "`ddconfig.ch_mult`: expected 1 first"),
        (json!({"ddconfig": {"attn_type": "linear"}}), "`ddconfig.attn_type`: expected vanilla or none"),
        (json!({"ddconfig": {"resamp_with_conv": false}}), "`ddconfig.resamp_with_conv`: expected true"),
        (json!({"ddconfig": {"tanh_out": true}}), "`ddconfig.tanh_out`: expected false"),
        (json!({"ddconfig": {"give_pre_end": true}}), "`ddconfig.give_pre_end`: expected false"),
        (
            json!({"ddconfig": {"resolution": 65, "attn_resolutions": [64]}}),
            "`ddconfig.resolution`: expected a multiple of 2",
        ),
    ] {
        let mut params = json!({"embed_dim": 4, "ddconfig": {
            "z_channels": 4, "resolution": 64, "in_channels": 3, "out_ch": 3, "ch": 32, "ch_mult": [1, 2],
            "num_res_blocks": 1, "attn_resolutions": [],
        }});
        for (key, value) in change.as_object().unwrap() {
            match value.as_object() {
                Some(inner) => inner.iter().for_each(|(inner, value)| params[key][inner] = value.clone()),
                None => params[key] = value.clone(),
            }
        }
        let config: FirstStageConfig =
            serde_json::from_value(json!({"target": "kl", "params": params})).unwrap();
        let error = to_diffusers(&config, 1.).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{message} (the only value in diffusers), got ")), "{error}");
        assert_eq!(diffusers_layout(&config).unwrap_err().to_string(), error);
    }
    let error = to_diffusers(&FirstStageConfig::Identity(None), 1.).unwrap_err().to_string();
    assert_eq!(error, "`target`: expected `kl` or `vq`, which diffusers has, got identity");
}
