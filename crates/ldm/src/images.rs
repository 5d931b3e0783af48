//! Generated images, and reading of images.

use std::path::{Path, PathBuf};

use ldm_core::{Result, files, image};
use tch::Tensor;

use crate::Watermark;

/// Generated images, one for each seed.
#[derive(Debug)]
pub struct Images {
    pub(crate) tensor: Tensor,
    pub(crate) latents: Tensor,
    /// The `parameters` text of each.
    pub(crate) parameters: Vec<String>,
    pub(crate) watermark: Watermark,
    pub(crate) notes: Vec<String>,
    /// True for each unsafe one; empty without a safety checker.
    pub(crate) flags: Vec<bool>,
}

impl Images {
    /// The images, `[B, C, H, W]` f32 in `[-1, 1]`, not clamped.
    pub fn tensor(&self) -> &Tensor {
        &self.tensor
    }

    /// The latents, `[B, C, h, w]` f32, scaled.
    pub fn latents(&self) -> &Tensor {
        &self.latents
    }

    /// The number of images.
    pub fn len(&self) -> usize {
        self.parameters.len()
    }

    /// `true` when there are no images.
    pub fn is_empty(&self) -> bool {
        self.parameters.is_empty()
    }

    /// Each image, `[C, H, W]`.
    pub fn iter(&self) -> impl Iterator<Item = Tensor> {
        (0..self.len() as i64).map(|index| self.tensor.get(index))
    }

    /// The `parameters` text of image `index`.
    ///
    /// # Panics
    /// When there is no such image.
    pub fn parameters(&self, index: usize) -> &str {
        &self.parameters[index]
    }

    /// Warnings: prompts that were cut, settings of a diffusers folder that are not followed, decoding in f32.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// True for each image that the safety checker found unsafe; empty without a safety checker.
    pub fn flagged(&self) -> &[bool] {
        &self.flags
    }

    /// Image `index` with its watermark as a PNG with its `parameters`, the bytes that [`save`](Self::save) writes.
    ///
    /// # Errors
    /// As [`Watermark::apply`].
    ///
    /// # Panics
    /// When there is no such image.
    pub fn png(&self, index: usize) -> Result<Vec<u8>> {
        self.png_with(index, &self.parameters[index])
    }

    /// As [`png`](Self::png), with another text `parameters`.
    ///
    /// # Errors
    /// As [`Watermark::apply`].
    ///
    /// # Panics
    /// When there is no such image.
    pub fn png_with(&self, index: usize, parameters: &str) -> Result<Vec<u8>> {
        let pixels = self.watermark.apply(&self.tensor.get(index as i64))?;
        Ok(image::png(&pixels, &[("parameters", parameters)]))
    }

    /// Writes PNGs with their `parameters`: a single image to `path`, several to `path` with their number before the
    /// extension (`out-00000.png`). Returns the paths.
    ///
    /// # Errors
    /// [`Error::Io`](ldm_core::Error::Io) when a file cannot be written; as [`Watermark::apply`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<Vec<PathBuf>> {
        let path = path.as_ref();
        let mut written = Vec::new();
        for index in 0..self.len() {
            let path = if self.len() == 1 { path.to_path_buf() } else { numbered(path, index) };
            files::write_bytes(&path, &self.png(index)?)?;
            written.push(path);
        }
        Ok(written)
    }
}

fn numbered(path: &Path, index: usize) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let end = path.extension().map_or("png".into(), |end| end.to_string_lossy());
    path.with_file_name(format!("{stem}-{index:05}.{end}"))
}

/// Reads an image file as `[1, 3, H, W]` in `[-1, 1]`.
///
/// # Errors
/// [`Error::Io`](ldm_core::Error::Io) and [`Error::Format`](ldm_core::Error::Format) when it cannot be read.
pub fn read_image(path: impl AsRef<Path>) -> Result<Tensor> {
    Ok(image::from_rgb8(&image::read(path)?).unsqueeze(0))
}
