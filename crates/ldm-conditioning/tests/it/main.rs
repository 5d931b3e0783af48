//! Conditioners: values, tokenizers, configs, names and refusals.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers outside `#[test]` functions panic too, and a skipped test says so"
)]

mod class;
mod clip;
mod config;
mod dropout;
mod export;
mod layout;
mod manifest;
mod maps;
mod openai;
mod safety;
mod text;
mod tokenizer;
mod weighted;

use std::path::{Path, PathBuf};

use ldm_core::device::test_device;
use ldm_testing::Golden;

/// The path of a golden file.
fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// Opens a golden file of tensors.
fn open_golden(name: &str) -> Golden {
    Golden::open(golden(name), test_device())
}
