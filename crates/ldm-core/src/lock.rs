//! One process at a time for a folder that is written to.

use std::fs::{File, TryLockError};
use std::path::Path;

use crate::{Error, Result};

/// The file that is locked; it stays, and says nothing.
const NAME: &str = ".lock";

/// A folder is this process' own while it lives; it ends with the process, however that ends.
#[derive(Debug)]
pub struct FolderLock {
    _file: Option<File>,
}

impl FolderLock {
    /// Takes `folder`. Where the file system knows no locks, nothing is held.
    ///
    /// # Errors
    /// [`Error::Data`] when another process holds it; [`Error::Io`] when nothing can be written there.
    pub fn take(folder: &Path) -> Result<Self> {
        let path = folder.join(NAME);
        let file = File::options().create(true).append(true).open(&path).map_err(Error::io(&path))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: Some(file) }),
            Err(TryLockError::WouldBlock) => {
                Err(Error::data(folder, "another process writes here: wait for its end, or stop it"))
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
