//! Metrics against the published implementations.

#![allow(clippy::unwrap_used)] // outside `#[test]` functions too a panic is a failed test

mod efficientnet;
mod inception;
mod lpips;
mod psnr;
mod reconstructions;
mod sets;

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
