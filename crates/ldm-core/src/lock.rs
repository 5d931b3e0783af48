//! Exclusive locks on folders.

use std::fs::{File, TryLockError};
use std::path::Path;

use crate::{Error, Result};

/// The locked file, which is empty and stays.
const NAME: &str = ".lock";

/// An exclusive lock on a folder until it is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct FolderLock {
    _file: Option<File>,
}

impl FolderLock {
    /// Locks `folder`. On a file system without locks this has no effect.
    ///
    /// # Errors
    /// [`Error::Data`] when another process holds the lock; [`Error::Io`] when the folder is not writable.
    pub fn take(folder: &Path) -> Result<Self> {
        let path = folder.join(NAME);
        let file = File::options().create(true).append(true).open(&path).map_err(Error::io(&path))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: Some(file) }),
            Err(TryLockError::WouldBlock) => {
                Err(Error::data(folder, "another process writes here; try again after its end"))
            }
            Err(TryLockError::Error(_)) => Ok(Self { _file: None }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::FolderLock;

    #[test]
    fn a_folder_has_one_holder() {
        let folder = tempfile::tempdir().unwrap();
        let held = FolderLock::take(folder.path()).unwrap();
        let error = FolderLock::take(folder.path()).unwrap_err().to_string();
        assert!(error.contains("another process writes here"), "{error}");
        drop(held);
        FolderLock::take(folder.path()).unwrap();
    }
}
