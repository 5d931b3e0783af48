//! The safetensors writer: exact, in a fixed order, atomic.

use std::collections::BTreeMap;

use ldm_checkpoint::{Checkpoint, save};
use ldm_core::Error;
use tch::{Device, Kind, Tensor};

use crate::{KINDS, assert_same_bits};

/// Tensors of every dtype with every bit in use, of many shapes.
pub(crate) fn tensors() -> Vec<(String, Tensor)> {
    let bits = Tensor::from_slice(
        &(0..2400_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect::<Vec<_>>(),
    );
    let mut tensors = Vec::new();
    for kind in KINDS {
        let of_kind = match kind {
            Kind::Bool => bits.gt(100.).view([50, 48]),
            _ => bits.view_dtype(kind).view([50, -1]),
        };
        tensors.push((format!("kind.{kind:?}"), of_kind));
    }
    let base = Tensor::arange(24, (Kind::Float, Device::Cpu)).view([2, 3, 4]);
    tensors.push(("transposed".into(), base.transpose(0, 2)));
    tensors.push(("sliced".into(), base.slice(2, 1, 4, 2)));
    tensors.push(("expanded".into(), base.narrow(0, 0, 1).expand([5, 3, 4], false)));
    tensors.push(("scalar".into(), Tensor::from(1.5_f32)));
    tensors.push(("empty".into(), Tensor::zeros([3, 0, 2], (Kind::Half, Device::Cpu))));
    tensors.push(("trained".into(), base.copy().set_requires_grad(true)));
    // Slightly more than three chunks of the writer.
    tensors.push((
        "large".into(),
        Tensor::arange(3_200_000, (Kind::Float, Device::Cpu)).view([2, 1_600_000]).tr(),
    ));
    tensors
}

pub(crate) fn metadata() -> BTreeMap<String, String> {
    BTreeMap::from([("format".into(), "pt".into()), ("config".into(), "{\"a\": \"größer\"}".into())])
}

#[test]
fn the_round_trip_is_exact_for_every_dtype_and_stride() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    save(&path, &tensors(), &metadata()).unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
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
        save(&path, tensors, &metadata()).unwrap();
        std::fs::read(path).unwrap()
    };
    let first = write("a", &tensors());
    let mut reversed = tensors();
    reversed.reverse();
    assert_eq!(first, write("b", &reversed));
    // The header's length keeps the data aligned, and each tensor is aligned to its dtype.
    let header = u64::from_le_bytes(first[..8].try_into().unwrap()) as usize;
    assert_eq!(header % 8, 0);
    let parsed = safetensors_header(&first[8..8 + header]);
    assert!(
        parsed
            .starts_with(r#"{"__metadata__":{"config":"{\"a\": \"größer\"}","format":"pt"},"kind.Double":"#)
    );
}

fn safetensors_header(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn invalid_names_are_refused_and_the_old_file_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let one = || Tensor::ones([1], (Kind::Float, Device::Cpu));
    save(&path, &[("w".into(), one())], &BTreeMap::new()).unwrap();
    let before = std::fs::read(&path).unwrap();
    for (tensors, message) in [
        (
            vec![("w".to_owned(), one()), ("w".to_owned(), one().to_kind(Kind::Half))],
            "tensor `w`: duplicate or reserved name",
        ),
        (vec![("__metadata__".to_owned(), one())], "tensor `__metadata__`: duplicate or reserved name"),
        (
            vec![("z".to_owned(), one().to_kind(Kind::ComplexFloat))],
            "tensor `z`: dtype not supported by safetensors",
        ),
    ] {
        let error = save(&path, &tensors, &BTreeMap::new()).unwrap_err();
        assert_eq!(error.to_string(), format!("{}: {message}", path.display()));
    }
    let nowhere = save(folder.path().join("none/model"), &[], &BTreeMap::new()).unwrap_err();
    assert!(matches!(nowhere, Error::Io { .. }), "{nowhere}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn no_tensors_at_all() {
    let file = tempfile::NamedTempFile::new().unwrap();
    save(file.path(), &[], &BTreeMap::new()).unwrap();
    assert_eq!(Checkpoint::open(file.path()).unwrap().names().count(), 0);
}
