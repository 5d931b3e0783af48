//! Files of tensors and weights that commands cannot use: one sentence each, and no output.

use std::collections::BTreeMap;

use ldm_checkpoint::{Checkpoint, save};
use ldm_testing::Sandbox;
use ldm_testing::tiny::FIRST_STAGE;
use tch::{Device, Kind, Tensor};

use crate::LDM;

/// A working folder with the run `first`, which is not trained to anything.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new(LDM, &[("first.yaml", FIRST_STAGE)]);
    sandbox.ok(&["train", "first.yaml", "--run", "first", "train.steps=1"]);
    sandbox
}

fn write(sandbox: &Sandbox, file: &str, name: &str, tensor: Tensor) {
    save(sandbox.path(file), &[(name.into(), tensor)], &BTreeMap::new()).unwrap();
}

fn ones(shape: &[i64]) -> Tensor {
    Tensor::ones(shape, (Kind::Float, Device::Cpu))
}

#[test]
fn latents_and_noise() {
    let sandbox = sandbox();
    for (tensor, message) in [
        (
            ones(&[0, 4, 8, 8]),
            "tensor `latents`: expected shape [B, 4, h, w] without empty axes, got [0, 4, 8, 8]",
        ),
        (
            ones(&[1, 4, 0, 8]),
            "tensor `latents`: expected shape [B, 4, h, w] without empty axes, got [1, 4, 0, 8]",
        ),
        (ones(&[4, 8, 8]), "tensor `latents`: expected shape [B, 4, h, w], got [4, 8, 8]"),
        (
            ones(&[1, 4, 8, 8]).to_kind(Kind::Int64),
            "tensor `latents`: expected floating-point numbers, got Int64",
        ),
        (
            ones(&[1, 4, 8, 8]) * f64::NAN,
            "tensor `latents`: expected finite numbers, got NaN or Inf at [0, 0, 0, 0]",
        ),
    ] {
        write(&sandbox, "latents.safetensors", "latents", tensor);
        sandbox.err(&["decode", "latents.safetensors", "--model", "first", "--out", "x"], 1, message);
    }
    for (tensor, message) in [
        (
            ones(&[1, 4, 0, 8]),
            "tensor `noise`: expected shape [B, C, h, w] without empty axes, got [1, 4, 0, 8]",
        ),
        (ones(&[1, 4, 8, 8]) * f64::INFINITY, "tensor `noise`: expected finite numbers, got NaN or Inf"),
    ] {
        write(&sandbox, "noise.safetensors", "noise", tensor);
        let args = ["sample", "--model", "first", "--init-noise", "noise.safetensors", "--out", "x"];
        sandbox.err(&args, 1, message);
    }
}

#[test]
fn a_tensor_left_over_is_passed_over_by_ignore() {
    let sandbox = sandbox();
    let weights = sandbox.path("first/model/model.safetensors");
    let checkpoint = Checkpoint::open(&weights).unwrap();
    let mut tensors: Vec<_> =
        checkpoint.names().map(|name| (name.to_owned(), checkpoint.tensor(name).unwrap())).collect();
    tensors.push(("another.weight".into(), ones(&[2])));
    save(sandbox.path("more.safetensors"), &tensors, checkpoint.metadata()).unwrap();
    std::fs::copy(sandbox.path("first/model/config.yaml"), sandbox.path("more.yaml")).unwrap();
    write(&sandbox, "latents.safetensors", "latents", ones(&[1, 4, 8, 8]));
    let decode = ["decode", "latents.safetensors", "--model", "more.safetensors", "--out", "x"];
    sandbox.err(&decode, 1, "1 unexpected: another.weight; try --ignore NAME");
    let with = |name| [&decode[..], &["--ignore", name]].concat();
    sandbox.err(&with("other"), 1, "ignore: expected the beginning of a tensor's name, got `other`");
    sandbox.ok(&with("another."));
    let convert = ["convert", "more.safetensors", "converted", "--to", "ldm"];
    sandbox.err(&convert, 1, "1 unexpected: another.weight; try --ignore NAME");
    sandbox.ok(&[&convert[..], &["--ignore", "another."]].concat());
    let converted = Checkpoint::open(sandbox.path("converted/model.safetensors")).unwrap();
    assert_eq!(converted.shapes(), checkpoint.shapes());
}
