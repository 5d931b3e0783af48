//! Merging of models in conversion: weighted sum, add difference, what stays as it is, and errors.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ldm_checkpoint::{Checkpoint, save};
use ldm_pipelines::{CheckpointMerge, ConvertOptions, ConvertTarget};
use ldm_testing::relative_l2;
use tch::{Kind, Tensor};

use crate::convert::{options, run, tensors, write_filled};

const CLASS: &str = "diffusion-class.yaml";
const V: [&str; 6] = [
    "model.params.cond_stage_config=__is_unconditional__",
    "model.params.conditioning_key=null",
    "model.params.unet_config.params.use_spatial_transformer=false",
    "model.params.unet_config.params.context_dim=null",
    "model.params.parameterization=v",
    "model.params.beta_schedule=cosine",
];

/// Models A, B and C of one architecture.
fn models(name: &str, overrides: &[&str]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (model, seed) in [("a", 3), ("b", 4), ("c", 5)] {
        write_filled(&root.path().join(model), name, overrides, seed);
    }
    root
}

fn merged(root: &Path, to: ConvertTarget, weight: f64, minus: Option<&str>) -> ConvertOptions {
    let minus = minus.map(|name| root.join(name));
    let merge = CheckpointMerge { with: root.join("b"), weight, minus };
    ConvertOptions { merge: Some(merge), force: true, ..options(to) }
}

/// The bytes of every file of an output.
fn files(path: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    if path.is_file() {
        return BTreeMap::from([(PathBuf::new(), std::fs::read(path).unwrap())]);
    }
    let entries = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap());
    entries
        .flat_map(|entry| {
            let below = files(&entry.path());
            below.into_iter().map(move |(rest, bytes)| (Path::new(&entry.file_name()).join(rest), bytes))
        })
        .collect()
}

/// Replaces some tensors of a model.
fn edit(model: &Path, change: impl Fn(&str, Tensor) -> Option<Tensor>) {
    let path = model.join("model.safetensors");
    let tensors: Vec<(String, Tensor)> = tensors(&path)
        .into_iter()
        .filter_map(|(name, tensor)| Some((name.clone(), change(&name, tensor)?)))
        .collect();
    save(&path, &tensors, &BTreeMap::new()).unwrap();
}

/// Weight 0 is A, weight 1 is B, and A + w·(B − B) is A: byte for byte, in every format.
#[test]
fn the_ends_are_the_models_byte_for_byte() {
    let root = models(CLASS, &V);
    let at = |name: &str| root.path().join(name);
    // Zeros of both signs.
    edit(&at("a"), |name, tensor| {
        Some(if name.ends_with("out.2.weight") { tensor.zeros_like().neg() } else { tensor })
    });
    for (to, out) in [
        (ConvertTarget::Ldm, "out"),
        (ConvertTarget::Compvis, "out.safetensors"),
        (ConvertTarget::Diffusers, "out-d"),
    ] {
        let convert = |from: &str, how: &ConvertOptions| {
            run(&at(from), &at(out), &ConvertOptions { force: true, ..how.clone() }).unwrap();
            files(&at(out))
        };
        let [a, b] = ["a", "b"].map(|name| convert(name, &options(to)));
        assert!(a != b);
        for (weight, minus, want) in
            [(0., None, &a), (1., None, &b), (0.7, Some("b"), &a), (0., Some("c"), &a)]
        {
            let got = convert("a", &merged(root.path(), to, weight, minus));
            assert!(got == *want, "{to:?}, weight {weight}, minus {minus:?}");
        }
    }
}

/// In f32, rounded once to the dtype of A; buffers are those of A.
#[test]
fn weights_are_merged_in_f32() {
    let root = models(CLASS, &[]);
    let at = |name: &str| root.path().join(name);
    let half = |name: &str, tensor: Tensor| {
        let buffer = !name.contains('.');
        Some(if buffer { tensor } else { tensor.to_kind(Kind::Half) })
    };
    for model in ["a", "b"] {
        edit(&at(model), half);
    }
    let [a, b, c] = ["a", "b", "c"].map(|name| tensors(&at(name).join("model.safetensors")));
    for minus in [None, Some("c")] {
        run(&at("a"), &at("out"), &merged(root.path(), ConvertTarget::Ldm, 0.3, minus)).unwrap();
        let got = tensors(&at("out").join("model.safetensors"));
        assert_eq!(got.keys().collect::<Vec<_>>(), a.keys().collect::<Vec<_>>());
        for (name, got) in got {
            let wide = |of: &BTreeMap<String, Tensor>| of[&name].to_kind(Kind::Float);
            let want = match minus {
                _ if !name.contains('.') => wide(&a),
                None => wide(&a) * 0.7 + wide(&b) * 0.3,
                Some(_) => wide(&a) + (wide(&b) - wide(&c)) * 0.3,
            };
            assert_eq!(got.kind(), a[&name].kind(), "{name}");
            assert!(got == want.to_kind(got.kind()), "{name}, minus {minus:?}");
        }
    }
    // Beyond 1 it extrapolates.
    let f32s = merged(root.path(), ConvertTarget::Ldm, 1.5, None);
    run(&at("a"), &at("out"), &ConvertOptions { kind: Some(Kind::Float), ..f32s }).unwrap();
    for (name, got) in tensors(&at("out").join("model.safetensors")) {
        let wide = |of: &BTreeMap<String, Tensor>| of[&name].to_kind(Kind::Float);
        let want = if name.contains('.') { wide(&a) * -0.5 + wide(&b) * 1.5 } else { wide(&a) };
        assert!(relative_l2(&got, &want) < 1e-6, "{name}");
    }
}

/// B may have another format, and needs no config; EMA weights are taken of both, or of none.
#[test]
fn formats_may_differ_and_ema_weights_are_chosen_for_all() {
    let root = models(CLASS, &V);
    let at = |name: &str| root.path().join(name);
    for model in ["a", "b"] {
        edit(&at(model), |_, tensor| Some(tensor));
        let path = at(model).join("model.safetensors");
        let mut all: Vec<(String, Tensor)> = tensors(&path).into_iter().collect();
        let ema: Vec<(String, Tensor)> = all
            .iter()
            .filter_map(|(name, tensor)| {
                let rest = name.strip_prefix("model.")?.replace('.', "");
                Some((format!("model_ema.{rest}"), tensor * 2.))
            })
            .collect();
        all.extend(ema);
        save(&path, &all, &BTreeMap::new()).unwrap();
    }
    let whole = |ema| {
        let how = ConvertOptions { ema, ..merged(root.path(), ConvertTarget::Ldm, 0.25, None) };
        run(&at("a"), &at("out"), &how).unwrap();
        files(&at("out"))
    };
    let [with_ema, raw] = [true, false].map(whole);
    assert!(with_ema != raw);
    // B as a file alone, and as a folder of diffusers.
    std::fs::rename(at("b"), at("moved")).unwrap();
    std::fs::remove_file(at("moved").join("config.yaml")).unwrap();
    std::fs::rename(at("moved").join("model.safetensors"), at("b")).unwrap();
    assert!(whole(false) == raw && whole(true) == with_ema);
    std::fs::remove_file(at("b")).unwrap();
    write_filled(&at("again"), CLASS, &V, 4);
    run(&at("again"), &at("b"), &options(ConvertTarget::Diffusers)).unwrap();
    assert!(whole(false) == raw);
}

#[test]
fn other_models_are_refused_by_key_or_name() {
    let root = models(CLASS, &[]);
    let at = |name: &str| root.path().join(name);
    let check = |expected: &str| {
        let how = merged(root.path(), ConvertTarget::Ldm, 0.5, None);
        let error = run(&at("a"), &at("out"), &how).unwrap_err().to_string();
        assert!(error.starts_with(&at("b").display().to_string()) && error.contains(expected), "{error}");
        assert!(!at("out").exists(), "{expected}");
    };
    let rewrite = |name: &str, overrides: &[&str]| {
        std::fs::remove_dir_all(at("b")).unwrap();
        write_filled(&at("b"), name, overrides, 4);
    };
    rewrite(CLASS, &["model.params.parameterization=v"]);
    check("parameterization: expected eps, that of the first model, got v");
    rewrite(CLASS, &["model.params.beta_schedule=cosine"]);
    check("noise schedule: expected the same, that of the first model, got another");
    rewrite(CLASS, &["model.params.scale_factor=3", "model.params.scale_by_std=false"]);
    check("scale_factor: expected ");
    rewrite(CLASS, &["model.params.unet_config.params.model_channels=96"]);
    check("model.diffusion_model.");
    rewrite("first-stage-kl-f2.yaml", &[]);
    check("expected a diffusion model, as the first model, got a KL first stage");
    std::fs::remove_dir_all(at("b")).unwrap();
    check("");
    // First stages alone.
    for (model, seed) in [("first", 3), ("b", 4)] {
        write_filled(&at(model), "first-stage-kl-f2.yaml", &[], seed);
    }
    run(&at("first"), &at("out"), &merged(root.path(), ConvertTarget::Ldm, 1., None)).unwrap();
    let weights = |model: &str| at(model).join("model.safetensors");
    let [got, want] = [weights("out"), weights("b")].map(|path| Checkpoint::open(path).unwrap());
    assert!(want.names().all(|name| got.tensor(name).unwrap() == want.tensor(name).unwrap()));
}
