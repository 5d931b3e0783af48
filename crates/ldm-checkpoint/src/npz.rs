//! NumPy's `.npz` archives: a zip archive of `.npy` arrays.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use tch::Tensor;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use crate::chunks::each_chunk;
use crate::entry::{Deflated, Storage, TensorInfo, inflate};
use crate::memory;
use crate::npy::{HEADER, NpyHeader, npy_header};
use crate::npy_texts::npy_texts;
use crate::torch::zip_directory;
use ldm_core::{Error, Result, files};
use ldm_libtorch::{MappedFile, map_file};

/// An opened `.npz`. Arrays are read on request; pickled objects in it are never executed.
pub struct Npz {
    path: PathBuf,
    file: MappedFile,
    /// Places of the arrays, by name without `.npy`.
    entries: BTreeMap<String, Storage>,
}

impl Npz {
    /// Opens an archive, stored (`numpy.savez`) or compressed (`numpy.savez_compressed`).
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read; [`Error::Format`] when it is no zip archive.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        if std::fs::metadata(&path).map_err(Error::io(&path))?.len() == 0 {
            return Err(Error::format(&path, "expected a readable .npz, got an empty file"));
        }
        let file = map_file(&path).map_err(Error::io(&path))?;
        let entries =
            places(&file).map_err(|why| Error::format(&path, format!("expected a readable .npz: {why}")))?;
        Ok(Self { path, file, entries })
    }

    /// Returns the path it was opened from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the names of the arrays, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Returns whether there is an array `name`.
    pub fn contains(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// Returns shape and dtype of the array `name`, by its header alone.
    ///
    /// # Errors
    /// [`Error::Format`] as [`Npz::array`].
    pub fn info(&self, name: &str) -> Result<TensorInfo> {
        self.header(name).map(|(_, header)| header.info())
    }

    /// Reads the array `name`; see [`read_npy`](crate::read_npy) for its dtype.
    ///
    /// # Errors
    /// [`Error::Format`] when there is no such array, when it is damaged, of a dtype that tensors do not have, or
    /// compressed to less than a 64th of its size.
    pub fn array(&self, name: &str) -> Result<Tensor> {
        let refuse = |why: String| self.refuse(name, &why);
        let (storage, header) = self.header(name)?;
        check(storage, &header).map_err(refuse)?;
        match storage {
            Storage::Plain(range) => header.tensor(&self.file[range.clone()]),
            Storage::Deflated(Deflated { place, length, .. }) => {
                inflate(&self.file[place.clone()], *length, 0).and_then(|bytes| header.tensor(&bytes))
            }
        }
        .map_err(refuse)
    }

    /// Reads the array `name` of one axis, of texts or of integers, as texts.
    ///
    /// # Errors
    /// As [`Npz::array`], and [`Error::Format`] for more axes and other dtypes.
    pub fn texts(&self, name: &str) -> Result<Vec<String>> {
        let refuse = |why: String| self.refuse(name, &why);
        let storage = self.storage(name)?;
        check_ratio(storage).map_err(refuse)?;
        let bytes = match storage {
            Storage::Plain(range) => Cow::Borrowed(&self.file[range.clone()]),
            Storage::Deflated(Deflated { place, length, .. }) => {
                Cow::Owned(inflate(&self.file[place.clone()], *length, 0).map_err(refuse)?)
            }
        };
        npy_texts(&bytes).map_err(refuse)
    }

    fn storage(&self, name: &str) -> Result<&Storage> {
        self.entries.get(name).ok_or_else(|| {
            let names: Vec<String> =
                self.names().take(8).map(|name| name.escape_debug().to_string()).collect();
            let found = if names.is_empty() { "none".into() } else { names.join(", ") };
            self.refuse(name, &format!("expected an array of this name, got {found}"))
        })
    }

    /// Finds an array and reads its header.
    fn header(&self, name: &str) -> Result<(&Storage, NpyHeader)> {
        let storage = self.storage(name)?;
        let header = head(&self.file, storage).map_err(|why| self.refuse(name, &why))?;
        Ok((storage, header))
    }

    fn refuse(&self, name: &str, why: &str) -> Error {
        Error::format(&self.path, format!("`{}`: {why}", name.escape_debug()))
    }
}

/// Returns the places of the arrays in an archive, by name without `.npy`.
pub(crate) fn places(bytes: &[u8]) -> std::result::Result<BTreeMap<String, Storage>, String> {
    let directory = zip_directory::read(bytes)?;
    let arrays = directory.iter();
    Ok(arrays
        .filter_map(|(name, place)| Some((name.strip_suffix(".npy")?.to_owned(), place.clone())))
        .collect())
}

/// Reads the header of an array.
pub(crate) fn head(bytes: &[u8], storage: &Storage) -> std::result::Result<NpyHeader, String> {
    match storage {
        Storage::Plain(range) => NpyHeader::read(&bytes[range.clone()]),
        Storage::Deflated(Deflated { place, length, .. }) => {
            // The longest header with its magic number and length.
            let start = inflate(&bytes[place.clone()], (*length).min(HEADER + 12), 0)?;
            NpyHeader::read(&start)
        }
    }
}

/// Checks that an array fills its entry, which is not compressed out of proportion.
pub(crate) fn check(storage: &Storage, header: &NpyHeader) -> std::result::Result<(), String> {
    header.check_length(storage.len())?;
    check_ratio(storage)
}

/// Checks that an entry is not compressed out of proportion.
fn check_ratio(storage: &Storage) -> std::result::Result<(), String> {
    if let Storage::Deflated(Deflated { place, length, .. }) = storage {
        let most = memory::inflated_tensors(place.len());
        if *length > most {
            let packed = place.len();
            return Err(format!(
                "expected at most {most} bytes, by its {packed} compressed ones, got {length}"
            ));
        }
    }
    Ok(())
}

impl fmt::Debug for Npz {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Npz")
            .field("path", &self.path)
            .field("names", &self.entries.keys())
            .finish_non_exhaustive()
    }
}

/// Writes an `.npz` of uncompressed arrays, as `numpy.savez` does, atomically. The bytes depend on names and values alone.
///
/// # Errors
/// [`Error::Io`] when the file cannot be written; [`Error::Format`] for a dtype that NumPy does not have.
pub fn save_npz(path: impl AsRef<Path>, arrays: &[(String, Tensor)]) -> Result<()> {
    let path = path.as_ref();
    let failed = |error: &dyn fmt::Display| Error::format(path, format!("cannot be written: {error}"));
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    let mut buffer = Vec::new();
    for (name, tensor) in arrays {
        let head = npy_header(tensor.kind(), &tensor.size()).ok_or_else(|| {
            Error::format(path, format!("`{name}`: {:?} is no dtype of NumPy", tensor.kind()))
        })?;
        let large = tensor.numel() * tensor.kind().elt_size_in_bytes() >= u32::MAX as usize;
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .last_modified_time(zip::DateTime::default())
            .large_file(large);
        archive.start_file(format!("{name}.npy"), options).map_err(|error| failed(&error))?;
        archive.write_all(&head).map_err(|error| failed(&error))?;
        each_chunk(tensor, &mut buffer, &mut |bytes: &[u8]| {
            archive.write_all(bytes).map_err(|error| failed(&error))
        })?;
    }
    let bytes = archive.finish().map_err(|error| failed(&error))?.into_inner();
    files::write_bytes(path, &bytes)
}
