//! File formats and their detection by the first bytes.

use std::fmt;

/// The format of a checkpoint, detected from its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// A length, a JSON header, and bytes.
    Safetensors,
    /// `torch.save` since PyTorch 1.6: a zip archive of a pickle and storages.
    TorchZip,
    /// `torch.save` before PyTorch 1.6: pickles, then storages.
    TorchLegacy,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Safetensors => "safetensors",
            Self::TorchZip => "torch zip",
            Self::TorchLegacy => "torch legacy pickle",
        })
    }
}

impl Format {
    /// Detects the format, or explains what the file is instead.
    pub(crate) fn detect(bytes: &[u8]) -> Result<Self, String> {
        // A length below 2^40, then JSON. First, since a length of 640 (`80 02`) begins as a pickle does.
        if bytes.len() > 8 && bytes[5..8] == [0; 3] && bytes[8] == b'{' {
            return Ok(Self::Safetensors);
        }
        if bytes.starts_with(b"PK\x03\x04") {
            return Ok(Self::TorchZip);
        }
        // Protocol 2 and later begin with their number.
        if bytes.len() > 1 && bytes[0] == 0x80 && (2..=5).contains(&bytes[1]) {
            return Ok(Self::TorchLegacy);
        }
        Err(expected_checkpoint(describe(bytes)))
    }
}

/// Returns the error text for a file or folder that is no checkpoint.
pub(crate) fn expected_checkpoint(got: &str) -> String {
    format!("expected safetensors or a file of torch.save, got {got}")
}

/// Returns whether the file is a JSON object, such as the index of a sharded checkpoint.
pub(crate) fn is_json(bytes: &[u8]) -> bool {
    // The length of a safetensors header may begin with this character too, but text has no zero byte so early.
    bytes.trim_ascii_start().first() == Some(&b'{') && !bytes.iter().take(8).any(|byte| *byte == 0)
}

fn describe(bytes: &[u8]) -> &'static str {
    let begins = |head: &[u8]| bytes.starts_with(head);
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(512)]).trim_start().to_lowercase();
    if begins(b"version https://git-lfs") {
        "a git-lfs pointer; try `git lfs pull`"
    } else if ["<!doctype html", "<html", "<head", "<?xml"].iter().any(|tag| text.starts_with(tag)) {
        "a web page; try downloading it again"
    } else if begins(b"\x1f\x8b") {
        "a gzip archive; try unpacking it"
    } else if bytes.get(257..262) == Some(b"ustar") {
        "a tar archive; try unpacking it, or save a checkpoint of PyTorch before 0.1.10 again"
    } else if begins(b"\x89HDF") {
        "an HDF5 file"
    } else if begins(b"GGUF") {
        "a GGUF file"
    } else if bytes.iter().take(4096).all(|byte| *byte == 0) {
        "only zero bytes (an unfinished download or copy)"
    } else {
        "an unknown format"
    }
}
