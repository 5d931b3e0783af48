//! Exclusive locks on folders.

use std::fs::{File, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// The locked file, which stays; while it is locked it names the owner.
const NAME: &str = ".lock";

/// An exclusive lock on a folder until it is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct FolderLock {
    folder: PathBuf,
    file: File,
    /// The reason why this is no lock.
    missing: Option<std::io::Error>,
}

impl FolderLock {
    /// Name of the file in a locked folder.
    pub const NAME: &str = NAME;

    /// Locks `folder`. On a file system without locks this has no effect but a [`note`](Self::note).
    ///
    /// # Errors
    /// [`Error::Data`] when another process holds the lock; [`Error::Io`] when the folder is not writable.
    pub fn take(folder: &Path) -> Result<Self> {
        let path = folder.join(NAME);
        let mut options = File::options();
        options.create(true).read(true).append(true);
        // In a folder of others it could be a link to a file of this user.
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::custom_flags(
            &mut options,
            rustix::fs::OFlags::NOFOLLOW.bits().cast_signed(),
        );
        let file = options.open(&path).map_err(Error::io(&path))?;
        let locked = file.try_lock();
        Self::locked(folder, file, locked)
    }

    fn locked(folder: &Path, file: File, locked: std::result::Result<(), TryLockError>) -> Result<Self> {
        let missing = match locked {
            Ok(()) => None,
            Err(TryLockError::Error(error)) => Some(error),
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                let _ = (&file).take(300).read_to_string(&mut owner); // which may be unknown
                let owner = owner.strip_suffix('\n').map_or(String::new(), |owner| format!(" ({owner})"));
                let message = format!("another process writes here{owner}; try again after its end");
                return Err(Error::data(folder, message));
            }
        };
        let mut lock = Self { folder: folder.to_path_buf(), file, missing };
        lock.write_owner();
        Ok(lock)
    }

    /// For the message of others. A full disk is no error: the lock holds without a name.
    fn write_owner(&mut self) {
        if self.missing.is_none() && self.file.set_len(0).is_ok() {
            let host = sysinfo::System::host_name().unwrap_or_default();
            let _ = writeln!(self.file, "process {} on {host}", std::process::id());
        }
    }

    /// A note for the user where the file system has no locks.
    pub fn note(&self) -> Option<String> {
        let error = self.missing.as_ref()?;
        Some(format!(
            "{}: expected a file system with locks, got none ({error}); start no second process that writes here",
            self.folder.display()
        ))
    }
}

impl Drop for FolderLock {
    fn drop(&mut self) {
        if self.missing.is_none() {
            let _ = self.file.set_len(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_holder_who_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let held = FolderLock::take(folder.path()).unwrap();
        assert_eq!(held.note(), None);
        let error = FolderLock::take(folder.path()).unwrap_err().to_string();
        let owner = format!("another process writes here (process {} on ", std::process::id());
        assert!(error.contains(&owner), "{error}");
        drop(held);
        assert_eq!(std::fs::read(folder.path().join(NAME)).unwrap(), b"");
        FolderLock::take(folder.path()).unwrap();
    }

    #[test]
    fn a_file_system_without_locks_is_noted() {
        let folder = tempfile::tempdir().unwrap();
        let file = File::create_new(folder.path().join(NAME)).unwrap();
        let unsupported = TryLockError::Error(std::io::ErrorKind::Unsupported.into());
        let note = FolderLock::locked(folder.path(), file, Err(unsupported)).unwrap().note().unwrap();
        assert!(note.contains("expected a file system with locks, got none"), "{note}");
        assert_eq!(std::fs::read(folder.path().join(NAME)).unwrap(), b"");
    }

    #[test]
    fn a_lock_that_is_a_link_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (private, lock) = (folder.path().join("private"), folder.path().join(NAME));
        std::fs::write(&private, b"something").unwrap();
        std::os::unix::fs::symlink(&private, lock).unwrap();
        assert!(matches!(FolderLock::take(folder.path()), Err(Error::Io { .. })));
        assert_eq!(std::fs::read(&private).unwrap(), b"something");
    }
}
