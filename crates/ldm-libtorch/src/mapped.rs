//! Memory-mapped files.

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tch::{Kind, Tensor};

use crate::ffi;

/// A memory-mapped file, read by the operating system page by page on access.
#[derive(Debug)]
pub struct MappedFile {
    map: ffi::Map,
    /// The opened file, whatever its path refers to by now.
    file: File,
    /// Its length and time of modification when it was mapped. Not the time of its last change (`ctime`): that is also
    /// new when the file is renamed or removed, which leaves the bytes alone.
    stamp: (u64, Option<SystemTime>),
}

/// Returns the length and the time of modification, if the file system has one.
fn stamp(file: &File) -> io::Result<(u64, Option<SystemTime>)> {
    let found = file.metadata()?;
    Ok((found.len(), found.modified().ok()))
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

    /// Returns whether another program wrote to the file since it was mapped, by its length and time of modification.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn changed(&self) -> io::Result<bool> {
        Ok(stamp(&self.file)? != self.stamp)
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
/// program ends the process with a signal (SIGBUS, which [`explain_bus_errors`](crate::explain_bus_errors) puts into
/// words); it cannot lead to a wrong length here. [`MappedFile::changed`] tells of a write.
///
/// # Errors
/// When the file cannot be opened or mapped, such as a folder.
pub fn map_file(path: impl AsRef<Path>) -> io::Result<MappedFile> {
    map_open_file(File::open(path)?)
}

/// [`map_file`] of a file that is open already, such as a temporary one without a name.
///
/// # Errors
/// When the file cannot be mapped.
pub fn map_open_file(file: File) -> io::Result<MappedFile> {
    let stamp = stamp(&file)?;
    Ok(MappedFile { map: ffi::map(&file)?, file, stamp })
}

/// Makes the process end with a sentence on stderr and exit code 1 where a file of [`map_file`] turns out to be truncated
/// (SIGBUS), instead of a silent signal. For the `main` of a program: it sets a process-wide signal handler.
pub fn explain_bus_errors() {
    ffi::explain_bus_errors();
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
