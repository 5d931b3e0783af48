//! Checkpoints: every format, every refusal, strict loading, and the writers.

#![allow(clippy::unwrap_used)] // outside `#[test]` functions too a panic is a failed test

mod archives;
mod changed_files;
mod formats;
mod load_mmap;
mod loader;
mod mutations;
mod names;
mod peak;
mod pickles;
mod refusals;
mod requirements;
mod shards;
mod state_dict_mapping;
mod torch_writer;
mod writer;

use std::path::PathBuf;

use ldm_checkpoint::Checkpoint;
use tch::{Kind, Tensor};

/// A golden file.
fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// The text of the error for a file, without its path.
#[track_caller]
fn refusal(path: &std::path::Path) -> String {
    let error = Checkpoint::open(path).expect_err("a file to refuse").to_string();
    let prefix = format!("{}: ", path.display());
    error.strip_prefix(&prefix).unwrap_or_else(|| panic!("the path is not named: {error}")).to_owned()
}

/// A tensor's bytes, in order.
fn bytes(tensor: &Tensor) -> Vec<u8> {
    let mut bytes = vec![0; tensor.numel() * tensor.kind().elt_size_in_bytes()];
    let count = tensor.numel();
    if count > 0 {
        tensor.contiguous().copy_data_u8(&mut bytes, count);
    }
    bytes
}

#[track_caller]
fn assert_same_bits(name: &str, got: &Tensor, want: &Tensor) {
    assert_eq!((got.kind(), got.size()), (want.kind(), want.size()), "{name}");
    assert_eq!(bytes(got), bytes(want), "{name}");
}

/// Every dtype a file may hold.
const KINDS: [Kind; 12] = [
    Kind::Double,
    Kind::Float,
    Kind::Half,
    Kind::BFloat16,
    Kind::Float8e4m3fn,
    Kind::Float8e5m2,
    Kind::Int64,
    Kind::Int,
    Kind::Int16,
    Kind::Int8,
    Kind::Uint8,
    Kind::Bool,
];
