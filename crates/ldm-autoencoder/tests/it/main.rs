//! First stages: values, gradients, configs, names and refusals.

#![allow(clippy::unwrap_used)] // outside `#[test]` functions too a panic is a failed test

mod codebook;
mod codebook_update;
mod cuda_kernels;
mod detect;
mod diffusers;
mod kernels;
mod manifest;
mod parity;
mod refusals;
mod tiled;

use std::path::{Path, PathBuf};

use ldm_autoencoder::{Autoencoder, FirstStageConfig};
use ldm_checkpoint::Shapes;
use ldm_core::NoiseSource;
use ldm_core::device::test_device;
use ldm_core::noise::Seeded;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

/// A golden file.
fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// A config file of an official model.
fn official_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../configs/models/autoencoder/{name}.yaml"))
}

/// The subtree `model` of a file, without the learning rate next to its config.
fn read_model(path: &Path) -> FirstStageConfig {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut file: serde_yaml::Value = serde_yaml::from_str(&text).unwrap();
    let mut model = file["model"].as_mapping_mut().expect("a mapping `model`").clone();
    model.remove("base_learning_rate");
    serde_yaml::from_value(serde_yaml::Value::Mapping(model))
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Names and shapes of the parameters of a first stage.
fn shapes_of(config: &FirstStageConfig) -> Shapes {
    let vs = VarStore::new(Device::Cpu);
    Autoencoder::new(&vs.root(), config).unwrap();
    vs.variables().into_iter().map(|(name, tensor)| (name, tensor.size())).collect()
}

/// Reproducible N(0, 1).
fn randn(seed: u64, size: &[i64]) -> Tensor {
    let like = Tensor::zeros([[1].as_slice(), size].concat(), (Kind::Float, test_device()));
    Seeded::new([seed]).like(&like).squeeze_dim(0)
}
