//! Tensors of every kind that PyTorch's `weights_only=True` reads, and values that are passed over; the files are of
//! `golden/generate_pickles.py`.

use ldm_checkpoint::{Checkpoint, Format};
use tch::nn::{Init, VarStore};
use tch::{Device, Kind, Tensor};

use crate::{assert_same_bits, golden, refusal};

/// Values as real numbers in a dtype that safetensors has.
fn plain(tensor: &Tensor) -> Tensor {
    match tensor.kind() {
        Kind::ComplexFloat | Kind::ComplexDouble => tensor.view_as_real(),
        Kind::Float8e4m3fnuz | Kind::Float8e5m2fnuz => tensor.to_kind(Kind::Float),
        _ => tensor.shallow_clone(),
    }
}

#[test]
fn tensors_of_every_dtype_and_layout() {
    let expected = Checkpoint::open(golden("kinds.safetensors")).unwrap();
    for (file, format) in [("kinds.ckpt", Format::TorchZip), ("kinds_legacy.ckpt", Format::TorchLegacy)] {
        let checkpoint = Checkpoint::open(golden(file)).unwrap();
        assert_eq!(checkpoint.format(), format);
        assert_eq!(checkpoint.names().collect::<Vec<_>>(), expected.names().collect::<Vec<_>>());
        for name in expected.names() {
            let (tensor, want) = (checkpoint.tensor(name).unwrap(), expected.tensor(name).unwrap());
            let info = checkpoint.info(name).unwrap();
            assert_eq!((&info.shape, info.kind), (&tensor.size(), tensor.kind()), "{name}");
            assert!(tensor.is_contiguous(), "{name}");
            if name.starts_with('q') {
                // libtorch rounds the product in f32, and this crate in f64.
                assert_eq!((tensor.kind(), tensor.size()), (Kind::Float, want.size()), "{name}");
                let gap = (&tensor - &want).abs().max().double_value(&[]);
                assert!(gap <= 1e-6 * want.abs().max().double_value(&[]), "{file}: {name}: {gap}");
            } else {
                assert_same_bits(name, &plain(&tensor), &want);
            }
        }
    }
}

#[test]
fn converted_tensors_enter_a_model() {
    let checkpoint = Checkpoint::open(golden("kinds.ckpt")).unwrap();
    let mut vs = VarStore::new(Device::Cpu);
    for name in ["coo", "csr", "qchannel", "uint16"] {
        let _ = vs.root().var(name, &checkpoint.info(name).unwrap().shape, Init::Const(9.));
    }
    checkpoint
        .clone()
        .only(&["coo", "csr", "qchannel", "uint16"])
        .without(&["coo_", "qchannel_"])
        .load_mmap(&mut vs)
        .unwrap();
    for (name, variable) in vs.variables() {
        assert_eq!(variable.detach(), checkpoint.tensor(&name).unwrap().to_kind(Kind::Float), "{name}");
    }
    let mut vs = VarStore::new(Device::Cpu);
    let _ = vs.root().var("complex64", &[3, 4], Init::Const(9.));
    let error = checkpoint.only(&["complex64"]).load_into(&mut vs).unwrap_err().to_string();
    assert!(error.ends_with("tensor `complex64`: expected real numbers, got ComplexFloat"), "{error}");
    assert_eq!(vs.variables()["complex64"].eq(9.).all().int64_value(&[]), 1, "nothing changes");
}

#[test]
fn other_tensors_are_refused_by_name() {
    let expected = "expected a dense or sparse tensor, got";
    for (name, message) in [
        ("bsr", format!("{expected} a sparse tensor of torch.sparse_bsr")),
        ("nested", format!("{expected} a nested tensor")),
        ("meta", format!("{expected} a tensor without values (device meta)")),
        ("bits8", format!("{expected} a tensor of torch.bits8")),
        (
            "huge",
            "expected a sparse tensor of at most 16777216 bytes in its dense form, got shape [1048576, 1048576]; \
             try saving `tensor.to_dense()`"
                .into(),
        ),
    ] {
        let refused = refusal(&golden(&format!("refused_{name}.ckpt")));
        assert_eq!(refused, format!("tensor `{name}`: {message}"));
        let beside = Checkpoint::open(golden(&format!("beside_{name}.ckpt"))).unwrap();
        assert_eq!(beside.names().collect::<Vec<_>>(), ["w"], "passed over in an optimizer");
    }
}

#[test]
fn values_next_to_the_weights_are_passed_over() {
    for file in ["inert_2.ckpt", "inert_4.ckpt", "inert_5.ckpt", "inert_legacy.ckpt"] {
        let checkpoint = Checkpoint::open(golden(file)).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["w"], "{file}");
        assert_eq!(checkpoint.tensor("w").unwrap(), Tensor::from_slice(&[1_f32, 2.]));
    }
}

#[test]
fn state_dicts_below_wrappers() {
    for (file, names, value) in [
        ("model_state_dict", vec!["a.w"], 1.),
        ("module", vec!["a.w"], 1.),
        ("nested", vec!["a.w"], 1.),
        ("ema", vec!["a.w"], 1.),
        ("model_and_ema", vec!["a.w"], 1.),
        ("parallel", vec!["a.w"], 1.),
        ("compiled", vec!["a.w", "b.a.w"], 1.),
    ] {
        let checkpoint = Checkpoint::open(golden(&format!("wrapped_{file}.ckpt"))).unwrap();
        assert_eq!(checkpoint.names().collect::<Vec<_>>(), names, "{file}");
        for name in names {
            assert_eq!(checkpoint.tensor(name).unwrap().mean(Kind::Float).double_value(&[]), value, "{file}");
        }
    }
}

/// A pickle of protocol 2 in a zip archive would not add to these: calls are decided by names alone.
#[test]
fn functions_that_look_like_values_stay_refused() {
    for (module, name) in [
        ("torch._utils", "_import_dotted_name"),
        ("torch._utils", "_rebuild_anything"),
        ("torch.storage", "_load_from_bytes"),
        ("builtins", "type"),
        ("builtins", "getattr"),
        ("operator", "attrgetter"),
        ("functools", "partial"),
        ("pathlib", "Path.unlink"),
        ("omegaconf.omegaconf", "OmegaConf"),
        ("torch.nn.parameter", "Buffer"),
        ("datetime", "sys"),
    ] {
        let pickle = [b"\x80\x02c", module.as_bytes(), b"\n", name.as_bytes(), b"\n)R."].concat();
        let message = ldm_checkpoint::parse_pickle(&pickle).unwrap_err();
        let expected =
            format!("refused: this file wants to call `{module}.{name}`, which no checkpoint needs");
        assert_eq!(message, expected);
    }
}
