//! The files of jobs, and their removal.

use std::path::{Path, PathBuf};

use crate::job::now;
use crate::jobs::Jobs;
use crate::options::ResultRetention;
use crate::{ErrorKind, ServeError};

impl Jobs {
    /// Removes the folders of requests that were not accepted, and of jobs whose removal was interrupted.
    pub(crate) fn remove_unknown_folders(&self) -> Result<(), ServeError> {
        for entry in std::fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if self.journal.find(&name.to_string_lossy())?.is_none() {
                std::fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }

    /// Removes a job that has ended, with its files.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::Conflict`] for a job that has not ended, and when it cannot be written.
    pub(crate) fn remove(&self, id: &str) -> Result<(), ServeError> {
        if !self.find(id)?.state.is_final() {
            return Err(ServeError::new(
                ErrorKind::Conflict,
                "expected a job that has ended; try to cancel it",
            ));
        }
        self.journal.remove(id)?;
        let folder = self.folder.join(id);
        if folder.exists() {
            std::fs::remove_dir_all(folder)?;
        }
        self.changed();
        Ok(())
    }

    /// Removes jobs beyond the retention.
    ///
    /// # Errors
    /// When the journal or the files cannot be written.
    pub(crate) fn expire(&self, retention: ResultRetention) -> Result<(), ServeError> {
        let age = u64::try_from(retention.age.as_millis()).unwrap_or(u64::MAX);
        let expired = self.journal.expired(now().saturating_sub(age), retention.bytes)?;
        for id in &expired {
            self.remove(id)?;
        }
        if expired.is_empty() { Ok(()) } else { self.journal.shrink() }
    }

    /// The file of an input, by its name in the stored request.
    pub(crate) fn input(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The PNG of image `index` of job `id`. Only IDs of the journal are asked for.
    pub(crate) fn image(&self, id: &str, index: usize) -> PathBuf {
        self.folder.join(id).join(format!("{index:05}.png"))
    }

    /// The latents of image `index` of job `id`.
    pub(crate) fn latents(&self, id: &str, index: usize) -> PathBuf {
        self.folder.join(id).join(format!("{index:05}.safetensors"))
    }
}

/// Bytes of the files of a folder.
pub(crate) fn folder_size(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|data| data.len()).sum()
}
