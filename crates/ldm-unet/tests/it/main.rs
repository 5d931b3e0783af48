//! U-Nets: plans, values, gradients, configs, names and refusals.

#![allow(clippy::unwrap_used)] // outside `#[test]` functions too a panic is a failed test

mod control_net;
mod cuda_kernels;
mod deep_features;
mod detect;
mod diffusers;
mod diffusers_configs;
mod forward;
mod gradients;
mod kernels;
mod plan;
mod recordings;
mod refusals;
mod token_merging;

use std::path::{Path, PathBuf};

use ldm_checkpoint::Shapes;
use ldm_unet::{Plan, UNetConfig};
use sha2::{Digest, Sha256};

/// A golden file.
fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// Names and shapes of the parameters of a U-Net.
fn shapes_of(config: &UNetConfig) -> Shapes {
    Plan::new(config).unwrap().parameters().into_iter().collect()
}

/// The SHA-256 digest in hexadecimal.
fn sha256(text: &str) -> String {
    Sha256::digest(text).iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"))
}
