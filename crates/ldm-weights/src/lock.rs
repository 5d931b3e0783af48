//! The lock of a resource's folder.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;

use ldm_core::{Error, Result};

use crate::DownloadEvent;

/// A lock on a resource's folder during installation; the system releases it when the process ends.
#[derive(Debug)]
pub(crate) struct InstallLock {
    _file: File,
    exclusive: bool,
}

impl InstallLock {
    /// Creates `folder` and waits for other installations into it.
    pub(crate) fn take(folder: &Path, observe: &mut dyn FnMut(DownloadEvent)) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        // Appended to, since a truncation would follow a link.
        let file = File::options().create(true).append(true).open(folder.join(".lock"));
        let file = file.map_err(Error::io(folder))?;
        let locked = match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                observe(DownloadEvent::Waiting(folder));
                file.lock()
            }
            Err(TryLockError::Error(error)) => Err(error),
            Ok(()) => Ok(()),
        };
        match locked {
            // Network file systems may have no locks, and must still work.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                observe(DownloadEvent::NoLocks(folder));
                return Ok(Self { _file: file, exclusive: false });
            }
            other => other.map_err(Error::io(folder))?,
        }
        Ok(Self { _file: file, exclusive: true })
    }

    /// Returns whether no other process installs into the folder; false on file systems without locks.
    pub(crate) fn is_exclusive(&self) -> bool {
        self.exclusive
    }
}
