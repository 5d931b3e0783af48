//! Images in one NumPy archive.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use image::RgbImage;
use ldm_checkpoint::npy_header;
use ldm_core::files::PendingFile;
use ldm_core::{Error, Result};
use tch::Kind;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// Writer of an archive of `arr_0`, u8 `[B, H, W, 3]`, image by image in the memory of one. CompVis `scripts/sample_diffusion.py:135`.
#[derive(Debug)]
pub struct NpzImages {
    path: PathBuf,
    archive: ZipWriter<BufWriter<PendingFile>>,
    count: usize,
    size: Option<(u32, u32)>,
}

impl NpzImages {
    /// An archive of `count` images.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn new(path: impl AsRef<Path>, count: usize) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        let archive = ZipWriter::new(BufWriter::new(PendingFile::new(&path)?));
        Ok(Self { path, archive, count, size: None })
    }

    /// Appends an image of the size of the first.
    ///
    /// # Errors
    /// [`Error::Invalid`] for another size; [`Error::Io`].
    pub fn push(&mut self, image: &RgbImage) -> Result<()> {
        let (width, height) = image.dimensions();
        if self.size.is_none() {
            let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
            let started = self.archive.start_file("arr_0.npy", stored.large_file(true));
            started.map_err(|error| Error::io(&self.path)(error.into()))?;
            let shape = [self.count as i64, i64::from(height), i64::from(width), 3];
            self.write(&npy_header(Kind::Uint8, &shape).expect("a dtype of NumPy"))?;
        }
        let (first_width, first_height) = *self.size.get_or_insert((width, height));
        if (width, height) != (first_width, first_height) {
            let sizes = format!("{first_width}x{first_height} and {width}x{height}");
            return Err(Error::expected(self.path.display(), "images of one size", sizes));
        }
        self.write(image.as_raw())
    }

    /// Writes the end of the archive, and gives it its name.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn finish(self) -> Result<()> {
        let Self { path, archive, .. } = self;
        let writer = archive.finish().map_err(|error| Error::io(&path)(error.into()))?;
        writer.into_inner().map_err(|error| Error::io(&path)(error.into_error()))?.finish()
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.archive.write_all(bytes).map_err(Error::io(&self.path))
    }
}
