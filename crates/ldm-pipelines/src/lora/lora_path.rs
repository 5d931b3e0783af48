//! Paths of LoRAs, with their strength.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ldm_core::{Error, Result};

/// A LoRA on the command line: `FILE` or `FILE=STRENGTH`.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraFile {
    /// The file, or its folder.
    pub path: PathBuf,
    /// Multiplier of the update; 1 is the update as trained.
    pub strength: f64,
}

/// File names in runs, and of diffusers.
const NAMES: [&str; 3] = ["model/lora.safetensors", "lora.safetensors", "pytorch_lora_weights.safetensors"];

impl LoraFile {
    /// Finds the file; in a folder, that of a run or of diffusers.
    ///
    /// # Errors
    /// [`Error::Io`] when the path does not exist, [`Error::Format`] when a folder holds no LoRA.
    pub(super) fn find(&self) -> Result<PathBuf> {
        let path = self.path.as_path();
        if !std::fs::metadata(path).map_err(Error::io(path))?.is_dir() {
            return Ok(path.to_path_buf());
        }
        let found = NAMES.iter().map(|name| path.join(name)).find(|file| file.is_file());
        found.ok_or_else(|| {
            Error::format(path, format!("expected {} in the folder, got none", NAMES.join(" or ")))
        })
    }
}

impl From<&Path> for LoraFile {
    fn from(path: &Path) -> Self {
        Self { path: path.to_path_buf(), strength: 1. }
    }
}

impl FromStr for LoraFile {
    type Err = Error;

    /// Parses a strength after the last `=`, where it is a number.
    fn from_str(text: &str) -> Result<Self> {
        let given = text.rsplit_once('=').and_then(|(path, word)| Some((path, word.parse::<f64>().ok()?)));
        let (path, strength) = given.unwrap_or((text, 1.));
        if path.is_empty() {
            return Err(Error::invalid(format!("expected FILE or FILE=STRENGTH, got {text}")));
        }
        if !strength.is_finite() {
            return Err(Error::invalid(format!("expected a finite strength, got {text}")));
        }
        Ok(Self { path: path.into(), strength })
    }
}

/// Writes the file stem and the strength.
impl fmt::Display for LoraFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.path.file_stem().unwrap_or_default().to_string_lossy();
        write!(f, "{name}:{}", self.strength)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strength_is_a_number_after_the_last_sign() {
        let parse = |text: &str| text.parse::<LoraFile>().map(|file| (file.path, file.strength)).ok();
        assert_eq!(parse("a.safetensors"), Some(("a.safetensors".into(), 1.)));
        assert_eq!(parse("a.safetensors=-0.5"), Some(("a.safetensors".into(), -0.5)));
        assert_eq!(parse("rank=8/a=0.8"), Some(("rank=8/a".into(), 0.8)));
        assert_eq!(parse("rank=8/a"), Some(("rank=8/a".into(), 1.)));
        assert_eq!((parse("=0.8"), parse("a=nan"), parse("")), (None, None, None));
    }
}
