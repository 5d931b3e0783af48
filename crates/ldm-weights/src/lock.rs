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
}

impl InstallLock {
    /// Creates `folder` and waits for other installations into it.
    pub(crate) fn take(folder: &Path, observe: &mut dyn FnMut(DownloadEvent)) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        let file = File::create(folder.join(".lock")).map_err(Error::io(folder))?;
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
            }
            other => other.map_err(Error::io(folder))?,
        }
        Ok(Self { _file: file })
    }
}
