//! Checks of tensors that a user's file gives to an operation.

use std::collections::BTreeMap;

use ldm_checkpoint::{Axis, Checkpoint, save};
use tch::{Device, Kind, Tensor};

fn checkpoint(tensor: Tensor) -> Checkpoint {
    let file = tempfile::NamedTempFile::new().unwrap();
    save(file.path(), &[("latents".into(), tensor)], &BTreeMap::new()).unwrap();
    Checkpoint::open(file.path()).unwrap()
}

fn ones(shape: &[i64]) -> Tensor {
    Tensor::ones(shape, (Kind::Float, Device::Cpu))
}

#[test]
fn latents_have_a_shape_a_dtype_and_finite_numbers() {
    let axes = [Axis::Any("B"), Axis::Exactly(4), Axis::Any("h"), Axis::Any("w")];
    for kind in [Kind::Double, Kind::Float, Kind::Half, Kind::BFloat16, Kind::Float8e5m2] {
        let latents = checkpoint(ones(&[2, 4, 3, 5]).to_kind(kind)).floats("latents", &axes).unwrap();
        assert_eq!((latents.size(), latents.kind()), (vec![2, 4, 3, 5], kind));
    }
    let with = |value: f64| {
        let latents = ones(&[1, 4, 2, 2]);
        let _ = latents.get(0).get(3).get(1).get(0).fill_(value);
        latents
    };
    let empty = "expected shape [B, 4, h, w] without empty axes, got";
    for (tensor, message) in [
        (ones(&[0, 4, 8, 8]), format!("{empty} [0, 4, 8, 8]")),
        (ones(&[1, 4, 0, 8]), format!("{empty} [1, 4, 0, 8]")),
        (ones(&[1, 3, 8, 8]), "expected shape [B, 4, h, w], got [1, 3, 8, 8]".into()),
        (ones(&[4, 8, 8]), "expected shape [B, 4, h, w], got [4, 8, 8]".into()),
        (ones(&[]), "expected shape [B, 4, h, w], got []".into()),
        (ones(&[1, 4, 2, 2]).to_kind(Kind::Int64), "expected floating-point numbers, got Int64".into()),
        (ones(&[1, 4, 2, 2]).to_kind(Kind::Bool), "expected floating-point numbers, got Bool".into()),
        (with(f64::NAN), "expected finite numbers, got NaN or Inf at [0, 3, 1, 0]".into()),
        (with(f64::INFINITY), "expected finite numbers, got NaN or Inf at [0, 3, 1, 0]".into()),
        (
            with(f64::NAN).to_kind(Kind::Float8e5m2),
            "expected finite numbers, got NaN or Inf at [0, 3, 1, 0]".into(),
        ),
    ] {
        let error = checkpoint(tensor).floats("latents", &axes).unwrap_err().to_string();
        assert!(error.ends_with(&format!("tensor `latents`: {message}")), "{error}");
    }
    let error = checkpoint(ones(&[1])).floats("noise\x1b[0m", &axes).unwrap_err().to_string();
    assert!(error.ends_with("no tensor `noise\\u{1b}[0m`"), "{error}");
}

#[test]
fn numbers_have_one_element() {
    for (tensor, number) in [(ones(&[]), 1.), (ones(&[1, 1]), 1.), (ones(&[1]).to_kind(Kind::Int64), 1.)] {
        assert_eq!(checkpoint(tensor).number("latents").unwrap(), number);
    }
    for (tensor, message) in [
        (ones(&[2]), "expected one number, got shape [2]"),
        (ones(&[0]), "expected one number, got shape [0]"),
        (ones(&[]) * f64::NAN, "expected a finite number, got NaN"),
    ] {
        let error = checkpoint(tensor).number("latents").unwrap_err().to_string();
        assert!(error.ends_with(&format!("tensor `latents`: {message}")), "{error}");
    }
}
