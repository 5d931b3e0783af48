//! Strict loading: everything matches, or nothing changes.

use std::collections::BTreeMap;

use ldm_checkpoint::{Checkpoint, save};
use ldm_core::device::test_device;
use ldm_core::{Error, Mismatch};
use tch::nn::{Init, VarStore};
use tch::{Device, Kind, Tensor};

use crate::{assert_same_bits, golden};

fn store(variables: &[(&str, &[i64])]) -> VarStore {
    let vs = VarStore::new(test_device());
    for (name, shape) in variables {
        let mut path = vs.root();
        let (modules, leaf) = name.rsplit_once('.').unwrap_or(("", name));
        for module in modules.split('.').filter(|module| !module.is_empty()) {
            path = path / module;
        }
        let _ = path.var(leaf, shape, Init::Const(9.));
    }
    vs
}

fn file(tensors: &[(&str, Tensor)]) -> (tempfile::TempDir, Checkpoint) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let named: Vec<_> = tensors.iter().map(|(name, tensor)| ((*name).to_owned(), tensor.copy())).collect();
    save(&path, &named, &BTreeMap::new()).unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    (folder, checkpoint)
}

fn ones(shape: &[i64]) -> Tensor {
    Tensor::ones(shape, (Kind::Float, Device::Cpu))
}

fn mismatch(result: ldm_core::Result<()>) -> Mismatch {
    match result {
        Err(Error::Weights { mismatch, .. }) => mismatch,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn assert_untouched(vs: &VarStore) {
    for (name, variable) in vs.variables() {
        assert_eq!(variable.eq(9.).all().int64_value(&[]), 1, "{name}");
    }
}

#[test]
fn a_whole_pytorch_model() {
    let checkpoint = Checkpoint::open(golden("lightning.ckpt")).unwrap();
    let names: Vec<(String, Vec<i64>)> = checkpoint
        .names()
        .filter(|name| name.starts_with("model."))
        .map(|name| (name.to_owned(), checkpoint.info(name).unwrap().shape))
        .collect();
    let variables: Vec<(&str, &[i64])> =
        names.iter().map(|(name, shape)| (name.as_str(), shape.as_slice())).collect();
    let mut vs = store(&variables);
    assert_eq!(vs.len(), 6);
    checkpoint.only(&["model."]).load_into(&mut vs).unwrap();
    let twin = Checkpoint::open(golden("lightning.safetensors")).unwrap();
    for (name, variable) in vs.variables() {
        assert_same_bits(&name, &variable.to_device(Device::Cpu), &twin.tensor(&name).unwrap());
        assert!(variable.requires_grad(), "a trainable variable stays one");
    }
}

#[test]
fn every_mismatch_is_listed_at_once_and_nothing_changes() {
    let mut vs = store(&[("a.weight", &[2, 3]), ("a.bias", &[2]), ("b", &[4]), ("c", &[1])]);
    let (_folder, checkpoint) = file(&[
        ("a.weight", ones(&[3, 2])),
        ("b", ones(&[5])),
        ("c", ones(&[1])),
        ("d", ones(&[1])),
        ("e.weight", ones(&[1])),
    ]);
    let error = checkpoint.load_into(&mut vs).unwrap_err();
    let text = error.to_string();
    let expected = Mismatch {
        missing: vec!["a.bias".into()],
        unexpected: vec!["d".into(), "e.weight".into()],
        misshaped: vec![("a.weight".into(), vec![2, 3], vec![3, 2]), ("b".into(), vec![4], vec![5])],
    };
    assert_eq!(mismatch(Err(error)), expected);
    let sentence = "1 missing: a.bias; 2 unexpected: d, e.weight; \
                    2 of another shape: a.weight (model [2, 3], file [3, 2]), b (model [4], file [5])";
    assert_eq!(text, format!("{}: {sentence}", checkpoint.path().display()));
    assert_untouched(&vs);
}

#[test]
fn nothing_is_broadcast() {
    // tch's own loader would silently broadcast a [1] or a scalar to [512].
    for shape in [[1].as_slice(), &[], &[1, 512], &[512, 1]] {
        let mut vs = store(&[("bias", &[512])]);
        let (_folder, checkpoint) = file(&[("bias", ones(shape))]);
        assert_eq!(mismatch(checkpoint.load_into(&mut vs)).misshaped.len(), 1, "{shape:?}");
        assert_untouched(&vs);
    }
}

#[test]
fn a_variable_keeps_its_dtype_and_its_device() {
    let values = Tensor::from_slice(&[1.0_f32, -2.5, 1024.]);
    for (variable, in_file) in
        [(Kind::BFloat16, Kind::Float), (Kind::Float, Kind::Half), (Kind::Half, Kind::Double)]
    {
        let mut vs = store(&[("w", &[3])]);
        vs.set_kind(variable);
        let (_folder, checkpoint) = file(&[("w", values.to_kind(in_file))]);
        checkpoint.load_into(&mut vs).unwrap();
        let loaded = &vs.variables()["w"];
        assert_eq!((loaded.kind(), loaded.device()), (variable, test_device()));
        assert_eq!(loaded.to_device(Device::Cpu).to_kind(Kind::Float), values);
    }
}

#[test]
fn a_part_of_a_model() {
    let vs = store(&[("first.w", &[2]), ("second.w", &[2]), ("second.b", &[1])]);
    let (_folder, checkpoint) = file(&[("w", ones(&[2])), ("b", ones(&[1]))]);
    checkpoint.load_scope(&vs, "second.").unwrap();
    let variables = vs.variables();
    let sum = |name: &str| variables[name].sum(Kind::Float).double_value(&[]);
    assert_eq!([sum("first.w"), sum("second.w"), sum("second.b")], [18., 2., 1.]);

    let found = mismatch(checkpoint.load_scope(&vs, "first."));
    assert_eq!(found, Mismatch { unexpected: vec!["first.b".into()], ..Mismatch::default() });
    let found = mismatch(checkpoint.scope("w").load_scope(&vs, "second."));
    assert_eq!(
        (found.missing, found.unexpected),
        (vec!["second.b".into(), "second.w".into()], vec!["second.".into()])
    );
}

#[test]
fn memory_formats_are_kept() {
    let mut vs = store(&[("w", &[2, 3, 4, 5])]);
    ldm_libtorch::channels_last(&vs);
    let values = Tensor::arange(120, (Kind::Float, Device::Cpu)).view([2, 3, 4, 5]);
    let (_folder, checkpoint) = file(&[("w", values.copy())]);
    checkpoint.load_into(&mut vs).unwrap();
    let loaded = &vs.variables()["w"];
    assert!(ldm_libtorch::is_channels_last(loaded));
    assert_eq!(loaded.to_device(Device::Cpu), values);
}

#[test]
fn a_damaged_compressed_tensor_is_an_error() {
    let checkpoint = Checkpoint::open(golden("windows_deflated.ckpt")).unwrap();
    let mut bytes = std::fs::read(checkpoint.path()).unwrap();
    let place = bytes.windows(14).position(|window| window == b"another name/d").unwrap();
    let storage =
        bytes[place + 20..].windows(19).position(|window| window == b"another name/data/0").unwrap();
    // The first byte of a deflated stream is its block type; 7 is invalid.
    bytes[place + 20 + storage + 19] = 7;
    let damaged = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(damaged.path(), bytes).unwrap();
    let error = Checkpoint::open(damaged.path()).unwrap().tensor("whole").unwrap_err().to_string();
    assert!(error.contains("tensor `whole`: damaged compressed bytes"), "{error}");
}
