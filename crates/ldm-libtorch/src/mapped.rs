//! Files as memory.

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use tch::{Kind, Tensor};

use crate::ffi;

/// A file's bytes, read by the operating system page by page as they are touched.
#[derive(Debug)]
pub struct Mapped {
    map: ffi::Map,
    /// The same file, whatever lies under its name by now.
    file: File,
}

impl Mapped {
    /// The same file once more, as memory that tensors can be made of.
    ///
    /// # Errors
    /// When the file cannot be mapped again.
    pub fn pages(&self) -> io::Result<Pages> {
        let map = Arc::new(ffi::map_private(&self.file, self.map.len())?);
        Ok(Pages { map, lent: Mutex::default() })
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}

/// Maps the file `path` for reading.
///
/// What makes it sound is a promise of whoever owns the file: nobody writes into it or cuts it short while it is
/// mapped. Files of this workspace are replaced by renaming and never changed in place, so a reader keeps the old
/// file. A file cut short by another program ends the process by a signal (SIGBUS); it cannot lead to a wrong
/// length here.
///
/// # Errors
/// When the file cannot be opened or mapped; a folder cannot.
pub fn map_file(path: impl AsRef<Path>) -> io::Result<Mapped> {
    let file = File::open(path)?;
    Ok(Mapped { map: ffi::map(&file)?, file })
}

/// A file's pages, to be lent to tensors: a tensor over them costs neither a copy nor memory of its own until it is
/// written to, and then the pages written to alone. Nothing is written to the file.
///
/// The mapping lives as long as this or any tensor made of it; pages whose tensor is gone are given back at once.
/// [`map_file`]'s promise holds as long.
#[derive(Debug)]
pub struct Pages {
    map: Arc<ffi::PrivateMap>,
    /// What was lent, so that no two tensors own one byte.
    lent: Mutex<Vec<Range<usize>>>,
}

impl Pages {
    /// A contiguous tensor on the CPU over the file's bytes from `start` on; none where they do not lie in the file,
    /// are not aligned to `kind`, or where one of them was lent before.
    ///
    /// # Panics
    /// When libtorch has no such dtype of weights.
    pub fn tensor(&self, start: usize, size: &[i64], kind: Kind) -> Option<Tensor> {
        let width = kind.elt_size_in_bytes();
        let count =
            size.iter().try_fold(1_usize, |all, each| all.checked_mul(usize::try_from(*each).ok()?))?;
        let end = count.checked_mul(width)?.checked_add(start).filter(|end| *end <= self.map.len())?;
        if count == 0 || !(self.map.as_ptr().addr() + start).is_multiple_of(width) {
            return None;
        }
        let mut lent = self.lent.lock().unwrap_or_else(PoisonError::into_inner);
        // Sorted, so that only the neighbors matter.
        let place = lent.partition_point(|range| range.end <= start);
        if lent.get(place).is_some_and(|next| next.start < end) {
            return None;
        }
        lent.insert(place, start..end);
        Some(ffi::lend(&self.map, start, size, kind).expect("sizes and a dtype that were checked"))
    }
}
