//! Dispatch to the reader of a file's format.

use crate::contents::FileContents;
use crate::format::Format;
use crate::{safetensors, torch};

/// Reads the names and places of a file's tensors.
pub(crate) fn read_bytes(bytes: &[u8]) -> Result<(Format, FileContents), String> {
    let format = Format::detect(bytes)?;
    let contents = match format {
        Format::Safetensors => safetensors::read(bytes),
        Format::TorchZip => torch::zip::read(bytes),
        Format::TorchLegacy => torch::legacy::read(bytes),
    };
    Ok((format, contents?))
}
