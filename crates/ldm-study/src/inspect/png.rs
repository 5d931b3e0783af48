//! The text in a PNG.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use ldm_core::{Error, PngTexts, Result, image};
use ldm_pipelines::watermark;
use serde::Serialize;

use crate::context::bail;

/// The text chunks of a PNG, and Stable Diffusion's watermark where it is found.
#[derive(Debug, Serialize)]
pub struct PngReport {
    /// The file.
    pub path: PathBuf,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Texts by keyword.
    pub texts: BTreeMap<String, String>,
}

pub(super) fn is_png(path: &Path) -> Result<bool> {
    let mut head = [0; 8];
    let count = File::open(path).and_then(|mut file| file.read(&mut head)).map_err(Error::io(path))?;
    Ok(count == 8 && head == *b"\x89PNG\r\n\x1a\n")
}

impl PngReport {
    pub(super) fn of(path: &Path) -> Result<Self> {
        let PngTexts { width, height, mut texts } = PngTexts::read(path)?;
        // Beyond this no model makes an image, and the search would take ten times the memory of it.
        if u64::from(width) * u64::from(height) <= 1 << 26 {
            let hidden = watermark::read(&image::read(path)?, watermark::STABLE_DIFFUSION.len());
            if hidden == watermark::STABLE_DIFFUSION {
                texts.insert("watermark".into(), String::from_utf8_lossy(&hidden).into_owned());
            }
        }
        Ok(Self { path: path.to_path_buf(), width, height, texts })
    }

    pub(super) fn text(&self) -> Result<String> {
        let Self { path, width, height, texts } = self;
        if texts.is_empty() {
            bail!("{}: expected an image with text, got one of {width}x{height} without", path.display());
        }
        let mut text = format!("{}: {width}x{height}\n", path.display());
        for (keyword, value) in texts {
            writeln!(text, "{keyword}: {value}").expect("writing to a string cannot fail");
        }
        Ok(text)
    }
}
