//! Memory-mapped files.

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use tch::{Kind, Tensor};

use crate::ffi;

/// A memory-mapped file, read by the operating system page by page on access.
#[derive(Debug)]
pub struct MappedFile {
    map: ffi::Map,
    /// The opened file, whatever its path refers to by now.
    file: File,
}

impl MappedFile {
    /// Maps the file again, as memory for tensors.
    ///
    /// # Errors
    /// When the file cannot be mapped again.
    pub fn pages(&self) -> io::Result<MappedPages> {
        let map = Arc::new(ffi::map_private(&self.file, self.map.len())?);
        Ok(MappedPages { map, taken: Mutex::default() })
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}

/// Maps the file `path` for reading.
///
/// Soundness relies on a promise: nobody writes to the file or truncates it while it is mapped. Files of this workspace
/// are replaced by renaming and never changed in place, so a reader keeps the old file. A file truncated by another
/// program ends the process with a signal (SIGBUS); it cannot lead to a wrong length here.
///
/// # Errors
/// When the file cannot be opened or mapped, such as a folder.
pub fn map_file(path: impl AsRef<Path>) -> io::Result<MappedFile> {
    let file = File::open(path)?;
    Ok(MappedFile { map: ffi::map(&file)?, file })
}

/// A file's pages, for tensors: a tensor over them needs no copy, and memory of its own only for the pages it writes to.
/// Nothing is written to the file.
///
/// The mapping lives as long as this value or any tensor over it; the pages of a dropped tensor are released at once.
/// The promise of [`map_file`] must hold as long.
#[derive(Debug)]
pub struct MappedPages {
    map: Arc<ffi::PrivateMap>,
    /// The ranges of tensors, sorted and disjoint, so that no two tensors share a byte.
    taken: Mutex<Vec<Range<usize>>>,
}

impl MappedPages {
    /// Creates a contiguous CPU tensor over the file's bytes from `start` on; `None` if they do not lie in the file, are
    /// not aligned to `kind`, or overlap an earlier tensor.
    ///
    /// # Panics
    /// When `kind` is not a dtype of weights.
    pub fn tensor(&self, start: usize, size: &[i64], kind: Kind) -> Option<Tensor> {
        let width = kind.elt_size_in_bytes();
        let count =
            size.iter().try_fold(1_usize, |all, each| all.checked_mul(usize::try_from(*each).ok()?))?;
        let end = count.checked_mul(width)?.checked_add(start).filter(|end| *end <= self.map.len())?;
        if count == 0 || !(self.map.as_ptr().addr() + start).is_multiple_of(width) {
            return None;
        }
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        // Sorted, so that only the neighbors matter.
        let place = taken.partition_point(|range| range.end <= start);
        if taken.get(place).is_some_and(|next| next.start < end) {
            return None;
        }
        taken.insert(place, start..end);
        Some(ffi::map_tensor(&self.map, start, size, kind).expect("checked sizes and dtype"))
    }
}
