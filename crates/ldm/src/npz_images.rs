//! Images in one NumPy archive.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use image::RgbImage;
use ldm_core::files::PendingFile;
use ldm_core::{Error, Result};
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
            self.write(&header([self.count, height as usize, width as usize, 3]))?;
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

/// Returns the header of an array of bytes. NumPy's format 1.0: magic, version, length, a Python literal padded to 64 bytes.
fn header(shape: [usize; 4]) -> Vec<u8> {
    let [images, height, width, channels] = shape;
    let shape = format!("({images}, {height}, {width}, {channels})");
    let mut literal = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}");
    let length = (10 + literal.len() + 1).next_multiple_of(64) - 10;
    literal += &" ".repeat(length - literal.len() - 1);
    literal.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((length as u16).to_le_bytes());
    bytes.extend(literal.as_bytes());
    bytes
}
