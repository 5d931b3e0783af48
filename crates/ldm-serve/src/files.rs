//! The files of jobs, and their removal.

use std::fs::{File, Permissions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ldm_core::files::sync_folder;

use crate::job::{Job, now};
use crate::jobs::Jobs;
use crate::options::ResultRetention;
use crate::{ErrorKind, ServeError};

/// Bytes of the reserve: several pages of the journal.
const RESERVE: u64 = 1 << 18;

impl Jobs {
    /// Removes the folders of requests that were not accepted, and of jobs whose removal was interrupted.
    pub(crate) fn remove_unknown_folders(&self) -> Result<(), ServeError> {
        for entry in std::fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if is_id(&name) && !self.journal.has(&name)? {
                remove_all(&entry.path())?;
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
        remove_all(&self.folder.join(id))?;
        if full {
            // The journal needs a few pages to say so, also on a full disk.
            let _ = File::options().write(true).open(self.reserve()).and_then(|file| file.set_len(0));
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
        let before = now().saturating_sub(age);
        let mut expired = self.journal.expired(before, retention.bytes, retention.jobs)?;
        let awaited = self.awaited();
        expired.retain(|id| !awaited.contains(id));
        for id in &expired {
            self.remove(id)?;
        }
        self.keep_reserve();
        if expired.is_empty() { Ok(()) } else { self.journal.shrink() }
    }

    /// The file that takes the room which the journal needs for removals on a full disk.
    fn reserve(&self) -> PathBuf {
        self.folder.with_file_name("reserve")
    }

    /// Takes the room of the reserve, as far as the disk has it.
    pub(crate) fn keep_reserve(&self) {
        let path = self.reserve();
        if path.metadata().is_ok_and(|data| data.len() == RESERVE) {
            return;
        }
        if let Err(error) = std::fs::write(&path, vec![0; RESERVE as usize]) {
            let _ = std::fs::write(&path, []);
            tracing::warn!(%error, "no reserve for a full disk: {}", path.display());
        }
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

/// True for a name of a job: 32 hexadecimal digits.
fn is_id(name: &str) -> bool {
    name.len() == 32 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Makes a folder that only this account may read: prompts and images are nobody else's.
///
/// # Errors
/// When it cannot be made.
pub(crate) fn make_private(path: &Path) -> Result<(), ServeError> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| ServeError::new(ErrorKind::Storage, format!("{}: {error}", path.display())))
}

/// Checks that the folder of the results has nothing else, since the server removes what it does not know there.
///
/// # Errors
/// With the name that is not the server's, and for results without a journal.
pub(crate) fn check_content(folder: &Path, journal: bool) -> Result<(), ServeError> {
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        // Hidden files are those of the system: .DS_Store, .nfs0001.
        if name.starts_with('.') {
            continue;
        }
        let path = folder.display();
        let message = match (is_id(&name), journal) {
            (true, true) => continue,
            (true, false) => format!("{path}: expected no results without their journal; try another --data"),
            (false, _) => {
                format!("{path}: expected only the server's own folders, got {name}; try another --data")
            }
        };
        return Err(ServeError::new(ErrorKind::Storage, message));
    }
    Ok(())
}

/// Removes a folder, or what is in its place.
fn remove_all(path: &Path) -> Result<(), ServeError> {
    let removed = match path.symlink_metadata() {
        Ok(found) if found.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Bytes of the files of a folder.
pub(crate) fn folder_size(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|data| data.len()).sum()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::ends::End;
    use crate::jobs::InputFiles;
    use crate::options::Limits;
    use crate::request::GenerationRequest;

    #[test]
    fn a_result_that_a_client_waits_for_is_kept() {
        let data = tempfile::tempdir().unwrap();
        let jobs = Jobs::open(data.path(), &Limits::default()).unwrap();
        let request = GenerationRequest { prompt: "fire".into(), ..GenerationRequest::default() };
        let job = jobs.submit(request, "v1", None, InputFiles::default()).unwrap();
        write_unsynced(&jobs.image(&job.id, 0), b"png").unwrap();
        let (id, folder) = (job.id.clone(), data.path().join("jobs").join(&job.id));
        jobs.finish(&Arc::clone(&job), End::Done);
        let none = ResultRetention { age: Duration::from_hours(1), bytes: 0, jobs: 10 };
        jobs.expire(none).unwrap();
        assert!(folder.exists() && jobs.find(&id).is_ok());
        drop(job);
        jobs.expire(none).unwrap();
        assert!(!folder.exists() && jobs.find(&id).is_err());
    }
}
