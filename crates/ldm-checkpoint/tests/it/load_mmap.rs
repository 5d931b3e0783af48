//! Memory-mapped variables: values, and visibility of writes.

use std::collections::BTreeMap;
use std::path::Path;

use ldm_checkpoint::{Checkpoint, save};
use tch::nn::{Init, VarStore};
use tch::{Device, Kind, Tensor};

use crate::{assert_same_bits, golden};

fn store(names: &[&str], shape: &[i64]) -> VarStore {
    let vs = VarStore::new(Device::Cpu);
    for name in names {
        let _ = vs.root().var(name, shape, Init::Const(9.));
    }
    vs
}

fn write(path: &Path, tensors: &[(&str, &Tensor)]) {
    let named: Vec<_> = tensors.iter().map(|(name, tensor)| ((*name).to_owned(), tensor.copy())).collect();
    save(path, &named, &BTreeMap::new()).unwrap();
}

/// Four pages of values.
fn values() -> Tensor {
    Tensor::arange(4096, (Kind::Float, Device::Cpu)).view([64, 64])
}

#[test]
fn writes_to_a_mapped_variable_are_private() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    write(&path, &[("a", &values()), ("b", &-values())]);
    let before = std::fs::read(&path).unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    let mut vs = store(&["a", "b"], &[64, 64]);
    let address = vs.variables()["a"].data_ptr();
    let handle = vs.variables()["a"].shallow_clone();
    checkpoint.load_mmap(&mut vs).unwrap();
    let variable = &mut vs.variables().remove("a").unwrap();
    assert_ne!(variable.data_ptr(), address, "its own memory is released");
    assert_same_bits("a", &handle, &values());
    assert!(variable.requires_grad(), "a trainable variable stays one");

    let _ = tch::no_grad(|| variable.fill_(1.));
    assert_eq!(vs.variables()["a"].sum(Kind::Float).double_value(&[]), 4096.);
    assert_same_bits("b", &vs.variables()["b"], &-values());
    assert_same_bits("the file's", &checkpoint.tensor("a").unwrap(), &values());
    let mut other = store(&["a", "b"], &[64, 64]);
    checkpoint.load_mmap(&mut other).unwrap();
    assert_same_bits("mapped again", &other.variables()["a"], &values());
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn mapped_values_outlive_the_checkpoint_and_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    write(&path, &[("a", &values())]);
    let mut vs = store(&["a"], &[64, 64]);
    let checkpoint = Checkpoint::open(&path).unwrap();
    // Replaced by renaming: the opened file stays, even if it is mapped only now.
    write(&path, &[("a", &(values() + 1))]);
    checkpoint.load_mmap(&mut vs).unwrap();
    drop(checkpoint);
    std::fs::remove_file(&path).unwrap();
    assert_same_bits("a", &vs.variables()["a"], &values());
    let first_row = vs.variables()["a"].detach().get(0);
    drop(vs);
    assert_same_bits("a view", &first_row, &values().get(0));
}

#[test]
fn tensors_that_cannot_be_mapped_are_copied() {
    // Windows into one storage: transposed, expanded, deflated, and every alignment of a legacy file.
    for file in ["windows.ckpt", "windows_legacy.ckpt", "windows_deflated.ckpt", "windows.safetensors"] {
        let checkpoint = Checkpoint::open(golden(file)).unwrap();
        let mut vs = VarStore::new(Device::Cpu);
        for name in checkpoint.names() {
            let info = checkpoint.info(name).unwrap();
            let (modules, leaf) = name.rsplit_once('.').unwrap_or(("", name));
            let modules = modules.split('.').filter(|module| !module.is_empty());
            let path = modules.fold(vs.root(), |path, module| path / module);
            let _ = path.add(leaf, Tensor::zeros(&info.shape, (info.kind, Device::Cpu)), false);
        }
        checkpoint.load_mmap(&mut vs).unwrap();
        for (name, variable) in vs.variables() {
            assert_same_bits(&name, &variable, &checkpoint.tensor(&name).unwrap());
        }
        // Two variables never share memory, even if their tensors do in the file.
        for (name, variable) in vs.variables() {
            let mut variable = variable;
            if variable.numel() > 0 {
                let _ = variable.zero_();
            }
            for (other, tensor) in vs.variables() {
                if other != name && tensor.numel() > 0 {
                    assert!(tensor.data_ptr() != variable.data_ptr(), "{file}: {name} and {other}");
                }
            }
        }
    }
}

#[test]
fn a_variable_keeps_its_dtype_and_memory_format() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let weight = Tensor::arange(2 * 3 * 3 * 3, (Kind::Float, Device::Cpu)).view([2, 3, 3, 3]);
    write(&path, &[("w", &weight)]);
    let checkpoint = Checkpoint::open(&path).unwrap();
    let mut last = store(&["w"], &[2, 3, 3, 3]);
    ldm_libtorch::channels_last(&last);
    checkpoint.load_mmap(&mut last).unwrap();
    assert!(ldm_libtorch::is_channels_last(&last.variables()["w"]));
    assert_same_bits("channels last", &last.variables()["w"], &weight);
    let mut half = store(&["w"], &[2, 3, 3, 3]);
    half.half();
    checkpoint.load_mmap(&mut half).unwrap();
    assert_same_bits("half", &half.variables()["w"], &weight.to_kind(Kind::Half));
}

#[test]
fn nothing_changes_on_failure() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    write(&path, &[("a", &values()), ("c", &values())]);
    let mut vs = store(&["a", "b"], &[64, 64]);
    let error = Checkpoint::open(&path).unwrap().load_mmap(&mut vs).unwrap_err().to_string();
    assert!(error.ends_with("1 missing: b; 1 unexpected: c"), "{error}");
    for (name, variable) in vs.variables() {
        assert_eq!(variable.eq(9.).all().int64_value(&[]), 1, "{name}");
    }
}
