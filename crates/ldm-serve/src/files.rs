//! The files of jobs, and their removal.

use std::fs::{File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ldm_core::files::sync_folder;

use crate::job::{Job, now};
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

    /// Jobs that are done by the journal, but whose files are incomplete, wait again: images do not wait for the disk, and a
    /// power cut may have come before them. A folder that is absent was removed.
    pub(crate) fn reopen_incomplete(&self) -> Result<(), ServeError> {
        for (id, bytes) in self.journal.done()? {
            let folder = self.folder.join(&id);
            if folder.exists() && folder_size(&folder) < bytes {
                tracing::warn!(job = id, "its images are incomplete: sampled again");
                self.journal.reopen(&id)?;
            }
        }
        Ok(())
    }

    /// Waits until a job that was accepted is on the disk, with its inputs.
    pub(crate) fn sync(&self, job: &Job) -> Result<(), ServeError> {
        let request = &job.request;
        let inputs = [&request.image, &request.mask, &request.label_map];
        for name in inputs.into_iter().flatten() {
            sync_file(&self.input(name))?;
        }
        if inputs.iter().any(|name| name.is_some()) {
            sync_folder(self.folder.join(&job.id))?;
            sync_folder(&self.folder)?;
        }
        self.journal.sync()
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
        let removed = self.journal.remove(id).and_then(|()| self.journal.sync());
        let full = removed.as_ref().is_err_and(|error| error.kind == ErrorKind::Storage);
        if !full {
            removed?;
        }
        let folder = self.folder.join(id);
        if folder.exists() {
            std::fs::remove_dir_all(folder)?;
        }
        if full {
            // On a full disk the journal has room once the files are gone.
            self.journal.remove(id)?;
        }
        self.active().unwritten.remove(id);
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

/// Writes a file as a whole, in a folder that is created where absent, but does not wait for the disk: a program that is
/// killed leaves the file or nothing, a power cut soon after may leave an incomplete one.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn write_unsynced(path: &Path, bytes: &[u8]) -> Result<(), ServeError> {
    let folder = path.parent().expect("a file in the folder of a job");
    std::fs::create_dir_all(folder)?;
    let permissions = Permissions::from_mode(0o666); // less the umask
    let mut file = tempfile::Builder::new().prefix(".part-").permissions(permissions).tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// Waits until the bytes of a file are on the disk.
///
/// # Errors
/// When it cannot be read, or the disk fails.
pub(crate) fn sync_file(path: &Path) -> Result<(), ServeError> {
    Ok(File::open(path)?.sync_data()?)
}

/// Bytes of the files of a folder.
pub(crate) fn folder_size(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|data| data.len()).sum()
}
