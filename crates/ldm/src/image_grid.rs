//! Grids of images.

use std::path::Path;

use ::image::RgbImage;
use ldm_core::{Result, files, image};
use tch::Tensor;

use crate::Watermark;

/// The most images of a grid, and the most pixels: a grid is to be looked at, and must fit in memory.
const MAX_IMAGES: usize = 256;
const MAX_PIXELS: u64 = 64_000_000;

/// The first images of a series, up to a limit, for one image of all.
#[derive(Debug)]
pub struct ImageGrid {
    columns: Option<usize>,
    images: Vec<RgbImage>,
    pixels: u64,
}

impl ImageGrid {
    /// An empty grid of `columns`; as many as rows where absent.
    pub fn new(columns: Option<usize>) -> Self {
        Self { columns, images: Vec::new(), pixels: 0 }
    }

    /// Adds an image if there is room for it and it has the size of the first.
    ///
    /// # Shapes
    /// - `image`: `[C, H, W]` of 1 to 4 channels in `[-1, 1]`, shown as RGB
    pub fn push(&mut self, image: &Tensor) {
        let image = image::to_rgb8(image);
        let pixels = u64::from(image.width()) * u64::from(image.height());
        let fits = self.images.len() < MAX_IMAGES && self.pixels + pixels <= MAX_PIXELS;
        let same = self.images.first().is_none_or(|first| first.dimensions() == image.dimensions());
        if self.images.is_empty() || (fits && same) {
            self.pixels += pixels;
            self.images.push(image);
        }
    }

    /// Writes the grid as PNG.
    ///
    /// # Errors
    /// As [`Watermark::apply`]; [`Error::Io`](ldm_core::Error::Io).
    ///
    /// # Panics
    /// Without images.
    pub fn save(&self, path: impl AsRef<Path>, watermark: Watermark) -> Result<()> {
        let images: Vec<Tensor> = self.images.iter().map(image::from_rgb8).collect();
        let columns = self.columns.unwrap_or_else(|| (images.len() as f64).sqrt().ceil() as usize);
        let grid = watermark.apply(&image::grid(&Tensor::stack(&images, 0), columns as i64, 2))?;
        files::write_bytes(path, &image::png(&grid, &[]))
    }
}
