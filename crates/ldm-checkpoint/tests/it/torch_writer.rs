//! The torch writer: an exact round trip, in PyTorch's layout.
//!
//! `tests/golden/check_torch_zip.py` has PyTorch open the same file.

use std::collections::BTreeMap;

use ldm_checkpoint::{Checkpoint, Format, save, save_torch};
use ldm_core::nn::{skip_init, variable};
use tch::nn::{Init, VarStore};
use tch::{Device, Kind, Tensor};

use crate::assert_same_bits;
use crate::writer::{metadata, tensors};

#[test]
fn the_round_trip_is_exact_for_every_dtype_and_stride() {
    let folder = tempfile::tempdir().unwrap();
    // Kept on request, with the same tensors as safetensors.
    let chosen = std::env::var_os("LDM_KEEP_TORCH_ZIP").map(std::path::PathBuf::from);
    let folder = chosen.as_deref().unwrap_or(folder.path());
    let path = folder.join("written.ckpt");
    save_torch(&path, &tensors(), &metadata()).unwrap();
    save(folder.join("written.safetensors"), &tensors(), &metadata()).unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(checkpoint.format(), Format::TorchZip);
    assert_eq!(checkpoint.metadata(), &metadata());
    assert_eq!(checkpoint.names().count(), tensors().len());
    for (name, tensor) in tensors() {
        assert_same_bits(&name, &checkpoint.tensor(&name).unwrap(), &tensor.detach());
    }
}

#[test]
fn the_bytes_do_not_depend_on_the_order_given() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, tensors: &[(String, Tensor)]| {
        let path = folder.path().join(name);
        save_torch(&path, tensors, &metadata()).unwrap();
        std::fs::read(path).unwrap()
    };
    let first = write("a", &tensors());
    let mut reversed = tensors();
    reversed.reverse();
    assert_eq!(first, write("b", &reversed));
}

#[test]
fn storages_are_aligned_as_pytorch_aligns_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.ckpt");
    save_torch(&path, &tensors(), &metadata()).unwrap();
    let bytes = std::fs::read(path).unwrap();
    let mut storages = 0;
    for at in 0..bytes.len().saturating_sub(64) {
        if bytes[at..].starts_with(b"PK\x03\x04") && bytes[at + 30..].starts_with(b"archive/data/") {
            let length = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]) as usize;
            let data = at + 30 + length(at + 26) + length(at + 28);
            assert_eq!(data % 64, 0, "storage {storages}");
            storages += 1;
        }
    }
    assert_eq!(storages, tensors().len());
}

#[test]
fn invalid_tensors_are_refused_and_the_old_file_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.ckpt");
    let one = || Tensor::ones([1], (Kind::Float, Device::Cpu));
    let none = BTreeMap::new();
    save_torch(&path, &[("w".into(), one())], &none).unwrap();
    let before = std::fs::read(&path).unwrap();
    let taken = BTreeMap::from([("state_dict".to_owned(), "x".to_owned())]);
    for (tensors, metadata, message) in [
        (vec![("w".to_owned(), one()), ("w".to_owned(), one())], &none, "tensor `w`: duplicate name"),
        (
            vec![("z".to_owned(), one().to_kind(Kind::ComplexFloat))],
            &none,
            "tensor `z`: dtype not supported by torch files",
        ),
        (vec![], &taken, "metadata `state_dict`: reserved name"),
    ] {
        let error = save_torch(&path, &tensors, metadata).unwrap_err();
        assert_eq!(error.to_string(), format!("{}: {message}", path.display()));
    }
    assert!(save_torch(folder.path().join("none/model"), &[], &none).is_err());
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

/// A tensor of 4.4 GB, and one that begins beyond 4 GB. Writes to the disk, so it runs only if LDM_REFERENCE is set; the
/// file stays in the folder LDM_KEEP_TORCH_ZIP, if set, for `golden/check_torch_zip.py`.
#[test]
fn beyond_four_gigabytes() {
    const COUNT: i64 = 2_200_000_000;
    if std::env::var_os("LDM_REFERENCE").is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let chosen = std::env::var_os("LDM_KEEP_TORCH_ZIP").map(std::path::PathBuf::from);
    let path = chosen.as_deref().unwrap_or(folder.path()).join("large.ckpt");
    // Unwritten pages are zeros and take no memory.
    let large = Tensor::empty([COUNT], (Kind::Half, Device::Cpu));
    let last = Tensor::arange(5, (Kind::Float, Device::Cpu));
    large.narrow(0, COUNT - 5, 5).copy_(&last);
    save_torch(&path, &[("a.large".into(), large), ("b.last".into(), last.copy())], &metadata()).unwrap();

    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(checkpoint.metadata(), &metadata());
    assert_same_bits("b.last", &checkpoint.tensor("b.last").unwrap(), &last);
    let mut vs = VarStore::new(Device::Cpu);
    vs.set_kind(Kind::Half);
    let found = skip_init(|| variable(&(vs.root() / "a"), "large", &[COUNT], Init::Const(0.)));
    checkpoint.only(&["a."]).load_mmap(&mut vs).unwrap();
    assert_same_bits("a.large", &found.detach().narrow(0, COUNT - 5, 5), &last.to_kind(Kind::Half));
}
