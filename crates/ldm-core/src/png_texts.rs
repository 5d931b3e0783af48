//! Text chunks of PNG files.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Seek};
use std::path::Path;

use crate::{Error, Result, image};

/// Limit of a compressed text in bytes; that of libpng is 8 MB.
const LARGEST_TEXT: usize = 1 << 20;

/// The size of a PNG and its text chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PngTexts {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Texts by keyword.
    pub texts: BTreeMap<String, String>,
}

impl PngTexts {
    /// Reads the chunks of the file at `path`, before and after its image.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Format`] when it is not a PNG, is damaged, claims an image of more than
    /// [`image::LARGEST`] bytes, or has a compressed text of more than a megabyte.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = File::open(path).map_err(Error::io(path))?;
        Self::read_from(BufReader::new(file), path)
    }

    /// Reads the chunks of a PNG in memory; errors name it `name`.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn parse(bytes: &[u8], name: impl AsRef<Path>) -> Result<Self> {
        Self::read_from(Cursor::new(bytes), name.as_ref())
    }

    fn read_from(source: impl BufRead + Seek, path: &Path) -> Result<Self> {
        let damaged = |error: png::DecodingError| match error {
            png::DecodingError::IoError(source) => Error::io(path)(source),
            other => Error::format(path, other.to_string()),
        };
        let mut decoder = png::Decoder::new(source);
        // As a compressed text, a profile may expand to any size.
        decoder.set_ignore_iccp_chunk(true);
        let mut reader = decoder.read_info().map_err(damaged)?;
        // Texts may come after the image data, which is read in rows: its size is a claim of the file.
        let (width, height) = (reader.info().width, reader.info().height);
        if reader.output_buffer_size().is_none_or(|size| size as u64 > image::LARGEST) {
            let most = image::LARGEST;
            let why = format!("expected an image of at most {most} bytes, got {width}x{height}");
            return Err(Error::format(path, why));
        }
        while reader.next_row().map_err(damaged)?.is_some() {}
        reader.finish().map_err(damaged)?;
        let info = reader.info();
        let mut texts: BTreeMap<String, String> = BTreeMap::new();
        for chunk in &info.utf8_text {
            let mut chunk = chunk.clone();
            chunk.decompress_text_with_limit(LARGEST_TEXT).map_err(damaged)?;
            texts.insert(chunk.keyword.clone(), chunk.get_text().map_err(damaged)?);
        }
        for chunk in &info.compressed_latin1_text {
            let mut chunk = chunk.clone();
            chunk.decompress_text_with_limit(LARGEST_TEXT).map_err(damaged)?;
            texts.insert(chunk.keyword.clone(), chunk.get_text().map_err(damaged)?);
        }
        for chunk in &info.uncompressed_latin1_text {
            texts.insert(chunk.keyword.clone(), chunk.text.clone());
        }
        Ok(Self { width, height, texts })
    }
}
