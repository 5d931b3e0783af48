//! An opened file of tensors.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ldm_core::{Error, Result};
use ldm_libtorch::MappedFile;

use crate::entry::{Deflated, inflate};

/// A mapped file, its path, and the storage that was inflated last.
#[derive(Debug)]
pub(crate) struct SourceFile {
    map: MappedFile,
    path: PathBuf,
    /// The start of a shared storage in the file, and its bytes.
    inflated: Mutex<Option<(usize, Arc<Vec<u8>>)>>,
}

impl SourceFile {
    pub(crate) fn new(path: &Path, map: MappedFile) -> Self {
        Self { map, path: path.to_path_buf(), inflated: Mutex::default() }
    }

    pub(crate) fn map(&self) -> &MappedFile {
        &self.map
    }

    /// Checks that nobody wrote to the file since it was opened.
    pub(crate) fn check_unchanged(&self) -> Result<()> {
        if self.map.changed().map_err(Error::io(&self.path))? {
            return Err(Error::format(
                &self.path,
                "expected an unchanged file, got one that another program wrote to while it was in use; \
                 try again, and replace files by renaming",
            ));
        }
        Ok(())
    }

    /// Returns the bytes of a deflated storage. One of several tensors is kept until another is read, so that reading
    /// these in turn inflates it once.
    pub(crate) fn inflated(&self, deflated: &Deflated) -> std::result::Result<Arc<Vec<u8>>, String> {
        let fresh =
            || Ok::<_, String>(Arc::new(inflate(&self.map[deflated.place.clone()], deflated.length, 0)?));
        if !deflated.shared {
            return fresh();
        }
        let mut kept = self.inflated.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((start, bytes)) = &*kept
            && *start == deflated.place.start
        {
            return Ok(bytes.clone());
        }
        *kept = None; // never two in memory
        let bytes = fresh()?;
        *kept = Some((deflated.place.start, bytes.clone()));
        Ok(bytes)
    }

    /// Drops the storage that was inflated last.
    pub(crate) fn drop_inflated(&self) {
        *self.inflated.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// The files of a checkpoint, to be checked for changes after their tensors were used: a program that writes to a file in
/// place (`cp`, `rsync --inplace`, `wget -c`) also changes the memory-mapped weights of a model. A file may be renamed,
/// replaced by renaming, or removed at any time.
#[derive(Debug, Clone, Default)]
pub struct FileWatch {
    pub(crate) files: Vec<Arc<SourceFile>>,
}

impl FileWatch {
    /// Checks that no program wrote to the files since they were opened.
    ///
    /// # Errors
    /// [`Error::Format`] for a file of another length or time of modification.
    pub fn check(&self) -> Result<()> {
        self.files.iter().try_for_each(|file| file.check_unchanged())
    }
}

impl Deref for SourceFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}
