//! Files as memory.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::Path;

use crate::ffi;

/// A file's bytes, read by the operating system page by page as they are touched.
#[derive(Debug)]
pub struct Mapped(ffi::Map);

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
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
    ffi::map(&File::open(path)?).map(Mapped)
}
