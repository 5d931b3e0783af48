//! Mask files of inpainting.

use std::path::{Path, PathBuf};

use image::RgbImage;
use image::imageops;
use ldm_core::image::{self as images, read_mask};
use ldm_core::{Error, Result};
use ldm_data::{Interpolation, resize as resized};
use tch::{Kind, Tensor};

use crate::{InputImages, InputSize};

/// The least gray level that is filled.
const WHITE: u8 = 128;

/// The mask of an image: white, or opaque where the file has transparent pixels, is filled.
#[derive(Debug)]
pub struct MaskFile {
    /// The file.
    pub path: PathBuf,
    /// Gray levels in three equal channels, or colors.
    pub pixels: RgbImage,
    /// True if the alpha channel is the mask.
    pub by_alpha: bool,
}

impl MaskFile {
    /// Returns the mask of an image: `mask` itself, or from the folder `mask` the image file of the same name, before the
    /// extension, or of that name with `_mask` appended.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the folder has none; [`Error::Io`] when it cannot be read.
    pub fn find(image: &Path, mask: &Path) -> Result<PathBuf> {
        if !mask.is_dir() {
            return Ok(mask.to_path_buf());
        }
        let name = image.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let masks = InputImages::find(mask)?.paths;
        let find = |name: &str| {
            masks
                .iter()
                .find(|path| path.file_stem().unwrap_or_default().to_string_lossy() == name && *path != image)
        };
        find(&format!("{name}_mask")).or_else(|| find(&name)).cloned().ok_or_else(|| {
            let expected = format!("a mask for {}, {name}_mask.png or {name}.png", image.display());
            Error::expected(mask.display(), expected, "none")
        })
    }

    /// Reads the mask of an image of `size`, width and height; with `resize`, one of another size is resized to the nearest
    /// pixel.
    ///
    /// # Errors
    /// As [`read_mask`]; [`Error::Invalid`] for another size.
    pub fn read(path: &Path, size: (u32, u32), resize: bool) -> Result<Self> {
        let (mut pixels, by_alpha) = read_mask(path)?;
        if pixels.dimensions() != size {
            let ((width, height), (w, h)) = (size, pixels.dimensions());
            if !resize {
                let got = format!("{w}x{h}; try --resize-mask");
                return Err(Error::expected(path.display(), format!("{width}x{height}, as the image"), got));
            }
            pixels = resized(&pixels, width, height, Interpolation::Nearest);
        }
        Ok(Self { path: path.to_path_buf(), pixels, by_alpha })
    }

    /// Reads an image, `[1, 3, H, W]` in `[-1, 1]`, and its mask, `[1, 1, H, W]` of 0 and 1, both resized and cropped by `size`;
    /// and true if the alpha channel is the mask.
    ///
    /// # Errors
    /// As [`MaskFile::read`] and [`MaskFile::area`].
    pub fn read_with_image(
        image: &Path,
        mask: &Path,
        size: InputSize,
        resize: bool,
    ) -> Result<(Tensor, Tensor, bool)> {
        let pixels = images::read(image)?;
        let mut found = Self::read(mask, pixels.dimensions(), resize)?;
        let pixels = size.fit(pixels, Interpolation::Bicubic, image)?;
        found.pixels = size.fit(found.pixels, Interpolation::Nearest, mask)?;
        Ok((images::from_rgb8(&pixels).unsqueeze(0), found.area()?, found.by_alpha))
    }

    /// Returns the area to fill as `[1, 1, H, W]`, 0 or 1.
    ///
    /// # Errors
    /// [`Error::Invalid`] when there is none.
    pub fn area(&self) -> Result<Tensor> {
        let gray = imageops::grayscale(&self.pixels);
        if gray.iter().all(|value| *value < WHITE) {
            let color = if self.by_alpha { "opaque" } else { "white" };
            return Err(Error::expected(self.path.display(), format!("{color} pixels in the mask"), "none"));
        }
        let size = [1, 1, i64::from(gray.height()), i64::from(gray.width())];
        Ok(Tensor::from_slice(gray.as_raw()).view(size).ge(i64::from(WHITE)).to_kind(Kind::Float))
    }
}
